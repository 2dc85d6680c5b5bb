"""The codec: decodes frames into events and encodes client events into frames.

:func:`decode_all` first tries one msgspec decoder over the union of all events. A frame that this
decoder rejects is decoded leniently: unknown types, errors of undocumented shape and fields that do
not match become events too. Only a frame that is no event becomes an ``UndecodableFrame``. Decoding
never raises.
"""

import re
import sys
from collections.abc import Mapping, Sequence
from functools import reduce
from typing import Any, cast

import msgspec

from trio_responses._wire import lenient
from trio_responses._wire.base import Event, Item, Record, Unknown
from trio_responses._wire.commands import ClientEvent, ResponseCreate
from trio_responses._wire.errors import ErrorEvent, decode_error
from trio_responses._wire.events import (
    EVENTS,
    ResponseCompleted,
    ResponseFailed,
    ResponseIncomplete,
    ServerEvent,
    UndecodableFrame,
    UnknownEvent,
)
from trio_responses._wire.items import raw_for_input
from trio_responses._wire.nesting import (
    MAX_DECODED_LEVELS,
    MAX_SKIPPED_LEVELS,
    SHALLOW_BYTES,
    check_nesting,
    nests_deeper,
)
from trio_responses._wire.param_checks import check_numbers

# Without errors: servers send them in many shapes, all of which `decode_error` reads.
_event_classes: list[Any] = [cls for cls in EVENTS.values() if cls is not ErrorEvent]
_event_decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(
    reduce(lambda union, cls: union | cls, _event_classes)
)


def decode_all(frames: Sequence[bytes], most_odd: int = sys.maxsize) -> list[ServerEvent]:
    """Decode frames into events, as :func:`decode` decodes one.

    :param most_odd: the number of frames that are decoded leniently, which takes ten times as long.
        The last of them is the last frame that is decoded.
    """
    events: list[ServerEvent] = []
    remaining = iter(frames)
    sizes = list(map(len, frames))
    deep: set[int] = set()
    if max(sizes, default=0) > SHALLOW_BYTES:
        large = [number for number, size in enumerate(sizes) if size > SHALLOW_BYTES]
        deep = {number for number in large if nests_deeper(frames[number], MAX_DECODED_LEVELS)}
    if deep:  # the decoder rejects an empty frame
        checked = list(frames)
        for number in deep:
            checked[number] = b""
        remaining = iter(checked)
    while len(events) < len(frames):
        try:
            events.extend(map(_event_decoder.decode, remaining))
        except (
            lenient.DECODE_ERRORS
        ):  # raised for the frame after those that `events` already holds
            number = len(events)
            events.append(_decode_leniently(frames[number], deep=number in deep))
            most_odd -= 1
            if most_odd == 0:
                break
    return events


def decode(frame: bytes) -> ServerEvent:
    """Decode one frame into an event. Never raises.

    An unknown type becomes an :class:`~trio_responses._wire.events.UnknownEvent`, an error of any
    shape an :class:`~trio_responses._wire.errors.ErrorEvent`, and a frame that is no event an
    :class:`~trio_responses._wire.events.UndecodableFrame`. Raw JSON in an event equals the bytes of
    the frame, except that U+FFFD replaces lone surrogates.
    """
    return decode_all((frame,))[0]


class _ResponseStatus(Record, frozen=True, kw_only=True):
    status: str | None = None


class _Envelope(Record, frozen=True, kw_only=True):
    """The fields of a frame that decide which event the frame is and which request it is for."""

    type: str | None = None
    stream_id: str | None = None
    sequence_number: int | None = None
    error: msgspec.Raw | None = None
    detail: msgspec.Raw | None = None
    response: _ResponseStatus = _ResponseStatus()


# `response.done`, the old name of `response.completed`, states only by its status how the response
# ended.
_DONE_EVENTS: dict[str, type[Event]] = {
    "failed": ResponseFailed,
    "incomplete": ResponseIncomplete,
}

# The start of an object or an array.
_OPENING = re.compile(rb"[\[{]")


def _decode_leniently(frame: bytes, *, deep: bool) -> ServerEvent:
    replaced = lenient.replace_lone_surrogates(frame)
    if replaced != frame:
        return decode(replaced)
    envelope = _Envelope()
    try:
        if deep:
            check_nesting(frame, MAX_SKIPPED_LEVELS)
        envelope = lenient.decode(frame, _Envelope, shallow=not deep)
        event_class = _event_class(envelope)
        if event_class is ErrorEvent:
            return decode_error(frame)
        if event_class is not None:
            return cast("ServerEvent", lenient.decode_struct(frame, event_class, shallow=not deep))
    except lenient.DECODE_ERRORS as error:
        if isinstance(error, RecursionError) and envelope.type is None:
            envelope = _decode_beginning(frame)
        return _undecodable(frame, envelope, _describe_decode_error(error))
    if envelope.type is None:
        return _undecodable(frame, envelope, "The object has no `type`")
    return UnknownEvent(
        wire_type=envelope.type,
        stream_id=envelope.stream_id,
        sequence_number=envelope.sequence_number,
        raw=frame,
    )


