"""A guard against slower code: it counts operations, so that a busy machine has no effect.

    python -m benchmarks.guard

The guard counts the calls (of Python and C functions) and the bytecodes that the client runs, over
WebSocket and over HTTP: for a fixed burst, for the same events with one event a read, and for small
turns. A stream in memory replaces the server. It accepts the upgrade and answers each request with
the same bytes, in reads of at most 64 KiB, so that every run counts the same. A number that is a
quarter over its limit is a failure. A number that is a quarter under its limit asks for a lower
limit. Bytecodes depend on the version of Python: other versions check calls only.
"""

from __future__ import annotations

import base64
import hashlib
import sys
from collections import deque
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal

import trio

from benchmarks import answers
from benchmarks.clients.ours import ChannelSession, ConversationSession, StreamSession
from trio_responses import open_responses

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from contextlib import AbstractAsyncContextManager
    from types import FrameType

    from benchmarks.answers import Encode
    from benchmarks.clients.session import BenchmarkSession
    from trio_responses import ResponsesConnection

ACCEPT_SALT: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
KEY_HEADER: Final = b"sec-websocket-key:"
HTTP_HEAD: Final = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
)
READ_BYTES: Final = 64 * 1024
MARGIN: Final = 1.25
INTERPRETER: Final = (3, 11)
"""The version of Python that the limits for bytecodes belong to."""
DELTAS: Final = 2000
TURNS: Final = 20


@dataclass(frozen=True)
class OperationCount:
    """Calls and bytecodes of one event or of one turn."""

    calls: float
    bytecodes: float


LIMITS: Final = {
    "burst, stream, an event": OperationCount(10.4, 167),
    "burst, channel, an event": OperationCount(11.4, 172),
    "sparse, stream, an event": OperationCount(165, 2140),
    "small, stream, a turn": OperationCount(655, 8510),
    "small, conversation, a turn": OperationCount(696, 9180),
    "HTTP burst, stream, an event": OperationCount(8.9, 132),
    "HTTP sparse, stream, an event": OperationCount(295, 3500),
    "HTTP small, stream, a turn": OperationCount(3060, 37_400),
}
"""The counts that a run is compared with."""


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
            self.put(_accept(bytes(data)))
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


def _accept(head: bytes) -> bytes:
    """Return the answer to an upgrade request."""
    lines = head.split(b"\r\n")
    key = next(line for line in lines if line.lower().startswith(KEY_HEADER))[18:].strip()
    digest = hashlib.sha1(key + ACCEPT_SALT).digest()  # noqa: S324 - RFC 6455
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
        b"Connection: Upgrade\r\nSec-WebSocket-Accept: " + base64.b64encode(digest) + b"\r\n\r\n"
    )


async def count(work: Callable[[], Awaitable[object]], per: int) -> OperationCount:
    """Run the work twice and return its calls and bytecodes, divided by ``per``."""
    calls = [0]
    bytecodes = [0]

    def on_call(frame: FrameType, kind: str, argument: Any) -> None:
        del frame, argument
        if kind in {"call", "c_call"}:
            calls[0] += 1

    def on_trace(frame: FrameType, kind: str, argument: Any) -> Any:
        del argument
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        if kind == "opcode":
            bytecodes[0] += 1
        return on_trace

    sys.setprofile(on_call)
    try:
        await work()
    finally:
        sys.setprofile(None)
    sys.settrace(on_trace)
    try:
        await work()
    finally:
        sys.settrace(None)
    return OperationCount(calls[0] / per, bytecodes[0] / per)


def burst(encode: Encode = answers.frame) -> Sequence[bytes]:
    """Return the response of a burst."""
    return [b"".join(answers.streamed(DELTAS, encode=encode))]


def sparse(encode: Encode = answers.frame) -> Sequence[bytes]:
    """Return the same response, one event a read."""
    return answers.streamed(DELTAS, encode=encode)


class SmallResponses:
    """Small responses, each with its own id."""

    def __init__(self, encode: Encode = answers.frame) -> None:
        self._encode = encode
        self._number = 0

    def __call__(self) -> Sequence[bytes]:
        """Return the next response."""
        self._number += 1
        number = b"%032x" % self._number
        events = answers.streamed(2, encode=self._encode)
        return [b"".join(events).replace(answers.RESPONSE_DIGITS, number)]


async def count_turns(session: BenchmarkSession, turns: int, per: int) -> OperationCount:
    """Return the operations of turns, after a warm-up turn."""
    on_text = deque[str](maxlen=1).append

    async def work() -> None:
        for _ in range(turns):
            await session.turn("go", on_text)

    await session.turn("go", on_text)
    return await count(work, per)


async def count_all() -> dict[str, OperationCount]:
    """Return the operations of all measured work."""
    found: dict[str, OperationCount] = {}
    events = DELTAS + len(answers.streamed(0))
    async with _open(burst) as connection:
        found["burst, stream, an event"] = await count_turns(StreamSession(connection), 1, events)
        found["burst, channel, an event"] = await count_turns(ChannelSession(connection), 1, events)
    async with _open(sparse) as connection:
        found["sparse, stream, an event"] = await count_turns(StreamSession(connection), 1, events)
    async with _open(SmallResponses()) as connection:
        found["small, stream, a turn"] = await count_turns(StreamSession(connection), TURNS, TURNS)
        async with connection.conversation(model=answers.MODEL) as conversation:
            found["small, conversation, a turn"] = await count_turns(
                ConversationSession(conversation), TURNS, TURNS
            )
    for name, answer, turns, per, unit in (
        ("burst", partial(burst, answers.event_chunk), 1, events, "an event"),
        ("sparse", partial(sparse, answers.event_chunk), 1, events, "an event"),
        ("small", SmallResponses(answers.event_chunk), TURNS, TURNS, "a turn"),
    ):
        async with _open(answer, transport="http") as connection:
            counted = await count_turns(StreamSession(connection), turns, per)
            found[f"HTTP {name}, stream, {unit}"] = counted
    return found


def _open(
    answer: Callable[[], Sequence[bytes]], transport: Literal["websocket", "http"] = "websocket"
) -> AbstractAsyncContextManager[ResponsesConnection]:
    async def dial(host: str, port: int) -> trio.abc.Stream:
        del host, port
        await trio.lowlevel.checkpoint()
        return CannedStream(answer)

    return open_responses(
        "http://127.0.0.1:1/v1", api_key="key", dial=dial, proxy=None, transport=transport
    )


def verdict(counted: float, limit: float) -> str:
    """Return the result of a comparison with a limit as text."""
    if counted > limit * MARGIN:
        return "TOO MANY"
    return "fewer: lower the limit" if counted * MARGIN < limit else "as before"


def main() -> None:
    """Count, compare with the limits, and fail for a number that is too large."""
    same_bytecodes = sys.version_info[:2] == INTERPRETER
    failed = False
    for name, counted in trio.run(count_all).items():
        limit = LIMITS[name]
        pairs = [("calls", counted.calls, limit.calls)]
        if same_bytecodes:
            pairs.append(("bytecodes", counted.bytecodes, limit.bytecodes))
        for kind, number, most in pairs:
            said = verdict(number, most)
            failed = failed or said == "TOO MANY"
            print(f"{name:30} {kind:10} {number:9.2f}, was {most:9.2f}: {said}")
    sys.exit(failed)


if __name__ == "__main__":
    main()
