"""Sync functions run in threads, or in the event loop if the tool says so. On the real clock."""

import threading

import trio
from trio.testing import MockClock

from tests.conversation.rig import history, open_conversation
from tests.conversation.runs.rig import is_paired, outputs
from trio_responses import ToolContext, ToolProgress, function_tool
from trio_responses.testing import Call, open_test_server

INTERRUPTED = "The call was interrupted: whether it had an effect is not known."


def test_a_sync_function_runs_in_a_thread_by_default() -> None:
    """The threads of one response run at the same time."""
    meeting = threading.Barrier(2)

    @function_tool
    def slow() -> bool:
        meeting.wait(timeout=30)
        return threading.current_thread() is threading.main_thread()

    @function_tool(run_in_thread=False)
    def quick() -> bool:
        return threading.current_thread() is threading.main_thread()

    async def main() -> None:
        async with open_test_server() as server:
            server.answer([Call(name, call_id=str(n)) for n, name in enumerate(("slow", "slow"))])
            server.answer([Call("quick", call_id="3")])
            async with open_conversation(server, tools=[slow, quick]) as conversation:
                await conversation.run("Go.")
            assert [outputs(request) for request in server.requests] == [
                [],
                ["false", "false"],
                ["true"],
            ]

    trio.run(main)


def test_a_run_does_not_wait_for_a_cancelled_thread() -> None:
    """The result of the thread is discarded."""
    begun, go_on, ended = threading.Event(), threading.Event(), threading.Event()

    @function_tool
    def stubborn() -> str:
        begun.set()
        go_on.wait(timeout=30)
        ended.set()
        return "too late"

    async def main() -> None:
        async with open_test_server() as server:
            server.answer([Call("stubborn", call_id="1")])
            async with open_conversation(server, tools=[stubborn]) as conversation:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(conversation.run, "Go.")
                    await trio.to_thread.run_sync(begun.wait)
                    nursery.cancel_scope.cancel()
                assert not ended.is_set()
                go_on.set()
                await trio.to_thread.run_sync(ended.wait)
                await conversation.run()
                assert is_paired(history(conversation))
            assert outputs(server.requests[1]) == [INTERRUPTED]

    trio.run(main)


def test_a_thread_that_exceeds_its_time_limit_does_not_hold_up_the_run() -> None:
    """The clock is moved by hand, after the thread has begun. The thread runs to its end."""
    begun, go_on, ended = threading.Event(), threading.Event(), threading.Event()
    clock = MockClock()

    @function_tool(timeout=5)
    def stubborn() -> str:
        begun.set()
        go_on.wait(timeout=30)
        ended.set()
        return "too late"

    async def main() -> None:
        async with open_test_server() as server:
            server.answer([Call("stubborn", call_id="1")])
            async with open_conversation(server, tools=[stubborn]) as conversation:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(conversation.run, "Go.")
                    await trio.to_thread.run_sync(begun.wait)
                    clock.jump(5)
                assert not ended.is_set()
                go_on.set()
                await trio.to_thread.run_sync(ended.wait)
            assert outputs(server.requests[1]) == [
                "Error: the tool 'stubborn' took longer than its limit of 5 s"
            ]

    trio.run(main, clock=clock)


def test_a_sync_tool_reports_its_progress_from_its_thread() -> None:
    @function_tool
    def work(context: ToolContext[str]) -> str:
        trio.from_thread.run(context.progress, "halfway")
        return context.dependencies

    async def main() -> None:
        async with open_test_server() as server:
            server.call("work", call_id="call_1")
            async with (
                open_conversation(server, tools=[work]) as conversation,
                conversation.run_stream("Work.", dependencies="the end") as run,
            ):
                values = [event.value async for event in run if isinstance(event, ToolProgress)]
            assert values == ["halfway"]
            assert outputs(server.requests[1]) == ["the end"]

    trio.run(main)
