"""What became of each steering input: the ``response.steer`` of one socket, oldest first.

A steering input is owned by the server from its ``response.steer.accepted`` on, and takes effect
with the ``response.created`` of a successor (guide, "Steering")::

    sent ──► accepted ──► committed           the response was interrupted, or ended by itself
      │          ├──────► pending ──► committed     it waits for tool outputs that the client owes
      │          │            └─────► failed
      └──────────┴──────────────────► failed

So a response that ends does not end its request while an input for it is sent or accepted: a
successor may follow on the same lane. One that is pending ends it, since the server waits for
the next request then.

What belongs elsewhere: whose event it is (`lanes.py`), how a user learns of it
(`turns/steering.py`).
"""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from enum import StrEnum
from typing import TYPE_CHECKING, Any, ClassVar, Final, Generic, TypeVar, cast

from trio_responses._protocol.calls import note
from trio_responses._protocol.raw_items import RawItems
from trio_responses._wire import (
    ErrorEvent,
    InputError,
    ResponseCompleted,
    ResponseCreated,
    ResponseFailed,
    ResponseIncomplete,
    SteerAccepted,
    SteerFailed,
    SteerPending,
    UndecodableFrame,
    UnknownEvent,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from msgspec import Raw

    from trio_responses._wire import RequiredInput, Response, ServerEvent

__all__ = [
    "TURNING_POINTS",
    "ActiveRequest",
    "RequestTable",
    "SteerInput",
    "SteerInputs",
    "SteerState",
]

CLIENT_ERRORS: Final = range(400, 500)


class SteerState(StrEnum):
    """How far a steering input has come."""

    SENT = "sent"
    """It was written, and the server has not answered."""
    ACCEPTED = "accepted"
    """The server owns it; nothing is applied yet."""
    PENDING = "pending"
    """It waits for outputs of tools, in a request that continues its response."""
    COMMITTED = "committed"
    """A successor has begun with it."""
    FAILED = "failed"
    """It was refused, or could not be committed: it has had no effect."""
    UNKNOWN = "unknown"
    """The socket ended, or its response broke off, before the server said. In the latter case the
    server may still say that it failed."""


OWED: Final = frozenset({SteerState.SENT, SteerState.ACCEPTED})
"""The states in which the server owes the next word."""


class SteerInput:
    """One steering input on its way. `SteerReceipt` derives from it."""

    def __init__(self, request: ActiveRequest, items: list[Raw]) -> None:
        self.request: ActiveRequest = request
        """The request whose response it steers."""
        self.parent: str | None = request.response_id
        """That response."""
        self.items: list[Raw] = items
        """The messages, as raw JSON."""
        self.id: str | None = None
        """The server's name for it, from ``accepted`` on."""
        self.state: SteerState = SteerState.SENT
        """How far it has come."""
        self.error: InputError | None = None
        """Why it failed, where the server said it."""
        self.required_input: tuple[RequiredInput, ...] = ()
        """What it waits for, while it is pending."""
        self.successor: str | None = None
        """The response that began with it, once it is committed."""

    def become(self, state: SteerState) -> None:
        """Note a new state."""
        self.state = state


class SteerInputs:
    """The steering inputs of one socket that are not settled."""

    def __init__(self) -> None:
        self._open: list[SteerInput] = []

    def submit(self, submission: SteerInput) -> None:
        """Note an input: before its bytes go out."""
        self._open.append(submission)
        submission.request.steers.append(submission)

    def withdraw(self, submission: SteerInput) -> None:
        """Take back one that did not go out."""
        if submission in self._open:
            self._settle(submission, SteerState.FAILED)

    def owes(self, request: ActiveRequest) -> bool:
        """Whether a successor of the request's response may follow unasked."""
        return any(one.request is request and one.state in OWED for one in self._open)

    def awaits(self, lane: str | None) -> str | None:
        """Give the response that the next request of a lane has to continue, if there is one."""
        pending = (one for one in self._open if one.state is SteerState.PENDING)
        return next((one.parent for one in pending if one.request.lane == lane), None)

    def find(self, event: SteerAccepted | SteerPending | SteerFailed) -> SteerInput | None:
        """Find the input that an event is about: by its id, or the oldest that was not answered."""
        for one in self._open:
            if one.id is not None and one.id == event.steer.id:
                return one
        parent, lane = event.steer.previous_response_id, event.stream_id
        sent = [one for one in self._open if one.state is SteerState.SENT]
        if parent:
            return next((one for one in sent if one.parent == parent), None)
        own = (one for one in sent if one.request.lane == lane)
        return next(own, sent[0] if sent and lane is None else None)

    def note(
        self, submission: SteerInput, event: SteerAccepted | SteerPending | SteerFailed
    ) -> None:
        """Note what the server says of an input."""
        submission.id = event.steer.id or submission.id
        match event:
            case SteerAccepted():
                submission.become(SteerState.ACCEPTED)
            case SteerPending():
                submission.required_input = tuple(event.required_input or ())
                submission.become(SteerState.PENDING)
            case _:
                submission.error = event.error
                self._settle(submission, SteerState.FAILED)

    def refuse(self, request: ActiveRequest, event: ErrorEvent) -> bool:
        """Take an error as the answer to an input, where it can be no other's.

        Behind the end of a response it says that there is no successor. In its midst, a client's
        error is not about the response, which has begun: that is how servers answer that know
        no steering.

        :return: whether it was one.
        """
        client_error = event.status in CLIENT_ERRORS or event.error_type == "invalid_request_error"
        if request.answered:
            refused = [one for one in self._open if one.request is request and one.state in OWED]
        elif request.response_id is not None and client_error:
            sent = (one for one in self._open if one.state is SteerState.SENT)
            refused = [one for one in sent if one.request is request][:1]
        else:
            refused = []
        for one in refused:
            one.error = InputError(code=event.code, message=event.message, type=event.error_type)
            self._settle(one, SteerState.FAILED)
        return bool(refused)

    def break_off(self, request: ActiveRequest) -> None:
        """Note that a response broke off: what it owes an answer to may never get one."""
        for one in self._open:
            if one.request is request and one.state in OWED:
                one.become(SteerState.UNKNOWN)

    def wait(self, request: ActiveRequest) -> None:
        """Note that the inputs of a response wait for outputs, which are on their way."""
        for one in self._open:
            if one.request is request and one.state is SteerState.ACCEPTED:
                one.become(SteerState.PENDING)

    def commit(self, request: ActiveRequest, successor: str | None) -> None:
        """Note that a response has begun, with all inputs that were there for it."""
        for one in list(self._open):
            follows = one.request is request and one.state is SteerState.ACCEPTED
            continues = (
                one.state is SteerState.PENDING
                and one.request.lane == request.lane
                and one.parent == request.parent
            )
            if follows or continues:
                one.successor = successor
                self._settle(one, SteerState.COMMITTED)
            elif one.request.lane == request.lane and one.state is SteerState.UNKNOWN:
                self._open.remove(one)  # the server says no more of what broke off

    def lose(self, continued: set[str | None]) -> None:
        """Note that the socket is gone.

        :param continued: the parents of the requests that were under way: what waited for one
            of those may have been committed, what waited for another cannot.
        """
        for one in list(self._open):
            certain = one.state is SteerState.PENDING and one.parent not in continued
            self._settle(one, SteerState.FAILED if certain else SteerState.UNKNOWN)

    def _settle(self, submission: SteerInput, state: SteerState) -> None:
        self._open.remove(submission)
        submission.become(state)


ERROR_TYPES = frozenset({"error", "response.error"})
TERMINAL_TYPES = frozenset(
    {"response.completed", "response.done", "response.failed", "response.incomplete"}
)
CONNECTION_LIMIT = "websocket_connection_limit_reached"
INVALID_NAME = "invalid_stream_id"


class ActiveRequest:
    """One ``response.create`` on its way. `turns/stream.py` derives the turn from it."""

    __slots__ = (
        "abandoned",
        "answered",
        "calls",
        "ended",
        "lane",
        "parent",
        "response_id",
        "steers",
    )
    has_reader: ClassVar[bool] = False
    """Whether somebody waits for the event that ends it."""

    def __init__(self, lane: str | None = None, parent: str | None = None) -> None:
        self.lane: str | None = lane
        """The ``stream_id``; `None` for the default lane."""
        self.parent: str | None = parent
        """The ``previous_response_id`` that went along."""
        self.response_id: str | None = None
        """The id of the response, or of its latest successor, once the server has said it."""
        self.answered: bool = False
        """Whether its response has ended, and a successor may follow."""
        self.calls: bool = False
        """Whether its response has ended with calls of the client's tools: no successor unasked."""
        self.ended: bool = False
        """Whether nothing more will come."""
        self.abandoned: bool = False
        """Whether nobody wants the rest."""
        self.steers: list[SteerInput] = []
        """What was put in while its responses were under way."""


RequestT = TypeVar("RequestT", bound=ActiveRequest)


class RequestTable(Generic[RequestT]):
    """The unfinished requests of one socket."""

    def __init__(self) -> None:
        self._queues: dict[str | None, deque[RequestT]] = {}
        self._ended: dict[str | None, str | None] = {}
        self._cut_off: frozenset[str | None] = frozenset()
        self.steering: SteerInputs = SteerInputs()
        self._home: str | None = None
        self.previous_response_id: str | None = None
        """The last response of this socket that was completed and not evicted since."""
        self.ends: int = 0
        """Requests that have ended."""
        self.responses: int = 0
        """Those of them that ended with a Response, of whatever status."""

    def admit(self, request: RequestT) -> None:
        """Queue a request on its lane: before its bytes go out, so that no answer is too early."""
        self._queues.setdefault(request.lane, deque()).append(request)

    def withdraw(self, request: RequestT) -> None:
        """Take back a request whose bytes did not go out; nothing to do once the socket is lost."""
        with suppress(ValueError):
            self._queues.get(request.lane, deque()).remove(request)

    def abandon(self, request: RequestT) -> None:
        """Drop the rest of a request's events; its lane is dirty until the last of them."""
        request.abandoned = True

    def is_idle(self, lane: str | None) -> bool:
        """Whether a lane has no unfinished request, abandoned ones included."""
        return not self._queues.get(lane)

    def free(self, names: Iterable[str | None], parent: str | None) -> list[str | None]:
        """Give the idle ones of some lanes.

        The one whose latest response is the parent goes first: the server has it in that lane's
        fast cache. One where the server waits for another parent's continuation goes last.
        """

        def reluctance(name: str | None) -> tuple[bool, bool]:
            awaited = self.steering.awaits(name)
            cached = parent is not None and self._ended.get(name) == parent
            return (awaited not in {None, parent}, not cached)

        return sorted((name for name in names if self.is_idle(name)), key=reluctance)

    def latest(self, lane: str | None) -> str | None:
        """Give the response that a lane ended with last: what the server has in its fast cache."""
        return self._ended.get(lane)

    def unfinished(self) -> Iterator[RequestT]:
        """Give all requests that are not ended, lane by lane."""
        for queue in self._queues.values():
            yield from queue

    def find(self, response_id: str) -> RequestT | None:
        """Find the request whose response is under way, by the response's id."""
        return next((one for one in self.unfinished() if one.response_id == response_id), None)

    def count(self) -> int:
        """Count the requests that are not ended."""
        return sum(map(len, self._queues.values()))

    def clear(self) -> list[RequestT]:
        """Forget everything, since the socket is gone; give the requests somebody waits for."""
        waiting = [request for request in self.unfinished() if not request.abandoned]
        self.steering.lose({request.parent for request in self.unfinished()})
        self._queues.clear()
        self._ended.clear()
        self._cut_off = frozenset()
        self.previous_response_id = None
        return waiting

    def route(self, event: ServerEvent) -> RequestT | None:
        """Find the owner of an event; `None` where there is none. It may be abandoned.

        A request that the event ends has `Request.ended` set and has left its lane.
        """
        rule = _RULES.get(type(event))
        if rule is not None:
            owner: RequestT | None = rule(self, event)
            return owner
        queue = self._queues.get(event.stream_id)
        return queue[0] if queue and event.stream_id not in self._cut_off else None

    # One rule for each type of event that is more than a step of a response.

    def _oldest(self, lane: str | None) -> RequestT | None:
        queue = self._queues.get(lane)
        return queue[0] if queue else None

    def _begin(self, event: ServerEvent) -> RequestT | None:
        request = self._oldest(event.stream_id)
        if request is not None and isinstance(event, ResponseCreated):
            request = self._continued(request)
            request.response_id = event.response.id or None
            request.answered = False
            self.steering.commit(request, request.response_id)
            self._cut_off -= {request.lane}
        return request

    def _end(self, event: ServerEvent) -> RequestT | None:
        request = self._oldest(event.stream_id)
        if request is None or not isinstance(
            event, ResponseCompleted | ResponseFailed | ResponseIncomplete
        ):
            return None
        response_id = event.response.id or request.response_id
        if response_id != request.response_id and response_id == self._ended.get(request.lane):
            return None
        if request.answered:
            if response_id == request.response_id:
                return None
            request = self._continued(request)
            self.steering.commit(request, response_id)  # its beginning was not seen
        request.response_id = response_id
        self.responses += 1
        if not self.steering.owes(request):
            return self._finish(request)
        request.answered = True
        request.calls = _calls_client(event.response)
        self._ended[request.lane] = response_id
        return request

    def _continued(self, request: RequestT) -> RequestT:
        """Give whom a response begins for: the next request, where it brings outputs early.

        The server says nothing of the input that has waited for them then (guide, "Steering").
        """
        queue = self._queues[request.lane]
        waited = request.answered and request.calls and not request.has_reader
        if not waited or len(queue) == 1 or queue[1].parent != request.response_id:
            return request
        self.steering.wait(request)
        self._finish(request)
        return queue[0]

    def _steer(self, event: ServerEvent) -> RequestT | None:
        """Note what became of a steering input; the last one ends a request that is answered."""
        assert isinstance(event, SteerAccepted | SteerPending | SteerFailed)  # noqa: S101 - likewise
        submission = self.steering.find(event)
        lane = submission.request.lane if submission is not None else event.stream_id
        request = self._oldest(lane) if lane not in self._cut_off else None
        if submission is not None:
            self.steering.note(submission, event)
        return self._finish_if_answered(request) if request is not None else None

    def _finish_if_answered(self, request: RequestT) -> RequestT:
        if request.answered and not self.steering.owes(request):
            self._finish(request)
        return request

    def _complete(self, event: ServerEvent) -> RequestT | None:
        request = self._end(event)
        if request is not None:
            self.previous_response_id = request.response_id
            self._home = request.lane
        return request

    def _err(self, event: ServerEvent) -> RequestT | None:
        assert isinstance(event, ErrorEvent)  # noqa: S101 - the table says so
        request = self._blamed(event, event.code)
        if request is None:
            return None
        if event.code == CONNECTION_LIMIT and request.response_id is not None:
            return None  # it ends the socket, which tells the turn; the response may yet finish
        if self.steering.refuse(request, event):
            return self._finish_if_answered(request)
        return self._break_off(request)

    def _blamed(self, event: ServerEvent, code: str | None = None) -> RequestT | None:
        """Find whom an error is about."""
        oldest = self._oldest(event.stream_id)
        if event.stream_id is not None or (oldest is not None and code != INVALID_NAME):
            return oldest
        eldest = [queue[0] for queue in self._queues.values() if queue]
        if code == INVALID_NAME:
            eldest = [one for one in eldest if one.lane is not None and one.response_id is None]
        return eldest[0] if len(eldest) == 1 else None

    def _break_off(self, request: RequestT) -> RequestT:
        if request.parent == self.previous_response_id and request.lane == self._home:
            self.previous_response_id = None  # evicted; by a fork it is not (guide, likewise)
        self._finish(request)
        self.steering.break_off(request)
        if request.response_id is not None:
            self._cut_off |= {request.lane}
        return request

    def _look_up_unknown(self, event: ServerEvent) -> RequestT | None:
        if event.stream_id is None and not (event.wire_type or "").startswith("response."):
            return None
        return self._oldest(event.stream_id) if event.stream_id not in self._cut_off else None

    def _look_up_undecodable(self, event: ServerEvent) -> RequestT | None:
        if event.wire_type in ERROR_TYPES:
            request = self._blamed(event)
            return self._break_off(request) if request is not None else None
        request = self._oldest(event.stream_id)
        if request is None or event.wire_type not in TERMINAL_TYPES:
            return None
        return self._finish(request)

    def _finish(self, request: RequestT) -> RequestT:
        self._queues[request.lane].popleft()
        self._cut_off -= {request.lane}
        self._ended[request.lane] = request.response_id
        self.ends += 1
        request.ended = True
        return request


def _calls_client(response: Response) -> bool:
    """Whether a response has calls that nothing in it answers."""
    noted = note(RawItems.join(response.raw_output or []))
    answered = {each.key for each in noted if not each.is_call}
    return any(each.is_call and each.key not in answered for each in noted)


_lanes = cast("type[RequestTable[Any]]", RequestTable)
_RULES: dict[type, Callable[[RequestTable[Any], ServerEvent], Any]] = {
    ResponseCreated: _lanes._begin,  # noqa: SLF001 - its own table
    ResponseCompleted: _lanes._complete,  # noqa: SLF001 - likewise
    ResponseFailed: _lanes._end,  # noqa: SLF001 - likewise
    ResponseIncomplete: _lanes._end,  # noqa: SLF001 - likewise
    ErrorEvent: _lanes._err,  # noqa: SLF001 - likewise
    SteerAccepted: _lanes._steer,  # noqa: SLF001 - likewise
    SteerPending: _lanes._steer,  # noqa: SLF001 - likewise
    SteerFailed: _lanes._steer,  # noqa: SLF001 - likewise
    UnknownEvent: _lanes._look_up_unknown,  # noqa: SLF001 - likewise
    UndecodableFrame: _lanes._look_up_undecodable,  # noqa: SLF001 - likewise
}
TURNING_POINTS = frozenset(_RULES)
"""Events that are more than a step of a response: what comes next may be another one's."""
