"""Chat in the terminal: answers are printed as they are written.

Run it: ``python -m examples.chat``. An empty line, Ctrl-D or Ctrl-C ends it.
"""
# ruff: noqa: T201 - printing is its work

import sys
from argparse import Namespace
from contextlib import suppress

import trio

from examples.place import open_place, parser_for
from trio_responses import ConfigurationError, Conversation, ResponsesError, open_responses


async def read_line(prompt: str) -> str:
    """Read a line in a thread, which is left to itself when this is cancelled."""
    print(prompt, end="", flush=True)
    line: str = await trio.to_thread.run_sync(sys.stdin.readline, abandon_on_cancel=True)
    return line.strip()


async def answer(conversation: Conversation, question: str) -> None:
    """Run one turn, and print its text piece by piece."""
    try:
        async with conversation.stream(question) as stream:
            async for text in stream.text_deltas():
                print(text, end="", flush=True)
    except ResponsesError as error:
        # The history is as it was before the question.
        print(f"\n[no answer: {error}]", end="")
    print()


async def main(arguments: Namespace) -> None:
    """Answer line after line, in one conversation."""
    async with (
        open_place(arguments.url) as place,
        open_responses(**place) as connection,
        connection.conversation(
            model=arguments.model, store=False, instructions=arguments.instructions
        ) as conversation,
    ):
        while question := await read_line("you> "):
            await answer(conversation, question)
        counted = conversation.statistics()
        print(f"\n{counted.turns} turns, {counted.bytes_sent} bytes sent")


def parse() -> Namespace:
    """Read the command line."""
    parser = parser_for(__doc__)
    parser.add_argument("--instructions", default="Be brief.", help="how the model is to behave")
    return parser.parse_args()


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        try:
            trio.run(main, parse())
        except (ConfigurationError, ResponsesError) as error:
            sys.exit(f"error: {error}")
