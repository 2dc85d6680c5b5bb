"""What the tests of turns share: a server in memory, and a clock that jumps."""

from collections.abc import AsyncGenerator, Sequence

import pytest

from tests.testing.driver import NO_WAITING
from trio_responses.testing import ResponsesServer, open_test_server


def pytest_collection_modifyitems(items: Sequence[pytest.Item]) -> None:
    for item in items:
        if NO_WAITING.mark in item.iter_markers("trio"):
            item.add_marker(NO_WAITING, append=False)  # before the one of pytest-trio's own


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
