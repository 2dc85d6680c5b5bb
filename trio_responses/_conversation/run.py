"""A run of a conversation: turns, and tool calls between them, until the model answers.

The task that iterates over a `RunStream` reads the events of the model itself, as from any stream.
Between two turns, the calls of a response run side by side in the nursery of the run's block, and
send notifications to that task over a channel. `CallTracker` keeps each output from the moment at
which the output exists: however the run ends, a call that has started does not start again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias, TypeVar, cast, final, overload

import trio

from trio_responses._concurrency import Notifier, open_collapsing_nursery, opens_block
from trio_responses._conversation.settings import TurnSettings
from trio_responses._errors import (
    CallInterrupted,
    ConfigurationError,
    MaxRoundsExceeded,
    ToolRetriesExceeded,
    UndecodableCall,
)
from trio_responses._instruments.instrument import Instruments
from trio_responses._lifecycle import StreamEvent
from trio_responses._protocol.calls import find_unanswerable_call, make_error_output, name_of_call
from trio_responses._protocol.raw_items import RawItems
from trio_responses._tools.parsing import parse_response
from trio_responses._tools.toolbox import INTERRUPTED, ToolFinished, ToolProgress, ToolStarted
from trio_responses._turn.answer_format import ANY_TEXT
from trio_responses._turn.stream import CallIterator, accumulator_of, raise_if_failed
from trio_responses._wire import sum_usages

if TYPE_CHECKING:
    from collections.abc import (
        AsyncGenerator,
        AsyncIterator,
        Awaitable,
        Callable,
        Iterable,
        Sequence,
    )
    from typing import Self

    import msgspec

    from trio_responses import _wire as wire
    from trio_responses._conversation.history import ActiveRequest, History
    from trio_responses._conversation.journal import Journal
    from trio_responses._conversation.turn import TurnLock
    from trio_responses._instruments.records import RunRecord
    from trio_responses._protocol.calls import CallKey
    from trio_responses._tools.context import CallContext
    from trio_responses._tools.namespace import ToolLike
    from trio_responses._tools.parsing import ParsedResponse
    from trio_responses._tools.toolbox import Toolbox
    from trio_responses._turn.answer_format import AnswerFormat, AnswerType
    from trio_responses._turn.stream import ResponseStream
    from trio_responses._turn.work import ActiveWork
    from trio_responses._wire import Response, Usage

__all__ = ["RunConfig", "RunEvent", "RunStream", "open_run"]

T = TypeVar("T")

MakeTurn: TypeAlias = "Callable[[RawItems, TurnSettings, ActiveRequest | None], ResponseStream]"
"""Returns the stream of a turn, for its new items, its settings, and the request that it is for."""

RunEvent: TypeAlias = StreamEvent | ToolStarted | ToolProgress | ToolFinished
"""An event of the model, or a notification of a call: started, progress, finished."""


class _ProgressReport(NamedTuple):
    """A report of a call that has not been read."""

    event: ToolProgress
    unread: trio.Semaphore
    """Released when the report is read, so that the call may send the next one."""


ToolNotification: TypeAlias = ToolStarted | _ProgressReport | ToolFinished | Exception
"""A notification of a call; an exception ends the run."""

Report: TypeAlias = "Callable[[Any], Awaitable[None]]"
"""Reports the progress of a call."""

MakeToolContext: TypeAlias = "Callable[[wire.FunctionCall, Report], CallContext]"
"""Returns the context of a call, for the function that reports its progress."""

ChooseNow: TypeAlias = "Callable[[], Awaitable[Sequence[ToolLike]]]"
"""Returns the tools that the model sees in the next turn."""

FORCING_CHOICES: Final = frozenset({"required", "any"})
"""Values of ``tool_choice`` that force a call."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunConfig:
    """The options of a run of a conversation: tools, approval and limits."""

    toolbox: Toolbox
    """The tools and handlers that answer calls."""
    choose_tools: ChooseNow | None = None
    """Returns the tools of the next turn; `None` if each turn has the same."""
    max_rounds: int
    """The largest number of responses."""
    max_concurrency: float
    """The largest number of tools that run at the same time."""
    settings: TurnSettings
    """The settings of the first turn."""
    make_context: MakeToolContext
    """Returns the context of a call."""
    repeat_interrupted: bool = False
    """Whether calls that an earlier run has started and not finished start again."""
    request_id: str | None = None
    """The id of the request, in a durable conversation."""
    journal: Journal | None = None
    """The journal of a durable conversation."""
    instruments: Instruments = field(default_factory=Instruments, repr=False)
    """Notified about the run, and about each call that runs."""
    conversation_id: str | None = None
    """The id of the conversation, if the user has chosen one."""
    answer_format: AnswerFormat = ANY_TEXT
    """The format of the text that the settings ask for."""


