"""Who owns which event: rule by rule, and in any order that servers and turns can make up."""

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
from trio_responses._protocol.requests import ActiveRequest, RequestTable

if TYPE_CHECKING:
    from trio_responses._wire import ServerEvent

Lane: TypeAlias = "str | None"

LANES: tuple[Lane, ...] = (None, "lane-1", "lane-2")
TERMINAL = ("response.completed", "response.failed", "response.incomplete")
ODD_ENDS = (*TERMINAL, "response.done")
STEPS = (
    "response.queued",
    "response.in_progress",
    "response.output_item.added",
    "response.output_text.delta",
    "response.steer.accepted",
    "response.a_type_of_next_year",
)
UNASKED = ("keepalive", "codex.rate_limits", "responsesapi.websocket_timing")
LIMIT = "websocket_connection_limit_reached"
BAD_NAME = "invalid_stream_id"
CODES = (
    None,
    "server_is_overloaded",
    "previous_response_not_found",
    "websocket_stream_limit_reached",
    LIMIT,
    BAD_NAME,
)
FIELDS: dict[str, dict[str, Any]] = {
    "response.queued": {"response": {"id": "resp_any"}},
    "response.in_progress": {"response": {"id": "resp_any"}},
    "response.output_item.added": {"item": {"type": "message"}},
    "response.output_text.delta": {"delta": "word"},
    "response.steer.accepted": {"steer": {"id": "steer_1"}},
}


def say(type_: str, lane: Lane = None, **fields: Any) -> ServerEvent:
    """Make an event of the frame that a server would send."""
    frame: dict[str, Any] = {"type": type_, **FIELDS.get(type_, {}), **fields}
    if lane is not None:
        frame["stream_id"] = lane
    return wire.decode(json.dumps(frame).encode())


def say_response(type_: str, response_id: str | None, lane: Lane = None) -> ServerEvent:
    return say(type_, lane, response={} if response_id is None else {"id": response_id})


def say_error(code: str | None = None, lane: Lane = None, shape: str = "nested") -> ServerEvent:
    """Make an error in one of the shapes of docs/protocol.md, 4."""
    body: dict[str, Any] = {"message": "no", "param": None} | ({"code": code} if code else {})
    if shape == "garbled":
        return garble("error" if lane is None else "response.error", lane)
    fields: dict[str, dict[str, Any]] = {
        "nested": {"status": 400, "error": body},
        "without status": {"error": body, "sequence_number": 2},
        "flat": body,
    }
    return say("error", lane, **fields[shape])


def garble(type_: str | None, lane: Lane = None) -> wire.UndecodableFrame:
    """Make a frame that cannot be decoded, of which type and lane are known all the same."""
    return wire.UndecodableFrame(raw=b"{", error="broken", wire_type=type_, stream_id=lane)


# --- Any order --------------------------------------------------------------------------------


@dataclass(eq=False)
class Asked:
    """A request as the server sees it."""

    request: ActiveRequest
    named: str | None = None
    """The id that ``response.created`` said."""
    events: list[ServerEvent] = field(default_factory=list["ServerEvent"])
    """What was said in answer to it."""
    left: bool = False
    """Whether its turn was left early."""


def busy(server: LanesBesideAServer) -> bool:
    return bool(server.heads())


