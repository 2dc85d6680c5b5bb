"""The format in which a request asks for the text of its answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from trio_responses._errors import ConfigurationError
from trio_responses._tools.parsing import with_text_format
from trio_responses._wire.param_checks import merge_extra_body

if TYPE_CHECKING:
    from collections.abc import Mapping

    from trio_responses._json_types.json_type import JSONType

__all__ = ["ANY_TEXT", "AnswerFormat", "AnswerType", "with_answer_format"]


class AnswerType(NamedTuple):
    """The type of an answer."""

    annotation: Any
    """The type as it was given."""
    json_type: JSONType[Any]
    """Its JSON and decoder."""


class AnswerFormat(NamedTuple):
    """The format that a request asks for."""

    type: AnswerType | None = None
    """The type that was given as ``text_format``."""
    is_json: bool = False
    """Whether the request asks for JSON, or may do so in a stored prompt."""

    def type_of(self, answer: Any) -> AnswerType:
        """Return the type of the answer.

        :param answer: the type that the caller asks for; `None` for that of the request.
        :raises ConfigurationError: if the request asks for another type, or not for JSON.
        """
        if self.type is not None:
            if answer is not None and answer != self.type.annotation:
                raise ConfigurationError(
                    f"the stream was started with text_format={_name(self.type.annotation)}, not"
                    f" {_name(answer)}: pass one type in both places"
                )
            return self.type
        if answer is None:
            raise ConfigurationError(
                "the type of the answer is not known: start the stream with text_format=..., such"
                " as stream(..., text_format=Weather)"
            )
        if not self.is_json:
            raise ConfigurationError(
                f"the request does not ask for JSON: start the stream with"
                f" text_format={_name(answer)}"
            )
        return AnswerType(answer, with_text_format(answer, {})[1])


ANY_TEXT: Final = AnswerFormat()
ANY_JSON: Final = AnswerFormat(is_json=True)
FORMAT_PARAMS: Final = frozenset({"text", "prompt", "extra_body"})
"""The parameters that may ask for JSON."""


def with_answer_format(
    text_format: Any, params: Mapping[str, Any]
) -> tuple[Mapping[str, Any], AnswerFormat]:
    """Return the parameters of a request with ``text.format`` for a type, and its format.

    :param text_format: the type; `None` leaves the parameters as they are.
    :raises ConfigurationError: for a type that has no JSON schema.
    """
    if text_format is None:
        may_ask = not FORMAT_PARAMS.isdisjoint(params)
        return params, ANY_JSON if may_ask and _asks_for_json(params) else ANY_TEXT
    given, json_type = with_text_format(text_format, params)
    return given, AnswerFormat(AnswerType(text_format, json_type), is_json=True)


def _asks_for_json(params: Mapping[str, Any]) -> bool:
    fields = merge_extra_body(params)
    text: Mapping[str, Any] = fields.get("text") or {}
    format_: Mapping[str, Any] | None = text.get("format")
    return bool(fields.get("prompt")) if format_ is None else format_.get("type") != "text"


def _name(annotation: Any) -> str:
    return annotation.__name__ if isinstance(annotation, type) else str(annotation)
