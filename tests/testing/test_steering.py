"""Steering: accepted inputs, their outcomes, and the order of the events."""

from typing import Any

import pytest
import trio
import trio.testing

from tests.testing.driver import NO_WAITING, Client, Json, connect, kinds, text_of
from trio_responses.testing import (
    MAX_PENDING_STEERS,
    Call,
    Reply,
    ResponsesServer,
    Script,
    open_test_server,
)

pytestmark = NO_WAITING

WEATHER = Call("get_weather", {"city": "Paris"}, call_id="call_1", unoffered=True)
OUTPUT = {"type": "function_call_output", "call_id": "call_1", "output": "21 degrees"}
STUB = {"type": "function_call_output", "call_id": "call_1", "name": "get_weather"}


async def begin(client: Client, **fields: Any) -> str:
    """Send a request, read to its second event, and return the id of its response."""
    await client.send(**{"input": "hi", **fields})
    events = await client.until("in_progress")
    response_id: str = events[0]["response"]["id"]
    return response_id


async def accepted(client: Client, response_id: str, text: str) -> Json:
    """Steer a response that is held, and return the accepted event."""
    await client.steer(response_id, text)
    event = await client.receive()
    assert event["type"] == "response.steer.accepted", event
    steer: Json = event["steer"]
    return steer


async def refused(client: Client, response_id: object, value: object, **fields: Any) -> Json:
    await client.steer(response_id, value, **fields)
    event = await client.receive()
    assert event["type"] == "response.steer.failed", event
    assert "id" not in event["steer"]
    assert event["steer"] == {"previous_response_id": response_id, "input": value}
    assert event["error"]["type"] == "invalid_request_error"
    assert event["error"]["message"]
    return event


def hold(script: Script, *, after_events: int | None = 2) -> trio.Event:
    gate = trio.Event()
    script.hold(gate, after_events=after_events)
    return gate


# Interruption


async def test_a_steered_response_ends_after_the_current_item(server: ResponsesServer) -> None:
    script = server.reply("one two", more=["three", "four"])
    gate = hold(script, after_events=5)
    async with connect(server) as client:
        await client.send(input="hi", instructions="Be brief.", store=False)
        parent = (await client.receive())["response"]["id"]
        await client.until("output_text.delta")
        steer = await accepted(client, parent, "shorter")
        gate.set()
        rest = [*await client.events(), *await client.events()]
    assert kinds(rest) == ["incomplete", "created", "in_progress", "completed"]
    assert [event["type"].split(".")[-1] for event in rest[:5]] == [
        "delta",
        "done",
        "done",
        "done",
        "incomplete",
    ]
    cut = rest[4]["response"]
    assert cut["status"] == "incomplete"
    assert cut["incomplete_details"] == {"reason": "steered"}
    assert [item["status"] for item in cut["output"]] == ["completed"]
    assert text_of(cut) == "one two"
    assert rest[5]["response"]["previous_response_id"] == parent
    assert rest[5]["response"]["instructions"] == "Be brief."
    assert rest[5]["response"]["store"] is False
    assert text_of(rest[-1]["response"]) == 'Turn 2: you said "shorter".'
    assert server.steers[0].id == steer["id"]
    assert server.steers[0].state == "committed"
    assert server.steers[0].successor == rest[5]["response"]["id"]


async def test_steering_events_share_the_sequence_numbers_of_the_response(
    server: ResponsesServer,
) -> None:
    gate = hold(server.reply("one", more=["two"]), after_events=5)
    async with connect(server) as client:
        await client.send(input="hi")
        events = await client.until("output_text.delta")
        response_id = events[0]["response"]["id"]
        await client.steer(response_id, "more")
        events.append(await client.receive())
        await client.steer(response_id, "")
        events.append(await client.receive())
        gate.set()
        events += await client.events()
        successor = await client.events()
    assert kinds(events) == [
        "created",
        "in_progress",
        "steer.accepted",
        "steer.failed",
        "incomplete",
    ]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert [event["sequence_number"] for event in successor] == list(range(len(successor)))


async def test_a_response_steered_before_its_first_item_has_no_output(
    server: ResponsesServer,
) -> None:
    gate = hold(server.reply("never said"))
    async with connect(server) as client:
        parent = await begin(client)
        await accepted(client, parent, "stop")
        gate.set()
        [end] = await client.events()
        await client.events()
    assert end["type"] == "response.incomplete"
    assert end["response"]["output"] == []
    assert [request.turn for request in server.requests] == [1, 2]


