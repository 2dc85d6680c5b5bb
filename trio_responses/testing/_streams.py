"""Byte streams for the test server: a connected pair in memory, and a wrapper that injects faults.

Both work on bytes only and do not depend on HTTP, WebSocket or JSON.
"""

import contextlib
import operator
import socket
import struct
from typing import Final, Literal, cast

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

    Tests of a network client need two features that :func:`trio.testing.memory_stream_pair` lacks:
    a bound, so that a slow reader stops the writer, and a reset, so that the other end gets
    :exc:`trio.BrokenResourceError` as after a TCP RST.
    """

    def __init__(self, incoming: _Pipe, outgoing: _Pipe) -> None:
        self._incoming = incoming
        self._outgoing = outgoing
        self._send_conflict = trio.Lock()
        self._receive_conflict = trio.Lock()
        self._closed = False

    def _check_send(self) -> None:
        if self._closed or self._outgoing.sender_closed:
            raise trio.ClosedResourceError("this end of the connection is closed for sending")
        if self._outgoing.broken or self._outgoing.receiver_closed:
            raise trio.BrokenResourceError("the other end of the connection is closed")

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send all of ``data``. If cancelled, any part of the data may have been sent."""
        with _ConflictGuard(self._send_conflict, "another task is already sending on this stream"):
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
        """Wait until the stream takes bytes. A checkpoint.

        :raises trio.BrokenResourceError: If the other end is closed or has reset the connection.
        :raises trio.ClosedResourceError: If this end is closed.
        """
        with _ConflictGuard(self._send_conflict, "another task is already sending on this stream"):
            await trio.lowlevel.checkpoint()
            await self._wait_room()

    async def _wait_room(self) -> None:
        """Wait for room in the pipe. The caller holds the lock of the sending side."""
        self._check_send()
        while not self._outgoing.has_room():
            await self._outgoing.wait_change()
            self._check_send()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Receive up to ``max_bytes``; an empty result is the end of the stream.

        A checkpoint. If cancelled, no byte is lost.

        :raises trio.BrokenResourceError: After a reset, once all bytes before it are received.
        :raises trio.ClosedResourceError: If this end is closed.
        :raises ValueError: If ``max_bytes`` is below 1.
        """
        if max_bytes is not None and operator.index(max_bytes) < 1:
            raise ValueError(f"max_bytes must be 1 or more, not {max_bytes!r}")
        with _ConflictGuard(
            self._receive_conflict, "another task is already receiving from this stream"
        ):
            await trio.lowlevel.checkpoint()
            pipe = self._incoming
            while True:
                if self._closed:
                    raise trio.ClosedResourceError("this end of the connection is closed")
                if pipe.buffer:
                    size = max_bytes or _RECEIVE_SIZE
                    data = bytes(pipe.buffer[:size])
                    del pipe.buffer[:size]
                    pipe.wake()
                    return data
                if pipe.broken:
                    raise trio.BrokenResourceError("the other end reset the connection")
                if pipe.sender_closed:
                    return b""
                await pipe.wait_change()

    async def send_eof(self) -> None:
        """End the sending direction; receiving goes on. A checkpoint."""
        with _ConflictGuard(self._send_conflict, "another task is already sending on this stream"):
            await trio.lowlevel.checkpoint()
            if self._closed:
                raise trio.ClosedResourceError("this end of the connection is closed")
            self._outgoing.sender_closed = True
            self._outgoing.wake()

    def close(self) -> None:
        """Close both directions: the other end reads the buffered bytes, then the end."""
        self._closed = True
        self._outgoing.sender_closed = True
        self._incoming.receiver_closed = True
        self._outgoing.wake()
        self._incoming.wake()

    def reset(self) -> None:
        """Break both directions: the other end reads the buffered bytes, then gets an error.

        Linux treats a TCP RST in this way. A test can thus choose the event before the reset.
        """
        self._incoming.broken = self._outgoing.broken = True
        self.close()

    async def aclose(self) -> None:
        """Close both directions; a second call does nothing. A checkpoint."""
        self.close()
        await trio.lowlevel.checkpoint()


class _ConflictGuard:
    """A block that raises `trio.BusyResourceError` if another task is inside."""

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
    """Return the two ends of a new connection in memory.

    :param capacity: The number of bytes that each direction buffers before the sender waits; None
        is no bound.
    :raises ValueError: If the capacity is below 1.
    """
    if capacity is not None and capacity < 1:
        raise ValueError(f"capacity must be 1 or more bytes, not {capacity!r}")
    forward, backward = _Pipe(capacity), _Pipe(capacity)
    return MemoryStream(backward, forward), MemoryStream(forward, backward)


class FaultyStream(Stream):
    """The server's end of a connection, with faults that can be injected below WebSocket.

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
        self._rest: int | None = None
        self._end: Literal["reset", "fin"] = "reset"
        self.closed: trio.Event = trio.Event()

    def push_back(self, data: bytes) -> None:
        """Make the next receive return ``data`` again."""
        self._pushed_back = data + self._pushed_back

    def slow_down(self, piece: int | None, delay: float) -> None:
        """Write ``piece`` bytes every ``delay`` seconds from now on; None ends the slow writing."""
        self._piece, self._delay = piece, delay

    def cut_after(self, size: int, how: Literal["reset", "fin"]) -> None:
        """End the stream after ``size`` more bytes: with a reset, or with a FIN."""
        self._rest, self._end = size, how

    def freeze(self) -> None:
        """Make the stream half-open: from now on, it neither reads nor writes, and stays open."""
        self._frozen = True

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send all of ``data``; concurrent callers wait for each other."""
        async with self._send_lock:
            is_cut = self._rest is not None and len(data) >= self._rest
            if self._rest is not None:
                data = data[: self._rest]
                self._rest -= len(data)
            size = self._piece or max(len(data), 1)
            for start in range(0, len(data), size):
                await self._send_piece(data[start : start + size])
                if self._piece is not None:
                    await trio.sleep(self._delay)
        if is_cut:
            await self._end_cut_stream()

    async def _end_cut_stream(self) -> None:
        if self._end == "reset":
            self.reset()
        else:
            await self.close_without_close_frame()
        raise trio.BrokenResourceError("the script has cut the connection")

    async def _send_piece(self, data: bytes | bytearray | memoryview) -> None:
        if self._frozen:
            await trio.sleep_forever()
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until the underlying stream takes bytes."""
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Receive up to ``max_bytes``; bytes that were pushed back come first."""
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
        """End the sending direction, if the underlying stream supports this."""
        transport = self._transport()
        if isinstance(transport, HalfCloseableStream):
            async with self._send_lock:
                await transport.send_eof()

    def reset(self) -> None:
        """Abort the connection: the peer gets a reset (TCP RST), not the end of the stream."""
        transport = self._transport()
        if isinstance(transport, MemoryStream):
            transport.reset()
        elif isinstance(transport, trio.SocketStream) and transport.socket.fileno() != CLOSED:
            linger_zero = struct.pack("ii", 1, 0)
            transport.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger_zero)
            transport.socket.close()
        self.closed.set()

    async def close_without_close_frame(self) -> None:
        """End the sending direction without a close frame, and close within 1 s."""
        with trio.move_on_after(_LINGER_SECONDS):
            with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                await self.send_eof()
            await self.closed.wait()
        await self.aclose()

    async def close_after_drain(self) -> None:
        """End the sending direction, discard received bytes for up to 1 s, and close.

        Closing with unread bytes resets a TCP connection: the peer could lose the last frame.
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
