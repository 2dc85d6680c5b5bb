"""P6: a slow consumer slows the server down, loses nothing, and costs bounded memory."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, overload

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.testing.driver import NO_WAITING
from tests.turn.rig import (
    Crowd,
    ask,
    ask_strictly,
    assert_at_rest,
    created,
    delta,
    ended,
    heard,
    held_bytes,
)
from trio_responses import (
    BufferOverflow,
    DeliveryStatus,
    Keepalive,
    Limits,
    ResponsesConnection,
    RotationPolicy,
    Timeouts,
)
from trio_responses._turn.inbox import Budget, Inbox
from trio_responses.testing import Reply, Request, ResponsesServer, open_test_server
from trio_responses.types import OutputTextDelta, ResponseCreate

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from trio_responses import ResponseStream

pytestmark = NO_WAITING

CAPACITY: Final = 4096
"""Bytes that a socket of these tests holds in each direction."""
PIECES: Final = [f"{number:0100}" for number in range(1000)]
"""The pieces of a verbose answer: about 250 KB on the wire."""
SMALL: Final = Limits(turn_buffer_bytes=2000, connection_buffer_bytes=4_000_000)


def open_narrow(
    server: ResponsesServer, **options: Any
) -> "AbstractAsyncContextManager[ResponsesConnection]":
    """Open a client over a socket of little capacity: an unread socket stops its writer."""

    async def dial(_host: str, _port: int) -> trio.abc.Stream:
        return await server.connect_stream(capacity=CAPACITY)

    return server.open_client(dial=dial, **options)


def answer(request: Request) -> Reply:
    """Return a long answer to a verbose request."""
    text = str(request["input"])
    if text in {"verbose", "less verbose"}:
        return Reply(chunks=PIECES if text == "verbose" else PIECES[:200], events="deltas")
    return Reply(heard(text))


async def ask_until_one_waits(connection: ResponsesConnection) -> None:
    """Run turns until one had to wait for ``timeouts.stall``, and then five more."""
    while trio.current_time() == 0:
        await ask_strictly(connection, "other")
    assert trio.current_time() == 30
    for _ in range(5):
        await ask_strictly(connection, "other")
    assert trio.current_time() == 30


async def collect(stream: "ResponseStream", pieces: list[str]) -> None:
    """Read the text of a stream into a list, also where the stream fails."""
    async for piece in stream.text_deltas():
        pieces.append(piece)  # noqa: PERF401 - likewise


async def read_pieces(
    connection: ResponsesConnection, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """Run a verbose turn: read one event, pause for a minute, and read the rest."""
    async with connection.stream(model="m", input="verbose") as stream:
        await stream.__anext__()
        await wait_all_tasks_blocked()
        task_status.started()
        await trio.sleep(60)
        assert [piece async for piece in stream.text_deltas()] == PIECES


# --- One consumer ------------------------------------------------------------------------


async def test_a_consumer_that_stops_for_a_minute_loses_nothing() -> None:
    """P6: while there is room the socket is read on, so that pings are answered."""
    async with (
        open_test_server(ping_interval=5, ping_timeout=5) as server,
        server.open_client() as connection,
    ):
        server.reply(chunks=[f"{number} " for number in range(200)], delay=0.5)
        async with connection.stream(model="m", input="hi") as stream:
            await stream.__anext__()
            await trio.sleep(60)
            assert connection.statistics().unread_bytes > 10_000
            text = "".join([piece async for piece in stream.text_deltas()])
        assert text == "".join(f"{number} " for number in range(200))
        assert server.statistics().handshakes == 1
        assert_at_rest(connection)


async def test_a_full_turn_makes_the_server_wait(server: ResponsesServer) -> None:
    """P6: the turn's budget and one read of the socket are the most that is held."""
    server.respond_with(answer)
    async with open_narrow(server, limits=SMALL) as connection:
        async with connection.stream(model="m", input="verbose") as stream:
            await stream.__anext__()
            pieces: list[str] = []
            async for piece in stream.text_deltas():
                pieces.append(piece)
                if len(pieces) % 50 == 0:
                    await wait_all_tasks_blocked()
                    held = connection.statistics().unread_bytes
                    if len(pieces) < 900:  # the last events have the whole text in one message
                        assert SMALL.turn_buffer_bytes <= held
                        assert held <= SMALL.turn_buffer_bytes + CAPACITY
                        assert server.statistics().active == 1
        assert pieces == PIECES
        assert_at_rest(connection)


