"""Where events wait for their reader: bounded in bytes, filled by batches, read one by one.

The receive task puts a batch in without waiting and wakes the reader once; the reader takes
event by event. What is unread counts against a budget, and a spent budget stops the receive
task, never the other way round: nothing is dropped (P6).

What belongs elsewhere: whose event it is (`core/lanes.py`).
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from trio.lowlevel import checkpoint, checkpoint_if_cancelled

from trio_responses._concurrency import Notifier

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterator, Sequence

    import trio

    from trio_responses._settings import Limits

__all__ = ["Budget", "Inbox"]

T = TypeVar("T")

EVENTS_PER_TURN_OF_THE_LOOP: Final = 32
"""A full checkpoint costs 2.8 us, a look for cancellation 0.14 us: so every event looks, and
every 32nd lets the others run. A reader takes several at once, and comes here for the last event
of each batch, and for every 32nd."""


class Budget:
    """The unread bytes of all inboxes of one connection."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._changed = Notifier()
        self._unread: set[Inbox[Any]] = set()
        self._overfull: set[Inbox[Any]] = set()
        self.unread_bytes: int = 0
        """Bytes in all inboxes together."""

    @property
    def full(self) -> bool:
        """Whether all inboxes together have reached the connection's limit."""
        return self.unread_bytes >= self._limits.connection_buffer_bytes

    @property
    def tight(self) -> bool:
        """Whether an inbox has reached its own limit, or all together theirs."""
        return bool(self._overfull) or self.full

    def account(self, inbox: Inbox[Any], size: int) -> None:
        """Count bytes that came into an inbox, or, negative, that were read from it."""
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
            self.notify()

    def notify(self) -> None:
        """Let whoever waits for room look again."""
        self._changed.notify()

    async def wait_for_change(self) -> None:
        """Wait until something was read, or somebody came to wait. Several tasks may do so."""
        await self._changed.wait()

    def fullest(self) -> Inbox[Any] | None:
        """Give the inbox with the most unread bytes."""
        return max(self._unread, key=lambda inbox: inbox.unread_bytes, default=None)


class Inbox(Generic[T]):
    """The events of one turn, or of the raw channel, in order.

    :param budget: the connection's account of unread bytes.
    """

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._batches: deque[tuple[Sequence[T], int]] = deque()
        self._batch: Sequence[T] = ()  # the one that is being read, from here on
        self._next = 0
        self._batch_bytes = 0
        self._ready: Iterator[T] = iter(())
        self._since_checkpoint: int = 0
        self._arrived = Notifier()
        self.end: BaseException | None = None
        """What readers are told behind the last event; set by `close`."""
        self.unread_bytes: int = 0
        """Bytes of the frames behind the unread events; kept by the budget."""
        self.awaited: int = 0
        """How many tasks wait for something that is to come: the next event, for one."""

    @property
    def empty(self) -> bool:
        """Whether all that came was taken."""
        return self._next == len(self._batch) and not self._batches

    def put(self, events: Sequence[T], size: int) -> None:
        """Add the events of one batch, which are some, and wake the reader.

        :param size: the bytes of their frames.
        """
        self._batches.append((events, size))
        self._budget.account(self, size)
        self._arrived.notify()

    def close(self, end: BaseException) -> None:
        """Let no more events come: behind the last one, readers get this exception."""
        if self.end is None:
            self.end = end
        self._arrived.notify()

    def discard(self) -> None:
        """Throw away what is unread and give its bytes back."""
        self._batches.clear()
        self._batch, self._next, self._batch_bytes = (), 0, 0
        self._ready = iter(())
        self._budget.account(self, -self.unread_bytes)

    def take(self) -> T:
        """Take the next event, which must be there: `wait` has said so."""
        if self._next == len(self._batch):
            (self._batch, self._batch_bytes), self._next = self._batches.popleft(), 0
        event = self._batch[self._next]
        self._next += 1
        if self._next == len(self._batch):
            self._budget.account(self, -self._batch_bytes)
            self._batch, self._next = (), 0
        return event

    def take_ready(self) -> Sequence[T]:
        """Take what needs no wait, but a look for cancellation before each.

        Never the last event of a batch, and no more than up to the next turn of the loop.
        """
        room = EVENTS_PER_TURN_OF_THE_LOOP - 1 - self._since_checkpoint
        end = min(self._next + room, len(self._batch) - 1)
        ready = self._batch[self._next : end]
        self._next += len(ready)
        self._since_checkpoint += len(ready)
        return ready

    async def wait(self) -> None:
        """Wait until there is an event to take. A checkpoint, every 32nd time a whole one.

        :raises BaseException: what `close` was given, once all events are read.
        """
        while True:
            if not self.empty:
                await self._checkpoint()
                if not self.empty:  # another reader may have been faster meanwhile
                    return
            elif self.end is not None:
                await checkpoint()
                raise self.end
            else:
                self._since_checkpoint = 0
                await self.wait_for(self._arrived)

    async def receive(self) -> T:
        """Wait for the next event and take it. A checkpoint; when cancelled, no event is lost.

        For any number of readers.

        :raises BaseException: as `wait` does.
        """
        await checkpoint_if_cancelled()
        for event in self._ready:
            return event
        await self.wait()
        for event in self._ready:  # another reader has taken more than it has read
            return event
        event = self.take()
        self._ready = iter(self.take_ready())
        return event

    def _checkpoint(self) -> Awaitable[None]:
        self._since_checkpoint += 1
        if self._since_checkpoint < EVENTS_PER_TURN_OF_THE_LOOP:
            return checkpoint_if_cancelled()  # noqa: ASYNC105 - the caller awaits it
        self._since_checkpoint = 0
        return checkpoint()  # noqa: ASYNC105 - likewise

    async def wait_for(self, event: trio.Event | Notifier) -> None:
        """Wait for what events that are still to come will bring: for them there must be room."""
        self.awaited += 1
        self._budget.notify()
        try:
            await event.wait()
        finally:
            self.awaited -= 1
