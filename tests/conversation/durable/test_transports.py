"""Durable conversations over WebSocket and HTTP, on connections and in pools, with all features."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from tests.conversation.durable.rig import open_owner, record_types
from tests.conversation.rig import history, message_texts, open_steady
from tests.conversation.runs.rig import DONE, Worker, keep_calling
from tests.pool.rig import open_to
from trio_responses import (
    ReconnectPolicy,
    ResponsesConnection,
    ResponsesError,
    ResponsesPool,
    SteerReceipt,
)
from trio_responses.stores import ConversationBusy, MemoryStore
from trio_responses.testing import ResponsesServer
from trio_responses.types import Compaction

CLIENTS = ["websocket", "http", "pool", "pool over http"]


@asynccontextmanager
async def open_client(
    server: ResponsesServer, kind: str
) -> AsyncGenerator[ResponsesConnection | ResponsesPool, None]:
    """Open a connection or a pool."""
    options: dict[str, Any] = {"transport": "http"} if kind.endswith("http") else {}
    client: Any
    if kind.startswith("pool"):
        client = open_to(server, **options)
    else:
        client = open_steady(server, **options)
    async with client as opened:
        yield opened


@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize("kind", CLIENTS)
async def test_all_features_over_each_transport(
    server: ResponsesServer, kind: str, *, stored: bool
) -> None:
    """After each step another owner, on another connection, goes on with the same history."""
    worker = Worker()
    options: dict[str, Any] = {"model": "m", "tools": [worker.tool], "store": stored}
    before: list[Any] = []
    texts: list[str] = []

    @asynccontextmanager
    async def own() -> AsyncGenerator[Any, None]:
        async with (
            open_client(server, kind) as client,
            client.durable_conversation(store, "work", **options) as conversation,
        ):
            assert history(conversation) == before
            yield conversation
            before[:] = history(conversation)

    async with MemoryStore() as store:
        if not kind.endswith("http"):
            async with own() as conversation:
                await conversation.warm_up("zero")
            texts.append("zero")
        server.respond_with(keep_calling(2, 2))
        for _ in range(2):
            async with own() as conversation:
                response = await conversation.run("Go", request_id="job")
                assert response.output_text == DONE
        texts.append("Go")
        server.respond_with(None)
        async with own() as conversation, conversation.stream("one") as stream:
            receipts = list[SteerReceipt]()
            async for event in stream:
                if kind.endswith("http"):  # no steering: left early
                    break
                if event.type == "response.output_text.delta" and not receipts:
                    receipts.append(await stream.steer("and two"))
        texts += [] if kind.endswith("http") else ["one", "and two"]
        async with own() as conversation:
            await conversation.create(
                "three", context_management=[{"type": "compaction", "compact_threshold": 5}]
            )
            assert any(isinstance(item, Compaction) for item in conversation.items)
        texts.append("three")
        if stored:
            async with own() as conversation:
                await conversation.create("four", background=True, request_id="four")
            async with own() as conversation:
                await conversation.create("four", background=True, request_id="four")
            texts.append("four")
        async with own() as conversation:
            known = {*texts, "one", "and two"}
            assert [text for text in message_texts(conversation) if text in known] == texts
            fork = await conversation.fork("fork")
            await fork.create("five")
        async with open_owner(server, store, "fork") as fork:
            assert message_texts(fork)[-2] == "five"
    assert set(worker.runs.values()) == {1}
    assert bool(server.http_requests) is (kind.endswith("http") or stored)


async def test_a_window_of_compact_replaces_the_history(server: ResponsesServer) -> None:
    async with MemoryStore() as store:
        async with (
            open_steady(server) as connection,
            connection.durable_conversation(store, "work", model="m") as conversation,
        ):
            await conversation.create("one")
            window = await connection.responses.compact(
                model="m", input=[*conversation.input_items]
            )
            await conversation.replace_history(window.output)
            before = history(conversation)
        assert await record_types(store) == ["base"]
        async with open_owner(server, store) as again:
            assert history(again) == before
            await again.create("two")


async def test_a_conversation_of_a_pool_moves_when_its_connection_ends(
    server: ResponsesServer,
) -> None:
    async with (
        MemoryStore() as store,
        open_to(server, reconnect=ReconnectPolicy(attempts=0, jitter=0.0)) as pool,
        pool.durable_conversation(store, "work", model="m") as conversation,
    ):
        await conversation.create("one")
        token = conversation.fencing_token
        for number in range(3):
            await server.reset_all()
            await trio.sleep(1)
            for connection in pool.connections:
                await connection.aclose()
            await conversation.create(f"more {number}")
        assert conversation.fencing_token == token
        with pytest.raises(ConversationBusy):
            async with open_owner(server, store):
                pass
    async with store, open_owner(server, store) as again:
        assert message_texts(again)[::2] == ["one", "more 0", "more 1", "more 2"]


async def end_connection(server: ResponsesServer, store: MemoryStore) -> None:
    async with (
        open_steady(server) as connection,
        connection.durable_conversation(store, "work", model="m") as conversation,
    ):
        await conversation.create("one")
        await connection.aclose()
        await conversation.create("two")


async def test_a_connection_that_ends_leaves_no_lease(server: ResponsesServer) -> None:
    async with MemoryStore() as store:
        with pytest.raises(ResponsesError):
            await end_connection(server, store)
        async with open_owner(server, store) as again:
            assert message_texts(again)[0] == "one"
