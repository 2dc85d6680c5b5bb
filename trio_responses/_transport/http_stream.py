"""The byte streams of httpcore2: dialled and secured as for a WebSocket, and without chunks.

`ByteStream` takes the data of chunks out of an answer itself, since h11 needs some 30 us for each
chunk (`_protocol/chunks.py`). Bytes with very many short lines are parsed in small pieces, so that
other tasks run in between.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

import trio

from trio_responses._errors import SendTimeout
from trio_responses._protocol.chunks import ChunkReader
from trio_responses._transport.dialing import connect_timeout, dial_server, start_tls
from trio_responses._transport.tls import TLSStream, default_ssl_context

if TYPE_CHECKING:
    import ssl

    from trio_responses._transport.dialing import ConnectionConfig

__all__ = ["Backend", "ByteStream", "bounded_pieces"]

READ_BYTES: Final = 64 * 1024
"""How much of a body is read at once."""
MAX_LINE_ENDS: Final = 6144
ODD_BYTES: Final = 1024
"""How many bytes are parsed without a checkpoint if there are more line ends in one read.

A line end costs up to 5 us, and a read of 64 KiB of deltas some 700 us.
"""


def bounded_pieces(data: bytes) -> list[bytes]:
    """Return received bytes in pieces that are parsed without a checkpoint.

    Nearly all bytes are one piece. Only bytes with very short lines are cut.
    """
    if data.count(b"\n") + data.count(b"\r") <= MAX_LINE_ENDS:
        return [data] if data else []
    return [data[at : at + ODD_BYTES] for at in range(0, len(data), ODD_BYTES)]


class Backend:
    """Opens byte streams for httpcore2, as for a WebSocket."""

    def __init__(self, config: ConnectionConfig) -> None:
        self._config = config
        self._ssl_context = config.ssl_context
        if config.http2 and config.endpoint.secure and config.ssl_context is None:
            self._ssl_context = default_ssl_context(http2=True)  # a WebSocket must not offer it

    async def connect_tcp(self, *_: Any, **__: Any) -> ByteStream:
        """Dial the server.

        :raises ConnectError: when the server or the proxy cannot be reached.
        """
        deadline = trio.current_time() + self._config.timeouts.connect
        with trio.move_on_at(deadline):
            stream = await dial_server(self._config)
            return ByteStream(stream, self._config, self._ssl_context, deadline)
        raise connect_timeout("dial", self._config)

    async def connect_unix_socket(self, *_: Any, **__: Any) -> ByteStream:
        raise NotImplementedError

    async def sleep(self, seconds: float) -> None:
        await trio.sleep(seconds)


class ByteStream:
    """A byte stream in the form that httpcore2 asks for.

    :param deadline: when dial and TLS together must have ended, on Trio's clock.
    """

    def __init__(
        self,
        stream: trio.abc.Stream,
        config: ConnectionConfig,
        ssl_context: ssl.SSLContext | None,
        deadline: float,
    ) -> None:
        self._stream = stream
        self._ssl_context = ssl_context
        self._config = config
        self._deadline = deadline
        self._opened_at = trio.current_time()
        self._patience = math.inf
        """How many seconds a read may take."""
        self._is_http2 = (
            isinstance(stream, TLSStream) and stream.ssl_object.selected_alpn_protocol() == "h2"
        )
        self._chunks = ChunkReader()
        """Of HTTP/1.1."""
        self._data = b""
        """The data of chunks that came with the head of their answer."""
        self._unread: list[bytes] = []
        """Received bytes that are not parsed yet."""
        self._passed = b""
        """What httpcore2 reads next: it came with the data of chunks."""

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ARG002, ASYNC109 - the interface of httpcore2
        """Read for httpcore2: everything but the data of chunks."""
        if self._is_http2:
            return await self._receive(max_bytes)
        while not self._passed:
            received = b"".join(self._unread) or await self._receive(max_bytes)
            self._unread = []
            if not received:
                return b""
            self._passed, self._data = self._chunks.feed(received)
        passed, self._passed = self._passed, b""
        return passed

    async def read_chunks(self) -> bytes:
        """Return the data of the chunks that the next read completes.

        Nothing is returned after the last one, and where the answer is not in chunks of HTTP/1.1:
        then httpcore2 reads.
        """
        while not self._data and self._chunks.in_chunks:
            if self._unread:
                await trio.lowlevel.checkpoint()
            else:
                self._unread = bounded_pieces(await self._receive(READ_BYTES))
            if not self._unread:
                break
            self._passed, self._data = self._chunks.feed(self._unread.pop(0))
        data, self._data = self._data, b""
        return data

    async def _receive(self, max_bytes: int) -> bytes:
        import httpcore2  # noqa: PLC0415 - of an extra

        try:
            if self._patience == math.inf:  # a scope costs 12 us
                return bytes(await self._stream.receive_some(max_bytes))
            with trio.move_on_after(self._patience):
                return bytes(await self._stream.receive_some(max_bytes))
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise httpcore2.ReadError(str(error.__cause__ or "")) from error
        raise httpcore2.ReadError("the request could not be written")

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ARG002, ASYNC109 - the interface of httpcore2
        import httpcore2  # noqa: PLC0415 - of an extra

        if not buffer:
            return
        self._chunks.begin_answer()
        try:
            with trio.move_on_after(self._config.timeouts.send) as scope:
                await self._stream.send_all(buffer)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            # httpcore2 reads what the server may have sent before, such as the reason.
            self._patience = self._config.timeouts.close
            raise httpcore2.WriteError(str(error.__cause__ or "")) from error
        if scope.cancelled_caught:
            raise SendTimeout(len(buffer), age=trio.current_time() - self._opened_at)

    async def aclose(self) -> None:
        await trio.aclose_forcefully(self._stream)

    async def start_tls(self, *_: Any, **__: Any) -> ByteStream:
        """Start TLS with the certificates of the connection.

        :raises ConnectError: when the handshake fails.
        """
        try:
            with trio.move_on_at(self._deadline):
                secured = await start_tls(self._stream, self._config, self._ssl_context)
                return ByteStream(secured, self._config, self._ssl_context, self._deadline)
            raise connect_timeout("tls", self._config)
        except BaseException:
            await trio.aclose_forcefully(self._stream)
            raise

    def get_extra_info(self, info: str) -> Any:
        if info == "ssl_object" and isinstance(self._stream, TLSStream):
            return self._stream.ssl_object
        if info == "is_readable":
            if self._chunks.has_stray_bytes:
                return True  # so httpcore2 closes the stream
            socket = getattr(_lowest(self._stream), "socket", None)
            return socket is not None and socket.is_readable()
        return None


def _lowest(stream: Any) -> Any:
    """Return the stream beneath those that wrap it."""
    while (inner := getattr(stream, "transport_stream", None)) is not None:
        stream = inner
    return stream
