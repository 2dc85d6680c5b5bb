"""Byte streams for the server: a pair in memory, and a wrapper that can break any stream.

Nothing in here knows HTTP, WebSocket or JSON.
"""

import contextlib
import operator
import socket
import struct
from typing import Final, cast

import trio
from trio.abc import HalfCloseableStream, Stream

_RECEIVE_SIZE: Final = 65536
CLOSED: Final = -1
"""The file descriptor of a closed socket."""
_LINGER_SECONDS: Final = 1.0


class _Pipe:
    """One direction of a memory connection."""

    def __init__(self, capacity: int | None) -> None:
        self.buffer: bytearray = bytearray()
        self.capacity = capacity
        self.sender_closed = False
        self.receiver_closed = False
        self.broken = False
        self._changed = trio.lowlevel.ParkingLot()

    def has_room(self) -> bool:
        return self.capacity is None or len(self.buffer) < self.capacity

    def wake(self) -> None:
        self._changed.unpark_all()

    async def wait_change(self) -> None:
        await self._changed.park()


class MemoryStream(HalfCloseableStream):
    """One end of a connection in memory, made by :func:`memory_connection`.

    It differs from :func:`trio.testing.memory_stream_pair` in two points that tests of a
    network client need: it can be bounded, so that a slow reader stops the writer, and it can
    be reset, so that the other end gets :exc:`trio.BrokenResourceError` as from a TCP RST.
    """

    def __init__(self, incoming: _Pipe, outgoing: _Pipe) -> None:
        self._incoming = incoming
        self._outgoing = outgoing
        self._send_conflict = trio.Lock()
        self._receive_conflict = trio.Lock()
        self._closed = False

    def _check_send(self) -> None:
        if self._closed or self._outgoing.sender_closed:
            raise trio.ClosedResourceError("this end is closed for sending")
        if self._outgoing.broken or self._outgoing.receiver_closed:
            raise trio.BrokenResourceError("the other end is gone")

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send all of ``data``; cancelled, any part of it may have been sent."""
        with _exclusive(self._send_conflict, "another task is sending on this stream"):
            await trio.lowlevel.checkpoint()
            self._check_send()
            pipe, rest = self._outgoing, memoryview(data)
            while rest:
                await self._wait_room()
                size = len(rest) if pipe.capacity is None else pipe.capacity - len(pipe.buffer)
                pipe.buffer += rest[:size]
                rest = rest[size:]
                pipe.wake()

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until there is room to send in. A checkpoint; may be cancelled.

        :raises trio.BrokenResourceError: when the other end is gone, or has reset the connection.
        :raises trio.ClosedResourceError: when this end is closed.
        """
        with _exclusive(self._send_conflict, "another task is sending on this stream"):
            await trio.lowlevel.checkpoint()
            await self._wait_room()

    async def _wait_room(self) -> None:
        """Wait for room for a caller that owns the sending side already."""
        self._check_send()
        while not self._outgoing.has_room():
            await self._outgoing.wait_change()
            self._check_send()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Receive up to ``max_bytes``; an empty result is the end of the stream.

        A checkpoint; when cancelled, no byte is lost.

        :raises trio.BrokenResourceError: after a reset, behind the bytes that came before it.
        :raises trio.ClosedResourceError: when this end is closed.
        """
        if max_bytes is not None and operator.index(max_bytes) < 1:
            raise ValueError("max_bytes must be at least 1")
        with _exclusive(self._receive_conflict, "another task is receiving on this stream"):
            await trio.lowlevel.checkpoint()
            pipe = self._incoming
            while True:
                if self._closed:
                    raise trio.ClosedResourceError("this end is closed")
                if pipe.buffer:
                    size = max_bytes or _RECEIVE_SIZE
                    data = bytes(pipe.buffer[:size])
                    del pipe.buffer[:size]
                    pipe.wake()
                    return data
                if pipe.broken:
                    raise trio.BrokenResourceError("connection reset by the other end")
                if pipe.sender_closed:
                    return b""
                await pipe.wait_change()

    async def send_eof(self) -> None:
        """End this direction; the other one goes on. A checkpoint."""
        with _exclusive(self._send_conflict, "another task is sending on this stream"):
            await trio.lowlevel.checkpoint()
            if self._closed:
                raise trio.ClosedResourceError("this end is closed")
            self._outgoing.sender_closed = True
            self._outgoing.wake()

    def close(self) -> None:
        """Close both directions: the other end reads what is buffered, then the end."""
        self._closed = True
        self._outgoing.sender_closed = True
        self._incoming.receiver_closed = True
        self._outgoing.wake()
        self._incoming.wake()

    def reset(self) -> None:
        """Break both directions: the other end reads what it has, then gets an error.

        Linux treats a TCP RST in this way, and it lets a test say at which event it happens.
        """
        self._incoming.broken = self._outgoing.broken = True
        self.close()

    async def aclose(self) -> None:
        """Close both directions; calling it again does nothing. A checkpoint."""
        self.close()
        await trio.lowlevel.checkpoint()


class _exclusive:  # noqa: N801 - it is used as a statement
    """Refuse a second task in the same direction, as every Trio stream does."""

    def __init__(self, lock: trio.Lock, message: str) -> None:
        self._lock = lock
        self._message = message

    def __enter__(self) -> None:
        try:
            self._lock.acquire_nowait()
        except (trio.WouldBlock, RuntimeError):
            raise trio.BusyResourceError(self._message) from None

    def __exit__(self, *_: object) -> None:
        self._lock.release()


def memory_connection(capacity: int | None = None) -> tuple[MemoryStream, MemoryStream]:
    """Return the two ends of a connection in memory.

    :param capacity: Bytes that each direction holds before the sender has to wait; None for
        no bound.
    """
    if capacity is not None and capacity < 1:
        raise ValueError("capacity must be at least 1 byte")
    there, back = _Pipe(capacity), _Pipe(capacity)
    return MemoryStream(back, there), MemoryStream(there, back)


class FaultyStream(Stream):
    """The server's end of a connection, with the ways to break it below WebSocket.

    :param stream: The accepted stream: :class:`MemoryStream`, :class:`trio.SocketStream` or
        :class:`trio.SSLStream`.
    """

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._pushed_back = b""
        self._send_lock = trio.StrictFIFOLock()
        self._receive_lock = trio.StrictFIFOLock()
        self._frozen = False
        self._piece: int | None = None
        self._delay = 0.0
        self.closed: trio.Event = trio.Event()

    def push_back(self, data: bytes) -> None:
        """Let the next receive return ``data`` again."""
        self._pushed_back = data + self._pushed_back

    def slow_down(self, piece: int | None, delay: float) -> None:
        """From now on write ``piece`` bytes at a time, ``delay`` seconds apart; None ends it."""
        self._piece, self._delay = piece, delay

    def freeze(self) -> None:
        """Go half-open: nothing is read or written from now on, and nothing is closed."""
        self._frozen = True

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send all of ``data``, one caller after the other."""
        async with self._send_lock:
            if self._piece is None:
                await self._send_piece(data)
                return
            for start in range(0, len(data), self._piece):
                await self._send_piece(bytes(data[start : start + self._piece]))
                await trio.sleep(self._delay)

    async def _send_piece(self, data: bytes | bytearray | memoryview) -> None:
        if self._frozen:
            await trio.sleep_forever()
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until the stream below takes bytes."""
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Receive up to ``max_bytes``, pushed back bytes first."""
        async with self._receive_lock:
            if self._pushed_back and not self._frozen:
                size = max_bytes or len(self._pushed_back)
                data, self._pushed_back = self._pushed_back[:size], self._pushed_back[size:]
                return data
            data = bytes(await self._stream.receive_some(max_bytes))
            if self._frozen:
                await trio.sleep_forever()
            return data

    async def send_eof(self) -> None:
        """End the sending direction where the stream below can do so."""
        transport = self._transport()
        if isinstance(transport, HalfCloseableStream):
            async with self._send_lock:
                await transport.send_eof()

    def reset(self) -> None:
        """Abort the connection: the peer sees a reset (TCP RST), not an end."""
        transport = self._transport()
        if isinstance(transport, MemoryStream):
            transport.reset()
        elif isinstance(transport, trio.SocketStream) and transport.socket.fileno() != CLOSED:
            linger_zero = struct.pack("ii", 1, 0)
            transport.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger_zero)
            transport.socket.close()
        self.closed.set()

    async def hang_up(self) -> None:
        """End the connection without a close frame; a second later, close it in any case."""
        with trio.move_on_after(_LINGER_SECONDS):
            with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                await self.send_eof()
            await self.closed.wait()
        await self.aclose()

    async def end(self) -> None:
        """Send the end of the stream, read on for a second at most, and close.

        Closing with unread bytes resets a TCP connection, and the peer may lose the last frame.
        """
        with (
            trio.move_on_after(_LINGER_SECONDS),
            contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError),
        ):
            await self.send_eof()
            while await self.receive_some():
                pass
        await self.aclose()

    def _transport(self) -> Stream:
        if isinstance(self._stream, trio.SSLStream):
            return cast("Stream", self._stream.transport_stream)  # pyright: ignore[reportUnknownMemberType]
        return self._stream

    async def aclose(self) -> None:
        """Close the connection below WebSocket, without a close frame."""
        self.closed.set()
        await trio.aclose_forcefully(self._stream)
