"""Events and states of the library itself: changes of a connection, and repeated turns.

The raw channel of a connection yields `ConnectionRestored` and `ConnectionRotated` between the
server's events, and a turn's stream yields `TurnRestarted`. The loss of a socket has no record
here: the channel yields the `ConnectionLost` that the turns raise.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, ClassVar, Literal, TypeAlias

from trio_responses._errors import BufferOverflow, ConnectionLost
from trio_responses._wire import ServerEvent

if TYPE_CHECKING:
    from trio_responses._errors import ResponsesError

__all__ = [
    "ConnectionRestored",
    "ConnectionRotated",
    "ConnectionState",
    "ConnectionStatistics",
    "Event",
    "StreamEvent",
    "TransportChanged",
    "TurnRestarted",
]


class ConnectionState(StrEnum):
    """The state of a connection."""

    CONNECTING = "connecting"
    """The first socket is being opened."""
    OPEN = "open"
    """A socket is open, and requests go out on it."""
    RECONNECTING = "reconnecting"
    """The socket was lost, and a new one is being opened."""
    DRAINING = "draining"
    """The connection takes no new requests: ``drain()`` waits for those in progress, or the closing
    handshake is in progress."""
    CLOSED = "closed"
    """The connection is closed for good."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionRestored:
    """A new socket has replaced a lost one; the server's caches for the old one are gone."""

    type: ClassVar[Literal["trio_responses.connection_restored"]] = (
        "trio_responses.connection_restored"
    )
    attempts: int
    """The number of attempts until the new socket was open."""
    outage: float
    """The seconds without a socket."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionRotated:
    """A new socket has replaced one that still worked; turns in progress finish on the old one."""

    type: ClassVar[Literal["trio_responses.connection_rotated"]] = (
        "trio_responses.connection_rotated"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class TransportChanged:
    """The connection sends its requests another way: over HTTP, or by a WebSocket again.

    Requests that were sent before are answered the old way. The server's caches for the old socket
    are gone, so that conversations send their whole history once.
    """

    type: ClassVar[Literal["trio_responses.transport_changed"]] = "trio_responses.transport_changed"
    transport: Literal["websocket", "http"]
    """How requests are sent from now on."""
    error: ResponsesError | None
    """Why no WebSocket can be used; `None` when a WebSocket is open again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnRestarted:
    """A turn is sent again: discard the events that the stream has yielded so far.

    A stream yields this each time, also when the failed attempt had no events. The events of the
    new attempt follow, starting with ``response.created``.
    """

    type: ClassVar[Literal["trio_responses.turn_restarted"]] = "trio_responses.turn_restarted"
    """A type like those of the server's events, which no server sends."""
    stream_id: ClassVar[None] = None
    """Always `None`: every event has this field."""
    sequence_number: ClassVar[None] = None
    """Always `None`: every event has this field."""
    error: ResponsesError
    """The error that ended the failed attempt."""
    delay: float = 0.0
    """The seconds until the request is sent again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionStatistics:
    """The counters of a connection, as ``connection.statistics()`` returns them."""

    state: ConnectionState
    """The state of the connection."""
    transport: Literal["websocket", "http"]
    """How requests are sent."""
    endpoint: str
    """The endpoint: its name in a pool with several endpoints, else its host, port and path."""
    http_requests: int
    """Requests that were sent over HTTP."""
    sockets_opened: int
    """Sockets whose handshake succeeded."""
    attempts: int
    """Attempts to reconnect since a response last finished or a socket last stayed open."""
    events_received: int
    """Events of all types, including `UndecodableFrame`."""
    bytes_received: int
    """Bytes of the received frames' payloads."""
    requests_sent: int
    """Requests that were written completely, including steering."""
    bytes_sent: int
    """Bytes of the sent frames' payloads."""
    retries: int
    """Requests that were sent again after an attempt that failed."""
    requests_delayed: int
    """Requests that had to wait for a `RateLimiter`."""
    seconds_delayed: float
    """The seconds that they waited, added up."""
    requests_active: int
    """Requests whose response has not ended, including abandoned ones."""
    undecodable_frames: int
    """Frames that could not be decoded as an event."""
    unrouted_events: int
    """Events that belonged to no request, whether or not the raw channel was read."""
    dropped_events: int
    """Events that were discarded: of abandoned turns, and after a `BufferOverflow`."""
    unread_bytes: int
    """Bytes of events that wait to be read."""
    input_tokens: int
    """Input tokens of all Responses that have ended, including those of abandoned turns."""
    cached_tokens: int
    """Input tokens that the server read from its prompt cache; ``input_tokens`` includes them."""
    output_tokens: int
    """Output tokens of all Responses that have ended, including those of abandoned turns."""
    reasoning_tokens: int
    """Output tokens of reasoning; ``output_tokens`` includes them."""


Event: TypeAlias = (
    ServerEvent
    | ConnectionLost
    | ConnectionRestored
    | ConnectionRotated
    | TransportChanged
    | BufferOverflow
)
"""An item of a connection's raw channel."""

StreamEvent: TypeAlias = ServerEvent | TurnRestarted
"""An item of a turn's stream."""
