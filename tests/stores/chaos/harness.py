"""Worker processes that share conversations while everything that can fail does.

The harness hands out jobs, each until a worker has reported it, and some to two workers at once.
Meanwhile it kills and pauses workers, restarts the engine of the store, and cuts sockets. At the
end it reads the conversations and the ledger of the tools.
"""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import trio

from tests.stores.chaos.worker import LEASE_SECONDS, make_store
from trio_responses._conversation.stored_history import read_history
from trio_responses.testing import Call, open_test_server

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from trio_responses.testing import Answer, Request, ResponsesServer

ROOT = Path(__file__).parents[3]
HANG_GUARD = 1800.0
"""Seconds after which the workers are considered to hang."""


@dataclass(kw_only=True)
class Plan:
    """How much work there is, and how often something fails."""

    processes: int
    conversations: int
    jobs: int
    seed: int
    restart_engine: Callable[[], Awaitable[None]] | None = None
    """Restarts the engine of the store; `None` if it has none."""
    mean_pause: float = 0.4
    """The mean number of seconds between two faults."""


@dataclass
class Report:
    """What happened: the number of faults of each kind, and of jobs that were handed out again."""

    faults: Counter[str] = field(default_factory=Counter[str])
    deliveries: int = 0
    failed: Counter[str] = field(default_factory=Counter[str])
    interrupted: int = 0
    seconds: float = 0.0


def answer(request: Request) -> Answer:
    """Call the tool for each new input, and answer once its output is there."""
    last = request.history[-1]
    if last["type"] == "function_call_output":
        *_, question = (item for item in request.history if item.get("role") == "user")
        return f"done {text_of(question)}"
    job = text_of(last)
    return Call("work", {"job": job}, call_id=f"call_{job.replace(':', '_')}")


def text_of(message: dict[str, Any]) -> str:
    """Return the text of a message of the user."""
    content = message["content"]
    return content if isinstance(content, str) else content[0]["text"]


class Worker:
    """One worker process, and the jobs that it has."""

    def __init__(self, process: trio.Process) -> None:
        self.process = process
        self.jobs: set[str] = set()
        self.paused = False


