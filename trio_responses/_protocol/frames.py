"""WebSocket frames of a client: parses received frames, and encodes masked text frames.

`FrameReader` is a push parser without I/O for the server-to-client half of RFC 6455 section 5. It
joins data frames (text, binary, continuation) to messages. It returns control frames (close, ping,
pong) as the bytes in which they were received: wsproto answers pings and judges close codes.

The rules are those of wsproto 1.3.2; the tests compare the two:

- A server sets no reserved bit, uses six opcodes, never masks, and writes a length in its
  shortest form. A control frame has FIN and at most 125 bytes.
- A message is one data frame with FIN, or a text or binary frame without FIN and continuations up
  to the first with FIN. Only control frames may come in between.
- Text is UTF-8, checked frame by frame; a frame boundary may cut a character.
  (wsproto does not wait for the end of a frame. RFC 6455, 8.1, allows both.)
- The first violation ends reading, and so does a close frame. Messages that were complete before
  it count; bytes after it are ignored.

wsproto has no rule about size. Here, a message above the limit is discarded while it is received,
an `OversizeMessage` takes its place, and reading continues.
"""

from __future__ import annotations

import os
from codecs import utf_8_decode
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from io import BytesIO
from itertools import repeat
from struct import Struct
from typing import TYPE_CHECKING, Final, TypeAlias, cast, final

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "MESSAGES_PER_FEED",
    "OTHER_FRAMES_PER_FEED",
    "BinaryMessage",
    "FrameError",
    "FrameReader",
    "Message",
    "OversizeMessage",
    "encode_text_frame",
    "mask_in_python",
]

# RFC 6455 section 7.4.1: the close codes for invalid frames.
_PROTOCOL_ERROR: Final = 1002
_INVALID_PAYLOAD: Final = 1007

# RFC 6455 section 5.2: the first byte is FIN, three reserved bits, four bits of opcode.
_FIN: Final = 0x80
_RESERVED: Final = 0x70
_OPCODE: Final = 0x0F
_CONTINUATION, _TEXT, _BINARY, _CLOSE, _PING, _PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
_CONTROL: Final = (_CLOSE, _PING, _PONG)
# These are the first bytes of a frame that a server may send. Any other one is a violation.
_ANYWHERE: Final = frozenset(_FIN | opcode for opcode in _CONTROL)
_BETWEEN_MESSAGES: Final = _ANYWHERE | {_TEXT, _FIN | _TEXT, _BINARY, _FIN | _BINARY}
_INSIDE_A_MESSAGE: Final = _ANYWHERE | {_CONTINUATION, _FIN | _CONTINUATION}

# The second byte is MASK and a length up to 125, or one of two values for "the length follows":
# in which form, and the smallest length that needs the form. The 64-bit form is read as signed:
# its highest bit must be clear, so a negative length is too small.
_MASK: Final = 0x80
_SHORT: Final = 125
_LONG_16, _LONG_64 = 126, 127
_MAX_LONG_16: Final = 0xFFFF
_LONG: Final = {
    _LONG_16: (Struct("!H"), _SHORT + 1),
    _LONG_64: (Struct("!q"), _MAX_LONG_16 + 1),
}

# For the hot path: the first two bytes of a whole text message as one number, then two more.
_two_numbers: Final = Struct("!HH").unpack_from
_TEXT_EMPTY: Final = 0x8100
_TEXT_SHORT: Final = 0x8100 + _SHORT
_TEXT_LONG: Final = 0x8100 + _LONG_16

# An incomplete frame up to this size is parsed again from its header when more bytes are received:
# 1.3 us for a frame of 220 bytes in two pieces, 3.1 us if collected. Larger ones are collected.
_MAX_REPARSED: Final = 4096

MESSAGES_PER_FEED: Final = 192
"""The most messages that one `feed` returns. A read of 64 KiB has 300 messages of 220 bytes."""
OTHER_FRAMES_PER_FEED: Final = 128
"""The most frames of other forms that one `feed` reads: control frames and fragments."""
_KEPT: Final = 1024  # bytes at either end of a message that is discarded
_UTF8_STEP: Final = 65536


@final
@dataclass(frozen=True, slots=True, repr=False)
class BinaryMessage:
    """A binary message. The protocol has none, so the receiver may report an error."""

    data: bytes

    def __repr__(self) -> str:
        return f"BinaryMessage(<{len(self.data)} bytes>)"


