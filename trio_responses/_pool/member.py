"""A connection of a pool with those who are there, and those who wait for a place.

What belongs elsewhere: who gets which place (`spreading.py`).
"""

from __future__ import annotations

from collections import OrderedDict
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, TypeAlias

import trio

from trio_responses._client import ResponsesConnection
from trio_responses._lifecycle import ConnectionState

if TYPE_CHECKING:
    from collections.abc import Generator

    from trio_responses._connection.engine import ConnectionEngine
    from trio_responses._errors import ResponsesError
    from trio_responses._turn.turn import Turn

__all__ = ["Member", "Queue", "Waiter"]

REMEMBERED: Final = 64
"""Responses remembered of each connection: a server keeps the latest one of each of 33 lanes."""
ENDED: Final = frozenset({ConnectionState.DRAINING, ConnectionState.CLOSED})


class Waiter:
    """A turn or a guest without a place yet."""

    def __init__(self, number: int) -> None:
        self.number = number
        """In which order they came."""
        self.told: trio.Event = trio.Event()
        self.member: Member | None = None
        self.error: ResponsesError | None = None
        self.queue: Queue = OrderedDict()

    def stand_in(self, queue: Queue) -> None:
        """Stand in a queue, behind those who came before: hardly ever others than all."""
        last = next(reversed(queue), None)
        self.queue = queue
        queue[self] = None
        if last is not None and last.number > self.number:
            for other in [one for one in queue if one.number > self.number]:
                queue.move_to_end(other)

    def leave(self) -> None:
        """Wait no more."""
        self.queue.pop(self, None)

    def tell(self, member: Member | None, error: ResponsesError | None = None) -> None:
        """Tell where the place is, or why there is none."""
        self.leave()
        self.member, self.error = member, error
        self.told.set()


Queue: TypeAlias = OrderedDict[Waiter, None]
"""Those who wait, longest first."""


class Member:
    """A connection of a pool, and who is there."""

    def __init__(self, engine: ConnectionEngine) -> None:
        self.engine = engine
        self.connection = ResponsesConnection(engine)
        self.turns: int = 0
        """Turns of the pool that have a place here."""
        self.pinned: int = 0
        """Lanes and conversations that are here for their whole life."""
        self.queue: Queue = OrderedDict()
        """Turns that continue a response of this connection, and wait for a place."""
        self._responses: OrderedDict[str, None] = OrderedDict()
        self._left: list[Turn] = []
        self._sending: set[trio.CancelScope] = set()

    @property
    def is_open(self) -> bool:
        """Whether a turn can go out at once."""
        return self.engine.is_open

    @property
    def lanes_exhausted(self) -> bool:
        """Whether all lanes of the connection are reserved."""
        return self.engine.requests.lanes.exhausted

    @property
    def is_over(self) -> bool:
        """Whether it will not open again."""
        return self.connection.state in ENDED

    @property
    def load(self) -> int:
        """Count who is here, forks among them, and the responses of turns that were left early."""
        known = self.turns + max(self.pinned, self.engine.requests.lanes.count)
        self._left = [turn for turn in self._left if not turn.ended]
        if not self._left:
            return known
        active = self.engine.count_active()
        if not active:
            self._left.clear()  # they went with their socket
        return max(known, active)

    @contextmanager
    def sending(self) -> Generator[None, None, None]:
        """Send a request inside of this: it ends early where the socket is lost before.

        A request whose first byte is out is not cut off: then the block ends by itself.
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
        """Let the requests go that are not out yet: its socket is lost."""
        for scope in self._sending:
            scope.cancel()

    def has(self, response_id: str) -> bool:
        """Whether a response is from here, as far as that is remembered."""
        return response_id in self._responses

    def note_left(self, turn: Turn) -> None:
        """Remember the response of a turn whose block has ended."""
        if turn.response_id is not None:
            self._responses[turn.response_id] = None
            if len(self._responses) > REMEMBERED:
                self._responses.popitem(last=False)
        if not turn.ended:
            self._left.append(turn)
