"""The frame reader compared with wsproto: the same messages, control frames and violations.

The two differ on purpose in sizes and in how early they find a violation: see `settle` and the
tests of oversize messages.
"""

# Memory and state of the parser are not visible from outside, so some tests read its fields:
# pyright: reportPrivateUsage=false

from __future__ import annotations

import struct
import sys
import tracemalloc
from codecs import utf_8_decode
from dataclasses import FrozenInstanceError, dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, TypeAlias
from unittest import mock

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st
from wsproto.frame_protocol import FrameProtocol, Opcode, ParseFailed

from trio_responses._protocol import frames
from trio_responses._protocol.frames import (
    MESSAGES_PER_FEED,
    OTHER_FRAMES_PER_FEED,
    BinaryMessage,
    FrameError,
    FrameReader,
    OversizeMessage,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from trio_responses._protocol.frames import Message

Kind: TypeAlias = "type[bytes | bytearray | memoryview[int]]"
KINDS: tuple[Kind, ...] = (bytes, bytearray, memoryview)

FIN, CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x80, 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
NO_LIMIT = 2**63
HELD_FOR_A_HEADER = 2 + 125  # an incomplete control frame is held; a header is shorter
BOTH_ENDS = 2 * 1024


def frame(first: int, payload: bytes = b"", *, form: int | None = None) -> bytes:
    """Return one frame, with its length in the shortest form or in a given one."""
    return header(first, len(payload), form=form) + payload


def header(first: int, length: int, *, form: int | None = None) -> bytes:
    if form is None:
        form = length if length < 126 else 126 if length < 65536 else 127
    extended = {126: "!H", 127: "!Q"}
    return bytes([first, form]) + (struct.pack(extended[form], length) if form in extended else b"")


@dataclass
class Result:
    """The result of reading a stream of bytes."""

    messages: list[Message] = field(default_factory=list["Message"])
    control: list[tuple[Opcode, object]] = field(default_factory=list[tuple[Opcode, object]])
    refused: int | None = None


class Oracle:
    """The client side of wsproto, with frames joined to messages."""

    def __init__(self) -> None:
        self.reading = Result()
        self._protocol = FrameProtocol(client=True, extensions=[])
        self._message = b""

    def feed(self, data: bytes) -> None:
        self._protocol.receive_bytes(data)
        try:
            for part in self._protocol.received_frames():
                self._take(part.opcode, part.payload, finished=part.message_finished)
        except ParseFailed as refusal:
            self.reading.refused = int(refusal.code)

    def _take(self, opcode: Opcode, payload: object, *, finished: bool) -> None:
        if opcode.iscontrol():
            self.reading.control.append((opcode, payload))
            return
        self._message += payload.encode() if isinstance(payload, str) else _as_bytes(payload)
        if finished:
            whole, self._message = self._message, b""
            message = whole if opcode is Opcode.TEXT else BinaryMessage(whole)
            self.reading.messages.append(message)


def _as_bytes(payload: object) -> bytes:
    assert isinstance(payload, (bytes, bytearray))
    return bytes(payload)


class Ours:
    """The frame reader, with wsproto for the control frames, as in the transport."""

    def __init__(self, limit: int = NO_LIMIT) -> None:
        self.reader = FrameReader(limit)
        self.messages: list[Message] = []
        self.raw_control = b""
        self._limit = limit

    def feed(self, data: bytes, kind: Kind = bytes) -> None:
        memory = bytearray(data)
        messages, control = self.reader.feed(data if kind is bytes else kind(memory))
        memory.clear()  # raises BufferError if a view of it is held
        self.messages += messages
        self.raw_control += control
        while self.reader.backlog:
            messages, control = self.reader.feed(b"")
            self.messages += messages
            self.raw_control += control
        discarding = BOTH_ENDS + min(self._limit, 4096)  # and a small incomplete frame
        assert self.reader.buffered <= max(self._limit, discarding) + HELD_FOR_A_HEADER

    @property
    def reading(self) -> Result:
        oracle = Oracle()
        oracle.feed(self.raw_control)
        assert oracle.reading.messages == []
        refused = self.reader.error.code if self.reader.error else oracle.reading.refused
        return Result(self.messages, oracle.reading.control, refused)


def read(pieces: Iterable[bytes], limit: int = NO_LIMIT) -> Ours:
    ours = Ours(limit)
    for number, piece in enumerate(pieces):
        ours.feed(piece, KINDS[number % 3])
    return ours


def feed_all(reader: FrameReader, data: bytes) -> list[Message]:
    """Feed bytes, and read on until no whole frame is left."""
    messages = reader.feed(data)[0]
    while reader.backlog:
        messages += reader.feed(b"")[0]
    return messages


def read_by_wsproto(stream: bytes) -> Result:
    oracle = Oracle()
    oracle.feed(stream)
    return oracle.reading


def settle(ours: Ours, oracle: Oracle) -> str:
    """Send bytes until both readers have found the violation that one of them has found.

    The bytes of a stream may end after the violation of one reader and before that of the other:

    - We refuse reserved bits, a mask or a frame out of order by the first two bytes. wsproto needs
      the whole length, and for a frame out of order one byte of its payload.
    - wsproto refuses UTF-8 in the middle of a frame, we at its end. If the end is too far away,
      the frame is still open.
    """
    if ours.reading.refused is not None and oracle.reading.refused is None:
        assert ours.reading.refused == 1002
        oracle.feed(bytes(8 + 1))
        return "we refused earlier"
    if oracle.reading.refused == 1007 and ours.reading.refused is None:
        if ours.reader._missing > 2**40:
            oracle.reading.refused = None
            return "an endless frame"
        for _ in range(14):
            ours.feed(bytes(10_000))
        return "wsproto refused earlier"
    return "at the same byte"


# Valid frames.

SIZES = [0, 1, 2, 125, 126, 127, 128, 4095, 4096, 4097, 65535, 65536, 65540]
LIMITS = [0, 1, 126, 200, 1023, 1024, 2048, 5000, 65535, 65536]


@dataclass(frozen=True)
class Sent:
    """One message or control frame of the server, and the frames in which it is sent."""

    message: Message | None
    control: bytes
    frames: tuple[bytes, ...]


@st.composite
def texts(draw: st.DrawFn, sizes: st.SearchStrategy[int]) -> bytes:
    size = draw(sizes)
    unit = draw(st.sampled_from(["a", "é", "世", "🎈", "a🎈é世\0"])).encode()
    return (b"-" * (size % len(unit))) + unit * (size // len(unit))


@st.composite
def control_frames(draw: st.DrawFn) -> bytes:
    payload = draw(st.binary(max_size=8) | st.sampled_from([b"\x81" * 124, b"\x81\0" * 62 + b"\0"]))
    return frame(FIN | draw(st.sampled_from([PING, PONG])), payload)


@st.composite
def sent_messages(draw: st.DrawFn, sizes: st.SearchStrategy[int]) -> Sent:
    text = draw(st.booleans())
    payload = (
        draw(texts(sizes)) if text else draw(st.sampled_from([b"\xff", b"\x81"])) * draw(sizes)
    )
    cuts = draw(st.lists(st.integers(0, 70_000), max_size=3))
    edges = [0, *sorted(cut % (len(payload) + 1) for cut in cuts), len(payload)]
    fragments = [payload[start:end] for start, end in pairwise(edges)]
    written: list[bytes] = []
    control = b""
    for number, fragment in enumerate(fragments):
        opcode = CONTINUATION if number else (TEXT if text else BINARY)
        fin = FIN if number == len(fragments) - 1 else 0
        if number and draw(st.booleans()):
            written.append(draw(control_frames()))
            control += written[-1]
        written.append(frame(fin | opcode, fragment))
    return Sent(payload if text else BinaryMessage(payload), control, tuple(written))


def conversations(sizes: st.SearchStrategy[int]) -> st.SearchStrategy[list[Sent]]:
    alone = control_frames().map(lambda control: Sent(None, control, (control,)))
    return st.lists(sent_messages(sizes) | alone, min_size=1, max_size=5)


@st.composite
def cut_up(draw: st.DrawFn, stream: bytes) -> list[bytes]:
    """Return the pieces of a stream: single bytes, equal pieces, or random ones."""
    if len(stream) < 600 and draw(st.booleans()):
        return [stream[at : at + 1] for at in range(len(stream))]
    if draw(st.booleans()):
        step = draw(st.sampled_from([7, 250, 4096, 16384, 65536]))
        step = max(step, len(stream) // 200)
        return [stream[at : at + step] for at in range(0, len(stream), step)]
    cuts = draw(st.lists(st.integers(0, 300_000), max_size=10))
    edges = [0, *sorted(cut % (len(stream) + 1) for cut in cuts), len(stream)]
    return [stream[start:end] for start, end in pairwise(edges)]


@pytest.fixture(params=[-1, 4096], ids=["collect", "wait"])
def max_reparsed(request: pytest.FixtureRequest) -> Iterator[int]:
    """Run a test twice: with small incomplete frames collected, and with them parsed again."""
    waits: int = request.param
    with mock.patch.object(frames, "_MAX_REPARSED", waits):
        yield waits


with_both_limits = pytest.mark.usefixtures("max_reparsed")


@with_both_limits
class TestComparedWithWsproto:
    @settings(deadline=None, max_examples=100)
    @given(st.data())
    def test_valid_frames_are_read_like_wsproto_reads_them(self, data: st.DataObject) -> None:
        sent = data.draw(conversations(st.sampled_from(SIZES) | st.integers(0, 300)))
        stream = b"".join(part for one in sent for part in one.frames)
        ours = read(data.draw(cut_up(stream)))
        assert ours.messages == [one.message for one in sent if one.message is not None]
        assert ours.raw_control == b"".join(one.control for one in sent)
        assert ours.reading == read_by_wsproto(stream)
        assert ours.reader.error is None
        assert not ours.reader.closed
        assert ours.reader.buffered == 0

    @settings(deadline=None, max_examples=100)
    @given(st.data())
    def test_corrupted_frames_are_refused_like_wsproto_refuses_them(
        self, data: st.DataObject
    ) -> None:
        sent = data.draw(conversations(st.sampled_from([0, 1, 126, 4097]) | st.integers(0, 40)))
        parts = [part for one in sent for part in one.frames]
        for _ in range(data.draw(st.integers(1, 3))):
            whole = [at for at, part in enumerate(parts) if len(part) >= 2]
            if whole:
                at = data.draw(st.sampled_from(whole))
                parts[at : at + 1] = data.draw(corrupted(parts[at]))
        stream = b"".join(parts)
        if data.draw(st.booleans()):
            stream = stream[: data.draw(st.integers(0, len(stream)))]
        event(compare_with_wsproto(stream, data.draw(cut_up(stream))))

    @settings(deadline=None, max_examples=100)
    @given(st.data())
    def test_random_bytes_are_refused_like_wsproto_refuses_them(self, data: st.DataObject) -> None:
        firsts = st.sampled_from(sorted(frames._BETWEEN_MESSAGES | frames._INSIDE_A_MESSAGE))
        seconds = st.integers(0, 6) | st.integers(0, 255)
        noise = st.tuples(
            (firsts | st.integers(0, 255)).map(lambda first: bytes([first])),
            seconds.map(lambda second: bytes([second])),
            st.binary(max_size=6),
        ).map(b"".join)
        stream = b"".join(data.draw(st.lists(noise, min_size=1, max_size=12)))
        event(compare_with_wsproto(stream, data.draw(cut_up(stream))))

    @pytest.mark.parametrize("begun", [b"", frame(TEXT, b"begun"), frame(BINARY, b"begun")])
    def test_every_first_byte_is_accepted_or_refused_as_by_wsproto(self, begun: bytes) -> None:
        for first in range(256):
            for second in (0, 1, 125, 126, 127, 0x80, 0xFF):
                stream = begun + bytes([first, second, 1, *bytes(150)])
                compare_with_wsproto(stream, [stream])
                compare_with_wsproto(stream[:20], [stream[at : at + 1] for at in range(20)])

    @pytest.mark.parametrize("length", [0, 1, 125, 126, 127, 65535, 65536, 2**63 - 1, 2**63])
    def test_every_form_of_a_length_is_accepted_or_refused_as_by_wsproto(self, length: int) -> None:
        for first in (FIN | TEXT, FIN | BINARY, TEXT):
            for form in (126, 127) if length < 65536 else (127,):
                stream = header(first, length, form=form) + b"x" * min(length, 70_000)
                stream += frame(FIN | CONTINUATION) if first == TEXT else b""
                compare_with_wsproto(stream, [stream])
                compare_with_wsproto(stream, [stream[:1], stream[1:3], stream[3:9], stream[9:]])


@st.composite
def corrupted(draw: st.DrawFn, good: bytes) -> list[bytes]:
    """Return a frame with one defect, or the frames that replace it."""
    bad = bytearray(good)
    match draw(
        st.sampled_from(["first", "mask", "length", "byte", "text", "cut", "order", "close"])
    ):
        case "first":  # reserved bits, opcodes, FIN
            bad[0] ^= 1 << draw(st.integers(0, 7))
        case "mask":
            bad[1] |= 0x80
        case "length":
            form = draw(st.integers(0, 127))
            length = draw(st.sampled_from([0, 1, 125, 126, 65535, 65536, 2**63 - 1, 2**64 - 1]))
            length = length % 65536 if form == 126 else length
            return [header(bad[0], length, form=form), good[2:]]
        case "byte":
            bad[draw(st.integers(0, len(bad) - 1))] ^= draw(st.integers(1, 255))
        case "text":
            wrong = [b"\xff", b"\xc3", b"\xe4\xb8", b"\xf0\x9f\x8e", b"\xed\xa0\x80", b"\xc0\x80"]
            payload = draw(st.sampled_from(["", "é🎈"])).encode() + draw(st.sampled_from(wrong))
            return [frame(draw(st.sampled_from([TEXT, FIN | TEXT, 0, FIN])), payload), good]
        case "cut":
            del bad[draw(st.integers(0, len(bad) - 1)) :]
        case "order":  # orphan continuations, messages inside messages
            return draw(
                st.sampled_from([[], [good, good], [frame(FIN), good], [frame(TEXT), good]])
            )
        case _:
            reasons = [
                b"",
                b"\x03",
                b"\x03\xe8",
                b"\x03\xe8ok",
                b"\x03\xe8\xff",
                b"\0\1",
                b"\x03\xed",
            ]
            return [frame(FIN | CLOSE, draw(st.sampled_from(reasons))), good]
    return [bytes(bad)]


def compare_with_wsproto(stream: bytes, pieces: list[bytes]) -> str:
    ours = read(pieces)
    oracle = Oracle()
    oracle.feed(stream)
    when = settle(ours, oracle)
    assert ours.reading == oracle.reading
    closed = any(opcode is Opcode.CLOSE for opcode, _ in oracle.reading.control)
    assert ours.reader.closed or not closed
    return f"refused: {ours.reading.refused}, {when}; closed: {closed}"


# Violations and their descriptions.

VIOLATIONS = {
    "reserved bit 1": (frame(0xC1, b"secret"), 1002, "reserved bits set without an extension"),
    "reserved bit 2": (frame(0xA1, b"secret"), 1002, "reserved bits set without an extension"),
    "reserved bit 3": (frame(0x91, b"secret"), 1002, "reserved bits set without an extension"),
    "reserved bit of a ping": (frame(0xC9), 1002, "reserved bits set without an extension"),
    "masked text": (b"\x81\x86keyssecret", 1002, "masked frame from a server"),
    "masked ping": (b"\x89\x80keys", 1002, "masked frame from a server"),
    **{
        f"opcode {opcode:#x}": (frame(FIN | opcode, b"secret"), 1002, f"unknown opcode {opcode:#x}")
        for opcode in (3, 4, 5, 6, 7, 0xB, 0xC, 0xD, 0xE, 0xF)
    },
    "orphan": (frame(FIN, b"secret"), 1002, "continuation without a message to continue"),
    "orphan fragment": (frame(0, b"secret"), 1002, "continuation without a message to continue"),
    "text in text": (frame(TEXT) + frame(FIN | TEXT), 1002, "new message inside a fragmented one"),
    "binary in text": (frame(TEXT) + frame(BINARY), 1002, "new message inside a fragmented one"),
    "fragmented ping": (frame(PING, b"secret"), 1002, "control frame without FIN"),
    "fragmented close": (frame(CLOSE, b"\x03\xe8"), 1002, "control frame without FIN"),
    "long ping": (frame(FIN | PING, bytes(126)), 1002, "control frame above 125 bytes"),
    "long close": (frame(FIN | CLOSE, bytes(65536)), 1002, "control frame above 125 bytes"),
    "16 bits for 125": (
        frame(FIN | TEXT, bytes(125), form=126),
        1002,
        "length out of range for its form",
    ),
    "64 bits for 6": (
        frame(FIN | TEXT, b"secret", form=127),
        1002,
        "length out of range for its form",
    ),
    "64 bits for 65535": (
        frame(FIN | TEXT, bytes(65535), form=127),
        1002,
        "length out of range for its form",
    ),
    "the highest bit": (header(FIN | TEXT, 2**63), 1002, "length out of range for its form"),
    "no UTF-8": (frame(FIN | TEXT, b"secret\xff"), 1007, "invalid UTF-8 in a text message"),
    "a surrogate": (frame(FIN | TEXT, b"\xed\xa0\x80"), 1007, "invalid UTF-8 in a text message"),
    "half a character": (frame(FIN | TEXT, b"secret\xc3"), 1007, "invalid UTF-8 in a text message"),
    "half a character in a large frame": (
        frame(FIN | TEXT, b"x" * 70_000 + b"\xc3"),
        1007,
        "invalid UTF-8 in a text message",
    ),
    "half a character in the last fragment": (
        frame(TEXT, b"secret\xf0\x9f") + frame(FIN, b"\x8e"),
        1007,
        "invalid UTF-8 in a text message",
    ),
    "no UTF-8 in a fragment that is not the last": (
        frame(TEXT, b"\xf0secret"),
        1007,
        "invalid UTF-8 in a text message",
    ),
}


@pytest.mark.parametrize(("bad", "code", "reason"), VIOLATIONS.values(), ids=VIOLATIONS)
@with_both_limits
@pytest.mark.parametrize("bytewise", [False, True])
def test_a_violation_is_reported_after_the_messages_before_it(
    bad: bytes, code: int, reason: str, *, bytewise: bool
) -> None:
    before = frame(FIN | TEXT, b"one") + frame(FIN | PING, b"?") + frame(FIN | BINARY, b"two")
    stream = before + bad + frame(FIN | TEXT, b"never") + frame(FIN | PING)
    step = 1 if bytewise else len(stream)
    ours = read([stream[at : at + step] for at in range(0, len(stream), step)])
    assert ours.messages == [b"one", BinaryMessage(b"two")]
    assert ours.raw_control == frame(FIN | PING, b"?")
    error = ours.reader.error
    assert error is not None
    assert (error.code, error.reason) == (code, reason)
    assert ours.reader.buffered == 0
    assert read_by_wsproto(stream).refused == code


def test_nothing_is_read_after_a_violation() -> None:
    reader = FrameReader(100)
    reader.feed(frame(TEXT, b"begun") + frame(0x83) + frame(FIN | TEXT, b"a"))
    first = reader.error
    assert reader.feed(frame(FIN | TEXT, b"b") + frame(FIN | PING) + frame(0x84)) == ([], b"")
    assert reader.error is first
    assert reader.buffered == 0


@pytest.mark.parametrize(
    "bad", [frame(FIN | TEXT, b"secret\xff"), frame(TEXT, b"secret\xff"), frame(0x83, b"secret")]
)
def test_a_frame_error_holds_no_payload(bad: bytes) -> None:
    """P9: neither by a traceback nor by the UnicodeDecodeError that caused it."""
    reader = FrameReader(100)
    reader.feed(bad)
    error = reader.error
    assert error is not None
    assert "secret" not in f"{error!r} {error} {error.args}"
    assert str(error) == f"{error.reason} ({error.code})"
    assert (error.__traceback__, error.__context__, error.__cause__) == (None, None, None)
    assert isinstance(error, FrameError)


@pytest.mark.parametrize("payload", [b"", b"\x03\xe8", b"\x03\xe8bye", b"\x03", b"\x00\x01"])
def test_a_close_frame_ends_reading(payload: bytes) -> None:
    close = frame(FIN | CLOSE, payload)
    ours = Ours()
    ours.feed(frame(FIN | TEXT, b"one") + frame(TEXT, b"begun") + frame(FIN | PING, b"?"))
    assert not ours.reader.closed
    ours.feed(close + frame(FIN | TEXT, b"late") + frame(FIN | PING) + frame(0x83))
    assert ours.reader.closed
    assert ours.messages == [b"one"]
    assert ours.raw_control == frame(FIN | PING, b"?") + close
    assert ours.reader.feed(frame(FIN | TEXT, b"later") + frame(0x83)) == ([], b"")
    assert ours.reader.error is None
    assert ours.reader.buffered == 0


# Cutting.

SHORT_STREAM = b"".join(
    [
        frame(FIN | TEXT, b"ab"),
        frame(FIN | TEXT),
        frame(FIN | PING, b"?"),
        frame(TEXT, "é🎈".encode()[:3]),
        frame(FIN | PONG),
        frame(CONTINUATION, b""),
        frame(FIN, "é🎈".encode()[3:] + b"!"),
        frame(FIN | BINARY, b"\xff" * 126),
        frame(BINARY, b"\xff" * 12),  # above the limit below, with the next
        frame(FIN | PING),
        frame(FIN, b"\xfe" * 120),
        frame(FIN | TEXT, "世".encode() * 2),
        frame(FIN | CLOSE, b"\x03\xe8"),
    ]
)
SHORT_MESSAGES = [
    b"ab",
    b"",
    "é🎈!".encode(),
    BinaryMessage(b"\xff" * 126),
    OversizeMessage(132, b"\xff" * 12 + b"\xfe" * 120, b"\xff" * 12 + b"\xfe" * 120),
    "世世".encode(),
]
SHORT_CONTROL = b"".join(
    [frame(FIN | PING, b"?"), frame(FIN | PONG), frame(FIN | PING), frame(FIN | CLOSE, b"\x03\xe8")]
)


@with_both_limits
def test_a_stream_may_be_cut_at_any_two_bytes() -> None:
    for first in range(len(SHORT_STREAM) + 1):
        for second in range(first, len(SHORT_STREAM) + 1, 2 + first % 3):
            pieces = SHORT_STREAM[:first], SHORT_STREAM[first:second], SHORT_STREAM[second:]
            ours = read(pieces, limit=126)
            assert ours.messages == SHORT_MESSAGES
            assert ours.raw_control == SHORT_CONTROL


@with_both_limits
@pytest.mark.parametrize("step", [1, 2, 3, 5, 7])
def test_a_stream_may_be_received_in_tiny_pieces(step: int) -> None:
    pieces = [SHORT_STREAM[at : at + step] for at in range(0, len(SHORT_STREAM), step)]
    ours = read(pieces, limit=126)
    assert ours.messages == SHORT_MESSAGES
    assert ours.raw_control == SHORT_CONTROL


@pytest.mark.parametrize("size", [0, 125, 126, 4096, 4097, 65535, 65536, 131_073])
@pytest.mark.parametrize("kind", KINDS)
def test_a_frame_of_any_size_may_be_cut_near_its_ends(size: int, kind: Kind) -> None:
    one = frame(FIN | TEXT, b"x" * size)
    stream = one + frame(FIN | TEXT, b"next")
    for cut in [*range(13), *range(len(one) - 4, len(one) + 7)]:
        ours = Ours()
        ours.feed(stream[:cut], kind)
        ours.feed(b"", kind)
        ours.feed(stream[cut:], kind)
        assert ours.messages == [b"x" * size, b"next"]


@pytest.mark.parametrize("character", ["é", "世", "🎈"])
def test_a_large_text_may_have_characters_at_any_position(character: str) -> None:
    """The check is done in steps; the end of a step is not the end of the text."""
    for shift in range(5):
        text = b"-" * shift + character.encode() * 70_000
        assert read([frame(FIN | TEXT, text)]).messages == [text]
        assert read([frame(TEXT, text[:-1]), frame(FIN, text[-1:])]).messages == [text]


def test_text_is_returned_as_immutable_bytes() -> None:
    for kind in KINDS:
        for stream in (frame(FIN | TEXT, b"x" * 9), frame(TEXT, b"x" * 9) + frame(FIN)):
            [message] = FrameReader(9).feed(kind(stream))[0]
            assert type(message) is bytes


# Sizes.


@with_both_limits
@settings(deadline=None, max_examples=100)
@given(st.data())
def test_only_messages_above_the_limit_are_replaced(data: st.DataObject) -> None:
    limit = data.draw(st.sampled_from(LIMITS))
    near = st.integers(max(0, limit - 2), limit + 2)
    sizes = near | st.sampled_from([2 * limit, limit + 1024, limit + 1025]) | st.integers(0, 3000)
    sent = data.draw(conversations(sizes))
    stream = b"".join(part for one in sent for part in one.frames)
    ours = read(data.draw(cut_up(stream)), limit)
    expected = [limited(one.message, limit) for one in sent if one.message is not None]
    assert ours.messages == expected
    assert ours.raw_control == b"".join(one.control for one in sent)
    assert ours.reading.refused is None
    wsproto = read_by_wsproto(stream)
    assert [limited(message, limit) for message in wsproto.messages] == expected


def limited(message: Message, limit: int) -> Message:
    assert not isinstance(message, OversizeMessage)
    payload = message.data if isinstance(message, BinaryMessage) else message
    if len(payload) <= limit:
        return message
    return OversizeMessage(len(payload), payload[:1024], payload[-1024:])


def test_a_discarded_message_is_not_checked_for_utf_8() -> None:
    ours = Ours(limit=10)
    ours.feed(frame(FIN | TEXT, b"\xff" * 11))
    ours.feed(frame(TEXT, b"\xc3") + frame(FIN, b"\xff" * 10))
    assert ours.messages == [
        OversizeMessage(11, b"\xff" * 11, b"\xff" * 11),
        OversizeMessage(11, b"\xc3" + b"\xff" * 10, b"\xc3" + b"\xff" * 10),
    ]
    ours.feed(frame(TEXT, b"\xff"))  # a fragment that still fits is
    assert ours.reader.error is not None
    assert ours.reader.error.code == 1007


def test_the_message_after_a_discarded_one_is_read() -> None:
    ours = Ours(limit=10)
    ours.feed(frame(TEXT, "12345678é".encode()[:-1]) + frame(0, b"\xa9 ") + frame(FIN, b"."))
    ours.feed(
        frame(TEXT, "123é".encode()[:-1]) + frame(FIN, b"\xa9") + frame(FIN | BINARY, b"\xff")
    )
    twelve = "12345678é .".encode()
    assert ours.messages == [
        OversizeMessage(12, twelve, twelve),
        "123é".encode(),
        BinaryMessage(b"\xff"),
    ]


def test_a_message_that_grows_too_large_is_released() -> None:
    ours = Ours(limit=10_000)
    ours.feed(frame(BINARY, b"x" * 9_000))
    assert ours.reader.buffered == 9_000
    ours.feed(frame(0, b"y" * 1_001) + frame(0, b"z"))
    assert ours.reader.buffered == BOTH_ENDS
    ours.feed(frame(FIN))
    assert ours.messages == [OversizeMessage(10_002, b"x" * 1024, b"x" * 22 + b"y" * 1001 + b"z")]
    assert ours.reader.buffered == 0


def test_violations_and_close_count_inside_a_discarded_message() -> None:
    ours = Ours(limit=10)
    ours.feed(frame(TEXT, b"x" * 11) + frame(FIN | TEXT))
    assert ours.reader.error is not None
    ours = Ours(limit=10)
    ours.feed(frame(TEXT, b"x" * 11) + frame(FIN | PING, b"?") + frame(FIN | CLOSE))
    assert (ours.messages, ours.reader.closed) == ([], True)
    assert ours.raw_control == frame(FIN | PING, b"?") + frame(FIN | CLOSE)


@pytest.mark.parametrize("announced", [11, 126, 4096, 2**40])
def test_a_frame_above_the_limit_is_discarded_from_its_header_on(announced: int) -> None:
    reader = FrameReader(10)
    available = min(announced - 1, 4000)
    assert reader.feed(header(FIN | TEXT, announced) + b"x" * available) == ([], b"")
    assert reader.buffered == 2 * min(available, 1024)
    assert reader.error is None


@pytest.mark.parametrize("fragment", [None, 1, 1000, 5000])
def test_a_message_of_a_hundred_times_the_limit_is_not_kept(fragment: int | None) -> None:
    """P10: by the count of the reader and by the allocations of Python."""
    limit = 10_000 if fragment != 1 else 300
    size = 100 * limit
    if fragment is None:
        stream = frame(FIN | TEXT, b"x" * size)
    else:
        middle = frame(0, b"x" * fragment) * (size // fragment - 1)
        stream = frame(TEXT, b"x" * fragment) + middle + frame(FIN)
    pieces = [stream[at : at + 4096] for at in range(0, len(stream), 4096)]
    reader = FrameReader(limit)
    messages: list[Message] = []
    tracemalloc.start()
    try:
        for piece in pieces:
            messages += feed_all(reader, piece)
            assert reader.buffered <= limit + 4096
            assert sys.getsizeof(reader._message) <= 1.25 * limit + 4096
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert messages == [OversizeMessage(size, b"x" * 1024, b"x" * 1024)]
    assert peak < 2.5 * limit + 3 * 4096 + 8192  # far from 100 x


def test_fragments_without_content_take_no_memory() -> None:
    reader = FrameReader(100)
    reader.feed(frame(TEXT, b"x"))
    tracemalloc.start()
    try:
        feed_all(reader, frame(0) * 10_000)
        kept = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert kept < 4096
    assert reader.feed(frame(FIN, b"y"))[0] == [b"xy"]


# Costs, as counts and not as times.


def test_a_large_frame_in_small_pieces_is_copied_once() -> None:
    """No piece is parsed again, and all pieces are added to the same buffer."""
    stream = frame(FIN | TEXT, b"x" * 2**20)
    reader = FrameReader(2**20)
    reader.feed(stream[:4096])
    collected = reader._message
    for at in range(4096, len(stream) - 1, 4096):
        assert reader.feed(stream[at : min(at + 4096, len(stream) - 1)]) == ([], b"")
        assert reader._rest == b""
        assert reader._message is collected
    [message] = reader.feed(stream[-1:])[0]
    assert message == stream[10:]


def test_a_fragmented_text_is_checked_once() -> None:
    checked: list[int] = []

    def check(payload: memoryview, errors: str, final: bool) -> tuple[str, int]:  # noqa: FBT001
        checked.append(len(payload))
        return utf_8_decode(payload, errors, final)

    reader = FrameReader(NO_LIMIT)
    with mock.patch.object(frames, "utf_8_decode", check):
        reader.feed(frame(TEXT) + frame(0, b"\xc3") + frame(0, b"\xa9" + b"x" * 998 + b"\xc3") * 99)
        [message] = reader.feed(frame(FIN, b"\xa9"))[0]
    text = b"\xc3" + (b"\xa9" + b"x" * 998 + b"\xc3") * 99 + b"\xa9"
    assert message == text
    assert sum(checked) <= len(text) + 3 * len(checked)  # up to three bytes of a cut character


def test_only_small_incomplete_frames_are_parsed_again(max_reparsed: int) -> None:
    reader = FrameReader(NO_LIMIT)
    for size in (10, 200, 4096, 4097, 70_000):
        one = frame(FIN | TEXT, b"x" * size)
        assert reader.feed(one[:-1])[0] == []
        waits = size <= max_reparsed
        assert len(reader._rest) == (len(one) - 1 if waits else 0)
        assert reader.buffered == (len(one) - 1 if waits else size - 1)
        assert reader.feed(one[-1:])[0] == [b"x" * size]


@pytest.mark.parametrize("size", [0, 1, 125, 126, 220, 5000])
def test_a_burst_of_whole_text_messages_stays_in_the_hot_path(size: int) -> None:
    burst = frame(FIN | TEXT, b"x" * size) * 190
    reader = FrameReader(5000)
    read_frame = FrameReader._read_frame
    with mock.patch.object(
        FrameReader, "_read_frame", autospec=True, side_effect=read_frame
    ) as calls:
        assert reader.feed(burst)[0] == [b"x" * size] * 190
    assert calls.call_count <= 2  # the last header may lack four bytes; and the end of the data


FLOODS: dict[str, bytes] = {
    "pongs": frame(FIN | PONG),
    "pings": frame(FIN | PING, b"abcd"),
    "one byte": frame(FIN | TEXT, b"x"),
    "empty texts": frame(FIN | TEXT),
    "binary": frame(FIN | BINARY, b"x"),
    "fragmented": frame(TEXT, b"x") + frame(0, b"x") + frame(FIN, b"x"),
    "texts and pongs": frame(FIN | TEXT, b"x") + frame(FIN | PONG),
}


@pytest.mark.parametrize("kind", FLOODS)
def test_a_feed_reads_a_limited_number_of_frames_and_says_that_more_are_left(kind: str) -> None:
    stream = FLOODS[kind] * 3000
    reader = FrameReader(NO_LIMIT)
    read_frame = FrameReader._read_frame
    messages: list[Message] = []
    control = b""
    data = stream
    with mock.patch.object(
        FrameReader, "_read_frame", autospec=True, side_effect=read_frame
    ) as calls:
        while data or reader.backlog:
            calls.reset_mock()
            found, answers = reader.feed(data)
            data = b""
            assert len(found) <= MESSAGES_PER_FEED
            assert calls.call_count <= OTHER_FRAMES_PER_FEED
            messages += found
            control += answers
    expected = read_by_wsproto(stream)
    assert messages == expected.messages
    assert control.count(b"\x8a\x00") + control.count(b"abcd") == len(expected.control)
    assert reader.buffered == 0


def test_a_violation_and_a_close_frame_end_the_backlog() -> None:
    for end in (frame(0x83), frame(FIN | CLOSE)):
        reader = FrameReader(NO_LIMIT)
        assert len(feed_all(reader, frame(FIN | TEXT, b"x") * 1000 + end + end)) == 1000
        assert reader.closed or reader.error is not None
        assert not reader.backlog


# Records.


def test_the_repr_of_a_message_has_its_size_and_no_content() -> None:
    """P9."""
    assert repr(BinaryMessage(b"secret")) == "BinaryMessage(<6 bytes>)"
    assert repr(OversizeMessage(9, b"secret", b"secret")) == "OversizeMessage(size=9)"


def test_messages_are_values() -> None:
    assert BinaryMessage(b"a") == BinaryMessage(b"a") != BinaryMessage(b"b")
    assert len({OversizeMessage(9, b"a", b"b"), OversizeMessage(9, b"a", b"b")}) == 1
    with pytest.raises(FrozenInstanceError):
        BinaryMessage(b"a").data = b"b"  # type: ignore[misc]
