"""Streams of runs: events, order of runs, steering, forks, checkpoints and settings."""

from itertools import groupby
from typing import TYPE_CHECKING, Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.conversation.rig import (
    deltas,
    history,
    message_texts,
    open_conversation,
    open_steady,
    parent,
)
from tests.conversation.runs.rig import (
    DONE,
    WEATHER,
    Worker,
    calls_of,
    is_paired,
    keep_calling,
    outputs,
)
from tests.turn.rig import Crowd, assert_at_rest, heard
from trio_responses import ToolFinished, ToolStarted, function_tool
from trio_responses._concurrency import open_collapsing_nursery
from trio_responses._protocol.requests import SteerState
from trio_responses._wire import decode_item
from trio_responses.types import FunctionCallOutput, OutputTextDelta, ResponseCompleted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trio_responses.testing import Request, ResponsesServer

INTERRUPTED = "The call was interrupted: whether it had an effect is not known."


@function_tool
async def weather(city: str) -> str:
    await trio.sleep(1)
    return f"21 degrees in {city}"


class Mine(Exception):
    """The exception of a block or of another task in these tests."""


# --- Events ------------------------------------------------------------------------------


async def test_one_iteration_has_the_events_of_the_model_and_its_tools(
    server: "ResponsesServer",
) -> None:
    server.answer([WEATHER])
    async with (
        open_conversation(server, tools=[weather]) as conversation,
        conversation.run_stream("Is it warm?") as run,
    ):
        events = [event async for event in run]
        assert [response.id for response in run.responses][-1] == run.response.id
        assert len(run.responses) == 2
    told = [event.type if event.type.startswith("trio_responses.") else "model" for event in events]
    assert [kind for kind, _ in groupby(told)] == [
        "model",
        ToolStarted.type,
        ToolFinished.type,
        "model",
    ]
    [started] = [event for event in events if isinstance(event, ToolStarted)]
    [finished] = [event for event in events if isinstance(event, ToolFinished)]
    assert started.name == finished.name == "weather"
    assert started.arguments == finished.arguments == '{"city":"Oslo"}'
    assert started.call_id == finished.call_id == "call_1"
    assert started.call == finished.call == run.responses[0].function_calls[0]
    assert finished.seconds == pytest.approx(1)
    assert finished.output == "21 degrees in Oslo"
    assert decode_item(finished.raw_item) == FunctionCallOutput(
        call_id="call_1", output="21 degrees in Oslo"
    )
    assert sum(isinstance(event, ResponseCompleted) for event in events) == 2
    deltas_ = (event.delta for event in events if isinstance(event, OutputTextDelta))
    assert "".join(deltas_) == run.response.output_text


async def test_an_exception_of_the_block_is_raised_unchanged(server: "ResponsesServer") -> None:
    """The run can be at any event, and leaves nothing behind."""
    server.respond_with(keep_calling(1, 2))
    places = 0
    async with open_steady(server) as connection, Crowd():
        while True:
            worker = Worker()
            async with connection.conversation(model="m", tools=[worker.tool]) as conversation:
                seen = 0
                try:
                    async with conversation.run_stream("Go.") as run:
                        async for _ in run:
                            if seen == places:
                                raise Mine
                            seen += 1
                except Mine:
                    assert (await conversation.run("Go.")).output_text == DONE
                    assert is_paired(history(conversation))
                else:
                    break
            places += 1
        assert_at_rest(connection)
    assert places > 15


async def test_an_exception_group_of_the_block_is_raised_unchanged(
    server: "ResponsesServer",
) -> None:
    async with open_conversation(server) as conversation:
        with pytest.raises(ExceptionGroup) as raised:
            async with conversation.run_stream("Go."):
                raise ExceptionGroup("mine", [Mine(), Mine()])
    assert raised.value.message == "mine"


async def test_a_run_can_be_left_after_any_event_and_continued(server: "ResponsesServer") -> None:
    """No call runs twice, and each call has one output."""
    server.respond_with(keep_calling(2, 2))
    stop = 0
    done = False
    while not done:
        worker = Worker()
        async with open_conversation(server, tools=[worker.tool]) as conversation:
            async with conversation.run_stream("Go.") as run:
                seen = 0
                done = True
                async for _ in run:
                    if seen == stop:
                        done = False
                        break
                    seen += 1
            await conversation.run(() if conversation.items else "Go.")
            assert is_paired(history(conversation)), stop
        assert set(worker.runs.values()) == {1}, stop
        stop += 1
    assert stop > 30


