"""P2 to P4: what everybody sees when the server is killed."""

from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from trio_responses import (
    ConnectionLost,
    ConnectionRestored,
    ConnectionState,
    DeliveryStatus,
    Endpoint,
    KeepaliveTimeout,
    ReconnectFailed,
    ResponsesConnection,
    SendTimeout,
    Timeouts,
)
from trio_responses.testing import How, ResponsesServer
from trio_responses.types import ErrorEvent, ResponseCompleted, ResponseCreate, ResponseCreated

if TYPE_CHECKING:
    from tests.connection.conftest import Connect, Dialler
    from trio_responses._lifecycle import Event


@pytest.mark.parametrize("how", ["reset", "fin", 1001, 1011])
async def test_the_channel_gives_the_events_and_then_the_loss_and_then_the_return(
    server: ResponsesServer, connect: "Connect", how: How
) -> None:
    """P2, D8: in this order, with nothing between, and the wait in Trio's time."""
    server.drop(after_events=4, how=how, reason="bye" if isinstance(how, int) else "")
    async with connect() as connection:
        await connection.send(ResponseCreate(model="m", input="hi"))
        events = [await connection.receive() for _ in range(6)]
        assert [getattr(event, "type", type(event).__name__) for event in events] == [
            "response.created",
            "response.in_progress",
            "response.output_item.added",
            "response.content_part.added",
            "ConnectionLost",
            "ConnectionRestored",
        ]
        lost, restored = events[4:]
        assert isinstance(lost, ConnectionLost)
        assert lost.code == (how if isinstance(how, int) else 1006)
        assert lost.reason == ("bye" if isinstance(how, int) else "")
        assert restored == ConnectionRestored(attempts=1, outage=1.0)
        assert trio.current_time() == 1
        await connection.send(ResponseCreate(model="m", input="hi"))
        assert isinstance(await connection.receive(), ResponseCreated)


@pytest.mark.parametrize(
    ("after_events", "delivery"), [(0, DeliveryStatus.AMBIGUOUS), (1, DeliveryStatus.ACCEPTED)]
)
@pytest.mark.parametrize("how", ["reset", "fin", 1001])
async def test_a_waiting_create_raises_at_once_and_says_how_far_it_came(
    server: ResponsesServer,
    connect: "Connect",
    how: How,
    after_events: int,
    delivery: DeliveryStatus,
) -> None:
    """P4, D8, row 7: not after the reconnect, and nothing is sent again."""
    server.drop(after_events=after_events, how=how)
    async with connect() as connection:
        with pytest.raises(ConnectionLost) as failure:
            await connection.create(model="m", input="hi")
        assert trio.current_time() == 0
        assert failure.value.delivery is delivery
        await connection.wait_open()
        await trio.sleep(100)
    assert server.statistics().requests == 1


async def test_a_request_that_could_not_be_written_is_written_to_the_next_socket(
    server: ResponsesServer, connect: "Connect", dialler: "Dialler"
) -> None:
    """P4, row 11: a stale socket is found out by writing; the user need not know."""
    async with connect(dial=dialler) as connection:
        dialler.streams[0].writes_left = 0
        response = await connection.create(model="m", input="hi")
        assert response.output_text == 'Turn 1: you said "hi".'
        assert dialler.times == [0, 1]
        assert trio.current_time() == 1
    assert [request.connection for request in server.requests] == [2]


async def test_a_request_that_cannot_be_written_twice_says_not_sent(
    server: ResponsesServer, connect: "Connect", dialler: "Dialler"
) -> None:
    """P4, row 11: once is enough."""
    dialler.writes = 1
    async with connect(dial=dialler) as connection:
        with pytest.raises(ConnectionLost) as failure:
            await connection.create(model="m", input="hi")
        assert failure.value.delivery is DeliveryStatus.NOT_SENT
        assert dialler.times == [0, 1]
    assert server.requests == []


async def test_a_frame_that_cannot_be_written_in_time_says_not_sent(
    server: ResponsesServer, connect: "Connect"
) -> None:
    """P4: the pipe is full, and half a frame is nothing that a server could act on."""

    async def dial(host: str, port: int) -> trio.abc.Stream:
        assert (host, port) == ("localhost", 80)
        return await server.connect_stream(capacity=4096)

    async with connect(dial=dial, timeouts=Timeouts(send=5, close=1)) as connection:
        server.freeze_all()
        with pytest.raises(SendTimeout) as failure:
            await connection.send(ResponseCreate(model="m", input="x" * 100_000))
        assert failure.value.delivery is DeliveryStatus.NOT_SENT
        assert trio.current_time() == 5
    assert server.statistics().requests == 0


