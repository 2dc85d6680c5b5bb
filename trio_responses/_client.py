"""The public connection: `open_responses`, `connect_responses` and `ResponsesConnection`.

`ResponsesConnection` is a facade. The engine (`_connection`) owns the sockets; turns are in
`_turn` and conversations in `_conversation`.
"""

from __future__ import annotations

import math
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypedDict, final

import trio

from trio_responses._concurrency import open_closing_nursery, opens_block, require_trio
from trio_responses._connection.engine import ConnectionEngine
from trio_responses._conversation.checkpoint import Checkpoint
from trio_responses._conversation.conversation import Conversation
from trio_responses._conversation.durable import DURABLE_OPTIONS, DurableOptions, open_durable
from trio_responses._conversation.history import History
from trio_responses._endpoint import checked_headers, choose_endpoint
from trio_responses._errors import ConfigurationError, ConnectionClosed
from trio_responses._instruments.instrument import Instruments, ServerAddress
from trio_responses._instruments.log import with_logging
from trio_responses._rate_limiter import limit_queue_of
from trio_responses._settings import (
    Keepalive,
    Limits,
    RetryPolicy,
    RotationPolicy,
    Timeouts,
    check_drain_seconds,
    check_option_values,
    check_websocket_retry,
    checked_record,
    explain_options,
)
from trio_responses._transport.dialing import ConnectionConfig, dial_tcp
from trio_responses._transport.http import check_http_installed
from trio_responses._transport.tunnel import choose_dial
from trio_responses._turn.methods import Lane, TurnMethods
from trio_responses._turn.responses import Responses
from trio_responses._wire.param_checks import check_params, merge_extra_body
from trio_responses._wire.params import ConversationParams

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncGenerator, Iterable, Mapping
    from typing import Self, Unpack

    from trio_responses._conversation.durable import OnInterruptedCall
    from trio_responses._endpoint import ApiKey, Endpoint, Headers
    from trio_responses._instruments.instrument import Instrument
    from trio_responses._lifecycle import ConnectionState, ConnectionStatistics, Event
    from trio_responses._protocol.delivery import DeliveryMode
    from trio_responses._rate_limiter import RateLimiter
    from trio_responses._settings import (
        OnAbandonedTurn,
        ReconnectPolicy,
        RecoverOption,
        TransportOption,
    )
    from trio_responses._stores.interface import ConversationStore
    from trio_responses._transport.dialing import Dial
    from trio_responses._transport.proxy import ProxyOption
    from trio_responses._turn.stream import ResponseStream, TurnSender
    from trio_responses._turn.work import ActiveWork
    from trio_responses._wire import ClientEvent, Input
    from trio_responses._wire.params import ResponseCreateParams

__all__ = [
    "ConnectionOptions",
    "ResponsesConnection",
    "connect_responses",
    "make_engine",
    "open_responses",
    "start_engine",
]


