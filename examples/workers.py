"""Worker processes that share conversations through Redis.

A conversation is a checkpoint in Redis, and no worker owns it. A worker takes a job, restores the
conversation, runs one turn, saves the conversation and reports. Each job is in one list at a time:
in the queue, or in the list of the worker that runs it, where it stays if that worker dies.

Run it: ``pip install trio-responses[examples]``, start Redis, then ``python -m examples.workers``.
"""
# ruff: noqa: T201 - this program prints its results

import json
import os
import sys
from argparse import Namespace
from collections import Counter
from contextlib import AsyncExitStack

import trio
from coredis import PureToken, Redis

from examples.server import argument_parser, open_server
from trio_responses import ResponsesConnection, open_responses

CONVERSATIONS = {
    "Ada": ["My name is Ada.", "What is my name?", "Spell it.", "Goodbye."],
    "Grace": ["I build compilers.", "What do I build?", "For which machines?", "Goodbye."],
    "Alan": ["I break ciphers.", "What do I break?", "How?", "Goodbye."],
}


async def run_turn(
    connection: ResponsesConnection, model: str, saved: bytes | None, question: str
) -> tuple[str, bytes]:
    """Run the next turn of a conversation and return the answer and the new checkpoint."""
    async with AsyncExitStack() as stack:
        block = (
            connection.conversation(model=model, store=False)
            if saved is None
            else connection.restore_conversation(saved)
        )
        conversation = await stack.enter_async_context(block)
        response = await conversation.create(question)
        return response.output_text, conversation.checkpoint()


async def work(arguments: Namespace) -> None:
    """Run jobs until the process ends."""
    mine = f"{arguments.prefix}:jobs-of-{os.getpid()}"
    async with (
        Redis.from_url(arguments.redis) as redis,
        open_responses(arguments.url) as connection,
    ):
        queue, answers = f"{arguments.prefix}:jobs", f"{arguments.prefix}:answers"
        while job := await redis.blmove(queue, mine, PureToken.LEFT, PureToken.RIGHT, timeout=0):
            name, question = json.loads(job)
            key = f"{arguments.prefix}:conversation:{name}"
            saved = await redis.get(key)
            answer, checkpoint = await run_turn(connection, arguments.model, saved, question)
            report = json.dumps([name, question, answer, os.getpid()])
            async with redis.pipeline(transaction=True) as transaction:
                transaction.set(key, checkpoint)
                transaction.rpush(answers, [report])
                transaction.lrem(mine, 1, job)


async def queue_questions(arguments: Namespace) -> None:
    """Queue the questions of each conversation, each after the answer to the one before."""
    turns: Counter[int] = Counter()
    conversations = {name: iter(questions) for name, questions in CONVERSATIONS.items()}
    async with Redis.from_url(arguments.redis) as redis:
        queue, answers = f"{arguments.prefix}:jobs", f"{arguments.prefix}:answers"
        waiting = set(conversations)
        for name, questions in conversations.items():
            await redis.rpush(queue, [json.dumps([name, next(questions)])])
        while waiting and (popped := await redis.blpop([answers], timeout=0)):
            name, question, answer, worker = json.loads(popped[1])
            turns[worker] += 1
            print(f"{name}, by {worker}: {question} -> {answer}", flush=True)
            following = next(conversations[name], None)
            if following is None:
                waiting.discard(name)
            else:
                await redis.rpush(queue, [json.dumps([name, following])])
        keys = [f"{arguments.prefix}:conversation:{name}" for name in conversations]
        await redis.delete(keys)
    print(f"{sum(turns.values())} turns by {len(turns)} workers")


async def main(arguments: Namespace) -> None:
    """Start the workers, queue the questions, and stop the workers."""
    if arguments.work:
        await work(arguments)
        return
    async with open_server(arguments.url) as options, trio.open_nursery() as nursery:
        command = [sys.executable, "-m", "examples.workers", "--work", *sys.argv[1:]]
        command += ["--url", options["endpoint"].url, "--prefix", arguments.prefix]
        for _ in range(arguments.workers):
            nursery.start_soon(trio.run_process, command)
        await queue_questions(arguments)
        nursery.cancel_scope.cancel()


def parse() -> Namespace:
    """Return the parsed command line."""
    parser = argument_parser("Workers that hand conversations over through Redis.")
    parser.add_argument(
        "--redis", default="redis://127.0.0.1:6379", help="URL of Redis (%(default)s)"
    )
    parser.add_argument(
        "--prefix", default=f"example-{os.getpid()}", help="prefix of all keys in Redis"
    )
    parser.add_argument("--workers", type=int, default=3, help="how many (%(default)s)")
    parser.add_argument("--work", action="store_true", help="run as a worker")
    return parser.parse_args()


if __name__ == "__main__":
    trio.run(main, parse())
