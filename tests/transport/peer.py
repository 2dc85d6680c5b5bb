"""A scripted server on memory streams, which sends exact bytes and decodes every frame it gets."""

from __future__ import annotations

import base64
import hashlib
import math
import struct
import traceback
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

import pytest
import trio
import trio.testing

from tests.transport.opened import open_transport, receive
from trio_responses._concurrency import open_collapsing_nursery
from trio_responses._endpoint import Endpoint
from trio_responses._errors import ConnectError, ConnectionLost
from trio_responses._settings import Keepalive, Limits, Timeouts
from trio_responses._transport.dialing import ConnectionConfig
from trio_responses.testing import MemoryStream, memory_connection

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncGenerator, Sequence

    from trio_responses._transport.dialing import Dial
    from trio_responses._transport.websocket import WebSocketTransport

KEY: Final = "sk-secret-7hU9"
HEADERS: Final = (("Authorization", f"Bearer {KEY}"), ("User-Agent", "test"))
TEXT, BINARY, CLOSE, PING, PONG = 0x1, 0x2, 0x8, 0x9, 0xA
CLIENT_HAS_LEFT: Final = (EOFError, trio.BrokenResourceError, trio.ClosedResourceError)
LOCAL: Final = "ws://127.0.0.1/v1"


def frame(opcode: int, payload: bytes = b"", *, fin: bool = True) -> bytes:
    """Write a server's frame, its length in the shortest form."""
    size = len(payload)
    head = bytes([(0x80 if fin else 0) | opcode])
    if size < 126:
        head += bytes([size])
    elif size < 65536:
        head += b"\x7e" + struct.pack("!H", size)
    else:
        head += b"\x7f" + struct.pack("!Q", size)
    return head + payload


def text(payload: str | bytes) -> bytes:
    return frame(TEXT, payload.encode() if isinstance(payload, str) else payload)


def close(code: int | None = None, reason: str = "") -> bytes:
    return frame(CLOSE, b"" if code is None else struct.pack("!H", code) + reason.encode())


@dataclass(frozen=True)
class ClientFrame:
    opcode: int
    payload: bytes
    mask: bytes

    @property
    def code(self) -> int | None:
        assert self.opcode == CLOSE
        return struct.unpack("!H", self.payload[:2])[0] if self.payload else None


