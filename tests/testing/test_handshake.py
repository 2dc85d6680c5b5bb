"""The upgrade: keys, paths, invalid requests and handshake faults."""

import msgspec
import pytest
import trio
import trio.testing
from trio_websocket import ConnectionRejected

from tests.testing.driver import NO_WAITING, Json, connect, http
from trio_responses.testing import How, ResponsesServer, open_test_server

pytestmark = NO_WAITING

UPGRADE = (
    b"Host: x\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
)


def request(target: str = "/v1/responses", headers: bytes = UPGRADE) -> bytes:
    return b"GET " + target.encode() + b" HTTP/1.1\r\n" + headers + b"\r\n"


async def ask(server: ResponsesServer, data: bytes) -> tuple[int, Json]:
    status, headers, body = await http(await server.connect_stream(), data)
    assert headers["content-type"] == "application/json"
    value: Json = msgspec.json.decode(body)
    return status, value["error"]


async def status_with(server: ResponsesServer, headers: dict[str, str]) -> int:
    try:
        async with connect(server, headers=headers) as client:
            await client.response(input="hi")
            return 101
    except* ConnectionRejected as group:
        statuses = [e.status_code for e in group.exceptions if isinstance(e, ConnectionRejected)]
    return statuses[0]


async def test_a_server_without_a_key_accepts_any_key_and_none(server: ResponsesServer) -> None:
    assert await status_with(server, {}) == 101
    assert await status_with(server, {"Authorization": "Bearer anything"}) == 101
    assert (await ask(server, request(headers=UPGRADE + b"Authorization: Bearer\r\n")))[0] == 401
    assert await status_with(server, {"Authorization": "Basic eDp5"}) == 401


async def test_a_server_with_a_key_accepts_only_this_key() -> None:
    async with open_test_server(api_key="sk-right") as server:
        assert await status_with(server, {"Authorization": "Bearer sk-right"}) == 101
        assert await status_with(server, {"api-key": "sk-right"}) == 101
        assert await status_with(server, {"Authorization": "Bearer sk-wrong"}) == 401
        assert await status_with(server, {}) == 401
        status, error = await ask(server, request())
        assert (status, error["code"]) == (401, "invalid_api_key")
        assert server.statistics().refused == 3
        assert "sk-right" not in repr(server)
        assert "sk-right" not in repr(server.connections)


@pytest.mark.parametrize("path", ["/v1/responses", "/openai/v1/responses", "/v1/responses?a=b"])
async def test_every_path_that_ends_in_responses_upgrades(
    server: ResponsesServer, path: str
) -> None:
    async with connect(server, path=path, headers={"X-Own": "1"}) as client:
        await client.response(input="hi")
    assert server.connections[0].path == path
    assert server.connections[0].headers["x-own"] == "1"
    assert server.connections[0].status == 101


@pytest.mark.parametrize("path", ["/v1/realtime", "/responses", "/v1/v1", "/v1/responses/"])
async def test_other_paths_are_not_found(server: ResponsesServer, path: str) -> None:
    status, error = await ask(server, request(path))
    assert (status, error["code"]) == (404, "not_found")


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [("GET", "/v1/responses", 426), ("POST", "/v1/responses", 426), ("GET", "/v1/models", 404)],
)
async def test_a_server_without_http_answers_plain_http_requests_with_426(
    method: str, path: str, expected: int
) -> None:
    body = b'{"model": "m"}'
    head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
    async with open_test_server(transport="websocket") as server:
        status, error = await ask(server, head.encode() + body)
        assert status == expected
        assert error["type"] == "invalid_request_error"
        assert server.connections[0].method == method
        assert server.requests == []


@pytest.mark.parametrize(
    "data", [b"\x16\x03\x01\r\n\r\n", b"hello\r\n\r\n", b"GET / FTP/1\r\n\r\n"]
)
async def test_bytes_that_are_not_http_get_status_400(server: ResponsesServer, data: bytes) -> None:
    status, _ = await ask(server, data)
    assert status == 400


