"""A scripted HTTP/1.1 server on memory streams, which sends exact bytes, for tests of HTTP."""

from __future__ import annotations

import base64
import hashlib
import ssl
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import msgspec
import trio
import trustme

from tests.transport.peer import CLIENT_HAS_LEFT, CLOSE, KEY, PING, PONG, Peer, frame, text
from trio_responses import ReconnectPolicy, open_responses
from trio_responses._concurrency import open_collapsing_nursery
from trio_responses.testing import memory_connection

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable

    from trio_responses import ResponsesConnection
    from trio_responses.testing import MemoryStream

Json: TypeAlias = dict[str, Any]
EVENTS: Final = "Content-Type: text/event-stream"
JSON_BODY: Final = "Content-Type: application/json"
STEADY: Final = ReconnectPolicy(jitter=0.0)
REASONS: Final = {200: "OK", 401: "Unauthorized", 404: "Not Found", 429: "Too Many Requests"}


# --- What a server sends -----------------------------------------------------------------


def response(
    text: str = "ok", response_id: str = "resp_1", status: str = "completed", **fields: Any
) -> Json:
    """Return a Response with one message."""
    content: list[Json] = [{"type": "output_text", "text": text, "annotations": []}]
    item: Json = {"type": "message", "id": "msg_1", "role": "assistant", "content": content}
    base: Json = {"id": response_id, "object": "response", "status": status, "model": "m"}
    return {**base, "output": [item] if status == "completed" else [], **fields}


def events_of(text: str = "ok", response_id: str = "resp_1") -> list[Json]:
    """Return the events of a Response with one message: created, a delta a word, item, end."""
    place = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
    pieces: list[str] = [text] if not text else [one + " " for one in text.split(" ")]
    pieces[-1] = pieces[-1].removesuffix(" ")
    whole = response(text, response_id)
    events: list[Json] = [
        {"type": "response.created", "response": response("", response_id, "in_progress")},
        *({"type": "response.output_text.delta", "delta": one, **place} for one in pieces),
        {"type": "response.output_item.done", "output_index": 0, "item": whole["output"][0]},
        {"type": "response.completed", "response": whole},
    ]
    return [{**event, "sequence_number": number} for number, event in enumerate(events)]


def sse(*events: Json) -> bytes:
    """Return events as a server writes them."""
    return b"".join(
        b"event: %b\ndata: %b\n\n" % (event["type"].encode(), msgspec.json.encode(event))
        for event in events
    )


def head(status: int, *headers: str) -> bytes:
    """Return the head of an answer."""
    lines = [f"HTTP/1.1 {status} {REASONS.get(status, 'X')}", *headers, "\r\n"]
    return "\r\n".join(lines).encode()


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def whole(status: int, body: bytes | Json = b"", *headers: str) -> bytes:
    """Return an answer with a length."""
    if isinstance(body, dict):
        body = msgspec.json.encode(body)
        headers = (*headers, JSON_BODY)
    return head(status, *headers, f"Content-Length: {len(body)}") + body


CHUNKED: Final = head(200, EVENTS, "Transfer-Encoding: chunked")
"""The head of a streamed answer."""
END: Final = chunk(b"")
"""The end of a streamed answer."""


def error(message: str = "No.", code: str | None = None, kind: str = "some_error") -> Json:
    return {"error": {"message": message, "code": code, "type": kind, "param": None}}


# --- The server --------------------------------------------------------------------------


class Cut(Exception):
    """The server closes its end."""


class Reset(Exception):
    """The server resets the stream."""


@dataclass(frozen=True)
class ClientRequest:
    """One request as received."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes
    stream: int
    """The number of the byte stream."""
    at: float
    """When it was received whole, on Trio's clock."""

    @property
    def json(self) -> Json:
        fields: Json = msgspec.json.decode(self.body)
        return fields


class ClientStream(trio.abc.Stream):
    """The client's end of a byte stream, which knows whether it was closed."""

    def __init__(self, stream: MemoryStream) -> None:
        self._stream = stream
        self.closed_at: float | None = None
        self.writes_left: float = float("inf")
        """The number of writes before one fails."""
        self.peer_closed = False

    @property
    def socket(self) -> ClientStream:
        """The socket of a stream that has one, such as `trio.SocketStream`."""
        return self

    def is_readable(self) -> bool:
        return self.peer_closed

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        self.writes_left -= 1
        if self.writes_left < 0:
            await trio.lowlevel.checkpoint()
            raise trio.BrokenResourceError("stale")
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        return await self._stream.receive_some(max_bytes)

    async def aclose(self) -> None:
        if self.closed_at is None:
            self.closed_at = trio.current_time()
        await self._stream.aclose()


