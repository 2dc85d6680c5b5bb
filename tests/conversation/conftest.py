"""What the tests of conversations share: a clock that jumps, and a server in memory."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from inspect import iscoroutinefunction
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from trio_responses.testing import ResponsesServer, open_test_server

A_LONG_TIME = 50_000.0


def _run(test: Callable[[], Awaitable[None]], **options: Any) -> None:
    """Run a test under a clock that jumps, and end it where it would wait for ever."""

    async def bounded() -> None:
        with trio.fail_after(A_LONG_TIME):
            await test()

    options["clock"] = MockClock(autojump_threshold=0)
    trio.run(bounded, **options)


def pytest_collection_modifyitems(items: Sequence[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if (
            item.path.parent == here
            and isinstance(item, pytest.Function)
            and iscoroutinefunction(item.obj)
        ):
            item.add_marker(pytest.mark.trio(run=_run), append=False)


@pytest.fixture
async def server() -> AsyncGenerator[ResponsesServer, None]:
    """A server with lanes."""
    async with open_test_server(max_age=None) as server:
        yield server
        assert server.crashes == []


@pytest.fixture
async def narrow_server() -> AsyncGenerator[ResponsesServer, None]:
    """A server that knows the default lane only."""
    async with open_test_server(max_age=None, lanes=False) as server:
        yield server
        assert server.crashes == []