async def test_an_upgrade_that_trio_websocket_refuses_does_not_hang(
    server: ResponsesServer,
) -> None:
    stream = await server.connect_stream()
    await stream.send_all(request(headers=UPGRADE.replace(b"13", b"99")))
    with trio.fail_after(5):
        while await stream.receive_some():
            pass
    await trio.testing.wait_all_tasks_blocked()
    assert server.connections[0].status == 400
    await stream.aclose()


async def test_a_client_may_leave_before_its_request_head_ends(
    server: ResponsesServer,
) -> None:
    for data in (b"", b"GET /v1/resp", request()):
        stream = await server.connect_stream()
        await stream.send_all(data)
        await stream.aclose()
    await trio.testing.wait_all_tasks_blocked()
    assert server.statistics().handshakes == 3
    assert server.statistics().open == 0


async def test_refuse_applies_to_the_given_number_of_handshakes(server: ResponsesServer) -> None:
    server.refuse(503, times=2)
    server.refuse(429, code="rate_limit_exceeded", headers={"Retry-After": "7"})
    statuses = [await status_with(server, {}) for _ in range(4)]
    assert statuses == [503, 503, 429, 101]


async def test_a_refusal_has_the_given_headers_and_body(
    server: ResponsesServer,
) -> None:
    server.refuse(429, code="rate_limit_exceeded", message="slow", headers={"Retry-After": "7"})
    server.refuse(502, body=b"<html>bad gateway</html>", headers={"Content-Type": "text/html"})
    status, headers, body = await http(await server.connect_stream(), request())
    assert (status, headers["retry-after"]) == (429, "7")
    assert msgspec.json.decode(body)["error"] == {
        "type": "rate_limit_error",
        "code": "rate_limit_exceeded",
        "message": "slow",
        "param": None,
    }
    status, headers, body = await http(await server.connect_stream(), request())
    assert (status, headers["content-type"], body) == (
        502,
        "text/html",
        b"<html>bad gateway</html>",
    )


async def test_a_handshake_can_get_no_answer(server: ResponsesServer) -> None:
    server.hang_handshake()
    stream = await server.connect_stream()
    await stream.send_all(request())
    with trio.move_on_after(1000) as scope:
        await stream.receive_some()
    assert scope.cancelled_caught
    await stream.aclose()


async def test_a_handshake_can_end_in_a_fin_a_reset_or_garbage(server: ResponsesServer) -> None:
    server.drop_handshake()
    server.drop_handshake("reset")
    server.garble_handshake(b"\x00\x01garbage")
    answers: list[object] = []
    for _ in range(3):
        stream = await server.connect_stream()
        await stream.send_all(request())
        try:
            answers.append(await stream.receive_some())
        except trio.BrokenResourceError:
            answers.append("reset")
        await stream.aclose()
    assert answers == [b"", "reset", b"\x00\x01garbage"]


@pytest.mark.parametrize(("how", "code"), [("fin", 1006), ("reset", 1006), (1008, 1008)])
async def test_a_connection_can_be_dropped_right_after_the_upgrade(
    server: ResponsesServer, how: How, code: int
) -> None:
    server.drop_on_accept(how, times=None)
    for _ in range(3):
        stream = await server.connect_stream()
        await stream.send_all(request())
        seen = b""
        try:
            while received := await stream.receive_some():
                seen += received
        except trio.BrokenResourceError:
            assert how == "reset"
        await stream.aclose()
        if how != "reset":
            assert seen.startswith(b"HTTP/1.1 101")
    await trio.testing.wait_all_tasks_blocked()
    assert [c.close_code for c in server.connections] == [code] * 3
    server.clear_scripts()
    async with connect(server) as client:
        await client.response(input="hi")


async def test_a_server_can_stop_accepting_for_a_while(server: ResponsesServer) -> None:
    server.stop_accepting()
    with pytest.raises(ConnectionRefusedError):
        await server.dial("api.example", 443)
    server.accept_again()
    async with connect(server, stream=await server.dial("api.example", 443)) as client:
        await client.response(input="hi")
