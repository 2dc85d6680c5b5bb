"""The objects inside tool call items: actions, operations, outcomes, outputs, errors, callers.

A class is named after its ``type`` and its role: the computer action ``double_click`` is
:class:`DoubleClickAction`.
"""

from typing import TYPE_CHECKING, ClassVar, Literal, TypeAlias

from trio_responses._wire.base import JSON, Part, Record
from trio_responses._wire.parts import ComputerScreenshot

if TYPE_CHECKING:
    from trio_responses._wire.base import UnknownPart


class DirectCaller(Part, frozen=True, kw_only=True, tag="direct"):
    """The caller of a tool call that the model made directly."""

    type: ClassVar[Literal["direct"]] = "direct"


class ProgramCaller(Part, frozen=True, kw_only=True, tag="program"):
    """The caller of a tool call from a program; ``caller_id`` is the program's ``call_id``."""

    type: ClassVar[Literal["program"]] = "program"
    caller_id: str


_KnownCaller: TypeAlias = DirectCaller | ProgramCaller
if TYPE_CHECKING:
    Caller: TypeAlias = _KnownCaller | UnknownPart
    """The caller of a tool: the model itself, or a program that the model wrote."""
else:
    Caller = _KnownCaller


class Point(Record, frozen=True, kw_only=True):
    """A point on the screen, in pixels."""

    x: int
    y: int


class ClickAction(Part, frozen=True, kw_only=True, tag="click"):
    """A mouse click. ``button`` is ``left``, ``right``, ``wheel``, ``back`` or ``forward``."""

    type: ClassVar[Literal["click"]] = "click"
    x: int
    y: int
    button: str | None = None
    keys: list[str] | None = None
    """Keys to hold during the action; also in the other actions."""


class DoubleClickAction(Part, frozen=True, kw_only=True, tag="double_click"):
    """A double click of the mouse."""

    type: ClassVar[Literal["double_click"]] = "double_click"
    x: int
    y: int
    keys: list[str] | None = None


class DragAction(Part, frozen=True, kw_only=True, tag="drag"):
    """A mouse movement along a path with the button held."""

    type: ClassVar[Literal["drag"]] = "drag"
    path: list[Point]
    keys: list[str] | None = None


class KeypressAction(Part, frozen=True, kw_only=True, tag="keypress"):
    """A key press: keys pressed together."""

    type: ClassVar[Literal["keypress"]] = "keypress"
    keys: list[str]


class MoveAction(Part, frozen=True, kw_only=True, tag="move"):
    """A mouse movement to a point."""

    type: ClassVar[Literal["move"]] = "move"
    x: int
    y: int
    keys: list[str] | None = None


class ScreenshotAction(Part, frozen=True, kw_only=True, tag="screenshot"):
    """A request for a screenshot."""

    type: ClassVar[Literal["screenshot"]] = "screenshot"


class ScrollAction(Part, frozen=True, kw_only=True, tag="scroll"):
    """A scroll at a point, by distances in pixels."""

    type: ClassVar[Literal["scroll"]] = "scroll"
    x: int
    y: int
    scroll_x: int | None = None
    scroll_y: int | None = None
    keys: list[str] | None = None


class TypeAction(Part, frozen=True, kw_only=True, tag="type"):
    """Text to type on the keyboard."""

    type: ClassVar[Literal["type"]] = "type"
    text: str


class WaitAction(Part, frozen=True, kw_only=True, tag="wait"):
    """A pause before the next action."""

    type: ClassVar[Literal["wait"]] = "wait"


_KnownComputerAction: TypeAlias = (
    ClickAction
    | DoubleClickAction
    | DragAction
    | KeypressAction
    | MoveAction
    | ScreenshotAction
    | ScrollAction
    | TypeAction
    | WaitAction
)
if TYPE_CHECKING:
    ComputerAction: TypeAlias = _KnownComputerAction | UnknownPart
    """An action that the model requests on a computer."""
else:
    ComputerAction = _KnownComputerAction


class SafetyCheck(Record, frozen=True, kw_only=True):
    """A safety check that the client must acknowledge before it performs a computer action."""

    id: str
    """The id to return in ``acknowledged_safety_checks``."""
    code: str | None = None
    message: str | None = None


if TYPE_CHECKING:
    ComputerOutput: TypeAlias = ComputerScreenshot | UnknownPart
    """The output of a computer call."""
else:
    ComputerOutput = ComputerScreenshot


class WebSearchSource(Record, frozen=True, kw_only=True):
    """A source that a web search used."""

    type: str | None = None
    url: str | None = None


class SearchAction(Part, frozen=True, kw_only=True, tag="search"):
    """A web search by queries. ``query`` is the older, single form of ``queries``."""

    type: ClassVar[Literal["search"]] = "search"
    queries: list[str] | None = None
    query: str | None = None
    sources: list[WebSearchSource] | None = None


class OpenPageAction(Part, frozen=True, kw_only=True, tag="open_page"):
    """A web page that the web search opened."""

    type: ClassVar[Literal["open_page"]] = "open_page"
    url: str | None = None


class FindInPageAction(Part, frozen=True, kw_only=True, tag="find_in_page"):
    """A search for a pattern within a web page."""

    type: ClassVar[Literal["find_in_page"]] = "find_in_page"
    pattern: str | None = None
    url: str | None = None


_KnownWebSearchAction: TypeAlias = SearchAction | OpenPageAction | FindInPageAction
if TYPE_CHECKING:
    WebSearchAction: TypeAlias = _KnownWebSearchAction | UnknownPart
    """One action of a web search."""
