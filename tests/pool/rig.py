"""What the tests of the pool are written in: pools, gates for answers, and who is where."""

from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest
import trio
from trio.testing import MockClock

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
    """Answers that wait: each of them, or all from some moment on."""

    def __init__(self, server: ResponsesServer) -> None:
        self._server = server
        self._open = trio.Event()
        self.most: Counter[int] = Counter()
        """The most answers under way at once, by connection."""
        self._now: Counter[int] = Counter()
        server.respond_with(self._answer)

    async def _answer(self, request: Request) -> Reply:
        place = request.connection
        self._now[place] += 1
        self.most[place] = max(self.most[place], self._now[place])
        await self._open.wait()
        self._now[place] -= 1
        return Reply(f"heard {request.text}")

    def open(self) -> None:
        self._open.set()


async def ask(turns: TurnMethods, text: str, **params: Any) -> str:
    response = await turns.create(model="m", input=text, **params)
    return response.output_text


def per_connection(server: ResponsesServer) -> dict[int, int]:
    """Count the requests of each of the server's connections."""
    return dict(Counter(request.connection for request in server.requests))


def close_frame(code: int) -> WireBytes:
    """Make a close frame: the server's side of an end that it did not plan."""
    return WireBytes(b"\x88\x02" + code.to_bytes(2, "big"))
