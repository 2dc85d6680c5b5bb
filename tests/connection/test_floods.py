"""Bounded work per wake: a flood in one read lets other tasks run in between (promise P6).

The tests count calls and events, and measure no time.
"""

from __future__ import annotations

import sys
from typing import Final

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from benchmarks.floods import FLOODS, fill, open_flooded
from benchmarks.workloads import FLOOD_KINDS
from trio_responses import Limits
from trio_responses._protocol.frames import MESSAGES_PER_FEED

SMALL: Final = Limits(turn_buffer_bytes=64_000)


class CallCounter(trio.abc.Instrument):
    """Counts the calls of Python and C functions in each pass of Trio's loop."""

    def __init__(self) -> None:
        self.most = 0
        self.total = 0
        self.passes = 0
        self._calls = 0

    def after_io_wait(self, timeout: float) -> None:
        del timeout
        self.passes += 1
        self._calls = 0
        sys.setprofile(self._count)

    def before_io_wait(self, timeout: float) -> None:
        del timeout
        sys.setprofile(None)
        self.most = max(self.most, self._calls)
        self.total += self._calls

    def _count(self, _frame: object, event: str, _argument: object) -> None:
        self._calls += event in {"call", "c_call"}


async def flood(kind: str) -> CallCounter:
    counter = CallCounter()
    async with open_flooded() as (_, stream):
        trio.lowlevel.add_instrument(counter)
        stream.put(FLOODS[kind])
        await wait_all_tasks_blocked()
        trio.lowlevel.remove_instrument(counter)
        sys.setprofile(None)
    return counter


async def test_one_pass_over_a_flood_costs_at_most_two_reads_of_deltas() -> None:
    deltas = await flood("deltas")
    most = {kind: (await flood(kind)).most for kind in FLOODS}
    assert min(most.values()) > 0, most
    assert max(most.values()) <= 2 * deltas.total, most


async def test_other_tasks_run_while_a_read_of_empty_pongs_is_handled() -> None:
    flooded = await flood("empty pongs")
    assert flooded.passes > 32 * 1024 // 128


@pytest.mark.parametrize("name", ["response.odd", "response.output_text.delta"])
async def test_a_flood_of_small_events_for_a_slow_reader_takes_bounded_memory(name: str) -> None:
    """P10: an event takes memory, however small its message is."""
    event = b'{"type":"%s","delta":""}' % name.encode()
    async with open_flooded(SMALL, stalled=True) as (connection, stream):
        for _ in range(10):
            stream.put(fill(bytes((0x81, len(event))) + event))
        await wait_all_tasks_blocked()
        counted = connection.statistics()
        most = SMALL.turn_buffer_bytes / 64 + MESSAGES_PER_FEED
        assert counted.unread_bytes >= SMALL.turn_buffer_bytes
        assert counted.events_received <= most


@pytest.mark.parametrize("first", [0x81, 0x82])
async def test_a_flood_of_messages_that_nobody_waits_for_is_not_kept(first: int) -> None:
    async with open_flooded(SMALL) as (connection, stream):
        stream.put(fill(bytes((first, 0))))
        await wait_all_tasks_blocked()
        counted = connection.statistics()
        assert counted.undecodable_frames == 32 * 1024
        assert counted.unread_bytes == 0


def test_the_table_of_the_benchmarks_has_every_kind_of_flood() -> None:
    assert tuple(FLOODS) == FLOOD_KINDS
