"""How a connection is opened: for a block, or in a nursery of the caller's own.

What belongs elsewhere: what it does once it is there (`connection.py`).
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

import trio

from trio_responses._concurrency import open_closing_nursery
from trio_responses._connection.engine import ResponsesConnection
from trio_responses._endpoint import checked_headers, choose_endpoint
from trio_responses._errors import ConfigurationError
from trio_responses._instruments.instrument import (
    Instruments,
    ServerAddress,
    checked_instruments,
)
from trio_responses._instruments.log import LoggingInstrument
from trio_responses._protocol.backoff import Backoff, ReconnectPolicy
from trio_responses._settings import (
    Keepalive,
    Limits,
    RotationPolicy,
    Timeouts,
    checked_record,
)
from trio_responses._transport.tls import default_ssl_context
from trio_responses._transport.tunnel import choose_dial
from trio_responses._transport.websocket import ConnectionConfig, dial_tcp

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncGenerator, Iterable

    from trio_responses._endpoint import ApiKey, Endpoint, Headers
    from trio_responses._instruments.instrument import Instrument
    from trio_responses._transport.proxy import ProxyChoice
    from trio_responses._transport.websocket import Dial

__all__ = ["connect_responses", "open_responses"]


@asynccontextmanager
@trio.lowlevel.enable_ki_protection
async def open_responses(
    url: str | None = None,
    *,
    api_key: ApiKey | None = None,
    endpoint: Endpoint | None = None,
    headers: Headers = (),
    ssl_context: ssl.SSLContext | None = None,
    proxy: ProxyChoice = None,
    reconnect: ReconnectPolicy | Iterable[float] | None = None,
    timeouts: Timeouts | None = None,
    keepalive: Keepalive | None = None,
    limits: Limits | None = None,
    rotation: RotationPolicy | None = None,
    allow_insecure: bool = False,
    instruments: Iterable[Instrument] | None = None,
    dial: Dial = dial_tcp,
) -> AsyncGenerator[ResponsesConnection, None]:
    """Open a supervised connection for the length of a block.

    For example::

        async with open_responses() as connection:
            response = await connection.create(model=MODEL, input="Hello")

    The socket is open when the block begins. If it is lost, another one is opened behind the
    scenes; turns under way are told. Nothing outlives the block: no task, no socket, no timer.
    When the block is cancelled or fails, the connection still works in its ``finally`` clauses;
    then it is closed within ``timeouts.close`` seconds.

    :param url: the base URL (``https://host/v1``) or the WebSocket URL; by default
        ``OPENAI_BASE_URL``, or OpenAI's own.
    :param api_key: the key, or an async callable that gives it, called for every handshake; by
        default the endpoint's variable, ``OPENAI_API_KEY`` for most. An empty string sends none,
        where the endpoint can do without.
    :param endpoint: a server's profile, instead of ``url``.
    :param headers: more headers for every handshake, in place of the library's of the same name.
    :param ssl_context: what TLS trusts and shows; by default what the system trusts. It is for the
        server: a proxy that is reached over TLS itself is checked against the system's trust.
    :param proxy: the URL of a proxy (``http://``, ``https://``, ``socks5://`` or ``socks5h://``),
        with ``user:password@`` where it asks for them; `False` for none. By default what the
        environment says, here and now: ``HTTPS_PROXY`` and its kin, and ``NO_PROXY``
        (docs/proxies.md).
    :param reconnect: a `ReconnectPolicy`, or delays in seconds.
    :param timeouts: how long each phase may take.
    :param keepalive: how a dead server is noticed.
    :param limits: how many bytes may be in one place.
    :param rotation: when a socket is replaced before the server ends it.
    :param allow_insecure: allow ``ws://`` to other machines: everybody on the way can read the
        key and the content.
    :param instruments: what is told of sockets, turns and tools (docs/instruments.md); by default
        a `LoggingInstrument`, for the logger ``trio_responses``.
    :param dial: opens the byte stream, where TCP is not the way. The environment's proxies are
        not for it.
    :raises ConfigurationError: when the arguments cannot work.
    :raises ConnectError: when the server cannot be reached, and another attempt cannot help; a
        `ProxyError` where a proxy is in the way.
    :raises ReconnectFailed: when the policy's attempts are spent.
    """
    connection = _prepare(
        url,
        api_key=api_key,
        endpoint=endpoint,
        headers=headers,
        ssl_context=ssl_context,
        proxy=proxy,
        reconnect=reconnect,
        timeouts=timeouts,
        keepalive=keepalive,
        limits=limits,
        rotation=rotation,
        allow_insecure=allow_insecure,
        instruments=instruments,
        dial=dial,
    )
    async with open_closing_nursery(connection.aclose) as nursery:
        await nursery.start(partial(connection._run, shielded=True))  # noqa: SLF001 - its own opener
        await connection.wait_open()
        yield connection


@trio.lowlevel.enable_ki_protection
async def connect_responses(
    nursery: trio.Nursery,
    url: str | None = None,
    *,
    api_key: ApiKey | None = None,
    endpoint: Endpoint | None = None,
    headers: Headers = (),
    ssl_context: ssl.SSLContext | None = None,
    proxy: ProxyChoice = None,
    reconnect: ReconnectPolicy | Iterable[float] | None = None,
    timeouts: Timeouts | None = None,
    keepalive: Keepalive | None = None,
    limits: Limits | None = None,
    rotation: RotationPolicy | None = None,
    allow_insecure: bool = False,
    instruments: Iterable[Instrument] | None = None,
    dial: Dial = dial_tcp,
) -> ResponsesConnection:
    """Open a supervised connection in a nursery of your own.

    As `open_responses`, but it lives until ``connection.aclose()`` or until the nursery is
    cancelled, which closes it, too. When this call is cancelled or fails, nothing is left.

    :param nursery: where its tasks run.
    """
    connection = _prepare(
        url,
        api_key=api_key,
        endpoint=endpoint,
        headers=headers,
        ssl_context=ssl_context,
        proxy=proxy,
        reconnect=reconnect,
        timeouts=timeouts,
        keepalive=keepalive,
        limits=limits,
        rotation=rotation,
        allow_insecure=allow_insecure,
        instruments=instruments,
        dial=dial,
    )
    try:
        await nursery.start(connection._run)  # noqa: SLF001 - its own opener
        await connection.wait_open()
    except BaseException:
        with trio.CancelScope(shield=True):  # as in `open_closing_nursery`
            await connection.aclose()
        raise
    return connection


def _prepare(
    url: str | None,
    *,
    api_key: ApiKey | None,
    endpoint: Endpoint | None,
    headers: Headers,
    ssl_context: ssl.SSLContext | None,
    proxy: ProxyChoice,
    reconnect: ReconnectPolicy | Iterable[float] | None,
    timeouts: Timeouts | None,
    keepalive: Keepalive | None,
    limits: Limits | None,
    rotation: RotationPolicy | None,
    allow_insecure: bool,
    instruments: Iterable[Instrument] | None,
    dial: Dial,
) -> ResponsesConnection:
    """Make a connection of its options, with the defaults of those that were not given."""
    endpoint = choose_endpoint(url, endpoint)
    if not endpoint.secure and not endpoint.loopback and not allow_insecure:
        raise ConfigurationError(
            f"ws:// to {endpoint.host} would show the key and the content to everybody on the way:"
            " use wss:// or allow_insecure=True"
        )
    if endpoint.secure and ssl_context is None:
        ssl_context = default_ssl_context()
    config = ConnectionConfig(
        endpoint=endpoint,
        dial=choose_dial(endpoint, proxy, dial, allow_insecure=allow_insecure),
        ssl_context=ssl_context,
        timeouts=checked_record("timeouts", timeouts, Timeouts),
        keepalive=checked_record("keepalive", keepalive, Keepalive),
        limits=checked_record("limits", limits, Limits),
        instruments=Instruments(
            [LoggingInstrument()] if instruments is None else checked_instruments(instruments),
            ServerAddress(endpoint.host, endpoint.port),
        ),
    )
    return ResponsesConnection(
        config,
        api_key,
        checked_headers(headers),
        Backoff(ReconnectPolicy() if reconnect is None else reconnect),
        checked_record("rotation", rotation, RotationPolicy),
    )
