"""The faults D1 to D24 of the connection manager that this library replaces: none is possible.

Each test is named after its fault (docs/problems.md).
"""

import logging
import traceback
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from trio_responses import (
    APIError,
    ConfigurationError,
    ConnectionClosed,
    ConnectionLost,
    ConnectionRestored,
    ConnectionState,
    ConnectTimeout,
    DeliveryStatus,
    Endpoint,
    HandshakeRejected,
    KeepaliveTimeout,
    Limits,
    ReconnectFailed,
    ReconnectPolicy,
    ResponsesConnection,
    ResponsesError,
    StallTimeout,
    Timeouts,
    UndecodableResponse,
    open_responses,
)
from trio_responses import _wire as wire
from trio_responses._wire import FunctionToolParam
from trio_responses.testing import ResponsesServer
from trio_responses.types import (
    ErrorEvent,
    FunctionCallArgumentsDelta,
    ResponseCompleted,
    ResponseCreate,
    UndecodableFrame,
    UnknownEvent,
)

if TYPE_CHECKING:
    from tests.connection.conftest import Connect, Dialler

CONTENT = "the user's own words"
REASON = "what the server says"


async def listen(connection: ResponsesConnection) -> None:
    with trio.move_on_after(0):
        await connection.receive()


async def test_d01_a_server_that_never_answers_the_upgrade_times_out(
    server: ResponsesServer, connect: "Connect"
) -> None:
    """D1: one timeout over dial, TLS and upgrade."""
    server.hang_handshake(times=None)
    with pytest.raises(ReconnectFailed) as failure:
        async with connect(timeouts=Timeouts(connect=15), reconnect=[]):
            pytest.fail("the block began")  # pragma: no cover
    assert isinstance(failure.value.__cause__, ConnectTimeout)
    assert trio.current_time() == 15


async def test_d02_a_failed_opening_opens_no_sockets_behind_the_callers_back(
    server: ResponsesServer, connect: "Connect", dialler: "Dialler"
) -> None:
    """D2: once it has raised, nothing dials any more."""
    tasks = trio.lowlevel.current_statistics().tasks_living
    server.stop_accepting()
    with pytest.raises(ReconnectFailed):
        async with connect(dial=dialler, reconnect=[1]):
            pytest.fail("the block began")  # pragma: no cover
    server.accept_again()
    await trio.sleep(1000)
    assert dialler.times == [0, 1]
    assert trio.lowlevel.current_statistics().tasks_living == tasks


async def test_d03_the_first_connect_follows_the_policy_as_documented(
    server: ResponsesServer, connect: "Connect", dialler: "Dialler"
) -> None:
    """D3: it does not fail on the first error, and it does fail after the last."""
    server.refuse(503, times=5)
    async with connect(dial=dialler):
        assert dialler.times == [0, 1, 3, 7, 15, 31]
    server.refuse(503, times=6)
    with pytest.raises(ReconnectFailed) as failure:
        async with connect(dial=dialler):
            pytest.fail("the block began")  # pragma: no cover
    assert failure.value.attempts == 5


async def test_d04_a_server_that_accepts_and_drops_is_given_up(
    server: ResponsesServer, connect: "Connect", dialler: "Dialler"
) -> None:
    """D4: the count does not start again because a socket opened."""
    server.drop_on_accept(times=None)
    with pytest.raises(ReconnectFailed) as failure:  # noqa: PT012 - the block is the point
        async with connect(dial=dialler) as connection:
            async for event in connection:
                assert isinstance(event, ConnectionLost | ConnectionRestored)
    assert failure.value.attempts == 5
    assert dialler.times == [0, 1, 3, 7, 15, 31]


@pytest.mark.parametrize("code", [1008, 4001])
async def test_d05_a_close_code_that_is_final_is_not_reconnected_from(
    server: ResponsesServer, connect: "Connect", code: int
) -> None:
    """D5."""
    async with connect() as connection:
        await server.close_all(code)
        with pytest.raises(ConnectionLost) as failure:
            await connection.create(model="m", input="hi")
        assert failure.value.code == code
        await trio.sleep(1000)
    assert server.statistics().handshakes == 1


