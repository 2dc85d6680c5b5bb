"""The words in which a test tells the server what to do: answers, and scripts of faults."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, Literal, Self, TypeAlias, TypedDict, final, get_args

import trio

from trio_responses.testing._frames import ErrorShape, Frame
from trio_responses.testing._records import Request
from trio_responses.testing._script_checks import (
    as_ordered,
    check_arguments,
    check_at_least,
    check_code,
    check_how,
    check_type,
    check_types,
    check_word,
    check_words,
)

How: TypeAlias = Literal["reset", "fin"] | int
"""How a connection ends: a TCP reset, a TCP end without a close frame, or a close code."""


@dataclass(frozen=True, slots=True)
class Call:
    """A function call by the model."""

    name: str
    """The function."""
    arguments: Mapping[str, Any] | str = "{}"
    """The arguments, an object; a string goes out as it is, and may break off or be broken."""
    _: KW_ONLY
    call_id: str | None = None
    """The ``call_id``; None lets the server make one."""
    unoffered: bool = False
    """Whether the request need not offer the function. An order to call one that it does not
    offer is a mistake of the test otherwise."""

    __repr__ = as_ordered

    def __post_init__(self) -> None:
        """Refuse what no model sends."""
        check_type("the name of a call", self.name, str)
        check_arguments(self.arguments)


@dataclass(frozen=True, slots=True)
class Reply:
    """A response of the model: reasoning, then text, then calls, each only if given."""

    text: str | None = None
    """The message; None for none."""
    _: KW_ONLY
    more: Sequence[str] = ()
    """Further messages after the text, each an output item of its own."""
    calls: Sequence[Call] = ()
    """Function calls behind the text, each an output item."""
    reasoning: str | None = None
    """The summary of a reasoning item."""
    chunks: Sequence[str] | None = None
    """The deltas of the text, in place of one a word; ``text`` may be left out then."""
    chunk_size: int | None = None
    """Characters a delta, in place of one delta a word."""
    delay: float = 0.0
    """Seconds between one event and the next."""
    usage: Mapping[str, int] = field(default_factory=dict[str, int])
    """Numbers in place of the counted ones: ``input_tokens``, ``cached_tokens``,
    ``output_tokens``, ``reasoning_tokens``."""
    status: Literal["completed", "incomplete", "failed"] = "completed"
    """How the response ends."""
    reason: str = "max_output_tokens"
    """Why it is incomplete."""
    error: str = "server_error"
    """The code with which it failed."""
    events: Literal["all", "deltas", "items", "terminal"] = "all"
    """Which events go out: all of them; without those that only set up or sum up; only
    created, finished items and the terminal one; or the terminal one alone."""
    final_output: Literal["full", "empty", "null", "missing"] = "full"
    """What the terminal event shows as ``output``."""

    __repr__ = as_ordered

    def __post_init__(self) -> None:
        """Refuse what is no text, no call, an unknown word, or a number that makes no sense."""
        check_type("the text of a reply", self.text, str, type(None))
        check_types("more", self.more, str)
        check_types("calls", self.calls, Call)
        check_types("chunks", self.chunks or (), str)
        check_at_least("chunk_size", self.chunk_size, 1)
        check_at_least("delay", self.delay, 0)
        check_words(self)


class ReplyOptions(TypedDict, total=False):
    """The fields of :class:`Reply` besides its text, as keywords."""

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
    """A request that ends in an error.

    ``after_events`` 0 is before ``response.created``, 1 right after it, and so on into the
    events of a reply with ``text``, which stops there.
    """

    code: str | None = "server_error"
    """``error.code``; None sends null."""
    _: KW_ONLY
    status: int | None = 500
    """The HTTP-like status of the frame; None leaves it out."""
    message: str | None = None
    """``error.message``; None is the usual one of the code."""
    param: str | None = None
    """``error.param``, such as ``previous_response_id``."""
    type: str | None = None
    """``error.type``; None is the usual one of the status."""
    shape: ErrorShape = "nested"
    """How the error is written on the wire."""
    headers: Mapping[str, str | int | float | bool] = field(default_factory=dict[str, Any])
    """``headers`` of the frame, such as ``retry-after``."""
    after_events: int = 0
    """How many events of the response go before it."""
    text: str = "These words are cut short."
    """The text of the reply that it cuts off."""

    __repr__ = as_ordered

    def __post_init__(self) -> None:
        """Refuse unknown words: a code that nobody knows needs a message."""
        check_code(self.code, message=self.message)
        check_words(self)


Answer: TypeAlias = Reply | Fail | Call | str | Sequence[Call] | Sequence[Frame]
"""What a request may be answered with; a string is a :class:`Reply` of that text."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """What was recorded for a request, for any lane that it comes on now."""

    frames: Sequence[Frame]
    lane: str | None
    """The lane that it was recorded on."""

    def on(self, lane: str | None) -> list[Frame]:
        """Return the frames for a lane; a server that named none in them still names none."""
        return [self._moved(frame, lane) for frame in self.frames]

    def _moved(self, frame: Frame, lane: str | None) -> Frame:
        if not isinstance(frame, Mapping) or lane == self.lane:
            return frame
        if self.lane is not None and "stream_id" not in frame:
            return frame
        moved = {name: value for name, value in frame.items() if name != "stream_id"}
        return moved if lane is None else {**moved, "stream_id": lane}


def check_answer(answer: Answer) -> None:
    """See that an answer is one.

    :raises TypeError: naming what it may be.
    """
    check_type("an answer", answer, Reply, Fail, Call, str, Sequence)


Responder: TypeAlias = Callable[[Request], Answer | Awaitable[Answer]]
"""What answers requests: called with each, sync or async. What it raises ends up in
``server.crashes``."""


@dataclass(frozen=True, slots=True)
class Drop:
    """End the connection."""

    how: How
    reason: str = ""

    __repr__ = as_ordered

    def __post_init__(self) -> None:
        """Refuse an unknown word, and what no close frame carries."""
        check_how(self.how)


@dataclass(frozen=True, slots=True)
class Stall:
    """Send nothing on this lane for some seconds, or for ever."""

    seconds: float | None

    def __post_init__(self) -> None:
        """Refuse time that runs backwards."""
        check_at_least("seconds", self.seconds, 0)


@dataclass(frozen=True, slots=True)
class Freeze:
    """Go half-open: keep the connection, and neither read nor write."""


@dataclass(frozen=True, slots=True)
class Inject:
    """Send a frame that is none of the response's."""

    frame: Frame


