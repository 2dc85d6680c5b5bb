"""Tools and their names: definitions for ``tools``, and named groups of tools.

A tool is identified by its namespace and its name, so the same name may occur in several
namespaces. Tools outside of every namespace are in the namespace ``""`` here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeAlias, cast, final

import msgspec

from trio_responses import _wire as wire
from trio_responses._errors import ConfigurationError
from trio_responses._tools.function import NAME, FunctionTool

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

__all__ = [
    "Namespace",
    "ToolKey",
    "ToolLike",
    "definitions_of",
    "find_named_tools",
    "select_tools",
    "tool_definitions",
    "tool_key",
    "type_of",
]

ToolKey: TypeAlias = tuple[str, str]
"""The namespace and the name of a tool."""


@final
class Namespace:
    """A named group of tools, which the model sees as one unit.

    The function of a namespace runs only for calls that name this namespace. For example::

        crm = Namespace("crm", [find, delete], description="Customers and their orders.")
        await conversation.run("Who is customer 7?", tools=[crm, delete_file])

    :param name: the name for the model: 1 to 64 of the characters ``[a-zA-Z0-9_-]``. A tool of the
        namespace ``functions`` is a tool without a namespace.
    :param tools: function tools, and definitions of functions and custom tools.
    :param description: the description for the model.
    :raises ConfigurationError: for an invalid name, and for a value that a namespace cannot have.

    :ivar name: the name for the model.
    :ivar tools: the tools.
    :ivar description: the description for the model, or `None`.
    """

    def __init__(
        self,
        name: str,
        tools: Sequence[FunctionTool[..., Any] | wire.Tool | Mapping[str, Any]],
        *,
        description: str | None = None,
    ) -> None:
        if not NAME.fullmatch(name):
            raise ConfigurationError(
                f"{name!r} is not a valid name of a namespace: use 1 to 64 of the characters a-z,"
                " A-Z, 0-9, _ and -"
            )
        self.name: str = name
        self.tools: tuple[FunctionTool[..., Any] | wire.Tool | Mapping[str, Any], ...]
        self.tools = tuple(tools)
        self.description: str | None = description
        for index, tool in enumerate(self.tools):
            kind = type_of(_definition_of(tool, f"tools[{index}] of the namespace {name!r}"))
            if kind not in {"function", "custom"}:
                raise ConfigurationError(
                    f"tools[{index}] of the namespace {name!r} is a tool of type {kind!r}: a"
                    " namespace has functions and custom tools"
                )

    @property
    def definition(self) -> wire.NamespaceTool:
        """The definition of the namespace, as sent in ``tools``."""
        return wire.NamespaceTool(
            name=self.name, description=self.description, tools=definitions_of(self.tools)
        )

    def __repr__(self) -> str:
        """Return the name, and the number of tools."""
        return f"<Namespace {self.name!r} of {len(self.tools)} tools>"


ToolLike: TypeAlias = FunctionTool[..., Any] | Namespace | wire.Tool | Mapping[str, Any]
"""A tool for the model: a function tool, a namespace, or the definition of any tool."""


def tool_definitions(tools: Sequence[ToolLike]) -> list[wire.Tool | Mapping[str, Any]]:
    """Return the tools that are enabled as they are sent in ``tools``, outside of a run.

    :raises ConfigurationError: for a function without the decorator ``@function_tool``, and for a
        tool that only a run can ask whether it is enabled.
    """
    return definitions_of(select_tools(tools, _is_enabled_outside_of_runs))


def _is_enabled_outside_of_runs(tool: FunctionTool[..., Any]) -> bool:
    if callable(tool.is_enabled):
        raise ConfigurationError(
            f"the tool {tool.name!r} has a function as is_enabled, which only run(), run_stream()"
            " and parse() of a conversation call: leave the tool out of this request, or use a run"
        )
    return tool.is_enabled


def select_tools(
    tools: Sequence[ToolLike], is_enabled: Callable[[FunctionTool[..., Any]], bool]
) -> list[ToolLike]:
    """Return the tools without those functions that are not enabled, in namespaces too.

    A namespace that has no tool then is left out.
    """
    selected: list[ToolLike] = []
    for tool in tools:
        if isinstance(tool, FunctionTool):
            selected += [tool] if is_enabled(tool) else []
            continue
        inner = _tools_in(tool) if _is_namespace(tool) else ()
        enabled = select_tools(inner, is_enabled)
        if len(enabled) == len(inner):
            selected.append(tool)
        elif enabled:
            selected.append(_with_tools(tool, enabled))
    return selected


def _with_tools(namespace: Any, tools: Sequence[Any]) -> Any:
    """Return a namespace with other tools in it."""
    if isinstance(namespace, Namespace):
        return Namespace(namespace.name, tools, description=namespace.description)
    if isinstance(namespace, wire.NamespaceTool):
        return msgspec.structs.replace(namespace, tools=tools)
    return {**namespace, "tools": tools}


def definitions_of(tools: Sequence[ToolLike]) -> list[wire.Tool | Mapping[str, Any]]:
    """Return tools as they are sent in ``tools``.

    :raises ConfigurationError: for a function without the decorator ``@function_tool``.
    """
    return [_definition_of(tool, f"tools[{index}]") for index, tool in enumerate(tools)]


def _definition_of(tool: Any, place: str) -> wire.Tool | Mapping[str, Any]:
    if isinstance(tool, FunctionTool | Namespace):
        return tool.definition
    if callable(tool):
        name = getattr(tool, "__name__", type(tool).__name__)
        raise ConfigurationError(
            f"{place} is a plain function: decorate {name} with @function_tool"
        )
    inner = _tools_in(tool) if _is_namespace(tool) else ()
    if any(callable(one) for one in inner):
        sent = [_definition_of(one, f"{place}.tools[{index}]") for index, one in enumerate(inner)]
        return cast("wire.Tool | Mapping[str, Any]", _with_tools(tool, sent))
    return cast("wire.Tool | Mapping[str, Any]", tool)


def tool_key(name: str, namespace: str | None) -> ToolKey:
    """Return the key of a tool, or of the tool that a call names."""
    return ("" if namespace in wire.DEFAULT_NAMESPACES else str(namespace), name)


def find_named_tools(tools: Sequence[ToolLike]) -> Iterator[tuple[ToolKey, Any]]:
    """Yield the tools that have a name, with their keys: those in namespaces, too."""
    for tool in tools:
        inner: Sequence[Any] = [tool]
        namespace: str | None = None
        if _is_namespace(tool):
            inner, namespace = _tools_in(tool), _field_of(tool, "name")
        for one in inner:
            name = _field_of(one, "name")
            if isinstance(name, str):
                yield tool_key(name, namespace), one


def _is_namespace(tool: Any) -> bool:
    return isinstance(tool, Namespace) or type_of(tool) == "namespace"


def _tools_in(tool: Any) -> Sequence[Any]:
    """Return the tools in a namespace."""
    inner = _field_of(tool, "tools")
    return cast("Sequence[Any]", inner) if isinstance(inner, list | tuple) else []


def type_of(tool: Any) -> Any:
    """Return the ``type`` of a tool; `None` for one that has none here, as a function tool."""
    return tool.type if isinstance(tool, wire.ToolDefinition) else _field_of(tool, "type")


def _field_of(tool: Any, name: str) -> Any:
    """Return a field of a tool: a record, a mapping or raw JSON."""
    if isinstance(tool, msgspec.Raw):
        tool = msgspec.json.decode(tool)
    if isinstance(tool, Mapping):
        return cast("Mapping[str, Any]", tool).get(name)
    return getattr(tool, name, None)
