"""The tools of a turn, where a run decides before each turn which tools the model sees.

Either the tools are a function that returns their list, or single tools have a function as
``is_enabled``. Both functions are called with a context that has no call.
"""

from __future__ import annotations

from inspect import isawaitable
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from trio_responses._tools.function import FunctionTool
from trio_responses._tools.namespace import find_named_tools, select_tools
from trio_responses._wire.param_checks import check_params

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from trio_responses._tools.context import CallContext
    from trio_responses._tools.namespace import ToolLike
    from trio_responses._wire.params import ChooseTools

__all__ = ["ToolsOption", "choose_tools", "depends_on_run", "tools_of_every_turn"]

ToolsOption: TypeAlias = "Sequence[ToolLike] | ChooseTools"
"""The tools of a conversation or of a run."""


def depends_on_run(tools: ToolsOption) -> bool:
    """Whether the tools of a turn are known only when a run asks for them."""
    return callable(tools) or any(callable(one.is_enabled) for one in _functions(tools))


def tools_of_every_turn(tools: ToolsOption) -> list[ToolLike]:
    """Return the tools that the model sees in every turn, whatever a run decides."""
    return [] if callable(tools) else select_tools(tools, lambda tool: tool.is_enabled is True)


async def choose_tools(tools: ToolsOption, context: CallContext) -> list[ToolLike]:
    """Return the tools that the model sees in the next turn of a run.

    :raises TypeError: if a function returns something else than a list of tools.
    :raises Exception: any exception of the functions.
    """
    if callable(tools):
        chosen: Any = await _result_of(tools(context))
        check_params({"tools": chosen}, of="the function given as tools")
        tools = cast("Sequence[ToolLike]", chosen)
    enabled: dict[FunctionTool[..., Any], bool] = {}
    for one in _functions(tools):
        asked = one.is_enabled
        enabled[one] = bool(await _result_of(asked(context)) if callable(asked) else asked)
    return select_tools(tools, enabled.__getitem__)


def _functions(tools: Sequence[ToolLike]) -> Iterator[FunctionTool[..., Any]]:
    """Yield the function tools, those in namespaces too."""
    for _, tool in find_named_tools(tools):
        if isinstance(tool, FunctionTool):
            yield cast("FunctionTool[..., Any]", tool)


async def _result_of(returned: Any) -> Any:
    """Return the result of a function that may be async."""
    return await returned if isawaitable(returned) else returned