async def test_one_successor_commits_several_inputs_in_order(
    server: ResponsesServer,
) -> None:
    gate = hold(server.reply("never said"))
    parts = [{"type": "input_text", "text": "second"}]
    message = {"type": "message", "role": "user", "content": parts}
    async with connect(server) as client:
        parent = await begin(client)
        await accepted(client, parent, "first")
        await client.steer(parent, [message, {"role": "user", "content": "third"}])
        assert (await client.receive())["type"] == "response.steer.accepted"
        gate.set()
        await client.events()
        await client.events()
    _, successor = server.requests
    assert successor.steers == server.steers
    assert [steer.text for steer in server.steers] == ["first", "secondthird"]
    assert len({steer.id for steer in server.steers}) == 2
    assert successor.get("previous_response_id") == parent
    assert successor.history[1:] == successor.input_items
    assert successor.input_items[1:] == [message, {"role": "user", "content": "third"}]
    assert successor.turn == 4


async def test_a_successor_can_be_steered_but_its_parent_cannot(
    server: ResponsesServer,
) -> None:
    first, second = hold(server.reply("one")), hold(server.reply("two"))
    async with connect(server) as client:
        parent = await begin(client, store=False)
        await accepted(client, parent, "and two")
        first.set()
        events = await client.until("in_progress")
        successor = events[-1]["response"]["id"]
        late = await refused(client, parent, "late")
        assert late["error"]["code"] == "response_already_completed"
        await accepted(client, successor, "and three")
        second.set()
        await client.until("incomplete")
        last = (await client.events())[-1]["response"]
        assert last["previous_response_id"] == successor
        assert text_of(last) == 'Turn 3: you said "and three".'
        more = await client.response(input="on", store=False, previous_response_id=last["id"])
    assert text_of(more) == 'Turn 4: you said "on".'


async def test_the_lane_is_busy_until_the_last_successor(server: ResponsesServer) -> None:
    gate = hold(server.reply("one").on_lane("a"))
    async with connect(server) as client:
        parent = await begin(client, stream_id="a")
        await client.send(input="queued", stream_id="a")
        steer = await accepted(client, parent, "first me")
        gate.set()
        events = [event for _ in range(3) for event in await client.events()]
    assert {event["stream_id"] for event in events} == {"a"}
    ends = [event for event in events if event["type"] == "response.completed"]
    assert [text_of(end["response"]) for end in ends] == [
        'Turn 2: you said "first me".',
        'Turn 1: you said "queued".',
    ]
    assert steer["previous_response_id"] == parent
    assert server.steers[0].lane == "a"
    assert server.connections[0].max_active == 1
    statistics = server.statistics()
    assert (statistics.responses, statistics.active, statistics.max_active) == (3, 0, 1)


# End without interruption


async def test_a_response_steered_at_its_last_item_completes(server: ResponsesServer) -> None:
    gate = hold(server.reply("one two"), after_events=5)
    async with connect(server) as client:
        await client.send(input="hi")
        events = await client.until("output_text.delta")
        await accepted(client, events[0]["response"]["id"], "more")
        gate.set()
        assert kinds(await client.until("completed")) == ["completed"]
        assert (await client.receive())["type"] == "response.created"


async def test_a_script_can_let_a_steered_response_finish(server: ResponsesServer) -> None:
    gate = hold(server.reply("one", more=["two"]).on_steer("finish"))
    async with connect(server) as client:
        await accepted(client, await begin(client), "more")
        gate.set()
        end = (await client.events())[-1]
        await client.until("completed")
    assert end["type"] == "response.completed"
    assert text_of(end["response"]) == "onetwo"


async def test_input_before_the_start_of_a_successor_joins_the_successor(
    server: ResponsesServer,
) -> None:
    script = server.reply("one").on_steer("finish")
    first, second = hold(script), hold(script, after_events=None)
    async with connect(server) as client:
        parent = await begin(client)
        await accepted(client, parent, "in time")
        first.set()
        await client.events()
        await accepted(client, parent, "just in time")
        second.set()
        await client.events()
    assert [steer.text for steer in server.requests[-1].steers] == ["in time", "just in time"]


# Tool outputs


