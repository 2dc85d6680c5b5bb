"""What tasks of one connection wait for each other with. It costs little while nobody waits.

`trio.Lock` lets the other tasks run at every acquisition: a full checkpoint, some 3 us. On the
way of a request there are several locks, hardly ever held, and a socket that waits anyway.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, final

import trio

from trio_responses._errors import ConnectionClosed

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable
    from types import TracebackType

__all__ = ["FastLock", "Notifier", "open_closing_nursery", "open_collapsing_nursery"]


class FastLock:
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


class Notifier:
    """Something that happens again and again: who waits is told of the next time."""

    __slots__ = ("_event",)

    def __init__(self) -> None:
        self._event: trio.Event | None = None

    def notify(self) -> None:
        """Wake everybody who waits."""
        if self._event is not None:
            self._event.set()
            self._event = None

    async def wait(self) -> None:
        """Wait for the next time. A checkpoint."""
        if self._event is None:
            self._event = trio.Event()
        await self._event.wait()


@final
class open_collapsing_nursery:  # noqa: N801 - it is called like `trio.open_nursery`
    """Open a nursery that raises a lone exception as it is, for the length of an ``async with``.

    Several at once still make a group; cancellations beside an exception are not counted: where
    the scope around it is cancelled, too, they would be taken out of the group further out, and
    leave a group of one. A group that the block raises of its own accord is a lone exception.
    """

    # No generator: every socket keeps nurseries open, and this is the smaller and faster way.
    __slots__ = ("_manager",)

    def __init__(self) -> None:
        self._manager = trio.open_nursery()

    async def __aenter__(self) -> trio.Nursery:
        """Open it."""
        return await self._manager.__aenter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        """Wait for its tasks."""
        try:
            return await self._manager.__aexit__(kind, error, traceback)
        except BaseExceptionGroup as group:
            _, errors = group.split(trio.Cancelled)
            if errors is None:
                raise
            lone, *others = errors.exceptions
            if others:
                raise
            if lone is error:
                return False  # the block's own one goes on
            # The group's own context is the nursery's business, not the reader's.
            context = lone.__context__
            try:
                raise lone
            finally:
                lone.__context__ = context


@asynccontextmanager
@trio.lowlevel.enable_ki_protection
async def open_closing_nursery(
    close: Callable[[], Awaitable[None]],
) -> AsyncGenerator[trio.Nursery, None]:
    """Open a plain nursery for something that runs in it, and close that when the block is left.

    What the block raises comes out, also where the scope around is cancelled; but where a task of
    the nursery has crashed, that crash, and not the `ConnectionClosed` that followed from it.
    """
    async with open_collapsing_nursery() as nursery:
        try:
            yield nursery
        except ConnectionClosed:
            if nursery.cancel_scope.cancel_called:
                await trio.lowlevel.checkpoint()
            raise
        finally:
            with trio.CancelScope(shield=True):  # a Cancelled would take the block's error away
                await close()
