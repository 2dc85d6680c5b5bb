"""A stream in memory that takes the place of a server."""

from __future__ import annotations

import base64
import hashlib
from collections import deque
from typing import TYPE_CHECKING, Final

import trio

from benchmarks import answers

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

ACCEPT_SALT: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
KEY_HEADER: Final = b"sec-websocket-key:"
HTTP_HEAD: Final = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
)
READ_BYTES: Final = 64 * 1024


class CannedStream(trio.abc.Stream):
    """A stream in memory that answers each request with prepared bytes.

    :param answer: returns what each read brings; a longer piece takes several reads.
    """

    def __init__(self, answer: Callable[[], Sequence[bytes]]) -> None:
        self._answer = answer
        self._upgraded = False
        self._unread = deque[bytes]()
        self._arrived = trio.Event()
        self._closed = False

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Prepare the answer to an upgrade request, a request or a close frame."""
        await trio.lowlevel.checkpoint()
        if data[:5] == b"POST ":
            pass  # the body follows
        elif data[:1] == b"{":
            self.put(HTTP_HEAD, *self._answer(), answers.chunk(b""))
        elif not self._upgraded:
            self._upgraded = True
            self.put(accept(bytes(data)))
        elif data[0] & 15 == 1:
            self.put(*self._answer())
        else:
            self.put(b"\x88\x02\x03\xe8")

    def put(self, *pieces: bytes) -> None:
        """Prepare bytes to be received."""
        for piece in pieces:
            starts = range(0, len(piece), READ_BYTES)
            self._unread.extend(piece[start : start + READ_BYTES] for start in starts)
        self._arrived.set()

    async def wait_send_all_might_not_block(self) -> None:
        """Return at once, since the stream always has room."""
        await trio.lowlevel.checkpoint()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Return the next piece of the prepared bytes."""
        del max_bytes
        while not self._unread and not self._closed:
            self._arrived = trio.Event()
            await self._arrived.wait()
        await trio.lowlevel.checkpoint()
        return self._unread.popleft() if self._unread else b""

    async def aclose(self) -> None:
        """Close the stream."""
        self._closed = True
        self._arrived.set()
        await trio.lowlevel.checkpoint()


def accept(head: bytes) -> bytes:
    """Return the answer to an upgrade request."""
    lines = head.split(b"\r\n")
    key = next(line for line in lines if line.lower().startswith(KEY_HEADER))[18:].strip()
    digest = hashlib.sha1(key + ACCEPT_SALT).digest()  # noqa: S324 - RFC 6455
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
        b"Connection: Upgrade\r\nSec-WebSocket-Accept: " + base64.b64encode(digest) + b"\r\n\r\n"
    )
