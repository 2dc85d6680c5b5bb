"""A driver of tmux: keys for a program in a pane, and the text that the pane shows."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Final

import trio

ROOT: Final = Path(__file__).resolve().parents[2]
HANG_GUARD: Final = 60.0
"""Seconds to wait for a text. An idle machine takes one or two for the start of the program."""
LOOK_EVERY: Final = 0.05


class Tmux:
    """A tmux server with one pane.

    :param folder: where its socket is, and the files that the program keeps.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._socket = str(folder / "socket")
        self._is_running = False

    async def run(self, *arguments: str, stdin: bytes | None = None) -> str:
        """Run a command of tmux and return its output."""
        command = ["tmux", "-S", self._socket, "-f", os.devnull, *arguments]
        done = await trio.run_process(command, capture_stdout=True, stdin=stdin or b"")
        return done.stdout.decode()

    async def kill(self) -> None:
        """End the server, and the program with it."""
        command = ["tmux", "-S", self._socket, "kill-server"]
        await trio.run_process(command, check=False, stderr=subprocess.DEVNULL)

    async def start(
        self,
        *arguments: str,
        columns: int = 80,
        rows: int = 24,
        before: str = "$ chat",
    ) -> None:
        """Run the command line of this project in the pane; its exit code is shown at its end.

        A program that runs already is ended.

        :param before: a row that is in the pane already.
        """
        command = shlex.join([sys.executable, "-m", "trio_responses", *arguments])
        for name, value in {"XDG_STATE_HOME": self.folder, "PYTHONPATH": ROOT}.items():
            command = f"{name}={shlex.quote(str(value))} {command}"
        size = ("-x", str(columns), "-y", str(rows))
        begun = f"cd {shlex.quote(str(self.folder))}"
        if before:
            begun += f"; echo {shlex.quote(before)}"
        shell = f"{begun}; {command}; echo exit $?; exec cat"
        if self._is_running:
            await self.run("respawn-pane", "-k", shell)
            await self.run("clear-history")
            return
        await self.run("new-session", "-d", *size, shell)
        await self.run("set-option", "-g", "window-size", "manual")
        self._is_running = True

    async def press(self, *keys: str) -> None:
        """Press keys, as tmux names them: ``Enter``, ``C-c``, ``M-Enter``."""
        await self.run("send-keys", *keys)

    async def type(self, text: str) -> None:
        """Type text."""
        await self.run("send-keys", "-l", text)

    async def paste(self, text: str) -> None:
        """Paste text as a terminal does: marked as pasted, if the program has asked for that."""
        await self.run("load-buffer", "-", stdin=text.encode())
        await self.run("paste-buffer", "-p")

    async def resize(self, columns: int, rows: int) -> None:
        """Change the size of the window."""
        await self.run("resize-window", "-x", str(columns), "-y", str(rows))

    async def screen(self, *, colours: bool = False) -> list[str]:
        """Return the rows of the pane with those that have scrolled away, without empty ones."""
        options = ["-e"] if colours else []
        shown = await self.run("capture-pane", "-p", "-S", "-", *options)
        return [row.rstrip() for row in shown.rstrip("\n").split("\n")]

    async def wait_for(self, *expected: str) -> list[str]:
        """Wait until the pane shows exactly these rows; ``...`` in a row stands for any text."""
        patterns = [re.escape(row).replace(r"\.\.\.", ".*") for row in expected]
        pattern = re.compile("\n".join(patterns))
        rows: list[str] = []
        with trio.move_on_after(HANG_GUARD):
            while True:
                rows = _without_empty_end(await self.screen())
                if pattern.fullmatch("\n".join(rows)):
                    return rows
                await trio.sleep(LOOK_EVERY)
        raise AssertionError("\n".join(["expected:", *expected, "shown:", *rows]))

    async def wait_for_text(self, text: str) -> list[str]:
        """Wait until a text is somewhere in the pane."""
        rows: list[str] = []
        with trio.move_on_after(HANG_GUARD):
            while True:
                rows = await self.screen()
                if any(text in row for row in rows):
                    return rows
                await trio.sleep(LOOK_EVERY)
        raise AssertionError("\n".join([f"expected: {text}", "shown:", *rows]))


def _without_empty_end(rows: list[str]) -> list[str]:
    while rows and not rows[-1]:
        rows.pop()
    return rows
