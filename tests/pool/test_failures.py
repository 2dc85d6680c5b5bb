"""A connection of a pool that fails does not affect the other connections."""

from collections.abc import Iterator

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.pool.rig import (
    NEVER_AGAIN,
    STEADY,
    Gate,
    ask,
    close_frame,
    open_all_connections,
    open_to,
    per_connection,
)
from tests.turn.rig import Crowd
from trio_responses import (
    AuthenticationError,
    ConnectionLost,
    DeliveryStatus,
    ReconnectFailed,
    ResponsesError,
    RotationPolicy,
    SteerState,
    TurnRestarted,
)
from trio_responses.testing import ResponsesServer

# --- Opening -----------------------------------------------------------------------------


async def test_open_pool_raises_at_once_when_the_server_rejects_the_key(
    server: ResponsesServer,
) -> None:
    server.refuse(401, times=None)
    began = trio.current_time()
    async with Crowd():
        with pytest.raises(AuthenticationError):
            async with open_to(server):
                raise AssertionError("the block must not begin")
    assert trio.current_time() == began
    assert server.statistics().handshakes == 1


async def test_open_pool_retries_an_unreachable_server_as_the_policy_sets(
    server: ResponsesServer,
) -> None:
    server.stop_accepting()
    async with Crowd():
        with pytest.raises(ReconnectFailed) as caught:
            async with open_to(server):
                raise AssertionError("the block must not begin")
    assert caught.value.attempts == 5
    assert trio.current_time() == 1 + 2 + 4 + 8 + 16


async def test_waiting_turns_fail_when_a_later_connection_has_its_key_rejected(
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
        assert await ask(pool, "still there") == "answer to still there"


async def test_no_turn_fails_when_a_further_connection_cannot_be_opened(
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
        assert pool.statistics().connections_failed == 1  # not one attempt for each turn
        server.accept_again()
        await trio.sleep(STEADY.cap)
        async with trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(ask, pool, f"{number}")
        assert len(pool.connections) == 2


async def test_each_connection_uses_all_delays_of_an_iterator(
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


# --- Losing sockets ------------------------------------------------------------------------------


async def test_turns_of_other_connections_go_on_when_one_connection_ends(
    server: ResponsesServer,
) -> None:
    gate = Gate(server)
    ended: list[ResponsesError] = []
    answered: list[str] = []

    async def try_to_ask(text: str) -> None:
        try:
            answered.append(await ask(pool, text))
        except ResponsesError as error:
            ended.append(error)

    async with open_to(server, size=2, per_connection=1) as pool:
        await open_all_connections(pool, 2)
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
        # The two turns that were left needed another connection in place of the first one.
        assert server.statistics().handshakes == 3


async def test_turns_use_other_connections_while_one_has_no_socket(server: ResponsesServer) -> None:
    async with open_to(server, size=2, per_connection=1) as pool:
        await open_all_connections(pool, 2)
        server.stop_accepting()
        await server.send_raw(close_frame(1001), connection=1)
        await wait_all_tasks_blocked()
        since = trio.current_time()
        for number in range(10):
            await ask(pool, f"{number}")
        assert per_connection(server) == {2: 10}
        assert trio.current_time() == since
        server.accept_again()


async def test_turns_wait_for_the_first_socket_when_no_connection_has_one(
    server: ResponsesServer,
) -> None:
    async with open_to(server, size=3, per_connection=1) as pool:
        await open_all_connections(pool, 2)
        server.stop_accepting()
        await server.hang_up_all()
        async with trio.open_nursery() as nursery:
            for number in range(5):
                nursery.start_soon(ask, pool, f"{number}")
            await wait_all_tasks_blocked()
            assert pool.statistics().turns_waiting == 5
            # The pool opens no connection while the existing ones reconnect.
            assert (len(pool.connections), pool.statistics().connections_opening) == (2, 0)
            server.accept_again()
        assert len(server.requests) == 5


async def test_a_turn_fails_when_no_connection_can_be_opened_and_the_next_turn_tries_again(
    server: ResponsesServer,
) -> None:
    async with open_to(server, size=2, per_connection=1) as pool:
        await open_all_connections(pool, 2)
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


async def test_a_conversation_whose_connection_has_ended_uses_another_one(
    server: ResponsesServer,
) -> None:
    async with (
        open_to(server, size=1) as pool,
        pool.conversation(model="m", store=False) as conversation,
    ):
        await conversation.create("hi")
        await server.close_all(4000)
        response = await conversation.create("on")
        assert response.output_text == 'Turn 2: you said "on".'
        assert "previous_response_id" not in server.last_request.body
        assert len(pool.connections) == 1


async def test_a_turn_cancelled_while_it_is_sent_again_releases_its_place_once(
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


async def test_a_steering_input_between_two_attempts_is_refused(server: ResponsesServer) -> None:
    server.drop(after_events=1)
    async with (
        open_to(server, size=1) as pool,
        pool.stream(model="m", input="hi", delivery="at_least_once") as stream,
    ):
        await anext(stream)
        assert isinstance(await anext(stream), TurnRestarted)
        receipt = await stream.steer("too late")
        await stream.get_final_response()
    assert receipt.state is SteerState.FAILED
    assert stream.response.output_text == 'Turn 1: you said "hi".'


# --- Rotation ----------------------------------------------------------------------------


async def test_sockets_that_were_opened_together_are_rotated_at_different_times(
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
