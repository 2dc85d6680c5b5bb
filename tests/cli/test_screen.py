"""The screen of a chat: keys, what they do, and what a terminal shows; without a terminal."""

from __future__ import annotations

import asyncio
import io
import logging
import re
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio

if sys.platform == "win32":
    pytest.skip("lines are edited by the console there", allow_module_level=True)
pytest.importorskip("rich")
pytest.importorskip("prompt_toolkit")
pytest.importorskip("pyte")

import pyte
from prompt_toolkit.data_structures import Size
from prompt_toolkit.document import Document
from prompt_toolkit.history import InMemoryHistory
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.layout.screen import Char, Screen

from tests.cli.test_terminal_text import ESCAPED, EVIL
from trio_responses._cli.chat import history as prompt_history
from trio_responses._cli.chat.completer import ChatCompleter
from trio_responses._cli.chat.history import PromptHistory, history_path
from trio_responses._cli.chat.markdown_renderer import MarkdownRenderer
from trio_responses._cli.chat.screen import (
    ChatScreen,
    CtrlC,
    ScreenOutput,
    ctrl_c,
    reflowed_rows,
    terminal_reflows,
)
from trio_responses._cli.chat.terminal import Terminal, open_running, shown_above_prompt

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from prompt_toolkit.input import PipeInput

    from tests.cli.cli_driver import Patch

HANG_GUARD = 60.0
CTRL_C, CTRL_D, ESCAPE, UP = "\x03", "\x04", "\x1b", "\x1b[A"
PASTE, PASTED = "\x1b[200~", "\x1b[201~"
PASTING_OFF = "\x1b[?2004l"


def fail(text: str) -> None:  # noqa: ARG001 - the signature of on_message
    raise ZeroDivisionError


class EmulatedTerminal(io.StringIO):
    """A text file that shows what is written to it as a terminal does."""

    def __init__(self, columns: int = 60, rows: int = 12) -> None:
        super().__init__()
        self.size = Size(rows=rows, columns=columns)
        self.screen = pyte.Screen(columns, rows)
        self._stream = pyte.Stream(self.screen)
        self.writes: list[str] = []

    def write(self, text: str) -> int:
        self.writes.append(text)
        self._stream.feed(text)
        return super().write(text)

    def resize(self, columns: int) -> None:
        self.size = Size(rows=self.size.rows, columns=columns)
        self.screen.resize(self.size.rows, columns)

    def rows(self) -> list[str]:
        rows = [row.rstrip() for row in self.screen.display]
        while rows and not rows[-1]:
            rows.pop()
        return rows

    def output(self) -> ScreenOutput:
        return ScreenOutput(self, lambda: self.size, term="xterm")


class Driver:
    """A screen with its keyboard; records what it reports."""

    def __init__(self, keyboard: PipeInput, terminal: EmulatedTerminal) -> None:
        self.keyboard = keyboard
        self.terminal = terminal
        self.reports: list[str] = []
        self.screen = ChatScreen(
            keyboard,
            terminal.output(),
            InMemoryHistory(["an old one"]),
            self,
            markdown=MarkdownRenderer(color_system=None),
            reflows=False,
        )

    def on_message(self, text: str) -> None:
        self.reports.append(text)

    def on_stop(self) -> None:
        self.reports.append("(stop)")

    def on_leave(self, *, interrupted: bool) -> None:
        self.reports.append("(interrupted)" if interrupted else "(end)")

    async def wait_until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(HANG_GUARD):
            while not condition():  # noqa: ASYNC110 - a terminal has no event for it
                await asyncio.sleep(0.01)

    async def press(self, keys: str, *expected: str) -> None:
        """Press keys, and wait until the terminal shows exactly these rows."""
        self.keyboard.send_text(keys)
        await self.wait_for(*expected)

    async def wait_for(self, *expected: str) -> None:
        try:
            await self.wait_until(lambda: self.terminal.rows() == list(expected))
        except TimeoutError:
            assert self.terminal.rows() == list(expected)

    async def press_for(self, keys: str, report: str) -> None:
        """Press keys, and wait for the report."""
        self.keyboard.send_text(keys)
        await self.wait_until(lambda: report in self.reports)


