"""The history of a conversation: an append-only log of raw items.

* A turn that has ended well is appended whole, under the next revision number (`History.commit`).
  `History.replace` begins another log, under the next revision number as well. Nothing else
  changes the log.
* A turn is planned for the log as it is (`TurnPlan`). If the log is replaced before the turn ends,
  the turn is not appended.
* The calls in the log are looked for only once a run asks for them (`History.track_calls`), and
  then incrementally: conversations without runs do not pay for it.
* Items are kept as the raw JSON of the wire, so that unknown fields are sent back unchanged. Full
  input sends them in the form that the API accepts (`_protocol/replay.py`).
* Each call has an output before the model reads on: a turn sends the outputs that were kept, and a
  text for each call that was interrupted (`TurnPlan.new`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

import msgspec

from trio_responses import _wire as wire
from trio_responses._protocol.calls import call_key, find_calls_and_outputs
from trio_responses._protocol.continuation import parent_of_delta
from trio_responses._protocol.raw_items import RawItems
from trio_responses._protocol.replay import (
    InputForm,
    Origin,
    Piece,
    can_wait,
    error_output_for,
    prepare_new_items,
    without_outputs,
)
from trio_responses._protocol.requests import SteerState
from trio_responses._settings import ReplayPolicy
from trio_responses._tools.toolbox import INTERRUPTED, NOT_STARTED

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
    from collections.abc import Set as AbstractSet

    from trio_responses._protocol.calls import CallKey
    from trio_responses._protocol.continuation import ContinuationPoint, Placement
    from trio_responses._protocol.replay import ReplayRules
    from trio_responses._protocol.requests import SteerInput
    from trio_responses._turn.request_builder import Latest
    from trio_responses._wire import OutputItem, Response, Usage

__all__ = [
    "ActiveRequest",
    "CallTracker",
    "CommittedTurn",
    "Counters",
    "History",
    "HistoryJournal",
    "LogEntry",
    "TurnPlan",
]

MAX_SEARCHED: Final = 4096
"""The size from which decoding items is faster than searching their text for several words."""


@dataclass(slots=True)
class Counters:
    """The mutable counters of a conversation, which `ConversationStatistics` reports."""

    turns: int = 0
    delta_turns: int = 0
    full_turns: int = 0
    bytes_sent: int = 0
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0


class LogEntry(msgspec.Struct, frozen=True):
    """The items that one turn, or one replacement of the history, added to the log."""

    number: int
    """The revision number of the history after them."""
    items: tuple[RawItems, ...]
    """The items, in the pieces in which they arrived; a piece may be empty."""
    origin: Origin = Origin()
    """The settings of the turn that added the items."""


class TurnPlan(msgspec.Struct, frozen=True, kw_only=True):
    """The planned request of one attempt at a turn, for one lane (``stream_id``) of one socket."""

    base_revision: int
    """The revision of the history that the turn continues."""
    placement: Placement
    """Where the attempt is sent."""
    items: list[RawItems]
    """The input of the request: the new items, or the whole history and the new items."""
    new: RawItems
    """The new items: the outputs of earlier calls, and the input of the turn."""
    left_out: Collection[CallKey]
    """The calls without output that full input does not have."""
    parent: str | None
    """The ``previous_response_id``; `None` for full input."""
    pending_steers: Sequence[SteerInput]
    """The steering inputs that the server may apply before the new items."""


@dataclass(slots=True, kw_only=True)
class ActiveRequest:
    """A request (``request_id``) that is repeated safely, while it runs."""

    id: str
    """The id that the caller chose."""
    digest: str
    """The digest of its input."""
    latest: Response | None = None
    """The last Response that it has so far, from an earlier attempt; `None` at its start."""
    ended: bool = False
    """Whether the last Response is its answer."""
    ends_with: Callable[[Response], bool] = lambda _: True
    """Whether a Response that has ended is the answer; called once the history has it."""


class CommittedTurn(msgspec.Struct, frozen=True, kw_only=True):
    """A successful turn, as it is appended to a history."""

    base_revision: int
    """The revision that the turn was planned for."""
    items: tuple[RawItems, ...]
    """The input and the output of the turn, in the order in which the server has them."""
    server: ContinuationPoint | None
    """What the server holds now; `None` if its response has no id."""
    pending_steers: Sequence[SteerInput]
    """The steering inputs that the server applies to the next turn."""
    clears_unsent: bool
    """Whether the turn replaces the unsent input of a run. A warm-up does not."""
    origin: Origin = Origin()
    """The settings of the turn."""
    left_out: Collection[CallKey] = ()
    """The calls without output that the server does not have."""
    response: Response | None = None
    """The last Response of the turn; `None` for a turn that a log is read from."""
    request: ActiveRequest | None = None
    """The request (``request_id``) that the turn belongs to."""


class HistoryJournal(Protocol):
    """The interface of what records the changes of a history, for `save` to write them down."""

    def record_turn(self, turn: CommittedTurn) -> None:
        """Record a turn that was appended."""
        ...

    def record_replacement(self) -> None:
        """Record that the history was replaced."""
        ...

    def record_settings(self) -> None:
        """Record that the replay policy has changed."""
        ...

    def record_start(self, key: CallKey) -> None:
        """Record that a call starts to run."""
        ...

    def record_output(self, key: CallKey, output: msgspec.Raw) -> None:
        """Record the output of a call."""
        ...

    def record_rerun(self, key: CallKey) -> None:
        """Record that a call that had started may start again."""
        ...

    async def save(self) -> None:
        """Save what was recorded; nothing is waited for if nothing was."""
        ...


class History:
    """The history of one conversation, and the response that the server is known to hold.

    :param items: the items to begin with, and their origins.
    :param server: what the server holds of these items.
    :param last_response_id: the response of the last turn.
    :param unsent_outputs: outputs of tools that have not been sent.
    :param interrupted_calls: calls that have started and not ended.
    :param unsent: the input of a run whose first turn has not ended well.
    :param abandoned: calls without output that the server does not have.
    :param policy: the filters of full input.
    :param revision: the number of the revision that the items are.
    """

    def __init__(
        self,
        items: Sequence[Piece] = (),
        *,
        server: ContinuationPoint | None = None,
        last_response_id: str | None = None,
        unsent_outputs: Sequence[msgspec.Raw] = (),
        interrupted_calls: Sequence[CallKey] = (),
        unsent: RawItems | None = None,
        abandoned: Collection[CallKey] = (),
        policy: ReplayPolicy | None = None,
        revision: int = 0,
    ) -> None:
        self.revision: int = revision
        """The number of the latest revision."""
        self._first_revision = revision
        """The revision with which the present log began: older ones are of replaced logs."""
        self._log = [LogEntry(revision, (piece.items,), piece.origin) for piece in items]
        self._form: InputForm | None = None
        """The input form of the first `_converted` entries of the log."""
        self._converted = 0
        self._policy: ReplayPolicy = policy or ReplayPolicy()
        self._server = server
        self._pending_steers: Sequence[SteerInput] = ()
        self._calls: CallTracker | None = None
        self.item_count: int = sum(piece.items.count for piece in items)
        """The number of items."""
        self.last_response_id: str | None = last_response_id
        """The response of the last turn that ended well, whether or not a server has it."""
        self.unsent: RawItems = unsent or RawItems()
        """The input of a run whose first turn has not ended well, for a run without input."""
        self.counters: Counters = Counters()
        self.abandoned: set[CallKey] = set(abandoned)
        """The calls without output that the server does not have."""
        self.journal: HistoryJournal | None = None
        """What records the changes of the history; `None` if nothing does."""
        if unsent_outputs or interrupted_calls:
            self.track_calls().restore_outputs(unsent_outputs, interrupted_calls)

    def record_in(self, journal: HistoryJournal) -> None:
        """Let a journal record all changes of the history from now on."""
        self.journal = self.track_calls().journal = journal

    async def save(self) -> None:
        """Save all changes, where a journal records them. Not a checkpoint if there are none."""
        if self.journal is not None:
            await self.journal.save()

    @property
    def log(self) -> Sequence[LogEntry]:
        """The entries of the present log, oldest first."""
        return self._log

    @property
    def pieces(self) -> list[RawItems]:
        """All items of the history, oldest first, in the non-empty pieces that were appended."""
        return [items for revision in self._log for items in revision.items if items.count]

    @property
    def sources(self) -> list[Piece]:
        """All items of the history, oldest first, with the origin of each piece."""
        return [
            Piece(items, entry.origin)
            for entry in self._log
            for items in entry.items
            if items.count
        ]

    @property
    def endpoint(self) -> str | None:
        """The name of the endpoint that the latest turn was sent to; `None` if it is not known."""
        return self._log[-1].origin.endpoint if self._log else None

    @property
    def raw_items(self) -> list[msgspec.Raw]:
        """All items of the history, oldest first, one by one."""
        return [raw for items in self.pieces for raw in items]

    @property
    def unsent_outputs(self) -> list[msgspec.Raw]:
        """The outputs of tools that have not been sent."""
        return self._calls.unsent_outputs if self._calls is not None else []

    @property
    def interrupted_calls(self) -> list[CallKey]:
        """The calls that have started and not ended."""
        return self._calls.interrupted_calls if self._calls is not None else []

    @property
    def needs_full_input(self) -> bool:
        """Whether the next turn has full input, although the server may hold the last response."""
        return self._server is None and self.last_response_id is not None

    def fork(self) -> History:
        """Return an independent copy of the history, without counters and steering inputs."""
        other = History(server=self._server, last_response_id=self.last_response_id)
        other.revision, other._first_revision = self.revision, self._first_revision
        other._log = self._log.copy()
        other._calls = self._calls.copy() if self._calls is not None else None
        other._form = self._form.copy() if self._form is not None else None
        other._converted, other._policy = self._converted, self._policy
        other.abandoned = self.abandoned.copy()
        other.item_count = self.item_count
        other.unsent = self.unsent
        return other

    def count_bytes(self) -> int:
        """Return the size of all items."""
        return sum(len(items.json) for entry in self._log for items in entry.items)

    # --- Turns ---------------------------------------------------------------------------

    @property
    def policy(self) -> ReplayPolicy:
        """The filters of full input."""
        return self._policy

    @policy.setter
    def policy(self, policy: ReplayPolicy) -> None:
        if policy != self._policy:  # the server has what the new filters may leave out
            self._policy, self._server = policy, None
            if self.journal is not None:
                self.journal.record_settings()

    def plan(
        self,
        given: RawItems,
        settings: bytes,
        placement: Placement,
        latest: Latest,
        origin: Origin = Origin(),  # noqa: B008 - immutable
    ) -> TurnPlan:
        """Return the plan of a turn's request for one lane (``stream_id``) of one socket.

        :param given: the input of the turn.
        :param settings: all settings of the turn, in the form of `canonical_settings`.
        :param latest: returns the latest response of a lane, on the socket of the placement.
        :param origin: the settings of the turn that the input form of items depends on.
        """
        rules = self._policy.rules(origin)
        outputs, left_out = self._outputs_before(given)
        new = prepare_new_items(RawItems.join(outputs) + given if outputs else given, rules)
        server = self._server
        steers = [one for one in self._pending_steers if one.state is SteerState.PENDING]
        held = latest(server.placement.lane) if server is not None else None
        # Pending steering inputs wait for this very parent, whatever the settings of the turn are.
        parent = parent_of_delta(server, None if steers else settings, placement, held)
        if left_out:  # the server has the calls, and would refuse a delta without their outputs
            parent = None
        items = [new]
        if parent is None:
            form = self._convert(rules)
            lost = set(self.track_calls().keys).difference(form.open_calls)
            if lost:  # calls that have no input form, so that no output may follow
                left_out = {*left_out, *lost}
                new = without_outputs(new, lost)
            items = [*form.items(_keys(new) if form.open_calls else ()), new]
        return TurnPlan(
            base_revision=self.revision,
            placement=placement,
            items=items,
            new=new,
            left_out=left_out,
            parent=parent,
            pending_steers=steers,
        )

    def _outputs_before(self, new: RawItems) -> tuple[list[msgspec.Raw], Collection[CallKey]]:
        """Return the outputs to be sent before new items, and the calls to be left out.

        The model reads on, so each call without an output among the new items needs one: the
        output that was kept, or else a text that says that the call was interrupted.
        """
        calls = self.track_calls()
        if not calls.has_pending_calls:
            return [], ()
        outputs: list[msgspec.Raw] = []
        left_out: set[CallKey] = set()
        for key, call, kept in calls.unanswered(new):
            output = kept
            if output is None:
                if can_wait(call):
                    continue
                output = error_output_for(call, INTERRUPTED)
            if output is None:
                left_out.add(key)
            else:
                outputs.append(output)
        return outputs, left_out

    def settle_calls(self) -> None:
        """Answer each call that was not started with a text that says so: no run starts it.

        Calls whose output has no place for a text are left as they are.
        """
        calls = self.track_calls()
        for key, call, kept in list(calls.unanswered(RawItems())):
            if kept is None and not can_wait(call):
                output = error_output_for(call, NOT_STARTED)
                if output is not None:
                    calls.store_output(key, output)

    def input_items(self, rules: ReplayRules) -> list[RawItems]:
        """Return the history as full input has it, without the calls that have no output yet."""
        return self._convert(rules).items()

    def _convert(self, rules: ReplayRules) -> InputForm:
        """Return the input form of the history; only what was added is converted."""
        if self._form is None or self._form.rules != rules:
            self._form, self._converted = InputForm(rules), 0
        for entry in self._log[self._converted :]:
            for items in entry.items:
                self._form.append(Piece(items, entry.origin))
        self._converted = len(self._log)
        return self._form

    def count_request(self, plan: TurnPlan, size: int) -> None:
        """Count a sent request, as a delta or as full input, and its bytes.

        :param size: the bytes of the encoded request.
        """
        if plan.parent is not None:
            self.counters.delta_turns += 1
        else:
            self.counters.full_turns += 1
        self.counters.bytes_sent += size

    def commit(self, turn: CommittedTurn) -> None:
        """Append a turn to the log under the next revision, unless the log was replaced."""
        if turn.base_revision >= self._first_revision:
            self.revision += 1
            self._log.append(LogEntry(self.revision, turn.items, turn.origin))
            for items in turn.items:
                self.item_count += items.count
                if self._calls is not None:
                    self._calls.scan(items)
            if turn.left_out:
                self.abandoned |= {*turn.left_out}
                self.track_calls().discard(turn.left_out)
            self._server = turn.server
            self.last_response_id = turn.server.response_id if turn.server is not None else None
            self._pending_steers = turn.pending_steers
            if turn.clears_unsent:
                self.unsent = RawItems()
            if self.journal is not None:
                self.journal.record_turn(turn)
        self.counters.turns += 1

    def count_usage(self, usage: Usage) -> None:
        """Count the tokens of a Response, whether or not its turn is committed."""
        self.counters.input_tokens += usage.input_tokens
        self.counters.cached_tokens += usage.input_tokens_details.cached_tokens
        self.counters.output_tokens += usage.output_tokens
        self.counters.reasoning_tokens += usage.output_tokens_details.reasoning_tokens

    def forget_continuation_point(self, base_revision: int) -> None:
        """Forget the response that the server has lost: the next turn sends full input.

        :param base_revision: the revision that the server was asked to continue.
        """
        if base_revision >= self._first_revision:
            self._server = None

    def restore_continuation_point(self, point: ContinuationPoint) -> None:
        """Let the next turn continue from a response that a server may have stored."""
        self._server = point
        self.last_response_id = point.response_id

    def replace(self, items: RawItems) -> None:
        """Begin a new log with other items. An active turn continues with the old one."""
        self.revision += 1
        self._first_revision = self.revision
        # The items are most likely from `input_items`, or compacted by the server of the last turn.
        origin = Origin(endpoint=self.endpoint)
        self._log = [LogEntry(self.revision, (items,), origin)] if items else []
        self._form = None
        self._server = None
        self._pending_steers = ()
        self.item_count = items.count
        self.last_response_id = None
        self.unsent = RawItems()
        self.abandoned.clear()
        if self._calls is not None:
            self._calls.replace(items)
        if self.journal is not None:
            self.journal.record_replacement()

    # --- Calls ---------------------------------------------------------------------------

    def track_calls(self) -> CallTracker:
        """Return the tracker of the tool calls in the log; the first use scans the log.

        From then on, each commit is scanned.
        """
        if self._calls is None:
            self._calls = CallTracker()
            self._calls.journal = self.journal
            for items in self.pieces:
                self._calls.scan(items)
            self._calls.discard(self.abandoned)
        return self._calls


def _keys(items: RawItems) -> set[CallKey]:
    """Return the keys of the tool calls and outputs among items."""
    return {found.key for found in find_calls_and_outputs(items)} if items else set()


class CallTracker:
    """The tool calls of a history that have no output yet, and the outputs to be sent.

    A call has no output item in the history until a turn that sends the output has ended well. The
    tracker keeps the output for that long, so that no call is run twice. For a call that has
    started and not ended, the output says so, if this kind of output has a place for text.
    """

    def __init__(self) -> None:
        self._pending: dict[CallKey, msgspec.Raw] = {}
        self._outputs: dict[CallKey, msgspec.Raw] = {}
        self._started: dict[CallKey, None] = {}
        self._ambiguous: set[CallKey] = set()
        self.journal: HistoryJournal | None = None
        """What records starts and outputs; `None` if nothing does."""

    @property
    def keys(self) -> AbstractSet[CallKey]:
        """The tool calls without output."""
        return self._pending.keys()

    @property
    def has_pending_calls(self) -> bool:
        """Whether the history has tool calls without output."""
        return bool(self._pending)

    @property
    def unsent_outputs(self) -> list[msgspec.Raw]:
        """The outputs of tools that have not been sent."""
        return list(self._outputs.values())

    @property
    def interrupted_calls(self) -> list[CallKey]:
        """The calls that have started and not ended."""
        return list(self._started)

    def pending_calls(self, answered_by: RawItems | None = None) -> dict[CallKey, OutputItem]:
        """Return the tool calls without output, in order.

        A call id that occurs again is a new call if the earlier call has an output. Two calls with
        one id and no output between them are one call if they are equal, else an ambiguous one.

        :param answered_by: new items, whose outputs count as well.
        """
        new = find_calls_and_outputs(answered_by) if answered_by and self._pending else ()
        answered = {found.key for found in new}
        return {
            key: wire.decode_item(raw) for key, raw in self._pending.items() if key not in answered
        }

    def is_ambiguous(self, key: CallKey) -> bool:
        """Whether several calls that differ have this id."""
        return key in self._ambiguous

    def unanswered(
        self, new: RawItems
    ) -> Iterator[tuple[CallKey, msgspec.Raw, msgspec.Raw | None]]:
        """Yield each tool call that new items do not answer, and its unsent output, if any."""
        answered = _keys(new)
        for key, raw in self._pending.items():
            if key not in answered:
                yield key, raw, self._outputs.get(key)

    def discard(self, calls: Iterable[CallKey]) -> None:
        """Forget tool calls that will never have an output."""
        for key in calls:
            self._pending.pop(key, None)
            self._forget(key)

    def has_unsent_output(self, key: CallKey) -> bool:
        """Whether a tool call has an output that has not been sent."""
        return key in self._outputs

    def is_interrupted(self, key: CallKey) -> bool:
        """Whether a tool call has started, and has not even an output that says so."""
        return key in self._started and key not in self._outputs

    def outputs_for(self, calls: Mapping[CallKey, Any]) -> list[msgspec.Raw]:
        """Return the unsent outputs of tool calls, in the order of the calls."""
        return [self._outputs[key] for key in calls if key in self._outputs]

    def start_call(self, key: CallKey, interrupted: msgspec.Raw | None) -> None:
        """Record that a tool call starts, unless the history no longer has the call.

        :param interrupted: the output in case that the call does not end; `None` if its kind of
            output has no place for text.
        """
        if key in self._pending:
            self._started[key] = None
            if interrupted is not None:
                self._outputs[key] = interrupted
            if self.journal is not None:
                self.journal.record_start(key)

    def store_output(self, key: CallKey, output: msgspec.Raw) -> None:
        """Store the output of a tool call, unless the history no longer has the call."""
        if key in self._pending:
            self._outputs[key] = output
            self._started.pop(key, None)
            if self.journal is not None:
                self.journal.record_output(key, output)

    def forget_interruptions(self) -> None:
        """Forget that calls have started and not ended, so that they can start again."""
        for key in self.interrupted_calls:
            self.forget_interruption(key)

    def forget_interruption(self, key: CallKey) -> None:
        """Forget that a call has started and not ended, so that it can start again."""
        del self._started[key]
        self._outputs.pop(key, None)
        if self.journal is not None:
            self.journal.record_rerun(key)

    def restore_outputs(
        self, outputs: Iterable[msgspec.Raw], interrupted: Iterable[CallKey] = ()
    ) -> None:
        """Store the unsent outputs and the interrupted calls of a checkpoint."""
        self._outputs = {key: raw for raw in outputs if (key := call_key(raw)) is not None}
        self._started = {key: None for key in interrupted if key in self._pending}

    def scan(self, items: RawItems) -> None:
        """Find tool calls and outputs in items that were appended to the history."""
        text = items.json
        if len(text) <= MAX_SEARCHED and not (
            b"_call" in text or b"mcp_approval_re" in text or b"tool_search_out" in text
        ):
            return  # like most turns, found out without decoding the items
        for key, is_call, raw in find_calls_and_outputs(items):
            earlier = self._pending.get(key) if is_call else None
            if earlier is not None and bytes(earlier) == bytes(raw):
                continue
            if is_call:
                self._pending[key] = raw.copy()  # does not keep the neighbours in memory
            else:
                self._pending.pop(key, None)
            self._forget(key)
            if earlier is not None:
                self._ambiguous.add(key)

    def _forget(self, key: CallKey) -> None:
        self._outputs.pop(key, None)
        self._started.pop(key, None)
        self._ambiguous.discard(key)

    def replace(self, items: RawItems) -> None:
        """Scan the items of a new history; keep the state of calls that are still in it."""
        outputs, started = self._outputs, self._started
        self._outputs, self._started = {}, {}
        self._pending.clear()
        self._ambiguous.clear()
        self.scan(items)
        self._outputs = {key: outputs[key] for key in outputs if key in self._pending}
        self._started = {key: None for key in started if key in self._pending}

    def copy(self) -> CallTracker:
        """Return an independent copy of the tracker."""
        other = CallTracker()
        other._pending = self._pending.copy()
        other._outputs = self._outputs.copy()
        other._started = self._started.copy()
        other._ambiguous = self._ambiguous.copy()
        return other
