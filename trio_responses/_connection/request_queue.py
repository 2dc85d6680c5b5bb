"""Admission and sending of requests: each waits for a socket with a free lane (``stream_id``).

Over HTTP each request gets a socket of its own, as soon as fewer than ``limits.http_connections``
are active; lanes only order the requests.

Requests are admitted in the order in which they were made. One that waits for a reserved lane
does not hold up the others. A request is added to the table of its socket before its first byte
is written, so that no answer can be received too early, and is taken back if it is not written.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, TypeAlias, final

import trio

from trio_responses import _wire as wire
from trio_responses._concurrency import FastLock
from trio_responses._connection.lanes import LaneRegistry
from trio_responses._errors import (
    ConfigurationError,
    ConnectionLost,
    DeliveryStatus,
    RequestTooLarge,
    ResponsesError,
)
from trio_responses._protocol.backoff import retry_delay
from trio_responses._protocol.continuation import Placement, ServerTraits
from trio_responses._protocol.requests import ENDED, ActiveRequest, SteerInput
from trio_responses._transport.http import unsupported
from trio_responses._turn.attempt import TurnAttempt
from trio_responses._turn.inbox import Inbox
from trio_responses._turn.request_builder import raw_items

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from trio_responses._connection.http_calls import HTTPCalls
    from trio_responses._connection.socket import Socket
    from trio_responses._connection.socket_set import SocketSet
    from trio_responses._instruments.instrument import TurnObserver
    from trio_responses._protocol.rate_limits import Reservation
    from trio_responses._rate_limiter import LimitQueue
    from trio_responses._settings import RetryPolicy
    from trio_responses._transport.dialing import ConnectionConfig
    from trio_responses._turn.inbox import Budget
    from trio_responses._turn.request_builder import RequestBuilder
    from trio_responses._turn.steering import SteerReceipt
    from trio_responses._turn.stream import TurnSender
    from trio_responses._turn.work import ActiveWork
    from trio_responses._wire import ClientEvent, Response, ServerEvent

__all__ = ["MAX_ACTIVE", "LaneSender", "RequestQueue"]

OpenExchange: TypeAlias = "Callable[[], Socket | None]"
"""Opens the socket of one request over HTTP; `None` while too many are active."""

UNFINISHED: Final = frozenset({"queued", "in_progress"})
FINISHED: Final = frozenset({"completed", "failed", "incomplete"})
MAX_ACTIVE: Final = 16
"""Responses that a server runs at the same time on one socket (docs/protocol.md, 5.2)."""


@final
class RequestQueue:
    """The sender of one connection's requests, on its current socket. A `TurnSender`."""

    max_reroutes: int = 1
    """An unsent request is tried once more, on the next socket."""

    def __init__(
        self,
        config: ConnectionConfig,
        sockets: SocketSet,
        budget: Budget,
        open_exchange: OpenExchange,
        *,
        calls: HTTPCalls,
        work: ActiveWork,
    ) -> None:
        self._config = config
        self._sockets = sockets
        self._budget = budget
        self._open_exchange = open_exchange
        self._calls = calls
        self.work: ActiveWork = work
        """The count of the turns in progress."""
        self._traits = ServerTraits(
            name=config.name,
            models=config.models,
            instructions_with_parent=config.endpoint.instructions_with_parent,
        )
        self._lock = FastLock()
        self._now = trio.lowlevel.current_clock().current_time
        self.lanes: LaneRegistry = LaneRegistry(
            offered=config.endpoint.lanes, over_http=config.transport == "http"
        )
        """The names of lanes, and which of them are reserved."""
        self.waiting: int = 0
        """The number of turns that wait for the rate limits, a socket or a place on it."""
        self._in_line = 0
        """The number of these that are first in the queue, or wait to be."""
        self._limit_scopes: set[trio.CancelScope] = set()
        """The scopes of the requests that wait for the rate limits: a turn, and raw requests."""
        self.requests_delayed: int = 0
        """The number of requests that waited for the rate limits."""
        self.seconds_delayed: float = 0.0
        """The seconds that they waited, added up."""
        self.requests_sent: int = 0
        self.http_requests: int = 0
        """The number of requests that were sent over HTTP."""
        self.bytes_sent: int = 0
        self.retries: int = 0
        """The number of requests that were sent again after an attempt that failed."""

    @property
    def retry_policy(self) -> RetryPolicy:
        """How often a turn is sent again, and how long it may wait."""
        return self._config.retry_policy

    @property
    def waits_for_place(self) -> bool:
        """Whether a turn waits for a socket or for a place on it, and not for the rate limits."""
        limited = self._in_line if self._limit_scopes else 0
        return self.waiting > limited

    # --- Lanes ---------------------------------------------------------------------------

    @contextmanager
    def reserved_lane(self, name: str | None) -> Generator[LaneSender, None, None]:
        """Reserve a lane (``stream_id``) for the length of a block.

        :raises ConfigurationError: when the lane cannot be reserved (`LaneRegistry.reserve`).
        """
        lane = LaneSender(self, self.lanes.reserve(name))
        try:
            yield lane
        finally:
            self.lanes.release(lane.name)

    @contextmanager
    def lane_reservations(self) -> Generator[Callable[[], TurnSender], None, None]:
        """Yield a function that reserves lanes (``stream_id``) until the end of the block."""
        names: list[str | None] = []

        def reserve() -> LaneSender:
            names.append(self.lanes.reserve(None))
            return LaneSender(self, names[-1])

        try:
            yield reserve
        finally:
            for name in names:
                self.lanes.release(name)

    # --- Turns ---------------------------------------------------------------------------

    async def start_turn(
        self, request: RequestBuilder, *, retry: bool = False, lane: LaneSender | None = None
    ) -> TurnAttempt:
        """Send the request of a turn as soon as a socket has a free lane (``stream_id``)."""
        if request.observer is None:
            request.observer = self._config.instruments.observe_turn(
                request.model, request.conversation_id
            )
        await trio.lowlevel.checkpoint_if_cancelled()  # before the request is written and counted
        admitted = self._admit_at_once(request, lane)
        if admitted is None:
            admitted = await self._wait_for_place(request, lane)
        socket, turn = admitted
        try:
            await self._write_turn(request, socket, turn)
        except BaseException:
            self._withdraw(socket, turn)
            raise
        turn.sent_at = now = self._now()
        self.retries += retry
        if turn.observer is not None:
            turn.observer.sent(now)
        socket.shorten_read(turn, now)
        return turn

    async def _write_turn(self, request: RequestBuilder, socket: Socket, turn: TurnAttempt) -> None:
        if socket.is_exchange and request.is_warm_up:
            raise unsupported("warm_up()")
        placement = Placement(socket=socket, lane=turn.lane, server=self._traits)
        payload = request.write(placement, socket.requests.latest_response)
        turn.parent, turn.size = request.parent, len(payload)
        if turn.lane is not None:
            payload = payload[:-1] + b',"stream_id":"' + turn.lane.encode() + b'"}'
        turn.instruments, turn.observer = self._config.instruments, request.observer
        if turn.observer is not None:
            turn.observer.sending(
                self._config.instruments.address,
                payload,
                transport="http" if socket.is_exchange else "websocket",
                lane=turn.lane,
                parent=turn.parent,
            )
        try:
            await self._write(socket, payload)
        except ConnectionLost as lost:
            socket.fail_if_too_large(turn, lost)
            if isinstance(turn.inbox.end, RequestTooLarge):
                raise turn.inbox.end from lost
            raise

    def may_reroute(self, error: ResponsesError) -> bool:
        """Whether an unsent request may be sent on the next socket of this connection."""
        return isinstance(error, ConnectionLost) and self._sockets.closed_with is None

    def may_move(self, error: ResponsesError) -> bool:  # noqa: ARG002 - the Protocol
        """Return `False`: a connection has one endpoint."""
        return False

    # --- Admission -----------------------------------------------------------------------

    def _admit_at_once(
        self, request: RequestBuilder, lane: LaneSender | None
    ) -> tuple[Socket, TurnAttempt] | None:
        """Admit a turn if no other turn waits and nothing is in its way; else return `None`.

        It passes no other turn: one that waits is in `waiting` until it is admitted, and one that
        waits for the same reserved lane holds the lock of the lane. The limits are those of the
        turns that wait (`_admit_to`).
        """
        sockets = self._sockets
        socket = sockets.current
        if self.waiting or (lane is not None and lane.lock.locked()):
            return None
        if socket is None or not socket.takes_requests:
            if not sockets.over_http or sockets.closed_with is not None:
                return None
            socket = None
        name = None
        if lane is not None:
            name = lane.name
            if name is not None and not sockets.is_idle(name):
                return None
            if lane.exchange is not None and lane.exchange in sockets:
                return None
        reservation = None
        limits = self._config.rate_limits
        if limits is not None:
            reservation = limits.reserve_nowait(self._estimate(limits, request))
            if reservation is None:
                return None
        admitted = self._admit_to(socket, request, name, reservation)
        if admitted is not None and lane is not None:
            lane.set_latest(admitted[0])
        return admitted

    async def _wait_for_place(
        self, request: RequestBuilder, lane: LaneSender | None
    ) -> tuple[Socket, TurnAttempt]:
        """Wait for an open socket that can take one more turn, and add the turn to the socket."""
        over_http = self._sockets.over_http or request.is_background
        if lane is None or (lane.name is None and not over_http):
            return await self._admit(request, None)
        async with lane.lock:
            while lane.exchange is not None and lane.exchange in self._sockets:
                await self._sockets.wait_change()
            socket, turn = await self._admit(request, lane.name)
            lane.set_latest(socket)
            return socket, turn

    async def _admit(self, request: RequestBuilder, lane: str | None) -> tuple[Socket, TurnAttempt]:
        """Wait until a turn is the first one and a socket can take it.

        The lock is fair: turns are admitted in the order in which they came. A turn whose lane is
        reserved waits outside the lock while no socket is open or the lane is busy.
        """
        self.waiting += 1
        self._budget.changed.notify()
        try:
            while True:
                if lane is not None:
                    await self._sockets.wait_open()
                if lane is None or self._sockets.is_idle(lane):
                    self._in_line += 1
                    try:
                        async with self._lock:
                            admitted = await self._admit_first(request, lane)
                    finally:
                        self._in_line -= 1
                    if admitted is not None:
                        return admitted
                else:
                    await self._sockets.wait_change()
        finally:
            self.waiting -= 1

    async def _admit_first(
        self, request: RequestBuilder, lane: str | None
    ) -> tuple[Socket, TurnAttempt] | None:
        """Wait for a free lane (``stream_id``); return `None` if the reserved lane is busy.

        Over HTTP, requests have no lane.

        Only the task that is first in the queue waits here.
        """
        limits = self._config.rate_limits
        while True:
            socket = await self._sockets.wait_open()
            if lane is not None and not self._sockets.is_idle(lane):
                return None
            reservation = None
            if limits is not None:
                tokens = self._estimate(limits, request)
                reservation = await self._reserve(limits, tokens, request.observer)
                if not self._may_admit(socket, lane):  # lost during the wait
                    limits.cancel(reservation)
                    continue
            admitted = self._admit_to(socket, request, lane, reservation)
            if admitted is not None:
                return admitted
            await self._sockets.wait_change()

    def _may_admit(self, socket: Socket | None, lane: str | None) -> bool:
        """Whether a socket may still be used, and the reserved lane, if there is one, is idle."""
        sockets = self._sockets
        if socket is not sockets.current or (socket is None and not sockets.over_http):
            return False
        usable = socket is None or socket.takes_requests
        return usable and (lane is None or sockets.is_idle(lane))

    def _admit_to(
        self,
        socket: Socket | None,
        request: RequestBuilder,
        lane: str | None,
        reservation: Reservation | None = None,
    ) -> tuple[Socket, TurnAttempt] | None:
        """Add a turn to a socket; return `None` if the socket can take no other turn now.

        :param socket: the socket that takes requests; `None` over HTTP.
        :param lane: the idle lane (``stream_id``) that is reserved for the turn, if one is.
        :param reservation: what the turn takes from the rate limits; given back with `None`.
        """
        names = [lane]
        if socket is None or request.is_background:  # over HTTP, whatever other requests use
            try:
                socket, names = self._open_exchange(), [None]
            except BaseException:
                self._give_back(reservation)
                raise
        elif socket.requests.count() >= MAX_ACTIVE:
            names = []
        elif lane is None and not socket.requests.suits(None, request.parent):
            free = self.lanes.unreserved(socket.lane_names)
            names = socket.requests.idle_lanes(free, request.parent)
        if socket is None or not names:
            self._give_back(reservation)
            return None
        inbox: Inbox[ServerEvent] = Inbox(self._budget)
        timeouts = request.timeouts or self._config.timeouts
        turn = TurnAttempt(inbox, timeouts, names[0], request.parent)
        turn.reservation = reservation
        socket.admit(turn)
        return socket, turn

    # --- Rate limits ---------------------------------------------------------------------

    def _estimate(self, limits: LimitQueue, request: RequestBuilder) -> float:
        """Return an estimate of the tokens of a turn."""
        return limits.estimate(
            request.count_input_bytes(),
            request.max_output_tokens,
            generates=not request.is_warm_up,
        )

    async def _reserve(
        self, limits: LimitQueue, tokens: float, observer: TurnObserver | None = None
    ) -> Reservation:
        """Wait until the rate limits let a request through. If cancelled, nothing is taken.

        :param observer: notified of the wait, if there was one.
        :raises ResponsesError: when the connection has ended.
        """
        reservation = limits.reserve_nowait(tokens)
        if reservation is not None:
            return reservation
        if self._sockets.closed_with is not None:
            raise self._sockets.closed_error()
        began = self._now()
        self.requests_delayed += 1
        scope = trio.CancelScope()
        self._limit_scopes.add(scope)
        try:
            with scope:
                return await limits.reserve(tokens)
        finally:
            self._limit_scopes.discard(scope)
            seconds = self._now() - began
            self.seconds_delayed += seconds
            if observer is not None:
                observer.delayed(seconds)
        raise self._sockets.closed_error()  # the scope was cancelled

    def stop_waiting(self) -> None:
        """End the waits for the rate limits, because the connection has ended."""
        for scope in self._limit_scopes:
            scope.cancel()

    def _give_back(self, reservation: Reservation | None) -> None:
        """Give back what a request has taken from the rate limits, because it is not sent."""
        if reservation is not None and self._config.rate_limits is not None:
            self._config.rate_limits.cancel(reservation)

    def forgive(self, request: ActiveRequest) -> None:
        """Give back the tokens of a request that was sent, because the server did not start it."""
        if request.reservation is not None and self._config.rate_limits is not None:
            self._config.rate_limits.forgive(request.reservation)

    # --- Leaving -------------------------------------------------------------------------

    def abandon_turn(self, turn: TurnAttempt, *, restarts: bool = False) -> None:
        """Discard the remaining events of a turn.

        Where the endpoint has no lanes, the next request needs the lane of this turn. A request
        that is sent again does not wait for the rest of its last attempt.
        """
        replace = restarts or self._config.on_abandoned_turn == "replace_socket"
        replace = replace and not self._config.endpoint.lanes
        turn.inbox.discard()
        socket = None if turn.state in ENDED else self._sockets.socket_of(turn)
        if socket is not None:
            socket.abandon(turn, replace=replace)

    def completed_response(self, lane: str | None) -> str | None:
        """Return the latest response of a lane that the server has cached for the current socket.

        :param lane: the ``stream_id``; `None` for the default lane.
        """
        socket = self._sockets.current
        return socket.requests.completed_response(lane) if socket is not None else None

    # --- Steering ------------------------------------------------------------------------

    async def steer(self, turn: TurnAttempt, receipt: SteerReceipt) -> None:
        """Send steering input for a response; the receipt fails if the response has ended."""
        command = wire.ResponseSteer(
            previous_response_id=turn.response_id or "", input=receipt.items
        )
        payload = wire.encode(command)
        self._check_size(payload)
        socket = self._sockets.socket_of(turn)
        if socket is None:
            receipt.fail("response_already_completed", "the turn has ended")
        elif socket.is_exchange:
            receipt.fail("unsupported_by_transport", "HTTP has no steering: it needs a WebSocket")
        else:
            await self._write_steer(receipt, socket, payload)
        await trio.lowlevel.checkpoint()

    async def _write_steer(self, steer: SteerInput, socket: Socket, payload: bytes) -> None:
        """Write the message of a steering input, shielded from cancellation.

        Once the input is registered, its message is written whole.
        """
        socket.requests.submit_steer(steer)
        try:
            with trio.CancelScope(shield=True):
                await self._write(socket, payload)
        except BaseException:
            socket.requests.withdraw_steer(steer)
            raise

    # --- Lost responses ------------------------------------------------------------------

    async def recover(self, turn: TurnAttempt) -> Response | None:
        """Return the Response of a turn whose events were lost, as soon as it has ended.

        The server is asked again and again, for at most ``timeouts.stall`` seconds.

        :return: `None` if the option ``recover`` is off, if the server does not have the Response,
            and if the Response was cancelled or has not ended in time.
        """
        if self._config.recover is None or turn.response_id is None:
            return None
        attempts = 0
        with trio.move_on_after(self._config.timeouts.stall):
            while True:
                try:
                    raw = await self._calls.repeat("GET", turn.response_id)
                    response = wire.decode_response(raw)
                except (ResponsesError, *wire.DECODE_ERRORS):
                    return None
                if response.status not in UNFINISHED:
                    limits = self._config.rate_limits
                    if limits is not None and turn.reservation is not None:
                        max_wait = self._config.retry_policy.max_retry_wait
                        limits.handle_response(turn.reservation, response, max_wait)
                    return response if response.status in FINISHED else None
                delay = retry_delay(attempts, retry_after=None, max_wait=math.inf)
                attempts += 1
                await trio.sleep(delay or 0.0)
        return None

    # --- Raw requests --------------------------------------------------------------------

    async def send_command(self, command: ClientEvent | Mapping[str, Any]) -> None:
        """Send a command whose answer is delivered to the raw channel.

        A ``response.create`` is added to the table of its socket, so that its events are routed to
        the channel and not to a turn on the same lane; a ``response.steer`` keeps the request that
        it steers active for a successor. Other commands have no state here.
        """
        if not isinstance(command, wire.ClientEvent | Mapping):
            raise ConfigurationError(
                "send() takes a command, such as ResponseCreate or ResponseSteer, or a mapping,"
                f" not {type(command).__name__}"
            )
        kind = _text_field(command, "type")
        if kind is None:
            raise ConfigurationError('the mapping needs a "type", such as "response.create"')
        payload = wire.encode(command)
        self._check_size(payload)
        if kind == wire.ResponseCreate.type:
            self.work.check()
        parent = _text_field(command, "previous_response_id")
        await self._sockets.wait_open()  # no rate is used up while no socket is open
        limits, reservation = self._config.rate_limits, None
        if limits is not None and kind == wire.ResponseCreate.type:
            most = _field(command, "max_output_tokens")
            limit = most if isinstance(most, int) else None
            generates = _field(command, "generate") is not False
            tokens = limits.estimate(len(payload), limit, generates=generates)
            reservation = await self._reserve(limits, tokens)
        try:
            socket = await self._raw_socket(kind)
        except BaseException:
            self._give_back(reservation)
            raise
        if kind == wire.ResponseCreate.type:
            lane = _text_field(command, "stream_id")
            await self._send_raw_create(lane, parent, socket, payload, reservation)
        elif kind == wire.ResponseSteer.type:
            await self._send_raw_steer(_field(command, "input"), parent, socket, payload)
        else:
            await self._write(socket, payload)
        await trio.lowlevel.cancel_shielded_checkpoint()  # sends in a loop let other tasks run

    async def _raw_socket(self, kind: str) -> Socket:
        """Wait for the socket of a raw command; over HTTP, open the one of a request.

        :raises UnsupportedByTransport: over HTTP, for a command that is no request.
        """
        socket = await self._sockets.wait_open()
        while socket is None:
            if kind != wire.ResponseCreate.type:
                raise unsupported(f"a command {kind!r}")
            socket = self._open_exchange()
            if socket is None:
                await self._sockets.wait_change()
                socket = await self._sockets.wait_open()
        return socket

    async def _send_raw_create(
        self,
        lane: str | None,
        parent: str | None,
        socket: Socket,
        payload: bytes,
        reservation: Reservation | None,
    ) -> None:
        request = ActiveRequest(None if socket.is_exchange else lane, parent)
        request.reservation = reservation
        socket.admit(request)
        try:
            await self._write(socket, payload)
        except BaseException:
            self._withdraw(socket, request)
            raise

    async def _send_raw_steer(
        self, given: Any, parent: str | None, socket: Socket, payload: bytes
    ) -> None:
        request = socket.requests.find(parent) if parent is not None else None
        if request is None:
            await self._write(socket, payload)
        else:
            await self._write_steer(SteerInput(request, raw_items(given)), socket, payload)

    # --- Writing -------------------------------------------------------------------------

    def _withdraw(self, socket: Socket, request: ActiveRequest) -> None:
        """Remove a request from its socket, because it was not written whole."""
        socket.requests.withdraw(request)
        self._give_back(request.reservation)
        socket.interrupt_read()  # the receive task of an exchange has nothing more to read
        self._sockets.notify()

    async def _write(self, socket: Socket, payload: bytes) -> None:
        try:
            self._check_size(payload)
            await socket.transport.send(payload)
        except ResponsesError as error:
            if isinstance(error, ConnectionLost):
                socket.handle_failed_write(error)
            unsent = error.copy_as_unsent()  # the transport raises one exception to all writers
            raise unsent.with_traceback(error.__traceback__) from error.__cause__
        self.requests_sent += 1
        self.http_requests += socket.is_exchange
        self.bytes_sent += len(payload)

    def _check_size(self, payload: bytes) -> None:
        if len(payload) > self._config.limits.max_request_bytes:
            error = RequestTooLarge(len(payload), self._config.limits.max_request_bytes)
            error.delivery = DeliveryStatus.NOT_SENT
            raise error


