"""Types of pydantic work as answers, as parameters of tools and as results of tools."""

from __future__ import annotations

import dataclasses
import json
import sys
import traceback
from collections.abc import Callable
from pathlib import Path  # noqa: TC003 - read at run time
from types import ModuleType
from typing import Annotated, Any, Literal, NamedTuple, NewType

import annotated_types
import attrs
import msgspec
import pydantic.v1
import pytest
from pydantic import BaseModel, ConfigDict, Field, RootModel, TypeAdapter, field_validator
from pydantic.dataclasses import dataclass as pydantic_dataclass

from trio_responses import (
    ConfigurationError,
    FunctionTool,
    InvalidArguments,
    InvalidJSON,
    JSONType,
    strict_schema,
)
from trio_responses._json_types.json_type import text_format
from trio_responses._json_types.null_defaults import admits_null
from trio_responses._tools.function import InvalidResult, encode_output


class Point(BaseModel):
    """A place on the map."""

    x: int = Field(ge=0, description="to the east")
    y: int = 0


class Path_(BaseModel):  # noqa: N801 - not that of pathlib
    points: list[Point]
    name: str | None = None
    closed: bool = True


class Tree(BaseModel):
    label: str
    children: list[Tree] = []


class Cat(BaseModel):
    kind: Literal["cat"]
    lives: int = 9


class Dog(BaseModel):
    kind: Literal["dog"]
    name: str | None = None
    lives: int | None = None


class Even(BaseModel):
    number: int

    @field_validator("number")
    @classmethod
    def _check(cls, number: int) -> int:
        if number % 2:
            raise ValueError("the number must be even")
        if number < 0:
            raise RuntimeError("broken")
        return number


class Renamed(BaseModel):
    from_: int = Field(1, alias="from")


@pydantic_dataclass
class Job:
    title: str
    size: int = Field(3, gt=0)


@dataclasses.dataclass
class Trip:
    stops: list[Point]
    nights: Annotated[int, Field(ge=1)] = 1


class Span(NamedTuple):
    start: Point
    end: int


class Struct(msgspec.Struct):
    n: int


# --- Schemas ---


def test_a_model_has_a_strict_schema() -> None:
    assert strict_schema(Path_).schema == {
        "type": "object",
        "properties": {
            "points": {"type": "array", "items": {"$ref": "#/$defs/Point"}},
            "name": {"anyOf": [{"type": "string"}, {"type": "null"}]},
            "closed": {
                "anyOf": [{"type": "boolean"}, {"type": "null"}],
                "description": "default: true",
            },
        },
        "required": ["points", "name", "closed"],
        "additionalProperties": False,
        "$defs": {
            "Point": {
                "type": "object",
                "description": "A place on the map.",
                "properties": {
                    "x": {"type": "integer", "minimum": 0, "description": "to the east"},
                    "y": {
                        "anyOf": [{"type": "integer"}, {"type": "null"}],
                        "description": "default: 0",
                    },
                },
                "required": ["x", "y"],
                "additionalProperties": False,
            }
        },
    }


def test_the_full_schema_of_a_model_has_no_titles() -> None:
    full = JSONType(Path_, strict=False).schema.schema
    assert full["required"] == ["points"]
    assert full["properties"]["closed"] == {"type": "boolean", "default": True}
    assert "title" not in str(full)


@pytest.mark.parametrize(
    ("annotation", "expected"),
    [
        (Annotated[int, Field(gt=0, multiple_of=2)], {"exclusiveMinimum": 0, "multipleOf": 2}),
        (Annotated[int, annotated_types.Interval(ge=1, le=3)], {"minimum": 1, "maximum": 3}),
        (Annotated[int, Field(description="how many", title="T")], {"description": "how many"}),
        (
            Annotated[int, Field(examples=[4], json_schema_extra={"note": "n"})],
            {"description": 'examples: [4], note: "n"'},
        ),
    ],
    ids=str,
)
def test_metadata_of_pydantic_is_in_the_schema(annotation: Any, expected: dict[str, Any]) -> None:
    schema = strict_schema(annotation).schema["properties"]["value"]
    assert schema == {"type": "integer", **expected}


def test_a_description_of_the_root_is_written_at_the_root() -> None:
    described = strict_schema(Annotated[Point, msgspec.Meta(description="here")]).schema
    assert described == {**strict_schema(Point).schema, "description": "here"}


def test_a_reference_of_earlier_versions_is_a_reference() -> None:
    extra: Any = {"allOf": [{"type": "integer", "minimum": 1}]}
    model = pydantic.create_model("Model", a=(Annotated[Any, Field(json_schema_extra=extra)], ...))
    assert strict_schema(model).schema["properties"]["a"] == {"type": "integer", "minimum": 1}


