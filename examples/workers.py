"""Workers on several processes that hand conversations over through Redis.

A conversation is a checkpoint in Redis, and no worker owns it: whoever takes the next job restores
it, runs one turn, saves it and reports. A job is in one place at a time: in the queue, or in the
list of the worker that has it, where it stays if that worker dies.

Run it: ``pip install trio-responses[examples]``, start Redis, then ``python -m examples.workers``.
"""
# ruff: noqa: T201 - printing is its work

import json
import os
import sys
from argparse import Namespace
from collections import Counter
from contextlib import AsyncExitStack

import trio
from coredis import PureToken, Redis

from examples.place import open_place, parser_for
from trio_responses import Conversation, ResponsesConnection, open_responses

TALKS = {
    "Ada": ["My name is Ada.", "What is my name?", "Spell it.", "Goodbye."],
    "Grace": ["I build compilers.", "What do I build?", "For which machines?", "Goodbye."],
    "Alan": ["I break ciphers.", "What do I break?", "How?", "Goodbye."],
}


async def run_turn(
    connection: ResponsesConnection, model: str, saved: bytes | None, question: str
) -> tuple[str, bytes]:
    """Run the next turn of a conversation, and give its answer and the new checkpoint."""
    async with AsyncExitStack() as stack:
        block = (
            connection.conversation(model=model, store=False)
            if saved is None
            else Conversation.restore(connection, saved)
        )
        conversation = await stack.enter_async_context(block)
        response = await conversation.create(question)
        return response.output_text, conversation.checkpoint()


async def work(arguments: Namespace) -> None:
    """Take job after job, in a process of its own, until it is ended."""
    mine = f"{arguments.prefix}:jobs-of-{os.getpid()}"
    async with (
        Redis.from_url(arguments.redis) as redis,
        open_responses(arguments.url) as connection,
    ):
        queue, answers = f"{arguments.prefix}:jobs", f"{arguments.prefix}:answers"
        while job := await redis.blmove(queue, mine, PureToken.LEFT, PureToken.RIGHT, timeout=0):
            name, question = json.loads(job)
            place = f"{arguments.prefix}:conversation:{name}"
            saved = await redis.get(place)
            answer, checkpoint = await run_turn(connection, arguments.model, saved, question)
            report = json.dumps([name, question, answer, os.getpid()])
            async with redis.pipeline(transaction=True) as together:
                together.set(place, checkpoint)
                together.rpush(answers, [report])
                together.lrem(mine, 1, job)


async def hand_out(arguments: Namespace) -> None:
    """Put in one question of each talk; the next one when the answer is there."""
    turns: Counter[int] = Counter()
    talks = {name: iter(questions) for name, questions in TALKS.items()}
    async with Redis.from_url(arguments.redis) as redis:
        queue, answers = f"{arguments.prefix}:jobs", f"{arguments.prefix}:answers"
        waiting = set(talks)
        for name, questions in talks.items():
            await redis.rpush(queue, [json.dumps([name, next(questions)])])
        while waiting and (popped := await redis.blpop([answers], timeout=0)):
            name, question, answer, worker = json.loads(popped[1])
            turns[worker] += 1
            print(f"{name}, by {worker}: {question} -> {answer}", flush=True)
            following = next(talks[name], None)
            if following is None:
                waiting.discard(name)
            else:
                await redis.rpush(queue, [json.dumps([name, following])])
        places = [f"{arguments.prefix}:conversation:{name}" for name in talks]
        await redis.delete(places)
    print(f"{sum(turns.values())} turns by {len(turns)} workers")


async def main(arguments: Namespace) -> None:
    """Start the workers, hand out the work, and end them."""
    if arguments.work:
        await work(arguments)
        return
    async with open_place(arguments.url) as place, trio.open_nursery() as nursery:
        command = [sys.executable, "-m", "examples.workers", "--work", *sys.argv[1:]]
        command += ["--url", place["endpoint"].url, "--prefix", arguments.prefix]
        for _ in range(arguments.workers):
            nursery.start_soon(trio.run_process, command)
        await hand_out(arguments)
        nursery.cancel_scope.cancel()


def parse() -> Namespace:
    """Read the command line."""
    parser = parser_for("Workers that hand conversations over through Redis.")
    parser.add_argument("--redis", default="redis://127.0.0.1:6379", help="%(default)s")
    parser.add_argument("--prefix", default=f"example-{os.getpid()}", help="of all keys in Redis")
    parser.add_argument("--workers", type=int, default=3, help="how many (%(default)s)")
    parser.add_argument("--work", action="store_true", help="be one of them")
    return parser.parse_args()


if __name__ == "__main__":
    trio.run(main, parse())
