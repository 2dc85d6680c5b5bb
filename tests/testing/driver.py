"""A raw WebSocket client over any stream, to drive the test server with."""

import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Self

import msgspec
import pytest
import trio
import trio.testing
from trio_websocket import ConnectionClosed, WebSocketConnection, wrap_client_stream

from trio_responses.testing import ResponsesServer

Json = dict[str, Any]


IDLE_SECONDS = 0.05
"""Seconds without activity on real sockets before the clock jumps. The kernel delivers bytes on a
loopback socket at once, so that the speed of the machine does not matter."""


def _run_without_waiting(main: Callable[[], Awaitable[Any]], **options: Any) -> Any:
    options["clock"] = trio.testing.MockClock(autojump_threshold=0)
    return trio.run(main, **options)


_trio_run = trio.run


def run_over_sockets(main: Callable[..., Awaitable[Any]], *args: Any, **options: Any) -> Any:
    """Run `main` under a clock that jumps when all tasks and real sockets are idle.

    A test of a command may put it in the place of `trio.run`.
    """
    options["clock"] = trio.testing.MockClock(autojump_threshold=IDLE_SECONDS)
    return _trio_run(main, *args, **options)


# pytest-trio takes a clock only from a parameter of the test. These marks run all tests of a module
# under a clock that jumps, so that no deadline depends on the speed of the machine. OVER_SOCKETS is
# for tests with both ends of real sockets in this process.
NO_WAITING = pytest.mark.trio(run=_run_without_waiting)
OVER_SOCKETS = pytest.mark.trio(run=run_over_sockets)


class Client:
    def __init__(self, websocket: WebSocketConnection, stream: trio.abc.Stream) -> None:
        self.websocket = websocket
        self.stream = stream

    async def send(self, **fields: Any) -> None:
        await self.send_json({"type": "response.create", "model": "gpt-test", **fields})

    async def steer(self, response_id: object, input: object, **fields: Any) -> None:  # noqa: A002
        frame = {"type": "response.steer", "previous_response_id": response_id, "input": input}
        await self.send_json({**frame, **fields})

    async def send_json(self, value: Any) -> None:
        await self.websocket.send_message(msgspec.json.encode(value).decode())

    async def send_frame(self, frame: str | bytes) -> None:
        await self.websocket.send_message(frame)

    async def receive(self) -> Json:
        frame = await self.websocket.get_message()
        assert isinstance(frame, str)
        value: Json = msgspec.json.decode(frame)
        return value

    async def events(self) -> list[Json]:
        """Return the events up to the end of one response, or up to an error."""
        events = [await self.receive()]
        while events[-1]["type"] not in _TERMINAL:
            events.append(await self.receive())
        return events

    async def until(self, kind: str) -> list[Json]:
        """Return the events up to the next event of a type, given without ``response.``."""
        events = [await self.receive()]
        while events[-1]["type"].removeprefix("response.") != kind:
            events.append(await self.receive())
        return events

    async def turn(self, **fields: Any) -> Json:
        """Run one turn and return its last event."""
        await self.send(**fields)
        return (await self.events())[-1]

    async def response(self, **fields: Any) -> Json:
        """Run one turn that completes, and return its response."""
        event = await self.turn(**fields)
        assert event["type"] == "response.completed", event
        response: Json = event["response"]
        return response

    async def error(self, **fields: Any) -> Json:
        """Run one turn that ends in an error frame, and return the frame."""
        event = await self.turn(**fields)
        assert event["type"] == "error", event
        return event

    async def close_code(self) -> int:
        """Read until the connection ends, and return its close code."""
        with contextlib.suppress(ConnectionClosed):
            while True:
                await self.websocket.get_message()
        assert self.websocket.closed is not None
        return self.websocket.closed.code

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        with trio.move_on_after(1):
            await self.websocket.aclose()
        await trio.aclose_forcefully(self.stream)


_TERMINAL = ("response.completed", "response.failed", "response.incomplete", "error")


@asynccontextmanager
async def connect(
    server: ResponsesServer,
    *,
    path: str = "/v1/responses",
    headers: dict[str, str] | None = None,
    stream: trio.abc.Stream | None = None,
) -> AsyncGenerator[Client, None]:
    if stream is None:
        stream = await server.connect_stream()
    extra = [(name.encode(), value.encode()) for name, value in (headers or {}).items()]
    async with trio.open_nursery() as nursery:
        websocket = await wrap_client_stream(
            nursery,
            stream,  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
            "localhost",
            path,
            extra_headers=extra,
        )
        async with Client(websocket, stream) as client:
            yield client
        nursery.cancel_scope.cancel()


def text_of(response: Json) -> str:
    return "".join(
        part["text"]
        for item in response["output"]
        if item["type"] == "message"
        for part in item["content"]
    )


async def http(stream: trio.abc.Stream, request: bytes) -> tuple[int, dict[str, str], bytes]:
    """Send a raw HTTP request, and return the status, headers and body of the response."""
    await stream.send_all(request)
    data = b""
    while received := await stream.receive_some():
        data += received
    await stream.aclose()
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    pairs = (line.partition(": ") for line in lines)
    return int(first.split(" ")[1]), {name.lower(): value for name, _, value in pairs}, body


def kinds(events: list[Json]) -> list[str]:
    """Return the types of events without ``response.``, except those of output items and deltas."""
    types = [event["type"].removeprefix("response.") for event in events]
    return [kind for kind in types if not kind.startswith(("output", "content", "function"))]
