"""Helpers for the tests of conversations: opening them, and reading requests and histories."""

from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
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
    """Open a client whose reconnects have no random delays."""
    options.setdefault("reconnect", STEADY)
    return server.open_client(**options)


@asynccontextmanager
async def open_conversation(
    server: ResponsesServer, *, endpoint: Endpoint | None = None, **settings: Any
) -> AsyncGenerator[Conversation, None]:
    """Open a conversation on a connection of its own."""
    options = {} if endpoint is None else {"endpoint": endpoint}
    settings = {"model": "m", **settings}
    async with (
        open_steady(server, **options) as connection,
        connection.conversation(**settings) as conversation,
    ):
        yield conversation


def user(text: str) -> Json:
    """Return the item as which a text is sent."""
    return {"type": "message", "role": "user", "content": text}


def history(conversation: Conversation) -> list[Json]:
    """Return the raw history of a conversation, as its checkpoint has it."""
    items: list[Json] = msgspec.json.decode(conversation.checkpoint())["items"]
    return items


def message_texts(conversation: Conversation) -> list[str]:
    """Return the texts of the messages in a history."""
    return [
        item.content if isinstance(item.content, str) else item.output_text
        for item in conversation.items
        if isinstance(item, Message)
    ]


def parent(request: Request) -> str | None:
    """Return the ``previous_response_id`` of a request; `None` for full input."""
    response_id: str | None = request.get("previous_response_id")
    return response_id


def deltas(server: ResponsesServer) -> list[bool]:
    """Return for each request whether it was a delta."""
    return [parent(request) is not None for request in server.requests]


def sizes(server: ResponsesServer) -> list[int]:
    """Return the number of input items of each request."""
    return [len(request.input_items) for request in server.requests]


async def reserve_all_lanes(connection: ResponsesConnection) -> None:
    """Reserve every lane for a moment.

    :raises ConfigurationError: if one of the 32 lanes is reserved already.
    """
    async with AsyncExitStack() as lanes:
        for _ in range(32):
            await lanes.enter_async_context(connection.lane())
