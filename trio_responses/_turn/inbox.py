"""The buffer of received events between the receive task and a reader, bounded in bytes.

The receive task adds a batch of events without waiting and wakes the reader once; the reader takes
the events one by one, or all that are there. Unread bytes count against the budget of the
connection. A full budget stops the receive task, so no event is dropped and a slow reader slows the
server down.

A wake of a reader runs with cold caches, so its cost follows the number of calls. That is why a
reader waits by `trio.lowlevel` directly, and why `Inbox` and `Budget` share their counters.
"""

from __future__ import annotations

from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from trio.lowlevel import (
    Abort,
    checkpoint,
    checkpoint_if_cancelled,
    current_task,
    enable_ki_protection,
    reschedule,
    wait_task_rescheduled,
)

from trio_responses._concurrency import Notifier

if TYPE_CHECKING:
    from collections.abc import Sequence

    import trio

    from trio_responses._settings import Limits

__all__ = ["Budget", "Inbox"]

T = TypeVar("T")

EVENTS_PER_CHECKPOINT: Final = 32
"""A full checkpoint costs 2.8 us, a check for cancellation 0.14 us. So every event checks for
cancellation, and every 32nd event that was already there lets other tasks run."""

EVENTS_PER_BATCH: Final = 1024
"""The number of events from which on `Inbox.take_batch` adds no further batch, so that a reader
which takes batches is busy for a limited time."""

NO_BATCH: Final = ((), 0)


class Budget:
    """The count of unread bytes in all inboxes of one connection, and its limits."""

    __slots__ = ("_limits", "_overfull", "_unread", "any_limit_reached", "changed", "unread_bytes")

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._unread: set[Inbox[Any]] = set()
        self._overfull: set[Inbox[Any]] = set()
        self.changed: Notifier = Notifier()
        """Notifies that an event was read, or that a task has begun to wait for events. Nobody is
        notified while no limit is reached, since the receive task waits only then."""
        self.unread_bytes: int = 0
        """The sum over all inboxes."""
        self.any_limit_reached: bool = False
        """Whether one inbox has reached its limit, or all inboxes together have reached theirs."""

    @property
    def full(self) -> bool:
        """Whether the unread bytes of all inboxes have reached the limit of the connection."""
        return self.unread_bytes >= self._limits.connection_buffer_bytes

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
        was_reached = self.any_limit_reached
        self.any_limit_reached = (
            bool(self._overfull) or self.unread_bytes >= self._limits.connection_buffer_bytes
        )
        if was_reached and size < 0:
            self.changed.notify()

    def fullest(self) -> Inbox[Any] | None:
        """Return the inbox with the most unread bytes; `None` if all are empty."""
        return max(self._unread, key=lambda inbox: inbox.unread_bytes, default=None)


