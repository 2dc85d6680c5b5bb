"""Frames to events and commands to frames.

:func:`decode_all` is on the way of every frame: one msgspec decoder over the union of events. What
that refuses goes the slow way, where an unknown type, an error in an odd wrapping and a field that
does not fit are told from a frame that is no event at all.
"""

import re
from collections.abc import Mapping, Sequence
from functools import reduce
from typing import Any, cast

import msgspec

from trio_responses._wire import lenient
from trio_responses._wire.base import Record, Unknown
from trio_responses._wire.commands import ClientEvent, ResponseCreate
from trio_responses._wire.errors import ErrorEvent, read_error
from trio_responses._wire.events import (
    EVENTS,
    ResponseCompleted,
    ResponseFailed,
    ResponseIncomplete,
    ServerEvent,
    UndecodableFrame,
    UnknownEvent,
)

_UNREADABLE = lenient.UNREADABLE
# All but errors: those come in many wrappings, and go the slow way.
_kinds: list[Any] = [kind for kind in EVENTS.values() if kind is not ErrorEvent]
_decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(reduce(lambda a, b: a | b, _kinds))


def decode_all(frames: Sequence[bytes]) -> list[ServerEvent]:
    """Decode some frames, each as :func:`decode` does."""
    events: list[ServerEvent] = []
    left = iter(frames)
    while len(events) < len(frames):
        try:
            events.extend(map(_decoder.decode, left))
        except _UNREADABLE:  # by the frame behind those that are in
            events.append(_decode_slowly(frames[len(events)]))
    return events


def decode(frame: bytes) -> ServerEvent:
    """Decode one frame. It never raises.

    An unknown type is an :class:`~trio_responses._wire.events.UnknownEvent`, every shape of error
    an :class:`~trio_responses._wire.errors.ErrorEvent`, and what is no event an
    :class:`~trio_responses._wire.events.UndecodableFrame`. Where an event keeps raw JSON it is the
    frame's own, except that half of a surrogate pair is U+FFFD there too.
    """
    return decode_all((frame,))[0]


def undecodable(raw: bytes, reason: str) -> UndecodableFrame:
    """Make a frame that is no text, or is too large, look like others that cannot be decoded.

    :param reason: words that hold nothing of the frame: they are logged.
    """
    return UndecodableFrame(raw=raw, error=reason)


class _Status(Record, frozen=True, kw_only=True):
    status: str | None = None


class _Envelope(Record, frozen=True, kw_only=True):
    """What tells where a frame belongs."""

    type: str | None = None
    stream_id: str | None = None
    sequence_number: int | None = None
    error: msgspec.Raw | None = None
    detail: msgspec.Raw | None = None
    response: _Status = _Status()


# The old name of `response.completed` tells by its status alone how the response ended.
_DONE = {"failed": ResponseFailed, "incomplete": ResponseIncomplete}

# Where an object or an array begins.
_OPENING = re.compile(rb"[\[{]")

# An escape of a string: a whole surrogate pair, half of one, or any other.
_ESCAPE = re.compile(
    rb"\\(?:u[dD][89abAB][\da-fA-F]{2}\\u[dD][c-fC-F][\da-fA-F]{2}|u[dD][89a-fA-F][\da-fA-F]{2}|.)",
    re.DOTALL,
)
_HALF_A_PAIR = len(rb"\ud83d")


def _mend(frame: bytes) -> bytes:
    """Put U+FFFD for every half of a surrogate pair: JSON may have them, msgspec refuses them."""
    if rb"\ud" not in frame.lower():
        return frame
    return _ESCAPE.sub(
        lambda found: rb"\ufffd" if len(found[0]) == _HALF_A_PAIR else found[0], frame
    )


def _decode_slowly(frame: bytes) -> ServerEvent:
    mended = _mend(frame)
    if mended != frame:
        return decode(mended)
    envelope = _Envelope()
    try:
        envelope = lenient.read(frame, _Envelope)
        kind = _kind(envelope)
        if kind is ErrorEvent:
            return read_error(frame)
        if kind is not None:
            event: ServerEvent = lenient.read_struct(frame, kind)
            return event
    except _UNREADABLE as error:
        if isinstance(error, RecursionError) and envelope.type is None:
            envelope = _beginning(frame)
        return _undecodable(frame, envelope, _reason(error))
    if envelope.type is None:
        return _undecodable(frame, envelope, "The object has no `type`")
    return UnknownEvent(
        type=envelope.type,
        stream_id=envelope.stream_id,
        sequence_number=envelope.sequence_number,
        raw=frame,
    )


