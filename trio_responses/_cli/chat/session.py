"""A chat session: runs a turn or a command for each line of input, and shows what happens.

Two tasks run side by side: one reads lines and runs turns, one shows notifications of the
connection. `Chat.stop` and `Chat.leave` are called from a third one, which waits for Ctrl-C.
"""

from __future__ import annotations

import os
from contextlib import AsyncExitStack, nullcontext
from typing import TYPE_CHECKING, Any, Final, final

import msgspec
import trio

from trio_responses import (
    ConfigurationError,
    ConnectionLost,
    ConnectionRestored,
    ConnectionRotated,
    ConnectionState,
    ResponsesError,
    TransportChanged,
)
from trio_responses._cli.chat.images import read_image
from trio_responses._cli.chat.slash_commands import SLASH_COMMANDS, commands_help, split_path
from trio_responses._cli.event_text import join_text, response_notes, tool_line
from trio_responses._cli.files import decoding, read_file, write_file
from trio_responses._cli.running import INTERRUPTED, describe_error, replace_surrogates
from trio_responses._concurrency import open_collapsing_nursery
from trio_responses._tools.namespace import tool_definitions
from trio_responses.types import InputText, Message, OutputItemDone, Usage

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractAsyncContextManager

    from trio_responses import (
        Conversation,
        ResponsesConnection,
    )
    from trio_responses._cli.chat.line_reader import LineReader
    from trio_responses._cli.chat.prices import Prices
    from trio_responses._cli.chat.renderer import Renderer
    from trio_responses._conversation.run import RunEvent, RunStream
    from trio_responses._tools.namespace import ToolLike
    from trio_responses.stores import ConversationStore
    from trio_responses.typing import ConversationParams, Event

__all__ = ["Chat"]

LOAD_AT_START: Final = (
    "this conversation is kept in a store: to load a file, leave, and start again with --load FILE"
    " and another --key"
)


class _Saved(msgspec.Struct):
    """What the chat itself reads of a saved conversation."""

    settings: dict[str, Any]


