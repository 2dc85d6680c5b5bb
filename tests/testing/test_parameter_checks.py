"""Parameters that OpenAI refuses: the test server answers with the same code and message."""

from typing import Any

import pytest

from tests.testing.driver import NO_WAITING, connect
from trio_responses import APIError
from trio_responses.testing import ResponsesServer, open_test_server

pytestmark = NO_WAITING

OPEN = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}
CLOSED = {**OPEN, "additionalProperties": False}


def tool(**fields: Any) -> dict[str, Any]:
    return {"tools": [{"type": "function", "name": "f", "strict": True, **fields}]}


NAMED = {"type": "function", "name": "f"}


def form(**fields: Any) -> dict[str, Any]:
    schema = {"name": "n", "strict": True, "schema": CLOSED}
    return {"text": {"format": {"type": "json_schema", **schema, **fields}}}


NOT_CLOSED = "'additionalProperties' is required to be supplied and to be false."
MISSING = (
    "'required' is required to be supplied and to be an array including every key in properties."
    " Missing 'a'."
)
REFUSED: list[tuple[dict[str, Any], str, str, str]] = [
    ({"temperature": 2.5}, "decimal_above_max_value", "temperature", "a value <= 2, but got 2.5"),
    ({"top_p": -1}, "decimal_below_min_value", "top_p", "Expected a value >= 0, but got -1"),
    ({"top_logprobs": 21}, "integer_above_max_value", "top_logprobs", "a value <= 20, but got 21"),
    ({"max_output_tokens": 15}, "integer_below_min_value", "max_output_tokens", "a value >= 16"),
    ({"max_tool_calls": 0}, "integer_below_min_value", "max_tool_calls", "a value >= 1"),
    ({"truncation": "x"}, "invalid_value", "truncation", "values are: 'auto' and 'disabled'."),
    ({"tool_choice": "any"}, "invalid_value", "tool_choice", "'none', 'auto', and 'required'."),
    ({"tools": [{"type": "web_serch"}]}, "invalid_value", "tools[0].type", "'web_search', "),
    ({"reasoning": {"effort": "hihg"}}, "invalid_value", "reasoning.effort", "'high', 'xhigh', "),
    (
        {"include": ["message.output_text.logprobs", "reasoning.encrypted"]},
        "invalid_value",
        "include[1]",
        "Invalid value: 'reasoning.encrypted'. Supported values are: 'file_search_call.results'",
    ),
    ({"text": {"verbosity": "x"}}, "invalid_value", "text.verbosity", "'low', 'medium'"),
    ({"metadata": {"a": 1}}, "invalid_type", "metadata.a", "expected a string, but got an integer"),
    ({"metadata": {"a": "x" * 513}}, "string_above_max_length", "metadata.a", "length 512"),
    ({"metadata": {"k" * 65: "x"}}, "string_above_max_length", "metadata", "length 64"),
    (
        {"metadata": dict.fromkeys(map(str, range(17)), "x")},
        "object_above_max_properties",
        "metadata",
        "at most 16 properties, but got an object with 17 properties",
    ),
    ({"safety_identifier": "x" * 129}, "string_above_max_length", "safety_identifier", "128"),
    (tool(name="a b"), "invalid_value", "tools[0].name", "the pattern '^[a-zA-Z0-9_-]+$'."),
    (tool(name="a" * 65), "string_above_max_length", "tools[0].name", "length 64"),
    (
        tool(parameters=OPEN),
        "invalid_function_parameters",
        "tools[0].parameters",
        f"Invalid schema for function 'f': In context=(), {NOT_CLOSED}",
    ),
    (
        tool(parameters={**CLOSED, "required": []}),
        "invalid_function_parameters",
        "tools[0].parameters",
        f"Invalid schema for function 'f': In context=(), {MISSING}",
    ),
    (
        tool(parameters={"type": "array"}),
        "invalid_function_parameters",
        "tools[0].parameters",
        "schema must be a JSON Schema of 'type: \"object\"', got 'type: \"array\"'.",
    ),
    (
        form(schema={**CLOSED, "properties": {"a": {"anyOf": [{"type": "null"}, OPEN]}}}),
        "invalid_json_schema",
        "text.format.schema",
        "Invalid schema for response_format 'n': In context=('properties', 'a', 'anyOf', '1'),",
    ),
    (
        form(schema={**CLOSED, "$defs": {"d": {"type": "array", "items": OPEN}}}),
        "invalid_json_schema",
        "text.format.schema",
        f"In context=('$defs', 'd', 'items'), {NOT_CLOSED}",
    ),
    (form(name="a b"), "invalid_value", "text.format.name", "string does not match pattern"),
    (form(schema=3), "invalid_type", "text.format.schema", "expected an object"),
    (
        {"text": {"format": {"type": "json_schema", "schema": {}}}},
        "missing_required_parameter",
        "text.format.name",
        "Missing required parameter: 'text.format.name'.",
    ),
    ({"input": []}, "missing_required_parameter", "input", 'One of "input"'),
    ({"input": ""}, "missing_required_parameter", "input", 'One of "input"'),
]


