"""A pool reacts to a lost socket at once, without another turn that begins or ends."""

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.pool.rig import (
    STEADY,
    answer_once,
    ask,
    assert_all_places_are_free,
    close_frame,
    open_all_connections,
    open_to,
    per_connection,
)
from tests.turn.rig import Crowd, Wire, dead
from trio_responses import (
    AuthenticationError,
    ConnectionLost,
    DeliveryStatus,
    ReconnectFailed,
    ResponsesError,
)
from trio_responses._pool import ResponsesPool
from trio_responses._turn.methods import TurnMethods
from trio_responses.testing import ResponsesServer

GOING_AWAY = 1001
NOT_ALLOWED = 1008


async def lose(turns: TurnMethods) -> None:
    with pytest.raises(ConnectionLost):
        await ask(turns, "lost")


async def hold(pool: ResponsesPool, enough: trio.Event) -> None:
    """Hold a place without reading any event."""
    async with pool.stream(model="m", input="held"):
        await enough.wait()


# --- Requests that are not sent yet ---------------------------------------------------------


async def test_an_unsent_request_moves_to_another_connection_when_the_socket_is_lost(
    narrow_server: ResponsesServer,
) -> None:
    async with open_to(narrow_server, lanes=False, size=2) as pool:
        await open_all_connections(pool, 2)
        narrow_server.stall()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lose, pool.connections[0])  # not a turn of the pool
            await wait_all_tasks_blocked()
            nursery.start_soon(ask, pool, "waiting")
            await wait_all_tasks_blocked()
            assert per_connection(narrow_server) == {1: 1}
            since = trio.current_time()
            await narrow_server.send_raw(close_frame(GOING_AWAY), connection=1)
        assert per_connection(narrow_server) == {1: 1, 2: 1}
        assert trio.current_time() == since  # the first connection needs a second
        await trio.sleep(1)
        await assert_all_places_are_free(pool, narrow_server, size=2, places=1)


async def test_an_unsent_request_moves_to_another_connection_when_its_connection_ends(
    narrow_server: ResponsesServer,
) -> None:
    async with open_to(narrow_server, lanes=False, size=2) as pool:
        await open_all_connections(pool, 2)
        narrow_server.stall()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lose, pool.connections[0])
            await wait_all_tasks_blocked()
            nursery.start_soon(ask, pool, "waiting")
            await wait_all_tasks_blocked()
            await narrow_server.send_raw(close_frame(NOT_ALLOWED), connection=1)
        assert per_connection(narrow_server) == {1: 1, 2: 1}


async def test_a_request_cancelled_as_its_socket_is_lost_is_not_sent_and_has_no_place(
    narrow_server: ResponsesServer,
) -> None:
    """The pool does not mistake the cancellation of the caller for its own one."""
    async with open_to(narrow_server, lanes=False, size=2) as pool:
        await open_all_connections(pool, 2)
        narrow_server.stall()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lose, pool.connections[0])
            await wait_all_tasks_blocked()
            scope = trio.CancelScope()

            @nursery.start_soon
            async def _() -> None:
                with scope:
                    await ask(pool, "waiting")

            await wait_all_tasks_blocked()
            scope.cancel()
            # Private: the socket is lost before the cancellation is delivered.
            pool._scheduler.handle_lost_socket(pool._scheduler.connections[0])
            await wait_all_tasks_blocked()
            await narrow_server.send_raw(close_frame(GOING_AWAY), connection=1)
        assert scope.cancelled_caught
        assert per_connection(narrow_server) == {1: 1}
        assert pool.statistics().turns_waiting == 0
        await trio.sleep(1)
        await assert_all_places_are_free(pool, narrow_server, size=2, places=1)


async def test_sending_is_cancelled_when_the_socket_was_lost_before(
    server: ResponsesServer,
) -> None:
    """The socket is lost after the place was assigned and before the turn's task runs."""
    async with open_to(server, size=1) as pool:
        # Private: no public API can lose a socket between these two moments.
        (connection,) = pool._scheduler.connections
        assert connection.engine.sockets.current is not None
        server.hang_handshake()
        connection.engine.sockets.current.retire()
        await wait_all_tasks_blocked()
        with trio.fail_after(1), connection.sending():
            await trio.sleep_forever()


