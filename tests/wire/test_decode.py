"""Decoding of frames: ``decode`` returns an event for every frame (promise P8)."""

import json
import re
import sys
import tracemalloc
from pathlib import Path
from typing import Any
from unittest import mock

import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import example, given

from trio_responses import _wire as wire
from trio_responses._wire import (
    ErrorEvent,
    OutputTextDelta,
    ResponseCompleted,
    UndecodableFrame,
    UnknownEvent,
    decode,
    lenient,
)
from trio_responses._wire.events import EVENTS

CAPTURES = sorted((Path(__file__).parent.parent / "data" / "captures").glob("*.jsonl"))
WRONG_TYPES: list[Any] = [[[1]], {"a": {}}, "x", True]
SERVER_EVENTS = {tag: event for tag, event in EVENTS.items() if tag != "error"}


def frame(**fields: Any) -> bytes:
    return json.dumps(fields).encode()


VALUES: dict[str, Any] = {
    "response": {"id": "resp_1", "output": []},
    "item": {"type": "message", "role": "assistant"},
    "part": {"type": "output_text", "text": "x"},
    "steer": {"id": "steer_1"},
    "output": [{"stdout": "x"}],
}


def minimal(tag: str) -> dict[str, Any]:
    fields: dict[str, Any] = {"type": tag}
    for field in msgspec.structs.fields(EVENTS[tag]):
        if field.required:
            fields[field.encode_name] = VALUES.get(field.encode_name, "x")
    if tag == "response.shell_call_output_content.delta":
        fields["delta"] = {"stdout": "x"}
    return fields


@pytest.mark.parametrize("tag", SERVER_EVENTS)
def test_an_event_with_only_its_required_fields_is_decoded(tag: str) -> None:
    event = decode(frame(**minimal(tag)))
    assert type(event) is EVENTS[tag]
    assert event.type == tag
    assert event.sequence_number is None
    assert event.stream_id is None


@pytest.mark.parametrize("tag", SERVER_EVENTS)
def test_a_null_is_decoded_as_a_missing_field(tag: str) -> None:
    plain = decode(frame(**minimal(tag)))
    for field in msgspec.structs.fields(EVENTS[tag]):
        if not field.required:
            assert decode(frame(**minimal(tag), **{field.encode_name: None})) == plain


@pytest.mark.parametrize("tag", SERVER_EVENTS)
def test_an_optional_field_of_a_wrong_type_does_not_reject_the_event(tag: str) -> None:
    for field in msgspec.structs.fields(EVENTS[tag]):
        if not field.required:
            for value in WRONG_TYPES:
                event = decode(frame(**minimal(tag), **{field.encode_name: value}))
                assert type(event) is EVENTS[tag]


@pytest.mark.parametrize("tag", SERVER_EVENTS)
def test_an_event_without_a_required_field_is_undecodable_and_keeps_its_type(tag: str) -> None:
    fields = minimal(tag)
    for name in set(fields) - {"type"}:
        fields = minimal(tag)
        del fields[name]
        event = decode(frame(**fields, stream_id="lane", sequence_number=3))
        assert isinstance(event, UndecodableFrame)
        assert (event.wire_type, event.stream_id, event.sequence_number) == (tag, "lane", 3)
        assert event.error == f"Object missing required field `{name}`"


@pytest.mark.parametrize("tag", SERVER_EVENTS)
def test_new_fields_are_ignored(tag: str) -> None:
    assert decode(frame(**minimal(tag), brand_new={"a": [1]})) == decode(frame(**minimal(tag)))


def received(path: Path) -> list[bytes]:
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return [json.dumps(line["frame"]).encode() for line in lines if line["dir"] == "recv"]


@pytest.mark.parametrize("path", CAPTURES, ids=lambda path: path.stem)
def test_every_captured_frame_is_a_known_event(path: Path) -> None:
    for captured in received(path):
        event = decode(captured)
        assert not isinstance(event, UnknownEvent | UndecodableFrame)
        if isinstance(event, wire.OutputItemDone):
            assert not isinstance(event.item, wire.UnknownItem)
        if isinstance(event, wire.TERMINAL_EVENTS):
            assert not any(isinstance(item, wire.UnknownItem) for item in event.response.output)


