"""P1 for pools: nothing outlives the block, and closing takes a bounded time."""

import inspect
import math
from functools import partial
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.pool.rig import (
    Gate,
    ask,
    close_frame,
    open_all_connections,
    open_to,
    per_connection,
)
from tests.turn.rig import Crowd
from trio_responses import (
    ConfigurationError,
    ConnectionClosed,
    ConnectionState,
    DeliveryStatus,
    RotationPolicy,
    Timeouts,
    connect_responses,
    open_responses,
)
from trio_responses._instruments.instrument import Instrument
from trio_responses._instruments.records import SocketRecord
from trio_responses._pool import open_pool
from trio_responses._turn.methods import TurnMethods
from trio_responses.testing import ResponsesServer
from trio_responses.typing import ConnectionOptions


async def test_closing_ends_the_active_and_the_waiting_turns(
    server: ResponsesServer,
) -> None:
    gate = Gate(server)
    deliveries: list[DeliveryStatus | None] = []

    async def try_to_ask(text: str) -> None:
        with pytest.raises(ConnectionClosed) as caught:
            await ask(pool, text)
        deliveries.append(caught.value.delivery)

    async with Crowd(), trio.open_nursery() as nursery, open_to(server, size=2) as pool:
        for number in range(40):
            nursery.start_soon(try_to_ask, f"{number}")
        await wait_all_tasks_blocked()
        assert pool.statistics().turns_waiting == 8
    assert deliveries.count(DeliveryStatus.NOT_SENT) == 8
    assert deliveries.count(DeliveryStatus.AMBIGUOUS) == 32
    gate.open()


async def test_closing_ends_the_turns_that_wait_for_one_connection(
    narrow_server: ResponsesServer,
) -> None:
    async with (
        trio.open_nursery() as nursery,
        open_to(narrow_server, lanes=False, size=1) as pool,
    ):
        first = await pool.create(model="m", input="hi", store=True)
        narrow_server.stall()
        nursery.start_soon(ask_until_closed, pool, DeliveryStatus.AMBIGUOUS)
        await wait_all_tasks_blocked()
        nursery.start_soon(partial(ask_until_closed, previous_response_id=first.id), pool)
        await wait_all_tasks_blocked()
        assert pool.statistics().turns_waiting == 1


async def ask_until_closed(
    turns: TurnMethods, delivery: DeliveryStatus = DeliveryStatus.NOT_SENT, **params: Any
) -> None:
    with pytest.raises(ConnectionClosed) as caught:
        await ask(turns, "hi", **params)
    assert caught.value.delivery is delivery


async def test_closing_closes_all_connections_with_code_1000(
    server: ResponsesServer,
) -> None:
    async with open_to(server, size=3, per_connection=1) as pool:
        await open_all_connections(pool, 3)
        connections = pool.connections
    await wait_all_tasks_blocked()
    assert [one.state for one in connections] == [ConnectionState.CLOSED] * 3
    assert [one.close_code for one in server.connections] == [1000] * 3


async def test_closing_takes_no_longer_than_one_closing_handshake(
    server: ResponsesServer,
) -> None:
    timeouts = Timeouts(close=3)
    async with open_to(server, size=3, per_connection=1, timeouts=timeouts) as pool:
        await open_all_connections(pool, 3)
        server.freeze_all()
        since = trio.current_time()
    assert trio.current_time() == since + 3


async def test_closing_cancels_connections_that_are_being_opened(server: ResponsesServer) -> None:
    async with Crowd():
        async with open_to(server, size=4) as pool, trio.open_nursery() as nursery:
            server.hang_handshake(times=None)
            gate = Gate(server)
            for number in range(30):
                nursery.start_soon(ask, pool, f"{number}")
            await wait_all_tasks_blocked()
            assert pool.statistics().connections_opening == 3
            since = trio.current_time()
            nursery.cancel_scope.cancel()
        assert trio.current_time() == since
        assert pool.statistics().connections_opening == 0
        gate.open()


