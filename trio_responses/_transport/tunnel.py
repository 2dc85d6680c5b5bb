"""Through a proxy: HTTP ``CONNECT``, over TLS where the proxy wants it, and SOCKS5.

A `Tunnel` dials as `dial_tcp` does, so that nothing above it knows of proxies. The server itself is
never dialled: what goes wrong on the way to the proxy, or with it, is a `ProxyError`.

What belongs elsewhere: which proxy it is (`proxy.py`), the server's TLS (`websocket.py`).
"""

from __future__ import annotations

import base64
import math
import re
import ssl
from typing import TYPE_CHECKING, Final

import trio

from trio_responses._endpoint import USER_AGENT
from trio_responses._errors import ConfigurationError, ProxyError
from trio_responses._transport.proxy import choose_proxy, host_and_port
from trio_responses._transport.tls import TLSStream, default_ssl_context
from trio_responses._transport.websocket import dial_tcp
from trio_responses._wire import parse_retry_after

if TYPE_CHECKING:
    from python_socks.async_.trio.v2 import Proxy as SocksProxy

    from trio_responses._endpoint import Endpoint
    from trio_responses._transport.proxy import Proxy, ProxyChoice
    from trio_responses._transport.websocket import Dial

__all__ = ["Tunnel", "choose_dial"]

MAX_HEAD_BYTES: Final = 64 * 1024
END: Final = b"\r\n\r\n"
BEGINNING: Final = b"HTTP/1."
BARE_LINE_FEED: Final = re.compile(rb"(?<!\r)\n")
STATUS_LINE: Final = re.compile(rb"HTTP/1\.[01] ([1-5][0-9]{2})(?: [^\r\n]*)?")
FIELD_LINE: Final = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[ \t]*([^\r\n]*?)[ \t]*")
RETRYABLE_STATUSES: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
"""500 is among them: tinyproxy says so where the server cannot be reached."""
RETRYABLE_REPLIES: Final = frozenset({1, 3, 4, 5, 6})
"""General failure, network and host unreachable, refused, expired (RFC 1928, section 6)."""
MAX_SOCKS_NAME_BYTES: Final = 255


def choose_dial(
    endpoint: Endpoint, proxy: ProxyChoice, dial: Dial, *, allow_insecure: bool
) -> Dial:
    """Choose how an endpoint is dialled.

    :param dial: the user's, or `dial_tcp`.
    :raises ConfigurationError: for a proxy that cannot be used, and one beside the user's
        ``dial``; also where a key would leave this machine in the clear on its way to the proxy.
    """
    if dial is not dial_tcp:
        if proxy is not None and proxy is not False:
            raise ConfigurationError("give a proxy or dial, not both: dial may use a proxy itself")
        return dial
    chosen = choose_proxy(endpoint, proxy)
    if chosen is None:
        return dial
    if not endpoint.secure and not chosen.loopback and not allow_insecure:
        raise ConfigurationError(
            f"ws:// through the proxy {chosen.address} would show the key and the content to it:"
            " use wss://, proxy=False, NO_PROXY or allow_insecure=True"
        )
    return Tunnel(chosen)


