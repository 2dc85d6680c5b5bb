"""The server events: one Struct per event type, and two for all other frames.

A class is named after its event type without ``response.``, in CamelCase. A name of one segment
keeps ``Response`` in front: ``response.completed`` is :class:`ResponseCompleted`. Only the fields
without which an event has no meaning are required: servers omit others, or send null.
"""

import functools
from typing import ClassVar, Literal, TypeAlias, get_args

import msgspec

from trio_responses._wire.actions import ShellOutput
from trio_responses._wire.base import JSON, Event, JSONText, Record
from trio_responses._wire.errors import ErrorEvent
from trio_responses._wire.items import OutputItem, decode_item
from trio_responses._wire.nesting import decode_checked
from trio_responses._wire.parts import Annotation, ContentPart, Logprob
from trio_responses._wire.response import Response, decode_response


class _ResponseEvent(Event, frozen=True, kw_only=True, gc=True, dict=True):
    """An event that contains the response."""

    raw_response: msgspec.Raw = msgspec.field(name="response")
    """The response as received."""

    def __post_init__(self) -> None:
        """Decode the response: an event whose response is no object is undecodable."""
        vars(self)["response"] = decode_response(self.raw_response)

    @functools.cached_property
    def response(self) -> Response:
        """The response, which keeps its JSON."""
        return decode_response(self.raw_response)  # `__post_init__` has set the attribute

    def __repr__(self) -> str:
        """Return the fields; the repr of the response has no content."""
        return (
            f"{self.__class__.__name__}(response={self.response!r},"
            f" stream_id={self.stream_id!r}, sequence_number={self.sequence_number!r})"
        )


class _TerminalEvent(_ResponseEvent, frozen=True, kw_only=True, gc=True, dict=True):
    statuses: ClassVar[tuple[str, ...]]
    """The statuses that the response may have. The first one replaces every other status: the type
    of the event says how the response ended."""

    def __post_init__(self) -> None:
        """Decode the response, and give it a status that fits the event if it has none."""
        response = decode_response(self.raw_response)
        if response.status not in self.statuses:
            response = response.with_status(self.statuses[0])
        vars(self)["response"] = response


class ResponseCreated(_ResponseEvent, frozen=True, kw_only=True, tag="response.created"):
    """An event sent when the response is created; ``response.id`` is its id."""

    type: ClassVar[Literal["response.created"]] = "response.created"


class ResponseQueued(_ResponseEvent, frozen=True, kw_only=True, tag="response.queued"):
    """An event sent when the response is queued at the server."""

    type: ClassVar[Literal["response.queued"]] = "response.queued"


class ResponseInProgress(_ResponseEvent, frozen=True, kw_only=True, tag="response.in_progress"):
    """An event sent when the model starts to work on the response."""

    type: ClassVar[Literal["response.in_progress"]] = "response.in_progress"


class ResponseCompleted(_TerminalEvent, frozen=True, kw_only=True, tag="response.completed"):
    """The terminal event of a response that completed."""

    type: ClassVar[Literal["response.completed"]] = "response.completed"
    statuses: ClassVar[tuple[str, ...]] = ("completed", "incomplete", "failed", "cancelled")


class ResponseFailed(_TerminalEvent, frozen=True, kw_only=True, tag="response.failed"):
    """The terminal event of a response that failed; ``response.error`` has the reason."""

    type: ClassVar[Literal["response.failed"]] = "response.failed"
    statuses: ClassVar[tuple[str, ...]] = ("failed",)


class ResponseIncomplete(_TerminalEvent, frozen=True, kw_only=True, tag="response.incomplete"):
    """The terminal event of an incomplete response; ``incomplete_details`` has the reason."""

    type: ClassVar[Literal["response.incomplete"]] = "response.incomplete"
    statuses: ClassVar[tuple[str, ...]] = ("incomplete", "failed", "cancelled")


