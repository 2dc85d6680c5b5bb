"""Turns over HTTP/2, to a small server of these tests."""

from __future__ import annotations

from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import msgspec
import trio
import trustme

from tests.connection.test_http_losses import failure
from tests.transport.http_peer import (
    HTTPPeer,
    connect_http,
    error,
    events_of,
    open_peer,
    sse,
    use_tls,
)
from tests.transport.peer import CLIENT_HAS_LEFT, KEY
from tests.turn.rig import assert_at_rest
from trio_responses import APIError, ConnectionLost, DeliveryStatus, Limits

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable
    from pathlib import Path

    import pytest


class H2Stream:
    """One request at the server, and its answer."""

    def __init__(self, peer: H2Peer, connection: Any, stream: trio.abc.Stream, number: int) -> None:
        self._peer = peer
        self._connection = connection
        self._stream = stream
        self.number = number
        self.headers: dict[str, str] = {}
        self.body = b""

    @property
    def text(self) -> str:
        fields: dict[str, Any] = msgspec.json.decode(self.body)
        return str(fields["input"])

    async def head(self, status: int = 200, kind: str = "text/event-stream") -> None:
        fields = [(":status", str(status)), ("content-type", kind)]
        self._connection.send_headers(self.number, fields)
        await self._peer.flush(self._connection, self._stream)

    async def data(self, data: bytes, *, end: bool = False) -> None:
        self._connection.send_data(self.number, data, end_stream=end)
        await self._peer.flush(self._connection, self._stream)

    async def answer(self) -> None:
        await self.head()
        await self.data(sse(*events_of(self.text)), end=True)


class H2Peer(HTTPPeer):
    """A server that runs a script for each stream of an HTTP/2 connection."""

    def __init__(
        self, nursery: trio.Nursery, answer: Callable[[H2Stream], Awaitable[object]]
    ) -> None:
        super().__init__(nursery, self._unused)
        self._tasks = nursery
        self.answer = answer
        self.received: list[H2Stream] = []
        self._sending = trio.Lock()

    async def _unused(self, exchange: object) -> None:
        raise AssertionError(exchange)

    async def flush(self, connection: Any, stream: trio.abc.Stream) -> None:
        with suppress(*CLIENT_HAS_LEFT):
            async with self._sending:
                await stream.send_all(connection.data_to_send())

    async def serve_requests(self, stream: trio.abc.Stream, number: int) -> None:  # noqa: ARG002
        config = h2.config.H2Configuration(client_side=False, header_encoding="utf-8")
        connection = h2.connection.H2Connection(config)
        connection.initiate_connection()
        await self.flush(connection, stream)
        streams: dict[int, H2Stream] = {}
        while data := await stream.receive_some(65536):
            for event in connection.receive_data(data):
                match event:
                    case h2.events.RequestReceived(stream_id=int(place)):
                        streams[place] = H2Stream(self, connection, stream, place)
                        streams[place].headers = dict(event.headers or [])  # type: ignore[arg-type]
                    case h2.events.DataReceived(stream_id=int(place)):
                        streams[place].body += event.data or b""
                        size = event.flow_controlled_length or 0
                        connection.acknowledge_received_data(size, place)
                    case h2.events.StreamEnded(stream_id=int(place)):
                        self.received.append(streams[place])
                        self._tasks.start_soon(self._answer, streams[place])
                    case _:
                        pass
            await self.flush(connection, stream)

    async def _answer(self, stream: H2Stream) -> None:
        with suppress(h2.exceptions.ProtocolError):
            await self.answer(stream)


@asynccontextmanager
async def open_h2(
    answer: Callable[[H2Stream], Awaitable[object]] = H2Stream.answer,
) -> AsyncGenerator[tuple[H2Peer, dict[str, Any]], None]:
    """Run a server in the block; yield the server and the options of a client."""
    async with trio.open_nursery() as nursery:
        peer = H2Peer(nursery, answer)
        yield peer, {**use_tls(peer, "h2", "http/1.1"), "http2": True}
        assert peer.open_streams == 0
        nursery.cancel_scope.cancel()


async def test_turns_share_one_byte_stream() -> None:
    async def slow(stream: H2Stream) -> None:
        await trio.sleep(1)
        await stream.answer()

    answers: list[str] = []
    async with open_h2(slow) as (peer, options), connect_http(peer, **options) as connection:

        async def ask(text: str) -> None:
            answers.append((await connection.create(model="m", input=text)).output_text)

        await ask("first")
        async with trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(ask, f"n{number}")
        assert trio.current_time() == 2
        assert sorted(answers[1:]) == sorted(f"n{number}" for number in range(20))
        assert len(peer.streams) == 1
        assert peer.received[0].headers["authorization"] == f"Bearer {KEY}"
        assert_at_rest(connection)


