"""Items: the elements of the input and output of a response.

Each ``type`` has one class for both directions, so fields of only one direction are optional. A
field that is ``None`` is not set, and is omitted when an item is sent. Received items are also kept
as raw JSON (``Response.raw_output``): an item that is sent again needs every field, those that this
version does not know included.
"""

import typing
from contextlib import suppress
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias

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
from trio_responses._wire.base import JSON, Item, JSONText
from trio_responses._wire.parts import AgentContentPart, ContentPart, OutputText, Refusal
from trio_responses._wire.tools import qualified_name

if TYPE_CHECKING:
    from trio_responses._wire.base import UnknownItem


class Message(Item, frozen=True, kw_only=True, tag="message"):
    """A message of the user, the developer, the system or the model (the assistant).

    ``role`` is ``user``, ``assistant``, ``system`` or ``developer``.
    """

    type: ClassVar[Literal["message"]] = "message"
    role: str
    content: str | list[ContentPart] | None = None
    """Text, or content parts. Messages of the model have content parts."""
    id: str | None = None
    """The server's id of the item; optional in an input. Also in the other items."""
    status: str | None = None
    """``in_progress``, ``completed`` or ``incomplete``; also in most other items."""
    phase: str | None = None
    """``commentary`` before or between tool calls, or ``final_answer``; `None` if the model does
    not distinguish them. Servers may send other words. A message that is sent again keeps it."""

    @property
    def output_text(self) -> str:
        """The text that the model wrote, all parts concatenated."""
        if isinstance(self.content, str):
            return self.content
        return "".join(part.text for part in self.content or () if isinstance(part, OutputText))

    @property
    def refusal(self) -> str:
        """The model's refusal, all parts concatenated, or ``""``."""
        if isinstance(self.content, str):
            return ""
        return "".join(part.refusal for part in self.content or () if isinstance(part, Refusal))


class FunctionCall(Item, frozen=True, kw_only=True, tag="function_call"):
    """A call of a function by the model; ``arguments`` is JSON text."""

    type: ClassVar[Literal["function_call"]] = "function_call"
    call_id: str
    """Id of the call; the output of the call has the same ``call_id``."""
    name: str
    arguments: JSONText
    id: str | None = None
    async_: bool | None = msgspec.field(default=None, name="async")
    """Whether the model continues without waiting for the output."""
    caller: Caller | None = None
    """The caller; `None` for the model itself."""
    namespace: str | None = None
    """Name of the `NamespaceTool` that contains the function."""
    status: str | None = None
    created_by: str | None = None
    """Creator of the item, if the server names one; also in the other items."""

    @property
    def qualified_name(self) -> str:
        """The name with the namespace: ``crm.find``; ``find`` for a tool without a namespace."""
        return qualified_name(self.name, self.namespace)


class FunctionCallOutput(Item, frozen=True, kw_only=True, tag="function_call_output"):
    """The output of a function call, as text or as content parts."""

    type: ClassVar[Literal["function_call_output"]] = "function_call_output"
    output: str | list[ContentPart]
    call_id: str | None = None
    """The ``call_id`` of the call."""
    id: str | None = None
    caller: Caller | None = None
    created_by: str | None = None
    name: str | None = None
    namespace: str | None = None
    status: str | None = None


class CustomToolCall(Item, frozen=True, kw_only=True, tag="custom_tool_call"):
    """A call of a custom tool by the model, with free text as ``input``."""

    type: ClassVar[Literal["custom_tool_call"]] = "custom_tool_call"
    call_id: str
    name: str
    input: JSONText
    id: str | None = None
    async_: bool | None = msgspec.field(default=None, name="async")
    """Whether the model continues without waiting for the output."""
    caller: Caller | None = None
    created_by: str | None = None
    namespace: str | None = None
    status: str | None = None

    @property
    def qualified_name(self) -> str:
        """The name with the namespace: ``crm.find``; ``find`` for a tool without a namespace."""
        return qualified_name(self.name, self.namespace)


