"""The states of a request and of its steering inputs, as tables.

One ``response.create`` and everything that the server sends in answer to it is a *request*. It
has two states that are independent of each other, as an h11 connection has one for each side: the
progress of the server (`RequestState`) and whether events have a reader (`ReaderState`). Every
steering input has a state of its own (`SteerState`).

The three tables name every possible change. A trigger that a state does not list is a `KeyError`:
an error in this library, whatever the server sends. `request_table.py` maps each event of the
server to a trigger and a request.
"""

from __future__ import annotations

from enum import StrEnum, auto
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from msgspec import Raw

    from trio_responses._protocol.rate_limits import Reservation
    from trio_responses._wire import InputError, RequiredInput

__all__ = [
    "AWAITING",
    "ENDED",
    "UNANSWERED",
    "ActiveRequest",
    "ReaderState",
    "RequestState",
    "RequestTrigger",
    "SteerInput",
    "SteerState",
    "SteerTrigger",
]


# --- The progress of a request ------------------------------------------------------------
#
#     SENT ──► STARTED ──► DONE
#                 │ ▲
#                 ▼ │
#         AWAITING_SUCCESSOR, AWAITING_OUTPUTS ──► DONE
#
# The rules:
#
# 1. A response counts as started when ``response.created`` has stated its id. A response without
#    an id cannot be steered and its later events cannot be recognised: its request stays SENT.
#    A terminal event ends a response in every state, since some servers send nothing else.
#
# 2. A response that ends ends its request, unless the server has accepted steering inputs for it,
#    or has not answered them. Then the request waits for a successor: the next response of the
#    lane belongs to the same request. The request ends when the last of these inputs is settled
#    without a successor.
#
# 3. A response that ended with calls of client tools has a successor only after the client has
#    sent the outputs, in its next request. The server starts that response without a
#    ``response.steer.pending`` if the request arrives first (guide, "Steering"). So
#    AWAITING_OUTPUTS ends with the start of a request that continues its response.
#
# 4. An error ends a request. If a response had started, the request is CUT_OFF: the server may
#    still send events of that response. They belong to no request, until the next response of
#    the lane starts or ends.
#
# 5. A request that is withdrawn, or whose socket is closed, is LOST: no event will end it.


class RequestState(StrEnum):
    """The state of a request: how far the server has processed the request."""

    SENT = auto()
    """The request was written, or is being written, and no response has started."""
    STARTED = auto()
    """A response with an id has started."""
    AWAITING_SUCCESSOR = auto()
    """The response has ended; the server has yet to settle steering inputs for it."""
    AWAITING_OUTPUTS = auto()
    """Likewise, and the response has ended with calls of client tools."""
    CUT_OFF = auto()
    """An error has ended the request; the server may still send events of its response."""
    DONE = auto()
    """The server has ended the request."""
    LOST = auto()
    """The request was withdrawn, or its socket was closed before the server ended it."""


class RequestTrigger(StrEnum):
    """A trigger of the request state machine: an input that changes the state of a request."""

    CREATE = auto()
    """``response.created`` has stated the id of a response."""
    CREATE_WITHOUT_ID = auto()
    """``response.created`` was received, without an id."""
    END = auto()
    """The response has ended, and no steering input is unanswered."""
    END_STEERED = auto()
    """The response has ended, and steering inputs for it are unanswered."""
    END_WITH_CALLS = auto()
    """Likewise, and its output has calls of client tools."""
    SETTLE_STEERS = auto()
    """The last unanswered steering input was settled after the end of the response."""
    CONTINUE = auto()
    """The response of the next request has started: it has sent the outputs for the calls."""
    REFUSE = auto()
    """An ``error`` was received, and the request has no response with an id."""
    BREAK_OFF = auto()
    """An ``error`` was received, and the request has a response with an id."""
    FOLLOW = auto()
    """Another response of the lane has started, or another request of the lane has ended."""
    LOSE = auto()
    """The request was withdrawn, or its socket was closed."""
    ABANDON = auto()
    """The turn was left early, or has failed on the client's side."""


