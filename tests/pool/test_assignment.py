"""Which connection of a pool each turn, lane and conversation gets."""

from collections.abc import AsyncGenerator

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.pool.rig import (
    Gate,
    active_requests,
    answer_once,
    ask,
    close_frame,
    open_all_connections,
    open_to,
    per_connection,
)
from tests.turn.rig import Crowd
from trio_responses import ConnectionLost
from trio_responses._pool import ResponsesPool
from trio_responses.testing import ResponsesServer


@pytest.fixture
async def gate(server: ResponsesServer) -> AsyncGenerator[Gate, None]:
    gate = Gate(server)
    yield gate
    gate.open()


def start_turns(nursery: trio.Nursery, pool: ResponsesPool, count: int) -> None:
    for number in range(count):
        nursery.start_soon(ask, pool, f"{number}")


# --- Turns -------------------------------------------------------------------------------


async def test_eight_turns_share_one_connection(server: ResponsesServer, gate: Gate) -> None:
    async with open_to(server) as pool, trio.open_nursery() as nursery:
        start_turns(nursery, pool, 8)
        await wait_all_tasks_blocked()
        assert active_requests(pool) == [8]
        gate.open()


async def test_the_ninth_turn_lets_another_connection_open_and_does_not_wait_for_it(
    server: ResponsesServer, gate: Gate
) -> None:
    async with open_to(server) as pool, trio.open_nursery() as nursery:
        server.hang_handshake()
        start_turns(nursery, pool, 16)
        await wait_all_tasks_blocked()
        assert active_requests(pool) == [16]
        assert pool.statistics().connections_opening == 1
        gate.open()


async def test_a_turn_gets_the_connection_with_the_lowest_load(
    server: ResponsesServer, gate: Gate
) -> None:
    async with open_to(server, size=2, per_connection=1) as pool, trio.open_nursery() as nursery:
        for _ in range(6):
            nursery.start_soon(ask, pool, "hi")
            await wait_all_tasks_blocked()
        # The second turn was sent before the second connection was open.
        assert per_connection(server) == {1: 3, 2: 3}
        gate.open()


async def test_an_abandoned_response_counts_until_it_has_ended(
    server: ResponsesServer,
) -> None:
    async with open_to(server, size=2, per_connection=1) as pool:
        server.reply("a long answer", delay=10)
        server.reply("another one", delay=10)
        async with pool.stream(model="m", input="1") as one, pool.stream(model="m", input="2"):
            await anext(one)
            await wait_all_tasks_blocked()
        assert sorted(active_requests(pool)) == [
            0,
            2,
        ]  # both were sent before the second connection was open
        busy = active_requests(pool).index(2)
        await ask(pool, "3")
        assert server.requests[-1].connection != busy + 1
        await trio.sleep(1000)
        assert sorted(active_requests(pool)) == [0, 0]


async def test_turns_without_a_free_place_are_served_in_order(server: ResponsesServer) -> None:
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


async def test_four_hundred_turns_are_distributed_over_all_connections(
    server: ResponsesServer,
) -> None:
    answers: dict[str, str] = {}

    async def ask_and_note(text: str) -> None:
        answers[text] = await ask(pool, text)

    async with Crowd(), open_to(server, size=4) as pool:
        async with trio.open_nursery() as nursery:
            for number in range(400):
                nursery.start_soon(ask_and_note, f"{number}")
        assert answers == {f"{n}": f'Turn 1: you said "{n}".' for n in range(400)}
        counted = per_connection(server)
        assert len(counted) == 4
        assert min(counted.values()) > 60
        assert server.statistics().max_active <= 64
        assert pool.statistics().turns_waiting == 0
        assert active_requests(pool) == [0, 0, 0, 0]


async def test_a_burst_opens_all_needed_connections_at_the_same_time(
    server: ResponsesServer, gate: Gate
) -> None:
    async with open_to(server, size=4) as pool, trio.open_nursery() as nursery:
        server.hang_handshake(times=3)
        start_turns(nursery, pool, 100)
        await wait_all_tasks_blocked()
        assert pool.statistics().connections_opening == 3
        assert pool.statistics().turns_waiting == 84
        gate.open()