async def test_a_run_has_one_reader(server: "ResponsesServer") -> None:
    server.reply("Hello.", delay=1)
    async with open_conversation(server) as conversation, conversation.run_stream("Go.") as run:
        async with open_collapsing_nursery() as nursery:
            nursery.start_soon(run.get_final_response)
            await wait_all_tasks_blocked()
            with pytest.raises(trio.BusyResourceError):
                await anext(run)
        assert run.response.output_text == "Hello."


async def test_a_run_that_is_not_read_sends_nothing(server: "ResponsesServer") -> None:
    async with open_conversation(server) as conversation:
        async with conversation.run_stream("Go.") as run:
            assert run.stream is None
        with pytest.raises(RuntimeError, match="has no final response"):
            _ = run.response
        assert await anext(run, None) is None
        assert (await conversation.run("Hello.")).output_text == heard("Hello.")
    assert len(server.requests) == 1


# --- Order and steering ------------------------------------------------------------------


async def test_runs_of_one_conversation_wait_for_one_another(server: "ResponsesServer") -> None:
    """Runs start in the order in which they were asked for, and keep their turns together."""
    server.respond_with(lambda request: WEATHER if request.input_items[-1].get("role") else DONE)
    async with open_conversation(server, tools=[weather]) as conversation:
        async with trio.open_nursery() as nursery:
            for text in ("one", "two", "three"):
                nursery.start_soon(conversation.run, text)
                await wait_all_tasks_blocked()
        assert is_paired(history(conversation))
    assert message_texts(conversation) == ["one", DONE, "two", DONE, "three", DONE]
    assert deltas(server) == [False] + [True] * 5


async def test_a_failure_of_another_task_in_the_nursery_cancels_a_run(
    server: "ResponsesServer",
) -> None:
    server.answer([WEATHER])

    async def fail_soon() -> None:
        await trio.sleep(0.5)
        raise Mine

    async with open_steady(server) as connection, Crowd():
        async with connection.conversation(model="m", tools=[weather]) as conversation:

            async def run_beside() -> None:
                async with open_collapsing_nursery() as nursery:
                    nursery.start_soon(fail_soon)
                    await conversation.run("Go.")

            with pytest.raises(Mine):
                await run_beside()
            await conversation.run()
        assert_at_rest(connection)
    assert outputs(server.requests[1]) == [INTERRUPTED]


async def test_a_pending_steering_input_is_applied_with_the_outputs(
    server: "ResponsesServer",
) -> None:
    release = trio.Event()
    server.answer([WEATHER]).hold(release, after_events=3)
    async with open_conversation(server, store=False, tools=[weather]) as conversation:
        async with conversation.run_stream("Is it warm?") as run:
            receipt = None
            async for _ in run:
                if receipt is None and run.stream is not None:
                    receipt = await run.stream.steer("In Oslo, too?")
                    release.set()
            assert receipt is not None
            assert receipt.state is SteerState.COMMITTED
            assert receipt.successor == run.response.id
        kinds = [item.get("role") or item["type"] for item in history(conversation)]
        assert kinds == ["user", "function_call", "user", "function_call_output", "assistant"]
        await conversation.run("Thanks.")
    assert deltas(server) == [False, True, True]
    assert outputs(server.requests[1]) == ["21 degrees in Oslo"]
    assert len(server.requests[-1].history) == 6


async def test_a_steered_run_continues_with_the_successor(server: "ResponsesServer") -> None:
    release = trio.Event()
    server.reply("one", more=["two"]).hold(release, after_events=5)
    server.answer([WEATHER])
    async with open_conversation(server, tools=[weather]) as conversation:
        async with conversation.run_stream("Count.") as run:
            steered = False
            async for _ in run:
                if not steered and run.stream is not None:
                    steered = True
                    await run.stream.steer("No: is it warm?")
                    release.set()
        assert is_paired(history(conversation))
        assert message_texts(conversation)[:2] == ["Count.", "one"]
        assert "21 degrees in Oslo" in run.response.output_text
    assert [outputs(request) for request in server.requests][-1] == ["21 degrees in Oslo"]


# --- Checkpoints, forks and other conversations ------------------------------------------


async def test_a_checkpoint_during_a_run_has_the_outputs_so_far(server: "ResponsesServer") -> None:
    """A call that was active is interrupted for the restored conversation."""
    server.answer(calls_of(0, 3))
    worker = Worker()
    saved = b""
    async with open_steady(server) as connection:
        async with (
            connection.conversation(model="m", tools=[worker.tool]) as conversation,
            conversation.run_stream("Go.", max_concurrency=1) as run,
        ):
            async for event in run:
                if isinstance(event, ToolFinished) and not saved:
                    await trio.sleep(0.01)  # the next call starts
                    saved = conversation.checkpoint()
            assert outputs(server.requests[-1]) == ["0/0", "0/1", "0/2"]
        worker.runs.clear()
        async with connection.restore_conversation(saved) as again:
            assert again.checkpoint() == saved
            await again.run(tools=[worker.tool])
            assert is_paired(history(again))
    assert outputs(server.requests[-1]) == ["0/0", INTERRUPTED, "0/2"]
    assert worker.runs == {(0, 2): 1}