@final
@dataclass(frozen=True, slots=True, repr=False)
class OversizeMessage:
    """The first and last bytes of a message that was discarded because of its size, and the size.

    `head` and `tail` serve to find the owner of the message. They are not checked for UTF-8, may
    cut a character, and overlap if the message is shorter than both.
    """

    size: int
    """The payload of the whole message in bytes."""
    head: bytes
    """Its first 1,024 bytes, or fewer."""
    tail: bytes
    """Its last 1,024 bytes, or fewer."""

    def __repr__(self) -> str:
        return f"OversizeMessage(size={self.size})"


Message: TypeAlias = bytes | BinaryMessage | OversizeMessage
"""A received message. A text message is plain `bytes` of valid UTF-8, for a JSON decoder."""


@final
class FrameError(Exception):
    """A violation of RFC 6455 by the server. It contains no payload, so it may be logged."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(code, reason)
        self.code = code
        """The code to close the connection with: 1002 (protocol) or 1007 (text is not UTF-8)."""
        self.reason = reason
        """The violated rule in a few words."""

    def __str__(self) -> str:
        return f"{self.reason} ({self.code})"


@final
class FrameReader:
    """A parser of the frames of one connection, from the first byte after the handshake.

    :param max_message_bytes: the largest payload of one message that is kept, all fragments of
        the message together.

    ::

        messages, control = reader.feed(await stream.receive_some())
        if reader.error is not None:
            ...  # after the messages: they were complete before the violation
    """

    __slots__ = (
        "_checked",
        "_discarded",
        "_final",
        "_limit",
        "_message",
        "_missing",
        "_opcode",
        "_rest",
        "backlog",
        "closed",
        "error",
    )

    def __init__(self, max_message_bytes: int) -> None:
        self.error: FrameError | None = None
        """The violation that ended reading; `None` if none did."""
        self.closed: bool = False
        """Whether a close frame ended reading. Its bytes were among the control bytes."""
        self.backlog: bool = False
        """Whether whole frames may be left: feed nothing (``b""``) to read them."""
        self._limit = max_message_bytes
        # Between two frames: the bytes of an incomplete header or small frame.
        self._rest = b""
        # The message that has begun and not ended. Opcode 0: none.
        self._opcode = _CONTINUATION
        self._message = BytesIO()
        self._checked = 0  # the number of its bytes that are whole UTF-8 characters
        self._discarded: _OversizeAccumulator | None = None  # replaces _message above the limit
        # The data frame that has begun and not ended. Missing 0: none.
        self._missing = 0
        self._final = False

    @property
    def buffered(self) -> int:
        """The number of bytes that are held for a frame or message that has not ended."""
        ends = len(self._discarded.head + self._discarded.tail) if self._discarded else 0
        return len(self._rest) + self._message.tell() + ends

    def feed(self, data: bytes | bytearray | memoryview) -> tuple[list[Message], bytes]:
        """Parse the next bytes; return the messages and control frames that they complete.

        The number of frames is limited, so that the caller can let other tasks run in between.
        `backlog` is true if the limit was reached.

        :param data: the next bytes from the server, cut anywhere. The memory of a view may be used
            again after the call.
        :returns: the messages in order, and the control frames in order, as raw bytes. Nothing
            once `error` is set or `closed` is true.
        """
        messages: list[Message] = []
        control: list[bytes] = []
        self.backlog = False
        if self.closed or self.error is not None:
            return messages, b""
        try:
            if self._missing:
                data = self._continue_frame(data, messages)
            self._read(data, messages, control)
        except FrameError as error:
            # The exception is stored and must not hold the payload: no traceback and no context.
            self._fail(error.with_traceback(None))
        except UnicodeDecodeError:
            self._fail(FrameError(_INVALID_PAYLOAD, "invalid UTF-8 in a text message"))
        return messages, b"".join(control)

    def _read(  # noqa: C901, PLR0912  # calls in the hot path would cost more than they explain
        self, data: bytes | bytearray | memoryview, messages: list[Message], control: list[bytes]
    ) -> None:
        if self._rest:
            data = self._rest + data
        elif not isinstance(data, bytes):
            data = bytes(data)

        # The hot path is the inner loop: a text message in one frame with a 7- or 16-bit length
        # that is complete in `data`. Any other frame leaves the loop for _read_frame, which has
        # all the rules. Local names, one unpack for header and length (indexing the bytes one by
        # one costs a quarter more) and no calls except on the payload: 0.22 us for a frame of
        # 220 bytes; _read_frame takes 1.8 us and wsproto 7.5 us.
        position = 0
        end = len(data)
        last_header = end - 4
        limit = self._limit
        two_numbers = _two_numbers
        append = messages.append
        for _ in repeat(None, OTHER_FRAMES_PER_FEED):
            if self._opcode == _CONTINUATION:
                for _ in repeat(None, MESSAGES_PER_FEED - len(messages)):
                    if position > last_header:
                        break
                    start, length = two_numbers(data, position)
                    if start == _TEXT_LONG and length > _SHORT:
                        body = position + 4
                    elif _TEXT_EMPTY <= start <= _TEXT_SHORT:
                        body = position + 2
                        length = start - _TEXT_EMPTY
                    else:
                        break
                    body_end = body + length
                    if body_end > end or length > limit:
                        break
                    payload = data[body:body_end]
                    if not payload.isascii():
                        payload.decode()
                    append(payload)
                    position = body_end
            if position == end:
                break
            if len(messages) >= MESSAGES_PER_FEED:
                self.backlog = True
                break
            before = position
            position = self._read_frame(data, position, messages, control)
            if position == before:
                break
        else:
            self.backlog = position < end
        self._rest = data[position:]
        if self.closed:
            self._forget_message()

    def _read_frame(
        self, data: bytes, position: int, messages: list[Message], control: list[bytes]
    ) -> int:
        """Read one frame of any kind, or the available part of a large one.

        :returns: the position after the frame, or `position` if more bytes are needed.
        """
        body = position + 2
        if body > len(data):
            return position
        first, length = data[position], data[position + 1]
        opcode = first & _OPCODE
        allowed = _BETWEEN_MESSAGES if self._opcode == _CONTINUATION else _INSIDE_A_MESSAGE
        if first not in allowed or length > (_SHORT if opcode in _CONTROL else _LONG_64):
            raise FrameError(_PROTOCOL_ERROR, _violated_rule(first, length))
        if length > _SHORT:
            number, smallest = _LONG[length]
            body += number.size
            if body > len(data):
                return position
            (length,) = number.unpack_from(data, body - number.size)
            if length < smallest:
                raise FrameError(_PROTOCOL_ERROR, "length out of range for its form")

        end = body + length
        if opcode in _CONTROL:
            if end > len(data):
                return position
            control.append(data[position:end])
            self.closed = opcode == _CLOSE
            return len(data) if self.closed else end

        fits = self._message.tell() + length <= self._limit
        if end > len(data):
            if fits and length <= _MAX_REPARSED:
                return position
            end = len(data)
        self._begin_frame(first, length, fits=fits)
        with memoryview(data) as view:
            self._read_payload(view[body:end], messages)
        return end

    def _begin_frame(self, first: int, length: int, *, fits: bool) -> None:
        if self._opcode == _CONTINUATION:
            self._opcode = first & _OPCODE
        if not fits and self._discarded is None:
            self._discarded = _OversizeAccumulator(self._message.getvalue())
            self._message = BytesIO()
        self._final = first >= _FIN
        self._missing = length

    def _continue_frame(
        self, data: bytes | bytearray | memoryview, messages: list[Message]
    ) -> bytes | bytearray | memoryview:
        """Read the rest of an unfinished data frame; return the bytes after the frame."""
        with memoryview(data) as view:
            end = min(self._missing, len(view))
            self._read_payload(view[:end], messages)
        return data[end:]

    def _read_payload(self, piece: memoryview, messages: list[Message]) -> None:
        """Read the next piece of an unfinished data frame, and end the frame if complete.

        A BytesIO holds no object per fragment, as a list of pieces would, and its `getvalue`
        returns its memory without a copy (16 MiB in 4 KiB pieces: 12 ms).
        """
        self._missing -= len(piece)
        if self._discarded is not None:
            self._discarded.add(piece)
        else:
            self._message.write(piece)
        if self._missing:
            return
        if self._opcode == _TEXT and self._discarded is None:
            with self._message.getbuffer() as payload:
                self._checked = _end_of_utf8(payload, self._checked, final=self._final)
        if not self._final:
            return
        if self._discarded is not None:
            messages.append(self._discarded.as_message())
        elif self._opcode == _TEXT:
            messages.append(self._message.getvalue())
        else:
            messages.append(BinaryMessage(self._message.getvalue()))
        self._forget_message()

    def _fail(self, error: FrameError) -> None:
        self.error = error
        self._rest = b""
        self._forget_message()

    def _forget_message(self) -> None:
        self._opcode = _CONTINUATION
        self._message = BytesIO()
        self._checked = 0
        self._discarded = None


class _OversizeAccumulator:
    """The size and the first and last bytes of an oversize message that is being received."""

    __slots__ = ("head", "size", "tail")

    def __init__(self, begun: bytes) -> None:
        self.size = 0
        self.head = self.tail = b""
        self.add(begun)

    def add(self, piece: bytes | memoryview) -> None:
        self.size += len(piece)
        self.head += piece[: _KEPT - len(self.head)]
        self.tail = (self.tail + piece[-_KEPT:])[-_KEPT:]

    def as_message(self) -> OversizeMessage:
        return OversizeMessage(self.size, self.head, self.tail)


def _end_of_utf8(payload: memoryview, start: int, *, final: bool) -> int:
    """Check in steps that a payload is UTF-8, and return the end of its whole characters.

    A decoded text would take up to four times the memory of its bytes.

    :param start: the position from which on to check.
    :param final: whether the text has to end with a whole character.
    :returns: the position after the last whole character.
    :raises UnicodeDecodeError: for bytes that are neither UTF-8 nor the beginning of UTF-8.
    """
    while True:
        end = min(start + _UTF8_STEP, len(payload))
        at_end = end == len(payload)
        start += utf_8_decode(payload[start:end], "strict", final and at_end)[1]
        if at_end:
            return start


def _violated_rule(first: int, second: int) -> str:
    """Return the rule that an invalid frame violates, from the first two bytes of the frame."""
    opcode = first & _OPCODE
    if first & _RESERVED:
        return "reserved bits set without an extension"
    if second & _MASK:
        return "masked frame from a server"
    if opcode in _CONTROL:
        return "control frame without FIN" if first < _FIN else "control frame above 125 bytes"
    if opcode == _CONTINUATION:
        return "continuation without a message to continue"
    if opcode in (_TEXT, _BINARY):
        return "new message inside a fragmented one"
    return f"unknown opcode {opcode:#x}"


_FINAL_TEXT: Final = _FIN | _TEXT
_KEYS_PER_CALL: Final = 64
"""The number of keys that one system call makes."""
_all_keys: Final = Struct("4s" * _KEYS_PER_CALL)
_MAX_AS_INTEGER: Final = 4096
"""The payload size in bytes up to which one integer is faster to mask than tables."""


def encode_text_frame(payload: bytes) -> bytes:
    """Return a message as one text frame with a new random mask."""
    size = len(payload)
    if size <= _SHORT:
        head = bytes((_FINAL_TEXT, _MASK | size))
    elif size <= _MAX_LONG_16:
        head = bytes((_FINAL_TEXT, _MASK | _LONG_16)) + size.to_bytes(2, "big")
    else:
        head = bytes((_FINAL_TEXT, _MASK | _LONG_64)) + size.to_bytes(8, "big")
    try:
        key = _keys.pop()
    except IndexError:
        key = _make_keys()
    return b"".join((head, key, apply_mask(payload, key)))


def _make_keys() -> bytes:
    """Return a new random key for a mask, and keep others for the next frames."""
    keys: tuple[bytes, ...] = _all_keys.unpack(os.urandom(_all_keys.size))
    _keys.extend(keys[1:])
    return keys[0]


_keys: Final[list[bytes]] = []
"""Random keys that no frame has used."""
with suppress(AttributeError):  # Windows has no fork
    os.register_at_fork(after_in_child=_keys.clear)  # a child process has keys of its own


def mask_in_python(payload: bytes, key: bytes) -> bytes:
    """Return a masked payload, computed in Python because no C function is installed."""
    size = len(payload)
    if size <= _MAX_AS_INTEGER:
        repeated = key * (size // 4) + key[: size % 4]
        masked = int.from_bytes(payload, "little") ^ int.from_bytes(repeated, "little")
        return masked.to_bytes(size, "little")
    result = bytearray(payload)
    for offset in range(4):
        result[offset::4] = result[offset::4].translate(_mask_table(key[offset]))
    return bytes(result)


@cache
def _mask_table(key: int) -> bytes:
    """Return the translation table that masks bytes with one byte of a key."""
    return bytes(byte ^ key for byte in range(256))


def _find_c_mask_function() -> Callable[[bytes, bytes], bytes] | None:
    try:
        found = import_module("websockets.speedups").apply_mask
    except (ImportError, AttributeError):
        return None
    return cast("Callable[[bytes, bytes], bytes]", found)


apply_mask: Callable[[bytes, bytes], bytes] = _find_c_mask_function() or mask_in_python
"""Returns a masked payload: the C function of websockets if installed."""
