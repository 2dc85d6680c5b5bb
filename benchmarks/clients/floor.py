"""Floors: a bare Trio socket, this project's frame reader and its decoder, in two forms.

A floor has no background task, no checkpoint between the events of one read and no deadline, and
does not check what it sends. The mask of its frames is zero. The cost of a client above the floor
is the cost of its features.

- ``floor`` waits until the socket is readable and then reads, without a pass of Trio's loop after
  a send that the socket takes at once.
- ``floor-2026`` uses Trio's own stream, which tries to read before it waits. It does not change, so
  that limits of the budget keep their meaning.
"""

from __future__ import annotations

import socket
import struct
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Final, cast
from urllib.parse import urlsplit

import trio

from benchmarks.clients.decoding import decode, request
from benchmarks.clients.session import LARGEST_MESSAGE, TrioLoop, tls_context
from trio_responses._protocol.frames import FrameReader
from trio_responses.types import OutputTextDelta, ResponseCompleted

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from benchmarks.clients.session import Input, OnText

READ_BYTES: Final = 64 * 1024
NO_MASK: Final = bytes(4)


def header(size: int) -> bytes:
    """Return the header of a masked text frame."""
    if size < 126:
        return struct.pack("!BB", 0x81, 0x80 | size) + NO_MASK
    if size < 65536:
        return struct.pack("!BBH", 0x81, 0xFE, size) + NO_MASK
    return struct.pack("!BBQ", 0x81, 0xFF, size) + NO_MASK


class WaitFirstStream(trio.abc.Stream):
    """A stream over a socket that does not block, which waits before it reads.

    After a read that filled the buffer, the next read does not wait: more bytes are likely there.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._more = False

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send all bytes, and wait only if the socket does not take them at once."""
        await trio.lowlevel.checkpoint_if_cancelled()
        with memoryview(data) as view:
            sent = 0
            while True:
                with suppress(BlockingIOError):
                    sent += self._socket.send(view[sent:])
                if sent == len(view):
                    return
                await trio.lowlevel.wait_writable(self._socket)

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until the socket takes bytes."""
        await trio.lowlevel.wait_writable(self._socket)

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Wait for bytes and return them; no bytes are the end."""
        size = max_bytes or READ_BYTES
        if not self._more:
            await trio.lowlevel.wait_readable(self._socket)
        while True:
            try:
                data = self._socket.recv(size)
            except BlockingIOError:
                await trio.lowlevel.wait_readable(self._socket)
            else:
                self._more = len(data) == size
                return data

    async def aclose(self) -> None:
        """Close the socket."""
        trio.lowlevel.notify_closing(self._socket)
        self._socket.close()
        await trio.lowlevel.checkpoint()


class FloorSession:
    """Turns that read the socket directly."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self._reader = FrameReader(LARGEST_MESSAGE)

    async def turn(self, given: Input, on_text: OnText) -> None:
        """Send one request and read its response."""
        payload = request(given)
        await self._stream.send_all(header(len(payload)) + payload)
        done = False
        while not done:
            data = await self._stream.receive_some(READ_BYTES)
            while data or self._reader.backlog:
                messages, _ = self._reader.feed(data)
                data = b""
                for message in messages:
                    event = decode(cast("bytes", message))
                    if type(event) is OutputTextDelta:
                        on_text(event.delta)
                    elif type(event) is ResponseCompleted:
                        done = True


class Floor2026Client(TrioLoop):
    """A client with Trio's own stream, which reads before it waits."""

    async def dial(self, host: str, port: int) -> trio.abc.Stream:
        """Return a stream to the server."""
        return await trio.open_tcp_stream(host, port)

    @asynccontextmanager
    async def connect(self, url: str) -> AsyncGenerator[FloorSession, None]:
        """Open a connection for the block."""
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port or 0
        stream = await self.dial(host, port)
        if parts.scheme == "https":
            stream = trio.SSLStream(
                stream, tls_context(), server_hostname=host, https_compatible=True
            )
        async with stream:
            await stream.send_all(
                f"GET {parts.path}/responses HTTP/1.1\r\nHost: {parts.netloc}\r\n".encode()
                + b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
            )
            await stream.receive_some()
            yield FloorSession(stream)


class FloorClient(Floor2026Client):
    """A client that waits before it reads."""

    async def dial(self, host: str, port: int) -> trio.abc.Stream:
        """Return a stream to the server that waits first."""
        opened = await trio.open_tcp_stream(host, port)
        sock = socket.socket(fileno=opened.socket.detach())
        sock.settimeout(0)
        return WaitFirstStream(sock)
