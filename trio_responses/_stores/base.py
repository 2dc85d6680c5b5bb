"""The part that all stores share: checks of arguments, deadlines, and bounded retries."""

from __future__ import annotations

import math
import random
from abc import ABC, abstractmethod
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, ClassVar, Final, TypeVar

import trio

from trio_responses._concurrency import require_trio
from trio_responses._errors import ConfigurationError
from trio_responses._stores.errors import ConversationTooLarge, StoreError, StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from types import TracebackType
    from typing import Self

    from trio_responses._stores.interface import ConversationInfo, Lease, Record

__all__ = ["EngineError", "StoreBase"]

T = TypeVar("T")

MAX_ID: Final = 512
"""The greatest length of an id or a key, in characters."""
ATTEMPTS: Final = 3
"""How many attempts of equal length fit into the deadline of a call."""
FIRST_PAUSE: Final = 0.05
LAST_PAUSE: Final = 1.0
"""The pauses between attempts, in seconds: the first one, doubled up to the last one."""


class EngineError(Exception):
    """The engine could not be reached, or stopped answering: another attempt may succeed."""


class StoreBase(ABC):
    """A store for the length of an ``async with`` block.

    Each call ends within ``timeout``. A call that the engine does not answer, or that fails with
    `EngineError`, is repeated until then. Repeating a call is safe.

    :param timeout: the longest time for a call with all its attempts, in seconds.
    :param ttl: after how many seconds without a save a conversation is removed; `None` for never.
    :param max_record_bytes: the size of the largest record: the items of one turn.
    :param max_conversation_bytes: the size of the largest conversation.
    """

    system_name: ClassVar[str]
    """The kind of the store, for logs, spans and metrics."""

    def __init__(
        self,
        *,
        timeout: float = 10.0,
        ttl: float | None = None,
        max_record_bytes: int = 64 * 1024 * 1024,
        max_conversation_bytes: int = 256 * 1024 * 1024,
    ) -> None:
        for name, value in (
            ("timeout", timeout),
            ("ttl", ttl),
            ("max_record_bytes", max_record_bytes),
            ("max_conversation_bytes", max_conversation_bytes),
        ):
            if not (name == "ttl" and value is None):
                check_positive(name, value)
        self.timeout: float = timeout
        """The greatest length of a call, in seconds."""
        self._ttl = ttl
        self._max_record_bytes = max_record_bytes
        self._max_conversation_bytes = max_conversation_bytes
        self._is_open = False

    @property
    def max_record_bytes(self) -> int:
        """The size of the largest record."""
        return self._max_record_bytes

    @property
    def max_conversation_bytes(self) -> int:
        """The size of the largest conversation."""
        return self._max_conversation_bytes

    async def __aenter__(self) -> Self:
        """Open the engine, and create or check its schema.

        :raises StoreUnavailable: when the engine cannot be reached.
        :raises UnsupportedVersion: when a later release wrote the schema.
        """
        require_trio()
        if self._is_open:
            raise RuntimeError("the store is open already")
        await self._open()
        self._is_open = True
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the engine, within ``timeout`` seconds, also if the engine does not answer."""
        self._is_open = False
        with trio.move_on_after(self.timeout, shield=True), suppress(EngineError):
            await self._close()

    # --- The interface -------------------------------------------------------------------

    async def acquire(self, conversation_id: str, owner: str, *, seconds: float) -> Lease:
        """Acquire the lease of a conversation: see `ConversationStore.acquire`."""
        check_id("conversation_id", conversation_id)
        check_id("owner", owner)
        check_positive("seconds", seconds)
        return await self._call("acquire", partial(self._acquire, conversation_id, owner, seconds))

    async def renew(self, lease: Lease, *, seconds: float) -> None:
        """Move the end of a lease: see `ConversationStore.renew`."""
        check_positive("seconds", seconds)
        await self._call("renew", partial(self._renew, lease, seconds))

    async def release(self, lease: Lease) -> None:
        """End a lease: see `ConversationStore.release`."""
        await self._call("release", partial(self._release, lease))

    async def append(
        self, lease: Lease, position: int, records: Sequence[Record], *, base: int | None = None
    ) -> None:
        """Append records: see `ConversationStore.append`."""
        records = tuple(records)
        if position < 0 or not records:
            raise StoreError(f"{len(records)} records from {position} on do not continue a log")
        if base is not None and not position <= base < position + len(records):
            raise StoreError(f"the base {base} is none of the records from {position} on")
        for record in records:
            if record.key is not None:
                check_id("key", record.key)
            if len(record.data) > self._max_record_bytes:
                raise ConversationTooLarge(
                    "record", len(record.data), self._max_record_bytes, "max_record_bytes"
                )
        await self._call("append", partial(self._append, lease, position, records, base))

    async def get(self, conversation_id: str) -> ConversationInfo | None:
        """Return what is known about a conversation: see `ConversationStore.get`."""
        check_id("conversation_id", conversation_id)
        return await self._call("get", partial(self._get, conversation_id))

    async def read(self, conversation_id: str, position: int) -> Sequence[Record]:
        """Return records from a position on: see `ConversationStore.read`."""
        check_id("conversation_id", conversation_id)
        return await self._call("read", partial(self._read, conversation_id, position))

    async def find(self, conversation_id: str, key: str) -> Record | None:
        """Return the record with a key: see `ConversationStore.find`."""
        check_id("conversation_id", conversation_id)
        check_id("key", key)
        return await self._call("find", partial(self._find, conversation_id, key))

    async def list(
        self, *, prefix: str = "", after: str = "", limit: int = 100
    ) -> Sequence[ConversationInfo]:
        """Return conversations in the order of their ids: see `ConversationStore.list`."""
        for name, value in (("prefix", prefix), ("after", after)):
            if value:
                check_id(name, value)
        if limit < 1:
            raise ConfigurationError(f"limit must be at least 1, not {limit!r}")
        return await self._call("list", partial(self._list, prefix, after, limit))

    async def delete(self, conversation_id: str) -> bool:
        """Delete a conversation: see `ConversationStore.delete`."""
        check_id("conversation_id", conversation_id)
        return await self._call("delete", partial(self._delete, conversation_id))

    # --- The engine ----------------------------------------------------------------------

    @abstractmethod
    async def _open(self) -> None: ...
    @abstractmethod
    async def _close(self) -> None: ...
    @abstractmethod
    async def _acquire(self, conversation_id: str, owner: str, seconds: float) -> Lease: ...
    @abstractmethod
    async def _renew(self, lease: Lease, seconds: float) -> None: ...
    @abstractmethod
    async def _release(self, lease: Lease) -> None: ...
    @abstractmethod
    async def _append(
        self, lease: Lease, position: int, records: Sequence[Record], base: int | None
    ) -> None: ...
    @abstractmethod
    async def _get(self, conversation_id: str) -> ConversationInfo | None: ...
    @abstractmethod
    async def _read(self, conversation_id: str, position: int) -> Sequence[Record]: ...
    @abstractmethod
    async def _find(self, conversation_id: str, key: str) -> Record | None: ...
    @abstractmethod
    async def _list(self, prefix: str, after: str, limit: int) -> Sequence[ConversationInfo]: ...
    @abstractmethod
    async def _delete(self, conversation_id: str) -> bool: ...

    async def _call(self, operation: str, attempt: Callable[[], Awaitable[T]]) -> T:
        """Make attempts at an operation of the open store.

        :raises StoreUnavailable: when none succeeds within the timeout.
        """
        if not self._is_open:
            name = type(self).__name__
            raise RuntimeError(f"a {name} is used inside its block: async with {name}(...)")
        return await self._retry(operation, attempt)

    async def _retry(self, operation: str, attempt: Callable[[], Awaitable[T]]) -> T:
        """Make attempts at an operation until one succeeds, within the timeout.

        :raises StoreUnavailable: when none does.
        """
        await trio.lowlevel.checkpoint()
        reason, pause = "", FIRST_PAUSE
        with trio.move_on_after(self.timeout):
            while True:
                with trio.move_on_after(self.timeout / ATTEMPTS):
                    try:
                        return await attempt()
                    except EngineError as error:
                        reason = str(error)
                await trio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - no secret
                pause = min(2 * pause, LAST_PAUSE)
        raise StoreUnavailable(operation, self.timeout, reason)


def check_positive(name: str, value: float | None) -> None:
    """Check an option that is a number.

    :raises ConfigurationError: unless it is finite and greater than 0.
    """
    if value is None or not 0 < value < math.inf:
        raise ConfigurationError(f"{name} must be greater than 0, not {value!r}")


def check_id(name: str, value: object) -> None:
    """Check an id or a key, which every engine has to accept.

    :raises ConfigurationError: for an empty or too long one, and for characters that PostgreSQL
        or UTF-8 cannot hold.
    """
    if not isinstance(value, str) or not 0 < len(value) <= MAX_ID:
        given = len(value) if isinstance(value, str) else type(value).__name__
        raise ConfigurationError(f"{name} must be text of 1 to {MAX_ID} characters, not {given}")
    if "\0" in value or any("\ud800" <= each <= "\udfff" for each in value):
        raise ConfigurationError(f"{name} must not contain NUL or lone surrogates: {value!r}")
