"""What a server says: one Struct per event type, and the two that stand for everything else.

A class is named after its type: without ``response.``, the words joined in CamelCase; where only
one segment is left, ``Response`` stays in front. Only the fields without which an event means
nothing are required; servers leave out the others, or send null.

The ``error`` event has a module of its own, :mod:`~trio_responses._wire.errors`.
"""

import functools
from typing import TypeAlias, get_args

import msgspec

from trio_responses._wire.actions import ShellOutput
from trio_responses._wire.base import JSON, Event, Record
from trio_responses._wire.errors import ErrorEvent
from trio_responses._wire.items import OutputItem, decode_item
from trio_responses._wire.parts import Annotation, ContentPart, Logprob
from trio_responses._wire.response import Response


class ResponseCreated(Event, frozen=True, kw_only=True, tag="response.created"):
    """The response has begun: it has an id from here on."""

    response: Response


class ResponseQueued(Event, frozen=True, kw_only=True, tag="response.queued"):
    """The response waits for its turn at the server."""

    response: Response


class ResponseInProgress(Event, frozen=True, kw_only=True, tag="response.in_progress"):
    """The model is at work."""

    response: Response


class ResponseCompleted(Event, frozen=True, kw_only=True, tag="response.completed"):
    """The response is done. Terminal."""

    response: Response


class ResponseFailed(Event, frozen=True, kw_only=True, tag="response.failed"):
    """The response failed, its ``error`` says why. Terminal."""

    response: Response


class ResponseIncomplete(Event, frozen=True, kw_only=True, tag="response.incomplete"):
    """The response ended early, its ``incomplete_details`` say why. Terminal."""

    response: Response


class OutputItemAdded(
    Event, frozen=True, kw_only=True, tag="response.output_item.added", gc=True, dict=True
):
    """An output item begins."""

    raw_item: msgspec.Raw = msgspec.field(name="item")
    """The item as it came: its content is still to come."""
    output_index: int = 0
    """Its place in the output, from 0; so in the other events."""

    @functools.cached_property
    def item(self) -> OutputItem:
        """The item, decoded when it is first asked for."""
        return decode_item(self.raw_item)


class OutputItemDone(
    Event, frozen=True, kw_only=True, tag="response.output_item.done", gc=True, dict=True
):
    """An output item is complete."""

    raw_item: msgspec.Raw = msgspec.field(name="item")
    """The item as it came, for a replay."""
    output_index: int = 0

    @functools.cached_property
    def item(self) -> OutputItem:
        """The item, decoded when it is first asked for."""
        return decode_item(self.raw_item)


class ContentPartAdded(Event, frozen=True, kw_only=True, tag="response.content_part.added"):
    """A content part of an item begins."""

    part: ContentPart
    item_id: str = ""
    """The item that it belongs to; so in the other events."""
    output_index: int = 0
    content_index: int = 0
    """Its place in the item, from 0; so in the other events."""


class ContentPartDone(Event, frozen=True, kw_only=True, tag="response.content_part.done"):
    """A content part of an item is complete."""

    part: ContentPart
    item_id: str = ""
    output_index: int = 0
    content_index: int = 0


class OutputTextDelta(Event, frozen=True, kw_only=True, tag="response.output_text.delta"):
    """More text."""

    delta: str
    item_id: str = ""
    output_index: int = 0
    content_index: int = 0
    logprobs: list[Logprob] | None = None
    """One for each token, where ``include`` asked for them."""


class OutputTextDone(Event, frozen=True, kw_only=True, tag="response.output_text.done"):
    """The text of a content part is complete."""

    text: str
    item_id: str = ""
    output_index: int = 0
    content_index: int = 0
    logprobs: list[Logprob] | None = None


class OutputTextAnnotationAdded(
    Event, frozen=True, kw_only=True, tag="response.output_text.annotation.added"
):
    """The text got an annotation."""

    annotation: Annotation | None = None
    item_id: str = ""
    output_index: int = 0
    content_index: int = 0
    annotation_index: int = 0


class RefusalDelta(Event, frozen=True, kw_only=True, tag="response.refusal.delta"):
    """More of a refusal."""

    delta: str
    item_id: str = ""
    output_index: int = 0
    content_index: int = 0


class RefusalDone(Event, frozen=True, kw_only=True, tag="response.refusal.done"):
    """A refusal is complete."""

    refusal: str
    item_id: str = ""
    output_index: int = 0
    content_index: int = 0


class ReasoningTextDelta(Event, frozen=True, kw_only=True, tag="response.reasoning_text.delta"):
    """More reasoning."""

    delta: str
    item_id: str = ""
    output_index: int = 0
    content_index: int = 0


