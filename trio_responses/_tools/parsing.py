"""Typed answers: a response whose text is an instance of a type.

What belongs elsewhere: schemas and decoding (`schema.py`), asking for an answer (`turns/face.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from trio_responses._errors import (
    AnswerIncomplete,
    AnswerMismatch,
    AnswerRefused,
    Delivery,
    ResponsesError,
)
from trio_responses._tools.schema import InvalidJSON, text_format

if TYPE_CHECKING:
    from collections.abc import Mapping

    from trio_responses._tools.schema import JSONType
    from trio_responses._wire import Response

__all__ = ["ParsedResponse", "ask_for", "read_answer"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ParsedResponse(Generic[T]):
    """A response, and what it says as a value. Made by ``parse()``."""

    response: Response
    """The `Response` itself: usage, id, all of its output."""
    parsed: T
    """The answer."""


def ask_for(answer: Any, params: Mapping[str, Any]) -> tuple[dict[str, Any], JSONType[Any]]:
    """Add the type of the answer to the settings of a turn; other fields of ``text`` stay.

    :return: the settings, and what reads the answer.
    :raises ConfigurationError: for a type that has no JSON schema.
    """
    try:
        form, reader = _text_format(answer)
    except TypeError:  # not hashable, such as an annotation with a list in it
        form, reader = text_format(answer)
    text: Mapping[str, Any] = params.get("text") or {}
    return {**params, "text": {**text, "format": form}}, reader


def read_answer(response: Response, reader: JSONType[T]) -> ParsedResponse[T]:
    """Read the answer of a Response.

    :raises AnswerRefused: when the model refused.
    :raises AnswerIncomplete: when it was cut off.
    :raises AnswerMismatch: when the text does not fit.
    """
    try:
        return ParsedResponse(response, _read(response, reader))
    except ResponsesError as error:
        error.delivery = Delivery.ACCEPTED
        raise


def _read(response: Response, reader: JSONType[T]) -> T:
    if response.refusal:
        raise AnswerRefused(response)
    if response.status == "incomplete":
        raise AnswerIncomplete(response)
    try:
        return reader.decode(response.output_text)
    except InvalidJSON as error:
        raise AnswerMismatch(response, error.message, place=error.place) from error


@lru_cache(maxsize=256)
def _text_format(answer: Any) -> tuple[dict[str, Any], JSONType[Any]]:
    return text_format(answer)
