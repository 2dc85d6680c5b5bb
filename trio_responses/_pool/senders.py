"""The senders of a pool's turns: for single turns, and for the turns of conversations.

No request is sent twice here: it moves to another connection only while it is not sent.
`ResponseStream` decides whether a request is sent again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

import trio

from trio_responses._connection.request_queue import LaneSender
from trio_responses._errors import DeliveryStatus, ResponsesError
from trio_responses._protocol.requests import SteerState

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from trio_responses._instruments.instrument import Instruments
    from trio_responses._pool.connection import PooledConnection
    from trio_responses._pool.scheduler import Scheduler
    from trio_responses._settings import RetryPolicy
    from trio_responses._turn.attempt import TurnAttempt
    from trio_responses._turn.request_builder import RequestBuilder
    from trio_responses._turn.steering import SteerReceipt
    from trio_responses._turn.work import ActiveWork
    from trio_responses._wire import Response

__all__ = ["ConversationSender", "ConversationSenders", "PoolTurnSender"]

DID_NOT_RUN: Final = frozenset({DeliveryStatus.NOT_SENT, DeliveryStatus.REJECTED})


class _Moves:
    """How many times one turn may go to another endpoint after its request was refused."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._left = 0

    def reset(self) -> None:
        """Begin a turn."""
        self._left = len(self._scheduler.endpoints) - 1

    def after(self, connection: PooledConnection | None, error: ResponsesError) -> bool:
        """Return whether a turn that failed may be sent to another endpoint.

        The endpoint is given up if the failure holds for every turn.
        """
        if connection is None or not self._scheduler.handle_turn_error(connection, error):
            return False
        self._left -= 1
        return self._left >= 0 and error.delivery in DID_NOT_RUN


class PoolTurnSender:
    """A `TurnSender` for one turn of a pool, on the connection that the scheduler assigns.

    A turn that moves keeps its position in the order of arrival.
    """

    def __init__(self, scheduler: Scheduler, retry_policy: RetryPolicy) -> None:
        self._scheduler = scheduler
        self.retry_policy: RetryPolicy = retry_policy
        """How often a turn is sent again, and how long it may wait."""
        self.work: ActiveWork = scheduler.work
        """The count of the turns in progress."""
        self._connection: PooledConnection | None = None
        """The connection of the latest attempt; `None` while none is assigned."""
        self._has_place = False
        """Whether the turn has a place on this connection."""
        self._arrival: int | None = None
        """The arrival number of the turn, until its request is sent."""
        self._moves = _Moves(scheduler)
        self._parent: str | None = None

    @property
    def max_reroutes(self) -> int:
        """How many times an unsent request may move to another connection."""
        return self._scheduler.max_moves

    def may_reroute(self, error: ResponsesError) -> bool:
        """Whether a request that was not sent may be sent on another connection.

        Not if no connection was assigned.
        """
        connection = self._connection
        return connection is not None and self._scheduler.may_move(connection, error)

    def may_move(self, error: ResponsesError) -> bool:
        """Whether a turn that failed may be sent to another endpoint.

        Not if it continues a response, which no other endpoint has.
        """
        return self._moves.after(self._connection, error) and self._parent is None

    async def start_turn(self, request: RequestBuilder, *, retry: bool = False) -> TurnAttempt:
        """Send a request on the connection that the scheduler assigns.

        If the connection loses its socket while the request waits there for its lane, the turn
        moves to another connection, at most once for each connection that the pool may have.
        After that the request waits until its connection has another socket.
        """
        if not retry:
            self._moves.reset()
            self._parent = request.parent
        if self._arrival is None:
            self._arrival = self._scheduler.next_arrival()
        for _ in range(self._scheduler.max_moves):
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
        except BaseException as error:
            if isinstance(error, ResponsesError):
                self._scheduler.handle_turn_error(connection, error)
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


@final
class ConversationSenders:
    """The senders of a conversation and its forks, until the block of the conversation ends."""

    def __init__(self, scheduler: Scheduler, retry_policy: RetryPolicy) -> None:
        self._scheduler = scheduler
        self._retry_policy = retry_policy
        self._senders: list[ConversationSender] = []
        self._first: PooledConnection | None = None
        """The connection of the conversation, until its sender is made."""

    @property
    def instruments(self) -> Instruments:
        """The instruments of the connection where the conversation begins."""
        assert self._first is not None  # noqa: S101 - called after start()
        return self._first.engine.config.instruments

    async def start(self) -> None:
        """Wait for the connection of the conversation.

        :raises ResponsesError: when the pool has no connection and none can be opened.
        """
        self._first = await self._scheduler.pin()

    def __enter__(self) -> Self:
        """Return the senders, whose lanes and connections are released at the end of the block."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Release the lanes and connections of all senders."""
        for sender in self._senders:
            sender.close()
        if not self._senders and self._first is not None:
            self._scheduler.unpin(self._first)

    def reserve(self) -> ConversationSender:
        """Return the sender of the conversation, or of a fork: with a lane where there are lanes.

        :raises ConfigurationError: when all lanes of the connection are reserved.
        """
        source = self._senders[0].connection if self._senders else self._first
        if source is not None and self._senders and self._scheduler.should_move(source):
            source = None
        sender = ConversationSender(self._scheduler, self._retry_policy)
        if source is not None:
            sender.use(source)
            if self._senders:
                self._scheduler.pin_to(source)
        self._senders.append(sender)
        return sender


