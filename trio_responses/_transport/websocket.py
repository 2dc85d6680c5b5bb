"""A WebSocket transport: opens one socket, reads batches of messages, writes whole frames.

`connect_transport` dials, secures and upgrades under one timeout. `WebSocketTransport.receive`
returns every message that one read of the socket completed. Invariants: after
`WebSocketTransport.aclose` no task and no socket is left, also under cancellation; a cancelled read
loses no byte; a frame is written whole, or the socket is given up. The states are in `state.py`.
This module and `control_stream.py` are the only ones that depend on trio-websocket.
"""

from __future__ import annotations

import math
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import trio
import trio_websocket

from trio_responses._concurrency import FastLock, open_collapsing_nursery
from trio_responses._errors import (
    ConnectError,
    ConnectionClosed,
    ConnectionLost,
    KeepaliveTimeout,
    SendTimeout,
)
from trio_responses._protocol.frames import FrameReader, encode_text_frame
from trio_responses._transport.control_stream import ControlStream
from trio_responses._transport.dialing import connect_timeout, dial_server, start_tls
from trio_responses._transport.state import TransportState, TransportTrigger, WriteState

if TYPE_CHECKING:
    from trio_responses._instruments.instrument import SocketObserver
    from trio_responses._protocol.frames import Message
    from trio_responses._transport.dialing import ConnectionConfig

__all__ = ["WebSocketTransport", "connect_transport"]

READ_BYTES: Final = 64 * 1024
NORMAL_CLOSURE: Final = 1000
ABNORMAL_CLOSURE: Final = 1006
PING_BYTES: Final = 4
"""The size of trio-websocket's ping payload."""
CLOSING_HANDSHAKE_STATES: Final = frozenset(
    {TransportState.OPEN, TransportState.VIOLATED, TransportState.CLOSING}
)
"""The states in which `WebSocketTransport.aclose` does the closing handshake."""


async def connect_transport(
    nursery: trio.Nursery,
    config: ConnectionConfig,
    headers: tuple[tuple[str, str], ...],
    *,
    upgrade_limit: float = math.inf,
) -> WebSocketTransport:
    """Open one WebSocket: dial, TLS and upgrade.

    :param nursery: the nursery for the tasks of trio-websocket and of the keepalive. They run until
        `WebSocketTransport.aclose`, which must be called, also when the nursery is cancelled.
    :param headers: the headers of this handshake.
    :param upgrade_limit: how many seconds the server may take to answer the upgrade.
    :raises ConnectTimeout: when dial, TLS and upgrade take longer than ``timeouts.connect``.
    :raises HandshakeRejected: when the server answers with a status other than 101.
    :raises ConnectError: when the server cannot be reached, its certificate is not trusted, or its
        response is not valid.
    """
    phase = "dial"
    stream: trio.abc.Stream | None = None
    control_stream: ControlStream | None = None
    try:
        with trio.move_on_after(config.timeouts.connect):
            stream = await dial_server(config)
            if config.endpoint.secure:
                phase = "tls"
                stream = await start_tls(stream, config)
            phase = "upgrade"
            control_stream = ControlStream(stream)
            transport: WebSocketTransport | ConnectError | None = None
            with trio.move_on_after(upgrade_limit):
                transport = await nursery.start(
                    _run_websocket, stream, control_stream, config, headers
                )
            if transport is None:
                raise connect_timeout(phase, config, upgrade_limit)
            if isinstance(transport, ConnectError):
                raise transport
            # The closing handshake needs these tasks, also when the nursery is cancelled.
            control_stream.scope.shield = True
            return transport
        raise connect_timeout(phase, config)
    except BaseException:
        if control_stream is not None:
            control_stream.scope.cancel()
        if stream is not None:
            await trio.aclose_forcefully(stream)
        raise


