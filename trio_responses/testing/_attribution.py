"""The attribution of recorded frames: each request of a recording with the frames that answered it.

The rules are written for recordings alone and share no code with the client, so that a replay does
not repeat a routing error of the client (docs/protocol.md 5.2, 5.7). For each lane:

- Requests are answered one after another: frames belong to the oldest unfinished request.
  ``stream_id`` names the lane. The answers of a server that names no lanes have the order of the
  requests.
- ``response.created`` starts the response of the request. If another response of this request is
  running, and no steering input has asked for a successor, that response is lost, and the frame
  belongs to the next request.
- A terminal event finishes the request, unless a steering input for the response is unsettled. Then
  the request awaits the successor of the response, and ends when the last input is settled without
  a successor.
- If the socket has shown ``response.created`` before, the items, deltas and unknown events of a
  response belong to no request from its end to the next ``response.created`` of the lane. Errors,
  terminal events, and what may precede a response (`_BEFORE_CREATED`) have an owner there.
- An error finishes the request, unless it refuses a steering input or announces the age limit. The
  frames that a running response sends after its error belong to no request.
"""

import json
import re
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any, Final, TypeAlias, cast

from trio_responses._instruments.recording import RecordingLine
from trio_responses.testing._frames import Frame, Json
from trio_responses.testing._scripts import How
from trio_responses.testing._steering import required_input

NORMAL_CLOSURE: Final = 1000
NO_CODE: Final = 1005
ABNORMAL_CLOSURE: Final = 1006

_ERRORS: Final = ("error", "response.error")
_TERMINAL: Final = (
    "response.completed",
    "response.done",
    "response.failed",
    "response.incomplete",
)
_AGE_LIMIT: Final = "websocket_connection_limit_reached"
_INVALID_LANE: Final = "invalid_stream_id"

_BEFORE_CREATED: Final = re.compile(r"response\.(queued$|steer\.|inject\.)")
"""The types that may precede the ``response.created`` of their request."""

_FLAT_FIELD: Final = re.compile(r'"(type|stream_id)"\s*:\s*"([^"\\]*)"')

_Lane: TypeAlias = str | None


class RecordedRequestPhase(Enum):
    """The state of a request in a recording: queued, running, awaiting a successor, or done.

    ::

        QUEUED ── response.created ──► RUNNING ◄─────────── response.created ─────────┐
                                         ├── terminal event, steered ──► AWAITING_SUCCESSOR
                                         │                                            │
                                         └── terminal event, error ──► DONE ◄── last input settled

    A request that is QUEUED can go to DONE by a terminal event or an error alone.
    """

    QUEUED = auto()
    RUNNING = auto()
    AWAITING_SUCCESSOR = auto()
    DONE = auto()


class RecordedSteerPhase(Enum):
    """The progress of a recorded steering input, until a response commits it or it fails."""

    SENT = auto()
    ACCEPTED = auto()
    PENDING = auto()


@dataclass(frozen=True, slots=True)
class RecordedClose:
    """The way in which the server ended a recorded socket."""

    how: How
    reason: str
    idle_seconds: float | None
    """The idle time before the end; None if requests were unfinished."""


@dataclass(slots=True, eq=False)
class RecordedRequest:
    """A recorded request, and the frames that answered it."""

    socket: int
    lane: _Lane
    """The lane of the request, even if the server names no lanes."""
    parent: str | None
    """The ``previous_response_id``."""
    sent_at: float
    frames: list[Frame] = field(default_factory=list[Frame])
    times: list[float] = field(default_factory=list[float])
    """The time of each frame."""
    extra_frames: list[tuple[int, Frame]] = field(default_factory=list[tuple[int, Frame]])
    """Frames that answer no request, each with the number of the request's frames before it."""
    close: RecordedClose | None = None
    """The end of the socket, or of its recording, if this request got the last frame."""
    phase: RecordedRequestPhase = RecordedRequestPhase.QUEUED
    response_id: str | None = None
    """The id of the latest response."""
    is_steered: bool = False
    """Whether a steering input was sent for one of its responses."""
    has_calls: bool = False
    """Whether the latest response has ended with calls that the client must answer."""