async def test_input_waits_for_tool_outputs(server: ResponsesServer) -> None:
    gate = hold(server.reply("Let me look.", calls=[WEATHER]))
    async with connect(server) as client:
        parent = await begin(client)
        steers = [await accepted(client, parent, text) for text in ("in French", "please")]
        gate.set()
        events = [*await client.events(), await client.receive(), await client.receive()]
        assert kinds(events) == ["completed", "steer.pending", "steer.pending"]
        assert [steer.state for steer in server.steers] == ["pending", "pending"]
        response = await client.response(input=[OUTPUT], previous_response_id=parent)
    for event, steer in zip(events[-2:], steers, strict=True):
        assert event["steer"] == steer
        assert event["reason"] == "waiting_for_required_input"
        assert event["required_input"] == [STUB]
    number = events[-3]["sequence_number"]
    assert [event["sequence_number"] for event in events[-2:]] == [number + 1, number + 2]
    assert text_of(response) == "Turn 3: the tool returned 21 degrees."
    request = server.requests[-1]
    assert request.input_items == [OUTPUT]
    assert [item["type"] for item in request.history] == [
        "message",
        "message",
        "function_call",
        "message",
        "message",
        "function_call_output",
    ]
    assert request.steers == server.steers
    assert {steer.successor for steer in server.steers} == {response["id"]}
    assert [steer.state for steer in server.steers] == ["committed", "committed"]


async def test_input_for_a_waiting_response_is_pending_at_once(
    server: ResponsesServer,
) -> None:
    gate = hold(server.calls(WEATHER))
    async with connect(server) as client:
        parent = await begin(client, stream_id="a")
        await accepted(client, parent, "one")
        gate.set()
        await client.until("steer.pending")
        late = await accepted(client, parent, "two")
        pending = await client.receive()
        assert (pending["type"], pending["steer"]) == ("response.steer.pending", late)
        assert pending["required_input"] == [STUB]
        assert pending["stream_id"] == "a"
        # A request on another lane does not affect the waiting input.
        await client.response(input=[OUTPUT], previous_response_id=parent, stream_id="b")
        assert [steer.state for steer in server.steers] == ["pending", "pending"]
        await client.response(input=[OUTPUT], previous_response_id=parent, stream_id="a")
    assert [steer.text for steer in server.requests[-1].steers] == ["one", "two"]


async def test_early_tool_outputs_suppress_the_pending_event(
    server: ResponsesServer,
) -> None:
    script = server.calls(WEATHER)
    first, second = hold(script), hold(script, after_events=None)
    async with connect(server) as client:
        parent = await begin(client)
        await accepted(client, parent, "in French")
        first.set()
        await client.events()
        await client.send(input=[OUTPUT], previous_response_id=parent)
        await trio.testing.wait_all_tasks_blocked()
        second.set()
        events = await client.events()
    assert kinds(events) == ["created", "in_progress", "completed"]
    assert server.steers[0].state == "committed"
    assert server.requests[-1].turn == 2


async def test_a_waiting_response_is_not_active(
    server: ResponsesServer,
) -> None:
    async with connect(server) as client:
        for number in range(16):
            lane = f"lane-{number}"
            gate = hold(server.calls(WEATHER))
            await accepted(client, await begin(client, stream_id=lane), "wait")
            gate.set()
            await client.until("steer.pending")
        assert server.statistics().active == 0
        await client.response(input="hi")


@pytest.mark.parametrize("early", [False, True])
async def test_a_request_that_continues_another_response_makes_the_input_fail(
    server: ResponsesServer, *, early: bool
) -> None:
    script = server.calls(WEATHER)
    first, second = hold(script), hold(script, after_events=None)
    async with connect(server) as client:
        parent = await begin(client)
        steer = await accepted(client, parent, "in French")
        first.set()
        await client.events()
        if not early:
            second.set()
            assert (await client.receive())["type"] == "response.steer.pending"
        await client.send(input="something else")
        await trio.testing.wait_all_tasks_blocked()
        second.set()
        events = await client.events()
    assert kinds(events) == ["steer.failed", "created", "in_progress", "completed"]
    assert events[0]["steer"] == {**steer, "input": "in French"}
    assert events[0]["error"]["code"] == "successor_creation_failed"
    assert text_of(events[-1]["response"]) == 'Turn 1: you said "something else".'
    assert server.requests[-1].steers == []
    assert (server.steers[0].state, server.steers[0].code) == (
        "failed",
        "successor_creation_failed",
    )