class LanesBesideAServer(RuleBasedStateMachine):
    """A server that knows whom it answers, and `RequestTable`, which has to find out.

    The server answers each lane in order, breaks off responses and goes on with them for a while,
    says things twice, says things that it was not asked for, and cannot always be understood.
    """

    def __init__(self) -> None:
        super().__init__()
        self.lanes: RequestTable[ActiveRequest] = RequestTable()
        self.asked: dict[Lane, list[Asked]] = {lane: [] for lane in LANES}
        self.over: list[Asked] = []
        self.rests: dict[Lane, str] = {}
        """Lanes with a response that was broken off, until the next one begins."""
        self.last_ids: dict[Lane, str | None] = {}
        self.latest: tuple[str | None, Lane] = (None, None)
        """The last completed response and where it ran, unless it was evicted."""
        self.responses = 0
        self.ends = 0
        self.heard: dict[ActiveRequest | None, list[ServerEvent]] = {None: []}
        self.said_to_nobody: list[ServerEvent] = []
        self.numbers = count(1)

    # What the client does.

    @initialize(lanes=st.lists(st.sampled_from(LANES), min_size=2, max_size=5))
    def ask(self, lanes: list[Lane]) -> None:
        assert self.lanes.free(LANES, None) == list(LANES)
        for lane in lanes:
            self.admit(lane, "none")

    @rule(lane=st.sampled_from(LANES), parent=st.sampled_from(["none", "latest", "latest", "lost"]))
    def admit(self, lane: Lane, parent: str) -> None:
        parents = {"latest": self.latest[0], "lost": "resp_x"}
        request = ActiveRequest(lane, parents.get(parent))
        self.asked[lane].append(Asked(request))
        self.heard[request] = []
        self.lanes.admit(request)

    @precondition(lambda self: self.latest[0] and self.lanes.is_idle(self.latest[1]))
    @rule()
    def continue_at_home(self) -> None:
        self.admit(self.latest[1], "latest")

    @rule(lane=st.sampled_from(LANES))
    def withdraw(self, lane: Lane) -> None:
        """Take back what the server has not seen, and for good measure what it has answered."""
        if self.asked[lane] and not self.asked[lane][-1].events:
            self.lanes.withdraw(self.asked[lane].pop().request)
        for asked in self.over[-2:]:
            self.lanes.withdraw(asked.request)

    @precondition(busy)
    @rule(number=st.integers(0, 5))
    def abandon(self, number: int) -> None:
        unfinished = self.unfinished()
        asked = unfinished[number % len(unfinished)]
        asked.left = True
        self.lanes.abandon(asked.request)

    @precondition(lambda self: self.over and busy(self))
    @rule()
    def lose_the_socket(self) -> None:
        waiting = [asked.request for asked in self.unfinished() if not asked.left]
        assert Counter(self.lanes.clear()) == Counter(waiting)
        for queue in self.asked.values():
            queue.clear()
        self.rests.clear()
        self.last_ids.clear()
        self.latest = (None, None)

    # What the server says to somebody.

    @precondition(busy)
    @rule(number=st.integers(0, 2), with_id=st.sampled_from([True, True, False]))
    def begin_a_response(self, number: int, with_id: bool) -> None:  # noqa: FBT001
        asked = self.at_work(number)
        if asked.named:
            return
        lane = asked.request.lane
        asked.named = f"resp_{next(self.numbers)}" if with_id else None
        self.rests.pop(lane, None)
        self.route(say_response("response.created", asked.named, lane), asked)
        assert asked.request.response_id == asked.named

    @precondition(busy)
    @rule(number=st.integers(0, 2), types=st.lists(st.sampled_from(STEPS), min_size=1, max_size=3))
    def go_on_with_a_response(self, number: int, types: list[str]) -> None:
        asked = self.at_work(number)
        lane = asked.request.lane
        for type_ in types:
            self.route(say(type_, lane), None if lane in self.rests else asked)

    @precondition(busy)
    @rule(number=st.integers(0, 2), type_=st.sampled_from(TERMINAL), with_id=st.booleans())
    def end_a_response(self, number: int, type_: str, with_id: bool) -> None:  # noqa: FBT001
        asked = self.at_work(number)
        lane = asked.request.lane
        if with_id and asked.named is None:
            asked.named = f"resp_{next(self.numbers)}"
        event = say_response(type_, asked.named if with_id else None, lane)
        self.end(asked)
        self.responses += 1
        if type_ == "response.completed":
            self.latest = (asked.named, lane)
        self.route(event, asked)
        assert asked.request.response_id == asked.named

    @precondition(busy)
    @rule(number=st.integers(0, 2))
    def answer_in_full(self, number: int) -> None:
        lane = self.at_work(number).request.lane
        number = [asked.request.lane for asked in self.heads()].index(lane)
        self.begin_a_response(number, with_id=True)
        self.go_on_with_a_response(number, ["response.output_text.delta"])
        self.end_a_response(number, "response.completed", with_id=True)

    @precondition(busy)
    @rule(number=st.integers(0, 2), type_=st.sampled_from(ODD_ENDS))
    def end_a_response_unintelligibly(self, number: int, type_: str) -> None:
        asked = self.at_work(number)
        self.end(asked)
        self.route(garble(type_, asked.request.lane), asked)

    @precondition(busy)
    @rule(
        number=st.integers(0, 2),
        code=st.sampled_from(CODES),
        shape=st.sampled_from(["nested", "without status", "flat", "garbled"]),
    )
    def refuse(self, number: int, code: str | None, shape: str) -> None:
        asked = self.at_work(number)
        if asked.request.lane is not None:
            code = None if shape == "garbled" else code
            self.break_off([asked], say_error(code, asked.request.lane, shape), code)

    @precondition(lambda self: self.heads() and self.heads()[0].request.lane is None)
    @rule(begun=st.booleans())
    def break_off_on_the_default_lane(self, begun: bool) -> None:  # noqa: FBT001
        if begun:
            self.begin_a_response(0, with_id=True)
        self.refuse_without_a_lane(None, "nested")

    @rule(code=st.sampled_from(CODES), shape=st.sampled_from(["nested", "flat", "garbled"]))
    def refuse_without_a_lane(self, code: str | None, shape: str) -> None:
        code = None if shape == "garbled" else code
        meant = self.heads()
        if code == BAD_NAME:
            meant = [asked for asked in meant if asked.request.lane and not asked.named]
        elif self.asked[None]:
            meant = self.asked[None][:1]
        self.break_off(meant, say_error(code, None, shape), code)

    # What the server says to nobody.

    @precondition(lambda self: self.rests)
    @rule(number=st.integers(0, 2), type_=st.sampled_from((*STEPS, *TERMINAL)))
    def go_on_with_a_response_that_was_broken_off(self, number: int, type_: str) -> None:
        lane = list(self.rests)[number % len(self.rests)]
        self.route(say_response(type_, self.rests[lane], lane), None)

    @precondition(lambda self: any(self.last_ids.values()))
    @rule(type_=st.sampled_from(TERMINAL))
    def end_responses_twice(self, type_: str) -> None:
        for lane, response_id in self.last_ids.items():
            if response_id is not None:
                self.route(say_response(type_, response_id, lane), None)

    @rule(
        unasked=st.sampled_from(UNASKED),
        garbled=st.sampled_from((*STEPS[2:], *UNASKED, None)),
        lane=st.sampled_from(LANES),
        ending=st.sampled_from(ODD_ENDS),
    )
    def speak_to_nobody(self, unasked: str, garbled: str | None, lane: Lane, ending: str) -> None:
        self.route(say(unasked), None)
        self.route(garble(garbled, lane), None)
        if not self.asked[lane]:
            self.route(say("response.output_text.delta", lane), None)
            self.route(say_response("response.created", "resp_of_nobody", lane), None)
            self.route(say_response("response.completed", "resp_of_nobody", lane), None)
            self.route(garble(ending, lane), None)

    # The score.

    def heads(self) -> list[Asked]:
        """What the server is at work on, lane by lane."""
        return [queue[0] for queue in self.asked.values() if queue]

    def at_work(self, number: int) -> Asked:
        return self.heads()[number % len(self.heads())]

    def unfinished(self) -> list[Asked]:
        return [asked for queue in self.asked.values() for asked in queue]

    def route(self, event: ServerEvent, meant: Asked | None) -> None:
        (self.said_to_nobody if meant is None else meant.events).append(event)
        owner = self.lanes.route(event)
        assert owner is (meant.request if meant is not None else None)
        self.heard[owner].append(event)

    def end(self, asked: Asked) -> None:
        lane = asked.request.lane
        assert self.asked[lane].pop(0) is asked
        self.over.append(asked)
        self.rests.pop(lane, None)
        self.last_ids[lane] = asked.named
        self.ends += 1

    def break_off(self, meant: list[Asked], event: ServerEvent, code: str | None) -> None:
        if len(meant) != 1 or (code == LIMIT and meant[0].named):
            self.route(event, None)
            return
        (asked,) = meant
        self.end(asked)
        if asked.named is not None:
            self.rests[asked.request.lane] = asked.named
        if self.latest == (asked.request.parent, asked.request.lane):
            self.latest = (None, None)
        self.route(event, asked)

    @invariant()
    def no_event_is_lost_doubled_or_given_to_another(self) -> None:
        assert self.heard.get(None) == self.said_to_nobody
        for asked in [*self.unfinished(), *self.over]:
            assert self.heard[asked.request] == asked.events

    @invariant()
    def a_request_is_unfinished_or_has_ended_once(self) -> None:
        unfinished = [asked.request for asked in self.unfinished()]
        assert Counter(self.lanes.unfinished()) == Counter(unfinished)
        assert not any(request.ended for request in unfinished)
        assert all(asked.request.abandoned is asked.left for asked in self.unfinished())
        assert all(asked.request.ended for asked in self.over)
        assert self.lanes.count() == len(unfinished)
        assert self.lanes.ends == self.ends == len(self.over)
        assert self.lanes.responses == self.responses

    @invariant()
    def a_lane_is_idle_where_nothing_is_to_come(self) -> None:
        for lane in LANES:
            assert self.lanes.is_idle(lane) == (not self.asked[lane])

    @invariant()
    def the_latest_response_is_known(self) -> None:
        assert self.lanes.previous_response_id == self.latest[0]
        for lane in LANES:
            assert self.lanes.latest(lane) == self.last_ids.get(lane)

    @invariant()
    def the_home_of_the_parent_is_free_first(self) -> None:
        idle = [lane for lane in LANES if not self.asked[lane]]
        assert self.lanes.free(LANES, None) == idle
        for home, parent in self.last_ids.items():
            if home in idle and parent is not None:
                rest = [lane for lane in idle if lane != home]
                assert self.lanes.free(LANES, parent) == [home, *rest]


