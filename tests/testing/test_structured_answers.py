"""Default answers to requests for JSON: the text fits the schema, so that `parse` works."""

import datetime as dt
import json
import uuid
from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated, Any, Literal

import msgspec
import pytest

from tests.testing.driver import NO_WAITING, connect, text_of
from trio_responses import function_tool
from trio_responses.testing import ResponsesServer

pytestmark = NO_WAITING


@dataclass
class Place:
    name: str
    kind: Literal["city", "village"]
    population: int | None
    tags: list[str]


class Tree(msgspec.Struct):
    label: str
    children: "list[Tree]"
    parent: "Tree | None"


class Left(msgspec.Struct, tag="left"):
    left: int


class Right(msgspec.Struct, tag="right"):
    right: str


class Limits(msgspec.Struct):
    digits: Annotated[str, msgspec.Meta(pattern="^[0-9]+$", min_length=3, max_length=5)]
    long: Annotated[str, msgspec.Meta(min_length=20)]
    short: Annotated[str, msgspec.Meta(max_length=2)]
    some: Annotated[list[int], msgspec.Meta(min_length=2, max_length=3)]
    high: Annotated[int, msgspec.Meta(ge=10, multiple_of=7)]
    low: Annotated[int, msgspec.Meta(lt=-3)]
    part: Annotated[float, msgspec.Meta(gt=0, lt=0.5)]


class Times(msgspec.Struct):
    day: dt.date
    moment: dt.datetime
    id: uuid.UUID
    price: Decimal
    data: bytes


class Coded(msgspec.Struct):
    code: Annotated[str, msgspec.Meta(pattern=r"^[A-Z]{2}\d{4}$")]
    triple: tuple[int, str, float]


class Choice(msgspec.Struct):
    side: Left | Right
    words: dict[str, int]
    pair: tuple[int, str]


@pytest.mark.parametrize(
    "kind", [Place, Tree, Limits, Times, Choice, Coded, list[Place], int, str, Left | Right]
)
async def test_parse_works_against_the_default_answers(server: ResponsesServer, kind: Any) -> None:
    async with server.open_client() as connection:
        parsed = await connection.parse(kind, "Tell me about the town of Oslo", model="m")
    assert parsed.response.output_text


async def test_the_texts_are_capitalised_words_of_the_question(server: ResponsesServer) -> None:
    async with server.open_client() as connection:
        place = await connection.parse(Place, "Tell me about Oslo", model="m")
    assert place.parsed == Place("Oslo", "city", 1, ["tags"])


async def test_any_json_is_an_object_with_the_answer(server: ResponsesServer) -> None:
    async with connect(server) as client:
        response = await client.response(input="hi", text={"format": {"type": "json_object"}})
    assert json.loads(text_of(response)) == {"answer": 'Turn 1: you said "hi".'}


async def test_plain_text_stays_plain(server: ResponsesServer) -> None:
    async with connect(server) as client:
        response = await client.response(input="hi", text={"format": {"type": "text"}})
    assert text_of(response) == 'Turn 1: you said "hi".'


async def test_the_answer_after_a_tool_fits_the_schema_too(server: ResponsesServer) -> None:
    @function_tool
    def get_weather(city: str) -> str:
        """Return the weather in a city."""
        return f"snow in {city}"

    async with (
        server.open_client() as connection,
        connection.conversation(model="m", tools=[get_weather]) as conversation,
    ):
        place = await conversation.parse(Place, "How is the weather in Oslo?")
    assert place.parsed.name == "Oslo"
    assert server.last_request.output_of("get_weather") == "snow in Oslo"


def fill(schema: Any) -> Any:
    return {"type": "json_schema", "name": "value", "schema": schema}


