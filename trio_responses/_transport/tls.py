"""TLS over a stream, which decrypts every record of one read at once.

`trio.SSLStream` returns one record at a time, and each takes a pass through Trio's scheduler. A
server that streams events writes a record for each, and many of them wait when the client reads.
"""

from __future__ import annotations

import codecs
import operator
import os
import ssl
from contextlib import suppress
from typing import TYPE_CHECKING, Final
from weakref import WeakValueDictionary

import trio

from trio_responses._concurrency import FastLock, Notifier
from trio_responses._transport.socket_stream import EagerStream

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["DefaultContext", "TLSStream", "default_ssl_context"]

READ_BYTES: Final = 64 * 1024
WRITE_BYTES: Final = 64 * 1024
"""The content that is encrypted at once. More would keep more memory: 256 KiB keep 200 KB more."""
RECORDS_PER_READ: Final = 512
"""The most records that are decrypted before other tasks run: tiny ones cost as much as others."""
RECORD_BYTES: Final = 16 * 1024
"""The largest content of one record (RFC 8446, 5.1)."""


class TLSStream(EagerStream):
    """The client's side of TLS, as HTTPS uses it: the stream may end without a closing alert.

    Call `do_handshake` first; after that, one task may send while another receives.

    A cancelled receive loses no byte. A send that was cancelled after its first byte leaves a
    stream that accepts no more bytes, but can still be received from. The same holds for a receive
    that was cancelled while it wrote one of TLS's own messages, such as the answer to a key update.

    :param stream: the underlying stream.
    :param context: the trusted certificates and the TLS settings.
    :param server_hostname: the name that is sent to the server (SNI) and that its certificate must
        have.
    """

    def __init__(
        self, stream: trio.abc.Stream, context: ssl.SSLContext, *, server_hostname: str
    ) -> None:
        self._stream = stream
        self._eager = stream if isinstance(stream, EagerStream) else None
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(
            self._incoming, self._outgoing, server_hostname=server_hostname
        )
        self._write_lock = FastLock()  # records are written in the order in which they were made
        self._unsent: bytes | memoryview = b""
        """The rest of records that `send_now` has sent in part."""
        self._fed = Notifier()
        self._drained = False
        self._ended = False
        self._sending = False
        self._cut = False
        self._fault: ssl.SSLError | None = None
        self._closed = False

    @property
    def transport_stream(self) -> trio.abc.Stream:
        """The underlying stream."""
        return self._stream

    @property
    def ssl_object(self) -> ssl.SSLObject:
        """The state of TLS, with the protocol that was negotiated (ALPN)."""
        return self._tls

    async def do_handshake(self) -> None:
        """Do the TLS handshake, and check the server's certificate.

        :raises trio.BrokenResourceError: when the handshake fails; its ``__cause__`` is the
            `ssl.SSLError`.
        """
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                await self._send_records()
                self._feed(await self._stream.receive_some(READ_BYTES))
            except ssl.SSLError as error:
                with suppress(trio.BrokenResourceError):
                    await self._send_records()  # an alert with the reason, for the server
                self._fault = error
                raise trio.BrokenResourceError from error
            else:
                return await self._send_records()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Return the content of the records that have arrived; nothing at the end of the stream.

        :raises trio.BrokenResourceError: for an invalid record, after the content of all records
            before it was returned.
        """
        most = READ_BYTES if max_bytes is None else operator.index(max_bytes)
        if most < 1:
            raise ValueError("max_bytes must be at least 1")
        if not self._drained:
            await trio.lowlevel.checkpoint()
        while True:
            if self._closed or self._fault is not None:
                self._check_not_ended()
            if self._ended:
                return b""
            if self._outgoing.pending and not self._write_lock.locked():
                with suppress(trio.BrokenResourceError):  # there may still be content to receive
                    await self._send_records()
            if self._drained:
                try:
                    data = await self._stream.receive_some(READ_BYTES)
                except (trio.BrokenResourceError, trio.ClosedResourceError):
                    self._feed(b"")
                    raise
                self._feed(data)
            content = self._decrypt(most)
            if content:
                return content

    def _decrypt(self, most: int) -> bytes:
        """Return at most ``most`` bytes of content, from the records that have arrived.

        A record that came alone takes one call of OpenSSL, which consumes no bytes beyond the
        record that it is asked for: when its content and its input are used up, nothing is left.
        """
        # With a buffer, read() returns a number of bytes; its annotation does not have that form.
        read_into: Callable[[int, memoryview], int] = self._tls.read  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
        incoming = self._incoming
        buffer = memoryview(bytearray(min(incoming.pending + RECORD_BYTES, most)))
        end = 0
        self._drained = False
        try:
            for _ in range(RECORDS_PER_READ):
                room = len(buffer) - end
                if not room:
                    break
                size = read_into(room, buffer[end:])
                if size == 0:  # the closing alert
                    self._ended = True
                    break
                end += size
                if size < room and not incoming.pending:
                    self._drained = True
                    break
        except ssl.SSLWantReadError:
            self._drained = True
        except ssl.SSLEOFError:
            self._ended = True
        except ssl.SSLError as error:
            self._fault = error
        return bytes(buffer[:end])

    def send_now(self, data: bytes) -> bytes | memoryview | None:
        """Encrypt and send what the socket takes at once; return what is left, or `None`.

        Records that the socket did not take whole are kept, and precede all others. Nothing is sent
        in any state in which `send_all` would wait or raise, nor where records are waiting.
        """
        stream = self._eager
        if (
            stream is None
            or len(data) > RECORD_BYTES
            or self._sending
            or self._cut
            or self._closed
            or self._fault is not None
            or self._write_lock.locked()
            or self._outgoing.pending
        ):
            return data
        try:
            size = self._tls.write(data)
        except ssl.SSLError:
            return data
        self._unsent = stream.send_now(self._outgoing.read()) or b""
        return data[size:] if self._unsent or size < len(data) else None

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Encrypt and send all of ``data``.

        :raises trio.BrokenResourceError: when the underlying stream or TLS accepts no more bytes.
        """
        self._begin_sending()
        try:
            await trio.lowlevel.checkpoint_if_cancelled()
            if self._unsent:
                await self._send_records()
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
                await self._send_records()
            except ssl.SSLWantReadError:  # during a renegotiation (TLS 1.2)
                if self._outgoing.pending:
                    await self._send_records()
                else:
                    await self._fed.wait()
            except ssl.SSLError as error:
                raise trio.BrokenResourceError from error
            except trio.Cancelled:
                self._cut = True
                raise

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until the underlying stream accepts bytes."""
        self._begin_sending()
        try:
            async with self._write_lock:
                await self._stream.wait_send_all_might_not_block()
        finally:
            self._sending = False

    async def aclose(self) -> None:
        """Close the underlying stream without a closing alert, as most HTTPS clients do."""
        self._closed = True
        self._fed.notify()
        await self._stream.aclose()

    def _feed(self, data: bytes | bytearray) -> None:
        """Put encrypted bytes into the TLS input buffer; nothing is the end of the stream."""
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()
        if self._sending:
            self._fed.notify()

    async def _send_records(self) -> None:
        """Write the encrypted records of the TLS output buffer to the underlying stream."""
        async with self._write_lock:
            while True:
                self._check_writable()
                data, self._unsent = self._unsent or self._outgoing.read(), b""
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
        self._check_not_ended()
        if self._cut:
            raise trio.BrokenResourceError("a record was cut short")

    def _check_not_ended(self) -> None:
        if self._closed:
            raise trio.ClosedResourceError
        if self._fault is not None:
            raise trio.BrokenResourceError from self._fault


VARIABLES: Final = ("SSL_CERT_FILE", "SSL_CERT_DIR")
"""The environment variables from which OpenSSL takes the place of trusted certificates."""

_shared: WeakValueDictionary[tuple[str | bool | None, ...], ssl.SSLContext] = WeakValueDictionary()


def default_ssl_context(*, http2: bool = False) -> ssl.SSLContext:
    """Return an SSL context with the certificates that the system trusts.

    All connections share the context while one of them uses it, so that the certificates are
    loaded once: do not change it. They are loaded again after the last user has dropped it, and
    when `VARIABLES` have changed.

    :param http2: whether HTTP/2 is offered to the server (ALPN).
    """
    place = _place(http2=http2)
    context = _shared.get(place)
    if context is None:
        context = _shared[place] = ssl.create_default_context()
        if http2:
            context.set_alpn_protocols(["h2", "http/1.1"])
    return context


def _place(*, http2: bool) -> tuple[str | bool | None, ...]:
    return http2, *(os.environ.get(name) for name in VARIABLES)


class DefaultContext:
    """The `default_ssl_context`, loaded at its first use and kept as long as this object."""

    __slots__ = ("_context",)

    def __init__(self) -> None:
        self._context: ssl.SSLContext | None = None

    @property
    def is_loaded(self) -> bool:
        """Whether `load` returns at once."""
        return self._context is not None or _place(http2=False) in _shared

    def load(self) -> ssl.SSLContext:
        """Return the context, after some 30 ms where no other connection has loaded it."""
        if self._context is None:
            codecs.lookup("idna")  # a first TLS handshake would import this codec, in some 5 ms
            self._context = default_ssl_context()
        return self._context
