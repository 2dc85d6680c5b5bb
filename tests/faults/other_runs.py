"""Run the cells of a turn that is steered, and of a connection that is closed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.faults.cells import THE_TURN, TIMEOUTS
from tests.faults.rig import (
    ask,
    ask_strictly,
    assert_closed,
    assert_rested,
    leaving_in_time,
    nothing_is_left,
)
from tests.faults.servers import open_fake_net
from trio_responses import ConnectionClosed, ConnectionState, DeliveryStatus, ResponsesError

if TYPE_CHECKING:
    from tests.faults.cells import Closing, Steered
    from tests.faults.servers import FakeNet, ServerPeer
    from trio_responses import ResponsesConnection, ResponseStream
    from trio_responses.typing import DeliveryMode


# --- Steering ---------------------------------------------------------------------------------


async def run_steered(cell: Steered, choice: DeliveryMode) -> None:
    """Run a turn that is steered, and assert the results of the turn and of the steering input."""
    async with nothing_is_left(), open_fake_net() as net:
        net.actions.append(cell.action)
        async with leaving_in_time(net, net.open_client()) as connection:
            await ask(connection, "before")
            began = trio.current_time()
            async with connection.stream(model="m", input=THE_TURN, delivery=choice) as stream:
                receipt = await stream.steer("Stop.")
                again = cell.at_least_once and choice == "at_least_once"
                await check_turn(cell, stream, again=again)
            waited = cell.then.delay if again and cell.then.ended_by is None else 0.0
            expected, delayed = cell.after.seconds + waited, cell.delayed if again else 0.0
            seconds = trio.current_time() - began
            assert expected + 0.75 * delayed - 1e-6 <= seconds <= expected + delayed + 1e-6
            assert sum(one["type"] == "response.steer" for _, one in net.commands) == 1
            await wait_all_tasks_blocked()
            await check_next_turn(cell, connection, net, cell.then.delay - waited)
            assert receipt.state is cell.receipt


async def check_turn(cell: Steered, stream: ResponseStream, *, again: bool) -> None:
    """Read to the end of a turn, which may be sent again without the steering input."""
    if cell.raises is None or (again and cell.then.ended_by is None):
        await stream.get_final_response()
        assert len(stream.responses) == (1 if again else cell.responses)
        return
    with pytest.raises(ResponsesError) as failure:
        await stream.get_final_response()
    assert type(failure.value) is cell.raises
    assert failure.value.delivery is cell.delivery


async def check_next_turn(
    cell: Steered, connection: ResponsesConnection, net: FakeNet, delay: float
) -> None:
    if cell.then.ended_by is not None:
        with pytest.raises(cell.then.ended_by) as failure:
            await ask(connection, "next")
        assert failure.value.delivery is DeliveryStatus.NOT_SENT
        return
    began = trio.current_time()
    await ask_strictly(connection, "next")
    assert trio.current_time() - began == pytest.approx(delay)
    assert len(net.dialled) == cell.then.sockets
    await trio.sleep(2 * TIMEOUTS.close)
    assert_rested(connection)


# --- Closing ----------------------------------------------------------------------------------


async def serve_to_the_close(peer: ServerPeer, cell: Closing) -> None:
    """Answer one turn, begin another, and meet the close frame with the fault."""
    await peer.accept()
    await peer.read_command()
    await peer.answer()
    if not cell.reads:
        await cell.action(peer)
        await trio.sleep_forever()
    await peer.read_to_the_close()
    await cell.action(peer)
    await peer.read_frames()
    await trio.sleep_forever()


async def run_closing(cell: Closing, under_way: str) -> None:
    """Close a connection, and assert the time and the exception of a turn under way."""
    failures: list[ResponsesError] = []

    async def ask_for_long(connection: ResponsesConnection) -> None:
        with pytest.raises(ResponsesError) as failure:
            await connection.create(model="m", input=THE_TURN)
        failures.append(failure.value)

    async def server(peer: ServerPeer) -> None:
        await serve_to_the_close(peer, cell)

    async with nothing_is_left(), open_fake_net() as net, trio.open_nursery() as nursery:
        net.faults.append(server)
        async with net.open_client() as connection:
            await ask(connection, "before")
            if under_way:
                nursery.start_soon(ask_for_long, connection)
            await wait_all_tasks_blocked()
            if cell.capacity is not None:
                # Private: a network has no such setting, and the turn before needs the room.
                net.clients[0]._outgoing.capacity = cell.capacity
            left_at = trio.current_time()
        assert trio.current_time() - left_at == pytest.approx(cell.after.seconds)
        assert trio.current_time() - left_at <= TIMEOUTS.close
        assert connection.state is ConnectionState.CLOSED
        await assert_closed(net)
        await connection.aclose()
    if under_way:
        assert [type(error) for error in failures] == [ConnectionClosed]
        assert failures[0].delivery is (
            DeliveryStatus.ACCEPTED if cell.reads else DeliveryStatus.AMBIGUOUS
        )
