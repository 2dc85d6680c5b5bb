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
    from tests.faults.cells import Action
    from tests.faults.servers import ServerPeer


CAPACITY: Final = 16 * 1024


def in_order(*actions: Action) -> Action:
    async def action(peer: ServerPeer) -> None:
        for one in actions:
            await one(peer)

    return action


async def begun(peer: ServerPeer) -> None:
    """Wait for the first bytes of the request."""
    await peer.wait_written()


async def no_more(peer: ServerPeer) -> None:
    """Read nothing more, and leave the socket open."""
    assert not peer.deaf
    await trio.sleep_forever()


async def read_slowly(peer: ServerPeer) -> None:
    """Read the request in 20 seconds."""
    for _ in range(10):
        await trio.sleep(2)
        await peer.read_some()


async def answer_and_read_on(peer: ServerPeer) -> None:
    """Refuse the request before all of it is received."""
    await peer.wait_written()
    await peer.send(text(encoded({**wrapped("too_large", 413)})))
    await peer.read_command()


def sending(fault: str, *actions: Action, **expected: Any) -> Cell:
    """Return a cell; by default the request, which was not sent whole, goes to the next socket."""
    settings: dict[str, Any] = {"then": REOPENED, "repeated": True, **expected}
    action = in_order(*actions)
    return Cell(
        phase=SENDING, fault=fault, action=action, capacity=CAPACITY, large=True, **settings
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
