"""The keepalive notices a dead server and disturbs no living one. Problems 9 and 11."""

from __future__ import annotations

import math
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trio

from tests.testing.driver import NO_WAITING
from tests.transport.opened import pause, receive
from tests.transport.peer import PING, PONG, frame, lost, open_pair, takes, text
from trio_responses._errors import ConnectionLost, KeepaliveTimeout, SendTimeout
from trio_responses._settings import Keepalive

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from tests.transport.peer import Peer
    from trio_responses._transport.websocket import WebSocketTransport

pytestmark = NO_WAITING

EVERY_20 = Keepalive(interval=20.0, timeout=10.0)


@asynccontextmanager
async def open_pinged(
    keepalive: Keepalive = EVERY_20, *, answers: bool = True, capacity: int | None = None
) -> AsyncGenerator[tuple[WebSocketTransport, Peer, list[float]], None]:
    """Open a pair that collects the times of pings, and may answer them at once."""
    pings: list[float] = []

    async def script(peer: Peer) -> None:
        await peer.accept()
        while True:
            received = await peer.read_frame()
            if received.opcode == PING:
                pings.append(trio.current_time() - start)
                if answers:
                    await peer.send(frame(PONG, received.payload))

    start = trio.current_time()
    async with open_pair(script=script, keepalive=keepalive, capacity=capacity) as pair:
        yield (*pair, pings)


async def receive_for(seconds: float, transport: WebSocketTransport) -> int:
    """Return the number of messages that arrive within some seconds."""
    count = 0
    with trio.move_on_after(seconds):
        while True:
            count += len(await receive(transport))
    return count


async def test_a_server_that_answers_at_once_is_pinged_once_an_interval() -> None:
    async with open_pinged() as (transport, _, pings):
        await receive_for(100.0, transport)
        assert pings == [20.0, 40.0, 60.0, 80.0]


async def test_a_silent_server_is_given_up_after_interval_and_timeout() -> None:
    async with open_pinged(answers=False) as (transport, _, pings):
        async with takes(30.0):
            error = await lost(transport)
        assert isinstance(error, KeepaliveTimeout)
        assert (error.code, error.silence, error.age) == (1006, 30.0, 30.0)
        assert isinstance(error, trio.TooSlowError)
        assert pings == [20.0]
        assert await lost(transport) is error
        with pytest.raises(KeepaliveTimeout):
            await transport.send(b"x")


async def test_silence_is_counted_from_the_last_byte() -> None:
    async with open_pinged(answers=False) as (transport, peer, _):
        await trio.sleep(7.0)
        await peer.send(text("one"))
        await receive(transport)
        async with takes(30.0):
            assert isinstance(await lost(transport), KeepaliveTimeout)


async def test_a_server_that_sends_messages_is_not_pinged() -> None:
    async with open_pinged() as (transport, peer, pings):

        async def talk() -> None:
            for _ in range(20):
                await trio.sleep(19.0)
                await peer.send(text("one"))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(talk)
            assert await receive_for(385.0, transport) == 20
        assert pings == []


async def test_a_partial_frame_is_a_sign_of_life() -> None:
    """A large message over a slow line must not look like silence."""
    async with open_pinged(answers=False) as (transport, peer, pings):

        async def talk() -> None:
            for byte in text("x" * 20):
                await trio.sleep(15.0)
                await peer.send(bytes([byte]))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(talk)
            assert await receive(transport) == [b"x" * 20]
        assert pings == []


async def test_a_byte_after_the_ping_counts_like_a_pong() -> None:
    async with open_pinged(answers=False) as (transport, peer, pings):
        await trio.sleep(0.0)

        async def talk() -> None:
            await trio.sleep(29.0)
            await peer.send(text("one"))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(talk)
            assert await receive(transport) == [b"one"]
            async with takes(30.0):
                assert isinstance(await lost(transport), KeepaliveTimeout)
        assert pings == [20.0, 49.0]


async def test_time_without_a_receiver_does_not_count_as_silence() -> None:
    """P6: backpressure suspends liveness."""
    async with open_pinged() as (transport, peer, _):
        await peer.send(text("waits"))
        await pause(transport, 1000.0)
        assert await receive(transport) == [b"waits"]
        assert await receive_for(1000.0, transport) == 0


async def test_a_dead_server_is_noticed_soon_after_receiving_starts_again() -> None:
    async with open_pinged(answers=False) as (transport, _, _):
        await pause(transport, 1000.0)
        start = trio.current_time()
        assert isinstance(await lost(transport), KeepaliveTimeout)
        assert 10.0 <= trio.current_time() - start <= 2 * 30.0


