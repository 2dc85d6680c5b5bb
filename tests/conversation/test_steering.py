"""P7 with steering: the history has the successors and the steering inputs in order."""

from typing import TYPE_CHECKING, Any

import pytest
from trio.testing import wait_all_tasks_blocked

from tests.conversation.rig import deltas, history, message_texts, open_conversation, parent, user
from tests.turn.test_steering import hold
from trio_responses import SteerState
from trio_responses._wire import FunctionCallOutput
from trio_responses.testing import Call, Reply

if TYPE_CHECKING:
    from trio_responses.testing import ResponsesServer

WEATHER = Call("get_weather", {"city": "Paris"}, call_id="call_1", unoffered=True)
OUTPUT = FunctionCallOutput(call_id="call_1", output="21 degrees")


async def test_the_successor_of_a_steered_turn_is_in_the_history(server: "ResponsesServer") -> None:
    release = hold(server.reply("one", more=["two"]), after_events=5)
    async with open_conversation(server, store=False) as conversation:
        async with conversation.stream("Count.") as stream:
            await stream.steer("Stop.")
            release.set()
            second = await stream.until_done()
        answer = 'Turn 2: you said "Stop.".'
        assert message_texts(conversation) == ["Count.", "one", "Stop.", answer]
        assert conversation.last_response_id == second.id
        await conversation.create("Thanks.")
    assert parent(server.requests[-1]) == second.id
    assert server.requests[-1]["input"] == [user("Thanks.")]
    assert len(server.requests[-1].history) == 5


async def test_full_input_has_the_items_in_the_order_of_the_server(
    server: "ResponsesServer",
) -> None:
    """The history is sent in full on another socket."""
    release = hold(server.reply("one", more=["two"]), after_events=5)
    async with open_conversation(server) as conversation:
        async with conversation.stream("Count.") as stream:
            await stream.steer("Stop.")
            release.set()
            await stream.until_done()
        await conversation.create("Thanks.")
        seen = [(item.get("role"), item.get("id")) for item in server.requests[-1].history]
        await server.reset_all()
        await conversation.create("Bye.")
    replayed = server.requests[-1]
    assert parent(replayed) is None
    again = [(item.get("role"), item.get("id")) for item in replayed.history]
    assert again[: len(seen)] == seen


async def test_steering_inputs_are_in_the_history_where_they_were_applied(
    server: "ResponsesServer",
) -> None:
    first = hold(server.reply("one", more=["two"]), after_events=5)
    second = hold(server.reply("three", more=["four"]), after_events=5)
    async with open_conversation(server) as conversation:
        async with conversation.stream("Count.") as stream:
            receipts = [await stream.steer("Stop."), await stream.steer("Really.")]
            first.set()
            for receipt in receipts:
                assert await receipt.settled() is SteerState.COMMITTED
            receipts.append(await stream.steer("Now."))
            second.set()
            await stream.until_done()
        assert len(stream.responses) == 3
        assert message_texts(conversation)[:-1] == [
            "Count.",
            "one",
            "Stop.",
            "Really.",
            "three",
            "Now.",
        ]
        assert receipts[0].successor == receipts[1].successor == stream.responses[1].id


@pytest.mark.parametrize("settings", [{}, {"temperature": 0.5}])
async def test_a_pending_steering_input_is_before_the_outputs_of_tools(
    server: "ResponsesServer", settings: dict[str, Any]
) -> None:
    """The next turn keeps the lane and the parent, even if its settings differ."""
    release = hold(server.answer([WEATHER]))
    async with open_conversation(server, store=False) as conversation:
        async with conversation.stream("Is it warm?") as stream:
            receipt = await stream.steer("In Oslo, too?")
            release.set()
            first = await stream.until_done()
        assert receipt.state is SteerState.PENDING
        assert len(conversation.items) == 2
        second = await conversation.create([OUTPUT], **settings)
        assert receipt.successor == second.id
        kinds = [item.get("role") or item["type"] for item in history(conversation)]
        assert kinds == ["user", "function_call", "user", "function_call_output", "assistant"]
        await conversation.create("Thanks.")
    assert [parent(request) for request in server.requests[:2]] == [None, first.id]
    assert server.requests[1]["input"] == [
        {"type": "function_call_output", "call_id": "call_1", "output": "21 degrees"}
    ]
    assert len({request.lane for request in server.requests}) == 1
    assert len(server.requests[-1].history) == 6


async def test_a_pending_steering_input_that_is_lost_is_not_in_the_history(
    server: "ResponsesServer",
) -> None:
    release = hold(server.answer([WEATHER]))
    async with open_conversation(server) as conversation:
        async with conversation.stream("Is it warm?") as stream:
            receipt = await stream.steer("In Oslo, too?")
            release.set()
            await stream.until_done()
        await server.reset_all()
        await (
            wait_all_tasks_blocked()
        )  # until the loss is known; a turn on the lost socket might commit the input
        assert receipt.state is SteerState.FAILED
        await conversation.create([OUTPUT])
        kinds = [item.get("role") or item["type"] for item in history(conversation)]
        assert kinds == ["user", "function_call", "function_call_output", "assistant"]
        await conversation.create(receipt.items)
        assert message_texts(conversation)[-2] == "In Oslo, too?"
    assert deltas(server) == [False, False, True]


async def test_a_turn_whose_successor_fails_does_not_change_the_history(
    server: "ResponsesServer",
) -> None:
    """A steered turn is one turn: it fails with its last response."""
    async with open_conversation(server) as conversation:
        await conversation.create("Hello.")
        before = history(conversation)
        release = hold(server.reply("one", more=["two"]), after_events=5)
        server.answer(Reply("three", status="failed"))
        async with conversation.stream("Count.") as stream:
            receipt = await stream.steer("Stop.")
            release.set()
            response = await stream.until_done()
        assert response.status == "failed"
        assert receipt.state is SteerState.COMMITTED
        assert history(conversation) == before
        await conversation.create("Count again.")
        assert "Stop." not in message_texts(conversation)
        assert parent(server.requests[-1]) is None


async def test_a_steered_turn_that_is_left_early_does_not_change_the_history(
    server: "ResponsesServer",
) -> None:
    release = hold(server.reply("one", more=["two"]), after_events=5)
    async with open_conversation(server) as conversation:
        async with conversation.stream("Count.") as stream:
            await stream.steer("Stop.")
            release.set()
            async for event in stream:
                if event.type == "response.incomplete":
                    break
        assert conversation.items == ()
        assert (await conversation.create("Hi.")).output_text == 'Turn 1: you said "Hi.".'


@pytest.mark.parametrize("forget", ["reset", "adopt"])
async def test_a_new_history_does_not_wait_for_a_pending_steering_input(
    server: "ResponsesServer", forget: str
) -> None:
    release = hold(server.answer([WEATHER]))
    async with open_conversation(server) as conversation:
        async with conversation.stream("Is it warm?") as stream:
            receipt = await stream.steer("In Oslo, too?")
            release.set()
            await stream.until_done()
        if forget == "reset":
            conversation.reset()
        else:
            conversation.adopt([])
        response = await conversation.create("Hello.")
        assert message_texts(conversation) == ["Hello.", response.output_text]
        assert await receipt.settled() is SteerState.FAILED
