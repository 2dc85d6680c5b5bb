"""What one connection of a pool can do to the others when it fails: nothing."""

from collections.abc import Iterator

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.pool.rig import NEVER_AGAIN, STEADY, Gate, ask, close_frame, open_to, per_connection
from tests.turn.rig import Crowd
from trio_responses import (
    AuthenticationError,
    ConnectionLost,
    DeliveryStatus,
    ReconnectFailed,
    ResponsesError,
    RotationPolicy,
)
from trio_responses._pool import ResponsesPool
from trio_responses.testing import ResponsesServer


async def open_two(pool: ResponsesPool) -> None:
    """Have a pool of ``per_connection=1`` open two connections."""
    async with pool.lane(), pool.lane():
        assert len(pool.connections) == 2


# --- Opening -----------------------------------------------------------------------------


async def test_a_refused_key_leaves_as_itself_and_at_once(server: ResponsesServer) -> None:
    server.refuse(401, times=None)
    began = trio.current_time()
    async with Crowd():
        with pytest.raises(AuthenticationError):
            async with open_to(server):
                raise AssertionError("the block must not begin")
    assert trio.current_time() == began
    assert server.statistics().handshakes == 1


async def test_a_server_that_is_not_there_is_tried_as_the_policy_says(
    server: ResponsesServer,
) -> None:
    server.stop_accepting()
    async with Crowd():
        with pytest.raises(ReconnectFailed) as caught:
            async with open_to(server):
                raise AssertionError("the block must not begin")
    assert caught.value.attempts == 5
    assert trio.current_time() == 1 + 2 + 4 + 8 + 16


async def test_a_key_that_is_refused_later_is_raised_to_those_that_wait(
    server: ResponsesServer,
) -> None:
    gate = Gate(server)
    refused: list[DeliveryStatus | None] = []
    answered: list[str] = []

    async def try_to_ask(text: str) -> None:
        try:
            answered.append(await ask(pool, text))
        except AuthenticationError as error:
            refused.append(error.delivery)

    async with open_to(server) as pool, trio.open_nursery() as nursery:
        server.refuse(401, times=None)
        for number in range(20):
            nursery.start_soon(try_to_ask, f"{number}")
        await wait_all_tasks_blocked()
        assert refused == [DeliveryStatus.NOT_SENT] * 4
        gate.open()
        await wait_all_tasks_blocked()
        assert len(answered) == 16
        assert await ask(pool, "still there") == "heard still there"


async def test_a_connection_that_cannot_be_opened_costs_nobody_an_answer(
    server: ResponsesServer,
) -> None:
    gate = Gate(server)
    answered: list[str] = []

    async def ask_and_note(text: str) -> None:
        answered.append(await ask(pool, text))

    async with open_to(server, size=2, reconnect=NEVER_AGAIN) as pool:
        server.stop_accepting()
        async with trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(ask_and_note, f"{number}")
            await wait_all_tasks_blocked()
            assert pool.statistics().connections_failed == 1
            gate.open()
        assert len(answered) == 20
        assert pool.statistics().connections_failed == 1  # no attempt for each turn that came
        server.accept_again()
        await trio.sleep(STEADY.cap)
        async with trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(ask, pool, f"{number}")
        assert len(pool.connections) == 2


async def test_each_connection_has_its_own_walk_through_an_iterator_of_delays(
    server: ResponsesServer,
) -> None:
    def delays() -> Iterator[float]:
        yield 5.0
        yield 7.0

    server.refuse(503, times=2)
    async with open_to(server, size=2, per_connection=1, reconnect=delays()) as pool:
        assert trio.current_time() == 12
        server.refuse(503, times=2)
        async with pool.lane(), pool.lane():
            assert trio.current_time() == 24


# --- Losing ------------------------------------------------------------------------------


