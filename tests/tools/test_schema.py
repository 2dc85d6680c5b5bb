"""Schemas follow the rules of strict mode, and JSON that a schema allows is decoded."""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from decimal import Decimal
from pathlib import Path, PurePosixPath
from typing import (
    Annotated,
    Any,
    Generic,
    Literal,
    NamedTuple,
    NewType,
    NotRequired,
    Optional,
    TypeAlias,
    TypedDict,
    TypeVar,
)
from uuid import UUID

import attrs
import msgspec
import pytest
import typing_extensions as te
from msgspec import UNSET, Meta, UnsetType

from trio_responses import (
    ConfigurationError,
    InvalidJSON,
    JSONType,
    ResponsesError,
    strict_schema,
)
from trio_responses._json_types.json_type import text_format
from trio_responses._json_types.strict_mode import STRICT_KEYWORDS

T = TypeVar("T")


class Colour(enum.Enum):
    """A colour."""

    RED = "red"
    BLUE = "blue"


class Size(enum.IntEnum):
    LARGE = 3
    SMALL = 1


class Point(msgspec.Struct):
    """A place on the map."""

    x: float
    y: float = 0.0


class Circle(msgspec.Struct, tag="circle"):
    centre: Point
    radius: Annotated[float, Meta(gt=0, description="in metres")] = 1.0


class Square(msgspec.Struct, tag="square"):
    side: float
    turned: float = 0.0


class Tree(msgspec.Struct, kw_only=True):
    label: str = "leaf"
    left: Tree | None = None
    more: list[Tree] = []


class Box(msgspec.Struct, Generic[T]):
    content: T


class Row(NamedTuple):
    name: str
    point: Point
    tags: list[str] = []  # noqa: RUF012 - no instance changes it


class Pair(msgspec.Struct, array_like=True):
    first: Point
    second: int = 2


class Add(msgspec.Struct, array_like=True, tag="add"):
    to: Point


class Remove(msgspec.Struct, array_like=True, tag="remove"):
    index: int


class Options(TypedDict, total=False):
    depth: int
    note: str | None


class Query(TypedDict):
    text: str
    options: NotRequired[Options]


@dataclasses.dataclass
class Job:
    when: dt.datetime
    size: Size = Size.SMALL
    points: list[Point] = dataclasses.field(default_factory=list[Point])
    labels: dict[str, int] | None = None


def property_of(annotation: Any) -> Any:
    """Return the strict schema of a type that is no object, without the wrapper object."""
    schema = strict_schema(annotation)
    assert schema.strict, schema.reason
    return schema.schema["properties"]["value"]


def nodes(schema: Any) -> list[dict[str, Any]]:
    inner = [
        *schema.get("properties", {}).values(),
        *schema.get("$defs", {}).values(),
        *schema.get("anyOf", ()),
        *([schema["items"]] if "items" in schema else ()),
    ]
    return [schema, *(node for each in inner for node in nodes(each))]


STRICT_TYPES: list[Any] = [
    *[Point, Circle, Square, Tree, Box[int], Query, Options, Colour, Size, Row, Pair, Add],
    *[int, float, str, bool, None, bytes, dt.datetime, dt.date, dt.time],
    *[dt.timedelta, UUID, Decimal, list[int], set[str], frozenset[int], tuple[int, ...]],
    *[tuple[int, str], tuple[int, int], Circle | Square, Circle | Square | None, int | str],
    *[Point | None, Literal["a", 1] | None, Literal["only"], Add | Remove, list[Tree]],
    *[Annotated[Point, Meta(description="here")], Annotated[str, Meta(min_length=1)]],
    *[Annotated[list[int], Meta(min_length=1, max_length=3)], int | UnsetType],
]


@pytest.mark.parametrize("annotation", STRICT_TYPES, ids=str)
def test_a_strict_schema_follows_every_rule_of_strict_mode(annotation: Any) -> None:
    schema = strict_schema(annotation)
    assert (schema.strict, schema.reason) == (True, None)
    assert schema.schema["type"] == "object"
    for node in nodes(schema.schema):
        assert set(node) - {"$defs"} <= STRICT_KEYWORDS
        assert len({"type", "anyOf", "$ref"} & set(node)) == 1
        if "$ref" in node:
            assert set(node) == {"$ref"}
            assert node["$ref"].removeprefix("#/$defs/") in schema.schema["$defs"]
        if node.get("type") == "object":
            assert node["required"] == list(node["properties"])
            assert node["additionalProperties"] is False
        if node.get("type") == "array":
            assert node["items"]