@pytest.mark.parametrize("status", [401, 403])
async def test_d05_a_refused_key_is_not_tried_again(
    server: ResponsesServer, connect: "Connect", status: int
) -> None:
    """D5: the other half."""
    server.refuse(status, times=None)
    with pytest.raises(HandshakeRejected):
        async with connect():
            pytest.fail("the block began")  # pragma: no cover
    assert server.statistics().handshakes == 1


async def test_d06_delays_have_jitter_and_a_floor_and_an_end(
    server: ResponsesServer, connect: "Connect", dialler: "Dialler"
) -> None:
    """D6: by default; and an empty list of delays is no delays, not one second."""
    server.refuse(503, headers={"Retry-After": "40"})
    server.refuse(503, times=None)
    with pytest.raises(ReconnectFailed):
        async with connect(dial=dialler, reconnect=ReconnectPolicy()):
            pytest.fail("the block began")  # pragma: no cover
    slept = [later - earlier for earlier, later in pairwise(dialler.times)]
    assert slept[0] == 40
    for delay, full in zip(slept[1:], [2, 4, 8, 16], strict=True):
        assert 0.75 * full <= delay <= full
    assert slept[1:] != [2, 4, 8, 16]
    with pytest.raises(ReconnectFailed) as failure:
        async with connect(reconnect=[]):
            pytest.fail("the block began")  # pragma: no cover
    assert failure.value.attempts == 0


async def test_d07_the_parent_does_not_outlive_its_socket_or_its_eviction(
    server: ResponsesServer, connect: "Connect"
) -> None:
    """D7."""
    endpoint = Endpoint.compatible(server.url, after_error="reuse")
    async with connect(endpoint=endpoint) as connection:
        first = await connection.create(model="m", input="hi")
        server.fail(status=400)
        with pytest.raises(APIError):
            await connection.create(model="m", input="hi", previous_response_id=first.id)
        assert connection.previous_response_id is None
        second = await connection.create(model="m", input="hi")
        assert connection.previous_response_id == second.id
        await server.reset_all()
        await wait_all_tasks_blocked()
        await connection.wait_open()
        assert connection.previous_response_id is None
    assert connection.previous_response_id is None


async def test_d08_a_turn_under_way_is_told_that_its_socket_is_gone(
    server: ResponsesServer, connect: "Connect"
) -> None:
    """D8: at once, with its delivery; no consumer waits for ever."""
    server.drop(after_events=5)
    async with connect() as connection, connection.stream(model="m", input="hi") as stream:
        count = 0
        with pytest.raises(ConnectionLost) as failure:  # noqa: PT012 - somewhere on the way
            async for _ in stream:
                count += 1
        assert count == 5
        assert failure.value.delivery is DeliveryStatus.ACCEPTED
        assert trio.current_time() == 0


async def test_d09_a_send_during_an_outage_waits_and_a_failed_write_is_seen(
    server: ResponsesServer, connect: "Connect", dialler: "Dialler"
) -> None:
    """D9: and the caller waits until it is written."""
    async with connect(dial=dialler) as connection:
        await server.reset_all()
        await wait_all_tasks_blocked()
        assert connection.state is ConnectionState.RECONNECTING
        await connection.send(ResponseCreate(model="m", input="hi"))
        assert trio.current_time() == 1
        await wait_all_tasks_blocked()
        dialler.streams[-1].writes_left = 0
        with pytest.raises(ConnectionLost) as failure:
            await connection.send(ResponseCreate(model="m", input="hi"))
        assert failure.value.delivery is DeliveryStatus.NOT_SENT
    assert server.statistics().requests == 1


async def test_d10_a_consumer_is_waited_for_and_its_exception_is_its_own(
    server: ResponsesServer, connect: "Connect"
) -> None:
    """D10: it pulls; the receive task calls nobody, and does not run ahead without bound."""

    async def dial(host: str, port: int) -> trio.abc.Stream:
        assert (host, port) == ("localhost", 80)
        return await server.connect_stream(capacity=2000)

    server.reply(chunks=["x" * 100] * 500)
    async with connect(dial=dial, limits=Limits(turn_buffer_bytes=10_000)) as connection:
        with pytest.raises(LookupError):  # noqa: PT012 - the block is the point
            async with connection.stream(model="m", input="hi"):
                await trio.sleep(100)
                assert 10_000 <= connection.statistics().unread_bytes < 20_000
                raise LookupError("the consumer's own")
        response = await connection.create(model="m", input="hi")
        assert response.output_text == 'Turn 1: you said "hi".'
    assert server.statistics().handshakes == 1