class Inbox(Generic[T]):
    """The events of one turn or of the raw channel, in the order in which they were received.

    A reader calls `wait`, and then one of the methods that take events, without an ``await`` in
    between. The events that `take` returns beside the next one are never the last ones of their
    batch: while a reader holds such events, the inbox is not empty unless it was discarded.

    :param budget: the count of unread bytes of the connection.
    """

    __slots__ = (
        "_batch",
        "_batch_bytes",
        "_budget",
        "_later",
        "_next",
        "_ready",
        "_since_checkpoint",
        "_sleepers",
        "end",
        "tasks_waiting",
        "unread_bytes",
    )

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._batch: Sequence[T] = ()
        """The batch that is read next, until its last event is taken; empty if there is none."""
        self._next = 0
        self._batch_bytes = 0
        self._later: deque[tuple[Sequence[T], int]] | None = None
        """The batches after that one. Most readers are so fast that no deque is needed."""
        self._ready: list[T] = []
        """Events that `receive` has taken and not returned, the next one at the end."""
        self._since_checkpoint: int = 0
        self._sleepers: tuple[trio.lowlevel.Task, ...] = ()
        """The tasks in `wait`, which sleep until events are put or the inbox is closed."""
        self.end: BaseException | None = None
        """The exception that readers get after the last event; set by `close`."""
        self.unread_bytes: int = 0
        """The bytes of the frames of the unread events; updated by the budget."""
        self.tasks_waiting: int = 0
        """The number of tasks that wait for a future event."""

    @property
    def empty(self) -> bool:
        """Whether every received event was taken."""
        return not self._batch

    # --- The receive task ----------------------------------------------------------------

    def put(self, events: Sequence[T], size: int) -> None:
        """Add the events of one batch, at least one, and wake the reader.

        :param events: belong to the inbox, and then to its reader, from now on.
        :param size: the bytes of the frames of the events.
        """
        if not self._batch:
            self._batch, self._batch_bytes = events, size
        elif self._later is None:
            self._later = deque([(events, size)])
        else:
            self._later.append((events, size))
        self._budget.add_bytes(self, size)
        if self._sleepers:
            self._wake()

    def close(self, end: BaseException) -> None:
        """End the inbox: readers get an exception after the last event. The first call counts."""
        if self.end is None:
            self.end = end
        self._wake()

    def discard(self) -> None:
        """Discard the unread events and subtract their bytes from the budget."""
        if self._batch:
            self._batch, self._next, self._later, self._ready = (), 0, None, []
            self._budget.add_bytes(self, -self.unread_bytes)

    @enable_ki_protection
    def _wake(self) -> None:
        sleepers, self._sleepers = self._sleepers, ()
        for task in sleepers:
            reschedule(task)

    # --- Readers -------------------------------------------------------------------------

    @enable_ki_protection  # an interrupt must not leave a task among the sleepers that runs
    async def wait(self) -> None:
        """Wait until an event can be taken. A check for cancellation; every 32nd is a checkpoint.

        A task that an event has woken does not check for cancellation again: the event is its
        result, and the next call is cancelled. So a cancellation loses no event.

        :raises BaseException: the exception given to `close`, after the last event.
        """
        if self._batch:
            self._since_checkpoint += 1
            if self._since_checkpoint < EVENTS_PER_CHECKPOINT:
                await checkpoint_if_cancelled()
                return
            self._since_checkpoint = 0
            await checkpoint()
        while not self._batch:  # also where another reader has taken it
            if self.end is not None:
                await checkpoint()
                raise self.end
            self._since_checkpoint = 0
            task = current_task()
            self._sleepers += (task,)
            self.tasks_waiting += 1
            if self._budget.any_limit_reached:
                self._budget.changed.notify()
            try:
                await wait_task_rescheduled(partial(self._stop_sleeping, task))
            finally:
                self.tasks_waiting -= 1

    def _stop_sleeping(self, task: trio.lowlevel.Task, _: Any) -> Abort:
        """Forget a task in `wait` that is cancelled, and let Trio wake it."""
        self._sleepers = tuple(one for one in self._sleepers if one is not task)
        return Abort.SUCCEEDED

    def take(self, *, ready: bool = True) -> tuple[T, list[T]]:
        """Remove the next event, and those after it that may be read without a full checkpoint.

        Called directly after `wait`. Return the event, and the others with the next one at the end.
        They are never the last one of their batch, and none is after the next full checkpoint.

        :param ready: whether other events than the next one are taken.
        """
        batch, start = self._batch, self._next + 1
        event, last = batch[self._next], len(batch) - 1
        if start > last:
            size, self._next = self._batch_bytes, 0
            self._batch, self._batch_bytes = self._later.popleft() if self._later else NO_BATCH
            self._budget.add_bytes(self, -size)
            return event, []
        allowed = EVENTS_PER_CHECKPOINT - 1 - self._since_checkpoint if ready else 0
        self._next = end = min(last, start + allowed)
        self._since_checkpoint += end - start
        return event, list(batch[end - 1 : start - 1 : -1])

    def take_batch(self) -> Sequence[T]:
        """Return and remove all events, of many only the first `EVENTS_PER_BATCH` or some more.

        Called directly after `wait`. Their bytes are subtracted from the budget at once.
        """
        events = self._batch[self._next :] if self._next else self._batch
        size = self._batch_bytes
        if self._later:
            events = list(events)
            while self._later and len(events) < EVENTS_PER_BATCH:
                more, more_bytes = self._later.popleft()
                events += more
                size += more_bytes
        self._since_checkpoint += len(events) - 1  # `wait` has counted one
        self._next = 0
        self._batch, self._batch_bytes = self._later.popleft() if self._later else NO_BATCH
        self._budget.add_bytes(self, -size)
        return events

    async def receive(self) -> T:
        """Wait for the next event and return it. A checkpoint; if cancelled, no event is lost.

        Any number of tasks may call it at the same time.

        :raises BaseException: as `wait` does.
        """
        if self._ready:
            await checkpoint_if_cancelled()
        else:
            await self.wait()
        if self._ready:  # also where another reader has taken several and not read them all
            return self._ready.pop()
        event, self._ready = self.take()
        return event

    async def wait_for(self, event: trio.Event) -> None:
        """Wait for a Trio event that a server event will set, while the socket is read.

        A full inbox of another turn does not stop reading while a task waits here.
        """
        self.tasks_waiting += 1
        self._budget.changed.notify()
        try:
            await event.wait()
        finally:
            self.tasks_waiting -= 1
