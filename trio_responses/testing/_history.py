"""Items of a conversation as JSON: their text, their words, and their compaction."""

import base64
import hashlib
from collections.abc import Iterator, Sequence
from typing import Any, Final, cast

import msgspec

from trio_responses.testing._frames import Json


def items_of(value: Any) -> list[Json]:
    """Return an ``input`` as items; a string is one user message, and nothing is no item."""
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
    """Count the words in every string of some JSON: what this server takes for tokens."""
    return sum(len(text.split()) for text in _strings(value))


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        fields = cast("Json", value)
        for name, inner in fields.items():
            if name in _TEXT_FIELDS:
                yield from _strings(inner)
    elif isinstance(value, list):
        for inner in cast("Any", value):
            yield from _strings(inner)


_TEXT_FIELDS = frozenset(
    {"content", "text", "output", "arguments", "input", "summary", "description", "refusal"}
)


_TYPE: Final = "compaction"


class _Content(msgspec.Struct):
    """What stands in ``encrypted_content``."""

    turns: int
    digest: str


def is_due(body: Json, history: Sequence[Json]) -> bool:
    """Whether the ``context_management`` of a request wants this history compacted.

    The words are counted from the latest compaction item on.
    """
    rules = cast("list[Json]", body.get("context_management") or [])
    limits = [rule["compact_threshold"] for rule in rules if rule.get("compact_threshold")]
    return bool(limits) and count_words(list(since_compaction(history))) > min(limits)


def make_item(history: Sequence[Json], item_id: str) -> Json:
    """Return the item that takes the place of ``history``."""
    digest = hashlib.sha256(msgspec.json.encode(history)).hexdigest()
    content = msgspec.json.encode(_Content(count_turns(history), digest))
    encrypted = base64.urlsafe_b64encode(content).decode()
    return {"id": item_id, "type": _TYPE, "encrypted_content": encrypted}


def since_compaction(items: Sequence[Json]) -> Sequence[Json]:
    """Return the items from the latest compaction on; all of them if there was none."""
    for place in reversed(range(len(items))):
        if items[place].get("type") == _TYPE:
            return items[place:]
    return items


def compacted(history: Sequence[Json], output: Sequence[Json]) -> tuple[Json, ...]:
    """Return what a response leaves to remember: the history and its output, or a compaction."""
    if any(item.get("type") == _TYPE for item in output):
        return tuple(since_compaction(output))
    return (*history, *output)


def count_turns(items: Sequence[Json]) -> int:
    """Count the user messages of a history, those that were compacted away included."""
    turns = 0
    for item in since_compaction(items):
        if item.get("type") == _TYPE:
            turns += _turns_in(item.get("encrypted_content"))
        else:
            turns += item.get("role") == "user"
    return turns


def _turns_in(encrypted: Any) -> int:
    try:
        return msgspec.json.decode(base64.urlsafe_b64decode(encrypted), type=_Content).turns
    except (TypeError, ValueError):
        return 0  # another server wrote it, or nobody
