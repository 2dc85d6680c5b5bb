"""The states of a WebSocket transport, as two tables.

One table is the life of the transport, from the upgrade request to the closed byte stream. The
other is its write side: whether frames can still be written. The tables do no I/O. `websocket.py`
and `control_stream.py` process a trigger when something has happened, and read the state before
they read or write the socket.

The rules of the life:

- Messages and pings go out only in ``OPEN``. ``CLOSING`` still reads, since the server may send
  messages before its close frame.
- In ``VIOLATED`` and ``LOST`` the error is known: from then on, `WebSocketTransport.receive` and
  `WebSocketTransport.send` raise the same `ConnectionLost`, which is the first one.
- ``VIOLATED`` differs from ``LOST`` in one way: the stream may still work, so
  `WebSocketTransport.aclose` sends a close frame with the code of the violation (RFC 6455,
  section 7.1.7).
- ``CLOSED`` lasts until a reader asks how the socket ended; after that the state is ``LOST``.
- `WebSocketTransport.aclose` may be called in every state after the upgrade, any number of times.

The rules of the write side: no data frame follows a close frame (RFC 6455, section 5.5.1). A write
that was cancelled may have left half a frame on the wire, and nothing is written after that.

A trigger that a table does not list for the current state is a defect of this package and raises
`RuntimeError`.
"""

from __future__ import annotations

from enum import StrEnum, auto
from typing import Final

__all__ = ["TransportState", "TransportStates", "TransportTrigger", "WriteState", "WriteTrigger"]


class TransportState(StrEnum):
    """The state of a transport, from the upgrade request to the closed stream."""

    OPENING = auto()
    """The upgrade request goes out, and its response has not come."""
    SWITCHING = auto()
    """The server answered 101; trio-websocket checks the rest of the response."""
    OPEN = auto()
    """Messages go both ways."""
    VIOLATED = auto()
    """The server broke the WebSocket protocol; a close frame can still be sent."""
    CLOSING = auto()
    """This side began the closing handshake."""
    LOST = auto()
    """The socket has ended, and how it ended is known."""
    CLOSED = auto()
    """This side closed the socket, or the upgrade failed."""


class TransportTrigger(StrEnum):
    """A trigger of the transport state machine: an input that changes its state."""

    SWITCHING_PROTOCOLS = auto()
    """A response head with status 101 came."""
    UPGRADE_ACCEPTED = auto()
    """trio-websocket found the response valid."""
    UPGRADE_FAILED = auto()
    """Another status, an invalid response, or a broken stream during the upgrade."""
    PROTOCOL_VIOLATED = auto()
    """A reader found bytes that are no WebSocket frame."""
    SOCKET_ENDED = auto()
    """A reader found the end of the stream or a close frame, or this side gave the socket up."""
    CLOSE_STARTED = auto()
    """`WebSocketTransport.aclose` was called."""
    STREAM_CLOSED = auto()
    """`WebSocketTransport.aclose` has closed the byte stream."""


TRANSPORT_TRANSITIONS: Final[dict[TransportState, dict[TransportTrigger, TransportState]]] = {
    TransportState.OPENING: {
        TransportTrigger.SWITCHING_PROTOCOLS: TransportState.SWITCHING,
        TransportTrigger.UPGRADE_FAILED: TransportState.CLOSED,
    },
    TransportState.SWITCHING: {
        TransportTrigger.UPGRADE_ACCEPTED: TransportState.OPEN,
        TransportTrigger.UPGRADE_FAILED: TransportState.CLOSED,
    },
    TransportState.OPEN: {
        TransportTrigger.PROTOCOL_VIOLATED: TransportState.VIOLATED,
        TransportTrigger.SOCKET_ENDED: TransportState.LOST,
        TransportTrigger.CLOSE_STARTED: TransportState.CLOSING,
    },
    TransportState.VIOLATED: {
        TransportTrigger.SOCKET_ENDED: TransportState.VIOLATED,
        TransportTrigger.CLOSE_STARTED: TransportState.VIOLATED,
        TransportTrigger.STREAM_CLOSED: TransportState.LOST,
    },
    TransportState.CLOSING: {
        TransportTrigger.PROTOCOL_VIOLATED: TransportState.VIOLATED,
        TransportTrigger.SOCKET_ENDED: TransportState.LOST,
        TransportTrigger.CLOSE_STARTED: TransportState.CLOSING,
        TransportTrigger.STREAM_CLOSED: TransportState.CLOSED,
    },
    TransportState.LOST: {
        TransportTrigger.PROTOCOL_VIOLATED: TransportState.LOST,
        TransportTrigger.SOCKET_ENDED: TransportState.LOST,
        TransportTrigger.CLOSE_STARTED: TransportState.LOST,
        TransportTrigger.STREAM_CLOSED: TransportState.LOST,
    },
    TransportState.CLOSED: {
        TransportTrigger.UPGRADE_FAILED: TransportState.CLOSED,
        TransportTrigger.PROTOCOL_VIOLATED: TransportState.LOST,
        TransportTrigger.SOCKET_ENDED: TransportState.LOST,
        TransportTrigger.CLOSE_STARTED: TransportState.CLOSED,
        TransportTrigger.STREAM_CLOSED: TransportState.CLOSED,
    },
}


class WriteState(StrEnum):
    """The state of a transport's write side: which frames may still be written."""

    READY = auto()
    """Every frame."""
    CLOSE_SENT = auto()
    """Control frames only: a close frame went out."""
    CUT = auto()
    """Nothing: half a frame may be on the wire."""


class WriteTrigger(StrEnum):
    """A trigger of the write-side state machine of a transport: an input that changes its state."""

    CLOSE_FRAME_WRITTEN = auto()
    """A whole close frame was written."""
    WRITE_CANCELLED = auto()
    """A write was cancelled, perhaps in the middle of a frame."""


WRITE_TRANSITIONS: Final[dict[WriteState, dict[WriteTrigger, WriteState]]] = {
    WriteState.READY: {
        WriteTrigger.CLOSE_FRAME_WRITTEN: WriteState.CLOSE_SENT,
        WriteTrigger.WRITE_CANCELLED: WriteState.CUT,
    },
    WriteState.CLOSE_SENT: {
        WriteTrigger.CLOSE_FRAME_WRITTEN: WriteState.CLOSE_SENT,
        WriteTrigger.WRITE_CANCELLED: WriteState.CUT,
    },
    WriteState.CUT: {},
}


class TransportStates:
    """The two states of a transport, its life and its write side, changed by triggers only."""

    __slots__ = ("life", "write")

    def __init__(self) -> None:
        self.life: TransportState = TransportState.OPENING
        self.write: WriteState = WriteState.READY

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.life.name} {self.write.name}>"

    def process(self, trigger: TransportTrigger | WriteTrigger) -> None:
        """Change the state of the transport or of its write side, as the tables define.

        :raises RuntimeError: when the trigger cannot happen in the current state.
        """
        try:
            if isinstance(trigger, TransportTrigger):
                self.life = TRANSPORT_TRANSITIONS[self.life][trigger]
            else:
                self.write = WRITE_TRANSITIONS[self.write][trigger]
        except KeyError:
            raise RuntimeError(f"{trigger.name} cannot happen to {self!r}") from None