def test_an_unknown_event_keeps_its_frame() -> None:
    raw = b'{"type": "codex.rate_limits", "sequence_number": 7, "stream_id": "a", "plan_type": 1}'
    event = decode(raw)
    assert event == UnknownEvent(
        wire_type="codex.rate_limits", stream_id="a", sequence_number=7, raw=raw
    )
    assert isinstance(event, UnknownEvent)
    assert event.json()["plan_type"] == 1


@pytest.mark.parametrize("kind", ["keepalive", "ping", "responsesapi.websocket_timing", ""])
def test_an_event_type_outside_the_sdk_is_an_unknown_event(kind: str) -> None:
    assert decode(frame(type=kind)) == UnknownEvent(wire_type=kind, raw=frame(type=kind))


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        ("completed", ResponseCompleted),
        ("failed", wire.ResponseFailed),
        ("incomplete", wire.ResponseIncomplete),
        (None, ResponseCompleted),
        (["?"], ResponseCompleted),
    ],
)
def test_the_status_of_response_done_decides_its_terminal_event(
    status: Any, kind: type[Any]
) -> None:
    event = decode(frame(type="response.done", response={"id": "resp_1", "status": status}))
    assert type(event) is kind


@pytest.mark.parametrize(
    ("raw", "error"),
    [
        (b"", "truncated"),
        (b"{not json", "malformed"),
        (b"[]", "Expected `object`"),
        (b"null", "Expected `object`"),
        (b"{}", "no `type`"),
        (b'{"type": 3}', "no `type`"),
        (b'{"type":"response.audio.done"} x', "malformed"),
        (b"\xff", "malformed"),
        (b"[" * 100_000, "nests too deeply|Expected `object`"),
        (b'{"type":"x","a":' + b"[" * 100_000, "nests too deeply"),
    ],
)
def test_a_frame_that_is_no_event_is_undecodable_with_a_reason(raw: bytes, error: str) -> None:
    event = decode(raw)
    assert isinstance(event, UndecodableFrame)
    assert event.raw == raw
    assert any(reason in event.error for reason in error.split("|"))


def test_invalid_utf8_in_a_delta_is_undecodable_and_the_reason_names_the_position() -> None:
    event = decode(b'{"type":"response.output_text.delta","delta":"secret\xff"}')
    assert isinstance(event, UndecodableFrame)
    assert event.wire_type == "response.output_text.delta"
    assert event.error.startswith("Invalid UTF-8 at byte")


@pytest.mark.parametrize(
    ("escaped", "text"),
    [
        (rb"a\ud83d", "a\ufffd"),
        (rb"\uDE00a", "\ufffda"),
        (rb"\ud83d\ud83d\ude00", "\ufffd\U0001f600"),
        (rb"\\ud83d \ud83d", "\\ud83d \ufffd"),
        (rb"\ud7ff\ud83dx", "\ud7ff\ufffdx"),
    ],
)
def test_a_lone_surrogate_becomes_a_replacement_character(escaped: bytes, text: str) -> None:
    event = decode(b'{"type":"response.output_text.delta","delta":"%s"}' % escaped)
    assert event == OutputTextDelta(delta=text)


@given(
    st.lists(
        st.sampled_from(
            [rb"\ud83d", rb"\uDe00", rb"\\", rb"\n", rb"\"", rb"\u00e9", b"ud83d", b"a"]
        )
    ),
    st.sampled_from([12, 13, 17, 64]),
)
def test_only_surrogates_without_a_partner_are_replaced(parts: list[bytes], chunk: int) -> None:
    escaped = b"".join(parts)
    received = json.loads(b'"' + escaped + b'"')
    expected = re.sub("[\ud800-\udfff]", "\ufffd", received)
    with mock.patch.object(lenient, "_CHUNK", chunk):
        event = decode(b'{"type":"response.output_text.delta","delta":"%s"}' % escaped)
    assert event == OutputTextDelta(delta=expected)


