"""The form that a type gets in JSON: strict or in full, wrapped or not, and what reads it back.

What belongs elsewhere: the words of a schema (`json_schema.py`), and what users are told of one
(`schema.py`).
"""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
from msgspec import inspect as mi

from trio_responses._errors import ConfigurationError
from trio_responses._tools.json_schema import NoSchema, SchemaWriter, admits_null, bare

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["SchemaMode", "form_of"]

MAX_PROPERTIES = 5_000
MAX_DEPTH = 10
MAX_ENUM_VALUES = 1_000
MAX_ENUM_TEXT = 15_000
MANY_ENUM_VALUES = 250
MAX_TEXT = 120_000
"""The limits of strict mode; one enumeration of many values has a limit of its own."""

_any_decoder = msgspec.json.Decoder[Any](float_hook=Decimal)
_any_encoder = msgspec.json.Encoder(decimal_format="number")
# Decimals, so that what is decoded, changed and encoded again has lost no digit.


class SchemaMode(NamedTuple):
    """A type as JSON has it.

    :ivar schema: its schema.
    :ivar reason: the place that has no strict form, and why; `None` if the schema is strict.
    :ivar stands_in: whether ``null`` may stand for a default somewhere.
    :ivar wrapped: whether it is under the key ``value``, since its own JSON is no object.
    """

    info: mi.Type
    schema: dict[str, Any]
    reason: str | None
    stands_in: bool
    wrapped: bool
    decoder: msgspec.json.Decoder[Any]

    def decode(self, json: str | bytes) -> Any:
        """Decode it; whatever msgspec raises comes out."""
        if self.stands_in and _has_null(json):
            value = _any_decoder.decode(json)
            drop_stand_ins(value, self.info)
            json = _any_encoder.encode(value)
        value = self.decoder.decode(json)
        return value.value if self.wrapped else value


def form_of(annotation: Any, place: str, *, strict: bool | None) -> SchemaMode:
    """Choose the form of a type.

    :param strict: `None` for the strict form if there is one, `True` to insist on it, `False`
        for the schema in full.
    :raises ConfigurationError: if the type has no JSON schema, or no strict one where that was
        insisted on.
    """
    try:
        wrapped = not _is_object(mi.type_info(annotation))
        if wrapped:
            annotation = _wrap(annotation)
        info = mi.type_info(annotation)
        schema, reason, stands_in = _write(info, place, strict=strict)
        decoder = msgspec.json.Decoder[Any](annotation)
    except NoSchema as error:
        raise ConfigurationError(str(error)) from None
    except (TypeError, NameError, AttributeError, RecursionError) as error:
        raise ConfigurationError(f"{place}: no JSON schema: {error}") from error
    return SchemaMode(info, schema, reason, stands_in, wrapped, decoder)


def _is_object(info: mi.Type) -> bool:
    match bare(info):
        case mi.StructType(array_like=array_like):
            return not array_like
        case mi.TypedDictType() | mi.DataclassType() | mi.DictType():
            return True
        case _:
            return False


def _wrap(annotation: Any) -> type[msgspec.Struct]:
    return msgspec.defstruct("Wrapped", [("value", annotation)], forbid_unknown_fields=True)


def _has_null(json: str | bytes) -> bool:
    return "null" in json if isinstance(json, str) else b"null" in json


def _write(
    info: mi.Type, place: str, *, strict: bool | None
) -> tuple[dict[str, Any], str | None, bool]:
    """Write the schema: with the reason why it is not strict, and whether ``null`` stands in."""
    writer = SchemaWriter(strict=True)
    schema = writer.root(info, place)
    reason = writer.obstacle or _over_limit(schema, place)
    if reason is None and strict is not False:
        return schema, None, writer.stands_in
    if strict:
        raise ConfigurationError(f"no strict schema: {reason}")
    writer = SchemaWriter(strict=False)
    schema = writer.root(info, place)
    return schema, reason or "not asked for", writer.stands_in


