"""The cells of error frames in all shapes, before the first event and within a response."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from tests.faults import faults
from tests.faults.cells import (
    BEFORE,
    FRESH,
    MID_STREAM,
    Cell,
)
from trio_responses import (
    APIError,
    DeliveryStatus,
    InvalidStreamId,
    PreviousResponseNotFound,
    RateLimitError,
    ServerOverloaded,
    StreamLimitReached,
)

if TYPE_CHECKING:
    from tests.faults.cells import Action
    from tests.faults.servers import Json, ServerPeer


def wrapped(code: str | None, status: int | None, **more: Any) -> Json:
    inner = {"type": "some_error", "code": code, "message": "No.", "param": None}
    frame: Json = {"type": "error", "error": inner, **more}
    return frame if status is None else {**frame, "status": status}


def answering(error: Json, *, within: bool = False) -> Action:
    async def action(peer: ServerPeer) -> None:
        if within:
            await peer.begin()
        await peer.say(error)

    return action


SHAPES: Final[dict[str, Json]] = {
    "documented error": wrapped("server_error", 400),
    "error with headers": wrapped("server_error", 400, headers={"retry-after": 2}),
    "error with `status_code`": wrapped("server_error", None, status_code=400),
    "error with a bare `detail`": {
        "type": "error",
        "status": 400,
        "error": {"detail": "Unsupported parameter: generate"},
    },
    "flat error": {"type": "error", "code": "invalid_prompt", "message": "No.", "status": 400},
    "error without a type": {"error": {"code": "server_error", "message": "No."}, "status": 400},
    "`detail` alone": {"detail": "No.", "status": 400},
    "error that is a word": {"type": "error", "error": "No.", "status": 400},
    "`response.error`": {**wrapped("server_error", 400), "type": "response.error"},
}
UNSAID: Final[dict[str, Json]] = {
    "nested error without a status": wrapped("server_error", None),
    "flat error without a status": {"type": "error", "code": "server_error", "message": "No."},
    "empty error": {"type": "error"},
    "error of status 500": wrapped("server_error", 500),
}
FIRST_RETRY: Final = 0.5
"""The longest delay before the first retry of a turn, in seconds."""
CODES: Final[list[tuple[str, int | None, type[APIError], DeliveryStatus]]] = [
    ("rate_limit_exceeded", 429, RateLimitError, DeliveryStatus.REJECTED),
    ("rate_limit_exceeded", None, RateLimitError, DeliveryStatus.REJECTED),
    ("insufficient_quota", 429, RateLimitError, DeliveryStatus.REJECTED),
    ("context_length_exceeded", 400, APIError, DeliveryStatus.REJECTED),
    ("websocket_stream_limit_reached", 400, StreamLimitReached, DeliveryStatus.REJECTED),
    ("server_is_overloaded", 503, ServerOverloaded, DeliveryStatus.AMBIGUOUS),
    ("server_is_overloaded", None, ServerOverloaded, DeliveryStatus.AMBIGUOUS),
    ("slow_down", 503, ServerOverloaded, DeliveryStatus.AMBIGUOUS),
]


def refused(
    fault: str, error: Json, kind: type[APIError], delivery: DeliveryStatus, **more: Any
) -> list[Cell]:
    """Return the cells of an error frame: it ends its turn, and the socket goes on.

    A rate limit and an error of the server are repeated after a delay.
    """
    code = str(error.get("code") or error.get("error"))
    limited = kind is RateLimitError and "insufficient_quota" not in code
    if limited or delivery is DeliveryStatus.AMBIGUOUS:
        more |= {"at_least_once": True, "delayed": FIRST_RETRY}
    before = Cell(
        phase=BEFORE,
        fault=fault,
        action=answering(error),
        raises=kind,
        delivery=delivery,
        **more,
    )
    within = replace(
        before,
        phase=MID_STREAM,
        action=answering(error, within=True),
        delivery=DeliveryStatus.ACCEPTED,
    )
    if limited:
        before = replace(before, raises=None, delivery=None, repeated=True)
    return [before, within]


KINDS: Final[list[tuple[str, Json, type[APIError], DeliveryStatus]]] = [
    *((name, error, APIError, DeliveryStatus.REJECTED) for name, error in SHAPES.items()),
    *((name, error, APIError, DeliveryStatus.AMBIGUOUS) for name, error in UNSAID.items()),
    *(
        (
            f"`{code}`, {f'status {status}' if status else 'no status'}",
            wrapped(code, status),
            kind,
            delivery,
        )
        for code, status, kind, delivery in CODES
    ),
]
"""All error frames, with the exception and its delivery before the first event."""
ERRORS: Final = [cell for kind in KINDS for cell in refused(*kind)]
NO_PARENT: Final = wrapped("previous_response_not_found", 400)
LIMIT: Final = wrapped("websocket_connection_limit_reached", 400)
SPECIAL: Final = [
    Cell(
        phase=BEFORE,
        fault="`previous_response_not_found`, in a conversation",
        action=answering(NO_PARENT),
        repeated=True,
        ways=("conversation",),
    ),
    Cell(
        phase=BEFORE,
        fault="`previous_response_not_found`, elsewhere",
        action=answering(NO_PARENT),
        raises=PreviousResponseNotFound,
        delivery=DeliveryStatus.REJECTED,
        ways=("stream",),
    ),
    Cell(
        phase=BEFORE,
        fault="`invalid_stream_id`, without the lane",
        action=faults.say_raw(wrapped("invalid_stream_id", 400)),
        raises=InvalidStreamId,
        delivery=DeliveryStatus.REJECTED,
        ways=("conversation",),
    ),
    Cell(
        phase=BEFORE,
        fault="`websocket_connection_limit_reached`",
        action=answering(LIMIT),
        then=FRESH,
        repeated=True,
    ),
    *(
        replace(
            cell,
            fault="error, where sockets fall silent after one",
            then=FRESH,
            silent_after_error=True,
            ways=("stream",),
        )
        for cell in refused("", wrapped("server_error", 400), APIError, DeliveryStatus.REJECTED)
    ),
]

REFUSALS: Final = [*ERRORS, *SPECIAL]
