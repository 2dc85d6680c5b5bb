"""Where to connect, and what that place can do: profiles, keys, headers.

What belongs elsewhere: how URLs are written (`urls.py`), numbers that hold for every place
(`settings.py`), dialling (`transport/websocket.py`).
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
from trio_responses._settings import check_option_values

if TYPE_CHECKING:
    from typing import Self

__all__ = ["ApiKey", "Endpoint", "Headers", "azure_url", "is_loopback", "websocket_url"]

USER_AGENT = f"trio-responses/{version('trio-responses')}"

ApiKey: TypeAlias = str | Callable[[], Awaitable[str]]
"""The key, or what gives it: called for every handshake, and once more where a key is refused.
What it raises is a `ConnectError`; the key is in no repr, message or log."""
Headers: TypeAlias = Mapping[str, str] | Iterable[tuple[str, str]]
"""Headers for every handshake: names and values, in order, or a mapping. No CR, no LF."""

OFFICIAL_URL = "https://api.openai.com/v1"
OFFICIAL_HOST = re.compile(r"(?:(?:us|eu|ae|au|in|jp)\.)?api\.openai\.com")
PORTS = {"ws": 80, "wss": 443}
HEADER_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
HEADER_VALUE = re.compile(r"(?![\t ])[\t\x20-\x7e\x80-\xff]*(?<![\t ])")
HANDSHAKE_HEADER = re.compile(
    r"host|connection|upgrade|sec-websocket-.*|content-length|transfer-encoding", re.IGNORECASE
)
HOUR = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """A server, and what differs between servers of the same protocol.

    Use one of the class methods. A bare URL given to `open_responses` is `compatible`, except
    for OpenAI's own hosts.
    """

    url: str
    """The WebSocket URL, ending in ``/responses``."""
    lanes: bool = False
    """Whether ``stream_id`` is understood; many servers ignore or refuse it."""
    max_age: float | None = None
    """Seconds after which the server ends a socket; `None` where it does not."""
    rotate_after: float | None = None
    """Seconds after which a socket is replaced, some time before ``max_age``."""
    after_error: Literal["reuse", "replace"] = "reuse"
    """What an error frame does to the socket: some servers fall silent after one."""
    key_header: str = "Authorization"
    """Where the key goes: ``Authorization`` (as a Bearer token) or a header of its own."""
    key_variable: str = "OPENAI_API_KEY"
    """The environment variable that is read for the key."""
    requires_key: bool = False
    """Whether it makes no sense to dial without a key."""
    instructions_with_parent: bool = True
    """Whether ``instructions`` may go along with ``previous_response_id``."""
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    """Headers that every handshake with this server carries."""

    def __post_init__(self) -> None:
        """Bring the URL into its one form.

        :raises ConfigurationError: for a URL that cannot be dialled, and for another word in
            ``after_error``.
        """
        check_option_values(after_error=self.after_error)
        object.__setattr__(self, "url", websocket_url(self.url))

    @classmethod
    def openai(cls, url: str = OFFICIAL_URL) -> Self:
        """OpenAI's own service: lanes, one hour a socket (guide, "WebSocket mode").

        ``OPENAI_ORG_ID`` and ``OPENAI_PROJECT_ID`` are sent as headers, as the official SDK
        does.
        """
        named = {"OpenAI-Organization": "OPENAI_ORG_ID", "OpenAI-Project": "OPENAI_PROJECT_ID"}
        headers = {header: os.environ.get(variable) for header, variable in named.items()}
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
        """Azure OpenAI or Foundry, v1 route; the model is the deployment's name.

        :param resource: the resource's name, or its URL; one without a path gets ``/openai/v1``.
        :param token: whether the key is an Entra token, sent as a Bearer token, rather than a
            resource key, sent as ``api-key``.
        :raises ConfigurationError: for what cannot be a resource's name.
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
        """xAI: no lanes, 25 minutes a socket, no ``instructions`` beside a parent."""
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
    ) -> Self:
        """Any other server that speaks the protocol: nothing is taken for granted.

        :param url: as ``OPENAI_BASE_URL`` has it, or the WebSocket URL itself.
        :param lanes: whether it understands ``stream_id``.
        :param max_age: seconds after which it ends a socket; it is replaced after 5/6 of them.
        :param after_error: ``"replace"`` opens a new socket after an error frame, since some
            servers fall silent after one; ``"reuse"`` trusts the old one.
        :param instructions_with_parent: whether ``instructions`` may go along with
            ``previous_response_id``.
        """
        return cls(
            url=url,
            lanes=lanes,
            max_age=max_age,
            rotate_after=None if max_age is None else max_age * 5 / 6,
            after_error=after_error,
            instructions_with_parent=instructions_with_parent,
        )

    @classmethod
    def of(cls, url: str | None) -> Self:
        """Choose the profile for a URL, or for ``OPENAI_BASE_URL`` where there is none."""
        url = websocket_url(url or os.environ.get("OPENAI_BASE_URL") or OFFICIAL_URL)
        if OFFICIAL_HOST.fullmatch(urlsplit(url).hostname or ""):
            return cls.openai(url)
        return cls.compatible(url)

    @property
    def secure(self) -> bool:
        """Whether the connection is over TLS."""
        return self.url.startswith("wss:")

    @property
    def host(self) -> str:
        """The host to dial."""
        host = urlsplit(self.url).hostname
        assert host  # noqa: S101 - websocket_url() saw to it
        return host

    @property
    def port(self) -> int:
        """The port to dial."""
        parts = urlsplit(self.url)
        return parts.port or PORTS[parts.scheme]

    @property
    def authority(self) -> str:
        """The ``Host`` header."""
        return urlsplit(self.url).netloc

    @property
    def path(self) -> str:
        """The path that is asked for."""
        return urlsplit(self.url).path

    @property
    def resource(self) -> str:
        """The request target: path and query."""
        query = urlsplit(self.url).query
        return f"{self.path}?{query}" if query else self.path

    @property
    def loopback(self) -> bool:
        """Whether the host is this machine, by its address or as ``localhost``."""
        return is_loopback(self.host)


