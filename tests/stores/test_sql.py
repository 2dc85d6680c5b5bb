"""What SQLite and PostgreSQL have in common: the tables, the transactions, other processes."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, TypeAlias

import pytest
import trio

from tests.stores.sql_stores import (
    end_leases,
    open_postgres_store,
    open_sqlite_store,
    other_process,
    read_line,
    run_sql,
)
from trio_responses import ConfigurationError
from trio_responses._stores import sql
from trio_responses.stores import (
    ConversationBusy,
    ConversationTooLarge,
    LeaseLost,
    Record,
    StoreError,
    UnsupportedVersion,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from tests.stores.postgres_server import PostgresServer
    from trio_responses.stores import Lease, PostgresStore, SQLiteStore

    Store: TypeAlias = SQLiteStore | PostgresStore
    OpenStore: TypeAlias = Callable[..., Store]

A_DAY = 24 * 3600


@pytest.fixture(params=["sqlite", "postgres"])
def open_store(request: pytest.FixtureRequest, tmp_path: Path) -> OpenStore:
    """Return a function that makes stores, all of the same database."""
    if request.param == "sqlite":
        return partial(open_sqlite_store, tmp_path)
    server: PostgresServer = request.getfixturevalue("postgres")
    schema = open_postgres_store(server)._schema
    return partial(open_postgres_store, server, schema=schema)


def records(*contents: str) -> Sequence[Record]:
    return [Record(each.encode()) for each in contents]


async def save(store: Store, name: str, *contents: str) -> Lease:
    lease = await store.acquire(name, "owner", seconds=1000)
    await store.append(lease, 0, records(*contents))
    return lease


async def data(store: Store, name: str, position: int = 0) -> list[bytes]:
    return [record.data for record in await store.read(name, position)]


# --- Processes -------------------------------------------------------------------------------


async def test_the_lease_of_a_killed_process_is_taken_over_after_its_end(
    open_store: OpenStore,
) -> None:
    async with open_store() as store:
        with other_process(store, "save_and_hold") as process:
            token = int((await read_line(process)).removeprefix("token "))
            process.kill()
            process.wait()
            with pytest.raises(ConversationBusy) as caught:
                await store.acquire("shared", "mine", seconds=10)
            assert 0 < caught.value.seconds_left <= 1000
        await end_leases(store)
        lease = await store.acquire("shared", "mine", seconds=10)
        assert lease.token > token
        await store.append(lease, 1, records("mine"))
        assert await data(store, "shared") == [b"of the other process", b"mine"]


async def test_a_transaction_of_a_killed_process_has_no_effect(open_store: OpenStore) -> None:
    async with open_store() as store:
        with other_process(store, "die_in_transaction") as process:
            assert await read_line(process) == ""
            assert process.wait() == -9
        assert await store.get("shared") is None
        await end_leases(store)
        lease = await store.acquire("shared", "mine", seconds=10)
        await store.append(lease, 0, records("mine"))
        assert await data(store, "shared") == [b"mine"]


async def test_many_stores_are_opened_at_the_same_time(open_store: OpenStore) -> None:
    opened: list[int] = []

    async def use(number: int) -> None:
        async with open_store(timeout=60) as store:
            await save(store, f"c{number}", "x")
            opened.append(number)

    async with trio.open_nursery() as nursery:
        for number in range(8):
            nursery.start_soon(use, number)
    assert sorted(opened) == list(range(8))
    async with open_store() as store:
        assert len(await store.list()) == 8


async def test_many_processes_open_a_store_at_the_same_time(open_store: OpenStore) -> None:
    store = open_store()
    with (
        other_process(store, "open_and_close") as first,
        other_process(store, "open_and_close") as second,
        other_process(store, "open_and_close") as third,
    ):
        assert [each.wait() for each in (first, second, third)] == [0, 0, 0]


async def test_tables_of_a_later_version_are_refused(open_store: OpenStore) -> None:
    async with open_store() as store:
        await save(store, "a", "x")
        await run_sql(store, "UPDATE {schema} SET version = version + 1")
    with pytest.raises(UnsupportedVersion, match="upgrade trio-responses") as caught:
        async with open_store():
            pass
    assert caught.value.version == sql.VERSION + 1


# --- Leases ----------------------------------------------------------------------------------


async def test_tokens_grow_after_a_deletion_and_after_the_store_was_closed(
    open_store: OpenStore,
) -> None:
    tokens: list[int] = []
    for _ in range(3):
        async with open_store() as store:
            for _ in range(2):
                tokens.append((await save(store, "a", "x")).token)
                await store.delete("a")
    assert tokens == sorted(set(tokens))


async def test_a_lease_that_was_released_is_not_renewed(open_store: OpenStore) -> None:
    """An attempt that was abandoned may renew last, and would make the next owner wait."""
    async with open_store() as store:
        lease = await save(store, "a", "x")
        await store.release(lease)
        with pytest.raises(LeaseLost, match="released"):
            await store.renew(lease, seconds=1000)
        assert (await store.acquire("a", "next", seconds=10)).token > lease.token


async def test_two_owners_who_acquire_at_the_same_time_do_not_both_succeed(
    open_store: OpenStore,
) -> None:
    owners: list[str] = []

    async def take(store: Store, owner: str) -> None:
        try:
            await store.acquire("a", owner, seconds=1000)
        except ConversationBusy:
            return
        owners.append(owner)

    async with open_store() as first, open_store() as second:
        for number in range(5):
            async with trio.open_nursery() as nursery:
                for owner in range(4):
                    nursery.start_soon(take, (first, second)[owner % 2], f"{number}-{owner}")
            await end_leases(first)
    assert [owner[0] for owner in owners] == list("01234")


async def test_a_conversation_without_records_is_removed_a_day_after_its_lease(
    open_store: OpenStore,
) -> None:
    async with open_store() as store:
        lease = await store.acquire("a", "owner", seconds=10)
        await run_sql(store, "UPDATE {conversations} SET leased_until = 0")
        await store.renew(lease, seconds=10)
        await run_sql(
            store, "UPDATE {conversations} SET expires_at = expires_at - :time", time=A_DAY + 20
        )
        with pytest.raises(LeaseLost, match="expired"):
            await store.renew(lease, seconds=10)


# --- The log ---------------------------------------------------------------------------------


async def test_an_attempt_that_comes_late_does_not_move_the_base_back(
    open_store: OpenStore,
) -> None:
    async with open_store() as store:
        lease = await store.acquire("a", "owner", seconds=10)
        await store.append(lease, 0, records("0", "1", "2"), base=2)
        await store.append(lease, 0, records("0", "1", "2"), base=1)
        found = await store.get("a")
        assert found is not None
        assert (found.base, found.length, found.size) == (2, 3, 1)


async def test_the_size_counts_the_records_that_are_kept(open_store: OpenStore) -> None:
    async with open_store(max_conversation_bytes=10) as store:
        lease = await store.acquire("a", "owner", seconds=10)
        await store.append(lease, 0, [Record(b"1234"), Record(b"56", "key")])
        with pytest.raises(ConversationTooLarge) as caught:
            await store.append(lease, 2, records("12345"))
        assert caught.value.size == 11
        await store.append(lease, 2, records("left out", "new"), base=3)
        found = await store.get("a")
        assert found is not None
        assert (found.base, found.length, found.size) == (3, 4, 5)
        assert await store.find("a", "key") == Record(b"56", "key")


async def test_a_refused_append_changes_nothing(open_store: OpenStore) -> None:
    async with open_store(max_conversation_bytes=10) as store:
        lease = await save(store, "a", "0", "1")
        before = await store.get("a")
        with pytest.raises(ConversationTooLarge):
            await store.append(lease, 2, records("x" * 5, "y" * 6), base=2)
        with pytest.raises(StoreError, match="do not continue the log"):
            await store.append(lease, 3, records("3"))  # the next one is 2
        assert await store.get("a") == before
        assert await data(store, "a") == [b"0", b"1"]


async def test_a_log_is_read_in_pages_of_bytes(
    open_store: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sql, "PAGE_BYTES", 10)
    async with open_store() as store:
        await save(store, "a", "x" * 4, "x" * 6, "x" * 50, "x" * 9, "x" * 2)
        pages = [[len(each) for each in await data(store, "a", start)] for start in range(6)]
        assert pages == [[4, 6], [6], [50], [9], [2], []]


async def test_a_log_is_read_in_pages_of_records(open_store: OpenStore) -> None:
    async with open_store() as store:
        await save(store, "a", *map(str, range(2345)))
        found: list[bytes] = []
        while page := await data(store, "a", len(found)):
            assert len(page) <= sql.PAGE_RECORDS
            found += page
        assert found == [str(number).encode() for number in range(2345)]


# --- Expiry and lists ------------------------------------------------------------------------


async def test_an_expired_conversation_is_missing_for_every_method(open_store: OpenStore) -> None:
    async with open_store(ttl=100) as store:
        lease = await store.acquire("a", "owner", seconds=1000)
        await store.append(lease, 0, [Record(b"x", "key")])
        found = await store.get("a")
        assert found is not None
        assert found.expires_at == pytest.approx(found.updated_at + 100)
        await run_sql(store, "UPDATE {conversations} SET expires_at = {now} - 1")
        assert await store.get("a") is None
        assert await store.find("a", "key") is None
        assert await store.list() == []
        with pytest.raises(StoreError, match="no record 0"):
            await store.read("a", 0)
        with pytest.raises(LeaseLost, match="expired"):
            await store.renew(lease, seconds=10)
        with pytest.raises(LeaseLost, match="expired"):
            await store.append(lease, 1, records("y"))
        again = await store.acquire("a", "another", seconds=10)
        assert again.token > lease.token
        assert await data(store, "a") == []
        await run_sql(store, "UPDATE {conversations} SET expires_at = {now} - 1")
        assert await store.delete("a") is False


async def test_expired_conversations_are_removed_at_opening_and_by_appends(
    open_store: OpenStore,
) -> None:
    expire = "UPDATE {conversations} SET expires_at = {now} - 1 WHERE id <> 'kept'"
    async with open_store() as store:
        await save(store, "a", "x")
        lease = await save(store, "kept", "x")
        await run_sql(store, expire)
    async with open_store() as store:
        assert await run_sql(store, "UPDATE {records} SET position = position") == 1
        await save(store, "b", "x")
        await run_sql(store, expire)
        store._next_sweep = 0
        await store.append(lease, 1, records("y"))
        assert await run_sql(store, "UPDATE {conversations} SET base = base") == 1
        assert await run_sql(store, "UPDATE {records} SET position = position") == 2


async def test_a_list_is_in_the_order_of_code_points_and_has_pages(open_store: OpenStore) -> None:
    names = ["A", "a", "a%b", "a_b", "aXb", "a\\", "a\U0010ffffz", "a\U0001f600", "a\uffee", "é"]
    async with open_store() as store:
        for name in names:
            await save(store, name, "x")
        await store.acquire("a without records", "owner", seconds=10)

        async def listed(prefix: str = "", after: str = "", limit: int = 100) -> list[str]:
            found = await store.list(prefix=prefix, after=after, limit=limit)
            return [each.conversation_id for each in found]

        assert await listed() == sorted(names)
        assert await listed(prefix="a") == sorted(each for each in names if each[0] == "a")
        assert await listed(prefix="a_") == ["a_b"]
        assert await listed(prefix="a%") == ["a%b"]
        assert await listed(prefix="a", after="aXb", limit=2) == ["a\\", "a_b"]
        assert await listed(prefix="nothing") == []
        with pytest.raises(ConfigurationError, match="prefix"):
            await store.list(prefix="\0")
