"""The frames that the test server sends.

`Frame` covers everything that a test may send raw: JSON, text, binary, and raw bytes below
WebSocket. `error_frame` writes a refusal in each shape that servers are known to use. The messages
of the refusals are those of OpenAI's server and part of the wire format: do not reword them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Self, TypeAlias, get_args


@dataclass(frozen=True, slots=True)
class WireBytes:
    """Raw bytes, written to the connection below WebSocket without any change.

    :meth:`frame` builds a WebSocket frame of any content, valid or not.
    """

    data: bytes
    """The bytes: any number of whole frames, a part of a frame, or nothing."""

    @classmethod
    def frame(cls, payload: bytes, *, opcode: int = 1, final: bool = True) -> Self:
        """Return one unmasked WebSocket frame with any payload, by default a text frame."""
        size = len(payload)
        first = bytes([(0x80 if final else 0) | opcode])
        if size < 126:  # noqa: PLR2004 - RFC 6455, section 5.2
            header = first + bytes([size])
        elif size < 1 << 16:
            header = first + b"\x7e" + size.to_bytes(2)
        else:
            header = first + b"\x7f" + size.to_bytes(8)
        return cls(header + payload)


Frame: TypeAlias = Mapping[str, Any] | str | bytes | WireBytes
"""A frame to send: a mapping as JSON, `str` as text, `bytes` as binary, `WireBytes` unchanged."""


Json: TypeAlias = dict[str, Any]

ErrorShape: TypeAlias = Literal[
    "nested", "headers", "sequenced", "status_code", "detail", "flat", "failed"
]
"""The shape of an error on the wire.

``nested``
    the documented frame: ``status`` next to an ``error`` object
``headers``
    ``nested`` with a top-level ``headers`` object
``sequenced``
    an ``error`` object with a ``sequence_number`` and no status, as an overload in mid-stream
``status_code``
    ``nested`` with ``status_code``, the early spelling of ``status``
``detail``
    ``{"error": {"detail": message}}``, as some proxies in front of the API write it
``flat``
    code, message and param at the top level, as in the SSE specification
``failed``
    no error frame: a ``response.failed`` event that carries the error
"""

ERROR_SHAPES: Final[tuple[ErrorShape, ...]] = get_args(ErrorShape)
"""All shapes of `ErrorShape`, to parametrize a test with."""

_TYPE_OF_STATUS: Final = {
    401: "authentication_error",
    403: "permission_error",
    429: "rate_limit_error",
    503: "service_unavailable_error",
}

_MESSAGES: Final = {
    "server_is_overloaded": "Our servers are overloaded at the moment. Please try again later.",
    "slow_down": "Please slow down.",
    "rate_limit_exceeded": "Rate limit reached. Please try again in 1s.",
    "insufficient_quota": "You exceeded your current quota.",
    "context_length_exceeded": "Your input exceeds the context window of this model.",
    "server_error": "The server had an error while processing your request.",
}

KNOWN_CODES: Final = frozenset(
    {
        # error frames (docs/protocol.md 4)
        *_MESSAGES,
        "previous_response_not_found",
        "websocket_connection_limit_reached",
        "websocket_stream_limit_reached",
        "invalid_stream_id",
        # invalid requests
        "empty_string",
        "integer_below_min_value",
        "invalid_request_error",
        "invalid_type",
        "invalid_value",
        "missing_required_parameter",
        "mutually_exclusive_parameters",
        "string_above_max_length",
        "unknown_parameter",
        "unsupported_parameter",
        "unsupported_value",
        # keys, models and policies
        "credit_balance_exhausted",
        "cyber_policy",
        "invalid_api_key",
        "invalid_encrypted_content",
        "model_not_found",
        "usage_limit_reached",
        "usage_not_included",
        # failed responses: the codes that the SDK types
        "bio_policy",
        "data_residency_mismatch",
        "empty_image_file",
        "failed_to_download_image",
        "image_content_policy_violation",
        "image_file_not_found",
        "image_file_too_large",
        "image_parse_error",
        "image_too_large",
        "image_too_small",
        "invalid_base64_image",
        "invalid_image",
        "invalid_image_format",
        "invalid_image_mode",
        "invalid_image_url",
        "invalid_prompt",
        "misalignment_policy_violation",
        "unsupported_image_media_type",
        "vector_store_timeout",
    }
)
"""The error codes that servers are known to send. The list is not complete."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestRefusal:
    """The reason why the server refuses a request, and the shape of its error frame."""

    message: str
    code: str | None = "invalid_request_error"
    status: int | None = 400
    param: str | None = None
    type: str | None = None
    """The value of ``error.type``; None takes the default of the status."""
    shape: ErrorShape = "nested"
    headers: Mapping[str, str | int | float | bool] = field(default_factory=dict[str, Any])

    def error_object(self) -> Json:
        """Return the JSON object under the key ``error``."""
        if self.shape == "detail":
            return {"detail": self.message}
        return {
            "type": self.type or default_error_type(self.status),
            "code": self.code,
            "message": self.message,
            "param": self.param,
        }


