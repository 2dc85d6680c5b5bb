"""Endpoints: where to connect, what the server supports, and which key and headers to send.

A URL is checked and turned into the WebSocket URL in one place, `websocket_url`. No error message
of this module quotes a key or the value of a header.
"""

from __future__ import annotations

import os
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, cast
from urllib.parse import urlsplit, urlunsplit

from trio_responses._errors import ConfigurationError, ConnectError
from trio_responses._settings import (
    TransportOption,  # noqa: TC001 - get_type_hints() reads it
    check_option_values,
)

if TYPE_CHECKING:
    from typing import Self

__all__ = ["ApiKey", "Endpoint", "Headers", "azure_url", "is_loopback", "websocket_url"]

VERSION: Final = version("trio-responses")
USER_AGENT = f"trio-responses/{VERSION}"

ApiKey: TypeAlias = str | Callable[[], Awaitable[str]]
"""The API key, or an async function that returns it.

The function is called for every handshake, and once more when the server refuses a key. An
exception that it raises becomes the cause of a `ConnectError`. The key is in no repr, message or
log.
"""
Headers: TypeAlias = Mapping[str, str] | Iterable[tuple[str, str]]
"""Headers for every handshake: a mapping, or pairs of name and value in order."""

OFFICIAL_URL = "https://api.openai.com/v1"
OFFICIAL_HOST = re.compile(r"(?:(?:us|eu|ae|au|in|jp)\.)?api\.openai\.com")
PORTS = {"ws": 80, "wss": 443}
HEADER_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
HEADER_VALUE = re.compile(r"(?![\t ])[\t\x20-\x7e\x80-\xff]*(?<![\t ])")
HANDSHAKE_HEADER = re.compile(
    r"host|connection|upgrade|sec-websocket-.*|content-length|transfer-encoding", re.IGNORECASE
)
HOUR = 3600.0
MAX_PORT: Final = 65535


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """The profile of a server: its URL, and how it differs from others of the same protocol.

    Make one with a class method. A URL that is given to `open_responses` gets the profile of
    `openai` for OpenAI's own hosts and of `compatible` for all others.
    """

    url: str
    """The WebSocket URL, ending in ``/responses``."""
    lanes: bool = False
    """Whether the server supports ``stream_id``; many servers ignore or refuse it."""
    max_age: float | None = None
    """Seconds after which the server ends a socket; `None` when it has no such limit."""
    rotate_after: float | None = None
    """Seconds after which the client replaces a socket, before ``max_age``; `None` for never."""
    after_error: Literal["reuse", "replace"] = "reuse"
    """Whether a socket is used after an error frame or replaced: some servers send nothing more."""
    key_header: str = "Authorization"
    """The header for the key: ``Authorization`` (as a Bearer token) or another (the key alone)."""
    key_variable: str = "OPENAI_API_KEY"
    """The environment variable with the key, used when no ``api_key`` is given."""
    requires_key: bool = False
    """Whether the server needs a key: without one, nothing is dialled."""
    instructions_with_parent: bool = True
    """Whether the server accepts ``instructions`` together with ``previous_response_id``."""
    transport: TransportOption = "auto"
    """How requests are sent: ``"websocket"``, ``"http"``, or ``"auto"``: over HTTP where no
    WebSocket can be used."""
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    """Headers that every handshake with this server sends."""

    def __post_init__(self) -> None:
        """Check the values, and replace the URL by the WebSocket URL.

        :raises ConfigurationError: for a URL that cannot be dialled, and for an invalid
            ``after_error``.
        """
        check_option_values(after_error=self.after_error, transport=self.transport)
        object.__setattr__(self, "url", websocket_url(self.url))

    @classmethod
    def openai(cls, url: str = OFFICIAL_URL) -> Self:
        """Return the profile of OpenAI: with lanes, sockets end after one hour.

        The environment variables ``OPENAI_ORG_ID`` and ``OPENAI_PROJECT_ID`` are sent as headers,
        as the official SDK does. Source: OpenAI's guide, "WebSocket mode".
        """
        variables = {"OpenAI-Organization": "OPENAI_ORG_ID", "OpenAI-Project": "OPENAI_PROJECT_ID"}
        headers = {header: os.environ.get(variable) for header, variable in variables.items()}
        return cls(
            url=url,
            lanes=True,
            max_age=HOUR,
            rotate_after=50 * 60.0,
            requires_key=True,
            headers=tuple((name, value) for name, value in headers.items() if value),
        )

    @classmethod
    def azure(cls, resource: str, *, token: bool = False) -> Self:
        """Return the profile of an Azure OpenAI or Foundry resource, for its v1 route.

        The ``model`` of a request is the name of the deployment.

        :param resource: the resource's name or URL; ``/openai/v1`` is appended to a URL without a
            path.
        :param token: whether the key is an Entra token, sent as a Bearer token, rather than a
            resource key, sent as ``api-key``.
        :raises ConfigurationError: when ``resource`` is neither a name nor a URL.
        """
        return cls(
            url=azure_url(resource),
            max_age=HOUR,
            rotate_after=50 * 60.0,
            key_header="Authorization" if token else "api-key",
            key_variable="AZURE_OPENAI_AD_TOKEN" if token else "AZURE_OPENAI_API_KEY",
            requires_key=True,
        )

    @classmethod
    def xai(cls) -> Self:
        """Return the profile of xAI: without lanes, sockets end after 25 minutes.

        xAI accepts no ``instructions`` together with ``previous_response_id``.
        """
        return cls(
            url="https://api.x.ai/v1",
            max_age=25 * 60.0,
            rotate_after=24 * 60.0,
            key_variable="XAI_API_KEY",
            after_error="replace",
            requires_key=True,
            instructions_with_parent=False,
        )

    @classmethod
    def compatible(
        cls,
        url: str,
        *,
        lanes: bool = False,
        max_age: float | None = None,
        after_error: Literal["reuse", "replace"] = "replace",
        instructions_with_parent: bool = True,
        transport: TransportOption = "auto",
    ) -> Self:
        """Return the profile of any other server that speaks the protocol.

        The defaults assume no optional feature.

        :param url: the base URL, as in ``OPENAI_BASE_URL``, or the WebSocket URL itself.
        :param lanes: whether the server supports ``stream_id``.
        :param max_age: seconds after which the server ends a socket; the client replaces it after
            5/6 of them.
        :param after_error: ``"replace"`` opens a new socket after an error frame, since some
            servers send nothing more after one; ``"reuse"`` goes on with the old socket.
        :param instructions_with_parent: whether the server accepts ``instructions`` together with
            ``previous_response_id``.
        :param transport: how requests are sent; ``"http"`` for a server without WebSocket mode.
        """
        return cls(
            url=url,
            lanes=lanes,
            max_age=max_age,
            rotate_after=None if max_age is None else max_age * 5 / 6,
            after_error=after_error,
            instructions_with_parent=instructions_with_parent,
            transport=transport,
        )

    @classmethod
    def of(cls, url: str | None) -> Self:
        """Return the profile for a URL: `openai` for OpenAI's own hosts, else `compatible`.

        :param url: `None` for the URL in ``OPENAI_BASE_URL``, or OpenAI's when that is not set.
        """
        other = cls.compatible(url or os.environ.get("OPENAI_BASE_URL") or OFFICIAL_URL)
        is_official = OFFICIAL_HOST.fullmatch(other.tls_name)
        return cls.openai(other.url) if is_official else other

    @property
    def secure(self) -> bool:
        """Whether connections to the server use TLS."""
        return self.url.startswith("wss:")

    @property
    def host(self) -> str:
        """The host to dial."""
        host = urlsplit(self.url).hostname
        assert host  # noqa: S101 - websocket_url() has checked it
        return host

    @property
    def tls_name(self) -> str:
        """The host's name for TLS: without the trailing dot of a fully qualified name (SNI)."""
        return self.host.removesuffix(".")

    @property
    def port(self) -> int:
        """The port to dial."""
        parts = urlsplit(self.url)
        return parts.port or PORTS[parts.scheme]

    @property
    def authority(self) -> str:
        """The value of the ``Host`` header."""
        return urlsplit(self.url).netloc

    @property
    def address(self) -> str:
        """The host, the port and the path: the name of the endpoint in statistics and logs."""
        return f"{self.authority}{self.path}"

    @property
    def base_url(self) -> str:
        """The base URL, as other clients take it: with ``http`` or ``https``, without a query."""
        path = self.path.removesuffix("/responses")
        return f"{'https' if self.secure else 'http'}://{self.authority}{path}"

    @property
    def path(self) -> str:
        """The path of the upgrade request."""
        return urlsplit(self.url).path

    @property
    def resource(self) -> str:
        """The request target: path and query."""
        query = urlsplit(self.url).query
        return f"{self.path}?{query}" if query else self.path

    @property
    def loopback(self) -> bool:
        """Whether the host is this machine: a loopback address or ``localhost``."""
        return is_loopback(self.host)


