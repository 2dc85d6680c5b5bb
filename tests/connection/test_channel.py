"""The channel of a connection: raw requests, and events that belong to no turn."""

from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.turn.rig import created, encoded, ended, item_done, message
from trio_responses import (
    ConfigurationError,
    ConnectionLost,
    ConnectionRestored,
    DeliveryStatus,
    Endpoint,
    Keepalive,
    Limits,
    MessageTooLarge,
    RequestTooLarge,
    ResponsesConnection,
    Timeouts,
)
from trio_responses.testing import Call, Frame, ResponsesServer, WireBytes, open_test_server
from trio_responses.types import (
    ErrorEvent,
    FunctionCallOutput,
    OutputItemDone,
    ResponseCompleted,
    ResponseCreate,
    ResponseCreated,
    ResponseInject,
    ResponseSteer,
    SteerAccepted,
    UndecodableFrame,
    UnknownEvent,
)
from trio_responses.typing import Event

if TYPE_CHECKING:
    from tests.connection.conftest import Connect


async def listen(connection: ResponsesConnection) -> None:
    """Begin to use the channel, on which nothing has come yet."""
    with trio.move_on_after(0) as scope:
        await connection.receive()
    assert scope.cancelled_caught


async def well(connection: ResponsesConnection) -> None:
    response = await connection.create(model="m", input="still there?")
    assert response.output_text == 'Turn 1: you said "still there?".'


async def read_all(connection: ResponsesConnection) -> list[Event]:
    """Take what is there, and what is on its way."""
    events: list[Event] = []

    async def read() -> None:
        while True:
            events.append(await connection.receive())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    return events


async def test_a_connection_is_a_trio_channel(connect: "Connect") -> None:
    """A connection can be passed wherever Trio expects a channel."""
    async with connect() as connection:
        channel: trio.abc.Channel[object] = connection
        await channel.send(ResponseCreate(model="m", input="hi"))
        assert isinstance(await channel.receive(), ResponseCreated)


async def test_answers_to_raw_requests_come_in_order(
    server: ResponsesServer, connect: "Connect"
) -> None:
    """Several raw requests may be under way; the server answers them one after the other."""
    async with connect() as connection:
        for text in ("one", "two"):
            await connection.send(ResponseCreate(model="m", input=text))
        events: list[Event] = []
        while sum(isinstance(event, ResponseCompleted) for event in events) < 2:
            events.append(await connection.receive())
        done = [event for event in events if isinstance(event, ResponseCompleted)]
        assert [event.response.output_text for event in done] == [
            'Turn 1: you said "one".',
            'Turn 1: you said "two".',
        ]
        assert connection.previous_response_id == done[1].response.id
    assert server.statistics().requests == 2


async def test_answers_to_turns_and_to_raw_requests_are_kept_apart(connect: "Connect") -> None:
    """P5: in both directions."""
    async with connect() as connection:
        await connection.send(ResponseCreate(model="m", input="raw"))
        response = await connection.create(model="m", input="turn")
        assert response.output_text == 'Turn 1: you said "turn".'
        events = await read_all(connection)
        done = [event for event in events if isinstance(event, ResponseCompleted)]
        assert [event.response.output_text for event in done] == ['Turn 1: you said "raw".']


async def test_an_error_frame_for_a_raw_request_is_an_event(
    server: ResponsesServer, connect: "Connect"
) -> None:
    """The channel yields the frame, and raises nothing."""
    server.fail("rate_limit_exceeded", status=429)
    async with connect() as connection:
        await connection.send(ResponseCreate(model="m", input="hi"))
        event = await connection.receive()
        assert isinstance(event, ErrorEvent)
        assert (event.code, event.status) == ("rate_limit_exceeded", 429)
        await well(connection)


UNASKED: list[dict[str, Any]] = [
    {"type": "keepalive", "sequence_number": 3},
    {"type": "codex.rate_limits", "rate_limits": {"primary": {"used_percent": 1}}},
    {"type": "no.such.type"},
]


