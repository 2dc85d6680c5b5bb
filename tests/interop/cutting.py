"""A TCP proxy that cuts every connection that goes through it, each at a place of its own.

It knows just enough of WebSocket to hit a place: where a handshake ends and where frames do. It
passes on what it has whole, so that a cut is exactly where it is said to be; a reset may still
destroy bytes on their way, as resets do.

What belongs elsewhere: who speaks through it (`test_cuts.py`).
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

Way: TypeAlias = Literal["up", "down"]
Where: TypeAlias = Literal["in the handshake", "between frames", "inside a frame"]
How: TypeAlias = Literal["fin", "reset"]

HEAD_END = b"\r\n\r\n"
LENGTH_BITS = 0x7F
LONGER = {126: "!H", 127: "!Q"}
"""Lengths that stand for a longer length behind them (RFC 6455, section 5.2)."""
MASKED = 0x80
MASK_SIZE = 4
SHORT_HEADER = 2

LONGEST_LIFE: dict[Way, int] = {"up": 4, "down": 60}
"""Frames a connection may live for: about four turns, either way."""


class Kind(NamedTuple):
    """What a cut is like."""

    way: Way
    where: Where
    how: How


KINDS = tuple(Kind(*one) for one in product(get_args(Way), get_args(Where), get_args(How)))


@dataclass(frozen=True)
class Cut:
    """Where a connection ends, counted in units: unit 0 is the handshake, the others are frames."""

    kind: Kind
    unit: int
    part: float
    """From 0 to 1: how much of that unit passes."""

    def passes(self, size: int) -> int:
        """Say how many bytes of a unit of this size pass."""
        match self.kind.where:
            case "in the handshake":
                return int(self.part * size)
            case "inside a frame":
                return 1 + int(self.part * (size - 1))
            case "between frames":
                return size


def cuts(seed: int) -> Iterator[Cut]:
    """Give cuts for ever: every kind once, in an order of chance, and again."""
    chance = random.Random(seed)  # noqa: S311 - no secret depends on it
    while True:
        for kind in chance.sample(KINDS, len(KINDS)):
            life = LONGEST_LIFE[kind.way]
            first = {"in the handshake": 0, "between frames": 0, "inside a frame": 1}[kind.where]
            last = 0 if kind.where == "in the handshake" else life
            yield Cut(kind, chance.randint(first, last), chance.random())


def unit_size(data: bytes | bytearray, *, head: bool) -> int | None:
    """Give the size of the first unit, `None` while that cannot be seen."""
    if head:
        end = data.find(HEAD_END)
        return None if end < 0 else end + len(HEAD_END)
    if len(data) < SHORT_HEADER:
        return None
    length, start = data[1] & LENGTH_BITS, SHORT_HEADER
    if length in LONGER:
        form = LONGER[length]
        start += struct.calcsize(form)
        if len(data) < start:
            return None
        (length,) = struct.unpack_from(form, data, SHORT_HEADER)
    return int(start + length + (MASK_SIZE if data[1] & MASKED else 0))


class CuttingProxy:
    """Passes connections on to one place, and cuts them."""

    def __init__(self, host: str, port: int, seed: int) -> None:
        self._upstream = (host, port)
        self._cuts = cuts(seed)
        self.made: Counter[Kind] = Counter()
        """The cuts that were made."""
        self.port = 0

    async def listen(self, nursery: trio.Nursery) -> None:
        """Listen on a port of its own until the nursery is cancelled."""
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        self.port = listeners[0].socket.getsockname()[1]
        await nursery.start(trio.serve_listeners, self._serve, listeners)

    async def _serve(self, client: trio.SocketStream) -> None:
        cut = next(self._cuts)
        async with client, await trio.open_tcp_stream(*self._upstream) as server:
            up, down = _Pump(client, server, "up", cut), _Pump(server, client, "down", cut)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(up.run, nursery.cancel_scope)
                nursery.start_soon(down.run, nursery.cancel_scope)
            if up.has_cut or down.has_cut:
                self.made[cut.kind] += 1
                await ENDS[cut.kind.how](client, server)


class _Pump:
    """One way of a connection."""

    def __init__(
        self, source: trio.SocketStream, sink: trio.SocketStream, way: Way, cut: Cut
    ) -> None:
        self._source = source
        self._sink = sink
        self._cut = cut if cut.kind.way == way else None
        self.has_cut = False

    async def run(self, both: trio.CancelScope) -> None:
        """Pass units on until the source ends. A cut or a reset ends both ways."""
        try:
            await self._pass_on()
        except trio.BrokenResourceError:
            both.cancel()
        if self.has_cut:
            both.cancel()

    async def _pass_on(self) -> None:
        number, waiting = 0, bytearray()
        async for data in self._source:
            waiting += data
            while (size := unit_size(waiting, head=number == 0)) and size <= len(waiting):
                self.has_cut = self._cut is not None and self._cut.unit == number
                passes = self._cut.passes(size) if self._cut and self.has_cut else size
                await self._sink.send_all(bytes(waiting[:passes]))
                if self.has_cut:
                    return
                del waiting[:size]
                number += 1
        await self._sink.send_eof()


async def reset(*streams: trio.SocketStream) -> None:
    """End as a machine does that knows nothing of the connection."""
    for stream in streams:
        stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await trio.aclose_forcefully(stream)


async def end(*streams: trio.SocketStream) -> None:
    """Say that nothing more will come, and read on until the others say so, too."""
    async with trio.open_nursery() as nursery:
        for stream in streams:
            nursery.start_soon(end_one, stream)


async def end_one(stream: trio.SocketStream) -> None:
    """End one side: without a reset, what was passed on before is read."""
    with suppress(trio.BrokenResourceError):
        await stream.send_eof()
        async for _ in stream:
            pass


ENDS = {"fin": end, "reset": reset}


@asynccontextmanager
async def open_cutting_proxy(
    host: str, port: int, *, seed: int
) -> AsyncGenerator[CuttingProxy, None]:
    """Run a proxy for the length of a block."""
    async with open_collapsing_nursery() as nursery:
        proxy = CuttingProxy(host, port, seed)
        await proxy.listen(nursery)
        yield proxy
        nursery.cancel_scope.cancel()
