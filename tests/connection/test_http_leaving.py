"""Turns over HTTP that are left early, at any await, and slow readers: nothing is left behind."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from tests.transport.http_peer import (
    CHUNKED,
    END,
    Cut,
    Exchange,
    chunk,
    connect_http,
    events_of,
    open_peer,
    sse,
    use_tls,
)
from tests.turn.rig import Crowd, assert_at_rest
from tests.turn.test_leaving import CancelAtStep
from trio_responses import (
    BufferOverflow,
    ConnectionClosed,
    ConnectionState,
    DeliveryStatus,
    Limits,
    Timeouts,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from tests.transport.http_peer import HTTPPeer
    from tests.turn.test_leaving import When
    from trio_responses import (
        ResponsesConnection,
    )


# --- Cancellation ------------------------------------------------------------------------


@asynccontextmanager
async def nothing_is_left(
    peer: HTTPPeer, connection: ResponsesConnection
) -> AsyncGenerator[None, None]:
    """Assert that a block leaves no task, no active request and one idle stream at most."""

    def living() -> int:
        return trio.lowlevel.current_statistics().tasks_living - peer.serving

    await trio.testing.wait_all_tasks_blocked()
    tasks = living()
    yield
    await trio.sleep(60)
    assert living() == tasks
    assert_at_rest(connection)
    assert peer.open_streams <= 1


async def answer_slowly(exchange: Exchange) -> None:
    await trio.sleep(0.01)
    await exchange.send(CHUNKED)
    await exchange.events(*events_of("a b"), every=0.01)
    await trio.sleep(0.01)
    await exchange.send(END)


@pytest.mark.parametrize("when", ["arriving", "waiting"])
@pytest.mark.parametrize("way", ["create", "iterate", "neglect"])
@pytest.mark.parametrize("fresh", [True, False])
@pytest.mark.parametrize("tls", [True, False])
async def test_a_turn_may_be_cancelled_at_every_single_await(
    way: str, when: When, *, fresh: bool, tls: bool
) -> None:
    """On a new HTTP connection and on one that is used again."""
    async with open_peer(answer_slowly) as peer:
        options = use_tls(peer) if tls else {}
        cancelled = True
        step = 0
        while cancelled:
            async with connect_http(peer, **options) as connection:
                if not fresh:
                    await connection.create(model="m", input="hi")
                    await trio.sleep(1)

                async def run(turns: ResponsesConnection = connection) -> None:
                    if way == "create":
                        await turns.create(model="m", input="hi")
                        return
                    async with turns.stream(model="m", input="hi") as stream:
                        if way == "neglect":
                            await trio.sleep(0.05)
                            return
                        async for _ in stream:
                            pass

                async with nothing_is_left(peer, connection):
                    cancelled = await CancelAtStep(step, when).run(run)
                assert (await connection.create(model="m", input="hi")).output_text == "a b"
            assert peer.open_streams == 0
            step += 1
        assert step >= 3


@pytest.mark.parametrize("tls", [True, False])
@pytest.mark.parametrize("capacity", [None, 50])
async def test_a_turn_may_be_cancelled_at_any_time(*, capacity: int | None, tls: bool) -> None:
    """The tasks of an exchange are other tasks than the one that is cancelled."""

    async def script(exchange: Exchange) -> None:
        await trio.sleep(0.5)
        await exchange.send(CHUNKED[:20], CHUNKED[20:40], CHUNKED[40:], every=0.25)
        for event in events_of("a b"):
            await exchange.send(chunk(sse(event)))
            await trio.sleep(0.5)
        await exchange.send(END)

    async with open_peer(Exchange.answer) as peer:
        peer.capacity = capacity
        options = use_tls(peer) if tls else {}
        async with connect_http(peer, **options) as connection:
            for step in range(60):
                peer.script = script
                async with nothing_is_left(peer, connection):
                    with trio.CancelScope() as scope:
                        async with trio.open_nursery() as nursery:
                            nursery.start_soon(
                                lambda: connection.create(model="m", input="x" * 200)
                            )
                            if step < 40:
                                for _ in range(step):
                                    await trio.lowlevel.checkpoint()
                            else:
                                await trio.sleep(step / 10 - 4)
                            scope.cancel()
                peer.script = Exchange.answer
                assert (await connection.create(model="m", input="hi")).output_text == "ok"


async def test_cancelled_requests_take_no_place_of_others() -> None:
    """With one HTTP connection, a place that is not given back would block all later requests."""
    async with open_peer(answer_slowly) as peer:
        async with connect_http(peer, limits=Limits(http_connections=1)) as connection:
            for step in range(40):
                peer.close_all()
                with trio.CancelScope() as scope:
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(lambda: connection.create(model="m", input="hi"))
                        for _ in range(step):
                            await trio.lowlevel.checkpoint()
                        scope.cancel()
                with trio.fail_after(10):
                    assert (await connection.create(model="m", input="hi")).output_text == "a b"
        assert_at_rest(connection)


async def test_a_cancelled_read_loses_no_event() -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.send(CHUNKED)
        await exchange.events(*events_of(" ".join("0123456789")), every=0.01)
        await exchange.send(END)

    async with open_peer(script) as peer, connect_http(peer) as connection:
        pieces: list[str] = []
        async with connection.stream(model="m", input="hi") as stream:
            for _ in range(1000):
                with trio.move_on_after(0.004):
                    async for piece in stream.text_deltas():
                        pieces.append(piece)  # noqa: PERF401 - each is kept before the next read
                    break
        assert "".join(pieces) == " ".join("0123456789")


# --- Leaving -----------------------------------------------------------------------------


@pytest.mark.parametrize("events", [0, 1, 3])
async def test_leaving_a_turn_closes_its_exchange(events: int) -> None:
    left: list[float] = []

    async def script(exchange: Exchange) -> None:
        await exchange.send(CHUNKED)
        await exchange.events(*events_of("a b c")[:events])
        left.append(await exchange.client_left())
        raise Cut

    async with open_peer(script) as peer, connect_http(peer) as connection:
        async with connection.stream(model="m", input="hi") as stream:
            for _ in range(events):
                await stream.__anext__()
            await trio.sleep(1)
        assert trio.current_time() == 1
        await trio.testing.wait_all_tasks_blocked()
        assert left == [1]
        peer.script = Exchange.answer
        assert (await connection.create(model="m", input="next")).output_text == "ok"
        assert trio.current_time() == 1
        assert_at_rest(connection)


async def test_a_turn_that_is_left_on_a_lane_delays_the_next_one_by_nothing() -> None:
    async with (
        open_peer(answer_slowly) as peer,
        connect_http(peer) as connection,
        connection.lane() as lane,
    ):
        async with lane.stream(model="m", input="hi") as stream:
            await stream.__anext__()
        left_at = trio.current_time()
        peer.script = Exchange.answer
        assert (await lane.create(model="m", input="next")).output_text == "ok"
        assert trio.current_time() == left_at


async def test_closing_ends_active_turns() -> None:
    failures: list[ConnectionClosed] = []

    async def script(exchange: Exchange) -> None:
        await exchange.send(CHUNKED)
        await exchange.events(events_of()[0])
        await exchange.client_left()

    async with open_peer(script) as peer:
        async with trio.open_nursery() as nursery, connect_http(peer) as connection:

            async def run() -> None:
                with pytest.raises(ConnectionClosed) as caught:
                    await connection.create(model="m", input="hi")
                failures.append(caught.value)

            for _ in range(3):
                nursery.start_soon(run)
            await trio.sleep(1)
            await connection.aclose()
            assert trio.current_time() == 1
            assert connection.state is ConnectionState.CLOSED
            assert peer.open_streams == 0
        assert [one.delivery for one in failures] == [DeliveryStatus.ACCEPTED] * 3


@pytest.mark.parametrize("phase", ["dial", "head", "answer", "end"])
async def test_closing_takes_no_time_in_any_phase(phase: str) -> None:
    async def script(exchange: Exchange) -> None:
        if phase in {"answer", "end"}:
            await exchange.send(CHUNKED)
            await exchange.events(*events_of()[: None if phase == "end" else 2])
        await exchange.client_left()

    async with open_peer(script) as peer, Crowd():
        async with trio.open_nursery() as nursery, connect_http(peer) as connection:
            peer.down = phase == "dial"

            async def run() -> None:
                if phase == "end":
                    await connection.create(model="m", input="hi")
                    return
                with pytest.raises(ConnectionClosed):
                    await connection.create(model="m", input="hi")

            nursery.start_soon(run)
            await trio.sleep(0.25)
            await connection.aclose()
        assert trio.current_time() == 0.25


async def _raise_in_a_turn(peer: HTTPPeer) -> None:
    async with (
        connect_http(peer) as connection,
        connection.stream(model="m", input="hi") as stream,
    ):
        await stream.__anext__()
        raise LookupError("mine")


async def test_an_exception_of_the_block_leaves_it_unchanged() -> None:
    async with open_peer(answer_slowly) as peer:
        with pytest.raises(LookupError, match="mine"):
            await _raise_in_a_turn(peer)


# --- Slow readers ------------------------------------------------------------------------

MANY = [
    events_of()[0],
    *({**events_of("x" * 500)[1], "sequence_number": number} for number in range(1, 400)),
    *events_of("x" * 500)[2:],
]


async def test_a_slow_reader_slows_the_server() -> None:
    sent: list[float] = []

    async def script(exchange: Exchange) -> None:
        await exchange.send(CHUNKED)
        for event in MANY:
            await exchange.events(event)
            sent.append(trio.current_time())
        await exchange.send(END)

    limits = Limits(turn_buffer_bytes=10_000, connection_buffer_bytes=20_000)
    async with open_peer(script) as peer:
        peer.capacity = 4000
        async with connect_http(peer, limits=limits) as connection:
            async with connection.stream(model="m", input="hi") as stream:
                events = [await stream.__anext__()]
                await trio.sleep(100)
                assert len(sent) < 100
                assert connection.statistics().unread_bytes < 90_000
                events += [event async for event in stream]
            assert len(events) == len(MANY)
            assert connection.statistics().unread_bytes == 0


async def test_a_slow_reader_slows_no_other_turn() -> None:
    async def script(exchange: Exchange) -> None:
        if exchange.request.json["input"] != "slow":
            await exchange.answer()
            return
        await exchange.send(CHUNKED)
        await exchange.events(*MANY)
        await exchange.send(END)

    limits = Limits(turn_buffer_bytes=10_000, connection_buffer_bytes=1_000_000)
    async with open_peer(script) as peer:
        peer.capacity = 4000
        async with (
            connect_http(peer, limits=limits) as connection,
            connection.stream(model="m", input="slow") as stream,
        ):
            await stream.__anext__()
            await trio.sleep(1)
            assert (await connection.create(model="m", input="quick")).output_text == "ok"
            assert trio.current_time() == 1
            assert len([event async for event in stream]) == len(MANY) - 1


async def test_a_turn_that_nobody_reads_overflows_for_one_that_is_read() -> None:
    """The budget of the connection is used up, and a reader waits for its own events."""

    async def script(exchange: Exchange) -> None:
        await exchange.send(CHUNKED)
        await exchange.events(*MANY)
        await exchange.send(END)

    limits = Limits(turn_buffer_bytes=10_000, connection_buffer_bytes=10_000)
    async with open_peer(script) as peer:
        peer.capacity = 4000
        options: dict[str, Any] = {"limits": limits, "timeouts": Timeouts(stall=30)}
        async with (
            connect_http(peer, **options) as connection,
            connection.stream(model="m", input="never read") as stream,
        ):
            await trio.sleep(1)
            result = await connection.create(model="m", input="read")
            assert result.status == "completed"
            with pytest.raises(BufferOverflow):
                async for _ in stream:
                    pass


async def test_a_pause_of_the_reader_is_no_stall() -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.send(CHUNKED)
        await exchange.events(*MANY)
        await exchange.send(END)

    limits = Limits(turn_buffer_bytes=10_000)
    async with open_peer(script) as peer:
        peer.capacity = 4000
        options: dict[str, Any] = {"limits": limits, "timeouts": Timeouts(stall=30)}
        async with (
            connect_http(peer, **options) as connection,
            connection.stream(model="m", input="hi") as stream,
        ):
            await stream.__anext__()
            await trio.sleep(1000)
            assert len([event async for event in stream]) == len(MANY) - 1
