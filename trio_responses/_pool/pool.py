"""The public API of the pool: `open_pool` and `ResponsesPool`.

`ResponsesPool` is a facade. `Scheduler` decides which connection each turn, lane and conversation
gets, and `PoolSupervisor` opens, watches and closes the connections.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import tee
from typing import TYPE_CHECKING, Any, final

import trio

from trio_responses._client import make_engine, start_engine
from trio_responses._concurrency import open_closing_nursery, opens_block
from trio_responses._conversation.checkpoint import Checkpoint
from trio_responses._conversation.conversation import Conversation
from trio_responses._conversation.durable import DURABLE_OPTIONS, DurableOptions, open_durable
from trio_responses._conversation.history import History
from trio_responses._endpoint import checked_headers, choose_endpoint
from trio_responses._errors import ConfigurationError
from trio_responses._instruments.instrument import (
    Instrument,
    Instruments,
    checked_instruments,
)
from trio_responses._instruments.log import with_logging
from trio_responses._pool.connection import places_of
from trio_responses._pool.endpoints import (
    EndpointState,
    PoolEndpoint,
    checked_endpoints,
    unique_names,
)
from trio_responses._pool.scheduler import PoolLimits, Scheduler
from trio_responses._pool.senders import ConversationSenders, PoolTurnSender
from trio_responses._pool.statistics import SUMS, PoolStatistics
from trio_responses._pool.supervisor import PoolSupervisor
from trio_responses._settings import (
    Limits,
    ReconnectPolicy,
    RetryPolicy,
    check_drain_seconds,
    checked_record,
    explain_options,
)
from trio_responses._transport.dialing import check_reachable, dial_tcp
from trio_responses._transport.tls import default_ssl_context
from trio_responses._turn.methods import TurnMethods
from trio_responses._turn.request_builder import map_model
from trio_responses._turn.responses import Responses
from trio_responses._wire.param_checks import check_params, merge_extra_body
from trio_responses._wire.params import ConversationParams

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
    from typing import Unpack

    import msgspec

    from trio_responses._client import ResponsesConnection
    from trio_responses._connection.engine import ConnectionEngine
    from trio_responses._conversation.durable import OnInterruptedCall
    from trio_responses._endpoint import ApiKey, Endpoint, Headers
    from trio_responses._errors import ResponsesError
    from trio_responses._pool.connection import PooledConnection
    from trio_responses._protocol.delivery import DeliveryMode
    from trio_responses._rate_limiter import RateLimiter
    from trio_responses._settings import (
        Keepalive,
        OnAbandonedTurn,
        RecoverOption,
        RotationPolicy,
        Timeouts,
        TransportOption,
    )
    from trio_responses._stores.interface import ConversationStore
    from trio_responses._transport.dialing import Dial
    from trio_responses._transport.proxy import ProxyOption
    from trio_responses._turn.methods import Lane
    from trio_responses._turn.stream import ResponseStream, TurnSender
    from trio_responses._wire import Input
    from trio_responses._wire.params import ResponseCreateParams

__all__ = ["ResponsesPool", "open_pool"]


@final
class ResponsesPool(TurnMethods):
    """Several connections that are used like a single one. Made by `open_pool` only.

    A turn is sent on the connection with the lowest load, and a turn with
    ``previous_response_id`` on the connection whose server cache has that response. If this
    connection has no free place and the response is stored, the turn is sent on another one. A
    lane stays on one connection. A conversation stays on its connection until this has ended.

    With several endpoints, turns go to the first one that can be used.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        supervisor: PoolSupervisor,
        retry_policy: RetryPolicy,
        instruments: Instruments,
    ) -> None:
        self._instruments = instruments
        self._scheduler = scheduler
        self._supervisor = supervisor
        self._retry_policy = retry_policy
        self._now = trio.lowlevel.current_clock().current_time

    def __repr__(self) -> str:
        """Return the number of connections and the endpoint of new turns; nothing secret."""
        return f"<ResponsesPool of {len(self.connections)} connections to {self._endpoint}>"

    @property
    def _endpoint(self) -> str:
        return self._scheduler.active.name

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
        text_format: Any = None,
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
            text_format=text_format,
            snapshot=snapshot,
            max_retries=max_retries,
            timeouts=timeouts,
            **params,
        )

    @opens_block("pool.lane(...) as lane")
    async def lane(self, name: str | None = None) -> AsyncGenerator[Lane, None]:
        """Reserve a lane (``stream_id``) for the length of a block, as ``connection.lane`` does.

        If cancelled while waiting for a connection, no lane is reserved.

        :param name: the name of the lane. Each connection may have one lane of this name.
        """
        async with self._pinned_connection() as connection, connection.facade.lane(name) as lane:
            yield lane

    @opens_block("pool.conversation(...) as conversation")
    async def conversation(
        self, **params: Unpack[ConversationParams]
    ) -> AsyncGenerator[Conversation, None]:
        """Open a conversation for the length of a block, as ``connection.conversation`` does.

        The conversation stays on one connection, and so do its forks, until this connection has
        ended or another endpoint is used. The next turn is sent on another connection then, with
        full input, without what another endpoint cannot read. If cancelled while waiting for a
        connection, no conversation is opened.
        """
        check_params(params, of="conversation()", allowed=ConversationParams)
        async with self._open_conversation(merge_extra_body(params), History()) as conversation:
            yield conversation

    @opens_block("pool.restore_conversation(...) as conversation")
    async def restore_conversation(self, checkpoint: bytes) -> AsyncGenerator[Conversation, None]:
        """Open a conversation from a checkpoint, as ``connection.restore_conversation`` does.

        If cancelled while waiting for a connection, no conversation is opened.

        :param checkpoint: the return value of ``conversation.checkpoint()``.
        :raises ConfigurationError: if the bytes are not a checkpoint that this release can read.
        """
        saved = Checkpoint.decode(checkpoint)
        async with self._open_conversation(
            saved.settings, saved.history(), saved.conversation_id
        ) as conversation:
            yield conversation

    @opens_block("pool.durable_conversation(...) as conversation")
    async def durable_conversation(
        self,
        backend: ConversationStore,
        conversation_id: str,
        /,
        *,
        wait: float = 0.0,
        lease_seconds: float = 30.0,
        on_interrupted_call: OnInterruptedCall = "report",
        checkpoint: bytes | None = None,
        **params: Unpack[ConversationParams],
    ) -> AsyncGenerator[Conversation, None]:
        """Open a conversation of a store, as ``connection.durable_conversation`` does.

        It stays on one connection as other conversations of the pool do.
        """
        check_params(
            params,
            of="durable_conversation()",
            allowed=ConversationParams,
            options=DURABLE_OPTIONS,
        )
        options = DurableOptions(
            backend,
            conversation_id,
            wait=wait,
            lease_seconds=lease_seconds,
            on_interrupted_call=on_interrupted_call,
            checkpoint=checkpoint,
        )
        settings = merge_extra_body(params)
        self._scheduler.work.check()  # before a lease is acquired
        async with open_durable(
            self._open_conversation, options, settings, self._instruments
        ) as conversation:
            yield conversation

    @asynccontextmanager
    async def _open_conversation(
        self, settings: Mapping[str, Any], history: History, conversation_id: str | None = None
    ) -> AsyncGenerator[Conversation, None]:
        self._scheduler.work.check()
        senders = ConversationSenders(self._scheduler, self._retry_policy)
        await senders.start()
        with senders:
            yield Conversation(
                senders.reserve,
                settings,
                history,
                instruments=senders.instruments,
                conversation_id=conversation_id,
            )

    @asynccontextmanager
    async def _pinned_connection(self) -> AsyncGenerator[PooledConnection, None]:
        """Yield the connection that a lane or a conversation uses for the length of the block."""
        self._scheduler.work.check()
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

    async def drain(self, seconds: float = math.inf) -> int:
        """Finish what is in progress, take no new requests, and close all connections.

        As ``connection.drain``: turns that wait in the pool are finished, too, and connections
        that nothing uses are closed at once. Leave the block of the pool afterwards.

        If cancelled while it waits, the pool is not closed, and still takes no new requests.

        :param seconds: the longest wait; by default as long as it takes.
        :return: the number of turns, runs and calls that had not ended; 0 if nothing was cut off.
        :raises ConfigurationError: for a negative number.
        """
        check_drain_seconds(seconds)
        return await self._supervisor.drain(seconds)

    # --- State ---------------------------------------------------------------------------

    @property
    def connections(self) -> tuple[ResponsesConnection, ...]:
        """The connections that have not ended, oldest first."""
        self._scheduler.update_connections()
        return tuple(connection.facade for connection in self._scheduler.connections)

    def is_healthy(self) -> bool:
        """Return whether a request that is made now can be sent, as far as is known.

        True while a connection to an endpoint that is not given up is healthy
        (``connection.is_healthy``), and while there is none because the next turn opens the first
        one. False while the pool drains, when it is closed, and for ``reconnect.cap`` seconds
        after the last connection has failed.

        Costs no I/O, never raises, and may be called from any thread.
        """
        return self._scheduler.is_healthy(self._now())

    def statistics(self) -> PoolStatistics:
        """Return the counters of the pool."""
        current = tuple(connection.statistics() for connection in self.connections)
        scheduler = self._scheduler
        ended = scheduler.ended.sums()
        return PoolStatistics(
            connections=current,
            endpoint=self._endpoint,
            failovers=scheduler.failovers,
            connections_opening=scheduler.opening,
            connections_ended=scheduler.ended.count,
            connections_failed=scheduler.failures,
            turns_waiting=scheduler.waiting,
            **{name: ended[name] + sum(getattr(one, name) for one in current) for name in SUMS},
        )


