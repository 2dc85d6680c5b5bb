"""The parser of server-sent events, by examples and compared with httpx-sse.

The two differ on purpose where `EventReader` has rules of its own: a byte order mark, ``[DONE]``,
events above the limit, and the name of an event as the type of its data.
"""

from __future__ import annotations

import tracemalloc
from itertools import pairwise
from typing import TYPE_CHECKING
from unittest import mock

import msgspec
import pytest
from httpx_sse._decoders import SSEDecoder, SSELineDecoder
from hypothesis import event, given
from hypothesis import strategies as st

from trio_responses._protocol import sse
from trio_responses._protocol.frames import OversizeMessage
from trio_responses._protocol.sse import EventReader

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

MIB = 1024 * 1024
NO_LIMIT = 64 * MIB
CREATED = b'{"type":"response.created","n":1}'
DELTA = b'{"type":"response.output_text.delta","delta":"hello"}'


def read(body: bytes, *, limit: int = NO_LIMIT, piece: int = 0) -> list[bytes | OversizeMessage]:
    """Return the messages of a body, fed in pieces of a size; of all sizes, which must agree.

    :param piece: the size of a piece; 0 for every size from 1 to the whole body.
    """
    sizes = [piece] if piece else range(1, len(body) + 1)
    found = [
        read_pieces([body[i : i + size] for i in range(0, len(body), size)], limit=limit)
        for size in sizes
    ]
    assert all(messages == found[0] for messages in found)
    return found[0]


def read_pieces(pieces: Iterable[bytes], *, limit: int = NO_LIMIT) -> list[bytes | OversizeMessage]:
    reader = EventReader(limit)
    return [message for piece in pieces for message in reader.feed(piece)]


def decoded(body: bytes) -> object:
    """Return the JSON of the one message of a body."""
    [message] = read(body)
    assert isinstance(message, bytes)
    return msgspec.json.decode(message)


# --- The format --------------------------------------------------------------------------


def test_the_data_of_an_event_is_a_message() -> None:
    assert read(b"event: response.created\ndata: %b\n\n" % CREATED) == [CREATED]


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_a_line_ends_with_lf_crlf_or_cr(end: bytes) -> None:
    body = b"event: response.created\ndata: %b\n\ndata:%b\n\n" % (CREATED, DELTA)
    assert read(body.replace(b"\n", end)) == [CREATED, DELTA]


def test_the_line_ends_of_one_body_may_differ() -> None:
    assert read(b"data: 1\r\n\ndata: 2\r\rdata: 3\n\r\ndata: 4\r\n\r\n") == [b"1", b"2", b"3", b"4"]


def test_an_lf_after_a_cr_at_the_end_of_a_piece_belongs_to_its_line() -> None:
    assert read_pieces([b"data: 1\r", b"\ndata: 2\n\r", b"\n"]) == [b"1\n2"]


def test_an_empty_piece_changes_nothing() -> None:
    assert read_pieces([b"", b"data: 1\r", b"", b"\n", b"", b"\n"]) == [b"1"]


def test_an_event_is_complete_with_the_cr_of_its_empty_line() -> None:
    """The LF that may follow would be late for an event that a reader waits for."""
    reader = EventReader(NO_LIMIT)
    assert reader.feed(b"data: 1\r\n\r") == [b"1"]
    assert reader.feed(b"\ndata: 2\r\n\r") == [b"2"]


def test_a_byte_order_mark_at_the_beginning_is_ignored() -> None:
    assert read(b"\xef\xbb\xbfdata: 1\n\n") == [b"1"]
    assert read(b"data: \xef\xbb\xbf1\n\n") == [b"\xef\xbb\xbf1"]
    assert read(b"\n\n\xef\xbb\xbfdata: 1\n\n") == []
    assert read(b"\xef\xbb\xbf\xef\xbb\xbfdata: 1\n\n") == []


def test_the_beginning_of_a_byte_order_mark_is_a_line_like_any_other() -> None:
    assert read(b"\xef\xbbdata: 1\ndata: 2\n\n") == [b"2"]


