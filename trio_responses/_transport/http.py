"""The HTTP transport: each request is one ``POST``, answered by a stream of server-sent events.

`HTTPClient` keeps HTTP connections alive for all requests of one connection. `HTTPExchange` is one
request and its answer, with the interface of a WebSocket for the layers above: `send`, `receive`
and `aclose`. The payload that `send` takes is the WebSocket command; the messages that `receive`
returns are those that a WebSocket would bring (docs/protocol.md, section 8):

* The data of each server-sent event is a message.
* An answer with an error status becomes an ``error`` message with the status and the headers, as
  servers send it over WebSocket.
* An answer that is a whole Response, from a server that does not stream, becomes its terminal
  event.

httpcore2 speaks HTTP. It gets its byte streams from `http_stream.py`, which dials and starts TLS as
for a WebSocket: proxies, ``dial=``, certificates and error messages are the same.

One task of each exchange (`HTTPExchange._run`) calls httpcore2, whose calls cannot be resumed after
a cancellation. A channel without a buffer passes its messages to `receive`, which can be cancelled
at any time. So a slow reader slows the server.
"""

from __future__ import annotations

import math
import ssl
from contextlib import aclosing, asynccontextmanager, suppress
from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast
from urllib.parse import quote, urlencode

import msgspec
import trio

from trio_responses._errors import (
    ConfigurationError,
    ConnectError,
    ConnectionClosed,
    ConnectionLost,
    DeliveryStatus,
    ResponsesError,
    UnsupportedByTransport,
)
from trio_responses._extras import install_hint
from trio_responses._protocol.frames import MESSAGES_PER_FEED, OversizeMessage
from trio_responses._protocol.sse import KEPT, EventReader
from trio_responses._transport.http_stream import Backend, bounded_pieces
from trio_responses._wire.errors import error_message

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping

    import httpcore2

    from trio_responses._endpoint import HeaderLines
    from trio_responses._instruments.instrument import SocketObserver
    from trio_responses._protocol.frames import Message
    from trio_responses._transport.dialing import ConnectionConfig
    from trio_responses._transport.http_stream import ByteStream

__all__ = [
    "HTTPClient",
    "HTTPExchange",
    "check_http_installed",
    "decode_headers",
    "is_http_installed",
    "read_body",
    "target_of",
    "unsupported",
]

KEEPALIVE_SECONDS: Final = 30.0
"""How long an idle HTTP connection is kept for the next request."""
MAX_ERROR_BYTES: Final = 64 * 1024
"""How much of the body of an error is read."""
MAX_REST_BYTES: Final = 64 * 1024
"""How much is read after the end of a response, so that the HTTP connection can be used again."""
ERROR_BODY_SECONDS: Final = 1.0
"""How long the body of an error is waited for, as for a refused upgrade."""
OK: Final = 200
UNAUTHORIZED: Final = 401
EVENT_STREAM: Final = "text/event-stream"
JSON_TYPE: Final = "application/json"
STREAM_OPENED: Final = frozenset(
    {"connection.connect_tcp.complete", "connection.start_tls.complete"}
)
COMMAND: Final = b'{"type":"response.create",'
STREAMED: Final = b'{"stream":true,'
NOT_IN_BODY: Final = ("type", "stream", "stream_id", "generate")
"""The fields of a command that are left out or replaced in the body of a ``POST``."""
QUOTED: Final = (b'"stream"', b'"stream_id"', b'"generate"', b'"background"')
"""Text in a command for which its fields have to be decoded."""
ENDING_TYPES: Final = frozenset(
    {
        "error",
        "response.cancelled",
        "response.completed",
        "response.failed",
        "response.incomplete",
    }
)
"""The types of events after which a response has no other."""


def is_http_installed() -> bool:
    """Whether httpcore2, which the HTTP transport needs, is installed."""
    return _finds(find_spec, "httpcore2")


@cache
def _finds(find: Callable[[str], object], name: str) -> bool:
    """Whether a package can be imported. A search takes 300 calls and looks into many folders."""
    return find(name) is not None


