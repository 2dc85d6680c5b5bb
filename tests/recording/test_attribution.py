"""The attribution of recorded frames to requests, which shares no code with the client."""

from __future__ import annotations

import ast
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_responses import Recording

# The module is private, and a replay shows only a part of its result.
from trio_responses.testing import _attribution
from trio_responses.testing._attribution import RecordedRequestPhase, attribute

if TYPE_CHECKING:
    from collections.abc import Iterable

    from trio_responses.testing import How

Json = dict[str, Any]
Line = dict[str, Any]

CALL = {"type": "function_call", "call_id": "call_1", "name": "f", "arguments": "{}"}
AGE_LIMIT = "websocket_connection_limit_reached"


def send(kind: str = "response.create", **fields: Any) -> Line:
    return {"dir": "send", "frame": {"type": kind, **fields}}


def steer(response_id: str) -> Line:
    return send("response.steer", previous_response_id=response_id, input="x")


def recv(kind: str, mark: str, **fields: Any) -> Line:
    """Return a received frame with a mark, by which the table names the frame."""
    return {"dir": "recv", "frame": {"type": kind, "mark": mark, **fields}}


def created(response_id: str, mark: str, **fields: Any) -> Line:
    return recv("response.created", mark, response={"id": response_id}, **fields)


def delta(mark: str, **fields: Any) -> Line:
    return recv("response.output_text.delta", mark, delta="x", **fields)


def ended(response_id: str, mark: str, status: str = "completed", **fields: Any) -> Line:
    response = {"id": response_id, "status": status, "output": fields.pop("output", [])}
    return recv(f"response.{status}", mark, response=response, **fields)


def error(mark: str, code: str = "server_error", status: int = 500, **fields: Any) -> Line:
    return recv("error", mark, status=status, error={"code": code, "message": ""}, **fields)


def steer_event(kind: str, parent: str, mark: str, steer_id: str | None = None, **at: Any) -> Line:
    named = {} if steer_id is None else {"id": steer_id}
    reference = {**named, "previous_response_id": parent}
    return recv(f"response.steer.{kind}", mark, steer=reference, **at)


def record(*lines: Line) -> Recording:
    rows = (msgspec.json.encode({"t": 0.1 * n, **line}) + b"\n" for n, line in enumerate(lines))
    return Recording.parse(b"".join(rows))


def marks(frames: Iterable[Any]) -> str:
    """Return the marks of frames; a frame that is no JSON is its own mark."""
    return " ".join(frame if isinstance(frame, str) else frame["mark"] for frame in frames)


@dataclass(frozen=True)
class Case:
    """A small recording, and the marks of the frames that each request gets."""

    title: str
    lines: list[Line]
    frames: list[str]
    """The marks for each request."""
    extra: list[str] = field(default_factory=list[str])
    """For each frame without a request: the number of the request, the place, and the mark."""