async def test_a_request_whose_first_byte_is_written_does_not_move(
    narrow_server: ResponsesServer,
) -> None:
    """P4: a request is sent twice only by the caller's choice."""
    writing, go_on = trio.Event(), trio.Event()

    async def slowly(number: int) -> None:
        if number == 1:
            writing.set()
            await go_on.wait()

    wires = iter((slowly, None))

    async def dial(host: str, port: int) -> trio.abc.Stream:
        return Wire(await narrow_server.dial(host, port), next(wires, None))

    async with open_to(narrow_server, lanes=False, size=2, dial=dial) as pool:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, pool, "slow")
            await writing.wait()
            # Private: a socket that takes no new requests, while the write goes on.
            (connection,) = pool._scheduler.connections
            assert connection.engine.sockets.current is not None
            connection.engine.sockets.current.retire()
            assert not connection.is_open
            await wait_all_tasks_blocked()
            go_on.set()
        assert [request.text for request in narrow_server.requests] == ["slow"]
        assert connection.turns == 0


async def test_a_request_that_cannot_be_written_moves_to_another_connection(
    narrow_server: ResponsesServer,
) -> None:
    wires = iter((dead, None))

    async def dial(host: str, port: int) -> trio.abc.Stream:
        return Wire(await narrow_server.dial(host, port), next(wires, None))

    async with open_to(narrow_server, lanes=False, size=2, dial=dial) as pool:
        await open_all_connections(pool, 2)
        since = trio.current_time()
        await ask(pool, "moved")
        assert per_connection(narrow_server) == {2: 1}
        assert trio.current_time() == since


async def test_a_server_that_drops_every_socket_is_tried_a_bounded_number_of_times(
    narrow_server: ResponsesServer,
) -> None:
    """P2: a request moves at most as often as the pool has connections."""

    async def broken(number: int) -> None:
        if number > 0:
            await trio.lowlevel.checkpoint()
            raise trio.BrokenResourceError("dead")

    async def dial(host: str, port: int) -> trio.abc.Stream:
        return Wire(await narrow_server.dial(host, port), broken)

    async with open_to(narrow_server, lanes=False, size=2, dial=dial) as pool:
        with pytest.raises(ResponsesError) as caught:
            await ask(pool, "never")
        assert caught.value.delivery is DeliveryStatus.NOT_SENT
        assert narrow_server.requests == []
        assert narrow_server.statistics().handshakes < 10


# --- Requests that wait for a place ---------------------------------------------------------


async def test_a_turn_that_waits_for_a_lost_socket_gets_another_connection_at_once(
    narrow_server: ResponsesServer,
) -> None:
    enough = trio.Event()
    async with open_to(narrow_server, lanes=False, size=2) as pool, trio.open_nursery() as nursery:
        await open_all_connections(pool, 2)
        answer_once(narrow_server, {})
        first = await pool.create(model="m", input="first")
        narrow_server.stall(after_events=1)
        nursery.start_soon(hold, pool, enough)
        await wait_all_tasks_blocked()
        answered = trio.Event()

        @nursery.start_soon
        async def _() -> None:
            await ask(pool, "second", previous_response_id=first.id)
            answered.set()

        await wait_all_tasks_blocked()
        assert pool.statistics().turns_waiting == 1
        since = trio.current_time()
        await narrow_server.send_raw(close_frame(GOING_AWAY), connection=1)
        await wait_all_tasks_blocked()
        assert answered.is_set()
        assert narrow_server.requests[-1].connection == 2
        assert trio.current_time() == since
        enough.set()


async def test_an_ended_connection_is_replaced_at_once_while_a_turn_waits(
    narrow_server: ResponsesServer,
) -> None:
    enough = trio.Event()
    async with open_to(narrow_server, lanes=False, size=1) as pool, trio.open_nursery() as nursery:
        narrow_server.stall(after_events=1)
        nursery.start_soon(hold, pool, enough)
        await wait_all_tasks_blocked()
        answered = trio.Event()

        @nursery.start_soon
        async def _() -> None:
            await ask(pool, "next")
            answered.set()

        await wait_all_tasks_blocked()
        await narrow_server.close_all(NOT_ALLOWED)
        await wait_all_tasks_blocked()
        assert answered.is_set()
        assert per_connection(narrow_server) == {1: 1, 2: 1}
        enough.set()


