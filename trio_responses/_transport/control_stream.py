"""The control_stream: what trio-websocket sees of a socket, and what it does not.

trio-websocket does the handshake, answers pings and closes; a data frame costs it 15 to 25 us.
So the control_stream stands between the two: it hands the upgrade response and the control frames up, and
leaves the data frames to `core/frames.py`. Whoever receives reads the socket and feeds the control_stream.

What belongs elsewhere: when to dial, ping and give up (`websocket.py`).
"""

from __future__ import annotations

import re
from typing import Final

import trio

from trio_responses._concurrency import FastLock, Notifier
from trio_responses._errors import (
    AuthenticationError,
    ConnectError,
    HandshakeRejected,
    UpgradeUnsupported,
)
from trio_responses._wire import parse_retry_after

__all__ = ["ControlStream"]

MAX_HEAD_BYTES: Final = 64 * 1024
MAX_BODY_BYTES: Final = 16 * 1024
BODY_GRACE: Final = 1.0
MAX_LENGTH_DIGITS: Final = 18
MAX_PENDING_BYTES: Final = 128 * 1024
LAST_WORDS_TURNS: Final = 16
"""Turns of Trio's loop to read what is there, and to heed a close frame in it; two are enough."""
SWITCHING_PROTOCOLS: Final = 101
FIRST_FINAL_STATUS: Final = 200
HEADER_BYTES: Final = 2
CLOSE_FRAME: Final = 0x88
CHUNK_SIZE: Final = re.compile(rb"([0-9A-Fa-f]{1,8})[^\r\n]*\r\n")
LAST_CHUNK: Final = b"0\r\n\r\n"
REJECTIONS: Final[dict[int, type[HandshakeRejected]]] = {
    401: AuthenticationError,
    403: AuthenticationError,
    404: UpgradeUnsupported,
    426: UpgradeUnsupported,
}


