"""Libraries for Trio with this project's decoder: trio-websocket, httpx-ws, httpx and httpx2."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from benchmarks.clients.decoding import decode, request
from benchmarks.clients.session import (
    LARGEST_MESSAGE,
    MODEL,
    TrioLoop,
    socket_url,
    tls_context,
)
from trio_responses.types import OutputTextDelta, ResponseCompleted

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    import trio

    from benchmarks.clients.session import Input, OnText

QUEUE: int = 64


class TrioWebsocketSession:
    """Turns with a task that decodes messages into a memory channel."""

    def __init__(self, websocket: Any, events: trio.MemoryReceiveChannel[Any]) -> None:
        self._websocket = websocket
        self._events = events

    async def turn(self, given: Input, on_text: OnText) -> None:
        """Send one request and read its response."""
        await self._websocket.send_message(request(given).decode())
        async for event in self._events:
            if type(event) is OutputTextDelta:
                on_text(event.delta)
            elif type(event) is ResponseCompleted:
                return


async def _decode_all(websocket: Any, events: trio.MemorySendChannel[Any]) -> None:
    while True:
        await events.send(decode(await websocket.get_message()))


class TrioWebsocketClient(TrioLoop):
    """The trio-websocket library with a larger message limit."""

    @asynccontextmanager
    async def connect(self, url: str) -> AsyncGenerator[TrioWebsocketSession, None]:
        """Open a connection for the block, with a task that reads it."""
        import trio
        from trio_websocket import open_websocket_url

        send, receive = trio.open_memory_channel[Any](QUEUE)
        async with (
            open_websocket_url(
                socket_url(url),
                ssl_context=tls_context() if url.startswith("https") else None,
                max_message_size=LARGEST_MESSAGE,
            ) as websocket,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(_decode_all, websocket, send)
            yield TrioWebsocketSession(websocket, receive)
            nursery.cancel_scope.cancel()


class HttpxWsSession:
    """Turns with ``receive_text()`` of httpx-ws."""

    def __init__(self, websocket: Any) -> None:
        self._websocket = websocket

    async def turn(self, given: Input, on_text: OnText) -> None:
        """Send one request and read its response."""
        await self._websocket.send_text(request(given).decode())
        while True:
            event = decode(await self._websocket.receive_text())
            if type(event) is OutputTextDelta:
                on_text(event.delta)
            elif type(event) is ResponseCompleted:
                return


class HttpxWsClient(TrioLoop):
    """The httpx-ws library on Trio."""

    @asynccontextmanager
    async def connect(self, url: str) -> AsyncGenerator[HttpxWsSession, None]:
        """Open a connection for the block."""
        import httpx
        from httpx_ws import aconnect_ws

        async with (
            httpx.AsyncClient(verify=tls_context()) as client,
            aconnect_ws(
                f"{url}/responses", client, max_message_size_bytes=LARGEST_MESSAGE
            ) as websocket,
        ):
            yield HttpxWsSession(websocket)


class ServerSentSession:
    """Turns over HTTP with ``aiter_lines()`` of httpx or httpx2."""

    def __init__(self, client: Any, url: str) -> None:
        self._client = client
        self._url = url

    async def turn(self, given: Input, on_text: OnText) -> None:
        """Send one request and read its response to the end."""
        body = {"model": MODEL, "input": given, "stream": True}
        async with self._client.stream("POST", self._url, json=body) as response:
            async for line in response.aiter_lines():
                if not line.startswith("data: "):
                    continue
                event = decode(line[6:])
                if type(event) is OutputTextDelta:
                    on_text(event.delta)


class HttpxClient(TrioLoop):
    """The httpx library on Trio, whose first turn opens the connection."""

    @asynccontextmanager
    async def connect(self, url: str) -> AsyncGenerator[ServerSentSession, None]:
        """Create a client for the block."""
        import httpx

        async with httpx.AsyncClient(verify=tls_context()) as client:
            yield ServerSentSession(client, f"{url}/responses")


class Httpx2Client(TrioLoop):
    """The httpx2 library on Trio, whose first turn opens the connection."""

    @asynccontextmanager
    async def connect(self, url: str) -> AsyncGenerator[ServerSentSession, None]:
        """Create a client for the block."""
        import httpx2

        async with httpx2.AsyncClient(verify=tls_context()) as client:
            yield ServerSentSession(client, f"{url}/responses")