def check_http_installed(feature: str, *, http2: bool) -> None:
    """Raise an error that names the extra, unless the packages for HTTP are installed.

    :param feature: what needs HTTP, for the message.
    :param http2: whether HTTP/2 is used.
    :raises ConfigurationError: when httpcore2 is not installed, or h2 where HTTP/2 is used.
    """
    if not is_http_installed():
        extra = "http2" if http2 else "http"
        raise ConfigurationError(f"{feature} needs httpcore2: {install_hint(extra)}")
    if http2 and find_spec("h2") is None:
        raise ConfigurationError(f"http2=True needs h2: {install_hint('http2')}")


class HTTPClient:
    """The HTTP connections of one connection, kept alive and used again.

    :param get_headers: returns the headers of one request, with the key.
    :param refresh_key: whether a refused key may be replaced by calling ``get_headers`` again.
    :param back_off: called when no HTTP connection could be opened, with the time of the first
        attempt; waits before the next attempt, or raises the error that ends the attempts.
    :raises ConfigurationError: when httpcore2 is not installed, or h2 where HTTP/2 is asked for.
    """

    def __init__(
        self,
        config: ConnectionConfig,
        get_headers: Callable[[], Awaitable[HeaderLines]],
        *,
        refresh_key: bool,
        back_off: Callable[[ConnectError, float], Awaitable[None]],
    ) -> None:
        check_http_installed("a request over HTTP", http2=config.http2)
        self.config = config
        self.get_headers = get_headers
        self.refresh_key = refresh_key
        self.back_off = back_off
        endpoint = config.endpoint
        scheme = "https" if endpoint.secure else "http"
        self._root = f"{scheme}://{endpoint.authority}"
        self._pool = _make_pool(config)

    async def request(
        self,
        method: str,
        target: str,
        headers: HeaderLines,
        body: bytes | None = None,
        *,
        accept: str = JSON_TYPE,
        trace: Callable[[str, Any], Awaitable[None]] | None = None,
    ) -> httpcore2.Response:
        """Send one HTTP request, and return the answer once its head was received.

        If cancelled, the HTTP connection is closed.

        :param target: the path and query.
        :param trace: called with the name of each step, as httpcore2 describes.
        :raises ConnectError: when no HTTP connection can be opened.
        :raises ConnectionLost: when the HTTP connection was lost.
        """
        import httpcore2  # noqa: PLC0415 - of an extra

        scope = trio.CancelScope()

        async def trace_step(step: str, info: Any) -> None:
            # Between these steps and the next, httpcore2 waits for a lock. If cancelled there, it
            # would keep an open byte stream that it neither uses nor closes.
            if scope.shield != (step in STREAM_OPENED):
                scope.shield = not scope.shield
            if trace is not None:
                await trace(step, info)

        own = {"accept": accept, "accept-encoding": "identity"}
        if body is not None:
            own |= {"content-type": JSON_TYPE, "content-length": str(len(body))}
        given = {name.lower() for name, _ in headers}
        lines = [("Host", self.config.endpoint.authority), *headers]
        lines += [(name, value) for name, value in own.items() if name not in given]
        request = httpcore2.Request(
            method,
            self._root + target,
            headers=[(name.encode("ascii"), value.encode("latin-1")) for name, value in lines],
            content=body,
            extensions={"trace": trace_step},
        )
        try:
            with _errors_as_lost(trio.current_time()), scope:
                response = await self._pool.handle_async_request(request)
                if self.config.rate_limits is not None:
                    self.config.rate_limits.report(decode_headers(response))
                return response
        except BaseException:
            await self._close_unusable()
            raise
        raise AssertionError  # nothing cancels this scope itself

    async def _close_unusable(self) -> None:
        """Close the idle HTTP/2 connections that take no request, after a write was cancelled.

        httpcore2 counts them as open until they expire.
        """
        with trio.CancelScope(shield=True):
            for connection in self._pool.connections:
                if connection.is_idle() and not connection.is_available():
                    await connection.aclose()

    async def aclose(self) -> None:
        """Close the idle HTTP connections."""
        with trio.CancelScope(shield=True):
            await self._pool.aclose()


