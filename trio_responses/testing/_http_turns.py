"""One response over HTTP: the events that answer a ``POST /responses``.

The runner sends the same frames as over WebSocket. A streamed answer has each of them as a
server-sent event; an answer that is not streamed has the Response of the last event. An ``error``
frame that comes first becomes an answer with the status of the error.
"""

import contextlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, cast, final

import trio

from trio_responses.testing._frames import Frame, WireBytes
from trio_responses.testing._http import Exchange
from trio_responses.testing._http_answers import (
    EVENT_STREAM,
    JSON_TYPE,
    error_answer,
    event_bytes,
    json_answer,
    json_refusal,
)
from trio_responses.testing._records import Request
from trio_responses.testing._runner import ResponseRunner
from trio_responses.testing._scripts import CutEnd, How, HTTPAnswer
from trio_responses.testing._state import ServerLanes, ServerState
from trio_responses.testing._steering import SteeringState

if TYPE_CHECKING:
    from trio_responses.testing._frames import Json
    from trio_responses.testing._records import Connection

STREAM_HEADERS: Final[Mapping[str, str]] = {
    "Content-Type": EVENT_STREAM,
    "Cache-Control": "no-cache",
}


@final
class HTTPTurn:
    """The answer to one ``POST /responses``, as the sink of a running response."""

    def __init__(self, state: ServerState, exchange: Exchange, request: Request) -> None:
        self.record: Connection = exchange.connection
        self._state = state
        self._exchange = exchange
        self._request = request
        self._outlives_connection = state.outlives_connection(request)
        self._answered = trio.Event()
        self._response: Json | None = None
        """The Response of the latest event, for an answer that is not streamed."""
        self._body = b""
        """Text and bytes of a script, in place of a Response."""

    async def run(self) -> None:
        """Answer the request. In the background, the response goes on after the answer.

        If cancelled, the response is cancelled, unless it goes on without its connection.
        """
        self.record.requests += 1
        if self._outlives_connection:
            self._state.nursery.start_soon(self._run_and_record_errors)
            await self._answered.wait()
        else:
            await self._run()

    async def _run_and_record_errors(self) -> None:
        try:
            await self._run()
        except Exception as error:  # noqa: BLE001 - the server must go on
            self._state.errors.append(error)
            self._answered.set()

    async def _run(self) -> None:
        lanes: ServerLanes[Request] = ServerLanes(self._state.stored)
        steering = SteeringState(self._state, self.record.number)
        await ResponseRunner(self, self._state, lanes, steering).run_alone(self._request)
        await self._finish()

    # The sink

    @property
    def _is_detached(self) -> bool:
        """Whether the response goes on after its exchange, whose connection may be used again."""
        return self._outlives_connection and self._exchange.has_ended

    @property
    def is_closed(self) -> bool:
        """Whether the client has left, or has the whole answer."""
        return self._exchange.has_ended

    async def send(self, frame: Frame) -> None:
        """Send a frame as an event, or keep its Response for an answer that is not streamed."""
        exchange = self._exchange
        if isinstance(frame, WireBytes):
            if not self._is_detached:
                await exchange.send_raw(frame.data)
            return
        if _is_error(frame) and not exchange.has_started:
            await self._respond(error_answer(cast("Json", frame)))
            return
        if self._request.get("stream"):
            if not exchange.has_started:
                await exchange.start(200, STREAM_HEADERS)
            await exchange.send_body(event_bytes(frame))
        elif isinstance(frame, Mapping):
            await self._keep_response(frame.get("response"))
        else:
            self._body += frame.encode() if isinstance(frame, str) else frame
        if exchange.has_ended:
            self._answered.set()

    async def drop(self, how: How, reason: str = "") -> None:  # noqa: ARG002 - HTTP has no reasons
        """End the connection with a reset, or with a FIN for everything else."""
        if self._is_detached:
            return
        self._exchange.leave()
        if how == "reset":
            self._exchange.stream.reset()
        else:
            with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                await self._exchange.stream.close_without_close_frame()
        self._answered.set()

    def freeze(self) -> None:
        """Make the connection half-open."""
        if self._is_detached:
            return
        self._exchange.stream.freeze()
        if self._outlives_connection:
            self._exchange.leave()

    def slow_down(self, piece: int | None, delay: float) -> None:
        """Write a few bytes at a time from now on."""
        if not self._is_detached:
            self._exchange.stream.slow_down(piece, delay)

    def cut_after(self, size: int, how: CutEnd) -> None:
        """End the connection after some more bytes."""
        if not self._is_detached:
            self._exchange.stream.cut_after(size, how)

    def add_headers(self, headers: Mapping[str, str]) -> None:
        """Add headers to the answer, or replace those of the answer."""
        self._exchange.headers |= headers

    # The answer

    async def _keep_response(self, response: Any) -> None:
        if not isinstance(response, Mapping):
            return
        self._response = dict(cast("Json", response))
        if self._request.is_background and not self._exchange.has_started:
            await self._respond(json_answer(self._response))

    async def _respond(self, answer: HTTPAnswer) -> None:
        await self._exchange.respond(answer)
        self._answered.set()

    async def _finish(self) -> None:
        """End the answer when the response has ended."""
        exchange = self._exchange
        if exchange.has_started or exchange.has_ended:
            await exchange.end()
        elif self._request.get("stream"):
            await exchange.start(200, STREAM_HEADERS)
            await exchange.end()
        elif self._response is not None:
            await exchange.respond(json_answer(self._response))
        elif self._body:
            headers = {"Content-Type": JSON_TYPE}
            await exchange.respond(HTTPAnswer(status=200, headers=headers, body=self._body))
        else:
            message = "The script sends no response."
            await exchange.respond(
                json_refusal(500, code="server_error", message=message, headers={})
            )
        self._answered.set()


def _is_error(frame: Frame) -> bool:
    return isinstance(frame, Mapping) and frame.get("type") == "error"
