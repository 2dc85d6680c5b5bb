"""The calls of one response: concurrency, time limits, cancellation, errors and ids."""

import gc
import weakref
from typing import TYPE_CHECKING, Any

import pytest
import trio

from tests.conversation.rig import history, open_conversation, open_steady, user
from tests.conversation.runs.rig import (
    DONE,
    WEATHER,
    Worker,
    calls_of,
    function_call,
    is_paired,
    keep_calling,
    outputs,
    say_raw,
)
from tests.turn.rig import Crowd, ask, assert_at_rest, heard
from trio_responses import (
    CallNotRejectable,
    ConfigurationError,
    ResponseFailedError,
    ToolFinished,
    ToolStarted,
    function_tool,
)
from trio_responses.testing import Call, ResponsesServer
from trio_responses.types import CustomTool, InputImage, InputText

if TYPE_CHECKING:
    from trio_responses._tools.toolbox import OnToolError

INTERRUPTED = "The call was interrupted: whether it had an effect is not known."
AMBIGUOUS = (
    "The call was not run: several calls have this call_id. Call again, with an id for each."
)
NOT_RUN = "The call was cut off by a limit, and not run."


class OutOfOrder(Exception):
    """The exception of a tool in these tests."""


@function_tool
async def hang() -> str:
    await trio.sleep_forever()
    raise AssertionError


@function_tool
async def fail() -> str:
    await trio.sleep(1)
    raise OutOfOrder("the thermometer is broken")


@function_tool
async def weather(city: str) -> str:
    await trio.lowlevel.checkpoint()
    return f"21 degrees in {city}"


# --- Concurrency -------------------------------------------------------------------------


async def test_outputs_are_sent_in_the_order_of_the_calls(
    server: ResponsesServer,
) -> None:
    server.answer(calls_of(0, 5))
    worker = Worker()
    async with open_conversation(server, tools=[worker.tool]) as conversation:
        async with conversation.run_stream("Work.") as run:
            events = [event async for event in run]
        assert is_paired(history(conversation))
    ended = [event.call for event in events if isinstance(event, ToolFinished)]
    assert [getattr(call, "call_id", None) for call in ended] == [f"0-{n}" for n in range(5)][::-1]
    assert outputs(server.requests[1]) == [f"0/{n}" for n in range(5)]


@pytest.mark.parametrize("limit", [1, 2, 7])
async def test_no_more_than_max_concurrency_tools_run_at_once(
    server: ResponsesServer, limit: int
) -> None:
    server.answer(calls_of(0, 7))
    worker = Worker()
    async with open_conversation(server, tools=[worker.tool]) as conversation:
        started = finished = most = 0
        async with conversation.run_stream("Work.", max_concurrency=limit) as run:
            async for event in run:
                started += isinstance(event, ToolStarted)
                finished += isinstance(event, ToolFinished)
                most = max(most, started - finished)
    assert worker.most == most == limit
    assert started == finished == len(worker.runs) == 7


async def test_calls_that_had_not_started_are_run_by_the_next_run(
    server: ResponsesServer,
) -> None:
    """With max_concurrency=1, one call had started when the run was cancelled."""
    server.answer(calls_of(0, 3))
    worker = Worker()
    async with open_conversation(server, tools=[worker.tool]) as conversation:
        with trio.move_on_after(0.05):
            await conversation.run("Work.", max_concurrency=1)
        assert worker.runs == {(0, 0): 1}
        await conversation.run()
    assert outputs(server.requests[1]) == [INTERRUPTED, "0/1", "0/2"]
    assert worker.runs == {(0, n): 1 for n in range(3)}


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_rounds": 0},
        {"max_concurrency": 0},
        {"max_concurrency": float("nan")},
        {"max_tool_output": 0},
    ],
)
async def test_invalid_options_of_a_run_are_rejected(
    server: ResponsesServer, wrong: dict[str, Any]
) -> None:
    async with open_conversation(server) as conversation:
        with pytest.raises(ConfigurationError, match="at least 1"):
            await conversation.run("Hello.", **wrong)
        with pytest.raises(ConfigurationError, match="same name"):
            await conversation.run("Hello.", tools=[weather, weather])
        unknown: dict[str, Any] = {"generate": False}
        with pytest.raises(TypeError, match=r"run\(\) of a conversation has no .* 'generate'"):
            await conversation.run("Hello.", **unknown)
    assert server.requests == []


