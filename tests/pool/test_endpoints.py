"""A pool with several endpoints uses the first one that works, and returns to a preferred one."""

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

import msgspec
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.pool.rig import NEVER_AGAIN, STEADY, Gate, ask
from tests.transport.http_peer import Exchange, HTTPPeer, error, open_peer, response, whole
from trio_responses import (
    AuthenticationError,
    ConfigurationError,
    ConnectionLost,
    DeliveryStatus,
    Endpoint,
    Instrument,
    Limits,
    PoolEndpoint,
    PreviousResponseNotFound,
    RateLimitError,
    ReconnectFailed,
    ReplayPolicy,
    ResponsesError,
    ResponsesPool,
    function_tool,
    open_pool,
)
from trio_responses.testing import Call, Fail, Request, ResponsesServer, open_test_server
from trio_responses.types import FunctionCall, FunctionCallOutput

Dial = Callable[[str, int], Any]
TEXT: dict[str, Any] = {"model": "m", "store": False}


class Changes(Instrument):
    """An instrument that records where turns go, when, and why."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, float, type[Exception] | None]] = []

    def endpoint_changed(self, endpoint: str, error: ResponsesError | None) -> None:
        self.seen.append((endpoint, trio.current_time(), type(error) if error else None))


@pytest.fixture
async def first() -> AsyncGenerator[ResponsesServer, None]:
    """The preferred endpoint, with lanes."""
    async with open_test_server(max_age=None) as server:
        yield server
        assert server.errors == []


@pytest.fixture
async def second() -> AsyncGenerator[ResponsesServer, None]:
    """The endpoint that follows, with lanes."""
    async with open_test_server(max_age=None) as server:
        yield server
        assert server.errors == []


def member(number: int, **options: Any) -> PoolEndpoint:
    """Return an endpoint of a pool, with the port of its number and the name ``e<number>``."""
    profile: dict[str, Any] = {"lanes": True, "after_error": "reuse", "transport": "websocket"}
    profile |= options.pop("profile", {})
    url = f"http://127.0.0.1:{number}/v1"
    options = {"api_key": "any", "name": f"e{number}", **options}
    return PoolEndpoint(endpoint=Endpoint.compatible(url, **profile), **options)


def dial_by_port(*dials: Dial) -> Dial:
    """Return a dial function that dials the server of each port, counted from 1."""

    async def dial(host: str, port: int) -> Any:
        return await dials[port - 1](host, port)

    return dial


def open_to_all(
    *servers: ResponsesServer, endpoints: Sequence[PoolEndpoint] | None = None, **options: Any
) -> AbstractAsyncContextManager[ResponsesPool]:
    """Open a pool to several servers in memory, the preferred one first."""
    settings: dict[str, Any] = {
        "endpoints": endpoints or [member(number) for number in range(1, len(servers) + 1)],
        "dial": dial_by_port(*(server.dial for server in servers)),
        "reconnect": STEADY,
        **options,
    }
    return open_pool(**settings)


def texts(server: ResponsesServer) -> list[str]:
    """Return the text of each request of a server."""
    return [request.text for request in server.requests]


async def fail(server: ResponsesServer) -> None:
    """Make a server unreachable, and end its sockets."""
    server.stop_accepting()
    await server.reset_all()
    await wait_all_tasks_blocked()


# --- Opening -----------------------------------------------------------------------------


async def test_turns_go_to_the_first_endpoint(
    first: ResponsesServer, second: ResponsesServer
) -> None:
    async with open_to_all(first, second, size=2) as pool:
        gate = Gate(first)
        async with trio.open_nursery() as nursery:
            for number in range(40):  # more than two connections run at the same time
                nursery.start_soon(ask, pool, f"{number}")
            await wait_all_tasks_blocked()
            assert pool.statistics().turns_waiting == 8
            gate.open()
        assert second.statistics().handshakes == 0
        assert pool.statistics().endpoint == "e1"
        assert pool.statistics().failovers == 0
        assert repr(pool) == "<ResponsesPool of 2 connections to e1>"


async def test_a_pool_opens_on_the_next_endpoint_at_once_when_the_first_rejects_the_key(
    first: ResponsesServer, second: ResponsesServer, caplog: pytest.LogCaptureFixture
) -> None:
    first.refuse(401, times=None)
    changes = Changes()
    async with open_to_all(first, second, instruments=[changes]) as pool:
        assert trio.current_time() == 0
        assert await ask(pool, "hi") == 'Turn 1: you said "hi".'
        counted = pool.statistics()
        assert [one.endpoint for one in counted.connections] == ["e2"]
        assert (counted.endpoint, counted.failovers) == ("e2", 1)
        assert repr(pool) == "<ResponsesPool of 1 connections to e2>"
    ((endpoint, when, kind),) = changes.seen
    assert (endpoint, when) == ("e2", 0)
    assert kind is not None
    assert issubclass(kind, AuthenticationError)
    assert "turns go to the endpoint e2, after" in caplog.text


async def test_an_unreachable_endpoint_is_given_up_as_the_reconnect_policy_says(
    first: ResponsesServer, second: ResponsesServer
) -> None:
    first.stop_accepting()
    changes = Changes()
    async with open_to_all(first, second, instruments=[changes]) as pool:
        assert trio.current_time() == 1 + 2 + 4 + 8 + 16
        await ask(pool, "hi")
    assert changes.seen == [("e2", 31, ReconnectFailed)]


async def test_the_error_of_the_last_endpoint_is_raised_when_all_fail(
    first: ResponsesServer, second: ResponsesServer
) -> None:
    first.refuse(403, times=None)
    second.refuse(401, times=None)
    with pytest.raises(AuthenticationError) as caught:
        async with open_to_all(first, second):
            raise AssertionError("the block must not begin")
    assert caught.value.status == 401


async def test_the_next_turn_tries_all_endpoints_again_after_all_have_failed(
    first: ResponsesServer, second: ResponsesServer
) -> None:
    async with open_to_all(first, second, reconnect=NEVER_AGAIN) as pool:
        await ask(pool, "one")
        await fail(first)
        second.refuse(401, times=1)
        with pytest.raises(AuthenticationError) as caught:
            await ask(pool, "two")
        assert caught.value.delivery is DeliveryStatus.NOT_SENT
        assert await ask(pool, "three") == 'Turn 1: you said "three".'
        assert texts(second) == ["three"]


async def test_each_endpoint_gets_its_own_key_and_headers(
    second: ResponsesServer,
) -> None:
    async with open_test_server(api_key="key-1", max_age=None) as first:
        endpoints = [
            member(1, api_key="key-1", headers={"X-Team": "one"}),
            member(2, api_key="key-2", headers={"X-Team": "two"}),
        ]
        async with open_to_all(first, second, endpoints=endpoints) as pool:
            await ask(pool, "hi")
            first.refuse(401, times=None)
            await first.close_all(4000)
            await ask(pool, "hi")
        assert first.connections[0].headers["x-team"] == "one"
        assert second.connections[0].headers["x-team"] == "two"
        assert second.connections[0].headers["authorization"] == "Bearer key-2"
        assert "key-" not in repr(endpoints)
        assert "two" not in repr(endpoints)


# --- Failing over ------------------------------------------------------------------------


async def test_a_turn_that_was_not_sent_moves_to_the_next_endpoint(
    first: ResponsesServer, second: ResponsesServer
) -> None:
    async with open_to_all(first, second) as pool:
        await fail(first)
        assert await ask(pool, "moved") == 'Turn 1: you said "moved".'
        assert trio.current_time() == 1 + 2 + 4 + 8 + 16
        assert texts(second) == ["moved"]


async def test_a_turn_that_may_have_run_is_sent_to_the_next_endpoint_only_if_that_was_chosen(
    first: ResponsesServer, second: ResponsesServer
) -> None:
    Gate(first)
    outcomes: dict[str, object] = {}

    async def try_to_ask(delivery: Any) -> None:
        try:
            outcomes[delivery] = await ask(pool, delivery, delivery=delivery)
        except ConnectionLost as lost:
            outcomes[delivery] = lost.delivery

    pools = open_to_all(first, second, reconnect=NEVER_AGAIN)
    async with pools as pool, trio.open_nursery() as nursery:
        nursery.start_soon(try_to_ask, "at_most_once")
        nursery.start_soon(try_to_ask, "at_least_once")
        await wait_all_tasks_blocked()
        await fail(first)
    assert outcomes["at_most_once"] is DeliveryStatus.AMBIGUOUS
    assert outcomes["at_least_once"] == 'Turn 1: you said "at_least_once".'
    assert texts(second) == ["at_least_once"]


@pytest.mark.parametrize("in_conversation", [False, True])
async def test_a_turn_moves_at_once_when_the_quota_of_its_endpoint_is_used_up(
    first: ResponsesServer, second: ResponsesServer, *, in_conversation: bool
) -> None:
    first.fail("insufficient_quota", status=429)
    async with open_to_all(first, second) as pool, pool.conversation(**TEXT) as conversation:
        turns = conversation if in_conversation else pool
        response = await turns.create(model="m", input="hi", max_retries=0)
        assert response.output_text == 'Turn 1: you said "hi".'
        assert trio.current_time() == 0
        assert (len(first.requests), len(second.requests)) == (1, 1)
        await ask(pool, "again")
        assert len(first.requests) == 1
        assert pool.statistics().failovers == 1


async def test_a_new_socket_does_not_return_to_an_endpoint_whose_quota_is_used_up(
    first: ResponsesServer, second: ResponsesServer
) -> None:
    """Where the endpoint says so, an error frame is a reason for a new socket."""
    first.fail("insufficient_quota", status=429)
    endpoints = [member(1, profile={"after_error": "replace"}), member(2)]
    async with open_to_all(first, second, endpoints=endpoints) as pool:
        for text in ("one", "two"):
            await ask(pool, text)
            await trio.sleep(5)
        assert first.statistics().handshakes == 2
        assert texts(second) == ["one", "two"]


async def test_a_turn_tries_each_endpoint_once(
    first: ResponsesServer, second: ResponsesServer
) -> None:
    async with open_test_server(max_age=None) as third:
        for server in (first, second, third):
            server.fail("insufficient_quota", status=429)
        async with open_to_all(first, second, third) as pool:
            with pytest.raises(RateLimitError) as caught:
                await ask(pool, "hi")
            assert caught.value.delivery is DeliveryStatus.REJECTED
        assert [len(one.requests) for one in (first, second, third)] == [1, 1, 1]


async def test_a_turn_that_has_started_is_not_repeated_when_the_quota_is_used_up(
    first: ResponsesServer, second: ResponsesServer
) -> None:
    first.fail("insufficient_quota", status=429, after_events=2)
    async with open_to_all(first, second) as pool:
        with pytest.raises(RateLimitError) as caught:
            await ask(pool, "hi")
        assert caught.value.delivery is DeliveryStatus.ACCEPTED
        assert second.requests == []
        await ask(pool, "next")
        assert texts(second) == ["next"]


@pytest.mark.parametrize("code", ["rate_limit_exceeded", "server_error", "invalid_prompt"])
async def test_an_error_of_one_turn_does_not_give_up_its_endpoint(
    first: ResponsesServer, second: ResponsesServer, code: str
) -> None:
    status = {"rate_limit_exceeded": 429, "server_error": 500}.get(code, 400)
    first.fail(code, status=status, message="No.")
    async with open_to_all(first, second) as pool:
        with pytest.raises(ResponsesError):
            await ask(pool, "hi", max_retries=0)
        await ask(pool, "on")
        assert second.statistics().handshakes == 0


# --- Returning ---------------------------------------------------------------------------


async def test_turns_return_to_the_preferred_endpoint_when_it_is_healthy(
    first: ResponsesServer, second: ResponsesServer
) -> None:
    changes = Changes()
    options: dict[str, Any] = {"instruments": [changes], "reconnect": NEVER_AGAIN}
    async with open_to_all(first, second, **options) as pool:
        await fail(first)
        await ask(pool, "one")
        await trio.sleep(40)  # attempts after 16 and 32 s
        first.accept_again()
        await ask(pool, "two")
        await trio.sleep(9)
        await ask(pool, "three")
        assert (texts(first), texts(second)) == (["three"], ["one", "two"])
        assert [one.endpoint for one in pool.statistics().connections] == ["e1"]
    assert changes.seen == [("e2", 0, ReconnectFailed), ("e1", 48, None)]


async def test_a_turn_in_progress_stays_where_it_is(
    first: ResponsesServer, second: ResponsesServer
) -> None:
    gate = Gate(second)
    answers: list[str] = []

    async def try_to_ask() -> None:
        answers.append(await ask(pool, "long"))

    async with open_to_all(first, second, reconnect=NEVER_AGAIN) as pool:
        await fail(first)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(try_to_ask)
            await wait_all_tasks_blocked()
            first.accept_again()
            await trio.sleep(17)
            await ask(pool, "new")
            assert [one.endpoint for one in pool.statistics().connections] == ["e2", "e1"]
            gate.open()
        await wait_all_tasks_blocked()
        assert answers == ["answer to long"]
        assert [one.endpoint for one in pool.statistics().connections] == ["e1"]
        assert pool.statistics().connections_ended == 2
        assert texts(first) == ["new"]


async def test_an_open_connection_to_the_next_endpoint_is_used_while_the_preferred_reconnects(
    first: ResponsesServer, second: ResponsesServer
) -> None:
    gate = Gate(second)
    async with open_to_all(first, second, reconnect=NEVER_AGAIN) as pool:
        await fail(first)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, pool, "long")
            await wait_all_tasks_blocked()
            first.accept_again()
            await trio.sleep(17)
            await fail(first)
            nursery.start_soon(ask, pool, "new")
            await wait_all_tasks_blocked()
            assert texts(second) == ["long", "new"]
            gate.open()


async def test_attempts_to_return_become_rare_while_a_quota_is_used_up(
    first: ResponsesServer, second: ResponsesServer
) -> None:
    times: list[float] = []

    def refuse(request: Request) -> Any:  # noqa: ARG001 - the signature of a responder
        times.append(trio.current_time())
        return Fail("insufficient_quota", status=429)

    first.respond_with(refuse)
    async with open_to_all(first, second) as pool:
        for _ in range(60):
            await ask(pool, "hi")
            await trio.sleep(3)
    assert times == [0, 18, 51, 117]


async def test_a_pool_returns_no_earlier_than_the_server_asks(
    first: ResponsesServer, second: ResponsesServer
) -> None:
    first.fail("insufficient_quota", status=429, headers={"retry-after": "100"})
    async with open_to_all(first, second) as pool:
        await ask(pool, "one")
        await trio.sleep(99)
        await ask(pool, "two")
        await trio.sleep(2)
        await ask(pool, "three")
        assert (len(first.requests), texts(second)) == (2, ["one", "two"])


# --- Models ------------------------------------------------------------------------------


async def test_models_have_the_names_of_their_endpoint(
    first: ResponsesServer, second: ResponsesServer
) -> None:
    endpoints = [member(1), member(2, models={"m": "deployment-m"})]
    options: dict[str, Any] = {"endpoints": endpoints, "reconnect": NEVER_AGAIN}
    async with (
        open_to_all(first, second, **options) as pool,
        pool.lane() as lane,
        pool.conversation(model="m", store=False, temperature=0.5) as conversation,
    ):
        await conversation.create("one")
        await lane.create(model="m", input="two")
        await fail(first)
        with pytest.raises(ReconnectFailed):
            await lane.create(model="m", input="a lane stays")
        await ask(pool, "three", metadata={"model": "m"})
        await pool.create(model="other", input="four")
        await conversation.create("five")
        await conversation.create("six")
        assert conversation.statistics().delta_turns == 1
    assert [one["model"] for one in first.requests] == ["m", "m"]
    assert [one["model"] for one in second.requests] == [
        "deployment-m",
        "other",
        "deployment-m",
        "deployment-m",
    ]
    assert second.requests[0]["metadata"] == {"model": "m"}
    assert second.requests[2]["temperature"] == 0.5


# --- Conversations -----------------------------------------------------------------------


async def test_a_conversation_moves_to_the_next_endpoint_with_its_whole_history(
    first: ResponsesServer, second: ResponsesServer
) -> None:
    first.reply("Hello, Ada.", reasoning="A name.")
    async with (
        open_to_all(first, second, reconnect=NEVER_AGAIN) as pool,
        pool.conversation(**TEXT) as conversation,
    ):
        await conversation.create("I am Ada.")
        await fail(first)
        await conversation.create("Who am I?")
        request = second.requests[0]
        assert "previous_response_id" not in request.body
        kinds = [(one["type"], one.get("role")) for one in request.input_items]
        assert kinds == [("message", "user"), ("message", "assistant"), ("message", "user")]
        assert all("id" not in one for one in request.input_items)
        assert any(item["type"] == "reasoning" for item in map(_json, conversation.raw_items))


async def test_a_conversation_returns_with_the_reasoning_of_the_endpoint(
    first: ResponsesServer, second: ResponsesServer
) -> None:
    first.reply("one", reasoning="first thought")
    second.reply("two", reasoning="second thought")
    async with (
        open_to_all(first, second, reconnect=NEVER_AGAIN) as pool,
        pool.conversation(**TEXT) as conversation,
    ):
        own = (await conversation.create("1")).raw_output
        assert own is not None
        await fail(first)
        await conversation.create("2")
        first.accept_again()
        await trio.sleep(17)
        await conversation.create("3")
        items = first.requests[-1].input_items
        kinds = [one["type"] for one in items]
        assert kinds == ["message", "reasoning", "message", "message", "message", "message"]
        assert [items[1], items[2]] == [_json(raw) for raw in own]
        assert "id" not in items[4]


async def test_a_policy_can_keep_encrypted_items_for_endpoints_of_one_account(
    first: ResponsesServer, second: ResponsesServer
) -> None:
    first.reply("one", reasoning="a thought")
    async with (
        open_to_all(first, second, reconnect=NEVER_AGAIN) as pool,
        pool.conversation(**TEXT) as conversation,
    ):
        conversation.replay_policy = ReplayPolicy(reasoning="keep")
        await conversation.create("1")
        await fail(first)
        items = await _input_of_next(conversation, second)
        assert [one["type"] for one in items] == ["message", "reasoning", "message", "message"]


async def _input_of_next(conversation: Any, server: ResponsesServer) -> list[dict[str, Any]]:
    await conversation.create("next")
    return server.requests[-1].input_items


def _json(raw: Any) -> Any:
    return msgspec.json.decode(raw)


async def test_a_stored_response_of_another_endpoint_is_not_referred_to(
    first: ResponsesServer, second: ResponsesServer
) -> None:
    async with (
        open_to_all(first, second, reconnect=NEVER_AGAIN) as pool,
        pool.conversation(model="m", store=True) as conversation,
    ):
        await conversation.create("one")
        await fail(first)
        await conversation.create("two")
        assert "previous_response_id" not in second.requests[0].body
        saved = conversation.checkpoint()
        first.accept_again()
        await trio.sleep(17)
        async with pool.restore_conversation(saved) as restored:
            await restored.create("three")
        assert "previous_response_id" not in first.requests[-1].body
        assert len(first.requests[-1].input_items) == 5


async def test_a_conversation_that_waits_for_its_socket_moves_when_its_endpoint_is_given_up(
    first: ResponsesServer, second: ResponsesServer
) -> None:
    async with (
        open_to_all(first, second, size=2) as pool,
        pool.conversation(**TEXT) as conversation,
    ):
        await conversation.create("one")
        await fail(first)
        response = await conversation.create("two")
        assert response.output_text == 'Turn 2: you said "two".'
        assert trio.current_time() == 1 + 2 + 4 + 8 + 16
        assert len(second.requests[0].input_items) == 3


async def test_a_run_goes_on_at_the_next_endpoint_and_calls_each_tool_once(
    first: ResponsesServer, second: ResponsesServer
) -> None:
    calls: list[str] = []

    @function_tool
    async def weather(city: str) -> str:
        """Return the weather."""
        calls.append(city)
        await fail(first)
        return "warm"

    first.call("weather", {"city": "Oslo"})
    async with (
        open_to_all(first, second, reconnect=NEVER_AGAIN) as pool,
        pool.conversation(**TEXT) as conversation,
    ):
        await conversation.run("Is it warm in Oslo?", tools=[weather])
        assert calls == ["Oslo"]
        kinds = [one["type"] for one in second.requests[0].input_items]
        assert kinds == ["message", "function_call", "function_call_output"]
        assert "id" not in second.requests[0].input_items[1]


async def test_forks_move_as_well(first: ResponsesServer, second: ResponsesServer) -> None:
    async with (
        open_to_all(first, second, reconnect=NEVER_AGAIN) as pool,
        pool.conversation(**TEXT) as conversation,
    ):
        await conversation.create("one")
        fork = await conversation.fork()
        await fail(first)
        await fork.create("left")
        await conversation.create("right")
        late = await conversation.fork()
        await late.create("late")
        assert [len(one.input_items) for one in second.requests] == [3, 3, 1]
        loads = pool.statistics().connections
        assert [one.endpoint for one in loads] == ["e2"]


async def test_a_conversation_stays_while_a_steering_input_waits_for_its_next_turn(
    first: ResponsesServer, second: ResponsesServer
) -> None:
    second.calls(Call("weather", {"city": "Oslo"}))
    tool = {"type": "function", "name": "weather", "parameters": {"type": "object"}}
    async with (
        open_to_all(first, second, reconnect=NEVER_AGAIN) as pool,
        pool.conversation(**TEXT, tools=[tool]) as conversation,
    ):
        await fail(first)
        async with conversation.stream("Is it warm?") as stream:
            receipt = await stream.steer("In degrees.")
            response = await stream.get_final_response()
        assert receipt.state == "pending"
        first.accept_again()
        await trio.sleep(17)
        call = response.output[0]
        assert isinstance(call, FunctionCall)
        await conversation.create([FunctionCallOutput(call_id=call.call_id, output="5")])
        assert first.requests == []
        assert receipt.state == "committed"
        await conversation.create("Thanks.")
        assert len(first.requests) == 1


async def test_the_lane_of_a_conversation_that_has_moved_is_free_again(
    first: ResponsesServer, second: ResponsesServer
) -> None:
    gate = Gate(second)
    async with open_to_all(first, second, reconnect=NEVER_AGAIN, per_connection=100) as pool:
        await fail(first)
        async with pool.conversation(**TEXT) as conversation, trio.open_nursery() as nursery:
            nursery.start_soon(ask, pool, "keeps the connection open")
            await wait_all_tasks_blocked()
            first.accept_again()
            await trio.sleep(17)
            await conversation.create("moves")
            (old,) = (one for one in pool.connections if one.statistics().endpoint == "e2")
            async with old.lane("lane-32"):
                gate.open()


# --- Single turns that continue a response ---------------------------------------------------


async def test_a_turn_that_continues_a_response_of_an_endpoint_not_in_use_is_not_sent(
    first: ResponsesServer, second: ResponsesServer
) -> None:
    async with open_to_all(first, second, reconnect=NEVER_AGAIN) as pool:
        await ask(pool, "zero")  # both servers count their responses from 1
        stored = await pool.create(model="m", input="one", store=True)
        await fail(first)
        await ask(pool, "elsewhere")
        with pytest.raises(PreviousResponseNotFound, match="endpoint e1") as caught:
            await ask(pool, "two", previous_response_id=stored.id)
        assert caught.value.delivery is DeliveryStatus.NOT_SENT
        first.accept_again()
        await trio.sleep(17)
        await ask(pool, "three", previous_response_id=stored.id)
        assert (texts(first), texts(second)) == (["zero", "one", "three"], ["elsewhere"])


async def test_a_waiting_turn_fails_when_the_endpoint_of_its_response_is_given_up(
    first: ResponsesServer, second: ResponsesServer
) -> None:
    async with open_to_all(first, second) as pool:
        stored = await pool.create(model="m", input="one", store=True)
        await fail(first)
        with pytest.raises(PreviousResponseNotFound):
            await ask(pool, "two", previous_response_id=stored.id)
        assert trio.current_time() == 31
        assert second.requests == []


async def test_a_turn_that_continues_a_response_does_not_move_after_a_refusal(
    first: ResponsesServer, second: ResponsesServer
) -> None:
    async with open_to_all(first, second) as pool:
        stored = await pool.create(model="m", input="one", store=True)
        first.fail("insufficient_quota", status=429)
        with pytest.raises(RateLimitError):
            await ask(pool, "two", previous_response_id=stored.id)
        assert second.requests == []


# --- HTTP --------------------------------------------------------------------------------


def over_http(number: int, **options: Any) -> PoolEndpoint:
    return member(number, profile={"transport": "http", "lanes": False}, **options)


def open_over_http(
    peer: HTTPPeer, server: ResponsesServer, **options: Any
) -> AbstractAsyncContextManager[ResponsesPool]:
    """Open a pool to a server that speaks HTTP, and one that speaks WebSocket."""
    settings: dict[str, Any] = {
        "endpoints": [over_http(1), member(2)],
        "dial": dial_by_port(peer.dial, server.dial),
        "reconnect": NEVER_AGAIN,
        **options,
    }
    return open_pool(**settings)


async def test_a_connection_over_http_runs_many_turns_at_the_same_time(
    second: ResponsesServer,
) -> None:
    async def script(exchange: Any) -> None:
        await trio.sleep(1)
        await exchange.answer()

    limits = Limits(http_connections=30)
    async with open_peer(script) as peer, open_over_http(peer, second, limits=limits) as pool:
        async with trio.open_nursery() as nursery:
            for _ in range(15):
                nursery.start_soon(ask, pool, "hi")
            await wait_all_tasks_blocked()
            assert len(pool.connections) == 1
        assert trio.current_time() == 1
        async with trio.open_nursery() as nursery:
            for _ in range(31):
                nursery.start_soon(ask, pool, "hi")
            await wait_all_tasks_blocked()
            assert len(pool.connections) == 3
        assert trio.current_time() == 2
        assert [one.transport for one in pool.statistics().connections] == ["http"] * 3


async def test_a_turn_moves_from_http_to_a_websocket_and_back(second: ResponsesServer) -> None:
    async with open_peer() as peer:
        up = True

        async def dial(host: str, port: int) -> Any:
            if not up:
                await trio.lowlevel.checkpoint()
                raise OSError("down")
            return await peer.dial(host, port)

        dials = dial_by_port(dial, second.dial)
        async with open_over_http(peer, second, dial=dials) as pool:
            await ask(pool, "one")
            up = False
            peer.close_all()
            await ask(pool, "two")
            await ask(pool, "three")
            await trio.sleep(40)
            assert pool.statistics().endpoint == "e2"
            up = True
            await trio.sleep(9)
            assert pool.statistics().endpoint == "e1"
            await ask(pool, "four")
            assert texts(second) == ["two", "three"]


async def test_a_rejected_key_over_http_gives_up_the_endpoint(second: ResponsesServer) -> None:
    async def script(exchange: Any) -> None:
        await exchange.send(whole(401, error("No such key.", "invalid_api_key")))

    async with open_peer(script) as peer, open_over_http(peer, second) as pool:
        assert await ask(pool, "hi") == 'Turn 1: you said "hi".'
        assert pool.statistics().endpoint == "e2"
        assert len(peer.requests) == 1


async def test_calls_about_a_response_go_to_its_endpoint_with_the_names_of_models() -> None:
    asked: list[str] = []

    async def script(exchange: Exchange) -> None:
        asked.append(exchange.request.method)
        if exchange.request.target.endswith("/input_tokens"):
            await exchange.send(whole(200, {"object": "n", "input_tokens": 3}))
        elif exchange.request.method == "GET":
            await exchange.send(whole(200, response(response_id="resp_1")))
        elif len(asked) > 2:
            await exchange.send(whole(401, error("No such key.", "invalid_api_key")))
        else:
            await exchange.answer()

    async def answer(exchange: Exchange) -> None:
        await exchange.answer(response_id="resp_2")

    async with open_peer(script) as main, open_peer(answer) as spare:
        async with open_pool(
            endpoints=[over_http(1, models={"m": "own"}), over_http(2)],
            dial=dial_by_port(main.dial, spare.dial),
        ) as pool:
            made = await pool.create(model="m", input="hi")
            assert await pool.responses.input_tokens("hi", model="m") == 3
            await pool.create(model="m", input="moves")
            assert pool.statistics().endpoint == "e2"
            assert (await pool.responses.retrieve(made.id)).id == made.id
        assert asked == ["POST", "POST", "POST", "GET"]
        assert [one.json["model"] for one in main.requests[:2]] == ["own", "own"]
        assert [one.json["model"] for one in spare.requests] == ["m"]


# --- Options -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"endpoints": []}, "endpoints is empty"),
        ({"endpoints": 3}, "must be a list of PoolEndpoint objects, not int"),
        ({"endpoints": ["https://a/v1"]}, "list of PoolEndpoint objects, not of str"),
        ({"endpoints": [member(1), member(1)]}, "two endpoints of the pool have the name 'e1'"),
        ({"endpoints": [member(1)], "base_url": "https://a/v1"}, "base_url or endpoints"),
        ({"endpoints": [member(1)], "endpoint": Endpoint.openai()}, "endpoint or endpoints"),
        ({"endpoints": [member(1)], "api_key": "k"}, "api_key or endpoints"),
        ({"endpoints": [member(1)], "headers": {"X-A": "b"}}, "headers or endpoints"),
    ],
)
async def test_invalid_endpoints_are_refused_when_the_pool_is_opened(
    options: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigurationError, match=words):
        async with open_pool(**options):
            raise AssertionError("the block must not begin")


async def test_the_options_of_all_endpoints_are_checked_when_the_pool_is_opened(
    first: ResponsesServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AZURE_OPENAI_API_KEY", raising=False)
    endpoints = [member(1), PoolEndpoint(endpoint=Endpoint.azure("contoso"))]
    with pytest.raises(ConfigurationError, match="AZURE_OPENAI_API_KEY"):
        async with open_to_all(first, endpoints=endpoints):
            raise AssertionError("the block must not begin")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"endpoint": "https://a/v1"}, "must be an Endpoint, not str"),
        ({"models": "m"}, "must be a mapping of model names, not 'm'"),
        ({"models": {"m": 3}}, "is no text: 3"),
        ({"name": ""}, "is no text: ''"),
        ({"headers": {"Host": "a"}}, "header 'Host' is set by the handshake"),
    ],
)
def test_an_invalid_endpoint_of_a_pool_is_refused(options: dict[str, Any], words: str) -> None:
    settings: dict[str, Any] = {"endpoint": Endpoint.of("https://a/v1"), **options}
    with pytest.raises(ConfigurationError, match=words):
        PoolEndpoint(**settings)


async def test_the_names_of_endpoints_are_their_addresses_with_a_number_if_they_repeat(
    first: ResponsesServer, second: ResponsesServer
) -> None:
    endpoints = [
        PoolEndpoint(endpoint=Endpoint.compatible("http://127.0.0.1:1/v1?key=secret"), api_key=key)
        for key in ("one", "two")
    ]
    first.refuse(401)
    async with open_to_all(first, second, endpoints=endpoints) as pool:
        assert pool.statistics().endpoint == "127.0.0.1:1/v1/responses#2"
        assert "secret" not in repr(pool)
