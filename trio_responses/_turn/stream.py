"""One turn as a scope: a request that goes out, and the events of its response.

`ResponseStream` is the reader's half: an async context manager and iterator. The receive side's
half is in `turn.py`.

What belongs elsewhere: what it says (`drafts.py`), sockets and lanes to send on
(`connection/sending.py`), whose event it is (`core/lanes.py`), what may be sent again
(`core/delivery.py`).
"""

from __future__ import annotations

from operator import length_hint
from typing import TYPE_CHECKING, Final, Literal, Protocol, TypeAlias

import trio
from trio.lowlevel import checkpoint_if_cancelled

from trio_responses._errors import (
    Delivery,
    ResponsesError,
    UndecodableResponse,
    api_error,
)
from trio_responses._lifecycle import TurnRestarted
from trio_responses._protocol.accumulator import Accumulator
from trio_responses._protocol.delivery import delivery_of_error, furthest, may_send_again
from trio_responses._protocol.requests import SteerState
from trio_responses._turn.request_builder import raw_items
from trio_responses._turn.steering import SteerReceipt
from trio_responses._wire import (
    ErrorEvent,
    OutputTextDelta,
    ResponseCompleted,
    ResponseCreated,
    ResponseFailed,
    ResponseIncomplete,
    UndecodableFrame,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence
    from types import TracebackType
    from typing import Self

    from trio_responses._lifecycle import StreamEvent
    from trio_responses._protocol.accumulator import Snapshot
    from trio_responses._protocol.delivery import DeliveryChoice
    from trio_responses._turn.request_builder import RequestBuilder
    from trio_responses._turn.turn import Turn
    from trio_responses._wire import Input, Response, ServerEvent

__all__ = ["AbandonChoice", "ResponseStream"]

ENDINGS: Final = (ResponseCompleted, ResponseFailed, ResponseIncomplete)
OUTSIDE: Final = "a stream is iterated over inside its async with block"
AbandonChoice: TypeAlias = Literal["drain", "replace"]
"""What becomes of a default lane whose turn was left early."""


class TurnSender(Protocol):
    """What a stream needs of its connection."""

    async def start_turn(self, draft: RequestBuilder) -> Turn:
        """Send a request as soon as there is a socket and a lane for it."""
        ...

    def abandon_turn(self, turn: Turn, abandon: AbandonChoice) -> None:
        """Drop what is still to come of a turn."""
        ...

    async def steer(self, turn: Turn, receipt: SteerReceipt) -> None:
        """Put something into a response that is under way."""
        ...


class ResponseStream:
    """The events of one response, for the length of an ``async with`` block.

    Made by ``connection.stream()``. Iterate over it once; leave the block whenever you like: by
    its end, ``break``, an exception or a cancellation, at any ``await``. What is still to come of
    the response then reaches nobody, and the next turn gets only its own events.

    A turn ends in exactly one way: with a `Response` (completed, incomplete or failed), or with
    an exception, whose ``delivery`` says how far the request had come. Where it was steered, the
    Response is that of the last successor; all are in ``responses``.
    """

    def __init__(
        self,
        lines: TurnSender,
        draft: RequestBuilder,
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
        self._listen_anew()
        self._turn: Turn | None = None
        self._left = False
        self._reading = False
        self._given = False
        """Whether the reader has events of this attempt."""
        self._lost_to: ResponsesError | None = None
        """What the turn is to be sent again after."""
        self._lost: list[ResponsesError] = []
        """What the earlier attempts ended with."""
        self._earlier: list[Response] = []
        self._ended_by: Response | None = None
        """The last Response that has ended, while no successor has begun."""
        self._response: Response | None = None
        self._failure: ResponsesError | None = None

    async def __aenter__(self) -> Self:
        """Send the request, as soon as there is a socket and a lane for it.

        When cancelled before the first byte is out, nothing was sent.

        :raises ResponsesError: when it cannot be sent; ``delivery`` is ``not_sent`` then.
        """
        if self._turn is not None:
            raise RuntimeError("a stream is entered once")
        try:
            self._turn = await self._lines.start_turn(self._draft)
        except BaseException as error:
            self._tell_end(error=error)
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Leave the turn; it waits for nothing. What is still to come of it reaches nobody."""
        self._left = True
        self._add_up()
        self._hold(())
        if self._turn is not None:
            self._turn.set_started()
            self._lines.abandon_turn(self._turn, self._abandon)
            if self._reading:  # another task, which would wait for ever
                self._turn.inbox.close(RuntimeError(OUTSIDE))
        self._tell_end()

    def _tell_end(
        self, *, responses: tuple[Response, ...] = (), error: BaseException | None = None
    ) -> None:
        """Tell the instruments how it has ended; with neither, it was left early."""
        if self._draft.observer is not None:
            self._draft.observer.ended(responses, error, self.response_id)

    def __aiter__(self) -> Self:
        """Iterate over the events."""
        return self

    async def __anext__(self) -> StreamEvent:
        """Wait for the next event. A checkpoint; when cancelled, no event is lost.

        Where the turn is sent again, a `TurnRestarted` stands before the events of the next
        attempt.

        The event that ends the response is the last one. An ``error`` frame is given out, too,
        and the exception that it means is raised behind it.

        :raises ResponsesError: when the turn has failed.
        :raises trio.BusyResourceError: while another task waits for the next event.
        """
        await checkpoint_if_cancelled()
        for event in self._ready:  # the way of most events
            return event
        return await self._wait_for_next()

    def _listen_anew(self) -> None:
        """Begin to add up a response."""
        self._accumulator = Accumulator(keep_text=self._keeps_snapshot)
        self._hold(())

    def _hold(self, taken: Sequence[ServerEvent]) -> None:
        """Hold events that were taken out of the inbox, to be iterated over."""
        self._taken = taken
        self._ready: Iterator[ServerEvent] = iter(taken)
        self._added = 0

    def _add_up(self) -> None:
        """Add up what was iterated over since the last time."""
        read = len(self._taken) - length_hint(self._ready)
        if read > self._added:
            self._accumulator.feed(self._taken[self._added : read])
            self._added = read

    def _take(self, turn: Turn) -> ServerEvent | None:
        """Take the next event; one after which the turn begins anew is not for the reader."""
        self._add_up()
        event = turn.inbox.take()
        if turn.steers:
            self._follow(turn, event)
        self._accumulator.feed((event,))
        if turn.ended and turn.inbox.empty:
            self._conclude(event)
        # None of these is the last one of the turn, nor about a steer that is not there yet.
        self._hold(() if turn.steers else turn.inbox.take_ready())
        return event if self._lost_to is None else None

    async def _wait_for_next(self) -> StreamEvent:
        """Wait where there is no event: for one, for the end, or for another attempt."""
        if self._reading:
            raise trio.BusyResourceError("another task is reading this stream")
        self._reading = True
        try:
            while True:
                if self._response is not None:
                    raise StopAsyncIteration
                if self._failure is not None:
                    raise self._failure
                if self._turn is None or self._left:
                    raise RuntimeError(OUTSIDE)
                if self._lost_to is not None:
                    if self._given:
                        self._given = False
                        return TurnRestarted(error=self._lost_to)
                    await self._send_again(self._lost_to)
                    continue
                try:
                    await self._turn.inbox.wait()
                except ResponsesError as error:
                    self._fail(error)
                    continue
                event = self._take(self._turn)
                if event is not None:
                    self._given = True
                    return event
        finally:
            self._reading = False

    async def until_done(self) -> Response:
        """Read to the end, and give the `Response`: completed, incomplete or failed.

        When cancelled, no event is lost: the rest can still be read.

        :raises ResponsesError: when the turn ended without one.
        """
        async for _ in self:
            pass
        return self.response

    def text_deltas(self) -> AsyncIterator[str]:
        """Iterate over the text alone, piece by piece.

        Where the turn is sent again, its text comes again, and nothing says so.

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
    def responses(self) -> tuple[Response, ...]:
        """The Responses that have ended so far: more than one where the turn was steered."""
        latest = self._ended_by or self._response
        return (*self._earlier, *((latest,) if latest is not None else ()))

    @property
    def response_id(self) -> str | None:
        """The id of the response, or of its latest successor, as soon as an event said it."""
        return self._turn.response_id if self._turn is not None else None

    @property
    def snapshot(self) -> Snapshot:
        """What there is so far, item by item."""
        self._add_up()
        return self._accumulator.snapshot()

    async def steer(self, input: Input) -> SteerReceipt:  # noqa: A002 - the protocol's word
        """Put something into the response that is under way (guide, "Steering").

        The server takes it in at the next safe boundary, and goes on with a successor: its events
        follow in the same iteration, behind those of the response so far. A response that ends
        with calls of client tools does not: the input is ``pending`` then, until the next turn
        brings the outputs on the same lane.

        It waits until the response has begun. Once the input is noted as sent, its frame is
        finished; a cancellation has its effect behind that (within ``timeouts.send``).

        :param input: text, or messages of the user. No outputs of tools.
        :return: what became of it. Nothing is raised for an input that the server refuses, nor
            for a turn that has ended: the receipt has ``failed`` then, and ``error``.
        :raises RequestTooLarge: when it is over ``limits.max_request_bytes``.
        :raises ConnectionLost: when the socket ended before all of it was written.
        :raises RuntimeError: outside of the stream's block.
        """
        items = raw_items(input)
        if self._turn is None or self._left:
            raise RuntimeError("a stream is steered inside its async with block")
        begun = trio.Event()
        self._turn.notify_when_started(begun)
        await self._turn.inbox.wait_for(begun)
        receipt = SteerReceipt(self._turn, items)
        if self._turn.response_id is None:
            receipt.refuse("response_not_active", "the response has not begun")
        else:
            await self._lines.steer(self._turn, receipt)
        return receipt

    def _follow(self, turn: Turn, event: ServerEvent) -> None:
        """Follow a steered turn from one response to its successor."""
        if isinstance(event, ENDINGS):
            self._ended_by = self._accumulator.finish(event.response)
        elif isinstance(event, ResponseCreated) and self._ended_by is not None:
            steers = [one for one in turn.steers if one.successor == event.response.id]
            self._draft.advance(self._ended_by, steers)
            self._earlier.append(self._ended_by)
            self._ended_by = None
            self._listen_anew()

    def _conclude(self, event: ServerEvent) -> None:
        """End the turn by its last event."""
        assert self._turn is not None  # noqa: S101 - an event has come
        if isinstance(event, ENDINGS):
            self._ended_by = self._ended_by or self._accumulator.finish(event.response)
        if self._ended_by is not None:
            self._end(self._ended_by)
        elif isinstance(event, UndecodableFrame):
            undecodable = UndecodableResponse(event)
            undecodable.delivery = Delivery.ACCEPTED
            self._fail(undecodable)
        elif isinstance(event, ErrorEvent):
            error = api_error(event)
            error.delivery = delivery_of_error(event, started=self._turn.started)
            self._fail(error)

    def _end(self, response: Response) -> None:
        """End the turn well."""
        assert self._turn is not None  # noqa: S101 - an event has come
        self._response, self._ended_by = response, None
        waiting = [one for one in self._turn.steers if one.state is SteerState.PENDING]
        self._draft.settle(response, waiting)
        self._tell_end(responses=self.responses)

    def _fail(self, error: ResponsesError) -> None:
        """Fail, or have the turn begin anew where that is safe or wished for.

        Once for each cause.
        """
        assert self._turn is not None  # noqa: S101 - it has failed
        if self._ended_by is not None:  # only whether a successor began is not known
            self._end(self._ended_by)
            return
        again = may_send_again(error, self._choice) or self._draft.repairs(error)
        if not again or type(error) in map(type, self._lost):
            if self._lost:
                error.__context__ = self._lost[-1]
            self._fail_for_good(error)
            return
        self._lost.append(error)
        self._lines.abandon_turn(self._turn, "replace")
        self._lost_to = error

    def _fail_for_good(self, error: ResponsesError) -> None:
        """Fail. What is said of the last attempt does not undo an earlier one."""
        error.delivery = furthest(one.delivery for one in (*self._lost, error))
        self._failure = error
        self._tell_end(error=error)

    async def _send_again(self, lost_to: ResponsesError) -> None:
        """Begin the same turn anew. When cancelled, the next read tries again."""
        try:
            self._turn = await self._lines.start_turn(self._draft)
        except ResponsesError as error:
            error.__context__ = lost_to
            error.__cause__ = error.__cause__ or lost_to
            self._fail_for_good(error)
        self._listen_anew()
        self._earlier.clear()
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
