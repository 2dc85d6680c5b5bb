"""A response whose events were lost is found again at the server, which ran it once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.testing.driver import NO_WAITING
from trio_responses.testing import open_test_server

if TYPE_CHECKING:
    from trio_responses.typing import TransportOption

pytestmark = NO_WAITING
TEXT = "The answer has several words."
EVENTS = 12
"""More events than the response has."""


@pytest.mark.parametrize("transport", ["http", "websocket"])
@pytest.mark.parametrize("count", range(1, EVENTS))
async def test_a_lost_response_is_recovered_after_any_event(
    count: int, transport: TransportOption
) -> None:
    async with open_test_server(finish_lost=True) as server:
        server.reply(TEXT).drop(after_events=count)
        async with server.open_client(transport=transport, recover="retrieve") as connection:
            response = await connection.create("Hi", model="m", store=True)
            assert response.output_text == TEXT
            assert response.status == "completed"
            assert [request.text for request in server.requests] == ["Hi"]
            stored = await connection.responses.retrieve(response.id)
            assert stored.to_dict()["output"] == response.to_dict()["output"]
