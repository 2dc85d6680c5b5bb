"""The interface of a transport, which a WebSocket and an exchange over HTTP have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from trio_responses._instruments.instrument import SocketObserver
    from trio_responses._protocol.frames import Message

__all__ = ["Transport"]


class Transport(Protocol):
    """One open WebSocket, or one exchange over HTTP."""

    frame_observer: SocketObserver | None
    """The observer that gets every message; `None` when no instrument observes frames."""
    opened_at: float
    """When the transport was opened, on Trio's clock."""
    last_read_at: float
    """When `receive` last got bytes, on Trio's clock: the time of the messages that it returned."""

    @property
    def age(self) -> float:
        """Seconds since the transport was opened."""
        ...

    @property
    def handshake_headers(self) -> dict[str, str]:
        """The headers of the server's answer, names in lower case."""
        ...

    @property
    def keepalive_at(self) -> float:
        """When `check_keepalive` should be called, on Trio's clock, unless bytes arrive."""
        ...

    def check_keepalive(self) -> None:
        """Ping a server that has been silent for too long; called between two calls of `receive`.

        When the server does not answer the ping, `receive` raises a `KeepaliveTimeout`.
        """
        ...

    def exclude_pause(self, seconds: float) -> None:
        """Do not count a pause of receiving as silence of the server.

        :param seconds: the length of the pause so far; 0 at its beginning.
        """
        ...

    async def send(self, payload: bytes) -> None:
        """Send one message; return when its last byte was handed to the network.

        :raises ConnectionLost: when the transport has ended: the server has no whole message.
        """
        ...

    async def receive(self) -> list[Message]:
        """Wait for the next messages: all that one read completed. Safe to cancel.

        :raises ConnectionLost: when the transport has ended; the same exception each time.
        """
        ...

    async def aclose(self) -> None:
        """Close the transport within ``timeouts.close``; may be called again."""
        ...
