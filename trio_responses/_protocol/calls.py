"""Tool calls that the client has to answer, and the output items that answer them.

A model calls functions, custom tools, a computer, shells and patches, and asks for approval of MCP
tools. Each call is an item of the output, and its output is an item of a later input; the server
refuses a turn that leaves a call without its output. Tools that the server runs itself (web search,
code interpreter, hosted shells) need no output of the client.

``mcp_approval_response`` counts as the output of ``mcp_approval_request`` here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias, cast, get_args

import msgspec

from trio_responses import _wire as wire
from trio_responses._wire import lenient
from trio_responses._wire.lenient import replace_surrogates

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trio_responses._protocol.raw_items import RawItems

__all__ = [
    "CallItem",
    "CallKey",
    "arguments_of_call",
    "call_key",
    "container_call_key",
    "decode_call",
    "describe_undecodable_call",
    "find_calls_and_outputs",
    "find_unanswerable_call",
    "is_output_item",
    "limit_output",
    "make_error_output",
    "make_output",
    "name_of_call",
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

_TYPES: Final = frozenset((*OUTPUT_TYPES, *CALL_TYPES))

_ITEM_CLASSES: Final[dict[str, Any]] = {
    str(record.__struct_config__.tag): record for record in get_args(wire.OutputItem)
}
"""The record of each type of item that a response may have."""

MAX_OUTPUT: Final = 10_485_760
"""The largest string that the API accepts in an output, in characters."""


class _ItemFields(msgspec.Struct):
    """The fields of an item that identify tool calls and their outputs."""

    type: str = ""
    id: str | None = None
    call_id: str | None = None
    approval_request_id: str | None = None
    execution: str | None = None
    environment: Any = None
    caller: msgspec.Raw = msgspec.Raw()

    @property
    def is_in_container(self) -> bool:
        """Whether the call is of a shell in a container of the server."""
        place: object = self.environment
        if not isinstance(place, dict):
            return False
        return bool(cast("dict[str, Any]", place).get("type") == "container_reference")

    @property
    def is_hosted(self) -> bool:
        """Whether the server itself runs the call: a tool search, or a shell in a container."""
        return self.execution == "server" or self.is_in_container


_UNREADABLE: Final = lenient.DECODE_ERRORS
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
        alone = items.count == 1  # a large item is not copied to be looked at
        fields = [_decoder.decode(items.json)] if alone else _list_decoder.decode(items.array)
    except _UNREADABLE:  # an item has another shape, so each one is decoded by itself
        fields = [_read_fields(raw) for raw in items]
    keys = [_make_key(item) if item.type in _TYPES else None for item in fields]
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


def container_call_key(raw: msgspec.Raw) -> CallKey | None:
    """Return the key of a call of a shell in a container; `None` for every other item.

    The server runs the call and makes the output, which has the same key.
    """
    item = _read_fields(raw)
    is_call = item.type in OUTPUT_TYPES and item.is_in_container
    return _make_key_of(item.type, item) if is_call else None


def _make_key(item: _ItemFields) -> CallKey | None:
    kind = CALL_TYPES.get(item.type, item.type)
    if kind not in OUTPUT_TYPES or item.is_hosted:
        return None
    return _make_key_of(kind, item)


def _make_key_of(kind: str, item: _ItemFields) -> CallKey | None:
    if kind == "mcp_approval_request":
        name = item.approval_request_id or item.id
    elif kind == "local_shell_call":  # the output has the id of the call as its own
        name = item.call_id or item.id
    else:
        name = item.call_id
    return (kind, name) if name else None


def _read_fields(raw: msgspec.Raw) -> _ItemFields:
    try:
        return cast("_ItemFields", lenient.decode(raw, _ItemFields))
    except _UNREADABLE:
        return _ItemFields()


def _fields_of(item: wire.OutputItem) -> _ItemFields:
    """Return the fields that identify a decoded item, also if its type does not match its JSON."""
    if isinstance(item, wire.UnknownItem):
        return _read_fields(item.raw)
    return _ItemFields(
        type=item.wire_type,
        id=getattr(item, "id", None),
        call_id=getattr(item, "call_id", None),
        approval_request_id=getattr(item, "approval_request_id", None),
        execution=getattr(item, "execution", None),
        environment=getattr(item, "environment", None),
    )


def decode_call(raw: msgspec.Raw) -> wire.ToolCall:
    """Decode an item that `find_calls_and_outputs` has found to be a tool call."""
    return cast("wire.ToolCall", wire.decode_item(raw))


def arguments_of_call(call: wire.ToolCall) -> str:
    """Return what the model wrote for a call: its arguments or input; ``""`` if it has none."""
    match call:
        case wire.FunctionCall() | wire.McpApprovalRequest():
            return call.arguments
        case wire.CustomToolCall():
            return call.input
        case wire.ToolSearchCall() if call.arguments is not None:
            return bytes(_encode(call.arguments)).decode()
        case _:
            return ""


def name_of_call(call: wire.OutputItem) -> str:
    """Return the qualified name of the tool of a call; the type of a call without a name."""
    if isinstance(call, wire.FunctionCall | wire.CustomToolCall):
        return call.qualified_name
    return str(getattr(call, "name", call.wire_type))


# --- Calls that cannot run ---------------------------------------------------------------


def describe_undecodable_call(call: wire.ToolCall) -> str | None:
    """Return why a call cannot be decoded; `None` for a call that can.

    A namespace and safety checks of a wrong type count: as optional fields they decode to `None`.
    """
    if isinstance(call, wire.UnknownItem):
        fields = msgspec.structs.fields(_ITEM_CLASSES[call.wire_type])
        sent = msgspec.json.decode(call.raw, type=dict[str, msgspec.Raw])
        required = [field.encode_name for field in fields if field.required]
        missing = [name for name in required if name not in sent]
        if missing:
            return f"it has no {missing[0]!r}"
        return f"a field has a wrong type ({', '.join(required)} are required)"
    for name, decoder in _STRICT_FIELDS.items():
        if getattr(call, name, "") is None and call.raw is not None:
            try:
                decoder.decode(call.raw)
            except _UNREADABLE:
                return f"its {name!r} cannot be read"
    return None


class _Namespace(msgspec.Struct):
    namespace: str | None = None


class _SafetyChecks(msgspec.Struct):
    pending_safety_checks: list[wire.SafetyCheck] | None = None


_STRICT_FIELDS: Final[dict[str, msgspec.json.Decoder[Any]]] = {
    "namespace": msgspec.json.Decoder(_Namespace),
    "pending_safety_checks": msgspec.json.Decoder(_SafetyChecks),
}
"""Optional fields of calls that make a call another one: without them, it must not run."""


def find_unanswerable_call(output: Sequence[wire.OutputItem]) -> tuple[wire.OutputItem, str] | None:
    """Return the first call in the output of a response that no output can answer, and why.

    That is a call without an id, and a call of an unknown type, which may be for the client: unless
    its output or a message follows, since then the server has run it and the model has gone on.
    """
    messages = [index for index, item in enumerate(output) if isinstance(item, wire.Message)]
    last_message = messages[-1] if messages else -1
    fields_of_all = [_fields_of(item) for item in output]
    outputs = {(fields.type, fields.call_id) for fields in fields_of_all}
    for index, (item, fields) in enumerate(zip(output, fields_of_all, strict=True)):
        reason = _describe_missing_id(fields)
        is_unknown = fields.type not in _ITEM_CLASSES and index > last_message
        if is_unknown and not fields.type:
            reason = "it has no 'type', or is not an object"
        elif (
            is_unknown
            and fields.type.endswith("_call")
            and fields.call_id is not None
            and (f"{fields.type}_output", fields.call_id) not in outputs
        ):
            reason = "its type is unknown"
        if reason is not None:
            return item, reason
    return None


def _describe_missing_id(item: _ItemFields) -> str | None:
    """Return what a call of the client lacks so that an output can name it; `None` if nothing."""
    if item.type not in OUTPUT_TYPES or _make_key(item) is not None:
        return None
    if item.is_hosted or (item.type == "tool_search_call" and item.execution != "client"):
        return None
    name = "id" if item.type == "mcp_approval_request" else "call_id"
    return f"it has no {name!r}, or one that is empty or not text"


# --- Outputs -----------------------------------------------------------------------------


def is_output_item(result: Any) -> bool:
    """Whether the result of a tool is a whole output item: a Struct, or a dict of such a type."""
    if isinstance(result, dict):
        kind = cast("dict[str, Any]", result).get("type")
        return isinstance(kind, str) and kind in CALL_TYPES
    return isinstance(result, wire.Item | wire.UnknownItem)


def make_output(call: wire.ToolCall, result: Any) -> msgspec.Raw:
    """Return the output item of a tool call, made of the result of a function or handler.

    A whole output item is encoded unchanged. Any other result becomes the field ``output``, with
    three exceptions: a patch has the status ``completed``, too; tools that were found are
    ``tools``; for an MCP approval, `True` approves, and `False` or a text, which is the reason,
    does not. If a program of the model made the call, the output names the same ``caller``.

    The output of a computer call acknowledges the pending safety checks of the call, unless a whole
    output item names acknowledged ones itself.

    :raises TypeError: for a result that cannot be encoded as JSON.
    """
    checks = call.pending_safety_checks if isinstance(call, wire.ComputerCall) else None
    if is_output_item(result):
        return _with_acknowledgement(_encode(result), checks)
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
    return _with_acknowledgement(_encode(output), checks)


def _with_acknowledgement(
    output: msgspec.Raw, checks: Sequence[wire.SafetyCheck] | None
) -> msgspec.Raw:
    """Return the output of a computer call with its safety checks, unless it names some itself."""
    if not checks:
        return output
    fields = msgspec.json.decode(output, type=dict[str, msgspec.Raw])
    fields.setdefault("acknowledged_safety_checks", _encode(checks))
    return _encode(fields)


def make_error_output(call: wire.ToolCall, text: str) -> msgspec.Raw | None:
    """Return the output item that states why a tool call was not run, or how it failed.

    :return: `None` for a call whose output cannot hold a text: a computer call, a tool search.
    """
    output = _make_output_base(call)
    match call.wire_type:
        case "computer_call" | "tool_search_call":
            return None
        case "mcp_approval_request":
            output |= {"approve": False, "reason": text}
        case "shell_call":
            outcome = {"type": "exit", "exit_code": 1}
            output["output"] = [{"stdout": "", "stderr": text, "outcome": outcome}]
        case "apply_patch_call":
            output |= {"status": "failed", "output": text}
        case _:
            output["output"] = text
    return _encode(output)


_ID_FIELDS: Final = {"mcp_approval_request": "approval_request_id", "local_shell_call": "id"}
"""The field of the output that has the id of the call, where it is not ``call_id``."""


def _make_output_base(call: wire.ToolCall) -> dict[str, Any]:
    """Return the fields of an output item that connect the output to its tool call."""
    fields = _fields_of(call)
    _, name = _make_key(fields) or (None, None)
    kind = call.wire_type
    output: dict[str, Any] = {"type": OUTPUT_TYPES[kind], _ID_FIELDS.get(kind, "call_id"): name}
    caller = getattr(call, "caller", None)
    if caller is not None:
        output["caller"] = caller
    elif bytes(fields.caller):
        output["caller"] = fields.caller
    return output


# --- Long outputs ------------------------------------------------------------------------


TEXT_FIELDS: Final = ("output", "reason", "text", "stdout", "stderr")
"""The fields of an output item, and of the parts of its output, that hold text."""

NOTICE_LENGTH: Final = 100
"""More than the number of characters of a notice."""


def limit_output(output: msgspec.Raw, limit: int) -> msgspec.Raw | None:
    """Return an output item whose texts are shortened to a number of characters together.

    A shortened text keeps its beginning and its end, with a notice between them, which does not
    count.

    :return: `None` if the rest of the item, such as images, is longer than the API accepts.
    """
    if len(bytes(output)) <= min(limit, MAX_OUTPUT):
        return output
    item: dict[str, Any] = msgspec.json.decode(output)
    texts = [(holder, name, holder[name]) for holder, name in _find_texts(item)]
    for holder, name, _ in texts:
        holder[name] = ""
    if len(bytes(_encode(item))) > MAX_OUTPUT:
        return None
    share = _equal_share([len(text) for _, _, text in texts], limit)
    for holder, name, text in texts:
        holder[name] = _shorten(text, share)
    return _encode(item)


def _find_texts(item: dict[str, Any]) -> list[tuple[dict[str, Any], str]]:
    """Return the places of the texts in an output item: an object, and the name of its field."""
    output = item.get("output")
    parts = cast("Any", output) if isinstance(output, list) else ()
    holders = [item, *(cast("dict[str, Any]", part) for part in parts if isinstance(part, dict))]
    return [
        (holder, name)
        for holder in holders
        for name in TEXT_FIELDS
        if isinstance(holder.get(name), str)
    ]


def _equal_share(lengths: Sequence[int], limit: int) -> int:
    """Return how many characters each text may have, if all together have a limit.

    Long texts get what short texts leave over.
    """
    left = limit
    for position, length in enumerate(sorted(lengths)):
        share = left // (len(lengths) - position)
        if length > share:
            return share
        left -= length
    return limit


def _shorten(text: str, limit: int) -> str:
    """Return the beginning and the end of a text that is too long, with a notice between them.

    A text that is longer by no more than a notice is not shortened, nor is one a second time.
    """
    if len(text) <= limit + NOTICE_LENGTH:
        return text
    left_out, tail = len(text) - limit, limit // 2
    notice = f"[{left_out} of {len(text)} characters were left out here: the output was too long]"
    return f"{text[: limit - tail]}\n{notice}\n{text[len(text) - tail :]}"


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
