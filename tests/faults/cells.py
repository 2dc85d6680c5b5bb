"""One cell of the fault matrix: where something goes wrong, and what becomes of it.

The expectations are those of the promises (docs/promises.md), in the times of a default policy
without jitter. `openings.py`, `losses.py` and `endings.py` list the cells, `servers.py` and
`faults.py` play them, `rig.py` looks at what comes of it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from trio_responses import ConnectionLost, Keepalive, ReconnectPolicy, Timeouts

if TYPE_CHECKING:
    from tests.faults.servers import Seat
    from trio_responses import DeliveryStatus, ResponsesError, SteerState

TIMEOUTS: Final = Timeouts(connect=15.0, send=30.0, first_event=60.0, stall=600.0, close=5.0)
KEEPALIVE: Final = Keepalive(interval=20.0, timeout=20.0)
STEADY: Final = ReconnectPolicy(jitter=0.0)
DELAYS: Final = tuple(STEADY.delays())
THE_TURN: Final = "this one"
"""What the turn says that meets the fault."""

Strike: TypeAlias = Callable[["Seat"], Awaitable[object]]
"""What a server does wrong."""
Way: TypeAlias = Literal["stream", "conversation", "channel", "create"]
"""How the turn is run."""
ALL_WAYS: Final[tuple[Way, ...]] = ("stream", "conversation", "channel")


@dataclass(frozen=True, slots=True)
class Span:
    """A time that is expected, in seconds, and what it is called."""

    seconds: float
    words: str
    at_most: bool = False
    """Whether it may be shorter."""


AT_ONCE: Final = Span(0.0, "at once")
CONNECT: Final = Span(TIMEOUTS.connect, "`timeouts.connect`")
SEND: Final = Span(TIMEOUTS.send, "`timeouts.send`")
FIRST_EVENT: Final = Span(TIMEOUTS.first_event, "`timeouts.first_event`")
STALL: Final = Span(TIMEOUTS.stall, "`timeouts.stall`")
PING: Final = Span(KEEPALIVE.interval, "`keepalive.interval`")
DEAD: Final = Span(KEEPALIVE.interval + KEEPALIVE.timeout, "`keepalive`: interval and timeout")
CLOSE: Final = Span(TIMEOUTS.close, "`timeouts.close`")
WITHIN_CLOSE: Final = Span(TIMEOUTS.close, "within `timeouts.close`", at_most=True)


# --- While a socket is being opened -----------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """A fault on the way to an open socket, met once or for good, at first or after a loss."""

    phase: str
    fault: str
    server: Strike | None = None
    """What the server, or the proxy, does instead of what it should."""
    dial: Callable[[], Awaitable[object]] | None = None
    """What the dial does instead of opening a stream."""
    error: type[ResponsesError] | None
    """What one attempt fails with; `None` where it is just slow."""
    status: int | None = None
    """The HTTP status on the exception."""
    retried: bool = True
    takes: Span = AT_ONCE
    """How long one attempt takes."""
    retry_after: float | None = None
    """What the server asks for, in seconds."""

    @property
    def name(self) -> str:
        return f"{self.phase}: {self.fault}"

    @property
    def passes(self) -> bool:
        """Whether a second attempt is made, or none is needed."""
        return self.retried and (self.retry_after or 0.0) <= STEADY.max_retry_after


# --- While a socket is open -------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Then:
    """What the connection does behind a fault."""

    words: str
    sockets: int
    """How many it has opened, with the one that met the fault."""
    delay: float = 0.0
    """Seconds from the loss to the next socket."""
    ended_by: type[ResponsesError] | None = None
    """What it has ended with."""


SAME: Final = Then("goes on", 1)
OVER: Final = Then("ended, with that close", 1, ended_by=ConnectionLost)
IDLE: Final = "idle"
SENDING: Final = "sending"
BEFORE: Final = "before the first event"
MID_STREAM: Final = "mid-stream"
TERMINAL: Final = "terminal"
FRESH: Final = Then("a new socket, at once", 2)
REOPENED: Final = Then("a new socket, after the first delay", 2, DELAYS[0])


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """A fault of an open socket, and what a turn, the connection and the server see of it."""

    phase: str
    fault: str
    strike: Strike
    """What the server does when the turn's request, or in the idle phase the moment, has come."""
    raises: type[ResponsesError] | None = None
    """What the turn raises; `None` where it ends with its Response."""
    delivery: DeliveryStatus | None = None
    after: Span = AT_ONCE
    """From the fault to the turn's end; in the idle phase, until the fault is noticed."""
    then: Then = SAME
    repeated: bool = False
    """Whether the request goes out again by default: what cannot have run."""
    at_least_once: bool = False
    """Whether it goes out again under ``"at_least_once"``."""
    delayed: float = 0.0
    """The longest delay before it goes out again; the delay is up to a quarter shorter."""
    lost: int | None = None
    """The close code that the channel is told of."""
    status: str = "completed"
    """The status of the Response, where there is one."""
    ways: tuple[Way, ...] = ("stream", "conversation")
    capacity: int | None = None
    """Bytes that the network holds before a writer has to wait."""
    large: bool = False
    """Whether the request is larger than that."""
    cut_off: bool = False
    """Whether the request did not come in whole, although it was not sent again."""
    silent_after_error: bool = False
    """Whether the endpoint's sockets are not used again behind an error frame."""

    @property
    def name(self) -> str:
        return f"{self.phase}: {self.fault}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Steered:
    """A fault while a response is steered: what becomes of the turn and of what was put in."""

    fault: str
    strike: Strike
    """What the server does from the turn's request on."""
    receipt: SteerState
    raises: type[ResponsesError] | None = None
    delivery: DeliveryStatus | None = None
    responses: int = 1
    """How many Responses the turn ends with, where it ends well."""
    after: Span = AT_ONCE
    then: Then = SAME
    at_least_once: bool = False
    delayed: float = 0.0
    phase: str = "steering"

    @property
    def name(self) -> str:
        return f"{self.phase}: {self.fault}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Closing:
    """A fault while the connection is left, with a turn under way or without one."""

    fault: str
    strike: Strike
    """What the server does when the client's close frame has come, or in place of reading it."""
    after: Span = AT_ONCE
    """How long leaving takes."""
    reads: bool = True
    """Whether the server reads the close frame."""
    capacity: int | None = None
    phase: str = "closing"

    @property
    def name(self) -> str:
        return f"{self.phase}: {self.fault}"
