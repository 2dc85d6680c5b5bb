"""P5: the order of turns, and their lanes."""

from contextlib import AsyncExitStack

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.testing.driver import NO_WAITING
from tests.turn.rig import STEADY, ask, ask_strictly, assert_at_rest, heard
from trio_responses import (
    APIError,
    ConfigurationError,
    DeliveryStatus,
    Endpoint,
    PreviousResponseNotFound,
    ResponsesConnection,
    StreamLimitReached,
)
from trio_responses._turn.methods import TurnMethods
from trio_responses.testing import Reply, Request, ResponsesServer, open_test_server

pytestmark = NO_WAITING


# --- Many at once ------------------------------------------------------------------------


@pytest.mark.parametrize("lanes", [True, False])
async def test_turns_started_together_go_out_in_the_order_of_the_calls(*, lanes: bool) -> None:
    """P5: 16 at once with lanes, one at once without; each gets its own answer."""
    asked: list[str] = []
    answered: list[str] = []

    async def task(number: int) -> None:
        asked.append(str(number))
        assert await ask(connection, str(number)) == heard(str(number))
        answered.append(str(number))

    async with (
        open_test_server(max_age=None, lanes=lanes) as server,
        server.open_client() as connection,
    ):
        async with trio.open_nursery() as nursery:
            for number in range(64):
                nursery.start_soon(task, number)
        assert len(asked) == len(answered) == 64
        assert [request["input"] for request in server.requests] == asked
        assert server.statistics().max_active == (16 if lanes else 1)
        names = {request.lane for request in server.requests}
        assert len(names) == (16 if lanes else 1)
        assert None in names
        if not lanes:
            assert answered == asked
        assert server.statistics().handshakes == 1
        assert_at_rest(connection)


async def test_the_queue_is_fair_while_turns_take_different_times(server: ResponsesServer) -> None:
    """P5: the 17th is the first to go when a place is free."""
    server.respond_with(
        lambda request: Reply("ok", delay=1 if int(request["input"]) % 3 else 0.25, events="items")
    )
    asked: list[str] = []

    async def task(number: int) -> None:
        await trio.sleep(number * 0.001)
        asked.append(str(number))
        await ask(connection, str(number))

    async with server.open_client() as connection, trio.open_nursery() as nursery:
        for number in range(100):
            nursery.start_soon(task, number)
    assert [request["input"] for request in server.requests] == asked
    assert server.statistics().max_active == 16


async def test_a_turn_that_runs_alone_uses_the_default_lane(server: ResponsesServer) -> None:
    async with server.open_client() as connection:
        for number in range(5):
            await ask(connection, str(number))
        assert {request.lane for request in server.requests} == {None}
        assert all("stream_id" not in request.body for request in server.requests)


async def test_concurrent_turns_take_lanes_by_themselves(server: ResponsesServer) -> None:
    async with server.open_client() as connection, trio.open_nursery() as nursery:
        for number in range(4):
            server.stall(after_events=1, seconds=5)
            nursery.start_soon(ask, connection, str(number))
    assert [request.lane for request in server.requests] == [None, "lane-1", "lane-2", "lane-3"]
    assert trio.current_time() == 5


async def test_one_slow_lane_does_not_delay_the_others(server: ResponsesServer) -> None:
    server.stall(after_events=3, seconds=100)
    finished: list[tuple[str, float]] = []

    async def task(name: str) -> None:
        await ask_strictly(connection, name)
        finished.append((name, trio.current_time()))

    async with server.open_client() as connection:
        async with trio.open_nursery() as nursery:
            for number in range(40):
                nursery.start_soon(task, str(number))
                await wait_all_tasks_blocked()
        assert finished[-1] == ("0", 100)
        assert {at for _, at in finished[:-1]} == {0}


async def test_a_lane_that_was_left_is_not_used_before_its_response_ends(
    server: ResponsesServer,
) -> None:
    """P5: not even where all the others are taken."""
    server.stall(after_events=1, seconds=50)
    async with server.open_client() as connection:
        async with connection.stream(model="m", input="left") as stream:
            await stream.__anext__()
        for _ in range(15):
            server.stall(after_events=1, seconds=10)
        async with trio.open_nursery() as nursery:
            for number in range(32):
                nursery.start_soon(ask, connection, str(number))
        lanes = [request.lane for request in server.requests[1:]]
        assert None not in lanes
        assert server.statistics().max_active == 16
        await trio.sleep(60)
        await ask_strictly(connection, "clean")
        assert server.requests[-1].lane is None


