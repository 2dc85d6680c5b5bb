"""Faults that a test injects, and the limits of the server."""

import pytest
import trio
import trio.testing
from trio_websocket import ConnectionClosed

from tests.testing.driver import NO_WAITING, Client, Json, connect, text_of
from trio_responses.testing import How, ResponsesServer, WireBytes, open_test_server

pytestmark = NO_WAITING


async def read_until_closed(client: Client) -> list[Json]:
    events: list[Json] = []
    try:
        while True:
            events.append(await client.receive())
    except ConnectionClosed:
        return events


@pytest.mark.parametrize(("how", "code"), [("reset", 1006), ("fin", 1006), (1012, 1012)])
@pytest.mark.parametrize("count", [0, 3])
async def test_a_connection_drops_at_the_nth_event(
    server: ResponsesServer, how: How, code: int, count: int
) -> None:
    server.drop(after_events=count, how=how, reason="bye" if code == 1012 else "")
    async with connect(server) as client:
        await client.send(input="hi")
        assert len(await read_until_closed(client)) == count
        assert await client.close_code() == code
    assert server.connections[0].close_code == code
    async with connect(server) as client:
        await client.response(input="the next connection is well")


async def test_a_connection_can_drop_right_after_the_last_event(server: ResponsesServer) -> None:
    server.reply("done").drop(after_events=None, how=1001)
    async with connect(server) as client:
        await client.send(input="hi")
        events = await read_until_closed(client)
    assert events[-1]["type"] == "response.completed"
    async with connect(server) as client:
        await client.response(input="more", previous_response_id=events[-1]["response"]["id"])


async def test_a_stalled_response_continues_after_the_stall(server: ResponsesServer) -> None:
    server.stall(after_events=2, seconds=60)
    async with connect(server) as client:
        started = trio.current_time()
        await client.response(input="hi")
        assert trio.current_time() - started == pytest.approx(60)


async def test_a_stall_forever_answers_pings_and_spares_other_lanes(
    server: ResponsesServer,
) -> None:
    server.stall(after_events=2)
    async with connect(server) as client:
        await client.send(input="hi", stream_id="a")
        assert [(await client.receive())["type"] for _ in range(2)][-1] == "response.in_progress"
        with trio.fail_after(5):
            await client.websocket.ping()
        await client.response(input="hi", stream_id="b")


@pytest.mark.parametrize("at_once", [True, False])
async def test_a_half_open_connection_neither_reads_nor_writes(
    server: ResponsesServer, *, at_once: bool
) -> None:
    async with connect(server) as client:
        if at_once:
            server.freeze_all()
        else:
            server.half_open(after_events=1)
        await client.send(input="hi")
        if not at_once:
            assert (await client.receive())["type"] == "response.created"
        with trio.move_on_after(1000) as scope:
            await client.websocket.ping()
        assert scope.cancelled_caught
        assert client.websocket.closed is None
        with trio.move_on_after(1000) as scope:
            await client.receive()
        assert scope.cancelled_caught


async def test_slow_writes_deliver_every_byte(server: ResponsesServer) -> None:
    server.reply("slow").slow_writes(piece=10, delay=1)
    async with connect(server) as client:
        started = trio.current_time()
        assert text_of(await client.response(input="hi")) == "slow"
        assert trio.current_time() - started > 100


async def test_injected_frames_come_between_the_events(server: ResponsesServer) -> None:
    server.reply("hi").inject({"type": "keepalive", "sequence_number": 1}, after_events=1).inject(
        "{broken", after_events=2
    ).inject(b"binary", after_events=2)
    async with connect(server) as client:
        await client.send(input="hi")
        assert (await client.receive())["type"] == "response.created"
        assert await client.receive() == {"type": "keepalive", "sequence_number": 1}
        assert (await client.receive())["type"] == "response.in_progress"
        assert await client.websocket.get_message() == "{broken"
        assert await client.websocket.get_message() == b"binary"
        assert (await client.events())[-1]["type"] == "response.completed"


async def test_invalid_utf8_can_be_sent_as_a_text_frame(server: ResponsesServer) -> None:
    server.reply("hi").inject(WireBytes.frame(b"\xff\xfe"), after_events=1)
    async with connect(server) as client:
        await client.send(input="hi")
        assert len(await read_until_closed(client)) == 1
        assert await client.close_code() in {1006, 1007}


@pytest.mark.parametrize("size", [0, 125, 126, 65535, 65536])
async def test_a_hand_made_frame_of_any_size_is_valid(server: ResponsesServer, size: int) -> None:
    async with connect(server) as client:
        await server.send_raw(WireBytes.frame(b"x" * size))
        assert await client.websocket.get_message() == "x" * size


async def test_a_message_can_exceed_the_limit_of_the_client(server: ResponsesServer) -> None:
    async with connect(server) as client:
        await server.send_raw("x" * (1 << 20) + "y")
        assert await client.close_code() == 1009


async def test_send_raw_reaches_all_connections_or_one(server: ResponsesServer) -> None:
    limits = {"type": "codex.rate_limits", "plan_type": "pro"}
    async with connect(server) as one, connect(server) as two:
        await server.send_raw(limits)
        await server.send_raw("{}", connection=2)
        assert await one.receive() == limits
        assert await two.receive() == limits
        assert await two.receive() == {}