class Exchange:
    """One request at the server, and its answer."""

    def __init__(self, stream: trio.abc.Stream, request: ClientRequest, received: bytes) -> None:
        self.stream = stream
        self.request = request
        self.received = received
        """Bytes after the request."""

    async def send(self, *data: bytes, every: float = 0) -> None:
        """Send bytes; with a delay, wait before each piece after the first."""
        for number, piece in enumerate(data):
            if number and every:
                await trio.sleep(every)
            await self.stream.send_all(piece)

    async def answer(self, text: str = "ok", response_id: str = "resp_1") -> None:
        """Send a whole streamed answer."""
        await self.send(CHUNKED, chunk(sse(*events_of(text, response_id))), END)

    async def events(self, *events: Json, every: float = 0) -> None:
        """Send events in chunks of a streamed answer."""
        await self.send(*(chunk(sse(event)) for event in events), every=every)

    async def client_left(self) -> float:
        """Wait until the client closes the stream; return the time."""
        with suppress(trio.BrokenResourceError):
            while await self.stream.receive_some():
                pass
        return trio.current_time()


Script: TypeAlias = Callable[[Exchange], Awaitable[object]]


async def refuse_upgrade(exchange: Exchange) -> None:
    await exchange.send(whole(426))
    raise Cut


def refuse_with(*answer: bytes) -> Script:
    """Return a script that answers an upgrade with bytes, and closes."""

    async def refuse(exchange: Exchange) -> None:
        await exchange.send(*answer)
        raise Cut

    return refuse


async def serve_websocket(exchange: Exchange, *, answers: bool = True) -> None:
    """Answer every command on a WebSocket with a whole Response.

    :param answers: whether commands are answered; otherwise this returns after the first one.
    """
    key = exchange.request.headers["sec-websocket-key"]
    digest = hashlib.sha1(f"{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11".encode()).digest()  # noqa: S324
    accept = f"Sec-WebSocket-Accept: {base64.b64encode(digest).decode()}"
    upgrade = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade"
    await exchange.send(f"{upgrade}\r\n{accept}\r\n\r\n".encode())
    peer = Peer(exchange.stream)
    number = 0
    while True:
        received = await peer.read_frame()
        if received.opcode == PING:
            await exchange.send(frame(PONG, received.payload))
            continue
        if received.opcode == CLOSE:
            await exchange.send(frame(CLOSE, received.payload))
            raise Cut
        if not answers:
            return
        number += 1
        lane = msgspec.json.decode(received.payload).get("stream_id")
        for event in events_of("by websocket", f"resp_ws_{number}"):
            place = {} if lane is None else {"stream_id": lane}
            await exchange.send(text(msgspec.json.encode(event | place)))


