"""Steering on one connection: accepted inputs, their target responses, and steering events.

A response is a *target* from its first frame on. The target counts the sequence numbers of its
events, which the steering events share. An accepted input stays with the target until a successor
commits the input or the server reports its failure (docs/protocol.md 5.7). No I/O.

The messages of the failures are part of the wire format: do not reword them.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, Literal, TypeAlias

from trio_responses.testing._frames import Frame, Json
from trio_responses.testing._history import is_hosted
from trio_responses.testing._records import Request, SteerRequest
from trio_responses.testing._request_checks import check_steer
from trio_responses.testing._state import ServerState

MAX_PENDING_STEERS: Final = 8
"""The most inputs that can wait for one response's successor. The real limit is not documented."""

MAX_ENDED_TARGETS: Final = 50
"""The number of ended responses of a connection that are kept, at least; inputs to older ones are
refused as inputs to unknown responses."""

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

Phase: TypeAlias = Literal["running", "waiting", "closed"]


class SteerTarget:
    """A response to which steering inputs can be sent."""

    __slots__ = ("id", "next_number", "phase", "request", "required", "steers")

    def __init__(self, response_id: str, request: Request) -> None:
        self.id: str = response_id
        self.request: Request = request
        self.next_number: int = 0
        """The next sequence number."""
        self.phase: Phase = "running"
        """``running``; ``waiting``: has ended and waits for tool outputs; ``closed``: takes no
        input."""
        self.steers: list[SteerRequest] = []
        """The accepted inputs that no response has committed."""
        self.required: list[Json] = []
        """Stubs of the tool outputs that the target waits for."""

    def number_frame(self, frame: Frame) -> Frame:
        """Return a frame of this response with the next sequence number, if the frame has one."""
        if not isinstance(frame, Mapping) or "sequence_number" not in frame:
            return frame
        return {**frame, "sequence_number": self._take_number()}

    def continue_numbers_after(self, frame: Frame) -> None:
        """Continue the sequence numbers after the number of a raw frame."""
        number = frame.get("sequence_number") if isinstance(frame, Mapping) else None
        if isinstance(number, int):
            self.next_number = number + 1

    def close_unless_steered(self) -> None:
        """Close the target unless it has accepted inputs. Called before the last event is sent."""
        if not self.steers:
            self.phase = "closed"

    def take_steers(self) -> list[SteerRequest]:
        """Return the accepted inputs, and close the target."""
        self.phase = "closed"
        steers, self.steers = self.steers, []
        return steers

    def start_waiting(self, required: list[Json], *, silently: bool) -> Iterator[Json]:
        """Start to wait for tool outputs, and yield ``pending`` events unless ``silently``."""
        self.phase, self.required = "waiting", required
        if not silently:
            for steer in tuple(self.steers):
                yield self.pending_event(steer)

    def accepted_event(self, steer: SteerRequest) -> Json:
        """Return the event for an input that the server accepts."""
        return self._event("accepted", {"steer": _steer_reference(steer)})

    def pending_event(self, steer: SteerRequest) -> Json:
        """Return the event for an input that waits for tool outputs; mark the input pending."""
        steer.state = "pending"
        return self._event(
            "pending",
            {
                "steer": _steer_reference(steer),
                "reason": "waiting_for_required_input",
                "required_input": self.required,
            },
        )

    def failed_events(self, steers: Sequence[SteerRequest], code: str) -> Iterator[Json]:
        """Yield the events for inputs that fail."""
        for steer in steers:
            yield self.failed_event(steer, code)

    def failed_event(self, steer: SteerRequest, code: str, message: str | None = None) -> Json:
        """Return the event for an input that fails, and mark the input as failed."""
        steer.state, steer.code = "failed", code
        return self._event("failed", _failure_fields(steer, code, message))

    def _event(self, kind: str, fields: Json) -> Json:
        event = {
            "type": f"response.steer.{kind}",
            "sequence_number": self._take_number(),
            **fields,
        }
        if self.request.lane is not None:
            event["stream_id"] = self.request.lane
        return event

    def _take_number(self) -> int:
        self.next_number += 1
        return self.next_number - 1