# --- Time limits and cancellation --------------------------------------------------------


async def test_each_call_has_its_own_time_limit(server: ResponsesServer) -> None:
    """The time limit of a tool precedes that of the run."""

    @function_tool(timeout=7)
    async def patient() -> str:
        await trio.sleep(6)
        return "here"

    server.answer([Call("hang", call_id="1"), Call("patient", call_id="2")])
    async with open_conversation(server, tools=[hang, patient]) as conversation:
        since = trio.current_time()
        await conversation.run("Go.", tool_timeout=5)
        assert 6 <= trio.current_time() - since < 7
        server.answer([Call("patient", call_id="3")])
        await conversation.run("Go.", tools=[hang, patient])
    assert outputs(server.requests[1]) == [
        "Error: the tool 'hang' took longer than its limit of 5 s",
        "here",
    ]


async def test_a_tool_that_exceeds_its_time_limit_may_end_the_run(server: ResponsesServer) -> None:
    server.answer([Call("hang", call_id="1")])
    async with open_conversation(server, tools=[hang]) as conversation:
        with pytest.raises(trio.TooSlowError):
            await conversation.run("Go.", tool_timeout=5, on_tool_error="raise")
        await conversation.run()
    assert outputs(server.requests[1]) == [
        "Error: the tool 'hang' took longer than its limit of 5 s"
    ]


async def test_the_time_limit_of_a_run_holds_for_handlers(narrow_server: ResponsesServer) -> None:
    """By the name of a custom tool, or the type of a call."""

    async def hang_on(_: Any) -> str:
        await trio.sleep_forever()
        raise AssertionError

    shell = {"type": "shell_call", "id": "sh_1", "call_id": "2", "action": {"commands": ["ls"]}}
    custom = {"type": "custom_tool_call", "id": "ct_1", "call_id": "1", "name": "sql", "input": "x"}
    say_raw(narrow_server, custom, {**shell, "status": "completed"})
    async with open_conversation(narrow_server, tools=[CustomTool(name="sql")]) as conversation:
        since = trio.current_time()
        handlers = {"sql": hang_on, "shell_call": hang_on}
        await conversation.run("Go.", handlers=handlers, tool_timeout=5)
        assert trio.current_time() - since == pytest.approx(5)
    text, [said] = outputs(narrow_server.requests[1])
    assert text == "Error: the tool 'sql' took longer than its limit of 5 s"
    assert said["stderr"] == "Error: the tool 'shell_call' took longer than its limit of 5 s"


@pytest.mark.parametrize("by", ["a deadline", "break", "an exception", "cancelling an event"])
async def test_leaving_a_run_cancels_its_tools(server: ResponsesServer, by: str) -> None:
    """P1, P5: the lane can be used, nothing stays reserved, and no task is left."""
    ended: list[str] = []

    @function_tool
    async def linger() -> str:
        try:
            await trio.sleep_forever()
        finally:
            ended.append("it")
        raise AssertionError

    server.answer([Call("linger", call_id="1")])
    async with open_steady(server) as connection, Crowd():
        async with connection.conversation(model="m", tools=[linger]) as conversation:
            with trio.move_on_after(3):
                try:
                    async with conversation.run_stream("Go.") as run:
                        if by == "cancelling an event":
                            with trio.move_on_after(2):
                                await run.get_final_response()
                            await trio.testing.wait_all_tasks_blocked()
                            assert ended == ["it"]
                        async for event in run:
                            if by != "a deadline" and isinstance(event, ToolStarted):
                                if by == "break":
                                    break
                                raise OutOfOrder
                except OutOfOrder:
                    assert by == "an exception"
            assert ended == ["it"]
            assert await ask(connection, "you?") == heard("you?")
            await conversation.run("Go on.")
            assert is_paired(history(conversation))
        assert_at_rest(connection)
    assert outputs(server.requests[-1]) == [INTERRUPTED]