class OutputItemAdded(
    Event, frozen=True, kw_only=True, tag="response.output_item.added", gc=True, dict=True
):
    """An event sent when an output item starts."""

    type: ClassVar[Literal["response.output_item.added"]] = "response.output_item.added"
    raw_item: msgspec.Raw = msgspec.field(name="item")
    """The item as received; other events will send its content."""
    output_index: int = 0
    """Position of the item in the output, from 0; also in the other events."""

    @functools.cached_property
    def item(self) -> OutputItem:
        """The item, decoded on first access."""
        return decode_item(self.raw_item)


class OutputItemDone(
    Event, frozen=True, kw_only=True, tag="response.output_item.done", gc=True, dict=True
):
    """An event sent when an output item is complete."""

    type: ClassVar[Literal["response.output_item.done"]] = "response.output_item.done"
    raw_item: msgspec.Raw = msgspec.field(name="item")
    """The item as received, so that it can be sent again unchanged."""
    output_index: int = 0

    @functools.cached_property
    def item(self) -> OutputItem:
        """The item, decoded on first access."""
        return decode_item(self.raw_item)


class ContentPartAdded(Event, frozen=True, kw_only=True, tag="response.content_part.added"):
    """An event sent when a content part of an item starts."""

    type: ClassVar[Literal["response.content_part.added"]] = "response.content_part.added"
    part: ContentPart
    item_id: str = ""
    """Id of the item that the event is about; also in the other events."""
    output_index: int = 0
    content_index: int = 0
    """Position of the content part in the item, from 0; also in the other events."""


class ContentPartDone(Event, frozen=True, kw_only=True, tag="response.content_part.done"):
    """An event sent when a content part of an item is complete."""

    type: ClassVar[Literal["response.content_part.done"]] = "response.content_part.done"
    part: ContentPart
    item_id: str = ""
    output_index: int = 0
    content_index: int = 0


class OutputTextDelta(Event, frozen=True, kw_only=True, tag="response.output_text.delta"):
    """An event with the next fragment of the output text."""

    type: ClassVar[Literal["response.output_text.delta"]] = "response.output_text.delta"
    delta: str
    item_id: str = ""
    output_index: int = 0
    content_index: int = 0
    logprobs: list[Logprob] | None = None
    """Log probabilities of the tokens, if ``include`` requested them."""


class OutputTextDone(Event, frozen=True, kw_only=True, tag="response.output_text.done"):
    """An event with the complete text of a content part."""

    type: ClassVar[Literal["response.output_text.done"]] = "response.output_text.done"
    text: str
    item_id: str = ""
    output_index: int = 0
    content_index: int = 0
    logprobs: list[Logprob] | None = None


class OutputTextAnnotationAdded(
    Event, frozen=True, kw_only=True, tag="response.output_text.annotation.added"
):
    """An event sent when an annotation is added to the output text."""

    type: ClassVar[Literal["response.output_text.annotation.added"]] = (
        "response.output_text.annotation.added"
    )
    annotation: Annotation | None = None
    item_id: str = ""
    output_index: int = 0
    content_index: int = 0
    annotation_index: int = 0


class RefusalDelta(Event, frozen=True, kw_only=True, tag="response.refusal.delta"):
    """An event with the next fragment of a refusal."""

    type: ClassVar[Literal["response.refusal.delta"]] = "response.refusal.delta"
    delta: str
    item_id: str = ""
    output_index: int = 0
    content_index: int = 0


class RefusalDone(Event, frozen=True, kw_only=True, tag="response.refusal.done"):
    """An event with the complete text of a refusal."""

    type: ClassVar[Literal["response.refusal.done"]] = "response.refusal.done"
    refusal: str
    item_id: str = ""
    output_index: int = 0
    content_index: int = 0


class ReasoningTextDelta(Event, frozen=True, kw_only=True, tag="response.reasoning_text.delta"):
    """An event with the next fragment of the reasoning text."""

    type: ClassVar[Literal["response.reasoning_text.delta"]] = "response.reasoning_text.delta"
    delta: str
    item_id: str = ""
    output_index: int = 0
    content_index: int = 0


