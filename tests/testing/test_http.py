"""Responses over HTTP: streamed and not, errors, background, and connections that are kept."""

from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import trio
import trio.testing

from tests.testing.driver import NO_WAITING, connect, http, kinds
from tests.testing.http_driver import RESPONSES, http_client
from trio_responses.testing import Call, ErrorShape, Reply, ResponsesServer, open_test_server

if TYPE_CHECKING:
    from tests.testing.driver import Json

pytestmark = NO_WAITING

TOOL = {"type": "function", "name": "get_weather", "parameters": {"type": "object"}}


def text_of(response: Any) -> str:
    parts = [part for item in response["output"] for part in item.get("content", ())]
    return "".join(part["text"] for part in parts)


# Streamed and not


async def test_a_response_that_is_not_streamed_is_one_json_body(server: ResponsesServer) -> None:
    server.reply("Hello!")
    async with http_client(server) as client:
        answer = await client.post(input="hi")
    assert (answer.status, answer.is_whole) == (200, True)
    assert answer.json["object"] == "response"
    assert answer.json["status"] == "completed"
    assert answer.json["usage"]["input_tokens"] == 1
    assert text_of(answer.json) == "Hello!"


async def test_a_streamed_response_has_the_events_of_the_websocket(
    server: ResponsesServer,
) -> None:
    server.reply("one two three")
    server.reply("one two three")
    async with http_client(server) as client:
        answer = await client.post(input="hi", stream=True)
    async with connect(server) as other:
        await other.send(input="hi")
        events = await other.events()
    assert answer.headers["transfer-encoding"] == "chunked"
    assert [event.event for event in answer.sse] == [event["type"] for event in events]
    assert [event.event for event in answer.sse] == [event["type"] for event in answer.events]
    assert [event["sequence_number"] for event in answer.events] == list(range(len(events)))
    assert text_of(answer.events[-1]["response"]) == text_of(events[-1]["response"])


async def test_events_are_sent_one_by_one(server: ResponsesServer) -> None:
    server.reply("one two").stall(after_events=2, seconds=60)
    async with http_client(server) as client:
        start = trio.current_time()
        await client.start(input="hi", stream=True)
        answer = await client.head()
        times: list[float] = []
        while await client.piece(answer):
            times.append(trio.current_time() - start)
    assert times[:2] == [0, 0]
    assert set(times[2:]) == {60}


async def test_a_request_is_recorded_with_its_transport(server: ResponsesServer) -> None:
    async with http_client(server) as client:
        await client.create(input="over http", metadata={"a": "b"})
    async with connect(server) as other:
        await other.response(input="over websocket")
    assert [request.transport for request in server.requests] == ["http", "websocket"]
    assert server.requests[0]["metadata"] == {"a": "b"}
    assert server.requests[0].text == "over http"
    assert [connection.transport for connection in server.connections] == ["http", "websocket"]
    [request] = server.http_requests
    assert (request.method, request.path, request.status) == ("POST", RESPONSES, 200)
    assert msgspec.json.decode(request.body)["input"] == "over http"
    assert server.statistics().requests == 2
    assert server.statistics().http_requests == 1
    assert server.statistics().refused == 0


async def test_a_call_and_its_output(server: ResponsesServer) -> None:
    server.call("get_weather", {"city": "Oslo"})
    async with http_client(server) as client:
        response = await client.create(input="weather?", tools=[TOOL])
        [call] = response["output"]
        output = {"type": "function_call_output", "call_id": call["call_id"], "output": "snow"}
        await client.create(input=[output], previous_response_id=response["id"], tools=[TOOL])
    assert server.last_request.output_of("get_weather") == "snow"


async def test_a_stored_response_is_continued_over_both_transports(
    server: ResponsesServer,
) -> None:
    async with http_client(server) as client, connect(server) as other:
        first = await client.create(input="one")
        second = await other.response(input="two", previous_response_id=first["id"])
        third = await client.create(input="three", previous_response_id=second["id"])
    assert text_of(third) == 'Turn 3: you said "three".'


@pytest.mark.parametrize("transport", ["http", "websocket"])
async def test_a_response_that_is_not_stored_cannot_be_continued_over_http(
    server: ResponsesServer, transport: str
) -> None:
    async with http_client(server) as client, connect(server) as other:
        if transport == "http":
            first = await client.create(input="one", store=False)
        else:
            first = await other.response(input="one", store=False)
        answer = await client.post(input="two", previous_response_id=first["id"])
    assert answer.status == 400
    assert answer.error["code"] == "previous_response_not_found"


