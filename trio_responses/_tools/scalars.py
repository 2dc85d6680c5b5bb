"""The JSON schemas of what holds no other type: scalars, choices, and the words about a class.

What belongs elsewhere: objects, arrays and unions (`json_schema.py`).
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec
from msgspec import inspect as mi

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = [
    "NULL",
    "JSONSchema",
    "NoSchema",
    "choice",
    "default_of",
    "documentation_of",
    "lengths",
    "scalar",
    "word_of",
]

JSONSchema: TypeAlias = dict[str, Any]

CONSTRAINTS = {
    "ge": "minimum",
    "gt": "exclusiveMinimum",
    "le": "maximum",
    "lt": "exclusiveMaximum",
    "multiple_of": "multipleOf",
    "pattern": "pattern",
}
LENGTHS = {
    "string": ("minLength", "maxLength"),
    "array": ("minItems", "maxItems"),
    "object": ("minProperties", "maxProperties"),
}
NULL = {"type": "null"}
TYPE_NAMES: dict[type, str] = {str: "string", int: "integer", type(None): "null"}


FORMATS: dict[type[mi.Type], str] = {
    mi.DateTimeType: "date-time",
    mi.TimeType: "time",
    mi.DateType: "date",
    mi.TimeDeltaType: "duration",
    mi.UUIDType: "uuid",
    mi.DecimalType: "decimal",
}


class NoSchema(Exception):
    """A type that has no JSON schema. The message says where and why."""


def scalar(info: mi.Type, place: str) -> JSONSchema:
    """Write the schema of a type that holds no other.

    :raises NoSchema: if JSON has no form for it.
    """
    match info:
        case mi.NoneType():
            schema = dict(NULL)
        case mi.BoolType():
            schema = {"type": "boolean"}
        case mi.IntType():
            schema = {"type": "integer", **_constraints(info)}
        case mi.FloatType():
            schema = {"type": "number", **_constraints(info)}
        case mi.StrType():
            schema = {**lengths(info, "string"), **_constraints(info)}
        case mi.BytesType() | mi.ByteArrayType() | mi.MemoryViewType():
            schema = {"type": "string", "contentEncoding": "base64"}
        case _:
            schema = {"type": "string", "format": _format(info, place)}
    return schema


def _format(info: mi.Type, place: str) -> str:
    """Name the format of a text; a time without an offset is named as OpenAPI's registry does."""
    name = FORMATS.get(type(info))
    if name is None:
        cls = getattr(info, "cls", type(info))
        raise NoSchema(f"{place}: JSON has no form for {getattr(cls, '__name__', cls)}")
    return f"{name}-local" if getattr(info, "tz", None) is False else name


def _constraints(info: mi.Type) -> JSONSchema:
    values = {keyword: getattr(info, name, None) for name, keyword in CONSTRAINTS.items()}
    return {keyword: value for keyword, value in values.items() if value is not None}


def lengths(info: Any, kind: str) -> JSONSchema:
    """Begin the schema of a text, an array or an object with the limits of its length."""
    values = zip(LENGTHS[kind], (info.min_length, info.max_length), strict=True)
    return {"type": kind} | {keyword: value for keyword, value in values if value is not None}


def choice(values: Iterable[Any]) -> JSONSchema:
    """Write an enumeration; each type in it has an ``enum`` of its own, as strict has it."""
    kinds: dict[str, list[Any]] = {}
    for value in sorted(values, key=lambda value: value is None):
        kinds.setdefault(TYPE_NAMES[type(value)], []).append(value)
    schemas: list[JSONSchema] = [
        dict(NULL) if kind == "null" else {"type": kind, "enum": members}
        for kind, members in kinds.items()
    ]
    return schemas[0] if len(schemas) == 1 else {"anyOf": schemas}


def documentation_of(cls: Any) -> JSONSchema:
    """Give a class's docstring; the one that a dataclass writes itself says nothing new."""
    cls = getattr(cls, "__origin__", cls)
    text = inspect.cleandoc(cls.__doc__ or "")
    return {"description": text} if text and not text.startswith(f"{cls.__name__}(") else {}


def default_of(field: mi.Field) -> JSONSchema:
    """Give the default of a field, if it is known before it is needed and JSON can say it."""
    default: Any = field.default
    if field.default_factory in (list, dict, set):
        default = [] if field.default_factory is not dict else {}
    if default is msgspec.NODEFAULT:
        return {}
    try:
        return {"default": msgspec.to_builtins(default, str_keys=True)}
    except (TypeError, ValueError, OverflowError, RecursionError):
        return {}


def word_of(schema: JSONSchema) -> str:
    """Name a schema in one word."""
    named = schema.get("type") or schema.get("$ref", "one of several").rpartition("/")[2]
    return str(named)
