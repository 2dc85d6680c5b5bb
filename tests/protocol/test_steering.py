"""What becomes of steering inputs (docs/protocol.md, 5.7): ending by ending, and in any order."""

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

from tests.protocol.test_request_table import LANES, admit, begin, complete, say, say_error, say_response
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
    submission = SteerInput(request, SOME_TEXT)
    lanes.submit_steer(submission)
    return submission


def say_steer(
    word: str, steer_id: str | None = None, lane: Lane = None, **fields: Any
) -> ServerEvent:
    steer = {name: value for name, value in fields.items() if name == "previous_response_id"}
    if steer_id is not None:
        steer["id"] = steer_id
    fields.pop("previous_response_id", None)
    return say(f"response.steer.{word}", lane, steer=steer, **fields)


def refusal(code: str = "response_not_active", **fields: Any) -> ServerEvent:
    return say_steer("failed", error={"code": code, "message": "no"}, **fields)


@pytest.fixture
def request_(lanes: RequestTable) -> ActiveRequest:
    """A request whose response has begun as resp_1."""
    request = admit(lanes)
    begin(lanes, "resp_1")
    return request


CALL = {"type": "function_call", "call_id": "call_1", "name": "f", "arguments": "{}"}
OUTPUT = {"type": "function_call_output", "call_id": "call_1", "output": "cold"}


def end_with(*output: dict[str, str]) -> ServerEvent:
    return say("response.completed", response={"id": "resp_1", "output": output})


