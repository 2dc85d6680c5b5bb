"""The events of one response, added up: a snapshot on the way, the Response at the end.

Most readers take the text from the events, and never look at a snapshot. So events are kept as
they come, and added up when somebody looks, or when there are many.

The terminal event carries the whole output, or leaves it out: then the finished items are the
output (docs/protocol.md, 3). Over a socket the events that set an item up may be
missing, so whatever brings a piece of an item makes it known.

What belongs elsewhere: which events belong together (`lanes.py`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from trio_responses import _wire as wire

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

__all__ = ["Accumulator", "ItemSnapshot", "Snapshot"]

MANY: Final = 1024
"""Events that are kept before they are added up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemSnapshot:
    """What there is so far of one output item."""

    output_index: int
    """Its place in the output."""
    item_id: str
    """Its id; empty where no event said it."""
    text: str
    """Output text."""
    refusal: str
    """What the model says instead, where it refuses."""
    reasoning_summary: str
    """The summary of its reasoning, parts joined by an empty line."""
    arguments: str
    """Arguments of a function or MCP call, or input of a custom tool."""
    item: wire.OutputItem | None
    """The finished item, once it is finished."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """What there is so far of a response."""

    items: tuple[ItemSnapshot, ...]
    """The output items that were mentioned, in the order of their places."""

    @property
    def text(self) -> str:
        """The output text of all items, joined."""
        return "".join(item.text for item in self.items)

    @property
    def refusal(self) -> str:
        """The refusals of all items, joined."""
        return "".join(item.refusal for item in self.items)

    @property
    def reasoning_summary(self) -> str:
        """The reasoning summaries of all items, joined by an empty line."""
        return "\n\n".join(item.reasoning_summary for item in self.items if item.reasoning_summary)


@dataclass(slots=True)
class _Item:
    """One output item under way: its texts by kind and part, as lists of pieces."""

    item_id: str = ""
    pieces: dict[tuple[str, int], list[str]] = field(default_factory=dict[Any, Any])
    done: wire.OutputItemDone | None = None

    def snapshot(self, index: int) -> ItemSnapshot:
        item = self.done.item if self.done is not None else None
        whole = _texts(item)
        return ItemSnapshot(
            output_index=index,
            item_id=self.item_id,
            text=whole.get("text") or self._joined("text"),
            refusal=whole.get("refusal") or self._joined("refusal"),
            reasoning_summary=whole.get("summary") or self._joined("summary", "\n\n"),
            arguments=whole.get("arguments") or self._joined("arguments"),
            item=item,
        )

    def _joined(self, kind: str, separator: str = "") -> str:
        parts = sorted((part, pieces) for (of, part), pieces in self.pieces.items() if of == kind)
        return separator.join("".join(pieces) for _, pieces in parts)


def _texts(item: wire.OutputItem | None) -> dict[str, str]:
    """Give the texts of a finished item: servers may say them there and nowhere else."""
    match item:
        case wire.Message():
            return {"text": item.output_text, "refusal": item.refusal}
        case wire.Reasoning():
            parts = [part.text for part in item.summary or () if isinstance(part, wire.SummaryText)]
            return {"summary": "\n\n".join(parts)}
        case wire.FunctionCall() | wire.McpCall():
            return {"arguments": item.arguments}
        case wire.CustomToolCall():
            return {"arguments": item.input}
        case _:
            return {}


class Accumulator:
    """Adds up the events of one response.

    :param keep_text: whether the pieces of text are kept for `snapshot`. The Response at the end
        needs none of them.
    """

    def __init__(self, *, keep_text: bool = True) -> None:
        self._items: dict[int, _Item] = {}
        self._rules = _ALL_RULES if keep_text else _ITEM_RULES
        self._many = MANY if keep_text else 1
        self._heard: list[wire.ServerEvent] = []

    def feed(self, events: Sequence[wire.ServerEvent]) -> None:
        """Add some events."""
        self._heard += events
        if len(self._heard) >= self._many:
            self._add_up()

    def _add_up(self) -> None:
        for kind, events in groupby(self._heard, type):
            rule = self._rules.get(kind)
            if rule is not None:
                rule(self, events)
        self._heard.clear()

    def finish(self, response: wire.Response) -> wire.Response:
        """Complete the Response of the terminal event: its own output wins where it has one."""
        if response.raw_output:
            return response
        self._add_up()
        done = [item.done.raw_item for _, item in sorted(self._items.items()) if item.done]
        return response.with_output(done) if done else response

    def snapshot(self) -> Snapshot:
        """Show what there is so far."""
        self._add_up()
        return Snapshot(
            items=tuple(item.snapshot(index) for index, item in sorted(self._items.items()))
        )

    def _item(self, index: int, item_id: str | None) -> _Item:
        item = self._items.get(index)
        if item is None:
            item = self._items[index] = _Item()
        if item_id and not item.item_id:
            item.item_id = item_id
        return item

    def _on_texts(self, events: Iterable[wire.OutputTextDelta]) -> None:
        """Add pieces of text, which most events are: mostly of the same part."""
        index, part = -1, -1
        pieces: list[str] = []
        for event in events:
            if event.output_index != index or event.content_index != part:
                index, part = event.output_index, event.content_index
                item = self._item(index, event.item_id)
                pieces = item.pieces.setdefault(("text", part), [])
            pieces.append(event.delta)

    def _on_added(self, events: Iterable[Any]) -> None:
        for event in events:
            self._item(event.output_index, getattr(event.item, "id", None))

    def _on_done(self, events: Iterable[Any]) -> None:
        for event in events:
            self._item(event.output_index, getattr(event.item, "id", None)).done = event


Rule: TypeAlias = "Callable[[Accumulator, Iterable[Any]], None]"
"""Adds up some events of one type."""


def _delta(kind: str, part: str | None) -> Rule:
    """Make the rule for an event that adds a piece: ``part`` names the field of its part."""

    def rule(accumulator: Accumulator, events: Iterable[Any]) -> None:
        for event in events:
            item = accumulator._item(event.output_index, event.item_id)  # noqa: SLF001 - its own
            place = (kind, getattr(event, part) if part is not None else 0)
            item.pieces.setdefault(place, []).append(event.delta)

    return rule


def _whole(kind: str, part: str | None, source: str) -> Rule:
    """Make the rule for an event that says a part as a whole: it replaces the pieces."""

    def rule(accumulator: Accumulator, events: Iterable[Any]) -> None:
        for event in events:
            item = accumulator._item(event.output_index, event.item_id)  # noqa: SLF001 - its own
            place = (kind, getattr(event, part) if part is not None else 0)
            item.pieces[place] = [getattr(event, source)]

    return rule


_ITEM_RULES: dict[type, Rule] = {
    wire.OutputItemAdded: Accumulator._on_added,  # noqa: SLF001 - its own table
    wire.OutputItemDone: Accumulator._on_done,  # noqa: SLF001 - likewise
}
_ALL_RULES: dict[type, Rule] = {
    **_ITEM_RULES,
    wire.OutputTextDelta: Accumulator._on_texts,  # noqa: SLF001 - likewise
    wire.OutputTextDone: _whole("text", "content_index", "text"),
    wire.RefusalDelta: _delta("refusal", "content_index"),
    wire.RefusalDone: _whole("refusal", "content_index", "refusal"),
    wire.ReasoningSummaryTextDelta: _delta("summary", "summary_index"),
    wire.ReasoningSummaryTextDone: _whole("summary", "summary_index", "text"),
    wire.FunctionCallArgumentsDelta: _delta("arguments", None),
    wire.FunctionCallArgumentsDone: _whole("arguments", None, "arguments"),
    wire.McpCallArgumentsDelta: _delta("arguments", None),
    wire.McpCallArgumentsDone: _whole("arguments", None, "arguments"),
    wire.CustomToolCallInputDelta: _delta("arguments", None),
    wire.CustomToolCallInputDone: _whole("arguments", None, "input"),
}
