"""What servers state about delays and rates: in HTTP headers and in error messages."""

import email.utils
import math
import re
import time
from collections.abc import Callable, Mapping
from datetime import UTC
from typing import NamedTuple

_MILLISECONDS = {
    **dict.fromkeys(("ms", "msec", "msecs", "millisecond", "milliseconds"), 1.0),
    **dict.fromkeys(("s", "sec", "secs", "second", "seconds"), 1_000.0),
    **dict.fromkeys(("m", "min", "mins", "minute", "minutes"), 60_000.0),
    **dict.fromkeys(("h", "hr", "hrs", "hour", "hours"), 3_600_000.0),
    **dict.fromkeys(("d", "day", "days"), 86_400_000.0),
}
_UNIT = "|".join(sorted(_MILLISECONDS, key=len, reverse=True))
# Every repetition is bounded or ends at a character that it does not match, so that a message
# cannot cause backtracking.
_NUMBER = r"(?:\d{1,15}(?:\.\d{1,15})?|(?:an?|one)(?=\s))"
_PART = rf"{_NUMBER}\s{{0,4}}(?:{_UNIT})(?![a-z])"
_DURATION = rf"{_PART}(?:[\s,]{{0,4}}(?:and\s{{1,4}})?{_PART}){{0,5}}"
_HINT = re.compile(
    rf"\b(?:try(?:ing)?(?:\s{{1,4}}again)?|retry(?:ing)?|wait)\s{{1,4}}"
    rf"(?:(?:in|after|for|about|at\s{{1,4}}least|another)\s{{1,4}}){{0,3}}({_DURATION})",
    re.IGNORECASE,
)
_ONE_PART = re.compile(rf"({_NUMBER})\s{{0,4}}({_UNIT})(?![a-z])", re.IGNORECASE)
_WHOLE = re.compile(_DURATION, re.IGNORECASE)
_LIMITS = frozenset(
    {
        "overloaded_error",
        "rate_limit_error",
        "rate_limit_exceeded",
        "server_is_overloaded",
        "service_unavailable_error",
        "slow_down",
        "too_many_requests",
    }
)
"""The codes and types of errors whose message may state a delay."""
_LIMIT_STATUSES = frozenset({429, 503, 529})
_LONGEST_RESET = 31 * 86_400.0
"""A longer time is none: some servers send the date of the reset in seconds."""
_MINUTE = 60.0


def parse_retry_after(
    headers: Mapping[str, str], *, now: Callable[[], float] = time.time
) -> float | None:
    """Return the delay in seconds that a server's headers ask for.

    ``retry-after-ms`` takes precedence over ``retry-after``, which is a number of seconds, a
    duration such as ``6m0s``, or a date. A date in the past is ``0.0``.

    :param headers: the headers; their names may have any case.
    :param now: returns the current Unix time, with which a date is compared.
    :return: ``None`` if the headers state no delay, or an invalid one.
    """
    values = {name.lower(): value for name, value in headers.items()}
    delay = _parse_number(values.get("retry-after-ms"))
    if delay is not None:
        return delay / 1000
    value = values.get("retry-after")
    delay = _parse_seconds(value)
    if delay is None and value is not None:
        try:
            date = email.utils.parsedate_to_datetime(value)
            if date.tzinfo is None:  # HTTP dates are in GMT, even those without a time zone
                date = date.replace(tzinfo=UTC)
            delay = max(0.0, date.timestamp() - now())
        except (ValueError, OverflowError):
            return None
    return delay


class RateReport(NamedTuple):
    """What the headers of a server state about one of its limits."""

    limit: float
    """How much may be used in a period of time."""
    remaining: float
    """How much of it is left."""
    reset: float
    """The seconds until the whole limit is left."""


def parse_rate_reports(headers: Mapping[str, str]) -> dict[str, RateReport]:
    """Return what the ``x-ratelimit-*`` headers state about ``requests`` and ``tokens``.

    A limit whose headers are missing or invalid is left out. Without a time of the reset, a minute
    is assumed.

    :param headers: the headers; their names may have any case.
    """
    values = {name.lower(): value for name, value in headers.items()}
    reports: dict[str, RateReport] = {}
    for unit in ("requests", "tokens"):
        limit = _parse_number(values.get(f"x-ratelimit-limit-{unit}"))
        remaining = _parse_number(values.get(f"x-ratelimit-remaining-{unit}"))
        reset = _parse_seconds(values.get(f"x-ratelimit-reset-{unit}", f"{_MINUTE}"))
        if limit and remaining is not None and reset is not None and reset <= _LONGEST_RESET:
            reports[unit] = RateReport(limit, min(remaining, limit), reset)
    return reports


def parse_retry_message(message: str) -> float | None:
    """Return the delay in seconds that a message states.

    The delay may have several units, as abbreviations or words: "try again in 6m0s", "retry after
    20 seconds", "wait 1 minute and 30 seconds".
    """
    match = _HINT.search(message)
    return None if match is None else _parse_duration(match[1])


def parse_retry_hint(
    message: str,
    *,
    code: str | None,
    error_type: str | None,
    status: int | None = None,
    headers: Mapping[str, str] | None = None,
) -> float | None:
    """Return the delay in seconds that an error asks for, by its headers or its message.

    The message counts for errors of rate limits and overload only. That of another error may
    quote the request.
    """
    delay = parse_retry_after(headers or {})
    is_limit = status in _LIMIT_STATUSES or not _LIMITS.isdisjoint({code, error_type})
    return parse_retry_message(message) if delay is None and is_limit else delay


def _parse_duration(text: str) -> float:
    milliseconds = (
        (1.0 if number.isalpha() else float(number)) * _MILLISECONDS[unit.lower()]
        for number, unit in _ONE_PART.findall(text)
    )
    return math.fsum(milliseconds) / 1000


def _parse_seconds(text: str | None) -> float | None:
    """Return a number of seconds, or a duration such as ``6m0s``."""
    number = _parse_number(text)
    if number is None and text is not None and _WHOLE.fullmatch(text.strip()):
        return _parse_duration(text)
    return number


def _parse_number(text: str | None) -> float | None:
    try:
        number = float(text or "")
    except ValueError:
        return None
    return max(0.0, number) if math.isfinite(number) else None
