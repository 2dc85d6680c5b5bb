"""Accumulation of the events of one response: snapshots while it is active, and the Response.

Most readers take the text from the events and never read a snapshot. So events are collected, and
processed when a snapshot is read or when many have been collected.

* The output of the terminal event wins. If the event omits it, the finished items are the output
  (docs/protocol.md, 3), and so is a call of a completed response that no event finished.
* A field of `FILLED` that is missing or empty in an item is filled: in the terminal event from the
  finished item, in a finished item from the events with its text, else from the event that added
  the item.
* Items are told apart by ``output_index`` and by id: some servers number all items 0, others have a
  new id in each event (`Accumulator._item_at`).
* The event that adds an item may be missing over a socket, so every event about an item adds it.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from itertools import compress, groupby
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

import msgspec

from trio_responses import _wire as wire
from trio_responses._wire import lenient

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

__all__ = ["Accumulator", "ItemSnapshot", "PartialItem", "Snapshot"]

MAX_COLLECTED: Final = 1024
"""The number of collected events at which they are processed."""
ARGUMENTS: Final = ("arguments", 0)
"""The place of the pieces of arguments: they are one text, without parts."""


class _Filling(NamedTuple):
    """How a field of an item is filled that is missing or empty."""

    field: str
    from_pieces: bool = True
    """Whether the pieces of arguments are its text."""
    may_be_unfinished: bool = False
    """Whether the item counts in a completed response in which no event finished it."""


FILLED: Final = {
    "function_call": _Filling("arguments", may_be_unfinished=True),
    "custom_tool_call": _Filling("input", may_be_unfinished=True),
    "mcp_call": _Filling("arguments"),
    "mcp_approval_request": _Filling("arguments", from_pieces=False),
    "message": _Filling("content", from_pieces=False),
}
"""The field that is filled, by the type of the item."""
OutputItemEvent: TypeAlias = wire.OutputItemAdded | wire.OutputItemDone
"""An event with a whole item."""
EMPTY: Final = frozenset({b"", b"null", b'""', b"[]"})
"""The JSON of a field that is missing or empty."""
MAX_EMPTY: Final = max(map(len, EMPTY))


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemSnapshot:
    """A snapshot of one output item: the part that was received so far."""

    output_index: int
    """The position of the item in the output."""
    item_id: str
    """The id of the item; empty if no event stated it."""
    phase: str | None
    """The phase of a message: ``commentary``, ``final_answer`` or another word; `None` if no event
    stated it."""
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
        """The output text of all items, joined, commentary included."""
        return "".join(item.text for item in self.items)

    @property
    def final_text(self) -> str:
        """The text of the answer, without commentary, by the rule of ``Response.final_text``."""
        return "".join(item.text for item in wire.select_answers(self.items))

    @property
    def refusal(self) -> str:
        """The refusals of all items, joined."""
        return "".join(item.refusal for item in self.items)

    @property
    def reasoning_summary(self) -> str:
        """The reasoning summaries of all items, joined by an empty line."""
        return "\n\n".join(item.reasoning_summary for item in self.items if item.reasoning_summary)


class _ItemFields(msgspec.Struct):
    """The fields of an item that identify it, and those that may be filled."""

    type: str = ""
    id: str | None = None
    call_id: str | None = None
    arguments: msgspec.Raw = msgspec.Raw()
    input: msgspec.Raw = msgspec.Raw()
    content: msgspec.Raw = msgspec.Raw()

    @property
    def filling(self) -> _Filling | None:
        """How the item is filled; `None` if nothing of it is missing."""
        filling = FILLED.get(self.type)
        if filling is None:
            return None
        value = getattr(self, filling.field)  # a large one is not copied to be compared
        return filling if len(value) <= MAX_EMPTY and bytes(value) in EMPTY else None


_decoder: Final = msgspec.json.Decoder(_ItemFields)


def _fields_of(raw: msgspec.Raw) -> _ItemFields:
    """Return the fields of an item of an event; the levels of the event's frame were checked."""
    try:
        fields = _decoder.decode(raw)
    except wire.DECODE_ERRORS:
        fields = _read_leniently(raw)
    return fields


def _read_leniently(raw: msgspec.Raw) -> _ItemFields:
    """Return the fields of an item of another shape; a field of a wrong type counts as missing."""
    try:
        return lenient.decode_struct(raw, _ItemFields)
    except wire.DECODE_ERRORS:  # no object
        return _ItemFields()


