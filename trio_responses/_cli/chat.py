"""``chat``: a conversation in the terminal, turn by turn.

Three tasks: one reads lines and runs turns, one tells what happens to the connection, and one
waits for Ctrl-C, which cancels the turn, or leaves where there is none.

What belongs elsewhere: what it looks like (`faces.py`), its tools (`chat_tools.py`), histories and
sockets (`conversation/conversation.py`, `connection/connection.py`).
"""

from __future__ import annotations

import os
import signal
import sys
from contextlib import AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol, final

import msgspec
import trio

from trio_responses import (
    ConnectionLost,
    ConnectionRestored,
    ConnectionRotated,
    ConnectionState,
    Conversation,
    ResponsesError,
)
from trio_responses._cli.ask import note_shortcomings, without_surrogates
from trio_responses._cli.chat_tools import CHAT_TOOLS, answer_with_tools
from trio_responses._cli.recording import record_into
from trio_responses._cli.renderer import PlainRenderer
from trio_responses._cli.running import INTERRUPTED, WRONG_USAGE, explain, run, say_error
from trio_responses._cli.server_choice import choose_place, open_place
from trio_responses._concurrency import open_collapsing_nursery
from trio_responses._tools.toolbox import ToolFinished, ToolStarted
from trio_responses.types import OutputTextDelta

if TYPE_CHECKING:
    import argparse
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
    from contextlib import AbstractAsyncContextManager
    from typing import TextIO

    from trio_responses import Endpoint, Instrument, ResponsesConnection
    from trio_responses._cli.renderer import Renderer
    from trio_responses._conversation.run import RunEvent, RunStream
    from trio_responses._tools.toolbox import ToolLike
    from trio_responses.typing import Event

__all__ = ["Chat", "FileLines", "chat", "choose_face"]

COMMANDS: Final = """\
/save FILE  save the conversation, to go on with it another time
/load FILE  go on with a conversation that was saved
/reset      forget what was said, and begin anew
/help       show this
/quit       leave, as the end of the input does
Ctrl-C      cancel the answer that is being written; leave, where there is none"""
LONGEST_SHOWN: Final = 300
"""Characters of a tool's arguments or output that are shown."""
PRIVATE: Final = 0o600
NO_RICH: Final = (
    'plain text, as rich is not installed: pip install "trio-responses[cli]" shows Markdown'
)


def chat(arguments: argparse.Namespace) -> int:
    """Have a conversation with whoever sits at the terminal, or with a script."""
    try:
        endpoint = choose_place(arguments)
    except LookupError:
        return WRONG_USAGE
    if arguments.max_age is not None and endpoint is not None:
        say_error("--max-age is for the server of --embedded")
        return WRONG_USAGE
    face = choose_face(sys.stdout, sys.stderr, asks=sys.stdin.isatty(), plain=arguments.plain)
    settings = {"model": arguments.model, "store": arguments.store}
    if arguments.instructions is not None:
        settings["instructions"] = without_surrogates(arguments.instructions)
    with record_into(arguments.record, force=arguments.force) as instruments:
        work = partial(
            _chat_with,
            endpoint,
            face,
            settings,
            tools=CHAT_TOOLS if arguments.tools else (),
            max_age=arguments.max_age,
            checkpoint=arguments.load,
            instruments=instruments,
        )
        return run(work)


def choose_face(out: TextIO, err: TextIO, *, asks: bool, plain: bool) -> Renderer:
    """Choose the best form that the output and what is installed allow.

    :param asks: whether the input is a terminal.
    :param plain: whether plain text was asked for.
    """
    face = PlainRenderer(out, err, asks=asks and out.isatty())
    if plain or not out.isatty():
        return face
    try:
        from rich.console import Console  # noqa: PLC0415 - an extra, and slow to import

        from trio_responses._cli.markdown_renderer import MarkdownRenderer  # noqa: PLC0415 - it needs rich
    except ImportError:
        face.say("note", NO_RICH)
        return face
    return MarkdownRenderer(Console(file=None if out is sys.stdout else out), asks=asks)


async def _chat_with(
    endpoint: Endpoint | None,
    face: Renderer,
    settings: dict[str, Any],
    *,
    tools: Sequence[ToolLike],
    max_age: float | None,
    checkpoint: str | None,
    instruments: Sequence[Instrument] | None,
) -> int:
    responder = answer_with_tools if tools else None
    async with (
        open_place(
            endpoint, max_age=max_age, responder=responder, instruments=instruments
        ) as place,
        place.connect() as connection,
        AsyncExitStack() as stack,
    ):
        it = Chat(connection, face, settings, tools=tools, stack=stack)
        await it.begin(checkpoint)
        face.say("note", f"connected to {place.endpoint.host}; /help shows what there is")
        with trio.open_signal_receiver(signal.SIGINT) as interrupts:
            return await it.run(FileLines(sys.stdin), interrupts)


