"""A tool asks the model for another call, and a limit ends calls that fail again and again."""

from typing import TYPE_CHECKING, Any

import pytest
import trio

from tests.conversation.rig import history, open_conversation
from tests.conversation.runs.rig import is_paired, outputs, say_raw
from trio_responses import (
    ConfigurationError,
    FunctionTool,
    InvalidArguments,
    ModelRetry,
    Namespace,
    ToolFinished,
    ToolRetriesExceeded,
    function_tool,
)
from trio_responses.testing import Call
from trio_responses.types import CustomTool

if TYPE_CHECKING:
    from trio_responses.testing import ResponsesServer

BAD = '{"city": "Oslo"}'
GOOD = '{"city": "Oslo, Norway"}'
UNFIT = "{}"
PLEA = "say the city with its country"


@function_tool
async def weather(city: str) -> str:
    """Tell the weather."""
    await trio.lowlevel.checkpoint()
    if "," not in city:
        raise ModelRetry(PLEA)
    return f"sunny in {city}"


def with_limit(limit: int | None) -> FunctionTool[..., Any]:
    return function_tool(max_retries=limit)(weather.__wrapped__)


def script(server: "ResponsesServer", *rounds: str | list[str], name: str = "weather") -> None:
    """Let the model call a tool with these arguments, one response after the other."""
    number = 0
    for given in rounds:
        calls: list[Call] = []
        for arguments in [given] if isinstance(given, str) else given:
            number += 1
            calls.append(Call(name, arguments, call_id=f"call_{number}"))
        server.answer(calls)


async def test_the_model_reads_the_message_and_calls_again(server: "ResponsesServer") -> None:
    script(server, BAD, GOOD)
    async with (
        open_conversation(server, tools=[weather]) as conversation,
        conversation.run_stream("How is it?") as run,
    ):
        finished = [event async for event in run if isinstance(event, ToolFinished)]
    assert [outputs(request) for request in server.requests[1:]] == [
        [PLEA],
        ["sunny in Oslo, Norway"],
    ]
    assert [repr(event.error) for event in finished] == [repr(ModelRetry(PLEA)), "None"]


@pytest.mark.parametrize("grouped", [False, True])
async def test_asking_for_another_call_does_not_end_a_run_that_raises_errors(
    server: "ResponsesServer", *, grouped: bool
) -> None:
    @function_tool(name="weather")
    async def ask(city: str) -> str:
        await trio.lowlevel.checkpoint()
        errors = [ModelRetry(f"not {city}"), ModelRetry("elsewhere")]
        raise ExceptionGroup("two", errors) if grouped else errors[0]

    script(server, BAD)
    async with open_conversation(server, tools=[ask]) as conversation:
        await conversation.run("How is it?", on_tool_error="raise")
    assert outputs(server.requests[1]) == ["not Oslo\nelsewhere" if grouped else "not Oslo"]


async def test_a_group_with_another_error_ends_a_run_that_raises_errors(
    server: "ResponsesServer",
) -> None:
    @function_tool(name="weather")
    async def ask(city: str) -> str:
        await trio.lowlevel.checkpoint()
        raise ExceptionGroup("two", [ModelRetry(city), KeyError(city)])

    script(server, BAD)
    async with open_conversation(server, tools=[ask]) as conversation:
        with pytest.raises(ExceptionGroup):
            await conversation.run("How is it?", on_tool_error="raise")


@pytest.mark.parametrize("how", ["tool", "run", "both"])
async def test_the_run_ends_when_a_tool_fails_more_often_than_its_limit(
    server: "ResponsesServer", how: str
) -> None:
    """The conversation is intact, and the next run counts anew."""
    script(server, BAD, BAD, BAD, BAD, GOOD)
    tool = weather if how == "run" else with_limit(2)
    of_run = {"run": 2, "both": 0}.get(how)
    async with open_conversation(server, tools=[tool]) as conversation:
        with pytest.raises(ToolRetriesExceeded) as spent:
            await conversation.run("How is it?", max_tool_retries=of_run)
        assert (spent.value.tool, spent.value.max_retries) == ("weather", 2)
        assert isinstance(spent.value.__cause__, ModelRetry)
        assert str(spent.value) == (
            "the calls of the tool 'weather' failed more often in a row than its limit of retries"
            " allows (max_retries=2): __cause__ is the last error, which the next run sends to the"
            " model"
        )
        assert len(server.requests) == 3
        await conversation.run(max_tool_retries=of_run)
        assert is_paired(history(conversation))
    assert [outputs(request) for request in server.requests] == [
        *([], [PLEA], [PLEA], [PLEA], [PLEA]),
        ["sunny in Oslo, Norway"],
    ]


