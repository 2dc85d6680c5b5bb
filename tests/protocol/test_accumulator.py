"""The accumulated events of a response, compared with the response that they were made from.

A random response is sent as events in the ways of a server: in pieces of any size, with items
interleaved, and with many events omitted.
"""

from __future__ import annotations

import json
import tracemalloc
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trio_responses import _wire as wire
from trio_responses._protocol.accumulator import MAX_COLLECTED, Accumulator, Snapshot

if TYPE_CHECKING:
    from trio_responses._protocol.accumulator import ItemSnapshot

JSONObject: TypeAlias = "dict[str, Any]"

OMITTED = object()


def feed(accumulator: Accumulator, *frames: JSONObject) -> None:
    for frame in frames:
        accumulator.feed([wire.decode(json.dumps(frame).encode())])


def finish(accumulator: Accumulator, output: Any = OMITTED, **fields: Any) -> wire.Response:
    response = {"id": "resp_1", "status": "completed", **fields}
    if output is not OMITTED:
        response["output"] = output
    frame = {"type": "response.completed", "response": response}
    event = wire.decode(json.dumps(frame).encode())
    assert isinstance(event, wire.ResponseCompleted)
    accumulator.feed([event])
    return accumulator.finish(event.response)


def output_of(response: wire.Response) -> list[JSONObject] | None:
    """Return the output as JSON."""
    if response.raw_output is None:
        return None
    return [json.loads(bytes(raw)) for raw in response.raw_output]


# --- Random responses as events ---------------------------------------------------------------

TEXT, REFUSAL, SUMMARY, ARGUMENTS = "text", "refusal", "reasoning_summary", "arguments"

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
IDS = st.sampled_from(["one", "two", "three"])
EXTRAS = st.dictionaries(
    st.sampled_from(["x_new", "x_phase"]),
    st.none() | st.integers(-9, 9) | st.lists(TEXTS, max_size=2) | st.just({"type": "message"}),
)


@dataclass
class Part:
    """A text of an item, and the events for it."""

    kind: str
    text: str
    events: str
    """The prefix of their types."""
    whole: str = "text"
    """The field of the event with the whole text."""
    place: JSONObject = field(default_factory=dict[str, Any])
    added: JSONObject | None = None
    """The content of the events that add and finish the part."""


@dataclass
class ItemInParts:
    """An output item and its parts."""

    item: JSONObject
    parts: list[Part]


def _message_part(index: int, kind: str, text: str, extra: JSONObject) -> tuple[Part, JSONObject]:
    place = {"content_index": index}
    if kind == TEXT:
        content: JSONObject = {"type": "output_text", "text": text, "annotations": [], **extra}
        return Part(kind, text, "response.output_text", place=place, added=content), content
    content = {"type": "refusal", "refusal": text, **extra}
    return Part(kind, text, "response.refusal", "refusal", place, content), content


@st.composite
def messages(draw: st.DrawFn) -> ItemInParts:
    kinds = draw(st.lists(st.sampled_from([TEXT, TEXT, REFUSAL]), max_size=3))
    parts = [_message_part(at, kind, draw(TEXTS), draw(EXTRAS)) for at, kind in enumerate(kinds)]
    item = {"type": "message", "role": "assistant", "content": [content for _, content in parts]}
    return ItemInParts(item, [part for part, _ in parts])


@st.composite
def reasonings(draw: st.DrawFn) -> ItemInParts:
    texts = draw(st.lists(TEXTS, max_size=3))
    summary = [{"type": "summary_text", "text": text} for text in texts]
    parts = [
        Part(SUMMARY, text, "response.reasoning_summary_text", place={"summary_index": at})
        for at, text in enumerate(texts)
    ]
    return ItemInParts(
        {"type": "reasoning", "summary": summary, "encrypted_content": "gAAA"}, parts
    )


@st.composite
def calls(draw: st.DrawFn) -> ItemInParts:
    text = draw(TEXTS)
    kind = draw(st.sampled_from(["function_call", "mcp_call", "custom_tool_call"]))
    source = "input" if kind == "custom_tool_call" else "arguments"
    part = Part(ARGUMENTS, text, f"response.{kind}_{source}", source)
    return ItemInParts({"type": kind, "call_id": "call_1", "name": "look", source: text}, [part])


@st.composite
def unknown_items(draw: st.DrawFn) -> ItemInParts:
    return ItemInParts({"type": "hologram", "depth": draw(st.integers())}, [])


@st.composite
def items_in_parts(draw: st.DrawFn) -> ItemInParts:
    item_in_parts = draw(messages() | reasonings() | calls() | unknown_items())
    item_in_parts.item = {"id": draw(IDS), **item_in_parts.item, **draw(EXTRAS)}
    return item_in_parts


