"""The delivery status of a request, and the decision whether a request may be sent again.

Exactly-once delivery does not exist on this wire: a request that was written and not answered
may have run, and may have been billed. So each failure states how far the request came
(`DeliveryStatus`), and only a request that provably did not run is sent again unless the caller
chooses ``at_least_once``:

=================  ==============  ==============  ==============  ==============
failure            ``not_sent``    ``rejected``    ``ambiguous``   ``accepted``
=================  ==============  ==============  ==============  ==============
connection lost    again                           if chosen       if chosen
timed out                                          if chosen       if chosen
connection limit                   again           if chosen       if chosen
rate limited                       again           if chosen       if chosen
server error                       if chosen       if chosen       if chosen
any other          raised          raised          raised          raised
=================  ==============  ==============  ==============  ==============

A rate limit and an error of the server need time to pass, so the next attempt waits
(`needs_delay`, and `retry_delay` in `backoff.py`). All other failures are repeated at once, on
another socket.
"""

from __future__ import annotations

from enum import Enum, StrEnum, auto
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from trio_responses._wire import ErrorEvent

__all__ = [
    "CLIENT_ERRORS",
    "DeliveryMode",
    "DeliveryStatus",
    "Failure",
    "delivery_of_error",
    "furthest",
    "may_resend",
    "needs_delay",
]


class DeliveryStatus(StrEnum):
    """How far a request is known to have come when its turn failed."""

    NOT_SENT = "not_sent"
    """No complete request was handed to the network: the server cannot have run it."""
    AMBIGUOUS = "ambiguous"
    """The request was written and no answer was received: it may have run."""
    ACCEPTED = "accepted"
    """An event of its response was received: it ran, at least in part."""
    REJECTED = "rejected"
    """The server stated that it did not start the request."""


class Failure(Enum):
    """The kind of failure that ended an attempt, for the decision whether to send again."""

    CONNECTION_LOST = auto()
    """The socket was lost."""
    CONNECTION_LIMIT = auto()
    """The server ended the socket because of its age."""
    TIMED_OUT = auto()
    """No event was received within a deadline."""
    RATE_LIMITED = auto()
    """The account sent too many requests or tokens in a period of time."""
    SERVER_ERROR = auto()
    """The server is overloaded or failed: the same request may succeed later."""
    OTHER = auto()
    """The same request would fail again: a refusal, a used-up quota, or a limit of this library."""


DeliveryMode: TypeAlias = Literal["at_most_once", "at_least_once"]
"""What to do with a request whose outcome is unknown."""

CLIENT_ERRORS: Final = range(400, 500)
REFUSING_STATUSES: Final = range(300, 500)
"""The statuses that are sent in place of a start; a redirect is not followed."""
REFUSALS: Final = frozenset(
    {
        "invalid_stream_id",
        "previous_response_not_found",
        "rate_limit_exceeded",
        "too_many_requests",
        "websocket_connection_limit_reached",
        "websocket_stream_limit_reached",
    }
)
"""Error codes that are sent in place of a start, whatever their status (docs/protocol.md, 4)."""

RESENT_ALWAYS: Final[Mapping[Failure, frozenset[DeliveryStatus]]] = {
    Failure.CONNECTION_LOST: frozenset({DeliveryStatus.NOT_SENT}),
    Failure.CONNECTION_LIMIT: frozenset({DeliveryStatus.REJECTED}),
    Failure.RATE_LIMITED: frozenset({DeliveryStatus.REJECTED}),
}
"""The failures after which a request is sent again in any case: it cannot have run."""
RESENT_IF_CHOSEN: Final[Mapping[Failure, frozenset[DeliveryStatus]]] = {
    Failure.CONNECTION_LOST: frozenset({DeliveryStatus.AMBIGUOUS, DeliveryStatus.ACCEPTED}),
    Failure.TIMED_OUT: frozenset({DeliveryStatus.AMBIGUOUS, DeliveryStatus.ACCEPTED}),
    Failure.CONNECTION_LIMIT: frozenset({DeliveryStatus.AMBIGUOUS, DeliveryStatus.ACCEPTED}),
    Failure.RATE_LIMITED: frozenset({DeliveryStatus.AMBIGUOUS, DeliveryStatus.ACCEPTED}),
    Failure.SERVER_ERROR: frozenset(
        {DeliveryStatus.REJECTED, DeliveryStatus.AMBIGUOUS, DeliveryStatus.ACCEPTED}
    ),
}
"""The failures after which a request is sent again only with ``at_least_once``."""
DELAYED: Final = frozenset({Failure.RATE_LIMITED, Failure.SERVER_ERROR})
ORDER: Final = (
    DeliveryStatus.NOT_SENT,
    DeliveryStatus.REJECTED,
    DeliveryStatus.AMBIGUOUS,
    DeliveryStatus.ACCEPTED,
)
"""From a request that cannot have run to one that has."""


def delivery_of_error(event: ErrorEvent, *, started: bool) -> DeliveryStatus:
    """Return the delivery status that an ``error`` event proves for the request that it ends.

    :param started: whether an event of the response was received before.
    """
    if started:
        return DeliveryStatus.ACCEPTED
    if event.code in REFUSALS or event.status in REFUSING_STATUSES:
        return DeliveryStatus.REJECTED
    return DeliveryStatus.AMBIGUOUS


def furthest(attempts: Iterable[DeliveryStatus | None]) -> DeliveryStatus | None:
    """Return the furthest delivery status of several attempts at one request.

    :param attempts: the delivery of each attempt; `None` where it is not known.
    """
    known = [delivery for delivery in attempts if delivery is not None]
    return max(known, key=ORDER.index, default=None)


def may_resend(delivery: DeliveryStatus | None, failure: Failure, choice: DeliveryMode) -> bool:
    """Whether a request may be sent again after an attempt that failed."""
    if delivery is None:
        return False
    if delivery in RESENT_ALWAYS.get(failure, ()):
        return True
    return choice == "at_least_once" and delivery in RESENT_IF_CHOSEN.get(failure, ())


def needs_delay(failure: Failure) -> bool:
    """Whether the next attempt after a failure waits, and counts as one of ``max_retries``."""
    return failure in DELAYED
