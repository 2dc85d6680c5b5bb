"""Histories of conversations as lists of JSON items: text, word counts and compaction.

The server counts a word as a token. A compaction item stands for the items before it. The item is
opaque to clients, the same in every run, and keeps the number of user messages that it replaces, so
that the count of turns goes on (docs/protocol.md 5.5). No I/O.
"""

import base64
import hashlib
from collections.abc import Iterator, Sequence
from typing import Any, Final, cast

import msgspec

from trio_responses.testing._frames import Json

_COMPACTION: Final = "compaction"
_TEXT_FIELDS: Final = frozenset(
    {"content", "text", "output", "arguments", "input", "summary", "description", "refusal"}
)


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
    elif isinstance(value, list):
        for inner in cast("Any", value):
            yield from _iterate_texts(inner)


def count_turns(items: Sequence[Json]) -> int:
    """Return the number of user messages in a history, those before a compaction included."""
    turns = 0
    for item in since_compaction(items):
        if item.get("type") == _COMPACTION:
            turns += _compacted_turns(item.get("encrypted_content"))
        else:
            turns += item.get("role") == "user"
    return turns


# Compaction


def is_compaction_due(body: Json, history: Sequence[Json]) -> bool:
    """Whether the ``context_management`` of a request asks for a compaction of this history.

    The words count from the latest compaction item on.
    """
    rules = cast("list[Json]", body.get("context_management") or [])
    limits = [rule["compact_threshold"] for rule in rules if rule.get("compact_threshold")]
    return bool(limits) and count_words(list(since_compaction(history))) > min(limits)


def make_compaction(history: Sequence[Json], item_id: str) -> Json:
    """Return the compaction item that replaces ``history``."""
    digest = hashlib.sha256(msgspec.json.encode(history)).hexdigest()
    content = msgspec.json.encode(_CompactionContent(count_turns(history), digest))
    encrypted = base64.urlsafe_b64encode(content).decode()
    return {"id": item_id, "type": _COMPACTION, "encrypted_content": encrypted}


def since_compaction(items: Sequence[Json]) -> Sequence[Json]:
    """Return the items from the latest compaction item on, or all items if it is missing."""
    for index in reversed(range(len(items))):
        if items[index].get("type") == _COMPACTION:
            return items[index:]
    return items


def history_after(history: Sequence[Json], output: Sequence[Json]) -> tuple[Json, ...]:
    """Return the history after a response: input and output, from a compaction in the output on."""
    if any(item.get("type") == _COMPACTION for item in output):
        return tuple(since_compaction(output))
    return (*history, *output)


def _compacted_turns(encrypted: Any) -> int:
    try:
        content = base64.urlsafe_b64decode(encrypted)
        return msgspec.json.decode(content, type=_CompactionContent).turns
    except (TypeError, ValueError):
        return 0  # written by another server, or made up by the client
