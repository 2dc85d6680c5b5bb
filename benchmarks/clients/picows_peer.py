"""The picows library for asyncio, written in Cython, with this project's decoder."""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import picows

from benchmarks.clients.decoding import decode, request
from benchmarks.clients.session import LARGEST_MESSAGE, AsyncioLoop, socket_url, tls_context
from trio_responses.types import OutputTextDelta, ResponseCompleted

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from benchmarks.clients.session import Input, OnText


class PicowsSession:
    """Turns with a listener that decodes messages and a consumer that waits for them."""

    def __init__(self) -> None:
        self.transport: Any = None
        self._events: deque[Any] = deque()
        self._waiter: asyncio.Future[None] | None = None

    def put(self, payload: bytes) -> None:
        """Decode a message and wake the consumer."""
        self._events.append(decode(payload))
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def turn(self, given: Input, on_text: OnText) -> None:
        """Send one request and read its response."""
        self.transport.send(picows.WSMsgType.TEXT, request(given))
        while True:
            while self._events:
                event = self._events.popleft()
                if type(event) is OutputTextDelta:
                    on_text(event.delta)
                elif type(event) is ResponseCompleted:
                    return
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter


class PicowsClient(AsyncioLoop):
    """The picows library, written in Cython."""

    @asynccontextmanager
    async def connect(self, url: str) -> AsyncGenerator[PicowsSession, None]:
        """Open a connection for the block."""
        session = PicowsSession()

        class PicowsListener(picows.WSListener):  # type: ignore[misc]
            def on_ws_frame(self, transport: Any, frame: Any) -> None:
                del transport
                if frame.msg_type == picows.WSMsgType.TEXT:
                    session.put(frame.get_payload_as_bytes())

        secure = tls_context() if url.startswith("https") else None
        session.transport, _ = await picows.ws_connect(
            PicowsListener, socket_url(url), ssl_context=secure, max_frame_size=LARGEST_MESSAGE
        )
        try:
            yield session
        finally:
            session.transport.disconnect()
            await session.transport.wait_disconnected()
