"""The tables of SQLite and PostgreSQL, and one transaction for each method of a store.

Both engines run the same statements. What differs is a `Dialect`, and a `Database`, which wraps one
connection and translates errors.

Each transaction either changes one row of the conversations with a condition on its token, or locks
that row first. So the check of a token and the change are one atomic step: in SQLite because one
transaction writes at a time, in PostgreSQL because of the lock of the row.
"""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Callable
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

import msgspec

from trio_responses._stores.base import ATTEMPTS, MAX_ID, EngineError, StoreBase
from trio_responses._stores.errors import (
    ConversationBusy,
    ConversationTooLarge,
    LeaseLost,
    StoreError,
    UnsupportedVersion,
)
from trio_responses._stores.interface import ConversationInfo, Lease, Record
from trio_responses._stores.threads import BlockingConnection

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence

__all__ = ["Database", "Dialect", "SQLStore"]

T = TypeVar("T")

VERSION: Final = 1
"""The version of the tables."""
PAGE_BYTES: Final = 8 * 1024 * 1024
PAGE_RECORDS: Final = 1000
"""How much `ConversationStore.read` returns at once; a larger record is returned alone."""
ROWS: Final = 100
"""How many records one statement inserts."""
EMPTY_SECONDS: Final = 24 * 3600.0
"""How long a conversation without records is kept after the end of its lease. Its owner died, or
was paused before it saved anything."""
SWEEP_SECONDS: Final = 60.0
SWEEP_ROWS: Final = 100
"""How often an append removes expired conversations first, and how many."""
LAST_CHARACTER: Final = "\U0010ffff"
DESCRIPTION: Final = (
    "id, base, length, size, created_at, updated_at,"
    " CASE WHEN leased_until > {now} THEN leased_until END, expires_at"
)
"""The columns that `describe` reads."""


class Dialect(msgspec.Struct, frozen=True):
    """What differs between the SQL of two engines."""

    now: str
    """An expression: the seconds since 1970 by the clock of the engine."""
    blob: str
    """The type of a column of bytes."""
    text: str
    """The type of a column of text that is compared by code points."""
    find_table: str
    """A query that returns a row if the tables exist."""
    create_tokens: tuple[str, ...]
    """The statements that create the source of the tokens."""
    next_token: tuple[str, ...]
    """The statements that count a token. The last one returns it."""
    lock: str = ""
    """A clause that locks the selected rows."""
    skip_locked: str = ""
    """A clause that locks the selected rows, without those that another transaction has locked."""
    prefix: str = ""
    """What precedes the name of a table."""

    def words(self) -> dict[str, str]:
        """Return what stands in a statement in place of a word in braces."""
        return {
            "now": self.now,
            "blob": self.blob,
            "text": self.text,
            "lock": self.lock,
            "skip_locked": self.skip_locked,
            "prefix": self.prefix,
            "schema": f"{self.prefix}trio_responses_schema",
            "conversations": f"{self.prefix}trio_responses_conversations",
            "records": f"{self.prefix}trio_responses_records",
            "expired": f"expires_at IS NOT NULL AND expires_at <= {self.now}",
            "alive": f"(expires_at IS NULL OR expires_at > {self.now})",
            "description": DESCRIPTION.format(now=self.now),
        }


class Database(BlockingConnection, Protocol):
    """One connection to an engine.

    Its methods raise `EngineError` and `StoreError` instead of the errors of the engine.
    """

    def begin(self, *, write: bool) -> None:
        """Begin a transaction."""
        ...

    def execute(self, sql: str, parameters: Mapping[str, Any]) -> int:
        """Run a statement, and return the number of the changed rows."""
        ...

    def query(self, sql: str, parameters: Mapping[str, Any]) -> Sequence[Sequence[Any]]:
        """Run a query, and return its rows."""
        ...


Work = Callable[["Statements"], T]
"""The content of a transaction."""

SCHEMA: Final = (
    "CREATE TABLE {schema} (version bigint NOT NULL)",
    # `number` is the token of the first lease: an index of PostgreSQL has no room for two ids.
    # `written` counts the bytes of all records that the log ever had.
    """
    CREATE TABLE {conversations} (
        id {text} PRIMARY KEY,
        number bigint NOT NULL UNIQUE,
        owner text NOT NULL,
        token bigint NOT NULL,
        leased_until double precision NOT NULL,
        base bigint NOT NULL,
        length bigint NOT NULL,
        size bigint NOT NULL,
        written bigint NOT NULL,
        created_at double precision NOT NULL,
        updated_at double precision NOT NULL,
        expires_at double precision
    )
    """,
    """
    CREATE INDEX trio_responses_expiry ON {conversations} (expires_at)
        WHERE expires_at IS NOT NULL
    """,
    # `ends_at` is the value of `written` after the record: a page ends by it.
    """
    CREATE TABLE {records} (
        conversation bigint NOT NULL REFERENCES {conversations} (number) ON DELETE CASCADE,
        position bigint NOT NULL,
        ends_at bigint NOT NULL,
        key {text},
        data {blob} NOT NULL,
        PRIMARY KEY (conversation, position)
    )
    """,
    """
    CREATE INDEX trio_responses_keys ON {records} (conversation, key, position)
        WHERE key IS NOT NULL
    """,
)


