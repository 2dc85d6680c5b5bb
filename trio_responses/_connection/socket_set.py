"""The open sockets of one connection, and the state of the connection.

The supervisor and the receive tasks change the set; requests wait for its changes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from trio_responses._concurrency import Notifier
from trio_responses._errors import ConnectionClosed
from trio_responses._lifecycle import ConnectionState

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trio_responses._connection.socket import Socket
    from trio_responses._errors import ResponsesError
    from trio_responses._turn.attempt import TurnAttempt

__all__ = ["SocketSet"]


class SocketSet:
    """The open sockets of one connection, and the state of the connection.

    At most one of them, `current`, takes new requests. The others are retired: they stay open
    until the requests that were sent on them are answered.
    """

    __slots__ = ("_changed", "_sockets", "closed_with", "current", "over_http", "state")

    def __init__(self) -> None:
        self.state: ConnectionState = ConnectionState.CONNECTING
        self.current: Socket | None = None
        """The socket that takes new requests."""
        self.closed_with: ResponsesError | None = None
        """Why no other socket will be opened; `None` while one may be."""
        self.over_http: bool = False
        """Whether each request is sent over HTTP, on a socket of its own."""
        self._sockets: list[Socket] = []
        self._changed = Notifier()

    def __iter__(self) -> Iterator[Socket]:
        """Iterate over the open sockets."""
        return iter(self._sockets)

    def add(self, socket: Socket) -> None:
        """Add a socket that was opened."""
        self._sockets.append(socket)

    def remove(self, socket: Socket) -> None:
        """Remove a socket that is closed."""
        if socket in self._sockets:
            self._sockets.remove(socket)

    def set_state(self, state: ConnectionState) -> None:
        """Set the state of the connection, and wake the tasks that wait for a change."""
        if self.state is not ConnectionState.CLOSED:
            self.state = state
        self._changed.notify()

    def notify(self) -> None:
        """Wake the tasks in `wait_change`: a socket may take another request."""
        self._changed.notify()

    async def wait_change(self) -> None:
        """Wait until a socket may take another request, or the state of the connection changes."""
        await self._changed.wait()

    async def wait_open(self) -> Socket | None:
        """Wait until requests can be sent; return the socket that takes new requests.

        :return: `None` over HTTP, where each request has a socket of its own.
        :raises ResponsesError: when no other socket will be opened.
        """
        while self.current is None or not self.current.takes_requests:
            if self.closed_with is not None:
                raise self.closed_error()
            if self.over_http:
                return None
            await self._changed.wait()
        return self.current

    def count_exchanges(self) -> int:
        """Return the number of active requests over HTTP."""
        return sum(socket.is_exchange for socket in self._sockets)

    def is_idle(self, lane: str) -> bool:
        """Whether every request of a reserved lane has ended, where a new one would be sent."""
        return self.current is None or self.current.requests.is_idle(lane)

    def socket_of(self, turn: TurnAttempt) -> Socket | None:
        """Return the socket on which a turn is active."""
        return next((one for one in self._sockets if turn in one.requests.unfinished()), None)

    def stop_opening(self, reason: ResponsesError) -> None:
        """Open no more sockets, and keep the first reason; the open sockets stay open."""
        if self.closed_with is None:
            self.closed_with = reason
            draining = isinstance(reason, ConnectionClosed) and bool(self._sockets)
            self.set_state(ConnectionState.DRAINING if draining else ConnectionState.CLOSED)

    def closed_error(self) -> ResponsesError:
        """Return a new exception with the reason why the connection has ended."""
        assert self.closed_with is not None  # noqa: S101 - called only after stop_opening()
        return self.closed_with.copy_as_unsent()
