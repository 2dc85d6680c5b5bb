"""The terminal of a chat: runs its screen in a thread, and takes lines from it into Trio.

The screen needs asyncio, as prompt_toolkit does. So it runs in one worker thread, in an event loop
of its own, and Trio never waits for the terminal. Messages pass between the two through
`call_soon_threadsafe` and `TrioToken.run_sync_soon`, each in order. Needs the extra ``cli``.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import logging
import math
import os
import signal
import sys
import termios
from functools import partial
from typing import TYPE_CHECKING, Any, Final, final

import trio
from prompt_toolkit.data_structures import Size
from prompt_toolkit.history import DummyHistory
from prompt_toolkit.input.vt100 import Vt100Input

from trio_responses._cli.chat.history import PromptHistory, history_path
from trio_responses._cli.chat.screen import ChatScreen, ScreenOutput, terminal_reflows
from trio_responses._cli.running import INTERRUPTED
from trio_responses._concurrency import open_collapsing_nursery

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator
    from typing import TextIO

    from prompt_toolkit.history import History
    from prompt_toolkit.input import Input

    from trio_responses._cli.chat.renderer import LineKind

__all__ = ["Terminal", "open_running", "open_terminal", "shown_above_prompt"]

CLOSE_SECONDS: Final = 5.0
"""How long the screen may take to restore the terminal; one that takes no output has no end."""


@final
class Terminal:
    """The display of a chat in a terminal, and its source of lines. `open_terminal` opens one.

    It is a `Renderer` and a `LineReader`. The methods that show something may be called in any
    thread; `read_line` and `flush` are Trio's.
    """

    def __init__(self, source: Input, output: ScreenOutput, history: History) -> None:
        self._token = trio.lowlevel.current_trio_token()
        self._lines, self._entered = trio.open_memory_channel[str](math.inf)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._screen = ChatScreen(source, output, history, self, reflows=terminal_reflows())
        self._started = trio.Event()
        self._stop: Callable[[], object] = bool
        self._leave: Callable[[int], object] = bool

    def connect(self, *, stop: Callable[[], object], leave: Callable[[int], object]) -> None:
        """Set what Ctrl-C calls, in Trio's thread.

        :param stop: called when the answer in progress is to be stopped.
        :param leave: called with the exit code when the chat is to end.
        """
        self._stop, self._leave = stop, leave

    async def run(self) -> None:
        """Run the screen until it is closed; raise the error that ended it."""
        await trio.to_thread.run_sync(asyncio.run, self._run_screen(), abandon_on_cancel=True)

    async def _run_screen(self) -> None:
        self._loop = asyncio.get_running_loop()
        await self._screen.run(lambda: self._tell_trio(self._started.set))

    async def wait_started(self) -> None:
        """Wait until the screen reads keys."""
        await self._started.wait()

    # --- What Trio tells the screen ----------------------------------------------------------

    def _tell_screen(self, function: Callable[..., object], *arguments: Any) -> None:
        """Call a function in the screen's thread; do nothing when the screen has ended."""
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the event loop is closed
                self._loop.call_soon_threadsafe(function, *arguments)

    def show_prompt(self) -> None:
        """Let the screen take the next message."""
        self._tell_screen(self._screen.prompt)

    def append_text(self, piece: str) -> None:
        """Show the next piece of an answer."""
        self._tell_screen(self._screen.append_text, piece)

    def end_text(self) -> None:
        """End the answer, complete or not."""
        self._tell_screen(self._screen.end_text)

    def show_line(self, kind: LineKind, text: str) -> None:
        """Show text that is not part of an answer; the tokens are in the status already."""
        if kind != "tokens":
            self._tell_screen(self._screen.show_line, kind, text)

    def show_status(self, text: str) -> None:
        """Show a text below the prompt."""
        self._tell_screen(self._screen.show_status, text)

    def redraw(self) -> None:
        """Draw the live region anew, as after a change of the size."""
        self._tell_screen(self._screen.redraw)

    def close(self) -> None:
        """Let the screen restore the terminal and end."""
        self._tell_screen(self._screen.close)

    async def flush(self) -> None:
        """Wait until the screen has taken what it was given, so that a slow one slows the turn."""
        taken = trio.Event()
        self._tell_screen(self._tell_trio, taken.set)
        await taken.wait()

    # --- What the screen tells Trio ----------------------------------------------------------

    def _tell_trio(self, function: Callable[..., object], *arguments: Any) -> None:
        with contextlib.suppress(trio.RunFinishedError):
            self._token.run_sync_soon(function, *arguments)

    def on_message(self, text: str) -> None:
        """Pass a message to `read_line`."""
        self._tell_trio(self._lines.send_nowait, text)

    def on_stop(self) -> None:
        """Pass the wish to stop the answer on."""
        self._tell_trio(self._stop)

    def on_leave(self, *, interrupted: bool) -> None:
        """Pass the wish to leave on."""
        self._tell_trio(lambda: self._leave(INTERRUPTED if interrupted else 0))

    async def read_line(self) -> str | None:
        """Wait for the next message or command. A cancelled call loses none."""
        return await self._entered.receive()