CASES: list[tuple[Any, Any]] = [
    ({"allOf": [{"type": "integer"}, {"minimum": 5}]}, 5),
    ({"$ref": "#/$defs/a~1b", "$defs": {"a/b": {"const": None}}}, None),
    ({"type": ["null", "boolean"]}, True),
    ({"enum": [None]}, None),
    ({"type": "array", "prefixItems": [{"type": "null"}], "maxItems": 1}, [None]),
    ({"type": "array", "items": {"$ref": "#"}}, [[[[[[[[[]]]]]]]]]),
    ({"type": "array", "maxItems": 0}, []),
    ({"type": "string", "pattern": "^(?<x>a)"}, "value"),
    ({"type": "number", "exclusiveMinimum": 1, "maximum": 2}, 1.5),
    ({"type": "number", "exclusiveMinimum": 1}, 2),
    ({"type": "integer", "exclusiveMinimum": 1}, 2),
    ({"type": "integer", "exclusiveMaximum": 1}, 0),
    ({"type": "integer", "maximum": -3, "multipleOf": 5}, -5),
    ({"type": "object", "properties": {"a": True}, "required": ["a"]}, {"a": None}),
    ({"type": "object", "required": ["z"], "additionalProperties": {"type": "integer"}}, {"z": 1}),
    (
        {"type": "object", "required": ["x-a"], "patternProperties": {"^x-": {"const": 5}}},
        {"x-a": 5},
    ),
    (
        {
            "type": "object",
            "required": ["a"],
            "properties": {"a": {"const": 3}, "b": {"const": 4}},
            "minProperties": 3,
            "additionalProperties": {"type": "boolean"},
        },
        {"a": 3, "b": 4, "key1": True},
    ),
    (
        {"type": "array", "uniqueItems": True, "minItems": 3, "items": {"type": "integer"}},
        [1, 2, 3],
    ),
    (
        {
            "type": "array",
            "uniqueItems": True,
            "minItems": 3,
            "items": {"$ref": "#/$defs/s"},
            "$defs": {"s": {"type": "string"}},
        },
        ["value", "value2", "value3"],
    ),
    (
        {"type": "array", "uniqueItems": True, "minItems": 2, "items": {"enum": ["a", "b"]}},
        ["a", "b"],
    ),
    ({"type": "array", "uniqueItems": True, "minItems": 2, "items": {"const": 1}}, [1, 1]),
    ({"type": "array", "contains": {"const": 4}}, [4]),
    (
        {
            "type": "array",
            "items": {"anyOf": [{"type": "integer"}, {"type": "boolean"}]},
            "minItems": 2,
            "description": 'order: ["boolean","integer"]',
        },
        [True, 1],
    ),
]
PATTERNS = [
    (r"^[A-Z]{3}-\d{4}$", "AAA-1111"),
    (r"^(?:foo|bar)+\.[^a-z]\w?$", "foo.A"),
    (r"^(?P<sign>\+)?[1-9]\d{1,14}$", "12345"),
    (r"^#[0-9a-fA-F]{6}\b$", "#aaaaaa"),
    (r"\t\/(?=x)x.", "\t/xa"),
    (r"^x{2,}y*?z{0}[\]]$", "xx]"),
    (r"(?i)^QQ$", "QQ"),
    (r"^(?=.*\d)[a-z\d]{8,}$", "value"),  # no text that is tried matches
    (r"^q(", "value"),
    (r"^q[", "value"),
    (r"^q(?#comment)$", "value"),
    (r"^q\p{Lu}$", "value"),
    (r"^q[^\s\S]$", "value"),
    (r"^q\1$", "value"),
    ("(" * 3000 + ")" * 3000 + "q{9}$", "value"),
]


@pytest.mark.parametrize(("pattern", "text"), PATTERNS)
async def test_a_text_matches_its_pattern_if_that_is_a_common_one(
    pattern: str, text: str, server: ResponsesServer
) -> None:
    schema = {"type": "string", "pattern": pattern}
    async with connect(server) as client:
        response = await client.response(input="hi", text={"format": fill(schema)})
    assert json.loads(text_of(response)) == text


async def test_a_text_matches_its_pattern_and_its_length(server: ResponsesServer) -> None:
    schema = {"type": "string", "pattern": "^[q-z]+$", "minLength": 30, "maxLength": 40}
    async with connect(server) as client:
        response = await client.response(input="hi", text={"format": fill(schema)})
    assert json.loads(text_of(response)) == "q" * 30


@pytest.mark.parametrize(("schema", "value"), CASES)
async def test_a_value_fits_its_schema(server: ResponsesServer, schema: Any, value: Any) -> None:
    async with connect(server) as client:
        response = await client.response(input="hi", text={"format": fill(schema)})
    assert json.loads(text_of(response)) == value