async def test_d11_concurrent_turns_do_not_mix_and_late_events_reach_nobody(
    server: ResponsesServer, connect: "Connect"
) -> None:
    """D11."""
    texts: dict[str, str] = {}

    async def ask(connection: ResponsesConnection, text: str) -> None:
        texts[text] = (await connection.create(model="m", input=text)).output_text

    async with connect() as connection:
        async with connection.stream(model="m", input="left early") as stream:
            await stream.__anext__()
        async with trio.open_nursery() as nursery:
            for text in ("a", "b", "c"):
                nursery.start_soon(ask, connection, text)
    assert texts == {text: f'Turn 1: you said "{text}".' for text in ("a", "b", "c")}
    assert server.statistics().handshakes == 1


@pytest.mark.parametrize("response", [{"id": 5}, {"id": ["x"]}, {}, 5, None, "resp_1"])
async def test_d12_json_is_not_taken_for_what_it_does_not_say(
    server: ResponsesServer, connect: "Connect", response: Any
) -> None:
    """D12: the id of a response is a string wherever it is one."""
    server.answer([{"type": "response.completed", "response": response}])
    async with connect() as connection:
        try:
            done = await connection.create(model="m", input="hi")
        except UndecodableResponse:
            assert connection.previous_response_id is None
        else:
            assert isinstance(done.id, str)
            assert isinstance(connection.previous_response_id, str | None)


async def test_d12_an_unknown_type_is_not_typed_as_a_known_one(
    server: ResponsesServer, connect: "Connect"
) -> None:
    """D12: it says so, and keeps its JSON."""
    async with connect() as connection:
        await listen(connection)
        await server.send_raw('{"type":"brand.new","a":1}')
        event = await connection.receive()
        assert isinstance(event, UnknownEvent)
        assert (event.type, bytes(event.raw)) == ("brand.new", b'{"type":"brand.new","a":1}')


def test_d13_the_types_are_those_of_the_wire() -> None:
    """D13: what the seed lacked or had wrong. tests/wire compares all of it with the schema."""
    for kind in (
        "ResponseIncomplete",
        "ResponseQueued",
        "RefusalDelta",
        "ReasoningSummaryTextDelta",
        "ReasoningTextDelta",
        "McpCallInProgress",
    ):
        assert hasattr(wire, kind)
    error = wire.decode(b'{"type":"error","status":400,"error":{"code":"c","message":"m"}}')
    assert isinstance(error, ErrorEvent)
    assert (error.status, error.code) == (400, "c")
    assert "call_id" not in FunctionCallArgumentsDelta.__struct_fields__
    tool = FunctionToolParam(name="f", parameters={"type": "object"}, strict=True)
    flat = msgspec.json.decode(wire.encode(ResponseCreate(model="m", tools=[tool])))["tools"][0]
    assert (flat["type"], flat["name"]) == ("function", "f")
    assert "function" not in flat
    image = wire.InputImage(image_url="https://host/a.png")
    assert "source" not in msgspec.to_builtins(image)
    assert b"stream" not in wire.encode(ResponseCreate(model="m", input="hi"))


async def test_d14_without_any_listener_failures_come_to_whoever_waits(
    server: ResponsesServer, connect: "Connect"
) -> None:
    """D14: a dead connection says so to the next call, and bad frames are counted."""
    async with connect(reconnect=[1]) as connection:
        await server.send_raw("no json")
        await wait_all_tasks_blocked()
        assert connection.statistics().undecodable_frames == 1
        server.stop_accepting()
        await server.reset_all()
        await trio.sleep(10)
        assert connection.state is ConnectionState.CLOSED
        for _ in range(2):
            with pytest.raises(ReconnectFailed):
                await connection.create(model="m", input="hi")


