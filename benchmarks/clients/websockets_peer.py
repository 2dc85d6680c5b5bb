"""The websockets library with this project's decoder, on asyncio."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from websockets.asyncio.client import connect

from benchmarks.clients.decoding import decode, request
from benchmarks.clients.session import AsyncioLoop, socket_url, tls_context
from trio_responses.types import OutputTextDelta, ResponseCompleted

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from benchmarks.clients.session import Input, OnText


class WebsocketsSession:
    """Turns with ``recv()`` of websockets."""

    def __init__(self, websocket: Any) -> None:
        self._websocket = websocket

    async def turn(self, given: Input, on_text: OnText) -> None:
        """Send one request and read its response."""
        await self._websocket.send(request(given), text=True)
        while True:
            event = decode(await self._websocket.recv(decode=False))
            if type(event) is OutputTextDelta:
                on_text(event.delta)
            elif type(event) is ResponseCompleted:
                return


class WebsocketsClient(AsyncioLoop):
    """The websockets library without compression, as the OpenAI SDK uses it."""

    @asynccontextmanager
    async def connect(self, url: str) -> AsyncGenerator[WebsocketsSession, None]:
        """Open a connection for the block."""
        secure = {"ssl": tls_context()} if url.startswith("https") else {}
        async with connect(
            socket_url(url), max_size=None, compression=None, proxy=None, **secure
        ) as websocket:
            yield WebsocketsSession(websocket)
