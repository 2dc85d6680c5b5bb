"""One turn as a scope: a request that goes out, and the events of its response.

`Turn` is the receive side's half: it takes batches, and knows when it has waited too long.
`ResponseStream` is the reader's half: an async context manager and iterator.

What belongs elsewhere: sockets and lanes to send on (`connection.py`), whose event it is
(`core/lanes.py`), what may be sent again (`core/delivery.py`).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

from trio_responses.core.accumulator import Accumulator
from trio_responses.core.delivery import delivery_of_error, may_send_again
from trio_responses.core.lanes import Request
from trio_responses.errors import (
    Delivery,
    FirstEventTimeout,
    ResponsesError,
    StallTimeout,
    UndecodableResponse,
    api_error,
)
from trio_responses.wire import (
    ErrorEvent,
    OutputTextDelta,
    ResponseCompleted,
    ResponseFailed,
    ResponseIncomplete,
    UndecodableFrame,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from types import TracebackType
    from typing import Self

    from trio_responses.core.accumulator import Snapshot
    from trio_responses.core.delivery import DeliveryChoice
    from trio_responses.inbox import Inbox
    from trio_responses.settings import Timeouts
    from trio_responses.wire import Response, ResponseCreate, ServerEvent

__all__ = ["AbandonChoice", "ResponseStream", "Turn"]

AbandonChoice: TypeAlias = Literal["drain", "replace"]
"""What becomes of a default lane whose turn was left early."""


class Turn(Request):
    """One attempt at a turn: the request on the wire, and the inbox of its response."""

    __slots__ = ("_given_up", "_timeouts", "heard_at", "inbox", "last_type", "sent_at", "size")

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
        self.inbox = inbox
        self.size = 0
        """Bytes of the encoded request."""
        self.sent_at: float | None = None
        """When its last byte was written, on Trio's clock."""
        self.heard_at: float | None = None
        """When the last event came."""
        self.last_type: str | None = None
        """The type of that event."""

    @property
    def delivery(self) -> Delivery:
        """How far it has come."""
        if self.heard_at is not None:
            return Delivery.ACCEPTED
        return Delivery.NOT_SENT if self.sent_at is None else Delivery.AMBIGUOUS

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

    def take_batch(self, events: list[ServerEvent], size: int, now: float) -> None:
        """Take the events of one batch."""
        self.heard_at = now
        self.last_type = events[-1].type
        self.inbox.put(events, size)

    def overdue(self, now: float) -> ResponsesError:
        """Say what it has waited for in vain."""
        if self.heard_at is not None and self.last_type is not None:
            return StallTimeout(
                self._timeouts.stall, last_event=self.last_type, silence=now - self.heard_at
            )
        return FirstEventTimeout(self._timeouts.first_event, sent=now - (self.sent_at or now))

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
        self.inbox.close(error)


class Lines(Protocol):
    """What a stream needs of its connection."""

    async def begin_turn(self, command: ResponseCreate) -> Turn:
        """Send a request as soon as there is a socket and a lane for it."""
        ...

    def leave_turn(self, turn: Turn, abandon: AbandonChoice) -> None:
        """Drop what is still to come of a turn."""
        ...


