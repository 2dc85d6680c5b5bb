"""A chat in the terminal, which prints answers while they arrive.

Run it: ``python -m examples.chat``. An empty line, Ctrl-D or Ctrl-C ends it.
"""
# ruff: noqa: T201 - this program prints its results

import sys
from argparse import Namespace
from contextlib import suppress

import trio

from examples.server import argument_parser, open_server
from trio_responses import ConfigurationError, Conversation, ResponsesError, open_responses


async def read_line(prompt: str) -> str:
    """Read a line in a thread. The thread keeps waiting after a cancellation."""
    print(prompt, end="", flush=True)
    line: str = await trio.to_thread.run_sync(sys.stdin.readline, abandon_on_cancel=True)
    return line.strip()


async def answer(conversation: Conversation, question: str) -> None:
    """Run one turn and print its text piece by piece."""
    try:
        async with conversation.stream(question) as stream:
            async for text in stream.text_deltas():
                print(text, end="", flush=True)
    except ResponsesError as error:
        # The history has not changed.
        print(f"\n[no answer: {error}]", end="")
    print()


async def main(arguments: Namespace) -> None:
    """Answer each line in one conversation."""
    async with (
        open_server(arguments.url) as options,
        open_responses(**options) as connection,
        connection.conversation(
            model=arguments.model, store=False, instructions=arguments.instructions
        ) as conversation,
    ):
        while question := await read_line("you> "):
            await answer(conversation, question)
        counted = conversation.statistics()
        print(f"\n{counted.turns} turns, {counted.bytes_sent} bytes sent")


def parse() -> Namespace:
    """Return the parsed command line."""
    parser = argument_parser(__doc__)
    parser.add_argument("--instructions", default="Be brief.", help="how the model is to behave")
    return parser.parse_args()


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        try:
            trio.run(main, parse())
        except (ConfigurationError, ResponsesError) as error:
            sys.exit(f"error: {error}")
