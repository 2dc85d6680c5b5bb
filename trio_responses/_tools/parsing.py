"""Typed answers: request a response in the JSON of a type, and decode the answer in the response.

The answer is the last one of ``Response.answer_messages``. Commentary and earlier messages are not
decoded, and a refusal in them is none of the answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from trio_responses._errors import (
    ConfigurationError,
    DeliveryStatus,
    IncompleteError,
    ParseMismatchError,
    RefusalError,
    ResponsesError,
)
from trio_responses._json_types.json_type import InvalidJSON, text_format
from trio_responses._protocol.calls import decode_call, find_calls_and_outputs
from trio_responses._protocol.raw_items import RawItems
from trio_responses._wire.base import Item

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from trio_responses._json_types.json_type import JSONType
    from trio_responses._protocol.calls import CallKey
    from trio_responses._wire import Response, ToolCall

__all__ = ["ParsedResponse", "parse_response", "with_text_format"]

T = TypeVar("T")
NO_TYPES: Final = (str, bytes, list, tuple, dict, Item)
"""Classes of inputs, of which no value is a type."""


@dataclass(frozen=True, slots=True)
class ParsedResponse(Generic[T]):
    """A response with its answer decoded as a value of a type. ``parse()`` returns one."""

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
    name = type(answer).__name__
    if isinstance(answer, NO_TYPES):
        raise ConfigurationError(
            f"the answer must be a type, not a value ({name}): the type is the"
            " first argument of parse(), and the input the second"
        )
    try:
        format_, json_type = _cached_text_format(answer)
    except TypeError:  # not hashable, such as an annotation with a list in it
        format_, json_type = text_format(answer)
    text: Mapping[str, Any] = params.get("text") or {}
    return {**params, "text": {**text, "format": format_}}, json_type


def parse_response(
    response: Response,
    json_type: JSONType[T],
    *,
    is_answered: Callable[[CallKey], bool] = lambda _key: False,
) -> ParsedResponse[T]:
    """Return a response with its answer decoded by a type.

    :param is_answered: whether a call of the response has an output that was not sent.
    :raises RefusalError: if the model refused to answer.
    :raises IncompleteError: if the response was cut off, by a limit or otherwise.
    :raises ParseMismatchError: if the answer does not match the type, or there is none.
    """
    try:
        return ParsedResponse(response, _decode_answer(response, json_type, is_answered))
    except ResponsesError as error:
        error.delivery = DeliveryStatus.ACCEPTED
        raise


def _decode_answer(
    response: Response, json_type: JSONType[T], is_answered: Callable[[CallKey], bool]
) -> T:
    answers = response.answer_messages
    answer = answers[-1] if answers else None
    if answer.refusal if answer is not None else response.refusal:
        raise RefusalError(response)
    if response.status != "completed":
        raise IncompleteError(response)
    if answer is None:
        raise ParseMismatchError(response, calls=_unanswered_calls(response, is_answered))
    try:
        return json_type.decode(answer.output_text)
    except InvalidJSON as error:
        calls = _unanswered_calls(response, is_answered)
        raise ParseMismatchError(
            response, error.message, summary=error.summary, place=error.place, calls=calls
        ) from error


def _unanswered_calls(response: Response, is_answered: Callable[[CallKey], bool]) -> list[ToolCall]:
    """Return the calls of a response that the client has to answer, and has not answered."""
    items = find_calls_and_outputs(RawItems.join(response.raw_output or []))
    outputs = {item.key for item in items if not item.is_call}
    return [
        decode_call(item.raw)
        for item in items
        if item.is_call and item.key not in outputs and not is_answered(item.key)
    ]


@lru_cache(maxsize=256)
def _cached_text_format(answer: Any) -> tuple[dict[str, Any], JSONType[Any]]:
    return text_format(answer)
