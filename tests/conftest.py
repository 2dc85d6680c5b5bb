"""Fixtures and settings of all tests: clocks that jump, servers, and the profile of Hypothesis.

No test depends on the speed of the machine: time passes on clocks that jump, Hypothesis sets no
limit for an example, and a real limit is there to end a deadlock only.
"""

import gc
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from inspect import iscoroutinefunction
from typing import Any

import pytest
import trio
from hypothesis import HealthCheck, settings
from trio.testing import MockClock

from tests.jumping_clock import let_threads_finish
from tests.secrets_watch import SecretsWatch
from tests.testing.driver import NO_WAITING, OVER_SOCKETS
from trio_responses.testing import ResponsesServer, open_test_server

A_LONG_TIME = 50_000.0
BOUNDED_FOLDERS = frozenset({"connection", "conversation", "durable", "runs"})
"""The folders whose tests all run on a clock that jumps, each for `A_LONG_TIME` at most."""

settings.register_profile(
    "any-machine", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("any-machine")


def _run_bounded(test: Callable[[], Awaitable[None]], **options: Any) -> None:
    """Run a test on a clock that jumps, and fail it after a long time on that clock.

    The clock jumps to the next deadline, so that a deadlock without any deadline would hang.
    """

    async def bounded() -> None:
        with trio.fail_after(A_LONG_TIME):
            await test()

    options["clock"] = MockClock(autojump_threshold=0)
    trio.run(bounded, **options)


def pytest_configure(config: pytest.Config) -> None:
    let_threads_finish()
    watch = SecretsWatch()
    watch.start()
    config.pluginmanager.register(watch, "secrets-watch")


def pytest_collection_finish() -> None:
    """Have the garbage collector pass over what all tests share: that takes a tenth of the time."""
    gc.collect()
    gc.freeze()


def pytest_collection_modifyitems(items: Sequence[pytest.Item]) -> None:
    # pytest-trio takes a clock from the parameters of a test only: a clock of a fixture has no
    # effect. The first marker counts, so these go before pytest-trio's own.
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
        assert server.errors == []


@pytest.fixture
async def lenient_server() -> AsyncGenerator[ResponsesServer, None]:
    """A server that accepts input which OpenAI refuses."""
    async with open_test_server(max_age=None, strict=False) as server:
        yield server
        assert server.errors == []


@pytest.fixture
async def narrow_server() -> AsyncGenerator[ResponsesServer, None]:
    """A server without lanes."""
    async with open_test_server(max_age=None, lanes=False) as server:
        yield server
        assert server.errors == []
