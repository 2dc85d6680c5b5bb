"""The stream of one turn: sends the request, and iterates over the events of its response.

`ResponseStream` is the reader's side of a turn; `TurnAttempt` (`attempt.py`) is the receiver's side
of one attempt at the turn. A stream goes through these states:

* NEW: the block has not been entered, or the request could not be sent.
* READING: an attempt is active; events are read.
* RESTARTING: the attempt has failed and is repeated; the next read waits until the delay is over
  and sends the request again. Meanwhile the turn has neither a lane nor a place on a socket.
* FINISHED: the turn has ended with a `Response`.
* FAILED: the turn has ended with an exception.
* LEFT: the block has been left. Remaining events are discarded; the outcome, if the turn had one,
  is kept.

`ResponseStream._send` is the only loop of the library that sends a request again.
"""

from __future__ import annotations

import math
from enum import StrEnum, auto
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Generic, Protocol, TypeAlias, TypeVar, overload

import msgspec
import trio
from trio.lowlevel import checkpoint_if_cancelled

from trio_responses._errors import (
    DeliveryStatus,
    ResponsesError,
    UndecodableResponse,
    api_error,
    failed_response_error,
    failure_of,
    retry_hint,
)
from trio_responses._lifecycle import TurnRestarted
from trio_responses._protocol.accumulator import Accumulator
from trio_responses._protocol.backoff import retry_delay
from trio_responses._protocol.delivery import (
    Failure,
    delivery_of_error,
    furthest,
    may_resend,
    needs_delay,
)
from trio_responses._protocol.requests import ENDED, SteerState
from trio_responses._tools.parsing import parse_response
from trio_responses._turn.answer_format import ANY_TEXT
from trio_responses._turn.request_builder import raw_items
from trio_responses._turn.steering import SteerReceipt
from trio_responses._wire import (
    COMMENTARY,
    ErrorEvent,
    OutputTextDelta,
    ResponseCompleted,
    ResponseCreated,
    ResponseFailed,
    ResponseIncomplete,
    UndecodableFrame,
    sum_usages,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
    from types import TracebackType
    from typing import Self

    from trio_responses._lifecycle import StreamEvent
    from trio_responses._protocol.accumulator import Snapshot
    from trio_responses._protocol.delivery import DeliveryMode
    from trio_responses._settings import RetryPolicy
    from trio_responses._tools.parsing import ParsedResponse
    from trio_responses._turn.answer_format import AnswerFormat, AnswerType
    from trio_responses._turn.attempt import TurnAttempt
    from trio_responses._turn.request_builder import RequestBuilder
    from trio_responses._turn.work import ActiveWork
    from trio_responses._wire import Input, Response, ServerEvent, Usage

    EndEvent: TypeAlias = ResponseCompleted | ResponseFailed | ResponseIncomplete

__all__ = ["CallIterator", "ResponseStream", "TurnSender", "accumulator_of", "raise_if_failed"]

T = TypeVar("T")

TERMINAL: Final = (ResponseCompleted, ResponseFailed, ResponseIncomplete)
LOST_EVENTS: Final = frozenset({Failure.CONNECTION_LOST, Failure.TIMED_OUT})
"""Failures after which the response may have finished at the server."""
OUTSIDE: Final = "a stream is iterated over inside its async with block"


class TurnSender(Protocol):
    """The interface that sends the requests of turns: a connection, one of its lanes, or a pool."""

    @property
    def max_reroutes(self) -> int:
        """How often a request that was not sent is tried again on another socket."""
        ...

    @property
    def retry_policy(self) -> RetryPolicy:
        """How often a turn is sent again by default, and how long it may wait."""
        ...

    @property
    def work(self) -> ActiveWork:
        """The count of the turns in progress, which refuses new ones while it is drained."""
        ...

    async def start_turn(self, request: RequestBuilder, *, retry: bool = False) -> TurnAttempt:
        """Send a request as soon as a socket has a free lane (``stream_id``).

        :param retry: whether an attempt that failed precedes this one.
        """
        ...

    def may_reroute(self, error: ResponsesError) -> bool:
        """Whether a request that was not sent because of an error may reach another socket."""
        ...

    def may_move(self, error: ResponsesError) -> bool:
        """Whether a turn that failed may be sent again, at once and to another endpoint.

        Called for a failure after which the turn is not sent again to the same endpoint.
        """
        ...

    def abandon_turn(self, turn: TurnAttempt, *, restarts: bool = False) -> None:
        """Discard the remaining events of a turn.

        :param restarts: whether the request of the turn is going to be sent again.
        """
        ...

    async def steer(self, turn: TurnAttempt, receipt: SteerReceipt) -> None:
        """Send steering input for a response that is active."""
        ...

    async def recover(self, turn: TurnAttempt) -> Response | None:
        """Return the Response of a turn whose events were lost, from the server's store.

        :return: `None` if the server does not have the Response, or the option is off.
        """
        ...


class StreamState(StrEnum):
    """The state of a stream, from its creation to the end of its block."""

    NEW = auto()
    READING = auto()
    RESTARTING = auto()
    FINISHED = auto()
    FAILED = auto()
    LEFT = auto()


class StreamTrigger(StrEnum):
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
        snapshot: bool,
        max_retries: int | None = None,
        answer_format: AnswerFormat = ANY_TEXT,
    ) -> None:
        self._sender = sender
        self._retry_policy = (
            None if max_retries is None else sender.retry_policy.with_max_retries(max_retries)
        )
        """The policy of this turn; `None` for the one of the sender."""
        self._request = request
        self._within_run = False
        """Whether the turn is part of a run, which counts as one piece of work."""
        self._is_counted = False
        """Whether the turn counts as work in progress."""
        self._choice: DeliveryMode = delivery
        self._answer_format = answer_format
        self._keeps_text = snapshot or answer_format.is_json
        self._state = StreamState.NEW
        self._accumulator = Accumulator(keep_text=self._keeps_text)
        self._held: Sequence[ServerEvent] = ()
        """Events that were taken, the read ones included until they are accumulated."""
        self._ready: list[StreamEvent] = []
        """The held events that were not read, the next one at the end."""
        self._accumulated = 0
        """The number of the held events that were accumulated."""
        self._turn: TurnAttempt | None = None
        self._reading = False
        self._restart_causes: list[ResponsesError] = []
        """Why the request is sent again, once for each time."""
        self._restart: TurnRestarted | None = None
        """The event for a restart that the reader has not received."""
        self._retries = 0
        """How often the turn has waited, or waits, before it is sent again."""
        self._retry_at = -math.inf
        """When the request of a restart may be sent, on Trio's clock."""
        self._sending_again: trio.CancelScope | None = None
        """The scope of a restart in progress: it is cancelled when the block is left."""
        self._usages: list[Usage] = []
        """The usage of each Response that has ended, of failed attempts included."""
        self._earlier: list[Response] = []
        self._unfollowed: Response | None = None
        """A Response that has ended and whose successor has not begun."""
        self._unsaved: Sequence[StreamEvent] = ()
        """The last events, until the turn is saved."""
        self._response: Response | None = None
        self._failure: ResponsesError | None = None

    async def __aenter__(self) -> Self:
        """Send the request as soon as a socket has a free lane (``stream_id``).

        If cancelled before the first byte is written, nothing was sent.

        :raises ResponsesError: when the request cannot be sent; ``delivery`` is ``not_sent``. A
            `ConnectionClosed` while the connection or the pool drains.
        """
        if self._turn is not None:
            raise RuntimeError("a stream can be entered only once")
        self._begin_work()
        try:
            await self._send()
        except BaseException as error:
            self._notify_end(error)
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Leave the turn without waiting. Remaining events are discarded."""
        restarting = self._state is StreamState.RESTARTING  # the failed attempt is abandoned
        self._advance(StreamTrigger.LEAVE)
        if self._held or self._ready:
            self._accumulate()
            self._held, self._ready = (), []
        if self._sending_again is not None:
            self._sending_again.cancel()
        if self._turn is not None and not restarting:
            self._turn.set_running()
            self._sender.abandon_turn(self._turn)
            if self._reading:  # another task, which would wait for ever
                self._turn.inbox.close(RuntimeError(OUTSIDE))
        if self._response is None and self._failure is None:
            self._notify_end()

    def __aiter__(self) -> Self:
        """Iterate over the events."""
        return self

    async def __anext__(self) -> StreamEvent:
        """Wait for the next event. A checkpoint; if cancelled, no event is lost.

        If the request is sent again, a `TurnRestarted` precedes the events of the next attempt,
        and the ``error`` or ``response.failed`` event of the failed attempt is not yielded. The
        read after the `TurnRestarted` waits for its ``delay``; if cancelled, nothing was sent, and
        the next read waits for the rest of the delay.

        The event that ends the response is the last one. If the request is not sent again, an
        ``error`` event is yielded too, and the exception for it is raised after it.

        :raises ResponsesError: when the turn has failed.
        :raises trio.BusyResourceError: while another task waits for the next event.
        """
        if self._ready:  # most events of a burst take this short path
            await checkpoint_if_cancelled()
            return self._ready.pop()
        events = await self._read(self._take_next)
        return events[0] if len(events) == 1 else self._read_first(events)

    def batches(self) -> AsyncIterator[Sequence[StreamEvent]]:
        """Iterate over the events in batches: all events that are there at once, at least one.

        For example, with one write for all the text that one read of the socket brought::

            async for events in stream.batches():
                pieces = [e.delta for e in events if e.type == "response.output_text.delta"]
                print("".join(pieces), end="", flush=True)

        The batches have the events of the iteration over events, in the same order, and end with
        the same exceptions. A program may use both in turns. How many events a batch has depends
        on the network, up to about a thousand. The end of a response is the last event of its
        batch, and a `TurnRestarted` is a batch alone.

        To wait for a batch is a checkpoint; if cancelled, no event is lost. There is no other
        checkpoint until the next batch. All events of a batch count as read: ``snapshot``
        includes them, and an iteration after a ``break`` continues after them.

        :raises ResponsesError: when the turn has failed, after the last batch.
        :raises trio.BusyResourceError: while another task waits for the next event.
        """
        return CallIterator(self._next_batch)

    async def _next_batch(self) -> Sequence[StreamEvent]:
        if self._ready:  # `__anext__` has taken them and not yielded them
            await checkpoint_if_cancelled()
            ready = self._ready[::-1]
            self._ready.clear()
            return ready
        return await self._read(self._take_batch)

    async def get_final_response(self) -> Response:
        """Read to the end, and return the `Response`: completed, or incomplete.

        If cancelled, no event is lost: the rest can still be read.

        :raises ResponseFailedError: when the response failed; ``stream.response`` returns it.
        :raises ResponsesError: when the turn ended without a Response.
        """
        async for _ in self.batches():
            pass
        return raise_if_failed(self.response)

    @overload
    def partials(self, answer: type[T]) -> AsyncIterator[T]: ...
    @overload
    def partials(self, answer: Any = None) -> AsyncIterator[Any]: ...
    def partials(self, answer: Any = None) -> AsyncIterator[Any]:
        """Iterate over the values of a typed answer while its JSON is written.

        For example, to show an answer that fills in::

            async with connection.stream(prompt, model=MODEL, text_format=Weather) as stream:
                async for partial in stream.partials(Weather):
                    print(partial.city, partial.degrees)

        Each value has the data of all text so far. Strings grow, and lists grow item by item; other
        values are there when they are finished. **A field that is not written yet is** `None`,
        whatever its annotation says; a key of a `TypedDict` is missing. Partial values are objects
        of the type, made without validation: no ``__post_init__``, validator or default of the
        type is used. What is finished is shared by the values that follow: do not change it.

        The last value is the complete one: decoded and validated, as ``connection.parse`` returns
        it. There is one value for all the text that has arrived at once, and none for events that
        add nothing. The text is that of the last message of the answer, which ``parse`` decodes:
        if another message starts, or the request is sent again, the values start again.

        To wait for a value is a checkpoint; if cancelled, no event is lost. After a ``break``, the
        next iteration continues with a value of all the text.

        :param answer: the type; may be left out if it was given as ``text_format``.
        :raises ConfigurationError: if the request does not ask for JSON, or for another type.
        :raises ParseError: after the last partial value, as ``connection.parse`` does: for a
            refusal, an answer that was cut off, or text that does not match the type.
        :raises ResponsesError: as the iteration over events does.
        """
        from trio_responses._turn.partials import PartialValues  # noqa: PLC0415 - on first use

        answer_type = self._answer_format.type_of(answer)
        return PartialValues(
            answer_type,
            read_batch=self._next_batch,
            accumulator=partial(accumulator_of, self),
            parse=lambda: self._parse(answer_type).parsed,
        )

    @overload
    async def get_parsed_response(self, answer: type[T]) -> ParsedResponse[T]: ...
    @overload
    async def get_parsed_response(self, answer: Any = None) -> ParsedResponse[Any]: ...
    async def get_parsed_response(self, answer: Any = None) -> ParsedResponse[Any]:
        """Read to the end, and return the `Response` with its answer as a value of a type.

        If cancelled, no event is lost: the rest can still be read.

        :param answer: as of `partials`.
        :raises ConfigurationError: as `partials` does.
        :raises ParseError: as ``connection.parse`` does.
        :raises ResponsesError: as `get_final_response` does.
        """
        answer_type = self._answer_format.type_of(answer)
        await self.get_final_response()
        return self._parse(answer_type)

    def _parse(self, answer: AnswerType) -> ParsedResponse[Any]:
        return parse_response(raise_if_failed(self.response), answer.json_type)

    def text_deltas(self, *, final_only: bool = False) -> AsyncIterator[str]:
        """Iterate over the text alone, piece by piece.

        If the request is sent again, the text starts again without notice.

        :param final_only: whether the text of commentary is left out: of messages that started
            with the phase ``commentary``.
        :raises ResponsesError: as the iteration over events does.
        """
        return _TextDeltas(self, final_only=final_only)

    def phase_of(self, event: StreamEvent) -> str | None:
        """Return the phase of the message that an event is about.

        The phase is ``commentary``, ``final_answer`` or another word. It is `None` if the event is
        about no message, or no event has stated the phase so far.

        :param event: the event that was read last, such as a delta of the text, or any event of
            the last batch. The other events of the batch may have stated the phase.
        """
        index = getattr(event, "output_index", None)
        if index is None:
            return None
        self._accumulate()
        item = getattr(event, "item", None)
        item_id = getattr(event, "item_id", None) if item is None else getattr(item, "id", None)
        return self._accumulator.phase_of(index, item_id)

    @property
    def response(self) -> Response:
        """The finished `Response`: completed, incomplete or failed.

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
    def usage(self) -> Usage | None:
        """The tokens of all Responses that have ended so far; `None` if no server counted any.

        They are more than the ``usage`` of `response` if the turn was steered, or if a failed
        Response was repeated.
        """
        return sum_usages(self._usages)

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
        """Send steering input for the active response.

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
        * the request can be built differently so that the error does not occur again
          (`RequestBuilder.prepare_retry`), at most once for each type of error;
        * it did not run, for a reason that does not hold for another endpoint of the pool
          (`TurnSender.may_move`);
        * it provably did not run, or the caller chose ``at_least_once`` (`may_resend`). After a
          rate limit or an error of the server the turn waits first, for the delay that the server
          asked for or else a growing one, at most ``max_retries`` times; a delay over
          ``max_retry_wait`` lets the turn fail. After any other failure it is sent again at once,
          at most once for each type of error.

        `_delay_after` decides the last three, for an attempt that was sent.
        """
        reroutes = 0
        retry = bool(self._restart_causes)
        while True:
            try:
                turn = await self._sender.start_turn(self._request, retry=retry)
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
        """Wait for the delay of a restart, and send the request again.

        If cancelled, the next read tries again. If the block is left meanwhile, nothing is sent,
        or the rest of the attempt is discarded.
        """
        cause, failed = self._restart_causes[-1], self._turn
        try:
            with trio.CancelScope() as self._sending_again:
                if self._retry_at > trio.current_time():
                    await trio.sleep_until(self._retry_at)
                await self._send()
        except ResponsesError as error:
            error.__context__ = cause
            error.__cause__ = error.__cause__ or cause
            self._fail(error)
        finally:
            self._sending_again = None
        if self._state is StreamState.LEFT:
            if self._turn is not None and self._turn is not failed:  # sent before the cancellation
                self._sender.abandon_turn(self._turn)
            return
        self._start_new_response()
        self._earlier.clear()

    def _handle_failure(self, error: ResponsesError) -> None:
        """Restart the turn if its request may be sent again, else let it fail."""
        if self._unfollowed is not None:  # only the start of a successor is unknown
            self._finish(self._unfollowed)
        elif not self._restart_after(error):
            if self._restart_causes:
                error.__context__ = self._restart_causes[-1]
            self._fail(error)

    def _restart_after(self, error: ResponsesError) -> bool:
        """Restart the turn if its request may be sent again; return whether it is."""
        assert self._turn is not None  # noqa: S101 - an attempt has failed
        delay = self._delay_after(error)
        if delay is None:
            return False
        self._restart_causes.append(error)
        self._restart = TurnRestarted(error=error, delay=delay)
        self._retry_at = trio.current_time() + delay
        self._unfollowed = None
        self._sender.abandon_turn(self._turn, restarts=True)
        self._advance(StreamTrigger.RESTART)
        self._notify_retry(delay, error)
        return True

    def _delay_after(self, error: ResponsesError) -> float | None:
        """Return the seconds until the request is sent again; `None` if it is not sent again."""
        failure = failure_of(error)
        if not may_resend(error.delivery, failure, self._choice):
            if self._sender.may_move(error):
                return 0.0
            if not self._request.prepare_retry(error):
                return None
        elif needs_delay(failure):
            policy = self._retry_policy or self._sender.retry_policy
            if self._retries == policy.max_retries:
                return None
            max_wait = policy.max_retry_wait
            delay = retry_delay(self._retries, retry_after=retry_hint(error), max_wait=max_wait)
            self._retries += 1
            return delay
        return None if type(error) in map(type, self._restart_causes) else 0.0

    def _fail(self, error: ResponsesError) -> None:
        """Fail the turn, with the furthest delivery status of all its attempts."""
        error.delivery = furthest(one.delivery for one in (*self._restart_causes, error))
        self._failure = error
        self._advance(StreamTrigger.FAIL)
        self._notify_end(error)

    # --- Reading -------------------------------------------------------------------------

    async def _read(
        self, take: Callable[[TurnAttempt], Sequence[StreamEvent]]
    ) -> Sequence[StreamEvent]:
        """Wait for the next events of the current attempt, or of the next one after a restart.

        The turn is saved before its last events are returned. If that is cancelled or fails, the
        next read tries again, so that no event is lost.

        :param take: takes events out of the inbox, and returns those that are yielded.
        """
        if self._reading:
            raise trio.BusyResourceError("another task is reading this stream")
        self._reading = True
        try:
            events = self._unsaved
            while not events:
                if self._state is StreamState.READING and self._turn is not None:
                    try:
                        await self._turn.inbox.wait()
                    except ResponsesError as error:
                        events = await self._conclude_lost(error)
                    else:
                        events = take(self._turn)
                elif self._state is StreamState.RESTARTING:
                    events = await self._continue_restart()
                elif self._response is not None:
                    await self._request.save()  # of a turn that ended without another event
                    raise StopAsyncIteration
                else:
                    raise self._failure or RuntimeError(OUTSIDE)
            if self._response is not None:
                self._unsaved = events
                await self._request.save()
                self._unsaved = ()
            return events
        finally:
            self._reading = False

    async def _continue_restart(self) -> Sequence[TurnRestarted]:
        """Return the event for a restart, if it was not read; else send the request again."""
        restarted, self._restart = self._restart, None
        if restarted is not None:
            return (restarted,)
        await self._send_again()
        return ()

    async def _conclude_lost(self, error: ResponsesError) -> Sequence[ServerEvent]:
        """Return the last event of an attempt whose events were lost; none if it has failed.

        Where the caller chose so, the Response of a turn whose events were lost is retrieved. If
        that is cancelled, the next read tries again.
        """
        response = await self._recover(error)
        if response is None:
            self._handle_failure(error)
            return ()
        event = terminal_event(response)
        self._conclude(event)
        return (event,)

    async def _recover(self, error: ResponsesError) -> Response | None:
        """Return the finished Response of a turn whose events were lost, if there is one."""
        lost = failure_of(error) in LOST_EVENTS and error.delivery is DeliveryStatus.ACCEPTED
        turn = self._turn
        if not lost or turn is None or turn.response_id is None or turn.steers:
            return None
        return await self._sender.recover(turn)

    def _take_next(self, turn: TurnAttempt) -> Sequence[ServerEvent]:
        """Take the next event, and hold those that may be read without a full checkpoint."""
        if self._held:
            self._accumulate()
        # No ready event is the last one of the turn, nor belongs to a steering input to come.
        event, ready = turn.inbox.take(ready=not turn.steers)
        if turn.steers:
            self._follow_successor(turn, event)
        if ready:
            self._hold(event, ready)
            return (event,)  # not the last one
        self._accumulator.feed((event,))
        if turn.state in ENDED and turn.inbox.empty:
            return self._conclude_with((event,))
        return (event,)

    def _take_batch(self, turn: TurnAttempt) -> Sequence[ServerEvent]:
        """Take all events; of a steered turn, those up to the end of a response."""
        if self._held:
            self._accumulate()
        events: Sequence[ServerEvent]
        if turn.steers:
            events = self._take_response(turn)
        else:
            events = turn.inbox.take_batch()
            self._accumulator.feed(events)
        if turn.state in ENDED and turn.inbox.empty:
            return self._conclude_with(events)
        return events

    def _take_response(self, turn: TurnAttempt) -> Sequence[ServerEvent]:
        """Take the events of a steered turn up to the end of a response."""
        events: list[ServerEvent] = []
        while not turn.inbox.empty and not (events and isinstance(events[-1], TERMINAL)):
            event, _ = turn.inbox.take(ready=False)
            self._follow_successor(turn, event)
            self._accumulator.feed((event,))
            events.append(event)
        return events

    def _follow_successor(self, turn: TurnAttempt, event: ServerEvent) -> None:
        """Follow a steered turn from one response to its successor."""
        if isinstance(event, TERMINAL):
            self._unfollowed = self._finish_response(event.response)
        elif isinstance(event, ResponseCreated) and self._unfollowed is not None:
            steers = [one for one in turn.steers if one.successor == event.response.id]
            self._request.handle_successor(self._unfollowed, steers)
            self._earlier.append(self._unfollowed)
            self._unfollowed = None
            self._start_new_response()

    def _conclude_with(self, events: Sequence[ServerEvent]) -> Sequence[ServerEvent]:
        """End the turn after its last events; return them without one that restarts the turn."""
        self._conclude(events[-1])
        return events[:-1] if self._state is StreamState.RESTARTING else events

    def _conclude(self, event: ServerEvent) -> None:
        """End the turn after its last event, with a Response or an error."""
        assert self._turn is not None  # noqa: S101 - an event was received
        if isinstance(event, TERMINAL):
            self._unfollowed = self._unfollowed or self._finish_response(event.response)
        if self._unfollowed is not None:
            self._conclude_response(self._unfollowed)
        elif isinstance(event, UndecodableFrame):
            undecodable = UndecodableResponse(event)
            undecodable.delivery = DeliveryStatus.ACCEPTED
            self._handle_failure(undecodable)
        elif isinstance(event, ErrorEvent):
            error = api_error(event, response_id=self._turn.response_id)
            error.delivery = delivery_of_error(event, started=self._turn.started)
            self._handle_failure(error)

    def _finish_response(self, response: Response) -> Response:
        """Return a Response that has ended with its whole output, and count its usage."""
        if response.usage is not None:
            self._usages.append(response.usage)
            self._request.count_usage(response.usage)
        return self._accumulator.finish(response)

    def _conclude_response(self, response: Response) -> None:
        """End the turn with a Response, unless the Response failed and the turn is repeated."""
        failed = response.status == "failed"
        if not failed or not self._restart_after(failed_response_error(response)):
            self._finish(response)

    def _finish(self, response: Response) -> None:
        """End the turn with a Response."""
        assert self._turn is not None  # noqa: S101 - an event was received
        self._response, self._unfollowed = response, None
        self._advance(StreamTrigger.FINISH)
        steers = self._turn.steers
        pending = [one for one in steers if one.state is SteerState.PENDING] if steers else []
        self._request.commit(response, pending)
        self._notify_end()

    # --- Events that were taken out of the inbox -------------------------------------------

    def _start_new_response(self) -> None:
        """Discard the held events, and start to accumulate a new response."""
        self._accumulator = Accumulator(keep_text=self._keeps_text)
        self._held, self._ready, self._accumulated = (), [], 0

    def _hold(self, read: ServerEvent, ready: list[ServerEvent]) -> None:
        """Hold events that were taken: one that is read now, and the ready ones."""
        self._held = [read, *reversed(ready)]
        self._ready = [*ready]
        self._accumulated = 0

    def _read_first(self, events: Sequence[StreamEvent]) -> StreamEvent:
        """Return the first event of a batch whose turn was saved late; the others are ready."""
        self._ready = [*reversed(events[1:])]
        return events[0]

    def _accumulate(self) -> None:
        """Accumulate the held events that were read since the last call."""
        read = len(self._held) - len(self._ready)
        if read > self._accumulated:
            self._accumulator.feed(self._held[self._accumulated : read])
            self._accumulated = read
        if not self._ready:
            self._held, self._accumulated = (), 0

    def _advance(self, trigger: StreamTrigger) -> None:
        self._state = TRANSITIONS[self._state][trigger]

    def _notify_retry(self, delay: float, error: ResponsesError) -> None:
        """Notify the instruments of a restart, also those that had no interest in the turn."""
        request, turn = self._request, self._turn
        if request.observer is None and turn is not None and turn.instruments is not None:
            attempts = len(self._restart_causes)
            request.observer = turn.instruments.observe_retried_turn(request.model, attempts)
        if request.observer is not None:
            request.observer.retrying(delay, error)

    def _begin_work(self) -> None:
        """Count the turn as work in progress, unless it counts already or its run does.

        :raises ConnectionClosed: while the connection or the pool drains.
        """
        if not self._is_counted and not self._within_run:
            self._sender.work.begin()
            self._is_counted = True

    def _end_work(self) -> None:
        if self._is_counted:
            self._is_counted = False
            self._sender.work.end()

    def _notify_end(self, error: BaseException | None = None) -> None:
        """Stop counting the turn, which has ended or was left early; notify the instruments."""
        self._end_work()
        observer = self._request.observer
        if observer is not None:
            responses = self.responses if self._response is not None else ()
            observer.ended(responses, error, self.response_id, self._usages)


