"""`MemoryStore`: conversations in the memory of the process, for tests and for one process."""

from __future__ import annotations

import itertools
import time
from typing import TYPE_CHECKING

import msgspec
import trio

from trio_responses._stores.base import StoreBase
from trio_responses._stores.errors import (
    ConversationBusy,
    ConversationTooLarge,
    LeaseLost,
    StoreError,
)
from trio_responses._stores.interface import ConversationInfo, Lease, Record

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["MemoryStore"]


class _Conversation(msgspec.Struct):
    """The state of one conversation."""

    lease: Lease
    leased_until: float
    records: dict[int, Record] = msgspec.field(default_factory=dict[int, Record])
    keys: dict[str, int] = msgspec.field(default_factory=dict[str, int])
    """The number of the latest record with a key."""
    base: int = 0
    length: int = 0
    size: int = 0
    created_at: float = 0.0
    updated_at: float = 0.0


class MemoryStore(StoreBase):
    """Conversations in the memory of the process, which end with it.

    Unlike other stores it keeps its conversations when its block ends. Its time passes as on Trio's
    clock, so a test with ``trio.testing.MockClock`` decides when a lease ends.
    """

    system_name = "memory"

    _conversations: dict[str, _Conversation]
    _clock: trio.abc.Clock

    async def _open(self) -> None:
        clock = trio.lowlevel.current_clock()
        if not hasattr(self, "_conversations"):
            self._conversations = {}
            self._tokens = itertools.count(1)
        elif clock is self._clock:
            return
        # The clocks of two runs of Trio begin at unrelated times.
        self._clock = clock
        self._clock_began_at = time.time() - clock.current_time()

    def _now(self) -> float:
        """Return the time in seconds since 1970."""
        return self._clock_began_at + self._clock.current_time()

    async def _close(self) -> None:
        pass

    def _find_conversation(self, conversation_id: str) -> _Conversation | None:
        """Return a conversation, after the removal of an expired one."""
        found = self._conversations.get(conversation_id)
        if found is None or self._ttl is None:
            return found
        # An owner that ended without a release and without a save leaves an empty conversation.
        if self._now() < (found.updated_at if found.length else found.leased_until) + self._ttl:
            return found
        del self._conversations[conversation_id]
        return None

    def _owned(self, lease: Lease) -> _Conversation:
        """Return the conversation of a lease.

        :raises LeaseLost: if the lease is not the latest one.
        """
        found = self._find_conversation(lease.conversation_id)
        if found is None:
            raise LeaseLost(lease, "the conversation was deleted, or has expired")
        if found.lease.token != lease.token:
            raise LeaseLost(lease, "it was released, or another owner took over")
        return found

    async def _acquire(self, conversation_id: str, owner: str, seconds: float) -> Lease:
        now = self._now()
        found = self._find_conversation(conversation_id)
        if found is None:
            lease = Lease(conversation_id, owner, next(self._tokens))
            found = self._conversations[conversation_id] = _Conversation(lease, now)
        elif found.lease.owner != owner:
            if now < found.leased_until:
                raise ConversationBusy(conversation_id, found.leased_until - now)
            found.lease = Lease(conversation_id, owner, next(self._tokens))
        found.leased_until = now + seconds
        return found.lease

    async def _renew(self, lease: Lease, seconds: float) -> None:
        self._owned(lease).leased_until = self._now() + seconds

    async def _release(self, lease: Lease) -> None:
        found = self._find_conversation(lease.conversation_id)
        if found is None or found.lease.token != lease.token:
            return
        found.leased_until = 0.0
        found.lease = Lease(lease.conversation_id, "", next(self._tokens))
        if not found.length:
            del self._conversations[lease.conversation_id]

    async def _append(
        self, lease: Lease, position: int, records: Sequence[Record], base: int | None
    ) -> None:
        found = self._owned(lease)
        known = found.length - position
        if not 0 <= known <= len(records):
            raise StoreError(
                f"the records {position} to {position + len(records) - 1} do not continue the log,"
                f" which ends before {found.length}"
            )
        base = max(found.base, base or 0)
        new = {
            number: record
            for number, record in enumerate(records[known:], found.length)
            if number >= base or record.key is not None
        }
        removed = [
            number
            for number in range(found.base, min(base, found.length))
            if found.records[number].key is None
        ]
        size = found.size + sum(len(record.data) for record in new.values())
        size -= sum(len(found.records[number].data) for number in removed)
        if size > self._max_conversation_bytes:
            raise ConversationTooLarge(
                "conversation", size, self._max_conversation_bytes, "max_conversation_bytes"
            )
        for number in removed:
            del found.records[number]
        found.records.update(new)
        for number, record in new.items():
            if record.key is not None:
                found.keys[record.key] = number
        found.updated_at = self._now()
        if not found.length:
            found.created_at = found.updated_at
        found.base, found.length, found.size = base, position + len(records), size

    async def _get(self, conversation_id: str) -> ConversationInfo | None:
        found = self._find_conversation(conversation_id)
        return None if found is None or not found.length else self._describe(found)

    def _describe(self, found: _Conversation) -> ConversationInfo:
        is_leased = self._now() < found.leased_until
        return ConversationInfo(
            conversation_id=found.lease.conversation_id,
            base=found.base,
            length=found.length,
            size=found.size,
            created_at=found.created_at,
            updated_at=found.updated_at,
            leased_until=found.leased_until if is_leased else None,
            expires_at=None if self._ttl is None else found.updated_at + self._ttl,
        )

    async def _read(self, conversation_id: str, position: int) -> Sequence[Record]:
        found = self._find_conversation(conversation_id)
        length = found.length if found is not None else 0
        if found is None or not found.base <= position <= length:
            raise StoreError(f"the log has no record {position}")
        return [found.records[number] for number in range(position, length)]

    async def _find(self, conversation_id: str, key: str) -> Record | None:
        found = self._find_conversation(conversation_id)
        number = found.keys.get(key) if found is not None else None
        return None if found is None or number is None else found.records[number]

    async def _list(self, prefix: str, after: str, limit: int) -> Sequence[ConversationInfo]:
        known = (self._find_conversation(name) for name in sorted(self._conversations))
        listed = (
            found
            for found in known
            if found is not None
            and found.length
            and found.lease.conversation_id.startswith(prefix)
            and found.lease.conversation_id > after
        )
        return [self._describe(found) for found in itertools.islice(listed, limit)]

    async def _delete(self, conversation_id: str) -> bool:
        found = self._find_conversation(conversation_id)
        if found is None:
            return False
        del self._conversations[conversation_id]
        return found.length > 0
