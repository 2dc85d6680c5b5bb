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

    from tests.faults.cells import Action
    from tests.faults.servers import Json, ServerPeer


def last(*steps: Action | str) -> Action:
    """Return an action that answers up to the last event, and then takes these steps.

    The step ``"last"`` sends that event.
    """

    async def action(peer: ServerPeer) -> None:
        *rest, end = await peer.begin()
        await peer.say(*rest)
        for step in steps:
            if not isinstance(step, str):
                await step(peer)
            elif step == "last":
                await peer.finish([end])
            elif step == "half":
                whole = peer.encode(end)
                await peer.send(whole[: len(whole) // 2])

    return action


def ending_with(change: Callable[[Json], Json]) -> Action:
    """Return an action that answers with a changed last event."""

    async def action(peer: ServerPeer) -> None:
        *rest, end = await peer.begin()
        await peer.finish([*rest, change(end)])

    return action


def by_status(status: str) -> Action:
    def change(end: Json) -> Json:
        response = {**end["response"], "status": status}
        return {**end, "type": f"response.{status}", "response": response}

    return ending_with(change)


def showing(output: list[Json] | None) -> Action:
    def change(end: Json) -> Json:
        return {**end, "response": {**end["response"], "output": output}}

    return ending_with(change)


def replacing(**fields: Any) -> Action:
    def change(end: Json) -> Json:
        return {**end, **fields}

    return ending_with(change)


async def alone(peer: ServerPeer) -> None:
    """Send the last event and nothing before it."""
    await peer.finish(peer.events()[-1:])


async def stale(peer: ServerPeer) -> None:
    """Send an error frame within a response, and then the rest of the response."""
    rest = await peer.begin()
    await peer.say(wrapped("server_error", 500))
    await peer.finish(rest)


async def late(peer: ServerPeer) -> None:
    """Send a delta after the end."""
    await peer.say(delta("late"))


async def again(peer: ServerPeer) -> None:
    """Send a second terminal event."""
    item = message("again", "msg_again")
    await peer.say(ended([item], peer.response_id))


async def fragmented(peer: ServerPeer) -> None:
    """Send the last event in three frames, with pings between."""
    *rest, end = await peer.begin()
    await peer.say(*rest)
    whole = peer.encode(end)[4:]
    assert whole.startswith(b"{")
    cut = len(whole) // 3
    await peer.send(frame(TEXT, whole[:cut], fin=False) + frame(PING))
    await peer.send(frame(0, whole[cut : 2 * cut], fin=False) + frame(PING, b"x"))
    await peer.send(frame(0, whole[2 * cut :]))
    await peer.finish([])


async def as_binary(peer: ServerPeer) -> None:
    """Send the last event in a binary frame."""
    *rest, end = await peer.begin()
    await peer.say(*rest)
    await peer.send(frame(BINARY, encoded(end).encode()))


async def cut_json(peer: ServerPeer) -> None:
    """Send the last event in a whole frame, without its last brace."""
    *rest, end = await peer.begin()
    await peer.say(*rest)
    await peer.send(text(encoded(end)[:-1]))


async def not_utf8(peer: ServerPeer) -> None:
    *rest, end = await peer.begin()
    await peer.say(*rest)
    await peer.send(text(encoded(end).encode().replace(b"You", b"Y\xffu")))


def terminal(fault: str, action: Action, **expected: Any) -> Cell:
    return Cell(phase=TERMINAL, fault=fault, action=action, **expected)


def cut_short(fault: str, *steps: Action | str, **expected: Any) -> Cell:
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
