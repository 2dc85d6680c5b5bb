"""Draw the picture of the documentation, docs/_static/chat.svg, and record docs/_static/chat.cast.

The program runs in a pseudo-terminal, as for a user, and pyte shows what a terminal would. Only the
keys and the answers of the model are scripted here. The recording is one of asciinema. Needs the
extra ``tests``, and a system with pseudo-terminals.
"""

from __future__ import annotations

import fcntl
import io
import json
import os
import pty
import re
import struct
import sys
import tempfile
import termios
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import pyte
import trio
from rich.console import Console
from rich.style import Style
from rich.terminal_theme import MONOKAI
from rich.text import Text

from trio_responses.testing import open_test_server

if TYPE_CHECKING:
    from collections.abc import Callable

    from trio_responses.testing import ResponsesServer

ROOT = Path(__file__).parent.parent
SCREENS = Path(__file__).parent / "_static"
COLUMNS, ROWS = 94, 34
SHOWN = "trio-responses chat --demo-tools --price 1.25,0.125,10"
ANSWER = """\
A **nursery** is where child tasks live:

- they start in it with `start_soon()`,
- and the block ends only when *all of them* have ended.

```python
async with trio.open_nursery() as nursery:
    nursery.start_soon(fetch, "a")
    nursery.start_soon(fetch, "b")
```
"""
LONG_ANSWER = "Multiplying by ten appends a zero, so the result is **420**, which is also 20 * 21."
HEXADECIMAL = re.compile("[0-9a-f]{6}")
KEY_SECONDS, EVENT_SECONDS, LOOK_SECONDS = 0.04, 0.03, 0.02
WAIT_SECONDS = 60.0


class Session:
    """The program in its pseudo-terminal.

    :ivar recording: the output, with the seconds since the start.
    """

    def __init__(self) -> None:
        self._master, self.slave = pty.openpty()
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
        self.screen = pyte.Screen(COLUMNS, ROWS)
        self._stream = pyte.ByteStream(self.screen)
        self._began = trio.current_time()
        self.recording: list[tuple[float, str]] = []

    async def watch(self) -> None:
        """Read what the program writes."""
        while True:
            await trio.lowlevel.wait_readable(self._master)
            data = os.read(self._master, 65536)
            self._stream.feed(data)
            self.recording.append((trio.current_time() - self._began, data.decode()))

    async def wait_for(self, condition: Callable[[list[str]], bool]) -> None:
        """Wait until the rows of the screen fulfil a condition."""
        with trio.fail_after(WAIT_SECONDS):
            while not condition(  # noqa: ASYNC110 - a screen has no event for it
                [row.rstrip() for row in self.screen.display]
            ):
                await trio.sleep(LOOK_SECONDS)

    async def type(self, keys: str) -> None:
        """Press keys as fast as a person does."""
        for key in keys:
            os.write(self._master, key.encode())
            await trio.sleep(KEY_SECONDS)


async def chat(session: Session, server: ResponsesServer) -> str:
    """Hold the conversation; return its picture as SVG, taken before the last answer ends."""

    def is_idle(rows: list[str]) -> bool:
        return any(row.startswith("gpt-5.5") for row in rows)

    async def ask(question: str) -> None:
        before = len(server.requests)
        await session.type(f"{question}\r")
        await session.wait_for(lambda _: len(server.requests) > before)

    await session.wait_for(is_idle)
    await ask("What is a nursery in Trio?")
    await session.wait_for(is_idle)
    await ask("What is 6 * 7?")
    await session.wait_for(is_idle)
    await server.reset_all()
    await session.wait_for(lambda rows: any("1 reconnect" in row for row in rows))
    await ask("And times ten?")
    await session.wait_for(lambda rows: any("result is" in row for row in rows))
    await session.type("And who asks such ques")
    picture = draw(session.screen)
    await session.type("tions?")
    await session.wait_for(is_idle)
    await session.type("\x03\x03\x03")
    return picture


async def record() -> tuple[str, str]:
    """Run the chat; return the picture and the recording."""
    with tempfile.TemporaryDirectory() as folder:
        async with open_test_server() as server, trio.open_nursery() as nursery:
            url = await server.serve_tcp()
            server.reply(ANSWER, delay=EVENT_SECONDS)
            server.call("calculate", {"expression": "6 * 7"}, call_id="call_1")
            server.reply("6 times 7 is **42**.", delay=EVENT_SECONDS)
            server.call("calculate", {"expression": "42 * 10"}, call_id="call_2")
            server.reply(LONG_ANSWER, delay=6 * EVENT_SECONDS)
            session = Session()
            nursery.start_soon(session.watch)
            arguments = [*SHOWN.split()[1:], "--no-history", "--base-url", url]
            environment = {**os.environ, "TERM": "xterm-256color", "XDG_STATE_HOME": folder}
            run = partial(
                trio.run_process,
                stdin=session.slave,
                stdout=session.slave,
                stderr=session.slave,
                cwd=ROOT,
                check=False,
                env=environment,
            )
            process: trio.Process = await nursery.start(
                run, [sys.executable, "-m", "trio_responses", *arguments]
            )
            picture = await chat(session, server)
            with trio.fail_after(WAIT_SECONDS):
                await process.wait()
            await trio.sleep(LOOK_SECONDS)  # what it wrote last is read
            nursery.cancel_scope.cancel()
            server.assert_all_scripts_used()
    header = {"version": 2, "width": COLUMNS, "height": ROWS, "title": SHOWN}
    lines = [header, *([round(seconds, 3), "o", text] for seconds, text in session.recording)]
    return picture, "".join(f"{json.dumps(line, ensure_ascii=False)}\n" for line in lines)


def draw(screen: pyte.Screen) -> str:
    """Return the screen as SVG."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)
    for y in range(screen.cursor.y + 2):
        at_cursor = screen.cursor.x if y == screen.cursor.y else None
        cells = [(screen.buffer[y][x], x == at_cursor) for x in range(COLUMNS)]
        row = Text()
        for style, run in groupby(cells, lambda one: style_of(*one)):
            row.append("".join(cell.data for cell, _ in run), style)
        row.rstrip()
        console.print(row)
    return console.export_svg(title=SHOWN, theme=MONOKAI, unique_id="chat")


def style_of(cell: pyte.screens.Char, at_cursor: bool) -> Style:  # noqa: FBT001 - of a pair
    """Return the style of a cell in rich's words."""

    def colour(name: str) -> str | None:
        if name == "default":
            return None
        if HEXADECIMAL.fullmatch(name):
            return f"#{name}"
        return name.replace("brown", "yellow").replace("bright", "bright_")

    return Style(
        color=colour(cell.fg),
        bgcolor=colour(cell.bg),
        bold=cell.bold,
        italic=cell.italics,
        underline=cell.underscore,
        reverse=cell.reverse or at_cursor,
    )


def main() -> None:
    """Write the picture and the recording."""
    SCREENS.mkdir(exist_ok=True)
    picture, recording = trio.run(record)
    for name, content in {"chat.svg": picture, "chat.cast": recording}.items():
        (SCREENS / name).write_text(content, encoding="utf-8")
        print(f"{SCREENS.name}/{name}")


if __name__ == "__main__":
    main()