# Errors


async def test_an_error_before_the_first_event_is_an_http_status(server: ResponsesServer) -> None:
    for streamed in (True, False):
        server.fail("rate_limit_exceeded", status=429, headers={"retry-after-ms": 1500})
        async with http_client(server) as client:
            answer = await client.post(input="hi", stream=streamed)
        assert answer.status == 429
        assert answer.headers["retry-after-ms"] == "1500"
        assert answer.error == {
            "type": "rate_limit_error",
            "code": "rate_limit_exceeded",
            "message": "Rate limit reached. Please try again in 1s.",
            "param": None,
        }


async def test_an_error_after_the_first_event_is_an_event(server: ResponsesServer) -> None:
    server.fail("server_error", after_events=3)
    async with http_client(server) as client:
        answer = await client.post(input="hi", stream=True)
    assert (answer.status, answer.is_whole) == (200, True)
    assert len(answer.events) == 4
    assert answer.sse[-1].event == "error"
    assert answer.events[-1]["error"]["code"] == "server_error"


async def test_a_late_error_of_a_response_that_is_not_streamed_is_an_http_status(
    server: ResponsesServer,
) -> None:
    server.fail("server_error", status=503, after_events=3)
    async with http_client(server) as client:
        answer = await client.post(input="hi")
    assert (answer.status, answer.error["code"]) == (503, "server_error")


@pytest.mark.parametrize(
    ("shape", "status"),
    [
        ("nested", 429),
        ("headers", 429),
        ("status_code", 429),
        ("sequenced", 429),
        ("flat", 500),
        ("detail", 429),
    ],
)
async def test_every_shape_of_an_error_is_an_http_status(
    server: ResponsesServer, shape: ErrorShape, status: int
) -> None:
    server.fail("slow_down", status=429, shape=shape)
    async with http_client(server) as client:
        answer = await client.post(input="hi")
    assert answer.status == status
    assert "Please slow down." in answer.error.values()


async def test_a_failed_response_is_no_http_error(server: ResponsesServer) -> None:
    server.fail("server_error", shape="failed")
    server.reply("Oh", status="failed")
    async with http_client(server) as client:
        assert (await client.create(input="hi"))["status"] == "failed"
        assert (await client.stream_events(input="hi"))[-1]["type"] == "response.failed"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b'{"input": "hi"}', "missing_required_parameter"),
        (b'{"model": "m", "foo": 1}', "unknown_parameter"),
        (b'{"model": "m", "stream_id": "a"}', "unknown_parameter"),
        (b'{"model": "m", "generate": false}', "unknown_parameter"),
        (b'{"model": "m", "stream": 1}', "invalid_type"),
        (b'{"model": "m", "background": true, "store": false}', "invalid_value"),
        (b'{"model": "m"', "invalid_request_error"),
        (b"\xff", "invalid_request_error"),
        (b"[]", "invalid_request_error"),
        (b"", "invalid_request_error"),
        (b"[" * 100_000, "invalid_request_error"),
    ],
)
async def test_an_invalid_body_is_refused_and_takes_no_script(
    server: ResponsesServer, body: bytes, code: str
) -> None:
    server.reply("for the next one")
    async with http_client(server) as client:
        await client.send("POST", RESPONSES, body)
        answer = await client.answer()
        assert (answer.status, answer.error["code"]) == (400, code)
        assert text_of(await client.create(input="hi")) == "for the next one"


async def test_background_is_refused_over_websocket(server: ResponsesServer) -> None:
    async with connect(server) as client:
        error = await client.error(input="hi", background=True)
    assert error["error"]["code"] == "unsupported_parameter"


async def test_a_responder_that_raises_is_status_500() -> None:
    def broken(_: object) -> str:
        raise ZeroDivisionError

    async with open_test_server() as server, http_client(server) as client:
        server.respond_with(broken)
        answer = await client.post(input="hi", stream=True)
        assert answer.status == 500
        assert [type(error) for error in server.errors] == [ZeroDivisionError]


# Paths, methods and keys


@pytest.mark.parametrize("path", ["/v1/responses", "/openai/v1/responses", "/v1/responses?a=b"])
async def test_a_prefix_and_a_query_are_accepted(server: ResponsesServer, path: str) -> None:
    async with http_client(server) as client:
        assert (await client.call("POST", path, {"model": "m", "input": "hi"})).status == 200


