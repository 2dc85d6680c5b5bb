"""The public API of the pool: `open_pool` and `ResponsesPool`.

`ResponsesPool` is a facade. `Scheduler` decides which connection each turn, lane and conversation
gets, and `PoolSupervisor` opens, watches and closes the connections.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import asynccontextmanager
from itertools import tee
from typing import TYPE_CHECKING, Any, Final, final

import trio

from trio_responses._client import make_engine, open_conversation, start_engine
from trio_responses._concurrency import open_closing_nursery
from trio_responses._connection.request_queue import MAX_ACTIVE
from trio_responses._conversation.checkpoint import Checkpoint
from trio_responses._endpoint import checked_headers, choose_endpoint
from trio_responses._errors import ConfigurationError
from trio_responses._instruments.instrument import checked_instruments
from trio_responses._pool.scheduler import PoolLimits, Scheduler, is_permanent
from trio_responses._pool.statistics import SUMS, PoolStatistics
from trio_responses._pool.supervisor import PoolSupervisor
from trio_responses._settings import ReconnectPolicy, RetryPolicy
from trio_responses._transport.dialing import dial_tcp
from trio_responses._transport.tls import default_ssl_context
from trio_responses._turn.methods import TurnMethods
from trio_responses._turn.responses import Responses

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncGenerator, Iterable, Mapping
    from typing import Unpack

    import msgspec

    from trio_responses._client import ResponsesConnection
    from trio_responses._connection.engine import ConnectionEngine
    from trio_responses._conversation.conversation import Conversation
    from trio_responses._endpoint import ApiKey, Endpoint, Headers
    from trio_responses._errors import ResponsesError
    from trio_responses._instruments.instrument import Instrument
    from trio_responses._pool.connection import PooledConnection
    from trio_responses._protocol.delivery import DeliveryMode
    from trio_responses._settings import (
        Keepalive,
        Limits,
        OnAbandonedTurn,
        RecoverOption,
        RotationPolicy,
        Timeouts,
        TransportOption,
    )
    from trio_responses._transport.dialing import Dial
    from trio_responses._transport.proxy import ProxyOption
    from trio_responses._turn.attempt import TurnAttempt
    from trio_responses._turn.methods import Lane
    from trio_responses._turn.request_builder import RequestBuilder
    from trio_responses._turn.steering import SteerReceipt
    from trio_responses._turn.stream import ResponseStream, TurnSender
    from trio_responses._wire import Input, Response
    from trio_responses._wire.params import ConversationParams, ResponseCreateParams

__all__ = ["ResponsesPool", "open_pool"]

TARGET_LOAD: Final = MAX_ACTIVE // 2
"""The load of a connection with lanes above which another connection is opened. The other half of
its places is for the turns that arrive while the next connection is being opened."""


@final
class ResponsesPool(TurnMethods):
    """Several connections to one server, used like a single one. Made by `open_pool` only.

    A turn is sent on the connection with the lowest load, and a turn with
    ``previous_response_id`` on the connection whose server cache has that response. If this
    connection has no free place and the response is stored, the turn is sent on another one. A
    lane or a conversation stays on one connection, and so do the forks of the conversation.
    """

    def __init__(
        self, scheduler: Scheduler, supervisor: PoolSupervisor, retry_policy: RetryPolicy
    ) -> None:
        self._scheduler = scheduler
        self._supervisor = supervisor
        self._retry_policy = retry_policy

    def __repr__(self) -> str:
        """Return the number of connections; nothing secret."""
        return f"<ResponsesPool of {len(self.connections)} connections>"

    # --- Turns ---------------------------------------------------------------------------

    @property
    def responses(self) -> Responses:
        """The methods of openai-python's ``client.responses``."""
        return Responses(self, PoolCalls(self._scheduler))

    def _turn_sender(self) -> TurnSender:
        return PoolTurnSender(self._scheduler, self._retry_policy)

    def stream(
        self,
        input: Input | None = None,  # noqa: A002 - the protocol's field name
        *,
        delivery: DeliveryMode = "at_most_once",
        snapshot: bool = True,
        max_retries: int | None = None,
        timeouts: Timeouts | None = None,
        **params: Unpack[ResponseCreateParams],
    ) -> ResponseStream:
        """Return a stream for one turn, as ``connection.stream`` does.

        While no connection has a free place, the turn waits; turns get places in the order of
        their arrival. If the connection loses its socket before the request is sent, the turn
        moves to another connection at once. A request that is sent again may be sent on another
        connection. If cancelled before the request is sent, nothing was sent, and the turn has no
        place.
        """
        return super().stream(
            input,
            delivery=delivery,
            snapshot=snapshot,
            max_retries=max_retries,
            timeouts=timeouts,
            **params,
        )

    @asynccontextmanager
    async def lane(self, name: str | None = None) -> AsyncGenerator[Lane, None]:
        """Reserve a lane (``stream_id``) for the length of a block, as ``connection.lane`` does.

        If cancelled while waiting for a connection, no lane is reserved.

        :param name: the name of the lane. Each connection may have one lane of this name.
        """
        async with self._pinned_connection() as connection, connection.facade.lane(name) as lane:
            yield lane

    @asynccontextmanager
    async def conversation(
        self, **params: Unpack[ConversationParams]
    ) -> AsyncGenerator[Conversation, None]:
        """Open a conversation for the length of a block, as ``connection.conversation`` does.

        The conversation and its forks stay on one connection. When this connection has ended,
        their turns raise the error that the connection ended with; a checkpoint of the
        conversation can be restored on another connection. If cancelled while waiting for a
        connection, no conversation is opened.
        """
        async with (
            self._pinned_connection() as connection,
            connection.facade.conversation(**params) as conversation,
        ):
            yield conversation

    @asynccontextmanager
    async def restore_conversation(self, checkpoint: bytes) -> AsyncGenerator[Conversation, None]:
        """Open a conversation from a checkpoint, as ``connection.restore_conversation`` does.

        If cancelled while waiting for a connection, no conversation is opened.

        :param checkpoint: the return value of ``conversation.checkpoint()``.
        :raises ConfigurationError: if the bytes are not a checkpoint that this release can read.
        """
        saved = Checkpoint.decode(checkpoint)
        history = saved.history()
        async with self._pinned_connection() as connection:
            with open_conversation(connection.engine, saved.settings, history) as conversation:
                yield conversation

    @asynccontextmanager
    async def _pinned_connection(self) -> AsyncGenerator[PooledConnection, None]:
        """Yield the connection that a lane or a conversation uses for the length of the block."""
        connection = await self._scheduler.pin()
        try:
            yield connection
        finally:
            self._scheduler.unpin(connection)

    async def aclose(self) -> None:
        """Close all connections at the same time: idempotent, within ``timeouts.close``.

        Active and waiting turns raise `ConnectionClosed`. A cancellation does not shorten the
        closing.
        """
        await self._supervisor.aclose()

    # --- State ---------------------------------------------------------------------------

    @property
    def connections(self) -> tuple[ResponsesConnection, ...]:
        """The connections that have not ended, oldest first."""
        self._scheduler.update_connections()
        return tuple(connection.facade for connection in self._scheduler.connections)

    def statistics(self) -> PoolStatistics:
        """Return the counters of the pool."""
        current = tuple(connection.statistics() for connection in self.connections)
        scheduler = self._scheduler
        ended = scheduler.ended.sums()
        return PoolStatistics(
            connections=current,
            connections_opening=scheduler.opening,
            connections_ended=scheduler.ended.count,
            connections_failed=scheduler.failures,
            turns_waiting=scheduler.waiting,
            **{name: ended[name] + sum(getattr(one, name) for one in current) for name in SUMS},
        )


