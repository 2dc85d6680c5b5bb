"""The sender of one turn of a pool: it chooses a connection and sends the request there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trio_responses._errors import DeliveryStatus, ResponsesError
from trio_responses._pool.scheduler import is_permanent

if TYPE_CHECKING:
    from trio_responses._pool.member import Member
    from trio_responses._pool.scheduler import Scheduler
    from trio_responses._settings import RetryPolicy
    from trio_responses._turn.request_builder import RequestBuilder
    from trio_responses._turn.steering import SteerReceipt
    from trio_responses._turn.stream import AbandonChoice
    from trio_responses._turn.turn import Turn

__all__ = ["PoolTurnSender"]


class PoolTurnSender:
    """Sends one turn of a pool on the connection that suits it best. A `TurnSender`."""

    def __init__(self, scheduler: Scheduler, retry_policy: RetryPolicy) -> None:
        self._scheduler = scheduler
        self.retry_policy: RetryPolicy = retry_policy
        """How often a turn is sent again, and how long it may wait."""
        self._member: Member | None = None
        self._arrival: int | None = None
        """When the turn came, while its request is not sent: it keeps its place in the queue."""
        self._failed_on: Member | None = None

    @property
    def max_reroutes(self) -> int:
        """An unsent request is tried once on each connection that the pool may have."""
        return self._scheduler.bounds.size

    def may_reroute(self, error: ResponsesError) -> bool:
        """Whether an unsent request may be sent on another connection of the pool."""
        member, self._failed_on = self._failed_on, None
        if member is None or is_permanent(error):
            return False
        return member.is_over or member.engine.requests.may_reroute(error)

    async def start_turn(self, request: RequestBuilder, *, retry: bool = False) -> Turn:
        """Send a request on the connection that suits it best.

        If that connection loses its socket while the request waits for a place there, another one
        is chosen, as often as the pool may have connections. Then the request waits where it is.
        """
        if self._arrival is None:
            self._arrival = self._scheduler.arrive()
        for _ in range(self._scheduler.bounds.size):
            member = await self._scheduler.take_place(request.parent, self._arrival)
            with member.sending():
                return await self._send(request, member, retry=retry)
        member = await self._scheduler.take_place(request.parent, self._arrival)
        return await self._send(request, member, retry=retry)

    async def _send(self, request: RequestBuilder, member: Member, *, retry: bool) -> Turn:
        try:
            turn = await member.engine.requests.start_turn(request, retry=retry)
        except BaseException as error:
            self._scheduler.leave_place(member)
            if isinstance(error, ResponsesError) and error.delivery is DeliveryStatus.NOT_SENT:
                self._failed_on = member
            raise
        self._member, self._arrival = member, None
        return turn

    def abandon_turn(self, turn: Turn, abandon: AbandonChoice) -> None:
        """Discard the remaining events of a turn, and give its place back."""
        member, self._member = self._member, None
        if member is not None:
            member.engine.requests.abandon_turn(turn, abandon)
            self._scheduler.leave_place(member, turn)

    async def steer(self, turn: Turn, receipt: SteerReceipt) -> None:
        """Send input for a response that is active."""
        assert self._member is not None  # noqa: S101 - a stream is steered inside its block
        await self._member.engine.requests.steer(turn, receipt)