@pytest.mark.parametrize("why", ["refused", "failed", "forgotten"])
async def test_tool_outputs_that_end_in_an_error_make_the_input_fail(
    server: ResponsesServer, why: str
) -> None:
    gate = hold(server.calls(WEATHER))
    async with connect(server) as client:
        parent = await begin(client, store=False)
        steer = await accepted(client, parent, "in French")
        gate.set()
        await client.until("steer.pending")
        if why == "failed":
            server.fail()
        elif why == "forgotten":
            server.forget(parent)
        model = None if why == "refused" else "gpt-test"
        await client.send(model=model, input=[OUTPUT], previous_response_id=parent, store=False)
        events = await client.events()
        assert kinds(events) == ["steer.failed", "error"]
        assert events[0]["steer"] == {**steer, "input": "in French"}
        await client.response(input="the lane is free")
    assert server.steers[0].successor is None


async def test_the_pending_event_lists_calls_of_hand_written_frames(
    server: ResponsesServer,
) -> None:
    call = {"type": "custom_tool_call", "call_id": "call_2", "name": "sql", "input": "SELECT 1"}
    response = {"id": "resp_own", "status": "completed", "output": [call]}
    frames = [
        {"type": "response.created", "response": {"id": "resp_own"}, "sequence_number": 7},
        {"type": "response.completed", "response": response, "sequence_number": 9},
    ]
    gate = hold(server.answer(frames), after_events=1)
    async with connect(server) as client:
        await client.send(input="hi")
        await client.receive()
        await client.steer("resp_own", "more")
        assert (await client.receive())["sequence_number"] == 8
        gate.set()
        await client.receive()
        pending = await client.receive()
    assert pending["required_input"] == [{"type": "custom_tool_call_output", "call_id": "call_2"}]
    assert pending["sequence_number"] == 10


async def test_a_successor_can_be_hand_written_frames(server: ResponsesServer) -> None:
    gate = hold(server.reply("one"))
    response: Json = {"id": "resp_own", "status": "completed", "output": []}
    server.answer([{"type": "response.completed", "response": response, "sequence_number": 70}])
    async with connect(server) as client:
        await accepted(client, await begin(client), "more")
        gate.set()
        assert kinds(await client.events()) == ["incomplete"]
        assert (await client.receive())["sequence_number"] == 70
    assert server.steers[0].successor == "resp_own"


# Failures


@pytest.mark.parametrize("calls", [[], [WEATHER]])
async def test_a_script_can_make_accepted_input_fail(
    server: ResponsesServer, calls: list[Call]
) -> None:
    script = server.reply("one", more=["two"], calls=calls)
    gate = hold(script.on_steer("fail", code="response_not_active"))
    async with connect(server) as client:
        parent = await begin(client)
        steers = [await accepted(client, parent, text) for text in ("a", "b")]
        gate.set()
        events = [*await client.events(), await client.receive(), await client.receive()]
        await client.response(input=[OUTPUT] if calls else "on", previous_response_id=parent)
    assert kinds(events) == ["completed", "steer.failed", "steer.failed"]
    assert events[-2]["steer"] == {**steers[0], "input": "a"}
    assert events[-1]["steer"] == {**steers[1], "input": "b"}
    assert events[-1]["error"]["code"] == "response_not_active"
    assert events[-1]["sequence_number"] == events[-3]["sequence_number"] + 2
    assert {steer.state for steer in server.steers} == {"failed"}
    assert len(server.requests) == 2


async def test_a_successor_that_fails_at_once_makes_the_input_fail(
    server: ResponsesServer,
) -> None:
    gate = hold(server.reply("one"))
    server.fail("server_is_overloaded", status=503)
    async with connect(server) as client:
        parent = await begin(client, store=False)
        await accepted(client, parent, "more")
        gate.set()
        events = await client.until("steer.failed")
        assert kinds(events) == ["incomplete", "steer.failed"]
        assert events[-1]["error"]["code"] == "successor_creation_failed"
        await client.response(input="more", previous_response_id=parent, store=False)
    assert server.statistics().active == 0


async def test_a_successor_that_fails_after_its_start_has_committed_the_input(
    server: ResponsesServer,
) -> None:
    gate = hold(server.reply("one"))
    server.fail(after_events=1)
    async with connect(server) as client:
        await accepted(client, await begin(client), "more")
        gate.set()
        await client.events()
        assert kinds(await client.events()) == ["created", "error"]
    assert server.steers[0].state == "committed"


