"""What a history owes, whenever somebody asks: the state behind runs, without any."""

from typing import Any

import msgspec
import pytest

from trio_responses import Endpoint
from trio_responses._conversation.history import History
from trio_responses._protocol.continuation import Continuation
from trio_responses._protocol.raw_items import RawItems
from trio_responses._turn.request_builder import raw_input

Json = dict[str, Any]

MESSAGE: Json = {"type": "message", "role": "user", "content": "hi"}


def f(name: str) -> Json:
    return {"type": "function_call", "call_id": name, "name": "f", "arguments": "{}"}


def out(name: str, kind: str = "function_call_output") -> Json:
    return {"type": kind, "call_id": name, "output": ""}


def raw(item: Json) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(item))


def ledger_of(*turns: list[Json]) -> History:
    return History(Endpoint.openai(), Continuation([raw_input(turn) for turn in turns if turn]))


def owed(ledger: History) -> list[str]:
    calls = ledger.pending_calls()
    assert ledger.owes == bool(calls)
    return [name for _, name in calls]


@pytest.mark.parametrize("one_by_one", [False, True])
@pytest.mark.parametrize(
    ("items", "left"),
    [
        ([f("a"), MESSAGE, f("b"), f("c"), out("b")], ["a", "c"]),
        ([f("a"), out("a"), f("a")], ["a"]),
        ([f("a"), f("b"), f("a")], ["a", "b"]),
        ([out("a"), f("b")], ["b"]),
        ([f("a"), out("a", "custom_tool_call_output")], ["a"]),
        ([f("a"), out("a")], []),
        ([MESSAGE], []),
    ],
)
def test_calls_are_owed_in_their_order_until_their_own_kind_of_answer(
    items: list[Json], left: list[str], *, one_by_one: bool
) -> None:
    """Also where somebody looks after each of them."""
    if one_by_one:
        ledger = ledger_of()
        for item in items:
            ledger.continuation.history.append(raw_input([item]))
            owed(ledger)
    else:
        ledger = ledger_of(items)
    assert owed(ledger) == left


def test_what_goes_along_counts_as_an_answer() -> None:
    ledger = ledger_of([f("a"), f("b")])
    assert [name for _, name in ledger.pending_calls(but=raw_input([MESSAGE, out("a")]))] == ["b"]
    assert owed(ledger) == ["a", "b"]


def test_an_answer_is_kept_until_the_history_has_it() -> None:
    ledger, key, answer = ledger_of([f("a")]), ("function_call", "a"), raw(out("a"))
    ledger.store_output(key, answer)
    assert (ledger.is_answered(key), ledger.answers) == (True, [answer])
    ledger.continuation.history.append(RawItems.join([answer]))
    assert (ledger.is_answered(key), ledger.answers, owed(ledger)) == (False, [], [])


def test_an_answer_to_a_call_that_is_gone_is_dropped() -> None:
    ledger, key = ledger_of([f("a")]), ("function_call", "a")
    assert owed(ledger) == ["a"]
    ledger.begin_anew(RawItems())
    ledger.store_output(key, raw(out("a")))
    assert (ledger.answers, owed(ledger), ledger.history) == ([], [], [])


@pytest.mark.parametrize("looked", [False, True])
def test_a_branch_owes_the_same_and_answers_for_itself(*, looked: bool) -> None:
    ledger, key, answer = ledger_of([f("a"), f("b")]), ("function_call", "a"), raw(out("a"))
    if looked:
        ledger.store_output(("function_call", "b"), raw(out("b")))
    branch = ledger.branch()
    assert branch.answers == ledger.answers
    branch.store_output(key, answer)
    assert owed(branch) == owed(ledger) == ["a", "b"]
    assert branch.is_answered(key)
    assert not ledger.is_answered(key)


def test_saved_answers_are_those_to_calls_of_the_history() -> None:
    history, answer = Continuation([raw_input([f("a")])]), raw(out("a"))
    ledger = History(Endpoint.openai(), history, [answer, raw(MESSAGE)])
    assert ledger.outputs_for(ledger.pending_calls()) == ledger.answers == [answer]