async def test_no_deadline_counts_while_the_socket_is_not_read(server: ResponsesServer) -> None:
    """P6: events and pongs may be there, but unread."""
    server.respond_with(answer)
    impatient = {
        "timeouts": Timeouts(stall=5, first_event=5),
        "keepalive": Keepalive(interval=1, timeout=1),
    }
    async with open_narrow(server, limits=SMALL, **impatient) as connection:
        async with connection.stream(model="m", input="verbose") as stream:
            for _ in range(5):
                await stream.__anext__()
                await trio.sleep(60)
            pieces = [piece async for piece in stream.text_deltas()]
        assert pieces == PIECES[-len(pieces) :]
        assert server.statistics().handshakes == 1
        await ask_strictly(connection, "next")


async def test_deadlines_count_again_when_the_socket_is_read_again(server: ResponsesServer) -> None:
    """P3, P6."""
    script = server.reply(chunks=PIECES, events="deltas")
    script.stall(after_events=500)
    async with open_narrow(server, limits=SMALL, timeouts=Timeouts(stall=5)) as connection:
        async with connection.stream(model="m", input="hi") as stream:
            await stream.__anext__()
            await trio.sleep(1000)
            pieces: list[str] = []
            with pytest.raises(trio.TooSlowError):
                await collect(stream, pieces)
        assert len(pieces) == 499
        assert trio.current_time() == 1005


async def test_leaving_a_turn_frees_its_unread_bytes(server: ResponsesServer) -> None:
    """P5, P6: the rest is read and dropped, and others run on at once."""
    server.respond_with(answer)
    async with open_narrow(server, limits=SMALL) as connection:
        async with connection.stream(model="m", input="verbose") as stream:
            await stream.__anext__()
            await wait_all_tasks_blocked()
            assert connection.statistics().unread_bytes >= SMALL.turn_buffer_bytes
        assert connection.statistics().unread_bytes == 0
        await trio.sleep(1)
        assert_at_rest(connection)
        await ask_strictly(connection, "next")
        assert server.statistics().handshakes == 1


async def test_closing_waits_for_no_consumer(server: ResponsesServer) -> None:
    """P1, P6: with the socket unread."""
    server.respond_with(answer)
    async with Crowd():
        async with (
            open_narrow(server, limits=SMALL, timeouts=Timeouts(close=2)) as connection,
            connection.stream(model="m", input="verbose") as stream,
        ):
            await stream.__anext__()
            await wait_all_tasks_blocked()
            await connection.aclose()
            assert trio.current_time() <= 2
        await server.reset_all()


# --- Many consumers ----------------------------------------------------------------------


async def test_one_consumer_that_sleeps_does_not_stop_the_others(server: ResponsesServer) -> None:
    """P6: within the connection's budget; and the consumer loses nothing."""
    server.respond_with(answer)
    async with open_narrow(server, limits=SMALL) as connection:
        async with trio.open_nursery() as nursery:
            await nursery.start(read_pieces, connection)
            for number in range(20):
                await ask_strictly(connection, str(number))
            assert trio.current_time() == 0
        assert_at_rest(connection)
        assert server.statistics().handshakes == 1


@pytest.mark.parametrize("lanes", [True, False])
@pytest.mark.parametrize("turn_bytes", [1, 2000, 100_000])
async def test_a_turn_inside_the_iteration_of_another_is_no_deadlock(
    *, turn_bytes: int, lanes: bool
) -> None:
    """P6: the outer turn is not read meanwhile, and the inner one needs the same socket."""
    limits = Limits(turn_buffer_bytes=turn_bytes, connection_buffer_bytes=4_000_000)
    async with (
        open_test_server(max_age=None, lanes=lanes) as server,
        open_narrow(server, limits=limits) as connection,
    ):
        server.respond_with(answer)
        pieces: list[str] = []
        with trio.fail_after(1):
            async with connection.stream(model="m", input="verbose") as stream:
                async for piece in stream.text_deltas():
                    pieces.append(piece)
                    if len(pieces) % 100 == 1:
                        await ask_strictly(connection, f"inside {len(pieces)}")
        assert pieces == PIECES
        assert_at_rest(connection)


