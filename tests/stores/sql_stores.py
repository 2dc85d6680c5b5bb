"""Stores in SQLite and PostgreSQL for tests, and processes that use the same database."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import trio

from trio_responses._stores.sql import Statements
from trio_responses.stores import PostgresStore, Record, SQLiteStore

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from tests.stores.postgres_server import PostgresServer
    from trio_responses._stores.sql import SQLStore

T = TypeVar("T")

numbers = itertools.count()
ROOT = Path(__file__).parents[2]


def open_sqlite_store(folder: Path, **options: Any) -> SQLiteStore:
    """Return a store in a file of the folder: the same one for each call."""
    return SQLiteStore(folder / "conversations.db", **options)


def open_postgres_store(server: PostgresServer, **options: Any) -> PostgresStore:
    """Return a store in a schema of its own, unless one is given."""
    options.setdefault("schema", f"test_{os.getpid()}_{next(numbers)}")
    return PostgresStore(server.dsn(), **options)


async def run_sql(store: SQLStore, sql: str, **parameters: Any) -> int:
    """Change the tables of a store behind its back."""

    def work(statements: Statements) -> int:
        return statements.execute(sql, **parameters)

    return await store._transact(work)


async def end_leases(store: SQLStore) -> None:
    """Do what a long time does to the leases."""
    await run_sql(store, "UPDATE {conversations} SET leased_until = {now} - 1")


# --- Processes -------------------------------------------------------------------------------


@contextmanager
def other_process(store: SQLStore, action: str) -> Generator[subprocess.Popen[str]]:
    """Run one of the `ACTIONS` on the same database, and kill the process at the end.

    The process waits for a line of its input wherever the action says so.
    """
    arguments: tuple[str, ...]
    if isinstance(store, SQLiteStore):
        arguments = ("sqlite", str(store._path), "")
    else:
        assert isinstance(store, PostgresStore)
        parameters = store._target.parameters
        dsn = " ".join(f"{name}='{parameters[name]}'" for name in ("host", "user", "dbname"))
        arguments = ("postgres", dsn, store._schema or "")
    with subprocess.Popen(  # noqa: S603 - a module of the tests
        [sys.executable, "-m", "tests.stores.sql_stores", action, *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


async def read_line(process: subprocess.Popen[str]) -> str:
    """Return the next line that a process writes; an empty one when it has ended."""
    assert process.stdout is not None
    return (await trio.to_thread.run_sync(process.stdout.readline)).strip()


async def open_and_close(store: SQLStore) -> None:
    async with store:
        pass


async def save_and_hold(store: SQLStore) -> None:
    """Save a record, and keep the lease until the process is killed."""
    async with store:
        lease = await store.acquire("shared", "other", seconds=1000)
        await store.append(lease, 0, [Record(b"of the other process")])
        say(f"token {lease.token}")
        await trio.sleep_forever()


async def stop_in_transaction(store: SQLStore) -> None:
    """Stop before the end of the transaction of an append, until a line is read."""
    async with store:
        lease = await store.acquire("shared", "other", seconds=1000)
        catch_commit(wait_for_a_line)
        await store.append(lease, 0, [Record(b"of the other process")])
        say("saved")


async def die_in_transaction(store: SQLStore) -> None:
    async with store:
        lease = await store.acquire("shared", "other", seconds=1000)
        catch_commit(lambda: os.kill(os.getpid(), signal.SIGKILL))
        await store.append(lease, 0, [Record(b"of the other process")], base=0)


def wait_for_a_line() -> None:
    say("in transaction")
    sys.stdin.readline()


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def catch_commit(action: Callable[[], None]) -> None:
    """Call an action before the end of the next transaction that appends."""
    execute = Statements.execute

    def caught(self: Statements, sql: str, **parameters: Any) -> int:
        changed = execute(self, sql, **parameters)
        if "length = :length" in sql:  # the last statement of an append
            action()
        return changed

    Statements.execute = caught  # type: ignore[method-assign]


ACTIONS = {
    each.__name__: each
    for each in (open_and_close, save_and_hold, stop_in_transaction, die_in_transaction)
}


def main() -> None:
    action, engine, target, schema = sys.argv[1:]
    store = SQLiteStore(target) if engine == "sqlite" else PostgresStore(target, schema=schema)
    trio.run(ACTIONS[action], store)


if __name__ == "__main__":
    main()
