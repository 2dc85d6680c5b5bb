"""The tools of a run: which calls the client answers, and how a call is run.

A `FunctionTool` with the namespace and the name of a call answers the call, or a handler for its
qualified name or its type. A call that cannot run still gets an output item with the reason,
because the server rejects a turn that leaves a call unanswered.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias

import trio

from trio_responses import _wire as wire
from trio_responses._errors import CallNotRejectable, ConfigurationError, SafetyChecksPending
from trio_responses._protocol.calls import (
    describe_undecodable_call,
    is_output_item,
    limit_output,
    make_error_output,
    make_output,
    name_of_call,
)
from trio_responses._settings import check_option_values
from trio_responses._tools.context import CallContext
from trio_responses._tools.exceptions import asks_for_retry, describe_exception, is_model_retry
from trio_responses._tools.function import (
    FunctionTool,
    InvalidResult,
    check_max_retries,
    encode_output,
)
from trio_responses._tools.namespace import find_named_tools, tool_key

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import msgspec

    from trio_responses._tools.namespace import ToolKey, ToolLike
    from trio_responses._wire import OutputItem

__all__ = [
    "Approve",
    "Handler",
    "MakeContext",
    "OnToolError",
    "ToolFinished",
    "ToolProgress",
    "ToolStarted",
    "Toolbox",
]

Handler: TypeAlias = Callable[[Any], Awaitable[Any]]
"""Called with a call item. Returns the output item, or the value of its ``output``."""

Approve: TypeAlias = Callable[[Any], Awaitable[bool | str]]
"""Called before a call runs. `True` approves; `False`, or text with the reason, declines."""

OnToolError: TypeAlias = Literal["return", "raise"]
"""How an exception of a tool is handled: ``"return"`` sends the error to the model, ``"raise"``
ends the run with the exception. Invalid arguments and `ModelRetry` are always sent to the model."""

MakeContext: TypeAlias = Callable[[wire.FunctionCall], CallContext]
"""Returns the context of a call of a function."""

TEXT_OUTPUT_CALLS = (wire.FunctionCall, wire.CustomToolCall, wire.LocalShellCall)
"""Calls whose output is text, so that any other result is encoded as JSON."""

# Texts that the model reads as the output of a call.
DECLINED = "The call was declined."
CUT_OFF = "The call was cut off by a limit, and not run."
AMBIGUOUS = (
    "The call was not run: several calls have this call_id. Call again, with an id for each."
)
INTERRUPTED = "The call was interrupted: whether it had an effect is not known."
NOT_STARTED = "The call was not run, because its run was interrupted before."


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolStarted:
    """A notification that a call starts to run, after its approval."""

    type: ClassVar[Literal["trio_responses.tool_started"]] = "trio_responses.tool_started"
    call: OutputItem
    """The model's call, as its item."""

    @property
    def name(self) -> str:
        """The tool's name, with its namespace; the type of the call where it has none."""
        return name_of_call(self.call)


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
        """The tool's name, with its namespace."""
        return name_of_call(self.call)


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
        """The tool's name, with its namespace; the type of the call where it has none."""
        return name_of_call(self.call)

    @property
    def output(self) -> Any:
        """What the tool returned, as sent to the model: text, or content parts, for most tools.

        `None` for an item without an ``output``, such as the answer to an MCP approval.
        """
        return getattr(wire.decode_item(self.raw_item), "output", None)


