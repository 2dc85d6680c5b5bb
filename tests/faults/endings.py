"""The cells of the event that ends a response."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from tests.faults import faults
from tests.faults.cells import (
    ALL_WAYS,
    DEAD,
    FRESH,
    OVER,
    REOPENED,
    STALL,
    TERMINAL,
    Cell,
)
from tests.faults.refusals import LIMIT, answering, wrapped
from tests.transport.peer import BINARY, PING, TEXT, frame, text
from tests.turn.rig import delta, encoded, ended, message
from trio_responses import (
    APIError,
    ConnectionLost,
    DeliveryStatus,
    KeepaliveTimeout,
    MessageTooLarge,
    StallTimeout,
    UndecodableResponse,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.faults.cells import Strike
    from tests.faults.servers import Json, Seat


def last(*steps: Strike | str) -> Strike:
    """Answer up to the last event, and then by these; ``"last"`` is that event itself."""

    async def strike(seat: Seat) -> None:
        *rest, end = await seat.begin()
        await seat.say(*rest)
        for step in steps:
            if not isinstance(step, str):
                await step(seat)
            elif step == "last":
                await seat.finish([end])
            elif step == "half":
                whole = seat.encode(end)
                await seat.send(whole[: len(whole) // 2])

    return strike


def ending_with(change: Callable[[Json], Json]) -> Strike:
    """Answer, with another last event."""

    async def strike(seat: Seat) -> None:
        *rest, end = await seat.begin()
        await seat.finish([*rest, change(end)])

    return strike


def by_status(status: str) -> Strike:
    def change(end: Json) -> Json:
        response = {**end["response"], "status": status}
        return {**end, "type": f"response.{status}", "response": response}

    return ending_with(change)


def showing(output: list[Json] | None) -> Strike:
    def change(end: Json) -> Json:
        return {**end, "response": {**end["response"], "output": output}}

    return ending_with(change)


def replacing(**fields: Any) -> Strike:
    def change(end: Json) -> Json:
        return {**end, **fields}

    return ending_with(change)


async def alone(seat: Seat) -> None:
    """Send the last event and nothing before it."""
    await seat.finish(seat.events()[-1:])


async def stale(seat: Seat) -> None:
    """Break a response off by an error, and end it all the same."""
    rest = await seat.begin()
    await seat.say(wrapped("server_error", 500))
    await seat.finish(rest)


async def late(seat: Seat) -> None:
    """Send a delta behind the end."""
    await seat.say(delta("late"))


async def again(seat: Seat) -> None:
    """Send an end once more."""
    item = message("again", "msg_again")
    await seat.say(ended([item], seat.response_id))


async def fragmented(seat: Seat) -> None:
    """Send the last event in three frames, with pings between."""
    *rest, end = await seat.begin()
    await seat.say(*rest)
    whole = seat.encode(end)[4:]
    assert whole.startswith(b"{")
    cut = len(whole) // 3
    await seat.send(frame(TEXT, whole[:cut], fin=False) + frame(PING))
    await seat.send(frame(0, whole[cut : 2 * cut], fin=False) + frame(PING, b"x"))
    await seat.send(frame(0, whole[2 * cut :]))
    await seat.finish([])


async def as_binary(seat: Seat) -> None:
    """Send the last event in a binary frame."""
    *rest, end = await seat.begin()
    await seat.say(*rest)
    await seat.send(frame(BINARY, encoded(end).encode()))


async def cut_json(seat: Seat) -> None:
    """Send the last event, whole as a frame, without its last brace."""
    *rest, end = await seat.begin()
    await seat.say(*rest)
    await seat.send(text(encoded(end)[:-1]))


async def not_utf8(seat: Seat) -> None:
    *rest, end = await seat.begin()
    await seat.say(*rest)
    await seat.send(text(encoded(end).encode().replace(b"You", b"Y\xffu")))


def terminal(fault: str, strike: Strike, **expected: Any) -> Cell:
    return Cell(phase=TERMINAL, fault=fault, strike=strike, **expected)


def cut_short(fault: str, *steps: Strike | str, **expected: Any) -> Cell:
    settings: dict[str, Any] = {"raises": ConnectionLost, "then": REOPENED, "lost": 1006}
    return terminal(
        fault,
        last(*steps),
        **{**settings, **expected},
        delivery=DeliveryStatus.ACCEPTED,
        at_least_once=True,
        ways=ALL_WAYS if "lost" not in expected else ("stream", "conversation"),
    )


SILENT: Final[dict[str, Any]] = {
    "raises": StallTimeout,
    "delivery": DeliveryStatus.ACCEPTED,
    "after": STALL,
    "then": FRESH,
    "at_least_once": True,
}
UNDECODABLE: Final[dict[str, Any]] = {
    "raises": UndecodableResponse,
    "delivery": DeliveryStatus.ACCEPTED,
}
BROKEN_OFF: Final[dict[str, Any]] = {
    "raises": APIError,
    "delivery": DeliveryStatus.ACCEPTED,
    "at_least_once": True,
    "delayed": 0.5,
}

TERMINALS: Final = [
    cut_short("FIN in its place", faults.fin),
    cut_short("half of it, then FIN", "half", faults.fin),
    cut_short("half of it, then reset", "half", faults.reset),
    cut_short(
        "half of it, then half-open", "half", faults.half_open, raises=KeepaliveTimeout, after=DEAD
    ),
    cut_short(
        "`websocket_connection_limit_reached` in its place, then close 1000",
        answering(LIMIT),
        faults.close_with(1000),
        then=FRESH,
        lost=1000,
    ),
    terminal("FIN right behind it", last("last", faults.fin), then=REOPENED),
    terminal("reset right behind it", last("last", faults.reset), then=REOPENED),
    terminal("close 1000 right behind it", last("last", faults.close_with(1000)), then=REOPENED),
    terminal("close 1009 right behind it", last("last", faults.close_with(1009)), then=REOPENED),
    terminal("close 1008 right behind it", last("last", faults.close_with(1008)), then=OVER),
    terminal("reserved bits right behind it", last("last", faults.reserved_bits), then=REOPENED),
    terminal("error frame right behind it", last("last", answering(wrapped("x", 500)))),
    terminal("a delta behind it", last("last", late)),
    terminal("it comes twice", last("last", again)),
    terminal("it never comes", last(), **SILENT),
    terminal("it comes without any event before", alone),
    terminal("it is fragmented, with pings between", fragmented),
    terminal("it is binary", as_binary, **SILENT),
    terminal("it is cut JSON", cut_json, **SILENT),
    terminal(
        "it is bad UTF-8",
        not_utf8,
        raises=ConnectionLost,
        delivery=DeliveryStatus.ACCEPTED,
        then=REOPENED,
        at_least_once=True,
        lost=1007,
        ways=ALL_WAYS,
    ),
    terminal("it has the wrong shape", replacing(response=7), **UNDECODABLE),
    terminal(
        "it is oversize",
        replacing(x="x" * 60_000),
        raises=MessageTooLarge,
        delivery=DeliveryStatus.ACCEPTED,
    ),
    terminal("it comes behind an error frame", stale, **BROKEN_OFF),
    terminal("`response.incomplete`", by_status("incomplete"), status="incomplete"),
    terminal("`response.done`", replacing(type="response.done")),
    terminal("it has no output", showing(None)),
    terminal("it has empty output", showing([])),
]
FAILED: Final = terminal(
    "`response.failed`", by_status("failed"), status="failed", ways=("stream", "create")
)
ENDINGS: Final = [*TERMINALS, FAILED]
