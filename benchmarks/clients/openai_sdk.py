"""The OpenAI SDK in several ways: typed, raw, with lanes, and by the Agents SDK."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any

from openai import AsyncOpenAI

from benchmarks.clients.session import KEY, MODEL, AsyncioLoop

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from benchmarks.clients.session import Input, OnText


class TypedSdkSession:
    """Turns with the typed connection."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    async def turn(self, given: Input, on_text: OnText) -> None:
        """Send one request and read its response."""
        await self._connection.response.create(model=MODEL, input=given)
        async for event in self._connection:
            if event.type == "response.output_text.delta":
                on_text(event.delta)
            elif event.type == "response.completed":
                return


class HTTPSdkSession:
    """Turns over HTTP."""

    def __init__(self, client: AsyncOpenAI) -> None:
        self._client = client

    async def turn(self, given: Input, on_text: OnText) -> None:
        """Send one request and read its response, which ends the iteration."""
        create: Any = self._client.responses.create
        async for event in await create(model=MODEL, input=given, stream=True):
            if event.type == "response.output_text.delta":
                on_text(event.delta)


class RawSdkSession:
    """Turns with ``recv_bytes()`` and the json module."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    async def turn(self, given: Input, on_text: OnText) -> None:
        """Send one request and read its response."""
        request = {"type": "response.create", "model": MODEL, "input": given}
        await self._connection.send_raw(json.dumps(request))
        while True:
            event = json.loads(await self._connection.recv_bytes())
            if event["type"] == "response.output_text.delta":
                on_text(event["delta"])
            elif event["type"] == "response.completed":
                return


class LanesSdkSession:
    """Concurrent turns on one connection: a task reads events into a queue for each lane."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._queues = {f"lane-{number}": asyncio.Queue[Any]() for number in range(1, 33)}
        self._free = list(self._queues)

    async def read(self) -> None:
        """Put each event into the queue of its lane."""
        async for event in self._connection:
            self._queues[event.stream_id].put_nowait(event)

    async def turn(self, given: Input, on_text: OnText) -> None:
        """Send one request on a free lane and read its response."""
        lane = self._free.pop()
        queue = self._queues[lane]
        await self._connection.response.create(model=MODEL, input=given, stream_id=lane)
        while True:
            event = await queue.get()
            if event.type == "response.output_text.delta":
                on_text(event.delta)
            elif event.type == "response.completed":
                break
        self._free.append(lane)


class AgentsSdkSession:
    """Turns with the WebSocket model of the Agents SDK."""

    def __init__(self, client: AsyncOpenAI) -> None:
        from agents import ModelSettings, ModelTracing
        from agents.models.openai_responses import OpenAIResponsesWSModel

        self._model: Any = OpenAIResponsesWSModel(MODEL, client)
        self._settings = ModelSettings()
        self._tracing = ModelTracing.DISABLED

    async def turn(self, given: Input, on_text: OnText) -> None:
        """Send one request and read its response, which ends the iteration."""
        async for event in self._model.stream_response(
            None, given, self._settings, [], None, [], self._tracing
        ):
            if event.type == "response.output_text.delta":
                on_text(event.delta)

    async def aclose(self) -> None:
        """Close the connection."""
        await self._model.close()


class SdkClient(AsyncioLoop):
    """The base of clients of the SDK: one client object for all connections to a URL."""

    @cached_property
    def _client(self) -> AsyncOpenAI:
        return AsyncOpenAI(base_url="http://127.0.0.1/v1", api_key=KEY)

    def _client_for(self, url: str) -> AsyncOpenAI:
        if str(self._client.base_url) != f"{url}/":
            self._client = self._client.copy(base_url=url)
        return self._client


class TypedSdkClient(SdkClient):
    """A client with the typed connection."""

    @asynccontextmanager
    async def connect(self, url: str) -> AsyncGenerator[TypedSdkSession, None]:
        """Open a connection for the block."""
        async with self._client_for(url).responses.connect() as connection:
            yield TypedSdkSession(connection)


class HTTPSdkClient(SdkClient):
    """A client over HTTP, whose first turn opens the connection."""

    @asynccontextmanager
    async def connect(self, url: str) -> AsyncGenerator[HTTPSdkSession, None]:
        """Create a client for the block."""
        async with AsyncOpenAI(base_url=url, api_key=KEY) as client:
            yield HTTPSdkSession(client)


class RawSdkClient(SdkClient):
    """A client with the untyped connection."""

    @asynccontextmanager
    async def connect(self, url: str) -> AsyncGenerator[RawSdkSession, None]:
        """Open a connection for the block."""
        async with self._client_for(url).responses.connect() as connection:
            yield RawSdkSession(connection)


class LanesSdkClient(SdkClient):
    """A client with the typed connection and a queue for each lane."""

    @asynccontextmanager
    async def connect(self, url: str) -> AsyncGenerator[LanesSdkSession, None]:
        """Open a connection for the block, with a task that reads it."""
        async with self._client_for(url).responses.connect() as connection:
            session = LanesSdkSession(connection)
            reader = asyncio.ensure_future(session.read())
            try:
                yield session
            finally:
                reader.cancel()


class AgentsSdkClient(SdkClient):
    """A client with the WebSocket model of the Agents SDK."""

    @asynccontextmanager
    async def connect(self, url: str) -> AsyncGenerator[AgentsSdkSession, None]:
        """Create a model for the block; its first turn opens the connection."""
        session = AgentsSdkSession(self._client_for(url))
        try:
            yield session
        finally:
            await session.aclose()
