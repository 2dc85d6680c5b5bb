"""One WebSocket of the test server: frames in and out, maximum age, pings, close.

A session lasts from the accepted upgrade to the end of the WebSocket. Responses that still run are
cancelled then; a close handshake that the server has started finishes first.
"""

import contextlib
from collections.abc import Mapping
from typing import Final

import msgspec
import trio
from trio_websocket import ConnectionClosed, WebSocketConnection

from trio_responses.testing._frames import (
    Frame,
    Json,
    RequestRefusal,
    WireBytes,
    connection_limit_reached,
    error_frame,
    stream_limit_reached,
)
from trio_responses.testing._records import Connection, Request, SteerRequest
from trio_responses.testing._request_checks import check_lane, parse_frame
from trio_responses.testing._runner import ResponseRunner
from trio_responses.testing._scripts import CutEnd, How
from trio_responses.testing._state import MAX_NAMES, ServerLanes, ServerState
from trio_responses.testing._steering import SteeringState
from trio_responses.testing._streams import FaultyStream

AGE_CLOSE_CODE: Final = 1000
"""The close code at the maximum age. The code of the real server is unknown: clients must rely on
the error frame that comes before the close frame."""

_PING_CLOSE: Final = (1011, "keepalive ping timeout")


class Session:
    """The server's side of one accepted WebSocket."""

    def __init__(
        self,
        state: ServerState,
        record: Connection,
        websocket: WebSocketConnection,
        stream: FaultyStream,
    ) -> None:
        self.record = record
        self._state = state
        self._websocket = websocket
        self._stream = stream
        self._lanes: ServerLanes[Request] = ServerLanes(state.stored)
        self._steering = SteeringState(state, record.number)
        self._runner = ResponseRunner(self, state, self._lanes, self._steering)
        self._close_lock = trio.Lock()

    async def run(self) -> None:
        """Read frames until the WebSocket ends, then cancel the responses that still run."""
        self._state.add_connection(self)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._close_at_max_age)
                nursery.start_soon(self._ping)
                with contextlib.suppress(ConnectionClosed):
                    while True:
                        await self._receive(await self._websocket.get_message(), nursery)
                async with self._close_lock:  # let the close handshake in `drop` finish first
                    nursery.cancel_scope.cancel()
        finally:
            self._state.remove_connection(self)
            self._record_close()
        await self._stream.close_after_drain()

    async def send(self, frame: Frame) -> None:
        """Send one frame; do nothing on a WebSocket that has ended.

        If cancelled, a part of the frame may have been sent, and the WebSocket is unusable.
        """
        ended = (ConnectionClosed, trio.BrokenResourceError, trio.ClosedResourceError)
        with contextlib.suppress(*ended):
            match frame:
                case WireBytes():
                    await self._stream.send_all(frame.data)
                case str() | bytes():
                    await self._websocket.send_message(frame)
                case _:
                    await self._websocket.send_message(msgspec.json.encode(frame).decode())

    def freeze(self) -> None:
        """Make the connection half-open, see :meth:`FaultyStream.freeze`."""
        self._stream.freeze()

    def slow_down(self, piece: int | None, delay: float) -> None:
        """Write a few bytes at a time from now on, see :meth:`FaultyStream.slow_down`."""
        self._stream.slow_down(piece, delay)

    def cut_after(self, size: int, how: CutEnd) -> None:
        """End the connection after some more bytes, see :meth:`FaultyStream.cut_after`."""
        self._stream.cut_after(size, how)

    def add_headers(self, headers: Mapping[str, str]) -> None:
        """Do nothing: only an HTTP answer has headers of its own."""

    def forget(self, response_id: str | None) -> None:
        """Remove a response, or all (None), from the cache of every lane (``stream_id``)."""
        self._lanes.forget(response_id)

    @property
    def is_closed(self) -> bool:
        """Whether the WebSocket has ended."""
        return self._websocket.closed is not None

    async def drop(self, how: How, reason: str = "") -> None:
        """End the connection with a close code (within ``close_timeout``), a FIN or a reset."""
        async with self._close_lock:
            if how == "reset":
                self._record_close()
                self._stream.reset()
            elif how == "fin":
                self._record_close()
                await self._stream.close_without_close_frame()
            elif self._websocket.closed is None:
                self.record.close_code, self.record.close_reason = how, reason or None
                with trio.move_on_after(self._state.options.close_timeout):
                    await self._websocket.aclose(how, reason or None)

    def _record_close(self) -> None:
        if self.record.close_code is None:
            closed = self._websocket.closed
            self.record.close_code = 1006 if closed is None else int(closed.code)
            self.record.close_reason = None if closed is None else closed.reason

    async def _close_at_max_age(self) -> None:
        max_age = self._state.options.max_age
        if max_age is None:
            return
        await trio.sleep(max_age)
        await self.send(error_frame(connection_limit_reached(max_age / 60)))
        await self.drop(AGE_CLOSE_CODE)

    async def _ping(self) -> None:
        interval = self._state.options.ping_interval
        if interval is None:
            return
        with contextlib.suppress(ConnectionClosed):
            while True:
                await trio.sleep(interval)
                with trio.move_on_after(self._state.options.ping_timeout) as scope:
                    await self._websocket.ping()
                if scope.cancelled_caught:
                    await self.drop(*_PING_CLOSE)

    async def _receive(self, frame: str | bytes, nursery: trio.Nursery) -> None:
        body = parse_frame(frame)
        if isinstance(body, RequestRefusal):
            await self.send(error_frame(body))
        elif body.get("type") == "response.steer":  # the steered response determines the lane
            await self._receive_steer(body)
        else:
            await self._receive_on_lane(body, nursery)

    async def _receive_steer(self, body: Json) -> None:
        replayed = self._state.take_replay_steer()
        if replayed is not None:
            self._state.steers.append(SteerRequest(body, self.record.number))
            replayed.set()
            return
        for frame in self._steering.receive(body):
            await self.send(frame)

    async def _receive_on_lane(self, body: Json, nursery: trio.Nursery) -> None:
        refusal = check_lane(body, lanes=self._state.options.lanes)
        if refusal is not None:
            await self.send(error_frame(refusal))
            return
        lane: str | None = body.get("stream_id")
        if body.get("type") != "response.create":
            refusal = RequestRefusal(
                message=f"Unknown event type: {body.get('type')!r}.", param="type"
            )
        elif not self._lanes.accepts(lane):
            refusal = stream_limit_reached(MAX_NAMES)
        else:
            self._receive_create(body, lane, nursery)
            return
        await self.send(error_frame(refusal, lane=lane))

    def _receive_create(self, body: Json, lane: str | None, nursery: trio.Nursery) -> None:
        request = Request(body, self.record.number, lane)
        self._state.add_request(request)
        self.record.requests += 1
        self._lanes.enqueue(lane, request)
        self._runner.start_queued_requests(nursery)