class TestEndings:
    """The four of the guide."""

    @pytest.mark.parametrize("ending", ["response.incomplete", "response.completed"])
    def test_the_successor_belongs_to_the_same_request(
        self, lanes: RequestTable, request_: ActiveRequest, ending: str
    ) -> None:
        following = admit(lanes)
        steer = submit(lanes, request_)
        assert lanes.route(say_steer("accepted", "steer_1")) is request_
        assert (steer.state, steer.id) == (ACCEPTED, "steer_1")
        assert lanes.route(say_response(ending, "resp_1")) is request_
        assert not request_.ended
        assert lanes.latest_response(None) == "resp_1"
        begin(lanes, "resp_2")
        assert (steer.state, steer.successor) == (COMMITTED, "resp_2")
        assert lanes.route(say(DELTA)) is request_
        assert complete(lanes, "resp_2") is request_
        assert request_.ended
        assert lanes.route(say(DELTA)) is following
        assert (lanes.requests_ended, lanes.responses_ended) == (1, 2)
        assert lanes.previous_response_id == lanes.latest_response(None) == "resp_2"

    def test_one_that_waits_for_outputs_of_tools_ends_the_request(
        self, lanes: RequestTable, request_: ActiveRequest
    ) -> None:
        steers = [submit(lanes, request_), submit(lanes, request_)]
        for number in (1, 2):
            lanes.route(say_steer("accepted", f"steer_{number}"))
        complete(lanes, "resp_1")
        stub = {"type": "function_call_output", "call_id": "call_1"}
        lanes.route(say_steer("pending", "steer_1", required_input=[stub]))
        assert not request_.ended
        assert lanes.route(say_steer("pending", "steer_2", required_input=[stub])) is request_
        assert request_.ended
        assert [one.state for one in steers] == [PENDING] * 2
        assert steers[0].required_input[0].call_id == "call_1"
        continuation = admit(lanes, parent="resp_1")
        begin(lanes, "resp_2")
        assert [one.state for one in steers] == [COMMITTED] * 2
        assert {one.successor for one in steers} == {"resp_2"}
        assert complete(lanes, "resp_2") is continuation

    @pytest.mark.parametrize("begun", [True, False])
    def test_outputs_that_came_before_the_word_for_it_end_the_request(
        self, lanes: RequestTable, request_: ActiveRequest, *, begun: bool
    ) -> None:
        steers = [submit(lanes, request_), submit(lanes, request_)]
        lanes.route(say_steer("accepted", "steer_1"))
        lanes.route(end_with(CALL))
        continuation = admit(lanes, parent="resp_1")
        if begun:
            begin(lanes, "resp_2")
            assert request_.ended
        assert complete(lanes, "resp_2") is continuation
        assert [one.state for one in steers] == [COMMITTED, SENT]
        assert steers[0].successor == "resp_2"
        assert not list(lanes.unfinished())

    @pytest.mark.parametrize("parent", [None, "resp_0", "resp_1"])
    @pytest.mark.parametrize("output", [[], [CALL], [CALL, OUTPUT]])
    @pytest.mark.parametrize("reader", [ReaderState.READING, ReaderState.NONE])
    def test_what_follows_is_a_successor_in_every_other_case(
        self, parent: str | None, output: list[dict[str, str]], reader: ReaderState
    ) -> None:
        lanes = RequestTable()
        request = admit(lanes, reader=reader)
        begin(lanes, "resp_1")
        submit(lanes, request)
        lanes.route(say_steer("accepted", "steer_1"))
        lanes.route(end_with(*output))
        admit(lanes, parent=parent)
        begin(lanes, "resp_2")
        early = (parent, output, reader) == ("resp_1", [CALL], ReaderState.NONE)
        assert request.ended is early

    @pytest.mark.parametrize("answered", [True, False])
    def test_one_that_failed_behind_the_end_ends_the_request(
        self, lanes: RequestTable, request_: ActiveRequest, *, answered: bool
    ) -> None:
        steer = submit(lanes, request_)
        if answered:
            lanes.route(say_steer("accepted", "steer_1"))
        complete(lanes, "resp_1")
        assert lanes.route(refusal(steer_id="steer_1" if answered else None)) is request_
        assert request_.ended
        assert steer.state is FAILED
        assert steer.error is not None
        assert steer.error.code == "response_not_active"

    def test_one_that_failed_before_the_end_changes_nothing(
        self, lanes: RequestTable, request_: ActiveRequest
    ) -> None:
        submit(lanes, request_)
        assert lanes.route(refusal("steering_not_supported")) is request_
        assert not request_.ended
        assert complete(lanes, "resp_1") is request_
        assert request_.ended

    def test_a_terminal_event_said_twice_does_not_end_the_successor(
        self, lanes: RequestTable, request_: ActiveRequest
    ) -> None:
        submit(lanes, request_)
        lanes.route(say_steer("accepted", "steer_1"))
        complete(lanes, "resp_1")
        assert complete(lanes, "resp_1") is None
        begin(lanes, "resp_2")
        assert complete(lanes, "resp_1") is None
        assert not request_.ended

    def test_a_successor_may_consist_of_its_end(
        self, lanes: RequestTable, request_: ActiveRequest
    ) -> None:
        steer = submit(lanes, request_)
        lanes.route(say_steer("accepted", "steer_1"))
        complete(lanes, "resp_1")
        assert complete(lanes, "resp_2") is request_
        assert request_.ended
        assert (steer.state, steer.successor) == (COMMITTED, "resp_2")

    def test_one_of_two_is_enough_for_a_successor(
        self, lanes: RequestTable, request_: ActiveRequest
    ) -> None:
        first, second = submit(lanes, request_), submit(lanes, request_)
        lanes.route(say_steer("accepted", "steer_1"))
        complete(lanes, "resp_1")
        lanes.route(refusal())
        assert (first.state, second.state) == (ACCEPTED, FAILED)
        assert not request_.ended
        begin(lanes, "resp_2")
        assert first.state is COMMITTED

    def test_a_successor_can_be_steered_again(
        self, lanes: RequestTable, request_: ActiveRequest
    ) -> None:
        for number in range(1, 4):
            steer = submit(lanes, request_)
            assert steer.parent == f"resp_{number}"
            lanes.route(say_steer("accepted", f"steer_{number}"))
            lanes.route(say_response("response.incomplete", f"resp_{number}"))
            begin(lanes, f"resp_{number + 1}")
            assert steer.successor == f"resp_{number + 1}"
        assert complete(lanes, "resp_4") is request_
        assert request_.ended


