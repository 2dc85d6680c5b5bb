"""One attempt at a turn, as the receive task sees it: what came of it, and whether it is overdue.

What belongs elsewhere: the reader's half (`stream.py`), where it waits for its reader
(`inbox.py`), whose event it is (`core/lanes.py`).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from trio_responses._errors import Delivery, FirstEventTimeout, StallTimeout
from trio_responses._protocol.requests import ActiveRequest
from trio_responses._wire import ErrorEvent, ResponseCreated, ResponseQueued, UnknownEvent

if TYPE_CHECKING:
    import trio

    from trio_responses._errors import ResponsesError
    from trio_responses._instruments.instrument import TurnObserver
    from trio_responses._settings import Timeouts
    from trio_responses._turn.inbox import Inbox
    from trio_responses._wire import ServerEvent

__all__ = ["Turn"]

BEGINNINGS: Final = (ResponseCreated, ResponseQueued, UnknownEvent)
"""What comes before the server works on a response."""
NO_START: Final = (ErrorEvent, UnknownEvent)
"""What does not prove that the response has begun: some servers say a word of their own first."""


class Turn(ActiveRequest):
    """One attempt at a turn: the request on the wire, and the inbox of its response."""

    __slots__ = (
        "_given_up",
        "_started",
        "_timeouts",
        "_under_way",
        "heard_at",
        "inbox",
        "last_type",
        "observer",
        "sent_at",
        "size",
        "started",
    )
    has_reader = True

    def __init__(
        self,
        inbox: Inbox[ServerEvent],
        timeouts: Timeouts,
        lane: str | None = None,
        parent: str | None = None,
    ) -> None:
        super().__init__(lane, parent)
        self._timeouts = timeouts
        self._given_up = False
        self._under_way = False
        self._started: tuple[trio.Event, ...] = ()
        self.inbox: Inbox[ServerEvent] = inbox
        self.size: int = 0
        """Bytes of the encoded request."""
        self.sent_at: float | None = None
        """When its last byte was written, on Trio's clock."""
        self.heard_at: float | None = None
        """When the last event came."""
        self.last_type: str | None = None
        """The type of that event."""
        self.started: bool = False
        """Whether an event came that is no error."""
        self.observer: TurnObserver | None = None
        """Who tells the instruments of it; `None` where nobody wants to know."""

    @property
    def delivery(self) -> Delivery:
        """How far it has come, as soon as its writing has begun.

        What cannot be written is said by the exception of the write itself: only that knows
        whether the last byte was out.
        """
        return Delivery.AMBIGUOUS if self.heard_at is None else Delivery.ACCEPTED

    @property
    def deadline(self) -> float:
        """When it has been silent for too long, on Trio's clock."""
        if self._given_up:
            return math.inf
        if self.heard_at is not None:
            return self.heard_at + self._timeouts.stall
        if self.sent_at is not None:
            return self.sent_at + self._timeouts.first_event
        return math.inf

    def look_up_at(self, now: float) -> float:
        """When to look at the deadline again: the first event may bring it nearer."""
        return math.inf if self._given_up else min(self.deadline, now + self._timeouts.stall)

    def take_batch(self, events: list[ServerEvent], size: int, now: float) -> None:
        """Take the events of one batch."""
        self.heard_at = now
        self.last_type = events[-1].type
        if not self.started and not all(isinstance(event, NO_START) for event in events):
            self.started = True
            if self.observer is not None:
                self.observer.first_event(self.response_id)
        if not self._under_way and not all(isinstance(event, BEGINNINGS) for event in events):
            self.set_started()
        self.inbox.put(events, size)

    def notify_when_started(self, started: trio.Event) -> None:
        """Have an event set as soon as the server works on the response, or will not."""
        self._started += (started,)
        if self._under_way:
            started.set()

    def set_started(self) -> None:
        """Tell those who wait for its beginning."""
        self._under_way = True
        for started in self._started:
            started.set()

    def overdue(self, now: float) -> ResponsesError:
        """Say what it has waited for in vain."""
        if self.heard_at is not None and self.last_type is not None:
            return StallTimeout(
                self._timeouts.stall, last_event=self.last_type, silence=now - self.heard_at
            )
        sent_at = now if self.sent_at is None else self.sent_at
        return FirstEventTimeout(self._timeouts.first_event, sent=now - sent_at)

    def give_up(self) -> None:
        """Wait for it no more."""
        self._given_up = True

    def pause(self, seconds: float) -> None:
        """Do not count a time in which nothing could be heard."""
        if self.heard_at is not None:
            self.heard_at += seconds
        elif self.sent_at is not None:
            self.sent_at += seconds

    def fail(self, error: ResponsesError) -> None:
        """End it with an exception, which readers get behind the events that came."""
        error.delivery = error.delivery or self.delivery
        self.set_started()
        self.inbox.close(error)
