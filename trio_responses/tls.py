"""TLS over a stream, every record of one read in one go.

`trio.SSLStream` gives one record at a time, each with a turn of Trio's loop. A server that
streams writes a record for each event, and those that wait when the reader comes are many.

What belongs elsewhere: what is trusted, and what a failed handshake means (`transport.py`).
"""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Any, Final, cast

import trio

from trio_responses.locks import Change, QuickLock

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

__all__ = ["TLSStream"]

READ_BYTES: Final = 64 * 1024
WRITE_BYTES: Final = 256 * 1024
RECORD_BYTES: Final = 16 * 1024
"""The largest content of one record (RFC 8446, 5.1)."""


class TLSStream(trio.abc.Stream):
    """The client's side of TLS, as HTTPS uses it: an end without a closing alert is an end.

    One task may send while another receives. A send that was cancelled, or a receive that was
    while it had to write (an answer of TLS's own), leaves a stream that takes no more bytes.

    :param stream: the stream below.
    :param server_hostname: the name that is asked for, and checked.
    """

    def __init__(
        self, stream: trio.abc.Stream, context: ssl.SSLContext, *, server_hostname: str
    ) -> None:
        self._stream = stream
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(
            self._incoming, self._outgoing, server_hostname=server_hostname
        )
        self._writing = QuickLock()  # records go out in the order in which they were made
        self._fed = Change()
        self._drained = False
        self._ended = False
        self._fault: ssl.SSLError | None = None
        self._cut = False

    async def do_handshake(self) -> None:
        """Shake hands, and check the server's certificate.

        :raises trio.BrokenResourceError: when that fails; its cause says why.
        """
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                await self._flush()
                await self._feed()
            except ssl.SSLError as error:
                self._break(error)
            else:
                return await self._flush()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Receive the content of all records that are there; nothing at the end of the stream.

        :raises trio.BrokenResourceError: behind the last whole record before a bad one.
        """
        if not self._drained or self._ended:
            await trio.lowlevel.checkpoint()
        while not self._ended:
            if self._fault is not None:
                self._break(self._fault)
            if self._outgoing.pending:
                await self._flush()
            if self._drained:
                await self._feed()
            content = self._decrypt(max_bytes or READ_BYTES)
            if content:
                return content
        return b""

    def _decrypt(self, most: int) -> bytes:
        """Decrypt what is there."""
        # With a buffer, read() gives a number, which its annotation does not say.
        read_into: Callable[[int, memoryview], int] = cast("Any", self._tls.read)
        room = memoryview(bytearray(min(self._incoming.pending + RECORD_BYTES, most)))
        end = 0
        self._drained = False
        try:
            while end < len(room):
                size = read_into(len(room) - end, room[end:])
                if size == 0:  # the closing alert
                    self._ended = True
                    break
                end += size
        except ssl.SSLWantReadError:
            self._drained = True
        except ssl.SSLEOFError:
            self._ended = True
        except ssl.SSLError as error:
            self._fault = error
        return bytes(room[:end])

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send all of it.

        :raises trio.BrokenResourceError: when the stream, or TLS, takes no more.
        """
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[self._tls.write(rest[:WRITE_BYTES]) :]
            except ssl.SSLWantReadError:  # in the midst of a renegotiation (TLS 1.2)
                await self._flush()
                await self._fed.wait()
            except ssl.SSLError as error:
                self._break(error)
            else:
                await self._flush()
        if not data:
            await trio.lowlevel.checkpoint()

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until the stream below takes bytes."""
        await self._stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        """Close the stream below, without a closing alert: what is left unread would need it."""
        self._ended = True
        await self._stream.aclose()

    async def _feed(self) -> None:
        """Read once from the stream below."""
        data = await self._stream.receive_some(READ_BYTES)
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()
        self._fed.tell()

    async def _flush(self) -> None:
        """Write what TLS has to say."""
        async with self._writing:
            if self._cut:
                raise trio.BrokenResourceError("a record was cut short")
            data = self._outgoing.read()
            if data:
                self._cut = True
                await self._stream.send_all(data)
                self._cut = False

    def _break(self, cause: ssl.SSLError) -> NoReturn:
        raise trio.BrokenResourceError from cause
