"""Functions with many signatures, from which the tests create tools with each library."""

from __future__ import annotations

import dataclasses
import datetime as dt  # noqa: TC003 - read at run time, here and below
from decimal import Decimal
from enum import Enum, IntEnum
from typing import Annotated, Any, Literal, NamedTuple, Optional
from uuid import UUID  # noqa: TC003

import msgspec
import pytest

pydantic: Any = pytest.importorskip("pydantic", reason="openai is not installed")
from typing_extensions import NotRequired, TypedDict  # noqa: E402, TC002, UP035 - as pydantic asks

Field: Any = pydantic.Field


class Colour(Enum):
    """A colour."""

    RED = "red"
    BLUE = "blue"


class Level(IntEnum):
    LOW = 1
    HIGH = 2


@dataclasses.dataclass
class Place:
    """A place."""

    city: str
    country: str = "Norway"


@dataclasses.dataclass
class Trip:
    stops: list[Place]
    via: Place | None = None
    tags: list[str] = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class Tree:
    label: str
    children: list[Tree]


class Filters(TypedDict):
    """Filters of a search."""

    words: list[str]
    since: dt.date


class Span(NamedTuple):
    start: int
    end: float


class OurCat(msgspec.Struct, tag_field="kind", tag="cat"):
    lives: int


class OurDog(msgspec.Struct, tag_field="kind", tag="dog"):
    name: str


class TheirCat(pydantic.BaseModel):  # type: ignore[misc]
    kind: Literal["cat"]
    lives: int


class TheirDog(pydantic.BaseModel):  # type: ignore[misc]
    kind: Literal["dog"]
    name: str


def nothing() -> None:
    """Do nothing."""


def integer(a: int) -> None: ...
def number(a: float) -> None: ...
def text(a: str) -> None: ...
def boolean(a: bool) -> None: ...  # noqa: FBT001
def two(a: int, b: str) -> None: ...
def keyword_only(a: int, *, b: str) -> None: ...
def with_default(a: int = 3) -> None: ...
def with_text_default(a: str = "x", b: bool = True) -> None: ...  # noqa: FBT001, FBT002
def optional(a: int | None) -> None: ...
def optional_default(a: int | None = None) -> None: ...
def optional_other_default(a: Optional[int] = 5) -> None: ...  # noqa: UP045 - both spellings
def list_of_integers(a: list[int]) -> None: ...
def list_of_lists(a: list[list[str]]) -> None: ...
def list_default(a: list[str] = []) -> None: ...  # noqa: B006
def set_of_texts(a: set[str]) -> None: ...
def any_tuple(a: tuple[int, ...]) -> None: ...
def pair(a: tuple[int, int]) -> None: ...
def mixed_tuple(a: tuple[int, str]) -> None: ...
def named_tuple(a: Span) -> None: ...
def literal(a: Literal["x", "y"]) -> None: ...
def single_literal(a: Literal["x"]) -> None: ...
def mixed_literal(a: Literal["x", 1]) -> None: ...
def literal_default(a: Literal["x", "y"] = "x") -> None: ...
def enumeration(a: Colour) -> None: ...
def whole_enumeration(a: Level) -> None: ...
def enumeration_default(a: Colour = Colour.RED) -> None: ...
def union(a: int | str) -> None: ...
def wide_union(a: int | str | list[bool] | None) -> None: ...
def moment(a: dt.datetime) -> None: ...
def day(a: dt.date) -> None: ...
def time_of_day(a: dt.time) -> None: ...
def duration(a: dt.timedelta) -> None: ...
def identifier(a: UUID) -> None: ...
def price(a: Decimal) -> None: ...
def price_default(a: Decimal = Decimal("1.5")) -> None: ...
def binary(a: bytes) -> None: ...
def dataclass(a: Place) -> None: ...
def dataclass_in_list(a: list[Place]) -> None: ...
def dataclass_or_none(a: Place | None = None) -> None: ...
def nested_dataclass(a: Trip) -> None: ...
def recursive(a: Tree) -> None: ...
def typed_dict(a: Filters) -> None: ...
def several(a: Place, b: list[Place], c: Filters | None, d: Colour = Colour.BLUE) -> None: ...
def ranged(a: Annotated[int, Field(ge=1, le=9)]) -> None: ...
def open_ranged(a: Annotated[float, Field(gt=1, lt=9)]) -> None: ...
def multiple(a: Annotated[int, Field(multiple_of=5)]) -> None: ...
def pattern(a: Annotated[str, Field(pattern="^a+$")]) -> None: ...
def bounded_list(
    a: Annotated[list[int], Field(min_length=1, max_length=3)],
) -> None: ...
def bounded_text(
    a: Annotated[str, Field(min_length=1, max_length=3)],
) -> None: ...
def described(a: Annotated[int, "how many"], b: Annotated[Place, "where"]) -> None: ...
async def coroutine(a: int) -> str:
    """Wait."""
    return str(a)


def rest(a: int, b: str = "x") -> None:
    """Describe the parameters in fields.

    In two paragraphs.

    :param a: how many
        of them
    :param b: which
    """


def google(a: int, b: Place, c: str | None = None) -> None:
    """Describe the parameters in a section.

    In two paragraphs.

    Args:
        a: how many
            of them
        b (Place): where
        c: which: one

    Returns:
        Nothing.
    """


def numpy(a: int, b: list[str]) -> None:
    """Describe the parameters in an underlined section.

    Parameters
    ----------
    a : int
        how many
        of them
    b : list of str
        which
    """


FUNCTIONS: list[Any] = [
    *[nothing, integer, number, text, boolean, two, keyword_only, with_default],
    *[with_text_default, optional, optional_default, optional_other_default, list_of_integers],
    *[list_of_lists, list_default, set_of_texts, any_tuple, pair, mixed_tuple, named_tuple],
    *[literal, single_literal, mixed_literal, literal_default, enumeration, whole_enumeration],
    *[enumeration_default, union, wide_union, moment, day, time_of_day, duration, identifier],
    *[price, price_default, binary, dataclass, dataclass_in_list, dataclass_or_none],
    *[nested_dataclass, recursive, typed_dict, several, ranged, open_ranged, multiple, pattern],
    *[bounded_list, bounded_text, described, coroutine, rest, google, numpy],
]


def free_keys(a: dict[str, int], b: int = 1) -> None: ...
def anything(a: dict[str, Any], b: Place | None = None) -> None: ...
def open_dict(a: list[dict[str, list[int]]]) -> None: ...


class Partial(TypedDict):
    a: int
    b: NotRequired[str]


def partly(a: Partial, b: tuple[int, str] = (1, "x"), c: set[int] | None = None) -> None: ...


IN_FULL: list[Any] = [
    free_keys,
    anything,
    open_dict,
    partly,
    several,
    nested_dataclass,
]


def our_pet(pet: OurCat | OurDog, others: list[OurCat | OurDog]) -> None: ...
def their_pet(
    pet: Annotated[TheirCat | TheirDog, Field(discriminator="kind")],
    others: list[Annotated[TheirCat | TheirDog, Field(discriminator="kind")]],
) -> None: ...