@st.composite
def pieces(draw: st.DrawFn, text: str) -> list[str]:
    cuts = sorted(draw(st.lists(st.integers(0, len(text)), max_size=4)))
    return [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]


@dataclass
class ItemEvent:
    """One event, and the texts of its item after the event."""

    frame: JSONObject
    known: dict[tuple[str, int], str] | None
    """The texts by kind and part; `None` if the event has no piece of its item."""
    finished: bool = False


@st.composite
def events_of_item(
    draw: st.DrawFn, item_in_parts: ItemInParts, index: int, *, finished: bool
) -> list[ItemEvent]:
    """Return events of an item, all or some; the pieces of a text are complete or omitted."""
    item_events: list[ItemEvent] = []
    known: dict[tuple[str, int], str] = {}
    of_item = {"output_index": index, "item_id": item_in_parts.item["id"]}

    def add(type_: str, frame: JSONObject, *, counts: bool = True) -> None:
        event = {"type": type_, "output_index": index, **frame}
        item_events.append(ItemEvent(event, dict(known) if counts else None))

    if draw(st.booleans()):
        add("response.output_item.added", {"item": {**item_in_parts.item, "status": "in_progress"}})
    for at, part in enumerate(item_in_parts.parts):
        place = (part.kind, at)
        where = {**of_item, **part.place}
        if part.added and draw(st.booleans()):
            add("response.content_part.added", {**where, "part": part.added}, counts=False)
        if draw(st.booleans()):
            for piece in draw(pieces(part.text)):
                known[place] = known.get(place, "") + piece
                add(f"{part.events}.delta", {**where, "delta": piece})
        if draw(st.booleans()):
            known[place] = part.text
            add(f"{part.events}.done", {**where, part.whole: part.text})
        if part.added and draw(st.booleans()):
            add("response.content_part.done", {**where, "part": part.added}, counts=False)
    if finished:
        known.update({(part.kind, at): part.text for at, part in enumerate(item_in_parts.parts)})
        add("response.output_item.done", {"item": item_in_parts.item})
        item_events[-1].finished = True
    return item_events


@st.composite
def interleaved(draw: st.DrawFn, items: list[ItemInParts], *, finished: bool) -> list[ItemEvent]:
    item_in_parts = [
        draw(events_of_item(item, at, finished=finished)) for at, item in enumerate(items)
    ]
    order: list[ItemEvent] = []
    while any(item_in_parts):
        order.append(draw(st.sampled_from([one for one in item_in_parts if one])).pop(0))
    return order


def texts_of(known: dict[tuple[str, int], str], kind: str) -> list[str]:
    return [text for (of, _), text in sorted(known.items()) if of == kind]


def expected_item(index: int, known: dict[tuple[str, int], str]) -> JSONObject:
    return {
        "output_index": index,
        TEXT: "".join(texts_of(known, TEXT)),
        REFUSAL: "".join(texts_of(known, REFUSAL)),
        SUMMARY: "\n\n".join(texts_of(known, SUMMARY)),
        ARGUMENTS: "".join(texts_of(known, ARGUMENTS)),
    }


def shown(item: ItemSnapshot) -> JSONObject:
    return {
        name: getattr(item, name) for name in ("output_index", TEXT, REFUSAL, SUMMARY, ARGUMENTS)
    }


OUTPUTS = st.sampled_from(["full", "empty", "null", "left out"])


