"""The tools of a turn, where a run decides before each turn which tools the model sees.

Either the tools are a function that returns their list, or single tools have a function as
``is_enabled``. Both functions are called with a context that has no call.
"""

from __future__ import annotations

from collections.abc import Mapping
from inspect import isawaitable
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from trio_responses._errors import ConfigurationError
from trio_responses._tools.function import FunctionTool
from trio_responses._tools.namespace import find_named_tools, select_tools, tool_key, type_of
from trio_responses._wire import qualified_name
from trio_responses._wire.param_checks import check_params

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from collections.abc import Set as AbstractSet

    from trio_responses._tools.context import CallContext
    from trio_responses._tools.namespace import ToolKey, ToolLike
    from trio_responses._wire.params import ChooseTools

__all__ = ["ToolsOption", "choice_among", "choose_tools", "depends_on_run", "tools_of_every_turn"]

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


def choice_among(choice: Any, tools: Sequence[ToolLike]) -> Any:
    """Return the ``tool_choice`` of a turn for the tools that the turn offers.

    Of a list of allowed tools, those that the turn does not offer are left out.

    :raises ConfigurationError: for a choice that forces a call of a tool that is not offered.
    """
    if any(type_of(tool) == "tool_search" for tool in tools):  # the server may find any tool
        return choice
    if not isinstance(choice, Mapping):
        if choice == "required" and not tools:
            raise ConfigurationError("tool_choice is 'required', but this turn offers no tool")
        return choice
    named = cast("Mapping[str, Any]", choice)
    offered = {key for key, _ in find_named_tools(tools)}
    if named.get("type") != "allowed_tools":
        if not _is_offered(named, offered):
            name = qualified_name(str(named["name"]), named.get("namespace"))
            raise ConfigurationError(
                f"tool_choice names the tool {name!r}, which this turn does not offer: its"
                " is_enabled, or the function given as tools, has left it out"
            )
        return named
    allowed = [one for one in named.get("tools", ()) if _is_offered(one, offered)]
    if allowed:
        return {**named, "tools": allowed}
    if named.get("mode") == "required":
        raise ConfigurationError("tool_choice allows only tools that this turn does not offer")
    return "none"


def _is_offered(named: Mapping[str, Any], offered: AbstractSet[ToolKey]) -> bool:
    """Whether a turn offers the function or custom tool that a choice names, if it names one."""
    if named.get("type") not in {"function", "custom"} or "name" not in named:
        return True
    return tool_key(named["name"], named.get("namespace")) in offered


def _functions(tools: Sequence[ToolLike]) -> Iterator[FunctionTool[..., Any]]:
    """Yield the function tools, those in namespaces too."""
    for _, tool in find_named_tools(tools):
        if isinstance(tool, FunctionTool):
            yield cast("FunctionTool[..., Any]", tool)


async def _result_of(returned: Any) -> Any:
    """Return the result of a function that may be async."""
    return await returned if isawaitable(returned) else returned
