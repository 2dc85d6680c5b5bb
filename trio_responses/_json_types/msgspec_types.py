"""The types of msgspec: Structs, dataclasses, attrs classes, TypedDicts and standard types.

``msgspec.json.schema`` cannot be the starting point, because its output lacks facts that a strict
schema needs: the order of enumeration values and `TypedDict` keys, the format of a `datetime`
without a time zone, the field names of a named tuple, and the `list` factories of dataclasses. It
also fails for a default that JSON cannot express, and for two classes of the same full name.
"""

from __future__ import annotations

import inspect
import re
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias, cast

import msgspec
from msgspec import inspect as mi

from trio_responses._errors import ConfigurationError
from trio_responses._json_types.custom_types import Choice, decode_custom, is_path
from trio_responses._json_types.encoding import to_builtins
from trio_responses._json_types.strict_mode import NULL, write_enum
from trio_responses._wire.param_checks import check_numbers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trio_responses._json_types.adapter import FieldAdapter
    from trio_responses._json_types.strict_mode import JSONSchema

__all__ = ["MsgspecType", "embed"]

ObjectType: TypeAlias = mi.StructType | mi.TypedDictType | mi.DataclassType
PositionalType: TypeAlias = mi.StructType | mi.NamedTupleType | mi.TupleType
"""Types whose JSON is an array in which each position has its own type."""

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
ADAPTER = "trio_responses.adapter"
"""The key in the metadata of a field that another adapter decodes."""

USE_INSTEAD = (
    "use a Struct, a dataclass, an attrs class, a TypedDict, a pydantic model, or a standard type"
)
UNSUPPORTED = (TypeError, NameError, AttributeError, NotImplementedError, RecursionError)
"""Raised by msgspec for a type that it cannot decode."""


def embed(adapter: FieldAdapter) -> Any:
    """Return an annotation for a field of a Struct whose value another adapter decodes.

    Only the root of a `MsgspecType` may have such fields.
    """
    meta = msgspec.Meta(extra={ADAPTER: adapter}, description=adapter.description)
    return Annotated[msgspec.Raw, meta]


class MsgspecType:
    """The adapter of a type that msgspec decodes.

    :param place: the name of the type in messages.
    :raises ConfigurationError: if JSON has no representation for a part of the type.
    """

    name: str | None
    schema: JSONSchema
    is_object: bool

    def __init__(self, annotation: Any, place: str) -> None:
        self.name = getattr(annotation, "__name__", None)
        try:
            info = mi.type_info(annotation)
            self.is_object = _is_object(info)
            self.schema = _SchemaWriter().write_root(info, place)
            self._decoder = msgspec.json.Decoder[Any](annotation, dec_hook=decode_custom)
        except UNSUPPORTED as error:
            raise ConfigurationError(
                f"{_place_of_unsupported(annotation, place)}: the type has no JSON schema: {error};"
                f" {_use_instead(error)}"
            ) from error
        self._embedded: list[tuple[str, str, FieldAdapter]] = [
            (field.name, field.encode_name, adapter)
            for field in getattr(info, "fields", ())
            if (adapter := _adapter_of(field.type)) is not None
        ]

    def decode(self, json: str | bytes) -> Any:
        """Decode a value of the type. The exceptions of msgspec propagate unchanged."""
        value = self._decoder.decode(json)
        for name, encode_name, adapter in self._embedded:
            raw = getattr(value, name)
            if isinstance(raw, msgspec.Raw):  # not the default
                setattr(value, name, adapter.decode_part(bytes(raw), f"$.{encode_name}"))
        return value


def _adapter_of(info: mi.Type) -> FieldAdapter | None:
    """Return the adapter of a field that another adapter decodes."""
    extra: dict[str, Any] | None = getattr(info, "extra", None)
    return extra.get(ADAPTER) if extra else None


def _use_instead(error: Exception) -> str:
    """Return what to use in place of a type that msgspec does not support."""
    if "union" in str(error):
        return (
            "use one of the types, tagged Structs (class A(Struct, tag=True)), or types of"
            " pydantic, such as its models or a TypeAdapter of the union"
        )
    return USE_INSTEAD


def _place_of_unsupported(annotation: Any, place: str) -> str:
    """Return the place of the first field of a Struct whose own type is not supported."""
    hints: dict[str, Any] = getattr(annotation, "__annotations__", {})
    fields: tuple[str, ...] = getattr(annotation, "__struct_fields__", ())
    for number, field in enumerate(fields):
        hint = hints.get(field)
        try:
            if not isinstance(hint, str):
                mi.type_info(hint)
        except UNSUPPORTED:
            return f"{place}.{annotation.__struct_encode_fields__[number]}"
    return place


