"""This library, in the ways in which it can be used.

What belongs elsewhere: the bare parts of it that serve as the floor (`floor.py`).
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from benchmarks.clients.session import KEY, MODEL, TrioLoop
from trio_responses import Endpoint, open_responses
from trio_responses.types import OutputTextDelta, ResponseCompleted, ResponseCreate

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from benchmarks.clients.session import Input, OnText
    from trio_responses import Conversation, ResponsesConnection


class StreamSession:
    """Turns by ``connection.stream()``."""

    def __init__(self, connection: ResponsesConnection) -> None:
        self._connection = connection

    async def turn(self, given: Input, on_text: OnText) -> None:
        """Take one turn."""
        async with self._connection.stream(model=MODEL, input=given) as stream:
            async for event in stream:
                if type(event) is OutputTextDelta:
                    on_text(event.delta)


class ChannelSession:
    """Turns by the raw channel."""

    def __init__(self, connection: ResponsesConnection) -> None:
        self._connection = connection

    async def turn(self, given: Input, on_text: OnText) -> None:
        """Take one turn."""
        await self._connection.send(ResponseCreate(model=MODEL, input=given))
        async for event in self._connection:
            if type(event) is OutputTextDelta:
                on_text(event.delta)
            elif type(event) is ResponseCompleted:
                return


class ConversationSession:
    """Turns of a conversation: from the second one on, each sends what is new."""

    def __init__(self, conversation: Conversation) -> None:
        self._conversation = conversation

    async def turn(self, given: Input, on_text: OnText) -> None:
        """Take one turn."""
        async with self._conversation.stream(given) as stream:
            async for event in stream:
                if type(event) is OutputTextDelta:
                    on_text(event.delta)


class StreamClient(TrioLoop):
    """Turns as scopes."""

    @asynccontextmanager
    async def connect(self, url: str) -> AsyncGenerator[StreamSession, None]:
        """Open a connection."""
        async with open_responses(url, api_key=KEY) as connection:
            yield StreamSession(connection)


class LanesClient(TrioLoop):
    """The same, to an endpoint with lanes: turns run side by side."""

    @asynccontextmanager
    async def connect(self, url: str) -> AsyncGenerator[StreamSession, None]:
        """Open a connection."""
        endpoint = Endpoint.compatible(url, lanes=True)
        async with open_responses(endpoint=endpoint, api_key=KEY) as connection:
            yield StreamSession(connection)


class ChannelClient(TrioLoop):
    """The raw channel."""

    @asynccontextmanager
    async def connect(self, url: str) -> AsyncGenerator[ChannelSession, None]:
        """Open a connection."""
        async with open_responses(url, api_key=KEY) as connection:
            yield ChannelSession(connection)


class ConversationClient(TrioLoop):
    """A conversation."""

    @asynccontextmanager
    async def connect(self, url: str) -> AsyncGenerator[ConversationSession, None]:
        """Open a connection, and a conversation on it."""
        async with (
            open_responses(url, api_key=KEY) as connection,
            connection.conversation(model=MODEL) as conversation,
        ):
            yield ConversationSession(conversation)
