"""The delivery status of a request, and the decision whether a request may be sent again.

Exactly-once delivery does not exist on this wire: a request that was written and not answered
may have run, and may have been billed. So each failure states what is known (`DeliveryStatus`), and
only a request that cannot have run is sent again unless the caller asks for more:

=============  =========================================  ==============  =================
delivery       meaning                                    at_most_once    at_least_once
=============  =========================================  ==============  =================
``not_sent``   no complete request reached the network    sent again      sent again
``rejected``   the server refused to start the request    some failures   some failures
``ambiguous``  the request was written, no answer came    raised          sent again
``accepted``   an event of its response was received      raised          sent again
=============  =========================================  ==============  =================

The last two rows apply to failures that leave the outcome of the request unknown: a lost socket or
a deadline (`Failure`). An answer of the server, or a limit of this library, is always raised.
"""

from __future__ import annotations

from enum import Enum, StrEnum, auto
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable

    from trio_responses._wire import ErrorEvent

__all__ = [
    "DeliveryMode",
    "DeliveryStatus",
    "Failure",
    "delivery_of_error",
    "furthest",
    "may_resend",
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
    OTHER = auto()
    """The server answered with an error, or a limit of this library was reached."""


DeliveryMode: TypeAlias = Literal["at_most_once", "at_least_once"]
"""What to do with a request whose outcome is unknown."""

CLIENT_ERRORS: Final = range(400, 500)
REFUSALS: Final = frozenset(
    {
        "invalid_stream_id",
        "previous_response_not_found",
        "rate_limit_exceeded",
        "websocket_connection_limit_reached",
        "websocket_stream_limit_reached",
    }
)
"""Error codes that are sent in place of a start, whatever their status (docs/protocol.md, 4)."""
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
    if event.code in REFUSALS or event.status in CLIENT_ERRORS:
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
    match delivery:
        case DeliveryStatus.NOT_SENT:
            return failure is Failure.CONNECTION_LOST
        case DeliveryStatus.REJECTED:
            return failure is Failure.CONNECTION_LIMIT
        case DeliveryStatus.AMBIGUOUS | DeliveryStatus.ACCEPTED:
            return failure is not Failure.OTHER and choice == "at_least_once"
        case _:
            return False