class HTTPPeer:
    """A server that runs a script for each request."""

    def __init__(self, nursery: trio.Nursery, script: Script) -> None:
        self._nursery = nursery
        self.script = script
        self.upgrade: Script = refuse_upgrade
        """The script for each upgrade to a WebSocket."""
        self.capacity: int | None = None
        self.ssl_context: ssl.SSLContext | None = None
        self.requests: list[ClientRequest] = []
        self.upgrades: list[float] = []
        """The times of the requests for an upgrade."""
        self.dials: list[float] = []
        """The times of the dials."""
        self.serving = 0
        """The number of the server's tasks."""
        self.dial_errors: list[BaseException | None] = []
        """What the next dials raise; `None` for one that succeeds."""
        self.down = False
        """Whether no dial succeeds."""
        self.streams: list[ClientStream] = []
        self.servers: list[MemoryStream] = []
        self.writes: list[float] = []
        """After how many writes the next streams fail."""
        self.greeting = b""
        """What is sent on a new stream before a request is received."""
        self.reads = True
        """Whether requests are received."""

    async def dial(self, _host: str, _port: int) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        self.dials.append(trio.current_time())
        failure = self.dial_errors.pop(0) if self.dial_errors else None
        if failure is not None or self.down:
            raise failure or ConnectionRefusedError(111, "Connection refused")
        client, server = memory_connection(self.capacity)
        stream = ClientStream(client)
        if self.writes:
            stream.writes_left = self.writes.pop(0)
        self._nursery.start_soon(self._serve, server, stream, len(self.streams))
        self.streams.append(stream)
        self.servers.append(server)
        await trio.lowlevel.cancel_shielded_checkpoint()  # as the socket of Trio does
        return stream

    def close_all(self) -> None:
        """Close the server's ends of all streams, so that the next request needs a new one."""
        for server, stream in zip(self.servers, self.streams, strict=True):
            server.close()
            stream.peer_closed = True

    @property
    def open_streams(self) -> int:
        """The number of streams that the client has not closed."""
        return sum(stream.closed_at is None for stream in self.streams)

    async def _serve(self, server: MemoryStream, client: ClientStream, number: int) -> None:
        self.serving += 1
        stream: trio.abc.Stream = server
        if self.ssl_context is not None:
            stream = trio.SSLStream(
                server, self.ssl_context, server_side=True, https_compatible=True
            )
        try:
            await self._serve_requests(stream, number)
        except Reset:
            server.reset()
        except (Cut, *CLIENT_HAS_LEFT):
            pass
        finally:
            self.serving -= 1
            client.peer_closed = True
            await trio.aclose_forcefully(server)

    async def _serve_requests(self, stream: trio.abc.Stream, number: int) -> None:
        received = bytearray()
        if self.greeting:
            await stream.send_all(self.greeting)
        if not self.reads:
            await trio.sleep_forever()

        async def read_more() -> None:
            data = await stream.receive_some(65536)
            if not data:
                raise EOFError
            received.extend(data)

        while True:
            while b"\r\n\r\n" not in received:
                await read_more()
            first, *lines = bytes(received).partition(b"\r\n\r\n")[0].decode().split("\r\n")
            del received[: received.index(b"\r\n\r\n") + 4]
            pairs = (line.partition(": ") for line in lines)
            headers = {name.lower(): value for name, _, value in pairs}
            size = int(headers.get("content-length", 0))
            while len(received) < size:
                await read_more()
            method, target, _ = first.split(" ")
            body = bytes(received[:size])
            del received[:size]
            request = ClientRequest(method, target, headers, body, number, trio.current_time())
            exchange = Exchange(stream, request, bytes(received))
            if "upgrade" in headers:
                self.upgrades.append(request.at)
                await self.upgrade(exchange)
                raise Cut
            self.requests.append(request)
            await self.script(exchange)


@asynccontextmanager
async def open_peer(script: Script = Exchange.answer) -> AsyncGenerator[HTTPPeer, None]:
    """Run a server in the block, and assert that the client leaves no open stream and no task."""
    async with open_collapsing_nursery() as nursery:
        peer = HTTPPeer(nursery, script)
        yield peer
        assert peer.open_streams == 0
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def connect_http(peer: HTTPPeer, **options: Any) -> AsyncGenerator[ResponsesConnection, None]:
    """Open a connection that sends its requests to a server over HTTP."""
    if "endpoint" not in options:
        options.setdefault("base_url", "http://127.0.0.1/v1")
    options.setdefault("api_key", KEY)
    options.setdefault("reconnect", STEADY)
    options.setdefault("transport", "http")
    async with open_responses(dial=peer.dial, **options) as connection:
        yield connection


def use_tls(peer: HTTPPeer, *protocols: str, trusted: bool = True) -> dict[str, Any]:
    """Let a server use TLS; return the options of a client.

    :param protocols: what client and server offer (ALPN).
    :param trusted: whether the client trusts the server.
    """
    authority = trustme.CA()
    peer.ssl_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate = authority.issue_cert("localhost")
    certificate.configure_cert(peer.ssl_context)  # pyright: ignore[reportUnknownMemberType]
    client = ssl.create_default_context()
    if trusted:
        authority.configure_trust(client)  # pyright: ignore[reportUnknownMemberType]
    if protocols:
        peer.ssl_context.set_alpn_protocols(protocols)
        client.set_alpn_protocols(protocols)
    return {"base_url": "https://localhost/v1", "ssl_context": client}


def scripts(*steps: Script) -> Script:
    """Return a script that runs one script a request; the last one runs for all later requests."""
    waiting = list(steps)

    async def run(exchange: Exchange) -> None:
        await (waiting.pop(0) if len(waiting) > 1 else waiting[0])(exchange)

    return run


def reply(*data: bytes, then: type[Exception] | None = None) -> Script:
    """Return a script that sends bytes, and then closes or resets the stream if asked to."""

    async def run(exchange: Exchange) -> None:
        await exchange.send(*data)
        if then is not None:
            raise then

    return run


def texts(events: Iterable[Any]) -> list[str]:
    """Return the types of events."""
    return [event.type for event in events]
