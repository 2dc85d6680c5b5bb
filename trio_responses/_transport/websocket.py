"""One WebSocket, from dial to close: batches of messages in, whole frames out.

`connect_transport()` dials, secures and upgrades under one timeout; `Transport.receive()` gives
every message that one read of the socket brought. This is the only file that knows of
trio-websocket.

What belongs elsewhere: what the messages mean (`wire/`), whose they are (`core/lanes.py`), and
what to do when the socket is gone (`connection/connection.py`).
"""

from __future__ import annotations

import math
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeAlias

import trio
import trio_websocket

from trio_responses._concurrency import FastLock, open_collapsing_nursery
from trio_responses._errors import (
    ConnectError,
    ConnectionClosed,
    ConnectionLost,
    ConnectTimeout,
    KeepaliveTimeout,
    SendTimeout,
)
from trio_responses._instruments.instrument import Instruments
from trio_responses._protocol.frames import FrameReader, encode_text_frame
from trio_responses._transport.tap import Tap
from trio_responses._transport.tls import TLSStream, system_trust

if TYPE_CHECKING:
    from trio_responses._endpoint import Endpoint
    from trio_responses._instruments.instrument import SocketObserver
    from trio_responses._protocol.frames import Message
    from trio_responses._settings import Keepalive, Limits, Timeouts

__all__ = ["Dial", "Transport", "connect_transport", "dial_tcp"]

Dial: TypeAlias = Callable[[str, int], Awaitable[trio.abc.Stream]]
"""Opens a byte stream to a host and port."""

READ_BYTES: Final = 64 * 1024
NORMAL_CLOSURE: Final = 1000
ABNORMAL_CLOSURE: Final = 1006
PING_BYTES: Final = 4


async def dial_tcp(host: str, port: int) -> trio.abc.Stream:
    """Dial by TCP, all of the host's addresses in turn (RFC 8305)."""
    return await trio.open_tcp_stream(host, port)


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionConfig:
    """What holds for every socket of a connection."""

    endpoint: Endpoint
    dial: Dial
    ssl_context: ssl.SSLContext | None
    timeouts: Timeouts
    keepalive: Keepalive
    limits: Limits
    instruments: Instruments = field(default_factory=Instruments, repr=False)


async def connect_transport(
    nursery: trio.Nursery, terms: ConnectionConfig, headers: tuple[tuple[str, str], ...]
) -> Transport:
    """Open one WebSocket: dial, TLS and upgrade.

    :param nursery: where trio-websocket and the keepalive run: up to `Transport.aclose`, which
        has to be called, also where the nursery is cancelled.
    :param headers: the headers of this handshake.
    :raises ConnectTimeout: when dial, TLS and upgrade take longer than ``timeouts.connect``.
    :raises HandshakeRejected: when the server answers with another status than 101.
    :raises ConnectError: when it cannot be reached, trusted or understood.
    """
    phase = "dial"
    stream: trio.abc.Stream | None = None
    tap: Tap | None = None
    try:
        with trio.move_on_after(terms.timeouts.connect):
            stream = await _dial(terms)
            if terms.endpoint.secure:
                phase = "tls"
                stream = await _secure(stream, terms)
            phase = "upgrade"
            tap = Tap(stream)
            transport: Transport | ConnectError = await nursery.start(
                _attend, stream, tap, terms, headers
            )
            if isinstance(transport, ConnectError):
                raise transport
            tap.service.shield = True  # the closing handshake needs it, also under cancellation
            return transport
        raise ConnectTimeout(phase, terms.timeouts.connect)
    except BaseException:
        if tap is not None:
            tap.service.cancel()
        if stream is not None:
            await trio.aclose_forcefully(stream)
        raise


async def _dial(terms: ConnectionConfig) -> trio.abc.Stream:
    try:
        return await terms.dial(terms.endpoint.host, terms.endpoint.port)
    except (OSError, trio.BrokenResourceError) as error:
        raise ConnectError(f"cannot dial: {error}") from error


async def _secure(stream: trio.abc.Stream, terms: ConnectionConfig) -> trio.abc.Stream:
    secured = TLSStream(
        stream,
        terms.ssl_context or system_trust(),
        server_hostname=terms.endpoint.host,
    )
    try:
        await secured.do_handshake()
    except trio.BrokenResourceError as error:
        reason = error.__cause__
        if isinstance(reason, ssl.SSLCertVerificationError):
            message = f"the server's certificate is not trusted: {reason.verify_message}"
            raise ConnectError(message, retryable=False) from reason
        raise ConnectError(f"the TLS handshake failed: {reason or error}") from error
    return secured


