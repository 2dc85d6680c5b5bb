"""The baseline: a bare Trio socket, this project's frame reader and its decoder.

The baseline has no background task, no checkpoint between the events of one read and no deadline,
and does not check what it sends. The mask of its frames is zero. The cost of a client above the
baseline is the cost of its features.
"""

from __future__ import annotations

import ssl
import struct
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final, cast
from urllib.parse import urlsplit

import trio

from benchmarks.clients.decoding import decode, request
from benchmarks.clients.session import LARGEST_MESSAGE, TrioLoop
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


class BaselineSession:
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
            messages, _ = self._reader.feed(await self._stream.receive_some(READ_BYTES))
            for message in messages:
                event = decode(cast("bytes", message))
                if type(event) is OutputTextDelta:
                    on_text(event.delta)
                elif type(event) is ResponseCompleted:
                    done = True


class BaselineClient(TrioLoop):
    """A client with a bare socket."""

    @asynccontextmanager
    async def connect(self, url: str) -> AsyncGenerator[BaselineSession, None]:
        """Open a connection for the block."""
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port or 0
        stream: trio.abc.Stream = await trio.open_tcp_stream(host, port)
        if parts.scheme == "https":
            stream = trio.SSLStream(
                stream, ssl.create_default_context(), server_hostname=host, https_compatible=True
            )
        async with stream:
            await stream.send_all(
                f"GET {parts.path}/responses HTTP/1.1\r\nHost: {parts.netloc}\r\n".encode()
                + b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
            )
            await stream.receive_some()
            yield BaselineSession(stream)