REQUEST_TRANSITIONS: Final[Mapping[RequestState, Mapping[RequestTrigger, RequestState]]] = {
    RequestState.SENT: {
        RequestTrigger.CREATE: RequestState.STARTED,
        RequestTrigger.CREATE_WITHOUT_ID: RequestState.SENT,
        RequestTrigger.END: RequestState.DONE,
        RequestTrigger.END_STEERED: RequestState.AWAITING_SUCCESSOR,
        RequestTrigger.END_WITH_CALLS: RequestState.AWAITING_OUTPUTS,
        RequestTrigger.REFUSE: RequestState.DONE,
        RequestTrigger.LOSE: RequestState.LOST,
    },
    RequestState.STARTED: {
        RequestTrigger.CREATE: RequestState.STARTED,
        RequestTrigger.CREATE_WITHOUT_ID: RequestState.SENT,
        RequestTrigger.END: RequestState.DONE,
        RequestTrigger.END_STEERED: RequestState.AWAITING_SUCCESSOR,
        RequestTrigger.END_WITH_CALLS: RequestState.AWAITING_OUTPUTS,
        RequestTrigger.BREAK_OFF: RequestState.CUT_OFF,
        RequestTrigger.LOSE: RequestState.LOST,
    },
    RequestState.AWAITING_SUCCESSOR: {
        RequestTrigger.CREATE: RequestState.STARTED,
        RequestTrigger.CREATE_WITHOUT_ID: RequestState.SENT,
        RequestTrigger.END: RequestState.DONE,
        RequestTrigger.END_STEERED: RequestState.AWAITING_SUCCESSOR,
        RequestTrigger.END_WITH_CALLS: RequestState.AWAITING_OUTPUTS,
        RequestTrigger.SETTLE_STEERS: RequestState.DONE,
        RequestTrigger.REFUSE: RequestState.DONE,
        RequestTrigger.BREAK_OFF: RequestState.CUT_OFF,
        RequestTrigger.LOSE: RequestState.LOST,
    },
    RequestState.AWAITING_OUTPUTS: {
        RequestTrigger.CREATE: RequestState.STARTED,
        RequestTrigger.CREATE_WITHOUT_ID: RequestState.SENT,
        RequestTrigger.END: RequestState.DONE,
        RequestTrigger.END_STEERED: RequestState.AWAITING_SUCCESSOR,
        RequestTrigger.END_WITH_CALLS: RequestState.AWAITING_OUTPUTS,
        RequestTrigger.SETTLE_STEERS: RequestState.DONE,
        RequestTrigger.CONTINUE: RequestState.DONE,
        RequestTrigger.REFUSE: RequestState.DONE,
        RequestTrigger.BREAK_OFF: RequestState.CUT_OFF,
        RequestTrigger.LOSE: RequestState.LOST,
    },
    RequestState.CUT_OFF: {
        RequestTrigger.FOLLOW: RequestState.DONE,
        RequestTrigger.LOSE: RequestState.DONE,
    },
    RequestState.DONE: {},
    RequestState.LOST: {},
}

AWAITING: Final = (RequestState.AWAITING_SUCCESSOR, RequestState.AWAITING_OUTPUTS)
"""The states in which the response has ended and the request has not."""
ENDED: Final = (RequestState.CUT_OFF, RequestState.DONE)
"""The states of a request that the server has ended."""


# --- The reader of a request --------------------------------------------------------------
#
# The server does not know that a turn was left: the request takes every step of the first table
# and its lane stays busy until the response ends. Only the events are discarded.


class ReaderState(StrEnum):
    """The state of a request's reader: none, reading, or abandoned."""

    NONE = auto()
    """A raw request: its events are delivered to the raw channel."""
    READING = auto()
    """A turn reads the events."""
    ABANDONED = auto()
    """The turn has ended before its response: its events are discarded."""


READER_TRANSITIONS: Final[Mapping[ReaderState, Mapping[RequestTrigger, ReaderState]]] = {
    ReaderState.NONE: {},
    ReaderState.READING: {RequestTrigger.ABANDON: ReaderState.ABANDONED},
    ReaderState.ABANDONED: {RequestTrigger.ABANDON: ReaderState.ABANDONED},
}


# --- Steering inputs ----------------------------------------------------------------------
#
#     SENT ──► ACCEPTED ──► COMMITTED
#                 │             ▲
#                 └──► PENDING ─┘      FAILED and UNKNOWN are reached from each of the three.
#
# The server owns an input from ``response.steer.accepted`` on. The input takes effect when a
# successor of its response starts, in one of two ways (guide, "Steering"): by itself, after the
# response was interrupted or has ended; or, if the response ended with calls of client tools,
# with the request that sends their outputs. Until then it is PENDING, and fails if no such
# request can come any more.
#
# If the response of an input breaks off, or the socket is closed, the input is UNKNOWN. In the
# first case the server may still report its outcome, until the next response of the lane starts.


class SteerState(StrEnum):
    """The state of a steering input."""

    SENT = auto()
    """The input was written, and the server has not answered."""
    ACCEPTED = auto()
    """The server owns the input and has not applied it."""
    PENDING = auto()
    """The input waits for a request that continues its response with the outputs of tools."""
    COMMITTED = auto()
    """A successor has started with the input."""
    FAILED = auto()
    """The input was refused or could not be committed: it had no effect."""
    UNKNOWN = auto()
    """The socket was closed, or the response broke off, before the server reported the outcome.
    In the latter case the server may still report that the input failed."""


class SteerTrigger(StrEnum):
    """A trigger of the steering state machine: changes the state of a steering input."""

    ACCEPT = auto()
    """The server has accepted the input."""
    WAIT = auto()
    """The input waits for the outputs of tools."""
    COMMIT = auto()
    """A successor has started with the input."""
    FAIL = auto()
    """The server has refused the input, or it was not written, or it cannot be committed."""
    LOSE = auto()
    """The response broke off, or the socket was closed."""


