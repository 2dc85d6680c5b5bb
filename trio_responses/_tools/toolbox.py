"""The tools of a run: which calls the client answers, and how a call is run.

A `FunctionTool` with the name of a call answers the call, or a handler for its name or type. A call
that cannot run still gets an output item with the reason, because the server rejects a turn that
leaves a call unanswered.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias

import trio

from trio_responses import _wire as wire
from trio_responses._errors import CallNotRejectable, ConfigurationError
from trio_responses._protocol.calls import is_output_item, make_error_output, make_output
from trio_responses._settings import check_option_values
from trio_responses._tools.context import CallContext
from trio_responses._tools.exceptions import describe_exception
from trio_responses._tools.function import FunctionTool, InvalidArguments, encode_output

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import msgspec

    from trio_responses._wire import OutputItem

__all__ = [
    "Approve",
    "Handler",
    "MakeContext",
    "OnToolError",
    "ToolFinished",
    "ToolLike",
    "ToolProgress",
    "ToolStarted",
    "Toolbox",
    "tool_definitions",
]

Handler: TypeAlias = Callable[[Any], Awaitable[Any]]
"""Called with a call item. Returns the output item, or the value of its ``output``."""

Approve: TypeAlias = Callable[[Any], Awaitable[bool | str]]
"""Called before a call runs. `True` approves; `False`, or text with the reason, declines."""

OnToolError: TypeAlias = Literal["return", "raise"]
"""How an exception of a tool is handled: ``"return"`` sends the error to the model, ``"raise"``
ends the run with the exception. Invalid arguments are always sent to the model as an error."""

ToolLike: TypeAlias = FunctionTool[..., Any] | wire.Tool | Mapping[str, Any]
"""A tool for the model: a function tool, or the definition of any tool."""

MakeContext: TypeAlias = Callable[[wire.FunctionCall], CallContext]
"""Returns the context of a call of a function."""

TEXT_OUTPUT_CALLS = (wire.FunctionCall, wire.CustomToolCall, wire.LocalShellCall)
"""Calls whose output is text, so that any other result is encoded as JSON."""

# Texts that the model reads as the output of a call.
DECLINED = "The call was declined."
CUT_OFF = "The call was cut off by a limit, and not run."
INTERRUPTED = "The call was interrupted: whether it had an effect is not known."


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolStarted:
    """A notification that a call starts to run, after its approval."""

    type: ClassVar[Literal["trio_responses.tool_started"]] = "trio_responses.tool_started"
    call: OutputItem
    """The model's call, as its item."""

    @property
    def name(self) -> str:
        """The tool's name; the type of the call where it has none."""
        return _name_of(self.call)


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolProgress:
    """A notification that a tool has reported its progress, by ``context.progress()``."""

    type: ClassVar[Literal["trio_responses.tool_progress"]] = "trio_responses.tool_progress"
    call: OutputItem
    """The model's call, as its item."""
    value: Any
    """What the tool has reported."""

    @property
    def name(self) -> str:
        """The tool's name."""
        return _name_of(self.call)


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolFinished:
    """A notification that a call has its output, whether the call ran or not."""

    type: ClassVar[Literal["trio_responses.tool_finished"]] = "trio_responses.tool_finished"
    call: OutputItem
    """The model's call, as its item."""
    raw_item: msgspec.Raw
    """The output item of the call, as raw JSON: what the next request sends."""
    error: Exception | None
    """The exception of the tool, or `InvalidArguments`; `None` if the call did not fail."""
    seconds: float
    """How many seconds the call ran, on Trio's clock; 0 if the call did not run."""

    @property
    def name(self) -> str:
        """The tool's name; the type of the call where it has none."""
        return _name_of(self.call)

    @property
    def output(self) -> Any:
        """What the tool returned, as sent to the model: text, or content parts, for most tools.

        `None` for an item without an ``output``, such as the answer to an MCP approval.
        """
        return getattr(wire.decode_item(self.raw_item), "output", None)


def _name_of(call: OutputItem) -> str:
    return str(getattr(call, "name", call.wire_type))


def tool_definitions(tools: Sequence[ToolLike]) -> list[wire.Tool | Mapping[str, Any]]:
    """Return the tools as they are sent in ``tools``.

    :raises ConfigurationError: for a function without the decorator ``@function_tool``.
    """
    return [_definition_of(tool, index) for index, tool in enumerate(tools)]


def _definition_of(tool: ToolLike, index: int) -> wire.Tool | Mapping[str, Any]:
    if isinstance(tool, FunctionTool):
        return tool.definition
    if callable(tool):
        name = getattr(tool, "__name__", type(tool).__name__)
        raise ConfigurationError(
            f"tools[{index}] is a plain function: decorate {name} with @function_tool"
        )
    return tool