def test_an_object_type_is_the_root_of_its_schema() -> None:
    assert strict_schema(Point).schema == {
        "type": "object",
        "description": "A place on the map.",
        "properties": {
            "x": {"type": "number"},
            "y": {"anyOf": [{"type": "number"}, {"type": "null"}], "description": "default: 0.0"},
        },
        "required": ["x", "y"],
        "additionalProperties": False,
    }


def test_a_type_that_is_no_object_is_wrapped_under_the_key_value() -> None:
    assert strict_schema(list[int]).schema == {
        "type": "object",
        "properties": {"value": {"type": "array", "items": {"type": "integer"}}},
        "required": ["value"],
        "additionalProperties": False,
    }


@pytest.mark.parametrize(
    ("annotation", "expected"),
    [
        (dt.datetime, {"type": "string", "format": "date-time"}),
        (dt.date, {"type": "string", "format": "date"}),
        (dt.time, {"type": "string", "format": "time"}),
        (dt.timedelta, {"type": "string", "format": "duration"}),
        (UUID, {"type": "string", "format": "uuid"}),
        (Decimal, {"type": "string", "description": 'format: "decimal"'}),
        (bytes, {"type": "string", "description": 'contentEncoding: "base64"'}),
        (
            Annotated[dt.datetime, Meta(tz=False)],
            {"type": "string", "description": 'format: "date-time-local"'},
        ),
        (
            Annotated[dt.time, Meta(tz=False)],
            {"type": "string", "description": 'format: "time-local"'},
        ),
        (Annotated[dt.datetime, Meta(tz=True)], {"type": "string", "format": "date-time"}),
        (
            Annotated[int, Meta(ge=1, le=9, multiple_of=2)],
            {"type": "integer", "minimum": 1, "maximum": 9, "multipleOf": 2},
        ),
        (
            Annotated[float, Meta(gt=1, lt=9)],
            {"type": "number", "exclusiveMinimum": 1, "exclusiveMaximum": 9},
        ),
        (Annotated[str, Meta(pattern="^a+$")], {"type": "string", "pattern": "^a+$"}),
        (
            Annotated[str, Meta(pattern="^(?!b)", max_length=3, title="T", description="Not b")],
            {"type": "string", "description": 'Not b (maxLength: 3, pattern: "^(?!b)")'},
        ),
        (
            Annotated[set[int], Meta(min_length=1, max_length=2)],
            {
                "type": "array",
                "items": {"type": "integer"},
                "minItems": 1,
                "maxItems": 2,
                "description": "uniqueItems: true",
            },
        ),
        (
            Annotated[Annotated[str, Meta(description="inner")], Meta(description="outer")],
            {"type": "string", "description": "outer"},
        ),
        (
            Annotated[str, Meta(extra_json_schema={"format": "email"})],
            {"type": "string", "format": "email"},
        ),
        (Colour, {"type": "string", "enum": ["red", "blue"], "description": "A colour."}),
        (Size, {"type": "integer", "enum": [3, 1]}),
        (Literal["only"], {"type": "string", "enum": ["only"]}),
        (Literal[True], {"type": "boolean", "enum": [True]}),
        (Literal[None], {"type": "null"}),  # noqa: PYI061 - the case
        (
            Literal[True, 1, None, "a"],  # noqa: PYI061 - the case
            {
                "anyOf": [
                    {"type": "boolean", "enum": [True]},
                    {"type": "integer", "enum": [1]},
                    {"type": "string", "enum": ["a"]},
                    {"type": "null"},
                ]
            },
        ),
        (
            Literal[False] | str,
            {"anyOf": [{"type": "boolean", "enum": [False]}, {"type": "string"}]},
        ),
        (
            Literal["a", 1] | None,
            {
                "anyOf": [
                    {"type": "integer", "enum": [1]},
                    {"type": "string", "enum": ["a"]},
                    {"type": "null"},
                ]
            },
        ),
        (None | int, {"anyOf": [{"type": "integer"}, {"type": "null"}]}),
        (
            tuple[int, int],
            {"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 2},
        ),
        (
            tuple[int, str],
            {
                "type": "array",
                "items": {"anyOf": [{"type": "integer"}, {"type": "string"}]},
                "minItems": 2,
                "maxItems": 2,
                "description": 'order: ["integer","string"]',
            },
        ),
    ],
    ids=str,
)
def test_each_type_has_its_strict_schema(annotation: Any, expected: Any) -> None:
    assert property_of(annotation) == expected


def test_the_description_of_a_positional_type_lists_its_fields_in_order() -> None:
    row = property_of(Row)
    assert (row["minItems"], row["maxItems"]) == (2, 3)
    assert row["description"] == 'order: ["name","point","tags"]'
    assert property_of(Add)["description"] == 'order: ["type","to"]'
    assert (property_of(Add)["minItems"], property_of(Add)["maxItems"]) == (2, 2)
    assert property_of(Add)["items"]["anyOf"][0] == {"type": "string", "enum": ["add"]}
    assert property_of(tuple[Point, int, int | None])["description"] == (
        'order: ["Point","integer","one of several"]'
    )


def test_a_reference_with_a_description_is_written_inside_any_of() -> None:
    described = property_of(list[Annotated[Point, Meta(description="here")]])
    maybe = property_of(list[Optional[Annotated[Point, Meta(description="here")]]])  # noqa: UP045
    assert maybe["items"] == {"anyOf": [described["items"], {"type": "null"}]}
    assert described["items"] == {"anyOf": [{"$ref": "#/$defs/Point"}], "description": "here"}


def test_a_description_of_the_root_is_written_at_the_root() -> None:
    described = strict_schema(Annotated[Point, Meta(description="here")]).schema
    assert described == {**strict_schema(Point).schema, "description": "here"}


def test_the_properties_of_a_typed_dict_have_the_order_of_the_class() -> None:
    class Unordered(TypedDict):
        z: int
        a: int

    class More(Unordered):
        m: int

    assert list(strict_schema(More).schema["properties"]) == ["z", "a", "m"]


def test_a_recursive_type_refers_to_itself() -> None:
    schema = strict_schema(Tree).schema
    assert schema["properties"]["left"] == {
        "anyOf": [{"$ref": "#/$defs/Tree"}, {"type": "null"}],
    }
    assert schema["$defs"]["Tree"]["properties"] == schema["properties"]


def test_types_with_the_same_name_have_separate_definitions() -> None:
    first, second = (msgspec.defstruct("Same", [(name, int)]) for name in "ab")
    both = msgspec.defstruct("Both", [("one", first), ("two", second), ("box", Box[int])])
    definitions = strict_schema(both).schema["$defs"]
    assert list(definitions) == ["Same", "Same_2", "Box_int"]
    assert list(definitions["Same_2"]["properties"]) == ["b"]


@pytest.mark.parametrize(
    ("annotation", "reason"),
    [
        (dict[str, int], "schema: an object with arbitrary keys"),
        (dict[str, Any], "schema: an object with arbitrary keys"),
        (Job, "schema.labels: an object with arbitrary keys"),
        (Any, "schema.value: a value of any type"),
        (msgspec.Raw, "schema.value: a value of any type"),
        (list, "schema.value[]: a value of any type"),
        (list[dict[str, int]], "schema.value[]: an object with arbitrary keys"),
        (tuple[()], "schema.value: an array that is always empty"),
        (tuple[int, Any], "schema.value[1]: a value of any type"),
        (Box[Any], "schema.content: a value of any type"),
    ],
    ids=str,
)
def test_the_reason_names_the_place_that_strict_mode_cannot_express(
    annotation: Any, reason: str
) -> None:
    schema = strict_schema(annotation)
    assert (schema.strict, schema.reason) == (False, reason)
    assert schema.schema["type"] == "object"
    with pytest.raises(ConfigurationError, match="strict mode cannot express this type: schema"):
        JSONType(annotation, strict=True)


def test_a_full_schema_keeps_all_keywords() -> None:
    schema = JSONType(Job, strict=False).schema
    assert schema.reason == "schema.labels: an object with arbitrary keys"
    assert schema.schema["required"] == ["when"]
    assert "additionalProperties" not in schema.schema
    assert schema.schema["properties"]["size"] == {
        "type": "integer",
        "enum": [3, 1],
        "default": 1,
    }
    assert schema.schema["properties"]["labels"]["default"] is None
    keys = strict_schema(dict[Annotated[str, Meta(pattern="^a")], int]).schema
    assert keys == {
        "type": "object",
        "propertyNames": {"pattern": "^a"},
        "additionalProperties": {"type": "integer"},
    }
    row = JSONType(Row, strict=False).schema
    assert row.reason == "strict=False was given"
    assert len(row.schema["properties"]["value"]["prefixItems"]) == 3


def test_the_full_schema_of_a_struct_that_forbids_unknown_fields_is_closed() -> None:
    closed = msgspec.defstruct("Closed", [("a", int)], forbid_unknown_fields=True)
    assert JSONType(closed, strict=False).schema.schema["additionalProperties"] is False


def test_a_default_that_is_no_finite_number_is_left_out() -> None:
    kind = msgspec.defstruct(
        "Kind", [("a", float, float("nan")), ("b", tuple[float, ...], (1e999,))]
    )
    for strict in (None, False):
        schema = JSONType(kind, strict=strict).schema.schema["properties"]
        assert "default" not in str(schema)


def test_a_default_that_json_cannot_express_is_left_out() -> None:
    odd = msgspec.defstruct("Odd", [("a", int, object()), ("b", dict[str, int] | None, {})])
    schema = JSONType(odd, strict=False).schema.schema["properties"]
    assert "default" not in schema["a"]
    assert schema["b"]["default"] == {}


class Opaque: ...


class Switch(enum.Enum):
    ON = True
    OFF = False


class Several(enum.Enum):
    A = "a"
    B = 1


class NothingKnown(enum.Enum):
    UNKNOWN = None


UNRESOLVED = msgspec.defstruct("Unresolved", [("a", "Nowhere")])


@pytest.mark.parametrize(
    ("annotation", "message"),
    [
        (Opaque, "answer: the type Opaque has no JSON schema"),
        (Box[Opaque], "answer.content: the type Opaque has no JSON schema"),
        (Callable[[], int], "answer: the type Callable has no JSON schema"),
        (msgspec.msgpack.Ext, "answer: the type ExtType has no JSON schema"),
        (list[int] | set[int], "answer: the type has no JSON schema: Type unions may not"),
        (UNRESOLVED, "answer: the type has no JSON schema: name 'Nowhere'"),
        (Literal[b"x"], "answer: the type has no JSON schema: Literal may only contain None/"),
        (
            Literal[Colour.RED],
            "answer: the type has no JSON schema: Literal may only contain None/",
        ),
        (Literal[2**70], "answer: the type has no JSON schema: Integer values > "),
        (Switch, "answer: the type has no JSON schema: Enums must contain either all str or all"),
        (Several, "answer: the type has no JSON schema: Enums must contain either all str or all"),
        (NothingKnown, "answer: the type has no JSON schema: Enums must contain either all str"),
        (Box[Literal[b"x"]], "answer: the type has no JSON schema: Literal may only contain None/"),
    ],
    ids=str,
)
def test_a_type_without_a_json_schema_is_rejected_with_its_place(
    annotation: Any, message: str
) -> None:
    with pytest.raises(ConfigurationError) as refusal:
        JSONType(annotation, place="answer")
    assert str(refusal.value).startswith(message)


def flat(count: int) -> Any:
    return msgspec.defstruct("Flat", [(f"field_{n}", int) for n in range(count)])


def nested(depth: int) -> Any:
    inner: Any = int
    for level in range(depth):
        inner = msgspec.defstruct(f"Level{level}", [("inner", inner)])
    return inner


@pytest.mark.parametrize(
    ("fits", "too_large", "reason"),
    [
        (flat(5_000), flat(5_001), "schema: 5001 properties, but strict mode allows at most 5000"),
        (nested(10), nested(11), "schema: 11 levels of objects, but strict mode allows at most 10"),
        (
            Literal[tuple(range(1_000))],
            Literal[tuple(range(1_001))],
            "schema: 1001 values of enumerations, but strict mode allows at most 1000",
        ),
        (
            Literal[tuple(f"{n:060}" for n in range(250))],
            Literal[tuple(f"{n:060}" for n in range(251))],
            "schema: 15060 characters in one enumeration, but strict mode allows at most 15000",
        ),
        (
            msgspec.defstruct("Wordy", [("a" * 120_000, int)]),
            msgspec.defstruct("Wordy", [("a" * 120_001, int)]),
            "schema: 120001 characters of names and values, but strict mode allows at most 120000",
        ),
    ],
    ids=["properties", "levels", "values", "enumeration", "characters"],
)
def test_a_type_over_a_limit_of_strict_mode_has_no_strict_schema(
    fits: Any, too_large: Any, reason: str
) -> None:
    assert strict_schema(fits).strict
    assert strict_schema(too_large).reason == reason


# --- Decoding ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("annotation", "json", "expected"),
    [
        (Point, '{"x": 1, "y": null}', Point(1.0, 0.0)),
        (Point, b'{"x": 1, "y": null}', Point(1.0, 0.0)),
        (Point, '{"x": 1.5}', Point(1.5)),
        (list[int], '{"value": [1, 2]}', [1, 2]),
        (int | None, '{"value": null}', None),
        (Literal["a", 1] | None, '{"value": null}', None),
        (Colour, '{"value": "red"}', Colour.RED),
        (
            Circle | Square,
            '{"value": {"type": "circle", "centre": {"x": 1, "y": null}, "radius": null}}',
            Circle(Point(1.0)),
        ),
        (
            Circle | Square | None,
            '{"value": {"type": "square", "side": 1, "turned": null}}',
            Square(1.0),
        ),
        (
            Tree,
            '{"label": null, "left": {"label": null, "left": null, "more": null}, "more": []}',
            Tree(left=Tree()),
        ),
        (
            Query,
            '{"text": "a", "options": {"depth": null, "note": null}}',
            {"text": "a", "options": {"note": None}},
        ),
        (Query, '{"text": "a", "options": null}', {"text": "a"}),
        (
            Job,
            '{"when": "2026-01-01T00:00:00", "size": null, "points": [{"x": 1, "y": null}]}',
            Job(dt.datetime(2026, 1, 1), points=[Point(1)]),  # noqa: DTZ001
        ),
        (dict[str, Point], '{"a": {"x": 1, "y": null}}', {"a": Point(1.0)}),
        (tuple[Point, int], '{"value": [{"x": 1, "y": null}, 2]}', (Point(1.0), 2)),
        (Row, '{"value": ["a", {"x": 1, "y": null}]}', Row("a", Point(1.0))),
        (Pair, '{"value": [{"x": 1, "y": null}]}', Pair(Point(1.0))),
        (Add | Remove, '{"value": ["add", {"x": 1, "y": null}]}', Add(Point(1.0))),
        (
            list[Annotated[Point, Meta(description="here")]],
            '{"value": [{"x": 1, "y": null}]}',
            [Point(1.0)],
        ),
        (list[Any], '{"value": [null, {"a": null}]}', [None, {"a": None}]),
    ],
    ids=str,
)
def test_null_decodes_to_the_default(annotation: Any, json: str, expected: Any) -> None:
    assert JSONType(annotation).decode(json) == expected


