"""A conversation: a history that outlives its socket.

Each turn sends what the server lacks: the new items where this socket knows the rest, everything
where it does not. Which of the two is decided when the place is known, since the socket may have
been replaced while the turn waited (`core/continuation.py`).

What belongs elsewhere: one turn (`exchange.py`), the history and what is owed (`ledger.py`),
turns and tools in turn (`run.py`), lanes and sockets (`connection/connection.py`).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, final, overload

import msgspec

from trio_responses import _wire as wire
from trio_responses._conversation.checkpoint import Checkpoint
from trio_responses._conversation.run import RunConfig, open_run
from trio_responses._conversation.turn import ConversationRequest, TurnLock, TurnStream
from trio_responses._errors import ConfigurationError
from trio_responses._instruments.instrument import Instruments
from trio_responses._protocol.continuation import Continuation, Placement
from trio_responses._protocol.raw_items import RawItems
from trio_responses._settings import check_option_values
from trio_responses._tools.parsing import parse_response, with_text_format
from trio_responses._tools.toolbox import Toolbox
from trio_responses._turn.methods import TurnMethods
from trio_responses._turn.request_builder import TurnSettings, deep_copy, raw_input

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager

    from trio_responses._conversation.history import History
    from trio_responses._conversation.run import RunStream
    from trio_responses._endpoint import Endpoint
    from trio_responses._protocol.delivery import DeliveryMode
    from trio_responses._tools.parsing import ParsedResponse
    from trio_responses._tools.toolbox import Approve, Handler, OnToolError, ToolLike
    from trio_responses._turn.stream import AbandonChoice, ResponseStream, TurnSender
    from trio_responses._wire import Input, OutputItem, Response

__all__ = ["Conversation", "ConversationStatistics"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class ConversationStatistics:
    """What a conversation has counted; made by ``conversation.statistics()``."""

    turns: int
    """Turns that ended well, warm-ups among them."""
    delta_turns: int
    """Requests that carried the new items alone."""
    full_turns: int
    """Requests that carried the whole history."""
    bytes_sent: int
    """Bytes of all requests."""
    input_tokens: int
    """Tokens read, as the server counted them."""
    output_tokens: int
    """Tokens written, as the server counted them."""
    items: int
    """Items of the history."""


class ConversationHost(Protocol):
    """Opens conversations: a connection or a pool."""

    def _resume_conversation(
        self,
        settings: Mapping[str, Any],
        continuation: Continuation,
        answers: Sequence[msgspec.Raw] = (),
        unsent: RawItems | None = None,
    ) -> AbstractAsyncContextManager[Conversation]:
        """Open a conversation that has a history."""
        ...


@final
class Conversation(TurnMethods):
    """A chain of turns with one history. Made by ``connection.conversation()``.

    One turn at a time: others wait, in the order they asked. A turn that fails, is cancelled, or
    is left before its end leaves the history as it was. The settings are those of the moment when
    it began: what becomes of the objects that were given changes nothing.
    """

    def __init__(
        self,
        reserve_lane: Callable[[], TurnSender],
        endpoint: Endpoint,
        settings: Mapping[str, Any],
        ledger: History,
        source: TurnLock | None = None,
        *,
        instruments: Instruments | None = None,
    ) -> None:
        self._tools: Sequence[ToolLike] = tuple(settings.get("tools") or ())
        given = TurnSettings(settings, "conversation")  # refuses what cannot be sent
        self._settings = TurnSettings(deep_copy(given.plain), "conversation")
        self._reserve_lane = reserve_lane
        self._sender = reserve_lane()
        self._endpoint = endpoint
        self._ledger = ledger
        self._floor = TurnLock(source)
        self._instruments = instruments or Instruments()

    def __repr__(self) -> str:
        """Show how long it is: no content."""
        return f"<Conversation of {self._ledger.length} items>"

    # --- Turns ---------------------------------------------------------------------------

    def stream(
        self,
        input: Input = (),  # noqa: A002 - the protocol's word
        *,
        delivery: DeliveryMode = "at_most_once",
        abandon: AbandonChoice = "drain",
        snapshot: bool = True,
        max_retries: int | None = None,
        **params: Any,
    ) -> ResponseStream:
        """Run the next turn as a scope, event by event.

        :param input: what is new: text, which is a message of the user, or items.
        :param params: settings for this turn only, in the place of the conversation's. A turn
            whose settings differ from those of the turn before is sent with full input.
        :raises ConfigurationError: for what is no setting of a turn.
        """
        check_option_values(delivery=delivery, abandon=abandon)
        generate = params.pop("generate", None)
        settings = self._settings_with(params, "turn")
        request = ConversationRequest(self._ledger, raw_input(input), settings, generate=generate)
        return TurnStream(
            self._floor,
            self._sender,
            request,
            delivery=delivery,
            abandon=abandon,
            snapshot=snapshot,
            max_retries=max_retries,
        )

    async def create(
        self,
        input: Input = (),  # noqa: A002 - the protocol's word
        *,
        delivery: DeliveryMode = "at_most_once",
        max_retries: int | None = None,
        **params: Any,
    ) -> Response:
        """Run the next turn and give its Response: completed, or incomplete.

        When cancelled, the rest of the response is dropped, and the history is as before.

        :raises ResponsesError: as ``connection.create`` does; the history is as before then.
        """
        return await super().create(
            input=input, delivery=delivery, max_retries=max_retries, **params
        )

    # --- Turns and tools -----------------------------------------------------------------

    def run_stream(
        self,
        input: Input = (),  # noqa: A002 - the protocol's word
        *,
        tools: Sequence[ToolLike] | None = None,
        handlers: Mapping[str, Handler] | None = None,
        approve: Approve | None = None,
        max_rounds: int = 16,
        max_concurrency: float = 16,
        tool_timeout: float | None = None,
        on_tool_error: OnToolError = "return",
        delivery: DeliveryMode = "at_most_once",
        abandon: AbandonChoice = "drain",
        snapshot: bool = True,
        max_retries: int | None = None,
        **params: Any,
    ) -> AbstractAsyncContextManager[RunStream]:
        """Run turns and tools in turn until the model answers, as a scope, event by event.

        For example::

            async with conversation.run_stream("Is it warm in Oslo?", tools=[weather]) as run:
                async for event in run:
                    ...
            print(run.response.output_text)

        The calls of one response run side by side; their answers go out together, in the order
        of the calls. Nobody else has a turn meanwhile: a tool that asks for one in this very
        conversation gets a `RuntimeError`; from a task of its own, it waits for ever. A call is
        begun at most once, whatever happens to the run: what was answered, or begun and
        interrupted, is said to the model in the next run. (The answers to ``computer_call`` and
        ``tool_search_call`` have no words for that: such a call is begun again.) Leaving the
        block cancels the tools; threads of sync functions run on, and nobody gets what they
        return.

        :param input: as of `stream`; may be empty, to go on where an earlier run stopped: with
            its input, where its first turn has not ended well, else with the calls that it left.
        :param tools: functions, and definitions of other tools; by default the conversation's.
        :param handlers: what answers calls that none of the functions does: by the type of the
            call, such as ``"computer_call"``, or by the name of a custom tool or a function.
        :param approve: asked before a call is run, and for MCP approvals that have no handler.
        :param max_rounds: how many responses the model may take.
        :param max_concurrency: how many tools run at once.
        :param tool_timeout: seconds a call may take, where the tool does not say.
        :param on_tool_error: whether the model is told what a tool raises, or it is raised, and
            the other tools are cancelled. Arguments that do not fit always go back to the model.
        :param delivery: for each of the turns.
        :param max_retries: for each of the turns; by default as the connection.
        :param params: settings of the turns. A ``tool_choice`` that forces a call is for the
            first one: it would force calls for ever.
        :raises ConfigurationError: for what is no setting, or no way to run tools; and, without
            an input, where there is no history to go on from.
        """
        check_option_values(delivery=delivery, abandon=abandon)
        if not (max_rounds >= 1 and max_concurrency >= 1):
            raise ConfigurationError("max_rounds and max_concurrency are at least 1")
        self._sender.retry_policy.with_max_retries(max_retries)  # raises for an invalid value
        offered = self._tools if tools is None else tools
        if tools is not None:
            params["tools"] = tools
        toolbox = Toolbox(
            tools=offered,
            handlers=handlers or {},
            approve=approve,
            timeout=tool_timeout,
            on_error=on_tool_error,
        )
        config = RunConfig(
            toolbox=toolbox,
            max_rounds=max_rounds,
            max_concurrency=max_concurrency,
            settings=self._settings_with(params, "run"),
            delivery=delivery,
            abandon=abandon,
            snapshot=snapshot,
            max_retries=max_retries,
            instruments=self._instruments,
        )
        return open_run(self._floor, self._sender, self._ledger, config, raw_input(input))

    async def run(
        self,
        input: Input = (),  # noqa: A002 - the protocol's word
        *,
        tools: Sequence[ToolLike] | None = None,
        handlers: Mapping[str, Handler] | None = None,
        approve: Approve | None = None,
        max_rounds: int = 16,
        max_concurrency: float = 16,
        tool_timeout: float | None = None,
        on_tool_error: OnToolError = "return",
        delivery: DeliveryMode = "at_most_once",
        max_retries: int | None = None,
        **params: Any,
    ) -> Response:
        """Run turns and tools in turn until the model answers, and give its Response.

        It is the model's answer; or, where the model calls something that nobody here answers,
        the response with that call: answer it in the next run. The parameters are those of
        `run_stream`.

        :raises MaxRoundsExceeded: when the model goes on calling; the conversation is intact.
        :raises Exception: what a tool raised, with ``on_tool_error="raise"``.
        :raises ResponsesError: as `create` does.
        """
        async with self.run_stream(
            input,
            tools=tools,
            handlers=handlers,
            approve=approve,
            max_rounds=max_rounds,
            max_concurrency=max_concurrency,
            tool_timeout=tool_timeout,
            on_tool_error=on_tool_error,
            delivery=delivery,
            snapshot=False,
            max_retries=max_retries,
            **params,
        ) as run:
            return await run.until_done()

    @overload
    async def parse(
        self,
        answer: type[T],
        input: Input = (),
        *,
        delivery: DeliveryMode = "at_most_once",
        max_retries: int | None = None,
        **params: Any,
    ) -> ParsedResponse[T]: ...
    @overload
    async def parse(
        self,
        answer: Any,
        input: Input = (),
        *,
        delivery: DeliveryMode = "at_most_once",
        max_retries: int | None = None,
        **params: Any,
    ) -> ParsedResponse[Any]: ...
    async def parse(
        self,
        answer: Any,
        input: Input = (),  # noqa: A002 - the protocol's word
        *,
        delivery: DeliveryMode = "at_most_once",
        max_retries: int | None = None,
        **params: Any,
    ) -> ParsedResponse[Any]:
        """Run turns and tools until the model answers with a value of a type.

        Cancelled, it leaves behind what `run` does.

        :param answer: a Struct, a dataclass, or any other type that msgspec decodes.
        :param params: those of `run`, ``tools`` among them.
        :raises ParseError: as ``connection.parse`` does; the answer stands in the history.
        :raises ResponsesError: as `run` does.
        """
        settings, reader = with_text_format(answer, {**self._settings.plain, **params})
        params["text"] = settings["text"]
        response = await self.run(input, delivery=delivery, max_retries=max_retries, **params)
        return parse_response(response, reader)

    def _settings_with(self, params: Mapping[str, Any], of: str) -> TurnSettings:
        return TurnSettings({**self._settings.plain, **params}, of) if params else self._settings

    # --- History -------------------------------------------------------------------------

    @property
    def items(self) -> tuple[OutputItem, ...]:
        """The history, oldest item first, as typed views of the raw JSON."""
        return tuple(wire.decode_item(raw) for raw in self._ledger.history)

    @property
    def last_response_id(self) -> str | None:
        """The response of the last turn that ended well."""
        return self._ledger.continuation.last_response_id

    def reset(self) -> None:
        """Forget everything but the settings: the next turn begins a new chain.

        A turn that is under way belongs to the old chain, and is forgotten with it.
        """
        self._ledger.begin_anew(RawItems())

    def adopt(self, items: Sequence[OutputItem | Mapping[str, Any] | msgspec.Raw]) -> None:
        """Take a window from ``/responses/compact`` as the history: a new chain begins.

        Such a window is the whole output of the compaction, and its id is nothing to continue
        from (guide, "Compaction").
        """
        self._ledger.begin_anew(raw_input(items))

    def fork(self) -> Conversation:
        """Go on in two ways from here: give a conversation with a copy of the history.

        It has a lane of its own where the endpoint has lanes, until the block of this one ends.
        Its first turn continues from this conversation's last response where the server still
        has it. While that first turn has not begun at the server, this conversation's next turn
        waits, or the server would forget the common parent (guide, "WebSocket mode").

        :raises ConfigurationError: when all lanes are leased.
        """
        settings = self._settings.plain
        source = self._floor if settings.get("store") is False else None
        if self._tools:
            settings = {**settings, "tools": self._tools}
        return Conversation(
            self._reserve_lane,
            self._endpoint,
            settings,
            self._ledger.branch(),
            source,
            instruments=self._instruments,
        )

    # --- Elsewhere -----------------------------------------------------------------------

    def checkpoint(self) -> bytes:
        """Save it as JSON that another process, machine or release can read.

        It holds the settings and the history, and neither the connection's key nor its headers.
        What the settings hold is in it: the headers of an MCP tool, for one.
        """
        return Checkpoint(
            settings=self._settings.plain,
            items=[msgspec.Raw(items.json) for items in self._ledger.continuation.history],
            last_response_id=self.last_response_id,
            answers=self._ledger.answers,
            unsent=list(self._ledger.unsent),
        ).write()

    def statistics(self) -> ConversationStatistics:
        """Count what has happened so far."""
        return ConversationStatistics(
            items=self._ledger.length, **dataclasses.asdict(self._ledger.counts)
        )

    @staticmethod
    def restore(
        connection: ConversationHost, checkpoint: bytes
    ) -> AbstractAsyncContextManager[Conversation]:
        """Go on with a conversation that was saved, for the length of a block.

        For example::

            async with Conversation.restore(connection, saved) as conversation:
                ...

        Its first turn is sent with full input, unless the server stored the last response.

        :raises ConfigurationError: for what is no checkpoint, or one of a later version.
        """
        saved = Checkpoint.read(checkpoint)
        settings = TurnSettings(saved.settings, "conversation")
        continuation = Continuation()
        continuation.commit(
            RawItems.join(saved.items),
            response_id=saved.last_response_id or "",
            settings=settings.canonical,
            placement=Placement(socket=None, lane=None),
            stored=settings.stored,
        )
        return connection._resume_conversation(  # noqa: SLF001 - its opener
            saved.settings, continuation, saved.answers, RawItems.join(saved.unsent)
        )
