"""The turns, runs and calls in progress of a connection or a pool, which draining waits for."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from trio_responses._concurrency import Notifier

if TYPE_CHECKING:
    from collections.abc import Generator

    from trio_responses._errors import ResponsesError

__all__ = ["ActiveWork"]


class ActiveWork:
    """The count of the turns, runs and calls that have begun and not ended.

    A run counts once, so that a drained run may still send the outputs of its tools. All
    connections of a pool share the count of the pool.
    """

    __slots__ = ("_changed", "count", "refusal")

    def __init__(self) -> None:
        self.count: int = 0
        """The number of turns, runs and calls that have begun and not ended."""
        self.refusal: ResponsesError | None = None
        """Why no other work may begin; `None` while it may."""
        self._changed = Notifier()

    def check(self) -> None:
        """Raise an error if no other work may begin.

        :raises ConnectionClosed: while the connection or the pool drains; nothing was sent.
        """
        if self.refusal is not None:
            raise self.refusal.copy_as_unsent()

    def begin(self) -> None:
        """Count a turn, a run or a call, until `end`.

        :raises ConnectionClosed: while the connection or the pool drains; nothing was sent.
        """
        if self.refusal is not None:
            raise self.refusal.copy_as_unsent()
        self.count += 1

    def end(self) -> None:
        """Stop counting a turn, a run or a call, which has ended."""
        self.count -= 1
        if self.refusal is not None and not self.count:
            self._changed.notify()

    @contextmanager
    def counted(self) -> Generator[None, None, None]:
        """Count a run or a call for the length of a block.

        :raises ConnectionClosed: as `begin` does.
        """
        self.begin()
        try:
            yield
        finally:
            self.end()

    def refuse(self, reason: ResponsesError) -> None:
        """Let no other work begin."""
        self.refusal = reason

    async def wait_idle(self) -> None:
        """Wait until all work has ended, after `refuse`. Not a checkpoint if there is none."""
        while self.count:
            await self._changed.wait()
