"""Blocks, nurseries, a lock and a notifier for the tasks of a connection.

The nurseries raise a single exception as itself, without an `ExceptionGroup` around it. The lock
and the notifier are cheaper than Trio's while no task waits: `trio.Lock` does a full checkpoint,
some 3 us, at every acquisition, and a request acquires several locks that are hardly ever held.
"""

from __future__ import annotations

import functools
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, NoReturn, ParamSpec, Protocol, TypeVar, final

import trio

from trio_responses._errors import ConnectionClosed

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable
    from types import TracebackType

__all__ = [
    "FastLock",
    "Notifier",
    "open_closing_nursery",
    "open_collapsing_nursery",
    "opens_block",
    "require_trio",
]

P = ParamSpec("P")
T_co = TypeVar("T_co", covariant=True)


class _Decorator(Protocol):
    """A decorator with the type of `contextlib.asynccontextmanager`."""

    def __call__(
        self, function: Callable[P, AsyncGenerator[T_co, None]], /
    ) -> Callable[P, AbstractAsyncContextManager[T_co]]: ...


def require_trio() -> None:
    """Raise an error that explains what to do, unless the caller runs in a Trio task.

    :raises RuntimeError: outside of `trio.run`, also where asyncio runs.
    """
    try:
        trio.lowlevel.current_task()
    except RuntimeError:
        import asyncio  # noqa: PLC0415 - it takes 40 ms, and only an error needs it

        start = "start the program with trio.run(main)"
        with suppress(RuntimeError):
            asyncio.get_running_loop()
            start += ", not with asyncio.run(main)"
        problem = "trio_responses needs Trio, and this code does not run in a Trio task"
        raise RuntimeError(f"{problem}: {start}") from None


# --- Blocks ------------------------------------------------------------------------------


def opens_block(usage: str) -> _Decorator:
    """Return `contextlib.asynccontextmanager`, with errors that say how to use its managers.

    :param usage: the call and its result, such as ``open_responses(...) as connection``.
    """

    def decorate(
        function: Callable[P, AsyncGenerator[T_co, None]], /
    ) -> Callable[P, AbstractAsyncContextManager[T_co]]:
        make = asynccontextmanager(function)

        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> AbstractAsyncContextManager[T_co]:
            return _Block(make(*args, **kwargs), usage)

        return call

    return decorate


@final
class _Block(AbstractAsyncContextManager[T_co]):
    """An async context manager that says what to do when it is used as what its block gets.

    Its methods are no coroutines: they pass on those of the manager, without a frame of their own.
    """

    __slots__ = ("_manager", "_usage")

    def __init__(self, manager: AbstractAsyncContextManager[T_co], usage: str) -> None:
        self._manager = manager
        self._usage = usage

    def __aenter__(self) -> Any:
        return self._manager.__aenter__()

    def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> Any:
        return self._manager.__aexit__(kind, error, traceback)

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("__"):  # a protocol of Python, such as that of `copy`
            raise AttributeError(name)
        raise AttributeError(f"{self!r} has no attribute {name!r}: {self._advice}")

    def __await__(self) -> NoReturn:
        raise TypeError(f"{self!r} cannot be awaited: {self._advice}")

    def __enter__(self) -> NoReturn:
        raise TypeError(f"{self!r} is an async context manager: {self._advice}")

    def __exit__(self, *_exception: object) -> None:
        """Never called: Python looks for the method before it calls ``__enter__``."""

    @property
    def _advice(self) -> str:
        return f"write `async with {self._usage}:`"

    def __repr__(self) -> str:
        return f"<the block of {self._usage.partition(' ')[0]}>"


# --- Nurseries ---------------------------------------------------------------------------


@final
class open_collapsing_nursery:  # noqa: N801 - it is called like `trio.open_nursery`
    """An async context manager that opens a nursery and raises a single exception ungrouped.

    For example, this raises `KeyError` and no group::

        async with open_collapsing_nursery() as nursery:
            nursery.start_soon(fail_with_key_error)
            await trio.sleep_forever()

    Several exceptions at once are raised as a group, as `trio.open_nursery` does. Cancellations
    beside an exception are not counted, and are dropped when one exception is left: an outer
    cancel scope would catch them, and leave a group of one. A group that the block raises itself
    is a single exception.

    A `KeyboardInterrupt` is raised alone, whatever else was raised: Ctrl-C ends the program, and
    the other exceptions are what its end does to the other tasks, such as a `ConnectionLost` of
    the client when the interrupt was raised in a task of the server.
    """

    # A class and no generator: it is smaller and faster, and every socket keeps nurseries open.
    __slots__ = ("_manager",)

    def __init__(self) -> None:
        try:
            self._manager = trio.open_nursery()
        except (AttributeError, RuntimeError):  # what Trio raises outside of trio.run()
            require_trio()
            raise

    # An interrupt between the calls of the two managers would leave the nursery of Trio half open.
    @trio.lowlevel.enable_ki_protection
    async def __aenter__(self) -> trio.Nursery:
        """Open the nursery."""
        return await self._manager.__aenter__()

    @trio.lowlevel.enable_ki_protection
    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        """Wait for the tasks of the nursery, and raise the exceptions of tasks and block."""
        try:
            return await self._manager.__aexit__(kind, error, traceback)
        except BaseExceptionGroup as group:
            single = _find_single(group)
            if single is None:
                raise
            if single is error:
                return False  # Python raises the block's own exception again
            # Raising would set the group as the context, and hide the real context from the reader.
            context = single.__context__
            try:
                raise single
            finally:
                single.__context__ = context


