"""Lanes: the order of requests in a lane, concurrency across lanes, names and limits."""

import pytest
import trio

from tests.testing.driver import NO_WAITING, Client, Json, connect, text_of
from trio_responses.testing import ResponsesServer, open_test_server

pytestmark = NO_WAITING


async def ends(client: Client, count: int) -> list[Json]:
    """Read until ``count`` responses have ended, and return their last events."""
    return [(await client.events())[-1] for _ in range(count)]


async def test_every_event_of_a_named_lane_carries_its_name(server: ResponsesServer) -> None:
    async with connect(server) as client:
        await client.send(input="hi", stream_id="a.b-c_D")
        assert {event["stream_id"] for event in await client.events()} == {"a.b-c_D"}
        server.fail()
        assert (await client.error(input="hi", stream_id="x"))["stream_id"] == "x"
        refused = await client.error(model=None, input="hi", stream_id="x")
        assert refused["stream_id"] == "x"


async def test_a_lane_answers_one_request_after_another(server: ResponsesServer) -> None:
    for text in ("one", "two", "three"):
        server.reply(text, delay=0.1)
    async with connect(server) as client:
        for _ in range(3):
            await client.send(input="hi", stream_id="a")
        seen = [await client.events() for _ in range(3)]
    assert [text_of(events[-1]["response"]) for events in seen] == ["one", "two", "three"]
    assert all(events[0]["type"] == "response.created" for events in seen)
    assert server.connections[0].max_active == 1


async def test_lanes_run_concurrently(server: ResponsesServer) -> None:
    for lane in ("a", "b", None):
        server.reply("word " * 10, delay=1).on_lane(lane)
    async with connect(server) as client:
        await client.send(input="hi", stream_id="a")
        await client.send(input="hi", stream_id="b")
        await client.send(input="hi")
        await ends(client, 3)
    assert trio.current_time() < 30
    assert server.connections[0].max_active == 3
    assert server.statistics().max_active == 3


async def test_a_held_lane_ends_after_a_later_lane(server: ResponsesServer) -> None:
    first = server.reply("first").on_lane("a")
    second = server.reply("second").on_lane("b")
    first.hold(second)
    async with connect(server) as client:
        await client.send(input="hi", stream_id="a")
        await client.send(input="hi", stream_id="b")
        assert [end["stream_id"] for end in await ends(client, 2)] == ["b", "a"]


async def test_sixteen_responses_are_active_and_the_others_wait(
    server: ResponsesServer,
) -> None:
    gate = trio.Event()
    for _ in range(20):
        server.answer().hold(gate, after_events=1)
    async with connect(server) as client:
        await client.send(input="hi")
        for number in range(19):
            await client.send(input="hi", stream_id=f"lane-{number}")
        await trio.testing.wait_all_tasks_blocked()
        assert server.statistics().active == 16
        gate.set()
        done = await ends(client, 20)
    assert len(done) == 20
    assert server.connections[0].max_active == 16
    assert server.statistics().active == 0


async def test_the_thirty_third_lane_name_is_refused(server: ResponsesServer) -> None:
    async with connect(server) as client:
        await client.response(input="the default lane is not counted")
        for number in range(32):
            await client.response(input="hi", stream_id=f"lane-{number}")
        frame = await client.error(input="hi", stream_id="one-more")
        assert frame["status"] == 400
        assert frame["stream_id"] == "one-more"
        assert frame["error"]["code"] == "websocket_stream_limit_reached"
        assert frame["error"]["param"] == "stream_id"
        await client.response(input="hi", stream_id="lane-5")
    async with connect(server) as fresh:
        await fresh.response(input="hi", stream_id="one-more")


@pytest.mark.parametrize("name", ["", "x" * 257, "with space", "ümlaut", "a/b", "a\n", 5, None])
async def test_the_refusal_of_an_invalid_lane_name_has_no_lane(
    server: ResponsesServer, name: object
) -> None:
    async with connect(server) as client:
        frame = await client.error(input="hi", stream_id=name)
        assert frame["error"]["code"] == "invalid_stream_id"
        assert "stream_id" not in frame
        await client.response(input="hi", stream_id="x" * 256)


async def test_a_server_without_lanes_refuses_every_name() -> None:
    async with open_test_server(lanes=False) as server, connect(server) as client:
        frame = await client.error(input="hi", stream_id="a")
        assert frame == {
            "type": "error",
            "status": 400,
            "error": {"detail": "Unsupported parameter: stream_id"},
        }
        await client.response(input="hi")


async def test_errors_keep_their_order_in_the_lane(server: ResponsesServer) -> None:
    gate = trio.Event()
    server.reply("slow").hold(gate)
    async with connect(server) as client:
        await client.send(input="hi")
        await client.send(input=5)
        await trio.testing.wait_all_tasks_blocked()
        gate.set()
        assert [end["type"] for end in await ends(client, 2)] == ["response.completed", "error"]