class ReasoningTextDone(Event, frozen=True, kw_only=True, tag="response.reasoning_text.done"):
    """An event with the complete text of a part of the reasoning."""

    type: ClassVar[Literal["response.reasoning_text.done"]] = "response.reasoning_text.done"
    text: str
    item_id: str = ""
    output_index: int = 0
    content_index: int = 0


class ReasoningSummaryPartAdded(
    Event, frozen=True, kw_only=True, tag="response.reasoning_summary_part.added"
):
    """An event sent when a part of the reasoning summary starts."""

    type: ClassVar[Literal["response.reasoning_summary_part.added"]] = (
        "response.reasoning_summary_part.added"
    )
    part: ContentPart
    item_id: str = ""
    output_index: int = 0
    summary_index: int = 0


class ReasoningSummaryPartDone(
    Event, frozen=True, kw_only=True, tag="response.reasoning_summary_part.done"
):
    """An event sent when a part of the reasoning summary ends; see ``status``."""

    type: ClassVar[Literal["response.reasoning_summary_part.done"]] = (
        "response.reasoning_summary_part.done"
    )
    part: ContentPart
    item_id: str = ""
    output_index: int = 0
    summary_index: int = 0
    status: str | None = None


class ReasoningSummaryTextDelta(
    Event, frozen=True, kw_only=True, tag="response.reasoning_summary_text.delta"
):
    """An event with the next fragment of the reasoning summary."""

    type: ClassVar[Literal["response.reasoning_summary_text.delta"]] = (
        "response.reasoning_summary_text.delta"
    )
    delta: str
    item_id: str = ""
    output_index: int = 0
    summary_index: int = 0


class ReasoningSummaryTextDone(
    Event, frozen=True, kw_only=True, tag="response.reasoning_summary_text.done"
):
    """An event with the complete text of a part of the reasoning summary."""

    type: ClassVar[Literal["response.reasoning_summary_text.done"]] = (
        "response.reasoning_summary_text.done"
    )
    text: str
    item_id: str = ""
    output_index: int = 0
    summary_index: int = 0


class FunctionCallArgumentsDelta(
    Event, frozen=True, kw_only=True, tag="response.function_call_arguments.delta"
):
    """An event with the next fragment of a function call's arguments."""

    type: ClassVar[Literal["response.function_call_arguments.delta"]] = (
        "response.function_call_arguments.delta"
    )
    delta: JSONText
    item_id: str = ""
    output_index: int = 0


class FunctionCallArgumentsDone(
    Event, frozen=True, kw_only=True, tag="response.function_call_arguments.done"
):
    """An event with the complete arguments of a function call, as JSON text."""

    type: ClassVar[Literal["response.function_call_arguments.done"]] = (
        "response.function_call_arguments.done"
    )
    arguments: JSONText
    item_id: str = ""
    output_index: int = 0
    name: str | None = None


class CustomToolCallInputDelta(
    Event, frozen=True, kw_only=True, tag="response.custom_tool_call_input.delta"
):
    """An event with the next fragment of a custom tool call's input."""

    type: ClassVar[Literal["response.custom_tool_call_input.delta"]] = (
        "response.custom_tool_call_input.delta"
    )
    delta: JSONText
    item_id: str = ""
    output_index: int = 0


class CustomToolCallInputDone(
    Event, frozen=True, kw_only=True, tag="response.custom_tool_call_input.done"
):
    """An event with the complete input of a custom tool call."""

    type: ClassVar[Literal["response.custom_tool_call_input.done"]] = (
        "response.custom_tool_call_input.done"
    )
    input: JSONText
    item_id: str = ""
    output_index: int = 0


class McpCallArgumentsDelta(
    Event, frozen=True, kw_only=True, tag="response.mcp_call_arguments.delta"
):
    """An event with the next fragment of an MCP tool call's arguments."""

    type: ClassVar[Literal["response.mcp_call_arguments.delta"]] = (
        "response.mcp_call_arguments.delta"
    )
    delta: JSONText
    item_id: str = ""
    output_index: int = 0


