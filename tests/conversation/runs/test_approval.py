"""Approval of calls: asked for before a call runs; the model gets the reason if declined."""

from typing import TYPE_CHECKING, Any

import pytest
import trio

from tests.conversation.rig import history, open_conversation
from tests.conversation.runs.rig import answers, is_paired, outputs, say_raw
from trio_responses import (
    CallNotRejectable,
    SafetyChecksPending,
    ToolFinished,
    ToolStarted,
    function_tool,
)
from trio_responses._wire import ComputerCallOutput, ComputerScreenshot
from trio_responses.testing import Call, ResponsesServer

if TYPE_CHECKING:
    from tests.turn.rig import Json

runs: list[str] = []


@function_tool
async def delete(path: str) -> str:
    await trio.lowlevel.checkpoint()
    runs.append(path)
    return f"{path} is gone"


@pytest.fixture(autouse=True)
def no_runs() -> None:
    runs.clear()


def paths(*names: str) -> list[Call]:
    return [Call("delete", {"path": name}, call_id=name) for name in names]


async def test_each_call_is_approved_or_declined_by_itself(server: ResponsesServer) -> None:
    asked: list[str] = []

    async def approve(call: Any) -> bool | str:
        await trio.lowlevel.checkpoint()
        asked.append(call.call_id)
        verdicts: dict[str, bool | str] = {"a": True, "b": False, "c": "Not on Sundays.", "d": ""}
        return verdicts[call.call_id]

    server.answer(paths("a", "b", "c", "d"))
    async with open_conversation(server, tools=[delete]) as conversation:
        async with conversation.run_stream("Clean up.", approve=approve) as run:
            events = [event async for event in run]
        assert is_paired(history(conversation))
    assert runs == ["a"]
    assert sorted(asked) == ["a", "b", "c", "d"]
    declined = "The call was declined."
    assert outputs(server.requests[1]) == ["a is gone", declined, "Not on Sundays.", declined]
    assert sum(isinstance(event, ToolStarted) for event in events) == 1
    ended = [event for event in events if isinstance(event, ToolFinished)]
    assert [event.error for event in ended] == [None] * 4


async def test_no_approval_is_asked_for_a_call_that_cannot_run(server: ResponsesServer) -> None:
    async def approve(call: Any) -> bool:
        raise AssertionError(call)

    server.answer([Call("remove", call_id="1", unoffered=True)])
    async with open_conversation(server, tools=[delete]) as conversation:
        await conversation.run("Clean up.", approve=approve)
    assert outputs(server.requests[1]) == ["There is no tool named 'remove'."]


async def test_a_slow_approval_does_not_delay_the_other_calls(server: ResponsesServer) -> None:
    """It does not count for max_concurrency, nor for the time limit of the call."""

    async def approve(call: Any) -> bool:
        await trio.sleep(1000 if call.call_id == "a" else 0)
        return True

    server.answer(paths("a", "b"))
    async with open_conversation(server, tools=[delete]) as conversation:
        await conversation.run("Clean up.", approve=approve, max_concurrency=1, tool_timeout=1)
    assert runs == ["b", "a"]
    assert outputs(server.requests[1]) == ["a is gone", "b is gone"]


@pytest.mark.parametrize("kind", ["function_call", "mcp_approval_request"])
async def test_after_an_exception_of_the_approval_the_next_run_asks_again(
    narrow_server: ResponsesServer, kind: str
) -> None:
    say_raw(
        narrow_server,
        {
            "type": kind,
            "id": "mcpr_1",
            "call_id": "1",
            "name": "delete",
            "server_label": "files",
            "arguments": '{"path": "a"}',
        },
    )

    async def give_up(call: Any) -> bool:
        await trio.lowlevel.checkpoint()
        raise LookupError(call.wire_type)

    async def ponder(_: Any) -> bool:
        await trio.sleep_forever()
        raise AssertionError

    async def agree(_: Any) -> bool:
        await trio.lowlevel.checkpoint()
        return True

    async with open_conversation(narrow_server, tools=[delete]) as conversation:
        with pytest.raises(LookupError, match=kind):
            await conversation.run("Clean up.", approve=give_up)
        with trio.move_on_after(5) as scope:
            await conversation.run(approve=ponder, tool_timeout=1)
        assert scope.cancelled_caught
        assert len(narrow_server.requests) == 1
        await conversation.run(approve=agree)
    [answer] = answers(narrow_server.requests[1])
    assert answer.get("approve", True) is True
    assert answer.get("output", "a is gone") == "a is gone"


async def test_a_declined_computer_call_raises_and_can_be_answered_later(
    narrow_server: ResponsesServer,
) -> None:
    """A screenshot has no place for a reason."""
    call: Json = {
        "type": "computer_call",
        "id": "cu_1",
        "call_id": "1",
        "pending_safety_checks": [],
    }
    say_raw(narrow_server, {**call, "action": {"type": "screenshot"}, "status": "completed"})

    async def look(_: Any) -> Any:
        await trio.lowlevel.checkpoint()
        return {"type": "computer_screenshot", "image_url": "data:,"}

    async def approve(_: Any) -> str:
        await trio.lowlevel.checkpoint()
        return "No."

    async with open_conversation(narrow_server) as conversation:
        with pytest.raises(CallNotRejectable, match=r"computer_call.*No\.") as raised:
            await conversation.run("Look.", handlers={"computer_call": look}, approve=approve)
        assert raised.value.kind == "computer_call"
        await conversation.run(handlers={"computer_call": look})
    [answer] = answers(narrow_server.requests[1])
    assert answer["output"]["type"] == "computer_screenshot"


