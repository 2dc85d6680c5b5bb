"""The data in JSON that is still being written is a prefix of the whole, and costs its size."""

import json
import sys
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_responses._protocol.partial_json import OpenObject, PartialJSON
from trio_responses._wire.nesting import MAX_DECODED_LEVELS

# Surrogates are no characters; those beyond U+FFFF are written as pairs of escapes.
texts = st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from('\\"\n/u😀\ud7ff'))
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)


def data_of(reader: PartialJSON) -> Any:
    """Return the data so far; ``UNSET`` if there is none."""
    if reader.root is not msgspec.UNSET:
        return reader.root
    inner: Any = msgspec.UNSET if reader.text is None else reader.text
    for level in reversed(reader.levels):
        data: Any = level.data.copy()
        if inner is not msgspec.UNSET and isinstance(level, OpenObject):
            data[level.key] = inner
        elif inner is not msgspec.UNSET:
            data.append(inner)
        inner = data
    return inner


def read(*pieces: str) -> Any:
    reader = PartialJSON()
    for piece in pieces:
        reader.feed(piece)
    return data_of(reader)


def is_prefix(part: Any, whole: Any) -> bool:
    """Whether a value is an earlier state of another one."""
    kind: Any = part.__class__
    if kind is not type(whole):
        return False
    if kind is str:
        return bool(whole.startswith(part))
    if kind is list and part:
        last = len(part) - 1
        return part[:last] == whole[:last] and is_prefix(part[last], whole[last])
    if kind is dict and part:
        *done, last = part
        same = all(part[key] == whole[key] for key in done)
        return same and is_prefix(part[last], whole[last])
    return not part if kind in {list, dict} else bool(part == whole)


# --- Whole documents -----------------------------------------------------------------------


@given(value=values, data=st.data(), ascii_only=st.booleans(), indent=st.sampled_from([None, 1]))
def test_each_partial_is_a_prefix_and_the_last_one_is_the_value(
    value: Any,
    data: st.DataObject,
    ascii_only: bool,  # noqa: FBT001 - drawn
    indent: int | None,
) -> None:
    whole = json.dumps(value, ensure_ascii=ascii_only, indent=indent) + "\n"  # ends a number
    cuts = data.draw(st.lists(st.integers(0, len(whole)), max_size=20))
    borders = sorted({0, *cuts, len(whole)})
    reader = PartialJSON()
    before: Any = msgspec.UNSET
    for start, end in pairwise(borders):
        changed = reader.feed(whole[start:end])
        partial = data_of(reader)
        assert changed or partial == before
        assert partial is msgspec.UNSET or is_prefix(partial, json.loads(whole))
        assert before is msgspec.UNSET or is_prefix(before, partial)
        before = partial
    assert before == json.loads(whole)
    assert reader.root == before


@given(value=values)
def test_a_split_at_each_character_changes_nothing(value: Any) -> None:
    whole = json.dumps(value) + " "
    assert read(*whole) == read(whole) == value


# --- What counts, and from when on ---------------------------------------------------------


SO_FAR: list[tuple[str, Any]] = [
    ("", msgspec.UNSET),
    (" \n", msgspec.UNSET),
    ("{", {}),
    ('{"ci', {}),
    ('{"city"', {}),
    ('{"city":', {}),
    ('{"city": "', {"city": ""}),
    ('{"city": "Os', {"city": "Os"}),
    ('{"city": "Oslo"', {"city": "Oslo"}),
    ('{"city": "Oslo", "deg', {"city": "Oslo"}),
    ('{"degrees": 1', {}),
    ('{"degrees": 12.5e', {}),
    ('{"degrees": 12}', {"degrees": 12}),
    ('{"warm": tru', {}),
    ('{"warm": true', {"warm": True}),
    ('{"warm": null', {"warm": None}),
    ('{"days": [', {"days": []}),
    ('{"days": [{', {"days": [{}]}),
    ('{"days": [{"n": 1}, {"n": 2', {"days": [{"n": 1}, {}]}),
    ('{"a": 1, "a": "x', {"a": "x"}),
    ("[1, [], 2", [1, []]),
    ("[0, -0.5, 1E2, ", [0, -0.5, 100.0]),
    ('"so f', "so f"),
    ("12", msgspec.UNSET),
    ("false", False),
]


