"""The input form of a history: what a request with full input sends for the items received.

A history keeps its items as they came. The API refuses some of them as input, and some only where
others are missing. `InputForm` applies these rules, and nothing else; an item that no rule names
keeps its exact bytes:

* **Fields.** Fields that only output items have are removed, and fields that input items need are
  added (`REMOVED`, `ADDED`, `ACCEPTED`, `TEXTS`).
* **Reasoning** needs its encrypted content, unless the server has stored the item; its model; and
  an item of the model after it.
* **Other endpoints** cannot read what one endpoint has encrypted or stored: encrypted items,
  references to items, and uploaded files are left out, and ids are removed.
* **Calls** have one output each, and outputs have a call. A call that has no output yet is left
  out, unless the caller names it as answered.
* **Sizes.** A longer text than `MAX_STRING` is shortened; a larger image or file than `MAX_MEDIA`
  is left out.
* **Ids.** No two items have the same id.

`ReplayRules` adds the filters that a user has chosen. Nothing is changed in the history itself.
"""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

import msgspec

from trio_responses import _wire as wire
from trio_responses._protocol.calls import (
    CALL_TYPES,
    OUTPUT_TYPES,
    call_key,
    container_call_key,
    decode_call,
    make_error_output,
)
from trio_responses._protocol.input_forms import is_well_formed, repair
from trio_responses._protocol.raw_items import RawItems

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence
    from typing import Self

    from trio_responses._protocol.calls import CallKey

__all__ = [
    "MAX_STRING",
    "InputForm",
    "Origin",
    "Piece",
    "ReplayRules",
    "can_wait",
    "error_output_for",
    "prepare_new_items",
    "shorten",
    "to_input_items",
    "without_outputs",
]

MAX_STRING: Final = 10_485_760
"""The number of characters of the longest string that the API accepts."""

REMOVED: Final[Mapping[str, frozenset[str]]] = {
    "reasoning": frozenset({"status", "created_by"}),
    "custom_tool_call_output": frozenset({"status", "created_by"}),
}
"""The fields of each type of item that no input item of this type has."""
REMOVED_FROM_ALL: Final = frozenset({"created_by"})
"""The fields that no input item has."""

ADDED: Final[Mapping[str, Mapping[str, bytes]]] = {"reasoning": {"summary": b"[]"}}
"""The fields that an input item needs, as JSON, where they are missing or null."""

ACCEPTED: Final[Mapping[str, Mapping[str, tuple[frozenset[bytes], bytes]]]] = {
    "computer_call_output": {
        "status": (
            frozenset({b'"in_progress"', b'"completed"', b'"incomplete"', b"null"}),
            b'"incomplete"',
        )
    },
    "additional_tools": {"role": (frozenset({b'"developer"'}), b'"developer"')},
}
"""The values of fields that an input item may have, and the value in place of every other one."""

TEXTS: Final[Mapping[str, str]] = {"function_call": "arguments", "custom_tool_call": "input"}
"""The field of a call that is a text. Some servers send an object, or nothing."""

CHECKED: Final = frozenset({*REMOVED, *ADDED, *ACCEPTED, *TEXTS})
"""The types of items whose fields have rules of their own."""

NO_NAMES: Final = (b"", b"null", b'""')

OPTIONAL_STATUS: Final = frozenset(
    {
        "computer_call_output",
        "function_call",
        "function_call_output",
        "local_shell_call_output",
        "mcp_call",
        "message",
        "shell_call",
        "shell_call_output",
        "tool_search_call",
        "tool_search_output",
    }
)
"""The types of items whose ``status`` can be left out."""

OPTIONAL_ID: Final = frozenset(
    {
        "apply_patch_call",
        "compaction",
        "custom_tool_call",
        "function_call",
        "message",
        "shell_call",
        "tool_search_call",
        *CALL_TYPES,
    }
)
"""The types of items whose ``id`` can be left out, which is needed if two items have the same."""
ID_PREFIXES: Final[Mapping[str, str]] = {
    "custom_tool_call": "ctc",
    "function_call": "fc",
    "message": "msg",
    "reasoning": "rs",
}
"""How the ids of some types of items have to begin. Messages of others may have other ids."""
SHARED_ID: Final = "local_shell_call_output"
"""The type of an item whose ``id`` is that of another item."""

