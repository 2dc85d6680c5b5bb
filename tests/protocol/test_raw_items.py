"""Raw items: every byte of an item is preserved, alone and among others."""

import msgspec
import pytest
from msgspec import Raw

from trio_responses._protocol.raw_items import RawItems

ITEMS = [b'{"type":"x","a":1}', b"{ }", b'"a,b"', b"[1,2]", b"{\n}"]


def joined(items: list[bytes]) -> RawItems:
    return RawItems.join([Raw(item) for item in items])


@pytest.mark.parametrize("count", range(len(ITEMS) + 1))
def test_iteration_yields_the_items_unchanged(count: int) -> None:
    items = joined(ITEMS[:count])
    assert [bytes(item) for item in items] == ITEMS[:count]
    assert len(items) == items.count == count
    assert bool(items) == (count > 0)
    assert items.array == b"[%b]" % b",".join(ITEMS[:count])


@pytest.mark.parametrize("cut", range(len(ITEMS) + 1))
def test_addition_joins_two_sequences(cut: int) -> None:
    assert joined(ITEMS[:cut]) + joined(ITEMS[cut:]) == joined(ITEMS)


def test_joined_items_do_not_keep_their_frame() -> None:
    """Joined items are a copy."""
    frame = bytearray(b'[{"a":1},{"b":2}]')
    items = RawItems.join(msgspec.json.decode(frame, type=list[Raw]))
    frame[:] = b"x" * len(frame)
    assert items.json == b'{"a":1},{"b":2}'
