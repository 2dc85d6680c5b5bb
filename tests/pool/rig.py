"""Helpers for the tests of the pool: open pools, hold back answers, and count requests."""

from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from trio_responses import Endpoint, ReconnectPolicy
from trio_responses._pool import ResponsesPool, open_pool
from trio_responses._turn.methods import TurnMethods
from trio_responses.testing import Reply, Request, ResponsesServer, WireBytes

A_LONG_TIME = 50_000.0
STEADY = ReconnectPolicy(jitter=0.0)
NEVER_AGAIN = ReconnectPolicy(attempts=0)


def _run_bounded(test: Callable[[], Awaitable[None]], **options: Any) -> None:
    async def bounded() -> None:
        with trio.fail_after(A_LONG_TIME):
            await test()

    options["clock"] = MockClock(autojump_threshold=0)
    trio.run(bounded, **options)


BOUNDED = pytest.mark.trio(run=_run_bounded)


def open_to(
    server: ResponsesServer, *, lanes: bool = True, **options: Any
) -> AbstractAsyncContextManager[ResponsesPool]:
    """Open a pool to a server in memory."""
    endpoint = Endpoint.compatible(server.url, lanes=lanes, max_age=None, after_error="reuse")
    settings: dict[str, Any] = {
        "endpoint": endpoint,
        "api_key": "any",
        "dial": server.dial,
        "reconnect": STEADY,
        **options,
    }
    return open_pool(**settings)


class Gate:
    """Holds back all answers of a server until it is opened."""

    def __init__(self, server: ResponsesServer) -> None:
        self._server = server
        self._open = trio.Event()
        self.most: Counter[int] = Counter()
        """The largest number of requests that were active at the same time, by connection."""
        self._now: Counter[int] = Counter()
        server.respond_with(self._answer)

    async def _answer(self, request: Request) -> Reply:
        number = request.connection
        self._now[number] += 1
        self.most[number] = max(self.most[number], self._now[number])
        await self._open.wait()
        self._now[number] -= 1
        return Reply(f"answer to {request.text}")

    def open(self) -> None:
        """Let all held and all later answers go."""
        self._open.set()


def answer_once(server: ResponsesServer, fields: Mapping[str, object]) -> None:
    """Answer the next request with an empty response that has some more fields."""
    ended: dict[str, object] = {
        "id": "resp_1",
        "object": "response",
        "status": "completed",
        "output": [],
    }
    server.answer([{"type": "response.completed", "response": {**ended, **fields}}])


async def ask(turns: TurnMethods, text: str, **params: Any) -> str:
    """Run a turn and return its text."""
    response = await turns.create(model="m", input=text, **params)
    return response.output_text


def per_connection(server: ResponsesServer) -> dict[int, int]:
    """Return the number of requests on each connection of the server."""
    return dict(Counter(request.connection for request in server.requests))


async def open_all_connections(pool: ResponsesPool, size: int) -> None:
    """Let a pool of ``per_connection=1`` open all its connections."""
    async with AsyncExitStack() as stack:
        for _ in range(size):
            await stack.enter_async_context(pool.lane())
    assert len(pool.connections) == size


def active_requests(pool: ResponsesPool) -> list[int]:
    """Return the number of active requests on each connection of a pool."""
    return [connection.requests_active for connection in pool.statistics().connections]


async def assert_all_places_are_free(
    pool: ResponsesPool, server: ResponsesServer, size: int, places: int
) -> None:
    """Run as many turns as the connections of a pool have places, and see that none waits."""
    gate = Gate(server)
    async with trio.open_nursery() as nursery:
        for number in range(size * places):
            nursery.start_soon(ask, pool, f"{number}")
        await wait_all_tasks_blocked()
        assert active_requests(pool) == [places] * size
        assert pool.statistics().turns_waiting == 0
        gate.open()


def close_frame(code: int) -> WireBytes:
    """Return a close frame, as a server sends one that ends a socket."""
    return WireBytes(b"\x88\x02" + code.to_bytes(2, "big"))