class PoolCalls:
    """The calls of a pool that are no turns: stored responses do not depend on a connection."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler

    async def call(
        self,
        method: str,
        *path: str,
        query: Mapping[str, Any] | None = None,
        body: bytes | None = None,
    ) -> msgspec.Raw:
        """Send a request on any connection, and return the JSON of the answer."""
        usable = [one for one in self._scheduler.connections if not one.has_ended]
        if usable:
            engine = usable[0].engine
        else:  # another connection is opened
            connection = await self._scheduler.acquire(None, self._scheduler.next_arrival())
            self._scheduler.release(connection, None)
            engine = connection.engine
        return await engine.calls.call(method, *path, query=query, body=body)


class PoolTurnSender:
    """A `TurnSender` for one turn of a pool, on the connection that the scheduler assigns.

    No request is sent twice here: a turn moves to another connection only while its request is
    not sent. Then the turn keeps its position in the order of arrival.
    """

    def __init__(self, scheduler: Scheduler, retry_policy: RetryPolicy) -> None:
        self._scheduler = scheduler
        self.retry_policy: RetryPolicy = retry_policy
        """How often a turn is sent again, and how long it may wait."""
        self._connection: PooledConnection | None = None
        """The connection of the latest attempt; `None` while none is assigned."""
        self._has_place = False
        """Whether the turn has a place on this connection."""
        self._arrival: int | None = None
        """The arrival number of the turn, until its request is sent."""

    @property
    def max_reroutes(self) -> int:
        """How many times an unsent request may move to another connection: the size of the pool."""
        return self._scheduler.limits.size

    def may_reroute(self, error: ResponsesError) -> bool:
        """Whether a request that was not sent may be sent on another connection.

        Not if no connection was assigned, nor after a permanent error.
        """
        connection = self._connection
        if connection is None or is_permanent(error):
            return False
        return connection.has_ended or connection.engine.requests.may_reroute(error)

    async def start_turn(self, request: RequestBuilder, *, retry: bool = False) -> TurnAttempt:
        """Send a request on the connection that the scheduler assigns.

        If the connection loses its socket while the request waits there for its lane, the turn
        moves to another connection, at most once for each connection that the pool may have.
        After that the request waits until its connection has another socket.
        """
        if self._arrival is None:
            self._arrival = self._scheduler.next_arrival()
        for _ in range(self._scheduler.limits.size):
            connection = await self._acquire(request)
            with connection.sending():
                return await self._send(request, connection, retry=retry)
        return await self._send(request, await self._acquire(request), retry=retry)

    async def _acquire(self, request: RequestBuilder) -> PooledConnection:
        self._connection = None
        self._connection = await self._scheduler.acquire(request.parent, self._arrival)
        self._has_place = True
        return self._connection

    async def _send(
        self, request: RequestBuilder, connection: PooledConnection, *, retry: bool
    ) -> TurnAttempt:
        try:
            turn = await connection.engine.requests.start_turn(request, retry=retry)
        except BaseException:
            self._release(connection)
            raise
        self._arrival = None
        return turn

    def abandon_turn(self, turn: TurnAttempt, *, restarts: bool = False) -> None:
        """Discard the remaining events of a turn, and release its place on the connection."""
        if self._connection is not None and self._has_place:
            self._connection.engine.requests.abandon_turn(turn, restarts=restarts)
            self._release(self._connection, turn)

    def _release(self, connection: PooledConnection, turn: TurnAttempt | None = None) -> None:
        self._has_place = False
        self._scheduler.release(connection, turn)

    async def steer(self, turn: TurnAttempt, receipt: SteerReceipt) -> None:
        """Send steering input for a response; the receipt fails if the response has ended."""
        if self._connection is not None and self._has_place:
            await self._connection.engine.requests.steer(turn, receipt)
        else:
            receipt.fail("response_already_completed", "the input was not sent: the turn has ended")
            await trio.lowlevel.checkpoint()

    async def recover(self, turn: TurnAttempt) -> Response | None:
        """Return the Response of a turn whose events were lost, if the server has it."""
        if self._connection is None:
            return None
        return await self._connection.engine.requests.recover(turn)


@asynccontextmanager
@trio.lowlevel.enable_ki_protection
async def open_pool(
    base_url: str | None = None,
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
    on_abandoned_turn: OnAbandonedTurn = "drain",
    transport: TransportOption | None = None,
    websocket_retry: float | None = 600.0,
    http2: bool = False,
    recover: RecoverOption | None = None,
    instruments: Iterable[Instrument] = (),
    logging: bool = True,
    allow_insecure: bool = False,
    dial: Dial = dial_tcp,
) -> AsyncGenerator[ResponsesPool, None]:
    """Open a pool of up to ``size`` connections for the length of a block.

    For example::

        async with open_pool(size=4) as pool, trio.open_nursery() as nursery:
            for question in questions:
                nursery.start_soon(ask, pool, question)

    The first connection is open when the block begins. Other connections are opened as the load
    needs them, and stay open. Nothing outlives the block: no task, no socket, no timer. If the
    block is cancelled or fails, the connections still work in its ``finally`` clauses; then they
    are closed within ``timeouts.close`` seconds. If the opening is cancelled, nothing is left
    behind.

    The other options are those of `open_responses`. They hold for each connection: each one
    reconnects by itself, and has its own ``limits`` and its own, staggered, ``rotation``.

    :param size: the largest number of connections.
    :param per_connection: the number of turns, lanes and conversations on each connection above
        which another connection is opened. By default 8 where the endpoint has lanes, half of the
        16 responses that a server runs at the same time on a connection; else 1.
    :raises ConfigurationError: for arguments that cannot work.
    :raises ConnectError: as `open_responses` does.
    :raises ReconnectFailed: as `open_responses` does.
    """
    endpoint = choose_endpoint(base_url, endpoint)
    places = MAX_ACTIVE if endpoint.lanes else 1
    if per_connection is None:
        per_connection = TARGET_LOAD if endpoint.lanes else 1
    _check_numbers(size=size, per_connection=per_connection)
    if endpoint.secure and ssl_context is None:
        ssl_context = default_ssl_context()  # one context for connections opened later, too
    retry_policy = RetryPolicy(max_retries=max_retries, max_retry_wait=max_retry_wait)
    headers = checked_headers(headers)
    instruments = checked_instruments(instruments)  # an iterator is for all connections
    reconnect_options = _ReconnectOptions(reconnect)

    async def connect(nursery: trio.Nursery) -> ConnectionEngine:
        engine = make_engine(
            None,
            api_key=api_key,
            endpoint=endpoint,
            headers=headers,
            ssl_context=ssl_context,
            proxy=proxy,
            reconnect=reconnect_options.next(),
            timeouts=timeouts,
            keepalive=keepalive,
            limits=limits,
            rotation=rotation,
            max_retries=max_retries,
            max_retry_wait=max_retry_wait,
            on_abandoned_turn=on_abandoned_turn,
            transport=transport,
            websocket_retry=websocket_retry,
            http2=http2,
            recover=recover,
            instruments=instruments,
            logging=logging,
            allow_insecure=allow_insecure,
            dial=dial,
        )
        return await start_engine(nursery, engine)

    policy = reconnect if isinstance(reconnect, ReconnectPolicy) else ReconnectPolicy()
    pool_limits = PoolLimits(
        size=size, target_load=per_connection, places=places, retry_pause=policy.cap
    )
    scheduler = Scheduler(pool_limits)
    supervisor = PoolSupervisor(scheduler, connect)
    async with open_closing_nursery(supervisor.aclose) as nursery:
        await supervisor.start(nursery)
        yield ResponsesPool(scheduler, supervisor, retry_policy)


def _check_numbers(**numbers: object) -> None:
    for name, number in numbers.items():
        if isinstance(number, bool) or not isinstance(number, int) or number < 1:
            raise ConfigurationError(f"{name} must be an integer of at least 1, not {number!r}")


class _ReconnectOptions:
    """The values of the option ``reconnect`` for the connections of a pool.

    Each connection has its own position in the delays, also if the option is an iterator.
    """

    def __init__(self, reconnect: ReconnectPolicy | Iterable[float] | None) -> None:
        self._reconnect = reconnect

    def next(self) -> ReconnectPolicy | Iterable[float] | None:
        """Return the value of the option for one more connection."""
        if not isinstance(self._reconnect, Iterator):
            return self._reconnect
        self._reconnect, delays = tee(self._reconnect)
        return delays