def _is_object(info: mi.Type) -> bool:
    info, _ = _split_metadata(info)
    match info:
        case mi.StructType(array_like=array_like):
            return not array_like
        case mi.TypedDictType() | mi.DataclassType() | mi.DictType():
            return True
        case _:
            return False


class _SchemaWriter:
    """A writer for the full schema of one type.

    :ivar definitions: the schemas of the object types, by name (``$defs``).
    """

    def __init__(self) -> None:
        self.definitions: dict[str, JSONSchema] = {}
        self._names: dict[Any, str] = {}
        self._embedded: dict[str, Any] = {}

    def write_root(self, info: mi.Type, place: str) -> JSONSchema:
        """Return the schema of a type, with ``$defs`` for every type that it refers to.

        :param place: the name of the type in messages.
        :raises ConfigurationError: if JSON has no representation for a part of the type.
        """
        info, keywords = _split_metadata(info)
        match info:
            case mi.StructType(array_like=False) | mi.TypedDictType() | mi.DataclassType():
                schema = self._write_object(info, place)
            case _:
                schema = self._write_type(info, place)
        schema = _add_keywords(schema, keywords)
        return {**schema, "$defs": self.definitions} if self.definitions else schema

    def write(self, info: mi.Type, place: str) -> JSONSchema:
        """Return the schema of the type at ``place``, a path such as ``parameters.city``."""
        adapter = _adapter_of(info)
        info, keywords = _split_metadata(info)
        if adapter is not None:
            return _add_keywords(self._write_embedded(adapter), keywords)
        return _add_keywords(self._write_type(info, place), keywords)

    def _write_type(self, info: mi.Type, place: str) -> JSONSchema:  # noqa: PLR0911 - one per kind
        match info:
            case mi.AnyType() | mi.RawType():
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
                return {"anyOf": [self.write(each, place) for each in types]}
            case mi.LiteralType(values=values):
                return write_enum(values)
            case mi.EnumType(cls=cls):
                return {**write_enum(member.value for member in cls), **_description_of(cls)}
            case mi.CustomType(cls=cls) if issubclass(cls, Choice):
                options = [*cls.classes, *cls.others]
                return {"anyOf": [self.write(mi.type_info(each), place) for each in options]}
            case _:
                return _write_scalar(info, place)

    def _write_reference(self, info: ObjectType, place: str) -> JSONSchema:
        name = self._names.get(info.cls)
        if name is None:
            name = self._names[info.cls] = self._unused_name(_class_name(info.cls))
            self.definitions[name] = {}  # reserves the name, for types that refer to themselves
            self.definitions[name] = self._write_object(info, place)
        return {"$ref": f"#/$defs/{name}"}

    def _unused_name(self, full_name: str) -> str:
        stem = name = re.sub(r"[^a-zA-Z0-9_-]+", "_", full_name).strip("_") or "type"
        number = 1
        while name in self.definitions:
            number += 1
            name = f"{stem}_{number}"
        return name

    def _write_embedded(self, adapter: FieldAdapter) -> JSONSchema:
        """Return the schema of another adapter, and take its definitions over.

        A definition gets another name if its name is taken. The same definition is taken over once,
        if everything that it refers to is the same.
        """
        root = {key: adapter.schema[key] for key in adapter.schema if key != "$defs"}
        definitions: dict[str, JSONSchema] = dict(adapter.schema.get("$defs", {}))
        if adapter.name is not None:
            definitions[adapter.name] = root
            root = {"$ref": f"#/$defs/{adapter.name}"}
        names: dict[str, str] = {}
        for name in definitions:
            closure = _closure(name, definitions)
            same = (own for own, each in self._embedded.items() if each == (name, closure))
            names[name] = next(same, "") or self._unused_name(name)
            self._embedded[names[name]] = (name, closure)
            self.definitions.setdefault(names[name], {})
        for name, definition in definitions.items():
            self.definitions[names[name]] = _rename(definition, names)
        return cast("JSONSchema", _rename(root, names))

    def _write_object(self, info: ObjectType, place: str) -> JSONSchema:
        properties: dict[str, JSONSchema] = {}
        required: list[str] = []
        if isinstance(info, mi.StructType) and info.tag_field is not None:
            properties[info.tag_field] = write_enum([info.tag])
            required.append(info.tag_field)
        for field in _fields_in_order(info):
            name = field.encode_name
            default = {} if field.required else _default_of(field)
            properties[name] = {**self.write(field.type, f"{place}.{name}"), **default}
            if field.required:
                required.append(name)
        schema: JSONSchema = {"type": "object", "properties": properties, "required": required}
        if isinstance(info, mi.StructType) and info.forbid_unknown_fields:
            schema["additionalProperties"] = False
        return {**schema, **_description_of(info.cls)}

    def _write_mapping(self, info: mi.DictType, place: str) -> JSONSchema:
        schema = _type_and_lengths(info, "object")
        schema["additionalProperties"] = self.write(info.value_type, f"{place}.*")
        keys = self.write(info.key_type, f"{place}.*")
        keys.pop("type", None)
        return {**schema, "propertyNames": keys} if keys else schema

    def _write_positional(self, info: PositionalType, place: str) -> JSONSchema:
        """Return the schema of an array in which each position has its own type."""
        if isinstance(info, mi.TupleType):
            schemas = [self.write(each, f"{place}[{n}]") for n, each in enumerate(info.item_types)]
            least = len(schemas)
        else:
            schemas = [
                {"title": field.encode_name, **self.write(field.type, f"{place}.{field.name}")}
                for field in info.fields
            ]
            least = max((n for n, field in enumerate(info.fields, 1) if field.required), default=0)
            if isinstance(info, mi.StructType) and info.tag_field is not None:
                schemas.insert(0, {"title": info.tag_field, **write_enum([info.tag])})
                least += 1
        return {
            "type": "array",
            "minItems": least,
            "maxItems": len(schemas),
            "prefixItems": schemas,
        }


