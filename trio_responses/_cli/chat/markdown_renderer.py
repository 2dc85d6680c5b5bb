"""Markdown as text with codes for colours, while it arrives in pieces; by rich (extra ``cli``).

The blocks that are complete are returned once, to be printed for good. The last block may still
grow, and is drawn anew each time: its lines are returned apart.
"""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING, Final, Literal, final

from rich.console import Console
from rich.markdown import Markdown
from rich.text import Text

from trio_responses._safe_text import escape_controls

if TYPE_CHECKING:
    from rich.console import RenderableType

    from trio_responses._cli.chat.renderer import LineKind

__all__ = ["MarkdownRenderer", "split_blocks"]

STYLES: Final[dict[LineKind, tuple[str, str]]] = {
    "commentary": ("", "dim"),
    "tool": ("⚙ ", "cyan"),
    "note": ("", "italic"),
    "notification": ("~ ", "yellow"),
    "error": ("✗ ", "bold red"),
    "tokens": ("", "dim"),
    "log": ("", "dim"),
}
FENCES: Final = ("```", "~~~")
TRAILING_BLANKS: Final = re.compile(r"(?:\x1b\[[\d;]*m| )+$")
"""rich pads lines with spaces, which a terminal that becomes narrower would wrap."""
CODE_THEME: Final = "ansi_dark"
"""The colours of the terminal itself, on its own background: rich fills no line."""


def split_blocks(text: str) -> list[str]:
    """Split Markdown into blocks: all but the last one are complete, the last one may still grow.

    A block ends after an empty line outside of fenced code, and before a line that is not indented:
    an indented line may belong to the list item above the empty line.
    """
    blocks, fence, after_empty = [""], "", False
    for line in text.splitlines(keepends=True):
        if after_empty and not fence and line[:1].strip():
            blocks.append("")
        opening = line.lstrip()[:3]
        if not fence and opening in FENCES:
            fence = opening
        elif fence and line.strip().startswith(fence):
            fence = ""
        after_empty = not line.strip()
        blocks[-1] += line
    return blocks


def _safe_markdown(text: str) -> Markdown:
    """Return Markdown to draw, with the characters escaped that drive a terminal.

    They are escaped after parsing as well, since an entity such as ``&#x202e;`` stands for one.
    """
    markdown = Markdown(escape_controls(text), code_theme=CODE_THEME, hyperlinks=False)
    tokens = list(markdown.parsed)
    while tokens:
        token = tokens.pop()
        token.content = escape_controls(token.content)
        tokens.extend(token.children or ())
    return markdown


@final
class MarkdownRenderer:
    """A renderer of the answers and the other lines of a chat, as text for a terminal.

    :param color_system: the colours to use, as rich names them; `None` for no codes at all.
    """

    def __init__(self, color_system: Literal["auto", "standard"] | None = "auto") -> None:
        self._console = Console(
            file=io.StringIO(),
            force_terminal=color_system is not None,
            color_system=color_system,
            legacy_windows=False,
        )
        self._growing = ""
        self._is_first = True
        """Whether no block of this answer was returned yet."""

    def append(self, piece: str, width: int) -> str:
        """Add a piece of the answer; return the blocks that this piece completes."""
        *complete, growing = split_blocks(self._growing + piece)
        text = "".join(self._print_block(block, width) for block in complete)
        self._growing = growing
        return text

    def end(self, width: int) -> str:
        """End the answer, complete or not; return the last block as it is."""
        text = self._print_block(self._growing, width)
        self._growing, self._is_first = "", True
        return text

    def growing_lines(self, width: int) -> list[str]:
        """Return the lines of the last block, which may still grow."""
        if not self._growing.strip():
            return []
        lines = self._render(_safe_markdown(self._growing), width)
        return lines if self._is_first else ["", *lines]

    def line(self, kind: LineKind, text: str, width: int) -> str:
        """Return text that is not part of an answer, in the style of its kind."""
        mark, style = STYLES[kind]
        return _joined(self._render(Text(mark + escape_controls(text), style=style), width))

    def question(self, prompt: str, text: str, width: int) -> str:
        """Return a line that the user entered, after the prompt."""
        first = Text(prompt, style="bold green")
        indented = escape_controls(text).replace("\n", "\n" + " " * len(prompt))
        return _joined(self._render(first.append(indented, style="default not bold"), width))

    def _print_block(self, markdown: str, width: int) -> str:
        self._growing = markdown
        lines = self.growing_lines(width)
        self._is_first = self._is_first and not lines
        return _joined(lines)

    def _render(self, renderable: RenderableType, width: int) -> list[str]:
        self._console.width = width
        with self._console.capture() as capture:
            self._console.print(renderable)
        lines = [_without_padding(line) for line in capture.get().split("\n")]
        while lines and not lines[-1]:
            lines.pop()
        while lines and not lines[0]:
            lines.pop(0)
        return lines


def _joined(lines: list[str]) -> str:
    return "".join(f"{line}\n" for line in lines)


def _without_padding(line: str) -> str:
    padding = TRAILING_BLANKS.search(line)
    if padding is None:
        return line
    text = line[: padding.start()]
    return f"{text}\x1b[0m" if "\x1b" in text else text