@final
class ResponsesConnection(TurnMethods, trio.abc.Channel[Any]):
    """A supervised connection to a Responses server.

    Made by `open_responses` and `connect_responses` only. The connection manages one socket at a
    time and reconnects automatically.

    `create` and `stream` run turns. Underneath, the connection is a `trio.abc.Channel`, the raw
    channel: `send` a command, or any mapping, and `receive` the events that answer it, in order.
    After its first use the raw channel also delivers unsolicited events of the server, and
    `ConnectionLost`, `ConnectionRestored` and `ConnectionRotated`, each in its place among the
    events.
    """

    def __init__(self, engine: ConnectionEngine) -> None:
        self._engine = engine

    def __repr__(self) -> str:
        """Return the host and the state of the connection; nothing secret."""
        return f"<ResponsesConnection to {self._engine.config.endpoint.host} {self.state}>"

    # --- Turns ---------------------------------------------------------------------------

    @property
    def responses(self) -> Responses:
        """The methods of openai-python's ``client.responses``."""
        return Responses(self, self._engine.calls)

    def _turn_sender(self) -> TurnSender:
        return self._engine.requests

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
        """Return a stream for one turn: its block sends the request and receives the events.

        For example::

            async with connection.stream(prompt, model=MODEL) as stream:
                async for event in stream:
                    ...
            response = stream.response

        Any number of tasks may run turns at the same time. Where the endpoint has lanes, their
        turns run side by side, else one after the other in the order in which they were asked
        for. While no socket is open, turns wait for one as long as the reconnect policy goes on.

        :param input: text, which is sent as a message of the user, or an item, or a list of items.
        :param delivery: ``"at_least_once"`` sends the request again when it is not known whether
            it ran.
        :param text_format: the type of the answer: the model has to write JSON of the type, as for
            `parse`. ``stream.partials()`` yields the values so far.
        :param snapshot: whether text is kept for ``stream.snapshot``. The text of JSON is kept in
            any case.
        :param max_retries: how often the turn is sent again after a rate limit or, with
            ``at_least_once``, after an error of the server; by default as the connection.
        :param timeouts: the deadlines ``first_event`` and ``stall`` of each attempt at this turn,
            in place of those of the connection. The other values have no effect on a turn.
        :param params: the parameters of the request: `ResponseCreateParams`.
        :raises TypeError: for an unknown parameter, and a value of a wrong type.
        :raises ValueError: for a word that a parameter does not accept, and a missing key.
        :raises ConfigurationError: for invalid values of ``delivery``, ``max_retries`` and
            ``timeouts``, and for a type that has no JSON schema.
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

    @opens_block("connection.lane(...) as lane")
    async def lane(self, name: str | None = None) -> AsyncGenerator[Lane, None]:
        """Reserve a lane (``stream_id``) for the length of a block.

        Turns of one lane run one after the other, and the server keeps the latest response of
        each lane in its fast cache (guide, "WebSocket mode"). So a chain of turns profits from a
        lane that no other turn uses. Where the endpoint has no lanes, the turns share the default
        lane.

        :param name: letters, digits, ``_``, ``-`` and ``.``, at most 256; by default a free name.
            The server counts 32 names a socket and forgets none, so do not keep inventing names.
        :raises ConfigurationError: for a malformed name, or one that is reserved; and for any
            name where the endpoint has no lanes.
        """
        self._engine.work.check()
        with self._engine.requests.reserved_lane(name) as sender:
            yield Lane(sender)

    @opens_block("connection.conversation(...) as conversation")
    async def conversation(
        self, **params: Unpack[ConversationParams]
    ) -> AsyncGenerator[Conversation, None]:
        """Open a conversation for the length of a block: a history that outlives its socket.

        For example::

            async with connection.conversation(model=MODEL, store=False) as conversation:
                response = await conversation.create("Is it warmer in Paris or in Oslo?")

        Where the endpoint has lanes, the conversation and each of its forks reserve a lane.

        :param params: the parameters that hold for every turn, such as ``model`` and
            ``instructions``: `ConversationParams`.
        :raises TypeError: for an unknown parameter, and a value of a wrong type.
        :raises ValueError: for a word that a parameter does not accept, and a missing key.
        """
        check_params(params, of="conversation()", allowed=ConversationParams)
        async with self._open_conversation(merge_extra_body(params), History()) as conversation:
            yield conversation

    @opens_block("connection.restore_conversation(...) as conversation")
    async def restore_conversation(self, checkpoint: bytes) -> AsyncGenerator[Conversation, None]:
        """Open a conversation from a checkpoint, for the length of a block.

        For example::

            saved = conversation.checkpoint()
            ...
            async with connection.restore_conversation(saved) as conversation:
                response = await conversation.create("Where were we?")

        The checkpoint has the settings and the history of the conversation. The first turn is sent
        with full input, unless the server stored the last response.

        :param checkpoint: the return value of ``conversation.checkpoint()``.
        :raises ConfigurationError: if the bytes are not a checkpoint, or were written by a later
            release in a format that this release cannot read.
        """
        saved = Checkpoint.decode(checkpoint)
        async with self._open_conversation(
            saved.settings, saved.history(), saved.conversation_id
        ) as conversation:
            yield conversation

    @opens_block("connection.durable_conversation(...) as conversation")
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
        """Open a conversation of a store for the length of a block, and own it meanwhile.

        For example::

            async with (
                SQLiteStore("chats.db") as backend,
                connection.durable_conversation(backend, "customer-42", model=MODEL) as chat,
            ):
                response = await chat.run("Where is my parcel?", request_id=job.id)

        Any process that can reach the store can continue the conversation. It is saved after each
        turn. The start of a call is saved before the call runs, and its output when it has
        returned, so that no other process starts the call again. Forks are durable, too.

        The block owns the conversation: it holds a lease, and renews it. If the process is paused
        or cut off from the store for longer than the lease, the lease may be lost to another owner;
        the block is then cancelled, and raises `LeaseLost`. The end of the block saves what could
        not be saved before, within the timeout of the store, also if the block is cancelled. See
        docs/durable-conversations.md.

        :param backend: a store of ``trio_responses.stores``, or one of your own.
        :param conversation_id: the name of the conversation in the store, at most 512 characters.
        :param wait: how many seconds to wait if another owner has the conversation.
        :param lease_seconds: the length of the lease, at least 1: how long a conversation whose
            owner was killed cannot be opened. Choose several times the duration of a call of the
            store.
        :param on_interrupted_call: what happens to a call that an earlier owner has started and not
            finished: ``"report"`` tells the model that the call may have run; ``"rerun"`` lets the
            next run start it again; an async function, which is called with the call, returns one
            of these words, or the output item of the call. Calls that are interrupted during the
            block are reported; see ``repeat_interrupted`` of ``run()``.
        :param checkpoint: the return value of ``conversation.checkpoint()``, with which a
            conversation begins that the store does not have. One that the store has is replaced,
            unless its revision is later.
        :param params: the parameters that hold for every turn, as for `conversation`. They replace
            the saved ones, and are saved. Functions and secrets of tools are not saved: pass
            ``tools`` each time.
        :raises ConversationBusy: when another owner still has the conversation after ``wait``.
        :raises LeaseLost: when the lease was lost during the block.
        :raises StoreUnavailable: when the store cannot be reached, also at the end of the block.
        :raises OutdatedCheckpoint: when the store has a later revision than the checkpoint, or the
            checkpoint is of another conversation.
        :raises StoreError: when the store has records that cannot be read.
        :raises ConfigurationError: for options that cannot work.
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
        instruments = self._engine.config.instruments
        self._engine.work.check()  # before a lease is acquired
        async with open_durable(
            self._open_conversation, options, settings, instruments
        ) as conversation:
            yield conversation

    @asynccontextmanager
    async def _open_conversation(
        self, settings: Mapping[str, Any], history: History, conversation_id: str | None = None
    ) -> AsyncGenerator[Conversation, None]:
        """Open a conversation that may have a history, for the length of a block."""
        self._engine.work.check()
        with self._engine.requests.lane_reservations() as reserve:
            yield Conversation(
                reserve,
                settings,
                history,
                instruments=self._engine.config.instruments,
                conversation_id=conversation_id,
            )

    # --- The raw channel -----------------------------------------------------------------

    async def send(self, value: ClientEvent | Mapping[str, Any]) -> None:
        """Send a raw command, whose events `receive` returns, as soon as a socket is open.

        For example::

            await connection.send({"type": "response.create", "model": MODEL, "input": "Hello"})
            async for event in connection:
                ...

        `receive` returns the events that answer the command. A checkpoint; if cancelled before
        the first byte is written, nothing was sent.

        :param value: a command, or a mapping with a ``type``, which is sent as it is: nothing in
            it is checked or changed, so that commands and fields can be sent that this version
            does not know. The caller chooses the lane (``stream_id``).
        :raises ConfigurationError: for a value that is no command, or has no ``type``.
        :raises TypeError: for a value that has no JSON form.
        :raises ValueError: for NaN and infinities, which JSON cannot express.
        :raises RequestTooLarge: when the command is over ``limits.max_request_bytes``.
        :raises ConnectionLost: when the socket was lost before the command was written whole.
        :raises ConnectionClosed: after `aclose`.
        """
        self._engine.router.channel_in_use = True
        await self._engine.requests.send_command(value)

    async def receive(self) -> Event:
        """Wait for the next event outside of turns. A checkpoint; if cancelled, no event is lost.

        :raises ConnectionClosed: after `aclose`.
        :raises ReconnectFailed: when the connection has ended, after its last event.
        :raises ResponsesError: likewise, for other reasons.
        """
        self._engine.router.channel_in_use = True
        return await self._engine.router.channel.receive()

    def __aiter__(self) -> Self:
        """Iterate over the events that `receive` returns."""
        return self

    async def __anext__(self) -> Event:
        """Wait for the next event; the iteration ends when the connection is closed.

        A checkpoint; cancelled, it loses no event.
        """
        try:
            return await self.receive()
        except ConnectionClosed:
            raise StopAsyncIteration from None

    async def aclose(self) -> None:
        """Close the connection with close code 1000: idempotent, within ``timeouts.close``.

        Active turns raise `ConnectionClosed`. A cancellation does not shorten the closing.
        """
        await self._engine.aclose()

    async def drain(self, seconds: float = math.inf) -> int:
        """Finish what is in progress, take no new requests, and close the connection.

        For example, before the process ends::

            cut_off = await connection.drain(25)

        From the call on, new turns, runs, conversations and calls raise `ConnectionClosed` with
        ``delivery`` ``not_sent``. Those that have begun go on, also the ones that wait for a place
        or for a reconnect, and a run until its last turn. When all have ended, or after
        ``seconds``, the connection is closed as by `aclose`; what is left raises
        `ConnectionClosed`. A second call waits as well, and the one that ends first counts.

        If cancelled while it waits, the connection is not closed, and still takes no new requests.

        :param seconds: the longest wait; by default as long as it takes.
        :return: the number of turns, runs and calls that had not ended; 0 if nothing was cut off.
        :raises ConfigurationError: for a negative number, and for a connection of a pool, which
            ``pool.drain`` drains.
        """
        check_drain_seconds(seconds)
        if self._engine.is_pooled:
            raise ConfigurationError("the connection belongs to a pool: call pool.drain()")
        return await self._engine.drain(seconds)

    # --- State ---------------------------------------------------------------------------

    @property
    def state(self) -> ConnectionState:
        """The state of the connection."""
        return self._engine.state

    def is_healthy(self) -> bool:
        """Return whether a request that is made now can be sent, as far as is known.

        True while a socket is open, while requests are sent over HTTP, and while a first attempt
        is made to replace a lost or old socket. False from the moment at which an attempt to open
        a socket has failed until one succeeds, while a socket is replaced that was lost before it
        was of use, while HTTP requests wait for another attempt to connect, while the connection
        drains, and when it is closed.

        Costs no I/O, never raises, and may be called from any thread. It says nothing about the
        key, the model or the quota: no request is sent (docs/operations.md).
        """
        return self._engine.is_healthy

    async def wait_open(self) -> None:
        """Wait until a socket is open. A checkpoint.

        :raises ResponsesError: when no other socket will be opened: why the connection ended.
        """
        await self._engine.wait_open()
        await trio.lowlevel.checkpoint()

    @property
    def previous_response_id(self) -> str | None:
        """The id of the latest completed response of the current socket.

        `None` after a reconnect, and after an error that evicted the response from the cache of
        the server.
        """
        socket = self._engine.sockets.current
        return socket.requests.previous_response_id if socket is not None else None

    @property
    def handshake_headers(self) -> dict[str, str]:
        """The headers of the latest upgrade response of the server, with names in lower case."""
        socket = self._engine.sockets.current
        return dict(socket.transport.handshake_headers) if socket is not None else {}

    def statistics(self) -> ConnectionStatistics:
        """Return the counters of the connection."""
        return self._engine.statistics()