async def test_16_turns_with_turns_inside_are_no_deadlock(server: ResponsesServer) -> None:
    """P6: every place is taken by a turn whose reader waits for a place."""
    server.respond_with(answer)

    async def outer(number: int) -> None:
        async with connection.stream(model="m", input="less verbose") as stream:
            await stream.__anext__()
            await wait_all_tasks_blocked()
            await ask_strictly(connection, f"inside {number}")
            assert [piece async for piece in stream.text_deltas()] == PIECES[:200]

    limits = Limits(turn_buffer_bytes=2000, connection_buffer_bytes=8_000_000)
    async with open_narrow(server, limits=limits) as connection:
        with trio.fail_after(1):
            async with trio.open_nursery() as nursery:
                for number in range(16):
                    nursery.start_soon(outer, number)
        assert_at_rest(connection)


async def test_a_turn_inside_another_of_its_lane_is_no_deadlock(server: ResponsesServer) -> None:
    """P6: it waits for a lane whose answer is not read."""
    server.respond_with(answer)
    async with (
        open_narrow(server, limits=SMALL) as connection,
        connection.lane() as lane,
        lane.stream(model="m", input="verbose") as stream,
    ):
        await stream.__anext__()
        await wait_all_tasks_blocked()
        with trio.fail_after(1):
            await ask_strictly(lane, "inside")
        assert [piece async for piece in stream.text_deltas()] == PIECES


async def test_a_turn_whose_unread_bytes_stop_the_others_is_given_up(
    server: ResponsesServer,
) -> None:
    """P6: above the connection's budget, after ``timeouts.stall``; the others go on."""
    server.respond_with(answer)
    limits = Limits(turn_buffer_bytes=2000, connection_buffer_bytes=20_000)
    async with open_narrow(server, limits=limits, timeouts=Timeouts(stall=30)) as connection:
        async with connection.stream(model="m", input="verbose") as stream:
            await stream.__anext__()
            await wait_all_tasks_blocked()
            await ask_until_one_waits(connection)
            with pytest.raises(
                BufferOverflow, match="unread bytes of this turn held up"
            ) as failure:
                await stream.__anext__()
            assert 20_000 <= failure.value.buffered <= 20_000 + CAPACITY
            assert failure.value.delivery is DeliveryStatus.ACCEPTED
        await trio.sleep(1)
        assert_at_rest(connection)
        assert server.statistics().handshakes == 1


async def test_a_turn_that_was_given_up_yields_no_later_events(server: ResponsesServer) -> None:
    """P6: its events end with an exception, without a gap before."""
    server.respond_with(answer)
    limits = Limits(turn_buffer_bytes=2000, connection_buffer_bytes=20_000)
    async with open_narrow(server, limits=limits, timeouts=Timeouts(stall=30)) as connection:
        pieces: list[str] = []
        async with connection.stream(model="m", input="verbose") as stream:
            pieces.append(await anext(stream.text_deltas()))
            await ask_until_one_waits(connection)
            await trio.sleep(100)
            assert connection.statistics().requests_active == 0
            assert connection.statistics().unread_bytes == 0
            with pytest.raises(BufferOverflow):
                await collect(stream, pieces)
            with pytest.raises(BufferOverflow):
                _ = stream.response
        assert pieces == PIECES[: len(pieces)]
        assert_at_rest(connection)


