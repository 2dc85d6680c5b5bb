"""Server-sent events of a client: parses a ``text/event-stream`` body into messages.

`EventReader` is a push parser without I/O for the format of the HTML standard, section 9.2.6. A
message is the data of one event: the JSON that a WebSocket message would hold (docs/protocol.md,
section 8). The rules of the standard:

- Lines end with LF, CR or CRLF. One byte order mark at the beginning is ignored.
- ``data`` lines of one event are joined with LF. An empty line ends the event. An event without
  data is no event, and neither is one that the body ends before its empty line.
- A line that begins with a colon is a comment. Other fields are ignored, with one exception:
  where the data has no ``type``, the name in ``event`` becomes the type.

The data ``[DONE]``, with which some servers end the body, is no message.

Every size is bounded: an event above the limit is discarded while it is received, and an
`OversizeMessage` takes its place. A line that is no data needs no memory beyond its beginning.
Work and memory are linear in the size of the body, however it is cut into pieces.
"""

from __future__ import annotations

import re
from typing import Final, final

import msgspec

from trio_responses._protocol.frames import OversizeMessage

__all__ = ["EventReader"]

BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
DONE: Final = b"[DONE]"
KEPT: Final = 1024
"""How many bytes of the beginning and the end of an oversize event are kept."""
MAX_NAME: Final = 256
"""The longest field name or event name that has a meaning; longer lines are no data."""

# Nearly all events of nearly all servers have this form: one line with a JSON object, which has its
# type at the beginning or, as Pydantic sorts it, at the end. Splitting by the pattern yields these
# two groups for each event; the second takes everything from the first event of another form on.
COMMON: Final = re.compile(
    rb'(?:event: ?.*+\n)?data: ?(\{(?:"type":.*+|.*, ?"type": ?"[a-z_.]*"\}))\n\n|(?s:(.+))'
)
GROUPS: Final = 3
"""How many pieces a match adds to a split: what precedes it, which is nothing, and its groups."""