async def test_outputs_of_a_turn_that_was_cancelled_are_sent_by_the_next_run(
    server: ResponsesServer,
) -> None:
    """The calls do not run again."""
    server.answer([WEATHER])
    server.stall()
    runs: list[str] = []

    @function_tool(name="weather")
    async def counting(city: str) -> str:
        await trio.lowlevel.checkpoint()
        runs.append(city)
        return "21"

    async with open_conversation(server, tools=[counting]) as conversation:
        with trio.move_on_after(10):
            await conversation.run("Is it warm?")
        assert len(server.requests) == 2
        assert [item["type"] for item in history(conversation)] == ["message", "function_call"]
        await conversation.run("Well?")
        assert is_paired(history(conversation))
    assert runs == ["Oslo"]
    assert [outputs(request)[-1:] for request in server.requests] == [[], ["21"], ["21"]]


# --- Errors ------------------------------------------------------------------------------


async def test_the_exception_of_a_tool_is_sent_to_the_model(server: ResponsesServer) -> None:
    server.answer([Call("fail", call_id="1"), Call("weather", {"city": "Oslo"}, call_id="2")])
    async with (
        open_conversation(server, tools=[fail, weather]) as conversation,
        conversation.run_stream("Go.") as run,
    ):
        events = [event async for event in run]
    errors = {event.name: event.error for event in events if isinstance(event, ToolFinished)}
    assert isinstance(errors["fail"], OutOfOrder)
    assert errors["weather"] is None
    assert outputs(server.requests[1]) == [
        "Error: OutOfOrder: the thermometer is broken",
        "21 degrees in Oslo",
    ]


async def test_the_exception_of_a_tool_cancels_the_others_and_is_raised_unchanged(
    server: ResponsesServer,
) -> None:
    """The next run sends an output for each call; no call runs again."""
    called = [Call("weather", {"city": "Oslo"}), Call("fail"), Call("hang"), Call("fail")]
    calls = [Call(c.name, c.arguments, call_id=str(n)) for n, c in enumerate(called)]
    server.answer(calls)
    async with open_conversation(server, tools=[fail, weather, hang]) as conversation:
        with pytest.raises(OutOfOrder, match="thermometer"):
            await conversation.run("Go.", on_tool_error="raise")
        assert len(server.requests) == 1
        await conversation.run()
        assert is_paired(history(conversation))
    first, failed, hung, other = outputs(server.requests[1])
    assert first == "21 degrees in Oslo"
    assert hung == INTERRUPTED
    text = "Error: OutOfOrder: the thermometer is broken"
    assert text in {failed, other} <= {text, INTERRUPTED}


async def test_the_other_tools_are_cancelled_even_if_the_run_is_read_slowly(
    server: ResponsesServer,
) -> None:
    ended: list[float] = []

    @function_tool
    async def linger() -> str:
        try:
            await trio.sleep_forever()
        finally:
            ended.append(trio.current_time())
        raise AssertionError

    server.answer([Call("fail", call_id="1"), Call("linger", call_id="2")])
    async with open_conversation(server, tools=[fail, linger]) as conversation:
        since = trio.current_time()

        async def read_slowly() -> None:
            async with conversation.run_stream("Go.", on_tool_error="raise") as run:
                async for event in run:
                    if isinstance(event, ToolStarted):
                        await trio.sleep(100)

        with pytest.raises(OutOfOrder):
            await read_slowly()
        assert ended == [pytest.approx(since + 1)]


async def test_an_exception_group_of_a_tool_is_raised_unchanged(server: ResponsesServer) -> None:
    errors = [ValueError("1"), ValueError("2")]

    @function_tool
    async def fail_twice() -> str:
        await trio.lowlevel.checkpoint()
        raise ExceptionGroup("the tool's", errors)

    server.answer([Call("fail_twice", call_id="1")])
    async with open_conversation(server, tools=[fail_twice]) as conversation:
        with pytest.raises(ExceptionGroup) as raised:
            await conversation.run("Go.", on_tool_error="raise")
    assert raised.value.message == "the tool's"
    assert list(raised.value.exceptions) == errors


@pytest.mark.parametrize("choice", ["return", "raise"])
async def test_invalid_arguments_are_sent_back_to_the_model(
    server: ResponsesServer, choice: "OnToolError"
) -> None:
    misspelt = Call("wether", call_id="2", unoffered=True)
    server.answer([Call("weather", {"town": "Oslo"}, call_id="1"), misspelt])
    async with open_conversation(server, tools=[weather]) as conversation:
        await conversation.run("Go.", on_tool_error=choice)
    misfit, unknown = outputs(server.requests[1])
    assert misfit.startswith("Error: ")
    assert "town" in misfit
    assert unknown == "There is no tool named 'wether'."


