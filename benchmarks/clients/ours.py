"""This library, used in several ways."""

from __future__ import annotations

from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from benchmarks.clients.session import KEY, MODEL, TrioLoop
from trio_responses import Endpoint, open_responses
from trio_responses.types import OutputTextDelta, ResponseCompleted, ResponseCreate

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterable, Sequence

    from benchmarks.clients.session import Input, OnText
    from trio_responses import Conversation, ResponsesConnection, ResponseStream


class StreamSession:
    """Turns with ``connection.stream()``."""

    def __init__(self, connection: ResponsesConnection) -> None:
        self._connection = connection

    async def turn(self, given: Input, on_text: OnText) -> None:
        """Send one request and read its response."""
        async with self._connection.stream(given, model=MODEL) as stream:
            async for event in stream:
                if type(event) is OutputTextDelta:
                    on_text(event.delta)


class BatchesSession:
    """Turns with ``stream.batches()``, or with single events where the method is missing."""

    def __init__(self, connection: ResponsesConnection) -> None:
        self._connection = connection

    async def turn(self, given: Input, on_text: OnText) -> None:
        """Send one request and read its response."""
        async with self._connection.stream(given, model=MODEL) as stream:
            async for batch in batches_of(stream):
                for event in batch:
                    if type(event) is OutputTextDelta:
                        on_text(event.delta)


async def single(stream: ResponseStream) -> AsyncGenerator[Sequence[Any], None]:
    """Yield each event in a sequence of its own."""
    async for event in stream:
        yield (event,)


def batches_of(stream: ResponseStream) -> AsyncIterable[Sequence[Any]]:
    """Return the batches of a stream."""
    batches: Any = getattr(stream, "batches", partial(single, stream))
    found: AsyncIterable[Sequence[Any]] = batches()
    return found


class ChannelSession:
    """Turns on the raw channel."""

    def __init__(self, connection: ResponsesConnection) -> None:
        self._connection = connection

    async def turn(self, given: Input, on_text: OnText) -> None:
        """Send one request and read its response."""
        await self._connection.send(ResponseCreate(model=MODEL, input=given))
        async for event in self._connection:
            if type(event) is OutputTextDelta:
                on_text(event.delta)
            elif type(event) is ResponseCompleted:
                return


class ConversationSession:
    """Turns of a conversation. From the second turn on, each sends only the new items."""

    def __init__(self, conversation: Conversation) -> None:
        self._conversation = conversation

    async def turn(self, given: Input, on_text: OnText) -> None:
        """Send one request and read its response."""
        async with self._conversation.stream(given) as stream:
            async for event in stream:
                if type(event) is OutputTextDelta:
                    on_text(event.delta)


class StreamClient(TrioLoop):
    """A client with streams."""

    @asynccontextmanager
    async def connect(self, url: str) -> AsyncGenerator[StreamSession, None]:
        """Open a connection for the block."""
        async with open_responses(url, api_key=KEY) as connection:
            yield StreamSession(connection)


class BatchesClient(TrioLoop):
    """A client with batches of events."""

    @asynccontextmanager
    async def connect(self, url: str) -> AsyncGenerator[BatchesSession, None]:
        """Open a connection for the block."""
        async with open_responses(url, api_key=KEY) as connection:
            yield BatchesSession(connection)


class HTTPClient(TrioLoop):
    """A client with streams over HTTP."""

    @asynccontextmanager
    async def connect(self, url: str) -> AsyncGenerator[StreamSession, None]:
        """Open a connection for the block."""
        async with open_responses(url, api_key=KEY, transport="http") as connection:
            yield StreamSession(connection)


class LanesClient(TrioLoop):
    """A client with streams on an endpoint with lanes, so that turns run at the same time."""

    @asynccontextmanager
    async def connect(self, url: str) -> AsyncGenerator[StreamSession, None]:
        """Open a connection for the block."""
        endpoint = Endpoint.compatible(url, lanes=True)
        async with open_responses(endpoint=endpoint, api_key=KEY) as connection:
            yield StreamSession(connection)


class ChannelClient(TrioLoop):
    """A client with the raw channel."""

    @asynccontextmanager
    async def connect(self, url: str) -> AsyncGenerator[ChannelSession, None]:
        """Open a connection for the block."""
        async with open_responses(url, api_key=KEY) as connection:
            yield ChannelSession(connection)


class ConversationClient(TrioLoop):
    """A client with a conversation."""

    @asynccontextmanager
    async def connect(self, url: str) -> AsyncGenerator[ConversationSession, None]:
        """Open a connection and a conversation for the block."""
        async with (
            open_responses(url, api_key=KEY) as connection,
            connection.conversation(model=MODEL) as conversation,
        ):
            yield ConversationSession(conversation)
