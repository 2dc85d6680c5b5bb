"""The parameter of a tool that the model does not see."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, assert_type

import pytest
from trio.testing import wait_all_tasks_blocked

from tests.conversation.rig import history, open_conversation
from trio_responses import (
    ConfigurationError,
    InvalidArguments,
    ToolContext,
    ToolFinished,
    ToolProgress,
    ToolStarted,
    function_tool,
)
from trio_responses.testing import Call, ResponsesServer

if TYPE_CHECKING:
    from trio_responses import Conversation, FunctionTool
    from trio_responses.types import FunctionCall


@dataclass
class Shop:
    """The dependencies of the tools of these tests."""

    orders: dict[str, str] = field(default_factory=dict[str, str])


@function_tool
async def find_order(context: ToolContext[Shop], number: str) -> str:
    """Find an order.

    :param context: what the run knows.
    :param number: the number of the order.
    """
    assert_type(context.dependencies, Shop)
    return context.dependencies.orders[number]


FIND = Call("find_order", {"number": "7"}, call_id="call_1")
SHOP = Shop({"7": "paid"})


# --- The schema --------------------------------------------------------------------------


def test_the_model_does_not_see_the_parameter() -> None:
    schema = find_order.schema.schema
    assert list(schema["properties"]) == ["number"]
    assert schema["required"] == ["number"]
    assert find_order.schema.strict
    assert "context" not in str(find_order.definition)


def in_the_middle(number: str, context: ToolContext, /, *, late: bool = False) -> str:
    return f"{number} {late} {context!r}"


def by_keyword(number: str, *, late: bool = False, context: ToolContext[Shop]) -> str:
    return f"{number} {late} {context!r}"


def optional(number: str, *, late: bool = False, context: ToolContext[Shop] | None = None) -> str:
    return f"{number} {late} {context!r}"


def annotated(context: Annotated[ToolContext[Any], "mine"], number: str, *, late: bool) -> str:
    return f"{number} {late} {context!r}"


@pytest.mark.parametrize("function", [in_the_middle, by_keyword, optional, annotated])
async def test_the_parameter_may_be_anywhere(function: Any) -> None:
    tool: FunctionTool[..., str] = function_tool(run_in_thread=False)(function)
    assert list(tool.schema.schema["properties"]) == ["number", "late"]
    output = await tool.invoke('{"number": "7", "late": true}', context=ToolContext(SHOP))
    assert output == "7 True <ToolContext of no call>"


def test_two_parameters_for_the_context_are_refused() -> None:
    def both(one: ToolContext[Shop], other: ToolContext[Shop]) -> None:
        """Never get called."""

    with pytest.raises(ConfigurationError, match=r"both has two parameters .*'one' and 'other'"):
        function_tool(both)


async def test_arguments_for_the_parameter_are_refused() -> None:
    """A model that guesses the name cannot set it."""
    with pytest.raises(InvalidArguments) as caught:
        await find_order.invoke('{"number": "7", "context": {}}', context=ToolContext(SHOP))
    assert "context" in caught.value.message


# --- Outside of a run --------------------------------------------------------------------


async def test_a_tool_with_a_context_can_be_called_directly() -> None:
    context = ToolContext(SHOP)
    assert await find_order(context, "7") == "paid"
    assert await find_order.invoke('{"number": "7"}', context=context) == "paid"
    await context.progress("unread")
    with pytest.raises(RuntimeError, match="no call"):
        _ = context.call_id
    with pytest.raises(RuntimeError, match="no conversation"):
        _ = context.conversation


async def test_a_missing_context_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"'find_order' needs a context .*'context'"):
        await find_order.invoke('{"number": "7"}')
    assert (
        await function_tool(run_in_thread=False)(optional).invoke('{"number": "7"}')
        == "7 False None"
    )


# --- In a run ----------------------------------------------------------------------------


async def test_a_tool_gets_the_dependencies_of_its_run(server: ResponsesServer) -> None:
    server.answer([FIND])
    async with open_conversation(server, tools=[find_order]) as conversation:
        await conversation.run("Is it paid?", dependencies=SHOP)
        assert history(conversation)[2]["output"] == "paid"
    assert "context" not in str(server.requests[0].tools)


async def test_a_tool_knows_its_call_and_its_conversation(server: ResponsesServer) -> None:
    seen: list[tuple[FunctionCall, str, Conversation, None]] = []

    @function_tool
    async def look(context: ToolContext) -> str:
        branch = await context.conversation.fork()
        seen.append((context.call, context.call_id, context.conversation, context.dependencies))
        assert repr(context) == "<ToolContext of call_1>"
        return (await branch.create([output("later")])).output_text

    def output(text: str) -> dict[str, Any]:
        return {"type": "function_call_output", "call_id": "call_1", "output": text}

    server.call("look", call_id="call_1")
    server.reply("said the fork")
    async with open_conversation(server, tools=[look]) as conversation:
        await conversation.run("Look.")
        [(call, call_id, same, dependencies)] = seen
        assert (call.name, call_id, dependencies) == ("look", "call_1", None)
        assert same is conversation
        assert history(conversation)[2]["output"] == "said the fork"


async def test_parse_passes_the_dependencies_too(server: ResponsesServer) -> None:
    server.answer([FIND])
    server.reply('{"value":1}')
    async with open_conversation(server, tools=[find_order]) as conversation:
        assert (await conversation.parse(int, "How many?", dependencies=SHOP)).parsed == 1
        assert history(conversation)[2]["output"] == "paid"


# --- Progress ----------------------------------------------------------------------------


@function_tool
async def count(context: ToolContext, upto: int) -> str:
    for number in range(upto):
        await context.progress(number)
    return "done"


async def test_progress_is_an_event_of_the_run(server: ResponsesServer) -> None:
    server.call("count", {"upto": 3}, call_id="call_1")
    async with (
        open_conversation(server, tools=[count]) as conversation,
        conversation.run_stream("Count.") as run,
    ):
        events = [event async for event in run if event.type.startswith("trio_responses.tool")]
    assert [type(event) for event in events] == [ToolStarted, *[ToolProgress] * 3, ToolFinished]
    reports = [event for event in events if isinstance(event, ToolProgress)]
    assert [report.value for report in reports] == [0, 1, 2]
    assert {report.name for report in reports} == {"count"}


async def test_a_slow_reader_slows_the_tool(server: ResponsesServer) -> None:
    """P6: at most one report of a call is unread."""
    reported: list[int] = []

    @function_tool
    async def report(context: ToolContext, upto: int) -> str:
        for number in range(upto):
            await context.progress(number)
            reported.append(number)
        return "done"

    server.call("report", {"upto": 1000}, call_id="call_1")
    async with (
        open_conversation(server, tools=[report]) as conversation,
        conversation.run_stream("Count.") as run,
    ):
        async for event in run:
            if isinstance(event, ToolProgress):
                await wait_all_tasks_blocked()
                assert len(reported) <= event.value + 2
        assert len(reported) == 1000


async def test_a_call_that_has_ended_has_no_progress(server: ResponsesServer) -> None:
    contexts: list[ToolContext] = []

    @function_tool
    async def keep(context: ToolContext) -> str:
        contexts.append(context)
        return "kept"

    server.call("keep", call_id="call_1")
    async with open_conversation(server, tools=[keep]) as conversation:
        await conversation.run("Keep it.")
        with pytest.raises(RuntimeError, match="has not ended"):
            await contexts[0].progress("too late")


async def test_a_run_that_is_left_does_not_wait_for_a_report(server: ResponsesServer) -> None:
    server.call("count", {"upto": 100}, call_id="call_1")
    async with open_conversation(server, tools=[count]) as conversation:
        async with conversation.run_stream("Count.") as run:
            async for event in run:
                if isinstance(event, ToolProgress):
                    await wait_all_tasks_blocked()
                    break
        await conversation.run()
        assert "interrupted" in history(conversation)[2]["output"]
