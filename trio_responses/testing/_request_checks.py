"""Checks of the frames that a client sends: pure functions from JSON to a refusal or None.

The messages are those of OpenAI's server and part of the wire format: do not reword them.
"""

import re
from collections.abc import Collection, Mapping
from typing import Any, Final, TypeAlias, cast

import msgspec

from trio_responses._wire import ResponseCreate
from trio_responses.testing._frames import (
    Json,
    RequestRefusal,
    invalid_stream_id,
    unsupported_stream_id,
)
from trio_responses.testing._item_checks import MAX_STRING, SentNames, check_items, check_strings
from trio_responses.testing._parameter_checks import check_parameters
from trio_responses.testing._records import Transport
from trio_responses.testing._refusals import refuse, refuse_type, refuse_value

_LANE_NAME: Final = re.compile(r"[A-Za-z0-9_.\-]{1,256}")
_Types: TypeAlias = tuple[type, ...]

_NUMBER: Final[_Types] = (int, float)
_FIELD_TYPES: Final[Mapping[str, tuple[_Types, str]]] = {
    "previous_response_id": ((str,), "a string"),
    "instructions": ((str, list), "a string or an array"),
    "store": ((bool,), "a boolean"),
    "generate": ((bool,), "a boolean"),
    "background": ((bool,), "a boolean"),
    "stream": ((bool,), "a boolean"),
    "parallel_tool_calls": ((bool,), "a boolean"),
    "temperature": (_NUMBER, "a number"),
    "top_p": (_NUMBER, "a number"),
    "top_logprobs": ((int,), "an integer"),
    "max_output_tokens": ((int,), "an integer"),
    "max_tool_calls": ((int,), "an integer"),
    "metadata": ((dict,), "an object"),
    "reasoning": ((dict,), "an object"),
    "text": ((dict,), "an object"),
    "prompt_cache_options": ((dict,), "an object"),
    "tools": ((list,), "an array"),
    "include": ((list,), "an array"),
    "tool_choice": ((str, dict), "a string or an object"),
    "conversation": ((str, dict), "a string or an object"),
    "context_management": ((list,), "an array"),
}
_KNOWN_FIELDS: Final = frozenset(
    {field.encode_name for field in msgspec.structs.fields(ResponseCreate)} - {"extra"}
    | {
        "type",
        "multi_agent",  # in the beta API
        "client_metadata",  # sent by Codex
        "background_options",
    }
)
_WEBSOCKET_FIELDS: Final = frozenset({"type", "stream_id", "generate"})
"""Fields that only WebSocket mode has."""
_INPUTS: Final = ("input", "previous_response_id", "prompt", "conversation")
"""The parameters of which a request that generates output needs one."""
_USER_PARTS: Final = ("input_text", "input_image", "input_file")


def parse_frame(frame: str | bytes) -> Json | RequestRefusal:
    """Return the JSON object in ``frame``, or a refusal if the frame is none."""
    if isinstance(frame, bytes):
        return RequestRefusal(message="Expected a text frame, got a binary one.")
    return parse_json(frame, "frame")


def parse_json(text: str | bytes, what: str = "body") -> Json | RequestRefusal:
    """Return the JSON object in a frame or body, or a refusal if it is none.

    :param what: ``frame`` or ``body``.
    """
    try:
        value = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return RequestRefusal(message=f"The {what} is not valid JSON.")
    except RecursionError:
        return RequestRefusal(message=f"The {what} is nested too deeply.")
    if not isinstance(value, dict):
        return RequestRefusal(message=f"The {what} must be a JSON object.")
    return cast("Json", value)


def is_authorized(headers: Mapping[str, str], api_key: str | None) -> bool:
    """Whether the headers of a request have the key of the server.

    :param api_key: The key that the client must send as a bearer token or in ``api-key``; None
        accepts any key, and requests without a key.
    """
    scheme, _, token = headers.get("authorization", "").partition(" ")
    if api_key is not None:
        bearer = scheme.lower() == "bearer" and token.strip() == api_key
        return bearer or headers.get("api-key") == api_key
    if "authorization" in headers:
        return scheme.lower() == "bearer" and bool(token.strip())
    return True