class ControlStream(trio.abc.Stream):
    """A stream for trio-websocket that carries no data frames.

    :param stream: the real stream.
    """

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self._pending = bytearray()
        self._arrived = Notifier()
        self._ended = False
        self.upgrading: bool = True
        """Whether the upgrade response is still to come."""
        self.service: trio.CancelScope = trio.CancelScope()
        """The scope of trio-websocket's tasks: cancelled as soon as the upgrade has failed."""
        self.refusal: ConnectError | None = None
        """Why the upgrade failed."""
        self.crash: Exception | None = None
        """What trio-websocket crashed with."""
        self.cut: bool = False
        """Whether a write was cancelled: after half a frame, nothing can be read any more."""
        self._turn = FastLock()  # data frames do not pass through trio-websocket
        self._closing = False
        self.after_upgrade: bytes = b""
        """The first bytes of the protocol, where they came along with the upgrade response."""

    def feed(self, control: bytes) -> None:
        """Pass the raw control frames of one read up.

        Where they come faster than the answers can be written, the oldest are left out: to answer
        the latest ping is enough (RFC 6455, 5.5.3).
        """
        self._pending += control
        if len(self._pending) > MAX_PENDING_BYTES:
            surplus = 0
            while len(self._pending) - surplus > MAX_PENDING_BYTES // 2:
                surplus += HEADER_BYTES + self._pending[surplus + 1]
            del self._pending[:surplus]
        self._arrived.notify()

    def drop_pending(self) -> None:
        """Leave the control frames that wait unanswered: a close frame is going out."""
        self._pending.clear()

    def feed_end(self) -> None:
        """Tell trio-websocket that no more bytes will come."""
        self._ended = True
        self._arrived.notify()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Give trio-websocket its bytes: the upgrade response, then one control frame a time.

        One, since it crashes on a ping that it took before our close frame and answers after it.
        """
        del max_bytes  # handshakes and control frames are small
        if self.upgrading:
            return await self._receive_upgrade()
        while not self._pending and not self._ended:
            await self._arrived.wait()
        size = HEADER_BYTES + self._pending[1] if self._pending else 0
        taken = bytes(self._pending[:size])
        del self._pending[:size]
        return taken

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Pass trio-websocket's bytes down: the upgrade request, and control frames."""
        try:
            async with self._turn:
                await self._write(data)
                self._closing = self._closing or data[0] == CLOSE_FRAME
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            if self.upgrading:
                self._refuse_broken(error)
            elif isinstance(error, trio.BrokenResourceError):
                await self.hear_out()
            raise

    async def send_frame(self, frame: bytes) -> bool:
        """Write a whole data frame: `False` where the socket takes no more."""
        try:
            async with self._turn:
                if self._closing:
                    return False
                await self._write(frame)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return False
        return True

    async def _write(self, data: bytes | bytearray | memoryview) -> None:
        if self.cut:
            raise trio.BrokenResourceError("a frame was cut short")
        try:
            await self._stream.send_all(data)
        except trio.Cancelled:
            self.cut = True
            raise

    async def hear_out(self) -> None:
        """Let be read what came before a write failed: a close frame says why it did.

        trio-websocket is told of the failure after that, and so keeps the server's close code.
        """
        for _ in range(LAST_WORDS_TURNS):
            if self._ended and not self._pending:
                break
            await trio.lowlevel.checkpoint()

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until the socket takes bytes."""
        await self._stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        """Close the socket."""
        self.feed_end()
        await self._stream.aclose()

    async def break_off(self, crash: Exception) -> None:
        """Drop the socket: trio-websocket cannot go on."""
        self.crash = crash
        await trio.aclose_forcefully(self._stream)

    def _refuse(self, error: ConnectError) -> None:
        self.refusal = self.refusal or error
        self._ended = True
        self.service.cancel()

    def _refuse_broken(self, cause: Exception) -> None:
        refusal = ConnectError("the connection broke during the upgrade")
        refusal.__cause__ = cause
        self._refuse(refusal)

    async def _receive_upgrade(self) -> bytes:
        """Read the server's answer to the upgrade request.

        A 101 is given to trio-websocket, byte for byte, up to its empty line. Everything else
        is the refusal, kept for `websocket.py`: trio-websocket would wait for the end of a body
        that may never come.
        """
        received = bytearray()
        while True:
            end = received.find(b"\r\n\r\n") + 4
            if end < 4:  # noqa: PLR2004 - find() gave -1
                if not await self._read_more(received):
                    return b""
                continue
            status, headers = _parse_head(bytes(received[:end]))
            if status == SWITCHING_PROTOCOLS:
                self.upgrading = False
                self.after_upgrade = bytes(received[end:])
                return bytes(received[:end])
            if SWITCHING_PROTOCOLS < status < FIRST_FINAL_STATUS or status == 100:  # noqa: PLR2004
                del received[:end]  # an interim response: the final one follows (RFC 9110, 15.2)
                continue
            if status == 0:
                self._refuse(ConnectError("the server did not answer in HTTP", retryable=False))
                return b""
            await self._refuse_by_status(status, headers, received[end:])
            return b""

    async def _read_more(self, received: bytearray) -> bool:
        if len(received) > MAX_HEAD_BYTES:
            self._refuse(ConnectError("the server's upgrade response has no end"))
            return False
        try:
            data = await self._stream.receive_some()
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            self._refuse_broken(error)
            return False
        received += data
        if not data:
            self._refuse(ConnectError("the server closed the connection during the upgrade"))
        elif not received.startswith(b"HTTP/1."[: len(received)]):
            self._refuse(ConnectError("the server did not answer in HTTP", retryable=False))
        return self.refusal is None

    async def _refuse_by_status(
        self, status: int, headers: dict[str, str], body: bytearray
    ) -> None:
        """Keep as much of the body as comes.

        It ends by its length or its last chunk, the end of the stream, the limit, or the end of
        our patience.
        """
        chunked = headers.get("transfer-encoding", "").lower() == "chunked"
        length = headers.get("content-length", "")
        says = length.isdecimal() and len(length) <= MAX_LENGTH_DIGITS
        wanted = min(int(length) if says else MAX_BODY_BYTES, MAX_BODY_BYTES)
        with trio.move_on_after(BODY_GRACE):
            while len(body) < wanted and not (chunked and body.endswith(LAST_CHUNK)):
                try:
                    data = await self._stream.receive_some()
                except (trio.BrokenResourceError, trio.ClosedResourceError):
                    break
                if not data:
                    break
                body += data
        if chunked:
            body = _join_chunks(body)
        kind = REJECTIONS.get(status, HandshakeRejected)
        self._refuse(
            kind(status, headers, bytes(body[:wanted]), retry_after=parse_retry_after(headers))
        )


def _join_chunks(raw: bytearray) -> bytearray:
    """Take the framing of chunks out of a body, as far as it came (RFC 9112, 7.1)."""
    body = bytearray()
    position = 0
    while size := CHUNK_SIZE.match(raw, position):
        position = size.end() + int(size[1], 16)
        body += raw[size.end() : position]
        position += len(b"\r\n")
    return body


def _parse_head(head: bytes) -> tuple[int, dict[str, str]]:
    """Take status and headers out of a response head; status 0 where there is none."""
    status_line, *lines = head.decode("latin-1").split("\r\n")
    words = status_line.split(" ", 2)
    status = words[1] if len(words) > 1 else ""
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if colon:
            headers[name.strip().lower()] = value.strip()
    return (int(status) if status.isdecimal() and len(status) == 3 else 0), headers  # noqa: PLR2004
