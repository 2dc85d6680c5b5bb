"""Text of a server or a network, made safe for an error message, and for a terminal.

A server may send any text, and its sentence often is the only explanation of a failure. So messages
of this library quote it, but never as it came: keys are masked, control characters are escaped, and
the text is cut. `printable` does all three; `escape_controls` escapes alone, for a text that is the
answer itself. It needs no key as an argument: `Secrets` registers the
secret values of every open connection.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final
from weakref import WeakValueDictionary

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Secrets", "escape_controls", "escape_json_controls", "printable"]

CONTROLS: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""The characters that drive a terminal, or change the order in which it shows others.

Newline and tab are not among them. A carriage return is: text after it overwrites the line.
"""
MAX_CHARACTERS: Final = 500
MASK: Final = "***"
MIN_SECRET_CHARACTERS: Final = 6
"""Shorter values are not masked: dummy keys such as ``x`` occur in ordinary words."""
SECRET_HEADER: Final = re.compile(
    r"auth|cookie|credential|key|password|secret|token", re.IGNORECASE
)
SECRET_FORMS: Final = (
    (re.compile(r"\b(Bearer|Basic)\s+[^\s\"',;]+", re.IGNORECASE), rf"\1 {MASK}"),
    (re.compile(r"\bsk-[\w-]{16,}", re.ASCII), f"sk-{MASK}"),
)
"""Forms of secrets that are masked although no connection of this process sends them."""


class Secrets:
    """The secret header values of one connection, masked in every message while it exists."""

    __slots__ = ("__weakref__", "_values")

    def __init__(self) -> None:
        self._values: frozenset[str] = frozenset()
        _registered[id(self)] = self

    def add_headers(self, headers: Iterable[tuple[str, str]]) -> None:
        """Register the values of headers whose names say that they are secret."""
        for name, value in headers:
            if SECRET_HEADER.search(name):
                *_, token = value.split() or [""]
                found = {text for text in (value, token) if len(text) >= MIN_SECRET_CHARACTERS}
                self._values |= found

    def mask(self, text: str) -> str:
        """Return a text without the secrets of this connection."""
        for value in sorted(self._values, key=len, reverse=True):
            text = text.replace(value, MASK)
        return text


_registered: WeakValueDictionary[int, Secrets] = WeakValueDictionary()
"""The secrets of every connection, by id. No lock guards it: Ctrl-C could leave a lock held."""


def printable(text: str, limit: int = MAX_CHARACTERS) -> str:
    """Return a foreign text as one line that may be printed: masked, escaped and cut.

    White space of any kind becomes one space. Every other character that is not printable, such as
    the escape that begins a terminal's control sequence, is shown as in Python's source code.

    :param limit: the greatest number of characters.
    """
    for reference in _registered.valuerefs():  # a copy, so that other threads may change it
        secrets = reference()
        if secrets is not None:
            text = secrets.mask(text)
    text = text[: 16 * limit]
    for form, mask in SECRET_FORMS:
        text = form.sub(mask, text)
    text = " ".join(text.split())[: limit + 1]
    if not text.isprintable():
        text = "".join(
            character if character.isprintable() else _escape(character) for character in text
        )
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


def escape_controls(text: str) -> str:
    """Return a text of several lines with every character escaped that drives a terminal.

    Unlike `printable`, this changes nothing else. CR LF becomes a newline.
    """
    return CONTROLS.sub(lambda found: _escape(found[0]), text.replace("\r\n", "\n"))


def escape_json_controls(encoded: str) -> str:
    """Return the same JSON value, with the characters escaped that drive a terminal.

    JSON itself asks for escapes of the characters below the space alone.
    """
    return CONTROLS.sub(lambda found: f"\\u{ord(found[0]):04x}", encoded)


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
