"""HTTP answers of the test server: JSON, errors and server-sent events as bytes. No I/O."""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from trio_responses.testing._frames import Frame, RequestRefusal, default_error_type
from trio_responses.testing._scripts import HTTPAnswer
from trio_responses.testing._stored import error_of

EVENT_STREAM: Final = "text/event-stream; charset=utf-8"
JSON_TYPE: Final = "application/json"

_STATUS_OF_TYPE: Final[Mapping[Any, int]] = {
    default_error_type(status): status for status in (400, 401, 403, 429, 500, 503)
}


def json_answer(value: Any, status: int = 200, **headers: str) -> HTTPAnswer:
    """Return an answer with a JSON body."""
    return HTTPAnswer(
        status=status,
        headers={"Content-Type": JSON_TYPE, **headers},
        body=msgspec.json.encode(value),
    )


def json_refusal(
    status: int, *, code: str | None, message: str, headers: Mapping[str, str]
) -> HTTPAnswer:
    """Return an answer with the JSON error of the API in its body."""
    error = RequestRefusal(message=message, code=code, status=status).error_object()
    return json_answer({"error": error}, status, **headers)


def refusal_answer(refusal: RequestRefusal) -> HTTPAnswer:
    """Return the answer to a request that the server refuses."""
    return json_answer({"error": refusal.error_object()}, refusal.status or 500)


def error_answer(frame: Mapping[str, Any]) -> HTTPAnswer:
    """Return the answer that stands for an ``error`` event before any other event.

    An event without a status gets the status of its error type.
    """
    error = error_of(frame)
    status: Any = frame.get("status", frame.get("status_code"))
    if not isinstance(status, int):
        status = _STATUS_OF_TYPE.get(error.get("type"), 500)
    if "detail" not in error:
        error.setdefault("type", default_error_type(status))
    return json_answer({"error": error}, status, **header_texts(frame.get("headers") or {}))


def header_texts(headers: Mapping[str, Any]) -> dict[str, str]:
    """Return the ``headers`` of an error event as HTTP headers."""
    return {
        name: str(value).lower() if isinstance(value, bool) else str(value)
        for name, value in headers.items()
    }


def event_bytes(frame: Frame) -> bytes:
    """Return a frame as a server-sent event.

    Text becomes an event without a type. `bytes` go into the body unchanged.
    """
    if isinstance(frame, bytes):
        return frame
    if isinstance(frame, str):
        return "".join(f"data: {line}\n" for line in frame.split("\n")).encode() + b"\n"
    if not isinstance(frame, Mapping):
        return b""
    kind: Any = frame.get("type")
    event = f"event: {kind}\n".encode() if isinstance(kind, str) else b""
    return event + b"data: " + msgspec.json.encode(frame) + b"\n\n"
