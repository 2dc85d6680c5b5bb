"""Tool definitions: the ``tools`` of ``response.create``.

A class is named after its ``type``, followed by ``Tool``. Settings that are objects are plain JSON.
A tool without a class here can be passed as a dict.
"""

from typing import ClassVar, Final, Literal, TypeAlias

import msgspec

from trio_responses._wire.base import JSON, Tagged

DEFAULT_NAMESPACES: Final = frozenset({None, "", "functions"})
"""Values of ``namespace`` of a call that all mean the tools outside of every namespace."""


def qualified_name(name: str, namespace: str | None) -> str:
    """Return the name of a tool with its namespace: ``crm.find``; ``find`` without a namespace."""
    return name if namespace in DEFAULT_NAMESPACES else f"{namespace}.{name}"


class ToolDefinition(Tagged, frozen=True, kw_only=True):
    """The definition of a tool that the model may call. Fields that are ``None`` are not sent."""


class FunctionToolParam(ToolDefinition, frozen=True, kw_only=True, tag="function"):
    """A function tool, which the client runs. ``parameters`` is a JSON schema."""

    type: ClassVar[Literal["function"]] = "function"
    name: str
    parameters: JSON = None
    strict: bool | None = None
    """Whether the arguments always match the schema (strict mode)."""
    description: str | None = None
    output_schema: JSON = None
    """JSON schema of the function's output, for programs that the model writes."""
    allowed_callers: list[str] | None = None
    """Which callers may call the tool: ``direct``, ``programmatic``; also in the other tools."""
    async_: bool | None = msgspec.field(default=None, name="async")
    """Whether the model may continue without waiting for the output."""
    defer_loading: bool | None = None
    """Whether the model sees the tool only after a tool search; also in the other tools."""


class CustomTool(ToolDefinition, frozen=True, kw_only=True, tag="custom"):
    """A custom tool of the client. Its input is free text, or text of the grammar in ``format``."""

    type: ClassVar[Literal["custom"]] = "custom"
    name: str
    description: str | None = None
    format: JSON = None
    allowed_callers: list[str] | None = None
    async_: bool | None = msgspec.field(default=None, name="async")
    """Whether the model may continue without waiting for the output."""
    defer_loading: bool | None = None


class NamespaceTool(ToolDefinition, frozen=True, kw_only=True, tag="namespace"):
    """A namespace: a named group of functions and custom tools."""

    type: ClassVar[Literal["namespace"]] = "namespace"
    name: str
    tools: list[JSON]
    """Definitions of the tools."""
    description: str | None = None


class ToolSearchTool(ToolDefinition, frozen=True, kw_only=True, tag="tool_search"):
    """The tool search tool. ``execution`` of the search is ``server`` or ``client``."""

    type: ClassVar[Literal["tool_search"]] = "tool_search"
    description: str | None = None
    execution: str | None = None
    parameters: JSON = None
    """JSON schema of the arguments of a search that the client runs."""


class ProgrammaticToolCallingTool(
    ToolDefinition, frozen=True, kw_only=True, tag="programmatic_tool_calling"
):
    """A setting that lets the model write programs that call tools."""

    type: ClassVar[Literal["programmatic_tool_calling"]] = "programmatic_tool_calling"


class FileSearchTool(ToolDefinition, frozen=True, kw_only=True, tag="file_search"):
    """The file search tool: the server searches vector stores."""

    type: ClassVar[Literal["file_search"]] = "file_search"
    vector_store_ids: list[str]
    filters: JSON = None
    """Filter on the attributes of the files."""
    max_num_results: int | None = None
    ranking_options: JSON = None


class _WebSearch(ToolDefinition, frozen=True, kw_only=True):
    external_web_access: bool | None = None
    filters: JSON = None
    search_context_size: str | None = None
    user_location: JSON = None


class WebSearchTool(_WebSearch, frozen=True, kw_only=True, tag="web_search"):
    """The web search tool. ``search_context_size`` is ``low``, ``medium`` or ``high``."""

    type: ClassVar[Literal["web_search"]] = "web_search"


class WebSearch20250826Tool(_WebSearch, frozen=True, kw_only=True, tag="web_search_2025_08_26"):
    """The web search tool, pinned to its version of 2025-08-26."""

    type: ClassVar[Literal["web_search_2025_08_26"]] = "web_search_2025_08_26"


class _WebSearchPreview(ToolDefinition, frozen=True, kw_only=True):
    search_content_types: list[str] | None = None
    search_context_size: str | None = None
    user_location: JSON = None


