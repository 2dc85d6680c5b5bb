"""Several connections behind one face: turns go where the fewest are, more are opened on demand.

What belongs elsewhere: which connection takes what (`spreading.py`), how a turn gets to one
(`route.py`), the tasks that open and close them (`tasks.py`), what one of them does
(`connection/connection.py`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import tee
from typing import TYPE_CHECKING, Any, Final, final

import trio

from trio_responses._client import make_engine, start_engine
from trio_responses._concurrency import open_closing_nursery
from trio_responses._connection.request_queue import MAX_ACTIVE
from trio_responses._endpoint import checked_headers, choose_endpoint
from trio_responses._errors import ConfigurationError
from trio_responses._instruments.instrument import checked_instruments
from trio_responses._pool.scheduler import Bounds
from trio_responses._pool.sender import PoolTurnSender
from trio_responses._pool.tasks import SUMS, PoolTasks
from trio_responses._settings import ReconnectPolicy, RetryPolicy, check_option_values
from trio_responses._transport.tls import default_ssl_context
from trio_responses._transport.websocket import dial_tcp
from trio_responses._turn.methods import TurnMethods
from trio_responses._turn.request_builder import StaticRequest, create_command
from trio_responses._turn.stream import ResponseStream

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence

    import msgspec

    from trio_responses._client import ResponsesConnection
    from trio_responses._connection.engine import ConnectionEngine
    from trio_responses._conversation.conversation import Conversation
    from trio_responses._endpoint import ApiKey, Endpoint, Headers
    from trio_responses._instruments.instrument import Instrument
    from trio_responses._lifecycle import ConnectionStatistics
    from trio_responses._protocol.continuation import Continuation
    from trio_responses._protocol.delivery import DeliveryMode
    from trio_responses._protocol.raw_items import RawItems
    from trio_responses._settings import Keepalive, Limits, RotationPolicy, Timeouts
    from trio_responses._transport.proxy import ProxyOption
    from trio_responses._transport.websocket import Dial
    from trio_responses._turn.methods import Lane
    from trio_responses._turn.stream import AbandonChoice

__all__ = ["PoolStatistics", "ResponsesPool", "open_pool"]

TARGET_LOAD: Final = MAX_ACTIVE // 2
"""Turns on a connection with lanes before the next one is opened: the other half of its places
are for the turns that come while that takes its handshake."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolStatistics:
    """What a pool has counted; made by ``pool.statistics()``. Sums hold what is gone, too."""

    connections: tuple[ConnectionStatistics, ...]
    """What each of the connections that are there has counted, oldest first."""
    connections_opening: int
    """Connections that are being opened."""
    connections_ended: int
    """Connections that were over for good, and are not there any more."""
    connections_failed: int
    """Connections that could not be opened."""
    turns_waiting: int
    """Turns, lanes and conversations that wait for a place on some connection."""
    sockets_opened: int
    """Sockets that came through their handshake."""
    events_received: int
    """Events of all kinds."""
    bytes_received: int
    """Bytes of their frames."""
    requests_sent: int
    """Requests that were written as a whole, steering among them."""
    bytes_sent: int
    """Bytes of their frames."""
    retries: int
    """Requests that were sent again after an attempt that failed."""
    requests_active: int
    """Requests whose response has not ended, abandoned ones among them."""
    undecodable_frames: int
    """Frames that were no event."""
    unclaimed_events: int
    """Events that belonged to no request."""
    dropped_events: int
    """Events of turns that were left early."""
    unread_bytes: int
    """Bytes of events that wait for their readers."""


