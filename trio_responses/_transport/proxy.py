"""Choose the proxy of a connection: from an option or the environment, except for ``NO_PROXY``."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from ipaddress import IPv6Address, ip_address, ip_network
from typing import TYPE_CHECKING, Final, Literal, TypeAlias
from urllib.parse import unquote_to_bytes, urlsplit

from trio_responses._errors import ConfigurationError

if TYPE_CHECKING:
    from ipaddress import IPv4Address, IPv4Network, IPv6Network
    from typing import Self
    from urllib.parse import SplitResult

    from trio_responses._endpoint import Endpoint

__all__ = ["Proxy", "ProxyOption", "choose_proxy", "is_exempt"]

ProxyOption: TypeAlias = str | Literal[False] | None
"""A proxy's URL; `False` for no proxy; `None` for the proxy of the environment variables."""

PORTS: Final = {"http": 80, "https": 443, "socks5": 1080, "socks5h": 1080}
URL_TEXT: Final = re.compile(r"[\x21-\x7e]+")
CONTROL_BYTES: Final = re.compile(rb"[\x00-\x1f\x7f]")
SOCKS_FIELD: Final = re.compile(rb"[\x00-\x7f]{1,255}")

VARIABLES: Final = {
    "wss": ("wss_proxy", "https_proxy", "all_proxy"),
    "ws": ("ws_proxy", "http_proxy", "all_proxy"),
}
"""The environment variables for each scheme; the first that is not empty wins, as in curl."""