@final
class Chat:
    """A chat session: runs a turn for each line of input and displays its events with a renderer.

    :param settings: the settings of a new conversation.
    :param tools: the tools that the model may call.
    :param prices: the prices of tokens, for the cost of a turn.
    :param in_terminal: whether lines are edited in a terminal.
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
        prices: Prices | None = None,
        in_terminal: bool = False,
        stack: AsyncExitStack,
        stored_as: tuple[ConversationStore, str] | None = None,
    ) -> None:
        self._connection = connection
        self._renderer = renderer
        self._settings = settings
        self._model: str | None = None
        """The model that ``/model`` has set, in place of that of the conversation."""
        self._own_model = settings.get("model")
        self._tools = tools
        self._prices = prices
        self._in_terminal = in_terminal
        self._outer_stack = stack
        self._stored_as = stored_as
        self._conversation_stack = AsyncExitStack()
        """Closes the current conversation, when another one is loaded."""
        self._conversation: Conversation | None = None
        self._line_scope: trio.CancelScope | None = None
        """Cancels the turn or the command in progress."""
        self._chat_scope = trio.CancelScope()
        self._connection_error: ResponsesError | None = None
        self._exit_code = 0
        self._reconnects = 0
        self._turn_usage: Usage | None = None
        self._total_usage = Usage()
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
        if saved is not None:
            self._own_model = msgspec.json.decode(saved, type=_Saved).settings.get("model")
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

    async def run(self, lines: LineReader) -> int:
        """Run the chat until the end of the input, and return the exit code.

        :raises ResponsesError: when the connection is lost and will not be reopened.
        """
        with self._chat_scope:
            async with open_collapsing_nursery() as nursery:
                nursery.start_soon(self._show_notifications)
                await self._handle_lines(lines)
                nursery.cancel_scope.cancel()
        self._renderer.end_text()
        if self._connection_error is not None:
            raise self._connection_error
        return self._exit_code

    # --- Ctrl-C, and the connection ------------------------------------------------------

    def stop(self) -> bool:
        """Cancel the turn or the command in progress; return whether there was one.

        One that was cancelled before, and has not ended yet, does not count.
        """
        if self._line_scope is None or self._line_scope.cancel_called:
            return False
        self._line_scope.cancel()
        return True

    def leave(self, exit_code: int) -> None:
        """End the chat: `run` returns the exit code."""
        self._exit_code = exit_code
        self._chat_scope.cancel()

    def interrupt(self) -> None:
        """Cancel the turn or the command in progress; without one, end the chat."""
        if not self.stop():
            self.leave(INTERRUPTED)

    async def _show_notifications(self) -> None:
        try:
            async for event in self._connection:
                self._reconnects += isinstance(event, ConnectionRestored)
                notification = _describe_event(event)
                if notification:
                    self._renderer.show_line("notification", notification)
                    self._show_status()
        except ResponsesError as error:
            self._connection_error = error
        self._chat_scope.cancel()

    def _show_status(self) -> None:
        """Show the model, the connection, the tokens of the newest turn, and what it cost."""
        parts = [self._current_model(), self._describe_connection()]
        if self._turn_usage is not None:
            parts.append(self._describe_tokens(self._turn_usage))
        self._renderer.show_status(" · ".join(parts))

    def _current_model(self) -> str:
        return str(self._model or self._own_model or "the default model")

    def _describe_connection(self) -> str:
        statistics = self._connection.statistics()
        if statistics.transport == "http":
            return "HTTP"
        state = "connected" if statistics.state is ConnectionState.OPEN else "reconnecting"
        reconnects = f"{self._reconnects} reconnect{'' if self._reconnects == 1 else 's'}"
        return f"{state}, {reconnects}"

    def _describe_tokens(self, usage: Usage) -> str:
        """Return the tokens of a usage as text, with the cost if the prices are known."""
        cached = usage.input_tokens_details.cached_tokens
        tokens = f"{usage.input_tokens} read ({cached} cached), {usage.output_tokens} written"
        if self._prices is None:
            return tokens
        return f"{tokens}, cost {self._prices.cost(usage):.4f}"

    # --- Turns ---------------------------------------------------------------------------

    async def _handle_lines(self, lines: LineReader) -> None:
        while True:
            self._show_status()
            self._renderer.show_prompt()
            line = await lines.read_line()
            if line is None:
                return
            text = replace_surrogates(line.strip())
            self._asked_to_replace, self._file_to_replace = self._file_to_replace, None
            name, _, rest = text.partition(" ")
            if name in {"/quit", "/exit"} and not rest:
                return
            with trio.CancelScope() as self._line_scope:
                if text.startswith("/"):
                    await self._run_command(text)
                elif text:
                    await self._run_turn(text)
            if self._line_scope.cancelled_caught:
                self._renderer.show_line("note", "cancelled: the conversation is as it was before")
            self._line_scope = None

    async def _run_turn(self, given: str | Message) -> None:
        """Run one turn with all its tool calls, and show its events."""
        full_turns = self.conversation.statistics().full_turns
        params: ConversationParams = {"tools": self._tools} if self._tools else {}
        if self._model is not None:
            params["model"] = self._model
        try:
            async with self.conversation.run_stream(given, **params) as stream:
                async for batch in stream.batches():
                    for part in join_text(batch, stream.phase_of):
                        self._show_part(part)
                    await self._renderer.flush()
                self._renderer.end_text()
                self._show_summary(stream, full_turns_before=full_turns)
        except (ResponsesError, ValueError, TypeError) as error:  # of a setting that was loaded
            if self._connection.state is ConnectionState.CLOSED:
                raise
            self._renderer.show_line("error", describe_error(error))

    def _show_part(self, part: RunEvent | str) -> None:
        match part:
            case str():
                self._renderer.append_text(part)
            case OutputItemDone(item=Message(phase="commentary") as message):
                self._renderer.show_line("commentary", message.output_text)
            case _:
                line = tool_line(part)
                if line is not None:
                    self._renderer.show_line("tool", line)

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
        self._turn_usage = stream.usage or Usage()
        self._total_usage += self._turn_usage
        full = self.conversation.statistics().full_turns - full_turns_before
        requests = f"{len(stream.responses)} sent, {full} of them with the whole history"
        self._renderer.show_line("tokens", f"{self._describe_tokens(self._turn_usage)}; {requests}")

    # --- Commands ------------------------------------------------------------------------

    async def _run_command(self, line: str) -> None:
        """Run a command that begins with a slash."""
        name, _, rest = line.partition(" ")
        rest = rest.strip()
        command = SLASH_COMMANDS.get(name)
        if command is not None and command.takes_path:
            await self._run_file_command(name, rest)
        elif name == "/model":
            self._model = rest or self._model
            self._renderer.show_line("note", f"the model is {self._current_model()}")
        elif command is None or rest:
            self._renderer.show_line("error", f"unknown command {line}: /help lists the commands")
        elif name == "/reset":
            await self.conversation.clear_history()
            self._own_file = None
            self._renderer.show_line("note", "a new conversation starts")
        elif name == "/tools":
            self._renderer.show_line("note", self._describe_tools())
        elif name == "/usage":
            tokens = self._describe_tokens(self._total_usage)
            self._renderer.show_line("note", f"this chat: {tokens}")
        else:
            self._renderer.show_line("note", commands_help(in_terminal=self._in_terminal))

    async def _run_file_command(self, name: str, arguments: str) -> None:
        """Run a command whose first argument is a path; an error does not end the chat."""
        message = None
        try:
            if not arguments:
                raise ConfigurationError(
                    f"{name} needs the name of a file: {name} {SLASH_COMMANDS[name].arguments}"
                )
            if name == "/image":
                message = await _read_image_message(arguments)
            elif name == "/save":
                await self._save(_expand(arguments))
            elif self._stored_as is not None:
                raise ConfigurationError(LOAD_AT_START)
            else:
                await self.start(_expand(arguments))
        except (OSError, ResponsesError, ValueError, MemoryError) as error:
            self._renderer.show_line("error", describe_error(error))
        if message is not None:
            await self._run_turn(message)

    def _describe_tools(self) -> str:
        """Return the tools that the model may call as text: a line for each."""
        lines = [_describe_tool(tool) for tool in tool_definitions(self._tools)]
        return "\n".join(lines) or "the model may call no tool: start the chat with --tools"

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


async def _read_image_message(arguments: str) -> Message:
    """Return a message with the image that the arguments name, and the text after its path."""
    path, text = split_path(arguments)
    # As for a saved conversation: the path may be that of a pipe.
    image = await trio.to_thread.run_sync(read_image, _expand(path), abandon_on_cancel=True)
    texts = [InputText(text=text)] if text else []
    return Message(role="user", content=[*texts, image])


def _expand(path: str) -> str:
    """Return a path with the home folder in place of ``~``. It may end with spaces, or a slash."""
    return os.path.expanduser(path)  # noqa: PTH111 - a Path would drop the slash


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


def _describe_tool(tool: Any) -> str:
    """Return the name of a tool, or its type, and the first line of its description."""
    fields: dict[str, Any] = msgspec.to_builtins(tool)
    name = fields.get("name") or fields.get("type")
    about, *_ = str(fields.get("description") or "").splitlines() or [""]
    return f"{name}: {about}" if about else str(name)
