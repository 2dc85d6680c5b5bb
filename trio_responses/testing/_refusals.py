"""The rules by which the server refuses a request, each with its status, code and message.

The messages are those of OpenAI's server and part of the wire format: do not reword them.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

from trio_responses.testing._frames import RequestRefusal

Rule: TypeAlias = Literal[
    "missing",
    "unknown",
    "type",
    "value",
    "minimum",
    "maximum",
    "pattern",
    "too_many",
    "too_long",
    "empty",
    "empty_array",
    "no_input",
    "url",
    "image_type",
    "function_schema",
    "format_schema",
    "id",
    "duplicate",
    "call_without_output",
    "output_without_call",
    "safety_checks",
    "reasoning_alone",
    "not_persisted",
    "encrypted_content",
]


@dataclass(frozen=True, slots=True)
class _Refusal:
    """The error of one rule. The texts in braces are filled in for each request."""

    message: str
    code: str | None = None
    param: str | None = "input"
    status: int = 400


_AT: Final = "{param}"
_RULES: Final[Mapping[Rule, _Refusal]] = {
    # the form of a request and of its items
    "missing": _Refusal(
        "Missing required parameter: '{param}'.", "missing_required_parameter", _AT
    ),
    "unknown": _Refusal("Unknown parameter: '{param}'.", "unknown_parameter", _AT),
    "type": _Refusal(
        "Invalid type for '{param}': expected {expected}, but got {got} instead.",
        "invalid_type",
        _AT,
    ),
    "value": _Refusal(
        "Invalid value: '{value}'. Supported values are: {choices}.", "invalid_value", _AT
    ),
    "minimum": _Refusal(
        "Invalid '{param}': {kind} below minimum value. Expected a value >= {minimum}, but got"
        " {value} instead.",
        "{kind}_below_min_value",
        _AT,
    ),
    "maximum": _Refusal(
        "Invalid '{param}': {kind} above maximum value. Expected a value <= {maximum}, but got"
        " {value} instead.",
        "{kind}_above_max_value",
        _AT,
    ),
    "pattern": _Refusal(
        "Invalid '{param}': string does not match pattern. Expected a string that matches the"
        " pattern '{pattern}'.",
        "invalid_value",
        _AT,
    ),
    "too_many": _Refusal(
        "Invalid '{param}': too many properties. Expected an object with at most {maximum}"
        " properties, but got an object with {length} properties instead.",
        "object_above_max_properties",
        _AT,
    ),
    "too_long": _Refusal(
        "Invalid '{param}': string too long. Expected a string with maximum length {maximum}, but"
        " got a string with length {length} instead.",
        "string_above_max_length",
        _AT,
    ),
    "empty": _Refusal(
        "Invalid '{param}': empty string. Expected a string with minimum length 1, but got an"
        " empty string instead.",
        "empty_string",
        _AT,
    ),
    "empty_array": _Refusal(
        "Invalid '{param}': empty array. Expected an array with minimum length 1, but got an empty"
        " array instead.",
        "empty_array",
        _AT,
    ),
    "no_input": _Refusal(
        "One of \"input\" or \"previous_response_id\" or 'prompt' or 'conversation_id' must be"
        " provided.",
        "missing_required_parameter",
    ),
    "url": _Refusal(
        "Invalid '{param}'. Expected a valid URL, but got a value with an invalid format.",
        "invalid_value",
        _AT,
    ),
    "image_type": _Refusal(
        "Invalid '{param}'. Expected a base64-encoded data URL with an image MIME type (e.g."
        " 'data:image/png;base64,aW1nIGJ5dGVzIGhlcmU='), but got unsupported MIME type '{value}'.",
        "invalid_value",
        _AT,
    ),
    "function_schema": _Refusal(
        "Invalid schema for {what}: {problem}", "invalid_function_parameters", _AT
    ),
    "format_schema": _Refusal("Invalid schema for {what}: {problem}", "invalid_json_schema", _AT),
    "id": _Refusal(
        "Invalid '{param}': '{value}'. Expected an ID that begins with '{prefix}'.",
        "invalid_value",
        _AT,
    ),
    # the items together
    "duplicate": _Refusal(
        "Duplicate item found with id {id}. Remove duplicate items from your input and try again."
    ),
    "call_without_output": _Refusal("No tool output found for {call} {call_id}."),
    "output_without_call": _Refusal("No tool call found for {call} output with call_id {call_id}."),
    "safety_checks": _Refusal("Computer tool has unacknowledged safety check for {ids}"),
    "reasoning_alone": _Refusal(
        "Item '{id}' of type 'reasoning' was provided without its required following item."
    ),
    "not_persisted": _Refusal(
        "Item with id '{id}' not found. Items are not persisted when `store` is set to false. Try"
        " again with `store` set to true, or remove this item from your input.",
        status=404,
    ),
    "encrypted_content": _Refusal(
        "The encrypted content {content} could not be verified. Reason: Encrypted content could"
        " not be decrypted or parsed.",
        "invalid_encrypted_content",
        param=None,
    ),
}

_JSON_TYPES: Final[Mapping[type, str]] = {
    str: "a string",
    bool: "a boolean",
    int: "an integer",
    float: "a decimal",
    list: "an array",
    dict: "an object",
    type(None): "null",
}


def refuse(rule: Rule, at: str = "", **values: Any) -> RequestRefusal:
    """Return the refusal of a rule.

    :param at: The path of the parameter, such as ``input[0].call_id``.
    :param values: The other texts of the message.
    """
    refusal = _RULES[rule]
    return RequestRefusal(
        message=refusal.message.format(param=at, **values),
        code=None if refusal.code is None else refusal.code.format(**values),
        status=refusal.status,
        param=at if refusal.param == _AT else refusal.param,
    )


def refuse_type(at: str, expected: str, got: Any) -> RequestRefusal:
    """Return the refusal of a value of the wrong type.

    :param expected: The allowed types in words, such as ``a string``.
    """
    return refuse("type", at, expected=expected, got=_name_of_type(got))


def _name_of_type(value: object) -> str:
    return next((name for kind, name in _JSON_TYPES.items() if type(value) is kind), "a value")


def refuse_value(at: str, value: Any, choices: Iterable[str]) -> RequestRefusal:
    """Return the refusal of a value that is none of the supported ones."""
    quoted = [f"'{choice}'" for choice in choices]
    if len(quoted) > 1:
        quoted[-1] = f"and {quoted[-1]}"
    separator = ", " if len(quoted) > 2 else " "  # noqa: PLR2004 - no comma between two
    return refuse("value", at, value=value, choices=separator.join(quoted))
