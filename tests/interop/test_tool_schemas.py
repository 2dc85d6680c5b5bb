"""Schemas of tools are equal to those that openai-agents and openai generate, after normalising.

Only the differences that ``docs/reference/typed-answers.md`` lists are normalised, by one function
for each row, in the same order.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable  # noqa: TC003
from importlib import import_module
from typing import Any, TypeAlias, get_type_hints

import msgspec
import pytest
from hypothesis import given

from tests.tools.test_arguments import TOOLS, values
from trio_responses import FunctionTool
from trio_responses._json_types.json_type import text_format

pydantic: Any = pytest.importorskip("pydantic", reason="openai is not installed")
from tests.interop.tool_functions import (  # noqa: E402 - needs pydantic
    FUNCTIONS,
    IN_FULL,
    Filters,
    Place,
    Tree,
    Trip,
    anything,
    free_keys,
    integer,
    number,
    open_dict,
    our_pet,
    several,
    their_pet,
)

JSON: TypeAlias = Any

# --- Normalising, in the order of the table -------------------------------------------------

KEYWORDS_IN_TEXT = re.compile(
    r"(^| ?\()(default|format|contentEncoding|order|uniqueItems|minLength|maxLength|examples): .*$",
    re.DOTALL,
)
IGNORED = {"title", "minLength", "maxLength", "uniqueItems", "examples", "discriminator"}
DECIMAL_PATTERN = "^(?!^[-+.]*$)"


def normalise(schema: JSON, definitions: JSON, above: tuple[str, ...] = ()) -> JSON:
    """Return a schema without the differences that the table lists."""
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        name = schema["$ref"].removeprefix("#/$defs/")
        if name in above:
            return {"again": len(above) - above.index(name)}
        beside = {key: value for key, value in schema.items() if key != "$ref"}
        return normalise({**definitions[name], **beside}, definitions, (*above, name))
    schema = {key: value for key, value in schema.items() if key not in IGNORED}
    has_default = "default" in schema or "default: " in schema.get("description", "")
    schema.pop("default", None)
    schema = without_keywords_in_text(schema)
    schema = enum_of_one_type(schema)
    schema = tuple_as_array(schema)
    schema = bytes_as_text(schema)
    schema = decimal(schema)
    if "properties" in schema:
        schema["properties"] = {
            name: normalise(inner, definitions, above)
            for name, inner in schema["properties"].items()
        }
    if "items" in schema:
        schema["items"] = normalise(schema["items"], definitions, above)
    if schema.get("additionalProperties") in (True, {}):
        schema["additionalProperties"] = {}
    elif schema.get("additionalProperties"):
        inner = schema["additionalProperties"]
        schema["additionalProperties"] = normalise(inner, definitions, above)
    else:
        schema.pop("additionalProperties", None)  # other tests check that objects are closed
    options = schema.pop("oneOf", None) or schema.pop("anyOf", None)
    if options:
        schema = sorted_options(
            schema, [normalise(each, definitions, above) for each in options], has_default
        )
    if schema.get("required") == []:
        del schema["required"]
    return schema


def sorted_options(schema: JSON, options: list[JSON], has_default: bool) -> JSON:  # noqa: FBT001
    """Return the schema with sorted options; a property with a default loses ``null``."""
    flat = [one for option in options for one in option.get("anyOf", [option])]
    kept = [one for one in flat if not (has_default and one == {"type": "null"})]
    if len(kept) == 1:
        return {**kept[0], **schema}
    return {**schema, "anyOf": sorted(kept, key=lambda one: json.dumps(one, sort_keys=True))}


def without_keywords_in_text(schema: JSON) -> JSON:
    text = KEYWORDS_IN_TEXT.sub("", schema.pop("description", ""))
    return {**schema, "description": text} if text else schema


def enum_of_one_type(schema: JSON) -> JSON:
    """Return ``const`` as ``enum``, and an ``enum`` of several types as ``anyOf``."""
    if "const" in schema:
        schema["enum"] = [schema.pop("const")]
    values = schema.get("enum", [])
    kinds = {type(value): "string" if isinstance(value, str) else "integer" for value in values}
    if len(kinds) < 2:
        return schema
    del schema["enum"]
    options = [
        {"type": name, "enum": [value for value in values if isinstance(value, kind)]}
        for kind, name in kinds.items()
    ]
    return {**schema, "anyOf": options}


def tuple_as_array(schema: JSON) -> JSON:
    """Return the schema of a tuple as an array of any of its types."""
    inner = schema.pop("prefixItems", None)
    if inner is None:
        return schema
    inner = [without_title(each) for each in inner]
    kinds = [each for number, each in enumerate(inner) if each not in inner[:number]]
    return {**schema, "items": kinds[0] if len(kinds) == 1 else {"anyOf": kinds}}


def without_title(schema: JSON) -> JSON:
    return {key: value for key, value in schema.items() if key != "title"}


def bytes_as_text(schema: JSON) -> JSON:
    if schema.get("format") == "binary":
        del schema["format"]
    schema.pop("contentEncoding", None)
    return schema


def decimal(schema: JSON) -> JSON:
    """Return the schema of a `Decimal` without the number and the pattern that pydantic adds."""
    if schema.get("pattern", "").startswith(DECIMAL_PATTERN):
        del schema["pattern"]
    options = [decimal(without_title(each)) for each in schema.get("anyOf", [])]
    if {"type": "number"} in options and {"type": "string"} in options:
        schema["anyOf"] = [each for each in options if each != {"type": "number"}]
    return schema


def without_descriptions(schema: JSON) -> JSON:
    if isinstance(schema, list):
        return [without_descriptions(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: without_descriptions(value)
        for key, value in schema.items()
        if key != "description" or not isinstance(value, str)
    }


def normalised(schema: JSON) -> JSON:
    schema = json.loads(json.dumps(schema))
    return normalise(schema, schema.pop("$defs", {}))


# --- The comparison -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def agents() -> Any:
    return pytest.importorskip("agents", reason="openai-agents is not installed")


def model_of(function: Callable[..., Any]) -> Any:
    hints = get_type_hints(function, include_extras=True)
    fields = {
        name: (hints[name], ... if parameter.default is parameter.empty else parameter.default)
        for name, parameter in inspect.signature(function).parameters.items()
    }
    return pydantic.create_model(function.__name__, **fields)


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.__name__)
def test_a_strict_tool_equals_that_of_openai_agents(agents: Any, function: Any) -> None:
    ours, theirs = FunctionTool(function), agents.function_tool(function)
    assert ours.schema.strict
    assert theirs.strict_json_schema
    assert normalised(ours.schema.schema) == normalised(theirs.params_json_schema)
    assert ours.name == theirs.name
    assert ours.description == (theirs.description or None)


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.__name__)
def test_a_strict_tool_equals_that_of_openai(openai_sdk: Any, function: Any) -> None:
    ours = normalised(FunctionTool(function).schema.schema)
    theirs = openai_sdk.pydantic_function_tool(model_of(function))["function"]
    assert theirs["strict"]
    assert without_descriptions(ours) == without_descriptions(normalised(theirs["parameters"]))


@pytest.mark.parametrize("function", IN_FULL, ids=lambda function: function.__name__)
def test_a_full_schema_equals_that_of_openai_agents(agents: Any, function: Any) -> None:
    ours = FunctionTool(function, strict=False)
    theirs = agents.function_tool(function, strict_mode=False)
    assert normalised(ours.schema.schema) == normalised(theirs.params_json_schema)


@pytest.mark.parametrize("function", [free_keys, anything, open_dict])
def test_a_function_that_is_not_strict_in_openai_agents_is_not_strict(
    agents: Any, function: Any
) -> None:
    assert not FunctionTool(function).schema.strict
    with pytest.raises(agents.UserError, match="additionalProperties should not be set"):
        agents.function_tool(function)


def test_a_tagged_union_equals_that_of_openai(openai_sdk: Any) -> None:
    ours = FunctionTool(our_pet).schema.schema
    theirs = openai_sdk.pydantic_function_tool(model_of(their_pet))["function"]["parameters"]
    assert normalised(ours) == normalised(theirs)


@pytest.mark.parametrize("answer", [Place, Trip, Tree, Filters])
def test_a_typed_answer_equals_that_of_openai(openai_sdk: Any, answer: Any) -> None:
    assert openai_sdk
    theirs = import_module("openai.lib._pydantic").to_strict_json_schema(
        pydantic.TypeAdapter(answer)
    )
    ours = text_format(answer)[0]["schema"]
    if answer is Tree:  # the root of the schema of openai is a reference
        ours, theirs = ours["$defs"]["Tree"], theirs["$defs"]["Tree"]
        definitions = {"Tree": ours}, {"Tree": theirs}
        assert normalise(ours, definitions[0]) == normalise(theirs, definitions[1])
    else:
        assert normalised(ours) == normalised(theirs)


@given(values)
def test_arguments_that_match_the_types_match_the_schema(value: dict[str, Any]) -> None:
    validator = pytest.importorskip("jsonschema").Draft202012Validator(TOOLS[0].schema.schema)
    validator.validate(msgspec.json.decode(msgspec.json.encode(value)))


def test_normalising_keeps_real_differences() -> None:
    schema = FunctionTool(several).schema.schema
    other = json.loads(json.dumps(schema).replace('"integer"', '"number"').replace("date", "time"))
    assert normalised(schema) != normalised(other)
    assert normalised(FunctionTool(integer).schema.schema) != normalised(
        FunctionTool(number).schema.schema
    )