class PoolCalls:
    """The calls of a pool that are no turns.

    A stored response depends on its endpoint, but not on its connection.
    """

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler

    async def call(
        self,
        method: str,
        *path: str,
        query: Mapping[str, Any] | None = None,
        body: bytes | None = None,
    ) -> msgspec.Raw:
        """Send a request to the endpoint of a response, and return the JSON of the answer."""
        scheduler = self._scheduler
        endpoint = (scheduler.home_of(path[0]) if path else None) or scheduler.active
        usable = [one for one in scheduler.connections if not one.has_ended]
        usable.sort(key=lambda one: one.endpoint is not endpoint)
        if usable:
            engine = usable[0].engine
        else:  # another connection is opened
            connection = await scheduler.acquire(None, scheduler.next_arrival())
            scheduler.release(connection, None)
            engine = connection.engine
        if body is not None:
            body = map_model(body, engine.config.models)
        return await engine.calls.call(method, *path, query=query, body=body)


@explain_options
@opens_block("open_pool(...) as pool")
@trio.lowlevel.enable_ki_protection
async def open_pool(
    base_url: str | None = None,
    *,
    size: int = 4,
    per_connection: int | None = None,
    api_key: ApiKey | None = None,
    endpoint: Endpoint | None = None,
    endpoints: Iterable[PoolEndpoint] | None = None,
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
    rate_limiter: RateLimiter | None = None,
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

    :param size: the largest number of connections to one endpoint.
    :param per_connection: the number of turns, lanes and conversations on each connection above
        which another connection is opened. By default half of the turns that a connection can run:
        8 where the endpoint has lanes, half of ``limits.http_connections`` over HTTP, else 1.
    :param endpoints: several endpoints, each with its key, in the order of preference, instead of
        ``base_url``, ``endpoint``, ``api_key`` and ``headers``. The next one is used when one is
        given up, as ``reconnect`` says, or at once when it refuses the key, its quota is used up,
        or another attempt cannot help. The pool returns to the preferred one when a connection to
        it can be opened again (docs/pool.md).
    :raises ConfigurationError: for arguments that cannot work.
    :raises ConnectError: as `open_responses` does.
    :raises ReconnectFailed: as `open_responses` does.
    """
    _check_no_size(base_url)
    if endpoints is None:
        headers = checked_headers(headers)
        only = PoolEndpoint(endpoint=choose_endpoint(base_url, endpoint), api_key=api_key)
        chosen: Sequence[PoolEndpoint] = [replace(only, headers=headers)]
    else:
        chosen = checked_endpoints(endpoints)
        _check_not_given(base_url=base_url, endpoint=endpoint, api_key=api_key)
        _check_not_given(headers=headers or None)
    _check_numbers(size=size)
    if per_connection is not None:
        _check_numbers(per_connection=per_connection)
    if ssl_context is None and any(one.endpoint.secure for one in chosen):
        ssl_context = default_ssl_context()  # one context for connections opened later, too
    retry_policy = RetryPolicy(max_retries=max_retries, max_retry_wait=max_retry_wait)
    limits = checked_record("limits", limits, Limits)
    instruments = checked_instruments(instruments)  # an iterator is for all connections
    observers = Instruments(with_logging(instruments, enabled=logging))
    reconnect_options = _ReconnectOptions(reconnect)

    def make(state: EndpointState) -> ConnectionEngine:
        options = state.options
        return make_engine(
            None,
            api_key=options.api_key,
            endpoint=options.endpoint,
            headers=options.headers,
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
            rate_limiter=options.rate_limiter or rate_limiter,
            instruments=instruments,
            logging=logging,
            allow_insecure=allow_insecure,
            dial=dial,
            name=state.name,
            models=options.models,
            work=scheduler.work,
        )

    async def connect(nursery: trio.Nursery, state: EndpointState) -> ConnectionEngine:
        engine = make(state)
        if state.given_up_with is not None and engine.config.transport == "http":
            await check_reachable(engine.config)  # the opening sends nothing
        return await start_engine(nursery, engine)

    def expected_places(one: Endpoint) -> int:
        over_http = "http" in {transport, None if transport else one.transport}
        return limits.http_connections if over_http else places_of(one)

    states = [
        EndpointState(rank, one, name, expected_places(one.endpoint))
        for rank, (one, name) in enumerate(zip(chosen, unique_names(chosen), strict=True))
    ]
    policy = reconnect if isinstance(reconnect, ReconnectPolicy) else ReconnectPolicy()
    pool_limits = PoolLimits(size=size, target_load=per_connection, retry_pause=policy.cap)

    def notify_change(name: str, error: ResponsesError | None) -> None:
        observers.notify(Instrument.endpoint_changed, name, error)

    scheduler = Scheduler(pool_limits, states, notify_change)
    for state in states:
        make(state)  # raises for options that cannot work, also for an endpoint that is used later
    supervisor = PoolSupervisor(scheduler, connect)
    async with open_closing_nursery(supervisor.aclose) as nursery:
        await supervisor.start(nursery)
        yield ResponsesPool(scheduler, supervisor, retry_policy, observers)


def _check_not_given(**options: object) -> None:
    for name, value in options.items():
        if value is not None:
            raise ConfigurationError(
                f"pass {name} or endpoints, not both: each PoolEndpoint has its own"
            )


def _check_no_size(base_url: object) -> None:
    if isinstance(base_url, int):
        raise ConfigurationError(
            f"base_url must be a string, not {base_url}: for the number of connections use"
            f" size={base_url}"
        )


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