TOOL_OUTPUTS: Final[Mapping[str, str]] = {
    **dict.fromkeys(CALL_TYPES, "output"),
    "mcp_call": "output",
    "program_output": "result",
}
"""The field with the output of a tool."""
OUTPUT_TEXTS: Final = frozenset({"text", "stdout", "stderr"})
"""The fields of the parts of an output that are texts for the model."""

NOT_OF_THE_MODEL: Final = (*CALL_TYPES, "configuration_update", "compaction_trigger")
"""The types of items that do not end the search for the item to which reasoning led."""
ROLE_OF_MODEL: Final = b'"assistant"'
ROLES_OF_OTHERS: Final = (b'"user"', b'"system"', b'"developer"')
"""The roles of messages that the model did not write."""

IMAGE_OMITTED: Final = "[image left out]"
FILE_OMITTED: Final = "[file left out]"
BLANK_SCREENSHOT: Final = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNkYAAAAAYAAjCB0C8A"
    "AAAASUVORK5CYII="
)
"""An image of one pixel, for outputs that have no place for a text."""
PLACEHOLDERS: Final[Mapping[str, Mapping[str, str]]] = {
    "input_image": {"type": "input_text", "text": IMAGE_OMITTED},
    "input_file": {"type": "input_text", "text": FILE_OMITTED},
    "computer_screenshot": {"type": "computer_screenshot", "image_url": BLANK_SCREENSHOT},
    "image_generation_call": {"type": "message", "role": "assistant", "content": IMAGE_OMITTED},
}
"""What takes the place of a part, or of an item, whose image or file is left out."""
IMAGES: Final[Mapping[str, int]] = dict.fromkeys(
    ("input_image", "computer_screenshot", "image_generation_call"), 0
)
"""The types of parts and items that are images. None has fewer bytes than this."""
MAX_MEDIA: Final[Mapping[str, int]] = {
    "input_image": 20_971_520,
    "computer_screenshot": 20_971_520,
    "input_file": 73_400_320,
    "image_generation_call": MAX_STRING,
}
"""The number of bytes of the largest part or item that the API accepts."""
MEDIA_FIELDS: Final = frozenset({"image_url", "file_data"})
"""Strings that may be longer than `MAX_STRING`, and make no sense if they are shortened."""


class Origin(NamedTuple):
    """Where items came from: the settings of the turn that they belong to."""

    model: str | None = None
    """The model that made them; `None` if it is not known."""
    stored: bool = True
    """Whether the server may have stored the items."""
    endpoint: str | None = None
    """The name of the endpoint that made them; `None` if it is not known."""


class Piece(NamedTuple):
    """Items of a history that belong together, and their origin."""

    items: RawItems
    origin: Origin


class ReplayRules(msgspec.Struct, frozen=True, kw_only=True):
    """What the input form of a history depends on: the next turn, and the filters of the user."""

    model: str | None = None
    """The model of the turn."""
    stored: bool = True
    """Whether the server stores responses."""
    endpoint: str | None = None
    """The name of the endpoint of the turn; `None` if it is not known."""
    images: str = "keep"
    """``"keep"`` or ``"omit"``."""
    reasoning: str = "same_model"
    """``"keep"``, ``"same_model"`` or ``"omit"``."""
    statuses: str = "keep"
    """``"keep"`` or ``"omit"``."""
    max_output: int | None = None
    """The largest number of characters of each text in the output of a tool."""
    max_items: int | None = None
    """The largest number of items of the history."""


class _Fields(msgspec.Struct, gc=False):
    """The fields of an item that the rules read. An empty `msgspec.Raw` is a missing field."""

    type: Any = None
    id: Any = None
    file_id: Any = None
    role: msgspec.Raw = msgspec.Raw()
    status: msgspec.Raw = msgspec.Raw()
    created_by: msgspec.Raw = msgspec.Raw()
    summary: msgspec.Raw = msgspec.Raw()
    encrypted_content: msgspec.Raw = msgspec.Raw()
    name: msgspec.Raw = msgspec.Raw()
    arguments: msgspec.Raw = msgspec.Raw()
    input: msgspec.Raw = msgspec.Raw()
    execution: Any = None
    async_: Any = msgspec.field(default=None, name="async")

    @property
    def kind(self) -> str:
        """The type; a message may lack it."""
        if self.type is None and len(self.role):
            return "message"
        return self.type if isinstance(self.type, str) else ""


_RawFields: TypeAlias = dict[str, msgspec.Raw]