class ReasoningTextDone(Event, frozen=True, kw_only=True, tag="response.reasoning_text.done"):
    """A piece of reasoning is complete."""

    text: str
    item_id: str = ""
    output_index: int = 0
    content_index: int = 0


class ReasoningSummaryPartAdded(
    Event, frozen=True, kw_only=True, tag="response.reasoning_summary_part.added"
):
    """A part of the reasoning's summary begins."""

    part: ContentPart
    item_id: str = ""
    output_index: int = 0
    summary_index: int = 0


class ReasoningSummaryPartDone(
    Event, frozen=True, kw_only=True, tag="response.reasoning_summary_part.done"
):
    """A part of the reasoning's summary is complete, or ``incomplete`` by its status."""

    part: ContentPart
    item_id: str = ""
    output_index: int = 0
    summary_index: int = 0
    status: str | None = None


class ReasoningSummaryTextDelta(
    Event, frozen=True, kw_only=True, tag="response.reasoning_summary_text.delta"
):
    """More of the reasoning's summary."""

    delta: str
    item_id: str = ""
    output_index: int = 0
    summary_index: int = 0


class ReasoningSummaryTextDone(
    Event, frozen=True, kw_only=True, tag="response.reasoning_summary_text.done"
):
    """The text of a part of the summary is complete."""

    text: str
    item_id: str = ""
    output_index: int = 0
    summary_index: int = 0


class FunctionCallArgumentsDelta(
    Event, frozen=True, kw_only=True, tag="response.function_call_arguments.delta"
):
    """More of a function call's arguments."""

    delta: str
    item_id: str = ""
    output_index: int = 0


class FunctionCallArgumentsDone(
    Event, frozen=True, kw_only=True, tag="response.function_call_arguments.done"
):
    """A function call's arguments are complete: JSON text."""

    arguments: str
    item_id: str = ""
    output_index: int = 0
    name: str | None = None


class CustomToolCallInputDelta(
    Event, frozen=True, kw_only=True, tag="response.custom_tool_call_input.delta"
):
    """More of a custom tool call's input."""

    delta: str
    item_id: str = ""
    output_index: int = 0


class CustomToolCallInputDone(
    Event, frozen=True, kw_only=True, tag="response.custom_tool_call_input.done"
):
    """A custom tool call's input is complete."""

    input: str
    item_id: str = ""
    output_index: int = 0


class McpCallArgumentsDelta(
    Event, frozen=True, kw_only=True, tag="response.mcp_call_arguments.delta"
):
    """More of an MCP call's arguments."""

    delta: str
    item_id: str = ""
    output_index: int = 0


class McpCallArgumentsDone(
    Event, frozen=True, kw_only=True, tag="response.mcp_call_arguments.done"
):
    """An MCP call's arguments are complete: JSON text."""

    arguments: str
    item_id: str = ""
    output_index: int = 0


class McpCallInProgress(Event, frozen=True, kw_only=True, tag="response.mcp_call.in_progress"):
    """An MCP tool is being called."""

    item_id: str = ""
    output_index: int = 0


class McpCallCompleted(Event, frozen=True, kw_only=True, tag="response.mcp_call.completed"):
    """An MCP tool returned."""

    item_id: str = ""
    output_index: int = 0


class McpCallFailed(Event, frozen=True, kw_only=True, tag="response.mcp_call.failed"):
    """A call of an MCP tool failed."""

    item_id: str = ""
    output_index: int = 0


class McpListToolsInProgress(
    Event, frozen=True, kw_only=True, tag="response.mcp_list_tools.in_progress"
):
    """An MCP server is being asked for its tools."""

    item_id: str = ""
    output_index: int = 0


class McpListToolsCompleted(
    Event, frozen=True, kw_only=True, tag="response.mcp_list_tools.completed"
):
    """An MCP server named its tools."""

    item_id: str = ""
    output_index: int = 0


class McpListToolsFailed(Event, frozen=True, kw_only=True, tag="response.mcp_list_tools.failed"):
    """An MCP server did not name its tools."""

    item_id: str = ""
    output_index: int = 0


class FileSearchCallInProgress(
    Event, frozen=True, kw_only=True, tag="response.file_search_call.in_progress"
):
    """A file search begins."""

    item_id: str = ""
    output_index: int = 0


class FileSearchCallSearching(
    Event, frozen=True, kw_only=True, tag="response.file_search_call.searching"
):
    """A file search is under way."""

    item_id: str = ""
    output_index: int = 0


class FileSearchCallCompleted(
    Event, frozen=True, kw_only=True, tag="response.file_search_call.completed"
):
    """A file search is done."""

    item_id: str = ""
    output_index: int = 0