async def test_the_turn_with_the_most_unread_bytes_is_given_up(server: ResponsesServer) -> None:
    """P3, P6: where no turn is above its own limit, and all together are above the connection's."""
    server.respond_with(answer)
    limits = Limits(turn_buffer_bytes=1_000_000, connection_buffer_bytes=60_000)
    failures: list[BufferOverflow] = []

    async def read_late(*, task_status: trio.TaskStatus[None]) -> None:
        async with connection.stream(model="m", input="less verbose") as stream:
            await stream.__anext__()
            await wait_all_tasks_blocked()
            task_status.started()
            await trio.sleep(1000)
            try:
                assert [piece async for piece in stream.text_deltas()] == PIECES[:200]
            except BufferOverflow as failure:
                failures.append(failure)

    async with open_narrow(server, limits=limits, timeouts=Timeouts(stall=30)) as connection:
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                await nursery.start(read_late)
            for number in range(30):
                await ask_strictly(connection, str(number))
            assert 30 <= trio.current_time() <= 90
        assert 1 <= len(failures) <= 3
        assert all(failure.buffered < 1_000_000 for failure in failures)
        assert_at_rest(connection)


async def test_a_slow_reader_is_not_given_up_as_long_as_it_reads(server: ResponsesServer) -> None:
    """P6: others wait for it, as they would for the server."""
    server.respond_with(answer)
    limits = Limits(turn_buffer_bytes=2000, connection_buffer_bytes=20_000)

    async def read_slowly() -> None:
        async with connection.stream(model="m", input="verbose") as stream:
            pieces: list[str] = []
            async for piece in stream.text_deltas():
                pieces.append(piece)
                await trio.sleep(1)
        assert pieces == PIECES

    async with open_narrow(server, limits=limits, timeouts=Timeouts(stall=60)) as connection:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read_slowly)
            await trio.sleep(5)
            await ask_strictly(connection, "other")
        assert_at_rest(connection)


async def test_two_sockets_that_wait_for_room_both_go_on() -> None:
    """P6: an old socket with a turn to finish, and the new one."""
    rotation = RotationPolicy(max_age=100, stagger=0)
    async with (
        open_test_server(max_age=None, lanes=False) as server,
        open_narrow(server, limits=SMALL, rotation=rotation) as connection,
    ):
        server.respond_with(answer)
        async with connection.stream(model="m", input="verbose") as old:
            await old.__anext__()
            await trio.sleep(101)
            async with connection.stream(model="m", input="verbose") as new:
                await new.__anext__()
                await wait_all_tasks_blocked()
                assert connection.statistics().sockets_opened == 2
                with trio.fail_after(1):
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(old.get_final_response)
                        nursery.start_soon(new.get_final_response)
            assert old.response.output_text == new.response.output_text == "".join(PIECES)


# --- The channel underneath --------------------------------------------------------------


async def test_unread_unsolicited_events_stop_no_turn() -> None:
    """P6: they are kept as far as there is room, and counted beyond it."""
    limits = Limits(turn_buffer_bytes=2000, connection_buffer_bytes=4_000_000)
    async with (
        open_test_server(max_age=None, ping_interval=5, ping_timeout=5) as server,
        server.open_client(limits=limits) as connection,
    ):
        await connection.send(ResponseCreate(model="m", input="begin to listen"))
        while (await connection.receive()).type != "response.completed":
            pass
        for number in range(100):
            await server.send_raw({"type": "keepalive", "number": number, "pad": "x" * 150})
        await trio.sleep(100)  # the server's pings are answered meanwhile
        await ask_strictly(connection, "next")
        assert connection.statistics().unread_bytes <= 2000
        assert connection.statistics().unrouted_events == 100
        assert server.statistics().handshakes == 1
        first = await connection.receive()
        assert getattr(first, "raw", b"").find(b'"number":0') > 0


async def test_unread_answers_to_raw_requests_stop_no_turn(server: ResponsesServer) -> None:
    """P6: they are never dropped within the connection's budget."""
    server.respond_with(answer)
    async with open_narrow(server, limits=SMALL) as connection:
        await connection.send(ResponseCreate(model="m", input="verbose"))
        await wait_all_tasks_blocked()
        for number in range(20):
            await ask_strictly(connection, str(number))
        assert trio.current_time() == 0
        pieces: list[str] = []
        while len(pieces) < len(PIECES):
            event = await connection.receive()
            if isinstance(event, OutputTextDelta):
                pieces.append(event.delta)
        assert pieces == PIECES


