"""Calls of tools in namespaces: a call runs the tool of its namespace, and no other one."""

from typing import TYPE_CHECKING, Any

import pytest
import trio

from tests.conversation.rig import open_conversation, open_steady
from tests.conversation.runs.rig import function_call, outputs, say_raw
from tests.instruments.tape import Notes
from trio_responses import (
    ConfigurationError,
    FunctionTool,
    Namespace,
    ToolContext,
    ToolFinished,
    ToolStarted,
    function_tool,
)
from trio_responses.testing import ResponsesServer
from trio_responses.types import CustomTool, FunctionToolParam, NamespaceTool

if TYPE_CHECKING:
    from tests.turn.rig import Json

ran: list[str] = []


@pytest.fixture(autouse=True)
def nothing_ran() -> None:
    ran.clear()


def tool(place: str, name: str = "delete") -> FunctionTool[..., Any]:
    """Return a function tool that notes where it ran."""

    @function_tool(name=name)
    async def delete() -> str:
        await trio.lowlevel.checkpoint()
        ran.append(place)
        return place

    return delete


async def handle(call: Any) -> str:
    await trio.lowlevel.checkpoint()
    ran.append(call.qualified_name)
    return f"handled {call.qualified_name}"


DEFINITION: "Json" = {"type": "function", "name": "delete", "parameters": {}}


async def run_calls(
    server: ResponsesServer, tools: Any, *calls: "Json", **options: Any
) -> list[str]:
    """Run a response with calls, and return the outputs that were sent."""
    say_raw(server, *calls)
    async with open_conversation(server, tools=tools) as conversation:
        await conversation.run("Go.", **options)
    return outputs(server.requests[1])


# --- Dispatch ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("namespace", "place"),
    [("crm", "crm"), ("shop", "shop"), (None, "top"), ("functions", "top"), ("", "top")],
)
async def test_a_call_runs_the_function_of_its_namespace(
    narrow_server: ResponsesServer, namespace: str | None, place: str
) -> None:
    tools = [tool("top"), Namespace("crm", [tool("crm")]), Namespace("shop", [tool("shop")])]
    sent = await run_calls(narrow_server, tools, function_call("delete", namespace=namespace))
    assert ran == sent == [place]


@pytest.mark.parametrize(
    ("call", "name"),
    [
        ({"name": "delete", "namespace": "crm"}, "crm.delete"),
        ({"name": "find", "namespace": "shop"}, "shop.find"),
        ({"name": "shop.delete"}, "shop.delete"),
        ({"name": "crm", "namespace": "shop"}, "shop.crm"),
        ({"name": "shop"}, "shop"),
    ],
)
async def test_a_call_of_an_undeclared_namespace_or_name_is_answered_with_an_error(
    narrow_server: ResponsesServer, call: "Json", name: str
) -> None:
    tools = [tool("top"), Namespace("shop", [tool("shop")])]
    sent = await run_calls(narrow_server, tools, function_call(**call))
    assert ran == []
    assert sent == [f"There is no tool named {name!r}."]


async def test_a_namespace_that_is_no_text_runs_nothing(narrow_server: ResponsesServer) -> None:
    call = function_call("delete", namespace={"name": "crm"})
    sent = await run_calls(narrow_server, [tool("top")], call)
    assert ran == []
    assert sent == ["The call was not run: its 'namespace' cannot be read."]


async def test_a_custom_tool_of_an_undeclared_namespace_is_answered_with_an_error(
    narrow_server: ResponsesServer,
) -> None:
    call = {"type": "custom_tool_call", "call_id": "1", "name": "sql", "input": "select 1"}
    tools = [CustomTool(name="sql"), Namespace("db", [CustomTool(name="sql")])]
    sent = await run_calls(
        narrow_server,
        tools,
        {**call, "namespace": "db"},
        {**call, "call_id": "2", "namespace": "old"},
        {**call, "call_id": "3"},
        handlers={"sql": handle, "db.sql": handle},
    )
    assert sent == ["handled db.sql", "There is no tool named 'old.sql'.", "handled sql"]


