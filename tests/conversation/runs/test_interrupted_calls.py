"""Calls that were interrupted: none starts again, unless the program asks for it."""

from typing import TYPE_CHECKING, Any

import pytest
import trio

from tests.conversation.rig import open_conversation, open_steady
from tests.conversation.runs.rig import answers, function_call, outputs, say_raw
from trio_responses import CallInterrupted, Conversation, function_tool

if TYPE_CHECKING:
    from tests.turn.rig import Json
    from trio_responses.testing import ResponsesServer

INTERRUPTED = "The call was interrupted: whether it had an effect is not known."
SCREEN = {"type": "computer_screenshot", "image_url": "data:image/png;base64,"}
RESULTS: dict[str, Any] = {"computer_call": SCREEN, "tool_search_call": []}
CALLS: "dict[str, Json]" = {
    "computer_call": {"action": {"type": "screenshot"}, "pending_safety_checks": []},
    "tool_search_call": {"arguments": {"query": "x"}, "execution": "client"},
}


class Handler:
    """A handler that hangs, or fails, at its first call."""

    def __init__(self, kind: str, error: Exception | None = None) -> None:
        self.kind = kind
        self.error = error
        self.starts = 0

    async def __call__(self, _: Any) -> Any:
        """Answer a call."""
        self.starts += 1
        if self.starts == 1:
            await trio.sleep(1)
            if self.error is not None:
                raise self.error
            await trio.sleep_forever()
        return RESULTS[self.kind]


async def interrupt(
    server: "ResponsesServer", conversation: Conversation, handler: Handler
) -> None:
    """Run a response with a call whose handler is cancelled or fails."""
    item = {"type": handler.kind, "id": "i_1", "call_id": "1", "status": "completed"}
    say_raw(server, {**item, **CALLS[handler.kind]})
    with trio.move_on_after(5):
        await conversation.run("Go.", handlers={handler.kind: handler})
        raise AssertionError
    assert handler.starts == 1


@pytest.mark.parametrize("kind", RESULTS)
async def test_a_call_whose_output_cannot_express_an_interruption_does_not_start_again(
    narrow_server: "ResponsesServer", kind: str
) -> None:
    handler = Handler(kind)
    async with open_conversation(narrow_server) as conversation:
        await interrupt(narrow_server, conversation, handler)
        for handlers in ({kind: handler}, {}):
            with pytest.raises(CallInterrupted, match=f"a {kind} was interrupted") as raised:
                await conversation.run(handlers=handlers)
            assert raised.value.call.wire_type == raised.value.kind == kind
        assert handler.starts == 1
        assert len(narrow_server.requests) == 1
        await conversation.run(handlers={kind: handler}, repeat_interrupted=True)
    assert handler.starts == 2
    assert len(answers(narrow_server.requests[1])) == 1


@pytest.mark.parametrize("kind", RESULTS)
async def test_a_call_that_failed_does_not_start_again(
    narrow_server: "ResponsesServer", kind: str
) -> None:
    handler = Handler(kind, LookupError("out of order"))
    async with open_conversation(narrow_server) as conversation:
        with pytest.raises(LookupError):
            await interrupt(narrow_server, conversation, handler)
        with pytest.raises(CallInterrupted):
            await conversation.run(handlers={kind: handler})
    assert handler.starts == 1


async def test_the_caller_may_answer_an_interrupted_call(narrow_server: "ResponsesServer") -> None:
    handler = Handler("computer_call")
    async with open_conversation(narrow_server) as conversation:
        await interrupt(narrow_server, conversation, handler)
        answer = {"type": "computer_call_output", "call_id": "1", "output": SCREEN}
        await conversation.run([answer], handlers={"computer_call": handler})
        await conversation.run("And now?", handlers={"computer_call": handler})
    assert handler.starts == 1
    assert [len(answers(request)) for request in narrow_server.requests] == [0, 1, 0]


@pytest.mark.parametrize("by", ["fork", "checkpoint", "replace_history"])
async def test_a_copy_of_the_conversation_does_not_start_the_call_again(
    narrow_server: "ResponsesServer", by: str
) -> None:
    handler = Handler("computer_call")
    handlers = {"computer_call": handler}
    async with open_steady(narrow_server) as connection:
        async with connection.conversation(model="m") as conversation:
            await interrupt(narrow_server, conversation, handler)
            saved = conversation.checkpoint()
            other = conversation
            if by == "fork":
                other = await conversation.fork()
            elif by == "replace_history":
                await conversation.replace_history(conversation.raw_items)
            if by != "checkpoint":
                with pytest.raises(CallInterrupted):
                    await other.run(handlers=handlers)
        if by == "checkpoint":
            async with connection.restore_conversation(saved) as other:
                with pytest.raises(CallInterrupted):
                    await other.run(handlers=handlers)
                await other.run(handlers=handlers, repeat_interrupted=True)
    assert handler.starts == (2 if by == "checkpoint" else 1)


async def test_a_run_without_a_history_of_interruptions_ignores_the_option(
    narrow_server: "ResponsesServer",
) -> None:
    async with open_conversation(narrow_server) as conversation:
        assert (await conversation.run("Hello.", repeat_interrupted=True)).status == "completed"


@pytest.mark.parametrize("repeat", [False, True])
async def test_a_function_says_that_it_was_interrupted_unless_it_is_repeated(
    narrow_server: "ResponsesServer", *, repeat: bool
) -> None:
    """A call that ended keeps its output, and a call that was interrupted twice counts as one."""
    starts: list[str] = []

    @function_tool
    async def work(name: str) -> str:
        starts.append(name)
        if name == "slow" and starts.count(name) < 3:
            await trio.sleep_forever()
        return name

    calls = [
        function_call("work", f'{{"name": "{name}"}}', call_id=name) for name in ("quick", "slow")
    ]
    say_raw(narrow_server, *calls)
    async with open_conversation(narrow_server, tools=[work]) as conversation:
        with trio.move_on_after(5):
            await conversation.run("Go.")
        if repeat:
            with trio.move_on_after(5):
                await conversation.run(repeat_interrupted=True)
        await conversation.run(repeat_interrupted=repeat)
    assert starts.count("quick") == 1
    assert starts.count("slow") == (3 if repeat else 1)
    assert outputs(narrow_server.requests[1]) == ["quick", "slow" if repeat else INTERRUPTED]
