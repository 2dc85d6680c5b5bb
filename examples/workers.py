"""Worker processes that share conversations and a queue through Redis, and survive failures.

Jobs are entries of a Redis stream, which a group of workers reads. A worker opens the conversation
of a job, runs one turn with the id of the job, and acknowledges the job after the turn is saved:

- A job whose worker was killed is not acknowledged. Another worker claims it after ``--lease``
  seconds. If its turn was saved already, the saved answer is reported, and nothing is sent again.
- A job may be queued twice, or be claimed while it still runs: it is answered once, by its id.
- The lease lets one worker at a time run jobs of a conversation. Jobs of one conversation that are
  queued together may run in any order, so each is queued after the answer to the one before.
- Workers and the parent connect again after a restart of Redis; the parent replaces dead workers.

Run it: ``pip install ".[examples]"`` in a checkout, start ``redis-server --appendonly yes``, then
``python -m examples.workers``.
"""
# ruff: noqa: T201 - this program prints its results

import os
import sys
from argparse import Namespace
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress

import trio
from coredis import Redis
from coredis.exceptions import RedisError, StreamDuplicateConsumerGroupError

from examples.server import argument_parser, open_server, supervise
from trio_responses import ResponsesConnection, ResponsesError, open_responses
from trio_responses.stores import ConversationBusy, LeaseLost, RedisStore, StoreUnavailable

GROUP = "workers"
BLOCK = 1000  # milliseconds for which Redis waits for new entries
CONVERSATIONS = {
    "Ada": ["My name is Ada.", "What is my name?", "Spell it.", "Goodbye."],
    "Grace": ["I build compilers.", "What do I build?", "For which machines?", "Goodbye."],
    "Alan": ["I break ciphers.", "What do I break?", "How?", "Goodbye."],
}


async def keep_connected(url: str, use: Callable[[Redis[str]], Awaitable[None]]) -> None:
    """Call a function with a client of Redis, again after each loss of Redis, until it returns."""
    is_done = False
    while not is_done:
        try:
            async with Redis.from_url(url, decode_responses=True, stream_timeout=10) as redis:
                await use(redis)
                is_done = True
        except* (RedisError, OSError) as lost:  # coredis raises groups
            print(f"Redis: {lost.exceptions[0]}", file=sys.stderr)
            await trio.sleep(0.5)


class Worker:
    """Runs the jobs of the queue, one at a time."""

    def __init__(
        self, arguments: Namespace, backend: RedisStore, connection: ResponsesConnection
    ) -> None:
        self.arguments = arguments
        self.backend = backend
        self.connection = connection

    async def work(self, redis: Redis[str]) -> None:
        """Run jobs until Redis is lost."""
        jobs, answers = f"{self.arguments.prefix}:jobs", f"{self.arguments.prefix}:answers"
        me, idle = str(os.getpid()), int(1000 * self.arguments.lease)
        with suppress(StreamDuplicateConsumerGroupError):
            await redis.xgroup_create(jobs, GROUP, "0", mkstream=True)
        while True:
            _, entries, _ = await redis.xautoclaim(jobs, GROUP, me, idle, "0-0", count=1)
            if not entries:
                read = await redis.xreadgroup(GROUP, me, {jobs: ">"}, count=1, block=BLOCK)
                entries = read[jobs] if read else ()
            for entry in entries:
                job = dict(entry.field_values)
                try:
                    answer = await self.run_turn(**job)
                except (ConversationBusy, LeaseLost, StoreUnavailable) as error:
                    print(f"{job['job_id']} is left for later: {error}", file=sys.stderr)
                    continue
                except ResponsesError as error:  # another attempt would not help
                    answer = f"[{error}]"
                report = {"job_id": job["job_id"], "answer": answer, "worker": me}
                async with redis.pipeline(transaction=True) as transaction:
                    transaction.xadd(answers, report)
                    transaction.xack(jobs, GROUP, [entry.identifier])
                    transaction.xdel(jobs, [entry.identifier])

    async def run_turn(self, job_id: str, name: str, question: str) -> str:
        """Run the turn of a job, or return the answer of the turn that an earlier worker saved."""
        async with self.connection.durable_conversation(
            self.backend,
            name,
            wait=self.arguments.lease,
            lease_seconds=self.arguments.lease,
            model=self.arguments.model,
            store=False,
        ) as conversation:
            response = await conversation.run(question, request_id=job_id)
        return response.output_text


