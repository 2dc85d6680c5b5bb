"""How long to wait before the next attempt to connect, and when to stop trying.

Two things live here: the policy, which is the user's choice, and the countdown, which is one
connection's walk through it. Neither sleeps nor dials: `connection/connection.py` does.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from trio_responses._errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["Backoff", "ReconnectPolicy", "is_permanent_close"]

POLICY_VIOLATION = 1008
PRIVATE_CODES = range(4000, 5000)


def is_permanent_close(code: int) -> bool:
    """Whether a close code says that a new socket would fare no better.

    1008 means that the account or the request is not welcome, 4000 to 4999 are a server's own
    refusals. Everything else may pass: restarts, drops, ages, and the messages that were too
    big for this server but are not sent again.
    """
    return code == POLICY_VIOLATION or code in PRIVATE_CODES


@dataclass(frozen=True, slots=True, kw_only=True)
class ReconnectPolicy:
    """Capped exponential delays between attempts to connect.

    The delays are ``initial * factor ** n``, at most ``cap``, each made shorter by a random
    part of up to ``jitter`` of itself, so that many clients do not come back at once. By
    default they are 1, 2, 4, 8 and 16 seconds, less up to a quarter.

    A server's ``Retry-After`` is a floor under the delay. Where it asks for more than
    ``max_retry_after``, the connection gives up: a program that hangs for an hour helps nobody.

    The count starts again after a finished response, or after ``healthy_after`` seconds of
    life, and not when a socket opens: a server that accepts and drops is not tried for ever.
    """

    initial: float = 1.0
    """Seconds before the first repeated attempt."""
    factor: float = 2.0
    """What each delay is multiplied with to give the next."""
    cap: float = 16.0
    """The longest delay, in seconds."""
    attempts: int = 5
    """Repeated attempts before giving up; 0 never tries again."""
    jitter: float = 0.25
    """The part of each delay, from 0 to 1, that chance may take off."""
    max_retry_after: float = 300.0
    """The longest ``Retry-After`` that is honoured, in seconds."""
    healthy_after: float = 60.0
    """Seconds after which an open socket proves that the server is well."""

    def __post_init__(self) -> None:
        """Refuse what cannot be walked through.

        :raises ConfigurationError: for negative or endless numbers and jitter beyond 0 to 1.
        """
        for field in fields(self):
            name, number = field.name, getattr(self, field.name)
            if isinstance(number, bool) or not isinstance(number, int | float) or not number >= 0:
                raise ConfigurationError(f"{name} must be zero or more, not {number!r}")
        if math.inf in (self.initial, self.factor, self.cap):
            raise ConfigurationError("initial, factor and cap must be finite")
        if not isinstance(self.attempts, int):
            raise ConfigurationError(f"attempts must be a whole number, not {self.attempts!r}")
        if self.jitter > 1:
            raise ConfigurationError(f"jitter must be from 0 to 1, not {self.jitter!r}")

    def delays(self) -> Iterator[float]:
        """Give the delays in seconds, before jitter, one an attempt."""
        delay = min(self.initial, self.cap)
        for _ in range(self.attempts):
            yield delay
            delay = min(delay * self.factor, self.cap)


class Backoff:
    """One connection's walk through a policy.

    :param policy: a `ReconnectPolicy`, or any iterable of delays in seconds, which are taken
        as they are. An endless one never gives up; an iterator is read once and remembered.
    :param chance: gives numbers from 0 to 1 for the jitter.
    """

    def __init__(
        self,
        policy: ReconnectPolicy | Iterable[float],
        *,
        chance: Callable[[], float] = random.random,
    ) -> None:
        if isinstance(policy, ReconnectPolicy):
            self.policy: ReconnectPolicy = policy
            self._source = policy.delays()
        elif isinstance(policy, Iterable):
            self.policy = ReconnectPolicy(jitter=0.0)
            self._source = iter(policy)
        else:
            raise ConfigurationError(f"reconnect must be a policy or delays, not {policy!r}")
        self._chance = chance
        self._known: list[float] = []
        self.attempts: int = 0
        """Attempts since the last proof of health."""

    def next_delay(self, floor: float | None = None) -> float | None:
        """Take the next delay.

        :param floor: seconds that the server asked to wait, if it did.
        :return: seconds to wait before the next attempt; `None` when the policy is spent.
        :raises ConfigurationError: if the user's iterable gives something else than delays.
        """
        if floor is not None and floor > self.policy.max_retry_after:
            return None
        if self.attempts == len(self._known):
            fresh = list(itertools.islice(self._source, 1))
            if not fresh:
                return None
            self._known.append(_checked(fresh[0]))
        delay = self._known[self.attempts]
        self.attempts += 1
        delay -= delay * self.policy.jitter * self._chance()
        return delay if floor is None else max(delay, floor)

    def succeeded(self) -> None:
        """Begin again with the first delay: the server has proved itself well."""
        self.attempts = 0


def _checked(delay: object) -> float:
    if isinstance(delay, bool) or not isinstance(delay, int | float) or not 0 <= delay < math.inf:
        raise ConfigurationError(f"a delay must be seconds, zero or more, not {delay!r}")
    return float(delay)
