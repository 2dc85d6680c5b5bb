"""Typed JSON: the schema that a model is held to, and the decoder that reads what it wrote.

Strict mode (the guide "Structured Outputs", supported schemas) asks that the root is an object,
that every object is closed and requires all its properties, and that no keyword outside a short
list is used. So, for every type that msgspec knows:

- a property with a default is required, and ``null`` stands for "left out": it decodes to the
  default, unless the type admits `None` itself;
- a keyword that strict mode does not know (``maxLength``, ``uniqueItems``, ``default``) is said
  in the description, and insisted on when decoding; a tuple is an array of any of its types;
- a root that is no object is put under the key ``value``, and taken out again;
- a type with free keys, or with any value at all, has no strict form: its schema is written in
  full, and ``reason`` names the place.

How the schemas differ from those that ``openai`` and ``openai-agents`` make of the same types
with pydantic (``tests/interop/test_tool_schemas.py`` has the proof):

=======================  ==========================================  ==========================
what                     here                                        there
=======================  ==========================================  ==========================
``title``                never: it repeats the name                  on every node
``default``              in the description                          a keyword
a property with default  admits ``null``                             as its type: the model must
                                                                     know the default
lengths, unique items    in the description                          keywords
one value                ``enum`` of one                             ``const``
tuples                   ``items``, of any of the types              ``prefixItems``
a described reference    ``anyOf`` of the reference                  the target written in place
an enumeration           written in place                            a definition
tagged unions            ``anyOf``                                   ``oneOf``, ``discriminator``
``bytes``                base64                                      ``format: binary``
``Decimal``              text                                        text or number
arguments in full        closed                                      open
a second description     the annotation's wins                       the docstring's wins
=======================  ==========================================  ==========================

What belongs elsewhere: writing a schema (`typed/json_schema.py`), and functions (`tools.py`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast, overload

import msgspec
from msgspec import inspect as mi

from trio_responses.errors import ConfigurationError, ResponsesError
from trio_responses.typed.json_leaves import NoSchema
from trio_responses.typed.json_schema import SchemaWriter, bare
from trio_responses.typed.stand_ins import drop_stand_ins

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["InvalidJSON", "JSONType", "Schema", "strict_schema", "text_format"]

T = TypeVar("T")

MAX_NAME = 64
MAX_PROPERTIES = 5_000
MAX_DEPTH = 10
MAX_ENUM_VALUES = 1_000
MAX_ENUM_TEXT = 15_000
MANY_ENUM_VALUES = 250
MAX_TEXT = 120_000
"""The limits of strict mode; one enumeration of many values has a limit of its own."""


class InvalidJSON(ResponsesError, ValueError):
    """JSON of the model that is none, or does not fit its type.

    :ivar message: what is wrong, and where: for the model. It may quote the JSON, so it is not
        in ``str()``.
    :ivar place: the place as a path (``$.days[0]``), where one is known.
    """

    def __init__(self, message: str, *, subject: str = "the JSON") -> None:
        found = re.search(r" at `([^`]*)`$", message)
        self.place: str | None = found[1] if found else None
        where = f" at {self.place}" if self.place else ""
        super().__init__(f"{subject} does not fit its type{where}")
        self.message = message


@dataclass(frozen=True, slots=True)
class Schema:
    """A JSON schema of an object, for ``parameters`` of a tool or for ``text.format``.

    :ivar schema: the schema.
    :ivar strict: whether it keeps the rules of strict mode.
    :ivar reason: the place that has no strict form, and why; `None` if it is strict.
    """

    schema: dict[str, Any]
    strict: bool
    reason: str | None


class JSONType(Generic[T]):
    """A type, the schema of its JSON, and its decoder.

    A type whose JSON is no object is wrapped: ``{"value": ...}``.

    :param annotation: any type that msgspec can decode.
    :param strict: `None` for the strict form if there is one, `True` to insist on it, `False`
        for the schema in full.
    :param place: what the type is called in messages.
    :raises ConfigurationError: if the type has no JSON schema, or no strict one where that was
        insisted on.
    """

    schema: Schema
    wrapped: bool

    @overload
    def __init__(
        self, annotation: type[T], *, strict: bool | None = None, place: str = "schema"
    ) -> None: ...
    @overload
    def __init__(
        self: JSONType[Any],
        annotation: Any,
        *,
        strict: bool | None = None,
        place: str = "schema",
    ) -> None: ...
    def __init__(
        self, annotation: Any, *, strict: bool | None = None, place: str = "schema"
    ) -> None:
        try:
            self.wrapped = not _is_object(mi.type_info(annotation))
            if self.wrapped:
                annotation = _wrap(annotation)
            self._info = mi.type_info(annotation)
            self.schema, self._has_stand_ins = _schema_of(self._info, place, strict=strict)
            self._decoder = msgspec.json.Decoder[Any](annotation)
        except NoSchema as error:
            raise ConfigurationError(str(error)) from None
        except (TypeError, NameError, AttributeError, RecursionError) as error:
            raise ConfigurationError(f"{place}: no JSON schema: {error}") from error

    def decode(self, json: str | bytes) -> T:
        """Decode what a model wrote.

        :raises InvalidJSON: if it is no JSON or does not fit the type. What a type's own
            ``__post_init__`` raises, other than `TypeError` and `ValueError`, comes out as it is.
        """
        try:
            if self._has_stand_ins and _has_null(json):
                json = self._without_stand_ins(json)
            value = self._decoder.decode(json)
        except (ValueError, ArithmeticError) as error:
            raise InvalidJSON(_explain(error)) from error
        except RecursionError as error:
            raise InvalidJSON("the JSON nests too deeply") from error
        return cast("T", value.value if self.wrapped else value)

    def _without_stand_ins(self, json: str | bytes) -> bytes:
        value = _any_decoder.decode(json)
        drop_stand_ins(value, self._info)
        return _any_encoder.encode(value)

    def __repr__(self) -> str:
        return f"<JSONType {'strict' if self.schema.strict else 'not strict'}>"


def strict_schema(annotation: Any, *, place: str = "schema") -> Schema:
    """Write the schema of a type, strict if it can be.

    :param annotation: any type that msgspec can decode. If its JSON is no object, the schema is
        that of ``{"value": ...}``.
    :param place: what the type is called in messages.
    :raises ConfigurationError: if the type has no JSON schema.
    """
    return JSONType[Any](annotation, place=place).schema


@overload
def text_format(
    annotation: type[T],
    *,
    name: str | None = None,
    description: str | None = None,
    strict: bool | None = None,
) -> tuple[dict[str, Any], JSONType[T]]: ...
@overload
def text_format(
    annotation: Any,
    *,
    name: str | None = None,
    description: str | None = None,
    strict: bool | None = None,
) -> tuple[dict[str, Any], JSONType[Any]]: ...
def text_format(
    annotation: Any,
    *,
    name: str | None = None,
    description: str | None = None,
    strict: bool | None = None,
) -> tuple[dict[str, Any], JSONType[Any]]:
    """Make the ``text.format`` of a request whose answer is a typed value.

    :param annotation: the type of the answer.
    :param name: its name for the model; the type's own by default. What the API does not take
        in a name becomes ``_``.
    :param description: what the answer is for.
    :param strict: as of `JSONType`.
    :returns: the format, and the type that decodes the text of the answer.
    :raises ConfigurationError: as `JSONType` does.
    """
    answer = JSONType[Any](annotation, strict=strict, place="answer")
    own_name = name or str(getattr(annotation, "__name__", "answer"))
    text: dict[str, Any] = {
        "type": "json_schema",
        "name": re.sub(r"[^a-zA-Z0-9_-]+", "_", own_name)[:MAX_NAME],
        "schema": answer.schema.schema,
        "strict": answer.schema.strict,
    }
    if description is not None:
        text["description"] = description
    return text, answer


# --- Writing ------------------------------------------------------------------------------


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


def _schema_of(info: mi.Type, place: str, *, strict: bool | None) -> tuple[Schema, bool]:
    writer = SchemaWriter(strict=True)
    schema = writer.root(info, place)
    reason = writer.obstacle or _over_limit(schema, place)
    if reason is None and strict is not False:
        return Schema(schema, strict=True, reason=None), writer.stands_in
    if strict:
        raise ConfigurationError(f"no strict schema: {reason}")
    writer = SchemaWriter(strict=False)
    schema = writer.root(info, place)
    return Schema(schema, strict=False, reason=reason or "not asked for"), writer.stands_in


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


# --- Decoding -----------------------------------------------------------------------------

_any_decoder = msgspec.json.Decoder[Any](float_hook=Decimal)
_any_encoder = msgspec.json.Encoder(decimal_format="number")
# Decimals, so that what is decoded, changed and encoded again has lost no digit.


def _has_null(json: str | bytes) -> bool:
    return "null" in json if isinstance(json, str) else b"null" in json


def _explain(error: Exception) -> str:
    text = str(error) if isinstance(error, msgspec.DecodeError) else "the text is not valid JSON"
    return text.replace(" - at `", " at `")
