"""Records of what the test server receives: requests, steering inputs and connections.

A test reads them to check what its client sent. The server fills in the outcome as it goes on.
"""

from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, cast

from trio_responses.testing._frames import Json
from trio_responses.testing._history import EMPTY_HISTORY, History, item_text, items_of

SteerState: TypeAlias = Literal["accepted", "pending", "committed", "failed"]
"""The state of a steering input; see `SteerRequest.state`."""


@dataclass(slots=True)
class SteerRequest:
    """One ``response.steer`` as the server received it, and its outcome."""

    body: Json
    """The frame as received."""

    connection: int
    """The number of the connection."""

    lane: str | None = None
    """The lane of the steered response; None is the default lane, or an unknown response."""

    id: str | None = None
    """The id that the server assigned; None for a refused input."""

    state: SteerState = "accepted"
    """``accepted``: waits for the response to reach an end or a safe point; ``pending``: waits for
    tool outputs; ``committed``: a response started with the input; ``failed``: refused, at once or
    later."""

    code: str | None = None
    """The error code of a failed input."""

    successor: str | None = None
    """The id of the response that committed the input."""

    @property
    def previous_response_id(self) -> Any:
        """The id of the steered response."""
        return self.body.get("previous_response_id")

    @property
    def input(self) -> Any:
        """The steering input as received."""
        return self.body.get("input", "")

    @property
    def input_items(self) -> list[Json]:
        """The steering input as items. Only an accepted input is sure to be valid."""
        return items_of(self.input)

    @property
    def text(self) -> str:
        """The text of the steering input. Only an accepted input is sure to be valid."""
        return "".join(item_text(item) for item in self.input_items)


@dataclass(slots=True)
class Request:
    """One ``response.create`` as the server received it, with the conversation that it continues.

    The successor of a steered response has a request, too: a copy of its parent's request with the
    steering input as ``input``.

    ``request["model"]`` returns a field of the frame; ``request.get("store")`` returns a field that
    may be missing.
    """

    body: Json
    """The frame as received, ``type`` and ``stream_id`` included."""

    connection: int
    """The number of the connection, counted from 1 in the order of accepted streams."""

    lane: str | None = None
    """The ``stream_id``, or None for the default lane."""

    conversation: History = field(default=EMPTY_HISTORY, repr=False)
    """The conversation behind :attr:`history`. It shares its items with other requests."""

    response_id: str | None = None
    """The id of the response, once the request has started."""

    steers: list[SteerRequest] = field(default_factory=list[SteerRequest])
    """The steering inputs that the request answers: the whole input of a successor, or the pending
    inputs that the server puts before the tool outputs of this request."""

    def __getitem__(self, name: str) -> Any:
        """Return a field of the frame."""
        return self.body[name]

    @property
    def history(self) -> list[Json]:
        """The whole conversation as a model would see it, oldest item first.

        It has the inputs and outputs of the chain that ends with ``previous_response_id``, then the
        new input. Empty until the request starts, and for a refused request.
        """
        return self.conversation.to_list()

    def get(self, name: str, default: Any = None) -> Any:
        """Return a field of the frame, or ``default``."""
        return self.body.get(name, default)

    @property
    def input_items(self) -> list[Json]:
        """The input items of this request alone; a string input is one user message."""
        return items_of(self.body.get("input"))

    def output_of(self, call: str) -> Any:
        """Return the output of a tool call in this request's input.

        :param call: The ``call_id``, or the name of a function that was called once.
        :return: The ``output``: text, or a list of content parts.
        :raises AssertionError: If the input has no such output, or several of that name. The
            message lists the outputs that are there.
        """
        items = [item for item in (*self.history, *self.input_items) if "call_id" in item]
        names = {item["call_id"]: item.get("name") for item in items if "output" not in item}
        new = {item["call_id"] for item in self.input_items if "call_id" in item}
        outputs = {
            item["call_id"]: item["output"]
            for item in items
            if "output" in item and item["call_id"] in new
        }
        if call in outputs:
            return outputs[call]
        matching = [call_id for call_id in outputs if names.get(call_id) == call]
        if len(matching) == 1:
            return outputs[matching[0]]
        known = [f"{call_id} ({names.get(call_id) or 'unknown function'})" for call_id in outputs]
        hint = " (pass a call_id instead)" if matching else ""
        raise AssertionError(
            f"the request has {len(matching) or 'no'} outputs for {call!r}{hint};"
            f" its outputs are: {', '.join(known) or 'none'}"
        )

    @property
    def text(self) -> str:
        """The text of the newest user message in the history."""
        items = reversed(self._items)
        return next((item_text(item) for item in items if item.get("role") == "user"), "")

    @property
    def turn(self) -> int:
        """The number of user messages in the history, those before a compaction included."""
        return self._items.turns

    @property
    def _items(self) -> History:
        """The history, or the input of a request that has not started."""
        has_started = self.conversation is not EMPTY_HISTORY
        return self.conversation if has_started else History(self.input_items)

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
        """Whether the request asks for ``encrypted_content`` in reasoning items."""
        return "reasoning.encrypted_content" in cast("list[Any]", self.body.get("include") or [])

    @property
    def stores(self) -> bool:
        """Whether the server stores the response beyond this connection; by default yes."""
        return self.body.get("store") is not False


@dataclass(slots=True)
class Connection:
    """One connection that a client opened to the server, with its handshake and its end."""

    number: int
    """Counted from 1, in the order of accepted streams."""
    method: str = ""
    """The HTTP method, such as ``GET``; empty before the request head arrives."""
    path: str = ""
    """The request target, query included."""
    headers: dict[str, str] = field(default_factory=dict[str, str], repr=False)
    """Request headers by lower-case name. They contain the client's key: no repr shows them."""
    status: int | None = None
    """The HTTP status of the answer: 101 for an accepted upgrade, None for no answer."""
    is_open: bool = False
    """Whether the connection is an open WebSocket now."""
    requests: int = 0
    """The number of requests received."""
    max_active: int = 0
    """The highest number of responses that were active at once."""
    close_code: int | None = None
    """The close code that ended the connection: sent by the client or by the server; 1006 for an
    end without a close frame."""
    close_reason: str | None = None
    """The reason of the close frame; None without a close frame."""