LanesBesideAServer.TestCase.settings = settings(
    deadline=None, max_examples=100, stateful_step_count=50
)
TestAnyOrder = LanesBesideAServer.TestCase


# --- Rule by rule -----------------------------------------------------------------------------


@pytest.fixture
def lanes() -> RequestTable[ActiveRequest]:
    return RequestTable()


def admit(
    lanes: RequestTable[ActiveRequest], lane: Lane = None, parent: str | None = None
) -> ActiveRequest:
    request = ActiveRequest(lane, parent)
    lanes.admit(request)
    return request


def begin(lanes: RequestTable[ActiveRequest], response_id: str, lane: Lane = None) -> None:
    lanes.route(say_response("response.created", response_id, lane))


def complete(
    lanes: RequestTable[ActiveRequest], response_id: str, lane: Lane = None
) -> ActiveRequest | None:
    return lanes.route(say_response("response.completed", response_id, lane))


class TestOwnership:
    """P5: no event of one turn reaches another."""

    def test_the_oldest_unfinished_request_of_a_lane_owns_its_events(
        self, lanes: RequestTable[ActiveRequest]
    ) -> None:
        first, second = admit(lanes), admit(lanes)
        assert lanes.route(say("response.output_text.delta")) is first
        assert complete(lanes, "resp_1") is first
        assert lanes.route(say("response.output_text.delta")) is second

    def test_lanes_are_answered_side_by_side(self, lanes: RequestTable[ActiveRequest]) -> None:
        requests = {lane: admit(lanes, lane) for lane in LANES}
        for lane in [*reversed(LANES), *LANES]:
            assert lanes.route(say("response.output_text.delta", lane)) is requests[lane]

    def test_an_event_of_a_lane_where_nothing_was_asked_belongs_to_nobody(
        self, lanes: RequestTable[ActiveRequest]
    ) -> None:
        admit(lanes)
        assert lanes.route(say("response.output_text.delta", "lane-1")) is None
        assert lanes.route(say_response("response.created", "resp_1", "lane-1")) is None
        assert lanes.route(say_error(None, "lane-1")) is None
        assert lanes.route(garble("error", "lane-1")) is None
        assert complete(lanes, "resp_1", "lane-1") is None
        assert lanes.count() == 1

    def test_a_request_can_be_answered_before_its_last_byte_is_out(
        self, lanes: RequestTable[ActiveRequest]
    ) -> None:
        request = admit(lanes)
        assert lanes.route(say_error("previous_response_not_found")) is request
        lanes.withdraw(request)
        assert request.ended
        assert lanes.is_idle(None)

    def test_a_withdrawn_request_leaves_no_debris(self, lanes: RequestTable[ActiveRequest]) -> None:
        """Row 6 of docs/problems.md: what was not sent is not waited for."""
        first, withdrawn = admit(lanes), admit(lanes)
        lanes.withdraw(withdrawn)
        lanes.withdraw(ActiveRequest("lane-9"))
        assert complete(lanes, "resp_1") is first
        assert lanes.is_idle(None)
        assert not withdrawn.ended
        assert lanes.ends == 1

    def test_the_events_of_an_abandoned_turn_do_not_answer_the_next_one(
        self, lanes: RequestTable[ActiveRequest]
    ) -> None:
        """Row 5 of docs/problems.md: the lane is dirty until the terminal event, and then clean."""
        left, following = admit(lanes), admit(lanes)
        begin(lanes, "resp_1")
        lanes.abandon(left)
        assert lanes.route(say("response.output_text.delta")) is left
        assert not lanes.is_idle(None)
        assert complete(lanes, "resp_1") is left
        assert lanes.route(say("response.output_text.delta")) is following

    def test_a_lane_is_dirty_until_its_abandoned_response_ends(
        self, lanes: RequestTable[ActiveRequest]
    ) -> None:
        lanes.abandon(admit(lanes, "lane-1"))
        assert not lanes.is_idle("lane-1")
        assert lanes.free(["lane-1", "lane-2"], None) == ["lane-2"]
        complete(lanes, "resp_1", "lane-1")
        assert lanes.is_idle("lane-1")