class TestWhoIsMeant:
    """Events name an input by its id; before it has one, by its response or its lane."""

    def test_a_refusal_without_a_lane_names_the_response(self, lanes: RequestTable) -> None:
        requests = [admit(lanes, lane) for lane in LANES]
        for number, lane in enumerate(LANES):
            begin(lanes, f"resp_{number}", lane)
        steers = [submit(lanes, request) for request in requests]
        assert lanes.route(refusal(previous_response_id="resp_1")) is requests[1]
        assert [one.state for one in steers] == [SENT, FAILED, SENT]

    def test_the_oldest_of_a_lane_is_answered_first(
        self, lanes: RequestTable, request_: ActiveRequest
    ) -> None:
        first, second = submit(lanes, request_), submit(lanes, request_)
        lanes.route(say_steer("accepted", "steer_1"))
        assert (first.state, second.state) == (ACCEPTED, SENT)
        lanes.route(say_steer("accepted", "steer_2"))
        lanes.route(refusal(steer_id="steer_1"))
        assert (first.state, second.state) == (FAILED, ACCEPTED)

    def test_another_lane_is_not_meant(self, lanes: RequestTable, request_: ActiveRequest) -> None:
        steer = submit(lanes, request_)
        other = admit(lanes, "lane-1")
        begin(lanes, "resp_9", "lane-1")
        assert lanes.route(say_steer("accepted", "steer_9", "lane-1")) is other
        assert steer.state is SENT

    def test_an_unknown_one_is_for_the_reader_of_its_lane(
        self, lanes: RequestTable, request_: ActiveRequest
    ) -> None:
        assert lanes.route(say_steer("accepted", "steer_9")) is request_
        assert complete(lanes, "resp_1") is request_
        assert request_.ended
        assert lanes.route(say_steer("pending", "steer_9")) is None


class TestErrors:
    @pytest.mark.parametrize(
        "fields",
        [
            {"status": 400, "error": {"message": "what?"}},
            {"error": {"message": "what?", "type": "invalid_request_error"}},
            {"status_code": 422, "message": "what?"},
        ],
    )
    def test_a_server_that_knows_no_steering_refuses_the_input_not_the_response(
        self, lanes: RequestTable, request_: ActiveRequest, fields: dict[str, Any]
    ) -> None:
        steer = submit(lanes, request_)
        assert lanes.route(say("error", **fields)) is request_
        assert steer.state is FAILED
        assert steer.error is not None
        assert steer.error.message == "what?"
        assert not request_.ended
        assert lanes.route(say(DELTA)) is request_

    def test_an_error_of_the_server_is_about_the_response(
        self, lanes: RequestTable, request_: ActiveRequest
    ) -> None:
        steer = submit(lanes, request_)
        error = {"message": "full", "code": "server_is_overloaded", "type": "server_error"}
        assert lanes.route(say("error", status=503, error=error)) is request_
        assert request_.ended
        assert steer.state is UNKNOWN
        following = admit(lanes)
        begin(lanes, "resp_2")
        assert lanes.route(refusal()) is following
        assert steer.state is UNKNOWN

    def test_one_without_an_input_to_blame_is_about_the_response(
        self, lanes: RequestTable, request_: ActiveRequest
    ) -> None:
        steer = submit(lanes, request_)
        lanes.route(say_steer("accepted", "steer_1"))
        assert lanes.route(say_error()) is request_
        assert request_.ended
        assert steer.state is UNKNOWN
        assert lanes.route(refusal(steer_id="steer_1")) is None
        assert steer.state is FAILED

    def test_what_breaks_off_on_one_lane_does_not_concern_another(
        self, lanes: RequestTable, request_: ActiveRequest
    ) -> None:
        steer = submit(lanes, request_)
        admit(lanes, "lane-1")
        begin(lanes, "resp_9", "lane-1")
        lanes.route(say("error", "lane-1", status=500, error={"message": "no"}))
        assert steer.state is SENT

    def test_one_behind_the_end_says_that_there_is_no_successor(
        self, lanes: RequestTable, request_: ActiveRequest
    ) -> None:
        steers = [submit(lanes, request_), submit(lanes, request_)]
        lanes.route(say_steer("accepted", "steer_1"))
        complete(lanes, "resp_1")
        assert lanes.route(say_error("server_is_overloaded")) is request_
        assert request_.ended
        assert [one.state for one in steers] == [FAILED] * 2
        assert lanes.previous_response_id == "resp_1"