@dataclass(slots=True)
class PartialItem:
    """An output item that is being received: its texts by kind and part, in pieces."""

    index: int
    item_id: str = ""
    pieces: dict[tuple[str, int], list[str]] = field(default_factory=dict[Any, Any])
    added: wire.OutputItemAdded | None = None
    done: wire.OutputItemDone | None = None
    raw_item: msgspec.Raw | None = None
    """The finished item, filled; `None` until then."""

    @property
    def phase(self) -> str | None:
        """The phase of a message, from the event that finished it, else from the first one."""
        items = [event.item for event in (self.done, self.added) if event is not None]
        phases = [item.phase for item in items if isinstance(item, wire.Message)]
        return next((phase for phase in phases if phase is not None), None)

    @property
    def is_message(self) -> bool:
        """Whether the item is a message: an event stated so, or had a part of its text."""
        items = [event.item for event in (self.done, self.added) if event is not None]
        texts = any(kind in {"text", "refusal"} for kind, _ in self.pieces)
        return texts or any(isinstance(item, wire.Message) for item in items)

    @property
    def item(self) -> wire.OutputItem | None:
        """The finished item, filled; `None` until then."""
        if self.done is None or self.raw_item is None:
            return None
        is_filled = self.raw_item is not self.done.raw_item
        return wire.decode_item(self.raw_item) if is_filled else self.done.item

    def finish(self, event: wire.OutputItemDone) -> None:
        """Take the finished item. The pieces of its arguments are not needed any more."""
        self.raw_item = self.fill(event.raw_item)
        self.done = event
        self.pieces.pop(ARGUMENTS, None)

    def finish_call(self) -> msgspec.Raw | None:
        """Return the finished item, or a call that no event finished; `None` for other items."""
        if self.raw_item is None and self.added is not None:
            filling = FILLED.get(_fields_of(self.added.raw_item).type)
            if filling is not None and filling.may_be_unfinished:
                return _replace(self.fill(self.added.raw_item), "status", b'"completed"')
        return self.raw_item

    def fill(self, raw: msgspec.Raw) -> msgspec.Raw:
        """Return an item with the field that is missing in it, if another event had the field."""
        filling = _fields_of(raw).filling
        value = self._value_of(filling) if filling is not None else b""
        return _replace(raw, filling.field, value) if filling is not None and value else raw

    def _value_of(self, filling: _Filling) -> bytes:
        """Return the JSON of a field, as the other events about the item had it."""
        values = [self.raw_item, self.added.raw_item if self.added is not None else None]
        known = [bytes(getattr(_fields_of(raw), filling.field)) for raw in values if raw]
        pieces = self._join_texts("arguments") if filling.from_pieces else ""
        if pieces:
            known.insert(self.raw_item is not None, msgspec.json.encode(pieces))
        return next((value for value in known if value not in EMPTY), b"")

    def snapshot(self) -> ItemSnapshot:
        item = self.item
        finished = _finished_texts(item)
        return ItemSnapshot(
            output_index=self.index,
            item_id=self.item_id,
            phase=self.phase,
            text=finished.get("text") or self._join_texts("text"),
            refusal=finished.get("refusal") or self._join_texts("refusal"),
            reasoning_summary=finished.get("summary") or self._join_texts("summary", "\n\n"),
            arguments=finished.get("arguments") or self._join_texts("arguments"),
            item=item,
        )

    def text_parts(self) -> list[tuple[int, list[str]]]:
        """Return the parts of the output text in order: the number of each, and its pieces."""
        of_text = [key for key in self.pieces if key[0] == "text"]
        return [(key[1], self.pieces[key]) for key in sorted(of_text)]

    def _join_texts(self, kind: str, separator: str = "") -> str:
        own = ((part, pieces) for (of, part), pieces in self.pieces.items() if of == kind)
        parts = sorted(own)
        return separator.join("".join(pieces) for _, pieces in parts)


