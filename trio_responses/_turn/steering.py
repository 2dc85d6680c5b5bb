"""The receipt of a steering input: its state, and its items in case it had no effect."""

from __future__ import annotations

from typing import TYPE_CHECKING, final

import trio

from trio_responses._protocol.requests import OWED, SteerInput, SteerState
from trio_responses._wire import InputError

if TYPE_CHECKING:
    from msgspec import Raw

    from trio_responses._turn.turn import Turn

__all__ = ["SteerReceipt"]


@final
class SteerReceipt(SteerInput):
    """The outcome of a steering input. Made by ``stream.steer()``; events of the server update it.

    ``items`` always holds the input as raw JSON. An input that ``failed`` had no effect and may be
    sent again, for example in the next turn. One that is ``unknown`` may have had an effect.
    """

    def __init__(self, turn: Turn, items: list[Raw]) -> None:
        super().__init__(turn, items)
        self._turn = turn
        self._answered = trio.Event()
        self._settled = trio.Event()

    def __repr__(self) -> str:
        """Return its id and state; no content."""
        return f"<SteerReceipt {self.id or 'without an id'} {self.state}>"

    async def answered(self) -> SteerState:
        """Wait until the server has accepted or refused it. A checkpoint; may be cancelled."""
        await self._turn.inbox.wait_for(self._answered)
        return self.state

    async def settled(self) -> SteerState:
        """Wait until the input is committed, failed or unknown. A checkpoint; may be cancelled.

        An input that is ``pending`` waits for a request with the outputs of tools, so the task
        that sends those outputs must not wait here.
        """
        await self._turn.inbox.wait_for(self._settled)
        return self.state

    def become(self, state: SteerState) -> None:
        """Set the state, and wake the tasks that wait for it."""
        super().become(state)
        self._answered.set()
        if state not in OWED and state is not SteerState.PENDING:
            self._settled.set()

    def refuse(self, code: str, message: str) -> None:
        """Fail the input without sending it, with an error as the server would send it."""
        error = InputError(code=code, message=message, type="invalid_request_error")
        self.error: InputError | None = error
        self.become(SteerState.FAILED)
