"""A WebSocket for the length of a block, without a connection around it."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio

from trio_responses._concurrency import open_collapsing_nursery
from trio_responses._transport.websocket import connect_transport

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from trio_responses._protocol.frames import Message
    from trio_responses._transport.dialing import ConnectionConfig
    from trio_responses._transport.websocket import WebSocketTransport


@asynccontextmanager
async def open_transport(
    config: ConnectionConfig, headers: tuple[tuple[str, str], ...]
) -> AsyncGenerator[WebSocketTransport, None]:
    """Open a WebSocket, and close it at the end of the block."""
    async with open_collapsing_nursery() as nursery:
        transport = await connect_transport(nursery, config, headers)
        try:
            yield transport
        finally:
            await transport.aclose()


async def receive(transport: WebSocketTransport) -> list[Message]:
    """Receive the next messages, and watch the keepalive as the receive task of a socket does."""
    while True:
        with trio.CancelScope(deadline=transport.keepalive_at):
            return await transport.receive()
        transport.check_keepalive()


async def pause(transport: WebSocketTransport, seconds: float) -> None:
    """Receive nothing for some seconds, as the receive task does while buffers are full."""
    transport.exclude_pause(0.0)
    await trio.sleep(seconds)
    transport.exclude_pause(seconds)