class TestLostSockets:
    def test_what_was_sent_or_accepted_is_unknown(
        self, lanes: RequestTable, request_: ActiveRequest
    ) -> None:
        steers = [submit(lanes, request_), submit(lanes, request_)]
        lanes.route(say_steer("accepted", "steer_1"))
        lanes.close()
        assert [one.state for one in steers] == [UNKNOWN] * 2

    @pytest.mark.parametrize(("continued", "state"), [(False, FAILED), (True, UNKNOWN)])
    def test_what_waited_cannot_have_been_committed_without_its_request(
        self,
        lanes: RequestTable,
        request_: ActiveRequest,
        *,
        continued: bool,
        state: SteerState,
    ) -> None:
        steer = submit(lanes, request_)
        lanes.route(say_steer("accepted", "steer_1"))
        complete(lanes, "resp_1")
        lanes.route(say_steer("pending", "steer_1"))
        if continued:
            admit(lanes, parent="resp_1")
        lanes.close()
        assert steer.state is state

    def test_what_was_not_written_has_failed(
        self, lanes: RequestTable, request_: ActiveRequest
    ) -> None:
        steer = submit(lanes, request_)
        lanes.withdraw_steer(steer)
        lanes.withdraw_steer(steer)
        assert steer.state is FAILED
        assert complete(lanes, "resp_1") is request_
        assert request_.ended


class TestFreeLanes:
    def test_a_lane_that_waits_for_a_continuation_is_left_to_it(
        self, lanes: RequestTable, request_: ActiveRequest
    ) -> None:
        submit(lanes, request_)
        lanes.route(say_steer("accepted", "steer_1"))
        complete(lanes, "resp_1")
        lanes.route(say_steer("pending", "steer_1"))
        assert lanes.idle_lanes(LANES, None) == ["lane-1", "lane-2", None]
        assert lanes.idle_lanes(LANES, "resp_1") == [None, "lane-1", "lane-2"]

    def test_a_request_is_found_by_the_response_under_way(
        self, lanes: RequestTable, request_: ActiveRequest
    ) -> None:
        assert lanes.find("resp_1") is request_
        assert lanes.find("resp_2") is None


# --- Any order --------------------------------------------------------------------------------


@dataclass(eq=False)
class Running:
    """A request as the server sees it: the response under way, and the inputs it owns."""

    request: ActiveRequest
    response: str | None = None
    over: bool = False
    """Whether that response has ended, and a successor is due."""
    unanswered: list[SteerInput] = field(default_factory=list[SteerInput])
    accepted: list[SteerInput] = field(default_factory=list[SteerInput])