class Given(msgspec.Struct, tag=True):
    x: int | None
    y: int = 1


class Left(msgspec.Struct, tag=True):
    x: int = 2


class Loose(msgspec.Struct):
    x: int | None
    y: int = 1


class LooseRow(msgspec.Struct, tag=True, array_like=True):
    one: Loose


class TightRow(msgspec.Struct, tag=True, array_like=True):
    one: Tight


class Tight(msgspec.Struct):
    x: int = 2


@pytest.mark.parametrize(
    ("json", "expected"),
    [
        ('{"type": "Given", "x": null, "y": null}', Given(None)),
        ('{"type": "Left", "x": null}', Left()),
        ('["LooseRow", {"x": null, "y": null}]', LooseRow(Loose(None))),
        ('["TightRow", {"x": null}]', TightRow(Tight())),
    ],
)
def test_the_tag_decides_whether_null_means_the_default(json: str, expected: Any) -> None:
    either = Given | Left if json[0] == "{" else LooseRow | TightRow
    assert JSONType[Any](either).decode(f'{{"value": {json}}}') == expected


def test_null_for_an_unset_field_leaves_it_unset() -> None:
    maybe = msgspec.defstruct("Maybe", [("a", int | UnsetType, UNSET)])
    assert JSONType(maybe).decode('{"a": null}') == maybe()


