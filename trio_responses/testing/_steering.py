"""Steering on one connection: what is accepted, for which response, and what is said of it.

A response is a *target* from its first frame on. It counts its own sequence numbers, which the
steering events share. Accepted input stays with it until a successor commits it or it comes back
(docs/protocol.md 5.7). No I/O.

What belongs elsewhere: when a response is cut, and how its successor runs (``turns.py``); what
became of an input (:class:`~trio_responses.testing.Steer`).
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, Literal, TypeAlias

from trio_responses.testing._frames import Frame, Json
from trio_responses.testing._records import Request, SteerRequest
from trio_responses.testing._request_checks import check_steer
from trio_responses.testing._state import ServerState

MAX_PENDING_STEERS: Final = 8
"""The most inputs that wait for one response's successor. The real limit is not documented."""

FAILED: Final = "successor_creation_failed"

_UNSTEERABLE: Final = ("conversation", "context_management", "multi_agent")
_MESSAGES: Final[Mapping[str, str]] = {
    "response_not_found": "The response is not known on this connection.",
    "steering_not_supported": "This response does not support steering.",
    "response_already_completed": "The response has ended and takes no more input.",
    "too_many_pending_steers": f"{MAX_PENDING_STEERS} inputs wait for this response already.",
    FAILED: "The successor of the response could not be created.",
}
_STUBS: Final[Mapping[str, tuple[str, tuple[str, ...]]]] = {
    "function_call": ("function_call_output", ("call_id", "name")),
    "custom_tool_call": ("custom_tool_call_output", ("call_id",)),
    "computer_call": ("computer_call_output", ("call_id",)),
    "shell_call": ("shell_call_output", ("call_id",)),
    "apply_patch_call": ("apply_patch_call_output", ("call_id",)),
    "tool_search_call": ("tool_search_output", ("call_id", "execution")),
}

Phase: TypeAlias = Literal["running", "waiting", "over"]


class SteerTarget:
    """A response that input may be for."""

    __slots__ = ("id", "number", "phase", "request", "required", "steers")

    def __init__(self, response_id: str, request: Request) -> None:
        self.id: str = response_id
        self.request: Request = request
        self.number: int = 0
        self.phase: Phase = "running"
        """Running; ended, and waiting for tool outputs; or past taking input."""
        self.steers: list[SteerRequest] = []
        """Accepted input that nothing has committed."""
        self.required: list[Json] = []
        """Stubs of what it waits for."""

    def number_frame(self, frame: Frame) -> Frame:
        """Put the next sequence number into an event of this response, if it is to have one."""
        if not isinstance(frame, Mapping) or "sequence_number" not in frame:
            return frame
        return {**frame, "sequence_number": self._next_number()}

    def follow(self, frame: Frame) -> None:
        """Go on counting from a frame that was numbered by hand."""
        number = frame.get("sequence_number") if isinstance(frame, Mapping) else None
        if isinstance(number, int):
            self.number = number + 1

    def end(self) -> None:
        """Note that the last event goes out now: without input by now, there will be none."""
        if not self.steers:
            self.phase = "over"

    def take(self) -> list[SteerRequest]:
        """Give up the accepted input, and take no more."""
        self.phase = "over"
        steers, self.steers = self.steers, []
        return steers

    def wait(self, required: list[Json], *, silently: bool) -> Iterator[Json]:
        """Wait for tool outputs; yield what is said of that, unless it is left out."""
        self.phase, self.required = "waiting", required
        if not silently:
            for steer in tuple(self.steers):
                yield self.pending(steer)

    def accepted(self, steer: SteerRequest) -> Json:
        """Return what is said when the server owns an input."""
        return self._event("accepted", {"steer": _shown(steer)})

    def pending(self, steer: SteerRequest) -> Json:
        """Return what is said when an input waits for tool outputs."""
        steer.state = "pending"
        return self._event(
            "pending",
            {
                "steer": _shown(steer),
                "reason": "waiting_for_required_input",
                "required_input": self.required,
            },
        )

    def failures(self, steers: Sequence[SteerRequest], code: str) -> Iterator[Json]:
        """Yield what is said when inputs come back."""
        for steer in steers:
            yield self.failed(steer, code)

    def failed(self, steer: SteerRequest, code: str, message: str | None = None) -> Json:
        """Return what is said when an input comes back."""
        steer.state, steer.code = "failed", code
        return self._event("failed", _failure(steer, code, message))

    def _event(self, kind: str, fields: Json) -> Json:
        event = {
            "type": f"response.steer.{kind}",
            "sequence_number": self._next_number(),
            **fields,
        }
        if self.request.lane is not None:
            event["stream_id"] = self.request.lane
        return event

    def _next_number(self) -> int:
        self.number += 1
        return self.number - 1


