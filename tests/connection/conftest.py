"""Fixtures of the tests of a connection: a function that opens one, and dials that can fail."""

import math
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

import pytest
import trio

from trio_responses import ReconnectPolicy, ResponsesConnection, open_responses
from trio_responses.testing import ResponsesServer

KEY = "sk-opens-nothing"


class Connect(Protocol):
    """A function that opens a connection to the server of the test (`open_responses`)."""

    def __call__(self, **options: Any) -> AbstractAsyncContextManager[ResponsesConnection]: ...


class BreakableStream(trio.abc.Stream):
    """A stream whose writes fail after a number of them, without an end that could be read."""

    def __init__(self, stream: trio.abc.Stream, writes_left: float = math.inf) -> None:
        self._stream = stream
        self.writes_left = writes_left

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        self.writes_left -= 1
        if self.writes_left < 0:
            await trio.lowlevel.checkpoint()
            raise trio.BrokenResourceError("stale")
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        return await self._stream.receive_some(max_bytes)

    async def aclose(self) -> None:
        await self._stream.aclose()


class Dialler:
    """A dial function that records its times and its streams."""

    def __init__(self, server: ResponsesServer) -> None:
        self._server = server
        self.times: list[float] = []
        self.streams: list[BreakableStream] = []
        self.writes = math.inf
        """The number of writes of each later stream: the upgrade is one."""

    async def __call__(self, host: str, port: int) -> trio.abc.Stream:
        self.times.append(trio.current_time())
        self.streams.append(BreakableStream(await self._server.dial(host, port), self.writes))
        return self.streams[-1]


@pytest.fixture
def dialler(server: ResponsesServer) -> Dialler:
    return Dialler(server)


@pytest.fixture
def connect(server: ResponsesServer) -> Connect:
    def open_connection(**options: Any) -> AbstractAsyncContextManager[ResponsesConnection]:
        if "endpoint" not in options:
            options.setdefault("base_url", server.url)
        options.setdefault("api_key", KEY)
        options.setdefault("reconnect", ReconnectPolicy(jitter=0.0))
        options.setdefault("dial", server.dial)
        options.setdefault("transport", "websocket")
        return open_responses(**options)

    return open_connection
