"""The tap as trio-websocket sees it: a stream that brings control frames, one at a time."""

from __future__ import annotations

import trio
import trio.testing

from tests.testing.driver import NO_WAITING
from tests.transport.peer import PING, PONG, close, frame
from trio_responses._transport.tap import Tap
from trio_responses.testing import memory_connection

pytestmark = NO_WAITING


def open_tap(capacity: int | None = None) -> tuple[Tap, trio.abc.Stream]:
    client, server = memory_connection(capacity)
    tap = Tap(client)
    tap.upgrading = False
    return tap, server


async def test_control_frames_come_one_by_one_and_then_the_end() -> None:
    """trio-websocket crashes on a ping that it took before our close frame went out."""
    frames = [frame(PING, b"1"), frame(PONG), frame(PING, b"x" * 125), close(1000, "bye")]
    tap, _ = open_tap()
    tap.feed(frames[0] + frames[1])
    tap.feed(frames[2])
    tap.feed(frames[3])
    tap.feed_end()
    assert [await tap.receive_some(4096) for _ in frames] == frames
    assert await tap.receive_some() == b""


async def test_what_is_dropped_is_not_handed_up() -> None:
    tap, _ = open_tap()
    tap.feed(frame(PING, b"1"))
    tap.drop_pending()
    with trio.move_on_after(1.0) as scope:
        await tap.receive_some()
    assert scope.cancelled_caught


async def test_waiting_to_send_waits_for_the_socket() -> None:
    tap, server = open_tap(capacity=5)
    await tap.wait_send_all_might_not_block()
    await tap.send_all(b"12345")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(tap.wait_send_all_might_not_block)
        await trio.testing.wait_all_tasks_blocked()
        assert nursery.child_tasks
        assert await server.receive_some() == b"12345"