class McpCallArgumentsDone(
    Event, frozen=True, kw_only=True, tag="response.mcp_call_arguments.done"
):
    """An event with the complete arguments of an MCP tool call, as JSON text."""

    type: ClassVar[Literal["response.mcp_call_arguments.done"]] = "response.mcp_call_arguments.done"
    arguments: JSONText
    item_id: str = ""
    output_index: int = 0


class McpCallInProgress(Event, frozen=True, kw_only=True, tag="response.mcp_call.in_progress"):
    """An event sent when an MCP tool call is in progress."""

    type: ClassVar[Literal["response.mcp_call.in_progress"]] = "response.mcp_call.in_progress"
    item_id: str = ""
    output_index: int = 0


class McpCallCompleted(Event, frozen=True, kw_only=True, tag="response.mcp_call.completed"):
    """An event sent when an MCP tool call completed."""

    type: ClassVar[Literal["response.mcp_call.completed"]] = "response.mcp_call.completed"
    item_id: str = ""
    output_index: int = 0


class McpCallFailed(Event, frozen=True, kw_only=True, tag="response.mcp_call.failed"):
    """An event sent when an MCP tool call failed."""

    type: ClassVar[Literal["response.mcp_call.failed"]] = "response.mcp_call.failed"
    item_id: str = ""
    output_index: int = 0


class McpListToolsInProgress(
    Event, frozen=True, kw_only=True, tag="response.mcp_list_tools.in_progress"
):
    """An event sent when the API requests the list of tools from an MCP server."""

    type: ClassVar[Literal["response.mcp_list_tools.in_progress"]] = (
        "response.mcp_list_tools.in_progress"
    )
    item_id: str = ""
    output_index: int = 0


class McpListToolsCompleted(
    Event, frozen=True, kw_only=True, tag="response.mcp_list_tools.completed"
):
    """An event sent when an MCP server returned its list of tools."""

    type: ClassVar[Literal["response.mcp_list_tools.completed"]] = (
        "response.mcp_list_tools.completed"
    )
    item_id: str = ""
    output_index: int = 0


class McpListToolsFailed(Event, frozen=True, kw_only=True, tag="response.mcp_list_tools.failed"):
    """An event sent when the list of tools of an MCP server could not be retrieved."""

    type: ClassVar[Literal["response.mcp_list_tools.failed"]] = "response.mcp_list_tools.failed"
    item_id: str = ""
    output_index: int = 0


class FileSearchCallInProgress(
    Event, frozen=True, kw_only=True, tag="response.file_search_call.in_progress"
):
    """An event sent when a file search starts."""

    type: ClassVar[Literal["response.file_search_call.in_progress"]] = (
        "response.file_search_call.in_progress"
    )
    item_id: str = ""
    output_index: int = 0


class FileSearchCallSearching(
    Event, frozen=True, kw_only=True, tag="response.file_search_call.searching"
):
    """An event sent when a file search is searching."""

    type: ClassVar[Literal["response.file_search_call.searching"]] = (
        "response.file_search_call.searching"
    )
    item_id: str = ""
    output_index: int = 0


class FileSearchCallCompleted(
    Event, frozen=True, kw_only=True, tag="response.file_search_call.completed"
):
    """An event sent when a file search completed."""

    type: ClassVar[Literal["response.file_search_call.completed"]] = (
        "response.file_search_call.completed"
    )
    item_id: str = ""
    output_index: int = 0


class WebSearchCallInProgress(
    Event, frozen=True, kw_only=True, tag="response.web_search_call.in_progress"
):
    """An event sent when a web search starts."""

    type: ClassVar[Literal["response.web_search_call.in_progress"]] = (
        "response.web_search_call.in_progress"
    )
    item_id: str = ""
    output_index: int = 0