@trio.lowlevel.enable_ki_protection
async def _run_websocket(
    stream: trio.abc.Stream,
    control_stream: ControlStream,
    config: ConnectionConfig,
    headers: tuple[tuple[str, str], ...],
    *,
    task_status: trio.TaskStatus[WebSocketTransport | ConnectError],
) -> None:
    """Run trio-websocket and the keepalive until the socket is closed, and keep their exceptions.

    A failed upgrade goes to ``task_status`` as a value: an exception would lose its cause in
    ``nursery.start()``, which raises it ``from None`` before Trio 0.33.
    """
    states = control_stream.states
    try:
        async with open_collapsing_nursery() as nursery:
            control_stream.scope = nursery.cancel_scope
            websocket = await trio_websocket.wrap_client_stream(
                nursery,
                control_stream,  # type: ignore[arg-type]  # its docs allow "an arbitrary stream"
                config.endpoint.authority,
                config.endpoint.resource,
                extra_headers=[
                    (name.encode("ascii"), value.encode("latin-1")) for name, value in headers
                ],
            )
            states.process(TransportTrigger.UPGRADE_ACCEPTED)
            transport = WebSocketTransport(stream, control_stream, websocket, config)
            task_status.started(transport)
            task_status = trio.TASK_STATUS_IGNORED  # free the nursery that start() made
            await transport.keep_alive()
    except Exception as error:  # noqa: BLE001 - trio-websocket's reader raises on some input
        if states.life in {TransportState.OPENING, TransportState.SWITCHING}:
            control_stream.fail_upgrade(error)
        else:
            await control_stream.abort(error)
    if control_stream.upgrade_error is not None:
        task_status.started(control_stream.upgrade_error)


