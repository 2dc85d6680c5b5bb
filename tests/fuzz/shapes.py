"""The shapes of responses: output items, and the many ways in which a server may send them.

A `ResponseShape` knows the truth, which items the response has, and how the server shows each of
them: in events that start, extend and finish the item, in the terminal event, or in some of these
only. `ResponseShape.frames` are the frames, and `ResponseShape.output` is what a reader must make
of them. Shapes that have no single right outcome are not drawn.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any, Final, TypeGuard

from hypothesis import strategies as st

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from hypothesis.strategies import DrawFn, SearchStrategy

Json = Any


def is_object(value: Json) -> TypeGuard[dict[str, Json]]:
    """Whether a JSON value is an object."""
    return isinstance(value, dict)


def is_array(value: Json) -> TypeGuard[list[Json]]:
    """Whether a JSON value is an array."""
    return isinstance(value, list)


FILLED: Final[Mapping[str, str]] = {
    "function_call": "arguments",
    "custom_tool_call": "input",
    "mcp_call": "arguments",
    "mcp_approval_request": "arguments",
    "message": "content",
}
"""The field of an item that servers leave empty in one place and send in another."""
DELTAS: Final[Mapping[str, tuple[str, str]]] = {
    "function_call": ("response.function_call_arguments", "arguments"),
    "custom_tool_call": ("response.custom_tool_call_input", "input"),
    "mcp_call": ("response.mcp_call_arguments", "arguments"),
}
"""The events with the text of a call, and the field of the one that has the whole text."""
CALLS_OF_MODEL: Final = ("function_call", "custom_tool_call")
PREFIXES: Final[Mapping[str, str]] = {
    "message": "msg",
    "reasoning": "rs",
    "function_call": "fc",
    "custom_tool_call": "ctc",
}
EMPTY: Final[Sequence[Json]] = ("", None, [])


ENDS_OF: Final[Mapping[str, Sequence[str]]] = {
    "completed": ("completed", "incomplete", "failed", "cancelled"),
    "done": ("completed", "incomplete", "failed", "cancelled"),  # an old name
    "incomplete": ("incomplete", "failed", "cancelled"),
    "failed": ("failed",),
    "cancelled": ("incomplete", "failed", "cancelled"),
}
"""The statuses with which a response may end, for each terminal event. The first is the default."""


# --- Items --------------------------------------------------------------------------------


@dataclass(frozen=True)
class ItemShape:
    """One item of an output, and how a server shows it. `None` is an event that is not sent."""

    item: Json
    """The whole item."""
    added: Json = None
    """The item in the event that adds it."""
    deltas: tuple[str, ...] = ()
    """The text of a call, in pieces."""
    text: str | None = None
    """The text of a call, in the event that finishes the text."""
    done: Json = None
    """The item in the event that finishes it."""
    repeated: bool = False
    """Whether that event is sent twice."""
    final: Json = None
    """The item in the terminal event."""

    @property
    def kind(self) -> str:
        """The type of the item; empty for what is no item."""
        return str(self.item.get("type", "")) if is_object(self.item) else ""

    def with_ids(self, make_id: Callable[[], str]) -> ItemShape:
        """Return the shape with a new id in each event."""

        def changed(item: Json) -> Json:
            return {**item, "id": make_id()} if is_object(item) and "id" in item else item

        return replace(
            self, added=changed(self.added), done=changed(self.done), final=changed(self.final)
        )

    def fill(self, item: Json, *sources: Json) -> Json:
        """Return an item with the field that is empty in it, if another event had the field."""
        kind = item.get("type") if is_object(item) else None
        name = FILLED.get(kind) if isinstance(kind, str) else None
        if name is None or item.get(name) not in EMPTY:
            return item
        found: list[Json] = [
            source[name]
            for source in sources
            if is_object(source) and source.get("type") == kind and name in source
        ]
        if kind in DELTAS:
            found.insert(len(sources) - 1, self.text or "".join(self.deltas))
        value = next((value for value in found if value not in EMPTY), None)
        return item if value is None else {**item, name: value}

    @property
    def finished(self) -> Json:
        """The item as the events finished it; `None` if they did not."""
        return None if self.done is None else self.fill(self.done, self.added)

    @property
    def cut_off(self) -> Json:
        """A call of a completed response that no event finished; `None` for other items."""
        if self.done is not None or not is_object(self.added):
            return None
        if self.added.get("type") not in CALLS_OF_MODEL:
            return None
        return {**self.fill(self.added, None), "status": "completed"}


# --- Responses ----------------------------------------------------------------------------


@dataclass(frozen=True)
class ResponseShape:
    """One response, and how a server sends it."""

    response_id: str
    items: tuple[ItemShape, ...] = ()
    zero: bool = False
    """Whether all items have the ``output_index`` 0."""
    named: bool = True
    """Whether events without the whole item name its id."""
    interleaved: bool = False
    """Whether all items are added before the first one is finished."""
    ids_differ: bool = False
    """Whether each event has another id."""
    terminal: str = "completed"
    """The end of the type of the terminal event."""
    status: Json = "completed"
    """The status in it; `None` if it has none."""
    reason: str | None = None
    """Why the response is incomplete."""
    output: str = "full"
    """The output in the terminal event: ``full``, ``tail`` (the last items are missing), ``empty``,
    ``null`` or ``missing``."""
    created: bool = True
    """Whether ``response.created`` is sent."""
    late: tuple[Json, ...] = ()
    """Events of the response before, which come before ``response.created``."""
    noise: tuple[Json, ...] = ()
    """Events of unknown types and with unknown fields."""
    extra: Mapping[str, Json] = field(default_factory=dict[str, Json])
    """Unknown fields of the response."""

    @property
    def final_items(self) -> list[ItemShape]:
        """The items that the terminal event has."""
        if self.output == "tail":
            return list(self.items[:-1])
        return list(self.items) if self.output == "full" else []

    @property
    def outcome(self) -> str:
        """How the response ended: the type of the event says it, whatever the status in it is."""
        allowed = ENDS_OF[self.terminal]
        return self.status if self.status in allowed else allowed[0]

    @property
    def expected(self) -> list[Json]:
        """The output items that a reader must have after the terminal event."""
        if self.final_items:
            return [self._filled(shape) for shape in self.final_items]
        found: list[Json] = []
        for shape in self.items:
            item = shape.finished
            found.append(shape.cut_off if item is None and self.outcome == "completed" else item)
        return [item for item in found if item is not None]

    def _filled(self, shape: ItemShape) -> Json:
        """Return an item of the terminal event, filled from the events about it."""
        item = shape.final
        if not is_object(item):
            return item
        own, event = item.get("id"), shape.done or shape.added
        other = event.get("id") if is_object(event) else None
        if self.ids_differ and own and other and not isinstance(item.get("call_id"), str):
            return item  # nothing says that it is the same item
        return shape.fill(item, shape.finished, shape.added)

    # --- Frames -----------------------------------------------------------------------------

    def frames(self, lane: str | None = None, *, follows: bool = True) -> list[Json]:
        """Return the frames of the response on a lane.

        :param follows: whether another response of the lane has ended on the socket, so that there
            may be late events.
        """
        frames = self._frames(self.late if follows else ())
        return frames if lane is None else [{**frame, "stream_id": lane} for frame in frames]

    def _frames(self, late: Sequence[Json]) -> list[Json]:
        start = {"id": self.response_id, "object": "response", "status": "in_progress"}
        frames: list[Json] = list(late)
        if self.created:
            frames.append({"type": "response.created", "response": {**start, "output": []}})
        frames += self.noise[:1]
        events = [list(self._events(*entry)) for entry in enumerate(self.items)]
        if self.interleaved:
            frames += [one for part in events for one in part if one["type"].endswith(".added")]
            events = [
                [one for one in part if not one["type"].endswith(".added")] for part in events
            ]
        frames += [one for part in events for one in part]
        frames += self.noise[1:]
        response: Json = {"id": self.response_id, "object": "response", **self.extra}
        if self.status is not None:
            response["status"] = self.status
        if self.reason is not None:
            response["incomplete_details"] = {"reason": self.reason}
        if self.outcome == "failed":
            response["error"] = {"code": "server_error", "message": "It failed."}
        match self.output:
            case "full" | "tail":
                response["output"] = [shape.final for shape in self.final_items]
            case "empty":
                response["output"] = []
            case "null":
                response["output"] = None
            case _:
                pass
        return [*frames, {"type": f"response.{self.terminal}", "response": response}]

    def _events(self, position: int, shape: ItemShape) -> Iterator[Json]:
        place: Json = {"output_index": 0 if self.zero else position}
        if shape.added is not None:
            yield {"type": "response.output_item.added", "item": shape.added, **place}
        named = dict(place)
        whole = shape.item if is_object(shape.item) else {}
        if self.named and isinstance(whole.get("id"), str):
            named["item_id"] = whole["id"]
        if shape.kind in DELTAS:
            event, name = DELTAS[shape.kind]
            fresh = count()
            for delta in shape.deltas:
                if self.ids_differ:
                    named["item_id"] = f"{self.response_id}_{position}_{next(fresh)}"
                yield {"type": f"{event}.delta", "delta": delta, **named}
            if shape.text is not None:
                yield {"type": f"{event}.done", name: shape.text, **named}
        if shape.done is not None:
            finished = {"type": "response.output_item.done", "item": shape.done, **place}
            yield from [finished, finished] if shape.repeated else [finished]


# --- Drawing items ------------------------------------------------------------------------


def rarely(draw: DrawFn, one_in: int = 8) -> bool:
    """Draw `True` once in so many times. Hypothesis shrinks to `False`."""
    return draw(st.integers(0, one_in - 1)) == one_in - 1


class Numbers:
    """Counters, so that ids differ within a conversation."""

    def __init__(self) -> None:
        self._count = count(1)
        self.items: list[Json] = []
        """All items that were drawn."""

    def next(self, prefix: str) -> str:
        """Return an id that is new."""
        return f"{prefix}_{next(self._count)}"


ARGUMENTS: Final = st.sampled_from([
    '{"path":"/tmp/x","force":false}', '{"path":"/"}', '{"path":"y","force":true}',
    '{"number":7}', "{}", "", "null", '{"path":5}', '{"path":"a"', "x", "[]",
    {"path": "/o", "force": False}, {"number": 3}, {}, None,
])  # fmt: skip
"""The arguments of a call of a function; most do not fit the one or the other function."""
INPUTS: Final = st.sampled_from(["select 1", "", "x\ny", {"a": 1}, None, 5])
PHASES: Final = st.sampled_from([None, None, "commentary", "final_answer", "final_answer"])
TEXTS: Final = st.sampled_from(['{"n":3}', "Hello", "", "\u00e9\U0001f600", '{"n":"x"}'])
ODD: Final[SearchStrategy[Json]] = st.sampled_from([
    None, True, 0, 1.5, "", "odd", [], {}, [None], {"type": "odd"}, ["x"], {"a": [1]},
])  # fmt: skip
"""Values of a type that a field does not have."""


def _function_call(draw: DrawFn, numbers: Numbers) -> Json:
    return {
        "type": "function_call",
        "id": numbers.next("fc"),
        "call_id": numbers.next("call"),
        "name": draw(st.sampled_from(["delete", "delete", "add", "unheard_of"])),
        **draw(
            st.sampled_from(
                [
                    {},
                    {},
                    {"namespace": None},
                    {"namespace": "functions"},
                    {"namespace": "crm"},
                    {"namespace": "crm"},
                    {"namespace": "hr"},
                    {"namespace": ""},
                ]
            )
        ),
        "arguments": draw(ARGUMENTS),
        **draw(st.sampled_from([{}, {"status": "completed"}, {"status": "incomplete"}])),
    }


def _custom_call(draw: DrawFn, numbers: Numbers) -> Json:
    return {
        "type": "custom_tool_call",
        "id": numbers.next("ctc"),
        "call_id": numbers.next("call"),
        "name": draw(st.sampled_from(["sql", "sql", "unheard_of"])),
        "input": draw(INPUTS),
        **draw(st.sampled_from([{}, {"namespace": "crm"}, {"namespace": "functions"}])),
    }


OTHER_PARTS: Final[Sequence[Json]] = (
    {"type": "refusal", "refusal": "No."},
    {"type": "hologram", "x": 1},
)


def text_part(text: str) -> Json:
    """Return a content part with a text of the model."""
    return {"type": "output_text", "text": text, "annotations": []}


def _message(draw: DrawFn, numbers: Numbers) -> Json:
    part: SearchStrategy[Json] = TEXTS.map(text_part) | st.sampled_from(OTHER_PARTS)
    content = draw(st.lists(part, min_size=1, max_size=2))
    item: Json = {
        "type": "message",
        "id": numbers.next("msg"),
        "role": "assistant",
        "content": content,
        "status": "completed",
    }
    phase = draw(PHASES)
    if phase is not None:
        item["phase"] = phase
    return item


def _reasoning(draw: DrawFn, numbers: Numbers) -> Json:
    summaries: list[Json] = [{"summary": []}, {}, {"summary": None}]
    return {
        "type": "reasoning",
        "id": numbers.next("rs"),
        **draw(st.sampled_from(summaries)),
        **draw(
            st.sampled_from([{"encrypted_content": "g"}] * 3 + [{}, {"encrypted_content": None}])
        ),
        **draw(st.sampled_from([{}, {"status": "completed"}, {"created_by": "x"}])),
    }


def hosted_before(numbers: Numbers) -> Json:
    """Return the call id of the latest shell call that the server runs."""
    found = [one for one in numbers.items if is_object(one.get("environment"))]
    return {"call_id": found[-1]["call_id"]} if found and "call_id" in found[-1] else None


def _other(draw: DrawFn, numbers: Numbers) -> Json:
    """Draw an item that is no message, reasoning, or call of a function or custom tool."""
    action: Json = {"type": "exec", "command": ["ls"], "env": {}}
    call = {"call_id": numbers.next("call")}
    done = {"status": "completed"}
    hosted = {"environment": {"type": "container_reference", "container_id": "c"}}
    kinds: list[Json] = [
        {"type": "shell_call", "id": numbers.next("sh"), **call, "action": {"commands": ["ls"]},
         **done},
        {"type": "shell_call", "id": numbers.next("sh"), **call, "action": {"commands": ["ls"]},
         **done, **hosted},
        {"type": "local_shell_call", "id": numbers.next("lsh"), **call, "action": action, **done},
        {"type": "apply_patch_call", "id": numbers.next("ap"), **call, **done,
         "operation": {"type": "delete_file", "path": "x"}},
        {"type": "computer_call", "id": numbers.next("cu"), **call, **done,
         "action": {"type": "screenshot"}, "pending_safety_checks": []},
        {"type": "tool_search_call", "id": numbers.next("ts"), **call, "arguments": {},
         "execution": "client", **done},
        {"type": "tool_search_call", "id": numbers.next("ts"), "call_id": None, "arguments": {},
         "execution": "server", **done},
        {"type": "mcp_approval_request", "id": numbers.next("mcpr"), "arguments": "{}",
         "name": "t", "server_label": "s"},
        {"type": "mcp_call", "id": numbers.next("mcp"), "arguments": "{}", "name": "t",
         "server_label": "s", "output": "o"},
        {"type": "web_search_call", "id": numbers.next("ws"), **done,
         "action": {"type": "search", "query": "q"}},
        {"type": "code_interpreter_call", "id": numbers.next("ci"), **done, "code": "1",
         "container_id": "c", "outputs": None},
        {"type": "image_generation_call", "id": numbers.next("ig"), **done, "result": "aGk="},
        {"type": "compaction", "id": numbers.next("cmp"), "encrypted_content": "c"},
        {"type": "function_call_output", "id": numbers.next("fco"), **call, "output": "x"},
        {"type": "shell_call_output", "id": numbers.next("sho"), **done, "max_output_length": None,
         "output": [], **(hosted_before(numbers) or call)},
        {"type": "hologram", "id": numbers.next("ho"), "x": [1]},
        {"type": "browser_call", "id": numbers.next("br"), **call},
        {"type": "program", "id": numbers.next("pr"), **call, "code": "1", "fingerprint": "f"},
    ]  # fmt: skip
    return draw(st.sampled_from(range(len(kinds))).map(lambda number: kinds[number]))


ITEMS: Final = (
    _function_call,
    _message,
    _reasoning,
    _custom_call,
    _other,
    _function_call,
    _message,
    _other,
)


def _with_faults(draw: DrawFn, item: Json, numbers: Numbers) -> Json:  # noqa: PLR0911 - one by one
    """Return an item of which some field is missing, surplus, of a wrong type, or not unique."""
    names = list(item)
    name = draw(st.sampled_from(names))
    kind = draw(st.integers(0, 6))
    if kind == 0:
        return {key: value for key, value in item.items() if key != name}
    if kind == 1:
        return {**item, draw(st.sampled_from(["vendor", "created_by", "agent"])): draw(ODD)}
    if kind == 2:
        return {**item, name: draw(ODD)}
    if kind == 3 and "call_id" in item and numbers.items:
        others = [one["call_id"] for one in numbers.items if "call_id" in one]
        return {**item, "call_id": draw(st.sampled_from([*others, item["call_id"]]))}
    if kind == 4 and "id" in item and numbers.items:
        others = [one["id"] for one in numbers.items if isinstance(one.get("id"), str)]
        return {**item, "id": draw(st.sampled_from([*others, "x_1"]))}
    if kind == 5:
        return {**item, "status": draw(st.sampled_from(["in_progress", "incomplete", "odd"]))}
    return draw(st.sampled_from([None, 5, "text", [], {}, [item], {"role": "assistant"}]))


@st.composite
def item_shapes(draw: DrawFn, numbers: Numbers, *, faulty: bool) -> ItemShape:
    """Draw an item, and the ways in which it is shown."""
    item = draw(st.sampled_from(ITEMS))(draw, numbers)
    if faulty and rarely(draw, 4):
        item = _with_faults(draw, item, numbers)
    if is_object(item):
        numbers.items.append(item)
    kind = item.get("type") if is_object(item) else None
    name = FILLED.get(kind) if isinstance(kind, str) else None
    shape = ItemShape(item, added=item, done=item, final=item)
    if name is None:
        return shape if rarely(draw, 4) else replace(shape, added=None)
    emptied = [{**item, name: ""}, {**item, name: None}, _without(item, name)]
    if kind == "message":
        emptied[0] = {**item, name: []}
    empty = st.sampled_from(range(3)).map(lambda number: emptied[number])
    value = item.get(name)
    shape = replace(shape, added=draw(st.none() | empty | empty | st.just(item)))
    if kind in DELTAS and isinstance(value, str) and not rarely(draw):
        cut = draw(st.integers(0, len(value)))
        whole = draw(st.sampled_from([value, value, value, None, ""]))
        shape = replace(shape, deltas=tuple(filter(None, (value[:cut], value[cut:]))), text=whole)
        if rarely(draw, 4):
            shape = replace(shape, deltas=())
        if rarely(draw, 3):
            shape = replace(shape, done=draw(empty))
    if rarely(draw, 3):
        shape = replace(shape, final=draw(empty))
    if rarely(draw, 6):
        shape = replace(shape, done=None)
    return replace(shape, repeated=rarely(draw))


def _without(item: Json, name: str) -> Json:
    return {key: value for key, value in item.items() if key != name}


# --- Drawing responses --------------------------------------------------------------------

NOISE: Final = st.sampled_from([
    {"type": "keepalive"},
    {"type": "codex.rate_limits", "x": 1},
    {"type": "response.unheard_of", "output_index": 0},
    {"type": "response.in_progress", "response": {"id": "resp", "vendor": 1}, "vendor": {}},
    {"type": "response.output_text.delta", "output_index": 9, "item_id": "msg_9", "delta": "x"},
])  # fmt: skip
ENDS: Final = st.sampled_from(
    [("completed", "completed", None)] * 12
    + [
        ("completed", None, None),
        ("done", "completed", None),
        ("done", None, None),
        ("incomplete", "incomplete", "max_output_tokens"),
        ("incomplete", "incomplete", "content_filter"),
        ("incomplete", None, "max_output_tokens"),
        ("incomplete", "incomplete", None),
        ("failed", "failed", None),
        ("failed", None, None),
        ("done", "failed", None),
        ("completed", "failed", None),
        ("completed", "in_progress", None),
        ("completed", 5, None),
        ("failed", "completed", None),
        ("incomplete", "completed", "max_output_tokens"),
        ("cancelled", "cancelled", None),
    ]
)
"""The type of the terminal event, the status in it, and the reason why it is incomplete."""
OUTPUTS: Final = st.sampled_from(["full"] * 4 + ["empty", "empty", "missing", "null", "tail"])


@st.composite
def response_shapes(
    draw: DrawFn, numbers: Numbers, before: ResponseShape | None, *, faulty: bool
) -> ResponseShape:
    """Draw a response. Some events of the response before come late, at its beginning."""
    items = draw(st.lists(item_shapes(numbers, faulty=faulty), max_size=4))
    terminal, status, reason = draw(ENDS)
    form = draw(st.sampled_from(["positions", "positions", "zero", "zero unnamed", "ids differ"]))
    shape = ResponseShape(
        numbers.next("resp"),
        tuple(items),
        terminal=terminal,
        status=status,
        reason=reason,
        output=draw(OUTPUTS),
        zero=form.startswith("zero"),
        ids_differ=form == "ids differ",
        named=form in {"positions", "zero"} and not rarely(draw, 4),
        interleaved=form == "positions" and rarely(draw, 3),
        noise=tuple(draw(st.lists(NOISE, max_size=2))) if rarely(draw, 3) else (),
        extra={"vendor": {"a": [1]}} if rarely(draw) else {},
    )
    ids = [one.item["id"] for one in items if is_object(one.item) and "id" in one.item]
    if shape.zero and any(ids.count(one) > 1 for one in ids):
        shape = replace(shape, zero=False)
    if shape.zero:
        shape = _tell_apart(shape)
    elif shape.ids_differ:
        # Nothing but the id says that a piece of a text belongs to an item of the terminal event.
        known = (
            replace(one, final=one.item) if one.added is None and one.done is None else one
            for one in shape.items
        )
        fresh = (one.with_ids(partial(numbers.next, _prefix(one))) for one in known)
        shape = replace(shape, items=tuple(fresh))
    if before is not None and before.created and rarely(draw, 3):
        late: list[Json] = [
            {"type": "response.output_item.done", "output_index": 0, "item": one.item}
            for one in before.items[:2]
        ]
        late.append({"type": "response.function_call_arguments.delta", "item_id": "fc_1",
                     "output_index": 0, "delta": "{"})  # fmt: skip
        shape = replace(shape, late=tuple(late))
    return shape


def _prefix(shape: ItemShape) -> str:
    return PREFIXES.get(shape.kind, "item")


def _tell_apart(shape: ResponseShape) -> ResponseShape:
    """Return a response whose items can be told apart although all have the index 0.

    Items without ids are told apart by the events that add and finish them, so each one has both.
    """
    ids = [one.item.get("id") if is_object(one.item) else None for one in shape.items]
    unique = all(isinstance(one, str) and one for one in ids) and len({*ids}) == len(ids)
    items: list[ItemShape] = []
    for one in shape.items:
        added = one.item if one.added is None else one.added
        done = one.item if one.done is None else one.done
        final = one.final if unique else one.item  # there, the position says nothing
        items.append(replace(one, added=added, done=done, final=final, repeated=False))
    return replace(shape, items=tuple(items), named=shape.named and unique)


# --- Drawing conversations ----------------------------------------------------------------


@dataclass(frozen=True)
class TurnShape:
    """A turn: the method that takes it, and what happens before."""

    method: str
    """``run``, ``create``, ``stream`` or ``parse``."""
    before: str = ""
    """``reset``: all sockets are lost; ``restore``: a checkpoint goes on; ``fork``: a fork does."""
    model: str = "m"


@dataclass(frozen=True)
class ConversationShape:
    """A conversation: its turns, and the responses that the server sends, in order."""

    turns: tuple[TurnShape, ...]
    responses: tuple[ResponseShape, ...]
    store: bool = False


TURNS: Final = st.builds(
    TurnShape,
    st.sampled_from(["run", "run", "create", "parse", "stream"]),
    st.sampled_from(["", "", "", "reset", "restore", "fork"]),
    st.sampled_from(["m", "m", "m", "other"]),
)


@st.composite
def conversations(draw: DrawFn) -> ConversationShape:
    """Draw a conversation of one to four turns."""
    numbers = Numbers()
    responses: list[ResponseShape] = []
    faulty = draw(st.booleans())
    sends_created = not rarely(draw, 6)
    for _ in range(draw(st.integers(1, 5))):
        before = responses[-1] if responses else None
        one = draw(response_shapes(numbers, before, faulty=faulty))
        if not sends_created:
            one = replace(one, created=False, late=())
        responses.append(one)
    turns: Sequence[TurnShape] = draw(st.lists(TURNS, min_size=1, max_size=4))
    return ConversationShape(tuple(turns), tuple(responses), store=rarely(draw, 4))
