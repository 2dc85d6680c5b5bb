"""Conversion of a recording into scripts for the test server, one for each recorded request.

The script of a request sends the recorded frames that answered it. Frames that followed a steering
input, or that the socket's other requests must get first, wait for their cause in the replay, too.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import trio

from trio_responses._instruments.recording import Recording
from trio_responses.testing._attribution import RecordedClose, RecordedRequest, attribute
from trio_responses.testing._scripts import DelayedClose, Drop, Recorded, Script

MIN_IDLE_SECONDS: Final = 1.0
"""The least idle time before a replayed socket ends: meanwhile, a program may send a request."""


@dataclass(frozen=True, slots=True)
class Replay:
    """The scripts that replay a recording."""

    scripts: Sequence[Script]
    """The script of each request, in order."""
    steers: Sequence[trio.Event]
    """An event for each steering input, in order: to be set when the input arrives."""


def plan_replay(recording: Recording, *, timing: bool) -> Replay:
    """Return the scripts of a recording.

    :param timing: Whether to send each frame after the recorded delay.
    """
    attributed = attribute(recording)
    steers = [trio.Event() for _ in attributed.steers]
    scripts: dict[RecordedRequest, Script] = {}
    for request in attributed.requests:
        script = scripts[request] = Script(Recorded(request.frames, request.lane))
        for steer, event in zip(attributed.steers, steers, strict=True):
            if steer.request is request:
                script.hold(event, after_events=_place_after(steer.frames_before, request))
        if timing:
            for place, pause in enumerate(_recorded_pauses(request)):
                script.stall(after_events=place, seconds=pause)
        for place, frame in request.extra_frames:
            script.inject(frame, after_events=_place_after(place, request))
    for request, script in scripts.items():
        if request.close is not None:
            others = [
                scripts[other]
                for other in attributed.requests
                if other.socket == request.socket and other is not request
            ]
            _close_after(script, request.close, others)
    return Replay(list(scripts.values()), steers)


def _close_after(script: Script, close: RecordedClose, others: Sequence[Script]) -> None:
    """Make a script end the socket after the scripts of the socket's other requests."""
    if close.idle_seconds is not None:
        end = Drop(close.how, close.reason)
        finished = [other.finished for other in others]
        idle_seconds = max(close.idle_seconds, MIN_IDLE_SECONDS)
        script.delayed_close = DelayedClose(idle_seconds, end, finished)
        return
    for other in others:
        script.hold(other, after_events=None)
    script.drop(after_events=None, how=close.how, reason=close.reason)


def _place_after(frames: int, request: RecordedRequest) -> int | None:
    return None if frames >= len(request.frames) else frames


def _recorded_pauses(request: RecordedRequest) -> Iterator[float]:
    before = request.sent_at
    for time in request.times:
        yield max(time - before, 0.0)
        before = time
