"""What instruments are told of: a record for each socket, turn and call of a tool.

A record is filled in as things go on, and all hooks about one thing get the same record. Times
are Trio's, in seconds.

What belongs elsewhere: the hooks (`instrument.py`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Final

import trio

from trio_responses._errors import APIError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trio_responses._errors import ResponsesError
    from trio_responses._wire import Response, Usage

__all__ = ["SocketRecord", "ToolRecord", "TurnRecord"]

_sockets: Final[Iterator[int]] = count(1)
_turns: Final[Iterator[int]] = count(1)


@dataclass(slots=True, kw_only=True, eq=False)
class SocketRecord:
    """What is known of a socket, or of the attempt to open one."""

    number: int = field(default_factory=lambda: next(_sockets))
    """Counts the sockets of this process."""
    host: str
    """The server."""
    port: int
    """Its port."""
    attempt: int = 0
    """How many attempts to reconnect came before, since the server last proved itself well."""
    rotation: bool = False
    """Whether it is to take over from one that still lives."""
    started_at: float = field(default_factory=trio.current_time)
    """When the handshake began."""
    opened_at: float | None = None
    """When it was done."""
    ended_at: float | None = None
    """When it was lost or closed, or had failed."""
    error: ResponsesError | None = None
    """Why it failed or was lost; `None` where this side closed it."""


@dataclass(slots=True, kw_only=True, eq=False)
class TurnRecord:
    """What is known of a turn: on the connection, of a conversation or of a run."""

    number: int = field(default_factory=lambda: next(_turns))
    """Counts the turns of this process."""
    host: str
    """The server."""
    port: int
    """Its port."""
    model: str | None = None
    """The model that was asked for."""
    started_at: float = field(default_factory=trio.current_time)
    """When it asked for a socket and a lane."""
    sent_at: float | None = None
    """When the latest attempt's request was written."""
    first_event_at: float | None = None
    """When the latest attempt's first event came that is no error."""
    ended_at: float | None = None
    """When its reader had its end, or left."""
    attempts: int = 0
    """How many requests were written."""
    lane: str | None = None
    """The ``stream_id``; `None` for the default lane."""
    previous_response_id: str | None = None
    """What the request continues; `None` for full input."""
    request_bytes: int = 0
    """The size of the latest request."""
    response_id: str | None = None
    """The id of its response: that of the latest attempt, and of the last successor at its end."""
    responses: tuple[Response, ...] = field(default=(), repr=False)
    """The Responses that it ended with: more than one where it was steered. All content."""
    error: Exception | None = field(default=None, repr=False)
    """What it raised; `None` where it has a Response, or was left early."""

    @property
    def response(self) -> Response | None:
        """The last Response; `None` where it ended without."""
        return self.responses[-1] if self.responses else None

    @property
    def status(self) -> str | None:
        """The status of that Response."""
        return self.response.status if self.response is not None else None

    @property
    def usages(self) -> tuple[Usage, ...]:
        """The tokens of each Response that says how many."""
        return tuple(one.usage for one in self.responses if one.usage is not None)

    @property
    def left_early(self) -> bool:
        """Whether its reader left before its end."""
        return self.ended_at is not None and not self.responses and self.error is None

    @property
    def error_code(self) -> str | None:
        """What failed: the server's word where it gave one, else the exception's type."""
        if self.error is not None:
            code = self.error.code if isinstance(self.error, APIError) else None
            return code or type(self.error).__name__
        if self.response is None or self.response.status != "failed":
            return None
        error = self.response.error
        return (error.code if error is not None else None) or "response_failed"


@dataclass(slots=True, kw_only=True, eq=False)
class ToolRecord:
    """What is known of a call of a tool that a run has begun."""

    name: str
    """The tool's name; the type of the call where it has none."""
    kind: str
    """The type of the call, such as ``function_call``."""
    call_id: str | None = None
    """The model's id for it."""
    started_at: float = field(default_factory=trio.current_time)
    """When it began."""
    ended_at: float | None = None
    """When it was over."""
    error: Exception | None = field(default=None, repr=False)
    """What it raised, or why its arguments did not fit."""
    cancelled: bool = False
    """Whether it was cancelled, by whoever left the run."""
