"""Histories of conversations, made of JSON items: text, word counts and compaction.

The server counts a word as a token. A compaction item stands for the items before it. The item is
opaque to clients, the same in every run, and keeps the number of user messages that it replaces, so
that the count of turns goes on (docs/protocol.md 5.5). No I/O.
"""

import base64
import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, TypeAlias, cast, final

import msgspec

from trio_responses.testing._frames import Json

_COMPACTION: Final = "compaction"
_TEXT_FIELDS: Final = frozenset(
    {"content", "text", "output", "arguments", "input", "summary", "description", "refusal"}
)

OUTPUT_TYPES: Final[Mapping[str, str]] = {
    "function_call": "function_call_output",
    "custom_tool_call": "custom_tool_call_output",
    "computer_call": "computer_call_output",
    "shell_call": "shell_call_output",
    "local_shell_call": "local_shell_call_output",
    "apply_patch_call": "apply_patch_call_output",
    "tool_search_call": "tool_search_output",
}
"""The calls that a client answers, and the type of each output."""

CALL_TYPES: Final[Mapping[str, str]] = {output: call for call, output in OUTPUT_TYPES.items()}

CallKey: TypeAlias = tuple[str, str]
"""The type of a call and its ``call_id``."""


_NO_CALLS: Final[Mapping[CallKey, Json]] = {}


class _CompactionContent(msgspec.Struct):
    """The decoded ``encrypted_content`` of a compaction item."""

    turns: int
    digest: str


# Items


def items_of(value: Any) -> list[Json]:
    """Return an ``input`` as a list of items: a string is one user message, None is no item."""
    if isinstance(value, str):
        content = [{"type": "input_text", "text": value}]
        return [{"type": "message", "role": "user", "content": content}]
    return list(cast("list[Json]", value or []))


def item_text(item: Json) -> str:
    """Return the text of a message or of a tool output."""
    content: Any = item.get("content", item.get("output"))
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    parts = cast("list[Json | None]", content)
    return "".join(str(part.get("text", "")) for part in parts if isinstance(part, dict))


def count_words(value: Any) -> int:
    """Return the number of words in the text fields of a JSON value, which count as its tokens."""
    return sum(len(text.split()) for text in _iterate_texts(value))


def _iterate_texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        fields = cast("Json", value)
        for name, inner in fields.items():
            if name in _TEXT_FIELDS:
                yield from _iterate_texts(inner)
    elif isinstance(value, list | tuple):
        for inner in cast("Any", value):
            yield from _iterate_texts(inner)


# Calls and outputs


def call_key(item: Json) -> CallKey | None:
    """Return the key of a call that the client may answer; None for every other item."""
    kind = str(item.get("type"))
    if kind not in OUTPUT_TYPES or is_hosted(item):
        return None
    call_id: Any = item.get("call_id")
    if kind == "local_shell_call":
        call_id = call_id or item.get("id")
    return _key(kind, call_id)


def hosted_key(item: Json) -> CallKey | None:
    """Return the key of a call that the server itself runs; None for every other item."""
    kind = str(item.get("type"))
    is_call = kind in OUTPUT_TYPES and is_hosted(item)
    return _key(kind, item.get("call_id")) if is_call else None


def output_key(item: Json) -> CallKey | None:
    """Return the key of the call that an output answers; None for every other item."""
    kind = CALL_TYPES.get(str(item.get("type")))
    if kind is None or is_hosted(item):
        return None
    # The output of a local shell has the id of the call as its own.
    return _key(kind, item.get("id" if kind == "local_shell_call" else "call_id"))


def _key(kind: str, call_id: Any) -> CallKey | None:
    return (kind, call_id) if isinstance(call_id, str) and call_id else None


def is_hosted(item: Json) -> bool:
    """Whether a call or output is of the server's own tool search or shell."""
    environment: Any = item.get("environment")
    kind = cast("Json", environment).get("type") if isinstance(environment, dict) else None
    return item.get("execution") == "server" or kind == "container_reference"


