"""The receipt of a steering input: its state, and its items in case the input had no effect."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

import trio

from trio_responses._protocol.requests import SteerInput, SteerState, SteerTrigger
from trio_responses._wire import InputError

if TYPE_CHECKING:
    from msgspec import Raw

    from trio_responses._turn.attempt import TurnAttempt

__all__ = ["SteerReceipt"]

SETTLED: Final = (SteerState.COMMITTED, SteerState.FAILED, SteerState.UNKNOWN)
"""The states that a receipt reports as the outcome."""


@final
class SteerReceipt(SteerInput):
    """The outcome of a steering input. Made by ``stream.steer()``; events of the server update it.

    ``items`` always holds the input as raw JSON. An input that ``failed`` had no effect and may be
    sent again, for example in the next turn. One that is ``unknown`` may have had an effect.
    """

    def __init__(self, turn: TurnAttempt, items: list[Raw]) -> None:
        super().__init__(turn, items)
        self._turn = turn
        self._acknowledged = trio.Event()
        self._settled = trio.Event()

    def __repr__(self) -> str:
        """Return the id and the state of the input; no content."""
        return f"<SteerReceipt {self.id or 'without an id'} {self.state}>"

    async def wait_acknowledged(self) -> SteerState:
        """Wait until the server has accepted or refused the input. A checkpoint; cancellable."""
        await self._turn.inbox.wait_for(self._acknowledged)
        return self.state

    async def wait_settled(self) -> SteerState:
        """Wait until the input is committed, failed or unknown. A checkpoint; cancellable.

        An input that is ``pending`` waits for a request with the outputs of tools, so the task
        that sends those outputs must not wait here.
        """
        await self._turn.inbox.wait_for(self._settled)
        return self.state

    def advance(self, trigger: SteerTrigger) -> None:
        """Change the state of the input, and wake the tasks that wait for the change."""
        super().advance(trigger)
        self._acknowledged.set()
        if self.state in SETTLED:
            self._settled.set()

    def fail(self, code: str, message: str) -> None:
        """Fail an input that is not sent, with an error in the format of the server's errors."""
        error = InputError(code=code, message=message, type="invalid_request_error")
        self.error: InputError | None = error
        self.advance(SteerTrigger.FAIL)
