"""The engine of a connection, which keeps one socket open and replaces lost and old sockets.

Where the server or the network has no WebSocket mode, the engine sends each request over HTTP
instead (``transport="auto"``), and tries a WebSocket again later.

Two kinds of tasks do the work. The *supervisor task* runs for the whole connection: it opens
sockets and decides when to stop trying. A *receive task* runs for each socket: it reads batches
of messages and routes their events.

Ctrl-C interrupts neither of them, nor the closing: a `KeyboardInterrupt` in between would leave
tasks that nothing cancels behind their shields. Trio delivers it at the next checkpoint of the
main task.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, Literal, final

import trio

from trio_responses._concurrency import Notifier, open_collapsing_nursery
from trio_responses._connection.http_calls import HTTPCalls
from trio_responses._connection.request_queue import RequestQueue
from trio_responses._connection.router import Router
from trio_responses._connection.shared_backoff import SharedBackoff
from trio_responses._connection.socket import Socket, SocketState
from trio_responses._connection.socket_set import SocketSet
from trio_responses._endpoint import api_key_for, handshake_headers, key_hint, question_about_path
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
from trio_responses._extras import install_hint
from trio_responses._instruments.instrument import Instrument
from trio_responses._lifecycle import (
    ConnectionRestored,
    ConnectionRotated,
    ConnectionState,
    ConnectionStatistics,
    TransportChanged,
)
from trio_responses._protocol.backoff import Backoff, is_permanent_close
from trio_responses._safe_text import Secrets
from trio_responses._settings import reconnect_delays
from trio_responses._transport.http import HTTPClient, HTTPExchange, is_http_installed
from trio_responses._transport.websocket import connect_transport
from trio_responses._turn.inbox import Budget
from trio_responses._turn.work import ActiveWork

if TYPE_CHECKING:
    from collections.abc import Iterable

    from trio_responses._endpoint import ApiKey, HeaderLines
    from trio_responses._instruments.instrument import SocketObserver
    from trio_responses._instruments.records import ConnectionRecord
    from trio_responses._settings import ReconnectPolicy, RotationPolicy
    from trio_responses._transport.dialing import ConnectionConfig
    from trio_responses._transport.transport import Transport
    from trio_responses._turn.attempt import TurnAttempt

__all__ = ["ConnectionEngine", "drained"]

UNAUTHORIZED: Final = 401
NOT_FOUND: Final = 404
UPGRADE_SECONDS: Final = 5.0
"""How long ``transport="auto"`` waits for the answer to an upgrade before it uses HTTP."""
PASSES_FOR_A_READ: Final = 4
"""Passes of Trio's scheduler in which the task of an exchange over HTTP reads what has arrived."""
READS_BEFORE_TIMEOUT: Final = 128
"""Reads of up to 64 KiB: the receive buffer of an operating system is seldom larger than 8 MiB."""


