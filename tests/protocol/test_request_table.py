"""The owners of events: rule by rule, and in random orders of requests and server events."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Any, TypeAlias

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from trio_responses import _wire as wire
from trio_responses._protocol.request_table import RequestTable
from trio_responses._protocol.requests import ActiveRequest, ReaderState, RequestState

if TYPE_CHECKING:
    from trio_responses._wire import ServerEvent

Lane: TypeAlias = "str | None"

READING = ReaderState.READING
CUT_OFF = RequestState.CUT_OFF
LANES: tuple[Lane, ...] = (None, "lane-1", "lane-2")
TERMINAL = ("response.completed", "response.failed", "response.incomplete")
ODD_ENDS = (*TERMINAL, "response.cancelled", "response.done")
STEPS = (
    "response.queued",
    "response.in_progress",
    "response.output_item.added",
    "response.output_text.delta",
    "response.steer.accepted",
    "response.steer.a_type_of_next_year",
    "response.inject.created",
    "response.inject.failed",
    "response.inject.a_type_of_next_year",
    "response.a_type_of_next_year",
)
NOTICES = {
    "response.queued",
    "response.steer.accepted",
    "response.steer.a_type_of_next_year",
    "response.inject.created",
    "response.inject.failed",
    "response.inject.a_type_of_next_year",
}
"""The steps that may precede ``response.created``."""
LATE = [one for one in STEPS if one not in NOTICES]
NOT_OF_A_RESPONSE = ("keepalive", "codex.rate_limits", "responsesapi.websocket_timing")
LIMIT = "websocket_connection_limit_reached"
INVALID_LANE = "invalid_stream_id"
CODES = (
    None,
    "server_is_overloaded",
    "previous_response_not_found",
    "websocket_stream_limit_reached",
    LIMIT,
    INVALID_LANE,
)
FIELDS: dict[str, dict[str, Any]] = {
    "response.queued": {"response": {"id": "resp_any"}},
    "response.in_progress": {"response": {"id": "resp_any"}},
    "response.output_item.added": {"item": {"type": "message"}},
    "response.output_text.delta": {"delta": "word"},
    "response.steer.accepted": {"steer": {"id": "steer_1"}},
    "response.inject.created": {"response_id": "resp_any"},
    "response.inject.failed": {"response_id": "resp_any"},
}


def server_event(type_: str, lane: Lane = None, **fields: Any) -> ServerEvent:
    """Return the event of a frame that a server sends."""
    frame: dict[str, Any] = {"type": type_, **FIELDS.get(type_, {}), **fields}
    if lane is not None:
        frame["stream_id"] = lane
    return wire.decode(json.dumps(frame).encode())


def response_event(type_: str, response_id: str | None, lane: Lane = None) -> ServerEvent:
    return server_event(type_, lane, response={} if response_id is None else {"id": response_id})


def error_event(code: str | None = None, lane: Lane = None, shape: str = "nested") -> ServerEvent:
    """Return an error in one of the shapes of docs/protocol.md, 4."""
    body: dict[str, Any] = {"message": "no", "param": None} | ({"code": code} if code else {})
    if shape == "broken_type":
        return undecodable("error" if lane is None else "response.error", lane)
    fields: dict[str, dict[str, Any]] = {
        "nested": {"status": 400, "error": body},
        "without status": {"error": body, "sequence_number": 2},
        "flat": body,
    }
    return server_event("error", lane, **fields[shape])


def undecodable(type_: str | None, lane: Lane = None) -> wire.UndecodableFrame:
    """Return an undecodable frame whose type and lane are known."""
    return wire.UndecodableFrame(raw=b"{", error="broken", wire_type=type_, stream_id=lane)


# --- Random orders --------------------------------------------------------------------------------


@dataclass(eq=False)
class ServerRequest:
    """A request as the server sees it."""

    request: ActiveRequest
    response_id: str | None = None
    """The id that ``response.created`` stated."""
    events: list[ServerEvent] = field(default_factory=list["ServerEvent"])
    """The events that the server sent in answer."""
    abandoned: bool = False
    """Whether its turn was left early."""


def busy(server: RequestTableMachine) -> bool:
    return bool(server.oldest_of_each_lane())


class RequestTableMachine(RuleBasedStateMachine):
    """A server that knows the owner of each event, and a `RequestTable` that has to find it.

    The server answers each lane in order, cuts responses off and sends more of their events, sends
    events twice, and sends unrelated and undecodable events.
    """

    def __init__(self) -> None:
        super().__init__()
        self.lanes: RequestTable = RequestTable()
        self.sent: dict[Lane, list[ServerRequest]] = {lane: [] for lane in LANES}
        self.ended: list[ServerRequest] = []
        self.cut_off: dict[Lane, str] = {}
        """The response that was cut off on each lane, until the next one starts."""
        self.creates = False
        """Whether the socket has shown ``response.created``."""
        self.between: set[Lane] = set()
        """The lanes where steps are late: the next response is not created yet."""
        self.last_ids: dict[Lane, str | None] = {}
        self.latest: tuple[str | None, Lane] = (None, None)
        """The last completed response and where it ran, unless it was evicted."""
        self.responses = 0
        self.ends = 0
        self.received: dict[ActiveRequest | None, list[ServerEvent]] = {None: []}
        self.unowned: list[ServerEvent] = []
        self.numbers = count(1)

    # Actions of the client.

    @initialize(lanes=st.lists(st.sampled_from(LANES), min_size=2, max_size=5))
    def admit_several(self, lanes: list[Lane]) -> None:
        assert self.lanes.idle_lanes(LANES, None) == list(LANES)
        for lane in lanes:
            self.admit(lane, "none")

    @rule(lane=st.sampled_from(LANES), parent=st.sampled_from(["none", "latest", "latest", "lost"]))
    def admit(self, lane: Lane, parent: str) -> None:
        parents = {"latest": self.latest[0], "lost": "resp_x"}
        request = ActiveRequest(lane, parents.get(parent), READING)
        self.sent[lane].append(ServerRequest(request))
        self.received[request] = []
        self.lanes.admit(request)

    @precondition(lambda self: self.latest[0] and self.lanes.is_idle(self.latest[1]))
    @rule()
    def continue_on_the_same_lane(self) -> None:
        self.admit(self.latest[1], "latest")

    @rule(lane=st.sampled_from(LANES))
    def withdraw(self, lane: Lane) -> None:
        """Withdraw a request without an answer, and requests that have ended, without effect."""
        if self.sent[lane] and not self.sent[lane][-1].events:
            self.lanes.withdraw(self.sent[lane].pop().request)
        for sent in self.ended[-2:]:
            self.lanes.withdraw(sent.request)

    @precondition(busy)
    @rule(number=st.integers(0, 5))
    def abandon(self, number: int) -> None:
        unfinished = self.unfinished()
        sent = unfinished[number % len(unfinished)]
        sent.abandoned = True
        sent.request.abandon()

    @precondition(lambda self: self.ended and busy(self))
    @rule()
    def close_the_socket(self) -> None:
        waiting = [sent.request for sent in self.unfinished() if not sent.abandoned]
        assert Counter(self.lanes.close()) == Counter(waiting)
        for queue in self.sent.values():
            queue.clear()
        self.cut_off.clear()
        self.creates = False
        self.between.clear()
        self.last_ids.clear()
        self.latest = (None, None)

    # Events that have an owner.

    @precondition(busy)
    @rule(number=st.integers(0, 2), with_id=st.sampled_from([True, True, False]))
    def start_a_response(self, number: int, with_id: bool) -> None:  # noqa: FBT001
        sent = self.active(number)
        if sent.response_id:
            return
        lane = sent.request.lane
        sent.response_id = f"resp_{next(self.numbers)}" if with_id else None
        self.cut_off.pop(lane, None)
        self.creates = True
        self.between.discard(lane)
        self.route(response_event("response.created", sent.response_id, lane), sent)
        assert sent.request.response_id == sent.response_id

    @precondition(busy)
    @rule(number=st.integers(0, 2), types=st.lists(st.sampled_from(STEPS), min_size=1, max_size=3))
    def send_steps_of_a_response(self, number: int, types: list[str]) -> None:
        sent = self.active(number)
        lane = sent.request.lane
        for type_ in types:
            is_late = lane in self.between and type_ not in NOTICES
            self.route(server_event(type_, lane), None if is_late or lane in self.cut_off else sent)

    @precondition(busy)
    @rule(number=st.integers(0, 2))
    def start_a_response_undecodably(self, number: int) -> None:
        lane = self.active(number).request.lane
        self.creates = True
        self.between.discard(lane)
        self.cut_off.pop(lane, None)
        self.route(undecodable("response.created", lane), None)

    @precondition(busy)
    @rule(number=st.integers(0, 2), type_=st.sampled_from(TERMINAL), with_id=st.booleans())
    def end_a_response(self, number: int, type_: str, with_id: bool) -> None:  # noqa: FBT001
        sent = self.active(number)
        lane = sent.request.lane
        if with_id and sent.response_id is None:
            sent.response_id = f"resp_{next(self.numbers)}"
        event = response_event(type_, sent.response_id if with_id else None, lane)
        self.end(sent)
        self.responses += 1
        if type_ == "response.completed":
            self.latest = (sent.response_id, lane)
        self.route(event, sent)
        assert sent.request.response_id == sent.response_id

    @precondition(busy)
    @rule(number=st.integers(0, 2))
    def send_a_whole_response(self, number: int) -> None:
        lane = self.active(number).request.lane
        number = [sent.request.lane for sent in self.oldest_of_each_lane()].index(lane)
        self.start_a_response(number, with_id=True)
        self.send_steps_of_a_response(number, ["response.output_text.delta"])
        self.end_a_response(number, "response.completed", with_id=True)

    @precondition(busy)
    @rule(number=st.integers(0, 2), type_=st.sampled_from(ODD_ENDS))
    def end_a_response_undecodably(self, number: int, type_: str) -> None:
        sent = self.active(number)
        self.end(sent)
        self.route(undecodable(type_, sent.request.lane), sent)

    @precondition(busy)
    @rule(
        number=st.integers(0, 2),
        code=st.sampled_from(CODES),
        shape=st.sampled_from(["nested", "without status", "flat", "broken_type"]),
    )
    def send_an_error(self, number: int, code: str | None, shape: str) -> None:
        sent = self.active(number)
        if sent.request.lane is not None:
            code = None if shape == "broken_type" else code
            self.break_off([sent], error_event(code, sent.request.lane, shape), code)

    @precondition(
        lambda self: (
            self.oldest_of_each_lane() and self.oldest_of_each_lane()[0].request.lane is None
        )
    )
    @rule(started=st.booleans())
    def break_off_on_the_default_lane(self, started: bool) -> None:  # noqa: FBT001
        if started:
            self.start_a_response(0, with_id=True)
        self.send_an_error_without_a_lane(None, "nested")

    @rule(code=st.sampled_from(CODES), shape=st.sampled_from(["nested", "flat", "broken_type"]))
    def send_an_error_without_a_lane(self, code: str | None, shape: str) -> None:
        code = None if shape == "broken_type" else code
        expected = self.oldest_of_each_lane()
        if code == INVALID_LANE:
            expected = [sent for sent in expected if sent.request.lane and not sent.response_id]
        elif self.sent[None]:
            expected = self.sent[None][:1]
        self.break_off(expected, error_event(code, None, shape), code)

    # Events without an owner.

    @precondition(lambda self: self.cut_off)
    @rule(number=st.integers(0, 2), type_=st.sampled_from((*STEPS, *TERMINAL)))
    def send_steps_of_a_response_that_was_cut_off(self, number: int, type_: str) -> None:
        lane = list(self.cut_off)[number % len(self.cut_off)]
        self.route(response_event(type_, self.cut_off[lane], lane), None)

    @precondition(lambda self: any(self.last_ids.values()))
    @rule(type_=st.sampled_from(TERMINAL))
    def end_responses_twice(self, type_: str) -> None:
        for lane, response_id in self.last_ids.items():
            if response_id is not None:
                self.route(response_event(type_, response_id, lane), None)

    @rule(
        other_type=st.sampled_from(NOT_OF_A_RESPONSE),
        broken_type=st.sampled_from((*STEPS[2:], *NOT_OF_A_RESPONSE, None)),
        lane=st.sampled_from(LANES),
        ending=st.sampled_from(ODD_ENDS),
    )
    def send_events_without_an_owner(
        self, other_type: str, broken_type: str | None, lane: Lane, ending: str
    ) -> None:
        self.route(server_event(other_type), None)
        self.route(undecodable(broken_type, lane), None)
        if not self.sent[lane]:
            self.creates = True
            self.route(server_event("response.output_text.delta", lane), None)
            self.route(response_event("response.created", "resp_unknown", lane), None)
            self.route(response_event("response.completed", "resp_unknown", lane), None)
            self.route(undecodable(ending, lane), None)

    # Expected results.

    def oldest_of_each_lane(self) -> list[ServerRequest]:
        """Return the request that the server answers on each lane."""
        return [queue[0] for queue in self.sent.values() if queue]

    def active(self, number: int) -> ServerRequest:
        return self.oldest_of_each_lane()[number % len(self.oldest_of_each_lane())]

    def unfinished(self) -> list[ServerRequest]:
        return [sent for queue in self.sent.values() for sent in queue]

    def route(self, event: ServerEvent, expected: ServerRequest | None) -> None:
        (self.unowned if expected is None else expected.events).append(event)
        owner = self.lanes.route(event)
        assert owner is (expected.request if expected is not None else None)
        self.received[owner].append(event)

    def end(self, sent: ServerRequest) -> None:
        lane = sent.request.lane
        assert self.sent[lane].pop(0) is sent
        self.ended.append(sent)
        self.cut_off.pop(lane, None)
        self.last_ids[lane] = sent.response_id
        if self.creates:
            self.between.add(lane)
        self.ends += 1

    def break_off(
        self, expected: list[ServerRequest], event: ServerEvent, code: str | None
    ) -> None:
        if len(expected) != 1 or (code == LIMIT and expected[0].response_id):
            self.route(event, None)
            return
        (sent,) = expected
        self.end(sent)
        if sent.response_id is not None:
            self.cut_off[sent.request.lane] = sent.response_id
        if self.latest == (sent.request.parent, sent.request.lane):
            self.latest = (None, None)
        self.route(event, sent)

    @invariant()
    def each_event_is_delivered_once_to_its_owner(self) -> None:
        assert self.received.get(None) == self.unowned
        for sent in [*self.unfinished(), *self.ended]:
            assert self.received[sent.request] == sent.events

    @invariant()
    def a_request_is_unfinished_or_has_ended_once(self) -> None:
        unfinished = [sent.request for sent in self.unfinished()]
        assert Counter(self.lanes.unfinished()) == Counter(unfinished)
        assert not any(request.ended for request in unfinished)
        assert all(sent.request.abandoned is sent.abandoned for sent in self.unfinished())
        assert all(sent.request.ended for sent in self.ended)
        assert self.lanes.count() == len(unfinished)
        assert self.lanes.requests_ended == self.ends == len(self.ended)
        assert self.lanes.responses_ended == self.responses

    @invariant()
    def each_request_has_the_state_of_its_response(self) -> None:
        for sent in self.unfinished():
            started = sent.response_id is not None
            state = RequestState.STARTED if started else RequestState.SENT
            assert sent.request.state is state
        cut_off = [one.response_id for one in self.ended if one.request.state is CUT_OFF]
        assert Counter(cut_off) == Counter(self.cut_off.values())

    @invariant()
    def a_lane_is_idle_if_it_has_no_request(self) -> None:
        for lane in LANES:
            assert self.lanes.is_idle(lane) == (not self.sent[lane])

    @invariant()
    def the_latest_response_is_known(self) -> None:
        assert self.lanes.previous_response_id == self.latest[0]
        for lane in LANES:
            assert self.lanes.latest_response(lane) == self.last_ids.get(lane)

    @invariant()
    def the_lane_of_the_parent_is_the_best(self) -> None:
        idle = [lane for lane in LANES if not self.sent[lane]]
        assert self.lanes.idle_lanes(LANES, None) == idle
        for home, parent in self.last_ids.items():
            if home in idle and parent is not None:
                rest = [lane for lane in idle if lane != home]
                assert self.lanes.idle_lanes(LANES, parent) == [home, *rest]

    @invariant()
    def no_lane_is_ranked_before_one_that_suits(self) -> None:
        for parent in (None, "resp_unknown", *self.last_ids.values()):
            if self.lanes.suits(None, parent):
                assert self.lanes.idle_lanes(LANES, parent)[0] is None


RequestTableMachine.TestCase.settings = settings(
    deadline=None, max_examples=100, stateful_step_count=50
)
TestRandomOrders = RequestTableMachine.TestCase


# --- Rule by rule -----------------------------------------------------------------------------


@pytest.fixture
def lanes() -> RequestTable:
    return RequestTable()


def admit(
    lanes: RequestTable,
    lane: Lane = None,
    parent: str | None = None,
    reader: ReaderState = ReaderState.NONE,
) -> ActiveRequest:
    request = ActiveRequest(lane, parent, reader)
    lanes.admit(request)
    return request


def start(lanes: RequestTable, response_id: str, lane: Lane = None) -> None:
    lanes.route(response_event("response.created", response_id, lane))


def complete(lanes: RequestTable, response_id: str, lane: Lane = None) -> ActiveRequest | None:
    return lanes.route(response_event("response.completed", response_id, lane))


class TestOwnership:
    """P5: no event of one turn reaches another."""

    def test_the_oldest_unfinished_request_of_a_lane_owns_its_events(
        self, lanes: RequestTable
    ) -> None:
        first, second = admit(lanes), admit(lanes)
        assert lanes.route(server_event("response.output_text.delta")) is first
        assert complete(lanes, "resp_1") is first
        assert lanes.route(server_event("response.output_text.delta")) is second

    def test_each_lane_has_its_own_order(self, lanes: RequestTable) -> None:
        requests = {lane: admit(lanes, lane) for lane in LANES}
        for lane in [*reversed(LANES), *LANES]:
            assert lanes.route(server_event("response.output_text.delta", lane)) is requests[lane]

    def test_an_event_of_an_idle_lane_has_no_owner(self, lanes: RequestTable) -> None:
        admit(lanes)
        assert lanes.route(server_event("response.output_text.delta", "lane-1")) is None
        assert lanes.route(response_event("response.created", "resp_1", "lane-1")) is None
        assert lanes.route(error_event(None, "lane-1")) is None
        assert lanes.route(undecodable("error", "lane-1")) is None
        assert complete(lanes, "resp_1", "lane-1") is None
        assert lanes.count() == 1

    def test_a_request_can_be_answered_before_it_is_written_whole(
        self, lanes: RequestTable
    ) -> None:
        request = admit(lanes)
        assert lanes.route(error_event("previous_response_not_found")) is request
        lanes.withdraw(request)
        assert request.ended
        assert lanes.is_idle(None)

    def test_a_withdrawn_request_receives_no_events(self, lanes: RequestTable) -> None:
        """Row 6 of docs/problems.md: an unsent request is not waited for."""
        first, withdrawn = admit(lanes), admit(lanes)
        lanes.withdraw(withdrawn)
        lanes.withdraw(ActiveRequest("lane-9"))
        assert complete(lanes, "resp_1") is first
        assert lanes.is_idle(None)
        assert not withdrawn.ended
        assert lanes.requests_ended == 1

    def test_events_of_an_abandoned_turn_do_not_reach_the_next_turn(
        self, lanes: RequestTable
    ) -> None:
        """Row 5 of docs/problems.md: the lane is busy until the terminal event."""
        abandoned, following = admit(lanes, reader=READING), admit(lanes)
        start(lanes, "resp_1")
        abandoned.abandon()
        assert lanes.route(server_event("response.output_text.delta")) is abandoned
        assert not lanes.is_idle(None)
        assert complete(lanes, "resp_1") is abandoned
        start(lanes, "resp_2")
        assert lanes.route(server_event("response.output_text.delta")) is following

    def test_a_lane_is_busy_until_its_abandoned_response_ends(self, lanes: RequestTable) -> None:
        admit(lanes, "lane-1", reader=READING).abandon()
        assert not lanes.is_idle("lane-1")
        assert lanes.idle_lanes(["lane-1", "lane-2"], None) == ["lane-2"]
        complete(lanes, "resp_1", "lane-1")
        assert lanes.is_idle("lane-1")


class TestResponses:
    def test_created_starts_a_response_with_its_id(self, lanes: RequestTable) -> None:
        request = admit(lanes)
        start(lanes, "resp_1")
        assert request.response_id == "resp_1"
        assert not request.ended

    @pytest.mark.parametrize("type_", TERMINAL)
    def test_a_terminal_event_ends_its_request(self, lanes: RequestTable, type_: str) -> None:
        """P3, and row 21 of docs/problems.md: each of the three is a Response."""
        request = admit(lanes)
        assert lanes.route(response_event(type_, "resp_1")) is request
        assert request.ended
        assert request.response_id == "resp_1"
        assert (lanes.requests_ended, lanes.responses_ended, lanes.count()) == (1, 1, 0)

    def test_response_done_ends_a_request_as_completed_does(self, lanes: RequestTable) -> None:
        request = admit(lanes)
        assert lanes.route(response_event("response.done", "resp_1")) is request
        assert request.ended

    def test_a_terminal_event_without_an_id_keeps_the_id_of_created(
        self, lanes: RequestTable
    ) -> None:
        request = admit(lanes)
        start(lanes, "resp_1")
        assert lanes.route(response_event("response.completed", None)) is request
        assert lanes.previous_response_id == request.response_id == "resp_1"

    def test_a_terminal_event_with_another_id_ends_the_request(self, lanes: RequestTable) -> None:
        """P3: the turn does not hang."""
        request = admit(lanes)
        start(lanes, "resp_1")
        assert complete(lanes, "resp_one") is request
        assert request.ended

    def test_a_server_without_ids_ends_every_response(self, lanes: RequestTable) -> None:
        for _ in range(3):
            request = admit(lanes)
            assert lanes.route(response_event("response.completed", None)) is request
        assert lanes.previous_response_id is None

    def test_a_server_with_one_id_for_all_ends_every_response(self, lanes: RequestTable) -> None:
        for _ in range(3):
            request = admit(lanes)
            start(lanes, "resp_mock")
            assert complete(lanes, "resp_mock") is request

    def test_a_terminal_event_received_twice_ends_one_request(self, lanes: RequestTable) -> None:
        admit(lanes)
        following = admit(lanes)
        complete(lanes, "resp_1")
        assert complete(lanes, "resp_1") is None
        assert not following.ended
        assert lanes.responses_ended == 1


class TestUndecodableFrames:
    """P3 and P8: undecodable frames of the types that end a request end the request."""

    @pytest.mark.parametrize("type_", [*ODD_ENDS, "error", "response.error"])
    def test_an_undecodable_terminal_event_or_error_ends_the_request(
        self, lanes: RequestTable, type_: str
    ) -> None:
        request = admit(lanes, "lane-1")
        assert lanes.route(undecodable(type_, "lane-1")) is request
        assert request.ended
        assert (lanes.requests_ended, lanes.responses_ended) == (1, 0)

    def test_a_response_done_without_a_response_ends_the_request(self, lanes: RequestTable) -> None:
        request = admit(lanes)
        assert isinstance(server_event("response.done"), wire.UndecodableFrame)
        assert lanes.route(server_event("response.done")) is request

    @pytest.mark.parametrize("type_", ["response.output_text.delta", "keepalive", None])
    def test_any_other_undecodable_frame_has_no_owner(
        self, lanes: RequestTable, type_: str | None
    ) -> None:
        request = admit(lanes)
        assert lanes.route(undecodable(type_)) is None
        assert not request.ended

    def test_an_undecodable_error_is_attributed_like_any_error(self, lanes: RequestTable) -> None:
        request = admit(lanes, "lane-1")
        assert lanes.route(undecodable("error")) is request
        assert lanes.route(undecodable("error")) is None


class TestErrors:
    """The attribution of docs/protocol.md, 4."""

    @pytest.mark.parametrize("shape", ["nested", "without status", "flat"])
    def test_an_error_of_any_shape_ends_the_request_of_its_lane(
        self, lanes: RequestTable, shape: str
    ) -> None:
        """Row 1 of docs/problems.md."""
        other, request = admit(lanes), admit(lanes, "lane-1")
        assert lanes.route(error_event(None, "lane-1", shape)) is request
        assert request.ended
        assert not other.ended
        assert (lanes.requests_ended, lanes.responses_ended) == (1, 0)

    def test_an_error_without_a_lane_belongs_to_the_default_lane(self, lanes: RequestTable) -> None:
        other, request = admit(lanes, "lane-1"), admit(lanes)
        assert lanes.route(error_event()) is request
        assert not other.ended

    def test_an_error_without_a_lane_belongs_to_the_only_busy_lane(
        self, lanes: RequestTable
    ) -> None:
        first, second = admit(lanes, "lane-1"), admit(lanes, "lane-1")
        assert lanes.route(error_event()) is first
        assert lanes.route(error_event()) is second

    def test_an_error_without_a_lane_has_no_owner_if_several_lanes_are_busy(
        self, lanes: RequestTable
    ) -> None:
        admit(lanes, "lane-1")
        admit(lanes, "lane-2")
        assert lanes.route(error_event()) is None
        assert lanes.count() == 2

    def test_an_error_on_an_idle_socket_has_no_owner(self, lanes: RequestTable) -> None:
        """Row 2 of docs/problems.md."""
        assert lanes.route(error_event(LIMIT)) is None
        assert lanes.requests_ended == 0

    def test_the_refusal_of_a_lane_name_does_not_belong_to_the_default_lane(
        self, lanes: RequestTable
    ) -> None:
        """The refusal comes without a lane."""
        default, started, refused = admit(lanes), admit(lanes, "lane-1"), admit(lanes, "a lane")
        start(lanes, "resp_1", "lane-1")
        assert lanes.route(error_event(INVALID_LANE)) is refused
        assert refused.ended
        assert not default.ended
        assert not started.ended

    def test_the_refusal_of_a_lane_name_has_no_owner_if_several_lanes_are_new(
        self, lanes: RequestTable
    ) -> None:
        for lane in LANES:
            admit(lanes, lane)
        assert lanes.route(error_event(INVALID_LANE)) is None
        assert lanes.count() == len(LANES)

    def test_the_connection_limit_lets_a_started_response_finish(self, lanes: RequestTable) -> None:
        request = admit(lanes)
        start(lanes, "resp_1")
        assert lanes.route(error_event(LIMIT)) is None
        assert complete(lanes, "resp_1") is request

    def test_the_connection_limit_refuses_a_request_that_has_not_started(
        self, lanes: RequestTable
    ) -> None:
        """Row 10 of docs/problems.md."""
        request = admit(lanes)
        assert lanes.route(error_event(LIMIT)) is request
        assert request.ended


class TestCutOffResponses:
    """P5: events of a response that was cut off do not reach the next turn."""

    @pytest.mark.parametrize("type_", [*STEPS, *TERMINAL])
    @pytest.mark.parametrize("lane", [None, "lane-1"])
    def test_later_events_of_the_response_have_no_owner(
        self, lanes: RequestTable, lane: Lane, type_: str
    ) -> None:
        admit(lanes, lane)
        start(lanes, "resp_1", lane)
        lanes.route(error_event("server_is_overloaded", lane))
        following = admit(lanes, lane)
        assert lanes.route(response_event(type_, "resp_1", lane)) is None
        start(lanes, "resp_2", lane)
        assert lanes.route(server_event("response.output_text.delta", lane)) is following
        assert complete(lanes, "resp_1", lane) is None
        assert complete(lanes, "resp_2", lane) is following

    def test_an_undecodable_start_ends_the_wait_for_events_of_the_response(
        self, lanes: RequestTable
    ) -> None:
        admit(lanes)
        start(lanes, "resp_1")
        lanes.route(error_event())
        following = admit(lanes)
        lanes.route(undecodable("response.created"))
        assert lanes.route(server_event("response.output_text.delta")) is following
        assert complete(lanes, "resp_1") is None

    def test_other_lanes_are_not_affected(self, lanes: RequestTable) -> None:
        other = admit(lanes, "lane-2")
        admit(lanes, "lane-1")
        start(lanes, "resp_1", "lane-1")
        lanes.route(error_event(None, "lane-1"))
        assert lanes.route(server_event("response.output_text.delta", "lane-2")) is other

    def test_an_undecodable_error_cuts_a_response_off(self, lanes: RequestTable) -> None:
        admit(lanes)
        start(lanes, "resp_1")
        lanes.route(undecodable("error"))
        admit(lanes)
        assert lanes.route(server_event("response.output_text.delta")) is None

    def test_the_next_response_may_consist_of_its_terminal_event(self, lanes: RequestTable) -> None:
        """Some servers answer a warm-up with the terminal event alone."""
        admit(lanes)
        start(lanes, "resp_1")
        lanes.route(error_event())
        following = admit(lanes)
        assert complete(lanes, "resp_2") is following
        third = admit(lanes)
        assert lanes.route(server_event("response.output_text.delta")) is None
        start(lanes, "resp_3")
        assert lanes.route(server_event("response.output_text.delta")) is third

    def test_an_error_before_the_start_cuts_nothing_off(self, lanes: RequestTable) -> None:
        admit(lanes)
        lanes.route(error_event("previous_response_not_found"))
        following = admit(lanes)
        assert lanes.route(server_event("response.output_text.delta")) is following


class TestLateSteps:
    """P5: a step between the end of a response and the next ``response.created`` has no owner."""

    @pytest.mark.parametrize("lane", [None, "lane-1"])
    @pytest.mark.parametrize("type_", LATE)
    @pytest.mark.parametrize("ending", [*TERMINAL, "response.done"])
    def test_a_late_step_has_no_owner(
        self, lanes: RequestTable, lane: Lane, type_: str, ending: str
    ) -> None:
        admit(lanes, lane)
        start(lanes, "resp_1", lane)
        lanes.route(response_event(ending, "resp_1", lane))
        following = admit(lanes, lane)
        assert lanes.route(server_event(type_, lane)) is None
        start(lanes, "resp_2", lane)
        assert lanes.route(server_event(type_, lane)) is following

    @pytest.mark.parametrize("type_", sorted(NOTICES))
    def test_a_notice_before_the_start_belongs_to_the_next_request(
        self, lanes: RequestTable, type_: str
    ) -> None:
        admit(lanes)
        start(lanes, "resp_1")
        complete(lanes, "resp_1")
        following = admit(lanes)
        assert lanes.route(server_event(type_)) is following

    @pytest.mark.parametrize("event", [error_event(), undecodable("error")], ids=["error", "bytes"])
    def test_a_refusal_before_the_start_belongs_to_the_next_request(
        self, lanes: RequestTable, event: ServerEvent
    ) -> None:
        admit(lanes)
        start(lanes, "resp_1")
        complete(lanes, "resp_1")
        refused, following = admit(lanes), admit(lanes)
        assert lanes.route(server_event("response.output_text.delta")) is None
        assert lanes.route(event) is refused
        assert lanes.route(server_event("response.output_text.delta")) is None
        start(lanes, "resp_3")
        assert lanes.route(server_event("response.output_text.delta")) is following

    def test_a_terminal_event_of_another_response_belongs_to_the_next_request(
        self, lanes: RequestTable
    ) -> None:
        admit(lanes)
        start(lanes, "resp_1")
        complete(lanes, "resp_1")
        following = admit(lanes)
        assert complete(lanes, "resp_1") is None
        assert complete(lanes, "resp_2") is following

    def test_a_server_that_never_creates_responses_has_no_late_steps(
        self, lanes: RequestTable
    ) -> None:
        for number in range(3):
            request = admit(lanes)
            for type_ in LATE:
                assert lanes.route(server_event(type_)) is request
            assert complete(lanes, f"resp_{number}") is request

    def test_each_lane_has_its_own_late_steps(self, lanes: RequestTable) -> None:
        admit(lanes)
        start(lanes, "resp_1")
        complete(lanes, "resp_1")
        following, new = admit(lanes), admit(lanes, "lane-1")
        assert lanes.route(server_event("response.output_text.delta")) is None
        assert lanes.route(server_event("response.output_text.delta", "lane-1")) is new
        start(lanes, "resp_2", "lane-1")
        assert lanes.route(server_event("response.output_text.delta")) is None
        start(lanes, "resp_3")
        assert lanes.route(server_event("response.output_text.delta")) is following

    def test_a_response_without_an_id_starts_as_well(self, lanes: RequestTable) -> None:
        for _ in range(2):
            request = admit(lanes)
            lanes.route(response_event("response.created", None))
            assert lanes.route(server_event("response.output_text.delta")) is request
            assert lanes.route(response_event("response.completed", None)) is request

    def test_an_undecodable_start_is_a_start(self, lanes: RequestTable) -> None:
        admit(lanes)
        lanes.route(undecodable("response.created"))
        complete(lanes, "resp_1")
        following = admit(lanes)
        assert lanes.route(server_event("response.output_text.delta")) is None
        assert lanes.route(undecodable("response.created")) is None
        assert lanes.route(server_event("response.output_text.delta")) is following

    def test_a_start_that_nobody_has_asked_for_starts_no_later_request(
        self, lanes: RequestTable
    ) -> None:
        admit(lanes)
        start(lanes, "resp_1")
        complete(lanes, "resp_1")
        start(lanes, "resp_x")
        lanes.route(undecodable("response.created"))
        admit(lanes)
        assert lanes.route(server_event("response.output_text.delta")) is None

    def test_the_type_and_the_lane_show_whether_an_event_is_late(self, lanes: RequestTable) -> None:
        admit(lanes, "lane-1")
        start(lanes, "resp_1", "lane-1")
        kept = [*NOTICES, *ODD_ENDS, "response.created", "response.error", "error", "keepalive", ""]
        assert not any(lanes.is_late(type_, "lane-1") for type_ in (*LATE, *kept))
        complete(lanes, "resp_1", "lane-1")
        assert all(lanes.is_late(type_, "lane-1") for type_ in LATE)
        assert not any(lanes.is_late(type_, "lane-1") for type_ in kept)
        assert not any(lanes.is_late(type_, "lane-2") for type_ in LATE)


class TestUnknownEvents:
    @pytest.mark.parametrize("type_", NOT_OF_A_RESPONSE)
    def test_an_unknown_event_that_is_not_of_a_response_has_no_owner(
        self, lanes: RequestTable, type_: str
    ) -> None:
        request = admit(lanes)
        assert lanes.route(server_event(type_)) is None
        assert not request.ended

    def test_an_unknown_event_of_a_response_belongs_to_its_request(
        self, lanes: RequestTable
    ) -> None:
        request, on_lane = admit(lanes), admit(lanes, "lane-1")
        assert lanes.route(server_event("response.metadata")) is request
        assert lanes.route(server_event("response.metadata", "lane-1")) is on_lane
        assert not request.ended

    def test_an_unknown_event_with_a_lane_belongs_to_that_lane(self, lanes: RequestTable) -> None:
        request = admit(lanes, "lane-1")
        assert lanes.route(server_event("keepalive", "lane-1")) is request
        assert lanes.route(server_event("keepalive", "lane-2")) is None


class TestPreviousResponse:
    """Row 16 of docs/problems.md, and the cache rules of docs/protocol.md, 5.1."""

    def test_a_completed_response_is_remembered(self, lanes: RequestTable) -> None:
        admit(lanes)
        complete(lanes, "resp_1")
        assert lanes.previous_response_id == "resp_1"

    @pytest.mark.parametrize("type_", TERMINAL[1:])
    def test_a_failed_or_incomplete_response_is_not_remembered(
        self, lanes: RequestTable, type_: str
    ) -> None:
        admit(lanes)
        complete(lanes, "resp_1")
        admit(lanes, parent="resp_1")
        lanes.route(response_event(type_, "resp_2"))
        assert lanes.previous_response_id == "resp_1"

    def test_a_warm_up_is_remembered(self, lanes: RequestTable) -> None:
        admit(lanes)
        complete(lanes, "resp_warm")
        assert lanes.previous_response_id == "resp_warm"

    @pytest.mark.parametrize("lane", LANES)
    def test_an_error_of_its_continuation_evicts_a_response(
        self, lanes: RequestTable, lane: Lane
    ) -> None:
        admit(lanes, lane)
        complete(lanes, "resp_1", lane)
        admit(lanes, lane, parent="resp_1")
        lanes.route(error_event(None, lane))
        assert lanes.previous_response_id is None

    def test_an_error_of_a_fork_on_another_lane_does_not_evict_it(
        self, lanes: RequestTable
    ) -> None:
        admit(lanes)
        complete(lanes, "resp_1")
        admit(lanes, "lane-1", parent="resp_1")
        lanes.route(error_event(None, "lane-1"))
        assert lanes.previous_response_id == "resp_1"

    def test_an_error_of_another_chain_does_not_evict_it(self, lanes: RequestTable) -> None:
        admit(lanes)
        complete(lanes, "resp_1")
        admit(lanes)
        lanes.route(error_event())
        assert lanes.previous_response_id == "resp_1"

    def test_a_closed_socket_forgets_it(self, lanes: RequestTable) -> None:
        admit(lanes)
        complete(lanes, "resp_1")
        lanes.close()
        assert lanes.previous_response_id is None

    def test_each_lane_has_one_of_its_own_until_an_error_evicts_it(
        self, lanes: RequestTable
    ) -> None:
        for number, lane in enumerate(LANES):
            admit(lanes, lane)
            complete(lanes, f"resp_{number}", lane)
        admit(lanes, "lane-1", parent="resp_1")
        lanes.route(error_event(None, "lane-1"))
        assert [lanes.completed_response(lane) for lane in LANES] == ["resp_0", None, "resp_2"]


class TestStoredResponses:
    @pytest.mark.parametrize("type_", TERMINAL)
    @pytest.mark.parametrize("said", [True, False, None])
    def test_a_response_is_stored_if_its_end_says_so_and_it_has_not_failed(
        self, lanes: RequestTable, *, type_: str, said: bool | None
    ) -> None:
        request = admit(lanes)
        lanes.route(server_event("response.created", response={"id": "resp_1", "store": True}))
        assert not request.stored
        lanes.route(server_event(type_, response={"id": "resp_1", "store": said}))
        assert request.stored is (said is True and type_ != "response.failed")


class TestIdleLanes:
    def test_the_lane_of_the_parent_is_the_first(self, lanes: RequestTable) -> None:
        for number, lane in enumerate(LANES):
            admit(lanes, lane)
            complete(lanes, f"resp_{number}", lane)
        assert lanes.idle_lanes(LANES, "resp_2") == ["lane-2", None, "lane-1"]

    def test_without_a_known_parent_the_lanes_keep_their_order(self, lanes: RequestTable) -> None:
        admit(lanes, "lane-1")
        lanes.route(error_event(None, "lane-1"))
        assert lanes.idle_lanes(LANES, None) == list(LANES)
        assert lanes.idle_lanes(LANES, "resp_9") == list(LANES)

    def test_only_the_latest_response_of_a_lane_counts(self, lanes: RequestTable) -> None:
        for response_id in ("resp_1", "resp_2"):
            admit(lanes, "lane-1")
            complete(lanes, response_id, "lane-1")
        assert lanes.idle_lanes(LANES, "resp_1") == list(LANES)
        assert lanes.idle_lanes(LANES, "resp_2")[0] == "lane-1"
        assert lanes.latest_response("lane-1") == "resp_2"

    def test_an_idle_lane_suits_a_request_without_a_parent_or_with_its_own(
        self, lanes: RequestTable
    ) -> None:
        assert lanes.suits(None, None)
        admit(lanes)
        assert not lanes.suits(None, None)
        complete(lanes, "resp_1")
        assert lanes.suits(None, None)
        assert lanes.suits(None, "resp_1")
        assert not lanes.suits(None, "resp_2")
        assert not lanes.suits("lane-1", "resp_1")

    def test_an_error_leaves_a_lane_without_a_latest_response(self, lanes: RequestTable) -> None:
        """P7: the next turn has no baseline on the lane and sends its full input."""
        admit(lanes)
        complete(lanes, "resp_1")
        admit(lanes, parent="resp_1")
        lanes.route(error_event())
        assert lanes.latest_response(None) is None

    def test_a_busy_lane_of_the_parent_is_not_idle(self, lanes: RequestTable) -> None:
        admit(lanes, "lane-1")
        complete(lanes, "resp_1", "lane-1")
        admit(lanes, "lane-1")
        assert lanes.idle_lanes(LANES, "resp_1") == [None, "lane-2"]


class TestAClosedSocket:
    def test_only_requests_that_are_not_abandoned_are_returned(self, lanes: RequestTable) -> None:
        abandoned = admit(lanes, reader=READING)
        first, second = admit(lanes), admit(lanes, "lane-1")
        abandoned.abandon()
        assert set(lanes.close()) == {first, second}
        assert lanes.count() == 0
        assert lanes.close() == []

    def test_nothing_is_remembered(self, lanes: RequestTable) -> None:
        admit(lanes, "lane-1")
        start(lanes, "resp_1", "lane-1")
        lanes.route(error_event(None, "lane-1"))
        lanes.close()
        assert lanes.idle_lanes(LANES, "resp_1") == list(LANES)
        request = admit(lanes, "lane-1")
        assert lanes.route(server_event("response.output_text.delta", "lane-1")) is request
        assert complete(lanes, "resp_1", "lane-1") is request


def test_a_start_on_another_lane_does_not_end_the_wait_of_a_lane_that_was_cut_off() -> None:
    lanes = RequestTable()
    admit(lanes, "lane-1")
    start(lanes, "resp_1", "lane-1")
    lanes.route(error_event(None, "lane-1"))
    admit(lanes, "lane-1")
    admit(lanes, "lane-2")
    start(lanes, "resp_2", "lane-2")
    assert complete(lanes, "resp_2", "lane-2") is not None
    assert lanes.route(server_event("response.output_text.delta", "lane-1")) is None
