"""Messages of the conventions for generative AI, made from requests, Responses and calls.

The values are JSON text, the form of the conventions for attributes of spans. Content that cannot
be decoded is left out, so that no turn depends on it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, cast

import msgspec

from trio_responses._wire.nesting import decode_checked

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from trio_responses._instruments.records import ToolRecord
    from trio_responses._wire import Response

__all__ = ["arguments_of", "output_messages", "request_content", "result_of"]

Json = dict[str, Any]

CALLS: Final = {"function_call": "arguments", "custom_tool_call": "input"}
"""The types of calls, with the field that has their arguments."""
OUTPUTS: Final = frozenset({"function_call_output", "custom_tool_call_output"})
TEXTS: Final = {"input_text": "text", "output_text": "text", "text": "text", "refusal": "refusal"}
"""The types of parts that are text, with the field that has it."""


def request_content(request: bytes) -> dict[str, str]:
    """Return the attributes with the content of a request."""
    fields = _decoded(request)
    if not isinstance(fields, dict):
        return {}
    given = cast("Json", fields)
    found: dict[str, Any] = {}
    if isinstance(given.get("instructions"), str):
        found["gen_ai.system_instructions"] = [{"type": "text", "content": given["instructions"]}]
    if given.get("input"):
        found["gen_ai.input.messages"] = _input_messages(given["input"])
    if isinstance(given.get("tools"), list):
        found["gen_ai.tool.definitions"] = [_definition(tool) for tool in given["tools"]]
    return {name: _text(value) for name, value in found.items()}


def output_messages(responses: Iterable[tuple[Response, str]]) -> str:
    """Return one message for each Response.

    :param responses: the Responses, each with its finish reason.
    """
    messages: list[Json] = []
    for response, reason in responses:
        items = [_decoded(raw) for raw in response.raw_output or ()]
        parts = [part for item in items for part in _message_of(item)["parts"]]
        messages.append({"role": "assistant", "parts": parts, "finish_reason": reason})
    return _text(messages)


def arguments_of(tool: ToolRecord) -> str | None:
    """Return the arguments of a call; `None` for a call that has none."""
    value = getattr(tool.call, CALLS.get(tool.kind, ""), None)
    return value if isinstance(value, str) else None


def result_of(tool: ToolRecord) -> str | None:
    """Return the output of a call; `None` when there is none."""
    item = _decoded(tool.output) if tool.output is not None else None
    if not isinstance(item, dict):
        return None
    output = cast("Json", item).get("output")
    return output if isinstance(output, str) else _text(output)


def _definition(tool: Any) -> Json:
    """Return the type and the name of a tool: other fields may hold a key."""
    fields = cast("Json", tool) if isinstance(tool, dict) else {}
    kind = fields.get("type")
    return {"type": kind, "name": fields.get("name") or fields.get("server_label") or kind}


def _input_messages(given: Any) -> list[Json]:
    if isinstance(given, str):
        return [{"role": "user", "parts": [{"type": "text", "content": given}]}]
    items = cast("Iterable[Any]", given) if isinstance(given, list) else (given,)
    return [_message_of(item) for item in items]


def _message_of(item: Any) -> Json:
    """Return the message for an item of an input or an output; an empty one for any other value."""
    try:
        return _convert_item(item)
    except (AttributeError, TypeError):  # fields of types that no server accepts
        return {"role": "user", "parts": []}


def _convert_item(fields: Json) -> Json:
    kind = fields.get("type", "message")
    if kind == "message":
        return {"role": fields.get("role", "user"), "parts": _parts_of(fields.get("content"))}
    if kind in CALLS:
        part: Json = {
            "type": "tool_call",
            "id": fields.get("call_id"),
            "name": fields.get("name"),
            "arguments": _arguments(fields.get(CALLS[kind])),
        }
        return {"role": "assistant", "parts": [part]}
    if kind in OUTPUTS:
        part = {
            "type": "tool_call_response",
            "id": fields.get("call_id"),
            "response": fields.get("output"),
        }
        return {"role": "tool", "parts": [part]}
    if kind == "reasoning":
        summary = cast("list[Json]", fields.get("summary") or [])
        text = "\n".join(str(one.get("text", "")) for one in summary)
        return {"role": "assistant", "parts": [{"type": "reasoning", "content": text}]}
    return {"role": "assistant", "parts": [fields]}  # a part of another type has any fields


def _parts_of(content: Any) -> list[Json]:
    """Return the parts of a message's content."""
    if isinstance(content, str):
        return [{"type": "text", "content": content}]
    return [_part_of(part) for part in cast("list[Json]", content or [])]


def _part_of(part: Mapping[str, Any]) -> Json:
    kind = part.get("type")
    if kind in TEXTS:
        return {"type": "text", "content": part.get(TEXTS[kind])}
    if kind == "input_image" and isinstance(part.get("image_url"), str):
        return _image(part["image_url"])
    return dict(part)


def _image(url: str) -> Json:
    head, _, data = url.partition(";base64,")
    if data and head.startswith("data:"):
        mime = head.removeprefix("data:")
        return {"type": "blob", "modality": "image", "mime_type": mime, "content": data}
    return {"type": "uri", "modality": "image", "uri": url}


def _arguments(value: Any) -> Any:
    """Return the arguments of a call as an object, or as text if they are none."""
    decoded = _decoded(value.encode()) if isinstance(value, str) else None
    return cast("Json", decoded) if isinstance(decoded, dict) else value


def _decoded(json: bytes | msgspec.Raw) -> Any:
    """Return the value of a JSON text; `None` when it cannot be decoded."""
    try:
        return decode_checked(json)
    except (msgspec.DecodeError, RecursionError, UnicodeError):
        return None


def _text(value: Any) -> str:
    return msgspec.json.encode(value).decode()