@pytest.mark.parametrize("frame", UNASKED)
async def test_unsolicited_events_are_yielded_once_the_channel_is_read(
    server: ResponsesServer, connect: "Connect", frame: dict[str, Any]
) -> None:
    """Before the first ``receive()`` they are counted only."""
    async with connect() as connection:
        await server.send_raw(frame)
        await wait_all_tasks_blocked()
        assert connection.statistics().unrouted_events == 1
        assert connection.statistics().unread_bytes == 0
        await listen(connection)
        await server.send_raw(frame)
        (event,) = await read_all(connection)
        assert getattr(event, "wire_type", None) == frame["type"]
        assert connection.statistics().unrouted_events == 2


async def test_an_unread_channel_never_stops_a_turn(
    server: ResponsesServer, connect: "Connect"
) -> None:
    """P6: a channel that was read once and then left alone keeps a bounded number of events."""
    frame = {"type": "keepalive", "padding": "x" * 10_000}
    limits = Limits(turn_buffer_bytes=50_000, connection_buffer_bytes=100_000)
    async with connect(limits=limits) as connection:
        await listen(connection)
        for _ in range(30):
            await server.send_raw(frame)
            await well(connection)
        statistics = connection.statistics()
        assert statistics.unrouted_events == 30
        assert 40_000 <= statistics.unread_bytes < 50_000
        assert trio.current_time() == 0
        assert len(await read_all(connection)) == 4


async def test_a_full_channel_still_yields_a_loss(
    server: ResponsesServer, connect: "Connect"
) -> None:
    """P3, P6: without the loss, the reader of a raw request would wait for ever."""
    endpoint = Endpoint.compatible(server.url, lanes=True)
    server.reply(chunks=["x" * 100] * 200).drop(after_events=150).on_lane("raw")
    server.stall(after_events=2).on_lane(None)
    async with connect(endpoint=endpoint, limits=Limits(turn_buffer_bytes=10_000)) as connection:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(expect_loss, connection)
            await wait_all_tasks_blocked()
            await connection.send(ResponseCreate(model="m", input="hi", stream_id="raw"))
            await trio.sleep(5)
        assert connection.statistics().unread_bytes > 10_000
        events = await read_all(connection)
        assert len(events) == 152
        assert isinstance(events[-2], ConnectionLost)
        assert isinstance(events[-1], ConnectionRestored)


async def expect_loss(connection: ResponsesConnection) -> None:
    with pytest.raises(ConnectionLost):
        await connection.create(model="m", input="hi")


UNDECODABLE: list[Frame] = [
    b"\x00\x01binary",
    "not json",
    "[1, 2]",
    '"text"',
    "{}",
    '{"type": 5}',
    WireBytes.frame(b"binary", opcode=2),
    '{"type":"response.output_text.delta","delta":{"no":"text"}}',
]


@pytest.mark.parametrize("frame", UNDECODABLE)
async def test_a_frame_that_cannot_be_decoded_ends_no_connection(
    server: ResponsesServer, connect: "Connect", frame: Frame
) -> None:
    """P8: the frame is counted, and the channel yields its bytes."""
    async with connect() as connection:
        await listen(connection)
        await server.send_raw(frame)
        (event,) = await read_all(connection)
        assert isinstance(event, UndecodableFrame | UnknownEvent)
        if isinstance(event, UndecodableFrame):
            assert connection.statistics().undecodable_frames == 1
        await well(connection)
    assert server.statistics().handshakes == 1


async def test_frames_that_cannot_be_decoded_are_counted_while_the_channel_is_unread(
    server: ResponsesServer, connect: "Connect"
) -> None:
    """P8: each frame is counted once."""
    async with connect() as connection:
        for frame in UNDECODABLE[:4]:
            await server.send_raw(frame)
        await wait_all_tasks_blocked()
        statistics = connection.statistics()
        assert (statistics.undecodable_frames, statistics.unrouted_events) == (4, 4)
        await well(connection)


# --- Sizes ---------------------------------------------------------------------------------


@pytest.mark.parametrize("after_events", [0, 3])
async def test_a_message_over_the_limit_ends_its_turn_and_not_the_connection(
    server: ResponsesServer, connect: "Connect", after_events: int
) -> None:
    """P10: the exception has the size and the limit."""
    delta = {"type": "response.output_text.delta", "delta": "x" * 20_000}
    server.reply("hello").inject(delta, after_events=after_events)
    async with connect(limits=Limits(max_message_bytes=10_000)) as connection:
        with pytest.raises(MessageTooLarge) as failure:
            await connection.create(model="m", input="hi")
        assert failure.value.limit == 10_000
        assert 20_000 < failure.value.size < 20_100
        assert failure.value.delivery is not None
        assert trio.current_time() == 0
        await well(connection)
    assert server.statistics().handshakes == 1