@final
class ResponsesPool(TurnMethods):
    """Several connections to one server. Made by `open_pool` only.

    A turn goes to the connection with the fewest; one with ``previous_response_id`` to the
    connection that has that response in its cache; and a lane or a conversation stays on its
    connection for its whole life, with its forks.
    """

    def __init__(self, tasks: PoolTasks, retry_policy: RetryPolicy) -> None:
        self._tasks = tasks
        self._retry_policy = retry_policy
        self._spread = tasks.spread

    def __repr__(self) -> str:
        """Show how many there are: nothing secret."""
        return f"<ResponsesPool of {len(self.connections)} connections>"

    # --- Turns ---------------------------------------------------------------------------

    def stream(
        self,
        *,
        delivery: DeliveryMode = "at_most_once",
        abandon: AbandonChoice = "drain",
        snapshot: bool = True,
        max_retries: int | None = None,
        **params: Any,
    ) -> ResponseStream:
        """Run one turn as a scope, event by event: as ``connection.stream``.

        Where all places are taken it waits; who has waited longest is next. Where its connection
        loses the socket before the request is out, it goes to another one at once. A turn that is
        sent again may go to another connection than before. Cancelled before it is out, nothing
        was sent, and it has no place.
        """
        check_option_values(delivery=delivery, abandon=abandon)
        draft = StaticRequest(create_command(params))
        route = PoolTurnSender(self._spread, self._retry_policy)
        return ResponseStream(
            route,
            draft,
            delivery=delivery,
            abandon=abandon,
            snapshot=snapshot,
            max_retries=max_retries,
        )

    @asynccontextmanager
    async def lane(self, name: str | None = None) -> AsyncGenerator[Lane, None]:
        """Have a lane of one's own for the length of a block: as ``connection.lane``.

        Cancelled while it waits for a place, it has none.

        :param name: a name for it; on every connection there may be one of that name.
        """
        async with self._at_home() as connection, connection.lane(name) as lane:
            yield lane

    @asynccontextmanager
    async def conversation(self, **settings: Any) -> AsyncGenerator[Conversation, None]:
        """Have a conversation for the length of a block: as ``connection.conversation``.

        It stays on one connection, as do its forks. Where that is over for good, its turns raise
        what it ended with, and its checkpoint goes on at another one. Cancelled while it waits for
        a place, it has none.
        """
        async with (
            self._at_home() as connection,
            connection.conversation(**settings) as conversation,
        ):
            yield conversation

    @asynccontextmanager
    async def _resume_conversation(
        self,
        settings: Mapping[str, Any],
        continuation: Continuation,
        answers: Sequence[msgspec.Raw] = (),
        unsent: RawItems | None = None,
    ) -> AsyncGenerator[Conversation, None]:
        """Open a conversation that has a history: for `Conversation.restore`."""
        async with (
            self._at_home() as connection,
            connection._resume_conversation(  # noqa: SLF001 - a pool hosts conversations as well
                settings, continuation, answers, unsent
            ) as conversation,
        ):
            yield conversation

    @asynccontextmanager
    async def _at_home(self) -> AsyncGenerator[ResponsesConnection, None]:
        """Have a place for a guest for the length of a block."""
        member = await self._spread.take_home()
        try:
            yield member.connection
        finally:
            self._spread.leave_home(member)

    async def aclose(self) -> None:
        """Close all connections, side by side: idempotent, within ``timeouts.close``.

        Turns under way, and those that wait, raise `ConnectionClosed`. Cancelling does not
        shorten it.
        """
        await self._tasks.finish()

    # --- What there is to see ------------------------------------------------------------

    @property
    def connections(self) -> tuple[ResponsesConnection, ...]:
        """The connections that are there, oldest first."""
        self._spread.drop_ended()
        return tuple(member.connection for member in self._spread.members)

    def statistics(self) -> PoolStatistics:
        """Count what has happened so far."""
        counted = tuple(connection.statistics() for connection in self.connections)
        past = self._tasks.count_past()
        return PoolStatistics(
            connections=counted,
            connections_opening=self._spread.opening,
            connections_ended=self._tasks.ended,
            connections_failed=self._spread.failures,
            turns_waiting=self._spread.waiting,
            **{name: past[name] + sum(getattr(one, name) for one in counted) for name in SUMS},
        )


