"""Worker threads and their connections, with connections that are under the control of a test."""

from __future__ import annotations

from threading import Event

import pytest
import trio

from trio_responses._stores.base import EngineError
from trio_responses._stores.errors import StoreError
from trio_responses._stores.threads import WorkerThreads

A_LONG_TIME = 1000.0


class Connection:
    """A connection that counts who uses it, and whose `wait` ends by `stop` or `finish`."""

    def __init__(self) -> None:
        self.closed = Event()
        self.was_stopped = False
        self.ends_when_stopped = True
        self.users = 0
        self.finish = Event()

    def use(self) -> Connection:
        assert not self.is_closed
        self.users += 1
        assert self.users == 1
        self.users -= 1
        return self

    def wait(self) -> Connection:
        assert not self.is_closed
        self.users += 1
        self.finish.wait()
        self.users -= 1
        return self

    def stop(self) -> None:
        self.was_stopped = True
        if self.ends_when_stopped:
            self.finish.set()

    def close(self) -> None:
        assert not self.is_closed
        assert not self.users
        self.closed.set()

    @property
    def is_closed(self) -> bool:
        return self.closed.is_set()


class Threads:
    """Worker threads of two connections, which the test sees."""

    def __init__(self) -> None:
        self.made: list[Connection] = []
        self.workers = WorkerThreads(self._connect, 2)

    def _connect(self) -> Connection:
        self.made.append(Connection())
        return self.made[-1]

    async def abandon_a_thread(self) -> Connection:
        """Return the connection of a thread that goes on after its caller was cancelled."""
        used: list[Connection] = []
        started = Event()

        def wait(connection: Connection) -> Connection:
            used.append(connection)
            started.set()
            return connection.wait()

        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.workers.run, wait)
                await trio.to_thread.run_sync(started.wait)
                scope.cancel()
        return used[0]


async def test_a_connection_is_used_again() -> None:
    threads = Threads()
    first = await threads.workers.run(Connection.use)
    assert await threads.workers.run(Connection.use) is first
    await threads.workers.close(A_LONG_TIME)
    assert [each.is_closed for each in threads.made] == [True]
    assert not first.was_stopped


async def test_an_abandoned_thread_keeps_its_connection_until_it_ends() -> None:
    threads = Threads()
    busy = await threads.abandon_a_thread()
    assert await threads.workers.run(Connection.use) is not busy
    busy.finish.set()
    await threads.workers.close(A_LONG_TIME)
    assert [each.is_closed for each in threads.made] == [True, True]


async def test_abandoned_threads_count_as_threads() -> None:
    threads = Threads()
    first = await threads.abandon_a_thread()
    second = await threads.abandon_a_thread()
    with trio.move_on_after(0.01) as scope:
        await threads.workers.run(Connection.use)
    assert scope.cancelled_caught
    first.finish.set()
    assert await threads.workers.run(Connection.use) is not second
    second.finish.set()
    await threads.workers.close(A_LONG_TIME)


async def test_a_refusal_keeps_the_connection_and_an_error_closes_all_that_are_idle() -> None:
    threads = Threads()
    busy = await threads.abandon_a_thread()
    idle = await threads.workers.run(Connection.use)

    def refuse(_: Connection) -> None:
        raise StoreError("no")

    with pytest.raises(StoreError):
        await threads.workers.run(refuse)
    assert await threads.workers.run(Connection.use) is idle
    busy.finish.set()
    while await threads.workers.run(Connection.use) is not busy:
        pass

    def fail(_: Connection) -> None:
        raise EngineError("lost")

    with pytest.raises(EngineError):
        await threads.workers.run(fail)
    assert busy.is_closed
    assert idle.is_closed
    assert await threads.workers.run(Connection.use) is threads.made[-1]
    await threads.workers.close(A_LONG_TIME)


async def test_closing_stops_the_threads_and_waits_for_them() -> None:
    threads = Threads()
    busy = await threads.abandon_a_thread()
    await threads.workers.close(A_LONG_TIME)
    assert busy.was_stopped
    assert busy.is_closed


async def test_closing_leaves_a_thread_that_does_not_end_and_it_closes_its_connection() -> None:
    threads = Threads()
    busy = await threads.abandon_a_thread()
    busy.ends_when_stopped = False
    await threads.workers.close(0.01)
    assert not busy.is_closed
    busy.finish.set()
    await trio.to_thread.run_sync(busy.closed.wait)


async def test_a_connection_that_is_made_while_the_store_closes_is_closed() -> None:
    made: list[Connection] = []
    started, go_on = Event(), Event()

    def connect() -> Connection:
        made.append(Connection())
        started.set()
        go_on.wait()
        return made[0]

    workers = WorkerThreads(connect, 1)
    async with trio.open_nursery() as nursery:

        async def use() -> None:
            with pytest.raises(EngineError, match="closed"):
                await workers.run(Connection.use)

        nursery.start_soon(use)
        await trio.to_thread.run_sync(started.wait)
        await workers.close(0.01)
        go_on.set()
    assert made[0].is_closed
