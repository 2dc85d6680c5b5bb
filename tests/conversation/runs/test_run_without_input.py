"""``run()`` without input goes on from wherever the last run stopped."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from tests.conversation.rig import open_talk
from tests.conversation.runs.rig import DONE, Worker, answers
from trio_responses import (
    ConfigurationError,
    ConnectionLost,
    Conversation,
    ToolStarted,
    function_tool,
)

if TYPE_CHECKING:
    from trio_responses.testing import Request, ResponsesServer


def said(request: Request) -> list[str]:
    """Give what the user says in the whole history of a request."""
    return [str(item["content"]) for item in request.history if item.get("role") == "user"]


async def test_a_run_without_input_sends_the_input_of_a_lost_first_turn(
    server: ResponsesServer,
) -> None:
    async with open_talk(server) as talk:
        for question in ("One?", "Two?"):
            server.drop(after_events=2)
            with pytest.raises(ConnectionLost):
                await talk.run(question)
            response = await talk.run()
            assert response.output_text
        assert [said(request) for request in server.requests] == [
            ["One?"],
            ["One?"],
            ["One?", "Two?"],
            ["One?", "Two?"],
        ]


async def test_the_input_of_a_first_turn_is_kept_through_several_losses(
    server: ResponsesServer,
) -> None:
    async with open_talk(server) as talk:
        server.drop(after_events=2)
        server.drop(after_events=0)
        with pytest.raises(ConnectionLost):
            await talk.run("One?")
        with pytest.raises(ConnectionLost):
            await talk.run()
        await talk.run()
        assert said(server.requests[-1]) == ["One?"]


async def test_no_input_is_sent_twice_after_a_later_turn_was_lost(server: ResponsesServer) -> None:
    server.call("work", {"round": 0, "number": 0}, call_id="0-0")
    server.drop(after_events=2)
    server.reply(DONE)
    async with open_talk(server, tools=[Worker().tool]) as talk:
        with pytest.raises(ConnectionLost):
            await talk.run("Work.")
        assert (await talk.run()).output_text == DONE
        assert said(server.requests[-1]) == ["Work."]


async def test_a_run_without_input_continues_a_cancelled_run(server: ResponsesServer) -> None:
    server.reply("slow", delay=10)
    async with open_talk(server) as talk:
        with trio.move_on_after(1) as scope:
            await talk.run("One?")
        assert scope.cancelled_caught
        await talk.run()
        assert said(server.requests[-1]) == ["One?"]


async def test_a_run_with_input_replaces_the_unsent_input(server: ResponsesServer) -> None:
    server.drop(after_events=2)
    async with open_talk(server) as talk:
        with pytest.raises(ConnectionLost):
            await talk.run("One?")
        await talk.run("Two?")
        assert said(server.requests[-1]) == ["Two?"]


async def test_a_turn_that_ended_well_replaces_the_unsent_input(server: ResponsesServer) -> None:
    server.drop(after_events=2)
    async with open_talk(server) as talk:
        with pytest.raises(ConnectionLost):
            await talk.run("One?")
        await talk.create("Two?")
        await talk.run()
        assert said(server.requests[-1]) == ["Two?"]


async def test_a_warm_up_keeps_the_unsent_input(server: ResponsesServer) -> None:
    server.drop(after_events=2)
    async with open_talk(server) as talk:
        with pytest.raises(ConnectionLost):
            await talk.run("One?")
        await talk.warm_up()
        await talk.run()
        assert said(server.requests[-1]) == ["One?"]


async def test_forks_and_checkpoints_have_the_unsent_input_and_a_reset_clears_it(
    server: ResponsesServer,
) -> None:
    server.drop(after_events=2)
    async with server.open_client() as connection:
        async with connection.conversation(model="m") as talk:
            with pytest.raises(ConnectionLost):
                await talk.run("One?")
            await talk.fork().run()
            assert said(server.requests[-1]) == ["One?"]
            saved = talk.checkpoint()
            talk.reset()
            with pytest.raises(ConfigurationError, match="nothing to go on from"):
                await talk.run()
        async with Conversation.restore(connection, saved) as restored:
            await restored.run()
            assert said(server.requests[-1]) == ["One?"]


async def test_a_run_without_input_and_history_is_rejected(server: ResponsesServer) -> None:
    async with open_talk(server) as talk:
        with pytest.raises(ConfigurationError, match="nothing to go on from"):
            await talk.run()
        assert server.requests == []
        await talk.run("One?")


async def test_a_run_with_a_prompt_template_needs_no_input(server: ResponsesServer) -> None:
    async with open_talk(server, prompt={"id": "pmpt_1"}) as talk:
        await talk.run()
        assert len(server.requests) == 1


async def test_a_run_without_input_does_not_force_a_call_again(server: ResponsesServer) -> None:
    @function_tool(cheap=True)
    def pay(euros: int) -> str:
        return f"paid {euros}"

    choice = {"type": "function", "name": "pay"}
    async with open_talk(server, tools=[pay], tool_choice=choice) as talk:
        server.call("pay", {"euros": 3})
        async with talk.run_stream("Pay 3 euros.") as run:
            async for event in run:
                if isinstance(event, ToolStarted):
                    break
        server.reply("done")
        await talk.run()
    assert [request["tool_choice"] for request in server.requests] == [choice, "auto"]


async def test_an_interrupted_call_does_not_start_again_after_adopt(
    server: ResponsesServer,
) -> None:
    begun: list[int] = []

    @function_tool
    async def transfer(euros: int) -> str:
        begun.append(euros)
        await trio.sleep(10)
        return "done"

    async with open_talk(server, tools=[transfer]) as talk:
        server.call("transfer", {"euros": 3})
        with trio.move_on_after(5):
            await talk.run("hi")
        talk.adopt(talk.items)
        server.reply("done")
        await talk.run("go on")
        assert begun == [3]
    assert "interrupted" in answers(server.last_request)[0]["output"]
