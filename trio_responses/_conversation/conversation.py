"""`Conversation`: turns and runs that share one history.

The socket of the connection may be replaced at any time, also while a turn waits. So the request
of a turn is written only when its socket and lane are known: as a delta if the server holds the
history there, else with the whole history (`_protocol/continuation.py`).
"""

from __future__ import annotations

import dataclasses
import secrets
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar, final, overload

import trio

from trio_responses import _wire as wire
from trio_responses._conversation.checkpoint import Checkpoint
from trio_responses._conversation.journal import Journal
from trio_responses._conversation.run import RunConfig, open_run
from trio_responses._conversation.settings import TurnSettings, copy_settings
from trio_responses._conversation.turn import ConversationRequest, TurnLock, TurnStream
from trio_responses._errors import ConfigurationError
from trio_responses._instruments.instrument import Instruments
from trio_responses._protocol.raw_items import RawItems
from trio_responses._settings import (
    ReplayPolicy,
    check_option_values,
    check_turn_timeouts,
    checked_record,
)
from trio_responses._tools.choosing import choose_tools, depends_on_run, tools_of_every_turn
from trio_responses._tools.context import CallContext
from trio_responses._tools.parsing import parse_response, with_text_format
from trio_responses._tools.toolbox import Toolbox
from trio_responses._turn.answer_format import ANY_TEXT, with_answer_format
from trio_responses._turn.methods import STREAM_OPTIONS, TURN_OPTIONS, without_output
from trio_responses._turn.request_builder import raw_input
from trio_responses._wire.param_checks import check_params, merge_extra_body
from trio_responses._wire.params import ConversationParams

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager
    from typing import Unpack

    import msgspec

    from trio_responses._conversation.durable import DurableBlock
    from trio_responses._conversation.history import ActiveRequest, History
    from trio_responses._conversation.lease import LeaseKeeper
    from trio_responses._conversation.run import Report, RunStream
    from trio_responses._conversation.stored_history import StoredHistory
    from trio_responses._json_types.adapter import TypeAdapterLike
    from trio_responses._protocol.delivery import DeliveryMode
    from trio_responses._settings import Timeouts
    from trio_responses._tools.choosing import ToolsOption
    from trio_responses._tools.parsing import ParsedResponse
    from trio_responses._tools.toolbox import Approve, Handler, OnToolError
    from trio_responses._turn.answer_format import AnswerFormat
    from trio_responses._turn.stream import ResponseStream, TurnSender
    from trio_responses._wire import Input, OutputItem, Response

__all__ = ["Conversation", "ConversationStatistics", "ToolContext"]

T = TypeVar("T")

if TYPE_CHECKING:  # type checkers know the default of a type variable before Python does
    import typing_extensions

    Dependencies = typing_extensions.TypeVar("Dependencies", default=None)
else:
    Dependencies = TypeVar("Dependencies")
CREATE_OPTIONS: Final = (*TURN_OPTIONS, "request_id")
"""Names of keyword arguments of ``create`` that are no parameters of its request."""
RUN_OPTIONS: Final = (
    *TURN_OPTIONS,
    "request_id",
    "handlers",
    "approve",
    "max_rounds",
    "max_concurrency",
    "tool_timeout",
    "max_tool_retries",
    "on_tool_error",
    "max_tool_output",
    "repeat_interrupted",
    "dependencies",
)
"""Names of keyword arguments of a run that are no parameters of its requests."""

