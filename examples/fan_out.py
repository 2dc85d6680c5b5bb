"""A hundred questions at once, on several connections.

Each question is a task. The pool distributes the turns over its connections, and each connection
runs its turns on lanes at the same time. A turn without a free lane waits.

Run it: ``python -m examples.fan_out``.
"""
# ruff: noqa: T201 - this program prints its results

import random
from argparse import Namespace
from time import perf_counter

import trio

from examples.server import argument_parser, open_server
from trio_responses import ResponsesError, ResponsesPool, open_pool
from trio_responses.testing import Reply, Request


async def think(request: Request) -> Reply:
    """Return the answer of the embedded server after a delay."""
    await trio.sleep(random.uniform(0.05, 0.5))  # noqa: S311 - no secret depends on it
    number = int(request.text.split()[2])
    return Reply(f"{number} times {number} is {number * number}")


async def ask(pool: ResponsesPool, model: str, number: int) -> None:
    """Ask one question and print the answer or the error."""
    question = f"How much {number} times {number}? Answer in one line."
    try:
        response = await pool.create(question, model=model, store=False)
    except ResponsesError as error:
        print(f"{number:4}  [no answer: {error}]")
    else:
        print(f"{number:4}  {response.output_text}")


async def main(arguments: Namespace) -> None:
    """Ask all questions and print the statistics."""
    async with (
        open_server(arguments.url, think) as options,
        open_pool(**options, size=arguments.connections) as pool,
    ):
        began = perf_counter()
        async with trio.open_nursery() as nursery:
            for number in range(1, arguments.questions + 1):
                nursery.start_soon(ask, pool, arguments.model, number)
        counted = pool.statistics()
        print(
            f"{counted.requests_sent} questions in {perf_counter() - began:.1f} s"
            f" over {len(counted.connections)} connections"
        )


def parse() -> Namespace:
    """Return the parsed command line."""
    parser = argument_parser("Ask many questions at once, and print the answers as they come.")
    parser.add_argument("--questions", type=int, default=100, help="how many (%(default)s)")
    parser.add_argument("--connections", type=int, default=4, help="at most (%(default)s)")
    return parser.parse_args()


if __name__ == "__main__":
    trio.run(main, parse())
