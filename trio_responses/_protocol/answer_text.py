"""The text of the answer of a response while it is written, piece by piece."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from trio_responses._protocol.accumulator import Accumulator, PartialItem

__all__ = ["AnswerText", "NewText"]


class NewText(NamedTuple):
    """The text that was received since the last call."""

    text: str
    restarted: bool
    """Whether the text is the beginning of another message, so that earlier text is none of it."""


class AnswerText:
    """The text of the last message of the answer, as `Accumulator.last_answer` finds it.

    The message is another one when a new message starts, when the turn is sent again, and when
    a steered turn continues with another response.
    """

    def __init__(self) -> None:
        self._message: PartialItem | None = None
        self._part = -1
        """The part of the message that was read last."""
        self._pieces: list[str] = []
        """The pieces of that part."""
        self._count = 0
        """The number of its pieces that were read."""
        self._characters = 0
        """The number of its characters that were read."""

    def read(self, accumulator: Accumulator) -> NewText:
        """Return the text that the accumulator has received since the last call."""
        message = accumulator.last_answer()
        restarted = message is not self._message
        if restarted:
            self._message = message
            self._start_part(-1)
        new: list[str] = []
        for part, pieces in message.text_parts() if message is not None else ():
            if part > self._part:
                self._start_part(part)
            if part == self._part:
                new.append(self._read_part(pieces))
        return NewText("".join(new), restarted)

    def _start_part(self, part: int) -> None:
        self._part, self._pieces, self._count, self._characters = part, [], 0, 0

    def _read_part(self, pieces: list[str]) -> str:
        """Return the new text of a part. Its pieces are replaced when the whole part is sent."""
        if pieces is self._pieces:
            text = "".join(pieces[self._count :])
        else:
            text = "".join(pieces)[self._characters :]
            self._pieces = pieces
        self._count = len(pieces)
        self._characters += len(text)
        return text
