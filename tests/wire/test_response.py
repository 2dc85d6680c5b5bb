"""The records of answers that hold items: each is decoded when it is asked for."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from trio_responses import _wire as wire


@pytest.mark.parametrize(
    ("kind", "field", "attribute"),
    [(wire.CompactedResponse, "output", "output"), (wire.InputItemsPage, "data", "data")],
)
def test_the_items_of_a_call_are_decoded_and_kept_as_received(
    kind: Any, field: str, attribute: str
) -> None:
    item = b'{"type":"compaction","id":"cmp_1","encrypted_content":"x","new":1}'
    answer = msgspec.json.decode(b'{"id":"a","%b":[%b]}' % (field.encode(), item), type=kind)
    assert getattr(answer, attribute) == (wire.decode_item(item),)
    assert getattr(answer, f"raw_{field}") == [msgspec.Raw(item)]
