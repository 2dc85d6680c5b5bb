"""P3: the deadlines of a turn run in the receive task, whether or not anybody waits."""

from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from trio_responses import (
    ConnectionState,
    DeliveryStatus,
    Endpoint,
    FirstEventTimeout,
    Keepalive,
    ResponsesConnection,
    StallTimeout,
    Timeouts,
)
from trio_responses.testing import ResponsesServer
from trio_responses.types import ResponseCreated

if TYPE_CHECKING:
    from tests.connection.conftest import Connect

TIMEOUTS = Timeouts(first_event=30, stall=100)


async def well(connection: ResponsesConnection) -> None:
    response = await connection.create(model="m", input="still there?")
    assert response.output_text == 'Turn 1: you said "still there?".'


async def test_silence_before_the_first_event_ends_the_turn_to_the_second(
    server: ResponsesServer, connect: "Connect"
) -> None:
    """P3, P4, row 9: a server that answers pings and no request."""
    server.stall(after_events=0)
    async with connect(timeouts=TIMEOUTS) as connection:
        await trio.sleep(5)
        with pytest.raises(FirstEventTimeout) as failure:
            await connection.create(model="m", input="hi")
        assert trio.current_time() == 35
        assert failure.value.delivery is DeliveryStatus.AMBIGUOUS
        assert (failure.value.seconds, failure.value.sent) == (30, 30)
        assert isinstance(failure.value, trio.TooSlowError)
        await well(connection)
        assert trio.current_time() == 35


async def test_silence_in_a_response_ends_the_turn_to_the_second(
    server: ResponsesServer, connect: "Connect"
) -> None:
    """P3, P4, row 9, D21: the clock starts again with every event."""
    server.reply("one two three four", delay=50.0).stall(after_events=6)
    async with connect(timeouts=TIMEOUTS) as connection:
        with pytest.raises(StallTimeout) as failure:
            await connection.create(model="m", input="hi")
        assert trio.current_time() == 5 * 50 + 100
        assert failure.value.delivery is DeliveryStatus.ACCEPTED
        assert failure.value.last_event == "response.output_text.delta"
        assert failure.value.silence == 100
        await well(connection)
        assert trio.current_time() == 350


@pytest.mark.parametrize(
    ("after_events", "kind", "seconds"), [(0, FirstEventTimeout, 30), (2, StallTimeout, 100)]
)
async def test_nobody_has_to_read_for_a_deadline_to_count(
    server: ResponsesServer,
    connect: "Connect",
    after_events: int,
    kind: type[Exception],
    seconds: float,
) -> None:
    """P3, row 9: the consumer is busy with something else meanwhile."""
    server.stall(after_events=after_events)
    async with connect(timeouts=TIMEOUTS) as connection:
        async with connection.stream(model="m", input="hi") as stream:
            await trio.sleep(seconds - 1)
            assert server.connections[0].is_open
            await trio.sleep(1)
            await wait_all_tasks_blocked()
            assert not server.connections[0].is_open
            await trio.sleep(1000)
            with pytest.raises(kind):
                await stream.until_done()
            assert trio.current_time() == 1000 + seconds
        await well(connection)


async def test_the_events_that_came_can_be_read_before_the_timeout(
    server: ResponsesServer, connect: "Connect"
) -> None:
    """P3: the exception stands behind them."""
    server.stall(after_events=1)
    async with connect(timeouts=TIMEOUTS) as connection:
        async with connection.stream(model="m", input="hi") as stream:
            await trio.sleep(500)
            assert isinstance(await stream.__anext__(), ResponseCreated)
            with pytest.raises(StallTimeout):
                await stream.__anext__()
        assert trio.current_time() == 500


async def test_a_slow_start_within_the_deadline_is_no_fault(
    server: ResponsesServer, connect: "Connect"
) -> None:
    """Row 9: long reasoning is not a dead server."""
    server.stall(after_events=0, seconds=29)
    server.stall(after_events=2, seconds=99)
    async with connect(timeouts=TIMEOUTS) as connection:
        await well(connection)
        assert trio.current_time() == 29
        await well(connection)
        assert trio.current_time() == 128
    assert server.statistics().handshakes == 1


async def test_a_timeout_of_one_turn_leaves_the_others_alone(
    server: ResponsesServer, connect: "Connect"
) -> None:
    """P3: its socket takes nothing new, and finishes what it has."""
    endpoint = Endpoint.compatible(server.url, lanes=True)
    server.stall(after_events=2)
    server.reply("a b c d", delay=40.0)
    texts: list[str] = []

    async def ask(connection: ResponsesConnection) -> None:
        response = await connection.create(model="m", input="slow")
        texts.append(response.output_text)

    async with connect(endpoint=endpoint, timeouts=TIMEOUTS) as connection:
        async with trio.open_nursery() as nursery:
            with pytest.raises(StallTimeout):  # noqa: PT012 - a turn is a scope
                async with connection.stream(model="m", input="hi") as stream:
                    nursery.start_soon(ask, connection)
                    await stream.until_done()
            assert trio.current_time() == 100
            await well(connection)
            assert trio.current_time() == 100
        assert trio.current_time() == 11 * 40
        assert connection.state is ConnectionState.OPEN
    assert texts == ["a b c d"]


async def test_a_turn_that_was_left_has_deadlines_too(
    server: ResponsesServer, connect: "Connect"
) -> None:
    """P3, P5: a lane that never comes clean is given up; the next turn waits no longer."""
    server.stall(after_events=2)
    async with connect(timeouts=TIMEOUTS) as connection:
        with trio.move_on_after(10):
            await connection.create(model="m", input="hi")
        await well(connection)
        assert trio.current_time() == 100
    assert server.statistics().handshakes == 2


async def test_at_least_once_goes_on_after_a_first_event_timeout(
    server: ResponsesServer, connect: "Connect"
) -> None:
    """P4: on a new socket."""
    server.stall(after_events=0)
    async with connect(timeouts=TIMEOUTS) as connection:
        response = await connection.create(model="m", input="hi", delivery="at_least_once")
        assert response.status == "completed"
        assert trio.current_time() == 30
    assert [request.connection for request in server.requests] == [1, 2]


async def test_a_reader_that_takes_its_time_does_not_stall_its_turn(
    connect: "Connect",
) -> None:
    """P3, row 9: what counts is what came, not what was read."""
    async with connect(timeouts=TIMEOUTS) as connection:
        async with connection.stream(model="m", input="hi") as stream:
            async for _ in stream:
                await trio.sleep(99)
        assert stream.response.status == "completed"


async def test_a_server_that_trickles_is_not_dead(
    server: ResponsesServer, connect: "Connect"
) -> None:
    """Row 9: a byte a second is life, and the keepalive leaves it alone."""
    server.reply("hi", events="terminal").slow_writes(piece=10, delay=1.0)
    keepalive = Keepalive(interval=5, timeout=5)
    async with connect(timeouts=Timeouts(first_event=1000), keepalive=keepalive) as connection:
        response = await connection.create(model="m", input="hi")
        assert response.output_text == "hi"
        assert trio.current_time() > 40
    assert server.statistics().handshakes == 1
