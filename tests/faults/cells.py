"""The cells of the fault matrix: a fault in a phase, and the results that are expected.

The expectations are those of docs/promises.md, with the times of the default policy without jitter.
Each phase has a module that lists its cells. `servers.py` and `faults.py` are the server of a cell,
`opening_runs.py`, `turn_runs.py` and `other_runs.py` run the cells.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from trio_responses import (
    ConnectionLost,
    Keepalive,
    ReconnectPolicy,
    Timeouts,
    UpgradeUnsupported,
)

if TYPE_CHECKING:
    from tests.faults.servers import ServerPeer
    from tests.transport.http_peer import HTTPPeer, Script
    from trio_responses import DeliveryStatus, ResponsesError, SteerState

TIMEOUTS: Final = Timeouts(connect=15.0, send=30.0, first_event=60.0, stall=600.0, close=5.0)
KEEPALIVE: Final = Keepalive(interval=20.0, timeout=20.0)
STEADY: Final = ReconnectPolicy(jitter=0.0)
DELAYS: Final = tuple(STEADY.delays())
THE_TURN: Final = "this one"
"""The input of the turn that meets the fault."""

Action: TypeAlias = Callable[["ServerPeer"], Awaitable[object]]
"""The fault: a function of the server's end of a socket."""
Way: TypeAlias = Literal["stream", "conversation", "channel", "create"]
"""The method that runs the turn."""
ALL_WAYS: Final[tuple[Way, ...]] = ("stream", "conversation", "channel")


@dataclass(frozen=True, slots=True)
class Span:
    """An expected time in seconds, and its name in docs/faults.md."""

    seconds: float
    words: str
    at_most: bool = False
    """Whether a shorter time is as good."""


AT_ONCE: Final = Span(0.0, "at once")
CONNECT: Final = Span(TIMEOUTS.connect, "`timeouts.connect`")
SEND: Final = Span(TIMEOUTS.send, "`timeouts.send`")
FIRST_EVENT: Final = Span(TIMEOUTS.first_event, "`timeouts.first_event`")
STALL: Final = Span(TIMEOUTS.stall, "`timeouts.stall`")
PING: Final = Span(KEEPALIVE.interval, "`keepalive.interval`")
DEAD: Final = Span(KEEPALIVE.interval + KEEPALIVE.timeout, "`keepalive`: interval and timeout")
CLOSE: Final = Span(TIMEOUTS.close, "`timeouts.close`")
UNANSWERED: Final = Span(5.0, "after 5 s")
WITHIN_CLOSE: Final = Span(TIMEOUTS.close, "within `timeouts.close`", at_most=True)


# --- While a socket is being opened -----------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """A fault while a socket is opened: once or for good, at first or after a loss."""

    phase: str
    fault: str
    server: Action | None = None
    """The fault of the server or the proxy, in place of its normal answer."""
    dial: Callable[[], Awaitable[object]] | None = None
    """The fault of the dial function, in place of a stream."""
    error: type[ResponsesError] | None
    """The exception of one attempt; `None` where the attempt succeeds slowly."""
    status: int | None = None
    """The HTTP status on the exception."""
    retried: bool = True
    takes: Span = AT_ONCE
    """The time that one attempt takes."""
    retry_after: float | None = None
    """The value of `Retry-After`, in seconds."""

    @property
    def name(self) -> str:
        return f"{self.phase}: {self.fault}"

    @property
    def passes(self) -> bool:
        """Whether a second attempt is made, or none is needed."""
        return self.retried and (self.retry_after or 0.0) <= STEADY.max_retry_after

    @property
    def over(self) -> Span | None:
        """When the first connect of ``transport="auto"`` uses HTTP instead; `None` for never."""
        if self.error is UpgradeUnsupported:
            return AT_ONCE
        slow = self.phase == "upgrade" and self.takes.seconds > UNANSWERED.seconds
        return UNANSWERED if slow else None


