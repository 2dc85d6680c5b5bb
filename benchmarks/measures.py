"""The measurements of one client. Each opens its own connections.

All times are in microseconds.
"""

from __future__ import annotations

import gc
import time
from collections import deque
from contextlib import AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from benchmarks.processors import resident_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable

    from benchmarks.clients.session import BenchmarkClient, BenchmarkSession, Input

    Measure = Callable[..., Coroutine[Any, Any, dict[str, float]]]

KEPT: Final = 16
"""The number of texts that a consumer keeps."""
MICROSECONDS: Final = 1e6
SETTLING: Final = 0.5
"""Seconds until many streams that began at the same time have caught up."""


class Stopwatch:
    """The wall time and the processor time since the creation of the object."""

    def __init__(self) -> None:
        self._wall = time.perf_counter()
        self._processor = time.process_time()

    @property
    def elapsed(self) -> float:
        """Seconds of wall time."""
        return time.perf_counter() - self._wall

    def per(self, count: int) -> dict[str, float]:
        """Return both times in microseconds, divided by a count."""
        return {
            "cpu": (time.process_time() - self._processor) / count * MICROSECONDS,
            "wall": self.elapsed / count * MICROSECONDS,
        }


def input_of(size: int, items: int) -> Input:
    """Return the input of a request: a text of ``size`` bytes, or ``items`` short messages."""
    if items:
        return [{"role": "user", "content": f"message number {n}"} for n in range(items)]
    return "x" * size


async def turns(
    client: BenchmarkClient,
    url: str,
    *,
    warm: int,
    count: int,
    least: float = 0.0,
    size: int = 2,
    items: int = 0,
) -> dict[str, float]:
    """Measure turns, one after another.

    :param count: the smallest number of turns.
    :param least: the shortest duration in seconds, for fast clients.
    """
    given = input_of(size, items)
    on_text = deque[str](maxlen=KEPT).append
    async with client.connect(url) as session:
        for _ in range(warm):
            await session.turn(given, on_text)
        watch = Stopwatch()
        taken = 0
        while taken < count or watch.elapsed < least:
            await session.turn(given, on_text)
            taken += 1
        return watch.per(taken)


async def lanes(
    client: BenchmarkClient, url: str, *, warm: int, count: int, width: int
) -> dict[str, float]:
    """Measure rounds of ``width`` turns at once on one connection."""
    on_text = deque[str](maxlen=KEPT).append
    async with client.connect(url) as session:
        turn = partial(session.turn, "go", on_text)
        for _ in range(warm):
            await client.gather([turn] * width)
        watch = Stopwatch()
        for _ in range(count):
            await client.gather([turn] * width)
        return watch.per(count)


def percentiles(ages: Iterable[float]) -> dict[str, float]:
    """Return the 50th and the 99th percentile of times in seconds."""
    ordered = sorted(ages)
    return {
        "p50": ordered[len(ordered) // 2] * MICROSECONDS,
        "p99": ordered[len(ordered) * 99 // 100] * MICROSECONDS,
    }


async def paced(client: BenchmarkClient, url: str, *, count: int) -> dict[str, float]:
    """Measure the age of each delta when it arrives."""
    ages: list[float] = []

    def on_text(text: str) -> None:
        ages.append(time.perf_counter() - float(text))

    async with client.connect(url) as session:
        watch = Stopwatch()
        await session.turn("go", on_text)
        found = watch.per(count)
    return {**found, **percentiles(ages)}


async def connect(client: BenchmarkClient, url: str, *, count: int) -> dict[str, float]:
    """Measure how long opening a connection takes."""
    total = {"cpu": 0.0, "wall": 0.0}
    for _ in range(count):
        watch = Stopwatch()
        async with client.connect(url):
            for name, one in watch.per(count).items():
                total[name] += one
    return total


async def first(client: BenchmarkClient, url: str, *, count: int) -> dict[str, float]:
    """Measure the time from before a connection is opened to the first text of a response."""
    total = {"cpu": 0.0, "wall": 0.0}
    for _ in range(count):
        watch = Stopwatch()
        arrived: list[dict[str, float]] = []

        def on_text(
            text: str, watch: Stopwatch = watch, arrived: list[dict[str, float]] = arrived
        ) -> None:
            del text
            if not arrived:
                arrived.append(watch.per(count))

        async with client.connect(url) as session:
            await session.turn("go", on_text)
        for name, one in arrived[0].items():
            total[name] += one
    return total


async def streams(
    client: BenchmarkClient, url: str, *, width: int, rate: float, seconds: float
) -> dict[str, float]:
    """Measure ``width`` streams at once, each with ``rate`` deltas a second at its own times.

    The clock starts soon after every stream has brought its first text, and stops before any of
    them ends. ``streams`` is the number of such streams that one processor can hold.
    """
    ages: list[float] = []
    begun: set[int] = set()
    found: dict[str, float] = {}

    async def read(session: BenchmarkSession, number: int) -> None:
        def on_text(text: str) -> None:
            ages.append(time.perf_counter() - float(text))
            begun.add(number)

        await session.turn("go", on_text)
        raise RuntimeError("a stream ended before its measurement")

    async def watch() -> None:
        while len(begun) < width:
            await client.sleep(0.02)
        await client.sleep(SETTLING)
        ages.clear()
        watch = Stopwatch()
        await client.sleep(seconds)
        found.update(watch.per(len(ages)))

    async with AsyncExitStack() as stack:
        sessions = [await stack.enter_async_context(client.connect(url)) for _ in range(width)]
        gc.collect()
        calls = [partial(read, session, number) for number, session in enumerate(sessions)]
        await client.run_beside(calls, watch)
    found["streams"] = MICROSECONDS / (found["cpu"] * rate)
    return {**found, **percentiles(ages)}


async def crowd(client: BenchmarkClient, url: str, *, width: int, quiet: float) -> dict[str, float]:
    """Measure the memory and the processor time of many connections, idle and with few events.

    The first connection is not measured, so that imports and caches are not part of the numbers.
    """
    on_text = deque[str](maxlen=KEPT).append
    async with client.connect(url), AsyncExitStack() as stack:
        gc.collect()
        before = resident_bytes()
        watch = Stopwatch()
        sessions = [await stack.enter_async_context(client.connect(url)) for _ in range(width)]
        found = {"connect": watch.per(width)["cpu"]}
        gc.collect()
        found["bytes"] = (resident_bytes() - before) / width
        watch = Stopwatch()
        await client.sleep(quiet)
        found["idle"] = watch.per(1)["cpu"] / quiet
        watch = Stopwatch()
        await client.gather([partial(session.turn, "go", on_text) for session in sessions])
        return {**found, **watch.per(width)}


MEASURES: Final[dict[str, Measure]] = {
    "turns": turns,
    "lanes": lanes,
    "paced": paced,
    "connect": connect,
    "first": first,
    "streams": streams,
    "crowd": crowd,
}
