"""Whose event is it? The lanes of one socket, as a table of queues.

The server answers the requests of a lane one after the other, in order, and answers lanes side
by side (guide, "WebSocket mode"). Deltas carry no response id. So the oldest unfinished request
of an event's lane owns it, from its first event to the one that ends it:

* ``response.created`` names the response. A terminal event of the response before, which an
  ``error`` frame had ended already, is stale and ends nothing.
* ``response.completed``, ``.failed`` and ``.incomplete`` end the request, as does an ``error``
  frame, and as does a frame of one of these types that cannot be decoded.
* A response that ends does not end its request while a steering input for it is under way
  (`steering.py`): its successor follows on the same lane, and belongs to the same request.
* An ``error`` frame in the middle of a response cuts it off. What may still come of it belongs
  to nobody: the next response of the lane begins with its ``response.created``.
* An error without a lane belongs to the default lane; where that is idle, to the only lane that
  is not; where there are several, to nobody. One that refuses a lane's name is not about the
  default lane, nor about a lane whose response has begun.
* What the server says unasked (no lane, and a type that does not begin with ``response.``)
  belongs to nobody.

A request whose turn was left early stays in its queue, *abandoned*: the rest of its response
has to go somewhere. Its lane is dirty until then.

What belongs elsewhere: names to lease and turns that wait for one (`leases.py`,
`connection/sending.py`), what the events add up to (`accumulator.py`).
"""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar, cast

from trio_responses.core.calls import note
from trio_responses.core.history import RawItems
from trio_responses.core.steering import Steering
from trio_responses.wire import (
    ErrorEvent,
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

    from trio_responses.core.steering import Submission
    from trio_responses.wire import Response, ServerEvent

__all__ = ["TURNING_POINTS", "Lanes", "Request"]

ERROR_TYPES = frozenset({"error", "response.error"})
TERMINAL_TYPES = frozenset(
    {"response.completed", "response.done", "response.failed", "response.incomplete"}
)
CONNECTION_LIMIT = "websocket_connection_limit_reached"
INVALID_NAME = "invalid_stream_id"


class Request:
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
        self.steers: list[Submission] = []
        """What was put in while its responses were under way."""


RequestT = TypeVar("RequestT", bound=Request)


class Lanes(Generic[RequestT]):
    """The unfinished requests of one socket."""

    def __init__(self) -> None:
        self._queues: dict[str | None, deque[RequestT]] = {}
        self._ended: dict[str | None, str | None] = {}
        self._cut_off: frozenset[str | None] = frozenset()
        self.steering: Steering = Steering()
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
        if event.stream_id is None and not (event.type or "").startswith("response."):
            return None
        return self._oldest(event.stream_id) if event.stream_id not in self._cut_off else None

    def _look_up_undecodable(self, event: ServerEvent) -> RequestT | None:
        if event.type in ERROR_TYPES:
            request = self._blamed(event)
            return self._break_off(request) if request is not None else None
        request = self._oldest(event.stream_id)
        if request is None or event.type not in TERMINAL_TYPES:
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


_lanes = cast("type[Lanes[Any]]", Lanes)
_RULES: dict[type, Callable[[Lanes[Any], ServerEvent], Any]] = {
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
