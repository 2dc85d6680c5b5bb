"""The limits for the nesting of JSON, which protect a thread with a small stack."""

import json
import subprocess
import sys
import tracemalloc
from typing import Any, cast
from unittest import mock

import hypothesis.strategies as st
import pytest
from hypothesis import given

from trio_responses import _wire as wire
from trio_responses import types
from trio_responses._wire import nesting
from trio_responses._wire.nesting import (
    MAX_DECODED_LEVELS,
    MAX_SKIPPED_LEVELS,
    check_nesting,
    decode_checked,
    nests_deeper,
)

LEVELS = 100_000
TEXTS = st.text('[]{}"\\a', max_size=6)
VALUES = st.recursive(
    TEXTS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3)
)

SMALL_STACK = """
import threading
from trio_responses import InvalidJSON, JSONType, types
from trio_responses._wire import decode

def nested(start, end, levels):
    return start * levels + (b"1" if end == b"}" else b"") + end * levels

def work():
    for levels in (150, 400, 100_000):
        for deep in (nested(b"[", b"]", levels), nested(b'{"a":', b"}", levels)):
            for frame in (
                b'{"type":"x","a":%s}',
                b'{"type":"error","error":{"message":%s}}',
                b'{"type":"response.output_item.done","item":{"type":"message","content":%s}}',
                b'{"type":"response.completed","response":{"output":[%s],"tools":%s}}',
                b"%s",
            ):
                event = decode(frame.replace(b"%s", deep))
                try:
                    event.to_dict()
                except (RecursionError, ValueError):
                    pass
            assert levels < 100_000 or type(event) is types.UndecodableFrame
            try:
                JSONType(dict).decode(deep)
            except InvalidJSON:
                pass
    print("decoded")

threading.stack_size(256 * 1024)
thread = threading.Thread(target=work)
thread.start()
thread.join()
"""


def levels_of(value: Any) -> int:
    inner: Any = ()
    if isinstance(value, dict):
        inner = cast("dict[str, Any]", value).values()
    elif isinstance(value, list):
        inner = cast("Any", value)
    else:
        return 0
    return 1 + max(map(levels_of, inner), default=0)


def test_deep_json_does_not_end_the_process_on_a_small_stack() -> None:
    finished = subprocess.run(  # noqa: S603 - this test's own program
        [sys.executable, "-c", SMALL_STACK], capture_output=True, text=True, check=False
    )
    assert (finished.returncode, finished.stdout) == (0, "decoded\n"), finished.stderr


@given(VALUES, st.sampled_from([1, 2, 7, 64]))
def test_the_levels_of_any_json_are_counted_exactly(value: Any, chunk: int) -> None:
    raw = json.dumps([value], ensure_ascii=False).encode()
    levels = levels_of([value])
    with mock.patch.object(nesting, "_CHUNK", chunk):
        assert not nests_deeper(raw, levels)
        assert nests_deeper(raw, levels - 1)


def test_the_levels_of_json_that_never_closes_its_brackets_are_counted() -> None:
    for raw in (b"[" * LEVELS, b'{"a":' * LEVELS, b"[{" * LEVELS, b'["]",' * LEVELS):
        assert nests_deeper(raw, MAX_SKIPPED_LEVELS)


def test_many_brackets_side_by_side_or_in_strings_are_not_deep() -> None:
    inner = b"[" * (MAX_DECODED_LEVELS - 1) + b"]" * (MAX_DECODED_LEVELS - 1)
    for element in (b"[]", b"{}", b'"[[["', rb'"\"[\\"', inner):
        raw = b"[" + b",".join([element] * 1000) + b"]"
        check_nesting(raw)
        assert len(decode_checked(raw)) == 1000


@pytest.mark.parametrize("kind", [bytes, bytes.decode])
def test_json_with_too_many_levels_is_not_decoded(kind: Any) -> None:
    most = b"[" * MAX_DECODED_LEVELS + b"]" * MAX_DECODED_LEVELS
    assert levels_of(decode_checked(kind(most))) == MAX_DECODED_LEVELS
    with pytest.raises(RecursionError, match="more than 200 levels"):
        decode_checked(kind(b"[" + most + b"]"))


@pytest.mark.parametrize("levels", [MAX_SKIPPED_LEVELS + 1, LEVELS])
@pytest.mark.parametrize(
    "frame", [b'{"type":"response.failed","a":%s}', b'{"type":"response.failed","response":%s}']
)
def test_a_frame_with_too_many_levels_is_undecodable_and_keeps_its_type(
    frame: bytes, levels: int
) -> None:
    event = wire.decode(frame % (b"[" * levels + b"]" * levels))
    assert isinstance(event, types.UndecodableFrame)
    assert event.wire_type == "response.failed"
    assert "more than 500 levels" in event.error


def test_a_deep_field_costs_an_event_only_that_field_in_a_batch_of_frames() -> None:
    deep = b'{"a":' * 300 + b"1" + b"}" * 300
    plain = b'{"type":"response.output_text.delta","delta":"a"}'
    frame = b'{"type":"response.completed","response":{"id":"r","tools":' + deep + b"}}"
    first, event, last = wire.decode_all([plain, frame, plain])
    assert first == last == types.OutputTextDelta(delta="a")
    assert isinstance(event, types.ResponseCompleted)
    assert event.response.id == "r"


def test_an_item_with_a_deep_field_is_decoded_without_the_field() -> None:
    deep = b"[" * 300 + b"]" * 300
    item = wire.decode_item(b'{"type":"function_call","name":"f","call_id":"c","x":%s}' % deep)
    assert item.wire_type == "function_call"
    unknown = wire.decode_item(b'{"x":%s}' % deep)
    assert isinstance(unknown, types.UnknownItem)
    with pytest.raises(RecursionError):
        unknown.to_dict()


def test_counting_levels_takes_the_memory_of_a_small_part_of_the_json() -> None:
    raw = b"[" + b'{"a":["[","]"]},' * 200_000 + b"1]"
    tracemalloc.start()
    try:
        assert not nests_deeper(raw, MAX_DECODED_LEVELS)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < len(raw) / 4
