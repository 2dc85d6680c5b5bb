"""Tool calls that the client has to answer, and the output items that answer them.

A model calls functions, custom tools, a computer, shells and patches, and asks for approval of MCP
tools. Each call is an item of the output, and its output is an item of a later input; the server
refuses a turn that leaves a call without its output. Tools that the server runs itself (web search,
code interpreter, hosted shells) need no output of the client.

``mcp_approval_response`` counts as the output of ``mcp_approval_request`` here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias, cast

import msgspec

from trio_responses import _wire as wire
from trio_responses._wire.lenient import replace_surrogates

if TYPE_CHECKING:
    from trio_responses._protocol.raw_items import RawItems

__all__ = [
    "CallItem",
    "CallKey",
    "call_key",
    "find_calls_and_outputs",
    "is_output_item",
    "make_error_output",
    "make_output",
]

OUTPUT_TYPES: Final = {
    "function_call": "function_call_output",
    "custom_tool_call": "custom_tool_call_output",
    "computer_call": "computer_call_output",
    "shell_call": "shell_call_output",
    "local_shell_call": "local_shell_call_output",
    "apply_patch_call": "apply_patch_call_output",
    "mcp_approval_request": "mcp_approval_response",
    "tool_search_call": "tool_search_output",
}
"""The type of each call, and the type of its output."""

CALL_TYPES: Final = {output: call for call, output in OUTPUT_TYPES.items()}


class _ItemFields(msgspec.Struct):
    """The fields of an item that identify tool calls and their outputs."""

    type: str = ""
    id: str | None = None
    call_id: str | None = None
    approval_request_id: str | None = None
    execution: str | None = None


_UNREADABLE: Final = (msgspec.MsgspecError, ValueError)
_decoder: Final = msgspec.json.Decoder(_ItemFields)
_list_decoder: Final = msgspec.json.Decoder(list[_ItemFields])


CallKey: TypeAlias = tuple[str, str]
"""The type of a call and its id. A call and its output have the same key."""


class CallItem(NamedTuple):
    """An item that is a tool call or the output of a tool call."""

    key: CallKey
    is_call: bool
    raw: msgspec.Raw
    """The item as raw JSON."""


def find_calls_and_outputs(items: RawItems) -> list[CallItem]:
    """Return the tool calls and their outputs among items, in order."""
    try:
        fields = _list_decoder.decode(items.array)
    except _UNREADABLE:  # an item has another shape, so each one is decoded by itself
        fields = [_read_fields(raw) for raw in items]
    keys = [_make_key(item) for item in fields]
    if not any(keys):
        return []
    return [
        CallItem(key, item.type in OUTPUT_TYPES, raw)
        for key, item, raw in zip(keys, fields, items, strict=True)
        if key is not None
    ]


def call_key(raw: msgspec.Raw) -> CallKey | None:
    """Return the key that a tool call and its output share; `None` for every other item."""
    return _make_key(_read_fields(raw))


def _make_key(item: _ItemFields) -> CallKey | None:
    kind = CALL_TYPES.get(item.type, item.type)
    if kind not in OUTPUT_TYPES or item.execution == "server":
        return None
    if kind == "mcp_approval_request":
        name = item.approval_request_id or item.id
    elif kind == "local_shell_call":  # the output has the id of the call as its own
        name = item.call_id or item.id
    else:
        name = item.call_id
    return (kind, name) if name is not None else None


def _read_fields(raw: msgspec.Raw) -> _ItemFields:
    try:
        return _decoder.decode(raw)
    except _UNREADABLE:
        return _ItemFields()


def is_output_item(result: Any) -> bool:
    """Whether the result of a tool is a whole output item: a Struct, or a dict of such a type."""
    if isinstance(result, dict):
        kind = cast("dict[str, Any]", result).get("type")
        return isinstance(kind, str) and kind in CALL_TYPES
    return isinstance(result, wire.Item | wire.UnknownItem)


def make_output(call: wire.OutputItem, result: Any) -> msgspec.Raw:
    """Return the output item of a tool call, made of the result of a function or handler.

    A whole output item is encoded unchanged. Any other result becomes the field ``output``, with
    three exceptions: a patch has the status ``completed``, too; tools that were found are
    ``tools``; for an MCP approval, `True` approves, and `False` or a text, which is the reason,
    does not. If a program of the model made the call, the output names the same ``caller``.

    :raises TypeError: for a result that cannot be encoded as JSON.
    """
    if is_output_item(result):
        return _encode(result)
    output = _make_output_base(call)
    match call:
        case wire.McpApprovalRequest():
            output["approve"] = result is True
            if isinstance(result, str):
                output["reason"] = result
        case wire.ApplyPatchCall():
            output |= {"status": "completed", "output": result}
        case wire.ToolSearchCall():
            output |= {"execution": "client", "tools": result}
        case _:
            output["output"] = result
    return _encode(output)


def make_error_output(call: wire.OutputItem, text: str) -> msgspec.Raw | None:
    """Return the output item that states why a tool call was not run, or how it failed.

    :return: `None` for a call whose output cannot hold a text: a computer call, a tool search.
    """
    match call:
        case wire.ComputerCall() | wire.ToolSearchCall():
            return None
        case wire.ShellCall():
            outcome = {"type": "exit", "exit_code": 1}
            return make_output(call, [{"stdout": "", "stderr": text, "outcome": outcome}])
        case wire.ApplyPatchCall():
            return _encode({**_make_output_base(call), "status": "failed", "output": text})
        case _:
            return make_output(call, text)


def _make_output_base(call: wire.OutputItem) -> dict[str, Any]:
    """Return the fields of an output item that connect the output to its tool call."""
    output: dict[str, Any] = {"type": OUTPUT_TYPES[call.wire_type]}
    match call:
        case wire.McpApprovalRequest():
            output["approval_request_id"] = call.id
        case wire.LocalShellCall():
            output["id"] = call.call_id
        case _:
            output["call_id"] = getattr(call, "call_id", None)
    caller = getattr(call, "caller", None)
    if caller is not None:
        output["caller"] = caller
    return output


def _encode(item: Any) -> msgspec.Raw:
    try:
        return msgspec.Raw(_encoder.encode(item))
    except UnicodeEncodeError:  # lone surrogates, which file names may have
        item = msgspec.to_builtins(item, str_keys=True, enc_hook=_decode_unknown)
        return msgspec.Raw(_encoder.encode(replace_surrogates(item)))


def _encode_unknown(value: Any) -> msgspec.Raw:
    """Return the raw JSON of a record of an unknown type, such as a new kind of caller."""
    if isinstance(value, wire.UnknownItem | wire.UnknownPart):
        return value.raw
    raise TypeError(f"{type(value).__qualname__} cannot be encoded as JSON")


def _decode_unknown(value: Any) -> Any:
    return msgspec.json.decode(_encode_unknown(value))


_encoder: Final = msgspec.json.Encoder(enc_hook=_encode_unknown)
