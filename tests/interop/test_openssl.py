"""Our TLS against `openssl s_server`: what a server may ask for in the midst of a stream.

Python's own `ssl` can neither update its keys nor renegotiate of its own accord.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import pytest
import trio
import trustme

from tests.transport.proxies import trusting
from trio_responses._transport.tls import TLSStream

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncGenerator
    from pathlib import Path

pytestmark = [
    pytest.mark.interop,
    pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl on this machine"),
]

SECONDS: Final = 30
UPDATE, UPDATE_AND_ASK = b"k", b"K"
RENEGOTIATE, RENEGOTIATE_AND_ASK = b"r", b"R"
"""What is typed at s_server; every other line goes to the client."""


class Server:
    """An `openssl s_server`: it sends the lines that are typed, and prints what it is sent."""

    def __init__(self, process: trio.Process, terminal: trio.lowlevel.FdStream) -> None:
        self._process = process
        self._terminal = terminal
        self._printed = b""

    async def type(self, line: bytes) -> None:
        assert self._process.stdin is not None
        await self._process.stdin.send_all(line)

    async def order(self, letter: bytes) -> None:
        """Type an order, and wait until it is obeyed: what stands behind it in one read is lost."""
        await self.type(letter + b"\n")
        assert await self.wait_printed(b"SSL_do_handshake -> ") == b"1"

    async def wait_printed(self, words: bytes) -> bytes:
        """Wait until words were printed, with the rest of their line; give that rest."""
        while True:
            _, found, behind = self._printed.partition(words)
            if found and b"\n" in behind:
                line, _, self._printed = behind.partition(b"\n")
                return line.strip()
            piece = await self._terminal.receive_some()
            assert piece, self._printed
            self._printed += piece


@asynccontextmanager
async def open_server(
    folder: Path, authority: trustme.CA, *options: str
) -> AsyncGenerator[tuple[Server, int], None]:
    certificate = folder / "server.pem"
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(certificate)
    trusted = folder / "trusted.pem"
    authority.cert_pem.write_to_path(trusted)
    files = ["-cert", str(certificate), "-CAfile", str(trusted), "-cert_chain", str(certificate)]
    terminal, its_end = os.openpty()  # what goes to a pipe is kept back until it is much
    process = await trio.lowlevel.open_process(
        ["openssl", "s_server", "-accept", "127.0.0.1:0", *files, *options],
        stdin=subprocess.PIPE,
        stdout=its_end,
        stderr=its_end,
    )
    os.close(its_end)
    try:
        with trio.fail_after(SECONDS):
            server = Server(process, trio.lowlevel.FdStream(terminal))
            line = await server.wait_printed(b"ACCEPT 127.0.0.1:")
            yield server, int(line)
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()


async def read_lines(stream: trio.abc.ReceiveStream, heard: trio.abc.SendChannel[bytes]) -> None:
    """Read all the time, as a connection does: a handshake in between needs it."""
    unread = b""
    async for piece in stream:
        *lines, unread = (unread + piece).split(b"\n")
        for line in lines:
            await heard.send(line)


@asynccontextmanager
async def shaken_hands(port: int, context: ssl.SSLContext) -> AsyncGenerator[TLSStream, None]:
    stream = TLSStream(
        await trio.open_tcp_stream("127.0.0.1", port), context, server_hostname="127.0.0.1"
    )
    async with stream:
        await stream.do_handshake()
        yield stream


@pytest.mark.parametrize("version", ["-tls1_3", "-tls1_2"])
@pytest.mark.parametrize("asking", [False, True])
async def test_keys_change_in_the_midst_of_a_stream(
    tmp_path: Path, version: str, *, asking: bool
) -> None:
    """TLS 1.3: a KeyUpdate, also with one of ours in return. TLS 1.2: a whole new handshake."""
    authority = trustme.CA()
    context = trusting(authority)
    authority.issue_cert("me@models.test").configure_cert(context)  # pyright: ignore[reportUnknownMemberType]
    if version == "-tls1_3":
        order = UPDATE_AND_ASK if asking else UPDATE
    else:
        order = RENEGOTIATE_AND_ASK if asking else RENEGOTIATE
    async with (
        open_server(tmp_path, authority, version) as (server, port),
        shaken_hands(port, context) as stream,
        trio.open_nursery() as nursery,
    ):
        heard, lines = trio.open_memory_channel[bytes](0)
        nursery.start_soon(read_lines, stream, heard)
        await stream.send_all(b"our first\n")
        await server.wait_printed(b"our first")
        for turn in range(3):
            await server.order(order)
            await server.type(b"their line %d\n" % turn)
            assert await lines.receive() == b"their line %d" % turn
            await stream.send_all(b"our line %d\n" % turn)
            await server.wait_printed(b"our line %d" % turn)
        nursery.cancel_scope.cancel()


async def test_a_send_goes_on_when_a_renegotiation_is_over(tmp_path: Path) -> None:
    authority = trustme.CA()
    large = b"x" * 1_000_000

    async with (
        open_server(tmp_path, authority, "-tls1_2") as (server, port),
        shaken_hands(port, trusting(authority)) as stream,
        trio.open_nursery() as nursery,
    ):
        await server.order(RENEGOTIATE)
        heard, _ = trio.open_memory_channel[bytes](0)
        nursery.start_soon(read_lines, stream, heard)
        nursery.start_soon(stream.send_all, large + b"\nthat was all\n")
        await server.wait_printed(b"that was all")
        nursery.cancel_scope.cancel()
