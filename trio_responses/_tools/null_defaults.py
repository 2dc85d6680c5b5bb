"""``null`` that stands for a default.

Strict mode requires every property, so a model has to say something where it would leave one out.

What belongs elsewhere: the schema that offers ``null`` (`json_schema.py`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec import inspect as mi

from trio_responses._tools.json_schema import admits_null, bare

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["drop_stand_ins"]


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
