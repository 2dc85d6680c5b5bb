"""What a chat looks like in a terminal: Markdown, by way of rich."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final, final

from rich.live import Live
from rich.markdown import Markdown
from rich.text import Text

from trio_responses._cli.renderer import PROMPT, printable

if TYPE_CHECKING:
    from rich.console import Console

    from trio_responses._cli.renderer import Kind

__all__ = ["MarkdownRenderer", "split_blocks"]

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
