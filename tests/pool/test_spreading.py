"""Where turns, lanes and conversations of a pool go."""

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.pool.rig import Gate, ask, close_frame, open_to, per_connection
from tests.turn.rig import Crowd
from trio_responses import ConnectionLost, Conversation
from trio_responses._pool import ResponsesPool
from trio_responses.testing import ResponsesServer


@pytest.fixture
async def gate(server: ResponsesServer) -> AsyncGenerator[Gate, None]:
    gate = Gate(server)
    yield gate
    gate.open()


def ask_many(nursery: trio.Nursery, pool: ResponsesPool, many: range) -> None:
    for number in many:
        nursery.start_soon(ask, pool, f"{number}")


def places(pool: ResponsesPool) -> list[int]:
    return [counted.requests_active for counted in pool.statistics().connections]


# --- Turns -------------------------------------------------------------------------------


async def test_one_connection_is_enough_for_eight_turns(
    server: ResponsesServer, gate: Gate
) -> None:
    async with open_to(server) as pool, trio.open_nursery() as nursery:
        ask_many(nursery, pool, range(8))
        await wait_all_tasks_blocked()
        assert places(pool) == [8]
        gate.open()


async def test_the_ninth_turn_opens_another_connection_and_does_not_wait_for_it(
    server: ResponsesServer, gate: Gate
) -> None:
    async with open_to(server) as pool, trio.open_nursery() as nursery:
        server.hang_handshake()
        ask_many(nursery, pool, range(16))
        await wait_all_tasks_blocked()
        assert places(pool) == [16]
        assert pool.statistics().connections_opening == 1
        gate.open()


async def test_a_turn_goes_where_the_fewest_are(server: ResponsesServer, gate: Gate) -> None:
    async with open_to(server, size=2, per_connection=1) as pool, trio.open_nursery() as nursery:
        for _ in range(6):
            nursery.start_soon(ask, pool, "hi")
            await wait_all_tasks_blocked()
        # The second one had gone out before the second connection was there.
        assert per_connection(server) == {1: 3, 2: 3}
        gate.open()


async def test_a_response_that_nobody_wants_counts_until_it_has_passed(
    server: ResponsesServer,
) -> None:
    async with open_to(server, size=2, per_connection=1) as pool:
        server.reply("a long answer", delay=10)
        server.reply("another one", delay=10)
        async with pool.stream(model="m", input="1") as one, pool.stream(model="m", input="2"):
            await anext(one)
            await wait_all_tasks_blocked()
        assert sorted(places(pool)) == [0, 2]  # both were sent before there were two connections
        busy = places(pool).index(2)
        await ask(pool, "3")
        assert server.requests[-1].connection != busy + 1
        await trio.sleep(1000)
        assert sorted(places(pool)) == [0, 0]


async def test_turns_beyond_all_places_wait_and_go_on_in_order(server: ResponsesServer) -> None:
    done: list[str] = []

    async def ask_and_note(text: str) -> None:
        await ask(pool, text)
        done.append(text)

    async with open_to(server, size=1, lanes=False) as pool, trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(ask_and_note, f"{number}")
            await trio.lowlevel.checkpoint()
        while pool.statistics().turns_waiting < 19:
            await trio.lowlevel.checkpoint()
    assert done == [f"{number}" for number in range(20)]
    assert [request.text for request in server.requests] == done


async def test_a_thousand_turns_at_once(server: ResponsesServer) -> None:
    answers: dict[str, str] = {}

    async def ask_and_note(text: str) -> None:
        answers[text] = await ask(pool, text)

    async with Crowd(), open_to(server, size=4) as pool:
        async with trio.open_nursery() as nursery:
            for number in range(1000):
                nursery.start_soon(ask_and_note, f"{number}")
        assert answers == {f"{n}": f'Turn 1: you said "{n}".' for n in range(1000)}
        counted = per_connection(server)
        assert len(counted) == 4
        assert min(counted.values()) > 150
        assert server.statistics().max_active <= 64
        assert pool.statistics().turns_waiting == 0
        assert places(pool) == [0, 0, 0, 0]


