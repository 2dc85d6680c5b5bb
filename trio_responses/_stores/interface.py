"""The interface of a store: a log of records for each conversation, with one owner at a time.

A store knows nothing about conversations: it keeps bytes. For each conversation it has

* a **log** of records, numbered from 0, to which the owner appends;
* the **base**: the number of the record with which the present history begins. A record before the
  base is removed, unless it has a key;
* the **lease**: who owns the conversation, until when, and with which *fencing token*. Each new
  lease of a conversation has a larger token than all earlier leases, also after the conversation
  was deleted and created again.

Only the lease with the latest token can append. The store checks the token and appends in one
atomic step, so a process that was paused for any time cannot write after another one took over.
A release ends the token of a lease, too: a call that was cancelled before the release has no effect
after it.

The clock of the store measures the time of a lease. If that clock jumps, a lease ends too early or
too late; the log stays correct, because the token alone decides who may append.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

import msgspec

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["ConversationInfo", "ConversationStore", "Lease", "Record"]


class Lease(msgspec.Struct, frozen=True):
    """The right to append to a conversation."""

    conversation_id: str
    """The conversation."""
    owner: str
    """A random name of the owner, which makes `ConversationStore.acquire` repeatable."""
    token: int
    """The fencing token: larger than that of every earlier lease of the conversation."""


class Record(msgspec.Struct, frozen=True):
    """One record of a log."""

    data: bytes
    """The content, which the store does not read."""
    key: str | None = None
    """The name by which `ConversationStore.find` finds the record, also after a new base."""


class ConversationInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What a store knows about a conversation, without its records."""

    conversation_id: str
    """The conversation."""
    base: int
    """The number of the record with which the present history begins."""
    length: int
    """The number of the next record."""
    size: int
    """The bytes of all records that are kept."""
    created_at: float
    """When the first record was appended, in seconds since 1970 by the clock of the store."""
    updated_at: float
    """When the latest record was appended, likewise."""
    leased_until: float | None
    """When the lease ends, likewise; `None` if the conversation has no owner."""
    expires_at: float | None
    """When the conversation is removed if nothing is appended, likewise; `None` for never."""


@runtime_checkable
class ConversationStore(Protocol):
    """The interface of a store. `trio_responses.testing.check_store` tests an implementation.

    Every method is bounded in time. Cancelled, a method may have had its effect, and the effect may
    come later; the methods are made so that a caller repeats them safely.

    Ids, owners and keys are text of 1 to 512 characters without NUL and without lone surrogates;
    two that differ in one code point are different. Data is any bytes, also none.

    All methods raise `StoreUnavailable` when the engine cannot be reached in time, and
    `ConfigurationError` for invalid arguments. A store that limits the sizes has attributes
    ``max_record_bytes`` and ``max_conversation_bytes``. An attribute ``system_name`` is the kind of
    the store in spans and metrics.
    """

    async def acquire(self, conversation_id: str, owner: str, *, seconds: float) -> Lease:
        """Acquire the lease of a conversation, which exists from then on.

        A conversation without records may be removed a day after its lease has ended.

        Repeated with the same owner, returns the same lease again, with a new end.

        :param owner: a random name, chosen for this lease.
        :param seconds: the length of the lease.
        :raises ConversationBusy: while another owner has the lease.
        """
        ...

    async def renew(self, lease: Lease, *, seconds: float) -> None:
        """Move the end of a lease. One that has ended is renewed unless it had another owner since.

        :param seconds: the length of the lease from now on.
        :raises LeaseLost: when another owner has, or had, acquired the conversation, and after its
            deletion.
        """
        ...

    async def release(self, lease: Lease) -> None:
        """End a lease: from then on it is lost. Does nothing if it was lost before.

        A conversation without records is removed.
        """
        ...

    async def append(
        self, lease: Lease, position: int, records: Sequence[Record], *, base: int | None = None
    ) -> None:
        """Append records, in one atomic step: all of them, or none.

        Repeated after an unknown outcome, appends what is missing: records that the log has already
        from this lease are not appended again.

        :param position: the number of the first of the records.
        :param records: at least one.
        :param base: the number of the record that is the new base, one of ``records``. Records
            before it are removed, unless they have keys; also those of this call.
        :raises LeaseLost: when the lease is not the latest one of the conversation.
        :raises ConversationTooLarge: when a record, or the conversation with it, exceeds a limit of
            the store.
        :raises StoreError: when the records do not continue the log.
        """
        ...

    async def get(self, conversation_id: str) -> ConversationInfo | None:
        """Return what is known about a conversation; `None` if it has no records."""
        ...

    async def read(self, conversation_id: str, position: int) -> Sequence[Record]:
        """Return records from a position on, at most as many as one call can return in time.

        :param position: a number from the base to the length of the log.
        :return: records without a gap, at least one unless the log ends at the position.
        :raises StoreError: when there is no such record.
        """
        ...

    async def find(self, conversation_id: str, key: str) -> Record | None:
        """Return the record with a key, the latest of several; `None` if there is none."""
        ...

    async def list(
        self, *, prefix: str = "", after: str = "", limit: int = 100
    ) -> Sequence[ConversationInfo]:
        """Return conversations that have records, in the order of the code points of their ids.

        :param prefix: how their ids begin.
        :param after: the id after which the list begins, to read on.
        :param limit: the largest number to return.
        """
        ...

    async def delete(self, conversation_id: str) -> bool:
        """Delete a conversation with its lease, and return whether it had records.

        The owner gets `LeaseLost` with its next call. If the effect comes late, a conversation that
        was made in between is deleted.
        """
        ...
