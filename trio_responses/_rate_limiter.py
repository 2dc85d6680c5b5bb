"""Limits of requests and tokens a minute, in front of the server: `RateLimiter`.

`RateLimiter` is what a program makes and passes to connections and pools. They share its
`LimitQueue`, in which the requests wait. `_protocol/rate_limits.py` decides how long.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NoReturn, final

import trio

from trio_responses._concurrency import FastLock, Notifier
from trio_responses._errors import (
    ConfigurationError,
    DeliveryStatus,
    RateLimitError,
    api_error,
    failed_response_error,
)
from trio_responses._protocol.delivery import delivery_of_error
from trio_responses._protocol.rate_limits import RateLimits
from trio_responses._settings import is_number
from trio_responses._wire import ErrorEvent
from trio_responses._wire.retry_hints import parse_rate_reports

if TYPE_CHECKING:
    from collections.abc import Mapping

    from trio_responses._errors import ResponsesError
    from trio_responses._protocol.rate_limits import Reservation
    from trio_responses._wire import Response, ResponseCompleted, ResponseFailed, ResponseIncomplete

__all__ = ["LimitQueue", "RateLimiter", "RateLimiterStatistics", "limit_queue_of"]

SHORTEST_WAIT: Final = 0.001
"""Seconds: a shorter wait may be less than the clock can express, and would end at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RateLimiterStatistics:
    """The state of a rate limiter, returned by ``rate_limiter.statistics()``."""

    requests_available: float | None
    """The requests that can be sent at once; `None` without a limit."""
    tokens_available: float | None
    """The tokens that can be used at once; `None` without a limit. Less than 0 after responses that
    were longer than estimated."""
    paused_for: float
    """The seconds for which nothing is sent, after the server has refused a request for its rate;
    else 0."""
    requests: int
    """The number of requests that were let through."""
    requests_waiting: int
    """The number of connections and lanes whose next request waits. Further requests wait behind it
    in the queue of their connection or pool."""
    requests_delayed: int
    """The number of requests that had to wait."""
    seconds_waited: float
    """The seconds that they waited, added up."""


@final
class RateLimiter:
    """Limits of requests and tokens a minute, for all connections and pools that share them.

    For example::

        limiter = RateLimiter(requests_per_minute=500, tokens_per_minute=200_000)
        async with open_pool(rate_limiter=limiter) as pool:
            ...

    A turn whose request would be over a limit waits before it is sent. This wait counts for none
    of the `Timeouts`. Requests of a connection keep their order, and connections that share
    a limiter take turns. The tokens of a request are estimated, and corrected when its response
    has ended. What the server reports is used as well: ``x-ratelimit-*`` headers, and refusals for
    the rate, after which nothing is sent for as long as the server asks.

    The limits are those of one process, in one run of Trio (docs/operations.md).

    :param requests_per_minute: the limit of requests; `None` if only the server's limits count.
    :param tokens_per_minute: the limit of tokens, input and output together; `None` likewise.
    :param burst: the part of a minute's amount, over 0 and at most 1, that may be used at once
        after a time without requests. 1 suits servers that count as OpenAI does.
    :raises ConfigurationError: for other values.
    """

    def __init__(
        self,
        *,
        requests_per_minute: float | None = None,
        tokens_per_minute: float | None = None,
        burst: float = 1.0,
    ) -> None:
        given = {"requests_per_minute": requests_per_minute, "tokens_per_minute": tokens_per_minute}
        for name, limit in given.items():
            if limit is not None and not (is_number(limit) and 0 < limit < float("inf")):
                raise ConfigurationError(
                    f"{name} must be a positive number, or None for no limit, not {limit!r}"
                )
        if not (is_number(burst) and 0 < burst <= 1):
            raise ConfigurationError(f"burst must be over 0 and at most 1, not {burst!r}")
        self._queue = LimitQueue(
            RateLimits(
                requests_per_minute=requests_per_minute,
                tokens_per_minute=tokens_per_minute,
                burst=burst,
                now=0.0,
            )
        )
        self._given = ", ".join(f"{name}={limit:g}" for name, limit in given.items() if limit)

    def __repr__(self) -> str:
        """Return the limits."""
        return f"RateLimiter({self._given})"

    def __reduce__(self) -> NoReturn:
        """Raise an error: a copy would not share the limits, and let twice as much through."""
        raise TypeError(
            "a RateLimiter cannot be copied or pickled, because a copy does not share its limits:"
            " pass the same object, or make one in each process with a part of the limits"
        )

    def statistics(self) -> RateLimiterStatistics:
        """Return the state of the limits. Called in a Trio task."""
        return self._queue.statistics()