@asynccontextmanager
async def running(**size: int) -> AsyncGenerator[Driver, None]:
    with create_pipe_input() as keyboard:
        driver = Driver(keyboard, EmulatedTerminal(**size))
        started = asyncio.Event()
        task = asyncio.create_task(driver.screen.run(started.set))
        await started.wait()
        driver.screen.prompt()
        driver.screen.show_status("connected")
        await driver.wait_for("", "you>", "connected")
        try:
            yield driver
        finally:
            driver.screen.close()
            await task
        assert driver.terminal.getvalue().rstrip().endswith(PASTING_OFF)


# --- Ctrl-C and Ctrl-D -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answering", "has_text", "asked", "action"),
    [
        (True, False, False, CtrlC.STOP),
        (True, True, True, CtrlC.STOP),
        (False, True, False, CtrlC.CLEAR),
        (False, True, True, CtrlC.CLEAR),
        (False, False, False, CtrlC.ASK),
        (False, False, True, CtrlC.LEAVE),
    ],
)
def test_ctrl_c_stops_then_clears_then_asks_then_leaves(
    *, answering: bool, has_text: bool, asked: bool, action: CtrlC
) -> None:
    assert ctrl_c(answering=answering, has_text=has_text, asked=asked) is action


def test_ctrl_c_on_an_empty_line_asks_until_another_key_is_pressed() -> None:
    async def main() -> None:
        async with running() as driver:
            await driver.press(CTRL_C, "", "you>", "press Ctrl-C again to leave")
            await driver.press("x", "", "you> x", "connected")
            await driver.press(CTRL_C, "", "you>", "connected")
            await driver.press(CTRL_C, "", "you>", "press Ctrl-C again to leave")
            assert driver.reports == []
            await driver.press_for(CTRL_C, "(interrupted)")

    asyncio.run(main())


def test_ctrl_c_stops_an_answer_once_and_may_then_leave() -> None:
    async def main() -> None:
        async with running() as driver:
            await driver.press_for("Hi\r", "Hi")
            busy = "Ctrl-C stops · connected"
            await driver.wait_for("", "you> Hi", "", "you>", busy)
            await driver.press_for(CTRL_C, "(stop)")
            await driver.wait_for("", "you> Hi", "", "you>", "stopping · connected")
            await driver.press(CTRL_C, "", "you> Hi", "", "you>", "press Ctrl-C again to leave")
            await driver.press_for(CTRL_C, "(interrupted)")
            assert driver.reports == ["Hi", "(stop)", "(interrupted)"]

    asyncio.run(main())


def test_ctrl_d_leaves_on_an_empty_line_and_a_closed_terminal_does_too() -> None:
    async def main() -> None:
        async with running() as driver:
            await driver.press(f"ab{CTRL_D}\x1b[D{CTRL_D}", "", "you> a", "connected")
            await driver.press_for(f"\x7f{CTRL_D}", "/quit")
            driver.keyboard.close()
            await driver.wait_until(lambda: "(end)" in driver.reports)

    asyncio.run(main())


# --- Lines -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ("Hlo\x1b[D\x1b[Del\r", "Hello"),
        (f"{PASTE}one\rtwo\r\nthree{PASTED}\r", "one\ntwo\nthree"),
        ("one\x0atwo\r", "one\ntwo"),
        ("one\x1b\rtwo\r", "one\ntwo"),
        (f"{UP}er\r", "an old oneer"),
        ("\r  \r x \r", " x "),
        ("\x12old\r\r", "an old one"),
    ],
    ids=["arrows", "paste", "Ctrl-J", "Alt-Enter", "history", "empty", "search"],
)
def test_keys_edit_a_message(keys: str, message: str) -> None:
    async def main() -> None:
        async with running() as driver:
            await driver.press_for(keys, message)
            assert driver.reports == [message]

    asyncio.run(main())


def test_the_path_of_an_image_begins_a_command(tmp_path: Path) -> None:
    path = tmp_path / "a cat.png"
    path.touch()

    async def main() -> None:
        async with running(columns=200) as driver:
            pasted = f"{PASTE}'{path}'{PASTED}"
            await driver.press(pasted, "", f"you> /image '{path}'", "connected")
            await driver.press_for(f"{CTRL_C}see {pasted}\r", f"see '{path}'")

    asyncio.run(main())