async def test_without_lanes_a_connection_runs_one_turn_at_a_time(
    narrow_server: ResponsesServer,
) -> None:
    gate = Gate(narrow_server)
    async with (
        open_to(narrow_server, lanes=False, size=3) as pool,
        trio.open_nursery() as nursery,
    ):
        start_turns(nursery, pool, 10)
        await wait_all_tasks_blocked()
        assert active_requests(pool) == [1, 1, 1]
        assert pool.statistics().turns_waiting == 7
        gate.open()
    assert gate.most == {1: 1, 2: 1, 3: 1}


# --- Chains ------------------------------------------------------------------------------


async def test_a_turn_gets_the_connection_of_the_response_that_it_continues(
    server: ResponsesServer,
) -> None:
    async with open_to(server, size=4, per_connection=1) as pool:
        await open_all_connections(pool, 4)
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


@pytest.mark.parametrize("said", [{"store": False}, {}, {"store": None}], ids=str)
async def test_a_turn_waits_for_a_place_on_the_connection_of_its_parent(
    narrow_server: ResponsesServer, said: dict[str, object]
) -> None:
    """Unless the server calls the response stored, whatever the request said."""
    answer_once(narrow_server, said)
    async with open_to(narrow_server, lanes=False, size=2) as pool:
        await open_all_connections(pool, 2)
        first = await pool.create(model="m", input="first", store=True)
        gate = Gate(narrow_server)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, pool, "blocker")
            await wait_all_tasks_blocked()
            assert narrow_server.requests[-1].connection == narrow_server.requests[0].connection
            nursery.start_soon(follow, pool, first.id)
            await wait_all_tasks_blocked()
            assert pool.statistics().turns_waiting == 1
            assert active_requests(pool) == [1, 0]
            gate.open()
    assert [request.connection for request in narrow_server.requests] == [1, 1, 1]


async def test_a_turn_uses_another_connection_when_the_socket_of_its_parent_is_lost(
    narrow_server: ResponsesServer,
) -> None:
    async with open_to(narrow_server, lanes=False, size=2) as pool:
        await open_all_connections(pool, 2)
        answer_once(narrow_server, {})
        first = await pool.create(model="m", input="first")
        narrow_server.stall(after_events=1)
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def _() -> None:
                with pytest.raises(ConnectionLost):
                    await ask(pool, "blocker")

            await wait_all_tasks_blocked()
            nursery.start_soon(follow, pool, first.id)
            await wait_all_tasks_blocked()
            assert pool.statistics().turns_waiting == 1
            since = trio.current_time()
            await narrow_server.send_raw(close_frame(1001), connection=1)
        # The connection of the parent opens another socket only after a second.
        assert trio.current_time() == since
        assert narrow_server.requests[-1].connection == 2


async def follow(pool: ResponsesPool, parent: str) -> None:
    await ask(pool, "second", previous_response_id=parent)


async def test_a_turn_that_continues_a_stored_response_does_not_wait_for_its_connection(
    narrow_server: ResponsesServer,
) -> None:
    async with open_to(narrow_server, lanes=False, size=2) as pool:
        await open_all_connections(pool, 2)
        first = await pool.create(model="m", input="first")
        await follow(pool, first.id)
        gate = Gate(narrow_server)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(follow, pool, first.id)
            nursery.start_soon(follow, pool, first.id)
            await wait_all_tasks_blocked()
            assert active_requests(pool) == [1, 1]
            assert pool.statistics().turns_waiting == 0
            gate.open()
    places = [request.connection for request in narrow_server.requests]
    assert places[:2] == [places[0]] * 2, "the connection of the response is the best one"
    assert set(places[2:]) == {1, 2}


async def test_a_turn_that_continues_a_stored_response_lets_another_connection_open(
    narrow_server: ResponsesServer,
) -> None:
    async with open_to(narrow_server, lanes=False, size=2) as pool:
        first = await pool.create(model="m", input="first")
        gate = Gate(narrow_server)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(follow, pool, first.id)
            nursery.start_soon(follow, pool, first.id)
            await wait_all_tasks_blocked()
            assert active_requests(pool) == [1, 1]
            gate.open()


async def test_with_lanes_a_stored_response_is_continued_elsewhere_when_no_place_is_free(
    server: ResponsesServer,
) -> None:
    async with open_to(server, size=2, per_connection=16) as pool:
        first = await pool.create(model="m", input="first")
        gate = Gate(server)
        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(follow, pool, first.id)
            await wait_all_tasks_blocked()
            assert active_requests(pool) == [16, 4]
            gate.open()