_list_decoder: Final = msgspec.json.Decoder(list[_Fields])
_decoder: Final = msgspec.json.Decoder(_Fields)
_object_decoder: Final = msgspec.json.Decoder(_RawFields)
_array_decoder: Final = msgspec.json.Decoder(list[msgspec.Raw])


def to_input_items(
    pieces: Iterable[Piece], rules: ReplayRules, answered: Collection[CallKey] = ()
) -> list[RawItems]:
    """Return the items of a history in the form in which a request sends them.

    :param answered: the calls whose outputs follow in the new items of the request.
    """
    form = InputForm(rules)
    for piece in pieces:
        form.append(piece)
    return form.items(answered)


def prepare_new_items(items: RawItems, rules: ReplayRules) -> RawItems:
    """Return the new items of a turn without what the API refuses; calls are not looked at.

    Items that need no change, nearly all, are found without decoding them.
    """
    text = bytes(items.json)
    suspicious = b'"reasoning"' in text or b'"created_by"' in text or len(text) > MAX_STRING
    if not suspicious and rules.max_output is None:
        return items
    rules = msgspec.structs.replace(rules, images="keep", statuses="keep", reasoning="keep")
    pairs = [(raw, _convert(fields, raw, rules, Origin())) for fields, raw in _read(items)]
    return _join(items, [new for _, new in pairs if new is not None], [raw for raw, _ in pairs])


def can_wait(raw: msgspec.Raw) -> bool:
    """Whether the model goes on without the output of a tool call."""
    return _read_one(raw).async_ is True


def error_output_for(raw: msgspec.Raw, text: str) -> msgspec.Raw | None:
    """Return an output with a text for a tool call.

    :return: `None` if the outputs of this type have no place for a text, or the call is left out
        of the input because it cannot be read.
    """
    new = _convert(_read_one(raw), raw, ReplayRules(), Origin())
    call = decode_call(new) if new is not None else None
    return make_error_output(call, text) if isinstance(call, wire.Item) else None


def without_outputs(items: RawItems, keys: Collection[CallKey]) -> RawItems:
    """Return items without the outputs of some calls."""
    return RawItems.join(
        [
            raw
            for fields, raw in _read(items)
            if fields.kind not in CALL_TYPES or call_key(raw) not in keys
        ]
    )


class InputForm:
    """The input form of a history that grows: each piece is converted once.

    A piece that needs no change is the same object as before.
    """

    def __init__(self, rules: ReplayRules) -> None:
        self.rules: ReplayRules = rules
        self._pieces: list[RawItems] = []
        self._open: dict[CallKey, int | None] = {}
        """The calls without output, and the piece that each is in; `None` if it can wait."""
        self._ids: set[str] = set()
        """The ids of all items."""

    def copy(self) -> Self:
        """Return an independent copy."""
        other = type(self)(self.rules)
        other._pieces = self._pieces.copy()  # noqa: SLF001 - of the same class
        other._open = self._open.copy()  # noqa: SLF001
        other._ids = self._ids.copy()  # noqa: SLF001
        return other

    @property
    def open_calls(self) -> Collection[CallKey]:
        """The calls without output that the form has if new items answer them."""
        return self._open.keys()

    def append(self, piece: Piece) -> None:
        """Convert the next piece of the history."""
        entries = _read(piece.items)
        kept: list[tuple[_Fields, msgspec.Raw]] = []
        well_formed = is_well_formed(piece.items)
        for given, raw in entries:
            fields = given
            new = _convert(fields, raw, self.rules, piece.origin)
            if new is not None and not well_formed:
                new, old = repair(new), new
                fields = fields if new is None or new is old else _read_one(new)
            if new is not None:
                new = self._with_unique_id(fields, new)
            if new is not None and self._matches(fields, new):
                kept.append((fields, new))
        new_items = _without_loose_reasoning(kept)
        self._pieces.append(_join(piece.items, new_items, [raw for _, raw in entries]))

    def _with_unique_id(self, fields: _Fields, raw: msgspec.Raw) -> msgspec.Raw | None:
        """Return an item without an id that an earlier item has; `None` if it needs the id.

        An id that the API does not take, because of how it begins, is left out, too.
        """
        if not isinstance(fields.id, str) or fields.kind == SHARED_ID:
            return raw
        prefix = ID_PREFIXES.get(fields.kind)
        if prefix is not None and not fields.id.startswith(prefix):
            other = fields.kind == "message" and bytes(fields.role) != ROLE_OF_MODEL
            return raw if other else _with_changes(raw, {"id": None})
        if not fields.id:
            return raw
        if fields.id not in self._ids:
            self._ids.add(fields.id)
            return raw
        return _with_changes(raw, {"id": None}) if fields.kind in OPTIONAL_ID else None

    def _matches(self, fields: _Fields, raw: msgspec.Raw) -> bool:
        """Whether a call is the only one with its id, or an output has a call before it."""
        kind = fields.kind
        if kind not in OUTPUT_TYPES and kind not in CALL_TYPES:
            return True
        key = call_key(raw)
        if key is None:  # the server runs the call, or nothing can answer it
            hosted = container_call_key(raw)
            if hosted is not None:
                self._open.setdefault(hosted, None)
            return hosted is not None or bool(fields.execution == "server")
        was_open = key in self._open
        if kind in CALL_TYPES:
            self._open.pop(key, None)
            return was_open
        if not was_open:
            self._open[key] = None if fields.async_ is True else len(self._pieces)
        return not was_open

    def items(self, answered: Collection[CallKey] = ()) -> list[RawItems]:
        """Return the converted items, in pieces that are not empty.

        :param answered: the calls whose outputs follow in the new items of the request. Other
            calls without output are left out.
        """
        pieces = self._pieces
        unanswered = {
            key: number
            for key, number in self._open.items()
            if number is not None and key not in answered
        }
        if unanswered:
            pieces = pieces.copy()
            for number in set(unanswered.values()):
                # Another piece may have an answered call with the same id.
                own = {key for key, place in unanswered.items() if place == number}
                pieces[number] = _without_calls(pieces[number], own)
        pieces = [items for items in pieces if items.count]
        limit = self.rules.max_items
        if limit is not None and sum(items.count for items in pieces) > limit:
            rules = msgspec.structs.replace(self.rules, max_items=None)
            latest = _latest_items(pieces, limit, answered)
            return to_input_items([Piece(latest, Origin())], rules, answered)
        return pieces


