"""What became of each steering input: the ``response.steer`` of one socket, oldest first.

A steering input is owned by the server from its ``response.steer.accepted`` on, and takes effect
with the ``response.created`` of a successor (guide, "Steering")::

    sent ──► accepted ──► committed           the response was interrupted, or ended by itself
      │          ├──────► pending ──► committed     it waits for tool outputs that the client owes
      │          │            └─────► failed
      └──────────┴──────────────────► failed

So a response that ends does not end its request while an input for it is sent or accepted: a
successor may follow on the same lane. One that is pending ends it, since the server waits for
the next request then.

What belongs elsewhere: whose event it is (`lanes.py`), how a user learns of it
(`turns/steering.py`).
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Final

from trio_responses.wire import InputError, SteerAccepted, SteerPending

if TYPE_CHECKING:
    from msgspec import Raw

    from trio_responses.core.lanes import Request
    from trio_responses.wire import ErrorEvent, RequiredInput, SteerFailed

__all__ = ["SteerState", "Steering", "Submission"]

CLIENT_ERRORS: Final = range(400, 500)


class SteerState(StrEnum):
    """How far a steering input has come."""

    SENT = "sent"
    """It was written, and the server has not answered."""
    ACCEPTED = "accepted"
    """The server owns it; nothing is applied yet."""
    PENDING = "pending"
    """It waits for outputs of tools, in a request that continues its response."""
    COMMITTED = "committed"
    """A successor has begun with it."""
    FAILED = "failed"
    """It was refused, or could not be committed: it has had no effect."""
    UNKNOWN = "unknown"
    """The socket ended, or its response broke off, before the server said. In the latter case the
    server may still say that it failed."""


OWED: Final = frozenset({SteerState.SENT, SteerState.ACCEPTED})
"""The states in which the server owes the next word."""


class Submission:
    """One steering input on its way. `SteerReceipt` derives from it."""

    def __init__(self, request: Request, items: list[Raw]) -> None:
        self.request: Request = request
        """The request whose response it steers."""
        self.parent: str | None = request.response_id
        """That response."""
        self.items: list[Raw] = items
        """The messages, as raw JSON."""
        self.id: str | None = None
        """The server's name for it, from ``accepted`` on."""
        self.state: SteerState = SteerState.SENT
        """How far it has come."""
        self.error: InputError | None = None
        """Why it failed, where the server said it."""
        self.required_input: tuple[RequiredInput, ...] = ()
        """What it waits for, while it is pending."""
        self.successor: str | None = None
        """The response that began with it, once it is committed."""

    def become(self, state: SteerState) -> None:
        """Note a new state."""
        self.state = state


class Steering:
    """The steering inputs of one socket that are not settled."""

    def __init__(self) -> None:
        self._open: list[Submission] = []

    def submit(self, submission: Submission) -> None:
        """Note an input: before its bytes go out."""
        self._open.append(submission)
        submission.request.steers.append(submission)

    def withdraw(self, submission: Submission) -> None:
        """Take back one that did not go out."""
        if submission in self._open:
            self._settle(submission, SteerState.FAILED)

    def owes(self, request: Request) -> bool:
        """Whether a successor of the request's response may follow unasked."""
        return any(one.request is request and one.state in OWED for one in self._open)

    def awaits(self, lane: str | None) -> str | None:
        """Give the response that the next request of a lane has to continue, if there is one."""
        pending = (one for one in self._open if one.state is SteerState.PENDING)
        return next((one.parent for one in pending if one.request.lane == lane), None)

    def find(self, event: SteerAccepted | SteerPending | SteerFailed) -> Submission | None:
        """Find the input that an event is about: by its id, or the oldest that was not answered."""
        for one in self._open:
            if one.id is not None and one.id == event.steer.id:
                return one
        parent, lane = event.steer.previous_response_id, event.stream_id
        sent = [one for one in self._open if one.state is SteerState.SENT]
        if parent:
            return next((one for one in sent if one.parent == parent), None)
        own = (one for one in sent if one.request.lane == lane)
        return next(own, sent[0] if sent and lane is None else None)

    def note(
        self, submission: Submission, event: SteerAccepted | SteerPending | SteerFailed
    ) -> None:
        """Note what the server says of an input."""
        submission.id = event.steer.id or submission.id
        match event:
            case SteerAccepted():
                submission.become(SteerState.ACCEPTED)
            case SteerPending():
                submission.required_input = tuple(event.required_input or ())
                submission.become(SteerState.PENDING)
            case _:
                submission.error = event.error
                self._settle(submission, SteerState.FAILED)

    def refuse(self, request: Request, event: ErrorEvent) -> bool:
        """Take an error as the answer to an input, where it can be no other's.

        Behind the end of a response it says that there is no successor. In its midst, a client's
        error is not about the response, which has begun: that is how servers answer that know
        no steering.

        :return: whether it was one.
        """
        client_error = event.status in CLIENT_ERRORS or event.error_type == "invalid_request_error"
        if request.answered:
            refused = [one for one in self._open if one.request is request and one.state in OWED]
        elif request.response_id is not None and client_error:
            sent = (one for one in self._open if one.state is SteerState.SENT)
            refused = [one for one in sent if one.request is request][:1]
        else:
            refused = []
        for one in refused:
            one.error = InputError(code=event.code, message=event.message, type=event.error_type)
            self._settle(one, SteerState.FAILED)
        return bool(refused)

    def break_off(self, request: Request) -> None:
        """Note that a response broke off: what it owes an answer to may never get one."""
        for one in self._open:
            if one.request is request and one.state in OWED:
                one.become(SteerState.UNKNOWN)

    def wait(self, request: Request) -> None:
        """Note that the inputs of a response wait for outputs, which are on their way."""
        for one in self._open:
            if one.request is request and one.state is SteerState.ACCEPTED:
                one.become(SteerState.PENDING)

    def commit(self, request: Request, successor: str | None) -> None:
        """Note that a response has begun, with all inputs that were there for it."""
        for one in list(self._open):
            follows = one.request is request and one.state is SteerState.ACCEPTED
            continues = (
                one.state is SteerState.PENDING
                and one.request.lane == request.lane
                and one.parent == request.parent
            )
            if follows or continues:
                one.successor = successor
                self._settle(one, SteerState.COMMITTED)
            elif one.request.lane == request.lane and one.state is SteerState.UNKNOWN:
                self._open.remove(one)  # the server says no more of what broke off

    def lose(self, continued: set[str | None]) -> None:
        """Note that the socket is gone.

        :param continued: the parents of the requests that were under way: what waited for one
            of those may have been committed, what waited for another cannot.
        """
        for one in list(self._open):
            certain = one.state is SteerState.PENDING and one.parent not in continued
            self._settle(one, SteerState.FAILED if certain else SteerState.UNKNOWN)

    def _settle(self, submission: Submission, state: SteerState) -> None:
        self._open.remove(submission)
        submission.become(state)
