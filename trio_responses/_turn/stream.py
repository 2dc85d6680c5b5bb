"""The stream of one turn: sends the request, and iterates over the events of its response.

`ResponseStream` is the reader's side of a turn; `TurnAttempt` (`attempt.py`) is the receiver's side
of one attempt at the turn. A stream goes through these states:

* NEW: the block has not been entered, or the request could not be sent.
* READING: an attempt is active; events are read.
* RESTARTING: the attempt has failed and may be repeated; the next read sends the request again.
* FINISHED: the turn has ended with a `Response`.
* FAILED: the turn has ended with an exception.
* LEFT: the block has been left. Remaining events are discarded; the outcome, if the turn had one,
  is kept.

`ResponseStream._send` is the only loop of the library that sends a request again.
"""

from __future__ import annotations

from enum import Enum, auto
from operator import length_hint
from typing import TYPE_CHECKING, Final, Literal, Protocol, TypeAlias

import trio
from trio.lowlevel import checkpoint_if_cancelled

from trio_responses._errors import (
    DeliveryStatus,
    ResponsesError,
    UndecodableResponse,
    api_error,
    failure_of,
)
from trio_responses._lifecycle import TurnRestarted
from trio_responses._protocol.accumulator import Accumulator
from trio_responses._protocol.delivery import delivery_of_error, furthest, may_resend
from trio_responses._protocol.requests import ENDED, SteerState
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
    from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
    from types import TracebackType
    from typing import Self

    from trio_responses._lifecycle import StreamEvent
    from trio_responses._protocol.accumulator import Snapshot
    from trio_responses._protocol.delivery import DeliveryMode
    from trio_responses._turn.attempt import TurnAttempt
    from trio_responses._turn.request_builder import RequestBuilder
    from trio_responses._wire import Input, Response, ServerEvent

__all__ = ["AbandonChoice", "ResponseStream", "TurnSender"]

TERMINAL: Final = (ResponseCompleted, ResponseFailed, ResponseIncomplete)
OUTSIDE: Final = "a stream is iterated over inside its async with block"
AbandonChoice: TypeAlias = Literal["drain", "replace"]
"""What happens to the default lane after a turn that was left early."""


class TurnSender(Protocol):
    """The interface that sends the requests of turns: a connection, one of its lanes, or a pool."""

    @property
    def max_reroutes(self) -> int:
        """How often a request that was not sent is tried again on another socket."""
        ...

    async def start_turn(self, request: RequestBuilder) -> TurnAttempt:
        """Send a request as soon as a socket has a free lane (``stream_id``)."""
        ...

    def may_reroute(self, error: ResponsesError) -> bool:
        """Whether a request that was not sent because of an error may reach another socket."""
        ...

    def abandon_turn(self, turn: TurnAttempt, abandon: AbandonChoice) -> None:
        """Discard the remaining events of a turn."""
        ...

    async def steer(self, turn: TurnAttempt, receipt: SteerReceipt) -> None:
        """Send steering input for a response that is active."""
        ...


class StreamState(Enum):
    """The state of a stream, from its creation to the end of its block."""

    NEW = auto()
    READING = auto()
    RESTARTING = auto()
    FINISHED = auto()
    FAILED = auto()
    LEFT = auto()


class StreamTrigger(Enum):
    """A trigger of the stream state machine: an input that changes the state of a stream."""

    SEND = auto()
    """The request was sent."""
    RESTART = auto()
    """The attempt failed, and the request may be sent again."""
    FINISH = auto()
    """The turn has a `Response`."""
    FAIL = auto()
    """The turn has failed."""
    LEAVE = auto()
    """The block was left."""


TRANSITIONS: Final[Mapping[StreamState, Mapping[StreamTrigger, StreamState]]] = {
    StreamState.NEW: {
        StreamTrigger.SEND: StreamState.READING,
        StreamTrigger.LEAVE: StreamState.LEFT,
    },
    StreamState.READING: {
        StreamTrigger.RESTART: StreamState.RESTARTING,
        StreamTrigger.FINISH: StreamState.FINISHED,
        StreamTrigger.FAIL: StreamState.FAILED,
        StreamTrigger.LEAVE: StreamState.LEFT,
    },
    StreamState.RESTARTING: {
        StreamTrigger.SEND: StreamState.READING,
        StreamTrigger.FAIL: StreamState.FAILED,
        StreamTrigger.LEAVE: StreamState.LEFT,
    },
    StreamState.FINISHED: {StreamTrigger.LEAVE: StreamState.LEFT},
    StreamState.FAILED: {StreamTrigger.LEAVE: StreamState.LEFT},
    StreamState.LEFT: dict.fromkeys(StreamTrigger, StreamState.LEFT),
}


