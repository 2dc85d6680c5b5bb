"""The fields of input items that the test server checks, compared with those of the SDK."""

import json
from pathlib import Path
from typing import Any, Final

import pytest

from trio_responses.testing._item_checks import ITEMS

SCHEMA: Final[dict[str, Any]] = json.loads(
    (Path(__file__).parents[1] / "data" / "wire_schema.json").read_text()
)

NOT_AS_IN_THE_SCHEMA: Final = {
    ("reasoning", "status"),  # the API refuses it
    ("reasoning", "id"),  # clients leave it out
    ("function_call_output", "call_id"),  # required by the API
    ("custom_tool_call", "status"),  # output items have it, and clients send them back
    ("custom_tool_call_output", "status"),
    ("message", "status"),  # in two of the three forms of a message
    ("message", "id"),
}


@pytest.mark.parametrize("kind", SCHEMA["input_items"])
def test_the_fields_of_an_item_are_those_of_the_sdk(kind: str) -> None:
    fields = SCHEMA["input_items"][kind]["fields"]
    known = ITEMS[kind]

    def select(names: Any) -> set[str]:
        return {n for n in names if n != "type" and (kind, n) not in NOT_AS_IN_THE_SCHEMA}

    required = {name for name, field in fields.items() if field["required"]}
    assert select(known.required) == select(required)
    assert select(known.optional) == select(set(fields) - required)


@pytest.mark.parametrize("kind", SCHEMA["input_items"])
def test_the_choices_of_a_field_are_those_of_the_sdk(kind: str) -> None:
    known = {**ITEMS[kind].required, **ITEMS[kind].optional}
    for name, field in SCHEMA["input_items"][kind]["fields"].items():
        if name in known and "enum" in field and name != "size":
            assert set(known[name].choices) == set(field["enum"]), name
