"""What a pool does when a socket is lost: at once, whether or not anybody comes or goes."""

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.pool.rig import STEADY, ask, close_frame, open_to, per_connection
from tests.turn.rig import Crowd, Wire
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


async def open_two(pool: ResponsesPool) -> None:
    """Have a pool of one turn a connection open two connections."""
    async with pool.lane(), pool.lane():
        assert len(pool.connections) == 2


async def lose(turns: TurnMethods) -> None:
    with pytest.raises(ConnectionLost):
        await ask(turns, "lost")


async def hold(pool: ResponsesPool, enough: trio.Event) -> None:
    """Have a place, and look at nothing that comes."""
    async with pool.stream(model="m", input="held"):
        await enough.wait()


class Notes(list[str]):
    """What was answered, in order."""

    async def ask(self, pool: ResponsesPool, text: str) -> None:
        await ask(pool, text)
        self.append(text)


# --- Requests that are on their way ---------------------------------------------------------


async def test_a_request_that_waits_on_a_lost_socket_goes_to_another_one_at_once(
    narrow_server: ResponsesServer,
) -> None:
    async with open_to(narrow_server, lanes=False, size=2) as pool:
        await open_two(pool)
        narrow_server.stall()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lose, pool.connections[0])  # nothing that the pool would know of
            await wait_all_tasks_blocked()
            nursery.start_soon(ask, pool, "behind it")
            await wait_all_tasks_blocked()
            assert per_connection(narrow_server) == {1: 1}
            since = trio.current_time()
            await narrow_server.send_raw(close_frame(GOING_AWAY), connection=1)
        assert per_connection(narrow_server) == {1: 1, 2: 1}
        assert trio.current_time() == since  # the first one is back a second later
        assert [member.turns for member in pool._spread.members] == [0, 0]


async def test_a_request_that_waits_on_a_connection_that_ends_goes_to_another_one(
    narrow_server: ResponsesServer,
) -> None:
    async with open_to(narrow_server, lanes=False, size=2) as pool:
        await open_two(pool)
        narrow_server.stall()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lose, pool.connections[0])
            await wait_all_tasks_blocked()
            nursery.start_soon(ask, pool, "behind it")
            await wait_all_tasks_blocked()
            await narrow_server.send_raw(close_frame(NOT_ALLOWED), connection=1)
        assert per_connection(narrow_server) == {1: 1, 2: 1}


async def test_a_request_that_is_cancelled_as_it_moves_on_has_no_place(
    narrow_server: ResponsesServer,
) -> None:
    """The cancellation is its caller's, and is not taken for the pool's own."""
    async with open_to(narrow_server, lanes=False, size=2) as pool:
        await open_two(pool)
        narrow_server.stall()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lose, pool.connections[0])
            await wait_all_tasks_blocked()
            scope = trio.CancelScope()

            @nursery.start_soon
            async def _() -> None:
                with scope:
                    await ask(pool, "behind it")

            await wait_all_tasks_blocked()
            scope.cancel()
            pool._spread.lost(pool._spread.members[0])
            await wait_all_tasks_blocked()
            await narrow_server.send_raw(close_frame(GOING_AWAY), connection=1)
        assert scope.cancelled_caught
        assert per_connection(narrow_server) == {1: 1}
        assert [member.turns for member in pool._spread.members] == [0, 0]
        assert pool.statistics().turns_waiting == 0


async def test_a_place_on_a_socket_that_is_lost_by_then_is_none(server: ResponsesServer) -> None:
    """It was given away, the socket went, and only then its new owner came to have it."""
    async with open_to(server, size=1) as pool:
        (member,) = pool._spread.members
        assert member.engine.sockets.current is not None
        server.hang_handshake()
        member.engine.sockets.current.retire()
        await wait_all_tasks_blocked()
        with trio.fail_after(1), member.sending():
            await trio.sleep_forever()


async def test_a_request_whose_first_byte_is_out_is_not_sent_elsewhere(
    narrow_server: ResponsesServer,
) -> None:
    """P4: what is sent twice, is sent twice by the caller's choice only."""
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
            (member,) = pool._spread.members
            assert member.engine.sockets.current is not None
            member.engine.sockets.current.retire()
            assert not member.is_open  # it takes no more requests
            await wait_all_tasks_blocked()
            go_on.set()
        assert [request.text for request in narrow_server.requests] == ["slow"]
        assert member.turns == 0


async def test_a_server_that_drops_every_socket_is_not_tried_for_ever(
    narrow_server: ResponsesServer,
) -> None:
    """P2: a request moves on as often as there are connections, and no further."""

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


