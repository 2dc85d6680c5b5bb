"""The ``error`` event: one record for every shape in which servers wrap an error.

Whether a shape is documented or only seen, it ends a request; so nothing here is required, and
what has an odd type is converted or dropped. What an error means is decided elsewhere.
"""

from typing import Any, cast

import msgspec

from trio_responses._wire import lenient
from trio_responses._wire.base import JSON, Event, Record
from trio_responses._wire.retry_hints import parse_retry_after, retry_after_in


class ErrorEvent(Event, frozen=True, kw_only=True, tag="error"):
    """A server refused a request, or gave up on it.

    ``status`` is the HTTP status that it would have had, ``error_type`` the error's own ``type``
    (such as ``invalid_request_error``), ``headers`` have lower-case names, ``misalignment`` is
    the server's finding where it made one, and ``raw`` is the whole frame.
    """

    status: int | None = None
    code: str | None = None
    """The machine-readable code; the set is open (docs/protocol.md, 4)."""
    message: str = ""
    param: str | None = None
    """The field of the request that it is about."""
    error_type: str | None = None
    headers: dict[str, str] = msgspec.field(default_factory=dict[str, str])
    misalignment: JSON = None
    raw: bytes = b""

    @property
    def retry_after(self) -> float | None:
        """The delay in seconds that the headers ask for, or a rate limit's message."""
        delay = parse_retry_after(self.headers)
        if delay is None and self.code == "rate_limit_exceeded":
            delay = retry_after_in(self.message)
        return delay

    def __repr__(self) -> str:
        """Leave out the message, which may quote the request."""
        return (
            f"ErrorEvent(status={self.status!r}, code={self.code!r},"
            f" error_type={self.error_type!r}, param={self.param!r},"
            f" stream_id={self.stream_id!r}, sequence_number={self.sequence_number!r})"
        )


class _Frame(Record, frozen=True, kw_only=True):
    """All keys of all shapes."""

    error: JSON = None
    status: JSON = None
    status_code: JSON = None
    code: JSON = None
    message: JSON = None
    detail: JSON = None
    param: JSON = None
    headers: JSON = None
    sequence_number: int | None = None
    stream_id: str | None = None


def read_error(frame: bytes) -> ErrorEvent:
    """Make an :class:`ErrorEvent` of any JSON object that is an error.

    :raises msgspec.DecodeError: or another of ``UNREADABLE`` if the frame is no JSON object.
    """
    outer: _Frame = lenient.read(frame, _Frame)
    inner = _object(outer.error)
    if not inner:
        inner = {"message" if outer.message is None else "code": outer.error}
    return ErrorEvent(
        status=_first(
            _integer,
            outer.status,
            outer.status_code,
            inner.get("status"),
            inner.get("status_code"),
        ),
        code=_first(_text, inner.get("code"), outer.code),
        message=_first(
            _words, inner.get("message"), inner.get("detail"), outer.message, outer.detail
        )
        or "",
        param=_first(_text, inner.get("param"), outer.param),
        error_type=_text(inner.get("type")),
        headers=_headers(inner.get("headers")) | _headers(outer.headers),
        misalignment=inner.get("misalignment"),
        sequence_number=outer.sequence_number,
        stream_id=outer.stream_id,
        raw=frame,
    )


def _first(convert: Any, *values: JSON) -> Any:
    """Return the first value that converts to something."""
    return next((found for value in values if (found := convert(value)) is not None), None)


def _text(value: JSON) -> str | None:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return str(value)
    return value if isinstance(value, str) else None


def _words(value: JSON) -> str | None:
    """Return text as it is and anything else but null as JSON: some servers send a list here."""
    if value is None or isinstance(value, str):
        return value
    return msgspec.json.encode(value).decode()


def _integer(value: JSON) -> int | None:
    """Return a status: ``400``, ``400.0`` or ``"400"``."""
    try:
        return msgspec.convert(value, int, strict=False)
    except msgspec.ValidationError:
        return None


def _headers(value: JSON) -> dict[str, str]:
    texts = ((name.lower(), _text(content)) for name, content in _object(value).items())
    return {name: text for name, text in texts if text is not None}


def _object(value: JSON) -> dict[str, JSON]:
    return cast("dict[str, JSON]", value) if isinstance(value, dict) else {}
