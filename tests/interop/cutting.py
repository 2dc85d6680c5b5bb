"""A TCP proxy that cuts every connection at a different place.

The proxy parses enough of WebSocket to find the end of the handshake and the end of each frame. It
forwards complete handshakes and frames only, so that each cut is exactly at its place. A reset may
also destroy bytes that were forwarded before.
"""

from __future__ import annotations

import random
import socket
import struct
from collections import Counter
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias, get_args

import trio

from trio_responses._concurrency import open_collapsing_nursery

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator

Direction: TypeAlias = Literal["up", "down"]
Position: TypeAlias = Literal["in the handshake", "between frames", "inside a frame"]
Closing: TypeAlias = Literal["fin", "reset"]

HEAD_END = b"\r\n\r\n"
LENGTH_BITS = 0x7F
EXTENDED_LENGTHS = {126: "!H", 127: "!Q"}
"""The values of the length field that announce an extended length (RFC 6455, section 5.2)."""
MASKED = 0x80
MASK_SIZE = 4
SHORT_HEADER = 2

MAX_FRAMES: dict[Direction, int] = {"up": 4, "down": 60}
"""The most frames before a cut: about four turns in either direction."""


class Kind(NamedTuple):
    """The kind of a cut."""

    direction: Direction
    position: Position
    closing: Closing


KINDS = tuple(
    Kind(*fields) for fields in product(get_args(Direction), get_args(Position), get_args(Closing))
)


@dataclass(frozen=True)
class Cut:
    """The place of a cut, counted in units: unit 0 is the handshake, the others are frames."""

    kind: Kind
    unit: int
    fraction: float
    """The part of the unit that is forwarded, from 0 to 1."""

    def forwarded_bytes(self, size: int) -> int:
        """Return the number of bytes that are forwarded of a unit of this size."""
        match self.kind.position:
            case "in the handshake":
                return int(self.fraction * size)
            case "inside a frame":
                return 1 + int(self.fraction * (size - 1))
            case "between frames":
                return size


def cuts(seed: int) -> Iterator[Cut]:
    """Yield cuts without end: every kind once in random order, then every kind again."""
    rng = random.Random(seed)  # noqa: S311 - no secret depends on it
    while True:
        for kind in rng.sample(KINDS, len(KINDS)):
            first = 1 if kind.position == "inside a frame" else 0
            last = 0 if kind.position == "in the handshake" else MAX_FRAMES[kind.direction]
            yield Cut(kind, rng.randint(first, last), rng.random())


def unit_size(data: bytes | bytearray, *, head: bool) -> int | None:
    """Return the size of the first unit, or `None` while its header is incomplete."""
    if head:
        end = data.find(HEAD_END)
        return None if end < 0 else end + len(HEAD_END)
    if len(data) < SHORT_HEADER:
        return None
    length, start = data[1] & LENGTH_BITS, SHORT_HEADER
    if length in EXTENDED_LENGTHS:
        layout = EXTENDED_LENGTHS[length]
        start += struct.calcsize(layout)
        if len(data) < start:
            return None
        (length,) = struct.unpack_from(layout, data, SHORT_HEADER)
    return int(start + length + (MASK_SIZE if data[1] & MASKED else 0))


class CuttingProxy:
    """A TCP proxy in front of one address that cuts every connection."""

    def __init__(self, host: str, port: int, seed: int) -> None:
        self._upstream = (host, port)
        self._cuts = cuts(seed)
        self.made: Counter[Kind] = Counter()
        """The number of cuts so far of each kind."""
        self.port = 0

    async def listen(self, nursery: trio.Nursery) -> None:
        """Listen on a free port until the nursery is cancelled."""
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        self.port = listeners[0].socket.getsockname()[1]
        await nursery.start(trio.serve_listeners, self._serve, listeners)

    async def _serve(self, client: trio.SocketStream) -> None:
        cut = next(self._cuts)
        async with client, await trio.open_tcp_stream(*self._upstream) as server:
            up = _Forwarder(client, server, "up", cut)
            down = _Forwarder(server, client, "down", cut)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(up.run, nursery.cancel_scope)
                nursery.start_soon(down.run, nursery.cancel_scope)
            if up.has_cut or down.has_cut:
                self.made[cut.kind] += 1
                await CLOSERS[cut.kind.closing](client, server)


class _Forwarder:
    """One direction of a connection."""

    def __init__(
        self, source: trio.SocketStream, sink: trio.SocketStream, direction: Direction, cut: Cut
    ) -> None:
        self._source = source
        self._sink = sink
        self._cut = cut if cut.kind.direction == direction else None
        self.has_cut = False

    async def run(self, both: trio.CancelScope) -> None:
        """Forward units until the source ends; a cut or a reset ends both directions."""
        try:
            await self._forward()
        except trio.BrokenResourceError:
            both.cancel()
        if self.has_cut:
            both.cancel()

    async def _forward(self) -> None:
        number, buffer = 0, bytearray()
        async for data in self._source:
            buffer += data
            while (size := unit_size(buffer, head=number == 0)) and size <= len(buffer):
                self.has_cut = self._cut is not None and self._cut.unit == number
                count = self._cut.forwarded_bytes(size) if self._cut and self.has_cut else size
                await self._sink.send_all(bytes(buffer[:count]))
                if self.has_cut:
                    return
                del buffer[:size]
                number += 1
        await self._sink.send_eof()


async def reset(*streams: trio.SocketStream) -> None:
    """Close each stream by a TCP reset."""
    for stream in streams:
        stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await trio.aclose_forcefully(stream)


async def finish(*streams: trio.SocketStream) -> None:
    """Send the end of each stream and read until each peer sends its own."""
    async with trio.open_nursery() as nursery:
        for stream in streams:
            nursery.start_soon(finish_one, stream)


async def finish_one(stream: trio.SocketStream) -> None:
    """Send the end of a stream and read until its peer ends."""
    # Unread data would turn the close into a reset, which could destroy forwarded bytes.
    with suppress(trio.BrokenResourceError):
        await stream.send_eof()
        async for _ in stream:
            pass


CLOSERS = {"fin": finish, "reset": reset}


@asynccontextmanager
async def open_cutting_proxy(
    host: str, port: int, *, seed: int
) -> AsyncGenerator[CuttingProxy, None]:
    """Run a cutting proxy for the length of the block."""
    async with open_collapsing_nursery() as nursery:
        proxy = CuttingProxy(host, port, seed)
        await proxy.listen(nursery)
        yield proxy
        nursery.cancel_scope.cancel()