# --- A lane of one's own -----------------------------------------------------------------


async def test_turns_on_a_reserved_lane_run_in_order(server: ResponsesServer) -> None:
    """First in, first out, while other turns run on other lanes."""
    server.respond_with(lambda request: Reply(f"re {request['input']}", delay=0.1))
    asked: list[str] = []

    async def task(turns: TurnMethods, name: str) -> None:
        asked.append(name)
        assert await ask(turns, name) == f"re {name}"

    async with server.open_client() as connection:
        async with connection.lane("mine") as lane, trio.open_nursery() as nursery:
            assert lane.name == "mine"
            assert repr(lane) == "<Lane 'mine'>"
            for number in range(10):
                nursery.start_soon(task, lane, f"lane {number}")
                nursery.start_soon(task, connection, f"other {number}")
        on_lane = [request["input"] for request in server.requests if request.lane == "mine"]
        assert on_lane == [name for name in asked if name.startswith("lane")]
        assert all(request["stream_id"] == request.lane for request in server.requests[-1:])
        others = {request.lane for request in server.requests if "other" in request["input"]}
        assert len(others) == 10
        assert "mine" not in others
        assert_at_rest(connection)


@pytest.mark.parametrize("lanes", [True, False])
async def test_a_lane_knows_its_own_latest_response(*, lanes: bool) -> None:
    """A chain by hand; turns of other lanes do not change it, and a new socket has no cache."""
    async with open_test_server(max_age=None, lanes=lanes) as server:
        endpoint = Endpoint.compatible(server.url, lanes=lanes)
        async with (
            server.open_client(endpoint=endpoint, reconnect=STEADY) as connection,
            connection.lane() as lane,
        ):
            assert lane.previous_response_id is None
            first = await lane.create("one", model="m", store=False)
            assert lane.previous_response_id == first.id
            if lanes:
                other = await connection.create("other", model="m")
                assert connection.previous_response_id == other.id
            parent = lane.previous_response_id
            second = await lane.create("two", model="m", store=False, previous_response_id=parent)
            assert second.output_text == 'Turn 2: you said "two".'
            assert lane.previous_response_id == second.id

            server.fail("server_error")
            with pytest.raises(APIError):
                await lane.create("three", model="m", previous_response_id=second.id)
            assert lane.previous_response_id is None  # evicted

            await lane.create("four", model="m")
            await server.reset_all()
            await ask_strictly(connection, "on the next socket")
            if lanes:
                assert lane.previous_response_id is None


async def test_only_the_next_turn_of_a_lane_waits_for_the_rest_of_a_turn(
    server: ResponsesServer,
) -> None:
    """P5: the other lanes go on."""
    async with server.open_client() as connection, connection.lane() as lane:
        server.stall(after_events=1, seconds=20)
        async with lane.stream(model="m", input="left") as stream:
            await stream.__anext__()
        await ask_strictly(connection, "beside it")
        assert trio.current_time() == 0
        await ask_strictly(lane, "behind it")
        assert trio.current_time() == 20
        assert server.statistics().handshakes == 1


async def test_turns_that_wait_for_a_reserved_lane_delay_no_others(server: ResponsesServer) -> None:
    """P5: each reserved lane has a queue of its own."""
    async with server.open_client() as connection, connection.lane() as lane:
        server.stall(after_events=1, seconds=20)
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(ask, lane, "mine")
                await wait_all_tasks_blocked()
            await ask_strictly(connection, "other")
            assert trio.current_time() == 0


async def test_the_queue_is_fair_between_reserved_lanes_and_others(server: ResponsesServer) -> None:
    """P5: turns go out in the order of the calls."""
    server.respond_with(lambda request: Reply(str(request["input"]), delay=0.1, events="items"))
    async with server.open_client() as connection, connection.lane() as lane:
        async with trio.open_nursery() as nursery:
            for number in range(100):
                nursery.start_soon(ask, connection, f"a {number}")
            await wait_all_tasks_blocked()
            nursery.start_soon(ask, lane, "mine")
            await wait_all_tasks_blocked()
            for number in range(100):
                nursery.start_soon(ask, connection, f"b {number}")
        inputs = [request["input"] for request in server.requests]
        assert inputs.index("mine") == 100