def choose_endpoint(url: str | None, endpoint: Endpoint | None) -> Endpoint:
    """Return the endpoint that the option ``base_url`` or ``endpoint`` specifies.

    :raises ConfigurationError: when both are given, or ``endpoint`` is no `Endpoint`.
    """
    if endpoint is None:
        return Endpoint.of(url)
    if url is not None:
        raise ConfigurationError(
            "pass base_url or endpoint, not both: an endpoint has a URL of its own"
        )
    if not isinstance(endpoint, Endpoint):
        kind = type(endpoint).__name__
        raise ConfigurationError(f"endpoint must be an Endpoint, not {kind}: a URL is for base_url")
    return endpoint


class HeaderLines(tuple[tuple[str, str], ...]):
    """The headers of a handshake, which include the key: the repr shows only their names."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"<headers {', '.join(name for name, _ in self)}>"


def checked_headers(headers: Headers) -> HeaderLines:
    """Return the headers as pairs of name and value.

    :raises ConfigurationError: for a name or value that HTTP does not allow, such as one with CR or
        LF or a value that begins or ends with white space; and for a header that the handshake
        itself sets. The message does not quote a value, which may be a secret.
    """
    if isinstance(headers, Mapping):
        headers = cast("Mapping[str, str]", headers).items()
    try:
        pairs = tuple((name, value) for name, value in headers)
    except (TypeError, ValueError):
        raise ConfigurationError("headers must be a mapping, or pairs of name and value") from None
    for number, (name, value) in enumerate(pairs, 1):
        if not _matches(HEADER_NAME, name):
            raise ConfigurationError(
                f"header {number} has a name that HTTP does not allow: use letters, digits and -"
            )
        if HANDSHAKE_HEADER.fullmatch(name):
            raise ConfigurationError(
                f"header {name!r} is set by the handshake: leave it out of headers"
            )
        if not _matches(HEADER_VALUE, value):
            raise ConfigurationError(
                f"header {name!r} has a value that HTTP does not allow: no line breaks, no spaces"
                " at its ends, no characters outside of Latin-1"
            )
    return HeaderLines(pairs)


def _matches(grammar: re.Pattern[str], text: object) -> bool:
    return isinstance(text, str) and grammar.fullmatch(text) is not None


def api_key_for(endpoint: Endpoint, given: ApiKey | None) -> ApiKey | None:
    """Return the given key, or the key in the endpoint's environment variable.

    :return: `None` when no key is sent, for an endpoint that does not require one.
    :raises ConfigurationError: when there is no key and the endpoint requires one.
    """
    key = os.environ.get(endpoint.key_variable) if given is None else given
    if callable(key) or (isinstance(key, str) and key):
        return key
    if key is not None and not isinstance(key, str):
        raise ConfigurationError("api_key must be a string or an async callable that returns one")
    if endpoint.requires_key:
        raise ConfigurationError(f"no API key: set {endpoint.key_variable} or pass api_key")
    return None


def key_hint(endpoint: Endpoint, given: ApiKey | None, headers: HeaderLines) -> str:
    """Return a hint for a refused key: which argument or variable the user should check."""
    if endpoint.key_header.lower() in {name.lower() for name, _ in headers}:
        return f"is {endpoint.key_header} in headers right?"
    if callable(given):
        return "does api_key() return the right key?"
    if given:
        return "is api_key the right key?"
    if given is None and os.environ.get(endpoint.key_variable):
        return f"is {endpoint.key_variable} the right key?"
    return f"no key was sent: set {endpoint.key_variable} or pass api_key"


async def handshake_headers(
    endpoint: Endpoint, api_key: ApiKey | None, headers: tuple[tuple[str, str], ...]
) -> HeaderLines:
    """Return all headers of one handshake; a callable key is called for each.

    The user's headers replace those of the endpoint and of the library with the same name.

    :raises ConnectError: when the callable raises; the next attempt calls it again.
    :raises ConfigurationError: when the key is no string, or HTTP does not allow it in a header.
    """
    if callable(api_key):
        try:
            key: Any = api_key()
            if isinstance(key, Awaitable):
                key = await cast("Awaitable[str]", key)
        except Exception as error:
            raise ConnectError(f"api_key() raised {type(error).__name__}") from error
        if not isinstance(key, str):
            raise ConfigurationError(f"api_key() must return a string, not {type(key).__name__}")
        api_key = key
    own = [("User-Agent", USER_AGENT), *endpoint.headers]
    if api_key:
        if not _matches(HEADER_VALUE, api_key):
            raise ConfigurationError(
                "the API key has characters that no header can hold, such as a line break at its"
                " end: strip it"
            )
        bearer = endpoint.key_header == "Authorization"
        own.append((endpoint.key_header, f"Bearer {api_key}" if bearer else api_key))
    replaced = {name.lower() for name, _ in headers}
    rest = [(name, value) for name, value in own if name.lower() not in replaced]
    return HeaderLines((*headers, *checked_headers(rest)))


SCHEMES: Final = {"http": "ws", "https": "wss", "ws": "ws", "wss": "wss"}
URL_TEXT: Final = re.compile(r"[\x21-\x7e]+")
AZURE_RESOURCE: Final = re.compile(r"[A-Za-z0-9-]+")
NO_PATH: Final = re.compile(r"([a-z]+://[^/?#]+)/?(?=\?|\Z)", re.IGNORECASE)
HOST_ALONE: Final = re.compile(
    r"(?P<host>localhost|\d+(?:\.\d+){3}|\[[0-9a-f:.]+\]|[a-z0-9.-]+(?=:\d))"
    r"(?P<port>:\d{1,5})?(?P<path>/[a-z0-9./_-]*)?",
    re.IGNORECASE,
)
"""A host without a scheme, which may be meant as a URL; no API key has this form."""


def websocket_url(url: str) -> str:
    """Return the WebSocket URL for a base URL or a WebSocket URL.

    ``http`` becomes ``ws``, ``https`` becomes ``wss``, ``/responses`` is appended unless the path
    ends with it, and a query is kept, as in the official SDK.

    :raises ConfigurationError: for another scheme, a missing or invalid host, an invalid port, a
        user name or password (no handshake sends them), a fragment, and every character that is not
        printable ASCII.
    """
    if not isinstance(cast("object", url), str):
        raise ConfigurationError(_describe_no_url(url))
    if not _matches(URL_TEXT, url):
        raise ConfigurationError(
            "the URL must be a string of printable ASCII characters without spaces"
        )
    try:
        parts = urlsplit(url)
        port = parts.port
        (parts.hostname or "").encode("idna")  # the resolver does the same
    except ValueError as error:
        raise ConfigurationError(f"the URL cannot be dialled: {error}") from None
    if parts.scheme not in SCHEMES:
        hint = f", not {parts.scheme!r}" if "://" in url else _suggestion(url)
        raise ConfigurationError(f"a URL begins with https://, wss://, http:// or ws://{hint}")
    if not parts.hostname or port == 0:
        raise ConfigurationError("the URL names no host, or port 0: write https://host/v1")
    if "@" in parts.netloc:
        raise ConfigurationError(
            "the URL has a user name, which no handshake sends: pass the key as api_key"
        )
    if parts.fragment:
        raise ConfigurationError(
            "the URL has a fragment (#...), which a WebSocket URL cannot have: leave it out"
        )
    path = parts.path.rstrip("/")
    if not path.endswith("/responses"):
        path += "/responses"
    return urlunsplit((SCHEMES[parts.scheme], parts.netloc, path, parts.query, ""))


def _describe_no_url(given: object) -> str:
    """Return the message for a value that is no string; only a number is quoted, as no secret."""
    if not isinstance(given, int) or isinstance(given, bool):
        return f"the URL must be a string, such as 'https://host/v1', not {type(given).__name__}"
    port = given if 0 < given <= MAX_PORT else "PORT"
    return f"the URL must be a string, such as 'http://127.0.0.1:{port}/v1', not {given}"


def question_about_path(endpoint: Endpoint) -> str:
    """Return a question for an endpoint whose server does not know the path."""
    if endpoint.path == "/responses":
        return f"did you mean {endpoint.base_url}/v1?"
    return f"is the Responses API at {endpoint.address}?"


def azure_url(resource: str) -> str:
    """Return the base URL of an Azure resource; a URL with a path is returned unchanged.

    :raises ConfigurationError: when ``resource`` is neither a name nor a URL.
    """
    if _matches(AZURE_RESOURCE, resource):
        return f"https://{resource}.openai.azure.com/openai/v1"
    if not _matches(URL_TEXT, resource) or "://" not in resource:
        raise ConfigurationError(
            "resource must be a name of letters, digits and hyphens ('contoso'), or a whole URL"
            " ('https://contoso.openai.azure.com')"
        )
    found = NO_PATH.match(resource)
    return resource if found is None else f"{found[1]}/openai/v1{resource[found.end() :]}"


def is_loopback(host: str) -> bool:
    """Whether a host is this machine: a loopback address or ``localhost``."""
    host = host.removesuffix(".")
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _suggestion(url: str) -> str:
    """Return a hint with the URL that the user may have meant, or an empty text."""
    found = HOST_ALONE.fullmatch(url)
    if found is None:
        return ""
    scheme = "http" if is_loopback(found["host"].strip("[]").lower()) else "https"
    path = (found["path"] or "/").rstrip("/") or "/v1"
    return f" (did you mean {scheme}://{found['host']}{found['port'] or ''}{path}?)"
