"""P7, without I/O: what a history plans to send, and what it keeps."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from trio_responses._conversation.history import CommittedTurn, History, TurnPlan
from trio_responses._protocol.continuation import ContinuationPoint, Placement
from trio_responses._protocol.raw_items import RawItems

PLACE = Placement(socket=object(), lane="lane-1")
SETTINGS = b'{"model":"m"}'


def raw(*items: str) -> RawItems:
    """Return items: JSON objects as they are, other texts as the type of an item."""
    return RawItems.join(
        [
            Raw(item.encode() if item.startswith("{") else msgspec.json.encode({"type": item}))
            for item in items
        ]
    )


def texts(pieces: list[RawItems]) -> list[str]:
    return [text_of(item) for items in pieces for item in items]


def text_of(item: Raw) -> str:
    fields = msgspec.json.decode(item)
    return fields["type"] if fields.keys() == {"type"} else bytes(item).decode()


def commit(
    history: History, *items: RawItems, response_id: str, base_revision: int | None = None
) -> None:
    server = None
    if response_id:
        server = ContinuationPoint(placement=PLACE, response_id=response_id, settings=SETTINGS)
    history.commit(
        CommittedTurn(
            base_revision=history.revision if base_revision is None else base_revision,
            items=items,
            server=server,
            pending_steers=(),
            clears_unsent=True,
        )
    )


def plan(history: History, new: RawItems, *, latest: str | None) -> TurnPlan:
    return history.plan(new, SETTINGS, PLACE, lambda _: latest)


def shown(planned: TurnPlan) -> tuple[list[str], str | None]:
    return texts(planned.items), planned.parent


def after_one_turn() -> History:
    history = History()
    commit(history, raw("1"), raw("2"), response_id="resp_1")
    return history


# --- Plans -------------------------------------------------------------------------------


def test_the_first_turn_is_sent_in_full() -> None:
    assert shown(plan(History(), raw("1"), latest=None)) == (["1"], None)


def test_the_second_turn_sends_only_the_new_items() -> None:
    assert shown(plan(after_one_turn(), raw("3"), latest="resp_1")) == (["3"], "resp_1")


def test_full_input_is_the_history_and_the_new_items() -> None:
    assert shown(plan(after_one_turn(), raw("3"), latest=None)) == (["1", "2", "3"], None)


def test_the_lane_of_the_last_turn_is_asked_for_its_latest_response() -> None:
    asked: list[str | None] = []
    fork = Placement(socket=PLACE.socket, lane="lane-2")
    after_one_turn().plan(raw("3"), SETTINGS, fork, asked.append)
    assert asked == ["lane-1"]


def test_a_turn_without_new_items_is_an_empty_delta() -> None:
    """For example after a warm-up that sent the input."""
    history = History()
    commit(history, raw("1"), response_id="resp_1")
    assert shown(plan(history, raw(), latest="resp_1")) == ([], "resp_1")


def test_a_plan_does_not_change_the_history() -> None:
    history = after_one_turn()
    plan(history, raw("3"), latest=None).items.clear()
    assert texts(history.pieces) == ["1", "2"]
    assert (history.revision, history.last_response_id) == (1, "resp_1")


def test_a_server_that_lost_the_response_gets_full_input() -> None:
    history = after_one_turn()
    history.forget_continuation_point(history.revision)
    assert shown(plan(history, raw("3"), latest="resp_1")) == (["1", "2", "3"], None)
    assert history.last_response_id == "resp_1"


# --- Revisions ---------------------------------------------------------------------------


def test_each_turn_is_appended_whole_under_its_own_revision() -> None:
    history = after_one_turn()
    commit(history, raw("3"), raw(), raw("4", "5"), response_id="resp_2")
    assert [(one.number, texts(list(one.items))) for one in history.log] == [
        (1, ["1", "2"]),
        (2, ["3", "4", "5"]),
    ]
    assert (history.revision, history.item_count) == (2, 5)
    assert history.last_response_id == "resp_2"
    assert shown(plan(history, raw(), latest="resp_1"))[1] is None
    assert shown(plan(history, raw(), latest="resp_2")) == ([], "resp_2")


def test_a_replacement_begins_a_new_log_under_the_next_revision() -> None:
    history = after_one_turn()
    history.replace(raw("7", "8"))
    assert [(one.number, texts(list(one.items))) for one in history.log] == [(2, ["7", "8"])]
    assert (history.revision, history.item_count, history.last_response_id) == (2, 2, None)
    assert shown(plan(history, raw("9"), latest="resp_1")) == (["7", "8", "9"], None)


def test_a_turn_of_a_replaced_log_is_counted_but_not_appended() -> None:
    history = after_one_turn()
    planned = plan(history, raw("3"), latest="resp_1")
    history.replace(raw("7"))
    commit(history, raw("3"), response_id="resp_2", base_revision=planned.base_revision)
    history.forget_continuation_point(planned.base_revision)
    assert (texts(history.pieces), history.last_response_id) == (["7"], None)
    assert history.counters.turns == 2
    commit(history, raw("8"), response_id="resp_3")
    history.forget_continuation_point(
        planned.base_revision
    )  # an old turn does not affect the new log
    assert shown(plan(history, raw("9"), latest="resp_3")) == (["9"], "resp_3")


def test_a_response_without_an_id_cannot_be_continued() -> None:
    history = History()
    commit(history, raw("1"), raw("2"), response_id="")
    assert history.last_response_id is None
    assert shown(plan(history, raw("3"), latest="")) == (["1", "2", "3"], None)


def test_a_fork_has_the_same_past_and_its_own_future() -> None:
    history = after_one_turn()
    fork = history.fork()
    assert (fork.revision, fork.item_count) == (1, 2)
    assert shown(plan(fork, raw(), latest="resp_1")) == ([], "resp_1")
    commit(fork, raw("3"), response_id="resp_b")
    commit(history, raw("4"), response_id="resp_c")
    assert (texts(fork.pieces), fork.last_response_id) == (["1", "2", "3"], "resp_b")
    assert (texts(history.pieces), history.last_response_id) == (["1", "2", "4"], "resp_c")
    assert shown(plan(fork, raw(), latest="resp_c"))[1] is None


# --- Raw JSON ----------------------------------------------------------------------------


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
ITEMS = st.lists(st.dictionaries(st.text(), JSON, max_size=3), max_size=4)
TURNS = st.lists(st.tuples(ITEMS, ITEMS, st.booleans()), max_size=5)


def encoded(items: list[object]) -> RawItems:
    return RawItems.join([Raw(msgspec.json.encode(item)) for item in items])


@given(turns=TURNS)
def test_a_server_that_appends_deltas_has_the_history_byte_by_byte(
    turns: list[tuple[list[object], list[object], bool]],
) -> None:
    history, held = History(), list[RawItems]()
    for number, (new, output, server_forgets) in enumerate(turns):
        latest = None if server_forgets else history.last_response_id
        sent, received = encoded(new), encoded(output)
        planned = plan(history, sent, latest=latest)
        assert (planned.parent is not None) == (number > 0 and not server_forgets)
        held = [*(held if planned.parent else []), *planned.items, received]
        commit(history, sent, received, response_id=f"r{number}")
        assert texts(history.pieces) == texts(held)
    items = [item for new, output, _ in turns for item in (*new, *output)]
    assert [msgspec.json.decode(item) for item in history.raw_items] == items
    assert history.item_count == len(items)


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
def test_an_item_is_sent_again_unchanged(item: str) -> None:
    """Order, spaces, escapes and large numbers stay: the raw JSON is not decoded on the way."""
    history = History()
    commit(history, raw(item), response_id="resp_1")
    assert texts(plan(history, raw(), latest=None).items) == [item]
