"""Floods: odd or hostile bytes that a server sends in one read, and how long they keep the loop.

Each flood is one read of 64 KiB from a stream in memory, in the middle of a turn. The first kind,
deltas of the usual form, is what the others are compared with.
"""

from __future__ import annotations

import gc
import json
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import trio
import trio.testing

from benchmarks import answers
from benchmarks.loop_probe import LoopProbe
from benchmarks.memory_stream import READ_BYTES, CannedStream
from trio_responses import Limits, ResponsesError, open_responses

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from benchmarks.clients.session import BenchmarkClient
    from trio_responses import ResponsesConnection

MICROSECONDS: Final = 1e6


def fill(*frames: bytes) -> bytes:
    """Return one read of the same frames, again and again."""
    return b"".join(frames) * (READ_BYTES // len(b"".join(frames)))


def _lanes() -> bytes:
    frames = [answers.frame({**answers.delta("x"), "stream_id": f"s{n}"}) for n in range(1000)]
    return b"".join(frames)[:READ_BYTES].rpartition(b"\x81")[0]


FLOODS: Final[dict[str, bytes]] = {
    "deltas": fill(answers.streamed(1)[3]),
    "empty pongs": fill(b"\x8a\x00"),
    "empty pings": fill(b"\x89\x00"),
    "pings of 4 bytes": fill(b"\x89\x04ping"),
    "messages of one byte": fill(b"\x81\x01x"),
    "empty messages": fill(b"\x81\x00"),
    "binary messages of one byte": fill(b"\x82\x01x"),
    "a message in fragments of one byte": b"\x01\x01x" + fill(b"\x00\x01x")[3:],
    "empty objects": fill(answers.frame({})),
    "unknown events": fill(answers.frame({"type": "response.odd"})),
    "deltas with a wrong type": fill(
        answers.frame({"type": "response.output_text.delta", "delta": 3})
    ),
    "deltas with half a surrogate pair": fill(answers.frame(answers.delta("\ud83d"))),
    "deltas of unused lanes": _lanes(),
    "errors": fill(answers.frame({"type": "error", "error": {"code": "x"}})),
    "steering reports": fill(
        answers.frame({"type": "response.steer.accepted", "steer": {"id": "x"}})
    ),
    "responses that begin": fill(
        answers.frame({"type": "response.created", "response": {"id": "r"}})
    ),
    "one event, all escapes": answers.frame(
        {"type": "response.output_text.delta", "delta": "\n" * 30_000 + "\ud83d"}
    ),
    "one event, all brackets": answers.frame(
        {"type": "response.odd", "a": json.loads("[" + "[]," * 20_000 + "1]")}
    ),
}
"""One read of each kind of flood."""


@asynccontextmanager
async def open_flooded(
    limits: Limits | None = None, *, stalled: bool = False
) -> AsyncGenerator[tuple[ResponsesConnection, CannedStream], None]:
    """Open a connection over a stream in memory, with a turn whose first event was read.

    A task reads the turn to its end, unless it is ``stalled``. The flood may fail the turn.
    """
    stream = CannedStream(lambda: answers.streamed(1)[:1])

    async def dial(host: str, port: int) -> trio.abc.Stream:
        del host, port
        await trio.lowlevel.checkpoint()
        return stream

    async def read(task_status: trio.TaskStatus[None]) -> None:
        try:
            async with connection.stream("go", model=answers.MODEL) as events:
                await anext(events)
                task_status.started()
                if stalled:
                    await trio.sleep_forever()
                async for _ in events:
                    pass
        except ResponsesError:
            pass  # the flood was the end of the turn, or of the connection

    async with (
        open_responses(
            "http://127.0.0.1:1/v1", api_key="key", dial=dial, proxy=None, limits=limits or Limits()
        ) as connection,
        trio.open_nursery() as nursery,
    ):
        await nursery.start(read)
        await trio.testing.wait_all_tasks_blocked()
        yield connection, stream
        nursery.cancel_scope.cancel()


async def measure(client: BenchmarkClient, url: str, *, kind: str) -> dict[str, float]:
    """Measure the longest pass of the loop and the processor time that one read takes."""
    del client, url
    probe = LoopProbe()
    async with open_flooded() as (_, stream):
        gc.collect()
        gc.disable()
        trio.lowlevel.add_instrument(probe)
        began = time.process_time()
        stream.put(FLOODS[kind])
        await trio.testing.wait_all_tasks_blocked(0.005)
        cpu = time.process_time() - began
        trio.lowlevel.remove_instrument(probe)
        gc.enable()
    return {
        "longest": probe.longest * MICROSECONDS,
        "cpu": cpu * MICROSECONDS,
        "passes": float(probe.passes),
    }
