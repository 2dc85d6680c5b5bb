"""The tasks of a pool: each opens one connection and watches its sockets until the connection ends.

The tasks and the connections are in two nurseries, both shielded from a cancellation of the
pool's block, so that the pool works in the ``finally`` clauses of a cancelled block. Closing
cancels the tasks first, and then closes all connections at the same time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias, final

import trio

from trio_responses._concurrency import open_collapsing_nursery
from trio_responses._connection.engine import drained
from trio_responses._errors import ConnectionClosed, ResponsesError
from trio_responses._pool.scheduler import CloseConnection, OpenConnection, ReturnToEndpoint

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from trio_responses._connection.engine import ConnectionEngine
    from trio_responses._pool.connection import PooledConnection
    from trio_responses._pool.endpoints import EndpointState
    from trio_responses._pool.scheduler import Scheduler

    Connect: TypeAlias = Callable[[trio.Nursery, EndpointState], Awaitable[ConnectionEngine]]

__all__ = ["PoolSupervisor"]


@final
class PoolSupervisor:
    """The supervisor of one pool, which opens, watches and closes connections for its scheduler.

    :param scheduler: requests connections, and is notified of each change of their sockets.
    :param connect: opens a connection to an endpoint, whose tasks run in a nursery.
    """

    def __init__(self, scheduler: Scheduler, connect: Connect) -> None:
        self._scheduler = scheduler
        self._connect = connect
        self._started = False
        self._finished = trio.Event()

    async def start(self, nursery: trio.Nursery) -> None:
        """Run the tasks until `aclose`, and wait until the first connection is open.

        :raises ResponsesError: when the first connection cannot be opened.
        """
        await nursery.start(self._run)
        connection = await self._scheduler.acquire()  # a turn that is not sent
        self._scheduler.release(connection)

    async def drain(self, seconds: float) -> int:
        """Let no other work begin, wait for the work in progress, and close all connections.

        :param seconds: the longest wait.
        :return: the number of turns, runs and calls that had not ended.
        """
        scheduler = self._scheduler
        scheduler.work.refuse(ConnectionClosed("the pool is draining: it takes no new requests"))
        scheduler.assign()  # closes what is idle
        with trio.move_on_after(seconds):
            await scheduler.work.wait_idle()
            for connection in tuple(scheduler.connections):
                await connection.engine.wait_raw_requests()
        cut = scheduler.work.count
        await self.aclose(drained(seconds))
        return cut

    @trio.lowlevel.enable_ki_protection
    async def aclose(self, reason: str = "the pool was closed") -> None:
        """Close all connections, idempotent, within ``timeouts.close``, also when cancelled.

        :param reason: the message of the `ConnectionClosed` that active and waiting turns raise.
        """
        self._scheduler.close(ConnectionClosed(reason))
        if self._started:
            with trio.CancelScope(shield=True):
                await self._finished.wait()
        await trio.lowlevel.checkpoint()

    @trio.lowlevel.enable_ki_protection
    async def _run(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Do what the scheduler requests, until the scheduler is closed."""
        await trio.lowlevel.checkpoint_if_cancelled()  # the shield would hide a cancellation
        self._started = True
        try:
            with trio.CancelScope(shield=True):
                async with open_collapsing_nursery() as connections:
                    async with open_collapsing_nursery() as tasks:
                        task_status.started()
                        # Started here, a task has the context of `open_pool`, not of a turn.
                        async for request in self._scheduler.requests:
                            match request:
                                case OpenConnection(endpoint):
                                    tasks.start_soon(self._run_connection, connections, endpoint)
                                case ReturnToEndpoint(endpoint):
                                    tasks.start_soon(self._return, connections, endpoint)
                                case CloseConnection(connection):
                                    connections.start_soon(connection.engine.aclose)
                        tasks.cancel_scope.cancel()
                    reason = str(self._scheduler.closed_with or "the pool was closed")
                    for connection in self._scheduler.connections:
                        connections.start_soon(connection.engine.aclose, reason)
        finally:
            self._scheduler.close(
                ConnectionClosed("the pool is closed: its async with block has ended")
            )
            self._finished.set()

    async def _run_connection(self, nursery: trio.Nursery, endpoint: EndpointState) -> None:
        """Open a connection of the pool, and watch the connection until its end."""
        try:
            engine = await self._open(nursery, endpoint)
        except ResponsesError as error:
            self._scheduler.handle_failed_opening(endpoint, error)
        else:
            await self._watch(self._scheduler.add(engine, endpoint))

    async def _open(self, nursery: trio.Nursery, endpoint: EndpointState) -> ConnectionEngine:
        try:
            return await self._connect(nursery, endpoint)
        finally:
            endpoint.opening -= 1

    async def _return(self, nursery: trio.Nursery, endpoint: EndpointState) -> None:
        """Open a connection to an endpoint that was given up, as soon as that succeeds.

        Each attempt is as long as the reconnect policy goes on, and a pause precedes it.
        """
        try:
            while True:
                await trio.sleep(endpoint.pause(self._scheduler.limits.retry_pause))
                if endpoint.given_up_with is None:
                    return
                current = self._scheduler.open_connection_to(endpoint)
                try:
                    if current is not None:  # refused turns, or is over HTTP
                        await current.check_reachable()
                        self._scheduler.restore(endpoint)
                        self._scheduler.assign()
                        return
                    endpoint.opening += 1
                    engine = await self._open(nursery, endpoint)
                except ResponsesError as error:
                    self._scheduler.handle_failed_opening(endpoint, error)
                else:
                    break
        finally:
            endpoint.returning = False
        self._scheduler.restore(endpoint)
        await self._watch(self._scheduler.add(engine, endpoint))

    async def _watch(self, connection: PooledConnection) -> None:
        """Notify the scheduler of each socket that a connection opens and loses."""
        try:
            while True:
                await connection.engine.wait_open()
                self._scheduler.handle_open_socket(connection)
                await connection.engine.wait_retired()
                if not connection.is_open:  # open after a rotation
                    self._scheduler.handle_lost_socket(connection)
        except ResponsesError as error:
            self._scheduler.handle_ended_connection(connection, error)
