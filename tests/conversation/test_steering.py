"""P7 with steering: the successor becomes the conversation's, and history is what was said."""

from typing import TYPE_CHECKING, Any

import pytest
from trio.testing import wait_all_tasks_blocked

from tests.conversation.rig import deltas, history, open_talk, parent, said, user
from tests.turn.test_steering import hold
from trio_responses import SteerState
from trio_responses._wire import FunctionCallOutput
from trio_responses.testing import Call, Reply

if TYPE_CHECKING:
    from trio_responses.testing import ResponsesServer

WEATHER = Call("get_weather", {"city": "Paris"}, call_id="call_1", unoffered=True)
OUTPUT = FunctionCallOutput(call_id="call_1", output="21 degrees")


async def test_the_successor_of_a_steered_turn_is_in_the_history(server: "ResponsesServer") -> None:
    gate = hold(server.reply("one", more=["two"]), after_events=5)
    async with open_talk(server, store=False) as talk:
        async with talk.stream("Count.") as stream:
            await stream.steer("Stop.")
            gate.set()
            second = await stream.until_done()
        answer = 'Turn 2: you said "Stop.".'
        assert said(talk) == ["Count.", "one", "Stop.", answer]
        assert talk.last_response_id == second.id
        await talk.create("Thanks.")
    assert parent(server.requests[-1]) == second.id
    assert server.requests[-1]["input"] == [user("Thanks.")]
    assert len(server.requests[-1].history) == 5


async def test_full_input_has_the_items_in_the_order_of_the_server(
    server: "ResponsesServer",
) -> None:
    """On another socket the whole history goes out, in the order in which the server saw it."""
    gate = hold(server.reply("one", more=["two"]), after_events=5)
    async with open_talk(server) as talk:
        async with talk.stream("Count.") as stream:
            await stream.steer("Stop.")
            gate.set()
            await stream.until_done()
        await talk.create("Thanks.")
        seen = [(item.get("role"), item.get("id")) for item in server.requests[-1].history]
        await server.reset_all()
        await talk.create("Bye.")
    replayed = server.requests[-1]
    assert parent(replayed) is None
    again = [(item.get("role"), item.get("id")) for item in replayed.history]
    assert again[: len(seen)] == seen


async def test_steering_inputs_are_in_the_history_where_they_were_applied(
    server: "ResponsesServer",
) -> None:
    first = hold(server.reply("one", more=["two"]), after_events=5)
    second = hold(server.reply("three", more=["four"]), after_events=5)
    async with open_talk(server) as talk:
        async with talk.stream("Count.") as stream:
            receipts = [await stream.steer("Stop."), await stream.steer("Really.")]
            first.set()
            for receipt in receipts:
                assert await receipt.settled() is SteerState.COMMITTED
            receipts.append(await stream.steer("Now."))
            second.set()
            await stream.until_done()
        assert len(stream.responses) == 3
        assert said(talk)[:-1] == ["Count.", "one", "Stop.", "Really.", "three", "Now."]
        assert receipts[0].successor == receipts[1].successor == stream.responses[1].id


@pytest.mark.parametrize("settings", [{}, {"temperature": 0.5}])
async def test_a_pending_steering_input_is_before_the_outputs_of_tools(
    server: "ResponsesServer", settings: dict[str, Any]
) -> None:
    """They go out once, on the same lane and parent, whatever the settings of that turn are."""
    gate = hold(server.answer([WEATHER]))
    async with open_talk(server, store=False) as talk:
        async with talk.stream("Is it warm?") as stream:
            receipt = await stream.steer("In Oslo, too?")
            gate.set()
            first = await stream.until_done()
        assert receipt.state is SteerState.PENDING
        assert len(talk.items) == 2
        second = await talk.create([OUTPUT], **settings)
        assert receipt.successor == second.id
        kinds = [item.get("role") or item["type"] for item in history(talk)]
        assert kinds == ["user", "function_call", "user", "function_call_output", "assistant"]
        await talk.create("Thanks.")
    assert [parent(request) for request in server.requests[:2]] == [None, first.id]
    assert server.requests[1]["input"] == [
        {"type": "function_call_output", "call_id": "call_1", "output": "21 degrees"}
    ]
    assert len({request.lane for request in server.requests}) == 1
    assert len(server.requests[-1].history) == 6


async def test_a_pending_steering_input_that_is_lost_is_not_in_the_history(
    server: "ResponsesServer",
) -> None:
    gate = hold(server.answer([WEATHER]))
    async with open_talk(server) as talk:
        async with talk.stream("Is it warm?") as stream:
            receipt = await stream.steer("In Oslo, too?")
            gate.set()
            await stream.until_done()
        await server.reset_all()
        await wait_all_tasks_blocked()  # a turn on a socket not known to be lost might carry it
        assert receipt.state is SteerState.FAILED
        await talk.create([OUTPUT])
        kinds = [item.get("role") or item["type"] for item in history(talk)]
        assert kinds == ["user", "function_call", "function_call_output", "assistant"]
        await talk.create(receipt.items)
        assert said(talk)[-2] == "In Oslo, too?"
    assert deltas(server) == [False, False, True]


async def test_a_turn_whose_successor_fails_does_not_change_the_history(
    server: "ResponsesServer",
) -> None:
    """The turn is one: with its last response fails all of it."""
    async with open_talk(server) as talk:
        await talk.create("Hello.")
        before = history(talk)
        gate = hold(server.reply("one", more=["two"]), after_events=5)
        server.answer(Reply("three", status="failed"))
        async with talk.stream("Count.") as stream:
            receipt = await stream.steer("Stop.")
            gate.set()
            response = await stream.until_done()
        assert response.status == "failed"
        assert receipt.state is SteerState.COMMITTED
        assert history(talk) == before
        await talk.create("Count again.")
        assert "Stop." not in said(talk)
        assert parent(server.requests[-1]) is None


async def test_a_steered_turn_that_is_left_early_does_not_change_the_history(
    server: "ResponsesServer",
) -> None:
    gate = hold(server.reply("one", more=["two"]), after_events=5)
    async with open_talk(server) as talk:
        async with talk.stream("Count.") as stream:
            await stream.steer("Stop.")
            gate.set()
            async for event in stream:
                if event.type == "response.incomplete":
                    break
        assert talk.items == ()
        assert (await talk.create("Hi.")).output_text == 'Turn 1: you said "Hi.".'


@pytest.mark.parametrize("forget", ["reset", "adopt"])
async def test_a_new_history_does_not_wait_for_a_pending_steering_input(
    server: "ResponsesServer", forget: str
) -> None:
    gate = hold(server.answer([WEATHER]))
    async with open_talk(server) as talk:
        async with talk.stream("Is it warm?") as stream:
            receipt = await stream.steer("In Oslo, too?")
            gate.set()
            await stream.until_done()
        if forget == "reset":
            talk.reset()
        else:
            talk.adopt([])
        response = await talk.create("Hello.")
        assert said(talk) == ["Hello.", response.output_text]
        assert await receipt.settled() is SteerState.FAILED
