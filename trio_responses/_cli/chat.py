"""The command ``chat``: a conversation with a model in the terminal.

Three tasks run side by side: one reads lines and runs turns, one shows notifications of the
connection, and one waits for Ctrl-C. During a turn, Ctrl-C cancels the turn and the history stays
as it was before; otherwise Ctrl-C ends the chat, as the end of the input does.
"""

from __future__ import annotations

import os
import signal
import sys
from contextlib import AsyncExitStack, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol, final

import trio

from trio_responses import (
    ConnectionLost,
    ConnectionRestored,
    ConnectionRotated,
    ConnectionState,
    ResponsesError,
    TransportChanged,
)
from trio_responses._cli.ask import response_notes
from trio_responses._cli.chat_tools import CHAT_TOOLS, answer_with_tools
from trio_responses._cli.conversations import open_store
from trio_responses._cli.files import decoding, read_file, write_file
from trio_responses._cli.parameters import request_options
from trio_responses._cli.recording import record_into
from trio_responses._cli.renderer import PlainRenderer, join_text
from trio_responses._cli.running import (
    INTERRUPTED,
    WRONG_USAGE,
    describe_error,
    print_error,
    replace_surrogates,
    run,
)
from trio_responses._cli.server_choice import endpoint_from_arguments, open_server
from trio_responses._concurrency import open_collapsing_nursery
from trio_responses._tools.toolbox import ToolFinished, ToolStarted
from trio_responses.types import Message, OutputItemDone, Usage

if TYPE_CHECKING:
    import argparse
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
    from contextlib import AbstractAsyncContextManager
    from typing import TextIO

    from trio_responses import (
        Conversation,
        ResponsesConnection,
    )
    from trio_responses._cli.renderer import Renderer
    from trio_responses._cli.server_choice import ServerChoice
    from trio_responses._conversation.run import RunEvent, RunStream
    from trio_responses._tools.namespace import ToolLike
    from trio_responses.stores import ConversationStore
    from trio_responses.typing import ConversationParams, Event

__all__ = ["Chat", "LineReader", "TextLineReader", "chat", "choose_renderer"]

COMMANDS: Final = """\
/save FILE  save the conversation in a file
/load FILE  continue a saved conversation
/reset      clear the history and start a new conversation
/help       show this list
/quit       leave; the end of the input does the same
Ctrl-C      cancel the answer in progress; without one, leave"""
LOAD_AT_START: Final = (
    "this conversation is kept in a store: to load a file, leave, and start again with --load FILE"
    " and another --key"
)
MAX_SHOWN: Final = 300
"""Characters of a tool's arguments or output that are shown."""
READ_SIZE: Final = 65536
NO_RICH: Final = (
    'plain text, because rich is not installed; for Markdown: pip install "trio-responses[cli]"'
)


def chat(arguments: argparse.Namespace) -> int:
    """Run a chat: read lines from the standard input and print the answers of the model."""
    endpoint = endpoint_from_arguments(arguments)
    demo = CHAT_TOOLS if arguments.demo_tools else ()
    options = request_options(arguments, conversation=True, tools=demo)
    if arguments.max_age is not None and endpoint is not None:
        print_error("--max-age is an option of the embedded server: add --embedded")
        return WRONG_USAGE
    renderer = choose_renderer(
        sys.stdout, sys.stderr, interactive=sys.stdin.isatty(), plain=arguments.plain
    )
    settings = {"store": arguments.server_store, **options.params}
    with record_into(arguments.record, force=arguments.force) as instruments:
        server = open_server(
            endpoint,
            transport=arguments.transport,
            max_age=arguments.max_age,
            responder=answer_with_tools if arguments.demo_tools else None,
            instruments=instruments,
            allow_insecure=arguments.allow_insecure,
        )
        command = partial(
            _chat,
            server,
            renderer,
            settings,
            tools=options.tools,
            checkpoint=arguments.load,
            place=arguments.store,
            key=arguments.key,
        )
        return run(command)


