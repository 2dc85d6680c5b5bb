"""The JSON schema of a type: in full, or in the strict subset that the API holds a model to.

What the strict subset leaves out is said in words, in the ``description``, because the decoder
still insists on it. Where the subset has no form at all, the place of the first obstacle is kept.

What belongs elsewhere: decoding, and the choice between the two forms (`forms.py`).
"""

from __future__ import annotations

import inspect
import re
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import msgspec
from msgspec import inspect as mi

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["NoSchema", "SchemaWriter", "admits_null", "bare"]

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

Object: TypeAlias = mi.StructType | mi.TypedDictType | mi.DataclassType

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
"""Lookaround, flags, named groups and references back: more than the API's patterns can say."""


def bare(info: mi.Type) -> mi.Type:
    """Take the metadata off a type."""
    return info.type if isinstance(info, mi.Metadata) else info


def admits_null(info: mi.Type) -> bool:
    """Whether ``null`` is a value of the type."""
    match bare(info):
        case mi.NoneType() | mi.AnyType() | mi.RawType():
            return True
        case mi.UnionType(types=types):
            return any(map(admits_null, types))
        case mi.LiteralType(values=values):
            return None in values
        case _:
            return False


class SchemaWriter:
    """Writes the schema of one type.

    :param strict: write in the strict subset.
    :ivar obstacle: where and why the strict subset has no form, if it has none.
    :ivar definitions: the schemas of the types that have a name.
    :ivar stands_in: whether ``null`` may stand for a default somewhere.
    """

    def __init__(self, *, strict: bool) -> None:
        self.strict = strict
        self.obstacle: str | None = None
        self.definitions: dict[str, JSONSchema] = {}
        self.stands_in: bool = False
        self._names: dict[Any, str] = {}

    def root(self, info: mi.Type, place: str) -> JSONSchema:
        """Write an object with everything that it refers to.

        :param place: what the object is called in messages.
        :raises NoSchema: if there is no schema for a part of it.
        """
        info, beside = _apart(info)
        if isinstance(info, mi.DictType):
            schema = self._mapping(info, place)
        else:
            schema = self._object(cast("Object", info), place)
        schema = self._add(schema, beside)
        if self.definitions:
            schema["$defs"] = self.definitions
        return schema

    def write(self, info: mi.Type, place: str) -> JSONSchema:
        """Write the schema of a type that stands at ``place``."""
        info, beside = _apart(info)
        return self._add(self._form(info, place), beside)

    def _form(self, info: mi.Type, place: str) -> JSONSchema:  # noqa: PLR0911 - one for each kind
        match info:
            case mi.AnyType() | mi.RawType():
                self._block(place, "any value at all")
                return {}
            case mi.StructType(array_like=True) | mi.NamedTupleType() | mi.TupleType():
                return self._positions(info, place)
            case mi.StructType() | mi.TypedDictType() | mi.DataclassType():
                return self._refer(info, place)
            case mi.CollectionType():
                schema = lengths(info, "array")
                schema["items"] = self.write(info.item_type, f"{place}[]")
                unique = isinstance(info, mi.SetType | mi.FrozenSetType)
                return {**schema, "uniqueItems": True} if unique else schema
            case mi.DictType():
                return self._mapping(info, place)
            case mi.UnionType(types=types):
                ordered = sorted(types, key=lambda each: isinstance(bare(each), mi.NoneType))
                options = [self.write(each, place) for each in ordered]
                return {"anyOf": [one for option in options for one in _flat(option)]}
            case mi.LiteralType(values=values):
                return choice(values)
            case mi.EnumType(cls=cls):
                return {**choice(member.value for member in cls), **documentation_of(cls)}
            case _:
                return scalar(info, place)

    def _refer(self, info: Object, place: str) -> JSONSchema:
        name = self._names.get(info.cls)
        if name is None:
            name = self._names[info.cls] = self._free_name(info.cls)
            self.definitions[name] = {}
            self.definitions[name] = self._object(info, place)
        return {"$ref": f"#/$defs/{name}"}

    def _free_name(self, cls: Any) -> str:
        whole = cls.__name__ if isinstance(cls, type) else str(cls).rpartition(".")[2]
        stem = name = re.sub(r"[^a-zA-Z0-9_-]+", "_", whole).strip("_") or "type"
        number = 1
        while name in self.definitions:
            number += 1
            name = f"{stem}_{number}"
        return name

    def _object(self, info: Object, place: str) -> JSONSchema:
        properties: dict[str, JSONSchema] = {}
        required: list[str] = []
        if isinstance(info, mi.StructType) and info.tag_field is not None:
            properties[info.tag_field] = choice([info.tag])
            required.append(info.tag_field)
        for field in _in_order(info):
            name = field.encode_name
            properties[name] = self._property(field, f"{place}.{name}")
            if field.required or self.strict:
                required.append(name)
        schema: JSONSchema = {"type": "object", "properties": properties, "required": required}
        if self.strict or (isinstance(info, mi.StructType) and info.forbid_unknown_fields):
            schema["additionalProperties"] = False
        return {**schema, **documentation_of(info.cls)}

    def _property(self, field: mi.Field, place: str) -> JSONSchema:
        schema = self.write(field.type, place)
        if field.required:
            return schema
        if not admits_null(field.type):
            self.stands_in = True
            schema = self._nullable(schema) if self.strict else schema
        default = default_of(field)
        return self._add(schema, {} if self.strict and default == {"default": None} else default)

    @staticmethod
    def _nullable(schema: JSONSchema) -> JSONSchema:
        outside = {"description": schema["description"]} if "description" in schema else {}
        inside = {key: value for key, value in schema.items() if key != "description"}
        options = inside.get("anyOf", [inside])
        return {"anyOf": [*options, NULL], **outside}

    def _mapping(self, info: mi.DictType, place: str) -> JSONSchema:
        self._block(place, "an object with free keys")
        schema = lengths(info, "object")
        schema["additionalProperties"] = self.write(info.value_type, f"{place}.*")
        keys = self.write(info.key_type, f"{place}.*")
        keys.pop("type", None)
        return {**schema, "propertyNames": keys} if keys else schema

    def _positions(
        self, info: mi.StructType | mi.NamedTupleType | mi.TupleType, place: str
    ) -> JSONSchema:
        """Write an array in which each position has a type of its own."""
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
                schemas.insert(0, choice([info.tag]))
                least += 1
        schema: JSONSchema = {"type": "array", "minItems": least, "maxItems": len(schemas)}
        if not self.strict:
            return {**schema, "prefixItems": schemas}
        return {**schema, **self._any_position(schemas, names, place)}

    def _any_position(
        self, schemas: Sequence[JSONSchema], names: Sequence[str], place: str
    ) -> JSONSchema:
        """Give every position the same items: the strict subset knows no order."""
        kinds = [schema for n, schema in enumerate(schemas) if schema not in schemas[:n]]
        if not kinds:
            self._block(place, "an array that is always empty")
            return {}
        items = kinds[0] if len(kinds) == 1 else {"anyOf": kinds}
        if len(kinds) == 1 and not names:
            return {"items": items}
        order = names or [word_of(schema) for schema in schemas]
        return {"items": items, "order": order}

    def _add(self, schema: JSONSchema, keywords: JSONSchema) -> JSONSchema:
        """Put keywords into a schema: as they are, or in words where strict knows them not."""
        keywords = {key: value for key, value in keywords.items() if key != "title"}
        if "$ref" in schema and keywords:
            schema = {"anyOf": [schema]}
        schema = {**schema, **keywords}
        if not self.strict:
            return schema
        unsupported = {key: schema.pop(key) for key in list(schema) if _is_unsupported(key, schema)}
        words = ", ".join(f"{key}: {_json(value)}" for key, value in unsupported.items())
        if words:
            text = schema.get("description")
            schema["description"] = f"{text} ({words})" if text else words
        return schema

    def _block(self, place: str, reason: str) -> None:
        if self.obstacle is None:
            self.obstacle = f"{place}: {reason}"


