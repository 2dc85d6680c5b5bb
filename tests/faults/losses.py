"""The cells of an open socket: idle, before the first event, and within a response."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

import trio

from tests.faults import faults
from tests.faults.cells import (
    ALL_WAYS,
    AT_ONCE,
    BEFORE,
    DEAD,
    FIRST_EVENT,
    FRESH,
    IDLE,
    MID_STREAM,
    OVER,
    PING,
    REOPENED,
    STALL,
    Cell,
    Span,
)
from tests.faults.refusals import LIMIT, wrapped
from tests.transport.peer import PING as PING_FRAME
from tests.transport.peer import frame, text
from trio_responses import (
    ConnectionLost,
    DeliveryStatus,
    FirstEventTimeout,
    KeepaliveTimeout,
    MessageTooLarge,
    RequestTooLarge,
    StallTimeout,
)

if TYPE_CHECKING:
    from tests.faults.cells import Action, Then, Way
    from tests.faults.servers import ServerPeer
    from trio_responses import ResponsesError

PIECES: Final = 55


# --- Faults that cost the socket --------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """A fault that ends the socket."""

    fault: str
    action: Action
    code: int = 1006
    raises: type[ResponsesError] = ConnectionLost
    after: Span = AT_ONCE
    then: Then = REOPENED
    ways: tuple[Way, ...] = ALL_WAYS


def closing(code: int, **expected: Any) -> Loss:
    return Loss(fault=f"close {code}", action=faults.close_with(code), code=code, **expected)


def violating(fault: str, action: Action, code: int = 1002) -> Loss:
    return Loss(fault=fault, action=action, code=code, ways=("stream", "channel"))


LOSSES: Final = [
    Loss(fault="reset", action=faults.reset),
    Loss(fault="FIN", action=faults.fin),
    Loss(fault="half-open", action=faults.half_open, raises=KeepaliveTimeout, after=DEAD),
    closing(1000),
    closing(1001),
    closing(1002),
    closing(1003),
    Loss(fault="close without a code", action=faults.close_with(None), code=1005),
    closing(1007),
    closing(1008, then=OVER),
    closing(1009),
    closing(1011),
    closing(1012),
    closing(1013),
    closing(3000),
    closing(4000, then=OVER),
    closing(4001, then=OVER),
    closing(4999, then=OVER),
    violating("close 1006, which must not be sent", faults.close_1006),
    violating("close frame of one byte", faults.close_of_one_byte),
    violating("bad UTF-8", faults.bad_utf8, 1007),
    violating("masked frame", faults.masked),
    violating("reserved bits", faults.reserved_bits),
    violating("unknown opcode", faults.unknown_opcode),
    violating("fragmented control frame", faults.fragmented_control),
    violating("control frame above 125 bytes", faults.large_control),
    violating("continuation of nothing", faults.stray_continuation),
    violating("message within a message", faults.interleaved),
    violating("overlong length", faults.overlong_length),
]


def midway(action: Action) -> Action:
    """Return an action that begins to answer before the fault."""

    async def after_the_beginning(peer: ServerPeer) -> None:
        await peer.begin()
        await action(peer)

    return after_the_beginning


def while_idle(loss: Loss) -> Cell:
    """Return the cell of an idle socket: the next turn waits for a new one, or is not sent."""
    over = loss.then.ended_by
    return Cell(
        phase=IDLE,
        fault=loss.fault,
        action=loss.action,
        raises=over,
        delivery=DeliveryStatus.NOT_SENT if over else None,
        after=loss.after,
        then=loss.then,
        lost=loss.code,
        ways=loss.ways,
    )


def while_waiting(loss: Loss) -> Cell:
    """Return the cell of a request without an answer; close code 1009 refuses it."""
    too_large = loss.code == 1009
    return Cell(
        phase=BEFORE,
        fault=loss.fault,
        action=loss.action,
        raises=RequestTooLarge if too_large else loss.raises,
        delivery=DeliveryStatus.REJECTED if too_large else DeliveryStatus.AMBIGUOUS,
        after=loss.after,
        then=loss.then,
        at_least_once=not too_large,
        lost=loss.code,
        ways=loss.ways,
    )


def while_streaming(loss: Loss) -> Cell:
    """Return the cell of a turn that has begun, so that its request ran at least in part."""
    return Cell(
        phase=MID_STREAM,
        fault=loss.fault,
        action=midway(loss.action),
        raises=loss.raises,
        delivery=DeliveryStatus.ACCEPTED,
        after=loss.after,
        then=loss.then,
        at_least_once=True,
        lost=loss.code,
        ways=loss.ways,
    )


# --- Faults that cost nothing -----------------------------------------------------------------


HARMLESS: Final[dict[str, Action]] = {
    "bad JSON": faults.bad_json,
    "JSON that is no object": faults.no_object,
    "JSON without a type": faults.untyped,
    "empty message": faults.empty,
    "binary frame": faults.binary,
    "unknown event without an owner": faults.unknown_event,
    "`codex.rate_limits`": faults.rate_limits,
    "ping flood": faults.ping_flood,
    "unsolicited pong": faults.unasked_pong,
    "pings within a fragmented message": faults.pings_within_a_message,
}


def harmless(phase: str, fault: str, action: Action) -> Cell:
    async def and_answer(peer: ServerPeer) -> None:
        rest = await peer.begin() if phase == MID_STREAM else peer.events()
        await action(peer)
        await peer.finish(rest)

    return Cell(phase=phase, fault=fault, action=action if phase == IDLE else and_answer)


def dribble(seconds: float, *, within: bool) -> Action:
    """Return an action that writes the rest of the answer in small pieces."""

    async def action(peer: ServerPeer) -> None:
        rest = await peer.begin() if within else peer.events()
        frames = peer.encode(*rest)
        cuts = [len(frames) * n // PIECES for n in range(PIECES + 1)]
        for start, end in pairwise(cuts):
            await trio.sleep(seconds / PIECES)
            await peer.send(frames[start:end])
        await peer.finish([])

    return action


# --- Silence ----------------------------------------------------------------------------------


SLOW_EVENT: Final = text('{"type": "response.output_text.delta", "delta": "' + "x" * 100 + '"}')
SILENCE: Final[dict[str, Action]] = {
    "stall, pings are answered": faults.stall,
    "stall, with pings of its own": faults.without_end(frame(PING_FRAME), every=1.0),
    "stall, with events without an owner": faults.without_end(
        text('{"type": "keepalive"}'), every=1.0
    ),
    "an event of which a byte comes every ten seconds": faults.without_end(
        *(SLOW_EVENT[n : n + 1] for n in range(len(SLOW_EVENT))), every=10.0
    ),
}


def silent(fault: str, action: Action) -> list[Cell]:
    """Return the cells of a silent response: only its own whole events restart the limits."""
    before = Cell(
        phase=BEFORE,
        fault=fault,
        action=action,
        raises=FirstEventTimeout,
        delivery=DeliveryStatus.AMBIGUOUS,
        after=FIRST_EVENT,
        then=FRESH,
        at_least_once=True,
    )
    within = replace(
        before,
        phase=MID_STREAM,
        action=midway(action),
        raises=StallTimeout,
        delivery=DeliveryStatus.ACCEPTED,
        after=STALL,
    )
    return [before, within]


async def too_large(peer: ServerPeer) -> None:
    """Send an event above ``limits.max_message_bytes``."""
    rest = await peer.begin()
    await peer.finish([{**rest[0], "delta": "x" * 60_000}, *rest[1:]])


async def too_large_at_once(peer: ServerPeer) -> None:
    """Send a first event above ``limits.max_message_bytes``."""
    first, *rest = peer.events()
    await peer.finish([{**first, "instructions": "x" * 60_000}, *rest])


async def limit_within(peer: ServerPeer) -> None:
    """Send the age limit within a response, and finish the response."""
    rest = await peer.begin()
    await faults.say_raw(LIMIT)(peer)
    await peer.finish(rest)


async def too_large_alone(peer: ServerPeer) -> None:
    """Send an unsolicited event above ``limits.max_message_bytes``."""
    await peer.send(text('{"type": "keepalive", "x": "' + "x" * 60_000 + '"}'))


OTHERS: Final = [
    Cell(phase=IDLE, fault="oversize message", action=too_large_alone),
    Cell(
        phase=IDLE,
        fault="error without an owner",
        action=faults.say_raw(wrapped("server_error", 500)),
    ),
    Cell(
        phase=IDLE,
        fault="`websocket_connection_limit_reached`",
        action=faults.say_raw(LIMIT),
        then=FRESH,
    ),
    Cell(
        phase=BEFORE,
        fault="oversize message",
        action=too_large_at_once,
        raises=MessageTooLarge,
        delivery=DeliveryStatus.ACCEPTED,
    ),
    Cell(
        phase=MID_STREAM,
        fault="oversize message",
        action=too_large,
        raises=MessageTooLarge,
        delivery=DeliveryStatus.ACCEPTED,
    ),
    Cell(
        phase=MID_STREAM,
        fault="`websocket_connection_limit_reached`",
        action=limit_within,
        then=FRESH,
    ),
    Cell(
        phase=BEFORE,
        fault="slow bytes",
        action=dribble(55.0, within=False),
        after=Span(55.0, "as long as they take"),
    ),
    Cell(
        phase=MID_STREAM,
        fault="slow bytes",
        action=dribble(55.0, within=True),
        after=Span(55.0, "as long as they take"),
    ),
]

OPEN: Final = [
    *map(while_idle, LOSSES),
    while_idle(
        Loss(fault="writes fail, and nothing is received", action=faults.unwritable, after=PING)
    ),
    *(harmless(IDLE, name, action) for name, action in HARMLESS.items()),
    *map(while_waiting, LOSSES),
    *map(while_streaming, LOSSES),
    *(
        harmless(phase, name, action)
        for phase in (BEFORE, MID_STREAM)
        for name, action in HARMLESS.items()
    ),
    *(cell for name, action in SILENCE.items() for cell in silent(name, action)),
    *OTHERS,
]
