"""Opening a conversation costs as much for each of its turns, however many it has."""

import sys
from types import FrameType
from typing import Any

import trio

from tests.conversation.durable.rig import open_owner
from tests.conversation.rig import open_steady
from trio_responses import ResponsesConnection
from trio_responses.stores import MemoryStore
from trio_responses.testing import ResponsesServer


async def count_opening(connection: ResponsesConnection, store: MemoryStore) -> int:
    """Return the number of Python calls of an opening."""
    calls = 0

    def count(frame: FrameType, event: str, argument: Any) -> None:  # noqa: ARG001 - of Python
        nonlocal calls
        calls += event == "call"

    sys.setprofile(count)
    try:
        async with connection.durable_conversation(store, "work", model="m"):
            return calls
    finally:
        sys.setprofile(None)


async def test_opening_is_linear_in_the_turns(server: ResponsesServer) -> None:
    costs: list[int] = []
    for turns in 100, 1000:
        async with MemoryStore() as store, open_steady(server) as connection:
            async with open_owner(server, store) as conversation:
                await conversation.create("one")
            [_, turn] = await store.read("work", 0)
            lease = await store.acquire("work", "me", seconds=30)
            await store.append(lease, 2, [turn] * (turns - 1))
            await store.release(lease)
            await connection.create("warm", model="m")
            await trio.sleep(1)
            costs.append(await count_opening(connection, store))
            async with open_owner(server, store) as again:
                assert again.revision == turns
    assert costs[1] < 11 * costs[0]
