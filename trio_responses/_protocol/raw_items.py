"""Items of a history as raw JSON, exactly as they were sent or received.

A history grows by the items of a turn, and is sent as a whole or not at all. So the items of one
turn are kept as one text: thousands of items cost one copy, and are decoded only when a single
item is needed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Self

__all__ = ["RawItems"]


class RawItems(msgspec.Struct, frozen=True, gc=False):
    """A sequence of items as one JSON text. Iteration yields the items one by one."""

    json: bytes = b""
    """All items, separated by commas."""
    count: int = 0
    """The number of items."""

    @classmethod
    def join(cls, items: Sequence[msgspec.Raw]) -> Self:
        """Return items joined into a copy, which does not keep their frames in memory."""
        return cls(b",".join(items), len(items))

    def __add__(self, other: RawItems) -> RawItems:
        """Return the concatenation of two sequences of items."""
        both = [items.json for items in (self, other) if items.count]
        return RawItems(b",".join(both), self.count + other.count)

    def __iter__(self) -> Iterator[msgspec.Raw]:
        """Yield the items one by one."""
        return iter(msgspec.json.decode(self.array, type=list[msgspec.Raw]))

    def __len__(self) -> int:
        """Return the number of items."""
        return self.count

    @property
    def array(self) -> bytes:
        """The items as a JSON array."""
        return b"[%b]" % self.json
