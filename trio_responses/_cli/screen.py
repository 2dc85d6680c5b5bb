"""Where the demonstration shows what happens: plain lines, and a little colour on a terminal.

What belongs elsewhere: what happens (`demo.py`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

if TYPE_CHECKING:
    from typing import TextIO

__all__ = ["Screen"]

BOLD: Final = "1"
RED: Final = "1;31"
GREEN: Final = "1;32"
YELLOW: Final = "33"
INDENT: Final = "   "


@final
class Screen:
    """Writes to a text stream, and sends every piece on its way at once.

    :param out: where to write.
    :param colour: whether it understands ANSI colours.
    """

    def __init__(self, out: TextIO, *, colour: bool) -> None:
        self._out = out
        self._colour = colour
        self._in_line = False
        try:
            "✓✗".encode(out.encoding or "ascii")
        except UnicodeEncodeError:
            self._good, self._bad = "ok:", "FAILED:"
        else:
            self._good, self._bad = "✓", "✗"

    def say(self, text: str) -> None:
        """Show a line of the story."""
        self._line(f"{INDENT}{text}")

    def stream(self, prefix: str, piece: str) -> None:
        """Show a piece of a line that grows; any other line ends it."""
        self._out.write(piece if self._in_line else f"{INDENT}{prefix}{piece}")
        self._out.flush()
        self._in_line = True

    def notice(self, text: str) -> None:
        """Show what nobody asked for."""
        self._line(self._painted(YELLOW, f"{INDENT}~ {text}"))

    def title(self, text: str) -> None:
        """Begin a step."""
        self._line(f"\n{self._painted(BOLD, text)}")

    def good(self, text: str) -> None:
        """End a step that came out as promised."""
        self._line(f" {self._painted(GREEN, self._good)} {text}")

    def bad(self, text: str) -> None:
        """End a step that did not."""
        self._line(f" {self._painted(RED, self._bad)} {text}")

    def end(self, text: str) -> None:
        """Show the last line."""
        self._line(f"\n{text}")

    def _line(self, text: str) -> None:
        self._out.write(f"\n{text}\n" if self._in_line else f"{text}\n")
        self._out.flush()
        self._in_line = False

    def _painted(self, colour: str, text: str) -> str:
        return f"\x1b[{colour}m{text}\x1b[0m" if self._colour else text