def choose_endpoint(url: str | None, endpoint: Endpoint | None) -> Endpoint:
    """Choose the profile by what was given of the two.

    :raises ConfigurationError: for both, and for what is neither.
    """
    if endpoint is None:
        return Endpoint.of(url)
    if url is not None:
        raise ConfigurationError("give a url or an endpoint, not both")
    if not isinstance(endpoint, Endpoint):
        kind = type(endpoint).__name__
        raise ConfigurationError(f"endpoint must be an Endpoint, not {kind}: a URL is for url")
    return endpoint


class HeaderLines(tuple[tuple[str, str], ...]):
    """The headers of a handshake, the key among them: printed, it shows their names alone."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"<headers {', '.join(name for name, _ in self)}>"


def checked_headers(headers: Headers) -> HeaderLines:
    """Bring headers into pairs.

    :raises ConfigurationError: for names and values outside HTTP's grammar: CR and LF above
        all, and white space at the ends of a value; and for the headers that the handshake itself
        writes. What is refused is not quoted in the message: it may be a secret.
    """
    if isinstance(headers, Mapping):
        headers = cast("Mapping[str, str]", headers).items()
    try:
        pairs = tuple((name, value) for name, value in headers)
    except (TypeError, ValueError):
        raise ConfigurationError("headers= takes a mapping, or pairs of name and value") from None
    for name, value in pairs:
        if not _matches(HEADER_NAME, name):
            raise ConfigurationError("a header has a name that HTTP does not allow")
        if HANDSHAKE_HEADER.fullmatch(name):
            raise ConfigurationError(f"header {name!r} is the handshake's own")
        if not _matches(HEADER_VALUE, value):
            raise ConfigurationError(f"header {name!r} has a value that HTTP does not allow")
    return HeaderLines(pairs)


def _matches(grammar: re.Pattern[str], text: object) -> bool:
    return isinstance(text, str) and grammar.fullmatch(text) is not None


def api_key_for(endpoint: Endpoint, given: ApiKey | None) -> ApiKey | None:
    """Choose the key: the one given, or that of the endpoint's environment variable.

    :return: `None` where none is sent: an endpoint of your own may not need one.
    :raises ConfigurationError: when there is none and the endpoint requires one.
    """
    key = os.environ.get(endpoint.key_variable) if given is None else given
    if callable(key) or (isinstance(key, str) and key):
        return key
    if key is not None and not isinstance(key, str):
        raise ConfigurationError("api_key is a string or an async callable that gives one")
    if endpoint.requires_key:
        raise ConfigurationError(f"no API key: set {endpoint.key_variable} or give api_key")
    return None


def key_hint(endpoint: Endpoint, given: ApiKey | None, headers: HeaderLines) -> str:
    """Ask about the key, by where it is from: for whoever was refused with it."""
    if endpoint.key_header.lower() in {name.lower() for name, _ in headers}:
        return f"is {endpoint.key_header} in headers right?"
    if callable(given):
        return "does api_key() give the right key?"
    if given:
        return "is api_key the right key?"
    if given is None and os.environ.get(endpoint.key_variable):
        return f"is {endpoint.key_variable} the right key?"
    return f"no key was sent: set {endpoint.key_variable} or give api_key"


async def handshake_headers(
    endpoint: Endpoint, api_key: ApiKey | None, headers: tuple[tuple[str, str], ...]
) -> HeaderLines:
    """Put the headers of one handshake together; a callable key is called for it.

    The user's headers go before the endpoint's and the library's of the same name.

    :raises ConnectError: when the callable fails; the next attempt calls it again.
    :raises ConfigurationError: when the key cannot stand in a header.
    """
    if callable(api_key):
        try:
            key: Any = api_key()
            if isinstance(key, Awaitable):
                key = await cast("Awaitable[str]", key)
        except Exception as error:
            raise ConnectError(f"api_key() raised {type(error).__name__}") from error
        if not isinstance(key, str):
            raise ConfigurationError("api_key() did not give a string")
        api_key = key
    own = [("User-Agent", USER_AGENT), *endpoint.headers]
    if api_key:
        bearer = endpoint.key_header == "Authorization"
        own.append((endpoint.key_header, f"Bearer {api_key}" if bearer else api_key))
    taken = {name.lower() for name, _ in headers}
    rest = [(name, value) for name, value in own if name.lower() not in taken]
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
"""What somebody may have meant as a URL; no key looks like it."""


def websocket_url(url: str) -> str:
    """Map a base URL or a WebSocket URL to the one that is dialled.

    ``http`` becomes ``ws``, ``https`` becomes ``wss``, ``/responses`` is appended where it is
    missing, and a query is kept, all as the official SDK does it.

    :raises ConfigurationError: for other schemes, no host or a name that cannot be one, a port
        that is none, user names or passwords (they would be sent nowhere), fragments, spaces,
        control characters, and what is not ASCII.
    """
    if not _matches(URL_TEXT, url):
        raise ConfigurationError("a URL is a string of printable ASCII, without spaces")
    try:
        parts = urlsplit(url)
        port = parts.port
        (parts.hostname or "").encode("idna")  # as the resolver will do
    except ValueError as error:
        raise ConfigurationError(f"not a URL that can be dialled: {error}") from None
    if parts.scheme not in SCHEMES:
        instead = f", not {parts.scheme!r}" if "://" in url else _suggestion(url)
        raise ConfigurationError(f"a URL begins with https://, wss://, http:// or ws://{instead}")
    if not parts.hostname or port == 0:
        raise ConfigurationError("the URL names no host or no port that can be dialled")
    if "@" in parts.netloc:
        raise ConfigurationError("a key belongs in api_key, not in the URL")
    if parts.fragment:
        raise ConfigurationError("a WebSocket URL has no fragment (RFC 6455, section 3)")
    path = parts.path.rstrip("/")
    if not path.endswith("/responses"):
        path += "/responses"
    return urlunsplit((SCHEMES[parts.scheme], parts.netloc, path, parts.query, ""))


def azure_url(resource: str) -> str:
    """Make the base URL of a resource at Azure: that of the v1 route, where it has no path.

    :raises ConfigurationError: for what is neither a name nor a URL.
    """
    if _matches(AZURE_RESOURCE, resource):
        return f"https://{resource}.openai.azure.com/openai/v1"
    if not _matches(URL_TEXT, resource) or "://" not in resource:
        raise ConfigurationError(
            "the resource is its name, of letters, digits and hyphens ('contoso'), or its whole"
            " URL ('https://contoso.openai.azure.com')"
        )
    found = NO_PATH.match(resource)
    return resource if found is None else f"{found[1]}/openai/v1{resource[found.end() :]}"


def is_loopback(host: str) -> bool:
    """Whether a host is this machine, by its address or as ``localhost``."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _suggestion(url: str) -> str:
    """Say what may have been meant, where that is plain."""
    found = HOST_ALONE.fullmatch(url)
    if found is None:
        return ""
    scheme = "http" if is_loopback(found["host"].strip("[]").lower()) else "https"
    path = (found["path"] or "/").rstrip("/") or "/v1"
    return f" (did you mean {scheme}://{found['host']}{found['port'] or ''}{path}?)"