async def test_a_channel_that_stops_the_turns_yields_buffer_exceeded(
    server: ResponsesServer,
) -> None:
    """P6: in the place of the events that were dropped."""
    server.respond_with(answer)
    limits = Limits(turn_buffer_bytes=2000, connection_buffer_bytes=20_000)
    async with open_narrow(server, limits=limits, timeouts=Timeouts(stall=30)) as connection:
        await connection.send(ResponseCreate(model="m", input="verbose"))
        await wait_all_tasks_blocked()
        await ask_until_one_waits(connection)
        assert isinstance(await connection.receive(), BufferOverflow)


# --- Measured --------------------------------------------------------------------------

MIB: Final = 1024 * 1024


class Frames(Sequence[dict[str, Any]]):
    """The frames of a response, made one by one as they are sent."""

    def __init__(self, count: int, size: int) -> None:
        self._count = count
        self._size = size

    def __len__(self) -> int:
        return self._count + 2

    @overload
    def __getitem__(self, index: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, index: slice) -> list[dict[str, Any]]: ...
    def __getitem__(self, index: int | slice) -> dict[str, Any] | list[dict[str, Any]]:
        if isinstance(index, slice):
            return [self[number] for number in range(len(self))[index]]
        number = range(len(self))[index]
        if number == 0:
            return created()
        if number == len(self) - 1:
            return ended()
        return delta(f"{number:08}" + "x" * (self._size - 8))


def resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the kernel does not say")
async def test_100_mib_through_a_slow_consumer_take_less_than_40_mib(
    narrow_server: ResponsesServer,
) -> None:
    """P6: with a budget of 1 MiB, for the whole process, server included."""
    count, size = 6400, 16 * 1024
    narrow_server.answer(Frames(count, size))

    async def dial(_host: str, _port: int) -> trio.abc.Stream:
        return await narrow_server.connect_stream(capacity=256 * 1024)

    limits = Limits(turn_buffer_bytes=MIB, connection_buffer_bytes=2 * MIB)
    async with narrow_server.open_client(dial=dial, limits=limits) as connection:
        await connection.warm_up(model="m")  # so that all modules are imported
        before = peak = resident_bytes()
        most_unread = received = 0
        async with connection.stream(model="m", input="all of it", snapshot=False) as stream:
            async for piece in stream.text_deltas():
                received += 1
                assert int(piece[:8]) == received
                if received % 64 == 0:
                    await trio.sleep(1)
                    most_unread = max(most_unread, connection.statistics().unread_bytes)
                    peak = max(peak, resident_bytes())
        assert received == count
        assert connection.statistics().bytes_received > count * size
        assert MIB <= most_unread < 1.5 * MIB
        assert peak - before < 40 * MIB


async def test_turns_leave_nothing_in_the_memory_of_the_connection(
    server: ResponsesServer,
) -> None:
    """P6: no cache, listener or record grows with the turns, cancelled ones included."""
    sizes: list[int] = []
    async with server.open_client() as connection:
        for _ in range(2):
            for number in range(25):
                await ask(connection, str(number))
            with trio.move_on_after(0):
                await ask(connection, "cancelled")
            await trio.sleep(10)
            sizes.append(held_bytes(connection))
        assert sizes[0] == sizes[1] > 1000
        assert_at_rest(connection)


async def test_a_budget_is_full_at_its_limit() -> None:
    """P6: the exact limit, which the sizes of real messages hit by accident only."""
    budget = Budget(Limits(turn_buffer_bytes=10, connection_buffer_bytes=20))
    inboxes: list[Inbox[str]] = [Inbox(budget), Inbox(budget)]
    inboxes[0].put(["a"], 9)
    assert not budget.any_limit_reached
    inboxes[0].put(["b"], 1)
    assert budget.any_limit_reached
    assert not budget.full
    inboxes[1].put(["c"], 10)
    assert budget.full
    inboxes[0].discard()
    assert not budget.full
