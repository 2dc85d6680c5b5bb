"""The tables of states: final states, impossible events, and random sequences of server events."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.protocol.test_request_table import error_event, response_event, server_event, undecodable
from trio_responses._protocol.request_table import RequestTable
from trio_responses._protocol.requests import (
    AWAITING,
    READER_TRANSITIONS,
    REQUEST_TRANSITIONS,
    STEER_TRANSITIONS,
    ActiveRequest,
    ReaderState,
    RequestState,
    RequestTrigger,
    SteerInput,
    SteerState,
    SteerTrigger,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from trio_responses._wire import ServerEvent

SENT, STARTED, SUCCESSOR, OUTPUTS, CUT_OFF, DONE, LOST = RequestState


def request_in(state: RequestState) -> ActiveRequest:
    request = ActiveRequest()
    request.state = state
    return request


def reachable(table: Mapping[Any, Mapping[Any, Any]], start: object) -> set[object]:
    """Return the states of a table that events can lead to."""
    found: set[object] = set()
    queue = [start]
    while queue:
        state = queue.pop()
        if state not in found:
            found.add(state)
            queue += table[state].values()
    return found


class TestTables:
    def test_every_state_can_be_reached(self) -> None:
        assert reachable(REQUEST_TRANSITIONS, SENT) == set(RequestState)
        assert reachable(STEER_TRANSITIONS, SteerState.SENT) == set(SteerState)
        reading = reachable(READER_TRANSITIONS, ReaderState.READING)
        assert reading == {ReaderState.READING, ReaderState.ABANDONED}

    def test_every_event_changes_a_state(self) -> None:
        tables = (*REQUEST_TRANSITIONS.values(), *READER_TRANSITIONS.values())
        assert {event for row in tables for event in row} == set(RequestTrigger)
        assert {event for row in STEER_TRANSITIONS.values() for event in row} == set(SteerTrigger)

    @pytest.mark.parametrize("state", RequestState)
    def test_a_request_has_ended_if_no_event_of_its_own_can_follow(
        self, state: RequestState
    ) -> None:
        assert request_in(state).ended is (state in {CUT_OFF, DONE})
        takes_own_events = RequestTrigger.END in REQUEST_TRANSITIONS[state]
        assert takes_own_events is (state not in {CUT_OFF, DONE, LOST})


class TestImpossibleEvents:
    @pytest.mark.parametrize("event", RequestTrigger)
    @pytest.mark.parametrize("state", [DONE, LOST])
    def test_a_request_that_is_over_takes_no_event(
        self, state: RequestState, event: RequestTrigger
    ) -> None:
        with pytest.raises(KeyError):
            request_in(state).advance(event)

    @pytest.mark.parametrize(
        ("state", "event"),
        [
            (SENT, RequestTrigger.BREAK_OFF),
            (STARTED, RequestTrigger.REFUSE),
            (SENT, RequestTrigger.SETTLE_STEERS),
            (STARTED, RequestTrigger.SETTLE_STEERS),
            (SUCCESSOR, RequestTrigger.CONTINUE),
            (STARTED, RequestTrigger.FOLLOW),
            (CUT_OFF, RequestTrigger.CREATE),
        ],
    )
    def test_an_event_that_contradicts_the_state_is_an_error(
        self, state: RequestState, event: RequestTrigger
    ) -> None:
        with pytest.raises(KeyError):
            request_in(state).advance(event)

    def test_a_raw_request_has_no_reader_that_could_abandon_it(self) -> None:
        with pytest.raises(KeyError):
            ActiveRequest().abandon()

    def test_a_turn_may_be_abandoned_twice(self) -> None:
        request = ActiveRequest(reader=ReaderState.READING)
        request.abandon()
        request.abandon()
        assert request.abandoned

    @pytest.mark.parametrize("event", SteerTrigger)
    @pytest.mark.parametrize("state", [SteerState.COMMITTED, SteerState.FAILED])
    def test_a_settled_steering_input_takes_no_event(
        self, state: SteerState, event: SteerTrigger
    ) -> None:
        steer = SteerInput(ActiveRequest(), [])
        steer.state = state
        with pytest.raises(KeyError):
            steer.advance(event)

    @pytest.mark.parametrize("state", [SteerState.SENT, SteerState.UNKNOWN])
    def test_an_input_that_was_not_accepted_is_not_committed(self, state: SteerState) -> None:
        steer = SteerInput(ActiveRequest(), [])
        steer.state = state
        with pytest.raises(KeyError):
            steer.advance(SteerTrigger.COMMIT)


LANES = st.sampled_from([None, "lane-1"])
IDS = st.sampled_from([None, "resp_1", "resp_2"])
CALL = {"type": "function_call", "call_id": "call_1", "name": "f", "arguments": "{}"}


def ended(type_: str, lane: str | None, response_id: str | None, output: list[Any]) -> ServerEvent:
    response = {"output": output} | ({"id": response_id} if response_id else {})
    return server_event(f"response.{type_}", lane, response=response)


def steered(
    word: str, lane: str | None, steer_id: str | None, response_id: str | None
) -> ServerEvent:
    steer = {"id": steer_id, "previous_response_id": response_id}
    fields = {"error": {"code": "invalid_input", "message": "no"}} if word == "failed" else {}
    return server_event(
        f"response.steer.{word}", lane, steer={k: v for k, v in steer.items() if v}, **fields
    )


SERVER_EVENTS = st.one_of(
    st.builds(response_event, st.just("response.created"), IDS, LANES),
    st.builds(
        ended,
        st.sampled_from(["completed", "failed", "incomplete"]),
        LANES,
        IDS,
        st.sampled_from([[], [CALL]]),
    ),
    st.builds(
        steered,
        st.sampled_from(["accepted", "pending", "failed"]),
        LANES,
        st.sampled_from([None, "steer_1", "steer_2"]),
        IDS,
    ),
    st.builds(error_event, st.sampled_from([None, "server_is_overloaded"]), LANES),
    st.builds(undecodable, st.sampled_from(["error", "response.completed"]), LANES),
)
ACTIONS = st.sampled_from(["admit", "admit a turn", "continue", "steer", "withdraw", "close"])


class TestRandomEvents:
    @settings(deadline=None, max_examples=200)
    @given(st.lists(st.tuples(ACTIONS, LANES) | SERVER_EVENTS, max_size=50))
    def test_no_sequence_of_events_leads_to_an_impossible_transition(
        self, steps: list[tuple[str, str | None] | ServerEvent]
    ) -> None:
        table = RequestTable()
        requests: list[ActiveRequest] = []
        for step in steps:
            if isinstance(step, tuple):
                self.act(table, requests, *step)
            else:
                table.route(step)
            unfinished = list(table.unfinished())
            for request in requests:
                active = request.state in {SENT, STARTED, *AWAITING}
                assert active is (request in unfinished)
                if active and request.state not in AWAITING:
                    assert (request.state is STARTED) is (request.response_id is not None)

    @staticmethod
    def act(
        table: RequestTable, requests: list[ActiveRequest], action: str, lane: str | None
    ) -> None:
        oldest = next((one for one in table.unfinished() if one.lane == lane), None)
        if action.startswith(("admit", "continue")):
            reader = ReaderState.READING if action == "admit a turn" else ReaderState.NONE
            parent = oldest.response_id if oldest and action == "continue" else None
            requests.append(ActiveRequest(lane, parent, reader))
            table.admit(requests[-1])
        elif action == "steer" and oldest is not None:
            table.submit_steer(SteerInput(oldest, []))
        elif action == "withdraw" and oldest is not None:
            table.withdraw(oldest)
        elif action == "close":
            table.close()
