"""Typed answers: request a response in the JSON of a type, and decode the text of the response."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from trio_responses._errors import (
    DeliveryStatus,
    IncompleteError,
    ParseMismatchError,
    RefusalError,
    ResponsesError,
)
from trio_responses._tools.schema import InvalidJSON, text_format

if TYPE_CHECKING:
    from collections.abc import Mapping

    from trio_responses._tools.schema import JSONType
    from trio_responses._wire import Response

__all__ = ["ParsedResponse", "parse_response", "with_text_format"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ParsedResponse(Generic[T]):
    """A response with its text decoded as a value of a type. ``parse()`` returns one."""

    response: Response
    """The `Response` with its id, usage and all output items."""
    parsed: T
    """The decoded answer."""

    @property
    def output_parsed(self) -> T:
        """The decoded answer, by the name that openai-python gives it."""
        return self.parsed


def with_text_format(
    answer: Any, params: Mapping[str, Any]
) -> tuple[dict[str, Any], JSONType[Any]]:
    """Return the request parameters with ``text.format`` for a type, and the type's decoder.

    Other fields of ``text`` are kept.

    :raises ConfigurationError: if the type has no JSON schema.
    """
    try:
        format_, json_type = _cached_text_format(answer)
    except TypeError:  # not hashable, such as an annotation with a list in it
        format_, json_type = text_format(answer)
    text: Mapping[str, Any] = params.get("text") or {}
    return {**params, "text": {**text, "format": format_}}, json_type


def parse_response(response: Response, json_type: JSONType[T]) -> ParsedResponse[T]:
    """Return a response with its text decoded by a type.

    :raises RefusalError: if the model refused to answer.
    :raises IncompleteError: if a limit cut the response off.
    :raises ParseMismatchError: if the text does not match the type.
    """
    try:
        return ParsedResponse(response, _decode_text(response, json_type))
    except ResponsesError as error:
        error.delivery = DeliveryStatus.ACCEPTED
        raise


def _decode_text(response: Response, json_type: JSONType[T]) -> T:
    if response.refusal:
        raise RefusalError(response)
    if response.status == "incomplete":
        raise IncompleteError(response)
    try:
        return json_type.decode(response.output_text)
    except InvalidJSON as error:
        raise ParseMismatchError(response, error.message, place=error.place) from error


@lru_cache(maxsize=256)
def _cached_text_format(answer: Any) -> tuple[dict[str, Any], JSONType[Any]]:
    return text_format(answer)
