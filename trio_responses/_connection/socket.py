"""One live WebSocket of a connection, with the requests that were sent on it.

A request over HTTP has a socket of its own, which is RETIRED from the beginning.

A socket goes through these states:

* OPEN: takes new requests.
* RETIRED: takes no new requests, because a newer socket replaces it, a request could not be
  written, or the server announced its end. The requests that were sent are still answered.
* CLOSED: nothing is received any more. All turns that were active have failed.

Nothing in this module waits for the network: the receive task of `engine.py` reads the transport
and calls the methods in between.
"""

from __future__ import annotations

import math
from enum import StrEnum, auto
from typing import TYPE_CHECKING, Final

import trio

from trio_responses._concurrency import Notifier
from trio_responses._errors import (
    ConnectionClosed,
    ConnectionLimitReached,
    ConnectionLost,
    DeliveryStatus,
    RequestTooLarge,
    api_error,
)
from trio_responses._protocol.request_table import RequestTable
from trio_responses._turn.attempt import TurnAttempt

if TYPE_CHECKING:
    from collections.abc import Mapping
    from collections.abc import Set as AbstractSet

    from trio_responses._errors import APIError, MessageTooLarge, ResponsesError
    from trio_responses._instruments.instrument import SocketObserver
    from trio_responses._protocol.requests import ActiveRequest
    from trio_responses._transport.transport import Transport
    from trio_responses._wire import ErrorEvent

__all__ = ["Socket", "SocketState"]

MESSAGE_TOO_BIG: Final = 1009
NO_LANES: Final[frozenset[str | None]] = frozenset()


class SocketState(StrEnum):
    """The state of a socket: takes new requests, finishes old ones, or is closed."""

    OPEN = auto()
    RETIRED = auto()
    CLOSED = auto()


class SocketTrigger(StrEnum):
    """A trigger of the socket state machine: an input that changes the state of a socket."""

    RETIRE = auto()
    """A newer socket replaces it, or the server will end it."""
    WRITE_FAILED = auto()
    """A request could not be written. What the server sent before may still be read."""
    CLOSE = auto()
    """The WebSocket has ended."""


TRANSITIONS: Final[Mapping[SocketState, Mapping[SocketTrigger, SocketState]]] = {
    SocketState.OPEN: {
        SocketTrigger.RETIRE: SocketState.RETIRED,
        SocketTrigger.WRITE_FAILED: SocketState.RETIRED,
        SocketTrigger.CLOSE: SocketState.CLOSED,
    },
    SocketState.RETIRED: {
        SocketTrigger.RETIRE: SocketState.RETIRED,
        SocketTrigger.WRITE_FAILED: SocketState.RETIRED,
        SocketTrigger.CLOSE: SocketState.CLOSED,
    },
    SocketState.CLOSED: dict.fromkeys(SocketTrigger, SocketState.CLOSED),
}