class TestResponses:
    def test_created_names_the_response(self, lanes: RequestTable[ActiveRequest]) -> None:
        request = admit(lanes)
        begin(lanes, "resp_1")
        assert request.response_id == "resp_1"
        assert not request.ended

    @pytest.mark.parametrize("type_", TERMINAL)
    def test_a_terminal_event_ends_its_request(
        self, lanes: RequestTable[ActiveRequest], type_: str
    ) -> None:
        """P3, and row 21 of docs/problems.md: all three are ends, and all three are Responses."""
        request = admit(lanes)
        assert lanes.route(say_response(type_, "resp_1")) is request
        assert request.ended
        assert request.response_id == "resp_1"
        assert (lanes.ends, lanes.responses, lanes.count()) == (1, 1, 0)

    def test_the_old_name_of_completed_ends_its_request(
        self, lanes: RequestTable[ActiveRequest]
    ) -> None:
        request = admit(lanes)
        assert lanes.route(say_response("response.done", "resp_1")) is request
        assert request.ended

    def test_a_terminal_event_without_an_id_leaves_the_id_of_created(
        self, lanes: RequestTable[ActiveRequest]
    ) -> None:
        request = admit(lanes)
        begin(lanes, "resp_1")
        assert lanes.route(say_response("response.completed", None)) is request
        assert lanes.previous_response_id == request.response_id == "resp_1"

    def test_a_server_that_renames_its_response_still_ends_it(
        self, lanes: RequestTable[ActiveRequest]
    ) -> None:
        """P3: rather an end under a strange id than a turn that hangs."""
        request = admit(lanes)
        begin(lanes, "resp_1")
        assert complete(lanes, "resp_one") is request
        assert request.ended

    def test_a_server_without_ids_ends_every_response(
        self, lanes: RequestTable[ActiveRequest]
    ) -> None:
        for _ in range(3):
            request = admit(lanes)
            assert lanes.route(say_response("response.completed", None)) is request
        assert lanes.previous_response_id is None

    def test_a_server_with_one_id_for_all_ends_every_response(
        self, lanes: RequestTable[ActiveRequest]
    ) -> None:
        for _ in range(3):
            request = admit(lanes)
            begin(lanes, "resp_mock")
            assert complete(lanes, "resp_mock") is request

    def test_a_terminal_event_said_twice_ends_one_request(
        self, lanes: RequestTable[ActiveRequest]
    ) -> None:
        admit(lanes)
        following = admit(lanes)
        complete(lanes, "resp_1")
        assert complete(lanes, "resp_1") is None
        assert not following.ended
        assert lanes.responses == 1