class WebSearchCallSearching(
    Event, frozen=True, kw_only=True, tag="response.web_search_call.searching"
):
    """An event sent when a web search is searching."""

    type: ClassVar[Literal["response.web_search_call.searching"]] = (
        "response.web_search_call.searching"
    )
    item_id: str = ""
    output_index: int = 0


class WebSearchCallCompleted(
    Event, frozen=True, kw_only=True, tag="response.web_search_call.completed"
):
    """An event sent when a web search completed."""

    type: ClassVar[Literal["response.web_search_call.completed"]] = (
        "response.web_search_call.completed"
    )
    item_id: str = ""
    output_index: int = 0


class CodeInterpreterCallInProgress(
    Event, frozen=True, kw_only=True, tag="response.code_interpreter_call.in_progress"
):
    """An event sent when a code interpreter call starts."""

    type: ClassVar[Literal["response.code_interpreter_call.in_progress"]] = (
        "response.code_interpreter_call.in_progress"
    )
    item_id: str = ""
    output_index: int = 0


class CodeInterpreterCallInterpreting(
    Event, frozen=True, kw_only=True, tag="response.code_interpreter_call.interpreting"
):
    """An event sent when the code interpreter runs the code."""

    type: ClassVar[Literal["response.code_interpreter_call.interpreting"]] = (
        "response.code_interpreter_call.interpreting"
    )
    item_id: str = ""
    output_index: int = 0


class CodeInterpreterCallCompleted(
    Event, frozen=True, kw_only=True, tag="response.code_interpreter_call.completed"
):
    """An event sent when a code interpreter call completed."""

    type: ClassVar[Literal["response.code_interpreter_call.completed"]] = (
        "response.code_interpreter_call.completed"
    )
    item_id: str = ""
    output_index: int = 0


class CodeInterpreterCallCodeDelta(
    Event, frozen=True, kw_only=True, tag="response.code_interpreter_call_code.delta"
):
    """An event with the next fragment of a code interpreter call's code."""

    type: ClassVar[Literal["response.code_interpreter_call_code.delta"]] = (
        "response.code_interpreter_call_code.delta"
    )
    delta: str
    item_id: str = ""
    output_index: int = 0


class CodeInterpreterCallCodeDone(
    Event, frozen=True, kw_only=True, tag="response.code_interpreter_call_code.done"
):
    """An event with the complete code of a code interpreter call."""

    type: ClassVar[Literal["response.code_interpreter_call_code.done"]] = (
        "response.code_interpreter_call_code.done"
    )
    code: str
    item_id: str = ""
    output_index: int = 0


class ImageGenerationCallInProgress(
    Event, frozen=True, kw_only=True, tag="response.image_generation_call.in_progress"
):
    """An event sent when an image generation starts."""

    type: ClassVar[Literal["response.image_generation_call.in_progress"]] = (
        "response.image_generation_call.in_progress"
    )
    item_id: str = ""
    output_index: int = 0


class ImageGenerationCallGenerating(
    Event, frozen=True, kw_only=True, tag="response.image_generation_call.generating"
):
    """An event sent when the server is generating an image."""

    type: ClassVar[Literal["response.image_generation_call.generating"]] = (
        "response.image_generation_call.generating"
    )
    item_id: str = ""
    output_index: int = 0


class ImageGenerationCallPartialImage(
    Event, frozen=True, kw_only=True, tag="response.image_generation_call.partial_image"
):
    """An event with a partial image, in base64."""

    type: ClassVar[Literal["response.image_generation_call.partial_image"]] = (
        "response.image_generation_call.partial_image"
    )
    partial_image_b64: str
    partial_image_index: int = 0
    """Number of the partial image, from 0."""
    item_id: str = ""
    output_index: int = 0
    background: str | None = None
    output_format: str | None = None
    quality: str | None = None
    size: str | None = None


class ImageGenerationCallCompleted(
    Event, frozen=True, kw_only=True, tag="response.image_generation_call.completed"
):
    """An event sent when an image generation completed."""

    type: ClassVar[Literal["response.image_generation_call.completed"]] = (
        "response.image_generation_call.completed"
    )
    item_id: str = ""
    output_index: int = 0


