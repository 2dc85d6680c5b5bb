"""Steering (docs/protocol.md, 5.7): a response that takes in more, and goes on in one iteration."""

from typing import TYPE_CHECKING, Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.testing.driver import NO_WAITING
from tests.turn.rig import (
    NEVER_AGAIN,
    ask,
    assert_at_rest,
    created,
    delta,
    ended,
    item_done,
    message,
    types,
)
from trio_responses import ConnectionLost, Limits, RequestTooLarge, SteerState, Timeouts
from trio_responses._wire import ResponseCompleted, ResponseCreated, SteerAccepted, SteerPending
from trio_responses.testing import Call, Script
from trio_responses.types import ResponseSteer

if TYPE_CHECKING:
    from trio_responses.testing import ResponsesServer

pytestmark = NO_WAITING

PREFIX = "response."
WEATHER = Call("get_weather", {"city": "Paris"}, call_id="call_1", unoffered=True)


def hold(script: Script, *, after_events: int | None = 2) -> trio.Event:
    gate = trio.Event()
    script.hold(gate, after_events=after_events)
    return gate


def kinds(events: list[Any]) -> list[str]:
    """Name the events that say where a response is, and what becomes of steering inputs."""
    shown = (
        "created",
        "incomplete",
        "completed",
        "steer.accepted",
        "steer.pending",
        "steer.failed",
    )
    names = [(name or "").removeprefix(PREFIX) for name in types(events)]
    return [name for name in names if name in shown]


async def test_a_successor_goes_on_in_the_same_iteration(server: "ResponsesServer") -> None:
    gate = hold(server.reply("one two", more=["three"]), after_events=5)
    async with server.open_client() as connection:
        async with connection.stream(model="m", input="Count.") as stream:
            receipt = await stream.steer("Stop.")
            assert await receipt.wait_acknowledged() is SteerState.ACCEPTED
            gate.set()
            events = [event async for event in stream]
        assert kinds(events) == ["created", "steer.accepted", "incomplete", "created", "completed"]
        assert await receipt.wait_settled() is SteerState.COMMITTED
        first, second = stream.responses
        assert first.incomplete_details is not None
        assert first.incomplete_details.reason == "steered"
        assert first.output_text == "one two"
        assert second.output_text == 'Turn 2: you said "Stop.".'
        assert stream.response is second
        assert stream.response_id == second.id == receipt.successor
        assert stream.snapshot.text == second.output_text
        assert receipt.id == server.steers[0].id
        assert receipt.parent == first.id
        assert await ask(connection, "And now?")
        assert_at_rest(connection)


async def test_text_goes_on_in_the_successor(server: "ResponsesServer") -> None:
    gate = hold(server.reply("one", more=["two"]), after_events=5)
    async with (
        server.open_client() as connection,
        connection.stream(model="m", input="Count.") as stream,
    ):
        await stream.steer("Stop.")
        gate.set()
        assert "".join([text async for text in stream.text_deltas()]) == (
            'oneTurn 2: you said "Stop.".'
        )


async def test_a_response_that_ends_first_has_a_successor_as_well(
    server: "ResponsesServer",
) -> None:
    gate = hold(server.reply("one"), after_events=5)
    async with server.open_client() as connection:
        async with connection.stream(model="m", input="Count.") as stream:
            receipt = await stream.steer("Stop.")
            gate.set()
            events = [event async for event in stream]
        assert kinds(events) == ["created", "steer.accepted", "completed", "created", "completed"]
        assert receipt.state is SteerState.COMMITTED
        assert [response.status for response in stream.responses] == ["completed"] * 2
        assert_at_rest(connection)


async def test_outputs_of_tools_go_out_in_the_next_turn_of_the_lane(
    server: "ResponsesServer",
) -> None:
    gate = hold(server.answer([WEATHER]))
    async with server.open_client() as connection:
        async with connection.lane() as lane:
            async with lane.stream(model="m", input="Is it warm?") as stream:
                receipt = await stream.steer("In Oslo, too?")
                gate.set()
                events = [event async for event in stream]
            assert kinds(events) == ["created", "steer.accepted", "completed", "steer.pending"]
            assert isinstance(events[-1], SteerPending)
            assert receipt.state is SteerState.PENDING
            assert [stub.call_id for stub in receipt.required_input] == ["call_1"]
            output = {"type": "function_call_output", "call_id": "call_1", "output": "21 degrees"}
            second = await lane.create(
                model="m", input=[output], previous_response_id=stream.response.id
            )
            assert await receipt.wait_settled() is SteerState.COMMITTED
            assert receipt.successor == second.id
            texts = [
                item.get("content") or item.get("output") for item in server.requests[-1].history
            ]
            assert texts[-2:] == ["In Oslo, too?", "21 degrees"]
        assert_at_rest(connection)


