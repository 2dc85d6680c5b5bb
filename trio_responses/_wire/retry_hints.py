"""The delay before a retry, as servers state it: in HTTP headers and in error messages."""

import email.utils
import math
import re
import time
from collections.abc import Callable, Mapping
from datetime import UTC

_TRY_AGAIN_IN = re.compile(
    r"try again in ((?:\s*\d+(?:\.\d+)?\s*(?:ms|h|m|s)(?:econds?)?)+)", re.IGNORECASE
)
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|h|m|s)", re.IGNORECASE)
_MILLISECONDS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000}


def parse_retry_after(
    headers: Mapping[str, str], *, now: Callable[[], float] = time.time
) -> float | None:
    """Return the delay in seconds that a server's headers ask for.

    ``retry-after-ms`` takes precedence over ``retry-after``, which is a number of seconds or a
    date. A date in the past is ``0.0``.

    :param headers: the headers; their names may have any case.
    :param now: returns the current Unix time, with which a date is compared.
    :return: ``None`` if the headers state no delay, or an invalid one.
    """
    values = {name.lower(): value for name, value in headers.items()}
    delay = _parse_number(values.get("retry-after-ms"))
    if delay is not None:
        return delay / 1000
    value = values.get("retry-after")
    delay = _parse_number(value)
    if delay is None and value is not None:
        try:
            date = email.utils.parsedate_to_datetime(value)
            if date.tzinfo is None:  # HTTP dates are in GMT, even those without a time zone
                date = date.replace(tzinfo=UTC)
            delay = max(0.0, date.timestamp() - now())
        except (ValueError, OverflowError):
            return None
    return delay


def parse_retry_message(message: str) -> float | None:
    """Return the delay in seconds that a rate limit's message states ("try again in 1.2s")."""
    match = _TRY_AGAIN_IN.search(message)
    if match is None:
        return None
    durations = _DURATION.findall(match[1])
    delay = sum(float(number) * _MILLISECONDS[unit.lower()] for number, unit in durations) / 1000
    return delay if math.isfinite(delay) else None


def _parse_number(text: str | None) -> float | None:
    try:
        number = float(text or "")
    except ValueError:
        return None
    return max(0.0, number) if math.isfinite(number) else None