def choose_renderer(out: TextIO, err: TextIO, *, interactive: bool, plain: bool) -> Renderer:
    """Return a Markdown renderer for a terminal where rich is installed, else a plain one.

    :param interactive: whether the input is a terminal.
    :param plain: whether the user asked for plain text.
    """
    renderer = PlainRenderer(out, err, interactive=interactive and out.isatty())
    if plain or not out.isatty():
        return renderer
    try:
        from rich.console import Console  # noqa: PLC0415 - an extra, and slow to import

        from trio_responses._cli.markdown_renderer import MarkdownRenderer  # noqa: PLC0415 - likewise
    except ImportError:
        renderer.show_line("note", NO_RICH)
        return renderer
    console = Console(file=None if out is sys.stdout else out)
    return MarkdownRenderer(console, interactive=interactive)


async def _chat(
    opening: AbstractAsyncContextManager[ServerChoice],
    renderer: Renderer,
    settings: dict[str, Any],
    *,
    tools: Sequence[ToolLike],
    checkpoint: str | None,
    place: str | None,
    key: str,
) -> int:
    async with (
        opening as server,
        server.connect() as connection,
        AsyncExitStack() as stack,
    ):
        stored_as = None
        if place is not None:
            stored_as = await stack.enter_async_context(open_store(place, create=True)), key
        session = Chat(
            connection,
            renderer,
            settings,
            tools=tools,
            stack=stack,
            stored_as=stored_as,
        )
        await session.start(checkpoint)
        way = " over HTTP" if connection.statistics().transport == "http" else ""
        note = f"connected to {server.endpoint.host}{way}; /help lists the commands"
        renderer.show_line("note", note)
        with trio.open_signal_receiver(signal.SIGINT) as interrupts:
            return await session.run(TextLineReader(sys.stdin), interrupts)


class LineReader(Protocol):
    """The interface of a source of input lines."""

    async def read_line(self) -> str | None:
        """Wait for the next line; return `None` at the end of the input.

        A cancelled call loses no input.
        """
        ...