async def test_without_a_lane_of_ones_own_the_continuation_finds_its_lane(
    server: "ResponsesServer",
) -> None:
    """Other turns leave that lane alone meanwhile."""
    gate = hold(server.answer([WEATHER]))
    async with server.open_client() as connection:
        async with connection.stream(model="m", input="Is it warm?") as stream:
            receipt = await stream.steer("In Oslo, too?")
            gate.set()
            parent = (await stream.get_final_response()).id
        await ask(connection, "Something else.")
        assert server.requests[-1].lane is not None
        output = {"type": "function_call_output", "call_id": "call_1", "output": "21 degrees"}
        await connection.create(model="m", input=[output], previous_response_id=parent)
        assert server.requests[-1].lane is None
        assert receipt.state is SteerState.COMMITTED


async def test_input_that_cannot_be_committed_comes_back(server: "ResponsesServer") -> None:
    script = server.reply("one").on_steer("fail", code="successor_creation_failed")
    gate = hold(script)
    async with server.open_client() as connection:
        async with connection.stream(model="m", input="Count.") as stream:
            receipt = await stream.steer("Stop.")
            gate.set()
            events = [event async for event in stream]
        assert kinds(events) == ["created", "steer.accepted", "completed", "steer.failed"]
        assert await receipt.wait_settled() is SteerState.FAILED
        assert receipt.error is not None
        assert receipt.error.code == "successor_creation_failed"
        assert [bytes(item) for item in receipt.items] == [
            b'{"type":"message","role":"user","content":"Stop."}'
        ]
        assert stream.response.output_text == "one"
        assert stream.responses == (stream.response,)
        assert_at_rest(connection)


@pytest.mark.parametrize("behind_the_end", [False, True])
async def test_input_that_is_refused_costs_nothing(
    server: "ResponsesServer", *, behind_the_end: bool
) -> None:
    server.refuse_steers("too_many_pending_steers")
    gate = hold(server.reply("one two"), after_events=None if behind_the_end else 2)
    async with server.open_client() as connection:
        async with connection.stream(model="m", input="Count.") as stream:
            receipt = await stream.steer("Stop.")
            gate.set()
            response = await stream.get_final_response()
        assert await receipt.wait_acknowledged() is SteerState.FAILED
        assert response.output_text == "one two"
        assert stream.responses == (response,)
        assert_at_rest(connection)


async def test_it_waits_until_the_response_has_begun(server: "ResponsesServer") -> None:
    gate = hold(server.reply("one"), after_events=0)
    async with (
        server.open_client() as connection,
        connection.stream(model="m", input="Count.") as stream,
    ):
        async with trio.open_nursery() as nursery:
            receipts: list[Any] = []

            async def steer() -> None:
                receipts.append(await stream.steer("Stop."))

            nursery.start_soon(steer)
            await wait_all_tasks_blocked()
            assert receipts == []
            assert server.steers == []
            gate.set()
        await stream.get_final_response()
        assert await receipts[0].wait_settled() is not SteerState.SENT


async def test_a_turn_that_is_refused_cannot_be_steered(server: "ResponsesServer") -> None:
    server.fail("invalid_value", status=400)
    async with (
        server.open_client() as connection,
        connection.stream(model="m", input="Count.") as stream,
    ):
        receipt = await stream.steer("Stop.")
    assert receipt.state is SteerState.FAILED
    assert receipt.error is not None
    assert receipt.error.code == "response_not_active"
    assert server.steers == []


async def test_a_turn_that_has_ended_cannot_be_steered(server: "ResponsesServer") -> None:
    """Nor is the server asked: its answer would fall into somebody else's turn."""
    async with server.open_client() as connection:
        async with connection.stream(model="m", input="Count.") as stream:
            await stream.get_final_response()
            receipt = await stream.steer("Stop.")
        assert receipt.error is not None
        assert receipt.error.code == "response_already_completed"
        assert server.steers == []
        with pytest.raises(RuntimeError, match="inside its async with block"):
            await stream.steer("Stop.")


