"""Compaction: when a history is too long, and the item that takes its place. No I/O.

The item is opaque to clients, the same in every run, and keeps the number of user messages that
it stands for, so that turns go on being counted (docs/protocol.md 5.5).

What belongs elsewhere: the events around the item (``events.py``), and what a lane remembers
(``lanes.py``).
"""

import base64
import hashlib
from collections.abc import Sequence
from typing import Any, Final, cast

import msgspec

from trio_responses.testing._errors import Json
from trio_responses.testing._items import count_words

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