@final
class ConnectionEngine:
    """The engine of one connection, which opens, supervises and replaces its sockets.

    :param reconnect: when to try again after a failed attempt.
    :param rotation: when to replace a socket before the server ends it.
    :param work: counts the work in progress of a pool that the connection belongs to.
    """

    def __init__(
        self,
        config: ConnectionConfig,
        api_key: ApiKey | None,
        headers: HeaderLines,
        reconnect: ReconnectPolicy | Iterable[float] | None,
        rotation: RotationPolicy,
        *,
        work: ActiveWork | None = None,
    ) -> None:
        self.config: ConnectionConfig = config
        self.work: ActiveWork = ActiveWork() if work is None else work
        """The turns, runs and calls in progress: of the connection, or of its pool."""
        self.is_pooled: bool = work is not None
        """Whether the connection belongs to a pool."""
        self._api_key = api_key_for(config.endpoint, api_key)
        self._headers = headers
        self._key_hint = key_hint(config.endpoint, api_key, headers)
        self._secrets = Secrets()
        self._policy, delays = reconnect_delays(reconnect)
        self._backoff = Backoff(
            delays, jitter=self._policy.jitter, max_retry_after=self._policy.max_retry_after
        )
        self._rotation = rotation
        self._budget = Budget(config.limits)
        self.router: Router = Router(
            self._budget, config.limits, config.rate_limits, config.retry_policy.max_retry_wait
        )
        self.sockets: SocketSet = SocketSet()
        self.calls: HTTPCalls = HTTPCalls(self.http_client, self.work)
        """The calls of the API that are no turns."""
        self.requests: RequestQueue = RequestQueue(
            config,
            self.sockets,
            self._budget,
            self._open_exchange,
            calls=self.calls,
            work=self.work,
        )
        self._http: HTTPClient | None = None
        self._http_backoff = SharedBackoff(self._backoff, config.instruments)
        self._nursery: trio.Nursery | None = None
        self._tasks = trio.CancelScope()
        self._started = False
        self.finished: bool = False
        """Whether all tasks of the connection have ended."""
        self._ended = Notifier()
        self._sockets_opened = 0
        self._record: ConnectionRecord | None = None
        """The record that the instruments have; they may refer to it weakly."""
        self._opening_fails = False
        """Whether the last attempt to open a socket failed, or the last sockets had no use."""
        self._now = trio.lowlevel.current_clock().current_time

    # --- For the connection and the pool ---------------------------------------------------

    @property
    def state(self) -> ConnectionState:
        """The state of the connection, as users see it."""
        if self.work.refusal is not None and self.sockets.state is not ConnectionState.CLOSED:
            return ConnectionState.DRAINING
        return self.sockets.state

    @property
    def is_healthy(self) -> bool:
        """Whether a request that is made now can be sent, as far as is known without any I/O."""
        if self.work.refusal is not None or self.sockets.closed_with is not None:
            return False
        if self.sockets.over_http:
            next_attempt_ends = self._http_backoff.retry_at + self.config.timeouts.connect
            return not self._backoff.attempts or self._now() >= next_attempt_ends
        current = self.sockets.current
        return (current is not None and current.takes_requests) or not self._opening_fails

    @property
    def is_open(self) -> bool:
        """Whether a socket is open, so that a request can be sent at once."""
        current = self.sockets.current
        is_usable = current is not None and current.takes_requests
        over_http = self.sockets.over_http
        return (is_usable or over_http) and self.sockets.state is ConnectionState.OPEN

    @property
    def http_places(self) -> int:
        """How many turns can run at the same time over HTTP; 0 where WebSockets are used."""
        return self.config.limits.http_connections if self.sockets.over_http else 0

    async def wait_open(self) -> Socket | None:
        """Wait until requests can be sent; return the socket that takes them, `None` over HTTP.

        :raises ResponsesError: when no other socket will be opened.
        """
        return await self.sockets.wait_open()

    async def wait_retired(self) -> None:
        """Wait while the socket that is open takes new requests, or while HTTP is used."""
        if self.sockets.current is not None:
            await self.sockets.current.wait_retired()
        while self.sockets.over_http and self.sockets.closed_with is None:
            await self.sockets.wait_change()

    def is_active(self, turn: TurnAttempt) -> bool:
        """Whether the response of a turn has not ended, on any socket of the connection."""
        return self.sockets.socket_of(turn) is not None

    def count_active(self) -> int:
        """Return the number of requests whose response has not ended, abandoned ones included."""
        return sum(socket.requests.count() for socket in self.sockets)

    def _count_unread(self) -> int:
        return self._budget.unread_bytes

    def statistics(self) -> ConnectionStatistics:
        """Return the counters of the connection."""
        router = self.router
        return ConnectionStatistics(
            state=self.state,
            transport="http" if self.sockets.over_http else "websocket",
            endpoint=self.config.name,
            http_requests=self.requests.http_requests,
            sockets_opened=self._sockets_opened,
            attempts=self._backoff.attempts,
            events_received=router.events_received,
            bytes_received=router.bytes_received,
            requests_sent=self.requests.requests_sent,
            bytes_sent=self.requests.bytes_sent,
            retries=self.requests.retries,
            requests_delayed=self.requests.requests_delayed,
            seconds_delayed=self.requests.seconds_delayed,
            requests_active=self.count_active(),
            undecodable_frames=router.undecodable_frames,
            unrouted_events=router.unrouted_events,
            dropped_events=router.dropped_events,
            unread_bytes=self._budget.unread_bytes,
            input_tokens=router.usage.input_tokens,
            cached_tokens=router.usage.input_tokens_details.cached_tokens,
            output_tokens=router.usage.output_tokens,
            reasoning_tokens=router.usage.output_tokens_details.reasoning_tokens,
        )

    @trio.lowlevel.enable_ki_protection
    async def aclose(self, reason: str = "the connection was closed") -> None:
        """Close the connection, idempotent, within ``timeouts.close``, also when cancelled.

        :param reason: the message of the `ConnectionClosed` that active turns raise.
        """
        self._close(ConnectionClosed(reason))
        self._tasks.cancel()
        if not self._started or self.finished:
            await trio.lowlevel.checkpoint()
            return
        with trio.CancelScope(shield=True):
            while not self.finished:
                await self._ended.wait()
        await trio.lowlevel.checkpoint_if_cancelled()

    async def drain(self, seconds: float) -> int:
        """Let no other work begin, wait for the work in progress, and close the connection.

        :param seconds: the longest wait.
        :return: the number of turns, runs and calls that had not ended.
        """
        self.work.refuse(ConnectionClosed("the connection is draining: it takes no new requests"))
        with trio.move_on_after(seconds):
            await self.work.wait_idle()
            await self.wait_raw_requests()
        cut = self.work.count
        await self.aclose(drained(seconds))
        return cut

    async def wait_raw_requests(self) -> None:
        """Wait until all requests of the raw channel are answered. Not a checkpoint if all are."""
        while any(socket.has_channel_requests() for socket in self.sockets):
            await self.sockets.wait_change()

    # --- The supervisor task -------------------------------------------------------------

    def start(self, nursery: trio.Nursery, *, shielded: bool = False) -> None:
        """Start all tasks of the connection, which run until `aclose` is called.

        :param nursery: runs the supervisor task.
        :param shielded: whether a cancellation from outside does not reach the tasks, so that the
            connection works in the ``finally`` clauses of a cancelled block.
        """
        nursery.start_soon(self._run, shielded)
        self._started = True

    @trio.lowlevel.enable_ki_protection
    async def _run(self, shielded: bool) -> None:  # noqa: FBT001 - start_soon() passes no names
        """Run all tasks of the connection. The supervisor task runs this."""
        self._record = self.config.instruments.connection_started(self._count_unread)
        try:
            async with open_collapsing_nursery() as nursery:
                self._nursery = nursery
                self._tasks = nursery.cancel_scope
                self._tasks.shield = shielded
                try:
                    if self.sockets.closed_with is None:  # not closed before this task ran
                        await self._supervise(nursery)
                except ResponsesError as error:
                    self._close(error)
        finally:
            self._nursery = None
            if self._http is not None:
                await self._http.aclose()
            self._close(ConnectionClosed("the connection's nursery has ended"))
            self.sockets.set_state(ConnectionState.CLOSED)
            self.finished = True
            self._ended.notify()
            self.config.instruments.notify(Instrument.connection_ended, self.sockets.closed_error())

    async def _supervise(self, nursery: trio.Nursery) -> None:
        """Keep one socket open until reconnecting fails for good. The supervisor task runs this."""
        cause: ResponsesError | None = None
        while True:
            socket = await self._open_transport(nursery, cause)
            socket = await self._rotate(nursery, socket)
            self._opening_fails = self._backoff.attempts > 0  # no use since the last loss
            self.sockets.current = None
            self.sockets.set_state(ConnectionState.RECONNECTING)
            cause = socket.reconnect_cause
            if isinstance(cause, ConnectionLost) and is_permanent_close(cause.code):
                raise cause

    async def _open_transport(self, nursery: trio.Nursery, cause: ResponsesError | None) -> Socket:
        """Open a socket; where that fails for want of WebSockets, send over HTTP until it succeeds.

        :param cause: why the last socket was lost.
        :raises ResponsesError: as `_open_socket` does.
        """
        if self.config.transport == "http":
            return await self._send_over_http(nursery, None)
        try:
            return await self._open_socket(nursery, cause)
        except ResponsesError as error:
            failure: BaseException | None = error
            if isinstance(error, ReconnectFailed):  # a lost socket alone is no reason
                failure = error.__cause__ if error.attempts else None
            if not self._may_use_http(failure):
                raise
            return await self._send_over_http(nursery, error)

    def _may_use_http(self, failure: BaseException | None) -> bool:
        """Whether a failure shows that the server or the network has no WebSocket mode."""
        return (
            self.config.transport == "auto"
            and is_http_installed()
            and (
                isinstance(failure, UpgradeUnsupported | ConnectionLost)
                or (isinstance(failure, ConnectTimeout) and failure.phase == "upgrade")
            )
        )

    async def _open_socket(self, nursery: trio.Nursery, cause: ResponsesError | None) -> Socket:
        """Open a socket, in as many attempts as the reconnect policy allows.

        :param cause: why the last socket was lost, if the first attempt is delayed.
        :raises ConnectError: when another attempt cannot help.
        :raises ReconnectFailed: when the attempts are used up.
        """
        failure = cause
        since = trio.current_time()
        refreshed = False
        while True:
            if failure is not None:
                await self._back_off(failure, since)
            opened = await self._start_socket(nursery)
            self._opening_fails = not isinstance(opened, Socket)
            if isinstance(opened, Socket):
                break
            if self._may_use_http(opened):
                if not self._sockets_opened:
                    raise opened
                failure = opened
            elif opened.retryable:
                failure = opened
            elif self._may_have_expired_key(opened) and not refreshed:
                refreshed, failure = True, None
            else:
                raise opened
        if isinstance(cause, ConnectionLost):
            attempts, outage = self._backoff.attempts, trio.current_time() - since
            self.router.notify_channel(ConnectionRestored(attempts=attempts, outage=outage))
        elif self._sockets_opened > 1:
            self._notify_rotated(opened)
        self.sockets.current = opened
        self.sockets.set_state(ConnectionState.OPEN)
        return opened

    def _may_have_expired_key(self, error: ConnectError) -> bool:
        """Whether the server refused a key from a function, which may return a newer key."""
        unauthorized = isinstance(error, AuthenticationError) and error.status == UNAUTHORIZED
        return unauthorized and callable(self._api_key)

    # --- HTTP ------------------------------------------------------------------------------

    async def _send_over_http(self, nursery: trio.Nursery, error: ResponsesError | None) -> Socket:
        """Send each request over HTTP, until a WebSocket is open again.

        After ``websocket_retry`` seconds, when no request is active, one attempt is made to open a
        WebSocket; and so on.

        :param error: why no WebSocket can be used; `None` where none is wanted.
        :return: the WebSocket.
        """
        self.sockets.over_http = True
        self.sockets.set_state(ConnectionState.OPEN)
        if error is not None:
            self._notify_transport("http", error)
        retry = self.config.websocket_retry
        if error is None or retry is None:
            await trio.sleep_forever()
        opened: Socket | ConnectError | None = None
        while not isinstance(opened, Socket):
            await trio.sleep(retry)
            while self.sockets.count_exchanges():
                await self.sockets.wait_change()
            opened = await self._start_socket(nursery)
        self.sockets.over_http = False
        self.sockets.current = opened
        self.sockets.set_state(ConnectionState.OPEN)
        self._notify_transport("websocket", None)
        return opened

    def _notify_transport(
        self, transport: Literal["websocket", "http"], error: ResponsesError | None
    ) -> None:
        copy = error.copy_for_raise() if error is not None else None
        self.router.notify_channel(TransportChanged(transport=transport, error=copy))
        self.config.instruments.notify(Instrument.transport_changed, transport, error)

    def http_client(self) -> HTTPClient:
        """Return the HTTP client of the connection, which the first use makes.

        :raises ConfigurationError: when the extra for HTTP is not installed.
        :raises ResponsesError: when the connection has ended: why.
        """
        if self.sockets.closed_with is not None:
            raise self.sockets.closed_error()
        if self._http is None:
            self._http = HTTPClient(
                self.config,
                self._request_headers,
                refresh_key=callable(self._api_key),
                back_off=self._http_backoff.wait,
            )
        return self._http

    def _open_exchange(self) -> Socket | None:
        """Open the socket of one request over HTTP, and start its receive task.

        :return: `None` while too many requests are active.
        """
        if self.sockets.count_exchanges() >= self.config.limits.http_connections:
            return None
        nursery = self._nursery
        assert nursery is not None  # noqa: S101 - requests are admitted while run() runs
        transport = HTTPExchange(self.http_client(), nursery)
        observer = self.config.instruments.observe_exchange()
        socket = Socket(transport, observer, replace_after_error=False, is_exchange=True)
        if self.config.instruments.observes_frames:
            transport.frame_observer = observer
        socket.retire()
        self.sockets.add(socket)
        nursery.start_soon(self._run_socket, socket)
        return socket

    # --- Rotation --------------------------------------------------------------------------

    async def _rotate(self, nursery: trio.Nursery, socket: Socket) -> Socket:
        """Replace each socket by a newer one before the server ends the socket, until one is lost.

        The newer socket is open before the older one stops taking requests. If it cannot be
        opened, the older one continues, and the next attempt follows after the longest delay of
        the policy.

        :return: the socket that was lost.
        """
        while True:
            age = self._rotation.age_for(self.config.endpoint.rotate_after)
            socket.set_age_limit(trio.current_time() + age)
            await socket.wait_replaceable()
            while socket.takes_requests:
                newer = await self._start_socket(nursery)
                if isinstance(newer, Socket):
                    self._switch_to(socket, newer)
                    socket = newer
                    break
                with trio.move_on_after(self._policy.cap):
                    await socket.wait_retired()
            else:
                return socket

    def _switch_to(self, older: Socket, newer: Socket) -> None:
        """Send new requests on the newer socket, and retire the older socket if it still works.

        The older socket may have been lost meanwhile.
        """
        self.sockets.current = newer
        if isinstance(older.reconnect_cause, ConnectionLost):
            outage = trio.current_time() - older.unusable_since
            self.router.notify_channel(ConnectionRestored(attempts=1, outage=outage))
        else:
            older.retire()
            self._notify_rotated(newer)
        self.sockets.set_state(ConnectionState.OPEN)

    def _notify_rotated(self, newer: Socket) -> None:
        self.router.notify_channel(ConnectionRotated())
        newer.observer.rotated()

    async def _back_off(self, failure: ResponsesError, since: float) -> None:
        """Wait before the next attempt.

        :param since: the time of the first attempt, on Trio's clock.
        :raises ReconnectFailed: when the policy allows no other attempt.
        """
        retry_after = failure.retry_after if isinstance(failure, ConnectError) else None
        attempts = self._backoff.attempts
        delay = self._backoff.next_delay(retry_after)
        if delay is None:
            raise ReconnectFailed(attempts, failure, seconds=trio.current_time() - since)
        notify = self.config.instruments.notify
        notify(Instrument.reconnecting, self._backoff.attempts, delay, failure)
        await trio.sleep(delay)

    # --- Opening -------------------------------------------------------------------------

    async def _start_socket(self, nursery: trio.Nursery) -> Socket | ConnectError:
        """Open a socket, and start its receive task. A failed attempt is returned."""
        rotation = self.sockets.current is not None
        observer = self.config.instruments.observe_socket(self._backoff.attempts, rotation=rotation)
        try:
            transport = await self._connect(nursery)
        except BaseException as error:
            observer.failed(error)
            if not isinstance(error, ConnectError):
                raise
            if self.config.rate_limits is not None:
                max_wait = self.config.retry_policy.max_retry_wait
                self.config.rate_limits.handle_error(error, max_wait)
            return error
        if self.config.rate_limits is not None:
            self.config.rate_limits.report(transport.handshake_headers)
        try:
            observer.opened()
            socket = self._add_socket(transport, observer)
        except BaseException:
            await transport.aclose()
            raise
        nursery.start_soon(self._run_socket, socket)
        return socket

    async def _connect(self, nursery: trio.Nursery) -> Transport:
        """Get the API key, and open a WebSocket with the key."""
        endpoint = self.config.endpoint
        may_use_http = self.config.transport == "auto" and not self._sockets_opened
        upgrade_limit = UPGRADE_SECONDS if may_use_http and is_http_installed() else math.inf
        try:
            return await connect_transport(
                nursery,
                self.config,
                self._request_headers if callable(self._api_key) else await self._make_headers(),
                upgrade_limit=upgrade_limit,
            )
        except AuthenticationError as error:
            error.add_hint(self._key_hint)
            raise
        except UpgradeUnsupported as error:
            question = question_about_path(endpoint)
            lacks_path = endpoint.path == "/responses" and error.status == NOT_FOUND
            problem = "" if lacks_path else "the server speaks only HTTP, or "
            error.add_hint(f"{problem}the base URL is wrong: {question}")
            if self.config.transport == "auto" and not is_http_installed() and not lacks_path:
                error.add_hint(f"to use it over HTTP, {install_hint('http')}")
            raise

    async def _request_headers(self) -> HeaderLines:
        """Return the headers of a handshake or of a request over HTTP, with the API key.

        :raises ConnectTimeout: when the key takes longer than ``timeouts.connect``.
        """
        limit = self.config.timeouts.connect
        headers: HeaderLines | None = None
        with trio.move_on_after(limit):
            headers = await self._make_headers()
        if headers is None:
            raise ConnectTimeout("key", limit)
        return headers

    async def _make_headers(self) -> HeaderLines:
        headers = await handshake_headers(self.config.endpoint, self._api_key, self._headers)
        self._secrets.add_headers(headers)
        return headers

    def _add_socket(self, transport: Transport, observer: SocketObserver) -> Socket:
        self._sockets_opened += 1
        replace = self.config.endpoint.after_error == "replace"
        socket = Socket(transport, observer, replace_after_error=replace)
        if self.config.instruments.observes_frames:
            transport.frame_observer = observer
        self.sockets.add(socket)
        return socket

    # --- The receive task ----------------------------------------------------------------

    @trio.lowlevel.enable_ki_protection
    async def _run_socket(self, socket: Socket) -> None:
        """Read one socket, or the answer to one request over HTTP. The receive task runs this."""
        try:
            try:
                while not socket.drained:
                    with socket.read_scope():
                        await self._read(socket)
                    await self._read_arrived(socket)
                    socket.fail_overdue_turns()
                    socket.check_age()
                    socket.transport.check_keepalive()
                if isinstance(socket.transport, HTTPExchange) and socket.requests.count():
                    socket.transport.abort()  # no reader waits for the rest of the response
            except ConnectionLost as lost:
                self._remove_socket(socket, lost)
            finally:
                cancelled = ConnectionClosed("the connection was cancelled")
                self._remove_socket(socket, self.sockets.closed_with or cancelled)
        finally:
            await socket.transport.aclose()

    async def _read(self, socket: Socket) -> None:
        """Read and route messages until the next deadline, or until the socket is drained."""
        requests = socket.requests
        while socket.state is SocketState.OPEN or not socket.drained:  # mostly without a call
            if self._budget.any_limit_reached:
                await self._wait_for_buffer_space(socket)
            socket.starved_since = math.inf
            messages = await socket.transport.receive()
            ended, responses = requests.requests_ended, requests.responses_ended
            for _ in self.router.route(socket, messages):
                await trio.lowlevel.cancel_shielded_checkpoint()
            if requests.responses_ended != responses:
                self._backoff.reset()
            if requests.requests_ended != ended:
                self.sockets.notify()

    async def _read_arrived(self, socket: Socket) -> None:
        """Read what has arrived before the deadline of a turn is enforced.

        While this process is stopped or busy, the time of a deadline passes and events wait in the
        socket. The number of reads is limited, so that a server cannot postpone the deadline.
        """
        for _ in range(READS_BEFORE_TIMEOUT):
            if not socket.overdue_turns():
                return
            last_read_at = socket.transport.last_read_at
            with trio.CancelScope() as scope:
                # Set on entry, it would cancel the first read; so it cancels the first wait.
                scope.deadline = trio.current_time()
                await self._read(socket)
            if socket.is_exchange:  # another task reads the bytes
                for _ in range(PASSES_FOR_A_READ):
                    await trio.lowlevel.checkpoint()
            if socket.transport.last_read_at == last_read_at:
                return

    async def _wait_for_buffer_space(self, socket: Socket) -> None:
        """Wait until the readers of turns have consumed enough events to read the socket again.

        One full inbox stops the reading, unless another reader waits for its own events or for a
        place on this socket: then the budget of the whole connection may be used. If that is used
        up as well, nothing is read, and a reader has waited for ``timeouts.stall`` seconds, the
        fullest inbox overflows. Without that, a turn that waits for another one's events while its
        own inbox blocks the socket would wait for ever.
        """
        while self._budget.full or (
            self._budget.any_limit_reached and not self._is_starved(socket)
        ):
            paused_at, unread = trio.current_time(), self._budget.unread_bytes
            starved_since = min(socket.starved_since, paused_at)
            socket.starved_since = starved_since if self._is_starved(socket) else math.inf
            patience = trio.CancelScope(deadline=socket.starved_since + self.config.timeouts.stall)
            socket.transport.exclude_pause(0.0)
            try:
                with patience:
                    await self._budget.changed.wait()
            finally:
                socket.exclude_pause(trio.current_time() - paused_at)
            if patience.cancelled_caught:
                self.router.fail_fullest_inbox(self.sockets)
            if self._budget.unread_bytes < unread:
                socket.starved_since = math.inf

    def _is_starved(self, socket: Socket) -> bool:
        """Whether a task waits for events from a socket, or to send a request on the socket."""
        if self.router.channel.tasks_waiting and socket.has_channel_requests():
            return True
        waits_for_place = self.requests.waits_for_place and socket is self.sockets.current
        return socket.has_waiting_reader() or waits_for_place

    def _remove_socket(self, socket: Socket, reason: ResponsesError) -> None:
        """Close a socket: fail its turns, notify the raw channel and the instruments."""
        if socket not in self.sockets:
            return
        if socket.transport.age >= self._policy.healthy_after:
            self._backoff.reset()
        has_reader = socket.has_channel_requests() or not socket.is_exchange
        socket.close(reason)
        if socket.too_large is not None:
            self.requests.forgive(socket.too_large)
        lost = reason if isinstance(reason, ConnectionLost) else None
        if lost is not None and has_reader:
            # A copy has no traceback, which would keep the whole socket alive.
            self.router.notify_channel(lost.copy_for_raise())
        self.sockets.remove(socket)
        if socket is self.sockets.current and self.sockets.closed_with is None:
            self.sockets.set_state(ConnectionState.RECONNECTING)
        else:
            self.sockets.notify()
        if not socket.is_exchange:
            socket.observer.ended(lost)

    def _close(self, reason: ResponsesError) -> None:
        """Stop opening sockets; requests and readers of the raw channel get the first reason."""
        self.sockets.stop_opening(reason)
        self.requests.stop_waiting()
        self.router.channel.close(self.sockets.closed_error())


def drained(seconds: float) -> str:
    """Return the reason for the end of what was not finished when draining ended."""
    return f"the deadline of drain() has passed: {seconds:g} s"
