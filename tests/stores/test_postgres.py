"""`PostgresStore`: a server that restarts, stops or refuses, and what no message may contain."""

from __future__ import annotations

import sys
import traceback
from functools import partial
from threading import Event
from typing import TYPE_CHECKING, Any

import pytest
import trio

from tests.stores.postgres_server import PASSWORD
from tests.stores.sql_stores import open_postgres_store, other_process, read_line
from trio_responses import ConfigurationError
from trio_responses._stores.base import EngineError
from trio_responses.stores import PostgresStore, Record, StoreError, StoreUnavailable

if TYPE_CHECKING:
    from tests.stores.postgres_server import PostgresServer
    from trio_responses._stores.postgres_connection import PostgresDatabase
    from trio_responses._stores.sql import Statements
    from trio_responses.stores import Lease

A_LONG_TIME = 1000.0


def ask(sql: str, database: PostgresDatabase) -> Any:
    """Return the one value that a query outside of any transaction returns."""
    database._connection.deadline = float("inf")
    return database.query(sql, {})[0][0]


async def start(store: PostgresStore, name: str = "a") -> Lease:
    lease = await store.acquire(name, "owner", seconds=A_LONG_TIME)
    await store.append(lease, 0, [Record(b"0")])
    return lease


async def data(store: PostgresStore, name: str = "a") -> list[bytes]:
    return [record.data for record in await store.read(name, 0)]


def test_a_process_that_waited_for_the_lock_sees_the_tables_made_meanwhile(
    postgres: PostgresServer,
) -> None:
    psycopg = pytest.importorskip("psycopg")
    schema = "made_meanwhile"
    find = PostgresStore(postgres.dsn(), schema=schema)._dialect.find_table
    connect = partial(psycopg.connect, postgres.dsn(), autocommit=True)
    with connect() as waiting, connect() as faster:
        faster.execute(f"CREATE SCHEMA {schema}")
        assert waiting.execute(find).fetchall() == []
        with waiting.transaction():
            waiting.execute("SELECT pg_advisory_xact_lock(1)")
            faster.execute(f"CREATE TABLE {schema}.trio_responses_schema (version int)")
            assert waiting.execute(find).fetchall() == [(1,)]


# --- Servers that stop -----------------------------------------------------------------------


async def test_a_restart_of_the_server_is_survived(postgres: PostgresServer) -> None:
    async with open_postgres_store(postgres, timeout=A_LONG_TIME) as store:
        lease = await start(store)
        postgres.stop()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(store.append, lease, 1, [Record(b"1")])
            nursery.start_soon(partial(store.renew, lease, seconds=A_LONG_TIME))
            await trio.to_thread.run_sync(postgres.start)
        assert await data(store) == [b"0", b"1"]


async def test_tokens_grow_after_a_crash_of_the_server(postgres: PostgresServer) -> None:
    async with open_postgres_store(postgres, timeout=A_LONG_TIME) as store:
        lease = await start(store)
        await store.delete("a")
        postgres.stop()
        postgres.start()
        assert (await start(store)).token > lease.token


async def test_a_server_that_is_away_is_unavailable(postgres: PostgresServer) -> None:
    postgres.stop()
    try:
        with pytest.raises(
            StoreUnavailable, match=r"did not complete open.*PostgreSQL: connection"
        ):
            async with open_postgres_store(postgres, timeout=2):
                pass
    finally:
        postgres.start()


async def test_a_server_that_does_not_answer_is_unavailable(postgres: PostgresServer) -> None:
    async with open_postgres_store(postgres, timeout=A_LONG_TIME) as store:
        lease = await start(store)
        store.timeout = 0.3
        with postgres.paused(), pytest.raises(StoreUnavailable):
            await store.append(lease, 1, [Record(b"1")])
        store.timeout = A_LONG_TIME
        await store.append(lease, 1, [Record(b"1"), Record(b"2")])
        assert await data(store) == [b"0", b"1", b"2"]


async def test_closing_does_not_wait_for_a_server_that_does_not_answer(
    postgres: PostgresServer,
) -> None:
    with trio.fail_after(A_LONG_TIME / 2):
        async with open_postgres_store(postgres, timeout=A_LONG_TIME) as store:
            await start(store)
            # Leaves this block while the server is paused.
            with postgres.paused():
                with trio.move_on_after(0.05) as scope:
                    await store.get("a")
                assert scope.cancelled_caught
                await store._threads.close(A_LONG_TIME)
                assert not store._threads._busy


async def test_connections_that_were_cut_are_replaced(postgres: PostgresServer) -> None:
    async with (
        open_postgres_store(postgres, timeout=A_LONG_TIME) as store,
        open_postgres_store(postgres) as other,
    ):
        await start(store)
        async with trio.open_nursery() as nursery:
            for _ in range(8):
                nursery.start_soon(store.get, "a")
        cut = (
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
            " WHERE datname IS NOT NULL AND pid <> pg_backend_pid()"
        )
        assert await other._threads.run(partial(ask, cut)) > 0
        assert await data(store) == [b"0"]


# --- Transactions that stop ------------------------------------------------------------------


async def test_the_server_ends_the_transaction_of_a_paused_process(
    postgres: PostgresServer,
) -> None:
    """Its row is free after one attempt, and what it had not committed has no effect."""
    is_paused, go_on = Event(), Event()
    store = open_postgres_store(postgres, timeout=6)
    async with store, open_postgres_store(postgres, schema=store._schema, timeout=1000) as other:
        lease = await start(store)

        def pause(sql: Statements) -> None:
            sql.execute("UPDATE {conversations} SET length = 1000 WHERE id = 'a'")
            is_paused.set()
            go_on.wait()

        async def stay_paused() -> None:
            with pytest.raises(EngineError):
                await store._transact(pause)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(stay_paused)
            await trio.to_thread.run_sync(is_paused.wait)
            await other.append(lease, 1, [Record(b"1")])
            go_on.set()
        assert await data(other) == [b"0", b"1"]