class HTTPExchange:
    """One request over HTTP and its answer, until `aclose`.

    :param nursery: runs the task of the exchange, from `send` until `aclose`.
    """

    def __init__(self, client: HTTPClient, nursery: trio.Nursery) -> None:
        self._client = client
        self._nursery = nursery
        self._config = client.config
        self._scope = trio.CancelScope()
        self._written = trio.Event()
        """Set when the request was handed to the network whole, or failed."""
        self._is_written = False
        self._ended = trio.Event()
        self._error: ResponsesError | None = None
        self._position: _Position | None = None
        """How far a response was received whose stream can be resumed."""
        self._discards = False
        """Whether the rest of the answer is read for its end alone."""
        self._now = trio.lowlevel.current_clock().current_time
        """Return the time on Trio's clock: a third of the calls of `trio.current_time`."""
        send, receive = trio.open_memory_channel[list["Message"]](0)
        self._send_messages = send
        self._messages = receive
        self.frame_observer: SocketObserver | None = None
        """The observer that gets every message; `None` when no instrument observes frames."""
        self.opened_at: float = trio.current_time()
        """When the exchange began, on Trio's clock."""
        self.last_read_at: float = self.opened_at
        """When bytes were received, or messages returned, last; on Trio's clock."""
        self.handshake_headers: dict[str, str] = {}
        """The headers of the answer, names in lower case."""
        self.keepalive_at: float = math.inf
        """HTTP has no pings."""

    @property
    def age(self) -> float:
        """Seconds since the exchange began."""
        return trio.current_time() - self.opened_at

    def check_keepalive(self) -> None:
        """Do nothing: HTTP has no pings."""

    def exclude_pause(self, seconds: float) -> None:
        """Do nothing: silence of the server is not counted."""

    # --- For the layers above ------------------------------------------------------------

    async def send(self, payload: bytes) -> None:
        """Send the request; return when its last byte was handed to the network.

        If cancelled before, the HTTP connection is closed, and the server has no whole request.

        :param payload: a ``response.create`` command.
        :raises UnsupportedByTransport: for a command that HTTP does not have.
        :raises ConnectError: when no HTTP connection can be opened.
        :raises ConnectionLost: when the HTTP connection was lost before.
        :raises ConnectionClosed: when the connection was closed before.
        """
        request = _request_of(payload, self._config.endpoint.resource)
        if self.frame_observer is not None:
            self.frame_observer.sent(payload)
        self._position = _Position() if request.resumable else None
        self._nursery.start_soon(self._run, request)
        try:
            await self._written.wait()
        except trio.Cancelled:
            self._scope.cancel()
            raise
        if not self._is_written:
            assert self._error is not None  # noqa: S101 - _run() sets it before _written
            raise self._error

    async def receive(self) -> list[Message]:
        """Wait for the next messages: all that one read completed. Safe to cancel.

        If the request could not be sent, `send` raises the reason, and this waits until cancelled.

        :raises ConnectionLost: when the answer has ended; the same exception each time.
        """
        try:
            messages = await self._messages.receive()
        except trio.EndOfChannel:
            if not self._is_written:
                await trio.sleep_forever()
            assert self._error is not None  # noqa: S101 - _run() sets it before the end
            raise self._error from self._error.__cause__
        self.last_read_at = self._now()
        return messages

    async def aclose(self) -> None:
        """End the exchange within ``timeouts.close``.

        When the response has ended, the rest of the answer is read, so that the HTTP connection
        can be used again. Otherwise, and if cancelled, the HTTP connection is closed.
        """
        self._discards = True
        self._messages.close()
        if self._error is None and self._written.is_set():
            with trio.move_on_after(self._config.timeouts.close):
                await self._ended.wait()
        self._scope.cancel()

    def abort(self) -> None:
        """Close the HTTP connection, because the rest of the answer is not needed."""
        self._scope.cancel()

    # --- The task of the exchange --------------------------------------------------------

    async def _run(self, request: _Request) -> None:
        try:
            with self._scope, self._send_messages:
                await self._run_request(request)
        except ResponsesError as error:
            self._error = error
            if self._is_written and not isinstance(error, ConnectionLost):
                self._error = ConnectionLost(None, str(error), age=self.age)
                self._error.__cause__ = error
        finally:
            if self._error is None and not self._is_written:
                self._error = ConnectionClosed("the connection was closed")
            elif self._error is None:
                reason = "the answer ended before the response"
                self._error = ConnectionLost(None, reason, age=self.age)
            self._written.set()
            self._ended.set()

    async def _run_request(self, request: _Request) -> None:
        """Send a request, and read its answer; resume the stream of a background response."""
        resumed_at: int | None = -1
        since = trio.current_time()
        while True:
            lost: ConnectionLost | None = None
            try:
                await self._send_and_read(request)
            except ConnectionLost as error:
                lost = error
            position = self._position
            if self._discards or position is None or position.ended or not position.response_id:
                if lost is not None:
                    raise lost
                return
            if position.number == resumed_at:  # nothing came since the last attempt
                reason = str(lost) if lost is not None else "the stream ended before the response"
                await self._client.back_off(ConnectError(reason), since)
            else:
                since = trio.current_time()
            resumed_at = position.number
            target = target_of(
                self._config.endpoint.resource,
                position.response_id,
                query={"stream": True, "starting_after": position.number},
            )
            request = _Request("GET", target, None, resumable=True)

    async def _send_and_read(self, request: _Request) -> None:
        """Send a request, and read its answer.

        If the server refuses the key, and a function returns the key, the request is sent once
        more.
        """
        async with self._send_request(request) as response:
            if response.status != UNAUTHORIZED or not self._client.refresh_key:
                await self._read_answer(response)
                return
            refusal = await self._read_error(response)
        try:
            async with self._send_request(request, once=True) as response:
                await self._read_answer(response)
        except ConnectError:
            await self._deliver([refusal])

    async def _read_answer(self, response: httpcore2.Response) -> None:
        kind = self.handshake_headers.get("content-type", "").partition(";")[0].strip().lower()
        encoding = self.handshake_headers.get("content-encoding", "identity").strip().lower()
        if response.status != OK:
            await self._deliver([await self._read_error(response)])
        elif encoding != "identity":
            reason = f"the server compressed its answer ({encoding}), which was not asked for"
            raise ConnectionLost(None, reason, age=self.age)
        elif kind == EVENT_STREAM:
            await self._read_events(response)
        else:
            await self._read_response(response, kind)

    @asynccontextmanager
    async def _send_request(
        self, request: _Request, *, once: bool = False
    ) -> AsyncGenerator[httpcore2.Response, None]:
        """Send a request, in as many attempts as needed to open an HTTP connection.

        :param once: whether only one attempt is made.
        """
        since = trio.current_time()
        client = self._client
        while True:
            try:
                response = await client.request(
                    request.method,
                    request.target,
                    await client.get_headers(),
                    request.body,
                    accept=EVENT_STREAM,
                    trace=self._trace,
                )
                break
            except ConnectError as error:
                if once or not error.retryable:
                    raise
                await client.back_off(error, since)
        self._mark_written()
        self.handshake_headers = decode_headers(response)
        try:
            yield response
        finally:
            with trio.CancelScope(shield=True), suppress(Exception):
                await response.aclose()

    async def _trace(self, step: str, _: Any) -> None:
        if step.endswith("send_request_body.complete"):
            self._mark_written()

    def _mark_written(self) -> None:
        self._is_written = True
        self._written.set()

    async def _read_events(self, response: httpcore2.Response) -> None:
        reader = EventReader(self._config.limits.max_message_bytes)
        rest = 0
        async with _pieces_of(response, self.opened_at) as pieces:
            async for data in pieces:
                self.last_read_at = self._now()
                if self._discards:
                    rest += len(data)
                    if rest > MAX_REST_BYTES:
                        return
                    continue
                await self._deliver_events(reader, data)
        if not reader.is_between_events:
            reason = "the answer was cut off in the middle of an event"
            raise ConnectionLost(None, reason, age=self.age)

    async def _deliver_events(self, reader: EventReader, data: bytes) -> None:
        """Deliver the events of one piece of the answer.

        However odd the piece is, other tasks run in between (P6).
        """
        for number, piece in enumerate(bounded_pieces(data)):
            if number:
                await trio.lowlevel.checkpoint()
            messages: list[Message] = [*reader.feed(piece)]
            for start in range(0, len(messages), MESSAGES_PER_FEED):
                await self._deliver(messages[start : start + MESSAGES_PER_FEED])

    async def _read_response(self, response: httpcore2.Response, kind: str) -> None:
        """Read a whole Response, from a server that does not stream."""
        limit = self._config.limits.max_message_bytes
        body = await read_body(response, limit, since=self.opened_at)
        message: Message | None
        if len(body) > limit:
            message = OversizeMessage(len(body), RESPONSE_EVENT % (b"completed", body[:KEPT]), b"")
        else:
            message = _event_of(body)
        if message is None:
            reason = f"the answer is no event stream but {kind or 'of no content type'}"
            raise ConnectionLost(None, reason, age=self.age)
        await self._deliver([message])

    async def _read_error(self, response: httpcore2.Response) -> bytes:
        """Return the ``error`` message for an answer with an error status."""
        body = bytearray()
        with suppress(ConnectionLost), trio.move_on_after(ERROR_BODY_SECONDS):
            # The status is known, and says more than the reason why the body is cut.
            await read_body(response, MAX_ERROR_BYTES, since=self.opened_at, into=body)
        return error_message(response.status, self.handshake_headers, bytes(body[:MAX_ERROR_BYTES]))

    async def _deliver(self, messages: list[Message]) -> None:
        """Pass messages to the task in `receive`, and wait until it has taken them.

        No checkpoint if the task is waiting already: every read of the answer is one.
        """
        if self._position is not None:
            self._position.advance(messages)
        if self.frame_observer is not None:
            self.frame_observer.received(messages)
        try:
            self._send_messages.send_nowait(messages)
        except trio.WouldBlock:
            with suppress(trio.BrokenResourceError):
                await self._send_messages.send(messages)
        except trio.BrokenResourceError:
            pass  # aclose() was called: the rest is discarded


