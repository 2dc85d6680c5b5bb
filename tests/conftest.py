"""What all tests share: a clock that jumps, and a server in memory."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from inspect import iscoroutinefunction
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from tests.secrets_watch import SecretsWatch
from tests.testing.driver import NO_WAITING, OVER_SOCKETS
from trio_responses.testing import ResponsesServer, open_test_server

A_LONG_TIME = 50_000.0
BOUNDED_FOLDERS = frozenset({"connection", "conversation", "runs"})


def _run_bounded(test: Callable[[], Awaitable[None]], **options: Any) -> None:
    """Run a test under a clock that jumps, and end it where it would wait for ever.

    A clock jumps only to somebody's deadline, so that without one a deadlock would hang.
    """

    async def bounded() -> None:
        with trio.fail_after(A_LONG_TIME):
            await test()

    options["clock"] = MockClock(autojump_threshold=0)
    trio.run(bounded, **options)


def pytest_configure(config: pytest.Config) -> None:
    watch = SecretsWatch()
    watch.start()
    config.pluginmanager.register(watch, "secrets-watch")


def pytest_collection_modifyitems(items: Sequence[pytest.Item]) -> None:
    # pytest-trio takes a clock from the parameters of the test itself only: a fixture's has no
    # effect. The markers come first here, before pytest-trio's own.
    for item in items:
        is_async = isinstance(item, pytest.Function) and iscoroutinefunction(item.obj)
        if is_async and item.path.parent.name in BOUNDED_FOLDERS:
            item.add_marker(pytest.mark.trio(run=_run_bounded), append=False)
        for clock in NO_WAITING, OVER_SOCKETS:
            if clock.mark in item.iter_markers("trio"):
                item.add_marker(clock, append=False)


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