class Statements:
    """Runs statements with the words of a dialect in one transaction."""

    def __init__(self, database: Database, words: Mapping[str, str]) -> None:
        self._database = database
        self._words = words

    def execute(self, sql: str, **parameters: Any) -> int:
        """Run a statement, and return the number of the changed rows."""
        return self._database.execute(sql.format_map(self._words), parameters)

    def query(self, sql: str, **parameters: Any) -> Sequence[Sequence[Any]]:
        """Run a query, and return its rows."""
        return self._database.query(sql.format_map(self._words), parameters)

    def query_row(self, sql: str, **parameters: Any) -> Sequence[Any] | None:
        """Run a query, and return its first row; `None` if it has none."""
        rows = self.query(sql, **parameters)
        return rows[0] if rows else None


class SQLStore(StoreBase):
    """The store of an engine with SQL."""

    _dialect: Dialect
    _words: dict[str, str]
    _next_sweep: float = 0.0

    @property
    def _attempt_seconds(self) -> float:
        """The length of one attempt at a call."""
        return self.timeout / ATTEMPTS

    @abstractmethod
    async def _transact(self, work: Work[T], *, write: bool = True) -> T:
        """Return what ``work`` returns, which runs in one transaction in a worker thread."""

    def _run_in_transaction(self, database: Database, work: Work[T], *, write: bool) -> T:
        """Run ``work`` in one transaction of a connection: all of it has an effect, or nothing."""
        with transaction(database, write=write):
            return work(Statements(database, self._words))

    async def _open_tables(self, *, first: Sequence[str] = ()) -> None:
        """Create the tables unless they exist, and remove expired conversations.

        :param first: the first statements of the transaction that creates the tables; one of them
            makes other processes wait for the transaction, unless each transaction does.
        :raises UnsupportedVersion: when a later release created the tables.
        """
        dialect = self._dialect
        self._words = dialect.words()

        def read_version(sql: Statements) -> int | None:
            if not sql.query(dialect.find_table):
                return None
            found = sql.query_row("SELECT version FROM {schema}")
            return found[0] if found else None

        def create(sql: Statements) -> int:
            for statement in first:
                sql.execute(statement)
            version = read_version(sql)  # another process may have been faster
            if version is not None:
                return version
            for statement in (*SCHEMA, *dialect.create_tokens):
                sql.execute(statement)
            sql.execute("INSERT INTO {schema} (version) VALUES (:version)", version=VERSION)
            return VERSION

        version = await self._transact(read_version, write=False)
        if version is None:
            version = await self._transact(create)
        if version > VERSION:
            raise UnsupportedVersion("the schema of the store", version, VERSION)
        await self._transact(self._sweep)

    def _sweep(self, sql: Statements) -> None:
        """Remove some expired conversations."""
        self._next_sweep = time.monotonic() + SWEEP_SECONDS
        sql.execute(
            "DELETE FROM {conversations} WHERE id IN ("
            "SELECT id FROM {conversations}"
            " WHERE {expired} ORDER BY expires_at LIMIT :limit {skip_locked})",
            limit=SWEEP_ROWS,
        )

    # --- Leases --------------------------------------------------------------------------

    async def _acquire(self, conversation_id: str, owner: str, seconds: float) -> Lease:
        def work(sql: Statements) -> Lease:
            for statement in self._dialect.next_token[:-1]:
                sql.execute(statement)
            [[token]] = sql.query(self._dialect.next_token[-1])
            sql.execute(
                "DELETE FROM {conversations} WHERE id = :id AND {expired}",
                id=conversation_id,
            )
            sql.execute(
                """
                INSERT INTO {conversations} AS known
                    (id, number, owner, token, leased_until, base, length, size, written,
                    created_at, updated_at, expires_at)
                VALUES (:id, :token, :owner, :token, {now} + :seconds, 0, 0, 0, 0,
                    0, 0, {now} + :seconds + :empty)
                ON CONFLICT (id) DO UPDATE SET
                    token = CASE WHEN known.owner = excluded.owner
                        THEN known.token ELSE excluded.token END,
                    owner = excluded.owner,
                    leased_until = excluded.leased_until,
                    expires_at = CASE WHEN known.length = 0
                        THEN excluded.expires_at ELSE known.expires_at END
                WHERE known.owner = excluded.owner OR known.leased_until <= {now}
                """,
                id=conversation_id,
                owner=owner,
                token=token,
                seconds=seconds,
                empty=EMPTY_SECONDS,
            )
            found = sql.query_row(
                "SELECT owner, token, leased_until - {now} FROM {conversations} WHERE id = :id",
                id=conversation_id,
            )
            if found is None:
                raise EngineError("the conversation was deleted at the same time")
            if found[0] != owner:
                raise ConversationBusy(conversation_id, max(0.0, found[2]))
            return Lease(conversation_id, owner, found[1])

        return await self._transact(work)

    async def _renew(self, lease: Lease, seconds: float) -> None:
        def work(sql: Statements) -> None:
            self._lock_row(sql, lease)
            sql.execute(
                """
                UPDATE {conversations} SET
                    leased_until = {now} + :seconds,
                    expires_at = CASE WHEN length = 0
                        THEN {now} + :seconds + :empty ELSE expires_at END
                WHERE id = :id
                """,
                id=lease.conversation_id,
                seconds=seconds,
                empty=EMPTY_SECONDS,
            )

        await self._transact(work)

    async def _release(self, lease: Lease) -> None:
        def work(sql: Statements) -> None:
            known = {"id": lease.conversation_id, "token": lease.token}
            sql.execute(
                "DELETE FROM {conversations} WHERE id = :id AND token = :token AND length = 0",
                **known,
            )
            # No lease has the token 0.
            sql.execute(
                "UPDATE {conversations} SET owner = '', token = 0, leased_until = 0"
                " WHERE id = :id AND token = :token",
                **known,
            )

        await self._transact(work)

    def _lock_row(self, sql: Statements, lease: Lease) -> Sequence[Any]:
        """Lock the row of a lease, and return what `_append` needs.

        :raises LeaseLost: if the lease is not the latest one.
        """
        found = sql.query_row(
            "SELECT token, number, base, length, size, written, {now}"
            " FROM {conversations} WHERE id = :id AND {alive} {lock}",
            id=lease.conversation_id,
        )
        if found is None:
            raise LeaseLost(lease, "the conversation was deleted, or has expired")
        if found[0] != lease.token:
            raise LeaseLost(lease, "it was released, or another owner took over")
        return found[1:]

    # --- The log -------------------------------------------------------------------------

    async def _append(
        self, lease: Lease, position: int, records: Sequence[Record], base: int | None
    ) -> None:
        if time.monotonic() >= self._next_sweep:
            await self._transact(self._sweep)

        def work(sql: Statements) -> None:
            number, old_base, length, size, written, now = self._lock_row(sql, lease)
            known = length - position
            if not 0 <= known <= len(records):
                raise StoreError(
                    f"the records {position} to {position + len(records) - 1} do not continue the"
                    f" log, which ends before {length}"
                )
            # An attempt that was abandoned may run last: it does not move the base back.
            new_base = old_base if base is None else max(old_base, base)
            if new_base > old_base:
                size -= self._remove(sql, number, old_base, new_base)
            rows: list[dict[str, Any]] = []
            for place, record in enumerate(records[known:], length):
                written += len(record.data)
                if place >= new_base or record.key is not None:
                    size += len(record.data)
                    rows.append(
                        {
                            "position": place,
                            "ends_at": written,
                            "key": record.key,
                            "data": record.data,
                        }
                    )
            if size > self._max_conversation_bytes:
                raise ConversationTooLarge(
                    "conversation", size, self._max_conversation_bytes, "max_conversation_bytes"
                )
            insert(sql, number, rows)
            sql.execute(
                """
                UPDATE {conversations} SET
                    base = :base, length = :length, size = :size, written = :written,
                    created_at = CASE WHEN length = 0 THEN :now ELSE created_at END,
                    updated_at = :now, expires_at = :expires_at
                WHERE id = :id
                """,
                id=lease.conversation_id,
                base=new_base,
                length=length + len(records) - known,
                size=size,
                written=written,
                now=now,
                expires_at=None if self._ttl is None else now + self._ttl,
            )

        await self._transact(work)

    @staticmethod
    def _remove(sql: Statements, number: int, start: int, end: int) -> int:
        """Remove the records without a key before a new base, and return their bytes."""
        which = {"number": number, "start": start, "end": end}
        [[size]] = sql.query(
            """
            SELECT CAST(coalesce(sum(length(data)), 0) AS bigint) FROM {records}
            WHERE conversation = :number AND position >= :start AND position < :end AND key IS NULL
            """,
            **which,
        )
        sql.execute(
            """
            DELETE FROM {records}
            WHERE conversation = :number AND position >= :start AND position < :end AND key IS NULL
            """,
            **which,
        )
        return int(size)

    async def _read(self, conversation_id: str, position: int) -> Sequence[Record]:
        def work(sql: Statements) -> Sequence[Record]:
            # One statement, so that no other transaction changes the log between two.
            rows = sql.query(
                """
                SELECT conversation.base, conversation.length, record.position, record.key,
                    record.data
                FROM {conversations} AS conversation
                LEFT JOIN {records} AS record
                    ON record.conversation = conversation.number
                    AND record.position >= :position
                    AND (record.position = :position OR record.ends_at <= (
                        SELECT first.ends_at - length(first.data) + :bytes
                        FROM {records} AS first
                        WHERE first.conversation = conversation.number
                            AND first.position = :position
                    ))
                WHERE conversation.id = :id AND {alive}
                ORDER BY record.position
                LIMIT :limit
                """,
                id=conversation_id,
                position=position,
                bytes=PAGE_BYTES,
                limit=PAGE_RECORDS,
            )
            if not rows or not rows[0][0] <= position <= rows[0][1]:
                raise StoreError(f"the log has no record {position}")
            return [Record(row[4], row[3]) for row in rows if row[2] is not None]

        return await self._transact(work, write=False)

    async def _find(self, conversation_id: str, key: str) -> Record | None:
        def work(sql: Statements) -> Record | None:
            row = sql.query_row(
                """
                SELECT record.data FROM {records} AS record
                JOIN {conversations} AS conversation
                    ON conversation.number = record.conversation
                WHERE conversation.id = :id AND record.key = :key AND {alive}
                ORDER BY record.position DESC
                LIMIT 1
                """,
                id=conversation_id,
                key=key,
            )
            return None if row is None else Record(row[0], key)

        return await self._transact(work, write=False)

    # --- Conversations -------------------------------------------------------------------

    async def _get(self, conversation_id: str) -> ConversationInfo | None:
        def work(sql: Statements) -> ConversationInfo | None:
            row = sql.query_row(
                "SELECT {description} FROM {conversations}"
                " WHERE id = :id AND length > 0 AND {alive}",
                id=conversation_id,
            )
            return None if row is None else describe(row)

        return await self._transact(work, write=False)

    async def _list(self, prefix: str, after: str, limit: int) -> Sequence[ConversationInfo]:
        def work(sql: Statements) -> Sequence[ConversationInfo]:
            # Ids are compared by code points, so that a prefix is a range, without LIKE.
            rows = sql.query(
                "SELECT {description} FROM {conversations}"
                " WHERE id >= :prefix AND id <= :last"
                " AND id > :after AND length > 0 AND {alive} ORDER BY id LIMIT :limit",
                prefix=prefix,
                last=prefix + LAST_CHARACTER * MAX_ID,
                after=after,
                limit=limit,
            )
            return [describe(row) for row in rows]

        return await self._transact(work, write=False)

    async def _delete(self, conversation_id: str) -> bool:
        def work(sql: Statements) -> bool:
            row = sql.query_row(
                "SELECT length > 0 AND {alive} FROM {conversations} WHERE id = :id {lock}",
                id=conversation_id,
            )
            sql.execute(
                "DELETE FROM {conversations} WHERE id = :id",
                id=conversation_id,
            )
            return row is not None and bool(row[0])

        return await self._transact(work)