async def test_no_limit_is_the_default(server: "ResponsesServer") -> None:
    script(server, *[BAD] * 12)
    async with open_conversation(server, tools=[weather]) as conversation:
        await conversation.run("How is it?")
    assert len(server.requests) == 13


async def test_arguments_that_do_not_fit_count_and_so_do_other_errors(
    server: "ResponsesServer",
) -> None:
    @function_tool(name="weather", max_retries=2)
    async def fail(city: str) -> str:
        await trio.lowlevel.checkpoint()
        raise LookupError(city)

    script(server, UNFIT, BAD, UNFIT)
    async with open_conversation(server, tools=[fail]) as conversation:
        with pytest.raises(ToolRetriesExceeded) as spent:
            await conversation.run("How is it?")
    assert isinstance(spent.value.__cause__, InvalidArguments)


async def test_a_call_that_succeeds_begins_anew(server: "ResponsesServer") -> None:
    script(server, BAD, GOOD, BAD, GOOD, BAD, BAD)
    async with open_conversation(server, tools=[with_limit(1)]) as conversation:
        with pytest.raises(ToolRetriesExceeded):
            await conversation.run("How is it?")
    assert len(server.requests) == 6


@pytest.mark.parametrize("mixed", [[BAD, GOOD, BAD], [GOOD, BAD], [BAD, GOOD]])
async def test_the_calls_of_one_response_count_once(
    server: "ResponsesServer", mixed: list[str]
) -> None:
    """One call that succeeds outweighs the others. All calls have an output."""
    script(server, [BAD, UNFIT, BAD], mixed, [BAD, BAD], [BAD, BAD])
    async with open_conversation(server, tools=[with_limit(1)]) as conversation:
        with pytest.raises(ToolRetriesExceeded) as spent:
            await conversation.run("How is it?")
        assert isinstance(spent.value.__cause__, ModelRetry)
        assert len(server.requests) == 4
        await conversation.run()
        assert is_paired(history(conversation))


async def test_each_tool_has_its_own_count(server: "ResponsesServer") -> None:
    server.answer([Call("weather", BAD, call_id="1")])
    server.answer([Call("weather", GOOD, call_id="2", namespace="a")])
    server.answer([Call("weather", BAD, call_id="3", namespace="b")])
    tools = [weather, Namespace("a", [with_limit(0)]), Namespace("b", [with_limit(0)])]
    async with open_conversation(server, tools=tools) as conversation:
        with pytest.raises(ToolRetriesExceeded) as spent:
            await conversation.run("How is it?", max_tool_retries=1)
    assert spent.value.tool == "b.weather"


async def test_a_handler_has_the_limit_of_the_run(narrow_server: "ResponsesServer") -> None:
    async def run_sql(call: Any) -> str:
        await trio.lowlevel.checkpoint()
        raise ModelRetry(f"no table in {call.input}")

    custom = {"type": "custom_tool_call", "id": "ct_1", "call_id": "1", "name": "sql", "input": "x"}
    say_raw(narrow_server, custom)
    async with open_conversation(narrow_server, tools=[CustomTool(name="sql")]) as conversation:
        with pytest.raises(ToolRetriesExceeded, match="'sql' failed more often"):
            await conversation.run("Count.", handlers={"sql": run_sql}, max_tool_retries=0)
        await conversation.run(handlers={"sql": run_sql})
    assert outputs(narrow_server.requests[1]) == ["no table in x"]


async def test_declined_calls_do_not_count(server: "ResponsesServer") -> None:
    async def approve(call: Any) -> bool:
        await trio.lowlevel.checkpoint()
        return bool(call.arguments != GOOD)

    script(server, BAD, GOOD, BAD)
    async with open_conversation(server, tools=[with_limit(1)]) as conversation:
        with pytest.raises(ToolRetriesExceeded):
            await conversation.run("How is it?", approve=approve)
    assert len(server.requests) == 3


@pytest.mark.parametrize("wrong", [-1, 1.5, True, "2"])
async def test_a_limit_that_is_no_whole_number_is_rejected(
    server: "ResponsesServer", wrong: Any
) -> None:
    with pytest.raises(ConfigurationError, match="max_retries must be a whole number from 0"):
        with_limit(wrong)
    async with open_conversation(server, tools=[weather]) as conversation:
        with pytest.raises(ConfigurationError, match="max_tool_retries must be a whole number"):
            await conversation.run("How is it?", max_tool_retries=wrong)
