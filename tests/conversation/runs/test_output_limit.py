"""The limit of tool outputs: no output makes the requests after it too large."""

from typing import TYPE_CHECKING, Any

import pytest
import trio

from tests.conversation.rig import open_conversation, open_steady
from tests.conversation.runs.rig import DONE, answers, function_call, say_raw
from trio_responses import InvalidResult, Limits, RequestTooLarge, ToolFinished, function_tool
from trio_responses.types import InputImage, InputText

if TYPE_CHECKING:
    from tests.turn.rig import Json
    from trio_responses.testing import ResponsesServer

LONG = "a" * 600 + "z" * 600
LIMIT = 100
NOTICE = "\n[1100 of 1200 characters were left out here: the output was too long]\n"
SHORT = "a" * 50 + NOTICE + "z" * 50
TOO_LARGE = "data:image/png;base64," + "A" * 10_485_760
EXIT = {"type": "exit", "exit_code": 0}


def make_tool(result: Any) -> Any:
    @function_tool
    async def read() -> Any:
        await trio.lowlevel.checkpoint()
        if isinstance(result, Exception):
            raise result
        return result

    return read


async def output_of(server: "ResponsesServer", item: "Json", result: Any, **options: Any) -> "Json":
    """Answer a call by a function or handler, and return the output item that was sent."""

    async def handle(_: Any) -> Any:
        await trio.lowlevel.checkpoint()
        if isinstance(result, Exception):
            raise result
        return result

    say_raw(server, item)
    server.reply(DONE)
    async with open_conversation(server, tools=[make_tool(result)]) as conversation:
        handlers = {} if item["type"] == "function_call" else {item["type"]: handle}
        answer = await conversation.run("Go.", handlers=handlers, **options)
        assert answer.output_text == DONE
    [output] = answers(server.requests[1])
    return output


CALL = function_call("read")


async def test_a_text_of_11_megabytes_is_shortened_by_default(
    narrow_server: "ResponsesServer",
) -> None:
    """The next runs work as well."""
    text = "\n" * 11_000_000
    output = (await output_of(narrow_server, CALL, text))["output"]
    notice = "\n[10000000 of 11000000 characters were left out here: the output was too long]\n"
    assert len(output) == 1_000_000 + len(notice)
    assert notice in output


async def test_a_text_within_the_limit_is_sent_unchanged(narrow_server: "ResponsesServer") -> None:
    text = "é\n" * 600
    assert (await output_of(narrow_server, CALL, text, max_tool_output=1200))["output"] == text


@pytest.mark.parametrize(
    ("item", "result", "expected"),
    [
        (CALL, LONG, {"output": SHORT}),
        (
            CALL,
            RuntimeError(LONG),
            {
                "output": "Error: RuntimeError: "
                + "a" * 29
                + NOTICE.replace("1200", "1221").replace("1100", "1121")
                + "z" * 50
            },
        ),
        (
            CALL,
            [
                InputText(text="caption"),
                InputImage(image_url="data:image/png;base64,"),
                InputText(text=LONG),
            ],
            {
                "output": [
                    {"type": "input_text", "text": "caption"},
                    {"type": "input_image", "image_url": "data:image/png;base64,"},
                    {
                        "type": "input_text",
                        "text": "a" * 47 + NOTICE.replace("1100", "1107") + "z" * 46,
                    },
                ]
            },
        ),
        (
            {"type": "shell_call", "call_id": "1", "action": {"commands": ["ls"]}},
            [{"stdout": LONG, "stderr": "", "outcome": EXIT}],
            {"output": [{"stdout": SHORT, "stderr": "", "outcome": EXIT}]},
        ),
        (
            {"type": "shell_call", "call_id": "1", "action": {"commands": ["ls"]}},
            {
                "type": "shell_call_output",
                "call_id": "1",
                "output": [{"stdout": "", "stderr": LONG, "outcome": EXIT}],
            },
            {"output": [{"stdout": "", "stderr": SHORT, "outcome": EXIT}]},
        ),
        (
            {
                "type": "apply_patch_call",
                "call_id": "1",
                "operation": {"type": "delete_file", "path": "a"},
            },
            LONG,
            {"status": "completed", "output": SHORT},
        ),
        (
            {"type": "local_shell_call", "call_id": "1", "action": {"type": "exec", "command": []}},
            LONG,
            {"output": SHORT},
        ),
        (
            {"type": "mcp_approval_request", "id": "1", "name": "x", "arguments": "{}"},
            LONG,
            {"approve": False, "reason": SHORT},
        ),
    ],
)
async def test_the_text_of_each_kind_of_output_is_shortened_with_a_notice(
    narrow_server: "ResponsesServer", item: "Json", result: Any, expected: "Json"
) -> None:
    output = await output_of(narrow_server, item, result, max_tool_output=LIMIT)
    assert {name: output[name] for name in expected} == expected


