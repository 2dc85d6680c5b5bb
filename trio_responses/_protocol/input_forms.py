"""The form of input items: which fields each type needs, and the JSON types of their values.

A model or a server may send items of another form. The API refuses them as input, and with them
every later request of the conversation. `repair` removes from an item what the API does not take.
Items and content parts of types that are not listed here pass as they are, and so do items without
a type.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, Union

import msgspec

from trio_responses._wire import DECODE_ERRORS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from trio_responses._protocol.raw_items import RawItems

__all__ = ["is_well_formed", "repair"]


class _Object(msgspec.Struct):
    """Any object."""


_Array = list[msgspec.Raw]
_Name = Annotated[str, msgspec.Meta(min_length=1)]
_Status = Literal["in_progress", "completed", "incomplete"]
_Side = Literal["server", "client"]


class _Form:
    """The form of one type of object.

    :param required: the fields that it needs, with their types.
    :param optional: the other fields that have a type, which may be null.
    """

    def __init__(
        self, tag: str, required: Mapping[str, Any], optional: Mapping[str, Any] | None = None
    ) -> None:
        optional = optional or {}
        self.record = msgspec.defstruct(
            f"_{tag}",
            [
                *((name, type_) for name, type_ in required.items()),
                *((name, type_ | None, None) for name, type_ in optional.items()),
            ],
            kw_only=True,
            tag=tag,
            rename={"async_": "async"},
            gc=False,
        )
        self.required = {name: msgspec.json.Decoder(type_) for name, type_ in required.items()}
        self.optional = {
            "async" if name == "async_" else name: msgspec.json.Decoder(type_ | None)
            for name, type_ in optional.items()
        }


def _forms(*forms: _Form) -> Mapping[str, _Form]:
    return {str(form.record.__struct_config__.tag): form for form in forms}


PARTS: Final = _forms(
    _Form("input_text", {"text": str}),
    _Form("input_image", {}, {"detail": str, "file_id": str, "image_url": str}),
    _Form("input_file", {}, {"file_data": str, "file_id": str, "file_url": str, "filename": str}),
    _Form("output_text", {"text": str}, {"annotations": _Array, "logprobs": _Array}),
    _Form("refusal", {"refusal": str}),
)
"""The forms of the content parts of messages."""

_Parts: Any = list[Union[tuple(form.record for form in PARTS.values())]]  # type: ignore[misc]  # noqa: UP007
_ID: Final[Mapping[str, Any]] = {"id": str}
_ID_AND_STATUS: Final[Mapping[str, Any]] = {"id": str, "status": _Status}
_CALL: Final[Mapping[str, Any]] = {"caller": _Object, "namespace": str, "async_": bool}
_MESSAGE: Final[Mapping[str, Any]] = {
    "role": Literal["user", "assistant", "system", "developer"],
    "content": str | _Parts,
}

ITEMS: Final = _forms(
    _Form("message", _MESSAGE, {**_ID_AND_STATUS, "phase": Literal["commentary", "final_answer"]}),
    _Form(
        "function_call",
        {"arguments": str, "call_id": _Name, "name": _Name},
        {"id": str, "status": _Status, **_CALL},
    ),
    _Form(
        "custom_tool_call",
        {"input": str, "call_id": _Name, "name": _Name},
        {"id": str, "status": _Status, **_CALL},
    ),
    _Form(
        "function_call_output",
        {"call_id": _Name, "output": str | _Array},
        {**_ID_AND_STATUS, "caller": _Object, "name": _Name, "namespace": str},
    ),
    _Form(
        "custom_tool_call_output",
        {"call_id": _Name, "output": str | _Array},
        {**_ID, "caller": _Object},
    ),
    _Form(
        "computer_call",
        {"id": str, "call_id": _Name, "pending_safety_checks": _Array, "status": _Status},
        {"action": _Object, "actions": _Array},
    ),
    _Form(
        "computer_call_output",
        {"call_id": _Name, "output": _Object},
        {**_ID_AND_STATUS, "acknowledged_safety_checks": _Array},
    ),
    _Form(
        "shell_call",
        {"action": _Object, "call_id": _Name},
        {**_ID_AND_STATUS, "caller": _Object, "environment": _Object},
    ),
    _Form(
        "shell_call_output",
        {"call_id": _Name, "output": _Array},
        {**_ID_AND_STATUS, "caller": _Object, "max_output_length": int},
    ),
    _Form("local_shell_call", {"id": str, "action": _Object, "call_id": _Name, "status": _Status}),
    _Form("local_shell_call_output", {"id": str, "output": str}, {"status": _Status}),
    _Form(
        "apply_patch_call",
        {"call_id": _Name, "operation": _Object, "status": Literal["in_progress", "completed"]},
        {**_ID, "caller": _Object},
    ),
    _Form(
        "apply_patch_call_output",
        {"call_id": _Name, "status": Literal["completed", "failed"]},
        {**_ID, "caller": _Object, "output": str},
    ),
    _Form(
        "tool_search_call",
        {"arguments": Any},
        {**_ID_AND_STATUS, "call_id": _Name, "execution": _Side},
    ),
    _Form(
        "tool_search_output",
        {"tools": _Array},
        {**_ID_AND_STATUS, "call_id": _Name, "execution": _Side},
    ),
    _Form(
        "reasoning",
        {"summary": _Array},
        {"id": str, "content": _Array, "encrypted_content": str},
    ),
    _Form("compaction", {"encrypted_content": str}, _ID),
    _Form("additional_tools", {"role": Literal["developer"], "tools": _Array}, _ID),
    _Form(
        "file_search_call",
        {
            "id": str,
            "queries": _Array,
            "status": Literal["in_progress", "searching", "completed", "incomplete", "failed"],
        },
        {"results": _Array},
    ),
    _Form(
        "web_search_call",
        {
            "id": str,
            "action": _Object,
            "status": Literal["in_progress", "searching", "completed", "incomplete", "failed"],
        },
    ),
    _Form(
        "image_generation_call",
        {"id": str, "status": Literal["in_progress", "completed", "generating", "failed"]},
        {
            "result": str,
            "action": Literal["generate", "edit", "auto"],
            "background": Literal["transparent", "opaque", "auto"],
            "error": _Object,
            "output_format": Literal["png", "webp", "jpeg", "gif", "svg"],
            "quality": Literal["low", "medium", "high", "xhigh", "max", "auto"],
            "revised_prompt": str,
            "size": str,
            "svg_usage": _Object,
        },
    ),
    _Form(
        "code_interpreter_call",
        {
            "id": str,
            "container_id": str,
            "status": Literal["in_progress", "completed", "incomplete", "interpreting", "failed"],
        },
        {"code": str, "outputs": _Array},
    ),
    _Form("mcp_list_tools", {"id": str, "server_label": str, "tools": _Array}, {"error": str}),
    _Form(
        "mcp_approval_request", {"id": str, "arguments": str, "name": _Name, "server_label": str}
    ),
    _Form("mcp_approval_response", {"approval_request_id": str, "approve": bool}, {"reason": str}),
    _Form(
        "mcp_call",
        {"id": str, "arguments": str, "name": _Name, "server_label": str},
        {
            "approval_request_id": str,
            "error": _Object,
            "output": str,
            "status": Literal["in_progress", "completed", "incomplete", "calling", "failed"],
        },
    ),
    _Form("program", {"id": str, "call_id": _Name, "code": str, "fingerprint": str}),
    _Form(
        "program_output",
        {"id": str, "call_id": _Name, "result": str, "status": Literal["completed", "incomplete"]},
    ),
)
"""The forms of the items."""

DEFAULTS: Final[Mapping[str, bytes]] = {
    "status": b'"completed"',
    "pending_safety_checks": b"[]",
    "summary": b"[]",
}
"""Required fields that get a value, as JSON, where they are missing or of another type."""

_all_decoder: Final = msgspec.json.Decoder(
    list[Union[tuple(form.record for form in ITEMS.values())]]  # type: ignore[misc]  # noqa: UP007
)
_object_decoder: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_array_decoder: Final = msgspec.json.Decoder(list[msgspec.Raw])


def is_well_formed(items: RawItems) -> bool:
    """Whether all items are of known types and have their form, so that none needs `repair`."""
    try:
        _all_decoder.decode(items.array)
    except DECODE_ERRORS:
        return False
    return True


def repair(raw: msgspec.Raw) -> msgspec.Raw | None:
    """Return an item, which is an object, as the API takes it; `None` if it lacks a needed field.

    An item of a good form is returned as it is.
    """
    fields = _object_decoder.decode(raw)
    kind = _text(fields.get("type", b'"message"' if "role" in fields else b""))
    return _repair(raw, fields, ITEMS.get(kind))


def _repair(
    raw: msgspec.Raw, fields: Mapping[str, msgspec.Raw], form: _Form | None
) -> msgspec.Raw | None:
    if form is None:
        return raw
    changed = dict(fields)
    if "content" in form.required and _fits(_array_decoder, fields.get("content")):
        parts = _array_decoder.decode(fields["content"])
        kept = [new for part in parts if (new := _repair_part(part)) is not None]
        if kept != parts:
            changed["content"] = msgspec.Raw(msgspec.json.encode(kept))
    for name, decoder in form.required.items():
        if name == "content" and _fits(_array_decoder, changed.get(name)):
            continue  # its parts may be of other types
        if not _fits(decoder, changed.get(name)):
            if name not in DEFAULTS:
                return None
            changed[name] = msgspec.Raw(DEFAULTS[name])
    for name, decoder in form.optional.items():
        if name in changed and not _fits(decoder, changed[name]):
            del changed[name]
    return raw if changed == fields else msgspec.Raw(msgspec.json.encode(changed))


def _repair_part(raw: msgspec.Raw) -> msgspec.Raw | None:
    """Return a content part as the API takes it; `None` if it has no type or no text."""
    try:
        fields = _object_decoder.decode(raw)
    except DECODE_ERRORS:
        return None
    kind = _text(fields.get("type", b""))
    return _repair(raw, fields, PARTS.get(kind)) if kind else None


def _fits(decoder: msgspec.json.Decoder[Any], value: msgspec.Raw | None) -> bool:
    try:
        decoder.decode(value or b"")
    except DECODE_ERRORS:
        return False
    return True


def _text(value: bytes | msgspec.Raw) -> str:
    try:
        return msgspec.json.decode(value, type=str)
    except DECODE_ERRORS:
        return ""