async def test_what_cannot_be_sent_is_raised(server: "ResponsesServer") -> None:
    gate = hold(server.reply("one"))
    async with (
        server.open_client(limits=Limits(max_request_bytes=1000)) as connection,
        connection.stream(model="m", input="Count.") as stream,
    ):
        with pytest.raises(TypeError):
            await stream.steer([object()])  # type: ignore[list-item]
        with pytest.raises(RequestTooLarge):
            await stream.steer("x" * 2000)
        gate.set()
        assert (await stream.get_final_response()).output_text == "one"
    assert server.steers == []


async def test_a_turn_that_is_left_has_a_clean_lane_after_its_successor(
    narrow_server: "ResponsesServer",
) -> None:
    server = narrow_server
    gate = hold(server.reply("one", more=["two"]), after_events=5)
    async with server.open_client() as connection:
        async with connection.stream(model="m", input="Count.") as stream:
            receipt = await stream.steer("Stop.")
            await receipt.wait_acknowledged()
        gate.set()
        assert await ask(connection, "And now?") == 'Turn 1: you said "And now?".'
        assert await receipt.wait_settled() is SteerState.COMMITTED
        assert_at_rest(connection)


async def test_leaving_ends_the_wait_for_a_beginning(server: "ResponsesServer") -> None:
    hold(server.reply("one"), after_events=0)
    async with server.open_client() as connection, trio.open_nursery() as nursery:
        receipts: list[Any] = []
        async with connection.stream(model="m", input="Count.") as stream:

            async def steer() -> None:
                receipts.append(await stream.steer("Stop."))

            nursery.start_soon(steer)
            await wait_all_tasks_blocked()
        await wait_all_tasks_blocked()
        assert receipts[0].state is SteerState.FAILED
        nursery.cancel_scope.cancel()


async def test_a_cancelled_wait_leaves_the_turn_as_it_is(server: "ResponsesServer") -> None:
    gate = hold(server.reply("one"), after_events=0)
    async with (
        server.open_client() as connection,
        connection.stream(model="m", input="Count.") as stream,
    ):
        with trio.move_on_after(1) as scope:
            await stream.steer("Stop.")
        assert scope.cancelled_caught
        gate.set()
        assert (await stream.get_final_response()).output_text == "one"
        assert server.steers == []


async def test_a_lost_socket_leaves_it_unknown(server: "ResponsesServer") -> None:
    hold(server.reply("one"))
    async with (
        server.open_client(reconnect=NEVER_AGAIN) as connection,
        connection.stream(model="m", input="Count.") as stream,
    ):
        receipt = await stream.steer("Stop.")
        await receipt.wait_acknowledged()
        await server.reset_all()
        with pytest.raises(ConnectionLost):
            await stream.get_final_response()
        assert await receipt.wait_settled() is SteerState.UNKNOWN
        assert stream.responses == ()


async def test_a_response_that_had_ended_survives_the_loss_of_its_successor(
    server: "ResponsesServer",
) -> None:
    """P3: it is here; only what became of the input is not known, and the receipt says so."""
    gate = hold(server.reply("one"), after_events=5)
    async with server.open_client(reconnect=NEVER_AGAIN) as connection:
        async with connection.stream(model="m", input="Count.") as stream:
            receipt = await stream.steer("Stop.")
            server.stall(after_events=0)
            gate.set()
            async for event in stream:
                if isinstance(event, ResponseCompleted):
                    await server.reset_all()
        assert stream.response.output_text == "one"
        assert await receipt.wait_settled() is SteerState.UNKNOWN


async def test_silence_behind_the_end_ends_the_turn(server: "ResponsesServer") -> None:
    """A server that has accepted an input and forgets it does not hold the response back."""
    gate = hold(server.reply("one"), after_events=5)
    async with server.open_client(timeouts=Timeouts(stall=30)) as connection:
        async with connection.stream(model="m", input="Count.") as stream:
            receipt = await stream.steer("Stop.")
            server.stall(after_events=0, seconds=3600)
            gate.set()
            events = [event async for event in stream]
        assert kinds(events)[-1] == "completed"
        assert stream.response.output_text == "one"
        assert await receipt.wait_settled() is SteerState.UNKNOWN


