"""Tests of the TLS stream with ``openssl s_server``: key updates and renegotiation during a stream.

The module ``ssl`` of Python can initiate neither, so that a server in Python cannot test them.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trio
import trustme

from tests.interop.programs import HANG_GUARD
from tests.transport.proxies import trusting
from trio_responses._transport.tls import TLSStream

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncGenerator
    from pathlib import Path

pytestmark = [
    pytest.mark.interop,
    pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed"),
]

UPDATE, UPDATE_AND_REQUEST = b"k", b"K"
RENEGOTIATE, RENEGOTIATE_AND_REQUEST = b"r", b"R"
"""The commands of s_server on its standard input; every other line is sent to the client."""


class Server:
    """A running ``openssl s_server``: sends the lines of its input, prints the data it receives."""

    def __init__(self, process: trio.Process, terminal: trio.lowlevel.FdStream) -> None:
        self._process = process
        self._terminal = terminal
        self._output = b""

    async def write_input(self, line: bytes) -> None:
        assert self._process.stdin is not None
        await self._process.stdin.send_all(line)

    async def run_command(self, letter: bytes) -> None:
        """Write a command and wait until it is done."""
        # s_server discards the input that follows a command in the same read.
        await self.write_input(letter + b"\n")
        assert await self.wait_for_output(b"SSL_do_handshake -> ") == b"1"

    async def wait_for_output(self, text: bytes) -> bytes:
        """Wait for a text in the output; return the rest of its line."""
        while True:
            _, found, after = self._output.partition(text)
            if found and b"\n" in after:
                line, _, self._output = after.partition(b"\n")
                return line.strip()
            data = await self._terminal.receive_some()
            assert data, self._output
            self._output += data


@asynccontextmanager
async def open_server(
    folder: Path, authority: trustme.CA, *options: str
) -> AsyncGenerator[tuple[Server, int], None]:
    certificate = folder / "server.pem"
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(certificate)
    trusted = folder / "trusted.pem"
    authority.cert_pem.write_to_path(trusted)
    files = ["-cert", str(certificate), "-CAfile", str(trusted), "-cert_chain", str(certificate)]
    terminal, server_end = os.openpty()  # s_server buffers its output to a pipe
    process = await trio.lowlevel.open_process(
        ["openssl", "s_server", "-accept", "127.0.0.1:0", *files, *options],
        stdin=subprocess.PIPE,
        stdout=server_end,
        stderr=server_end,
    )
    os.close(server_end)
    try:
        with trio.fail_after(HANG_GUARD):
            server = Server(process, trio.lowlevel.FdStream(terminal))
            line = await server.wait_for_output(b"ACCEPT 127.0.0.1:")
            yield server, int(line)
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()


async def read_lines(stream: trio.abc.ReceiveStream, received: trio.abc.SendChannel[bytes]) -> None:
    """Read continuously, as a connection does; a handshake during the stream needs this."""
    buffer = b""
    async for data in stream:
        *lines, buffer = (buffer + data).split(b"\n")
        for line in lines:
            await received.send(line)


@asynccontextmanager
async def open_tls_stream(port: int, context: ssl.SSLContext) -> AsyncGenerator[TLSStream, None]:
    stream = TLSStream(
        await trio.open_tcp_stream("127.0.0.1", port), context, server_hostname="127.0.0.1"
    )
    async with stream:
        await stream.do_handshake()
        yield stream


@pytest.mark.parametrize("version", ["-tls1_3", "-tls1_2"])
@pytest.mark.parametrize("with_request", [False, True])
async def test_a_stream_continues_after_its_keys_change(
    tmp_path: Path, version: str, *, with_request: bool
) -> None:
    """TLS 1.3 has KeyUpdate, also with a request for another one; TLS 1.2 has a new handshake."""
    authority = trustme.CA()
    context = trusting(authority)
    authority.issue_cert("me@models.test").configure_cert(context)  # pyright: ignore[reportUnknownMemberType]
    if version == "-tls1_3":
        command = UPDATE_AND_REQUEST if with_request else UPDATE
    else:
        command = RENEGOTIATE_AND_REQUEST if with_request else RENEGOTIATE
    async with (
        open_server(tmp_path, authority, version) as (server, port),
        open_tls_stream(port, context) as stream,
        trio.open_nursery() as nursery,
    ):
        sender, lines = trio.open_memory_channel[bytes](0)
        nursery.start_soon(read_lines, stream, sender)
        await stream.send_all(b"first client line\n")
        await server.wait_for_output(b"first client line")
        for turn in range(3):
            await server.run_command(command)
            await server.write_input(b"server line %d\n" % turn)
            assert await lines.receive() == b"server line %d" % turn
            await stream.send_all(b"client line %d\n" % turn)
            await server.wait_for_output(b"client line %d" % turn)
        nursery.cancel_scope.cancel()


async def test_a_send_continues_after_a_renegotiation(tmp_path: Path) -> None:
    authority = trustme.CA()
    large = b"x" * 1_000_000

    async with (
        open_server(tmp_path, authority, "-tls1_2") as (server, port),
        open_tls_stream(port, trusting(authority)) as stream,
        trio.open_nursery() as nursery,
    ):
        await server.run_command(RENEGOTIATE)
        sender, _ = trio.open_memory_channel[bytes](0)
        nursery.start_soon(read_lines, stream, sender)
        nursery.start_soon(stream.send_all, large + b"\nlast line\n")
        await server.wait_for_output(b"last line")
        nursery.cancel_scope.cancel()
