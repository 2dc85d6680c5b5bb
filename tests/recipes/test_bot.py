"""The recipe for a bot: bot.md, with a chat service over TCP."""

from __future__ import annotations

from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import trio

import trio_responses
from tests.recipes.pages import load
from tests.recipes.telegram import FakeTelegram
from trio_responses import Endpoint
from trio_responses.testing import open_test_server

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path
    from types import ModuleType

    from trio_responses.testing import ResponsesServer

HANG_GUARD = 120.0


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    """Load the bot, which keeps its database in the current folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TELEGRAM_TOKEN", "123:abc")
    return load("bot.md", monkeypatch)


@asynccontextmanager
async def open_services(
    program: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> AsyncGenerator[tuple[FakeTelegram, ResponsesServer], None]:
    """Open the chat service and the test server, which the bot finds."""
    telegram = FakeTelegram()
    with trio.fail_after(HANG_GUARD):
        async with open_test_server() as server, trio.open_nursery() as nursery:
            serve = partial(trio.serve_tcp, telegram.serve, 0, host="127.0.0.1")
            [listener] = await nursery.start(serve)
            port = listener.socket.getsockname()[1]
            monkeypatch.setenv("TELEGRAM_URL", f"http://127.0.0.1:{port}")
            endpoint = Endpoint.compatible(server.url, lanes=True)
            options: dict[str, Any] = {"endpoint": endpoint, "dial": server.dial, "api_key": "any"}
            monkeypatch.setattr(program, "open_pool", partial(trio_responses.open_pool, **options))
            yield telegram, server
            nursery.cancel_scope.cancel()


@asynccontextmanager
async def run_bot(program: ModuleType) -> AsyncGenerator[None, None]:
    """Run the bot for the length of a block; the end of the block is as sudden as a crash."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(program.main)
        yield
        nursery.cancel_scope.cancel()


async def test_each_chat_has_a_conversation_that_outlives_the_bot(
    program: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_services(program, monkeypatch) as (telegram, server):
        telegram.write(7, "My name is Ada.")
        telegram.write(8, "My name is Alan.")
        async with run_bot(program):
            await telegram.wait_for_answers(2)
        assert sorted(telegram.answers) == [
            (7, 'Turn 1: you said "My name is Ada.".'),
            (8, 'Turn 1: you said "My name is Alan.".'),
        ]
        telegram.write(7, "What is my name?")
        async with run_bot(program):
            while telegram.answers[-1] != (7, 'Turn 2: you said "What is my name?".'):
                await telegram.wait_for_answers(len(telegram.answers) + 1)
        assert len(server.requests) == 3  # messages that came twice were not asked twice


async def test_an_answer_that_was_not_delivered_is_delivered_after_a_restart(
    program: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_services(program, monkeypatch) as (telegram, server):
        telegram.write(7, "Hello")
        telegram.refusals = 1
        with pytest.RaisesGroup(httpx.HTTPStatusError, flatten_subgroups=True):
            await program.main()
        async with run_bot(program):
            await telegram.wait_for_answers(1)
        assert telegram.answers == [(7, 'Turn 1: you said "Hello".')]
        assert len(server.requests) == 1


async def test_an_error_of_the_model_is_answered_and_logged(
    program: ModuleType, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_services(program, monkeypatch) as (telegram, server):
        server.fail("server_error", status=500)
        telegram.write(7, "Hello")
        async with run_bot(program):
            await telegram.wait_for_answers(1)
            telegram.write(7, "Hello again")
            await telegram.wait_for_answers(2)
    assert telegram.answers[0] == (7, "I cannot answer just now. Please ask again.")
    assert telegram.answers[1] == (7, 'Turn 1: you said "Hello again".')
    assert "no answer to update 1" in caplog.text
