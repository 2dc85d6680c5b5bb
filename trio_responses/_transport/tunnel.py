"""Tunnels through proxies: HTTP ``CONNECT``, optionally over TLS, and SOCKS5.

A `Tunnel` is a dial function like `dial_tcp`, so no other module knows about proxies. The server
itself is never dialled directly: a failure on the way to the proxy, or at it, is a `ProxyError`.
"""

from __future__ import annotations

import base64
import math
import re
from typing import TYPE_CHECKING, Final, cast

import trio

from trio_responses._endpoint import USER_AGENT
from trio_responses._errors import ConfigurationError, ProxyError
from trio_responses._extras import install_hint
from trio_responses._safe_text import printable
from trio_responses._transport.dialing import dial_tcp
from trio_responses._transport.proxy import choose_proxy, host_and_port
from trio_responses._transport.reasons import describe_dial_error, describe_tls_error
from trio_responses._transport.socket_stream import wait_first
from trio_responses._transport.tls import TLSStream, default_ssl_context
from trio_responses._wire import parse_retry_after

if TYPE_CHECKING:
    import ssl

    from python_socks.async_.trio.v2 import Proxy as SocksProxy

    from trio_responses._endpoint import Endpoint
    from trio_responses._transport.dialing import Dial
    from trio_responses._transport.proxy import Proxy, ProxyOption

__all__ = ["Tunnel", "choose_dial"]

MAX_HEAD_BYTES: Final = 64 * 1024
END: Final = b"\r\n\r\n"
BEGINNING: Final = b"HTTP/1."
BARE_LINE_FEED: Final = re.compile(rb"(?<!\r)\n")
STATUS_LINE: Final = re.compile(rb"HTTP/1\.[01] ([1-5][0-9]{2})(?: [^\r\n]*)?")
FIELD_LINE: Final = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[ \t]*([^\r\n]*?)[ \t]*")
RETRYABLE_STATUSES: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
"""HTTP statuses of a proxy after which another attempt can help.

500 is one of them: tinyproxy answers with it when the server cannot be reached.
"""
RETRYABLE_REPLIES: Final = frozenset({1, 3, 4, 5, 6})
"""SOCKS5 replies after which another attempt can help (RFC 1928, section 6).

They are: general failure, network unreachable, host unreachable, connection refused, TTL expired.
"""
MAX_SOCKS_NAME_BYTES: Final = 255


def choose_dial(
    endpoint: Endpoint, proxy: ProxyOption, dial: Dial, *, allow_insecure: bool
) -> Dial:
    """Return the function that dials an endpoint: ``dial`` itself, or a `Tunnel` through a proxy.

    :param dial: the user's function, or `dial_tcp`.
    :raises ConfigurationError: for a proxy that cannot be used, for a proxy together with the
        user's ``dial``, and for a ``ws://`` endpoint whose key would be readable on the way to a
        proxy on another machine.
    """
    if dial is not dial_tcp:
        if proxy is not None and proxy is not False:
            raise ConfigurationError(
                "pass proxy or dial, not both: a dial function has to use the proxy itself"
            )
        return dial
    chosen = choose_proxy(endpoint, proxy)
    if chosen is None:
        return dial
    if not endpoint.secure and not chosen.is_loopback and not allow_insecure:
        raise ConfigurationError(
            f"http:// and ws:// through the proxy {chosen.address} show the key and the content to"
            " the proxy: use https://, exclude the server with proxy=False or NO_PROXY, or pass"
            " allow_insecure=True"
        )
    return Tunnel(chosen)