class SteeringState:
    """The steering targets of one connection."""

    def __init__(self, state: ServerState, connection: int) -> None:
        self._state = state
        self._connection = connection
        self._targets: dict[str, SteerTarget] = {}
        self.waiting: dict[str | None, SteerTarget] = {}
        """By lane: the response whose input the next request of the lane commits or makes fail."""

    def add_target(self, response_id: str, request: Request) -> SteerTarget:
        """Return the target for a response that starts."""
        self._forget_ended_targets()
        target = self._targets[response_id] = SteerTarget(response_id, request)
        return target

    def _forget_ended_targets(self) -> None:
        """Remove the oldest responses that take no input any more, if there are many."""
        if len(self._targets) > 2 * MAX_ENDED_TARGETS:
            ended = [key for key, target in self._targets.items() if target.phase == "closed"]
            for key in ended[:-MAX_ENDED_TARGETS]:
                del self._targets[key]

    def receive(self, body: Json) -> Iterator[Json]:
        """Accept or refuse one ``response.steer``, and yield the events to send, one by one."""
        steer = SteerRequest(body, self._connection)
        self._state.steers.append(steer)
        target = self._targets.get(str(steer.previous_response_id))
        if target is not None:
            steer.lane = target.request.lane
        code = self._state.take_steer_refusal()
        message = check_steer(body)
        if code is None:
            code = "invalid_input" if message else self._refusal_code(target)
        if code is not None:
            yield _refused_event(steer, target, code, message)
        elif target is not None:
            yield from self._accept(steer, target)

    def _accept(self, steer: SteerRequest, target: SteerTarget) -> Iterator[Json]:
        steer.id = self._state.ids.new("steer")
        target.steers.append(steer)
        was_waiting = target.phase == "waiting"
        yield target.accepted_event(steer)
        # The next request may have committed the input while the first event went out.
        if was_waiting and steer in target.steers:
            yield target.pending_event(steer)

    def _refusal_code(self, target: SteerTarget | None) -> str | None:
        if target is None:
            return "response_not_found"
        unsteerable = any(target.request.get(name) for name in _UNSTEERABLE)
        if unsteerable or not self._state.options.steering:
            return "steering_not_supported"
        if target.phase == "closed":
            return "response_already_completed"
        if len(target.steers) >= MAX_PENDING_STEERS:
            return "too_many_pending_steers"
        return None


def required_input(output: Sequence[Json]) -> list[Json]:
    """Return a stub of the required input for each call that the client must answer."""
    stubs: list[Json] = []
    answered = {(item.get("type"), item.get("call_id")) for item in output}
    for item in output:
        kind, fields = _STUBS.get(str(item.get("type")), ("", ()))
        if item.get("type") == "mcp_approval_request":
            stubs.append({"type": "mcp_approval_response", "approval_request_id": item.get("id")})
        elif kind and not is_hosted(item) and (kind, item.get("call_id")) not in answered:
            stubs.append({"type": kind, **{name: item.get(name) for name in fields}})
    return stubs


def make_successor(target: SteerTarget, steers: list[SteerRequest]) -> Request:
    """Return the request of the successor of ``target``: the parent's, with the input replaced."""
    parent = target.request
    body = parent.body | {
        "previous_response_id": target.id,
        "input": [item for steer in steers for item in steer.input_items],
    }
    return Request(body, parent.connection, parent.lane, steers=steers)


def _steer_reference(steer: SteerRequest) -> Json:
    reference: Json = {"previous_response_id": steer.previous_response_id}
    return reference if steer.id is None else {"id": steer.id, **reference}


def _failure_fields(steer: SteerRequest, code: str, message: str | None) -> Json:
    default = _MESSAGES.get(code, f"The input was refused ({code}).")
    return {
        "steer": {**_steer_reference(steer), "input": steer.input},
        "error": {
            "type": "invalid_request_error",
            "code": code,
            "message": message or default,
        },
    }


def _refused_event(
    steer: SteerRequest, target: SteerTarget | None, code: str, message: str | None
) -> Json:
    if target is not None:
        return target.failed_event(steer, code, message)
    steer.state, steer.code = "failed", code
    fields: dict[str, Any] = _failure_fields(steer, code, message)
    return {"type": "response.steer.failed", "sequence_number": 0, **fields}