EXEMPTION: Final = re.compile(
    r"(?:\[(?P<six>[^\]/]+)\](?P<bits>/\d+)?|(?P<name>[^:\[\]]+))(?::(?P<port>\d{1,5}))?"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Proxy:
    """A proxy's address, scheme and credentials."""

    scheme: str
    host: str
    port: int
    credentials: tuple[bytes, bytes] | None = field(default=None, repr=False)
    """User name and password, percent-decoded; `None` when the proxy needs none."""

    @classmethod
    def of(cls, url: str, source: str = "proxy") -> Self:
        """Parse a proxy's URL; without a scheme, it is ``http``.

        :param source: the option or environment variable that has the URL. Error messages name it
            and quote no part of the URL, which may hold a password.
        :raises ConfigurationError: when the URL is not the URL of a proxy.
        """
        parsed = cls._parse(url)
        del url  # a tool that shows the local variables of a traceback would show the password
        if isinstance(parsed, str):
            raise ConfigurationError(f"{source}: {parsed}")
        return parsed

    @classmethod
    def _parse(cls, url: str) -> Self | str:
        """Return the proxy with a URL, or what is wrong with the URL."""
        if not _is_url_text(url):
            return "a proxy's URL has printable ASCII characters only, and no spaces"
        parts = _split(url if "://" in url else f"http://{url}")
        if parts is None:
            return (
                "the proxy's URL has no valid host and port: write http://host:port, with a port"
                " from 1 to 65535"
            )
        if not parts.hostname or parts.port == 0:
            return "the proxy's URL names no host, or port 0: write http://host:port"
        problem = _problem_of(parts)
        if problem is not None:
            return problem
        credentials = _credentials(parts)
        if isinstance(credentials, str):
            return credentials
        return cls(
            scheme=parts.scheme,
            host=parts.hostname,
            port=parts.port or PORTS[parts.scheme],
            credentials=credentials,
        )

    @property
    def address(self) -> str:
        """Host and port, without credentials: safe to print."""
        return host_and_port(self.host, self.port)

    @property
    def is_loopback(self) -> bool:
        """Whether the proxy runs on this machine, by its address or as ``localhost``."""
        host = self.host.removesuffix(".")
        address = _address(host)
        return host == "localhost" if address is None else address.is_loopback

    @property
    def is_socks(self) -> bool:
        """Whether the proxy speaks SOCKS5 rather than HTTP."""
        return self.scheme.startswith("socks")


def _is_url_text(url: object) -> bool:
    return isinstance(url, str) and URL_TEXT.fullmatch(url) is not None


def _split(url: str) -> SplitResult | None:
    """Return the parts of a URL; `None` when it cannot be parsed.

    The exceptions of `urllib` quote parts of the URL, so none may become the context of another.
    """
    try:
        parts = urlsplit(url)
        _ = parts.port
        (parts.hostname or "").encode("idna")  # the resolver does the same
    except ValueError:
        return None
    return parts


def _problem_of(parts: SplitResult) -> str | None:
    """Return why a URL is not that of a proxy; `None` if it is one."""
    if parts.scheme not in PORTS:
        return "a proxy's URL begins with http://, https://, socks5:// or socks5h://"
    if parts.path not in {"", "/"} or parts.query or parts.fragment:
        return "a proxy's URL ends with its port; in a password, / is %2F, ? is %3F and # is %23"
    return None


def _credentials(parts: SplitResult) -> tuple[bytes, bytes] | str | None:
    """Return the user name and password of a URL, or what is wrong with them.

    Basic authentication cannot carry a colon in a user name, nor control characters (RFC 7617,
    section 2). SOCKS5 needs both, each of at most 255 bytes (RFC 1929); python-socks requires
    ASCII.

    :return: `None` when the URL has none.
    """
    if "@" not in parts.netloc:
        return None
    user = unquote_to_bytes(parts.username or "")
    password = unquote_to_bytes(parts.password or "")
    if parts.scheme.startswith("socks"):
        if not (SOCKS_FIELD.fullmatch(user) and SOCKS_FIELD.fullmatch(password)):
            return "SOCKS5 needs a user name and a password, each of 1 to 255 ASCII bytes"
    elif b":" in user or CONTROL_BYTES.search(user + password):
        return "the proxy's user name or password has characters that HTTP cannot carry"
    return user, password


def host_and_port(host: str, port: int) -> str:
    """Return an address as HTTP writes it, with an IPv6 host in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


# --- The environment ---------------------------------------------------------------------


def choose_proxy(endpoint: Endpoint, given: ProxyOption) -> Proxy | None:
    """Return the proxy for an endpoint: the given one, or that of the environment.

    The environment's proxy is not used for a server on this machine, since ``localhost`` means
    another machine to the proxy. Go's ``http.ProxyFromEnvironment`` does the same.

    :return: `None` when the server is dialled directly.
    :raises ConfigurationError: for a proxy that cannot be used: a misspelt proxy never makes the
        connection a direct one.
    """
    if given is False:
        return None
    if given is not None:
        return Proxy.of(given)
    if endpoint.loopback:
        return None
    exemptions = os.environ.get(_find_variable("no_proxy"), "")
    if is_exempt(exemptions, endpoint.host, endpoint.port):
        return None
    for variable in VARIABLES["wss" if endpoint.secure else "ws"]:
        name = _find_variable(variable)
        if os.environ.get(name):  # the value may hold a password: no local variable keeps it
            return Proxy.of(os.environ[name], name)
    return None


def _find_variable(name: str) -> str:
    """Return the name of a variable as the environment has it: in lower case, else in upper case.

    The rules are those of `urllib.request.getproxies_environment`, and so of most Python clients:
    an empty variable in lower case hides the one in upper case, and ``HTTP_PROXY`` is not read in a
    CGI script, where a client's ``Proxy:`` header can set it (CVE-2016-1000110).
    """
    if name in list(os.environ):  # on Windows, `name in os.environ` ignores the case
        return name
    if name == "http_proxy" and "REQUEST_METHOD" in os.environ:
        return name
    return name.upper()


def is_exempt(exemptions: str, host: str, port: int) -> bool:
    """Whether ``NO_PROXY`` covers a host and port.

    Commas or white space separate its entries. An entry is ``*``; a name, with or without a leading
    dot, which covers its subdomains, too; ``*.name``, which covers only the subdomains; an IP
    address; or a network. Each may have a ``:port``. Any other entry covers nothing. No name is
    resolved to find its address.
    """
    entries = re.split(r"[,\s]+", exemptions.lower())
    return any(_covers(entry, host.lower().rstrip("."), port) for entry in entries)


def _covers(entry: str, host: str, port: int) -> bool:
    parts = EXEMPTION.fullmatch(entry)
    if parts is None:
        name = entry  # an IPv6 address without brackets
    elif parts["port"] is not None and int(parts["port"]) != port:
        return False
    else:
        name = parts["name"] or parts["six"] + (parts["bits"] or "")
    if name == "*":
        return True
    address = _address(host)
    if address is not None:
        network = _network(name)
        return network is not None and address in network
    if name.startswith("*."):
        return host.endswith(name[1:].rstrip("."))
    name = name.strip(".")
    return bool(name) and (host == name or host.endswith(f".{name}"))


def _address(host: str) -> IPv4Address | IPv6Address | None:
    """Return an IP address, an IPv4-mapped IPv6 address as IPv4; `None` for a name."""
    try:
        address = ip_address(host)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return address if mapped is None else mapped


def _network(name: str) -> IPv4Network | IPv6Network | None:
    try:
        return ip_network(name, strict=False)
    except ValueError:
        return None