@pytest.mark.parametrize(("text", "expected"), SO_FAR)
def test_the_data_so_far(text: str, expected: Any) -> None:
    assert read(text) == read(*text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r'"a\n', "a\n"),
        ('"a\\', "a"),
        (r'"a\u', "a"),
        (r'"a\u00e', "a"),
        (r'"a\u00e9', "aé"),
        (r'"a\\', "a\\"),
        (r'"\\ud83d', r"\ud83d"),
        (r'"a\ud83d', "a"),
        ('"a\\ud83d\\', "a"),
        (r'"a\ud83d\ude0', "a"),
        (r'"a\ud83d\ude00', "a😀"),
        (r'"a\ud83dx', "a\ufffdx"),
        (r'"a\ud83d\n', "a\ufffd\n"),
        (r'"a\ud83d"', "a\ufffd"),
        (r'"a\ud83d\ud83d\ude00"', "a\ufffd😀"),
        (r'"a\ude00', "a\ufffd"),
    ],
)
def test_half_an_escape_waits_for_its_other_half(text: str, expected: str) -> None:
    assert read(text) == read(*text) == expected


def test_a_piece_that_adds_no_data_changes_nothing() -> None:
    reader = PartialJSON()
    pieces = ["", "{", ' "ke', 'y" ', ": ", "1", "2", ",", '"b":"', "x", '"', "\n", "}", " "]
    changing = [piece for piece in pieces if reader.feed(piece)]
    assert changing == ["{", ",", '"b":"', "x", '"', "}"]


def test_a_repeated_key_is_listed_repeatedly() -> None:
    reader = PartialJSON()
    reader.feed('{"a": 1, "b": 2, "a": 3, ')
    (level,) = reader.levels
    assert isinstance(level, OpenObject)
    assert level.keys == ["a", "b", "a"]
    assert level.data == {"a": 3, "b": 2}


# --- What is no JSON -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Warm", "no value starts with 'W'"),
        ("{}}", "text after the end of the JSON: '}'"),
        ("{} {", "text after the end"),
        ("{,", "',' in place of '\"'"),
        ('{"a" 1', "'1' in place of ':'"),
        ('{"a": 1]', "']' in place of ','"),
        ('{"a": 1,}', "'}' in place of '\"'"),
        ("[1}", "'}' in place of ','"),
        ("[1,]", "no value starts with ']'"),
        ("[01,", "an invalid number"),
        ("[1.,", "an invalid number"),
        ("[-,", "an invalid number"),
        ("[1e+]", "an invalid number"),
        ("[NaN]", "no value starts with 'N'"),
        ("[nul]", "a word other than"),
        ("[nup", "a word other than"),
        ("[truely", "a word other than|'l' in place of ','"),
        (r'"\x', "an invalid escape sequence"),
        (r'"\u12g', "an invalid escape sequence"),
        (r'"\ud83d\u12"', "an invalid escape sequence"),
        ('"a\nb"', "a control character"),
    ],
)
def test_text_that_is_not_json_is_refused(text: str, reason: str) -> None:
    for pieces in ([text], [*text]):
        with pytest.raises(ValueError, match=reason):
            read(*pieces)


def test_a_number_of_too_many_digits_is_refused() -> None:
    with pytest.raises(ValueError, match="limit"):
        read("[" + "1" * (sys.get_int_max_str_digits() + 1) + "]")


def test_the_levels_of_nesting_have_a_limit() -> None:
    assert read("[" * MAX_DECODED_LEVELS + "]" * MAX_DECODED_LEVELS)
    with pytest.raises(RecursionError, match="more than 200 levels"):
        read('{"a":' * (MAX_DECODED_LEVELS + 1))


# --- Cost ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "part",
    ['{"a": [1, "x\\u00e9y"]},', '"' + "x" * 40 + '",', "1" * 40 + ",", "[" * 9 + "]" * 9 + ","],
)
@pytest.mark.parametrize("size", [1, 7])
def test_the_calls_are_in_proportion_to_the_text(part: str, size: int) -> None:
    few, many = (count_calls("[" + part * times, size) for times in (100, 400))
    assert many < 4.2 * few


def count_calls(text: str, size: int) -> int:
    """Return how many functions are called to read a text in pieces of a size."""
    reader = PartialJSON()
    calls = 0

    def count(_frame: object, event: str, _argument: object) -> None:
        nonlocal calls
        calls += event in {"call", "c_call"}

    sys.setprofile(count)
    try:
        for start in range(0, len(text), size):
            reader.feed(text[start : start + size])
    finally:
        sys.setprofile(None)
    return calls
