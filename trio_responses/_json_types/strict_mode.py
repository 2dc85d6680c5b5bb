"""Derive the strict schema of a type from the full one.

Strict mode requires every property, so a property with a default accepts ``null``, which a model
writes where the caller of a function would leave an argument out. A keyword outside the strict
subset moves into the ``description``, because the decoder still enforces the constraint. The strict
subset cannot express some types, and has limits: `StrictSchema.reason` names the first place.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import msgspec

from trio_responses._json_types.null_defaults import admits_null

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

__all__ = ["NULL", "STRICT_KEYWORDS", "JSONSchema", "StrictSchema", "derive_strict", "write_enum"]

JSONSchema: TypeAlias = dict[str, Any]

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

# The limits of strict mode. MAX_ENUM_TEXT applies to an enumeration of more than MANY_ENUM_VALUES.
MAX_PROPERTIES = 5_000
MAX_DEPTH = 10
MAX_ENUM_VALUES = 1_000
MAX_ENUM_TEXT = 15_000
MANY_ENUM_VALUES = 250
MAX_TEXT = 120_000

NULL = {"type": "null"}
ENUM_TYPES: tuple[tuple[type, str], ...] = (
    (type(None), "null"),
    (bool, "boolean"),
    (int, "integer"),
    (float, "number"),
    (str, "string"),
)
"""The JSON type of the values of a literal or an enumeration. `bool` is a subclass of `int`."""


class StrictSchema(NamedTuple):
    """A schema in the strict subset.

    :ivar schema: the schema; incomplete if there is a reason.
    :ivar reason: the first place that strict mode cannot express, and why; `None` if the schema
        expresses the whole type.
    """

    schema: JSONSchema
    reason: str | None


def derive_strict(full: JSONSchema, place: str) -> StrictSchema:
    """Return the strict schema of an object from its full schema.

    :param place: the name of the object in the reason.
    """
    writer = _StrictWriter(full.get("$defs", {}))
    schema = writer.write({key: full[key] for key in full if key != "$defs"}, place)
    if writer.definitions:
        schema["$defs"] = writer.definitions
    return StrictSchema(schema, writer.reason or _exceeded_limit(schema, place))


def write_enum(values: Iterable[Any]) -> JSONSchema:
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


class _StrictWriter:
    """Rewrites the nodes of one full schema."""

    def __init__(self, full_definitions: dict[str, JSONSchema]) -> None:
        self._full_definitions = full_definitions
        self.definitions: dict[str, JSONSchema] = {}
        self.reason: str | None = None

    def write(self, full: JSONSchema, place: str) -> JSONSchema:
        """Return the strict schema for the node at ``place``, a path such as ``answer.city``."""
        rest = {key: value for key, value in full.items() if key != "title"}
        if "const" in rest:
            rest["enum"] = [rest.pop("const")]
        node: JSONSchema = {}
        if "$ref" in rest:
            node = self._write_reference(rest.pop("$ref"), place)
        elif "anyOf" in rest or "oneOf" in rest:
            node = self._write_any_of(rest.pop("anyOf", None) or rest.pop("oneOf"), place)
        elif "enum" in rest:
            rest.pop("type", None)
            node = self._write_enum(rest.pop("enum"), place)
        elif rest.get("type") == "object":
            node = self._write_object(rest, place)
        elif rest.get("type") == "array":
            node = self._write_array(rest, place)
        elif "type" not in rest:
            self._set_reason(place, "a value of any type")
        return _add_keywords(node, rest)

    def _write_reference(self, ref: str, place: str) -> JSONSchema:
        name = ref.removeprefix("#/$defs/")
        if name not in self.definitions:
            self.definitions[name] = {}  # reserves the place, for types that refer to themselves
            self.definitions[name] = self.write(self._full_definitions[name], place)
        return {"$ref": ref}

    def _write_any_of(self, options: Sequence[JSONSchema], place: str) -> JSONSchema:
        null_last = sorted(options, key=lambda option: option.get("type") == "null")
        written = [self.write(option, place) for option in null_last]
        return {"anyOf": [one for option in written for one in _flatten_any_of(option)]}

    def _write_enum(self, values: Sequence[Any], place: str) -> JSONSchema:
        if any(isinstance(value, list | dict) for value in values):
            self._set_reason(place, "an enumeration of arrays or objects")
            return {}
        return write_enum(values)

    def _write_object(self, rest: JSONSchema, place: str) -> JSONSchema:
        """Return the strict schema of an object, and take its keywords out of ``rest``."""
        if rest.pop("additionalProperties", "properties" not in rest) is not False:
            self._set_reason(place, "an object with arbitrary keys")
            return {}
        properties: dict[str, JSONSchema] = rest.pop("properties")
        required: list[str] = rest.pop("required", [])
        written = {
            name: self._write_property(each, f"{place}.{name}", required=name in required)
            for name, each in properties.items()
        }
        return {
            "type": rest.pop("type"),
            "properties": written,
            "required": list(written),
            "additionalProperties": False,
        }

    def _write_property(self, full: JSONSchema, place: str, *, required: bool) -> JSONSchema:
        if required:
            return self.write(full, place)
        schema = self.write({key: full[key] for key in full if key != "default"}, place)
        default = {"default": full["default"]} if "default" in full else {}
        if admits_null(full, self._full_definitions):  # null is listed among the types
            return _add_keywords(schema, {} if default == {"default": None} else default)
        return _add_keywords(_nullable(schema), default)

    def _write_array(self, rest: JSONSchema, place: str) -> JSONSchema:
        """Return the strict schema of an array, and take its keywords out of ``rest``."""
        kind = {"type": rest.pop("type")}
        positions: list[JSONSchema] | None = rest.pop("prefixItems", None)
        items: Any = rest.pop("items", None)
        if positions is None:
            return {**kind, "items": self.write(items or {}, f"{place}[]")}
        # Strict mode has no prefixItems: one schema describes all positions.
        names = [each["title"] for each in positions if "title" in each]
        names = names if len(names) == len(positions) else []
        schemas = [
            self.write(each, f"{place}.{names[n]}" if names else f"{place}[{n}]")
            for n, each in enumerate(positions)
        ]
        distinct = [schema for n, schema in enumerate(schemas) if schema not in schemas[:n]]
        if not distinct:
            self._set_reason(place, "an array that is always empty")
            return {}
        items = distinct[0] if len(distinct) == 1 else {"anyOf": distinct}
        if len(distinct) == 1 and not names:
            return {**kind, "items": items}
        return {
            **kind,
            "items": items,
            "order": names or [_type_name(schema) for schema in schemas],
        }

    def _set_reason(self, place: str, reason: str) -> None:
        if self.reason is None:
            self.reason = f"{place}: {reason}"


def _add_keywords(node: JSONSchema, keywords: JSONSchema) -> JSONSchema:
    """Return a node with more keywords. Those outside the strict subset are in its description."""
    if "$ref" in node and keywords:  # strict mode allows no keyword beside $ref
        node = {"anyOf": [node]}
    schema = {**node, **keywords}
    if "description" in node and "description" not in keywords:
        schema["description"] = node["description"]
    unsupported = {key: schema.pop(key) for key in list(schema) if _is_unsupported(key, schema)}
    text = ", ".join(f"{key}: {_encode(value)}" for key, value in unsupported.items())
    if text:
        own = schema.get("description")
        schema["description"] = f"{own} ({text})" if own else text
    return schema


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


def _nullable(schema: JSONSchema) -> JSONSchema:
    outside = {"description": schema["description"]} if "description" in schema else {}
    inside = {key: value for key, value in schema.items() if key != "description"}
    options = inside.get("anyOf", [inside])
    return {"anyOf": [*options, NULL], **outside}


def _flatten_any_of(option: JSONSchema) -> list[JSONSchema]:
    """Return the options of a schema that is only an ``anyOf``; else the schema alone."""
    inner: list[JSONSchema] = option["anyOf"] if set(option) == {"anyOf"} else [option]
    return inner


def _type_name(schema: JSONSchema) -> str:
    """Return a short name for a schema: its type, or the name that it refers to."""
    named = schema.get("type") or schema.get("$ref", "one of several").rpartition("/")[2]
    return str(named)


def _encode(value: Any) -> str:
    return msgspec.json.encode(value).decode()


# --- Limits ---


def _exceeded_limit(schema: JSONSchema, place: str) -> str | None:
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


def _subschemas(node: JSONSchema) -> Iterator[JSONSchema]:
    """Yield the schemas directly inside a schema."""
    yield from node.get("properties", {}).values()
    yield from node.get("anyOf", ())
    if "items" in node:
        yield node["items"]


def _walk_schemas(schema: JSONSchema) -> Iterator[JSONSchema]:
    """Yield a schema and all schemas inside, definitions included."""
    yield schema
    for inner in (*_subschemas(schema), *schema.get("$defs", {}).values()):
        yield from _walk_schemas(inner)


def _nesting_depth(node: JSONSchema, root: JSONSchema, above: frozenset[str]) -> int:
    """Return how many objects are nested in a schema; a recursive reference adds none."""
    ref: str | None = node.get("$ref")
    if ref in above:
        return 0
    if ref is not None:
        target = root["$defs"][ref.removeprefix("#/$defs/")]
        return _nesting_depth(target, root, above | {ref})
    deepest = max((_nesting_depth(inner, root, above) for inner in _subschemas(node)), default=0)
    return deepest + (node.get("type") == "object")
