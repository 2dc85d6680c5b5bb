"""Calls that the client owes an answer to, and in which item each kind is answered.

A model calls functions, custom tools, a computer, shells, patches, and asks for leave to use MCP
tools; each call stands in the output as an item, and its answer goes into the next input as
another. The server refuses a turn that leaves a call unanswered. What the server runs itself
(web search, code interpreter, hosted shells) is answered in the same output, or not owed at all.

What belongs elsewhere: running them (`conversation/run.py`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias, cast

import msgspec

from trio_responses import _wire as wire

if TYPE_CHECKING:
    from trio_responses._protocol.raw_items import RawItems

__all__ = ["Key", "Noted", "is_answer", "key_of", "make_answer", "make_refusal", "note"]

ANSWERS: Final = {
    "function_call": "function_call_output",
    "custom_tool_call": "custom_tool_call_output",
    "computer_call": "computer_call_output",
    "shell_call": "shell_call_output",
    "local_shell_call": "local_shell_call_output",
    "apply_patch_call": "apply_patch_call_output",
    "mcp_approval_request": "mcp_approval_response",
    "tool_search_call": "tool_search_output",
}
"""The type of each call, and that of the item which answers it."""

ANSWERED: Final = {answer: call for call, answer in ANSWERS.items()}


class _Glance(msgspec.Struct):
    """What of an item tells whether it is a call or an answer."""

    type: str = ""
    id: str | None = None
    call_id: str | None = None
    approval_request_id: str | None = None
    execution: str | None = None


_UNREADABLE: Final = (msgspec.MsgspecError, ValueError)
_decoder: Final = msgspec.json.Decoder(_Glance)
_list_decoder: Final = msgspec.json.Decoder(list[_Glance])


Key: TypeAlias = tuple[str, str]
"""What a call and its answer have in common: the type of the call, and its id."""


class Noted(NamedTuple):
    """A call, or the answer to one."""

    key: Key
    is_call: bool
    raw: msgspec.Raw
    """The item."""


def note(items: RawItems) -> list[Noted]:
    """Find the calls and the answers among items: all of them are looked at once."""
    try:
        glances = _list_decoder.decode(items.array)
    except _UNREADABLE:  # one of them, so each for itself
        glances = [_glance(raw) for raw in items]
    keys = [_key(glance) for glance in glances]
    if not any(keys):
        return []
    return [
        Noted(key, glance.type in ANSWERS, raw)
        for key, glance, raw in zip(keys, glances, items, strict=True)
        if key is not None
    ]


def key_of(raw: msgspec.Raw) -> Key | None:
    """Give the key of a call or an answer; `None` for every other item."""
    return _key(_glance(raw))


def _key(item: _Glance) -> Key | None:
    kind = ANSWERED.get(item.type, item.type)
    if kind not in ANSWERS or item.execution == "server":
        return None
    if kind == "mcp_approval_request":
        name = item.approval_request_id or item.id
    elif kind == "local_shell_call":  # the answer has the call's id as its own
        name = item.call_id or item.id
    else:
        name = item.call_id
    return (kind, name) if name is not None else None


def _glance(raw: msgspec.Raw) -> _Glance:
    try:
        return _decoder.decode(raw)
    except _UNREADABLE:
        return _Glance()


def is_answer(result: Any) -> bool:
    """Whether a result is the whole item that answers a call, as a Struct or as a dict."""
    if isinstance(result, dict):
        kind = cast("dict[str, Any]", result).get("type")
        return isinstance(kind, str) and kind in ANSWERED
    return isinstance(result, wire.Item | wire.UnknownItem)


def make_answer(call: wire.OutputItem, result: Any) -> msgspec.Raw:
    """Make the item that answers a call of what a function or a handler gave.

    A whole item goes as it is. Everything else stands where this kind of answer has it:
    ``output`` in most; for a patch, text is the ``output`` of one that was ``completed``; for an
    MCP approval, `True` is leave, and `False` or text refuses it for that reason. Where a program
    of the model called, its place goes along.

    :raises TypeError: for what cannot be JSON.
    """
    if is_answer(result):
        return _raw(result)
    answer = _begin_answer(call)
    match call:
        case wire.McpApprovalRequest():
            answer["approve"] = result is True
            if isinstance(result, str):
                answer["reason"] = _sayable(result)
        case wire.ApplyPatchCall():
            answer |= {"status": "completed", "output": result}
        case wire.ToolSearchCall():
            answer |= {"execution": "client", "tools": result}
        case _:
            answer["output"] = result
    return _raw(answer)


def make_refusal(call: wire.OutputItem, text: str) -> msgspec.Raw | None:
    """Make the item that says why a call was not run, or how it failed.

    :return: `None` where this kind of answer has no place for that: a screenshot, found tools.
    """
    text = _sayable(text)
    match call:
        case wire.ComputerCall() | wire.ToolSearchCall():
            return None
        case wire.ShellCall():
            outcome = {"type": "exit", "exit_code": 1}
            return make_answer(call, [{"stdout": "", "stderr": text, "outcome": outcome}])
        case wire.ApplyPatchCall():
            return _raw({**_begin_answer(call), "status": "failed", "output": text})
        case _:
            return make_answer(call, text)


def _begin_answer(call: wire.OutputItem) -> dict[str, Any]:
    """Begin an answer with what ties it to its call."""
    answer: dict[str, Any] = {"type": ANSWERS[call.wire_type]}
    match call:
        case wire.McpApprovalRequest():
            answer["approval_request_id"] = call.id
        case wire.LocalShellCall():
            answer["id"] = call.call_id
        case _:
            answer["call_id"] = getattr(call, "call_id", None)
    caller = getattr(call, "caller", None)
    if caller is not None:
        answer["caller"] = caller
    return answer


def _raw(item: Any) -> msgspec.Raw:
    return msgspec.Raw(_encoder.encode(item))


def _as_it_came(value: Any) -> msgspec.Raw:
    """Give back what this version does not know, such as a caller of another kind."""
    if isinstance(value, wire.UnknownItem | wire.UnknownPart):
        return value.raw
    raise TypeError(f"{type(value).__qualname__} has no JSON form")


_encoder: Final = msgspec.json.Encoder(enc_hook=_as_it_came)


def _sayable(text: str) -> str:
    """Replace what JSON cannot say: the lone surrogates of a file's name, for one."""
    return text.encode(errors="replace").decode()
