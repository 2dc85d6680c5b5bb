"""The cost of hostile frames grows linearly with their size, in work and memory (promise P10).

The tests count work and measure no time: bytes that a JSON parser parses, calls of functions, and
bytes that the frame reader scans. An input of four times the size may cause four times the work,
and a small margin.
"""

from __future__ import annotations

import sys
import tracemalloc
from typing import TYPE_CHECKING, Any, Final
from unittest import mock

import pytest

from tests.fuzz.inputs import NESTING, websocket_frame
from trio_responses._protocol.frames import FrameReader, OversizeMessage
from trio_responses._wire import UndecodableFrame, codec, decode, decode_item, lenient, response
from trio_responses._wire.nesting import MAX_SKIPPED_LEVELS
from trio_responses._wire.retry_hints import parse_retry_after, parse_retry_message

if TYPE_CHECKING:
    from collections.abc import Callable

SMALL: Final = 600
FACTOR: Final = 4
MARGIN: Final = 1.1
PARSES: Final = 40
"""Maximum number of times that a byte is parsed: each declared level parses it a few times."""


class Meter:
    """A decoder that counts the bytes it decodes."""

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
        mock.patch.object(response, "_decoder", Meter(response._decoder, counted)),
        mock.patch.object(lenient, "_decoder_of", metered),
        mock.patch.object(lenient, "_object_decoder", Meter(lenient._object_decoder, counted)),
        mock.patch.object(lenient, "_array_decoder", Meter(lenient._array_decoder, counted)),
        mock.patch.object(lenient, "_tag_decoder", Meter(lenient._tag_decoder, counted)),
    ):
        work(frame)
    return sum(counted)


def calls(work: Callable[[bytes], object], frame: bytes) -> int:
    """Return the number of calls of Python and C functions for a frame."""
    count = 0

    def profile(_frame: object, event: str, _argument: object) -> None:
        nonlocal count
        count += event in {"call", "c_call"}

    work(frame)  # fills the caches, whose cost is not that of the frame
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
    "lone surrogates": lambda n: b'{"type":"x","a":"' + rb"\ud83d" * n + b'"}',
    "surrogate pairs": lambda n: b'{"type":"x","a":"' + rb"\ud83d\ude00" * n + rb'\ud83d"}',
    "backslashes": lambda n: b'{"type":"x","a":"' + b"\\\\" * n + rb'\ud83d"}',
    "errors": lambda n: b'{"type":"error","error":{"message":[' + b"1," * n + b"1]}}",
    "headers": lambda n: b'{"type":"error","headers":{' + b'"a":5,' * n + b'"a":6}}',
    "unknown items": lambda n: (
        b'{"type":"response.completed","response":{"id":"r","output":['
        + b"[],{}," * n
        + b"1e999]}}"
    ),
    "mistyped settings": lambda n: (
        b'{"type":"response.completed","response":{"id":5,"status":[' + b"0," * n + b"1e999]}}"
    ),
    "unknown annotations": lambda n: (
        b'{"type":"response.content_part.added","part":{"type":"output_text","text":"x","annotations":['
        + b'{"type":"url_citation","url":5},' * n
        + b'{"type":"?"}]}}'
    ),
    "mistyped log probabilities": lambda n: (
        b'{"type":"response.output_text.delta","item_id":"i","delta":"x","logprobs":['
        + b'{"token":5,"top_logprobs":[{"token":5}]},' * n
        + b"{}]}"
    ),
    "truncated": lambda n: b'{"type":"response.created","response":{"id":"' + b"x" * n,
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_byte_of_a_frame_is_parsed_a_bounded_number_of_times(kind: str) -> None:
    once, more = HOSTILE[kind](SMALL), HOSTILE[kind](FACTOR * SMALL)
    parsed, parsed_more = bytes_parsed(decode, once), bytes_parsed(decode, more)
    assert 0 < parsed <= PARSES * len(once)
    assert parsed_more * len(once) <= parsed * len(more) * MARGIN


@pytest.mark.parametrize("kind", HOSTILE)
def test_the_number_of_calls_for_a_frame_grows_linearly_with_its_size(kind: str) -> None:
    small, large = (calls(decode, HOSTILE[kind](n)) for n in (SMALL, FACTOR * SMALL))
    # The brackets of a large frame are looked for one by one, up to the limit of levels.
    assert large <= FACTOR * MARGIN * small + MAX_SKIPPED_LEVELS


