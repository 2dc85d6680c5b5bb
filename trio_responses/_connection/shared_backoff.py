"""The delays between attempts to open HTTP connections, shared by the requests of a connection."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import trio

from trio_responses._errors import ReconnectFailed
from trio_responses._instruments.instrument import Instrument

if TYPE_CHECKING:
    from trio_responses._errors import ConnectError
    from trio_responses._instruments.instrument import Instruments
    from trio_responses._protocol.backoff import Backoff

__all__ = ["SharedBackoff"]


class SharedBackoff:
    """One walk through the delays of a reconnect policy, for all requests that fail meanwhile.

    Requests that fail while one waits have the same delay, and the attempts are used up for all of
    them at once.

    :param backoff: the delays of the connection.
    :param instruments: notified of each delay.
    """

    def __init__(self, backoff: Backoff, instruments: Instruments) -> None:
        self._backoff = backoff
        self._instruments = instruments
        self.retry_at: float = -math.inf
        """When the next attempt begins, on Trio's clock."""
        self._given_up: tuple[float, int] = (-math.inf, 0)
        """When the attempts were used up, and their number."""

    async def wait(self, failure: ConnectError, since: float) -> None:
        """Wait before the next attempt.

        :param since: the time of the first attempt, on Trio's clock.
        :raises ReconnectFailed: when the policy allows no other attempt.
        """
        now = trio.current_time()
        given_up_at, attempts = self._given_up
        if since < given_up_at:
            raise ReconnectFailed(attempts, failure, seconds=now - since)
        if now >= self.retry_at:
            attempts = self._backoff.attempts
            delay = self._backoff.next_delay(failure.retry_after)
            if delay is None:
                self._backoff.reset()
                self._given_up = now, attempts
                raise ReconnectFailed(attempts, failure, seconds=now - since)
            self.retry_at = now + delay
            notify = self._instruments.notify
            notify(Instrument.reconnecting, self._backoff.attempts, delay, failure)
        await trio.sleep_until(self.retry_at)