NESTED = {
    "Namespace": Namespace("crm", [tool("crm")], description="Customers."),
    "record": NamespaceTool(name="crm", description="Customers.", tools=[tool("crm")]),
    "mapping": {
        "type": "namespace",
        "name": "crm",
        "description": "Customers.",
        "tools": [tool("crm")],
    },
}


@pytest.mark.parametrize("form", NESTED)
async def test_a_function_in_any_form_of_a_namespace_is_sent_and_runs(
    narrow_server: ResponsesServer, form: str
) -> None:
    call = function_call("delete", namespace="crm")
    sent = await run_calls(narrow_server, [tool("top"), NESTED[form]], call)
    assert ran == sent == ["crm"]
    top, space = narrow_server.requests[0]["tools"]
    assert space == {
        "type": "namespace",
        "name": "crm",
        "description": "Customers.",
        "tools": [top],
    }


@pytest.mark.parametrize(
    "space",
    [
        Namespace("crm", [DEFINITION]),
        Namespace("crm", [FunctionToolParam(name="delete", parameters={})]),
        NamespaceTool(name="crm", tools=[DEFINITION]),
        {"type": "namespace", "name": "crm", "tools": [DEFINITION]},
    ],
)
async def test_a_handler_is_chosen_by_the_qualified_name(
    narrow_server: ResponsesServer, space: Any
) -> None:
    """A handler for the plain name, or the function of this name, is for the default namespace."""
    calls = [
        function_call("delete", namespace="crm", call_id="1"),
        function_call("delete", call_id="2"),
    ]
    handlers = {"delete": handle, "crm.delete": handle}
    sent = await run_calls(narrow_server, [DEFINITION, space], *calls, handlers=handlers)
    assert sent == ["handled crm.delete", "handled delete"]


async def test_a_declared_function_of_a_namespace_without_a_handler_is_left_to_the_caller(
    narrow_server: ResponsesServer,
) -> None:
    say_raw(narrow_server, function_call("delete", namespace="crm"))
    space = Namespace("crm", [DEFINITION])
    async with open_conversation(narrow_server, tools=[tool("top"), space]) as conversation:
        response = await conversation.run("Go.", handlers={"delete": handle})
        assert [call.qualified_name for call in response.function_calls] == ["crm.delete"]
        assert ran == []
        await conversation.run(handlers={"crm.delete": handle})
    assert outputs(narrow_server.requests[1]) == ["handled crm.delete"]


async def test_a_function_that_a_tool_search_found_in_a_namespace_needs_its_qualified_handler(
    narrow_server: ResponsesServer,
) -> None:
    say_raw(
        narrow_server,
        {"type": "tool_search_call", "call_id": "1", "execution": "client", "arguments": {}},
    )
    say_raw(
        narrow_server,
        function_call("delete", namespace="crm", call_id="2"),
        function_call("delete", namespace="shop", call_id="3"),
    )

    async def search(_: Any) -> Any:
        await trio.lowlevel.checkpoint()
        return [NamespaceTool(name="crm", tools=[DEFINITION]).to_dict()]

    handlers = {"tool_search_call": search, "crm.delete": handle, "delete": handle}
    tools: Any = [{"type": "tool_search", "execution": "client"}]
    async with open_conversation(narrow_server, tools=tools) as conversation:
        await conversation.run("Go.", handlers=handlers)
    sent = outputs(narrow_server.requests[2])
    assert sent == ["handled crm.delete", "There is no tool named 'shop.delete'."]


# --- Names -------------------------------------------------------------------------------


async def test_events_approvals_and_instruments_have_the_qualified_name(
    narrow_server: ResponsesServer,
) -> None:
    notes = Notes()
    asked: list[str] = []
    say_raw(narrow_server, function_call("delete", namespace="crm"))

    async def approve(call: Any) -> bool:
        await trio.lowlevel.checkpoint()
        asked.append(call.qualified_name)
        return True

    space = Namespace("crm", [tool("crm")])
    async with (
        open_steady(narrow_server, instruments=[notes]) as connection,
        connection.conversation(model="m", tools=[space]) as conversation,
        conversation.run_stream("Go.", approve=approve) as run,
    ):
        names = [event.name async for event in run if isinstance(event, ToolStarted | ToolFinished)]
    assert names == ["crm.delete", "crm.delete"]
    assert asked == ["crm.delete"]
    assert {record.name for record in notes.tools} == {"crm.delete"}


