"""P7, P10: histories are replayed in the form that the API accepts, and none is stuck for ever."""

from collections.abc import Awaitable, Callable
from typing import Any, cast

import msgspec
import pytest
import trio
from msgspec import Raw

from tests.conversation.rig import deltas, history, open_conversation, open_steady, user
from tests.conversation.runs.rig import DONE, WEATHER, answers, function_call, say_raw
from tests.turn.rig import Json, message
from trio_responses import (
    APIError,
    ConfigurationError,
    ConnectionLost,
    Conversation,
    Limits,
    ReplayPolicy,
    RequestTooLarge,
    function_tool,
)
from trio_responses._conversation.history import History
from trio_responses._conversation.settings import TurnSettings
from trio_responses._conversation.turn import ConversationRequest
from trio_responses._protocol.continuation import ContinuationPoint, Placement
from trio_responses._protocol.replay import Origin, Piece
from trio_responses._turn.request_builder import raw_input
from trio_responses._wire import Response
from trio_responses.testing import Call, Fail, Request, ResponsesServer

THOUGHT: Json = {
    "type": "reasoning",
    "id": "rs_1",
    "summary": [],
    "encrypted_content": "g",
    "status": "completed",
}
CLEAN_THOUGHT = {name: value for name, value in THOUGHT.items() if name != "status"}
PLAIN_THOUGHT: Json = {"type": "reasoning", "id": "rs_2"}
INTERRUPTED = "The call was interrupted: whether it had an effect is not known."
CLICK: Json = {
    "type": "computer_call",
    "id": "cu_1",
    "call_id": "call_1",
    "status": "completed",
    "pending_safety_checks": [],
    "action": {"type": "click", "x": 1, "y": 2, "button": "left"},
}
IMAGE: Json = {"type": "input_image", "image_url": "data:image/png;base64,AAAA"}


def without_user(request: Request) -> list[Json]:
    """Return the input of a request but for the messages of the user."""
    return [item for item in request.input_items if item.get("role") != "user"]


@function_tool
async def weather(city: str) -> str:
    await trio.sleep_forever()
    return city


async def start_run(conversation: Conversation, **options: Any) -> None:
    """Cancel a run while its tool runs."""
    with trio.move_on_after(5) as scope:
        await conversation.run("Warm?", **options)
    assert scope.cancelled_caught


# --- The form of input items -------------------------------------------------------------


async def reset(server: ResponsesServer, conversation: Conversation) -> None:
    del conversation
    await server.reset_all()


async def replace(server: ResponsesServer, conversation: Conversation) -> None:
    del server
    await conversation.replace_history(conversation.raw_items)


@pytest.mark.parametrize("lose_the_server", [reset, replace])
async def test_full_input_has_the_fields_of_input_items(
    narrow_server: ResponsesServer,
    lose_the_server: Callable[[ResponsesServer, Conversation], Awaitable[None]],
) -> None:
    say_raw(narrow_server, THOUGHT, message("Hello"))
    async with open_conversation(narrow_server, store=False) as conversation:
        await conversation.create("Hi")
        await lose_the_server(narrow_server, conversation)
        await conversation.create("Go on")
        assert history(conversation)[1] == THOUGHT
        assert msgspec.json.decode(conversation.input_items[1]) == CLEAN_THOUGHT
    wanted = [user("Hi"), CLEAN_THOUGHT, message("Hello"), user("Go on")]
    assert narrow_server.requests[1].input_items == wanted


async def test_a_restored_conversation_and_a_fork_replay_the_same_form(
    narrow_server: ResponsesServer,
) -> None:
    say_raw(narrow_server, THOUGHT, PLAIN_THOUGHT, message("Hello"))
    async with open_conversation(narrow_server, store=False) as conversation:
        await conversation.create("Hi")
        fork = await conversation.fork()
        await narrow_server.reset_all()
        await fork.create("Go on")
        saved = conversation.checkpoint()
    async with (
        open_steady(narrow_server) as connection,
        connection.restore_conversation(saved) as restored,
    ):
        assert restored.checkpoint() == saved
        await restored.create("Go on")
    wanted = [user("Hi"), CLEAN_THOUGHT, message("Hello"), user("Go on")]
    assert [request.input_items for request in narrow_server.requests[1:]] == [wanted] * 2