class TestUndecodableFrames:
    """P3 and P8: a turn ends by a frame that cannot be read, too, and by no other."""

    @pytest.mark.parametrize("type_", [*ODD_ENDS, "error", "response.error"])
    def test_one_that_would_end_a_request_ends_it(
        self, lanes: RequestTable[ActiveRequest], type_: str
    ) -> None:
        request = admit(lanes, "lane-1")
        assert lanes.route(garble(type_, "lane-1")) is request
        assert request.ended
        assert (lanes.ends, lanes.responses) == (1, 0)

    def test_a_done_without_its_response_ends_the_request(
        self, lanes: RequestTable[ActiveRequest]
    ) -> None:
        request = admit(lanes)
        assert isinstance(say("response.done"), wire.UndecodableFrame)
        assert lanes.route(say("response.done")) is request

    @pytest.mark.parametrize("type_", ["response.output_text.delta", "keepalive", None])
    def test_any_other_belongs_to_nobody(
        self, lanes: RequestTable[ActiveRequest], type_: str | None
    ) -> None:
        request = admit(lanes)
        assert lanes.route(garble(type_)) is None
        assert not request.ended

    def test_an_error_is_attributed_as_one_that_can_be_read(
        self, lanes: RequestTable[ActiveRequest]
    ) -> None:
        request = admit(lanes, "lane-1")
        assert lanes.route(garble("error")) is request
        assert lanes.route(garble("error")) is None