@final
class EventReader:
    """A parser of server-sent events. `feed` returns the messages that a piece completes.

    :param max_message_bytes: the largest data of one event, in bytes.
    """

    def __init__(self, max_message_bytes: int) -> None:
        self._limit = max_message_bytes
        self._at_start = True
        self._after_cr = False
        """Whether the last piece ended with CR: an LF that follows belongs to that line."""
        self._line = bytearray()
        """The beginning of a line whose end was not received."""
        self._skips_line = False
        """Whether the rest of the line is ignored: a comment, another field, or oversize data."""
        self._data: list[bytes] = []
        """The ``data`` lines of the event."""
        self._size = 0
        """The bytes of the event's data, discarded ones and line feeds included."""
        self._oversize: _OversizeEvent | None = None
        self._name = b""

    @property
    def is_between_events(self) -> bool:
        """Whether nothing of an event was received after the last complete one."""
        return not (self._line or self._data or self._oversize or self._name)

    def feed(self, data: bytes) -> list[bytes | OversizeMessage]:
        """Return the messages that the next piece of the body completes, in order."""
        if self._at_start:
            data = self._without_mark(data)
        if self._after_cr and data:
            self._after_cr = False
            data = data.removeprefix(b"\n")
        if b"\r" in data:
            self._after_cr = data.endswith(b"\r")
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        messages: list[bytes | OversizeMessage] = []
        start = 0
        if self._skips_line or not self.is_between_events:
            start = self._read_event(data, 0, messages)
        if start < len(data):
            start = self._read_common(data, start, messages)
        while start < len(data):
            start = self._read_event(data, start, messages)
        return messages

    def _without_mark(self, data: bytes) -> bytes:
        """Return the beginning of the body without the byte order mark, once enough is known."""
        data = bytes(self._line) + data
        self._line.clear()
        if len(data) < len(BYTE_ORDER_MARK) and BYTE_ORDER_MARK.startswith(data):
            self._line += data
            return b""
        self._at_start = False
        return data.removeprefix(BYTE_ORDER_MARK)

    def _read_common(self, data: bytes, start: int, messages: list[bytes | OversizeMessage]) -> int:
        """Read the events from an index on that have the common form; return their end.

        Called once for a piece, so that no byte is copied for each event anew.
        """
        parts = COMMON.split(data[start:])
        found, rest = parts[1::GROUPS], parts[-2]
        if rest is not None:
            found.pop()
        if found and len(max(found, key=len)) > self._limit:
            return start
        messages += found
        return len(data) - len(rest or b"")

    def _read_event(self, data: bytes, start: int, messages: list[bytes | OversizeMessage]) -> int:
        """Read line by line from an index on, until an event ends; return the end."""
        while (end := data.find(b"\n", start)) >= 0:
            self._add_to_line(data, start, end)
            start = end + 1
            if self._end_line(messages):
                return start
        self._add_to_line(data, start, len(data))
        return len(data)

    def _add_to_line(self, data: bytes, start: int, end: int) -> None:
        """Add the bytes between two indexes to the line, or discard them where none is needed."""
        if self._skips_line:
            if self._oversize is not None and self._oversize.in_line:
                self._oversize.add(data[start:end])
            return
        self._line += memoryview(data)[start:end]
        if len(self._line) <= MAX_NAME:
            return
        if not self._line.startswith(b"data:"):
            self._line.clear()
            self._skips_line = True
        elif self._size + len(self._line) > self._limit + len(b"data: "):
            self._begin_oversize()

    def _begin_oversize(self) -> None:
        """Discard the data of the event, which is above the limit, and the rest of the line."""
        if self._oversize is None:
            self._oversize = _OversizeEvent()
            for earlier in self._data:
                self._oversize.add(earlier + b"\n")
            self._data.clear()
        self._oversize.add(_value_of(self._line))
        self._oversize.in_line = self._skips_line = True
        self._line.clear()

    def _end_line(self, messages: list[bytes | OversizeMessage]) -> bool:
        """Interpret the line, which was received whole; return whether it ends an event."""
        if not (self._line or self._skips_line):
            self._end_event(messages)
            return True
        name = bytes(self._line.partition(b":")[0])
        if name == b"data":
            self._add_data()
        elif name == b"event":
            self._name = _value_of(self._line)
        if self._oversize is not None and self._oversize.in_line:
            self._oversize.add(b"\n")
            self._oversize.in_line = False
        self._line.clear()
        self._skips_line = False
        return False

    def _add_data(self) -> None:
        value = _value_of(self._line)
        if self._oversize is not None or self._size + len(value) > self._limit:
            self._begin_oversize()
        else:
            self._data.append(value)
            self._size += len(value) + 1

    def _end_event(self, messages: list[bytes | OversizeMessage]) -> None:
        """End the event: add its data to the messages, if it has any."""
        data = b"\n".join(self._data)
        if self._oversize is not None:
            messages.append(self._oversize.as_message())
        elif data and data.strip() != DONE:
            messages.append(_with_type(data, self._name))
        self._data.clear()
        self._oversize = None
        self._size = 0
        self._name = b""


@final
class _OversizeEvent:
    """The size, beginning and end of the data of an event that is discarded."""

    def __init__(self) -> None:
        self.in_line: bool = False
        """Whether a line of data was begun whose end was not received."""
        self._size = 0
        self._head = bytearray()
        self._tail = bytearray()

    def add(self, data: bytes) -> None:
        self._size += len(data)
        self._head += data[: KEPT - len(self._head)]
        self._tail += data[-KEPT - 1 :]
        del self._tail[: -KEPT - 1]

    def as_message(self) -> OversizeMessage:
        """Return the message in place of the event, without the line feed at its end."""
        size = self._size - 1
        return OversizeMessage(size, bytes(self._head[:size]), bytes(self._tail[:-1][-KEPT:]))


def _value_of(line: bytearray) -> bytes:
    """Return the value of a field's line, without the one space that may follow the colon."""
    return bytes(line.partition(b":")[2]).removeprefix(b" ")


class _Typed(msgspec.Struct):
    """The one field of an event that decides how it is read."""

    type: msgspec.Raw = msgspec.Raw()


def _with_type(data: bytes, name: bytes) -> bytes:
    """Return the data of an event with the event's name as ``type``, if the data has no type."""
    if not name or not data.startswith(b"{"):
        return data
    try:
        if msgspec.json.decode(data, type=_Typed).type:
            return data
    except msgspec.DecodeError:
        return data
    kind = msgspec.json.encode(name.decode(errors="replace"))
    rest = data[1:].lstrip()
    return b'{"type":%b%b%b' % (kind, b"" if rest.startswith(b"}") else b",", rest)