async def test_the_reason_of_a_declined_call_is_shortened(
    narrow_server: "ResponsesServer",
) -> None:
    async def decline(_: Any) -> str:
        await trio.lowlevel.checkpoint()
        return LONG

    output = await output_of(narrow_server, CALL, "", max_tool_output=LIMIT, approve=decline)
    assert output["output"] == SHORT


async def test_the_output_of_a_custom_tool_is_shortened(narrow_server: "ResponsesServer") -> None:
    async def query(_: Any) -> Any:
        await trio.lowlevel.checkpoint()
        return {"rows": LONG}

    item = {"type": "custom_tool_call", "call_id": "1", "name": "sql", "input": ""}
    say_raw(narrow_server, item)
    tools: Any = [{"type": "custom", "name": "sql"}]
    async with open_conversation(narrow_server, tools=tools) as conversation:
        await conversation.run("Go.", handlers={"sql": query}, max_tool_output=LIMIT)
    [output] = answers(narrow_server.requests[1])
    assert output["output"].startswith('{"rows":"aaa')
    assert "1111 of 1211 characters were left out" in output["output"]


async def test_a_too_large_image_is_an_error_for_the_model(
    narrow_server: "ResponsesServer",
) -> None:
    say_raw(narrow_server, CALL)
    tool = make_tool([InputText(text="see"), InputImage(image_url=TOO_LARGE)])
    async with (
        open_conversation(narrow_server, tools=[tool]) as conversation,
        conversation.run_stream("Go.") as run,
    ):
        [finished] = [event async for event in run if isinstance(event, ToolFinished)]
    assert isinstance(finished.error, InvalidResult)
    [output] = answers(narrow_server.requests[1])
    assert output["output"].startswith("Error: InvalidResult: the tool 'read' returned an output")


async def test_a_too_large_screenshot_ends_the_run(narrow_server: "ResponsesServer") -> None:
    """Its output has no place for a text."""

    async def look(_: Any) -> Any:
        await trio.lowlevel.checkpoint()
        return {"type": "computer_screenshot", "image_url": TOO_LARGE}

    say_raw(narrow_server, {"type": "computer_call", "call_id": "1"})
    async with open_conversation(narrow_server) as conversation:
        with pytest.raises(InvalidResult, match="'computer_call' returned an output of 10485"):
            await conversation.run("Go.", handlers={"computer_call": look})


async def test_a_screenshot_is_no_text_and_is_not_shortened(
    narrow_server: "ResponsesServer",
) -> None:
    screen = {"type": "computer_screenshot", "image_url": "data:image/png;base64," + LONG}
    item: Json = {"type": "computer_call", "call_id": "1"}
    output = await output_of(narrow_server, item, screen, max_tool_output=LIMIT)
    assert output["output"] == screen


async def test_a_run_with_a_lower_limit_continues_after_outputs_that_were_too_large(
    narrow_server: "ResponsesServer",
) -> None:
    """The calls do not run again; the limit holds for stored outputs as well."""
    runs: list[int] = []

    @function_tool
    async def read(number: int) -> str:
        await trio.lowlevel.checkpoint()
        runs.append(number)
        return LONG * 100

    calls = [function_call("read", f'{{"number": {n}}}', call_id=str(n)) for n in range(3)]
    say_raw(narrow_server, *calls)
    limits = Limits(max_request_bytes=200_000)
    async with (
        open_steady(narrow_server, limits=limits) as connection,
        connection.conversation(model="m", tools=[read]) as conversation,
    ):
        for _ in range(2):
            with pytest.raises(RequestTooLarge):
                await conversation.run("Go.")
        response = await conversation.run(max_tool_output=1000)
    assert response.status == "completed"
    assert runs == [0, 1, 2]
    sent = [item["output"] for item in answers(narrow_server.requests[1])]
    assert all("119000 of 120000 characters were left out" in output for output in sent)
    assert len(sent) == 3
