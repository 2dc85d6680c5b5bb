"""Accumulation of the events of one response: snapshots while it is active, and the Response.

Most readers take the text from the events and never read a snapshot. So events are collected, and
processed when a snapshot is read or when many have been collected.

A terminal event contains the whole output or omits it; if omitted, the finished items are the
output (docs/protocol.md, 3). The event that adds an item may be missing over a socket, so every
event about an item adds it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from trio_responses import _wire as wire

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

__all__ = ["Accumulator", "ItemSnapshot", "Snapshot"]

MAX_COLLECTED: Final = 1024
"""The number of collected events at which they are processed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemSnapshot:
    """A snapshot of one output item: the part that was received so far."""

    output_index: int
    """The position of the item in the output."""
    item_id: str
    """The id of the item; empty if no event stated it."""
    text: str
    """Output text."""
    refusal: str
    """The text with which the model refuses."""
    reasoning_summary: str
    """The summary of the reasoning, parts joined by an empty line."""
    arguments: str
    """Arguments of a function or MCP call, or input of a custom tool."""
    item: wire.OutputItem | None
    """The finished item; `None` until then."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """A snapshot of a response: the output items that were received so far."""

    items: tuple[ItemSnapshot, ...]
    """The output items that events were received for, in the order of the output."""

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
class _PartialItem:
    """An output item that is being received: its texts by kind and part, in pieces."""

    item_id: str = ""
    pieces: dict[tuple[str, int], list[str]] = field(default_factory=dict[Any, Any])
    done: wire.OutputItemDone | None = None

    def snapshot(self, index: int) -> ItemSnapshot:
        item = self.done.item if self.done is not None else None
        finished = _finished_texts(item)
        return ItemSnapshot(
            output_index=index,
            item_id=self.item_id,
            text=finished.get("text") or self._join_texts("text"),
            refusal=finished.get("refusal") or self._join_texts("refusal"),
            reasoning_summary=finished.get("summary") or self._join_texts("summary", "\n\n"),
            arguments=finished.get("arguments") or self._join_texts("arguments"),
            item=item,
        )

    def _join_texts(self, kind: str, separator: str = "") -> str:
        own = ((part, pieces) for (of, part), pieces in self.pieces.items() if of == kind)
        parts = sorted(own)
        return separator.join("".join(pieces) for _, pieces in parts)


def _finished_texts(item: wire.OutputItem | None) -> dict[str, str]:
    """Return the texts of a finished item, by kind. Some servers send them in no other event."""
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
    """An accumulator of the events of one response, for its snapshots and its final output.

    :param keep_text: whether the pieces of text are kept for `snapshot`. The final Response
        needs none of them.
    """

    def __init__(self, *, keep_text: bool = True) -> None:
        self._items: dict[int, _PartialItem] = {}
        self._rules = _ALL_RULES if keep_text else _ITEM_RULES
        self._max_collected = MAX_COLLECTED if keep_text else 1
        self._collected: list[wire.ServerEvent] = []

    def feed(self, events: Sequence[wire.ServerEvent]) -> None:
        """Add the next events of the response."""
        self._collected += events
        if len(self._collected) >= self._max_collected:
            self._apply_rules()

    def _apply_rules(self) -> None:
        for kind, events in groupby(self._collected, type):
            rule = self._rules.get(kind)
            if rule is not None:
                rule(self, events)
        self._collected.clear()

    def finish(self, response: wire.Response) -> wire.Response:
        """Return the final Response, with the finished items in place of an omitted output."""
        if response.raw_output:
            return response
        self._apply_rules()
        done = [item.done.raw_item for _, item in sorted(self._items.items()) if item.done]
        return response.with_output(done) if done else response

    def snapshot(self) -> Snapshot:
        """Return the items that were received so far."""
        self._apply_rules()
        return Snapshot(
            items=tuple(item.snapshot(index) for index, item in sorted(self._items.items()))
        )

    def _item_at(self, index: int, item_id: str | None) -> _PartialItem:
        item = self._items.get(index)
        if item is None:
            item = self._items[index] = _PartialItem()
        if item_id and not item.item_id:
            item.item_id = item_id
        return item

    def _on_text_deltas(self, events: Iterable[wire.OutputTextDelta]) -> None:
        """Add pieces of text. Most events are such pieces, and most belong to the same part."""
        index, part = -1, -1
        pieces: list[str] = []
        for event in events:
            if event.output_index != index or event.content_index != part:
                index, part = event.output_index, event.content_index
                item = self._item_at(index, event.item_id)
                pieces = item.pieces.setdefault(("text", part), [])
            pieces.append(event.delta)

    def _on_item_added(self, events: Iterable[Any]) -> None:
        for event in events:
            self._item_at(event.output_index, getattr(event.item, "id", None))

    def _on_item_done(self, events: Iterable[Any]) -> None:
        for event in events:
            self._item_at(event.output_index, getattr(event.item, "id", None)).done = event


Rule: TypeAlias = "Callable[[Accumulator, Iterable[Any]], None]"
"""Processes consecutive events of one type."""


def _make_append_rule(kind: str, part: str | None) -> Rule:
    """Return a rule for events that append a piece of text to a part.

    :param part: the field with the number of the part, if the text has several.
    """

    def rule(accumulator: Accumulator, events: Iterable[Any]) -> None:
        for event in events:
            item = accumulator._item_at(event.output_index, event.item_id)  # noqa: SLF001 - a rule of the class
            place = (kind, getattr(event, part) if part is not None else 0)
            item.pieces.setdefault(place, []).append(event.delta)

    return rule


def _make_replace_rule(kind: str, part: str | None, source: str) -> Rule:
    """Return a rule for events that contain the whole text of a part, which replaces its pieces.

    :param part: the field with the number of the part, if the text has several.
    :param source: the field with the text.
    """

    def rule(accumulator: Accumulator, events: Iterable[Any]) -> None:
        for event in events:
            item = accumulator._item_at(event.output_index, event.item_id)  # noqa: SLF001 - a rule of the class
            place = (kind, getattr(event, part) if part is not None else 0)
            item.pieces[place] = [getattr(event, source)]

    return rule


_ITEM_RULES: dict[type, Rule] = {
    wire.OutputItemAdded: Accumulator._on_item_added,  # noqa: SLF001 - the table belongs to the class
    wire.OutputItemDone: Accumulator._on_item_done,  # noqa: SLF001 - likewise
}
_ALL_RULES: dict[type, Rule] = {
    **_ITEM_RULES,
    wire.OutputTextDelta: Accumulator._on_text_deltas,  # noqa: SLF001 - likewise
    wire.OutputTextDone: _make_replace_rule("text", "content_index", "text"),
    wire.RefusalDelta: _make_append_rule("refusal", "content_index"),
    wire.RefusalDone: _make_replace_rule("refusal", "content_index", "refusal"),
    wire.ReasoningSummaryTextDelta: _make_append_rule("summary", "summary_index"),
    wire.ReasoningSummaryTextDone: _make_replace_rule("summary", "summary_index", "text"),
    wire.FunctionCallArgumentsDelta: _make_append_rule("arguments", None),
    wire.FunctionCallArgumentsDone: _make_replace_rule("arguments", None, "arguments"),
    wire.McpCallArgumentsDelta: _make_append_rule("arguments", None),
    wire.McpCallArgumentsDone: _make_replace_rule("arguments", None, "arguments"),
    wire.CustomToolCallInputDelta: _make_append_rule("arguments", None),
    wire.CustomToolCallInputDone: _make_replace_rule("arguments", None, "input"),
}
