"""What the server remembers of what it was sent: requests and connections."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, cast

from trio_responses.testing.errors import Json


@dataclass(slots=True)
class Request:
    """One ``response.create`` as it came, with the conversation that it continues.

    ``request["model"]`` reads a field of the frame; ``request.get("store")`` one that may be
    missing.
    """

    body: Json
    """The frame as it came, ``type`` and ``stream_id`` included."""

    connection: int
    """The number of the connection, counted from 1 in the order of accepted streams."""

    lane: str | None = None
    """The ``stream_id``, or None for the default lane."""

    history: list[Json] = field(default_factory=list[Json])
    """The whole conversation that the model would see, oldest first: inputs and outputs of the
    chain behind ``previous_response_id``, then the new input. Filled in when the request
    starts; empty for one that was refused."""

    response_id: str | None = None
    """The id of the response that answers it, once started."""

    def __getitem__(self, name: str) -> Any:
        return self.body[name]

    def get(self, name: str, default: Any = None) -> Any:
        """Return a field of the frame, or ``default``."""
        return self.body.get(name, default)

    @property
    def input_items(self) -> list[Json]:
        """The items of this request alone; a string input is one user message."""
        value: Any = self.body.get("input")
        if isinstance(value, str):
            content = [{"type": "input_text", "text": value}]
            return [{"type": "message", "role": "user", "content": content}]
        return list(cast("list[Json]", value or []))

    @property
    def text(self) -> str:
        """The newest user text in the history."""
        for item in reversed(self.history or self.input_items):
            if item.get("role") == "user":
                return item_text(item)
        return ""

    @property
    def turn(self) -> int:
        """How many user messages the history holds."""
        return sum(item.get("role") == "user" for item in self.history or self.input_items)

    @property
    def tools(self) -> list[Json]:
        """The tools that the request offers."""
        return list(cast("list[Json]", self.body.get("tools") or []))

    @property
    def is_warm_up(self) -> bool:
        """Whether the request asks for no output (docs/protocol.md 5.4)."""
        options = cast("Json", self.body.get("prompt_cache_options") or {})
        return self.body.get("generate") is False or options.get("prewarm") is True

    @property
    def wants_encrypted_reasoning(self) -> bool:
        """Whether reasoning items are to come with ``encrypted_content``."""
        return "reasoning.encrypted_content" in cast("list[Any]", self.body.get("include") or [])

    @property
    def stores(self) -> bool:
        """Whether the response is persisted beyond this connection; the default is yes."""
        return self.body.get("store") is not False


@dataclass(slots=True)
class Connection:
    """One stream that was opened to the server, whatever became of it."""

    number: int
    method: str = ""
    path: str = ""
    """The request target, query included."""
    headers: dict[str, str] = field(default_factory=dict[str, str], repr=False)
    """Request headers by lower-case name. They hold the client's key, so no repr shows them."""
    status: int | None = None
    """The HTTP status of the answer: 101 for an accepted upgrade, None for no answer."""
    is_open: bool = False
    """Whether it is an open WebSocket now."""
    requests: int = 0
    """Requests received."""
    max_active: int = 0
    """The most responses that were active at once."""
    close_code: int | None = None
    """The close code that ended it: the client's, or the one the server sent; 1006 for none."""
    close_reason: str | None = None


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