@pytest.mark.parametrize(
    ("stored", "kept"), [((True, True), True), ((False, True), False), ((True, False), False)]
)
async def test_reasoning_that_no_server_has_is_left_out(
    narrow_server: ResponsesServer, stored: tuple[bool, bool], *, kept: bool
) -> None:
    """The setting ``store`` changes between the turns."""
    say_raw(narrow_server, PLAIN_THOUGHT, message("Hello"))
    async with open_conversation(narrow_server) as conversation:
        await conversation.create("Hi", store=stored[0])
        await conversation.create("Go on", store=stored[1], temperature=0.5)
    reasoning: list[Json] = [{**PLAIN_THOUGHT, "summary": []}] if kept else []
    assert without_user(narrow_server.requests[1]) == [*reasoning, message("Hello")]


@pytest.mark.parametrize("restored", [False, True])
async def test_reasoning_of_another_model_is_left_out(
    narrow_server: ResponsesServer, *, restored: bool
) -> None:
    say_raw(narrow_server, THOUGHT, message("Hello"))
    async with open_steady(narrow_server) as connection:
        async with connection.conversation(model="a", store=False) as conversation:
            await conversation.create("Hi")
            saved = conversation.checkpoint()
            if not restored:
                await conversation.create("Go on", model="b")
                await conversation.create("Go on")
        async with connection.restore_conversation(saved) as conversation:
            await conversation.create("Go on", model="b")
            await conversation.create("Go on")
    thoughts = [
        [item["encrypted_content"] for item in request.input_items if item["type"] == "reasoning"]
        for request in narrow_server.requests[1:3]
    ]
    assert thoughts == [[], ["g"]]


async def test_input_that_is_the_output_of_another_turn_gets_the_form_of_input(
    server: ResponsesServer,
) -> None:
    async with open_conversation(server, store=False) as conversation:
        await conversation.create(cast("Any", [user("Hi"), THOUGHT, message("Hello")]))
    assert server.requests[0].input_items == [user("Hi"), CLEAN_THOUGHT, message("Hello")]


# --- Turns after an interrupted run ------------------------------------------------------


async def read_stream(conversation: Conversation) -> None:
    async with conversation.stream("Never mind") as stream:
        await stream.get_final_response()


AFTER: dict[str, Callable[[Conversation], Awaitable[object]]] = {
    "create": lambda conversation: conversation.create("Never mind"),
    "stream": read_stream,
    "warm_up": lambda conversation: conversation.warm_up("Never mind"),
    "run": lambda conversation: conversation.run("Never mind"),
    "parse": lambda conversation: conversation.parse(dict[str, int], "Never mind"),
}
OUTPUT: Json = {"type": "function_call_output", "call_id": "call_1", "output": INTERRUPTED}


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("method", AFTER)
async def test_a_turn_after_an_interrupted_run_answers_its_call(
    server: ResponsesServer, method: str, *, full: bool
) -> None:
    server.answer([WEATHER])
    async with open_conversation(server, store=False, tools=[weather]) as conversation:
        await start_run(conversation)
        if full:
            await server.reset_all()
        server.reply("{}")
        await AFTER[method](conversation)
        assert history(conversation)[2:4] == [OUTPUT, user("Never mind")]
    assert deltas(server) == [False, not full and method != "parse"]  # which has other settings
    assert server.requests[1].input_items[-2:] == [OUTPUT, user("Never mind")]


@pytest.mark.parametrize("full", [False, True])
async def test_outputs_that_exist_are_sent_and_other_calls_are_interrupted(
    server: ResponsesServer, *, full: bool
) -> None:
    """The run is cancelled while the second call runs; the third has not started."""

    @function_tool
    async def done() -> str:
        return "It is done"

    names = ["done", "weather", "weather"]
    server.calls(*(Call(name, {"city": "Oslo"} if n else {}) for n, name in enumerate(names)))
    tools = [done, weather]
    async with open_conversation(server, store=False, tools=tools) as conversation:
        await start_run(conversation, tools=tools, max_concurrency=1)
        if full:
            await server.reset_all()
        await conversation.create("Never mind")
        await conversation.create("Go on")
    assert [item["output"] for item in answers(server.requests[1])] == [
        "It is done",
        INTERRUPTED,
        INTERRUPTED,
    ]
    assert answers(server.requests[2]) == []
    assert deltas(server) == [False, not full, True]