async def test_http2_is_offered_with_the_default_certificates(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async with open_h2() as (peer, options):
        authority = trustme.CA()
        assert peer.ssl_context is not None
        certificate = authority.issue_cert("localhost")
        certificate.configure_cert(peer.ssl_context)  # pyright: ignore[reportUnknownMemberType]
        file = tmp_path / "trusted.pem"
        authority.cert_pem.write_to_path(str(file))
        monkeypatch.setenv("SSL_CERT_FILE", str(file))
        del options["ssl_context"]
        async with connect_http(peer, **options) as connection:
            assert (await connection.create(model="m", input="hi")).output_text == "hi"
        assert len(peer.received) == 1


async def test_a_server_without_http2_is_used_over_http_1() -> None:
    async with open_peer() as peer:
        options = use_tls(peer)
        options["ssl_context"].set_alpn_protocols(["h2", "http/1.1"])
        async with connect_http(peer, http2=True, **options) as connection:
            assert (await connection.create(model="m", input="hi")).output_text == "ok"


async def test_leaving_a_turn_ends_no_other() -> None:
    async def half(stream: H2Stream) -> None:
        await stream.head()
        await stream.data(sse(events_of()[0]))
        await trio.sleep(5)
        if stream.text == "stay":
            await stream.data(sse(*events_of("ok")[1:]), end=True)

    async with open_h2(half) as (peer, options), connect_http(peer, **options) as connection:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: connection.create(model="m", input="stay"))
            await trio.sleep(1)
            async with connection.stream(model="m", input="leave") as stream:
                await stream.__anext__()
            await trio.sleep(1)
        assert trio.current_time() == 5
        assert_at_rest(connection)
        assert len(peer.streams) <= 2


async def test_a_lost_byte_stream_ends_all_turns() -> None:
    async def die(stream: H2Stream) -> None:
        if stream.text == "started":
            await stream.head()
            await stream.data(sse(events_of()[0]))
        await trio.sleep(1)
        peer.servers[0].reset()

    async with open_h2() as (peer, options), connect_http(peer, **options) as connection:
        assert (await connection.create(model="m", input="hi")).output_text == "hi"
        peer.answer = die
        found: dict[str, DeliveryStatus | None] = {}

        async def fail(text: str) -> None:
            caught = await failure(connection, input=text)
            assert isinstance(caught, ConnectionLost)
            found[text] = caught.delivery

        async with trio.open_nursery() as nursery:
            nursery.start_soon(fail, "started")
            nursery.start_soon(fail, "silent")
        assert found == {"started": DeliveryStatus.ACCEPTED, "silent": DeliveryStatus.AMBIGUOUS}
        peer.answer = H2Stream.answer
        assert (await connection.create(model="m", input="again")).output_text == "again"


async def test_an_error_status_ends_a_turn() -> None:
    async def refuse(stream: H2Stream) -> None:
        await stream.head(404, "application/json")
        await stream.data(msgspec.json.encode(error("No model.")), end=True)

    async with open_h2(refuse) as (peer, options), connect_http(peer, **options) as connection:
        caught = await failure(connection)
        assert isinstance(caught, APIError)
        assert (caught.status, caught.message) == (404, "No model.")


async def test_no_more_turns_than_the_limit_run_at_once() -> None:
    async def slow(stream: H2Stream) -> None:
        await trio.sleep(1)
        await stream.answer()

    async with (
        open_h2(slow) as (peer, options),
        connect_http(peer, limits=Limits(http_connections=2), **options) as connection,
    ):
        await connection.create(model="m", input="hi")
        async with trio.open_nursery() as nursery:
            for _ in range(6):
                nursery.start_soon(lambda: connection.create(model="m", input="hi"))
        assert trio.current_time() == 4


async def test_turns_may_be_cancelled_at_any_time() -> None:
    async with open_h2() as (peer, options), connect_http(peer, **options) as connection:
        for step in range(40):
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(lambda: connection.create(model="m", input="x"))
                    for _ in range(step):
                        await trio.lowlevel.checkpoint()
                    scope.cancel()
            with trio.fail_after(10):
                assert (await connection.create(model="m", input="hi")).output_text == "hi"
            await trio.sleep(10)
            assert_at_rest(connection)
            assert peer.open_streams <= 1