class Socket:
    """One live WebSocket of a connection, or one request over HTTP, with the requests sent on it.

    :param transport: the WebSocket.
    :param observer: notifies the instruments about this socket.
    :param is_exchange: whether this is one request over HTTP, which takes no other.
    :param replace_after_error: whether the server is known to stop answering after an ``error``
        event (`Endpoint.after_error`).
    """

    __slots__ = (
        "_changed",
        "_is_old",
        "_last_error",
        "_old_at",
        "_read_scope",
        "_replace_after_error",
        "is_exchange",
        "lane_names",
        "observer",
        "reconnect_cause",
        "requests",
        "starved_since",
        "state",
        "too_large",
        "transport",
        "unusable_since",
    )

    def __init__(
        self,
        transport: Transport,
        observer: SocketObserver,
        *,
        replace_after_error: bool,
        is_exchange: bool = False,
    ) -> None:
        self.transport: Transport = transport
        self.is_exchange: bool = is_exchange
        self.observer: SocketObserver = observer
        self.requests: RequestTable = RequestTable()
        self.lane_names: AbstractSet[str | None] = NO_LANES
        """The lanes that were used: the server counts names and forgets none."""
        self.state: SocketState = SocketState.OPEN
        self._changed = Notifier()
        self._old_at = math.inf
        self._is_old = False
        self.reconnect_cause: ResponsesError | None = None
        """Why the next socket is opened after a delay; `None` where it may be opened at once."""
        self.unusable_since: float = math.inf
        """When the socket was lost for new requests, on Trio's clock."""
        self.starved_since: float = math.inf
        """Since when a reader waits for events of this socket while full inboxes block it."""
        self._replace_after_error = replace_after_error
        self._read_scope = trio.CancelScope()
        self._last_error: APIError | None = None
        self.too_large: TurnAttempt | None = None
        """The turn whose request the server did not accept, because of its size."""

    @property
    def takes_requests(self) -> bool:
        """Whether a new request may be sent on this socket."""
        return self.state is SocketState.OPEN

    @property
    def drained(self) -> bool:
        """Whether the socket is retired and no turn waits for the rest of its response."""
        if self.state is SocketState.OPEN:
            return False
        for request in self.requests.unfinished():  # noqa: SIM110 - all() takes a call for each
            if not request.abandoned:
                return False
        return True

    def admit(self, request: ActiveRequest) -> None:
        """Add a request to its lane (``stream_id``), before its first byte is written."""
        if request.lane not in self.lane_names:
            self.lane_names |= {request.lane}
        self.requests.admit(request)

    def active_turns(self) -> list[TurnAttempt]:
        """Return the turns whose response has not ended, abandoned ones included."""
        return [
            request for request in self.requests.unfinished() if isinstance(request, TurnAttempt)
        ]

    def has_waiting_reader(self) -> bool:
        """Whether a reader of a turn waits for events that the socket may hold."""
        return any(turn.inbox.tasks_waiting for turn in self.active_turns())

    def has_channel_requests(self) -> bool:
        """Whether a request of the raw channel is not answered yet."""
        return any(not isinstance(request, TurnAttempt) for request in self.requests.unfinished())

    # --- Deadlines -----------------------------------------------------------------------

    def read_scope(self) -> trio.CancelScope:
        """Return a scope for reading that ends before a deadline can pass.

        The deadlines are those of the turns, the keepalive and the age limit. So neither the
        keepalive nor the age limit needs a task or a timer of its own.
        """
        now = trio.current_time()
        deadline = min(self.transport.keepalive_at, self._old_at)
        for turn in self.active_turns():
            deadline = min(deadline, turn.next_check(now))
        self._read_scope = trio.CancelScope(deadline=deadline)
        return self._read_scope

    def shorten_read(self, turn: TurnAttempt, now: float) -> None:
        """End the current read before a deadline of a turn that was just sent can pass."""
        deadline = turn.next_check(now)
        if deadline < self._read_scope.deadline:  # noqa: PLR1730 - a change costs 20 calls in Trio
            self._read_scope.deadline = deadline

    def set_age_limit(self, deadline: float) -> None:
        """Make the socket replaceable at a time on Trio's clock, which the receive task watches."""
        self._old_at = deadline
        if deadline < self._read_scope.deadline:  # noqa: PLR1730 - a change costs 20 calls in Trio
            self._read_scope.deadline = deadline

    def check_age(self) -> None:
        """Wake the supervisor task if the socket has reached its age limit."""
        if self._old_at <= trio.current_time():
            self._old_at, self._is_old = math.inf, True
            self._changed.notify()

    async def wait_replaceable(self) -> None:
        """Wait until the socket has reached its age limit, or takes no new requests."""
        while self.takes_requests and not self._is_old:
            await self._changed.wait()

    async def wait_retired(self) -> None:
        """Wait until the socket takes no new requests."""
        if not self.takes_requests:
            await trio.lowlevel.checkpoint()
        while self.takes_requests:
            await self._changed.wait()

    def interrupt_read(self) -> None:
        """End the current read of the receive task, which then checks the state of the socket."""
        self._read_scope.deadline = -math.inf

    def overdue_turns(self) -> list[TurnAttempt]:
        """Return the active turns whose deadline has passed."""
        now = trio.current_time()
        return [turn for turn in self.active_turns() if turn.deadline <= now]

    def fail_overdue_turns(self) -> None:
        """Fail the turns whose deadline has passed, and retire the socket.

        Their lanes may never become idle, so no new request is sent on this socket.
        """
        now = trio.current_time()
        for turn in self.overdue_turns():
            if not turn.abandoned:
                turn.fail(turn.timeout_error(now))
                turn.abandon()
            turn.stop_deadlines()
            self.retire()

    def exclude_pause(self, seconds: float) -> None:
        """Move all deadlines by a time in which the socket was not read."""
        self.transport.exclude_pause(seconds)
        for turn in self.active_turns():
            turn.exclude_pause(seconds)

    # --- Ends ----------------------------------------------------------------------------

    def retire(self) -> None:
        """Take no new requests. The socket is closed when its requests are answered."""
        self._advance(SocketTrigger.RETIRE)
        self.interrupt_read()

    def handle_failed_write(self, lost: ConnectionLost) -> None:
        """Take no new requests, because a request could not be written.

        The receive task finds the end of the socket after the events that can still be read.
        """
        if self.takes_requests:
            self.reconnect_cause = lost.copy_for_raise()
            self.unusable_since = trio.current_time()
            self._advance(SocketTrigger.WRITE_FAILED)

    def abandon(self, turn: TurnAttempt, *, replace: bool) -> None:
        """Discard the remaining events of a turn.

        :param replace: whether to retire the socket.
        """
        if self.state is SocketState.CLOSED:
            return
        turn.abandon()
        if replace:
            self.retire()
        self.interrupt_read()

    def handle_error(self, event: ErrorEvent, owner: ActiveRequest | None) -> None:
        """Retire the socket if an ``error`` event means that the socket is of no further use."""
        self._last_error = api_error(event)
        if isinstance(self._last_error, ConnectionLimitReached):
            if (
                not self.requests.responses_ended
            ):  # a server may send this error at once, on every socket
                self.reconnect_cause = self._last_error
            self.retire()
        elif self._replace_after_error and isinstance(owner, TurnAttempt):
            self.retire()

    def fail_oversize(
        self, lane: str | None, error: MessageTooLarge, *, wire_type: str | None = None
    ) -> None:
        """Fail the turns to which a message may belong that was discarded because of its size.

        :param lane: the lane of the message. If no request is active on it, all turns fail.
        :param wire_type: the ``type`` of the message, if it is known. An event of a response
            means that the response has started; a late one fails no turn.
        """
        wire_type = wire_type or ""
        if self.requests.is_late(wire_type, lane):
            return
        response_event = wire_type.startswith("response.")
        requests = list(self.requests.unfinished())
        own = [request for request in requests if request.lane == lane]
        for request in own or requests:
            if isinstance(request, TurnAttempt) and not request.abandoned:
                failure = error.copy_for_raise()
                failure.delivery = DeliveryStatus.ACCEPTED if own and response_event else None
                request.fail(failure)
                request.abandon()

    def close(self, reason: ResponsesError) -> None:
        """Close the socket: fail each active turn with its own delivery status.

        Only the first reason counts.
        """
        if self.state is SocketState.CLOSED:
            return
        if isinstance(reason, ConnectionLost):
            reason.__cause__ = reason.__cause__ or self._last_error
            if self.takes_requests:
                self.reconnect_cause = reason
                self.unusable_since = trio.current_time()
        turns = [request for request in self.requests.close() if isinstance(request, TurnAttempt)]
        if isinstance(reason, ConnectionLost):
            self._fail_too_large(turns, reason)
        for turn in turns:
            if isinstance(reason, ConnectionLost):
                turn.fail(reason.copy_for_raise())
            else:
                turn.fail(ConnectionClosed(str(reason)))
        self._advance(SocketTrigger.CLOSE)

    def fail_if_too_large(self, turn: TurnAttempt, lost: ConnectionLost) -> None:
        """Fail the largest request if the server closed the socket because of a request's size.

        :param turn: the turn whose request could not be written.
        """
        if self.state is not SocketState.CLOSED:
            self._fail_too_large([turn, *self.active_turns()], lost)

    def _fail_too_large(self, turns: list[TurnAttempt], lost: ConnectionLost) -> None:
        """Fail the largest unanswered request if the close code is 1009 (message too big)."""
        silent = [turn for turn in turns if turn.last_event_at is None]
        if lost.code != MESSAGE_TOO_BIG or self.too_large is not None or not silent:
            return
        self.too_large = max(silent, key=lambda turn: turn.size)
        error = RequestTooLarge(self.too_large.size, None)
        error.delivery = DeliveryStatus.REJECTED
        self.too_large.fail(error)

    def _advance(self, trigger: SocketTrigger) -> None:
        self.state = TRANSITIONS[self.state][trigger]
        self._changed.notify()