class Toolbox:
    """The tools, handlers and limits with which one run answers calls.

    :raises ConfigurationError: if two function tools have the same name, or the value of
        ``on_tool_error`` is unknown.
    """

    functions: dict[ToolKey, FunctionTool[..., Any]]
    """The function tools, by namespace and name."""
    declared: frozenset[ToolKey]
    """All tools with a name that the model may call, by namespace and name."""

    def __init__(
        self,
        *,
        tools: Sequence[ToolLike],
        handlers: Mapping[str, Handler],
        approve: Approve | None,
        timeout: float | None,
        on_error: OnToolError,
        max_output: int,
        max_retries: int | None,
    ) -> None:
        check_option_values(on_tool_error=on_error)
        named = list(find_named_tools(tools))
        functions: list[tuple[ToolKey, FunctionTool[..., Any]]]
        functions = [(key, tool) for key, tool in named if isinstance(tool, FunctionTool)]
        self.functions = dict(functions)
        self.declared = frozenset(key for key, _ in named)
        keys = [*(key for key, _ in functions), *(self.declared - self.functions.keys())]
        [(name, count)] = Counter(
            wire.qualified_name(name, namespace) for namespace, name in keys
        ).most_common(1) or [("", 0)]
        if count > 1:
            raise ConfigurationError(
                f"two tools have the same name, {name!r}: "
                "pass @function_tool(name=...) with another name to one of them"
            )
        self.handlers = handlers
        self.approve = approve
        self.timeout = timeout
        self.on_error: OnToolError = on_error
        self.max_output = max_output
        self.max_retries: int | None = check_max_retries("max_tool_retries", max_retries)

    def with_tools(self, tools: Sequence[ToolLike]) -> Toolbox:
        """Return a toolbox with other tools, and the same handlers and limits."""
        return Toolbox(
            tools=tools,
            handlers=self.handlers,
            approve=self.approve,
            timeout=self.timeout,
            on_error=self.on_error,
            max_output=self.max_output,
            max_retries=self.max_retries,
        )

    def handles(self, call: OutputItem) -> bool:
        """Whether the run answers a tool call.

        A call that cannot be decoded, or is of an undeclared tool, is answered with an error.
        """
        if describe_undecodable_call(call) is not None:
            return True
        match call:
            case wire.FunctionCall() | wire.CustomToolCall() if self._is_undeclared(call):
                return True
            case wire.McpApprovalRequest() if self.approve is not None:
                return True
            case _:
                return self._function(call) is not None or self._handler(call) is not None

    def _function(self, call: OutputItem) -> FunctionTool[..., Any] | None:
        if not isinstance(call, wire.FunctionCall):
            return None
        return self.functions.get(tool_key(call.name, call.namespace))

    def _handler(self, call: OutputItem) -> Handler | None:
        if isinstance(call, wire.FunctionCall | wire.CustomToolCall):
            handler = self.handlers.get(call.qualified_name)
            if handler is not None:
                return handler
        return self.handlers.get(call.wire_type)

    async def output_without_running(
        self, call: OutputItem, *, ambiguous: bool
    ) -> msgspec.Raw | None:
        """Return the output item of a tool call that must not run; `None` for a call that may run.

        A call must not run if it is undecodable, incomplete, ambiguous, undeclared or declined, or
        only asks for approval.

        :param ambiguous: whether another call has the same id.
        :return: `None` if the call is to run.
        :raises CallNotRejectable: if the output of a call that must not run has no place for the
            reason.
        :raises SafetyChecksPending: if a computer call has safety checks, and there is no
            ``approve``.
        :raises Exception: any exception of ``approve``.
        """
        reason = self._reason_not_to_run(call, ambiguous=ambiguous)
        if reason is None and isinstance(call, wire.McpApprovalRequest):
            if self._handler(call) is not None:
                return None
            assert self.approve is not None  # noqa: S101 - `handles` checks it
            return self._limited(call, make_output(call, await self.approve(call)))
        if reason is None and self.approve is not None:
            approval = await self.approve(call)
            if approval is not True:
                reason = approval if isinstance(approval, str) and approval else DECLINED
        if reason is None:
            return None
        rejection = make_error_output(call, reason)
        if rejection is None:
            raise CallNotRejectable(call.wire_type, reason)
        return self._limited(call, rejection)

    def _reason_not_to_run(self, call: OutputItem, *, ambiguous: bool) -> str | None:
        """Return the reason for the model why a call cannot run; `None` if it may, once approved.

        :raises SafetyChecksPending: for a computer call with safety checks that cannot be approved.
        """
        undecodable = describe_undecodable_call(call)
        if undecodable is not None:
            return f"The call was not run: {undecodable}."
        if getattr(call, "status", None) == "incomplete":
            return CUT_OFF
        if ambiguous:
            return AMBIGUOUS
        match call:
            case wire.FunctionCall() | wire.CustomToolCall() if self._is_undeclared(call):
                return f"There is no tool named {call.qualified_name!r}."
            case wire.ComputerCall() if call.pending_safety_checks and self.approve is None:
                raise SafetyChecksPending(call)
            case _:
                return None

    def _is_undeclared(self, call: wire.FunctionCall | wire.CustomToolCall) -> bool:
        """Whether a tool is undeclared. Tools from a tool search have a handler instead."""
        key = tool_key(call.name, call.namespace)
        return key not in self.declared and self._handler(call) is None

    def _limited(self, call: OutputItem, output: msgspec.Raw) -> msgspec.Raw:
        """Return an output item whose texts are shortened to ``max_output`` characters.

        :raises InvalidResult: if the output is too long for any other reason.
        """
        limited = limit_output(output, self.max_output)
        if limited is None:
            raise InvalidResult(
                f"the tool {name_of_call(call)!r} returned an output of {len(bytes(output))} bytes"
                " with images, files or objects, which is more than the API accepts"
            )
        return limited

    async def run(self, call: OutputItem, make_context: MakeContext) -> msgspec.Raw:
        """Run a tool call within its time limit, and return its output item.

        :param make_context: returns the context of the call, for a function that has a parameter
            for it.
        :raises InvalidArguments: if the arguments do not match the parameters; the function was not
            called.
        :raises InvalidResult: if the result cannot be sent.
        :raises trio.TooSlowError: if the call exceeds its time limit.
        :raises Exception: any exception of the tool.
        """
        function, timeout = self._function(call), self.timeout
        if function is not None and function.timeout is not None:
            timeout = function.timeout
        with trio.move_on_after(float("inf") if timeout is None else timeout):
            return await self._run(call, function, make_context)
        raise trio.TooSlowError(
            f"the tool {name_of_call(call)!r} took longer than its limit of {timeout:g} s"
        )

    async def _run(
        self, call: OutputItem, function: FunctionTool[..., Any] | None, make_context: MakeContext
    ) -> msgspec.Raw:
        if function is not None and isinstance(call, wire.FunctionCall):
            result = await function.call(function.bind(call.arguments), make_context(call))
            result = encode_output(result, tool=name_of_call(call))
        else:
            handler = self._handler(call)
            assert handler is not None  # noqa: S101 - `handles` checks it
            result = await handler(call)
            if isinstance(call, TEXT_OUTPUT_CALLS) and not is_output_item(result):
                result = encode_output(result, tool=name_of_call(call))
        return self._limited(call, make_output(call, result))

    def error_output(self, call: OutputItem, error: Exception) -> msgspec.Raw | None:
        """Return the output item that reports an error to the model.

        :return: `None` if the output of this type of call has no place for text.
        """
        label = "" if is_model_retry(error) else "Error: "
        output = make_error_output(call, label + describe_exception(error))
        return None if output is None else self._limited(call, output)

    def shorten(self, output: msgspec.Raw) -> msgspec.Raw:
        """Return an output item with shorter texts, if an earlier run with a higher limit made it.

        So a run with a lower limit can continue where the outputs made the request too large.
        """
        return limit_output(output, self.max_output) or output

    def ends_run(self, error: Exception) -> bool:
        """Whether an exception of a tool ends the run. What the model can correct does not."""
        return self.on_error == "raise" and not asks_for_retry(error)

    def retries_of(self, call: OutputItem) -> int | None:
        """Return how often the model may call the tool of a call again; `None` without a limit."""
        function = self._function(call)
        own = function.max_retries if function is not None else None
        return self.max_retries if own is None else own