def _over_limit(schema: dict[str, Any], place: str) -> str | None:
    """Say which limit of strict mode a schema is over, if it is over one."""
    nodes = list(_nodes(schema))
    names = [name for node in nodes for name in node.get("properties", ())]
    enums: list[list[Any]] = [node["enum"] for node in nodes if "enum" in node]
    words = [str(value) for values in enums for value in values]
    texts = [len("".join(map(str, each))) for each in enums if len(each) > MANY_ENUM_VALUES]
    sizes = (
        (len(names), MAX_PROPERTIES, "properties"),
        (len(words), MAX_ENUM_VALUES, "values of enumerations"),
        (max(texts, default=0), MAX_ENUM_TEXT, "characters in one enumeration"),
        (len("".join([*names, *words, *schema.get("$defs", ())])), MAX_TEXT, "characters of names"),
        (_depth(schema, schema, frozenset()), MAX_DEPTH, "levels of objects"),
    )
    for size, limit, what in sizes:
        if size > limit:
            return f"{place}: {size} {what}, and the limit is {limit}"
    return None


def _inside(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Give the schemas directly inside a schema."""
    yield from node.get("properties", {}).values()
    yield from node.get("anyOf", ())
    if "items" in node:
        yield node["items"]


def _nodes(schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield schema
    for inner in (*_inside(schema), *schema.get("$defs", {}).values()):
        yield from _nodes(inner)


def _depth(node: dict[str, Any], root: dict[str, Any], above: frozenset[str]) -> int:
    """Count the objects inside one another; a recursive reference adds nothing."""
    ref: str | None = node.get("$ref")
    if ref in above:
        return 0
    if ref is not None:
        target = root["$defs"][ref.removeprefix("#/$defs/")]
        return _depth(target, root, above | {ref})
    deepest = max((_depth(inner, root, above) for inner in _inside(node)), default=0)
    return deepest + (node.get("type") == "object")


# --- ``null`` in place of a default ---


def drop_stand_ins(value: Any, info: mi.Type) -> None:
    """Take each ``null`` out of decoded JSON that stands for a default.

    A union needs no search: msgspec allows one kind of object and one kind of array in it, but
    for Structs with tags, and those say which they are.
    """
    info = bare(info)
    if isinstance(info, mi.UnionType):
        for each in info.types:
            drop_stand_ins(value, each)
    elif issubclass(type(value), dict):
        _drop_in_object(value, info)
    elif issubclass(type(value), list):
        for inner, its_info in _elements(value, info):
            drop_stand_ins(inner, its_info)


def _drop_in_object(value: dict[str, Any], info: mi.Type) -> None:
    match info:
        case mi.DictType(value_type=inner):
            for each in value.values():
                drop_stand_ins(each, inner)
        case mi.StructType(tag_field=str(tag_field), tag=tag) if value.get(tag_field) != tag:
            pass
        case mi.StructType(fields=fields) | mi.TypedDictType(fields=fields):
            _drop_in_fields(value, fields)
        case mi.DataclassType(fields=fields):
            _drop_in_fields(value, fields)
        case _:
            pass


def _drop_in_fields(value: dict[str, Any], fields: Iterable[mi.Field]) -> None:
    for field in fields:
        name = field.encode_name
        inner = value.get(name)
        if inner is not None:
            drop_stand_ins(inner, field.type)
        elif name in value and not field.required and not admits_null(field.type):
            del value[name]


def _elements(value: list[Any], info: mi.Type) -> Iterable[tuple[Any, mi.Type]]:
    """Give the elements of an array with their types, as far as it has some."""
    match info:
        case mi.CollectionType(item_type=inner):
            return [(each, inner) for each in value]
        case mi.TupleType(item_types=inners):
            return zip(value, inners, strict=False)
        case mi.NamedTupleType(fields=fields):
            return zip(value, [field.type for field in fields], strict=False)
        case mi.StructType(array_like=True, fields=fields, tag_field=tag_field, tag=tag):
            inners = tuple(field.type for field in fields)
            if tag_field is None:
                return zip(value, inners, strict=False)
            return zip(value[1:], inners, strict=False) if value[:1] == [tag] else ()
        case _:
            return ()
