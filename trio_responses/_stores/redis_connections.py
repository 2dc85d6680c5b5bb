"""The connections of `RedisStore` to one Redis server, on the connection class of coredis.

A connection serves one call at a time. A call that is cancelled closes its connection, so that its
late answer reaches nobody, and a connection that no longer answers is not used again. The pool of
coredis is not used: it loses a place when a call is cancelled while it connects, and it sends the
calls of other tasks over a connection that does not answer.
"""

from __future__ import annotations

import re
import ssl
from typing import TYPE_CHECKING, Any, Final, TypeAlias
from urllib.parse import parse_qsl, unquote, urlsplit

import trio
from anyio import aclose_forcefully, connect_tcp, connect_unix
from coredis.connection import BaseConnection, TCPLocation, UnixDomainSocketLocation
from coredis.exceptions import (
    AskError,
    AuthenticationError,
    AuthorizationError,
    BusyLoadingError,
    ClusterDownError,
    NoScriptError,
    ReadOnlyError,
    ResponseError,
    TryAgainError,
    UnknownCommandError,
)

from trio_responses._errors import ConfigurationError
from trio_responses._safe_text import Secrets, printable
from trio_responses._stores.base import EngineError
from trio_responses._stores.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anyio.abc import ByteStream
    from coredis.connection import Location

    from trio_responses._stores.redis_scripts import Script

__all__ = ["RedisAddress", "RedisConnections"]

Argument: TypeAlias = bytes | str | int
Command: TypeAlias = "tuple[bytes, Sequence[Argument]]"
"""The name of a command, and its arguments."""

TRANSIENT: Final = (BusyLoadingError, ClusterDownError, ReadOnlyError, TryAgainError)
"""Answers that may be others soon: of a server that starts, or of a replica after a failover."""
TRANSIENT_TEXT: Final = re.compile(
    r"(?:^|-)(?:BUSY|LOADING|MASTERDOWN|MISCONF|NOREPLICAS|OOM|READONLY|UNKILLABLE) "
)
"""How other such answers begin, and those that Redis 6 quotes in the error of a script."""
DEFAULT_PORT: Final = 6379
FORMS: Final = "redis://host:6379/0, rediss://host:6379/0 or unix:///path/to/socket?db=0"


class RedisAddress:
    """The address of a Redis server with its credentials, which no message and no `repr` shows.

    :raises ConfigurationError: for an invalid URL, without quoting it: it may hold a password.
    """

    def __init__(self, url: str, ssl_context: ssl.SSLContext | None = None) -> None:
        options = _parse_options(url)
        if options is None:
            raise ConfigurationError(f"url must be like {FORMS}; the given one is not")
        self._secrets = Secrets()
        self._secrets.add_headers([("password", options.get("password", ""))])
        self._location: TCPLocation | UnixDomainSocketLocation = options.pop("location")
        self._ssl_context = None
        if options.pop("is_secure"):
            self._ssl_context = ssl_context or ssl.create_default_context()
        self._options = options

    def __repr__(self) -> str:
        return f"RedisAddress({str(self._location)!r})"

    async def open_stream(self) -> ByteStream:
        """Open a stream to the server, with TLS for ``rediss://``."""
        if isinstance(self._location, UnixDomainSocketLocation):
            return await connect_unix(self._location.path)
        host, port, context = self._location.host, self._location.port, self._ssl_context
        if context is None:
            return await connect_tcp(host, port)
        return await connect_tcp(
            host, port, tls=True, ssl_context=context, tls_standard_compatible=False
        )

    def make_connection(self, stream: ByteStream) -> Connection:
        """Return a connection that will use an open stream."""
        return Connection(stream, self._location, **self._options)


class Connection(BaseConnection):
    """A connection of coredis over a stream that is open already.

    Coredis would open the stream itself, but would leave unclosed buffers behind when that fails.
    """

    def __init__(self, stream: ByteStream, location: Location, **named: Any) -> None:
        super().__init__(location, **named)
        self._open_stream = stream

    async def _connect(self) -> ByteStream:
        return self._open_stream

    def describe(self) -> str:
        """Return the address, without the credentials."""
        return f"<Connection to {self.location}>"


def _parse_options(url: str) -> dict[str, Any] | None:
    """Return the parts of a URL, as options of a connection; `None` for an invalid URL."""
    try:
        parts = urlsplit(url)
        query = dict(parse_qsl(parts.query, strict_parsing=bool(parts.query)))
        is_socket = parts.scheme == "unix"
        database = query.pop("db", "" if is_socket else parts.path[1:])
        options: dict[str, Any] = {"db": int(database or 0), "is_secure": parts.scheme == "rediss"}
        port = parts.port or DEFAULT_PORT
    except ValueError:  # its message may quote the password
        return None
    if parts.scheme not in {"redis", "rediss", "unix"} or query or options["db"] < 0:
        return None
    if is_socket == bool(parts.hostname) or not (parts.path or parts.hostname):
        return None
    options["location"] = (
        UnixDomainSocketLocation(unquote(parts.path))
        if is_socket
        else TCPLocation(unquote(parts.hostname or ""), port)
    )
    if parts.username:
        options["username"] = unquote(parts.username)
    if parts.password:
        options["password"] = unquote(parts.password)
    return options