def accumulator_of(stream: ResponseStream) -> Accumulator:
    """Return the accumulator of a stream, with all events that were read."""
    stream._accumulate()  # noqa: SLF001 - of this module
    return stream._accumulator  # noqa: SLF001 - likewise


def raise_if_failed(response: Response) -> Response:
    """Return a Response that did not fail.

    :raises ResponseFailedError: when the response failed.
    """
    if response.status == "failed":
        raise failed_response_error(response)
    return response


class CallIterator(Generic[T]):
    """An iterator that calls an async function for each value.

    Not a generator, so that the iteration may be left by ``break``.
    """

    __slots__ = ("_call",)

    def __init__(self, call: Callable[[], Coroutine[Any, Any, T]]) -> None:
        self._call = call

    def __aiter__(self) -> Self:
        """Return the iterator itself."""
        return self

    def __anext__(self) -> Coroutine[Any, Any, T]:
        """Return the coroutine of the next call."""
        return self._call()


class _TextDeltas:
    """An iterator over the text of a stream, piece by piece.

    Not a generator, so that the iteration may be left by ``break``.
    """

    def __init__(self, stream: ResponseStream, *, final_only: bool) -> None:
        self._stream = stream
        self._final_only = final_only

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> str:
        while True:
            event = await self._stream.__anext__()
            if isinstance(event, OutputTextDelta) and not self._is_left_out(event):
                return event.delta

    def _is_left_out(self, delta: OutputTextDelta) -> bool:
        return self._final_only and self._stream.phase_of(delta) == COMMENTARY


def terminal_event(response: Response) -> EndEvent:
    """Return the event that ends a Response, made of a Response that has ended."""
    raw = response.raw or msgspec.Raw(msgspec.json.encode(response))
    match response.status:
        case "failed":
            return ResponseFailed(raw_response=raw)
        case "incomplete":
            return ResponseIncomplete(raw_response=raw)
        case _:
            return ResponseCompleted(raw_response=raw)