@pytest.mark.parametrize(("fields", "code", "param", "message"), REFUSED)
async def test_an_invalid_value_is_refused_as_by_openai(
    server: ResponsesServer, fields: dict[str, Any], code: str, param: str, message: str
) -> None:
    async with connect(server) as client:
        refused = await client.error(**{"input": "hi", **fields})
        assert (refused["status"], refused["error"]["code"]) == (400, code)
        assert refused["error"]["param"] == param
        assert message in refused["error"]["message"]
        await client.response(input="the socket stays open")


@pytest.mark.parametrize(
    "fields",
    [
        {"temperature": 2, "top_p": 0, "max_output_tokens": 16, "metadata": None},
        tool(parameters=CLOSED),
        tool(parameters=OPEN, strict=None),
        form(),
        form(schema=OPEN, strict=False),
        {"text": {"format": {"type": "text"}, "verbosity": "low"}, "service_tier": "new"},
        {"metadata": dict.fromkeys(map(str, range(16)), "x" * 512)},
        {"reasoning": {"effort": "max"}, "include": ["reasoning.encrypted_content"]},
        {**tool(), "tool_choice": {"type": "function", "name": "f"}},
        {
            "tools": [{"type": "web_search_preview_2025_03_11"}],
            "tool_choice": {"type": "web_search_preview"},
        },
        {
            "tools": [{"type": "namespace", "name": "crm", "description": "d", **tool()}],
            "tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": [NAMED]},
        },
        {"tool_choice": NAMED, "prompt": {"id": "p"}},
        {"tool_choice": NAMED, "tools": [{"type": "tool_search"}]},
        {
            "tool_choice": NAMED,
            "input": [{"type": "additional_tools", "role": "developer", **tool()}],
        },
    ],
)
async def test_valid_values_are_accepted(server: ResponsesServer, fields: dict[str, Any]) -> None:
    async with connect(server) as client:
        await client.response(**{"input": "hi", **fields})


@pytest.mark.parametrize(
    ("choice", "name"),
    [
        ({"type": "function", "name": "nope"}, "nope"),
        ({"type": "custom", "name": "f"}, "f"),
        ({"type": "file_search"}, "file_search"),
        ({"type": "mcp", "server_label": "docs"}, "docs"),
        ({"type": "allowed_tools", "mode": "auto", "tools": [NAMED, {"type": "mcp"}]}, "mcp"),
    ],
)
async def test_a_choice_of_a_tool_that_is_not_offered_is_refused(
    server: ResponsesServer, choice: dict[str, Any], name: str
) -> None:
    async with connect(server) as client:
        refused = await client.error(input="hi", tool_choice=choice, **tool())
        message = f"Tool choice '{name}' not found in 'tools' parameter."
        assert refused["error"]["message"] == message
        assert (refused["error"]["param"], refused["error"]["code"]) == ("tool_choice", None)
    async with open_test_server(strict=False) as lenient, connect(lenient) as client:
        await client.response(input="hi", tool_choice=choice, **tool())


@pytest.mark.parametrize("fields", [fields for fields, *_ in REFUSED])
async def test_a_lenient_server_accepts_invalid_values(fields: dict[str, Any]) -> None:
    async with open_test_server(strict=False) as server, connect(server) as client:
        await client.response(**{"input": "hi", **fields})


@pytest.mark.parametrize(
    "fields",
    [{"generate": False}, {"prompt": {"id": "p"}}, {"prompt_cache_options": {"prewarm": True}}],
)
async def test_a_request_may_do_without_an_input(
    server: ResponsesServer, fields: dict[str, Any]
) -> None:
    async with connect(server) as client:
        await client.response(**fields)


async def test_the_error_for_a_missing_model_says_where_it_goes(server: ResponsesServer) -> None:
    async with server.open_client() as connection:
        with pytest.raises(APIError, match="pass model= to the turn, or to its conversation"):
            await connection.create("Hello")
