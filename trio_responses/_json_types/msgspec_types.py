"""Write the JSON schema of a type: in full, or in the subset that strict mode allows.

A keyword outside the strict subset moves into the ``description``, because the decoder still
enforces the constraint. `SchemaWriter.not_strict_reason` names the first place that the strict
subset cannot express.

``msgspec.json.schema`` cannot be the starting point, because its output lacks facts that a strict
schema needs: the order of enumeration values and `TypedDict` keys, the format of a `datetime`
without a time zone, the field names of a named tuple, and the `list` factories of dataclasses. It
also fails for a default that JSON cannot express, and for two classes of the same full name.
"""

from __future__ import annotations

import inspect
import re
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import msgspec
from msgspec import inspect as mi

from trio_responses._wire.param_checks import check_numbers

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["NoSchema", "SchemaWriter", "admits_null", "without_metadata"]

JSONSchema: TypeAlias = dict[str, Any]
ObjectType: TypeAlias = mi.StructType | mi.TypedDictType | mi.DataclassType
PositionalType: TypeAlias = mi.StructType | mi.NamedTupleType | mi.TupleType
"""Types whose JSON is an array in which each position has its own type."""

STRICT_KEYWORDS = frozenset(
    {
        "$ref",
        "additionalProperties",
        "anyOf",
        "description",
        "enum",
        "exclusiveMaximum",
        "exclusiveMinimum",
        "format",
        "items",
        "maxItems",
        "maximum",
        "minItems",
        "minimum",
        "multipleOf",
        "pattern",
        "properties",
        "required",
        "type",
    }
)
STRICT_FORMATS = frozenset(
    {"date", "date-time", "duration", "email", "hostname", "ipv4", "ipv6", "time", "uuid"}
)
UNSUPPORTED_PATTERN = re.compile(r"\(\?(?!:)|\\[1-9]")
"""Lookaround, flags, named groups and backreferences: the API rejects these in a pattern."""

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
FORMATS: dict[type[mi.Type], str] = {
    mi.DateTimeType: "date-time",
    mi.TimeType: "time",
    mi.DateType: "date",
    mi.TimeDeltaType: "duration",
    mi.UUIDType: "uuid",
    mi.DecimalType: "decimal",
}
NULL = {"type": "null"}
ENUM_TYPES: tuple[tuple[type, str], ...] = (
    (type(None), "null"),
    (bool, "boolean"),
    (int, "integer"),
    (str, "string"),
)
"""The JSON type of the values of a literal or an enumeration. `bool` is a subclass of `int`."""


class NoSchema(Exception):
    """A type that has no JSON schema. The message names its place and the type."""


def without_metadata(info: mi.Type) -> mi.Type:
    """Return the type inside an ``Annotated``; any other type as it is."""
    return info.type if isinstance(info, mi.Metadata) else info


def admits_null(info: mi.Type) -> bool:
    """Whether ``null`` is a value of the type."""
    match without_metadata(info):
        case mi.NoneType() | mi.AnyType() | mi.RawType():
            return True
        case mi.UnionType(types=types):
            return any(map(admits_null, types))
        case mi.LiteralType(values=values):
            return None in values
        case _:
            return False


