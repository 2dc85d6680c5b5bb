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

The endpoints of a pool have an order. The *active* endpoint is the first one that is not given up
(rule 10). In rules 1, 4 and 5, "the open connections" are those to the first endpoint that has any
and is not given up. A turn that continues a response goes to the endpoint of this response only.

Connections are opened as the pool needs them.

6. The pool needs as many connections to the active endpoint as distribute its load at the target
   load, up to its size. The load of a pool is the load of these connections plus the number of
   waiters.
7. No connection is opened while the server may be unreachable: while all connections are without
   a socket (each reconnects by itself), and for some seconds after a connection could not be
   opened. An endpoint without connections gets one in any case.

Connections fail.

8. When a connection loses its socket, its requests that are not sent yet and the turns that wait
   for a place on this connection may use any connection. They keep their order of arrival.
9. When a connection ends, rule 8 applies, and the connection leaves the pool.
10. When a connection cannot be opened, and no other one to its endpoint exists or is being opened,
    the endpoint is *given up*; at once when no other attempt can succeed, for example because the
    server rejects the key. So it is when its last connection with a socket could not reconnect,
    and when a turn fails for a reason that holds for all (`is_endpoint_failure`).
11. An endpoint that is given up gets no turns. Its requests that are not sent yet move; the others
    stay. The pool tries to return to it after a pause, again and again. It is used as before once
    such an attempt has succeeded, or one of its connections has opened a socket, unless it was
    given up because of a turn. Connections to later endpoints are closed as soon as nothing uses
    them.
12. When all endpoints are given up, all waiters fail, except the turns that wait for one open
    connection, and the next turn tries all endpoints again.
13. When the pool is closed, all waiters and all later ones fail.
14. While the pool drains, connections that nothing uses are closed, but for one until all work has
    ended.

`Scheduler.assign` applies rules 1 to 7 after each change. Only `acquire` and `pin` wait; all other
methods end before another task runs.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from dataclasses import dataclass
from itertools import count
from operator import attrgetter
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

import trio

from trio_responses._errors import (
    ConnectError,
    DeliveryStatus,
    PreviousResponseNotFound,
    ReconnectFailed,
)
from trio_responses._pool.connection import PooledConnection
from trio_responses._pool.endpoints import EndpointState, is_endpoint_failure, is_permanent
from trio_responses._pool.statistics import EndedConnections
from trio_responses._turn.work import ActiveWork
from trio_responses._wire import ErrorEvent

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from trio_responses._connection.engine import ConnectionEngine
    from trio_responses._errors import ResponsesError
    from trio_responses._turn.attempt import TurnAttempt

__all__ = [
    "CloseConnection",
    "OpenConnection",
    "PoolLimits",
    "ReturnToEndpoint",
    "Scheduler",
]

ARRIVAL: Final = attrgetter("arrival")
LOAD: Final = attrgetter("load")
LANES_AND_LOAD: Final = attrgetter("lanes_exhausted", "load")
MAX_KNOWN_HOMES: Final = 4096
"""Response ids of which a pool with several endpoints remembers the endpoint."""


class OpenConnection(NamedTuple):
    """A request to the supervisor: open a connection to an endpoint."""

    endpoint: EndpointState


class ReturnToEndpoint(NamedTuple):
    """A request to the supervisor: try to return to an endpoint that was given up."""

    endpoint: EndpointState


class CloseConnection(NamedTuple):
    """A request to the supervisor: close a connection that nothing uses."""

    connection: PooledConnection


