"""Reads the chunks of an HTTP/1.1 answer in place of an HTTP library.

A server that streams events sends each in a chunk of its own, and h11 takes some 30 us for a chunk.
`ChunkReader` sits between the byte stream and h11, and separates what one read brings: the data of
the chunks, without their sizes, and the bytes for h11. Those are everything else: heads, answers
that are not chunked, the last chunk with its trailers, and whatever does not follow RFC 9112,
section 7.1, which h11 then refuses. So h11 reads a chunked answer as one with an empty body.

The reader is in one of these states:

* HEAD: the head of an answer is expected. It is kept until it is complete.
* SIZE: the line with the size of a chunk is expected. It is kept until it is complete.
* DATA: data of a chunk is expected, then CR LF.
* PASS: all bytes are for h11, until the next request (`ChunkReader.begin_answer`).
"""

from __future__ import annotations

import re
from enum import Enum, auto
from typing import Final, NamedTuple, final

__all__ = ["ChunkReader", "Separated"]

MAX_HEAD_BYTES: Final = 64 * 1024
"""A longer head passes as it is: h11 refuses it."""
MAX_SIZE_BYTES: Final = 1024
"""A longer line with the size of a chunk passes as it is."""
HEAD_END: Final = b"\r\n\r\n"
INTERIM: Final = re.compile(rb"HTTP/1\.[01] 1(?!01)[0-9]{2}[ \r]")
CHUNKED: Final = re.compile(rb"\r\ntransfer-encoding:[ \t]*chunked[ \t]*\r\n", re.IGNORECASE)
SIZE: Final = re.compile(rb"([0-9A-Fa-f]{1,15})(?:;[^\r\n]*)?\r\n")
SIZES: Final = re.compile(rb"\r\n([1-9A-Fa-f][0-9A-Fa-f]{0,14})\r\n")
"""What separates the data of chunks: a size, in the form that nearly all servers send."""
LENGTH: Final = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]{1,15})[ \t]*\r\n", re.IGNORECASE)
LINE_END: Final = b"\r\n"


class _State(Enum):
    """What the reader expects next."""

    HEAD = auto()
    SIZE = auto()
    DATA = auto()
    PASS = auto()


class Separated(NamedTuple):
    """What one read has brought."""

    passed: bytes = b""
    """The bytes for the HTTP library."""
    data: bytes = b""
    """The data of chunks, which comes before the last byte of `passed`."""


@final
class ChunkReader:
    """A filter for the bytes of one HTTP/1.1 connection, in the direction of the client."""

    def __init__(self) -> None:
        self._state = _State.HEAD
        self._kept: bytes = b""
        """The beginning of a head, of a line with a size, or of the CR LF after data."""
        self._missing = 0
        """How many bytes of the present chunk were not received."""
        self._length: int | None = None
        """How many bytes are left of a body whose length the head states."""
        self.has_stray_bytes: bool = False
        """Whether bytes came after the end of the answer, which no later answer may begin with."""

    @property
    def in_chunks(self) -> bool:
        """Whether the next bytes belong to the chunks of an answer."""
        return self._state is _State.DATA or self._state is _State.SIZE

    def begin_answer(self) -> None:
        """Expect the head of another answer. Called when a request is written."""
        self._state = _State.HEAD
        self._kept = b""
        self._length = None

    def feed(self, data: bytes) -> Separated:
        """Separate the bytes of one read; both parts are empty while a head or size is incomplete.

        :param data: at least one byte.
        """
        if self._state is _State.PASS:
            self._count(len(data))
            return Separated(data)
        data, self._kept = self._kept + data, b""
        if self._state is not _State.HEAD:
            return self._read_chunks(data)
        start = 0
        while True:
            end = data.find(HEAD_END, start)
            if end < 0:
                if len(data) - start > MAX_HEAD_BYTES:
                    self._state = _State.PASS
                    return Separated(data)
                self._kept = data[start:]
                return Separated(data[:start])
            head = data[start : end + len(LINE_END)]
            start, is_interim = end + len(HEAD_END), INTERIM.match(head)
            if is_interim is None:
                break
        if CHUNKED.search(head) is None:
            self._state = _State.PASS
            stated = LENGTH.search(head)
            self._length = int(stated[1]) if stated is not None else None
            self._count(len(data) - start)
            return Separated(data)
        self._state = _State.SIZE
        rest, found = self._read_chunks(data[start:])
        return Separated(data[:start] + rest, found)

    def _read_chunks(self, data: bytes) -> Separated:
        """Return the data of the chunks, and the bytes that follow the last of them."""
        pieces: list[bytes] = []
        length, at = len(data), 0
        rest = b""
        while at < length:
            if self._state is _State.SIZE:
                at = _read_whole(data, at, pieces)
                if at == length:
                    break
                found = SIZE.match(data, at)
                if found is None:
                    rest = self._incomplete(data[at:])
                    break
                self._missing = int(found[1], 16)
                if not self._missing:  # the last chunk
                    self._state = _State.PASS
                    rest = data[at:]
                    self._check_end(data[found.end() :])
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
                else:  # an empty line is no size: h11 refuses it at once
                    self._state = _State.PASS
                    rest = LINE_END + data[end:]
                break
            at = end + 2
            self._state = _State.SIZE
        return Separated(rest, b"".join(pieces))

    def _count(self, size: int) -> None:
        """Count bytes of a body whose length the head states."""
        if self._length is not None:
            self._length -= size
            self.has_stray_bytes = self.has_stray_bytes or self._length < 0

    def _check_end(self, trailers: bytes) -> None:
        """Find out whether bytes follow the trailers, which an empty line ends."""
        if trailers.startswith(LINE_END):
            end = len(LINE_END)
        elif (found := trailers.find(HEAD_END)) >= 0:
            end = found + len(HEAD_END)
        else:
            return
        self.has_stray_bytes = len(trailers) > end

    def _incomplete(self, line: bytes) -> bytes:
        """Keep the beginning of a line with a size; return a line that is none."""
        may_be_size = len(line) <= MAX_SIZE_BYTES and b"\n" not in line
        if may_be_size:
            self._kept = line
            return b""
        self._state = _State.PASS
        return line


def _read_whole(data: bytes, at: int, pieces: list[bytes]) -> int:
    """Add the data of the whole chunks from an index on to the pieces; return their end."""
    # Nearly all chunks are found by one split in C. What may be one more is read below.
    before, *found = SIZES.split(LINE_END + data[at:])
    sizes, chunks = found[:-2:2], found[1:-2:2]
    stated = b" ".join(sizes).lower()
    count, lengths = len(chunks), tuple(map(len, chunks))
    if not before and stated == b" ".join([b"%x"] * count) % lengths:
        pieces += chunks
        at += len(b"".join(sizes)) + sum(lengths) + 2 * len(LINE_END) * count
    match, add = SIZE.match, pieces.append
    while (line := match(data, at)) is not None:
        begin = line.end()
        end = begin + int(line[1], 16)
        if end == begin or data[end : end + 2] != LINE_END:
            break
        add(data[begin:end])
        at = end + 2
    return at
