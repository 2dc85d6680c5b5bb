"""Lenient decoding: reads JSON that msgspec's strict decoders reject.

One rule holds at every depth: **a value that cannot be decoded becomes the default of its field**.
A tagged object that is unknown or lacks a required field becomes the
:class:`~trio_responses._wire.base.Unknown` of its family. An untagged object that lacks a required
field is rejected, and the field that holds the object takes its default. ``"3"`` and ``3.0`` are
accepted as integers first.

The recursion follows the declared types, which are not recursive, so hostile JSON cannot deepen
it. Each level parses its bytes a fixed number of times.
"""

import functools
import inspect
import re
import types
import typing
from typing import Any, TypeVar

import msgspec

from trio_responses._wire.base import Item, JSONText, Part
from trio_responses._wire.nesting import (
    MAX_DECODED_LEVELS,
    MAX_SKIPPED_LEVELS,
    SHALLOW_BYTES,
    check_nesting,
)

StructT = TypeVar("StructT", bound=msgspec.Struct)

DECODE_ERRORS = (msgspec.MsgspecError, ValueError, RecursionError)
"""The exceptions that msgspec raises on bad JSON; UnicodeDecodeError is a ValueError."""


class _Tag(msgspec.Struct, frozen=True, gc=False):
    type: str = ""


_object_decoder: msgspec.json.Decoder[dict[str, msgspec.Raw]] = msgspec.json.Decoder(
    dict[str, msgspec.Raw]
)
_array_decoder: msgspec.json.Decoder[list[msgspec.Raw]] = msgspec.json.Decoder(list[msgspec.Raw])
_tag_decoder: msgspec.json.Decoder[_Tag] = msgspec.json.Decoder(_Tag)

# A surrogate that is not part of a pair. Escaped backslashes have to be masked before.
_LONE_SURROGATE = re.compile(
    rb"\\u[dD](?:[89abAB][\da-fA-F]{2}(?!\\u[dD][c-fC-F][\da-fA-F]{2})"
    rb"|(?<!\\u[dD][89abAB][\da-fA-F]{2}\\u[dD])[c-fC-F][\da-fA-F]{2})"
)
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_REPLACEMENT = rb"\\ufffd"  # a template
_ESCAPED_BACKSLASH = rb"\\"
_MASKED = b"\xff\xff"  # no byte of UTF-8
_CHUNK = 64 * 1024
_OVERLAP = 12
"""The bytes before and after an escape that decide whether it is a lone surrogate."""


def replace_lone_surrogates(frame: bytes) -> bytes:
    """Replace lone surrogates with U+FFFD: JSON allows lone surrogates, msgspec rejects them.

    The replacement has the same length. Chunks bound the memory that the pieces between
    replacements take.
    """
    if _SURROGATE.search(frame) is None or b"\xff" in frame:
        return frame
    masked = frame.replace(_ESCAPED_BACKSLASH, _MASKED)
    if _LONE_SURROGATE.search(masked) is None:
        return frame
    result = bytearray()
    for start in range(0, len(masked), _CHUNK):
        before = min(start, _OVERLAP)
        piece = masked[start - before : start + _CHUNK + _OVERLAP]
        result += _LONE_SURROGATE.sub(_REPLACEMENT, piece)[before : before + _CHUNK]
    del masked
    return bytes(result.replace(_MASKED, _ESCAPED_BACKSLASH))


def replace_surrogates(value: Any) -> Any:
    """Return JSON data whose texts UTF-8 can encode: U+FFFD replaces lone surrogates in them.

    The two halves of a pair become one character. Texts inside dicts and lists are replaced, too.
    """
    if isinstance(value, str):
        units = value.encode("utf-16-le", "surrogatepass")
        return units.decode("utf-16-le", "replace")
    if issubclass(type(value), dict):
        return {replace_surrogates(key): replace_surrogates(each) for key, each in value.items()}
    if issubclass(type(value), list):
        return list(map(replace_surrogates, value))
    return value


@functools.cache
def _decoder_of(type_: Any) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(type_, strict=False)


