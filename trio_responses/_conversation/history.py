"""What a conversation has said and heard, and what it owes: the state behind its turns.

Besides the history these are the calls that no item has answered yet, the answers that tools have
given to them, and the steering inputs that the server holds back for the next turn.

What belongs elsewhere: delta or full input (`core/continuation.py`), one turn (`exchange.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import msgspec

from trio_responses import _wire as wire
from trio_responses._protocol.calls import key_of, note
from trio_responses._protocol.continuation import Continuation
from trio_responses._protocol.raw_items import RawItems
from trio_responses._protocol.requests import SteerState

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from trio_responses._conversation.turn import ConversationRequest
    from trio_responses._endpoint import Endpoint
    from trio_responses._protocol.calls import Key
    from trio_responses._protocol.continuation import Placement
    from trio_responses._protocol.requests import SteerInput
    from trio_responses._turn.request_builder import Latest
    from trio_responses._wire import OutputItem, Response

__all__ = ["Counts", "History", "output_of"]

NULL: Final = msgspec.Raw(b"null")


@dataclass(slots=True)
class Counts:
    """The counters behind `ConversationStatistics`."""

    turns: int = 0
    delta_turns: int = 0
    full_turns: int = 0
    bytes_sent: int = 0
    input_tokens: int = 0
    output_tokens: int = 0


class History:
    """The state of one conversation.

    :param answers: answers of tools that have not gone out yet.
    :param unsent: the input of a run whose first turn has not ended well.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        continuation: Continuation,
        answers: Sequence[msgspec.Raw] = (),
        unsent: RawItems | None = None,
    ) -> None:
        self._endpoint = endpoint
        self._queued: Sequence[SteerInput] = ()
        self._owed: dict[Key, msgspec.Raw] = {}
        self._answers: dict[Key, msgspec.Raw] = {}
        self._noted = 0
        self.continuation: Continuation = continuation
        self.counts: Counts = Counts()
        self.unsent: RawItems = unsent or RawItems()
        """The input of a run whose first turn has not ended well: for the next run without any."""
        if answers:
            self._note()
            self._answers = {key: raw for raw in answers if (key := key_of(raw)) is not None}

    @property
    def history(self) -> list[msgspec.Raw]:
        """The raw items, one by one."""
        return [raw for items in self.continuation.history for raw in items]

    @property
    def length(self) -> int:
        """How many items the history has."""
        return sum(items.count for items in self.continuation.history)

    @property
    def answers(self) -> list[msgspec.Raw]:
        """The answers of tools that have not gone out yet."""
        self._note()
        return list(self._answers.values())

    def begin_anew(self, history: RawItems) -> None:
        """Take another history: a new chain begins. What is under way goes on with the old one."""
        self.continuation = Continuation([history] if history.count else [])
        self._queued = ()
        self.unsent = RawItems()
        self._noted = 0
        self._owed.clear()
        answers, self._answers = self._answers, {}
        if answers:
            self._note()  # what is still owed was begun, and is not begun again
            self._answers = {key: answers[key] for key in answers if key in self._owed}

    def branch(self) -> History:
        """Copy it, counters and what the server holds back excepted."""
        other = History(self._endpoint, self.continuation.branch())
        other.unsent = self.unsent
        other._noted = self._noted
        other._owed = self._owed.copy()
        other._answers = self._answers.copy()
        return other

    # --- Turns ---------------------------------------------------------------------------

    def compose(self, request: ConversationRequest, placement: Placement, latest: Latest) -> bytes:
        """Write a turn's request: as a delta, where that place knows the rest."""
        request.chain = chain = self.continuation
        held = latest(chain.baseline.placement.lane) if chain.baseline is not None else None
        self._queued = [one for one in self._queued if one.state is SteerState.PENDING]
        # What is pending goes on with its very parent, whatever the settings of the turn are.
        settings = None if self._queued else request.settings.canonical
        plan = chain.plan(request.new, settings, placement, held)
        request.parent = plan.previous_response_id
        if request.parent is not None:
            self.counts.delta_turns += 1
        else:
            self.counts.full_turns += 1
        both = self._endpoint.instructions_with_parent
        payload = request.settings.request(plan, generate=request.generate, instructions=both)
        self.counts.bytes_sent += len(payload)
        return payload

    def commit(
        self, request: ConversationRequest, response: Response, pending: Sequence[SteerInput]
    ) -> None:
        """Take a turn that has ended well into the history.

        The server has put what was pending before the new items, in the order it was sent.
        """
        assert request.chain is not None  # noqa: S101 - it was sent
        assert request.placement is not None  # noqa: S101 - likewise
        steered = [raw for one in self._queued if one.successor is not None for raw in one.items]
        request.chain.commit(
            RawItems.join(steered),
            request.new,
            *request.superseded,
            output_of(response),
            response_id=response.id,
            settings=request.settings.canonical,
            placement=request.placement,
            stored=request.settings.stored,
        )
        if request.chain is self.continuation:
            self._queued = pending
            if request.generate is None:
                self.unsent = RawItems()
        self.counts.turns += 1
        if response.usage is not None:
            self.counts.input_tokens += response.usage.input_tokens
            self.counts.output_tokens += response.usage.output_tokens

    # --- Calls ---------------------------------------------------------------------------

    def _note(self) -> None:
        """Note what the history calls and answers, as far as that was not done.

        Only who runs tools wants to know. So it is done when somebody asks, and not by each turn.
        """
        history = self.continuation.history
        for items in history[self._noted :]:
            for key, is_call, raw in note(items):
                if is_call:
                    self._owed[key] = raw.copy()  # the others need not be kept for it
                else:
                    self._owed.pop(key, None)
                self._answers.pop(key, None)
        self._noted = len(history)

    @property
    def owes(self) -> bool:
        """Whether there are calls that nothing in the history answers."""
        self._note()
        return bool(self._owed)

    def pending_calls(self, but: RawItems | None = None) -> dict[Key, OutputItem]:
        """Give those calls, in their order.

        An id that comes again is a new call if the one before was answered, and else the same.

        :param but: items that go along, and may answer some.
        """
        self._note()
        answered = {noted.key for noted in note(but)} if but and self._owed else ()
        return {
            key: wire.decode_item(raw) for key, raw in self._owed.items() if key not in answered
        }

    def is_answered(self, key: Key) -> bool:
        """Whether a tool has given an answer that only has to go out."""
        self._note()
        return key in self._answers

    def store_output(self, key: Key, answer: msgspec.Raw) -> None:
        """Keep an answer until a turn that carries it has ended well: no call is run twice.

        One to a call that the history has no more is dropped.
        """
        self._note()
        if key in self._owed:
            self._answers[key] = answer

    def outputs_for(self, calls: Mapping[Key, Any]) -> list[msgspec.Raw]:
        """Give the answers that there are, in the order of their calls."""
        self._note()
        return [self._answers[key] for key in calls if key in self._answers]


def output_of(response: Response) -> RawItems:
    """Give the raw output of a Response, on its own: it outlives the frame that it came in."""
    output = response.raw_output or []
    if NULL in output:
        output = [raw for raw in output if raw != NULL]
    end = len(output)
    while end and _is_reasoning(output[end - 1]):
        end -= 1
    return RawItems.join(output[:end])


def _is_reasoning(raw: msgspec.Raw) -> bool:
    """Whether an item is reasoning: the API refuses it without the item that it led to."""
    return b'"reasoning"' in bytes(raw) and isinstance(wire.decode_item(raw), wire.Reasoning)