class SteeringBesideAServer(RuleBasedStateMachine):
    """A server that steers, on several lanes: `RequestTable` follows its events."""

    def __init__(self) -> None:
        super().__init__()
        self.lanes: RequestTable = RequestTable()
        self.running: dict[Lane, Running] = {}
        self.expected: dict[SteerInput, SteerState] = {}
        self.pending: dict[Lane, list[SteerInput]] = {lane: [] for lane in LANES}
        self.ended: list[ActiveRequest] = []
        self.numbers = count(1)

    def at_work(self, number: int) -> Running:
        found = list(self.running.values())
        return found[number % len(found)]

    def route(self, event: ServerEvent, running: Running) -> None:
        assert self.lanes.route(event) is running.request

    def new(self, kind: str) -> str:
        return f"{kind}_{next(self.numbers)}"

    @rule(lane=st.sampled_from(LANES))
    def ask(self, lane: Lane) -> None:
        if lane in self.running:
            return
        parent = self.lanes.latest_response(lane)
        running = self.running[lane] = Running(ActiveRequest(lane, parent))
        self.lanes.admit(running.request)
        self.begin(running)
        for one in self.pending[lane]:
            self.expected[one] = COMMITTED
        self.pending[lane].clear()

    def begin(self, running: Running) -> None:
        running.response = self.new("resp")
        running.over = False
        event = say_response("response.created", running.response, running.request.lane)
        self.route(event, running)

    @precondition(lambda self: self.running)
    @rule(number=st.integers(0, 2))
    def steer(self, number: int) -> None:
        running = self.at_work(number)
        if not running.over or running.unanswered or running.accepted:
            submission = submit(self.lanes, running.request)
            running.unanswered.append(submission)
            self.expected[submission] = SENT

    @precondition(lambda self: self.running)
    @rule(number=st.integers(0, 2), accepts=st.booleans(), by_name=st.booleans())
    def answer(self, number: int, accepts: bool, by_name: bool) -> None:  # noqa: FBT001
        running = self.at_work(number)
        if not running.unanswered:
            return
        submission = running.unanswered.pop(0)
        names: dict[str, Any] = {"previous_response_id": submission.parent} if by_name else {}
        lane = running.request.lane
        if accepts:
            running.accepted.append(submission)
            self.expected[submission] = ACCEPTED
            self.route(say_steer("accepted", self.new("steer"), lane, **names), running)
        else:
            self.expected[submission] = FAILED
            self.route(refusal(lane=lane, **names), running)
        self.end_if_nothing_is_due(running)

    @precondition(lambda self: self.running)
    @rule(number=st.integers(0, 2), type_=st.sampled_from(["incomplete", "completed", "failed"]))
    def end_the_response(self, number: int, type_: str) -> None:
        running = self.at_work(number)
        if not running.over:
            running.over = True
            event = say_response(f"response.{type_}", running.response, running.request.lane)
            self.route(event, running)
            self.end_if_nothing_is_due(running)

    @precondition(lambda self: self.running)
    @rule(number=st.integers(0, 2), how=st.sampled_from(["succeed", "wait", "fail"]))
    def go_on(self, number: int, how: str) -> None:
        """Do with what was accepted one of the three things, behind the end of the response."""
        running = self.at_work(number)
        if not running.over or not running.accepted or running.unanswered:
            return
        states = {"succeed": COMMITTED, "wait": PENDING, "fail": FAILED}
        self.expected.update(dict.fromkeys(running.accepted, states[how]))
        lane = running.request.lane
        if how == "succeed":
            self.begin(running)
        for one in running.accepted:
            if how == "fail":
                self.route(refusal(steer_id=one.id, lane=lane), running)
            elif how == "wait":
                self.pending[lane].append(one)
                self.route(say_steer("pending", one.id, lane), running)
        running.accepted.clear()
        self.end_if_nothing_is_due(running)

    @precondition(lambda self: self.running)
    @rule(number=st.integers(0, 2))
    def speak(self, number: int) -> None:
        running = self.at_work(number)
        self.route(say(DELTA, running.request.lane), running)

    @precondition(lambda self: self.running)
    @rule()
    def lose_the_socket(self) -> None:
        for running in self.running.values():
            lost = [*running.unanswered, *running.accepted]
            self.expected.update(dict.fromkeys(lost, UNKNOWN))
        for lane, waiting in self.pending.items():
            for one in waiting:
                self.expected[one] = FAILED
            self.pending[lane] = []
        assert Counter(self.lanes.close()) == Counter(one.request for one in self.running.values())
        self.running.clear()

    def end_if_nothing_is_due(self, running: Running) -> None:
        if running.over and not running.unanswered and not running.accepted:
            self.ended.append(running.request)
            del self.running[running.request.lane]

    @invariant()
    def every_input_is_where_the_server_has_it(self) -> None:
        assert {one: one.state for one in self.expected} == self.expected

    @invariant()
    def a_request_ends_when_nothing_is_due(self) -> None:
        assert Counter(self.lanes.unfinished()) == Counter(
            running.request for running in self.running.values()
        )
        assert all(request.ended for request in self.ended)


SteeringBesideAServer.TestCase.settings = settings(
    deadline=None, max_examples=100, stateful_step_count=40
)
TestAnyOrder = SteeringBesideAServer.TestCase


def test_what_broke_off_is_forgotten_when_the_next_response_begins() -> None:
    lanes: RequestTable = RequestTable()
    request = admit(lanes)
    begin(lanes, "resp_1")
    steer = submit(lanes, request)
    lanes.route(say_steer("accepted", "steer_1"))
    lanes.route(say_error(shape="without status"))
    assert steer.state is UNKNOWN
    admit(lanes)
    begin(lanes, "resp_2")
    lanes.route(say_steer("pending", "steer_1"))
    assert steer.state is UNKNOWN