MAX_TOOL_OUTPUT: Final = 1_000_000
"""The default limit of the output of a call, in characters. The API accepts 10,485,760."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConversationStatistics:
    """The counters of a conversation, returned by ``conversation.statistics()``."""

    turns: int
    """Turns that ended well, including warm-ups."""
    delta_turns: int
    """Requests that sent only the new items."""
    full_turns: int
    """Requests that sent the whole history."""
    bytes_sent: int
    """Bytes of all requests."""
    input_tokens: int
    """Input tokens of all Responses that were received, of failed and steered ones included."""
    cached_tokens: int
    """Input tokens that the server read from its prompt cache; ``input_tokens`` includes them."""
    output_tokens: int
    """Output tokens of all Responses that were received."""
    reasoning_tokens: int
    """Output tokens of reasoning; ``output_tokens`` includes them."""
    items: int
    """Items in the history."""


@final
class Conversation:
    """A chain of turns with one history. Made by ``connection.conversation()``.

    A conversation has one turn at a time: further turns wait, in the order in which they were
    asked for. A turn that fails, is cancelled, or is left before its end does not change the
    history. The settings are copied when the conversation begins: later changes to the objects
    that were passed have no effect.

    The model reads a call only together with its output. So a turn first sends the outputs that an
    interrupted run has kept; calls that have none, and none in the input, count as interrupted.
    """

    def __init__(
        self,
        reserve_lane: Callable[[], TurnSender],
        settings: Mapping[str, Any],
        history: History,
        source: TurnLock | None = None,
        *,
        instruments: Instruments | None = None,
        conversation_id: str | None = None,
    ) -> None:
        tools: ToolsOption = settings.get("tools") or ()
        self._tools: ToolsOption = tools if callable(tools) else tuple(tools)
        self._chooses_tools = depends_on_run(self._tools)
        """Whether the tools are known only in a run, so that the settings have a part of them."""
        given = TurnSettings(_settings_of_every_turn(settings))  # raises for what cannot be sent
        self._settings = TurnSettings(copy_settings(given.plain))
        self._reserve_lane = reserve_lane
        self._sender = reserve_lane()
        self._history = history
        self._lock = TurnLock(source)
        self._instruments = instruments or Instruments()
        self._id = conversation_id or ""
        self._chosen_id = conversation_id
        """The id that the user has chosen; `None` if they have not."""
        self._journal: Journal | None = None
        self._block: DurableBlock | None = None

    def __repr__(self) -> str:
        """Return the number of items in the history; no content."""
        return f"<Conversation of {self._history.item_count} items>"

    def _attach(
        self, block: DurableBlock, keeper: LeaseKeeper, stored: StoredHistory, position: int
    ) -> Journal:
        """Record and save each change from now on; return the journal. Called once.

        :param block: saves the rest when it ends.
        :param stored: what the history was read from.
        :param position: the number of records that the store has.
        """
        stored.finish(self._settings)
        self._id = self._chosen_id = keeper.lease.conversation_id
        self._block = block
        self._journal = Journal(
            block.store,
            keeper,
            self._history,
            self._settings,
            position=position,
            unfinished=stored.unfinished,
            output_records=stored.outputs,
        )
        self._history.record_in(self._journal)
        block.add(keeper, self._journal)
        return self._journal

    # --- Turns ---------------------------------------------------------------------------

    def stream(
        self,
        input: Input | None = None,  # noqa: A002 - the protocol's field name
        *,
        delivery: DeliveryMode = "at_most_once",
        text_format: Any = None,
        snapshot: bool = True,
        max_retries: int | None = None,
        timeouts: Timeouts | None = None,
        **params: Unpack[ConversationParams],
    ) -> ResponseStream:
        """Return a stream for the next turn: its block sends the request and receives the events.

        :param input: what is new: text, which is sent as a message of the user, or an item, or a
            list of items.
        :param delivery: as of ``connection.stream``.
        :param text_format: as of ``connection.stream``.
        :param snapshot: as of ``connection.stream``.
        :param max_retries: as of ``connection.stream``.
        :param timeouts: as of ``connection.stream``.
        :param params: parameters for this turn only, which replace those of the conversation:
            `ConversationParams`. A turn whose parameters differ from those of the turn before is
            sent with full input.
        :raises TypeError: for an unknown parameter, and a value of a wrong type.
        :raises ValueError: for a word that a parameter does not accept, and a missing key.
        :raises ConfigurationError: for invalid options, and for a type that has no JSON schema.
        """
        self._check(params, "stream()", STREAM_OPTIONS)
        settings, answer_format = self._with_answer_format(text_format, params)
        return self._open_turn(
            input,
            settings,
            delivery=delivery,
            snapshot=snapshot,
            max_retries=max_retries,
            timeouts=timeouts,
            answer_format=answer_format,
        )

    def _with_answer_format(
        self, text_format: Any, params: Mapping[str, Any]
    ) -> tuple[Mapping[str, Any], AnswerFormat]:
        """Return the parameters of a turn with ``text.format`` for a type, and its format.

        :param text_format: the type; `None` leaves the parameters as they are.
        """
        all_params = {**self._settings.plain, **params}
        settings, answer_format = with_answer_format(text_format, all_params)
        if text_format is not None:
            params = {**params, "text": settings["text"]}
        return params, answer_format

    def _check(self, params: Mapping[str, Any], of: str, options: Collection[str]) -> None:
        of = f"{of} of a conversation"
        check_params(params, of=of, allowed=ConversationParams, options=options)

    def _open_turn(
        self,
        given: Input | None,
        params: Mapping[str, Any],
        *,
        delivery: DeliveryMode,
        snapshot: bool,
        max_retries: int | None,
        timeouts: Timeouts | None,
        generate: bool | None = None,
        answer_format: AnswerFormat = ANY_TEXT,
    ) -> ResponseStream:
        """Return the stream of a turn, whose ``async with`` block sends the request.

        :param params: parameters that `check_params` accepts.
        :param generate: `False` for a warm-up.
        :param answer_format: what the parameters ask for, if the stream may parse the answer.
        """
        check_option_values(delivery=delivery)
        check_turn_timeouts(timeouts)
        return self._make_turn(
            raw_input(given),
            self._settings_with(params),
            generate=generate,
            delivery=delivery,
            snapshot=snapshot,
            max_retries=max_retries,
            timeouts=timeouts,
            answer_format=answer_format,
        )

    def _make_turn(
        self,
        new: RawItems,
        settings: TurnSettings,
        active: ActiveRequest | None = None,
        *,
        delivery: DeliveryMode,
        snapshot: bool,
        max_retries: int | None,
        timeouts: Timeouts | None,
        generate: bool | None = None,
        answer_format: AnswerFormat = ANY_TEXT,
        within_run: bool = False,
    ) -> TurnStream:
        """Return the stream of a turn, whose ``async with`` block sends the request.

        :param active: the request (``request_id``) that the turn belongs to.
        :param within_run: whether a run holds the lock for the turn.
        """
        request = ConversationRequest(
            self._history,
            new,
            settings,
            generate=generate,
            timeouts=timeouts,
            request=active,
            conversation_id=self._chosen_id,
        )
        return TurnStream(
            self._lock,
            self._sender,
            request,
            delivery=delivery,
            snapshot=snapshot,
            max_retries=max_retries,
            answer_format=answer_format,
            within_run=within_run,
        )

    async def create(
        self,
        input: Input | None = None,  # noqa: A002 - the protocol's field name
        *,
        request_id: str | None = None,
        delivery: DeliveryMode = "at_most_once",
        max_retries: int | None = None,
        timeouts: Timeouts | None = None,
        **params: Unpack[ConversationParams],
    ) -> Response:
        """Run the next turn and return its Response: completed, or incomplete.

        If cancelled, the remaining events are discarded, and the history does not change.

        :param request_id: in a durable conversation, an id for this request. If the request has
            ended, repeating it with the same id and input returns its Response from the store.
        :raises ConfigurationError: for a ``request_id`` in another conversation, and one that was
            used with another input.
        :raises ResponsesError: as ``connection.create`` does; the history does not change.
        """
        self._check(params, "create()", CREATE_OPTIONS)
        if request_id is None:
            async with self._open_turn(
                input,
                params,
                delivery=delivery,
                snapshot=False,
                max_retries=max_retries,
                timeouts=timeouts,
            ) as stream:
                return await stream.get_final_response()
        journal = self._journal_for(request_id)
        check_option_values(delivery=delivery)
        check_turn_timeouts(timeouts)
        new, settings = raw_input(input), self._settings_with(params)
        with self._sender.work.counted():
            async with self._lock:
                active = await journal.begin_request(request_id, new)
                if active.latest is not None and not active.ended:
                    raise ConfigurationError(
                        f"the request {request_id!r} was begun by run(), and has calls to be"
                        " answered: repeat it with run()"
                    )
                if active.latest is not None:
                    return active.latest
                async with self._make_turn(
                    new,
                    settings,
                    active,
                    delivery=delivery,
                    snapshot=False,
                    max_retries=max_retries,
                    timeouts=timeouts,
                    within_run=True,
                ) as stream:
                    return await stream.get_final_response()

    def _journal_for(self, request_id: str) -> Journal:
        """Return the journal that knows the requests of the conversation.

        :raises ConfigurationError: if the conversation is not durable.
        """
        if self._journal is None:
            raise ConfigurationError(
                f"request_id={request_id!r} needs a store that remembers it: open the conversation"
                " with durable_conversation()"
            )
        return self._journal

    async def warm_up(
        self,
        input: Input = (),  # noqa: A002 - the protocol's field name
        *,
        delivery: DeliveryMode = "at_most_once",
        max_retries: int | None = None,
        timeouts: Timeouts | None = None,
        **params: Unpack[ConversationParams],
    ) -> Response:
        """Let the server prepare the settings and the history, without output.

        If cancelled, the remaining events are discarded, and the history does not change.

        :param input: items that the next turn begins with, if any.
        :raises UnexpectedOutput: when the server generated output in spite of that.
        :raises ResponsesError: as `create` does.
        """
        self._check(params, "warm_up()", TURN_OPTIONS)
        async with self._open_turn(
            input,
            params,
            delivery=delivery,
            snapshot=False,
            max_retries=max_retries,
            timeouts=timeouts,
            generate=False,
        ) as stream:
            return without_output(await stream.get_final_response())

    # --- Turns and tools -----------------------------------------------------------------

    def run_stream(
        self,
        input: Input | None = None,  # noqa: A002 - the protocol's field name
        *,
        request_id: str | None = None,
        handlers: Mapping[str, Handler] | None = None,
        approve: Approve | None = None,
        max_rounds: int = 16,
        max_concurrency: float = 16,
        tool_timeout: float | None = None,
        max_tool_retries: int | None = None,
        on_tool_error: OnToolError = "return",
        max_tool_output: int = MAX_TOOL_OUTPUT,
        repeat_interrupted: bool = False,
        dependencies: object = None,
        delivery: DeliveryMode = "at_most_once",
        text_format: Any = None,
        snapshot: bool = True,
        max_retries: int | None = None,
        timeouts: Timeouts | None = None,
        **params: Unpack[ConversationParams],
    ) -> AbstractAsyncContextManager[RunStream]:
        """Open a stream of the events of a run: turns and tool calls until the model answers.

        For example::

            async with conversation.run_stream("Is it warm in Oslo?", tools=[weather]) as run:
                async for event in run:
                    ...
            print(run.response.output_text)

        The calls of one response run side by side. Their outputs are sent together, in the order
        of the calls. The conversation has no other turn during the run: a tool that asks for one
        gets a `RuntimeError`. A tool that waits for another task which asks for one waits for
        ever.

        A call starts at most once, however the run ends. The next run sends the outputs that this
        one has not sent; for a call that was interrupted it sends a text that says so. The outputs
        of ``computer_call`` and ``tool_search_call`` have no place for text: after such a call was
        interrupted, the next run raises `CallInterrupted`. Leaving the block cancels the tools.
        Threads of sync functions continue, and their results are discarded.

        :param input: as for `stream`. If it is empty, the run continues where the last one
            stopped: with the input of that run if its first turn did not end well, else with the
            calls that it left. An input with a ``request_id`` is sent again only with this id.
        :param request_id: as for `run`. The turns and calls of an interrupted attempt yield no
            events again. A request that has ended yields no events.
        :param handlers: called for the calls that no function of ``tools`` answers: by the type of
            the call, such as ``"computer_call"``, or by the name of a custom tool or a function,
            with its namespace if it has one: ``"crm.find"``.
        :param approve: called before a call runs, and for MCP approvals that have no handler. A
            computer call with ``pending_safety_checks`` runs only if it is approved; its output
            acknowledges the checks.
        :param max_rounds: the largest number of responses of the run.
        :param max_concurrency: the largest number of tools that run at the same time.
        :param tool_timeout: how many seconds a call may take, unless its tool sets a time.
        :param max_tool_retries: how often the model may call a tool again after calls that failed,
            unless the tool sets a limit; `None` for no limit but ``max_rounds``. A response whose
            calls of the tool have all failed counts once; a call that succeeds begins anew.
        :param on_tool_error: ``"return"`` sends the error of a tool to the model; ``"raise"``
            raises it, and cancels the other tools. Invalid arguments and `ModelRetry` are always
            sent to the model.
        :param max_tool_output: the largest number of characters of the text in the output of a
            call. A longer text is shortened in its middle, with a notice for the model.
        :param repeat_interrupted: whether calls that an earlier run has started and not finished
            start again.
        :param dependencies: what the tools need, such as a database: ``context.dependencies`` of
            the tools that have a `ToolContext` parameter.
        :param delivery: as for `stream`, for each turn of the run.
        :param text_format: the type of the answer, as for `parse`: of each response of the run.
            ``run.partials()`` yields the values so far.
        :param max_retries: as for `stream`, for each turn of the run.
        :param timeouts: as for `stream`, for each turn of the run.
        :param params: parameters of the turns, which replace those of the conversation:
            `ConversationParams`. A ``tool_choice`` that forces a call applies to the first turn
            only, because it would force calls without end.
        :raises TypeError: for an unknown parameter, and a value of a wrong type.
        :raises ValueError: for a word that a parameter does not accept, and a missing key.
        :raises ConfigurationError: for invalid options; and, without an input, if the history is
            empty.
        :raises ResponsesError: inside the block, as `run` does.
        """
        self._check(params, "run_stream()", (*RUN_OPTIONS, "snapshot", "text_format"))
        settings, answer_format = self._with_answer_format(text_format, params)
        return self._open_run(
            input,
            settings,
            answer_format=answer_format,
            request_id=request_id,
            handlers=handlers,
            approve=approve,
            max_rounds=max_rounds,
            max_concurrency=max_concurrency,
            tool_timeout=tool_timeout,
            max_tool_retries=max_tool_retries,
            on_tool_error=on_tool_error,
            max_tool_output=max_tool_output,
            repeat_interrupted=repeat_interrupted,
            dependencies=dependencies,
            delivery=delivery,
            snapshot=snapshot,
            max_retries=max_retries,
            timeouts=timeouts,
        )

    def _open_run(
        self,
        given: Input | None,
        params: Mapping[str, Any],
        *,
        request_id: str | None,
        handlers: Mapping[str, Handler] | None,
        approve: Approve | None,
        max_rounds: int,
        max_concurrency: float,
        tool_timeout: float | None,
        max_tool_retries: int | None,
        on_tool_error: OnToolError,
        max_tool_output: int,
        repeat_interrupted: bool,
        dependencies: object,
        delivery: DeliveryMode,
        snapshot: bool,
        max_retries: int | None,
        timeouts: Timeouts | None,
        answer_format: AnswerFormat = ANY_TEXT,
    ) -> AbstractAsyncContextManager[RunStream]:
        """Return the stream of a run; entering its block sends the first request.

        :param params: parameters that `check_params` accepts.
        :param answer_format: what the parameters ask for, if the stream may parse the answer.
        """
        check_option_values(delivery=delivery)
        check_turn_timeouts(timeouts)
        at_least_one = {
            "max_rounds": max_rounds,
            "max_concurrency": max_concurrency,
            "max_tool_output": max_tool_output,
        }
        for name, value in at_least_one.items():
            if not value >= 1:
                raise ConfigurationError(f"{name} must be at least 1, not {value!r}")
        self._sender.retry_policy.with_max_retries(max_retries)  # raises for an invalid value
        tools: ToolsOption = params.get("tools", self._tools)
        chooses = depends_on_run(tools) if "tools" in params else self._chooses_tools
        context = ToolContext(dependencies, conversation=self)
        toolbox = Toolbox(
            tools=tools_of_every_turn(tools),
            handlers=handlers or {},
            approve=approve,
            timeout=tool_timeout,
            on_error=on_tool_error,
            max_output=max_tool_output,
            max_retries=max_tool_retries,
        )
        config = RunConfig(
            toolbox=toolbox,
            choose_tools=partial(choose_tools, tools, context) if chooses else None,
            max_rounds=max_rounds,
            max_concurrency=max_concurrency,
            settings=self._settings_with(_settings_of_every_turn(params), within_run=True),
            repeat_interrupted=repeat_interrupted,
            request_id=request_id,
            journal=self._journal if request_id is None else self._journal_for(request_id),
            make_context=partial(self._make_context, dependencies),
            instruments=self._instruments,
            conversation_id=self._chosen_id,
            answer_format=answer_format,
        )
        make_turn = partial(
            self._make_turn,
            delivery=delivery,
            snapshot=snapshot,
            max_retries=max_retries,
            timeouts=timeouts,
            answer_format=answer_format,
            within_run=True,
        )
        new, work = raw_input(given), self._sender.work
        return open_run(make_turn, self._lock, self._history, config, new, work=work)

    async def run(
        self,
        input: Input | None = None,  # noqa: A002 - the protocol's field name
        *,
        request_id: str | None = None,
        handlers: Mapping[str, Handler] | None = None,
        approve: Approve | None = None,
        max_rounds: int = 16,
        max_concurrency: float = 16,
        tool_timeout: float | None = None,
        max_tool_retries: int | None = None,
        on_tool_error: OnToolError = "return",
        max_tool_output: int = MAX_TOOL_OUTPUT,
        repeat_interrupted: bool = False,
        dependencies: object = None,
        delivery: DeliveryMode = "at_most_once",
        max_retries: int | None = None,
        timeouts: Timeouts | None = None,
        **params: Unpack[ConversationParams],
    ) -> Response:
        """Run turns, and tools between them, until the model answers; return its Response.

        If the model makes a call that neither a tool nor a handler answers, the Response with that
        call is returned: send its output in the next run. The parameters are those of
        `run_stream`. If cancelled, the tools are cancelled, and the next run continues.

        :param request_id: in a durable conversation, an id for this request. Repeating it with the
            same id and input returns its Response from the store if it has ended. If it was
            interrupted, the run continues where it stopped, and the input is not added again.
        :raises RequestSuperseded: when the request was interrupted, and another turn has ended
            since, also that of a run without an id.
        :raises ConfigurationError: for a ``request_id`` in another conversation, and one that was
            used with another input.
        :raises MaxRoundsExceeded: when the last allowed response still has calls; the conversation
            can be continued.
        :raises ToolRetriesExceeded: when the calls of a tool have failed more often than its limit
            of retries allows; the conversation can be continued.
        :raises CallInterrupted: when an earlier run has interrupted a call whose output cannot say
            so, and ``repeat_interrupted`` is false.
        :raises CallNotRejectable: when ``approve`` declines a call whose output cannot say so.
        :raises SafetyChecksPending: when a computer call has safety checks, and there is no
            ``approve``.
        :raises UndecodableCall: when a response has a call that no output can answer.
        :raises Exception: the exception of a tool, with ``on_tool_error="raise"``.
        :raises ResponsesError: as `create` does.
        """
        self._check(params, "run()", RUN_OPTIONS)
        async with self._open_run(
            input,
            params,
            request_id=request_id,
            handlers=handlers,
            approve=approve,
            max_rounds=max_rounds,
            max_concurrency=max_concurrency,
            tool_timeout=tool_timeout,
            max_tool_retries=max_tool_retries,
            on_tool_error=on_tool_error,
            max_tool_output=max_tool_output,
            repeat_interrupted=repeat_interrupted,
            dependencies=dependencies,
            delivery=delivery,
            snapshot=False,
            max_retries=max_retries,
            timeouts=timeouts,
        ) as run:
            return await run.get_final_response()

    @overload
    async def parse(
        self,
        answer: type[T] | TypeAdapterLike[T],
        input: Input | None = None,
        *,
        request_id: str | None = None,
        handlers: Mapping[str, Handler] | None = None,
        approve: Approve | None = None,
        max_rounds: int = 16,
        max_concurrency: float = 16,
        tool_timeout: float | None = None,
        max_tool_retries: int | None = None,
        on_tool_error: OnToolError = "return",
        max_tool_output: int = MAX_TOOL_OUTPUT,
        repeat_interrupted: bool = False,
        dependencies: object = None,
        delivery: DeliveryMode = "at_most_once",
        max_retries: int | None = None,
        timeouts: Timeouts | None = None,
        **params: Unpack[ConversationParams],
    ) -> ParsedResponse[T]: ...
    @overload
    async def parse(
        self,
        answer: Any,
        input: Input | None = None,
        *,
        request_id: str | None = None,
        handlers: Mapping[str, Handler] | None = None,
        approve: Approve | None = None,
        max_rounds: int = 16,
        max_concurrency: float = 16,
        tool_timeout: float | None = None,
        max_tool_retries: int | None = None,
        on_tool_error: OnToolError = "return",
        max_tool_output: int = MAX_TOOL_OUTPUT,
        repeat_interrupted: bool = False,
        dependencies: object = None,
        delivery: DeliveryMode = "at_most_once",
        max_retries: int | None = None,
        timeouts: Timeouts | None = None,
        **params: Unpack[ConversationParams],
    ) -> ParsedResponse[Any]: ...
    async def parse(
        self,
        answer: Any,
        input: Input | None = None,  # noqa: A002 - the protocol's field name
        *,
        request_id: str | None = None,
        handlers: Mapping[str, Handler] | None = None,
        approve: Approve | None = None,
        max_rounds: int = 16,
        max_concurrency: float = 16,
        tool_timeout: float | None = None,
        max_tool_retries: int | None = None,
        on_tool_error: OnToolError = "return",
        max_tool_output: int = MAX_TOOL_OUTPUT,
        repeat_interrupted: bool = False,
        dependencies: object = None,
        delivery: DeliveryMode = "at_most_once",
        max_retries: int | None = None,
        timeouts: Timeouts | None = None,
        **params: Unpack[ConversationParams],
    ) -> ParsedResponse[Any]:
        """Run turns, and tools between them, until the model answers with a value of a type.

        If cancelled, the conversation is in the same state as after a cancelled `run`. The other
        parameters are those of `run`.

        :param answer: a Struct, a dataclass, a model of pydantic, or any other type that `JSONType`
            accepts.
        :raises ParseError: as ``connection.parse`` does; the answer is in the history.
        :raises ResponsesError: as `run` does.
        """
        self._check(params, "parse()", RUN_OPTIONS)
        settings, reader = with_text_format(answer, {**self._settings.plain, **params})
        async with self._open_run(
            input,
            {**params, "text": settings["text"]},
            request_id=request_id,
            handlers=handlers,
            approve=approve,
            max_rounds=max_rounds,
            max_concurrency=max_concurrency,
            tool_timeout=tool_timeout,
            max_tool_retries=max_tool_retries,
            on_tool_error=on_tool_error,
            max_tool_output=max_tool_output,
            repeat_interrupted=repeat_interrupted,
            dependencies=dependencies,
            delivery=delivery,
            snapshot=False,
            max_retries=max_retries,
            timeouts=timeouts,
        ) as run:
            response = await run.get_final_response()
            answered = self._history.track_calls().has_unsent_output
            return parse_response(response, reader, is_answered=answered)

    def _make_context(
        self, dependencies: object, call: wire.FunctionCall, report: Report
    ) -> ToolContext[object]:
        """Return the context of a call in a run."""
        return ToolContext(dependencies, call=call, conversation=self, report=report)

    def _settings_with(
        self, params: Mapping[str, Any], *, within_run: bool = False
    ) -> TurnSettings:
        """Return the settings of the conversation with those of a turn in their place.

        :raises ConfigurationError: if only a run can choose the tools of the turn, and there is
            none.
        """
        if not within_run and (
            callable(params["tools"]) if "tools" in params else self._chooses_tools
        ):
            raise ConfigurationError(
                "the tools of this turn are chosen by a function (tools or is_enabled), which only"
                " run(), run_stream() and parse() call: use one of them, or pass a list of tools"
            )
        if not params:
            return self._settings
        return TurnSettings(merge_extra_body({**self._settings.plain, **params}))

    # --- History -------------------------------------------------------------------------

    @property
    def items(self) -> tuple[OutputItem, ...]:
        """The history, oldest item first, as typed views of `raw_items`."""
        return tuple(wire.decode_item(raw) for raw in self._history.raw_items)

    @property
    def raw_items(self) -> tuple[msgspec.Raw, ...]:
        """The history, oldest item first, as raw JSON: each item as it was sent or received.

        An item keeps fields that this version does not know, and the spelling of its numbers and
        texts. ``bytes(raw)`` is the JSON of one item. `replace_history` and every input accept raw
        items.
        """
        return tuple(self._history.raw_items)

    @property
    def input_items(self) -> tuple[msgspec.Raw, ...]:
        """The history as raw JSON in the form in which a request with full input sends it.

        These are the `raw_items` without what the API refuses, and without what the `replay_policy`
        leaves out. To make that permanent, for example to shrink checkpoints::

            await conversation.replace_history(conversation.input_items)
        """
        origin = self._settings.origin._replace(endpoint=self._history.endpoint)
        rules = self._history.policy.rules(origin)
        return tuple(raw for items in self._history.input_items(rules) for raw in items)

    @property
    def replay_policy(self) -> ReplayPolicy:
        """What full input leaves out of the history. Forks and checkpoints have the same policy.

        Another policy may be set at any time. The next turn is sent with full input then, since
        the server may hold what the new policy leaves out.

        :raises ConfigurationError: when a value that is not a `ReplayPolicy` is set.
        """
        return self._history.policy

    @replay_policy.setter
    def replay_policy(self, policy: ReplayPolicy) -> None:
        self._history.policy = checked_record("replay_policy", policy, ReplayPolicy)

    @property
    def id(self) -> str:
        """The id of the conversation: that of the store, or a random one.

        Checkpoints have it. A fork has an id of its own.
        """
        self._id = self._id or secrets.token_hex(16)
        return self._id

    @property
    def revision(self) -> int:
        """The number of the latest change of the history. It grows with each turn."""
        return self._history.revision

    @property
    def fencing_token(self) -> int | None:
        """The fencing token of a durable conversation; `None` for other conversations.

        Each owner has a larger token than every owner before. So a system that a tool changes can
        refuse what an earlier owner asks for late.
        """
        return self._journal.fencing_token if self._journal is not None else None

    @property
    def last_response_id(self) -> str | None:
        """The id of the response of the last successful turn."""
        return self._history.last_response_id

    async def replace_history(
        self, items: Sequence[OutputItem | Mapping[str, Any] | msgspec.Raw]
    ) -> None:
        """Replace the history, for example by a window from ``/responses/compact``.

        The items are output items or input items; full input sends them as `input_items` shows.
        The next turn begins a new chain. An active turn continues with the old history, and is not
        added to the new one. The window is the whole output of the compaction; its id is not a
        parent of a response (guide, "Compaction").

        A checkpoint; if cancelled, the history does not change. A durable conversation saves the
        new history: cancelled meanwhile, it is saved with the next change.

        :raises TypeError: for a value that has no JSON form.
        :raises StoreError: when a durable conversation cannot be saved. The history is replaced
            then, and the next save writes it.
        """
        new = raw_input(items)
        await trio.lowlevel.checkpoint()
        self._history.replace(new)
        await self._history.save()

    async def clear_history(self) -> None:
        """Clear the history, and keep the settings: the next turn begins a new chain.

        An active turn continues with the old history, and is not added to the new one.

        A checkpoint; if cancelled, the history does not change. A durable conversation saves the
        change, as `replace_history` does.

        :raises StoreError: when a durable conversation cannot be saved. The history is empty then,
            and the next save says so.
        """
        await trio.lowlevel.checkpoint()
        self._history.replace(RawItems())
        await self._history.save()

    async def fork(self, conversation_id: str | None = None) -> Conversation:
        """Return a second conversation with a copy of the history.

        The fork reserves a lane of its own where the endpoint has lanes, until the block of this
        conversation ends. Its first turn continues from the last response of this conversation if
        the server still holds it. With ``store=False``, the next turn of this conversation waits
        until the server has started an active first turn of the fork, because the server would
        forget the common parent (guide, "WebSocket mode").

        A checkpoint; if cancelled, no lane is reserved.

        :param conversation_id: the id of the fork, which a fork of a durable conversation needs: it
            is saved under this id, and owned until the block ends.
        :raises ConfigurationError: when all lanes are reserved; when a durable fork has no id, or
            the store has a conversation with this id.
        :raises StoreError: when a durable fork cannot be saved, or has another owner.
        """
        await trio.lowlevel.checkpoint()
        if self._block is not None and conversation_id is None:
            raise ConfigurationError(
                "the fork of a durable conversation needs an id of its own: pass conversation_id to"
                " fork()"
            )
        settings = self._settings.plain
        source = self._lock if settings.get("store") is False else None
        if self._tools:
            settings = {**settings, "tools": self._tools}
        make_fork = partial(
            Conversation,
            self._reserve_lane,
            settings,
            self._history.fork(),
            source,
            instruments=self._instruments,
            conversation_id=conversation_id,
        )
        if self._block is None or conversation_id is None:
            return make_fork()
        return await self._block.save_fork(make_fork, conversation_id)

    # --- Checkpoints and statistics ------------------------------------------------------

    def checkpoint(self) -> bytes:
        """Return the conversation as JSON that another process, machine or release can read.

        The checkpoint has the settings and the history; it has neither the API key nor the headers
        of the connection. Secrets in the settings are in it, such as the headers of an MCP tool. It
        also has the `id` and the `revision` of the conversation.
        """
        return Checkpoint.of(self._settings.plain, self._history, self.id).encode()

    def statistics(self) -> ConversationStatistics:
        """Return the counters of the conversation."""
        return ConversationStatistics(
            items=self._history.item_count, **dataclasses.asdict(self._history.counters)
        )


def _settings_of_every_turn(settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return settings whose tools are those that the model sees whatever a run decides."""
    tools: ToolsOption = settings.get("tools") or ()
    if not depends_on_run(tools):
        return settings
    return {**settings, "tools": tools_of_every_turn(tools)}


