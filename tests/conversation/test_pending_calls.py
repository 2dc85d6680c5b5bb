"""The calls of a history without output, and the outputs that wait to be sent; without runs."""

from collections.abc import Iterable
from typing import Any

import msgspec
import pytest

from trio_responses._conversation.history import CallTracker, CommittedTurn, History
from trio_responses._protocol.raw_items import RawItems
from trio_responses._protocol.replay import Origin, Piece
from trio_responses._turn.request_builder import raw_input

Json = dict[str, Any]

MESSAGE: Json = {"type": "message", "role": "user", "content": "hi"}
CALL_A = ("function_call", "a")


def call(name: str) -> Json:
    return {"type": "function_call", "call_id": name, "name": "f", "arguments": "{}"}


def output(name: str, kind: str = "function_call_output") -> Json:
    return {"type": kind, "call_id": name, "output": ""}


def raw(item: Json) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(item))


def commit(history: History, items: Iterable[Json]) -> None:
    history.commit(
        CommittedTurn(
            base_revision=history.revision,
            items=(raw_input(list(items)),),
            server=None,
            pending_steers=(),
            clears_unsent=True,
        )
    )


def pieces_of(*items: Json) -> list[Piece]:
    return [Piece(raw_input(items), Origin())]


def history_of(*items: Json) -> History:
    return History(pieces_of(*items))


def call_ids(calls: CallTracker) -> list[str]:
    pending = calls.pending_calls()
    assert calls.has_pending_calls == bool(pending)
    return [call_id for _, call_id in pending]


@pytest.mark.parametrize("tracked", ["before each item", "after all items", "from the start"])
@pytest.mark.parametrize(
    ("items", "pending"),
    [
        ([call("a"), MESSAGE, call("b"), call("c"), output("b")], ["a", "c"]),
        ([call("a"), output("a"), call("a")], ["a"]),
        ([call("a"), call("b"), call("a")], ["a", "b"]),
        ([output("a"), call("b")], ["b"]),
        ([call("a"), output("a", "custom_tool_call_output")], ["a"]),
        ([call("a"), output("a")], []),
        ([MESSAGE], []),
    ],
)
def test_calls_are_pending_in_order_until_an_output_of_their_own_kind(
    items: list[Json], pending: list[str], tracked: str
) -> None:
    if tracked == "from the start":
        history = history_of(*items)
    else:
        history = history_of()
        for item in items:
            if tracked == "before each item":
                history.track_calls()
            commit(history, [item])
    assert call_ids(history.track_calls()) == pending


def test_an_output_among_the_new_items_answers_a_call() -> None:
    calls = history_of(call("a"), call("b")).track_calls()
    new = raw_input([MESSAGE, output("a")])
    assert [call_id for _, call_id in calls.pending_calls(answered_by=new)] == ["b"]
    assert call_ids(calls) == ["a", "b"]


def test_an_output_is_stored_until_the_history_has_it() -> None:
    history, stored = history_of(call("a")), raw(output("a"))
    calls = history.track_calls()
    calls.store_output(CALL_A, stored)
    assert (calls.has_unsent_output(CALL_A), history.unsent_outputs) == (True, [stored])
    commit(history, [output("a")])
    assert (calls.has_unsent_output(CALL_A), history.unsent_outputs) == (False, [])
    assert call_ids(calls) == []


def test_an_output_for_a_call_that_was_replaced_is_discarded() -> None:
    history = history_of(call("a"))
    calls = history.track_calls()
    history.replace(RawItems())
    calls.store_output(CALL_A, raw(output("a")))
    assert (history.unsent_outputs, call_ids(calls), history.raw_items) == ([], [], [])


@pytest.mark.parametrize(("window", "kept"), [([call("a")], True), ([MESSAGE], False)])
def test_an_output_stays_if_the_new_log_has_its_call(window: list[Json], *, kept: bool) -> None:
    history = history_of(call("a"))
    history.track_calls().store_output(CALL_A, raw(output("a")))
    history.replace(raw_input(window))
    assert history.track_calls().has_unsent_output(CALL_A) == kept


@pytest.mark.parametrize("tracked", [False, True])
def test_a_fork_has_the_same_calls_and_stores_its_own_outputs(*, tracked: bool) -> None:
    history = history_of(call("a"), call("b"))
    if tracked:
        history.track_calls().store_output(("function_call", "b"), raw(output("b")))
    fork = history.fork()
    assert fork.unsent_outputs == history.unsent_outputs
    fork.track_calls().store_output(CALL_A, raw(output("a")))
    assert call_ids(fork.track_calls()) == call_ids(history.track_calls()) == ["a", "b"]
    assert fork.track_calls().has_unsent_output(CALL_A)
    assert not history.track_calls().has_unsent_output(CALL_A)


def test_outputs_of_a_checkpoint_are_matched_to_the_calls_of_the_history() -> None:
    saved = raw(output("a"))
    history = History(pieces_of(call("a")), unsent_outputs=[saved, raw(MESSAGE)])
    calls = history.track_calls()
    assert calls.outputs_for(calls.pending_calls()) == history.unsent_outputs == [saved]


def test_queries_change_nothing() -> None:
    history = history_of(call("a"))
    calls = history.track_calls()
    calls.store_output(CALL_A, raw(output("a")))
    seen = [
        (history.revision, history.raw_items, history.unsent_outputs, call_ids(calls), calls)
        for _ in range(2)
        if calls.outputs_for(calls.pending_calls()) and history.track_calls() is calls
    ]
    assert seen[0] == seen[1]
