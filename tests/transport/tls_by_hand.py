"""A `TLSStream` with a server whose records a test sends one by one."""

from __future__ import annotations

import ssl
from contextlib import asynccontextmanager, suppress
from itertools import chain, repeat
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing
import trustme

from tests.transport.proxies import server_context, trusting
from trio_responses._transport.tls import TLSStream

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator

NAME = "models.test"
AUTHORITY = trustme.CA()
EVENTS = [b"event %d" % number for number in range(100)]
MUCH = 2**20
TLS_1_2, TLS_1_3 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3
both_versions = pytest.mark.parametrize("version", [TLS_1_2, TLS_1_3], ids=["1.2", "1.3"])


async def fail() -> None:
    raise trio.BrokenResourceError


class Server:
    """The server's side: it does the handshake by itself, and a test sends every other record."""

    def __init__(self, context: ssl.SSLContext, greeting: bytes = b"") -> None:
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._greeting = greeting
        self._shaken = False
        self.error: ssl.SSLError | None = None
        self.reading = trio.Event()
        self.reading.set()
        self.from_client = trio.testing.MemorySendStream(self._step)
        self.to_client = trio.testing.MemoryReceiveStream()
        self.put = self.to_client.put_data

    async def _step(self) -> None:
        if not self._shaken:
            self._take()
            try:
                self.tls.do_handshake()
                self._shaken = True
                if self._greeting:
                    self.tls.write(self._greeting)
            except ssl.SSLWantReadError:
                pass
            except ssl.SSLError as error:
                self.error = error
            if self._outgoing.pending:
                self.put(self._outgoing.read())
        await self.reading.wait()

    def _take(self) -> None:
        with suppress(trio.WouldBlock):
            self._incoming.write(self.from_client.get_data_nowait())

    def stall(self) -> None:
        """Make the client's writes wait."""
        self.reading = trio.Event()

    def read(self) -> bytes:
        """Return the decrypted content that the client has sent."""
        self._take()
        content = b""
        with suppress(ssl.SSLWantReadError):
            while more := self.tls.read(MUCH):
                content += more
        return content

    def records(self, *contents: bytes) -> bytes:
        """Return a record for each content, after the pending messages of TLS."""
        for content in contents:
            self.tls.write(content)
        return self._outgoing.read()

    def alert(self) -> bytes:
        """Return a closing alert."""
        with pytest.raises(ssl.SSLWantReadError):
            self.tls.unwrap()
        return self._outgoing.read()

    def request(self) -> bytes:
        """Return a request for the client's certificate, as TLS 1.3 allows at any time."""
        self.tls.verify_client_post_handshake()
        self.tls.do_handshake()
        return self._outgoing.read()


class Cut(trio.abc.ReceiveStream):
    """A stream that returns its bytes in pieces of given sizes."""

    def __init__(self, stream: trio.abc.ReceiveStream) -> None:
        self._stream = stream
        self._sizes: Iterator[int] = repeat(MUCH)
        self.reads = 0

    def cut(self, sizes: Iterable[int]) -> None:
        self._sizes = chain(sizes, repeat(MUCH))

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        self.reads += 1
        return await self._stream.receive_some(min(max_bytes or MUCH, next(self._sizes)))

    async def aclose(self) -> None:
        await self._stream.aclose()


class Client:
    """A `TLSStream` over a stream whose pieces have given sizes."""

    def __init__(self, server: Server, context: ssl.SSLContext, name: str = NAME) -> None:
        self.cut = Cut(server.to_client)
        below = trio.StapledStream(server.from_client, self.cut)
        self.stream = TLSStream(below, context, server_hostname=name)

    async def receive(self, size: int) -> bytes:
        content = b""
        while len(content) < size:
            more = await self.stream.receive_some()
            assert more
            content += more
        return content

    async def receive_all(self) -> bytes:
        return b"".join([data async for data in self.stream])


def contexts(
    version: ssl.TLSVersion = TLS_1_3, *, certificate: bool = False
) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    server, client = server_context(AUTHORITY, NAME), trusting(AUTHORITY)
    server.maximum_version = version
    if certificate:
        AUTHORITY.configure_trust(server)  # pyright: ignore[reportUnknownMemberType]
        server.verify_mode = ssl.CERT_REQUIRED
        server.post_handshake_auth = client.post_handshake_auth = True
        AUTHORITY.issue_cert("me@models.test").configure_cert(client)  # pyright: ignore[reportUnknownMemberType]
    return server, client


@asynccontextmanager
async def open_pair(
    version: ssl.TLSVersion = TLS_1_3, *, greeting: bytes = b"", certificate: bool = False
) -> AsyncGenerator[tuple[Client, Server]]:
    """Open a pair after its handshake; a block that hangs fails."""
    server_side, client_side = contexts(version, certificate=certificate)
    server = Server(server_side, greeting)
    client = Client(server, client_side)
    with trio.fail_after(60):
        await client.stream.do_handshake()
        yield client, server


class Attempt:
    """A call in its own task, and its outcome."""

    def __init__(
        self, nursery: trio.Nursery, function: Callable[..., Awaitable[Any]], *args: Any
    ) -> None:
        self.result: Any = None
        self.over = False
        self.scope = trio.CancelScope()
        nursery.start_soon(self._run, function, args)

    async def _run(self, function: Callable[..., Awaitable[Any]], args: tuple[Any, ...]) -> None:
        with self.scope:
            try:
                self.result = await function(*args)
            except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
                self.result = error
        self.over = True

    async def ends(self) -> bool:
        await trio.testing.wait_all_tasks_blocked()
        return self.over