@final
class ToolContext(CallContext, Generic[Dependencies]):
    """What a run knows about a call, for the tool that answers the call.

    A function tool gets one for its parameter with this annotation; the model does not see the
    parameter. For example::

        @function_tool
        async def find_orders(context: ToolContext[Database], status: str) -> list[Order]:
            return await context.dependencies.find_orders(status)


        await conversation.run("What is not paid?", tools=[find_orders], dependencies=database)

    A test of a tool makes one itself: ``await find_orders(ToolContext(database), "open")``.

    :param dependencies: what the tool needs, as given to the run.
    """

    __slots__ = ("_call", "_conversation", "_report", "dependencies")

    def __init__(
        self,
        dependencies: Dependencies,
        *,
        call: wire.FunctionCall | None = None,
        conversation: Conversation | None = None,
        report: Callable[[Any], Awaitable[None]] | None = None,
    ) -> None:
        self.dependencies: Dependencies = dependencies
        """The ``dependencies`` of the run."""
        self._call = call
        self._conversation = conversation
        self._report = report

    def __repr__(self) -> str:
        """Return the id of the call; no content."""
        return f"<ToolContext of {self._call.call_id if self._call is not None else 'no call'}>"

    @property
    def call(self) -> wire.FunctionCall:
        """The model's call, as its item.

        :raises RuntimeError: in a context that was made without a call.
        """
        if self._call is None:
            raise RuntimeError("this ToolContext has no call: it was not made for a call of a run")
        return self._call

    @property
    def call_id(self) -> str:
        """The id of the call.

        :raises RuntimeError: in a context that was made without a call.
        """
        return self.call.call_id

    @property
    def fencing_token(self) -> int | None:
        """The ``fencing_token`` of the conversation; `None` unless it is durable.

        A system that the tool changes can compare it, to refuse what an earlier owner of the
        conversation asks for late.
        """
        return self._conversation.fencing_token if self._conversation is not None else None

    @property
    def conversation(self) -> Conversation:
        """The conversation of the run, for example to fork it. It has no other turn meanwhile.

        :raises RuntimeError: in a context that was made without a conversation.
        """
        if self._conversation is None:
            raise RuntimeError("this ToolContext has no conversation: it was not made by a run")
        return self._conversation

    async def progress(self, value: Any) -> None:
        """Report the progress of the call: ``run_stream()`` yields a `ToolProgress`.

        Waits while the last report of this call has not been read, so that a slow reader slows the
        tool, and memory stays bounded. A checkpoint; if cancelled, nothing is reported. A sync
        tool, which runs in a thread, calls ``trio.from_thread.run(context.progress, value)``.
        Outside of a run, the value is discarded.

        :param value: a number, a text or any other object; the model does not see the value.
        :raises RuntimeError: when the call has ended.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        if self._report is not None:
            await self._report(value)
        else:
            await trio.lowlevel.cancel_shielded_checkpoint()
