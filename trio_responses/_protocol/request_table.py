"""Attribution of the events of one socket to its requests.

The server answers the requests of a lane in the order in which they were sent. So the events of a
lane belong to its oldest request that has not ended, with these exceptions:

* Once a socket has shown ``response.created``, the steps of a response (its items, its deltas and
  ``response.in_progress``) belong to no request between the end of a response and the next
  ``response.created`` of the lane: they are late. Refusals, notices (`NOTICES`) and the terminal
  event of another response keep their owner. Other servers may never send ``response.created``.
* Events of a response that was cut off by an error belong to no request (`RequestState.CUT_OFF`).
* A terminal event that is received twice belongs to no request.
* An ``error`` or ``response.steer.failed`` without a lane is attributed by its code, its ids, and
  the lanes that are busy.
* Unknown and undecodable events belong to a request only if their type or lane implies one.

`RequestTable.route` finds the owner and changes the states of `requests.py`. No event belongs to
two requests, and a request ends at most once. Which steering input an event is about, and what an
error means for the inputs, is decided here as well.
"""

from __future__ import annotations

from collections import deque
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from trio_responses._protocol.calls import find_calls_and_outputs
from trio_responses._protocol.delivery import CLIENT_ERRORS
from trio_responses._protocol.raw_items import RawItems
from trio_responses._protocol.requests import (
    AWAITING,
    UNANSWERED,
    ReaderState,
    RequestState,
    RequestTrigger,
    SteerState,
    SteerTrigger,
)
from trio_responses._wire import (
    ErrorEvent,
    InjectCreated,
    InjectFailed,
    InputError,
    ResponseCompleted,
    ResponseCreated,
    ResponseFailed,
    ResponseIncomplete,
    ResponseQueued,
    SteerAccepted,
    SteerFailed,
    SteerPending,
    UndecodableFrame,
    UnknownEvent,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from trio_responses._protocol.requests import ActiveRequest, SteerInput
    from trio_responses._wire import Response, ServerEvent

    EndEvent: TypeAlias = ResponseCompleted | ResponseFailed | ResponseIncomplete
    SteerReport: TypeAlias = SteerAccepted | SteerPending | SteerFailed
    Notice: TypeAlias = ResponseQueued | InjectCreated | InjectFailed | UnknownEvent

__all__ = ["OWNERSHIP_EVENTS", "RequestTable"]

CONNECTION_LIMIT: Final = "websocket_connection_limit_reached"
INVALID_LANE: Final = "invalid_stream_id"
CREATED: Final = "response.created"
NOTICES: Final = ("response.queued", "response.steer.", "response.inject.")
"""The beginnings of the types that may precede ``response.created`` of their response."""
ERROR_TYPES: Final = frozenset({"error", "response.error"})
TERMINAL_TYPES: Final = frozenset(
    {
        "response.cancelled",
        "response.completed",
        "response.done",
        "response.failed",
        "response.incomplete",
    }
)


class RequestTable:
    """The requests of one socket that have not ended, and their steering inputs."""

    def __init__(self) -> None:
        self._queues: dict[str | None, deque[ActiveRequest]] = {}
        """The requests of each busy lane that have not ended, oldest first."""
        self._cut_off: dict[str | None, ActiveRequest] = {}
        """The request in state CUT_OFF of each lane that has one."""
        self._sends_created = False
        """Whether the server has sent ``response.created`` on this socket."""
        self._between_responses: set[str | None] = set()
        """The lanes on which a response has ended and the server has yet to create the next."""
        self._latest: dict[str | None, str | None] = {}
        """The id of the response that each lane ended with last."""
        self._steers: list[SteerInput] = []
        """The inputs about which the server may still send events, oldest first."""
        self._completed: dict[str | None, str] = {}
        """The last response of each lane that was completed and not evicted since."""
        self._cached_lane: str | None = None
        """The lane of `previous_response_id`."""
        self.previous_response_id: str | None = None
        """The last response that was completed on this socket and not evicted since."""
        self.requests_ended: int = 0
        """The number of requests that the server has ended."""
        self.responses_ended: int = 0
        """The number of responses that have ended with a Response of any status."""

    # --- Requests ------------------------------------------------------------------------

    def admit(self, request: ActiveRequest) -> None:
        """Add a request to its lane (``stream_id``). Called before the first byte is written."""
        self._queues.setdefault(request.lane, deque()).append(request)

    def withdraw(self, request: ActiveRequest) -> None:
        """Remove a request that was not written whole, unless it has ended or is lost."""
        queue = self._queues.get(request.lane)
        if queue is not None and request in queue:
            queue.remove(request)
            if not queue:
                del self._queues[request.lane]
            request.advance(RequestTrigger.LOSE)

    def is_idle(self, lane: str | None) -> bool:
        """Whether every request of a lane (``stream_id``) has ended, abandoned ones included."""
        return not self._queues.get(lane)

    def suits(self, lane: str | None, parent: str | None) -> bool:
        """Whether a lane (``stream_id``) is idle, and `idle_lanes` would rank no other before it.

        While the server may wait for a continuation on some lane, this is not known.
        """
        is_cached = parent is None or self._latest.get(lane) == parent
        return is_cached and not self._steers and not self._queues.get(lane)

    def idle_lanes(self, names: Iterable[str | None], parent: str | None) -> list[str | None]:
        """Return the idle lanes (``stream_id``) of those named, the best one for a request first.

        The server has the latest response of each lane in memory, so the lane of the parent is
        the best one. A lane that waits for the continuation of another response is the last one.

        :param parent: the ``previous_response_id`` of the request.
        """

        def rank(name: str | None) -> tuple[bool, bool]:
            awaited = self._awaited_parent(name)
            is_cached = parent is not None and self._latest.get(name) == parent
            return (awaited not in {None, parent}, not is_cached)

        idle = [name for name in names if self.is_idle(name)]
        return sorted(idle, key=rank) if len(idle) > 1 else idle

    def latest_response(self, lane: str | None) -> str | None:
        """Return the id of the latest response of a lane (``stream_id``), cached by the server."""
        return self._latest.get(lane)

    def completed_response(self, lane: str | None) -> str | None:
        """Return the id of the last response of a lane that was completed and not evicted since."""
        return self._completed.get(lane)

    def unfinished(self) -> Iterator[ActiveRequest]:
        """Yield the requests that have not ended, lane (``stream_id``) by lane."""
        for queue in self._queues.values():
            yield from queue

    def find(self, response_id: str) -> ActiveRequest | None:
        """Return the request whose active response has the given id, or `None`."""
        return next((one for one in self.unfinished() if one.response_id == response_id), None)

    def is_late(self, wire_type: str, lane: str | None) -> bool:
        """Whether an event of a given type would be a late step on a lane (``stream_id``)."""
        is_step = (
            wire_type.startswith("response.")
            and wire_type not in ERROR_TYPES | TERMINAL_TYPES | {CREATED}
            and not wire_type.startswith(NOTICES)
        )
        return is_step and lane in self._between_responses

    def count(self) -> int:
        """Return the number of requests that have not ended."""
        return sum(map(len, self._queues.values()))

    def close(self) -> list[ActiveRequest]:
        """Remove all requests, because the socket was closed; return those not abandoned.

        A pending steering input has failed if its continuation was not sent. The outcome of every
        other input is unknown.
        """
        requests = list(self.unfinished())
        continued = {request.parent for request in requests}
        for steer in self._steers:
            has_failed = steer.state is SteerState.PENDING and steer.parent not in continued
            steer.advance(SteerTrigger.FAIL if has_failed else SteerTrigger.LOSE)
        for request in (*requests, *self._cut_off.values()):
            request.advance(RequestTrigger.LOSE)
        self._steers.clear()
        self._queues.clear()
        self._cut_off.clear()
        self._sends_created = False
        self._between_responses.clear()
        self._latest.clear()
        self._completed.clear()
        self.previous_response_id = None
        return [request for request in requests if not request.abandoned]

    # --- Steering inputs -----------------------------------------------------------------

    def submit_steer(self, steer: SteerInput) -> None:
        """Add a steering input to its request. Called before the first byte is written."""
        self._steers.append(steer)
        steer.request.steers.append(steer)

    def withdraw_steer(self, steer: SteerInput) -> None:
        """Fail a steering input that was not written whole, unless the input is settled."""
        if steer in self._steers:
            self._settle(steer, SteerTrigger.FAIL)

    # --- Routing -------------------------------------------------------------------------

    def route(self, event: ServerEvent) -> ActiveRequest | None:
        """Return the request that an event belongs to, which may be abandoned; `None` without one.

        A request that the event ends is removed from its lane, and `ActiveRequest.ended` is true.
        """
        rule = _RULES.get(type(event))
        if rule is not None:
            return rule(self, event)
        queue = self._queues.get(event.stream_id)
        return queue[0] if queue and event.stream_id not in self._between_responses else None

    # One rule for each type of event that is more than a step of a response.

    def _on_created(self, event: ResponseCreated) -> ActiveRequest | None:
        self._sends_created = True
        request = self._oldest(event.stream_id)
        if request is None:
            return None
        request = self._starting_request(request)
        response_id = request.response_id = event.response.id or None
        request.stored = False
        request.advance(RequestTrigger.CREATE if response_id else RequestTrigger.CREATE_WITHOUT_ID)
        if self._steers:
            self._commit_steers(request, response_id)
        self._start_response(request.lane)
        return request

    def _on_completed(self, event: ResponseCompleted) -> ActiveRequest | None:
        request = self._on_end(event)
        if request is not None:
            self.previous_response_id = request.response_id
            self._cached_lane = request.lane
            if request.response_id is not None:
                self._completed[request.lane] = request.response_id
        return request

    def _on_end(self, event: EndEvent) -> ActiveRequest | None:
        request = self._oldest(event.stream_id)
        if request is None:
            return None
        lane = request.lane
        response_id = event.response.id or request.response_id
        if response_id != request.response_id and response_id == self._latest.get(lane):
            return None  # received twice, or of a response that was cut off
        if request.state in AWAITING:
            if response_id == request.response_id:
                return None  # received twice
            request = self._starting_request(request)  # a successor without response.created
            self._commit_steers(request, response_id)
        request.response_id = response_id
        request.stored = event.response.store is True and not isinstance(event, ResponseFailed)
        self.responses_ended += 1
        if not request.steers or not request.has_unanswered_steers:
            return self._end(request, RequestTrigger.END)
        self._end_response(lane, response_id)
        has_calls = _has_client_calls(event.response)
        request.advance(RequestTrigger.END_WITH_CALLS if has_calls else RequestTrigger.END_STEERED)
        return request

    def _on_error(self, event: ErrorEvent) -> ActiveRequest | None:
        request = self._find_failed(event, event.code)
        if request is None:
            return None
        if event.code == CONNECTION_LIMIT and request.response_id is not None:
            return None  # the server ends the socket, and may finish this response before
        if self._refuse_steers(request, event):
            return self._end_if_settled(request)
        return self._fail_request(request)

    def _on_steer(self, event: SteerReport) -> ActiveRequest | None:
        steer = self._find_steer(event)
        lane = steer.request.lane if steer is not None else event.stream_id
        owner = self._oldest(lane) if lane not in self._cut_off else None
        if steer is not None:
            self._update_steer(steer, event)
        return self._end_if_settled(owner) if owner is not None else None

    def _on_notice(self, event: Notice) -> ActiveRequest | None:
        return self._oldest(event.stream_id) if event.stream_id not in self._cut_off else None

    def _on_unknown(self, event: UnknownEvent) -> ActiveRequest | None:
        wire_type = event.wire_type or ""
        if wire_type.startswith(NOTICES):
            return self._on_notice(event)
        if event.stream_id is None and not wire_type.startswith("response."):
            return None
        is_between = event.stream_id in self._between_responses
        return self._oldest(event.stream_id) if not is_between else None

    def _on_undecodable(self, event: UndecodableFrame) -> ActiveRequest | None:
        if event.wire_type in ERROR_TYPES:
            request = self._find_failed(event)
            return self._fail_request(request) if request is not None else None
        request = self._oldest(event.stream_id)
        if event.wire_type == CREATED:
            self._sends_created = True
            if request is not None:
                self._start_response(request.lane)
        if request is None or event.wire_type not in TERMINAL_TYPES:
            return None
        return self._end(request, RequestTrigger.END)

    # --- Owners --------------------------------------------------------------------------

    def _oldest(self, lane: str | None) -> ActiveRequest | None:
        queue = self._queues.get(lane)
        return queue[0] if queue else None

    def _starting_request(self, oldest: ActiveRequest) -> ActiveRequest:
        """Return the request that a new response answers: the oldest of its lane, or the next.

        The next one, if the oldest waits for outputs and the next one sends them. The server
        sends no ``response.steer.pending`` for the inputs then (guide, "Steering").
        """
        queue = self._queues[oldest.lane]
        waits = oldest.state is RequestState.AWAITING_OUTPUTS and oldest.reader is ReaderState.NONE
        if not waits or len(queue) == 1 or queue[1].parent != oldest.response_id:
            return oldest
        for steer in oldest.steers:
            if steer.state is SteerState.ACCEPTED:
                steer.advance(SteerTrigger.WAIT)
        self._end(oldest, RequestTrigger.CONTINUE)
        return queue[0]

    def _find_failed(
        self, event: ErrorEvent | UndecodableFrame, code: str | None = None
    ) -> ActiveRequest | None:
        """Return the request that an error is about; `None` if that is uncertain.

        An error without a lane is about the default lane, or about the only lane that is busy.
        The refusal of a lane name comes without a lane, too, and is about a named lane.
        """
        oldest = self._oldest(event.stream_id)
        if event.stream_id is not None or (oldest is not None and code != INVALID_LANE):
            return oldest
        candidates: Iterator[ActiveRequest] = (queue[0] for queue in self._queues.values())
        if code == INVALID_LANE:
            candidates = (
                one for one in candidates if one.lane is not None and one.response_id is None
            )
        found = list(islice(candidates, 2))  # there may be many busy lanes
        return found[0] if len(found) == 1 else None

    # --- Ends of requests ----------------------------------------------------------------

    def _end(self, request: ActiveRequest, event: RequestTrigger) -> ActiveRequest:
        """End the oldest request of a lane (``stream_id``)."""
        lane = request.lane
        queue = self._queues[lane]
        queue.popleft()
        if not queue:
            del self._queues[lane]
        if self._cut_off:
            self._end_cut_off(lane)
        self._end_response(lane, request.response_id)
        self.requests_ended += 1
        request.advance(event)
        return request

    def _start_response(self, lane: str | None) -> None:
        self._between_responses.discard(lane)
        if self._cut_off:
            self._end_cut_off(lane)

    def _end_response(self, lane: str | None, response_id: str | None) -> None:
        self._latest[lane] = response_id
        if self._sends_created:
            self._between_responses.add(lane)

    def _end_if_settled(self, request: ActiveRequest) -> ActiveRequest:
        """End a request whose response has ended, if no steering input is unanswered."""
        if request.state in AWAITING and not request.has_unanswered_steers:
            self._end(request, RequestTrigger.SETTLE_STEERS)
        return request

    def _fail_request(self, request: ActiveRequest) -> ActiveRequest:
        """End a request because of an ``error`` event."""
        if request.parent == self.previous_response_id and request.lane == self._cached_lane:
            self.previous_response_id = None  # evicted; the error of a fork does not evict
        if request.parent is not None and request.parent == self._completed.get(request.lane):
            del self._completed[request.lane]
        if request.response_id is None:
            self._end(request, RequestTrigger.REFUSE)
        else:
            self._end(request, RequestTrigger.BREAK_OFF)
            self._cut_off[request.lane] = request
        for steer in request.steers:
            if steer.state in UNANSWERED:
                steer.advance(SteerTrigger.LOSE)
        return request

    def _end_cut_off(self, lane: str | None) -> None:
        """End the wait for events of a response that was cut off."""
        cut_off = self._cut_off.pop(lane, None)
        if cut_off is not None:
            cut_off.advance(RequestTrigger.FOLLOW)

    # --- States of steering inputs -------------------------------------------------------

    def _awaited_parent(self, lane: str | None) -> str | None:
        """Return the response id that the next request of a lane must continue, or `None`."""
        pending = (one for one in self._steers if one.state is SteerState.PENDING)
        return next((one.parent for one in pending if one.request.lane == lane), None)

    def _find_steer(self, event: SteerReport) -> SteerInput | None:
        """Return the steering input that an event is about: by id, or the oldest unanswered one."""
        for steer in self._steers:
            if steer.id is not None and steer.id == event.steer.id:
                return steer
        parent, lane = event.steer.previous_response_id, event.stream_id
        sent = [one for one in self._steers if one.state is SteerState.SENT]
        if parent:
            return next((one for one in sent if one.parent == parent), None)
        on_lane = (one for one in sent if one.request.lane == lane)
        return next(on_lane, sent[0] if sent and lane is None else None)

    def _update_steer(self, steer: SteerInput, event: SteerReport) -> None:
        steer.id = event.steer.id or steer.id
        match event:
            case SteerAccepted():
                steer.advance(SteerTrigger.ACCEPT)
            case SteerPending():
                steer.required_input = tuple(event.required_input or ())
                steer.advance(SteerTrigger.WAIT)
            case _:
                steer.error = event.error
                self._settle(steer, SteerTrigger.FAIL)

    def _refuse_steers(self, request: ActiveRequest, event: ErrorEvent) -> bool:
        """Fail the steering inputs that an ``error`` event refuses.

        After the end of a response the error means that no successor follows: all inputs fail.
        While a response is active, the error of a client is not about the response, which has
        started: servers without steering answer an input like that. The oldest input fails.

        :return: whether the error was about steering inputs.
        """
        refused: list[SteerInput] = []
        if request.state in AWAITING:
            refused = [one for one in request.steers if one.state in UNANSWERED]
        elif request.state is RequestState.STARTED and _is_client_error(event):
            refused = [one for one in request.steers if one.state is SteerState.SENT][:1]
        for steer in refused:
            steer.error = InputError(code=event.code, message=event.message, type=event.error_type)
            self._settle(steer, SteerTrigger.FAIL)
        return bool(refused)

    def _commit_steers(self, request: ActiveRequest, successor: str | None) -> None:
        """Commit the steering inputs with which a successor has started."""
        for steer in list(self._steers):
            is_applied = steer.request is request and steer.state is SteerState.ACCEPTED
            is_continued = (
                steer.state is SteerState.PENDING
                and steer.request.lane == request.lane
                and steer.parent == request.parent
            )
            if is_applied or is_continued:
                steer.successor = successor
                self._settle(steer, SteerTrigger.COMMIT)
            elif steer.state is SteerState.UNKNOWN and steer.request.lane == request.lane:
                self._steers.remove(steer)  # the server reports no more of a response before

    def _settle(self, steer: SteerInput, event: SteerTrigger) -> None:
        self._steers.remove(steer)
        steer.advance(event)


def _is_client_error(event: ErrorEvent) -> bool:
    return event.status in CLIENT_ERRORS or event.error_type == "invalid_request_error"


def _has_client_calls(response: Response) -> bool:
    """Whether the output of a response has calls of client tools without their outputs."""
    found = find_calls_and_outputs(RawItems.join(response.raw_output or []))
    answered = {one.key for one in found if not one.is_call}
    return any(one.is_call and one.key not in answered for one in found)


_RULES: Final[dict[type, Callable[[RequestTable, Any], ActiveRequest | None]]] = {
    ResponseCreated: RequestTable._on_created,  # noqa: SLF001 - the table belongs to the class
    ResponseCompleted: RequestTable._on_completed,  # noqa: SLF001 - likewise
    ResponseFailed: RequestTable._on_end,  # noqa: SLF001 - likewise
    ResponseIncomplete: RequestTable._on_end,  # noqa: SLF001 - likewise
    ErrorEvent: RequestTable._on_error,  # noqa: SLF001 - likewise
    ResponseQueued: RequestTable._on_notice,  # noqa: SLF001 - likewise
    InjectCreated: RequestTable._on_notice,  # noqa: SLF001 - likewise
    InjectFailed: RequestTable._on_notice,  # noqa: SLF001 - likewise
    SteerAccepted: RequestTable._on_steer,  # noqa: SLF001 - likewise
    SteerPending: RequestTable._on_steer,  # noqa: SLF001 - likewise
    SteerFailed: RequestTable._on_steer,  # noqa: SLF001 - likewise
    UnknownEvent: RequestTable._on_unknown,  # noqa: SLF001 - likewise
    UndecodableFrame: RequestTable._on_undecodable,  # noqa: SLF001 - likewise
}
OWNERSHIP_EVENTS: Final = frozenset(_RULES)
"""The types of events after which the next event of a lane may have another owner."""