class WebSearchPreviewTool(_WebSearchPreview, frozen=True, kw_only=True, tag="web_search_preview"):
    """The web search tool in its preview form."""

    type: ClassVar[Literal["web_search_preview"]] = "web_search_preview"


class WebSearchPreview20250311Tool(
    _WebSearchPreview, frozen=True, kw_only=True, tag="web_search_preview_2025_03_11"
):
    """The web search tool in its preview form, pinned to its version of 2025-03-11."""

    type: ClassVar[Literal["web_search_preview_2025_03_11"]] = "web_search_preview_2025_03_11"


class ComputerTool(ToolDefinition, frozen=True, kw_only=True, tag="computer"):
    """The computer tool: the client controls a computer for the model."""

    type: ClassVar[Literal["computer"]] = "computer"


class ComputerUsePreviewTool(ToolDefinition, frozen=True, kw_only=True, tag="computer_use_preview"):
    """The computer tool in its preview form."""

    type: ClassVar[Literal["computer_use_preview"]] = "computer_use_preview"
    display_height: int
    """In pixels."""
    display_width: int
    """In pixels."""
    environment: str
    """The system to control, such as ``windows``, ``mac`` or ``browser``."""


class McpTool(ToolDefinition, frozen=True, kw_only=True, tag="mcp"):
    """The tools of an MCP server, which a URL, a connector or a tunnel identifies."""

    type: ClassVar[Literal["mcp"]] = "mcp"
    server_label: str
    """The label that identifies this MCP server in its calls."""
    server_url: str | None = None
    server_description: str | None = None
    connector_id: str | None = None
    tunnel_id: str | None = None
    authorization: str | None = None
    """A token for the MCP server, which the API passes on. The token is a secret."""
    headers: dict[str, str] | None = None
    """Headers for the MCP server; they may contain secrets."""
    allowed_tools: JSON = None
    """The tools that the model may call: names, or a filter."""
    allowed_callers: list[str] | None = None
    require_approval: JSON = None
    """``always``, ``never``, or a filter of tools."""
    defer_loading: bool | None = None


class CodeInterpreterTool(ToolDefinition, frozen=True, kw_only=True, tag="code_interpreter"):
    """The code interpreter, which runs code in ``container``: an id, or settings of a new one."""

    type: ClassVar[Literal["code_interpreter"]] = "code_interpreter"
    container: JSON
    allowed_callers: list[str] | None = None


class ImageGenerationTool(ToolDefinition, frozen=True, kw_only=True, tag="image_generation"):
    """The image generation tool, which the server runs."""

    type: ClassVar[Literal["image_generation"]] = "image_generation"
    action: str | None = None
    background: str | None = None
    complexity: str | None = None
    frame_count: int | None = None
    frame_duration_ms: int | None = None
    input_fidelity: str | None = None
    input_image_mask: JSON = None
    model: str | None = None
    moderation: str | None = None
    output_compression: int | None = None
    """Compression level of the image; the default is 100."""
    output_format: str | None = None
    partial_images: int | None = None
    """Number of partial images to send before the final image."""
    quality: str | None = None
    size: str | None = None
    svg: JSON = None


class LocalShellTool(ToolDefinition, frozen=True, kw_only=True, tag="local_shell"):
    """The local shell tool: commands for the client's shell, in the older form."""

    type: ClassVar[Literal["local_shell"]] = "local_shell"


class ShellTool(ToolDefinition, frozen=True, kw_only=True, tag="shell"):
    """The shell tool; ``environment`` selects a container of the server or the client's machine."""

    type: ClassVar[Literal["shell"]] = "shell"
    environment: JSON = None
    allowed_callers: list[str] | None = None


class ApplyPatchTool(ToolDefinition, frozen=True, kw_only=True, tag="apply_patch"):
    """The patch tool: the model edits files through patches that the client applies."""

    type: ClassVar[Literal["apply_patch"]] = "apply_patch"
    allowed_callers: list[str] | None = None


Tool: TypeAlias = (
    FunctionToolParam
    | CustomTool
    | NamespaceTool
    | ToolSearchTool
    | ProgrammaticToolCallingTool
    | FileSearchTool
    | WebSearchTool
    | WebSearch20250826Tool
    | WebSearchPreviewTool
    | WebSearchPreview20250311Tool
    | ComputerTool
    | ComputerUsePreviewTool
    | McpTool
    | CodeInterpreterTool
    | ImageGenerationTool
    | LocalShellTool
    | ShellTool
    | ApplyPatchTool
)
"""The definition of a tool that the model may call."""
