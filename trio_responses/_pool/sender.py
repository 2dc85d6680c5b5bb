"""The way of one turn of a pool: to the connection that takes it, and on where that is lost.

What belongs elsewhere: which connection that is (`spreading.py`), what it does with the request
(`connection/sending.py`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from trio_responses._errors import Delivery, ResponsesError
from trio_responses._pool.scheduler import is_permanent

if TYPE_CHECKING:
    from trio_responses._pool.member import Member
    from trio_responses._pool.scheduler import Scheduler
    from trio_responses._turn.request_builder import RequestBuilder
    from trio_responses._turn.steering import SteerReceipt
    from trio_responses._turn.stream import AbandonChoice
    from trio_responses._turn.turn import Turn

__all__ = ["PoolTurnSender"]


class PoolTurnSender:
    """The way of one turn, through the connection that it has a place on."""

    def __init__(self, spread: Scheduler) -> None:
        self._spread = spread
        self._member: Member | None = None

    async def start_turn(self, draft: RequestBuilder) -> Turn:
        """Send a request on the connection that fits it best.

        Where that loses its socket, or ends, before the request is out, another one gets it: as
        often as there may be connections. After that it stays where it is.
        """
        arrival = self._spread.arrive()
        for _ in range(self._spread.bounds.size):
            member = await self._spread.take_place(draft.parent, arrival)
            turn = await self._try(draft, member)
            if turn is not None:
                return turn
        member = await self._spread.take_place(draft.parent, arrival)
        return await self._send(draft, member)

    async def _try(self, draft: RequestBuilder, member: Member) -> Turn | None:
        """Send a request on one connection; `None` where that was lost before it was out."""
        try:
            with member.sending():
                return await self._send(draft, member)
        except ResponsesError as error:
            unsent = error.delivery is Delivery.NOT_SENT
            if is_permanent(error) or not (unsent and member.is_over):
                raise
        return None

    async def _send(self, draft: RequestBuilder, member: Member) -> Turn:
        try:
            turn = await member.lines.start_turn(draft)
        except BaseException:
            self._spread.leave_place(member)
            raise
        self._member = member
        return turn

    def abandon_turn(self, turn: Turn, abandon: AbandonChoice) -> None:
        """Drop what is still to come of a turn, and give its place back."""
        member, self._member = self._member, None
        if member is not None:
            member.lines.abandon_turn(turn, abandon)
            self._spread.leave_place(member, turn)

    async def steer(self, turn: Turn, receipt: SteerReceipt) -> None:
        """Put something into a response that is under way."""
        assert self._member is not None  # noqa: S101 - a stream is steered inside its block
        await self._member.lines.steer(turn, receipt)
