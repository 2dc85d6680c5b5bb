"""Worker threads for blocking connections: each connection is used by one thread at a time."""

from __future__ import annotations

from threading import Lock
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar, final

import trio

from trio_responses._stores.base import EngineError
from trio_responses._stores.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["BlockingConnection", "WorkerThreads"]


class BlockingConnection(Protocol):
    """A connection whose methods block."""

    def stop(self) -> None:
        """Make the method that runs in another thread fail soon."""
        ...

    def close(self) -> None:
        """Close the connection. Raises nothing."""
        ...


C = TypeVar("C", bound=BlockingConnection)
T = TypeVar("T")


@final
class WorkerThreads(Generic[C]):
    """Run functions in worker threads, each with a connection that no other thread uses.

    A thread takes an idle connection, or makes one, and gives it back itself. So a thread that was
    abandoned by its caller keeps its connection until it ends, and no later call shares it. A
    connection on which anything but `StoreError` was raised is closed, and so are the idle ones,
    which the same restart of the engine may have cut.

    :param connect: makes a connection; called in a worker thread.
    :param size: the largest number of threads, and so of connections. Abandoned threads count.
    """

    def __init__(self, connect: Callable[[], C], size: int) -> None:
        self._connect = connect
        self._size = size
        self._limiter = trio.CapacityLimiter(size)
        self._lock = Lock()  # for the attributes below, which worker threads change
        self._idle: list[C] = []
        self._busy: set[C] = set()
        self._is_closed = False

    async def run(self, function: Callable[[C], T]) -> T:
        """Return what a function returns, which gets a connection and runs in a thread.

        Cancelled, leaves the thread behind. What the function does may still have its effect.
        """
        return await trio.to_thread.run_sync(
            self._work, function, abandon_on_cancel=True, limiter=self._limiter
        )

    async def close(self, seconds: float) -> None:
        """Close all connections, and wait for the threads at most for a number of seconds.

        A thread that takes longer closes its connection when it ends.
        """
        with self._lock:
            self._is_closed = True
            for connection in self._busy:
                connection.stop()
        waiting: list[object] = []
        with trio.move_on_after(seconds):
            while len(waiting) < self._size:
                borrower = object()
                await self._limiter.acquire_on_behalf_of(borrower)
                waiting.append(borrower)
        for borrower in waiting:
            self._limiter.release_on_behalf_of(borrower)
        with trio.move_on_after(seconds):
            await trio.to_thread.run_sync(
                self._close_idle, abandon_on_cancel=True, limiter=trio.CapacityLimiter(1)
            )

    def _work(self, function: Callable[[C], T]) -> T:
        connection = self._take()
        is_usable = False
        try:
            result = function(connection)
            is_usable = True
        except StoreError:
            is_usable = True
            raise
        finally:
            self._give_back(connection, is_usable=is_usable)
        return result

    def _take(self) -> C:
        with self._lock:
            connection = self._idle.pop() if self._idle else None
            is_closed = self._is_closed
        if connection is None and not is_closed:
            connection = self._connect()
        with self._lock:
            if connection is not None and not self._is_closed:
                self._busy.add(connection)
                return connection
        if connection is not None:
            connection.close()
        raise EngineError("the store was closed")

    def _give_back(self, connection: C, *, is_usable: bool) -> None:
        with self._lock:
            self._busy.discard(connection)  # before it is closed: `close` stops only busy ones
            if is_usable and not self._is_closed:
                self._idle.append(connection)
                return
        connection.close()
        self._close_idle()

    def _close_idle(self) -> None:
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()
