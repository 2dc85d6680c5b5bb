"""P2, P10: servers that do wrong again and again: which are given up, and which are survived."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.faults import faults
from tests.faults.cells import DELAYS, SEND, THE_TURN, TIMEOUTS
from tests.faults.losses import midway
from tests.faults.rig import ask, ask_strictly, assert_rested, leaving_in_time, nothing_is_left
from tests.faults.servers import heard, open_site
from tests.testing.driver import NO_WAITING
from tests.transport.peer import PING, frame
from trio_responses import ConnectionLost, ConnectionState, DeliveryStatus, ReconnectFailed

if TYPE_CHECKING:
    from tests.faults.cells import Strike
    from tests.faults.servers import Seat

pytestmark = NO_WAITING

TURNS = 2000


DROPS: dict[str, Strike] = {
    "reset": faults.reset,
    "FIN": faults.fin,
    "close 1001": faults.close_with(1001),
    "masked frame": faults.masked,
}


@pytest.mark.parametrize("drop", DROPS.values(), ids=DROPS)
async def test_a_server_that_accepts_and_drops_is_given_up(drop: Strike) -> None:
    """P2: after the attempts of the policy, which an open socket does not begin anew."""

    async def accept_and_drop(seat: Seat) -> None:
        await seat.accept()
        await drop(seat)
        await seat.read_frames()
        raise EOFError

    async with nothing_is_left(), open_site() as site:
        site.faults.extend([accept_and_drop] * 100)
        with pytest.raises(ReconnectFailed) as failure:  # noqa: PT012 - the block is the point
            async with leaving_in_time(site, site.open_client()) as connection:
                while True:
                    await connection.wait_open()
                    await trio.sleep(0.125)
        assert failure.value.attempts == len(DELAYS)
        assert isinstance(failure.value.__cause__, ConnectionLost)
        assert trio.current_time() <= sum(DELAYS) + 0.125 + TIMEOUTS.close
        assert site.dialled == [sum(DELAYS[:n]) for n in range(len(DELAYS) + 1)]


@pytest.mark.parametrize("begun", [False, True])
async def test_a_server_that_drops_every_turn_is_given_up(*, begun: bool) -> None:
    """P2, P4: also by a turn that is to be sent again, and it says how far it had come."""
    drop = midway(faults.reset) if begun else faults.reset
    async with nothing_is_left(), open_site() as site:
        site.strikes.extend([drop] * 100)
        async with leaving_in_time(site, site.open_client()) as connection:
            for _ in DELAYS:
                with pytest.raises(ConnectionLost):
                    await ask(connection, THE_TURN)
            with pytest.raises(ReconnectFailed) as failure:  # the sixth one waits for a socket
                await connection.create(model="m", input=THE_TURN, delivery="at_least_once")
            assert failure.value.delivery is (
                DeliveryStatus.ACCEPTED if begun else DeliveryStatus.AMBIGUOUS
            )
            assert connection.state is ConnectionState.CLOSED
        assert len(site.dialled) == len(DELAYS) + 1
        assert trio.current_time() == sum(DELAYS)


@pytest.mark.parametrize("begun", [False, True])
async def test_a_server_that_drops_every_tenth_turn_is_survived_for_ever(*, begun: bool) -> None:
    """P2: a finished response is proof of health; so each loss costs the first delay only."""

    async def drop_the_tenth(seat: Seat) -> None:
        await seat.accept()
        for _ in range(9):
            await seat.read_command()
            await seat.answer()
        await seat.read_command()
        if begun:
            await seat.begin()
        seat.reset()
        raise EOFError

    async with nothing_is_left(), open_site() as site:
        site.faults.extend([drop_the_tenth] * TURNS)
        async with leaving_in_time(site, site.open_client()) as connection:
            for n in range(TURNS):
                response = await connection.create(
                    model="m", input=f"turn {n}", delivery="at_least_once"
                )
                assert response.output_text == heard(f"turn {n}")
            await wait_all_tasks_blocked()
            assert_rested(connection)
        losses = (TURNS - 1) // 9
        assert len(site.dialled) == losses + 1
        assert trio.current_time() == losses * DELAYS[0]
        assert len(site.commands) == TURNS + losses
        assert connection.statistics().requests_sent == TURNS + losses


async def test_pings_whose_answers_nobody_reads_do_not_fill_the_memory() -> None:
    """P10: the oldest are left out; the next turn finds out that nothing can be written."""

    async def flood(seat: Seat) -> None:
        await seat.accept()
        await seat.read_command()
        await seat.answer()
        for _ in range(600):
            await seat.send(frame(PING, b"x" * 125) * 100)
            await trio.sleep(0.1)
        await trio.sleep_forever()

    async with nothing_is_left(), open_site(capacity=64 * 1024) as site:
        site.faults.append(flood)
        async with leaving_in_time(site, site.open_client()) as connection:
            await ask(connection, "before")
            await trio.sleep(50)
            link = connection._engine.sockets.current
            assert link is not None
            assert link.transport.pending_control_bytes <= 128 * 1024
            began = trio.current_time()
            await ask_strictly(connection, "next")
            assert trio.current_time() - began == SEND.seconds + DELAYS[0]