@trio.lowlevel.enable_ki_protection
async def _attend(
    stream: trio.abc.Stream,
    tap: Tap,
    terms: ConnectionConfig,
    headers: tuple[tuple[str, str], ...],
    *,
    task_status: trio.TaskStatus[Transport | ConnectError],
) -> None:
    """Run trio-websocket and the keepalive until the socket is closed, and contain what they raise.

    A refusal is a value: an exception would lose its cause on the way through ``start()``, which
    raises it ``from None`` before Trio 0.33.
    """
    opened = False
    try:
        async with open_collapsing_nursery() as nursery:
            tap.service = nursery.cancel_scope
            websocket = await trio_websocket.wrap_client_stream(
                nursery,
                tap,  # type: ignore[arg-type]  # "an arbitrary stream", it says itself
                terms.endpoint.authority,
                terms.endpoint.resource,
                extra_headers=[
                    (name.encode("ascii"), value.encode("latin-1")) for name, value in headers
                ],
            )
            opened = True
            transport = Transport(stream, tap, websocket, terms)
            task_status.started(transport)
            task_status = trio.TASK_STATUS_IGNORED  # let go of what start() made
            await transport.keep_alive()
    except Exception as error:  # noqa: BLE001 - its reader crashes on some input: a lost socket
        if opened:
            await tap.break_off(error)
        else:
            tap.refusal = ConnectError("the server's upgrade response was not valid")
            tap.refusal.__cause__ = error
    if tap.refusal is not None:
        task_status.started(tap.refusal)


