"""What a chat looks like: plain lines, or Markdown in a terminal that knows how to show it.

The answers go to stdout; in the plain form everything else goes to stderr, so that a script can
read the answers alone.

What belongs elsewhere: what happens, and which form it has (`chat.py`), Markdown that grows
(`markdown.py`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, Protocol, TypeAlias, final

if TYPE_CHECKING:
    from typing import TextIO


__all__ = [
    "PROMPT",
    "Kind",
    "PlainRenderer",
    "Renderer",
    "printable",
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
