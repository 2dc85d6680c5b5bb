"""The start of a client connection to the test server: an upgrade, its refusal, or plain HTTP.

The server reads the first request head itself and pushes it back, before trio-websocket does the
upgrade or h11 reads the request. A failure of one stream ends that stream only. The messages of
`check_head` are part of the wire format: do not reword them.
"""

import http
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, final

import trio
from trio.abc import Stream
from trio_websocket import ConnectionClosed, WebSocketConnection, wrap_server_stream
from wsproto.utilities import LocalProtocolError

from trio_responses.testing._endpoints import Endpoints
from trio_responses.testing._http import HTTPConnection
from trio_responses.testing._http_answers import json_refusal
from trio_responses.testing._records import Connection
from trio_responses.testing._request_checks import is_authorized
from trio_responses.testing._scripts import (
    HandshakeAcceptThenDrop,
    HandshakeDrop,
    HandshakeFault,
    HandshakeGarbage,
    HandshakeHang,
    HTTPAnswer,
)
from trio_responses.testing._session import Session
from trio_responses.testing._state import ServerState
from trio_responses.testing._streams import FaultyStream

_log: Final = logging.getLogger(__name__)

_MAX_HEAD: Final = 65536
_QUEUE_SIZE: Final = 64
_RECEIVE_SIZE: Final = 65536


@final
class ConnectionHandler:
    """A handler of the client connections to one server, each in a task of its own."""

    def __init__(self, state: ServerState) -> None:
        self._state = state
        self._endpoints = Endpoints(state)

    async def serve(self, stream: Stream) -> None:
        """Serve one stream until it ends; exceptions go to ``server.errors``."""
        record = self._state.add_handshake()
        try:
            await self._serve_handshake(FaultyStream(stream), record)
        except* (trio.BrokenResourceError, trio.ClosedResourceError, ConnectionClosed):
            pass  # the client has left
        except* LocalProtocolError:
            pass  # trio-websocket tries to answer a ping that comes after its own close frame
        except* Exception as group:  # noqa: BLE001 - other connections must go on
            _log.debug("connection %d failed", record.number, exc_info=group)
            self._state.errors.extend(_flatten_group(group))
        finally:
            await trio.aclose_forcefully(stream)

    async def _serve_handshake(self, stream: FaultyStream, record: Connection) -> None:
        fault: HandshakeFault | None
        try:
            head = await read_head(stream)
        except ValueError as error:
            fault = _refuse(400, "bad_request", str(error))
        else:
            if head is None:
                return
            record.method, record.path = head.method, head.target
            record.headers = dict(head.headers)
            if self._is_plain_http(head):
                await HTTPConnection(self._state, record, stream, self._endpoints.answer).serve()
                return
            fault = self._state.take_handshake_fault("websocket") or check_head(
                head, self._state.options.api_key
            )
        await self._answer(stream, record, fault)

    async def _answer(
        self, stream: FaultyStream, record: Connection, fault: HandshakeFault | None
    ) -> None:
        """Do the upgrade, or what a fault wants instead."""
        match fault:
            case HTTPAnswer():
                record.status = fault.status
                await write_refusal(stream, fault)
            case HandshakeHang():
                while await stream.receive_some():
                    pass
            case HandshakeDrop(how="reset"):
                stream.reset()
            case HandshakeDrop():
                await stream.close_after_drain()
            case HandshakeGarbage():
                await stream.send_all(fault.data)
                await stream.close_after_drain()
            case _:
                await self._upgrade(stream, record, fault)

    def _is_plain_http(self, head: "RequestHead") -> bool:
        transport = self._state.options.transport
        return transport == "http" or (transport == "both" and not head.wants_websocket)

    async def _upgrade(
        self, stream: FaultyStream, record: Connection, fault: HandshakeAcceptThenDrop | None
    ) -> None:
        async with trio.open_nursery() as nursery:
            websocket = await self._accept(stream, nursery)
            record.status = 400 if websocket is None else 101
            if websocket is not None:
                record.transport = "websocket"
                session = Session(self._state, record, websocket, stream)
                if fault is not None:
                    nursery.start_soon(session.drop, fault.how, fault.reason)
                await session.run()
            nursery.cancel_scope.cancel()

    async def _accept(
        self, stream: FaultyStream, nursery: trio.Nursery
    ) -> WebSocketConnection | None:
        """Return the accepted WebSocket, or None if the stream was closed meanwhile.

        trio-websocket closes the stream of an invalid upgrade, then waits forever for a proposal
        from this stream.
        """
        scope = trio.CancelScope()
        nursery.start_soon(_cancel_when, stream.closed, scope)
        with scope:
            proposal = await wrap_server_stream(
                nursery,
                stream,
                message_queue_size=_QUEUE_SIZE,
                max_message_size=self._state.options.max_message_size,
                receive_buffer_size=_RECEIVE_SIZE,
            )
            return await proposal.accept()
        return None