def test_the_names_of_a_named_tuple_are_its_order() -> None:
    span = strict_schema(TypeAdapter(Span)).schema["properties"]["value"]
    assert span["description"] == 'order: ["start","end"]'


def test_a_recursive_model_refers_to_itself() -> None:
    schema = strict_schema(Tree).schema
    assert schema["type"] == "object"
    assert schema["$defs"]["Tree"]["properties"] == schema["properties"]
    assert JSONType(Tree).decode(
        '{"label": "a", "children": [{"label": "b", "children": null}]}'
    ) == (Tree(label="a", children=[Tree(label="b")]))


def clear(schema: dict[str, Any]) -> None:
    schema.clear()


@pytest.mark.parametrize(
    ("annotation", "reason"),
    [
        (dict[str, Point], "schema: an object with arbitrary keys"),
        (
            pydantic.create_model("Open", __config__=ConfigDict(extra="allow"), a=(int, ...)),
            "schema: an object with arbitrary keys",
        ),
        (
            pydantic.create_model("Some", a=(list[Any], ...)),
            "schema.a[]: a value of any type",
        ),
        (
            pydantic.create_model("Odd", a=(Annotated[int, Field(json_schema_extra=clear)], 1)),
            "schema.a: a value of any type",
        ),
        (
            Annotated[int, Field(json_schema_extra={"enum": [[1]]})],
            "schema.value: an enumeration of arrays or objects",
        ),
    ],
    ids=str,
)
def test_a_type_that_strict_mode_cannot_express_is_not_strict(annotation: Any, reason: str) -> None:
    schema = strict_schema(annotation)
    assert (schema.strict, schema.reason) == (False, reason)


@pytest.mark.parametrize(
    ("annotation", "name"),
    [(Point, "Point"), (TypeAdapter(Point), "Point"), (TypeAdapter(list[Point]), "answer")],
)
def test_an_answer_has_the_name_of_its_model(annotation: Any, name: str) -> None:
    assert text_format(annotation)[0]["name"] == name


def test_a_tagged_union_lists_its_models() -> None:
    tagged = TypeAdapter(Annotated[Cat | Dog, Field(discriminator="kind")])
    assert strict_schema(tagged).schema["properties"]["value"] == {
        "anyOf": [{"$ref": "#/$defs/Cat"}, {"$ref": "#/$defs/Dog"}]
    }


def test_a_definition_that_refers_to_itself_ends() -> None:
    definitions: Any = {"A": {"anyOf": [{"$ref": "#/$defs/A"}, {"type": "string"}]}}
    assert not admits_null({"$ref": "#/$defs/A"}, definitions)


# --- Decoding ---


@pydantic_dataclass
class Lenient:
    number: int


@dataclasses.dataclass
class WithField:
    number: int = Field(3, gt=0)


class Both(msgspec.Struct):
    number: int

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        raise AssertionError


class Short(BaseModel):
    y: int
    x: int = 1


class Long(BaseModel):
    y: int
    w: int | None = None


class Unclear(BaseModel):
    y: int
    x: int | None = 4


new_type: Any = NewType  # type checkers reject what Python and pydantic accept
Positive: Any = new_type("Positive", Annotated[int, Field(gt=0)])


@pytest.mark.parametrize(
    ("annotation", "text", "expected"),
    [
        (Point, '{"x": 1, "y": null}', Point(x=1)),
        (Point, b'{"x": 1}', Point(x=1)),
        (list[Point], '{"value": [{"x": 1, "y": null}]}', [Point(x=1)]),
        (TypeAdapter(list[Point]), '{"value": [{"x": 1, "y": null}]}', [Point(x=1)]),
        (Point | None, '{"value": null}', None),
        (RootModel[list[int]], '{"value": [1]}', RootModel[list[int]]([1])),
        (RootModel[dict[str, int]], '{"a": 1}', RootModel[dict[str, int]]({"a": 1})),
        (Job, '{"title": "a", "size": null}', Job("a", 3)),
        (Trip, '{"stops": [{"x": 1, "y": null}], "nights": null}', Trip([Point(x=1)])),
        (Renamed, '{"from": null}', Renamed.model_validate({})),
        (
            Annotated[Cat | Dog, Field(discriminator="kind")],
            '{"value": {"kind": "cat"}}',
            Cat(kind="cat"),
        ),
        (Cat | Dog, '{"value": {"kind": "cat", "lives": null}}', Cat(kind="cat")),
        (Cat | Dog, '{"value": {"kind": "dog", "name": null, "lives": null}}', Dog(kind="dog")),
        (dict[str, Point], '{"a": {"x": 1, "y": null}}', {"a": Point(x=1)}),
        (tuple[Point, int], '{"value": [{"x": 1, "y": null}, 2]}', (Point(x=1), 2)),
        (Point, '{"x": 1, "y": null, "z": "\\ud83d"}', Point(x=1)),
        (Lenient, '{"number": "3"}', Lenient(3)),
        (WithField, '{"number": null}', WithField(3)),
        (Both, '{"number": 3}', Both(3)),
        (Short | Long, '{"value": {"y": 1, "x": null}}', Short(y=1)),
        (Short | Unclear, '{"value": {"y": 1, "x": null}}', Unclear(y=1, x=None)),
    ],
    ids=str,
)
def test_null_decodes_to_the_default(annotation: Any, text: str, expected: Any) -> None:
    assert JSONType(annotation).decode(text) == expected


