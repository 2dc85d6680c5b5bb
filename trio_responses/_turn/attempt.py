"""One attempt at a turn, as the receive task sees it: its inbox, its deadlines and its failure.

`ResponseStream` (`stream.py`) is the reader's side of a turn. A turn that is sent again gets a new
`TurnAttempt` for each attempt.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from trio_responses._errors import DeliveryStatus, FirstEventTimeout, StallTimeout
from trio_responses._protocol.requests import ActiveRequest, ReaderState
from trio_responses._wire import ErrorEvent, ResponseCreated, ResponseQueued, UnknownEvent

if TYPE_CHECKING:
    import trio

    from trio_responses._errors import ResponsesError
    from trio_responses._instruments.instrument import Instruments, TurnObserver
    from trio_responses._settings import Timeouts
    from trio_responses._turn.inbox import Inbox
    from trio_responses._wire import ServerEvent

__all__ = ["TurnAttempt"]

BEFORE_WORK: Final = frozenset({ResponseCreated, ResponseQueued, UnknownEvent})
"""Events that a server may send before it works on a response."""
NO_PROOF_OF_START: Final = frozenset({ErrorEvent, UnknownEvent})
"""Events that do not prove that a response has started: some servers send events of their own."""


class TurnAttempt(ActiveRequest):
    """One attempt at a turn: its request, its deadlines, and the inbox of its response."""

    __slots__ = (
        "_deadlines_stopped",
        "_running",
        "_started_events",
        "_timeouts",
        "inbox",
        "instruments",
        "last_event",
        "last_event_at",
        "observer",
        "sent_at",
        "size",
        "started",
    )

    def __init__(
        self,
        inbox: Inbox[ServerEvent],
        timeouts: Timeouts,
        lane: str | None = None,
        parent: str | None = None,
    ) -> None:
        super().__init__(lane, parent, ReaderState.READING)
        self._timeouts = timeouts
        self._deadlines_stopped = False
        self._running = False
        self._started_events: tuple[trio.Event, ...] = ()
        self.inbox: Inbox[ServerEvent] = inbox
        self.size: int = 0
        """Bytes of the encoded request."""
        self.sent_at: float | None = None
        """When the last byte of the request was written, on Trio's clock."""
        self.last_event_at: float | None = None
        """When the latest event was received, on Trio's clock."""
        self.last_event: ServerEvent | None = None
        """The latest event."""
        self.started: bool = False
        """Whether an event was received that proves the start of the response."""
        self.observer: TurnObserver | None = None
        """Notifies the instruments about this turn; `None` if no instrument observes it."""
        self.instruments: Instruments | None = None
        """The instruments of the connection that the request was sent on."""

    @property
    def delivery(self) -> DeliveryStatus:
        """The delivery status of the request, once its first byte was written.

        A failed write is described by the exception of the write itself, which states whether
        the last byte was written.
        """
        return DeliveryStatus.AMBIGUOUS if self.last_event_at is None else DeliveryStatus.ACCEPTED

    @property
    def deadline(self) -> float:
        """When the attempt times out unless another event is received, on Trio's clock."""
        if self._deadlines_stopped:
            return math.inf
        if self.last_event_at is not None:
            return self.last_event_at + self._timeouts.stall
        if self.sent_at is not None:
            return self.sent_at + self._timeouts.first_event
        return math.inf

    def next_check(self, now: float) -> float:
        """Return when to check the deadline next.

        At most ``timeouts.stall`` from now: the first event of the response may set an earlier
        deadline than the one of ``timeouts.first_event``.
        """
        if self._deadlines_stopped:
            return math.inf
        return min(self.deadline, now + self._timeouts.stall)

    def deliver(self, events: list[ServerEvent], size: int, now: float) -> None:
        """Put the events of one batch into the inbox.

        :param size: bytes of their messages.
        """
        self.last_event_at = now
        self.last_event = events[-1]
        if not self.started and not NO_PROOF_OF_START.issuperset(map(type, events)):
            self.started = True
            if self.observer is not None:
                self.observer.first_event(self.response_id, now)
        if not self._running and not BEFORE_WORK.issuperset(map(type, events)):
            self.set_running()
        self.inbox.put(events, size)

    def set_when_running(self, event: trio.Event) -> None:
        """Set a `trio.Event` as soon as the server works on the response, or the turn has ended."""
        self._started_events += (event,)
        if self._running:
            event.set()

    def set_running(self) -> None:
        """Set the events that were passed to `set_when_running`."""
        self._running = True
        for event in self._started_events:
            event.set()

    def timeout_error(self, now: float) -> ResponsesError:
        """Return the exception for a deadline that has passed."""
        last_type = self.last_event.wire_type if self.last_event is not None else None
        if self.last_event_at is not None and last_type is not None:
            return StallTimeout(
                self._timeouts.stall,
                last_event=last_type,
                silence=now - self.last_event_at,
            )
        sent_at = now if self.sent_at is None else self.sent_at
        return FirstEventTimeout(self._timeouts.first_event, sent=now - sent_at)

    def stop_deadlines(self) -> None:
        """Disable the deadlines of this turn."""
        self._deadlines_stopped = True

    def exclude_pause(self, seconds: float) -> None:
        """Move the deadlines by a time in which the socket was not read."""
        if self.last_event_at is not None:
            self.last_event_at += seconds
        elif self.sent_at is not None:
            self.sent_at += seconds

    def fail(self, error: ResponsesError) -> None:
        """End the turn with an exception, which the reader gets after the received events."""
        error.delivery = error.delivery or self.delivery
        self.set_running()
        self.inbox.close(error)