@pytest.mark.parametrize("events", ["terminal", "all"])
async def test_a_last_event_over_the_limit_leaves_the_lane_clean(
    server: ResponsesServer, connect: "Connect", events: Any
) -> None:
    """P10: it ends the response, also after other oversize events, so the next turn never waits."""
    server.reply("x" * 20_000, events=events)
    async with connect(limits=Limits(max_message_bytes=10_000)) as connection:
        with pytest.raises(MessageTooLarge):
            await connection.create(model="m", input="hi")
        await well(connection)
        assert trio.current_time() == 0
        assert connection.statistics().requests_active == 0
    assert server.statistics().handshakes == 1


async def test_an_unsolicited_message_over_the_limit_is_an_event(
    server: ResponsesServer, connect: "Connect"
) -> None:
    """P10: it costs no turn and no socket."""
    async with connect(limits=Limits(max_message_bytes=10_000)) as connection:
        await listen(connection)
        await server.send_raw({"type": "keepalive", "padding": "x" * 20_000})
        (event,) = await read_all(connection)
        assert isinstance(event, UndecodableFrame)
        assert len(event.raw) < 10_000
        await well(connection)
    assert server.statistics().handshakes == 1


@pytest.mark.parametrize("use", ["create", "send"])
async def test_a_request_over_the_limit_is_not_sent(
    server: ResponsesServer, connect: "Connect", use: str
) -> None:
    """P10: neither a turn nor a raw request."""
    async with connect(limits=Limits(max_request_bytes=1000)) as connection:
        with pytest.raises(RequestTooLarge) as failure:  # noqa: PT012 - either call
            if use == "create":
                await connection.create(model="m", input="x" * 1000)
            else:
                await connection.send(ResponseCreate(model="m", input="x" * 1000))
        assert failure.value.limit == 1000
        assert 1000 < failure.value.size < 1100
        assert str(failure.value.delivery) == "not_sent"
        await well(connection)
    assert server.statistics().requests == 1


async def test_a_request_over_the_limit_of_the_server_is_not_sent_again() -> None:
    """P10: close code 1009 is permanent for that request, even with ``"at_least_once"``."""
    async with open_test_server(max_message_size=5000) as server:
        async with server.open_client(reconnect=[1, 1]) as connection:
            with pytest.raises(RequestTooLarge) as failure:
                await connection.create(model="m", input="x" * 6000, delivery="at_least_once")
            assert failure.value.limit is None
            assert failure.value.size > 6000
            assert str(failure.value.delivery) == "rejected"
            assert trio.current_time() == 0
            await well(connection)
            assert trio.current_time() == 1
        assert server.statistics().handshakes == 2


async def test_a_slow_reader_slows_the_server_down_and_loses_nothing(
    server: ResponsesServer, connect: "Connect"
) -> None:
    """P6: unread bytes are bounded, and late answers to pings do not end the socket."""

    async def dial(host: str, port: int) -> trio.abc.Stream:
        assert (host, port) == ("localhost", 80)
        return await server.connect_stream(capacity=10_000)

    chunks = [f"{number:05d} " * 100 for number in range(500)]
    server.reply(chunks=chunks)
    limits = Limits(turn_buffer_bytes=50_000)
    options = {
        "limits": limits,
        "dial": dial,
        "keepalive": Keepalive(interval=5, timeout=5),
        "timeouts": Timeouts(stall=20),
    }
    async with connect(**options) as connection:
        async with connection.stream(model="m", input="hi") as stream:
            most = 0
            async for _ in stream:
                await trio.sleep(1)
                most = max(most, connection.statistics().unread_bytes)
        assert stream.response.output_text == "".join(chunks)
        assert 50_000 <= most <= 350_000 + 50_000  # the largest message on top
    assert server.statistics().handshakes == 1


# --- Counting ------------------------------------------------------------------------------