class ResponseStream:
    """The events of one response, for the length of an ``async with`` block.

    Made by ``connection.stream()``. Iterate over it once. The block may be left at any ``await``:
    by its end, ``break``, an exception or a cancellation. Remaining events of the response are
    discarded then, and the next turn receives only its own events.

    A turn ends in exactly one way: with a `Response` (completed, incomplete or failed), or with
    an exception whose ``delivery`` states how far the request had come. If the turn was steered,
    its Response is the one of the last successor; all of them are in ``responses``.
    """

    def __init__(
        self,
        sender: TurnSender,
        request: RequestBuilder,
        *,
        delivery: DeliveryMode,
        abandon: AbandonChoice,
        snapshot: bool,
    ) -> None:
        self._sender = sender
        self._request = request
        self._choice: DeliveryMode = delivery
        self._abandon: AbandonChoice = abandon
        self._keeps_snapshot = snapshot
        self._state = StreamState.NEW
        self._start_new_response()
        self._turn: TurnAttempt | None = None
        self._reading = False
        self._has_yielded = False
        """Whether the reader has received events of the current attempt."""
        self._restart_causes: list[ResponsesError] = []
        """Why the request was sent again, once for each time."""
        self._earlier: list[Response] = []
        self._unfollowed: Response | None = None
        """A Response that has ended and whose successor has not begun."""
        self._response: Response | None = None
        self._failure: ResponsesError | None = None

    async def __aenter__(self) -> Self:
        """Send the request as soon as a socket has a free lane (``stream_id``).

        If cancelled before the first byte is written, nothing was sent.

        :raises ResponsesError: when the request cannot be sent; ``delivery`` is ``not_sent``.
        """
        if self._turn is not None:
            raise RuntimeError("a stream can be entered only once")
        try:
            await self._send()
        except BaseException as error:
            self._notify_end(error=error)
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Leave the turn without waiting. Remaining events are discarded."""
        self._advance(StreamTrigger.LEAVE)
        self._accumulate()
        self._hold(())
        if self._turn is not None:
            self._turn.set_running()
            self._sender.abandon_turn(self._turn, self._abandon)
            if self._reading:  # another task, which would wait for ever
                self._turn.inbox.close(RuntimeError(OUTSIDE))
        self._notify_end()

    def __aiter__(self) -> Self:
        """Iterate over the events."""
        return self

    async def __anext__(self) -> StreamEvent:
        """Wait for the next event. A checkpoint; if cancelled, no event is lost.

        If the request is sent again, a `TurnRestarted` precedes the events of the next attempt.

        The event that ends the response is the last one. An ``error`` event is yielded too, and
        the exception for it is raised after it.

        :raises ResponsesError: when the turn has failed.
        :raises trio.BusyResourceError: while another task waits for the next event.
        """
        await checkpoint_if_cancelled()
        for event in self._ready:  # most events take this short path
            return event
        return await self._wait_for_next()

    async def until_done(self) -> Response:
        """Read to the end, and return the `Response`: completed, incomplete or failed.

        If cancelled, no event is lost: the rest can still be read.

        :raises ResponsesError: when the turn ended without a Response.
        """
        async for _ in self:
            pass
        return self.response

    def text_deltas(self) -> AsyncIterator[str]:
        """Iterate over the text alone, piece by piece.

        If the request is sent again, the text starts again without notice.

        :raises ResponsesError: as the iteration over events does.
        """
        return _TextDeltas(self)

    @property
    def response(self) -> Response:
        """The finished `Response`.

        :raises ResponsesError: when the turn ended without a Response.
        :raises RuntimeError: when the turn has not ended yet.
        """
        if self._failure is not None:
            raise self._failure
        if self._response is None:
            raise RuntimeError("the response is not finished: read the stream to its end first")
        return self._response

    @property
    def responses(self) -> tuple[Response, ...]:
        """The Responses that have ended so far: more than one if the turn was steered."""
        latest = self._unfollowed or self._response
        return (*self._earlier, *((latest,) if latest is not None else ()))

    @property
    def response_id(self) -> str | None:
        """The id of the response, or of its latest successor; `None` until an event has the id."""
        return self._turn.response_id if self._turn is not None else None

    @property
    def snapshot(self) -> Snapshot:
        """The output received so far, item by item."""
        self._accumulate()
        return self._accumulator.snapshot()

    async def steer(self, input: Input) -> SteerReceipt:  # noqa: A002 - the protocol's field name
        """Send input for the response that is active (guide, "Steering").

        The server applies the input at the next safe boundary and continues with a successor,
        whose events follow in the same iteration. If the response ends with calls of client
        tools, the input is ``pending`` until the next turn sends the outputs on the same lane.

        Waits until the response has started. Once the input is registered, its message is written
        whole; a cancellation takes effect afterwards (within ``timeouts.send``).

        :param input: text, or messages of the user. No outputs of tools.
        :return: the receipt. Nothing is raised for an input that the server refuses, nor for a
            turn that has ended: the receipt has ``failed`` then, with ``error``.
        :raises RequestTooLarge: when the message is over ``limits.max_request_bytes``.
        :raises ConnectionLost: when the socket was lost before the message was written whole.
        :raises RuntimeError: outside of the stream's block.
        """
        items = raw_items(input)
        if self._turn is None or self._state is StreamState.LEFT:
            raise RuntimeError("a stream is steered inside its async with block")
        running = trio.Event()
        self._turn.set_when_running(running)
        await self._turn.inbox.wait_for(running)
        receipt = SteerReceipt(self._turn, items)
        if self._turn.response_id is None:
            receipt.fail("response_not_active", "the response has not begun")
        else:
            await self._sender.steer(self._turn, receipt)
        return receipt

    # --- Sending -------------------------------------------------------------------------

    async def _send(self) -> None:
        """Send the request, on another socket if the first one is lost before it is written.

        This is the only loop that sends a request again. A request is sent again if

        * it was not sent, and another socket or connection may take it (`TurnSender.may_reroute`),
          at most `TurnSender.max_reroutes` times;
        * the server refused it because of the socket's age, or the caller chose
          ``at_least_once`` and the outcome of the last attempt is unknown (`may_resend`);
        * the request can be built differently so that the error does not occur again
          (`RequestBuilder.prepare_retry`).

        `_handle_failure` decides the last two, for an attempt that was sent, and at most once for
        each type of error.
        """
        reroutes = 0
        while True:
            try:
                turn = await self._sender.start_turn(self._request)
                break
            except ResponsesError as error:
                unsent = error.delivery is DeliveryStatus.NOT_SENT and self._sender.may_reroute(
                    error
                )
                if not unsent or reroutes == self._sender.max_reroutes:
                    raise
                reroutes += 1
        self._turn = turn
        self._advance(StreamTrigger.SEND)

    async def _send_again(self) -> None:
        """Send the request of a turn that restarts. If cancelled, the next read tries again."""
        cause = self._restart_causes[-1]
        try:
            await self._send()
        except ResponsesError as error:
            error.__context__ = cause
            error.__cause__ = error.__cause__ or cause
            self._fail(error)
        self._start_new_response()
        self._earlier.clear()

    def _handle_failure(self, error: ResponsesError) -> None:
        """Restart the turn if its request may be sent again, else let it fail."""
        assert self._turn is not None  # noqa: S101 - an attempt has failed
        if self._unfollowed is not None:  # only the start of a successor is unknown
            self._finish(self._unfollowed)
            return
        may_restart = may_resend(error.delivery, failure_of(error), self._choice)
        may_restart = may_restart or self._request.prepare_retry(error)
        if not may_restart or type(error) in map(type, self._restart_causes):
            if self._restart_causes:
                error.__context__ = self._restart_causes[-1]
            self._fail(error)
            return
        self._restart_causes.append(error)
        self._sender.abandon_turn(self._turn, "replace")
        self._advance(StreamTrigger.RESTART)

    def _fail(self, error: ResponsesError) -> None:
        """Fail the turn, with the furthest delivery status of all its attempts."""
        error.delivery = furthest(one.delivery for one in (*self._restart_causes, error))
        self._failure = error
        self._advance(StreamTrigger.FAIL)
        self._notify_end(error=error)

    # --- Reading -------------------------------------------------------------------------

    async def _wait_for_next(self) -> StreamEvent:
        """Wait for the next event of the current attempt, or of the next one after a restart."""
        if self._reading:
            raise trio.BusyResourceError("another task is reading this stream")
        self._reading = True
        try:
            while True:
                if self._response is not None:
                    raise StopAsyncIteration
                if self._failure is not None:
                    raise self._failure
                if self._turn is None or self._state is StreamState.LEFT:
                    raise RuntimeError(OUTSIDE)
                if self._state is StreamState.RESTARTING:
                    if self._has_yielded:
                        self._has_yielded = False
                        return TurnRestarted(error=self._restart_causes[-1])
                    await self._send_again()
                    continue
                try:
                    await self._turn.inbox.wait()
                except ResponsesError as error:
                    self._handle_failure(error)
                    continue
                event = self._take(self._turn)
                if event is not None:
                    self._has_yielded = True
                    return event
        finally:
            self._reading = False

    def _take(self, turn: TurnAttempt) -> ServerEvent | None:
        """Take the next event from the inbox; return `None` for an event that restarts the turn."""
        self._accumulate()
        event = turn.inbox.take()
        if turn.steers:
            self._follow_successor(turn, event)
        self._accumulator.feed((event,))
        if turn.state in ENDED and turn.inbox.empty:
            self._conclude(event)
        # No ready event is the last one of the turn, nor belongs to a steering input to come.
        self._hold(() if turn.steers else turn.inbox.take_ready())
        return event if self._state is not StreamState.RESTARTING else None

    def _follow_successor(self, turn: TurnAttempt, event: ServerEvent) -> None:
        """Follow a steered turn from one response to its successor."""
        if isinstance(event, TERMINAL):
            self._unfollowed = self._accumulator.finish(event.response)
        elif isinstance(event, ResponseCreated) and self._unfollowed is not None:
            steers = [one for one in turn.steers if one.successor == event.response.id]
            self._request.handle_successor(self._unfollowed, steers)
            self._earlier.append(self._unfollowed)
            self._unfollowed = None
            self._start_new_response()

    def _conclude(self, event: ServerEvent) -> None:
        """End the turn after its last event, with a Response or an error."""
        assert self._turn is not None  # noqa: S101 - an event was received
        if isinstance(event, TERMINAL):
            self._unfollowed = self._unfollowed or self._accumulator.finish(event.response)
        if self._unfollowed is not None:
            self._finish(self._unfollowed)
        elif isinstance(event, UndecodableFrame):
            undecodable = UndecodableResponse(event)
            undecodable.delivery = DeliveryStatus.ACCEPTED
            self._handle_failure(undecodable)
        elif isinstance(event, ErrorEvent):
            error = api_error(event)
            error.delivery = delivery_of_error(event, started=self._turn.started)
            self._handle_failure(error)

    def _finish(self, response: Response) -> None:
        """End the turn with a Response."""
        assert self._turn is not None  # noqa: S101 - an event was received
        self._response, self._unfollowed = response, None
        self._advance(StreamTrigger.FINISH)
        pending = [one for one in self._turn.steers if one.state is SteerState.PENDING]
        self._request.commit(response, pending)
        self._notify_end(responses=self.responses)

    # --- Events that were taken out of the inbox -------------------------------------------

    def _start_new_response(self) -> None:
        """Discard the held events, and start to accumulate a new response."""
        self._accumulator = Accumulator(keep_text=self._keeps_snapshot)
        self._hold(())

    def _hold(self, events: Sequence[ServerEvent]) -> None:
        """Hold events that were taken out of the inbox, for the next reads."""
        self._held = events
        self._ready: Iterator[ServerEvent] = iter(events)
        self._accumulated = 0

    def _accumulate(self) -> None:
        """Accumulate the held events that were read since the last call."""
        read = len(self._held) - length_hint(self._ready)
        if read > self._accumulated:
            self._accumulator.feed(self._held[self._accumulated : read])
            self._accumulated = read

    def _advance(self, trigger: StreamTrigger) -> None:
        self._state = TRANSITIONS[self._state][trigger]

    def _notify_end(
        self, *, responses: tuple[Response, ...] = (), error: BaseException | None = None
    ) -> None:
        """Notify the instruments that the turn has ended or was left early."""
        if self._request.observer is not None:
            self._request.observer.ended(responses, error, self.response_id)


class _TextDeltas:
    """An iterator over the text of a stream, piece by piece.

    Not a generator, so that the iteration may be left by ``break``.
    """

    def __init__(self, stream: ResponseStream) -> None:
        self._stream = stream

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> str:
        while True:
            event = await self._stream.__anext__()
            if isinstance(event, OutputTextDelta):
                return event.delta
