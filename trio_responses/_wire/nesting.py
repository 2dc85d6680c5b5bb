"""Limits for the nesting of JSON, checked without recursion.

msgspec recurses once for each level. Neither its own limit nor that of Python knows the size of the
thread's stack: without a check, JSON with thousands of levels ends the process on a small stack.
"""

import re
from array import array
from itertools import accumulate
from typing import Any

import msgspec

MAX_DECODED_LEVELS = 200
"""The most levels that are decoded into Python objects, which takes 0.5 KiB of stack a level."""
MAX_SKIPPED_LEVELS = 500
"""The most levels of JSON that is kept as bytes or skipped: 50 bytes of stack a level."""
SHALLOW_BYTES = 500
"""The size up to which JSON is not checked: it is safe, and the check costs more than decoding."""

_MARKS = b'[]{}"'
_BRACES_TO_BRACKETS = bytes.maketrans(b"{}", b"[]")
_OTHERS = bytes(set(range(256)) - set(_MARKS))
_STEPS = bytes.maketrans(b"[]", bytes((1, 0xFF)))  # as signed bytes: 1 and -1
_CHUNK = 16 * 1024
_BACKSLASHES = re.compile(rb"\\*")
_INNERMOST_LEVELS = 8


def nests_deeper(json: bytes, levels: int) -> bool:
    """Whether JSON has more levels of arrays and objects than allowed.

    Takes time in proportion to the size, and the memory of a chunk.
    """
    if not _has_more_brackets(json, levels):
        return False
    depth = start = in_string = 0
    while start < len(json):
        end = start + _CHUNK
        if json[end - 1 : end] == b"\\":  # a chunk ends after an escape sequence
            end = _BACKSLASHES.match(json, end).end() + 1  # type: ignore[union-attr]
        chunk = json[start:end].replace(rb"\\", b"").replace(rb"\"", b"")
        # Every pair of quotes that is removed was an empty string, or stood between two strings.
        marks = chunk.translate(_BRACES_TO_BRACKETS, _OTHERS).replace(b'""', b"")
        parts = marks.split(b'"')
        brackets = b"".join(parts[in_string::2])
        if _highest(brackets, depth, levels) > levels:
            return True
        depth += brackets.count(b"[") - brackets.count(b"]")
        in_string ^= (len(parts) - 1) & 1
        start = end
    return False


def _has_more_brackets(json: bytes, most: int) -> bool:
    """Whether JSON has more opening brackets than a number; a large text is mostly strings."""
    if len(json) <= _CHUNK:
        return json.count(b"[") + json.count(b"{") > most
    for mark in (b"[", b"{"):
        start = json.find(mark)
        while start >= 0:  # ten times as fast as count() from one bracket to a distant one
            most -= 1
            if most < 0:
                return True
            start = json.find(mark, start + 1)
    return False


def _highest(brackets: bytes, depth: int, levels: int) -> int:
    """Return the largest depth within brackets, or a number up to ``levels`` that is no smaller."""
    flat = brackets
    for _ in range(_INNERMOST_LEVELS):
        flat = flat.replace(b"[]", b"")
    estimate = _exact_highest(flat, depth) + _INNERMOST_LEVELS
    return estimate if estimate <= levels else _exact_highest(brackets, depth)


def _exact_highest(brackets: bytes, depth: int) -> int:
    return max(accumulate(array("b", brackets.translate(_STEPS)), initial=depth))


def check_nesting(json: bytes | str | msgspec.Raw, levels: int = MAX_DECODED_LEVELS) -> None:
    """Raise `RecursionError` if JSON has more levels than may be decoded into Python objects."""
    raw = json.encode(errors="replace") if isinstance(json, str) else json
    if nests_deeper(bytes(raw), levels):
        raise RecursionError(f"the JSON nests too deeply: more than {levels} levels")


def decode_checked(json: bytes | str | msgspec.Raw, type_: Any = Any) -> Any:
    """Decode JSON as `msgspec.json.decode` does, unless it has too many levels.

    :raises RecursionError: for more than `MAX_DECODED_LEVELS` levels.
    """
    check_nesting(json)
    return msgspec.json.decode(json, type=type_)
