"""What an adapter does for a type of its family, and the error of JSON that does not match.

A family is a kind of types that one library understands: `msgspec_types` has the adapter for the
types of msgspec, `pydantic_types` that for the types of pydantic. `families` chooses the adapter
for an annotation. The schema of an adapter is written in full; `strict_mode` derives the strict
one.
"""

from __future__ import annotations

import re
from typing import Any, Protocol, TypeVar

from trio_responses._errors import ResponsesError

__all__ = ["Adapter", "FieldAdapter", "InvalidJSON", "TypeAdapterLike"]

T_co = TypeVar("T_co", covariant=True)


class InvalidJSON(ResponsesError, ValueError):
    """Text from a model that is not JSON, or JSON that does not match its type.

    :ivar message: the error and its place, to send to the model. The message may quote the JSON, so
        ``str()`` leaves it out.
    :ivar place: the path of the value (``$.days[0]``); `None` if unknown.
    """

    def __init__(
        self, message: str, *, subject: str = "the JSON", place: str | None = None
    ) -> None:
        found = re.search(r" at `([^`]*)`$", message)
        self.place: str | None = place or (found[1] if found else None)
        where = f" at {self.place}" if self.place else ""
        super().__init__(f"{subject} does not match its type{where}: see the attribute message")
        self.message = message


class TypeAdapterLike(Protocol[T_co]):
    """A ``TypeAdapter`` of pydantic, for type checkers: a type that is written as a value."""

    def validate_json(self, data: str | bytes, /) -> T_co:
        """Decode JSON by the type."""
        ...


class Adapter(Protocol):
    """A type with its schema and its decoder."""

    name: str | None
    """The name of the type among the definitions of a schema; `None` if it has none."""
    schema: dict[str, Any]
    """The JSON schema in full, with ``$defs`` for the definitions that it refers to."""
    is_object: bool
    """Whether the JSON is an object."""

    def decode(self, json: str | bytes) -> Any:
        """Decode a value of the type.

        :raises ValueError: if the JSON does not match the type: `InvalidJSON`, or an exception of
            msgspec.
        """


class FieldAdapter(Adapter, Protocol):
    """An adapter that also decodes a part of a larger JSON value."""

    description: str | None
    """The description of the part, which is not in the schema of the type."""

    def decode_part(self, json: bytes, place: str) -> Any:
        """Decode a value of the type.

        :param place: the path of the value, for the messages of errors.
        :raises InvalidJSON: if the JSON does not match the type.
        """
