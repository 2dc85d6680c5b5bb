"""The properties of the fuzzing campaign, each with a few inputs (promises P8, P10)."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.fuzz import inputs, properties
from tests.fuzz.properties import CANARY
from trio_responses._wire import UndecodableFrame, decode
from trio_responses._wire.events import EVENTS

SUPPRESSED = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
few = settings(max_examples=60, deadline=None, suppress_health_check=SUPPRESSED)
fewer = settings(few, max_examples=20)


@few
@given(inputs.frames())
def test_any_frame_is_decoded_as_an_event(frame: bytes) -> None:
    properties.check_decode(frame)


@few
@given(inputs.frames(inputs.items))
@example(b" [5] ")
def test_any_bytes_are_decoded_as_an_item(raw: bytes) -> None:
    properties.check_item(raw)


@few
@given(inputs.pieces(), st.sampled_from([0, 1, 20, 130, 5000, 60_000]))
@example([b"\x01\x01\xc3", b"\x80\x01(", b"\x81\x01x"], 5000)
def test_any_bytes_are_read_as_messages_or_a_protocol_violation(
    pieces: list[bytes], limit: int
) -> None:
    properties.check_reader(pieces, limit)


@fewer
@given(inputs.pieces())
@example([b"\x81\x02hi", b"\x89\x01?\x88\x02\x03\xe8", b"\x81\x01x"])
def test_any_bytes_after_an_upgrade_end_in_connection_lost(pieces: list[bytes]) -> None:
    properties.check_transport(pieces)


@fewer
@given(inputs.upgrade_responses())
def test_any_other_response_to_an_upgrade_raises_connect_error(response: bytes) -> None:
    properties.check_upgrade(response)


@fewer
@given(st.lists(inputs.frames(), max_size=6))
def test_a_turn_ends_once_whatever_frames_the_server_sends(frames: list[bytes]) -> None:
    properties.check_turn(frames)


@pytest.mark.parametrize("raw", inputs.BAD_BYTES, ids=lambda raw: repr(raw[:12]))
def test_bad_bytes_in_the_place_of_any_value_of_an_event_or_item_raise_no_error(raw: bytes) -> None:
    """Promise P8, with one captured frame of each type and the item in each of these frames."""
    by_type = {frame.get("type"): frame for frame in inputs.captured()}
    for frame in by_type.values():
        for bad in inputs.corrupted_everywhere(frame, raw):
            properties.check_decode(bad)
        for bad in inputs.corrupted_everywhere(frame.get("item") or {}, raw):
            properties.check_item(bad)


@pytest.mark.parametrize("tag", [*EVENTS, "response.done", "response.error", "unheard.of"])
def test_the_error_of_an_undecodable_frame_quotes_none_of_its_content(tag: str) -> None:
    """Promise P9, with every field of every event set to a value of a wrong type."""
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
def test_a_frame_that_nests_too_deeply_keeps_the_type_and_lane_at_its_start(
    frame: bytes, kind: str | None, lane: str | None
) -> None:
    """Promise P3: the frame ends its turn. An uncertain type or lane is not guessed."""
    event = decode(frame)
    assert isinstance(event, UndecodableFrame)
    assert (event.wire_type, event.stream_id, event.raw) == (kind, lane, frame)


def test_an_undecodable_frame_is_kept_as_received() -> None:
    frame = b'{"type":"response.created","response":5,"canary":"\xc3\xa9"}'
    event = decode(frame)
    assert isinstance(event, UndecodableFrame)
    assert event.raw == frame
