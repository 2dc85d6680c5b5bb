"""When to come back: what servers say about it, in headers and in words."""

import email.utils
import math
import re
import time
from collections.abc import Callable, Mapping
from datetime import UTC

_AGAIN_IN = re.compile(
    r"try again in ((?:\s*\d+(?:\.\d+)?\s*(?:ms|h|m|s)(?:econds?)?)+)", re.IGNORECASE
)
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|h|m|s)", re.IGNORECASE)
_MILLISECONDS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000}


def parse_retry_after(
    headers: Mapping[str, str], *, now: Callable[[], float] = time.time
) -> float | None:
    """Read how long a server wants to be left alone, in seconds.

    ``retry-after-ms`` goes before ``retry-after``, which may be a number of seconds or a date.
    A moment that has passed is ``0.0``.

    :param headers: names in any case.
    :param now: the present as a Unix time, for a date.
    :return: ``None`` where the headers do not say, or make no sense.
    """
    values = {name.lower(): value for name, value in headers.items()}
    delay = _number(values.get("retry-after-ms"))
    if delay is not None:
        return delay / 1000
    value = values.get("retry-after")
    delay = _number(value)
    if delay is None and value is not None:
        try:
            date = email.utils.parsedate_to_datetime(value)
            if date.tzinfo is None:  # HTTP dates are in GMT, also where they do not say so
                date = date.replace(tzinfo=UTC)
            delay = max(0.0, date.timestamp() - now())
        except (ValueError, OverflowError):
            return None
    return delay


def retry_after_in(message: str) -> float | None:
    """Read the delay out of a rate limit's message, as in "try again in 1.2s", in seconds."""
    found = _AGAIN_IN.search(message)
    if found is None:
        return None
    durations = _DURATION.findall(found[1])
    delay = sum(float(number) * _MILLISECONDS[unit.lower()] for number, unit in durations) / 1000
    return delay if math.isfinite(delay) else None


def _number(text: str | None) -> float | None:
    try:
        number = float(text or "")
    except ValueError:
        return None
    return max(0.0, number) if math.isfinite(number) else None
