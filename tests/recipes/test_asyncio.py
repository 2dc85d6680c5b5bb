"""The recipe for programs with asyncio code: asyncio.md."""

from __future__ import annotations

import asyncio
import os
import sys
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import pytest
import trio

import trio_responses
from tests.docs_pages import leave_unscripted, open_here
from tests.recipes.pages import blocks
from trio_responses import ServerOverloaded
from trio_responses.testing import open_test_server

if TYPE_CHECKING:
    from collections.abc import Callable

    from trio_responses import ResponsesConnection
    from trio_responses.testing import ResponsesServer

GUEST, IN_TRIO = blocks("asyncio.md")
OUTPUTS = blocks("asyncio.md", "output")
HANG_GUARD = 300.0


def test_the_program_in_guest_mode(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    exec(GUEST, load_guest(monkeypatch, leave_unscripted))  # noqa: S102 - our own page
    assert capsys.readouterr().out == OUTPUTS[0]


@pytest.mark.skipif(
    find_spec("trio_asyncio") is None, reason="trio-asyncio is not installed: extra 'recipes'"
)
async def test_the_program_with_an_asyncio_library() -> None:
    """Runs in a process of its own: importing trio_asyncio changes asyncio for the process."""
    async with open_test_server() as server:
        environment = {**os.environ, "OPENAI_BASE_URL": await server.serve_tcp()}
        with trio.fail_after(HANG_GUARD):
            done = await trio.run_process(
                [sys.executable, "-c", IN_TRIO],
                env=environment | {"OPENAI_API_KEY": "sk-docs"},
                capture_stdout=True,
            )
    assert done.stdout.decode() == OUTPUTS[1]


def load_guest(
    monkeypatch: pytest.MonkeyPatch, script: Callable[[ResponsesServer], object]
) -> dict[str, Any]:
    """Return the names of the first program, whose connections lead to a server with a script."""
    here = partial(open_here, trio_responses.open_responses, script)
    monkeypatch.setattr(trio_responses, "open_responses", here)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-docs")
    names: dict[str, Any] = {}
    exec(GUEST.replace("asyncio.run(main())", ""), names)  # noqa: S102 - our page
    return names


def test_cancelling_the_asyncio_task_cancels_the_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[str] = []

    async def wait(connection: ResponsesConnection, started: asyncio.Event) -> None:
        async with connection.stream("Count", model="m") as stream:
            started.set()
            try:
                await stream.get_final_response()
            except trio.Cancelled:
                ended.append("cancelled")
                raise

    async def main() -> None:
        async with names["Guest"]() as guest:
            started = asyncio.Event()
            task = asyncio.create_task(guest.run(wait, started))
            await started.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert ended == ["cancelled"]
            assert await guest.run(names["ask"], "Hello") == 'Turn 1: you said "Hello".'

    names = load_guest(monkeypatch, lambda server: server.stall(after_events=2))
    asyncio.run(main())


def test_an_error_of_a_turn_is_raised_in_asyncio(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with names["Guest"]() as guest:
            with pytest.raises(ServerOverloaded):
                await guest.run(names["ask"], "Hello")

    names = load_guest(monkeypatch, lambda server: server.fail("server_is_overloaded"))
    asyncio.run(main())


def test_a_connection_that_fails_to_open_is_raised_in_asyncio(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def main() -> None:
        async with names["Guest"]():
            raise AssertionError("the block must not begin")

    names = load_guest(monkeypatch, lambda server: server.refuse(401))
    with pytest.raises(trio_responses.AuthenticationError):
        asyncio.run(main())