def test_numbers_keep_every_digit_when_null_is_removed() -> None:
    precise = msgspec.defstruct("Precise", [("a", Decimal), ("b", int), ("c", int, 3)])
    digits = "1.00000000000000000000000000000000001"
    whole = "123456789012345678901234567890"
    value = JSONType(precise).decode(f'{{"a": {digits}, "b": {whole}, "c": null}}')
    assert value == precise(Decimal(digits), int(whole), 3)


@pytest.mark.parametrize(
    ("json", "message", "place"),
    [
        ("{", "Input data was truncated", None),
        ('{"y": null}', "Object missing required field `x`", None),
        ('{"x": "1"}', "Expected `float`, got `str` at `$.x`", "$.x"),
        ('{"x": null}', "Expected `float`, got `null` at `$.x`", "$.x"),
        ('{"x": 1, "y": "null"}', "Expected `float`, got `str` at `$.y`", "$.y"),
        ("[null]", "Expected `object`, got `array`", None),
        ('"\ud800"', "Expected `object`, got `str`", None),
        (b'{"x": "\xff", "y": null}', "the text is not valid JSON", None),
        ('{"x": 1e400}', "Number out of range at `$.x`", "$.x"),
        ('{"x": 1e99999999999999999999, "y": null}', "the text is not valid JSON", None),
        ('{"x": ' + "[" * 100_000 + ', "y": null}', "the JSON nests too deeply", None),
    ],
    ids=range(11),
)
def test_invalid_json_is_rejected_with_a_message_and_its_place(
    json: str | bytes, message: str, place: str | None
) -> None:
    with pytest.raises(InvalidJSON) as refusal:
        JSONType(Point).decode(json)
    assert (refusal.value.message, refusal.value.place) == (message, place)
    assert isinstance(refusal.value, ResponsesError)
    assert isinstance(refusal.value, ValueError)


