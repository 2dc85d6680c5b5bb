"""The features of the connection manager that this library replaces: each has its counterpart.

Named in the order of the seed file: what it offers there, and what stands for it here.
"""

from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from trio_responses import (
    ConnectionClosed,
    ConnectionLost,
    ConnectionRestored,
    ConnectionState,
    Endpoint,
    ReconnectFailed,
    ReconnectPolicy,
    ResponsesConnection,
    connect_responses,
    open_responses,
)
from trio_responses._wire import FunctionToolParam
from trio_responses.testing import ResponsesServer
from trio_responses.types import (
    ErrorEvent,
    FunctionCall,
    FunctionCallOutput,
    OutputTextDelta,
    ResponseCompleted,
    ResponseCreate,
    ResponseCreated,
    ResponseInject,
)

if TYPE_CHECKING:
    from tests.connection.conftest import Connect, Dialler
    from trio_responses._lifecycle import Event


async def test_auto_reconnect_with_the_same_five_delays(
    server: ResponsesServer, connect: "Connect", dialler: "Dialler"
) -> None:
    """``MAX_RETRIES``, ``BACKOFF_DELAYS_MS``: 1, 2, 4, 8, 16 seconds."""
    async with connect(dial=dialler) as connection:
        server.refuse(500, times=4)
        await server.reset_all()
        response = await connection.create(model="m", input="hi")
        assert response.status == "completed"
    assert dialler.times == [0, 1, 3, 7, 15, 31]


async def test_max_retries_is_an_option(
    server: ResponsesServer, connect: "Connect", dialler: "Dialler"
) -> None:
    """``options.maxRetries``: `ReconnectPolicy.attempts`."""
    server.stop_accepting()
    with pytest.raises(ReconnectFailed):
        async with connect(dial=dialler, reconnect=ReconnectPolicy(attempts=2, jitter=0)):
            pytest.fail("the block began")  # pragma: no cover
    assert dialler.times == [0, 1, 3]


async def test_backoff_delays_are_an_option(
    server: ResponsesServer, connect: "Connect", dialler: "Dialler"
) -> None:
    """``options.backoffDelaysMs``: ``reconnect=`` any iterable, in seconds."""
    server.refuse(500, times=2)
    async with connect(dial=dialler, reconnect=[0.25, 0.5]):
        assert dialler.times == [0, 0.25, 0.75]


async def test_the_url_is_an_option(server: ResponsesServer, connect: "Connect") -> None:
    """``options.url``: the base URL or the WebSocket's own."""
    for url in (server.url, server.websocket_url):
        async with connect(url=url) as connection:
            await connection.create(model="m", input="hi")
    assert {connection.path for connection in server.connections} == {"/v1/responses"}


def test_the_default_url_is_openais(monkeypatch: pytest.MonkeyPatch) -> None:
    """``OPENAI_WS_URL``."""
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    assert Endpoint.of(None).url == "wss://api.openai.com/v1/responses"


async def test_connect_with_a_key_resolves_when_the_socket_is_open(server: ResponsesServer) -> None:
    """``connect(apiKey)``: both openers, and the key as a Bearer token."""
    async with open_responses(server.url, api_key="sk-1", dial=server.dial) as connection:
        assert connection.state is ConnectionState.OPEN
    async with trio.open_nursery() as nursery:
        connection = await connect_responses(nursery, server.url, api_key="sk-2", dial=server.dial)
        assert connection.state is ConnectionState.OPEN
        await connection.aclose()
    headers = [connection.headers["authorization"] for connection in server.connections]
    assert headers == ["Bearer sk-1", "Bearer sk-2"]


async def test_connect_rejects_after_the_last_retry(
    server: ResponsesServer, connect: "Connect"
) -> None:
    """``connect()``'s promise, which the seed did not keep."""
    server.stop_accepting()
    with pytest.raises(ReconnectFailed) as failure:
        async with connect():
            pytest.fail("the block began")  # pragma: no cover
    assert failure.value.attempts == 5
    assert trio.current_time() == 31


async def test_send_takes_injected_outputs(connect: "Connect") -> None:
    """Which the test server does not know: its answer shows what it received."""
    command = ResponseInject(
        response_id="resp_1",
        input=[FunctionCallOutput(call_id="c", output="x")],
    )
    async with connect() as connection:
        await connection.send(command)
        event = await connection.receive()
    assert isinstance(event, ErrorEvent)
    assert "response.inject" in event.message


async def test_send_takes_typed_events(server: ResponsesServer, connect: "Connect") -> None:
    """``send(event)``: with every field of the seed's ``ResponseCreateEvent``, and others."""
    command = ResponseCreate(
        model="m",
        store=False,
        input=[{"type": "message", "role": "user", "content": "hi"}],
        instructions="be brief",
        tools=[FunctionToolParam(name="f", parameters={"type": "object"}, strict=True)],
        tool_choice="auto",
        context_management=[{"type": "compaction", "compact_threshold": 1000}],
        max_output_tokens=100,
        temperature=0.5,
        top_p=0.9,
        metadata={"a": "b"},
        reasoning={"effort": "low", "summary": "auto"},
        truncation="disabled",
        extra={"client_metadata": {"a": "b"}},
    )
    async with connect() as connection:
        await connection.send(command)
        assert isinstance(await connection.receive(), ResponseCreated)
    body = server.requests[0].body
    assert body["type"] == "response.create"
    assert (body["store"], body["temperature"]) == (False, 0.5)
    assert body["client_metadata"] == {"a": "b"}
    assert set(body) - {"type", "client_metadata"} == {
        "model",
        "store",
        "input",
        "instructions",
        "tools",
        "tool_choice",
        "context_management",
        "max_output_tokens",
        "temperature",
        "top_p",
        "metadata",
        "reasoning",
        "truncation",
    }


