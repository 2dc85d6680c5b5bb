"""The cells of a response that is steered."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from tests.faults import faults
from tests.faults.cells import DEAD, FRESH, OVER, REOPENED, STALL, Steered
from tests.faults.refusals import wrapped
from trio_responses import (
    APIError,
    ConnectionLost,
    DeliveryStatus,
    KeepaliveTimeout,
    StallTimeout,
    SteerState,
)

if TYPE_CHECKING:
    from tests.faults.cells import Action
    from tests.faults.servers import Json, ServerPeer

STEER_ID: Final = "steer_1"


class Steering:
    """The actions of a server for a response that is steered, step by step."""

    def __init__(self) -> None:
        self._rest: list[Json] = []

    async def begin(self, peer: ServerPeer) -> None:
        """Begin to answer, and read the steering input."""
        self._rest = await peer.begin()
        await peer.read_command()

    async def accept(self, peer: ServerPeer) -> None:
        steer = {"id": STEER_ID, "previous_response_id": peer.response_id}
        await peer.say({"type": "response.steer.accepted", "steer": steer})

    async def fail(self, peer: ServerPeer) -> None:
        error = {"type": "invalid_request_error", "code": "successor_creation_failed"}
        steer = {"id": STEER_ID, "previous_response_id": peer.response_id}
        await peer.say({"type": "response.steer.failed", "steer": steer, "error": error})

    async def refuse(self, peer: ServerPeer) -> None:
        """Answer as a server without steering."""
        await peer.say(wrapped("unknown_command", 400))

    async def break_off(self, peer: ServerPeer) -> None:
        """End the response by an error."""
        await peer.say(wrapped("server_error", 500))

    async def finish(self, peer: ServerPeer) -> None:
        await peer.finish(self._rest)

    async def succeed(self, peer: ServerPeer) -> None:
        """Begin the successor."""
        peer.command = {"input": "Stop."}
        self._rest = await peer.begin()


def steered(fault: str, *steps: str | Action, **expected: Any) -> Steered:
    async def action(peer: ServerPeer) -> None:
        play = Steering()
        await play.begin(peer)
        for step in steps:
            await (getattr(play, step)(peer) if isinstance(step, str) else step(peer))

    return Steered(fault=fault, action=action, **expected)


LOST: Final[dict[str, Any]] = {
    "raises": ConnectionLost,
    "delivery": DeliveryStatus.ACCEPTED,
    "then": REOPENED,
    "receipt": SteerState.UNKNOWN,
    "at_least_once": True,
}
SILENT: Final[dict[str, Any]] = {
    "raises": StallTimeout,
    "delivery": DeliveryStatus.ACCEPTED,
    "after": STALL,
    "then": FRESH,
    "receipt": SteerState.UNKNOWN,
    "at_least_once": True,
}
ANSWERED: Final[dict[str, Any]] = {**LOST, "raises": None, "delivery": None, "at_least_once": False}


STEERED: Final = [
    steered(
        "none", "accept", "finish", "succeed", "finish", receipt=SteerState.COMMITTED, responses=2
    ),
    steered("reset before an answer to it", faults.reset, **LOST),
    steered("FIN before an answer to it", faults.fin, **LOST),
    steered("close 1001 before an answer to it", faults.close_with(1001), **LOST),
    steered("close 1008 before an answer to it", faults.close_with(1008), **{**LOST, "then": OVER}),
    steered(
        "half-open before an answer to it",
        faults.half_open,
        **{**LOST, "raises": KeepaliveTimeout, "after": DEAD},
    ),
    steered("stall before an answer to it", **SILENT),
    steered("reset once it is accepted", "accept", faults.reset, **LOST),
    steered("bad UTF-8 once it is accepted", "accept", faults.bad_utf8, **LOST),
    steered("stall once it is accepted", "accept", **SILENT),
    steered(
        "bad JSON in the place of an answer",
        faults.bad_json,
        "accept",
        "finish",
        "succeed",
        "finish",
        receipt=SteerState.COMMITTED,
        responses=2,
    ),
    steered("it is given back", "accept", "finish", "fail", receipt=SteerState.FAILED),
    steered("it is refused by an error frame", "refuse", "finish", receipt=SteerState.FAILED),
    steered(
        "error frame in the place of the successor",
        "accept",
        "finish",
        "refuse",
        receipt=SteerState.FAILED,
    ),
    steered(
        "error frame that ends the response",
        "accept",
        "break_off",
        raises=APIError,
        delivery=DeliveryStatus.ACCEPTED,
        receipt=SteerState.UNKNOWN,
        at_least_once=True,
        delayed=0.5,
    ),
    steered("reset in the place of the successor", "accept", "finish", faults.reset, **ANSWERED),
    steered(
        "close 1001 in the place of the successor",
        "accept",
        "finish",
        faults.close_with(1001),
        **ANSWERED,
    ),
    steered(
        "stall in the place of the successor",
        "accept",
        "finish",
        **{**ANSWERED, "after": STALL, "then": FRESH},
    ),
    steered("no word about it at all", "finish", **{**ANSWERED, "after": STALL, "then": FRESH}),
    steered(
        "reset within the successor",
        "accept",
        "finish",
        "succeed",
        faults.reset,
        **{**LOST, "receipt": SteerState.COMMITTED},
    ),
    steered(
        "stall within the successor",
        "accept",
        "finish",
        "succeed",
        **{**SILENT, "receipt": SteerState.COMMITTED},
    ),
]