@final
class RunStream:
    """The stream of a run's events, open for the length of an ``async with`` block.

    Made by ``conversation.run_stream()``. Iterate over it once, in one task. The block may be left
    at any ``await``: the remaining events of the response are discarded, and tools are cancelled.
    """

    def __init__(
        self,
        make_turn: MakeTurn,
        lock: TurnLock,
        history: History,
        nursery: trio.Nursery,
        *,
        config: RunConfig,
        new: RawItems,
        record: RunRecord | None = None,
    ) -> None:
        self._make_turn = make_turn
        self._lock = lock
        self._history = history
        self._calls = history.track_calls()
        self._nursery = nursery
        self._config = config
        self._toolbox = config.toolbox
        """What answers the calls of the latest turn."""
        self._new = new
        self._record = record
        """The record for the instruments; `None` if no instrument observes the run."""
        self._limiter = trio.CapacityLimiter(config.max_concurrency)
        self._failures = _FailureCounter()
        self._events = self._run()
        self._reading = False
        self._in_batches = False
        """Whether the active read returns all events that are there, and not one."""
        self._scope = trio.CancelScope()
        """The scope of the active read, which `aclose` cancels."""
        self._idle = Notifier()
        """Notified when a read ends."""
        self._response: Response | None = None
        self.responses: list[Response] = []
        """The responses that have ended, in order."""
        self.stream: ResponseStream | None = None
        """The active turn, for example to steer it; `None` while tools run."""
        self._streams: list[ResponseStream] = []
        """All turns of the run, the active one included."""

    def __aiter__(self) -> Self:
        """Iterate over the events."""
        return self

    async def __anext__(self) -> RunEvent:
        """Wait for the next event. A checkpoint; a cancellation ends the run.

        :raises MaxRoundsExceeded: when the last allowed response still has calls; the conversation
            can be continued.
        :raises ToolRetriesExceeded: when the calls of a tool have failed more often than its limit
            of retries allows; the conversation can be continued.
        :raises ResponseFailedError: when a response failed.
        :raises UndecodableCall: when a response has a call that no output can answer.
        :raises CallInterrupted: when an earlier run has interrupted a call whose output cannot say
            so.
        :raises ResponsesError: when a turn ended without a Response.
        :raises Exception: the exception of a tool, with ``on_tool_error="raise"``.
        :raises trio.BusyResourceError: while another task waits for the next event.
        """
        (event,) = await self._read(in_batches=False)
        return event

    def batches(self) -> AsyncIterator[Sequence[RunEvent]]:
        """Iterate over the events in batches, as `ResponseStream.batches` does.

        A notification of a call is a batch alone. A cancellation ends the run.

        :raises Exception: as the iteration over events does, after the last batch.
        """
        return CallIterator(partial(self._read, in_batches=True))

    async def _read(self, *, in_batches: bool) -> Sequence[RunEvent]:
        if self._reading:
            raise trio.BusyResourceError(
                "another task is already reading this run: read it in one task"
            )
        self._reading, self._in_batches = True, in_batches
        try:
            with self._scope:
                return await self._events.__anext__()
            raise RuntimeError("the run has ended: read its events inside its async with block")
        except StopAsyncIteration:
            raise
        except Exception as error:
            if self._record is not None and self._record.error is None:
                self._record.error = error
            raise
        finally:
            self._reading = False
            self._scope = trio.CancelScope()
            self._idle.notify()

    async def get_final_response(self) -> Response:
        """Read to the end, and return the last `Response`. A cancellation ends the run.

        :raises Exception: as the iteration over events does.
        """
        async for _ in self.batches():
            pass
        return self.response

    @overload
    def partials(self, answer: type[T]) -> AsyncIterator[T]: ...
    @overload
    def partials(self, answer: Any = None) -> AsyncIterator[Any]: ...
    def partials(self, answer: Any = None) -> AsyncIterator[Any]:
        """Iterate over the values of a typed answer, as `ResponseStream.partials` does.

        The answer is the text of the last response. Which response is the last one is known at
        its end, so the values of each response are yielded, and start again with the next one.
        A response that only calls tools has none. A cancellation ends the run.

        :param answer: the type; may be left out if it was given as ``text_format``.
        :raises ConfigurationError: if the run does not ask for JSON, or for another type.
        :raises ParseError: after the last partial value, as ``conversation.parse`` does.
        :raises Exception: as the iteration over events does.
        """
        from trio_responses._turn.partials import PartialValues  # noqa: PLC0415 - on first use

        answer_type = self._config.answer_format.type_of(answer)
        return PartialValues(
            answer_type,
            read_batch=partial(self._read, in_batches=True),
            accumulator=lambda: accumulator_of(self.stream) if self.stream is not None else None,
            parse=lambda: self._parse(answer_type).parsed,
        )

    @overload
    async def get_parsed_response(self, answer: type[T]) -> ParsedResponse[T]: ...
    @overload
    async def get_parsed_response(self, answer: Any = None) -> ParsedResponse[Any]: ...
    async def get_parsed_response(self, answer: Any = None) -> ParsedResponse[Any]:
        """Read to the end, and return the last `Response` with its answer as a value of a type.

        A cancellation ends the run.

        :param answer: as of `partials`.
        :raises ConfigurationError: as `partials` does.
        :raises ParseError: as ``conversation.parse`` does.
        :raises Exception: as the iteration over events does.
        """
        answer_type = self._config.answer_format.type_of(answer)
        await self.get_final_response()
        return self._parse(answer_type)

    def _parse(self, answer: AnswerType) -> ParsedResponse[Any]:
        answered = self._calls.has_unsent_output
        return parse_response(self.response, answer.json_type, is_answered=answered)

    @property
    def response(self) -> Response:
        """The last `Response`: the answer, or one with calls that no tool or handler answers.

        :raises RuntimeError: when the run has not ended, or has failed.
        """
        if self._response is None:
            raise RuntimeError(
                "the run has no final response: it failed, or was not read to its end; call"
                " get_final_response() inside its async with block"
            )
        return self._response

    @property
    def usage(self) -> Usage | None:
        """The tokens of all Responses that have ended so far; `None` if no server counted any.

        Steered and repeated ones, which `responses` leaves out, are included.
        """
        usages = [stream.usage for stream in self._streams]
        return sum_usages(usage for usage in usages if usage is not None)

    def phase_of(self, event: RunEvent) -> str | None:
        """Return the phase of the message that an event is about, as ``stream.phase_of`` does.

        :param event: the event that was read last, or any event of the last batch.
        """
        if self.stream is None or isinstance(event, ToolStarted | ToolProgress | ToolFinished):
            return None
        return self.stream.phase_of(event)

    async def aclose(self) -> None:
        """End the run. A task that waits for its next event gets a `RuntimeError`."""
        with trio.CancelScope(shield=True):
            while self._reading:
                self._scope.cancel()
                await self._idle.wait()
        await self._events.aclose()
        if self._record is not None:
            self._record.turns = len(self._streams)
            self._record.usages = tuple(one.usage for one in self._streams if one.usage is not None)
            self._record.completed = self._response is not None

    async def _run(self) -> AsyncGenerator[Sequence[RunEvent], None]:
        """Alternate turns and tool calls, until a response has no call that a tool answers."""
        calls, config = self._calls, self._config
        settings = config.settings
        request = await self._begin_request()
        if request is not None and request.ended:
            self._response = self.responses[-1]
            return
        new = self._new
        if not new and calls.has_pending_calls:  # the turn with the forced call was an earlier one
            settings = _without_forced_call(settings)
        await self._take_over_calls(settings)
        while True:
            pending = self._pending_calls(new)
            handled = {key: call for key, call in pending.items() if self._toolbox.handles(call)}
            if len(self.responses) >= config.max_rounds and len(handled) == len(pending):
                raise MaxRoundsExceeded(config.max_rounds, self.responses[-1])
            scope = trio.CancelScope()
            try:
                async for notification in self._start_calls(handled, scope):
                    yield (_event_of(notification),)
            finally:
                scope.cancel()
            self._failures.end_round()
            outputs = [self._toolbox.shorten(one) for one in calls.outputs_for(pending)]
            # Calls without output are left to the caller, or the history was replaced meanwhile.
            if self.responses and len(outputs) < len(pending):
                await self._end_request(request, handled)
                break
            input_items, new = RawItems.join(outputs) + new, RawItems()
            self._check_has_input(input_items, settings)
            of_turn = await self._choose_tools(settings)
            async with self._make_turn(input_items, of_turn, request) as stream:
                self.stream = stream
                self._streams.append(stream)
                while events := await self._read_turn(stream):
                    yield events
            self.stream = None
            self.responses.append(raise_if_failed(stream.response))
            _check_answerable(stream.responses)
            settings = _without_forced_call(settings)
            if stream.response.status != "completed" or not calls.has_pending_calls:
                break
        self._response = self.responses[-1]

    async def _take_over_calls(self, settings: TurnSettings) -> None:
        """Prepare to answer the calls that an earlier run has left."""
        if self._config.repeat_interrupted:
            self._calls.forget_interruptions()
        if self._calls.has_pending_calls:
            await self._choose_tools(_without_forced_call(settings))

    async def _choose_tools(self, settings: TurnSettings) -> TurnSettings:
        """Return the settings of the next turn, whose tools may differ from those of the last one.

        :raises ConfigurationError: for a ``tool_choice`` that needs a tool which they lack.
        :raises Exception: any exception of the function that chooses the tools.
        """
        if self._config.choose_tools is None:
            return settings
        with self._lock.excluding_current_task():
            tools = await self._config.choose_tools()
        self._toolbox = self._toolbox.with_tools(tools)
        return settings.with_tools(tools)

    async def _read_turn(self, stream: ResponseStream) -> Sequence[RunEvent]:
        """Return the next event of a turn, or all that are there; none at its end."""
        try:
            return await anext(stream.batches()) if self._in_batches else (await anext(stream),)
        except StopAsyncIteration:
            return ()

    async def _begin_request(self) -> ActiveRequest | None:
        """Return the request of the run, with what an earlier attempt has brought.

        :raises ConfigurationError: for an unsuitable id, and one that was used with another input.
        :raises RequestSuperseded: if it was interrupted, and other turns have followed.
        """
        journal, request_id, request = self._config.journal, self._config.request_id, None
        if journal is not None and request_id is not None:
            request = await journal.begin_request(request_id, self._new)
        elif journal is not None and not self._new and not self._history.unsent:
            request = journal.continue_request()
        if request is not None:
            request.ends_with = self._is_answer
        if request is not None and request.latest is not None:
            self._new = RawItems()  # the history has the input
            self.responses.append(request.latest)
            _check_answerable(self.responses)
        else:
            self._new = self._new or self._history.unsent
            if request is None:  # the input of a request comes again, with its id
                self._history.unsent = self._new
        return request

    async def _end_request(self, request: ActiveRequest | None, handled: Iterable[CallKey]) -> None:
        """Save that the last Response is the answer, unless the history was replaced meanwhile.

        The calls that tools answer have outputs, if only that they were interrupted.
        """
        if request is None or self._config.journal is None:
            return
        if all(self._calls.has_unsent_output(key) for key in handled):
            self._config.journal.record_answer(request)
            await self._history.save()

    def _is_answer(self, response: Response) -> bool:
        """Whether no call of a response is going to run, so that the run ends with it."""
        pending = self._calls.pending_calls().values()
        return response.status != "completed" or not any(
            self._toolbox.handles(call) for call in pending
        )

    def _pending_calls(self, new: RawItems) -> dict[CallKey, wire.ToolCall]:
        """Return the calls without output, in order; outputs in the new items count.

        :raises CallInterrupted: for a call that was interrupted, if its output cannot say so.
        """
        pending = self._calls.pending_calls(answered_by=new)
        for key, call in pending.items():
            if self._calls.is_interrupted(key):
                raise CallInterrupted(call)
        return pending

    def _check_has_input(self, new: RawItems, settings: TurnSettings) -> None:
        if not new and not self._history.item_count and "prompt" not in settings.plain:
            raise ConfigurationError(
                "the run needs an input: the history of the conversation is empty, so there is"
                " nothing to continue"
            )

    def _start_calls(
        self, calls: Mapping[CallKey, wire.ToolCall], scope: trio.CancelScope
    ) -> trio.MemoryReceiveChannel[ToolNotification]:
        """Start tool calls in parallel, and return the channel of their notifications."""
        # The buffer has room for all notifications of a call: started, finished, an exception, and
        # one report of progress.
        send, receive = trio.open_memory_channel[ToolNotification](4 * len(calls))
        self._nursery.start_soon(self._run_calls, calls, send, scope)
        return receive

    async def _run_calls(
        self,
        calls: Mapping[CallKey, wire.ToolCall],
        notifications: trio.MemorySendChannel[ToolNotification],
        scope: trio.CancelScope,
    ) -> None:
        """Run tool calls until all have an output, or the first one raises an exception.

        Calls start in order, also if they have to wait for one another.
        """
        with notifications, scope:
            async with open_collapsing_nursery() as nursery:
                for key, call in calls.items():
                    if not self._calls.has_unsent_output(key):
                        run = partial(self._run_or_fail, key, call, notifications, scope)
                        await nursery.start(run)

    async def _run_or_fail(
        self,
        key: CallKey,
        call: wire.ToolCall,
        notifications: trio.MemorySendChannel[ToolNotification],
        scope: trio.CancelScope,
        *,
        task_status: trio.TaskStatus,
    ) -> None:
        """Run one tool call. Its exception cancels the other calls and ends the run."""
        task_status.started()
        try:
            with self._lock.excluding_current_task():
                await self._run_call(key, call, notifications)
        except Exception as error:  # noqa: BLE001 - the iteration raises it
            notifications.send_nowait(error)
            scope.cancel()

    async def _run_call(
        self,
        key: CallKey,
        call: wire.ToolCall,
        notifications: trio.MemorySendChannel[ToolNotification],
    ) -> None:
        """Run one tool call, and store its output in the history.

        Before the call starts, its start is stored, and the text for an interrupted call as output.
        """
        toolbox, store_output = self._toolbox, self._calls.store_output
        ambiguous = self._calls.is_ambiguous(key)
        output = await toolbox.output_without_running(call, ambiguous=ambiguous)
        if output is not None:
            store_output(key, output)
            await self._history.save()
            finished = ToolFinished(call=call, raw_item=output, error=None, seconds=0.0)
            notifications.send_nowait(finished)
            return
        async with self._limiter:
            notifications.send_nowait(ToolStarted(call=call))
            started_at = trio.current_time()
            self._calls.start_call(key, make_error_output(call, INTERRUPTED))
            await self._history.save()
            if self._record is not None:
                self._record.tool_calls += 1
            with self._config.instruments.observe_call(call) as record:
                output, failure = await self._output_of(call, notifications)
                if record is not None:
                    record.error, record.output = failure, output
            store_output(key, output)
            self._failures.add(name_of_call(call), failure, toolbox.retries_of(call))
            await self._history.save()
            seconds = trio.current_time() - started_at
        finished = ToolFinished(call=call, raw_item=output, error=failure, seconds=seconds)
        notifications.send_nowait(finished)
        if failure is not None and toolbox.ends_run(failure):
            raise failure

    async def _output_of(
        self, call: wire.ToolCall, notifications: trio.MemorySendChannel[ToolNotification]
    ) -> tuple[msgspec.Raw, Exception | None]:
        """Run a tool call; return its output, and the exception that the output reports."""
        unread = trio.Semaphore(1, max_value=1)

        async def report(value: Any) -> None:
            await unread.acquire()
            try:
                notifications.send_nowait(
                    _ProgressReport(ToolProgress(call=call, value=value), unread)
                )
            except trio.ClosedResourceError:
                raise RuntimeError("progress() is for a call that has not ended") from None

        def make_context(one: wire.FunctionCall) -> CallContext:
            return self._config.make_context(one, report)

        try:
            return await self._toolbox.run(call, make_context), None
        except Exception as error:
            output = self._toolbox.error_output(call, error)
            if output is None:
                raise
            return output, error