@pytest.mark.parametrize("kind", ["previous_response_id", "conversation"])
async def test_a_turn_that_continues_what_is_unknown_to_the_pool_goes_to_any_connection(
    narrow_server: ResponsesServer, kind: str
) -> None:
    async with (
        narrow_server.open_client() as connection,
        open_to(narrow_server, lanes=False, size=2) as pool,
    ):
        first = await connection.create(model="m", input="first")
        parents = {kind: first.id}
        await open_all_connections(pool, 2)
        gate = Gate(narrow_server)
        async with trio.open_nursery() as nursery:

            async def go() -> None:
                await ask(pool, "second", **parents)

            nursery.start_soon(go)
            nursery.start_soon(go)
            await wait_all_tasks_blocked()
            assert active_requests(pool) == [1, 1]
            gate.open()


async def test_a_stored_response_of_a_connection_that_has_ended_is_continued_on_another_one(
    narrow_server: ResponsesServer,
) -> None:
    async with open_to(narrow_server, lanes=False, size=2) as pool:
        await open_all_connections(pool, 2)
        first = await pool.create(model="m", input="first")
        origin = narrow_server.requests[-1].connection
        await narrow_server.send_raw(close_frame(4000), connection=origin)
        await wait_all_tasks_blocked()
        await follow(pool, first.id)
        assert narrow_server.requests[-1].connection != origin


async def test_turns_that_wait_for_one_connection_or_for_any_are_served_in_one_order(
    narrow_server: ResponsesServer,
) -> None:
    async with open_to(narrow_server, lanes=False, size=1) as pool:
        answer_once(narrow_server, {})
        parent = await pool.create(model="m", input="0")
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


async def test_a_conversation_and_its_forks_stay_on_one_connection(
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
        branch = await one.fork()
        await branch.create("one")
        assert one.statistics().delta_turns == other.statistics().delta_turns == 2
        assert branch.statistics().delta_turns == 1
    connections = {request.text: request.connection for request in server.requests}
    assert len(set(connections.values())) == 2
    assert all(request.connection == connections[request.text] for request in server.requests)


@pytest.mark.parametrize("target_load", [1, 8])
async def test_a_lane_is_reserved_on_a_connection_that_has_a_free_one(
    server: ResponsesServer, target_load: int
) -> None:
    async with (
        open_to(server, size=2, per_connection=target_load) as pool,
        pool.conversation(model="m", store=False) as one,
    ):
        branches = [await one.fork() for _ in range(31)]
        async with pool.conversation(model="m", store=False) as other, pool.lane() as lane:
            await other.create("other")
            await ask(lane, "lane")
        assert per_connection(server) == {2: 2}
        await branches[-1].create("branch")
        assert per_connection(server) == {1: 1, 2: 2}


async def test_conversations_that_open_together_are_distributed_evenly(
    server: ResponsesServer,
) -> None:
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


async def test_a_waiting_lane_lets_one_connection_open(server: ResponsesServer) -> None:
    async with open_to(server, size=4, per_connection=1) as pool, pool.lane():
        server.hang_handshake(times=None)
        with trio.move_on_after(1):
            async with pool.lane():
                raise AssertionError("the lane must wait")
        assert pool.statistics().connections_opening == 1


async def test_a_lane_shares_a_connection_when_no_other_can_be_opened(
    server: ResponsesServer,
) -> None:
    async with open_to(server, size=2, per_connection=1) as pool, pool.lane():
        server.drop_handshake(times=None)
        async with pool.lane() as second:
            await ask(second, "hi")
        assert per_connection(server) == {1: 1}
        assert pool.statistics().connections_failed == 1


async def test_a_checkpoint_can_be_restored_on_a_pool(server: ResponsesServer) -> None:
    async with open_to(server) as pool:
        async with pool.conversation(model="m", store=False) as conversation:
            await conversation.create("My name is Ada.")
            saved = conversation.checkpoint()
        async with pool.restore_conversation(saved) as conversation:
            response = await conversation.create("And now?")
    assert response.output_text == 'Turn 2: you said "And now?".'


async def test_a_pool_runs_warm_ups(server: ResponsesServer) -> None:
    async with open_to(server) as pool:
        warm = await pool.warm_up(model="m", instructions="Be brief.")
        assert warm.raw_output == []
        response = await pool.create(model="m", input="hi", previous_response_id=warm.id)
    assert response.output_text == 'Turn 1: you said "hi".'