async def test_waiting_turns_fail_at_once_when_the_key_is_rejected(
    narrow_server: ResponsesServer,
) -> None:
    enough = trio.Event()
    async with open_to(narrow_server, lanes=False, size=1) as pool, trio.open_nursery() as nursery:
        narrow_server.stall(after_events=1)
        nursery.start_soon(hold, pool, enough)
        await wait_all_tasks_blocked()
        narrow_server.refuse(401, times=None)
        await narrow_server.send_raw(close_frame(GOING_AWAY), connection=1)
        with pytest.raises(AuthenticationError) as caught:
            await ask(pool, "refused")
        assert caught.value.delivery is DeliveryStatus.NOT_SENT
        assert narrow_server.statistics().handshakes == 2  # no further attempt
        enough.set()


async def test_turns_keep_their_order_when_a_socket_is_lost(
    narrow_server: ResponsesServer,
) -> None:
    """A turn that waited for the lost connection is served before turns that arrived later."""
    enough = trio.Event()
    async with open_to(narrow_server, lanes=False, size=2) as pool, trio.open_nursery() as nursery:
        await open_all_connections(pool, 2)
        answer_once(narrow_server, {})
        first = await pool.create(model="m", input="first")
        narrow_server.stall(after_events=1)
        nursery.start_soon(hold, pool, enough)
        await wait_all_tasks_blocked()
        narrow_server.reply("slow", delay=10)
        nursery.start_soon(ask, pool, "blocker")
        await wait_all_tasks_blocked()
        assert per_connection(narrow_server) == {1: 2, 2: 1}
        nursery.start_soon(follow, pool, first.id)
        await wait_all_tasks_blocked()
        nursery.start_soon(ask, pool, "later")
        await wait_all_tasks_blocked()
        await narrow_server.send_raw(close_frame(GOING_AWAY), connection=1)
        await trio.sleep(1000)
        assert [request.text for request in narrow_server.requests[-2:]] == ["second", "later"]
        enough.set()


async def follow(pool: ResponsesPool, parent: str) -> None:
    await ask(pool, "second", previous_response_id=parent)


# --- State ----------------------------------------------------------------------------------


async def test_a_turn_waits_while_no_connection_has_a_socket(
    server: ResponsesServer,
) -> None:
    async with open_to(server, size=1) as pool, trio.open_nursery() as nursery:
        server.stop_accepting()
        await server.hang_up_all()
        nursery.start_soon(ask, pool, "hi")
        await wait_all_tasks_blocked()
        assert pool.statistics().turns_waiting == 1
        server.accept_again()


async def test_an_ended_connection_leaves_the_pool(server: ResponsesServer) -> None:
    async with open_to(server, size=2, per_connection=1) as pool:
        await open_all_connections(pool, 2)
        await server.send_raw(close_frame(NOT_ALLOWED), connection=1)
        await wait_all_tasks_blocked()
        # Private: `connections` and `statistics()` would remove the connection themselves.
        assert len(pool._scheduler.connections) == 1
        assert pool._scheduler.ended.count == 1


async def test_all_tasks_of_a_connection_end_with_the_connection(server: ResponsesServer) -> None:
    async with Crowd(), open_to(server, size=3, per_connection=1) as pool:
        await server.close_all(NOT_ALLOWED)
        async with Crowd():
            await open_all_connections(pool, 3)
            async with Crowd():
                await server.send_raw(close_frame(GOING_AWAY), connection=3)
                await trio.sleep(60)
                assert pool.statistics().sockets_opened == 5
            await server.close_all(NOT_ALLOWED)
            await wait_all_tasks_blocked()


async def test_a_waiting_turn_fails_when_no_connection_can_be_opened_again(
    server: ResponsesServer,
) -> None:
    async with open_to(server, size=1, reconnect=STEADY) as pool:
        server.stop_accepting()
        await server.hang_up_all()
        with pytest.raises(ReconnectFailed) as caught:
            await ask(pool, "hi")
        assert caught.value.delivery is DeliveryStatus.NOT_SENT
        assert pool.statistics().turns_waiting == 0