class SteeringState:
    """The targets of one connection."""

    def __init__(self, state: ServerState, connection: int) -> None:
        self._state = state
        self._connection = connection
        self._targets: dict[str, SteerTarget] = {}
        self.waiting: dict[str | None, SteerTarget] = {}
        """By lane: the response whose input the next request of the lane commits or loses."""

    def begin(self, response_id: str, request: Request) -> SteerTarget:
        """Make a target of a response that begins."""
        target = self._targets[response_id] = SteerTarget(response_id, request)
        return target

    def receive(self, body: Json) -> Iterator[Json]:
        """Judge one ``response.steer`` and yield what is said of it, to be sent one by one."""
        steer = SteerRequest(body, self._connection)
        self._state.steers.append(steer)
        target = self._targets.get(str(steer.previous_response_id))
        if target is not None:
            steer.lane = target.request.lane
        code = self._state.take_steer_refusal()
        fault = check_steer(body)
        if code is None:
            code = "invalid_input" if fault else self._refusal(target)
        if code is not None:
            yield _refused(steer, target, code, fault)
        elif target is not None:
            yield from self._accept(steer, target)

    def _accept(self, steer: SteerRequest, target: SteerTarget) -> Iterator[Json]:
        steer.id = self._state.ids.new("steer")
        target.steers.append(steer)
        was_waiting = target.phase == "waiting"
        yield target.accepted(steer)
        if was_waiting and steer in target.steers:
            yield target.pending(steer)

    def _refusal(self, target: SteerTarget | None) -> str | None:
        if target is None:
            return "response_not_found"
        unsteerable = any(target.request.get(name) for name in _UNSTEERABLE)
        if unsteerable or not self._state.options.steering:
            return "steering_not_supported"
        if target.phase == "over":
            return "response_already_completed"
        if len(target.steers) >= MAX_PENDING_STEERS:
            return "too_many_pending_steers"
        return None


def required_input(output: Sequence[Json]) -> list[Json]:
    """Return a stub for each call of an output that the client has to answer."""
    stubs: list[Json] = []
    answered = {(item.get("type"), item.get("call_id")) for item in output}
    for item in output:
        kind, fields = _STUBS.get(str(item.get("type")), ("", ()))
        if item.get("type") == "mcp_approval_request":
            stubs.append({"type": "mcp_approval_response", "approval_request_id": item.get("id")})
        elif kind and not _is_hosted(item) and (kind, item.get("call_id")) not in answered:
            stubs.append({"type": kind, **{name: item.get(name) for name in fields}})
    return stubs


def _is_hosted(call: Json) -> bool:
    """Whether the server answers a call itself: it searches, or has the shell."""
    environment: Any = call.get("environment") or {}
    return call.get("execution") == "server" or environment.get("type") == "container_reference"


def succeed(target: SteerTarget, steers: list[SteerRequest]) -> Request:
    """Return the request that the successor of ``target`` answers."""
    parent = target.request
    body = parent.body | {
        "previous_response_id": target.id,
        "input": [item for steer in steers for item in steer.input_items],
    }
    return Request(body, parent.connection, parent.lane, steers=steers)


def _shown(steer: SteerRequest) -> Json:
    shown: Json = {"previous_response_id": steer.previous_response_id}
    return shown if steer.id is None else {"id": steer.id, **shown}


def _failure(steer: SteerRequest, code: str, message: str | None) -> Json:
    usual = _MESSAGES.get(code, f"The input was refused ({code}).")
    return {
        "steer": {**_shown(steer), "input": steer.input},
        "error": {
            "type": "invalid_request_error",
            "code": code,
            "message": message or usual,
        },
    }


def _refused(steer: SteerRequest, target: SteerTarget | None, code: str, fault: str | None) -> Json:
    if target is not None:
        return target.failed(steer, code, fault)
    steer.state, steer.code = "failed", code
    fields: dict[str, Any] = _failure(steer, code, fault)
    return {"type": "response.steer.failed", "sequence_number": 0, **fields}
