"""A server in memory that answers every turn, except for the fault of its cell."""

from __future__ import annotations

from collections import deque
from contextlib import asynccontextmanager, suppress
from functools import cache
from typing import TYPE_CHECKING, Any, Final, Literal

import msgspec
import trio
import trustme

from tests.faults.cells import KEEPALIVE, STEADY, THE_TURN, TIMEOUTS
from tests.transport.http_peer import (
    CHUNKED,
    END,
    ClientStream,
    Cut,
    HTTPPeer,
    chunk,
    serve_websocket,
    sse,
)
from tests.transport.peer import CLIENT_HAS_LEFT, CLOSE, PING, PONG, TEXT, Peer, close, frame, text
from tests.transport.proxies import ESTABLISHED, secured, server_context, trusting
from tests.turn.rig import created, delta, ended, item_done, message
from trio_responses import Endpoint, Limits, open_responses
from trio_responses._transport.proxy import Proxy
from trio_responses._transport.tunnel import Tunnel
from trio_responses.testing import MemoryStream, memory_connection

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
    from contextlib import AbstractAsyncContextManager

    from tests.faults.cells import Action
    from tests.transport.http_peer import Exchange
    from trio_responses import ResponsesConnection

Json = dict[str, Any]
Route = Literal["plain", "proxy", "tls"]
Transport = Literal["websocket", "http", "auto"]

AUTHORITY: Final = trustme.CA()
HOST: Final = "models.test"
LIMITS: Final = Limits(max_message_bytes=50_000)


@cache
def trust() -> ssl.SSLContext:
    """Return the client's context, made once, because that takes 30 ms."""
    return trusting(AUTHORITY)


def text_of(command: Json) -> str:
    """Return the text of a request: its input, or the last item of its input."""
    given: Any = command.get("input", "")
    content = given if isinstance(given, str) else given[-1]["content"]
    return str(content).partition(" ...")[0]


def answer_to(words: str) -> str:
    """Return the answer to a text."""
    return f"You said {words}."


class ServerPeer(Peer):
    """The server's end of one socket."""

    def __init__(self, stream: trio.abc.Stream, net: FakeNet, number: int) -> None:
        super().__init__(stream)
        self.net = net
        self.number = number
        self.wire = stream
        """The stream below TLS."""
        self.command: Json = {}
        """The command that was read last."""
        self.deaf = False
        """Whether nothing more is read."""
        self.has_closed = False
        """Whether a close frame was sent."""
        self.response_id = ""
        """The id of the latest response."""
        self._given: set[str] = set()

    # --- Reading -------------------------------------------------------------------------

    async def serve(self, action: Action | None = None) -> None:
        """Answer every turn, and run the action once, for the turn that meets the fault.

        A fault while a request is written happens after the answer to the first turn.
        """
        while True:
            await self.read_command()
            met = action is not None and text_of(self.command) == THE_TURN
            if not met:
                await self.answer()
            if action is not None and (met or self.net.while_written):
                action_now, action = action, None
                await action_now(self)

    async def read_command(self) -> Json:
        """Read to the next command; answer pings and closes meanwhile."""
        while True:
            received = await self.read_frame()
            if self.deaf:
                await trio.sleep_forever()
            if received.opcode == CLOSE:
                if not self.has_closed:
                    await self.send(close(received.code))
                await self.stream.aclose()
                raise EOFError
            if received.opcode == PING:
                await self.send(frame(PONG, received.payload))
            elif received.opcode == TEXT:
                self.command = msgspec.json.decode(received.payload)
                self._note(self.command)
                if not self.has_closed:
                    return self.command

    async def read_to_the_close(self) -> None:
        """Read to the client's close frame, and leave it unanswered."""
        while True:
            received = await self.read_frame()
            if received.opcode == CLOSE:
                assert received.code == 1000
                return
            if received.opcode == TEXT:
                self.command = msgspec.json.decode(received.payload)
                await self.begin()

    def _note(self, command: Json) -> None:
        """Record a request, and whether its parent is a response of this socket (P7)."""
        self.net.commands.append((self.number, command))
        parent = command.get("previous_response_id")
        if parent is not None and parent not in self._given:
            self.net.unknown_parents.append(parent)

    # --- Answering -----------------------------------------------------------------------

    async def say(self, *events: Json) -> None:
        """Send events, all in one write."""
        await self.send(self.encode(*events))

    def encode(self, *events: Json) -> bytes:
        """Return events as frames, on the lane of the command."""
        lane = {"stream_id": self.command["stream_id"]} if "stream_id" in self.command else {}
        return b"".join(text(msgspec.json.encode({**event, **lane})) for event in events)

    def events(self) -> list[Json]:
        """Return the events that answer the command."""
        words = answer_to(text_of(self.command))
        self.response_id = self.net.new_id()
        item = message(words, f"msg_{self.response_id}")
        events = [
            created(self.response_id),
            {**created(self.response_id), "type": "response.in_progress"},
            delta(words[:4], item_id=item["id"]),
            delta(words[4:], item_id=item["id"]),
            item_done(item),
            ended([item], self.response_id),
        ]
        return [{**event, "sequence_number": n} for n, event in enumerate(events)]

    async def answer(self) -> None:
        """Send the whole answer to the command."""
        await self.say(*self.events())
        self._given.add(self.response_id)

    async def begin(self) -> list[Json]:
        """Send the first events of an answer, and return the others."""
        events = self.events()
        await self.say(*events[:3])
        return events[3:]

    async def finish(self, rest: Sequence[Json]) -> None:
        """Send the rest of an answer."""
        await self.say(*rest)
        self._given.add(self.response_id)

    # --- Ending --------------------------------------------------------------------------

    async def read_some(self) -> None:
        """Read once, and keep the bytes for the next frame."""
        await self._read_more()

    async def wait_written(self) -> None:
        """Wait for the first bytes of a request."""
        if not self._received:
            await self._read_more()

    def stop_taking(self) -> None:
        """Let every write of the client fail, without an end that the client could read."""
        assert isinstance(self.wire, MemoryStream)
        # Private: `MemoryStream` has resets and ends, which the client would read as well.
        pipe = self.wire._incoming
        pipe.receiver_closed = True
        pipe.wake()

    def reset(self) -> None:
        """Send a TCP RST."""
        assert isinstance(self.wire, MemoryStream)
        self.wire.reset()

    async def send_eof(self) -> None:
        """Send a TCP FIN."""
        assert isinstance(self.wire, MemoryStream)
        await self.wire.send_eof()