# --- While a socket is open -------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Then:
    """The result of a fault for the connection."""

    words: str
    sockets: int
    """The number of sockets opened, the one that met the fault included."""
    delay: float = 0.0
    """Seconds from the loss to the next socket."""
    ended_by: type[ResponsesError] | None = None
    """The exception that ended the connection; `None` where it goes on."""


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
    """A fault of an open socket, and its results for a turn, the connection and the server."""

    phase: str
    fault: str
    action: Action
    """The fault: when the turn's request comes, or in the idle phase at once."""
    raises: type[ResponsesError] | None = None
    """The exception of the turn; `None` where it ends with its Response."""
    delivery: DeliveryStatus | None = None
    after: Span = AT_ONCE
    """From the fault to the turn's end; in the idle phase, until the fault is noticed."""
    then: Then = SAME
    repeated: bool = False
    """Whether the request is sent again by default, because it cannot have run."""
    at_least_once: bool = False
    """Whether the request is sent again with ``"at_least_once"``."""
    delayed: float = 0.0
    """The longest delay before it is sent again; the delay is up to a quarter shorter."""
    lost: int | None = None
    """The close code of the `ConnectionLost` on the channel."""
    status: str = "completed"
    """The status of the Response, where there is one."""
    ways: tuple[Way, ...] = ("stream", "conversation")
    capacity: int | None = None
    """Bytes that the network holds before a writer has to wait."""
    large: bool = False
    """Whether the request is larger than the capacity."""
    cut_off: bool = False
    """Whether the request was received in part only, and not sent again."""
    silent_after_error: bool = False
    """Whether the endpoint replaces a socket after an error frame."""

    @property
    def name(self) -> str:
        return f"{self.phase}: {self.fault}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Steered:
    """A fault while a response is steered, and its results for the turn and the steering input."""

    fault: str
    action: Action
    """The actions of the server from the turn's request on."""
    receipt: SteerState
    raises: type[ResponsesError] | None = None
    delivery: DeliveryStatus | None = None
    responses: int = 1
    """The number of Responses of a turn that ends well."""
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
    """A fault while the connection is closed, with or without a turn under way."""

    fault: str
    action: Action
    """The fault: when the client's close frame comes, or in place of reading it."""
    after: Span = AT_ONCE
    """The time that closing takes."""
    reads: bool = True
    """Whether the server reads the close frame."""
    capacity: int | None = None
    phase: str = "closing"

    @property
    def name(self) -> str:
        return f"{self.phase}: {self.fault}"


# --- Over HTTP --------------------------------------------------------------------------------

HTTPConnectionKind: TypeAlias = Literal["new", "kept alive"]
"""Whether the request that meets the fault is the first one on its HTTP connection."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HTTPCell:
    """A fault of one exchange over HTTP, and its results for the turn and the HTTP connection."""

    phase: str
    fault: str
    script: Script | None = None
    """The fault: when the turn's request was received; `None` for the normal answer."""
    arrange: Callable[[HTTPPeer], object] | None = None
    """The fault: before the turn's request is sent."""
    raises: type[ResponsesError] | None = None
    """The exception of the turn; `None` where it ends with its Response."""
    delivery: DeliveryStatus | None = None
    after: Span = AT_ONCE
    """From the request to the turn's end."""
    streams: int = 1
    """The number of HTTP connections opened, up to the next turn."""
    repeated: bool = False
    """Whether the request is sent again by default, because it cannot have run."""
    at_least_once: bool = False
    """Whether the request is sent again with ``"at_least_once"``."""
    delayed: float = 0.0
    """The longest delay before it is sent again; the delay is up to a quarter shorter."""
    received: bool = True
    """Whether the server receives the request whole before the fault."""
    status: str = "completed"
    """The status of the Response, where there is one."""
    kinds: tuple[HTTPConnectionKind, ...] = ("new", "kept alive")
    capacity: int | None = None
    """Bytes that the network holds before a writer has to wait."""

    @property
    def name(self) -> str:
        return f"{self.phase}: {self.fault}"


@dataclass(frozen=True, slots=True, kw_only=True)
class HTTPClosing:
    """The state of an exchange in which the connection is closed."""

    state: str
    script: Script | None = None
    """What the server does with the request; `None` for the normal answer."""
    arrange: Callable[[HTTPPeer], object] | None = None
    """What is done before the request is sent."""
    options: dict[str, Any] = field(default_factory=dict[str, Any])
    """Options of the connection."""
    params: dict[str, Any] = field(default_factory=dict[str, Any])
    """Parameters of the turn."""
    delivery: DeliveryStatus | None = None
    """The delivery of the turn that is ended; `None` where it has its Response."""
    after: Span = AT_ONCE
    """The time that closing takes."""
    capacity: int | None = None
    asked: bool = True
    """Whether a turn is started."""
