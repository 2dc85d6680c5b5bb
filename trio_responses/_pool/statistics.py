"""The counters of a pool: `PoolStatistics`, and the counters of connections that have ended.

No sum of a pool decreases when one of its connections ends, except for what is active or unread.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trio_responses._connection.engine import ConnectionEngine
    from trio_responses._lifecycle import ConnectionStatistics

__all__ = ["SUMS", "EndedConnections", "PoolStatistics"]

COUNTERS: Final = (
    "sockets_opened",
    "events_received",
    "bytes_received",
    "requests_sent",
    "http_requests",
    "bytes_sent",
    "retries",
    "requests_delayed",
    "seconds_delayed",
    "undecodable_frames",
    "unrouted_events",
    "dropped_events",
    "input_tokens",
    "cached_tokens",
    "output_tokens",
    "reasoning_tokens",
)
"""The statistics of a connection that stay part of the sums when its tasks have ended."""
SUMS: Final = (*COUNTERS, "requests_active", "unread_bytes")
"""The statistics of connections that a pool adds up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolStatistics:
    """The counters of a pool, returned by ``pool.statistics()``.

    Sums include the connections that have ended.
    """

    connections: tuple[ConnectionStatistics, ...]
    """The counters of each connection of the pool, oldest connection first."""
    endpoint: str
    """The endpoint that new turns are sent to: its name, or its host, port and path."""
    failovers: int
    """How many times turns went to another endpoint because one was given up."""
    connections_opening: int
    """The number of connections that are being opened."""
    connections_ended: int
    """The number of connections that have ended and are not part of the pool any more."""
    connections_failed: int
    """The number of connections that could not be opened."""
    turns_waiting: int
    """The number of turns, lanes and conversations that wait for a connection."""
    sockets_opened: int
    """The number of sockets whose handshake succeeded."""
    events_received: int
    """The number of received events, of all types."""
    bytes_received: int
    """The number of bytes in the frames of these events."""
    requests_sent: int
    """The number of requests that were written whole, steering inputs included."""
    http_requests: int
    """The number of requests that were sent over HTTP."""
    bytes_sent: int
    """The number of bytes in the frames of these requests."""
    retries: int
    """The number of requests that were sent again after an attempt that failed."""
    requests_delayed: int
    """The number of requests that had to wait for a `RateLimiter`."""
    seconds_delayed: float
    """The seconds that they waited, added up."""
    requests_active: int
    """The number of requests whose response has not ended, abandoned ones included."""
    undecodable_frames: int
    """The number of frames that were not events."""
    unrouted_events: int
    """The number of events that belonged to no request."""
    dropped_events: int
    """The number of discarded events of abandoned turns."""
    unread_bytes: int
    """The number of bytes of events that were not read yet."""
    input_tokens: int
    """The number of input tokens of all Responses that have ended, abandoned ones included."""
    cached_tokens: int
    """The number of input tokens from the server's prompt cache, a part of ``input_tokens``."""
    output_tokens: int
    """The number of output tokens of all Responses that have ended, abandoned ones included."""
    reasoning_tokens: int
    """The number of output tokens of reasoning, a part of ``output_tokens``."""


class EndedConnections:
    """The counters of the connections that have left a pool.

    An ended connection continues to count until its tasks have ended: the responses that are
    active on an older socket are still received.
    """

    def __init__(self) -> None:
        self.count: int = 0
        """The number of connections that have left the pool."""
        self._finished: Counter[str] = Counter()
        self._running: list[ConnectionEngine] = []

    def add(self, engine: ConnectionEngine) -> None:
        """Add a connection that has left the pool."""
        self.count += 1
        self._running.append(engine)
        self._add_up_finished()

    def sums(self) -> Counter[str]:
        """Return the sums over all connections that have left the pool."""
        self._add_up_finished()
        sums = Counter(self._finished)
        for engine in self._running:
            sums.update(_counters(engine, SUMS))
        return sums

    def _add_up_finished(self) -> None:
        """Keep only the counters of the connections whose tasks have ended."""
        for engine in [one for one in self._running if one.finished]:
            self._running.remove(engine)
            self._finished.update(_counters(engine, COUNTERS))


def _counters(engine: ConnectionEngine, names: Sequence[str]) -> dict[str, int]:
    statistics = engine.statistics()
    return {name: getattr(statistics, name) for name in names}
