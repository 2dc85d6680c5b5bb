"""URLs: what somebody writes, brought into the one form that is dialled.

What belongs elsewhere: what is at a URL (`endpoint.py`), the URLs of proxies
(`transport/proxy.py`).
"""

from __future__ import annotations

import re
from ipaddress import ip_address
from typing import Final
from urllib.parse import urlsplit, urlunsplit

from trio_responses.errors import ConfigurationError

__all__ = ["azure_url", "is_loopback", "websocket_url"]

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


def _matches(grammar: re.Pattern[str], text: object) -> bool:
    return isinstance(text, str) and grammar.fullmatch(text) is not None