class TestRandomResponses:
    @settings(deadline=None, max_examples=100)
    @given(st.data(), st.lists(items_in_parts(), max_size=4), OUTPUTS, st.booleans())
    def test_the_events_of_a_response_accumulate_to_the_response(
        self,
        data: st.DataObject,
        items: list[ItemInParts],
        terminal: str,
        keep_text: bool,  # noqa: FBT001
    ) -> None:
        """Row 20 of docs/problems.md: the terminal event or the finished items have the output."""
        accumulator = Accumulator(keep_text=keep_text)
        finished = terminal != "full" or data.draw(st.booleans())
        for item_event in data.draw(interleaved(items, finished=finished)):
            feed(accumulator, item_event.frame)
        output = [item_in_parts.item for item_in_parts in items]
        if terminal == "full":
            output = [{**item, "x_last": True} for item in output]
        ends = {"full": output, "empty": [], "null": None, "left out": OMITTED}
        response = finish(accumulator, ends[terminal], usage={"input_tokens": 3}, model="m")
        assert (output_of(response) or []) == output
        assert (response.id, response.status, response.model) == ("resp_1", "completed", "m")
        assert response.usage == wire.Usage(input_tokens=3)
        assert len(response.output) == len(items)

    @settings(deadline=None, max_examples=100)
    @given(st.data(), st.lists(items_in_parts(), max_size=4), st.booleans())
    def test_a_snapshot_has_the_texts_received_so_far(
        self,
        data: st.DataObject,
        items: list[ItemInParts],
        finished: bool,  # noqa: FBT001
    ) -> None:
        accumulator = Accumulator()
        known: dict[int, JSONObject] = {}
        done: set[int] = set()
        for item_event in data.draw(interleaved(items, finished=finished)):
            feed(accumulator, item_event.frame)
            index = item_event.frame["output_index"]
            if item_event.known is not None:
                known[index] = expected_item(index, item_event.known)
            if item_event.finished:
                done.add(index)
            snapshot = accumulator.snapshot()
            assert [shown(item) for item in snapshot.items] == [known[at] for at in sorted(known)]
            assert {item.output_index for item in snapshot.items if item.item is not None} == done

    @settings(deadline=None, max_examples=50)
    @given(st.data(), st.lists(items_in_parts(), min_size=1, max_size=4))
    def test_without_text_a_snapshot_has_finished_items_only(
        self, data: st.DataObject, items: list[ItemInParts]
    ) -> None:
        accumulator = Accumulator(keep_text=False)
        for item_event in data.draw(interleaved(items, finished=True)):
            feed(accumulator, item_event.frame)
            for item in accumulator.snapshot().items:
                if item.item is None:
                    assert not any(shown(item)[kind] for kind in (TEXT, REFUSAL, SUMMARY))
            # Memory that no public attribute shows:
            places = {place for item in accumulator._items for place in item.pieces}
            assert places <= {("arguments", 0)}
            assert not any(item.pieces for item in accumulator._items if item.done is not None)
        assert len(accumulator.snapshot().items) == len(items)


# --- Examples ---------------------------------------------------------------------------------


def message(text: str, item_id: str = "msg_1") -> JSONObject:
    part: JSONObject = {"type": "output_text", "text": text, "annotations": []}
    return {"type": "message", "id": item_id, "role": "assistant", "content": [part]}


def delta(text: str, **fields: Any) -> JSONObject:
    return {"type": "response.output_text.delta", "delta": text, **fields}


def item_done(item: JSONObject, **fields: Any) -> JSONObject:
    return {"type": "response.output_item.done", "item": item, **fields}


@pytest.fixture
def accumulator() -> Accumulator:
    return Accumulator()


class TestTerminalEvents:
    @pytest.mark.parametrize("output", [[], None, OMITTED], ids=["empty", "null", "left out"])
    def test_finished_items_replace_a_missing_output(
        self, accumulator: Accumulator, output: object
    ) -> None:
        """Row 20 of docs/problems.md."""
        feed(accumulator, item_done(message("a"), output_index=0))
        response = finish(accumulator, output)
        assert output_of(response) == [message("a")]
        assert response.output_text == "a"

    def test_the_output_of_the_terminal_event_has_precedence(
        self, accumulator: Accumulator
    ) -> None:
        feed(accumulator, item_done(message("early")), item_done(message("b"), output_index=1))
        assert output_of(finish(accumulator, [message("late")])) == [message("late")]

    def test_a_terminal_event_alone_is_enough(self, accumulator: Accumulator) -> None:
        assert output_of(finish(accumulator, [message("a")])) == [message("a")]
        assert accumulator.snapshot() == Snapshot(items=())

    @pytest.mark.parametrize("output", [[], None], ids=["empty", "null"])
    def test_a_missing_output_is_not_invented(
        self, accumulator: Accumulator, output: object
    ) -> None:
        """Row 21 of docs/problems.md: `None` means unknown, an empty list means no output."""
        feed(accumulator, delta("half a"), {"type": "response.created", "response": {"id": "r"}})
        assert output_of(finish(accumulator, output)) == output

    def test_items_are_in_the_order_of_the_output(self, accumulator: Accumulator) -> None:
        items = [message(str(number), f"msg_{number}") for number in range(12)]
        for number in reversed(range(12)):
            feed(accumulator, item_done(items[number], output_index=number))
        assert output_of(finish(accumulator)) == items

    def test_a_decoded_output_is_not_cached_across_finish(self, accumulator: Accumulator) -> None:
        feed(accumulator, item_done(message("a")))
        bare = wire.Response(id="resp_1", raw_output=[])
        assert bare.output == ()
        assert accumulator.finish(bare).output_text == "a"
        assert bare.output_text == ""

    def test_items_keep_unknown_fields_and_types(self, accumulator: Accumulator) -> None:
        """P7: items are replayed unchanged."""
        odd = {"type": "hologram", "id": 7, "deep": {"er": [1, 2.50, None]}, "text": "é\u2028"}
        feed(accumulator, item_done(odd), item_done({**message("b"), "new": 1}, output_index=1))
        assert output_of(finish(accumulator)) == [odd, {**message("b"), "new": 1}]

    @pytest.mark.parametrize("item", [None, [], "text", {}, {"type": "message"}])
    def test_an_item_of_any_shape_raises_nothing(
        self, accumulator: Accumulator, item: object
    ) -> None:
        """P8: unexpected JSON is no error."""
        feed(accumulator, {"type": "response.output_item.done", "item": item})
        assert output_of(finish(accumulator)) == [item]
        (shown_item,) = accumulator.snapshot().items
        assert shown_item.item_id == shown_item.text == ""


