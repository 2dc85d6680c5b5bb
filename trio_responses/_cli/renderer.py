"""What a chat looks like: plain lines, or Markdown in a terminal that knows how to show it.

The answers go to stdout; in the plain form everything else goes to stderr, so that a script can
read the answers alone.

What belongs elsewhere: what happens, and which form it has (`chat.py`), Markdown that grows
(`markdown.py`).
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final, Literal, Protocol, TypeAlias, final

from rich.live import Live
from rich.markdown import Markdown
from rich.text import Text

if TYPE_CHECKING:
    from typing import TextIO

    from rich.console import Console

__all__ = [
    "PROMPT",
    "Kind",
    "MarkdownRenderer",
    "PlainRenderer",
    "Renderer",
    "printable",
    "split_blocks",
]

Kind: TypeAlias = Literal["tool", "note", "news", "error", "tokens"]
"""What a line is about: a call of a tool; the chat itself; the connection; an error; the cost."""

PROMPT: Final = "you> "
CONTROLS: Final = {
    code: None for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\n\t"
}


def printable(text: str) -> str:
    """Leave out what would move the cursor or change the terminal: text comes from anywhere."""
    return text.translate(CONTROLS)


class Renderer(Protocol):
    """Where a chat shows what happens."""

    def prompt(self) -> None:
        """Ask for a line."""
        ...

    def text(self, piece: str) -> None:
        """Show a piece of the answer."""
        ...

    def end_text(self) -> None:
        """End the answer, or what there is of it."""
        ...

    def say(self, kind: Kind, text: str) -> None:
        """Show a line that is no part of an answer."""
        ...


@final
class PlainRenderer:
    """Plain text: for pipes, for logs, and where nothing better is there.

    :param out: for the answers.
    :param err: for everything else.
    :param asks: whether somebody sits there, to whom a prompt says that it is their turn.
    """

    def __init__(self, out: TextIO, err: TextIO, *, asks: bool) -> None:
        self._out = out
        self._err = err
        self._asks = asks
        self._last = "\n"
        """The end of what stands in the answer's line."""
        self._prompting = False

    def prompt(self) -> None:
        """Ask for a line."""
        if self._asks:
            self._write(PROMPT)
            self._prompting = True

    def text(self, piece: str) -> None:
        """Show a piece of the answer."""
        piece = printable(piece)
        self._prompting = False
        if piece:
            self._write(piece)
            self._last = piece[-1]

    def end_text(self) -> None:
        """End the answer with a newline, where it has not brought its own."""
        if self._last != "\n":
            self._write("\n")
        self._last = "\n"

    def say(self, kind: Kind, text: str) -> None:
        """Show a line that is no part of an answer."""
        interrupts = self._prompting and kind == "news"
        self.end_text()
        if interrupts:
            self._write("\n")
        for line in printable(text).splitlines():
            self._err.write(f"{kind}: {line}\n")
        self._err.flush()
        self._prompting = False
        if interrupts:
            self.prompt()

    def _write(self, text: str) -> None:
        self._out.write(text)
        self._out.flush()


DRAWN_EVERY: Final = 1 / 15
"""Seconds between two drawings of the block that grows."""
STYLES: Final[dict[Kind, tuple[str, str]]] = {
    "tool": ("⚙ ", "cyan"),
    "note": ("", "italic"),
    "news": ("~ ", "yellow"),
    "error": ("✗ ", "bold red"),
    "tokens": ("", "dim"),
}
FENCES: Final = ("```", "~~~")


def split_blocks(text: str) -> tuple[str, str]:
    """Split Markdown into blocks that have ended, and the one that may still grow.

    The place is behind an empty line outside of fenced code, before a line that is not indented,
    which could belong to an item of a list.
    """
    place, split_at, fence = 0, 0, ""
    after_empty = False
    for line in text.splitlines(keepends=True):
        if after_empty and not fence and line[:1].strip():
            split_at = place
        opening = line.lstrip()[:3]
        if not fence and opening in FENCES:
            fence = opening
        elif fence and line.strip().startswith(fence):
            fence = ""
        after_empty = not line.strip()
        place += len(line)
    return text[:split_at], text[split_at:]


@final
class MarkdownRenderer:
    """A terminal, by way of rich.

    :param console: where to draw. What grows is drawn on terminals only.
    :param asks: whether somebody sits there, to whom a prompt says that it is their turn.
    """

    def __init__(self, console: Console, *, asks: bool) -> None:
        self._console = console
        self._asks = asks
        self._text = ""
        self._live: Live | None = None
        self._drawn_at = 0.0
        self._prompting = False

    def prompt(self) -> None:
        """Ask for a line."""
        if self._asks:
            self._console.print(Text(PROMPT, style="bold green"), end="")
            self._prompting = True

    def text(self, piece: str) -> None:
        """Show a piece of the answer."""
        self._prompting = False
        ended, self._text = split_blocks(self._text + printable(piece))
        if self._live is None and self._console.is_terminal:
            self._live = Live(console=self._console, auto_refresh=False, transient=True)
            self._live.start()
        if ended:
            self._draw(force=True)
            self._console.print(Markdown(ended))
        self._draw(force=False)

    def _draw(self, *, force: bool) -> None:
        """Draw the block that grows."""
        now = time.monotonic()
        if self._live is not None and (force or now - self._drawn_at >= DRAWN_EVERY):
            self._live.update(Markdown(self._text), refresh=True)
            self._drawn_at = now

    def end_text(self) -> None:
        """End the answer: what stood in the block that grew stays."""
        if self._live is not None:
            self._live.stop()
            self._live = None
        if self._text.strip():
            self._console.print(Markdown(self._text))
        self._text = ""

    def say(self, kind: Kind, text: str) -> None:
        """Show a line that is no part of an answer."""
        interrupts = self._prompting and kind == "news"
        if self._live is None or kind != "news":  # news can stand above what grows
            self.end_text()
        if interrupts:
            self._console.print()
        mark, style = STYLES[kind]
        self._console.print(Text(mark + printable(text), style=style))
        self._prompting = False
        if interrupts:
            self.prompt()