def unsupported(what: str) -> UnsupportedByTransport:
    """Return the exception for a request that HTTP does not have; nothing was sent.

    :param what: the request, as a message names it.
    """
    error = UnsupportedByTransport(
        f"{what} needs a WebSocket: the requests of this connection are sent over HTTP"
    )
    error.delivery = DeliveryStatus.NOT_SENT
    return error


class _Request(NamedTuple):
    """An HTTP request for the events of one response."""

    method: str
    target: str
    """The path and query."""
    body: bytes | None
    resumable: bool
    """Whether the server can send the rest of the events again: for a background response."""


def _request_of(command: bytes, resource: str) -> _Request:
    """Return the HTTP request for a command, without the fields of WebSocket mode.

    :raises UnsupportedByTransport: for a command that HTTP does not have.
    """
    if command.startswith(COMMAND) and not any(name in command for name in QUOTED):
        return _Request("POST", resource, STREAMED + command[len(COMMAND) :], resumable=False)
    fields = msgspec.json.decode(command, type=dict[str, msgspec.Raw])
    kind = bytes(fields.get("type", b"null")).decode(errors="replace").strip('"')
    if kind != "response.create":
        raise unsupported(f"the command {kind}")
    if fields.get("generate") == msgspec.Raw(b"false"):
        raise unsupported("a warm-up (generate=False)")
    rest = {name: value for name, value in fields.items() if name not in NOT_IN_BODY}
    background = fields.get("background") == msgspec.Raw(b"true")
    body = msgspec.json.encode({"stream": True, **rest})
    return _Request("POST", resource, body, resumable=background)


