"""What the tests of the connection share: a server in memory, and the way to it."""

from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

import pytest
from trio.testing import MockClock

from trio_responses import ReconnectPolicy, ResponsesConnection, open_responses
from trio_responses.testing import ResponsesServer, open_test_server

KEY = "sk-opens-nothing"


class Connect(Protocol):
    """Opens a connection to the server of the test; options are those of `open_responses`."""

    def __call__(self, **options: Any) -> AbstractAsyncContextManager[ResponsesConnection]: ...


@pytest.fixture
async def server(autojump_clock: MockClock) -> AsyncGenerator[ResponsesServer, None]:
    async with open_test_server(max_age=None) as server:
        yield server
        assert autojump_clock.autojump_threshold == 0
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
