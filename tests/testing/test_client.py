"""The server's own client: a connection over memory streams."""

from __future__ import annotations

import pytest

from trio_responses import AuthenticationError, Timeouts
from trio_responses.testing import open_test_server


async def test_the_client_has_the_servers_key_and_profile() -> None:
    async with (
        open_test_server(api_key="sesame", lanes=False) as server,
        server.open_client(timeouts=Timeouts(close=1)) as connection,
    ):
        response = await connection.create(model="m", input="Hello")
        await connection.aclose()
    assert "Hello" in response.output_text
    assert server.connections[0].close_code == 1000


async def test_the_client_may_come_with_a_wrong_key() -> None:
    async with open_test_server(api_key="sesame") as server:
        with pytest.raises(AuthenticationError):
            async with server.open_client(api_key="guess"):
                pass


async def test_an_empty_key_is_no_key() -> None:
    """``api_key=""`` sends none, as with ``open_responses()``: the server refuses it."""
    async with open_test_server(api_key="right") as server:
        with pytest.raises(AuthenticationError):
            async with server.open_client(api_key=""):
                pass
