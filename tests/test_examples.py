"""The example programs, each started as its docstring says, with the embedded server."""

import json
import os
import re
import signal
import subprocess
import sys
from collections import defaultdict
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.stores.engines import needs_engines
from tests.stores.redis_server import RedisServer, needs_redis, open_redis_server
from trio_responses.testing import open_test_server

ROOT = Path(__file__).resolve().parent.parent
HANG_GUARD = 600.0
"""Seconds after which an example is considered to hang; on an idle machine one takes one or two."""

needs_quart = pytest.mark.skipif(
    find_spec("quart_trio") is None, reason="Quart-Trio is not installed: extra 'examples'"
)


def environment() -> dict[str, str]:
    """Return the environment without the variables of OpenAI."""
    return {name: value for name, value in os.environ.items() if not name.startswith("OPENAI_")}


def command(example: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", f"examples.{example}", *arguments]


async def run(example: str, *arguments: str, stdin: str = "") -> list[str]:
    """Run an example to its end and return the printed lines."""
    with trio.fail_after(HANG_GUARD):
        done = await trio.run_process(
            command(example, *arguments),
            cwd=ROOT,
            env=environment(),
            stdin=stdin.encode(),
            capture_stdout=True,
        )
    return done.stdout.decode().splitlines()


# --- In the terminal ---------------------------------------------------------------------


async def test_chat() -> None:
    said = await run("chat", stdin="My name is Ada.\nWhat is my name?\n")
    assert said[0] == 'you> Turn 1: you said "My name is Ada.".'
    assert said[1] == 'you> Turn 2: you said "What is my name?".'
    assert said[-1].startswith("2 turns, ")


async def test_chat_with_another_server_goes_on_after_an_error() -> None:
    async with open_test_server() as server:
        server.fail("server_error", status=500)
        url = await server.serve_tcp()
        said = await run("chat", "--url", url, "--model", "mine", stdin="Hello\nHello?\n")
        assert server.requests[-1]["model"] == "mine"
    assert said[0] == "you> "
    assert said[1].startswith("[no answer: ")
    assert said[2] == 'you> Turn 1: you said "Hello?".'


async def test_fan_out() -> None:
    *answers, last = await run("fan_out")
    assert sorted(answers) == sorted(
        f"{number:4}  {number} times {number} is {number * number}" for number in range(1, 101)
    )
    assert answers != sorted(answers)  # printed in the order of arrival
    assert re.fullmatch(r"100 questions in \S+ s over 4 connections", last)


async def test_agent() -> None:
    said = await run("agent")
    assert said[:2] == ['-> get_weather {"city":"Oslo"}', '-> get_weather {"city":"Paris"}']
    assert [line.split()[:3] for line in said[2:4]] == [["<-", "get_weather", "done"]] * 2
    assert said[4] == '-> convert {"degrees":12.0,"to":"fahrenheit"}'
    assert said[6].startswith("In Paris: 12 degrees (53.6 Fahrenheit)")
    assert said[7] == "[3 responses, 8 items]"


# --- On the web --------------------------------------------------------------------------


class WebService:
    """A running web service."""

    def __init__(self, url: str) -> None:
        self.url = url

    async def send(
        self, path: str, body: bytes | None = None, kind: str = "application/json", end: bytes = b""
    ) -> str:
        """Send a request, and return the response up to ``end``, by default all of it."""
        place = self.url.removeprefix("http://").rstrip("/")
        host, port = place.split(":")
        lines = [f"{'GET' if body is None else 'POST'} {path} HTTP/1.1", f"Host: {place}"]
        lines += [f"Content-Type: {kind}"]
        lines += [f"Content-Length: {len(body or b'')}", "", ""]
        async with await trio.open_tcp_stream(host, int(port)) as stream:
            await stream.send_all("\r\n".join(lines).encode() + (body or b""))
            page = b""
            async for chunk in stream:
                page += chunk
                if (end and end in page) or is_complete(page):
                    break
        return page.decode()

    async def ask(self, request_id: str, question: str, end: bytes = b"") -> str:
        """Send a question, and return the response."""
        body = {"conversation": "a", "request_id": request_id, "text": question}
        return await self.send("/ask", json.dumps(body).encode(), end=end)

    async def ask_until_answered(self, request_id: str, question: str) -> list[dict[str, Any]]:
        """Send a question as often as the service wants it, and return the events."""
        while True:
            with suppress(trio.BrokenResourceError):
                found = events_of(await self.ask(request_id, question))
                if found and ("answer" in found[-1] or "error" in found[-1]):
                    return found
            await trio.sleep(0.05)


def is_complete(response: bytes) -> bool:
    """Whether a response has its whole body."""
    head, _, body = response.partition(b"\r\n\r\n")
    length = re.search(rb"content-length: (\d+)", head)
    return len(body) == int(length[1]) if length else body.endswith(b"0\r\n\r\n")


def events_of(response: str) -> list[dict[str, Any]]:
    return [json.loads(data) for data in re.findall("^data: (.*)\n", response, re.MULTILINE)]


@asynccontextmanager
async def web_service(folder: Path, *arguments: str) -> AsyncGenerator[WebService, None]:
    """Run the web service, and check its exit status."""
    process = await trio.lowlevel.open_process(
        command("web", "--store", str(folder / "chats.db"), *arguments),
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    with trio.fail_after(HANG_GUARD):
        try:
            printed = b""
            while b"\n" not in printed:
                printed += await process.stdout.receive_some()
            yield WebService(printed.split(b"\n")[0].decode().removeprefix("open "))
            process.terminate()
            assert await process.wait() == 0
        finally:
            with trio.CancelScope(shield=True):
                process.terminate()  # it ends its processes
                with trio.move_on_after(30):
                    await process.wait()
                process.kill()
                await process.wait()
                await process.stdout.aclose()


async def find_processes(service: WebService) -> set[int]:
    """Ask until two processes have answered, and return their ids."""
    found: set[int] = set()
    number = 0
    while len(found) < 2:
        number += 1
        *texts, last = await service.ask_until_answered(f"{number}", "Hello")
        answer = f'Turn {number}: you said "Hello".'
        assert last["answer"] == "".join(event["text"] for event in texts) == answer
        found.add(last["process"])
    return found


@needs_quart
async def test_web_continues_a_conversation_on_any_process(tmp_path: Path) -> None:
    async with web_service(tmp_path, "--processes", "2") as service:
        page = await service.send("/")
        assert page.startswith("HTTP/1.1 200")
        assert 'fetch("ask"' in page
        assert len(await find_processes(service)) == 2
        [again] = await service.ask_until_answered("1", "Hello")
        assert again["answer"] == 'Turn 1: you said "Hello".'
        assert "HTTP/1.1 400" in await service.send("/ask", b"{}")
        question = b'{"conversation": "a", "request_id": "of another site", "text": "Hello"}'
        assert "HTTP/1.1 415" in await service.send("/ask", question, "text/plain")


@needs_engines
@needs_quart
async def test_web_cancels_the_turn_of_a_browser_that_leaves(tmp_path: Path) -> None:
    async with open_test_server() as server:
        left = server.reply("one two three").hold(trio.Event(), after_events=6)
        url = await server.serve_tcp()
        async with web_service(tmp_path, "--url", url, "--processes", "2") as service:
            response = await service.ask("1", "Hello", end=b"two")
            assert response.startswith("HTTP/1.1 200")
            await left.finished.wait()
            assert server.statistics().active == 0
            *_, last = await service.ask_until_answered("1", "Hello")
            assert last["answer"] == 'Turn 1: you said "Hello".'


@needs_engines
@needs_quart
async def test_web_takes_over_from_a_killed_process(tmp_path: Path) -> None:
    async with open_test_server() as server:
        options = ["--url", await server.serve_tcp(), "--processes", "2", "--lease", "2"]
        async with web_service(tmp_path, *options) as service, trio.open_nursery() as nursery:
            processes = await find_processes(service)
            before = len(server.requests)
            server.stall()
            nursery.start_soon(service.ask_until_answered, "last", "Goodbye")
            while len(server.requests) == before:  # noqa: ASYNC110 - of another process
                await trio.sleep(0.01)
            busy = await service.ask("another", "Hello?")
            assert events_of(busy) == [{"retry_after": 1.0}]
            for process in processes:
                os.kill(process, signal.SIGKILL)
            *_, last = await service.ask_until_answered("another", "Hello?")
            assert last["answer"].endswith('you said "Hello?".')


# --- On several processes ----------------------------------------------------------------


@pytest.fixture
async def redis() -> AsyncGenerator[RedisServer, None]:
    async with open_redis_server() as server:
        yield server


def check_talks(lines: list[str]) -> None:
    """Check that each question was answered once, and is in its history once."""
    *answers, last = lines
    talks: dict[str, list[str]] = defaultdict(list)
    for line in answers:
        match = re.fullmatch(r"(\w+), by \d+: (.*) -> (.*)", line)
        assert match is not None, line
        name, question, answer = match.groups()
        talks[name].append(answer)
        assert answer == f'Turn {len(talks[name])}: you said "{question}".'
    assert {name: len(answers) for name, answers in talks.items()} == {
        "Ada": 4,
        "Alan": 4,
        "Grace": 4,
    }
    assert re.fullmatch(r"12 turns by [12] workers", last)


@needs_redis
async def test_workers(redis: RedisServer) -> None:
    check_talks(await run("workers", "--redis", redis.url, "--workers", "2"))
    assert await redis.command("keys", "*") == ""


@needs_redis
async def test_workers_outlive_a_kill_in_a_turn_and_a_restart_of_redis(redis: RedisServer) -> None:
    async def run_workers(url: str) -> None:
        options = ["--url", url, "--workers", "1", "--lease", "2", "--prefix", "test"]
        check_talks(await run("workers", "--redis", redis.url, *options))

    async with open_test_server() as server, trio.open_nursery() as nursery:
        server.stall()
        nursery.start_soon(run_workers, await server.serve_tcp())
        with trio.fail_after(HANG_GUARD):
            while not server.requests:  # noqa: ASYNC110 - of another process
                await trio.sleep(0.01)
            _, worker, *_ = (
                await redis.command("xpending", "test:jobs", "workers", "-", "+", 9)
            ).split()
            os.kill(int(worker), signal.SIGKILL)
            while len(server.requests) < 4:  # noqa: ASYNC110 - likewise
                await trio.sleep(0.01)
            await redis.restart()
    assert await redis.command("keys", "*") == ""


@needs_redis
async def test_workers_need_a_redis_that_keeps_what_is_saved(redis: RedisServer) -> None:
    await redis.command("config", "set", "appendonly", "no")
    with trio.fail_after(HANG_GUARD):
        done = await trio.run_process(
            command("workers", "--redis", redis.url),
            cwd=ROOT,
            env=environment(),
            check=False,
            capture_stdout=True,
            capture_stderr=True,
        )
    assert done.returncode == 1
    assert b"allow_volatile=True" in done.stderr
    assert b"Group" not in done.stderr
