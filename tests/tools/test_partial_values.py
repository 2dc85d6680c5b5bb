"""Objects of a type made of JSON that is still being written."""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import json
import sys
from collections import abc
from decimal import Decimal
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    Generic,
    Literal,
    NamedTuple,
    NewType,
    Required,
    TypedDict,
    TypeVar,
)

import attrs
import msgspec
import pydantic
import pydantic.dataclasses
import pytest
import typing_extensions
from hypothesis import given
from hypothesis import strategies as st

from trio_responses._tools.partial_values import PartialValue

if TYPE_CHECKING:
    from collections.abc import Iterator

T = TypeVar("T")


class Day(msgspec.Struct):
    name: str
    degrees: float = 7.5


class Weather(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    city_name: str
    days: list[Day]
    warm: bool | None = None
    at: dt.date | None = None


class Checked(msgspec.Struct):
    """A Struct that validates itself."""

    low: int
    high: int
    note: str = ""

    def __post_init__(self) -> None:
        if self.low > self.high:
            raise ValueError("low is over high")


@dataclasses.dataclass(frozen=True, slots=True)
class Point:
    x: int
    y: int = 3
    label: str = dataclasses.field(default="", kw_only=True)

    def __post_init__(self) -> None:
        assert self.x < 100


@attrs.define
class Parcel:
    name: str
    weight: int = attrs.field(validator=attrs.validators.gt(0))
    days: list[Day] = attrs.field(factory=list[Day])


class Movie(TypedDict, total=False):
    title: Required[str]
    days: Annotated[list[Day], ["not hashable"]]


class Pair(NamedTuple):
    left: str
    right: Day


class Circle(msgspec.Struct, tag="circle"):
    radius: float


class Square(msgspec.Struct, tag="circles"):
    side: float


class Row(msgspec.Struct, array_like=True, tag="row"):
    name: str
    day: Day


class Node(msgspec.Struct):
    name: str
    children: list[Node] = []


class Page(msgspec.Struct, Generic[T]):
    items: list[T]


@dataclasses.dataclass
class Box(Generic[T]):
    inner: T
    more: list[T]


@dataclasses.dataclass
class DayBox(Box[Day]):
    name: str


class Color(enum.Enum):
    RED = "red"
    REDDISH = "reddish"


Name = NewType("Name", str)
Many = typing_extensions.TypeAliasType("Many", list[T], type_params=(T,))


class Spot(pydantic.BaseModel):
    name: str


class Model(pydantic.BaseModel):
    city: str = pydantic.Field(alias="cityName", min_length=3)
    spot: Spot | None = None
    points: list[Point] = []
    when: dt.date = dt.date(2026, 1, 1)
    _secret: int = 3

    def model_post_init(self, context: Any, /) -> None:
        raise AssertionError(context)


class Names(pydantic.RootModel[list[str]]):
    pass


def partials(annotation: Any, *pieces: str) -> Iterator[Any]:
    """Yield the values after each piece that has changed something."""
    value = PartialValue(annotation)
    for piece in pieces:
        made = value.feed(piece)
        if made is not msgspec.UNSET:
            yield made


def partial(annotation: Any, text: str) -> Any:
    """Return the value after a text, which is the same however the text is split."""
    (made,) = [*partials(annotation, text)][-1:] or [msgspec.UNSET]
    (other,) = [*partials(annotation, *text)][-1:] or [msgspec.UNSET]
    assert made == other
    return made


# --- Classes -------------------------------------------------------------------------------


def test_a_field_that_is_not_written_is_none() -> None:
    made = partial(Weather, '{"cityName": "Os')
    assert type(made) is Weather
    assert made == Weather(city_name="Os", days=None, warm=None, at=None)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def test_a_list_grows_by_objects_of_its_type() -> None:
    text = '{"cityName": "Oslo", "days": [{"name": "Mon", "degrees": 3}, {"name": "T'
    made = partial(Weather, text)
    assert [type(day) for day in made.days] == [Day, Day]
    assert made.days == [Day("Mon", 3.0), Day("T", None)]  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    assert type(made.days[0].degrees) is float


def test_finished_values_are_shared_and_open_ones_are_not() -> None:
    text = '{"days": [{"name": "Mon"}, {"name": "T'
    first, second = partials(Weather, text, "u")
    assert first.days[0] is second.days[0]
    assert [day.name for day in first.days] == ["Mon", "T"]
    assert [day.name for day in second.days] == ["Mon", "Tu"]


def test_the_values_of_a_list_are_kept_when_the_list_ends() -> None:
    *_, before, after = partials(Weather, '{"days": [{"name": "Mon"}', ",", "\n{}", "]", "}")
    assert before.days[0] is after.days[0]


UNVALIDATED: list[tuple[type[Any], str, dict[str, Any]]] = [
    (Checked, '{"low": 9, "high": 3, "no', {"low": 9, "high": 3, "note": None}),
    (Point, '{"x": 100, ', {"x": 100, "y": None, "label": None}),
    (Parcel, '{"name": "a", "weight": 0, "days": [{', {"name": "a", "weight": 0}),
    (Model, '{"cityName": "O', {"city": "O", "spot": None, "when": None, "points": None}),
]


@pytest.mark.parametrize(("annotation", "text", "expected"), UNVALIDATED)
def test_no_validation_runs(annotation: type[Any], text: str, expected: dict[str, Any]) -> None:
    made = partial(annotation, text)
    assert isinstance(made, annotation)
    assert type(made).__name__ == annotation.__name__
    assert {name: getattr(made, name) for name in expected} == expected


def test_the_values_in_objects_have_their_types() -> None:
    assert partial(Parcel, '{"days": [{"name": "Mon"}]').days == [day("Mon")]
    assert partial(Model, '{"spot": {"name": "M').spot == Spot(name="M")
    assert partial(list[Model], '[{"cityName": "O')[0].city == "O"
    assert partial(Model, '{"points": [{"x": 1}').points[0].x == 1
    assert partial(Model, '{"when": "2026-11-28"').when == dt.date(2026, 11, 28)
    assert partial(Movie, '{"title": "Up", "days": [{"name": "M') == {
        "title": "Up",
        "days": [day("M")],
    }
    assert partial(Page[Day], '{"items": [{"name": "M').items == [day("M")]
    assert partial(Box[Day], '{"inner": {"name": "M"}, "more": [{').inner == day("M")
    assert partial(DayBox, '{"more": [{"name": "M').more == [day("M")]


def day(name: str | None, degrees: float | None = None) -> Day:
    return Day(name, degrees)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def test_a_model_is_one_that_pydantic_can_use() -> None:
    made = partial(Model, '{"cityName": "O", "unknown": 1}')
    assert made.model_fields_set == {"city"}
    assert made.model_dump() == {"city": "O", "spot": None, "points": None, "when": None}
    assert made == made.model_copy()
    assert repr(made).startswith("Model(city='O'")


def test_the_private_attributes_of_a_model_have_their_defaults() -> None:
    class Private(pydantic.BaseModel):
        name: str
        _seen: list[str] = pydantic.PrivateAttr(default_factory=list)
        _later: int
        _label: str = pydantic.PrivateAttr(default_factory=lambda data: data["name"].upper())

    first, second = partials(Private, '{"name": "a', "b")
    first._seen.append(first.name)
    assert (first._seen, second._seen) == (["a"], [])
    assert not hasattr(second, "_later")


def test_a_partial_model_equals_the_complete_one() -> None:
    class Private(pydantic.BaseModel):
        name: str
        _seen: list[str] = pydantic.PrivateAttr(default_factory=list)

    assert partial(Private, '{"name": "a"}') == Private.model_validate({"name": "a"})


@pydantic.dataclasses.dataclass
class Renamed:
    name: str = pydantic.Field(alias="theName")
    number: int = 3


@dataclasses.dataclass
class PlainRenamed:
    name: str = pydantic.Field(alias="theName")
    number: Annotated[int, pydantic.Field(validation_alias="theNumber")] = 3


class RenamedKey(typing_extensions.TypedDict):
    name: Annotated[str, pydantic.Field(alias="theName")]


class Swapped(pydantic.BaseModel):
    first: str = pydantic.Field(alias="second")
    second: str = pydantic.Field(alias="first")


class ByName(pydantic.BaseModel, populate_by_name=True):
    name: str = pydantic.Field(alias="theName")


class ByNameAlone(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(validate_by_name=True, validate_by_alias=False)
    name: str = pydantic.Field(alias="theName")


class ByPath(pydantic.BaseModel):
    name: str | None = pydantic.Field(None, validation_alias=pydantic.AliasPath("a", 0))


ALIASES: list[tuple[Any, str]] = [
    (Renamed, '{"theName": "a", "number": 4}'),
    (PlainRenamed, '{"theName": "a", "theNumber": 4}'),
    (RenamedKey, '{"theName": "a"}'),
    (Swapped, '{"first": "1", "second": "2"}'),
    (ByName, '{"name": "a"}'),
    (ByNameAlone, '{"name": "a"}'),
    (ByPath, '{"name": "a"}'),
]


@pytest.mark.parametrize(("annotation", "text"), ALIASES)
def test_the_keys_are_the_aliases_of_pydantic(annotation: Any, text: str) -> None:
    assert partial(annotation, text) == pydantic.TypeAdapter(annotation).validate_json(text)


def test_aliases_tell_the_classes_of_a_union_apart() -> None:
    assert type(partial(Spot | Renamed, '{"theName": "a", ')) is Renamed


def test_a_model_may_have_extra_fields_other_keys_and_no_object() -> None:
    class Open(pydantic.BaseModel, extra="allow"):
        city: str = pydantic.Field(validation_alias=pydantic.AliasChoices("town", "place"))

    made = partial(Open, '{"place": "Oslo", "more": 1, ')
    assert (made.city, made.model_extra) == ("Oslo", {})
    assert partial(Names, '["a", "b').root == ["a", "b"]
    assert partial(pydantic.RootModel[str], '"ab').root == "ab"
    assert partial(pydantic.RootModel[int], "12 ").root == 12
    assert partial(list[Names], '[["a"], {') == [Names(["a"]), None]
    assert [*partials(pydantic.RootModel[int], '"ab')] == []


def test_pydantic_is_not_looked_at_before_it_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    class Late(msgspec.Struct):
        name: str

    monkeypatch.delitem(sys.modules, "pydantic")
    assert partial(Late, '{"name": "a').name == "a"


def test_arrays_with_a_type_for_each_position() -> None:
    assert partial(Pair, '["a') == Pair("a", None)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    assert partial(Pair, '["a", {"name": "b"').right == day("b")
    row = partial(Row, '["row", "first", {"name": "M')
    assert (type(row), row.name, row.day) == (Row, "first", day("M"))
    assert partial(tuple[str, Day], '["a", {"name": "b') == ("a", day("b"))
    assert partial(tuple[Day, ...], '[{"name": "a"}, {') == (day("a"), day(None))


def test_a_class_may_contain_itself() -> None:
    made = partial(Node, '{"name": "a", "children": [{"name": "b", "children": [{"name": "c')
    assert made.children[0].children[0].name == "c"
    assert made.children[0].children[0].children is None


# --- Values that are no objects --------------------------------------------------------------

SCALARS: list[tuple[Any, str, Any]] = [
    (str, '"ab', "ab"),
    (Name, '"ab', "ab"),
    (Annotated[str, msgspec.Meta(min_length=5)], '"ab', "ab"),
    (str, "12 ", None),
    (int, "12", msgspec.UNSET),
    (int, "12 ", 12),
    (int, "true", None),
    (float, "12 ", 12.0),
    (float, '"x"', None),
    (bool, "true", True),
    (None, "null", None),
    (dt.date, '"2026-11', msgspec.UNSET),
    (dt.date, '"2026-11-28"', dt.date(2026, 11, 28)),
    (dt.date, '"tomorrow"', None),
    (Decimal, '"1.50"', Decimal("1.50")),
    (Color, '"red', msgspec.UNSET),
    (Color, '"red"', Color.RED),
    (Literal["red", "reddish"], '"red', msgspec.UNSET),
    (Literal["red", "reddish"], '"red"', "red"),
    (pydantic.TypeAdapter(list[Spot]), '[{"name": "a', [Spot(name="a")]),
    (Many[Day], '[{"name": "a', [day("a")]),
    (Any, '{"a": ["b', {"a": ["b"]}),
    (object, "[1, ", [1]),
    (T, '["a', ["a"]),
    (dict, '{"a": {"b": "c', {"a": {"b": "c"}}),
    (dict[str, Day], '{"a": {"name": "b', {"a": day("b")}),
    (dict[int, str], '{"1": "a", "2": "b', {1: "a", 2: "b"}),
    (dict[int, str], '{"x": "a', None),
    (abc.Mapping[str, int], '{"a": 1, "b": 2', {"a": 1}),
    (list, '["a", ["b', ["a", ["b"]]),
    (abc.Sequence[int], "[1, 2", [1]),
    (list[dt.date], '["2026-11-28", "2026', [dt.date(2026, 11, 28)]),
    (set[str], '["a", "b', {"a", "b"}),
    (frozenset[str], '["a", "b', frozenset("ab")),
    (set[Day], '[{"name": "a"}, ', None),
    (tuple, '["a", 1, ', ("a", 1)),
    (complex, '"1+2j"', None),
]


@pytest.mark.parametrize(("annotation", "text", "expected"), SCALARS)
def test_a_value_of_another_type(annotation: Any, text: str, expected: Any) -> None:
    made = partial(annotation, text)
    assert made == expected
    assert type(made) is type(expected)


MISMATCHES: list[tuple[Any, str, Any]] = [
    (Day, '[{"name": "a', None),
    (Day, '"a"', None),
    (Day, "null", None),
    (list[int], '{"a": "b', None),
    (list[int], '["a", 1, {}, {"a', [None, 1, None, None]),
    (dict[str, int], '["a', None),
    (Day, '{"other": {"name": 1}, "more": [{"a": [1, "b', day(None)),
    (Weather, '{"days": {"name": 1}, ', None),
    (tuple[str, str], '["a", "b", {}', ("a", "b", None)),
]


@pytest.mark.parametrize(("annotation", "text", "expected"), MISMATCHES)
def test_json_that_does_not_fit_is_none(annotation: Any, text: str, expected: Any) -> None:
    made = partial(annotation, text)
    assert (made.days if isinstance(made, Weather) else made) == expected


def test_a_type_that_is_no_object_is_wrapped() -> None:
    value = PartialValue(list[Day], wrapped=True)
    assert value.feed("{") is msgspec.UNSET
    assert value.feed('"value": [{"name": "a') == [day("a")]
    assert PartialValue(str, wrapped=True).feed('{"value": "ab') == "ab"


# --- Unions ----------------------------------------------------------------------------------

UNIONS: list[tuple[Any, str, Any]] = [
    (Day | None, '{"name": "a', day("a")),
    (Day | None, "null", None),
    (int | str, '"12', "12"),
    (int | str, "12 ", 12),
    (int | dt.date, '"2026-11-28"', dt.date(2026, 11, 28)),
    (int | dt.date, '"2026', msgspec.UNSET),
    (int | dt.date, '"tomorrow"', None),
    (Day | str, '{"name": "a', day("a")),
    (Day | list[Day], '[{"name": "a', [day("a")]),
    (Day | list[Day], '"a"', None),
    (int | str, '{"name": "a', None),
    (list[int] | list[str], '["a", "b', ["a", "b"]),
    (Circle | Square, '{"type": "circle', {"type": "circle"}),
    (Circle | Square, '{"type": "circle"', Circle(None)),  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    (Circle | Square, '{"type": "circles"', Square(None)),  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    (Circle | Square, '{"radius": 1.5, "ty', Circle(1.5)),
    (Circle | Square, '{"type": "line"', {"type": "line"}),
    (Day | dict[str, int], '{"name": ', {}),
    (Day | dict[str, int], '{"other": 1, ', {"other": 1}),
]


@pytest.mark.parametrize(("annotation", "text", "expected"), UNIONS)
def test_a_union_is_plain_data_until_one_type_is_left(
    annotation: Any, text: str, expected: Any
) -> None:
    made = partial(annotation, text)
    assert made == expected
    assert type(made) is type(expected)


class Cat(msgspec.Struct):
    kind: Literal["cat"]
    toys: list[Day]


@dataclasses.dataclass
class Dog:
    kind: Annotated[Literal["dog"], "a literal tells"]
    toys: list[Day]


def test_classes_without_tags_are_told_by_literals() -> None:
    seen = [*partials(Cat | Dog, "{", '"toys": [{"name": "a', '"}], "kind": "do', 'g"', "}")]
    assert seen[:3] == [{}, {"toys": [{"name": "a"}]}, {"toys": [{"name": "a"}], "kind": "do"}]
    assert seen[3] == seen[4] == Dog("dog", [day("a")])


# --- All of it -------------------------------------------------------------------------------

days = st.builds(Day, st.text(), st.floats(allow_nan=False, allow_infinity=False))
weathers = st.builds(
    Weather,
    city_name=st.text(),
    days=st.lists(days, max_size=4),
    warm=st.none() | st.booleans(),
    at=st.none() | st.dates(),
)


@given(weather=weathers, data=st.data())
def test_the_last_partial_is_the_whole_value(weather: Weather, data: st.DataObject) -> None:
    text = msgspec.json.encode(weather).decode()
    cuts = sorted(data.draw(st.sets(st.integers(0, len(text)), max_size=9)))
    pieces = [text[i:j] for i, j in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    seen = [*partials(Weather, *pieces)]
    assert seen[-1] == weather
    for made in seen:
        assert weather.city_name.startswith(made.city_name or "")
        count = len(made.days or ())
        assert (made.days or [])[: count - 1] == weather.days[: count - 1] or not count
        assert made.at in {None, weather.at}


@pytest.mark.parametrize("annotation", [Any, list[Day], tuple[dict[str, Any], ...]])
def test_the_calls_are_in_proportion_to_the_text(annotation: Any) -> None:
    few, many = (count_calls(annotation, times) for times in (50, 200))
    assert many < 4.2 * few


def count_calls(annotation: Any, times: int) -> int:
    """Return how many functions are called to make the values of a list of a length."""
    text = json.dumps([{"name": "x" * 9, "degrees": 1.5}] * times)
    value = PartialValue(annotation)
    calls = 0

    def count(_frame: object, event: str, _argument: object) -> None:
        nonlocal calls
        calls += event in {"call", "c_call"}

    sys.setprofile(count)
    try:
        for start in range(0, len(text), 5):
            value.feed(text[start : start + 5])
    finally:
        sys.setprofile(None)
    return calls
