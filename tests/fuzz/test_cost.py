"""P10: what a hostile frame costs grows with its size and not with its square: work and memory.

Work is counted, not timed: bytes that were given to a JSON parser or a regular expression, calls,
and bytes that the frame reader looked at again. For four times the input it may be four times as
much, and a little.
"""

from __future__ import annotations

import sys
import tracemalloc
from typing import TYPE_CHECKING, Any, Final
from unittest import mock

import pytest

from tests.fuzz.inputs import NESTING, websocket_frame
from trio_responses._protocol.frames import FrameReader, OversizeMessage
from trio_responses._wire import UndecodableFrame, codec, decode, decode_item, lenient
from trio_responses._wire.retry_hints import parse_retry_after, parse_retry_message

if TYPE_CHECKING:
    from collections.abc import Callable

SMALL: Final = 600
MORE: Final = 4
MARGIN: Final = 1.1
PARSES: Final = 40
"""How often a byte is parsed at most: each level of the declared types does so a few times."""


class Meter:
    """Stands in for a decoder, and counts the bytes that it is given."""

    def __init__(self, decoder: Any, counted: list[int]) -> None:
        self._decoder = decoder
        self._counted = counted

    def decode(self, raw: Any) -> Any:
        self._counted.append(len(bytes(raw)))
        return self._decoder.decode(raw)


def bytes_parsed(work: Callable[[bytes], object], frame: bytes) -> int:
    """Return the number of bytes that all JSON decoders parse for a frame.

    The test replaces private decoders: no public function reports how much they parse.
    """
    counted: list[int] = []
    make_decoder = lenient._decoder_of

    def metered(type_: Any) -> Meter:
        return Meter(make_decoder(type_), counted)

    with (
        mock.patch.object(codec, "_event_decoder", Meter(codec._event_decoder, counted)),
        mock.patch.object(lenient, "_decoder_of", metered),
        mock.patch.object(lenient, "_object_decoder", Meter(lenient._object_decoder, counted)),
        mock.patch.object(lenient, "_array_decoder", Meter(lenient._array_decoder, counted)),
        mock.patch.object(lenient, "_tag_decoder", Meter(lenient._tag_decoder, counted)),
    ):
        work(frame)
    return sum(counted)


def calls(work: Callable[[bytes], object], frame: bytes) -> int:
    """Count the calls of Python and C functions for a frame."""
    count = 0

    def profile(_frame: object, event: str, _argument: object) -> None:
        nonlocal count
        count += event in {"call", "c_call"}

    work(frame)  # what is made once and kept is made
    sys.setprofile(profile)
    try:
        work(frame)
    finally:
        sys.setprofile(None)
    return count


