"""P1 for pools: nothing outlives the block, and leaving it is bounded in time."""

import inspect
import math
from functools import partial
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.pool.rig import Gate, ask, close_frame, open_to
from tests.turn.rig import Crowd
from trio_responses import (
    ConfigurationError,
    ConnectionClosed,
    ConnectionState,
    DeliveryStatus,
    RotationPolicy,
    Timeouts,
    open_responses,
)
from trio_responses._instruments.instrument import Instrument
from trio_responses._instruments.records import SocketRecord
from trio_responses._pool import open_pool
from trio_responses._turn.methods import TurnMethods
from trio_responses.testing import ResponsesServer


async def test_leaving_ends_the_turns_under_way_and_those_that_wait(
    server: ResponsesServer,
) -> None:
    gate = Gate(server)
    told: list[DeliveryStatus | None] = []

    async def try_to_ask(text: str) -> None:
        with pytest.raises(ConnectionClosed) as caught:
            await ask(pool, text)
        told.append(caught.value.delivery)

    async with Crowd(), trio.open_nursery() as nursery, open_to(server, size=2) as pool:
        for number in range(40):
            nursery.start_soon(try_to_ask, f"{number}")
        await wait_all_tasks_blocked()
        assert pool.statistics().turns_waiting == 8
    assert told.count(DeliveryStatus.NOT_SENT) == 8
    assert told.count(DeliveryStatus.AMBIGUOUS) == 32
    gate.open()


async def test_leaving_ends_the_turns_that_wait_for_one_connection(
    narrow_server: ResponsesServer,
) -> None:
    async with (
        trio.open_nursery() as nursery,
        open_to(narrow_server, lanes=False, size=1) as pool,
    ):
        first = await pool.create(model="m", input="hi", store=True)
        narrow_server.stall()
        nursery.start_soon(see_it_closed, pool, DeliveryStatus.AMBIGUOUS)
        await wait_all_tasks_blocked()
        nursery.start_soon(partial(see_it_closed, previous_response_id=first.id), pool)
        await wait_all_tasks_blocked()
        assert pool.statistics().turns_waiting == 1


async def see_it_closed(
    turns: TurnMethods, delivery: DeliveryStatus = DeliveryStatus.NOT_SENT, **params: Any
) -> None:
    with pytest.raises(ConnectionClosed) as caught:
        await ask(turns, "hi", **params)
    assert caught.value.delivery is delivery


async def test_leaving_closes_all_connections_with_1000_side_by_side(
    server: ResponsesServer,
) -> None:
    async with open_to(server, size=3, per_connection=1) as pool:
        async with pool.lane(), pool.lane(), pool.lane():
            pass
        connections = pool.connections
    await wait_all_tasks_blocked()
    assert [one.state for one in connections] == [ConnectionState.CLOSED] * 3
    assert [one.close_code for one in server.connections] == [1000] * 3


async def test_leaving_takes_no_longer_than_the_closing_handshake_of_one(
    server: ResponsesServer,
) -> None:
    timeouts = Timeouts(close=3)
    async with open_to(server, size=3, per_connection=1, timeouts=timeouts) as pool:
        async with pool.lane(), pool.lane(), pool.lane():
            pass
        server.freeze_all()
        since = trio.current_time()
    assert trio.current_time() == since + 3


async def test_leaving_while_others_are_being_opened(server: ResponsesServer) -> None:
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
    said = ""
    with trio.move_on_after(1) as scope:
        async with open_to(server, size=2, per_connection=1) as pool:
            try:
                await trio.sleep_forever()
            finally:
                with trio.CancelScope(shield=True):
                    async with pool.lane() as first, pool.lane() as second:
                        said = await ask(first, "1") + await ask(second, "2")
    assert scope.cancelled_caught
    assert said == 'Turn 1: you said "1".Turn 1: you said "2".'


async def test_an_exception_of_the_block_leaves_it_as_itself(server: ResponsesServer) -> None:
    async with Crowd():
        with pytest.raises(KeyError, match="mine"):
            async with open_to(server):
                raise KeyError("mine")


