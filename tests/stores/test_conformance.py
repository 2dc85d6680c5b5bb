"""Every store keeps the promises of the interface, and `check_store` finds each broken one."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec
import pytest
import trio

from tests.stores.redis_server import needs_redis, open_redis_server
from tests.stores.sql_stores import open_postgres_store, open_sqlite_store
from tests.testing.driver import NO_WAITING
from trio_responses._stores.memory import _Conversation
from trio_responses.stores import (
    ConversationBusy,
    ConversationStore,
    ConversationTooLarge,
    Lease,
    LeaseLost,
    MemoryStore,
    Record,
    RedisStore,
    StoreError,
)
from trio_responses.testing import check_store

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence
    from pathlib import Path

    from tests.stores.postgres_server import PostgresServer
    from trio_responses.stores import ConversationInfo

StoreMaker: TypeAlias = Callable[[], AbstractAsyncContextManager[ConversationStore]]
Methods: TypeAlias = Mapping[str, Any]

LIMITS: dict[str, Any] = {"max_record_bytes": 1 << 20, "max_conversation_bytes": 4 << 20}


@asynccontextmanager
async def open_memory_store(
    _request: pytest.FixtureRequest | None = None, kind: type[MemoryStore] = MemoryStore
) -> AsyncGenerator[StoreMaker]:
    async with kind(**LIMITS) as store:

        @asynccontextmanager
        async def make() -> AsyncGenerator[ConversationStore]:
            yield store

        yield make


@asynccontextmanager
async def use_sqlite(request: pytest.FixtureRequest) -> AsyncGenerator[StoreMaker]:
    folder: Path = request.getfixturevalue("tmp_path")
    yield partial(open_sqlite_store, folder, **LIMITS)


@asynccontextmanager
async def use_postgres(request: pytest.FixtureRequest) -> AsyncGenerator[StoreMaker]:
    server: PostgresServer = request.getfixturevalue("postgres")
    schema = open_postgres_store(server)._schema
    yield partial(open_postgres_store, server, schema=schema, **LIMITS)


@asynccontextmanager
async def use_redis(_request: pytest.FixtureRequest) -> AsyncGenerator[StoreMaker]:
    async with open_redis_server() as server:
        yield partial(RedisStore, server.url, **LIMITS)


STORES = [
    pytest.param(open_memory_store, id="MemoryStore", marks=NO_WAITING),
    pytest.param(use_sqlite, id="SQLiteStore"),
    pytest.param(use_postgres, id="PostgresStore"),
    pytest.param(use_redis, id="RedisStore", marks=needs_redis),
]
"""For each store, a function that takes the fixture ``request`` and opens the engine."""


@pytest.mark.parametrize("open_engine", STORES)
async def test_a_store_keeps_its_promises(
    open_engine: Callable[[pytest.FixtureRequest], AbstractAsyncContextManager[StoreMaker]],
    request: pytest.FixtureRequest,
) -> None:
    async with open_engine(request) as make_store:
        await check_store(make_store)


@NO_WAITING
async def test_nothing_is_left_behind() -> None:
    async with MemoryStore() as store:
        lease = await store.acquire("mine", "me", seconds=30)
        await store.append(lease, 0, [Record(b"mine")])

        @asynccontextmanager
        async def make() -> AsyncGenerator[ConversationStore]:
            yield store

        await check_store(make)
        assert [found.conversation_id for found in await store.list()] == ["mine"]
        assert list(store._conversations) == ["mine"]


# --- Broken stores -----------------------------------------------------------------------


def latest(store: MemoryStore, lease: Lease) -> Lease:
    """Return the lease with the token that is valid."""
    found = store._conversations.get(lease.conversation_id)
    return found.lease if found is not None else lease


async def append_with_any_token(
    self: MemoryStore, lease: Lease, position: int, records: Sequence[Record], base: int | None
) -> None:
    await MemoryStore._append(self, latest(self, lease), position, records, base)


async def renew_with_any_token(self: MemoryStore, lease: Lease, seconds: float) -> None:
    await MemoryStore._renew(self, latest(self, lease), seconds)


async def release_with_any_token(self: MemoryStore, lease: Lease) -> None:
    await MemoryStore._release(self, latest(self, lease))


async def release_without_end_of_token(self: MemoryStore, lease: Lease) -> None:
    found = self._conversations.get(lease.conversation_id)
    if found is not None and found.lease.token == lease.token:
        await MemoryStore._release(self, lease)
        found.lease = Lease(lease.conversation_id, "", lease.token)


async def release_at_the_end_of_the_lease(self: MemoryStore, lease: Lease) -> None:
    found = self._conversations.get(lease.conversation_id)
    until = found.leased_until if found is not None else 0.0
    await MemoryStore._release(self, lease)
    if found is not None:
        found.leased_until = until


async def release_that_keeps_empty_conversations(self: MemoryStore, lease: Lease) -> None:
    found = self._conversations.get(lease.conversation_id)
    await MemoryStore._release(self, lease)
    if found is not None:
        self._conversations[lease.conversation_id] = found
        found.lease = lease


async def acquire_with_tokens_from_one(
    self: MemoryStore, conversation_id: str, owner: str, seconds: float
) -> Lease:
    is_new = conversation_id not in self._conversations
    lease = await MemoryStore._acquire(self, conversation_id, owner, seconds)
    if is_new:
        lease = self._conversations[conversation_id].lease = Lease(conversation_id, owner, 1)
    return lease


async def acquire_with_the_same_token(
    self: MemoryStore, conversation_id: str, owner: str, seconds: float
) -> Lease:
    found = self._conversations.get(conversation_id)
    old = found.lease if found is not None else None
    lease = await MemoryStore._acquire(self, conversation_id, owner, seconds)
    if old is not None:
        lease = Lease(conversation_id, owner, old.token)
        self._conversations[conversation_id].lease = lease
    return lease


async def acquire_with_a_new_token_each_time(
    self: MemoryStore, conversation_id: str, owner: str, seconds: float
) -> Lease:
    await MemoryStore._acquire(self, conversation_id, owner, seconds)
    lease = Lease(conversation_id, owner, next(self._tokens))
    self._conversations[conversation_id].lease = lease
    return lease


async def acquire_without_a_new_end(
    self: MemoryStore, conversation_id: str, owner: str, seconds: float
) -> Lease:
    found = self._conversations.get(conversation_id)
    if found is not None and found.lease.owner == owner:
        return found.lease
    return await MemoryStore._acquire(self, conversation_id, owner, seconds)


async def acquire_of_leased_ones(
    self: MemoryStore, conversation_id: str, owner: str, seconds: float
) -> Lease:
    found = self._conversations.get(conversation_id)
    if found is not None:
        found.leased_until = 0.0
    return await MemoryStore._acquire(self, conversation_id, owner, seconds)


async def acquire_forever(
    self: MemoryStore, conversation_id: str, owner: str, seconds: float
) -> Lease:
    return await MemoryStore._acquire(self, conversation_id, owner, 1e9 * seconds)


async def acquire_in_two_steps(
    self: MemoryStore, conversation_id: str, owner: str, seconds: float
) -> Lease:
    found = self._conversations.get(conversation_id)
    if found is not None and found.lease.owner != owner and self._now() < found.leased_until:
        raise ConversationBusy(conversation_id, found.leased_until - self._now())
    await trio.lowlevel.checkpoint()
    if (found := self._conversations.get(conversation_id)) is not None:
        found.leased_until = 0.0
    return await MemoryStore._acquire(self, conversation_id, owner, seconds)


async def renew_before_the_end_only(self: MemoryStore, lease: Lease, seconds: float) -> None:
    if self._now() > self._owned(lease).leased_until:
        raise LeaseLost(lease, "too late")
    await MemoryStore._renew(self, lease, seconds)


async def renew_without_effect(self: MemoryStore, lease: Lease, seconds: float) -> None:
    assert seconds
    self._owned(lease)


async def append_before_the_end_only(
    self: MemoryStore, lease: Lease, position: int, records: Sequence[Record], base: int | None
) -> None:
    if self._now() > self._owned(lease).leased_until:
        raise LeaseLost(lease, "too late")
    await MemoryStore._append(self, lease, position, records, base)


async def append_again(
    self: MemoryStore, lease: Lease, position: int, records: Sequence[Record], base: int | None
) -> None:
    length = self._owned(lease).length
    position = max(position, length) if position + len(records) >= length else position
    await MemoryStore._append(self, lease, position, records, base)


async def append_all_of_an_overlap(
    self: MemoryStore, lease: Lease, position: int, records: Sequence[Record], base: int | None
) -> None:
    length = self._owned(lease).length
    if position < length < position + len(records):
        position = length
    await MemoryStore._append(self, lease, position, records, base)


async def append_after_a_gap(
    self: MemoryStore, lease: Lease, position: int, records: Sequence[Record], base: int | None
) -> None:
    position = min(position, self._owned(lease).length)
    await MemoryStore._append(self, lease, position, records, base)


async def append_in_two_steps(
    self: MemoryStore, lease: Lease, position: int, records: Sequence[Record], base: int | None
) -> None:
    known = self._owned(lease).length - position
    if not 0 <= known <= len(records):
        raise StoreError("a gap")
    await trio.lowlevel.checkpoint()
    length = self._owned(lease).length
    if new := records[known:]:
        await MemoryStore._append(self, lease, length, new, base)


async def append_one_by_one(
    self: MemoryStore, lease: Lease, position: int, records: Sequence[Record], base: int | None
) -> None:
    length = self._owned(lease).length
    if not 0 <= length - position <= len(records):
        raise StoreError("a gap")
    for number, record in enumerate(records, position):
        if number >= length:
            await MemoryStore._append(self, lease, number, [record], None)
            await trio.lowlevel.checkpoint()
    if base is not None:
        await MemoryStore._append(self, lease, position, records, base)


async def append_until_the_limit(
    self: MemoryStore, lease: Lease, position: int, records: Sequence[Record], base: int | None
) -> None:
    try:
        await MemoryStore._append(self, lease, position, records, base)
    except ConversationTooLarge:
        await MemoryStore._append(self, lease, position, records[:-1], None)
        raise


async def append_without_limit(
    self: MemoryStore, lease: Lease, position: int, records: Sequence[Record], base: int | None
) -> None:
    self._max_conversation_bytes, limit = 1 << 60, self._max_conversation_bytes
    try:
        await MemoryStore._append(self, lease, position, records, base)
    finally:
        self._max_conversation_bytes = limit


async def append_that_forgets_keys_at_a_base(
    self: MemoryStore, lease: Lease, position: int, records: Sequence[Record], base: int | None
) -> None:
    await MemoryStore._append(self, lease, position, records, base)
    found = self._owned(lease)
    found.keys = {key: number for key, number in found.keys.items() if number >= found.base}


async def append_that_keeps_all_at_a_base(
    self: MemoryStore, lease: Lease, position: int, records: Sequence[Record], base: int | None
) -> None:
    await MemoryStore._append(self, lease, position, records, None)
    found = self._owned(lease)
    found.base = found.base if base is None else base


async def append_that_keeps_its_own_at_a_base(
    self: MemoryStore, lease: Lease, position: int, records: Sequence[Record], base: int | None
) -> None:
    length = self._owned(lease).length
    await MemoryStore._append(self, lease, position, records, base)
    found = self._owned(lease)
    found.size += sum(
        len(record.data)
        for number, record in enumerate(records, position)
        if length <= number < found.base and record.key is None
    )


async def append_without_a_base_in_an_overlap(
    self: MemoryStore, lease: Lease, position: int, records: Sequence[Record], base: int | None
) -> None:
    if position < self._owned(lease).length:
        base = None
    await MemoryStore._append(self, lease, position, records, base)


async def append_text(
    self: MemoryStore, lease: Lease, position: int, records: Sequence[Record], base: int | None
) -> None:
    texts = [Record(each.data.decode(errors="replace").encode(), each.key) for each in records]
    await MemoryStore._append(self, lease, position, texts, base)


async def append_that_moves_the_creation(
    self: MemoryStore, lease: Lease, position: int, records: Sequence[Record], base: int | None
) -> None:
    await MemoryStore._append(self, lease, position, records, base)
    self._owned(lease).created_at = self._now()


async def find_the_first(self: MemoryStore, conversation_id: str, key: str) -> Record | None:
    found = self._conversations.get(conversation_id)
    if found is None:
        return None
    return next((record for record in found.records.values() if record.key == key), None)


async def find_in_any_conversation(
    self: MemoryStore, conversation_id: str, key: str
) -> Record | None:
    names = [conversation_id, *self._conversations]
    records = [await MemoryStore._find(self, name, key) for name in names]
    return next((record for record in records if record is not None), None)


async def read_everything(
    self: MemoryStore, conversation_id: str, position: int
) -> Sequence[Record]:
    found = self._conversations.get(conversation_id)
    return [] if found is None else list(found.records.values())[max(position, 0) :]


async def read_one_page(self: MemoryStore, conversation_id: str, position: int) -> Sequence[Record]:
    return (await MemoryStore._read(self, conversation_id, position))[: max(0, 1000 - position)]


async def read_without_keys(
    self: MemoryStore, conversation_id: str, position: int
) -> Sequence[Record]:
    return [Record(each.data) for each in await MemoryStore._read(self, conversation_id, position)]


def list_with(
    change: Callable[[MemoryStore, str, str, int], list[ConversationInfo]],
) -> Callable[..., Any]:
    async def list_changed(
        self: MemoryStore, prefix: str, after: str, limit: int
    ) -> Sequence[ConversationInfo]:
        return change(self, prefix, after, limit)

    return list_changed


def everything(
    store: MemoryStore,
    prefix: str = "",
    after: str = "",
    order: Callable[[str], Any] = str,
) -> list[ConversationInfo]:
    return [
        store._describe(found)
        for name, found in sorted(store._conversations.items(), key=lambda item: order(item[0]))
        if found.length and name.startswith(prefix) and order(name) > order(after)
    ]


def list_unsorted(
    store: MemoryStore, prefix: str, after: str, limit: int
) -> list[ConversationInfo]:
    found = everything(store, prefix, after)
    return found[::-1][:limit]


def list_without_prefix(
    store: MemoryStore, _prefix: str, after: str, limit: int
) -> list[ConversationInfo]:
    return everything(store, after=after)[:limit]


def list_by_pattern(
    store: MemoryStore, prefix: str, after: str, limit: int
) -> list[ConversationInfo]:
    found = everything(store, after=after)
    pattern = f"{prefix}*"
    return [each for each in found if fnmatch.fnmatchcase(each.conversation_id, pattern)][:limit]


def list_as_utf_16(
    store: MemoryStore, prefix: str, after: str, limit: int
) -> list[ConversationInfo]:
    return everything(store, prefix, after, lambda name: name.encode("utf-16-be"))[:limit]


def list_regardless_of_case(
    store: MemoryStore, prefix: str, after: str, limit: int
) -> list[ConversationInfo]:
    return everything(store, prefix, after, str.casefold)[:limit]


def list_without_limit(
    store: MemoryStore, prefix: str, after: str, _limit: int
) -> list[ConversationInfo]:
    return everything(store, prefix, after)


def list_from_after(
    store: MemoryStore, prefix: str, after: str, limit: int
) -> list[ConversationInfo]:
    found = everything(store, prefix)
    return [each for each in found if each.conversation_id >= after][:limit]


def list_of_empty_ones(
    store: MemoryStore, prefix: str, after: str, limit: int
) -> list[ConversationInfo]:
    names = sorted(name for name in store._conversations if name.startswith(prefix))
    return [store._describe(store._conversations[name]) for name in names if name > after][:limit]


async def get_empty_ones(self: MemoryStore, conversation_id: str) -> ConversationInfo | None:
    found = self._conversations.get(conversation_id)
    return self._describe(found) if found is not None else None


async def get_milliseconds(self: MemoryStore, conversation_id: str) -> ConversationInfo | None:
    found = await MemoryStore._get(self, conversation_id)
    return found and msgspec.structs.replace(found, created_at=1000 * found.created_at)


async def get_the_count_of_kept_ones(
    self: MemoryStore, conversation_id: str
) -> ConversationInfo | None:
    found = await MemoryStore._get(self, conversation_id)
    count = len(self._conversations[conversation_id].records) if found is not None else 0
    return found and msgspec.structs.replace(found, length=count)


async def delete_the_records_only(self: MemoryStore, conversation_id: str) -> bool:
    found = self._conversations.get(conversation_id)
    if found is None or not found.length:
        return False
    self._conversations[conversation_id] = _Conversation(found.lease, found.leased_until)
    return True


async def delete_all_but_keyed_ones(self: MemoryStore, conversation_id: str) -> bool:
    found = self._conversations.get(conversation_id)
    if found is None or not found.length:
        return False
    found.lease = Lease(conversation_id, "", next(self._tokens))
    found.leased_until, found.length, found.base, found.size = 0.0, 0, 0, 0
    return True


async def delete_no_empty_ones(self: MemoryStore, conversation_id: str) -> bool:
    found = self._conversations.get(conversation_id)
    return bool(found and found.length) and await MemoryStore._delete(self, conversation_id)


async def delete_without_result(self: MemoryStore, conversation_id: str) -> bool:
    await MemoryStore._delete(self, conversation_id)
    return True


def with_ids_as(change: Callable[[str], str]) -> Callable[..., Any]:
    """Return an `_open` of a store that does not tell some ids apart."""

    class Changed(dict[str, Any]):
        def __setitem__(self, name: str, value: object) -> None:
            super().__setitem__(change(name), value)

        def __getitem__(self, name: str) -> Any:
            return super().__getitem__(change(name))

        def __delitem__(self, name: str) -> None:
            super().__delitem__(change(name))

        def __contains__(self, name: object) -> bool:
            return super().__contains__(change(str(name)))

        def get(self, name: str, default: Any = None) -> Any:
            return super().get(change(name), default)

    async def open_changed(self: MemoryStore) -> None:
        await MemoryStore._open(self)
        self._conversations = Changed()

    return open_changed


async def append_any_base(
    self: MemoryStore,
    lease: Lease,
    position: int,
    records: Sequence[Record],
    *,
    base: int | None = None,
) -> None:
    await self._call("append", lambda: self._append(lease, position, tuple(records), base))


async def get_any_id(self: MemoryStore, conversation_id: str) -> ConversationInfo | None:
    return await self._call("get", lambda: self._get(conversation_id))


BROKEN: dict[str, Methods] = {
    "append with any token": {"_append": append_with_any_token},
    "renew with any token": {"_renew": renew_with_any_token},
    "release with any token": {"_release": release_with_any_token},
    "a release leaves the token valid": {"_release": release_without_end_of_token},
    "a release leaves the lease": {"_release": release_at_the_end_of_the_lease},
    "a release keeps empty ones": {"_release": release_that_keeps_empty_conversations},
    "tokens begin again after a deletion": {"_acquire": acquire_with_tokens_from_one},
    "a takeover keeps the token": {"_acquire": acquire_with_the_same_token},
    "each acquire has a new token": {"_acquire": acquire_with_a_new_token_each_time},
    "a repeated acquire keeps the end": {"_acquire": acquire_without_a_new_end},
    "a lease excludes nobody": {"_acquire": acquire_of_leased_ones},
    "a lease does not end": {"_acquire": acquire_forever},
    "acquire in two steps": {"_acquire": acquire_in_two_steps},
    "an ended lease is not renewed": {"_renew": renew_before_the_end_only},
    "a renewal has no effect": {"_renew": renew_without_effect},
    "an ended lease does not append": {"_append": append_before_the_end_only},
    "append is not repeatable": {"_append": append_again},
    "an overlap is appended again": {"_append": append_all_of_an_overlap},
    "gaps are closed": {"_append": append_after_a_gap},
    "append in two steps": {"_append": append_in_two_steps},
    "append one by one": {"_append": append_one_by_one},
    "append until the limit": {"_append": append_until_the_limit},
    "no limit": {"_append": append_without_limit},
    "a base forgets keys": {"_append": append_that_forgets_keys_at_a_base},
    "a base keeps all": {"_append": append_that_keeps_all_at_a_base},
    "a base keeps those of its append": {"_append": append_that_keeps_its_own_at_a_base},
    "no base in an overlap": {"_append": append_without_a_base_in_an_overlap},
    "any base": {"append": append_any_base},
    "data is text": {"_append": append_text},
    "created_at changes": {"_append": append_that_moves_the_creation},
    "find the first": {"_find": find_the_first},
    "find anywhere": {"_find": find_in_any_conversation},
    "read before the base": {"_read": read_everything},
    "read one page": {"_read": read_one_page},
    "read without keys": {"_read": read_without_keys},
    "list unsorted": {"_list": list_with(list_unsorted)},
    "list without prefix": {"_list": list_with(list_without_prefix)},
    "list by a pattern": {"_list": list_with(list_by_pattern)},
    "list in the order of UTF-16": {"_list": list_with(list_as_utf_16)},
    "list regardless of case": {"_list": list_with(list_regardless_of_case)},
    "list without limit": {"_list": list_with(list_without_limit)},
    "list again what was the last": {"_list": list_with(list_from_after)},
    "list empty ones": {"_list": list_with(list_of_empty_ones)},
    "get empty ones": {"_get": get_empty_ones},
    "get milliseconds": {"_get": get_milliseconds},
    "get the wrong length": {"_get": get_the_count_of_kept_ones},
    "get any id": {"get": get_any_id},
    "delete leaves the lease": {"_delete": delete_the_records_only},
    "delete leaves keys": {"_delete": delete_all_but_keyed_ones},
    "delete leaves empty ones": {"_delete": delete_no_empty_ones},
    "delete always returns True": {"_delete": delete_without_result},
    "ids regardless of case": {"_open": with_ids_as(str.casefold)},
    "ids without spaces": {"_open": with_ids_as(str.strip)},
    "ids of 400 characters": {"_open": with_ids_as(lambda name: name[:400])},
}
"""Stores that break one promise."""


@NO_WAITING
@pytest.mark.parametrize("broken", BROKEN)
async def test_a_broken_store_is_found(broken: str) -> None:
    kind = type("BrokenStore", (MemoryStore,), dict(BROKEN[broken]))
    async with open_memory_store(kind=kind) as make_store:
        with pytest.raises(AssertionError, match=r"^BrokenStore breaks a promise: [A-Z]"):
            await check_store(make_store)
