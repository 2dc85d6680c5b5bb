"""Received objects give back their JSON: ``to_dict()``, ``to_json()``, and items sent again."""

import copy
import json
from typing import Any

import msgspec
import pytest

from trio_responses import _wire as wire
from trio_responses._protocol.accumulator import Accumulator

CALL = (
    '{"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}", "novel": {"a": 1}}'
)
RESPONSE = '{"id": "resp_1", "status": "completed", "novel": [1.50, null], "output": [%s]}'


def completed(response: str) -> wire.Response:
    return completed_bytes(response.encode())


def completed_bytes(response: bytes) -> wire.Response:
    event = wire.decode(b'{"type":"response.completed","response":' + response + b"}")
    assert isinstance(event, wire.ResponseCompleted)
    return event.response


def sent_input(command: wire.ClientEvent) -> Any:
    return json.loads(wire.encode(command))["input"]


def test_a_response_gives_back_its_json() -> None:
    text = RESPONSE % CALL
    response = completed(text)
    assert response.to_json() == text
    assert response.to_dict() == json.loads(text)


@pytest.mark.parametrize("status", ['"completed"', "[5]", r'"\ud83d\ude00"'])
def test_a_response_that_only_lenient_decoding_accepts_gives_back_its_json(status: str) -> None:
    text = f'{{"id": "resp_1", "status": {status}, "novel": 1}}'
    assert completed(text).to_json() == text


def test_a_lone_surrogate_is_replaced_in_the_json_too() -> None:
    response = completed(r'{"id": "resp_1", "model": "\ud83d", "output": []}')
    assert response.model == "\ufffd"
    assert response.to_dict()["model"] == "\ufffd"


def test_a_response_that_a_program_made_gives_its_fields() -> None:
    response = wire.Response(id="resp_1", status="failed")
    assert response.raw is None
    assert response.to_dict() == {"id": "resp_1", "status": "failed"}


def test_output_that_only_the_events_had_is_part_of_the_json() -> None:
    accumulator = Accumulator()
    done = wire.decode(f'{{"type":"response.output_item.done","item":{CALL}}}'.encode())
    accumulator.feed([done])
    response = accumulator.finish(completed('{"id": "resp_1", "novel": 1}'))
    assert response.to_dict() == {"id": "resp_1", "novel": 1, "output": [json.loads(CALL)]}


def test_output_is_added_to_a_response_that_a_program_made() -> None:
    response = wire.Response(id="resp_1").with_output([msgspec.Raw(CALL.encode())])
    assert response.to_dict() == {"id": "resp_1", "output": [json.loads(CALL)]}


def test_a_copy_of_an_event_has_its_response() -> None:
    frame = b'{"type":"response.created","response":{"id":"r","novel":1}}'
    event = copy.copy(wire.decode(frame))
    assert isinstance(event, wire.ResponseCreated)
    assert event.response.to_dict() == {"id": "r", "novel": 1}


@pytest.mark.parametrize("value", [b'"r"', b"7", b"[]", b"null"])
def test_an_event_whose_response_is_no_object_is_undecodable(value: bytes) -> None:
    event = wire.decode(b'{"type":"response.created","response":' + value + b"}")
    assert isinstance(event, wire.UndecodableFrame)
    assert event.wire_type == "response.created"


def test_bytes_that_are_no_text_are_left_out_of_a_response() -> None:
    response = completed_bytes(b'{"id": "resp_1", "status": "\xff"}')
    assert (response.id, response.status) == ("resp_1", "completed")


def test_an_item_without_a_json_form_is_a_type_error() -> None:
    content: Any = object()
    with pytest.raises(TypeError, match="an object of type object has no JSON form"):
        wire.Message(role="user", content=content).to_json()


def test_a_received_item_gives_back_its_json() -> None:
    (item,) = completed(RESPONSE % CALL).output
    assert isinstance(item, wire.FunctionCall)
    assert item.to_json() == CALL
    assert item.to_dict() == json.loads(CALL)


def test_an_item_that_a_program_made_gives_its_fields() -> None:
    item = wire.Message(role="user", content=[wire.UnknownPart("x", msgspec.Raw(b'{"type":"x"}'))])
    assert item.raw is None
    assert item.to_dict() == {"type": "message", "role": "user", "content": [{"type": "x"}]}


@pytest.mark.parametrize("command", ["create", "steer"])
def test_a_received_item_is_sent_again_with_every_field(command: str) -> None:
    given: list[wire.InputItem] = [
        wire.Message(role="user", content="hi"),
        *completed(RESPONSE % CALL).output,
    ]
    event: wire.ClientEvent = wire.ResponseCreate(input=given)
    if command == "steer":
        event = wire.ResponseSteer(previous_response_id="resp_1", input=given)
    message = {"type": "message", "role": "user", "content": "hi"}
    assert sent_input(event) == [message, json.loads(CALL)]


def test_a_changed_copy_of_an_item_is_sent_with_its_own_fields() -> None:
    (item,) = completed(RESPONSE % CALL).function_calls
    changed = msgspec.structs.replace(item, name="g")
    (sent,) = sent_input(wire.ResponseCreate(input=[changed]))
    assert sent == {"type": "function_call", "call_id": "c", "name": "g", "arguments": "{}"}


def test_a_received_item_equals_the_same_item_made_by_a_program() -> None:
    text = '{"type":"item_reference","id":"msg_1"}'
    assert wire.Message(role="user", content="hi") == wire.decode_item(
        b'{"type":"message","role":"user","content":"hi"}'
    )
    assert wire.decode_item(text.encode()).to_json() == text


@pytest.mark.parametrize(
    "frame",
    [
        b'{"type":"error","error":{"code":"c","message":"m"},"novel":1}',
        b'{"type":"brand.new","novel":1}',
        b'{"type":"response.output_text.delta","novel":1}',
    ],
)
def test_an_event_that_keeps_its_frame_gives_it_back(frame: bytes) -> None:
    event = wire.decode(frame)
    assert event.to_json() == frame.decode()
    assert event.to_dict() == json.loads(frame)


def test_an_event_of_the_response_gives_back_the_response() -> None:
    frame = b'{"type":"response.created","sequence_number":0,"response":{"id":"r","novel":1}}'
    assert wire.decode(frame).to_dict() == json.loads(frame)


def test_any_other_event_gives_the_fields_that_are_known() -> None:
    frame = b'{"type":"response.output_text.delta","delta":"x","item_id":"i","novel":1}'
    assert wire.decode(frame).to_dict() == {
        "type": "response.output_text.delta",
        "delta": "x",
        "item_id": "i",
    }


def test_unknown_objects_give_back_their_json() -> None:
    item = wire.decode_item(b'{"type": "hologram", "x": 1}')
    assert item.to_json() == '{"type": "hologram", "x": 1}'
    assert item.to_dict() == {"type": "hologram", "x": 1}


def test_the_repr_of_an_event_has_no_content_of_the_response() -> None:
    frame = b'{"type":"response.completed","response":{"id":"r","instructions":"secret"}}'
    assert repr(wire.decode(frame)) == (
        "ResponseCompleted(response=Response(id='r', status='completed', model='', items=None),"
        " stream_id=None, sequence_number=None)"
    )