def _decode_beginning(frame: bytes) -> _Envelope:
    """Decode the fields before the first nested value of a frame that nests too deeply.

    With the type, a turn whose terminal event nests too deeply ends at once, without a time-out.
    """
    _, flat, _ = _OPENING.split(frame, 2)
    flat, _, _ = flat.rpartition(b",")
    try:
        envelope: _Envelope = lenient.decode(b"{" + flat + b"}", _Envelope)
    except lenient.DECODE_ERRORS:
        return _Envelope()
    return envelope


def _event_class(envelope: _Envelope) -> type[Event] | None:
    """Return the class of an event, also for names and shapes that only some servers use."""
    if envelope.type is None:
        has_error = envelope.error is not None or envelope.detail is not None
        return ErrorEvent if has_error else None
    if envelope.type == "response.error":
        return ErrorEvent
    if envelope.type == "response.done":
        return _DONE_EVENTS.get(envelope.response.status or "", ResponseCompleted)
    if envelope.type == "response.cancelled":  # seen from gateways; its response is not complete
        return ResponseIncomplete
    return EVENTS.get(envelope.type)


def _undecodable(frame: bytes, envelope: _Envelope, reason: str) -> UndecodableFrame:
    return UndecodableFrame(
        raw=frame,
        error=reason,
        wire_type=envelope.type,
        stream_id=envelope.stream_id,
        sequence_number=envelope.sequence_number,
    )


def _describe_decode_error(error: Exception) -> str:
    """Return the reason without content of the frame, which UnicodeDecodeError includes."""
    if isinstance(error, UnicodeDecodeError):
        return f"Invalid UTF-8 at byte {error.start}"
    return str(error)


def encode(command: ClientEvent | Mapping[str, Any]) -> bytes:
    """Encode one client event, or a mapping, as a frame.

    :raises TypeError: if a value cannot be encoded as JSON. The message names the field and leaves
        out the value.
    :raises ValueError: if ``extra`` contains a field that the client event has itself, and for a
        number that JSON lacks (NaN, infinities). The message names the field.
    """
    if not isinstance(command, ClientEvent):
        given = command.get("input")
        if not isinstance(given, str) and isinstance(given, Sequence):
            command = {**command, "input": _as_received(cast("Sequence[Any]", given))}  # type: ignore[redundant-cast]
        return _encode_json(command, "event")
    given = command.input
    if not isinstance(given, str) and isinstance(given, Sequence):
        command = msgspec.structs.replace(command, input=_as_received(given))
    extra: Mapping[str, Any] = {}
    if isinstance(command, ResponseCreate) and command.extra is not msgspec.UNSET:
        extra = command.extra
        known = {"type", *command.__struct_fields__}.intersection(extra)
        if known:
            raise ValueError(
                f"`extra` contains fields that ResponseCreate has: {', '.join(sorted(known))}."
                " Pass these as parameters; `extra` is for fields that ResponseCreate lacks."
            )
        command = msgspec.structs.replace(command, extra=msgspec.UNSET)
    frame = _encode_json(command, type(command).__name__)
    return frame[:-1] + b"," + _encode_json(dict(extra), "extra")[1:] if extra else frame


def _as_received(items: Sequence[Any]) -> Sequence[Any]:
    """Return an input whose received items are their JSON, so that no field is lost."""
    if not any(issubclass(kind, Item) for kind in set(map(type, items))):
        return items
    raws = [raw_for_input(item) if isinstance(item, Item) else None for item in items]
    return [item if raw is None else raw for item, raw in zip(items, raws, strict=True)]


def _encode_other(value: Any) -> Any:
    """Encode values that msgspec does not: unknown objects as received, mappings and sequences."""
    if isinstance(value, Unknown):
        return value.raw
    if isinstance(value, Mapping):
        return dict(cast("Mapping[object, object]", value))
    if isinstance(value, Sequence):
        return list(cast("Sequence[object]", value))
    raise TypeError(f"an object of type {type(value).__qualname__} has no JSON form")


_encoder = msgspec.json.Encoder(enc_hook=_encode_other)
_ENCODE_ERRORS = (TypeError, ValueError, OverflowError, RecursionError)


def _encode_json(value: Any, path: str) -> bytes:
    """Return a value as JSON.

    :param path: the name of the value in messages.
    """
    try:
        frame = _encoder.encode(value)
    except _ENCODE_ERRORS as error:
        path, reason = _locate_encode_error(value, path, _describe_encode_error(error))
        # Without its cause: a UnicodeEncodeError holds the whole text.
        raise TypeError(f"Cannot send {path} as JSON: {reason}") from None
    if b"null" in frame:  # as which msgspec encodes NaN and infinities
        check_numbers(value, path)
    return frame


def _locate_encode_error(value: Any, path: str, reason: str) -> tuple[str, str]:
    """Return the path of the value that cannot be encoded, at most 8 levels deep, and why."""
    for _ in range(8):
        for name, child in _children(value):
            try:
                _encoder.encode(child)
            except _ENCODE_ERRORS as error:
                path, value, reason = path + name, child, _describe_encode_error(error)
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


def _describe_encode_error(error: Exception) -> str:
    if isinstance(error, UnicodeEncodeError):
        return "a string contains a lone surrogate"
    if isinstance(error, RecursionError):
        return "the value nests too deeply, or contains itself"
    return str(error)
