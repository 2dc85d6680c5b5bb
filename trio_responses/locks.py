"""What tasks of one connection wait for each other with. It costs little while nobody waits.

`trio.Lock` lets the other tasks run at every acquisition: a full checkpoint, some 3 us. On the
way of a request there are several locks, hardly ever held, and a socket that waits anyway.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["Change", "QuickLock"]


class QuickLock:
    """A fair lock, as an async context manager. Waits only while somebody else has it.

    Entering is a cancellation point; it lets others run only where it has to wait.
    """

    __slots__ = ("_held", "_queue")

    def __init__(self) -> None:
        self._held = False
        self._queue: trio.lowlevel.ParkingLot | None = None

    def locked(self) -> bool:
        """Whether somebody has it."""
        return self._held

    async def __aenter__(self) -> None:
        """Wait for it, in the order of coming."""
        await trio.lowlevel.checkpoint_if_cancelled()
        if not self._held:
            self._held = True
            return
        if self._queue is None:
            self._queue = trio.lowlevel.ParkingLot()
        await self._queue.park()  # and wake up as the one who has it

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Give it to the next one."""
        if self._queue:
            self._queue.unpark()
        else:
            self._held = False


class Change:
    """Something that happens again and again: who waits is told of the next time."""

    __slots__ = ("_event",)

    def __init__(self) -> None:
        self._event: trio.Event | None = None

    def tell(self) -> None:
        """Wake everybody who waits."""
        if self._event is not None:
            self._event.set()
            self._event = None

    async def wait(self) -> None:
        """Wait for the next time. A checkpoint."""
        if self._event is None:
            self._event = trio.Event()
        await self._event.wait()