async def test_a_lane_name_outside_the_grammar_is_refused(server: ResponsesServer) -> None:
    """Before anything is sent: the server's refusal would name no lane."""
    async with server.open_client() as connection:
        with pytest.raises(ConfigurationError, match="not a lane name"):
            async with connection.lane("a b"):
                pytest.fail("the block began")  # pragma: no cover
        await ask_strictly(connection, "next")


async def test_a_lane_name_of_the_grammar_is_sent(server: ResponsesServer) -> None:
    async with server.open_client() as connection, connection.lane("A.b-c_9") as lane:
        await ask_strictly(lane, "hi")
        assert server.requests[0]["stream_id"] == "A.b-c_9"


async def test_a_lane_is_reserved_once_at_a_time(server: ResponsesServer) -> None:
    async with server.open_client() as connection:
        async with connection.lane("mine"):
            with pytest.raises(ConfigurationError, match="reserved already"):
                async with connection.lane("mine"):
                    pytest.fail("the block began")  # pragma: no cover
        async with connection.lane("mine") as again:
            await ask_strictly(again, "hi")


async def test_other_turns_do_not_take_a_reserved_lane(
    server: ResponsesServer,
) -> None:
    async with server.open_client() as connection, connection.lane("lane-1") as lane:
        for _ in range(3):
            server.stall(after_events=1, seconds=5)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, connection, "a")
            nursery.start_soon(ask, connection, "b")
        assert {request.lane for request in server.requests} == {None, "lane-2"}
        await ask_strictly(lane, "mine")
        assert server.requests[-1].lane == "lane-1"


async def test_32_lanes_are_reserved_and_no_more(server: ResponsesServer) -> None:
    """The server counts names; other turns still have the default lane."""
    async with server.open_client() as connection:
        async with AsyncExitStack() as stack:
            lanes = [await stack.enter_async_context(connection.lane()) for _ in range(32)]
            assert len({lane.name for lane in lanes}) == 32
            with pytest.raises(ConfigurationError, match="32 lanes of the connection are reserved"):
                await stack.enter_async_context(connection.lane())
            async with trio.open_nursery() as nursery:
                for lane in lanes:
                    nursery.start_soon(ask_strictly, lane, f"on {lane.name}")
                nursery.start_soon(ask_strictly, connection, "on the default lane")
            assert server.statistics().max_active <= 16
            assert len({request.lane for request in server.requests}) == 33
        async with connection.lane() as lane:
            await ask_strictly(lane, "given back")
        assert_at_rest(connection)


async def test_lanes_reserved_one_after_the_other_use_one_name(server: ResponsesServer) -> None:
    """The server never releases a name, so the library uses names again."""
    async with server.open_client() as connection:
        for number in range(20):
            async with connection.lane() as lane:
                await ask_strictly(lane, str(number))
        assert len({request.lane for request in server.requests}) == 1


async def test_chosen_names_and_names_of_other_turns_stay_within_32(
    server: ResponsesServer,
) -> None:
    """P5: a turn without a reserved lane never uses the 33rd name."""
    async with server.open_client() as connection:
        for number in range(25):
            async with connection.lane(f"mine-{number}") as lane:
                await ask_strictly(lane, "hi")
        async with trio.open_nursery() as nursery:
            for number in range(40):
                nursery.start_soon(ask_strictly, connection, str(number))
        assert len({request.lane for request in server.requests} - {None}) == 32


async def test_the_server_refuses_the_33rd_chosen_name(server: ResponsesServer) -> None:
    """P4: with delivery ``rejected``."""
    async with server.open_client() as connection:
        for number in range(32):
            async with connection.lane(f"mine-{number}") as lane:
                await ask_strictly(lane, "hi")
        async with connection.lane("one-more") as lane:
            with pytest.raises(StreamLimitReached) as failure:
                await ask(lane, "hi")
        assert failure.value.delivery is DeliveryStatus.REJECTED
        await ask_strictly(connection, "next")
        assert_at_rest(connection)


async def test_a_lane_that_was_left_can_be_reserved_again_at_once(server: ResponsesServer) -> None:
    """P5: its next turn waits for the rest of the response."""
    async with server.open_client() as connection:
        async with connection.lane("mine") as lane:
            server.stall(after_events=1, seconds=20)
            async with lane.stream(model="m", input="left") as stream:
                await stream.__anext__()
        async with connection.lane("mine") as lane:
            await ask_strictly(lane, "next")
        assert trio.current_time() == 20