async def test_an_error_text_with_lone_surrogates_is_sent_to_the_model(
    server: ResponsesServer,
) -> None:
    """File names that are not UTF-8 have lone surrogates in Python."""

    @function_tool
    async def read() -> str:
        await trio.lowlevel.checkpoint()
        raise FileNotFoundError("caf\udce9.txt")

    @function_tool
    async def name() -> str:
        await trio.lowlevel.checkpoint()
        return "caf\udce9.txt"

    server.answer([Call("read", call_id="1"), Call("name", call_id="2")])
    async with open_conversation(server, tools=[read, name]) as conversation:
        await conversation.run("Go.")
    text, returned = outputs(server.requests[1])
    assert text == "Error: FileNotFoundError: caf\ufffd.txt"
    assert returned == "caf\ufffd.txt"


# --- Exceptions of a nursery -------------------------------------------------------------


def noted(error: Exception, *notes: str) -> Exception:
    for note in notes:
        error.add_note(note)
    return error


async def raise_it(error: Exception) -> None:
    await trio.lowlevel.checkpoint()
    raise error


GROUPS: dict[str, tuple[list[Exception], str]] = {
    "one": ([ValueError("no such city")], "ValueError: no such city"),
    "with a note": (
        [noted(ValueError("no such city"), "Try Oslo.", "Or Rome.")],
        "ValueError: no such city\nTry Oslo.\nOr Rome.",
    ),
    "nested": (
        [ExceptionGroup("inner", [ExceptionGroup("innermost", [KeyError("x")])])],
        "KeyError: 'x'",
    ),
    "several": ([ValueError("a"), KeyError("b")], "ValueError: a\nKeyError: 'b'"),
    "equal": ([ValueError("a"), ValueError("a")], "ValueError: a"),
    "with a note of the group": (
        [noted(ExceptionGroup("inner", [ValueError("a")]), "In step 2.")],
        "ValueError: a\nIn step 2.",
    ),
    "too slow": ([trio.TooSlowError()], "the tool took too long"),
    "many": (
        [ValueError(str(number)) for number in range(12)],
        "\n".join([*(f"ValueError: {number}" for number in range(10)), "(and 2 more)"]),
    ),
}


@pytest.mark.parametrize("name", GROUPS)
async def test_the_model_is_told_the_causes_in_a_group(name: str, server: ResponsesServer) -> None:
    errors, text = GROUPS[name]

    @function_tool
    async def search() -> str:
        await trio.lowlevel.checkpoint()
        raise ExceptionGroup("Exceptions from Trio nursery", errors)

    server.answer([Call("search", call_id="1")])
    async with open_conversation(server, tools=[search]) as conversation:
        await conversation.run("Go.")
    assert outputs(server.requests[1]) == [f"Error: {text}"]


async def test_the_model_is_told_the_cause_that_a_nursery_of_a_tool_raises(
    server: ResponsesServer,
) -> None:
    """The sibling that the nursery cancels is no cause."""

    @function_tool
    async def search() -> str:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            nursery.start_soon(raise_it, noted(ValueError("no such city"), "Try Oslo."))
        raise AssertionError

    server.answer([Call("search", call_id="1")])
    async with (
        open_conversation(server, tools=[search]) as conversation,
        conversation.run_stream("Go.") as run,
    ):
        events = [event async for event in run]
    assert outputs(server.requests[1]) == ["Error: ValueError: no such city\nTry Oslo."]
    (finished,) = [event for event in events if isinstance(event, ToolFinished)]
    assert isinstance(finished.error, ExceptionGroup)
    assert finished.output == "Error: ValueError: no such city\nTry Oslo."


async def test_the_model_is_told_the_error_of_a_tool_that_its_time_limit_cancelled(
    server: ResponsesServer,
) -> None:
    @function_tool(timeout=1)
    async def search() -> str:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            try:
                await trio.sleep_forever()
            finally:
                raise ValueError("the connection was not closed")
        raise AssertionError

    server.answer([Call("search", call_id="1")])
    async with open_conversation(server, tools=[search]) as conversation:
        await conversation.run("Go.")
    assert outputs(server.requests[1]) == ["Error: ValueError: the connection was not closed"]