@pytest.mark.parametrize("how", ["reset", "fin", 1011])
async def test_d15_the_end_of_a_socket_has_one_outcome(
    server: ResponsesServer, connect: "Connect", how: Any
) -> None:
    """D15: one loss and one return on the channel, however it ended."""
    server.drop(after_events=2, how=how)
    async with connect() as connection:
        await listen(connection)
        with pytest.raises(ConnectionLost) as failure:
            await connection.create(model="m", input="hi")
        await trio.sleep(100)
        await connection.aclose()
        told = [event async for event in connection]
        assert [type(event).__name__ for event in told] == ["ConnectionLost", "ConnectionRestored"]
        assert isinstance(told[0], ConnectionLost)
        assert told[0].code == failure.value.code == (1011 if how == 1011 else 1006)


async def test_d16_closing_while_connecting_settles_everything(
    server: ResponsesServer, connect: "Connect"
) -> None:
    """D16: the dial is cancelled, and whoever waits is told."""
    told: list[ConnectionClosed] = []

    async def wait(connection: ResponsesConnection) -> None:
        with pytest.raises(ConnectionClosed) as failure:
            await connection.wait_open()
        told.append(failure.value)

    async with connect() as connection, trio.open_nursery() as nursery:
        server.hang_handshake()
        await server.reset_all()
        nursery.start_soon(wait, connection)
        await trio.sleep(5)
        await connection.aclose()
        assert connection.state is ConnectionState.CLOSED
        assert trio.current_time() == 5
    assert len(told) == 1


async def test_d17_a_connection_is_opened_once(server: ResponsesServer, connect: "Connect") -> None:
    """D17: there is no second ``connect()`` that could leak the first socket."""
    async with connect() as connection:
        assert not hasattr(connection, "connect")
        assert not hasattr(connection, "__aenter__") or server.statistics().open == 1
        await connection.create(model="m", input="hi")
    context = connect()
    async with context:
        assert server.statistics().open == 1
    with pytest.raises((RuntimeError, AttributeError)):
        await context.__aenter__()
    assert server.statistics().open == 0


async def test_d18_a_late_close_of_an_old_socket_concerns_nobody(
    server: ResponsesServer, connect: "Connect"
) -> None:
    """D18: the old one drains beside the new one, and its end is no loss."""
    endpoint = Endpoint.compatible(server.url, lanes=True, after_error="replace")
    server.reply("slow", delay=10.0)
    server.fail(status=500)
    async with connect(endpoint=endpoint) as connection:
        await listen(connection)
        async with connection.stream(model="m", input="slow"):
            with pytest.raises(APIError):
                await connection.create(model="m", input="fails")
            await connection.create(model="m", input="hi")
            assert (server.connections[0].is_open, server.connections[1].is_open) == (True, True)
            server.freeze_all()
        await trio.sleep(20)
        assert server.statistics().handshakes == 2
        assert connection.state is ConnectionState.OPEN
        assert connection.statistics().unread_bytes == 0


async def test_d19_no_timer_outlives_a_close_and_the_key_is_fresh(
    server: ResponsesServer, connect: "Connect"
) -> None:
    """D19: the block ends at once in the middle of a backoff; each handshake asks for the key."""
    keys = iter(["one", "two", "three"])

    async def fresh() -> str:
        await trio.lowlevel.checkpoint()
        return next(keys)

    async with connect(api_key=fresh, reconnect=[16, 16]) as connection:
        await server.reset_all()
        await connection.create(model="m", input="hi")
        await server.reset_all()
        await wait_all_tasks_blocked()
        left_at = trio.current_time()
    assert trio.current_time() == left_at == 16
    seen = [connection.headers["authorization"] for connection in server.connections]
    assert seen == ["Bearer one", "Bearer two"]


async def test_d20_the_handshake_is_the_users_to_shape(
    server: ResponsesServer, connect: "Connect", monkeypatch: pytest.MonkeyPatch
) -> None:
    """D20: headers, organisation and project, other key headers, TLS, sizes; no made-up beta."""
    async with connect(headers={"X-Trace": "7"}):
        pass
    monkeypatch.setenv("OPENAI_ORG_ID", "org")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "project")
    async with connect(endpoint=Endpoint.openai(server.url)):
        pass
    azure = Endpoint.azure(server.url)
    async with connect(endpoint=azure, api_key="resource-key"):
        pass
    plain, openai, named = [connection.headers for connection in server.connections]
    assert plain["x-trace"] == "7"
    assert (openai["openai-organization"], openai["openai-project"]) == ("org", "project")
    assert named["api-key"] == "resource-key"
    assert "authorization" not in named
    assert plain.get("openai-beta") != "responses-websocket=v1"
    with pytest.raises(ConfigurationError):
        async with open_responses("ws://example.com", api_key="k"):
            pytest.fail("the block began")  # pragma: no cover


