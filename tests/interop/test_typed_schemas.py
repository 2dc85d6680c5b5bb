"""Types of pydantic have the schemas that openai-agents, openai and pydantic-ai generate.

Only the differences that ``docs/reference/typed-answers.md`` lists are normalised.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.interop.test_tool_schemas import normalised, without_descriptions
from trio_responses import FunctionTool, JSONType
from trio_responses._json_types.encoding import encode_json

pydantic: Any = pytest.importorskip("pydantic", reason="pydantic is not installed")
from tests.interop.typed_values import NOT_STRICT, TYPES  # noqa: E402

STRICT = pytest.mark.parametrize("annotation", [each[0] for each in TYPES.values()], ids=TYPES)


def taking(annotation: Any) -> Any:
    """Return a function with a parameter of a type, and another one.

    pydantic-ai takes the fields of the only parameter of a function for parameters.
    """

    def take(number: int, value: Any) -> None:
        """Take a value."""

    take.__annotations__ = {"number": int, "value": annotation, "return": None}
    return take


def inner(schema: Any, key: str, *, wrapped: bool) -> Any:
    """Return the normalised schema of a type, taken out of the object around it, if any."""
    node = schema["properties"][key] if wrapped else schema
    definitions = schema.get("$defs", {})
    if "$ref" in node:
        node = {**definitions[node["$ref"].removeprefix("#/$defs/")], **node}
        del node["$ref"]
    return normalised({**node, "$defs": definitions})


@pytest.fixture(scope="module")
def agents() -> Any:
    return pytest.importorskip("agents", reason="openai-agents is not installed")


@STRICT
def test_a_tool_equals_that_of_openai_agents(agents: Any, annotation: Any) -> None:
    ours, theirs = FunctionTool(taking(annotation)), agents.function_tool(taking(annotation))
    assert ours.schema.strict, ours.schema.reason
    assert normalised(ours.schema.schema) == normalised(theirs.params_json_schema)


@STRICT
def test_a_tool_equals_that_of_openai(openai_sdk: Any, annotation: Any) -> None:
    model = pydantic.create_model("take", number=(int, ...), value=(annotation, ...))
    theirs = openai_sdk.pydantic_function_tool(model)["function"]["parameters"]
    ours = FunctionTool(taking(annotation)).schema.schema
    assert without_descriptions(normalised(ours)) == without_descriptions(normalised(theirs))


@STRICT
def test_a_tool_equals_that_of_pydantic_ai(annotation: Any) -> None:
    pydantic_ai = pytest.importorskip("pydantic_ai", reason="pydantic-ai is not installed")
    profiles = import_module("pydantic_ai.profiles.openai")
    own = pydantic_ai.Tool(taking(annotation)).function_schema.json_schema
    theirs = profiles.OpenAIJsonSchemaTransformer(own, strict=True).walk()
    ours = FunctionTool(taking(annotation)).schema.schema
    assert without_descriptions(normalised(ours)) == without_descriptions(normalised(theirs))


@STRICT
def test_an_answer_equals_that_of_openai_agents(agents: Any, annotation: Any) -> None:
    output = agents.AgentOutputSchema(annotation)
    theirs = inner(output.json_schema(), "response", wrapped=output._is_wrapped)
    answer = JSONType[Any](annotation)
    assert inner(answer.schema.schema, "value", wrapped=answer.wrapped) == theirs


@STRICT
def test_an_answer_equals_that_of_openai(openai_sdk: Any, annotation: Any) -> None:
    assert openai_sdk
    strict = import_module("openai.lib._pydantic").to_strict_json_schema
    theirs = inner(strict(pydantic.TypeAdapter(annotation)), "", wrapped=False)
    answer = JSONType[Any](annotation)
    assert inner(answer.schema.schema, "value", wrapped=answer.wrapped) == theirs


@pytest.mark.parametrize("annotation", NOT_STRICT.values(), ids=NOT_STRICT)
def test_a_type_that_is_not_strict_in_openai_agents_is_not_strict(
    agents: Any, annotation: Any
) -> None:
    assert not JSONType[Any](annotation).schema.strict
    assert not FunctionTool(taking(annotation)).schema.strict
    ours = FunctionTool(taking(annotation), strict=False).schema.schema
    theirs = agents.function_tool(taking(annotation), strict_mode=False).params_json_schema
    assert normalised(ours) == normalised(theirs)


@pytest.mark.parametrize("name", TYPES)
@settings(max_examples=25)
@given(data=st.data())
def test_a_value_is_encoded_by_the_schema_and_decoded_again(name: str, data: Any) -> None:
    jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is not installed")
    annotation, values = TYPES[name]
    value = data.draw(values)
    answer = JSONType[Any](annotation)
    text = encode_json({"value": value} if answer.wrapped else value)
    jsonschema.Draft202012Validator(answer.schema.schema).validate(msgspec.json.decode(text))
    assert answer.decode(text) == value
    bound = FunctionTool(taking(annotation)).bind(encode_json({"number": 1, "value": value}))
    assert bound.arguments["value"] == value
