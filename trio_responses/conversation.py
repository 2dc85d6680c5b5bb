"""A conversation: a history that outlives its socket.

Each turn sends what the server lacks: the new items where this socket knows the rest, everything
where it does not. Which of the two is decided when the place is known, since the socket may have
been replaced while the turn waited (`core/continuation.py`).

What belongs elsewhere: the turn itself (`stream.py`), lanes and sockets (`connection.py`).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar, final

import msgspec
import trio

from trio_responses import wire
from trio_responses.core.continuation import (
    Continuation,
    Place,
    canonical,
    with_encrypted_reasoning,
)
from trio_responses.core.steering import SteerState
from trio_responses.drafts import create_command, raw_items
from trio_responses.errors import ConfigurationError, Delivery, PreviousResponseNotFound
from trio_responses.stream import ResponseStream
from trio_responses.turns import Turns

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager
    from types import TracebackType
    from typing import Self

    from trio_responses.connection import ResponsesConnection
    from trio_responses.core.delivery import DeliveryChoice
    from trio_responses.core.steering import Submission
    from trio_responses.drafts import Latest
    from trio_responses.endpoint import Endpoint
    from trio_responses.errors import ResponsesError
    from trio_responses.stream import AbandonChoice, Lines
    from trio_responses.wire import Input, OutputItem, Response

__all__ = ["Conversation", "ConversationStatistics"]

T = TypeVar("T")

CHECKPOINT_FORMAT: Final = "trio-responses conversation"
CHECKPOINT_VERSION: Final = 1
NOT_SETTINGS: Final = frozenset({"input", "previous_response_id", "stream_id", "generate"})
GOOD_ENDINGS: Final = frozenset({"max_output_tokens", "max_messages", "steered"})
"""Reasons for an incomplete response that leave something to go on from."""


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


class _Heading(msgspec.Struct, frozen=True, kw_only=True):
    format: str
    version: int


class _Checkpoint(_Heading, frozen=True, kw_only=True):
    settings: dict[str, Any]
    items: list[msgspec.Raw]
    last_response_id: str | None = None


@final
class Conversation(Turns):
    """A chain of turns with one history. Made by ``connection.conversation()``.

    One turn at a time: others wait, in the order they asked. A turn that fails, is cancelled, or
    is left before its end leaves the history as it was.
    """

    def __init__(
        self,
        lease: Callable[[], Lines],
        endpoint: Endpoint,
        settings: Mapping[str, Any],
        continuation: Continuation,
    ) -> None:
        settings = _without_unset(settings)
        wrong = NOT_SETTINGS.intersection(settings)
        if wrong:
            raise ConfigurationError(f"not a setting of a conversation: {', '.join(sorted(wrong))}")
        create_command(settings)  # what cannot be sent is refused here
        self._lease = lease
        self._lines = lease()
        self._endpoint = endpoint
        self._settings = settings
        self._continuation = continuation
        self._floor = trio.Semaphore(1)
        self._source: Conversation | None = None
        self._queued: Sequence[Submission] = ()
        """What the server holds back for the next turn: steering inputs that are pending."""
        self._gates: list[trio.Event] = []
        """For each fork whose first turn has not begun at the server: set when it has."""
        self._counts = _Counts()

    def __repr__(self) -> str:
        """Show how long it is: no content."""
        return f"<Conversation of {len(self._continuation.history)} items>"

    # --- Turns ---------------------------------------------------------------------------

    def stream(
        self,
        input: Input = (),  # noqa: A002 - the protocol's word
        *,
        delivery: DeliveryChoice = "at_most_once",
        abandon: AbandonChoice = "drain",
        snapshot: bool = True,
        **params: Any,
    ) -> ResponseStream:
        """Run the next turn as a scope, event by event.

        :param input: what is new: text, which is a message of the user, or items.
        :param params: settings for this turn only, in the place of the conversation's. A turn
            whose settings differ from those of the turn before is sent with full input.
        :raises ConfigurationError: for what is no setting of a turn.
        """
        settings = _without_unset({**self._settings, **params})
        generate = settings.pop("generate", None)
        draft = _Draft(self, raw_items(input), settings, generate=generate)
        return _FloorStream(
            self, self._lines, draft, delivery=delivery, abandon=abandon, snapshot=snapshot
        )

    async def create(
        self,
        input: Input = (),  # noqa: A002 - the protocol's word
        *,
        delivery: DeliveryChoice = "at_most_once",
        **params: Any,
    ) -> Response:
        """Run the next turn and give its Response: completed, or incomplete.

        :raises ResponsesError: as ``connection.create`` does; the history is as before then.
        """
        return await super().create(input=input, delivery=delivery, **params)

    # --- History -------------------------------------------------------------------------

    @property
    def items(self) -> tuple[OutputItem, ...]:
        """The history, oldest item first, as typed views of the raw JSON."""
        return tuple(wire.decode_item(raw) for raw in self._continuation.history)

    @property
    def last_response_id(self) -> str | None:
        """The response of the last turn that ended well."""
        return self._continuation.last_response_id

    def reset(self) -> None:
        """Forget everything but the settings: the next turn begins a new chain.

        A turn that is under way belongs to the old chain, and is forgotten with it.
        """
        self._continuation, self._queued = Continuation(), ()

    def adopt(self, items: Sequence[OutputItem | Mapping[str, Any] | msgspec.Raw]) -> None:
        """Take a window from ``/responses/compact`` as the history: a new chain begins.

        Such a window is the whole output of the compaction, and its id is nothing to continue
        from (guide, "Compaction").
        """
        self._continuation, self._queued = Continuation(raw_items(items)), ()

    def fork(self) -> Conversation:
        """Go on in two ways from here: give a conversation with a copy of the history.

        It has a lane of its own where the endpoint has lanes, until the block of this one ends.
        Its first turn continues from this conversation's last response where the server still
        has it. While that first turn has not begun at the server, this conversation's next turn
        waits, or the server would forget the common parent (guide, "WebSocket mode").

        :raises ConfigurationError: when all lanes are leased.
        """
        branch = Conversation(
            self._lease, self._endpoint, self._settings, self._continuation.branch()
        )
        branch._source = self
        return branch

    # --- Elsewhere -----------------------------------------------------------------------

    def checkpoint(self) -> bytes:
        """Save it as JSON that another process, machine or release can read.

        It holds the settings and the history, and neither the connection's key nor its headers.
        What the settings hold is in it: the headers of an MCP tool, for one.
        """
        return msgspec.json.encode(
            _Checkpoint(
                format=CHECKPOINT_FORMAT,
                version=CHECKPOINT_VERSION,
                settings=self._settings,
                items=self._continuation.history,
                last_response_id=self._continuation.last_response_id,
            )
        )

    def statistics(self) -> ConversationStatistics:
        """Count what has happened so far."""
        return ConversationStatistics(
            items=len(self._continuation.history), **dataclasses.asdict(self._counts)
        )

    # --- For its turns -------------------------------------------------------------------

    async def take_floor(self) -> trio.Event:
        """Wait until no other turn of this conversation is under way, nor a fork's first one.

        :return: what the turn has to set as soon as the server has begun with it.
        """
        await self._floor.acquire()
        try:
            while self._gates:
                await self._gates[0].wait()
                del self._gates[0]
        except BaseException:
            self._floor.release()
            raise
        gate = trio.Event()
        source, self._source = self._source, None
        if source is not None and self._settings.get("store") is False:
            source._gates.append(gate)  # noqa: SLF001 - its own kind
        return gate

    def give_floor(self) -> None:
        """Let the next turn begin."""
        self._floor.release()

    def compose(self, draft: _Draft, place: Place, latest: Latest) -> bytes:
        """Write a turn's request: as a delta, where that place knows the rest."""
        draft.chain = chain = self._continuation
        held = latest(chain.baseline.place.lane) if chain.baseline is not None else None
        self._queued = [one for one in self._queued if one.state is SteerState.PENDING]
        # What is pending goes on with its very parent, whatever the settings of the turn are.
        plan = chain.plan(draft.new, None if self._queued else draft.canonical, place, held)
        settings = dict(draft.settings)
        draft.parent = plan.previous_response_id
        if draft.parent is not None:
            settings["previous_response_id"] = draft.parent
            if not self._endpoint.instructions_with_parent:
                settings.pop("instructions", None)
            self._counts.delta_turns += 1
        else:
            self._counts.full_turns += 1
        if draft.generate is not None:
            settings["generate"] = draft.generate
        payload = wire.encode(create_command({**settings, "input": plan.input}))
        self._counts.bytes_sent += len(payload)
        return payload

    def settle(self, draft: _Draft, response: Response, waiting: Sequence[Submission]) -> None:
        """Take a turn that has ended well into the history.

        The server has put what was pending before the new items, in the order it was sent.
        """
        assert draft.chain is not None  # noqa: S101 - it was sent
        assert draft.place is not None  # noqa: S101 - likewise
        steered = [raw for one in self._queued if one.successor is not None for raw in one.items]
        items = [*steered, *draft.new, *draft.superseded, *_output(response)]
        stored = draft.settings.get("store") is True
        draft.chain.commit(items, response.id, draft.canonical, draft.place, stored=stored)
        self._queued = waiting
        self._counts.turns += 1
        if response.usage is not None:
            self._counts.input_tokens += response.usage.input_tokens
            self._counts.output_tokens += response.usage.output_tokens

    @staticmethod
    def restore(
        connection: ResponsesConnection, checkpoint: bytes
    ) -> AbstractAsyncContextManager[Conversation]:
        """Go on with a conversation that was saved, for the length of a block.

        For example::

            async with Conversation.restore(connection, saved) as conversation:
                ...

        Its first turn is sent with full input, unless the server stored the last response.

        :raises ConfigurationError: for what is no checkpoint, or one of a later version.
        """
        heading = _read(checkpoint, _Heading)
        if heading.format != CHECKPOINT_FORMAT:
            raise ConfigurationError("the JSON is not the checkpoint of a conversation")
        if heading.version > CHECKPOINT_VERSION:
            raise ConfigurationError(
                f"the checkpoint has version {heading.version}, which a later release wrote;"
                f" this one reads up to {CHECKPOINT_VERSION}"
            )
        saved = _read(checkpoint, _Checkpoint)
        for raw in saved.items:
            _read(raw, dict)
        history, settings = [raw.copy() for raw in saved.items], saved.settings
        continuation = Continuation()
        if saved.last_response_id is not None:
            equal = canonical(with_encrypted_reasoning(settings))
            nowhere, stored = Place(socket=None, lane=None), settings.get("store") is True
            continuation.commit(history, saved.last_response_id, equal, nowhere, stored=stored)
        else:
            continuation.history = history
        return connection._resume(settings, continuation)  # noqa: SLF001 - its opener