async def test_everybody_who_waits_is_told_with_an_exception_of_their_own(
    server: ResponsesServer, connect: "Connect"
) -> None:
    """P4: several turns on one socket, each with its own delivery."""
    failures: dict[str, ConnectionLost] = {}

    async def ask(connection: ResponsesConnection, text: str) -> None:
        with pytest.raises(ConnectionLost) as failure:
            await connection.create(model="m", input=text)
        failures[text] = failure.value

    server.stall(after_events=3)
    server.stall(after_events=0)
    endpoint = Endpoint.compatible(server.url, lanes=True)
    async with connect(endpoint=endpoint) as connection, trio.open_nursery() as nursery:
        for text in ("first", "second"):
            nursery.start_soon(ask, connection, text)
            await wait_all_tasks_blocked()
        await server.reset_all()
    assert failures["first"].delivery is DeliveryStatus.ACCEPTED
    assert failures["second"].delivery is DeliveryStatus.AMBIGUOUS
    assert failures["first"] is not failures["second"]


async def test_killed_for_good_it_gives_up_to_the_second(
    server: ResponsesServer, connect: "Connect"
) -> None:
    """P2: 1 + 2 + 4 + 8 + 16 seconds, for those who wait and for those who read."""
    ends: list[tuple[str, float, ReconnectFailed]] = []

    async def note(name: str, connection: ResponsesConnection) -> None:
        with pytest.raises(ReconnectFailed) as failure:  # noqa: PT012 - one of these calls
            if name == "create":
                await connection.create(model="m", input="hi")
            elif name == "wait_open":
                await connection.wait_open()
            elif name == "send":
                await connection.send(ResponseCreate(model="m", input="hi"))
            else:
                while True:
                    await connection.receive()
        ends.append((name, trio.current_time(), failure.value))

    server.drop(after_events=3)
    async with connect() as connection, trio.open_nursery() as nursery:
        server.stop_accepting()
        with pytest.raises(ConnectionLost):
            await connection.create(model="m", input="hi")
        for name in ("create", "wait_open", "send", "receive"):
            nursery.start_soon(note, name, connection)
        await trio.sleep(30.5)
        assert connection.state is ConnectionState.RECONNECTING
        assert ends == []
    assert sorted((name, time) for name, time, _ in ends) == [
        ("create", 31),
        ("receive", 31),
        ("send", 31),
        ("wait_open", 31),
    ]
    assert {end.attempts for _, _, end in ends} == {5}
    assert all(end.__cause__ is not None for _, _, end in ends)


async def test_create_during_an_outage_waits_and_succeeds(
    server: ResponsesServer, connect: "Connect"
) -> None:
    """P2, D9: no "not open" error."""
    async with connect() as connection:
        server.refuse(503, times=2)
        await server.reset_all()
        await wait_all_tasks_blocked()
        assert connection.state is ConnectionState.RECONNECTING
        response = await connection.create(model="m", input="hi")
        assert response.status == "completed"
        assert trio.current_time() == 7


async def test_a_create_that_waits_for_a_socket_can_be_cancelled(
    server: ResponsesServer, connect: "Connect"
) -> None:
    """P1, row 6: and leaves no debris."""
    async with connect() as connection:
        server.refuse(503, times=2)
        await server.reset_all()
        await wait_all_tasks_blocked()
        with trio.move_on_after(2) as scope:
            await connection.create(model="m", input="cancelled")
        assert scope.cancelled_caught
        await connection.create(model="m", input="hi")
        assert trio.current_time() == 7
    assert [request.text for request in server.requests] == ["hi"]


async def test_send_and_async_for_go_on_across_sockets(
    server: ResponsesServer, connect: "Connect"
) -> None:
    """Design 2: the channel outlives its sockets."""
    got: list[Event] = []

    async def read(connection: ResponsesConnection) -> None:
        got.extend([event async for event in connection])

    async with trio.open_nursery() as nursery, connect() as connection:
        nursery.start_soon(read, connection)
        await wait_all_tasks_blocked()
        for _ in range(3):
            await connection.send(ResponseCreate(model="m", input="hi"))
            await wait_all_tasks_blocked()
            await server.reset_all()
            await wait_all_tasks_blocked()
            await connection.wait_open()
    kinds = [type(event) for event in got]
    ends = (ResponseCompleted, ConnectionLost, ConnectionRestored)
    assert [kind for kind in kinds if kind in ends] == [*ends] * 3