class TestSnapshots:
    def test_text_without_position_and_id_belongs_to_the_first_item(
        self, accumulator: Accumulator
    ) -> None:
        feed(accumulator, delta("a"), delta("b", content_index=None), delta("c", output_index=0))
        (item,) = accumulator.snapshot().items
        assert (item.output_index, item.item_id, item.text) == (0, "", "abc")

    def test_the_first_id_of_an_item_counts(self, accumulator: Accumulator) -> None:
        feed(accumulator, delta("a"), delta("b", item_id="msg_1", content_index=1))
        feed(accumulator, delta("c", item_id="msg_2", content_index=2))
        feed(accumulator, item_done(message("abc", "msg_3")))
        assert accumulator.snapshot().items[0].item_id == "msg_1"

    @pytest.mark.parametrize("type_", ["response.output_item.added", "response.output_item.done"])
    def test_an_item_event_has_the_id_of_its_item(
        self, accumulator: Accumulator, type_: str
    ) -> None:
        feed(accumulator, {"type": type_, "item": message("a")})
        assert accumulator.snapshot().items[0].item_id == "msg_1"

    def test_parts_are_in_the_order_of_their_indexes(self, accumulator: Accumulator) -> None:
        feed(accumulator, delta("b", content_index=1), delta("a", content_index=0))
        assert accumulator.snapshot().text == "ab"

    def test_a_whole_text_replaces_its_pieces(self, accumulator: Accumulator) -> None:
        feed(accumulator, delta("a"), {"type": "response.output_text.done", "text": "A"})
        assert accumulator.snapshot().text == "A"

    def test_an_empty_whole_text_does_not_replace_pieces(self, accumulator: Accumulator) -> None:
        """Some servers leave the text out of the event that finishes it."""
        feed(accumulator, delta("a"), {"type": "response.output_text.done", "text": ""})
        assert accumulator.snapshot().text == "a"

    @pytest.mark.parametrize(
        ("kind", "event", "name"),
        [
            ("function_call", "response.function_call_arguments", "arguments"),
            ("mcp_call", "response.mcp_call_arguments", "arguments"),
            ("custom_tool_call", "response.custom_tool_call_input", "input"),
        ],
    )
    def test_an_empty_whole_text_does_not_replace_the_arguments_of_a_call(
        self, kind: str, event: str, name: str, accumulator: Accumulator
    ) -> None:
        call: JSONObject = {"type": kind, "id": 5, "call_id": "c", "name": "f", name: ""}
        feed(
            accumulator,
            {"type": f"{event}.delta", "delta": "{}"},
            {"type": f"{event}.done", name: ""},
            item_done(call),
        )
        assert output_of(finish(accumulator, [call])) == [{**call, name: "{}"}]

    def test_a_finished_item_replaces_its_pieces(self, accumulator: Accumulator) -> None:
        feed(accumulator, delta("a"), item_done(message("A")))
        assert accumulator.snapshot().text == "A"

    @pytest.mark.parametrize(
        ("item", "texts"),
        [
            (message("a"), {TEXT: "a"}),
            (
                {
                    "type": "message",
                    "role": "assistant",
                    "content": [{"type": "refusal", "refusal": "no"}],
                },
                {REFUSAL: "no"},
            ),
            (
                {
                    "type": "reasoning",
                    "summary": [{"type": "summary_text", "text": text} for text in ("why", "how")],
                },
                {SUMMARY: "why\n\nhow"},
            ),
            (
                {"type": "function_call", "call_id": "c", "name": "look", "arguments": "{}"},
                {ARGUMENTS: "{}"},
            ),
            ({"type": "mcp_call", "name": "look", "arguments": "{}"}, {ARGUMENTS: "{}"}),
            (
                {"type": "custom_tool_call", "call_id": "c", "name": "look", "input": "go"},
                {ARGUMENTS: "go"},
            ),
            ({"type": "hologram", "text": "a"}, {}),
        ],
    )
    def test_a_finished_item_is_enough(
        self, accumulator: Accumulator, item: JSONObject, texts: dict[str, str]
    ) -> None:
        feed(accumulator, item_done(item))
        (shown_item,) = accumulator.snapshot().items
        empty = {TEXT: "", REFUSAL: "", SUMMARY: "", ARGUMENTS: ""}
        assert shown(shown_item) == {"output_index": 0, **empty, **texts}

    def test_a_finished_item_without_texts_keeps_its_pieces(self, accumulator: Accumulator) -> None:
        feed(accumulator, delta("a"), item_done({"type": "message", "role": "assistant"}))
        assert accumulator.snapshot().text == "a"

    def test_the_texts_of_all_items_are_joined(self, accumulator: Accumulator) -> None:
        refusal = "response.refusal.delta"
        summary = "response.reasoning_summary_text.delta"
        feed(
            accumulator,
            {"type": summary, "delta": "why", "output_index": 0},
            delta("b", output_index=2),
            delta("a", output_index=1),
            {"type": refusal, "delta": "no, ", "output_index": 3},
            {"type": refusal, "delta": "never", "output_index": 4},
            {"type": summary, "delta": "how", "output_index": 5},
            {"type": summary, "delta": "when", "output_index": 5, "summary_index": 1},
        )
        snapshot = accumulator.snapshot()
        assert snapshot.text == "ab"
        assert snapshot.refusal == "no, never"
        assert snapshot.reasoning_summary == "why\n\nhow\n\nwhen"

    def test_a_snapshot_is_immutable(self, accumulator: Accumulator) -> None:
        feed(accumulator, delta("a"))
        before = accumulator.snapshot()
        feed(accumulator, delta("b"), item_done(message("ab")), item_done(message("c")))
        assert before.text == "a"
        assert before.items[0].item is None

    def test_other_events_change_nothing(self, accumulator: Accumulator) -> None:
        others = ("keepalive", "response.in_progress", "response.a_type_of_next_year", "error")
        feed(accumulator, *({"type": type_, "response": {"id": "resp_1"}} for type_ in others))
        accumulator.feed([wire.UndecodableFrame(raw=b"{", error="broken")])
        assert accumulator.snapshot() == Snapshot(items=())