@dataclass(frozen=True, slots=True)
class RecordedSteer:
    """A recorded steering input."""

    request: RecordedRequest | None
    """The request whose response was steered; None for a response that was not running."""
    frames_before: int
    """The number of the request's frames before the input."""


@dataclass(slots=True)
class AttributedRecording:
    """The requests and the steering inputs of a recording, in the order of sending."""

    requests: list[RecordedRequest] = field(default_factory=list[RecordedRequest])
    steers: list[RecordedSteer] = field(default_factory=list[RecordedSteer])


def attribute(recording: Iterable[RecordingLine]) -> AttributedRecording:
    """Return the requests of a recording, each with the frames that answered it."""
    lines = list(recording)
    names_lanes = {line.socket for line in lines if _names_a_lane(line)}
    result = AttributedRecording()
    sockets: dict[int, _SocketAttribution] = {}
    for line in lines:
        if line.socket not in sockets:
            named = line.socket in names_lanes
            sockets[line.socket] = _SocketAttribution(result, names_lanes=named)
        sockets[line.socket].add(line)
    for socket in sockets.values():
        socket.end_where_cut()
    return result


def _names_a_lane(line: RecordingLine) -> bool:
    frame = line.json if line.dir == "recv" else None
    return isinstance(frame, dict) and "stream_id" in frame


@dataclass(slots=True, eq=False)
class _UnsettledSteer:
    """A steering input of a recorded socket without a final result."""

    request: RecordedRequest
    parent: str | None
    """The response that the input steers."""
    lane: _Lane
    id: str | None = None
    phase: RecordedSteerPhase = RecordedSteerPhase.SENT


