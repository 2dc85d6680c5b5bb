"""Items: what goes into a response and what comes out of it.

One class per ``type`` for both directions, so fields that only one direction has are optional.
``None`` means "not set": it is left out when an item is sent. What a server sent is kept raw
beside these views (:attr:`Response.raw_output <trio_responses._wire.response.Response>`), since
a replay must return every field, also those that are not known here.

Content parts are in :mod:`~trio_responses._wire.parts`, actions and outcomes in
:mod:`~trio_responses._wire.actions`, tool definitions in :mod:`~trio_responses._wire.tools`.
"""

from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec

from trio_responses._wire import lenient
from trio_responses._wire.actions import (
    Caller,
    CodeInterpreterOutput,
    ComputerAction,
    ComputerOutput,
    FileSearchResult,
    LocalShellAction,
    McpError,
    McpServerTool,
    PatchOperation,
    SafetyCheck,
    ShellAction,
    ShellOutput,
    WebSearchAction,
)
from trio_responses._wire.base import JSON, Item
from trio_responses._wire.parts import ContentPart, OutputText, Refusal

if TYPE_CHECKING:
    from trio_responses._wire.base import UnknownItem


class Message(Item, frozen=True, kw_only=True, tag="message"):
    """A message of the user, the developer, the system or the model.

    ``role`` is ``user``, ``assistant``, ``system`` or ``developer``; ``phase`` of the model's
    messages is ``commentary`` or ``final_answer``.
    """

    role: str
    content: str | list[ContentPart] | None = None
    """Text, or parts; of the model, parts."""
    id: str | None = None
    """The server's id of the item; so in the other items. An input needs none."""
    status: str | None = None
    """``in_progress``, ``completed`` or ``incomplete``; so in most other items."""
    phase: str | None = None

    @property
    def output_text(self) -> str:
        """The text that the model wrote, all parts joined."""
        if isinstance(self.content, str):
            return self.content
        return "".join(part.text for part in self.content or () if isinstance(part, OutputText))

    @property
    def refusal(self) -> str:
        """The model's refusal, all parts joined, or ``""``."""
        if isinstance(self.content, str):
            return ""
        return "".join(part.refusal for part in self.content or () if isinstance(part, Refusal))


class FunctionCall(Item, frozen=True, kw_only=True, tag="function_call"):
    """The model calls a function: ``arguments`` is JSON text."""

    call_id: str
    """Names the call: its output has the same."""
    name: str
    arguments: str
    id: str | None = None
    async_: bool | None = msgspec.field(default=None, name="async")
    """Whether the model goes on without waiting for the output."""
    caller: Caller | None = None
    """Who calls; `None` where that is the model."""
    namespace: str | None = None
    """The `NamespaceTool` that it belongs to."""
    status: str | None = None


class FunctionCallOutput(Item, frozen=True, kw_only=True, tag="function_call_output"):
    """What a function returned, as text or as parts."""

    output: str | list[ContentPart]
    call_id: str | None = None
    """That of the call."""
    id: str | None = None
    caller: Caller | None = None
    created_by: str | None = None
    """Who made it, where the server says so; so in the other items."""
    name: str | None = None
    namespace: str | None = None
    status: str | None = None


class CustomToolCall(Item, frozen=True, kw_only=True, tag="custom_tool_call"):
    """The model calls a custom tool, with free text as ``input``."""

    call_id: str
    name: str
    input: str
    id: str | None = None
    async_: bool | None = msgspec.field(default=None, name="async")
    """Whether the model goes on without waiting for the output."""
    caller: Caller | None = None
    namespace: str | None = None


class CustomToolCallOutput(Item, frozen=True, kw_only=True, tag="custom_tool_call_output"):
    """What a custom tool returned, as text or as parts."""

    call_id: str
    output: str | list[ContentPart]
    id: str | None = None
    caller: Caller | None = None
    created_by: str | None = None
    status: str | None = None


class Reasoning(Item, frozen=True, kw_only=True, tag="reasoning"):
    """The model's reasoning: a summary, sometimes the text, sometimes encrypted for a replay."""

    id: str | None = None
    summary: list[ContentPart] | None = None
    content: list[ContentPart] | None = None
    """The text, where the model shows it."""
    encrypted_content: str | None = None
    """The reasoning for a replay, where ``include`` has ``reasoning.encrypted_content``: without
    it, what was not stored cannot be sent again."""
    status: str | None = None


class ItemReference(Item, frozen=True, kw_only=True, tag="item_reference"):
    """An item that the server has stored, by its id."""

    id: str