class Tunnel:
    """Dials servers through a proxy.

    :param dial: how the proxy itself is dialled; SOCKS5 has its own way, TCP.
    :raises ConfigurationError: when python-socks is not there and the proxy needs it.
    """

    def __init__(self, proxy: Proxy, dial: Dial = dial_tcp) -> None:
        self._proxy = proxy
        self._dial = dial
        self._socks = _socks_proxy(proxy) if proxy.socks else None
        self._ssl_context = default_ssl_context() if proxy.scheme == "https" else None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} through {self._proxy.scheme}://{self._proxy.address}>"

    async def __call__(self, host: str, port: int) -> trio.abc.Stream:
        """Dial a server.

        When this is cancelled or fails, nothing is left.

        :raises ProxyError: when the proxy cannot be reached, does not let us through, or cannot be
            understood.
        :raises OSError: when ``socks5`` cannot look up the server's name here.
        """
        if self._socks is not None:
            return await self._ask_socks(self._socks, host, port)
        stream = await self._reach()
        try:
            if self._ssl_context is not None:
                stream = await self._secure(stream, self._ssl_context)
            return await self._ask_http(stream, host, port)
        except BaseException as error:
            await trio.aclose_forcefully(stream)
            if isinstance(error, trio.BrokenResourceError):
                raise self._error("the connection broke") from error
            raise

    def _error(
        self,
        what: str,
        *,
        status: int | None = None,
        retryable: bool = True,
        retry_after: float | None = None,
    ) -> ProxyError:
        return ProxyError(
            what,
            proxy=self._proxy.address,
            status=status,
            retryable=retryable,
            retry_after=retry_after,
        )

    async def _reach(self) -> trio.abc.Stream:
        try:
            return await self._dial(self._proxy.host, self._proxy.port)
        except (OSError, trio.BrokenResourceError) as error:
            raise self._error(f"it cannot be dialled: {error}") from error

    async def _secure(self, stream: trio.abc.Stream, context: ssl.SSLContext) -> trio.abc.Stream:
        """Do the proxy's own TLS handshake; the server's is another one, within it."""
        secured = TLSStream(stream, context, server_hostname=self._proxy.host)
        try:
            await secured.do_handshake()
        except trio.BrokenResourceError as error:
            reason = error.__cause__
            if isinstance(reason, ssl.SSLCertVerificationError):
                what = f"its certificate is not trusted: {reason.verify_message}"
                raise self._error(what, retryable=False) from reason
            raise self._error(f"the TLS handshake failed: {reason or error}") from error
        return secured

    # --- HTTP ----------------------------------------------------------------------------

    async def _ask_http(self, stream: trio.abc.Stream, host: str, port: int) -> trio.abc.Stream:
        """Ask for a tunnel (RFC 9110, 9.3.6), and give out what comes behind the answer."""
        await stream.send_all(self._connect_request(host_and_port(host, port)))
        received = bytearray()
        room = MAX_HEAD_BYTES
        while True:
            end = await self._receive_head(stream, received, room)
            status, headers = self._parse_head(bytes(received[:end]))
            del received[: end + len(END)]
            room -= end
            if status >= 200:  # noqa: PLR2004 - an interim answer: the final one follows
                break
        if status >= 300:  # noqa: PLR2004 - every 2xx opens the tunnel
            raise self._error(
                f"it answered CONNECT with HTTP status {status}",
                status=status,
                retryable=status in RETRYABLE_STATUSES,
                retry_after=parse_retry_after(headers),
            )
        return trio.StapledStream(stream, Remainder(stream, received)) if received else stream

    def _connect_request(self, authority: str) -> bytes:
        lines = [f"CONNECT {authority} HTTP/1.1", f"Host: {authority}", f"User-Agent: {USER_AGENT}"]
        if self._proxy.credentials is not None:
            basic = base64.b64encode(b":".join(self._proxy.credentials)).decode("ascii")
            lines.append(f"Proxy-Authorization: Basic {basic}")
        return "\r\n".join([*lines, "\r\n"]).encode("ascii")

    async def _receive_head(self, stream: trio.abc.Stream, received: bytearray, room: int) -> int:
        """Read to the end of a head, and find out early where there will be none.

        :param received: what has come, to which more is added.
        :return: where its empty line begins.
        """
        searched = 0
        while True:
            end = received.find(END, searched)
            head_size = len(received) if end < 0 else end
            beginning = bytes(received[: min(head_size, len(BEGINNING))])
            line_feed = BARE_LINE_FEED.search(received, searched, head_size)
            if not BEGINNING.startswith(beginning) or line_feed:
                raise self._error("it did not answer in HTTP", retryable=False)
            if head_size > room:
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
            raise self._error("it did not answer in HTTP", retryable=False)
        pairs = [(found[1], found[2]) for found in fields if found is not None]
        headers = {name.decode("ascii").lower(): value.decode("latin-1") for name, value in pairs}
        return int(status[1]), headers

    # --- SOCKS5 --------------------------------------------------------------------------

    async def _ask_socks(self, socks: SocksProxy, host: str, port: int) -> trio.abc.Stream:
        from python_socks import ProxyConnectionError  # noqa: PLC0415 - an extra's
        from python_socks import ProxyError as SocksError  # noqa: PLC0415 - likewise

        if len(host) > MAX_SOCKS_NAME_BYTES:
            raise self._error("SOCKS5 has no room for a name of this length", retryable=False)
        try:
            opened = await socks.connect(host, port, timeout=math.inf)
        except ProxyConnectionError as error:
            raise self._error(f"it cannot be dialled: {error}") from error
        except SocksError as error:
            raise self._error(
                f"SOCKS5 failed: {error}", retryable=_may_get_better(error)
            ) from error
        except trio.BrokenResourceError as error:
            raise self._error("the connection broke") from error
        except ValueError as error:  # a bound name that is not UTF-8
            raise self._error("its SOCKS5 answer was not valid", retryable=False) from error
        # It names SSLStream without its parameter.
        return opened.trio_stream  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]


def _socks_proxy(proxy: Proxy) -> SocksProxy:
    """Set python-socks up; ``socks5h`` leaves looking names up to the proxy, as curl has it."""
    try:
        from python_socks import ProxyType  # noqa: PLC0415 - an extra: imported where it is used
        from python_socks.async_.trio.v2 import Proxy as SocksProxy  # noqa: PLC0415 - likewise
    except ImportError:
        raise ConfigurationError(
            f"the {proxy.scheme} proxy {proxy.address} needs python-socks:"
            " pip install 'trio-responses[proxy]'"
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


def _may_get_better(error: Exception) -> bool:
    """Whether another attempt can help: by the reply code, or because the stream just ended.

    Refused credentials have no code, nor has what is no SOCKS5 at all: they are told by the type
    of what python-socks wraps, which is not among its public names.
    """
    code: int | None = getattr(error, "error_code", None)
    if code is None:
        return type(error.args[0]).__name__ != "ReplyError"
    return code in RETRYABLE_REPLIES


class Remainder(trio.abc.ReceiveStream):
    """What came in one read with the proxy's answer, and then the stream it came from."""

    def __init__(self, stream: trio.abc.Stream, data: bytearray) -> None:
        self._stream = stream
        self._data = data

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """Receive the rest of that read, then whatever the stream gives."""
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
