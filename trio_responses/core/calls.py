"""Calls that the client owes an answer to, and in which item each kind is answered.

A model calls functions, custom tools, a computer, shells, patches, and asks for leave to use MCP
tools; each call stands in the output as an item, and its answer goes into the next input as
another. The server refuses a turn that leaves a call unanswered. What the server runs itself
(web search, code interpreter, hosted shells) is answered in the same output, or not owed at all.

What belongs elsewhere: running them (`run.py`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeAlias

import msgspec

from trio_responses import wire

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Key", "key_of", "make_answer", "make_refusal", "note_items"]

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


_decoder: Final = msgspec.json.Decoder(_Glance)


Key: TypeAlias = tuple[str, str]
"""What a call and its answer have in common: the type of the call, and its id."""


def key_of(raw: msgspec.Raw) -> Key | None:
    """Give the key of a call or an answer; `None` for every other item."""
    item = _glance(raw)
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


def note_items(owed: dict[Key, msgspec.Raw], items: Iterable[msgspec.Raw]) -> None:
    """Bring the calls that are not answered up to date, in their order, by further items.

    An id that comes again is a new call if the one before was answered, and else the same.
    """
    for raw in items:
        key = key_of(raw)
        if key is None:
            continue
        if _glance(raw).type in ANSWERS:
            owed[key] = raw
        else:
            owed.pop(key, None)


def _glance(raw: msgspec.Raw) -> _Glance:
    try:
        return _decoder.decode(raw)
    except (msgspec.MsgspecError, ValueError):
        return _Glance()


def make_answer(call: wire.OutputItem, result: Any) -> msgspec.Raw:
    """Make the item that answers a call of what a function or a handler gave.

    An item, as a Struct or as a dict with its ``type``, goes as it is. Everything else stands
    where this kind of answer has it: ``output`` in most; for a patch, text is the ``output`` of
    one that was ``completed``; for an MCP approval, `True` is leave, and `False` or text refuses it
    for that reason.

    :raises TypeError: for what cannot be JSON.
    """
    if isinstance(result, wire.Item | wire.UnknownItem) or (
        isinstance(result, dict) and "type" in result and result["type"] in ANSWERED
    ):
        return msgspec.Raw(msgspec.json.encode(result))
    answer: dict[str, Any] = {"type": ANSWERS[call.type]}
    match call:
        case wire.McpApprovalRequest():
            answer |= {"approval_request_id": call.id, "approve": result is True}
            if isinstance(result, str):
                answer["reason"] = result
        case wire.LocalShellCall():
            answer |= {"id": call.call_id, "output": result}
        case wire.ApplyPatchCall():
            answer |= {"call_id": call.call_id, "status": "completed", "output": result}
        case wire.ToolSearchCall():
            answer |= {"call_id": call.call_id, "execution": "client", "tools": result}
        case _:
            answer |= {"call_id": getattr(call, "call_id", None), "output": result}
    return msgspec.Raw(msgspec.json.encode(answer))


def make_refusal(call: wire.OutputItem, text: str) -> msgspec.Raw | None:
    """Make the item that says why a call was not run, or how it failed.

    :return: `None` where this kind of answer has no place for that: a screenshot, found tools.
    """
    match call:
        case wire.ComputerCall() | wire.ToolSearchCall():
            return None
        case wire.ShellCall():
            outcome = {"type": "exit", "exit_code": 1}
            return make_answer(call, [{"stdout": "", "stderr": text, "outcome": outcome}])
        case wire.ApplyPatchCall():
            failed = wire.ApplyPatchCallOutput(call_id=call.call_id, status="failed", output=text)
            return make_answer(call, failed)
        case _:
            return make_answer(call, text)