class TestErrors:
    """The attribution of docs/protocol.md, 4."""

    @pytest.mark.parametrize("shape", ["nested", "without status", "flat"])
    def test_an_error_of_any_shape_ends_the_request_of_its_lane(
        self, lanes: RequestTable[ActiveRequest], shape: str
    ) -> None:
        """Row 1 of docs/problems.md."""
        other, request = admit(lanes), admit(lanes, "lane-1")
        assert lanes.route(say_error(None, "lane-1", shape)) is request
        assert request.ended
        assert not other.ended
        assert (lanes.ends, lanes.responses) == (1, 0)

    def test_an_error_without_a_lane_belongs_to_the_default_lane(
        self, lanes: RequestTable[ActiveRequest]
    ) -> None:
        other, request = admit(lanes, "lane-1"), admit(lanes)
        assert lanes.route(say_error()) is request
        assert not other.ended

    def test_an_error_without_a_lane_belongs_to_the_only_lane_at_work(
        self, lanes: RequestTable[ActiveRequest]
    ) -> None:
        first, second = admit(lanes, "lane-1"), admit(lanes, "lane-1")
        assert lanes.route(say_error()) is first
        assert lanes.route(say_error()) is second

    def test_an_error_without_a_lane_among_several_belongs_to_nobody(
        self, lanes: RequestTable[ActiveRequest]
    ) -> None:
        admit(lanes, "lane-1")
        admit(lanes, "lane-2")
        assert lanes.route(say_error()) is None
        assert lanes.count() == 2

    def test_an_error_on_an_idle_socket_belongs_to_nobody(
        self, lanes: RequestTable[ActiveRequest]
    ) -> None:
        """Row 2 of docs/problems.md."""
        assert lanes.route(say_error(LIMIT)) is None
        assert lanes.ends == 0

    def test_a_refused_name_is_not_the_fault_of_the_default_lane(
        self, lanes: RequestTable[ActiveRequest]
    ) -> None:
        """The server says it without the lane whose name it refuses."""
        innocent, begun, misnamed = admit(lanes), admit(lanes, "lane-1"), admit(lanes, "a lane")
        begin(lanes, "resp_1", "lane-1")
        assert lanes.route(say_error(BAD_NAME)) is misnamed
        assert misnamed.ended
        assert not innocent.ended
        assert not begun.ended

    def test_a_refused_name_among_several_belongs_to_nobody(
        self, lanes: RequestTable[ActiveRequest]
    ) -> None:
        for lane in LANES:
            admit(lanes, lane)
        assert lanes.route(say_error(BAD_NAME)) is None
        assert lanes.count() == len(LANES)

    def test_the_connection_limit_lets_a_response_finish_that_has_begun(
        self, lanes: RequestTable[ActiveRequest]
    ) -> None:
        request = admit(lanes)
        begin(lanes, "resp_1")
        assert lanes.route(say_error(LIMIT)) is None
        assert complete(lanes, "resp_1") is request

    def test_the_connection_limit_refuses_a_response_that_has_not_begun(
        self, lanes: RequestTable[ActiveRequest]
    ) -> None:
        """Row 10 of docs/problems.md."""
        request = admit(lanes)
        assert lanes.route(say_error(LIMIT)) is request
        assert request.ended