class Tunnel:
    """A dial function that reaches servers through a proxy.

    :param dial: the function that dials the proxy itself; a SOCKS5 proxy is always dialled by TCP.
    :raises ConfigurationError: when the proxy needs python-socks, which is not installed.
    """

    def __init__(self, proxy: Proxy, dial: Dial = dial_tcp) -> None:
        self._proxy = proxy
        self._dial = dial
        self._socks = _socks_proxy(proxy) if proxy.is_socks else None
        self._ssl_context = default_ssl_context() if proxy.scheme == "https" else None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} through {self._proxy.scheme}://{self._proxy.address}>"

    async def __call__(self, host: str, port: int) -> trio.abc.Stream:
        """Open a byte stream to a server, through the proxy.

        When this is cancelled or fails, no socket is left.

        :raises ProxyError: when the proxy cannot be reached, refuses the tunnel, or gives an
            invalid answer.
        :raises OSError: when a ``socks5`` proxy is used and this machine cannot resolve the
            server's name.
        """
        if self._socks is not None:
            return await self._connect_by_socks(self._socks, host, port)
        stream = await self._dial_proxy()
        try:
            if self._ssl_context is not None:
                stream = await self._start_tls(stream, self._ssl_context)
            return await self._connect_by_http(stream, host, port)
        except BaseException as error:
            await trio.aclose_forcefully(stream)
            if isinstance(error, trio.BrokenResourceError):
                raise self._error("the connection broke") from error
            raise

    def _error(
        self,
        message: str,
        *,
        status: int | None = None,
        retryable: bool = True,
        retry_after: float | None = None,
    ) -> ProxyError:
        return ProxyError(
            message,
            proxy=self._proxy.address,
            status=status,
            retryable=retryable,
            retry_after=retry_after,
        )

    async def _dial_proxy(self) -> trio.abc.Stream:
        try:
            return await self._dial(self._proxy.host, self._proxy.port)
        except (OSError, trio.BrokenResourceError) as error:
            reason = describe_dial_error(error, self._proxy.host, self._proxy.port)
            raise self._error(f"it cannot be dialled: {reason}") from error

    async def _start_tls(self, stream: trio.abc.Stream, context: ssl.SSLContext) -> trio.abc.Stream:
        """Do the TLS handshake with the proxy; the handshake with the server follows inside."""
        name = self._proxy.host.removesuffix(".")
        secured = TLSStream(stream, context, server_hostname=name)
        try:
            await secured.do_handshake()
        except trio.BrokenResourceError as error:
            reason, retryable = describe_tls_error(error, self._proxy.host, self._proxy.port)
            raise self._error(reason, retryable=retryable) from error.__cause__ or error
        return secured

    # --- HTTP ----------------------------------------------------------------------------

    async def _connect_by_http(
        self, stream: trio.abc.Stream, host: str, port: int
    ) -> trio.abc.Stream:
        """Send ``CONNECT`` (RFC 9110, section 9.3.6), and return the stream after the answer."""
        await stream.send_all(self._connect_request(host_and_port(host, port)))
        received = bytearray()
        remaining = MAX_HEAD_BYTES
        while True:
            end = await self._receive_head(stream, received, remaining)
            status, headers = self._parse_head(bytes(received[:end]))
            del received[: end + len(END)]
            remaining -= end
            if status >= 200:  # noqa: PLR2004 - after an interim answer the final one follows
                break
        if status >= 300:  # noqa: PLR2004 - every 2xx opens the tunnel
            raise self._error(
                f"it answered CONNECT with HTTP status {status}",
                status=status,
                retryable=status in RETRYABLE_STATUSES,
                retry_after=parse_retry_after(headers),
            )
        return trio.StapledStream(stream, PrefixedStream(stream, received)) if received else stream

    def _connect_request(self, authority: str) -> bytes:
        lines = [f"CONNECT {authority} HTTP/1.1", f"Host: {authority}", f"User-Agent: {USER_AGENT}"]
        if self._proxy.credentials is not None:
            basic = base64.b64encode(b":".join(self._proxy.credentials)).decode("ascii")
            lines.append(f"Proxy-Authorization: Basic {basic}")
        return "\r\n".join([*lines, "\r\n"]).encode("ascii")

    async def _receive_head(self, stream: trio.abc.Stream, received: bytearray, limit: int) -> int:
        """Read to the end of a response head, and stop early when the answer is no HTTP.

        :param received: the bytes that have arrived, to which more are added.
        :param limit: the largest size of the head, in bytes.
        :return: the position of the empty line.
        """
        searched = 0
        while True:
            end = received.find(END, searched)
            head_size = len(received) if end < 0 else end
            beginning = bytes(received[: min(head_size, len(BEGINNING))])
            line_feed = BARE_LINE_FEED.search(received, searched, head_size)
            if not BEGINNING.startswith(beginning) or line_feed:
                raise self._error("its answer is not HTTP", retryable=False)
            if head_size > limit:
                raise self._error("its answer has no end", retryable=False)
            if end >= 0:
                return end
            searched = max(0, len(received) - len(END) + 1)
            data = await stream.receive_some()
            if not data:
                raise self._error("it closed the connection before its answer was complete")
            received += data

    def _parse_head(self, head: bytes) -> tuple[int, dict[str, str]]:
        first, *lines = head.split(b"\r\n")
        status = STATUS_LINE.fullmatch(first)
        fields = [FIELD_LINE.fullmatch(line) for line in lines]
        if status is None or None in fields or status[1] == b"101":
            raise self._error("its answer is not HTTP", retryable=False)
        pairs = [(found[1], found[2]) for found in fields if found is not None]
        headers = {name.decode("ascii").lower(): value.decode("latin-1") for name, value in pairs}
        return int(status[1]), headers

    # --- SOCKS5 --------------------------------------------------------------------------

    async def _connect_by_socks(self, socks: SocksProxy, host: str, port: int) -> trio.abc.Stream:
        from python_socks import ProxyConnectionError  # noqa: PLC0415 - it comes with an extra
        from python_socks import ProxyError as SocksError  # noqa: PLC0415 - it comes with an extra

        if len(host) > MAX_SOCKS_NAME_BYTES:
            raise self._error(
                "the server's name is too long for SOCKS5, which allows 255 bytes", retryable=False
            )
        try:
            opened = await socks.connect(host, port, timeout=math.inf)
        except ProxyConnectionError as error:
            reason = describe_dial_error(error, self._proxy.host, self._proxy.port)
            raise self._error(f"it cannot be dialled: {reason}") from error
        except SocksError as error:
            reason = printable(str(error))
            raise self._error(f"SOCKS5 failed: {reason}", retryable=_is_retryable(error)) from error
        except trio.BrokenResourceError as error:
            raise self._error("the connection broke") from error
        except ValueError as error:  # a bound name that is not UTF-8
            raise self._error("its SOCKS5 answer was not valid", retryable=False) from error
        # python-socks annotates SSLStream without its type parameter.
        stream = cast("trio.abc.Stream", opened.trio_stream)  # pyright: ignore[reportUnknownMemberType]
        return wait_first(stream)


