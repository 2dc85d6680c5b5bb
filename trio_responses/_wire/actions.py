"""What tool calls do and what comes of it: the small tagged objects inside call items.

Computer and web search actions, patch operations, shell outcomes, code interpreter outputs, and
the callers of tools. A class is named after its ``type`` and its kind: ``double_click`` of the
actions is :class:`DoubleClickAction`. The calls themselves are in
:mod:`~trio_responses._wire.items`.
"""

from typing import TYPE_CHECKING, TypeAlias

from trio_responses._wire.base import JSON, Part, Record

if TYPE_CHECKING:
    from trio_responses._wire.base import UnknownPart


class DirectCaller(Part, frozen=True, kw_only=True, tag="direct"):
    """The model called the tool itself."""


class ProgramCaller(Part, frozen=True, kw_only=True, tag="program"):
    """A program that the model wrote called the tool; ``caller_id`` is its ``call_id``."""

    caller_id: str


_KnownCaller: TypeAlias = DirectCaller | ProgramCaller
if TYPE_CHECKING:
    Caller: TypeAlias = _KnownCaller | UnknownPart
    """Who called a tool: the model itself, or a program that it wrote."""
else:
    Caller = _KnownCaller


class Point(Record, frozen=True, kw_only=True):
    """A place on the screen, in pixels."""

    x: int
    y: int


class ClickAction(Part, frozen=True, kw_only=True, tag="click"):
    """A click. ``button`` is ``left``, ``right``, ``wheel``, ``back`` or ``forward``."""

    x: int
    y: int
    button: str | None = None
    keys: list[str] | None = None
    """Keys that are held meanwhile; so in the other actions."""


class DoubleClickAction(Part, frozen=True, kw_only=True, tag="double_click"):
    """Two clicks at one place."""

    x: int
    y: int
    keys: list[str] | None = None


class DragAction(Part, frozen=True, kw_only=True, tag="drag"):
    """A movement along a path with the button held."""

    path: list[Point]
    keys: list[str] | None = None


class KeypressAction(Part, frozen=True, kw_only=True, tag="keypress"):
    """Keys pressed together."""

    keys: list[str]


class MoveAction(Part, frozen=True, kw_only=True, tag="move"):
    """A movement of the pointer."""

    x: int
    y: int
    keys: list[str] | None = None


class ScreenshotAction(Part, frozen=True, kw_only=True, tag="screenshot"):
    """A wish to see the screen."""


class ScrollAction(Part, frozen=True, kw_only=True, tag="scroll"):
    """A scroll at a place, by distances in pixels."""

    x: int
    y: int
    scroll_x: int | None = None
    scroll_y: int | None = None
    keys: list[str] | None = None


class TypeAction(Part, frozen=True, kw_only=True, tag="type"):
    """Text to type."""

    text: str


class WaitAction(Part, frozen=True, kw_only=True, tag="wait"):
    """A pause."""


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
    """What the model does with a computer."""
else:
    ComputerAction = _KnownComputerAction


class SafetyCheck(Record, frozen=True, kw_only=True):
    """A check that must be acknowledged before a computer action is done."""

    id: str
    """Goes back in ``acknowledged_safety_checks``."""
    code: str | None = None
    message: str | None = None


class ComputerScreenshot(Part, frozen=True, kw_only=True, tag="computer_screenshot"):
    """The screen after an action: a URL, a data URL or the id of an uploaded file."""

    image_url: str | None = None
    file_id: str | None = None


if TYPE_CHECKING:
    ComputerOutput: TypeAlias = ComputerScreenshot | UnknownPart
    """What the client shows after an action."""
else:
    ComputerOutput = ComputerScreenshot


class WebSearchSource(Record, frozen=True, kw_only=True):
    """A page that a web search read."""

    type: str | None = None
    url: str | None = None


class SearchAction(Part, frozen=True, kw_only=True, tag="search"):
    """A web search. ``query`` is the older, single form of ``queries``."""

    queries: list[str] | None = None
    query: str | None = None
    sources: list[WebSearchSource] | None = None


class OpenPageAction(Part, frozen=True, kw_only=True, tag="open_page"):
    """A page opened."""

    url: str | None = None


class FindInPageAction(Part, frozen=True, kw_only=True, tag="find_in_page"):
    """A pattern looked for in a page."""

    pattern: str | None = None
    url: str | None = None


_KnownWebSearchAction: TypeAlias = SearchAction | OpenPageAction | FindInPageAction
if TYPE_CHECKING:
    WebSearchAction: TypeAlias = _KnownWebSearchAction | UnknownPart
    """A step of a web search."""