@pytest.mark.parametrize(
    "escapes", [rb"\n", rb"\\", rb"\ud800", rb"\ud800ab", rb"\ud83d\ude00", rb"\ud800\""]
)
def test_a_lone_surrogate_among_many_escapes_takes_a_small_multiple_of_the_frame(
    escapes: bytes,
) -> None:
    """Frames are linear in memory, whatever escapes they have."""
    text = escapes * (500_000 // len(escapes))
    frame = b'{"type":"response.output_text.delta","delta":"%s\\udc00\\udc00"}' % text
    decode(frame)
    tracemalloc.start()
    try:
        event = decode(frame)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert isinstance(event, OutputTextDelta)
    assert peak < 7 * len(frame)


def test_replacing_lone_surrogates_calls_no_function_for_each_escape() -> None:
    """Frames are linear in time, and the work for an escape is not done in Python."""
    calls = 0

    def profile(_frame: object, event: str, _argument: object) -> None:
        nonlocal calls
        calls += event in {"call", "c_call"}

    frame = b'{"type":"x","a":"' + rb"\n\ud800" * 10_000 + b'"}'
    sys.setprofile(profile)
    try:
        decode(frame)
    finally:
        sys.setprofile(None)
    assert calls < 200


def test_an_escaped_backslash_before_the_digits_of_a_surrogate_stays() -> None:
    frame = b'{"type":"x","a":"\\\\ud800"}'
    event = decode(frame)
    assert isinstance(event, UnknownEvent)
    assert event.raw is frame


def test_a_frame_that_is_not_utf8_keeps_its_bytes() -> None:
    frame = b'{"type":"x","a":"\xff\xff\\ud800"}'
    assert lenient.replace_lone_surrogates(frame) is frame


def test_a_lone_surrogate_does_not_reject_a_terminal_event() -> None:
    event = decode(
        b'{"type":"response.completed","response":{"output":[{"type":"message",'
        b'"role":"assistant","content":[{"type":"output_text","text":"hi\\ud83d"}]}]}}'
    )
    assert isinstance(event, ResponseCompleted)
    assert event.response.output_text == "hi\ufffd"


def test_deeply_nested_json_in_a_field_that_echoes_a_setting_does_not_reject_the_event() -> None:
    deep = b'{"a":' * 450 + b"1" + b"}" * 450
    event = decode(b'{"type":"response.completed","response":{"id":"r","tools":' + deep + b"}}")
    assert isinstance(event, ResponseCompleted)
    assert event.response.id == "r"


def test_the_last_of_two_equal_keys_takes_precedence() -> None:
    assert decode(
        b'{"type":"response.output_text.delta","delta":"a","delta":"b"}'
    ) == OutputTextDelta(delta="b")


def test_a_number_of_any_size_and_form_does_not_reject_the_event() -> None:
    """Floats and texts with an integer value are accepted; others become the default."""

    def index(text: str) -> int:
        event = decode(
            b'{"type":"response.output_text.delta","delta":"a","output_index":%s}' % text.encode()
        )
        assert isinstance(event, OutputTextDelta)
        return event.output_index

    assert index("3.0") == 3
    assert index('"3"') == 3
    assert index("1" * 30) == int("1" * 30)
    assert index("1" * 5000) == 0
    assert index("1e999") == 0
    assert index("1.5") == 0


def test_a_part_of_an_unknown_type_in_an_event_is_an_unknown_part() -> None:
    event = decode(frame(type="response.content_part.added", part={"type": "hologram", "x": 1}))
    assert isinstance(event, wire.ContentPartAdded)
    assert event.part == wire.UnknownPart("hologram", msgspec.Raw(b'{"type": "hologram", "x": 1}'))


def test_a_failed_steering_input_has_an_error_even_if_the_server_sends_none() -> None:
    event = decode(frame(type="response.steer.failed", steer={}, error=None))
    assert isinstance(event, wire.SteerFailed)
    assert event.error.code is None


def test_the_required_input_of_a_pending_steering_input_keeps_its_types() -> None:
    stubs = [
        {"type": "function_call_output", "call_id": "call_1", "name": "f"},
        {"type": "mcp_approval_response", "approval_request_id": "req_1"},
        {"type": "brand_new"},
    ]
    event = decode(frame(type="response.steer.pending", steer={}, required_input=stubs))
    assert isinstance(event, wire.SteerPending)
    assert event.required_input == [
        wire.RequiredInput(type="function_call_output", call_id="call_1", name="f"),
        wire.RequiredInput(type="mcp_approval_response", approval_request_id="req_1"),
        wire.RequiredInput(type="brand_new"),
    ]


def test_the_repr_of_an_event_shows_no_content_of_its_frame() -> None:
    """Promise P9."""
    for event in (
        decode(b'{"type":"x","secret":1}'),
        decode(b'{"secret":1}'),
        decode(b'{"type":"response.output_text.delta","delta":["secret"]}'),
        decode(b'{"type":"error","message":"secret"}'),
        decode(frame(type="response.failed", response={"error": {"message": "secret"}})),
        UndecodableFrame(raw=b"secret", error="Binary frame"),
    ):
        assert "secret" not in repr(event)


def test_the_terminal_events_are_completed_failed_and_incomplete() -> None:
    assert {event.__name__ for event in wire.TERMINAL_EVENTS} == {
        "ResponseCompleted",
        "ResponseFailed",
        "ResponseIncomplete",
    }


texts = st.sampled_from(
    ["", "message", "output_text", "function_call", "url_citation", "3", "\ud83d", "\0"]
)
inner_keys = st.sampled_from(
    ["type", "id", "item", "output", "content", "text", "part", "annotations", "usage", "message"]
)
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(inner_keys, inner, max_size=4),
    max_leaves=8,
)
keys = st.sampled_from(
    sorted({name for event in EVENTS.values() for name in event.__struct_encode_fields__})
)


