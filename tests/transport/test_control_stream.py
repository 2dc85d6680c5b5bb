"""`ControlStream` as trio-websocket sees it: a stream of control frames, one at a time."""

from __future__ import annotations

import trio
import trio.testing

from tests.testing.driver import NO_WAITING
from tests.transport.peer import PING, PONG, close, frame
from trio_responses._transport.control_stream import MAX_PENDING_FRAMES, ControlStream
from trio_responses._transport.state import TransportTrigger
from trio_responses.testing import memory_connection

pytestmark = NO_WAITING


def open_control_stream(capacity: int | None = None) -> tuple[ControlStream, trio.abc.Stream]:
    client, server = memory_connection(capacity)
    control_stream = ControlStream(client)
    control_stream.states.process(TransportTrigger.SWITCHING_PROTOCOLS)
    return control_stream, server


async def test_control_frames_are_read_one_by_one_and_then_the_end() -> None:
    """trio-websocket raises for a ping that it read before its own close frame went out."""
    frames = [frame(PING, b"1"), frame(PONG), frame(PING, b"x" * 125), close(1000, "bye")]
    control_stream, _ = open_control_stream()
    control_stream.feed(frames[0] + frames[1])
    control_stream.feed(frames[2])
    control_stream.feed(frames[3])
    control_stream.feed_end()
    assert [await control_stream.receive_some(4096) for _ in frames] == frames
    assert await control_stream.receive_some() == b""


async def test_of_many_pings_in_one_read_the_latest_are_answered_with_checkpoints_between() -> None:
    """RFC 6455, 5.5.3: an answer to the latest ping is enough."""
    control_stream, _ = open_control_stream()
    control_stream.feed(b"".join(frame(PING, b"%03d" % number) for number in range(128)))
    control_stream.feed_end()
    for number in range(128 - MAX_PENDING_FRAMES, 128):
        with trio.testing.assert_checkpoints():
            assert await control_stream.receive_some() == frame(PING, b"%03d" % number)
    assert await control_stream.receive_some() == b""


async def test_dropped_frames_are_not_read() -> None:
    control_stream, _ = open_control_stream()
    control_stream.feed(frame(PING, b"1"))
    control_stream.drop_pending()
    with trio.move_on_after(1.0) as scope:
        await control_stream.receive_some()
    assert scope.cancelled_caught


async def test_waiting_to_send_waits_for_the_socket() -> None:
    control_stream, server = open_control_stream(capacity=5)
    await control_stream.wait_send_all_might_not_block()
    await control_stream.send_all(b"12345")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(control_stream.wait_send_all_might_not_block)
        await trio.testing.wait_all_tasks_blocked()
        assert nursery.child_tasks
        assert await server.receive_some() == b"12345"
