"""P2 to P4: the channel, turns and requests while sockets are lost and reopened."""

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
    KeepaliveTimeout,
    ReconnectFailed,
    ResponsesConnection,
    SendTimeout,
    Timeouts,
)
from trio_responses.testing import ResponsesServer
from trio_responses.types import ErrorEvent, ResponseCompleted, ResponseCreate, ResponseCreated

if TYPE_CHECKING:
    from tests.connection.conftest import Connect, Dialler
    from trio_responses.typing import Event


async def test_the_channel_yields_the_events_then_the_loss_then_the_return(
    server: ResponsesServer, connect: "Connect"
) -> None:
    """P2: nothing comes between them, and the loss has the server's close code and reason."""
    server.drop(after_events=4, how=1001, reason="bye")
    async with connect() as connection:
        await connection.send(ResponseCreate(model="m", input="hi"))
        events = [await connection.receive() for _ in range(6)]
        assert [getattr(event, "wire_type", type(event).__name__) for event in events] == [
            "response.created",
            "response.in_progress",
            "response.output_item.added",
            "response.content_part.added",
            "ConnectionLost",
            "ConnectionRestored",
        ]
        lost, restored = events[4:]
        assert isinstance(lost, ConnectionLost)
        assert (lost.code, lost.reason) == (1001, "bye")
        assert restored == ConnectionRestored(attempts=1, outage=1.0)
        assert trio.current_time() == 1
        await connection.send(ResponseCreate(model="m", input="hi"))
        assert isinstance(await connection.receive(), ResponseCreated)


async def test_a_raw_request_waits_for_a_socket_and_raises_where_its_write_fails(
    server: ResponsesServer, connect: "Connect", dialler: "Dialler"
) -> None:
    """P4: ``send()`` returns when the frame is written, and does not send it again."""
    async with connect(dial=dialler) as connection:
        await server.reset_all()
        await wait_all_tasks_blocked()
        assert connection.state is ConnectionState.RECONNECTING
        await connection.send(ResponseCreate(model="m", input="hi"))
        assert trio.current_time() == 1
        await wait_all_tasks_blocked()
        dialler.streams[-1].writes_left = 0
        with pytest.raises(ConnectionLost) as failure:
            await connection.send(ResponseCreate(model="m", input="hi"))
        assert failure.value.delivery is DeliveryStatus.NOT_SENT
    assert server.statistics().requests == 1


async def test_a_raw_request_that_cannot_be_written_in_time_was_not_sent(
    server: ResponsesServer, connect: "Connect"
) -> None:
    """P4: the pipe is full, and a server cannot act on half a frame."""

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


async def test_a_server_that_stays_away_is_given_up_after_the_policys_delays(
    server: ResponsesServer, connect: "Connect"
) -> None:
    """P2: after 1 + 2 + 4 + 8 + 16 seconds, for calls that wait and for readers of the channel."""
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


async def test_a_turn_during_an_outage_waits_and_succeeds(
    server: ResponsesServer, connect: "Connect"
) -> None:
    """P2: it does not raise because no socket is open."""
    async with connect() as connection:
        server.refuse(503, times=2)
        await server.reset_all()
        await wait_all_tasks_blocked()
        assert connection.state is ConnectionState.RECONNECTING
        response = await connection.create(model="m", input="hi")
        assert response.status == "completed"
        assert trio.current_time() == 7


async def test_sending_and_reading_go_on_across_sockets(
    server: ResponsesServer, connect: "Connect"
) -> None:
    """The channel lives longer than its sockets."""
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


async def test_the_iteration_ends_after_the_unread_events_of_a_closed_connection(
    connect: "Connect",
) -> None:
    """As for Trio's channels."""
    async with connect() as connection:
        await connection.send(ResponseCreate(model="m", input="hi"))
        await wait_all_tasks_blocked()
        await connection.aclose()
        types = [event.type async for event in connection]
        assert types[0] == "response.created"
        assert types[-1] == "response.completed"


async def test_the_iteration_raises_where_the_connection_gave_up(
    server: ResponsesServer, connect: "Connect"
) -> None:
    """P3: it never ends silently."""
    async with connect(reconnect=[]) as connection:
        with trio.move_on_after(1):
            await connection.receive()
        await server.reset_all()
        events: list[Event] = []
        with pytest.raises(ReconnectFailed):
            events.extend([event async for event in connection])
        assert str(connection.state) == "closed"


async def test_an_unsolicited_error_frame_is_the_cause_of_the_loss_after_it(
    server: ResponsesServer, connect: "Connect"
) -> None:
    """P3: close code, reason and age are on the exception as well."""
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


async def test_the_channel_yields_the_loss_of_a_dead_server(
    server: ResponsesServer, connect: "Connect"
) -> None:
    """P2: after 20 seconds of silence, and 20 seconds without an answer to the ping."""
    async with connect() as connection:
        with trio.move_on_after(0):
            await connection.receive()
        server.freeze_all()
        lost = await connection.receive()
        assert isinstance(lost, KeepaliveTimeout)
        assert trio.current_time() == 40
        assert isinstance(lost, trio.TooSlowError)
        assert isinstance(await connection.receive(), ConnectionRestored)


async def test_an_idle_connection_lives_on(server: ResponsesServer, connect: "Connect") -> None:
    """P2: for hours, on the same socket."""
    async with connect() as connection:
        await trio.sleep(10_000)
        await connection.create(model="m", input="hi")
    assert server.statistics().handshakes == 1


async def test_a_cancelled_receive_loses_no_event(
    server: ResponsesServer, connect: "Connect"
) -> None:
    """The next ``receive()`` returns the event."""
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
    """As for Trio's channels: each event goes to one of them, in order."""
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