@contextlib.asynccontextmanager
async def open_terminal(*, keep_history: bool) -> AsyncGenerator[Terminal, None]:
    """Yield the display of a chat in the terminal of this process.

    The terminal is as it was before when the block ends, however it ends. What else is written to
    stdout and stderr meanwhile, such as log records, is shown above the prompt.

    :param keep_history: whether what is entered is kept in a file for the next chat.
    """
    stdout, stdin = sys.stdout, sys.stdin
    modes = termios.tcgetattr(stdin)
    history = PromptHistory(history_path()) if keep_history else DummyHistory()
    output = ScreenOutput(stdout, partial(_measure, stdout), term=os.environ.get("TERM"))
    terminal = Terminal(Vt100Input(stdin), output, history)
    try:
        async with open_running(terminal):
            with shown_above_prompt(terminal):
                yield terminal
    finally:
        termios.tcsetattr(stdin, termios.TCSANOW, modes)


@contextlib.asynccontextmanager
async def open_running(terminal: Terminal) -> AsyncGenerator[None, None]:
    """Run a terminal for the length of the block, and close it at the end."""
    async with open_collapsing_nursery() as nursery:
        closing = trio.CancelScope(shield=True)

        async def run() -> None:
            with closing:
                await terminal.run()

        nursery.start_soon(run)
        nursery.start_soon(_redraw_after_changes_of_size, terminal)
        try:
            await terminal.wait_started()
            yield
        finally:
            terminal.close()
            closing.deadline = trio.current_time() + CLOSE_SECONDS
            nursery.cancel_scope.cancel()


async def _redraw_after_changes_of_size(terminal: Terminal) -> None:
    with trio.open_signal_receiver(signal.SIGWINCH) as changes:
        async for _ in changes:
            terminal.redraw()


def _measure(stdout: TextIO) -> Size:
    """Return the size of the terminal; 80 by 24 where it says that it has none."""
    try:
        columns, rows = os.get_terminal_size(stdout.fileno())
    except OSError:
        columns = rows = 0
    return Size(rows=rows or 24, columns=columns or 80)


@final
class _ShownLines(io.TextIOBase):
    """A text file whose lines are shown above the prompt."""

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal
        self._line = ""

    def write(self, text: str) -> int:
        """Show the lines that the text completes."""
        *lines, self._line = (self._line + text).split("\n")
        for line in lines:
            self._terminal.show_line("log", line)
        return len(text)


@contextlib.contextmanager
def shown_above_prompt(terminal: Terminal) -> Generator[None, None, None]:
    """Show what is printed or logged above the prompt, where it tears no line."""
    file, old = _ShownLines(terminal), sys.stderr
    handlers: list[logging.StreamHandler[Any]] = [
        handler  # pyright: ignore[reportUnknownVariableType]
        for handler in logging.getLogger().handlers
        if isinstance(handler, logging.StreamHandler) and handler.stream is old  # pyright: ignore[reportUnknownMemberType]
    ]
    for handler in handlers:
        handler.setStream(file)
    try:
        with contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
            yield
    finally:
        for handler in handlers:
            handler.setStream(old)
