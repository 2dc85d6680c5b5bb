"""Over HTTP: conversations, runs with tools, the raw channel, steering, records, and secrets."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from tests.connection.test_http_losses import failure
from tests.transport.http_peer import (
    CHUNKED,
    END,
    Cut,
    Exchange,
    chunk,
    connect_http,
    error,
    events_of,
    open_peer,
    reply,
    response,
    scripts,
    sse,
    texts,
    whole,
)
from tests.transport.peer import KEY
from trio_responses import (
    APIError,
    ConfigurationError,
    ConnectionClosed,
    ConnectionLost,
    Instrument,
    Limits,
    PreviousResponseNotFound,
    UnsupportedByTransport,
    function_tool,
    open_pool,
)
from trio_responses.types import ErrorEvent, ResponseCreate, ResponseSteer

if TYPE_CHECKING:
    from collections.abc import Callable

    from trio_responses.types import ServerEvent


def answer_in_turn() -> Callable[[Exchange], Any]:
    """Return a script whose n-th answer is ``answer n``, of the Response ``resp_n``."""
    count = 0

    async def script(exchange: Exchange) -> None:
        nonlocal count
        count += 1
        await exchange.answer(f"answer {count}", f"resp_{count}")

    return script


# --- Conversations -----------------------------------------------------------------------


async def test_a_conversation_sends_its_whole_history() -> None:
    """The cache of a WebSocket does not exist: no turn refers to the response before it."""
    async with open_peer(answer_in_turn()) as peer, connect_http(peer) as connection:
        async with connection.conversation(model="m", store=False) as conversation:
            for number in range(3):
                assert (await conversation.create(f"q{number}")).id == f"resp_{number + 1}"
        assert ["previous_response_id" in one.json for one in peer.requests] == [False] * 3
        assert [len(one.json["input"]) for one in peer.requests[1:]] == [3, 5]
        shown = str(peer.requests[2].json["input"])
        assert all(text in shown for text in ("q0", "answer 1", "q1", "answer 2", "q2"))


async def test_a_stored_conversation_refers_to_the_response_before() -> None:
    async with open_peer(answer_in_turn()) as peer, connect_http(peer) as connection:
        async with connection.conversation(model="m", store=True) as conversation:
            for number in range(3):
                await conversation.create(f"q{number}")
        parents = [one.json.get("previous_response_id") for one in peer.requests]
        assert parents == [None, "resp_1", "resp_2"]
        assert "q0" not in str(peer.requests[2].json["input"])


GONE = {
    "OpenAI": whole(400, error("Not found.", "previous_response_not_found")),
    "agentic-api": whole(
        404, error("storage error: not found: Response with id 'resp_1'", "not_found")
    ),
    "vLLM": whole(404, error("Response with id 'resp_1' not found.", "404")),
    "litellm": whole(
        400, error('OpenAIException - {"code": "previous_response_not_found"}', "400")
    ),
}
"""How servers and gateways say that they do not have the response before."""


@pytest.mark.parametrize("gone", GONE.values(), ids=GONE)
async def test_a_stored_response_that_is_gone_is_replaced_by_the_history(gone: bytes) -> None:
    script = answer_in_turn()

    async def forget(exchange: Exchange) -> None:
        if "previous_response_id" in exchange.request.json:
            await exchange.send(gone)
        else:
            await script(exchange)

    async with open_peer(forget) as peer, connect_http(peer) as connection:
        async with connection.conversation(model="m", store=True) as conversation:
            await conversation.create("q0")
            assert (await conversation.create("q1")).output_text == "answer 2"
        assert len(peer.requests) == 3
        assert "q0" in str(peer.requests[2].json["input"])


@pytest.mark.parametrize(
    "answer",
    [
        whole(404, error("The model m does not exist.", "model_not_found")),
        whole(400, error("resp_1 is too long.", "context_length_exceeded")),
    ],
    ids=["another 404", "another status"],
)
async def test_another_refusal_does_not_send_the_history(answer: bytes) -> None:
    script = answer_in_turn()
    async with open_peer(script) as peer, connect_http(peer) as connection:
        async with connection.conversation(model="m", store=True) as conversation:
            await conversation.create("q0")
            peer.script = reply(answer)
            with pytest.raises(APIError) as caught:
                await conversation.create("q1")
        assert not isinstance(caught.value, PreviousResponseNotFound)
        assert len(peer.requests) == 2


async def test_a_conversation_goes_on_after_a_cut() -> None:
    script = answer_in_turn()
    cut = reply(CHUNKED, chunk(sse(events_of("lost", "resp_x")[0])), then=Cut)
    async with open_peer(script) as peer, connect_http(peer) as connection:
        async with connection.conversation(model="m", store=False) as conversation:
            await conversation.create("q0")
            peer.script = cut
            with pytest.raises(ConnectionLost):
                await conversation.create("lost")
            peer.script = script
            assert (await conversation.create("q1")).output_text == "answer 2"
        shown = str(peer.requests[-1].json["input"])
        assert "q0" in shown
        assert "lost" not in shown


async def test_forks_run_side_by_side() -> None:
    async def script(exchange: Exchange) -> None:
        await trio.sleep(1)
        await exchange.answer()

    async with open_peer(script) as peer, connect_http(peer) as connection:
        async with connection.conversation(model="m", store=False) as conversation:
            await conversation.create("root")
            one, other = await conversation.fork(), await conversation.fork()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(one.create, "a")
                nursery.start_soon(other.create, "b")
            assert trio.current_time() == 2
        assert all("root" in str(one.json["input"]) for one in peer.requests)


async def test_more_conversations_than_lanes_run_at_once() -> None:
    async def script(exchange: Exchange) -> None:
        await trio.sleep(1)
        await exchange.answer()

    async with open_peer(script) as peer, connect_http(peer) as connection:

        async def talk() -> None:
            async with connection.conversation(model="m", store=False) as conversation:
                await conversation.create("hi")
                await conversation.create("again")

        async with trio.open_nursery() as nursery:
            for _ in range(60):
                nursery.start_soon(talk)
        assert trio.current_time() == 2
        assert len(peer.requests) == 120


@function_tool
async def add(a: int, b: int) -> int:
    """Add two numbers."""
    await trio.sleep(0.5)
    return a + b


def call(call_id: str, arguments: str) -> dict[str, Any]:
    return {
        "type": "function_call",
        "id": f"fc_{call_id}",
        "call_id": call_id,
        "name": "add",
        "arguments": arguments,
    }


async def test_a_run_calls_tools() -> None:
    calls = [call("c1", '{"a":1,"b":2}'), call("c2", '{"a":3,"b":4}')]
    first = {"type": "response.completed", "response": response(output=calls)}
    created = events_of()[0]
    script = scripts(reply(CHUNKED, chunk(sse(created, first)), END), Exchange.answer)
    async with open_peer(script) as peer, connect_http(peer) as connection:
        async with connection.conversation(model="m", tools=[add], store=False) as conversation:
            assert (await conversation.run("add")).output_text == "ok"
        assert trio.current_time() == 0.5
        items = peer.requests[1].json["input"]
        outputs = {one["call_id"]: one["output"] for one in items if "output" in one}
        assert outputs == {"c1": "3", "c2": "7"}
        assert peer.requests[0].json["tools"][0]["name"] == "add"


async def test_a_run_works_with_whole_responses() -> None:
    """A server that does not stream: its calls are answered as well."""
    first = reply(whole(200, response(output=[call("c1", '{"a":1,"b":2}')])))
    script = scripts(first, reply(whole(200, response("three"))))
    async with (
        open_peer(script) as peer,
        connect_http(peer) as connection,
        connection.conversation(model="m", tools=[add], store=False) as conversation,
    ):
        assert (await conversation.run("add")).output_text == "three"


# --- The raw channel ---------------------------------------------------------------------


async def receive(connection: Any, count: int) -> list[ServerEvent]:
    return [await connection.receive() for _ in range(count)]


async def test_a_raw_request_is_answered_on_the_channel() -> None:
    async with open_peer() as peer, connect_http(peer) as connection:
        command = ResponseCreate(model="m", input="hi", stream_id="mine")
        await connection.send(command)
        events = await receive(connection, 4)
        assert texts(events) == [event["type"] for event in events_of()]
        assert peer.requests[0].json == {"stream": True, "model": "m", "input": "hi"}
        await trio.testing.wait_all_tasks_blocked()
        assert connection.statistics().requests_active == 0


async def test_a_raw_mapping_is_sent_without_the_fields_of_a_websocket() -> None:
    async with open_peer() as peer, connect_http(peer) as connection:
        await connection.send(
            {
                "type": "response.create",
                "model": "m",
                "stream": False,
                "generate": True,
                "stream_id": "x",
                "my_field": {"stream": 1},
            }
        )
        await receive(connection, 4)
        [request] = peer.requests
        assert request.json == {"stream": True, "model": "m", "my_field": {"stream": 1}}


async def test_raw_requests_run_at_once() -> None:
    async def script(exchange: Exchange) -> None:
        await trio.sleep(1)
        await exchange.answer()

    limits = Limits(http_connections=2)
    async with open_peer(script) as peer, connect_http(peer, limits=limits) as connection:
        for _ in range(3):
            await connection.send({"type": "response.create", "model": "m"})
        await receive(connection, 12)
        assert trio.current_time() == 2


async def test_the_error_of_a_raw_request_comes_on_the_channel() -> None:
    async with open_peer(reply(whole(404, error("No model.")))) as peer, connect_http(peer) as c:
        await c.send({"type": "response.create", "model": "m"})
        event = await c.receive()
        assert isinstance(event, ErrorEvent)
        assert (event.status, event.message) == (404, "No model.")


async def test_the_loss_of_a_raw_request_comes_on_the_channel() -> None:
    script = reply(CHUNKED, chunk(sse(events_of()[0])), then=Cut)
    async with open_peer(script) as peer, connect_http(peer) as connection:
        await connection.send({"type": "response.create", "model": "m"})
        created, lost = [await connection.receive() for _ in range(2)]
        assert created.type == "response.created"
        assert isinstance(lost, ConnectionLost)


async def test_the_loss_of_a_turn_does_not_come_on_the_channel() -> None:
    script = scripts(reply(CHUNKED, then=Cut), Exchange.answer)
    async with open_peer(script) as peer, connect_http(peer) as connection:
        connection._engine.router.channel_in_use = True  # as after an earlier raw request
        await failure(connection)
        with trio.move_on_after(1) as scope:
            await connection.receive()
        assert scope.cancelled_caught


@pytest.mark.parametrize(
    "command",
    [
        ResponseSteer(previous_response_id="resp_1", input="stop"),
        {"type": "response.cancel", "response_id": "resp_1"},
        {"type": "response.create", "model": "m", "generate": False},
        ResponseCreate(model="m", generate=False),
    ],
)
async def test_commands_that_http_lacks_are_refused(command: Any) -> None:
    async with open_peer() as peer, connect_http(peer) as connection:
        with pytest.raises(UnsupportedByTransport, match="WebSocket") as caught:
            await connection.send(command)
        assert caught.value.delivery == "not_sent"
        assert peer.dials == []
        assert (await connection.create(model="m", input="hi")).output_text == "ok"
        assert connection.statistics().requests_active == 0


# --- What HTTP lacks ---------------------------------------------------------------------


async def test_a_warm_up_is_refused() -> None:
    async with open_peer() as peer, connect_http(peer) as connection:
        with pytest.raises(UnsupportedByTransport, match="warm_up"):
            await connection.warm_up(model="m")
        async with connection.conversation(model="m", store=False) as conversation:
            with pytest.raises(UnsupportedByTransport, match="warm_up"):
                await conversation.warm_up()
        assert peer.dials == []
        assert (await connection.create(model="m", input="hi")).output_text == "ok"


async def test_steering_fails_with_a_code() -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.send(CHUNKED)
        await exchange.events(*events_of("a b"), every=1)
        await exchange.send(END)

    async with open_peer(script) as peer, connect_http(peer) as connection:
        async with connection.stream(model="m", input="hi") as stream:
            await stream.__anext__()
            receipt = await stream.steer("stop")
            assert await receipt.wait_acknowledged() == "failed"
            assert receipt.error is not None
            assert receipt.error.code == "unsupported_by_transport"
            await stream.get_final_response()
        assert stream.response.output_text == "a b"


# --- Pools -------------------------------------------------------------------------------


async def test_a_pool_works_over_http() -> None:
    async def script(exchange: Exchange) -> None:
        await trio.sleep(1)
        await exchange.answer()

    async with (
        open_peer(script) as peer,
        open_pool("http://127.0.0.1/v1", api_key=KEY, dial=peer.dial, transport="http") as pool,
    ):
        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(lambda: pool.create(model="m", input="hi"))
        assert trio.current_time() == 1
        assert pool.statistics().http_requests == 20


# --- Instruments and secrets -------------------------------------------------------------


class Records(Instrument):
    """An instrument that keeps the names of its calls."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.frames: list[bytes] = []

    def turn_started(self, turn: Any) -> None:  # noqa: ARG002 - the interface of Instrument
        self.calls.append("started")

    def frame_sent(self, socket: Any, payload: bytes) -> None:
        assert socket.transport == "http"
        self.frames.append(payload)

    def frames_received(self, socket: Any, batch: Any) -> None:
        assert socket.transport == "http"
        self.frames += batch

    def socket_opened(self, socket: Any) -> None:  # noqa: ARG002 - the interface of Instrument
        self.calls.append("socket")

    def connection_ended(self, error: Exception) -> None:
        assert isinstance(error, ConnectionClosed)
        self.calls.append("ended")


async def test_instruments_get_frames_and_no_sockets() -> None:
    records = Records()
    async with open_peer() as peer, connect_http(peer, instruments=[records]) as connection:
        await connection.create(model="m", input="hi")
    assert "socket" not in records.calls
    assert records.calls[-1] == "ended"
    assert records.frames[0].startswith(b'{"type":"response.create"')
    assert len(records.frames) == 5


async def test_no_secret_is_in_a_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    script = scripts(
        reply(whole(401, error("Incorrect key."))),
        reply(CHUNKED, then=Cut),
        Exchange.answer,
    )
    async with open_peer(script) as peer, connect_http(peer) as connection:
        await failure(connection)
        await failure(connection)
        await connection.create(model="m", input="my private question")
        assert KEY not in repr(connection)
    shown = "\n".join(record.getMessage() for record in caplog.records)
    assert KEY not in shown
    assert "my private question" not in shown


async def test_an_unencrypted_url_to_another_machine_is_refused() -> None:
    async with open_peer() as peer:
        with pytest.raises(ConfigurationError, match="allow_insecure"):
            async with connect_http(peer, base_url="http://example.test/v1"):
                pass