async def test_who_waits_for_one_connection_is_served_by_another_while_nobody_leaves(
    narrow_server: ResponsesServer,
) -> None:
    enough = trio.Event()
    async with open_to(narrow_server, lanes=False, size=2) as pool, trio.open_nursery() as nursery:
        await open_two(pool)
        first = await pool.create(model="m", input="first", store=True)
        narrow_server.stall(after_events=1)
        nursery.start_soon(hold, pool, enough)
        await wait_all_tasks_blocked()
        notes = Notes()

        @nursery.start_soon
        async def _() -> None:
            await ask(pool, "second", previous_response_id=first.id)
            notes.append("second")

        await wait_all_tasks_blocked()
        assert pool.statistics().turns_waiting == 1
        since = trio.current_time()
        await narrow_server.send_raw(close_frame(GOING_AWAY), connection=1)
        await wait_all_tasks_blocked()
        assert notes == ["second"]
        assert narrow_server.requests[-1].connection == 2
        assert trio.current_time() == since
        enough.set()


async def test_one_that_is_over_is_replaced_while_nobody_leaves(
    narrow_server: ResponsesServer,
) -> None:
    enough = trio.Event()
    async with open_to(narrow_server, lanes=False, size=1) as pool, trio.open_nursery() as nursery:
        narrow_server.stall(after_events=1)
        nursery.start_soon(hold, pool, enough)
        await wait_all_tasks_blocked()
        notes = Notes()
        nursery.start_soon(notes.ask, pool, "next")
        await wait_all_tasks_blocked()
        await narrow_server.close_all(NOT_ALLOWED)
        await wait_all_tasks_blocked()
        assert notes == ["next"]
        assert per_connection(narrow_server) == {1: 1, 2: 1}
        enough.set()


async def test_those_that_wait_are_told_when_a_key_is_refused_while_nobody_leaves(
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
        assert narrow_server.statistics().handshakes == 2  # none more to hear the same
        enough.set()


async def test_who_has_waited_longest_is_next_when_a_socket_is_lost(
    narrow_server: ResponsesServer,
) -> None:
    """Those who waited for one connection come before those who came later."""
    enough = trio.Event()
    async with open_to(narrow_server, lanes=False, size=2) as pool, trio.open_nursery() as nursery:
        await open_two(pool)
        first = await pool.create(model="m", input="first", store=True)
        narrow_server.stall(after_events=1)
        nursery.start_soon(hold, pool, enough)
        await wait_all_tasks_blocked()
        narrow_server.reply("slow", delay=10)
        nursery.start_soon(ask, pool, "in the way")
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


# --- What there is to see -------------------------------------------------------------------


async def test_a_request_without_a_socket_counts_as_one_that_waits(
    server: ResponsesServer,
) -> None:
    async with open_to(server, size=1) as pool, trio.open_nursery() as nursery:
        server.stop_accepting()
        await server.hang_up_all()
        nursery.start_soon(ask, pool, "hi")
        await wait_all_tasks_blocked()
        assert pool.statistics().turns_waiting == 1
        server.accept_again()


async def test_a_connection_that_is_over_is_gone_before_anybody_looks(
    server: ResponsesServer,
) -> None:
    async with open_to(server, size=2, per_connection=1) as pool:
        await open_two(pool)
        await server.send_raw(close_frame(NOT_ALLOWED), connection=1)
        await wait_all_tasks_blocked()
        assert len(pool._spread.members) == 1
        assert pool._tasks.ended == 1


async def test_what_watches_a_connection_ends_with_it(server: ResponsesServer) -> None:
    async with Crowd(), open_to(server, size=3, per_connection=1) as pool:
        async with pool.lane(), pool.lane(), pool.lane():
            pass
        async with Crowd():
            await server.send_raw(close_frame(GOING_AWAY), connection=2)
            await trio.sleep(60)
            assert pool.statistics().sockets_opened == 4
        await server.close_all(NOT_ALLOWED)
        await wait_all_tasks_blocked()
        openers = pool._tasks._openers
        assert openers is not None
        assert len(openers.child_tasks) == 0


async def test_a_pool_that_cannot_come_back_says_so_to_who_waits(
    server: ResponsesServer,
) -> None:
    async with open_to(server, size=1, reconnect=STEADY) as pool:
        server.stop_accepting()
        await server.hang_up_all()
        with pytest.raises(ReconnectFailed) as caught:
            await ask(pool, "hi")
        assert caught.value.delivery is DeliveryStatus.NOT_SENT
        assert pool.statistics().turns_waiting == 0