def _apart(info: mi.Type) -> tuple[mi.Type, JSONSchema]:
    """Take a type and the keywords beside it apart."""
    if not isinstance(info, mi.Metadata):
        return info, {}
    beside: JSONSchema | None = getattr(info, "extra_json_schema")  # noqa: B009 - it has no type
    return info.type, beside or {}


def _in_order(info: Object) -> Sequence[mi.Field]:
    """Give the fields as the class has them, which is the order in which a model writes them."""
    if not isinstance(info, mi.TypedDictType):
        return info.fields
    order = list(getattr(info.cls, "__origin__", info.cls).__annotations__)  # msgspec sorts them
    return sorted(info.fields, key=lambda field: order.index(field.name))


def _flat(option: JSONSchema) -> list[JSONSchema]:
    """Give the options of an option that is nothing but a choice itself."""
    inner: list[JSONSchema] = option["anyOf"] if set(option) == {"anyOf"} else [option]
    return inner


def _is_unsupported(keyword: str, schema: JSONSchema) -> bool:
    value = schema[keyword]
    match keyword:
        case "format":
            return value not in STRICT_FORMATS
        case "pattern":
            return bool(UNSUPPORTED_PATTERN.search(value))
        case _:
            return keyword not in STRICT_KEYWORDS


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


# --- Types that hold no other type ---


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