async def test_a_receiver_that_starts_just_before_the_ping_is_early_enough() -> None:
    async with open_pinged(answers=False) as (transport, _, _):
        await trio.sleep(19.5)
        async with takes(10.5):
            assert isinstance(await lost(transport), KeepaliveTimeout)


async def test_no_ping_is_sent_while_no_task_receives() -> None:
    """P6: a server that waits to write may not read, and the ping would be stuck."""
    async with open_pinged(answers=False) as (transport, _, pings):
        await pause(transport, 1000.0)
        assert pings == []
        assert transport.age == 1000.0


@pytest.mark.parametrize("answers", [True, False])
async def test_an_infinite_interval_sends_no_pings(*, answers: bool) -> None:
    async with open_pinged(Keepalive(interval=math.inf), answers=answers) as (transport, _, pings):
        await receive_for(100_000.0, transport)
        assert pings == []


async def test_a_ping_that_waits_for_a_long_upload_does_not_end_the_socket() -> None:
    async with (
        open_pair(capacity=1000, keepalive=EVERY_20) as (transport, peer),
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(transport.send, b"x" * 5000)
        nursery.start_soon(receive_for, 59.0, transport)
        await trio.sleep(55.0)
        assert (await peer.read_frame()).payload == b"x" * 5000


async def test_a_ping_that_cannot_be_written_ends_the_socket() -> None:
    """The server would read the next bytes as the rest of the ping."""
    async with open_pair(capacity=5, keepalive=EVERY_20) as (transport, peer):

        async def talk() -> None:
            await trio.sleep(25.0)
            await peer.send(text("one"))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(talk)
            assert await receive(transport) == [b"one"]
            async with takes(5.0):
                assert isinstance(await lost(transport), SendTimeout)
        with pytest.raises(ConnectionLost):
            await transport.send(b"x")


async def test_no_ping_follows_a_close() -> None:
    async with open_pinged() as (transport, _, pings):
        await transport.aclose()
        await trio.sleep(100.0)
        assert pings == []
        assert (await lost(transport)).code == 1000


async def test_a_ping_in_progress_does_not_delay_closing() -> None:
    async with open_pinged(answers=False) as (transport, _, pings):
        await receive_for(25.0, transport)
        assert pings == [20.0]
        async with takes(5.0):
            await transport.aclose()


async def read_until_lost(transport: WebSocketTransport) -> None:
    """Receive with a deadline every 3 seconds, as turns may have, besides the keepalive's."""
    while True:
        deadline = min(transport.keepalive_at, trio.current_time() + 3.0)
        with trio.CancelScope(deadline=deadline):
            await transport.receive()
        transport.check_keepalive()


async def test_other_deadlines_that_interrupt_the_reading_do_not_delay_the_verdict() -> None:
    """P2: a deadline of a turn ends a read, and the next one begins at once."""
    async with open_pinged(answers=False) as (transport, _, pings):
        async with takes(30.0):
            with pytest.raises(KeepaliveTimeout):
                await read_until_lost(transport)
        assert pings == [20.0]


@pytest.mark.parametrize("patience", [20.0, 45.0])
async def test_a_timeout_may_be_as_long_as_the_interval_or_longer(patience: float) -> None:
    keepalive = Keepalive(interval=20.0, timeout=patience)
    async with open_pinged(keepalive, answers=False) as (transport, _, pings):
        async with takes(20.0 + patience):
            assert isinstance(await lost(transport), KeepaliveTimeout)
        assert pings == [20.0]


async def test_a_pause_that_begins_after_the_ping_postpones_the_verdict() -> None:
    """P6: the answer may be among the bytes that were not read."""
    async with open_pinged(answers=False) as (transport, _, pings):
        await receive_for(25.0, transport)
        await pause(transport, 15.0)
        async with takes(30.0):
            assert isinstance(await lost(transport), KeepaliveTimeout)
        assert pings == [20.0, 60.0]


async def test_a_socket_has_one_task_and_a_ping_has_one_until_it_is_answered() -> None:
    def count_tasks() -> int:
        task = trio.lowlevel.current_task()
        return sum(len(nursery.child_tasks) for nursery in task.child_nurseries)

    async with open_pinged() as (transport, _, pings):
        before = count_tasks()
        await receive_for(19.0, transport)
        assert count_tasks() == before
        await receive_for(100.0, transport)
        assert len(pings) == 5
        assert count_tasks() == before
