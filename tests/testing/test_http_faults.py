"""Faults over HTTP: cut anywhere, stall, slow bytes, garbage, headers, gzip, broken upgrades."""

import zlib
from typing import Any

import h11
import pytest
import trio
import trio.testing

from tests.testing.driver import NO_WAITING, connect, http
from tests.testing.http_driver import RESPONSES, http_client
from trio_responses.testing import ResponsesServer, WireBytes

pytestmark = NO_WAITING

UPGRADE = (
    b"GET /v1/responses HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)
GONE = (trio.BrokenResourceError, h11.RemoteProtocolError)


async def raw_answer(server: ResponsesServer, **fields: Any) -> bytes:
    """Return the bytes that the server sends for one request, up to the end of the connection."""
    data = b""
    async with http_client(server) as client:
        await client.start(input="hi", stream=True, **fields)
        try:
            with trio.move_on_after(60):
                while received := await client.stream.receive_some():
                    data += received
        except trio.BrokenResourceError:
            data += b"RESET"
    return data


async def test_an_answer_is_cut_at_any_byte(server: ResponsesServer) -> None:
    server.reply("one")
    whole = await raw_answer(server)
    for size in range(1, len(whole), 97):
        server.reply("one").cut(after_bytes=size)
        cut = await raw_answer(server)
        assert len(cut) == size + len(b"RESET")
        assert cut.endswith(b"RESET")
        server.reply("one").cut(after_bytes=size, how="fin")
        assert len(await raw_answer(server)) == size


async def test_a_cut_counts_from_its_place(server: ResponsesServer) -> None:
    server.reply("one two").cut(after_bytes=10, after_events=2)
    async with http_client(server) as client:
        await client.start(input="hi", stream=True)
        answer = await client.cut_answer()
    assert [event.event for event in answer.sse] == ["response.created", "response.in_progress"]
    assert not answer.is_whole


async def test_a_cut_ends_a_websocket_as_well(server: ResponsesServer) -> None:
    server.reply("one two").cut(after_bytes=10, after_events=2)
    async with connect(server) as client:
        await client.send(input="hi")
        assert [(await client.receive())["type"] for _ in range(2)] == [
            "response.created",
            "response.in_progress",
        ]
        assert await client.close_code() == 1006


@pytest.mark.parametrize("how", ["reset", "fin", 1011])
@pytest.mark.parametrize("streamed", [True, False])
async def test_a_drop_ends_the_connection(
    server: ResponsesServer, how: Any, *, streamed: bool
) -> None:
    server.drop(after_events=3, how=how)
    async with http_client(server) as client:
        await client.start(input="hi", stream=streamed)
        if streamed:
            assert len((await client.cut_answer()).events) == 3
        else:
            with pytest.raises(GONE):
                await client.answer()
    await trio.testing.wait_all_tasks_blocked()
    assert server.statistics().active == 0


async def test_a_half_open_connection_is_silent(server: ResponsesServer) -> None:
    server.half_open(after_events=2)
    async with http_client(server) as client:
        await client.start(input="hi", stream=True)
        answer = await client.head()
        for _ in range(2):
            await client.piece(answer)
        with trio.move_on_after(1000) as scope:
            await client.piece(answer)
    assert scope.cancelled_caught


async def test_bytes_are_written_slowly(server: ResponsesServer) -> None:
    server.reply("one").slow_writes(piece=1, delay=0.1)
    async with http_client(server) as client:
        answer = await client.post(input="hi", stream=True)
    assert answer.events[-1]["type"] == "response.completed"
    assert trio.current_time() > len(answer.body) / 10


async def test_text_and_bytes_are_sent_as_they_are(server: ResponsesServer) -> None:
    script = server.reply("one")
    script.inject(b": ping\r\n\r\n", after_events=1)
    script.inject("{broken\njson", after_events=2)
    script.inject(b"data: [DONE]\n\n", after_events=None)
    async with http_client(server) as client:
        answer = await client.post(input="hi", stream=True)
    assert b"\n\n: ping\r\n\r\nevent: response.in_progress\n" in answer.body
    assert b"\n\ndata: {broken\ndata: json\n\n" in answer.body
    assert answer.body.endswith(b"\n\ndata: [DONE]\n\n")
    assert (answer.sse[-1].data, answer.sse[-1].event) == ("[DONE]", "message")


async def test_bytes_below_http_break_the_framing(server: ResponsesServer) -> None:
    server.reply("one").inject(WireBytes(b"no chunk size\r\n"), after_events=2)
    async with http_client(server) as client:
        await client.start(input="hi", stream=True)
        answer = await client.cut_answer()
    assert len(answer.events) == 2


async def test_an_informational_answer_comes_first(server: ResponsesServer) -> None:
    server.reply("one").inject(WireBytes(b"HTTP/1.1 103 Early Hints\r\n\r\n"))
    async with http_client(server) as client:
        answer = await client.post(input="hi", stream=True)
    assert [event.status_code for event in answer.extra] == [103]  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
    assert answer.is_whole


async def test_a_body_that_is_no_response(server: ResponsesServer) -> None:
    server.answer([b"<html>not the API</html>"]).with_headers({"Content-Type": "text/html"})
    async with http_client(server) as client:
        answer = await client.post(input="hi")
    assert (answer.status, answer.headers["content-type"]) == (200, "text/html")
    assert answer.body == b"<html>not the API</html>"


@pytest.mark.parametrize("streamed", [True, False])
async def test_headers_are_added_and_replaced(server: ResponsesServer, *, streamed: bool) -> None:
    server.reply("one").with_headers(
        {"x-ratelimit-remaining-requests": "7", "Content-Type": "text/plain", "X-Request-Id": "r"}
    )
    async with http_client(server) as client:
        answer = await client.post(input="hi", stream=streamed)
        other = await client.post(input="hi", stream=streamed)
    assert answer.headers["x-ratelimit-remaining-requests"] == "7"
    assert answer.headers["content-type"] == "text/plain"
    assert answer.headers["x-request-id"] == "r"
    assert other.headers["x-request-id"] == "req_000000000000000000000002"
    assert "x-ratelimit-remaining-requests" not in other.headers


@pytest.mark.parametrize("streamed", [True, False])
async def test_headers_do_nothing_over_websocket(
    server: ResponsesServer, *, streamed: bool
) -> None:
    server.reply("one").with_headers({"x-ratelimit-remaining-requests": "7"})
    async with connect(server) as client:
        await client.response(input="hi", stream=streamed)


@pytest.mark.parametrize("streamed", [True, False])
async def test_an_answer_is_compressed(server: ResponsesServer, *, streamed: bool) -> None:
    server.reply("one").with_headers({"content-encoding": "gzip"})
    async with http_client(server) as client:
        answer = await client.post(input="hi", stream=streamed)
    assert answer.headers["content-encoding"] == "gzip"
    plain = zlib.decompress(answer.body, 31)
    assert b'"status":"completed"' in plain
    assert plain.startswith(b"event: response.created" if streamed else b"{")


# Broken upgrades, while HTTP works


async def test_refused_upgrades_leave_http_alone(server: ResponsesServer) -> None:
    server.refuse(403, times=None)
    assert (await http(await server.connect_stream(), UPGRADE))[0] == 403
    async with http_client(server) as client:
        assert (await client.post(input="hi")).status == 200
    assert server.statistics().refused == 1


async def test_an_upgrade_that_is_not_answered_leaves_http_alone(server: ResponsesServer) -> None:
    server.hang_handshake()
    stream = await server.connect_stream()
    await stream.send_all(UPGRADE)
    with trio.move_on_after(100) as scope:
        await stream.receive_some()
    assert scope.cancelled_caught
    async with http_client(server) as client:
        assert (await client.post(input="hi")).status == 200
    await stream.aclose()


async def test_http_requests_are_refused_while_upgrades_work(server: ResponsesServer) -> None:
    server.refuse(503, message="busy", headers={"retry-after": "3"}, over="http", times=2)
    async with http_client(server) as client:
        refused = await client.post(input="hi")
        assert (refused.status, refused.headers["retry-after"]) == (503, "3")
        assert refused.error["message"] == "busy"
        async with connect(server) as other:
            await other.response(input="hi")
        assert (await client.get("/resp_x")).status == 503
        assert (await client.post(input="hi")).status == 200
    assert len(server.requests) == 2
    assert server.statistics().refused == 0


async def test_a_fault_for_both_counts_each(server: ResponsesServer) -> None:
    server.refuse(302, headers={"Location": "https://other.test/"}, body=b"", over="both")
    assert (await http(await server.connect_stream(), UPGRADE))[0] == 302
    async with http_client(server) as client:
        answer = await client.post(input="hi")
        assert (answer.status, answer.headers["location"]) == (302, "https://other.test/")
        assert (await client.post(input="hi")).status == 200
    server.assert_all_scripts_used()


@pytest.mark.parametrize("how", ["fin", "reset"])
async def test_an_http_request_is_dropped(server: ResponsesServer, how: Any) -> None:
    server.drop_handshake(how, over="http")
    async with http_client(server) as client:
        with pytest.raises(GONE):
            await client.post(input="hi")
    assert server.requests == []
    assert server.http_requests[0].status is None


async def test_an_http_request_is_answered_with_garbage(server: ResponsesServer) -> None:
    server.garble_handshake(b"\x00garbage", over="http")
    async with http_client(server) as client:
        with pytest.raises(h11.RemoteProtocolError):
            await client.post(input="hi")


async def test_an_http_request_is_never_answered(server: ResponsesServer) -> None:
    server.hang_handshake(over="http")
    async with http_client(server) as client:
        await client.send("GET", f"{RESPONSES}/resp_x")
        with trio.move_on_after(1000) as scope:
            await client.head()
        assert scope.cancelled_caught
    await trio.testing.wait_all_tasks_blocked()
    async with http_client(server) as client:
        assert (await client.post(input="hi")).status == 200


async def test_unused_faults_are_reported(server: ResponsesServer) -> None:
    server.refuse(503, over="http", times=2)
    with pytest.raises(AssertionError, match="for 2 HTTP requests"):
        server.assert_all_scripts_used()
    server.clear_scripts()
    server.assert_all_scripts_used()
    with pytest.raises(ValueError, match="over must be 'both' or 'websocket' or 'http'"):
        server.refuse(503, over="htpp")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def test_an_invalid_cut_is_an_error_at_once(server: ResponsesServer) -> None:
    with pytest.raises(ValueError, match="after_bytes must be 0 or more"):
        server.reply().cut(after_bytes=-1)
    with pytest.raises(ValueError, match="how must be 'reset' or 'fin'"):
        server.reply().cut(after_bytes=1, how=1011)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    server.clear_scripts()