class ConnectionOptions(TypedDict, total=False):
    """The options of `open_responses`, which describes them, as keyword arguments."""

    base_url: str | None
    api_key: ApiKey | None
    endpoint: Endpoint | None
    headers: Headers
    ssl_context: ssl.SSLContext | None
    proxy: ProxyOption
    reconnect: ReconnectPolicy | Iterable[float] | None
    timeouts: Timeouts | None
    keepalive: Keepalive | None
    limits: Limits | None
    rotation: RotationPolicy | None
    max_retries: int
    max_retry_wait: float
    on_abandoned_turn: OnAbandonedTurn
    transport: TransportOption | None
    websocket_retry: float | None
    http2: bool
    recover: RecoverOption | None
    rate_limiter: RateLimiter | None
    allow_insecure: bool
    instruments: Iterable[Instrument]
    logging: bool
    dial: Dial


@explain_options
@opens_block("open_responses(...) as connection")
@trio.lowlevel.enable_ki_protection
async def open_responses(
    base_url: str | None = None,
    *,
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
    rate_limiter: RateLimiter | None = None,
    allow_insecure: bool = False,
    instruments: Iterable[Instrument] = (),
    logging: bool = True,
    dial: Dial = dial_tcp,
) -> AsyncGenerator[ResponsesConnection, None]:
    """Open a supervised connection for the length of a block.

    For example::

        async with open_responses() as connection:
            response = await connection.create("Hello", model=MODEL)

    The socket is open when the block begins. If the socket is lost, another one is opened
    automatically; active turns raise `ConnectionLost`. Nothing outlives the block: no task, no
    socket, no timer. If the block is cancelled or fails, the connection still works in its
    ``finally`` clauses; then it is closed within ``timeouts.close`` seconds.

    :param base_url: the base URL (``https://host/v1``) or the WebSocket URL; by default
        ``OPENAI_BASE_URL``, or OpenAI's own.
    :param api_key: the key, or an async callable that returns it, called for every handshake; by
        default the environment variable of the endpoint, ``OPENAI_API_KEY`` for most. An empty
        string sends no key, where the endpoint needs none.
    :param endpoint: the profile of a server, instead of ``base_url``.
    :param headers: additional headers for every handshake; they replace headers of the library
        that have the same name.
    :param ssl_context: the trusted certificates and the client certificate for TLS to the server;
        by default the certificates that the system trusts. A proxy that is reached over TLS is
        always checked against the certificates of the system.
    :param proxy: the URL of a proxy (``http://``, ``https://``, ``socks5://`` or ``socks5h://``),
        with ``user:password@`` if the proxy asks for them; `False` for no proxy. By default the
        proxy of the environment when the connection is opened: ``HTTPS_PROXY`` and related
        variables, and ``NO_PROXY`` (docs/proxies.md).
    :param reconnect: a `ReconnectPolicy`, or delays in seconds.
    :param timeouts: how long each phase may take.
    :param keepalive: how a dead connection is detected.
    :param limits: limits on bytes of messages, requests and buffers.
    :param rotation: when a socket is replaced before the server ends it.
    :param max_retries: how often a turn is sent again when the server rejected it for its rate
        (429, before any event: it did not run); with ``delivery="at_least_once"`` also after an
        overload or another error of the server. 0 raises the error at once. The cost: such a turn
        may take up to ``max_retries * max_retry_wait`` seconds longer, unless the caller sets a
        deadline.
    :param max_retry_wait: the longest delay before one retry, in seconds. The delay is what the
        server asks for, else 0.5 s, doubled for each retry up to 8 s and shortened at random by up
        to a quarter. If the server asks for a longer delay, the error is raised at once.
    :param on_abandoned_turn: what happens when a turn is left before its end, where the endpoint
        has no lanes: with ``"drain"`` the next turn waits until the rest of the response was
        received; with ``"replace_socket"`` the next turn has a new socket at once, and the server
        has lost what was cached for the old one. The remaining events are discarded in both cases.
    :param transport: ``"websocket"``, ``"http"``, or ``"auto"``: requests are sent on a WebSocket,
        and over HTTP with server-sent events where the server or the network has no WebSocket mode
        (docs/http.md). By default the endpoint's, which is ``"auto"`` for most. HTTP needs the
        extra ``trio-responses[http]``.
    :param websocket_retry: with ``"auto"``, the seconds after which a connection that uses HTTP
        tries a WebSocket again, when no request is active; `None` for never.
    :param http2: whether HTTP/2 is used where the server speaks it over TLS. A context that is
        passed as ``ssl_context`` has to offer ``h2`` itself. Needs the extra
        ``trio-responses[http2]``.
    :param recover: experimental. With ``"retrieve"`` a turn that was lost after its first event
        asks the server for its Response over HTTP, again and again for ``timeouts.stall`` seconds,
        and ends with this Response. The turn raises its error as before if the server does not have
        the Response: with ``store=False``, and where a response ends with its socket. Needs the
        extra ``trio-responses[http]``.
    :param rate_limiter: limits of requests and tokens a minute, which turns wait for before they
        are sent. Connections and pools may share one.
    :param allow_insecure: allow ``ws://`` to other machines, which lets everybody on the network
        path read the key and the content.
    :param instruments: observers of sockets, turns and tools, besides the log
        (docs/instruments.md).
    :param logging: whether a `LoggingInstrument` logs to the logger ``trio_responses``. One among
        ``instruments`` takes its place.
    :param dial: opens the byte stream instead of TCP. The proxies of the environment are not used
        then.
    :raises ConfigurationError: for arguments that cannot work.
    :raises ConnectError: when the server cannot be reached and another attempt cannot help; a
        `ProxyError` when a proxy is the cause.
    :raises ReconnectFailed: when the attempts of the policy are used up.
    """
    engine = make_engine(
        base_url,
        api_key=api_key,
        endpoint=endpoint,
        headers=headers,
        ssl_context=ssl_context,
        proxy=proxy,
        reconnect=reconnect,
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
        rate_limiter=rate_limiter,
        allow_insecure=allow_insecure,
        instruments=instruments,
        logging=logging,
        dial=dial,
    )
    async with open_closing_nursery(engine.aclose) as nursery:
        engine.start(nursery, shielded=True)
        await engine.wait_open()
        yield ResponsesConnection(engine)


