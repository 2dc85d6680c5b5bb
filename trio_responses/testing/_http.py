"""One HTTP connection of the test server: requests in, answers out, one after another.

h11 parses the requests and frames the answers. An `Exchange` is one request and its answer: whole,
or in pieces. When the client leaves in the middle, the exchange is cancelled.
"""

import contextlib
import gzip
import zlib
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, TypeAlias, final
from urllib.parse import parse_qsl

import h11
import trio

from trio_responses.testing._http_answers import json_refusal
from trio_responses.testing._records import Connection, HTTPRequest
from trio_responses.testing._scripts import (
    HandshakeDrop,
    HandshakeFault,
    HandshakeGarbage,
    HandshakeHang,
    How,
    HTTPAnswer,
)
from trio_responses.testing._state import ServerState
from trio_responses.testing._streams import FaultyStream

MAX_BODY: Final = 64 * 1024 * 1024
"""The number of bytes in the largest accepted body. The limit of WebSocket mode does not hold over
HTTP (docs/protocol.md 4)."""
MAX_HEAD: Final = 65536
_MAX_PIPELINED: Final = 65536
_GZIP_BITS: Final = 31
_GONE: Final = (trio.BrokenResourceError, trio.ClosedResourceError)

Handler: TypeAlias = Callable[["Exchange"], Awaitable[None]]
"""A function that answers a request."""


@final
class Exchange:
    """One HTTP request and its answer.

    A client that has left does not matter: nothing is written then.
    """

    def __init__(self, connection: "HTTPConnection", request: HTTPRequest) -> None:
        self.request = request
        self.connection: Connection = connection.record
        self.stream: FaultyStream = connection.stream
        self.headers: dict[str, str] = {}
        """Headers that are added to the answer, or replace those of the answer."""
        self.has_started: bool = False
        """Whether the head of the answer was written."""
        self.has_ended: bool = False
        """Whether nothing can be written any more."""
        self._http = connection.http
        self._zip: Any = None

    async def respond(self, answer: HTTPAnswer) -> None:
        """Write a whole answer."""
        headers = self._all_headers(answer.headers)
        is_compressed = headers.get("content-encoding") == "gzip"
        body = gzip.compress(answer.body, mtime=0) if is_compressed else answer.body
        headers.setdefault("content-length", str(len(body)))
        await self._start(answer.status, headers, body)
        await self.end()

    async def start(self, status: int, headers: Mapping[str, str]) -> None:
        """Write the head of an answer whose body follows in pieces."""
        headers = self._all_headers(headers)
        if headers.get("content-encoding") == "gzip":
            self._zip = zlib.compressobj(wbits=_GZIP_BITS)
        await self._start(status, headers)

    async def send_body(self, data: bytes) -> None:
        """Write a piece of the body."""
        if data:
            await self._write(h11.Data(data=self._compress(data)))

    async def end(self) -> None:
        """End the body; the client may send the next request."""
        if self.has_ended:
            return
        rest = self._finish_compression()
        if rest:
            await self._write(h11.Data(data=rest))
        await self._write(h11.EndOfMessage())
        self.has_ended = True

    async def send_raw(self, data: bytes) -> None:
        """Write bytes that are no part of the answer, below HTTP."""
        with contextlib.suppress(*_GONE):
            await self.stream.send_all(data)

    def leave(self) -> None:
        """Write nothing more."""
        self.has_ended = True

    def _all_headers(self, headers: Mapping[str, str]) -> dict[str, str]:
        number = self.request.number
        own = {"x-request-id": f"req_{number:024x}"}
        given = {name.lower(): value for name, value in (*headers.items(), *self.headers.items())}
        return own | given

    async def _start(self, status: int, headers: Mapping[str, str], body: bytes = b"") -> None:
        self.request.status = self.connection.status = status
        self.has_started = True
        head = h11.Response(status_code=status, headers=list(headers.items()))
        await self._write(head, *([h11.Data(data=body)] if body else []))

    async def _write(self, *events: h11.Event) -> None:
        if self.has_ended:
            return
        pieces = [self._http.send(event) for event in events]
        try:
            await self.stream.send_all(b"".join(piece for piece in pieces if piece))
        except _GONE:
            self.has_ended = True

    def _compress(self, data: bytes) -> bytes:
        if self._zip is None:
            return data
        compressed: bytes = self._zip.compress(data) + self._zip.flush(zlib.Z_SYNC_FLUSH)
        return compressed

    def _finish_compression(self) -> bytes:
        return b"" if self._zip is None else bytes(self._zip.flush())


