"""The lifetime of the server, and connections over real sockets."""

import ssl
from typing import Any

import pytest
import trio
import trio.testing
import trustme

from tests.testing.driver import connect, http, text_of
from tests.testing.http_driver import http_client
from trio_responses.testing import ResponsesServer, open_test_server


async def test_the_end_of_the_block_ends_all_connections(server: ResponsesServer) -> None:
    async with open_test_server() as inner:
        stream = await inner.connect_stream()
        await trio.testing.wait_all_tasks_blocked()
    assert await stream.receive_some() == b""
    assert server.statistics().handshakes == 0


async def test_an_exception_in_the_block_is_not_wrapped_in_a_group() -> None:
    mine = KeyError("mine")

    async def fail() -> None:
        async with open_test_server() as server:
            await server.connect_stream()
            raise mine

    with pytest.raises(KeyError) as caught:
        await fail()
    assert caught.value is mine
    assert mine.__cause__ is None
    assert mine.__context__ is None


async def test_the_block_can_be_cancelled() -> None:
    with trio.CancelScope() as scope:
        async with open_test_server() as server, connect(server):
            scope.cancel()
            await trio.sleep_forever()
    assert scope.cancelled_caught


async def test_a_crash_on_one_connection_spares_the_others() -> None:
    async with open_test_server() as server, connect(server) as client:
        # Bytes that are no request head, then frames that violate the WebSocket protocol.
        stream = await server.connect_stream()
        await stream.send_all(
            b"GET /v1/responses HTTP/1.1\r\nHost: \xff\x00\r\nUpgrade: websocket\r\n"
            b"Connection: Upgrade\r\nSec-WebSocket-Key: x\r\n\r\n\xff\xff\xff\xff"
        )
        await trio.testing.wait_all_tasks_blocked()
        await client.response(input="hi")
        await stream.aclose()


async def test_the_statistics_count_connections_and_requests(server: ResponsesServer) -> None:
    async with connect(server) as client:
        await client.response(input="hi")
        server.fail()
        await client.error(input="hi")
        now = server.statistics()
    assert (now.handshakes, now.open, now.requests, now.responses) == (1, 1, 2, 1)
    assert (now.active, now.max_active, now.errors, now.refused) == (0, 1, 0, 0)
    assert "requests=2" in repr(server)


@pytest.mark.parametrize(
    ("port", "error", "message"),
    [
        ("127.0.0.1", TypeError, "must be an integer, not '127.0.0.1': the host is the second"),
        (65536, ValueError, "from 0 to 65535, not 65536"),
        (-1, ValueError, "from 0 to 65535, not -1"),
    ],
)
async def test_a_wrong_port_is_refused(
    server: ResponsesServer, port: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        await server.serve_tcp(port)


async def test_the_server_serves_over_tcp() -> None:
    async with open_test_server() as server:
        assert server.url == "http://localhost/v1"
        url = await server.serve_tcp()
        assert url == server.url
        port = int(url.removeprefix("http://127.0.0.1:").removesuffix("/v1"))
        assert server.websocket_url == f"ws://127.0.0.1:{port}/v1/responses"
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        async with connect(server, stream=stream) as client:
            assert text_of(await client.response(input="hi")) == 'Turn 1: you said "hi".'
        plain = await trio.open_tcp_stream("127.0.0.1", port)
        status, _, _ = await http(
            plain,
            b"POST /v1/responses HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
            b"Content-Length: 26\r\n\r\n"
            b'{"model":"m","input":"hi"}',
        )
        assert status == 200


async def test_the_server_serves_http_over_tls() -> None:
    authority = trustme.CA()
    server_side = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(server_side)  # pyright: ignore[reportUnknownMemberType]
    client_side = ssl.create_default_context()
    authority.configure_trust(client_side)  # pyright: ignore[reportUnknownMemberType]
    async with open_test_server() as server:
        await server.serve_tcp(host="localhost", ssl_context=server_side)
        port = int(server.url.split(":")[2].split("/")[0])
        stream = await trio.open_ssl_over_tcp_stream("localhost", port, ssl_context=client_side)
        async with http_client(server, stream) as client:
            await client.create(input="hi")
            events = await client.stream_events(input="hi")
    assert events[-1]["type"] == "response.completed"


async def test_a_reset_over_tcp_is_a_reset() -> None:
    async with open_test_server() as server:
        server.drop_handshake("reset")
        url = await server.serve_tcp()
        stream = await trio.open_tcp_stream("127.0.0.1", int(url.split(":")[2].split("/")[0]))
        await stream.send_all(b"GET /v1/responses HTTP/1.1\r\nUpgrade: websocket\r\n\r\n")
        with pytest.raises(trio.BrokenResourceError):
            await stream.receive_some()
        await stream.aclose()


@pytest.mark.parametrize("how", ["reset", "fin", 1012])
async def test_a_drop_over_tcp_ends_the_socket(how: str | int) -> None:
    async with open_test_server() as server:
        server.drop(after_events=2, how=how)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        url = await server.serve_tcp()
        stream = await trio.open_tcp_stream("127.0.0.1", int(url.split(":")[2].split("/")[0]))
        with trio.fail_after(300):  # guards against a hang
            async with connect(server, stream=stream) as client:
                await client.send(input="hi")
                assert await client.close_code() == (how if isinstance(how, int) else 1006)


async def test_the_server_serves_over_tls() -> None:
    authority = trustme.CA()
    server_context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(server_context)  # pyright: ignore[reportUnknownMemberType]
    client_context = ssl.create_default_context()
    authority.configure_trust(client_context)  # pyright: ignore[reportUnknownMemberType]
    async with open_test_server() as server:
        url = await server.serve_tcp(ssl_context=server_context)
        assert url.startswith("https://")
        assert server.websocket_url.startswith("wss://")
        stream = await trio.open_ssl_over_tcp_stream(
            "127.0.0.1", int(url.split(":")[2].split("/")[0]), ssl_context=client_context
        )
        stream = trio.SSLStream(
            stream.transport_stream, client_context, server_hostname="localhost"
        )
        async with connect(server, stream=stream) as client:
            await client.response(input="hi")
