"""``ask``: one question, and its answer as it comes.

What belongs elsewhere: several questions (`chat.py`).
"""

from __future__ import annotations

import sys
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from trio_responses import OutputTextDelta, ResponseFailedError, open_responses
from trio_responses.cli import running
from trio_responses.cli.places import choose_place, open_place
from trio_responses.cli.running import WRONG_USAGE, run, say_error

if TYPE_CHECKING:
    import argparse
    from collections.abc import Awaitable, Callable

    from trio_responses import Endpoint, Response
    from trio_responses.cli.places import Place

__all__ = ["ask", "note_shortcomings", "without_surrogates"]


def ask(arguments: argparse.Namespace) -> int:
    """Ask a question and print the answer."""
    try:
        endpoint = choose_place(arguments, example=' "..."')
    except LookupError:
        return WRONG_USAGE
    # Before the event loop runs: Ctrl-C must reach a program that waits for its input.
    text = sys.stdin.read().rstrip("\n") if arguments.text == "-" else arguments.text
    if not text.strip():
        say_error("there is no question: the text is empty")
        return WRONG_USAGE
    given = {"model": arguments.model, "input": text, "instructions": arguments.instructions}
    params = {name: without_surrogates(value) for name, value in given.items() if value is not None}
    show = _fetch_json if arguments.json else _stream_text
    return run(partial(_ask_endpoint, endpoint, params, show))


def without_surrogates(text: str) -> str:
    """Replace bytes of the shell that are no UTF-8: as lone surrogates JSON cannot carry them."""
    return text.encode(errors="replace").decode()


async def _ask_endpoint(
    endpoint: Endpoint | None,
    params: dict[str, Any],
    show: Callable[[Place, dict[str, Any]], Awaitable[Response]],
) -> int:
    async with open_place(endpoint) as place:
        response = await show(place, params)
    if response.status == "failed":
        raise ResponseFailedError(response)
    for note in note_shortcomings(response):
        print(f"note: {note}", file=sys.stderr)
    return 0


def note_shortcomings(response: Response) -> list[str]:
    """Say what is wrong with an answer that came all the same."""
    notes = [f"the model refused: {response.refusal}"] if response.refusal else []
    if response.status == "incomplete":
        details = response.incomplete_details
        reason = details.reason if details is not None else None
        notes.append(f"the answer is incomplete: {reason or 'no reason given'}")
    return notes


async def _stream_text(place: Place, params: dict[str, Any]) -> Response:
    printed = ""
    try:
        async with (
            open_responses(
                endpoint=place.endpoint, api_key=place.api_key, reconnect=running.PATIENCE
            ) as connection,
            connection.stream(snapshot=False, **params) as stream,
        ):
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


async def _fetch_json(place: Place, params: dict[str, Any]) -> Response:
    async with (
        open_responses(
            endpoint=place.endpoint, api_key=place.api_key, reconnect=running.PATIENCE
        ) as connection,
        connection.stream(snapshot=False, **params) as stream,
    ):
        response = await stream.until_done()
    print(msgspec.json.encode(response).decode(), flush=True)
    return response
