"""The commands ``ask`` and ``record``, which send questions and stream the answers to stdout.

``ask`` sends one question, with files and tools if there are any. ``record`` sends several as the
turns of one conversation and records the messages of the connection. Notes, tool calls and errors
go to stderr.
"""

from __future__ import annotations

import os
import stat
import sys
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

import msgspec

from trio_responses._cli.answer_schema import check_json, read_schema
from trio_responses._cli.attachments import attach_files
from trio_responses._cli.event_text import join_text, response_notes, tool_line
from trio_responses._cli.parameters import request_options
from trio_responses._cli.recording import record_into
from trio_responses._cli.running import (
    FAILED,
    UsageError,
    for_terminal,
    print_error,
    print_note,
    replace_surrogates,
    run,
)
from trio_responses._cli.server_choice import endpoint_from_arguments, open_server
from trio_responses._errors import failed_response_error
from trio_responses._safe_text import escape_json_controls
from trio_responses.types import Message, OutputItemDone

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence
    from contextlib import AbstractAsyncContextManager

    from trio_responses import ResponseStream
    from trio_responses._cli.parameters import RequestOptions
    from trio_responses._cli.server_choice import ServerChoice
    from trio_responses._conversation.run import RunEvent, RunStream
    from trio_responses.types import Input, Response

__all__ = ["ask", "record"]

