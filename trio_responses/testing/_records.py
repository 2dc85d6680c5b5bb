"""Records of what the test server receives: requests, steering inputs and connections.

A test reads them to check what its client sent. The server fills in the outcome as it goes on.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, TypeVar, cast, final, overload

from trio_responses.testing._frames import Json
from trio_responses.testing._history import EMPTY_HISTORY, History, item_text, items_of

_T = TypeVar("_T")

Transport: TypeAlias = Literal["websocket", "http"]
"""The transport of a request or connection."""

ServerTransport: TypeAlias = Literal["both", "websocket", "http"]
"""The transports of a server, or those of its clients that a fault is for."""

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
    """One ``response.create``, or ``POST /responses``, as the server received it.

    It has the conversation that the request continues.

    Made by the test server.

    The successor of a steered response has a request, too: a copy of its parent's request with the
    steering input as ``input``.

    ``request["model"]`` returns a field of the frame; ``request.get("store")`` returns a field that
    may be missing.
    """

    body: Json
    """The frame, or the body of the HTTP request, as received; ``type`` and ``stream_id`` are
    included."""

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

    transport: Transport = "websocket"
    """The transport by which the request came."""

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
        items = self._items.newest_first()
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

    @property
    def is_background(self) -> bool:
        """Whether the response runs in the background, without a connection."""
        return self.body.get("background") is True


@dataclass(slots=True)
class Connection:
    """One connection that a client opened to the server, with its handshake and its end.

    The request fields are those of the upgrade, or of the first HTTP request.
    """

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
    transport: Transport | None = None
    """The transport that the connection is used for; None for a refused upgrade."""
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

    @property
    def is_refused(self) -> bool:
        """Whether the server answered the upgrade with an HTTP error."""
        return self.transport is None and self.status is not None


@dataclass(slots=True)
class HTTPRequest:
    """One HTTP request that is no upgrade, and the status of its answer."""

    number: int
    """Counted from 1, in the order of arrival."""
    method: str
    """The HTTP method, such as ``POST``."""
    path: str
    """The path without the query, such as ``/v1/responses/resp_1``."""
    query: dict[str, list[str]]
    """The values of each parameter; the brackets of ``include[]`` are left out."""
    headers: dict[str, str] = field(repr=False)
    """By lower-case name. They contain the client's key: no repr shows them."""
    connection: int
    """The number of the connection."""
    body: bytes = field(default=b"", repr=False)
    """The body as received."""
    status: int | None = None
    """The status of the answer; None for no answer."""


@final
class Records(Sequence[_T]):  # noqa: PLW1641 - a mutable sequence has no hash
    """All records of one kind, in the order of arrival, of which the server keeps the latest.

    The length and the indexes count every record. A record that was dropped raises an error, and so
    does an iteration over all records if any was dropped. Take a slice of the latest ones then::

        for request in server.requests[-100:]: ...
    """

    def __init__(self, name: str, limit: int | None) -> None:
        self._name = name
        self._limit = limit
        self._kept: deque[_T] = deque(maxlen=limit)
        self._dropped = 0

    def __len__(self) -> int:
        """Return the number of records, those that were dropped included."""
        return self._dropped + len(self._kept)

    @overload
    def __getitem__(self, index: int) -> _T: ...

    @overload
    def __getitem__(self, index: slice) -> list[_T]: ...

    def __getitem__(self, index: int | slice) -> _T | list[_T]:
        """Return a record, or a list of records.

        :raises IndexError: If the server has no such record, or has dropped it.
        """
        if isinstance(index, slice):
            return [self[at] for at in range(*index.indices(len(self)))]
        at = range(len(self))[index]
        if at < self._dropped:
            raise IndexError(
                f"server.{self._name}[{at}] was dropped: the server keeps the latest {self._limit}"
                f" of {len(self)}; pass open_test_server(max_remembered=...) to keep more, or take"
                f" the latest ones, such as server.{self._name}[-{self._limit}:]"
            )
        return self._kept[at - self._dropped]

    def __iter__(self) -> Iterator[_T]:
        """Iterate over all records.

        :raises IndexError: If the server has dropped any.
        """
        return iter(self[:])

    def __eq__(self, other: object) -> bool:
        """Whether the records equal those of a sequence."""
        if not isinstance(other, Sequence):
            return NotImplemented
        others: list[Any] = list(cast("Any", other))
        return self[:] == others

    def __repr__(self) -> str:
        """Return the kept records."""
        dropped = f"{self._dropped} dropped, " if self._dropped else ""
        return f"<{self._name}: {dropped}{list(self._kept)!r}>"

    def append(self, record: _T) -> _T | None:
        """Add a record, and return the one that is dropped for it, or None."""
        dropped = self._kept[0] if len(self._kept) == self._limit else None
        self._dropped += dropped is not None
        self._kept.append(record)
        return dropped

    def clear(self) -> None:
        """Remove all records, and count from 0 again."""
        self._kept.clear()
        self._dropped = 0