class ShellCallCommandAdded(
    Event, frozen=True, kw_only=True, tag="response.shell_call_command.added"
):
    """An event sent when a command of a shell call starts."""

    type: ClassVar[Literal["response.shell_call_command.added"]] = (
        "response.shell_call_command.added"
    )
    command: str = ""
    output_index: int = 0
    command_index: int = 0
    """Position of the command in the shell call, from 0; also in the other events."""


class ShellCallCommandDelta(
    Event, frozen=True, kw_only=True, tag="response.shell_call_command.delta"
):
    """An event with the next fragment of a shell command."""

    type: ClassVar[Literal["response.shell_call_command.delta"]] = (
        "response.shell_call_command.delta"
    )
    delta: str
    output_index: int = 0
    command_index: int = 0
    obfuscation: str | None = None
    """Padding without meaning, which hides the length of the delta."""


class ShellCallCommandDone(
    Event, frozen=True, kw_only=True, tag="response.shell_call_command.done"
):
    """An event with a complete shell command."""

    type: ClassVar[Literal["response.shell_call_command.done"]] = "response.shell_call_command.done"
    command: str
    output_index: int = 0
    command_index: int = 0


class ShellOutputDelta(Record, frozen=True, kw_only=True):
    """A fragment of the output of a shell command."""

    stdout: str | None = None
    stderr: str | None = None


class ShellCallOutputContentDelta(
    Event, frozen=True, kw_only=True, tag="response.shell_call_output_content.delta"
):
    """An event with the next fragment of a shell command's output."""

    type: ClassVar[Literal["response.shell_call_output_content.delta"]] = (
        "response.shell_call_output_content.delta"
    )
    delta: ShellOutputDelta
    item_id: str = ""
    output_index: int = 0
    command_index: int = 0


class ShellCallOutputContentDone(
    Event, frozen=True, kw_only=True, tag="response.shell_call_output_content.done"
):
    """An event with the complete output of shell commands."""

    type: ClassVar[Literal["response.shell_call_output_content.done"]] = (
        "response.shell_call_output_content.done"
    )
    output: list[ShellOutput]
    item_id: str = ""
    output_index: int = 0
    command_index: int = 0


class CompactionCompacting(Event, frozen=True, kw_only=True, tag="response.compaction.compacting"):
    """An event sent when the server is compacting the conversation."""

    type: ClassVar[Literal["response.compaction.compacting"]] = "response.compaction.compacting"
    item_id: str = ""
    output_index: int = 0


class AudioDelta(Event, frozen=True, kw_only=True, tag="response.audio.delta"):
    """An event with the next fragment of the audio, in base64."""

    type: ClassVar[Literal["response.audio.delta"]] = "response.audio.delta"
    delta: str


class AudioDone(Event, frozen=True, kw_only=True, tag="response.audio.done"):
    """An event sent when the audio is complete."""

    type: ClassVar[Literal["response.audio.done"]] = "response.audio.done"


class AudioTranscriptDelta(Event, frozen=True, kw_only=True, tag="response.audio.transcript.delta"):
    """An event with the next fragment of the audio's transcript."""

    type: ClassVar[Literal["response.audio.transcript.delta"]] = "response.audio.transcript.delta"
    delta: str


class AudioTranscriptDone(Event, frozen=True, kw_only=True, tag="response.audio.transcript.done"):
    """An event sent when the audio's transcript is complete."""

    type: ClassVar[Literal["response.audio.transcript.done"]] = "response.audio.transcript.done"


class Steer(Record, frozen=True, kw_only=True):
    """A steering input. Inputs that the server rejected before it assigned an id have no ``id``."""

    id: str | None = None
    previous_response_id: str = ""
    """Id of the response that the input steers."""
    input: JSON = None
    """The input as sent; only present if the server returns it."""


