"""P7: after the loss of a socket or of a response in memory, one turn is sent in full."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio

from tests.conversation.rig import (
    deltas,
    history,
    message_texts,
    open_conversation,
    open_steady,
    parent,
    sizes,
)
from tests.turn.rig import LIMIT_REACHED, open_through
from trio_responses import (
    ConnectionLimitReached,
    ConnectionLost,
    DeliveryStatus,
    PreviousResponseNotFound,
    RotationPolicy,
    TurnRestarted,
)
from trio_responses._protocol.delivery import DeliveryMode
from trio_responses.testing import ResponsesServer

NOT_FOUND = "previous_response_not_found"
ONCE = 'Turn 2: you said "two".'
"""The answer of the server to the second turn, if its history has exactly the first turn."""


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
async def test_after_a_socket_was_lost_one_turn_is_sent_in_full(
    server: ResponsesServer, how: str, *, late: bool, settings: dict[str, Any]
) -> None:
    async with open_conversation(server, **settings) as conversation:
        await conversation.create("one")
        before = history(conversation)
        await LOSSES[how](server)
        await trio.sleep(10 if late else 0)
        assert (await conversation.create("two")).output_text == ONCE
        await conversation.create("three")
    assert deltas(server) == [False, False, True]
    assert sizes(server) == [1, 3, 1]
    assert connections(server) == [1, 2, 2]
    assert server.requests[1]["input"][:2] == before
    counted = conversation.statistics()
    assert (counted.turns, counted.full_turns, counted.delta_turns) == (3, 2, 1)


@pytest.mark.parametrize("how", LOSSES)
async def test_a_stored_response_is_continued_by_its_id_on_a_new_socket(
    server: ResponsesServer, how: str
) -> None:
    """See docs/protocol.md, 5.8. Some servers refuse items that they have stored already."""
    async with open_conversation(server, store=True) as conversation:
        await conversation.create("one")
        await LOSSES[how](server)
        assert (await conversation.create("two")).output_text == ONCE
        saved = conversation.checkpoint()
    async with (
        open_steady(server) as connection,
        connection.restore_conversation(saved) as conversation,
    ):
        assert (await conversation.create("three")).output_text == 'Turn 3: you said "three".'
        server.forget_all()
        assert (await conversation.create("four")).output_text == 'Turn 4: you said "four".'
    assert deltas(server) == [False, True, True, True, False]
    assert connections(server) == [1, 2, 3, 3, 3]
    assert sizes(server)[-1] == 7


async def test_an_unwritten_delta_is_sent_in_full_on_the_next_socket(
    server: ResponsesServer,
) -> None:
    async def fail_at_the_second_request(number: int) -> None:
        await trio.lowlevel.checkpoint()
        if number >= 2:
            raise trio.BrokenResourceError("dead")

    async with (
        open_through(server, fail_at_the_second_request) as connection,
        connection.conversation(model="m") as conversation,
    ):
        await conversation.create("one")
        assert (await conversation.create("two")).output_text == ONCE
    assert deltas(server) == [False, False]
    assert sizes(server) == [1, 3]


@pytest.mark.parametrize("after_events", [0, 1, 3])
async def test_a_turn_that_may_have_run_is_not_sent_again_by_default(
    server: ResponsesServer, after_events: int
) -> None:
    """P4: the history does not change, and the conversation can be continued."""
    async with open_conversation(server) as conversation:
        first = await conversation.create("one")
        before = history(conversation)
        server.drop(after_events=after_events)
        with pytest.raises(ConnectionLost) as failure:
            await conversation.create("lost")
        expected = DeliveryStatus.ACCEPTED if after_events else DeliveryStatus.AMBIGUOUS
        assert failure.value.delivery is expected
        assert (history(conversation), conversation.last_response_id) == (before, first.id)
        assert (await conversation.create("two")).output_text == ONCE
    assert sizes(server) == [1, 1, 3]


async def test_at_least_once_sends_the_lost_turn_in_full(server: ResponsesServer) -> None:
    async with open_conversation(server) as conversation:
        await conversation.create("one")
        server.drop(after_events=3)
        response = await conversation.create("two", delivery="at_least_once")
        assert response.output_text == ONCE
        assert message_texts(conversation)[::2] == ["one", "two"]
        await conversation.create("three")
    assert deltas(server) == [False, True, False, True]


async def test_after_a_rotation_one_turn_is_sent_in_full(server: ResponsesServer) -> None:
    rotation = RotationPolicy(max_age=100, stagger=0)
    async with (
        open_steady(server, rotation=rotation) as connection,
        connection.conversation(model="m") as conversation,
    ):
        await conversation.create("one")
        await trio.sleep(150)
        await conversation.create("two")
        await conversation.create("three")
    assert deltas(server) == [False, False, True]
    assert connections(server) == [1, 2, 2]


async def test_a_turn_that_is_active_during_a_rotation_ends_well(
    server: ResponsesServer,
) -> None:
    """The turn ends on the old socket; the next one is sent in full on the new one."""
    server.reply("one")
    server.reply("a b c d e", delay=50)
    async with (
        open_steady(server, rotation=RotationPolicy(max_age=100, stagger=0)) as connection,
        connection.conversation(model="m") as conversation,
    ):
        await conversation.create("one")
        assert (await conversation.create("two")).output_text == "a b c d e"
        await conversation.create("three")
    assert deltas(server) == [False, True, False]
    assert sizes(server) == [1, 1, 5]
    assert connections(server)[:2] == [1, 1]


# --- Requests that the server refuses ----------------------------------------------------


@pytest.mark.parametrize("store", [True, False])
async def test_a_turn_whose_parent_was_forgotten_is_sent_again_in_full(
    server: ResponsesServer, *, store: bool
) -> None:
    async with open_conversation(server, store=store) as conversation:
        first = await conversation.create("one")
        server.fail(NOT_FOUND, status=400)
        assert (await conversation.create("two")).output_text == ONCE
        await conversation.create("three")
    assert [parent(request) for request in server.requests[:3]] == [None, first.id, None]
    assert deltas(server) == [False, True, False, True]
    assert sizes(server) == [1, 1, 3, 1]


async def test_the_stream_has_only_the_events_of_the_turn_that_was_sent_again(
    server: ResponsesServer,
) -> None:
    async with open_conversation(server) as conversation:
        await conversation.create("one")
        server.fail(NOT_FOUND, status=400)
        async with conversation.stream("two") as stream:
            types = [event.type async for event in stream]
        assert stream.response.output_text == stream.snapshot.text == ONCE
    assert types[:2] == [TurnRestarted.type, "response.created"]
    assert "error" not in types


async def test_the_error_for_a_missing_parent_is_raised_the_second_time(
    server: ResponsesServer,
) -> None:
    async with open_conversation(server) as conversation:
        first = await conversation.create("one")
        server.fail(NOT_FOUND, status=400)
        server.fail(NOT_FOUND, status=400)
        with pytest.raises(PreviousResponseNotFound) as failure:
            await conversation.create("two")
        assert failure.value.delivery is DeliveryStatus.REJECTED
        assert conversation.last_response_id == first.id
        assert (await conversation.create("two")).output_text == ONCE
    assert deltas(server) == [False, True, False, False]


async def test_the_error_for_a_missing_parent_is_raised_at_once_after_full_input(
    server: ResponsesServer,
) -> None:
    server.fail(NOT_FOUND, status=400)
    async with open_conversation(server) as conversation:
        with pytest.raises(PreviousResponseNotFound):
            await conversation.create("one")
    assert len(server.requests) == 1


@pytest.mark.parametrize("delivery", ["at_most_once", "at_least_once"])
async def test_the_error_for_a_missing_parent_is_raised_if_the_response_had_started(
    server: ResponsesServer, delivery: DeliveryMode
) -> None:
    """P4: events were received, so the turn may have run."""
    async with open_conversation(server) as conversation:
        await conversation.create("one")
        server.fail(NOT_FOUND, status=400, after_events=2)
        with pytest.raises(PreviousResponseNotFound) as failure:
            await conversation.create("two", delivery=delivery)
        assert failure.value.delivery is DeliveryStatus.ACCEPTED
        assert len(server.requests) == 2
        assert (await conversation.create("two")).output_text == ONCE
    assert deltas(server) == [False, True, False]


async def test_a_turn_refused_because_of_the_age_limit_is_sent_again_in_full(
    server: ResponsesServer,
) -> None:
    async with open_conversation(server) as conversation:
        await conversation.create("one")
        server.answer([LIMIT_REACHED])
        assert (await conversation.create("two")).output_text == ONCE
    assert deltas(server) == [False, True, False]
    assert connections(server) == [1, 1, 2]


async def test_an_age_limit_that_is_reached_twice_is_raised(server: ResponsesServer) -> None:
    async with open_conversation(server) as conversation:
        await conversation.create("one")
        server.answer([LIMIT_REACHED])
        server.answer([LIMIT_REACHED])
        with pytest.raises(ConnectionLimitReached) as failure:
            await conversation.create("two")
        assert failure.value.delivery is DeliveryStatus.REJECTED
        assert (await conversation.create("two")).output_text == ONCE
    assert deltas(server) == [False, True, False, False]


async def test_a_missing_parent_and_an_age_limit_are_repaired_in_one_turn(
    server: ResponsesServer,
) -> None:
    """Each cause is repaired once; the second one is met on the socket opened for the first."""
    async with open_conversation(server) as conversation:
        await conversation.create("one")
        server.fail(NOT_FOUND, status=400)
        server.answer([LIMIT_REACHED])
        assert (await conversation.create("two")).output_text == ONCE
        await conversation.create("three")
    assert deltas(server) == [False, True, False, False, True]


async def test_a_turn_whose_age_limit_came_after_the_start_is_not_sent_again(
    server: ResponsesServer,
) -> None:
    async with open_conversation(server) as conversation:
        await conversation.create("one")
        script = server.answer().inject(LIMIT_REACHED, after_events=2)
        script.drop(after_events=3, how=1000)
        with pytest.raises(ConnectionLost):
            await conversation.create("lost")
        assert len(server.requests) == 2
        assert (await conversation.create("two")).output_text == ONCE
