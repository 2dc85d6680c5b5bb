"""Helpers for the tests of durable conversations: a store that fails, and two processes in one."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, cast

import msgspec
import trio
import trio.lowlevel

from tests.conversation.rig import open_steady
from trio_responses import Conversation
from trio_responses.stores import ConversationStore, Lease, MemoryStore, Record, StoreUnavailable
from trio_responses.testing import ResponsesServer


class FaultyStore(MemoryStore):
    """A store in memory whose calls can fail before or after their effect, or never return."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.before: dict[str, Callable[[], Awaitable[object]]] = {}
        """Called before the effect of an operation."""
        self.after: dict[str, Callable[[], Awaitable[object]]] = {}
        """Called after the effect of an operation."""
        self.appended: list[bytes] = []
        """The data of all records, in the order in which they were appended."""

    async def _call(self, operation: str, attempt: Callable[[], Awaitable[Any]]) -> Any:
        await self.before.get(operation, trio.lowlevel.checkpoint)()
        result = await super()._call(operation, attempt)
        await self.after.get(operation, trio.lowlevel.checkpoint)()
        return result

    async def append(
        self, lease: Lease, position: int, records: Sequence[Record], *, base: int | None = None
    ) -> None:
        """Append records, and note them."""
        await super().append(lease, position, records, base=base)
        self.appended += [record.data for record in records]


class Canceller(trio.abc.Instrument):
    """Cancels a scope at the n-th step of any task."""

    def __init__(self) -> None:
        self._left: int | None = None
        self._scope = trio.CancelScope()

    @property
    def has_cancelled(self) -> bool:
        """Whether the scope was cancelled."""
        return self._left is None

    def start(self, scope: trio.CancelScope, steps: int | None) -> None:
        """Cancel a scope after so many steps; `None` for never."""
        self._scope, self._left = scope, steps

    def before_task_step(self, task: trio.lowlevel.Task) -> None:  # noqa: ARG002 - of Trio
        """Count a step."""
        if self._left is not None:
            self._left -= 1
            if self._left < 0:
                self._left = None
                self._scope.cancel()


class Killed(BaseException):
    """A process was killed. No code of the library handles this."""


class ProcessStore:
    """A store as one process sees it, which can be killed before or after its n-th call.

    After that nothing of the process reaches the store: neither saves nor the release of the lease.

    :param calls: how many calls the process lives for; `None` for ever.
    :param after: whether the last call has its effect.
    """

    def __init__(
        self, store: MemoryStore, calls: int | None = None, *, after: bool = False
    ) -> None:
        self._store = store
        self._left = calls
        self._after = after
        self.made = 0
        """The number of calls that were made."""

    async def _call(self, name: str, *arguments: Any, **options: Any) -> Any:
        if self._left is not None and self.made > self._left:
            raise Killed
        self.made += 1
        dies = self._left is not None and self.made > self._left
        if dies and not self._after:
            raise Killed
        result = await getattr(self._store, name)(*arguments, **options)
        if dies:
            raise Killed
        return result

    def __getattr__(self, name: str) -> Any:
        """Return an operation of the store."""
        if name not in {
            "acquire",
            "append",
            "delete",
            "find",
            "get",
            "list",
            "read",
            "release",
            "renew",
        }:
            raise AttributeError(name)
        return partial(self._call, name)


async def unavailable() -> None:
    """Fail as a store whose engine is away."""
    await trio.lowlevel.checkpoint()
    raise StoreUnavailable("append", 10.0)


@asynccontextmanager
async def open_owner(
    server: ResponsesServer,
    backend: ConversationStore | ProcessStore,
    conversation_id: str = "work",
    /,
    **options: Any,
) -> AsyncGenerator[Conversation, None]:
    """Open a durable conversation on a connection of its own, as another process would."""
    options.setdefault("model", "m")
    async with (
        open_steady(server) as connection,
        connection.durable_conversation(
            cast("ConversationStore", backend), conversation_id, **options
        ) as conversation,
    ):
        yield conversation


async def records(store: ConversationStore, conversation_id: str = "work") -> list[dict[str, Any]]:
    """Return the records of a conversation from its base on, decoded."""
    stored = await store.get(conversation_id)
    assert stored is not None
    found: list[Record] = []
    while stored.base + len(found) < stored.length:
        found += await store.read(conversation_id, stored.base + len(found))
    return [msgspec.json.decode(record.data) for record in found]


async def record_types(store: ConversationStore, conversation_id: str = "work") -> list[str]:
    """Return the types of the records of a conversation from its base on."""
    return [record["type"] for record in await records(store, conversation_id)]
