"""Scripts: the answers and faults that a test sets for the next requests and handshakes.

An answer is the response to a request. A `Script` adds faults at places between the events of the
answer. A handshake fault replaces the answer to an upgrade. Invalid values raise at once, where the
test passes them, not when a request takes the script.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, Literal, Self, TypeAlias, TypedDict, final, get_args

import trio

from trio_responses.testing._frames import ErrorShape, Frame
from trio_responses.testing._records import Request
from trio_responses.testing._script_checks import (
    check_arguments,
    check_at_least,
    check_choice,
    check_code,
    check_connection_end,
    check_literal_fields,
    check_type,
    check_types,
    repr_without_defaults,
)

How: TypeAlias = Literal["reset", "fin"] | int
"""How a connection ends: with a TCP reset, a TCP FIN without a close frame, or a close code.

HTTP has no close codes: a code ends an HTTP connection with a FIN."""

CutEnd: TypeAlias = Literal["reset", "fin"]
"""How a connection ends in the middle of a write: with a TCP reset or a TCP FIN."""


# Answers


@dataclass(frozen=True, slots=True)
class Call:
    """A function call by the model."""

    name: str
    """The name of the function."""
    arguments: Mapping[str, Any] | str = "{}"
    """The arguments, an object; a string goes out unchanged and may be cut off or broken JSON."""
    _: KW_ONLY
    call_id: str | None = None
    """The ``call_id``; None lets the server generate one."""
    namespace: str | None = None
    """The namespace of the function; None for a function outside of every namespace."""
    unoffered: bool = False
    """Whether the call may name a function that the request does not offer. By default, such a call
    is a mistake of the test."""

    __repr__ = repr_without_defaults

    def __post_init__(self) -> None:
        """Raise on values that no model sends."""
        check_type("the name of a call", self.name, str)
        check_type("the namespace of a call", self.namespace, str, type(None))
        check_arguments(self.arguments)


@dataclass(frozen=True, slots=True)
class Reply:
    """A response of the model: reasoning, commentary, text, then calls, each only if given."""

    text: str | None = None
    """The text of the message; None sends no message."""
    _: KW_ONLY
    commentary: Sequence[str] = ()
    """The texts of messages before the text, with the ``phase`` ``commentary``."""
    phase: str | None = None
    """The ``phase`` of the message and of those in ``more``; None is ``final_answer`` after
    commentary, else no field."""
    more: Sequence[str] = ()
    """The texts of further messages, each an output item of its own."""
    calls: Sequence[Call] = ()
    """Function calls after the text, each an output item."""
    reasoning: str | None = None
    """The summary of a reasoning item."""
    chunks: Sequence[str] | None = None
    """The deltas of the text, in place of one delta per word; replaces ``text``."""
    chunk_size: int | None = None
    """The number of characters in each delta, in place of one delta per word."""
    delay: float = 0.0
    """Seconds between one event and the next."""
    usage: Mapping[str, int] = field(default_factory=dict[str, int])
    """Token counts in place of the counted ones: ``input_tokens``, ``cached_tokens``,
    ``output_tokens``, ``reasoning_tokens``."""
    status: Literal["completed", "incomplete", "failed"] = "completed"
    """The final status of the response."""
    reason: str = "max_output_tokens"
    """The reason of an incomplete response."""
    error: str = "server_error"
    """The error code of a failed response."""
    events: Literal["all", "deltas", "items", "terminal"] = "all"
    """The events to send: all of them; all but those that only set up or sum up; only
    ``response.created``, finished items and the terminal event; or the terminal event alone."""
    final_output: Literal["full", "empty", "null", "missing"] = "full"
    """The ``output`` of the response in the terminal event."""

    __repr__ = repr_without_defaults

    def __post_init__(self) -> None:
        """Raise on values of the wrong type, unknown choices and numbers that are too small."""
        check_type("the text of a reply", self.text, str, type(None))
        check_types("more", self.more, str)
        check_types("commentary", self.commentary, str)
        check_type("phase", self.phase, str, type(None))
        check_types("calls", self.calls, Call)
        check_types("chunks", self.chunks or (), str)
        check_at_least("chunk_size", self.chunk_size, 1)
        check_at_least("delay", self.delay, 0)
        check_literal_fields(self)


class ReplyOptions(TypedDict, total=False):
    """The fields of :class:`Reply` except its text, as keyword arguments."""

    commentary: Sequence[str]
    phase: str | None
    more: Sequence[str]
    calls: Sequence[Call]
    reasoning: str | None
    chunks: Sequence[str] | None
    chunk_size: int | None
    delay: float
    usage: Mapping[str, int]
    status: Literal["completed", "incomplete", "failed"]
    reason: str
    error: str
    events: Literal["all", "deltas", "items", "terminal"]
    final_output: Literal["full", "empty", "null", "missing"]


@dataclass(frozen=True, slots=True)
class Fail:
    """An answer that ends in an error.

    With ``after_events=0`` the error comes before ``response.created``, with 1 right after
    ``response.created``, and so on into the events of a reply with ``text``, which stops there.
    """

    code: str | None = "server_error"
    """``error.code``; None sends null."""
    _: KW_ONLY
    status: int | None = 500
    """The HTTP status in the frame; None leaves the field out."""
    message: str | None = None
    """``error.message``; None takes the default of the code."""
    param: str | None = None
    """``error.param``, such as ``previous_response_id``."""
    type: str | None = None
    """``error.type``; None takes the default of the status."""
    shape: ErrorShape = "nested"
    """The shape of the error on the wire."""
    headers: Mapping[str, str | int | float | bool] = field(default_factory=dict[str, Any])
    """``headers`` of the frame, such as ``retry-after``."""
    after_events: int = 0
    """The number of events of the response to send before the error."""
    text: str = "These words are cut short."
    """The text of the reply that the error cuts off."""

    __repr__ = repr_without_defaults

    def __post_init__(self) -> None:
        """Raise on unknown choices, and on an unknown code without a message."""
        check_code(self.code, message=self.message)
        check_literal_fields(self)


Answer: TypeAlias = Reply | Fail | Call | str | Sequence[Call] | Sequence[Frame]
"""The answer to a request; a string is a :class:`Reply` with that text."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """The recorded frames that answered a request, to be sent on any lane (``stream_id``)."""

    frames: Sequence[Frame]
    lane: str | None
    """The lane of the recorded request."""

    def on(self, lane: str | None) -> list[Frame]:
        """Return the frames with the ``stream_id`` of ``lane``.

        Frames without a ``stream_id`` stay so if the recorded request had a lane: the recorded
        server does not name lanes.
        """
        return [self._move_to_lane(frame, lane) for frame in self.frames]

    def _move_to_lane(self, frame: Frame, lane: str | None) -> Frame:
        if not isinstance(frame, Mapping) or lane == self.lane:
            return frame
        if self.lane is not None and "stream_id" not in frame:
            return frame
        moved = {name: value for name, value in frame.items() if name != "stream_id"}
        return moved if lane is None else {**moved, "stream_id": lane}


def check_answer(answer: Answer) -> None:
    """Raise unless a value is a valid answer of a script.

    :raises TypeError: With the allowed types.
    """
    check_type("an answer", answer, Reply, Fail, Call, str, Sequence)


Responder: TypeAlias = Callable[[Request], Answer | Awaitable[Answer]]
"""A function, sync or async, that returns the answer to a request. Exceptions of the function go to
``server.errors``."""


# Steps of a script


@dataclass(frozen=True, slots=True)
class Drop:
    """A step that ends the connection."""

    how: How
    reason: str = ""

    __repr__ = repr_without_defaults

    def __post_init__(self) -> None:
        """Raise on an unknown way to end, and on a code that no close frame carries."""
        check_connection_end(self.how)


@dataclass(frozen=True, slots=True)
class Stall:
    """A step that sends nothing on this lane (``stream_id``) for some seconds; None is forever."""

    seconds: float | None

    def __post_init__(self) -> None:
        """Raise on a negative time."""
        check_at_least("seconds", self.seconds, 0)


@dataclass(frozen=True, slots=True)
class Freeze:
    """A step that makes the connection half-open: open, but neither read nor written."""


@dataclass(frozen=True, slots=True)
class Inject:
    """A step that sends a frame which is not part of the answer."""

    frame: Frame


@dataclass(frozen=True, slots=True)
class SlowDown:
    """A step that makes the connection write a few bytes at a time."""

    piece: int | None
    delay: float

    def __post_init__(self) -> None:
        """Raise on an empty piece and on a negative time."""
        check_at_least("piece", self.piece, 1)
        check_at_least("delay", self.delay, 0)


@dataclass(frozen=True, slots=True)
class Hold:
    """A step that waits for a `trio.Event`."""

    until: trio.Event


@dataclass(frozen=True, slots=True)
class Cut:
    """A step that ends the connection after some more bytes."""

    size: int
    how: CutEnd

    def __post_init__(self) -> None:
        """Raise on a negative size and on an unknown way to end."""
        check_at_least("after_bytes", self.size, 0)
        check_choice("how", self.how, get_args(CutEnd))


@dataclass(frozen=True, slots=True)
class AddHeaders:
    """A step that adds headers to an HTTP answer."""

    headers: Mapping[str, str]


Step: TypeAlias = Cut | AddHeaders | Drop | Stall | Freeze | Inject | SlowDown | Hold


@dataclass(frozen=True, slots=True)
class DelayedClose:
    """The delayed end of a connection: some idle time after its last answer."""

    seconds: float
    """Seconds of idle time before the end. Another request meanwhile prevents the end."""
    end: Drop
    others: Sequence[trio.Event]
    """The answers that must have gone out before the idle time starts."""


# Handshake faults


@dataclass(frozen=True, slots=True, kw_only=True)
class HTTPAnswer:
    """An HTTP answer; as a handshake fault, in place of the upgrade or of the usual answer."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class HandshakeHang:
    """A handshake fault: the server reads the upgrade request and never answers."""