class _SocketAttribution:
    """The attribution of the recorded frames of one socket to its requests.

    :param result: Receives the requests and the steering inputs.
    :param names_lanes: Whether the server names lanes. If not, all requests form one lane.
    """

    def __init__(self, result: AttributedRecording, *, names_lanes: bool) -> None:
        self._result = result
        self._names_lanes = names_lanes
        self._lanes: dict[_Lane, deque[RecordedRequest]] = {}
        self._steers: list[_UnsettledSteer] = []
        self._last_ended: dict[_Lane, str | None] = {}
        self._created_seen = False
        self._awaits_created: set[_Lane] = set()
        """Lanes where a response has ended, and no other one was created, if the server does so."""
        self._cut_off: set[_Lane] = set()
        """Lanes where an error has ended a running response, and no other one has started."""
        self._latest: RecordedRequest | None = None
        """The request that was sent or got a frame last."""
        self._early_frames: list[Frame] = []
        """Frames before the first request."""
        self._has_end = False
        """Whether the recording has the end of the socket."""
        self._unanswered_others = 0
        """Messages that are no requests, whose answer would be an error."""

    def add(self, line: RecordingLine) -> None:
        """Add the next recorded line of this socket."""
        if line.dir in {"send", "send-raw"}:
            self._add_sent(line)
        elif line.dir == "recv":
            self._add_received(line)
        elif line.dir == "close":
            self._has_end = True
            if line.by == "server" and self._latest is not None:
                self._latest.close = self._close_of(line, self._latest)

    def end_where_cut(self) -> None:
        """End the socket after its last line if the recording was cut within an answer."""
        if not self._has_end and self._latest is not None and any(self._lanes.values()):
            self._latest.close = RecordedClose("fin", "", None)

    def _close_of(self, line: RecordingLine, latest: RecordedRequest) -> RecordedClose:
        how: How = NORMAL_CLOSURE if line.code == NO_CODE else line.code or "fin"
        if line.code == ABNORMAL_CLOSURE:
            how = "fin"
        idle = None
        if not any(self._lanes.values()):
            since = latest.times[-1] if latest.times else latest.sent_at
            idle = line.t - since
        return RecordedClose(how, line.reason or "", idle)

    # Sent frames

    def _add_sent(self, line: RecordingLine) -> None:
        frame = line.json
        command = cast("Json", frame) if isinstance(frame, dict) else {}
        kind = command.get("type")
        if kind == "response.create":
            self._add_request(line, command)
        elif kind == "response.steer":
            self._add_steer(str(command.get("previous_response_id")))
        else:
            self._unanswered_others += 1

    def _add_request(self, line: RecordingLine, command: Json) -> None:
        lane: _Lane = command.get("stream_id")
        parent: str | None = command.get("previous_response_id")
        request = RecordedRequest(line.socket, lane, parent, line.t)
        request.extra_frames += [(0, frame) for frame in self._early_frames]
        self._early_frames.clear()
        self._lanes.setdefault(self._lane_of(request), deque()).append(request)
        self._latest = request
        self._result.requests.append(request)

    def _add_steer(self, response_id: str) -> None:
        unfinished = (request for queue in self._lanes.values() for request in queue)
        steered = next((one for one in unfinished if one.response_id == response_id), None)
        frames = 0
        if steered is not None:
            frames = len(steered.frames)
            steered.is_steered = True
            self._steers.append(_UnsettledSteer(steered, response_id, self._lane_of(steered)))
        self._result.steers.append(RecordedSteer(steered, frames))

    # Received frames

    def _add_received(self, line: RecordingLine) -> None:
        frame: Frame | None = line.json if line.json is not None else line.text
        if frame is None:
            return  # binary, or too large to be recorded
        event = _parse(frame)
        request = self._request_of(event)
        if request is not None:
            request.frames.append(frame)
            request.times.append(line.t)
            self._latest = request
        elif _is_error(event) and self._unanswered_others:
            self._unanswered_others -= 1  # no script sends the message that the error answers
        elif self._latest is not None:
            self._latest.extra_frames.append((len(self._latest.frames), frame))
        else:
            self._early_frames.append(frame)

    def _request_of(self, event: Mapping[str, Any]) -> RecordedRequest | None:
        """Return the request that an event belongs to, and update its state; None without one."""
        kind = str(event.get("type") or "")
        if _is_error(event):
            return self._on_error(event)
        lane: _Lane = event.get("stream_id")
        if kind == "response.created":
            return self._on_created(lane, _response_id(event))
        if kind in _TERMINAL:
            return self._on_terminal(lane, event)
        if kind.startswith("response.steer."):
            return self._on_steer_event(lane, kind, event)
        if lane is None and not kind.startswith("response."):
            return None
        precedes_response = _BEFORE_CREATED.match(kind) is not None
        has_no_owner = self._cut_off if precedes_response else self._awaits_created
        return None if lane in has_no_owner else self._oldest(lane)

    def _on_created(self, lane: _Lane, response_id: str | None) -> RecordedRequest | None:
        self._created_seen = True
        request = self._oldest(lane)
        if request is None:
            return None
        is_new = request.response_id not in {None, response_id}
        if is_new and not request.is_steered:
            request.phase = RecordedRequestPhase.DONE
            self._lanes[lane].popleft()
            request = self._oldest(lane)
            if request is None:
                return None
        request = self._answered_by_successor(request)
        self._start(request, response_id)
        request.phase = RecordedRequestPhase.RUNNING
        self._cut_off.discard(lane)
        self._awaits_created.discard(lane)
        return request

    def _on_terminal(self, lane: _Lane, event: Mapping[str, Any]) -> RecordedRequest | None:
        request = self._oldest(lane)
        if request is None:
            return None
        response_id = _response_id(event) or request.response_id
        is_known = response_id == request.response_id
        if not is_known and response_id == self._last_ended.get(lane):
            return None  # the previous response has ended twice
        if request.phase is RecordedRequestPhase.AWAITING_SUCCESSOR:
            if is_known:
                return None
            request = self._answered_by_successor(request)
            self._start(request, response_id)  # without a response.created
        request.response_id = response_id
        if not self._awaits_successor(request):
            return self._finish(request)
        request.phase = RecordedRequestPhase.AWAITING_SUCCESSOR
        request.has_calls = bool(required_input(_output(event)))
        self._end_response(lane, response_id)
        return request

    def _on_error(self, event: Mapping[str, Any]) -> RecordedRequest | None:
        request = self._request_of_error(event)
        if request is None:
            return None
        if _error_field(event, "code") == _AGE_LIMIT and request.response_id is not None:
            return None  # the end of the socket ends the response
        refused = self._steers_refused_by(event, request)
        if refused:
            self._steers = [steer for steer in self._steers if steer not in refused]
            return self._finish_if_settled(request)
        self._finish(request)
        if request.response_id is not None:
            self._cut_off.add(self._lane_of(request))
        return request

    def _request_of_error(self, event: Mapping[str, Any]) -> RecordedRequest | None:
        """Return the request that an error is about. Errors often name no lane (``stream_id``)."""
        lane: _Lane = event.get("stream_id")
        is_lane_invalid = _error_field(event, "code") == _INVALID_LANE
        oldest = self._oldest(lane)
        if lane is not None or (oldest is not None and not is_lane_invalid):
            return oldest
        candidates = [queue[0] for queue in self._lanes.values() if queue]
        if is_lane_invalid:
            candidates = [
                request
                for request in candidates
                if self._lane_of(request) is not None and request.response_id is None
            ]
        return candidates[0] if len(candidates) == 1 else None

    def _steers_refused_by(
        self, event: Mapping[str, Any], request: RecordedRequest
    ) -> list[_UnsettledSteer]:
        """Return the steering inputs that an error refuses.

        After the response, the error is about its successor. During the response, a client error is
        the answer of a server that does not support steering: the response itself was accepted.
        """
        own = [steer for steer in self._steers if steer.request is request]
        if request.phase is RecordedRequestPhase.AWAITING_SUCCESSOR:
            return [steer for steer in own if steer.phase is not RecordedSteerPhase.PENDING]
        if request.response_id is not None and _is_client_error(event):
            return [steer for steer in own if steer.phase is RecordedSteerPhase.SENT][:1]
        return []

    def _on_steer_event(
        self, lane: _Lane, kind: str, event: Mapping[str, Any]
    ) -> RecordedRequest | None:
        steer = self._find_steer(lane, event)
        if steer is not None:
            lane = steer.lane
        request = None if lane in self._cut_off else self._oldest(lane)
        if steer is not None:
            steer.id = _steer_field(event, "id") or steer.id
            if kind == "response.steer.accepted":
                steer.phase = RecordedSteerPhase.ACCEPTED
            elif kind == "response.steer.pending":
                steer.phase = RecordedSteerPhase.PENDING
            else:
                self._steers.remove(steer)
        return None if request is None else self._finish_if_settled(request)

    def _find_steer(self, lane: _Lane, event: Mapping[str, Any]) -> _UnsettledSteer | None:
        """Return the steering input with the id of an event, or the oldest unanswered one."""
        steer_id, parent = _steer_field(event, "id"), _steer_field(event, "previous_response_id")
        for steer in self._steers:
            if steer.id is not None and steer.id == steer_id:
                return steer
        unanswered = [steer for steer in self._steers if steer.phase is RecordedSteerPhase.SENT]
        if parent is not None:
            return next((steer for steer in unanswered if steer.parent == parent), None)
        on_lane = [steer for steer in unanswered if steer.lane == lane]
        candidates = on_lane or (unanswered if lane is None else [])
        return candidates[0] if candidates else None

    # States

    def _lane_of(self, request: RecordedRequest) -> _Lane:
        return request.lane if self._names_lanes else None

    def _oldest(self, lane: _Lane) -> RecordedRequest | None:
        queue = self._lanes.get(lane)
        return queue[0] if queue else None

    def _awaits_successor(self, request: RecordedRequest) -> bool:
        return any(
            steer.request is request and steer.phase is not RecordedSteerPhase.PENDING
            for steer in self._steers
        )

    def _answered_by_successor(self, request: RecordedRequest) -> RecordedRequest:
        """Return the request that a new response answers: the given one, or the next of its lane.

        The next request with the tool outputs of the steered response takes the place of a
        successor. The server then sends no event for the inputs that have waited for the outputs.
        """
        queue = self._lanes[self._lane_of(request)]
        awaits_outputs = (
            request.phase is RecordedRequestPhase.AWAITING_SUCCESSOR and request.has_calls
        )
        if not awaits_outputs or len(queue) == 1 or queue[1].parent != request.response_id:
            return request
        self._steers = [
            steer
            for steer in self._steers
            if steer.request is not request or steer.phase is RecordedSteerPhase.SENT
        ]
        self._finish(request)
        return queue[0]

    def _start(self, request: RecordedRequest, response_id: str | None) -> None:
        """Record the start of a response, which commits the steering inputs that wait for it."""
        request.response_id = response_id
        lane = self._lane_of(request)
        self._steers = [
            steer
            for steer in self._steers
            if not (steer.request is request and steer.phase is RecordedSteerPhase.ACCEPTED)
            and not (
                steer.phase is RecordedSteerPhase.PENDING
                and steer.lane == lane
                and steer.parent == request.parent
            )
        ]

    def _finish_if_settled(self, request: RecordedRequest) -> RecordedRequest:
        if request.phase is RecordedRequestPhase.AWAITING_SUCCESSOR and not self._awaits_successor(
            request
        ):
            self._finish(request)
        return request

    def _finish(self, request: RecordedRequest) -> RecordedRequest:
        lane = self._lane_of(request)
        request.phase = RecordedRequestPhase.DONE
        self._lanes[lane].popleft()
        self._cut_off.discard(lane)
        self._end_response(lane, request.response_id)
        return request

    def _end_response(self, lane: _Lane, response_id: str | None) -> None:
        self._last_ended[lane] = response_id
        if self._created_seen:
            self._awaits_created.add(lane)