class Chaos:
    """One run of the chaos test."""

    def __init__(self, plan: Plan, store_url: str, folder: Path) -> None:
        self.plan = plan
        self.report = Report()
        self.ledger = folder / "ledger"
        self._store_url = store_url
        self._random = random.Random(plan.seed)  # noqa: S311 - no secret
        self._workers: list[Worker] = []
        self._next = dict.fromkeys((f"c{n}" for n in range(plan.conversations)), 0)
        """The number of jobs of each conversation that are done."""
        self._handed_out: set[str] = set()
        self._done = 0
        self._changed = trio.Event()
        self._nursery: trio.Nursery
        self._server: ResponsesServer

    async def run(self) -> Report:
        """Run all jobs, with faults in between, and return what happened."""
        started = trio.current_time()
        with trio.fail_after(HANG_GUARD):
            async with (
                open_test_server(max_age=None, max_remembered=100) as server,
                trio.open_nursery() as self._nursery,
            ):
                self._server = server
                server.respond_with(answer)
                self._base_url = await server.serve_tcp()
                for _ in range(self.plan.processes):
                    await self._start_worker()
                self._nursery.start_soon(self._fail_now_and_then)
                await self._hand_out_jobs()
                self._nursery.cancel_scope.cancel()
        self.report.seconds = trio.current_time() - started
        return self.report

    # --- Workers -------------------------------------------------------------------------

    async def _start_worker(self) -> None:
        process = await trio.lowlevel.open_process(
            [
                sys.executable,
                "-m",
                "tests.stores.chaos.worker",
                self._store_url,
                self._base_url,
                str(self.ledger),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
        )
        worker = Worker(process)
        self._workers.append(worker)
        self._nursery.start_soon(self._watch, worker)

    async def _watch(self, worker: Worker) -> None:
        """Read the reports of a worker until its end; its jobs are handed out again then."""
        try:
            assert worker.process.stdout is not None
            buffer = b""
            async for data in worker.process.stdout:
                *lines, buffer = (buffer + data).split(b"\n")
                for line in lines:
                    self._handle(worker, line.decode())
            self._workers.remove(worker)
            self._handed_out -= worker.jobs
            await self._start_worker()
            self._notify()
        finally:
            worker.process.kill()
            with trio.CancelScope(shield=True):
                await worker.process.wait()

    def _handle(self, worker: Worker, line: str) -> None:
        words = line.split()
        failed = words[0] == "failed"
        conversation, number = words[1:3] if failed else words
        job = f"{conversation} {number}"
        worker.jobs.discard(job)
        self._handed_out.discard(job)
        if failed:
            self.report.failed[words[3].partition("(")[0]] += 1
        elif int(number) == self._next[conversation]:
            self._next[conversation] += 1
            self._done += 1
        self._notify()

    def _notify(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    async def _hand_out_jobs(self) -> None:
        each = self.plan.jobs // self.plan.conversations
        while self._done < each * self.plan.conversations:
            for conversation, number in self._next.items():
                job = f"{conversation} {number}"
                if number < each and job not in self._handed_out:
                    await self._hand_out(job)
            changed = self._changed
            with trio.move_on_after(0.5):
                await changed.wait()

    async def _hand_out(self, job: str) -> None:
        """Give a job to one worker, or to two."""
        usable = [worker for worker in self._workers if not worker.paused]
        count = 2 if self._random.random() < 0.1 else 1
        for worker in self._random.sample(usable, min(count, len(usable))):
            worker.jobs.add(job)
            self._handed_out.add(job)
            self.report.deliveries += 1
            with suppress(trio.BrokenResourceError):
                assert worker.process.stdin is not None
                await worker.process.stdin.send_all(f"{job}\n".encode())

    # --- Faults --------------------------------------------------------------------------

    async def _fail_now_and_then(self) -> None:
        kinds = {"kill": 4, "pause": 3, "cut": 6, "restart": 1 if self.plan.restart_engine else 0}
        while True:
            await trio.sleep(self._random.expovariate(1 / self.plan.mean_pause))
            [kind] = self._random.choices(list(kinds), weights=list(kinds.values()))
            self.report.faults[kind] += 1
            worker = self._random.choice(self._workers) if self._workers else None
            match kind:
                case "kill" if worker is not None:
                    worker.process.kill()
                case "pause" if worker is not None and not worker.paused:
                    self._nursery.start_soon(self._pause, worker)
                case "cut":
                    self._server.drop(after_events=self._random.randrange(12))
                case "restart":
                    assert self.plan.restart_engine is not None
                    await self.plan.restart_engine()
                case _:
                    pass

    async def _pause(self, worker: Worker) -> None:
        """Pause a worker for longer than its leases. Its jobs are handed out again."""
        worker.paused = True
        worker.process.send_signal(signal.SIGSTOP)
        self._handed_out -= worker.jobs
        await trio.sleep(LEASE_SECONDS + self._random.uniform(0.5, 2))
        worker.process.send_signal(signal.SIGCONT)
        worker.paused = False

    # --- What is left --------------------------------------------------------------------

    async def check(self) -> None:
        """Check every conversation, and the ledger."""
        calls = Counter(line.split()[0] for line in self.ledger.read_text("utf-8").splitlines())
        assert set(calls.values()) == {1}, calls.most_common(3)
        each = self.plan.jobs // self.plan.conversations
        async with make_store(self._store_url) as store:
            listed = await store.list(limit=self.plan.conversations + 1)
            assert sorted(one.conversation_id for one in listed) == sorted(self._next)
            for conversation in self._next:
                stored, _ = await read_history(store, conversation)
                items = [msgspec.json.decode(raw) for raw in stored.history.raw_items]
                self._check_items(conversation, items, each, calls)

    def _check_items(
        self, conversation: str, items: list[dict[str, Any]], each: int, calls: Counter[str]
    ) -> None:
        """Check that every input is there once and in order, with its call, output and answer."""
        for number in range(each):
            job = f"{conversation}:{number}"
            question, call, output, said = items[4 * number : 4 * number + 4]
            assert text_of(question) == job
            assert call["call_id"] == output["call_id"] == f"call_{job.replace(':', '_')}"
            assert text_of(said) == f"done {job}"
            if output["output"] == f"did {job}":
                assert calls[call["call_id"]] == 1
            else:
                assert "interrupted" in output["output"]
                self.report.interrupted += 1
        assert len(items) == 4 * each