@pytest.mark.parametrize(
    ("json", "text"),
    [
        ('{"value": "a\\ud83d"}', "a\ufffd"),
        (b'{"value": "a\\uDE00\\ud83dz"}', "a\ufffd\ufffdz"),
        ('{"value": "\\ud83d\\ude00\\ud83d"}', "\U0001f600\ufffd"),
        ('{"value": "\\\\ud83d"}', "\\ud83d"),
        ('{"value": "\ud83d"}', "\ufffd"),
        ('{"value": "\ud83d\ude00"}', "\U0001f600"),
        ('{"value": "\ud83d\\ud83d"}', "\ufffd\ufffd"),
    ],
    ids=range(7),
)
def test_half_a_surrogate_pair_becomes_a_replacement_character(
    json: str | bytes, text: str
) -> None:
    assert JSONType(str).decode(json) == text


def test_the_error_after_half_a_surrogate_pair_has_its_place() -> None:
    with pytest.raises(InvalidJSON) as refusal:
        JSONType(Point).decode('{"x": "\\ud83d"}')
    assert refusal.value.message == "Expected `float`, got `str` at `$.x`"


def test_a_literal_of_booleans_is_decoded_by_its_json_type() -> None:
    kind = JSONType[Any](Literal[True, 0])
    assert [kind.decode(f'{{"value": {value}}}') for value in ("true", "0")] == [True, 0]
    for wrong in ("false", "1", '"true"'):
        with pytest.raises(InvalidJSON):
            kind.decode(f'{{"value": {wrong}}}')