async def test_the_model_is_told_the_cause_in_a_group_of_a_handler(
    narrow_server: ResponsesServer,
) -> None:
    async def run_sql(call: Any) -> str:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(raise_it, ValueError(f"{call.input} is no SQL"))
        raise AssertionError

    call = {"type": "custom_tool_call", "id": "a", "call_id": "1", "name": "sql", "input": "drop"}
    say_raw(narrow_server, call)
    async with open_conversation(narrow_server) as conversation:
        await conversation.run("Go.", handlers={"sql": run_sql})
    assert outputs(narrow_server.requests[1]) == ["Error: ValueError: drop is no SQL"]


async def test_a_group_of_approve_ends_the_run_unchanged(server: ResponsesServer) -> None:
    error = ValueError("no terminal")

    async def approve(call: Any) -> bool:  # noqa: ARG001 - each call is asked for
        async with trio.open_nursery() as nursery:
            nursery.start_soon(raise_it, error)
        raise AssertionError

    server.answer([WEATHER])
    async with open_conversation(server, tools=[weather]) as conversation:
        with pytest.raises(ExceptionGroup) as raised:
            await conversation.run("Go.", approve=approve)
    assert raised.value.exceptions == (error,)


# --- Arguments and results ---------------------------------------------------------------


async def test_a_call_with_lost_arguments_is_answered_with_an_error(
    narrow_server: ResponsesServer,
) -> None:
    deleted: list[str] = []

    @function_tool(run_in_thread=False)
    def delete(path: str = "/", *, force: bool = True) -> None:  # noqa: ARG001 - its default counts
        deleted.append(path)

    texts = ["", "{}", "null"]
    say_raw(narrow_server, *(function_call("delete", text, str(n)) for n, text in enumerate(texts)))
    async with open_conversation(narrow_server, tools=[delete]) as conversation:
        await conversation.run("Go.")
    assert not deleted
    for output in outputs(narrow_server.requests[1]):
        assert output.startswith("Error: The arguments are empty: write a JSON object with the")


async def test_a_call_whose_arguments_are_an_object_runs(narrow_server: ResponsesServer) -> None:
    call: Any = {**function_call("weather"), "arguments": {"city": "Oslo\ufffd"}}
    custom = {"type": "custom_tool_call", "id": "b", "call_id": "2", "name": "sql", "input": [1]}

    async def run_sql(call: Any) -> str:
        await trio.lowlevel.checkpoint()
        return f"ran {call.input}"

    say_raw(narrow_server, call, custom)
    async with open_conversation(narrow_server, tools=[weather]) as conversation:
        await conversation.run("Go.", handlers={"sql": run_sql})
    assert outputs(narrow_server.requests[1]) == ["21 degrees in Oslo\ufffd", "ran [1]"]


async def test_half_a_surrogate_pair_in_arguments_runs_the_tool(
    narrow_server: ResponsesServer,
) -> None:
    say_raw(narrow_server, function_call("weather", '{"city": "Oslo \\ud83d"}'))
    async with open_conversation(narrow_server, tools=[weather]) as conversation:
        await conversation.run("Go.")
    assert outputs(narrow_server.requests[1]) == ["21 degrees in Oslo \ufffd"]


@pytest.mark.parametrize(
    "result",
    [
        (InputText(text="caption"), InputImage(file_id="f")),
        ["caption", InputImage(file_id="f")],
        ["caption", {"type": "input_image", "file_id": "f"}],
        [["caption"], [InputImage(file_id="f")]],
    ],
    ids=range(4),
)
async def test_a_result_with_an_image_is_sent_as_content_parts(
    result: Any, narrow_server: ResponsesServer
) -> None:
    parts = [InputText(text="caption"), InputImage(file_id="f")]
    if isinstance(result[0], list):
        parts[0] = InputText(text='["caption"]')

    @function_tool
    async def draw() -> Any:
        await trio.lowlevel.checkpoint()
        return result

    async def paint(call: Any) -> Any:  # noqa: ARG001 - each call has the same result
        await trio.lowlevel.checkpoint()
        return result

    custom = {"type": "custom_tool_call", "id": "b", "call_id": "2", "name": "paint", "input": ""}
    say_raw(narrow_server, function_call("draw"), custom)
    async with (
        open_conversation(narrow_server, tools=[draw]) as conversation,
        conversation.run_stream("Go.", handlers={"paint": paint}) as run,
    ):
        events = [event async for event in run]
    finished = [event.output for event in events if isinstance(event, ToolFinished)]
    assert finished == [parts, parts]
    assert outputs(narrow_server.requests[1]) == [[part.to_dict() for part in parts]] * 2