def target_of(resource: str, *path: str, query: Mapping[str, Any] | None = None) -> str:
    """Return the path and query of a call, with the query of the endpoint's own URL.

    :param path: the segments of the path after ``/responses``.
    :param query: the parameters of the query; those that are `None` are left out.
    """
    base, _, own = resource.partition("?")
    pairs: list[tuple[str, str]] = []
    for name, value in (query or {}).items():
        if isinstance(value, list | tuple):
            pairs += [(f"{name}[]", str(one)) for one in cast("list[Any]", value)]
        elif value is not None:
            pairs.append((name, str(value).lower() if isinstance(value, bool) else str(value)))
    parts = [part for part in (own, urlencode(pairs)) if part]
    whole = "/".join([base, *(quote(segment, safe="") for segment in path)])
    return f"{whole}?{'&'.join(parts)}" if parts else whole


class _ResponseId(msgspec.Struct):
    """The id of a Response."""

    id: str = ""


class _EventPosition(msgspec.Struct):
    """The fields of an event that state its place in a response."""

    type: str = ""
    sequence_number: int | None = None
    response: _ResponseId | None = None


_position_decoder: Final = msgspec.json.Decoder(_EventPosition)


class _Position:
    """How far the events of a background response were received."""

    def __init__(self) -> None:
        self.response_id: str = ""
        self.number: int | None = None
        """The ``sequence_number`` of the last event, if it has one."""
        self.ended: bool = False

    def advance(self, messages: list[Message]) -> None:
        for message in messages:
            if not isinstance(message, bytes):
                continue
            try:
                event = _position_decoder.decode(message)
            except (msgspec.MsgspecError, ValueError):
                continue
            if event.response is not None and event.response.id:
                self.response_id = event.response.id
            if event.sequence_number is not None:
                self.number = event.sequence_number
            self.ended = self.ended or event.type in ENDING_TYPES


