"""Leave to run a call: asked for before it begins, and said to the model where it is refused."""

from typing import TYPE_CHECKING, Any

import pytest
import trio

from tests.conversation.rig import history, open_talk
from tests.runs.rig import answers, is_paired, outputs, say_raw
from trio_responses import ToolFinished, ToolStarted, CallNotRejectable, function_tool
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


async def test_leave_is_given_and_refused_call_by_call(server: ResponsesServer) -> None:
    asked: list[str] = []

    async def approve(call: Any) -> bool | str:
        await trio.lowlevel.checkpoint()
        asked.append(call.call_id)
        verdicts: dict[str, bool | str] = {"a": True, "b": False, "c": "Not on Sundays.", "d": ""}
        return verdicts[call.call_id]

    server.answer(paths("a", "b", "c", "d"))
    async with open_talk(server, tools=[delete]) as talk:
        async with talk.run_stream("Clean up.", approve=approve) as run:
            events = [event async for event in run]
        assert is_paired(history(talk))
    assert runs == ["a"]
    assert sorted(asked) == ["a", "b", "c", "d"]
    declined = "The call was declined."
    assert outputs(server.requests[1]) == ["a is gone", declined, "Not on Sundays.", declined]
    assert sum(isinstance(event, ToolStarted) for event in events) == 1
    ended = [event for event in events if isinstance(event, ToolFinished)]
    assert [event.error for event in ended] == [None] * 4


async def test_no_leave_is_asked_for_what_cannot_run(server: ResponsesServer) -> None:
    async def approve(call: Any) -> bool:
        raise AssertionError(call)

    server.answer([Call("remove", call_id="1", unoffered=True)])
    async with open_talk(server, tools=[delete]) as talk:
        await talk.run("Clean up.", approve=approve)
    assert outputs(server.requests[1]) == ["There is no tool named 'remove'."]


async def test_a_question_does_not_hold_up_the_other_calls(server: ResponsesServer) -> None:
    """Nor does it take a place, or any of the time that the call has."""

    async def approve(call: Any) -> bool:
        await trio.sleep(1000 if call.call_id == "a" else 0)
        return True

    server.answer(paths("a", "b"))
    async with open_talk(server, tools=[delete]) as talk:
        await talk.run("Clean up.", approve=approve, max_concurrency=1, tool_timeout=1)
    assert runs == ["b", "a"]
    assert outputs(server.requests[1]) == ["a is gone", "b is gone"]


@pytest.mark.parametrize("kind", ["function_call", "mcp_approval_request"])
async def test_what_the_question_raises_ends_the_run_and_it_is_asked_again(
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
        raise LookupError(call.type)

    async def ponder(_: Any) -> bool:
        await trio.sleep_forever()
        raise AssertionError

    async def agree(_: Any) -> bool:
        await trio.lowlevel.checkpoint()
        return True

    async with open_talk(narrow_server, tools=[delete]) as talk:
        with pytest.raises(LookupError, match=kind):
            await talk.run("Clean up.", approve=give_up)
        with trio.move_on_after(5) as scope:
            await talk.run(approve=ponder, tool_timeout=1)
        assert scope.cancelled_caught
        assert len(narrow_server.requests) == 1
        await talk.run(approve=agree)
    [answer] = answers(narrow_server.requests[1])
    assert answer.get("approve", True) is True
    assert answer.get("output", "a is gone") == "a is gone"


async def test_a_computer_that_may_not_is_no_answer(narrow_server: ResponsesServer) -> None:
    """There is no screenshot that says no: the run raises, and the call can be answered later."""
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

    async with open_talk(narrow_server) as talk:
        with pytest.raises(CallNotRejectable, match=r"computer_call.*No\.") as raised:
            await talk.run("Look.", handlers={"computer_call": look}, approve=approve)
        assert raised.value.kind == "computer_call"
        await talk.run(handlers={"computer_call": look})
    [answer] = answers(narrow_server.requests[1])
    assert answer["output"]["type"] == "computer_screenshot"


async def test_leave_that_is_neither_true_nor_text_is_no_leave(server: ResponsesServer) -> None:
    @function_tool(cheap=True)
    def pay(euros: int) -> str:
        return f"paid {euros}"

    async def approve(_: Any) -> Any:
        return 1

    async with open_talk(server, tools=[pay]) as talk:
        server.calls(Call("pay", {"euros": 3}))
        server.reply("done")
        await talk.run("hi", approve=approve)
        assert server.last_request.output_of("pay") == "The call was declined."