@final
class Chat:
    """A chat session: runs a turn for each line of input and displays its events with a renderer.

    :param settings: the settings of a new conversation.
    :param tools: the tools that the model may call.
    :param stack: closes the conversation when its block ends.
    :param stored_as: the store that keeps the conversation, and its id there.
    """

    def __init__(
        self,
        connection: ResponsesConnection,
        renderer: Renderer,
        settings: dict[str, Any],
        *,
        tools: Sequence[ToolLike] = (),
        stack: AsyncExitStack,
        stored_as: tuple[ConversationStore, str] | None = None,
    ) -> None:
        self._connection = connection
        self._renderer = renderer
        self._settings = settings
        self._tools = tools
        self._outer_stack = stack
        self._stored_as = stored_as
        self._conversation_stack = AsyncExitStack()
        """Closes the current conversation, when another one is loaded."""
        self._conversation: Conversation | None = None
        self._turn_scope: trio.CancelScope | None = None
        self._connection_error: ResponsesError | None = None
        self._exit_code = 0
        self._own_file: str | None = None
        """The file that the conversation was saved in or loaded from last: it is no other's."""
        self._file_to_replace: str | None = None
        """The file that this line would replace, if the next line asks for it again."""
        self._asked_to_replace: str | None = None
        """The file that the line before this one would have replaced."""

    @property
    def conversation(self) -> Conversation:
        """The current conversation."""
        if self._conversation is None:
            raise RuntimeError("the chat has no conversation yet: call start() first")
        return self._conversation

    async def start(self, checkpoint: str | None = None) -> None:
        """Open a new conversation, or continue the one saved in a file.

        :param checkpoint: the path of the file.
        :raises OSError: when the file cannot be read.
        :raises ConfigurationError: when the file has no saved conversation.
        """
        stack, saved = AsyncExitStack(), None
        if checkpoint is not None:
            # A thread that reads from a pipe cannot be cancelled, and Ctrl-C has to end the chat.
            saved = await trio.to_thread.run_sync(read_file, checkpoint, abandon_on_cancel=True)
        with decoding(checkpoint, "a saved conversation") if checkpoint else nullcontext():
            conversation = await stack.enter_async_context(self._open_conversation(saved))
        if self._stored_as is not None or checkpoint is not None:
            place = checkpoint or "the store"
            self._renderer.show_line("note", f"{len(conversation.items)} items loaded from {place}")
        self._conversation = conversation
        self._own_file = checkpoint
        await self._conversation_stack.aclose()
        self._conversation_stack = stack
        self._outer_stack.push_async_callback(stack.aclose)  # closing twice does nothing

    def _open_conversation(self, saved: bytes | None) -> AbstractAsyncContextManager[Conversation]:
        if self._stored_as is not None:
            return self._connection.durable_conversation(
                *self._stored_as, checkpoint=saved, **self._settings
            )
        if saved is not None:
            return self._connection.restore_conversation(saved)
        return self._connection.conversation(**self._settings)

    async def run(self, lines: LineReader, interrupts: AsyncIterator[int]) -> int:
        """Run the chat until the end of the input, and return the exit code.

        :param interrupts: yields a value for each Ctrl-C.
        :raises ResponsesError: when the connection is lost and will not be reopened.
        """
        async with open_collapsing_nursery() as nursery:
            nursery.start_soon(self._show_notifications, nursery.cancel_scope)
            nursery.start_soon(self._handle_interrupts, interrupts, nursery.cancel_scope)
            await self._handle_lines(lines)
            nursery.cancel_scope.cancel()
        self._renderer.end_text()
        if self._connection_error is not None:
            raise self._connection_error
        return self._exit_code

    # --- The connection, and Ctrl-C ------------------------------------------------------

    async def _show_notifications(self, chat_scope: trio.CancelScope) -> None:
        try:
            async for event in self._connection:
                notification = _describe_event(event)
                if notification:
                    self._renderer.show_line("notification", notification)
        except ResponsesError as error:
            self._connection_error = error
        chat_scope.cancel()

    async def _handle_interrupts(
        self, interrupts: AsyncIterator[int], chat_scope: trio.CancelScope
    ) -> None:
        async for _ in interrupts:
            if self._turn_scope is not None and not self._turn_scope.cancel_called:
                self._turn_scope.cancel()
            else:
                self._exit_code = INTERRUPTED
                chat_scope.cancel()

    # --- Turns ---------------------------------------------------------------------------

    async def _handle_lines(self, lines: LineReader) -> None:
        while True:
            self._renderer.show_prompt()
            line = await lines.read_line()
            if line is None:
                return
            text = replace_surrogates(line.strip())
            self._asked_to_replace, self._file_to_replace = self._file_to_replace, None
            if text.startswith("/"):
                if not await self._run_command(text):
                    return
            elif text:
                await self._run_turn(text)

    async def _run_turn(self, text: str) -> None:
        """Run one turn with all its tool calls, and show its events."""
        full_turns = self.conversation.statistics().full_turns
        params: ConversationParams = {"tools": self._tools} if self._tools else {}
        with trio.CancelScope() as self._turn_scope:
            try:
                async with self.conversation.run_stream(text, **params) as stream:
                    async for batch in stream.batches():
                        for part in join_text(batch, stream.phase_of):
                            self._show_part(part)
                    self._renderer.end_text()
                    self._show_summary(stream, full_turns_before=full_turns)
            except (ResponsesError, ValueError, TypeError) as error:  # of a setting that was loaded
                if self._connection.state is ConnectionState.CLOSED:
                    raise
                self._renderer.show_line("error", describe_error(error))
        if self._turn_scope.cancelled_caught:
            self._renderer.show_line("note", "cancelled: the conversation is as it was before")
        self._turn_scope = None

    def _show_part(self, part: RunEvent | str) -> None:
        match part:
            case str():
                self._renderer.append_text(part)
            case OutputItemDone(item=Message(phase="commentary") as message):
                self._renderer.show_line("commentary", message.output_text)
            case ToolStarted(call=call):
                arguments = getattr(call, "arguments", "")
                self._renderer.show_line("tool", f"{part.name}({_shorten(arguments)})")
            case ToolFinished(output=output):
                self._renderer.show_line("tool", f"{part.name} -> {_shorten(str(output))}")
            case _:
                pass

    def _show_summary(self, stream: RunStream, *, full_turns_before: int) -> None:
        """Show the notes on the answer, the tokens used, and how much history was sent."""
        response = stream.response
        if response.function_calls:
            names = ", ".join(call.qualified_name for call in response.function_calls)
            self._renderer.show_line(
                "note", f"the model called {names}, but the chat offers no such tool"
            )
        for note in response_notes(response):
            self._renderer.show_line("note", note)
        usage = stream.usage or Usage()
        cached = usage.input_tokens_details.cached_tokens
        full = self.conversation.statistics().full_turns - full_turns_before
        requests = f"{len(stream.responses)} sent, {full} of them with the whole history"
        self._renderer.show_line(
            "tokens",
            f"{usage.input_tokens} read ({cached} cached), {usage.output_tokens} written;"
            f" {requests}",
        )

    # --- Commands ------------------------------------------------------------------------

    async def _run_command(self, line: str) -> bool:
        """Run a command that begins with a slash; return whether the chat continues."""
        name, _, rest = line.partition(" ")
        match name, rest.strip():
            case (("/quit" | "/exit"), ""):
                return False
            case "/reset", "":
                await self.conversation.clear_history()
                self._own_file = None
                self._renderer.show_line("note", "a new conversation starts")
            case "/help", "":
                self._renderer.show_line("note", COMMANDS)
            case (("/save" | "/load"), ""):
                self._renderer.show_line("error", f"{name} needs the name of a file: {name} FILE")
            case "/load", _ if self._stored_as is not None:
                self._renderer.show_line("error", LOAD_AT_START)
            case "/save", path:
                await self._run_file_command(self._save, path)
            case "/load", path:
                await self._run_file_command(self.start, path)
            case _:
                self._renderer.show_line(
                    "error", f"unknown command {line}: /help lists the commands"
                )
        return True

    async def _run_file_command(self, command: Callable[[str], Awaitable[None]], path: str) -> None:
        """Run a command on a file; an error is shown and does not end the chat."""
        try:
            await command(os.path.expanduser(path))  # noqa: ASYNC240, PTH111 - no I/O is in it
        except (OSError, ResponsesError, MemoryError) as error:
            self._renderer.show_line("error", describe_error(error))

    async def _save(self, path: str) -> None:
        """Save the conversation; a file of something else is replaced when asked for twice."""
        known = {self._own_file, self._asked_to_replace}
        if path not in known and await trio.to_thread.run_sync(os.path.lexists, path):
            self._file_to_replace = path
            self._renderer.show_line("note", f"{path} exists: enter the same again to replace it")
            return
        await trio.to_thread.run_sync(write_file, path, self.conversation.checkpoint())
        self._own_file = path
        self._renderer.show_line("note", f"{len(self.conversation.items)} items saved in {path}")


