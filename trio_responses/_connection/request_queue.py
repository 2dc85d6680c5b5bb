"""The way down: a request waits for a socket and a lane, is written, and goes out whole.

What belongs elsewhere: where sockets come from (`connection.py`), what a request says
(`turns/face.py`, `conversation/conversation.py`), bytes (`transport/websocket.py`).
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import trio

from trio_responses import _wire as wire
from trio_responses._concurrency import FastLock
from trio_responses._errors import (
    ConfigurationError,
    ConnectionLost,
    Delivery,
    RequestTooLarge,
    ResponsesError,
)
from trio_responses._protocol.continuation import Placement
from trio_responses._protocol.lanes import LaneRegistry
from trio_responses._protocol.requests import ActiveRequest, SteerInput
from trio_responses._turn.inbox import Inbox
from trio_responses._turn.request_builder import raw_items
from trio_responses._turn.turn import Turn

if TYPE_CHECKING:
    from collections.abc import Generator

    import msgspec

    from trio_responses._connection.socket import Socket
    from trio_responses._connection.socket_set import SocketSet
    from trio_responses._transport.websocket import ConnectionConfig
    from trio_responses._turn.inbox import Budget
    from trio_responses._turn.methods import Lane
    from trio_responses._turn.request_builder import RequestBuilder
    from trio_responses._turn.steering import SteerReceipt
    from trio_responses._turn.stream import AbandonChoice
    from trio_responses._wire import ClientEvent, ServerEvent

__all__ = ["RequestQueue"]

MAX_ACTIVE: Final = 16
"""Responses that a server runs at once on one socket (docs/protocol.md, 5.2)."""


class RequestQueue:
    """Sends the requests of one connection, each on the socket that there is by then."""

    def __init__(self, config: ConnectionConfig, sockets: SocketSet, budget: Budget) -> None:
        self._config = config
        self._sockets = sockets
        self._budget = budget
        self._lock = FastLock()
        self.leases: LaneRegistry = LaneRegistry(offered=config.endpoint.lanes)
        """The lanes that somebody has for himself."""
        self.waiting: int = 0
        """Turns that wait for a socket or a place on it."""
        self.requests_sent: int = 0
        self.bytes_sent: int = 0

    async def send_command(self, command: ClientEvent) -> None:
        """Send a command whose answer goes to the connection's channel."""
        if not isinstance(command, wire.ResponseCreate | wire.ResponseSteer):
            kind = type(command).__name__
            raise ConfigurationError(f"send() takes ResponseCreate or ResponseSteer, not {kind}")
        payload = wire.encode(command)
        self._check_size(payload)
        link = await self._sockets.wait_open()
        if isinstance(command, wire.ResponseSteer):
            await self._send_steer(command, link, payload)
            return
        request = ActiveRequest(_given(command.stream_id), _given(command.previous_response_id))
        link.admit(request)
        with self._withdrawing(link, request):
            await self._transmit(link, payload)

    async def _send_steer(self, command: wire.ResponseSteer, link: Socket, payload: bytes) -> None:
        """Send it, after noting it: the response that it is for does not end its request then."""
        request = link.lanes.find(command.previous_response_id)
        if request is None:
            await self._transmit(link, payload)
            return
        submission = SteerInput(request, raw_items(command.input))
        await self._submit(submission, link, payload)

    async def steer(self, turn: Turn, receipt: SteerReceipt) -> None:
        """Put something into a response that is under way; when it has ended, refuse it here."""
        command = wire.ResponseSteer(
            previous_response_id=turn.response_id or "", input=receipt.items
        )
        payload = wire.encode(command)
        self._check_size(payload)
        link = self._sockets.holding(turn)
        if link is None:
            receipt.refuse("response_already_completed", "the turn has ended")
        else:
            await self._submit(receipt, link, payload)
        await trio.lowlevel.checkpoint()

    async def _submit(self, submission: SteerInput, link: Socket, payload: bytes) -> None:
        """Send a steering input, whole: what is noted as sent is not cancelled."""
        link.lanes.steering.submit(submission)
        try:
            with trio.CancelScope(shield=True):
                await self._transmit(link, payload)
        except BaseException:
            link.lanes.steering.withdraw(submission)
            raise

    async def start_turn(self, draft: RequestBuilder, lane: Lane | None = None) -> Turn:
        """Send a turn's request, as soon as there is a socket and a lane for it.

        A socket that turns out dead while writing has seen no complete request: the next one
        gets it, once.
        """
        draft.observer = draft.observer or self._config.instruments.observe_turn(draft.model)
        try:
            return await self._try_turn(draft, lane)
        except ConnectionLost as lost:
            if lost.delivery is not Delivery.NOT_SENT or self._sockets.end is not None:
                raise
        return await self._try_turn(draft, lane)

    async def _try_turn(self, draft: RequestBuilder, lane: Lane | None) -> Turn:
        if lane is None or lane.name is None:
            link, turn = await self._admit(draft.parent, None)
        else:
            async with lane.lock:
                link, turn = await self._admit(draft.parent, lane.name)
        with self._withdrawing(link, turn):
            payload = draft.write(Placement(socket=link, lane=turn.lane), link.lanes.latest)
            turn.parent, turn.size = draft.parent, len(payload)
            if turn.lane is not None:
                payload = payload[:-1] + b',"stream_id":"' + turn.lane.encode() + b'"}'
            turn.observer = observer = draft.observer
            if observer is not None:
                observer.sending(turn.lane, turn.parent, len(payload))
            try:
                await self._transmit(link, payload)
            except ConnectionLost as lost:
                link.note_unwritten(turn, lost)
                if isinstance(turn.inbox.end, RequestTooLarge):
                    raise turn.inbox.end from lost
                raise
        turn.sent_at = trio.current_time()
        if observer is not None:
            observer.sent()
        link.watch_for(turn)
        return turn

    async def _admit(self, parent: str | None, lane: str | None) -> tuple[Socket, Turn]:
        """Wait for an open socket with a place for one more turn, and take it.

        The turnstile is fair: whoever comes first goes first. A turn whose lane is leased waits
        for that lane outside, so that it holds up nobody else.
        """
        self.waiting += 1
        self._budget.note_change()
        try:
            while True:
                link = await self._sockets.wait_open()
                if lane is None or link.lanes.is_idle(lane):
                    async with self._lock:
                        turn = await self._admit_first(parent, lane)
                    if turn is not None:
                        return turn
                else:
                    await self._sockets.wait_change()
        finally:
            self.waiting -= 1

    async def _admit_first(
        self, parent: str | None, lane: str | None
    ) -> tuple[Socket, Turn] | None:
        """Wait for a place as the first in the queue; `None` where a leased lane is not clean."""
        while True:
            link = await self._sockets.wait_open()
            if lane is not None and not link.lanes.is_idle(lane):
                return None
            if link.lanes.count() < MAX_ACTIVE:
                free = (
                    [lane]
                    if lane is not None
                    else link.lanes.free(self.leases.unleased(link.names), parent)
                )
                if free:
                    inbox: Inbox[ServerEvent] = Inbox(self._budget)
                    turn = Turn(inbox, self._config.timeouts, free[0], parent)
                    link.admit(turn)
                    return link, turn
            await self._sockets.wait_change()

    def abandon_turn(self, turn: Turn, abandon: AbandonChoice) -> None:
        """Drop what is still to come of a turn."""
        replace = abandon == "replace" and not self._config.endpoint.lanes
        turn.inbox.discard()
        link = self._sockets.holding(turn)
        if link is not None:
            link.leave(turn, replace=replace)

    @contextmanager
    def _withdrawing(self, link: Socket, request: ActiveRequest) -> Generator[None, None, None]:
        """Take a request back if it does not go out."""
        try:
            yield
        except BaseException:
            link.lanes.withdraw(request)
            self._sockets.change()
            raise

    async def _transmit(self, link: Socket, payload: bytes) -> None:
        try:
            self._check_size(payload)
            await link.transport.send(payload)
        except ResponsesError as error:
            if isinstance(error, ConnectionLost):
                link.close_to_requests(error)
            told = error.copy_for_raise()  # the socket's own end is told to other requests, too
            told.delivery = Delivery.NOT_SENT
            raise told.with_traceback(error.__traceback__) from error.__cause__
        self.requests_sent += 1
        self.bytes_sent += len(payload)

    def _check_size(self, payload: bytes) -> None:
        if len(payload) > self._config.limits.max_request_bytes:
            error = RequestTooLarge(len(payload), self._config.limits.max_request_bytes)
            error.delivery = Delivery.NOT_SENT
            raise error


def _given(value: str | msgspec.UnsetType | None) -> str | None:
    return value if isinstance(value, str) else None