async def test_statistics_add_up(server: ResponsesServer, connect: "Connect") -> None:
    """Sent, received, read and dropped events and bytes agree with each other."""
    server.reply("one two three")
    server.reply("four five six").drop(after_events=4)
    async with connect() as connection:
        before = connection.statistics()
        assert (before.state, before.sockets_opened, before.requests_sent) == ("open", 1, 0)
        async with connection.stream(model="m", input="hi") as stream:
            await wait_all_tasks_blocked()
            waiting = connection.statistics()
            assert waiting.unread_bytes == waiting.bytes_received > 1000
            assert waiting.requests_sent == 1
            events = [event async for event in stream]
        read = connection.statistics()
        assert read.events_received == len(events) == 11
        assert read.unread_bytes == read.requests_active == read.dropped_events == 0
        async with connection.stream(model="m", input="hi") as stream:
            await stream.__anext__()
            assert connection.statistics().requests_active == 1
        await connection.wait_open()
        await server.send_raw({"type": "keepalive"})
        await wait_all_tasks_blocked()
        after = connection.statistics()
        assert after.events_received == 11 + 4 + 1
        assert after.unrouted_events - after.sockets_opened <= 1
        assert after.requests_active == 0
        assert after.bytes_sent == 2 * waiting.bytes_sent
    assert connection.statistics().state == "closed"
    assert server.statistics().requests == 2


@pytest.mark.parametrize("command", ["hi", None, 3, [], b"{}"])
async def test_send_refuses_a_value_that_is_not_a_command(
    server: ResponsesServer, command: Any
) -> None:
    async with server.open_client() as connection:
        with pytest.raises(ConfigurationError, match="ResponseCreate"):
            await connection.send(command)


@pytest.mark.parametrize("command", [{}, {"model": "m"}, {"type": None}])
async def test_send_refuses_a_mapping_without_a_type(server: ResponsesServer, command: Any) -> None:
    async with server.open_client() as connection:
        with pytest.raises(ConfigurationError, match="type"):
            await connection.send(command)
        assert connection.statistics().requests_sent == 0


async def test_a_mapping_is_sent_as_it_is() -> None:
    """Unknown fields and nulls included; the answer comes on the channel, beside a turn."""
    async with open_test_server(unknown_parameters=True) as server:
        command = {
            "type": "response.create",
            "model": "m",
            "input": "raw",
            "brand_new": {"on": True},
            "temperature": None,
        }
        server.reply("a b c", delay=1)
        async with (
            server.open_client() as connection,
            connection.stream(model="m", input="turn") as stream,
        ):
            await connection.send(MappingProxyType({**command, "stream_id": "mine"}))
            events: list[Event] = []
            while not isinstance(event := await connection.receive(), ResponseCompleted):
                events.append(event)
            assert event.response.output_text == 'Turn 1: you said "raw".'
            assert isinstance(events[0], ResponseCreated)
            assert (await stream.get_final_response()).output_text == "a b c"
            assert connection.statistics().unrouted_events == 0
        assert server.requests[1].body == {**command, "stream_id": "mine"}


async def test_an_unknown_command_is_sent_and_its_answer_is_received(
    server: ResponsesServer,
) -> None:
    async with server.open_client() as connection:
        await connection.send({"type": "response.brand_new", "response_id": "resp_1"})
        event = await connection.receive()
        assert isinstance(event, ErrorEvent)
        await connection.create(model="m", input="still there?")


@pytest.mark.parametrize(
    ("command", "path"),
    [
        ({"type": "response.create", "temperature": float("nan")}, r"event\['temperature'\]"),
        (ResponseCreate(model="m", top_p=float("inf")), r"ResponseCreate\.top_p"),
    ],
)
async def test_a_number_that_json_lacks_sends_no_command(
    server: ResponsesServer, command: Any, path: str
) -> None:
    async with server.open_client() as connection:
        with pytest.raises(ValueError, match=f"^{path} is not a finite number"):
            await connection.send(command)
        await connection.create(model="m", input="still there?")
    assert len(server.requests) == 1


async def test_a_mapping_steers_a_raw_request(server: ResponsesServer) -> None:
    release = trio.Event()
    server.reply("one", more=["two"]).hold(release, after_events=5)
    async with server.open_client() as connection:
        await connection.send({"type": "response.create", "model": "m", "input": "Count."})
        created = await until(connection, ResponseCreated)
        assert isinstance(created, ResponseCreated)
        await connection.send(
            {
                "type": "response.steer",
                "previous_response_id": created.response.id,
                "input": "Stop.",
            }
        )
        await until(connection, SteerAccepted)
        release.set()
        await until(connection, ResponseCreated)  # the successor
        await until(connection, ResponseCompleted)
        assert connection.statistics().requests_active == 0
        assert server.steers[0].state == "committed"