@dataclass(slots=True)
class _Counts:
    """The counters behind `ConversationStatistics`."""

    turns: int = 0
    delta_turns: int = 0
    full_turns: int = 0
    bytes_sent: int = 0
    input_tokens: int = 0
    output_tokens: int = 0


class _Draft:
    """One turn of a conversation, written anew for each socket that it goes to."""

    def __init__(
        self,
        conversation: Conversation,
        new: list[msgspec.Raw],
        settings: Mapping[str, Any],
        *,
        generate: bool | None,
    ) -> None:
        wrong = NOT_SETTINGS.intersection(settings)
        if wrong:
            raise ConfigurationError(f"not a setting of a turn: {', '.join(sorted(wrong))}")
        self._conversation = conversation
        self.new = new
        """The new items."""
        self.settings: dict[str, Any] = with_encrypted_reasoning(settings)
        self.canonical: bytes = canonical(self.settings)
        self.generate = generate
        self.chain: Continuation | None = None
        """What the last attempt continues: after a ``reset`` no longer the conversation's."""
        self.place: Place | None = None
        """Where the last attempt went."""
        self.parent: str | None = None
        """The ``previous_response_id`` of the last attempt."""
        self.superseded: list[msgspec.Raw] = []
        """Where the turn was steered: the output before, and what it was steered with."""

    def write(self, place: Place, latest: Latest) -> bytes:
        """Write the request for a place."""
        self.place = place
        self.superseded.clear()
        return self._conversation.compose(self, place, latest)

    def repairs(self, error: ResponsesError) -> bool:
        """Whether another attempt, with full input, can mend this: the parent is gone."""
        gone = isinstance(error, PreviousResponseNotFound) and error.delivery is Delivery.REJECTED
        if self.parent is None or self.chain is None or not gone:
            return False
        self.chain.baseline = None
        return True

    def advance(self, response: Response, steers: Sequence[Submission]) -> None:
        """Remember what came before a successor: it is part of the turn."""
        self.superseded += _output(response)
        for one in steers:
            self.superseded += one.items

    def settle(self, response: Response, waiting: Sequence[Submission]) -> None:
        """Take a turn that has ended into the history, if it ended well."""
        details = response.incomplete_details
        reason = details.reason if details is not None else None
        cut_short = response.status == "incomplete" and reason in GOOD_ENDINGS
        disobeyed = self.generate is False and bool(response.raw_output)  # `warm_up` raises it
        if (response.status == "completed" or cut_short) and not disobeyed:
            self._conversation.settle(self, response, waiting)