@asynccontextmanager
@trio.lowlevel.enable_ki_protection
async def open_pool(
    url: str | None = None,
    *,
    size: int = 4,
    per_connection: int | None = None,
    api_key: ApiKey | None = None,
    endpoint: Endpoint | None = None,
    headers: Headers = (),
    ssl_context: ssl.SSLContext | None = None,
    proxy: ProxyOption = None,
    reconnect: ReconnectPolicy | Iterable[float] | None = None,
    timeouts: Timeouts | None = None,
    keepalive: Keepalive | None = None,
    limits: Limits | None = None,
    rotation: RotationPolicy | None = None,
    max_retries: int = 2,
    max_retry_wait: float = 60.0,
    instruments: Iterable[Instrument] | None = None,
    allow_insecure: bool = False,
    dial: Dial = dial_tcp,
) -> AsyncGenerator[ResponsesPool, None]:
    """Open up to ``size`` connections behind one face, for the length of a block.

    For example::

        async with open_pool(size=4) as pool, trio.open_nursery() as nursery:
            for question in questions:
                nursery.start_soon(ask, pool, question)

    The first connection is open when the block begins; the others are opened as they are needed,
    and stay. Nothing outlives the block, and in its ``finally`` clauses the connections still
    work, as with `open_responses`, whose options the others are. Each connection has its own
    walk through ``reconnect``, its own ``limits`` and its own, staggered, ``rotation``. When the
    opening is cancelled, nothing is left of it.

    :param size: how many connections there may be.
    :param per_connection: turns, lanes and conversations on each connection before another one is
        opened: by default 8 where the endpoint has lanes, of the 16 turns that a server runs at
        once on a connection; else 1.
    :raises ConfigurationError: when the arguments cannot work.
    :raises ConnectError: as `open_responses` does.
    :raises ReconnectFailed: likewise.
    """
    endpoint = choose_endpoint(url, endpoint)
    places = MAX_ACTIVE if endpoint.lanes else 1
    if per_connection is None:
        per_connection = TARGET_LOAD if endpoint.lanes else 1
    _check(size=size, per_connection=per_connection)
    if endpoint.secure and ssl_context is None:
        ssl_context = default_ssl_context()  # kept, also while no connection is open
    retry_policy = RetryPolicy(max_retries=max_retries, max_retry_wait=max_retry_wait)
    headers = checked_headers(headers)
    instruments = None if instruments is None else checked_instruments(instruments)
    walks = _Walks(reconnect)

    async def connect(nursery: trio.Nursery) -> ConnectionEngine:
        engine = make_engine(
            None,
            api_key=api_key,
            endpoint=endpoint,
            headers=headers,
            ssl_context=ssl_context,
            proxy=proxy,
            reconnect=walks.next(),
            timeouts=timeouts,
            keepalive=keepalive,
            limits=limits,
            rotation=rotation,
            max_retries=max_retries,
            max_retry_wait=max_retry_wait,
            instruments=instruments,
            allow_insecure=allow_insecure,
            dial=dial,
        )
        return await start_engine(nursery, engine)

    policy = reconnect if isinstance(reconnect, ReconnectPolicy) else ReconnectPolicy()
    bounds = Bounds(size=size, target_load=per_connection, places=places, pause=policy.cap)
    pool = ResponsesPool(PoolTasks(connect, bounds), retry_policy)
    async with open_closing_nursery(pool.aclose) as nursery:
        await pool._tasks.start(nursery)  # noqa: SLF001 - its own opener
        yield pool


def _check(**numbers: object) -> None:
    for name, number in numbers.items():
        if isinstance(number, bool) or not isinstance(number, int) or number < 1:
            raise ConfigurationError(f"{name} must be a whole number from 1, not {number!r}")


class _Walks:
    """Delays for each connection, also where they come from an iterator."""

    def __init__(self, reconnect: ReconnectPolicy | Iterable[float] | None) -> None:
        self._reconnect = reconnect

    def next(self) -> ReconnectPolicy | Iterable[float] | None:
        """Give what one more connection may walk through."""
        if not isinstance(self._reconnect, Iterator):
            return self._reconnect
        self._reconnect, walk = tee(self._reconnect)
        return walk