async def test_one_connection_that_is_over_takes_nobody_with_it(server: ResponsesServer) -> None:
    gate = Gate(server)
    ended: list[ResponsesError] = []
    answered: list[str] = []

    async def try_to_ask(text: str) -> None:
        try:
            answered.append(await ask(pool, text))
        except ResponsesError as error:
            ended.append(error)

    async with open_to(server, size=2, per_connection=1) as pool:
        await open_two(pool)
        async with trio.open_nursery() as nursery:
            for number in range(4):
                nursery.start_soon(try_to_ask, f"{number}")
            await wait_all_tasks_blocked()
            assert per_connection(server) == {1: 2, 2: 2}
            first, second = pool.connections
            await server.send_raw(close_frame(1008), connection=1)
            await wait_all_tasks_blocked()
            assert [type(error) for error in ended] == [ConnectionLost] * 2
            assert second in pool.connections
            assert first not in pool.connections
            gate.open()
        assert len(answered) == 2
        assert pool.statistics().connections_ended == 1
        # Two turns were left, and wanted for another connection in the place of the first one.
        assert server.statistics().handshakes == 3


async def test_turns_go_to_the_others_while_one_has_no_socket(server: ResponsesServer) -> None:
    async with open_to(server, size=2, per_connection=1) as pool:
        await open_two(pool)
        server.stop_accepting()
        await server.send_raw(close_frame(1001), connection=1)
        await wait_all_tasks_blocked()
        since = trio.current_time()
        for number in range(10):
            await ask(pool, f"{number}")
        assert per_connection(server) == {2: 10}
        assert trio.current_time() == since
        server.accept_again()


async def test_turns_that_wait_for_any_socket_get_the_first_one(server: ResponsesServer) -> None:
    async with open_to(server, size=3, per_connection=1) as pool:
        await open_two(pool)
        server.stop_accepting()
        await server.hang_up_all()
        async with trio.open_nursery() as nursery:
            for number in range(5):
                nursery.start_soon(ask, pool, f"{number}")
            await wait_all_tasks_blocked()
            assert pool.statistics().turns_waiting == 5
            # None is opened beside those that come back.
            assert (len(pool.connections), pool.statistics().connections_opening) == (2, 0)
            server.accept_again()
        assert len(server.requests) == 5


async def test_when_none_can_be_opened_the_turn_is_told_and_the_next_one_tries_again(
    server: ResponsesServer,
) -> None:
    async with open_to(server, size=2, per_connection=1) as pool:
        await open_two(pool)
        server.stop_accepting()
        await server.hang_up_all()
        with pytest.raises(ReconnectFailed) as caught:
            await ask(pool, "hi")
        assert caught.value.delivery is DeliveryStatus.NOT_SENT
        assert pool.connections == ()
        assert pool.statistics().connections_ended == 2
        with pytest.raises(ReconnectFailed):
            async with pool.conversation(model="m"):
                raise AssertionError("the block must not begin")
        server.accept_again()
        assert await ask(pool, "hi") == 'Turn 1: you said "hi".'


async def test_a_conversation_whose_connection_is_over_says_so(server: ResponsesServer) -> None:
    async with (
        open_to(server, size=1) as pool,
        pool.conversation(model="m", store=False) as conversation,
    ):
        await conversation.create("hi")
        await server.close_all(4000)
        with pytest.raises(ConnectionLost):
            await conversation.create("on")
        assert await ask(pool, "others go on") == 'Turn 1: you said "others go on".'


async def test_a_turn_that_is_cancelled_while_it_is_sent_again_has_left_its_place_once(
    narrow_server: ResponsesServer,
) -> None:
    async with open_to(narrow_server, lanes=False, size=1) as pool:
        narrow_server.drop(after_events=0)
        with trio.move_on_after(0.5):
            await ask(pool, "1", delivery="at_least_once")  # a new socket is a second away
        await trio.sleep(1)
        gate = Gate(narrow_server)
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(ask, pool, "2")
            await wait_all_tasks_blocked()
            assert pool.statistics().turns_waiting == 2
            gate.open()


# --- Rotation ----------------------------------------------------------------------------


async def test_sockets_that_were_opened_together_are_not_replaced_together(
    server: ResponsesServer,
) -> None:
    rotation = RotationPolicy(max_age=100, stagger=0.5)
    async with open_to(server, size=4, per_connection=1, rotation=rotation) as pool:
        async with pool.lane(), pool.lane(), pool.lane(), pool.lane():
            assert server.statistics().handshakes == 4
        times: list[float] = []
        while trio.current_time() < 100:
            before = server.statistics().handshakes
            await trio.sleep(1)
            times += [trio.current_time()] * (server.statistics().handshakes - before)
        await ask(pool, "hi")
        assert len(times) >= 4
        assert times[0] + 1 < times[3]
        assert pool.statistics().sockets_opened == server.statistics().handshakes