@pytest.mark.parametrize("how", ["error", "failed"])
async def test_a_response_that_fails_makes_the_input_fail(
    server: ResponsesServer, how: str
) -> None:
    if how == "error":
        gate = hold(server.fail(after_events=4))
    else:
        gate = hold(server.reply("one", status="failed").on_steer("finish"))
    async with connect(server) as client:
        steer = await accepted(client, await begin(client), "more")
        gate.set()
        events = await client.until("steer.failed")
        await client.response(input="the lane is free")
    assert kinds(events) == [how, "steer.failed"]
    assert events[-1]["steer"]["id"] == steer["id"]


async def test_input_stays_accepted_if_the_connection_is_lost(server: ResponsesServer) -> None:
    gate = hold(server.reply("one"))
    server.drop()
    async with connect(server) as client:
        await accepted(client, await begin(client), "more")
        gate.set()
        assert (await client.events())[-1]["type"] == "response.incomplete"
        assert await client.close_code() == 1006
    assert server.steers[0].state == "accepted"
    assert server.steers[0].successor is None


# Refusals


@pytest.mark.parametrize(
    "value",
    [
        "",
        [],
        None,
        5,
        ["text"],
        [OUTPUT],
        [{"role": "assistant", "content": "x"}],
        [{"role": "user"}],
        [{"role": "user", "content": []}],
        [{"role": "user", "content": [{"type": "output_text", "text": "x"}]}],
        [{"role": "user", "content": ["x"]}],
        [{"role": "user", "content": "x", "id": "msg_1"}],
        [{"role": "user", "content": "x", "type": "reasoning"}],
        [{"role": "user", "content": "good"}, {"role": "system", "content": "x"}],
    ],
)
async def test_input_that_is_not_a_user_message_is_refused(
    server: ResponsesServer, value: object
) -> None:
    gate = hold(server.reply("one"))
    async with connect(server) as client:
        event = await refused(client, await begin(client, stream_id="a"), value)
        assert event["error"]["code"] == "invalid_input"
        assert (event["stream_id"], event["sequence_number"]) == ("a", 2)
        gate.set()
        assert (await client.events())[-1]["type"] == "response.completed"
    assert (server.steers[0].state, server.steers[0].code) == ("failed", "invalid_input")


async def test_unknown_fields_of_a_steering_request_are_refused(server: ResponsesServer) -> None:
    server.stall(after_events=2)
    async with connect(server) as client:
        parent = await begin(client)
        for extra in ({"stream_id": "a"}, {"stream_id": ""}, {"model": "gpt-test"}):
            event = await refused(client, parent, "more", **extra)
            assert event["error"]["code"] == "invalid_input"
        assert (await refused(client, None, "more"))["error"]["code"] == "invalid_input"
        await client.send_json({"type": "response.steer", "previous_response_id": parent})
        assert (await client.receive())["error"]["code"] == "invalid_input"


async def test_steering_an_unknown_response_is_refused(server: ResponsesServer) -> None:
    async with connect(server) as other:
        elsewhere = (await other.response(input="hi"))["id"]
    async with connect(server) as client:
        for response_id in ("resp_nowhere", elsewhere):
            event = await refused(client, response_id, "more")
            assert event["error"]["code"] == "response_not_found"
            assert event["sequence_number"] == 0
            assert "stream_id" not in event


@pytest.mark.parametrize("calls", [[], [WEATHER]])
async def test_steering_an_ended_response_is_refused(
    server: ResponsesServer, calls: list[Call]
) -> None:
    server.reply("one", calls=calls)
    async with connect(server) as client:
        await client.send(input="hi", stream_id="a")
        end = (await client.events())[-1]
        event = await refused(client, end["response"]["id"], "more")
    assert event["error"]["code"] == "response_already_completed"
    assert event["sequence_number"] == end["sequence_number"] + 1
    assert event["stream_id"] == "a"


@pytest.mark.parametrize(
    "fields",
    [
        {"conversation": "conv_1"},
        {"context_management": [{"type": "compaction", "compact_threshold": 1000}]},
        {"multi_agent": {"enabled": True}},
    ],
)
async def test_steering_an_unsteerable_request_is_refused(
    server: ResponsesServer, fields: dict[str, Any]
) -> None:
    server.stall(after_events=2)
    async with connect(server) as client:
        event = await refused(client, await begin(client, **fields), "more")
    assert event["error"]["code"] == "steering_not_supported"


