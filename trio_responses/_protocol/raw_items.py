"""Items of a history as raw JSON, exactly as they were sent or received.

A history grows by the items of a turn, and is sent as a whole or not at all. So the items of one
turn are kept as one text: thousands of items cost one copy, and are decoded only when a single
item is needed. A large item that came alone costs no copy (`RawItems.keep`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Self

__all__ = ["RawItems"]

MIN_KEPT_BYTES: Final = 16 * 1024
"""The size from which an item is kept in its frame: a smaller one is copied in less than 1 us."""


class RawItems(msgspec.Struct, frozen=True, gc=False):
    """A sequence of items as one JSON text. Iteration yields the items one by one."""

    json: bytes | msgspec.Raw = b""
    """All items, separated by commas; a lone item may be a part of its frame."""
    count: int = 0
    """The number of items."""

    @classmethod
    def join(cls, items: Sequence[msgspec.Raw]) -> Self:
        """Return items joined into a copy, which does not keep their frames in memory."""
        return cls(b",".join(items), len(items))

    @classmethod
    def keep(cls, items: Sequence[msgspec.Raw], whole: msgspec.Raw | None) -> Self:
        """Return items as a history keeps them: joined into a copy, or a lone one as it is.

        A lone item stays in its frame, which it keeps in memory, if the item is large and at least
        half of the frame.

        :param whole: the JSON that the items are a part of, which is nearly all of their frame;
            `None` if that is not known.
        """
        if len(items) == 1 and whole is not None:
            size = len(items[0])
            if size >= MIN_KEPT_BYTES and size >= len(whole) // 2:
                return cls(items[0], 1)
        return cls.join(items)

    def __add__(self, other: RawItems) -> RawItems:
        """Return the concatenation of two sequences of items."""
        if not self.count or not other.count:
            return self if self.count else other
        return RawItems(b",".join((self.json, other.json)), self.count + other.count)

    def __iter__(self) -> Iterator[msgspec.Raw]:
        """Yield the items one by one."""
        if self.count == 1:
            return iter((msgspec.Raw(self.json),))
        return iter(msgspec.json.decode(self.array, type=list[msgspec.Raw]))

    def __len__(self) -> int:
        """Return the number of items."""
        return self.count

    @property
    def array(self) -> bytes:
        """The items as a JSON array."""
        return b"[%b]" % self.json