async def test_on_message_gives_every_event_typed(
    server: ResponsesServer, connect: "Connect"
) -> None:
    """``onMessage(handler)``: iteration over the connection."""
    server.reply("one two")
    texts: list[str] = []
    async with connect() as connection:
        await connection.send(ResponseCreate(model="m", input="hi"))
        async for event in connection:
            match event:
                case OutputTextDelta(delta=text):
                    texts.append(text)
                case ResponseCompleted(response=response):
                    assert response.output_text == "one two"
                    break
                case _:
                    pass
    assert texts == ["one", " two"]


async def test_unsubscribing_is_leaving_the_loop(connect: "Connect") -> None:
    """The function that ``onMessage`` returns: ``break``; what comes later waits."""
    async with connect() as connection:
        await connection.send(ResponseCreate(model="m", input="hi"))
        async for event in connection:
            assert isinstance(event, ResponseCreated)
            break
        await wait_all_tasks_blocked()
        assert connection.statistics().unread_bytes > 0
        later = await connection.receive()
        assert later.type == "response.in_progress"


async def test_is_connected_is_a_state(server: ResponsesServer, connect: "Connect") -> None:
    """``isConnected()``: ``connection.state``, which knows more words."""
    async with connect() as connection:
        assert connection.state is ConnectionState.OPEN
        await server.reset_all()
        await wait_all_tasks_blocked()
        assert connection.state is not ConnectionState.OPEN
    assert connection.state is ConnectionState.CLOSED


async def test_close_is_permanent_and_normal(server: ResponsesServer, connect: "Connect") -> None:
    """``close()``: code 1000, no reconnect after it, and no send."""
    async with connect() as connection:
        await connection.aclose()
        await trio.sleep(1000)
        with pytest.raises(ConnectionClosed):
            await connection.send(ResponseCreate(model="m", input="hi"))
    assert server.statistics().handshakes == 1
    assert server.connections[0].close_code == 1000


async def test_open_and_close_and_error_are_events_in_their_place(
    server: ResponsesServer, connect: "Connect"
) -> None:
    """The emitter's ``open``, ``close`` and ``error``: on the channel, and the last exception."""
    events: list[Event] = []
    async with connect(reconnect=[1]) as connection:
        with trio.move_on_after(0):
            await connection.receive()
        await server.close_all(1012, "restart")
        events.extend([await connection.receive(), await connection.receive()])
        server.stop_accepting()
        await server.close_all(1012, "restart")
        events.append(await connection.receive())
        with pytest.raises(ReconnectFailed):
            await connection.receive()
    first, restored, second = events
    assert isinstance(first, ConnectionLost)
    assert (first.code, first.reason) == (1012, "restart")
    assert isinstance(restored, ConnectionRestored)
    assert isinstance(second, ConnectionLost)


async def test_an_error_event_is_typed(server: ResponsesServer, connect: "Connect") -> None:
    """``ErrorEvent``, with the fields where the real server puts them."""
    server.fail("invalid_type", status=400, message="no", param="input")
    async with connect() as connection:
        await connection.send(ResponseCreate(model="m", input="hi"))
        event = await connection.receive()
        assert isinstance(event, ErrorEvent)
        assert (event.code, event.message, event.param) == ("invalid_type", "no", "input")


async def test_the_previous_response_id_serves_incremental_turns(
    server: ResponsesServer, connect: "Connect"
) -> None:
    """``previousResponseId``: of the last completed response, for raw requests and for turns."""
    async with connect() as connection:
        assert connection.previous_response_id is None
        await connection.send(ResponseCreate(model="m", input="one"))
        await wait_all_tasks_blocked()
        parent = connection.previous_response_id
        assert parent == server.requests[0].response_id
        response = await connection.create(model="m", input="two", previous_response_id=parent)
        assert response.output_text == 'Turn 2: you said "two".'
        assert connection.previous_response_id == response.id


async def test_a_multi_turn_tool_workflow(server: ResponsesServer, connect: "Connect") -> None:
    """What the seed was written for."""
    tool = FunctionToolParam(
        name="get_weather",
        parameters={"type": "object", "properties": {"city": {"type": "string"}}},
        strict=True,
    )

    async def run(connection: ResponsesConnection) -> str:
        response = await connection.create(
            model="m", input="What is the weather in Paris?", tools=[tool]
        )
        (call,) = [item for item in response.output if isinstance(item, FunctionCall)]
        assert (call.name, call.arguments) == ("get_weather", '{"city":"Paris"}')
        output = {"type": "function_call_output", "call_id": call.call_id, "output": "18 degrees"}
        response = await connection.create(
            model="m",
            input=[output],
            tools=[tool],
            previous_response_id=connection.previous_response_id,
        )
        return response.output_text

    async with connect() as connection:
        assert await run(connection) == "Turn 1: the tool returned 18 degrees."
    assert server.statistics().handshakes == 1


async def test_warm_up_primes_with_tools_and_instructions(
    server: ResponsesServer, connect: "Connect"
) -> None:
    """``warmUp({model, tools, instructions})``: ``generate: false``."""
    tool = FunctionToolParam(name="f", parameters={"type": "object"}, strict=True)
    async with connect() as connection:
        response = await connection.warm_up(model="m", tools=[tool], instructions="be brief")
        assert not response.output
        assert connection.previous_response_id == response.id
    body = server.requests[0].body
    assert (body["generate"], body["instructions"]) == (False, "be brief")
    assert body["tools"][0]["name"] == "f"