async def test_the_pool_works_in_a_finally_clause_of_a_cancelled_block(
    server: ResponsesServer,
) -> None:
    answers = ""
    with trio.move_on_after(1) as scope:
        async with open_to(server, size=2, per_connection=1) as pool:
            try:
                await trio.sleep_forever()
            finally:
                with trio.CancelScope(shield=True):
                    async with pool.lane() as first, pool.lane() as second:
                        answers = await ask(first, "1") + await ask(second, "2")
    assert scope.cancelled_caught
    assert answers == 'Turn 1: you said "1".Turn 1: you said "2".'


async def test_an_exception_of_the_block_is_raised_without_a_group(server: ResponsesServer) -> None:
    async with Crowd():
        with pytest.raises(KeyError, match="mine"):
            async with open_to(server):
                raise KeyError("mine")


async def test_a_cancelled_opening_leaves_nothing_behind(server: ResponsesServer) -> None:
    server.hang_handshake()
    async with Crowd():
        with trio.move_on_after(5) as scope:
            async with open_to(server):
                raise AssertionError("the block must not begin")
        assert scope.cancelled_caught
        assert trio.current_time() == 5


async def test_a_closed_pool_starts_no_turns_and_lanes(server: ResponsesServer) -> None:
    async with open_to(server) as pool:
        await pool.aclose()
        await pool.aclose()
        with pytest.raises(ConnectionClosed) as caught:
            await ask(pool, "hi")
        assert caught.value.delivery is DeliveryStatus.NOT_SENT
        with pytest.raises(ConnectionClosed):
            async with pool.lane():
                raise AssertionError("the block must not begin")
    assert pool.connections == ()


# --- Cancelled turns ---------------------------------------------------------------------


async def test_a_turn_cancelled_while_it_waits_leaves_the_queue(
    narrow_server: ResponsesServer,
) -> None:
    gate = Gate(narrow_server)
    async with (
        open_to(narrow_server, lanes=False, size=1) as pool,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(ask, pool, "1")
        await wait_all_tasks_blocked()
        with trio.CancelScope() as scope:
            nursery.start_soon(cancel_when_blocked, scope)
            await ask(pool, "2")
        assert scope.cancelled_caught
        assert pool.statistics().turns_waiting == 0
        nursery.start_soon(ask, pool, "3")
        gate.open()
    assert [request.text for request in narrow_server.requests] == ["1", "3"]


@pytest.mark.parametrize("before", [True, False])
async def test_a_place_assigned_to_a_cancelled_turn_goes_to_the_next_turn(
    narrow_server: ResponsesServer, *, before: bool
) -> None:
    gate = Gate(narrow_server)
    scope = trio.CancelScope()

    async def ask_and_cancel() -> None:
        async with pool.stream(model="m", input="1") as stream:
            await stream.get_final_response()
            if before:
                scope.cancel()
        scope.cancel()  # the place was just assigned to the second turn

    async def ask_and_be_cancelled() -> None:
        with scope:
            await ask(pool, "2")

    async with open_to(narrow_server, lanes=False, size=1) as pool:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask_and_cancel)
            await wait_all_tasks_blocked()
            nursery.start_soon(ask_and_be_cancelled)
            await wait_all_tasks_blocked()
            nursery.start_soon(ask, pool, "3")
            await wait_all_tasks_blocked()
            gate.open()
        assert scope.cancelled_caught
        assert await ask(pool, "4") == "answer to 4"
    assert [request.text for request in narrow_server.requests] == ["1", "3", "4"]


async def test_a_turn_that_is_left_early_releases_its_place(server: ResponsesServer) -> None:
    async with open_to(server, size=1) as pool:
        for _ in range(50):
            async with pool.stream(model="m", input="hi") as stream:
                await anext(stream)
        assert await ask(pool, "hi") == 'Turn 1: you said "hi".'


async def test_an_abandoned_turn_counts_until_its_socket_is_lost(server: ResponsesServer) -> None:
    async with open_to(server, size=2, per_connection=1) as pool:
        await open_all_connections(pool, 2)
        server.stall(after_events=1)
        async with pool.stream(model="m", input="abandoned") as stream:
            await anext(stream)
        await ask(pool, "hi")
        assert per_connection(server) == {1: 1, 2: 1}  # the first connection has a higher load
        await server.send_raw(close_frame(1001), connection=1)
        await wait_all_tasks_blocked()
        await pool.connections[0].wait_open()
        await ask(pool, "hi")
        sent = [connection.requests_sent for connection in pool.statistics().connections]
        assert sent == [2, 1]


