"""The tasks of a pool: they open its connections, see their sockets come and go, and close them.

The connections live in one nursery, which a cancellation of the pool's block does not reach: they
are to work in its ``finally`` clauses. What opens and watches them is in another one: a task each.

What belongs elsewhere: when to do so (`spreading.py`).
"""

from __future__ import annotations

from collections import Counter
from contextvars import copy_context
from typing import TYPE_CHECKING, Final, TypeAlias, final

import trio

from trio_responses._concurrency import open_collapsing_nursery
from trio_responses._errors import ConnectionClosed, ResponsesError
from trio_responses._pool.scheduler import Scheduler

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from trio_responses._connection.engine import ConnectionEngine
    from trio_responses._pool.member import Member
    from trio_responses._pool.scheduler import Bounds

    Connect: TypeAlias = Callable[[trio.Nursery], Awaitable[ConnectionEngine]]

__all__ = ["SUMS", "PoolTasks"]

COUNTERS: Final = (
    "sockets_opened",
    "events_received",
    "bytes_received",
    "requests_sent",
    "bytes_sent",
    "retries",
    "undecodable_frames",
    "unclaimed_events",
    "dropped_events",
)
"""What a connection that is gone has left behind."""
SUMS: Final = (*COUNTERS, "requests_active", "unread_bytes")
"""What can be added up of the statistics of connections."""


@final
class PoolTasks:
    """The tasks of one pool.

    :param connect: opens a connection in a nursery.
    """

    def __init__(self, connect: Connect, bounds: Bounds) -> None:
        self.spread: Scheduler = Scheduler(bounds, self)
        self.ended: int = 0
        """How many connections there were that are not there any more."""
        self._past: Counter[str] = Counter()
        """What those of them have counted that count no more."""
        self._ending: list[ConnectionEngine] = []
        """Those that are over for new turns, while turns under way may end on an older socket."""
        self._connect = connect
        self._closing = trio.Event()
        self._finished = trio.Event()
        self._connections: trio.Nursery | None = None
        self._openers: trio.Nursery | None = None
        self._context = copy_context()

    # --- From beginning to end -----------------------------------------------------------

    async def start(self, nursery: trio.Nursery) -> None:
        """Run until `finish`; it begins with one connection.

        :raises ResponsesError: when that cannot be opened.
        """
        await nursery.start(self._run)
        # By the demand of a turn that does not come.
        self.spread.leave_place(await self.spread.take_place())

    @trio.lowlevel.enable_ki_protection
    async def _run(self, *, task_status: trio.TaskStatus[None]) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()  # behind its shield it would not notice
        try:
            with trio.CancelScope(shield=True):
                async with open_collapsing_nursery() as self._connections:
                    async with open_collapsing_nursery() as self._openers:
                        task_status.started()
                        await self._closing.wait()
                        self._openers.cancel_scope.cancel()
                    for member in self.spread.members:
                        self._connections.start_soon(member.engine.aclose)
        finally:
            self.spread.conclude(ConnectionClosed("the pool's nursery has ended"))
            self._finished.set()

    @trio.lowlevel.enable_ki_protection
    async def finish(self) -> None:
        """End all tasks and connections, whether or not this call is cancelled."""
        self.spread.conclude(ConnectionClosed("the pool was closed"))
        self._closing.set()
        if self._connections is not None:
            with trio.CancelScope(shield=True):
                await self._finished.wait()
        await trio.lowlevel.checkpoint()

    # --- On demand -----------------------------------------------------------------------

    def open_another(self) -> None:
        """Begin to open a connection: in the context of the pool, not of whoever needs it first."""
        assert self._openers is not None  # noqa: S101 - nobody has a place before
        self._context.run(self._openers.start_soon, self._open)

    async def _open(self) -> None:
        assert self._connections is not None  # noqa: S101 - this runs inside of it
        try:
            connection = await self._connect(self._connections)
        except ResponsesError as error:
            self.spread.give_up(error)
        except BaseException:  # cancelled, at the end of the pool
            self.spread.opening -= 1
            raise
        else:
            await self._watch(self.spread.welcome(connection))

    async def _watch(self, member: Member) -> None:
        """Tell the spread of each socket that a member loses and gets, until there are no more."""
        try:
            while True:
                socket = await member.engine.wait_open()
                self.spread.serve()
                await socket.retired.wait()
                if not member.is_open:  # else it was replaced by another one that was there before
                    self.spread.lost(member)
        except ResponsesError as error:
            self.spread.ended(member, error)

    def retire(self, member: Member) -> None:
        """Keep what a connection that is over has counted, and still counts."""
        self.ended += 1
        self._ending.append(member.engine)
        self.count_past()

    def count_past(self) -> Counter[str]:
        """Add up what connections have counted that are not there any more."""
        for connection in [one for one in self._ending if one.finished.is_set()]:
            self._ending.remove(connection)
            self._past.update(_counted(connection, COUNTERS))
        past = Counter(self._past)
        for connection in self._ending:
            past.update(_counted(connection, SUMS))
        return past


def _counted(connection: ConnectionEngine, names: Sequence[str]) -> dict[str, int]:
    counted = connection.statistics()
    return {name: getattr(counted, name) for name in names}
