"""P7: what a user does not see: sockets and memories that are lost cost one full resend."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio

from tests.conversation.rig import (
    deltas,
    history,
    open_steady,
    open_talk,
    parent,
    said,
    sizes,
)
from tests.turn.rig import LIMIT_REACHED, open_through
from trio_responses import (
    ConnectionLimitReached,
    ConnectionLost,
    Conversation,
    DeliveryStatus,
    PreviousResponseNotFound,
    RotationPolicy,
    TurnRestarted,
)
from trio_responses._protocol.delivery import DeliveryMode
from trio_responses.testing import ResponsesServer

NOT_FOUND = "previous_response_not_found"
ONCE = 'Turn 2: you said "two".'
"""What the server says to the second turn when it knows the first one, and no third."""


def connections(server: ResponsesServer) -> list[int]:
    return [request.connection for request in server.requests]


# --- Sockets -----------------------------------------------------------------------------


LOSSES: dict[str, Callable[[ResponsesServer], Awaitable[None]]] = {
    "reset": lambda server: server.reset_all(),
    "end": lambda server: server.hang_up_all(),
    "close": lambda server: server.close_all(),
}


@pytest.mark.parametrize("how", LOSSES)
@pytest.mark.parametrize("late", [True, False])
@pytest.mark.parametrize("settings", [{}, {"store": False}])
async def test_a_socket_lost_between_turns_costs_one_full_resend(
    server: ResponsesServer, how: str, *, late: bool, settings: dict[str, Any]
) -> None:
    async with open_talk(server, **settings) as talk:
        await talk.create("one")
        before = history(talk)
        await LOSSES[how](server)
        await trio.sleep(10 if late else 0)
        assert (await talk.create("two")).output_text == ONCE
        await talk.create("three")
    assert deltas(server) == [False, False, True]
    assert sizes(server) == [1, 3, 1]
    assert connections(server) == [1, 2, 2]
    assert server.requests[1]["input"][:2] == before
    counted = talk.statistics()
    assert (counted.turns, counted.full_turns, counted.delta_turns) == (3, 2, 1)


@pytest.mark.parametrize("how", LOSSES)
async def test_what_is_stored_goes_on_by_its_id_on_a_new_socket(
    server: ResponsesServer, how: str
) -> None:
    """Docs/protocol.md, 5.8; some servers refuse items that they have stored already."""
    async with open_talk(server, store=True) as talk:
        await talk.create("one")
        await LOSSES[how](server)
        assert (await talk.create("two")).output_text == ONCE
        saved = talk.checkpoint()
    async with (
        open_steady(server) as connection,
        Conversation.restore(connection, saved) as talk,
    ):
        assert (await talk.create("three")).output_text == 'Turn 3: you said "three".'
        server.forget_all()
        assert (await talk.create("four")).output_text == 'Turn 4: you said "four".'
    assert deltas(server) == [False, True, True, True, False]
    assert connections(server) == [1, 2, 3, 3, 3]
    assert sizes(server)[-1] == 7


async def test_a_delta_that_could_not_be_written_is_written_anew_for_the_next_socket(
    server: ResponsesServer,
) -> None:
    async def fail_at_the_second_request(number: int) -> None:
        await trio.lowlevel.checkpoint()
        if number >= 2:
            raise trio.BrokenResourceError("dead")

    async with (
        open_through(server, fail_at_the_second_request) as connection,
        connection.conversation(model="m") as talk,
    ):
        await talk.create("one")
        assert (await talk.create("two")).output_text == ONCE
    assert deltas(server) == [False, False]
    assert sizes(server) == [1, 3]


@pytest.mark.parametrize("after_events", [0, 1, 3])
async def test_a_turn_that_may_have_run_is_not_sent_again(
    server: ResponsesServer, after_events: int
) -> None:
    """P4; the history is as before, and the conversation goes on."""
    async with open_talk(server) as talk:
        first = await talk.create("one")
        before = history(talk)
        server.drop(after_events=after_events)
        with pytest.raises(ConnectionLost) as failure:
            await talk.create("lost")
        expected = DeliveryStatus.ACCEPTED if after_events else DeliveryStatus.AMBIGUOUS
        assert failure.value.delivery is expected
        assert (history(talk), talk.last_response_id) == (before, first.id)
        assert (await talk.create("two")).output_text == ONCE
    assert sizes(server) == [1, 1, 3]


async def test_at_least_once_sends_the_lost_turn_in_full(server: ResponsesServer) -> None:
    async with open_talk(server) as talk:
        await talk.create("one")
        server.drop(after_events=3)
        response = await talk.create("two", delivery="at_least_once")
        assert response.output_text == ONCE
        assert said(talk)[::2] == ["one", "two"]
        await talk.create("three")
    assert deltas(server) == [False, True, False, True]


async def test_a_rotated_socket_gets_full_input_once(server: ResponsesServer) -> None:
    rotation = RotationPolicy(max_age=100, stagger=0)
    async with (
        open_steady(server, rotation=rotation) as connection,
        connection.conversation(model="m") as talk,
    ):
        await talk.create("one")
        await trio.sleep(150)
        await talk.create("two")
        await talk.create("three")
    assert deltas(server) == [False, False, True]
    assert connections(server) == [1, 2, 2]


async def test_a_turn_under_way_while_the_socket_is_rotated_ends_well(
    server: ResponsesServer,
) -> None:
    """Its lane is on the old socket; the next turn is in full on the new one."""
    server.reply("one")
    server.reply("a b c d e", delay=50)
    async with (
        open_steady(server, rotation=RotationPolicy(max_age=100, stagger=0)) as connection,
        connection.conversation(model="m") as talk,
    ):
        await talk.create("one")
        assert (await talk.create("two")).output_text == "a b c d e"
        await talk.create("three")
    assert deltas(server) == [False, True, False]
    assert sizes(server) == [1, 1, 5]
    assert connections(server)[:2] == [1, 1]


# --- Refusals ----------------------------------------------------------------------------


@pytest.mark.parametrize("store", [True, False])
async def test_a_forgotten_parent_costs_one_full_resend(
    server: ResponsesServer, *, store: bool
) -> None:
    async with open_talk(server, store=store) as talk:
        first = await talk.create("one")
        server.fail(NOT_FOUND, status=400)
        assert (await talk.create("two")).output_text == ONCE
        await talk.create("three")
    assert [parent(request) for request in server.requests[:3]] == [None, first.id, None]
    assert deltas(server) == [False, True, False, True]
    assert sizes(server) == [1, 1, 3, 1]


async def test_the_reader_sees_the_events_of_the_resent_turn_alone(
    server: ResponsesServer,
) -> None:
    async with open_talk(server) as talk:
        await talk.create("one")
        server.fail(NOT_FOUND, status=400)
        async with talk.stream("two") as stream:
            types = [event.type async for event in stream]
        assert stream.response.output_text == stream.snapshot.text == ONCE
    assert types[:2] == [TurnRestarted.type, "response.created"]
    assert "error" not in types


async def test_a_parent_that_is_not_found_twice_is_raised(server: ResponsesServer) -> None:
    async with open_talk(server) as talk:
        first = await talk.create("one")
        server.fail(NOT_FOUND, status=400)
        server.fail(NOT_FOUND, status=400)
        with pytest.raises(PreviousResponseNotFound) as failure:
            await talk.create("two")
        assert failure.value.delivery is DeliveryStatus.REJECTED
        assert talk.last_response_id == first.id
        assert (await talk.create("two")).output_text == ONCE
    assert deltas(server) == [False, True, False, False]


async def test_the_refusal_of_full_input_is_raised_at_once(server: ResponsesServer) -> None:
    server.fail(NOT_FOUND, status=400)
    async with open_talk(server) as talk:
        with pytest.raises(PreviousResponseNotFound):
            await talk.create("one")
    assert len(server.requests) == 1


@pytest.mark.parametrize("delivery", ["at_most_once", "at_least_once"])
async def test_a_parent_that_is_lost_after_the_start_is_raised(
    server: ResponsesServer, delivery: DeliveryMode
) -> None:
    """P4: events came, so the turn may have run."""
    async with open_talk(server) as talk:
        await talk.create("one")
        server.fail(NOT_FOUND, status=400, after_events=2)
        with pytest.raises(PreviousResponseNotFound) as failure:
            await talk.create("two", delivery=delivery)
        assert failure.value.delivery is DeliveryStatus.ACCEPTED
        assert len(server.requests) == 2
        assert (await talk.create("two")).output_text == ONCE
    assert deltas(server) == [False, True, False]


async def test_an_old_socket_that_refuses_a_turn_costs_one_full_resend(
    server: ResponsesServer,
) -> None:
    async with open_talk(server) as talk:
        await talk.create("one")
        server.answer([LIMIT_REACHED])
        assert (await talk.create("two")).output_text == ONCE
    assert deltas(server) == [False, True, False]
    assert connections(server) == [1, 1, 2]


async def test_a_limit_that_is_reached_twice_is_raised(server: ResponsesServer) -> None:
    async with open_talk(server) as talk:
        await talk.create("one")
        server.answer([LIMIT_REACHED])
        server.answer([LIMIT_REACHED])
        with pytest.raises(ConnectionLimitReached) as failure:
            await talk.create("two")
        assert failure.value.delivery is DeliveryStatus.REJECTED
        assert (await talk.create("two")).output_text == ONCE
    assert deltas(server) == [False, True, False, False]


async def test_a_limit_and_a_forgotten_parent_cost_a_resend_each(server: ResponsesServer) -> None:
    """Two causes; the second one comes from a socket that was opened for the first."""
    async with open_talk(server) as talk:
        await talk.create("one")
        server.fail(NOT_FOUND, status=400)
        server.answer([LIMIT_REACHED])
        assert (await talk.create("two")).output_text == ONCE
        await talk.create("three")
    assert deltas(server) == [False, True, False, False, True]


async def test_a_limit_reached_after_the_start_is_not_sent_again(server: ResponsesServer) -> None:
    async with open_talk(server) as talk:
        await talk.create("one")
        script = server.answer().inject(LIMIT_REACHED, after_events=2)
        script.drop(after_events=3, how=1000)
        with pytest.raises(ConnectionLost):
            await talk.create("lost")
        assert len(server.requests) == 2
        assert (await talk.create("two")).output_text == ONCE