def _find_single(group: BaseExceptionGroup[BaseException]) -> BaseException | None:
    """Return the exception of a group that is raised alone; `None` when there are several."""
    interrupts, _ = group.split(KeyboardInterrupt)
    if interrupts is not None:
        single: BaseException = interrupts
        while isinstance(single, BaseExceptionGroup):
            single = single.exceptions[0]
        return single
    _, errors = group.split(trio.Cancelled)
    return errors.exceptions[0] if errors is not None and len(errors.exceptions) == 1 else None


@final
class open_closing_nursery:  # noqa: N801 - it is called like `trio.open_nursery`
    """An async context manager: a nursery for a resource, which it closes when the block ends.

    For example, the connection is closed before the nursery waits for its tasks::

        async with open_closing_nursery(connection.aclose) as nursery:
            await nursery.start(connection.run)
            yield connection

    An exception of the block is raised also when an outer scope is cancelled, since ``close`` is
    shielded. When a task of the nursery has crashed, its exception is raised in place of the
    `ConnectionClosed` that the block got because of the crash.

    :param close: closes the resource, and must be bounded in time. The tasks end because of it.
    """

    __slots__ = ("_close", "_manager", "_nursery")

    def __init__(self, close: Callable[[], Awaitable[None]]) -> None:
        self._close = close
        self._manager = open_collapsing_nursery()

    @trio.lowlevel.enable_ki_protection
    async def __aenter__(self) -> trio.Nursery:
        """Open the nursery."""
        self._nursery = await self._manager.__aenter__()
        return self._nursery

    @trio.lowlevel.enable_ki_protection
    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        """Close the resource, wait for the tasks, and raise the exceptions of tasks and block."""
        raised = error
        try:
            if isinstance(error, ConnectionClosed) and self._nursery.cancel_scope.cancel_called:
                # A crash cancelled the nursery. The Cancelled that this raises replaces the
                # ConnectionClosed, so that the crash alone is left.
                await trio.lowlevel.checkpoint()
        except BaseException as cancelled:  # noqa: BLE001 - the nursery raises it
            raised = cancelled
        try:
            with trio.CancelScope(shield=True):  # a Cancelled would replace the block's exception
                await self._close()
        except BaseException as failure:  # noqa: BLE001 - likewise
            raised = failure
        if raised is error:
            return await self._manager.__aexit__(kind, error, traceback)
        assert raised is not None  # noqa: S101 - it is not the error of the block
        if not await self._manager.__aexit__(type(raised), raised, raised.__traceback__):
            raise raised
        return True


# --- Locks -------------------------------------------------------------------------------


class FastLock:
    """A fair lock for ``async with`` that costs less than `trio.Lock` while the lock is free.

    Entering is a cancellation point, and a checkpoint only when it has to wait. A task that is
    cancelled while it waits does not hold the lock.
    """

    __slots__ = ("_held", "_queue")

    def __init__(self) -> None:
        self._held = False
        self._queue: trio.lowlevel.ParkingLot | None = None

    def locked(self) -> bool:
        """Whether a task holds the lock."""
        return self._held

    def acquire_free(self) -> None:
        """Take the lock, which no task holds. Not a checkpoint; ends with `release`."""
        self._held = True

    def release(self) -> None:
        """Pass the lock to the task that has waited longest, or release the lock."""
        if self._queue:
            self._queue.unpark()
        else:
            self._held = False

    async def __aenter__(self) -> None:
        """Wait for the lock, in the order of arrival."""
        await trio.lowlevel.checkpoint_if_cancelled()
        if not self._held:
            self._held = True
            return
        if self._queue is None:
            self._queue = trio.lowlevel.ParkingLot()
        await self._queue.park()  # release() wakes this task as the new holder

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Release the lock."""
        self.release()


class Notifier:
    """A repeatable event: each call of `notify` wakes all tasks that are in `wait`.

    Unlike `trio.Event` it has no state: a notification that no task waits for is forgotten. Check
    the condition before every wait.
    """

    __slots__ = ("_event",)

    def __init__(self) -> None:
        self._event: trio.Event | None = None

    def notify(self) -> None:
        """Wake every task that is in `wait`."""
        if self._event is not None:
            self._event.set()
            self._event = None

    def wait(self) -> Awaitable[None]:
        """Wait for the next call of `notify`. A checkpoint."""
        if self._event is None:
            self._event = trio.Event()
        return self._event.wait()
