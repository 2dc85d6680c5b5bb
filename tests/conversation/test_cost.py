"""What a conversation costs beside a plain stream: nothing that grows with the items of a turn."""

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import msgspec
import pytest

from tests.conversation.rig import history, open_talk, parent
from trio_responses import Endpoint
from trio_responses._conversation.history import History
from trio_responses._conversation.turn import ConversationRequest
from trio_responses._protocol.continuation import Continuation, Placement
from trio_responses._turn.request_builder import TurnSettings, raw_input
from trio_responses._wire import Response
from trio_responses.testing import ResponsesServer

PLACE = Placement(socket=object(), lane="lane-1")


def counted(work: Callable[[], object]) -> int:
    """Count the calls of Python and C functions."""
    calls = 0

    def on_call(frame: FrameType, kind: str, argument: Any) -> None:
        nonlocal calls
        del frame, argument
        calls += kind in {"call", "c_call"}

    before = sys.getprofile()
    sys.setprofile(on_call)
    try:
        work()
    finally:
        sys.setprofile(before)
    return calls


def call(number: int) -> msgspec.Raw:
    item = {"type": "function_call", "call_id": f"c{number}", "name": "f", "arguments": ""}
    return msgspec.Raw(msgspec.json.encode(item))


def calls_of_a_turn(items: int) -> int:
    """Count the calls of a turn that says and hears so many items."""
    ledger = History(Endpoint.openai(), Continuation())
    settings = TurnSettings({"model": "m"}, "conversation")
    said = [{"role": "user", "content": "hi"}] * items
    response = Response(id="r", status="completed", raw_output=[call(n) for n in range(items)])

    def turn() -> None:
        draft = ConversationRequest(ledger, raw_input(said), settings)
        draft.write(PLACE, lambda _: None)
        draft.commit(response, ())

    calls = counted(turn)
    assert ledger.length == 2 * items
    assert len(ledger.pending_calls()) == items
    return calls


def test_a_turn_of_many_items_takes_no_more_calls_than_one_of_few() -> None:
    assert calls_of_a_turn(1000) == calls_of_a_turn(10) < 100


def test_what_is_owed_is_looked_for_once() -> None:
    ledger = History(Endpoint.openai(), Continuation())
    ledger.begin_anew(raw_input([{"role": "user", "content": "hi"}] * 1000))
    first = counted(lambda: ledger.owes)
    assert counted(lambda: ledger.owes) < 10 < first


@pytest.mark.parametrize("settings", [{}, {"instructions": "Be brief."}])
async def test_settings_are_taken_as_they_are_when_the_conversation_begins(
    server: ResponsesServer, settings: dict[str, Any]
) -> None:
    """They are encoded once; what becomes of the caller's own objects changes no turn."""
    metadata = {"a": "1"}
    async with open_talk(server, metadata=metadata, **settings) as talk:
        await talk.create("one")
        metadata["a"] = "2"
        await talk.create("two")
        await talk.create("three", metadata=metadata)
    assert [request["metadata"] for request in server.requests] == [
        {"a": "1"},
        {"a": "1"},
        metadata,
    ]
    assert [parent(request) is None for request in server.requests] == [True, False, True]


async def test_items_that_look_like_the_end_of_a_list_stay_apart(server: ResponsesServer) -> None:
    async with open_talk(server) as talk:
        await talk.create([{"role": "user", "content": text} for text in ("null,", "]", "},{")])
        assert [item["content"] for item in history(talk)[:3]] == ["null,", "]", "},{"]
        assert talk.statistics().items == len(history(talk)) == len(talk.items) == 4
