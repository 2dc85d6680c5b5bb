"""The sockets of one connection: which one takes requests, and whether there will be another.

What belongs elsewhere: opening and reading them (`connection.py`), what one of them owes to whom
(`link.py`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from trio_responses._concurrency import Notifier
from trio_responses._errors import ConnectionClosed, Delivery
from trio_responses._lifecycle import ConnectionState

if TYPE_CHECKING:
    from trio_responses._connection.socket import Socket
    from trio_responses._errors import ResponsesError
    from trio_responses._turn.turn import Turn

__all__ = ["SocketSet"]


class SocketSet:
    """What the supervisor, the receive tasks and the senders know in common."""

    def __init__(self) -> None:
        self.state: ConnectionState = ConnectionState.CONNECTING
        self.current: Socket | None = None
        """The socket that takes requests."""
        self.links: set[Socket] = set()
        """That one, and those that still answer."""
        self.end: ResponsesError | None = None
        """Why there will be no more."""
        self._changed = Notifier()

    def change(self, state: ConnectionState | None = None) -> None:
        """Note that something has changed, and let those who wait for it look again."""
        if state is not None and self.state is not ConnectionState.CLOSED:
            self.state = state
        self._changed.notify()

    async def wait_change(self) -> None:
        """Wait until something has changed."""
        await self._changed.wait()

    async def wait_open(self) -> Socket:
        """Wait for a socket that takes requests.

        :raises ResponsesError: when there will be none.
        """
        while self.current is None or self.current.over.is_set():
            if self.end is not None:
                raise self.ended()
            await self._changed.wait()
        return self.current

    def holding(self, turn: Turn) -> Socket | None:
        """Find the socket that has a turn under way."""
        return next((link for link in self.links if turn in link.lanes.unfinished()), None)

    def conclude(self, end: ResponsesError) -> None:
        """Note what everybody is told from now on."""
        if self.end is None:
            self.end = end
            closing = isinstance(end, ConnectionClosed) and bool(self.links)
            self.change(ConnectionState.DRAINING if closing else ConnectionState.CLOSED)

    def ended(self) -> ResponsesError:
        """Say why there will be no more; to every caller by an exception of its own."""
        assert self.end is not None  # noqa: S101 - asked for only then
        error = self.end.copy_for_raise()
        error.delivery = Delivery.NOT_SENT
        return error