def test_the_text_of_an_error_does_not_quote_the_json() -> None:
    with pytest.raises(InvalidJSON) as refusal:
        JSONType(Colour).decode('{"value": "secret"}')
    assert "secret" in refusal.value.message
    assert (
        str(refusal.value)
        == "the JSON does not match its type at $.value: see the attribute message"
    )


# --- Types that msgspec does not know by itself ---------------------------------------------


@attrs.define
class Box3:
    """A box."""

    width: int
    labels: list[str] = attrs.field(factory=list[str])


class Folder(msgspec.Struct):
    path: Path
    log: PurePosixPath = PurePosixPath("log")


class Settings(te.TypedDict):
    """Some settings."""

    name: te.ReadOnly[str]
    size: te.NotRequired[te.ReadOnly[Annotated[int, Meta(ge=0)]]]
    path: te.Required[Path]


Names = te.TypeAliasType("Names", list[str])
Rows = te.TypeAliasType("Rows", list[T], type_params=(T,))
Number = NewType("Number", int)


@pytest.mark.parametrize(
    ("annotation", "text", "expected"),
    [
        (Path, '"a/b"', Path("a/b")),
        (Path | None, "null", None),
        (list[PurePosixPath], '["a"]', [PurePosixPath("a")]),
        (Iterable[int], "[1]", [1]),
        (Iterable, '[1, "a"]', [1, "a"]),
        (Sequence[Point], '[{"x": 1, "y": null}]', [Point(1.0)]),
        (AbstractSet[int], "[1]", {1}),
        (dict[str, Iterable[Path]] | None, "null", None),
        (Annotated[Iterable[int], Meta(max_length=1)], "[1]", [1]),
        (Names, '["a"]', ["a"]),
        (Rows[int], "[1]", [1]),
        (list[Names | None], '[["a"], null]', [["a"], None]),
        (Number, "1", 1),
    ],
    ids=str,
)
def test_more_types_are_decoded(annotation: Any, text: str, expected: Any) -> None:
    assert JSONType[Any](annotation).decode(f'{{"value": {text}}}') == expected


