"""The client connection that the server opens to itself, over memory streams."""

from __future__ import annotations

import pytest

from trio_responses import AuthenticationError, Timeouts
from trio_responses.testing import open_test_server


async def test_the_client_gets_the_key_and_the_endpoint_of_the_server() -> None:
    async with (
        open_test_server(api_key="sesame", lanes=False) as server,
        server.open_client(timeouts=Timeouts(close=1)) as connection,
    ):
        response = await connection.create(model="m", input="Hello")
        await connection.aclose()
    assert "Hello" in response.output_text
    assert server.connections[0].close_code == 1000


async def test_the_client_can_use_http() -> None:
    async with (
        open_test_server(api_key="sesame") as server,
        server.open_client(transport="http") as connection,
        connection.conversation(model="m") as conversation,
    ):
        await conversation.create("Hello")
        response = await conversation.create("And more")
    assert response.output_text == 'Turn 2: you said "And more".'
    assert [request.transport for request in server.requests] == ["http", "http"]
    assert {connection.transport for connection in server.connections} == {"http"}


async def test_the_client_can_use_a_wrong_key() -> None:
    async with open_test_server(api_key="sesame") as server:
        with pytest.raises(AuthenticationError):
            async with server.open_client(api_key="guess"):
                pass


async def test_an_empty_key_sends_no_key() -> None:
    """``api_key=""`` sends no key, as with ``open_responses()``, and the server refuses that."""
    async with open_test_server(api_key="right") as server:
        with pytest.raises(AuthenticationError):
            async with server.open_client(api_key=""):
                pass