async def test_an_invalid_result_names_the_namespace(narrow_server: ResponsesServer) -> None:
    @function_tool(name="delete")
    async def broken() -> bytes:
        await trio.lowlevel.checkpoint()
        return b""

    call = function_call("delete", namespace="crm")
    [sent] = await run_calls(narrow_server, [Namespace("crm", [broken])], call)
    assert "the tool 'crm.delete' returned bytes" in sent


async def test_a_forced_choice_of_a_function_in_a_namespace_is_sent_once(
    narrow_server: ResponsesServer,
) -> None:
    choice: Any = {"type": "function", "name": "delete", "namespace": "crm"}
    tools = [Namespace("crm", [tool("crm")])]
    await run_calls(
        narrow_server, tools, function_call("delete", namespace="crm"), tool_choice=choice
    )
    assert [request["tool_choice"] for request in narrow_server.requests] == [choice, "auto"]


async def test_a_function_in_a_namespace_has_its_context_and_time_limit(
    narrow_server: ResponsesServer,
) -> None:
    @function_tool(timeout=2)
    async def wait(context: ToolContext[str]) -> str:
        ran.append(context.dependencies)
        await trio.sleep_forever()
        raise AssertionError

    call = function_call("wait", namespace="crm")
    sent = await run_calls(narrow_server, [Namespace("crm", [wait])], call, dependencies="database")
    assert ran == ["database"]
    assert sent == ["Error: the tool 'crm.wait' took longer than its limit of 2 s"]


async def test_a_fork_keeps_the_functions_of_a_namespace(narrow_server: ResponsesServer) -> None:
    space = Namespace("crm", [tool("crm")])
    async with open_conversation(narrow_server, tools=[space]) as conversation:
        fork = await conversation.fork()
        say_raw(narrow_server, function_call("delete", namespace="crm"))
        await fork.run("Go.")
    assert ran == ["crm"]


# --- Mistakes ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "tools",
    [
        [Namespace("crm", [tool("1"), tool("2")])],
        [Namespace("crm", [tool("1")]), Namespace("crm", [tool("2")])],
        [tool("1"), Namespace("functions", [tool("2")])],
        [{**DEFINITION, "name": "crm.delete"}, Namespace("crm", [DEFINITION])],
    ],
)
async def test_two_functions_with_one_namespace_and_name_are_refused(
    server: ResponsesServer, tools: Any
) -> None:
    async with open_conversation(server) as conversation:
        with pytest.raises(ConfigurationError, match=r"same name, '(crm\.)?delete'"):
            await conversation.run("Hello.", tools=tools)
    assert server.requests == []


def plain() -> None:
    """Do nothing: no tool."""


@pytest.mark.parametrize(
    ("name", "tools", "message"),
    [
        ("c r m", [], "'c r m' is not a valid name of a namespace"),
        ("crm", [{"type": "web_search"}], r"tools\[0\] of the namespace 'crm' .* 'web_search'"),
        ("crm", [tool("1"), plain], r"tools\[1\] of the namespace 'crm' is a plain function"),
        ("crm", [Namespace("shop", [])], "tool of type 'namespace'"),
    ],
)
def test_a_mistake_in_a_namespace_is_refused(name: str, tools: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        Namespace(name, tools)


async def test_a_plain_function_inside_a_mapping_is_refused(server: ResponsesServer) -> None:
    space: Any = {"type": "namespace", "name": "crm", "tools": [plain]}
    async with open_conversation(server) as conversation:
        with pytest.raises(ConfigurationError, match=r"tools\[0\]\.tools\[0\] is a plain"):
            await conversation.run("Hello.", tools=[space])


def test_the_repr_of_a_namespace_has_its_name() -> None:
    assert repr(Namespace("crm", [tool("1")])) == "<Namespace 'crm' of 1 tools>"
