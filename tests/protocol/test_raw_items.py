"""Raw items: every byte of an item is preserved, alone and among others."""

import msgspec
import pytest
from msgspec import Raw

from trio_responses._protocol.raw_items import MIN_KEPT_BYTES, RawItems

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


LARGE = b'{"text":"%b"}' % (b"x" * MIN_KEPT_BYTES)


def parts_of(frame: bytes | bytearray, field: str = "output") -> list[Raw]:
    whole = msgspec.json.decode(frame, type=dict[str, Raw])
    return msgspec.json.decode(whole[field], type=list[Raw])


def test_a_lone_large_item_stays_in_its_frame() -> None:
    """Neither its bytes nor those of the history that it is added to are copied."""
    frame = bytearray(b'{"output":[%b]}' % LARGE)
    (item,) = parts_of(frame)
    items = RawItems.keep([item], Raw(frame))
    assert bytes(items.json) == LARGE
    assert items + RawItems() is items
    assert RawItems() + items is items
    frame[-10:-4] = b"yyyyyy"
    assert b"yyyyyy" in bytes(items.json)
    assert [bytes(one) for one in items] == [bytes(item)]
    assert items.array == b"[%b]" % bytes(item)
    assert (items + joined(ITEMS)).json == bytes(item) + b"," + b",".join(ITEMS)


@pytest.mark.parametrize(
    ("output", "rest"),
    [
        ([b'{"text":"small"}'], b"x" * 100_000),
        ([b'{"text":"small"}'], b""),
        ([LARGE], b"x" * 2 * len(LARGE)),
        ([LARGE, LARGE], b""),
        ([], b""),
    ],
    ids=["small in a large frame", "small", "less than half", "two", "none"],
)
def test_other_items_do_not_keep_their_frame(output: list[bytes], rest: bytes) -> None:
    frame = bytearray(b'{"output":[%b],"rest":"%b"}' % (b",".join(output), rest))
    items = RawItems.keep(parts_of(frame), Raw(frame))
    frame[:] = b"z" * len(frame)
    assert items.json == b",".join(output)
    assert items.count == len(output)


def test_an_item_of_an_unknown_frame_is_copied() -> None:
    frame = bytearray(b'{"output":[%b]}' % LARGE)
    items = RawItems.keep(parts_of(frame), None)
    frame[:] = b"z" * len(frame)
    assert items.json == LARGE
