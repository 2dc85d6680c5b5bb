"""What the tests of conversations are written in: what went over the wire, and what is kept."""

from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import msgspec

from tests.turn.rig import STEADY, Json
from trio_responses import Conversation, Endpoint, ResponsesConnection
from trio_responses._wire import Message
from trio_responses.testing import Request, ResponsesServer

ENCRYPTED = "reasoning.encrypted_content"


def open_steady(
    server: ResponsesServer, **options: Any
) -> AbstractAsyncContextManager[ResponsesConnection]:
    """Open a client without chance in it."""
    options.setdefault("reconnect", STEADY)
    return server.open_client(**options)


@asynccontextmanager
async def open_talk(
    server: ResponsesServer, *, endpoint: Endpoint | None = None, **settings: Any
) -> AsyncGenerator[Conversation, None]:
    """Open a conversation, on a connection of its own."""
    options = {} if endpoint is None else {"endpoint": endpoint}
    settings = {"model": "m", **settings}
    async with (
        open_steady(server, **options) as connection,
        connection.conversation(**settings) as talk,
    ):
        yield talk


def user(text: str) -> Json:
    """Give the item that a text goes out as."""
    return {"type": "message", "role": "user", "content": text}


def history(conversation: Conversation) -> list[Json]:
    """Give the raw history of a conversation."""
    return [msgspec.json.decode(item) for item in conversation._ledger.history]


def said(conversation: Conversation) -> list[str]:
    """Give the texts of a history of messages."""
    return [
        item.content if isinstance(item.content, str) else item.output_text
        for item in conversation.items
        if isinstance(item, Message)
    ]


def parent(request: Request) -> str | None:
    """Give the response that a request continues: `None` for full input."""
    found: str | None = request.get("previous_response_id")
    return found


def deltas(server: ResponsesServer) -> list[bool]:
    """Say of each request that the server got whether it was a delta."""
    return [parent(request) is not None for request in server.requests]


def sizes(server: ResponsesServer) -> list[int]:
    """Count the items of each request."""
    return [len(request.input_items) for request in server.requests]
