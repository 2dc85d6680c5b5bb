"""Lines from the standard input, while the event loop goes on.

No thread reads them where the system can say that there is something to read: a thread that
waits for a person cannot be cancelled, and holds the interpreter up when it ends.

What belongs elsewhere: what is done with a line (`chat.py`).
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Final, Protocol, final

import trio

if TYPE_CHECKING:
    from typing import TextIO

__all__ = ["FileLines", "Lines"]

PIECE: Final = 65536


class Lines(Protocol):
    """Where a chat gets its lines from."""

    async def read(self) -> str | None:
        """Wait for a line; `None` when there will be no more. When cancelled, none is lost."""
        ...


@final
class FileLines:
    """The lines of a text file that is open: a terminal, a pipe, a file, or one in memory."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._unread = b""
        self._ended = False
        try:
            self._descriptor: int | None = file.fileno()
        except (OSError, ValueError):  # it is in memory
            self._descriptor = None
        if sys.platform == "win32":  # where only sockets can be waited for
            self._descriptor = None

    async def read(self) -> str | None:
        """Wait for a line; `None` when there will be no more."""
        if self._descriptor is None:
            line = await trio.to_thread.run_sync(self._file.readline, abandon_on_cancel=True)
            return line.rstrip("\r\n") if line else None
        while b"\n" not in self._unread and not self._ended:
            await self._read_more(self._descriptor)
        await trio.lowlevel.checkpoint()
        if not self._unread:
            return None
        line_bytes, _, self._unread = self._unread.partition(b"\n")
        return line_bytes.decode(self._file.encoding or "utf-8", errors="replace").rstrip("\r")

    async def _read_more(self, descriptor: int) -> None:
        try:
            await trio.lowlevel.wait_readable(descriptor)
        except PermissionError:  # a file on a disk is always ready, and epoll will not say so
            await trio.lowlevel.checkpoint()
        try:
            piece = os.read(descriptor, PIECE)
        except BlockingIOError:
            return
        except OSError:  # the terminal is gone
            piece = b""
        self._unread += piece
        self._ended = not piece
