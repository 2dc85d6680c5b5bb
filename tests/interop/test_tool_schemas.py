"""Our schemas of tools beside those that openai-agents and openai make of the same functions.

What is normalised here is what the table in `trio_responses._tools.schema` lists, and nothing else:
one function for each row, in its order.
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
from trio_responses._tools.function import FunctionTool
from trio_responses._tools.schema import text_format

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

# --- Normal forms, in the order of the table ------------------------------------------------

WORDS = re.compile(
    r"(^| ?\()(default|format|contentEncoding|order|uniqueItems|minLength|maxLength): .*$",
    re.DOTALL,
)
UNSAID = {"title", "minLength", "maxLength", "uniqueItems", "discriminator"}
DECIMAL_PATTERN = "^(?!^[-+.]*$)"


def normal(schema: JSON, definitions: JSON, above: tuple[str, ...] = ()) -> JSON:
    """Bring a schema to a form in which the differences of the table do not show."""
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        name = schema["$ref"].removeprefix("#/$defs/")
        if name in above:
            return {"again": len(above) - above.index(name)}
        beside = {key: value for key, value in schema.items() if key != "$ref"}
        return normal({**definitions[name], **beside}, definitions, (*above, name))
    schema = {key: value for key, value in schema.items() if key not in UNSAID}
    has_default = "default" in schema or "default: " in schema.get("description", "")
    schema.pop("default", None)
    schema = without_words(schema)
    schema = one_value(schema)
    schema = positions(schema)
    schema = text_of_bytes(schema)
    schema = decimal(schema)
    if "properties" in schema:
        schema["properties"] = {
            name: normal(inner, definitions, above) for name, inner in schema["properties"].items()
        }
    if "items" in schema:
        schema["items"] = normal(schema["items"], definitions, above)
    if schema.get("additionalProperties") in (True, {}):
        schema["additionalProperties"] = {}
    elif schema.get("additionalProperties"):
        inner = schema["additionalProperties"]
        schema["additionalProperties"] = normal(inner, definitions, above)
    else:
        schema.pop("additionalProperties", None)  # closed or not: the strict test looks at it
    options = schema.pop("oneOf", None) or schema.pop("anyOf", None)
    if options:
        schema = choice(schema, [normal(each, definitions, above) for each in options], has_default)
    if schema.get("required") == []:
        del schema["required"]
    return schema


def choice(schema: JSON, options: list[JSON], has_default: bool) -> JSON:  # noqa: FBT001
    """Order the options; where there is a default, ``null`` is no difference."""
    flat = [one for option in options for one in option.get("anyOf", [option])]
    kept = [one for one in flat if not (has_default and one == {"type": "null"})]
    if len(kept) == 1:
        return {**kept[0], **schema}
    return {**schema, "anyOf": sorted(kept, key=lambda one: json.dumps(one, sort_keys=True))}


def without_words(schema: JSON) -> JSON:
    words = WORDS.sub("", schema.pop("description", ""))
    return {**schema, "description": words} if words else schema


def one_value(schema: JSON) -> JSON:
    """Write ``const`` as ``enum``, and an ``enum`` of several types as a choice."""
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


def positions(schema: JSON) -> JSON:
    """Write a tuple as an array of any of its types."""
    inner = schema.pop("prefixItems", None)
    if inner is None:
        return schema
    inner = [untitled(each) for each in inner]
    kinds = [each for number, each in enumerate(inner) if each not in inner[:number]]
    return {**schema, "items": kinds[0] if len(kinds) == 1 else {"anyOf": kinds}}


def untitled(schema: JSON) -> JSON:
    return {key: value for key, value in schema.items() if key != "title"}


def text_of_bytes(schema: JSON) -> JSON:
    if schema.get("format") == "binary":
        del schema["format"]
    schema.pop("contentEncoding", None)
    return schema


def decimal(schema: JSON) -> JSON:
    """Take away what pydantic adds to the text of a `Decimal`: numbers, and a pattern."""
    if schema.get("pattern", "").startswith(DECIMAL_PATTERN):
        del schema["pattern"]
    options = [decimal(untitled(each)) for each in schema.get("anyOf", [])]
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


def compared(schema: JSON) -> JSON:
    schema = json.loads(json.dumps(schema))
    return normal(schema, schema.pop("$defs", {}))


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
def test_a_strict_tool_is_as_openai_agents_has_it(agents: Any, function: Any) -> None:
    ours, theirs = FunctionTool(function), agents.function_tool(function)
    assert ours.schema.strict
    assert theirs.strict_json_schema
    assert compared(ours.schema.schema) == compared(theirs.params_json_schema)
    assert ours.name == theirs.name
    assert ours.description == (theirs.description or None)


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.__name__)
def test_a_strict_tool_is_as_openai_has_it(openai_sdk: Any, function: Any) -> None:
    ours = compared(FunctionTool(function).schema.schema)
    theirs = openai_sdk.pydantic_function_tool(model_of(function))["function"]
    assert theirs["strict"]
    assert without_descriptions(ours) == without_descriptions(compared(theirs["parameters"]))


@pytest.mark.parametrize("function", IN_FULL, ids=lambda function: function.__name__)
def test_a_schema_in_full_is_as_openai_agents_has_it(agents: Any, function: Any) -> None:
    ours = FunctionTool(function, strict=False)
    theirs = agents.function_tool(function, strict_mode=False)
    assert compared(ours.schema.schema) == compared(theirs.params_json_schema)


@pytest.mark.parametrize("function", [free_keys, anything, open_dict])
def test_what_has_no_strict_form_there_has_none_here(agents: Any, function: Any) -> None:
    assert not FunctionTool(function).schema.strict
    with pytest.raises(agents.UserError, match="additionalProperties should not be set"):
        agents.function_tool(function)


def test_a_tagged_union_is_as_openai_has_it(openai_sdk: Any) -> None:
    ours = FunctionTool(our_pet).schema.schema
    theirs = openai_sdk.pydantic_function_tool(model_of(their_pet))["function"]["parameters"]
    assert compared(ours) == compared(theirs)


@pytest.mark.parametrize("answer", [Place, Trip, Tree, Filters])
def test_a_typed_answer_is_as_openai_has_it(openai_sdk: Any, answer: Any) -> None:
    assert openai_sdk
    theirs = import_module("openai.lib._pydantic").to_strict_json_schema(
        pydantic.TypeAdapter(answer)
    )
    ours = text_format(answer)[0]["schema"]
    if answer is Tree:  # there the root itself is a reference
        ours, theirs = ours["$defs"]["Tree"], theirs["$defs"]["Tree"]
        definitions = {"Tree": ours}, {"Tree": theirs}
        assert normal(ours, definitions[0]) == normal(theirs, definitions[1])
    else:
        assert compared(ours) == compared(theirs)


@given(values)
def test_what_fits_the_types_fits_the_schema(value: dict[str, Any]) -> None:
    validator = pytest.importorskip("jsonschema").Draft202012Validator(TOOLS[0].schema.schema)
    validator.validate(msgspec.json.decode(msgspec.json.encode(value)))


def test_the_comparison_sees_a_difference() -> None:
    schema = FunctionTool(several).schema.schema
    other = json.loads(json.dumps(schema).replace('"integer"', '"number"').replace("date", "time"))
    assert compared(schema) != compared(other)
    assert compared(FunctionTool(integer).schema.schema) != compared(
        FunctionTool(number).schema.schema
    )
