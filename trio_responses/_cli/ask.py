"""The commands ``ask`` and ``record``, which send questions and stream the answers to stdout.

``ask`` sends one question. ``record`` sends several as the turns of one conversation and records
the messages of the connection. Notes and errors go to stderr.
"""

from __future__ import annotations

import sys
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from trio_responses._cli.recording import record_into
from trio_responses._cli.renderer import join_text
from trio_responses._cli.running import WRONG_USAGE, for_terminal, print_error, print_note, run
from trio_responses._cli.server_choice import endpoint_from_arguments, open_server
from trio_responses._errors import failed_response_error
from trio_responses._safe_text import escape_json_controls
from trio_responses.types import Message, OutputItemDone

if TYPE_CHECKING:
    import argparse
    from collections.abc import Awaitable, Callable, Sequence
    from contextlib import AbstractAsyncContextManager

    from trio_responses import ResponseStream
    from trio_responses._cli.server_choice import ServerChoice
    from trio_responses.types import Response

__all__ = ["ask", "record", "replace_surrogates", "response_notes"]


def ask(arguments: argparse.Namespace) -> int:
    """Send one question and print the answer."""
    try:
        endpoint = endpoint_from_arguments(arguments, example=' "..."')
        question = _read_question(arguments.text)
    except LookupError:
        return WRONG_USAGE
    params = {**_turn_settings(arguments), "input": question}
    print_answer = _print_json if arguments.json else _print_text
    with record_into(arguments.record, force=arguments.force) as instruments:
        server = open_server(endpoint, transport=arguments.transport, instruments=instruments)
        return run(partial(_ask, server, params, print_answer))


def record(arguments: argparse.Namespace) -> int:
    """Send questions as one conversation, print the answers, and record every message."""
    try:
        endpoint = endpoint_from_arguments(arguments, example=' FILE "..."')
        questions = [_read_question(text) for text in arguments.texts]
    except LookupError:
        return WRONG_USAGE
    settings = _turn_settings(arguments)
    with record_into(arguments.file, force=arguments.force) as instruments:
        server = open_server(endpoint, transport=arguments.transport, instruments=instruments)
        return run(partial(_record, server, questions, settings))


def _read_question(text: str) -> str:
    """Return the question: the argument itself, or stdin when the argument is "-".

    Called before the event loop runs, so that Ctrl-C interrupts a read from stdin.

    :raises LookupError: when the question is empty; the error message is on stderr by then.
    """
    question = sys.stdin.read().rstrip("\n") if text == "-" else text
    if not question.strip():
        print_error('the question is empty: pass its text, or "-" to read the text from stdin')
        raise LookupError(text)
    return replace_surrogates(question)


def _turn_settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the request parameters that were passed as command-line options."""
    given = {"model": arguments.model, "instructions": arguments.instructions}
    return {name: replace_surrogates(value) for name, value in given.items() if value is not None}


def replace_surrogates(text: str) -> str:
    """Return a text with each lone surrogate replaced by "?".

    Python decodes bytes of an argument that are not UTF-8 to them, and JSON cannot encode them.
    """
    return text.encode(errors="replace").decode()


async def _ask(
    opening: AbstractAsyncContextManager[ServerChoice],
    params: dict[str, Any],
    print_answer: Callable[[ResponseStream], Awaitable[Response]],
) -> int:
    async with (
        opening as server,
        server.connect() as connection,
    ):
        response = await print_answer(connection.stream(snapshot=False, **params))
    _check_response(response)
    return 0


async def _record(
    opening: AbstractAsyncContextManager[ServerChoice],
    questions: Sequence[str],
    settings: dict[str, Any],
) -> int:
    async with (
        opening as server,
        server.connect() as connection,
        connection.conversation(**settings) as conversation,
    ):
        for question in questions:
            _check_response(await _print_text(conversation.stream(question, snapshot=False)))
    return 0


def _check_response(response: Response) -> None:
    """Write notes on a response to stderr; raise an error for a failed response.

    :raises ResponseFailedError: when the status of the response is ``failed``.
    """
    if response.status == "failed":
        raise failed_response_error(response)
    for note in response_notes(response):
        print_note(note)


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


async def _print_text(stream: ResponseStream) -> Response:
    """Print the answer of a response as it arrives, and return the response.

    Commentary is no part of the answer: it goes to stderr.
    """
    printed = ""
    try:
        async with stream as events:
            async for batch in events.batches():
                for part in join_text(batch, events.phase_of):
                    match part:
                        case str():
                            _print_piece(part)
                            printed = part
                        case OutputItemDone(item=Message(phase="commentary") as message):
                            print_note(message.output_text, kind="commentary")
                        case _:
                            pass
        if not printed and events.response.final_text:  # the server sent no deltas
            printed = events.response.final_text
            _print_piece(printed)
        return events.response
    finally:
        if printed and not printed.endswith("\n"):
            print(flush=True)


def _print_piece(text: str) -> None:
    print(for_terminal(text, sys.stdout), end="", flush=True)


async def _print_json(stream: ResponseStream) -> Response:
    """Wait for a response, print it as one line of JSON, and return it."""
    async with stream as events:
        async for _ in events.batches():
            pass
    response = events.response
    print(escape_json_controls(msgspec.json.encode(response).decode()), flush=True)
    return response
