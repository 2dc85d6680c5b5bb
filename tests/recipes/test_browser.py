"""The pages of the recipes and of examples/web.py in Chromium."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trio

from tests.recipes.chromium import needs_chromium, open_browser
from tests.recipes.pages import blocks
from tests.recipes.test_web import hold_after_two_words, run_recipe
from tests.stores.engines import needs_engines
from tests.test_examples import needs_quart, web_service
from trio_responses.testing import open_test_server

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from tests.recipes.chromium import Tab
    from trio_responses.testing import ResponsesServer

pytestmark = [needs_engines, needs_chromium]
PAGES = {"fastapi.md": "fastapi.md", "starlette.md": "starlette.md", "quart.md": "fastapi.md"}
"""Programs, each with the page that has its page for a browser."""


@asynccontextmanager
async def open_recipe(
    program: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncGenerator[tuple[Tab, ResponsesServer], None]:
    """Open the page of a recipe in a browser."""
    monkeypatch.chdir(folder)
    (folder / "page.html").write_text(blocks(PAGES[program], "html")[0])
    async with (
        run_recipe(program, monkeypatch) as service,
        open_browser(folder / "profile") as browser,
    ):
        tab = await browser.open_tab()
        await tab.open(service.url)
        yield tab, service.server


@pytest.mark.parametrize("program", PAGES)
async def test_the_page_of_a_recipe(
    program: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_recipe(program, tmp_path, monkeypatch) as (tab, server):
        await tab.write("#question", "Hello")
        await tab.wait_for("document.title === 'completed'")
        assert await tab.evaluate("answer.textContent") == 'Turn 1: you said "Hello".'

        stopped = hold_after_two_words(server)
        await tab.click("form button")
        await tab.wait_for("answer.textContent === 'one two'")  # while the answer is written
        await tab.click("#stop")
        await stopped.finished.wait()
        await tab.wait_for("document.title === 'stopped'")
        assert server.statistics().active == 0

        left = hold_after_two_words(server)
        await tab.click("form button")
        await tab.wait_for("answer.textContent === 'one two'")
        await tab.close()
        await left.finished.wait()
        assert server.statistics().active == 0
        assert server.statistics().responses == 1


@asynccontextmanager
async def open_service(folder: Path) -> AsyncGenerator[tuple[Tab, ResponsesServer], None]:
    """Open the page of examples/web.py, with two processes, in a browser."""
    async with open_test_server() as server:
        url = await server.serve_tcp()
        async with (
            web_service(folder, "--url", url, "--processes", "2") as service,
            open_browser(folder / "profile") as browser,
        ):
            tab = await browser.open_tab()
            await tab.open(service.url)
            yield tab, server


LAST = "said.querySelector('p:last-of-type')"


async def wait_for_answer(tab: Tab, text: str) -> None:
    await tab.wait_for(f"{LAST}?.className === 'model' && {LAST}.textContent === {text!r}")


@needs_quart
async def test_a_reload_continues_the_conversation(tmp_path: Path) -> None:
    async with open_service(tmp_path) as (tab, server):
        await tab.write("#question", "My name is Ada.")
        await wait_for_answer(tab, 'Turn 1: you said "My name is Ada.".')
        await tab.reload()
        assert await tab.evaluate("said.querySelectorAll('p').length") == 2
        await tab.write("#question", "What is my name?")
        await wait_for_answer(tab, 'Turn 2: you said "What is my name?".')
        assert len(server.requests) == 2


@needs_quart
async def test_a_reload_in_the_middle_asks_again(tmp_path: Path) -> None:
    async with open_service(tmp_path) as (tab, server):
        left = hold_after_two_words(server)
        server.reply("one two three")
        await tab.write("#question", "Count")
        await tab.wait_for(f"{LAST}.textContent === 'one two'")
        await tab.reload()
        await left.finished.wait()
        await wait_for_answer(tab, "one two three")
        assert server.last_request.turn == 1  # the question is in the history once


@needs_quart
async def test_stop_cancels_the_turn_and_the_chat_goes_on(tmp_path: Path) -> None:
    async with open_service(tmp_path) as (tab, server):
        stopped = hold_after_two_words(server)
        await tab.write("#question", "Count")
        await tab.wait_for(f"{LAST}.textContent === 'one two'")
        await tab.click("#submit")
        await stopped.finished.wait()
        await tab.wait_for(f"{LAST}.className === 'stopped'")
        assert server.statistics().active == 0
        await tab.write("#question", "Hello")
        await wait_for_answer(tab, 'Turn 1: you said "Hello".')


@needs_quart
async def test_closing_the_page_cancels_the_turn(tmp_path: Path) -> None:
    async with open_service(tmp_path) as (tab, server):
        left = hold_after_two_words(server)
        await tab.write("#question", "Count")
        await tab.wait_for(f"{LAST}.textContent === 'one two'")
        await tab.close()
        with trio.fail_after(60):
            await left.finished.wait()
        assert server.statistics().active == 0
