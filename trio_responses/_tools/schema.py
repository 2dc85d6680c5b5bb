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

What belongs elsewhere: how a type is written and read (`typed/forms.py`, imported with the first
type), and functions (`tools/function.py`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, overload

import msgspec

from trio_responses._errors import ResponsesError

__all__ = ["InvalidJSON", "JSONType", "Schema", "strict_schema", "text_format"]

T = TypeVar("T")

MAX_NAME = 64
"""Characters that the API takes in the name of a form."""


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
    """The schema of the JSON; of the object around it, where it is wrapped."""
    wrapped: bool
    """Whether the JSON is ``{"value": ...}``."""

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
        from trio_responses._tools.schema_mode import form_of  # noqa: PLC0415 - many use no types

        self._form = form_of(annotation, place, strict=strict)
        self.wrapped = self._form.wrapped
        reason = self._form.reason
        self.schema = Schema(self._form.schema, strict=reason is None, reason=reason)

    def decode(self, json: str | bytes) -> T:
        """Decode what a model wrote.

        :raises InvalidJSON: if it is no JSON or does not fit the type. What a type's own
            ``__post_init__`` raises, other than `TypeError` and `ValueError`, comes out as it is.
        """
        try:
            value: T = self._form.decode(json)
        except (ValueError, ArithmeticError) as error:
            raise InvalidJSON(_explain(error)) from error
        except RecursionError as error:
            raise InvalidJSON("the JSON nests too deeply") from error
        return value

    def __repr__(self) -> str:
        """Show whether it is strict."""
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


def _explain(error: Exception) -> str:
    text = str(error) if isinstance(error, msgspec.DecodeError) else "the text is not valid JSON"
    return text.replace(" - at `", " at `")
