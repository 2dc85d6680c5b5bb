"""What is known of a request whose turn ended badly, and whether it may be sent again.

Exactly-once does not exist on this wire: a request that was written and not answered may have
run, and been paid for. So what is known is said (`Delivery`), and what is sent again without
being asked for is only what cannot have run:

=============  ===============================  ==============  ==================
delivery       it means                         at most once    at least once
=============  ===============================  ==============  ==================
``not_sent``   no complete message left         sent again      sent again
``rejected``   the server refused to start      some codes      some codes
``ambiguous``  written, and nothing came back   raised          sent again
``accepted``   an event of the response came    raised          sent again
=============  ===============================  ==============  ==================

The last two rows are about ends that leave open how the request fared: a lost socket, or silence.
What the server answers, and what a limit of our own ends, is raised whatever the choice.

What belongs elsewhere: the sending (`turns/stream.py`), and repairs that need another input than
the first one (`continuation.py`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeAlias

from trio_responses._errors import (
    ConnectionLimitReached,
    ConnectionLost,
    Delivery,
    FirstEventTimeout,
    StallTimeout,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from trio_responses._errors import (
        ResponsesError,
    )
    from trio_responses._wire import ErrorEvent

__all__ = ["DeliveryChoice", "delivery_of_error", "furthest", "may_send_again"]

DeliveryChoice: TypeAlias = Literal["at_most_once", "at_least_once"]
"""What the caller wants of a turn whose outcome is unknown."""

CLIENT_ERRORS = range(400, 500)
REFUSALS = frozenset(
    {
        "invalid_stream_id",
        "previous_response_not_found",
        "rate_limit_exceeded",
        "websocket_connection_limit_reached",
        "websocket_stream_limit_reached",
    }
)
"""Codes that come instead of a start, with whatever status (docs/protocol.md, 4)."""
FURTHER = (Delivery.NOT_SENT, Delivery.REJECTED, Delivery.AMBIGUOUS, Delivery.ACCEPTED)
"""Each says more of what may have run than those before it."""
OPEN_ENDS = (ConnectionLost, ConnectionLimitReached, FirstEventTimeout, StallTimeout)
"""What ends a turn and leaves open how the request fared."""


def delivery_of_error(event: ErrorEvent, *, started: bool) -> Delivery:
    """Say what an error frame proves about the request it ends.

    :param started: whether an event of the response came before.
    """
    if started:
        return Delivery.ACCEPTED
    if event.code in REFUSALS or event.status in CLIENT_ERRORS:
        return Delivery.REJECTED
    return Delivery.AMBIGUOUS


def furthest(known: Iterable[Delivery | None]) -> Delivery | None:
    """Say what is known of a request that was sent several times: how far it has come at most.

    :param known: what is known of each time; `None` says nothing.
    """
    said = [delivery for delivery in known if delivery is not None]
    return max(said, key=FURTHER.index, default=None)


def may_send_again(error: ResponsesError, choice: DeliveryChoice) -> bool:
    """Whether the same request may go out once more after this end of its turn."""
    match error.delivery:
        case Delivery.NOT_SENT:
            return isinstance(error, ConnectionLost)
        case Delivery.REJECTED:
            return isinstance(error, ConnectionLimitReached)
        case Delivery.AMBIGUOUS | Delivery.ACCEPTED:
            return isinstance(error, OPEN_ENDS) and choice == "at_least_once"
        case _:
            return False