# Fields of frames, which may be of any type


def _parse(frame: Frame) -> Mapping[str, Any]:
    """Return the fields of a frame; none if the frame is no JSON object.

    Recordings contain a frame as text if msgspec cannot decode it: halves of surrogate pairs, or
    too many levels. For the latter, the result has only the fields before the first nested value.
    """
    if isinstance(frame, Mapping):
        return frame
    if not isinstance(frame, str):
        return {}
    try:
        value: Any = json.loads(frame)
    except RecursionError:
        beginning = "{".join(frame.split("{", 2)[:2]).partition("[")[0]
        return dict(_FLAT_FIELD.findall(beginning))
    except ValueError:
        return {}
    return cast("Json", value) if isinstance(value, dict) else {}


def _is_error(event: Mapping[str, Any]) -> bool:
    kind = event.get("type")
    return kind in _ERRORS or (kind is None and ("error" in event or "detail" in event))


def _error_field(event: Mapping[str, Any], name: str) -> Any:
    error = event.get("error")
    return cast("Json", error).get(name) if isinstance(error, dict) else event.get(name)


def _is_client_error(event: Mapping[str, Any]) -> bool:
    status = event.get("status", event.get("status_code"))
    is_client_status = isinstance(status, int) and status // 100 == 4  # noqa: PLR2004
    return is_client_status or _error_field(event, "type") == "invalid_request_error"


def _response(event: Mapping[str, Any]) -> Json:
    response = event.get("response")
    return cast("Json", response) if isinstance(response, dict) else {}


def _response_id(event: Mapping[str, Any]) -> str | None:
    return _response(event).get("id") or None


def _output(event: Mapping[str, Any]) -> list[Json]:
    output: Any = _response(event).get("output")
    if not isinstance(output, list):
        return []
    return [item for item in cast("Any", output) if isinstance(item, dict)]


def _steer_field(event: Mapping[str, Any], name: str) -> str | None:
    steer = event.get("steer")
    return (cast("Json", steer).get(name) if isinstance(steer, dict) else None) or None