async def test_a_turn_that_answers_a_call_itself_is_sent_as_it_is(server: ResponsesServer) -> None:
    server.call("ask", call_id="call_1", unoffered=True)
    mine: Json = {"type": "function_call_output", "call_id": "call_1", "output": "Yes"}
    async with open_conversation(server) as conversation:
        await conversation.create("Hi")
        await conversation.create(cast("Any", [mine]))
    assert server.requests[1].input_items == [mine]


async def test_forks_and_restored_conversations_answer_an_interrupted_call(
    server: ResponsesServer,
) -> None:
    server.answer([WEATHER])
    async with open_conversation(server, store=False, tools=[weather]) as conversation:
        await start_run(conversation)
        fork = await conversation.fork()
        await fork.create("Never mind")
        saved = conversation.checkpoint()
    async with (
        open_steady(server) as connection,
        connection.restore_conversation(saved) as restored,
    ):
        await restored.create("Never mind")
    assert deltas(server) == [False, True, False]
    assert [request.input_items[-2:] for request in server.requests[1:]] == [
        [OUTPUT, user("Never mind")]
    ] * 2


async def test_a_replaced_history_gets_outputs_for_its_calls(server: ResponsesServer) -> None:
    window = [user("Hi"), function_call("a", call_id="call_1"), CLEAN_THOUGHT]
    async with open_conversation(server) as conversation:
        await conversation.replace_history([*window, {**OUTPUT, "call_id": "call_2"}])
        await conversation.create("Never mind")
        await conversation.create("Go on")
    assert server.requests[0].input_items == [*window[:2], OUTPUT, user("Never mind")]
    assert deltas(server) == [False, True]


async def test_a_call_is_answered_once_also_if_the_turn_fails_first(
    server: ResponsesServer,
) -> None:
    server.answer([WEATHER])
    async with open_conversation(server, store=False, tools=[weather]) as conversation:
        await start_run(conversation)
        server.drop(after_events=2)
        with pytest.raises(ConnectionLost):
            await conversation.create("Never mind")
        await conversation.create("Never mind")
        assert sum(item == OUTPUT for item in history(conversation)) == 1
    assert server.requests[2].input_items[-2:] == [OUTPUT, user("Never mind")]


async def test_a_call_whose_output_has_no_text_is_left_out_with_its_reasoning(
    narrow_server: ResponsesServer,
) -> None:
    say_raw(narrow_server, THOUGHT, CLICK)
    async with open_conversation(narrow_server, store=False) as conversation:
        await conversation.create("Click")
        await conversation.create("Never mind")
        await conversation.create("Go on")
        assert history(conversation)[2] == CLICK
        saved = conversation.checkpoint()
    async with (
        open_steady(narrow_server) as connection,
        connection.restore_conversation(saved) as restored,
    ):
        await restored.run("Go on")
    assert narrow_server.requests[1].input_items == [user("Click"), user("Never mind")]
    assert deltas(narrow_server) == [False, False, True, False]
    assert not any(item["type"] == "computer_call" for item in narrow_server.requests[3].history)


@pytest.mark.parametrize("full", [False, True])
def test_an_output_is_not_sent_without_its_call(*, full: bool) -> None:
    """A call without a name has no input form; the server that made it takes its output."""
    nameless = {**function_call("", call_id="call_1"), "name": None}
    history = History([Piece(raw_input([user("Hi"), cast("Any", nameless)]), Origin())])
    settings = TurnSettings({"model": "m"})
    place = Placement(socket=object(), lane=None)
    if not full:
        history = held_by(history, place, settings)
    key = ("function_call", "call_1")
    history.track_calls().store_output(key, Raw(msgspec.json.encode(OUTPUT)))
    request = ConversationRequest(history, raw_input("Go on"), settings)
    sent = msgspec.json.decode(request.write(place, lambda _: "resp_1"))["input"]
    assert sent == ([user("Hi")] if full else [OUTPUT]) + [user("Go on")]
    request.commit(Response(id="resp_2", status="completed"), ())
    assert not history.track_calls().has_pending_calls
    assert history.unsent_outputs == []


