"""Handlers of calls: each kind of call has an output item of its own shape."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio

from tests.conversation.rig import history, open_conversation
from tests.conversation.runs.rig import answers, function_call, say_raw
from trio_responses import function_tool
from trio_responses._wire import (
    ApplyPatchCallOutput,
    CustomTool,
    CustomToolCallOutput,
    FunctionToolParam,
    InputText,
)

if TYPE_CHECKING:
    from tests.turn.rig import Json
    from trio_responses.testing import ResponsesServer

SCHEMA: dict[str, Any] = json.loads(
    (Path(__file__).parents[2] / "data" / "wire_schema.json").read_text()
)["input_items"]

EXIT = {"type": "exit", "exit_code": 0}
CHUNK = {"stdout": "a.txt", "stderr": "", "outcome": EXIT}
SCREEN = {"type": "computer_screenshot", "image_url": "data:image/png;base64,"}
PROGRAM = {"type": "program", "caller_id": "call_program"}

FIELDS: dict[str, "Json"] = {
    "function_call": {"name": "look_up", "arguments": "{}"},
    "custom_tool_call": {"name": "run_sql", "input": "select 1"},
    "computer_call": {"action": {"type": "screenshot"}, "pending_safety_checks": []},
    "shell_call": {"action": {"commands": ["ls"]}},
    "local_shell_call": {"action": {"type": "exec", "command": ["ls"], "env": {}}},
    "apply_patch_call": {"operation": {"type": "delete_file", "path": "a.txt"}},
    "mcp_approval_request": {"name": "delete", "arguments": "{}", "server_label": "files"},
    "tool_search_call": {"arguments": {"query": "files"}, "execution": "client"},
}


def call_of(kind: str, **more: Any) -> "Json":
    """Return a call of a kind, as the server writes it."""
    item = {"type": kind, "id": "item_1", "call_id": "call_1", "status": "completed"}
    if kind == "mcp_approval_request":
        del item["call_id"], item["status"]
    return {**item, **FIELDS[kind], **more}


def assert_fits(item: "Json") -> None:
    """Compare the keys and types of an output item with the schema of the official SDK."""
    fields = SCHEMA[item["type"]]["fields"]
    assert set(item) <= set(fields)
    assert {name for name in fields if fields[name]["required"]} <= set(item)
    for name, value in item.items():
        expected = fields[name]["json_type"]
        kinds = {str: "string", bool: "boolean", list: "array", dict: "object"}
        assert kinds[type(value)] in expected, name


async def answer_to(server: "ResponsesServer", item: "Json", result: Any, **options: Any) -> "Json":
    """Answer a call by a handler, and return the output item that the server received."""
    say_raw(server, item)
    seen: list[Any] = []

    async def handle(call: Any) -> Any:
        await trio.lowlevel.checkpoint()
        seen.append(call)
        if isinstance(result, Exception):
            raise result
        return result

    options.setdefault("handlers", {item["type"]: handle})
    async with open_conversation(server) as conversation:
        response = await conversation.run(
            "Go.", tools=[{"type": "function", "name": "look_up"}], **options
        )
        assert response.status == "completed"
        assert [each["type"] for each in history(conversation)][1] == item["type"]
    if options.get("handlers"):
        assert [call.wire_type for call in seen] == [item["type"]]
    [answer] = answers(server.requests[1])
    assert_fits(answer)
    return answer


@pytest.mark.parametrize(
    ("kind", "result", "expected"),
    [
        ("function_call", {"n": 1}, {"output": '{"n":1}'}),
        ("function_call", {"type": "sunny"}, {"output": '{"type":"sunny"}'}),
        ("function_call", None, {"output": "null"}),
        ("custom_tool_call", "1 row", {"output": "1 row"}),
        ("custom_tool_call", {"type": "rows"}, {"output": '{"type":"rows"}'}),
        (
            "custom_tool_call",
            InputText(text="1 row"),
            {"output": [{"type": "input_text", "text": "1 row"}]},
        ),
        (
            "custom_tool_call",
            CustomToolCallOutput(call_id="call_1", output="whole"),
            {"output": "whole"},
        ),
        ("computer_call", SCREEN, {"output": SCREEN}),
        (
            "computer_call",
            {"type": "computer_call_output", "call_id": "call_1", "output": SCREEN},
            {"output": SCREEN},
        ),
        ("shell_call", [CHUNK], {"output": [CHUNK]}),
        (
            "shell_call",
            {"type": "shell_call_output", "call_id": "call_1", "output": [CHUNK]},
            {"output": [CHUNK]},
        ),
        ("apply_patch_call", "gone", {"status": "completed", "output": "gone"}),
        (
            "apply_patch_call",
            ApplyPatchCallOutput(call_id="call_1", status="failed", output="no such file"),
            {"status": "failed", "output": "no such file"},
        ),
    ],
)
async def test_each_kind_of_call_has_its_own_output_item(
    narrow_server: "ResponsesServer", kind: str, result: Any, expected: "Json"
) -> None:
    answer = await answer_to(narrow_server, call_of(kind), result)
    assert answer == {"type": f"{kind}_output", "call_id": "call_1", **expected}


@pytest.mark.parametrize(("result", "output"), [("a.txt", "a.txt"), (["a"], '["a"]')])
async def test_the_output_of_a_local_shell_has_the_id_of_its_call(
    narrow_server: "ResponsesServer", result: Any, output: str
) -> None:
    answer = await answer_to(narrow_server, call_of("local_shell_call"), result)
    assert answer == {"type": "local_shell_call_output", "id": "call_1", "output": output}


async def test_the_output_of_a_tool_search_has_tool_definitions(
    narrow_server: "ResponsesServer",
) -> None:
    """A function that was found is not declared in the request, but may have a handler."""
    found = FunctionToolParam(name="read", parameters={}, strict=False)
    say_raw(narrow_server, call_of("tool_search_call"))
    say_raw(narrow_server, function_call("read", call_id="call_2"))

    async def search(_: Any) -> Any:
        await trio.lowlevel.checkpoint()
        return [found]

    async def read(_: Any) -> str:
        await trio.lowlevel.checkpoint()
        return "Dear Ada"

    tools = [{"type": "tool_search", "execution": "client"}]
    async with open_conversation(narrow_server, tools=tools) as conversation:
        await conversation.run("Go.", handlers={"tool_search_call": search, "read": read})
    [first], [second] = map(answers, narrow_server.requests[1:])
    assert_fits(first)
    assert (first["execution"], first["call_id"]) == ("client", "call_1")
    assert [tool["name"] for tool in first["tools"]] == ["read"]
    assert second["output"] == "Dear Ada"


@pytest.mark.parametrize(
    ("verdict", "expected"),
    [
        (True, {"approve": True}),
        (False, {"approve": False}),
        ("Too much.", {"approve": False, "reason": "Too much."}),
    ],
)
@pytest.mark.parametrize("by", ["approve", "handlers"])
async def test_an_mcp_approval_is_answered_with_the_decision_and_its_reason(
    narrow_server: "ResponsesServer", by: str, verdict: Any, expected: "Json"
) -> None:
    async def decide(_: Any) -> Any:
        await trio.lowlevel.checkpoint()
        return verdict

    options: Json = {"handlers": {"mcp_approval_request": decide}}
    if by == "approve":
        options = {"approve": decide}
    say_raw(narrow_server, call_of("mcp_approval_request"))
    async with open_conversation(narrow_server) as conversation:
        await conversation.run("Go.", **options)
    [answer] = answers(narrow_server.requests[1])
    assert_fits(answer)
    assert answer == {
        "type": "mcp_approval_response",
        "approval_request_id": "item_1",
        **expected,
    }


@pytest.mark.parametrize("kind", [kind for kind in FIELDS if kind != "local_shell_call"])
async def test_the_exception_of_a_handler_is_sent_in_the_output(
    narrow_server: "ResponsesServer", kind: str
) -> None:
    error = LookupError("out of order")
    item = call_of(kind)
    if kind in {"computer_call", "tool_search_call"}:
        with pytest.raises(LookupError):
            await answer_to(narrow_server, item, error)
        return
    answer = await answer_to(narrow_server, item, error)
    text = "Error: LookupError: out of order"
    match kind:
        case "mcp_approval_request":
            assert (answer["approve"], answer["reason"]) == (False, text)
        case "shell_call":
            [chunk] = answer["output"]
            assert chunk == {
                "stdout": "",
                "stderr": text,
                "outcome": {"type": "exit", "exit_code": 1},
            }
        case "apply_patch_call":
            assert (answer["status"], answer["output"]) == ("failed", text)
        case _:
            assert answer["output"] == text


@pytest.mark.parametrize("kind", ["function_call", "custom_tool_call", "shell_call"])
async def test_the_caller_of_a_call_is_in_its_output(
    narrow_server: "ResponsesServer", kind: str
) -> None:
    results: dict[str, Any] = {"shell_call": [CHUNK]}
    item = call_of(kind, caller=PROGRAM)
    answer = await answer_to(narrow_server, item, results.get(kind, "1"))
    assert answer["caller"] == PROGRAM


async def test_the_caller_of_a_patch_is_in_the_output_that_reports_a_failure(
    narrow_server: "ResponsesServer",
) -> None:
    item = call_of("apply_patch_call", caller=PROGRAM)
    answer = await answer_to(narrow_server, item, OSError("read-only"))
    assert (answer["status"], answer["caller"]) == ("failed", PROGRAM)


async def test_a_handler_for_a_tool_precedes_a_handler_for_its_type(
    narrow_server: "ResponsesServer",
) -> None:
    say_raw(
        narrow_server,
        call_of("custom_tool_call"),
        call_of("custom_tool_call", id="item_2", call_id="call_2", name="grep"),
    )

    async def sql(_: Any) -> str:
        await trio.lowlevel.checkpoint()
        return "sql"

    async def others(_: Any) -> str:
        await trio.lowlevel.checkpoint()
        return "another"

    tools = [CustomTool(name="run_sql"), CustomTool(name="grep")]
    async with open_conversation(narrow_server, tools=tools) as conversation:
        await conversation.run("Go.", handlers={"run_sql": sql, "custom_tool_call": others})
    assert [item["output"] for item in answers(narrow_server.requests[1])] == ["sql", "another"]


@function_tool
async def count_up(start: int) -> int:
    await trio.lowlevel.checkpoint()
    return start + 1


async def test_a_call_without_a_handler_ends_the_run_and_other_outputs_are_kept(
    narrow_server: "ResponsesServer",
) -> None:
    """The caller answers the call; the call that ran does not run again."""
    call = function_call("count_up", '{"start": 1}', "call_2")
    say_raw(narrow_server, call_of("computer_call"), call)
    runs: list[int] = []

    @function_tool(name="count_up")
    async def counting(start: int) -> int:
        await trio.lowlevel.checkpoint()
        runs.append(start)
        return start + 1

    async with open_conversation(narrow_server, tools=[counting]) as conversation:
        response = await conversation.run("Go.", max_rounds=1)
        assert [item.type for item in response.output] == ["computer_call", "function_call"]
        assert response.id == conversation.last_response_id
        await conversation.run(
            [{"type": "computer_call_output", "call_id": "call_1", "output": SCREEN}]
        )
    assert runs == [1]
    assert sorted(item["type"] for item in answers(narrow_server.requests[1])) == [
        "computer_call_output",
        "function_call_output",
    ]
    assert len(narrow_server.requests) == 2


async def test_calls_that_the_server_runs_are_not_pending(narrow_server: "ResponsesServer") -> None:
    searched = call_of("tool_search_call", execution="server", call_id=None)
    ran = call_of("shell_call", environment={"type": "container_reference", "container_id": "c"})
    output = {"type": "shell_call_output", "id": "item_9", "call_id": "call_1", "output": [CHUNK]}
    say_raw(narrow_server, searched, ran, output)
    async with open_conversation(narrow_server) as conversation:
        response = await conversation.run("Go.")
        assert len(response.output) == 3
    assert len(narrow_server.requests) == 1
