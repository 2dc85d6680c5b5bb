"""The example programs, each started as its docstring says, with the embedded server."""

import json
import os
import re
import signal
import subprocess
import sys
from collections import defaultdict
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import trio
from trio_websocket import WebSocketConnection, open_websocket_url

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


@asynccontextmanager
async def web_service() -> AsyncGenerator[str, None]:
    """Run the web service, yield its URL, and check its exit status."""
    process = await trio.lowlevel.open_process(
        command("web"), cwd=ROOT, env=environment(), stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    with trio.fail_after(HANG_GUARD):
        try:
            printed = b""
            while b"\n" not in printed:
                printed += await process.stdout.receive_some()
            yield printed.split(b"\n")[0].decode().removeprefix("open ")
            process.terminate()
            assert await process.wait() == 0
        finally:
            process.kill()
            with trio.CancelScope(shield=True):
                await process.wait()
                await process.stdout.aclose()


async def read_until(url: str, end: bytes, *lines: str, path: str = "/") -> bytes:
    """Send a GET request and return the response up to ``end``."""
    place = url.removeprefix("http://").rstrip("/")
    host, port = place.split(":")
    head = "\r\n".join([f"GET {path} HTTP/1.1", f"Host: {place}", *lines, "", ""])
    async with await trio.open_tcp_stream(host, int(port)) as stream:
        await stream.send_all(head.encode())
        page = b""
        while end not in page:
            chunk = await stream.receive_some()
            assert chunk, page
            page += chunk
        return page


async def request_upgrade(url: str, origin: str) -> bytes:
    """Send an upgrade request with an origin and return the status line of the response."""
    upgrade = ["Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13"]
    key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
    head = await read_until(url, b"\r\n", *upgrade, key, f"Origin: {origin}", path="/chat")
    return head.split(b"\r\n")[0]


async def ask(browser: WebSocketConnection, question: str) -> list[dict[str, Any]]:
    await browser.send_message(question)
    events: list[dict[str, Any]] = []
    while not events or "text" in events[-1]:
        events.append(json.loads(await browser.get_message()))
    return events


@needs_quart
async def test_web() -> None:
    async with web_service() as url:
        page = await read_until(url, b"</html>")
        assert page.startswith(b"HTTP/1.1 200")
        assert b'new WebSocket(location.href.replace(/^http/, "ws") + "chat")' in page
        chat = url.replace("http", "ws") + "chat"
        async with open_websocket_url(chat) as one, open_websocket_url(chat) as other:
            assert await ask(one, "Hello") == [
                *({"text": word} for word in ("Turn", " 1:", " you", " said", ' "Hello".')),
                {"done": True},
            ]
            await one.send_message("I leave in the middle of this answer.")
            await one.get_message()
            await one.aclose()
            answer = await ask(other, "Hello")
            assert "".join(event.get("text", "") for event in answer) == 'Turn 1: you said "Hello".'
        assert b"101" in await request_upgrade(url, url.rstrip("/"))
        assert b"403" in await request_upgrade(url, "http://evil.example")


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
