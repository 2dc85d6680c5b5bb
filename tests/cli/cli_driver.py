"""Helpers of the command line's tests: child processes, and the embedded server of a command."""

import os
import re
import subprocess
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from queue import Queue
from threading import Thread
from typing import Any, TypeAlias

import pytest
import trio

from trio_responses._cli import main, server_choice
from trio_responses._cli import serve as serve_module
from trio_responses._transport import http
from trio_responses.testing import ResponsesServer, open_test_server

Prepare: TypeAlias = Callable[[ResponsesServer], object]
Capture: TypeAlias = pytest.CaptureFixture[str]
Patch: TypeAlias = pytest.MonkeyPatch

HANG_GUARD = 600.0
"""Seconds after which a child process is considered to hang. No test needs them: on an idle
machine each child process takes one or two."""
LISTENING = re.compile(r"listening on (http://127\.0\.0\.1:[1-9]\d*/v1)\n")
PrepareServer: TypeAlias = Callable[[Prepare], list[ResponsesServer]]


def clear_environment(monkeypatch: Patch) -> None:
    """Remove the variables that name a server and an API key."""
    for name in list(os.environ):
        if name.startswith(("OPENAI_", "AZURE_OPENAI_", "XAI_")):
            monkeypatch.delenv(name)


def hide_http_packages(monkeypatch: Patch) -> None:
    """Let the library find none of the packages of its extra for HTTP."""

    def find_nothing(_: str) -> None:
        return None

    monkeypatch.setattr(http, "find_spec", find_nothing)


def prepare_next_server(monkeypatch: Patch, prepare: Prepare) -> list[ResponsesServer]:
    """Script the embedded server of the next command.

    :return: a list to which that server is added when the command opens it.
    """
    servers: list[ResponsesServer] = []

    @asynccontextmanager
    async def open_prepared_server(**options: Any) -> AsyncGenerator[ResponsesServer, None]:
        async with open_test_server(**options) as server:
            servers.append(server)
            prepare(server)
            yield server

    monkeypatch.setattr(server_choice, "open_test_server", open_prepared_server)
    return servers


@contextmanager
def running(
    *arguments: str, stdin: int = subprocess.DEVNULL
) -> Generator[subprocess.Popen[str], None, None]:
    """Run the command line in a child process, with the output buffered as it is for a user."""
    command = [sys.executable, "-m", "trio_responses", *arguments]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    with subprocess.Popen(  # noqa: S603 - our own program
        command,
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        env=environment,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


@contextmanager
def serving(
    *arguments: str, command: str = "serve"
) -> Generator[tuple[subprocess.Popen[str], str], None, None]:
    """Run a command that listens in a child process; yield the process and the URL."""
    with running(command, *arguments) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = LISTENING.fullmatch(line)
        assert found is not None, line
        yield process, found[1]


@contextmanager
def serving_in_thread(*arguments: str, command: str = "serve") -> Generator[str, None, None]:
    """Run a command that listens in a thread of this process; yield the URL.

    A child process takes a second to start: only a test of signals or of the output needs one.
    """
    lines = Queue[str]()
    scope = trio.CancelScope()
    tokens: list[trio.lowlevel.TrioToken] = []

    def print_line(line: str, *, flush: bool) -> None:
        assert flush
        lines.put(line + "\n")

    def run_until_cancelled(run_command: Callable[[], Awaitable[int]]) -> int:
        async def run() -> int:
            tokens.append(trio.lowlevel.current_trio_token())
            with scope:
                return await run_command()
            return 0

        return trio.run(run)

    def run_main() -> None:
        try:
            main([command, *arguments])
        finally:
            lines.put("")  # where the command has failed

    thread = Thread(target=run_main)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(serve_module, "run", run_until_cancelled)
        patch.setattr(serve_module, "print", print_line, raising=False)
        thread.start()
        line = lines.get()
        try:
            found = LISTENING.fullmatch(line)
            assert found is not None, line
            yield found[1]
        finally:
            for token in tokens:
                token.run_sync_soon(scope.cancel)
            thread.join()