async def test_a_turn_that_is_sent_again_takes_one_place(server: ResponsesServer) -> None:
    async with open_to(server, size=1) as pool:
        for _ in range(20):
            server.drop(after_events=2)
            assert await ask(pool, "hi", delivery="at_least_once") == 'Turn 1: you said "hi".'
        assert pool.statistics().sockets_opened == 21


async def cancel_when_blocked(scope: trio.CancelScope) -> None:
    await wait_all_tasks_blocked()
    scope.cancel()


# --- Statistics and options --------------------------------------------------------------


async def test_sums_do_not_decrease_when_connections_end(server: ResponsesServer) -> None:
    async with open_to(server, size=2, per_connection=1) as pool:
        async with pool.lane() as first, pool.lane() as second:
            await ask(first, "1")
            await ask(second, "2")
            await ask(second, "3")
        counted = pool.statistics()
        assert [one.requests_sent for one in counted.connections] == [1, 2]
        assert counted.requests_sent == 3
        assert counted.bytes_sent == sum(one.bytes_sent for one in counted.connections)
        await server.close_all(4000)
        await wait_all_tasks_blocked()
        after = pool.statistics()
        assert (after.connections, after.connections_ended) == ((), 2)
        assert after.requests_sent == 3
        assert after.bytes_received >= counted.bytes_received > 0
        assert repr(pool) == "<ResponsesPool of 0 connections to localhost/v1/responses>"


async def test_turns_on_an_older_socket_of_an_ended_connection_are_counted(
    server: ResponsesServer,
) -> None:
    gate = Gate(server)
    rotation = RotationPolicy(max_age=20, stagger=0)
    async with (
        open_to(server, size=1, rotation=rotation) as pool,
        pool.stream(model="m", input="hi") as stream,
    ):
        await trio.sleep(21)
        await server.send_raw(close_frame(4000), connection=2)
        await wait_all_tasks_blocked()
        during = pool.statistics()
        assert (during.connections_ended, during.requests_active) == (1, 1)
        gate.open()
        events = [event async for event in stream]
        after = pool.statistics()
    assert (after.events_received, after.requests_active) == (len(events), 0)
    assert pool.statistics().events_received == len(events)


@pytest.mark.parametrize("option", ["size", "per_connection"])
@pytest.mark.parametrize("number", [0, -1, 1.5, True, "4", math.inf])
async def test_an_invalid_number_raises_configuration_error(
    server: ResponsesServer, option: str, number: Any
) -> None:
    with pytest.raises(ConfigurationError, match=option):
        async with open_to(server, **{option: number}):
            raise AssertionError("the block must not begin")


async def test_url_and_endpoint_exclude_each_other(server: ResponsesServer) -> None:
    with pytest.raises(ConfigurationError, match="not both"):
        async with open_to(server, base_url=server.url):
            raise AssertionError("the block must not begin")


async def test_an_insecure_url_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="ws://"):
        async with open_pool("http://example.com/v1", api_key="any"):
            raise AssertionError("the block must not begin")


def test_open_pool_has_the_options_of_open_responses() -> None:
    own = {"size", "per_connection", "endpoints"}
    pool, single = (inspect.signature(one).parameters for one in (open_pool, open_responses))
    assert {name: pool[name] for name in pool if name not in own} == dict(single)
    assert own < set(pool)


def test_connection_options_are_the_options_of_open_responses() -> None:
    single = inspect.signature(open_responses).parameters
    options: dict[str, Any] = ConnectionOptions.__annotations__
    assert {name: each.__forward_arg__ for name, each in options.items()} == {
        name: each.annotation for name, each in single.items()
    }
    (_nursery, *names) = inspect.signature(connect_responses).parameters
    assert names == list(single)


async def test_all_connections_share_the_instruments(server: ResponsesServer) -> None:
    class Counter(Instrument):
        opened = 0

        def socket_opened(self, socket: SocketRecord) -> None:
            del socket
            self.opened += 1

    counter = Counter()
    instruments = (one for one in [counter])
    async with (
        open_to(server, size=2, per_connection=1, instruments=instruments) as pool,
        pool.lane(),
        pool.lane(),
    ):
        assert counter.opened == 2
