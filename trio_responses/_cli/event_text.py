"""Events of a response as text, for the commands ``ask`` and ``chat``."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Final, TypeVar

from trio_responses._tools.toolbox import ToolFinished, ToolStarted
from trio_responses.types import OutputTextDelta

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from trio_responses.types import Response

__all__ = ["join_text", "response_notes", "tool_line"]

E = TypeVar("E")

MAX_SHOWN: Final = 300
"""Characters of a tool's arguments or output that are shown."""


def join_text(
    events: Iterable[E], phase_of: Callable[[OutputTextDelta], str | None]
) -> Iterator[E | str]:
    """Yield the events of a batch, and adjacent pieces of the answer as one text.

    So a batch is displayed with one write. Pieces of commentary are left out.

    :param phase_of: the method of the stream that the events come from.
    """
    for is_text, group in groupby(events, lambda event: isinstance(event, OutputTextDelta)):
        if not is_text:
            yield from group
            continue
        deltas = (event for event in group if isinstance(event, OutputTextDelta))
        text = "".join(one.delta for one in deltas if phase_of(one) != "commentary")
        if text:
            yield text


def response_notes(response: Response) -> list[str]:
    """Return notes for the user: on a refusal, and on an answer that is incomplete or missing."""
    notes = [f"the model refused: {response.refusal}"] if response.refusal else []
    if response.output_text and not response.answer_messages:
        notes.append("the model wrote commentary, but no answer")
    if response.status == "incomplete":
        details = response.incomplete_details
        reason = details.reason if details is not None else None
        notes.append(f"the answer is incomplete: {reason or 'no reason given'}")
    return notes


def tool_line(event: object) -> str | None:
    """Return a line that shows the start or the end of a tool call; `None` for other events."""
    match event:
        case ToolStarted(call=call):
            return f"{event.name}({_shorten(str(getattr(call, 'arguments', '')))})"
        case ToolFinished(output=output):
            return f"{event.name} -> {_shorten(str(output))}"
        case _:
            return None


def _shorten(text: str) -> str:
    """Return a text as one line of limited length."""
    text = " ".join(text.split())
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}..."