# --- One item ----------------------------------------------------------------------------


def _convert(
    fields: _Fields, raw: msgspec.Raw, rules: ReplayRules, origin: Origin
) -> msgspec.Raw | None:
    """Return the input form of one item, without regard to the others; `None` if it has none."""
    kind = fields.kind
    if kind == "" and not _starts_with(raw, b"{"):  # null, or another value that is no item
        return None
    elsewhere = _differ(origin.endpoint, rules.endpoint)
    if _is_unreadable(fields, rules, origin):
        return None
    if kind in TEXTS and bytes(fields.name) in NO_NAMES:
        return None
    if kind in CHECKED or len(fields.created_by) or rules.statuses == "omit":
        changes = _field_changes(kind, fields, rules)
        raw = _with_changes(raw, changes) if changes else raw
    if elsewhere:
        raw = _without_foreign_ids(fields, raw)
    if rules.images == "omit":
        raw = _without_media(kind, raw, IMAGES)
    if rules.max_output is not None and kind in TOOL_OUTPUTS:
        name = TOOL_OUTPUTS[kind]
        output = _object_decoder.decode(raw).get(name)
        if output is not None:
            shorter = _shortened(output, rules.max_output, OUTPUT_TEXTS)
            raw = raw if shorter is output else _with_changes(raw, {name: shorter})
    if len(raw) > MAX_STRING:
        raw = _without_media(kind, raw, MAX_MEDIA)
        raw = _shortened(raw, MAX_STRING)
    return raw


def _is_unreadable(fields: _Fields, rules: ReplayRules, origin: Origin) -> bool:
    """Whether the server of the next turn cannot read an item.

    With ``reasoning="keep"`` the user says that endpoints can read each other's encrypted items.
    """
    if _differ(origin.endpoint, rules.endpoint):
        encrypted = rules.reasoning != "keep" and _is_encrypted(fields)
        if encrypted or fields.kind == "item_reference":
            return True
    return fields.kind == "reasoning" and _is_lost(fields, rules, origin)


def _is_lost(fields: _Fields, rules: ReplayRules, origin: Origin) -> bool:
    """Whether the server of the next turn cannot read a reasoning item."""
    if rules.reasoning == "omit":
        return True
    if rules.reasoning == "same_model" and _differ(origin.model, rules.model):
        return True
    if _is_encrypted(fields) and len(fields.encrypted_content) <= MAX_STRING:
        return False
    stored = rules.stored and origin.stored
    return not stored or _differ(origin.endpoint, rules.endpoint)


