"""TLS over a stream, every record of one read in one go.

`trio.SSLStream` gives one record at a time, each with a turn of Trio's loop. A server that
streams writes a record for each event, and those that wait when the reader comes are many.

What belongs elsewhere: what is trusted, and what a failed handshake means (`websocket.py`).
"""

from __future__ import annotations

import operator
import os
import ssl
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, cast
from weakref import WeakValueDictionary

import trio

from trio_responses._concurrency import FastLock, Notifier

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["TLSStream", "default_ssl_context"]

READ_BYTES: Final = 64 * 1024
WRITE_BYTES: Final = 64 * 1024
"""Of content, at once: what is made of it stays as room in memory, 200 KB more for 256 KiB."""
RECORD_BYTES: Final = 16 * 1024
"""The largest content of one record (RFC 8446, 5.1)."""


class TLSStream(trio.abc.Stream):
    """The client's side of TLS, as HTTPS uses it: an end without a closing alert is an end.

    Shake hands first; then one task may send while another receives. A receive that is cancelled
    loses nothing. A send that was cancelled after it began leaves a stream that takes no more
    bytes, and so does a receive that was while it wrote an answer of TLS's own; what comes can
    still be received.

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
        self._writing = FastLock()  # records go out in the order in which they were made
        self._fed = Notifier()
        self._drained = False
        self._ended = False
        self._sending = False
        self._cut = False
        self._fault: ssl.SSLError | None = None
        self._closed = False

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
                with suppress(trio.BrokenResourceError):
                    await self._flush()  # an alert tells the server why
                self._fault = error
                raise trio.BrokenResourceError from error
            else:
                return await self._flush()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Receive the content of all records that are there; nothing at the end of the stream.

        :raises trio.BrokenResourceError: behind the last whole record before a bad one.
        """
        most = READ_BYTES if max_bytes is None else operator.index(max_bytes)
        if most < 1:
            raise ValueError("max_bytes must be at least 1")
        if not self._drained:
            await trio.lowlevel.checkpoint()
        while True:
            self._check_whole()
            if self._ended:
                return b""
            if self._outgoing.pending and not self._writing.locked():
                with suppress(trio.BrokenResourceError):  # there may be content all the same
                    await self._flush()
            if self._drained:
                await self._feed()
            content = self._decrypt(most)
            if content:
                return content

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
        self._begin_sending()
        try:
            await trio.lowlevel.checkpoint_if_cancelled()
            await self._send(memoryview(data))
        finally:
            self._sending = False
        if not data:
            await trio.lowlevel.checkpoint()

    async def _send(self, rest: memoryview) -> None:
        while rest:
            self._check_writable()
            try:
                size = self._tls.write(rest[:WRITE_BYTES])
                rest = rest[size:]
                await self._flush()
            except ssl.SSLWantReadError:  # in the midst of a renegotiation (TLS 1.2)
                if self._outgoing.pending:
                    await self._flush()
                else:
                    await self._fed.wait()
            except ssl.SSLError as error:
                raise trio.BrokenResourceError from error
            except trio.Cancelled:
                self._cut = True
                raise

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until the stream below takes bytes."""
        self._begin_sending()
        try:
            async with self._writing:
                await self._stream.wait_send_all_might_not_block()
        finally:
            self._sending = False

    async def aclose(self) -> None:
        """Close the stream below, without a closing alert, as most of HTTPS does."""
        self._closed = True
        self._fed.notify()
        await self._stream.aclose()

    async def _feed(self) -> None:
        """Read once from the stream below."""
        try:
            data = await self._stream.receive_some(READ_BYTES)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self._incoming.write_eof()
            raise
        else:
            self._incoming.write(data)
            if not data:
                self._incoming.write_eof()
        finally:
            self._fed.notify()

    async def _flush(self) -> None:
        """Write what TLS has to say."""
        async with self._writing:
            while True:
                self._check_writable()
                data = self._outgoing.read()
                if not data:
                    break
                try:
                    await self._stream.send_all(data)
                except BaseException:
                    self._cut = True
                    raise

    def _begin_sending(self) -> None:
        if self._sending:
            raise trio.BusyResourceError("another task is sending")
        self._check_writable()
        self._sending = True

    def _check_writable(self) -> None:
        self._check_whole()
        if self._cut:
            raise trio.BrokenResourceError("a record was cut short")

    def _check_whole(self) -> None:
        if self._closed:
            raise trio.ClosedResourceError
        if self._fault is not None:
            raise trio.BrokenResourceError from self._fault


VARIABLES: Final = ("SSL_CERT_FILE", "SSL_CERT_DIR")
"""Where OpenSSL looks first."""

_shared: WeakValueDictionary[tuple[str | None, ...], ssl.SSLContext] = WeakValueDictionary()


def default_ssl_context() -> ssl.SSLContext:
    """Give a context that trusts what the system trusts here and now; not to be changed.

    It is read anew when nobody has the last one any more.
    """
    place = tuple(os.environ.get(name) for name in VARIABLES)
    context = _shared.get(place)
    if context is None:
        context = _shared[place] = ssl.create_default_context()
    return context
