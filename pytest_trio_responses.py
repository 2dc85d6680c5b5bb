"""The pytest plugin: a Responses server and a connection to it, as fixtures.

pytest finds it by its entry point, so it is loaded in the test runs of everybody who has the
package. It is a module of its own, beside the package, for their sake: nothing of the package is
imported before a test asks for a fixture.

The fixtures are async generators without a mark: pytest-trio runs them, and so does anyio's
plugin on its trio backend, whichever runs the test.

What belongs elsewhere: the server (`trio_responses.testing`), how they are used
(`docs/testing-your-app.md`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from trio_responses import ResponsesConnection
    from trio_responses.testing import ResponsesServer

MARKER = (
    "responses_server(api_key, max_age, lanes, steering, unknown_parameters, ...): "
    "how the server of the fixture responses_server behaves: the options of open_test_server()"
)


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    config.addinivalue_line("markers", MARKER)


@pytest.fixture
async def responses_server(
    request: pytest.FixtureRequest,
) -> AsyncGenerator[ResponsesServer, None]:
    """Run a Responses server in memory, which answers as it is told.

    What its responders raise is raised when the test is over, so that no test passes by mistake,
    and so is an order to call a function that the request did not offer; a test that means it
    empties ``responses_server.crashes``.
    """
    import trio  # noqa: PLC0415 - not before it is needed

    from trio_responses.testing import open_test_server  # noqa: PLC0415 - the same

    if not trio.lowlevel.in_trio_run():
        pytest.fail("responses_server runs on Trio: let the fixture anyio_backend return 'trio'")
    marker = request.node.get_closest_marker("responses_server")
    options: dict[str, Any] = marker.kwargs if marker is not None else {}
    async with open_test_server(**options) as server:
        yield server
        if server.crashes:
            raise ExceptionGroup("the Responses server of the test crashed", server.crashes)


@pytest.fixture
async def responses_connection(
    responses_server: ResponsesServer,
) -> AsyncGenerator[ResponsesConnection, None]:
    """Have a connection to the server of ``responses_server``, in memory."""
    async with responses_server.open_client() as connection:
        yield connection