class LimitQueue:
    """The queue of the requests that wait for limits, shared by connections.

    Requests wait in the order of arrival. Of each connection, only the next request is here
    (`RequestQueue`), so that connections take turns.
    """

    def __init__(self, limits: RateLimits) -> None:
        self._limits = limits
        self._line = FastLock()
        """Held by the request that is the next one."""
        self._changed = Notifier()
        """Notified when the next request may have to wait less long."""
        self._clock: trio.abc.Clock | None = None
        self._requests = 0
        self._waiting = 0
        self._delayed = 0
        self._seconds = 0.0

    def statistics(self) -> RateLimiterStatistics:
        """Return the state of the limits."""
        now = self._now()
        requests, tokens = self._limits.available(now)
        return RateLimiterStatistics(
            requests_available=requests,
            tokens_available=tokens,
            paused_for=max(0.0, self._limits.paused_until - now),
            requests=self._requests,
            requests_waiting=self._waiting,
            requests_delayed=self._delayed,
            seconds_waited=self._seconds,
        )

    # --- Before a request ----------------------------------------------------------------

    def estimate(self, size: int, max_output_tokens: int | None, *, generates: bool) -> float:
        """Return an estimate of the tokens of a request and its response."""
        return self._limits.estimate(size, max_output_tokens, generates=generates)

    def reserve_nowait(self, tokens: float) -> Reservation | None:
        """Take a request and its tokens from the limits; return `None` if it has to wait."""
        now = self._now()
        if self._line.locked() or self._limits.delay(tokens, now):
            return None
        self._requests += 1
        return self._limits.reserve(tokens, now)

    async def reserve(self, tokens: float) -> Reservation:
        """Wait until a request may be sent, and take it and its tokens from the limits.

        Requests wait in the order of arrival. If cancelled, nothing is taken.
        """
        began = self._now()
        self._waiting += 1
        self._delayed += 1
        try:
            async with self._line:
                while delay := self._limits.delay(tokens, self._now()):
                    with trio.move_on_after(max(delay, SHORTEST_WAIT)):
                        await self._changed.wait()
                self._requests += 1
                return self._limits.reserve(tokens, self._now())
        finally:
            self._waiting -= 1
            self._seconds += self._now() - began

    # --- After a request -----------------------------------------------------------------

    def cancel(self, reservation: Reservation) -> None:
        """Give back a request that was not sent."""
        self._requests -= 1
        self._limits.cancel(reservation, self._now())
        self._changed.notify()

    def forgive(self, reservation: Reservation) -> None:
        """Give back the tokens of a request that the server did not start. The request counts."""
        self._limits.forgive(reservation, self._now())
        self._changed.notify()

    def handle_end(
        self,
        reservation: Reservation,
        event: ErrorEvent | ResponseCompleted | ResponseFailed | ResponseIncomplete,
        max_wait: float,
        *,
        started: bool,
    ) -> None:
        """Correct what a request has taken, when its response has ended.

        :param event: the event that ends it.
        :param max_wait: the longest pause after a refusal for the rate.
        :param started: whether an event of the response was received before.
        """
        if isinstance(event, ErrorEvent):
            if delivery_of_error(event, started=started) is DeliveryStatus.REJECTED:
                self._limits.forgive(reservation, self._now())
            self.handle_error(api_error(event), max_wait)
            self._changed.notify()
        else:
            self.handle_response(reservation, event.response, max_wait)

    def handle_response(
        self, reservation: Reservation, response: Response, max_wait: float
    ) -> None:
        """Correct what a request has taken by the usage of its Response."""
        if response.usage is not None:
            total, output = response.usage.total_tokens, response.usage.output_tokens
            self._limits.settle(reservation, total, output, self._now())
        if response.status == "failed":
            self.handle_error(failed_response_error(response), max_wait)
        self._changed.notify()

    def handle_error(self, error: ResponsesError, max_wait: float) -> None:
        """Send nothing for a while if an error of the server is a refusal for the rate.

        Not if a quota is used up, which no pause changes.
        """
        if isinstance(error, RateLimitError):
            self.report(error.headers)
            if error.retryable:
                self._limits.pause(error.retry_after, max_wait, self._now())

    def report(self, headers: Mapping[str, str]) -> None:
        """Use what the headers of the server state about its limits."""
        reports = parse_rate_reports(headers)
        if reports:
            self._limits.report(reports, self._now())
            self._changed.notify()

    def _now(self) -> float:
        """Return the time; a limiter of another run of Trio begins anew."""
        clock = trio.lowlevel.current_clock()
        now = clock.current_time()
        if clock is not self._clock:
            self._clock = clock
            self._limits.restart(now)
        return now


def limit_queue_of(rate_limiter: RateLimiter | None) -> LimitQueue | None:
    """Return the queue of the option ``rate_limiter``.

    :raises ConfigurationError: for an object of another type.
    """
    if rate_limiter is None:
        return None
    if not isinstance(rate_limiter, RateLimiter):
        raise ConfigurationError(f"rate_limiter must be RateLimiter(...), not {rate_limiter!r}")
    return rate_limiter._queue  # noqa: SLF001 - of the same module