class _FailureCounter:
    """Counts for each tool in how many responses in a row its calls have failed."""

    def __init__(self) -> None:
        self._in_a_row: dict[str, int] = {}
        self._of_round: dict[str, tuple[Exception | None, int | None]] = {}
        """The result of each tool in the active round, and its limit of retries."""

    def add(self, tool: str, failure: Exception | None, limit: int | None) -> None:
        """Count a call that has run. One call of a tool that succeeds outweighs those that fail."""
        if failure is None:
            self._of_round[tool] = None, limit
        else:
            self._of_round.setdefault(tool, (failure, limit))

    def end_round(self) -> None:
        """Called when all calls of a response have an output.

        :raises ToolRetriesExceeded: for the first tool that has failed too often.
        """
        ended, self._of_round = self._of_round, {}
        for tool, (failure, limit) in ended.items():
            self._in_a_row[tool] = self._in_a_row.get(tool, 0) + 1 if failure is not None else 0
            if limit is not None and self._in_a_row[tool] > limit:
                raise ToolRetriesExceeded(tool, limit) from failure


def _event_of(notification: ToolNotification) -> RunEvent:
    """Return the event of a notification.

    :raises Exception: the exception of a tool that ends the run.
    """
    if isinstance(notification, Exception):
        raise notification
    if isinstance(notification, _ProgressReport):
        notification.unread.release()
        return notification.event
    return notification


