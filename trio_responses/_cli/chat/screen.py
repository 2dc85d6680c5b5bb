"""The screen of a chat in a terminal: a prompt that stays while answers arrive above it.

What is complete is printed once and scrolls away as ordinary text. Below it is the live region,
which is drawn anew as it changes: the end of the growing answer, waiting messages, the prompt, and
the status. Only the object of this module writes to the terminal, from one thread: so nothing tears
a line. Needs prompt_toolkit and rich (extra ``cli``), and no Trio.

A message that is entered while an answer arrives waits for the end of that answer. After Ctrl-C it
goes back to the prompt.
"""

from __future__ import annotations

import asyncio
import enum
import os
from typing import TYPE_CHECKING, Any, Final, Protocol, final

from prompt_toolkit.application import Application
from prompt_toolkit.buffer import Buffer
from prompt_toolkit.filters import Condition, is_searching
from prompt_toolkit.formatted_text import ANSI
from prompt_toolkit.key_binding import KeyBindings
from prompt_toolkit.keys import Keys
from prompt_toolkit.layout import (
    BufferControl,
    CompletionsMenu,
    ConditionalContainer,
    Dimension,
    FormattedTextControl,
    HSplit,
    Layout,
    VerticalAlign,
    Window,
    to_container,
)
from prompt_toolkit.output.color_depth import ColorDepth
from prompt_toolkit.output.vt100 import Vt100_Output
from prompt_toolkit.styles import Style
from prompt_toolkit.widgets import SearchToolbar

from trio_responses._cli.chat.completer import ChatCompleter
from trio_responses._cli.chat.images import pasted_image
from trio_responses._cli.chat.markdown_renderer import MarkdownRenderer
from trio_responses._cli.chat.renderer import PROMPT
from trio_responses._cli.chat.slash_commands import quote_path
from trio_responses._safe_text import escape_controls

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TextIO

    from prompt_toolkit.data_structures import Size
    from prompt_toolkit.filters import Filter
    from prompt_toolkit.formatted_text import AnyFormattedText
    from prompt_toolkit.history import History
    from prompt_toolkit.input import Input
    from prompt_toolkit.key_binding.key_processor import KeyPressEvent
    from prompt_toolkit.layout import Container
    from prompt_toolkit.layout.screen import Screen

    from trio_responses._cli.chat.renderer import LineKind

__all__ = [
    "ChatScreen",
    "CtrlC",
    "ScreenListener",
    "ScreenOutput",
    "ctrl_c",
    "reflowed_rows",
    "terminal_reflows",
]

REDRAW_INTERVAL: Final = 1 / 30
"""Seconds between two drawings of the live region."""
ASK: Final = "press Ctrl-C again to leave"
ANSWERING: Final = "Ctrl-C stops"
STOPPING: Final = "stopping"
STYLE: Final = Style.from_dict(
    {
        "prompt": "ansigreen bold",
        "waiting": "italic",
        "status": "italic",
        "completion-menu": "bg:default fg:default noreverse",
        "completion-menu.completion.current": "reverse",
        "completion-menu.meta.completion": "bg:default fg:ansibrightblack",
        "completion-menu.meta.completion.current": "bg:default fg:default",
        "scrollbar.background": "bg:default",
        "scrollbar.button": "bg:default",
    }
)
MENU_ROWS: Final = 6
MAX_WAITING: Final = 3
"""Waiting messages that are shown; there may be more."""


class CtrlC(enum.Enum):
    """What Ctrl-C does."""

    STOP = enum.auto()
    """Stop the answer in progress."""
    CLEAR = enum.auto()
    """Clear the line."""
    ASK = enum.auto()
    """Ask for another Ctrl-C."""
    LEAVE = enum.auto()
    """End the chat."""


def ctrl_c(*, answering: bool, has_text: bool, asked: bool) -> CtrlC:
    """Return what Ctrl-C does.

    :param answering: whether an answer is in progress that was not stopped yet.
    :param has_text: whether there is text at the prompt.
    :param asked: whether the key before this one was Ctrl-C on an empty line.
    """
    if answering:
        return CtrlC.STOP
    if has_text:
        return CtrlC.CLEAR
    return CtrlC.LEAVE if asked else CtrlC.ASK


