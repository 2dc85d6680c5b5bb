"""Every model of openai-python survives decoding and encoding, field by field.

Examples are built from the fields of the models (events, items, tools) and of the typed dicts
(parameters, input items): one with every field, and one for each member of a union. The comparison
reads the typed fields of our records, not the JSON that some of them keep.
"""

from __future__ import annotations

import functools
import importlib
import json
import types
import typing
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, NotRequired, Required

import msgspec
import pytest

from trio_responses import _wire as wire
from trio_responses._wire.base import Unknown
from trio_responses._wire.param_checks import check_input, check_params

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

pydantic = pytest.importorskip("pydantic", reason="needs the extra interop: openai")
openai = pytest.importorskip("openai", reason="needs the extra interop: openai")
typing_extensions = pytest.importorskip("typing_extensions")

DEPTH = 12
"""Depth from which the examples of an object leave its optional fields out: models recurse."""

SCALARS: dict[Any, Any] = {
    str: "x",
    int: 3,
    float: 0.5,
    bool: True,
    object: "any",
    Any: "any",
}


# --- Examples -----------------------------------------------------------------------------------


def plain(hint: Any) -> Any:
    """Return an annotation without what surrounds its type."""
    while True:
        origin = typing.get_origin(hint)
        if origin in (Annotated, Required, NotRequired):
            hint = typing.get_args(hint)[0]
        elif isinstance(hint, typing_extensions.TypeAliasType):
            hint = hint.__value__
        else:
            return hint


def fields_of(kind: Any) -> dict[str, tuple[Any, bool]]:
    """Return the fields of a model or a typed dict: name on the wire, annotation, required."""
    if typing_extensions.is_typeddict(kind):
        hints = typing_extensions.get_type_hints(kind, include_extras=True)
        return {name: (hint, name in kind.__required_keys__) for name, hint in hints.items()}
    return {
        field.alias or name: (field.annotation, field.is_required())
        for name, field in kind.model_fields.items()
    }


def is_object(kind: Any) -> bool:
    is_model = isinstance(kind, type) and issubclass(kind, pydantic.BaseModel)
    return is_model or bool(typing_extensions.is_typeddict(kind))


def examples(hint: Any, depth: int = 0) -> list[Any]:
    """Return values of an annotation, one for each member of its unions."""
    hint = plain(hint)
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is not None:
        return examples_of_generic(origin, inner, depth)
    if is_object(hint):
        return objects(hint, depth)
    if hint is None or hint is type(None):
        return []
    return [SCALARS[hint]]


def examples_of_generic(origin: Any, inner: tuple[Any, ...], depth: int) -> list[Any]:
    if origin is Literal:
        return [inner[0]]
    if origin in (typing.Union, types.UnionType):
        return [value for member in inner for value in examples(member, depth)]
    if issubclass(origin, Mapping):
        return [{"key": value} for value in examples(inner[1], depth)[:1]]
    assert issubclass(origin, Iterable), f"no example of {origin!r}"
    return [[value] for value in examples(inner[0], depth)]


def objects(kind: Any, depth: int) -> list[dict[str, Any]]:
    """Return one object with every field, and others for the other values of each field."""
    values = {
        name: examples(hint, depth + 1)
        for name, (hint, required) in fields_of(kind).items()
        if required or depth < DEPTH
    }
    whole = {name: found[0] for name, found in values.items() if found}
    others = [{**whole, name: value} for name, found in values.items() for value in found[1:]]
    return [whole, *others]


def members(hint: Any) -> Iterator[Any]:
    """Yield the models or typed dicts of a union."""
    hint = plain(hint)
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        for member in typing.get_args(hint):
            yield from members(member)
    elif is_object(hint):
        yield hint


def load(path: str) -> Any:
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(f"openai.types.{module}"), name)


def cases(*paths: str) -> list[Any]:
    """Return the models of unions, as parameters of a test."""
    found = [(path.partition(".")[0], kind) for path in paths for kind in members(load(path))]
    return [pytest.param(kind, id=f"{group}-{kind.__name__}") for group, kind in found]


# --- Comparison ---------------------------------------------------------------------------------


def typed(value: Any) -> Any:
    """Return what the typed fields of our records have, as JSON values."""
    assert not isinstance(value, Unknown), f"{value!r} is not typed"
    if isinstance(value, msgspec.Struct):
        config = value.__struct_config__
        names = zip(value.__struct_fields__, value.__struct_encode_fields__, strict=True)
        found = {encoded: typed(read(value, name)) for name, encoded in names}
        return found | ({config.tag_field: config.tag} if config.tag_field else {})
    if isinstance(value, list | tuple):
        return [typed(element) for element in typing.cast("Sequence[Any]", value)]
    if isinstance(value, msgspec.Raw):
        return json.loads(bytes(value))
    return value