async def test_a_server_without_steering_refuses_every_input() -> None:
    async with open_test_server(steering=False) as server, connect(server) as client:
        server.stall(after_events=2)
        event = await refused(client, await begin(client), "more")
    assert event["error"]["code"] == "steering_not_supported"


async def test_input_beyond_the_limit_of_one_response_is_refused(server: ResponsesServer) -> None:
    gate = hold(server.reply("one"))
    async with connect(server) as client:
        parent = await begin(client)
        for number in range(MAX_PENDING_STEERS):
            await accepted(client, parent, f"number {number}")
        event = await refused(client, parent, "one more")
        assert event["error"]["code"] == "too_many_pending_steers"
        gate.set()
        successor = (await client.until("created"))[-1]["response"]["id"]
        await client.events()
        assert len(server.requests[-1].steers) == MAX_PENDING_STEERS
        server.stall(after_events=2)
        again = await begin(client, previous_response_id=successor)
        await accepted(client, again, "the next response has a count of its own")


async def test_refusals_of_steering_can_be_scripted(server: ResponsesServer) -> None:
    gate = hold(server.reply("one"))
    server.refuse_steers("response_not_active", times=2)
    server.refuse_steers("a_code_of_tomorrow")
    async with connect(server) as client:
        parent = await begin(client)
        codes = [(await refused(client, parent, "x"))["error"]["code"] for _ in range(3)]
        await accepted(client, parent, "more")
        server.refuse_steers("response_not_active", times=None)
        server.clear_scripts()
        await accepted(client, parent, "more")
        gate.set()
    assert codes == ["response_not_active", "response_not_active", "a_code_of_tomorrow"]


async def test_steering_is_answered_while_all_responses_are_held(server: ResponsesServer) -> None:
    server.respond_with(lambda _: Reply("one", more=["two"], delay=1000))
    async with connect(server) as client:
        parent = await begin(client)
        before = trio.current_time()
        await accepted(client, parent, "more")
        assert trio.current_time() == before
        assert kinds(await client.until("created")) == ["incomplete", "created"]


SEARCH: Json = {"type": "tool_search_call", "id": "ts_1", "call_id": "call_1", "arguments": {}}


SHELL: Json = {
    "type": "shell_call",
    "id": "sh_1",
    "call_id": "call_1",
    "action": {"commands": ["ls"]},
}


APPROVAL = {"type": "mcp_approval_request", "id": "mcpr_1", "name": "f", "arguments": "{}"}


HOSTED = {"type": "container_reference", "container_id": "cntr_1"}


async def after_the_end(server: ResponsesServer, *output: Json) -> Json:
    """Steer a response with this output, and return the first event after its end."""
    response = {"id": "resp_own", "status": "completed", "output": output}
    frames = [
        {"type": "response.created", "response": {"id": "resp_own"}, "sequence_number": 0},
        {"type": "response.completed", "response": response, "sequence_number": 1},
    ]
    gate = trio.Event()
    server.answer(frames).hold(gate, after_events=1)
    async with connect(server) as client:
        await client.send(input="hi")
        await client.receive()
        await client.steer("resp_own", "more")
        await client.receive()
        gate.set()
        await client.receive()
        return await client.receive()


@pytest.mark.parametrize(
    ("call", "stub"),
    [
        (
            {**SEARCH, "execution": "client"},
            {"type": "tool_search_output", "call_id": "call_1", "execution": "client"},
        ),
        (APPROVAL, {"type": "mcp_approval_response", "approval_request_id": "mcpr_1"}),
        (
            {**SHELL, "environment": {"type": "local"}},
            {"type": "shell_call_output", "call_id": "call_1"},
        ),
    ],
)
async def test_input_waits_for_every_kind_of_call(
    call: Json, stub: Json, server: ResponsesServer
) -> None:
    event = await after_the_end(server, call)
    assert event["type"] == "response.steer.pending"
    assert event["required_input"] == [stub]


@pytest.mark.parametrize(
    "output",
    [
        [{**SEARCH, "execution": "server", "call_id": None}],
        [{**SHELL, "environment": HOSTED}],
        [SHELL, {"type": "shell_call_output", "call_id": "call_1", "output": []}],
    ],
)
async def test_input_does_not_wait_for_calls_that_the_server_answers(
    output: list[Json], server: ResponsesServer
) -> None:
    event = await after_the_end(server, *output)
    assert event["type"] == "response.created"
