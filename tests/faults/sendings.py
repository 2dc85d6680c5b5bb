"""The cells of a request that is being written."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import trio

from tests.faults import faults
from tests.faults.cells import (
    OVER,
    REOPENED,
    SAME,
    SEND,
    SENDING,
    WITHIN_CLOSE,
    Cell,
    Span,
)
from tests.faults.refusals import wrapped
from tests.transport.peer import text
from tests.turn.rig import encoded
from trio_responses import APIError, ConnectionLost, DeliveryStatus, RequestTooLarge

if TYPE_CHECKING:
    from tests.faults.cells import Strike
    from tests.faults.servers import Seat


CAPACITY: Final = 16 * 1024


def in_order(*strikes: Strike) -> Strike:
    async def strike(seat: Seat) -> None:
        for one in strikes:
            await one(seat)

    return strike


async def begun(seat: Seat) -> None:
    """Wait for the first bytes of the request."""
    await seat.wait_written()


async def no_more(seat: Seat) -> None:
    """Read nothing any more, and hold the socket."""
    assert not seat.deaf
    await trio.sleep_forever()


async def read_slowly(seat: Seat) -> None:
    """Take 20 seconds for the request."""
    for _ in range(10):
        await trio.sleep(2)
        await seat._read_more()


async def answer_and_read_on(seat: Seat) -> None:
    """Refuse the request before it is there as a whole."""
    await seat.wait_written()
    await seat.send(text(encoded({**wrapped("too_large", 413)})))
    await seat.read_command()


def sending(fault: str, *strikes: Strike, **expected: Any) -> Cell:
    """Expect by default that the request, of which nothing counts, goes to the next socket."""
    settings: dict[str, Any] = {"then": REOPENED, "repeated": True, **expected}
    strike = in_order(*strikes)
    return Cell(
        phase=SENDING, fault=fault, strike=strike, capacity=CAPACITY, large=True, **settings
    )


SENDINGS: Final = [
    sending("socket that was dead for long", faults.unwritable, no_more),
    sending("reset in its midst", begun, faults.reset),
    sending("FIN in its midst", begun, faults.fin, no_more),
    sending("server that reads no more", begun, no_more, after=SEND),
    sending(
        "slow reader",
        begun,
        read_slowly,
        after=Span(20.0, "as long as it takes"),
        then=SAME,
        repeated=False,
    ),
    sending(
        "ping flood",
        begun,
        faults.ping_flood,
        repeated=False,
        then=SAME,
    ),
    sending(
        "error frame in its midst",
        answer_and_read_on,
        repeated=False,
        raises=APIError,
        delivery=DeliveryStatus.REJECTED,
        then=SAME,
        ways=("conversation",),
    ),
    *(
        sending(
            f"close {code}, and no more reading",
            begun,
            faults.close_with(code),
            no_more,
            after=WITHIN_CLOSE,
        )
        for code in (1000, 1001, 1011, 1012, 1013)
    ),
    *(
        sending(
            f"close {code}, and reading on",
            begun,
            faults.close_with(code),
            raises=ConnectionLost,
            delivery=DeliveryStatus.AMBIGUOUS,
            repeated=False,
            at_least_once=True,
        )
        for code in (1001, 1011)
    ),
    sending("close 1001, then reset", begun, faults.close_and_reset(1001)),
    sending(
        "close 1008",
        begun,
        faults.close_with(1008),
        no_more,
        after=WITHIN_CLOSE,
        repeated=False,
        raises=ConnectionLost,
        delivery=DeliveryStatus.NOT_SENT,
        then=OVER,
    ),
    sending(
        "close 4000",
        begun,
        faults.close_with(4000),
        no_more,
        after=WITHIN_CLOSE,
        repeated=False,
        raises=ConnectionLost,
        delivery=DeliveryStatus.NOT_SENT,
        then=OVER,
    ),
    sending(
        "close 1009, and reading on",
        begun,
        faults.close_with(1009),
        repeated=False,
        raises=RequestTooLarge,
        delivery=DeliveryStatus.REJECTED,
    ),
    sending(
        "close 1009, and no more reading",
        begun,
        faults.close_with(1009),
        no_more,
        after=WITHIN_CLOSE,
        repeated=False,
        raises=RequestTooLarge,
        delivery=DeliveryStatus.REJECTED,
        cut_off=True,
    ),
    sending(
        "close 1009, then reset",
        begun,
        faults.close_and_reset(1009),
        repeated=False,
        raises=RequestTooLarge,
        delivery=DeliveryStatus.REJECTED,
        cut_off=True,
    ),
    sending("reserved bits", begun, faults.reserved_bits, no_more, after=WITHIN_CLOSE),
]
