"""``record``: questions, one after the other, and a file with all that was said for them.

What belongs elsewhere: the file (`recordings.py`), the same for a person who talks (`chat.py`).
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from trio_responses._cli.ask import (
    check_answer,
    choose_settings,
    print_text,
    read_question,
)
from trio_responses._cli.recordings import record_into
from trio_responses._cli.running import WRONG_USAGE, run
from trio_responses._cli.server_choice import choose_place, open_place

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from trio_responses import Endpoint, Instrument

__all__ = ["record"]


def record(arguments: argparse.Namespace) -> int:
    """Ask questions as one conversation, print the answers, and record both."""
    try:
        endpoint = choose_place(arguments, example=' FILE "..."')
        questions = [read_question(text) for text in arguments.texts]
    except LookupError:
        return WRONG_USAGE
    settings = choose_settings(arguments)
    with record_into(arguments.file, force=arguments.force) as instruments:
        return run(partial(_record_turns, endpoint, questions, settings, instruments))


async def _record_turns(
    endpoint: Endpoint | None,
    questions: Sequence[str],
    settings: dict[str, Any],
    instruments: Sequence[Instrument] | None,
) -> int:
    async with (
        open_place(endpoint, instruments=instruments) as place,
        place.connect() as connection,
        connection.conversation(**settings) as conversation,
    ):
        for question in questions:
            check_answer(await print_text(conversation.stream(question, snapshot=False)))
    return 0