@dataclass(frozen=True, slots=True)
class SlowDown:
    """Write a few bytes at a time."""

    piece: int | None
    delay: float

    def __post_init__(self) -> None:
        """Refuse pieces of nothing, and time that runs backwards."""
        check_at_least("piece", self.piece, 1)
        check_at_least("delay", self.delay, 0)


@dataclass(frozen=True, slots=True)
class Hold:
    """Wait for something before going on."""

    until: trio.Event


@dataclass(frozen=True, slots=True)
class DelayedClose:
    """How a connection ends that owes no answer any more."""

    seconds: float
    """After how long, unless another request has come."""
    end: Drop
    others: Sequence[trio.Event]
    """What has to be answered before."""


Step: TypeAlias = Drop | Stall | Freeze | Inject | SlowDown | Hold


WhenSteered: TypeAlias = Literal["interrupt", "finish", "fail"]
"""What a response does with accepted steering input: end before its next item, end after its
last one, or give the input back (docs/protocol.md 5.7). Calls are never cut off: they go out, and
the input waits for their outputs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpRefusal:
    """An HTTP answer in place of the upgrade."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Hang:
    """Never answer the upgrade."""


@dataclass(frozen=True, slots=True)
class HangUp:
    """End the connection in place of an answer."""

    how: Literal["fin", "reset"]

    def __post_init__(self) -> None:
        """Refuse an unknown word."""
        check_word("how", self.how, ("fin", "reset"))


@dataclass(frozen=True, slots=True)
class Garbage:
    """Answer with bytes that are no HTTP."""

    data: bytes


@dataclass(frozen=True, slots=True)
class AcceptAndDrop:
    """Accept the upgrade and end the connection at once."""

    how: How
    reason: str = ""

    def __post_init__(self) -> None:
        """Refuse an unknown word, and what no close frame carries."""
        check_how(self.how)


HandshakeFault: TypeAlias = HttpRefusal | Hang | HangUp | Garbage | AcceptAndDrop


