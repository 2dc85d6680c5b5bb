"""The delay before the next attempt to connect or to send a turn, and when to stop trying.

`Backoff` walks through the delays of a reconnect policy. `retry_delay` returns the delay of one
turn. Neither of them sleeps, dials or sends.
"""

from __future__ import annotations

import itertools
import random
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["Backoff", "is_permanent_close", "retry_delay"]

FIRST_DELAY: Final = 0.5
MAX_DELAY: Final = 8.0
JITTER: Final = 0.25
"""The delays of a turn without a hint are those of openai-python: 0.5, 1, 2, 4 and 8 s, each
shortened at random by up to a quarter."""

POLICY_VIOLATION: Final = 1008
PRIVATE_CODES: Final = range(4000, 5000)


def is_permanent_close(code: int | None) -> bool:
    """Whether a close code means that a new socket would be closed as well.

    1008 rejects the account or the request, 4000 to 4999 are refusals of the server's own. All
    other codes may be temporary: restarts, lost connections, the age limit, and messages that
    were too big for the server but are not sent again.
    """
    return code == POLICY_VIOLATION or (code is not None and code in PRIVATE_CODES)


class Backoff:
    """The sequence of reconnect delays of one connection, and its position in the sequence.

    :param delays: seconds before each attempt. An endless iterator never gives up. It is read
        once; a walk that starts again repeats the delays that were read.
    :param jitter: the part of each delay, from 0 to 1, that may be taken off at random.
    :param max_retry_after: the longest ``Retry-After`` of a server that is waited for, in
        seconds. A longer one ends the walk.
    :param chance: returns random numbers from 0 to 1.
    """

    def __init__(
        self,
        delays: Iterator[float],
        *,
        jitter: float,
        max_retry_after: float,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._source = delays
        self._jitter = jitter
        self._max_retry_after = max_retry_after
        self._chance = chance
        self._known: list[float] = []
        self.attempts: int = 0
        """Attempts since the last `reset`."""

    def next_delay(self, retry_after: float | None = None) -> float | None:
        """Return the next delay in seconds; `None` when the delays are used up.

        :param retry_after: seconds that the server asked to wait: the shortest possible delay.
        """
        if retry_after is not None and retry_after > self._max_retry_after:
            return None
        if self.attempts == len(self._known):
            following = list(itertools.islice(self._source, 1))
            if not following:
                return None
            self._known += following
        delay = self._known[self.attempts]
        self.attempts += 1
        delay -= delay * self._jitter * self._chance()
        return delay if retry_after is None else max(delay, retry_after)

    def reset(self) -> None:
        """Start again with the first delay, after the server has proved to be healthy."""
        self.attempts = 0


def retry_delay(
    retries: int,
    *,
    retry_after: float | None,
    max_wait: float,
    chance: Callable[[], float] = random.random,
) -> float | None:
    """Return the seconds to wait before a turn is sent again; `None` when the wait is too long.

    :param retries: how often the turn waited before.
    :param retry_after: the seconds that the server asked to wait. They are the delay, unless they
        are 0 or `None`: then the delay grows with each retry.
    :param max_wait: the longest delay that is waited for, in seconds.
    :param chance: returns random numbers from 0 to 1.
    """
    if retry_after:
        return retry_after if retry_after <= max_wait else None
    delay = min(FIRST_DELAY * 2.0 ** min(retries, 10), MAX_DELAY, max_wait)
    return delay - delay * JITTER * chance()