def access_all(event: wire.ServerEvent) -> None:
    """Access every attribute that is decoded on first access."""
    repr(event)
    assert event.wire_type is None or isinstance(event.wire_type, str)
    if isinstance(event, wire.OutputItemAdded | wire.OutputItemDone):
        repr(event.item)
    if isinstance(event, wire.TERMINAL_EVENTS):
        repr(event.response.output)
        assert isinstance(event.response.output_text, str)
    if isinstance(event, ErrorEvent):
        repr(event.retry_after)


@given(st.binary())
@example(b"\xef\xbb\xbf{}")
def test_decode_does_not_raise_for_any_bytes(raw: bytes) -> None:
    access_all(decode(raw))


@given(
    st.sampled_from([*EVENTS, "response.done", "response.error"]),
    st.dictionaries(keys, anything, max_size=4),
)
@example("error", {"status": float("nan"), "headers": {"retry-after": float("inf")}})
@example("error", {"error": {"message": [float("nan")], "headers": {"Retry-After": "-1"}}})
def test_decode_does_not_raise_for_any_fields_of_a_known_type(
    kind: str, fields: dict[str, Any]
) -> None:
    access_all(decode(json.dumps({**fields, "type": kind}).encode()))


@given(anything)
def test_decode_does_not_raise_for_any_json(value: Any) -> None:
    access_all(decode(json.dumps(value).encode()))


@pytest.mark.parametrize(
    ("beginning", "type_"),
    [
        (b'{"type":"response.completed","response":', "response.completed"),
        (b'{"text":"a, [b","type":"response.completed","response":', None),
    ],
)
def test_a_frame_that_nests_too_deeply_keeps_the_type_before_the_nested_value(
    beginning: bytes, type_: str | None
) -> None:
    """A type that cannot be decoded with certainty is not guessed."""
    event = wire.decode(beginning + b"[" * 100_000)
    assert isinstance(event, wire.UndecodableFrame)
    assert event.wire_type == type_


def test_a_cancelled_response_is_an_incomplete_one() -> None:
    frame = b'{"type": "response.cancelled", "response": {"id": "resp_1", "status": "cancelled"}}'
    event = wire.decode(frame)
    assert isinstance(event, wire.ResponseIncomplete)
    assert (event.response.id, event.response.status) == ("resp_1", "cancelled")


def test_decoding_stops_after_a_number_of_odd_frames_so_that_other_tasks_can_run() -> None:
    plain = b'{"type":"response.output_text.delta","delta":"a"}'
    frames = [plain, b"?", plain, b"{}", plain, b"?"]
    events = wire.decode_all(frames, 2)
    assert events == wire.decode_all(frames)[:4]
    assert len(wire.decode_all(frames, 4)) == len(frames)