async def test_d21_dead_servers_and_silent_responses_are_noticed(
    server: ResponsesServer, connect: "Connect"
) -> None:
    """D21: by pings, and by deadlines of the turn."""
    async with connect(timeouts=Timeouts(stall=100)) as connection:
        server.half_open(after_events=2)
        with pytest.raises(KeepaliveTimeout):
            await connection.create(model="m", input="hi")
        assert trio.current_time() == 40
        server.stall(after_events=2)
        with pytest.raises(StallTimeout):
            await connection.create(model="m", input="hi")
        assert trio.current_time() == 40 + 1 + 100


async def test_d22_a_binary_frame_is_not_read_as_text(
    server: ResponsesServer, connect: "Connect"
) -> None:
    """D22: not even one that holds an event."""
    done = b'{"type":"response.completed","response":{"id":"resp_fake","output":[]}}'
    server.reply("real").inject(done, after_events=3)
    async with connect() as connection:
        await connection.send(ResponseCreate(model="m", input="hi"))
        events = [await connection.receive() for _ in range(10)]
        binary = [event for event in events if isinstance(event, UndecodableFrame)]
        assert [event.raw for event in binary] == [done]
        final = events[-1]
        assert isinstance(final, ResponseCompleted)
        assert final.response.output_text == "real"
        assert connection.previous_response_id == final.response.id != "resp_fake"


async def test_d23_a_warm_up_can_be_waited_for(server: ResponsesServer, connect: "Connect") -> None:
    """D23: its Response comes back, and a turn at once after it cannot race it."""
    server.reply().for_warm_up().stall(after_events=1, seconds=5)
    async with connect() as connection, trio.open_nursery() as nursery:
        ids: list[str] = []

        async def warm_up() -> None:
            ids.append((await connection.warm_up(model="m")).id)

        nursery.start_soon(warm_up)
        await wait_all_tasks_blocked()
        response = await connection.create(model="m", input="hi")
        assert trio.current_time() == 5
        assert len(ids) == 1
        assert connection.previous_response_id == response.id != ids[0]


async def test_d24_errors_quote_the_server_and_nothing_is_in_logs(
    server: ResponsesServer, connect: "Connect", caplog: pytest.LogCaptureFixture
) -> None:
    """D24: no request, response or bad frame; the sentence of an error is in its message alone."""
    caplog.set_level(logging.DEBUG)
    failures: list[BaseException] = []
    sentence = "the server's own sentence"
    error: dict[str, Any] = {"message": sentence}
    reply: dict[str, Any] = {"id": "resp_1", "output": [], "status": "failed", "error": error}
    frames: list[Any] = [
        f"no json {CONTENT}",
        f'{{"type":"response.completed","response":"{CONTENT}"}}',
        {"type": "error", "error": error},
        {"type": "response.failed", "response": reply},
    ]
    async with connect() as connection:
        await listen(connection)
        shown = [repr(connection), repr(connection.statistics())]
        await server.send_raw(frames[0])
        shown.append(repr(await connection.receive()))
        for frame in frames[1:]:
            server.answer([frame])
            with pytest.raises(ResponsesError) as failure:
                await connection.create(model="m", input=CONTENT)
            failures.append(failure.value)
        server.reply(CONTENT).drop(after_events=4, how=1011, reason=REASON)
        with pytest.raises(ConnectionLost) as loss:
            await connection.create(model="m", input=CONTENT)
        failures.append(loss.value)
        with pytest.raises(TypeError) as mistake:
            await connection.create(model="m", input=CONTENT, metadata={"a": object()})
        failures.append(mistake.value)
    assert len(failures) == 5
    for caught in failures:
        shown.extend([str(caught), repr(caught), *traceback.format_exception(caught)])
    assert [sentence in str(caught) for caught in failures] == [False, True, True, False, False]
    assert REASON in str(loss.value)
    # trio-websocket logs the reason at level DEBUG.
    logged = [str(vars(record)) for record in caplog.records]
    assert [text for text in logged if sentence in text] == []
    assert [text for text in (*shown, *logged) if CONTENT in text] == []
