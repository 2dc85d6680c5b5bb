"""The websockets library with this project's decoder, on Trio: new in websockets 17."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

# The type checkers see the version in the environment, which may be an older one.
from websockets.trio.client import connect  # type: ignore[import-not-found, unused-ignore]

from benchmarks.clients.decoding import decode, request
from benchmarks.clients.session import TrioLoop, socket_url, tls_context
from trio_responses.types import OutputTextDelta, ResponseCompleted

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from benchmarks.clients.session import Input, OnText


class WebsocketsTrioSession:
    """Turns with ``recv()`` of websockets on Trio."""

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


class WebsocketsTrioClient(TrioLoop):
    """The websockets library on Trio, without compression."""

    @asynccontextmanager
    async def connect(self, url: str) -> AsyncGenerator[WebsocketsTrioSession, None]:
        """Open a connection for the block."""
        secure = {"ssl": tls_context()} if url.startswith("https") else {}
        async with connect(
            socket_url(url), max_size=None, compression=None, proxy=None, **secure
        ) as websocket:
            yield WebsocketsTrioSession(websocket)