def check_lane(body: Json, *, lanes: bool) -> RequestRefusal | None:
    """Return a refusal of an invalid ``stream_id``. Checked before the request joins a lane."""
    if "stream_id" not in body:
        return None
    if not lanes:
        return unsupported_stream_id()
    name = body["stream_id"]
    if isinstance(name, str) and _LANE_NAME.fullmatch(name):
        return None
    return invalid_stream_id()


def check_create(
    body: Json,
    *,
    strict: bool,
    unknown_parameters: bool,
    names: SentNames,
    transport: Transport = "websocket",
) -> RequestRefusal | None:
    """Return a refusal of an invalid ``response.create``, or of a body of ``POST /responses``.

    :param strict: Whether to refuse everything that OpenAI refuses; if not, only what the server
        cannot process.
    :param unknown_parameters: Whether unknown fields are allowed.
    :param names: The names in output items of scripts, which are allowed in input items.
    """
    over_http = transport == "http"
    known = _KNOWN_FIELDS - _WEBSOCKET_FIELDS if over_http else _KNOWN_FIELDS
    unknown = None if unknown_parameters or not strict else _check_names(body, known)
    refusal = unknown or _check_model(body.get("model")) or _check_types(body)
    if refusal is not None:
        return refusal
    if body.get("background") and body.get("store") is False:
        return RequestRefusal(
            message="Background mode requires 'store' to be true.",
            code="invalid_value",
            param="store",
        )
    if body.get("background") and not over_http:
        return RequestRefusal(
            message="Background mode is not supported over WebSocket.",
            code="unsupported_parameter",
            param="background",
        )
    if body.get("conversation") is not None and body.get("previous_response_id") is not None:
        return RequestRefusal(
            message="'conversation' and 'previous_response_id' exclude each other.",
            code="mutually_exclusive_parameters",
            param="previous_response_id",
        )
    return (
        _check_input(body.get("input"), names if strict else None)
        or _check_tools(body.get("tools"))
        or _check_context_management(body.get("context_management"))
        or (_check_strictly(body) if strict else None)
    )


def _check_strictly(body: Json) -> RequestRefusal | None:
    """Return a refusal of what the server could process, but OpenAI refuses."""
    cache: Json = body.get("prompt_cache_options") or {}
    generates = body.get("generate") is not False and not cache.get("prewarm")
    if generates and not any(body.get(name) for name in _INPUTS):
        return refuse("no_input")
    return check_parameters(body) or _check_lengths(body)


_COMPACT_FIELDS: Final = frozenset(
    {
        "model",
        "input",
        "instructions",
        "previous_response_id",
        "prompt_cache_key",
        "prompt_cache_options",
        "prompt_cache_retention",
        "service_tier",
        "image",
    }
)
_COUNT_FIELDS: Final = frozenset(
    {
        "model",
        "input",
        "instructions",
        "previous_response_id",
        "conversation",
        "parallel_tool_calls",
        "personality",
        "reasoning",
        "text",
        "tool_choice",
        "tools",
        "truncation",
    }
)


def check_compact(
    body: Json, *, strict: bool, unknown_parameters: bool, names: SentNames
) -> RequestRefusal | None:
    """Return a refusal of a body of ``POST /responses/compact``."""
    known = None if unknown_parameters or not strict else _COMPACT_FIELDS
    return _check_model(body.get("model")) or _check_call(body, known, names if strict else None)


def check_count(
    body: Json, *, strict: bool, unknown_parameters: bool, names: SentNames
) -> RequestRefusal | None:
    """Return a refusal of a body of ``POST /responses/input_tokens``."""
    known = None if unknown_parameters or not strict else _COUNT_FIELDS
    return _check_call(body, known, names if strict else None)


def _check_call(
    body: Json, known: Collection[str] | None, names: SentNames | None
) -> RequestRefusal | None:
    unknown = None if known is None else _check_names(body, known)
    return (
        unknown
        or _check_types(body)
        or _check_input(body.get("input"), names)
        or _check_tools(body.get("tools"))
    )