def decode_strictly(decoder: msgspec.json.Decoder[Any], raw: bytes | msgspec.Raw) -> Any:
    """Decode JSON with a strict decoder, unless it has too many levels.

    :raises msgspec.DecodeError: or another of :data:`DECODE_ERRORS`.
    """
    if memoryview(raw).nbytes > SHALLOW_BYTES:
        check_nesting(raw)
    return decoder.decode(raw)


@functools.cache
def _fields_of(type_: type[msgspec.Struct]) -> tuple[msgspec.structs.FieldInfo, ...]:
    return msgspec.structs.fields(type_)


def decode(raw: bytes | msgspec.Raw, type_: Any, *, shallow: bool = False) -> Any:
    """Decode JSON as a type, with defaults and unknown objects for the values that do not match.

    :param type_: the annotation of a Struct field of this package: a scalar, ``Raw``, ``Any``, a
        Struct, a list or a union of these.
    :param shallow: whether the JSON is known to have at most ``MAX_DECODED_LEVELS`` levels.
    :raises msgspec.DecodeError: or another of :data:`DECODE_ERRORS`, if no default applies.
    """
    try:
        if not shallow:
            check_nesting(raw, MAX_SKIPPED_LEVELS if type_ is msgspec.Raw else MAX_DECODED_LEVELS)
        return _decoder_of(type_).decode(raw)
    except DECODE_ERRORS:
        if type_ == JSONText:
            return "" if bytes(raw) == b"null" else bytes(raw).decode()
        origin = typing.get_origin(type_)
        if origin is list:
            (element,) = typing.get_args(type_)
            return [decode(part, element, shallow=shallow) for part in _array_decoder.decode(raw)]
        if origin in (types.UnionType, typing.Union):
            return _decode_union(raw, typing.get_args(type_), shallow=shallow)
        if inspect.isclass(type_) and issubclass(type_, (Item, Part)):
            return _decode_tagged(raw, [type_], shallow=shallow)
        if inspect.isclass(type_) and issubclass(type_, msgspec.Struct):
            return decode_struct(raw, type_, shallow=shallow)
        raise


def decode_struct(
    raw: bytes | msgspec.Raw, type_: type[StructT], *, shallow: bool = False
) -> StructT:
    """Decode a JSON object as a Struct, whatever the value of its ``type`` field is.

    :raises msgspec.DecodeError: or another of :data:`DECODE_ERRORS`, if the JSON is no object, or a
        required field is missing or does not match.
    """
    received = _object_decoder.decode(raw)
    values: dict[str, Any] = {}
    for field in _fields_of(type_):
        if field.encode_name in received:
            try:
                values[field.name] = decode(
                    received[field.encode_name], field.type, shallow=shallow
                )
            except DECODE_ERRORS:
                if field.required:
                    raise
        elif field.type == JSONText and issubclass(type_, Item):
            values[field.name] = ""
        elif field.required:
            raise msgspec.ValidationError(f"Object missing required field `{field.encode_name}`")
    return type_(**values)


def _decode_union(raw: bytes | msgspec.Raw, members: tuple[Any, ...], *, shallow: bool) -> Any:
    tagged: list[type[Item | Part]] = []
    for member in members:
        if inspect.isclass(member) and issubclass(member, (Item, Part)):
            tagged.append(member)
            continue
        try:
            return decode(raw, member, shallow=shallow)
        except DECODE_ERRORS:
            continue
    if tagged:
        return _decode_tagged(raw, tagged, shallow=shallow)
    raise msgspec.ValidationError("No member of the union matches the JSON")


def _decode_tagged(
    raw: bytes | msgspec.Raw, members: list[type[Item | Part]], *, shallow: bool
) -> Any:
    try:
        tag = _tag_decoder.decode(raw).type
    except DECODE_ERRORS:
        tag = ""
    for member in members:
        if member.__struct_config__.tag == tag:
            try:
                return decode_struct(raw, member, shallow=shallow)
            except DECODE_ERRORS:
                break
    return members[0].unknown(tag, msgspec.Raw(raw))
