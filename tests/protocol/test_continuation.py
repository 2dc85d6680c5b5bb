"""P7, without I/O: when a delta goes out, what it carries, and what the history keeps."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from trio_responses._protocol.continuation import (
    Continuation,
    Placement,
    RequestInput,
    canonical,
    with_encrypted_reasoning,
)
from trio_responses._protocol.raw_items import RawItems
from trio_responses._wire import FunctionToolParam

ENCRYPTED = "reasoning.encrypted_content"
SOCKET = object()
PLACE = Placement(socket=SOCKET, lane="lane-1")
SETTINGS = b'{"model":"m"}'


def raw(*items: str) -> RawItems:
    return RawItems.join([Raw(item.encode()) for item in items])


def texts(pieces: list[RawItems]) -> list[str]:
    return [bytes(item).decode() for items in pieces for item in items]


def commit(
    chain: Continuation, *items: RawItems, name: str, place: Placement = PLACE, stored: bool = False
) -> None:
    chain.commit(*items, response_id=name, settings=SETTINGS, placement=place, stored=stored)


def after_one_turn() -> Continuation:
    chain = Continuation()
    commit(chain, raw("1"), raw("2"), name="resp_1")
    return chain


def shown(plan: RequestInput) -> tuple[list[str], str | None]:
    return texts(plan.items), plan.previous_response_id


# --- The plan ----------------------------------------------------------------------------


def test_the_first_turn_is_sent_in_full() -> None:
    assert shown(Continuation().plan(raw("1"), SETTINGS, PLACE, None)) == (["1"], None)


def test_the_second_turn_carries_the_new_items_alone() -> None:
    plan = after_one_turn().plan(raw("3"), SETTINGS, PLACE, "resp_1")
    assert shown(plan) == (["3"], "resp_1")


def test_another_lane_of_the_same_socket_can_continue_it() -> None:
    """That is a fork: the socket finds the parent as the latest response of its lane."""
    fork = Placement(socket=SOCKET, lane="lane-2")
    assert shown(after_one_turn().plan(raw("3"), SETTINGS, fork, "resp_1")) == (["3"], "resp_1")


class EqualToAll:
    """Compares equal, and is another one."""

    def __eq__(self, other: object) -> bool:
        return True

    def __hash__(self) -> int:
        return 0


@pytest.mark.parametrize("socket", [object(), EqualToAll(), None])
def test_another_socket_gets_full_input(socket: object) -> None:
    place = Placement(socket=socket, lane="lane-1")
    chain = Continuation()
    first = Placement(socket=EqualToAll(), lane="lane-1")
    commit(chain, raw("1", "2"), name="resp_1", place=first)
    assert shown(chain.plan(raw("3"), SETTINGS, place, "resp_1")) == (["1", "2", "3"], None)


@pytest.mark.parametrize(("socket", "latest"), [(object(), None), (SOCKET, "resp_2")])
def test_what_is_stored_can_be_continued_from_everywhere(
    socket: object, latest: str | None
) -> None:
    """``store=True`` and a finished response: by id on a new socket (docs/protocol.md, 5.8)."""
    chain, place = Continuation(), Placement(socket=socket, lane="lane-2")
    commit(chain, raw("1"), raw("2"), name="resp_1", stored=True)
    assert shown(chain.plan(raw("3"), SETTINGS, place, latest)) == (["3"], "resp_1")
    assert shown(chain.plan(raw("3"), b"other", place, latest)) == (["1", "2", "3"], None)


def test_what_is_held_back_for_the_next_turn_goes_on_with_any_settings() -> None:
    chain = after_one_turn()
    assert shown(chain.plan(raw("3"), None, PLACE, "resp_1")) == (["3"], "resp_1")
    assert shown(chain.plan(raw("3"), None, PLACE, "resp_2"))[1] is None


@pytest.mark.parametrize("latest", [None, "", "resp_2"])
def test_a_lane_that_has_gone_on_or_forgotten_gets_full_input(latest: str | None) -> None:
    plan = after_one_turn().plan(raw("3"), SETTINGS, PLACE, latest)
    assert shown(plan) == (["1", "2", "3"], None)


def test_other_settings_get_full_input() -> None:
    other = b'{"model":"n"}'
    assert shown(after_one_turn().plan(raw("3"), other, PLACE, "resp_1"))[1] is None


def test_a_turn_without_new_items_is_an_empty_delta() -> None:
    """After a warm-up that brought the input, for one."""
    chain = Continuation()
    commit(chain, raw("1"), name="resp_1")
    assert shown(chain.plan(raw(), SETTINGS, PLACE, "resp_1")) == ([], "resp_1")


def test_a_plan_changes_nothing() -> None:
    chain = after_one_turn()
    plan = chain.plan(raw("3"), SETTINGS, PLACE, None)
    plan.items.clear()
    assert texts(chain.history) == ["1", "2"]
    assert chain.last_response_id == "resp_1"


# --- The history -------------------------------------------------------------------------


def test_a_turn_that_ended_well_is_in_the_history_and_is_the_baseline() -> None:
    chain = after_one_turn()
    commit(chain, raw("3"), raw("4"), name="resp_2")
    assert texts(chain.history) == ["1", "2", "3", "4"]
    assert chain.last_response_id == "resp_2"
    assert shown(chain.plan(raw(), SETTINGS, PLACE, "resp_1"))[1] is None
    assert shown(chain.plan(raw(), SETTINGS, PLACE, "resp_2")) == ([], "resp_2")


def test_a_response_without_an_id_is_nothing_to_continue_from() -> None:
    chain = Continuation()
    commit(chain, raw("1"), raw("2"), name="")
    assert chain.last_response_id is None
    assert chain.baseline is None
    assert shown(chain.plan(raw("3"), SETTINGS, PLACE, "")) == (["1", "2", "3"], None)


def test_a_branch_has_the_same_past_and_a_future_of_its_own() -> None:
    chain = after_one_turn()
    branch = chain.branch()
    assert shown(branch.plan(raw(), SETTINGS, PLACE, "resp_1")) == ([], "resp_1")
    commit(branch, raw("3"), name="resp_b")
    commit(chain, raw("4"), name="resp_c")
    assert (texts(branch.history), branch.last_response_id) == (["1", "2", "3"], "resp_b")
    assert (texts(chain.history), chain.last_response_id) == (["1", "2", "4"], "resp_c")
    assert branch.baseline != chain.baseline


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def encoded(items: list[object]) -> RawItems:
    return RawItems.join([Raw(msgspec.json.encode(item)) for item in items])


ITEMS = st.lists(st.dictionaries(st.text(), JSON, max_size=3), max_size=4)
TURNS = st.lists(st.tuples(ITEMS, ITEMS, st.booleans()), max_size=5)


@given(turns=TURNS)
def test_deltas_and_full_input_tell_the_same_story(
    turns: list[tuple[list[object], list[object], bool]],
) -> None:
    """P7: a server that puts deltas behind what it holds has the history, to the byte."""
    chain, held = Continuation(), list[RawItems]()
    for number, (new, output, forgets) in enumerate(turns):
        latest = None if forgets else chain.last_response_id
        asked, answer = encoded(new), encoded(output)
        plan = chain.plan(asked, SETTINGS, PLACE, latest)
        assert (plan.previous_response_id is not None) == (number > 0 and not forgets)
        held = [*(held if plan.previous_response_id else []), *plan.items, answer]
        commit(chain, asked, answer, name=f"r{number}")
        assert texts(chain.history) == texts(held)
    said = [item for new, output, _ in turns for item in (*new, *output)]
    assert [msgspec.json.decode(item) for item in texts(chain.history)] == said


@pytest.mark.parametrize(
    "item",
    [
        '{"type":"from_the_future","b":1,"a":2}',
        '{"text":"\\u00e4 ä \\ud83d\\ude00 \\/"}',
        '{ "n" : 1.0 , "m" : 1e2 }',
        '{"n":123456789012345678901234567890}',
        '{"same":1,"same":2}',
    ],
)
def test_an_item_goes_back_as_it_came(item: str) -> None:
    """Order, spaces, escapes, large numbers: raw JSON is not read on its way."""
    chain = Continuation()
    commit(chain, raw(item), name="resp_1")
    assert texts(chain.plan(raw(), SETTINGS, PLACE, None).items) == [item]


# --- Settings ----------------------------------------------------------------------------


def one_form(settings: dict[str, Any]) -> bytes:
    return canonical(msgspec.json.encode(settings))


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
def test_every_single_setting_that_differs_is_seen(name: str, change: str) -> None:
    """Settings are not inherited, so a delta has to repeat them all."""
    changed = {**EVERY_SETTING, name: "another value"}
    if change == "missing":
        del changed[name]
    assert one_form(changed) != one_form(EVERY_SETTING)


def test_a_setting_that_differs_in_depth_is_seen() -> None:
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


def test_the_order_of_inner_keys_does_not_matter_however_they_are_given() -> None:
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


# --- Reasoning that can be replayed ------------------------------------------------------


@pytest.mark.parametrize("store", [{}, {"store": True}, {"store": None}])
@pytest.mark.parametrize("include", [{}, {"include": None}, {"include": ["a"]}])
def test_what_the_server_stores_is_not_asked_for(
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
def test_without_a_store_reasoning_is_asked_for_once_beside_what_was_asked_for(
    given_include: dict[str, object], asked: list[str]
) -> None:
    settings = {"store": False, **given_include}
    before = dict(settings)
    assert list(with_encrypted_reasoning(settings)["include"]) == asked
    assert settings == before
