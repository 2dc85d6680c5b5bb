"""A lock that costs little while it is free.

`trio.Lock` lets the other tasks run at every acquisition: a full checkpoint, some 3 us. On the
way of a request there are several locks, hardly ever held, and a socket that waits anyway.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["QuickLock"]


class QuickLock:
    """A fair lock, as an async context manager. Waits only while somebody else has it.

    Entering is a cancellation point; it lets others run only where it has to wait.
    """

    def __init__(self) -> None:
        self._lock = trio.Lock()

    def locked(self) -> bool:
        """Whether somebody has it."""
        return self._lock.locked()

    async def __aenter__(self) -> None:
        """Wait for it, in the order of coming."""
        await trio.lowlevel.checkpoint_if_cancelled()
        try:
            self._lock.acquire_nowait()
        except trio.WouldBlock:
            await self._lock.acquire()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Give it to the next one."""
        self._lock.release()
