"""The records that instruments get: one for each connection, socket, turn, run, tool and lease.

A record is filled in over time, and all hooks about one thing get the same record. Times are in
seconds on Trio's clock.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Final, Literal

import trio

from trio_responses._errors import APIError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import msgspec

    from trio_responses._errors import ResponsesError
    from trio_responses._wire import Response, ToolCall, Usage

__all__ = [
    "ConnectionRecord",
    "LeaseRecord",
    "RunRecord",
    "SocketRecord",
    "StoreOperationRecord",
    "ToolRecord",
    "TurnRecord",
]

_sockets: Final[Iterator[int]] = count(1)
_turns: Final[Iterator[int]] = count(1)
_runs: Final[Iterator[int]] = count(1)


@dataclass(slots=True, kw_only=True, eq=False, weakref_slot=True)
class ConnectionRecord:
    """The facts about one connection, which hold until it has ended."""

    host: str
    """The server's host."""
    port: int
    """The server's port."""
    count_unread: Callable[[], int] = field(repr=False)
    """Returns the bytes of events that wait to be read; any thread may call it."""


@dataclass(slots=True, kw_only=True, eq=False)
class SocketRecord:
    """The facts about one socket, or about the attempt to open one."""

    number: int = field(default_factory=lambda: next(_sockets))
    """The number of the socket: sockets of this process are counted from 1."""
    host: str
    """The server's host."""
    port: int
    """The server's port."""
    transport: Literal["websocket", "http"] = "websocket"
    """``"http"`` for one request over HTTP, of which instruments get the frames alone."""
    attempt: int = 0
    """The number of attempts to reconnect before, since the server was last healthy."""
    rotation: bool = False
    """Whether the socket is opened to replace one that still works."""
    started_at: float = field(default_factory=trio.current_time)
    """The time when the socket started to open."""
    opened_at: float | None = None
    """The time when the handshake had succeeded."""
    ended_at: float | None = None
    """The time when the socket was lost or closed, or could not be opened."""
    error: ResponsesError | None = None
    """Why the socket failed or was lost; `None` when this side closed it."""


@dataclass(slots=True, kw_only=True, eq=False)
class TurnRecord:
    """The facts about one turn: of a connection, a conversation or a run."""

    number: int = field(default_factory=lambda: next(_turns))
    """The number of the turn: turns of this process that have a record are counted from 1."""
    host: str
    """The server's host."""
    port: int
    """The server's port."""
    model: str | None = None
    """The ``model`` of the request."""
    conversation_id: str | None = None
    """The id of a durable conversation, or of a fork that has one."""
    transport: Literal["websocket", "http"] = "websocket"
    """How the latest request was sent."""
    started_at: float = field(default_factory=trio.current_time)
    """The time when the turn started to wait for a socket and a lane."""
    sent_at: float | None = None
    """The time when the latest attempt's request was written."""
    first_event_at: float | None = None
    """The time of the latest attempt's first event that is no error."""
    ended_at: float | None = None
    """The time when the turn's reader got its end, or left."""
    attempts: int = 0
    """The number of requests that were written."""
    lane: str | None = None
    """The ``stream_id``; `None` for the default lane."""
    previous_response_id: str | None = None
    """The response that the request continues; `None` for full input."""
    request: bytes = field(default=b"", repr=False)
    """The latest request as JSON, with all content."""
    response_id: str | None = None
    """The id of the response to the latest attempt; at the end, of the last response."""
    responses: tuple[Response, ...] = field(default=(), repr=False)
    """The Responses of the turn, with all content: more than one when it was steered."""
    usages: tuple[Usage, ...] = ()
    """The token usage of each Response that has one, failed ones that were repeated included."""
    error: Exception | None = field(default=None, repr=False)
    """What the turn raised; `None` when it has a Response, or was left early."""

    @property
    def request_bytes(self) -> int:
        """The size of the latest request, in bytes."""
        return len(self.request)

    @property
    def response(self) -> Response | None:
        """The last Response; `None` when the turn has none."""
        return self.responses[-1] if self.responses else None

    @property
    def status(self) -> str | None:
        """The status of the last Response; `None` when the turn has none."""
        return self.response.status if self.response is not None else None

    @property
    def left_early(self) -> bool:
        """Whether the reader left the turn before its end."""
        return self.ended_at is not None and not self.responses and self.error is None

    @property
    def error_code(self) -> str | None:
        """The reason of a failure: the server's error code, else the exception's type.

        `None` when the turn did not fail.
        """
        if self.error is not None:
            code = self.error.code if isinstance(self.error, APIError) else None
            return code or type(self.error).__name__
        if self.response is None or self.response.status != "failed":
            return None
        error = self.response.error
        return (error.code if error is not None else None) or "response_failed"


