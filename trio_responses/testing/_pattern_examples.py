"""Example texts for regular expressions: the shortest text that a common pattern matches.

Literals, classes, groups, alternatives, repetitions and anchors are read. A lookaround counts as
empty, so the caller checks whether the text matches.
"""

import re
import string
from collections.abc import Iterator
from typing import Final

_CLASS: Final = re.compile(r"\[\^?\]?(?:\\.|[^\]\\])*\]", re.DOTALL)
_QUANTIFIER: Final = re.compile(r"(?:([*+?])|\{(\d*)(,?)(\d*)\})[?+]?")
_GROUP: Final = re.compile(r"\((?:\?(?:P?<\w+>|:|[imsx]+\)|[imsx]+:|(<?[=!])))?")
_EMPTY: Final = "^$"
_EMPTY_ESCAPES: Final = "bBAZz"
_CONTROLS: Final = {"n": "\n", "t": "\t", "r": "\r"}
_CANDIDATES: Final = "aA1-_ .:/@" + string.printable + "éß€"
_MOST: Final = 1000
"""The largest number of repetitions."""


def pattern_examples(pattern: str, least: int) -> Iterator[str]:
    """Yield texts that a pattern may match, the shortest one first; none for other syntax.

    :param least: The length that repetitions without an end are filled up to in the last text.
    """
    for growth in (0, 1, least):
        reader = _PatternReader(pattern, min(growth, _MOST))
        try:
            yield reader.read_alternatives()
        except (IndexError, ValueError, re.error, RecursionError):
            return


class _PatternReader:
    """A reader of one pattern, which makes a text while it reads.

    :param growth: The number of repetitions where any number is allowed, at least.
    """

    def __init__(self, pattern: str, growth: int) -> None:
        self._pattern = pattern
        self._growth = growth
        self._at = 0

    def read_alternatives(self) -> str:
        """Return the text for the first of the alternatives up to the end of the group."""
        first = self._read_sequence()
        while self._next() == "|":
            self._at += 1
            self._read_sequence()
        return first

    def _next(self) -> str:
        return self._pattern[self._at : self._at + 1]

    def _read_sequence(self) -> str:
        made: list[str] = []
        while self._next() not in {"", "|", ")"}:
            atom = self._read_atom()
            made.append(atom * self._read_count())
        return "".join(made)

    def _read_count(self) -> int:
        found = _QUANTIFIER.match(self._pattern, self._at)
        if found is None:
            return 1
        self._at = found.end()
        sign, low, comma, high = found.groups()
        if sign == "?":
            return 0
        if sign:
            return max(self._growth, int(sign == "+"))
        least = int(low or 0)
        if comma:
            least = max(least, min(self._growth, int(high or _MOST)))
        return min(least, _MOST)

    def _read_atom(self) -> str:
        char = self._next()
        if char == "[":
            found = _CLASS.match(self._pattern, self._at)
            return self._take_member(found[0] if found else "")
        if char == "(":
            return self._read_group()
        if char == "\\":
            return self._read_escape()
        self._at += 1
        if char == ".":
            return "a"
        return "" if char in _EMPTY else char

    def _read_group(self) -> str:
        found = _GROUP.match(self._pattern, self._at)
        if found is None:
            raise ValueError("an unknown kind of group")
        self._at = found.end()
        if found[0].endswith(")"):  # flags
            return ""
        made = self.read_alternatives()
        if self._next() != ")":
            raise ValueError("a group without an end")
        self._at += 1
        return "" if found[1] else made

    def _read_escape(self) -> str:
        kind = self._pattern[self._at + 1]
        if kind in _EMPTY_ESCAPES:
            self._at += 2
            return ""
        if kind in _CONTROLS:
            self._at += 2
            return _CONTROLS[kind]
        if not kind.isalnum():
            self._at += 2
            return kind
        return self._take_member(self._pattern[self._at : self._at + 2])

    def _take_member(self, part: str) -> str:
        """Skip a class of characters, and return the first candidate that is in it."""
        self._at += len(part)
        for char in _CANDIDATES if part else ():
            if re.fullmatch(part, char):
                return char
        raise ValueError("a class without a known member")
