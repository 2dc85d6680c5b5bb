"""A runner for pages of the documentation: it runs Python blocks with Sybil and checks outputs.

A block that calls ``trio.run`` (or ``run`` of asyncio or anyio) runs as a program. In a program
that opens no server, ``open_responses`` and ``open_pool`` connect to an embedded server of their
own, for every URL and endpoint. If a block above defines ``script(server)``, it prepares that
server.

Any other block may use ``await``. It runs in a task of its own, with a clock that skips waiting
times, and has these names:

- ``server``: a new embedded server for each block;
- ``connection``: a connection to that server, with lanes;
- ``open_responses``: connects to that server for every URL and endpoint, and keeps the other
  options of the endpoint;
- ``trio``, and the names that the blocks above on the page define.

The text of an ``output`` block must be equal to what the block above prints.
"""

from __future__ import annotations

import ast
import inspect
import io
import re
from contextlib import asynccontextmanager, redirect_stdout
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import trio
from sybil import Sybil
from sybil.parsers.markdown import CodeBlockParser, SkipParser
from trio.testing import MockClock

import trio_responses
from trio_responses import Endpoint
from trio_responses.testing import open_test_server

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable
    from pathlib import Path

    import pytest
    from sybil import Document, Example
    from sybil.typing import Parser

    from trio_responses import ResponsesConnection
    from trio_responses.testing import ResponsesServer

A_LONG_TIME = 50_000.0
PROGRAM = re.compile(r"\b(trio|asyncio|anyio)\.run\(")
KEYS = ("OPENAI_API_KEY", "AZURE_OPENAI_API_KEY", "XAI_API_KEY")


class Page:
    """A page whose blocks can be run."""

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch
        self._printed = ""
        self._blocks = 0
        parsers: list[Parser] = [
            CodeBlockParser("python", self._run),
            CodeBlockParser("output", self._compare),
            SkipParser(),
        ]
        self.document: Document = Sybil(parsers, pattern="*.md").parse(path)

    def run(self) -> int:
        """Run all blocks in their order and return the number of Python blocks."""
        for example in self.document.examples():
            example.evaluate()
        return self._blocks

    def _run(self, example: Example) -> None:
        self._blocks += 1
        lines = "\n" * (
            example.line + example.parsed.line_offset
        )  # so that line numbers in tracebacks are right
        flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
        source = lines + example.parsed
        code = compile(source, example.path, "exec", flags, dont_inherit=True)
        with redirect_stdout(io.StringIO()) as printed:
            if PROGRAM.search(example.parsed):
                needs_server = "open_test_server" not in example.parsed
                self._run_program(code, example.namespace, needs_server=needs_server)
            else:
                clock = MockClock(autojump_threshold=0)
                trio.run(partial(self._run_in_task, code, example.namespace), clock=clock)
        self._printed = printed.getvalue()

    def _run_program(self, code: Any, namespace: dict[str, Any], *, needs_server: bool) -> None:
        script = namespace.get("script", leave_unscripted)
        openers = (trio_responses.open_responses, trio_responses.open_pool)
        namespace["__name__"] = "__main__"
        with self._monkeypatch.context() as patch:
            for opener in openers if needs_server else ():
                patch.setattr(trio_responses, opener.__name__, partial(open_here, opener, script))
            for name in KEYS:
                patch.setenv(name, "sk-docs")
            eval(code, namespace)  # noqa: S307 - the page is part of this repository

    async def _run_in_task(self, code: Any, namespace: dict[str, Any]) -> None:
        with trio.fail_after(A_LONG_TIME), self._monkeypatch.context() as patch:
            async with open_test_server() as server, server.open_client() as connection:
                reach = partial(reach_server, server)
                patch.setattr(trio_responses, "open_responses", reach)
                for name in KEYS:
                    patch.setenv(name, "sk-docs")
                namespace |= {
                    "connection": connection,
                    "open_responses": reach,
                    "server": server,
                    "trio": trio,
                }
                running = eval(code, namespace)  # noqa: S307 - the page is part of this repository
                if inspect.iscoroutine(running):
                    await running

    def _compare(self, example: Example) -> str | None:
        if self._printed == example.parsed:
            return None
        return f"printed:\n{self._printed}\nthe page says:\n{example.parsed}"


def leave_unscripted(_server: ResponsesServer) -> None:
    """Prepare a server that repeats its input."""


@asynccontextmanager
async def open_here(
    opener: Any,
    script: Callable[[ResponsesServer], object],
    url: str | None = None,
    *,
    endpoint: Endpoint | None = None,
    **options: Any,
) -> AsyncGenerator[Any, None]:
    """Open a connection or a pool to a new embedded server, which a function has prepared."""
    profile = endpoint or Endpoint.of(url)
    async with open_test_server() as server:
        script(server)
        here = replace(profile, url=server.url)
        async with opener(endpoint=here, dial=server.dial, **options) as opened:
            yield opened


@asynccontextmanager
async def reach_server(
    server: ResponsesServer,
    url: str | None = None,
    *,
    endpoint: Endpoint | None = None,
    **options: Any,
) -> AsyncGenerator[ResponsesConnection, None]:
    """Open a connection to the embedded server in place of the given server."""
    profile = endpoint or Endpoint.of(url)
    options.pop("proxy", None)
    here = replace(profile, url=server.url)
    async with server.open_client(endpoint=here, **options) as connection:
        yield connection
