"""What the tests of the command line share: processes of their own, and the embedded server.

What belongs elsewhere: what a command has to do (`test_cli.py` and its kin).
"""

import os
import re
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, TypeAlias

import pytest

from trio_responses._cli import server_choice as places
from trio_responses.testing import ResponsesServer, open_test_server

Orders: TypeAlias = Callable[[ResponsesServer], object]
Capture: TypeAlias = pytest.CaptureFixture[str]
Patch: TypeAlias = pytest.MonkeyPatch

SECONDS = 60.0
LISTENING = re.compile(r"listening on (http://127\.0\.0\.1:[1-9]\d*/v1)\n")


Order: TypeAlias = Callable[[Orders], list[ResponsesServer]]


def forget_environment(monkeypatch: Patch) -> None:
    """Take the variables away that say where to connect to, and with which key."""
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"):
        monkeypatch.delenv(name, raising=False)


def order_at(monkeypatch: Patch, orders: Orders) -> list[ResponsesServer]:
    """Tell the embedded server of the next command what to do; give it, once it is there."""
    servers: list[ResponsesServer] = []

    @asynccontextmanager
    async def open_prepared_server(**options: Any) -> AsyncGenerator[ResponsesServer, None]:
        async with open_test_server(**options) as server:
            servers.append(server)
            orders(server)
            yield server

    monkeypatch.setattr(places, "open_test_server", open_prepared_server)
    return servers


@contextmanager
def running(
    *arguments: str, stdin: int | None = None
) -> Generator[subprocess.Popen[str], None, None]:
    """Run the command line in a process of its own, with its output buffered as a user has it."""
    command = [sys.executable, "-m", "trio_responses", *arguments]
    usual = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    with subprocess.Popen(  # noqa: S603 - our own program
        command,
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        env=usual,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


@contextmanager
def serving(
    *arguments: str, command: str = "serve"
) -> Generator[tuple[subprocess.Popen[str], str], None, None]:
    """Run ``serve``, or another command that listens, and read where."""
    with running(command, *arguments) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = LISTENING.fullmatch(line)
        assert found is not None, line
        yield process, found[1]