class Compaction(Item, frozen=True, kw_only=True, tag="compaction"):
    """The part of a conversation before this item, compacted and encrypted."""

    encrypted_content: str
    """What stands for all that came before (docs/protocol.md, 5.5)."""
    id: str | None = None
    created_by: str | None = None


class CompactionTrigger(Item, frozen=True, kw_only=True, tag="compaction_trigger"):
    """Asks the server to compact what stands before it."""

    id: str | None = None


class ConfigurationUpdate(Item, frozen=True, kw_only=True, tag="configuration_update"):
    """Changes settings from here on."""

    id: str | None = None
    reasoning: JSON = None
    """As in `ResponseCreate`."""
    text: JSON = None
    """As in `ResponseCreate`."""


class AdditionalTools(Item, frozen=True, kw_only=True, tag="additional_tools"):
    """Tools that become available from here on. ``role`` is ``developer`` in an input."""

    tools: list[JSON]
    """Their definitions."""
    role: str | None = None
    id: str | None = None


class ToolSearchCall(Item, frozen=True, kw_only=True, tag="tool_search_call"):
    """The model looks for tools. ``execution`` is ``server`` or ``client``."""

    arguments: JSON = None
    """What is looked for: JSON."""
    id: str | None = None
    call_id: str | None = None
    execution: str | None = None
    status: str | None = None
    created_by: str | None = None


class ToolSearchOutput(Item, frozen=True, kw_only=True, tag="tool_search_output"):
    """The tools that were found."""

    tools: list[JSON]
    """Their definitions."""
    id: str | None = None
    call_id: str | None = None
    execution: str | None = None
    status: str | None = None
    created_by: str | None = None


class FileSearchCall(Item, frozen=True, kw_only=True, tag="file_search_call"):
    """A search in files, done by the server."""

    id: str | None = None
    queries: list[str] | None = None
    results: list[FileSearchResult] | None = None
    """What was found, where ``include`` asked for it."""
    status: str | None = None


class WebSearchCall(Item, frozen=True, kw_only=True, tag="web_search_call"):
    """A step of a web search, done by the server."""

    id: str | None = None
    action: WebSearchAction | None = None
    status: str | None = None


class ComputerCall(Item, frozen=True, kw_only=True, tag="computer_call"):
    """The model uses a computer: one action, or several in order."""

    call_id: str
    id: str | None = None
    action: ComputerAction | None = None
    """The older form, for one action."""
    actions: list[ComputerAction] | None = None
    pending_safety_checks: list[SafetyCheck] | None = None
    """What the client has to acknowledge with the output."""
    status: str | None = None


class ComputerCallOutput(Item, frozen=True, kw_only=True, tag="computer_call_output"):
    """The screen after the actions."""

    call_id: str
    output: ComputerOutput
    id: str | None = None
    acknowledged_safety_checks: list[SafetyCheck] | None = None
    created_by: str | None = None
    status: str | None = None


class ImageGenerationCall(Item, frozen=True, kw_only=True, tag="image_generation_call"):
    """An image that the server made; ``result`` is base64."""

    id: str | None = None
    result: str | None = None
    status: str | None = None
    action: str | None = None
    background: str | None = None
    error: JSON = None
    output_format: str | None = None
    quality: str | None = None
    revised_prompt: str | None = None
    """The prompt as the model rewrote it."""
    size: str | None = None
    svg_usage: JSON = None


class CodeInterpreterCall(Item, frozen=True, kw_only=True, tag="code_interpreter_call"):
    """Code that the server ran in a container."""

    id: str | None = None
    code: str | None = None
    container_id: str | None = None
    outputs: list[CodeInterpreterOutput] | None = None
    """What it printed and drew, where ``include`` asked for it."""
    status: str | None = None


class Program(Item, frozen=True, kw_only=True, tag="program"):
    """A program that the model wrote to call tools. ``fingerprint`` is opaque."""

    call_id: str
    """Names the program: its output, and the calls that it makes, have the same."""
    code: str
    id: str | None = None
    fingerprint: str | None = None


class ProgramOutput(Item, frozen=True, kw_only=True, tag="program_output"):
    """What a program returned."""

    call_id: str
    result: str
    id: str | None = None
    status: str | None = None


class LocalShellCall(Item, frozen=True, kw_only=True, tag="local_shell_call"):
    """A command for the client's shell, in its older form."""

    call_id: str
    action: LocalShellAction
    id: str | None = None
    status: str | None = None


class LocalShellCallOutput(Item, frozen=True, kw_only=True, tag="local_shell_call_output"):
    """What the command wrote."""

    output: str
    id: str | None = None
    status: str | None = None