def check_steer(body: Json) -> str | None:
    """Return the error message for an invalid ``response.steer``, or None."""
    unknown = set(body) - {"type", "previous_response_id", "input"}
    if unknown:
        return f"Unknown parameters: {', '.join(sorted(unknown))}."
    if not isinstance(body.get("previous_response_id"), str):
        return "'previous_response_id' must be a string."
    value: Any = body.get("input")
    if isinstance(value, str) and value:
        return None
    if not isinstance(value, list) or not value:
        return "'input' must be text or a non-empty array of user messages."
    if all(_is_user_message(item) for item in cast("Any", value)):
        return None
    return "'input' may hold user messages only, of text, images and files."


def _is_user_message(item: Any) -> bool:
    if not isinstance(item, dict):
        return False
    fields = cast("Json", item)
    if set(fields) - {"type", "role", "content"} or fields.get("type", "message") != "message":
        return False
    content: Any = fields.get("content")
    if isinstance(content, list):
        parts = cast("list[object]", content)
        good = len(parts) > 0 and all(_is_user_part(part) for part in parts)
    else:
        good = isinstance(content, str)
    return good and fields.get("role") == "user"


def _is_user_part(part: Any) -> bool:
    return isinstance(part, dict) and cast("Json", part).get("type") in _USER_PARTS


def _check_names(body: Json, known: Collection[str]) -> RequestRefusal | None:
    unknown = next((name for name in body if name not in known), None)
    return None if unknown is None else refuse("unknown", unknown)


def _check_model(model: Any) -> RequestRefusal | None:
    if model is None or model == "":
        return refuse("missing", "model")
    return None if isinstance(model, str) else refuse_type("model", "a string", model)


def _check_types(body: Json) -> RequestRefusal | None:
    for name, (types, expected) in _FIELD_TYPES.items():
        value = body.get(name)
        if value is not None and not _is_a(value, types):
            return refuse_type(name, expected, value)
    return None


def _check_input(value: Any, names: SentNames | None) -> RequestRefusal | None:
    if value is None or isinstance(value, str):
        return None
    if not isinstance(value, list):
        return refuse_type("input", "one of an array of input items or string", value)
    items: list[Any] = cast("Any", value)
    if names is not None:
        return check_items(items, names)
    for index, item in enumerate(items):
        if not isinstance(item, dict):
            return refuse_type(f"input[{index}]", "an object", item)
    return None


def _check_lengths(body: Json) -> RequestRefusal | None:
    # Encoding is much faster than a walk, which only a large request needs.
    is_large = len(msgspec.json.encode(body)) > MAX_STRING
    return check_strings(body, "") if is_large else None


def _check_tools(value: Any) -> RequestRefusal | None:
    for index, tool in enumerate(cast("list[Any]", value or [])):
        if not isinstance(tool, dict):
            return refuse_type(f"tools[{index}]", "an object", tool)
        fields = cast("Json", tool)
        if not isinstance(fields.get("type"), str):
            return refuse("missing", f"tools[{index}].type")
        if fields["type"] == "function" and not isinstance(fields.get("name"), str):
            return refuse("missing", f"tools[{index}].name")
    return None


def _check_context_management(value: Any) -> RequestRefusal | None:
    for index, rule in enumerate(cast("list[Any]", value or [])):
        at = f"context_management[{index}]"
        if not isinstance(rule, dict):
            return refuse_type(at, "an object", rule)
        fields = cast("Json", rule)
        if fields.get("type") is None:
            return refuse("missing", f"{at}.type")
        if fields["type"] != "compaction":
            return refuse_value(f"{at}.type", fields["type"], ["compaction"])
        threshold: Any = fields.get("compact_threshold")
        if threshold is not None and not _is_a(threshold, (int,)):
            return refuse_type(f"{at}.compact_threshold", "an integer", threshold)
        if threshold is not None and threshold < 1:
            at += ".compact_threshold"
            return refuse("minimum", at, kind="integer", minimum=1, value=threshold)
    return None


def _is_a(value: Any, types: _Types) -> bool:
    # A bool is an int in Python, but true is no number in JSON.
    return isinstance(value, types) and (bool in types or not isinstance(value, bool))