class CustomToolCallOutput(Item, frozen=True, kw_only=True, tag="custom_tool_call_output"):
    """The output of a custom tool call, as text or as content parts."""

    type: ClassVar[Literal["custom_tool_call_output"]] = "custom_tool_call_output"
    call_id: str
    output: str | list[ContentPart]
    id: str | None = None
    caller: Caller | None = None
    created_by: str | None = None
    status: str | None = None


class Reasoning(Item, frozen=True, kw_only=True, tag="reasoning"):
    """The model's reasoning: a summary, and the text or encrypted content if available."""

    type: ClassVar[Literal["reasoning"]] = "reasoning"
    id: str | None = None
    summary: list[ContentPart] | None = None
    content: list[ContentPart] | None = None
    """The reasoning text, from models that disclose it."""
    encrypted_content: str | None = None
    """The encrypted reasoning, if ``include`` requested ``reasoning.encrypted_content``. Reasoning
    that the server did not store can be sent again only with this field."""
    status: str | None = None


class ItemReference(Item, frozen=True, kw_only=True, tag="item_reference"):
    """A reference by id to an item that the server has stored."""

    type: ClassVar[Literal["item_reference"]] = "item_reference"
    id: str


class Compaction(Item, frozen=True, kw_only=True, tag="compaction"):
    """A compacted, encrypted form of the conversation before this item."""

    type: ClassVar[Literal["compaction"]] = "compaction"
    encrypted_content: str
    """Replaces all items before this one (docs/protocol.md, 5.5)."""
    id: str | None = None
    created_by: str | None = None


class CompactionTrigger(Item, frozen=True, kw_only=True, tag="compaction_trigger"):
    """A request to the server to compact the items before this one."""

    type: ClassVar[Literal["compaction_trigger"]] = "compaction_trigger"
    id: str | None = None


class ConfigurationUpdate(Item, frozen=True, kw_only=True, tag="configuration_update"):
    """A change of settings for the rest of the conversation."""

    type: ClassVar[Literal["configuration_update"]] = "configuration_update"
    id: str | None = None
    reasoning: JSON = None
    """Same as in `ResponseCreate`."""
    text: JSON = None
    """Same as in `ResponseCreate`."""


class AdditionalTools(Item, frozen=True, kw_only=True, tag="additional_tools"):
    """Additional tools for the rest of the conversation. ``role`` is ``developer`` in an input."""

    type: ClassVar[Literal["additional_tools"]] = "additional_tools"
    tools: list[JSON]
    """Definitions of the tools."""
    role: str | None = None
    id: str | None = None


class ToolSearchCall(Item, frozen=True, kw_only=True, tag="tool_search_call"):
    """A search for tools by the model. ``execution`` is ``server`` or ``client``."""

    type: ClassVar[Literal["tool_search_call"]] = "tool_search_call"
    arguments: JSON = None
    """The search arguments, as JSON."""
    id: str | None = None
    call_id: str | None = None
    execution: str | None = None
    status: str | None = None
    created_by: str | None = None


class ToolSearchOutput(Item, frozen=True, kw_only=True, tag="tool_search_output"):
    """The tools that a tool search found."""

    type: ClassVar[Literal["tool_search_output"]] = "tool_search_output"
    tools: list[JSON]
    """Definitions of the tools."""
    id: str | None = None
    call_id: str | None = None
    execution: str | None = None
    status: str | None = None
    created_by: str | None = None


class FileSearchCall(Item, frozen=True, kw_only=True, tag="file_search_call"):
    """A file search that the server performed."""

    type: ClassVar[Literal["file_search_call"]] = "file_search_call"
    id: str | None = None
    queries: list[str] | None = None
    results: list[FileSearchResult] | None = None
    """The passages found, if ``include`` requested them."""
    status: str | None = None