class TestMemory:
    """P6: without snapshots no text is kept for them, but the arguments of unfinished calls."""

    TEXTS = ("output_text", "refusal", "reasoning_summary_text")
    CALLS = ("function_call_arguments", "mcp_call_arguments", "custom_tool_call_input")
    KINDS = (*TEXTS, *CALLS)

    def test_without_snapshots_pieces_take_no_memory(self) -> None:
        accumulator = Accumulator(keep_text=False)
        frames = [
            json.dumps({"type": f"response.{kind}.delta", "delta": "x" * 200}).encode()
            for kind in self.TEXTS
        ]
        accumulator.feed([wire.decode(frames[0])])
        tracemalloc.start()
        try:
            before, _ = tracemalloc.get_traced_memory()
            for frame in frames * 50:
                accumulator.feed([wire.decode(frame)])
            after, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert after - before < 2_000
        assert accumulator.snapshot() == Snapshot(items=())

    @pytest.mark.parametrize("kind", TEXTS)
    def test_without_snapshots_whole_texts_take_no_memory(self, kind: str) -> None:
        accumulator = Accumulator(keep_text=False)
        texts = {"text": "a", "refusal": "a", "arguments": "a", "input": "a"}
        feed(accumulator, {"type": f"response.{kind}.done", **texts})
        assert accumulator.snapshot() == Snapshot(items=())

    @pytest.mark.parametrize("kind", CALLS)
    def test_without_snapshots_a_finished_call_keeps_no_pieces(self, kind: str) -> None:
        accumulator = Accumulator(keep_text=False)
        for _ in range(50):
            feed(accumulator, {"type": f"response.{kind}.delta", "delta": "x" * 200})
        field, type_ = kind.rsplit("_", maxsplit=1)[-1], kind.rsplit("_", 1)[0]
        feed(accumulator, item_done({"type": type_, "call_id": "c", "name": "look", field: "{}"}))
        assert accumulator.snapshot().items[0].arguments == "{}"
        assert [item.pieces for item in accumulator._items] == [{}]

    def test_with_snapshots_texts_are_kept(self) -> None:
        accumulator = Accumulator()
        for at, kind in enumerate(self.KINDS):
            feed(accumulator, {"type": f"response.{kind}.delta", "delta": "x", "output_index": at})
        assert all("x" in shown(item).values() for item in accumulator.snapshot().items)
        assert len(accumulator.snapshot().items) == len(self.KINDS)

    def test_collected_events_do_not_grow_with_the_response(self) -> None:
        """Events are processed when a snapshot is read, or when many were collected."""
        accumulator = Accumulator()
        frame = json.dumps({"type": "response.output_text.delta", "delta": "xy"}).encode()
        for _ in range(5 * MAX_COLLECTED):
            accumulator.feed([wire.decode(frame)])
            # The only place where unprocessed events can be counted:
            assert len(accumulator._collected) < MAX_COLLECTED
        assert accumulator.snapshot().text == "xy" * 5 * MAX_COLLECTED
        assert accumulator._collected == []

    def test_without_snapshots_texts_are_not_even_collected(self) -> None:
        accumulator = Accumulator(keep_text=False)
        deltas = [{"type": f"response.{kind}.delta", "delta": "xy"} for kind in self.TEXTS]
        item = item_added({"type": "message", "id": "m"})
        accumulator.feed([wire.decode(json.dumps(one).encode()) for one in (*deltas, item)])
        # The only place where unprocessed events can be seen:
        assert [type(event) for event in accumulator._collected] == [wire.OutputItemAdded]


