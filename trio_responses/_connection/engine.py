"""The supervised connection: one face, and one socket after the other behind it.

Two tasks do the work. The *receive task* runs for each socket: it reads batches, decodes them
and gives every event to its owner. The *supervisor task* runs for the whole connection: it sees
to it that there is a socket, and knows when to stop trying.

Ctrl-C interrupts neither of them, nor the closing: a `KeyboardInterrupt` in between would leave
tasks that nobody cancels behind their shields. Trio keeps it for the main task's next checkpoint.

What belongs elsewhere: bytes and handshakes (`transport/websocket.py`), what one socket owes to
whom (`link.py`, `core/lanes.py`), what a turn is (`turns/stream.py`).
"""

from __future__ import annotations

import math
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final, final

import trio

from trio_responses._concurrency import open_collapsing_nursery
from trio_responses._connection.request_queue import RequestQueue
from trio_responses._connection.router import Router
from trio_responses._connection.socket import Socket
from trio_responses._connection.socket_set import SocketSet
from trio_responses._conversation.conversation import Conversation
from trio_responses._conversation.history import History
from trio_responses._endpoint import api_key_for, handshake_headers, key_hint
from trio_responses._errors import (
    AuthenticationError,
    ConnectError,
    ConnectionClosed,
    ConnectionLost,
    ConnectTimeout,
    ReconnectFailed,
    ResponsesError,
    UpgradeUnsupported,
)
from trio_responses._instruments.instrument import Instrument
from trio_responses._lifecycle import (
    ConnectionRestored,
    ConnectionRotated,
    ConnectionState,
    ConnectionStatistics,
)
from trio_responses._protocol.backoff import is_permanent_close
from trio_responses._protocol.continuation import Continuation
from trio_responses._settings import check_option_values
from trio_responses._transport.websocket import connect_transport
from trio_responses._turn.inbox import Budget
from trio_responses._turn.methods import Lane, TurnMethods
from trio_responses._turn.request_builder import StaticRequest, create_command
from trio_responses._turn.stream import ResponseStream

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping, Sequence
    from typing import Self

    import msgspec

    from trio_responses._endpoint import ApiKey, HeaderLines
    from trio_responses._instruments.instrument import SocketObserver
    from trio_responses._lifecycle import Event
    from trio_responses._protocol.backoff import Backoff
    from trio_responses._protocol.delivery import DeliveryChoice
    from trio_responses._protocol.raw_items import RawItems
    from trio_responses._settings import RotationPolicy
    from trio_responses._transport.websocket import ConnectionConfig, Transport
    from trio_responses._turn.stream import AbandonChoice
    from trio_responses._wire import ClientEvent

__all__ = ["ResponsesConnection"]

UNAUTHORIZED: Final = 401