async def _cancel_when(event: trio.Event, scope: trio.CancelScope) -> None:
    await event.wait()
    scope.cancel()


def _flatten_group(group: BaseExceptionGroup[Exception]) -> list[Exception]:
    found: list[Exception] = []
    for error in group.exceptions:
        found.extend(_flatten_group(error) if isinstance(error, BaseExceptionGroup) else [error])
    return found


# HTTP


@dataclass(frozen=True, slots=True)
class RequestHead:
    """The head of an HTTP request."""

    method: str
    target: str
    headers: Mapping[str, str] = field(repr=False)
    """By lower-case name; the last value of a repeated header."""

    @property
    def path(self) -> str:
        """The path of the request, without the query."""
        return self.target.partition("?")[0]

    @property
    def wants_websocket(self) -> bool:
        """Whether the request asks for a WebSocket, in a valid way or not."""
        return self.headers.get("upgrade", "").lower() == "websocket"

    @property
    def is_upgrade(self) -> bool:
        """Whether the request asks for a WebSocket as in RFC 6455, section 4.2.1."""
        connection = self.headers.get("connection", "").lower()
        return (
            self.method == "GET"
            and self.wants_websocket
            and "upgrade" in connection
            and "sec-websocket-key" in self.headers
            and "host" in self.headers
        )


async def read_head(stream: FaultyStream) -> RequestHead | None:
    """Read a request head and push its bytes back; return None if the client leaves before.

    :raises ValueError: If the bytes are no HTTP/1 request head.
    """
    data = b""
    while b"\r\n\r\n" not in data:
        received = await stream.receive_some()
        if not received:
            return None
        data += received
        if len(data) > _MAX_HEAD:
            raise ValueError(f"the request head is larger than {_MAX_HEAD} bytes")
    stream.push_back(data)
    first, *lines = data.partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")
    try:
        method, target, version = first.split(" ")
    except ValueError:
        raise ValueError(
            f"the request line must be a method, a target and a version, not {first[:100]!r}"
        ) from None
    if not version.startswith("HTTP/1."):
        raise ValueError(f"the version in the request line must be HTTP/1.1, not {version!r}")
    pairs = (line.partition(":") for line in lines)
    headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
    return RequestHead(method, target, headers)


def check_head(head: RequestHead, api_key: str | None) -> HTTPAnswer | None:
    """Return the refusal of an upgrade, or None if the server accepts it.

    :param api_key: The key that the client must send as a bearer token or in ``api-key``; None
        accepts any key, and requests without a key.
    """
    if not head.path.endswith("/v1/responses"):
        return _refuse(404, "not_found", f"Unknown path: {head.path}")
    if not is_authorized(head.headers, api_key):
        return _refuse(401, "invalid_api_key", "Incorrect API key provided.")
    if not head.is_upgrade:
        message = "This server speaks the Responses API over WebSocket only."
        return _refuse(426, "upgrade_required", message, Upgrade="websocket")
    return None


async def write_refusal(stream: FaultyStream, refusal: HTTPAnswer) -> None:
    """Write an HTTP response and end the connection, without a reset that could lose bytes."""
    try:
        phrase = http.HTTPStatus(refusal.status).phrase
    except ValueError:
        phrase = "Refused"
    lines = [f"HTTP/1.1 {refusal.status} {phrase}"]
    lines += [f"{name}: {value}" for name, value in refusal.headers.items()]
    lines += [f"Content-Length: {len(refusal.body)}", "Connection: close", "", ""]
    await stream.send_all("\r\n".join(lines).encode("latin-1") + refusal.body)
    await stream.close_after_drain()


def _refuse(status: int, code: str, message: str, **headers: str) -> HTTPAnswer:
    return json_refusal(status, code=code, message=message, headers=headers)