class SchemaWriter:
    """A writer for the schema of one type.

    :param strict: write in the strict subset.
    :ivar not_strict_reason: the first place that the strict subset cannot express, and why; `None`
        if the subset can express the whole type.
    :ivar definitions: the schemas of the object types, by name (``$defs``).
    :ivar has_null_defaults: whether some property accepts ``null`` in place of its default.
    """

    def __init__(self, *, strict: bool) -> None:
        self.strict = strict
        self.not_strict_reason: str | None = None
        self.definitions: dict[str, JSONSchema] = {}
        self.has_null_defaults: bool = False
        self._names: dict[Any, str] = {}

    def write_root(self, info: mi.Type, place: str) -> JSONSchema:
        """Return the schema of an object type, with ``$defs`` for every type that it refers to.

        :param place: the name of the object in messages.
        :raises NoSchema: if JSON has no representation for a part of the type.
        """
        info, keywords = _split_metadata(info)
        if isinstance(info, mi.DictType):
            schema = self._write_mapping(info, place)
        else:
            schema = self._write_object(cast("ObjectType", info), place)
        schema = self._add_keywords(schema, keywords)
        if self.definitions:
            schema["$defs"] = self.definitions
        return schema

    def write(self, info: mi.Type, place: str) -> JSONSchema:
        """Return the schema of the type at ``place``, a path such as ``parameters.city``."""
        info, keywords = _split_metadata(info)
        return self._add_keywords(self._write_type(info, place), keywords)

    def _write_type(self, info: mi.Type, place: str) -> JSONSchema:  # noqa: PLR0911 - one per kind
        match info:
            case mi.AnyType() | mi.RawType():
                self._set_not_strict_reason(place, "a value of any type")
                return {}
            case mi.StructType(array_like=True) | mi.NamedTupleType() | mi.TupleType():
                return self._write_positional(info, place)
            case mi.StructType() | mi.TypedDictType() | mi.DataclassType():
                return self._write_reference(info, place)
            case mi.CollectionType():
                schema = _type_and_lengths(info, "array")
                schema["items"] = self.write(info.item_type, f"{place}[]")
                unique = isinstance(info, mi.SetType | mi.FrozenSetType)
                return {**schema, "uniqueItems": True} if unique else schema
            case mi.DictType():
                return self._write_mapping(info, place)
            case mi.UnionType(types=types):
                null_last = sorted(
                    types, key=lambda each: isinstance(without_metadata(each), mi.NoneType)
                )
                options = [self.write(each, place) for each in null_last]
                return {"anyOf": [one for option in options for one in _flatten_any_of(option)]}
            case mi.LiteralType(values=values):
                return _write_enum(values)
            case mi.EnumType(cls=cls):
                return {**_write_enum(member.value for member in cls), **_description_of(cls)}
            case _:
                return _write_scalar(info, place)

    def _write_reference(self, info: ObjectType, place: str) -> JSONSchema:
        name = self._names.get(info.cls)
        if name is None:
            name = self._names[info.cls] = self._unused_name(info.cls)
            self.definitions[name] = {}  # reserves the name, for types that refer to themselves
            self.definitions[name] = self._write_object(info, place)
        return {"$ref": f"#/$defs/{name}"}

    def _unused_name(self, cls: Any) -> str:
        full_name = cls.__name__ if isinstance(cls, type) else str(cls).rpartition(".")[2]
        stem = name = re.sub(r"[^a-zA-Z0-9_-]+", "_", full_name).strip("_") or "type"
        number = 1
        while name in self.definitions:
            number += 1
            name = f"{stem}_{number}"
        return name

    def _write_object(self, info: ObjectType, place: str) -> JSONSchema:
        properties: dict[str, JSONSchema] = {}
        required: list[str] = []
        if isinstance(info, mi.StructType) and info.tag_field is not None:
            properties[info.tag_field] = _write_enum([info.tag])
            required.append(info.tag_field)
        for field in _fields_in_order(info):
            name = field.encode_name
            properties[name] = self._write_property(field, f"{place}.{name}")
            if field.required or self.strict:
                required.append(name)
        schema: JSONSchema = {"type": "object", "properties": properties, "required": required}
        if self.strict or (isinstance(info, mi.StructType) and info.forbid_unknown_fields):
            schema["additionalProperties"] = False
        return {**schema, **_description_of(info.cls)}

    def _write_property(self, field: mi.Field, place: str) -> JSONSchema:
        schema = self.write(field.type, place)
        if field.required:
            return schema
        if not admits_null(field.type):
            self.has_null_defaults = True
            schema = self._nullable(schema) if self.strict else schema
        default = _default_of(field)
        # A strict property with the default null already lists null among its types.
        return self._add_keywords(
            schema, {} if self.strict and default == {"default": None} else default
        )

    @staticmethod
    def _nullable(schema: JSONSchema) -> JSONSchema:
        outside = {"description": schema["description"]} if "description" in schema else {}
        inside = {key: value for key, value in schema.items() if key != "description"}
        options = inside.get("anyOf", [inside])
        return {"anyOf": [*options, NULL], **outside}

    def _write_mapping(self, info: mi.DictType, place: str) -> JSONSchema:
        self._set_not_strict_reason(place, "an object with arbitrary keys")
        schema = _type_and_lengths(info, "object")
        schema["additionalProperties"] = self.write(info.value_type, f"{place}.*")
        keys = self.write(info.key_type, f"{place}.*")
        keys.pop("type", None)
        return {**schema, "propertyNames": keys} if keys else schema

    def _write_positional(self, info: PositionalType, place: str) -> JSONSchema:
        """Return the schema of an array in which each position has its own type."""
        names: list[str] = []
        if isinstance(info, mi.TupleType):
            schemas = [self.write(each, f"{place}[{n}]") for n, each in enumerate(info.item_types)]
            least = len(schemas)
        else:
            names = [field.encode_name for field in info.fields]
            schemas = [self.write(field.type, f"{place}.{field.name}") for field in info.fields]
            least = max((n for n, field in enumerate(info.fields, 1) if field.required), default=0)
            if isinstance(info, mi.StructType) and info.tag_field is not None:
                names.insert(0, info.tag_field)
                schemas.insert(0, _write_enum([info.tag]))
                least += 1
        schema: JSONSchema = {"type": "array", "minItems": least, "maxItems": len(schemas)}
        if not self.strict:
            return {**schema, "prefixItems": schemas}
        return {**schema, **self._shared_items(schemas, names, place)}

    def _shared_items(
        self, schemas: Sequence[JSONSchema], names: Sequence[str], place: str
    ) -> JSONSchema:
        """Return one ``items`` for all positions, because strict mode has no ``prefixItems``."""
        distinct = [schema for n, schema in enumerate(schemas) if schema not in schemas[:n]]
        if not distinct:
            self._set_not_strict_reason(place, "an array that is always empty")
            return {}
        items = distinct[0] if len(distinct) == 1 else {"anyOf": distinct}
        if len(distinct) == 1 and not names:
            return {"items": items}
        order = names or [_type_name(schema) for schema in schemas]
        return {"items": items, "order": order}

    def _add_keywords(self, schema: JSONSchema, keywords: JSONSchema) -> JSONSchema:
        """Return the schema with more keywords; strict mode moves some into the description."""
        keywords = {key: value for key, value in keywords.items() if key != "title"}
        if "$ref" in schema and keywords:  # strict mode allows no keyword beside $ref
            schema = {"anyOf": [schema]}
        schema = {**schema, **keywords}
        if not self.strict:
            return schema
        unsupported = {key: schema.pop(key) for key in list(schema) if _is_unsupported(key, schema)}
        text = ", ".join(f"{key}: {_encode(value)}" for key, value in unsupported.items())
        if text:
            own = schema.get("description")
            schema["description"] = f"{own} ({text})" if own else text
        return schema

    def _set_not_strict_reason(self, place: str, reason: str) -> None:
        if self.not_strict_reason is None:
            self.not_strict_reason = f"{place}: {reason}"


