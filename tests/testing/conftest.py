from collections.abc import AsyncGenerator

import pytest

from trio_responses.testing import ResponsesServer, open_test_server


@pytest.fixture
async def server() -> AsyncGenerator[ResponsesServer, None]:
    async with open_test_server() as server:
        yield server
        assert server.errors == []