@final
class ConversationSender:
    """A `TurnSender` for a conversation of a pool, on one connection until the sender moves.

    It moves before a turn if its connection has ended or its endpoint is not used any more.
    """

    def __init__(self, scheduler: Scheduler, retry_policy: RetryPolicy) -> None:
        self._scheduler = scheduler
        self.retry_policy: RetryPolicy = retry_policy
        """How often a turn is sent again, and how long it may wait."""
        self.work: ActiveWork = scheduler.work
        """The count of the turns in progress."""
        self.connection: PooledConnection | None = None
        """The connection of the conversation; `None` while none is assigned."""
        self._lane: LaneSender | None = None
        self._latest: TurnAttempt | None = None
        """The latest attempt at a turn."""
        self._moves = _Moves(scheduler)
        self._closed = False

    @property
    def max_reroutes(self) -> int:
        """How many times an unsent request may move to another connection."""
        return self._scheduler.max_moves

    def use(self, connection: PooledConnection) -> None:
        """Reserve a lane on a connection that is pinned for this sender.

        :raises ConfigurationError: when all lanes of the connection are reserved.
        """
        requests = connection.engine.requests
        self._lane = LaneSender(requests, requests.lanes.reserve(None))
        self.connection = connection

    def close(self) -> None:
        """Release the lane and the connection: the sender does not move any more."""
        self._closed = True
        self._release(self.connection, self._lane)

    def _release(self, connection: PooledConnection | None, lane: LaneSender | None) -> None:
        if connection is not None and lane is not None:
            connection.engine.requests.lanes.release(lane.name)
            self._scheduler.unpin(connection)

    # --- Turns ---------------------------------------------------------------------------

    async def start_turn(self, request: RequestBuilder, *, retry: bool = False) -> TurnAttempt:
        """Send a request on the connection of the conversation, or move before.

        If the endpoint is given up while the request waits, the conversation moves at once.
        """
        if not retry:
            self._moves.reset()
        while True:
            connection, lane = await self._place()
            with connection.waiting():
                try:
                    self._latest = await lane.start_turn(request, retry=retry)
                except ResponsesError as error:
                    self._scheduler.handle_turn_error(connection, error)
                    raise
                return self._latest

    async def _place(self) -> tuple[PooledConnection, LaneSender]:
        """Return the connection and the lane of the next request, after a move if one is needed."""
        connection, lane = self.connection, self._lane
        if connection is None or lane is None or self._should_move(connection):
            self.connection = self._lane = None
            self._release(connection, lane)
            new = await self._scheduler.pin()
            try:
                self.use(new)
            except BaseException:
                self._scheduler.unpin(new)
                raise
            connection, lane = self.connection, self._lane
        assert connection is not None  # noqa: S101 - `use` has set both
        assert lane is not None  # noqa: S101
        return connection, lane

    def _should_move(self, connection: PooledConnection) -> bool:
        """Whether the next request is sent on another connection.

        Steering input that waits at a server for the next turn keeps the conversation there.
        """
        if self._closed or self._scheduler.closed_with is not None:
            return False
        steers = self._latest.steers if self._latest is not None else ()
        if any(one.state is SteerState.PENDING for one in steers) and not connection.has_ended:
            return False
        return self._scheduler.should_move(connection)

    def may_reroute(self, error: ResponsesError) -> bool:
        """Whether a request that was not sent may be sent again, perhaps on another connection."""
        connection = self.connection
        return connection is not None and self._scheduler.may_move(connection, error)

    def may_move(self, error: ResponsesError) -> bool:
        """Whether a turn that failed may be sent to another endpoint."""
        return self._moves.after(self.connection, error)

    def abandon_turn(self, turn: TurnAttempt, *, restarts: bool = False) -> None:
        """Discard the remaining events of a turn."""
        if self.connection is not None and self._lane is not None:
            self._lane.abandon_turn(turn, restarts=restarts)
            self._scheduler.record(self.connection, turn)

    async def steer(self, turn: TurnAttempt, receipt: SteerReceipt) -> None:
        """Send steering input for a response; the receipt fails if the response has ended."""
        if self._lane is not None:
            await self._lane.steer(turn, receipt)
        else:
            receipt.fail("response_already_completed", "the input was not sent: the turn has ended")
            await trio.lowlevel.checkpoint()

    async def recover(self, turn: TurnAttempt) -> Response | None:
        """Return the Response of a turn whose events were lost, if the server has it."""
        return await self._lane.recover(turn) if self._lane is not None else None
