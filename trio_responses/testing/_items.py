"""Items of a conversation as JSON: reading text out of them and counting their words.

What belongs elsewhere: the items that a response is made of (``events.py``), and which of them
a request stands on (``request.py``).
"""

from collections.abc import Iterator
from typing import Any, cast

from trio_responses.testing._errors import Json


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
