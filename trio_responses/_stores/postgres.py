"""`PostgresStore`: conversations in PostgreSQL, shared by many machines."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, TypeVar, final

import trio

from trio_responses._errors import ConfigurationError
from trio_responses._extras import install_hint
from trio_responses._stores.errors import StoreError
from trio_responses._stores.sql import Dialect, SQLStore
from trio_responses._stores.threads import WorkerThreads

if TYPE_CHECKING:
    from trio_responses._stores.postgres_connection import PostgresDatabase
    from trio_responses._stores.sql import Work

__all__ = ["PostgresStore"]

T = TypeVar("T")

SCHEMA_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")
CREATION_LOCK: Final = 0x7472696F72657370
"""The advisory lock that a process holds while it creates the tables; the number has no meaning."""


@final
class PostgresStore(SQLStore):
    """Conversations in a PostgreSQL database, which any number of machines share.

    Needs the extra ``trio-responses[postgres]``, and PostgreSQL 12 or later with the encoding UTF8.
    Works behind PgBouncer, also with ``pool_mode=transaction``. The tables are created by the first
    process, and their names begin with ``trio_responses_``.

    Each call is one transaction. The server ends a transaction whose process is paused or gone
    after the time of one attempt, a third of ``timeout``. A connection that fails is replaced.

    A save that returned is as durable as the server makes its transactions: see its settings
    ``fsync`` and ``synchronous_commit``. A standby that takes over without the latest transactions
    has lost these saves, and may repeat fencing tokens: use synchronous replication.

    :param dsn: a URI or the ``name=value`` pairs of libpq; what is missing is taken from the
        environment, such as ``PGPASSWORD``.
    :param schema: the schema of the tables, which is created if it is missing; `None` for the first
        one in the ``search_path``.
    :param max_connections: the largest number of connections, and of worker threads.
    """

    system_name = "postgresql"

    def __init__(
        self,
        dsn: str = "",
        *,
        schema: str | None = None,
        max_connections: int = 4,
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
        if schema is not None and not SCHEMA_NAME.fullmatch(schema):
            raise ConfigurationError(
                f"schema must be a name of letters, digits and underscores, not {schema!r}"
            )
        if max_connections < 1:
            raise ConfigurationError(f"max_connections must be at least 1, not {max_connections!r}")
        try:
            from trio_responses._stores import postgres_connection  # noqa: PLC0415 - of an extra
        except ImportError:
            raise ConfigurationError(
                f"PostgresStore needs psycopg: {install_hint('postgres')}"
            ) from None
        self._database = postgres_connection.PostgresDatabase
        self._target = postgres_connection.Target(dsn, self._attempt_seconds)
        self._schema = schema
        self._max_connections = max_connections
        prefix = f'"{schema}".' if schema is not None else ""
        self._dialect = Dialect(
            now="CAST(extract(epoch FROM clock_timestamp()) AS double precision)",
            blob="bytea",
            text='text COLLATE "C"',
            # Reading a relation makes the server look for changes of the catalog. Without that, a
            # process that has waited for the lock does not see the tables made meanwhile.
            find_table="SELECT 1 FROM pg_catalog.pg_class"  # noqa: S608 - `SCHEMA_NAME` checks it
            f" WHERE oid = to_regclass('{prefix}trio_responses_schema')",
            create_tokens=(f"CREATE SEQUENCE {prefix}trio_responses_tokens",),
            next_token=(f"SELECT nextval('{prefix}trio_responses_tokens')",),
            lock="FOR UPDATE",
            skip_locked="FOR UPDATE SKIP LOCKED",
            prefix=prefix,
        )

    def __repr__(self) -> str:
        return f"<PostgresStore {self._target!r}>"

    async def _open(self) -> None:
        self._threads = WorkerThreads(self._connect, self._max_connections)
        try:
            await self._retry("open", self._open_database)
        except BaseException:
            with trio.CancelScope(shield=True):
                await self._close()
            raise

    async def _open_database(self) -> None:
        first = [f"SELECT pg_advisory_xact_lock({CREATION_LOCK})"]
        if self._schema is not None:
            first.append(f'CREATE SCHEMA IF NOT EXISTS "{self._schema}"')
        await self._open_tables(first=first)

    async def _close(self) -> None:
        await self._threads.close(self._attempt_seconds)

    async def _transact(self, work: Work[T], *, write: bool = True) -> T:
        return await self._threads.run(
            lambda database: self._run_in_transaction(database, work, write=write)
        )

    def _connect(self) -> PostgresDatabase:
        database = self._database(self._target)
        encoding = database.encoding
        if encoding != "UTF8":
            database.close()
            raise StoreError(
                f"the encoding of the PostgreSQL database is {encoding}: create one with the"
                " encoding UTF8, which can store all ids"
            )
        return database
