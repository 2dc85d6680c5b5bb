"""A stream that passes only the handshake and control frames of a socket to trio-websocket.

trio-websocket does the opening and closing handshakes and answers pings. A data frame costs it 15
to 25 us, so data frames never reach it: `_protocol/frames.py` decodes them. The task that reads the
socket (`WebSocketTransport.receive`) feeds the control frames to a `ControlStream`, and a
`ControlStream` reads the socket itself only for the upgrade response. The error of a failed
upgrade is stored in `ControlStream.upgrade_error`, because trio-websocket would wait for the end of
a body that may never come.
"""

from __future__ import annotations

import re
from typing import Final

import trio

from trio_responses._concurrency import FastLock, Notifier
from trio_responses._errors import (
    ConnectError,
    handshake_error,
)
from trio_responses._transport.socket_stream import EagerStream
from trio_responses._transport.state import (
    TransportState,
    TransportStates,
    TransportTrigger,
    WriteState,
    WriteTrigger,
)

__all__ = ["ControlStream"]

MAX_HEAD_BYTES: Final = 64 * 1024
MAX_BODY_BYTES: Final = 16 * 1024
"""The part of a refusal's body that is kept."""
BODY_TIMEOUT: Final = 1.0
"""Seconds in which the body of a refusal may arrive; the upgrade has failed either way."""
MAX_LENGTH_DIGITS: Final = 18
MAX_PENDING_FRAMES: Final = 16
"""Control frames that trio-websocket has not read yet."""
FINAL_READ_CHECKPOINTS: Final = 16 + 2 * MAX_PENDING_FRAMES
"""Checkpoints in which a reader may process the last bytes of a broken socket: two for the reader,
and two for each control frame."""
SWITCHING_PROTOCOLS: Final = 101
FIRST_FINAL_STATUS: Final = 200
HEADER_BYTES: Final = 2
CLOSE_FRAME: Final = 0x88
CHUNK_SIZE: Final = re.compile(rb"([0-9A-Fa-f]{1,16})(?:[ \t;][^\r\n]*)?\r\n")
MAX_CHUNK_LINE: Final = 1024
"""The longest line with the size of a chunk that is waited for."""
STATUSES_WITHOUT_BODY: Final = frozenset({204, 205, 304})
NOT_HTTP: Final = (
    "the server did not answer in HTTP: check the port, and whether it needs https:// for TLS"
)


