"""Options: small frozen records of numbers, each with its unit and its reason.

What belongs elsewhere: where to connect and what that place can do (`endpoint.py`).
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Final, TypeVar

from trio_responses._errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "OPTION_VALUES",
    "Keepalive",
    "Limits",
    "RotationPolicy",
    "Timeouts",
    "check_option_values",
    "checked_record",
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


Record = TypeVar("Record")

OPTION_VALUES: Final[Mapping[str, tuple[str, ...]]] = {
    "delivery": ("at_most_once", "at_least_once"),
    "abandon": ("drain", "replace"),
    "on_tool_error": ("return", "raise"),
    "after_error": ("reuse", "replace"),
}
"""The words that each option of words has, by the option's name."""


def check_option_values(**given: object) -> None:
    """Refuse a word that its option does not have.

    For example::

        check_option_values(delivery=delivery, abandon=abandon)

    :param given: options of `OPTION_VALUES`, by name.
    :raises ConfigurationError: the message has the words that there are.
    """
    for name, word in given.items():
        if word not in OPTION_VALUES[name]:
            known = " or ".join(f'"{one}"' for one in OPTION_VALUES[name])
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