def _is_encrypted(fields: _Fields) -> bool:
    """Whether an item has encrypted content."""
    content = fields.encrypted_content
    return _starts_with(content, b'"') and len(content) > len('""')


def _differ(one: str | None, other: str | None) -> bool:
    """Whether two names of models or endpoints are known, and are not the same."""
    return one is not None and other is not None and one != other


def _without_foreign_ids(fields: _Fields, raw: msgspec.Raw) -> msgspec.Raw:
    """Return an item of another endpoint without the ids that mean nothing elsewhere."""
    if isinstance(fields.id, str) and fields.kind in OPTIONAL_ID:
        raw = _with_changes(raw, {"id": None})
    return _without_media(fields.kind, raw, {}, files=True) if b'"file_id"' in bytes(raw) else raw


def _field_changes(
    kind: str, fields: _Fields, rules: ReplayRules
) -> Mapping[str, msgspec.Raw | None]:
    """Return the new values of the fields of an item; `None` for a field to be removed."""
    changes: dict[str, msgspec.Raw | None] = {}
    removed = REMOVED.get(kind, REMOVED_FROM_ALL)
    if len(fields.created_by):
        changes["created_by"] = None
    if len(fields.status) and (
        "status" in removed or (rules.statuses == "omit" and kind in OPTIONAL_STATUS)
    ):
        changes["status"] = None
    for name, value in ADDED.get(kind, {}).items():
        if bytes(getattr(fields, name)) in {b"", b"null"}:
            changes[name] = msgspec.Raw(value)
    for name, (accepted, value) in ACCEPTED.get(kind, {}).items():
        if name not in changes and bytes(getattr(fields, name)) not in {b"", *accepted}:
            changes[name] = msgspec.Raw(value)
    name = TEXTS.get(kind, "")
    if name and not _starts_with(getattr(fields, name), b'"'):
        value = bytes(getattr(fields, name))
        changes[name] = _encode("" if value == b"null" else value.decode())
    return changes


def _with_changes(raw: msgspec.Raw, changes: Mapping[str, msgspec.Raw | None]) -> msgspec.Raw:
    """Return an item with other fields. The values of all others keep their bytes."""
    changed = {**_object_decoder.decode(raw), **changes}
    return _encode({name: value for name, value in changed.items() if value is not None})


def _without_media(
    kind: str, raw: msgspec.Raw, limits: Mapping[str, int], *, files: bool = False
) -> msgspec.Raw:
    """Return an item, or a part, with placeholders for images and files.

    :param limits: the types of the parts and items to be left out, and the number of bytes up to
        which they stay.
    :param files: whether those are left out that only name a file at the server.
    """
    is_file = files and kind in PLACEHOLDERS and isinstance(_read_one(raw).file_id, str)
    if is_file or len(raw) > limits.get(kind, len(raw)):
        return _encode(PLACEHOLDERS[kind])
    changes: dict[str, msgspec.Raw | None] = {}
    item = _object_decoder.decode(raw)
    for name in ("content", "output"):
        value = item.get(name, msgspec.Raw())
        if _starts_with(value, b"{"):
            part = _without_media(_read_one(value).kind, value, limits, files=files)
            if part is not value:
                changes[name] = part
        elif _starts_with(value, b"["):
            old = _array_decoder.decode(value)
            new = [
                _without_media(_read_one(part).kind, part, limits, files=files)
                if _starts_with(part, b"{")
                else part
                for part in old
            ]
            if any(one is not other for one, other in zip(old, new, strict=True)):
                changes[name] = _encode(new)
    return _with_changes(raw, changes) if changes else raw


