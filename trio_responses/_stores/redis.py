"""`RedisStore`: conversations in Redis, shared by the processes of many machines.

Each operation is one Lua script (`redis_scripts`), which Redis runs as one atomic step. The keys of
a conversation are ``prefix:{id}:head``, ``:records``, ``:named`` and ``:numbers``. The braces make
them one slot of a cluster. The id is percent-encoded, so it has no braces or colons of its own.

``prefix:index`` is a sorted set with the ids, all with the same score, so that Redis orders them by
their bytes: that is the order of their code points, as UTF-8 keeps it. The index may have too many
ids, never too few for longer than until the next append:

* an id is added before the records are, with every append;
* an id is removed where its conversation does not exist: deleted, or expired, which Redis does not
  report. It is added again if the conversation was made in between (`_remove_from_index`).

A token is the time in microseconds, or one more than the token before. So it needs no counter that
would have to outlive the conversation.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Final, final
from urllib.parse import quote

from trio_responses._concurrency import open_collapsing_nursery
from trio_responses._errors import ConfigurationError
from trio_responses._extras import install_hint
from trio_responses._stores.base import EngineError, StoreBase, check_id
from trio_responses._stores.errors import (
    ConversationBusy,
    ConversationTooLarge,
    LeaseLost,
    StoreError,
    UnsupportedVersion,
)
from trio_responses._stores.interface import ConversationInfo, Lease, Record
from trio_responses._stores.redis_scripts import (
    ACQUIRE,
    APPEND,
    DELETE,
    FIND,
    READ,
    RELEASE,
    RENEW,
)

if TYPE_CHECKING:
    import ssl
    from collections.abc import Sequence
    from types import TracebackType

__all__ = ["RedisStore"]

VERSION: Final = 1
"""The version of the keys and their contents."""
PAGE_BYTES: Final = 1024 * 1024
"""The size from which a page of records has no further record."""
INDEX_PAGE: Final = 200
"""How many ids of the index are looked up in one go."""
LONGEST_TIME: Final = 2**52
"""The longest time in microseconds, 142 years: added to the present time, it is an exact double."""
FIELDS: Final = (
    b"token",
    b"base",
    b"length",
    b"size",
    b"created",
    b"updated",
    b"until",
    b"expires",
)
LOST: Final = {
    b"gone": "the conversation was deleted, or has expired",
    b"taken": "it was released, or another owner took over",
}


@final
class RedisStore(StoreBase):
    """Conversations in Redis 6 or later; needs the extra ``trio-responses[redis]``.

    Redis has to write each change to its append-only file: after a restart without it, a
    conversation would be as it was minutes ago, or be gone. The store checks this as it opens, and
    raises `ConfigurationError` otherwise.

    With ``appendfsync everysec``, the default of Redis, a power failure loses the changes of about
    the last second, and with them turns that were saved. With ``appendfsync always`` it loses
    nothing that was saved. A failover to a replica loses the changes that the replica did not have
    yet. In all these cases an owner that is ahead of the store gets an error with its next save,
    and a later lease has a larger token, unless the clock of the server was set back.

    :param url: ``redis://user:password@host:6379/0``, ``rediss://`` for TLS, or
        ``unix:///path/to/socket?db=0``. User and password are percent-encoded.
    :param prefix: how the names of all keys begin.
    :param allow_volatile: whether a Redis that may lose conversations is accepted: one without
        an append-only file, or one that evicts keys when its memory is full.
    :param max_connections: the greatest number of connections to Redis; more calls wait.
    :param ssl_context: the trusted certificates and the client certificate for ``rediss://``;
        by default those of the system are trusted, and the name of the host is checked.
    """

    system_name = "redis"

    def __init__(
        self,
        url: str,
        *,
        prefix: str = "trio-responses",
        allow_volatile: bool = False,
        max_connections: int = 16,
        ssl_context: ssl.SSLContext | None = None,
        timeout: float = 10.0,
        ttl: float | None = None,
        max_record_bytes: int = 64 * 1024 * 1024,
        max_conversation_bytes: int = 256 * 1024 * 1024,
    ) -> None:
        super().__init__(
            timeout=timeout,
            ttl=ttl,
            max_record_bytes=max_record_bytes,
            max_conversation_bytes=max_conversation_bytes,
        )
        check_id("prefix", prefix)
        if "{" in prefix or "}" in prefix:
            raise ConfigurationError(f"prefix must not contain braces: {prefix!r}")
        if max_connections < 1:
            raise ConfigurationError(f"max_connections must be at least 1, not {max_connections!r}")
        if find_spec("coredis") is None:
            raise ConfigurationError(f"RedisStore needs coredis: {install_hint('redis')}")
        from trio_responses._stores.redis_connections import RedisAddress  # noqa: PLC0415 - extra

        self._address = RedisAddress(url, ssl_context)
        self._prefix = prefix
        self._allow_volatile = allow_volatile
        self._max_connections = max_connections
        self._ttl_argument = b"" if ttl is None else _microseconds(ttl)

    # --- Opening and closing -------------------------------------------------------------

    async def _open(self) -> None:
        from trio_responses._stores.redis_connections import RedisConnections  # noqa: PLC0415

        manager = open_collapsing_nursery()
        nursery = await manager.__aenter__()
        self._redis = RedisConnections(nursery, self._address, self._max_connections)
        try:
            await self._retry("open", self._check_server)
        except BaseException as error:
            self._redis.close()
            await manager.__aexit__(type(error), error, error.__traceback__)
            raise
        self._manager = manager

    async def _close(self) -> None:
        self._redis.close()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the connections. The exception of the block is raised as it is."""
        await super().__aexit__(kind, error, traceback)
        await self._manager.__aexit__(kind, error, traceback)

    async def _check_server(self) -> None:
        """Check what the server keeps, and the version of the keys, which the first store sets."""
        name = f"{self._prefix}:version".encode()
        if not self._allow_volatile:
            self._check_durability(await self._read_information())
        _, version = await self._redis.run((b"SET", [name, VERSION, b"NX"]), (b"GET", [name]))
        if int(version) > VERSION:
            raise UnsupportedVersion(f"the data under {self._prefix!r}", int(version), VERSION)

    async def _read_information(self) -> dict[str, str]:
        answers = await self._redis.run((b"INFO", [b"persistence"]), (b"INFO", [b"memory"]))
        lines = b"\n".join(answers).decode("utf-8", "replace").splitlines()
        return {name: value for name, _, value in (line.partition(":") for line in lines)}

    def _check_durability(self, information: dict[str, str]) -> None:
        """Check that no conversation disappears by itself.

        :raises ConfigurationError: when one may.
        :raises EngineError: while the server does not say.
        """
        if information.get("loading") == "1":  # it does not report its append-only file yet
            raise EngineError("Redis loads its data")
        accept = "or pass allow_volatile=True to accept the loss"
        if information.get("aof_enabled") != "1":
            raise ConfigurationError(
                "this Redis has no append-only file: when it restarts, all turns since its last"
                " snapshot are lost, or all conversations where it makes none. Start it with"
                f" --appendonly yes, {accept}"
            )
        policy = information.get("maxmemory_policy", "")
        if policy.startswith("allkeys") or (
            policy.startswith("volatile") and self._ttl is not None
        ):
            raise ConfigurationError(
                f"this Redis has maxmemory-policy {policy}: when its memory is full, it removes"
                f" conversations without an error. Set maxmemory-policy noeviction, {accept}"
            )

    # --- Leases --------------------------------------------------------------------------

    async def _acquire(self, conversation_id: str, owner: str, seconds: float) -> Lease:
        status, number = await self._redis.run_script(
            ACQUIRE, self._keys(conversation_id), owner, _microseconds(seconds)
        )
        if status == b"busy":
            raise ConversationBusy(conversation_id, int(number) / 1e6)
        return Lease(conversation_id, owner, int(number))

    async def _renew(self, lease: Lease, seconds: float) -> None:
        [status] = await self._redis.run_script(
            RENEW, self._keys(lease.conversation_id), lease.token, _microseconds(seconds)
        )
        _check_owned(lease, status)

    async def _release(self, lease: Lease) -> None:
        await self._redis.run_script(RELEASE, self._keys(lease.conversation_id), lease.token)

    # --- Records -------------------------------------------------------------------------

    async def _append(
        self, lease: Lease, position: int, records: Sequence[Record], base: int | None
    ) -> None:
        contents = [part for record in records for part in (record.key or b"", record.data)]
        *_, (status, *details) = await self._redis.run_after(
            [(b"ZADD", [self._index, 0, lease.conversation_id])],
            APPEND,
            self._keys(lease.conversation_id),
            lease.token,
            position,
            b"" if base is None else base,
            self._max_conversation_bytes,
            self._ttl_argument,
            *contents,
        )
        _check_owned(lease, status)
        if status == b"gap":
            raise StoreError(
                f"the records begin with number {position}, and the log ends before"
                f" {int(details[0])}"
            )
        if status == b"large":
            raise ConversationTooLarge(
                "conversation",
                int(details[0]),
                self._max_conversation_bytes,
                "max_conversation_bytes",
            )

    async def _read(self, conversation_id: str, position: int) -> Sequence[Record]:
        status, *page = await self._redis.run_script(
            READ, self._keys(conversation_id), position, PAGE_BYTES
        )
        if status == b"gap":
            raise StoreError(f"the log has no record {position}")
        return [_parse_record(record) for record in page]

    async def _find(self, conversation_id: str, key: str) -> Record | None:
        found = await self._redis.run_script(FIND, self._keys(conversation_id), key)
        return None if found is None else _parse_record(found)

    # --- Conversations -------------------------------------------------------------------

    async def _get(self, conversation_id: str) -> ConversationInfo | None:
        [(_, found)] = await self._describe([conversation_id])
        return found

    async def _list(self, prefix: str, after: str, limit: int) -> Sequence[ConversationInfo]:
        first = prefix.encode()
        # Of two equal bounds max() returns the one that excludes the id.
        begin = max(b"(" + after.encode(), b"[" + first, key=lambda bound: bound[1:])
        end = b"(" + first + b"\xff" if first else b"+"  # UTF-8 never has this byte
        page = min(limit, INDEX_PAGE)
        listed: list[ConversationInfo] = []
        while len(listed) < limit:
            [members] = await self._redis.run(
                (b"ZRANGEBYLEX", [self._index, begin, end, b"LIMIT", 0, page])
            )
            if not members:
                break
            ids = [member.decode() for member in members]
            described = await self._describe(ids)
            listed += [found for _, found in described if found is not None]
            await self._remove_from_index(
                [name for name, (exists, _) in zip(ids, described, strict=True) if not exists]
            )
            begin = b"(" + members[-1]
        return listed[:limit]

    async def _delete(self, conversation_id: str) -> bool:
        records = await self._redis.run_script(DELETE, self._keys(conversation_id))
        await self._remove_from_index([conversation_id])
        return bool(records)

    async def _describe(self, ids: list[str]) -> list[tuple[bool, ConversationInfo | None]]:
        """Return for each conversation whether it exists, and what it is if it has records."""
        time, *heads = await self._redis.run(
            (b"TIME", []), *((b"HMGET", [self._keys(name)[0], *FIELDS]) for name in ids)
        )
        now = int(time[0]) + int(time[1]) / 1e6
        return [
            (token is not None, _describe(name, fields, now))
            for name, (token, *fields) in zip(ids, heads, strict=True)
        ]

    async def _remove_from_index(self, ids: list[str]) -> None:
        """Remove ids of conversations that do not exist from the index.

        A conversation may have been made since it was looked up, and its id been added before the
        removal here. So the removal comes first, and the ids that exist after it are added again.
        """
        if not ids:
            return
        _, *existing = await self._redis.run(
            (b"ZREM", [self._index, *ids]), *((b"EXISTS", [self._keys(name)[0]]) for name in ids)
        )
        again = [name for name, exists in zip(ids, existing, strict=True) if exists]
        if again:
            pairs = [part for name in again for part in (0, name)]
            await self._redis.run((b"ZADD", [self._index, *pairs]))

    # --- Names ---------------------------------------------------------------------------

    @property
    def _index(self) -> bytes:
        return f"{self._prefix}:index".encode()

    def _keys(self, conversation_id: str) -> list[bytes]:
        """Return the keys of a conversation, as the scripts expect them."""
        start = f"{self._prefix}:{{{quote(conversation_id, safe='')}}}:"
        return [f"{start}{name}".encode() for name in ("head", "records", "named", "numbers")]


def _describe(
    conversation_id: str, fields: Sequence[bytes | None], now: float
) -> ConversationInfo | None:
    """Return what a head says about a conversation; `None` without records."""
    base, length, size, created, updated, until, expires = (int(each or 0) for each in fields)
    if not length:
        return None
    return ConversationInfo(
        conversation_id=conversation_id,
        base=base,
        length=length,
        size=size,
        created_at=created / 1e6,
        updated_at=updated / 1e6,
        leased_until=until / 1e6 if until / 1e6 > now else None,
        expires_at=expires / 1e6 if expires else None,
    )


def _check_owned(lease: Lease, status: bytes) -> None:
    """Raise `LeaseLost` when a script found that the lease is not the latest one."""
    if status in LOST:
        raise LeaseLost(lease, LOST[status])


def _parse_record(stored: bytes) -> Record:
    """Return a record from its key, a NUL, and its data. A key has at least one character."""
    key, _, data = stored.partition(b"\0")
    return Record(data, key.decode() or None)


def _microseconds(seconds: float) -> int:
    return max(1, int(min(seconds * 1e6, LONGEST_TIME)))