async def test_all_connections_can_be_closed_reset_or_hung_up(server: ResponsesServer) -> None:
    async with connect(server) as one, connect(server) as two:
        await server.close_all(1013, "try later")
        assert await one.close_code() == await two.close_code() == 1013
        assert one.websocket.closed is not None
        assert one.websocket.closed.reason == "try later"
    async with connect(server) as one:
        await server.reset_all()
        assert await one.close_code() == 1006
    async with connect(server) as one:
        await server.hang_up_all()
        assert await one.close_code() == 1006
    assert server.statistics().open == 0
    assert server.statistics().max_open == 2


async def test_the_close_code_of_the_client_is_recorded(server: ResponsesServer) -> None:
    async with connect(server) as client:
        await client.websocket.aclose(1000, "done")
    async with connect(server) as client:
        await trio.aclose_forcefully(client.stream)
    await trio.testing.wait_all_tasks_blocked()
    ends = [(c.close_code, c.close_reason) for c in server.connections]
    assert ends == [(1000, "done"), (1006, None)]


async def test_a_request_over_the_size_limit_closes_the_connection_with_1009() -> None:
    async with open_test_server(max_message_size=1000) as server:
        async with connect(server) as client:
            await client.response(input="x" * 500)
            await client.send(input="x" * 1000)
            assert await client.close_code() == 1009
        assert server.connections[0].close_code == 1009
        assert len(server.requests) == 1


async def test_a_request_may_have_one_byte_less_than_sixteen_mebibytes(
    server: ResponsesServer,
) -> None:
    limit = 16 * 1024 * 1024
    content = '[{"type":"input_image","image_url":"data:image/png;base64,%s"}]'
    item = f'{{"role":"user","content":{content}}}'
    frame = f'{{"type":"response.create","model":"m","input":[{item}]}}'
    overhead = len(frame) - 2
    async with connect(server) as client:
        await client.send_frame(frame % ("x" * (limit - 1 - overhead)))
        assert (await client.receive())["type"] == "response.created"
    async with connect(server) as client:
        await client.send_frame(frame % ("x" * (limit - overhead)))
        assert await client.close_code() == 1009


async def test_a_connection_at_its_maximum_age_gets_an_error_and_is_closed(
    server: ResponsesServer,
) -> None:
    async with connect(server) as client:
        started = trio.current_time()
        await client.response(input="hi")
        frame = await client.receive()
        assert trio.current_time() - started == pytest.approx(3600)
        assert await client.close_code() == 1000
    assert frame["status"] == 400
    assert frame["error"]["code"] == "websocket_connection_limit_reached"
    assert "(60 minutes)" in frame["error"]["message"]


async def test_the_age_limit_cuts_off_a_running_response(server: ResponsesServer) -> None:
    server.reply("never ends").stall(after_events=4, seconds=5000)
    async with connect(server) as client:
        await client.send(input="hi")
        events = await read_until_closed(client)
    assert len(events) == 5
    assert events[-1]["error"]["code"] == "websocket_connection_limit_reached"
    await trio.testing.wait_all_tasks_blocked()
    assert server.statistics().active == 0
    assert server.statistics().responses == 0


async def test_the_end_of_a_connection_cancels_its_running_response(
    server: ResponsesServer,
) -> None:
    server.reply("a b c").stall(after_events=6, seconds=2)
    async with connect(server) as client:
        await client.send(input="one")
        created = await client.receive()
        await trio.testing.wait_all_tasks_blocked()
        # The client does not read, so the close frame gets no answer, and the stall ends meanwhile.
        await server.close_all(1001)
    async with connect(server) as client:
        await client.error(input="two", previous_response_id=created["response"]["id"])
    assert server.statistics().responses == 0


async def test_without_a_maximum_age_a_connection_stays_open() -> None:
    async with open_test_server(max_age=None) as server, connect(server) as client:
        await trio.sleep(80_000)
        await client.response(input="hi")


async def test_a_client_that_answers_no_ping_is_closed() -> None:
    async with open_test_server(max_age=None, ping_interval=20, ping_timeout=20) as server:
        async with connect(server) as client:
            await trio.sleep(1000)
            await client.response(input="the client answers pings")
        dead = await server.connect_stream()
        await dead.send_all(
            b"GET /v1/responses HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n"
            b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        )
        await trio.sleep(100)
        assert server.connections[1].close_code == 1011
        await dead.aclose()


async def test_a_client_that_does_not_read_blocks_the_server(server: ResponsesServer) -> None:
    server.reply(chunks=["x" * 1000] * 50)
    stream = await server.connect_stream(capacity=1000)
    async with connect(server, stream=stream) as client:
        with trio.CancelScope() as scope:
            scope.cancel()
            await client.receive()
        await client.send(input="hi")
        # The queue of the client holds one message, and the rest waits in the server.
        await trio.sleep(100)
        assert server.statistics().active == 1
        assert (await client.events())[-1]["type"] == "response.completed"
