"""Frames that a real socket takes at once, in part, or not at all, over TCP and over TLS."""

from __future__ import annotations

import socket
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio
import trustme

from tests.testing.driver import OVER_SOCKETS
from tests.transport.opened import open_transport
from tests.transport.peer import (
    HEADERS,
    PING,
    PONG,
    TEXT,
    Peer,
    connection_config,
    frame,
    lost,
)
from tests.transport.proxies import server_context, trusting
from trio_responses._errors import ConnectionLost, SendTimeout
from trio_responses._settings import Timeouts
from trio_responses._transport.socket_stream import SocketStream, wait_first
from trio_responses._transport.tls import TLSStream

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from trio_responses._transport.websocket import WebSocketTransport

pytestmark = OVER_SOCKETS

BUFFER = 16 * 1024
TIMEOUTS = Timeouts(connect=30.0, send=30.0, close=2.0)


@pytest.fixture(params=["tcp", "tls"])
def tls(request: pytest.FixtureRequest) -> trustme.CA | None:
    return trustme.CA() if request.param == "tls" else None


def send_nothing(_: object, data: bytes) -> bytes:
    """Send nothing without waiting."""
    return data


@pytest.fixture(params=["at once", "slowly"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Send as the socket takes the bytes, or with the locks and the timer alone."""
    if request.param == "slowly":
        monkeypatch.setattr(SocketStream, "send_now", send_nothing)
        monkeypatch.setattr(TLSStream, "send_now", send_nothing)
    return str(request.param)


@asynccontextmanager
async def connected(
    authority: trustme.CA | None, timeouts: Timeouts = TIMEOUTS
) -> AsyncGenerator[tuple[WebSocketTransport, Peer], None]:
    """Open a WebSocket whose two ends have small buffers; the server reads when it is told to."""
    send_peer, receive_peer = trio.open_memory_channel[Peer](1)
    context = None if authority is None else server_context(authority, "127.0.0.1")

    async def serve(stream: trio.SocketStream) -> None:
        whole = stream if context is None else trio.SSLStream(stream, context, server_side=True)
        peer = Peer(whole)
        await peer.accept()
        await send_peer.send(peer)
        await trio.sleep_forever()

    async def dial(host: str, port: int) -> trio.abc.Stream:
        stream = await trio.open_tcp_stream(host, port)
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)
        return wait_first(stream)

    listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
    listener.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
    port = listener.socket.getsockname()[1]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(trio.serve_listeners, serve, [listener]))
        config = connection_config(
            dial,
            url=f"{'ws' if authority is None else 'wss'}://127.0.0.1:{port}/v1",
            ssl_context=None if authority is None else trusting(authority),
            timeouts=timeouts,
        )
        async with open_transport(config, HEADERS) as transport:
            peer = await receive_peer.receive()
            yield transport, peer
            await trio.aclose_forcefully(peer.stream)
        nursery.cancel_scope.cancel()


async def test_a_small_frame_is_written_before_other_tasks_run(tls: trustme.CA | None) -> None:
    order: list[str] = []

    async def other() -> None:
        order.append("other")

    async with connected(tls) as (transport, peer), trio.open_nursery() as nursery:
        nursery.start_soon(other)
        await transport.send(b"first")
        order.append("sent")
        assert (await peer.read_frame()).payload == b"first"
    assert order == ["sent", "other"]


@pytest.mark.usefixtures("way")
async def test_a_send_in_a_cancelled_scope_writes_nothing(tls: trustme.CA | None) -> None:
    async with connected(tls) as (transport, peer):
        with trio.CancelScope() as scope:
            scope.cancel()
            await transport.send(b"never")
        assert scope.cancelled_caught
        await transport.send(b"next")
        assert (await peer.read_frame()).payload == b"next"


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("size", [3000, 15_000, 40_000, 500_000])
async def test_no_frame_is_torn_when_the_socket_is_full_and_senders_are_cancelled(
    tls: trustme.CA | None, size: int
) -> None:
    """A sender that was cancelled while it waited has sent nothing, and the others are whole."""
    number_of_frames = 5 + 200_000 // size
    payloads = [b"%06d" % number + b"x" * size for number in range(number_of_frames)]
    finished: list[bytes] = []
    cancelled: list[bytes] = []
    scopes = [trio.CancelScope() for _ in payloads]

    async with connected(tls) as (transport, peer), trio.open_nursery() as nursery:

        async def send(payload: bytes, scope: trio.CancelScope) -> None:
            with scope:
                await transport.send(payload)
                finished.append(payload)
            if scope.cancelled_caught:
                cancelled.append(payload)

        for payload, scope in zip(payloads, scopes, strict=True):
            nursery.start_soon(send, payload, scope)
            await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(transport.receive)
        await peer.send(frame(PING, b"p"))
        waiting = [one for one in zip(payloads, scopes, strict=True) if one[0] not in finished]
        assert waiting, "the socket takes every frame at once: the test shows nothing"
        for _, scope in waiting[::2]:
            scope.cancel()
        received: list[bytes] = []
        pongs = 0
        with trio.move_on_after(5.0):
            while True:
                one = await peer.read_frame()
                if one.opcode == TEXT:
                    received.append(one.payload)
                else:
                    assert (one.opcode, one.payload) == (PONG, b"p")
                    pongs += 1
        assert pongs == 1
        assert received == sorted(received)
        assert peer.unfinished == b""
        # The frame that was being written is finished although its sender was cancelled.
        assert set(finished) <= set(received)
        assert len(received) - len(finished) in {0, 1}
        assert set(received) | set(cancelled) == set(payloads)
        nursery.cancel_scope.cancel()


@pytest.mark.usefixtures("way")
async def test_a_frame_that_is_never_taken_whole_ends_the_socket(tls: trustme.CA | None) -> None:
    async with connected(tls) as (transport, _):
        with pytest.raises(SendTimeout):
            await transport.send(b"x" * 5_000_000)
        with pytest.raises(ConnectionLost):
            await transport.send(b"next")


@pytest.mark.usefixtures("way")
async def test_sending_on_a_socket_that_the_server_has_reset_raises(
    tls: trustme.CA | None,
) -> None:
    async with connected(tls) as (transport, peer):
        stream = getattr(peer.stream, "transport_stream", peer.stream)
        assert isinstance(stream, trio.SocketStream)
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        stream.socket.close()
        await lost(transport)
        with pytest.raises(ConnectionLost):
            await transport.send(b"x")