else:
    WebSearchAction = _KnownWebSearchAction


class CreateFileOperation(Part, frozen=True, kw_only=True, tag="create_file"):
    """A file to create."""

    path: str
    diff: str
    """Its content, as a diff."""


class DeleteFileOperation(Part, frozen=True, kw_only=True, tag="delete_file"):
    """A file to delete."""

    path: str


class UpdateFileOperation(Part, frozen=True, kw_only=True, tag="update_file"):
    """A file to change."""

    path: str
    diff: str


_KnownPatchOperation: TypeAlias = CreateFileOperation | DeleteFileOperation | UpdateFileOperation
if TYPE_CHECKING:
    PatchOperation: TypeAlias = _KnownPatchOperation | UnknownPart
    """A change to a file, for the client to make."""
else:
    PatchOperation = _KnownPatchOperation


class LogsOutput(Part, frozen=True, kw_only=True, tag="logs"):
    """What the code printed."""

    logs: str


class ImageOutput(Part, frozen=True, kw_only=True, tag="image"):
    """An image that the code drew."""

    url: str


_KnownCodeInterpreterOutput: TypeAlias = LogsOutput | ImageOutput
if TYPE_CHECKING:
    CodeInterpreterOutput: TypeAlias = _KnownCodeInterpreterOutput | UnknownPart
    """What came of code that the server ran."""
else:
    CodeInterpreterOutput = _KnownCodeInterpreterOutput


class ExecAction(Part, frozen=True, kw_only=True, tag="exec"):
    """A command for the local shell, as a list of words."""

    command: list[str]
    env: dict[str, str] | None = None
    timeout_ms: int | None = None
    """Milliseconds that it may take."""
    user: str | None = None
    """Whom it runs as."""
    working_directory: str | None = None


if TYPE_CHECKING:
    LocalShellAction: TypeAlias = ExecAction | UnknownPart
    """What the older shell is to run."""
else:
    LocalShellAction = ExecAction


class ShellAction(Record, frozen=True, kw_only=True):
    """Commands for the shell, with their limits in milliseconds and characters."""

    commands: list[str]
    timeout_ms: int | None = None
    max_output_length: int | None = None


class ExitOutcome(Part, frozen=True, kw_only=True, tag="exit"):
    """The command ended."""

    exit_code: int


class TimeoutOutcome(Part, frozen=True, kw_only=True, tag="timeout"):
    """The command ran out of its time."""


_KnownShellOutcome: TypeAlias = ExitOutcome | TimeoutOutcome
if TYPE_CHECKING:
    ShellOutcome: TypeAlias = _KnownShellOutcome | UnknownPart
    """How a shell command ended."""
else:
    ShellOutcome = _KnownShellOutcome


class ShellOutput(Record, frozen=True, kw_only=True):
    """What one shell command wrote and how it ended."""

    stdout: str | None = None
    stderr: str | None = None
    outcome: ShellOutcome | None = None
    created_by: str | None = None
    """Who made it, where the server says so."""


class FileSearchResult(Record, frozen=True, kw_only=True):
    """A passage that file search found."""

    file_id: str | None = None
    filename: str | None = None
    score: float | None = None
    """How well it fits, from 0 to 1."""
    text: str | None = None
    attributes: JSON = None
    """What was stored with the file: names and values."""


class McpServerTool(Record, frozen=True, kw_only=True):
    """A tool that an MCP server offers."""

    name: str
    input_schema: JSON = None
    """The JSON schema of its arguments."""
    annotations: JSON = None
    """Hints of the MCP server about it, as MCP has them."""
    description: str | None = None


class McpProtocolError(Part, frozen=True, kw_only=True, tag="mcp_protocol_error"):
    """The MCP server broke the protocol."""

    code: int | None = None
    message: str | None = None


class McpToolExecutionError(Part, frozen=True, kw_only=True, tag="mcp_tool_execution_error"):
    """The MCP server's tool failed."""

    content: JSON = None


class HttpError(Part, frozen=True, kw_only=True, tag="http_error"):
    """The MCP server could not be reached, or refused."""

    code: int | None = None
    message: str | None = None


_KnownMcpError: TypeAlias = McpProtocolError | McpToolExecutionError | HttpError
if TYPE_CHECKING:
    McpError: TypeAlias = _KnownMcpError | UnknownPart
    """Why a call of an MCP tool failed."""
else:
    McpError = _KnownMcpError
