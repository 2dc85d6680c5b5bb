"""Transports over real sockets and real TLS, for what memory streams cannot show."""

from __future__ import annotations

import os
import socket
import ssl
import struct
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing
import trustme
from trio.testing import MockClock

from tests.testing.driver import OVER_SOCKETS
from tests.transport.opened import open_transport
from tests.transport.peer import (
    CLIENT_HAS_LEFT,
    CLOSE,
    HEADERS,
    PING,
    TEXT,
    Peer,
    assert_secret_kept,
    close,
    connection_config,
    frame,
    lost,
    text,
)
from tests.transport.steps import CancelledAtStep
from trio_responses._errors import ConnectError, HandshakeRejected
from trio_responses._settings import Keepalive, Timeouts
from trio_responses._transport.dialing import dial_tcp

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from tests.transport.peer import Script
    from tests.transport.steps import Moment
    from trio_responses._protocol.frames import Message
    from trio_responses._transport.websocket import WebSocketTransport

pytestmark = OVER_SOCKETS

PROMPT = Timeouts(connect=5.0, send=5.0, close=2.0)


@asynccontextmanager
async def serve(script: Script, tls: ssl.SSLContext | None = None) -> AsyncGenerator[int, None]:
    """Run `script` for every connection to a port of 127.0.0.1."""

    async def run(stream: trio.SocketStream) -> None:
        whole = stream if tls is None else trio.SSLStream(stream, tls, server_side=True)
        with suppress(*CLIENT_HAS_LEFT):
            await script(Peer(whole))
        await trio.aclose_forcefully(whole)

    async with trio.open_nursery() as nursery:
        open_port = partial(trio.serve_tcp, run, 0, host="127.0.0.1")
        (listener,) = await nursery.start(open_port)
        yield listener.socket.getsockname()[1]
        nursery.cancel_scope.cancel()


class Passes(trio.abc.Instrument):
    """Counts the passes of Trio's loop."""

    def __init__(self) -> None:
        self.count = 0

    def before_io_wait(self, timeout: float) -> None:
        del timeout
        self.count += 1


async def polite(peer: Peer) -> None:
    await peer.accept()
    await peer.send(text("hello") + frame(PING, b"p"))
    while (received := await peer.read_frame()).opcode != 8:
        if received.opcode == 1:
            await peer.send(text(received.payload))
    await peer.send(close(received.code))


def reset(peer: Peer) -> None:
    assert isinstance(peer.stream, trio.SocketStream)
    peer.stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.stream.socket.close()


async def fails(url: str, ssl_context: ssl.SSLContext | None = None) -> ConnectError:
    options = connection_config(dial_tcp, url=url, ssl_context=ssl_context, timeouts=PROMPT)
    with trio.fail_after(2.0), pytest.raises(ConnectError) as caught:
        async with open_transport(options, HEADERS):
            pass
    assert_secret_kept(caught.value)
    return caught.value


async def test_opening_messages_and_closing_work_over_tcp() -> None:
    large = b"x" * 1024 * 1024
    async with serve(polite) as port, trio.open_nursery() as nursery:
        options = connection_config(dial_tcp, url=f"ws://127.0.0.1:{port}/v1", timeouts=PROMPT)
        with trio.fail_after(5.0):
            async with open_transport(options, HEADERS) as transport:
                assert await transport.receive() == [b"hello"]
                nursery.start_soon(transport.send, large)
                assert await transport.receive() == [large]


async def test_a_port_without_a_listener_is_a_connect_error() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        error = await fails(f"ws://127.0.0.1:{unused.getsockname()[1]}/v1")
    assert isinstance(error.__cause__, OSError)
    assert error.retryable


async def test_a_server_that_closes_tcp_during_the_handshake_is_noticed() -> None:
    """trio-websocket alone hangs until its timeout."""
    async with serve(Peer.read_head) as port:
        assert type(await fails(f"ws://127.0.0.1:{port}/v1")) is ConnectError


async def test_a_server_that_resets_tcp_during_the_handshake_is_noticed() -> None:
    async def script(peer: Peer) -> None:
        await peer.read_head()
        reset(peer)

    async with serve(script) as port:
        assert (await fails(f"ws://127.0.0.1:{port}/v1")).retryable


async def test_a_reset_of_an_open_socket_is_noticed() -> None:
    async def script(peer: Peer) -> None:
        await peer.accept()
        await peer.read_frame()
        reset(peer)

    async with serve(script) as port:
        options = connection_config(dial_tcp, url=f"ws://127.0.0.1:{port}/v1", timeouts=PROMPT)
        with trio.fail_after(2.0):
            async with open_transport(options, HEADERS) as transport:
                await transport.send(b"x")
                assert (await lost(transport)).code == 1006


# --- TLS ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def server_context(authority: trustme.CA, name: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(context)  # pyright: ignore[reportUnknownMemberType]
    return context


def trusting(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)  # pyright: ignore[reportUnknownMemberType]
    return context


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_opening_messages_and_closing_work_over_tls(authority: trustme.CA, host: str) -> None:
    async with serve(polite, server_context(authority, host)) as port:

        async def dial(name: str, number: int) -> trio.abc.Stream:
            assert name == host
            return await dial_tcp("127.0.0.1", number)

        options = connection_config(
            dial,
            url=f"wss://{host}:{port}/v1",
            ssl_context=trusting(authority),
            timeouts=PROMPT,
        )
        with trio.fail_after(5.0):
            async with open_transport(options, HEADERS) as transport:
                assert await transport.receive() == [b"hello"]
                await transport.send(b"over TLS")
                assert await transport.receive() == [b"over TLS"]


