"""What is sent: what was set, as it was set."""

import collections
import json
import types
from typing import Any

import msgspec
import pytest
from msgspec import UNSET

from trio_responses._wire import (
    Message,
    ResponseCreate,
    ResponseSteer,
    UnknownItem,
    UnknownPart,
    WebSearchTool,
    encode,
)


def sent(command: ResponseCreate | ResponseSteer) -> Any:
    return json.loads(encode(command))


def test_what_is_unset_is_left_out_and_none_is_null() -> None:
    command = ResponseCreate(model="m", input="hi", previous_response_id=None, generate=False)
    assert sent(command) == {
        "type": "response.create",
        "model": "m",
        "input": "hi",
        "previous_response_id": None,
        "generate": False,
    }
    assert command.store is UNSET
    assert command.type == "response.create"


def test_items_may_be_typed_plain_raw_or_unknown() -> None:
    command = ResponseCreate(
        input=[
            Message(role="user", content="hi"),
            {"type": "message", "role": "user", "content": "ho"},
            msgspec.Raw(b'{"type":"reasoning","brand_new":1}'),
            UnknownItem("hologram", msgspec.Raw(b'{"type":"hologram"}')),
            Message(role="user", content=[UnknownPart("x", msgspec.Raw(b'{"type":"x"}'))]),
        ]
    )
    assert sent(command)["input"] == [
        {"type": "message", "role": "user", "content": "hi"},
        {"type": "message", "role": "user", "content": "ho"},
        {"type": "reasoning", "brand_new": 1},
        {"type": "hologram"},
        {"type": "message", "role": "user", "content": [{"type": "x"}]},
    ]


def test_tools_may_be_typed_or_plain() -> None:
    command = ResponseCreate(tools=(WebSearchTool(), {"type": "brand_new"}))
    assert sent(command)["tools"] == [{"type": "web_search"}, {"type": "brand_new"}]


def test_any_mapping_and_any_sequence_can_be_sent() -> None:
    command = ResponseCreate(
        metadata=types.MappingProxyType({"a": "b"}), include=collections.UserList(["x"])
    )
    assert sent(command)["metadata"] == {"a": "b"}
    assert sent(command)["include"] == ["x"]


def test_extra_fields_stand_at_the_top_level() -> None:
    command = ResponseCreate(model="m", extra={"multi_agent": {"enabled": True}, "x": None})
    assert sent(command) == {
        "type": "response.create",
        "model": "m",
        "multi_agent": {"enabled": True},
        "x": None,
    }
    assert sent(ResponseCreate(model="m", extra={})) == {"type": "response.create", "model": "m"}


@pytest.mark.parametrize("name", ["model", "type", "extra"])
def test_extra_fields_are_not_those_of_the_command(name: str) -> None:
    with pytest.raises(ValueError, match=f"`extra` contains .*: {name}\\."):
        encode(ResponseCreate(extra={name: 1}))


def test_a_steer_is_its_target_and_its_input() -> None:
    command = ResponseSteer(previous_response_id="resp_1", input="Shorter, please")
    assert command.type == "response.steer"
    assert sent(command) == {
        "type": "response.steer",
        "previous_response_id": "resp_1",
        "input": "Shorter, please",
    }


def cycle() -> list[Any]:
    knot: list[Any] = []
    knot.append(knot)
    return knot


@pytest.mark.parametrize(
    ("command", "path", "reason"),
    [
        (
            ResponseCreate(metadata={"a": object()}),  # type: ignore[dict-item]  # pyright: ignore[reportArgumentType]
            "ResponseCreate.metadata['a']",
            "object",
        ),
        (
            ResponseCreate(input=[{"a": 1}, {"b": [1, object()]}]),
            "ResponseCreate.input[1]['b'][1]",
            "object",
        ),
        (
            ResponseCreate(input=[Message(role="user", content="secret \ud83d")]),
            "ResponseCreate.input[0].content",
            "surrogate",
        ),
        (ResponseCreate(extra={"x": {1, object()}}), "extra['x']", "object"),
        (ResponseCreate(text={"a": cycle()}), "ResponseCreate.text['a'][0]", "contains itself"),
        (ResponseCreate(text={None: 1}), "ResponseCreate.text", "NoneType"),  # type: ignore[dict-item]  # pyright: ignore[reportArgumentType]
    ],
)
def test_what_cannot_be_json_is_named_by_its_path(
    command: ResponseCreate, path: str, reason: str
) -> None:
    with pytest.raises(TypeError, match=reason) as caught:
        encode(command)
    assert f"Cannot send {path}" in str(caught.value)
    assert "secret" not in str(caught.value)
    assert caught.value.__suppress_context__