def default_error_type(status: int | None) -> str:
    """Return the ``error.type`` that the server sends with an HTTP status."""
    if status is None:
        return "server_error"
    default = "server_error" if status >= 500 else "invalid_request_error"  # noqa: PLR2004
    return _TYPE_OF_STATUS.get(status, default)


def default_message(code: str | None) -> str:
    """Return the ``error.message`` that the server sends with ``code`` by default."""
    return _MESSAGES.get(code or "", f"The request failed ({code}).")


def error_frame(
    refusal: RequestRefusal, *, lane: str | None = None, sequence_number: int = 0
) -> Json:
    """Return the error frame of a refusal, in its shape; the shape ``failed`` gives ``nested``.

    :param lane: The ``stream_id`` to echo; None for the default lane.
    :param sequence_number: The ``sequence_number`` of the shapes that have one.
    """
    frame: Json = {"type": "error"}
    match refusal.shape:
        case "flat":
            frame |= {"code": refusal.code, "message": refusal.message, "param": refusal.param}
            frame["sequence_number"] = sequence_number
        case "sequenced":
            frame |= {"error": refusal.error_object(), "sequence_number": sequence_number}
        case "status_code":
            frame |= {"status_code": refusal.status, "error": refusal.error_object()}
        case _:
            if refusal.status is not None:
                frame["status"] = refusal.status
            frame["error"] = refusal.error_object()
    if refusal.headers or refusal.shape == "headers":
        frame["headers"] = dict(refusal.headers)
    if lane is not None:
        frame["stream_id"] = lane
    return frame


def previous_response_not_found(
    response_id: str, *, may_be_dropped: bool = False
) -> RequestRefusal:
    """Return the refusal of an unknown ``previous_response_id`` (docs/protocol.md 4).

    :param may_be_dropped: Whether the test server may have stored the response and dropped it.
    """
    hint = (
        " The test server may have dropped it to save memory, see its option max_remembered."
        if may_be_dropped
        else ""
    )
    return RequestRefusal(
        message=f"Previous response with id '{response_id}' not found.{hint}",
        code="previous_response_not_found",
        param="previous_response_id",
    )


def response_not_found(response_id: str) -> RequestRefusal:
    """Return the refusal of a call for an unknown response (docs/protocol.md 8).

    OpenAI's message is not known.
    """
    return RequestRefusal(
        message=f"Response with id '{response_id}' not found.", code=None, status=404
    )


def event_stream_not_kept() -> RequestRefusal:
    """Return the refusal of the events of a response that was not streamed in the background.

    OpenAI's message is not known.
    """
    return RequestRefusal(
        message="Only a response that was created with 'background' and 'stream' can be streamed"
        " again.",
        code="invalid_value",
        param="stream",
    )


def connection_limit_reached(minutes: float) -> RequestRefusal:
    """Return the refusal of requests on a connection at its maximum age (docs/protocol.md 4)."""
    return RequestRefusal(
        message=f"Responses websocket connection limit reached ({minutes:g} minutes). "
        "Create a new websocket connection to continue.",
        code="websocket_connection_limit_reached",
    )


def stream_limit_reached(limit: int) -> RequestRefusal:
    """Return the refusal of one ``stream_id`` more than the limit (docs/protocol.md 4)."""
    return RequestRefusal(
        message=f"A websocket connection supports at most {limit} distinct stream IDs.",
        code="websocket_stream_limit_reached",
        param="stream_id",
    )


def invalid_stream_id() -> RequestRefusal:
    """Return the refusal of an invalid ``stream_id`` (docs/protocol.md 4).

    The error frame has no ``stream_id``.
    """
    return RequestRefusal(
        message="stream_id must be a non-empty string of at most 256 characters: letters, "
        "numbers, underscores, hyphens and periods.",
        code="invalid_stream_id",
        param="stream_id",
    )


def unsupported_stream_id() -> RequestRefusal:
    """Return the refusal of any ``stream_id`` by a server without lanes (docs/protocol.md 5.2)."""
    return RequestRefusal(message="Unsupported parameter: stream_id", shape="detail")