def test_comments_are_no_messages() -> None:
    assert read(b": ping\n\n: \n:\ndata: 1\n: in between\ndata: 2\n\n:\n\n") == [b"1\n2"]


def test_lines_of_data_are_joined_with_lf() -> None:
    assert read(b'data: {"type":\ndata:"a"\ndata: }\n\n') == [b'{"type":\n"a"\n}']
    assert read(b"data\ndata:\ndata: x\n\n") == [b"\n\nx"]


def test_one_space_after_the_colon_is_no_data() -> None:
    assert read(b"data:  a \n\ndata:a\n\n") == [b" a ", b"a"]


def test_an_event_without_data_is_no_message() -> None:
    assert read(b"event: ping\n\nid: 3\nretry: 10\n\ndata\n\ndata:\n\n\n\ndata: 1\n\n") == [b"1"]


def test_an_event_without_an_empty_line_is_no_message() -> None:
    assert read(b"data: 1\n\ndata: 2\n") == [b"1"]
    assert read(b"data: 1\n\ndata: 2") == [b"1"]


def test_other_fields_and_lines_are_ignored() -> None:
    assert read(b" data: 0\nDATA: 1\ndata : 2\ndatax: 3\nx\ndata: 4\n\n") == [b"4"]


@pytest.mark.parametrize("done", [b"[DONE]", b" [DONE] "])
def test_done_is_no_message(done: bytes) -> None:
    assert read(b"data: %b\n\ndata:%b\n\n" % (CREATED, done)) == [CREATED]
    assert read(b"event: done\ndata: [DONE]\n\n") == []


def test_the_event_before_is_not_mixed_with_the_next() -> None:
    body = b"event: a\ndata: 1\n\ndata: {}\n\nevent: b\n\ndata: {}\n\n"
    assert read(body) == [b"1", b"{}", b"{}"]


# --- The name of an event ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ("{}", {"type": "a.b"}),
        ("{ }", {"type": "a.b"}),
        ('{"n":1}', {"type": "a.b", "n": 1}),
        ('{ "n" : 1 }', {"type": "a.b", "n": 1}),
        ('{"item":{"type":"message"}}', {"type": "a.b", "item": {"type": "message"}}),
        ('{"text":"{\\"type\\":1}"}', {"type": "a.b", "text": '{"type":1}'}),
        ('{"n":1,"type":"own"}', {"type": "own", "n": 1}),
        ('{"n":1, "type" : "own"}', {"type": "own", "n": 1}),
        ('{"type":"own"}', {"type": "own"}),
        ('{"type":null}', {"type": None}),
        ("[1]", [1]),
        ("1", 1),
    ],
)
def test_the_name_is_the_type_of_data_without_one(data: str, expected: object) -> None:
    assert decoded(f"event: a.b\ndata: {data}\n\n".encode()) == expected
    assert decoded(f"data: {data}\nevent: a.b\n\n".encode()) == expected


def test_data_that_is_no_json_stays_unchanged() -> None:
    assert read(b'event: a\ndata: {"cut":\n\n') == [b'{"cut":']


def test_a_name_is_written_as_json() -> None:
    body = 'event: a"b\\c\td\u00e4\ndata: {}\n\n'
    assert decoded(body.encode()) == {"type": 'a"b\\c\td\u00e4'}
    assert decoded(b"event: \xff\ndata: {}\n\n") == {"type": "\N{REPLACEMENT CHARACTER}"}


def test_an_empty_or_endless_name_is_no_type() -> None:
    assert read(b"event:\ndata: {}\n\n") == [b"{}"]
    assert read(b"event: %b\ndata: {}\n\n" % (b"x" * sse.MAX_NAME)) == [b"{}"]


# --- Where a body is cut -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("begun", "is_between"),
    [
        (b"", True),
        (b"data: 1\n\n", True),
        (b"data: 1\r\n\r", True),
        (b": ping\n", True),
        (b"d", False),
        (b"data: 1\n", False),
        (b"data\n", False),
        (b"event: a\n", False),
        (b"data: %b" % (b"x" * 1000), False),
        (b"data: 1\n\ndata: 2\n", False),
    ],
)
def test_a_reader_knows_whether_it_is_in_an_event(begun: bytes, *, is_between: bool) -> None:
    reader = EventReader(500)
    reader.feed(begun)
    assert reader.is_between_events == is_between


