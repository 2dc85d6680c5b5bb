"""Options: small frozen records of numbers, each with its unit and its reason.

What belongs elsewhere: where to connect and what that place can do (`endpoint.py`).
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Final, TypeVar

from trio_responses._errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from trio_responses._instruments.instrument import Instrument

__all__ = [
    "WORDS",
    "Keepalive",
    "Limits",
    "ReconnectPolicy",
    "RotationPolicy",
    "Timeouts",
    "check_words",
    "checked_instruments",
    "checked_record",
    "reconnect_delays",
]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _require_positive(record: Any) -> None:
    for field in fields(record):
        number = getattr(record, field.name)
        if not _is_number(number):
            raise ConfigurationError(f"{field.name} must be a number, not {number!r}")
        if math.isnan(number) or number <= 0:
            raise ConfigurationError(f"{field.name} must be positive, not {number!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """How long each phase may take, in seconds; `math.inf` for no limit."""

    connect: float = 15.0
    """Dial, TLS and upgrade together."""
    send: float = 60.0
    """One frame, from its first byte to its last."""
    first_event: float = 60.0
    """From the request's last byte to the first event of its response."""
    stall: float = 600.0
    """Between two events of one response: reasoning is silent for minutes."""
    close: float = 5.0
    """The closing handshake; after it the socket is dropped."""

    def __post_init__(self) -> None:
        """Refuse what is not a duration.

        :raises ConfigurationError: for zero, negative numbers, NaN and non-numbers.
        """
        _require_positive(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Keepalive:
    """Pings, so that a dead peer is noticed. Any inbound byte is a sign of life."""

    interval: float = 20.0
    """Seconds of silence before a ping is sent; `math.inf` to send none."""
    timeout: float = 20.0
    """Seconds that may pass after a ping without any byte from the server."""

    def __post_init__(self) -> None:
        """Refuse what is not a duration.

        :raises ConfigurationError: for zero, negative numbers, NaN and non-numbers.
        """
        _require_positive(self)


SHORTEST_LIFE = 1.0
"""Seconds for which a socket is kept at least: a server that ends them sooner is not raced."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RotationPolicy:
    """When a socket is replaced before the server ends it.

    The new one is open before the old one takes no more turns; those under way finish there.
    """

    max_age: float | None = None
    """Seconds after which a socket is replaced; by default the endpoint's ``rotate_after``."""
    stagger: float = 0.1
    """The part of the age, from 0 to 1, that chance may take off: many connections that were
    opened together are not replaced together."""

    def __post_init__(self) -> None:
        """Refuse what is not an age or a part of one.

        :raises ConfigurationError: for an age that is not positive, and a part beyond 0 to 1.
        """
        if self.max_age is not None and not (_is_number(self.max_age) and self.max_age > 0):
            raise ConfigurationError(f"max_age must be positive, not {self.max_age!r}")
        if not (_is_number(self.stagger) and 0 <= self.stagger <= 1):
            raise ConfigurationError(f"stagger must be from 0 to 1, not {self.stagger!r}")

    def age_for(self, endpoint_age: float | None) -> float:
        """Choose the age at which one socket is replaced, in seconds; `math.inf` for never."""
        age = self.max_age if self.max_age is not None else endpoint_age
        if age is None:
            return math.inf
        part = 1 - self.stagger * random.random()  # noqa: S311 - no secret depends on it
        return max(age * part, SHORTEST_LIFE)


MIB = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How many bytes may be in one place at a time."""

    max_message_bytes: int = 64 * MIB
    """One message from the server; a larger one is discarded as it comes."""
    max_request_bytes: int = 16 * MIB - 1
    """One request: servers close with 1009 at 16 MiB (docs/protocol.md, 5.9)."""
    turn_buffer_bytes: int = 8 * MIB
    """Unread events of one turn, or of the raw channel."""
    connection_buffer_bytes: int = 64 * MIB
    """Unread events of all turns of one connection together."""

    def __post_init__(self) -> None:
        """Refuse what is not a size.

        :raises ConfigurationError: for zero, negative numbers, NaN and non-numbers.
        """
        _require_positive(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReconnectPolicy:
    """Capped exponential delays between attempts to connect.

    The delays are ``initial * factor ** n``, at most ``cap``. Each is shortened at random by up
    to ``jitter`` of its length, so that many clients do not reconnect at the same moment. By
    default the delays are 1, 2, 4, 8 and 16 seconds, each shortened by up to a quarter.

    A server's ``Retry-After`` is the shortest possible delay. If it is longer than
    ``max_retry_after``, the connection gives up at once instead of waiting.

    The attempts are counted anew after a finished response, or after a socket was open for
    ``healthy_after`` seconds. Opening a socket alone does not reset the count, so a server that
    accepts and drops connections is not tried for ever.
    """

    initial: float = 1.0
    """Seconds before the first repeated attempt."""
    factor: float = 2.0
    """The ratio of each delay to the one before."""
    cap: float = 16.0
    """The longest delay, in seconds."""
    attempts: int = 5
    """The number of repeated attempts before giving up; 0 never repeats."""
    jitter: float = 0.25
    """The part of each delay, from 0 to 1, that may be taken off at random."""
    max_retry_after: float = 300.0
    """The longest ``Retry-After`` that is waited for, in seconds."""
    healthy_after: float = 60.0
    """Seconds after which an open socket counts as healthy."""

    def __post_init__(self) -> None:
        """Check the values.

        :raises ConfigurationError: for negative or infinite numbers and a jitter over 1.
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
        """Yield the delay before each attempt, in seconds, without jitter."""
        delay = min(self.initial, self.cap)
        for _ in range(self.attempts):
            yield delay
            delay = min(delay * self.factor, self.cap)


def reconnect_delays(
    reconnect: ReconnectPolicy | Iterable[float] | None,
) -> tuple[ReconnectPolicy, Iterator[float]]:
    """Return the policy and the delays that an option ``reconnect`` means.

    :param reconnect: a policy, or an iterable of delays in seconds, used without jitter.
    :raises ConfigurationError: for any other value; the iterator raises it for an element that
        is not a delay.
    """
    if reconnect is None:
        reconnect = ReconnectPolicy()
    if isinstance(reconnect, ReconnectPolicy):
        return reconnect, reconnect.delays()
    if isinstance(reconnect, Iterable):
        return ReconnectPolicy(jitter=0.0), map(_checked_delay, reconnect)
    raise ConfigurationError(f"reconnect must be a policy or delays, not {reconnect!r}")


def _checked_delay(delay: object) -> float:
    if isinstance(delay, bool) or not isinstance(delay, int | float) or not 0 <= delay < math.inf:
        raise ConfigurationError(f"a delay must be seconds, zero or more, not {delay!r}")
    return float(delay)


Record = TypeVar("Record")

WORDS: Final[Mapping[str, tuple[str, ...]]] = {
    "delivery": ("at_most_once", "at_least_once"),
    "abandon": ("drain", "replace"),
    "on_tool_error": ("return", "raise"),
    "after_error": ("reuse", "replace"),
}
"""The words that each option of words has, by the option's name."""


def check_words(**given: object) -> None:
    """Refuse a word that its option does not have.

    For example::

        check_words(delivery=delivery, abandon=abandon)

    :param given: options of `WORDS`, by name.
    :raises ConfigurationError: the message has the words that there are.
    """
    for name, word in given.items():
        if word not in WORDS[name]:
            known = " or ".join(f'"{one}"' for one in WORDS[name])
            raise ConfigurationError(f"{name} is {known}, not {word!r}")


def checked_record(name: str, given: Record | None, kind: type[Record]) -> Record:
    """Give a record of options: what it is by default, where none was given.

    :param name: the option's name, for the message.
    :raises ConfigurationError: for what is no such record.
    """
    if given is None:
        return kind()
    if not isinstance(given, kind):
        raise ConfigurationError(f"{name} must be {kind.__name__}(...), not {given!r}")
    return given


def checked_instruments(given: Iterable[Instrument]) -> tuple[Instrument, ...]:
    """Give the instruments, whatever they were in.

    :raises ConfigurationError: for what is no iterable: one alone, for instance.
    """
    if not isinstance(given, Iterable):
        raise ConfigurationError(f"instruments must be a list of instruments, not {given!r}")
    return tuple(given)