async def test_the_connections_of_a_burst_are_opened_side_by_side(
    server: ResponsesServer, gate: Gate
) -> None:
    async with open_to(server, size=4) as pool, trio.open_nursery() as nursery:
        server.hang_handshake(times=3)
        ask_many(nursery, pool, range(100))
        await wait_all_tasks_blocked()
        assert pool.statistics().connections_opening == 3
        assert pool.statistics().turns_waiting == 84
        gate.open()


async def test_without_lanes_each_turn_has_a_connection_of_its_own(
    narrow_server: ResponsesServer,
) -> None:
    gate = Gate(narrow_server)
    async with (
        open_to(narrow_server, lanes=False, size=3) as pool,
        trio.open_nursery() as nursery,
    ):
        ask_many(nursery, pool, range(10))
        await wait_all_tasks_blocked()
        assert places(pool) == [1, 1, 1]
        assert pool.statistics().turns_waiting == 7
        gate.open()
    assert gate.most == {1: 1, 2: 1, 3: 1}


# --- Chains ------------------------------------------------------------------------------


async def open_all(pool: ResponsesPool, size: int) -> None:
    """Have a pool of ``per_connection=1`` open all its connections."""
    async with AsyncExitStack() as stack:
        for _ in range(size):
            await stack.enter_async_context(pool.lane())
    assert len(pool.connections) == size


async def test_a_turn_goes_where_the_response_is_that_it_continues(
    server: ResponsesServer,
) -> None:
    async with open_to(server, size=4, per_connection=1) as pool:
        await open_all(pool, 4)
        gate = Gate(server)
        parents: list[str] = []

        async def begin() -> None:
            response = await pool.create(model="m", input="hi", store=False)
            parents.append(response.id)

        async with trio.open_nursery() as nursery:
            for _ in range(8):
                nursery.start_soon(begin)
            await wait_all_tasks_blocked()
            gate.open()
        assert len(per_connection(server)) == 4
        for parent in parents:
            response = await pool.create(model="m", input="on", previous_response_id=parent)
            origin, here = (
                request.connection
                for request in server.requests
                if request.response_id in {parent, response.id}
            )
            assert origin == here


async def test_a_turn_waits_for_a_place_where_its_parent_is(narrow_server: ResponsesServer) -> None:
    async with open_to(narrow_server, lanes=False, size=2) as pool:
        await open_all(pool, 2)
        first = await pool.create(model="m", input="first", store=True)
        gate = Gate(narrow_server)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, pool, "in the way")
            await wait_all_tasks_blocked()
            assert narrow_server.requests[-1].connection == narrow_server.requests[0].connection

            @nursery.start_soon
            async def _() -> None:
                await ask(pool, "second", previous_response_id=first.id)

            await wait_all_tasks_blocked()
            assert pool.statistics().turns_waiting == 1
            assert places(pool) == [1, 0]
            gate.open()
    assert [request.connection for request in narrow_server.requests] == [1, 1, 1]


async def test_a_turn_does_not_wait_for_a_socket_that_has_lost_its_parent(
    narrow_server: ResponsesServer,
) -> None:
    async with open_to(narrow_server, lanes=False, size=2) as pool:
        await open_all(pool, 2)
        first = await pool.create(model="m", input="first", store=True)
        narrow_server.stall(after_events=1)
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def _() -> None:
                with pytest.raises(ConnectionLost):
                    await ask(pool, "in the way")

            await wait_all_tasks_blocked()
            nursery.start_soon(follow, pool, first.id)
            await wait_all_tasks_blocked()
            assert pool.statistics().turns_waiting == 1
            since = trio.current_time()
            await narrow_server.send_raw(close_frame(1001), connection=1)
        # It has not waited for that socket to be back, which takes a second.
        assert trio.current_time() == since
        assert narrow_server.requests[-1].connection == 2


async def follow(pool: ResponsesPool, parent: str) -> None:
    await ask(pool, "second", previous_response_id=parent)