@pytest.mark.parametrize(
    ("annotation", "text", "message", "place"),
    [
        (Point, '{"x": -1}', "Input should be greater than or equal to 0 at `$.x`", "$.x"),
        (Point, "{}", "Field required at `$.x`", "$.x"),
        (Point, "[]", "Input should be an object", None),
        (Even, '{"number": 3}', "Value error, the number must be even at `$.number`", "$.number"),
        (
            list[Point],
            '{"value": [{"x": 1}, {"x": [1], "y": {}}]}',
            (
                "Input should be a valid integer at `$.value[1].x`;"
                " Input should be a valid integer at `$.value[1].y`"
            ),
            "$.value[1].x",
        ),
        (
            Annotated[Cat | Dog, Field(discriminator="kind")],
            '{"value": {"kind": "cat", "lives": []}}',
            "Input should be a valid integer at `$.value.lives`",
            "$.value.lives",
        ),
        (Positive, '{"value": 0}', "Input should be greater than 0 at `$.value`", "$.value"),
        (
            Annotated[int, Field(gt=0)],
            '{"value": 0}',
            "Input should be greater than 0 at `$.value`",
            "$.value",
        ),
        (list[Point], "{}", "Object missing required field `value`", None),
    ],
    ids=str,
)
def test_a_mismatch_has_the_message_of_pydantic_and_the_place(
    annotation: Any, text: str, message: str, place: str | None
) -> None:
    with pytest.raises(InvalidJSON) as refusal:
        JSONType[Any](annotation).decode(text)
    assert (refusal.value.message, refusal.value.place) == (message, place)


def test_text_that_is_not_json_is_rejected() -> None:
    with pytest.raises(InvalidJSON, match="does not match") as refusal:
        JSONType(Point).decode("{")
    assert refusal.value.message.startswith("Invalid JSON: EOF while parsing")
    assert refusal.value.place is None


def test_many_errors_are_counted() -> None:
    with pytest.raises(InvalidJSON) as refusal:
        JSONType(list[Point]).decode(json.dumps({"value": [{"x": -1}] * 8}))
    assert refusal.value.message.count("greater than") == 5
    assert refusal.value.message.endswith("; and 3 more")
    assert refusal.value.place == "$.value[0].x"


def test_the_text_of_an_error_does_not_quote_the_json() -> None:
    with pytest.raises(InvalidJSON) as refusal:
        JSONType(Annotated[Cat | Dog, Field(discriminator="kind")]).decode(
            '{"value": {"kind": "secret"}}'
        )
    assert "secret" in refusal.value.message
    assert "secret" not in str(refusal.value)


def test_the_text_of_an_error_says_what_does_not_fit() -> None:
    with pytest.raises(InvalidJSON) as refusal:
        JSONType(Point).decode('{"x": "secret"}')
    assert str(refusal.value) == f"the JSON does not match its type: {refusal.value.message}"
    assert "Input should be a valid" in str(refusal.value)
    assert "secret" not in str(refusal.value)


def test_the_text_of_a_validator_of_the_user_is_not_quoted() -> None:
    with pytest.raises(InvalidJSON, match="see the attribute message") as refusal:
        JSONType(Even).decode('{"number": 3}')
    assert refusal.value.summary is None


def test_the_traceback_of_an_error_does_not_quote_the_json() -> None:
    def go(point: Point) -> None: ...

    word = "terces"[::-1]  # source lines are part of a traceback
    with pytest.raises(InvalidArguments) as refusal:
        FunctionTool(go).bind(f'{{"point": {{"x": "{word}"}}}}')
    with pytest.raises(InvalidJSON) as mismatch:
        JSONType(Point).decode(f'{{"x": "{word}"}}')
    for error in (refusal.value, mismatch.value):
        assert word not in "".join(traceback.format_exception(error))