# --- Items that are told apart, and fields that are filled -------------------------------------


def item_added(item: JSONObject, **fields: Any) -> JSONObject:
    return {"type": "response.output_item.added", "item": item, **fields}


def call(arguments: Any, item_id: str = "fc_1", **fields: Any) -> JSONObject:
    item = {"type": "function_call", "id": item_id, "call_id": f"call_{item_id}", "name": "delete"}
    return {**item, "arguments": arguments, **fields}


def arguments_done(arguments: str, **fields: Any) -> JSONObject:
    type_ = "response.function_call_arguments.done"
    return {"type": type_, "arguments": arguments, **fields}


def arguments_delta(delta: str, **fields: Any) -> JSONObject:
    return {"type": "response.function_call_arguments.delta", "delta": delta, **fields}


def without(item: JSONObject, name: str) -> JSONObject:
    return {key: value for key, value in item.items() if key != name}


SAFE = '{"path":"/tmp/x","force":false}'
BOTH_MODES = pytest.mark.parametrize("keep_text", [True, False])


class TestItemsWithOneIndex:
    """Some servers number all items 0, others have a new id in each event."""

    @BOTH_MODES
    def test_items_with_one_index_and_different_ids_are_all_kept(
        self,
        keep_text: bool,  # noqa: FBT001
    ) -> None:
        accumulator = Accumulator(keep_text=keep_text)
        items = [message(str(number), f"msg_{number}") for number in range(3)]
        feed(accumulator, *(item_done(item, output_index=0) for item in items))
        assert output_of(finish(accumulator, [])) == items
        assert accumulator.snapshot().text == "012"

    def test_all_events_of_items_with_one_index_may_be_interleaved(
        self, accumulator: Accumulator
    ) -> None:
        ids = ["msg_a", "msg_b"]
        feed(accumulator, *(item_added(message("", item_id)) for item_id in ids))
        feed(accumulator, *(delta(f"{item_id} ", item_id=item_id) for item_id in ids * 2))
        assert accumulator.snapshot().text == "msg_a msg_a msg_b msg_b "
        done = [message("b", "msg_b"), message("a", "msg_a")]
        feed(accumulator, *map(item_done, done))
        assert output_of(finish(accumulator)) == done[::-1]

    def test_pieces_after_a_finished_item_belong_to_the_next_one(
        self, accumulator: Accumulator
    ) -> None:
        feed(accumulator, item_done(message("a", "msg_a")), delta("b", item_id="msg_b"))
        assert [item.text for item in accumulator.snapshot().items] == ["a", "b"]

    def test_a_late_piece_without_id_starts_no_item(self, accumulator: Accumulator) -> None:
        feed(accumulator, item_done(message("a", "msg_a")), delta("a"))
        assert accumulator.snapshot().text == "a"

    def test_items_without_ids_are_told_apart_by_their_ends(self, accumulator: Accumulator) -> None:
        items = [without(message(text), "id") for text in "abb"]
        for item in items[:2]:
            feed(accumulator, item_added(without(item, "content")), item_done(item))
        feed(accumulator, item_done(items[2]))  # the same one, received twice
        assert output_of(finish(accumulator)) == items[:2]

    def test_a_second_start_without_an_end_is_a_second_item(self, accumulator: Accumulator) -> None:
        for text in "ab":
            feed(accumulator, item_added({"type": "message", "role": "assistant"}), delta(text))
        assert [item.text for item in accumulator.snapshot().items] == ["a", "b"]

    def test_a_start_after_pieces_of_another_id_is_another_item(
        self, accumulator: Accumulator
    ) -> None:
        feed(accumulator, delta("a", item_id="msg_a"), item_added(message("", "msg_b")))
        feed(accumulator, delta("b", item_id="msg_b"))
        assert [item.text for item in accumulator.snapshot().items] == ["a", "b"]

    def test_new_ids_in_each_event_are_one_item(self, accumulator: Accumulator) -> None:
        feed(accumulator, item_added(message("", "msg_a")), delta("a", item_id="msg_b"))
        feed(accumulator, delta("b", item_id="msg_c"), item_done(message("ab", "msg_d")))
        assert accumulator.snapshot().text == "ab"
        assert len(accumulator.snapshot().items) == 1


