"""Limits of requests and tokens a minute: how long a request has to wait, and what it has used.

Four token buckets decide: one of requests and one of tokens, for the limits that the program
chose, and the same two for what the server has reported (`RateReport`). A request takes 1 from the
buckets of requests, and an estimate from the buckets of tokens, which the usage of its response
corrects. After a refusal for the rate, no request is sent for a while.

Nothing in this module waits. Times are seconds on a clock that does not run backwards.
"""

from __future__ import annotations

import math
import random
from typing import TYPE_CHECKING, Final, NamedTuple

from trio_responses._protocol.backoff import retry_delay

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from trio_responses._wire.retry_hints import RateReport

__all__ = ["RateLimits", "Reservation", "TokenBucket"]

MINUTE: Final = 60.0
BYTES_PER_TOKEN: Final = 4
FIRST_OUTPUT: Final = 256
"""The output tokens of a response, until the first response has ended."""
NEW_SHARE: Final = 0.1
"""The share of the latest response in the average output."""
TOLERANCE: Final = 1e-6
"""The part of a token that may be missing: sums of times are not exact."""


class TokenBucket:
    """A token bucket: what flows in at a rate may be taken at once, up to the capacity.

    :param capacity: the largest level.
    :param rate: what flows in, each second.
    :param level: the level at the beginning.
    :param now: the time of the beginning.
    """

    __slots__ = ("_at", "_capacity", "_level", "_rate")

    def __init__(self, capacity: float, rate: float, level: float, now: float) -> None:
        self._capacity = capacity
        self._rate = rate
        self._level = level
        self._at = now

    def level(self, now: float) -> float:
        """Return what can be taken at a time; less than 0 if more was used than there was."""
        if now > self._at:
            self._level = min(self._capacity, self._level + (now - self._at) * self._rate)
            self._at = now
        return self._level

    def delay(self, amount: float, now: float) -> float:
        """Return the seconds until an amount can be taken; of a larger one, the whole capacity."""
        missing = min(amount, self._capacity) - self.level(now)
        if missing <= TOLERANCE:
            return 0.0
        return missing / self._rate if self._rate else math.inf

    def take(self, amount: float, now: float) -> None:
        """Take an amount, also if the level falls below 0. A negative amount is given back."""
        self._level = min(self._capacity, self.level(now) - amount)

    def empty(self, now: float) -> None:
        """Take all that is there."""
        self._level = min(0.0, self.level(now))

    def restart(self, now: float) -> None:
        """Continue on another clock, with the same level."""
        self._at = now


class ReportedLimit(NamedTuple):
    """What the server has reported about one of its limits, until this limit is whole again."""

    bucket: TokenBucket
    until: float

    def delay(self, amount: float, now: float) -> float:
        """Return the seconds until an amount can be taken."""
        return min(self.bucket.delay(amount, now), max(0.0, self.until - now))


class Reservation:
    """What one request has taken from the limits: an estimate, until its response has ended."""

    __slots__ = ("is_estimate", "tokens")

    def __init__(self, tokens: float) -> None:
        self.tokens: float = tokens
        """The tokens that were taken."""
        self.is_estimate: bool = True
        """Whether the server has not counted them."""