class InputError(Record, frozen=True, kw_only=True):
    """The error of a rejected steering or injected input.

    Known codes: ``response_not_found``, ``invalid_input``, ``steering_not_supported``,
    ``too_many_pending_steers``, ``response_already_completed``, ``response_not_active``,
    ``successor_creation_failed``. Servers may send other codes (guide, steering).
    """

    code: str | None = None
    message: str = ""
    type: str | None = None


class RequiredInput(Record, frozen=True, kw_only=True):
    """An input item that a pending steering input waits for, without its content.

    ``type`` is the type of the item to send, such as ``function_call_output``. The type decides
    which of the other fields are set (SDK, ``response_steer_required_input``).
    """

    type: str = ""
    call_id: str | None = None
    """The ``call_id`` of the call that waits for its output."""
    name: str | None = None
    execution: str | None = None
    approval_request_id: str | None = None


class SteerAccepted(Event, frozen=True, kw_only=True, tag="response.steer.accepted"):
    """An event sent when the server accepted a steering input (guide, steering).

    The server is now responsible for the input, and has not applied it yet.
    """

    type: ClassVar[Literal["response.steer.accepted"]] = "response.steer.accepted"
    steer: Steer


class SteerPending(Event, frozen=True, kw_only=True, tag="response.steer.pending"):
    """An event sent when a steering input waits for outputs from the client (guide, steering)."""

    type: ClassVar[Literal["response.steer.pending"]] = "response.steer.pending"
    steer: Steer
    required_input: list[RequiredInput] | None = None
    """The items to send before the server applies the steering input."""
    reason: str | None = None


class SteerFailed(Event, frozen=True, kw_only=True, tag="response.steer.failed"):
    """An event sent when a steering input was rejected or could not be applied.

    ``steer.input`` returns the input.
    """

    type: ClassVar[Literal["response.steer.failed"]] = "response.steer.failed"
    steer: Steer
    error: InputError = msgspec.field(default_factory=InputError)


class InjectCreated(Event, frozen=True, kw_only=True, tag="response.inject.created"):
    """An event sent when tool outputs were injected into an active response (beta, multi-agent)."""

    type: ClassVar[Literal["response.inject.created"]] = "response.inject.created"
    response_id: str


class InjectFailed(Event, frozen=True, kw_only=True, tag="response.inject.failed"):
    """An event sent when tool outputs could not be injected; returns them (beta, multi-agent)."""

    type: ClassVar[Literal["response.inject.failed"]] = "response.inject.failed"
    response_id: str
    input: JSON = None
    """The input as sent."""
    error: InputError = msgspec.field(default_factory=InputError)