else:
    WebSearchAction = _KnownWebSearchAction


class CreateFileOperation(Part, frozen=True, kw_only=True, tag="create_file"):
    """A patch operation that creates a file."""

    type: ClassVar[Literal["create_file"]] = "create_file"
    path: str
    diff: str
    """The content of the file, as a diff."""


class DeleteFileOperation(Part, frozen=True, kw_only=True, tag="delete_file"):
    """A patch operation that deletes a file."""

    type: ClassVar[Literal["delete_file"]] = "delete_file"
    path: str


class UpdateFileOperation(Part, frozen=True, kw_only=True, tag="update_file"):
    """A patch operation that updates a file."""

    type: ClassVar[Literal["update_file"]] = "update_file"
    path: str
    diff: str


_KnownPatchOperation: TypeAlias = CreateFileOperation | DeleteFileOperation | UpdateFileOperation
if TYPE_CHECKING:
    PatchOperation: TypeAlias = _KnownPatchOperation | UnknownPart
    """An operation on a file, for the client to perform."""
else:
    PatchOperation = _KnownPatchOperation


class LogsOutput(Part, frozen=True, kw_only=True, tag="logs"):
    """The text output of code that the code interpreter ran."""

    type: ClassVar[Literal["logs"]] = "logs"
    logs: str


class ImageOutput(Part, frozen=True, kw_only=True, tag="image"):
    """The image output of code that the code interpreter ran."""

    type: ClassVar[Literal["image"]] = "image"
    url: str


_KnownCodeInterpreterOutput: TypeAlias = LogsOutput | ImageOutput
if TYPE_CHECKING:
    CodeInterpreterOutput: TypeAlias = _KnownCodeInterpreterOutput | UnknownPart
    """The output of code that the code interpreter ran."""
else:
    CodeInterpreterOutput = _KnownCodeInterpreterOutput


class ExecAction(Part, frozen=True, kw_only=True, tag="exec"):
    """A command for the local shell, as a list of arguments."""

    type: ClassVar[Literal["exec"]] = "exec"
    command: list[str]
    env: dict[str, str] | None = None
    timeout_ms: int | None = None
    """Time limit in milliseconds."""
    user: str | None = None
    """The user that runs the command."""
    working_directory: str | None = None


if TYPE_CHECKING:
    LocalShellAction: TypeAlias = ExecAction | UnknownPart
    """The action of a local shell call."""
else:
    LocalShellAction = ExecAction


class ShellAction(Record, frozen=True, kw_only=True):
    """Commands for the shell, with limits in milliseconds and characters."""

    commands: list[str]
    timeout_ms: int | None = None
    max_output_length: int | None = None


class ExitOutcome(Part, frozen=True, kw_only=True, tag="exit"):
    """The outcome of a shell command that ended, with its exit code."""

    type: ClassVar[Literal["exit"]] = "exit"
    exit_code: int


class TimeoutOutcome(Part, frozen=True, kw_only=True, tag="timeout"):
    """The outcome of a shell command that exceeded its time limit."""

    type: ClassVar[Literal["timeout"]] = "timeout"


_KnownShellOutcome: TypeAlias = ExitOutcome | TimeoutOutcome
if TYPE_CHECKING:
    ShellOutcome: TypeAlias = _KnownShellOutcome | UnknownPart
    """The outcome of a shell command."""
else:
    ShellOutcome = _KnownShellOutcome


class ShellOutput(Record, frozen=True, kw_only=True):
    """The output of one shell command, and its outcome."""

    stdout: str | None = None
    stderr: str | None = None
    outcome: ShellOutcome | None = None
    created_by: str | None = None
    """Creator of the output, if the server names one."""


class FileSearchResult(Record, frozen=True, kw_only=True):
    """A passage of a file that the file search found."""

    file_id: str | None = None
    filename: str | None = None
    score: float | None = None
    """Relevance, from 0 to 1."""
    text: str | None = None
    attributes: JSON = None
    """Attributes stored with the file: names and values."""


class McpServerTool(Record, frozen=True, kw_only=True):
    """A tool of an MCP server."""

    name: str
    input_schema: JSON = None
    """JSON schema of the tool's arguments."""
    annotations: JSON = None
    """Annotations of the tool, as MCP defines them."""
    description: str | None = None


class McpProtocolError(Part, frozen=True, kw_only=True, tag="mcp_protocol_error"):
    """A violation of the MCP protocol by the MCP server."""

    type: ClassVar[Literal["mcp_protocol_error"]] = "mcp_protocol_error"
    code: int | None = None
    message: str | None = None


class McpToolExecutionError(Part, frozen=True, kw_only=True, tag="mcp_tool_execution_error"):
    """A failure of the MCP server's tool."""

    type: ClassVar[Literal["mcp_tool_execution_error"]] = "mcp_tool_execution_error"
    content: JSON = None


class HttpError(Part, frozen=True, kw_only=True, tag="http_error"):
    """An HTTP error from the MCP server, or a failure to reach the MCP server."""

    type: ClassVar[Literal["http_error"]] = "http_error"
    code: int | None = None
    message: str | None = None


_KnownMcpError: TypeAlias = McpProtocolError | McpToolExecutionError | HttpError
if TYPE_CHECKING:
    McpError: TypeAlias = _KnownMcpError | UnknownPart
    """The error of a failed MCP tool call."""
else:
    McpError = _KnownMcpError