async def test_who_waits_for_one_connection_and_who_for_any_are_served_in_order(
    narrow_server: ResponsesServer,
) -> None:
    async with open_to(narrow_server, lanes=False, size=1) as pool:
        parent = await pool.create(model="m", input="0", store=True)
        gate = Gate(narrow_server)
        async with trio.open_nursery() as nursery:
            for number in range(1, 8):
                parents = {"previous_response_id": parent.id} if number % 2 else {}

                async def go(text: str, params: dict[str, str]) -> None:
                    await ask(pool, text, **params)

                nursery.start_soon(go, f"{number}", parents)
                await wait_all_tasks_blocked()
            gate.open()
    assert [request.text for request in narrow_server.requests] == list("01234567")


# --- Lanes and conversations -------------------------------------------------------------


async def test_a_conversation_and_its_forks_stay_on_their_connection(
    server: ResponsesServer,
) -> None:
    async with (
        open_to(server, size=3, per_connection=1) as pool,
        pool.conversation(model="m", store=False) as one,
        pool.conversation(model="m", store=False) as other,
    ):
        for _ in range(3):
            await one.create("one")
            await other.create("other")
        branch = one.fork()
        await branch.create("one")
        assert one.statistics().delta_turns == other.statistics().delta_turns == 2
        assert branch.statistics().delta_turns == 1
    homes = {request.text: request.connection for request in server.requests}
    assert len(set(homes.values())) == 2
    assert all(request.connection == homes[request.text] for request in server.requests)


@pytest.mark.parametrize("target_load", [1, 8])
async def test_a_guest_goes_where_forks_have_left_a_lane(
    server: ResponsesServer, target_load: int
) -> None:
    async with (
        open_to(server, size=2, per_connection=target_load) as pool,
        pool.conversation(model="m", store=False) as one,
    ):
        branches = [one.fork() for _ in range(31)]
        async with pool.conversation(model="m", store=False) as other, pool.lane() as lane:
            await other.create("other")
            await ask(lane, "lane")
        assert per_connection(server) == {2: 2}
        await branches[-1].create("branch")
        assert per_connection(server) == {1: 1, 2: 2}


async def test_conversations_that_begin_together_are_spread(server: ResponsesServer) -> None:
    enough = trio.Event()

    async def talk() -> None:
        async with pool.conversation(model="m", store=False) as conversation:
            await conversation.create("hi")
            await enough.wait()

    async with open_to(server, size=4) as pool, trio.open_nursery() as nursery:
        for _ in range(100):
            nursery.start_soon(talk)
        await wait_all_tasks_blocked()
        assert sorted(per_connection(server).values()) == [25, 25, 25, 25]
        enough.set()


async def test_a_guest_has_one_connection_opened(server: ResponsesServer) -> None:
    async with open_to(server, size=4, per_connection=1) as pool, pool.lane():
        server.hang_handshake(times=None)
        with trio.move_on_after(1):
            async with pool.lane():
                raise AssertionError("it has to wait")
        assert pool.statistics().connections_opening == 1


async def test_a_guest_takes_what_there_is_where_no_other_can_be_opened(
    server: ResponsesServer,
) -> None:
    async with open_to(server, size=2, per_connection=1) as pool, pool.lane():
        server.drop_handshake(times=None)
        async with pool.lane() as second:
            await ask(second, "hi")
        assert per_connection(server) == {1: 1}
        assert pool.statistics().connections_failed == 1


async def test_a_checkpoint_is_restored_on_a_pool(server: ResponsesServer) -> None:
    async with open_to(server) as pool:
        async with pool.conversation(model="m", store=False) as conversation:
            await conversation.create("My name is Ada.")
            saved = conversation.checkpoint()
        async with Conversation.restore(pool, saved) as conversation:
            response = await conversation.create("And now?")
    assert response.output_text == 'Turn 2: you said "And now?".'


async def test_a_warm_up_is_a_turn(server: ResponsesServer) -> None:
    async with open_to(server) as pool:
        warm = await pool.warm_up(model="m", instructions="Be brief.")
        assert warm.raw_output == []
        response = await pool.create(model="m", input="hi", previous_response_id=warm.id)
    assert response.output_text == 'Turn 1: you said "hi".'
