"""Encoding of client events: a frame contains the fields that were set, unchanged."""

import ast
import collections
import json
import types
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec import UNSET

from trio_responses._wire import (
    ClientEvent,
    FunctionToolParam,
    Message,
    ResponseCreate,
    ResponseInject,
    ResponseSteer,
    ToolSearchCall,
    UnknownItem,
    UnknownPart,
    WebSearchTool,
    commands,
    decode_item,
    encode,
)


def sent(command: ClientEvent) -> Any:
    return json.loads(encode(command))


def test_an_unset_field_is_omitted_and_none_is_sent_as_null() -> None:
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


def test_items_may_be_records_dicts_raw_json_or_unknown_items() -> None:
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


def test_tools_may_be_records_or_dicts() -> None:
    command = ResponseCreate(tools=(WebSearchTool(), {"type": "brand_new"}))
    assert sent(command)["tools"] == [{"type": "web_search"}, {"type": "brand_new"}]


def test_any_mapping_and_any_sequence_can_be_encoded() -> None:
    command = ResponseCreate(
        metadata=types.MappingProxyType({"a": "b"}), include=collections.UserList(["x"])
    )
    assert sent(command)["metadata"] == {"a": "b"}
    assert sent(command)["include"] == ["x"]


def test_extra_fields_are_sent_at_the_top_level() -> None:
    command = ResponseCreate(model="m", extra={"brand_new": {"enabled": True}, "x": None})
    assert sent(command) == {
        "type": "response.create",
        "model": "m",
        "brand_new": {"enabled": True},
        "x": None,
    }
    assert sent(ResponseCreate(model="m", extra={})) == {"type": "response.create", "model": "m"}


@pytest.mark.parametrize("name", ["model", "type", "extra"])
def test_extra_fields_may_not_be_fields_of_the_client_event(name: str) -> None:
    with pytest.raises(ValueError, match=f"`extra` contains .*: {name}\\."):
        encode(ResponseCreate(extra={name: 1}))


def test_a_steering_input_is_sent_with_its_target() -> None:
    command = ResponseSteer(previous_response_id="resp_1", input="Shorter, please")
    assert command.type == "response.steer"
    assert sent(command) == {
        "type": "response.steer",
        "previous_response_id": "resp_1",
        "input": "Shorter, please",
    }


def list_that_contains_itself() -> list[Any]:
    values: list[Any] = []
    values.append(values)
    return values


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
        (
            ResponseCreate(text={"a": list_that_contains_itself()}),
            "ResponseCreate.text['a'][0]",
            "contains itself",
        ),
        (ResponseCreate(text={None: 1}), "ResponseCreate.text", "NoneType"),  # type: ignore[dict-item]  # pyright: ignore[reportArgumentType]
    ],
)
def test_the_error_for_a_value_that_json_cannot_represent_names_its_path(
    command: ResponseCreate, path: str, reason: str
) -> None:
    with pytest.raises(TypeError, match=reason) as caught:
        encode(command)
    assert f"Cannot send {path}" in str(caught.value)
    assert "secret" not in str(caught.value)
    assert caught.value.__suppress_context__


NAN = float("nan")


@pytest.mark.parametrize(
    ("command", "path"),
    [
        (ResponseCreate(temperature=NAN), "ResponseCreate.temperature"),
        (ResponseCreate(top_p=float("inf")), "ResponseCreate.top_p"),
        (ResponseCreate(extra={"a": {"b": (1, NAN)}}), "extra['a']['b'][1]"),
        (
            ResponseCreate(tools=[FunctionToolParam(name="f", parameters={"maximum": -1e999})]),
            "ResponseCreate.tools[0].parameters['maximum']",
        ),
        (
            ResponseCreate(input=[ToolSearchCall(arguments=[NAN])]),
            "ResponseCreate.input[0].arguments[0]",
        ),
        ({"type": "response.create", "temperature": NAN}, "event['temperature']"),
        ({"type": "x", "input": [{"content": [{"n": NAN}]}]}, "event['input'][0]['content']"),
        ({"metadata": {"a": NAN}, "b": None}, "event['metadata']['a']"),
        (ResponseInject(response_id="r", input=[{"output": NAN}]), "ResponseInject.input[0]"),
    ],
)
def test_a_number_that_json_lacks_is_refused_with_its_path(command: Any, path: str) -> None:
    with pytest.raises(ValueError, match="is not a finite number") as caught:
        encode(command)
    assert str(caught.value).startswith(path)


def test_the_error_for_a_mapping_names_the_event() -> None:
    with pytest.raises(TypeError, match=r"Cannot send event\['temperature'\] as JSON"):
        encode({"temperature": object()})


def test_null_in_a_text_or_a_value_is_sent() -> None:
    command = ResponseCreate(input="null", temperature=None, extra={"a": [None, 1.5]})
    assert sent(command)["a"] == [None, 1.5]


def test_inject_sends_received_items_as_received() -> None:
    output = '{"type": "function_call_output", "call_id": "c", "output": "x", "novel": 1}'
    command = ResponseInject(response_id="resp_1", input=[decode_item(output.encode())])
    assert sent(command) == {
        "type": "response.inject",
        "response_id": "resp_1",
        "input": [json.loads(output)],
    }


ITEM = b'{"type": "message", "role": "user", "content": "hi", "from_next_year": 1}'


def test_a_mapping_is_sent_as_it_is() -> None:
    command = {"type": "response.create", "input": "hi", "from_next_year": [1, None]}
    assert json.loads(encode(command)) == command


def test_a_received_item_in_a_mapping_is_sent_as_received() -> None:
    command = {"type": "response.create", "input": [decode_item(ITEM)]}
    assert json.loads(encode(command))["input"] == [json.loads(ITEM)]


def test_every_field_of_a_client_event_has_a_description() -> None:
    """An editor shows the text after a field."""
    source = ast.parse(Path(commands.__file__).read_text(encoding="utf-8"))
    records = [node for node in source.body if isinstance(node, ast.ClassDef)]
    assert len(records) >= 3
    for record in records:
        for field, following in pairwise([*record.body, ast.Pass()]):
            if isinstance(field, ast.AnnAssign) and ast.unparse(field.target) != "type":
                assert isinstance(following, ast.Expr), f"{record.name}.{ast.unparse(field.target)}"
