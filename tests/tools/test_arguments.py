"""Any arguments that a model can write are either decoded or rejected."""

from __future__ import annotations

import dataclasses
import datetime as dt  # noqa: TC003 - msgspec reads the annotations, here and below
import json
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, Literal, NamedTuple, TypedDict
from uuid import UUID  # noqa: TC003

import msgspec
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec import Meta

from trio_responses import FunctionTool, InvalidArguments, JSONType


class Kind(Enum):
    A = "a"
    B = "b"


class Leaf(msgspec.Struct, tag=True, frozen=True):
    size: int = 1
    kind: Kind = Kind.A


class Branch(msgspec.Struct, tag=True, frozen=True):
    limbs: tuple[Branch | Leaf, ...] = ()
    name: str | None = "oak"


@dataclasses.dataclass
class Spot:
    x: float
    y: float = 0.5


class Step(NamedTuple):
    to: Leaf
    times: int


class Extra(TypedDict, total=False):
    words: list[str]
    spot: Spot


def plant(  # noqa: PLR0917 - one parameter of each kind
    tree: Branch | Leaf,
    when: dt.datetime,
    code: UUID,
    price: Decimal = Decimal("1.5"),
    steps: list[Step] | None = None,
    mode: Literal["now", "then", 3] = "now",
    limits: Annotated[dict[str, Annotated[int, Meta(ge=0)]], Meta(max_length=3)] | None = None,
    extra: Extra | None = None,
    spot: Spot = Spot(1.0),  # noqa: B008 - no call changes it
    raw: bytes = b"",
) -> None: ...


def plain(n: int, words: list[str] = [], far: float = 1.0) -> None: ...  # noqa: B006


TOOLS: list[FunctionTool[..., None]] = [FunctionTool(plant), FunctionTool(plain)]

leaves = st.builds(Leaf, st.integers(-(2**63), 2**64), st.sampled_from(Kind))
trees: st.SearchStrategy[Any] = st.recursive(
    leaves,
    lambda inner: st.builds(
        Branch, st.lists(inner, max_size=3).map(tuple), st.none() | st.text(max_size=3)
    ),
    max_leaves=5,
)
spots = st.builds(Spot, st.floats(allow_nan=False, allow_infinity=False), st.just(0.5))
values: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {"tree": trees, "when": st.datetimes(), "code": st.uuids()},
    optional={
        "price": st.decimals(allow_nan=False, allow_infinity=False),
        "steps": st.none() | st.lists(st.builds(Step, leaves, st.integers(0, 9)), max_size=2),
        "mode": st.sampled_from(["now", "then", 3]),
        "limits": st.none() | st.dictionaries(st.text(max_size=2), st.integers(0, 9), max_size=3),
        "extra": st.fixed_dictionaries({}, optional={"spot": spots}),
        "spot": spots,
        "raw": st.binary(max_size=4),
    },
)
any_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=10,
)


def check_decoded_or_rejected(arguments: str | bytes) -> None:
    for tool in TOOLS:
        try:
            bound = tool.bind(arguments)
        except InvalidArguments as refusal:
            assert refusal.message  # noqa: PT017 - valid arguments raise nothing
        else:
            assert len(bound.args) == len(tool.schema.schema["properties"])


@given(st.text() | st.binary())
@example('"\ud800"')
@example('{"n": "\\udfff"}')
@example('{"n": ' + "9" * 5000 + ', "far": null}')
@example('{"n": 1, "far": 1e-99999999999999999999999, "words": null}')
@example('{"n": 1, "words": ' + "[" * 20_000 + "null")
@example('{"n": 1, "words": null, "n": null}')
@example('{"tree": {"type": "Branch", "limbs": ' * 3_000 + "null")
def test_any_text_is_decoded_or_rejected(arguments: str | bytes) -> None:
    check_decoded_or_rejected(arguments)


@given(any_json)
def test_any_json_is_decoded_or_rejected(value: Any) -> None:
    check_decoded_or_rejected(json.dumps(value))


@given(any_json, any_json)
def test_any_json_for_a_parameter_is_decoded_or_rejected(first: Any, second: Any) -> None:
    check_decoded_or_rejected(json.dumps({"n": first, "words": second, "far": None}))
    check_decoded_or_rejected(json.dumps({"tree": {"type": "Branch", "limbs": [first, second]}}))


@given(values, st.data())
def test_corrupted_arguments_are_decoded_or_rejected(
    value: dict[str, Any], data: st.DataObject
) -> None:
    arguments = msgspec.json.encode(value).decode()
    at = data.draw(st.integers(0, len(arguments)))
    size = data.draw(st.integers(0, 5))
    put = data.draw(st.sampled_from(["", "null", "{", "]", '"', "\\u0000", "1e999", ",", "é"]))
    check_decoded_or_rejected(arguments[:at] + put + arguments[at + size :])


@given(values)
def test_encoded_arguments_decode_to_the_same_values(value: dict[str, Any]) -> None:
    tool = TOOLS[0]
    bound = tool.bind(msgspec.json.encode(value))
    assert {name: bound.arguments[name] for name in value} == value


@given(values)
def test_null_decodes_to_the_default_of_a_parameter_that_does_not_admit_none(
    value: dict[str, Any],
) -> None:
    tool = TOOLS[0]
    names = ("price", "mode", "spot", "raw")
    nulls = {**value, **dict.fromkeys(names)}
    kept = {name: each for name, each in value.items() if name not in names}
    assert tool.bind(msgspec.json.encode(nulls)) == tool.bind(msgspec.json.encode(kept))


def without_defaults(value: Any) -> Any:
    """Return the JSON of a value with `null` in place of each default, at any depth."""
    match value:
        case Leaf(size=size, kind=kind):
            return {
                "type": "Leaf",
                "size": None if size == 1 else size,
                "kind": None if kind is Kind.A else kind,
            }
        case Branch(limbs=limbs, name=name):
            inner = [without_defaults(limb) for limb in limbs]
            return {"type": "Branch", "limbs": inner or None, "name": name}
        case _:
            raise AssertionError(value)


@given(trees)
def test_null_decodes_to_the_default_at_any_depth(tree: Any) -> None:
    wrapped = msgspec.json.encode({"value": without_defaults(tree)})
    assert JSONType[Any](Branch | Leaf).decode(wrapped) == tree
