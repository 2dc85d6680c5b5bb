"""Lines of input for a chat that is not edited in a terminal: from a pipe, a file or memory."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Final, Protocol, final

import trio

if TYPE_CHECKING:
    from typing import TextIO

__all__ = ["LineReader", "TextLineReader"]

READ_SIZE: Final = 65536


class LineReader(Protocol):
    """The interface of a source of input."""

    async def read_line(self) -> str | None:
        """Wait for the next message or command; return `None` at the end of the input.

        A cancelled call loses no input.
        """
        ...


@final
class TextLineReader:
    """A reader of lines from an open text file: a terminal, a pipe, a disk file or memory.

    Where the system can report that input is ready, no thread reads: a thread blocked in a read
    cannot be cancelled, and delays the exit of the interpreter.
    """

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._unread = b""
        self._at_end = False
        try:
            self._descriptor: int | None = file.fileno()
        except (OSError, ValueError):  # the file is in memory
            self._descriptor = None
        if sys.platform == "win32":  # where Trio can wait for sockets only
            self._descriptor = None

    async def read_line(self) -> str | None:
        """Wait for the next line; return `None` at the end of the input.

        A cancelled call loses no input, unless a thread has to read.
        """
        if self._descriptor is None:
            line = await trio.to_thread.run_sync(self._file.readline, abandon_on_cancel=True)
            return line.rstrip("\r\n") if line else None
        while b"\n" not in self._unread and not self._at_end:
            await self._read_more(self._descriptor)
        await trio.lowlevel.checkpoint()
        if not self._unread:
            return None
        line_bytes, _, self._unread = self._unread.partition(b"\n")
        return line_bytes.decode(self._file.encoding or "utf-8", errors="replace").rstrip("\r")

    async def _read_more(self, descriptor: int) -> None:
        try:
            await trio.lowlevel.wait_readable(descriptor)
        except PermissionError:  # epoll rejects disk files, which are always ready
            await trio.lowlevel.checkpoint()
        try:
            data = os.read(descriptor, READ_SIZE)
        except BlockingIOError:
            return
        except OSError:  # the terminal was closed
            data = b""
        self._unread += data
        self._at_end = not data