class WebSearchCall(Item, frozen=True, kw_only=True, tag="web_search_call"):
    """One action of a web search that the server performed."""

    type: ClassVar[Literal["web_search_call"]] = "web_search_call"
    id: str | None = None
    action: WebSearchAction | None = None
    status: str | None = None


class ComputerCall(Item, frozen=True, kw_only=True, tag="computer_call"):
    """A call of the computer tool: one action, or several in order."""

    type: ClassVar[Literal["computer_call"]] = "computer_call"
    call_id: str
    id: str | None = None
    action: ComputerAction | None = None
    """The action, in the older form with one action per call."""
    actions: list[ComputerAction] | None = None
    pending_safety_checks: list[SafetyCheck] | None = None
    """Checks that the client must acknowledge with the output."""
    status: str | None = None


class ComputerCallOutput(Item, frozen=True, kw_only=True, tag="computer_call_output"):
    """The output of a computer call: a screenshot after the actions."""

    type: ClassVar[Literal["computer_call_output"]] = "computer_call_output"
    call_id: str
    output: ComputerOutput
    id: str | None = None
    acknowledged_safety_checks: list[SafetyCheck] | None = None
    created_by: str | None = None
    status: str | None = None


class ImageGenerationCall(Item, frozen=True, kw_only=True, tag="image_generation_call"):
    """An image that the server generated; ``result`` is base64."""

    type: ClassVar[Literal["image_generation_call"]] = "image_generation_call"
    id: str | None = None
    result: str | None = None
    status: str | None = None
    action: str | None = None
    background: str | None = None
    error: JSON = None
    output_format: str | None = None
    quality: str | None = None
    revised_prompt: str | None = None
    """The prompt after the model revised it."""
    size: str | None = None
    svg_usage: JSON = None


class CodeInterpreterCall(Item, frozen=True, kw_only=True, tag="code_interpreter_call"):
    """A run of code in a container of the server."""

    type: ClassVar[Literal["code_interpreter_call"]] = "code_interpreter_call"
    id: str | None = None
    code: str | None = None
    container_id: str | None = None
    outputs: list[CodeInterpreterOutput] | None = None
    """Text and images that the code produced, if ``include`` requested them."""
    status: str | None = None


class Program(Item, frozen=True, kw_only=True, tag="program"):
    """A program that the model wrote to call tools. ``fingerprint`` is an opaque value."""

    type: ClassVar[Literal["program"]] = "program"
    call_id: str
    """Id of the program: its output has the same ``call_id``, its calls the same ``caller_id``."""
    code: str
    id: str | None = None
    fingerprint: str | None = None


class ProgramOutput(Item, frozen=True, kw_only=True, tag="program_output"):
    """The output of a program that the model wrote."""

    type: ClassVar[Literal["program_output"]] = "program_output"
    call_id: str
    result: str
    id: str | None = None
    status: str | None = None


class LocalShellCall(Item, frozen=True, kw_only=True, tag="local_shell_call"):
    """A command for the client's shell, in the older form (local shell)."""

    type: ClassVar[Literal["local_shell_call"]] = "local_shell_call"
    call_id: str
    action: LocalShellAction
    id: str | None = None
    status: str | None = None


class LocalShellCallOutput(Item, frozen=True, kw_only=True, tag="local_shell_call_output"):
    """The output of a local shell call."""

    type: ClassVar[Literal["local_shell_call_output"]] = "local_shell_call_output"
    output: str
    id: str | None = None
    status: str | None = None


class ShellCall(Item, frozen=True, kw_only=True, tag="shell_call"):
    """A call of the shell tool; ``environment`` is the client's machine or a container."""

    type: ClassVar[Literal["shell_call"]] = "shell_call"
    call_id: str
    action: ShellAction
    id: str | None = None
    caller: Caller | None = None
    created_by: str | None = None
    environment: JSON = None
    status: str | None = None