STDIN: Final = "-"
NO_QUESTION: Final = (
    'the question is empty: pass its text, or "-" to read the text from stdin, or --file'
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """How ``ask`` prints an answer.

    :ivar streaming: whether the text is printed as it arrives.
    :ivar whole: whether the complete response is printed as JSON, in place of the text.
    :ivar is_json: whether the text has to be JSON; other text is not printed at the end.
    """

    streaming: bool = True
    whole: bool = False
    is_json: bool = False


def ask(arguments: argparse.Namespace) -> int:
    """Send one question and print the answer."""
    endpoint = endpoint_from_arguments(arguments, example=' "..."')
    options = request_options(arguments, conversation=False)
    _check_combination(options)
    has_schema = arguments.schema is not None
    if has_schema:
        text = {**options.params.get("text", {}), "format": read_schema(arguments.schema)}
        options.params["text"] = text
    question = _read_question(arguments.words, has_files=bool(arguments.file))
    given = attach_files(question, arguments.file)
    streaming = arguments.stream if arguments.stream is not None else not has_schema
    output = Output(
        streaming=streaming and not arguments.json, whole=arguments.json, is_json=has_schema
    )
    with record_into(arguments.record, force=arguments.force) as instruments:
        server = open_server(
            endpoint,
            transport=arguments.transport,
            instruments=instruments,
            allow_insecure=arguments.allow_insecure,
        )
        return run(partial(_ask, server, given, options, output))


def record(arguments: argparse.Namespace) -> int:
    """Send questions as one conversation, print the answers, and record every message."""
    endpoint = endpoint_from_arguments(arguments, example=' FILE "..."')
    options = request_options(arguments, conversation=True)
    questions = [_read_question([text]) for text in arguments.texts]
    with record_into(arguments.file, force=arguments.force) as instruments:
        server = open_server(
            endpoint,
            transport=arguments.transport,
            instruments=instruments,
            allow_insecure=arguments.allow_insecure,
        )
        return run(partial(_record, server, questions, options))


def _check_combination(options: RequestOptions) -> None:
    """Raise an error for parameters with which tools cannot run.

    :raises UsageError: when there are such parameters.
    """
    for name in ("previous_response_id", "conversation"):
        if options.tools and options.params.get(name) is not None:
            raise UsageError(
                f"tools cannot be used with {name}: the calls and their outputs are a conversation"
                " of their own"
            )


def _read_question(words: Sequence[str], *, has_files: bool = False) -> str:
    """Return the question: the words, followed by a blank line and the text of stdin.

    Stdin is read for the word "-", and without it when it is a pipe or a file. Called before the
    event loop runs, so that Ctrl-C interrupts a read from stdin.

    :param has_files: whether files have the question, so that it may be empty.
    :raises UsageError: when the question is empty.
    """
    paragraphs = [" ".join(word for word in words if word != STDIN)]
    if STDIN in words or _has_piped_text():
        paragraphs.append(sys.stdin.read().rstrip("\n"))
    question = "\n\n".join(text for text in paragraphs if text.strip())
    if not question and not has_files:
        raise UsageError(NO_QUESTION)
    return replace_surrogates(question)


def _has_piped_text() -> bool:
    """Whether stdin is a pipe or a file: not a terminal, not the null device, and open."""
    try:
        mode = os.fstat(sys.stdin.fileno()).st_mode
    except (AttributeError, OSError, ValueError):  # closed, or no file
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISREG(mode) or stat.S_ISSOCK(mode)


async def _ask(
    opening: AbstractAsyncContextManager[ServerChoice],
    given: Input,
    options: RequestOptions,
    output: Output,
) -> int:
    async with opening as server, server.connect() as connection, AsyncExitStack() as stack:
        if options.tools:
            conversation = await stack.enter_async_context(
                connection.conversation(**options.params)
            )
            stream = conversation.run_stream(given, tools=options.tools, snapshot=False)
            response = await _print_answer(stream, output)
        else:
            turn = connection.stream(given, snapshot=False, **options.params)
            response = await _print_answer(turn, output)
    problem = _json_problem(response) if output.is_json else None
    if problem is not None and response.status != "failed":
        print_error(problem)
        return FAILED
    _check_response(response)
    return 0


async def _record(
    opening: AbstractAsyncContextManager[ServerChoice],
    questions: Sequence[str],
    options: RequestOptions,
) -> int:
    async with (
        opening as server,
        server.connect() as connection,
        connection.conversation(**options.params) as conversation,
    ):
        for question in questions:
            if options.tools:
                stream = conversation.run_stream(question, tools=options.tools, snapshot=False)
                response = await _print_answer(stream, Output())
            else:
                turn = conversation.stream(question, snapshot=False)
                response = await _print_answer(turn, Output())
            _check_response(response)
    return 0


def _check_response(response: Response) -> None:
    """Write notes on a response to stderr; raise an error for a failed response.

    :raises ResponseFailedError: when the status of the response is ``failed``.
    """
    if response.status == "failed":
        raise failed_response_error(response)
    for call in response.function_calls:
        print_note(f"the model called {call.qualified_name}, but no such tool is offered")
    for note in response_notes(response):
        print_note(note)


def _json_problem(response: Response) -> str | None:
    """Return why the answer of a response is not the JSON that was asked for, or `None`."""
    notes = response_notes(response)
    if notes:
        return notes[0]
    reason = check_json(response.final_text)
    return None if reason is None else f"the answer is not valid JSON: {reason}"


async def _print_answer(
    stream: ResponseStream | AbstractAsyncContextManager[RunStream], output: Output
) -> Response:
    """Print the answer of a response, and return the response.

    Commentary is no part of the answer: it goes to stderr, as tool calls do.
    """
    printed = ""
    try:
        async with stream as events:
            async for batch in events.batches():
                for part in join_text(batch, events.phase_of):
                    if not isinstance(part, str):
                        line = tool_line(part)
                        if line is not None and _in_line(printed):
                            print(flush=True)
                            printed = "\n"
                        _print_event(part, line, whole=output.whole)
                    elif output.streaming:
                        _print_piece(part)
                        printed = part
        response = events.response
        if output.whole:
            encoded = msgspec.json.encode(response).decode()
            print(escape_json_controls(encoded), flush=True)
        elif not printed and not (output.is_json and _json_problem(response)):
            printed = response.final_text  # also where the server sent no deltas
            _print_piece(printed)
        return response
    finally:
        if _in_line(printed):
            print(flush=True)


def _in_line(printed: str) -> bool:
    """Whether the text that was printed last has no end of line."""
    return bool(printed) and not printed.endswith("\n")


def _print_event(event: RunEvent, line: str | None, *, whole: bool) -> None:
    """Print the line of a tool call, or commentary, to stderr."""
    if line is not None:
        print_note(line, kind="tool")
        return
    match event:
        case OutputItemDone(item=Message(phase="commentary") as message) if not whole:
            print_note(message.output_text, kind="commentary")
        case _:
            pass


def _print_piece(text: str) -> None:
    print(for_terminal(text, sys.stdout), end="", flush=True)