@contextmanager
def transaction(database: Database, *, write: bool) -> Generator[None]:
    """Run the block in a transaction.

    After `StoreError` the connection can be used again. After any other error it has to be closed,
    which ends the transaction.
    """
    database.begin(write=write)
    try:
        yield
    except StoreError:
        database.execute("ROLLBACK", {})
        raise
    database.execute("COMMIT", {})


def insert(sql: Statements, conversation: int, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert records, many with one statement."""
    left = iter(rows)
    while some := list(islice(left, ROWS)):
        values = [
            f"(:conversation, :position{n}, :ends_at{n}, :key{n}, :data{n})"
            for n in range(len(some))
        ]
        sql.execute(
            "INSERT INTO {records} (conversation, position, ends_at, key, data) VALUES "  # noqa: S608
            + ", ".join(values),  # numbered parameters
            conversation=conversation,
            **{f"{name}{n}": value for n, row in enumerate(some) for name, value in row.items()},
        )


def describe(row: Sequence[Any]) -> ConversationInfo:
    """Return what a row of `DESCRIPTION` says."""
    conversation_id, base, length, size, created_at, updated_at, leased_until, expires_at = row
    return ConversationInfo(
        conversation_id=conversation_id,
        base=base,
        length=length,
        size=size,
        created_at=created_at,
        updated_at=updated_at,
        leased_until=leased_until,
        expires_at=expires_at,
    )