# --- Where there are no lanes ------------------------------------------------------------


async def test_without_lanes_every_lane_is_the_default_one(narrow_server: ResponsesServer) -> None:
    server = narrow_server
    async with (
        server.open_client() as connection,
        connection.lane() as one,
        connection.lane() as two,
        trio.open_nursery() as nursery,
    ):
        assert (one.name, two.name) == (None, None)
        for turns in (one, two, connection):
            nursery.start_soon(ask_strictly, turns, "hi")
    assert {request.lane for request in server.requests} == {None}
    assert server.statistics().max_active == 1


async def test_without_lanes_a_lane_name_is_refused(narrow_server: ResponsesServer) -> None:
    async with narrow_server.open_client() as connection:
        with pytest.raises(ConfigurationError, match=r"Endpoint\.lanes"):
            async with connection.lane("mine"):
                pytest.fail("the block began")  # pragma: no cover


# --- Chains ------------------------------------------------------------------------------


async def chain(turns: TurnMethods, name: str, length: int) -> list[str]:
    """Run a conversation by parents that the server keeps in its lane's cache only."""
    texts: list[str] = []
    parent: str | None = None
    for number in range(length):
        response = await turns.create(
            model="m", input=f"{name} {number}", previous_response_id=parent, store=False
        )
        parent = response.id
        texts.append(response.output_text)
    return texts


async def test_chains_on_reserved_lanes_go_on_side_by_side(server: ResponsesServer) -> None:
    """``store=False``: the cache of a lane holds its last response."""
    results: dict[str, list[str]] = {}

    async def converse(connection: ResponsesConnection, name: str) -> None:
        async with connection.lane() as lane:
            results[name] = await chain(lane, name, 5)

    async with server.open_client() as connection, trio.open_nursery() as nursery:
        for number in range(8):
            nursery.start_soon(converse, connection, f"c{number}")
        for number in range(40):
            nursery.start_soon(ask, connection, str(number))
    for name, texts in results.items():
        assert texts == [f'Turn {n + 1}: you said "{name} {n}".' for n in range(5)]
    assert len(results) == 8


async def test_a_turn_goes_to_the_lane_that_has_its_parent(server: ResponsesServer) -> None:
    """As long as no other turn has used the lane since."""
    async with server.open_client() as connection:
        parents: list[str] = []

        async def begin(name: str) -> None:
            response = await connection.create(model="m", input=name, store=False)
            parents.append(response.id)

        async with trio.open_nursery() as nursery:
            for number in range(5):
                server.stall(after_events=1, seconds=1)
                nursery.start_soon(begin, str(number))
        first = {request.response_id: request.lane for request in server.requests}
        assert len(set(first.values())) == 5
        for parent in reversed(parents):
            response = await connection.create(
                model="m", input="more", previous_response_id=parent, store=False
            )
            assert response.output_text == 'Turn 2: you said "more".'
            assert server.requests[-1].lane == first[parent]


async def test_a_chain_without_a_reserved_lane_is_broken_by_other_turns(
    server: ResponsesServer,
) -> None:
    """Another turn took the lane, and its cache holds one response."""
    async with server.open_client() as connection:
        first = await connection.create(model="m", input="a", store=False)
        await connection.create(model="m", input="b", store=False)
        with pytest.raises(PreviousResponseNotFound) as failure:
            await connection.create(
                model="m", input="more", previous_response_id=first.id, store=False
            )
        assert failure.value.delivery is DeliveryStatus.REJECTED


async def test_the_answers_of_16_lanes_that_interleave_are_not_mixed(
    server: ResponsesServer,
) -> None:
    """P5: event by event in turn, in one order and the other."""

    def answer(request: Request) -> Reply:
        name = str(request["input"])
        return Reply(chunks=[f"{name};"] * 30, delay=0.01 + 0.001 * (int(name.split()[1]) % 3))

    server.respond_with(answer)

    async def task(name: str) -> None:
        async with connection.stream(model="m", input=name) as stream:
            async for piece in stream.text_deltas():
                assert piece == f"{name};"
        assert stream.response.output_text == f"{name};" * 30

    async with server.open_client() as connection, trio.open_nursery() as nursery:
        for number in range(48):
            nursery.start_soon(task, f"task {number}")