class TestFilledFields:
    """A field that is missing or empty in an item is filled from the other events about it."""

    @BOTH_MODES
    @pytest.mark.parametrize("empty", ["", None, OMITTED], ids=["empty", "null", "left out"])
    @pytest.mark.parametrize(
        "events",
        [
            [arguments_done(SAFE, item_id="fc_1")],
            [arguments_delta(SAFE[:9]), arguments_delta(SAFE[9:])],
            [arguments_delta("lost"), arguments_done(SAFE)],
            [item_added(call(SAFE))],
        ],
        ids=["whole", "pieces", "both", "added"],
    )
    def test_arguments_that_came_in_other_events_fill_an_empty_call(
        self,
        events: list[JSONObject],
        empty: Any,
        keep_text: bool,  # noqa: FBT001
    ) -> None:
        for output in (OMITTED, [call("")], [without(call(""), "arguments")]):
            accumulator = Accumulator(keep_text=keep_text)
            item = call(empty) if empty is not OMITTED else without(call(""), "arguments")
            feed(accumulator, *events, item_done({**item, "new": 1.50}))
            shown_item = accumulator.snapshot().items[0]
            assert shown_item.arguments == SAFE
            assert isinstance(shown_item.item, wire.FunctionCall)
            assert shown_item.item.arguments == SAFE
            response = finish(accumulator, output)
            assert [one.arguments for one in response.function_calls] == [SAFE]
            if output is OMITTED:
                assert output_of(response) == [{**item, "new": 1.50, "arguments": SAFE}]

    def test_the_terminal_event_alone_may_lack_the_arguments(
        self, accumulator: Accumulator
    ) -> None:
        feed(accumulator, item_done(call(SAFE)))
        assert output_of(finish(accumulator, [call("")])) == [call(SAFE)]

    def test_arguments_that_are_there_have_precedence(self, accumulator: Accumulator) -> None:
        feed(accumulator, arguments_done("{}"), item_done(call(SAFE)))
        assert output_of(finish(accumulator, [call('{"a":1}')])) == [call('{"a":1}')]
        assert accumulator.snapshot().items[0].arguments == SAFE

    @pytest.mark.parametrize(
        ("type_", "event", "field"),
        [
            ("custom_tool_call", "custom_tool_call_input", "input"),
            ("mcp_call", "mcp_call_arguments", "arguments"),
        ],
    )
    def test_other_kinds_of_calls_are_filled_too(
        self, accumulator: Accumulator, type_: str, event: str, field: str
    ) -> None:
        item = {"type": type_, "id": "x", "call_id": "c", "name": "look", field: ""}
        feed(accumulator, {"type": f"response.{event}.delta", "delta": "go", "item_id": "x"})
        feed(accumulator, item_done(item))
        assert output_of(finish(accumulator, [item])) == [{**item, field: "go"}]

    def test_a_message_without_content_is_filled_from_the_finished_item(
        self, accumulator: Accumulator
    ) -> None:
        feed(accumulator, item_done(message("a")))
        assert output_of(finish(accumulator, [{**message(""), "content": []}])) == [message("a")]

    def test_nothing_fills_a_field_that_no_event_had(self, accumulator: Accumulator) -> None:
        feed(accumulator, item_done(call("")), item_done({**message(""), "content": None}))
        items = [call(""), {**message(""), "content": None}]
        assert output_of(finish(accumulator, items)) == items

    def test_each_call_gets_its_own_arguments(self, accumulator: Accumulator) -> None:
        """By the call id, whatever the indexes and ids are."""
        for at, name in enumerate("abc"):
            feed(accumulator, item_added(call("", f"fc_{name}")))
            feed(accumulator, arguments_done(f'{{"at":{at}}}', item_id=f"fc_{name}"))
        output = [call("", f"fc_{name}", id="new") for name in "cab"]
        assert [one["arguments"] for one in output_of(finish(accumulator, output)) or ()] == [
            '{"at":2}',
            '{"at":0}',
            '{"at":1}',
        ]

    @pytest.mark.parametrize(
        "output",
        [
            [call("", call_id="call_9")],
            [{**without(call(""), "call_id"), "id": "fc_9"}],
            [message("a"), without(without(call(""), "call_id"), "id")],
            [{**call(""), "type": "mcp_call"}],
        ],
        ids=["call id", "id", "position", "type"],
    )
    def test_arguments_of_another_call_are_never_taken(
        self, accumulator: Accumulator, output: list[JSONObject]
    ) -> None:
        feed(accumulator, item_done(call(SAFE)))
        assert output_of(finish(accumulator, output)) == output

    def test_two_calls_with_one_id_are_told_apart_by_their_positions(
        self, accumulator: Accumulator
    ) -> None:
        """The second one without arguments keeps none if the position is no help either."""
        for at in range(2):
            feed(accumulator, item_done(call(f"[{at}]"), output_index=at))
        assert [
            one["arguments"] for one in output_of(finish(accumulator, [call("")] * 3)) or ()
        ] == ["[0]", "[1]", ""]

    def test_pieces_of_an_unknown_item_are_found_by_position(
        self, accumulator: Accumulator
    ) -> None:
        feed(accumulator, arguments_done(SAFE))
        assert output_of(finish(accumulator, [call("")])) == [call(SAFE)]

    @pytest.mark.parametrize("item", [None, [], {"type": 1}, {"type": "function_call", "id": []}])
    def test_an_item_of_any_shape_is_left_as_it_is(
        self, accumulator: Accumulator, item: Any
    ) -> None:
        feed(accumulator, item_done(item))
        assert output_of(finish(accumulator, [item])) == [item]


