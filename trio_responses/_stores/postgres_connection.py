"""Connections to PostgreSQL that end in time. Imports psycopg: `PostgresStore` imports it later."""

from __future__ import annotations

import re
from contextlib import suppress
from functools import cache
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, TypeVar, final

import psycopg
from psycopg.conninfo import conninfo_to_dict

from trio_responses._errors import ConfigurationError
from trio_responses._stores.base import EngineError
from trio_responses._stores.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping, Sequence

__all__ = ["PostgresDatabase", "Target"]

T = TypeVar("T")

NAME: Final = re.compile(r":(\w+)")
"""A parameter as SQLite writes it."""
REFUSED: Final = re.compile(
    r"authentication failed|no password supplied|no pg_hba\.conf entry|permission denied"
    r"|(database|role) .* does not exist|no such (database|user)"
    r"|is not permitted to log in|root certificate file"
    r"|certificate verify failed|does not match host name|does not support SSL"
)
"""What servers and libpq say when another attempt would fail alike. An error of connecting has no
code. Where a server speaks another language, the attempts are bounded by the timeout."""
PERMANENT: Final = ("22", "23", "28", "3D", "3F", "42", "54", "0A")
"""The classes of SQLSTATE after which another attempt would fail alike."""


class Target:
    """Where to connect to. Its repr has no secrets.

    :param dsn: a URI, or names and values, as libpq reads them.
    :param seconds: the length of one attempt.
    """

    def __init__(self, dsn: str, seconds: float) -> None:
        try:
            given = conninfo_to_dict(dsn)
        except psycopg.ProgrammingError:
            given = None  # the message has a part of the string, which may be the password
        if given is None or any(
            "@" in str(given.get(name, "")) for name in ("host", "port", "dbname")
        ):
            raise ConfigurationError(
                "dsn is not a connection string of PostgreSQL, such as"
                " 'postgresql://user:password@host/database'; characters such as @ : / in a"
                " password are written in percent-encoding"
            )
        milliseconds = max(1, round(seconds * 1000))
        defaults = {
            "connect_timeout": max(2, round(seconds)),  # libpq has no shorter one
            "tcp_user_timeout": milliseconds,
            "keepalives_idle": 30,
            "keepalives_interval": 5,
            "keepalives_count": 3,
            "application_name": "trio-responses",
        }
        self.seconds = seconds
        self.parameters: dict[str, Any] = {**defaults, **given, "client_encoding": "UTF8"}
        self.begin = "; ".join(
            (
                "BEGIN ISOLATION LEVEL READ COMMITTED",
                # LOCAL, as a pooler such as PgBouncer gives the connection to other clients.
                f"SET LOCAL statement_timeout = {milliseconds}",
                f"SET LOCAL idle_in_transaction_session_timeout = {milliseconds}",
            )
        )

    def __repr__(self) -> str:
        shown = {name: self.parameters.get(name) for name in ("host", "port", "dbname", "user")}
        return " ".join(f"{name}={value}" for name, value in shown.items() if value is not None)


class BoundedConnection(psycopg.Connection[tuple[Any, ...]]):
    """A connection whose methods fail at a deadline, also if the server does not answer."""

    deadline: float = 0.0

    def wait(self, gen: Generator[Any, Any, T], *args: Any, **named: Any) -> T:
        """Wait for an operation of psycopg, which looks at the deadline every 0.1 s."""
        return super().wait(self._bounded(gen), *args, **named)

    def _bounded(self, operation: Generator[Any, Any, T]) -> Generator[Any, Any, T]:
        try:
            wanted = next(operation)
            while True:
                ready = yield wanted
                if monotonic() >= self.deadline:
                    raise EngineError("PostgreSQL did not answer in time")
                wanted = operation.send(ready)
        except StopIteration as end:
            result: T = end.value
            return result


@final
class PostgresDatabase:
    """A connection to PostgreSQL, with the methods of `Database`."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._connection: BoundedConnection = call_engine(
            # Prepared statements would not work behind PgBouncer: they belong to one connection.
            lambda: BoundedConnection.connect(
                **target.parameters, autocommit=True, prepare_threshold=None
            )
        )

    @property
    def encoding(self) -> str | None:
        """The encoding of the database."""
        return self._connection.info.parameter_status("server_encoding")

    def begin(self, *, write: bool) -> None:  # noqa: ARG002 - all transactions are alike
        """Begin a transaction, for which one deadline counts."""
        self._connection.deadline = monotonic() + self._target.seconds
        self.execute(self._target.begin, {})

    def execute(self, sql: str, parameters: Mapping[str, Any]) -> int:
        """Run a statement, and return the number of the changed rows."""
        return call_engine(lambda: self._run(sql, parameters).rowcount)

    def query(self, sql: str, parameters: Mapping[str, Any]) -> Sequence[Sequence[Any]]:
        """Run a query, and return its rows."""
        return call_engine(lambda: self._run(sql, parameters).fetchall())

    def _run(self, sql: str, parameters: Mapping[str, Any]) -> psycopg.Cursor[tuple[Any, ...]]:
        # Without parameters, several statements go in one message.
        if not parameters:
            return self._connection.execute(sql.encode())
        return self._connection.execute(translate(sql), parameters, binary=True)

    def stop(self) -> None:
        """Make the statement that runs in another thread fail within 0.1 s."""
        self._connection.deadline = 0.0

    def close(self) -> None:
        """Close the connection, which ends its transaction."""
        with suppress(psycopg.Error):
            self._connection.close()


@cache
def translate(sql: str) -> bytes:
    """Return a statement with the parameters as psycopg writes them."""
    return NAME.sub(r"%(\1)s", sql).encode()


def call_engine(call: Callable[[], T]) -> T:
    """Return what a call returns, and translate the errors of psycopg."""
    try:
        return call()
    except psycopg.Error as error:
        is_permanent = (error.sqlstate or "").startswith(PERMANENT) or (
            error.sqlstate is None and REFUSED.search(str(error)) is not None
        )
        failure = (StoreError if is_permanent else EngineError)(
            f"PostgreSQL: {' '.join(str(error).split())}"
        )
    # Outside of the handler: the frames of psycopg have the password in their variables.
    raise failure