@pytest.mark.parametrize(
    ("annotation", "text", "expected"),
    [
        (Mapping[str, Path], '{"a": "b"}', {"a": Path("b")}),
        (Box3, '{"width": 1, "labels": null}', Box3(1)),
        (Folder, '{"path": "a", "log": null}', Folder(Path("a"))),
        (Settings, '{"name": "a", "size": null, "path": "b"}', {"name": "a", "path": Path("b")}),
        (Settings, '{"name": "a", "path": "b"}', {"name": "a", "path": Path("b")}),
    ],
    ids=str,
)
def test_more_objects_are_decoded(annotation: Any, text: str, expected: Any) -> None:
    assert JSONType[Any](annotation).decode(text) == expected


def test_more_types_have_schemas() -> None:
    assert property_of(Path) == {"type": "string", "description": 'format: "path"'}
    assert property_of(Iterable[int]) == property_of(list[int])
    assert strict_schema(Box3).schema["description"] == "A box."
    assert strict_schema(Folder).schema["properties"]["log"]["description"] == (
        'format: "path" (default: "log")'
    )
    settings = strict_schema(Settings).schema
    assert settings["description"] == "Some settings."
    assert list(settings["properties"]) == ["name", "size", "path"]
    assert JSONType[Any](Settings, strict=False).schema.schema["required"] == ["name", "path"]
    assert settings["properties"]["size"]["anyOf"][0] == {"type": "integer", "minimum": 0}


def test_a_path_that_is_no_text_is_rejected() -> None:
    with pytest.raises(InvalidJSON) as refusal:
        JSONType(list[Path]).decode('{"value": ["a", 1]}')
    assert refusal.value.message == "Expected `str`, got `int` at `$.value[1]`"


class TypeAliasType:
    """Like ``type Endless = list[Endless]``, whose value is evaluated when it is asked for."""

    @property
    def __value__(self) -> Any:
        return list[self]  # type: ignore[valid-type]

    def __repr__(self) -> str:
        return "Endless"


def test_an_alias_that_refers_to_itself_is_rejected() -> None:
    with pytest.raises(ConfigurationError, match=r"^answer: Endless refers to itself: use a class"):
        JSONType[Any](TypeAliasType(), place="answer")


class Circular(msgspec.Struct):
    radius: float


@dataclasses.dataclass
class Rectangular:
    width: float
    height: float = 1.0


@attrs.define
class Cubic:
    width: float
    depth: list[float]


class Left1(TypedDict):
    side: Literal["left"]
    distance: int


class Right1(msgspec.Struct):
    side: Literal["right"]
    distance: int = 3


@dataclasses.dataclass
class Flat:
    length: int
    kind: Literal["flat"] = "flat"


Shape: TypeAlias = Circular | Rectangular | Cubic


@pytest.mark.parametrize(
    ("annotation", "text", "expected"),
    [
        (Shape, '{"radius": 1}', Circular(1.0)),
        (Shape, '{"width": 1, "height": null}', Rectangular(1.0)),
        (Shape, '{"width": 1, "depth": [2]}', Cubic(1.0, [2.0])),
        (Shape, '{"width": 1, "depth": [2], "height": 1}', Cubic(1.0, [2.0])),
        (Shape | None, "null", None),
        (Shape | int | str, "3", 3),
        (Shape | int | str, '"a"', "a"),
        (
            list[Left1 | Right1],
            '[{"side": "left", "distance": 1}]',
            [{"side": "left", "distance": 1}],
        ),
        (list[Left1 | Right1], '[{"side": "right", "distance": null}]', [Right1("right")]),
        (dict[str, Shape], '{"a": {"radius": 1}}', {"a": Circular(1.0)}),
        (Shape | Flat, '{"length": 1, "kind": null}', Flat(1)),
    ],
    ids=str,
)
def test_the_keys_of_an_object_tell_the_classes_of_a_union_apart(
    annotation: Any, text: str, expected: Any
) -> None:
    kind = JSONType[Any](annotation)
    assert kind.decode(f'{{"value": {text}}}' if kind.wrapped else text) == expected