@dataclass(slots=True, kw_only=True, eq=False)
class ToolRecord:
    """The facts about one call of a tool in a run."""

    name: str
    """The tool's qualified name, such as ``crm.find``; the type of the call when it has no name."""
    kind: str
    """The type of the call, such as ``function_call``."""
    call_id: str | None = None
    """The ``call_id`` of the call, which the model chose."""
    call: ToolCall | None = field(default=None, repr=False)
    """The call as the model made it, with all content."""
    output: msgspec.Raw | None = field(default=None, repr=False)
    """The output item for the model, with all content; `None` until the tool has finished."""
    started_at: float = field(default_factory=trio.current_time)
    """The time when the tool started."""
    ended_at: float | None = None
    """The time when the tool had finished."""
    error: Exception | None = field(default=None, repr=False)
    """What the tool raised, or why its arguments are invalid."""
    cancelled: bool = False
    """Whether the tool was cancelled, because the run was left."""


@dataclass(slots=True, kw_only=True, eq=False)
class RunRecord:
    """The facts about one run of a conversation: turns, and calls of tools between them."""

    number: int = field(default_factory=lambda: next(_runs))
    """The number of the run: runs of this process that have a record are counted from 1."""
    host: str
    """The host of the connection where the conversation began."""
    port: int
    """The port of that server."""
    model: str | None = None
    """The ``model`` of the first turn."""
    conversation_id: str | None = None
    """The id of a durable conversation, or of a fork that has one."""
    started_at: float = field(default_factory=trio.current_time)
    """The time when the run started to wait for the conversation."""
    ended_at: float | None = None
    """The time when the block of the run had ended."""
    turns: int = 0
    """The number of turns that were started."""
    tool_calls: int = 0
    """The number of calls that tools have run."""
    usages: tuple[Usage, ...] = ()
    """The token usage of each turn that has one."""
    completed: bool = False
    """Whether the run has a final response."""
    error: Exception | None = field(default=None, repr=False)
    """What the run raised; `None` when it has a final response, or was left early."""


@dataclass(slots=True, kw_only=True, eq=False)
class LeaseRecord:
    """The facts about the lease of a durable conversation, and about waiting for it."""

    system: str
    """The kind of the store, such as ``redis``."""
    conversation_id: str
    """The conversation."""
    started_at: float = field(default_factory=trio.current_time)
    """The time when the lease was asked for."""
    attempts: int = 0
    """The number of attempts that were refused because of another owner."""
    acquired_at: float | None = None
    """The time when the lease was acquired."""
    taken_over: bool = False
    """Whether the owner that this one waited for let its lease end, and did not release it."""
    ended_at: float | None = None
    """The time when the lease was released or lost, or could not be acquired."""
    error: Exception | None = field(default=None, repr=False)
    """Why the lease could not be acquired, or was lost; `None` when it was released, or when the
    attempt was cancelled."""


@dataclass(slots=True, kw_only=True, eq=False)
class StoreOperationRecord:
    """The facts about one operation of a store, with all its attempts."""

    system: str
    """The kind of the store: ``memory``, ``sqlite``, ``postgresql``, ``redis``; the name of the
    class for a store of the user that has no ``system_name``."""
    operation: str
    """The method of the store, such as ``append``."""
    conversation_id: str | None = None
    """The conversation; `None` for an operation on several."""
    started_at: float = field(default_factory=trio.current_time)
    """The time when the operation started."""
    ended_at: float | None = None
    """The time when the operation had ended."""
    error: Exception | None = field(default=None, repr=False)
    """What the operation raised; `None` when it succeeded or was cancelled."""
    cancelled: bool = False
    """Whether the operation was cancelled."""