def read(record: msgspec.Struct, name: str) -> Any:
    """Return a field, decoded where the record keeps it as JSON."""
    return getattr(record, DECODED.get(name, name))


DECODED = {"raw_item": "item", "raw_output": "output", "raw_response": "response"}


def lost(sent: Any, kept: Any, path: str = "") -> list[str]:
    """Return the places where a value differs from what was sent."""
    if isinstance(sent, dict) and isinstance(kept, dict):
        fields = typing.cast("dict[str, Any]", sent)
        return [
            place
            for name, value in fields.items()
            for place in lost(value, kept.get(name, "(lost)"), f"{path}.{name}")
        ]
    if isinstance(sent, list) and isinstance(kept, list) and len(sent) == len(kept):
        pairs = enumerate(zip(sent, kept, strict=True))
        return [place for i, (a, b) in pairs for place in lost(a, b, f"{path}[{i}]")]
    return [] if sent == kept else [f"{path}: {sent!r} became {kept!r}"]


@functools.cache
def decoder(union: Any) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(union)


# --- Events, items, tools -----------------------------------------------------------------------

EVENTS = cases(
    "responses.responses_server_event.ResponsesServerEvent",
    "beta.beta_responses_server_event.BetaResponsesServerEvent",
)
ITEMS = cases(
    "responses.response_output_item.ResponseOutputItem",
    "responses.response_item.ResponseItem",
    "responses.response_input_item.ResponseInputItem",
    "beta.beta_response_output_item.BetaResponseOutputItem",
    "beta.beta_response_item.BetaResponseItem",
    "beta.beta_response_input_item.BetaResponseInputItem",
)
TOOLS = cases("responses.tool.Tool", "beta.beta_tool.BetaTool")


ENDS = ("response.completed", "response.failed", "response.incomplete")


@pytest.mark.parametrize("model", EVENTS)
def test_an_event_is_typed(model: Any) -> None:
    for sent in objects(model, 0):
        if sent["type"] in ENDS:  # another status would be replaced
            sent["response"]["status"] = sent["type"].removeprefix("response.")
        event = wire.decode(json.dumps(sent).encode())
        if isinstance(event, wire.ErrorEvent):
            assert event.to_dict() == sent
            continue
        assert lost(sent, typed(event)) == []


@pytest.mark.parametrize("model", ITEMS)
def test_an_item_is_typed_and_sent_again(model: Any) -> None:
    for sent in objects(model, 0):
        raw = json.dumps({"type": "message"} | sent if "role" in sent else sent).encode()
        item: Any = decoder(wire.InputItem).decode(raw)
        assert lost(sent, typed(item)) == []
        again = json.loads(wire.encode(wire.ResponseCreate(input=[item])))["input"]
        assert lost(sent, again[0]) == []
        assert check_input([sent]) == [sent]


@pytest.mark.parametrize("model", TOOLS)
def test_a_tool_is_typed(model: Any) -> None:
    for sent in objects(model, 0):
        tool = decoder(wire.Tool).decode(json.dumps(sent).encode())
        assert lost(sent, typed(tool)) == []
        check_params({"tools": [sent]}, of="create()")


# --- Parameters ---------------------------------------------------------------------------------

NOT_PARAMETERS = {
    *("type", "stream_id", "generate", "stream", "background", "background_options", "input"),
}


@pytest.mark.parametrize(
    "path",
    [
        "responses.responses_client_event_param.ResponseCreate",
        "beta.beta_responses_client_event_param.ResponseCreate",
    ],
)
def test_every_parameter_is_accepted_and_sent(path: str) -> None:
    for sent in objects(load(path), 0):
        parameters = {name: sent[name] for name in sent if name not in NOT_PARAMETERS}
        check_params(parameters, of="create()")
        command = wire.ResponseCreate(**{name: sent[name] for name in sent if name != "type"})
        assert json.loads(wire.encode(command)) == sent


@pytest.mark.parametrize(
    "path",
    [
        "responses.response_steer_event_param.ResponseSteerEventParam",
        "beta.beta_response_steer_event_param.BetaResponseSteerEventParam",
        "beta.beta_response_inject_event_param.BetaResponseInjectEventParam",
    ],
)
def test_every_other_client_event_is_typed(path: str) -> None:
    for sent in objects(load(path), 0):
        record: Any = wire.ResponseSteer if "steer" in path else wire.ResponseInject
        command = record(**{name: sent[name] for name in sent if name != "type"})
        assert json.loads(wire.encode(command)) == sent
