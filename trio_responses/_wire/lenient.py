"""Reading what does not fit: the slow path behind msgspec's strict decoders.

One rule, applied at every depth: **what cannot be read takes its default**. A field of the wrong
type becomes the field's default, a tagged object that is unknown or lacks a required field becomes
the :class:`~trio_responses._wire.base.Unknown` of its family, and only an untagged object without
a required field is refused, by which the place that holds it takes *its* default. Before that,
``"3"`` and ``3.0`` are tried as numbers.

The walk follows the declared types, which do not recurse, so neither deep nor hostile JSON can
make it deep; each level parses its bytes a fixed number of times.
"""

import functools
import inspect
import types
import typing
from typing import Any, TypeVar

import msgspec

from trio_responses._wire.base import Item, Part

S = TypeVar("S", bound=msgspec.Struct)

UNREADABLE = (msgspec.MsgspecError, ValueError, RecursionError)
"""All that msgspec raises on bad JSON: UnicodeDecodeError is a ValueError of its own."""


class _Tag(msgspec.Struct, frozen=True, gc=False):
    type: str = ""


_object: msgspec.json.Decoder[dict[str, msgspec.Raw]] = msgspec.json.Decoder(dict[str, msgspec.Raw])
_array: msgspec.json.Decoder[list[msgspec.Raw]] = msgspec.json.Decoder(list[msgspec.Raw])
_tag: msgspec.json.Decoder[_Tag] = msgspec.json.Decoder(_Tag)


@functools.cache
def _decoder(kind: Any) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(kind, strict=False)


@functools.cache
def _fields(kind: type[msgspec.Struct]) -> tuple[msgspec.structs.FieldInfo, ...]:
    return msgspec.structs.fields(kind)


def read(raw: bytes | msgspec.Raw, kind: Any) -> Any:
    """Decode JSON as a type, with defaults and unknown objects where it does not fit.

    :param kind: what a Struct field may be annotated with here: a scalar, ``Raw``, ``Any``, a
        Struct, a list or a union of these.
    :raises msgspec.DecodeError: or another of :data:`UNREADABLE` if nothing of it can be saved.
    """
    try:
        return _decoder(kind).decode(raw)
    except UNREADABLE:
        origin = typing.get_origin(kind)
        if origin is list:
            (element,) = typing.get_args(kind)
            return [read(part, element) for part in _array.decode(raw)]
        if origin in (types.UnionType, typing.Union):
            return _read_union(raw, typing.get_args(kind))
        if inspect.isclass(kind) and issubclass(kind, (Item, Part)):
            return _read_tagged(raw, [kind])
        if inspect.isclass(kind) and issubclass(kind, msgspec.Struct):
            return read_struct(raw, kind)
        raise


def read_struct(raw: bytes | msgspec.Raw, kind: type[S]) -> S:
    """Decode a JSON object as one Struct whatever its tag says, with defaults where it can.

    :raises msgspec.DecodeError: or another of :data:`UNREADABLE` if it is no object, or a
        required field is missing or does not fit.
    """
    given = _object.decode(raw)
    values: dict[str, Any] = {}
    for field in _fields(kind):
        if field.encode_name in given:
            try:
                values[field.name] = read(given[field.encode_name], field.type)
            except UNREADABLE:
                if field.required:
                    raise
        elif field.required:
            raise msgspec.ValidationError(f"Object missing required field `{field.encode_name}`")
    return kind(**values)


def _read_union(raw: bytes | msgspec.Raw, members: tuple[Any, ...]) -> Any:
    tagged: list[type[Item | Part]] = []
    for member in members:
        if inspect.isclass(member) and issubclass(member, (Item, Part)):
            tagged.append(member)
            continue
        try:
            return read(raw, member)
        except UNREADABLE:
            continue
    if tagged:
        return _read_tagged(raw, tagged)
    raise msgspec.ValidationError("No member of the union fits")


def _read_tagged(raw: bytes | msgspec.Raw, kinds: list[type[Item | Part]]) -> Any:
    try:
        tag = _tag.decode(raw).type
    except UNREADABLE:
        tag = ""
    for kind in kinds:
        if kind.__struct_config__.tag == tag:
            try:
                return read_struct(raw, kind)
            except UNREADABLE:
                break
    return kinds[0].unknown(tag, msgspec.Raw(raw))