def held_by(history: History, place: Placement, settings: TurnSettings) -> History:
    """Return a history that the server holds."""
    point = ContinuationPoint(placement=place, response_id="resp_1", settings=settings.canonical)
    return History(history.sources, server=point)


async def test_a_call_that_can_wait_for_its_output_is_not_interrupted(
    server: ResponsesServer,
) -> None:
    late = function_call("late", call_id="call_1") | {"async": True}
    mine: Json = {"type": "function_call_output", "call_id": "call_1", "output": "Yes"}
    async with open_conversation(server) as conversation:
        await conversation.replace_history([user("Hi"), late])
        await conversation.create("Meanwhile?")
        await server.reset_all()
        await conversation.create(cast("Any", [mine]))
    assert server.requests[0].input_items == [user("Hi"), late, user("Meanwhile?")]
    assert server.requests[1].input_items[1] == late
    assert answers(server.requests[1]) == [mine]


async def test_a_call_before_a_steering_input_is_answered(server: ResponsesServer) -> None:
    server.reply("One", calls=[Call("ask", call_id="call_1", unoffered=True)], delay=1)
    async with open_conversation(server, store=False) as conversation:
        async with conversation.stream("Hi") as stream:
            async for event in stream:
                if event.type == "response.output_item.done":
                    await stream.steer("But")
                    break
            await stream.get_final_response()
        await conversation.create("Never mind")
    outputs = [item for item in server.requests[-1].history if item["type"] == OUTPUT["type"]]
    called = [item for item in server.requests[-1].history if item["type"] == "function_call"]
    assert len(outputs) == len(called)


# --- A way out of every refused history --------------------------------------------------


def refuse_if(server: ResponsesServer, refused: Callable[[Json], object], code: str) -> None:
    """Refuse requests that have an item of a kind in their input or in their history."""

    def answer(request: Request) -> Any:
        if any(refused(item) for item in request.history):
            return Fail(code, status=400, message="The input is refused.")
        return DONE

    server.respond_with(answer)


REFUSED: dict[str, tuple[Callable[[Json], object], ReplayPolicy]] = {
    "invalid_encrypted_content": (
        lambda item: item["type"] == "reasoning",
        ReplayPolicy(reasoning="omit"),
    ),
    "invalid_image_url": (
        lambda item: "input_image" in str(item.get("content")),
        ReplayPolicy(images="omit"),
    ),
    "unknown_parameter": (
        lambda item: "status" in item and item["type"] == "function_call",
        ReplayPolicy(statuses="omit"),
    ),
    "string_above_max_length": (
        lambda item: len(str(item.get("output", ""))) > 1000,
        ReplayPolicy(max_output=1000),
    ),
    "not_found": (lambda item: item.get("id") == "rs_1", ReplayPolicy(reasoning="omit")),
    "context_length_exceeded": (
        lambda item: item.get("content") == "Hi",
        ReplayPolicy(max_items=4),
    ),
}
HISTORY: list[Json] = [
    user("Hi"),
    user("Look"),
    {**user("Look"), "content": [IMAGE]},
    CLEAN_THOUGHT,
    function_call("a", call_id="call_1"),
    {**OUTPUT, "output": "x" * 5000},
    user("And?"),
    {"type": "message", "role": "assistant", "content": "Well"},
]


@pytest.mark.parametrize("code", REFUSED)
async def test_a_policy_is_the_way_out_of_a_history_that_the_server_refuses(
    server: ResponsesServer, code: str
) -> None:
    refused, policy = REFUSED[code]
    refuse_if(server, refused, code)
    async with open_conversation(server, store=False) as conversation:
        await conversation.replace_history(HISTORY)
        for _ in range(2):
            with pytest.raises(APIError):
                await conversation.create("Go on")
        conversation.replay_policy = policy
        assert (await conversation.create("Go on")).output_text == DONE
        assert (await conversation.create("Go on")).output_text == DONE
        assert deltas(server) == [False, False, False, True]
        assert history(conversation)[: len(HISTORY)] == HISTORY
        saved = conversation.checkpoint()
        await conversation.replace_history(conversation.input_items)
        conversation.replay_policy = ReplayPolicy()
        assert (await conversation.create("Go on")).output_text == DONE
    async with (
        open_steady(server) as connection,
        connection.restore_conversation(saved) as restored,
    ):
        assert restored.replay_policy == policy
        assert (await restored.create("Go on")).output_text == DONE
        fork = await restored.fork()
        assert fork.replay_policy == policy


