"""One turn as a scope: a request that goes out, and the events of its response.

`Turn` is the receive side's half: it takes batches, and knows when it has waited too long.
`ResponseStream` is the reader's half: an async context manager and iterator.

What belongs elsewhere: sockets and lanes to send on (`connection.py`), whose event it is
(`core/lanes.py`), what may be sent again (`core/delivery.py`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Literal, Protocol, TypeAlias

import trio

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
    ResponseCreated,
    ResponseFailed,
    ResponseIncomplete,
    ResponseQueued,
    UndecodableFrame,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from types import TracebackType
    from typing import Self

    from trio_responses.core.accumulator import Snapshot
    from trio_responses.core.continuation import Place
    from trio_responses.core.delivery import DeliveryChoice
    from trio_responses.inbox import Inbox
    from trio_responses.settings import Timeouts
    from trio_responses.wire import Response, ServerEvent

__all__ = ["AbandonChoice", "ResponseStream", "Turn"]

BEGINNINGS: Final = (ResponseCreated, ResponseQueued)
"""What comes before the server works on a response."""

AbandonChoice: TypeAlias = Literal["drain", "replace"]
"""What becomes of a default lane whose turn was left early."""


class Turn(Request):
    """One attempt at a turn: the request on the wire, and the inbox of its response."""

    __slots__ = (
        "_gate",
        "_given_up",
        "_timeouts",
        "_under_way",
        "heard_at",
        "inbox",
        "last_type",
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
        super().__init__(lane, parent)
        self._timeouts = timeouts
        self._given_up = False
        self._under_way = False
        self._gate: trio.Event | None = None
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
        self.started = self.started or not isinstance(events[0], ErrorEvent)
        if not self._under_way and not all(isinstance(event, BEGINNINGS) for event in events):
            self._get_under_way()
        self.inbox.put(events, size)

    def tell_when_under_way(self, gate: trio.Event) -> None:
        """Have an event set as soon as the server works on the response, or will not."""
        self._gate = gate
        if self._under_way:
            gate.set()

    def _get_under_way(self) -> None:
        self._under_way = True
        if self._gate is not None:
            self._gate.set()

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
        self._get_under_way()
        self.inbox.close(error)


Latest: TypeAlias = Callable[[str | None], str | None]
"""Tells the latest response of a lane, on the socket in question."""


class Draft(Protocol):
    """A request that is written when it is known where it goes."""

    @property
    def parent(self) -> str | None:
        """The response that it continues."""
        ...

    def write(self, place: Place, latest: Latest) -> bytes:
        """Write it for a place; once for every attempt."""
        ...

    def repairs(self, error: ResponsesError) -> bool:
        """Whether writing it anew mends this."""
        ...

    def settle(self, response: Response) -> None:
        """Take note of the Response that it ended with."""
        ...


class Lines(Protocol):
    """What a stream needs of its connection."""

    async def begin_turn(self, draft: Draft) -> Turn:
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
        draft: Draft,
        *,
        delivery: DeliveryChoice,
        abandon: AbandonChoice,
        snapshot: bool,
    ) -> None:
        self._lines = lines
        self._draft = draft
        self._choice: DeliveryChoice = delivery
        self._abandon: AbandonChoice = abandon
        self._keeps_snapshot = snapshot
        self._accumulator = Accumulator(keep_text=snapshot)
        self._turn: Turn | None = None
        self._left = False
        self._reading = False
        self._lost_to: ResponsesError | None = None
        """What the turn is to be sent again after."""
        self._used_causes: set[type[ResponsesError]] = set()
        self._response: Response | None = None
        self._failure: ResponsesError | None = None

    async def __aenter__(self) -> Self:
        """Send the request, as soon as there is a socket and a lane for it.

        :raises ResponsesError: when it cannot be sent; ``delivery`` is ``not_sent`` then.
        """
        if self._turn is not None:
            raise RuntimeError("a stream is entered once")
        self._turn = await self._lines.begin_turn(self._draft)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Leave the turn; it does not wait for anything."""
        self._left = True
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
        :raises trio.BusyResourceError: while another task waits for the next event.
        """
        turn = self._turn
        if turn is None or self._reading or not turn.inbox.unread:
            return await self._wait_for_next()
        await turn.inbox.checkpoint()
        if turn.inbox.unread:
            event = turn.inbox.take()
            if self._is_for_reader(turn, event):
                return event
        return await self._wait_for_next()

    def _is_for_reader(self, turn: Turn, event: ServerEvent) -> bool:
        """Add an event up; all are for the reader but an end after which the turn begins anew."""
        self._accumulator.feed(event)
        if turn.ended and not turn.inbox.unread:
            self._conclude(event)
        return self._lost_to is None

    async def _wait_for_next(self) -> ServerEvent:
        """Wait where there is no event: for one, for the end, or for another attempt."""
        if self._response is not None:
            raise StopAsyncIteration
        if self._reading:
            raise trio.BusyResourceError("another task is reading this stream")
        self._reading = True
        try:
            while True:
                if self._failure is not None:
                    raise self._failure
                if self._turn is None or self._left:
                    raise RuntimeError("a stream is iterated over inside its async with block")
                if self._lost_to is not None:
                    await self._send_again(self._lost_to)
                    continue
                try:
                    event = await self._turn.inbox.receive()
                except ResponsesError as error:
                    self._fail(error)
                    continue
                if self._is_for_reader(self._turn, event):
                    return event
        finally:
            self._reading = False

    async def until_done(self) -> Response:
        """Read to the end, and give the `Response`: completed, incomplete or failed.

        :raises ResponsesError: when the turn ended without one.
        """
        async for _ in self:
            pass
        return self.response

    def text_deltas(self) -> AsyncIterator[str]:
        """Iterate over the text alone, piece by piece.

        :raises ResponsesError: as the iteration over events does.
        """
        return _TextDeltas(self)

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

    def _conclude(self, event: ServerEvent) -> None:
        """End the turn by its last event."""
        assert self._turn is not None  # noqa: S101 - an event has come
        if isinstance(event, ResponseCompleted | ResponseFailed | ResponseIncomplete):
            self._response = self._accumulator.finish(event.response)
            self._draft.settle(self._response)
        elif isinstance(event, UndecodableFrame):
            undecodable = UndecodableResponse(event)
            undecodable.delivery = Delivery.ACCEPTED
            self._fail(undecodable)
        elif isinstance(event, ErrorEvent):
            error = api_error(event)
            error.delivery = delivery_of_error(event, started=self._turn.started)
            self._fail(error)

    def _fail(self, error: ResponsesError) -> None:
        """Fail, or have the turn begin anew where that is safe or wished for.

        Once for each cause.
        """
        assert self._turn is not None  # noqa: S101 - it has failed
        again = may_send_again(error, self._choice) or self._draft.repairs(error)
        if type(error) in self._used_causes or not again:
            self._failure = error
            return
        self._used_causes.add(type(error))
        self._lines.leave_turn(self._turn, "replace")
        self._lost_to = error

    async def _send_again(self, lost_to: ResponsesError) -> None:
        """Begin the same turn anew. When cancelled, the next read tries again."""
        try:
            self._turn = await self._lines.begin_turn(self._draft)
        except ResponsesError as error:
            error.__context__ = lost_to
            error.__cause__ = error.__cause__ or lost_to
            error.delivery = lost_to.delivery
            self._failure = error
        self._accumulator = Accumulator(keep_text=self._keeps_snapshot)
        self._lost_to = None


class _TextDeltas:
    """The text of a stream, piece by piece: no generator, so that it may be left by ``break``."""

    def __init__(self, stream: ResponseStream) -> None:
        self._stream = stream

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> str:
        while True:
            event = await self._stream.__anext__()
            if isinstance(event, OutputTextDelta):
                return event.delta