def _check_answerable(responses: Iterable[Response]) -> None:
    """Check that every call in the completed responses of a turn can be answered.

    :raises UndecodableCall: for the first call that cannot.
    """
    for response in responses:
        found = find_unanswerable_call(response.output)
        if found is not None and response.status == "completed":
            call, reason = found
            raise UndecodableCall(call, reason, response)


def _without_forced_call(settings: TurnSettings) -> TurnSettings:
    """Return the settings of the turns after the first, which force no tool call."""
    choice = settings.plain.get("tool_choice")
    later = _unforced_choice(choice)
    if later == choice:
        return settings
    return TurnSettings({**settings.plain, "tool_choice": later})


def _unforced_choice(choice: Any) -> Any:
    """Return a ``tool_choice`` that forces no tool call and allows the same tools."""
    if isinstance(choice, Mapping):
        named = cast("Mapping[str, Any]", choice)
        return {**named, "mode": "auto"} if named.get("type") == "allowed_tools" else "auto"
    return "auto" if choice in FORCING_CHOICES else choice


@opens_block("conversation.run_stream(...) as run")
async def open_run(
    make_turn: MakeTurn,
    lock: TurnLock,
    history: History,
    config: RunConfig,
    new: RawItems,
    *,
    work: ActiveWork,
) -> AsyncGenerator[RunStream, None]:
    """Open a run for the length of a block, and hold the lock of the conversation meanwhile.

    :param make_turn: returns the stream of a turn for its new items and its settings. The turn
        does not acquire the lock.
    :param new: the input of the run.
    :param work: counts the run until the end of the block.
    """
    observing = config.instruments.observe_run(config.settings.model, config.conversation_id)
    with work.counted(), observing as record:
        async with lock, open_collapsing_nursery() as nursery:
            run = RunStream(
                make_turn, lock, history, nursery, config=config, new=new, record=record
            )
            try:
                yield run
            finally:
                await run.aclose()
                nursery.cancel_scope.cancel()
