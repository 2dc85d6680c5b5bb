"""Turns, warm-ups and conversations without faults."""

from typing import Any

from tests.testing.driver import NO_WAITING, connect, text_of
from trio_responses.testing import Call, Request, ResponsesServer, open_test_server

pytestmark = NO_WAITING

WEATHER = {
    "type": "function",
    "name": "get_weather",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
        "required": ["city"],
    },
}


async def test_a_text_turn_has_the_full_event_sequence(server: ResponsesServer) -> None:
    server.reply("Hello, world!")
    async with connect(server) as client:
        await client.send(input="hi")
        events = await client.events()
    assert [event["type"].removeprefix("response.") for event in events] == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]
    assert [event["sequence_number"] for event in events] == list(range(10))
    assert events[0]["response"]["output"] == events[1]["response"]["output"] == []
    assert events[0]["response"]["status"] == "in_progress"
    assert [events[4]["delta"], events[5]["delta"]] == ["Hello,", " world!"]
    final = events[-1]["response"]
    assert final["status"] == "completed"
    assert final["output"] == [events[8]["item"]]
    assert text_of(final) == "Hello, world!"
    assert final["id"] == events[0]["response"]["id"]
    assert all("stream_id" not in event for event in events)


async def test_sequence_numbers_start_at_zero_for_every_response(server: ResponsesServer) -> None:
    async with connect(server) as client:
        for _ in range(2):
            await client.send(input="hi")
            assert [e["sequence_number"] for e in await client.events()][:3] == [0, 1, 2]


async def test_text_comes_in_the_scripted_chunks(server: ResponsesServer) -> None:
    server.reply(chunks=["a", "", "b c"])
    server.reply("abcde", chunk_size=2)
    async with connect(server) as client:
        for expected in (["a", "", "b c"], ["ab", "cd", "e"]):
            await client.send(input="hi")
            events = await client.events()
            assert [e["delta"] for e in events if e["type"].endswith("delta")] == expected


async def test_a_function_call_streams_its_arguments(server: ResponsesServer) -> None:
    server.call("get_weather", {"city": "Paris"}, call_id="call_1")
    async with connect(server) as client:
        await client.send(input="hi", tools=[WEATHER])
        events = await client.events()
    names = [event["type"].removeprefix("response.") for event in events]
    assert names[2] == "output_item.added"
    assert names[-3:] == ["function_call_arguments.done", "output_item.done", "completed"]
    assert set(names[3:-3]) == {"function_call_arguments.delta"}
    assert events[2]["item"]["arguments"] == ""
    assert "".join(event["delta"] for event in events[3:-3]) == '{"city":"Paris"}'
    item = events[-1]["response"]["output"][0]
    assert item["arguments"] == '{"city":"Paris"}'
    assert (item["name"], item["call_id"], item["status"]) == ("get_weather", "call_1", "completed")


async def test_one_response_can_hold_several_calls(server: ResponsesServer) -> None:
    server.calls(Call("get_weather", {"city": "Paris"}), Call("get_time", '{"broken'))
    tools = [WEATHER, {"type": "function", "name": "get_time"}]
    async with connect(server) as client:
        output = (await client.response(input="hi", tools=tools))["output"]
    assert [item["name"] for item in output] == ["get_weather", "get_time"]
    assert output[1]["arguments"] == '{"broken'
    assert output[0]["call_id"] != output[1]["call_id"]


async def test_reasoning_comes_before_the_text_and_encrypted_on_request(
    server: ResponsesServer,
) -> None:
    server.reply("42", reasoning="Let me think")
    server.reply("42", reasoning="Let me think")
    async with connect(server) as client:
        await client.send(input="hi")
        events = await client.events()
        encrypted = await client.response(input="hi", include=["reasoning.encrypted_content"])
    names = [event["type"] for event in events]
    assert names.index("response.reasoning_summary_text.delta") < names.index(
        "response.output_text.delta"
    )
    plain = events[-1]["response"]["output"][0]
    assert plain["summary"] == [{"type": "summary_text", "text": "Let me think"}]
    assert plain["encrypted_content"] is None
    assert encrypted["output"][0]["encrypted_content"]
    assert encrypted["usage"]["output_tokens_details"]["reasoning_tokens"] == 3


async def test_a_reply_can_be_incomplete_or_failed(server: ResponsesServer) -> None:
    server.reply("half", status="incomplete", reason="content_filter")
    server.reply("half", status="failed", error="rate_limit_exceeded")
    async with connect(server) as client:
        incomplete = await client.turn(input="hi")
        failed = await client.turn(input="hi")
    assert incomplete["type"] == "response.incomplete"
    assert incomplete["response"]["incomplete_details"] == {"reason": "content_filter"}
    assert failed["type"] == "response.failed"
    assert failed["response"]["error"]["code"] == "rate_limit_exceeded"


async def test_set_up_events_and_final_output_can_be_left_out(server: ResponsesServer) -> None:
    server.reply("a b", events="items", final_output="null")
    server.reply("a b", events="deltas", final_output="empty")
    server.reply("a b", events="terminal", final_output="missing")
    async with connect(server) as client:
        seen: list[list[dict[str, Any]]] = []
        for _ in range(3):
            await client.send(input="hi")
            seen.append(await client.events())
    items, deltas, terminal = seen
    short = [[event["type"].split(".")[-1] for event in events] for events in seen]
    assert short == [
        ["created", "done", "completed"],
        ["created", "delta", "delta", "done", "completed"],
        ["completed"],
    ]
    assert [event["sequence_number"] for event in items] == [0, 1, 2]
    assert items[-1]["response"]["output"] is None
    assert deltas[-1]["response"]["output"] == []
    assert "output" not in terminal[-1]["response"]