def test_an_exception_of_a_validator_that_is_no_value_error_propagates() -> None:
    with pytest.raises(RuntimeError, match="broken"):
        JSONType(Even).decode('{"number": -2}')


# --- Types that are rejected ---


class Holder(msgspec.Struct):
    point: Point


class Lax(BaseModel):
    model_config = ConfigDict(arbitrary_types_allowed=True)
    struct: Struct


@attrs.define
class Attrs:
    point: Point


class Old(pydantic.v1.BaseModel):
    x: int


class Constrained(msgspec.Struct):
    n: Annotated[int, Field(gt=0)]


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        (Holder, ["for Holder", "Holder is not a type of pydantic"]),
        (Lax, ["for Lax", "Struct is not a type of pydantic"]),
        (Attrs, ["for Attrs", "Attrs is not a type of pydantic"]),
        (Constrained, ["for Constrained", "use models of pydantic for all of it"]),
        (list[Struct | Point], ["Struct is not a type of pydantic"]),
        (Annotated[Struct, Field(description="d")], ["Struct is not a type of pydantic"]),
        (Annotated[Point, msgspec.Meta(ge=1)], ["Meta(ge=1)", "use pydantic.Field"]),
        (list[Annotated[Point, msgspec.Meta(description="d")]], ["use pydantic.Field"]),
        (Old, ["Old is a model of pydantic 1", "model of pydantic 2"]),
        (list[Old], ["Old is a model of pydantic 1"]),
        (Annotated[Callable[[], int], Field()], ["use types that pydantic can decode"]),
    ],
    ids=str,
)
def test_a_type_without_a_schema_is_rejected_with_what_to_use(
    annotation: Any, words: list[str]
) -> None:
    with pytest.raises(ConfigurationError) as refusal:
        JSONType[Any](annotation, place="parameters.a")
    assert str(refusal.value).startswith("parameters.a: ")
    for word in words:
        assert word in str(refusal.value)


@pytest.mark.parametrize("version", ["1.10.2", "2.6.4"])
def test_an_old_pydantic_is_named(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    name = "trio_responses._json_types.pydantic_types"
    monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setattr(pydantic, "VERSION", version)
    with pytest.raises(ConfigurationError, match=f"2.7 or later: pydantic {version} is too old"):
        JSONType(Point)
    assert name not in sys.modules


def test_constraints_without_pydantic_are_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "trio_responses._json_types.pydantic_types", raising=False)
    monkeypatch.setitem(sys.modules, "pydantic", None)
    with pytest.raises(ConfigurationError, match=r"Gt\(gt=0\) needs pydantic"):
        JSONType[Any](Annotated[int, annotated_types.Gt(0)])


def test_without_pydantic_no_annotation_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("pydantic", "pydantic_core", "annotated_types"):
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr("trio_responses._json_types.families.is_of_pydantic", None)
    assert JSONType(list[int]).decode('{"value": [1]}') == [1]


# --- Tools ---


def inner_model() -> Any:
    class Point(BaseModel):
        city: str

    return Point


def test_each_parameter_is_decoded_by_its_own_library() -> None:
    other: Any = inner_model()

    def travel(  # noqa: PLR0917 - one parameter of each kind
        start: Point,
        struct: Struct,
        city: Any,
        stops: list[Point],
        file: Path,
        end: Point | None = None,
        nights: Annotated[int, Field(gt=0)] = 2,
        size: int = Field(7, le=9, description="how large"),
        words: list[str] = Field(default_factory=list),  # noqa: B008 - as users write it
        first: Point = Point(x=5),  # noqa: B008 - likewise
        *,
        last: int = Field(description="the last"),
    ) -> None:
        """Travel.

        :param start: where it begins
        :param size: not this text
        """

    travel.__annotations__["city"] = other
    tool = FunctionTool(travel)
    assert tool.schema.strict
    schema = tool.schema.schema
    assert schema["properties"]["start"] == {
        "anyOf": [{"$ref": "#/$defs/Point"}],
        "description": "where it begins",
    }
    assert schema["properties"]["size"]["description"] == "how large (default: 7)"
    assert schema["properties"]["last"] == {"type": "integer", "description": "the last"}
    assert list(schema["$defs"]) == ["Point", "Struct", "Point_2"]
    assert list(schema["$defs"]["Point_2"]["properties"]) == ["city"]
    arguments = {
        "start": {"x": 1, "y": None},
        "struct": {"n": 1},
        "city": {"city": "Oslo"},
        "stops": [{"x": 2, "y": 3}],
        "file": "a/b",
        "last": 4,
        **dict.fromkeys(["end", "nights", "size", "words", "first"]),
    }
    bound = tool.bind(json.dumps(arguments))
    assert list(bound.arguments.values())[:2] == [Point(x=1), Struct(1)]
    assert list(bound.arguments.values())[2:4] == [other(city="Oslo"), [Point(x=2, y=3)]]
    assert str(bound.arguments["file"]) == "a/b"
    assert list(bound.arguments.values())[5:] == [None, 2, 7, [], Point(x=5), 4]