async def test_a_paused_owner_holds_up_no_other_conversation(postgres: PostgresServer) -> None:
    async with open_postgres_store(postgres) as store:
        await start(store, "mine")
        with other_process(store, "stop_in_transaction") as process:
            assert await read_line(process) == "in transaction"
            lease = await start(store, "another")
            await store.append(lease, 1, [Record(b"1")])
        assert await data(store, "another") == [b"0", b"1"]


async def test_a_call_that_waits_for_a_row_is_cancelled_at_once(postgres: PostgresServer) -> None:
    async with open_postgres_store(postgres, timeout=A_LONG_TIME) as store:
        lease = await start(store)
        is_locked, go_on = Event(), Event()

        def lock(sql: Statements) -> None:
            sql.query("SELECT id FROM {conversations} WHERE id = 'a' {lock}")
            is_locked.set()
            go_on.wait()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(store._transact, lock)
            await trio.to_thread.run_sync(is_locked.wait)
            with trio.move_on_after(0.05) as scope:
                await store.append(lease, 1, [Record(b"1")])
            assert scope.cancelled_caught
            assert (await store.get("a")) is not None
            go_on.set()
        await store.append(lease, 1, [Record(b"1"), Record(b"2")])
        assert await data(store) == [b"0", b"1", b"2"]


# --- Poolers ---------------------------------------------------------------------------------


async def test_nothing_is_left_in_a_connection_that_a_pooler_gives_to_others(
    postgres: PostgresServer,
) -> None:
    async with open_postgres_store(postgres, max_connections=1) as store:
        await start(store)
        for _ in range(10):
            await store.get("a")
        run = store._threads.run
        assert await run(partial(ask, "SELECT count(*) FROM pg_prepared_statements")) == 0
        assert await run(partial(ask, "SHOW statement_timeout")) == "0"
        assert await run(partial(ask, "SHOW idle_in_transaction_session_timeout")) == "0"


# --- Refusals --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("user", "database", "message"),
    [
        ("guest", "postgres", "password authentication failed"),
        ("nobody-known", "postgres", "role .* does not exist"),
        ("postgres", "missing", "database .* does not exist"),
    ],
)
async def test_a_refusal_of_the_server_is_an_error_at_once(
    postgres: PostgresServer, user: str, database: str, message: str
) -> None:
    dsn = postgres.dsn(user=user, database=database, password=PASSWORD)
    store = PostgresStore(dsn, timeout=A_LONG_TIME)
    assert PASSWORD not in repr(store)
    with trio.fail_after(A_LONG_TIME / 2), pytest.raises(StoreError, match=message) as caught:
        await store.__aenter__()
    assert not isinstance(caught.value, StoreUnavailable)
    shown = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    ours = [str(frame.locals) for frame in shown.stack if "_stores" in frame.filename]
    assert ours
    assert PASSWORD not in "".join([str(caught.value), *ours])
    assert caught.value.__context__ is None


@pytest.mark.parametrize(
    "dsn",
    [
        "postgresql://user:sk-secret@with-at@host/database",
        "postgresql://user:sk-secret/slash@host/database",
        "host=localhost password=sk-secret with spaces",
        "mysql://user:sk-secret@host/database",
    ],
)
def test_a_malformed_dsn_is_not_repeated(dsn: str) -> None:
    pytest.importorskip("psycopg", reason="the extra postgres is not installed")
    with pytest.raises(ConfigurationError, match="percent-encoding") as caught:
        PostgresStore(dsn)
    assert "sk-secret" not in str(caught.value)


@pytest.mark.parametrize("schema", ["", 'a"b', "a.b", "a b"])
def test_a_schema_is_a_plain_name(schema: str) -> None:
    with pytest.raises(ConfigurationError, match="schema"):
        PostgresStore("", schema=schema)


def test_at_least_one_connection_is_needed() -> None:
    with pytest.raises(ConfigurationError, match="max_connections"):
        PostgresStore("", max_connections=0)


async def test_a_database_of_another_encoding_is_refused(postgres: PostgresServer) -> None:
    async with open_postgres_store(postgres) as store:
        create = "CREATE DATABASE latin ENCODING 'LATIN1' TEMPLATE template0"

        def execute(database: PostgresDatabase) -> None:
            database._connection.deadline = float("inf")
            database.execute(create, {})

        await store._threads.run(execute)
    with pytest.raises(StoreError, match="encoding of the PostgreSQL database is LATIN1"):
        async with PostgresStore(postgres.dsn(database="latin")):
            pass


async def test_the_first_schema_of_the_search_path_is_the_default(
    postgres: PostgresServer,
) -> None:
    async with PostgresStore(postgres.dsn()) as store:
        query = "SELECT to_regclass('public.trio_responses_records') IS NOT NULL"
        assert await store._threads.run(partial(ask, query)) is True


def test_without_psycopg_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    monkeypatch.delitem(sys.modules, "trio_responses._stores.postgres_connection", raising=False)
    monkeypatch.delattr("trio_responses._stores.postgres_connection", raising=False)
    with pytest.raises(ConfigurationError, match=r"trio-responses\[postgres\]"):
        PostgresStore("")
