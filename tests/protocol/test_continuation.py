"""P7, without I/O: when a turn is sent as a delta, and which settings it repeats."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from trio_responses._protocol.continuation import (
    ContinuationPoint,
    Placement,
    ServerTraits,
    canonical_settings,
    parent_of_delta,
    with_encrypted_reasoning,
)
from trio_responses._wire import FunctionToolParam

ENCRYPTED = "reasoning.encrypted_content"
SOCKET = object()
PLACE = Placement(socket=SOCKET, lane="lane-1")
SETTINGS = b'{"model":"m"}'


def held(place: Placement = PLACE, *, stored: bool = False) -> ContinuationPoint:
    return ContinuationPoint(
        placement=place, response_id="resp_1", settings=SETTINGS, stored=stored
    )


# --- Delta or full input -----------------------------------------------------------------


def test_the_first_turn_has_no_parent() -> None:
    assert parent_of_delta(None, SETTINGS, PLACE, None) is None


def test_the_latest_response_of_the_lane_is_the_parent() -> None:
    assert parent_of_delta(held(), SETTINGS, PLACE, "resp_1") == "resp_1"


def test_another_lane_of_the_same_socket_can_continue_the_response() -> None:
    """A fork does so: the response is the latest one of the lane that the fork came from."""
    fork = Placement(socket=SOCKET, lane="lane-2")
    assert parent_of_delta(held(), SETTINGS, fork, "resp_1") == "resp_1"


class EqualToAll:
    """An object that compares equal to every other one."""

    def __eq__(self, other: object) -> bool:
        return True

    def __hash__(self) -> int:
        return 0


@pytest.mark.parametrize("socket", [object(), EqualToAll(), None])
def test_another_socket_gets_full_input(socket: object) -> None:
    first = held(Placement(socket=EqualToAll(), lane="lane-1"))
    second = Placement(socket=socket, lane="lane-1")
    assert parent_of_delta(first, SETTINGS, second, "resp_1") is None


@pytest.mark.parametrize(("socket", "latest"), [(object(), None), (SOCKET, "resp_2")])
def test_a_stored_response_can_be_continued_everywhere(socket: object, latest: str | None) -> None:
    """``store=True`` and a finished response: by id on a new socket (docs/protocol.md, 5.8)."""
    place = Placement(socket=socket, lane="lane-2")
    assert parent_of_delta(held(stored=True), SETTINGS, place, latest) == "resp_1"
    assert parent_of_delta(held(stored=True), b"other", place, latest) is None


@pytest.mark.parametrize(
    ("made_by", "sent_to", "parent"),
    [
        ("one", "one", "resp_1"),
        ("one", "two", None),
        (None, "two", "resp_1"),
        ("one", None, "resp_1"),
    ],
)
def test_a_stored_response_is_continued_at_its_endpoint_alone(
    made_by: str | None, sent_to: str | None, parent: str | None
) -> None:
    first = held(
        Placement(socket=object(), lane=None, server=ServerTraits(name=made_by)), stored=True
    )
    second = Placement(socket=object(), lane=None, server=ServerTraits(name=sent_to))
    assert parent_of_delta(first, SETTINGS, second, None) == parent


def test_settings_that_need_not_be_equal_are_not_compared() -> None:
    assert parent_of_delta(held(), None, PLACE, "resp_1") == "resp_1"
    assert parent_of_delta(held(), None, PLACE, "resp_2") is None


@pytest.mark.parametrize("latest", [None, "", "resp_2"])
def test_a_lane_whose_latest_response_is_another_one_gets_full_input(latest: str | None) -> None:
    assert parent_of_delta(held(), SETTINGS, PLACE, latest) is None


def test_other_settings_get_full_input() -> None:
    assert parent_of_delta(held(), b'{"model":"n"}', PLACE, "resp_1") is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


# --- Settings ----------------------------------------------------------------------------


def one_form(settings: dict[str, Any]) -> bytes:
    return canonical_settings(msgspec.json.encode(settings))


EVERY_SETTING: dict[str, object] = {
    "model": "m",
    "instructions": "Be brief.",
    "store": False,
    "tools": [{"type": "function", "name": "f", "parameters": {"type": "object"}}],
    "tool_choice": "auto",
    "parallel_tool_calls": True,
    "max_tool_calls": 3,
    "max_output_tokens": 100,
    "reasoning": {"effort": "low", "summary": "auto"},
    "text": {"format": {"type": "text"}},
    "temperature": 0.5,
    "top_p": 0.9,
    "include": [ENCRYPTED],
    "metadata": {"a": "b"},
    "context_management": [{"type": "compaction", "compact_threshold": 1000}],
    "prompt_cache_key": "k",
    "service_tier": "auto",
    "truncation": "disabled",
    "extra": {"from_the_future": [1, 2]},
}


@pytest.mark.parametrize("name", EVERY_SETTING)
@pytest.mark.parametrize("change", ["other", "missing"])
def test_a_difference_in_any_setting_is_noticed(name: str, change: str) -> None:
    """Settings are not inherited, so a delta has to repeat all of them."""
    changed = {**EVERY_SETTING, name: "another value"}
    if change == "missing":
        del changed[name]
    assert one_form(changed) != one_form(EVERY_SETTING)


def test_a_difference_inside_a_setting_is_noticed() -> None:
    changed = {**EVERY_SETTING, "reasoning": {"effort": "high", "summary": "auto"}}
    assert one_form(changed) != one_form(EVERY_SETTING)
    assert one_form({"tools": [1, 2]}) != one_form({"tools": [2, 1]})


@given(settings=st.dictionaries(st.text(), JSON, max_size=4), data=st.data())
def test_the_order_of_keys_does_not_matter(
    settings: dict[str, object], data: st.DataObject
) -> None:
    names = data.draw(st.permutations(list(settings)))
    shuffled = {name: settings[name] for name in names}
    assert one_form(shuffled) == one_form(settings)
    assert msgspec.json.decode(one_form(settings)) == settings


def test_the_order_of_inner_keys_does_not_matter_in_any_form_of_a_tool() -> None:
    parameters: dict[str, Any] = {"type": "object", "properties": {}}
    plain: dict[str, Any] = {
        "type": "function",
        "name": "f",
        "strict": True,
        "parameters": parameters,
    }
    mixed = {name: plain[name] for name in reversed(plain)}
    encoded = Raw(msgspec.json.format(msgspec.json.encode(mixed), indent=2))
    forms: list[Any] = [
        plain,
        mixed,
        encoded,
        FunctionToolParam(name="f", strict=True, parameters=parameters),
    ]
    assert len({one_form({"tools": [form]}) for form in forms}) == 1


# --- Encrypted reasoning -----------------------------------------------------------------


@pytest.mark.parametrize("store", [{}, {"store": True}, {"store": None}])
@pytest.mark.parametrize("include", [{}, {"include": None}, {"include": ["a"]}])
def test_encrypted_reasoning_is_not_requested_if_the_server_stores_responses(
    store: dict[str, object], include: dict[str, object]
) -> None:
    settings = {**store, **include}
    assert with_encrypted_reasoning(settings) == settings


@pytest.mark.parametrize(
    ("given_include", "asked"),
    [
        ({}, [ENCRYPTED]),
        ({"include": None}, [ENCRYPTED]),
        ({"include": []}, [ENCRYPTED]),
        ({"include": ("a", "b")}, ["a", "b", ENCRYPTED]),
        ({"include": [ENCRYPTED, "a"]}, [ENCRYPTED, "a"]),
    ],
)
def test_without_a_store_encrypted_reasoning_is_requested_once_beside_other_fields(
    given_include: dict[str, object], asked: list[str]
) -> None:
    settings = {"store": False, **given_include}
    before = dict(settings)
    assert list(with_encrypted_reasoning(settings)["include"]) == asked
    assert settings == before
