"""P8, P10: what the fuzzing campaign tries for minutes, here with a few inputs each."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.fuzz import inputs, properties
from tests.fuzz.properties import CANARY
from trio_responses._wire import UndecodableFrame, decode
from trio_responses._wire.events import EVENTS

CALM = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
few = settings(max_examples=60, deadline=None, suppress_health_check=CALM)
fewer = settings(few, max_examples=20)


@few
@given(inputs.frames())
def test_any_frame_is_an_event(frame: bytes) -> None:
    properties.check_decode(frame)


@few
@given(inputs.frames(inputs.items))
@example(b" [5] ")
def test_any_bytes_are_an_item(raw: bytes) -> None:
    properties.check_item(raw)


@few
@given(inputs.pieces(), st.sampled_from([0, 1, 20, 130, 5000, 60_000]))
@example([b"\x01\x01\xc3", b"\x80\x01(", b"\x81\x01x"], 5000)
def test_any_bytes_are_messages_or_a_violation(pieces: list[bytes], limit: int) -> None:
    properties.check_reader(pieces, limit)


@fewer
@given(inputs.pieces())
@example([b"\x81\x02hi", b"\x89\x01?\x88\x02\x03\xe8", b"\x81\x01x"])
def test_any_bytes_behind_an_upgrade_end_in_a_lost_connection(pieces: list[bytes]) -> None:
    properties.check_transport(pieces)


@fewer
@given(inputs.upgrade_answers())
def test_any_answer_to_an_upgrade_is_a_refusal(answer: bytes) -> None:
    properties.check_upgrade(answer)


@fewer
@given(st.lists(inputs.frames(), max_size=6))
def test_any_frames_end_a_turn_once(frames: list[bytes]) -> None:
    properties.check_turn(frames)


@pytest.mark.parametrize("raw", inputs.BAD, ids=lambda raw: repr(raw[:12]))
def test_a_bad_value_in_any_place_of_an_event_or_item_is_no_error(raw: bytes) -> None:
    """P8: in one frame of each type that real servers sent, and in an item of each of those."""
    by_type = {frame.get("type"): frame for frame in inputs.captured()}
    for frame in by_type.values():
        for bad in inputs.spoilt(frame, raw):
            properties.check_decode(bad)
        for bad in inputs.spoilt(frame.get("item") or {}, raw):
            properties.check_item(bad)


@pytest.mark.parametrize("tag", [*EVENTS, "response.done", "response.error", "unheard.of"])
def test_the_reason_for_a_refused_frame_quotes_nothing_of_it(tag: str) -> None:
    """P9: for every event, every field of the wrong kind."""
    fields = [
        field.encode_name for field in msgspec.structs.fields(EVENTS.get(tag, EVENTS["error"]))
    ]
    wrong = [CANARY, [CANARY], {CANARY: CANARY}, {"type": CANARY}]
    for name in fields:
        for value in wrong:
            properties.check_reason(inputs.dump({"type": tag, name: value}))


DEEP = b'"response":' + b"[" * inputs.NESTING + b"]" * inputs.NESTING + b"}"


@pytest.mark.parametrize(
    ("frame", "kind", "lane"),
    [
        (b'{"type":"response.completed","stream_id":"a",' + DEEP, "response.completed", "a"),
        (b' {"type": "response.failed", ' + DEEP, "response.failed", None),
        (b'{"a":"[","type":"response.failed",' + DEEP, None, None),
        (b'{"a":"x,","type":5,' + DEEP, None, None),
        (b'{"a":"\\"type\\":\\"x\\",",' + DEEP, None, None),
        (b'{"type":"response.failed","a":"b,c[d",' + DEEP, None, None),
        (b"{" + DEEP, None, None),
        (b'{"type":"error","error":{"type":"x"},' + DEEP, "error", None),
        (b"\xff" + DEEP[:-1], None, None),
    ],
)
def test_a_frame_that_nests_too_deeply_is_told_by_its_beginning(
    frame: bytes, kind: str | None, lane: str | None
) -> None:
    """P3: its turn ends by it. What is not certain is not guessed."""
    event = decode(frame)
    assert isinstance(event, UndecodableFrame)
    assert (event.type, event.stream_id, event.raw) == (kind, lane, frame)


def test_a_damaged_frame_is_kept_as_it_came() -> None:
    frame = b'{"type":"response.created","response":5,"canary":"\xc3\xa9"}'
    event = decode(frame)
    assert isinstance(event, UndecodableFrame)
    assert event.raw == frame
