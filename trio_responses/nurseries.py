"""Nurseries whose single failure stays that failure.

P1: what goes wrong alone leaves a block as itself, not wrapped in an ``ExceptionGroup``. A
nursery always wraps; this is the one place that unwraps.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, final

import trio

from trio_responses.errors import ConnectionClosed

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable
    from types import TracebackType

__all__ = ["open_plain_nursery", "open_until_left"]


@final
class open_plain_nursery:  # noqa: N801 - it is called like `trio.open_nursery`
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
async def open_until_left(
    close: Callable[[], Awaitable[None]],
) -> AsyncGenerator[trio.Nursery, None]:
    """Open a plain nursery for something that runs in it, and close that when the block is left.

    What the block raises comes out, also where the scope around is cancelled; but where a task of
    the nursery has crashed, that crash, and not the `ConnectionClosed` that followed from it.
    """
    async with open_plain_nursery() as nursery:
        try:
            yield nursery
        except ConnectionClosed:
            if nursery.cancel_scope.cancel_called:
                await trio.lowlevel.checkpoint()
            raise
        finally:
            with trio.CancelScope(shield=True):  # a Cancelled would take the block's error away
                await close()