async def test_a_certificate_of_an_unknown_authority_is_not_trusted(authority: trustme.CA) -> None:
    """P2: a bad certificate stays bad, so the error is not retryable."""
    async with serve(polite, server_context(authority, "127.0.0.1")) as port:
        error = await fails(f"wss://127.0.0.1:{port}/v1", trusting(trustme.CA()))
        assert "certificate" in str(error)
        assert not error.retryable
        assert isinstance(error.__cause__, ssl.SSLCertVerificationError)
        assert not (await fails(f"wss://127.0.0.1:{port}/v1")).retryable


async def test_a_certificate_for_another_host_is_not_trusted(authority: trustme.CA) -> None:
    async with serve(polite, server_context(authority, "other.test")) as port:
        error = await fails(f"wss://127.0.0.1:{port}/v1", trusting(authority))
        assert not error.retryable


async def test_a_rejection_over_tls_is_a_rejection(authority: trustme.CA) -> None:
    async def script(peer: Peer) -> None:
        await peer.read_head()
        await peer.send(b"HTTP/1.1 401 No\r\nContent-Length: 2\r\n\r\n{}")

    async with serve(script, server_context(authority, "127.0.0.1")) as port:
        error = await fails(f"wss://127.0.0.1:{port}/v1", trusting(authority))
        assert isinstance(error, HandshakeRejected)
        assert error.body == b"{}"


@pytest.mark.parametrize("step", range(1, 14))
@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("secure", [False, True])
async def test_a_receive_that_is_cancelled_at_any_step_loses_no_message(
    authority: trustme.CA, step: int, moment: Moment, *, secure: bool
) -> None:
    """Whole messages, parts of messages and control frames, each in a segment of its own."""
    messages = [b"one", b"two", b"three", b"four", b"x" * 5000, b"last"]
    pieces = [text("one"), text("two") + text("three")[:3], text("three")[3:], frame(PING, b"p")]
    pieces += [text("four") + text(b"x" * 5000)[:700], text(b"x" * 5000)[700:] + text("last")]

    async def script(peer: Peer) -> None:
        await peer.accept()
        for piece in pieces:
            await trio.testing.wait_all_tasks_blocked(0.001)
            await peer.send(piece)
        while (received := await peer.read_frame()).opcode != CLOSE:
            pass
        await peer.send(close(received.code))

    received: list[Message] = []
    async with serve(script, server_context(authority, "127.0.0.1") if secure else None) as port:
        options = connection_config(
            dial_tcp,
            url=f"{'wss' if secure else 'ws'}://127.0.0.1:{port}/v1",
            ssl_context=trusting(authority),
            timeouts=PROMPT,
        )
        async with open_transport(options, HEADERS) as transport:
            with trio.fail_after(30.0), CancelledAtStep(step, moment) as scopes:
                while len(received) < len(messages):
                    with scopes.open():
                        received += await transport.receive()
    assert received == messages


@pytest.mark.parametrize("secure", [False, True])
async def test_a_flooded_socket_does_not_hold_up_another_one(
    authority: trustme.CA, *, secure: bool
) -> None:
    """P6: each pass of Trio's loop takes one batch of the flood, and then the others run."""
    flood = text(b"x" * 200) * 4000
    batches = 0
    flooding = True

    async def script(peer: Peer) -> None:
        await peer.accept()
        while (received := await peer.read_frame()).opcode == TEXT:
            if received.payload == b"flood":
                while flooding:
                    await peer.send(flood)
            await peer.send(text("answer"))
        await peer.send(close(received.code))

    async def read_all(transport: WebSocketTransport) -> None:
        nonlocal batches
        while True:
            await transport.receive()
            batches += 1

    async with serve(script, server_context(authority, "127.0.0.1") if secure else None) as port:
        options = connection_config(
            dial_tcp,
            url=f"{'wss' if secure else 'ws'}://127.0.0.1:{port}/v1",
            ssl_context=trusting(authority),
            timeouts=PROMPT,
        )
        async with (
            open_transport(options, HEADERS) as flooded,
            open_transport(options, HEADERS) as healthy,
            trio.open_nursery() as nursery,
        ):
            await flooded.send(b"flood")
            nursery.start_soon(read_all, flooded)
            trio.lowlevel.add_instrument(passes := Passes())
            try:
                for _ in range(10):
                    await healthy.send(b"request")
                    batches = passes.count = 0
                    assert await healthy.receive() == [b"answer"]
                    assert batches <= passes.count + 1
            finally:
                flooding = False  # the closing handshake reads to its end
                nursery.cancel_scope.cancel()


@pytest.mark.parametrize("at", [5.0, 25.0])
async def test_a_blocked_event_loop_does_not_count_as_silence(at: float) -> None:
    """No task ran for a minute, and a message that arrived meanwhile can be read."""
    clock = trio.lowlevel.current_clock()
    assert isinstance(clock, MockClock)
    peers: list[Peer] = []

    async def script(peer: Peer) -> None:
        await peer.accept()
        peers.append(peer)
        await trio.sleep_forever()

    keepalive = Keepalive(interval=20.0, timeout=10.0)
    async with serve(script) as port:
        options = connection_config(dial_tcp, url=f"ws://127.0.0.1:{port}/v1", keepalive=keepalive)
        for _ in range(8):  # the order in which Trio wakes the tasks is random
            async with (
                open_transport(options, HEADERS) as transport,
                trio.open_nursery() as nursery,
            ):

                async def hold_up() -> None:
                    await trio.sleep(at)
                    stream = peers[-1].stream
                    assert isinstance(stream, trio.SocketStream)
                    os.write(stream.socket.fileno(), text("one"))
                    clock.jump(60.0)

                nursery.start_soon(hold_up)
                assert await transport.receive() == [b"one"]
                with trio.move_on_after(1.0):
                    await transport.receive()
