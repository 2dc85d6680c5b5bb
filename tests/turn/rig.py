"""Frames, turns that check their own events, and sockets that break, for the tests of turns."""

import gc
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from types import BuiltinFunctionType, FrameType, FunctionType, ModuleType
from typing import Any, Final, Self, TypeAlias

import msgspec
import trio
from trio.testing import wait_all_tasks_blocked

from trio_responses import ReconnectPolicy, ResponsesConnection
from trio_responses._turn.methods import TurnMethods  # connections, lanes and pools have them
from trio_responses.testing import ResponsesServer
from trio_responses.typing import StreamEvent

Json = dict[str, Any]

NEVER_AGAIN: Final = ReconnectPolicy(attempts=0)
STEADY: Final = ReconnectPolicy(jitter=0.0)
LIMIT_REACHED: Final[Json] = {
    "type": "error",
    "status": 400,
    "error": {
        "type": "invalid_request_error",
        "code": "websocket_connection_limit_reached",
        "message": "Responses websocket connection limit reached (60 minutes).",
    },
}


# --- Frames ------------------------------------------------------------------------------


def created(response_id: str = "resp_raw") -> Json:
    response: Json = {"id": response_id, "object": "response", "status": "in_progress"}
    response["output"] = []
    return {"type": "response.created", "sequence_number": 0, "response": response}


def encoded(frame: Json) -> str:
    return msgspec.json.encode(frame).decode()


def delta(text: str, **place: Any) -> Json:
    at = {"item_id": "msg_raw", "output_index": 0, "content_index": 0, **place}
    return {"type": "response.output_text.delta", "sequence_number": 1, "delta": text, **at}


def message(text: str, item_id: str = "msg_raw") -> Json:
    content: list[Json] = [{"type": "output_text", "text": text, "annotations": []}]
    return {"id": item_id, "type": "message", "role": "assistant", "content": content}


def item_done(item: Json, index: int = 0) -> Json:
    return {
        "type": "response.output_item.done",
        "sequence_number": 2,
        "output_index": index,
        "item": item,
    }


def ended(
    output: Sequence[Json] | None = (), response_id: str = "resp_raw", status: str = "completed"
) -> Json:
    shown = None if output is None else list(output)
    response = {"id": response_id, "object": "response", "status": status, "output": shown}
    return {"type": f"response.{status}", "sequence_number": 3, "response": response}


# --- Turns -------------------------------------------------------------------------------


def heard(text: str) -> str:
    """Return the server's answer to a text, in a first turn."""
    return f'Turn 1: you said "{text}".'


async def ask(turns: TurnMethods, text: str, **params: Any) -> str:
    """Run a turn, and return its text."""
    response = await turns.create(model="m", input=text, **params)
    return response.output_text


async def ask_strictly(turns: TurnMethods, text: str) -> None:
    """Run a turn, and assert that it gets its own events, each of them once."""
    async with turns.stream(model="m", input=text) as stream:
        events = [event async for event in stream]
    assert numbers(events) == list(range(len(events)))
    assert types(events)[:2] == ["response.created", "response.in_progress"]
    assert types(events)[-1] == "response.completed"
    assert stream.snapshot.text == stream.response.output_text == heard(text)


def types(events: Sequence[StreamEvent]) -> list[str]:
    return [event.type for event in events]


def numbers(events: Sequence[StreamEvent]) -> list[int]:
    return [getattr(event, "sequence_number", -1) for event in events]


def assert_at_rest(connection: ResponsesConnection) -> None:
    """Assert that no turn is under way, no byte is unread, and no lock or lane is held."""
    counted = connection.statistics()
    assert counted.requests_active == 0
    assert counted.unread_bytes == 0
    # A lock or a lane that is never released delays a later turn only, so that this test would
    # not see it: no public number shows them.
    assert not connection._engine.requests._lock.locked()
    assert connection._engine.requests.lanes._reserved == set()
    assert not connection._engine._budget.any_limit_reached


_NOT_HELD: Final = (type, ModuleType, FunctionType, BuiltinFunctionType, FrameType)
_ELSEWHERE: Final = ("trio.", "trio_responses.testing", "logging")
"""Modules whose objects belong to Trio, to the server of the test, or to the interpreter."""


def held_bytes(root: object) -> int:
    """Return the size in bytes of all objects that a connection or a pool refers to.

    The walk leaves out classes, functions, and the objects of Trio and of the test server.
    """
    seen = {id(root)}
    waiting = [root]
    total = 0
    while waiting:
        one = waiting.pop()
        total += sys.getsizeof(one)
        for other in gc.get_referents(one):
            foreign = type(other).__module__.startswith(_ELSEWHERE)
            if id(other) not in seen and not foreign and not isinstance(other, _NOT_HELD):
                seen.add(id(other))
                waiting.append(other)
    return total


class Crowd:
    """A block after which as many tasks live as before it."""

    def __init__(self) -> None:
        self._tasks = 0

    async def __aenter__(self) -> Self:
        await wait_all_tasks_blocked()
        self._tasks = trio.lowlevel.current_statistics().tasks_living
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            await wait_all_tasks_blocked()
            assert trio.lowlevel.current_statistics().tasks_living == self._tasks


# --- Sockets that break ------------------------------------------------------------------


OnWrite: TypeAlias = Callable[[int], Awaitable[None]]


class Wire(trio.abc.Stream):
    """A stream of the client that calls functions of a test before and after each write.

    :param stream: the socket.
    :param before: called with the number of each write, from 0, which is the handshake; what it
        raises is what the write raises, with nothing written.
    :param after: called when all is written.
    """

    def __init__(
        self, stream: trio.abc.Stream, before: OnWrite | None = None, after: OnWrite | None = None
    ) -> None:
        self._stream = stream
        self._before = before
        self._after = after
        self._writes = 0

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await trio.lowlevel.checkpoint()
        number, self._writes = self._writes, self._writes + 1
        if self._before is not None:
            await self._before(number)
        await self._stream.send_all(data)
        if self._after is not None:
            await self._after(number)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        return bytes(await self._stream.receive_some(max_bytes))

    async def aclose(self) -> None:
        await self._stream.aclose()


def open_through(
    server: ResponsesServer, *faults: OnWrite, **options: Any
) -> AbstractAsyncContextManager[ResponsesConnection]:
    """Open a client whose first sockets have one fault each; the later sockets have none."""
    waiting = list(faults)

    async def dial(host: str, port: int) -> trio.abc.Stream:
        stream = await server.dial(host, port)
        return Wire(stream, waiting.pop(0)) if waiting else stream

    options.setdefault("reconnect", STEADY)
    return server.open_client(dial=dial, **options)


async def dead(number: int) -> None:
    """Fail at the first request, as a socket does whose peer is gone."""
    await trio.lowlevel.checkpoint()
    if number > 0:
        raise trio.BrokenResourceError("the socket was dead")


async def stuck(number: int) -> None:
    """Never finish writing the first request, as a socket whose peer does not read."""
    if number > 0:
        await trio.sleep_forever()