class TestCallsThatNoEventFinished:
    @BOTH_MODES
    def test_a_call_of_a_completed_response_is_in_the_output(
        self,
        keep_text: bool,  # noqa: FBT001
    ) -> None:
        accumulator = Accumulator(keep_text=keep_text)
        feed(accumulator, item_added(call("", status="in_progress")), arguments_done(SAFE))
        assert output_of(finish(accumulator)) == [call(SAFE, status="completed")]

    def test_a_call_of_an_incomplete_response_is_not(self, accumulator: Accumulator) -> None:
        feed(accumulator, item_added(call("")), arguments_delta(SAFE[:9]))
        assert not finish(accumulator, status="incomplete").raw_output

    def test_a_message_that_no_event_finished_is_not(self, accumulator: Accumulator) -> None:
        feed(accumulator, item_added(message("")), item_added({"type": "mcp_call"}))
        assert not finish(accumulator).raw_output


class TestPhases:
    """The phase of a message tells commentary from the answer."""

    def test_a_snapshot_has_the_phase_of_each_message(self, accumulator: Accumulator) -> None:
        for at, phase in enumerate(["commentary", "final_answer"]):
            item = {**message("", f"msg_{at}"), "phase": phase}
            feed(accumulator, item_added(item, output_index=at), delta(phase, output_index=at))
        snapshot = accumulator.snapshot()
        assert [item.phase for item in snapshot.items] == ["commentary", "final_answer"]
        assert snapshot.text == "commentaryfinal_answer"
        assert snapshot.final_text == "final_answer"

    @pytest.mark.parametrize(
        ("phases", "final"),
        [
            ([None, None], "01"),
            (["commentary", None], "1"),
            (["commentary", "draft", None], "12"),
            (["draft", "final_answer", None], "1"),
            (["final_answer", "commentary", "final_answer"], "02"),
            (["commentary"], ""),
            ([5, "commentary"], "0"),
        ],
    )
    def test_snapshots_and_responses_have_one_rule_for_the_answer(
        self, accumulator: Accumulator, phases: list[Any], final: str
    ) -> None:
        for at, phase in enumerate(phases):
            feed(accumulator, item_done({**message(str(at)), "phase": phase}, output_index=at))
        assert accumulator.snapshot().final_text == final
        response = finish(accumulator)
        assert response.final_text == final
        assert response.output_text == "".join(map(str, range(len(phases))))
        assert [one.output_text for one in response.answer_messages] == list(final)

    def test_a_finished_message_without_phase_keeps_the_first_one(
        self, accumulator: Accumulator
    ) -> None:
        feed(accumulator, item_added({**message(""), "phase": "commentary"}))
        feed(accumulator, item_done(message("a")))
        assert accumulator.snapshot().items[0].phase == "commentary"

    @BOTH_MODES
    def test_the_phase_is_known_by_index_and_id(
        self,
        keep_text: bool,  # noqa: FBT001
    ) -> None:
        accumulator = Accumulator(keep_text=keep_text)
        for name in ("commentary", "final_answer"):
            feed(accumulator, item_added({**message("", name), "phase": name}))
        assert accumulator.phase_of(0, "commentary") == "commentary"
        assert accumulator.phase_of(0, "a new id") == accumulator.phase_of(0, None)
        assert accumulator.phase_of(0, None) == "final_answer"
        assert accumulator.phase_of(1, None) is None