class ResponseStream:
    """The events of one response, for the length of an ``async with`` block.

    Made by ``connection.stream()``. Iterate over it once; leave the block whenever you like: by
    its end, ``break``, an exception or a cancellation, at any ``await``. What is still to come of
    the response then reaches nobody, and the next turn gets only its own events.

    A turn ends in exactly one way: with a `Response` (completed, incomplete or failed), or with
    an exception, whose ``delivery`` says how far the request had come.
    """

    def __init__(
        self,
        lines: Lines,
        command: ResponseCreate,
        *,
        delivery: DeliveryChoice,
        abandon: AbandonChoice,
        snapshot: bool,
    ) -> None:
        self._lines = lines
        self._command = command
        self._choice: DeliveryChoice = delivery
        self._abandon: AbandonChoice = abandon
        self._keeps_snapshot = snapshot
        self._accumulator = Accumulator(keep_text=snapshot)
        self._turn: Turn | None = None
        self._used_causes: set[type[ResponsesError]] = set()
        self._response: Response | None = None
        self._failure: ResponsesError | None = None

    async def __aenter__(self) -> Self:
        """Send the request, as soon as there is a socket and a lane for it.

        :raises ResponsesError: when it cannot be sent; ``delivery`` is ``not_sent`` then.
        """
        if self._turn is not None:
            raise RuntimeError("a stream is entered once")
        self._turn = await self._lines.begin_turn(self._command)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Leave the turn; it does not wait for anything."""
        if self._turn is not None:
            self._lines.leave_turn(self._turn, self._abandon)

    def __aiter__(self) -> Self:
        """Iterate over the events."""
        return self

    async def __anext__(self) -> ServerEvent:
        """Wait for the next event. A checkpoint; when cancelled, no event is lost.

        The event that ends the response is the last one. An ``error`` frame is given out, too,
        and the exception that it means is raised behind it.

        :raises ResponsesError: when the turn has failed.
        """
        if self._response is not None:
            raise StopAsyncIteration
        while True:
            if self._failure is not None:
                raise self._failure
            if self._turn is None:
                raise RuntimeError("a stream is iterated over inside its async with block")
            try:
                event = await self._turn.inbox.receive()
            except ResponsesError as error:
                await self._send_again_or_fail(error)
                continue
            self._accumulator.feed(event)
            if self._turn.ended and not self._turn.inbox:
                failure = self._conclude(event)
                if failure is not None and self._may_send_again(failure):
                    await self._send_again_or_fail(failure)
                    continue
            return event

    async def until_done(self) -> Response:
        """Read to the end, and give the `Response`: completed, incomplete or failed.

        :raises ResponsesError: when the turn ended without one.
        """
        async for _ in self:
            pass
        return self.response

    async def text_deltas(self) -> AsyncIterator[str]:
        """Iterate over the text alone, piece by piece.

        :raises ResponsesError: as the iteration over events does.
        """
        async for event in self:
            if isinstance(event, OutputTextDelta):
                yield event.delta

    @property
    def response(self) -> Response:
        """The finished `Response`.

        :raises ResponsesError: when the turn ended without one.
        :raises RuntimeError: when it has not ended yet.
        """
        if self._failure is not None:
            raise self._failure
        if self._response is None:
            raise RuntimeError("the response is not finished: read the stream to its end first")
        return self._response

    @property
    def response_id(self) -> str | None:
        """The response's id, as soon as an event said it."""
        return self._turn.response_id if self._turn is not None else None

    @property
    def snapshot(self) -> Snapshot:
        """What there is so far, item by item."""
        return self._accumulator.snapshot()

    def _conclude(self, event: ServerEvent) -> ResponsesError | None:
        """End the turn by its last event; give the exception, if it means one."""
        assert self._turn is not None  # noqa: S101 - an event has come
        if isinstance(event, ResponseCompleted | ResponseFailed | ResponseIncomplete):
            self._response = self._accumulator.finish(event.response)
            return None
        if isinstance(event, UndecodableFrame):
            self._failure = UndecodableResponse(event)
            self._failure.delivery = Delivery.ACCEPTED
        elif isinstance(event, ErrorEvent):
            self._failure = api_error(event)
            started = self._turn.response_id is not None
            self._failure.delivery = delivery_of_error(event, started=started)
        return self._failure

    def _may_send_again(self, error: ResponsesError) -> bool:
        return type(error) not in self._used_causes and may_send_again(error, self._choice)

    async def _send_again_or_fail(self, error: ResponsesError) -> None:
        """Begin the same turn anew where that is safe or wished for: once for each cause."""
        assert self._turn is not None  # noqa: S101 - it has failed
        if not self._may_send_again(error):
            self._failure = error
            return
        self._used_causes.add(type(error))
        self._lines.leave_turn(self._turn, "replace")
        self._failure = None
        self._accumulator = Accumulator(keep_text=self._keeps_snapshot)
        try:
            self._turn = await self._lines.begin_turn(self._command)
        except ResponsesError as later:
            later.__cause__ = later.__cause__ or error
            later.delivery = error.delivery
            self._failure = later
