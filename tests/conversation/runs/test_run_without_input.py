"""``run()`` without input continues where the last run stopped."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from tests.conversation.rig import open_conversation
from tests.conversation.runs.rig import DONE, Worker, answers
from trio_responses import (
    ConfigurationError,
    ConnectionLost,
    ToolStarted,
    function_tool,
)

if TYPE_CHECKING:
    from trio_responses.testing import Request, ResponsesServer


def user_texts(request: Request) -> list[str]:
    """Return the messages of the user in the whole history of a request."""
    return [str(item["content"]) for item in request.history if item.get("role") == "user"]


async def test_a_run_without_input_sends_the_input_of_a_lost_first_turn(
    server: ResponsesServer,
) -> None:
    async with open_conversation(server) as conversation:
        for question in ("One?", "Two?"):
            server.drop(after_events=2)
            with pytest.raises(ConnectionLost):
                await conversation.run(question)
            response = await conversation.run()
            assert response.output_text
        assert [user_texts(request) for request in server.requests] == [
            ["One?"],
            ["One?"],
            ["One?", "Two?"],
            ["One?", "Two?"],
        ]


async def test_the_input_of_a_first_turn_is_kept_through_several_losses(
    server: ResponsesServer,
) -> None:
    async with open_conversation(server) as conversation:
        server.drop(after_events=2)
        server.drop(after_events=0)
        with pytest.raises(ConnectionLost):
            await conversation.run("One?")
        with pytest.raises(ConnectionLost):
            await conversation.run()
        await conversation.run()
        assert user_texts(server.requests[-1]) == ["One?"]


async def test_no_input_is_sent_twice_after_a_later_turn_was_lost(server: ResponsesServer) -> None:
    server.call("work", {"round": 0, "number": 0}, call_id="0-0")
    server.drop(after_events=2)
    server.reply(DONE)
    async with open_conversation(server, tools=[Worker().tool]) as conversation:
        with pytest.raises(ConnectionLost):
            await conversation.run("Work.")
        assert (await conversation.run()).output_text == DONE
        assert user_texts(server.requests[-1]) == ["Work."]


async def test_a_run_without_input_continues_a_cancelled_run(server: ResponsesServer) -> None:
    server.reply("slow", delay=10)
    async with open_conversation(server) as conversation:
        with trio.move_on_after(1) as scope:
            await conversation.run("One?")
        assert scope.cancelled_caught
        await conversation.run()
        assert user_texts(server.requests[-1]) == ["One?"]


async def test_a_run_with_input_replaces_the_unsent_input(server: ResponsesServer) -> None:
    server.drop(after_events=2)
    async with open_conversation(server) as conversation:
        with pytest.raises(ConnectionLost):
            await conversation.run("One?")
        await conversation.run("Two?")
        assert user_texts(server.requests[-1]) == ["Two?"]


async def test_a_turn_that_ended_well_replaces_the_unsent_input(server: ResponsesServer) -> None:
    server.drop(after_events=2)
    async with open_conversation(server) as conversation:
        with pytest.raises(ConnectionLost):
            await conversation.run("One?")
        await conversation.create("Two?")
        await conversation.run()
        assert user_texts(server.requests[-1]) == ["Two?"]


async def test_a_warm_up_keeps_the_unsent_input(server: ResponsesServer) -> None:
    server.drop(after_events=2)
    async with open_conversation(server) as conversation:
        with pytest.raises(ConnectionLost):
            await conversation.run("One?")
        await conversation.warm_up()
        await conversation.run()
        assert user_texts(server.requests[-1]) == ["One?"]


async def test_forks_and_checkpoints_have_the_unsent_input_and_a_reset_clears_it(
    server: ResponsesServer,
) -> None:
    server.drop(after_events=2)
    async with server.open_client() as connection:
        async with connection.conversation(model="m") as conversation:
            with pytest.raises(ConnectionLost):
                await conversation.run("One?")
            await (await conversation.fork()).run()
            assert user_texts(server.requests[-1]) == ["One?"]
            saved = conversation.checkpoint()
            await conversation.clear_history()
            with pytest.raises(ConfigurationError, match="needs an input"):
                await conversation.run()
        async with connection.restore_conversation(saved) as restored:
            await restored.run()
            assert user_texts(server.requests[-1]) == ["One?"]


async def test_a_run_without_input_and_history_is_rejected(server: ResponsesServer) -> None:
    async with open_conversation(server) as conversation:
        with pytest.raises(ConfigurationError, match="needs an input"):
            await conversation.run()
        assert server.requests == []
        await conversation.run("One?")


async def test_a_run_with_a_prompt_template_needs_no_input(server: ResponsesServer) -> None:
    async with open_conversation(server, prompt={"id": "pmpt_1"}) as conversation:
        await conversation.run()
        assert len(server.requests) == 1


async def test_a_run_without_input_does_not_force_a_call_again(server: ResponsesServer) -> None:
    @function_tool(run_in_thread=False)
    def pay(euros: int) -> str:
        return f"paid {euros}"

    choice = {"type": "function", "name": "pay"}
    async with open_conversation(server, tools=[pay], tool_choice=choice) as conversation:
        server.call("pay", {"euros": 3})
        async with conversation.run_stream("Pay 3 euros.") as run:
            async for event in run:
                if isinstance(event, ToolStarted):
                    break
        server.reply("done")
        await conversation.run()
    assert [request["tool_choice"] for request in server.requests] == [choice, "auto"]


async def test_an_interrupted_call_does_not_start_again_after_a_replacement(
    server: ResponsesServer,
) -> None:
    begun: list[int] = []

    @function_tool
    async def transfer(euros: int) -> str:
        begun.append(euros)
        await trio.sleep(10)
        return "done"

    async with open_conversation(server, tools=[transfer]) as conversation:
        server.call("transfer", {"euros": 3})
        with trio.move_on_after(5):
            await conversation.run("hi")
        await conversation.replace_history(conversation.items)
        server.reply("done")
        await conversation.run("go on")
        assert begun == [3]
    assert "interrupted" in answers(server.last_request)[0]["output"]