# Histories


@final
class History:
    """The items of a conversation, oldest first: those of an earlier history, and new ones.

    Histories are immutable and share their items, so that each one costs the memory of its new
    items only.
    """

    __slots__ = ("_before", "_new", "open_calls", "recent_words", "turns", "words")

    def __init__(self, items: Iterable[Json] = (), before: "History | None" = None) -> None:
        self._before = before
        self._new = tuple(items)
        recent = since_compaction(self._new)
        is_compacted = bool(recent) and recent[0].get("type") == _COMPACTION
        if is_compacted or before is None:
            turns = recent_words = 0
        else:
            turns, recent_words = before.turns, before.recent_words
        words = 0 if before is None else before.words
        self.words: int = words + count_words(self._new)
        """The number of words in all items."""
        self.recent_words: int = recent_words + count_words(recent)
        """The number of words in the items from the latest compaction item on."""
        self.turns: int = turns + sum(_turns_in(item) for item in recent)
        """The number of user messages, those before a compaction included."""

        calls = dict(_NO_CALLS if before is None else before.open_calls)
        for item in self._new:
            if (call := call_key(item)) is not None:
                if not item.get("async"):  # the next turn need not have the output
                    calls[call] = item
            elif (answered := output_key(item)) is not None:
                calls.pop(answered, None)
        self.open_calls: Mapping[CallKey, Json] = calls or _NO_CALLS
        """The calls without an output."""

    def newest_first(self) -> Iterator[Json]:
        """Iterate over the items, newest first."""
        part: History | None = self
        while part is not None:
            yield from reversed(part._new)  # noqa: SLF001 - another object of this class
            part = part._before  # noqa: SLF001 - likewise

    def to_list(self) -> list[Json]:
        """Return the items, oldest first."""
        items = list(self.newest_first())
        items.reverse()
        return items


def _turns_in(item: Json) -> int:
    if item.get("type") == _COMPACTION:
        return _compacted_turns(item.get("encrypted_content"))
    return item.get("role") == "user"


# Compaction


def is_compaction_due(body: Json, history: History) -> bool:
    """Whether the ``context_management`` of a request asks for a compaction of this history.

    The words count from the latest compaction item on.
    """
    rules = cast("list[Json]", body.get("context_management") or [])
    limits = [rule["compact_threshold"] for rule in rules if rule.get("compact_threshold")]
    return bool(limits) and history.recent_words > min(limits)


def make_compaction(history: History, item_id: str) -> Json:
    """Return the compaction item that replaces ``history``."""
    digest = hashlib.sha256(msgspec.json.encode(history.to_list())).hexdigest()
    content = msgspec.json.encode(_CompactionContent(history.turns, digest))
    encrypted = base64.urlsafe_b64encode(content).decode()
    return {"id": item_id, "type": _COMPACTION, "encrypted_content": encrypted}


def since_compaction(items: Sequence[Json]) -> Sequence[Json]:
    """Return the items from the latest compaction item on, or all items if it is missing."""
    for index in reversed(range(len(items))):
        if items[index].get("type") == _COMPACTION:
            return items[index:]
    return items


def history_after(history: History, output: Sequence[Json]) -> History:
    """Return the history after a response: input and output, from a compaction in the output on.

    Calls that have no output yet stay.
    """
    if any(item.get("type") == _COMPACTION for item in output):
        recent = since_compaction(output)
        before = History(output[: len(output) - len(recent)], history)
        return History([*before.open_calls.values(), *recent])
    return History(output, history)


def _compacted_turns(encrypted: Any) -> int:
    try:
        content = base64.urlsafe_b64decode(encrypted)
        return msgspec.json.decode(content, type=_CompactionContent).turns
    except (TypeError, ValueError):
        return 0  # written by another server, or made up by the client


EMPTY_HISTORY: Final = History()