class TestWhatComesAfterAnError:
    """P5: a response that was broken off does not run on in the next turn."""

    @pytest.mark.parametrize("type_", [*STEPS, *TERMINAL])
    @pytest.mark.parametrize("lane", [None, "lane-1"])
    def test_the_rest_of_its_response_belongs_to_nobody(
        self, lanes: RequestTable[ActiveRequest], lane: Lane, type_: str
    ) -> None:
        admit(lanes, lane)
        begin(lanes, "resp_1", lane)
        lanes.route(say_error("server_is_overloaded", lane))
        following = admit(lanes, lane)
        assert lanes.route(say_response(type_, "resp_1", lane)) is None
        begin(lanes, "resp_2", lane)
        assert lanes.route(say("response.output_text.delta", lane)) is following
        assert complete(lanes, "resp_1", lane) is None
        assert complete(lanes, "resp_2", lane) is following

    def test_other_lanes_go_on(self, lanes: RequestTable[ActiveRequest]) -> None:
        other = admit(lanes, "lane-2")
        admit(lanes, "lane-1")
        begin(lanes, "resp_1", "lane-1")
        lanes.route(say_error(None, "lane-1"))
        assert lanes.route(say("response.output_text.delta", "lane-2")) is other

    def test_an_error_that_cannot_be_read_breaks_off_as_well(
        self, lanes: RequestTable[ActiveRequest]
    ) -> None:
        admit(lanes)
        begin(lanes, "resp_1")
        lanes.route(garble("error"))
        admit(lanes)
        assert lanes.route(say("response.output_text.delta")) is None

    def test_the_next_response_may_consist_of_its_end(
        self, lanes: RequestTable[ActiveRequest]
    ) -> None:
        """Some servers answer a warm-up by the terminal event alone."""
        admit(lanes)
        begin(lanes, "resp_1")
        lanes.route(say_error())
        following = admit(lanes)
        assert complete(lanes, "resp_2") is following
        third = admit(lanes)
        assert lanes.route(say("response.output_text.delta")) is third

    def test_where_no_response_had_begun_nothing_is_held_back(
        self, lanes: RequestTable[ActiveRequest]
    ) -> None:
        admit(lanes)
        lanes.route(say_error("previous_response_not_found"))
        following = admit(lanes)
        assert lanes.route(say("response.output_text.delta")) is following


class TestUnknownEvents:
    @pytest.mark.parametrize("type_", UNASKED)
    def test_what_is_said_unasked_belongs_to_nobody(
        self, lanes: RequestTable[ActiveRequest], type_: str
    ) -> None:
        request = admit(lanes)
        assert lanes.route(say(type_)) is None
        assert not request.ended

    def test_an_unknown_step_of_a_response_belongs_to_its_request(
        self, lanes: RequestTable[ActiveRequest]
    ) -> None:
        request, named = admit(lanes), admit(lanes, "lane-1")
        assert lanes.route(say("response.metadata")) is request
        assert lanes.route(say("response.metadata", "lane-1")) is named
        assert not request.ended

    def test_an_unknown_event_with_a_lane_belongs_to_that_lane(
        self, lanes: RequestTable[ActiveRequest]
    ) -> None:
        request = admit(lanes, "lane-1")
        assert lanes.route(say("keepalive", "lane-1")) is request
        assert lanes.route(say("keepalive", "lane-2")) is None