class _Sources:
    """The items that the events are about, to be found for the items of the terminal event.

    Two items are the same if they have the same call id, else the same id, else the same position;
    what is stated on one side alone does not count. If an id occurs more than once, the position
    has to be the same as well: a call never gets the arguments of another one.

    :param items: the items that the events are about.
    :param output: the items of the terminal event.
    """

    def __init__(self, items: Sequence[PartialItem], output: Sequence[_ItemFields]) -> None:
        self._output = output
        self._repeated = Counter(key for item in output for key in _keys(item.call_id, item.id))
        self._by_key: dict[tuple[Any, ...], tuple[_ItemFields, PartialItem] | None] = {}
        for item in items:
            event = item.done or item.added
            own = _fields_of(event.raw_item) if event is not None else _ItemFields()
            keys = _keys(own.call_id, item.item_id)
            for key in (*keys, *((*key, item.index) for key in keys), (item.index,)):
                self._by_key[key] = None if key in self._by_key else (own, item)

    def fill(self, raw: msgspec.Raw, position: int) -> msgspec.Raw:
        """Return an item of the terminal event, filled from the events about the same item."""
        fields = self._output[position]
        if fields.filling is None:
            return raw
        keys: list[tuple[Any, ...]] = []
        for key in _keys(fields.call_id, fields.id):
            keys += [(*key, position), key] if self._repeated[key] == 1 else [(*key, position)]
        for key in (*keys, (position,)):
            own, item = self._by_key.get(key) or (fields, None)
            if item is not None and own.type in {fields.type, ""}:
                differ = own.call_id and fields.call_id and own.call_id != fields.call_id
                moved = len(key) == 1 and item.item_id and fields.id and item.item_id != fields.id
                if not differ and not moved:
                    return item.fill(raw)
        return raw


def _keys(call_id: str | None, item_id: str | None) -> list[tuple[str, str]]:
    return [(kind, name) for kind, name in (("call", call_id), ("item", item_id)) if name]


def _replace(raw: msgspec.Raw, name: str, value: bytes) -> msgspec.Raw:
    """Return a JSON object with another value of a field, and with all other fields as they are."""
    fields = msgspec.json.decode(raw, type=dict[str, msgspec.Raw])
    return msgspec.Raw(msgspec.json.encode({**fields, name: msgspec.Raw(value)}))


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

    :param keep_text: whether the pieces of all texts are kept for `snapshot`. The final Response
        needs those of arguments alone.
    """

    def __init__(self, *, keep_text: bool = True) -> None:
        self._items: list[PartialItem] = []
        """All items, in the order of their first events."""
        self._by_id: dict[tuple[int, str], PartialItem] = {}
        self._latest: dict[int, PartialItem] = {}
        """The item of the latest start at each ``output_index``."""
        self._keeps_text = keep_text
        self._collected: list[wire.ServerEvent] = []
        """Events that are processed when a result needs them, or when they are many."""

    def feed(self, events: Sequence[wire.ServerEvent]) -> None:
        """Add the next events of the response."""
        if self._keeps_text:
            self._collected += events
        else:
            is_about_item = map(_ITEM_RULES.__contains__, map(type, events))
            self._collected += compress(events, is_about_item)
        if len(self._collected) >= MAX_COLLECTED:
            self._apply_rules()

    def _apply_rules(self) -> None:
        for kind, events in groupby(self._collected, type):
            rule = _ALL_RULES.get(kind)
            if rule is not None:
                rule(self, events)
        self._collected.clear()

    def finish(self, response: wire.Response) -> wire.Response:
        """Return the final Response: its omitted output and empty fields are filled."""
        output = response.raw_output
        if not output:
            self._apply_rules()
            completed = response.status == "completed"
            found = [one.finish_call() if completed else one.raw_item for one in self._in_order()]
            done = [raw for raw in found if raw is not None]
            return response.with_output(done) if done else response
        fields: list[_ItemFields] = []
        is_complete = True
        for raw in output:
            one = _fields_of(raw)
            fields.append(one)
            is_complete = is_complete and one.filling is None
        if is_complete:
            return response
        self._apply_rules()
        sources = _Sources(self._items, fields)
        filled = [sources.fill(raw, position) for position, raw in enumerate(output)]
        changed = any(new is not old for new, old in zip(filled, output, strict=True))
        return response.with_output(filled) if changed else response

    def snapshot(self) -> Snapshot:
        """Return the items that were received so far."""
        self._apply_rules()
        return Snapshot(items=tuple(item.snapshot() for item in self._in_order()))

    def phase_of(self, index: int, item_id: str | None) -> str | None:
        """Return the phase of the message at an ``output_index``; `None` if no event stated it."""
        self._apply_rules()
        item = self._by_id.get((index, item_id or "")) or self._latest.get(index)
        return item.phase if item is not None else None

    def last_answer(self) -> PartialItem | None:
        """Return the last message of the answer so far, as ``Response.answer_messages`` has it."""
        self._apply_rules()
        messages = [item for item in self._in_order() if item.is_message]
        answers = wire.select_answers(messages)
        return answers[-1] if answers else None

    def _in_order(self) -> list[PartialItem]:
        """Return the items in the order of the output, which their first events may not have."""
        return sorted(self._items, key=attrgetter("index"))

    def _item_at(
        self, index: int, item_id: str | None, event: OutputItemEvent | None = None
    ) -> PartialItem:
        """Return the item that an event is about: a known one, or a new one.

        An id that is not known at the index may be the next item of a server that numbers all
        items 0, or the same item of a server that has a new id in each event. It is the next item
        if the latest one is finished, or if the event starts an item (`_is_next`).

        :param event: the event, if it has the whole item.
        """
        item = self._by_id.get((index, item_id)) if item_id else None
        if item is None:
            item = self._latest.get(index)
            if item is None or _is_next(item, item_id, event):
                item = self._latest[index] = PartialItem(index)
                self._items.append(item)
            if item_id and not item.item_id:
                item.item_id = item_id
                self._by_id[index, item_id] = item
        return item

    def _on_text_deltas(self, events: Iterable[wire.OutputTextDelta]) -> None:
        """Add pieces of text. Most events are such pieces, and most belong to the same part."""
        index, part, item_id = -1, -1, ""
        pieces: list[str] = []
        for event in events:
            if (
                event.output_index != index
                or event.content_index != part
                or event.item_id != item_id
            ):
                index, part, item_id = event.output_index, event.content_index, event.item_id
                item = self._item_at(index, item_id)
                pieces = item.pieces.setdefault(("text", part), [])
            pieces.append(event.delta)

    def _on_item_added(self, events: Iterable[wire.OutputItemAdded]) -> None:
        for event in events:
            item = self._item_at(event.output_index, _id_of(event), event)
            item.added = event

    def _on_item_done(self, events: Iterable[wire.OutputItemDone]) -> None:
        for event in events:
            item = self._item_at(event.output_index, _id_of(event), event)
            item.finish(event)


def _id_of(event: OutputItemEvent) -> str | None:
    """Return the id of the item of an event, also if nothing else of the item can be read."""
    item = event.item
    if isinstance(item, wire.UnknownItem):
        return _fields_of(event.raw_item).id
    return item.id


def _is_next(latest: PartialItem, item_id: str | None, event: OutputItemEvent | None) -> bool:
    """Whether an event with an unknown id, or with none, starts the next item at its index."""
    match event:
        case wire.OutputItemAdded():
            started = latest.added is not None or latest.done is not None
            return started or bool(item_id and latest.item_id)
        case wire.OutputItemDone():
            repeats = latest.done is not None and latest.done.raw_item == event.raw_item
            return latest.done is not None and not repeats
        case _:
            return latest.done is not None and bool(item_id)


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

    An empty text replaces none: some servers leave it out there.

    :param part: the field with the number of the part, if the text has several.
    :param source: the field with the text.
    """

    def rule(accumulator: Accumulator, events: Iterable[Any]) -> None:
        for event in events:
            item = accumulator._item_at(event.output_index, event.item_id)  # noqa: SLF001 - a rule of the class
            place = (kind, getattr(event, part) if part is not None else 0)
            text = getattr(event, source)
            if text or place not in item.pieces:
                item.pieces[place] = [text]

    return rule