class ScreenListener(Protocol):
    """The interface of what a screen reports. The methods are called in the screen's thread."""

    def on_message(self, text: str) -> None:
        """Called when a message or a command was entered, and no other one is in progress."""
        ...

    def on_stop(self) -> None:
        """Called when the answer in progress is to be stopped."""
        ...

    def on_leave(self, *, interrupted: bool) -> None:
        """Called when the chat is to end: after Ctrl-C, or when the terminal was closed."""
        ...


@final
class ScreenOutput(Vt100_Output):
    """An output that can hold back what is written, so that a change is drawn in one write.

    :param measure: returns the size of the terminal.
    """

    def __init__(
        self, stdout: TextIO, measure: Callable[[], Size], *, term: str | None = None
    ) -> None:
        self.size = measure()
        """The size that the live region was drawn for; `ChatScreen` keeps it up to date."""
        self.measure = measure
        self.held = False
        """Whether `flush` does nothing."""
        super().__init__(
            stdout,
            lambda: self.size,
            term=term,
            default_color_depth=ColorDepth.from_env(),
            enable_cpr=False,  # an answer that comes after the chat would be typed into the shell
        )

    def flush(self) -> None:
        """Write what was held back, unless more of it follows."""
        if not self.held:
            super().flush()

    def erase_down(self) -> None:
        """Erase everything after the cursor, which is in the first column.

        tmux takes an erasure of the whole screen for the end of a page, which it would keep among
        the rows that have scrolled away. So the first column is erased apart.
        """
        self.write_raw("\x1b[K\x1b[C\x1b[J\r")

    def disable_bracketed_paste(self) -> None:
        """Do nothing: text that is pasted while the region is drawn must stay one message."""

    def close(self) -> None:
        """Restore the modes of the terminal that are changed by escape sequences."""
        self.held = False
        super().disable_bracketed_paste()
        super().flush()