def test_messages_wait_for_the_answer_and_are_sent_in_order() -> None:
    async def main() -> None:
        async with running() as driver:
            await driver.press_for("one\r", "one")
            busy = "Ctrl-C stops · connected"
            waiting = ["waiting: two", "waiting: three"]
            shown = ["", "you> one", *waiting, "", "you> fo", busy]
            await driver.press("two\rthree\rfo", *shown)
            driver.screen.prompt()
            await driver.wait_until(lambda: driver.reports == ["one", "two"])
            driver.screen.prompt()
            driver.screen.prompt()
            await driver.press_for("ur\r", "four")
            assert driver.reports == ["one", "two", "three", "four"]

    asyncio.run(main())


def test_messages_that_wait_go_back_to_the_prompt_after_ctrl_c() -> None:
    async def main() -> None:
        async with running() as driver:
            await driver.press_for("one\r", "one")
            await driver.press_for(f"two\rth{CTRL_C}", "(stop)")
            driver.screen.prompt()
            await driver.wait_for("", "you> one", "", "you> two", "     th", "connected")
            await driver.press_for("ree\r", "two\nthree")

    asyncio.run(main())


# --- What is shown -----------------------------------------------------------------------


def test_complete_blocks_are_printed_and_the_last_one_grows_below() -> None:
    async def main() -> None:
        async with running(rows=9) as driver:
            await driver.press("typed", "", "you> typed", "connected")
            driver.screen.append_text("One.\n\nTw")
            await driver.wait_for("One.", "", "Tw", "", "you> typed", "connected")
            driver.screen.append_text("o.")
            await driver.wait_for("One.", "", "Two.", "", "you> typed", "connected")
            driver.screen.show_line("notification", "lost")
            lost = ["One.", "~ lost", "", "Two.", "", "you> typed", "connected"]
            await driver.wait_for(*lost)
            driver.screen.show_line("note", "cancelled")
            await driver.wait_for(
                *("One.", "~ lost", "", "Two.", "cancelled", "", "you> typed", "connected")
            )

    asyncio.run(main())


def test_a_growing_block_never_takes_more_than_half_of_the_window() -> None:
    async def main() -> None:
        async with running(rows=8) as driver:
            driver.screen.append_text("\n".join(f"- {number}" for number in range(30)))
            shown = [f" • {number}" for number in range(26, 30)]
            await driver.wait_for(*shown, "", "you>", "connected")

    asyncio.run(main())


def test_what_is_printed_and_the_region_below_it_are_one_write() -> None:
    async def main() -> None:
        async with running() as driver:
            driver.terminal.writes.clear()
            driver.screen.show_line("note", "hello")
            await driver.wait_for("hello", "", "you>", "connected")
            [all_at_once] = filter(None, driver.terminal.writes)
            assert "hello" in all_at_once
            assert "connected" in all_at_once

    asyncio.run(main())


def test_no_text_of_a_server_or_of_the_user_drives_the_terminal() -> None:
    async def main() -> None:
        async with running(columns=300, rows=60) as driver:
            driver.screen.append_text(f"{EVIL}\n\n{EVIL}")
            driver.screen.show_line("tool", EVIL)
            driver.screen.show_status(EVIL)
            await driver.press_for(f"{PASTE}\x9b5m\x07{PASTED}\r", "\x9b5m\x07")
            await driver.press_for(f"{PASTE}\x9b6m{PASTED}\r{CTRL_C}", "(stop)")
            await driver.wait_until(lambda: "waiting" in driver.terminal.getvalue())
            written = driver.terminal.getvalue()
            assert re.search(r"\x1b\[2J|\x1b\]|\x9b|\x07|\x7f|[\u202e\u2066]", written) is None
            assert any(ESCAPED in row for row in driver.terminal.rows())

    asyncio.run(main())