async def test_the_response_echoes_the_settings_of_the_request(server: ResponsesServer) -> None:
    async with connect(server) as client:
        response = await client.response(
            input="hi", instructions="Be brief", temperature=0.5, tools=[WEATHER], store=False
        )
    assert response["instructions"] == "Be brief"
    assert response["temperature"] == 0.5
    assert response["tools"][0]["name"] == "get_weather"
    assert response["store"] is False
    assert response["object"] == "response"
    assert response["error"] is None
    assert response["previous_response_id"] is None


async def test_usage_is_counted_or_scripted(server: ResponsesServer) -> None:
    server.reply("one two three")
    server.reply("x", usage={"input_tokens": 100, "cached_tokens": 64, "output_tokens": 7})
    async with connect(server) as client:
        counted = (await client.response(input="four words of input"))["usage"]
        given = (await client.response(input="hi"))["usage"]
    assert (counted["input_tokens"], counted["output_tokens"], counted["total_tokens"]) == (4, 3, 7)
    assert given["input_tokens_details"]["cached_tokens"] == 64
    assert given["total_tokens"] == 107


async def test_a_warm_up_answers_without_output_and_can_be_continued(
    server: ResponsesServer,
) -> None:
    server.reply("the real turn")
    async with connect(server) as client:
        for switch in ({"generate": False}, {"prompt_cache_options": {"prewarm": True}}):
            await client.send(input="remember the milk", store=False, **switch)
            events = await client.events()
            kinds = [event["type"] for event in events]
            assert kinds == ["response.created", "response.in_progress", "response.completed"]
            warm = events[-1]["response"]
            assert warm["output"] == []
            assert warm["usage"]["output_tokens"] == 0
        real = await client.response(input=[], previous_response_id=warm["id"], store=False)
    assert text_of(real) == "the real turn"
    assert server.requests[-1].text == "remember the milk"


async def test_other_requests_do_not_take_a_script_for_warm_ups(
    server: ResponsesServer,
) -> None:
    server.fail("unsupported_parameter", status=400).for_warm_up()
    async with connect(server) as client:
        await client.response(input="hi")
        error = await client.error(input="hi", generate=False)
    assert error["error"]["code"] == "unsupported_parameter"


async def test_the_responder_sees_the_whole_conversation(server: ResponsesServer) -> None:
    def recall(request: Request) -> str:
        return f"{request.turn} turns, {len(request.history)} items"

    server.respond_with(recall)
    async with connect(server) as client:
        first = await client.response(input="one")
        second = await client.response(input="two", previous_response_id=first["id"])
        third = await client.response(input="three", previous_response_id=second["id"])
    assert text_of(third) == "3 turns, 5 items"
    request = server.requests[-1]
    assert [item["role"] for item in request.history] == ["user", "assistant"] * 2 + ["user"]
    assert request["previous_response_id"] == second["id"]
    assert request.response_id == third["id"]
    assert (request.connection, request.lane) == (1, None)
    assert third["usage"]["input_tokens_details"]["cached_tokens"] > 0


async def test_an_async_responder_may_return_calls_failures_and_raw_frames(
    server: ResponsesServer,
) -> None:
    raw: dict[str, Any] = {
        "type": "response.completed",
        "response": {"id": "resp_mine", "output": []},
    }
    answers: list[Any] = [Call("f"), [Call("f"), Call("g")], [{"type": "keepalive"}, raw]]

    async def answer(_: Request) -> Any:
        return answers.pop(0)

    server.respond_with(answer)
    async with connect(server) as client:
        assert len((await client.response(input="hi"))["output"]) == 1
        assert len((await client.response(input="hi"))["output"]) == 2
        await client.send(input="hi")
        assert await client.events() == [{"type": "keepalive"}, raw]
        server.respond_with(None)
        await client.response(input="hi", previous_response_id="resp_mine")


async def test_a_responder_that_raises_fails_one_turn_and_is_a_crash() -> None:
    def broken(_: Request) -> str:
        raise RuntimeError("a bug in the test")

    async with open_test_server() as server, connect(server) as client:
        server.respond_with(broken)
        error = await client.error(input="hi")
        assert error["status"] == 500
        server.respond_with(None)
        await client.response(input="hi")
        assert [type(crash) for crash in server.crashes] == [RuntimeError]
        assert server.statistics().crashes == 1


async def test_two_servers_give_the_same_frames_for_the_same_requests() -> None:
    async def frames() -> list[dict[str, Any]]:
        async with open_test_server(wall_clock=lambda: 0.0) as server, connect(server) as client:
            await client.send(input="hi")
            return await client.events()

    assert await frames() == await frames()


async def test_one_response_can_hold_several_messages(server: ResponsesServer) -> None:
    server.reply("one two", more=["three", "four"], chunk_size=4, status="incomplete")
    async with connect(server) as client:
        await client.send(input="hi")
        events = await client.events()
    output = events[-1]["response"]["output"]
    assert [item["content"][0]["text"] for item in output] == ["one two", "three", "four"]
    assert [item["status"] for item in output] == ["completed", "completed", "incomplete"]
    assert len({item["id"] for item in output}) == 3
    deltas = [event for event in events if event["type"] == "response.output_text.delta"]
    assert [(event["output_index"], event["delta"]) for event in deltas] == [
        (0, "one "),
        (0, "two"),
        (1, "thre"),
        (1, "e"),
        (2, "four"),
    ]


async def test_hand_written_frames_keep_their_sequence_numbers(server: ResponsesServer) -> None:
    frames = [{"type": "keepalive", "sequence_number": 7}, {"type": "error", "sequence_number": 3}]
    server.answer(frames)
    async with connect(server) as client:
        await client.send(input="hi")
        assert await client.events() == frames