class Questions:
    """Queues the questions of each conversation, each after the answer to the one before."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.waiting = {f"{name}-0": (name, 0) for name in CONVERSATIONS}
        self.last_answer = "0-0"
        self.turns: Counter[str] = Counter()

    async def ask(self, redis: Redis[str]) -> None:
        """Queue the questions and print the answers, until all are answered."""
        answers = f"{self.prefix}:answers"
        for job_id in self.waiting:  # also after a loss of Redis: each is answered once
            await self.queue(redis, job_id)
        while self.waiting:
            read = await redis.xread({answers: self.last_answer}, block=BLOCK)
            for entry in read[answers] if read else ():
                await self.receive(redis, **entry.field_values)
                self.last_answer = entry.identifier

    async def delete_all(self, redis: Redis[str]) -> None:
        """Delete the conversations and the streams."""
        await redis.delete([key async for key in redis.scan_iter(match=f"{self.prefix}:*")])

    async def queue(self, redis: Redis[str], job_id: str) -> None:
        """Queue a question."""
        name, number = self.waiting[job_id]
        job = {"job_id": job_id, "name": name, "question": CONVERSATIONS[name][number]}
        await redis.xadd(f"{self.prefix}:jobs", job)

    async def receive(self, redis: Redis[str], job_id: str, answer: str, worker: str) -> None:
        """Print an answer, unless it was printed before, and queue the next question."""
        if job_id not in self.waiting:
            return
        name, number = self.waiting.pop(job_id)
        self.turns[worker] += 1
        print(f"{name}, by {worker}: {CONVERSATIONS[name][number]} -> {answer}", flush=True)
        if number + 1 < len(CONVERSATIONS[name]):
            self.waiting[f"{name}-{number + 1}"] = (name, number + 1)
            await self.queue(redis, f"{name}-{number + 1}")


async def main(arguments: Namespace) -> None:
    """Run a worker; or start the workers, queue the questions, and stop the workers."""
    async with RedisStore(arguments.redis, prefix=arguments.prefix) as backend:
        if arguments.work:
            async with open_responses(arguments.url) as connection:
                worker = Worker(arguments, backend, connection)
                await keep_connected(arguments.redis, worker.work)
            return
        questions = Questions(arguments.prefix)
        async with open_server(arguments.url) as options, trio.open_nursery() as nursery:
            command = [sys.executable, "-m", "examples.workers", "--work", *sys.argv[1:]]
            command += ["--url", options["endpoint"].url, "--prefix", arguments.prefix]
            for _ in range(arguments.workers):
                nursery.start_soon(supervise, command)
            await keep_connected(arguments.redis, questions.ask)
            nursery.cancel_scope.cancel()
        await keep_connected(arguments.redis, questions.delete_all)
        print(f"{questions.turns.total()} turns by {len(questions.turns)} workers")


def parse() -> Namespace:
    """Return the parsed command line."""
    parser = argument_parser("Workers that share conversations and a queue through Redis.")
    parser.add_argument(
        "--redis", default="redis://127.0.0.1:6379", help="URL of Redis (%(default)s)"
    )
    parser.add_argument(
        "--prefix", default=f"example-{os.getpid()}", help="prefix of all keys in Redis"
    )
    parser.add_argument("--workers", type=int, default=3, help="how many (%(default)s)")
    parser.add_argument(
        "--lease",
        type=float,
        default=10.0,
        help="seconds after which another worker takes over from a silent one (%(default)s)",
    )
    parser.add_argument("--work", action="store_true", help="run as a worker")
    return parser.parse_args()


if __name__ == "__main__":
    trio.run(main, parse())