@explain_options
@trio.lowlevel.enable_ki_protection
async def connect_responses(
    nursery: trio.Nursery,
    base_url: str | None = None,
    *,
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
    rate_limiter: RateLimiter | None = None,
    allow_insecure: bool = False,
    instruments: Iterable[Instrument] = (),
    logging: bool = True,
    dial: Dial = dial_tcp,
) -> ResponsesConnection:
    """Open a supervised connection whose tasks run in a nursery of the caller.

    The options are those of `open_responses`. The connection lives until ``connection.aclose()``,
    or until the nursery is cancelled. If this call is cancelled or fails, nothing is left behind.

    :param nursery: runs the tasks of the connection.
    """
    engine = make_engine(
        base_url,
        api_key=api_key,
        endpoint=endpoint,
        headers=headers,
        ssl_context=ssl_context,
        proxy=proxy,
        reconnect=reconnect,
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
        rate_limiter=rate_limiter,
        allow_insecure=allow_insecure,
        instruments=instruments,
        logging=logging,
        dial=dial,
    )
    return ResponsesConnection(await start_engine(nursery, engine))


@trio.lowlevel.enable_ki_protection
async def start_engine(nursery: trio.Nursery, engine: ConnectionEngine) -> ConnectionEngine:
    """Run an engine in a nursery and wait until its first socket is open.

    :raises ResponsesError: when no socket can be opened; the engine is closed then, as it is when
        the call is cancelled.
    """
    try:
        engine.start(nursery)
        await engine.wait_open()
        await trio.lowlevel.checkpoint()
    except BaseException:
        with trio.CancelScope(shield=True):  # as in `open_closing_nursery`
            await engine.aclose()
        raise
    return engine


