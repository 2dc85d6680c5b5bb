"""The cells of a connection that is left."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio

from tests.faults import faults
from tests.faults.cells import AT_ONCE, CLOSE, Closing, Span
from tests.transport.peer import CLOSE as CLOSE_FRAME
from tests.transport.peer import PING, close, frame

if TYPE_CHECKING:
    from tests.faults.cells import Strike
    from tests.faults.servers import Seat


async def nothing(seat: Seat) -> None:
    """Neither answer nor close."""
    await trio.lowlevel.checkpoint()
    assert not seat.deaf


async def hang_up(seat: Seat) -> None:
    await seat.wire.aclose()


def answer(*steps: Strike) -> Strike:
    """Answer the close frame, and then go on so."""

    async def strike(seat: Seat) -> None:
        for step in (faults.close_with(1000), *steps):
            await step(seat)

    return strike


def chatter(one: bytes, every: float = 0.5) -> Strike:
    """Send without end, and heed nothing."""

    async def strike(seat: Seat) -> None:
        while True:
            await seat.send(one)
            await trio.sleep(every)

    return strike


async def slow_answer(seat: Seat) -> None:
    """Answer the close frame byte by byte, in four seconds."""
    for byte in close(1000):
        await trio.sleep(1)
        await seat.send(bytes([byte]))
    await hang_up(seat)


CLOSINGS: Final = [
    Closing(fault="none", strike=answer(hang_up)),
    Closing(fault="server that never answers", strike=nothing, after=CLOSE),
    Closing(fault="server that never reads", strike=nothing, reads=False, after=CLOSE),
    Closing(
        fault="server that never reads, and no room to write",
        strike=nothing,
        reads=False,
        after=CLOSE,
        capacity=1,
    ),
    Closing(fault="answer, and no FIN", strike=answer(), after=AT_ONCE),
    Closing(
        fault="answer byte by byte", strike=slow_answer, after=Span(4.0, "as long as it takes")
    ),
    Closing(fault="FIN in the place of an answer", strike=faults.fin),
    Closing(fault="reset in the place of an answer", strike=faults.reset),
    Closing(fault="answer, then reset", strike=answer(faults.reset)),
    Closing(fault="another close code", strike=faults.close_with(1008)),
    Closing(fault="close frame of one byte", strike=faults.raw(frame(CLOSE_FRAME, b"\x03"))),
    Closing(fault="bad UTF-8 in the place of an answer", strike=faults.bad_utf8, after=CLOSE),
    Closing(
        fault="events without end", strike=chatter(b'\x81\x12{"type": "unheard"}'[:20]), after=CLOSE
    ),
    Closing(fault="pings without end", strike=chatter(frame(PING, b"?")), after=CLOSE),
    Closing(fault="ping flood, then an answer", strike=faults.ping_flood, after=CLOSE),
]