def reflowed_rows(drawn: Screen, cursor: tuple[int, int], columns: int) -> int:
    """Return how many rows are above the cursor in a terminal that has become narrower.

    Such a terminal wraps each row of the region that is too long for the new width.

    :param drawn: the region, as it was drawn.
    :param cursor: the column and the row of the cursor in the region.
    """
    column, row = cursor
    rows = column // columns
    for above in range(row):
        cells = drawn.data_buffer[above]
        length = max((x + 1 for x, cell in cells.items() if cell.char.strip()), default=0)
        rows += max(1, -(-length // columns))
    return rows


@final
class ChatScreen:
    """The screen of a chat. The methods are called in the thread that runs `run`.

    :param listener: is told what the person does.
    :param reflows: whether the terminal wraps rows that are too long when it becomes narrower.
    """

    def __init__(
        self,
        source: Input,
        output: ScreenOutput,
        history: History,
        listener: ScreenListener,
        *,
        markdown: MarkdownRenderer | None = None,
        reflows: bool = True,
    ) -> None:
        self._output = output
        self._listener = listener
        self._markdown = markdown or MarkdownRenderer()
        self._reflows = reflows
        self._status = ""
        self._busy = True
        """Whether a message is in progress; the first prompt ends the opening of the chat."""
        self._stopping = False
        self._asked = self._asked_before = False
        """Whether the newest key, and the one before it, was Ctrl-C on an empty line."""
        self._waiting: list[str] = []
        self._growing: list[str] = []
        """The rows of the growing answer that are drawn."""
        self._buffer = Buffer(
            multiline=True,
            history=history,
            completer=ChatCompleter(),
            complete_while_typing=Condition(lambda: self._buffer.text.startswith("/")),
        )
        self._app: Application[None] = Application(
            self._make_layout(),
            style=STYLE,
            key_bindings=self._make_bindings(),
            input=source,
            output=output,
            erase_when_done=True,
            min_redraw_interval=REDRAW_INTERVAL,
            terminal_size_polling_interval=None,
        )
        self._app.before_render += self._before_drawing
        self._app.key_processor.before_key_press += self._note_key

    # --- The thread's side -------------------------------------------------------------------

    async def run(self, started: Callable[[], None]) -> None:
        """Read keys and draw until `close` is called; the terminal is restored then.

        :param started: called when the other methods may be called.
        :raises Exception: that a method or a key has raised.
        """
        asyncio.get_running_loop().set_exception_handler(self._fail)
        try:
            await self._app.run_async(
                pre_run=started, set_exception_handler=False, handle_sigint=False
            )
        except EOFError:
            self._listener.on_leave(interrupted=False)
        finally:
            self._output.close()

    def close(self, error: BaseException | None = None) -> None:
        """Let `run` return, or raise an error. A second call does nothing."""
        if self._app.future is None or self._app.future.done():
            return
        if error is None:
            self._app.exit()
        else:
            self._app.exit(exception=error)

    def _fail(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if error is None:
            loop.default_exception_handler(context)
        else:
            self.close(error)

    # --- What is shown -----------------------------------------------------------------------

    def append_text(self, piece: str) -> None:
        """Show the next piece of an answer."""
        self._print(self._markdown.append(piece, self._columns))

    def end_text(self) -> None:
        """End the answer, complete or not."""
        self._print(self._markdown.end(self._columns))

    def show_line(self, kind: LineKind, text: str) -> None:
        """Show text that is not part of an answer; a notification does not end the answer."""
        if kind != "notification":
            self.end_text()
        self._print(self._markdown.line(kind, text, self._columns))

    def show_status(self, text: str) -> None:
        """Show a text below the prompt, in place of the one before."""
        self._status = " ".join(escape_controls(text).split())
        self.redraw()

    def redraw(self) -> None:
        """Draw the live region soon, for the size that the terminal has now."""
        self._app.invalidate()

    @property
    def _columns(self) -> int:
        return self._output.measure().columns

    def _print(self, text: str) -> None:
        """Print text above the live region for good. Both are written at once, by the next draw."""
        if text:
            self._fit_to_size()
            self._output.held = True
            self._app.renderer.erase()
            self._output.write_raw(text.replace("\n", "\r\n"))
        self.redraw()

    def _before_drawing(self, _: object) -> None:
        self._fit_to_size()
        self._output.held = False
        lines = self._markdown.growing_lines(self._columns)
        most = max(1, self._output.size.rows // 2)
        self._growing = lines[-most:]

    def _fit_to_size(self) -> None:
        """Erase the live region if the terminal has another size than the region was drawn for.

        The rows may be wrapped by then, which prompt_toolkit does not take into account.
        """
        size = self._output.measure()
        if size == self._output.size:
            return
        drawn = self._app.renderer.last_rendered_screen
        if drawn is not None:
            cursor = drawn.get_cursor_position(self._app.layout.current_window)
            narrower = self._reflows and size.columns < self._output.size.columns
            at = (cursor.x, cursor.y)
            rows = reflowed_rows(drawn, at, size.columns) if narrower else cursor.y
            self._output.held = True
            self._output.write_raw("\r")
            self._output.cursor_up(rows)
            self._output.erase_down()
            self._app.renderer.reset()
        self._output.size = size

    # --- The live region ---------------------------------------------------------------------

    def _make_layout(self) -> Layout:
        search = SearchToolbar()
        prompt = Window(
            BufferControl(self._buffer, search_buffer_control=search.control),
            height=lambda: Dimension(min=1, max=max(1, self._output.size.rows // 3)),
            get_line_prefix=_line_prefix,
            wrap_lines=True,
            dont_extend_height=True,
        )
        rows: list[Container] = [
            self._make_rows(lambda: self._growing, ""),
            self._make_rows(self._waiting_rows, "class:waiting"),
            Window(height=1),
            prompt,
            to_container(search),
            CompletionsMenu(max_height=MENU_ROWS),
            self._make_rows(lambda: [self._status_row()], "class:status"),
        ]
        return Layout(HSplit(rows, align=VerticalAlign.TOP), focused_element=prompt)

    @staticmethod
    def _make_rows(lines: Callable[[], list[str]], style: str) -> ConditionalContainer:
        control = FormattedTextControl(lambda: ANSI("\n".join(lines())), style=style)
        window = Window(control, wrap_lines=False, dont_extend_height=True)
        return ConditionalContainer(window, filter=Condition(lambda: bool(lines())))

    def _waiting_rows(self) -> list[str]:
        shown = [f"waiting: {' '.join(escape_controls(text).split())}" for text in self._waiting]
        return shown[:MAX_WAITING]

    def _status_row(self) -> str:
        if self._asked:
            return ASK
        hint = (STOPPING if self._stopping else ANSWERING) if self._busy else ""
        return " · ".join(filter(None, (hint, self._status)))

    # --- Keys --------------------------------------------------------------------------------

    def prompt(self) -> None:
        """Wait for the next message: call `on_message` as soon as one is entered, or waits."""
        stopped, self._stopping, self._busy = self._stopping, False, False
        if stopped and self._waiting:
            self._buffer.text = "\n".join(filter(None, [*self._waiting, self._buffer.text]))
            self._buffer.cursor_position = len(self._buffer.text)
            self._waiting.clear()
        if self._waiting:
            self._send(self._waiting.pop(0))
        self.redraw()

    def _make_bindings(self) -> KeyBindings:
        bindings = KeyBindings()
        buffer = self._buffer

        def on(*keys: str, when: Filter, call: Callable[[], object]) -> None:
            def pressed(_: KeyPressEvent) -> None:
                call()

            bindings.add(*keys, filter=when)(pressed)

        typing = ~is_searching
        on("enter", when=typing, call=self._enter)
        on("c-j", when=typing, call=lambda: buffer.newline(copy_margin=False))
        on("escape", "enter", when=typing, call=lambda: buffer.newline(copy_margin=False))
        on("c-c", when=typing, call=self._press_ctrl_c)
        at_end = typing & Condition(lambda: not buffer.text)
        on("c-d", when=at_end, call=lambda: self._submit("/quit"))
        on("c-z", when=typing, call=self._suspend)
        bindings.add(Keys.BracketedPaste, filter=typing)(self._paste)
        return bindings

    def _suspend(self) -> None:
        self._app.suspend_to_background()

    def _note_key(self, _: object) -> None:
        self._asked_before, self._asked = self._asked, False

    def _press_ctrl_c(self) -> None:
        action = ctrl_c(
            answering=self._busy and not self._stopping,
            has_text=bool(self._buffer.text),
            asked=self._asked_before,
        )
        match action:
            case CtrlC.STOP:
                self._stopping = True
                self._listener.on_stop()
            case CtrlC.CLEAR:
                self._buffer.reset()
            case CtrlC.ASK:
                self._asked = True
            case CtrlC.LEAVE:
                self._listener.on_leave(interrupted=True)

    def _enter(self) -> None:
        text = self._buffer.text
        self._buffer.reset(append_to_history=bool(text.strip()))
        if text.strip():
            self._submit(text)

    def _submit(self, text: str) -> None:
        if self._busy:
            self._waiting.append(text)
        else:
            self._send(text)

    def _send(self, text: str) -> None:
        self._busy = True
        self._print("\n" + self._markdown.question(PROMPT, text.rstrip(), self._columns))
        self._listener.on_message(text)

    def _paste(self, event: KeyPressEvent) -> None:
        """Insert pasted text; the path of an image begins the command that sends it."""
        text = event.data.replace("\r\n", "\n").replace("\r", "\n")
        path = None if self._buffer.text else pasted_image(text)
        self._buffer.insert_text(text if path is None else f"/image {quote_path(path)} ")


def _line_prefix(line: int, wrapped: int) -> AnyFormattedText:
    """Return the prompt before the first row of the input, and spaces before the others."""
    is_first = not (line or wrapped)
    return [("class:prompt", PROMPT if is_first else " " * len(PROMPT))]


def terminal_reflows() -> bool:
    """Return whether the terminal is thought to wrap rows again when it becomes narrower.

    xterm, GNU screen and the Linux console do not; tmux and today's other terminals do.
    """
    term = os.environ.get("TERM", "")
    if "TMUX" in os.environ:
        return True
    return not ("XTERM_VERSION" in os.environ or "STY" in os.environ or term == "linux")