class _FloorStream(ResponseStream):
    """A turn of a conversation: it has the floor from its first attempt to the end of its block."""

    def __init__(
        self,
        conversation: Conversation,
        lines: Lines,
        draft: _Draft,
        *,
        delivery: DeliveryChoice,
        abandon: AbandonChoice,
        snapshot: bool,
    ) -> None:
        super().__init__(lines, draft, delivery=delivery, abandon=abandon, snapshot=snapshot)
        self._conversation = conversation
        self._gate: trio.Event | None = None

    async def __aenter__(self) -> Self:
        """Wait for the floor, then send the request."""
        self._gate = await self._conversation.take_floor()
        try:
            await super().__aenter__()
        except BaseException:
            self._leave_floor()
            raise
        if self._turn is not None:
            self._turn.tell_when_under_way(self._gate)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Leave the turn and the floor."""
        await super().__aexit__(kind, error, traceback)
        self._leave_floor()

    def _leave_floor(self) -> None:
        if self._gate is not None:
            self._gate.set()
        self._conversation.give_floor()


def _read(saved: bytes | msgspec.Raw, kind: type[T]) -> T:
    """Decode a part of a checkpoint."""
    try:
        return msgspec.json.decode(saved, type=kind)
    except (msgspec.MsgspecError, ValueError, TypeError) as error:
        raise ConfigurationError(f"not a checkpoint: {error}") from None


def _output(response: Response) -> list[msgspec.Raw]:
    """Give the raw output of a Response, on its own: it outlives the frame that it came in."""
    return [raw.copy() for raw in response.raw_output or () if bytes(raw) != b"null"]


def _without_unset(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out what is as good as not given: so one turn can do without a setting."""
    return {name: value for name, value in settings.items() if value is not msgspec.UNSET}