# --- Events above the limit --------------------------------------------------------------


def oversize(data: bytes) -> OversizeMessage:
    """Return the message that replaces an event with such data."""
    return OversizeMessage(len(data), data[: sse.KEPT], data[-sse.KEPT :])


def numbered(size: int) -> bytes:
    return b"".join(b"%08d" % number for number in range(size // 8 + 1))[:size]


@pytest.mark.parametrize("size", [21, 22, 1023, 1024, 1025, 2047, 2048, 2049, 5000])
def test_an_event_above_the_limit_is_replaced(size: int) -> None:
    data = numbered(size)
    body = b"data: 1\n\nevent: a\ndata: %b\nid: 2\n\ndata: 3\n\n" % data
    for piece in (1, 7, 100, len(body)):
        assert read(body, limit=20, piece=piece) == [b"1", oversize(data), b"3"]


@pytest.mark.parametrize("size", [19, 20])
def test_an_event_of_the_limit_is_a_message(size: int) -> None:
    data = numbered(size)
    body = b'data: {"type":1}\n\ndata: %b\n\ndata:%b\n\n' % (data, data)
    assert read(body, limit=20) == [b'{"type":1}', data, data]


@pytest.mark.parametrize("size", [300, 5000])
def test_a_long_event_of_the_limit_is_a_message(size: int) -> None:
    data = numbered(size)
    for space in (b"", b" "):
        body = b"data:%b%b\n\n" % (space, data)
        for piece in (1, 250, 300, len(body)):
            assert read(body, limit=size, piece=piece) == [data]
            assert read(body, limit=size - 1, piece=piece) == [oversize(data)]


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_lines_together_may_be_above_the_limit(end: bytes) -> None:
    lines = [numbered(9), numbered(10), b"", numbered(300), b"x", numbered(2000), b"end"]
    body = b"".join(b"data: %b\n" % line for line in lines) + b": comment\n\ndata: 2\n\n"
    body = body.replace(b"\n", end)
    expected = [oversize(b"\n".join(lines)), b"2"]
    for piece in (1, 11, 1000, len(body)):
        assert read(body, limit=20, piece=piece) == expected


def test_the_line_feeds_between_lines_count() -> None:
    body = b"data: 12345\ndata: 67890\n\n"
    assert read(body, limit=11) == [b"12345\n67890"]
    assert read(body, limit=10) == [oversize(b"12345\n67890")]


def test_done_above_the_limit_is_oversize() -> None:
    assert read(b"data: [DONE]\n\n", limit=5) == [oversize(b"[DONE]")]


def test_a_small_event_of_the_common_form_is_checked_as_well() -> None:
    body = b'event: a\ndata: {"type":"a"}\n\n' * 3
    assert read(body, limit=11) == [oversize(b'{"type":"a"}')] * 3
    assert read(body, limit=12) == [b'{"type":"a"}'] * 3


@pytest.mark.parametrize("beginning", [b": ", b"event: ", b"id: ", b"x", b"data: ", b"data"])
def test_a_line_without_an_end_needs_no_memory(beginning: bytes) -> None:
    reader = EventReader(1000)
    piece = b"x" * 10_000
    reader.feed(beginning)
    tracemalloc.start()
    for _ in range(1000):
        assert reader.feed(piece) == []
    held, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 10_000
    assert peak < 100_000
    data = b"data" in beginning and b":" in beginning
    assert reader.feed(b"\n\n") == ([mock.ANY] if data else [])
    assert reader.feed(b"data: 1\n\n") == [b"1"]


def test_lines_without_an_end_of_their_event_need_no_memory() -> None:
    reader = EventReader(1000)
    piece = b"data: 12345\nevent: x\n: comment\n" * 50
    tracemalloc.start()
    for _ in range(100):
        assert reader.feed(piece) == []
    held, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 20_000
    assert peak < 200_000


# --- Work --------------------------------------------------------------------------------


class CountedSplits:
    """A pattern that adds up how many bytes it splits."""

    def __init__(self, pattern: object) -> None:
        self._pattern = pattern
        self.bytes = 0

    def split(self, data: bytes) -> object:
        self.bytes += len(data)
        return self._pattern.split(data)  # type: ignore[attr-defined]


@pytest.mark.parametrize("limit", [50, 200, 20_000])
@pytest.mark.parametrize(
    "data", [DELTA, b'{"n":1,"type":"x"}', b"1", b'{"type":"%b"}' % (b"x" * 300)]
)
def test_the_work_is_linear_for_every_limit(data: bytes, limit: int) -> None:
    """A read may hold many more events than the limit has bytes."""
    body = b"event: response.output_text.delta\ndata: %b\n\n" % data * 1000
    counted = CountedSplits(sse.COMMON)
    with mock.patch.object(sse, "COMMON", counted):
        assert len(read(body, limit=limit, piece=len(body))) == 1000
    assert counted.bytes <= len(body)


# --- Compared with httpx-sse -------------------------------------------------------------

LINE_ENDS = [b"\n", b"\r\n", b"\r"]
TOKENS = [
    b"data: ",
    b"data:",
    b"data",
    b'{"type":"a"}',
    b'{"n":1}',
    b"x" * 9,
    b"y" * 300,
    *LINE_ENDS,
    b"\n\n",
    b"event: foo",
    b": ping",
    b"id: 3",
    b"retry: 1",
    b"\xef\xbb\xbf",
    b"\xc3\xa4",
    b"[DONE]",
    b'data: {"type":"response.x","d":1}\n\n',
    b'event: a\ndata: {"type":"response.x"}\n\n',
    b" ",
    b"\x0b\x0c\x1c\xe2\x80\xa8",
]
bodies = st.lists(st.sampled_from(TOKENS), max_size=30).map(b"".join)


def expected_messages(body: bytes, limit: int) -> list[bytes | OversizeMessage]:
    """Return what httpx-sse makes of a body, with the rules that are this parser's own."""
    text = body.removeprefix(b"\xef\xbb\xbf").decode()
    lines = SSELineDecoder()
    found = [*(lines.decode(text) if text else []), *lines.flush()]
    if not text.endswith(("\n", "\r")):
        del found[-1:]
    decoder = SSEDecoder()
    messages: list[bytes | OversizeMessage] = []
    for line in found:
        one = decoder.decode(line)
        if one is None or not one.data:
            continue
        data = one.data.encode()
        if len(data) > limit:
            messages.append(oversize(data))
        elif data.strip() == b"[DONE]":
            pass
        elif data == b'{"n":1}' and one.event == "foo":
            messages.append(b'{"type":"foo","n":1}')
        else:
            messages.append(data)
    return messages


def cut(body: bytes, cuts: Sequence[int]) -> list[bytes]:
    ends = [0, *sorted(place % (len(body) + 1) for place in cuts), len(body)]
    return [body[start:end] for start, end in pairwise(ends)]


@given(
    body=bodies,
    cuts=st.lists(st.integers(0, 10_000), max_size=8),
    limit=st.sampled_from([1, 10, 20, 310, 500, 10**6]),
)
def test_messages_are_those_of_httpx_sse(body: bytes, cuts: Sequence[int], limit: int) -> None:
    messages = read_pieces(cut(body, cuts), limit=limit)
    event(f"messages: {min(len(messages), 3)}")
    expected = expected_messages(body, limit)
    assert [show(one) for one in messages] == [show(one) for one in expected]


def show(message: bytes | OversizeMessage) -> object:
    if isinstance(message, OversizeMessage):
        return ("oversize", message.size, message.head, message.tail)
    return message


@given(body=st.binary(max_size=300), cuts=st.lists(st.integers(0, 1000), max_size=8))
def test_any_bytes_in_any_pieces_are_the_same_messages(body: bytes, cuts: Sequence[int]) -> None:
    reader, whole = EventReader(40), EventReader(40)
    messages = [show(one) for piece in cut(body, cuts) for one in reader.feed(piece)]
    assert messages == [show(one) for one in whole.feed(body)]
    assert reader.is_between_events == whole.is_between_events
