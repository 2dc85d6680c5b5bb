"""The page on moving from openai-python: the blocks of openai-python, run with openai-python.

The blocks of this library run with the other pages (`tests/test_docs.py`); both print the same.
"""

from __future__ import annotations

import ast
import asyncio
import inspect
import re
from operator import attrgetter
from pathlib import Path
from typing import Any

import pytest

import trio_responses

PAGE = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "openai-python.md"
TEXT = PAGE.read_text(encoding="utf-8")
PAIRS = re.findall(
    r"```py\n(.*?)```(?:(?!```py\n).)*?```(?:output|text)\n(.*?)```", TEXT, re.DOTALL
)
"""The blocks of openai-python, each with the next printed text."""


@pytest.fixture
def environment(server_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-docs")
    monkeypatch.setenv("OPENAI_BASE_URL", server_url)


@pytest.mark.usefixtures("environment")
@pytest.mark.parametrize(("theirs", "output"), PAIRS, ids=range(len(PAIRS)))
def test_their_side_prints_the_same(
    theirs: str, output: str, openai_sdk: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    code = compile(theirs, str(PAGE), "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)

    async def run() -> None:
        async with openai_sdk.AsyncOpenAI() as client:
            running = eval(code, {"client": client})  # noqa: S307 - our own page
            if inspect.iscoroutine(running):
                await running

    if "trio.run(" in theirs:
        eval(code, {})  # noqa: S307 - our own page
    else:
        asyncio.run(run())
    assert capsys.readouterr().out == output


def test_every_block_of_theirs_has_an_output_to_compare() -> None:
    assert len(PAIRS) == TEXT.count("```py\n") > 0


def test_every_call_of_the_table_exists(openai_sdk: Any) -> None:
    section = TEXT.partition("## Call by call")[2].partition("\n## ")[0]
    rows = [line.split(" | ") for line in section.splitlines() if line.startswith("| `")]
    responses = openai_sdk.AsyncOpenAI(api_key="sk-docs").responses
    theirs = [name for row in rows for name in re.findall(r"`responses\.([\w.]+)", row[0])]
    ours = [name for row in rows for name in re.findall(r"`connection\.([\w.]+)", row[1])]
    assert {"create", "stream", "parse"} <= {*theirs} & {*ours}
    for name in theirs:
        attrgetter(name)(responses)
    for name in ours:
        owner, _, method = name.rpartition(".")
        home = trio_responses.Responses if owner else trio_responses.ResponsesConnection
        assert hasattr(home, method), name


def test_every_exception_of_the_table_exists(openai_sdk: Any) -> None:
    section = TEXT.partition("## Exceptions")[2].partition("\n## ")[0]
    rows = [line.split(" | ") for line in section.splitlines() if line.startswith("| `")]
    assert rows
    for theirs, ours in rows:
        for name in re.findall(r"openai\.(\w+)", theirs):
            assert issubclass(getattr(openai_sdk, name), openai_sdk.OpenAIError)
        for name in re.findall(r"`([A-Z]\w+)`", ours):
            assert issubclass(getattr(trio_responses, name), trio_responses.ResponsesError)


def test_the_numbers_of_openai_python_are_right(openai_sdk: Any) -> None:
    constants = pytest.importorskip("openai._constants")
    timeout = openai_sdk.DEFAULT_TIMEOUT
    assert (timeout.connect, timeout.write, timeout.read, timeout.pool) == (5, 600, 600, 600)
    assert openai_sdk.DEFAULT_MAX_RETRIES == 2
    assert (constants.INITIAL_RETRY_DELAY, constants.MAX_RETRY_DELAY) == (0.5, 8)
    assert constants.MAX_RETRY_AFTER_DELAY == 120
