"""The interface of a client in the benchmarks: to connect, and to run a turn.

Every client does the same work in a turn: it sends a request, looks at the type of each event,
passes the text of each delta to ``on_text``, and stops at the end of the response.
"""

from __future__ import annotations

import ssl
from functools import cache
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Sequence
    from contextlib import AbstractAsyncContextManager

    Input: TypeAlias = str | list[dict[str, Any]]
    Main: TypeAlias = Callable[[], Coroutine[Any, Any, dict[str, float]]]
    OnText: TypeAlias = Callable[[str], object]

MODEL: Final = "gpt-5.5"
KEY: Final = "key"
LARGEST_MESSAGE: Final = 64 * 1024 * 1024


class BenchmarkSession(Protocol):
    """An open connection."""

    async def turn(self, given: Input, on_text: OnText) -> None:
        """Send one request and read its response."""
        ...


class BenchmarkClient(Protocol):
    """A client of a Responses server."""

    def run(self, main: Main) -> dict[str, float]:
        """Run a measurement in the event loop of this client."""
        ...

    def connect(self, url: str) -> AbstractAsyncContextManager[BenchmarkSession]:
        """Open a connection for the block."""
        ...

    async def gather(self, calls: Sequence[Callable[[], Awaitable[object]]]) -> None:
        """Run calls at the same time and wait for all."""
        ...

    async def run_beside(
        self, calls: Sequence[Callable[[], Awaitable[object]]], main: Callable[[], Awaitable[None]]
    ) -> None:
        """Run calls at the same time as ``main``, and cancel them at its end."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait for a number of seconds."""
        ...


class TrioLoop:
    """The part that all clients on Trio share."""

    def run(self, main: Main) -> dict[str, float]:
        """Run a measurement in Trio."""
        import trio

        return trio.run(main)

    async def gather(self, calls: Sequence[Callable[[], Awaitable[object]]]) -> None:
        """Run calls in a nursery and wait for all."""
        import trio

        async with trio.open_nursery() as nursery:
            for call in calls:
                nursery.start_soon(call)

    async def run_beside(
        self, calls: Sequence[Callable[[], Awaitable[object]]], main: Callable[[], Awaitable[None]]
    ) -> None:
        """Run calls in a nursery and cancel them at the end of ``main``."""
        import trio

        async with trio.open_nursery() as nursery:
            for call in calls:
                nursery.start_soon(call)
            await main()
            nursery.cancel_scope.cancel()

    async def sleep(self, seconds: float) -> None:
        """Wait for a number of seconds on Trio's clock."""
        import trio

        await trio.sleep(seconds)


class AsyncioLoop:
    """The part that all clients on asyncio share."""

    def run(self, main: Main) -> dict[str, float]:
        """Run a measurement in asyncio."""
        import asyncio

        return asyncio.run(main())

    async def gather(self, calls: Sequence[Callable[[], Awaitable[object]]]) -> None:
        """Run calls in tasks and wait for all."""
        import asyncio

        await asyncio.gather(*(call() for call in calls))

    async def run_beside(
        self, calls: Sequence[Callable[[], Awaitable[object]]], main: Callable[[], Awaitable[None]]
    ) -> None:
        """Run calls in tasks and cancel them at the end of ``main``."""
        import asyncio

        tasks = [asyncio.ensure_future(call()) for call in calls]
        await main()
        for task in tasks:
            task.cancel()
        ends = await asyncio.gather(*tasks, return_exceptions=True)
        failed = [end for end in ends if isinstance(end, Exception)]
        if failed:
            raise failed[0]

    async def sleep(self, seconds: float) -> None:
        """Wait for a number of seconds on the clock of the event loop."""
        import asyncio

        await asyncio.sleep(seconds)


@cache
def tls_context() -> ssl.SSLContext:
    """Return the TLS context that all connections of a peer share."""
    return ssl.create_default_context()


def socket_url(url: str) -> str:
    """Return the WebSocket URL of a base URL."""
    return "ws" + url.removeprefix("http") + "/responses"
