"""A byte stream over a TCP socket that waits before it reads, and does not wait to send.

`trio.SocketStream` reads first, and waits when there was nothing to read. Between two events of a
response there is nothing to read, so each event would cost a read that fails. And it lets other
tasks run after each send, which takes a pass through Trio's scheduler.
"""

from __future__ import annotations

import os
import sys
import threading
from abc import abstractmethod
from typing import Final

import trio
from trio.lowlevel import cancel_shielded_checkpoint, checkpoint_if_cancelled, wait_readable

__all__ = ["EagerStream", "SocketStream", "wait_first"]

READ_BYTES: Final = 64 * 1024
CAN_WAIT_FIRST: Final = sys.platform != "win32"
"""Whether a socket can be read by its file descriptor."""


def wait_first(stream: trio.abc.Stream) -> trio.abc.Stream:
    """Return a `SocketStream` over a `trio.SocketStream`, and every other stream as it is.

    :param stream: the stream, which the returned one owns.
    """
    if not CAN_WAIT_FIRST or not isinstance(stream, trio.SocketStream):
        return stream
    try:
        return SocketStream(stream, stream.socket.fileno())
    except NotImplementedError:  # a socket of trio.testing has no descriptor
        return stream


class _Buffers(threading.local):
    """The buffer that all sockets of a thread are read into, one after another.

    `os.read` would reserve 64 KiB for each read, however few bytes arrive. Where some of these
    bytes are kept, as raw JSON is, the rest of the 64 KiB is a hole in the heap.
    """

    def __init__(self) -> None:
        self.whole: memoryview = memoryview(bytearray(READ_BYTES))


_buffers: Final = _Buffers()


class EagerStream(trio.abc.Stream):
    """A byte stream that can also send without waiting."""

    @abstractmethod
    def send_now(self, data: bytes) -> bytes | memoryview | None:
        """Send what the socket takes at once, and return what is left; `None` if nothing is.

        ``data`` itself is returned when nothing of it was sent, for whatever reason: `send_all`
        raises the error, if there is one. Another rest, which may be empty, has to be passed to
        `send_all` before anything else is sent. Only called while no task sends.
        """
        raise NotImplementedError


class SocketStream(EagerStream):
    """A TCP connection that is read as soon as the operating system has bytes, and not before.

    Invariants:

    * Bytes are taken from the socket in a step after which nothing is awaited that can be
      cancelled: a cancelled read has taken none.
    * The descriptor is used only while it is open: `aclose` notes the end before it closes the
      socket, and a reader looks for the end after each wait. The system may give the number to
      another file at once. There is no second socket object, which could close that file.
    * The descriptor belongs to the `trio.SocketStream`, whose end wakes a waiting reader.
    * Each read lets other tasks run, also where bytes never cease to arrive.

    :param stream: the stream of Trio, which sends when the socket does not take all bytes at once.
    :param descriptor: the descriptor of its socket.
    """

    __slots__ = ("_buffer", "_closed", "_descriptor", "_filled", "_stream")

    def __init__(self, stream: trio.SocketStream, descriptor: int) -> None:
        self._stream = stream
        self._descriptor = descriptor
        self._closed = False
        self._buffer = _buffers.whole
        """Holds bytes only until they are copied, before another task runs."""
        self._filled = False
        """Whether the last read has filled its buffer, so that there are probably more bytes."""

    @property
    def transport_stream(self) -> trio.SocketStream:
        """The underlying stream."""
        return self._stream

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Return the bytes that have arrived; nothing at the end of the stream.

        :raises trio.BrokenResourceError: when the connection is broken.
        :raises trio.ClosedResourceError: when this side has closed it, also while this waits.
        :raises trio.BusyResourceError: while another task waits for bytes.
        """
        buffer = self._buffer
        if max_bytes is not None and max_bytes < READ_BYTES:
            if max_bytes < 1:
                raise ValueError("max_bytes must be at least 1")
            buffer = buffer[:max_bytes]
        reads_first = self._filled
        try:
            if reads_first:
                await checkpoint_if_cancelled()
            while not self._closed:
                if not reads_first:
                    await wait_readable(self._descriptor)
                    if self._closed:
                        break
                try:
                    size = os.readv(self._descriptor, (buffer,))
                except BlockingIOError:
                    reads_first = self._filled = False
                    continue
                data = bytes(buffer[:size])
                self._filled = size == len(buffer)
                if reads_first:
                    await cancel_shielded_checkpoint()
                return data
        except OSError as error:
            raise trio.BrokenResourceError(f"socket connection broken: {error}") from error
        raise trio.ClosedResourceError("this socket was already closed")

    def send_now(self, data: bytes) -> bytes | memoryview | None:
        """Send what the socket takes at once, and return what is left; `None` if nothing is."""
        if self._closed:
            return data
        try:
            size = os.write(self._descriptor, data)
        except OSError:
            return data
        return memoryview(data)[size:] if size < len(data) else None

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send all of ``data``."""
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until the socket accepts bytes."""
        await self._stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        """Close the socket, and wake the task that waits for bytes."""
        self._closed = True
        await self._stream.aclose()