class RedisConnections:
    """Connections that are opened when calls need them, and kept for later calls.

    The tasks of the connections are shielded until `close`: when the block of the store is
    cancelled, a conversation inside still has to be saved and released.

    :param nursery: has the tasks of the connections, which never raise an exception into it.
    :param limit: the greatest number of connections; more calls than that wait.
    """

    def __init__(self, nursery: trio.Nursery, address: RedisAddress, limit: int) -> None:
        self._nursery = nursery
        self._address = address
        self._slots = trio.Semaphore(limit)
        self._idle: list[Connection] = []
        self._scopes: set[trio.CancelScope] = set()
        self._is_closed = False

    def close(self) -> None:
        """Close all connections, so that the nursery can end. Calls fail from then on."""
        self._is_closed = True
        for scope in self._scopes:
            scope.cancel()

    async def run_script(self, script: Script, keys: list[bytes], *arguments: Argument) -> Any:
        """Run a script, and send its text where Redis does not know it: after a restart."""
        return (await self.run_after([], script, keys, *arguments))[-1]

    async def run_after(
        self,
        commands: list[Command],
        script: Script,
        keys: list[bytes],
        *arguments: Argument,
    ) -> list[Any]:
        """Run a script after other commands, in one round trip where Redis knows the script."""
        rest = [len(keys), *keys, *arguments]
        try:
            return await self.run(*commands, (b"EVALSHA", [script.sha, *rest]))
        except _UnknownScript:
            pass
        return await self.run(*commands, (b"EVAL", [script.text, *rest]))

    async def run(self, *commands: Command) -> list[Any]:
        """Send commands in one go, and return their answers.

        :raises EngineError: when the server cannot be reached, or cannot serve at the moment.
        :raises StoreError: when the server refuses a command.
        """
        async with self._slots:
            if self._is_closed:
                raise RuntimeError("the block of the store ended during a call")
            try:
                return await self._exchange(commands)
            except Exception as error:  # noqa: BLE001 - coredis raises what it met in its tasks
                failure = _translate(error)
        if isinstance(failure, EngineError):
            # A server that became a replica, or that stops, has the idle ones as well.
            while self._idle:
                self._idle.pop().invalidate()
        # Raised here, the failure has no context: frames of coredis have the password in them.
        raise failure

    async def _exchange(self, commands: tuple[Command, ...]) -> list[Any]:
        connection = self._take_idle() or await self._connect()
        try:
            requests = [
                connection.create_request(name, *arguments, raise_exceptions=False)
                for name, arguments in commands
            ]
            answers: list[Any] = [await request for request in requests]
        except BaseException:
            connection.invalidate()
            raise
        if connection.usable:
            self._idle.append(connection)
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer
        return answers

    def _take_idle(self) -> Connection | None:
        """Return the connection that was used last, and forget those that were lost."""
        while self._idle:
            connection = self._idle.pop()
            if connection.usable:
                return connection
        return None

    async def _connect(self) -> Connection:
        opening = _Opening(await self._address.open_stream())
        try:
            self._nursery.start_soon(self._serve, opening)
            await opening.done.wait()
        except BaseException:
            opening.scope.cancel()
            await aclose_forcefully(opening.stream)
            raise
        if opening.error is not None:
            raise opening.error
        return opening.connection

    async def _serve(self, opening: _Opening) -> None:
        """Run a connection, and report its failure to the task that opens it."""
        opening.connection = self._address.make_connection(opening.stream)
        self._scopes.add(opening.scope)
        try:
            with opening.scope:
                await opening.connection.run(task_status=opening)
        except Exception as error:  # noqa: BLE001 - no failure of a connection may end the block
            opening.error = error
        finally:
            self._scopes.discard(opening.scope)
            opening.done.set()


class _Opening:
    """A connection that is being opened, and the task status for coredis."""

    connection: Connection

    def __init__(self, stream: ByteStream) -> None:
        self.stream = stream
        self.scope = trio.CancelScope(shield=True)
        self.done = trio.Event()
        self.error: Exception | None = None

    def started(self, value: None = None) -> None:  # noqa: ARG002 - the signature of anyio
        """Called when the connection is open."""
        self.done.set()


class _UnknownScript(StoreError):
    """Redis does not know the hash of a script."""


REFUSALS: Final[tuple[tuple[type[Exception], type[StoreError], str], ...]] = (
    (NoScriptError, _UnknownScript, "{}"),
    (AuthenticationError, StoreError, "Redis refuses the user or password of the URL: {}"),
    (AuthorizationError, StoreError, "the user of the URL may not do what is needed: {}"),
    (
        AskError,
        StoreError,
        "this Redis is a node of a cluster, and lacks some keys: use a single server, or a proxy",
    ),
    # Redis 5 quotes the arguments of HELLO in its answer, and one of them is the password.
    (UnknownCommandError, StoreError, "this Redis lacks a command: Redis 6 or later is needed"),
    (ResponseError, StoreError, "Redis refuses a command: {}"),
)
"""The exceptions of coredis that are not tried again, in the order in which they are looked up."""


def _translate(error: Exception) -> Exception:
    """Return the exception that leaves the store instead of one of coredis."""
    text = printable(str(error))
    cause = error.__cause__
    if cause is not None:
        text += f": {printable(str(cause))}"
    for each in error, cause:
        if isinstance(each, ssl.SSLCertVerificationError):
            return StoreError(f"the certificate of Redis is not accepted: {each.verify_message}")
    if not isinstance(error, TRANSIENT) and not TRANSIENT_TEXT.search(str(error)):
        for kind, refusal, message in REFUSALS:
            if isinstance(error, kind):
                return refusal(message.format(text))
    return EngineError(text)