SupervisorRequest: TypeAlias = OpenConnection | ReturnToEndpoint | CloseConnection


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolLimits:
    """The limits by which a scheduler assigns and opens connections."""

    size: int
    """The largest number of connections to one endpoint."""
    target_load: int | None
    """The load of each connection above which another connection is opened; `None` for half of the
    turns that a connection can run. The other half is for the turns that arrive meanwhile."""
    retry_pause: float
    """Seconds for which no connection is opened after a failure, unless the endpoint has none."""

    def target(self, places: int) -> int:
        """Return the target load of a connection with a number of places."""
        return max(1, places // 2) if self.target_load is None else self.target_load


class Scheduler:
    """The scheduler of one pool, which assigns a connection to each turn, lane and conversation.

    The supervisor of the pool does what the items of `requests` ask for.

    :param endpoints: the endpoints in the order of preference.
    :param on_change: called with the name of the endpoint when turns go to another one, and with
        the error for which the one before was given up.
    """

    def __init__(
        self,
        limits: PoolLimits,
        endpoints: Sequence[EndpointState],
        on_change: Callable[[str, ResponsesError | None], None],
    ) -> None:
        self.limits = limits
        self.endpoints = endpoints
        self._on_change = on_change
        self.work: ActiveWork = ActiveWork()
        """The turns, runs and calls of the pool that are in progress."""
        self.failovers: int = 0
        """How many times turns went to another endpoint because one was given up."""
        self._homes: dict[str, EndpointState] = {}
        """The endpoint of each of the latest responses, where there are several endpoints."""
        self.connections: list[PooledConnection] = []
        """The connections of the pool, oldest first."""
        self.failures: int = 0
        """The number of connections that could not be opened."""
        self.ended: EndedConnections = EndedConnections()
        """The counters of the connections that have left the pool."""
        self.closed_with: ResponsesError | None = None
        """Why no connection is assigned any more; `None` while the pool is open."""
        self._turns = WaitQueue()
        self._pins = WaitQueue()
        self._arrivals = count()
        self.requests: trio.MemoryReceiveChannel[SupervisorRequest]
        self._request, self.requests = trio.open_memory_channel[SupervisorRequest](math.inf)

    @property
    def opening(self) -> int:
        """The number of connections that are being opened."""
        return sum(endpoint.opening for endpoint in self.endpoints)

    @property
    def active(self) -> EndpointState:
        """The endpoint to which connections are opened."""
        return next(one for one in self.endpoints if one.given_up_with is None)

    @property
    def max_moves(self) -> int:
        """How many times a request that was not sent may move to another connection."""
        return self.limits.size + len(self.endpoints) - 1

    def is_healthy(self, now: float) -> bool:
        """Whether a request that is made now can be sent, as far as is known without any I/O.

        :param now: the time on Trio's clock.
        """
        if self.work.refusal is not None or self.closed_with is not None:
            return False
        current = [one for one in self.connections if not one.has_ended]
        if any(one.engine.is_healthy for one in current if one.endpoint.given_up_with is None):
            return True
        endpoint = self.active
        if any(one.endpoint is endpoint for one in current):
            return False
        return now >= endpoint.failed_at + self.limits.retry_pause  # the next turn opens one

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
        :raises PreviousResponseNotFound: when the response is from an endpoint that is not used.
        :raises ResponsesError: when the pool has no connection and none can be opened.
        """
        waiter = Waiter(self.next_arrival() if arrival is None else arrival)
        if parent is not None:
            waiter.home = self._homes.get(parent)
            waiter.preferred = self._connection_of(parent)
            waiter.bound_to = waiter.home
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
            self.record(connection, turn)
        self.assign()

    def record(self, connection: PooledConnection, turn: TurnAttempt) -> None:
        """Record that an endpoint answered a turn, where there are several endpoints."""
        if turn.response_id is None or len(self.endpoints) == 1:
            return
        connection.endpoint.failures = 0
        self._homes[turn.response_id] = connection.endpoint
        if len(self._homes) > MAX_KNOWN_HOMES:
            del self._homes[next(iter(self._homes))]

    def home_of(self, response_id: str) -> EndpointState | None:
        """Return the endpoint that is known to have made a response."""
        return self._homes.get(response_id)

    async def pin(self) -> PooledConnection:
        """Wait for a connection for a lane or a conversation.

        If cancelled, no connection is pinned.

        :raises ResponsesError: when the pool has no connection and none can be opened.
        """
        return await self._wait(Waiter(self.next_arrival()), self._pins, self.unpin)

    def pin_to(self, connection: PooledConnection) -> None:
        """Pin another conversation to a connection: a fork of one that is there."""
        connection.pinned += 1

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

    def should_move(self, connection: PooledConnection) -> bool:
        """Whether the next turn of a conversation is sent on another connection."""
        if connection.has_ended or connection.endpoint.given_up_with is not None:
            return True
        return any(one.endpoint.rank < connection.endpoint.rank for one in self._usable())

    def may_move(self, connection: PooledConnection, error: ResponsesError) -> bool:
        """Whether a request that was not sent may be sent on another connection.

        Not after a permanent error, unless there is another endpoint.
        """
        if connection.endpoint.given_up_with is not None:
            return True
        if is_permanent(error):
            return False
        return connection.has_ended or connection.engine.requests.may_reroute(error)

    def handle_turn_error(self, connection: PooledConnection, error: ResponsesError) -> bool:
        """Give up an endpoint if a turn failed for a reason that holds for all turns.

        :return: whether another endpoint takes the turns.
        """
        endpoint = connection.endpoint
        is_only = len(self.endpoints) == 1 or self.closed_with is not None
        if is_only or not is_endpoint_failure(error):
            return False
        if connection.has_ended:  # the supervisor's task gives the endpoint up
            return endpoint.given_up_with is not None
        moves = self._give_up(endpoint, error)
        self.assign()
        return moves

    # --- For the supervisor ----------------------------------------------------------------

    def add(self, engine: ConnectionEngine, endpoint: EndpointState) -> PooledConnection:
        """Add a connection that was opened."""
        connection = PooledConnection(engine, endpoint)
        self.connections.append(connection)
        self.handle_open_socket(connection)
        return connection

    def handle_failed_opening(self, endpoint: EndpointState, error: ResponsesError) -> None:
        """Called when a connection could not be opened."""
        self.failures += 1
        endpoint.failed_at = trio.current_time()
        endpoint.paused_until = endpoint.failed_at + self.limits.retry_pause
        self.update_connections()
        if endpoint.given_up_with is not None:
            endpoint.given_up_with = error
            endpoint.failures += 1
        elif is_permanent(error) or not (self._connections_to(endpoint) or endpoint.opening):
            self._give_up(endpoint, error)
        self.assign()

    def handle_open_socket(self, connection: PooledConnection) -> None:
        """Called when a connection has opened a socket, which may use its endpoint again."""
        if isinstance(connection.endpoint.given_up_with, ConnectError | ReconnectFailed):
            self.restore(connection.endpoint)
        self.assign()

    def open_connection_to(self, endpoint: EndpointState) -> PooledConnection | None:
        """Return an open connection to an endpoint, if there is one."""
        return next((one for one in self._connections_to(endpoint) if one.is_open), None)

    def handle_lost_socket(self, connection: PooledConnection) -> None:
        """Called when a connection has lost its socket."""
        connection.cancel_sending()
        self.assign()

    def handle_ended_connection(self, connection: PooledConnection, error: ResponsesError) -> None:
        """Called when a connection has ended, with its error."""
        connection.cancel_sending()
        self.update_connections()
        endpoint = connection.endpoint
        endpoint.failed_at = trio.current_time()
        several = len(self.endpoints) > 1
        unreachable = isinstance(error, ReconnectFailed) and not any(
            one.is_open for one in self._connections_to(endpoint)
        )
        if is_permanent(error) or (several and unreachable):
            self._give_up(endpoint, error)
        self.assign()

    def close(self, reason: ResponsesError) -> None:
        """Fail all waiters, and all later ones. Only the first reason counts."""
        if self.closed_with is None:
            self.closed_with = reason
            for connection in self.connections:
                self._turns.unbind(connection)
            self._fail_unbound_waiters(reason)
            self._request.close()

    def _fail_unbound_waiters(self, error: ResponsesError) -> None:
        """Fail all waiters that may use any connection, or any to their endpoint."""
        for key in (None, *self.endpoints):
            for waiter in (*self._turns.pop_all(key), *self._pins.pop_all(key)):
                waiter.fail(error.copy_as_unsent())

    # --- Endpoints -------------------------------------------------------------------------

    def _give_up(self, endpoint: EndpointState, error: ResponsesError) -> bool:
        """Use an endpoint no more, until the pool returns to it.

        :return: whether another endpoint takes the turns. If not, all waiters fail, and all
            endpoints may be used again.
        """
        if endpoint.given_up_with is not None:
            return True
        before = self.active
        endpoint.given_up_with = error
        endpoint.failures += 1
        if all(one.given_up_with is not None for one in self.endpoints):
            self._fail_unbound_waiters(error)
            for one in self.endpoints:
                one.given_up_with = None
            return False
        for connection in self._connections_to(endpoint):
            connection.leave()
        if not endpoint.returning:
            endpoint.returning = True
            self._send_request(ReturnToEndpoint(endpoint))
        if self.active is not before:
            self.failovers += 1
            self._on_change(self.active.name, error)
        return True

    def restore(self, endpoint: EndpointState) -> None:
        """Use an endpoint again that was given up."""
        if endpoint.given_up_with is not None:
            before = self.active
            endpoint.given_up_with = None
            if self.active is not before:
                self._on_change(endpoint.name, None)

    def _send_request(self, request: SupervisorRequest) -> None:
        if self.closed_with is None:
            self._request.send_nowait(request)

    def _connections_to(self, endpoint: EndpointState) -> list[PooledConnection]:
        """Return the connections of the pool to an endpoint."""
        return [one for one in self.connections if one.endpoint is endpoint]

    def _usable(self) -> list[PooledConnection]:
        """Return the open connections to the first endpoint that has any, and is not given up."""
        usable = [
            one for one in self.connections if one.is_open and one.endpoint.given_up_with is None
        ]
        if len(self.endpoints) == 1 or not usable:
            return usable
        rank = min(one.endpoint.rank for one in usable)
        return [one for one in usable if one.endpoint.rank == rank]

    def _fail_stranded_turns(self) -> None:
        """Fail the turns that continue a response of an endpoint that is not used."""
        for endpoint in self.endpoints:
            is_used = endpoint is self.active or any(
                one.is_open for one in self._connections_to(endpoint)
            )
            if not is_used:
                for waiter in self._turns.pop_all(endpoint):
                    waiter.fail(_not_found(endpoint))

    def _close_unused(self) -> None:
        """Close the connections to later endpoints than the one in use that nothing uses."""
        rank = min((one.endpoint.rank for one in self._usable()), default=math.inf)
        for connection in self.connections:
            later = connection.endpoint.rank > rank
            if later and connection.load == 0 and not connection.has_ended:
                connection.closing = True
                self._send_request(CloseConnection(connection))

    def _close_idle(self) -> None:
        """Close the connections that nothing uses, but for one while any work is in progress."""
        current = [one for one in self.connections if not one.has_ended]
        idle = [one for one in current if one.is_idle]
        if self.work.count and len(idle) == len(current):
            idle = idle[1:]
        for connection in idle:
            connection.closing = True
            self._send_request(CloseConnection(connection))

    # --- The rules -------------------------------------------------------------------------

    def assign(self) -> None:
        """Assign connections to waiters, and request the connections that the pool needs."""
        self.update_connections()
        if len(self.endpoints) > 1:
            self._fail_stranded_turns()
            self._close_unused()
        while self._assign_turn():
            pass
        self._open_connections()
        while self._assign_pin():
            pass
        if self.work.refusal is not None and not self.waiting:
            self._close_idle()

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
        match waiter.bound_to:
            case None:
                candidates = self._usable()
            case EndpointState() as endpoint:
                candidates = self._connections_to(endpoint)
            case connection:
                candidates = [connection]
        free = [one for one in candidates if one.is_open and one.turns < one.places]
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
        best = min(self._usable(), key=LANES_AND_LOAD, default=None)
        if best is not None and best.endpoint.opening and best.load >= self._target(best):
            return None
        return best

    def _target(self, connection: PooledConnection) -> int:
        return self.limits.target(connection.places)

    def _open_connections(self) -> None:
        """Request the connections that the load of the pool needs."""
        endpoint = self.active
        own = self._connections_to(endpoint)
        if self.closed_with is not None or self._is_opening_paused(endpoint, own):
            return
        load = self.waiting + sum(map(LOAD, own))
        each = self.limits.target(endpoint.places)
        capacity = sum(map(self._target, own)) + endpoint.opening * each
        while load > capacity and len(own) + endpoint.opening < self.limits.size:
            capacity += each
            endpoint.opening += 1
            self._request.send_nowait(OpenConnection(endpoint))

    def _is_opening_paused(self, endpoint: EndpointState, own: Sequence[PooledConnection]) -> bool:
        """Whether no connection is opened now, because the server may be unreachable.

        :param own: the connections to the endpoint.
        """
        recently_failed = trio.current_time() < endpoint.paused_until
        any_open = any(one.is_open for one in own)
        return bool(own) and (recently_failed or not any_open)


class Waiter:
    """A turn, lane or conversation that waits for a connection."""

    def __init__(self, arrival: int) -> None:
        self.arrival = arrival
        """The position in the order of arrival."""
        self.preferred: PooledConnection | None = None
        """The connection of the response that the turn continues, if there is one."""
        self.home: EndpointState | None = None
        """The endpoint of this response, if it is known."""
        self.bound_to: PooledConnection | EndpointState | None = None
        """The only connection that the waiter may use, or the endpoint; `None` if it may use any
        connection."""
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
        self._queues: dict[PooledConnection | EndpointState | None, list[Waiter]] = {}

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
        """Let all waiters that are bound to a connection use any one to their endpoint."""
        for waiter in self._queues.pop(connection, ()):
            waiter.bound_to = waiter.home
            self.add(waiter)

    def pop_all(self, endpoint: EndpointState | None) -> list[Waiter]:
        """Remove and return all waiters that may use any connection, or any to an endpoint."""
        return self._queues.pop(endpoint, [])


def _not_found(endpoint: EndpointState) -> PreviousResponseNotFound:
    """Return the error of a turn that continues a response which no endpoint in use has."""
    message = f"the response is from the endpoint {endpoint.name}, which the pool does not use now"
    error = PreviousResponseNotFound(
        ErrorEvent(code="previous_response_not_found", message=message)
    )
    error.delivery = DeliveryStatus.NOT_SENT
    return error
