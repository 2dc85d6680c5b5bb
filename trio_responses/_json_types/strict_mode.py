"""Choose the schema mode of a type, strict or full, and decode JSON by the type.

The strict schema is used where the type has one within the limits of strict mode. Strict mode
requires every property, so a model writes ``null`` where the caller of a function would leave an
argument out. Decoding removes such a ``null`` first, so that the default of the field applies.
"""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
from msgspec import inspect as mi

from trio_responses._errors import ConfigurationError
from trio_responses._json_types.msgspec_types import (
    NoSchema,
    SchemaWriter,
    admits_null,
    without_metadata,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["CompiledType", "compile_type"]

# The limits of strict mode. MAX_ENUM_TEXT applies to an enumeration of more than MANY_ENUM_VALUES.
MAX_PROPERTIES = 5_000
MAX_DEPTH = 10
MAX_ENUM_VALUES = 1_000
MAX_ENUM_TEXT = 15_000
MANY_ENUM_VALUES = 250
MAX_TEXT = 120_000

# Decimals keep every digit of a number that is decoded and encoded again.
_any_decoder = msgspec.json.Decoder[Any](float_hook=Decimal)
_any_encoder = msgspec.json.Encoder(decimal_format="number")


class CompiledType(NamedTuple):
    """A type, its JSON schema in the chosen mode (strict or full), and its decoder.

    :ivar info: the type as msgspec describes it.
    :ivar schema: the schema.
    :ivar reason: the place that strict mode cannot express, and why; `None` if the schema is
        strict.
    :ivar has_null_defaults: whether some property accepts ``null`` in place of its default.
    :ivar wrapped: whether the JSON is ``{"value": ...}``, because that of the type is no object.
    :ivar decoder: the decoder of the type, wrapped or not.
    """

    info: mi.Type
    schema: dict[str, Any]
    reason: str | None
    has_null_defaults: bool
    wrapped: bool
    decoder: msgspec.json.Decoder[Any]

    def decode(self, json: str | bytes) -> Any:
        """Decode a value of the type. The exceptions of msgspec propagate unchanged."""
        if self.has_null_defaults and _contains_null(json):
            value = _any_decoder.decode(json)
            drop_null_defaults(value, self.info)
            json = _any_encoder.encode(value)
        value = self.decoder.decode(json)
        return value.value if self.wrapped else value


def compile_type(annotation: Any, place: str, *, strict: bool | None) -> CompiledType:
    """Return a type with its JSON schema and its decoder.

    :param place: the name of the type in messages.
    :param strict: `None` for the strict schema if the type has one, `True` to require it, `False`
        for the full schema.
    :raises ConfigurationError: if the type has no JSON schema, or no strict schema although
        ``strict`` requires one.
    """
    try:
        wrapped = not _is_object(mi.type_info(annotation))
        if wrapped:
            annotation = _wrap_in_struct(annotation)
        info = mi.type_info(annotation)
        schema, reason, has_null_defaults = _write_schema(info, place, strict=strict)
        decoder = msgspec.json.Decoder[Any](annotation)
    except NoSchema as error:
        raise ConfigurationError(str(error)) from None
    except _UNSUPPORTED as error:
        raise ConfigurationError(
            f"{_place_of_unsupported(annotation, place)}: the type has no JSON schema: {error}"
        ) from error
    return CompiledType(info, schema, reason, has_null_defaults, wrapped, decoder)


# Raised by msgspec for a type that it cannot decode.
_UNSUPPORTED = (TypeError, NameError, AttributeError, NotImplementedError, RecursionError)


def _place_of_unsupported(annotation: Any, place: str) -> str:
    """Return the place of the first field of a Struct whose own type is not supported."""
    hints: dict[str, Any] = getattr(annotation, "__annotations__", {})
    fields: tuple[str, ...] = getattr(annotation, "__struct_fields__", ())
    for number, field in enumerate(fields):
        hint = hints.get(field)
        try:
            if not isinstance(hint, str):
                mi.type_info(hint)
        except _UNSUPPORTED:
            return f"{place}.{annotation.__struct_encode_fields__[number]}"
    return place


def _is_object(info: mi.Type) -> bool:
    match without_metadata(info):
        case mi.StructType(array_like=array_like):
            return not array_like
        case mi.TypedDictType() | mi.DataclassType() | mi.DictType():
            return True
        case _:
            return False


def _wrap_in_struct(annotation: Any) -> type[msgspec.Struct]:
    return msgspec.defstruct("Wrapped", [("value", annotation)], forbid_unknown_fields=True)


def _contains_null(json: str | bytes) -> bool:
    return "null" in json if isinstance(json, str) else b"null" in json


def _write_schema(
    info: mi.Type, place: str, *, strict: bool | None
) -> tuple[dict[str, Any], str | None, bool]:
    """Return the schema, why it is not strict, and whether ``null`` replaces some default."""
    writer = SchemaWriter(strict=True)
    schema = writer.write_root(info, place)
    reason = writer.not_strict_reason or _exceeded_limit(schema, place)
    if reason is None and strict is not False:
        return schema, None, writer.has_null_defaults
    if strict:
        raise ConfigurationError(
            f"strict=True, but strict mode cannot express this type: {reason}; "
            "change the type, or leave strict out"
        )
    writer = SchemaWriter(strict=False)
    schema = writer.write_root(info, place)
    return schema, reason or "strict=False was given", writer.has_null_defaults


def _exceeded_limit(schema: dict[str, Any], place: str) -> str | None:
    """Return which limit of strict mode a schema exceeds, or `None`."""
    nodes = list(_walk_schemas(schema))
    names = [name for node in nodes for name in node.get("properties", ())]
    enums: list[list[Any]] = [node["enum"] for node in nodes if "enum" in node]
    values = [str(value) for enum in enums for value in enum]
    texts = [len("".join(map(str, each))) for each in enums if len(each) > MANY_ENUM_VALUES]
    all_text = "".join([*names, *values, *schema.get("$defs", ())])
    sizes = (
        (len(names), MAX_PROPERTIES, "properties"),
        (len(values), MAX_ENUM_VALUES, "values of enumerations"),
        (max(texts, default=0), MAX_ENUM_TEXT, "characters in one enumeration"),
        (len(all_text), MAX_TEXT, "characters of names and values"),
        (_nesting_depth(schema, schema, frozenset()), MAX_DEPTH, "levels of objects"),
    )
    for size, limit, unit in sizes:
        if size > limit:
            return f"{place}: {size} {unit}, but strict mode allows at most {limit}"
    return None


def _subschemas(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the schemas directly inside a schema."""
    yield from node.get("properties", {}).values()
    yield from node.get("anyOf", ())
    if "items" in node:
        yield node["items"]


def _walk_schemas(schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield a schema and all schemas inside, definitions included."""
    yield schema
    for inner in (*_subschemas(schema), *schema.get("$defs", {}).values()):
        yield from _walk_schemas(inner)


def _nesting_depth(node: dict[str, Any], root: dict[str, Any], above: frozenset[str]) -> int:
    """Return how many objects are nested in a schema; a recursive reference adds none."""
    ref: str | None = node.get("$ref")
    if ref in above:
        return 0
    if ref is not None:
        target = root["$defs"][ref.removeprefix("#/$defs/")]
        return _nesting_depth(target, root, above | {ref})
    deepest = max((_nesting_depth(inner, root, above) for inner in _subschemas(node)), default=0)
    return deepest + (node.get("type") == "object")


# --- ``null`` in place of a default ---


def drop_null_defaults(value: Any, info: mi.Type) -> None:
    """Delete each ``null`` that means "use the default" from decoded JSON, in place.

    Every member of a union is applied to the value. That is safe: msgspec allows one kind of object
    and one kind of array in a union, except for tagged Structs, whose tag is compared.
    """
    info = without_metadata(info)
    if isinstance(info, mi.UnionType):
        for each in info.types:
            drop_null_defaults(value, each)
    elif issubclass(type(value), dict):
        _drop_in_object(value, info)
    elif issubclass(type(value), list):
        for element, element_info in _typed_elements(value, info):
            drop_null_defaults(element, element_info)


def _drop_in_object(value: dict[str, Any], info: mi.Type) -> None:
    match info:
        case mi.DictType(value_type=inner):
            for each in value.values():
                drop_null_defaults(each, inner)
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
            drop_null_defaults(inner, field.type)
        elif name in value and not field.required and not admits_null(field.type):
            del value[name]


def _typed_elements(value: list[Any], info: mi.Type) -> Iterable[tuple[Any, mi.Type]]:
    """Return the elements of an array, each with its type; none if the type is no array."""
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