class _Answer(msgspec.Struct):
    """The fields of a JSON answer that decide which event it stands for."""

    status: str = ""
    object: str = ""
    error: Any = None


def _event_of(body: bytes) -> bytes | None:
    """Return the event that a JSON answer stands for: of a Response, or of an error.

    :return: `None` for an answer of another kind.
    """
    try:
        answer = msgspec.json.decode(body, type=_Answer)
    except (msgspec.MsgspecError, ValueError):
        return None
    if answer.object == "response" and answer.status in STATUSES:
        return RESPONSE_EVENT % (answer.status.encode(), body.strip())
    return error_message(None, {}, body) if answer.error is not None else None


RESPONSE_EVENT: Final = b'{"type":"response.%b","response":%b}'
STATUSES: Final = frozenset(
    {"completed", "failed", "incomplete", "cancelled", "queued", "in_progress"}
)


async def read_body(
    response: httpcore2.Response, limit: int, *, since: float, into: bytearray | None = None
) -> bytes:
    """Return the body of an answer; of a longer one, a beginning that is over the limit.

    :param since: when the request began, on Trio's clock.
    :param into: where the body is put, of which a part is left if this raises or is cancelled.
    :raises ConnectionLost: when the HTTP connection was lost.
    """
    body = bytearray() if into is None else into
    async with _pieces_of(response, since) as pieces:
        async for data in pieces:
            body += data
            if len(body) > limit:
                break
    return bytes(body)


def decode_headers(response: httpcore2.Response) -> dict[str, str]:
    """Return the headers of an answer, with names in lower case."""
    return {
        name.decode("latin-1").lower(): value.decode("latin-1") for name, value in response.headers
    }


@asynccontextmanager
async def _pieces_of(
    response: httpcore2.Response, since: float
) -> AsyncGenerator[AsyncGenerator[bytes, None], None]:
    """Yield an iterator over the pieces of a body.

    :raises ConnectionLost: when the HTTP connection was lost.
    """
    with _errors_as_lost(since):
        async with aclosing(_read_pieces(response)) as pieces:
            yield pieces


async def _read_pieces(response: httpcore2.Response) -> AsyncGenerator[bytes, None]:
    """Yield the pieces of a body: what the byte stream has read itself, then what httpcore2 reads.

    httpcore2 reads the last chunk, so that it knows that the HTTP connection can be used again.
    """
    stream = cast("ByteStream", cast("Any", response).extensions["network_stream"])
    while data := await stream.read_chunks():
        yield data
    async with aclosing(aiter(cast("Any", response.stream))) as pieces:
        async for data in pieces:
            yield data


class _errors_as_lost:  # noqa: N801 - it is used like a function
    """A context manager that raises `ConnectionLost` for the errors of httpcore2.

    :param since: when the request began, on Trio's clock.
    """

    def __init__(self, since: float) -> None:
        self._since = since

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        import httpcore2  # noqa: PLC0415 - of an extra

        if isinstance(
            error, httpcore2.NetworkError | httpcore2.ProtocolError | httpcore2.TimeoutException
        ):
            reason = str(error).rstrip(".") or "the network or the server ended it"
            cause = error.__cause__
            age = trio.current_time() - self._since
            raise ConnectionLost(None, reason, age=age) from cause or error


def _make_pool(config: ConnectionConfig) -> httpcore2.AsyncConnectionPool:
    import httpcore2  # noqa: PLC0415 - of an extra

    return httpcore2.AsyncConnectionPool(
        # httpcore2 changes the context that it gets, which Backend does not use.
        ssl_context=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
        max_connections=config.limits.http_connections,
        keepalive_expiry=KEEPALIVE_SECONDS,
        http2=config.http2,
        network_backend=cast("Any", Backend(config)),
    )