async def test_an_error_whose_text_raises_is_sent_by_its_class(server: ResponsesServer) -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    @function_tool
    async def sulk() -> str:
        await trio.lowlevel.checkpoint()
        raise Mute

    server.answer([Call("sulk", call_id="1")])
    async with open_conversation(server, tools=[sulk]) as conversation:
        await conversation.run("Go.")
    assert outputs(server.requests[1]) == ["Error: Mute: (no words)"]


async def test_a_keyboard_interrupt_in_a_tool_is_raised(server: ResponsesServer) -> None:
    @function_tool
    async def leave() -> str:
        await trio.lowlevel.checkpoint()
        raise KeyboardInterrupt

    server.answer([Call("hang", call_id="1"), Call("leave", call_id="2")])
    async with open_conversation(server, tools=[leave, hang]) as conversation:
        with pytest.raises(KeyboardInterrupt):
            await conversation.run("Go.")
        await conversation.run()
    assert outputs(server.requests[1]) == [INTERRUPTED, INTERRUPTED]


# --- Ids ---------------------------------------------------------------------------------


async def test_a_call_id_in_a_later_response_is_a_new_call(server: ResponsesServer) -> None:
    """Some servers use the same ids in each response; an old output is not sent again."""
    for city in ("Oslo", "Paris", "Rome"):
        server.call("weather", {"city": city}, call_id="call_1")
    async with open_conversation(server, tools=[weather]) as conversation:
        await conversation.run("Go.")
        assert is_paired(history(conversation))
        server.call("weather", {"city": "Bonn"}, call_id="call_1")
        await conversation.run("Go on.")
    assert [outputs(request) for request in server.requests] == [
        [],
        ["21 degrees in Oslo"],
        ["21 degrees in Paris"],
        ["21 degrees in Rome"],
        [],
        ["21 degrees in Bonn"],
    ]


@pytest.mark.parametrize("again", ["Oslo", "Rome"])
async def test_different_calls_with_one_id_do_not_run_and_equal_ones_run_once(
    narrow_server: ResponsesServer, again: str
) -> None:
    runs: list[str] = []

    @function_tool(name="weather")
    async def counting(city: str) -> str:
        await trio.lowlevel.checkpoint()
        runs.append(city)
        return city

    calls = [function_call("weather", f'{{"city": "{city}"}}') for city in ("Oslo", again)]
    say_raw(narrow_server, *calls, function_call("weather", '{"city": "Bonn"}', "call_2"))
    async with open_conversation(narrow_server, tools=[counting]) as conversation:
        await conversation.run("Go.")
    one_call = again == "Oslo"
    assert runs == (["Oslo", "Bonn"] if one_call else ["Bonn"])
    assert outputs(narrow_server.requests[1]) == ["Oslo" if one_call else AMBIGUOUS, "Bonn"]


async def test_two_computer_calls_with_one_id_end_the_run_and_do_not_run(
    narrow_server: ResponsesServer,
) -> None:
    """Their outputs have no place for the reason; the caller sends an output."""

    async def click(call: Any) -> Any:
        raise AssertionError(call)

    item = {"type": "computer_call", "call_id": "1", "status": "completed"}
    actions = [{"type": "click", "x": x, "y": 1, "button": "left"} for x in (1, 2)]
    say_raw(narrow_server, *({**item, "action": action} for action in actions))
    screen = {"type": "computer_screenshot", "image_url": "data:,"}
    async with open_conversation(narrow_server) as conversation:
        with pytest.raises(CallNotRejectable, match="several calls have this call_id"):
            await conversation.run("Go.", handlers={"computer_call": click})
        await conversation.run([{"type": "computer_call_output", "call_id": "1", "output": screen}])
    assert outputs(narrow_server.requests[1]) == [screen]