def test_a_union_of_classes_has_the_schemas_of_all() -> None:
    schema = strict_schema(Left1 | Right1 | None).schema
    assert schema["properties"]["value"] == {
        "anyOf": [{"$ref": "#/$defs/Left1"}, {"$ref": "#/$defs/Right1"}, {"type": "null"}]
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            '[{"depth": [1]}]',
            (
                "Object matches no type: it needs the fields `radius` of `Circular` or `width` of"
                " `Rectangular` or `width`, `depth` of `Cubic` at `$.value[0]`"
            ),
        ),
        ('[{"radius": "a"}]', "Expected `float`, got `str` at `$.value[0].radius`"),
        ('[{"width": 1, "depth": ["a"]}]', "Expected `float`, got `str` at `$.value[0].depth[0]`"),
        ("[3]", "Expected `object`, got `int` at `$.value[0]`"),
    ],
)
def test_an_object_that_matches_no_class_of_a_union_is_rejected(text: str, message: str) -> None:
    with pytest.raises(InvalidJSON) as refusal:
        JSONType[Any](list[Shape]).decode(f'{{"value": {text}}}')
    assert refusal.value.message == message


class UnknownKeys(TypedDict):
    key: "Nowhere"  # type: ignore[name-defined]  # noqa: F821, UP037


class ColouredCircular(msgspec.Struct):
    radius: float
    colour: str


class OtherCircular(msgspec.Struct):
    radius: float
    colour: str = "red"


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        (Circular | OtherCircular, "Circular and OtherCircular cannot be told apart in a union"),
        (list[Circular | OtherCircular], "make them tagged Structs"),
        (Circular | dict[str, int], "use one of the types, tagged Structs"),
        (str | dt.date, "use one of the types, tagged Structs"),
        (Path | int, "use one of the types, tagged Structs"),
        (OtherCircular | ColouredCircular, "cannot be told apart"),
        (Circular | UNRESOLVED, "name 'Nowhere'"),
        (UNRESOLVED | None, "name 'Nowhere'"),
        (list[UnknownKeys], "name 'Nowhere'"),
    ],
    ids=str,
)
def test_a_union_that_cannot_be_decoded_is_rejected_with_what_to_use(
    annotation: Any, words: str
) -> None:
    with pytest.raises(ConfigurationError) as refusal:
        JSONType[Any](annotation, place="answer")
    assert str(refusal.value).startswith("answer: ")
    assert words in str(refusal.value)


# --- Answers -------------------------------------------------------------------------------


def test_a_typed_answer_has_a_text_format_and_a_decoder() -> None:
    text, answer = text_format(Point, description="a point")
    assert text == {
        "type": "json_schema",
        "name": "Point",
        "description": "a point",
        "schema": strict_schema(Point).schema,
        "strict": True,
    }
    assert answer.decode('{"x": 1, "y": 2}') == Point(1.0, 2.0)
    assert repr(answer) == "<JSONType strict>"


@pytest.mark.parametrize(
    ("annotation", "name"),
    [(list[int], "list"), (int | str, "answer"), (flat(1), "Flat"), (Box[int], "Box")],
)
def test_a_text_format_has_the_name_of_its_type(annotation: Any, name: str) -> None:
    assert text_format(annotation)[0]["name"] == name


def test_the_name_of_a_text_format_is_reduced_to_the_characters_of_the_api() -> None:
    assert text_format(int, name="my answer: é" + "x" * 100)[0]["name"] == ("my_answer_" + "x" * 54)


def test_an_answer_with_arbitrary_keys_is_not_strict() -> None:
    text, answer = text_format(dict[str, int])
    assert text["strict"] is False
    assert answer.decode('{"a": 1}') == {"a": 1}
    assert repr(answer) == "<JSONType not strict>"
    with pytest.raises(ConfigurationError, match="answer: an object with arbitrary keys"):
        text_format(dict[str, int], strict=True)
