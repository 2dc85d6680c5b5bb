"""Measurements while something grows: the history, the events, the lanes, the connections."""

from __future__ import annotations

from collections import deque
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, Final

from benchmarks import floods, measures
from benchmarks.clients.session import KEY, MODEL
from trio_responses import Endpoint, open_responses
from trio_responses.types import OutputTextDelta

if TYPE_CHECKING:
    from benchmarks.clients.session import BenchmarkClient
    from trio_responses import Conversation, Lane, ResponsesConnection

WARM: Final = 10


async def _measure(
    source: Conversation | ResponsesConnection | Lane, count: int, **params: Any
) -> dict[str, float]:
    """Run turns and return the time of each, without the warm-up turns."""
    texts = deque[str](maxlen=measures.KEPT)
    watch = measures.Stopwatch()
    for number in range(WARM + count):
        if number == WARM:
            watch = measures.Stopwatch()
        async with source.stream("go", **params) as stream:
            async for event in stream:
                if type(event) is OutputTextDelta:
                    texts.append(event.delta)
    return watch.per(count)


async def history(client: BenchmarkClient, url: str, *, width: int, count: int) -> dict[str, float]:
    """Measure turns in a conversation whose history has ``width`` items. All turns are deltas."""
    del client
    async with (
        open_responses(url, api_key=KEY) as connection,
        connection.conversation(model=MODEL) as conversation,
    ):
        await conversation.create(measures.input_of(0, width))
        found = await _measure(conversation, count)
        if conversation.statistics().full_turns != 1:
            raise RuntimeError("a turn was sent with full input")
        return found


async def lanes(client: BenchmarkClient, url: str, *, width: int, count: int) -> dict[str, float]:
    """Measure turns while ``width`` other lanes of the socket are leased."""
    del client
    endpoint = Endpoint.compatible(url, lanes=True)
    async with (
        open_responses(endpoint=endpoint, api_key=KEY) as connection,
        AsyncExitStack() as stack,
    ):
        for _ in range(width):
            lane = await stack.enter_async_context(connection.lane())
            await lane.create("go", model=MODEL)
        return await _measure(connection, count, model=MODEL)


async def connections(
    client: BenchmarkClient, url: str, *, width: int, count: int
) -> dict[str, float]:
    """Measure turns while ``width`` other connections are open and idle."""
    async with open_responses(url, api_key=KEY) as connection, AsyncExitStack() as stack:
        for _ in range(width):
            await stack.enter_async_context(client.connect(url))
        return await _measure(connection, count, model=MODEL)


async def wakes(client: BenchmarkClient, url: str, *, width: int, total: int) -> dict[str, float]:
    """Measure the time of an event while ``width`` connections share ``total`` events a second."""
    return await measures.streams(client, url, width=width, rate=total / width, seconds=2.0)


async def events(client: BenchmarkClient, url: str, *, width: int, count: int) -> dict[str, float]:
    """Measure the time of each event in turns with many events."""
    del width
    return await measures.turns(client, url, warm=1, count=count)


MEASURES: Final[dict[str, measures.Measure]] = {
    "history": history,
    "idle-lanes": lanes,
    "idle-connections": connections,
    "events": events,
    "wakes": wakes,
    "floods": floods.measure,
}
