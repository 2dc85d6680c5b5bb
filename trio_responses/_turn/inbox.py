"""The buffer of received events between the receive task and a reader, bounded in bytes.

The receive task adds a batch of events without waiting and wakes the reader once; the reader takes
the events one by one. Unread bytes count against the budget of the connection. A full budget stops
the receive task, so no event is dropped and a slow reader slows the server down.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from trio.lowlevel import checkpoint, checkpoint_if_cancelled

from trio_responses._concurrency import Notifier

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import trio

    from trio_responses._settings import Limits

__all__ = ["Budget", "Inbox"]

T = TypeVar("T")

EVENTS_PER_CHECKPOINT: Final = 32
"""A full checkpoint costs 2.8 us, a check for cancellation 0.14 us. So every event checks for
cancellation, and every 32nd event lets other tasks run. A reader takes several events at once and
executes a checkpoint for the last event of each batch and for every 32nd event."""


class Budget:
    """The count of unread bytes in all inboxes of one connection, and its limits."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._unread: set[Inbox[Any]] = set()
        self._overfull: set[Inbox[Any]] = set()
        self.changed: Notifier = Notifier()
        """Notifies that an event was read, or that a task has begun to wait for events."""
        self.unread_bytes: int = 0
        """The sum over all inboxes."""

    @property
    def full(self) -> bool:
        """Whether the unread bytes of all inboxes have reached the limit of the connection."""
        return self.unread_bytes >= self._limits.connection_buffer_bytes

    @property
    def any_limit_reached(self) -> bool:
        """Whether one inbox has reached its limit, or all inboxes together have reached theirs."""
        return bool(self._overfull) or self.full

    def add_bytes(self, inbox: Inbox[Any], size: int) -> None:
        """Add to the count of unread bytes of an inbox and of the connection.

        :param size: the number of bytes; negative for bytes that were read.
        """
        self.unread_bytes += size
        inbox.unread_bytes += size
        if inbox.unread_bytes:
            self._unread.add(inbox)
        else:
            self._unread.discard(inbox)
        if inbox.unread_bytes >= self._limits.turn_buffer_bytes:
            self._overfull.add(inbox)
        elif self._overfull:
            self._overfull.discard(inbox)
        if size < 0:
            self.changed.notify()

    def fullest(self) -> Inbox[Any] | None:
        """Return the inbox with the most unread bytes; `None` if all are empty."""
        return max(self._unread, key=lambda inbox: inbox.unread_bytes, default=None)


class Inbox(Generic[T]):
    """The events of one turn or of the raw channel, in the order in which they were received.

    :param budget: the count of unread bytes of the connection.
    """

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._batches: deque[tuple[Sequence[T], int]] = deque()
        self._batch: Sequence[T] = ()  # the batch that is being read, until its last event is taken
        self._next = 0
        self._last = 0  # the index of the last event of the batch
        self._batch_bytes = 0
        self._ready: Iterator[T] = iter(())
        self._since_checkpoint: int = 0
        self._arrived = Notifier()
        self.end: BaseException | None = None
        """The exception that readers get after the last event; set by `close`."""
        self.unread_bytes: int = 0
        """The bytes of the frames of the unread events; updated by the budget."""
        self.tasks_waiting: int = 0
        """The number of tasks that wait for a future event."""

    @property
    def empty(self) -> bool:
        """Whether every received event was taken."""
        return not (self._batch or self._batches)

    def put(self, events: Sequence[T], size: int) -> None:
        """Add the events of one batch, at least one, and wake the reader.

        :param size: the bytes of the frames of the events.
        """
        self._batches.append((events, size))
        self._budget.add_bytes(self, size)
        self._arrived.notify()

    def close(self, end: BaseException) -> None:
        """End the inbox: readers get an exception after the last event. The first call counts."""
        if self.end is None:
            self.end = end
        self._arrived.notify()

    def discard(self) -> None:
        """Discard the unread events and subtract their bytes from the budget."""
        self._batches.clear()
        self._batch, self._next, self._batch_bytes = (), 0, 0
        self._ready = iter(())
        self._budget.add_bytes(self, -self.unread_bytes)

    def take(self) -> T:
        """Return and remove the next event. Called directly after `wait`."""
        if not self._batch:
            self._batch, self._batch_bytes = self._batches.popleft()
            self._last = len(self._batch) - 1
        event = self._batch[self._next]
        if self._next == self._last:
            self._budget.add_bytes(self, -self._batch_bytes)
            self._batch, self._next = (), 0
        else:
            self._next += 1
        return event

    def take_ready(self) -> Sequence[T]:
        """Return and remove the events that may be read without a full checkpoint.

        Never the last event of a batch, and no event after the next full checkpoint.
        """
        allowed = EVENTS_PER_CHECKPOINT - 1 - self._since_checkpoint
        end = min(self._next + allowed, self._last)
        ready = self._batch[self._next : end]
        taken = len(ready)
        self._next += taken
        self._since_checkpoint += taken
        return ready

    async def wait(self) -> None:
        """Wait until an event can be taken. A check for cancellation; every 32nd is a checkpoint.

        :raises BaseException: the exception given to `close`, after the last event.
        """
        while True:
            if not self.empty:
                self._since_checkpoint += 1
                if self._since_checkpoint < EVENTS_PER_CHECKPOINT:
                    await checkpoint_if_cancelled()
                else:
                    self._since_checkpoint = 0
                    await checkpoint()
                if not self.empty:  # another reader may have taken it
                    return
            elif self.end is not None:
                await checkpoint()
                raise self.end
            else:
                self._since_checkpoint = 0
                await self.wait_for(self._arrived)

    async def receive(self) -> T:
        """Wait for the next event and return it. A checkpoint; if cancelled, no event is lost.

        Any number of tasks may call it at the same time.

        :raises BaseException: as `wait` does.
        """
        await checkpoint_if_cancelled()
        for event in self._ready:
            return event
        await self.wait()
        for event in self._ready:  # another reader has taken several and not read them all
            return event
        event = self.take()
        self._ready = iter(self.take_ready())
        return event

    async def wait_for(self, event: trio.Event | Notifier) -> None:
        """Wait for a Trio event that a server event will set, while the socket is read.

        A full inbox of another turn does not stop reading while a task waits here.
        """
        self.tasks_waiting += 1
        self._budget.changed.notify()
        try:
            await event.wait()
        finally:
            self.tasks_waiting -= 1