def _describe_event(event: Event) -> str | None:
    """Return a line that describes an event of the connection; `None` for events not shown."""
    match event:
        case ConnectionLost():
            return f"{event}; reconnecting"
        case ConnectionRestored(attempts=attempts, outage=outage):
            return f"reconnected after {outage:.1f} s, at attempt {attempts}"
        case ConnectionRotated():
            return "the socket was replaced before it reached its maximum age"
        case TransportChanged(error=ResponsesError() as error):
            return f"requests go over HTTP from now on: {describe_error(error)}"
        case TransportChanged():
            return "a WebSocket is open again: requests go over it from now on"
        case _:
            return None


def _shorten(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}..."


# --- Reading lines -----------------------------------------------------------------------


@final
class TextLineReader:
    """A reader of lines from an open text file: a terminal, a pipe, a disk file or memory.

    Where the system can report that input is ready, no thread reads: a thread blocked in a read
    cannot be cancelled, and delays the exit of the interpreter.
    """

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._unread = b""
        self._at_end = False
        try:
            self._descriptor: int | None = file.fileno()
        except (OSError, ValueError):  # the file is in memory
            self._descriptor = None
        if sys.platform == "win32":  # where Trio can wait for sockets only
            self._descriptor = None

    async def read_line(self) -> str | None:
        """Wait for the next line; return `None` at the end of the input.

        A cancelled call loses no input, unless a thread has to read.
        """
        if self._descriptor is None:
            line = await trio.to_thread.run_sync(self._file.readline, abandon_on_cancel=True)
            return line.rstrip("\r\n") if line else None
        while b"\n" not in self._unread and not self._at_end:
            await self._read_more(self._descriptor)
        await trio.lowlevel.checkpoint()
        if not self._unread:
            return None
        line_bytes, _, self._unread = self._unread.partition(b"\n")
        return line_bytes.decode(self._file.encoding or "utf-8", errors="replace").rstrip("\r")

    async def _read_more(self, descriptor: int) -> None:
        try:
            await trio.lowlevel.wait_readable(descriptor)
        except PermissionError:  # epoll rejects disk files, which are always ready
            await trio.lowlevel.checkpoint()
        try:
            data = os.read(descriptor, READ_SIZE)
        except BlockingIOError:
            return
        except OSError:  # the terminal was closed
            data = b""
        self._unread += data
        self._at_end = not data