class WebSocketTransport:
    """An open WebSocket, until `aclose`. Only `connect_transport` makes one."""

    def __init__(
        self,
        stream: trio.abc.Stream,
        control_stream: ControlStream,
        websocket: trio_websocket.WebSocketConnection,
        config: ConnectionConfig,
    ) -> None:
        self._stream = stream
        self._control_stream = control_stream
        self._states = control_stream.states
        self._websocket = websocket
        self._config = config
        self._frames = FrameReader(config.limits.max_message_bytes)
        self._unread = control_stream.after_upgrade
        self._send_lock = FastLock()
        self._lost: ConnectionLost | None = None  # set in the states VIOLATED and LOST
        self._close_code = NORMAL_CLOSURE
        self._now = trio.lowlevel.current_clock().current_time
        """Return the time on Trio's clock: a third of the calls of `trio.current_time`."""
        self._reading_since = math.inf
        self._ping_scope: trio.CancelScope | None = None
        self.frame_observer: SocketObserver | None = None
        """The observer that gets every frame; `None` when no instrument observes frames."""
        self.opened_at: float = trio.current_time()
        """The time of the upgrade, on Trio's clock."""
        self.last_read_at: float = self.opened_at
        """When `receive` last got bytes, on Trio's clock."""
        self.handshake_headers: dict[str, str] = {
            name.decode("latin-1").lower(): value.decode("latin-1")
            for name, value in websocket.handshake_headers
        }
        """The headers of the server's upgrade response, names in lower case."""

    @property
    def age(self) -> float:
        """Seconds since the upgrade."""
        return trio.current_time() - self.opened_at

    # --- Receiving -----------------------------------------------------------------------

    async def receive(self) -> list[Message]:
        """Wait for the next batch: the messages that one read of the socket completed.

        A read with very many messages is returned in several batches, with a checkpoint before
        each, and so is one of many control frames.

        Safe to cancel: no byte is lost. Only one task may call it at a time.

        :raises ConnectionLost: when the socket has ended, after every message from before the end
            was returned; the same exception each time.
        """
        frames = self._frames
        while self._lost is None:
            if frames.backlog:
                # Not cancellable: what has arrived is delivered before a deadline is enforced.
                await trio.lowlevel.cancel_shielded_checkpoint()
                self.last_read_at = self._now()
                data: bytes | bytearray | memoryview = b""
            elif self._unread:
                data, self._unread = self._unread, b""
            elif frames.closed or frames.error is not None:
                await self._handle_end_of_stream()
                break
            else:
                self._reading_since = self._now()
                try:
                    data = await self._stream.receive_some(READ_BYTES)
                except (trio.BrokenResourceError, trio.ClosedResourceError):
                    data = b""
                finally:
                    self._reading_since = math.inf
                if not data:
                    await self._handle_end_of_stream()
                    break
                self.last_read_at = self._now()
            messages, control = frames.feed(data)
            if control:
                self._control_stream.feed(control)
            if messages:
                if self.frame_observer is not None:
                    self.frame_observer.received(messages)
                return messages
        assert self._lost is not None  # noqa: S101 - _handle_end_of_stream() set it
        raise self._lost

    async def _handle_end_of_stream(self) -> None:
        """Record the `ConnectionLost` that explains how the socket ended."""
        violation = self._frames.error
        if violation is not None:
            self._close_code = violation.code
            lost = ConnectionLost(violation.code, violation.reason, age=self.age)
            self._record_lost(TransportTrigger.PROTOCOL_VIOLATED, lost)
            return
        self._control_stream.feed_end()
        if self._frames.closed:
            with trio.move_on_after(self._config.timeouts.close):
                # No message ever arrives here: the call ends once trio-websocket has processed the
                # close frame.
                with suppress(trio_websocket.ConnectionClosed):
                    await self._websocket.get_message()
        self._record_lost(TransportTrigger.SOCKET_ENDED, self._make_connection_lost())

    def _record_lost(self, event: TransportTrigger, lost: ConnectionLost) -> None:
        """Record a `ConnectionLost` for the end of the socket; the first one is kept."""
        self._states.process(event)
        self._lost = self._lost or lost

    def _make_connection_lost(self) -> ConnectionLost:
        """Return the `ConnectionLost` for the end of the socket, with the close code if known."""
        if self._lost is not None:
            return self._lost
        closed = self._websocket.closed
        if closed is None:
            lost = ConnectionLost(ABNORMAL_CLOSURE, age=self.age)
        else:
            lost = ConnectionLost(int(closed.code), closed.reason or "", age=self.age)
        lost.__cause__ = self._control_stream.crash
        return lost

    # --- Sending -------------------------------------------------------------------------

    async def send(self, payload: bytes) -> None:
        """Write one text message. A cancellation point, and a checkpoint only where it waits.

        Safe to cancel while other messages are written first. Once the first byte of this message
        is out, the message is finished, or the socket is given up after ``timeouts.send``. When
        this raises, no complete message has left: the server cannot act on it.

        A message that the socket takes at once needs no shield and no timer: nothing is awaited
        while it is written. The rest of a message that the socket takes in part has both.

        :param payload: UTF-8.
        :raises ConnectionLost: when the socket has ended.
        :raises ConnectionClosed: after `aclose` was called.
        :raises SendTimeout: when the write took too long; the socket is closed.
        """
        frame = encode_text_frame(payload)
        written = False
        control = self._control_stream
        async with self._send_lock:
            if self._lost is not None:
                raise self._lost
            if self._states.life is not TransportState.OPEN:
                raise ConnectionClosed("the socket is closing")
            if self.frame_observer is not None:
                self.frame_observer.sent(payload)
            rest = control.send_now(frame)
            if rest is None:
                return
            with trio.move_on_after(self._config.timeouts.send, shield=True) as scope:
                if rest is frame:
                    written = await control.send_frame(frame)
                else:
                    written = await control.send_rest(rest)
        if scope.cancelled_caught:
            await self._give_up(SendTimeout(len(payload), age=self.age))
            raise SendTimeout(len(payload), age=self.age)
        if not written:
            with trio.CancelScope(shield=True):
                await control.wait_for_close_frame()
            raise self._make_connection_lost()

    async def _give_up(self, lost: ConnectionLost) -> None:
        """Close the socket at once, without a closing handshake."""
        self._record_lost(TransportTrigger.SOCKET_ENDED, lost)
        self._control_stream.feed_end()
        await trio.aclose_forcefully(self._stream)

    async def _give_up_unwritable(self, silence: float) -> None:
        """Close a socket that cannot be written to, unless a reader finds its end first.

        The bytes that can still be read come first: only a read that has waited for ``silence``
        seconds proves that no more will come.
        """
        while self._states.life is TransportState.OPEN:
            if trio.current_time() - self._reading_since >= silence:
                break
            await trio.sleep(silence)
            await trio.lowlevel.checkpoint()  # a reader that woke up at the same time goes first
        if self._states.life is TransportState.OPEN:
            await self._give_up(self._make_connection_lost())

    # --- Keepalive -----------------------------------------------------------------------

    async def keep_alive(self) -> None:
        """Ping a silent server, and close the socket if no byte arrives in time.

        Time in which no task receives does not count, since no byte can arrive then. No ping is
        sent in that time either: a server that waits to write may not read.
        """
        interval, timeout = self._config.keepalive.interval, self._config.keepalive.timeout
        while interval < math.inf:
            await trio.sleep_until(self.last_read_at + interval)
            if self._states.life is not TransportState.OPEN:
                return
            if trio.current_time() < self.last_read_at + interval:
                continue
            if self._reading_since == math.inf:
                await trio.sleep(interval)
                continue
            pinged_at = trio.current_time()
            try:
                with trio.move_on_after(timeout) as scope:
                    self._ping_scope = scope
                    await self._websocket.ping()
            except trio_websocket.ConnectionClosed:
                await self._give_up_unwritable(timeout)
                return
            await trio.lowlevel.checkpoint()  # bytes that have arrived are read before the verdict
            if self._states.life is not TransportState.OPEN:
                return
            if self._states.write is WriteState.CUT:
                await self._give_up(SendTimeout(PING_BYTES, age=self.age))
                return
            if not scope.cancelled_caught or self.last_read_at > pinged_at:
                continue
            # A long write delays the ping; that write has its own deadline.
            if self._reading_since <= pinged_at and not self._send_lock.locked():
                silence = trio.current_time() - self.last_read_at
                await self._give_up(KeepaliveTimeout(silence, age=self.age))
                return
            await trio.sleep(interval)

    # --- Closing -------------------------------------------------------------------------

    async def aclose(self) -> None:
        """Close the socket within ``timeouts.close``; may be called again.

        A socket that still works gets a close frame, with 1000 or with the code of the violation
        that was found, and this waits for the server's close frame. A cancellation does not shorten
        that wait, which has a limit already.
        """
        handshake = self._states.life in CLOSING_HANDSHAKE_STATES
        self._states.process(TransportTrigger.CLOSE_STARTED)
        if self._ping_scope is not None:
            self._ping_scope.cancel()
        try:
            if handshake:
                self._control_stream.drop_pending()
                with trio.move_on_after(self._config.timeouts.close, shield=True):
                    async with open_collapsing_nursery() as nursery:
                        nursery.start_soon(self._discard)
                        await self._websocket.aclose(self._close_code)
                        nursery.cancel_scope.cancel()
        finally:  # no other scope cancels the shielded tasks of trio-websocket
            with trio.CancelScope(shield=True):
                await trio.aclose_forcefully(self._stream)
            self._states.process(TransportTrigger.STREAM_CLOSED)
            self._control_stream.scope.cancel()

    async def _discard(self) -> None:
        """Read after this side's close frame, until the server's or the end of the stream.

        trio-websocket gets only the end: no pong may follow a close frame, and trio-websocket
        raises when it has to send one. A task that is in `receive` reads the end itself.
        """
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError, trio.BusyResourceError):
            while not self._frames.closed:
                if self._frames.backlog:
                    await trio.lowlevel.checkpoint()
                    self._frames.feed(b"")
                    continue
                data = await self._stream.receive_some(READ_BYTES)
                if not data:
                    break
                self._frames.feed(data)
        self._control_stream.feed_end()