class WebSearchCallInProgress(
    Event, frozen=True, kw_only=True, tag="response.web_search_call.in_progress"
):
    """A web search begins."""

    item_id: str = ""
    output_index: int = 0


class WebSearchCallSearching(
    Event, frozen=True, kw_only=True, tag="response.web_search_call.searching"
):
    """A web search is under way."""

    item_id: str = ""
    output_index: int = 0


class WebSearchCallCompleted(
    Event, frozen=True, kw_only=True, tag="response.web_search_call.completed"
):
    """A web search is done."""

    item_id: str = ""
    output_index: int = 0


class CodeInterpreterCallInProgress(
    Event, frozen=True, kw_only=True, tag="response.code_interpreter_call.in_progress"
):
    """A code interpreter call begins."""

    item_id: str = ""
    output_index: int = 0


class CodeInterpreterCallInterpreting(
    Event, frozen=True, kw_only=True, tag="response.code_interpreter_call.interpreting"
):
    """Code is running."""

    item_id: str = ""
    output_index: int = 0


class CodeInterpreterCallCompleted(
    Event, frozen=True, kw_only=True, tag="response.code_interpreter_call.completed"
):
    """A code interpreter call is done."""

    item_id: str = ""
    output_index: int = 0


class CodeInterpreterCallCodeDelta(
    Event, frozen=True, kw_only=True, tag="response.code_interpreter_call_code.delta"
):
    """More of the code to run."""

    delta: str
    item_id: str = ""
    output_index: int = 0


class CodeInterpreterCallCodeDone(
    Event, frozen=True, kw_only=True, tag="response.code_interpreter_call_code.done"
):
    """The code to run is complete."""

    code: str
    item_id: str = ""
    output_index: int = 0


class ImageGenerationCallInProgress(
    Event, frozen=True, kw_only=True, tag="response.image_generation_call.in_progress"
):
    """An image generation begins."""

    item_id: str = ""
    output_index: int = 0


class ImageGenerationCallGenerating(
    Event, frozen=True, kw_only=True, tag="response.image_generation_call.generating"
):
    """An image is being made."""

    item_id: str = ""
    output_index: int = 0


class ImageGenerationCallPartialImage(
    Event, frozen=True, kw_only=True, tag="response.image_generation_call.partial_image"
):
    """An image as it is so far, in base64."""

    partial_image_b64: str
    partial_image_index: int = 0
    """Which one it is, from 0."""
    item_id: str = ""
    output_index: int = 0
    background: str | None = None
    output_format: str | None = None
    quality: str | None = None
    size: str | None = None


class ImageGenerationCallCompleted(
    Event, frozen=True, kw_only=True, tag="response.image_generation_call.completed"
):
    """An image is done."""

    item_id: str = ""
    output_index: int = 0


class ShellCallCommandAdded(
    Event, frozen=True, kw_only=True, tag="response.shell_call_command.added"
):
    """A shell command begins."""

    command: str = ""
    output_index: int = 0
    command_index: int = 0
    """Which of the commands of the call, from 0; so in the other events."""


class ShellCallCommandDelta(
    Event, frozen=True, kw_only=True, tag="response.shell_call_command.delta"
):
    """More of a shell command."""

    delta: str
    output_index: int = 0
    command_index: int = 0
    obfuscation: str | None = None
    """Padding that hides how long the delta is; means nothing."""


class ShellCallCommandDone(
    Event, frozen=True, kw_only=True, tag="response.shell_call_command.done"
):
    """A shell command is complete."""

    command: str
    output_index: int = 0
    command_index: int = 0


class ShellOutputDelta(Record, frozen=True, kw_only=True):
    """More of what a shell command wrote."""

    stdout: str | None = None
    stderr: str | None = None


class ShellCallOutputContentDelta(
    Event, frozen=True, kw_only=True, tag="response.shell_call_output_content.delta"
):
    """More output of a shell command."""

    delta: ShellOutputDelta
    item_id: str = ""
    output_index: int = 0
    command_index: int = 0


class ShellCallOutputContentDone(
    Event, frozen=True, kw_only=True, tag="response.shell_call_output_content.done"
):
    """The output of shell commands is complete."""

    output: list[ShellOutput]
    item_id: str = ""
    output_index: int = 0
    command_index: int = 0


class CompactionCompacting(Event, frozen=True, kw_only=True, tag="response.compaction.compacting"):
    """The conversation is being compacted."""

    item_id: str = ""
    output_index: int = 0


class AudioDelta(Event, frozen=True, kw_only=True, tag="response.audio.delta"):
    """More audio, in base64."""

    delta: str