class Transport:
    """An open WebSocket, up to `aclose`. Made by `connect_transport()` only."""

    def __init__(
        self,
        stream: trio.abc.Stream,
        tap: Tap,
        websocket: trio_websocket.WebSocketConnection,
        terms: ConnectionConfig,
    ) -> None:
        self._stream = stream
        self._tap = tap
        self._websocket = websocket
        self._terms = terms
        self._frames = FrameReader(terms.limits.max_message_bytes)
        self._unread = tap.after_upgrade
        self._send_lock = FastLock()
        self._closing = False
        self._death: ConnectionLost | None = None
        self._close_code = NORMAL_CLOSURE
        self._reading_since = math.inf
        self._pinging: trio.CancelScope | None = None
        self.frame_observer: SocketObserver | None = None
        """Who is shown every frame; `None` where nobody wants to see them."""
        self.opened_at: float = trio.current_time()
        self.heard_at: float = self.opened_at
        """When the last byte came, on Trio's clock."""
        self.handshake_headers: dict[str, str] = {
            name.decode("latin-1").lower(): value.decode("latin-1")
            for name, value in websocket.handshake_headers
        }
        """The headers of the server's upgrade response, names in lower case."""

    @property
    def age(self) -> float:
        """Seconds since the upgrade."""
        return trio.current_time() - self.opened_at

    async def receive(self) -> list[Message]:
        """Wait for the next batch: all messages that one read of the socket completed.

        Safe to cancel: no byte is lost. One task at a time.

        :raises ConnectionLost: when the socket has ended, after everything that came before
            the end was given out; the same one each time.
        """
        while self._death is None:
            data, self._unread = self._unread, b""
            if not data:
                data = await self._read()
            if not data:
                self._death = await self._diagnose()
                break
            messages, control = self._frames.feed(data)
            if control:
                self._tap.feed(control)
            if messages:
                if self.frame_observer is not None:
                    self.frame_observer.received(messages)
                return messages
        assert self._death is not None  # noqa: S101 - the loop ends so
        raise self._death

    async def _read(self) -> bytes:
        """Read the socket once; empty when it has ended, for whatever reason."""
        if self._frames.closed or self._frames.error is not None:
            return b""
        self._reading_since = trio.current_time()
        try:
            data = bytes(await self._stream.receive_some(READ_BYTES))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return b""
        finally:
            self._reading_since = math.inf
        self.heard_at = trio.current_time()
        return data

    async def _diagnose(self) -> ConnectionLost:
        """Find out how the socket ended."""
        violation = self._frames.error
        if violation is not None:
            self._close_code = violation.code
            return ConnectionLost(violation.code, violation.reason, age=self.age)
        self._tap.feed_end()
        if self._frames.closed:
            with trio.move_on_after(self._terms.timeouts.close):
                # No message ever gets there: it ends when trio-websocket has seen the close frame.
                with suppress(trio_websocket.ConnectionClosed):
                    await self._websocket.get_message()
        return self._as_lost()

    def _as_lost(self) -> ConnectionLost:
        """Say how the socket ended, as far as this side or trio-websocket knows."""
        if self._death is not None:
            return self._death
        closed = self._websocket.closed
        if closed is None:
            lost = ConnectionLost(ABNORMAL_CLOSURE, age=self.age)
        else:
            lost = ConnectionLost(int(closed.code), closed.reason or "", age=self.age)
        lost.__cause__ = self._tap.crash
        return lost

    async def send(self, payload: bytes) -> None:
        """Write one text message.

        Cancelling works while other messages go first; once the first byte of this one is out,
        it is finished, or the socket is given up after ``timeouts.send``. When this raises, no
        complete message has left: the server cannot act on it.

        :param payload: UTF-8.
        :raises ConnectionLost: when the socket has ended.
        :raises SendTimeout: when it took too long; the socket is gone with it.
        """
        frame = encode_text_frame(payload)
        written = False
        async with self._send_lock:
            if self._death is not None:
                raise self._death
            if self._closing:
                raise ConnectionClosed("the socket is closing")
            if self.frame_observer is not None:
                self.frame_observer.sent(payload)
            with trio.move_on_after(self._terms.timeouts.send, shield=True) as scope:
                written = await self._tap.send_frame(frame)
        if scope.cancelled_caught:
            await self._give_up(SendTimeout(len(payload), age=self.age))
            raise SendTimeout(len(payload), age=self.age)
        if not written:
            with trio.CancelScope(shield=True):
                await self._tap.hear_out()
            raise self._as_lost()

    async def _give_up(self, death: ConnectionLost) -> None:
        """End the socket here and now, with what is to be said of it."""
        self._death = self._death or death
        self._tap.feed_end()
        await trio.aclose_forcefully(self._stream)

    async def _give_up_unwritable(self, patience: float) -> None:
        """End a socket that cannot be written to, where reading does not find its end.

        What is still there to be read comes first: it takes a read that has been waiting for long.
        """
        while self._death is None:
            if trio.current_time() - self._reading_since >= patience:
                break
            await trio.sleep(patience)
            await trio.lowlevel.checkpoint()  # likewise
        if self._death is None and not self._closing:
            await self._give_up(self._as_lost())

    async def keep_alive(self) -> None:
        """Ping a silent server, and give the socket up where nothing comes back.

        While nobody receives, nothing can be heard: that time does not count (P6). Nor is a ping
        sent then: a server that waits to write may not read.
        """
        interval, timeout = self._terms.keepalive.interval, self._terms.keepalive.timeout
        while interval < math.inf:
            await trio.sleep_until(self.heard_at + interval)
            if self._closing:
                return
            if trio.current_time() < self.heard_at + interval:
                continue
            if self._reading_since == math.inf:
                await trio.sleep(interval)
                continue
            asked_at = trio.current_time()
            try:
                with trio.move_on_after(timeout) as waiting:
                    self._pinging = waiting
                    await self._websocket.ping()
            except trio_websocket.ConnectionClosed:
                await self._give_up_unwritable(timeout)
                return
            await trio.lowlevel.checkpoint()  # what is there to be read comes before the verdict
            if self._closing:
                return
            if self._tap.cut:
                await self._give_up(SendTimeout(PING_BYTES, age=self.age))
                return
            if not waiting.cancelled_caught or self.heard_at > asked_at:
                continue
            # A long write holds the ping up; it has a deadline of its own.
            if self._reading_since <= asked_at and not self._send_lock.locked():
                silence = trio.current_time() - self.heard_at
                await self._give_up(KeepaliveTimeout(silence, age=self.age))
                return
            await trio.sleep(interval)

    async def aclose(self) -> None:
        """Close the socket within ``timeouts.close``; idempotent.

        Where it still lives, a close frame goes out (1000, or the code of the violation that
        was found) and the server's is waited for. Cancelling does not shorten that: it is
        bounded already.
        """
        self._closing = True
        if self._pinging is not None:
            self._pinging.cancel()
        try:
            if self._death is None or self._frames.error is not None:
                self._tap.drop_pending()
                with trio.move_on_after(self._terms.timeouts.close, shield=True):
                    async with open_collapsing_nursery() as nursery:
                        nursery.start_soon(self._discard)
                        await self._websocket.aclose(self._close_code)
                        nursery.cancel_scope.cancel()
        finally:  # whatever happens: nobody else cancels what is behind the service's shield
            with trio.CancelScope(shield=True):
                await trio.aclose_forcefully(self._stream)
            self._tap.service.cancel()

    async def _discard(self) -> None:
        """Read on behind our close frame, up to the server's one or the end of the stream.

        trio-websocket is told of the end only: a pong cannot follow a close frame, and it
        crashes where it has to send one. A task that still receives reads that end itself.
        """
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError, trio.BusyResourceError):
            while not self._frames.closed:
                data = await self._stream.receive_some(READ_BYTES)
                if not data:
                    break
                self._frames.feed(data)
        self._tap.feed_end()
