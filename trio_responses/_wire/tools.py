"""Tool definitions: what a ``response.create`` may offer to the model.

A class is named after its ``type`` with ``Tool`` behind it. Fields stand at the top level, as the
Responses API has them. Settings that are objects themselves are plain JSON, and a tool that is
not here can be given as a dict.
"""

import msgspec

from trio_responses._wire.base import JSON, Tagged


class Tool(Tagged, frozen=True, kw_only=True):
    """A tool that the model may use. A field that is ``None`` is not sent."""


class FunctionToolParam(Tool, frozen=True, kw_only=True, tag="function"):
    """A function of the client. ``parameters`` is a JSON schema."""

    name: str
    parameters: JSON = None
    strict: bool | None = None
    """Whether arguments keep to the schema: to the rules of strict mode."""
    description: str | None = None
    output_schema: JSON = None
    """The JSON schema of what it returns, for programs of the model."""
    allowed_callers: list[str] | None = None
    """``direct``, ``programmatic``: who may call it; so in the other tools."""
    async_: bool | None = msgspec.field(default=None, name="async")
    """Whether the model may go on without waiting for the output."""
    defer_loading: bool | None = None
    """Whether the model sees it only after a search for tools; so in the other tools."""


class CustomTool(Tool, frozen=True, kw_only=True, tag="custom"):
    """A tool of the client that takes free text, or text of a grammar given in ``format``."""

    name: str
    description: str | None = None
    format: JSON = None
    allowed_callers: list[str] | None = None
    async_: bool | None = msgspec.field(default=None, name="async")
    """Whether the model may go on without waiting for the output."""
    defer_loading: bool | None = None


class NamespaceTool(Tool, frozen=True, kw_only=True, tag="namespace"):
    """Functions and custom tools under one name."""

    name: str
    tools: list[JSON]
    """Their definitions."""
    description: str | None = None


class ToolSearchTool(Tool, frozen=True, kw_only=True, tag="tool_search"):
    """Lets the model look for tools. ``execution`` is ``server`` or ``client``."""

    description: str | None = None
    execution: str | None = None
    parameters: JSON = None
    """The JSON schema of a search that the client does."""


class ProgrammaticToolCallingTool(Tool, frozen=True, kw_only=True, tag="programmatic_tool_calling"):
    """Lets the model write programs that call tools."""


class FileSearchTool(Tool, frozen=True, kw_only=True, tag="file_search"):
    """Search in vector stores, done by the server."""

    vector_store_ids: list[str]
    filters: JSON = None
    """What attributes the files must have."""
    max_num_results: int | None = None
    ranking_options: JSON = None


class WebSearchTool(Tool, frozen=True, kw_only=True, tag="web_search"):
    """Web search, done by the server. ``search_context_size``: ``low``, ``medium``, ``high``."""

    external_web_access: bool | None = None
    filters: JSON = None
    search_context_size: str | None = None
    user_location: JSON = None


class WebSearch20250826Tool(WebSearchTool, frozen=True, kw_only=True, tag="web_search_2025_08_26"):
    """Web search, held to its version of that day."""


class WebSearchPreviewTool(Tool, frozen=True, kw_only=True, tag="web_search_preview"):
    """Web search in its older form."""

    search_content_types: list[str] | None = None
    search_context_size: str | None = None
    user_location: JSON = None


class WebSearchPreview20250311Tool(
    WebSearchPreviewTool, frozen=True, kw_only=True, tag="web_search_preview_2025_03_11"
):
    """Web search in its older form, held to its version of that day."""


class ComputerTool(Tool, frozen=True, kw_only=True, tag="computer"):
    """A computer that the client drives for the model."""


class ComputerUsePreviewTool(Tool, frozen=True, kw_only=True, tag="computer_use_preview"):
    """A computer, in the older form. ``environment``: ``windows``, ``mac``, ``browser`` etc."""

    display_height: int
    """Pixels."""
    display_width: int
    """Pixels."""
    environment: str


class McpTool(Tool, frozen=True, kw_only=True, tag="mcp"):
    """The tools of an MCP server, by its URL, a connector or a tunnel."""

    server_label: str
    """What its calls name it by."""
    server_url: str | None = None
    server_description: str | None = None
    connector_id: str | None = None
    tunnel_id: str | None = None
    authorization: str | None = None
    """A token for the MCP server: a secret, which the model's server passes on."""
    headers: dict[str, str] | None = None
    """Headers for the MCP server; they may hold secrets."""
    allowed_tools: JSON = None
    """Which of its tools: names, or a filter."""
    allowed_callers: list[str] | None = None
    require_approval: JSON = None
    """``always``, ``never``, or a filter of tools."""
    defer_loading: bool | None = None


class CodeInterpreterTool(Tool, frozen=True, kw_only=True, tag="code_interpreter"):
    """Code run by the server in ``container``: an id, or a description of a new one."""

    container: JSON
    allowed_callers: list[str] | None = None


class ImageGenerationTool(Tool, frozen=True, kw_only=True, tag="image_generation"):
    """Images made by the server."""

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
    """How much an image is compressed: 100 by default."""
    output_format: str | None = None
    partial_images: int | None = None
    """How many images come before the final one."""
    quality: str | None = None
    size: str | None = None
    svg: JSON = None


class LocalShellTool(Tool, frozen=True, kw_only=True, tag="local_shell"):
    """The client's shell, in its older form."""


class ShellTool(Tool, frozen=True, kw_only=True, tag="shell"):
    """A shell, in a container of the server or with the client, as ``environment`` says."""

    environment: JSON = None
    allowed_callers: list[str] | None = None


class ApplyPatchTool(Tool, frozen=True, kw_only=True, tag="apply_patch"):
    """Lets the model change files through patches that the client applies."""

    allowed_callers: list[str] | None = None
