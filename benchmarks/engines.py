"""The engines of stores, each with a server of its own for the length of a block.

The servers are those of the tests, with the settings of production: PostgreSQL waits for the disk,
Redis has an append-only file with ``appendfsync everysec``, its default.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final

import pytest
import trio

from tests.stores.postgres_server import run_postgres
from tests.stores.redis_server import CLIENT, SERVER, open_redis_server
from trio_responses.stores import MemoryStore, PostgresStore, RedisStore, SQLiteStore

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    Store = MemoryStore | SQLiteStore | RedisStore | PostgresStore

NAMES: Final = ("memory", "sqlite", "redis", "postgres")


@dataclass(frozen=True)
class Engine:
    """A running engine."""

    name: str
    place: str
    """The path, URL or DSN by which any process opens a store."""
    stored_bytes: Callable[[], Awaitable[int]]
    """Returns how much memory (Redis) or disk the engine uses."""

    def store(self, **options: Any) -> Store:
        """Return a store, which is not open yet."""
        return make_store(self.name, self.place, **options)


def make_store(name: str, place: str, **options: Any) -> Store:
    """Return a store of an engine, which is not open yet."""
    match name:
        case "sqlite":
            return SQLiteStore(place, **options)
        case "redis":
            return RedisStore(place, **options)
        case "postgres":
            return PostgresStore(place, **options)
        case _:
            return MemoryStore(**options)


@asynccontextmanager
async def open_engine(name: str) -> AsyncGenerator[Engine | None, None]:
    """Run an engine for the block; yields `None` where it is not installed."""
    match name:
        case "sqlite":
            with TemporaryDirectory() as folder:
                yield Engine(name, f"{folder}/chats.db", lambda: _folder_size(trio.Path(folder)))
        case "redis" if find_spec("coredis") and SERVER and CLIENT:
            async with open_redis_server() as server:

                async def used_memory() -> int:
                    lines = (await server.command("info", "memory")).split()
                    [used] = [line for line in lines if line.startswith("used_memory:")]
                    return int(used.partition(":")[2])

                yield Engine(name, server.url, used_memory)
        case "postgres":
            server_block = run_postgres()
            try:
                postgres = server_block.__enter__()
            except pytest.skip.Exception:
                yield None
                return
            try:
                _wait_for_disk(postgres.dsn())
                yield Engine(name, postgres.dsn(), lambda: _database_size(postgres.dsn()))
            finally:
                server_block.__exit__(None, None, None)
        case "memory":
            yield Engine(name, "", _nothing)
        case _:
            yield None


async def _nothing() -> int:
    return 0


async def _folder_size(folder: trio.Path) -> int:
    return sum([(await path.stat()).st_size for path in await folder.iterdir()])


def _wait_for_disk(dsn: str) -> None:
    import psycopg

    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("ALTER SYSTEM SET fsync = on")
        connection.execute("SELECT pg_reload_conf()")


async def _database_size(dsn: str) -> int:
    import psycopg

    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("VACUUM")
        found = connection.execute("SELECT pg_database_size(current_database())").fetchone()
    assert found is not None  # noqa: S101 - the query returns one row
    return int(found[0])