def _split_metadata(info: mi.Type) -> tuple[mi.Type, JSONSchema]:
    """Return the type inside an ``Annotated``, and the schema keywords of its metadata."""
    if not isinstance(info, mi.Metadata):
        return info, {}
    keywords: JSONSchema | None = getattr(info, "extra_json_schema")  # noqa: B009 - has no type
    return info.type, keywords or {}


def _fields_in_order(info: ObjectType) -> Sequence[mi.Field]:
    """Return the fields in the order of the class: a model writes its properties in that order."""
    if not isinstance(info, mi.TypedDictType):
        return info.fields
    order = list(getattr(info.cls, "__origin__", info.cls).__annotations__)  # msgspec sorts them
    return sorted(info.fields, key=lambda field: order.index(field.name))


def _flatten_any_of(option: JSONSchema) -> list[JSONSchema]:
    """Return the options of a schema that is only an ``anyOf``; else the schema alone."""
    inner: list[JSONSchema] = option["anyOf"] if set(option) == {"anyOf"} else [option]
    return inner


def _is_unsupported(keyword: str, schema: JSONSchema) -> bool:
    """Whether strict mode rejects a keyword of the schema."""
    value = schema[keyword]
    match keyword:
        case "format":
            return value not in STRICT_FORMATS
        case "pattern":
            return bool(UNSUPPORTED_PATTERN.search(value))
        case _:
            return keyword not in STRICT_KEYWORDS