@final
class ResponsesConnection(TurnMethods, trio.abc.Channel[Any]):
    """A connection to a Responses server. Made by `open_responses` and `connect_responses` only.

    Turns are the usual way: `create` and `stream`. Underneath it is a `trio.abc.Channel`: send
    `ResponseCreate`, receive events. What belongs to no turn arrives there: the answers to
    what was sent there, in order; and, once somebody has begun to use it, what the server says
    unasked, and `ConnectionLost` and `ConnectionRestored`, each in its place among the events.
    """

    def __init__(
        self,
        config: ConnectionConfig,
        api_key: ApiKey | None,
        headers: HeaderLines,
        backoff: Backoff,
        rotation: RotationPolicy,
    ) -> None:
        self._config = config
        self._api_key = api_key_for(config.endpoint, api_key)
        self._headers = headers
        self._question = key_hint(config.endpoint, api_key, headers)
        self._backoff = backoff
        self._rotation = rotation
        self._budget = Budget(config.limits)
        self._dispatcher = Router(self._budget, config.limits)
        self._sockets = SocketSet()
        self._sender = RequestQueue(config, self._sockets, self._budget)
        self._tasks = trio.CancelScope()
        self._started = False
        self._finished = trio.Event()
        self._sockets_opened = 0

    def __repr__(self) -> str:
        """Show where and in what state: nothing secret."""
        return f"<ResponsesConnection to {self._config.endpoint.host} {self._sockets.state}>"

    # --- Turns ---------------------------------------------------------------------------

    def stream(
        self,
        *,
        delivery: DeliveryChoice = "at_most_once",
        abandon: AbandonChoice = "drain",
        snapshot: bool = True,
        **params: Any,
    ) -> ResponseStream:
        """Run one turn as a scope, event by event.

        For example::

            async with connection.stream(model=MODEL, input=prompt) as stream:
                async for event in stream:
                    ...
            response = stream.response

        Any number of tasks may do so at once; where the endpoint has lanes, their turns run side
        by side, else one after the other, in the order they asked. Without a socket they wait
        for one, as long as the reconnect policy goes on.

        :param delivery: ``"at_least_once"`` sends the request again when it is not known whether
            it ran.
        :param abandon: what becomes of the default lane when the block is left early, where there
            are no other lanes: with ``"drain"`` the next turn waits until the rest of the
            response has passed; with ``"replace"`` the socket is replaced, and with it the
            server's caches. Either way nobody gets the rest.
        :param snapshot: whether text is kept for ``stream.snapshot``.
        :param params: the fields of `ResponseCreate`; others go into its ``extra``.
        :raises ConfigurationError: for ``stream_id``: see `lane`; for other words in ``delivery``
            and ``abandon``.
        """
        check_option_values(delivery=delivery, abandon=abandon)
        draft = StaticRequest(create_command(params))
        return ResponseStream(
            self._sender, draft, delivery=delivery, abandon=abandon, snapshot=snapshot
        )

    @asynccontextmanager
    async def lane(self, name: str | None = None) -> AsyncGenerator[Lane, None]:
        """Have a lane of one's own for the length of a block.

        Turns of one lane run one after the other, and the server keeps the latest response of
        each lane in its fast cache (guide, "WebSocket mode"): so a chain of turns stays on a lane
        that nobody else uses. Where the endpoint has no lanes, the turns share the default lane.

        :param name: letters, digits, ``_``, ``-`` and ``.``, at most 256; by default a free name
            is chosen. The server counts 32 names a socket and forgets none, so do not
            make up new ones all the time.
        :raises ConfigurationError: for a name outside the grammar, or one that is in use; and for
            any name where the endpoint has no lanes.
        """
        lane = Lane(self._sender, self._sender.leases.lease(name))
        try:
            yield lane
        finally:
            self._sender.leases.give_back(lane.name)

    @asynccontextmanager
    async def conversation(self, **settings: Any) -> AsyncGenerator[Conversation, None]:
        """Have a conversation for the length of a block: a history that outlives its socket.

        For example::

            async with connection.conversation(model=MODEL, store=False) as conversation:
                response = await conversation.create("Is it warmer in Paris or in Oslo?")

        It has a lane of its own where the endpoint has lanes, and so has each of its forks.

        :param settings: the fields of `ResponseCreate` that hold for every turn, ``model`` and
            ``instructions`` among them; others go into its ``extra``.
        :raises ConfigurationError: for fields that are no setting.
        """
        async with self._resume(settings, Continuation()) as conversation:
            yield conversation

    @asynccontextmanager
    async def _resume(
        self,
        settings: Mapping[str, Any],
        continuation: Continuation,
        answers: Sequence[msgspec.Raw] = (),
        unsent: RawItems | None = None,
    ) -> AsyncGenerator[Conversation, None]:
        """Open a conversation that may have a history."""
        leased: list[str | None] = []

        def lease() -> Lane:
            leased.append(self._sender.leases.lease(None))
            return Lane(self._sender, leased[-1])

        try:
            ledger = History(self._config.endpoint, continuation, answers, unsent)
            yield Conversation(
                lease,
                self._config.endpoint,
                settings,
                ledger,
                instruments=self._config.instruments,
            )
        finally:
            for name in leased:
                self._sender.leases.give_back(name)

    # --- The channel underneath ----------------------------------------------------------

    async def send(self, value: ClientEvent) -> None:
        """Send a command; the answer comes to `receive`. Without a socket it waits for one.

        A checkpoint; when cancelled before the first byte is out, nothing was sent.

        :raises RequestTooLarge: when it is over ``limits.max_request_bytes``.
        :raises ConnectionLost: when the socket ended before all of it was written.
        :raises ConnectionClosed: after `aclose`.
        """
        self._dispatcher.listening = True
        await self._sender.send_command(value)

    async def receive(self) -> Event:
        """Wait for the next event of the channel. A checkpoint; when cancelled, none is lost.

        :raises ConnectionClosed: after `aclose`.
        :raises ReconnectFailed: when the connection is over, behind its last event.
        :raises ResponsesError: likewise, for other reasons.
        """
        self._dispatcher.listening = True
        return await self._dispatcher.channel.receive()

    def __aiter__(self) -> Self:
        """Iterate over the channel."""
        return self

    async def __anext__(self) -> Event:
        """Wait for the next event; the iteration ends where the connection is closed.

        A checkpoint; when cancelled, no event is lost.
        """
        try:
            return await self.receive()
        except ConnectionClosed:
            raise StopAsyncIteration from None

    @trio.lowlevel.enable_ki_protection
    async def aclose(self) -> None:
        """Close the connection: idempotent, within ``timeouts.close``, with close code 1000.

        Turns under way raise `ConnectionClosed`. Cancelling does not shorten it.
        """
        self._conclude(ConnectionClosed("the connection was closed"))
        self._tasks.cancel()
        if self._started:
            with trio.CancelScope(shield=True):
                await self._finished.wait()
        await trio.lowlevel.checkpoint()

    # --- What there is to see ------------------------------------------------------------

    @property
    def state(self) -> ConnectionState:
        """What the connection is doing."""
        return self._sockets.state

    async def wait_open(self) -> None:
        """Wait until there is a socket. A checkpoint.

        :raises ResponsesError: when there will be none: what the connection ended with.
        """
        await self._sockets.wait_open()
        await trio.lowlevel.checkpoint()

    @property
    def previous_response_id(self) -> str | None:
        """The last completed response of this socket.

        `None` after a reconnect, or where an error has evicted it from the server's cache.
        """
        link = self._sockets.current
        return link.lanes.previous_response_id if link is not None else None

    @property
    def handshake_headers(self) -> dict[str, str]:
        """The headers of the server's last upgrade response, names in lower case."""
        link = self._sockets.current
        return dict(link.transport.handshake_headers) if link is not None else {}

    def statistics(self) -> ConnectionStatistics:
        """Count what has happened so far."""
        heard = self._dispatcher
        return ConnectionStatistics(
            state=self._sockets.state,
            sockets_opened=self._sockets_opened,
            attempts=self._backoff.attempts,
            events_received=heard.events_received,
            bytes_received=heard.bytes_received,
            requests_sent=self._sender.requests_sent,
            bytes_sent=self._sender.bytes_sent,
            requests_active=sum(link.lanes.count() for link in self._sockets.links),
            undecodable_frames=heard.undecodable_frames,
            unclaimed_events=heard.unclaimed_events,
            dropped_events=heard.dropped_events,
            unread_bytes=self._budget.unread_bytes,
        )

    # --- The supervisor task -------------------------------------------------------------

    @trio.lowlevel.enable_ki_protection
    async def _run(self, *, shielded: bool = False, task_status: trio.TaskStatus[None]) -> None:
        """Run all tasks of the connection until `aclose`."""
        await trio.lowlevel.checkpoint_if_cancelled()  # behind its shield it would not notice
        self._started = True
        task_status.started()
        del task_status  # let go of what start() made
        try:
            async with open_collapsing_nursery() as nursery:
                self._tasks = nursery.cancel_scope
                self._tasks.shield = shielded
                try:
                    await self._supervise(nursery)
                except ResponsesError as error:
                    self._conclude(error)
        finally:
            self._conclude(ConnectionClosed("the connection's nursery has ended"))
            self._sockets.change(ConnectionState.CLOSED)
            self._finished.set()
            self._config.instruments.notify(Instrument.connection_ended, self._sockets.ended())

    async def _supervise(self, nursery: trio.Nursery) -> None:
        """See to it that there is a socket, until that is hopeless: the supervisor task."""
        reconnect_cause: ResponsesError | None = None
        while True:
            link = await self._open_next_link(nursery, reconnect_cause)
            link = await self._rotate(nursery, link)
            self._sockets.current = None
            self._sockets.change(ConnectionState.RECONNECTING)
            reconnect_cause = link.reconnect_cause
            if isinstance(reconnect_cause, ConnectionLost) and is_permanent_close(
                reconnect_cause.code
            ):
                raise reconnect_cause

    async def _open_next_link(
        self, nursery: trio.Nursery, reconnect_cause: ResponsesError | None
    ) -> Socket:
        """Open a socket, in as many attempts as the policy has. A failed one is a value."""
        failure = reconnect_cause
        since = trio.current_time()
        refreshed = False
        while True:
            if failure is not None:
                await self._back_off(failure)
            opened: Socket | ConnectError = await nursery.start(self._receive, nursery)
            if isinstance(opened, Socket):
                break
            if opened.retryable:
                failure = opened
            elif self._may_be_an_old_key(opened) and not refreshed:
                refreshed, failure = True, None
            else:
                raise opened
        if isinstance(reconnect_cause, ConnectionLost):
            attempts, outage = self._backoff.attempts, trio.current_time() - since
            self._dispatcher.tell(ConnectionRestored(attempts=attempts, outage=outage))
        elif self._sockets_opened > 1:
            self._say_rotated(opened)
        self._sockets.current = opened
        self._sockets.change(ConnectionState.OPEN)
        return opened

    def _may_be_an_old_key(self, error: ConnectError) -> bool:
        """Whether a callable key, asked once more, may give one that is accepted."""
        unauthorized = isinstance(error, AuthenticationError) and error.status == UNAUTHORIZED
        return unauthorized and callable(self._api_key)

    async def _rotate(self, nursery: trio.Nursery, link: Socket) -> Socket:
        """Replace sockets by fresh ones before the server ends them, until one is over.

        The new one is open before the old one takes no more requests. Where it cannot be opened,
        the old one goes on, and it is tried again after the longest delay of the policy.
        """
        while True:
            age = self._rotation.age_for(self._config.endpoint.rotate_after)
            with trio.move_on_after(age):
                await link.over.wait()
            while not link.over.is_set():
                fresh: Socket | ConnectError = await nursery.start(self._receive, nursery)
                if isinstance(fresh, Socket):
                    self._replace(link, fresh)
                    link = fresh
                    break
                with trio.move_on_after(self._backoff.policy.cap):
                    await link.over.wait()
            else:
                return link

    def _replace(self, link: Socket, fresh: Socket) -> None:
        """Let a fresh socket take the requests; the old one may be lost by now."""
        self._sockets.current = fresh
        if isinstance(link.reconnect_cause, ConnectionLost):
            outage = trio.current_time() - link.over_since
            self._dispatcher.tell(ConnectionRestored(attempts=1, outage=outage))
        else:
            link.retire()
            self._say_rotated(fresh)
        self._sockets.change(ConnectionState.OPEN)

    def _say_rotated(self, fresh: Socket) -> None:
        self._dispatcher.tell(ConnectionRotated())
        if fresh.observer is not None:
            fresh.observer.rotated()

    async def _back_off(self, failure: ResponsesError) -> None:
        floor = failure.retry_after if isinstance(failure, ConnectError) else None
        attempts = self._backoff.attempts
        delay = self._backoff.next_delay(floor)
        if delay is None:
            raise ReconnectFailed(attempts, failure, opened=self._sockets_opened > 0)
        notify = self._config.instruments.notify
        notify(Instrument.reconnecting, self._backoff.attempts, delay, failure)
        await trio.sleep(delay)

    # --- The receive task ----------------------------------------------------------------

    @trio.lowlevel.enable_ki_protection
    async def _receive(
        self, nursery: trio.Nursery, *, task_status: trio.TaskStatus[Socket | ConnectError]
    ) -> None:
        """Run one socket from its handshake to its last frame: the receive task."""
        rotation = self._sockets.current is not None
        observer = self._config.instruments.observe_socket(
            self._backoff.attempts, rotation=rotation
        )
        try:
            transport = await self._connect(nursery)
        except BaseException as error:
            observer.failed(error)
            if not isinstance(error, ConnectError):
                raise
            task_status.started(error)
            return
        try:
            observer.opened()
            link = self._adopt(transport, observer)
            task_status.started(link)
            del task_status  # let go of what start() made
            await self._read_until_done(link)
        finally:
            await transport.aclose()

    async def _connect(self, nursery: trio.Nursery) -> Transport:
        """Ask for the key, where it is asked for, and open a WebSocket with it."""
        endpoint, limit = self._config.endpoint, self._config.timeouts.connect
        headers: HeaderLines | None = None
        with trio.move_on_after(limit):
            headers = await handshake_headers(endpoint, self._api_key, self._headers)
        if headers is None:
            raise ConnectTimeout("key", limit)
        try:
            return await connect_transport(nursery, self._config, headers)
        except AuthenticationError as error:
            error.add_hint(self._question)
            raise
        except UpgradeUnsupported as error:
            error.add_hint(f"is the Responses API at {endpoint.host}{endpoint.path}?")
            raise

    async def _read_until_done(self, link: Socket) -> None:
        try:
            while not link.drained:
                with link.watch():
                    await self._read(link)
                link.expire()
        except ConnectionLost as lost:
            self._drop(link, lost)
        finally:
            self._drop(link, self._sockets.end or ConnectionClosed("the connection was cancelled"))

    async def _read(self, link: Socket) -> None:
        """Read batch after batch, until the next deadline or until the socket is done with."""
        while not link.drained:
            if self._budget.tight:
                await self._make_room(link)
            link.starved_since = math.inf
            batch = await link.transport.receive()
            ends, responses = link.lanes.ends, link.lanes.responses
            self._dispatcher.dispatch(link, batch)
            if link.lanes.responses != responses:
                self._backoff.succeeded()
            if link.lanes.ends != ends:
                self._sockets.change()

    async def _make_room(self, link: Socket) -> None:
        """Leave the socket alone while too much is unread (P6).

        One full inbox is enough for that, unless somebody waits for events of his own, or for a
        place on this socket: then the connection's whole budget is there for the difference.
        Where even that is spent, nobody reads, and others starve for ``timeouts.stall``, the
        fullest inbox pays: a turn that waits for another one's events while holding up the
        socket would wait for ever.
        """
        while self._budget.full or (self._budget.tight and not self._starves(link)):
            paused_at, unread = trio.current_time(), self._budget.unread_bytes
            starved_since = min(link.starved_since, paused_at)
            link.starved_since = starved_since if self._starves(link) else math.inf
            patience = trio.CancelScope(deadline=link.starved_since + self._config.timeouts.stall)
            try:
                with patience:
                    await self._budget.wait_for_change()
            finally:
                link.resume(trio.current_time() - paused_at)
            if patience.cancelled_caught:
                self._dispatcher.give_up_fullest(self._sockets.links)
            if self._budget.unread_bytes < unread:
                link.starved_since = math.inf

    def _starves(self, link: Socket) -> bool:
        """Whether somebody waits for what is unread in a socket: for events, or for a place."""
        if self._dispatcher.channel.awaited and link.has_channel_requests():
            return True
        return link.starves() or (self._sender.waiting > 0 and link is self._sockets.current)

    def _adopt(self, transport: Transport, observer: SocketObserver) -> Socket:
        self._sockets_opened += 1
        replace = self._config.endpoint.after_error == "replace"
        link = Socket(transport, replace_after_error=replace)
        link.observer = observer
        if self._config.instruments.observes_frames:
            transport.frame_observer = observer
        self._sockets.links.add(link)
        return link

    def _drop(self, link: Socket, why: ResponsesError) -> None:
        """Say that a socket is gone: to its turns, to the channel, to whoever waits."""
        if link.lost is not None:
            return
        if link.transport.age >= self._backoff.policy.healthy_after:
            self._backoff.succeeded()
        link.lose(why)
        if isinstance(why, ConnectionLost):
            self._dispatcher.tell(
                why.copy_for_raise()
            )  # without a traceback, which holds the whole socket
        self._sockets.links.discard(link)
        gone = link is self._sockets.current and self._sockets.end is None
        self._sockets.change(ConnectionState.RECONNECTING if gone else None)
        if link.observer is not None:
            link.observer.ended(why if isinstance(why, ConnectionLost) else None)

    def _conclude(self, end: ResponsesError) -> None:
        """Note what everybody is told from now on, the reader of the channel among them.

        The first end is the one that counts.
        """
        self._sockets.conclude(end)
        self._dispatcher.channel.close(self._sockets.ended())