def _shortened(raw: msgspec.Raw, limit: int, fields: Collection[str] | None = None) -> msgspec.Raw:
    """Return JSON in which no text is longer than a number of characters.

    :param fields: the names of the fields that may be changed; `None` for all.
    """
    if len(raw) - len('""') <= limit:  # a character is at least one byte
        return raw
    if _starts_with(raw, b'"'):
        text: str = msgspec.json.decode(raw)
        return raw if len(text) <= limit else _encode(shorten(text, limit))
    if _starts_with(raw, b"{"):
        old = _object_decoder.decode(raw)
        new = {
            name: _shortened(value, limit, fields)
            if (fields is None and name not in MEDIA_FIELDS) or (fields and name in fields)
            else value
            for name, value in old.items()
        }
        return raw if all(new[name] is old[name] for name in old) else _encode(new)
    if _starts_with(raw, b"["):
        values = _array_decoder.decode(raw)
        shorter = [
            # A text of a list has no name.
            value if fields and _starts_with(value, b'"') else _shortened(value, limit, fields)
            for value in values
        ]
        same = all(one is other for one, other in zip(values, shorter, strict=True))
        return raw if same else _encode(shorter)
    return raw  # a number


def shorten(text: str, limit: int) -> str:
    """Return a text of at most so many characters: its beginning, a notice, and its end."""
    if len(text) <= limit:
        return text
    notice = f"\n[... {len(text):,} characters, shortened to {limit:,} ...]\n"
    room = limit - len(notice)
    if room < len("..."):
        return text[:limit]
    return text[: room - room // 2] + notice + text[len(text) - room // 2 :]


# --- Several items -----------------------------------------------------------------------


def _without_loose_reasoning(entries: Sequence[tuple[_Fields, msgspec.Raw]]) -> list[msgspec.Raw]:
    """Return items without the reasoning that no item of the model follows."""
    kept: list[msgspec.Raw] = []
    followed = False
    if all(fields.type != "reasoning" for fields, _ in entries):
        return [raw for _, raw in entries]
    for fields, raw in reversed(entries):
        if fields.kind != "reasoning":
            followed = _is_of_the_model(fields)
        elif not followed:
            continue
        kept.append(raw)
    kept.reverse()
    return kept


def _is_of_the_model(fields: _Fields) -> bool:
    return fields.kind not in NOT_OF_THE_MODEL and bytes(fields.role) not in ROLES_OF_OTHERS


def _without_calls(items: RawItems, keys: Collection[CallKey]) -> RawItems:
    """Return items without the last call of each key, and without the reasoning before it."""
    left = set(keys)
    kept: list[tuple[_Fields, msgspec.Raw]] = []
    for fields, raw in reversed(_read(items)):
        key = call_key(raw) if fields.kind in OUTPUT_TYPES else None
        if key in left:
            left.discard(key)
        else:
            kept.append((fields, raw))
    return RawItems.join(_without_loose_reasoning(kept[::-1]))


def _latest_items(
    pieces: Sequence[RawItems], limit: int, answered: Collection[CallKey]
) -> RawItems:
    """Return the latest items: so many, or fewer from a message of the user on.

    Calls whose outputs follow stay, and so does the reasoning before the first item. The latest
    compaction item stands for the items before it, so it stays, too.
    """
    entries = [entry for items in pieces for entry in _read(items)]
    waiting = [
        number
        for number, (fields, raw) in enumerate(entries)
        if fields.kind in OUTPUT_TYPES and call_key(raw) in answered
    ]
    end = min(waiting, default=len(entries))
    start = min(len(entries) - limit, end)
    messages = (n for n in range(start, end) if bytes(entries[n][0].role) == b'"user"')
    start = next(messages, start)
    while start and entries[start - 1][0].kind == "reasoning":
        start -= 1
    compactions = [raw for fields, raw in entries[:start] if fields.kind == "compaction"]
    return RawItems.join([*compactions[-1:], *(raw for _, raw in entries[start:])])


def _join(items: RawItems, new: Sequence[msgspec.Raw], old: Sequence[msgspec.Raw]) -> RawItems:
    """Return the joined new items; the same object as before if no item has changed."""
    same = len(new) == len(old) and all(map(operator.is_, new, old))
    return items if same else RawItems.join(new)


def _read(items: RawItems) -> list[tuple[_Fields, msgspec.Raw]]:
    """Return the fields of each item, and the item."""
    raws = list(items)
    try:
        fields = _list_decoder.decode(items.array)
    except msgspec.ValidationError:  # not all items are objects
        fields = [_read_one(raw) for raw in raws]
    return list(zip(fields, raws, strict=True))


def _read_one(raw: msgspec.Raw) -> _Fields:
    return _decoder.decode(raw) if _starts_with(raw, b"{") else _Fields()


def _starts_with(raw: msgspec.Raw, first: bytes) -> bool:
    return bytes(memoryview(raw)[:1]) == first


def _encode(value: Any) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(value))
