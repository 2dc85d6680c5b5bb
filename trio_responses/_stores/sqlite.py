"""`SQLiteStore`: conversations in a file, for the processes of one machine."""

from __future__ import annotations

import errno
import os
import sqlite3
import time
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, Final, TypeVar, final

import trio

from trio_responses._errors import ConfigurationError
from trio_responses._stores.base import EngineError
from trio_responses._stores.errors import StoreError
from trio_responses._stores.sql import Dialect, SQLStore
from trio_responses._stores.threads import WorkerThreads

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from trio_responses._stores.sql import Work

__all__ = ["SQLiteStore"]

T = TypeVar("T")

READERS: Final = 4
"""The threads that read at the same time. One thread writes, as SQLite has one writer."""
WAIT_SHARE: Final = 0.8
"""The part of an attempt for which a statement waits for the lock of another process."""
WAL_BYTES: Final = 64 * 1024 * 1024
"""The size to which the write-ahead log is cut after its content was moved to the database."""
DIALECT: Final = Dialect(
    now="clock()",
    blob="blob",
    text="text COLLATE BINARY",
    find_table="SELECT 1 FROM sqlite_master WHERE type = 'table'"
    " AND name = 'trio_responses_schema'",
    create_tokens=(
        "CREATE TABLE trio_responses_tokens (last bigint NOT NULL)",
        "INSERT INTO trio_responses_tokens (last) VALUES (0)",
    ),
    next_token=(
        "UPDATE trio_responses_tokens SET last = last + 1",
        "SELECT last FROM trio_responses_tokens",
    ),
)
TEMPORARY: Final = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_INTERRUPT,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_PROTOCOL,
    }
)
"""The errors after which another attempt may succeed."""

creation = Lock()
"""Held while a file is created, so that no connection of this process to that file exists then.
Closing a file, POSIX removes the locks that SQLite holds on it in the same process."""


@final
class SQLiteStore(SQLStore):
    """Conversations in a SQLite database, which any number of processes of one machine share.

    The folder must exist. The file is created with the permissions 0600.

    A save that returned is kept after a crash of the process and of the machine, also after a loss
    of power, if the disk keeps what it reported as written: the database has a write-ahead log
    (WAL), and each transaction waits until the log is on the disk (``synchronous=FULL``).

    One process writes at a time. Transactions are short, but a process that is paused inside one
    holds up the writers of all other processes, which get `StoreUnavailable`; the engine frees the
    lock when the process ends. Do not put the file on a network file system such as NFS: its locks
    are not reliable, and WAL needs memory that the processes share.

    :param path: the file. ``":memory:"`` is refused: use `MemoryStore`.
    """

    system_name = "sqlite"

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
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
        name = os.fspath(path)
        if name in {"", ":memory:"} or name.startswith("file:"):
            raise ConfigurationError(
                f"path must be that of a file, not {name!r}: each connection of the store would"
                " have a database of its own; use MemoryStore for conversations in memory"
            )
        self._path = Path(name).absolute()
        self._dialect = DIALECT

    def __repr__(self) -> str:
        return f"<SQLiteStore {str(self._path)!r}>"

    async def _open(self) -> None:
        self._writers = WorkerThreads(self._connect, 1)
        self._readers = WorkerThreads(self._connect, READERS)
        try:
            await self._retry("open", self._open_file)
        except BaseException:
            with trio.CancelScope(shield=True):
                await self._close()
            raise

    async def _open_file(self) -> None:
        await trio.to_thread.run_sync(
            create_file, self._path, abandon_on_cancel=True, limiter=trio.CapacityLimiter(1)
        )
        await self._writers.run(use_write_ahead_log)
        await self._open_tables()

    async def _close(self) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._readers.close, self._attempt_seconds)
            nursery.start_soon(self._writers.close, self._attempt_seconds)

    async def _transact(self, work: Work[T], *, write: bool = True) -> T:
        threads = self._writers if write else self._readers
        return await threads.run(
            lambda database: self._run_in_transaction(database, work, write=write)
        )

    def _connect(self) -> SQLiteDatabase:
        return SQLiteDatabase(self._path, self._attempt_seconds * WAIT_SHARE)


@final
class SQLiteDatabase:
    """A connection to a SQLite database."""

    def __init__(self, path: Path, seconds: float) -> None:
        self._connection = call_engine(
            lambda: sqlite3.connect(
                f"{path.as_uri()}?mode=rw",  # a file that was removed is not created again
                uri=True,
                timeout=seconds,
                isolation_level=None,
                check_same_thread=False,
            )
        )
        try:
            self._connection.create_function("clock", 0, time.time)
            for pragma in (
                "foreign_keys = ON",
                "synchronous = FULL",
                "fullfsync = ON",  # macOS needs it for synchronous = FULL
                "checkpoint_fullfsync = ON",
                f"journal_size_limit = {WAL_BYTES}",
            ):
                self.query(f"PRAGMA {pragma}", {})
        except BaseException:
            self.close()
            raise

    def begin(self, *, write: bool) -> None:
        """Begin a transaction. A writing one has the lock from the beginning."""
        self.execute("BEGIN IMMEDIATE" if write else "BEGIN", {})

    def execute(self, sql: str, parameters: Mapping[str, Any]) -> int:
        """Run a statement, and return the number of the changed rows."""
        return call_engine(lambda: self._connection.execute(sql, parameters).rowcount)

    def query(self, sql: str, parameters: Mapping[str, Any]) -> Sequence[Sequence[Any]]:
        """Run a query, and return its rows."""
        return call_engine(lambda: self._connection.execute(sql, parameters).fetchall())

    def stop(self) -> None:
        """Make the statement that runs in another thread fail."""
        self._connection.interrupt()

    def close(self) -> None:
        """Close the connection, which ends its transaction."""
        with suppress(sqlite3.Error):
            self._connection.close()


def create_file(path: Path) -> None:
    """Create the file of a database, which only its owner can read, unless it exists.

    SQLite gives the files beside it the same permissions.
    """
    with creation:
        try:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        except FileExistsError:
            if not path.is_dir():
                return
            reason: str | None = os.strerror(errno.EISDIR)
        except OSError as error:
            reason = error.strerror
        else:
            return
    raise StoreError(f"the database {str(path)!r} cannot be created: {reason}")


def use_write_ahead_log(database: SQLiteDatabase) -> None:
    """Set the mode of the write-ahead log, which a database keeps.

    :raises StoreError: if the file system has no shared memory, which the log needs.
    """
    [[mode]] = database.query("PRAGMA journal_mode", {})
    if mode != "wal":
        [[mode]] = database.query("PRAGMA journal_mode = WAL", {})
    if mode != "wal":
        raise StoreError(
            f"SQLite has no write-ahead log here, but the journal mode {mode!r}: put the database"
            " on a local file system"
        )


def call_engine(call: Callable[[], T]) -> T:
    """Return what a call returns, and translate the errors of SQLite."""
    try:
        return call()
    except sqlite3.Error as error:
        # The extended code has the main code in its last byte.
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
        failure = (EngineError if code in TEMPORARY else StoreError)(f"SQLite: {error}")
    raise failure