class TestPreviousResponse:
    """Row 16 of docs/problems.md, and the cache rules of docs/protocol.md, 5.1."""

    def test_a_completed_response_is_remembered(self, lanes: RequestTable[ActiveRequest]) -> None:
        admit(lanes)
        complete(lanes, "resp_1")
        assert lanes.previous_response_id == "resp_1"

    @pytest.mark.parametrize("type_", TERMINAL[1:])
    def test_a_failed_or_incomplete_one_is_not(
        self, lanes: RequestTable[ActiveRequest], type_: str
    ) -> None:
        admit(lanes)
        complete(lanes, "resp_1")
        admit(lanes, parent="resp_1")
        lanes.route(say_response(type_, "resp_2"))
        assert lanes.previous_response_id == "resp_1"

    def test_a_warm_up_counts_as_one(self, lanes: RequestTable[ActiveRequest]) -> None:
        admit(lanes)
        complete(lanes, "resp_warm")
        assert lanes.previous_response_id == "resp_warm"

    @pytest.mark.parametrize("lane", LANES)
    def test_an_error_of_its_continuation_evicts_it(
        self, lanes: RequestTable[ActiveRequest], lane: Lane
    ) -> None:
        admit(lanes, lane)
        complete(lanes, "resp_1", lane)
        admit(lanes, lane, parent="resp_1")
        lanes.route(say_error(None, lane))
        assert lanes.previous_response_id is None

    def test_an_error_of_a_fork_on_another_lane_keeps_it(
        self, lanes: RequestTable[ActiveRequest]
    ) -> None:
        admit(lanes)
        complete(lanes, "resp_1")
        admit(lanes, "lane-1", parent="resp_1")
        lanes.route(say_error(None, "lane-1"))
        assert lanes.previous_response_id == "resp_1"

    def test_an_error_of_another_chain_keeps_it(self, lanes: RequestTable[ActiveRequest]) -> None:
        admit(lanes)
        complete(lanes, "resp_1")
        admit(lanes)
        lanes.route(say_error())
        assert lanes.previous_response_id == "resp_1"

    def test_a_lost_socket_takes_it_along(self, lanes: RequestTable[ActiveRequest]) -> None:
        admit(lanes)
        complete(lanes, "resp_1")
        lanes.clear()
        assert lanes.previous_response_id is None


class TestFreeLanes:
    def test_the_home_of_the_parent_goes_first(self, lanes: RequestTable[ActiveRequest]) -> None:
        for number, lane in enumerate(LANES):
            admit(lanes, lane)
            complete(lanes, f"resp_{number}", lane)
        assert lanes.free(LANES, "resp_2") == ["lane-2", None, "lane-1"]

    def test_without_a_parent_or_with_an_unknown_one_they_keep_their_order(
        self, lanes: RequestTable[ActiveRequest]
    ) -> None:
        admit(lanes, "lane-1")
        lanes.route(say_error(None, "lane-1"))
        assert lanes.free(LANES, None) == list(LANES)
        assert lanes.free(LANES, "resp_9") == list(LANES)

    def test_only_the_latest_response_of_a_lane_has_its_home_there(
        self, lanes: RequestTable[ActiveRequest]
    ) -> None:
        for response_id in ("resp_1", "resp_2"):
            admit(lanes, "lane-1")
            complete(lanes, response_id, "lane-1")
        assert lanes.free(LANES, "resp_1") == list(LANES)
        assert lanes.free(LANES, "resp_2")[0] == "lane-1"
        assert lanes.latest("lane-1") == "resp_2"

    def test_an_error_in_place_of_a_response_leaves_a_lane_without_a_latest_one(
        self, lanes: RequestTable[ActiveRequest]
    ) -> None:
        """Design P7: the next turn has no baseline there, and sends its full input."""
        admit(lanes)
        complete(lanes, "resp_1")
        admit(lanes, parent="resp_1")
        lanes.route(say_error())
        assert lanes.latest(None) is None

    def test_a_busy_home_is_not_free(self, lanes: RequestTable[ActiveRequest]) -> None:
        admit(lanes, "lane-1")
        complete(lanes, "resp_1", "lane-1")
        admit(lanes, "lane-1")
        assert lanes.free(LANES, "resp_1") == [None, "lane-2"]


class TestALostSocket:
    def test_only_those_who_wait_are_told(self, lanes: RequestTable[ActiveRequest]) -> None:
        left, first, second = admit(lanes), admit(lanes), admit(lanes, "lane-1")
        lanes.abandon(left)
        assert set(lanes.clear()) == {first, second}
        assert lanes.count() == 0
        assert lanes.clear() == []

    def test_nothing_of_it_is_left(self, lanes: RequestTable[ActiveRequest]) -> None:
        admit(lanes, "lane-1")
        begin(lanes, "resp_1", "lane-1")
        lanes.route(say_error(None, "lane-1"))
        lanes.clear()
        assert lanes.free(LANES, "resp_1") == list(LANES)
        request = admit(lanes, "lane-1")
        assert lanes.route(say("response.output_text.delta", "lane-1")) is request
        assert complete(lanes, "resp_1", "lane-1") is request
