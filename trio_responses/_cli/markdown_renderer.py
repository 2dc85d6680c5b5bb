"""The display of a chat as Markdown in a terminal, with rich (extra ``cli``).

The module is separate from `renderer.py` because rich is optional and slow to import. The last
block of an answer is drawn again as it grows; the blocks before it are printed once.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final, final

from rich.live import Live
from rich.markdown import Markdown
from rich.text import Text

from trio_responses._cli.renderer import PROMPT
from trio_responses._safe_text import escape_controls

if TYPE_CHECKING:
    from rich.console import Console

    from trio_responses._cli.renderer import LineKind

__all__ = ["MarkdownRenderer", "split_blocks"]

DRAW_INTERVAL: Final = 1 / 15
"""Seconds between two drawings of the growing block."""
STYLES: Final[dict[LineKind, tuple[str, str]]] = {
    "commentary": ("", "dim"),
    "tool": ("⚙ ", "cyan"),
    "note": ("", "italic"),
    "notification": ("~ ", "yellow"),
    "error": ("✗ ", "bold red"),
    "tokens": ("", "dim"),
}
FENCES: Final = ("```", "~~~")


def split_blocks(text: str) -> tuple[str, str]:
    """Split Markdown into the blocks that are complete, and the last one, which may still grow.

    The split is after an empty line outside of fenced code and before a line that is not indented:
    an indented line may belong to the list item above the empty line.
    """
    position, split_at, fence = 0, 0, ""
    after_empty = False
    for line in text.splitlines(keepends=True):
        if after_empty and not fence and line[:1].strip():
            split_at = position
        opening = line.lstrip()[:3]
        if not fence and opening in FENCES:
            fence = opening
        elif fence and line.strip().startswith(fence):
            fence = ""
        after_empty = not line.strip()
        position += len(line)
    return text[:split_at], text[split_at:]


def _safe_markdown(text: str) -> Markdown:
    """Return Markdown to draw, with the characters escaped that drive a terminal.

    They are escaped after parsing as well, since an entity such as ``&#x202e;`` stands for one.
    """
    markdown = Markdown(escape_controls(text))
    tokens = list(markdown.parsed)
    while tokens:
        token = tokens.pop()
        token.content = escape_controls(token.content)
        tokens.extend(token.children or ())
    return markdown


@final
class MarkdownRenderer:
    """A display of Markdown in a terminal, drawn by rich.

    :param console: the output. The growing block is drawn only when it is a terminal.
    :param interactive: whether a person types the input and needs a prompt.
    """

    def __init__(self, console: Console, *, interactive: bool) -> None:
        self._console = console
        self._interactive = interactive
        self._growing = ""
        self._live: Live | None = None
        self._drawn_at = 0.0
        self._at_prompt = False

    def show_prompt(self) -> None:
        """Show the prompt for the next line of input."""
        if self._interactive:
            self._console.print(Text(PROMPT, style="bold green"), end="")
            self._at_prompt = True

    def append_text(self, piece: str) -> None:
        """Show the next piece of an answer."""
        self._at_prompt = False
        complete, self._growing = split_blocks(self._growing + piece)
        if self._live is None and self._console.is_terminal:
            self._live = Live(console=self._console, auto_refresh=False, transient=True)
            self._live.start()
        if complete:
            self._draw(force=True)
            self._console.print(_safe_markdown(complete))
        self._draw(force=False)

    def _draw(self, *, force: bool) -> None:
        """Draw the unfinished Markdown block, unless the block was drawn a moment ago."""
        now = time.monotonic()
        if self._live is not None and (force or now - self._drawn_at >= DRAW_INTERVAL):
            self._live.update(_safe_markdown(self._growing), refresh=True)
            self._drawn_at = now

    def end_text(self) -> None:
        """End the answer: print the unfinished Markdown block as it is."""
        if self._live is not None:
            self._live.stop()
            self._live = None
        if self._growing.strip():
            self._console.print(_safe_markdown(self._growing))
        self._growing = ""

    def show_line(self, kind: LineKind, text: str) -> None:
        """Show text that is not part of an answer, in the style of its kind.

        A notification that arrives at the prompt is followed by the prompt again.
        """
        interrupts_prompt = self._at_prompt and kind == "notification"
        # A notification is printed above the growing block; every other kind ends the answer.
        if self._live is None or kind != "notification":
            self.end_text()
        if interrupts_prompt:
            self._console.print()
        mark, style = STYLES[kind]
        self._console.print(Text(mark + escape_controls(text), style=style))
        self._at_prompt = False
        if interrupts_prompt:
            self.show_prompt()
