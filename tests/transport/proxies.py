"""Scripted proxies, and the scripted server behind them."""

from __future__ import annotations

import os
import socket
import ssl
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import trio

from tests.transport.peer import CLIENT_HAS_LEFT, Peer, close, text
from trio_responses._settings import Timeouts

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    import pytest
    import trustme

    from tests.transport.peer import Script

PROMPT: Final = Timeouts(connect=30.0, send=30.0, close=10.0)
ESTABLISHED: Final = b"HTTP/1.1 200 Connection established\r\n\r\n"
GRANTED: Final = b"\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00"
IPV4, NAME, IPV6 = 1, 3, 4


def without_environment(patch: pytest.MonkeyPatch) -> None:
    """Remove the proxy variables from the environment of the tests."""
    for name in list(os.environ):
        if name.lower().endswith("_proxy") or name == "REQUEST_METHOD":
            patch.delenv(name)


@asynccontextmanager
async def serve(script: Script) -> AsyncGenerator[tuple[int, list[Peer]]]:
    """Run `script` for every connection to a port of 127.0.0.1."""
    peers: list[Peer] = []

    async def run(stream: trio.SocketStream) -> None:
        peers.append(Peer(stream))
        with suppress(*CLIENT_HAS_LEFT):
            await script(peers[-1])
        await trio.aclose_forcefully(stream)

    async with trio.open_nursery() as nursery:
        open_port = partial(trio.serve_tcp, run, 0, host="127.0.0.1")
        (listener,) = await nursery.start(open_port)
        yield listener.socket.getsockname()[1], peers
        nursery.cancel_scope.cancel()


async def echo(peer: Peer) -> None:
    """Play the server behind a tunnel: greet, echo, and do the closing handshake."""
    await peer.accept()
    await peer.send(text("hello"))
    while (received := await peer.read_frame()).opcode != 8:
        if received.opcode == 1:
            await peer.send(text(received.payload))
    await peer.send(close(received.code))


class Directory(trio.abc.HostnameResolver):
    """A resolver that knows the addresses of some hosts only."""

    def __init__(self, **hosts: list[str]) -> None:
        self._hosts = hosts
        self.asked: list[str] = []
        trio.socket.set_custom_hostname_resolver(self)

    async def getaddrinfo(  # noqa: PLR0917 - as Trio has it
        self,
        host: bytes | None,
        port: bytes | str | int | None,
        family: int = 0,
        type: int = 0,  # noqa: A002 - Trio's name
        proto: int = 0,
        flags: int = 0,
    ) -> Any:
        del flags
        name = (host or b"").decode()
        self.asked.append(name)
        if name not in self._hosts:
            raise socket.gaierror(socket.EAI_NONAME, f"{name} is not known")
        return [
            (
                socket.AF_INET6 if ":" in address else socket.AF_INET,
                type or socket.SOCK_STREAM,
                proto,
                "",
                (address, port, 0, 0) if ":" in address else (address, port),
            )
            for address in self._hosts[name]
            if not family or (":" in address) == (family == socket.AF_INET6)
        ]

    async def getnameinfo(self, sockaddr: Any, flags: int) -> Any:
        raise NotImplementedError


# --- TLS ----------------------------------------------------------------------------------


def server_context(authority: trustme.CA, *names: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*names).configure_cert(context)  # pyright: ignore[reportUnknownMemberType]
    return context


def trusting(*authorities: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    for authority in authorities:
        authority.configure_trust(context)  # pyright: ignore[reportUnknownMemberType]
    return context


async def secured(peer: Peer, context: ssl.SSLContext) -> Peer:
    """Do the server's side of a TLS handshake on a stream, and return the peer inside."""
    stream = trio.SSLStream(peer.stream, context, server_side=True, https_compatible=True)
    await stream.do_handshake()
    return Peer(stream)


# --- SOCKS5 (RFC 1928, RFC 1929) ----------------------------------------------------------


async def take(peer: Peer, size: int) -> bytes:
    """Read exactly so many bytes; raises EOFError at the end of the stream."""
    data = bytearray()
    while len(data) < size:
        more = await peer.stream.receive_some(size - len(data))
        if not more:
            raise EOFError
        data += more
    return bytes(data)


async def choose_method(peer: Peer, method: int) -> bytes:
    """Read the greeting, choose an authentication method, and return those that were offered."""
    version, count = await take(peer, 2)
    assert version == 5
    offered = await take(peer, count)
    await peer.send(bytes([5, method]))
    return offered


async def read_credentials(peer: Peer) -> tuple[bytes, bytes]:
    version, size = await take(peer, 2)
    assert version == 1
    user = await take(peer, size)
    (size,) = await take(peer, 1)
    return user, await take(peer, size)


async def read_destination(peer: Peer) -> tuple[int, bytes, int]:
    """Read the request: the kind of address, the address, the port."""
    version, command, reserved, kind = await take(peer, 4)
    assert (version, command, reserved) == (5, 1, 0)
    size = {IPV4: 4, IPV6: 16}.get(kind) or (await take(peer, 1))[0]
    address = await take(peer, size)
    return kind, address, int.from_bytes(await take(peer, 2), "big")