def test_definitions_that_refer_to_different_types_stay_apart() -> None:
    def outer(inner: Any) -> Any:
        return pydantic.create_model("Outer", inner=(inner, ...))

    first, second = (pydantic.create_model("Inner", **{n: (int, ...)}) for n in ("a", "b"))  # type: ignore[call-overload]

    def both(one: Any, two: Any, three: Any) -> None: ...

    both.__annotations__ = {"one": outer(first), "two": outer(second), "three": outer(first)}
    schema = FunctionTool(both).schema.schema
    definitions = schema["$defs"]
    inner = [
        definitions[schema["properties"][name]["$ref"].rpartition("/")[2]]["properties"]["inner"]
        for name in ("one", "two", "three")
    ]
    names = [list(definitions[each["$ref"].rpartition("/")[2]]["properties"]) for each in inner]
    assert names == [["a"], ["b"], ["a"]]
    assert len(definitions) == 4


@pytest.mark.parametrize(
    ("arguments", "message", "place"),
    [
        (
            '{"point": {"x": -1}, "n": 1}',
            "Input should be greater than or equal to 0 at `$.point.x`",
            "$.point.x",
        ),
        ('{"point": 3, "n": 1}', "Input should be an object at `$.point`", "$.point"),
        ('{"point": {"x": 1}, "n": "1"}', "Expected `int`, got `str` at `$.n`", "$.n"),
    ],
)
def test_arguments_that_do_not_fit_are_explained(arguments: str, message: str, place: str) -> None:
    def go(point: Point, n: int) -> None: ...

    with pytest.raises(InvalidArguments) as refusal:
        FunctionTool(go).bind(arguments)
    assert (refusal.value.message, refusal.value.place) == (message, place)


def test_a_parameter_with_a_type_of_both_libraries_is_named() -> None:
    def go(either: Struct | Point) -> None: ...

    with pytest.raises(
        ConfigurationError, match=r"^parameters\.either: pydantic has no JSON schema"
    ):
        FunctionTool(go)


# --- Results ---


@pydantic_dataclass
class Shouted:
    text: str

    @pydantic.field_serializer("text")
    def _shout(self, text: str) -> str:
        return text.upper()


@dataclasses.dataclass
class Plain:
    point: Point


@dataclasses.dataclass
class Holding:
    shouted: list[Shouted]
    plain: Plain
    _left_out: int | msgspec.UnsetType = msgspec.UNSET
    _other: int = 1


class Wrapper(msgspec.Struct):
    point: Point


@pytest.mark.parametrize(
    ("result", "text"),
    [
        (Point(x=1), '{"x":1,"y":0}'),
        (Renamed.model_validate({}), '{"from":1}'),
        (Shouted("a"), '{"text":"A"}'),
        ([Point(x=1), 2], '[{"x":1,"y":0},2]'),
        ({"a": (Shouted("a"),), "b": [[Point(x=1)]]}, '{"a":[{"text":"A"}],"b":[[{"x":1,"y":0}]]}'),
        (Plain(Point(x=1)), '{"point":{"x":1,"y":0}}'),
        (
            Holding([Shouted("a")], Plain(Point(x=1))),
            '{"shouted":[{"text":"A"}],"plain":{"point":{"x":1,"y":0}},"_other":1}',
        ),
        (Wrapper(Point(x=1)), '{"point":{"x":1,"y":0}}'),
        (RootModel[list[int]]([1]), "[1]"),
        (Dog(kind="dog", name="\ud83d"), '{"kind":"dog","name":"\ufffd","lives":null}'),
    ],
    ids=str,
)
def test_a_result_is_encoded_by_pydantic(result: Any, text: str) -> None:
    assert encode_output(result) == text


def test_a_model_without_a_json_form_is_rejected() -> None:
    model = pydantic.create_model(
        "Model", __config__=ConfigDict(arbitrary_types_allowed=True), module=(ModuleType, ...)
    )
    with pytest.raises(InvalidResult, match="returned a Model that JSON cannot express"):
        encode_output(model(module=json))