@dataclass(frozen=True, slots=True)
class HandshakeDrop:
    """A handshake fault: the server ends the connection in place of an answer."""

    how: Literal["fin", "reset"]

    def __post_init__(self) -> None:
        """Raise on an unknown way to end."""
        check_choice("how", self.how, ("fin", "reset"))


@dataclass(frozen=True, slots=True)
class HandshakeGarbage:
    """A handshake fault: the server answers with bytes that are not HTTP."""

    data: bytes


@dataclass(frozen=True, slots=True)
class HandshakeAcceptThenDrop:
    """A handshake fault: the server accepts the upgrade and ends the connection at once."""

    how: How
    reason: str = ""

    def __post_init__(self) -> None:
        """Raise on an unknown way to end, and on a code that no close frame carries."""
        check_connection_end(self.how)


HandshakeFault: TypeAlias = (
    HTTPAnswer | HandshakeHang | HandshakeDrop | HandshakeGarbage | HandshakeAcceptThenDrop
)


# The script itself

OnSteer: TypeAlias = Literal["interrupt", "finish", "fail"]
"""What a response does with accepted steering input: end before its next item, end after its
last item, or reject the input (docs/protocol.md 5.7). Calls are never cut off: they go out, and the
input waits for their outputs."""


@final
class Script:
    """An answer to one request, and faults between the events of the answer.

    A place is ``after_events``: the number of events of the response that the server has sent.
    Negative numbers count from the end (-1 is before the last event), None is after all events.
    Every method returns the script, so that calls can be chained::

        server.reply("one two three").stall(after_events=3, seconds=60)
    """

    def __init__(self, answer: Answer | Recorded | None = None) -> None:
        if answer is not None and not isinstance(answer, Recorded):
            check_answer(answer)
        self.answer = answer
        """The answer; None is the answer of the responder."""
        self.finished: trio.Event = trio.Event()
        """Set when the server has sent the answer, or has lost the connection meanwhile."""
        self.steered: OnSteer = "interrupt"
        """What the response does with accepted steering input."""
        self.steer_code: str = "successor_creation_failed"
        """The error code for rejected steering input."""
        self.delayed_close: DelayedClose | None = None
        """The later end of the connection, in a replay."""
        self._steps: list[tuple[int | None, Step]] = []
        self._lane: str | None = None
        self._any_lane = True
        self._for_warm_up = False

    def __repr__(self) -> str:
        """Return the answer, and each step with its place."""
        answer = "default answer" if self.answer is None else repr(self.answer)
        steps = [f"{step!r} at {'the end' if at is None else at}" for at, step in self._steps]
        return f"<Script: {', '.join([answer, *steps])}>"

    def on_lane(self, name: str | None) -> Self:
        """Keep this script for the next request on one lane, named by its ``stream_id``.

        None is the default lane.
        """
        self._lane, self._any_lane = name, False
        return self

    def for_warm_up(self) -> Self:
        """Keep this script for the next warm-up. Warm-ups take no other scripts."""
        self._for_warm_up = True
        return self

    def drop(self, *, after_events: int | None = 0, how: How = "reset", reason: str = "") -> Self:
        """End the connection after some events; ``reason`` is sent with a close code."""
        return self._add_step(after_events, Drop(how, reason))

    def stall(self, *, after_events: int | None = 0, seconds: float | None = None) -> Self:
        """Stop sending after some events, for some seconds or forever (None).

        Pings are answered.
        """
        return self._add_step(after_events, Stall(seconds))

    def half_open(self, *, after_events: int | None = 0) -> Self:
        """Stop reading and writing after some events, with the socket kept open.

        Pings get no answer.
        """
        return self._add_step(after_events, Freeze())

    def cut(self, *, after_bytes: int, how: CutEnd = "reset", after_events: int | None = 0) -> Self:
        """End the connection after some more bytes, which may be in the middle of an event.

        :param after_bytes: The number of bytes that the server writes to the connection before its
            end. Over HTTP, the head of the answer and the framing count as well.
        :param after_events: The number of events before the count of bytes begins.
        """
        return self._add_step(after_events, Cut(after_bytes, how))

    def with_headers(self, headers: Mapping[str, str]) -> Self:
        """Add headers to the HTTP answer, or replace them; over WebSocket, nothing happens.

        For example ``x-ratelimit-remaining-requests``, or a wrong ``content-type``. With
        ``content-encoding: gzip``, the body is compressed.
        """
        return self._add_step(0, AddHeaders(headers))

    def inject(self, frame: Frame, *, after_events: int | None = 0) -> Self:
        """Send an extra frame after some events: a keepalive, invalid JSON or a binary frame."""
        return self._add_step(after_events, Inject(frame))

    def slow_writes(
        self, *, piece: int | None = 1, delay: float = 0.01, after_events: int | None = 0
    ) -> Self:
        """Write ``piece`` bytes per ``delay`` seconds after some events; None: at full speed."""
        return self._add_step(after_events, SlowDown(piece, delay))

    def hold(self, until: "trio.Event | Script", *, after_events: int | None = -1) -> Self:
        """Wait after some events for a `trio.Event`, or for another script to finish."""
        event = until.finished if isinstance(until, Script) else until
        return self._add_step(after_events, Hold(event))

    def on_steer(self, how: OnSteer, *, code: str = "successor_creation_failed") -> Self:
        """Set what the response does with accepted steering input; by default, interrupt.

        An interruption skips the places after it, except None, which is after all events.

        :param how: ``interrupt`` ends the response before its next output item, ``finish`` after
            its last item, each with a successor; ``fail`` lets the response finish and rejects the
            input.
        :param code: ``error.code`` for ``fail``.
        """
        check_choice("how", how, get_args(OnSteer))
        self.steered, self.steer_code = how, code
        return self

    def _add_step(self, after_events: int | None, step: Step) -> Self:
        self._steps.append((after_events, step))
        return self

    def fits(self, request: Request) -> bool:
        """Whether ``request`` may take this script."""
        lane_fits = self._any_lane or request.lane == self._lane
        return lane_fits and request.is_warm_up == self._for_warm_up

    def steps_at(self, sent: int, total: int) -> list[Step]:
        """Return the steps for the place after ``sent`` of ``total`` events, in order."""
        return [step for place, step in self._steps if _resolve_place(place, total) == sent]


def _resolve_place(place: int | None, total: int) -> int:
    if place is None or place >= total:
        return total
    return max(place + total, 0) if place < 0 else place
