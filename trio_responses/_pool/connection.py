"""One connection of a pool: its load, and the responses that came from the connection.

A `PooledConnection` knows neither the other connections nor the waiting turns: `Scheduler`
decides which turn gets which connection.
"""

from __future__ import annotations

from collections import deque
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import trio

from trio_responses._client import ResponsesConnection
from trio_responses._connection.request_queue import MAX_ACTIVE
from trio_responses._lifecycle import ConnectionState
from trio_responses._transport.dialing import check_reachable

if TYPE_CHECKING:
    from collections.abc import Generator

    from trio_responses._connection.engine import ConnectionEngine
    from trio_responses._endpoint import Endpoint
    from trio_responses._pool.endpoints import EndpointState
    from trio_responses._turn.attempt import TurnAttempt

__all__ = ["PooledConnection", "places_of"]

MAX_KNOWN_RESPONSES: Final = 64
"""Response ids kept for a connection. A server caches one response for each of 33 lanes."""
ENDED_STATES: Final = frozenset({ConnectionState.DRAINING, ConnectionState.CLOSED})


class PooledConnection:
    """A connection of a pool, with the number of turns, lanes and conversations that use it."""

    def __init__(self, engine: ConnectionEngine, endpoint: EndpointState) -> None:
        self.engine: ConnectionEngine = engine
        self.endpoint: EndpointState = endpoint
        """The endpoint that the connection goes to."""
        self.closing: bool = False
        """Whether the pool closes the connection, because it uses another endpoint."""
        self.facade: ResponsesConnection = ResponsesConnection(engine)
        """The connection as users see it."""
        self.turns: int = 0
        """The number of turns of the pool that have a place on this connection."""
        self.pinned: int = 0
        """The number of lanes and conversations of the pool that stay on this connection."""
        self._responses: deque[tuple[str, bool]] = deque(maxlen=MAX_KNOWN_RESPONSES)
        self._abandoned: list[TurnAttempt] = []
        self._sending: set[trio.CancelScope] = set()
        self._waiting: set[trio.CancelScope] = set()

    @property
    def is_open(self) -> bool:
        """Whether a socket is open, so that a request can be sent at once."""
        return self.engine.is_open and not self.closing

    @property
    def is_idle(self) -> bool:
        """Whether nothing uses the connection, raw requests and calls included."""
        engine = self.engine
        if self.load or engine.requests.waiting or engine.calls.count:
            return False
        return not engine.count_active()

    @property
    def places(self) -> int:
        """The largest number of turns of the pool on the connection: more over HTTP."""
        return self.engine.http_places or places_of(self.engine.config.endpoint)

    async def check_reachable(self) -> None:
        """Check that the server can be reached, unless a socket to it is open.

        :raises ConnectError: when it cannot.
        """
        if self.engine.sockets.over_http:
            await check_reachable(self.engine.config)
        else:
            await trio.lowlevel.checkpoint()

    @property
    def has_ended(self) -> bool:
        """Whether the connection has ended and will open no other socket."""
        return self.closing or self.engine.sockets.state in ENDED_STATES

    @property
    def lanes_exhausted(self) -> bool:
        """Whether all lanes of the connection are reserved."""
        return self.engine.requests.lanes.exhausted

    @property
    def load(self) -> int:
        """The number of turns, lanes and conversations on the connection, forks included.

        While a response of an abandoned turn has not ended, all active requests count instead,
        if they are more.
        """
        users = self.turns + max(self.pinned, self.engine.requests.lanes.count)
        if any(map(self.engine.is_active, self._abandoned)):
            return max(users, self.engine.count_active())
        return users

    # --- Responses -----------------------------------------------------------------------

    def has_response(self, response_id: str) -> bool:
        """Whether a response id is one of the latest responses of this connection."""
        return any(known == response_id for known, _ in self._responses)

    def has_stored_response(self, response_id: str) -> bool:
        """Whether a response is one of the latest, and the server has said that it is stored."""
        return (response_id, True) in self._responses

    def record(self, turn: TurnAttempt) -> None:
        """Record the response id of a turn whose block was left."""
        if turn.response_id is not None:
            self._responses.append((turn.response_id, turn.stored))
        self._abandoned = [one for one in (*self._abandoned, turn) if self.engine.is_active(one)]

    # --- Sending -------------------------------------------------------------------------

    @contextmanager
    def sending(self) -> Generator[None, None, None]:
        """Cancel the block if the connection loses its socket, or lost the socket before the block.

        The block sends a request. From its first byte on, the sending is not cancelled (P4): the
        block then ends by itself.
        """
        with trio.CancelScope() as scope:
            if not self.is_open:
                scope.cancel()
            self._sending.add(scope)
            try:
                yield
            finally:
                self._sending.discard(scope)

    def cancel_sending(self) -> None:
        """Cancel all `sending` blocks. Called when the connection has lost its socket."""
        for scope in self._sending:
            scope.cancel()

    @contextmanager
    def waiting(self) -> Generator[None, None, None]:
        """Cancel the block if the endpoint of the connection is given up.

        The block sends a request of a conversation, which stays on a connection without a socket.
        As for `sending`, the block ends by itself once its request is being written.
        """
        with trio.CancelScope() as scope:
            self._waiting.add(scope)
            try:
                yield
            finally:
                self._waiting.discard(scope)

    def leave(self) -> None:
        """Cancel all blocks that send. Called when the endpoint of the connection is given up."""
        self.cancel_sending()
        for scope in self._waiting:
            scope.cancel()


def places_of(endpoint: Endpoint) -> int:
    """Return the number of responses that a server runs at the same time on a WebSocket."""
    return MAX_ACTIVE if endpoint.lanes else 1
