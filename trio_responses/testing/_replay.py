"""Recordings as scripts: each recorded request with what the server answered to it.

A recording is in the order of the wire; a script is what happens to one request. So each message
is given to the request that it answered, by the rules of the client (`core/lanes.py`).

What belongs elsewhere: the form of a recording (`instruments/recording.py`), who takes which script
(``state.py``).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, cast

import msgspec
import trio

from trio_responses._instruments.recording import Recording, RecordingLine
from trio_responses._protocol.request_table import RequestTable
from trio_responses._protocol.requests import ActiveRequest, SteerInput
from trio_responses._wire import ErrorEvent, ResponseCreated, ServerEvent, decode
from trio_responses.testing._frames import Frame
from trio_responses.testing._scripts import DelayedClose, Drop, How, Recorded, Script

NORMAL_CLOSURE: Final = 1000
NO_CODE: Final = 1005
ABNORMAL_CLOSURE: Final = 1006
SHORT_PAUSE: Final = 1.0
"""Seconds in which a program asks on: a socket that ends meanwhile takes its question along."""


@dataclass(slots=True, eq=False)
class _Exchange:
    """A recorded request, and what came for it."""

    request: ActiveRequest
    lane: str | None
    """The lane that it was sent on."""
    sent_at: float
    socket: int
    frames: list[Frame] = field(default_factory=list[Frame])
    times: list[float] = field(default_factory=list[float])
    gates: list[tuple[int, trio.Event]] = field(default_factory=list[tuple[int, trio.Event]])
    """After how many frames it was steered, and what the server sets when it is steered again."""
    unasked: list[tuple[int, Frame]] = field(default_factory=list[tuple[int, Frame]])
    """After how many frames something came that belongs to nobody."""
    end: How | None = None
    """How the server ended the socket behind the last frame."""
    reason: str = ""
    idle: float | None = None
    """How long the socket had owed no answer by then."""


@dataclass(frozen=True, slots=True)
class Replay:
    """The scripts of a recording."""

    scripts: Sequence[Script]
    """One for each request, in order."""
    gates: Sequence[trio.Event]
    """One for each steering input, in order: to be set when it comes."""


def plan_replay(recording: Recording, *, timing: bool) -> Replay:
    """Make scripts of a recording.

    :param timing: whether each frame takes as long as it took.
    """
    sorted_out = _Sorting({line.socket for line in recording if _names_a_lane(line)})
    for line in recording:
        sorted_out.take(line)
    scripts = [_script(exchange, timing=timing) for exchange in sorted_out.exchanges]
    by_socket: dict[int, list[Script]] = {}
    for exchange, script in zip(sorted_out.exchanges, scripts, strict=True):
        by_socket.setdefault(exchange.socket, []).append(script)
    for exchange, script in zip(sorted_out.exchanges, scripts, strict=True):
        if exchange.end is None:
            continue
        others = [other for other in by_socket[exchange.socket] if other is not script]
        if exchange.idle is not None:
            end = Drop(exchange.end, exchange.reason)
            script.parting = DelayedClose(exchange.idle, end, [other.finished for other in others])
            continue
        for other in others:
            script.hold(other, after_events=None)
        script.drop(after_events=None, how=exchange.end, reason=exchange.reason)
    return Replay(scripts, sorted_out.gates)


class _Sorting:
    """Gives each message to the request that it answered.

    :param with_lanes: the sockets whose server names lanes; another one's answers are in the
        order of the requests.
    """

    def __init__(self, with_lanes: set[int]) -> None:
        self._with_lanes = with_lanes
        self._lanes: dict[int, RequestTable] = {}
        self._of: dict[ActiveRequest, _Exchange] = {}
        self._last: dict[int, _Exchange] = {}
        self._early: dict[int, list[Frame]] = {}
        self._strays = 0
        self.exchanges: list[_Exchange] = []
        self.gates: list[trio.Event] = []

    def take(self, line: RecordingLine) -> None:
        """Take the next line."""
        match line.dir:
            case "send" | "send-raw":
                self._send(line)
            case "recv":
                self._receive(line)
            case "close" if line.by == "server" and line.socket in self._last:
                last = self._last[line.socket]
                lost = line.code in {None, ABNORMAL_CLOSURE}
                code = NORMAL_CLOSURE if line.code == NO_CODE else line.code
                last.end = "fin" if lost else code
                last.reason = line.reason or ""
                if not self._lanes_of(line).count():
                    since = last.times[-1] if last.times else last.sent_at
                    last.idle = max(line.t - since, SHORT_PAUSE)
            case _:
                pass

    def _lanes_of(self, line: RecordingLine) -> RequestTable:
        return self._lanes.setdefault(line.socket, RequestTable())

    def _send(self, line: RecordingLine) -> None:
        shown = line.json
        command = cast("Mapping[str, Any]", shown if isinstance(shown, dict) else {})
        kind = command.get("type")
        if kind == "response.create":
            lane: str | None = command.get("stream_id")
            by_lane = lane if line.socket in self._with_lanes else None
            request = ActiveRequest(by_lane, command.get("previous_response_id"))
            exchange = _Exchange(request, lane, line.t, line.socket)
            exchange.unasked += [(0, frame) for frame in self._early.pop(line.socket, [])]
            self._lanes_of(line).admit(request)
            self._of[request] = self._last[line.socket] = exchange
            self.exchanges.append(exchange)
        elif kind == "response.steer":
            self._steer(line, command)
        else:
            self._strays += 1

    def _steer(self, line: RecordingLine, command: Mapping[str, Any]) -> None:
        gate = trio.Event()
        self.gates.append(gate)
        lanes = self._lanes_of(line)
        request = lanes.find(str(command.get("previous_response_id")))
        if request is not None:
            lanes.submit_steer(SteerInput(request, []))
            exchange = self._of[request]
            exchange.gates.append((len(exchange.frames), gate))

    def _receive(self, line: RecordingLine) -> None:
        frame: Frame | None = line.json if line.json is not None else line.text
        if frame is None:
            return  # binary, or too large to be there
        raw = msgspec.json.encode(frame) if line.text is None else line.text.encode()
        event = decode(raw)
        owner = self._owner(event, self._lanes_of(line))
        if owner is None and isinstance(event, ErrorEvent) and self._strays:
            self._strays -= 1  # it answers what was no request: no script sends that again
        elif owner is not None:
            exchange = self._last[line.socket] = self._of[owner]
            exchange.frames.append(frame)
            exchange.times.append(line.t)
        elif line.socket in self._last:
            last = self._last[line.socket]
            last.unasked.append((len(last.frames), frame))
        else:
            self._early.setdefault(line.socket, []).append(frame)

    def _owner(self, event: ServerEvent, lanes: RequestTable) -> ActiveRequest | None:
        """Find whose event it is; one that has begun anew has lost its first response."""
        if isinstance(event, ResponseCreated):
            for request in list(lanes.unfinished()):
                began = request.response_id not in {None, event.response.id}
                if request.lane == event.stream_id and began and not request.steers:
                    lanes.withdraw(request)
        return lanes.route(event)


def _names_a_lane(line: RecordingLine) -> bool:
    frame = line.json if line.dir == "recv" else None
    return isinstance(frame, dict) and "stream_id" in frame


def _script(exchange: _Exchange, *, timing: bool) -> Script:
    script = Script(Recorded(exchange.frames, exchange.lane))
    for place, gate in exchange.gates:
        script.hold(gate, after_events=_place(place, exchange))
    if timing:
        for place, pause in enumerate(_pauses(exchange)):
            script.stall(after_events=place, seconds=pause)
    for place, frame in exchange.unasked:
        script.inject(frame, after_events=_place(place, exchange))
    return script


def _place(place: int, exchange: _Exchange) -> int | None:
    return None if place >= len(exchange.frames) else place


def _pauses(exchange: _Exchange) -> Iterator[float]:
    before = exchange.sent_at
    for time in exchange.times:
        yield max(time - before, 0.0)
        before = time
