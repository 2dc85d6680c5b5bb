"""Run the cells of an open socket."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.faults.cells import (
    IDLE,
    SENDING,
    THE_TURN,
    TIMEOUTS,
)
from tests.faults.rig import (
    ask,
    ask_strictly,
    ask_strictly_beside,
    assert_rested,
    leaving_in_time,
    nothing_is_left,
    read_to_the_end,
)
from tests.faults.servers import open_fake_net
from trio_responses import (
    ConnectionLost,
    ConnectionRestored,
    ConnectionState,
    DeliveryStatus,
    ResponseFailedError,
    ResponsesError,
)
from trio_responses.types import ResponseCreate

if TYPE_CHECKING:
    from tests.faults.cells import (
        Cell,
        Way,
    )
    from tests.faults.servers import FakeNet
    from trio_responses import ResponsesConnection
    from trio_responses.typing import DeliveryMode


PADDING: Final = " ..." + "x" * 200_000


@dataclass(frozen=True, slots=True)
class End:
    """The end of a turn."""

    seconds: float
    error: ResponsesError | None = None
    status: str | None = None


async def run_turn(
    connection: ResponsesConnection, talk: Any, cell: Cell, way: Way, choice: DeliveryMode
) -> End:
    """Run the turn that meets the fault."""
    began = trio.current_time()
    words = THE_TURN + (PADDING if cell.large else "")
    status: str | None = None
    try:
        if way == "conversation":
            async with talk.stream(words, delivery=choice) as stream:
                status = await read_to_the_end(stream, THE_TURN)
        else:
            async with connection.stream(model="m", input=words, delivery=choice) as stream:
                status = await read_to_the_end(stream, THE_TURN)
    except ResponsesError as error:
        return End(trio.current_time() - began, error=error)
    return End(trio.current_time() - began, status=status)


async def run_cell(cell: Cell, way: Way, choice: DeliveryMode) -> None:
    """Run a cell with one method, and assert its results."""
    if way == "create":
        await check_failed_response(cell)
        return
    async with nothing_is_left(), open_fake_net(capacity=cell.capacity) as net:
        if cell.phase != IDLE:
            net.actions.append(cell.action)
            net.while_written = cell.phase == SENDING
        client = net.open_client(silent_after_error=cell.silent_after_error)
        async with (
            leaving_in_time(net, client) as connection,
            connection.conversation(model="m", store=False) as talk,
        ):
            await (talk.create("before") if way == "conversation" else ask(connection, "before"))
            if way == "channel":
                await check_channel(net, connection, cell)
                return
            noticed = cell.after.seconds
            if cell.phase == IDLE:
                await be_idle(net, connection, cell)
                noticed = 0.0
            end = await run_turn(connection, talk, cell, way, choice)
            await wait_all_tasks_blocked()
            again = cell.repeated or (cell.at_least_once and choice == "at_least_once")
            waited = 0.0
            if again or (cell.phase == IDLE and cell.then.ended_by is None):
                waited = cell.then.delay
            if again and cell.then.ended_by is None:
                check_well(cell, end)
            else:
                check_end(cell, end)
            delayed = cell.delayed if again else 0.0
            check_time(cell, end.seconds, noticed + waited, delayed)
            asked = 0 if cell.phase == SENDING and cell.repeated else 1
            if again and cell.then.ended_by is None:
                asked += 1
            check_counts(cell, net, asked)
            if way == "conversation":
                assert (THE_TURN in str(talk.items)) == (end.status == "completed")
            await check_next(net, connection, cell, cell.then.delay - waited, talk)


async def be_idle(net: FakeNet, connection: ResponsesConnection, cell: Cell) -> None:
    """Let the fault happen on an idle socket, and wait until the connection sees it."""
    began = trio.current_time()
    await wait_all_tasks_blocked()
    await cell.action(net.peers[0])
    await wait_all_tasks_blocked()
    if cell.then.sockets > 1 or cell.then.ended_by is not None:
        while connection.state is ConnectionState.OPEN and cell.then.delay:
            await connection.receive()  # the channel yields the loss
        check_time(cell, trio.current_time() - began, cell.after.seconds)


def check_end(cell: Cell, end: End) -> None:
    """Assert the end of the turn."""
    if cell.raises is None:
        check_well(cell, end)
        return
    assert end.error is not None, "it ended well"
    assert type(end.error) is cell.raises, repr(end.error)
    assert end.error.delivery is cell.delivery


def check_well(cell: Cell, end: End) -> None:
    if end.error is not None:
        raise end.error
    assert end.status == cell.status


def check_time(cell: Cell, seconds: float, expected: float, delayed: float = 0.0) -> None:
    if delayed:
        assert expected + 0.75 * delayed - 1e-6 <= seconds <= expected + delayed + 1e-6
    elif cell.after.at_most:
        assert expected - cell.after.seconds <= seconds <= expected + 1e-6
    else:
        assert seconds == pytest.approx(expected)


def check_counts(cell: Cell, net: FakeNet, asked: int) -> None:
    """Assert how often the request was received whole."""
    unsent = cell.delivery is DeliveryStatus.NOT_SENT or cell.cut_off
    assert net.times_asked() == (0 if unsent else asked)
    assert net.unknown_parents == []


async def check_next(
    net: FakeNet, connection: ResponsesConnection, cell: Cell, delay: float, talk: Any
) -> None:
    """Assert that later turns work, or raise the end of the connection."""
    if cell.then.ended_by is not None:
        for _ in range(2):
            with pytest.raises(cell.then.ended_by) as failure:
                await connection.create(model="m", input="next")
            assert failure.value.delivery is DeliveryStatus.NOT_SENT
        assert connection.state is ConnectionState.CLOSED
        return
    began = trio.current_time()
    await ask_strictly(connection, "next")
    assert trio.current_time() - began == pytest.approx(delay)
    assert len(net.dialled) == cell.then.sockets
    await talk.create("and then")
    async with trio.open_nursery() as nursery:
        for n in range(3):
            nursery.start_soon(ask_strictly_beside, connection, f"next {n}")
    assert net.unknown_parents == []
    await trio.sleep(2 * TIMEOUTS.close)
    assert_rested(connection)
    assert len(net.dialled) == cell.then.sockets


async def check_channel(net: FakeNet, connection: ResponsesConnection, cell: Cell) -> None:
    """Assert that the channel yields the loss, and then the return or the end."""
    assert cell.lost is not None
    with trio.move_on_after(0):
        await connection.receive()
    began = trio.current_time()
    if cell.phase == IDLE:
        await cell.action(net.peers[0])
    else:
        await connection.send(ResponseCreate(model="m", input=THE_TURN))
    while not isinstance(event := await connection.receive(), ConnectionLost):
        pass
    assert event.code == cell.lost
    check_time(cell, trio.current_time() - began, cell.after.seconds)
    if cell.then.ended_by is not None:
        with pytest.raises(cell.then.ended_by):
            await connection.receive()
        return
    restored = await connection.receive()
    assert restored == ConnectionRestored(attempts=1, outage=cell.then.delay)
    await connection.send(ResponseCreate(model="m", input="next"))
    kinds = [(await connection.receive()).type for _ in range(6)]
    assert kinds[0] == "response.created"
    assert kinds[-1] == "response.completed"


async def check_failed_response(cell: Cell) -> None:
    """Run a cell with ``create()``, which raises a Response of status ``failed``."""
    async with nothing_is_left(), open_fake_net() as net:
        net.actions.append(cell.action)
        async with leaving_in_time(net, net.open_client()) as connection:
            with pytest.raises(ResponseFailedError) as failure:
                await connection.create(model="m", input=THE_TURN)
            assert failure.value.delivery is DeliveryStatus.ACCEPTED
            await ask_strictly(connection, "next")