class ControlStream(trio.abc.Stream):
    """A stream for trio-websocket that carries the handshake and control frames, no data frames.

    :param stream: the real stream.
    """

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self._eager = stream if isinstance(stream, EagerStream) else None
        self._pending = bytearray()
        self._arrived = Notifier()
        self._ended = False
        self._write_lock = FastLock()  # data frames do not pass through trio-websocket's own lock
        self.states: TransportStates = TransportStates()
        """The states of the transport, shared with `WebSocketTransport`."""
        self.reader_scope: trio.CancelScope = trio.CancelScope(shield=True)
        """The scope of trio-websocket's task. Shielded: the closing handshake needs the task."""
        self.upgrade_scope: trio.CancelScope = trio.CancelScope()
        """The scope of the upgrade: cancelled as soon as the upgrade has failed."""
        self.upgrade_error: ConnectError | None = None
        """Why the upgrade failed."""
        self.crash: Exception | None = None
        """The exception that trio-websocket raised after the upgrade."""
        self.after_upgrade: bytes = b""
        """The bytes that came in one read with the upgrade response, after its head."""

    def feed(self, control: bytes) -> None:
        """Pass control frames to trio-websocket.

        When they arrive faster than the answers can be written, the oldest are dropped: an answer
        to the latest ping is enough (RFC 6455, section 5.5.3).

        :param control: whole frames, as raw bytes.
        """
        self._pending += control
        starts = [0]
        while starts[-1] < len(self._pending):
            starts.append(starts[-1] + HEADER_BYTES + self._pending[starts[-1] + 1])
        surplus = max(len(starts) - 1 - MAX_PENDING_FRAMES, 0)
        del self._pending[: starts[surplus]]
        self._arrived.notify()

    def drop_pending(self) -> None:
        """Discard the unread control frames, because a close frame is about to be written."""
        self._pending.clear()

    def feed_end(self) -> None:
        """Pass the end of the stream to trio-websocket, after the unread control frames."""
        self._ended = True
        self._arrived.notify()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Return the head of the upgrade response first, and one control frame on every call after.

        One frame and not several, because trio-websocket raises when it reads a ping before its
        own close frame goes out and answers the ping after.
        """
        del max_bytes  # handshakes and control frames are small
        if self.states.life is TransportState.OPENING:
            return await self._receive_upgrade()
        if self._pending:  # trio-websocket reads them without a checkpoint
            await trio.lowlevel.checkpoint()
        while not self._pending and not self._ended:
            await self._arrived.wait()
        size = HEADER_BYTES + self._pending[1] if self._pending else 0
        taken = bytes(self._pending[:size])
        del self._pending[:size]
        return taken

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Write trio-websocket's bytes: the upgrade request or a control frame."""
        try:
            async with self._write_lock:
                await self._write(data)
                if data[0] == CLOSE_FRAME:
                    self.states.process(WriteTrigger.CLOSE_FRAME_WRITTEN)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            if self.states.life is TransportState.OPENING:
                self._set_connection_error(error)
            elif isinstance(error, trio.BrokenResourceError):
                await self.wait_for_close_frame()
            raise

    def send_now(self, frame: bytes) -> bytes | memoryview | None:
        """Write what the socket takes of a data frame at once; return what is left, or `None`.

        Nothing is written where `send_frame` would wait for another writer or would not write: the
        frame itself is returned. Once a part of the frame is out, nothing else is written before
        `send_rest` has written the rest: it must be called next, and holds the lock.
        """
        stream = self._eager
        if stream is None or self._write_lock.locked() or self.states.write is not WriteState.READY:
            return frame
        rest = stream.send_now(frame)
        if rest is not None and rest is not frame:
            self._write_lock.acquire_free()
        return rest

    async def send_rest(self, rest: bytes | memoryview) -> bool:
        """Write the rest of a data frame that `send_now` has begun.

        :return: `False` when the frame was not written whole, because the socket has ended.
        """
        try:
            await self._write(rest)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return False
        finally:
            self._write_lock.release()
        return True

    async def send_frame(self, frame: bytes) -> bool:
        """Write a whole data frame.

        :return: `False` when the frame was not written, because the socket has ended or is closing.
        """
        try:
            async with self._write_lock:
                if self.states.write is WriteState.CLOSE_SENT:
                    return False
                await self._write(frame)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return False
        return True

    async def _write(self, data: bytes | bytearray | memoryview) -> None:
        if self.states.write is WriteState.CUT:
            raise trio.BrokenResourceError("a frame was cut short")
        try:
            await self._stream.send_all(data)
        except trio.Cancelled:
            self.states.process(WriteTrigger.WRITE_CANCELLED)
            raise

    async def wait_for_close_frame(self) -> None:
        """Wait until a reader has processed the close frame that explains a failed write.

        A close frame among them has the reason why the write failed. trio-websocket gets the
        failure after the close frame, and so reports the server's close code.
        """
        for _ in range(FINAL_READ_CHECKPOINTS):
            if self._ended and not self._pending:
                break
            await trio.lowlevel.checkpoint()

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until the socket accepts bytes."""
        await self._stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        """Close the socket."""
        self.feed_end()
        await self._stream.aclose()

    async def abort(self, crash: Exception) -> None:
        """Close the socket at once, because trio-websocket has failed."""
        self.crash = crash
        await trio.aclose_forcefully(self._stream)

    def fail_upgrade(self, cause: Exception) -> None:
        """Set the upgrade error: trio-websocket did not accept the server's upgrade response."""
        upgrade_error = ConnectError(
            "the server's upgrade response was not valid: this is no WebSocket server, or a proxy"
            " changed the response"
        )
        upgrade_error.__cause__ = cause
        self._set_upgrade_error(upgrade_error)

    def _set_upgrade_error(self, error: ConnectError) -> None:
        self.upgrade_error = self.upgrade_error or error
        self.states.process(TransportTrigger.UPGRADE_FAILED)
        self._ended = True
        self.upgrade_scope.cancel()

    def _set_connection_error(self, cause: Exception) -> None:
        upgrade_error = ConnectError("the connection broke during the upgrade")
        upgrade_error.__cause__ = cause
        self._set_upgrade_error(upgrade_error)

    async def _receive_upgrade(self) -> bytes:
        """Read the server's response to the upgrade request.

        :return: the head of a 101 response, unchanged, up to its empty line; nothing for every
            other response, which becomes the `upgrade_error`.
        """
        received = bytearray()
        while True:
            end = received.find(b"\r\n\r\n") + 4
            if end < 4:  # noqa: PLR2004 - find() returned -1
                if not await self._read_more(received):
                    return b""
                continue
            status, headers = _parse_head(bytes(received[:end]))
            if status == SWITCHING_PROTOCOLS:
                self.states.process(TransportTrigger.SWITCHING_PROTOCOLS)
                self.after_upgrade = bytes(received[end:])
                return bytes(received[:end])
            if SWITCHING_PROTOCOLS < status < FIRST_FINAL_STATUS or status == 100:  # noqa: PLR2004
                del received[:end]  # an interim response: the final one follows (RFC 9110, 15.2)
                await trio.lowlevel.checkpoint()
                continue
            if status == 0:
                self._set_upgrade_error(ConnectError(NOT_HTTP, retryable=False))
                return b""
            await self._read_rejection(status, headers, received[end:])
            return b""

    async def _read_more(self, received: bytearray) -> bool:
        """Read once into ``received``; return `False` when the upgrade has failed."""
        if len(received) > MAX_HEAD_BYTES:
            self._set_upgrade_error(
                ConnectError("the head of the server's upgrade response is too long: it has no end")
            )
            return False
        try:
            data = await self._stream.receive_some()
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            self._set_connection_error(error)
            return False
        received += data
        if not data:
            self._set_upgrade_error(
                ConnectError("the server closed the connection during the upgrade")
            )
        elif not received.startswith(b"HTTP/1."[: len(received)]):
            self._set_upgrade_error(ConnectError(NOT_HTTP, retryable=False))
        return self.upgrade_error is None

    async def _read_rejection(self, status: int, headers: dict[str, str], body: bytearray) -> None:
        """Read the body of a rejected upgrade, and set the upgrade error for its HTTP status.

        The body ends by its length or its last chunk with trailers, at the end of the stream, at
        `MAX_BODY_BYTES`, or after `BODY_TIMEOUT`. Some statuses have none (RFC 9112, 6.3).
        """
        codings = headers.get("transfer-encoding", "").lower().split(",")
        chunked = codings[-1].strip() == "chunked"
        length = headers.get("content-length", "")
        has_length = not chunked and length.isdecimal() and len(length) <= MAX_LENGTH_DIGITS
        wanted = min(int(length) if has_length else MAX_BODY_BYTES, MAX_BODY_BYTES)
        if status in STATUSES_WITHOUT_BODY:
            wanted = 0
        with trio.move_on_after(BODY_TIMEOUT):
            while len(body) < wanted and not (chunked and _read_chunks(body)[1]):
                try:
                    data = await self._stream.receive_some()
                except (trio.BrokenResourceError, trio.ClosedResourceError):
                    break
                if not data:
                    break
                body += data
        if chunked:
            body = _read_chunks(body)[0]
        self._set_upgrade_error(handshake_error(status, headers, bytes(body[:wanted])))


def _read_chunks(raw: bytearray) -> tuple[bytearray, bool]:
    """Return a body without the framing of its chunks, as far as it arrived (RFC 9112, 7.1).

    :return: the body, and whether it has ended: the trailers have arrived, or the framing is wrong.
    """
    body = bytearray()
    position = 0
    while size := CHUNK_SIZE.match(raw, position):
        length = int(size[1], 16)
        if length == 0:
            no_trailers = raw.startswith(b"\r\n", size.end())
            return body, no_trailers or b"\r\n\r\n" in raw[size.end() :]
        position = size.end() + length
        body += raw[size.end() : position]
        position += len(b"\r\n")
    rest = raw[position : position + MAX_CHUNK_LINE]
    return body, b"\n" in rest or len(rest) == MAX_CHUNK_LINE


def _parse_head(head: bytes) -> tuple[int, dict[str, str]]:
    """Return the status and headers of a response head; status 0 when the head has none."""
    status_line, *lines = head.decode("latin-1").split("\r\n")
    words = status_line.split(" ", 2)
    status = words[1] if len(words) > 1 else ""
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if colon:
            headers[name.strip().lower()] = value.strip()
    return (int(status) if status.isdecimal() and len(status) == 3 else 0), headers  # noqa: PLR2004