def _beginning(frame: bytes) -> _Envelope:
    """Read what stands before the first value that nests, where the rest nests too deeply.

    A turn whose last frame is such a one ends then, and need not wait for a time-out.
    """
    _, flat, _ = _OPENING.split(frame, 2)
    flat, _, _ = flat.rpartition(b",")
    try:
        envelope: _Envelope = lenient.read(b"{" + flat + b"}", _Envelope)
    except _UNREADABLE:
        return _Envelope()
    return envelope


def _kind(envelope: _Envelope) -> type[Any] | None:
    """Tell which event a frame is, also by the names and shapes that only some servers use."""
    if envelope.type is None:
        bare_error = envelope.error is not None or envelope.detail is not None
        return ErrorEvent if bare_error else None
    if envelope.type == "response.error":
        return ErrorEvent
    if envelope.type == "response.done":
        return _DONE.get(envelope.response.status or "", ResponseCompleted)
    return EVENTS.get(envelope.type)


def _undecodable(frame: bytes, envelope: _Envelope, reason: str) -> UndecodableFrame:
    return UndecodableFrame(
        raw=frame,
        error=reason,
        type=envelope.type,
        stream_id=envelope.stream_id,
        sequence_number=envelope.sequence_number,
    )


def _reason(error: Exception) -> str:
    """Say what is wrong without the frame's content, which a UnicodeDecodeError carries along."""
    if isinstance(error, UnicodeDecodeError):
        return f"Invalid UTF-8 at byte {error.start}"
    if isinstance(error, RecursionError):
        return "The JSON nests too deeply"
    return str(error)


def encode(command: ClientEvent) -> bytes:
    """Encode one command.

    :raises TypeError: if a value in it cannot be JSON. The message names the field, not the value.
    :raises ValueError: if ``extra`` holds a field that the command has itself.
    """
    extra: Mapping[str, Any] = {}
    if isinstance(command, ResponseCreate) and command.extra is not msgspec.UNSET:
        extra = command.extra
        known = {"type", *command.__struct_fields__}.intersection(extra)
        if known:
            raise ValueError(f"Fields of the command itself in `extra`: {', '.join(sorted(known))}")
        command = msgspec.structs.replace(command, extra=msgspec.UNSET)
    frame = _encode(command)
    return frame[:-1] + b"," + _encode(dict(extra))[1:] if extra else frame


def _raw_or_plain(value: Any) -> Any:
    """Encode what msgspec does not know: the unknown as it came, and any mapping or sequence."""
    if isinstance(value, Unknown):
        return value.raw
    if isinstance(value, Mapping):
        return dict(cast("Mapping[object, object]", value))
    if isinstance(value, Sequence):
        return list(cast("Sequence[object]", value))
    raise TypeError(f"{type(value).__qualname__} has no JSON form")


_encoder = msgspec.json.Encoder(enc_hook=_raw_or_plain)
_UNWRITABLE = (TypeError, ValueError, OverflowError, RecursionError)


def _encode(value: Any) -> bytes:
    try:
        return _encoder.encode(value)
    except _UNWRITABLE as error:
        path, reason = _fault(value, _why(error))
        # Without its cause: a UnicodeEncodeError carries the whole text along.
        raise TypeError(f"Cannot send {path} as JSON: {reason}") from None


def _fault(value: Any, reason: str) -> tuple[str, str]:
    """Find what cannot be encoded, some levels down: its path and the reason."""
    path = type(value).__name__ if isinstance(value, msgspec.Struct) else "extra"
    for _ in range(8):
        for name, child in _children(value):
            try:
                _encoder.encode(child)
            except _UNWRITABLE as error:
                path, value, reason = path + name, child, _why(error)
                break
    return path, reason


def _children(value: Any) -> list[tuple[str, Any]]:
    if isinstance(value, msgspec.Struct):
        fields = ((f".{name}", getattr(value, name)) for name in value.__struct_fields__)
        return [(path, child) for path, child in fields if child is not msgspec.UNSET]
    if isinstance(value, Mapping):
        pairs = cast("Mapping[object, object]", value).items()
        return [(f"[{key!r}]", child) for key, child in pairs]
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        elements = enumerate(cast("Sequence[object]", value))
        return [(f"[{index}]", child) for index, child in elements]
    return []


def _why(error: Exception) -> str:
    if isinstance(error, UnicodeEncodeError):
        return "a text in it has half of a surrogate pair"
    if isinstance(error, RecursionError):
        return "it nests too deeply, or holds itself"
    return str(error)