@pytest.mark.parametrize(("columns", "rows"), [(80, 2), (40, 3), (10, 7), (5, 12)])
def test_rows_that_are_too_long_are_wrapped_by_the_terminal(columns: int, rows: int) -> None:
    drawn = Screen()
    for y, length in enumerate([45, 0]):
        for x in range(length):
            drawn.data_buffer[y][x] = Char("x")
    assert reflowed_rows(drawn, (12, 2), columns) == rows


def test_a_terminal_that_cuts_rows_is_redrawn_in_place() -> None:
    async def main() -> None:
        async with running() as driver:
            driver.screen.append_text("word " * 10)
            await driver.wait_for("word " * 9 + "word", "", "you>", "connected")
            driver.terminal.resize(30)
            driver.screen.redraw()
            row = "word word word word word word"
            await driver.wait_for(row, "word word word word", "", "you>", "connected")

    asyncio.run(main())


@pytest.mark.parametrize(
    ("environment", "reflows"),
    [
        ({"TERM": "xterm-256color"}, True),
        ({"TERM": "xterm", "XTERM_VERSION": "XTerm(390)"}, False),
        ({"TERM": "xterm", "XTERM_VERSION": "XTerm(390)", "TMUX": "/tmp/s,1,0"}, True),  # noqa: S108 - no path
        ({"TERM": "screen", "STY": "1.pts"}, False),
        ({"TERM": "linux"}, False),
    ],
)
def test_terminals_that_wrap_rows_again_are_known(
    *, environment: dict[str, str], reflows: bool, monkeypatch: Patch
) -> None:
    for name in ("TERM", "TMUX", "STY", "XTERM_VERSION"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert terminal_reflows() is reflows


# --- Its thread --------------------------------------------------------------------------


def test_an_error_in_a_key_ends_the_screen_and_restores_the_terminal() -> None:
    async def main() -> None:
        with create_pipe_input() as keyboard:
            driver = Driver(keyboard, EmulatedTerminal())
            driver.on_message = fail  # type: ignore[method-assign]
            started = asyncio.Event()
            task = asyncio.create_task(driver.screen.run(started.set))
            await started.wait()
            driver.screen.prompt()
            keyboard.send_text("Hi\r")
            with pytest.raises(ZeroDivisionError):
                await asyncio.wait_for(task, HANG_GUARD)
            assert driver.terminal.getvalue().rstrip().endswith(PASTING_OFF)

    asyncio.run(main())


@asynccontextmanager
async def open_emulated() -> AsyncGenerator[tuple[Terminal, PipeInput, EmulatedTerminal], None]:
    with create_pipe_input() as keyboard:
        emulated = EmulatedTerminal()
        terminal = Terminal(keyboard, emulated.output(), InMemoryHistory())
        async with open_running(terminal):
            yield terminal, keyboard, emulated
        assert emulated.getvalue().rstrip().endswith(PASTING_OFF)


async def test_lines_and_interrupts_come_to_trio() -> None:
    stopped = trio.Event()
    leave, left = trio.open_memory_channel[int](1)
    async with open_emulated() as (terminal, keyboard, emulated):
        terminal.connect(stop=stopped.set, leave=leave.send_nowait)
        terminal.show_prompt()
        keyboard.send_text("Hello\r")
        assert await terminal.read_line() == "Hello"
        keyboard.send_text(CTRL_C)
        await stopped.wait()
        terminal.append_text("An answer.")
        terminal.end_text()
        terminal.show_line("tokens", "not shown")
        terminal.show_prompt()
        await terminal.flush()
        keyboard.send_text(CTRL_C + CTRL_C)
        assert await left.receive() == 130
    assert "An answer." in emulated.getvalue()
    assert "not shown" not in emulated.getvalue()


async def test_a_block_that_is_cancelled_restores_the_terminal() -> None:
    with trio.CancelScope() as scope:
        async with open_emulated() as (terminal, _, _):
            terminal.show_prompt()
            scope.cancel()
            await terminal.read_line()
    assert scope.cancelled_caught


async def test_an_error_of_the_screen_leaves_the_block() -> None:
    with pytest.raises(ZeroDivisionError):  # noqa: PT012 - the end of the block raises it
        async with open_emulated() as (terminal, keyboard, _):
            terminal.on_message = fail  # type: ignore[method-assign]
            terminal.show_prompt()
            keyboard.send_text("Hello\r")
            await trio.sleep_forever()


async def test_what_is_printed_or_logged_is_shown_above_the_prompt(monkeypatch: Patch) -> None:
    err = io.StringIO()
    monkeypatch.setattr(sys, "stderr", err)
    log = logging.getLogger()
    handler = logging.StreamHandler(err)
    log.addHandler(handler)
    try:
        async with open_emulated() as (terminal, _, emulated):
            with shown_above_prompt(terminal):
                print("from a tool,", end=" ")  # noqa: T201 - what a tool does
                print("in two pieces")  # noqa: T201 - likewise
                log.warning("from a log")
            await terminal.flush()
        assert handler.stream is err
    finally:
        log.removeHandler(handler)
    assert "from a tool, in two pieces" in emulated.getvalue()
    assert "from a log" in emulated.getvalue()
    assert err.getvalue() == ""


# --- History -----------------------------------------------------------------------------


def test_history_is_kept_in_a_file_of_its_owner(monkeypatch: Patch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    path = history_path()
    assert path == tmp_path / "state" / "trio-responses" / "chat_history"
    history = PromptHistory(path)
    assert list(history.load_history_strings()) == []
    for entry in ("one\ntwo", "x" * 20_001, "three"):
        history.store_string(entry)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert list(PromptHistory(path).load_history_strings()) == ["three", "one\ntwo"]
    monkeypatch.setenv("XDG_STATE_HOME", "relative")
    assert history_path() == Path.home() / ".local/state/trio-responses/chat_history"


def test_a_file_that_others_could_read_is_closed_to_them(tmp_path: Path) -> None:
    path = tmp_path / "history"
    path.touch(mode=0o644)
    PromptHistory(path).store_string("one")
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_history_that_cannot_be_used_is_empty(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    history = PromptHistory(tmp_path / "file" / "history")
    history.store_string("one")
    assert list(history.load_history_strings()) == []
    broken = tmp_path / "broken"
    broken.write_bytes(b'"one"\n[1]\n{\n\xff\n"two"\n')
    assert list(PromptHistory(broken).load_history_strings()) == ["two", "one"]


def test_a_long_history_is_shortened(monkeypatch: Patch, tmp_path: Path) -> None:
    monkeypatch.setattr(prompt_history, "MAX_BYTES", 100)
    monkeypatch.setattr(prompt_history, "MAX_ENTRIES", 10)
    history = PromptHistory(tmp_path / "history")
    for number in range(30):
        history.store_string(str(number))
    assert next(iter(history.load_history_strings())) == "29"
    assert (tmp_path / "history").read_text() == '"25"\n"26"\n"27"\n"28"\n"29"\n'


# --- Completion --------------------------------------------------------------------------


def complete(text: str) -> list[str]:
    """Return the whole lines that the completions of a line make of it."""
    document = Document(text)
    completions = ChatCompleter().get_completions(document, None)  # type: ignore[arg-type]
    return [text[: len(text) + one.start_position] + one.text for one in completions]


def test_commands_are_completed() -> None:
    assert complete("/lo") == ["/load "]
    assert complete("/re") == ["/reset"]
    assert len(complete("/")) > 5
    for text in ("", "lo", "/x", "/reset ", "/model g", "see\n/lo"):
        assert complete(text) == []


def test_files_are_completed(tmp_path: Path, monkeypatch: Patch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a folder").mkdir()
    (tmp_path / "a folder" / "one's.png").touch()
    (tmp_path / ".hidden").touch()
    (tmp_path / "evil\x1b[2J").touch()
    assert complete("/load ") == ["/load a folder/"]
    assert complete("/load a folder/o") == ["/load a folder/one's.png"]
    assert complete("/image a") == [r"/image a\ folder/"]
    assert complete(r"/image a\ folder/") == [r"/image a\ folder/one\'s.png"]
    assert complete("/load .h") == ["/load .hidden"]
    assert complete(f"/save {tmp_path}/a") == [f"/save {tmp_path}/a folder/"]
    assert complete("/save nowhere/") == []
