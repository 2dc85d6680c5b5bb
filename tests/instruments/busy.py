"""A program in which every metric is recorded: turns, failures, runs, tools, leases and stores."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from tests.conversation.durable.rig import FaultyStore, unavailable
from tests.pool.rig import STEADY
from trio_responses import APIError, RateLimiter, function_tool
from trio_responses.stores import ConversationBusy, LeaseLost, StoreUnavailable
from trio_responses.testing import Call

if TYPE_CHECKING:
    from tests.instruments.telemetry import Telemetry
    from trio_responses import ResponsesConnection
    from trio_responses.testing import ResponsesServer

__all__ = ["be_busy"]


@function_tool
async def look(place: str) -> str:
    """Look."""
    await trio.sleep(1)
    if place == "nowhere":
        raise LookupError(place)
    return place


async def be_busy(server: ResponsesServer, telemetry: Telemetry) -> None:
    """Do everything that has a metric, on a connection and a store that fail at times."""
    async with (
        FaultyStore() as store,
        server.open_client(
            instruments=[telemetry.instrument],
            reconnect=STEADY,
            max_retries=1,
            rate_limiter=RateLimiter(requests_per_minute=600, burst=1 / 600),
        ) as connection,
    ):
        await connection.create(model="m", input="Hello")
        server.fail("rate_limit_exceeded", status=429)
        await connection.create(model="m", input="Hello")  # sent again
        server.fail("invalid_request_error", status=400)
        with pytest.raises(APIError):
            await connection.create(model="m", input="Hello")
        server.refuse(503)
        await server.close_all(1012)
        await connection.create(model="m", input="Hello")  # on another socket
        server.calls(Call("look", {"place": "here"}), Call("look", {"place": "nowhere"}))
        async with connection.conversation(model="m", tools=[look]) as conversation:
            await conversation.run("Look around.")
        await _lose_leases(connection, store)


async def _lose_leases(connection: ResponsesConnection, store: FaultyStore) -> None:
    """Lose a lease, and fail to save; a fork with the id of its source is refused before."""

    async def own(conversation_id: str) -> None:
        async with connection.durable_conversation(store, conversation_id, model="m") as one:
            with pytest.raises(ConversationBusy):
                await one.fork(conversation_id)
            if conversation_id == "lost":
                await store.delete(conversation_id)
            else:
                store.before["append"] = unavailable
            await one.create("Hello")

    with pytest.raises(LeaseLost):
        await own("lost")
    with pytest.raises(StoreUnavailable):
        await own("unavailable")