class AudioDone(Event, frozen=True, kw_only=True, tag="response.audio.done"):
    """The audio is complete."""


class AudioTranscriptDelta(Event, frozen=True, kw_only=True, tag="response.audio.transcript.delta"):
    """More of the audio's transcript."""

    delta: str


class AudioTranscriptDone(Event, frozen=True, kw_only=True, tag="response.audio.transcript.done"):
    """The audio's transcript is complete."""


class Steer(Record, frozen=True, kw_only=True):
    """A steering input. ``id`` is absent where it was refused before it got one."""

    id: str | None = None
    previous_response_id: str = ""
    """The response that it was for."""
    input: JSON = None
    """What was sent; only where it comes back."""


class InputError(Record, frozen=True, kw_only=True):
    """Why an input for a response under way was refused.

    Known codes: ``response_not_found``, ``invalid_input``, ``steering_not_supported``,
    ``too_many_pending_steers``, ``response_already_completed``, ``response_not_active``,
    ``successor_creation_failed``. The set is open (guide, steering).
    """

    code: str | None = None
    message: str = ""
    type: str | None = None


class RequiredInput(Record, frozen=True, kw_only=True):
    """An input item that a pending steering input waits for, without its content.

    ``type`` is that of the item to send, such as ``function_call_output``; which of the other
    fields is there depends on it (SDK, ``response_steer_required_input``).
    """

    type: str = ""
    call_id: str | None = None
    """That of the call that waits for its output."""
    name: str | None = None
    execution: str | None = None
    approval_request_id: str | None = None


class SteerAccepted(Event, frozen=True, kw_only=True, tag="response.steer.accepted"):
    """The server owns a steering input now; nothing is applied yet (guide, steering)."""

    steer: Steer


class SteerPending(Event, frozen=True, kw_only=True, tag="response.steer.pending"):
    """A steering input waits for tool outputs that the client owes (guide, steering)."""

    steer: Steer
    required_input: list[RequiredInput] | None = None
    """What is to be sent before it is applied."""
    reason: str | None = None


class SteerFailed(Event, frozen=True, kw_only=True, tag="response.steer.failed"):
    """A steering input was refused, or could not be applied; it comes back with its ``input``."""

    steer: Steer
    error: InputError = msgspec.field(default_factory=InputError)


class InjectCreated(Event, frozen=True, kw_only=True, tag="response.inject.created"):
    """Tool outputs were put into an active response (beta, multi-agent)."""

    response_id: str


class InjectFailed(Event, frozen=True, kw_only=True, tag="response.inject.failed"):
    """Tool outputs could not be put into a response, and come back (beta, multi-agent)."""

    response_id: str
    input: JSON = None
    """What was sent."""
    error: InputError = msgspec.field(default_factory=InputError)


class UnknownEvent(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """An event of a type that this version does not know. It is never an error."""

    type: str
    stream_id: str | None = None
    sequence_number: int | None = None
    raw: bytes
    """The whole frame."""

    def json(self) -> JSON:
        """Parse the frame.

        :raises ValueError: or one of its like, if it nests too deeply or is not UTF-8.
        """
        return msgspec.json.decode(self.raw)

    def __repr__(self) -> str:
        """Show the size in place of the content."""
        return (
            f"UnknownEvent(type={self.type!r}, stream_id={self.stream_id!r},"
            f" sequence_number={self.sequence_number!r}, size={len(self.raw)})"
        )


class UndecodableFrame(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A frame that is no event: not JSON, no object, or a known type of the wrong shape.

    ``error`` says what is wrong in words that hold nothing of the frame. ``type``, ``stream_id``
    and ``sequence_number`` are there as far as they could be read.
    """

    raw: bytes
    """The whole frame."""
    error: str
    type: str | None = None
    stream_id: str | None = None
    sequence_number: int | None = None

    def __repr__(self) -> str:
        """Show the size in place of the content."""
        return (
            f"UndecodableFrame(error={self.error!r}, type={self.type!r},"
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
"""The 64 events that have a record: 62 of the SDK, and two of its beta (docs/protocol.md, 3)."""
ServerEvent: TypeAlias = KnownEvent | UnknownEvent | UndecodableFrame
"""What a frame of a server becomes: no frame is an exception."""

EVENTS: dict[str, type[Event]] = {
    str(event.__struct_config__.tag): event for event in get_args(KnownEvent)
}
"""The class of every known event, by its type."""

TERMINAL_EVENTS = (ResponseCompleted, ResponseFailed, ResponseIncomplete)
"""The events that end a response, for ``isinstance``. An ``error`` may end a request, too."""
