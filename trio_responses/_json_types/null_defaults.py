"""Delete each ``null`` that means "use the default" from the JSON of a model.

A strict schema requires every property, and lets a model write ``null`` for a property that has a
default and does not admit ``null``. Without the ``null``, the default of the type applies.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["admits_null", "best_objects", "drop_null_defaults", "has_null_defaults"]

JSONSchema: TypeAlias = dict[str, Any]
Definitions: TypeAlias = dict[str, JSONSchema]


def admits_null(schema: JSONSchema, definitions: Definitions) -> bool:
    """Whether ``null`` matches a full schema."""
    return any(
        "null" in each.get("type", "null")  # a name, or a list of names
        and None in each.get("enum", (None,))
        and each.get("const") is None
        for each in _alternatives([schema], definitions)
    )


def has_null_defaults(schema: JSONSchema) -> bool:
    """Whether some property of an object, or of a definition, accepts ``null`` as its default."""
    definitions: Definitions = schema.get("$defs", {})
    return any(
        _is_default(node, name, definitions)
        for node in _walk([schema, *definitions.values()])
        for name in node.get("properties", ())
    )


def drop_null_defaults(value: Any, schema: JSONSchema) -> None:
    """Delete each ``null`` that stands for a default from decoded JSON, in place.

    :param schema: the full schema of the JSON.
    """
    _drop(value, [schema], schema.get("$defs", {}))


def best_objects(value: dict[str, Any], options: Iterable[JSONSchema]) -> list[JSONSchema]:
    """Return the schemas of objects that fit the keys and literals of an object best.

    A schema fits if the object has every required key, and no literal of the schema differs. Of
    those that fit, the ones that know every key of the object precede the others, and then the ones
    with the most required keys.
    """
    fitting = [option for option in options if _fits_object(value, option)]
    fitting = [each for each in fitting if value.keys() <= each["properties"].keys()] or fitting
    most = max((len(_required(each)) for each in fitting), default=0)
    return [each for each in fitting if len(_required(each)) == most]


def _drop(value: Any, schemas: list[JSONSchema], definitions: Definitions) -> None:
    """Delete the nulls in a value of which each schema may be the one that applies."""
    if issubclass(type(value), dict):
        nodes = _alternatives(schemas, definitions)
        objects = [node for node in nodes if node.get("type") == "object"]
        if len(objects) > 1:
            objects = _best_or_open(value, objects)
        _drop_in_object(value, objects, definitions)
    elif issubclass(type(value), list):
        arrays = [each for each in _alternatives(schemas, definitions) if _fits_array(value, each)]
        for number, element in enumerate(value):
            _drop(element, [each for node in arrays for each in _items(node, number)], definitions)


def _best_or_open(value: dict[str, Any], objects: list[JSONSchema]) -> list[JSONSchema]:
    named = [each for each in objects if "properties" in each]
    return [*best_objects(value, named), *(each for each in objects if "properties" not in each)]


def _drop_in_object(
    value: dict[str, Any], nodes: list[JSONSchema], definitions: Definitions
) -> None:
    for key in list(value):
        if value[key] is not None:
            _drop(value[key], [each for node in nodes for each in _member(node, key)], definitions)
        elif nodes and all(_is_default(node, key, definitions) for node in nodes):
            del value[key]


def _is_default(node: JSONSchema, key: str, definitions: Definitions) -> bool:
    """Whether ``null`` at a key of an object means the default."""
    schema = node.get("properties", {}).get(key)
    return (
        schema is not None and key not in _required(node) and not admits_null(schema, definitions)
    )


def _required(node: JSONSchema) -> list[str]:
    required: list[str] = node.get("required", [])
    return required


def _member(node: JSONSchema, key: str) -> list[JSONSchema]:
    """Return the schema of a key of an object; none if any value is allowed."""
    schema: Any = node.get("properties", {}).get(key, node.get("additionalProperties"))
    return [schema] if isinstance(schema, dict) else []


def _items(node: JSONSchema, number: int) -> list[JSONSchema]:
    """Return the schema of an element of an array; none if any value is allowed."""
    positions: list[JSONSchema] = node.get("prefixItems", [])
    schema: Any = positions[number] if number < len(positions) else node.get("items")
    return [schema] if isinstance(schema, dict) else []


def _fits_object(value: dict[str, Any], node: JSONSchema) -> bool:
    required = _required(node)
    return all(key in value for key in required) and all(
        _is_literal(value[key], schema) or (value[key] is None and key not in required)
        for key, schema in node["properties"].items()
        if key in value
    )


def _fits_array(value: list[Any], node: JSONSchema) -> bool:
    pairs = zip(value, node.get("prefixItems", ()), strict=False)
    return node.get("type") == "array" and all(_is_literal(*pair) for pair in pairs)


def _is_literal(value: Any, schema: JSONSchema) -> bool:
    """Whether a value is one of those that a schema lists; `True` if the schema lists none."""
    values: list[Any] = [schema["const"]] if "const" in schema else schema.get("enum", [value])
    return value in values


def _alternatives(schemas: Iterable[JSONSchema], definitions: Definitions) -> Iterator[JSONSchema]:
    """Yield the schemas with their references and unions resolved, each definition once."""
    waiting, seen = list(schemas), set[str]()
    while waiting:
        schema = waiting.pop(0)
        ref: str | None = schema.get("$ref")
        options: list[JSONSchema] | None = schema.get("anyOf") or schema.get("oneOf")
        if ref is not None:
            if ref not in seen:
                seen.add(ref)
                waiting.append(definitions[ref.removeprefix("#/$defs/")])
        elif options is not None:
            waiting.extend(options)
        else:
            yield schema


def _walk(schemas: Iterable[Any]) -> Iterator[JSONSchema]:
    """Yield the schemas and all schemas inside, without following references."""
    schema: Any
    for schema in schemas:
        if issubclass(type(schema), dict):
            yield schema
            yield from _walk(schema.get("properties", {}).values())
            for keyword in ("anyOf", "oneOf", "prefixItems"):
                yield from _walk(schema.get(keyword, ()))
            yield from _walk([schema.get("items"), schema.get("additionalProperties")])