class ShellCall(Item, frozen=True, kw_only=True, tag="shell_call"):
    """Commands for a shell. ``environment`` says where they run: local or a container."""

    call_id: str
    action: ShellAction
    id: str | None = None
    caller: Caller | None = None
    created_by: str | None = None
    environment: JSON = None
    status: str | None = None


class ShellCallOutput(Item, frozen=True, kw_only=True, tag="shell_call_output"):
    """What each command wrote."""

    call_id: str
    output: list[ShellOutput]
    id: str | None = None
    caller: Caller | None = None
    created_by: str | None = None
    max_output_length: int | None = None
    """The limit of the call, in characters."""
    status: str | None = None


class ApplyPatchCall(Item, frozen=True, kw_only=True, tag="apply_patch_call"):
    """A change to a file that the client is to make."""

    call_id: str
    operation: PatchOperation
    id: str | None = None
    caller: Caller | None = None
    created_by: str | None = None
    status: str | None = None


class ApplyPatchCallOutput(Item, frozen=True, kw_only=True, tag="apply_patch_call_output"):
    """Whether the change was made: ``status`` is ``completed`` or ``failed``."""

    call_id: str
    status: str | None = None
    output: str | None = None
    """What there is to say of it: why it failed."""
    id: str | None = None
    caller: Caller | None = None
    created_by: str | None = None


class McpCall(Item, frozen=True, kw_only=True, tag="mcp_call"):
    """A tool of an MCP server, called by the model's server."""

    name: str
    arguments: str
    """JSON text."""
    server_label: str | None = None
    id: str | None = None
    approval_request_id: str | None = None
    """The `McpApprovalRequest` that it had waited for."""
    error: McpError | str | None = None
    output: str | None = None
    """What the tool returned."""
    status: str | None = None


class McpListTools(Item, frozen=True, kw_only=True, tag="mcp_list_tools"):
    """The tools of an MCP server."""

    server_label: str | None = None
    tools: list[McpServerTool] | None = None
    id: str | None = None
    error: JSON = None
    """Why there are none."""


class McpApprovalRequest(Item, frozen=True, kw_only=True, tag="mcp_approval_request"):
    """A call of an MCP tool that waits for leave. Its ``id`` goes into the answer."""

    id: str
    name: str
    arguments: str
    """JSON text."""
    server_label: str | None = None


class McpApprovalResponse(Item, frozen=True, kw_only=True, tag="mcp_approval_response"):
    """Leave for a call of an MCP tool, or not."""

    approval_request_id: str
    """The ``id`` of the request."""
    approve: bool
    id: str | None = None
    reason: str | None = None
    """Why, for the model."""


_KnownOutputItem: TypeAlias = (
    Message
    | FunctionCall
    | FunctionCallOutput
    | CustomToolCall
    | CustomToolCallOutput
    | Reasoning
    | Compaction
    | AdditionalTools
    | ToolSearchCall
    | ToolSearchOutput
    | FileSearchCall
    | WebSearchCall
    | ComputerCall
    | ComputerCallOutput
    | ImageGenerationCall
    | CodeInterpreterCall
    | Program
    | ProgramOutput
    | LocalShellCall
    | LocalShellCallOutput
    | ShellCall
    | ShellCallOutput
    | ApplyPatchCall
    | ApplyPatchCallOutput
    | McpCall
    | McpListTools
    | McpApprovalRequest
    | McpApprovalResponse
)
_KnownInputItem: TypeAlias = (
    _KnownOutputItem | ItemReference | CompactionTrigger | ConfigurationUpdate
)
if TYPE_CHECKING:
    OutputItem: TypeAlias = _KnownOutputItem | UnknownItem
    """What comes out of a response; `UnknownItem` stands for types that are not known here."""
    InputItem: TypeAlias = _KnownInputItem | UnknownItem
    """What goes into a response: all that comes out of one, and three more."""
else:
    OutputItem = _KnownOutputItem
    InputItem = _KnownInputItem

_decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(_KnownOutputItem)
_message_decoder = msgspec.json.Decoder(Message)


def decode_item(raw: bytes | msgspec.Raw) -> OutputItem:
    """Decode one output item. It never raises: what does not fit is an :class:`UnknownItem`."""
    item: OutputItem
    try:
        item = _decoder.decode(raw)
    except lenient.UNREADABLE:
        item = lenient.read(raw, _KnownOutputItem)
        if not item.type:  # a message may leave it out
            with suppress(*lenient.UNREADABLE):
                item = _message_decoder.decode(raw)
    return item
