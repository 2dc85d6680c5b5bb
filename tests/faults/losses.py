"""The cells of an open socket that idles, is asked, or is in the midst of an answer."""

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
    from tests.faults.cells import Strike, Then, Way
    from tests.faults.servers import Seat
    from trio_responses import ResponsesError

PIECES: Final = 55


# --- Faults that cost the socket --------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """A fault after which there is no socket."""

    fault: str
    strike: Strike
    code: int = 1006
    raises: type[ResponsesError] = ConnectionLost
    after: Span = AT_ONCE
    then: Then = REOPENED
    ways: tuple[Way, ...] = ALL_WAYS


def closing(code: int, **expected: Any) -> Loss:
    return Loss(fault=f"close {code}", strike=faults.close_with(code), code=code, **expected)


def violating(fault: str, strike: Strike, code: int = 1002) -> Loss:
    return Loss(fault=fault, strike=strike, code=code, ways=("stream", "channel"))


LOSSES: Final = [
    Loss(fault="reset", strike=faults.reset),
    Loss(fault="FIN", strike=faults.fin),
    Loss(fault="half-open", strike=faults.half_open, raises=KeepaliveTimeout, after=DEAD),
    closing(1000),
    closing(1001),
    closing(1002),
    closing(1003),
    Loss(fault="close without a code", strike=faults.close_with(None), code=1005),
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


def midway(strike: Strike) -> Strike:
    """Begin to answer, and then strike."""

    async def after_the_beginning(seat: Seat) -> None:
        await seat.begin()
        await strike(seat)

    return after_the_beginning


def while_idle(loss: Loss) -> Cell:
    """The next turn waits for the next socket; where there is none, it was never sent."""
    over = loss.then.ended_by
    return Cell(
        phase=IDLE,
        fault=loss.fault,
        strike=loss.strike,
        raises=over,
        delivery=DeliveryStatus.NOT_SENT if over else None,
        after=loss.after,
        then=loss.then,
        lost=loss.code,
        ways=loss.ways,
    )


def while_waiting(loss: Loss) -> Cell:
    """The request is out, and nothing came back; 1009 refuses it."""
    too_large = loss.code == 1009
    return Cell(
        phase=BEFORE,
        fault=loss.fault,
        strike=loss.strike,
        raises=RequestTooLarge if too_large else loss.raises,
        delivery=DeliveryStatus.REJECTED if too_large else DeliveryStatus.AMBIGUOUS,
        after=loss.after,
        then=loss.then,
        at_least_once=not too_large,
        lost=loss.code,
        ways=loss.ways,
    )


def while_streaming(loss: Loss) -> Cell:
    """It ran, at least in part."""
    return Cell(
        phase=MID_STREAM,
        fault=loss.fault,
        strike=midway(loss.strike),
        raises=loss.raises,
        delivery=DeliveryStatus.ACCEPTED,
        after=loss.after,
        then=loss.then,
        at_least_once=True,
        lost=loss.code,
        ways=loss.ways,
    )


# --- Faults that cost nothing -----------------------------------------------------------------


HARMLESS: Final[dict[str, Strike]] = {
    "bad JSON": faults.bad_json,
    "JSON that is no object": faults.no_object,
    "JSON without a type": faults.untyped,
    "empty message": faults.empty,
    "binary frame": faults.binary,
    "unknown event of nobody": faults.unknown_event,
    "`codex.rate_limits`": faults.rate_limits,
    "ping flood": faults.ping_flood,
    "pong that nobody asked for": faults.unasked_pong,
    "pings within a fragmented message": faults.pings_within_a_message,
}


def harmless(phase: str, fault: str, strike: Strike) -> Cell:
    async def and_answer(seat: Seat) -> None:
        rest = await seat.begin() if phase == MID_STREAM else seat.events()
        await strike(seat)
        await seat.finish(rest)

    return Cell(phase=phase, fault=fault, strike=strike if phase == IDLE else and_answer)


def dribble(seconds: float, *, within: bool) -> Strike:
    """Write the rest of the answer byte by byte, in so many seconds."""

    async def strike(seat: Seat) -> None:
        rest = await seat.begin() if within else seat.events()
        frames = seat.encode(*rest)
        cuts = [len(frames) * n // PIECES for n in range(PIECES + 1)]
        for start, end in pairwise(cuts):
            await trio.sleep(seconds / PIECES)
            await seat.send(frames[start:end])
        await seat.finish([])

    return strike


# --- Silence ----------------------------------------------------------------------------------


SLOW_EVENT: Final = text('{"type": "response.output_text.delta", "delta": "' + "x" * 100 + '"}')
SILENCE: Final[dict[str, Strike]] = {
    "stall, pings are answered": faults.stall,
    "stall, with pings of its own": faults.without_end(frame(PING_FRAME), every=1.0),
    "stall, with events of nobody": faults.without_end(text('{"type": "keepalive"}'), every=1.0),
    "an event of which a byte comes every ten seconds": faults.without_end(
        *(SLOW_EVENT[n : n + 1] for n in range(len(SLOW_EVENT))), every=10.0
    ),
}


def silent(fault: str, strike: Strike) -> list[Cell]:
    """Only events of the response count, whole ones: nothing else keeps a turn alive."""
    before = Cell(
        phase=BEFORE,
        fault=fault,
        strike=strike,
        raises=FirstEventTimeout,
        delivery=DeliveryStatus.AMBIGUOUS,
        after=FIRST_EVENT,
        then=FRESH,
        at_least_once=True,
    )
    within = replace(
        before,
        phase=MID_STREAM,
        strike=midway(strike),
        raises=StallTimeout,
        delivery=DeliveryStatus.ACCEPTED,
        after=STALL,
    )
    return [before, within]


async def too_large(seat: Seat) -> None:
    """Send an event above ``limits.max_message_bytes``."""
    rest = await seat.begin()
    await seat.finish([{**rest[0], "delta": "x" * 60_000}, *rest[1:]])


async def too_large_at_once(seat: Seat) -> None:
    """Send a first event above ``limits.max_message_bytes``."""
    first, *rest = seat.events()
    await seat.finish([{**first, "instructions": "x" * 60_000}, *rest])


async def limit_within(seat: Seat) -> None:
    """Say in the midst of a response that the socket is too old, and finish the response."""
    rest = await seat.begin()
    await faults.say_raw(LIMIT)(seat)
    await seat.finish(rest)


async def too_large_alone(seat: Seat) -> None:
    """Send an event of nobody above ``limits.max_message_bytes``."""
    await seat.send(text('{"type": "keepalive", "x": "' + "x" * 60_000 + '"}'))


OTHERS: Final = [
    Cell(phase=IDLE, fault="oversize message", strike=too_large_alone),
    Cell(phase=IDLE, fault="error of nobody", strike=faults.say_raw(wrapped("server_error", 500))),
    Cell(
        phase=IDLE,
        fault="`websocket_connection_limit_reached`",
        strike=faults.say_raw(LIMIT),
        then=FRESH,
    ),
    Cell(
        phase=BEFORE,
        fault="oversize message",
        strike=too_large_at_once,
        raises=MessageTooLarge,
        delivery=DeliveryStatus.ACCEPTED,
    ),
    Cell(
        phase=MID_STREAM,
        fault="oversize message",
        strike=too_large,
        raises=MessageTooLarge,
        delivery=DeliveryStatus.ACCEPTED,
    ),
    Cell(
        phase=MID_STREAM,
        fault="`websocket_connection_limit_reached`",
        strike=limit_within,
        then=FRESH,
    ),
    Cell(
        phase=BEFORE,
        fault="slow bytes",
        strike=dribble(55.0, within=False),
        after=Span(55.0, "as long as they take"),
    ),
    Cell(
        phase=MID_STREAM,
        fault="slow bytes",
        strike=dribble(55.0, within=True),
        after=Span(55.0, "as long as they take"),
    ),
]

OPEN: Final = [
    *map(while_idle, LOSSES),
    while_idle(
        Loss(fault="writes fail, and nothing is heard", strike=faults.unwritable, after=PING)
    ),
    *(harmless(IDLE, name, strike) for name, strike in HARMLESS.items()),
    *map(while_waiting, LOSSES),
    *map(while_streaming, LOSSES),
    *(
        harmless(phase, name, strike)
        for phase in (BEFORE, MID_STREAM)
        for name, strike in HARMLESS.items()
    ),
    *(cell for name, strike in SILENCE.items() for cell in silent(name, strike)),
    *OTHERS,
]