@final
class LaneSender:
    """A `TurnSender` for one reserved lane (``stream_id``), where turns run one after the other."""

    max_reroutes: int = RequestQueue.max_reroutes

    def __init__(self, queue: RequestQueue, name: str | None) -> None:
        self._queue = queue
        self.name = name
        """The ``stream_id``; `None` where the endpoint has no lanes."""
        self.work: ActiveWork = queue.work
        """The count of the turns in progress."""
        self.lock: FastLock = FastLock()
        """Held by the turn that is the next one on this lane."""
        self.exchange: Socket | None = None
        """The latest request over HTTP. The next one waits until it has ended."""

    def set_latest(self, socket: Socket) -> None:
        """Make the next request wait for the end of this one, if it is one over HTTP."""
        self.exchange = socket if socket.is_exchange else None

    @property
    def retry_policy(self) -> RetryPolicy:
        """How often a turn is sent again, and how long it may wait."""
        return self._queue.retry_policy

    async def start_turn(self, request: RequestBuilder, *, retry: bool = False) -> TurnAttempt:
        """Send the request of a turn on this lane (``stream_id``) as soon as the lane is free."""
        return await self._queue.start_turn(request, retry=retry, lane=self)

    def may_reroute(self, error: ResponsesError) -> bool:
        """Whether an unsent request may be sent on the next socket of the connection."""
        return self._queue.may_reroute(error)

    def may_move(self, error: ResponsesError) -> bool:
        """Return `False`: a connection has one endpoint."""
        return self._queue.may_move(error)

    def abandon_turn(self, turn: TurnAttempt, *, restarts: bool = False) -> None:
        """Discard the remaining events of a turn."""
        self._queue.abandon_turn(turn, restarts=restarts)

    @property
    def previous_response_id(self) -> str | None:
        """The latest response of this lane that the server has cached for the current socket."""
        return self._queue.completed_response(self.name)

    async def steer(self, turn: TurnAttempt, receipt: SteerReceipt) -> None:
        """Send input for a response that is active on this lane (``stream_id``)."""
        await self._queue.steer(turn, receipt)

    async def recover(self, turn: TurnAttempt) -> Response | None:
        """Return the Response of a turn whose events were lost, if the server has it."""
        return await self._queue.recover(turn)


def _field(command: ClientEvent | Mapping[str, Any], name: str) -> Any:
    """Return a field of a command, or of a mapping; `None` if it has none of this name."""
    if isinstance(command, Mapping):
        return command.get(name)
    return getattr(command, name, None)


def _text_field(command: ClientEvent | Mapping[str, Any], name: str) -> str | None:
    """Return a field whose value is text; `None` for any other value."""
    value = _field(command, name)
    return value if isinstance(value, str) else None