class ShellCallOutput(Item, frozen=True, kw_only=True, tag="shell_call_output"):
    """The output of a shell call, one element per command."""

    type: ClassVar[Literal["shell_call_output"]] = "shell_call_output"
    call_id: str
    output: list[ShellOutput]
    id: str | None = None
    caller: Caller | None = None
    created_by: str | None = None
    max_output_length: int | None = None
    """The output limit of the call, in characters."""
    status: str | None = None


class ApplyPatchCall(Item, frozen=True, kw_only=True, tag="apply_patch_call"):
    """A call of the patch tool: an operation on a file for the client to perform."""

    type: ClassVar[Literal["apply_patch_call"]] = "apply_patch_call"
    call_id: str
    operation: PatchOperation
    id: str | None = None
    caller: Caller | None = None
    created_by: str | None = None
    status: str | None = None


class ApplyPatchCallOutput(Item, frozen=True, kw_only=True, tag="apply_patch_call_output"):
    """The output of a patch call; ``status`` is ``completed`` or ``failed``."""

    type: ClassVar[Literal["apply_patch_call_output"]] = "apply_patch_call_output"
    call_id: str
    status: str | None = None
    output: str | None = None
    """Log text, such as the reason for a failure."""
    id: str | None = None
    caller: Caller | None = None
    created_by: str | None = None


class McpCall(Item, frozen=True, kw_only=True, tag="mcp_call"):
    """A call of an MCP server's tool, which the API performed."""

    type: ClassVar[Literal["mcp_call"]] = "mcp_call"
    name: str
    arguments: JSONText
    """The arguments, as JSON text."""
    server_label: str | None = None
    id: str | None = None
    approval_request_id: str | None = None
    """Id of the `McpApprovalRequest` for this call."""
    error: McpError | str | None = None
    output: str | None = None
    """The output of the tool."""
    status: str | None = None


class McpListTools(Item, frozen=True, kw_only=True, tag="mcp_list_tools"):
    """The list of tools that an MCP server provides."""

    type: ClassVar[Literal["mcp_list_tools"]] = "mcp_list_tools"
    server_label: str | None = None
    tools: list[McpServerTool] | None = None
    id: str | None = None
    error: JSON = None
    """Why the API could not list the tools."""


class McpApprovalRequest(Item, frozen=True, kw_only=True, tag="mcp_approval_request"):
    """A request for approval of an MCP tool call. The approval response names its ``id``."""

    type: ClassVar[Literal["mcp_approval_request"]] = "mcp_approval_request"
    id: str
    name: str
    arguments: JSONText
    """The arguments, as JSON text."""
    server_label: str | None = None

    @property
    def call_id(self) -> str:
        """The ``id``: calls of every type have a ``call_id``, which their output names."""
        return self.id


class McpApprovalResponse(Item, frozen=True, kw_only=True, tag="mcp_approval_response"):
    """The approval or rejection of an MCP tool call."""

    type: ClassVar[Literal["mcp_approval_response"]] = "mcp_approval_response"
    approval_request_id: str
    """The ``id`` of the approval request."""
    approve: bool
    id: str | None = None
    reason: str | None = None
    """The reason, which the model sees."""


class AgentMessage(Item, frozen=True, kw_only=True, tag="agent_message"):
    """A message from one agent to another (beta, multi-agent)."""

    type: ClassVar[Literal["agent_message"]] = "agent_message"
    author: str
    """The agent that sent the message."""
    recipient: str
    """The agent that receives the message."""
    content: list[AgentContentPart]
    id: str | None = None


class MultiAgentCall(Item, frozen=True, kw_only=True, tag="multi_agent_call"):
    """An action on subagents that the model requested (beta, multi-agent).

    Known actions: ``spawn_agent``, ``interrupt_agent``, ``list_agents``, ``send_message``,
    ``followup_task``, ``wait_agent``. The server performs the action.
    """

    type: ClassVar[Literal["multi_agent_call"]] = "multi_agent_call"
    call_id: str
    action: str
    arguments: JSONText
    """The arguments of the action, as JSON text."""
    id: str | None = None


