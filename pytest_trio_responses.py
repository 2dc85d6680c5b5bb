"""The pytest plugin: fixtures for a Responses server in memory and a connection to the server.

pytest loads this module by its entry point, in every test run where the package is installed. The
module is separate from the package, which is only imported when a test uses a fixture.
The fixtures are async generators without a mark: pytest-trio runs them, and so does the plugin of
anyio on its trio backend.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from trio_responses import ResponsesConnection
    from trio_responses.testing import ResponsesServer

MARKER = (
    "responses_server(api_key, max_age, lanes, steering, strict, ...): "
    "options of open_test_server() for the server of the fixture responses_server"
)


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker."""
    config.addinivalue_line("markers", MARKER)


@pytest.fixture
async def responses_server(
    request: pytest.FixtureRequest,
) -> AsyncGenerator[ResponsesServer, None]:
    """Run a Responses server in memory for one test.

    Exceptions of responders, and calls of functions that the request does not offer, fail the test
    at its end, so that no test passes by mistake. A test that expects them clears
    ``responses_server.errors``.
    """
    import trio  # noqa: PLC0415 - only imported if a test uses the fixture

    from trio_responses.testing import open_test_server  # noqa: PLC0415 - likewise

    task = None
    with suppress(RuntimeError):  # in_trio_task() is missing in old releases of Trio
        task = trio.lowlevel.current_task()
    if task is None:
        pytest.fail(
            "the fixture responses_server needs Trio, but the test does not run on Trio:"
            " let the fixture anyio_backend return 'trio'"
        )
    marker = request.node.get_closest_marker("responses_server")
    options: dict[str, Any] = marker.kwargs if marker is not None else {}
    async with open_test_server(**options) as server:
        yield server
        if server.errors:
            raise ExceptionGroup(
                "the Responses server of the test had errors; if the test expects them,"
                " clear responses_server.errors at its end",
                server.errors,
            )


@pytest.fixture
async def responses_connection(
    responses_server: ResponsesServer,
) -> AsyncGenerator[ResponsesConnection, None]:
    """Open a connection in memory to the server of ``responses_server``."""
    async with responses_server.open_client() as connection:
        yield connection