class Peer:
    """The server's end of one socket."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self.head = ""
        self._received = bytearray()

    async def read_head(self) -> str:
        """Read the upgrade request; raises EOFError at the end of the stream."""
        while b"\r\n\r\n" not in self._received:
            if not await self._read_more():
                raise EOFError
        head, _, self._received = self._received.partition(b"\r\n\r\n")
        self.head = head.decode("ascii")
        return self.head

    @property
    def headers(self) -> list[tuple[str, str]]:
        pairs = [line.partition(": ") for line in self.head.split("\r\n")[1:]]
        return [(name, value) for name, _, value in pairs]

    def switching(self, *extra: str, token: str | None = None) -> bytes:
        """Write the head of the 101 that answers the request."""
        key = dict(self.headers)["Sec-WebSocket-Key"]
        digest = hashlib.sha1(f"{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11".encode()).digest()  # noqa: S324
        lines = [
            "HTTP/1.1 101 Switching Protocols",
            "Upgrade: websocket",
            "Connection: Upgrade",
            f"Sec-WebSocket-Accept: {token or base64.b64encode(digest).decode()}",
            *extra,
        ]
        return "\r\n".join([*lines, "\r\n"]).encode()

    async def accept(self) -> None:
        """Do the upgrade."""
        await self.read_head()
        await self.send(self.switching())

    async def send(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def read_frame(self) -> ClientFrame:
        """Read one frame; raises EOFError at the end of the stream."""
        await self._need(2)
        first, second = self._received[:2]
        assert first & 0x70 == 0
        assert second & 0x80, "a client masks"
        size, start = second & 0x7F, 2
        if size > 125:
            start = 4 if size == 126 else 10
            await self._need(start)
            size = int.from_bytes(self._received[2:start], "big")
        await self._need(start + 4 + size)
        mask = bytes(self._received[start : start + 4])
        masked = self._received[start + 4 : start + 4 + size]
        pattern = (mask * (size // 4 + 1))[:size]
        number = int.from_bytes(masked, "big") ^ int.from_bytes(pattern, "big")
        del self._received[: start + 4 + size]
        assert first & 0x80, "one frame a message"
        return ClientFrame(first & 0x0F, number.to_bytes(size, "big"), mask)

    async def read_frames(self) -> list[ClientFrame]:
        """Read all frames until the end of the stream."""
        frames: list[ClientFrame] = []
        try:
            while True:
                frames.append(await self.read_frame())
        except EOFError:
            return frames

    @property
    def unfinished(self) -> bytes:
        """The received bytes that are no whole frame."""
        return bytes(self._received)

    async def _need(self, size: int) -> None:
        while len(self._received) < size:
            if not await self._read_more():
                raise EOFError

    async def _read_more(self) -> bool:
        try:
            data = await self.stream.receive_some()
        except trio.BrokenResourceError:
            return False
        self._received += data
        return bool(data)


Script: TypeAlias = Callable[[Peer], Awaitable[object]]
"""A function that plays the server on one socket."""


def connection_config(
    dial: Dial,
    *,
    url: str = LOCAL,
    ssl_context: ssl.SSLContext | None = None,
    timeouts: Timeouts | None = None,
    keepalive: Keepalive | None = None,
    limits: Limits | None = None,
) -> ConnectionConfig:
    return ConnectionConfig(
        endpoint=Endpoint.compatible(url),
        dial=dial,
        ssl_context=ssl_context,
        timeouts=timeouts or Timeouts(),
        keepalive=keepalive or Keepalive(interval=math.inf),
        limits=limits or Limits(),
    )


class Net:
    """A dial function whose streams lead to a scripted server in memory."""

    def __init__(self, nursery: trio.Nursery, script: Script, capacity: int | None) -> None:
        self._nursery = nursery
        self._script = script
        self._capacity = capacity
        self.dialled: list[tuple[str, int]] = []
        self.clients: list[MemoryStream] = []
        self.peers: list[Peer] = []

    async def _run(self, peer: Peer) -> None:
        with suppress(*CLIENT_HAS_LEFT):
            await self._script(peer)

    def reset_soon(self) -> None:
        """Break the newest connection once all tasks are blocked."""

        async def reset() -> None:
            await trio.testing.wait_all_tasks_blocked()
            stream = self.peers[-1].stream
            assert isinstance(stream, MemoryStream)
            stream.reset()

        self._nursery.start_soon(reset)

    async def dial(self, host: str, port: int) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        client, server = memory_connection(self._capacity)
        self.dialled.append((host, port))
        self.clients.append(client)
        self.peers.append(Peer(server))
        self._nursery.start_soon(self._run, self.peers[-1])
        return client


@asynccontextmanager
async def open_net(script: Script, *, capacity: int | None = None) -> AsyncGenerator[Net, None]:
    """Run `script` for every dial in the block, and assert that it leaves no open socket (P1)."""
    async with open_collapsing_nursery() as nursery:
        net = Net(nursery, script, capacity)
        yield net
        for client in net.clients:
            with pytest.raises(trio.ClosedResourceError):
                await client.receive_some()
        nursery.cancel_scope.cancel()


async def refused(
    script: Script,
    *,
    url: str = LOCAL,
    headers: Sequence[tuple[str, str]] = HEADERS,
    timeouts: Timeouts | None = None,
    ssl_context: ssl.SSLContext | None = None,
) -> ConnectError:
    """Return the error of opening a socket to `script`; assert one dial and no key in the error."""
    async with open_net(script) as net:
        options = connection_config(net.dial, url=url, timeouts=timeouts, ssl_context=ssl_context)
        try:
            async with open_transport(options, tuple(headers)):
                pass
        except ConnectError as error:
            assert len(net.dialled) == 1
            assert_secret_kept(error)
            return error
    raise AssertionError("it opened")


@asynccontextmanager
async def open_pair(
    *,
    script: Script = Peer.accept,
    capacity: int | None = None,
    timeouts: Timeouts | None = None,
    keepalive: Keepalive | None = None,
    limits: Limits | None = None,
) -> AsyncGenerator[tuple[WebSocketTransport, Peer], None]:
    """Open a transport over memory, with a peer that sends nothing by itself."""
    async with open_net(script, capacity=capacity) as net:
        options = connection_config(net.dial, timeouts=timeouts, keepalive=keepalive, limits=limits)
        async with open_transport(options, HEADERS) as transport:
            yield transport, net.peers[0]


@asynccontextmanager
async def takes(seconds: float) -> AsyncGenerator[None, None]:
    """Assert that a block takes exactly so many seconds."""
    start = trio.current_time()
    yield
    assert trio.current_time() - start == seconds


async def lost(transport: WebSocketTransport) -> ConnectionLost:
    """Return the loss that `receive` raises, with no message before it."""
    with pytest.raises(ConnectionLost) as caught:
        await receive(transport)
    assert_secret_kept(caught.value)
    return caught.value


def assert_secret_kept(error: BaseException) -> None:
    """Assert that nothing printable of an exception holds the key (P9)."""
    shown = ["".join(traceback.format_exception(error))]
    link: BaseException | None = error
    while link is not None:
        shown += [repr(link), str(link), repr(link.args), repr(vars(link))]
        link = link.__cause__ or link.__context__
    assert not [text for text in shown if KEY in text]
