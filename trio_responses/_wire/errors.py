"""The ``error`` event: one record for every shape in which servers wrap an error.

An error of any shape, documented or only observed, ends a request. So no field is required, and a
value of an unexpected type is converted or dropped. The layers above decide what an error means.
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import ClassVar, Final, Literal, TypeVar, cast

import msgspec

from trio_responses._wire import lenient
from trio_responses._wire.base import JSON, Agent, Event, Record
from trio_responses._wire.retry_hints import parse_retry_hint

ValueT = TypeVar("ValueT")


class ErrorEvent(Event, frozen=True, kw_only=True, tag="error"):
    """An error that ends a request: the server rejected the request, or failed to finish it.

    ``status`` is the HTTP status of the error, ``error_type`` the error's own ``type`` (such as
    ``invalid_request_error``). ``headers`` have lower-case names. ``misalignment`` is the server's
    finding, if the server made one. ``raw`` is the whole frame.
    """

    type: ClassVar[Literal["error"]] = "error"
    status: int | None = None
    code: str | None = None
    """The machine-readable code. Servers may send codes that are not documented
    (docs/protocol.md, 4)."""
    message: str = ""
    param: str | None = None
    """The field of the request that the error is about."""
    error_type: str | None = None
    headers: dict[str, str] = msgspec.field(default_factory=dict[str, str])
    misalignment: JSON = None
    raw: bytes = b""

    @property
    def retry_after(self) -> float | None:
        """The delay in seconds that the headers, or the message of a rate limit, ask for."""
        return parse_retry_hint(
            self.message,
            code=self.code,
            error_type=self.error_type,
            status=self.status,
            headers=self.headers,
        )

    def to_json(self) -> str:
        """Return the frame as received."""
        return self.raw.decode() if self.raw else super().to_json()

    def __repr__(self) -> str:
        """Return the fields without the message, which may quote the request."""
        return (
            f"ErrorEvent(status={self.status!r}, code={self.code!r},"
            f" error_type={self.error_type!r}, param={self.param!r},"
            f" stream_id={self.stream_id!r}, sequence_number={self.sequence_number!r})"
        )


class _ErrorFrame(Record, frozen=True, kw_only=True):
    """An error frame with the keys of all shapes."""

    error: JSON = None
    status: JSON = None
    status_code: JSON = None
    code: JSON = None
    message: JSON = None
    detail: JSON = None
    param: JSON = None
    headers: JSON = None
    agent: Agent | None = None
    sequence_number: int | None = None
    stream_id: str | None = None


def decode_error(frame: bytes) -> ErrorEvent:
    """Decode a frame that is an error of any shape.

    :raises msgspec.DecodeError: or another of ``DECODE_ERRORS``, if the frame is no JSON object.
    """
    outer: _ErrorFrame = lenient.decode(frame, _ErrorFrame)
    inner = _to_object(outer.error)
    if not inner:
        inner = {"message" if outer.message is None else "code": outer.error}
    return ErrorEvent(
        status=_first(
            _to_integer,
            outer.status,
            outer.status_code,
            inner.get("status"),
            inner.get("status_code"),
        ),
        code=_first(_to_text, inner.get("code"), outer.code),
        message=_first(
            _to_message, inner.get("message"), inner.get("detail"), outer.message, outer.detail
        )
        or "",
        param=_first(_to_text, inner.get("param"), outer.param),
        error_type=_to_text(inner.get("type")),
        headers=_to_headers(inner.get("headers")) | _to_headers(outer.headers),
        misalignment=inner.get("misalignment"),
        agent=outer.agent,
        sequence_number=outer.sequence_number,
        stream_id=outer.stream_id,
        raw=frame,
    )


def decode_error_body(status: int, headers: Mapping[str, str], body: bytes) -> ErrorEvent:
    """Return the error of an HTTP response in the form of an ``error`` event.

    A body that is no JSON object, such as a page, has only the status and the headers.
    """
    event = ErrorEvent()
    if body.lstrip().startswith(b"{"):
        with suppress(*lenient.DECODE_ERRORS):
            event = decode_error(body)
    lower = {name.lower(): value for name, value in headers.items()}
    return msgspec.structs.replace(event, status=status, headers=lower, raw=body)


NO_DETAIL: Final = frozenset({"set-cookie", "date", "server", "connection", "transfer-encoding"})
"""Headers of an answer that say nothing about an error."""


def error_message(status: int | None, headers: Mapping[str, str], body: bytes) -> bytes:
    """Return the ``error`` message of WebSocket mode for the HTTP answer to a request.

    :param status: the status; `None` where the status says nothing about the error.
    :param headers: the headers of the answer, names in lower case.
    :param body: the body. One that is no JSON object, such as a page, is left out.
    """
    fields: dict[str, msgspec.Raw] = {}
    if body.lstrip().startswith(b"{"):
        with suppress(*lenient.DECODE_ERRORS):
            fields = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    kept = {name: value for name, value in headers.items() if name not in NO_DETAIL}
    own = {"type": "error", "headers": kept} | ({} if status is None else {"status": status})
    return msgspec.json.encode({**fields, **own})


def _first(convert: Callable[[JSON], ValueT | None], *values: JSON) -> ValueT | None:
    """Return the first value that can be converted, or None."""
    return next((found for value in values if (found := convert(value)) is not None), None)


def _to_text(value: JSON) -> str | None:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return str(value)
    return value if isinstance(value, str) else None


def _to_message(value: JSON) -> str | None:
    """Return text unchanged and other values as JSON: some servers send a list of messages."""
    if value is None or isinstance(value, str):
        return value
    return msgspec.json.encode(value).decode()


def _to_integer(value: JSON) -> int | None:
    """Return a status as an integer: servers send ``400``, ``400.0`` and ``"400"``."""
    try:
        return msgspec.convert(value, int, strict=False)
    except msgspec.ValidationError:
        return None


def _to_headers(value: JSON) -> dict[str, str]:
    texts = ((name.lower(), _to_text(content)) for name, content in _to_object(value).items())
    return {name: text for name, text in texts if text is not None}


def _to_object(value: JSON) -> dict[str, JSON]:
    return cast("dict[str, JSON]", value) if isinstance(value, dict) else {}
