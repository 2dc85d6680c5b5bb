"""A guard against slower code: it counts Python calls, so that a busy machine has no effect.

    python -m benchmarks.guard

The guard counts the calls of Python functions, and the steps of coroutines and generators, in the
client: for an event of a burst, for an event that comes alone, for a small turn, for the first
turn of the process, and for opening a connection. The client uses real sockets, with and without
TLS, over WebSocket and over HTTP. The server is part of Trio's loop and works only while the client
waits, so every run counts the same. An event is counted as the difference between a long and
a short response.

The counts are compared with those in ``benchmarks/limits.json``. A count that is more than
a twentieth over its limit is a failure; one that is as far below asks for a lower limit.
``--update`` writes the counts as the new limits. TLS is left out where trustme is not installed.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
from collections import deque
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final

import trio
import trio.testing

from benchmarks import answers, idle_server
from benchmarks.clients.floor import Floor2026Client, FloorClient
from benchmarks.clients.ours import (
    BatchesSession,
    ChannelSession,
    ConversationSession,
    StreamSession,
)
from benchmarks.clients.session import KEY, tls_context
from benchmarks.idle_server import IdleServer
from benchmarks.replay import CERTIFICATE, secured
from trio_responses import open_responses

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
    from types import FrameType

    from benchmarks.answers import Encode
    from benchmarks.clients.session import BenchmarkSession
    from trio_responses import ResponsesConnection

LIMITS: Final = Path(__file__).parent / "limits.json"
MARGIN: Final = 1.05
PIECE_BYTES: Final = 32 * 1024
"""The bytes of a burst that come at once: they fit into the buffers of every socket."""
BURST: Final = 2000
PACED: Final = 100
TURNS: Final = 10
OPENINGS: Final = 3
INSTRUMENTATION: Final = str(Path(trio.__file__).parent / "_core" / "_instrumentation.py")
NOT_CLIENT: Final = frozenset({idle_server.__file__, INSTRUMENTATION})
"""The files whose functions are part of the server."""


class ScriptedAnswer:
    """The answer of the server, in pieces that come one after another.

    :param encode: returns the bytes of one event: a WebSocket frame or a chunk.
    """

    def __init__(self, encode: Encode = answers.frame) -> None:
        self.deltas = 2
        self.alone = False
        """Whether each event is a piece of its own."""
        self._encode = encode
        self._number = 0

    def __call__(self) -> Sequence[bytes]:
        """Return the pieces of the next answer, whose id is new."""
        self._number += 1
        number = b"%032x" % self._number
        events = [
            event.replace(answers.RESPONSE_DIGITS, number)
            for event in answers.streamed(self.deltas, encode=self._encode)
        ]
        if self.alone:
            return events
        data = b"".join(events)
        return [data[at : at + PIECE_BYTES] for at in range(0, len(data), PIECE_BYTES)]


class CallCounter:
    """A counter of the Python calls of a client."""

    def __init__(self, server: IdleServer) -> None:
        self._server = server

    async def count(self, work: Callable[[], Awaitable[object]]) -> int:
        """Run the work and return its calls."""
        calls = 0

        def on_call(frame: FrameType, kind: str, argument: Any) -> None:
            del argument
            nonlocal calls
            if (
                kind == "call"
                and not self._server.working
                and frame.f_code.co_filename not in NOT_CLIENT
            ):
                calls += 1

        gc.collect()
        gc.disable()  # finalizers would run at any time
        sys.setprofile(on_call)
        try:
            await work()
        finally:
            sys.setprofile(None)
            gc.enable()
        return calls


class CountedClient:
    """A client and its server, whose work is counted.

    :param name: what is put before the names of the counts, such as ``HTTP``.
    """

    def __init__(self, name: str, answer: ScriptedAnswer, server: IdleServer) -> None:
        self.found: dict[str, float] = {}
        self._name = name
        self._answer = answer
        self._counter = CallCounter(server)

    async def count_turns(self, session: BenchmarkSession, turns: int) -> float:
        """Return the calls of a turn."""
        on_text = deque[str](maxlen=1).append

        async def work() -> None:
            for _ in range(turns):
                await session.turn("go", on_text)

        await work()
        return await self._counter.count(work) / turns

    async def add_events(self, kind: str, label: str, session: BenchmarkSession) -> None:
        """Count an event: ``kind`` is ``burst``, or ``paced`` for events that come alone."""
        events = BURST if kind == "burst" else PACED
        self._answer.alone = kind == "paced"
        counts: list[float] = []
        for deltas in (events, 2 * events):
            self._answer.deltas = deltas
            counts.append(await self.count_turns(session, 1))
        self._answer.deltas, self._answer.alone = 2, False
        self._add(f"{kind}, {label}, an event", (counts[1] - counts[0]) / events)

    async def add_turn(self, label: str, session: BenchmarkSession) -> None:
        """Count a turn of nine events that come at once."""
        self._add(f"small, {label}, a turn", await self.count_turns(session, TURNS))

    async def add_first_turn(self, label: str, session: BenchmarkSession) -> None:
        """Count the first turn of the process, without a turn before it."""
        on_text = deque[str](maxlen=1).append

        async def work() -> None:
            await session.turn("go", on_text)

        await trio.testing.wait_all_tasks_blocked()  # all tasks of the connection have begun
        self._add(f"first, {label}, a turn", await self._counter.count(work))

    async def add_opening(self, label: str, opening: Callable[[], Awaitable[object]]) -> None:
        """Count the opening and closing of a connection."""

        async def work() -> None:
            for _ in range(OPENINGS):
                await opening()

        await work()
        self._add(f"opening, {label}", await self._counter.count(work) / OPENINGS)

    def _add(self, name: str, calls: float) -> None:
        self.found[f"{self._name} {name}".strip()] = round(calls, 2)


@asynccontextmanager
async def open_counted(
    name: str, *, encode: Encode = answers.frame, context: ssl.SSLContext | None = None
) -> AsyncGenerator[tuple[CountedClient, str], None]:
    """Run a server for the block, which gets what counts and the base URL."""
    answer = ScriptedAnswer(encode)
    server = IdleServer(answer, context)
    trio.lowlevel.add_instrument(server)
    try:
        yield CountedClient(name, answer, server), server.url
    finally:
        trio.lowlevel.remove_instrument(server)
        server.close()


async def count_websocket(name: str, context: ssl.SSLContext | None = None) -> dict[str, float]:
    """Return the calls over WebSocket: of this library, and of the floors."""
    trust = None if context is None else tls_context()
    async with open_counted(name, context=context) as (counted, url):

        async def opening() -> None:
            async with open_responses(url, api_key=KEY, proxy=None, ssl_context=trust):
                pass

        async with open_responses(url, api_key=KEY, proxy=None, ssl_context=trust) as connection:
            if not name:
                await counted.add_first_turn("stream", StreamSession(connection))
            for label, session in sessions(connection).items():
                await counted.add_events("burst", label, session)
                await counted.add_events("paced", label, session)
                await counted.add_turn(label, session)
            async with connection.conversation(model=answers.MODEL) as conversation:
                await counted.add_turn("conversation", ConversationSession(conversation))
        await counted.add_opening("connection", opening)
        for label, client in (("floor", FloorClient()), ("floor-2026", Floor2026Client())):
            async with client.connect(url) as floor:
                await counted.add_events("paced", label, floor)
                await counted.add_turn(label, floor)
    return counted.found


def sessions(connection: ResponsesConnection) -> dict[str, BenchmarkSession]:
    """Return the ways of reading a turn that are counted."""
    return {
        "stream": StreamSession(connection),
        "batches": BatchesSession(connection),
        "channel": ChannelSession(connection),
    }


async def count_http() -> dict[str, float]:
    """Return the calls over HTTP."""
    async with open_counted("HTTP", encode=answers.event_chunk) as (counted, url):

        async def opening() -> None:
            async with open_responses(url, api_key=KEY, proxy=None, transport="http") as connection:
                await StreamSession(connection).turn("go", deque[str](maxlen=1).append)

        async with open_responses(url, api_key=KEY, proxy=None, transport="http") as connection:
            session = StreamSession(connection)
            await counted.add_events("burst", "stream", session)
            await counted.add_events("paced", "stream", session)
            await counted.add_turn("stream", session)
        await counted.add_opening("connection and a turn", opening)
    return counted.found


def count_all() -> dict[str, float]:
    """Return the calls of all measured work."""
    found = {**trio.run(count_websocket, ""), **trio.run(count_http)}
    with TemporaryDirectory() as folder:
        context = secured(Path(folder))
        if context is not None:
            os.environ["SSL_CERT_FILE"] = str(Path(folder) / CERTIFICATE)
            found |= trio.run(count_websocket, "TLS", context)
    return found


def verdict(counted: float, limit: float | None) -> str:
    """Return the result of a comparison with a limit as text."""
    if limit is None:
        return "no limit"
    if counted > limit * MARGIN:
        return "TOO MANY"
    return "fewer: lower the limit" if counted * MARGIN < limit else "as before"


def main() -> None:
    """Count, compare with the limits, and fail for a number that is too large."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.guard", description=__doc__)
    parser.add_argument("--update", action="store_true", help="write the counts as new limits")
    parser.add_argument("--json", action="store_true", help="print the counts only, as JSON")
    arguments = parser.parse_args()
    found = count_all()
    if arguments.json:
        print(json.dumps(found))
        return
    if arguments.update:
        LIMITS.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    limits: dict[str, float] = json.loads(LIMITS.read_text(encoding="utf-8"))
    said = {name: verdict(counted, limits.get(name)) for name, counted in found.items()}
    for name, counted in found.items():
        print(f"{name:36} {counted:9.2f}, limit {limits.get(name, 0):9.2f}: {said[name]}")
    for name in limits.keys() - found.keys():
        print(f"{name:36} was not counted")
    sys.exit("TOO MANY" in said.values())


if __name__ == "__main__":
    main()
