"""Joins the chunks of an HTTP/1.1 answer, so that an HTTP library parses few of them.

A server that streams events sends each in a chunk of its own, and h11 takes some 30 us for a chunk.
`ChunkJoiner` sits between the byte stream and h11: of the chunks that one read brings it makes one
chunk with the same data. Everything else passes unchanged: heads, answers that are not chunked, the
last chunk with its trailers, and whatever does not follow RFC 9112, section 7.1, which h11 then
refuses.

The joiner is in one of these states:

* HEAD: the head of an answer is expected. It is kept until it is complete.
* SIZE: the line with the size of a chunk is expected. It is kept until it is complete.
* DATA: data of a chunk is expected, then CR LF.
* PASS: all bytes pass, until the next request (`ChunkJoiner.begin_answer`).
"""

from __future__ import annotations

import re
from enum import Enum, auto
from typing import Final, final

__all__ = ["ChunkJoiner"]

MAX_HEAD_BYTES: Final = 64 * 1024
"""A longer head passes as it is: h11 refuses it."""
MAX_SIZE_BYTES: Final = 1024
"""A longer line with the size of a chunk passes as it is."""
HEAD_END: Final = b"\r\n\r\n"
INTERIM: Final = re.compile(rb"HTTP/1\.[01] 1(?!01)[0-9]{2}[ \r]")
CHUNKED: Final = re.compile(rb"\r\ntransfer-encoding:[ \t]*chunked[ \t]*\r\n", re.IGNORECASE)
SIZE: Final = re.compile(rb"([0-9A-Fa-f]{1,15})(?:;[^\r\n]*)?\r\n")
LINE_END: Final = b"\r\n"


class _State(Enum):
    """What the joiner expects next."""

    HEAD = auto()
    SIZE = auto()
    DATA = auto()
    PASS = auto()


@final
class ChunkJoiner:
    """A filter for the bytes of one HTTP/1.1 connection, in the direction of the client."""

    def __init__(self) -> None:
        self._state = _State.HEAD
        self._kept: bytes = b""
        """The beginning of a head, of a line with a size, or of the CR LF after data."""
        self._missing = 0
        """How many bytes of the present chunk were not received."""

    def begin_answer(self) -> None:
        """Expect the head of another answer. Called when a request is written."""
        self._state = _State.HEAD
        self._kept = b""

    def feed(self, data: bytes) -> bytes:
        """Return the bytes for the HTTP library; nothing while a head or a size is incomplete.

        :param data: the bytes of one read; nothing for the end of the stream.
        """
        if self._state is _State.PASS:
            return data
        data, self._kept = self._kept + data, b""
        if self._state is not _State.HEAD:
            return self._join(data, 0)
        start = 0
        while True:
            end = data.find(HEAD_END, start)
            if end < 0:
                if len(data) - start > MAX_HEAD_BYTES:
                    self._state = _State.PASS
                    return data
                self._kept = data[start:]
                return data[:start]
            head = data[start : end + len(LINE_END)]
            start, is_interim = end + len(HEAD_END), INTERIM.match(head)
            if is_interim is None:
                break
        if CHUNKED.search(head) is None:
            self._state = _State.PASS
            return data
        self._state = _State.SIZE
        return data[:start] + self._join(data, start)

    def _join(self, data: bytes, at: int) -> bytes:
        """Return the chunks from an index on, joined to one chunk, and what follows the last."""
        pieces: list[bytes] = []
        length = len(data)
        rest = b""
        if self._state is _State.SIZE:
            at = _split_whole(data, at, pieces)
        while at < length:
            if self._state is _State.SIZE:
                found = SIZE.match(data, at)
                if found is None:
                    rest = self._incomplete(data[at:])
                    break
                self._missing = int(found[1], 16)
                if not self._missing:  # the last chunk
                    self._state = _State.PASS
                    rest = data[at:]
                    break
                at = found.end()
                self._state = _State.DATA
            end = at + self._missing
            pieces.append(data[at:end])
            if end > length:
                self._missing = end - length
                break
            self._missing = 0
            after = data[end : end + 2]
            if after != LINE_END:
                if LINE_END.startswith(after):
                    self._kept = after
                else:  # an empty line is no size either, so h11 refuses the rest
                    self._state = _State.PASS
                    rest = LINE_END + data[end:]
                break
            at = end + 2
            self._state = _State.SIZE
        joined = b"".join(pieces)
        return (b"%x\r\n%b\r\n" % (len(joined), joined) if joined else b"") + rest

    def _incomplete(self, line: bytes) -> bytes:
        """Keep the beginning of a line with a size; return a line that is none."""
        may_be_size = len(line) <= MAX_SIZE_BYTES and b"\n" not in line
        if may_be_size:
            self._kept = line
            return b""
        self._state = _State.PASS
        return line


def _split_whole(data: bytes, at: int, pieces: list[bytes]) -> int:
    """Add the data of the whole chunks from an index on to the pieces; return their end.

    Nearly all chunks take this short path.
    """
    match, add = SIZE.match, pieces.append
    while (found := match(data, at)) is not None:
        begin = found.end()
        end = begin + int(found[1], 16)
        if end == begin or data[end : end + 2] != LINE_END:
            break
        add(data[begin:end])
        at = end + 2
    return at
