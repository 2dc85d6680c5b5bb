"""Typed JSON: the schema that constrains what a model writes, and the decoder of the result.

Strict mode (the guide "Structured Outputs", supported schemas) requires that the root is an object,
that every object is closed and requires all its properties, and that a schema uses only a short
list of keywords. The rules for every type:

- A property with a default is required and accepts ``null``. ``null`` decodes to the default,
  unless the type admits `None` itself.
- A keyword that strict mode does not support (``maxLength``, ``uniqueItems``, ``default``) moves
  into the description. Decoding still enforces the constraint. A tuple becomes an array whose items
  have any of its types.
- A root that is no object is wrapped under the key ``value``. Decoding unwraps the value.
- A type with arbitrary keys, or with a value of any type, has no strict schema: the full schema is
  used, and ``reason`` names the place.

The page ``docs/reference/typed-answers.md`` lists the differences from the schemas that other
libraries make from the same types (``tests/interop`` verifies the list).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

import msgspec

from trio_responses._json_types.adapter import InvalidJSON
from trio_responses._wire.lenient import replace_lone_surrogates, replace_surrogates
from trio_responses._wire.nesting import check_nesting

if TYPE_CHECKING:
    from trio_responses._json_types.adapter import TypeAdapterLike

__all__ = ["InvalidJSON", "JSONType", "Schema", "strict_schema", "text_format"]

T = TypeVar("T")

MAX_NAME = 64
"""Characters that the API accepts in the name of a format."""


@dataclass(frozen=True, slots=True)
class Schema:
    """The JSON schema of an object, for the ``parameters`` of a tool or for ``text.format``.

    :ivar schema: the schema.
    :ivar strict: whether the schema follows the rules of strict mode.
    :ivar reason: the place that strict mode cannot express, and why; `None` if the schema is
        strict.
    """

    schema: dict[str, Any]
    strict: bool
    reason: str | None


class JSONType(Generic[T]):
    """A type with its JSON schema and its decoder.

    A type whose JSON is no object is wrapped: ``{"value": ...}``.

    :param annotation: a Struct, a dataclass, an attrs class, a `TypedDict`, a standard type, or a
        model or a ``TypeAdapter`` of pydantic.
    :param strict: `None` for the strict schema if the type has one, `True` to require it, `False`
        for the full schema.
    :param place: the name of the type in messages.
    :raises ConfigurationError: if the type has no JSON schema, or no strict schema although
        ``strict`` requires one.
    """

    schema: Schema
    """The schema of the JSON. For a wrapped type, the schema of ``{"value": ...}``."""
    wrapped: bool
    """Whether the JSON is ``{"value": ...}``."""
    name: str | None
    """The name of a type whose JSON is an object; `None` if it has none."""

    @overload
    def __init__(
        self,
        annotation: type[T] | TypeAdapterLike[T],
        *,
        strict: bool | None = None,
        place: str = "schema",
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
        # Imported with the first type, since many programs use no types.
        from trio_responses._json_types.compiled_type import compile_type  # noqa: PLC0415

        self._compiled = compile_type(annotation, place, strict=strict)
        self.wrapped = self._compiled.wrapped
        self.name = None if self.wrapped else self._compiled.adapter.name
        reason = self._compiled.reason
        self.schema = Schema(self._compiled.schema, strict=reason is None, reason=reason)

    def decode(self, json: str | bytes) -> T:
        """Decode JSON that a model wrote. U+FFFD replaces lone surrogates, as in frames.

        :raises InvalidJSON: if the text is not JSON or does not match the type. An exception of the
            type's own ``__post_init__`` or validators propagates unchanged, except `TypeError` and
            `ValueError`.
        """
        try:
            check_nesting(json)
            value: T = self._compiled.decode(json)
        except (ValueError, ArithmeticError, RecursionError) as error:
            mended = _replace_lone_surrogates(json)
            if mended is not None:
                return self.decode(mended)
            if isinstance(error, InvalidJSON):
                raise
            raise InvalidJSON(_explain(error)) from error
        return value

    def __repr__(self) -> str:
        """Return whether the schema is strict."""
        return f"<JSONType {'strict' if self.schema.strict else 'not strict'}>"


def strict_schema(annotation: Any, *, place: str = "schema") -> Schema:
    """Return the JSON schema of a type: strict if possible, else full.

    :param annotation: a type that `JSONType` accepts. If its JSON is no object, the schema is
        that of ``{"value": ...}``.
    :param place: the name of the type in messages.
    :raises ConfigurationError: if the type has no JSON schema.
    """
    return JSONType[Any](annotation, place=place).schema


@overload
def text_format(
    annotation: type[T] | TypeAdapterLike[T],
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
    """Return the ``text.format`` of a request for a typed answer, and the decoder of the answer.

    :param annotation: the type of the answer.
    :param name: the name that the model sees; by default the name of the type. Characters that the
        API rejects in a name become ``_``.
    :param description: the purpose of the answer, for the model.
    :param strict: as in `JSONType`.
    :returns: the format, and the type that decodes the text of the answer.
    :raises ConfigurationError: as `JSONType` does.
    """
    answer = JSONType[Any](annotation, strict=strict, place="answer")
    own_name = name or str(getattr(annotation, "__name__", answer.name or "answer"))
    text: dict[str, Any] = {
        "type": "json_schema",
        "name": re.sub(r"[^a-zA-Z0-9_-]+", "_", own_name)[:MAX_NAME],
        "schema": answer.schema.schema,
        "strict": answer.schema.strict,
    }
    if description is not None:
        text["description"] = description
    return text, answer


def _replace_lone_surrogates(json: str | bytes) -> bytes | None:
    """Return JSON with U+FFFD in place of lone surrogates; `None` for JSON that has none."""
    given = json.encode(errors="surrogatepass") if isinstance(json, str) else json
    text = replace_surrogates(json).encode() if isinstance(json, str) else json
    mended = replace_lone_surrogates(text)
    return None if mended == given else mended


def _explain(error: Exception) -> str:
    """Return the message for a decoding error, with the place written as ``at `$.path```."""
    if isinstance(error, RecursionError):
        return "the JSON nests too deeply"
    text = str(error) if isinstance(error, msgspec.DecodeError) else "the text is not valid JSON"
    place = ""
    while found := re.fullmatch(r"(.*) - at `\$([^`]*)`", text, re.DOTALL):  # the outer place first
        text, place = found[1], place + found[2]
    return f"{text} at `${place}`" if place else text.replace(" - at `", " at `")
