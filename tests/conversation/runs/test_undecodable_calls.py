"""Calls that cannot run: the model is told, or the run ends with an exception."""

from typing import TYPE_CHECKING, Any

import pytest
import trio

from tests.conversation.rig import open_conversation
from tests.conversation.runs.rig import answers, function_call, say_raw
from tests.turn.rig import created, ended
from trio_responses import (
    CallNotRejectable,
    ResponseFailedError,
    UndecodableCall,
    function_tool,
)

if TYPE_CHECKING:
    from tests.turn.rig import Json
    from trio_responses.testing import ResponsesServer


@function_tool
async def weather(city: str) -> str:
    await trio.lowlevel.checkpoint()
    return city


def without(item: "Json", *names: str) -> "Json":
    return {key: value for key, value in item.items() if key not in names}


CALL = function_call("weather", '{"city": "Oslo"}')
MESSAGE: "Json" = {
    "type": "message",
    "role": "assistant",
    "id": "msg_1",
    "content": [{"type": "output_text", "text": "Done.", "annotations": []}],
}


async def never(call: Any) -> Any:
    raise AssertionError(call)


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        (without(CALL, "name"), "it has no 'name'"),
        ({**CALL, "name": 7}, "a field has a wrong type (call_id, name, arguments are required)"),
        ({"type": "custom_tool_call", "call_id": "1", "input": "x"}, "it has no 'name'"),
        ({"type": "shell_call", "call_id": "1"}, "it has no 'action'"),
        ({"type": "local_shell_call", "call_id": "1"}, "it has no 'action'"),
        ({"type": "apply_patch_call", "call_id": "1"}, "it has no 'operation'"),
        ({"type": "mcp_approval_request", "id": "1", "arguments": "{}"}, "it has no 'name'"),
    ],
)
async def test_a_call_that_cannot_be_decoded_is_answered_with_an_error(
    narrow_server: "ResponsesServer", item: "Json", reason: str
) -> None:
    """No handler and no approval is asked, and the other calls of the response run."""
    say_raw(narrow_server, item, function_call("weather", '{"city": "Rome"}', "call_2"))
    async with open_conversation(narrow_server, tools=[weather]) as conversation:
        response = await conversation.run("Go.", handlers={item["type"]: never})
    assert response.output_text
    failed, ran = answers(narrow_server.requests[1])
    assert f"The call was not run: {reason}." in str(list(failed.values())[-1]).replace('\\"', "'")
    assert ran["output"] == "Rome"


async def test_an_error_for_an_undecodable_call_names_its_caller(
    narrow_server: "ResponsesServer",
) -> None:
    caller = {"type": "program", "caller_id": "call_program"}
    say_raw(narrow_server, {**without(CALL, "name"), "caller": caller})
    async with open_conversation(narrow_server, tools=[weather]) as conversation:
        await conversation.run("Go.")
    [failed] = answers(narrow_server.requests[1])
    assert failed["caller"] == caller


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        (without(CALL, "call_id"), "no 'call_id'"),
        ({**CALL, "call_id": 7}, "no 'call_id'"),
        ({"type": "computer_call", "action": {"type": "screenshot"}}, "no 'call_id'"),
        ({"type": "tool_search_call", "execution": "client"}, "no 'call_id'"),
        ({"type": "mcp_approval_request", "name": "x", "arguments": "{}"}, "no 'id'"),
        ({"type": "browser_call", "call_id": "1", "url": "x"}, "its type is unknown"),
        ({"call_id": "1", "name": "weather", "arguments": "{}"}, "it has no 'type'"),
    ],
)
async def test_a_call_that_no_output_can_answer_ends_the_run_with_an_exception(
    narrow_server: "ResponsesServer", item: "Json", reason: str
) -> None:
    say_raw(narrow_server, item)
    async with open_conversation(narrow_server, tools=[weather]) as conversation:
        with pytest.raises(UndecodableCall, match=reason) as raised:
            await conversation.run("Go.")
        assert raised.value.response.output == (raised.value.call,)
        assert raised.value.reason
        assert len(narrow_server.requests) == 1


@pytest.mark.parametrize(
    "output",
    [
        [{"type": "browser_call", "call_id": "1"}, MESSAGE],
        [
            {"type": "browser_call", "call_id": "1"},
            {"type": "browser_call_output", "call_id": "1"},
        ],
        [{"type": "browser_call", "id": "b_1"}],
        [{"type": "thought", "call_id": "1"}],
        [{"type": "tool_search_call", "id": "ts_1", "call_id": None}],
        [{"type": "multi_agent_call", "call_id": "1", "action": "x", "arguments": "{}"}],
    ],
)
async def test_items_that_the_server_has_dealt_with_end_no_run(
    narrow_server: "ResponsesServer", output: "list[Json]"
) -> None:
    """Calls of unknown types count as run by the server if their output or a message follows."""
    say_raw(narrow_server, *output)
    async with open_conversation(narrow_server, tools=[weather]) as conversation:
        response = await conversation.run("Go.")
    assert len(response.output) == len(output)


