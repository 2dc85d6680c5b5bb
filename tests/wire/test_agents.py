"""Events and items of multi-agent responses (beta) keep their ``agent``."""

from __future__ import annotations

import json
from typing import Any

import pytest

from trio_responses import _wire as wire
from trio_responses.types import OutputItemDone, ResponseCompleted, UnknownEvent, UnknownItem

Json = dict[str, Any]

AGENT = {"agent_name": "/root/researcher"}
MESSAGE: Json = {"type": "message", "id": "m", "role": "assistant", "content": [], "agent": AGENT}
CALL: Json = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "", "agent": AGENT}
NEW_ITEM = {"type": "of_next_year", "agent": AGENT}


def decode(type_: str, **fields: Any) -> Any:
    return wire.decode(json.dumps({"type": type_, "agent": AGENT, **fields}).encode())


@pytest.mark.parametrize(
    ("type_", "fields"),
    [
        ("response.created", {"response": {"id": "resp_1"}}),
        ("response.output_text.delta", {"delta": "word"}),
        ("response.output_item.done", {"output_index": 0, "item": MESSAGE}),
        ("response.inject.created", {"response_id": "resp_1"}),
        ("error", {"error": {"code": "server_error", "message": "no"}}),
    ],
)
def test_an_event_has_its_agent(type_: str, fields: dict[str, Any]) -> None:
    event = decode(type_, **fields)
    assert event.type == type_
    assert event.agent.agent_name == "/root/researcher"


def test_an_event_of_an_unknown_type_has_its_agent_in_its_json() -> None:
    event = decode("response.of_next_year")
    assert isinstance(event, UnknownEvent)
    assert event.to_dict()["agent"] == AGENT


@pytest.mark.parametrize("item", [MESSAGE, CALL])
def test_an_item_has_its_agent_also_when_it_is_sent_again(item: dict[str, Any]) -> None:
    done = decode("response.output_item.done", output_index=0, item=item)
    ended = decode("response.completed", response={"id": "resp_1", "output": [item]})
    assert isinstance(done, OutputItemDone)
    assert isinstance(ended, ResponseCompleted)
    for one in (done.item, *(ended.response.output or ())):
        assert not isinstance(one, UnknownItem)
        assert one.agent is not None
        assert one.agent.agent_name == "/root/researcher"
        assert json.loads(one.to_json()) == item


def test_an_item_of_an_unknown_type_has_its_agent_in_its_json() -> None:
    done = decode("response.output_item.done", output_index=0, item=NEW_ITEM)
    assert isinstance(done.item, UnknownItem)
    assert json.loads(done.item.to_json()) == NEW_ITEM
