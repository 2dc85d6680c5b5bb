"""A store that notifies the instruments of a connection about each of its operations."""

from __future__ import annotations

from typing import TYPE_CHECKING, final

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager

    from trio_responses._instruments.instrument import Instruments
    from trio_responses._stores.interface import (
        ConversationInfo,
        ConversationStore,
        Lease,
        Record,
    )

__all__ = ["ObservedStore", "system_name"]


def system_name(store: ConversationStore) -> str:
    """Return the kind of a store: its ``system_name``, or else the name of its class."""
    name = getattr(store, "system_name", None)
    return name if isinstance(name, str) else type(store).__name__


@final
class ObservedStore:
    """The methods of a store, each with a notification before and after it."""

    def __init__(self, store: ConversationStore, instruments: Instruments) -> None:
        self._store = store
        self._instruments = instruments
        self._system = system_name(store)

    def _observe(self, operation: str, conversation_id: str | None) -> AbstractContextManager[None]:
        return self._instruments.observe_operation(self._system, operation, conversation_id)

    async def acquire(self, conversation_id: str, owner: str, *, seconds: float) -> Lease:
        """Call `ConversationStore.acquire`."""
        with self._observe("acquire", conversation_id):
            return await self._store.acquire(conversation_id, owner, seconds=seconds)

    async def renew(self, lease: Lease, *, seconds: float) -> None:
        """Call `ConversationStore.renew`."""
        with self._observe("renew", lease.conversation_id):
            await self._store.renew(lease, seconds=seconds)

    async def release(self, lease: Lease) -> None:
        """Call `ConversationStore.release`."""
        with self._observe("release", lease.conversation_id):
            await self._store.release(lease)

    async def append(
        self, lease: Lease, position: int, records: Sequence[Record], *, base: int | None = None
    ) -> None:
        """Call `ConversationStore.append`."""
        with self._observe("append", lease.conversation_id):
            await self._store.append(lease, position, records, base=base)

    async def get(self, conversation_id: str) -> ConversationInfo | None:
        """Call `ConversationStore.get`."""
        with self._observe("get", conversation_id):
            return await self._store.get(conversation_id)

    async def read(self, conversation_id: str, position: int) -> Sequence[Record]:
        """Call `ConversationStore.read`."""
        with self._observe("read", conversation_id):
            return await self._store.read(conversation_id, position)

    async def find(self, conversation_id: str, key: str) -> Record | None:
        """Call `ConversationStore.find`."""
        with self._observe("find", conversation_id):
            return await self._store.find(conversation_id, key)

    async def list(
        self, *, prefix: str = "", after: str = "", limit: int = 100
    ) -> Sequence[ConversationInfo]:
        """Call `ConversationStore.list`."""
        with self._observe("list", None):
            return await self._store.list(prefix=prefix, after=after, limit=limit)

    async def delete(self, conversation_id: str) -> bool:
        """Call `ConversationStore.delete`."""
        with self._observe("delete", conversation_id):
            return await self._store.delete(conversation_id)
