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
    async with open_test_server() as server:
        yield server
        assert server.crashes == []