class FakeNet:
    """A network of one server: all sockets of one test, in the order of the dials."""

    def __init__(
        self, nursery: trio.Nursery, route: Route, capacity: int | None, transport: Transport
    ) -> None:
        self._nursery = nursery
        self.transport: Transport = transport
        self._route: Route = route
        self._capacity = capacity
        self._ids = 0
        self.peers: list[ServerPeer] = []
        self.clients: list[MemoryStream] = []
        self.streams: list[ClientStream] = []
        """The streams of the client over HTTP."""
        self.dialled: list[float] = []
        """The times of the dials."""
        self.commands: list[tuple[int, Json]] = []
        """The commands that were received whole, with the numbers of their sockets."""
        self.while_written = False
        """Whether the faults happen while a request is written."""
        self.unknown_parents: list[str] = []
        """Parents that a request named on a socket that did not know them."""
        self.dial_faults: deque[Callable[[], Awaitable[object]]] = deque()
        """The faults of the next dials."""
        self.faults: deque[Action] = deque()
        """The faults of the next sockets, in place of the upgrade."""
        self.actions: deque[Action] = deque()
        """The faults of the next sockets, at the turn that meets the fault."""

    def new_id(self) -> str:
        self._ids += 1
        return f"resp_{self._ids}"

    def times_asked(self, words: str = THE_TURN) -> int:
        """Count how often a request came in whole."""
        creates = (one for _, one in self.commands if one["type"] == "response.create")
        return sum(text_of(command) == words for command in creates)

    async def dial(self, host: str, port: int) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        assert host
        assert port
        self.dialled.append(trio.current_time())
        if self.dial_faults:
            await self.dial_faults.popleft()()
        client, server = memory_connection(self._capacity)
        peer = ServerPeer(server, self, len(self.peers) + 1)
        self.clients.append(client)
        self.peers.append(peer)
        self._nursery.start_soon(self._run, peer)
        self.streams.append(ClientStream(client))
        return client if self.transport == "websocket" else self.streams[-1]

    def end_idle(self) -> None:
        """Close the latest stream, so that the client sees it before it sends a request."""
        self.peers[-1].reset()
        self.streams[-1].peer_closed = True

    async def _run(self, peer: ServerPeer) -> None:
        with suppress(*CLIENT_HAS_LEFT):
            if self.faults:
                await self.faults.popleft()(peer)
            await self.greet(peer)
            await self.serve(peer)
        await trio.aclose_forcefully(peer.wire)

    async def serve(self, peer: ServerPeer) -> None:
        """Serve a stream to its end, once a proxy and TLS were passed."""
        if self.transport == "websocket":
            await peer.accept()
            await peer.serve(self.actions.popleft() if self.actions else None)
            return

        async def answer(exchange: Exchange) -> None:
            peer.command = exchange.request.json
            self.commands.append((peer.number, {"type": "response.create", **peer.command}))
            await exchange.send(CHUNKED, chunk(sse(*peer.events())), END)

        http = HTTPPeer(self._nursery, answer)
        http.upgrade = serve_websocket
        with suppress(Cut):
            await http.serve_requests(peer.stream, peer.number)

    async def greet(self, peer: ServerPeer) -> None:
        """Answer CONNECT or do the TLS handshake, before the upgrade."""
        if self._route == "proxy":
            await peer.read_head()
            await peer.send(ESTABLISHED)
        elif self._route == "tls":
            peer.stream = (await secured(peer, server_context(AUTHORITY, HOST))).stream

    def open_client(
        self, *, silent_after_error: bool = False, **options: Any
    ) -> AbstractAsyncContextManager[ResponsesConnection]:
        """Open a connection to the server, with the times of `cells.py`."""
        secure = self._route == "tls"
        endpoint = Endpoint.compatible(
            f"wss://{HOST}/v1" if secure else "ws://127.0.0.1/v1",
            lanes=not silent_after_error,
            after_error="replace" if silent_after_error else "reuse",
        )
        proxied = self._route == "proxy"
        # `Tunnel` is private: the option ``proxy=`` dials TCP, and these streams are in memory.
        settings: Any = {
            "api_key": "",
            "dial": Tunnel(Proxy.of("http://proxy.test:3128"), self.dial) if proxied else self.dial,
            "ssl_context": trust() if secure else None,
            "reconnect": STEADY,
            "timeouts": TIMEOUTS,
            "keepalive": KEEPALIVE,
            "limits": LIMITS,
            "transport": self.transport,
        }
        return open_responses(endpoint=endpoint, **{**settings, **options})


@asynccontextmanager
async def open_fake_net(
    route: Route = "plain", *, capacity: int | None = None, transport: Transport = "websocket"
) -> AsyncGenerator[FakeNet, None]:
    """Open a network for the length of a block."""
    async with trio.open_nursery() as nursery:
        yield FakeNet(nursery, route, capacity, transport)
        nursery.cancel_scope.cancel()
