"""Who answers which call, and what the model is told where that fails.

What belongs elsewhere: tools made of functions (`function.py`), which items are calls and answers
(`core/calls.py`), when calls are run (`conversation/run.py`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import trio

from trio_responses import _wire as wire
from trio_responses._errors import ConfigurationError, UnanswerableCall
from trio_responses._protocol.calls import is_answer, make_answer, make_refusal
from trio_responses._settings import check_option_values
from trio_responses._tools.function import FunctionTool, InvalidArguments, encode_output

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import msgspec

    from trio_responses._wire import OutputItem

__all__ = [
    "Approve",
    "Handler",
    "OnToolError",
    "ToolFinished",
    "ToolLike",
    "ToolStarted",
    "Toolbox",
    "plain_tools",
]

Handler: TypeAlias = Callable[[Any], Awaitable[Any]]
"""Answers calls of one kind: gets the item, and gives the answer's item, or what stands in it."""

Approve: TypeAlias = Callable[[Any], Awaitable[bool | str]]
"""Asked before a call is run: `True` runs it; `False`, or text with the reason, does not."""

OnToolError: TypeAlias = Literal["return", "raise"]
"""What becomes of an exception of a tool: ``"return"`` tells the model that the call failed,
``"raise"`` ends the run with it. Arguments that do not fit are told in either case."""

ToolLike: TypeAlias = FunctionTool[..., Any] | wire.Tool | Mapping[str, Any]
"""A tool to offer: a function, or the definition of any tool."""

TOLD_IN_TEXT = (wire.FunctionCall, wire.CustomToolCall, wire.LocalShellCall)
"""Calls whose answer has text for the model, where anything can be said as JSON."""

DECLINED = "The call was declined."
CUT_OFF = "The call was cut off by a limit, and not run."
INTERRUPTED = "The call was interrupted: whether it had an effect is not known."


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolStarted:
    """A call is being run: it was approved, and it was its turn."""

    call: OutputItem
    """The model's call, as its item."""

    @property
    def name(self) -> str:
        """The tool's name; the type of the call where it has none."""
        return _name_of(self.call)


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolFinished:
    """A call was answered, by whatever way."""

    call: OutputItem
    """The model's call, as its item."""
    answer: msgspec.Raw
    """The item that answers it, as raw JSON."""
    error: Exception | None
    """What the tool raised, or why its arguments did not fit."""
    seconds: float
    """How long it ran, on Trio's clock; 0 where it did not run."""

    @property
    def name(self) -> str:
        """The tool's name; the type of the call where it has none."""
        return _name_of(self.call)


def _name_of(call: OutputItem) -> str:
    return str(getattr(call, "name", call.type))


def plain_tools(tools: Sequence[ToolLike]) -> list[wire.Tool | Mapping[str, Any]]:
    """Give the definitions that go over the wire.

    :raises ConfigurationError: for a function that was not made a tool.
    """
    return [_definition_of(tool, place) for place, tool in enumerate(tools)]


def _definition_of(tool: ToolLike, place: int) -> wire.Tool | Mapping[str, Any]:
    if isinstance(tool, FunctionTool):
        return tool.definition
    if callable(tool):
        name = getattr(tool, "__name__", type(tool).__name__)
        raise ConfigurationError(
            f"tools[{place}] is a plain function: decorate {name} with @function_tool"
        )
    return tool


