"""`SQLiteStore`: its file, its settings, and processes that hold its lock."""

from __future__ import annotations

import os
import re
import sqlite3
import stat
from typing import TYPE_CHECKING, Any

import pytest
import trio

from tests.stores.engines import needs_engines
from tests.stores.sql_stores import open_sqlite_store, other_process, read_line
from tests.testing.driver import NO_WAITING
from trio_responses import ConfigurationError
from trio_responses._stores.sqlite import SQLiteDatabase
from trio_responses.stores import Record, SQLiteStore, StoreError, StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path


def files(folder: Path) -> list[Path]:
    return list(folder.iterdir())


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("path", [":memory:", "", "file:x?mode=memory"])
def test_a_database_in_memory_is_refused(path: str) -> None:
    with pytest.raises(ConfigurationError, match="MemoryStore"):
        SQLiteStore(path)


async def test_the_repr_has_the_whole_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert repr(SQLiteStore("a.db")) == f"<SQLiteStore {str(tmp_path / 'a.db')!r}>"


async def test_a_save_waits_for_the_disk(tmp_path: Path) -> None:
    """The settings that keep a save after a loss of power, on each connection."""

    def read(database: SQLiteDatabase) -> list[object]:
        names = ("journal_mode", "synchronous", "fullfsync", "checkpoint_fullfsync")
        return [database.query(f"PRAGMA {name}", {})[0][0] for name in (*names, "foreign_keys")]

    async with open_sqlite_store(tmp_path) as store:
        full = 2
        assert await store._writers.run(read) == ["wal", full, 1, 1, 1]
        assert await store._readers.run(read) == ["wal", full, 1, 1, 1]


@pytest.mark.skipif(os.name == "nt", reason="Windows has other permissions")
async def test_the_files_are_private(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        async with open_sqlite_store(tmp_path) as store:
            await store.acquire("a", "owner", seconds=10)
            modes = {each.name: mode(each) for each in files(tmp_path)}
    finally:
        os.umask(before)
    assert modes == dict.fromkeys(
        ("conversations.db", "conversations.db-wal", "conversations.db-shm"), 0o600
    )


async def test_the_permissions_of_a_file_that_exists_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "conversations.db"
    path.touch()
    path.chmod(0o660)
    async with open_sqlite_store(tmp_path):
        assert mode(path) == 0o660


async def test_a_missing_folder_is_an_error_at_once(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"missing.*cannot be created") as caught:
        async with open_sqlite_store(tmp_path / "missing", timeout=1000):
            pass
    assert not isinstance(caught.value, StoreUnavailable)


async def test_a_file_that_is_no_database_is_an_error_at_once(tmp_path: Path) -> None:
    (tmp_path / "conversations.db").write_text("not a database" * 100, "utf-8")
    with pytest.raises(StoreError, match="file is not a database") as caught:
        async with open_sqlite_store(tmp_path, timeout=1000):
            pass
    assert not isinstance(caught.value, StoreUnavailable)


@NO_WAITING
async def test_a_file_that_was_removed_is_not_created_again(tmp_path: Path) -> None:
    async with open_sqlite_store(tmp_path) as store:
        store.timeout = 3
        store._readers._close_idle()
        for each in files(tmp_path):
            each.unlink()
        with pytest.raises(StoreUnavailable, match="unable to open database file"):
            await store.get("a")
        assert not (tmp_path / "conversations.db").exists()


@needs_engines
async def test_a_process_that_is_paused_in_a_transaction_holds_up_who_writes(
    tmp_path: Path,
) -> None:
    async with open_sqlite_store(tmp_path, timeout=6) as store:
        lease = await store.acquire("mine", "owner", seconds=1000)
        await store.append(lease, 0, [Record(b"0")])
        with other_process(store, "stop_in_transaction") as process:
            assert await read_line(process) == "in transaction"
            with pytest.raises(StoreUnavailable, match="database is locked"):
                await store.append(lease, 1, [Record(b"1")])
            assert [each.data for each in await store.read("mine", 0)] == [b"0"]
            process.kill()
            process.wait()
        await store.append(lease, 1, [Record(b"1")])
        assert [each.data for each in await store.read("mine", 0)] == [b"0", b"1"]


async def test_an_abandoned_append_takes_effect_once(tmp_path: Path) -> None:
    """Cancelled while it waits for the lock, an append may still run, and is repeated safely."""
    async with open_sqlite_store(tmp_path, timeout=1000) as store:
        lease = await store.acquire("a", "owner", seconds=1000)
        other = sqlite3.connect(tmp_path / "conversations.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with trio.move_on_after(0.05) as scope:
            await store.append(lease, 0, [Record(b"0")])
        assert scope.cancelled_caught
        other.execute("ROLLBACK")
        other.close()
        await store.append(lease, 0, [Record(b"0"), Record(b"1")])
        assert [each.data for each in await store.read("a", 0)] == [b"0", b"1"]


async def test_closing_does_not_wait_for_the_lock(tmp_path: Path) -> None:
    other: sqlite3.Connection | None = None
    async with open_sqlite_store(tmp_path, timeout=3) as store:
        other = sqlite3.connect(tmp_path / "conversations.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with trio.move_on_after(0.05):
            await store.acquire("a", "owner", seconds=1000)
    other.close()
    with pytest.raises(RuntimeError, match="inside its block"):
        await store.get("a")


async def test_a_store_is_opened_again(tmp_path: Path) -> None:
    store = open_sqlite_store(tmp_path)
    for _ in range(2):
        async with store:
            assert await store.list() == []


async def test_no_call_reads_a_table_from_its_beginning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So its cost does not grow with the number of conversations, or of records of one."""
    seen: dict[str, Mapping[str, Any]] = {}
    execute, query = SQLiteDatabase.execute, SQLiteDatabase.query

    def see_execute(self: SQLiteDatabase, sql: str, parameters: Mapping[str, Any]) -> int:
        seen[sql] = parameters
        return execute(self, sql, parameters)

    def see_query(
        self: SQLiteDatabase, sql: str, parameters: Mapping[str, Any]
    ) -> Sequence[Sequence[Any]]:
        seen[sql] = parameters
        return query(self, sql, parameters)

    async with open_sqlite_store(tmp_path) as store:
        with monkeypatch.context() as patch:
            patch.setattr(SQLiteDatabase, "execute", see_execute)
            patch.setattr(SQLiteDatabase, "query", see_query)
            store._next_sweep = 0
            lease = await store.acquire("a", "owner", seconds=10)
            await store.append(lease, 0, [Record(b"0"), Record(b"1", "key")])
            await store.append(lease, 2, [Record(b"2")], base=2)
            await store.renew(lease, seconds=10)
            await store.read("a", 2)
            await store.find("a", "key")
            await store.list(prefix="a", after="a")
            await store.get("a")
            await store.release(lease)
            await store.delete("a")

        def explain(database: SQLiteDatabase) -> list[str]:
            return [
                f"{row[3]}: {sql}"
                for sql, parameters in seen.items()
                if "trio_responses_conversations" in sql or "trio_responses_records" in sql
                for row in database.query(f"EXPLAIN QUERY PLAN {sql}", parameters)
            ]

        steps = await store._readers.run(explain)
    assert len(steps) > 10
    assert [step for step in steps if re.match(r"SCAN (?!\d+ CONSTANT)", step)] == []


async def test_a_folder_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="Is a directory"):
        async with SQLiteStore(tmp_path):
            pass
