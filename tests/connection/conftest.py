"""What the tests of the connection share: a clock that jumps, a server in memory, the way to it."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from inspect import iscoroutinefunction
from pathlib import Path
from typing import Any, Protocol

import pytest
import trio
from trio.testing import MockClock

from trio_responses import ReconnectPolicy, ResponsesConnection, open_responses
from trio_responses.testing import ResponsesServer, open_test_server

A_LONG_TIME = 10_000_000.0
KEY = "sk-opens-nothing"


def _run(test: Callable[[], Awaitable[None]], **options: Any) -> None:
    """Run a test under a clock that jumps, and end it where it would wait for ever.

    A clock jumps only to somebody's deadline, so that without one a deadlock would hang.
    """

    async def bounded() -> None:
        with trio.fail_after(A_LONG_TIME):
            await test()

    options["clock"] = MockClock(autojump_threshold=0)
    trio.run(bounded, **options)


def pytest_collection_modifyitems(items: Sequence[pytest.Item]) -> None:
    # pytest-trio takes a clock from the parameters of the test itself only: a fixture's has no
    # effect. Its marker comes first here, before pytest-trio's own.
    here = Path(__file__).parent
    for item in items:
        if (
            item.path.parent == here
            and isinstance(item, pytest.Function)
            and iscoroutinefunction(item.obj)
        ):
            item.add_marker(pytest.mark.trio(run=_run), append=False)


class Connect(Protocol):
    """Opens a connection to the server of the test; options are those of `open_responses`."""

    def __call__(self, **options: Any) -> AbstractAsyncContextManager[ResponsesConnection]: ...


@pytest.fixture
async def server() -> AsyncGenerator[ResponsesServer, None]:
    async with open_test_server(max_age=None) as server:
        yield server
        assert server.crashes == []


@pytest.fixture
def connect(server: ResponsesServer) -> Connect:
    def open_connection(**options: Any) -> AbstractAsyncContextManager[ResponsesConnection]:
        if "endpoint" not in options:
            options.setdefault("url", server.url)
        options.setdefault("api_key", KEY)
        options.setdefault("reconnect", ReconnectPolicy(jitter=0.0))
        options.setdefault("dial", server.dial)
        return open_responses(**options)

    return open_connection