@pytest.mark.parametrize(
    ("method", "path", "status", "allow"),
    [
        ("GET", "/v1/responses", 405, "POST"),
        ("PUT", "/v1/responses/resp_1", 405, "DELETE, GET"),
        ("GET", "/v1/responses/resp_1/cancel", 405, "POST"),
        ("POST", "/v1/responses/resp_1/input_items", 405, "GET"),
        ("GET", "/v1/responses/", 404, None),
        ("POST", "/v1/responsesx", 404, None),
        ("POST", "/v1/chat/completions", 404, None),
        ("GET", "/v1/responses/resp_1/input_items/x", 404, None),
        ("POST", "/responses", 404, None),
    ],
)
async def test_other_paths_and_methods_are_refused(
    server: ResponsesServer, method: str, path: str, status: int, allow: str | None
) -> None:
    async with http_client(server) as client:
        answer = await client.call(method, path)
    assert (answer.status, answer.headers.get("allow")) == (status, allow)
    assert answer.error["code"] == ("not_found" if status == 404 else "method_not_allowed")


async def test_a_server_with_a_key_accepts_only_this_key_over_http() -> None:
    async with open_test_server(api_key="sk-right") as server, http_client(server) as client:
        body = {"model": "m", "input": "hi"}
        right = await client.call("POST", RESPONSES, body, Authorization="Bearer sk-right")
        wrong = await client.call("POST", RESPONSES, body, Authorization="Bearer sk-wrong")
        none = await client.call("GET", f"{RESPONSES}/resp_1")
        assert [right.status, wrong.status, none.status] == [200, 401, 401]
        assert none.error["code"] == "invalid_api_key"
        assert "sk-right" not in repr(server.http_requests)
        assert server.http_requests[0].headers["authorization"] == "Bearer sk-right"


async def test_a_server_without_websockets_answers_upgrades_with_405() -> None:
    async with open_test_server(transport="http") as server:
        status, headers, _ = await http(
            await server.connect_stream(),
            b"GET /v1/responses HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n"
            b"Connection: upgrade, close\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
            b"Sec-WebSocket-Version: 13\r\n\r\n",
        )
        assert (status, headers["allow"]) == (405, "POST")
        async with http_client(server) as client:
            assert (await client.post(input="hi")).status == 200


async def test_an_unknown_transport_is_an_error_at_once() -> None:
    with pytest.raises(ValueError, match="transport must be 'both' or 'websocket' or 'http'"):
        async with open_test_server(transport="htpp"):  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
            pass


# Connections


async def test_requests_of_one_connection_are_answered_one_after_another(
    server: ResponsesServer,
) -> None:
    async with http_client(server) as client:
        first = await client.create(input="one")
        await client.stream_events(input="two", previous_response_id=first["id"])
        await client.get("/unknown")
        await client.create(input="three")
    assert server.statistics().handshakes == 1
    assert server.connections[0].requests == 3
    assert [request.connection for request in server.http_requests] == [1] * 4
    assert [request.number for request in server.http_requests] == [1, 2, 3, 4]


async def test_pipelined_requests_are_answered_in_order(server: ResponsesServer) -> None:
    body = b'{"model":"m","input":"hi"}'
    head = b"POST /v1/responses HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n" % len(body)
    stream = await server.connect_stream()
    await stream.send_all(head + b"\r\n" + body + head + b"Connection: close\r\n\r\n" + body)
    data = b""
    while received := await stream.receive_some():
        data += received
    await stream.aclose()
    assert data.count(b"HTTP/1.1 200") == 2
    assert data.index(b"req_000000000000000000000001") < data.index(b"req_000000000000000000000002")


async def test_http_1_0_gets_a_body_that_ends_with_the_connection(
    server: ResponsesServer,
) -> None:
    body = b'{"model":"m","input":"hi","stream":true}'
    head = b"POST /v1/responses HTTP/1.0\r\nContent-Length: %d\r\n\r\n" % len(body)
    status, headers, body = await http(await server.connect_stream(), head + body)
    assert status == 200
    assert headers["connection"] == "close"
    assert b"event: response.completed\n" in body


async def test_a_client_that_waits_for_100_continue_gets_it(server: ResponsesServer) -> None:
    body = b'{"model":"m","input":"hi"}'
    stream = await server.connect_stream()
    await stream.send_all(
        b"POST /v1/responses HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n"
        b"Connection: close\r\nContent-Length: 26\r\n\r\n"
    )
    assert (await stream.receive_some()).startswith(b"HTTP/1.1 100")
    await stream.send_all(body)
    assert (await stream.receive_some()).startswith(b"HTTP/1.1 200")
    await stream.aclose()