async def test_calls_of_two_types_with_one_id_are_two_calls(narrow_server: ResponsesServer) -> None:
    custom = {"type": "custom_tool_call", "call_id": "call_1", "name": "sql", "input": "select"}
    say_raw(narrow_server, function_call("weather", '{"city": "Oslo"}'), custom)

    async def query(_: Any) -> str:
        await trio.lowlevel.checkpoint()
        return "1 row"

    tools = [weather, {"type": "custom", "name": "sql"}]
    async with open_conversation(narrow_server, tools=tools) as conversation:
        await conversation.run("Go.", handlers={"sql": query})
    assert outputs(narrow_server.requests[1]) == ["21 degrees in Oslo", "1 row"]


# --- Incomplete and failed responses -----------------------------------------------------


async def test_an_incomplete_call_is_not_run(narrow_server: ResponsesServer) -> None:
    """The run returns the incomplete response; the next run tells the model the reason."""
    whole = function_call("weather", '{"city": "Oslo"}', "call_1")
    half = function_call("weather", '{"city": "Os', "call_2", status="incomplete")
    say_raw(narrow_server, whole, half, status="incomplete", reason="max_output_tokens")
    async with open_conversation(narrow_server, tools=[weather]) as conversation:
        async with conversation.run_stream("Go.") as run:
            events = [event async for event in run]
        assert run.response.status == "incomplete"
        assert not any(isinstance(event, ToolStarted) for event in events)
        await conversation.run("Go on.")
        assert is_paired(history(conversation)[:5])
    # The server forgets an incomplete response, so the second request is sent once more.
    for request in narrow_server.requests[1:]:
        assert outputs(request) == ["21 degrees in Oslo", NOT_RUN]


async def test_a_filtered_response_has_no_pending_calls(
    narrow_server: ResponsesServer,
) -> None:
    whole = function_call("weather", '{"city": "Oslo"}', "call_1")
    say_raw(narrow_server, whole, status="incomplete", reason="content_filter")
    async with open_conversation(narrow_server, tools=[weather]) as conversation:
        assert (await conversation.run("Go.")).status == "incomplete"
        assert conversation.items == ()
        await conversation.run("Hello.")
    assert len(narrow_server.requests[1].input_items) == 1


async def test_outputs_are_sent_again_after_a_response_that_failed(server: ResponsesServer) -> None:
    server.answer([WEATHER])
    server.reply("no", status="failed")
    async with open_conversation(server, tools=[weather]) as conversation:
        with pytest.raises(ResponseFailedError):
            await conversation.run("Go.")
        server.reply(DONE)
        assert (await conversation.run()).output_text == DONE
        assert is_paired(history(conversation))
    assert outputs(server.requests[2])[-1:] == ["21 degrees in Oslo"]


async def test_a_tool_that_asks_for_a_turn_of_its_own_conversation_gets_an_error(
    server: ResponsesServer,
) -> None:
    """The turn would wait for its own end. A fork, or another conversation, can be used."""

    @function_tool
    async def ask_again(text: str) -> str:
        return (await conversation.create(text)).output_text

    @function_tool
    async def ask_another(text: str) -> str:
        return (await (await conversation.fork()).create([*answers, user(text)])).output_text

    answers = [
        {"type": "function_call_output", "call_id": call_id, "output": "later"}
        for call_id in ("call_1", "call_2")
    ]
    calls = [
        Call("ask_again", {"text": "a"}, call_id="call_1"),
        Call("ask_another", {"text": "b"}, call_id="call_2"),
    ]
    server.calls(*calls)
    async with open_conversation(server, tools=[ask_again, ask_another]) as conversation:
        response = await conversation.run("Go.")
        assert "RuntimeError: this task is inside a turn or a tool" in response.output_text
        async with conversation.stream("And here?"):
            with pytest.raises(RuntimeError, match="a second turn would wait for ever"):
                await conversation.create("Me, too?")
        assert (await conversation.create("Well.")).status == "completed"


async def test_a_conversation_does_not_keep_the_tasks_of_its_tools(
    server: "ResponsesServer",
) -> None:
    server.respond_with(keep_calling(3, 2))
    tasks = list[weakref.ref[trio.lowlevel.Task]]()

    @function_tool
    async def work(round: int, number: int) -> str:  # noqa: A002 - the name of the argument
        await trio.lowlevel.checkpoint()
        tasks.append(weakref.ref(trio.lowlevel.current_task()))
        return f"{round}/{number}"

    async with open_conversation(server, tools=[work]) as conversation:
        await conversation.run("Work.")
        gc.collect()
        assert [task() for task in tasks] == [None] * 6
