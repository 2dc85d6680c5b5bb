"""What the server remembers of what it was sent: requests, steering input and connections."""

from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, cast

from trio_responses.testing._frames import Json
from trio_responses.testing._history import count_turns, item_text, items_of

SteerState: TypeAlias = Literal["accepted", "pending", "committed", "failed"]
"""What became of a steering input; see `Steer.state`."""


@dataclass(slots=True)
class SteerRequest:
    """One ``response.steer`` as it came, and what became of it."""

    body: Json
    """The frame as it came."""

    connection: int
    """The number of the connection."""

    lane: str | None = None
    """The lane of the response that it is for; None is the default lane, or an unknown one."""

    id: str | None = None
    """The id that the server gave it; None for one that was refused."""

    state: SteerState = "accepted"
    """Accepted, and waiting for a safe place; pending, and waiting for tool outputs; committed
    by a response; or failed, whether refused at once or later."""

    code: str | None = None
    """Why it failed."""

    successor: str | None = None
    """The id of the response that committed it."""

    @property
    def previous_response_id(self) -> Any:
        """The response that it is for."""
        return self.body.get("previous_response_id")

    @property
    def input(self) -> Any:
        """The input as it came."""
        return self.body.get("input", "")

    @property
    def input_items(self) -> list[Json]:
        """The input as items, once it was accepted."""
        return items_of(self.input)

    @property
    def text(self) -> str:
        """The text of the input, once it was accepted."""
        return "".join(item_text(item) for item in self.input_items)


@dataclass(slots=True)
class Request:
    """One ``response.create`` as it came, with the conversation that it continues.

    The successor of a steered response has one, too: the create of its parent, with the steering
    input in place of the input.

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

    steers: list[SteerRequest] = field(default_factory=list[SteerRequest])
    """The steering input that it answers: all of the input of a successor, or what was put
    before the tool outputs that a pending input had waited for."""

    def __getitem__(self, name: str) -> Any:
        """Return a field of the frame."""
        return self.body[name]

    def get(self, name: str, default: Any = None) -> Any:
        """Return a field of the frame, or ``default``."""
        return self.body.get(name, default)

    @property
    def input_items(self) -> list[Json]:
        """The items of this request alone; a string input is one user message."""
        return items_of(self.body.get("input"))

    def output_of(self, call: str) -> Any:
        """Return what a tool has answered, as it stands in this request's input.

        :param call: the ``call_id``, or the name of a function that was called once.
        :return: the ``output``: text, or a list of content parts.
        :raises AssertionError: when there is no such output here, naming those that are.
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
        fitting = [call_id for call_id in outputs if names.get(call_id) == call]
        if len(fitting) == 1:
            return outputs[fitting[0]]
        known = [f"{call_id} ({names.get(call_id) or 'no name'})" for call_id in outputs]
        raise AssertionError(
            f"the request has {len(fitting) or 'no'} outputs of {call!r};"
            f" it has: {', '.join(known) or 'none at all'}"
        )

    @property
    def text(self) -> str:
        """The newest user text in the history."""
        for item in reversed(self.history or self.input_items):
            if item.get("role") == "user":
                return item_text(item)
        return ""

    @property
    def turn(self) -> int:
        """How many user messages the history holds, those of a compaction item included."""
        return count_turns(self.history or self.input_items)

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
    """Counted from 1, in the order of accepted streams."""
    method: str = ""
    """That of the request, such as ``GET``; empty before it came."""
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
    """The reason with that code; None without a close frame."""
