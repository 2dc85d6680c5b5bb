"""Items of a history in one piece: raw JSON, exactly as it went over the wire.

A history grows by what a turn said and heard, and goes out again as a whole or not at all. So
items that came together stay together, as one text: to keep thousands of them costs one copy, and
they are taken apart only when somebody looks at one.

What belongs elsewhere: what is sent of a history (`continuation.py`), what is owed in it
(`calls.py`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Self

__all__ = ["RawItems"]


class RawItems(msgspec.Struct, frozen=True, gc=False):
    """Items one behind the other. Iterated over, it gives each one alone."""

    json: bytes = b""
    """All of them, with commas between."""
    count: int = 0
    """How many there are."""

    @classmethod
    def join(cls, items: Sequence[msgspec.Raw]) -> Self:
        """Put items together. It is a copy: a frame that they came in need not be kept for them."""
        return cls(b",".join(items), len(items))

    def __add__(self, other: RawItems) -> RawItems:
        """Put others behind these."""
        both = [items.json for items in (self, other) if items.count]
        return RawItems(b",".join(both), self.count + other.count)

    def __iter__(self) -> Iterator[msgspec.Raw]:
        """Take them apart."""
        return iter(msgspec.json.decode(self.array, type=list[msgspec.Raw]))

    def __len__(self) -> int:
        """How many there are."""
        return self.count

    @property
    def array(self) -> bytes:
        """The list of them, as JSON."""
        return b"[%b]" % self.json