def message_with_unknown_parts(count: int) -> bytes:
    part = (
        b'{"type":"output_text","text":"x","annotations":[{"type":"url_citation"}],"logprobs":[5]},'
    )
    return b'{"type":"message","role":"assistant","content":[' + part * count + b"5]}"


def test_a_byte_of_an_item_is_parsed_a_bounded_number_of_times() -> None:
    once, more = message_with_unknown_parts(SMALL), message_with_unknown_parts(FACTOR * SMALL)
    parsed = bytes_parsed(decode_item, once)
    assert 0 < parsed <= PARSES * len(once)
    assert bytes_parsed(decode_item, more) * len(once) <= parsed * len(more) * MARGIN
    assert calls(decode_item, more) <= FACTOR * MARGIN * calls(decode_item, once)


# A regular expression parses the messages of rate limits, and its steps cannot be counted. With
# backtracking for each character these messages would take hours.
@pytest.mark.parametrize("message", [
    "try again in " + "1" * 10**6,
    "try again in " + "1" * 10**6 + "." + "1" * 10**6,
    "try again in " + " " * 10**6,
    "try again in " + "1 " * 10**6,
    "try again in " + "1s " * 10**5 + "?",
    "try again in " + "1msecond" * 10**5 + "?",
    "try again in " * 10**5,
])  # fmt: skip
def test_the_message_of_a_rate_limit_is_parsed_without_backtracking(message: str) -> None:
    delay = parse_retry_message(message)
    assert delay is None or delay >= 0


@pytest.mark.parametrize("date", [
    "Mon, " + "1" * 10**6, "1-" * 10**6, "a " * 10**6, ":" * 10**6, "(" * 10**5, "1e999",
    "Mon, 06 Nov 1994 " + "1:" * 10**6, "Mon, 06 Nov 1994 08:49:37 +" + "9" * 10**6,
    "\u0661" * 10**5, "9" * 10**5,
])  # fmt: skip
def test_the_date_of_a_retry_is_parsed_in_linear_time(date: str) -> None:
    delay = parse_retry_after({"retry-after": date})
    assert delay is None or delay >= 0


# --- The frame reader ---------------------------------------------------------------------


def bytes_scanned(stream: bytes, step: int) -> int:
    """Return the number of bytes that a frame reader scans for a stream in pieces.

    The private buffer is the part of the stream that the reader scans again with the next piece.
    """
    reader = FrameReader(2**40)
    scanned = 0
    for start in range(0, len(stream), step):
        piece = stream[start : start + step]
        scanned += len(reader._rest) + len(piece)
        reader.feed(piece)
        while reader.backlog:
            reader.feed(b"")
    assert reader.error is None
    return scanned


@pytest.mark.parametrize("step", [1, 3, 1000, 5000])
@pytest.mark.parametrize(
    ("first", "size"),
    [(0x81, 0), (0x81, 3), (0x81, 600), (0x81, 50_000), (0x89, 125), (0x82, 5000)],
)
def test_a_stream_in_small_pieces_is_scanned_in_linear_time(
    first: int, size: int, step: int
) -> None:
    one = websocket_frame(first, b"x" * size)
    count = max(1, 20_000 // len(one))
    scanned, more = (bytes_scanned(one * count * times, step) for times in (1, FACTOR))
    assert more <= FACTOR * MARGIN * scanned
    # A small incomplete frame is scanned again with each of its pieces.
    assert scanned <= len(one) * count * (1 + min(len(one), 4096 + 14) / step)


@pytest.mark.parametrize("size", [10**5, 10**7])
def test_a_message_above_the_limit_uses_no_memory_for_its_payload(size: int) -> None:
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
def test_deep_nesting_uses_no_additional_memory(raw: bytes) -> None:
    """The event of an undecodable frame refers to the bytes of the frame, without a copy."""
    decode(raw)
    tracemalloc.start()
    try:
        event = decode(raw)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert isinstance(event, UndecodableFrame)
    assert event.raw is raw
    assert peak < len(raw) + 20_000
