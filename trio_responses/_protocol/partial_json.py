"""An incremental reader of JSON that is still being written.

`PartialJSON` is fed with the pieces of one JSON text and holds the data so far:

* A string counts from its first character on. Half an escape sequence, or half a surrogate pair,
  waits for its other half. U+FFFD replaces a lone surrogate.
* A number counts when the character after it was read: until then it may grow. `true`, `false`
  and `null` count when they are complete.
* A key counts when its value does.

Each character is read once, so the time is proportional to the text.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import msgspec

from trio_responses._wire.lenient import replace_lone_surrogates
from trio_responses._wire.nesting import MAX_DECODED_LEVELS

if TYPE_CHECKING:
    from collections.abc import Callable

    State: TypeAlias = Callable[["PartialJSON", str, int], int]
    """A state of the reader: reads the next token at a position; returns the position after it."""

__all__ = ["OpenArray", "OpenObject", "PartialJSON"]

_SPACE: Final = re.compile(r"[ \t\n\r]*+")
_HIGH: Final = r"[dD][89abAB][0-9a-fA-F]{2}"
_TEXT: Final = re.compile(
    # A high surrogate belongs to the text when it is known whether a low one follows.
    r'(?:[^"\\\x00-\x1f]++|\\["\\/bfnrt]'
    rf"|\\u(?!{_HIGH})[0-9a-fA-F]{{4}}"
    rf"|\\u{_HIGH}(?=[^\\]|\\[^u]|\\u[0-9a-fA-F]{{4}}))*+"
)
_HALF_ESCAPE: Final = re.compile(
    rf"\\(?:u(?:[0-9a-fA-F]{{0,3}}|{_HIGH}(?:\\(?:u[0-9a-fA-F]{{0,3}})?)?))?"
)
_NUMBER_CHARACTERS: Final = re.compile(r"[-+.0-9eE]*+")
_LETTERS: Final = re.compile(r"[a-z]*+")
_NUMBER: Final = re.compile(r"-?(?:0|[1-9][0-9]*+)(\.[0-9]++)?([eE][-+]?[0-9]++)?")
_LITERALS: Final[dict[str, bool | None]] = {"true": True, "false": False, "null": None}
_NUMBER_STARTS: Final = frozenset("-0123456789")
_LITERAL_STARTS: Final = frozenset(literal[0] for literal in _LITERALS)
_decode_text: Final = msgspec.json.Decoder(str).decode


class OpenObject:
    """An object whose end was not read."""

    __slots__ = ("data", "key", "keys")

    def __init__(self) -> None:
        self.data: dict[str, Any] = {}
        """The finished values by key."""
        self.keys: list[str] = []
        """The keys of the finished values, in the order of the text; a repeated key repeatedly."""
        self.key: str = ""
        """The key that was read last: that of the value that is being read, if there is one."""

    def add(self, value: Any) -> None:
        """Add the finished value of the key that was read last."""
        self.data[self.key] = value
        self.keys.append(self.key)


class OpenArray:
    """An array whose end was not read."""

    __slots__ = ("data",)

    def __init__(self) -> None:
        self.data: list[Any] = []
        """The finished items."""

    def add(self, value: Any) -> None:
        """Add a finished item."""
        self.data.append(value)


class PartialJSON:
    """A reader of one JSON text that comes in pieces."""

    def __init__(self) -> None:
        self.levels: list[OpenObject | OpenArray] = []
        """The objects and arrays that are open, from the outermost to the innermost one."""
        self.root: Any = msgspec.UNSET
        """The value of the whole text; ``UNSET`` until it is finished."""
        self._state: State = PartialJSON._read_value
        self._pieces: list[str] = []
        """The pieces of the string, number or literal that is being read."""
        self._in_key = False
        """Whether the string that is being read is a key."""
        self._half_escape = ""
        self._changed = False

    @property
    def text(self) -> str | None:
        """The string that is being read so far; `None` if none is, or if it is a key."""
        if self._in_key or self._state is not PartialJSON._read_text:
            return None
        self._pieces = ["".join(self._pieces)]
        return self._pieces[0]

    def feed(self, piece: str) -> bool:
        """Read the next piece of the text; return whether there is more data than before.

        :raises ValueError: for a text that is not JSON. The reader cannot be used any more.
        :raises RecursionError: for more levels of nesting than `MAX_DECODED_LEVELS`, likewise.
        """
        text, self._half_escape = self._half_escape + piece, ""
        self._changed = False
        position, end = 0, len(text)
        while True:
            if self._state not in _INSIDE_TOKENS:
                position = _end_of(_SPACE, text, position)
            if position == end:
                return self._changed
            position = self._state(self, text, position)

    # --- States: each reads one token ------------------------------------------------------

    def _read_value(self, text: str, at: int) -> int:
        char = text[at]
        if char == '"':
            self._start_text(in_key=False)
        elif char == "{":
            self._open(OpenObject(), PartialJSON._read_first_key)
        elif char == "[":
            self._open(OpenArray(), PartialJSON._read_first_item)
        elif char in _NUMBER_STARTS:
            self._start(PartialJSON._read_number)
            return at
        elif char in _LITERAL_STARTS:
            self._start(PartialJSON._read_literal)
            return at
        else:
            raise ValueError(f"no value starts with {char!r}")
        return at + 1

    def _read_first_item(self, text: str, at: int) -> int:
        return self._close(at) if text[at] == "]" else self._read_value(text, at)

    def _read_first_key(self, text: str, at: int) -> int:
        return self._close(at) if text[at] == "}" else self._read_key(text, at)

    def _read_key(self, text: str, at: int) -> int:
        self._expect('"', text, at)
        self._start_text(in_key=True)
        return at + 1

    def _read_colon(self, text: str, at: int) -> int:
        self._expect(":", text, at)
        self._state = PartialJSON._read_value
        return at + 1

    def _read_comma(self, text: str, at: int) -> int:
        in_object = isinstance(self.levels[-1], OpenObject)
        if text[at] == ("}" if in_object else "]"):
            return self._close(at)
        self._expect(",", text, at)
        self._state = PartialJSON._read_key if in_object else PartialJSON._read_value
        return at + 1

    def _read_end(self, text: str, at: int) -> int:
        raise ValueError(f"text after the end of the JSON: {text[at]!r}")

    def _read_text(self, text: str, at: int) -> int:
        end = _end_of(_TEXT, text, at)
        if end > at:
            piece = text[at:end]
            self._pieces.append(_unescape(piece) if "\\" in piece else piece)
            self._changed = self._changed or not self._in_key
        if end == len(text):
            return end
        if text[end] == '"':
            value = "".join(self._pieces)
            if self._in_key:
                level = self.levels[-1]
                assert isinstance(level, OpenObject)  # noqa: S101 - no other level has keys
                level.key = value
                self._in_key = False
                self._state = PartialJSON._read_colon
            else:
                self._finish(value)
            return end + 1
        if _HALF_ESCAPE.fullmatch(text, end) is None:
            raise ValueError("an invalid escape sequence or a control character in a string")
        self._half_escape = text[end:]
        return len(text)

    def _read_number(self, text: str, at: int) -> int:
        end = _end_of(_NUMBER_CHARACTERS, text, at)
        self._pieces.append(text[at:end])
        if end < len(text):
            self._finish(_number("".join(self._pieces)))
        return end

    def _read_literal(self, text: str, at: int) -> int:
        end = _end_of(_LETTERS, text, at)
        word = "".join(self._pieces) + text[at:end]
        if word in _LITERALS:
            self._finish(_LITERALS[word])
        elif end < len(text) or not any(literal.startswith(word) for literal in _LITERALS):
            raise ValueError("a word other than true, false and null")
        self._pieces = [word]
        return end

    # --- Changes of the state --------------------------------------------------------------

    def _start(self, state: State) -> None:
        self._pieces = []
        self._state = state

    def _start_text(self, *, in_key: bool) -> None:
        self._start(PartialJSON._read_text)
        self._in_key = in_key
        self._changed = self._changed or not in_key

    def _open(self, level: OpenObject | OpenArray, state: State) -> None:
        if len(self.levels) == MAX_DECODED_LEVELS:
            raise RecursionError(
                f"the JSON nests too deeply: more than {MAX_DECODED_LEVELS} levels"
            )
        self.levels.append(level)
        self._changed = True
        self._state = state

    def _close(self, at: int) -> int:
        self._finish(self.levels.pop().data)
        return at + 1

    def _finish(self, value: Any) -> None:
        self._changed = True
        if self.levels:
            self.levels[-1].add(value)
            self._state = PartialJSON._read_comma
        else:
            self.root = value
            self._state = PartialJSON._read_end

    @staticmethod
    def _expect(char: str, text: str, at: int) -> None:
        if text[at] != char:
            raise ValueError(f"{text[at]!r} in place of {char!r}")


_INSIDE_TOKENS: Final = frozenset(
    {PartialJSON._read_text, PartialJSON._read_number, PartialJSON._read_literal}  # noqa: SLF001 - the table belongs to the class
)
"""The states in which white space belongs to the token, or ends it."""


def _end_of(pattern: re.Pattern[str], text: str, at: int) -> int:
    """Return the position after a pattern that also matches an empty text."""
    match = pattern.match(text, at)
    return match.end() if match is not None else at


def _unescape(piece: str) -> str:
    """Return the text of a piece of a JSON string."""
    return _decode_text(replace_lone_surrogates(b'"%b"' % piece.encode()))


def _number(text: str) -> int | float:
    match = _NUMBER.fullmatch(text)
    if match is None:
        raise ValueError("an invalid number")
    return int(text) if match[1] is match[2] is None else float(text)
