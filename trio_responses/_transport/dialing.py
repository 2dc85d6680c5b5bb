"""How every byte stream of a connection is opened: dial and TLS, for WebSockets and for HTTP."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, TypeAlias, TypeVar

import trio

from trio_responses._concurrency import open_collapsing_nursery
from trio_responses._errors import ConnectError, ConnectTimeout
from trio_responses._instruments.instrument import Instruments
from trio_responses._settings import RetryPolicy
from trio_responses._transport.proxy import host_and_port
from trio_responses._transport.reasons import describe_dial_error, describe_tls_error
from trio_responses._transport.socket_stream import wait_first
from trio_responses._transport.tls import DefaultContext, TLSStream

if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping

    from trio_responses._endpoint import Endpoint
    from trio_responses._rate_limiter import LimitQueue
    from trio_responses._settings import (
        Keepalive,
        Limits,
        OnAbandonedTurn,
        RecoverOption,
        Timeouts,
        TransportOption,
    )

__all__ = [
    "ConnectionConfig",
    "Dial",
    "check_reachable",
    "connect_timeout",
    "dial_server",
    "dial_tcp",
    "open_stream",
    "open_while",
    "start_tls",
]

T = TypeVar("T")

Dial: TypeAlias = Callable[[str, int], Awaitable[trio.abc.Stream]]
"""An async function that opens a byte stream to a host and port."""


async def dial_tcp(host: str, port: int) -> trio.abc.Stream:
    """Open a TCP connection, trying all of the host's addresses (RFC 8305)."""
    return wait_first(await trio.open_tcp_stream(host, port))


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionConfig:
    """The configuration that every socket of a connection shares."""

    endpoint: Endpoint
    name: str = ""
    """The name of the endpoint, in statistics and for what the server keeps; nothing secret."""
    models: Mapping[str, str] = field(default_factory=dict[str, str])
    """The names of models at the server, by the names in requests."""
    dial: Dial
    ssl_context: ssl.SSLContext | None
    """The user's own context."""
    default_context: DefaultContext = field(default_factory=DefaultContext, repr=False)
    """The context that is used where `ssl_context` is `None`."""
    timeouts: Timeouts
    keepalive: Keepalive
    limits: Limits
    retry_policy: RetryPolicy = field(default_factory=RetryPolicy)
    on_abandoned_turn: OnAbandonedTurn = "drain"
    transport: TransportOption = "websocket"
    websocket_retry: float | None = None
    http2: bool = False
    recover: RecoverOption | None = None
    rate_limits: LimitQueue | None = None
    """The limits that requests wait for, shared with other connections."""
    instruments: Instruments = field(default_factory=Instruments, repr=False)


async def dial_server(config: ConnectionConfig) -> trio.abc.Stream:
    """Dial the server of a connection.

    :raises ConnectError: when the server or the proxy cannot be reached.
    """
    host, port = config.endpoint.host, config.endpoint.port
    try:
        return await config.dial(host, port)
    except (OSError, trio.BrokenResourceError) as error:
        raise ConnectError(describe_dial_error(error, host, port)) from error


async def start_tls(
    stream: trio.abc.Stream, config: ConnectionConfig, context: ssl.SSLContext | None = None
) -> trio.abc.Stream:
    """Start TLS on a byte stream, with the certificates of a connection.

    :param context: the trusted certificates and the TLS settings; by default the connection's.
    :raises ConnectError: when the handshake fails.
    """
    secured = TLSStream(
        stream,
        context or config.ssl_context or config.default_context.load(),
        server_hostname=config.endpoint.tls_name,
    )
    try:
        await secured.do_handshake()
    except trio.BrokenResourceError as error:
        host, port = config.endpoint.host, config.endpoint.port
        reason, retryable = describe_tls_error(error, host, port)
        raise ConnectError(reason, retryable=retryable) from error.__cause__ or error
    return secured


async def open_stream(config: ConnectionConfig) -> trio.abc.Stream:
    """Open the byte stream to the server of a connection: dial, and TLS where the URL asks for it.

    :raises ConnectTimeout: when that takes longer than ``timeouts.connect``.
    :raises ConnectError: when the server cannot be reached, or its certificate is not trusted.
    """
    stream: trio.abc.Stream | None = None
    try:
        with trio.move_on_after(config.timeouts.connect):
            if not config.endpoint.secure:
                return await dial_server(config)
            if config.ssl_context is not None or config.default_context.is_loaded:
                stream = await dial_server(config)
            else:
                dial, load = partial(dial_server, config), partial(_load_default_context, config)
                stream, _, _ = await open_while(dial, load)
            return await start_tls(stream, config)
        raise connect_timeout("dial" if stream is None else "tls", config)
    except BaseException:
        if stream is not None:
            await trio.aclose_forcefully(stream)
        raise


async def _load_default_context(config: ConnectionConfig) -> None:
    """Load the system's certificates, in some 30 ms, while another task waits for the network."""
    await trio.lowlevel.checkpoint()
    config.default_context.load()


async def open_while(
    open_one: Callable[[], Awaitable[trio.abc.Stream]], work: Callable[[], Awaitable[T]]
) -> tuple[trio.abc.Stream, T, float]:
    """Open a byte stream while other work is done that has to be ready before the stream is used.

    Invariants: the first of the two that fails cancels the other, and its exception is raised
    unchanged, that of the work when both fail at once; unless both succeed, no stream is left, also
    under cancellation.

    :return: the stream, the result of the work, and the seconds that the stream waited for it.
    """
    streams: list[trio.abc.Stream] = []
    results: list[T] = []
    failures: list[Exception] = []
    opened_at = 0.0

    async def do_work() -> None:
        try:
            results.append(await work())
        except Exception as error:  # noqa: BLE001 - raised below
            failures.insert(0, error)
            nursery.cancel_scope.cancel()

    try:
        async with open_collapsing_nursery() as nursery:
            nursery.start_soon(do_work)
            try:
                streams.append(await open_one())
                opened_at = trio.current_time()
            except Exception as error:  # noqa: BLE001 - raised below
                failures.append(error)
                nursery.cancel_scope.cancel()
        if failures:
            raise failures[0]
        return streams[0], results[0], trio.current_time() - opened_at
    except BaseException:
        for stream in streams:
            await trio.aclose_forcefully(stream)
        raise
    finally:
        failures.clear()  # an exception that refers to this frame


async def check_reachable(config: ConnectionConfig) -> None:
    """Open a byte stream to the server of a connection, and close it again.

    :raises ConnectError: when that is not possible, or takes longer than ``timeouts.connect``.
    """
    await trio.aclose_forcefully(await open_stream(config))


def connect_timeout(
    phase: str, config: ConnectionConfig, seconds: float | None = None
) -> ConnectTimeout:
    """Return the exception for a step of opening a byte stream that did not finish in time.

    :param phase: the step: ``dial``, ``tls`` or ``upgrade``.
    :param seconds: the limit; by default ``timeouts.connect``.
    """
    address = host_and_port(config.endpoint.host, config.endpoint.port)
    limit = config.timeouts.connect if seconds is None else seconds
    return ConnectTimeout(phase, limit, address=address)