class RateLimits:
    """The state of limits that any number of connections share.

    :param requests_per_minute: the limit of requests; `None` for none.
    :param tokens_per_minute: the limit of tokens; `None` for none.
    :param burst: the part of a minute's amount that can be taken at once.
    :param chance: returns random numbers from 0 to 1, for delays after refusals.
    """

    def __init__(
        self,
        *,
        requests_per_minute: float | None,
        tokens_per_minute: float | None,
        burst: float,
        now: float,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._requests = _bucket(requests_per_minute, burst, now)
        self._tokens = _bucket(tokens_per_minute, burst, now)
        self._reported_requests: ReportedLimit | None = None
        self._reported_tokens: ReportedLimit | None = None
        self._chance = chance
        self._refusals = 0
        """Refusals for the rate since a response has ended; those of one pause count once."""
        self._average_output = float(FIRST_OUTPUT)
        self.paused_until: float = -math.inf
        """When the next request may be sent after a refusal for the rate."""

    # --- Before a request ----------------------------------------------------------------

    def estimate(self, size: int, max_output_tokens: int | None, *, generates: bool) -> float:
        """Return an estimate of the tokens of a request and its response.

        :param size: bytes of the whole input, of which a token is thought to have 4.
        :param max_output_tokens: the limit of the request; without one, the average output of the
            latest responses counts.
        :param generates: whether the request asks for output; a warm-up does not.
        """
        tokens = size / BYTES_PER_TOKEN
        if generates:
            tokens += self._average_output if max_output_tokens is None else max_output_tokens
        return tokens

    def delay(self, tokens: float, now: float) -> float:
        """Return the seconds until a request with a number of tokens may be sent; 0 for now."""
        delay = max(0.0, self.paused_until - now)
        for limit, amount in self._limits(tokens, now):
            delay = max(delay, limit.delay(amount, now))
        return delay

    def reserve(self, tokens: float, now: float) -> Reservation:
        """Take one request and its estimated tokens, whether or not they are there."""
        self._take(1, tokens, now)
        return Reservation(tokens)

    def available(self, now: float) -> tuple[float | None, float | None]:
        """Return the requests and the tokens that can be taken at once; `None` without a limit."""
        requests, tokens = (
            None if bucket is None else bucket.level(now)
            for bucket in (self._requests, self._tokens)
        )
        return requests, tokens

    # --- After a request -----------------------------------------------------------------

    def cancel(self, reservation: Reservation, now: float) -> None:
        """Give back a request that was not sent."""
        self._take(-1, -reservation.tokens, now)
        reservation.tokens = 0.0

    def settle(self, reservation: Reservation, tokens: int, output: int, now: float) -> None:
        """Replace the estimate by what the server has counted when a response has ended.

        The successors of a steered response are counted as well.

        :param output: the part of the tokens that is output.
        """
        before = reservation.tokens if reservation.is_estimate else 0.0
        self._take(0, tokens - before, now)
        reservation.tokens += tokens - before
        reservation.is_estimate = False
        self._average_output += (output - self._average_output) * NEW_SHARE
        self._refusals = 0

    def forgive(self, reservation: Reservation, now: float) -> None:
        """Give back the tokens of a request that the server did not start. The request counts."""
        if reservation.is_estimate:
            self._take(0, -reservation.tokens, now)
            reservation.tokens = 0.0

    def pause(self, retry_after: float | None, max_wait: float, now: float) -> None:
        """Send nothing for a while, because the server has refused a request for its rate.

        The first refusal of a pause also uses up what was left: the server has counted more.

        :param retry_after: the seconds that the server asked to wait. Without them, the delay
            grows as that of a turn that is sent again (`retry_delay`).
        :param max_wait: the longest pause.
        """
        if now >= self.paused_until:
            for bucket in (self._requests, self._tokens):
                if bucket is not None:
                    bucket.empty(now)
            self._refusals += 1
        elif not retry_after:
            return
        delay = retry_delay(
            self._refusals - 1, retry_after=retry_after, max_wait=max_wait, chance=self._chance
        )
        self.paused_until = max(self.paused_until, now + (max_wait if delay is None else delay))

    def report(self, reports: Mapping[str, RateReport], now: float) -> None:
        """Use what the headers of the server state, by the name of the limit."""
        if "requests" in reports:
            self._reported_requests = _reported(reports["requests"], now)
        if "tokens" in reports:
            self._reported_tokens = _reported(reports["tokens"], now)

    def restart(self, now: float) -> None:
        """Continue on another clock, without what depends on the time."""
        self.paused_until = -math.inf
        self._reported_requests = self._reported_tokens = None
        for bucket in (self._requests, self._tokens):
            if bucket is not None:
                bucket.restart(now)

    # --- The buckets ---------------------------------------------------------------------

    def _limits(
        self, tokens: float, now: float
    ) -> Iterator[tuple[TokenBucket | ReportedLimit, float]]:
        """Yield each limit, and what the request takes from it."""
        if self._requests is not None:
            yield self._requests, 1
        if self._tokens is not None:
            yield self._tokens, tokens
        if self._reported_requests is not None and now < self._reported_requests.until:
            yield self._reported_requests, 1
        if self._reported_tokens is not None and now < self._reported_tokens.until:
            yield self._reported_tokens, tokens

    def _take(self, requests: int, tokens: float, now: float) -> None:
        for own, reported, amount in (
            (self._requests, self._reported_requests, requests),
            (self._tokens, self._reported_tokens, tokens),
        ):
            if own is not None:
                own.take(amount, now)
            if reported is not None:
                reported.bucket.take(amount, now)


def _bucket(per_minute: float | None, burst: float, now: float) -> TokenBucket | None:
    if per_minute is None:
        return None
    capacity = max(1.0, per_minute * burst)
    return TokenBucket(capacity, per_minute / MINUTE, capacity, now)


def _reported(report: RateReport, now: float) -> ReportedLimit:
    """Return the bucket of a limit that is whole again when the server says so."""
    rate = (report.limit - report.remaining) / report.reset if report.reset else 0.0
    bucket = TokenBucket(report.limit, rate, report.remaining, now)
    return ReportedLimit(bucket, now + report.reset)