class MultiAgentCallOutput(Item, frozen=True, kw_only=True, tag="multi_agent_call_output"):
    """The output of an action on subagents (beta, multi-agent)."""

    type: ClassVar[Literal["multi_agent_call_output"]] = "multi_agent_call_output"
    call_id: str
    action: str
    output: list[ContentPart]
    id: str | None = None


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
    | AgentMessage
    | MultiAgentCall
    | MultiAgentCallOutput
)
_KnownInputItem: TypeAlias = (
    _KnownOutputItem | ItemReference | CompactionTrigger | ConfigurationUpdate
)
_KnownToolCall: TypeAlias = (
    FunctionCall
    | CustomToolCall
    | ComputerCall
    | ShellCall
    | LocalShellCall
    | ApplyPatchCall
    | McpApprovalRequest
    | ToolSearchCall
)
if TYPE_CHECKING:
    OutputItem: TypeAlias = _KnownOutputItem | UnknownItem
    """An item in the output of a response. Items of unknown types are `UnknownItem`."""
    InputItem: TypeAlias = _KnownInputItem | UnknownItem
    """An item in the input of a response: any output item, or one of three input-only items."""
    ToolCall: TypeAlias = _KnownToolCall | UnknownItem
    """A call that the client answers. One that cannot be decoded, and never runs, is `UnknownItem`.

    Each has a ``call_id``."""
else:
    OutputItem = _KnownOutputItem
    InputItem = _KnownInputItem
    ToolCall = _KnownToolCall

JSON_TEXT_FIELDS: dict[str, str] = {
    str(record.__struct_config__.tag): field.encode_name
    for record in typing.get_args(_KnownOutputItem)
    for field in msgspec.structs.fields(record)
    if field.type == JSONText
}
"""The type of each item with a JSON text that the model wrote, and the field of the text."""

_decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(_KnownOutputItem)
_fields_decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])


def decode_item(raw: bytes | msgspec.Raw) -> OutputItem:
    """Decode one output item. Never raises: JSON of no known item is an :class:`UnknownItem`."""
    item: OutputItem
    try:
        item = lenient.decode_strictly(_decoder, raw)
    except lenient.DECODE_ERRORS:
        item = lenient.decode(raw, _KnownOutputItem)
        if not item.wire_type:  # servers may omit the type of a message
            with suppress(*lenient.DECODE_ERRORS):
                if "type" not in _fields_decoder.decode(raw):
                    item = lenient.decode_struct(raw, Message)
    if isinstance(item, Item):
        vars(item)["raw_json"] = msgspec.Raw(raw)
    return item


def raw_for_input(item: Item) -> msgspec.Raw | None:
    """Return the JSON of a received item for an input; `None` for an item made by a program."""
    raw = item.raw
    return raw if raw is None or item.type not in JSON_TEXT_FIELDS else with_json_text(raw)


def with_json_text(raw: msgspec.Raw) -> msgspec.Raw:
    """Return a received item with its JSON text as text, as an input requires.

    Servers may send ``arguments`` as an object, or leave them out. Any other item, and JSON that is
    no item, is returned as received.
    """
    try:
        fields = _fields_decoder.decode(raw)
        name = JSON_TEXT_FIELDS.get(msgspec.json.decode(fields["type"]))
    except (*lenient.DECODE_ERRORS, KeyError, TypeError):
        return raw
    value = fields.get(name or "", msgspec.Raw(b"null"))
    if name is None or bytes(value).startswith(b'"'):
        return raw
    text = msgspec.json.encode(lenient.decode(value, JSONText))
    return msgspec.Raw(msgspec.json.encode({**fields, name: msgspec.Raw(text)}))
