"""A text frame of a client, masked (RFC 6455, 5.2 and 5.3).

Masking in Python costs a multiple of everything else that is done to a large request. So a C
function is used where one is installed (that of ``websockets``); else small payloads are
masked as one integer, and large ones by tables, four bytes apart.

What belongs elsewhere: frames that come (`frames.py`), writing (`transport/websocket.py`).
"""

from __future__ import annotations

import os
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Final, cast

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["mask_in_python", "masked_text_frame"]

FINAL_TEXT: Final = 0x81
MASKED: Final = 0x80
MAX_TINY: Final = 125
MAX_SHORT: Final = 0xFFFF
SMALL: Final = 4096
"""Bytes up to which one integer is faster than tables."""


def masked_text_frame(payload: bytes) -> bytes:
    """Make one text frame of a whole message, under a mask of its own."""
    size = len(payload)
    if size <= MAX_TINY:
        head = bytes((FINAL_TEXT, MASKED | size))
    elif size <= MAX_SHORT:
        head = bytes((FINAL_TEXT, MASKED | 126)) + size.to_bytes(2, "big")
    else:
        head = bytes((FINAL_TEXT, MASKED | 127)) + size.to_bytes(8, "big")
    key = os.urandom(4)
    return b"".join((head, key, apply_mask(payload, key)))


def mask_in_python(payload: bytes, key: bytes) -> bytes:
    """Mask where there is no C function for it."""
    size = len(payload)
    if size <= SMALL:
        repeated = key * (size // 4) + key[: size % 4]
        masked = int.from_bytes(payload, "little") ^ int.from_bytes(repeated, "little")
        return masked.to_bytes(size, "little")
    result = bytearray(payload)
    for offset in range(4):
        result[offset::4] = result[offset::4].translate(_table(key[offset]))
    return bytes(result)


@cache
def _table(key: int) -> bytes:
    """Give the table that masks every byte by one byte of a key."""
    return bytes(byte ^ key for byte in range(256))


def _find_c_function() -> Callable[[bytes, bytes], bytes] | None:
    try:
        found = import_module("websockets.speedups").apply_mask
    except (ImportError, AttributeError):
        return None
    return cast("Callable[[bytes, bytes], bytes]", found)


apply_mask: Callable[[bytes, bytes], bytes] = _find_c_function() or mask_in_python
"""The fastest there is."""
