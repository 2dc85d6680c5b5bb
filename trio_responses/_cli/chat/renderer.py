"""The display of a chat: the interface of renderers, and a renderer of plain text.

Answers go to stdout and everything else to stderr, so that a script can read the answers alone.
Text may come from a model, a tool or a server: on a terminal, and in every line that is no answer,
the characters that drive a terminal are escaped.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, Protocol, TypeAlias, final

import trio

from trio_responses._cli.running import for_terminal
from trio_responses._safe_text import escape_controls

if TYPE_CHECKING:
    from typing import TextIO

__all__ = ["PROMPT", "LineKind", "PlainRenderer", "Renderer"]


LineKind: TypeAlias = Literal[
    "commentary", "tool", "note", "notification", "error", "tokens", "log"
]
"""The subject of a line: the model's commentary, a tool call, the chat itself, the connection, an
error, the usage, or what a tool has printed and a log record."""

PROMPT: Final = "you> "


class Renderer(Protocol):
    """The interface of a display for a chat."""

    def show_prompt(self) -> None:
        """Show the prompt for the next line of input."""
        ...

    def append_text(self, piece: str) -> None:
        """Show the next piece of an answer."""
        ...

    def end_text(self) -> None:
        """End the answer, complete or not."""
        ...

    def show_line(self, kind: LineKind, text: str) -> None:
        """Show text that is not part of an answer, on lines of its own."""
        ...

    def show_status(self, text: str) -> None:
        """Show the model, the connection and the tokens, where they are always in sight."""
        ...

    async def flush(self) -> None:
        """Wait until the display has taken what it was given, so that a slow one slows the turn."""
        ...


@final
class PlainRenderer:
    """A display of plain text, for pipes, logs, and terminals without the extra ``cli``.

    :param out: receives the answers.
    :param err: receives everything else.
    :param interactive: whether a person types the input and needs a prompt.
    """

    def __init__(self, out: TextIO, err: TextIO, *, interactive: bool) -> None:
        self._out = out
        self._err = err
        self._interactive = interactive
        self._last_character = "\n"
        """The last character of the answer so far."""
        self._at_prompt = False

    def show_prompt(self) -> None:
        """Show the prompt for the next line of input."""
        if self._interactive:
            self._write(PROMPT)
            self._at_prompt = True

    def append_text(self, piece: str) -> None:
        """Show the next piece of an answer."""
        piece = for_terminal(piece, self._out)
        self._at_prompt = False
        if piece:
            self._write(piece)
            self._last_character = piece[-1]

    def end_text(self) -> None:
        """End the answer with a newline, unless the answer ends with its own."""
        if self._last_character != "\n":
            self._write("\n")
        self._last_character = "\n"

    def show_line(self, kind: LineKind, text: str) -> None:
        """Show text that is not part of an answer, with the kind before each line.

        A notification that arrives at the prompt is followed by the prompt again.
        """
        interrupts_prompt = self._at_prompt and kind == "notification"
        self.end_text()
        if interrupts_prompt:
            self._write("\n")
        for line in escape_controls(text).splitlines():
            self._err.write(f"{kind}: {line}\n")
        self._err.flush()
        self._at_prompt = False
        if interrupts_prompt:
            self.show_prompt()

    def show_status(self, text: str) -> None:
        """Do nothing: plain text scrolls away."""

    async def flush(self) -> None:
        """Do nothing but a checkpoint: text is written when it is shown."""
        await trio.lowlevel.checkpoint()

    def _write(self, text: str) -> None:
        self._out.write(text)
        self._out.flush()
