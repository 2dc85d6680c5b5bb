"""``ask``: one question, and its answer as it comes.

What belongs elsewhere: several questions (`chat.py`, `record.py`).
"""

from __future__ import annotations

import sys
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from trio_responses import ResponseFailedError
from trio_responses._cli.recording import record_into
from trio_responses._cli.running import WRONG_USAGE, run, say_error
from trio_responses._cli.server_choice import choose_place, open_place
from trio_responses.types import OutputTextDelta

if TYPE_CHECKING:
    import argparse
    from collections.abc import Awaitable, Callable, Sequence

    from trio_responses import Endpoint, Instrument, ResponseStream
    from trio_responses.types import Response


__all__ = ["ask", "note_shortcomings", "record", "without_surrogates"]


def ask(arguments: argparse.Namespace) -> int:
    """Ask a question and print the answer."""
    try:
        endpoint = choose_place(arguments, example=' "..."')
        question = read_question(arguments.text)
    except LookupError:
        return WRONG_USAGE
    params = {**choose_settings(arguments), "input": question}
    show = _print_json if arguments.json else print_text
    with record_into(arguments.record, force=arguments.force) as instruments:
        return run(partial(_ask_endpoint, endpoint, params, show, instruments))


def read_question(text: str) -> str:
    """Give a question as it was typed, or for "-" what stands in the input.

    The event loop must not run yet: Ctrl-C has to reach a program that waits for its input.

    :raises LookupError: when there is none, which was said on stderr.
    """
    question = sys.stdin.read().rstrip("\n") if text == "-" else text
    if not question.strip():
        say_error("there is no question: the text is empty")
        raise LookupError(text)
    return without_surrogates(question)


def choose_settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """Give the settings of a turn that were asked for."""
    given = {"model": arguments.model, "instructions": arguments.instructions}
    return {name: without_surrogates(value) for name, value in given.items() if value is not None}


def without_surrogates(text: str) -> str:
    """Replace bytes of the shell that are no UTF-8: as lone surrogates JSON cannot carry them."""
    return text.encode(errors="replace").decode()


async def _ask_endpoint(
    endpoint: Endpoint | None,
    params: dict[str, Any],
    show: Callable[[ResponseStream], Awaitable[Response]],
    instruments: Sequence[Instrument] | None,
) -> int:
    async with (
        open_place(endpoint, instruments=instruments) as place,
        place.connect() as connection,
    ):
        response = await show(connection.stream(snapshot=False, **params))
    check_answer(response)
    return 0


def check_answer(response: Response) -> None:
    """Say on stderr what is wrong with an answer that came all the same.

    :raises ResponseFailedError: when it is none.
    """
    if response.status == "failed":
        raise ResponseFailedError(response)
    for note in note_shortcomings(response):
        print(f"note: {note}", file=sys.stderr)


def note_shortcomings(response: Response) -> list[str]:
    """Say what is wrong with an answer that came all the same."""
    notes = [f"the model refused: {response.refusal}"] if response.refusal else []
    if response.status == "incomplete":
        details = response.incomplete_details
        reason = details.reason if details is not None else None
        notes.append(f"the answer is incomplete: {reason or 'no reason given'}")
    return notes


async def print_text(answer: ResponseStream) -> Response:
    """Print the text of an answer as it comes."""
    printed = ""
    try:
        async with answer as stream:
            async for event in stream:
                if isinstance(event, OutputTextDelta):
                    print(event.delta, end="", flush=True)
                    printed = event.delta or printed
        if not printed and stream.response.output_text:  # a server that sends no deltas
            printed = stream.response.output_text
            print(printed, end="", flush=True)
        return stream.response
    finally:
        if printed and not printed.endswith("\n"):
            print(flush=True)


async def _print_json(answer: ResponseStream) -> Response:
    async with answer as stream:
        response = await stream.until_done()
    print(msgspec.json.encode(response).decode(), flush=True)
    return response


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