async def test_the_iteration_ends_where_the_connection_is_closed(connect: "Connect") -> None:
    """Trio's channels: a close of one's own ends the loop, and what is unread comes first."""
    async with connect() as connection:
        await connection.send(ResponseCreate(model="m", input="hi"))
        await wait_all_tasks_blocked()
        await connection.aclose()
        types = [getattr(event, "type", None) async for event in connection]
        assert types[0] == "response.created"
        assert types[-1] == "response.completed"


async def test_the_iteration_raises_where_the_connection_gave_up(
    server: ResponsesServer, connect: "Connect"
) -> None:
    """P3: never a silent end."""
    async with connect(reconnect=[]) as connection:
        with trio.move_on_after(1):
            await connection.receive()
        await server.reset_all()
        events: list[Event] = []
        with pytest.raises(ReconnectFailed):
            events.extend([event async for event in connection])
        assert str(connection.state) == "closed"


async def test_the_last_error_frame_is_the_cause_of_the_loss(
    server: ResponsesServer, connect: "Connect"
) -> None:
    """Row 23: an error without an owner, and then a close."""
    frame = {"type": "error", "status": 500, "error": {"code": "server_error", "message": "oh"}}
    async with connect() as connection:
        with trio.move_on_after(1):
            await connection.receive()
        await server.send_raw(frame)
        await server.close_all(1011, "sorry")
        error = await connection.receive()
        assert isinstance(error, ErrorEvent)
        lost = await connection.receive()
        assert isinstance(lost, ConnectionLost)
        assert (lost.code, lost.reason, lost.age) == (1011, "sorry", 1)
        assert lost.__cause__ is not None
        assert getattr(lost.__cause__, "event", None) == error


async def test_a_dead_server_is_noticed_by_the_keepalive(
    server: ResponsesServer, connect: "Connect"
) -> None:
    """D21, row 2 and 11: 20 seconds of silence, and 20 for the answer to a ping."""
    async with connect() as connection:
        with trio.move_on_after(0):
            await connection.receive()
        server.freeze_all()
        lost = await connection.receive()
        assert isinstance(lost, KeepaliveTimeout)
        assert trio.current_time() == 40
        assert isinstance(lost, trio.TooSlowError)
        assert isinstance(await connection.receive(), ConnectionRestored)


async def test_a_turn_on_a_dead_server_is_told_by_the_keepalive(
    server: ResponsesServer, connect: "Connect"
) -> None:
    """D21: long before the stall timeout."""
    server.half_open(after_events=2)
    async with connect() as connection:
        with pytest.raises(KeepaliveTimeout) as failure:
            await connection.create(model="m", input="hi")
        assert failure.value.delivery is DeliveryStatus.ACCEPTED
        assert trio.current_time() == 40


async def test_a_quiet_connection_lives_on(server: ResponsesServer, connect: "Connect") -> None:
    """D21, row 2: idle for hours, and the same socket answers."""
    async with connect() as connection:
        await trio.sleep(10_000)
        await connection.create(model="m", input="hi")
    assert server.statistics().handshakes == 1


async def test_at_least_once_sends_again(server: ResponsesServer, connect: "Connect") -> None:
    """P4, row 7: the caller's choice, for one turn."""
    server.drop(after_events=3)
    async with connect() as connection:
        response = await connection.create(model="m", input="hi", delivery="at_least_once")
        assert response.status == "completed"
        assert trio.current_time() == 1
    assert server.statistics().requests == 2


async def test_cancelled_receives_lose_nothing(server: ResponsesServer, connect: "Connect") -> None:
    """Design 2: a cancelled read leaves the event for the next one."""
    server.reply("one two three four", delay=1.0)
    async with connect() as connection:
        await connection.send(ResponseCreate(model="m", input="hi"))
        numbers: list[int | None] = []
        while len(numbers) < 12:
            with trio.move_on_after(0.3):
                event = await connection.receive()
                numbers.append(getattr(event, "sequence_number", None))
        assert numbers == list(range(12))


async def test_two_readers_share_the_channel(server: ResponsesServer, connect: "Connect") -> None:
    """Trio's channels may have several readers: each event goes to one of them, in order."""
    got: dict[str, list[int]] = {"a": [], "b": []}

    async def read(name: str, connection: ResponsesConnection) -> None:
        async for event in connection:
            got[name].append(getattr(event, "sequence_number", -1))

    server.reply("one two three four", delay=0.5)
    async with trio.open_nursery() as nursery, connect() as connection:
        nursery.start_soon(partial(read, "a", connection))
        nursery.start_soon(partial(read, "b", connection))
        await connection.send(ResponseCreate(model="m", input="hi"))
        await trio.sleep(60)
    assert sorted(got["a"] + got["b"]) == list(range(12))
    assert got["a"] == sorted(got["a"])
    assert got["b"] == sorted(got["b"])
