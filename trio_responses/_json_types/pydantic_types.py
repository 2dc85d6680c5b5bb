"""The types of pydantic: models, dataclasses, `TypeAdapter` instances, and annotations with them.

This module imports pydantic: import it only for a type of the user that comes from pydantic.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, cast, get_origin

import msgspec
import pydantic
from pydantic.json_schema import GenerateJsonSchema

from trio_responses._errors import ConfigurationError
from trio_responses._json_types.adapter import InvalidJSON
from trio_responses._json_types.custom_types import name_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trio_responses._json_types.strict_mode import JSONSchema

__all__ = ["PydanticType"]

if tuple(map(int, pydantic.VERSION.split(".")[:2])) < (2, 7):
    raise ImportError(f"pydantic {pydantic.VERSION} is too old")

MAX_ERRORS = 5
"""The number of errors of one value that are described."""
UNSUPPORTED = (
    *(pydantic.PydanticUserError, pydantic.PydanticUndefinedAnnotation),
    *(TypeError, NameError, AttributeError, NotImplementedError, RecursionError),
)
"""Raised by pydantic for a type that it cannot decode, or for which it has no JSON schema."""


class _SchemaGenerator(GenerateJsonSchema):
    """A generator whose titles are the names of fields, as those in an array are needed."""

    def get_title_from_name(self, name: str) -> str:
        return name

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002
        return True


class PydanticType:
    """The adapter of a type that pydantic decodes.

    :param place: the name of the type in messages.
    :param parts: the parts of the annotation.
    :raises ConfigurationError: if pydantic has no JSON schema for the type.
    """

    name: str | None
    description: str | None
    schema: JSONSchema
    is_object: bool

    def __init__(self, annotation: Any, place: str, *, parts: Sequence[Any]) -> None:
        annotation, self.description = _split_meta(annotation, place, parts)
        try:
            self._adapter: Any = annotation
            if not isinstance(annotation, pydantic.TypeAdapter):
                self._adapter = pydantic.TypeAdapter(annotation)
            schema = self._adapter.json_schema(schema_generator=_SchemaGenerator)
        except UNSUPPORTED as error:
            raise ConfigurationError(_explain(error, annotation, place, parts)) from error
        definitions = {name: _tidy(each) for name, each in schema.pop("$defs", {}).items()}
        self.name = schema.get("title") if "properties" in schema else None
        schema = _tidy(schema)
        if "$ref" in schema:  # the root of a strict schema is an object
            self.name = schema.pop("$ref").removeprefix("#/$defs/")
            schema = {**definitions[self.name], **schema}
        self.is_object = schema.get("type") == "object"
        self.schema = {**schema, "$defs": definitions} if definitions else schema

    def decode(self, json: str | bytes) -> Any:
        """Decode a value of the type.

        :raises InvalidJSON: if the JSON does not match the type. Exceptions of validators propagate
            unchanged, except `ValueError` and `AssertionError`.
        """
        return self.decode_part(json, "$")

    def decode_part(self, json: str | bytes, place: str) -> Any:
        """Decode a value at a place of a larger JSON value, as `decode` does."""
        try:
            return self._adapter.validate_json(json)
        except pydantic.ValidationError as error:
            # The text of pydantic's error quotes the JSON, and so would the traceback.
            raise _invalid(error, json, place) from None


def _split_meta(annotation: Any, place: str, parts: Sequence[Any]) -> tuple[Any, str | None]:
    """Return an annotation without `msgspec.Meta`, and the description in it.

    :raises ConfigurationError: for parts that pydantic would ignore or misunderstand.
    """
    outer: tuple[Any, ...] = ()
    if get_origin(annotation) is Annotated:
        outer = annotation.__metadata__
        others = [each for each in outer if not isinstance(each, msgspec.Meta)]
        annotation = annotation.__origin__
        if others:
            annotation = Annotated[annotation, *others]
    description: str | None = None
    for part in parts:
        if isinstance(part, msgspec.Meta):
            if part != msgspec.Meta(description=part.description) or part not in outer:
                raise ConfigurationError(
                    f"{place}: pydantic does not read {part!r}: use pydantic.Field in its place"
                )
            description = part.description
        elif _is_model_of_pydantic_1(part):
            raise ConfigurationError(
                f"{place}: {part.__name__} is a model of pydantic 1: use a model of pydantic 2"
            )
    return annotation, description


def _is_model_of_pydantic_1(part: Any) -> bool:
    bases: tuple[Any, ...] = part.__mro__ if isinstance(part, type) else ()
    return any(
        base.__name__ == "BaseModel" and base.__module__ in ("pydantic.main", "pydantic.v1.main")
        for base in bases
    ) and not hasattr(part, "model_json_schema")


def _explain(error: Any, annotation: Any, place: str, parts: Sequence[Any]) -> str:
    """Return the message for a type that pydantic does not support."""
    reason = str(error).partition("\n")[0].partition(". ")[0]
    text = f"{place}: pydantic has no JSON schema for {name_of(annotation)}: {reason}"
    own = next((part for part in parts if _is_of_msgspec(part)), None)
    if own is None:
        return f"{text}; use types that pydantic can decode from JSON"
    return (
        f"{text}; {own.__name__} is not a type of pydantic, and the annotation also has types or"
        " metadata of pydantic: use models of pydantic for all of it, or Structs and msgspec.Meta"
    )


def _is_of_msgspec(part: Any) -> bool:
    """Whether a part of an annotation is a Struct or an attrs class."""
    return hasattr(part, "__struct_fields__") or hasattr(part, "__attrs_attrs__")


def _tidy(node: Any) -> Any:
    """Return a schema of pydantic without what a model does not need.

    Titles repeat the names of fields, but for those in an array. A ``discriminator`` repeats the
    literals of its options.
    """
    if not isinstance(node, dict):
        return node
    tidy: dict[str, Any] = {}
    for keyword, value in cast("dict[str, Any]", node).items():
        match keyword:
            case "title" | "discriminator":
                pass
            case "properties" | "patternProperties":
                tidy[keyword] = {name: _tidy(each) for name, each in value.items()}
            case "anyOf" | "oneOf":
                tidy[keyword] = [_tidy(each) for each in value]
            case "allOf" if len(value) == 1:  # how earlier versions describe a reference
                tidy.update(_tidy(value[0]))
            case "prefixItems":
                titles = ({"title": each["title"]} if "title" in each else {} for each in value)
                tidy[keyword] = [
                    {**title, **_tidy(each)} for title, each in zip(titles, value, strict=True)
                ]
            case "items" | "additionalProperties" | "propertyNames":
                tidy[keyword] = _tidy(value)
            case _:
                tidy[keyword] = value
    return tidy


def _invalid(error: pydantic.ValidationError, json: str | bytes, root: str) -> InvalidJSON:
    """Return the error for JSON that does not match, with the places of its first errors.

    The messages of pydantic do not quote the JSON, other than those of the user's own validators.

    :param root: the path of the JSON.
    """
    details = error.errors(include_url=False, include_context=False, include_input=False)
    places = [f"{root}{_path(detail['loc'], json)}" for detail in details]
    texts = [
        detail["msg"] if place == "$" else f"{detail['msg']} at `{place}`"
        for detail, place in zip(details, places, strict=True)
    ]
    left_out = len(texts) - MAX_ERRORS
    more = f"; and {left_out} more" if left_out > 0 else ""
    message = "; ".join(texts[:MAX_ERRORS]) + more
    return InvalidJSON(message, place=None if places[0] == "$" else places[0])


def _path(location: Sequence[int | str], json: str | bytes) -> str:
    """Return the path of an error in the JSON (``.days[0]``).

    The location of pydantic also names members of unions, which are not in the JSON. A key that is
    missing is not in the JSON either, and is the last one.
    """
    try:
        value: Any = msgspec.json.decode(json)
    except msgspec.DecodeError:
        return ""
    path = ""
    for number, step in enumerate(location):
        kind = cast("object", type(value))
        if isinstance(step, int) and kind is list and step < len(value):
            path, value = f"{path}[{step}]", value[step]
        elif isinstance(step, str) and kind is dict and step in value:
            path, value = f"{path}.{step}", value[step]
        elif isinstance(step, str) and kind is dict and number == len(location) - 1:
            path = f"{path}.{step}"
    return path