class Toolbox:
    """The tools of a run, and how they are used.

    :raises ConfigurationError: when two tools have the same name, and for another word in
        ``on_tool_error``.
    """

    functions: dict[str, FunctionTool[..., Any]]
    """Those of the tools that are functions of ours, by name."""
    declared: frozenset[str]
    """The names of all functions that the model was told of."""

    def __init__(
        self,
        *,
        tools: Sequence[ToolLike],
        handlers: Mapping[str, Handler],
        approve: Approve | None,
        timeout: float | None,
        on_error: OnToolError,
    ) -> None:
        check_option_values(on_tool_error=on_error)
        ours = [tool for tool in tools if isinstance(tool, FunctionTool)]
        self.functions = {tool.name: tool for tool in ours}
        if len(self.functions) < len(ours):
            raise ConfigurationError("two tools have the same name")
        names = (name for tool in plain_tools(tools) for name in _declared_names(tool))
        self.declared = frozenset(names)
        self.handlers = handlers
        self.approve = approve
        self.timeout = timeout
        self.on_error: OnToolError = on_error

    def takes(self, call: OutputItem) -> bool:
        """Whether a call is answered here. A function that nobody offered is, by saying so."""
        match call:
            case wire.FunctionCall() if call.name in self.functions or self._is_unknown(call):
                return True
            case wire.McpApprovalRequest() if self.approve is not None:
                return True
            case _:
                return self._handler(call) is not None

    def _handler(self, call: OutputItem) -> Handler | None:
        if isinstance(call, wire.FunctionCall | wire.CustomToolCall) and call.name in self.handlers:
            return self.handlers[call.name]
        return self.handlers.get(call.type)

    async def decide(self, call: OutputItem) -> msgspec.Raw | None:
        """Answer a call that is not run: it cannot be, or may not, or asks for leave alone.

        :return: `None` for one that is to be run.
        :raises UnanswerableCall: when it may not, and there is no place to say so.
        :raises Exception: what ``approve`` raises.
        """
        if isinstance(call, wire.McpApprovalRequest) and self._handler(call) is None:
            assert self.approve is not None  # noqa: S101 - `takes` says so
            return make_answer(call, await self.approve(call))
        reason = await self._refusal(call)
        if reason is None:
            return None
        declined = make_refusal(call, reason)
        if declined is None:
            raise UnanswerableCall(call.type, reason)
        return declined

    async def _refusal(self, call: OutputItem) -> str | None:
        """Say why a call is not run."""
        if getattr(call, "status", None) == "incomplete":
            return CUT_OFF
        if isinstance(call, wire.FunctionCall) and self._is_unknown(call):
            return f"There is no tool named {call.name!r}."
        if self.approve is None or isinstance(call, wire.McpApprovalRequest):
            return None
        leave = await self.approve(call)
        if leave is True:
            return None
        return leave if isinstance(leave, str) and leave else DECLINED

    def _is_unknown(self, call: wire.FunctionCall) -> bool:
        """Whether nobody offered a function; one that was found later has a handler."""
        return call.name not in self.declared and self._handler(call) is None

    async def run(self, call: OutputItem) -> msgspec.Raw:
        """Run a call within its deadline, and make its answer.

        :raises InvalidArguments: if the model's arguments do not fit: nothing was run.
        :raises trio.TooSlowError: when it took too long.
        :raises Exception: what the tool itself raises.
        """
        handler, timeout = self._handler(call), self.timeout
        function = self.functions.get(call.name) if isinstance(call, wire.FunctionCall) else None
        if function is not None and function.timeout is not None:
            timeout = function.timeout
        with trio.fail_after(float("inf") if timeout is None else timeout):
            if function is not None and isinstance(call, wire.FunctionCall):
                result = await function.call(function.bind(call.arguments))
                return make_answer(call, encode_output(result, tool=function.name))
            assert handler is not None  # noqa: S101 - `takes` says so
            result = await handler(call)
            if isinstance(call, TOLD_IN_TEXT) and not is_answer(result):
                result = encode_output(result, tool=_name_of(call))
            return make_answer(call, result)

    def explain(self, call: OutputItem, error: Exception) -> msgspec.Raw | None:
        """Make the answer that tells the model of an error; `None` where there is no place for it.

        What the model got wrong itself is explained in full, and so is what a tool raised.
        """
        if isinstance(error, InvalidArguments):
            text = error.message
        elif isinstance(error, trio.TooSlowError):
            text = "the tool took too long"
        else:
            text = f"{type(error).__name__}: {_words_of(error)}"
        return make_refusal(call, f"Error: {text}")

    def raises(self, error: Exception) -> bool:
        """Whether an error ends the run; what the model got wrong never does."""
        return self.on_error == "raise" and not isinstance(error, InvalidArguments)


def _words_of(error: Exception) -> str:
    """Give what an exception says; some cannot even say that."""
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - whatever a tool's own class does
        return "(no words)"


def _declared_names(tool: wire.Tool | Mapping[str, Any]) -> Iterator[str]:
    """Name a tool, and what is in its namespace."""
    get = tool.get if isinstance(tool, Mapping) else partial(getattr, tool)
    yield str(get("name", None))
    if get("type", None) == "namespace" or isinstance(tool, wire.NamespaceTool):
        for inner in get("tools", None) or ():
            yield from _declared_names(inner)