async def test_an_incomplete_response_is_returned_with_its_broken_call(
    narrow_server: "ResponsesServer",
) -> None:
    half = without(CALL, "call_id")
    say_raw(narrow_server, half, status="incomplete", reason="max_output_tokens")
    async with open_conversation(narrow_server, tools=[weather]) as conversation:
        assert (await conversation.run("Go.")).status == "incomplete"


async def test_a_computer_call_that_was_cut_off_does_not_run(
    narrow_server: "ResponsesServer",
) -> None:
    say_raw(narrow_server, {"type": "computer_call", "call_id": "1", "status": "incomplete"})
    async with open_conversation(narrow_server) as conversation:
        with pytest.raises(CallNotRejectable, match="cut off"):
            await conversation.run("Go.", handlers={"computer_call": never})


async def test_a_shell_call_that_the_server_runs_is_not_run_here(
    narrow_server: "ResponsesServer",
) -> None:
    hosted: Json = {
        "type": "shell_call",
        "id": "sh_1",
        "call_id": "call_1",
        "action": {"commands": ["rm -r /"]},
        "status": "completed",
        "environment": {"type": "container_reference", "container_id": "c"},
    }
    result: Json = {"type": "shell_call_output", "id": "sho_1", "call_id": "call_1", "output": []}
    say_raw(narrow_server, hosted, result, MESSAGE)
    async with open_conversation(narrow_server) as conversation:
        response = await conversation.run("Go.", handlers={"shell_call": never})
        assert response.output_text == "Done."
        await narrow_server.reset_all()
        await conversation.create("On.")
    sent = narrow_server.requests[1].input_items
    assert [item["type"] for item in sent] == [
        "message",
        "shell_call",
        "shell_call_output",
        "message",
        "message",
    ]


@pytest.mark.parametrize("kind", ["completed", "failed"])
async def test_a_run_follows_the_terminal_event_if_its_response_has_no_status(
    narrow_server: "ResponsesServer", kind: str
) -> None:
    """A call runs, and a failed response raises: neither ends as a quiet success."""
    last = ended([CALL], "resp_1", kind)
    del last["response"]["status"]
    narrow_server.answer([created("resp_1"), last])
    async with open_conversation(narrow_server, tools=[weather]) as conversation:
        if kind == "failed":
            with pytest.raises(ResponseFailedError):
                await conversation.run("Go.")
            assert conversation.items == ()
        else:
            await conversation.run("Go.")
            assert [answers(narrow_server.requests[1])[0]["output"]] == ["Oslo"]


async def test_values_that_are_no_items_do_not_break_a_checkpoint(
    narrow_server: "ResponsesServer",
) -> None:
    narrow_server.answer([created(), ended([5, "text", [], MESSAGE])])  # type: ignore[list-item]
    async with open_conversation(narrow_server) as conversation:
        await conversation.create("Go.")
        assert len(conversation.items) == 2
        saved = conversation.checkpoint()
        async with (
            narrow_server.open_client() as connection,
            connection.restore_conversation(saved) as other,
        ):
            assert other.raw_items == conversation.raw_items


@pytest.mark.parametrize(
    "item",
    [
        {**MESSAGE, "content": None},
        {**MESSAGE, "role": 5},
        {**MESSAGE, "id": "x_1", "status": "odd", "phase": 5},
        {**MESSAGE, "content": [None, {"type": "output_text"}]},
        {"type": "web_search_call", "status": "completed"},
        {"type": "reasoning", "summary": "x", "encrypted_content": "g", "content": 5},
        {**CALL, "status": "odd", "id": 5, "arguments": [1]},
        {**CALL, "call_id": ""},
    ],
)
async def test_the_history_is_accepted_on_a_new_socket_whatever_form_an_item_has(
    narrow_server: "ResponsesServer", item: "Json"
) -> None:
    say_raw(narrow_server, item, {**MESSAGE, "id": "msg_2"})
    async with open_conversation(narrow_server) as conversation:
        await conversation.create("Go.")
        await narrow_server.reset_all()
        await conversation.create("On.")
    assert narrow_server.requests[-1].get("previous_response_id") is None
