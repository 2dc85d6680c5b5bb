"""The cost of a conversation beside a plain stream does not grow with the items of a turn."""

import gc
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import msgspec
import pytest

from tests.conversation.rig import history, open_conversation, parent
from trio_responses._conversation.history import History
from trio_responses._conversation.settings import TurnSettings
from trio_responses._conversation.turn import ConversationRequest
from trio_responses._protocol.continuation import Placement
from trio_responses._protocol.replay import Origin, Piece
from trio_responses._turn.request_builder import raw_input
from trio_responses._wire import Response
from trio_responses.testing import ResponsesServer

PLACE = Placement(socket=object(), lane="lane-1")


def counted(work: Callable[[], object]) -> int:
    """Return how many Python and C functions are called."""
    calls = 0

    def on_call(frame: FrameType, kind: str, argument: Any) -> None:
        nonlocal calls
        del frame, argument
        calls += kind in {"call", "c_call"}

    before = sys.getprofile()
    gc.collect()
    gc.disable()  # finalizers would be counted
    sys.setprofile(on_call)
    try:
        work()
    finally:
        sys.setprofile(before)
        gc.enable()
    return calls


def message(number: int) -> msgspec.Raw:
    item = {"type": "message", "role": "assistant", "content": f"Answer {number}"}
    return msgspec.Raw(msgspec.json.encode(item))


def calls_of_a_turn(items: int) -> int:
    """Return how many functions a turn calls, with so many items of input and of output."""
    history = History()
    settings = TurnSettings({"model": "m"})
    new = raw_input([{"role": "user", "content": "hi"}] * items)
    response = Response(id="r", status="completed", raw_output=[message(n) for n in range(items)])

    def turn() -> None:
        request = ConversationRequest(history, new, settings)
        request.write(PLACE, lambda _: None)
        request.commit(response, ())

    calls = counted(turn)
    assert history.item_count == 2 * items
    return calls


def test_a_turn_of_many_items_calls_no_more_functions_than_a_turn_of_few() -> None:
    """A turn of few items is searched as text, which takes less calls."""
    few = calls_of_a_turn(10)  # first, since the first turn of a process builds tables
    assert calls_of_a_turn(1000) == calls_of_a_turn(200) < 100
    assert calls_of_a_turn(10) <= min(few, calls_of_a_turn(200))


def test_a_history_is_scanned_for_calls_once() -> None:
    call = {"type": "function_call", "call_id": "c", "name": "f", "arguments": ""}
    history = History([Piece(raw_input([call] * 1000), Origin())])
    first = counted(history.track_calls)
    assert counted(lambda: history.track_calls().has_pending_calls) < 10 < first


@pytest.mark.parametrize("settings", [{}, {"instructions": "Be brief."}])
async def test_settings_are_copied_when_the_conversation_begins(
    server: ResponsesServer, settings: dict[str, Any]
) -> None:
    """They are encoded once; later changes to the caller's objects change no turn."""
    metadata = {"a": "1"}
    async with open_conversation(server, metadata=metadata, **settings) as conversation:
        await conversation.create("one")
        metadata["a"] = "2"
        await conversation.create("two")
        await conversation.create("three", metadata=metadata)
    assert [request["metadata"] for request in server.requests] == [
        {"a": "1"},
        {"a": "1"},
        metadata,
    ]
    assert [parent(request) is None for request in server.requests] == [True, False, True]


async def test_items_that_contain_separators_of_json_stay_separate(server: ResponsesServer) -> None:
    async with open_conversation(server) as conversation:
        await conversation.create(
            [{"role": "user", "content": text} for text in ("null,", "]", "},{")]
        )
        assert [item["content"] for item in history(conversation)[:3]] == ["null,", "]", "},{"]
        assert (
            conversation.statistics().items
            == len(history(conversation))
            == len(conversation.items)
            == 4
        )


def test_a_history_is_converted_for_full_input_once() -> None:
    """The items that a turn adds are converted alone, and equal items stay the same objects."""
    history = History([Piece(raw_input([{"role": "user", "content": "hi"}] * 1000), Origin())])
    rules = history.policy.rules(Origin("m"))
    first = counted(lambda: history.input_items(rules))
    assert counted(lambda: history.input_items(rules)) < 20 < first
    assert history.input_items(rules)[0] is history.pieces[0]
    fork = history.fork()
    assert counted(lambda: fork.input_items(rules)) < 20