async def test_a_request_that_is_cut_off_has_no_effect(server: ResponsesServer) -> None:
    stream = await server.connect_stream()
    await stream.send_all(b"POST /v1/responses HTTP/1.1\r\nHost: x\r\nContent-Length: 13\r\n\r\n{")
    await stream.aclose()
    await trio.testing.wait_all_tasks_blocked()
    assert server.requests == []
    assert server.statistics().handshakes == 1


@pytest.mark.parametrize(
    "head",
    [
        b"POST /v1/responses HTTP/1.1\r\n\r\n",
        b"POST /v1/responses HTTP/1.1\r\nHost: x\r\nContent-Length: many\r\n\r\n",
        b"POST /v1/responses HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nno chunk\r\n",
    ],
)
async def test_a_malformed_request_is_status_400(server: ResponsesServer, head: bytes) -> None:
    status, headers, _ = await http(await server.connect_stream(), head)
    assert (status, headers["connection"]) == (400, "close")


async def test_a_body_over_the_limit_is_status_413(
    server: ResponsesServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trio_responses.testing._http.MAX_BODY", 100)
    head = b"POST /v1/responses HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n"
    status, _, _ = await http(await server.connect_stream(), head + b"x" * 200)
    assert status == 413


async def test_idle_connections_can_be_ended_by_the_server(server: ResponsesServer) -> None:
    async with http_client(server) as client, http_client(server) as other:
        await client.create(input="hi")
        await server.hang_up_all()
        assert await client.stream.receive_some() == b""
        await other.create(input="hi")
        await server.reset_all()
        with pytest.raises(trio.BrokenResourceError):
            await other.stream.receive_some()


# Leaving early


@pytest.mark.parametrize("streamed", [True, False])
async def test_leaving_early_cancels_the_response(
    server: ResponsesServer, *, streamed: bool
) -> None:
    script = server.reply("one two three").stall(after_events=4, seconds=1000)
    async with http_client(server) as client:
        await client.start(input="hi", stream=streamed)
        await trio.sleep(1)
        assert server.statistics().active == 1
    await trio.testing.wait_all_tasks_blocked()
    assert server.statistics().active == 0
    assert script.finished.is_set()
    async with http_client(server) as client:
        kept = await client.get(f"/{server.last_request.response_id}")
    assert kept.json["status"] == "cancelled"


async def test_a_lost_websocket_cancels_its_responses(server: ResponsesServer) -> None:
    server.reply("one two three").drop(after_events=4)
    async with connect(server) as other:
        await other.send(input="hi")
        await other.close_code()
    async with http_client(server) as client:
        kept = await client.get(f"/{server.last_request.response_id}")
    assert kept.json["status"] == "cancelled"


async def test_a_lost_response_goes_on_where_the_server_finishes_it() -> None:
    async with open_test_server(finish_lost=True) as server:
        for over_http in (True, False):
            server.reply("one two three").drop(after_events=4)
            if over_http:
                async with http_client(server) as client:
                    await client.start(input="hi", stream=True)
                    await client.cut_answer()
            else:
                async with connect(server) as other:
                    await other.send(input="hi")
                    await other.close_code()
            await trio.testing.wait_all_tasks_blocked()
            async with http_client(server) as client:
                kept = await client.get(f"/{server.last_request.response_id}")
            assert kept.json["status"] == "completed"
            assert text_of(kept.json) == "one two three"
        server.reply("one two three").drop(after_events=4)
        async with http_client(server) as client:
            await client.start(input="hi", stream=True, store=False)
            await client.cut_answer()
        await trio.testing.wait_all_tasks_blocked()
        assert server.statistics().active == 0
        assert server.statistics().responses == 2
        assert len(server.requests) == 3
        assert server.errors == []


# Background


async def test_a_background_response_runs_on_after_the_answer(server: ResponsesServer) -> None:
    server.reply("one two").stall(after_events=2, seconds=10).stall(after_events=4, seconds=10)
    async with http_client(server) as client:
        queued = await client.create(input="hi", background=True)
        assert (queued["status"], queued["background"], queued["output"]) == ("queued", True, [])
        path = f"/{queued['id']}"
        statuses: list[str] = []
        for seconds in (5, 10, 10):
            await trio.sleep(seconds)
            statuses.append((await client.get(path)).json["status"])
        assert statuses == ["queued", "in_progress", "completed"]
        assert text_of((await client.get(path)).json) == "one two"
        more = await client.create(input="more", previous_response_id=queued["id"])
    assert text_of(more) == 'Turn 2: you said "more".'


async def test_a_background_response_outlives_its_connection(server: ResponsesServer) -> None:
    server.reply("one two three").stall(after_events=5, seconds=60)
    async with http_client(server) as client:
        await client.start(input="hi", background=True, stream=True)
        answer = await client.head()
        while len(answer.events) < 5:
            await client.piece(answer)
    async with http_client(server) as client:
        path = f"/{server.last_request.response_id}?stream=true&starting_after=4"
        rest = await client.get(path)
    events = [*answer.events, *rest.events]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert kinds(events) == ["created", "queued", "in_progress", "completed"]
    assert text_of(events[-1]["response"]) == "one two three"
    assert trio.current_time() >= 60
    assert len(server.requests) == 1


@pytest.mark.parametrize("after", range(12))
async def test_a_background_stream_that_is_cut_off_can_be_resumed(
    server: ResponsesServer, after: int
) -> None:
    server.reply("one two three").drop(after_events=after)
    async with http_client(server) as client:
        await client.start(input="hi", background=True, stream=True)
        if after:
            answer = await client.cut_answer()
            seen = answer.events
        else:
            with pytest.raises(trio.BrokenResourceError):
                await client.answer()
            seen = []
    assert len(seen) == after
    last = after - 1 if after else ""
    query = f"?stream=true&starting_after={last}" if after else "?stream=true"
    async with http_client(server) as client:
        rest = await client.get(f"/{server.last_request.response_id}{query}")
    events = [*seen, *rest.events]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert events[-1]["type"] == "response.completed"


async def test_a_background_response_that_fails_is_retrieved_as_failed(
    server: ResponsesServer,
) -> None:
    server.fail("server_error", after_events=3)
    async with http_client(server) as client:
        queued = await client.create(input="hi", background=True)
        await trio.testing.wait_all_tasks_blocked()
        kept = (await client.get(f"/{queued['id']}")).json
    assert kept["status"] == "failed"
    assert kept["error"]["code"] == "server_error"


@pytest.mark.parametrize("fault", ["drop", "half_open", "slow_writes"])
async def test_a_fault_after_the_answer_does_not_touch_the_connection(
    server: ResponsesServer, fault: str
) -> None:
    script = server.reply("one two").stall(after_events=3, seconds=10)
    getattr(script, fault)(after_events=3)
    async with http_client(server) as client:
        queued = await client.create(input="hi", background=True)
        await trio.sleep(20)
        start = trio.current_time()
        assert (await client.get(f"/{queued['id']}")).json["status"] == "completed"
        assert trio.current_time() == start


async def test_a_background_response_outlives_a_half_open_connection(
    server: ResponsesServer,
) -> None:
    server.reply("one two").half_open(after_events=3)
    async with http_client(server) as client, http_client(server) as other:
        await client.start(input="hi", background=True, stream=True)
        await trio.testing.wait_all_tasks_blocked()
        kept = await other.get(f"/{server.last_request.response_id}")
    assert kept.json["status"] == "completed"


async def test_a_background_request_that_is_refused_is_an_http_status(
    server: ResponsesServer,
) -> None:
    server.fail("rate_limit_exceeded", status=429)
    async with http_client(server) as client:
        answer = await client.post(input="hi", background=True)
        assert answer.status == 429
        assert (await client.get(f"/{server.last_request.response_id}")).status == 404


# Scripts of all kinds


async def test_answers_of_every_kind(server: ResponsesServer) -> None:
    frames: list[Json] = [{"type": "response.created"}, {"type": "custom.event", "x": 1}]
    server.answer(frames)
    server.calls(Call("get_weather"), Call("get_weather"))
    server.answer(Reply("later", reasoning="hm", more=["and more"]))
    async with http_client(server) as client:
        raw = await client.stream_events(input="hi")
        calls = await client.create(input="hi", tools=[TOOL])
        reply = await client.create(input="hi")
    assert raw == frames
    assert [item["type"] for item in calls["output"]] == ["function_call"] * 2
    assert [item["type"] for item in reply["output"]] == ["reasoning", "message", "message"]
    server.assert_all_scripts_used()


async def test_a_script_without_a_response_is_status_500_unless_streamed(
    server: ResponsesServer,
) -> None:
    server.answer([{"type": "response.output_text.delta", "delta": "x"}])
    server.answer([])
    async with http_client(server) as client:
        assert (await client.post(input="hi")).status == 500
        answer = await client.post(input="hi", stream=True)
    assert (answer.status, answer.body, answer.is_whole) == (200, b"", True)