STEER_TRANSITIONS: Final[Mapping[SteerState, Mapping[SteerTrigger, SteerState]]] = {
    SteerState.SENT: {
        SteerTrigger.ACCEPT: SteerState.ACCEPTED,
        SteerTrigger.WAIT: SteerState.PENDING,
        SteerTrigger.FAIL: SteerState.FAILED,
        SteerTrigger.LOSE: SteerState.UNKNOWN,
    },
    SteerState.ACCEPTED: {
        SteerTrigger.ACCEPT: SteerState.ACCEPTED,
        SteerTrigger.WAIT: SteerState.PENDING,
        SteerTrigger.COMMIT: SteerState.COMMITTED,
        SteerTrigger.FAIL: SteerState.FAILED,
        SteerTrigger.LOSE: SteerState.UNKNOWN,
    },
    SteerState.PENDING: {
        SteerTrigger.ACCEPT: SteerState.ACCEPTED,
        SteerTrigger.WAIT: SteerState.PENDING,
        SteerTrigger.COMMIT: SteerState.COMMITTED,
        SteerTrigger.FAIL: SteerState.FAILED,
        SteerTrigger.LOSE: SteerState.UNKNOWN,
    },
    SteerState.COMMITTED: {},
    SteerState.FAILED: {},
    SteerState.UNKNOWN: {
        SteerTrigger.ACCEPT: SteerState.ACCEPTED,
        SteerTrigger.WAIT: SteerState.PENDING,
        SteerTrigger.FAIL: SteerState.FAILED,
        SteerTrigger.LOSE: SteerState.UNKNOWN,
    },
}

UNANSWERED: Final = (SteerState.SENT, SteerState.ACCEPTED)
"""The states in which a successor may start with the input at any moment."""


# --- The records that hold the states -----------------------------------------------------


class ActiveRequest:
    """One ``response.create`` that was sent, and the state of its response.

    `TurnAttempt` derives from this class. A raw request is an instance of the class itself.

    :param lane: the ``stream_id``; `None` for the default lane.
    :param parent: the ``previous_response_id`` of the request.
    :param reader: whether a turn reads the events.
    """

    __slots__ = (
        "lane",
        "parent",
        "reader",
        "reservation",
        "response_id",
        "state",
        "steers",
        "stored",
    )

    def __init__(
        self,
        lane: str | None = None,
        parent: str | None = None,
        reader: ReaderState = ReaderState.NONE,
    ) -> None:
        self.lane: str | None = lane
        """The ``stream_id``; `None` for the default lane."""
        self.parent: str | None = parent
        """The ``previous_response_id`` of the request."""
        self.response_id: str | None = None
        """The id of the response, or of its latest successor; `None` if no event stated one."""
        self.stored: bool = False
        """Whether the server has stored this response, so that every connection can continue it."""
        self.state: RequestState = RequestState.SENT
        """How far the server has come."""
        self.reader: ReaderState = reader
        """Whether the events have a reader."""
        self.steers: list[SteerInput] = []
        """All steering inputs for its responses, in the order in which they were sent."""
        self.reservation: Reservation | None = None
        """What the request has taken from the limits of a `RateLimiter`, if there is one."""

    @property
    def ended(self) -> bool:
        """Whether the server has ended the request. `False` for one that was lost."""
        return self.state in ENDED

    @property
    def abandoned(self) -> bool:
        """Whether the events of the request are discarded."""
        return self.reader is ReaderState.ABANDONED

    @property
    def has_unanswered_steers(self) -> bool:
        """Whether a steering input may still start a successor of the response."""
        return any(steer.state in UNANSWERED for steer in self.steers)

    def advance(self, trigger: RequestTrigger) -> None:
        """Change the state of the request, as `REQUEST_TRANSITIONS` defines."""
        self.state = REQUEST_TRANSITIONS[self.state][trigger]

    def abandon(self) -> None:
        """Discard the remaining events of the request, whose response keeps its lane busy."""
        self.reader = READER_TRANSITIONS[self.reader][RequestTrigger.ABANDON]


class SteerInput:
    """One steering input and its state. `SteerReceipt` derives from this class.

    :param request: the request whose response the input steers.
    :param items: the messages, as raw JSON.
    """

    def __init__(self, request: ActiveRequest, items: list[Raw]) -> None:
        self.request: ActiveRequest = request
        """The request whose response the input steers."""
        self.parent: str | None = request.response_id
        """The id of that response."""
        self.items: list[Raw] = items
        """The messages, as raw JSON."""
        self.id: str | None = None
        """The id that the server gave to the input, from ``accepted`` on."""
        self.state: SteerState = SteerState.SENT
        """The state of the input."""
        self.error: InputError | None = None
        """Why the input failed, if the server stated a reason."""
        self.required_input: tuple[RequiredInput, ...] = ()
        """The tool outputs that a ``pending`` input waits for."""
        self.successor: str | None = None
        """The id of the response that started with the input, once it is ``committed``."""

    def advance(self, trigger: SteerTrigger) -> None:
        """Change the state of the steering input, as `STEER_TRANSITIONS` defines."""
        self.state = STEER_TRANSITIONS[self.state][trigger]
