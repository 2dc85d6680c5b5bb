"""P2, P10: servers that fail again and again, and floods."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.faults import faults
from tests.faults.cells import DELAYS, SEND, THE_TURN, TIMEOUTS
from tests.faults.losses import midway
from tests.faults.rig import ask, ask_strictly, assert_rested, leaving_in_time, nothing_is_left
from tests.faults.servers import answer_to, open_fake_net
from tests.testing.driver import NO_WAITING
from tests.transport.peer import PING, frame
from tests.turn.rig import held_bytes
from trio_responses import ConnectionLost, ConnectionState, DeliveryStatus, ReconnectFailed

if TYPE_CHECKING:
    from tests.faults.cells import Action
    from tests.faults.servers import ServerPeer

pytestmark = NO_WAITING

TURNS = 200


DROPS: dict[str, Action] = {
    "reset": faults.reset,
    "FIN": faults.fin,
    "close 1001": faults.close_with(1001),
    "masked frame": faults.masked,
}


@pytest.mark.parametrize("drop", DROPS.values(), ids=DROPS)
async def test_a_server_that_accepts_and_drops_is_given_up(drop: Action) -> None:
    """P2: after the attempts of the policy; an open socket does not reset the count."""

    async def accept_and_drop(peer: ServerPeer) -> None:
        await peer.accept()
        await drop(peer)
        await peer.read_frames()
        raise EOFError

    async with nothing_is_left(), open_fake_net() as net:
        net.faults.extend([accept_and_drop] * 100)
        with pytest.raises(ReconnectFailed) as failure:  # noqa: PT012 - the block is the point
            async with leaving_in_time(net, net.open_client()) as connection:
                while True:
                    await connection.wait_open()
                    await trio.sleep(0.125)
        assert failure.value.attempts == len(DELAYS)
        assert isinstance(failure.value.__cause__, ConnectionLost)
        assert trio.current_time() <= sum(DELAYS) + 0.125 + TIMEOUTS.close
        assert net.dialled == [sum(DELAYS[:n]) for n in range(len(DELAYS) + 1)]


@pytest.mark.parametrize("begun", [False, True])
async def test_a_server_that_drops_every_turn_is_given_up(*, begun: bool) -> None:
    """P2, P4: also in a turn that is sent again; the exception has its delivery."""
    drop = midway(faults.reset) if begun else faults.reset
    async with nothing_is_left(), open_fake_net() as net:
        net.actions.extend([drop] * 100)
        async with leaving_in_time(net, net.open_client()) as connection:
            for _ in DELAYS:
                with pytest.raises(ConnectionLost):
                    await ask(connection, THE_TURN)
            with pytest.raises(ReconnectFailed) as failure:  # the sixth one waits for a socket
                await connection.create(model="m", input=THE_TURN, delivery="at_least_once")
            assert failure.value.delivery is (
                DeliveryStatus.ACCEPTED if begun else DeliveryStatus.AMBIGUOUS
            )
            assert connection.state is ConnectionState.CLOSED
        assert len(net.dialled) == len(DELAYS) + 1
        assert trio.current_time() == sum(DELAYS)


@pytest.mark.parametrize("begun", [False, True])
async def test_a_server_that_drops_every_tenth_turn_is_never_given_up(*, begun: bool) -> None:
    """P2: a finished response resets the count, so that each loss costs the first delay only."""

    async def drop_the_tenth(peer: ServerPeer) -> None:
        await peer.accept()
        for _ in range(9):
            await peer.read_command()
            await peer.answer()
        await peer.read_command()
        if begun:
            await peer.begin()
        peer.reset()
        raise EOFError

    async with nothing_is_left(), open_fake_net() as net:
        net.faults.extend([drop_the_tenth] * TURNS)
        async with leaving_in_time(net, net.open_client()) as connection:
            for n in range(TURNS):
                response = await connection.create(
                    model="m", input=f"turn {n}", delivery="at_least_once"
                )
                assert response.output_text == answer_to(f"turn {n}")
            await wait_all_tasks_blocked()
            assert_rested(connection)
        losses = (TURNS - 1) // 9
        assert len(net.dialled) == losses + 1
        assert trio.current_time() == losses * DELAYS[0]
        assert len(net.commands) == TURNS + losses
        assert connection.statistics().requests_sent == TURNS + losses


async def test_pongs_that_cannot_be_written_do_not_fill_the_memory() -> None:
    """P10: the oldest are left out; the next turn finds that nothing can be written."""

    async def flood(peer: ServerPeer) -> None:
        await peer.accept()
        await peer.read_command()
        await peer.answer()
        for _ in range(600):
            await peer.send(frame(PING, b"x" * 125) * 100)
            await trio.sleep(0.1)
        await trio.sleep_forever()

    async with nothing_is_left(), open_fake_net(capacity=64 * 1024) as net:
        net.faults.append(flood)
        async with leaving_in_time(net, net.open_client()) as connection:
            await ask(connection, "before")
            before = held_bytes(connection)
            await trio.sleep(50)
            assert held_bytes(connection) - before < 256 * 1024  # of 6 MB
            began = trio.current_time()
            await ask_strictly(connection, "next")
            assert trio.current_time() - began == SEND.seconds + DELAYS[0]
