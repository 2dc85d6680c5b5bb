"""The outcomes of steering inputs (docs/protocol.md, 5.7): one by one, and in random orders."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.protocol.test_request_table import (
    LANES,
    admit,
    complete,
    error_event,
    response_event,
    server_event,
    start,
)
from trio_responses._protocol.request_table import RequestTable
from trio_responses._protocol.requests import ActiveRequest, ReaderState, SteerInput, SteerState

if TYPE_CHECKING:
    from tests.protocol.test_request_table import Lane
    from trio_responses._wire import ServerEvent

SENT, ACCEPTED, PENDING, COMMITTED, FAILED, UNKNOWN = SteerState
DELTA = "response.output_text.delta"
SOME_TEXT = [msgspec.Raw(b'{"role":"user","content":"Rather in Oslo."}')]


@pytest.fixture
def lanes() -> RequestTable:
    return RequestTable()


def submit(lanes: RequestTable, request: ActiveRequest) -> SteerInput:
    steer = SteerInput(request, SOME_TEXT)
    lanes.submit_steer(steer)
    return steer


def steer_event(
    word: str, steer_id: str | None = None, lane: Lane = None, **fields: Any
) -> ServerEvent:
    steer = {name: value for name, value in fields.items() if name == "previous_response_id"}
    if steer_id is not None:
        steer["id"] = steer_id
    fields.pop("previous_response_id", None)
    return server_event(f"response.steer.{word}", lane, steer=steer, **fields)


def steer_failed(code: str = "response_not_active", **fields: Any) -> ServerEvent:
    return steer_event("failed", error={"code": code, "message": "no"}, **fields)


@pytest.fixture
def request_(lanes: RequestTable) -> ActiveRequest:
    """A request whose response has started as resp_1."""
    request = admit(lanes)
    start(lanes, "resp_1")
    return request


CALL = {"type": "function_call", "call_id": "call_1", "name": "f", "arguments": "{}"}
OUTPUT = {"type": "function_call_output", "call_id": "call_1", "output": "cold"}


def end_with(*output: dict[str, str]) -> ServerEvent:
    return server_event("response.completed", response={"id": "resp_1", "output": output})


class TestEndings:
    """The four outcomes of the guide."""

    @pytest.mark.parametrize("ending", ["response.incomplete", "response.completed"])
    def test_a_successor_belongs_to_the_same_request(
        self, lanes: RequestTable, request_: ActiveRequest, ending: str
    ) -> None:
        following = admit(lanes)
        steer = submit(lanes, request_)
        assert lanes.route(steer_event("accepted", "steer_1")) is request_
        assert (steer.state, steer.id) == (ACCEPTED, "steer_1")
        assert lanes.route(response_event(ending, "resp_1")) is request_
        assert not request_.ended
        assert lanes.latest_response(None) == "resp_1"
        start(lanes, "resp_2")
        assert (steer.state, steer.successor) == (COMMITTED, "resp_2")
        assert lanes.route(server_event(DELTA)) is request_
        assert complete(lanes, "resp_2") is request_
        assert request_.ended
        assert lanes.route(server_event(DELTA)) is None
        start(lanes, "resp_3")
        assert lanes.route(server_event(DELTA)) is following
        assert (lanes.requests_ended, lanes.responses_ended) == (1, 2)
        assert lanes.previous_response_id == lanes.latest_response(None) == "resp_2"

    @pytest.mark.parametrize("ending", ["response.incomplete", "response.completed"])
    def test_a_step_between_a_response_and_its_successor_has_no_owner(
        self, lanes: RequestTable, request_: ActiveRequest, ending: str
    ) -> None:
        submit(lanes, request_)
        lanes.route(steer_event("accepted", "steer_1"))
        lanes.route(response_event(ending, "resp_1"))
        assert lanes.route(server_event(DELTA)) is None
        start(lanes, "resp_2")
        assert lanes.route(server_event(DELTA)) is request_

    def test_pending_inputs_end_the_request(
        self, lanes: RequestTable, request_: ActiveRequest
    ) -> None:
        steers = [submit(lanes, request_), submit(lanes, request_)]
        for number in (1, 2):
            lanes.route(steer_event("accepted", f"steer_{number}"))
        complete(lanes, "resp_1")
        stub = {"type": "function_call_output", "call_id": "call_1"}
        lanes.route(steer_event("pending", "steer_1", required_input=[stub]))
        assert not request_.ended
        assert lanes.route(steer_event("pending", "steer_2", required_input=[stub])) is request_
        assert request_.ended
        assert [one.state for one in steers] == [PENDING] * 2
        assert steers[0].required_input[0].call_id == "call_1"
        continuation = admit(lanes, parent="resp_1")
        start(lanes, "resp_2")
        assert [one.state for one in steers] == [COMMITTED] * 2
        assert {one.successor for one in steers} == {"resp_2"}
        assert complete(lanes, "resp_2") is continuation

    @pytest.mark.parametrize("started", [True, False])
    def test_early_outputs_end_the_request_of_the_calls(
        self, lanes: RequestTable, request_: ActiveRequest, *, started: bool
    ) -> None:
        steers = [submit(lanes, request_), submit(lanes, request_)]
        lanes.route(steer_event("accepted", "steer_1"))
        lanes.route(end_with(CALL))
        continuation = admit(lanes, parent="resp_1")
        if started:
            start(lanes, "resp_2")
            assert request_.ended
        assert complete(lanes, "resp_2") is continuation
        assert [one.state for one in steers] == [COMMITTED, SENT]
        assert steers[0].successor == "resp_2"
        assert not list(lanes.unfinished())

    @pytest.mark.parametrize("parent", [None, "resp_0", "resp_1"])
    @pytest.mark.parametrize("output", [[], [CALL], [CALL, OUTPUT]])
    @pytest.mark.parametrize("reader", [ReaderState.READING, ReaderState.NONE])
    def test_the_next_response_is_a_successor_in_every_other_case(
        self, parent: str | None, output: list[dict[str, str]], reader: ReaderState
    ) -> None:
        lanes = RequestTable()
        request = admit(lanes, reader=reader)
        start(lanes, "resp_1")
        submit(lanes, request)
        lanes.route(steer_event("accepted", "steer_1"))
        lanes.route(end_with(*output))
        admit(lanes, parent=parent)
        start(lanes, "resp_2")
        is_early = (parent, output, reader) == ("resp_1", [CALL], ReaderState.NONE)
        assert request.ended is is_early

    @pytest.mark.parametrize("answered", [True, False])
    def test_an_input_that_fails_after_the_response_ends_the_request(
        self, lanes: RequestTable, request_: ActiveRequest, *, answered: bool
    ) -> None:
        steer = submit(lanes, request_)
        if answered:
            lanes.route(steer_event("accepted", "steer_1"))
        complete(lanes, "resp_1")
        assert lanes.route(steer_failed(steer_id="steer_1" if answered else None)) is request_
        assert request_.ended
        assert steer.state is FAILED
        assert steer.error is not None
        assert steer.error.code == "response_not_active"

    def test_an_input_that_fails_during_the_response_does_not_end_the_request(
        self, lanes: RequestTable, request_: ActiveRequest
    ) -> None:
        submit(lanes, request_)
        assert lanes.route(steer_failed("steering_not_supported")) is request_
        assert not request_.ended
        assert complete(lanes, "resp_1") is request_
        assert request_.ended

    def test_a_terminal_event_received_twice_does_not_end_the_successor(
        self, lanes: RequestTable, request_: ActiveRequest
    ) -> None:
        submit(lanes, request_)
        lanes.route(steer_event("accepted", "steer_1"))
        complete(lanes, "resp_1")
        assert complete(lanes, "resp_1") is None
        start(lanes, "resp_2")
        assert complete(lanes, "resp_1") is None
        assert not request_.ended

    def test_a_successor_may_consist_of_its_terminal_event(
        self, lanes: RequestTable, request_: ActiveRequest
    ) -> None:
        steer = submit(lanes, request_)
        lanes.route(steer_event("accepted", "steer_1"))
        complete(lanes, "resp_1")
        assert complete(lanes, "resp_2") is request_
        assert request_.ended
        assert (steer.state, steer.successor) == (COMMITTED, "resp_2")

    def test_one_accepted_input_of_two_keeps_the_request_active(
        self, lanes: RequestTable, request_: ActiveRequest
    ) -> None:
        first, second = submit(lanes, request_), submit(lanes, request_)
        lanes.route(steer_event("accepted", "steer_1"))
        complete(lanes, "resp_1")
        lanes.route(steer_failed())
        assert (first.state, second.state) == (ACCEPTED, FAILED)
        assert not request_.ended
        start(lanes, "resp_2")
        assert first.state is COMMITTED

    def test_a_successor_can_be_steered_again(
        self, lanes: RequestTable, request_: ActiveRequest
    ) -> None:
        for number in range(1, 4):
            steer = submit(lanes, request_)
            assert steer.parent == f"resp_{number}"
            lanes.route(steer_event("accepted", f"steer_{number}"))
            lanes.route(response_event("response.incomplete", f"resp_{number}"))
            start(lanes, f"resp_{number + 1}")
            assert steer.successor == f"resp_{number + 1}"
        assert complete(lanes, "resp_4") is request_
        assert request_.ended


class TestAttribution:
    """Events state the id of an input; before an input has an id, its response or its lane."""

    def test_a_refusal_without_a_lane_is_attributed_by_its_response(
        self, lanes: RequestTable
    ) -> None:
        requests = [admit(lanes, lane) for lane in LANES]
        for number, lane in enumerate(LANES):
            start(lanes, f"resp_{number}", lane)
        steers = [submit(lanes, request) for request in requests]
        assert lanes.route(steer_failed(previous_response_id="resp_1")) is requests[1]
        assert [one.state for one in steers] == [SENT, FAILED, SENT]

    def test_the_oldest_input_of_a_lane_is_answered_first(
        self, lanes: RequestTable, request_: ActiveRequest
    ) -> None:
        first, second = submit(lanes, request_), submit(lanes, request_)
        lanes.route(steer_event("accepted", "steer_1"))
        assert (first.state, second.state) == (ACCEPTED, SENT)
        lanes.route(steer_event("accepted", "steer_2"))
        lanes.route(steer_failed(steer_id="steer_1"))
        assert (first.state, second.state) == (FAILED, ACCEPTED)

    def test_an_input_of_another_lane_is_not_affected(
        self, lanes: RequestTable, request_: ActiveRequest
    ) -> None:
        steer = submit(lanes, request_)
        other = admit(lanes, "lane-1")
        start(lanes, "resp_9", "lane-1")
        assert lanes.route(steer_event("accepted", "steer_9", "lane-1")) is other
        assert steer.state is SENT

    def test_an_event_about_an_unknown_input_belongs_to_the_request_of_its_lane(
        self, lanes: RequestTable, request_: ActiveRequest
    ) -> None:
        assert lanes.route(steer_event("accepted", "steer_9")) is request_
        assert complete(lanes, "resp_1") is request_
        assert request_.ended
        assert lanes.route(steer_event("pending", "steer_9")) is None


class TestErrors:
    @pytest.mark.parametrize(
        "fields",
        [
            {"status": 400, "error": {"message": "what?"}},
            {"error": {"message": "what?", "type": "invalid_request_error"}},
            {"status_code": 422, "message": "what?"},
        ],
    )
    def test_a_client_error_during_a_response_refuses_the_input(
        self, lanes: RequestTable, request_: ActiveRequest, fields: dict[str, Any]
    ) -> None:
        steer = submit(lanes, request_)
        assert lanes.route(server_event("error", **fields)) is request_
        assert steer.state is FAILED
        assert steer.error is not None
        assert steer.error.message == "what?"
        assert not request_.ended
        assert lanes.route(server_event(DELTA)) is request_

    def test_a_server_error_during_a_response_ends_the_request(
        self, lanes: RequestTable, request_: ActiveRequest
    ) -> None:
        steer = submit(lanes, request_)
        error = {"message": "full", "code": "server_is_overloaded", "type": "server_error"}
        assert lanes.route(server_event("error", status=503, error=error)) is request_
        assert request_.ended
        assert steer.state is UNKNOWN
        following = admit(lanes)
        start(lanes, "resp_2")
        assert lanes.route(steer_failed()) is following
        assert steer.state is UNKNOWN

    def test_a_client_error_ends_the_request_if_every_input_is_accepted(
        self, lanes: RequestTable, request_: ActiveRequest
    ) -> None:
        steer = submit(lanes, request_)
        lanes.route(steer_event("accepted", "steer_1"))
        assert lanes.route(error_event()) is request_
        assert request_.ended
        assert steer.state is UNKNOWN
        assert lanes.route(steer_failed(steer_id="steer_1")) is None
        assert steer.state is FAILED

    def test_a_failed_input_stays_failed_when_the_response_is_cut_off(
        self, lanes: RequestTable, request_: ActiveRequest
    ) -> None:
        failed, sent = submit(lanes, request_), submit(lanes, request_)
        lanes.route(steer_failed())
        lanes.route(server_event("error", status=500, error={"message": "no"}))
        assert (failed.state, sent.state) == (FAILED, UNKNOWN)

    def test_an_error_on_one_lane_does_not_affect_inputs_of_another(
        self, lanes: RequestTable, request_: ActiveRequest
    ) -> None:
        steer = submit(lanes, request_)
        admit(lanes, "lane-1")
        start(lanes, "resp_9", "lane-1")
        lanes.route(server_event("error", "lane-1", status=500, error={"message": "no"}))
        assert steer.state is SENT

    def test_an_error_after_the_response_means_that_no_successor_follows(
        self, lanes: RequestTable, request_: ActiveRequest
    ) -> None:
        steers = [submit(lanes, request_), submit(lanes, request_)]
        lanes.route(steer_event("accepted", "steer_1"))
        complete(lanes, "resp_1")
        assert lanes.route(error_event("server_is_overloaded")) is request_
        assert request_.ended
        assert [one.state for one in steers] == [FAILED] * 2
        assert lanes.previous_response_id == "resp_1"


class TestClosedSockets:
    def test_sent_and_accepted_inputs_are_unknown(
        self, lanes: RequestTable, request_: ActiveRequest
    ) -> None:
        steers = [submit(lanes, request_), submit(lanes, request_)]
        lanes.route(steer_event("accepted", "steer_1"))
        lanes.close()
        assert [one.state for one in steers] == [UNKNOWN] * 2

    @pytest.mark.parametrize(("continued", "state"), [(False, FAILED), (True, UNKNOWN)])
    def test_a_pending_input_has_failed_unless_its_continuation_was_sent(
        self,
        lanes: RequestTable,
        request_: ActiveRequest,
        *,
        continued: bool,
        state: SteerState,
    ) -> None:
        steer = submit(lanes, request_)
        lanes.route(steer_event("accepted", "steer_1"))
        complete(lanes, "resp_1")
        lanes.route(steer_event("pending", "steer_1"))
        if continued:
            admit(lanes, parent="resp_1")
        lanes.close()
        assert steer.state is state

    def test_a_withdrawn_input_has_failed(
        self, lanes: RequestTable, request_: ActiveRequest
    ) -> None:
        steer = submit(lanes, request_)
        lanes.withdraw_steer(steer)
        lanes.withdraw_steer(steer)
        assert steer.state is FAILED
        assert complete(lanes, "resp_1") is request_
        assert request_.ended


class TestIdleLanes:
    def test_a_lane_that_waits_for_a_continuation_is_the_last_for_other_requests(
        self, lanes: RequestTable, request_: ActiveRequest
    ) -> None:
        submit(lanes, request_)
        lanes.route(steer_event("accepted", "steer_1"))
        complete(lanes, "resp_1")
        lanes.route(steer_event("pending", "steer_1"))
        assert lanes.idle_lanes(LANES, None) == ["lane-1", "lane-2", None]
        assert lanes.idle_lanes(LANES, "resp_1") == [None, "lane-1", "lane-2"]

    def test_a_request_is_found_by_its_active_response(
        self, lanes: RequestTable, request_: ActiveRequest
    ) -> None:
        assert lanes.find("resp_1") is request_
        assert lanes.find("resp_2") is None


# --- Random orders --------------------------------------------------------------------------------


@dataclass(eq=False)
class Running:
    """A request as the server sees it: the active response, and its inputs."""

    request: ActiveRequest
    response: str | None = None
    ended_response: bool = False
    """Whether the response has ended and the request has not."""
    sent: list[SteerInput] = field(default_factory=list[SteerInput])
    accepted: list[SteerInput] = field(default_factory=list[SteerInput])


class SteeringMachine(RuleBasedStateMachine):
    """A server that steers responses on several lanes, and a `RequestTable`."""

    def __init__(self) -> None:
        super().__init__()
        self.lanes: RequestTable = RequestTable()
        self.running: dict[Lane, Running] = {}
        self.expected: dict[SteerInput, SteerState] = {}
        self.pending: dict[Lane, list[SteerInput]] = {lane: [] for lane in LANES}
        self.ended: list[ActiveRequest] = []
        self.numbers = count(1)

    def active(self, number: int) -> Running:
        found = list(self.running.values())
        return found[number % len(found)]

    def route(self, event: ServerEvent, running: Running) -> None:
        assert self.lanes.route(event) is running.request

    def new(self, kind: str) -> str:
        return f"{kind}_{next(self.numbers)}"

    @rule(lane=st.sampled_from(LANES))
    def send_a_request(self, lane: Lane) -> None:
        if lane in self.running:
            return
        parent = self.lanes.latest_response(lane)
        running = self.running[lane] = Running(ActiveRequest(lane, parent))
        self.lanes.admit(running.request)
        self.start(running)
        for one in self.pending[lane]:
            self.expected[one] = COMMITTED
        self.pending[lane].clear()

    def start(self, running: Running) -> None:
        running.response = self.new("resp")
        running.ended_response = False
        event = response_event("response.created", running.response, running.request.lane)
        self.route(event, running)

    @precondition(lambda self: self.running)
    @rule(number=st.integers(0, 2))
    def steer(self, number: int) -> None:
        running = self.active(number)
        if not running.ended_response or running.sent or running.accepted:
            steer = submit(self.lanes, running.request)
            running.sent.append(steer)
            self.expected[steer] = SENT

    @precondition(lambda self: self.running)
    @rule(number=st.integers(0, 2), accepts=st.booleans(), by_response_id=st.booleans())
    def answer(self, number: int, accepts: bool, by_response_id: bool) -> None:  # noqa: FBT001
        running = self.active(number)
        if not running.sent:
            return
        steer = running.sent.pop(0)
        names: dict[str, Any] = {"previous_response_id": steer.parent} if by_response_id else {}
        lane = running.request.lane
        if accepts:
            running.accepted.append(steer)
            self.expected[steer] = ACCEPTED
            self.route(steer_event("accepted", self.new("steer"), lane, **names), running)
        else:
            self.expected[steer] = FAILED
            self.route(steer_failed(lane=lane, **names), running)
        self.end_if_settled(running)

    @precondition(lambda self: self.running)
    @rule(number=st.integers(0, 2), type_=st.sampled_from(["incomplete", "completed", "failed"]))
    def end_the_response(self, number: int, type_: str) -> None:
        running = self.active(number)
        if not running.ended_response:
            running.ended_response = True
            event = response_event(f"response.{type_}", running.response, running.request.lane)
            self.route(event, running)
            self.end_if_settled(running)

    @precondition(lambda self: self.running)
    @rule(number=st.integers(0, 2), how=st.sampled_from(["succeed", "wait", "fail"]))
    def settle_accepted_inputs(self, number: int, how: str) -> None:
        """Settle the accepted inputs in one of three ways after the end of the response."""
        running = self.active(number)
        if not running.ended_response or not running.accepted or running.sent:
            return
        states = {"succeed": COMMITTED, "wait": PENDING, "fail": FAILED}
        self.expected.update(dict.fromkeys(running.accepted, states[how]))
        lane = running.request.lane
        if how == "succeed":
            self.start(running)
        for one in running.accepted:
            if how == "fail":
                self.route(steer_failed(steer_id=one.id, lane=lane), running)
            elif how == "wait":
                self.pending[lane].append(one)
                self.route(steer_event("pending", one.id, lane), running)
        running.accepted.clear()
        self.end_if_settled(running)

    @precondition(lambda self: self.running)
    @rule(number=st.integers(0, 2))
    def send_a_delta(self, number: int) -> None:
        running = self.active(number)
        event = server_event(DELTA, running.request.lane)
        owner = None if running.ended_response else running.request
        assert self.lanes.route(event) is owner

    @precondition(lambda self: self.running)
    @rule()
    def close_the_socket(self) -> None:
        for running in self.running.values():
            lost = [*running.sent, *running.accepted]
            self.expected.update(dict.fromkeys(lost, UNKNOWN))
        for lane, waiting in self.pending.items():
            for one in waiting:
                self.expected[one] = FAILED
            self.pending[lane] = []
        assert Counter(self.lanes.close()) == Counter(one.request for one in self.running.values())
        self.running.clear()

    def end_if_settled(self, running: Running) -> None:
        if running.ended_response and not running.sent and not running.accepted:
            self.ended.append(running.request)
            del self.running[running.request.lane]

    @invariant()
    def every_input_has_the_state_of_the_server(self) -> None:
        assert {one: one.state for one in self.expected} == self.expected

    @invariant()
    def a_request_ends_when_its_inputs_are_settled(self) -> None:
        assert Counter(self.lanes.unfinished()) == Counter(
            running.request for running in self.running.values()
        )
        assert all(request.ended for request in self.ended)


SteeringMachine.TestCase.settings = settings(
    deadline=None, max_examples=100, stateful_step_count=40
)
TestRandomOrders = SteeringMachine.TestCase


def test_an_unknown_input_is_forgotten_when_the_next_response_starts() -> None:
    lanes: RequestTable = RequestTable()
    request = admit(lanes)
    start(lanes, "resp_1")
    steer = submit(lanes, request)
    lanes.route(steer_event("accepted", "steer_1"))
    lanes.route(error_event(shape="without status"))
    assert steer.state is UNKNOWN
    admit(lanes)
    start(lanes, "resp_2")
    lanes.route(steer_event("pending", "steer_1"))
    assert steer.state is UNKNOWN