class Toolbox:
    """The tools, handlers and limits with which one run answers calls.

    :raises ConfigurationError: if two function tools have the same name, or the value of
        ``on_tool_error`` is unknown.
    """

    functions: dict[str, FunctionTool[..., Any]]
    """The function tools, by name."""
    declared: frozenset[str]
    """The names of all tools that the model may call, by name or in a namespace."""

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
        function_tools = [tool for tool in tools if isinstance(tool, FunctionTool)]
        self.functions = {tool.name: tool for tool in function_tools}
        if len(self.functions) < len(function_tools):
            counts = Counter(tool.name for tool in function_tools)
            raise ConfigurationError(
                f"two tools have the same name, {counts.most_common(1)[0][0]!r}: "
                "pass @function_tool(name=...) with another name to one of them"
            )
        names = (name for tool in tool_definitions(tools) for name in _declared_names(tool))
        self.declared = frozenset(names)
        self.handlers = handlers
        self.approve = approve
        self.timeout = timeout
        self.on_error: OnToolError = on_error

    def handles(self, call: OutputItem) -> bool:
        """Whether the run answers a tool call. An undeclared function is answered with an error."""
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
        return self.handlers.get(call.wire_type)

    async def output_without_running(self, call: OutputItem) -> msgspec.Raw | None:
        """Return the output item of a tool call that must not run; `None` for a call that may run.

        A call must not run if it is incomplete, undeclared or declined, or only asks for approval.

        :return: `None` if the call is to run.
        :raises CallNotRejectable: if the output of a declined call has no place for the reason.
        :raises Exception: any exception of ``approve``.
        """
        if isinstance(call, wire.McpApprovalRequest) and self._handler(call) is None:
            assert self.approve is not None  # noqa: S101 - `handles` checks it
            return make_output(call, await self.approve(call))
        reason = await self._reason_not_to_run(call)
        if reason is None:
            return None
        declined = make_error_output(call, reason)
        if declined is None:
            raise CallNotRejectable(call.wire_type, reason)
        return declined

    async def _reason_not_to_run(self, call: OutputItem) -> str | None:
        """Return the reason for the model why a tool call must not run; `None` if it may run."""
        if getattr(call, "status", None) == "incomplete":
            return CUT_OFF
        if isinstance(call, wire.FunctionCall) and self._is_unknown(call):
            return f"There is no tool named {call.name!r}."
        if self.approve is None or isinstance(call, wire.McpApprovalRequest):
            return None
        approval = await self.approve(call)
        if approval is True:
            return None
        return approval if isinstance(approval, str) and approval else DECLINED

    def _is_unknown(self, call: wire.FunctionCall) -> bool:
        """Whether a function is undeclared. Functions from a tool search have a handler instead."""
        return call.name not in self.declared and self._handler(call) is None

    async def run(self, call: OutputItem, make_context: MakeContext) -> msgspec.Raw:
        """Run a tool call within its time limit, and return its output item.

        :param make_context: returns the context of the call, for a function that has a parameter
            for it.
        :raises InvalidArguments: if the arguments do not match the parameters; the function was not
            called.
        :raises trio.TooSlowError: if the call exceeds its time limit.
        :raises Exception: any exception of the tool.
        """
        handler, timeout = self._handler(call), self.timeout
        function = self.functions.get(call.name) if isinstance(call, wire.FunctionCall) else None
        if function is not None and function.timeout is not None:
            timeout = function.timeout
        with trio.fail_after(float("inf") if timeout is None else timeout):
            if function is not None and isinstance(call, wire.FunctionCall):
                result = await function.call(function.bind(call.arguments), make_context(call))
                return make_output(call, encode_output(result, tool=function.name))
            assert handler is not None  # noqa: S101 - `handles` checks it
            result = await handler(call)
            if isinstance(call, TEXT_OUTPUT_CALLS) and not is_output_item(result):
                result = encode_output(result, tool=_name_of(call))
            return make_output(call, result)

    def error_output(self, call: OutputItem, error: Exception) -> msgspec.Raw | None:
        """Return the output item that reports an error to the model.

        :return: `None` if the output of this type of call has no place for text.
        """
        return make_error_output(call, f"Error: {describe_exception(error)}")

    def ends_run(self, error: Exception) -> bool:
        """Whether an exception of a tool ends the run. Invalid arguments do not.

        The model can correct invalid arguments.
        """
        return self.on_error == "raise" and not isinstance(error, InvalidArguments)


def _declared_names(tool: wire.Tool | Mapping[str, Any]) -> Iterator[str]:
    """Yield the name of a tool, and the names of the tools in its namespace."""
    get = tool.get if isinstance(tool, Mapping) else partial(getattr, tool)
    yield str(get("name", None))
    if get("type", None) == "namespace" or isinstance(tool, wire.NamespaceTool):
        for inner in get("tools", None) or ():
            yield from _declared_names(inner)
