"""The receipt of a steering input: how far it has come, and its words where it did not arrive.

What belongs elsewhere: the states and what the server's words do to them (`core/steering.py`),
the turn that is steered (`stream.py`).
"""

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
    """What became of a steering input. Made by ``stream.steer()``; it changes as the server speaks.

    Its words are in ``items``, as raw JSON, whatever happens: what ``failed`` had no effect and
    may be said again, in the next turn for example. What is ``unknown`` may have had one.
    """

    def __init__(self, turn: Turn, items: list[Raw]) -> None:
        super().__init__(turn, items)
        self._turn = turn
        self._answered = trio.Event()
        self._settled = trio.Event()

    def __repr__(self) -> str:
        """Show its id and state: no content."""
        return f"<SteerReceipt {self.id or 'without an id'} {self.state}>"

    async def answered(self) -> SteerState:
        """Wait until the server has accepted it, or not. A checkpoint; may be cancelled."""
        await self._turn.inbox.wait_for(self._answered)
        return self.state

    async def settled(self) -> SteerState:
        """Wait until it is committed, failed or unknown. A checkpoint; may be cancelled.

        One that is ``pending`` waits for a request with the outputs of tools: the task that has
        to send them should not wait here.
        """
        await self._turn.inbox.wait_for(self._settled)
        return self.state

    def become(self, state: SteerState) -> None:
        """Note a new state."""
        super().become(state)
        self._answered.set()
        if state not in OWED and state is not SteerState.PENDING:
            self._settled.set()

    def refuse(self, code: str, message: str) -> None:
        """Fail it without asking the server, in the server's words."""
        error = InputError(code=code, message=message, type="invalid_request_error")
        self.error: InputError | None = error
        self.become(SteerState.FAILED)
