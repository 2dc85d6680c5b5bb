"""What a conversation has said and heard, and what it owes: the state behind its turns.

Besides the history these are the calls that no item has answered yet, the answers that tools have
given to them, and the steering inputs that the server holds back for the next turn.

What belongs elsewhere: delta or full input (`core/continuation.py`), one turn (`exchange.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from trio_responses import wire
from trio_responses.core.calls import key_of, note_items
from trio_responses.core.continuation import Continuation
from trio_responses.core.steering import SteerState
from trio_responses.drafts import create_command

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import msgspec

    from trio_responses.core.calls import Key
    from trio_responses.core.continuation import Place
    from trio_responses.core.steering import Submission
    from trio_responses.drafts import Latest
    from trio_responses.endpoint import Endpoint
    from trio_responses.exchange import TurnDraft
    from trio_responses.wire import OutputItem, Response

__all__ = ["Counts", "Ledger", "output_of"]


@dataclass(slots=True)
class Counts:
    """The counters behind `ConversationStatistics`."""

    turns: int = 0
    delta_turns: int = 0
    full_turns: int = 0
    bytes_sent: int = 0
    input_tokens: int = 0
    output_tokens: int = 0


class Ledger:
    """The state of one conversation.

    :param answers: answers of tools that have not gone out yet.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        continuation: Continuation,
        answers: Iterable[msgspec.Raw] = (),
    ) -> None:
        self._endpoint = endpoint
        self._queued: Sequence[Submission] = ()
        self._owed: dict[Key, msgspec.Raw] = {}
        self._answers: dict[Key, msgspec.Raw] = {}
        self.continuation: Continuation = continuation
        self.counts: Counts = Counts()
        note_items(self._owed, continuation.history)
        for raw in answers:
            key = key_of(raw)
            if key is not None:
                self._answers[key] = raw

    @property
    def history(self) -> list[msgspec.Raw]:
        """The raw items."""
        return self.continuation.history

    @property
    def answers(self) -> list[msgspec.Raw]:
        """The answers of tools that have not gone out yet."""
        return list(self._answers.values())

    def begin_anew(self, history: list[msgspec.Raw]) -> None:
        """Take another history: a new chain begins. What is under way goes on with the old one."""
        self.continuation = Continuation(history)
        self._queued = ()
        self._owed.clear()
        self._answers.clear()
        note_items(self._owed, history)

    def branch(self) -> Ledger:
        """Copy it, counters and what the server holds back excepted."""
        return Ledger(self._endpoint, self.continuation.branch(), self.answers)

    # --- Turns ---------------------------------------------------------------------------

    def compose(self, draft: TurnDraft, place: Place, latest: Latest) -> bytes:
        """Write a turn's request: as a delta, where that place knows the rest."""
        draft.chain = chain = self.continuation
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
            self.counts.delta_turns += 1
        else:
            self.counts.full_turns += 1
        if draft.generate is not None:
            settings["generate"] = draft.generate
        payload = wire.encode(create_command({**settings, "input": plan.input}))
        self.counts.bytes_sent += len(payload)
        return payload

    def settle(self, draft: TurnDraft, response: Response, waiting: Sequence[Submission]) -> None:
        """Take a turn that has ended well into the history.

        The server has put what was pending before the new items, in the order it was sent.
        """
        assert draft.chain is not None  # noqa: S101 - it was sent
        assert draft.place is not None  # noqa: S101 - likewise
        steered = [raw for one in self._queued if one.successor is not None for raw in one.items]
        items = [*steered, *draft.new, *draft.superseded, *output_of(response)]
        stored = draft.settings.get("store") is True
        draft.chain.commit(items, response.id, draft.canonical, draft.place, stored=stored)
        if draft.chain is self.continuation:
            self._queued = waiting
            self._note(items)
        self.counts.turns += 1
        if response.usage is not None:
            self.counts.input_tokens += response.usage.input_tokens
            self.counts.output_tokens += response.usage.output_tokens

    # --- Calls ---------------------------------------------------------------------------

    def _note(self, items: Iterable[msgspec.Raw]) -> None:
        """Note what new items of the history call, and what they answer."""
        note_items(self._owed, items)
        for raw in items:
            key = key_of(raw)
            if key is not None:
                self._answers.pop(key, None)

    def owed_calls(self, but: Iterable[msgspec.Raw] = ()) -> dict[Key, OutputItem]:
        """Give the calls that nothing in the history answers.

        :param but: items that go along, and may answer some.
        """
        answered = {key_of(raw) for raw in but}
        owed = {key: raw for key, raw in self._owed.items() if key not in answered}
        return {key: wire.decode_item(raw) for key, raw in owed.items()}

    def is_answered(self, key: Key) -> bool:
        """Whether a tool has given an answer that only has to go out."""
        return key in self._answers

    def keep_answer(self, key: Key, answer: msgspec.Raw) -> None:
        """Keep an answer until a turn that carries it has ended well: no call is run twice.

        One to a call that the history has no more is dropped.
        """
        if key in self._owed:
            self._answers[key] = answer

    def answers_to(self, calls: Mapping[Key, Any]) -> list[msgspec.Raw]:
        """Give the answers that there are, in the order of their calls."""
        return [self._answers[key] for key in calls if key in self._answers]


def output_of(response: Response) -> list[msgspec.Raw]:
    """Give the raw output of a Response, on its own: it outlives the frame that it came in."""
    return [raw.copy() for raw in response.raw_output or () if bytes(raw) != b"null"]