HOSTILE: Final[dict[str, Callable[[int], bytes]]] = {
    "nesting": lambda n: b'{"type":"error","error":' + b"[" * 9 * n + b"]" * 9 * n + b"}",
    "digits": lambda n: b'{"type":"error","status":' + b"9" * 9 * n + b"}",
    "keys": lambda n: b'{"type":"error"' + b',"code":1' * n + b"}",
    "other keys": lambda n: b"{" + b"".join(b'"%d":0,' % i for i in range(n)) + b'"type":"x"}',
    "half pairs": lambda n: b'{"type":"x","a":"' + rb"\ud83d" * n + b'"}',
    "pairs": lambda n: b'{"type":"x","a":"' + rb"\ud83d\ude00" * n + rb'\ud83d"}',
    "backslashes": lambda n: b'{"type":"x","a":"' + b"\\\\" * n + rb'\ud83d"}',
    "errors": lambda n: b'{"type":"error","error":{"message":[' + b"1," * n + b"1]}}",
    "headers": lambda n: b'{"type":"error","headers":{' + b'"a":5,' * n + b'"a":6}}',
    "odd items": lambda n: (
        b'{"type":"response.completed","response":{"id":"r","output":['
        + b"[],{}," * n
        + b"1e999]}}"
    ),
    "odd settings": lambda n: (
        b'{"type":"response.completed","response":{"id":5,"status":[' + b"0," * n + b"1e999]}}"
    ),
    "odd parts": lambda n: (
        b'{"type":"response.content_part.added","part":{"type":"output_text","text":"x","annotations":['
        + b'{"type":"url_citation","url":5},' * n
        + b'{"type":"?"}]}}'
    ),
    "odd probabilities": lambda n: (
        b'{"type":"response.output_text.delta","item_id":"i","delta":"x","logprobs":['
        + b'{"token":5,"top_logprobs":[{"token":5}]},' * n
        + b"{}]}"
    ),
    "no end": lambda n: b'{"type":"response.created","response":{"id":"' + b"x" * n,
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_byte_of_a_frame_is_parsed_a_bounded_number_of_times(kind: str) -> None:
    once, more = HOSTILE[kind](SMALL), HOSTILE[kind](MORE * SMALL)
    parsed, parsed_more = bytes_parsed(decode, once), bytes_parsed(decode, more)
    assert 0 < parsed <= PARSES * len(once)
    assert parsed_more * len(once) <= parsed * len(more) * MARGIN


@pytest.mark.parametrize("kind", HOSTILE)
def test_the_calls_for_a_frame_grow_with_its_size(kind: str) -> None:
    assert calls(decode, HOSTILE[kind](MORE * SMALL)) <= MORE * MARGIN * calls(
        decode, HOSTILE[kind](SMALL)
    )


def odd_message(count: int) -> bytes:
    part = (
        b'{"type":"output_text","text":"x","annotations":[{"type":"url_citation"}],"logprobs":[5]},'
    )
    return b'{"type":"message","role":"assistant","content":[' + part * count + b"5]}"


def test_a_byte_of_an_item_is_parsed_a_bounded_number_of_times() -> None:
    once, more = odd_message(SMALL), odd_message(MORE * SMALL)
    parsed = bytes_parsed(decode_item, once)
    assert 0 < parsed <= PARSES * len(once)
    assert bytes_parsed(decode_item, more) * len(once) <= parsed * len(more) * MARGIN
    assert calls(decode_item, more) <= MORE * MARGIN * calls(decode_item, once)


# The words of rate limits go through a regular expression, whose steps cannot be counted from here.
# These would take hours where a step were taken back and forth for each character.
@pytest.mark.parametrize("words", [
    "try again in " + "1" * 10**6,
    "try again in " + "1" * 10**6 + "." + "1" * 10**6,
    "try again in " + " " * 10**6,
    "try again in " + "1 " * 10**6,
    "try again in " + "1s " * 10**5 + "?",
    "try again in " + "1msecond" * 10**5 + "?",
    "try again in " * 10**5,
])  # fmt: skip
def test_the_words_of_a_rate_limit_are_read_in_one_go(words: str) -> None:
    delay = parse_retry_message(words)
    assert delay is None or delay >= 0


@pytest.mark.parametrize("date", [
    "Mon, " + "1" * 10**6, "1-" * 10**6, "a " * 10**6, ":" * 10**6, "(" * 10**5, "1e999",
    "Mon, 06 Nov 1994 " + "1:" * 10**6, "Mon, 06 Nov 1994 08:49:37 +" + "9" * 10**6,
    "\u0661" * 10**5, "9" * 10**5,
])  # fmt: skip
def test_the_date_of_a_retry_is_read_in_one_go(date: str) -> None:
    delay = parse_retry_after({"retry-after": date})
    assert delay is None or delay >= 0


# --- The frame reader ---------------------------------------------------------------------


def bytes_looked_at(stream: bytes, step: int) -> int:
    """Count what a frame reader goes through where a stream comes in pieces."""
    reader = FrameReader(2**40)
    looked_at = 0
    for start in range(0, len(stream), step):
        piece = stream[start : start + step]
        looked_at += len(reader._rest) + len(piece)
        reader.feed(piece)
    assert reader.error is None
    return looked_at


@pytest.mark.parametrize("step", [1, 3, 1000, 5000])
@pytest.mark.parametrize(
    ("first", "size"),
    [(0x81, 0), (0x81, 3), (0x81, 600), (0x81, 50_000), (0x89, 125), (0x82, 5000)],
)
def test_a_stream_in_crumbs_is_not_read_again_and_again(first: int, size: int, step: int) -> None:
    one = websocket_frame(first, b"x" * size)
    count = max(1, 20_000 // len(one))
    looked_at, more = (bytes_looked_at(one * count * times, step) for times in (1, MORE))
    assert more <= MORE * MARGIN * looked_at
    # A frame that waits, which is a small one, is looked at again for each piece of it.
    assert looked_at <= len(one) * count * (1 + min(len(one), 4096 + 14) / step)


@pytest.mark.parametrize("size", [10**5, 10**7])
def test_a_message_above_the_limit_takes_no_memory(size: int) -> None:
    limit = 50_000
    reader = FrameReader(limit)
    piece = b"x" * 10_000
    head = websocket_frame(0x81, b"")[:1] + b"\x7f" + size.to_bytes(8, "big")
    tracemalloc.start()
    try:
        messages = reader.feed(head)[0]
        for _ in range(size // len(piece)):
            messages += reader.feed(piece)[0]
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert messages == [OversizeMessage(size, piece[:1024], piece[:1024])]
    assert peak < limit + 3 * len(piece)


@pytest.mark.parametrize("raw", [
    b"[" * NESTING, b'{"a":' * NESTING, b'{"type":"error","error":' + b"[" * NESTING,
    b'{"type":"response.completed","response":' + b"[" * NESTING + b"]" * NESTING + b"}",
])  # fmt: skip
def test_deep_nesting_takes_no_memory(raw: bytes) -> None:
    """Neither stack nor heap: what cannot be read is kept as the bytes that are there already."""
    decode(raw)
    tracemalloc.start()
    try:
        event = decode(raw)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert isinstance(event, UndecodableFrame)
    assert event.raw is raw
    assert peak < len(raw) + 20_000  # one copy, to look for half surrogate pairs