async def test_cancelling_the_opening_leaves_nothing(server: ResponsesServer) -> None:
    server.hang_handshake()
    async with Crowd():
        with trio.move_on_after(5) as scope:
            async with open_to(server):
                raise AssertionError("the block must not begin")
        assert scope.cancelled_caught
        assert trio.current_time() == 5


async def test_after_the_end_nothing_begins(server: ResponsesServer) -> None:
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


async def test_a_turn_that_is_cancelled_while_it_waits_leaves_the_queue(
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
async def test_a_place_that_comes_too_late_goes_to_the_next(
    narrow_server: ResponsesServer, *, before: bool
) -> None:
    gate = Gate(narrow_server)
    scope = trio.CancelScope()

    async def ask_and_cancel() -> None:
        async with pool.stream(model="m", input="1") as stream:
            await stream.until_done()
            if before:
                scope.cancel()
        scope.cancel()  # the place was given to the second one just now

    async def wait_in_vain() -> None:
        with scope:
            await ask(pool, "2")

    async with open_to(narrow_server, lanes=False, size=1) as pool:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask_and_cancel)
            await wait_all_tasks_blocked()
            nursery.start_soon(wait_in_vain)
            await wait_all_tasks_blocked()
            nursery.start_soon(ask, pool, "3")
            await wait_all_tasks_blocked()
            gate.open()
        assert scope.cancelled_caught
        assert await ask(pool, "4") == "heard 4"
    assert [request.text for request in narrow_server.requests] == ["1", "3", "4"]


async def test_a_turn_that_is_left_early_gives_its_place_back(server: ResponsesServer) -> None:
    async with open_to(server, size=1) as pool:
        for _ in range(50):
            async with pool.stream(model="m", input="hi") as stream:
                await anext(stream)
        assert await ask(pool, "hi") == 'Turn 1: you said "hi".'


async def test_a_turn_that_went_with_its_socket_is_forgotten(server: ResponsesServer) -> None:
    async with open_to(server, size=1) as pool:
        server.stall(after_events=1)
        async with pool.stream(model="m", input="hi") as stream:
            await anext(stream)
        (member,) = pool._spread.members
        assert member.load == 1
        await server.close_all(1001)
        await pool.connections[0].wait_open()
        assert member.load == 0
        assert member._left == []


async def test_a_turn_that_is_sent_again_has_one_place(server: ResponsesServer) -> None:
    async with open_to(server, size=1) as pool:
        for _ in range(20):
            server.drop(after_events=2)
            assert await ask(pool, "hi", delivery="at_least_once") == 'Turn 1: you said "hi".'
        assert pool.statistics().sockets_opened == 21


async def cancel_when_blocked(scope: trio.CancelScope) -> None:
    await wait_all_tasks_blocked()
    scope.cancel()


# --- What there is to see ----------------------------------------------------------------


async def test_statistics_are_sums_that_never_shrink(server: ResponsesServer) -> None:
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
        assert repr(pool) == "<ResponsesPool of 0 connections>"


async def test_turns_that_end_on_an_older_socket_of_a_connection_that_is_over_are_counted(
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
async def test_numbers_that_cannot_be(server: ResponsesServer, option: str, number: Any) -> None:
    with pytest.raises(ConfigurationError, match=option):
        async with open_to(server, **{option: number}):
            raise AssertionError("the block must not begin")


async def test_a_url_and_an_endpoint_are_too_much(server: ResponsesServer) -> None:
    with pytest.raises(ConfigurationError, match="not both"):
        async with open_to(server, url=server.url):
            raise AssertionError("the block must not begin")


async def test_an_insecure_url_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="ws://"):
        async with open_pool("http://example.com/v1", api_key="any"):
            raise AssertionError("the block must not begin")


def test_the_options_are_those_of_a_connection() -> None:
    own = {"size", "per_connection"}
    pool, single = (inspect.signature(one).parameters for one in (open_pool, open_responses))
    assert {name: pool[name] for name in pool if name not in own} == dict(single)
    assert own < set(pool)


async def test_all_connections_tell_the_same_instruments(server: ResponsesServer) -> None:
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