class UnknownEvent(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """An event of a type that this version does not know. Never an error."""

    type: ClassVar[Literal["trio_responses.unknown_event"]] = "trio_responses.unknown_event"
    wire_type: str
    """The event's ``type`` on the wire."""
    stream_id: str | None = None
    sequence_number: int | None = None
    raw: bytes
    """The whole frame, as received."""

    def json(self) -> JSON:
        """Return the parsed frame.

        :raises ValueError: if the frame is malformed JSON or not UTF-8.
        :raises RecursionError: if the JSON nests too deeply.
        """
        return decode_checked(self.raw)

    def to_json(self) -> str:
        """Return the frame as text.

        :raises ValueError: if the frame is not UTF-8.
        """
        return self.raw.decode()

    def to_dict(self) -> dict[str, JSON]:
        """Return the frame as a dict, every field included.

        :raises ValueError: if the frame is malformed JSON or not UTF-8.
        """
        value: dict[str, JSON] = decode_checked(self.raw, dict[str, JSON])
        return value

    def __repr__(self) -> str:
        """Return the fields and the size of the frame; its content may be private."""
        return (
            f"UnknownEvent(wire_type={self.wire_type!r}, stream_id={self.stream_id!r},"
            f" sequence_number={self.sequence_number!r}, size={len(self.raw)})"
        )


class UndecodableFrame(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A frame that is no event: no JSON, no JSON object, or an event without its required fields.

    ``error`` describes the fault without any content of the frame. ``wire_type``, ``stream_id`` and
    ``sequence_number`` are set as far as they could be decoded.
    """

    type: ClassVar[Literal["trio_responses.undecodable_frame"]] = "trio_responses.undecodable_frame"
    raw: bytes
    """The whole frame, as received."""
    error: str
    wire_type: str | None = None
    """The frame's ``type``."""
    stream_id: str | None = None
    sequence_number: int | None = None

    def to_json(self) -> str:
        """Return the frame as text; bytes that are not UTF-8 are replaced."""
        return self.raw.decode(errors="replace")

    def to_dict(self) -> dict[str, JSON]:
        """Return the frame as a dict.

        :raises ValueError: if the frame is no JSON object, which it rarely is.
        """
        value: dict[str, JSON] = decode_checked(self.raw, dict[str, JSON])
        return value

    def __repr__(self) -> str:
        """Return the fields and the size of the frame; its content may be private."""
        return (
            f"UndecodableFrame(error={self.error!r}, wire_type={self.wire_type!r},"
            f" stream_id={self.stream_id!r}, size={len(self.raw)})"
        )


KnownEvent: TypeAlias = (
    ResponseCreated
    | ResponseQueued
    | ResponseInProgress
    | ResponseCompleted
    | ResponseFailed
    | ResponseIncomplete
    | ErrorEvent
    | OutputItemAdded
    | OutputItemDone
    | ContentPartAdded
    | ContentPartDone
    | OutputTextDelta
    | OutputTextDone
    | OutputTextAnnotationAdded
    | RefusalDelta
    | RefusalDone
    | ReasoningTextDelta
    | ReasoningTextDone
    | ReasoningSummaryPartAdded
    | ReasoningSummaryPartDone
    | ReasoningSummaryTextDelta
    | ReasoningSummaryTextDone
    | FunctionCallArgumentsDelta
    | FunctionCallArgumentsDone
    | CustomToolCallInputDelta
    | CustomToolCallInputDone
    | McpCallArgumentsDelta
    | McpCallArgumentsDone
    | McpCallInProgress
    | McpCallCompleted
    | McpCallFailed
    | McpListToolsInProgress
    | McpListToolsCompleted
    | McpListToolsFailed
    | FileSearchCallInProgress
    | FileSearchCallSearching
    | FileSearchCallCompleted
    | WebSearchCallInProgress
    | WebSearchCallSearching
    | WebSearchCallCompleted
    | CodeInterpreterCallInProgress
    | CodeInterpreterCallInterpreting
    | CodeInterpreterCallCompleted
    | CodeInterpreterCallCodeDelta
    | CodeInterpreterCallCodeDone
    | ImageGenerationCallInProgress
    | ImageGenerationCallGenerating
    | ImageGenerationCallPartialImage
    | ImageGenerationCallCompleted
    | ShellCallCommandAdded
    | ShellCallCommandDelta
    | ShellCallCommandDone
    | ShellCallOutputContentDelta
    | ShellCallOutputContentDone
    | CompactionCompacting
    | AudioDelta
    | AudioDone
    | AudioTranscriptDelta
    | AudioTranscriptDone
    | SteerAccepted
    | SteerPending
    | SteerFailed
    | InjectCreated
    | InjectFailed
)
"""One of the 64 known events: 62 of the SDK, and two of its beta (docs/protocol.md, 3)."""
ServerEvent: TypeAlias = KnownEvent | UnknownEvent | UndecodableFrame
"""Any event that a frame decodes to: decoding raises no exception for any frame."""

EVENTS: dict[str, type[Event]] = {
    str(event.__struct_config__.tag): event for event in get_args(KnownEvent)
}
"""The record class of every known event type."""

TERMINAL_EVENTS = (ResponseCompleted, ResponseFailed, ResponseIncomplete)
"""The events that end a response, for ``isinstance``. An ``error`` event ends a request as well."""
