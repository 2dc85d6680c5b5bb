"""Types of pydantic, and types with a part of pydantic, as users write them."""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
from decimal import Decimal  # noqa: TC003 - pydantic reads it, here and below
from typing import Annotated, Any, Generic, Literal, NamedTuple, Optional, TypeVar
from uuid import UUID  # noqa: TC003

import pytest

pydantic: Any = pytest.importorskip("pydantic", reason="pydantic is not installed")
from hypothesis import strategies as st  # noqa: E402
from pydantic import BaseModel, Field, RootModel, field_validator  # noqa: E402
from pydantic.dataclasses import dataclass  # noqa: E402
from typing_extensions import NotRequired, TypedDict  # noqa: E402, TC002, UP035 - as pydantic asks

T = TypeVar("T")


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Point(BaseModel):
    """A place on the map."""

    x: int
    y: int


class Described(BaseModel):
    city: str = Field(description="with its country")
    days: int = Field(gt=0, le=14, description="how many")
    tags: list[Annotated[str, Field(min_length=1)]] = Field(min_length=1, max_length=3)


class Defaults(BaseModel):
    count: int = 3
    name: str = "x"
    colour: Colour = Colour.RED
    points: list[Point] = []


class Nested(BaseModel):
    first: Point
    rest: list[Point]
    either: Point | None


class DescribedReference(BaseModel):
    here: Point = Field(description="where it is")


class Tree(BaseModel):
    label: str
    children: list[Tree]


class Choices(BaseModel):
    colour: Colour
    level: Level
    word: Literal["a", "b"]
    one: Literal["only"]
    mixed: Literal["a", 1]


class Times(BaseModel):
    moment: dt.datetime
    day: dt.date
    time: dt.time
    length: dt.timedelta


class Scalars(BaseModel):
    flag: bool
    code: UUID
    price: Decimal
    ratio: float
    maybe: Optional[int]  # noqa: UP045 - both spellings


class Span(NamedTuple):
    start: int
    end: int


class Collections(BaseModel):
    pair: tuple[int, str]
    many: tuple[int, ...]
    unique: set[int]
    span: Span
    matrix: list[list[int]]


class Patterns(BaseModel):
    word: Annotated[str, Field(pattern="^a+$")]
    even: Annotated[int, Field(multiple_of=2)]
    small: Annotated[float, Field(gt=0, lt=1)]


class Aliased(BaseModel):
    model_config = pydantic.ConfigDict(populate_by_name=True)
    from_: int = Field(alias="from")
    to: int = Field(alias="toPlace")


class Cat(BaseModel):
    kind: Literal["cat"]
    lives: int


class Dog(BaseModel):
    kind: Literal["dog"]
    name: str


class Owner(BaseModel):
    pet: Annotated[Cat | Dog, Field(discriminator="kind")]
    others: list[Cat | Dog]


class Box(BaseModel, Generic[T]):
    content: T


class Words(RootModel[list[str]]):
    pass


class Checked(BaseModel):
    name: str

    @field_validator("name")
    @classmethod
    def _check(cls, name: str) -> str:
        if name != name.strip():
            raise ValueError("remove the spaces")
        return name