async def until(connection: "ResponsesConnection", kind: type[Event]) -> Event:
    while not isinstance(event := await connection.receive(), kind):
        pass
    return event


@pytest.mark.parametrize("lanes", [True, False])
@pytest.mark.parametrize("sign", [OutputItemDone, ResponseCompleted])
async def test_outputs_may_be_sent_before_the_server_asks_for_them(
    server: "ResponsesServer", connect: "Connect", sign: type[Event], *, lanes: bool
) -> None:
    """docs/protocol.md, 5.7: the server sends no ``pending`` then, and nothing stays under way."""
    call = Call("weather", {"city": "Oslo"}, call_id="call_1", unoffered=True)
    steered, sent = trio.Event(), trio.Event()
    script = server.answer(call).hold(steered, after_events=2)
    script.hold(sent, after_events=-1 if sign is OutputItemDone else None)
    endpoint = Endpoint.compatible(server.url, lanes=lanes)
    async with connect(endpoint=endpoint) as connection:
        await connection.send(ResponseCreate(model="m", input="Weather?"))
        created = await until(connection, ResponseCreated)
        assert isinstance(created, ResponseCreated)
        parent = created.response.id
        await connection.send(ResponseSteer(previous_response_id=parent, input="In French."))
        await until(connection, SteerAccepted)
        steered.set()
        await until(connection, sign)
        output = {"type": "function_call_output", "call_id": "call_1", "output": "cold"}
        await connection.send(
            ResponseCreate(model="m", input=[output], previous_response_id=parent)
        )
        await trio.testing.wait_all_tasks_blocked()
        sent.set()
        for _ in range(2 if sign is OutputItemDone else 1):
            await until(connection, ResponseCompleted)
        assert server.steers[0].state == "committed"
        assert connection.statistics().requests_active == 0
        await connection.create(model="m", input="still there?")


async def test_the_events_around_a_binary_message_are_delivered(
    server: "ResponsesServer", connect: "Connect"
) -> None:
    """P5, P8: events and the binary message come in one read."""
    odd = WireBytes.frame(b"binary", opcode=2).data
    before = [created(), item_done(message("one"))]
    frames = [WireBytes.frame(encoded(each).encode()).data for each in [*before, ended(None)]]
    server.answer([WireBytes(b"".join([*frames[:2], odd, frames[2]]))])
    async with connect() as connection:
        response = await connection.create(model="m", input="hi")
        assert response.output_text == "one"
        assert connection.statistics().undecodable_frames == 1
        assert connection.statistics().events_received == 4


@pytest.mark.parametrize("lane_first", [True, False])
async def test_a_message_over_the_limit_ends_the_turn_of_its_lane_alone(
    server: "ResponsesServer", connect: "Connect", *, lane_first: bool
) -> None:
    """P5, P10: the lane's name may stand at either end of the message."""
    limits = Limits(max_message_bytes=10_000)
    endpoint = Endpoint.compatible(server.url, lanes=True)
    async with (
        connect(limits=limits, endpoint=endpoint) as connection,
        connection.lane() as one,
        connection.lane() as two,
    ):
        gate = trio.Event()
        server.reply("well").hold(gate, after_events=3)
        async with one.stream(model="m", input="hi") as stream:
            lane = {"stream_id": "lane-31"}
            large = {"type": "response.output_text.delta", "delta": "x" * 20_000}
            frame = {**lane, **large} if lane_first else {**large, **lane}
            server.reply("ill").inject(frame, after_events=3)
            with pytest.raises(MessageTooLarge) as failure:
                await two.create(model="m", input="hi")
            assert server.last_request.lane == "lane-31"
            assert failure.value.delivery is DeliveryStatus.ACCEPTED
            gate.set()
            assert (await stream.get_final_response()).output_text == "well"


async def test_injected_outputs_are_sent(connect: "Connect") -> None:
    """The test server does not know the event: its answer shows which one it received."""
    output = FunctionCallOutput(call_id="call_1", output="cold")
    async with connect() as connection:
        await connection.send(ResponseInject(response_id="resp_1", input=[output]))
        event = await connection.receive()
    assert isinstance(event, ErrorEvent)
    assert "response.inject" in event.message