CHECK: "Json" = {"id": "sc_1", "code": "malicious_instructions", "message": "The page says so."}
SCREEN = {"type": "computer_screenshot", "image_url": "data:,"}


def click(*checks: "Json") -> "Json":
    """Return a computer call with pending safety checks."""
    action = {"type": "click", "x": 1, "y": 1, "button": "left"}
    ids = {"id": "cu_1", "call_id": "1", "status": "completed"}
    return {"type": "computer_call", **ids, "action": action, "pending_safety_checks": [*checks]}


@pytest.mark.parametrize(
    ("result", "acknowledged"),
    [
        (SCREEN, [CHECK]),
        ({"type": "computer_call_output", "call_id": "1", "output": SCREEN}, [CHECK]),
        (ComputerCallOutput(call_id="1", output=ComputerScreenshot(image_url="data:,")), [CHECK]),
        (
            {
                "type": "computer_call_output",
                "call_id": "1",
                "output": SCREEN,
                "acknowledged_safety_checks": [{"id": "sc_1"}],
            },
            [{"id": "sc_1"}],
        ),
    ],
)
async def test_an_approved_computer_call_acknowledges_its_safety_checks(
    narrow_server: ResponsesServer, result: Any, acknowledged: Any
) -> None:
    """A whole output item of the handler may have its own acknowledgement."""
    say_raw(narrow_server, click(CHECK))
    asked: list[str | None] = []

    async def act(_: Any) -> Any:
        await trio.lowlevel.checkpoint()
        return result

    async def approve(call: Any) -> bool:
        await trio.lowlevel.checkpoint()
        asked.extend(check.message for check in call.pending_safety_checks)
        return True

    async with open_conversation(narrow_server) as conversation:
        await conversation.run("Go.", handlers={"computer_call": act}, approve=approve)
    assert asked == [CHECK["message"]]
    [answer] = answers(narrow_server.requests[1])
    assert answer["acknowledged_safety_checks"] == acknowledged
    assert answer["output"] == SCREEN


async def test_a_call_with_safety_checks_does_not_run_without_approval(
    narrow_server: ResponsesServer,
) -> None:
    """The next run can approve it."""
    say_raw(narrow_server, click(CHECK))
    clicks: list[str] = []

    async def act(call: Any) -> Any:
        await trio.lowlevel.checkpoint()
        clicks.append(call.call_id)
        return SCREEN

    async def decline(_: Any) -> str:
        await trio.lowlevel.checkpoint()
        return "Too risky."

    async def agree(_: Any) -> bool:
        await trio.lowlevel.checkpoint()
        return True

    handlers = {"computer_call": act}
    async with open_conversation(narrow_server) as conversation:
        with pytest.raises(SafetyChecksPending, match="malicious_instructions") as raised:
            await conversation.run("Go.", handlers=handlers)
        assert raised.value.call.call_id == "1"
        with pytest.raises(CallNotRejectable, match="Too risky"):
            await conversation.run(handlers=handlers, approve=decline)
        assert clicks == []
        assert len(narrow_server.requests) == 1
        await conversation.run(handlers=handlers, approve=agree)
    assert clicks == ["1"]
    [answer] = answers(narrow_server.requests[1])
    assert answer["acknowledged_safety_checks"] == [CHECK]


@pytest.mark.parametrize("checks", [3, [{"code": "x"}], [7]])
async def test_a_call_whose_safety_checks_cannot_be_read_does_not_run(
    narrow_server: ResponsesServer, checks: Any
) -> None:
    say_raw(narrow_server, {**click(), "pending_safety_checks": checks})

    async def refuse(call: Any) -> Any:
        raise AssertionError(call)

    async with open_conversation(narrow_server) as conversation:
        with pytest.raises(CallNotRejectable, match="pending_safety_checks"):
            await conversation.run("Go.", handlers={"computer_call": refuse}, approve=refuse)


@pytest.mark.parametrize("approved", [True, False])
async def test_a_call_without_safety_checks_acknowledges_none(
    narrow_server: ResponsesServer, *, approved: bool
) -> None:
    say_raw(narrow_server, click())

    async def act(_: Any) -> Any:
        await trio.lowlevel.checkpoint()
        return SCREEN

    async def agree(_: Any) -> bool:
        await trio.lowlevel.checkpoint()
        return True

    options: Json = {"approve": agree} if approved else {}
    async with open_conversation(narrow_server) as conversation:
        await conversation.run("Go.", handlers={"computer_call": act}, **options)
    [answer] = answers(narrow_server.requests[1])
    assert "acknowledged_safety_checks" not in answer


async def test_an_approval_that_is_neither_true_nor_text_declines(server: ResponsesServer) -> None:
    @function_tool(run_in_thread=False)
    def pay(euros: int) -> str:
        return f"paid {euros}"

    async def approve(_: Any) -> Any:
        return 1

    async with open_conversation(server, tools=[pay]) as conversation:
        server.calls(Call("pay", {"euros": 3}))
        server.reply("done")
        await conversation.run("hi", approve=approve)
        assert server.last_request.output_of("pay") == "The call was declined."
