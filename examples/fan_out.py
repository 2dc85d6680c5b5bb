"""Ask a hundred questions at once, and print the answers as they come.

Each question is a task. The pool spreads them over its connections, and each connection runs them
side by side on lanes; those that find no place wait for one.

Run it: ``python -m examples.fan_out``.
"""
# ruff: noqa: T201 - printing is its work

import random
from argparse import Namespace
from time import perf_counter

import trio

from examples.place import open_place, parser_for
from trio_responses import ResponsesError, ResponsesPool, open_pool
from trio_responses.testing import Reply, Request


async def think(request: Request) -> Reply:
    """Answer for the embedded server, after some time."""
    await trio.sleep(random.uniform(0.05, 0.5))  # noqa: S311 - no secret depends on it
    number = int(request.text.split()[2])
    return Reply(f"{number} times {number} is {number * number}")


async def ask(pool: ResponsesPool, model: str, number: int) -> None:
    """Ask one question; a failure is one answer less, not the end of the others."""
    question = f"How much {number} times {number}? Answer in one line."
    try:
        response = await pool.create(model=model, input=question, store=False)
    except ResponsesError as error:
        print(f"{number:4}  [no answer: {error}]")
    else:
        print(f"{number:4}  {response.output_text}")


async def main(arguments: Namespace) -> None:
    """Ask all questions, and count."""
    async with (
        open_place(arguments.url, think) as place,
        open_pool(**place, size=arguments.connections) as pool,
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
    """Read the command line."""
    parser = parser_for("Ask many questions at once, and print the answers as they come.")
    parser.add_argument("--questions", type=int, default=100, help="how many (%(default)s)")
    parser.add_argument("--connections", type=int, default=4, help="at most (%(default)s)")
    return parser.parse_args()


if __name__ == "__main__":
    trio.run(main, parse())