async def test_a_checkpoint_between_two_runs_has_the_pending_calls(
    server: "ResponsesServer",
) -> None:
    server.answer(calls_of(0, 2))
    worker = Worker()
    async with open_steady(server) as connection:
        async with connection.conversation(model="m", tools=[worker.tool]) as conversation:
            await conversation.create("Go.")
            saved = conversation.checkpoint()
        async with connection.restore_conversation(saved) as again:
            await again.run(tools=[worker.tool])
            assert is_paired(history(again))
    assert outputs(server.requests[-1]) == ["0/0", "0/1"]


async def test_a_fork_during_a_run_has_the_outputs_so_far(server: "ResponsesServer") -> None:
    server.answer(calls_of(0, 2))
    worker = Worker()
    async with (
        open_conversation(server, store=False, tools=[worker.tool]) as conversation,
        conversation.run_stream("Go.") as run,
    ):
        async for event in run:
            if isinstance(event, ToolFinished) and event.call == run.responses[0].output[1]:
                branch = await conversation.fork()
                await branch.run()
                assert outputs(server.requests[-1]) == [INTERRUPTED, "0/1"]
                assert is_paired(history(branch))
        assert outputs(server.requests[-1]) == ["0/0", "0/1"]
        assert is_paired(history(conversation))
        assert parent(server.requests[1]) == parent(server.requests[2])
    assert worker.runs == {(0, 0): 1, (0, 1): 1}


async def test_a_tool_may_use_another_conversation(server: "ResponsesServer") -> None:
    """Only its own conversation is locked by the run."""
    server.answer([WEATHER])
    async with (
        open_steady(server) as connection,
        connection.conversation(model="m") as conversation,
        connection.conversation(model="m") as other,
    ):

        @function_tool(name="weather")
        async def ask_another(city: str) -> str:
            return (await other.create(city)).output_text

        await conversation.run("Is it warm?", tools=[ask_another])
    assert outputs(server.requests[-1]) == [heard("Oslo")]


async def test_a_cleared_history_during_a_run_ends_the_run(server: "ResponsesServer") -> None:
    """Outputs of its tools are not sent in the new chain, even for equal call ids."""
    server.answer([WEATHER])
    async with open_conversation(server, tools=[weather]) as conversation:
        async with conversation.run_stream("Is it warm?") as run:
            async for event in run:
                if isinstance(event, ToolStarted):
                    await conversation.clear_history()
        assert run.response.function_calls
        assert conversation.items == ()
        server.call("weather", {"city": "Rome"}, call_id="call_1")
        await conversation.run("And here?")
        assert is_paired(history(conversation))
    assert [outputs(request) for request in server.requests] == [[], [], ["21 degrees in Rome"]]


# --- Settings ----------------------------------------------------------------------------


def choices(requests: "Sequence[Request]") -> list[Any]:
    return [request.get("tool_choice") for request in requests]


ALLOWED = {"type": "allowed_tools", "tools": [{"type": "function", "name": "weather"}]}


@pytest.mark.parametrize(
    ("forced", "after"),
    [
        ("required", "auto"),
        ({"type": "function", "name": "weather"}, "auto"),
        ("auto", "auto"),
        ("none", "none"),
        ({**ALLOWED, "mode": "required"}, {**ALLOWED, "mode": "auto"}),
        ({**ALLOWED, "mode": "auto"}, {**ALLOWED, "mode": "auto"}),
    ],
)
async def test_a_forced_call_is_forced_in_the_first_turn_only(
    server: "ResponsesServer", forced: Any, after: Any
) -> None:
    """The tools that the choice allows are the same in all turns."""
    for _ in range(2):
        server.answer([WEATHER])
    async with open_conversation(
        server, tools=[weather], parallel_tool_calls=False
    ) as conversation:
        await conversation.run("Is it warm?", tool_choice=forced)
        await conversation.run("Is it?")
    assert choices(server.requests) == [forced, after, after, None]
    assert [request["parallel_tool_calls"] for request in server.requests] == [False] * 4
    assert {request["tools"][0]["name"] for request in server.requests} == {"weather"}