_ITEM_RULES: dict[type, Rule] = {
    wire.OutputItemAdded: Accumulator._on_item_added,  # noqa: SLF001 - the table belongs to the class
    wire.OutputItemDone: Accumulator._on_item_done,  # noqa: SLF001 - likewise
    wire.FunctionCallArgumentsDelta: _make_append_rule("arguments", None),
    wire.FunctionCallArgumentsDone: _make_replace_rule("arguments", None, "arguments"),
    wire.McpCallArgumentsDelta: _make_append_rule("arguments", None),
    wire.McpCallArgumentsDone: _make_replace_rule("arguments", None, "arguments"),
    wire.CustomToolCallInputDelta: _make_append_rule("arguments", None),
    wire.CustomToolCallInputDone: _make_replace_rule("arguments", None, "input"),
}
"""The rules for the final Response, which needs the arguments of calls and no other text."""
_ALL_RULES: dict[type, Rule] = {
    **_ITEM_RULES,
    wire.OutputTextDelta: Accumulator._on_text_deltas,  # noqa: SLF001 - likewise
    wire.OutputTextDone: _make_replace_rule("text", "content_index", "text"),
    wire.RefusalDelta: _make_append_rule("refusal", "content_index"),
    wire.RefusalDone: _make_replace_rule("refusal", "content_index", "refusal"),
    wire.ReasoningSummaryTextDelta: _make_append_rule("summary", "summary_index"),
    wire.ReasoningSummaryTextDone: _make_replace_rule("summary", "summary_index", "text"),
}