def _encode(value: Any) -> str:
    return msgspec.json.encode(value).decode()


# --- Types that contain no other type, and the keywords of a class ---


def _write_scalar(info: mi.Type, place: str) -> JSONSchema:
    """Return the schema of a type that contains no other type.

    :raises NoSchema: if JSON has no representation for the type.
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
            schema = {**_type_and_lengths(info, "string"), **_constraints(info)}
        case mi.BytesType() | mi.ByteArrayType() | mi.MemoryViewType():
            schema = {"type": "string", "contentEncoding": "base64"}
        case _:
            schema = {"type": "string", "format": _string_format(info, place)}
    return schema


def _string_format(info: mi.Type, place: str) -> str:
    """Return the ``format`` of a type that JSON represents as a string.

    A time without an offset has the ``-local`` format of the OpenAPI format registry.
    """
    name = FORMATS.get(type(info))
    if name is None:
        cls = getattr(info, "cls", type(info))
        raise NoSchema(
            f"{place}: the type {getattr(cls, '__name__', cls)} has no JSON schema; "
            "use a type that msgspec can decode from JSON"
        )
    return f"{name}-local" if getattr(info, "tz", None) is False else name


def _constraints(info: mi.Type) -> JSONSchema:
    values = {keyword: getattr(info, name, None) for name, keyword in CONSTRAINTS.items()}
    return {keyword: value for keyword, value in values.items() if value is not None}


def _type_and_lengths(info: Any, kind: str) -> JSONSchema:
    """Return ``type`` and the limits of length for a string, an array or an object."""
    values = zip(LENGTHS[kind], (info.min_length, info.max_length), strict=True)
    return {"type": kind} | {keyword: value for keyword, value in values if value is not None}


def _write_enum(values: Iterable[Any]) -> JSONSchema:
    """Return an enumeration, with one ``enum`` for each JSON type, as strict mode requires."""
    by_type: dict[str, list[Any]] = {}
    for value in sorted(values, key=lambda value: value is None):
        kind = next(kind for cls, kind in ENUM_TYPES if isinstance(value, cls))
        by_type.setdefault(kind, []).append(value)
    schemas: list[JSONSchema] = [
        dict(NULL) if kind == "null" else {"type": kind, "enum": members}
        for kind, members in by_type.items()
    ]
    return schemas[0] if len(schemas) == 1 else {"anyOf": schemas}


def _description_of(cls: Any) -> JSONSchema:
    """Return the docstring of a class, unless the dataclass decorator generated it."""
    cls = getattr(cls, "__origin__", cls)
    text = inspect.cleandoc(cls.__doc__ or "")
    return {"description": text} if text and not text.startswith(f"{cls.__name__}(") else {}


def _default_of(field: mi.Field) -> JSONSchema:
    """Return the ``default`` of a field, if JSON can express it and no factory computes it."""
    default: Any = field.default
    if field.default_factory in (list, dict, set):
        default = [] if field.default_factory is not dict else {}
    if default is msgspec.NODEFAULT:
        return {}
    try:
        default = msgspec.to_builtins(default, str_keys=True)
        check_numbers(default, "default")
    except (TypeError, ValueError, OverflowError, RecursionError):
        return {}
    return {"default": default}


def _type_name(schema: JSONSchema) -> str:
    """Return a short name for a schema: its type, or the name that it refers to."""
    named = schema.get("type") or schema.get("$ref", "one of several").rpartition("/")[2]
    return str(named)