@final
class Chat:
    """A conversation, and whoever it is held with.

    :param settings: those of the conversation.
    :param tools: what the model may call.
    :param stack: ends the conversation with the block it is of.
    """

    def __init__(
        self,
        connection: ResponsesConnection,
        face: Renderer,
        settings: dict[str, Any],
        *,
        tools: Sequence[ToolLike] = (),
        stack: AsyncExitStack,
    ) -> None:
        self._connection = connection
        self._face = face
        self._settings = settings
        self._tools = tools
        self._outer = stack
        self._inner = AsyncExitStack()
        self._held: Conversation | None = None
        self._turn: trio.CancelScope | None = None
        self._end: ResponsesError | None = None
        self._code = 0

    @property
    def conversation(self) -> Conversation:
        """The conversation as it is now."""
        if self._held is None:
            raise RuntimeError("the chat has not begun")
        return self._held

    async def begin(self, checkpoint: str | None = None) -> None:
        """Open a conversation, or go on with one that was saved in a file.

        :raises OSError: when the file cannot be read.
        :raises ConfigurationError: when there is no conversation in it.
        """
        opening: AbstractAsyncContextManager[Conversation]
        if checkpoint is None:
            opening = self._connection.conversation(**self._settings)
        else:
            saved = await trio.Path(checkpoint).read_bytes()
            opening = Conversation.restore(self._connection, saved)
        stack = AsyncExitStack()
        self._held = await stack.enter_async_context(opening)
        await self._inner.aclose()
        self._inner = stack
        self._outer.push_async_callback(stack.aclose)  # closing twice does nothing
        if checkpoint is not None:
            self._face.say("note", f"{len(self.conversation.items)} items of {checkpoint}")

    async def run(self, lines: Lines, interrupts: AsyncIterator[int]) -> int:
        """Talk until one side leaves.

        :param interrupts: gives something for each Ctrl-C.
        :return: the exit code.
        :raises ResponsesError: when the connection is over.
        """
        async with open_collapsing_nursery() as nursery:
            nursery.start_soon(self._tell_news, nursery.cancel_scope)
            nursery.start_soon(self._obey, interrupts, nursery.cancel_scope)
            await self._talk(lines)
            nursery.cancel_scope.cancel()
        self._face.end_text()
        if self._end is not None:
            raise self._end
        return self._code

    # --- The connection, and Ctrl-C ------------------------------------------------------

    async def _tell_news(self, everything: trio.CancelScope) -> None:
        try:
            async for event in self._connection:
                news = _news(event)
                if news:
                    self._face.say("news", news)
        except ResponsesError as error:
            self._end = error
        everything.cancel()

    async def _obey(self, interrupts: AsyncIterator[int], everything: trio.CancelScope) -> None:
        async for _ in interrupts:
            if self._turn is not None and not self._turn.cancel_called:
                self._turn.cancel()
            else:
                self._code = INTERRUPTED
                everything.cancel()

    # --- Turns ---------------------------------------------------------------------------

    async def _talk(self, lines: Lines) -> None:
        while True:
            self._face.prompt()
            line = await lines.read()
            if line is None:
                return
            text = without_surrogates(line.strip())
            if text.startswith("/"):
                if not await self._command(text):
                    return
            elif text:
                await self._ask(text)

    async def _ask(self, text: str) -> None:
        """Run one turn, with all the calls of tools that it takes."""
        before = self.conversation.statistics()
        with trio.CancelScope() as self._turn:
            try:
                async with self.conversation.run_stream(text, tools=self._tools or None) as it:
                    async for event in it:
                        self._show(event)
                    self._face.end_text()
                    self._sum_up(it, full_before=before.full_turns)
            except ResponsesError as error:
                if self._connection.state is ConnectionState.CLOSED:
                    raise
                self._face.say("error", explain(error))
        if self._turn.cancelled_caught:
            self._face.say("note", "cancelled: the conversation is as it was before")
        self._turn = None

    def _show(self, event: RunEvent) -> None:
        match event:
            case OutputTextDelta(delta=piece):
                self._face.text(piece)
            case ToolStarted(call=call):
                arguments = getattr(call, "arguments", "")
                self._face.say("tool", f"{event.name}({_short(arguments)})")
            case ToolFinished(answer=answer):
                output = msgspec.json.decode(answer).get("output")
                self._face.say("tool", f"{event.name} -> {_short(str(output))}")
            case _:
                pass

    def _sum_up(self, it: RunStream, *, full_before: int) -> None:
        response = it.response
        if response.function_calls:
            names = ", ".join(call.name for call in response.function_calls)
            self._face.say("note", f"the model calls {names}, which nobody here answers")
        for note in note_shortcomings(response):
            self._face.say("note", note)
        usages = [each.usage for each in it.responses if each.usage is not None]
        read = sum(usage.input_tokens for usage in usages)
        cached = sum(usage.input_tokens_details.cached_tokens for usage in usages)
        written = sum(usage.output_tokens for usage in usages)
        in_full = self.conversation.statistics().full_turns - full_before
        sent = f"{len(it.responses)} sent, {in_full} of them with the whole history"
        self._face.say("tokens", f"{read} read ({cached} cached), {written} written; {sent}")

    # --- Commands ------------------------------------------------------------------------

    async def _command(self, line: str) -> bool:
        """Do what a line with a slash says; give whether the chat goes on."""
        name, _, rest = line.partition(" ")
        match name, rest.strip():
            case (("/quit" | "/exit"), ""):
                return False
            case "/reset", "":
                self.conversation.reset()
                self._face.say("note", "a new conversation begins")
            case "/help", "":
                self._face.say("note", COMMANDS)
            case (("/save" | "/load"), ""):
                self._face.say("error", f"{name} needs the name of a file")
            case "/save", path:
                await self._try(self._save, path)
            case "/load", path:
                await self._try(self.begin, path)
            case _:
                self._face.say("error", f"there is no command {line}: /help shows what there is")
        return True

    async def _try(self, what: Callable[[str], Awaitable[None]], path: str) -> None:
        """Do something with a file; what goes wrong with it does not end the chat."""
        try:
            await what(os.path.expanduser(path))  # noqa: ASYNC240, PTH111 - no I/O is in it
        except (OSError, ResponsesError) as error:
            self._face.say("error", explain(error))

    async def _save(self, path: str) -> None:
        saved = self.conversation.checkpoint()
        await trio.to_thread.run_sync(_write_private, path, saved)
        self._face.say("note", f"{len(self.conversation.items)} items are in {path}")


