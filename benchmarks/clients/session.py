"""What the suite asks of a client: to connect, and to take a turn.

Every client does the same work in a turn: it sends a request, looks at the type of each event,
gives the text of a delta to `on_text`, and stops at the end of the response.

What belongs elsewhere: the clients themselves (beside this file), what is measured (`worker.py`).
"""

from __future__ import annotations

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
        """Send a request, and take its response, event by event."""
        ...


class BenchmarkClient(Protocol):
    """One way to speak to a Responses server."""

    def run(self, main: Main) -> dict[str, float]:
        """Run a measurement in the event loop that this client needs."""
        ...

    def connect(self, url: str) -> AbstractAsyncContextManager[BenchmarkSession]:
        """Open a connection; it is there when the block begins."""
        ...

    async def gather(self, calls: Sequence[Callable[[], Awaitable[object]]]) -> None:
        """Run all of these at once."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Let time pass."""
        ...


class TrioLoop:
    """The half of a client that is the same for all on Trio."""

    def run(self, main: Main) -> dict[str, float]:
        """Run in Trio."""
        import trio

        return trio.run(main)

    async def gather(self, calls: Sequence[Callable[[], Awaitable[object]]]) -> None:
        """Run all of these in a nursery."""
        import trio

        async with trio.open_nursery() as nursery:
            for call in calls:
                nursery.start_soon(call)

    async def sleep(self, seconds: float) -> None:
        """Let time pass on Trio's clock."""
        import trio

        await trio.sleep(seconds)


class AsyncioLoop:
    """The half of a client that is the same for all on asyncio."""

    def run(self, main: Main) -> dict[str, float]:
        """Run in asyncio."""
        import asyncio

        return asyncio.run(main())

    async def gather(self, calls: Sequence[Callable[[], Awaitable[object]]]) -> None:
        """Run all of these in tasks."""
        import asyncio

        await asyncio.gather(*(call() for call in calls))

    async def sleep(self, seconds: float) -> None:
        """Let time pass on the loop's clock."""
        import asyncio

        await asyncio.sleep(seconds)


def socket_url(url: str) -> str:
    """Turn a base URL into that of the WebSocket."""
    return "ws" + url.removeprefix("http") + "/responses"