class Closed(BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")
    a: int


class Filters(TypedDict):
    words: list[str]
    point: Point


class WithDict(BaseModel):
    filters: Filters


@dataclass
class Job:
    title: str
    size: int = Field(gt=0)


@dataclasses.dataclass
class Trip:
    stops: list[Point]
    nights: Annotated[int, Field(ge=1)]


class WithUnion(BaseModel):
    value: int | str | list[bool] | None


class Examples(BaseModel):
    city: str = Field(examples=["Oslo"])


numbers = st.integers(-1000, 1000)
points = st.builds(Point, x=numbers, y=numbers)
cats = st.builds(Cat, kind=st.just("cat"), lives=numbers)
dogs = st.builds(Dog, kind=st.just("dog"), name=st.text())
trees: st.SearchStrategy[Any] = st.recursive(
    st.builds(Tree, label=st.text(), children=st.just([])),
    lambda inner: st.builds(Tree, label=st.text(), children=st.lists(inner, max_size=2)),
    max_leaves=4,
)
times = st.builds(
    Times,
    moment=st.datetimes(timezones=st.just(dt.UTC)),
    day=st.dates(),
    time=st.times(),
    length=st.timedeltas(dt.timedelta(0), dt.timedelta(days=9)),
)

TYPES: dict[str, tuple[Any, st.SearchStrategy[Any]]] = {
    "model": (Point, points),
    "described": (
        Described,
        st.builds(
            Described,
            city=st.text(),
            days=st.integers(1, 14),
            tags=st.lists(st.text(min_size=1), min_size=1, max_size=3),
        ),
    ),
    "defaults": (
        Defaults,
        st.builds(
            Defaults,
            count=numbers,
            name=st.text(),
            colour=st.sampled_from(Colour),
            points=st.lists(points, max_size=2),
        ),
    ),
    "nested": (
        Nested,
        st.builds(
            Nested, first=points, rest=st.lists(points, max_size=2), either=st.none() | points
        ),
    ),
    "described reference": (DescribedReference, st.builds(DescribedReference, here=points)),
    "recursive": (Tree, trees),
    "choices": (
        Choices,
        st.builds(
            Choices,
            colour=st.sampled_from(Colour),
            level=st.sampled_from(Level),
            word=st.sampled_from("ab"),
            one=st.just("only"),
            mixed=st.sampled_from(["a", 1]),
        ),
    ),
    "times": (Times, times),
    "scalars": (
        Scalars,
        st.builds(
            Scalars,
            flag=st.booleans(),
            code=st.uuids(),
            price=st.decimals(-1000, 1000, places=2),
            ratio=st.floats(allow_nan=False, allow_infinity=False),
            maybe=st.none() | numbers,
        ),
    ),
    "collections": (
        Collections,
        st.builds(
            Collections,
            pair=st.tuples(numbers, st.text()),
            many=st.lists(numbers, max_size=3).map(tuple),
            unique=st.sets(numbers, max_size=3),
            span=st.builds(Span, numbers, numbers),
            matrix=st.lists(st.lists(numbers, max_size=2), max_size=2),
        ),
    ),
    "patterns": (
        Patterns,
        st.builds(
            Patterns,
            word=st.from_regex("^a+$", fullmatch=True).map(str.strip),
            even=numbers.map(lambda n: 2 * n),
            small=st.floats(0, 1, exclude_min=True, exclude_max=True),
        ),
    ),
    "aliased": (Aliased, st.builds(Aliased, from_=numbers, to=numbers)),
    "discriminated": (
        Owner,
        st.builds(Owner, pet=cats | dogs, others=st.lists(cats | dogs, max_size=2)),
    ),
    "generic": (Box[Point], st.builds(Box[Point], content=points)),
    "root model": (Words, st.builds(Words, st.lists(st.text(), max_size=3))),
    "validated": (Checked, st.builds(Checked, name=st.text().map(str.strip))),
    "closed": (Closed, st.builds(Closed, a=numbers)),
    "typed dict in a model": (
        WithDict,
        st.builds(
            WithDict,
            filters=st.fixed_dictionaries({"words": st.lists(st.text()), "point": points}),
        ),
    ),
    "dataclass of pydantic": (Job, st.builds(Job, title=st.text(), size=st.integers(1, 9))),
    "dataclass with models": (
        Trip,
        st.builds(Trip, stops=st.lists(points, max_size=2), nights=st.integers(1, 9)),
    ),
    "typed dict with models": (
        Filters,
        st.fixed_dictionaries({"words": st.lists(st.text(), max_size=2), "point": points}),
    ),
    "union": (
        WithUnion,
        st.builds(WithUnion, value=st.none() | numbers | st.lists(st.booleans(), max_size=2)),
    ),
    "examples": (Examples, st.builds(Examples, city=st.text())),
    "list of models": (list[Point], st.lists(points, max_size=3)),
    "optional model": (Point | None, st.none() | points),
    "union of models": (Cat | Dog, cats | dogs),
    "tagged union": (Annotated[Cat | Dog, Field(discriminator="kind")], cats | dogs),
    "constrained number": (Annotated[int, Field(gt=0, description="how many")], st.integers(1)),
    "constrained list": (
        Annotated[list[int], Field(min_length=1, max_length=2)],
        st.lists(numbers, min_size=1, max_size=2),
    ),
    "pair of models": (tuple[Point, Point], st.tuples(points, points)),
}
"""Types that strict mode can express, each with a strategy for its values."""


class Open(BaseModel):
    model_config = pydantic.ConfigDict(extra="allow")
    a: int


class Counts(BaseModel):
    counts: dict[str, int]


class Anything(BaseModel):
    value: Any


class Partial(TypedDict):
    a: Point
    b: NotRequired[int]


NOT_STRICT: dict[str, Any] = {
    "open model": Open,
    "free keys": Counts,
    "any value": Anything,
    "dict of models": dict[str, Point],
}