@final
class HTTPConnection:
    """A stream on which a client sends HTTP requests.

    :param answer: Answers each request.
    """

    def __init__(
        self, state: ServerState, record: Connection, stream: FaultyStream, answer: Handler
    ) -> None:
        self.record = record
        self.stream = stream
        self.http: h11.Connection = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD)
        self._state = state
        self._answer = answer

    async def serve(self) -> None:
        """Answer requests until the client leaves or the connection must be closed."""
        self.record.transport = "http"
        self._state.http_connections.append(self)
        try:
            while await self._serve_request():
                self.http.start_next_cycle()
        finally:
            self._state.http_connections.remove(self)
        await self.stream.close_after_drain()

    async def drop(self, how: How, reason: str = "") -> None:  # noqa: ARG002 - HTTP has no reasons
        """End the connection with a reset, or with a FIN for everything else."""
        if how == "reset":
            self.stream.reset()
        else:
            await self.stream.close_without_close_frame()

    def freeze(self) -> None:
        """Make the connection half-open, see :meth:`FaultyStream.freeze`."""
        self.stream.freeze()

    async def _serve_request(self) -> bool:
        """Answer one request, and return whether the connection can take another one."""
        try:
            exchange = await self._read_request()
        except h11.RemoteProtocolError as error:
            await self._refuse(error.error_status_hint, "bad_request", str(error))
            return False
        if exchange is None:
            return False
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch, exchange, nursery.cancel_scope)
            fault = self._state.take_handshake_fault("http")
            if fault is None:
                await self._answer(exchange)
            else:
                await self._apply(fault, exchange)
            nursery.cancel_scope.cancel()
        is_done = self.http.our_state is h11.DONE and self.http.their_state is h11.DONE
        return is_done and not self.stream.closed.is_set()

    async def _read_request(self) -> Exchange | None:
        """Read a request with its body; return None if the client leaves before."""
        request: HTTPRequest | None = None
        body = bytearray()
        while True:
            event = self.http.next_event()
            if event is h11.NEED_DATA:
                if self.http.they_are_waiting_for_100_continue:
                    await self._send(h11.InformationalResponse(status_code=100, headers=[]))
                try:
                    self.http.receive_data(await self.stream.receive_some())
                except trio.BrokenResourceError:
                    return None
            elif isinstance(event, h11.Request):
                request = self._record(event)
            elif isinstance(event, h11.Data):
                body += event.data
                if len(body) > MAX_BODY:
                    message = f"The body is larger than {MAX_BODY} bytes."
                    await self._refuse(413, "request_too_large", message)
                    return None
            elif isinstance(event, h11.EndOfMessage) and request is not None:
                request.body = bytes(body)
                return Exchange(self, request)
            else:
                return None

    def _record(self, event: h11.Request) -> HTTPRequest:
        path, _, query = event.target.decode("latin-1").partition("?")
        values: dict[str, list[str]] = {}
        for name, value in parse_qsl(query, keep_blank_values=True):
            values.setdefault(name.partition("[")[0], []).append(value)
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in event.headers}
        request = HTTPRequest(
            number=len(self._state.http_requests) + 1,
            method=event.method.decode("latin-1"),
            path=path,
            query=values,
            headers=headers,
            connection=self.record.number,
        )
        self._state.http_requests.append(request)
        return request

    async def _watch(self, exchange: Exchange, scope: trio.CancelScope) -> None:
        """Cancel the answer when the client leaves; keep what the client sends meanwhile."""
        size = 0
        while size < _MAX_PIPELINED:
            try:
                data = await self.stream.receive_some()
            except _GONE:
                data = b""
            size += len(data)
            self.http.receive_data(data)
            if not data:
                exchange.leave()
                scope.cancel()
                return

    async def _apply(self, fault: HandshakeFault, exchange: Exchange) -> None:
        match fault:
            case HTTPAnswer():
                await exchange.respond(fault)
            case HandshakeDrop(how=how):
                await self.drop(how)
            case HandshakeGarbage():
                await self.stream.send_all(fault.data)
                await self.drop("fin")
            case HandshakeHang():
                await trio.sleep_forever()
            case _:
                raise AssertionError(f"{fault!r} is no fault of an HTTP request")

    async def _refuse(self, status: int, code: str, message: str) -> None:
        answer = json_refusal(status, code=code, message=message, headers={"Connection": "close"})
        if self.http.our_state not in {h11.IDLE, h11.SEND_RESPONSE}:
            return
        self.record.status = status
        headers = [*answer.headers.items(), ("Content-Length", str(len(answer.body)))]
        await self._send(h11.Response(status_code=status, headers=headers))
        await self._send(h11.Data(data=answer.body))
        await self._send(h11.EndOfMessage())

    async def _send(self, event: h11.Event) -> None:
        with contextlib.suppress(*_GONE):
            await self.stream.send_all(self.http.send(event) or b"")