def _class_name(cls: Any) -> str:
    return cls.__name__ if isinstance(cls, type) else str(cls).rpartition(".")[2]


def _closure(name: str, definitions: dict[str, JSONSchema]) -> dict[str, JSONSchema]:
    """Return a definition and all definitions that it refers to, by name."""
    found: dict[str, JSONSchema] = {}
    waiting = [name]
    while waiting:
        each = waiting.pop()
        if each not in found:
            found[each] = definitions[each]
            waiting += re.findall(r"'\$ref': '#/\$defs/([^']*)'", repr(definitions[each]))
    return found


def _rename(node: Any, names: dict[str, str]) -> Any:
    """Return a schema that refers to its definitions by other names."""
    kind = cast("object", type(node))
    if kind is list:
        return [_rename(each, names) for each in node]
    if kind is not dict:
        return node
    renamed = {key: _rename(each, names) for key, each in node.items()}
    ref = renamed.get("$ref")
    if isinstance(ref, str):
        renamed["$ref"] = f"#/$defs/{names[ref.removeprefix('#/$defs/')]}"
    return renamed


def _split_metadata(info: mi.Type) -> tuple[mi.Type, JSONSchema]:
    """Return the type inside an ``Annotated``, and the schema keywords of its metadata."""
    if not isinstance(info, mi.Metadata):
        return info, {}
    keywords: JSONSchema | None = getattr(info, "extra_json_schema")  # noqa: B009 - has no type
    return info.type, keywords or {}


def _add_keywords(schema: JSONSchema, keywords: JSONSchema) -> JSONSchema:
    return schema | {key: value for key, value in keywords.items() if key != "title"}


def _fields_in_order(info: ObjectType) -> Sequence[mi.Field]:
    """Return the fields in the order of the class: a model writes its properties in that order."""
    if not isinstance(info, mi.TypedDictType):
        return info.fields
    order = list(getattr(info.cls, "__origin__", info.cls).__annotations__)  # msgspec sorts them
    return sorted(info.fields, key=lambda field: order.index(field.name))


# --- Types that contain no other type, and the keywords of a class ---


def _write_scalar(info: mi.Type, place: str) -> JSONSchema:
    """Return the schema of a type that contains no other type.

    :raises ConfigurationError: if JSON has no representation for the type.
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
        case mi.CustomType(cls=cls) if is_path(cls):
            schema = {"type": "string", "format": "path"}
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
        raise ConfigurationError(
            f"{place}: the type {getattr(cls, '__name__', cls)} has no JSON schema; {USE_INSTEAD}"
        )
    return f"{name}-local" if getattr(info, "tz", None) is False else name


def _constraints(info: mi.Type) -> JSONSchema:
    values = {keyword: getattr(info, name, None) for name, keyword in CONSTRAINTS.items()}
    return {keyword: value for keyword, value in values.items() if value is not None}


def _type_and_lengths(info: Any, kind: str) -> JSONSchema:
    """Return ``type`` and the limits of length for a string, an array or an object."""
    values = zip(LENGTHS[kind], (info.min_length, info.max_length), strict=True)
    return {"type": kind} | {keyword: value for keyword, value in values if value is not None}


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
        default = msgspec.to_builtins(default, str_keys=True, enc_hook=to_builtins)
        check_numbers(default, "default")
    except (TypeError, ValueError, OverflowError, RecursionError):
        return {}
    return {"default": default}
