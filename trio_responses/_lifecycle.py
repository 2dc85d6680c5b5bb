"""What this library itself says between the server's events: on the channel, and in a stream.

The loss of a socket is said by `ConnectionLost`, the same record that a turn raises.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, ClassVar, Literal, TypeAlias

from trio_responses._errors import BufferExceeded, ConnectionLost
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
    "TurnRestarted",
]


class ConnectionState(StrEnum):
    """What a connection is doing."""

    CONNECTING = "connecting"
    """The first socket is being opened."""
    OPEN = "open"
    """There is a socket to send on."""
    RECONNECTING = "reconnecting"
    """There was one, and another is being opened."""
    DRAINING = "draining"
    """It is closing: the closing handshake is under way."""
    CLOSED = "closed"
    """It will not open again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionRestored:
    """A new socket is open in the place of the lost one; the server's caches are empty."""

    type: ClassVar[Literal["trio_responses.connection_restored"]] = (
        "trio_responses.connection_restored"
    )
    attempts: int
    """How many attempts it took."""
    outage: float
    """Seconds without a socket."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionRotated:
    """A new socket has replaced one that still lived; what was under way goes on there."""

    type: ClassVar[Literal["trio_responses.connection_rotated"]] = (
        "trio_responses.connection_rotated"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnRestarted:
    """A turn is sent again: what a stream gave of it so far counts no more.

    The events of the next attempt follow, from its ``response.created`` on. It is left out where
    nothing of the last attempt was given.
    """

    type: ClassVar[Literal["trio_responses.turn_restarted"]] = "trio_responses.turn_restarted"
    """Beside the types of the server's events: no server says it."""
    stream_id: ClassVar[None] = None
    """As all events have it."""
    sequence_number: ClassVar[None] = None
    """Likewise."""
    error: ResponsesError
    """What the last attempt ended with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionStatistics:
    """What a connection has counted; made by ``connection.statistics()``."""

    state: ConnectionState
    """What it is doing."""
    sockets_opened: int
    """Sockets that came through their handshake."""
    attempts: int
    """Attempts to reconnect since the server last proved itself well."""
    events_received: int
    """Events of all kinds, `UndecodableFrame` among them."""
    bytes_received: int
    """Bytes of their frames."""
    requests_sent: int
    """Requests that were written as a whole, steering among them."""
    bytes_sent: int
    """Bytes of their frames."""
    requests_active: int
    """Requests whose response has not ended, abandoned ones among them."""
    undecodable_frames: int
    """Frames that were no event."""
    unclaimed_events: int
    """Events that belonged to no request, whether or not the channel took them."""
    dropped_events: int
    """Events of turns that were left early, and of answers that nobody read for too long."""
    unread_bytes: int
    """Bytes of events that wait for their readers."""


Event: TypeAlias = (
    ServerEvent | ConnectionLost | ConnectionRestored | ConnectionRotated | BufferExceeded
)
"""What the channel of a connection gives."""

StreamEvent: TypeAlias = ServerEvent | TurnRestarted
"""What the stream of a turn gives."""