@final
class Script:
    """What happens to one request: an answer, and faults at places between its events.

    A place is ``after_events``: the number of events of the response that have gone out.
    Negative numbers count from the end (-1 is before the last event), None is after all.
    Every method returns the script, so that a script reads as one sentence::

        server.reply("one two three").stall(after_events=3, seconds=60)
    """

    def __init__(self, answer: Answer | Recorded | None = None) -> None:
        if answer is not None and not isinstance(answer, Recorded):
            check_answer(answer)
        self.answer = answer
        """The answer; None is what the server would answer without a script."""
        self.finished: trio.Event = trio.Event()
        """Set when the answer has gone out, or the connection is lost over it."""
        self.steered: WhenSteered = "interrupt"
        """What the response does when it is steered."""
        self.steer_code: str = "successor_creation_failed"
        """The code with which it gives steering input back."""
        self.parting: DelayedClose | None = None
        """How the connection ends later on, in a replay."""
        self._steps: list[tuple[int | None, Step]] = []
        self._lane: str | None = None
        self._any_lane = True
        self._for_warm_up = False

    def __repr__(self) -> str:
        """Say what happens and where."""
        answer = "the usual answer" if self.answer is None else repr(self.answer)
        steps = [f"{step!r} at {'the end' if at is None else at}" for at, step in self._steps]
        return f"<Script: {', '.join([answer, *steps])}>"

    def on_lane(self, name: str | None) -> Self:
        """Keep this script for the next request of one lane; None is the default lane."""
        self._lane, self._any_lane = name, False
        return self

    def for_warm_up(self) -> Self:
        """Keep this script for the next warm-up, which other scripts leave alone."""
        self._for_warm_up = True
        return self

    def drop(self, *, after_events: int | None = 0, how: How = "reset", reason: str = "") -> Self:
        """End the connection at that place; ``reason`` goes with a close code."""
        return self._at(after_events, Drop(how, reason))

    def stall(self, *, after_events: int | None = 0, seconds: float | None = None) -> Self:
        """Fall silent at that place, for some seconds or (None) for ever; pings are answered."""
        return self._at(after_events, Stall(seconds))

    def half_open(self, *, after_events: int | None = 0) -> Self:
        """Stop reading and writing at that place and keep the socket: pings go unanswered."""
        return self._at(after_events, Freeze())

    def inject(self, frame: Frame, *, after_events: int | None = 0) -> Self:
        """Send a frame of your own at that place: a keepalive, bad JSON, a binary frame."""
        return self._at(after_events, Inject(frame))

    def slow_writes(
        self, *, piece: int | None = 1, delay: float = 0.01, after_events: int | None = 0
    ) -> Self:
        """Write ``piece`` bytes every ``delay`` seconds from that place on; None ends it."""
        return self._at(after_events, SlowDown(piece, delay))

    def hold(self, until: "trio.Event | Script", *, after_events: int | None = -1) -> Self:
        """Wait at that place for an event, or for another script to finish."""
        event = until.finished if isinstance(until, Script) else until
        return self._at(after_events, Hold(event))

    def when_steered(self, how: WhenSteered, *, code: str = "successor_creation_failed") -> Self:
        """Say what the response does when it is steered; without this, it is interrupted.

        Places that an interruption leaves out are skipped; None stays the place after all.

        :param how: ``interrupt`` ends it before its next output item, ``finish`` after its last
            one, each with a successor; ``fail`` lets it finish and gives the input back.
        :param code: ``error.code`` of ``fail``.
        """
        check_word("how", how, get_args(WhenSteered))
        self.steered, self.steer_code = how, code
        return self

    def _at(self, after_events: int | None, step: Step) -> Self:
        self._steps.append((after_events, step))
        return self

    def fits(self, request: Request) -> bool:
        """Whether this script is meant for ``request``."""
        lane_fits = self._any_lane or request.lane == self._lane
        return lane_fits and request.is_warm_up == self._for_warm_up

    def steps_at(self, sent: int, total: int) -> list[Step]:
        """Return what happens when ``sent`` of ``total`` events have gone out, in order."""
        return [step for place, step in self._steps if _resolve(place, total) == sent]


def _resolve(place: int | None, total: int) -> int:
    if place is None or place >= total:
        return total
    return max(place + total, 0) if place < 0 else place
