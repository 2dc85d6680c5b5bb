"""Options as they are given: the words and the records of a call, checked where they arrive.

What belongs elsewhere: the records and their numbers (`settings.py`), where to connect
(`endpoint.py`).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final, TypeVar

from trio_responses.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from trio_responses.instruments.instrument import Instrument

__all__ = ["WORDS", "check_words", "checked_instruments", "checked_record"]

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
