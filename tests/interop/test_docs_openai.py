"""Tests of the examples for openai-python on the page about moving from openai-python.

``tests/test_docs.py`` runs the examples for this library. Both must print the output on the page.
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


@pytest.mark.parametrize(("example", "output"), PAIRS, ids=range(len(PAIRS)))
def test_an_example_for_openai_python_prints_the_output_of_the_page(
    example: str, output: str, openai_sdk: Any, server_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code = compile(example, str(PAGE), "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)

    async def run() -> None:
        async with openai_sdk.AsyncOpenAI(api_key="sk-docs", base_url=server_url) as client:
            result = eval(code, {"client": client})  # noqa: S307 - a page of this project
            if inspect.iscoroutine(result):
                await result

    asyncio.run(run())
    assert capsys.readouterr().out == output


def test_every_example_for_openai_python_has_an_output() -> None:
    assert len(PAIRS) == TEXT.count("```py\n") > 0
