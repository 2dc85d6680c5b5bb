"""The page on moving from openai-python: the other side of it, run with openai-python itself.

Our side is run with the other pages (`tests/test_docs.py`); both are to print the same.
"""

from __future__ import annotations

import ast
import asyncio
import inspect
import re
from pathlib import Path
from typing import Any

import pytest

PAGE = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "openai-python.md"
TEXT = PAGE.read_text(encoding="utf-8")
PAIRS = re.findall(r"```py\n(.*?)```(?:(?!```py\n).)*?```output\n(.*?)```", TEXT, re.DOTALL)


@pytest.mark.parametrize(("theirs", "output"), PAIRS, ids=range(len(PAIRS)))
def test_their_side_prints_the_same(
    theirs: str, output: str, openai_sdk: Any, our_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code = compile(theirs, str(PAGE), "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)

    async def run() -> None:
        async with openai_sdk.AsyncOpenAI(api_key="sk-docs", base_url=our_url) as client:
            running = eval(code, {"client": client})  # noqa: S307 - our own page
            if inspect.iscoroutine(running):
                await running

    asyncio.run(run())
    assert capsys.readouterr().out == output


def test_every_block_of_theirs_has_an_output_to_compare() -> None:
    assert len(PAIRS) == TEXT.count("```py\n") > 0