def _write_private(path: str, content: bytes) -> None:
    """Write a file that a new owner alone may read: a conversation may hold anything."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, PRIVATE)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)


def _news(event: Event) -> str | None:
    """Say what happened to the connection; `None` for what nobody needs to know."""
    match event:
        case ConnectionLost():
            return f"{event}; opening a new one"
        case ConnectionRestored(attempts=attempts, outage=outage):
            return f"connected again after {outage:.1f} s, at attempt {attempts}"
        case ConnectionRotated():
            return "the connection was replaced by a fresh one before it grew too old"
        case _:
            return None


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}..."


PIECE: Final = 65536


class Lines(Protocol):
    """Where a chat gets its lines from."""

    async def read(self) -> str | None:
        """Wait for a line; `None` when there will be no more. When cancelled, none is lost."""
        ...


@final
class FileLines:
    """The lines of a text file that is open: a terminal, a pipe, a file, or one in memory."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._unread = b""
        self._ended = False
        try:
            self._descriptor: int | None = file.fileno()
        except (OSError, ValueError):  # it is in memory
            self._descriptor = None
        if sys.platform == "win32":  # where only sockets can be waited for
            self._descriptor = None

    async def read(self) -> str | None:
        """Wait for a line; `None` when there will be no more."""
        if self._descriptor is None:
            line = await trio.to_thread.run_sync(self._file.readline, abandon_on_cancel=True)
            return line.rstrip("\r\n") if line else None
        while b"\n" not in self._unread and not self._ended:
            await self._read_more(self._descriptor)
        await trio.lowlevel.checkpoint()
        if not self._unread:
            return None
        line_bytes, _, self._unread = self._unread.partition(b"\n")
        return line_bytes.decode(self._file.encoding or "utf-8", errors="replace").rstrip("\r")

    async def _read_more(self, descriptor: int) -> None:
        try:
            await trio.lowlevel.wait_readable(descriptor)
        except PermissionError:  # a file on a disk is always ready, and epoll will not say so
            await trio.lowlevel.checkpoint()
        try:
            piece = os.read(descriptor, PIECE)
        except BlockingIOError:
            return
        except OSError:  # the terminal is gone
            piece = b""
        self._unread += piece
        self._ended = not piece
