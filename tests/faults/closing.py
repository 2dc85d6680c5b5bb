"""The cells of a connection that is closed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio

from tests.faults import faults
from tests.faults.cells import AT_ONCE, CLOSE, Closing, Span
from tests.transport.peer import CLOSE as CLOSE_FRAME
from tests.transport.peer import PING, close, frame

if TYPE_CHECKING:
    from tests.faults.cells import Action
    from tests.faults.servers import ServerPeer


async def nothing(peer: ServerPeer) -> None:
    """Neither answer nor close the socket."""
    await trio.lowlevel.checkpoint()
    assert not peer.deaf


async def hang_up(peer: ServerPeer) -> None:
    await peer.wire.aclose()


def answer(*steps: Action) -> Action:
    """Return an action that answers the close frame, and then takes these steps."""

    async def action(peer: ServerPeer) -> None:
        for step in (faults.close_with(1000), *steps):
            await step(peer)

    return action


def chatter(one: bytes, every: float = 0.5) -> Action:
    """Return an action that sends bytes for ever, and reads nothing."""

    async def action(peer: ServerPeer) -> None:
        while True:
            await peer.send(one)
            await trio.sleep(every)

    return action


async def slow_answer(peer: ServerPeer) -> None:
    """Answer the close frame byte by byte, in four seconds."""
    for byte in close(1000):
        await trio.sleep(1)
        await peer.send(bytes([byte]))
    await hang_up(peer)


CLOSINGS: Final = [
    Closing(fault="none", action=answer(hang_up)),
    Closing(fault="server that never answers", action=nothing, after=CLOSE),
    Closing(fault="server that never reads", action=nothing, reads=False, after=CLOSE),
    Closing(
        fault="server that never reads, and no room to write",
        action=nothing,
        reads=False,
        after=CLOSE,
        capacity=1,
    ),
    Closing(fault="answer, and no FIN", action=answer(), after=AT_ONCE),
    Closing(
        fault="answer byte by byte", action=slow_answer, after=Span(4.0, "as long as it takes")
    ),
    Closing(fault="FIN in the place of an answer", action=faults.fin),
    Closing(fault="reset in the place of an answer", action=faults.reset),
    Closing(fault="answer, then reset", action=answer(faults.reset)),
    Closing(fault="another close code", action=faults.close_with(1008)),
    Closing(fault="close frame of one byte", action=faults.raw(frame(CLOSE_FRAME, b"\x03"))),
    Closing(fault="bad UTF-8 in the place of an answer", action=faults.bad_utf8, after=CLOSE),
    Closing(
        fault="events without end", action=chatter(b'\x81\x12{"type": "unheard"}'[:20]), after=CLOSE
    ),
    Closing(fault="pings without end", action=chatter(frame(PING, b"?")), after=CLOSE),
    Closing(fault="ping flood, then an answer", action=faults.ping_flood, after=CLOSE),
]