def make_engine(
    base_url: str | None,
    *,
    api_key: ApiKey | None,
    endpoint: Endpoint | None,
    headers: Headers,
    ssl_context: ssl.SSLContext | None,
    proxy: ProxyOption,
    reconnect: ReconnectPolicy | Iterable[float] | None,
    timeouts: Timeouts | None,
    keepalive: Keepalive | None,
    limits: Limits | None,
    rotation: RotationPolicy | None,
    max_retries: int,
    max_retry_wait: float,
    on_abandoned_turn: OnAbandonedTurn,
    transport: TransportOption | None,
    websocket_retry: float | None,
    http2: bool,
    recover: RecoverOption | None,
    rate_limiter: RateLimiter | None,
    allow_insecure: bool,
    instruments: Iterable[Instrument],
    logging: bool,
    dial: Dial,
    name: str | None = None,
    models: Mapping[str, str] | None = None,
    work: ActiveWork | None = None,
) -> ConnectionEngine:
    """Return an engine for the options of a connection, with defaults for those not given.

    :param name: the name of the endpoint; by default its address.
    :param models: the names of models at the server, by the names in requests.
    :param work: counts the work in progress of the pool that the connection belongs to.
    """
    require_trio()
    endpoint = choose_endpoint(base_url, endpoint)
    transport = endpoint.transport if transport is None else transport
    check_option_values(on_abandoned_turn=on_abandoned_turn, transport=transport)
    check_websocket_retry(websocket_retry)
    if recover is not None:
        check_option_values(recover=recover)
    if transport == "http":
        check_http_installed('transport="http"', http2=http2)
    elif recover is not None:
        check_http_installed(f"recover={recover!r}", http2=http2)
    if not endpoint.secure and not endpoint.loopback and not allow_insecure:
        raise ConfigurationError(
            f"http:// and ws:// to {endpoint.host} show the key and the content to every machine on"
            " the way: use https://, or pass allow_insecure=True"
        )
    config = ConnectionConfig(
        endpoint=endpoint,
        name=endpoint.address if name is None else name,
        models=models or {},
        dial=choose_dial(endpoint, proxy, dial, allow_insecure=allow_insecure),
        ssl_context=ssl_context,
        timeouts=checked_record("timeouts", timeouts, Timeouts),
        keepalive=checked_record("keepalive", keepalive, Keepalive),
        limits=checked_record("limits", limits, Limits),
        retry_policy=RetryPolicy(max_retries=max_retries, max_retry_wait=max_retry_wait),
        on_abandoned_turn=on_abandoned_turn,
        transport=transport,
        websocket_retry=websocket_retry,
        http2=http2,
        recover=recover,
        rate_limits=limit_queue_of(rate_limiter),
        instruments=Instruments(
            with_logging(instruments, enabled=logging),
            ServerAddress(endpoint.host, endpoint.port),
        ),
    )
    return ConnectionEngine(
        config,
        api_key,
        checked_headers(headers),
        reconnect,
        checked_record("rotation", rotation, RotationPolicy),
        work=work,
    )