async def test_another_policy_makes_the_next_turn_full_input(server: ResponsesServer) -> None:
    async with open_conversation(server) as conversation:
        await conversation.create("one")
        conversation.replay_policy = ReplayPolicy()
        await conversation.create("two")
        conversation.replay_policy = ReplayPolicy(images="omit")
        await conversation.create("three")
        await conversation.create("four")
    assert deltas(server) == [False, True, False, True]


async def test_a_policy_is_checked(server: ResponsesServer) -> None:
    async with open_conversation(server) as conversation:
        with pytest.raises(ConfigurationError, match="replay_policy must be ReplayPolicy"):
            conversation.replay_policy = cast("Any", "omit")


async def test_an_edited_history_is_a_way_out(server: ResponsesServer) -> None:
    """Here without the messages of the user that the server refuses."""
    refuse_if(server, lambda item: item.get("content") == "Hi", "invalid_prompt")
    async with open_conversation(server) as conversation:
        await conversation.replace_history(HISTORY)
        with pytest.raises(APIError):
            await conversation.create("Go on")
        await conversation.replace_history(
            [raw for raw in conversation.raw_items if b'"Hi"' not in bytes(raw)]
        )
        assert (await conversation.create("Go on")).output_text == DONE


@pytest.mark.parametrize("way", ["clear", "fork"])
async def test_a_history_that_is_refused_for_any_reason_can_be_left(
    server: ResponsesServer, way: str
) -> None:
    async with open_conversation(server) as conversation:
        await conversation.create("Hi")
        earlier = await conversation.fork()
        await conversation.create("Look")
        refuse_if(server, lambda item: item.get("content") == "Look", "new_code")
        with pytest.raises(APIError):
            await conversation.create("Go on")
        if way == "clear":
            await conversation.clear_history()
        current = conversation if way == "clear" else earlier
        assert (await current.create("Go on")).output_text == DONE


def large_tool(size: int) -> Any:
    @function_tool
    async def weather(city: str) -> Json:
        return {"type": "function_call_output", "call_id": "call_1", "output": city[0] * size}

    return weather


async def test_a_tool_output_of_11_mb_is_shortened_to_what_the_api_accepts(
    server: ResponsesServer,
) -> None:
    server.answer([WEATHER])
    server.reply(DONE)
    async with open_conversation(server, tools=[large_tool(11_000_000)]) as conversation:
        assert (await conversation.run("Warm?")).output_text == DONE
        await server.reset_all()
        await conversation.create("Go on")
    for request in server.requests[1:]:
        (output,) = answers(request)
        assert len(output["output"]) <= 10_485_760


@pytest.mark.parametrize("way", ["policy", "replaced", "cleared"])
async def test_outputs_that_no_request_can_hold_do_not_block_the_conversation(
    server: ResponsesServer, way: str
) -> None:
    server.answer([WEATHER])
    async with (
        open_steady(server, limits=Limits(max_request_bytes=100_000)) as connection,
        connection.conversation(model="m", tools=[large_tool(200_000)]) as conversation,
    ):
        with pytest.raises(RequestTooLarge):
            await conversation.run("Warm?")
        with pytest.raises(RequestTooLarge):
            await conversation.create("Never mind")
        if way == "policy":
            conversation.replay_policy = ReplayPolicy(max_output=10_000)
        elif way == "replaced":
            await conversation.replace_history(conversation.raw_items[:1])
        else:
            await conversation.clear_history()
        server.reply(DONE)
        assert (await conversation.create("Never mind")).output_text == DONE
    sent = answers(server.requests[-1])
    assert [len(item["output"]) for item in sent] == ([10_000] if way == "policy" else [])


async def test_an_input_that_is_too_large_does_not_stay(server: ResponsesServer) -> None:
    async with (
        open_steady(server, limits=Limits(max_request_bytes=100_000)) as connection,
        connection.conversation(model="m") as conversation,
    ):
        for method in (conversation.run, conversation.create):
            with pytest.raises(RequestTooLarge):
                await method("x" * 200_000)
            assert (await conversation.run("Hi")).output_text
