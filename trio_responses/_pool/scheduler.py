"""Which connection of a pool takes what comes next, who waits for one, and when to open another.

Everything here happens at once, between two awaits of others; the only waiting is that of a turn
or a guest for its place.

What belongs elsewhere: the face (`face.py`), the tasks (`tasks.py`), who is on a connection
(`member.py`), what a connection does with a turn (`connection/sending.py`).
"""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Protocol

import trio

from trio_responses._errors import ConnectError, DeliveryStatus
from trio_responses._pool.member import Member, Waiter

if TYPE_CHECKING:
    from trio_responses._connection.engine import ConnectionEngine
    from trio_responses._errors import ResponsesError
    from trio_responses._pool.member import Queue
    from trio_responses._turn.turn import Turn

__all__ = ["Bounds", "Scheduler", "Tasks", "is_permanent"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """How many of what."""

    size: int
    """How many connections there may be."""
    target_load: int
    """Turns and guests on each of them before another one is opened."""
    places: int
    """Turns on each of them before others wait."""
    pause: float
    """Seconds without another attempt after one has failed, while others are there."""


class Tasks(Protocol):
    """What the pool does for its spread."""

    def open_another(self) -> None:
        """Begin to open a connection; say `Spread.welcome` or `Spread.give_up` then.

        After a welcome, say what becomes of it: `Spread.lost`, `Spread.serve` when it has a socket
        again, `Spread.ended`.
        """
        ...

    def retire(self, member: Member) -> None:
        """Take note of a member that is over."""
        ...


class Scheduler:
    """The members of a pool, and those who wait for one.

    A turn takes a place for as long as its block lasts. Turns that find no place queue, and get
    one in the order they asked; so do guests, who would rather wait for a connection that is
    being opened than share a full one for life.

    :param tasks: what opens the connections, and tells of them.
    """

    def __init__(self, bounds: Bounds, tasks: Tasks) -> None:
        self.bounds: Bounds = bounds
        self._tasks = tasks
        self._turns: Queue = OrderedDict()
        self._pinned_queue: Queue = OrderedDict()
        self._arrivals = count()
        self._not_before = -math.inf
        self.members: list[Member] = []
        """The connections that are there, oldest first."""
        self.opening: int = 0
        """Connections that are being opened."""
        self.failures: int = 0
        """Connections that could not be opened."""
        self.end: ResponsesError | None = None
        """Why nobody gets a place any more."""

    @property
    def waiting(self) -> int:
        """Count the turns and guests without a place."""
        return self._homeless + sum(len(member.queue) for member in self.members)

    @property
    def _homeless(self) -> int:
        return len(self._turns) + len(self._pinned_queue)

    # --- Coming and going ----------------------------------------------------------------

    def arrive(self) -> int:
        """Give the number of one more who comes: the order in which places are given."""
        return next(self._arrivals)

    async def take_place(self, parent: str | None = None, arrival: int | None = None) -> Member:
        """Get a place for a turn, at once where there is one.

        :param parent: the response that it continues: it goes where that is from, as long as the
            socket is there, since the server may have it nowhere else.
        :param arrival: when it came, for one that has lost its place.
        :raises ResponsesError: when there is no connection and none can be opened.
        """
        self._check_end()
        home = self._home_of(parent) if parent is not None else None
        queue = self._turns if home is None else home.queue
        member = self._choose_for_turn(home) if not queue else None
        if member is None:
            return await self._wait_in(queue, arrival)
        member.turns += 1
        self._grow()
        return member

    def leave_place(self, member: Member, turn: Turn | None = None) -> None:
        """Give a place back: whoever has waited longest gets it."""
        member.turns -= 1
        if turn is not None:
            member.note_left(turn)
        self.serve()

    async def take_home(self) -> Member:
        """Get a connection for a guest, who stays there.

        :raises ResponsesError: when there is no connection and none can be opened.
        """
        self._check_end()
        member = self._choose_for_guest() if not self._pinned_queue else None
        if member is None:
            return await self._wait_in(self._pinned_queue)
        member.pinned += 1
        return member

    def leave_home(self, member: Member) -> None:
        """Let a guest go."""
        member.pinned -= 1
        self.serve()

    async def _wait_in(self, queue: Queue, arrival: int | None = None) -> Member:
        waiter = Waiter(self.arrive() if arrival is None else arrival)
        waiter.stand_in(queue)
        self.serve()
        try:
            await waiter.told.wait()
        except BaseException:
            waiter.leave()
            if waiter.member is not None:  # it was given a place that it cannot use
                leave = self.leave_home if queue is self._pinned_queue else self.leave_place
                leave(waiter.member)
            raise
        if waiter.member is None:
            assert waiter.error is not None  # noqa: S101 - one of the two was told
            raise waiter.error
        return waiter.member

    # --- What the pool's tasks have to say ---------------------------------------------------

    def welcome(self, engine: ConnectionEngine) -> Member:
        """Add a connection that was opened."""
        self.opening -= 1
        member = Member(engine)
        self.members.append(member)
        self.serve()
        return member

    def give_up(self, error: ResponsesError) -> None:
        """Note that a connection could not be opened.

        It matters to those who wait for one: at once where no attempt can help, as with a key
        that is refused; else where there is no other connection that may have them.
        """
        self.opening -= 1
        self.failures += 1
        self._not_before = trio.current_time() + self.bounds.pause
        self.drop_ended()
        if is_permanent(error) or not (self.members or self.opening):
            self._refuse(error)
        self.serve()

    def lost(self, member: Member) -> None:
        """Note that a member has no socket: who waits for it, or on it, may go elsewhere."""
        member.cancel_sending()
        self.serve()

    def ended(self, member: Member, error: ResponsesError) -> None:
        """Note that a member will have no socket again; another one is opened where there is need.

        Not where no attempt can help: then those who wait are told.
        """
        member.cancel_sending()
        self.drop_ended()
        if is_permanent(error):
            self._refuse(error)
        self.serve()

    def conclude(self, end: ResponsesError) -> None:
        """Give nobody a place any more."""
        if self.end is None:
            self.end = end
            for member in self.members:
                self._unhouse(member)
            self._refuse(end)

    def _refuse(self, error: ResponsesError) -> None:
        """Tell those who may go anywhere why there is nowhere to go."""
        for waiter in (*self._turns, *self._pinned_queue):
            waiter.tell(None, _twin(error))

    # --- Choosing ------------------------------------------------------------------------

    def _home_of(self, response_id: str) -> Member | None:
        present = (member for member in self.members if member.is_open)
        return next((member for member in present if member.has(response_id)), None)

    def _choose_for_turn(self, home: Member | None = None) -> Member | None:
        """Find the member for a turn: the one with the fewest who has a place."""
        members = self.members if home is None else (home,)
        free = (one for one in members if one.is_open and one.turns < self.bounds.places)
        return min(free, key=lambda member: member.load, default=None)

    def _choose_for_guest(self) -> Member | None:
        """Find the member for a guest; `None` where one is being opened that is better.

        One without a lane for it is the last choice: there is no other then, and it says so.
        """
        present = (member for member in self.members if member.is_open)
        least = min(
            present, key=lambda one: (one.engine.requests.lanes.exhausted, one.load), default=None
        )
        if least is not None and least.load >= self.bounds.target_load:
            self._grow(0 if self._pinned_queue else 1)
            return None if self.opening else least
        return least

    # --- Serving -------------------------------------------------------------------------

    def serve(self) -> None:
        """Give places to those who wait, longest first, and see to it that there are more."""
        self.drop_ended()
        while (pick := self._next_turn()) is not None:
            waiter, home = pick
            home.turns += 1
            waiter.tell(home)
        while self._pinned_queue and (member := self._choose_for_guest()) is not None:
            member.pinned += 1
            next(iter(self._pinned_queue)).tell(member)
        self._grow()

    def _next_turn(self) -> tuple[Waiter, Member] | None:
        """Find the turn that has waited longest of those that can have a place, and the place."""
        queues = [(self._turns, None), *((member.queue, member) for member in self.members)]
        heads = [(next(iter(queue)), home) for queue, home in queues if queue]
        for waiter, home in sorted(heads, key=lambda head: head[0].number):
            member = self._choose_for_turn(home)
            if member is not None:
                return waiter, member
        return None

    def _check_end(self) -> None:
        if self.end is not None:
            raise _twin(self.end)

    def drop_ended(self) -> None:
        """Forget members that are over; who waits for one without a socket may go anywhere."""
        for member in [one for one in self.members if not one.is_open]:
            self._unhouse(member)
            if member.is_over:
                self.members.remove(member)
                self._tasks.retire(member)

    def _unhouse(self, member: Member) -> None:
        for waiter in tuple(member.queue):
            waiter.leave()
            waiter.stand_in(self._turns)

    def _grow(self, coming: int = 0) -> None:
        """Open as many connections as those need who are here and who wait.

        Not while the server cannot be reached: where no member has a socket but one may have one
        again, that one is tried already.
        """
        if self.end is not None:
            return
        if self.members:
            resting = trio.current_time() < self._not_before
            if resting or not any(member.is_open for member in self.members):
                return
        demand = coming + self._homeless + sum(member.load for member in self.members)
        wanted = min(self.bounds.size, math.ceil(demand / self.bounds.target_load))
        for _ in range(wanted - len(self.members) - self.opening):
            self.opening += 1
            self._tasks.open_another()


def is_permanent(error: ResponsesError) -> bool:
    """Whether no other attempt to open a connection can help."""
    return isinstance(error, ConnectError) and not error.retryable


def _twin(error: ResponsesError) -> ResponsesError:
    copy_for_raise = error.copy_for_raise()
    copy_for_raise.delivery = DeliveryStatus.NOT_SENT
    return copy_for_raise