async def test_a_second_attempt_begins_with_the_first_request_alone(
    server: "ResponsesServer",
) -> None:
    """What was accepted is never sent again by the library (docs/protocol.md, 5.7)."""
    gate = hold(server.reply("one", more=["two"]).drop(after_events=9), after_events=5)
    server.reply("three")
    async with (
        server.open_client() as connection,
        connection.stream(model="m", input="Count.", delivery="at_least_once") as stream,
    ):
        receipt = await stream.steer("Stop.")
        await receipt.wait_acknowledged()
        await server.reset_all()
        gate.set()
        response = await stream.get_final_response()
        assert response.output_text == "three"
        assert stream.responses == (response,)
        assert receipt.state is SteerState.UNKNOWN
        assert len(server.steers) == 1


async def test_waiting_for_an_answer_makes_room_for_it(server: "ResponsesServer") -> None:
    """P6: nobody reads this turn, and its inbox is over its budget when the answer comes."""
    gate = hold(server.reply(chunks=["x" * 500] * 10), after_events=10)
    async with (
        server.open_client(limits=Limits(turn_buffer_bytes=1000)) as connection,
        connection.stream(model="m", input="Count.") as stream,
    ):
        receipt = await stream.steer("Stop.")
        with trio.fail_after(10):
            assert await receipt.wait_acknowledged() is SteerState.ACCEPTED
        gate.set()
        await stream.get_final_response()


async def test_the_channel_steers_as_well(server: "ResponsesServer") -> None:
    """The successor belongs to the request, so no turn gets its lane, or its events."""
    gate = hold(server.reply("one", more=["two"]), after_events=5)
    async with server.open_client() as connection:
        async with connection.stream(model="m", input="Count.") as stream:
            events = [await anext(stream)]
            assert isinstance(events[0], ResponseCreated)
            steer = ResponseSteer(previous_response_id=events[0].response.id, input="Stop.")
            await connection.send(steer)
            await connection.send(ResponseSteer(previous_response_id="resp_no", input="Stop."))
            gate.set()
            events += [event async for event in stream]
        assert any(isinstance(event, SteerAccepted) for event in events)
        assert [response.status for response in stream.responses] == ["incomplete", "completed"]
        assert_at_rest(connection)


async def test_a_receipt_shows_no_content(server: "ResponsesServer") -> None:
    """P9."""
    gate = hold(server.reply("one"))
    async with (
        server.open_client() as connection,
        connection.stream(model="m", input="Count.") as stream,
    ):
        receipt = await stream.steer("A secret.")
        assert repr(receipt) == "<SteerReceipt without an id sent>"
        await receipt.wait_acknowledged()
        assert repr(receipt) == f"<SteerReceipt {receipt.id} accepted>"
        gate.set()


async def test_what_is_pending_is_not_settled(server: "ResponsesServer") -> None:
    gate = hold(server.answer([WEATHER]))
    async with server.open_client() as connection, connection.lane() as lane:
        async with lane.stream(model="m", input="Is it warm?") as stream:
            receipt = await stream.steer("In Oslo, too?")
            gate.set()
            await stream.get_final_response()
        assert await receipt.wait_acknowledged() is SteerState.PENDING
        with trio.move_on_after(10) as scope:
            await receipt.wait_settled()
        assert scope.cancelled_caught


METADATA = {"type": "response.metadata", "headers": {"x-turn-state": "1"}}


async def test_a_word_of_the_servers_own_is_no_beginning_to_steer(
    narrow_server: "ResponsesServer",
) -> None:
    frames = [METADATA, created(), delta("x"), item_done(message("x")), ended([message("x")])]
    begun, steered = trio.Event(), trio.Event()
    narrow_server.answer(frames).hold(begun, after_events=1).hold(steered, after_events=3)
    async with (
        narrow_server.open_client() as connection,
        connection.stream(model="m", input="hi") as stream,
        trio.open_nursery() as nursery,
    ):

        async def begin() -> None:
            await trio.sleep(1)
            begun.set()

        nursery.start_soon(begin)
        receipt = await stream.steer("more")
        steered.set()
        assert await receipt.wait_acknowledged() is SteerState.ACCEPTED
        await stream.get_final_response()