def _socks_proxy(proxy: Proxy) -> SocksProxy:
    """Return a proxy of python-socks; ``socks5h`` resolves names at the proxy, as in curl."""
    try:
        from python_socks import ProxyType  # noqa: PLC0415 - it comes with an extra
        from python_socks.async_.trio.v2 import Proxy as SocksProxy  # noqa: PLC0415 - it comes with an extra
    except ImportError:
        raise ConfigurationError(
            f"the {proxy.scheme} proxy {proxy.address} needs python-socks: {install_hint('proxy')}"
        ) from None
    user, password = proxy.credentials or (None, None)
    return SocksProxy(
        ProxyType.SOCKS5,
        proxy.host,
        proxy.port,
        username=None if user is None else user.decode("ascii"),
        password=None if password is None else password.decode("ascii"),
        rdns=proxy.scheme == "socks5h",
    )


def _is_retryable(error: Exception) -> bool:
    """Whether another attempt can help after a SOCKS5 error, by the reply code of the proxy.

    Without a code, the proxy has closed the stream, has refused the credentials, or does not speak
    SOCKS5. Another attempt can help after the first. The other two wrap an exception of
    python-socks that is not public, so its type is recognised by its name.
    """
    code: int | None = getattr(error, "error_code", None)
    if code is None:
        return type(error.args[0]).__name__ != "ReplyError"
    return code in RETRYABLE_REPLIES


class PrefixedStream(trio.abc.ReceiveStream):
    """A stream that returns bytes that were read already, then those of the underlying stream.

    :param data: the bytes that came in one read with the proxy's answer, after its head.
    """

    def __init__(self, stream: trio.abc.Stream, data: bytearray) -> None:
        self._stream = stream
        self._data = data

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """Return the bytes that were read already, then receive from the underlying stream."""
        if not self._data:
            return await self._stream.receive_some(max_bytes)
        await trio.lowlevel.checkpoint()
        size = len(self._data) if max_bytes is None else max_bytes
        taken = bytes(self._data[:size])
        del self._data[:size]
        return taken

    async def aclose(self) -> None:
        """Close the stream."""
        await self._stream.aclose()
