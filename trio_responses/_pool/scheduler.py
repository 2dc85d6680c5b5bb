"""The scheduler of a pool, which assigns a connection to each turn, lane and conversation.

A turn takes a *place* on a connection before its request is sent, and releases the place when its
block is left. A connection has as many places as a server runs responses at the same time.

1. A turn gets a place on the open connection with the lowest load.
2. A turn that continues a response of an open connection gets a place on this connection only,
   because the server may keep the response nowhere else. If the server has stored the response,
   the turn gets any free place, preferably on this connection.
3. A turn waits while no such place is free. Places are assigned in the order of arrival. A turn
   that waits for one connection does not delay the turns that may use any.

A lane or a conversation takes no place, but is *pinned* to one connection.

4. A lane or a conversation is pinned to the open connection with the lowest load. Connections
   without a free lane come last.
5. While the lowest load is the target load or more, and another connection is being opened, lanes
   and conversations wait in the order of arrival.

Connections are opened as the pool needs them.

6. The pool needs as many connections as distribute its load at the target load, up to its size.
   The load of a pool is the load of its connections plus the number of waiters.
7. No connection is opened while the server may be unreachable: while all connections are without
   a socket (each reconnects by itself), and for some seconds after a connection could not be
   opened. A pool without connections opens one in any case.

Connections fail.

8. When a connection loses its socket, its requests that are not sent yet and the turns that wait
   for a place on this connection may use any connection. They keep their order of arrival.
9. When a connection ends, rule 8 applies, and the connection leaves the pool.
10. When a connection cannot be opened, and no other one exists or is being opened, all waiters
    fail. When no other attempt can succeed, for example because the server rejects the key, all
    waiters fail at once, except the turns that wait for one open connection.
11. When the pool is closed, all waiters and all later ones fail.

`Scheduler.assign` applies rules 1 to 7 after each change. Only `acquire` and `pin` wait; all other
methods end before another task runs.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from dataclasses import dataclass
from itertools import count
from operator import attrgetter
from typing import TYPE_CHECKING, Final

import trio

from trio_responses._errors import ConnectError
from trio_responses._pool.connection import PooledConnection
from trio_responses._pool.statistics import EndedConnections

if TYPE_CHECKING:
    from collections.abc import Callable

    from trio_responses._connection.engine import ConnectionEngine
    from trio_responses._errors import ResponsesError
    from trio_responses._turn.attempt import TurnAttempt

__all__ = ["PoolLimits", "Scheduler", "is_permanent"]

ARRIVAL: Final = attrgetter("arrival")
LOAD: Final = attrgetter("load")
LANES_AND_LOAD: Final = attrgetter("lanes_exhausted", "load")


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolLimits:
    """The limits by which a scheduler assigns and opens connections."""

    size: int
    """The largest number of connections."""
    target_load: int
    """The load of each connection above which another connection is opened."""
    places: int
    """The largest number of turns on a connection."""
    retry_pause: float
    """Seconds for which no connection is opened after a failure, unless the pool has none."""


class Scheduler:
    """The scheduler of one pool, which assigns a connection to each turn, lane and conversation.

    The supervisor of the pool opens a connection for each item of `opening_requests`.
    """

    def __init__(self, limits: PoolLimits) -> None:
        self.limits = limits
        self.connections: list[PooledConnection] = []
        """The connections of the pool, oldest first."""
        self.opening: int = 0
        """The number of connections that are being opened."""
        self.failures: int = 0
        """The number of connections that could not be opened."""
        self.ended: EndedConnections = EndedConnections()
        """The counters of the connections that have left the pool."""
        self.closed_with: ResponsesError | None = None
        """Why no connection is assigned any more; `None` while the pool is open."""
        self._turns = WaitQueue()
        self._pins = WaitQueue()
        self._arrivals = count()
        self._paused_until = -math.inf
        self.opening_requests: trio.MemoryReceiveChannel[None]
        self._request_opening, self.opening_requests = trio.open_memory_channel[None](math.inf)

    @property
    def waiting(self) -> int:
        """The number of turns, lanes and conversations that wait for a connection."""
        return len(self._turns) + len(self._pins)

    # --- For turns, lanes and conversations ------------------------------------------------

    def next_arrival(self) -> int:
        """Return the arrival number of a new turn, lane or conversation."""
        return next(self._arrivals)

    async def acquire(
        self, parent: str | None = None, arrival: int | None = None
    ) -> PooledConnection:
        """Wait for a place for a turn on a connection, and take the place.

        If cancelled, no place is taken.

        :param parent: the id of the response that the turn continues.
        :param arrival: the arrival number of a turn that has had a place before.
        :raises ResponsesError: when the pool has no connection and none can be opened.
        """
        waiter = Waiter(self.next_arrival() if arrival is None else arrival)
        if parent is not None:
            waiter.preferred = self._connection_of(parent)
            if waiter.preferred is not None and not waiter.preferred.has_stored_response(parent):
                waiter.bound_to = waiter.preferred
        return await self._wait(waiter, self._turns, self.release)

    def release(self, connection: PooledConnection, turn: TurnAttempt | None = None) -> None:
        """Release the place of a turn on its connection.

        :param turn: the turn, if its request was sent.
        """
        connection.turns -= 1
        if turn is not None:
            connection.record(turn)
        self.assign()

    async def pin(self) -> PooledConnection:
        """Wait for a connection for a lane or a conversation.

        If cancelled, no connection is pinned.

        :raises ResponsesError: when the pool has no connection and none can be opened.
        """
        return await self._wait(Waiter(self.next_arrival()), self._pins, self.unpin)

    def unpin(self, connection: PooledConnection) -> None:
        """Release the connection of a lane or a conversation that has ended."""
        connection.pinned -= 1
        self.assign()

    async def _wait(
        self, waiter: Waiter, queue: WaitQueue, release: Callable[[PooledConnection], None]
    ) -> PooledConnection:
        if self.closed_with is not None:
            raise self.closed_with.copy_as_unsent()
        queue.add(waiter)
        self.assign()
        try:
            return await waiter.wait()
        except BaseException:
            queue.discard(waiter)
            if waiter.connection is not None:  # assigned just before the cancellation
                release(waiter.connection)
            raise

    def _connection_of(self, response_id: str) -> PooledConnection | None:
        """Return the open connection that a response is known to be from."""
        candidates = (one for one in self.connections if one.is_open)
        return next((one for one in candidates if one.has_response(response_id)), None)

    # --- For the supervisor ----------------------------------------------------------------

    def add(self, engine: ConnectionEngine) -> PooledConnection:
        """Add a connection that was opened."""
        connection = PooledConnection(engine)
        self.connections.append(connection)
        self.assign()
        return connection

    def handle_failed_opening(self, error: ResponsesError) -> None:
        """Called when a connection could not be opened."""
        self.failures += 1
        self._paused_until = trio.current_time() + self.limits.retry_pause
        self.update_connections()
        if is_permanent(error) or not (self.connections or self.opening):
            self._fail_unbound_waiters(error)
        self.assign()

    def handle_lost_socket(self, connection: PooledConnection) -> None:
        """Called when a connection has lost its socket."""
        connection.cancel_sending()
        self.assign()

    def handle_ended_connection(self, connection: PooledConnection, error: ResponsesError) -> None:
        """Called when a connection has ended, with its error."""
        connection.cancel_sending()
        self.update_connections()
        if is_permanent(error):
            self._fail_unbound_waiters(error)
        self.assign()

    def close(self, reason: ResponsesError) -> None:
        """Fail all waiters, and all later ones. Only the first reason counts."""
        if self.closed_with is None:
            self.closed_with = reason
            for connection in self.connections:
                self._turns.unbind(connection)
            self._fail_unbound_waiters(reason)
            self._request_opening.close()

    def _fail_unbound_waiters(self, error: ResponsesError) -> None:
        """Fail all waiters that may use any connection."""
        for waiter in (*self._turns.pop_all_unbound(), *self._pins.pop_all_unbound()):
            waiter.fail(error.copy_as_unsent())

    # --- The rules -------------------------------------------------------------------------

    def assign(self) -> None:
        """Assign connections to waiters, and request the connections that the pool needs."""
        self.update_connections()
        while self._assign_turn():
            pass
        self._open_connections()
        while self._assign_pin():
            pass

    def update_connections(self) -> None:
        """Remove the connections that have ended, and unbind turns from those without a socket."""
        for connection in [one for one in self.connections if not one.is_open]:
            self._turns.unbind(connection)
            if connection.has_ended:
                self.connections.remove(connection)
                self.ended.add(connection.engine)

    def _assign_turn(self) -> bool:
        """Assign a place to the first turn that can have one; return whether a turn could."""
        for waiter in self._turns.first_waiters():
            connection = self._choose_for_turn(waiter)
            if connection is not None:
                self._turns.discard(waiter)
                connection.turns += 1
                waiter.assign(connection)
                return True
        return False

    def _choose_for_turn(self, waiter: Waiter) -> PooledConnection | None:
        """Return the best connection that has a free place for a turn: the one of its parent.

        Otherwise the one with the lowest load.
        """
        candidates = self.connections if waiter.bound_to is None else [waiter.bound_to]
        places = self.limits.places
        free = [one for one in candidates if one.is_open and one.has_place(places)]
        if waiter.preferred in free:
            return waiter.preferred
        return min(free, key=LOAD, default=None)

    def _assign_pin(self) -> bool:
        """Assign a connection to the first waiting lane or conversation, if one is free."""
        for waiter in self._pins.first_waiters():
            connection = self._choose_for_pin()
            if connection is not None:
                self._pins.discard(waiter)
                connection.pinned += 1
                waiter.assign(connection)
                return True
        return False

    def _choose_for_pin(self) -> PooledConnection | None:
        """Return the connection for a lane or a conversation, or `None` if a wait is better."""
        candidates = (one for one in self.connections if one.is_open)
        best = min(candidates, key=LANES_AND_LOAD, default=None)
        if best is not None and best.load >= self.limits.target_load and self.opening:
            return None
        return best

    def _open_connections(self) -> None:
        """Request the connections that the load of the pool needs."""
        if self.closed_with is not None or self._is_opening_paused():
            return
        load = self.waiting + sum(map(LOAD, self.connections))
        needed = min(self.limits.size, math.ceil(load / self.limits.target_load))
        for _ in range(needed - len(self.connections) - self.opening):
            self.opening += 1
            self._request_opening.send_nowait(None)

    def _is_opening_paused(self) -> bool:
        """Whether no connection is opened now, because the server may be unreachable."""
        recently_failed = trio.current_time() < self._paused_until
        any_open = any(one.is_open for one in self.connections)
        return bool(self.connections) and (recently_failed or not any_open)


class Waiter:
    """A turn, lane or conversation that waits for a connection."""

    def __init__(self, arrival: int) -> None:
        self.arrival = arrival
        """The position in the order of arrival."""
        self.preferred: PooledConnection | None = None
        """The connection of the response that the turn continues, if there is one."""
        self.bound_to: PooledConnection | None = None
        """The only connection that the waiter may use; `None` if it may use any."""
        self.connection: PooledConnection | None = None
        """The assigned connection."""
        self._error: ResponsesError | None = None
        self._notified = trio.Event()

    async def wait(self) -> PooledConnection:
        """Wait for a connection, unless one is assigned already: then this is no checkpoint.

        :raises ResponsesError: when there will be none.
        """
        if self.connection is None:
            await self._notified.wait()
        if self._error is not None:
            raise self._error
        assert self.connection is not None  # noqa: S101 - `assign` was called, not `fail`
        return self.connection

    def assign(self, connection: PooledConnection) -> None:
        """Assign a connection to the waiter, and wake its task."""
        self.connection = connection
        self._notified.set()

    def fail(self, error: ResponsesError) -> None:
        """Make the waiter raise an error, and wake its task."""
        self._error = error
        self._notified.set()


class WaitQueue:
    """A queue of waiters, in the order of arrival for each connection and for any connection.

    The queues make an assignment independent of the number of waiters: only the first waiter of
    each queue can be the next one.
    """

    def __init__(self) -> None:
        self._queues: dict[PooledConnection | None, list[Waiter]] = {}

    def __len__(self) -> int:
        """Return the number of waiters."""
        return sum(map(len, self._queues.values()))

    def add(self, waiter: Waiter) -> None:
        """Add a waiter after all waiters that have arrived before."""
        insort(self._queues.setdefault(waiter.bound_to, []), waiter, key=ARRIVAL)

    def discard(self, waiter: Waiter) -> None:
        """Remove a waiter, if it is in the queue."""
        queue = self._queues.get(waiter.bound_to, [])
        position = bisect_left(queue, waiter.arrival, key=ARRIVAL)
        if queue[position : position + 1] == [waiter]:
            del queue[position]
            if not queue:
                del self._queues[waiter.bound_to]

    def first_waiters(self) -> list[Waiter]:
        """Return the first waiter bound to each connection or to none, by order of arrival."""
        return sorted((queue[0] for queue in self._queues.values()), key=ARRIVAL)

    def unbind(self, connection: PooledConnection) -> None:
        """Let all waiters that are bound to a connection use any connection."""
        for waiter in self._queues.pop(connection, ()):
            waiter.bound_to = None
            self.add(waiter)

    def pop_all_unbound(self) -> list[Waiter]:
        """Remove and return all waiters that may use any connection."""
        return self._queues.pop(None, [])


def is_permanent(error: ResponsesError) -> bool:
    """Whether an error means that no other attempt to open a connection can succeed."""
    return isinstance(error, ConnectError) and not error.retryable