CASES = [
    Case(
        "the requests of a lane are answered in order",
        [send(), created("r1", "a"), delta("b"), send(), ended("r1", "c"), created("r2", "d")],
        ["a b c", "d"],
    ),
    Case(
        "a step between the end of a response and the next response.created has no request",
        [
            send(),
            created("r1", "a"),
            ended("r1", "b"),
            delta("c"),
            send(),
            delta("d"),
            recv("response.queued", "e"),
            created("r2", "f"),
            delta("g"),
            ended("r2", "h"),
        ],
        ["a b", "e f g h"],
        ["0 2 c", "1 0 d"],
    ),
    Case(
        "a refusal and a terminal event before response.created have a request",
        [
            send(),
            created("r1", "a"),
            ended("r1", "b"),
            send(),
            error("c"),
            send(),
            delta("d"),
            ended("r3", "e"),
        ],
        ["a b", "c", "e"],
        ["2 0 d"],
    ),
    Case(
        "a server that never sends response.created sends no late steps",
        [send(), delta("a"), ended("r1", "b"), send(), delta("c"), ended("r2", "d")],
        ["a b", "c d"],
    ),
    Case(
        "a step between a response and its successor has no request",
        [
            send(),
            created("r1", "a"),
            steer("r1"),
            steer_event("accepted", "r1", "b", "s1"),
            ended("r1", "c", "incomplete"),
            delta("d"),
            created("r2", "e"),
            ended("r2", "f"),
        ],
        ["a b c e f"],
        ["0 3 d"],
    ),
    Case(
        "stream_id selects the lane",
        [
            send(stream_id="x"),
            send(),
            created("r2", "a"),
            created("r1", "b", stream_id="x"),
            delta("c"),
            delta("d", stream_id="x"),
            ended("r1", "e", stream_id="x"),
            ended("r2", "f"),
        ],
        ["b d e", "a c f"],
    ),
    Case(
        "a server without lanes answers the requests of all lanes in order",
        [
            send(stream_id="x"),
            send(stream_id="y"),
            created("r1", "a"),
            ended("r1", "b"),
            created("r2", "c"),
            ended("r2", "d"),
        ],
        ["a b", "c d"],
    ),
    Case(
        "sockets are separate",
        [send(), {**send(), "socket": 2}, {**delta("a"), "socket": 2}, delta("b")],
        ["b", "a"],
    ),
    Case(
        "a terminal event alone answers a request",
        [send(), ended("r1", "a"), send(), ended("r2", "b", "failed")],
        ["a", "b"],
    ),
    Case(
        "the alias response.done ends a response",
        [send(), recv("response.done", "a", response={"id": "r1"}), send(), created("r2", "b")],
        ["a", "b"],
    ),
    Case(
        "a second terminal event of the previous response belongs to no request",
        [send(), ended("r1", "a"), send(), ended("r1", "b"), created("r2", "c")],
        ["a", "c"],
        ["1 0 b"],
    ),
    Case(
        "a second response without steering belongs to the next request",
        [send(), created("r1", "a"), send(), created("r2", "b"), ended("r2", "c")],
        ["a", "b c"],
    ),
    Case(
        "a second response without steering or a next request belongs to no request",
        [send(), created("r1", "a"), created("r2", "b")],
        ["a"],
        ["0 1 b"],
    ),
    Case(
        "an error ends a request",
        [send(), error("a"), send(), created("r2", "b")],
        ["a", "b"],
    ),
    Case(
        "frames of a response after its error belong to no request",
        [send(), created("r1", "a"), error("b"), send(), delta("c"), created("r2", "d")],
        ["a b", "d"],
        ["1 0 c"],
    ),
    Case(
        "an error without a lane belongs to the only unfinished request",
        [send(stream_id="x"), created("r1", "a", stream_id="x"), error("b"), send(), delta("c")],
        ["a b", "c"],
    ),
    Case(
        "an error without a lane belongs to no request if several can be meant",
        [send(stream_id="x"), send(stream_id="y"), delta("a", stream_id="x"), error("b")],
        ["a", ""],
        ["0 1 b"],
    ),
    Case(
        "an invalid lane name ends the request that has not started",
        [
            send(),
            send(stream_id="ok"),
            created("r1", "a"),
            created("r2", "b", stream_id="ok"),
            send(stream_id="?"),
            error("c", "invalid_stream_id"),
            delta("d"),
        ],
        ["a d", "b", "c"],
    ),
    Case(
        "the age limit does not end a running response",
        [send(), created("r1", "a"), error("b", AGE_LIMIT), ended("r1", "c")],
        ["a c"],
        ["0 1 b"],
    ),
    Case(
        "the age limit ends a request that has not started",
        [send(), error("a", AGE_LIMIT)],
        ["a"],
    ),
    Case(
        "a bare error object is an error",
        [send(), {"dir": "recv", "frame": {"mark": "a", "error": "x"}}, send(), delta("b")],
        ["a", "b"],
    ),
    Case(
        "the error that answers an invalid message is left out",
        [send("nonsense"), error("a"), send(), created("r1", "b")],
        ["b"],
    ),
    Case(
        "a keepalive belongs to no request",
        [send(), created("r1", "a"), recv("keepalive", "b"), delta("c")],
        ["a c"],
        ["0 1 b"],
    ),
    Case(
        "frames before the first request go out before its answer",
        [recv("keepalive", "a"), send(), created("r1", "b")],
        ["b"],
        ["0 0 a"],
    ),
    Case(
        "a frame with half of a surrogate pair is read",
        [
            send(),
            {"dir": "recv", "text": '{"type": "response.completed", "x": "\\ud800"}', "size": 46},
            send(),
            delta("b"),
        ],
        ['{"type": "response.completed", "x": "\\ud800"}', "b"],
    ),
    Case(
        "text that is not JSON belongs to no request",
        [send(), created("r1", "a"), {"dir": "recv", "text": "{", "size": 1}, delta("b")],
        ["a b"],
        ["0 1 {"],
    ),
    Case(
        "a steered response and its successor answer one request",
        [
            send(),
            created("r1", "a"),
            steer("r1"),
            steer_event("accepted", "r1", "b", "s1"),
            ended("r1", "c", "incomplete"),
            created("r2", "d"),
            ended("r2", "e"),
            send(),
            created("r3", "f"),
        ],
        ["a b c d e", "f"],
    ),
    Case(
        "a refused steering input does not change the end of a request",
        [
            send(),
            created("r1", "a"),
            steer("r1"),
            steer_event("failed", "r1", "b"),
            ended("r1", "c"),
            send(),
            created("r2", "d"),
        ],
        ["a b c", "d"],
    ),
    Case(
        "an input that fails after the response ends the request",
        [
            send(),
            created("r1", "a"),
            steer("r1"),
            steer_event("accepted", "r1", "b", "s1"),
            ended("r1", "c"),
            steer_event("failed", "r1", "d", "s1"),
            send(),
            created("r2", "e"),
        ],
        ["a b c d", "e"],
    ),
    Case(
        "a pending input ends the request",
        [
            send(),
            created("r1", "a"),
            steer("r1"),
            steer_event("accepted", "r1", "b", "s1"),
            ended("r1", "c", output=[CALL]),
            steer_event("pending", "r1", "d", "s1"),
            send(previous_response_id="r1"),
            created("r2", "e"),
        ],
        ["a b c d", "e"],
    ),
    Case(
        "a pending input ends the request even if the next request continues no response",
        [
            send(),
            created("r1", "a"),
            steer("r1"),
            steer_event("accepted", "r1", "b", "s1"),
            ended("r1", "c", output=[CALL]),
            steer_event("pending", "r1", "d", "s1"),
            send(),
            steer_event("failed", "r1", "e", "s1"),
            created("r2", "f"),
        ],
        ["a b c d", "e f"],
    ),
    Case(
        "a second terminal event of a steered response belongs to no request",
        [
            send(),
            created("r1", "a"),
            steer("r1"),
            steer_event("accepted", "r1", "b", "s1"),
            ended("r1", "c", "incomplete"),
            ended("r1", "d", "incomplete"),
            created("r2", "e"),
        ],
        ["a b c e"],
        ["0 3 d"],
    ),
    Case(
        "early tool outputs take the place of a successor",
        [
            send(),
            created("r1", "a"),
            steer("r1"),
            steer_event("accepted", "r1", "b", "s1"),
            ended("r1", "c", output=[CALL]),
            send(previous_response_id="r1"),
            created("r2", "d"),
            ended("r2", "e"),
        ],
        ["a b c", "d e"],
    ),
    Case(
        "a request that continues a response without calls waits for the successor",
        [
            send(),
            created("r1", "a"),
            steer("r1"),
            steer_event("accepted", "r1", "b", "s1"),
            ended("r1", "c", "incomplete"),
            send(previous_response_id="r1"),
            created("r2", "d"),
            ended("r2", "e"),
            created("r3", "f"),
        ],
        ["a b c d e", "f"],
    ),
    Case(
        "a successor without response.created answers the same request",
        [
            send(),
            created("r1", "a"),
            steer("r1"),
            steer_event("accepted", "r1", "b", "s1"),
            ended("r1", "c", "incomplete"),
            ended("r2", "d"),
            send(),
            created("r3", "e"),
        ],
        ["a b c d", "e"],
    ),
    Case(
        "an error after a steered response ends the request",
        [
            send(),
            created("r1", "a"),
            steer("r1"),
            steer_event("accepted", "r1", "b", "s1"),
            ended("r1", "c", "incomplete"),
            error("d"),
            send(),
            created("r2", "e"),
        ],
        ["a b c d", "e"],
    ),
    Case(
        "a client error during a response refuses the steering input",
        [
            send(),
            created("r1", "a"),
            steer("r1"),
            error("b", "x", 400),
            delta("c"),
            ended("r1", "d"),
            send(),
            created("r2", "e"),
        ],
        ["a b c d", "e"],
    ),
    Case(
        "a client error without a steering input ends the request",
        [send(), created("r1", "a"), error("b", "x", 400), send(), created("r2", "c")],
        ["a b", "c"],
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.title)
def test_each_request_gets_its_frames(case: Case) -> None:
    requests = attribute(record(*case.lines)).requests
    assert [marks(request.frames) for request in requests] == case.frames
    extra = [
        f"{number} {place} {marks([frame])}"
        for number, request in enumerate(requests)
        for place, frame in request.extra_frames
    ]
    assert extra == case.extra


def test_each_steering_input_has_its_request_and_its_place() -> None:
    result = attribute(
        record(
            send(stream_id="x"),
            created("r1", "a", stream_id="x"),
            steer("r1"),
            delta("b", stream_id="x"),
            steer("r1"),
            steer("unknown"),
        )
    )
    (request,) = result.requests
    assert [(one.request, one.frames_before) for one in result.steers] == [
        (request, 1),
        (request, 2),
        (None, 0),
    ]


@pytest.mark.parametrize(
    ("code", "how"), [(None, "fin"), (1006, "fin"), (1005, 1000), (1000, 1000), (1011, 1011)]
)
def test_the_end_of_the_socket_belongs_to_the_request_with_the_last_frame(
    code: int | None, how: How
) -> None:
    close = {"dir": "close", "by": "server", "code": code, "reason": "r"}
    one, two = attribute(
        record(send(stream_id="x"), send(), delta("a", stream_id="x"), close)
    ).requests
    assert (two.close, one.close) == (None, _attribution.RecordedClose(how, "r", None))


def test_an_idle_socket_ends_some_time_after_the_last_frame() -> None:
    lines = [send(), ended("r1", "a"), {"dir": "close", "by": "server", "code": 1001, "t": 9.1}]
    (request,) = attribute(record(*lines)).requests
    assert request.close is not None
    assert request.close.idle_seconds == pytest.approx(9)
    assert request.phase is RecordedRequestPhase.DONE


def test_an_end_by_the_client_is_not_recorded() -> None:
    (request,) = attribute(record(send(), {"dir": "close", "by": "client", "code": 1000})).requests
    assert request.close is None


@given(st.data())
def test_interleaved_lanes_are_separated(data: st.DataObject) -> None:
    """A server that answers lanes concurrently, in any interleaving."""
    lanes = data.draw(st.lists(st.sampled_from(["a", "b", "c"]), unique=True, min_size=1))
    frames: dict[str, list[Line]] = {}
    expected: dict[str, list[str]] = {}
    for lane in lanes:
        counts = data.draw(st.lists(st.integers(0, 3), min_size=1, max_size=3))
        frames[lane], expected[lane] = [], []
        for number, count in enumerate(counts):
            name = f"{lane}{number}"
            answer = [created(name, f"{name}+", stream_id=lane)]
            answer += [delta(f"{name}.{n}", stream_id=lane) for n in range(count)]
            last = data.draw(st.sampled_from([ended(name, f"{name}-"), error(f"{name}-")]))
            last["frame"]["stream_id"] = lane
            frames[lane] += [*answer, last]
            expected[lane].append(marks([line["frame"] for line in (*answer, last)]))
    order = data.draw(st.permutations([lane for lane in lanes for _ in frames[lane]]))
    remaining = {lane: iter(frames[lane]) for lane in lanes}
    sent = [send(stream_id=lane) for lane in lanes for _ in expected[lane]]
    requests = attribute(record(*sent, *(next(remaining[lane]) for lane in order))).requests
    for lane in lanes:
        found = [marks(request.frames) for request in requests if request.lane == lane]
        assert found == expected[lane]


def test_the_attribution_does_not_use_the_code_of_the_client() -> None:
    """A routing error of the client must not confirm itself in a replay."""
    source = Path(_attribution.__file__).read_text(encoding="utf-8")
    imported = [
        node.module or ""
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("trio_responses")
    ]
    assert [name for name in imported if not name.startswith("trio_responses.testing")] == [
        "trio_responses._instruments.recording"
    ]
