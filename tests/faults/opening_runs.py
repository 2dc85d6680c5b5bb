"""Run the cells of a socket that is opened."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.faults.cells import (
    DELAYS,
    STEADY,
    THE_TURN,
)
from tests.faults.rig import (
    ask_strictly,
    leaving_in_time,
    nothing_is_left,
)
from tests.faults.servers import open_fake_net
from tests.turn.rig import assert_at_rest
from trio_responses import ConnectionState, DeliveryStatus, ReconnectFailed, ResponsesError

if TYPE_CHECKING:
    from tests.faults.cells import (
        Opening,
    )
    from tests.faults.servers import FakeNet, Route


ROUTES: Final[dict[str, Route]] = {"proxy": "proxy", "TLS": "tls"}


def arrange(net: FakeNet, cell: Opening, *, times: int) -> None:
    """Set the fault for the next dials."""
    if cell.dial is not None:
        net.dial_faults.extend([cell.dial] * times)
    if cell.server is not None:
        net.faults.extend([cell.server] * times)


async def pass_over(cell: Opening, *, after_a_loss: bool) -> None:
    """Meet the fault once: the turn waits for the next socket, and does not see the fault."""
    async with nothing_is_left(), open_fake_net(ROUTES.get(cell.phase, "plain")) as net:
        began = trio.current_time()
        wait = cell.takes.seconds
        delays = iter(DELAYS)
        if not after_a_loss:
            arrange(net, cell, times=1)
        async with leaving_in_time(net, net.open_client()) as connection:
            if after_a_loss:
                await ask_strictly(connection, "before")
                arrange(net, cell, times=1)
                net.peers[0].reset()
                await wait_all_tasks_blocked()
                began = trio.current_time()
                wait += next(delays)
            await ask_strictly(connection, THE_TURN)
            if cell.error is not None:
                wait += max(next(delays), cell.retry_after or 0.0)
            assert trio.current_time() - began == pytest.approx(wait)
            await ask_strictly(connection, "next")
            assert net.times_asked() == 1
            assert_at_rest(connection)


async def give_up(cell: Opening, *, after_a_loss: bool) -> None:
    """Meet the fault for good: the exception has the cause, at the time that the policy sets."""
    assert cell.error is not None
    async with nothing_is_left(), open_fake_net(ROUTES.get(cell.phase, "plain")) as net:
        client = net.open_client()
        if not after_a_loss:
            arrange(net, cell, times=10)
            with pytest.raises(ResponsesError) as failure:
                async with leaving_in_time(net, client):
                    pytest.fail("it opened")
            check_given_up(cell, failure.value, net, after_a_loss=False)
            return
        async with leaving_in_time(net, client) as connection:
            await ask_strictly(connection, "before")
            arrange(net, cell, times=10)
            net.peers[0].reset()
            await wait_all_tasks_blocked()
            with pytest.raises(ResponsesError) as failure:
                await connection.create(model="m", input=THE_TURN)
            assert failure.value.delivery is DeliveryStatus.NOT_SENT
            check_given_up(cell, failure.value, net, after_a_loss=True)
            assert connection.state is ConnectionState.CLOSED
            with pytest.raises(type(failure.value)) as again:
                await connection.create(model="m", input="next")
            assert again.value is not failure.value
            assert again.value.delivery is DeliveryStatus.NOT_SENT
        assert net.times_asked() == 0


def check_given_up(
    cell: Opening, error: ResponsesError, net: FakeNet, *, after_a_loss: bool
) -> None:
    """Assert the exception, its time and the number of attempts (P2)."""
    assert cell.error is not None
    elapsed = trio.current_time()
    waits = [max(delay, cell.retry_after or 0.0) for delay in DELAYS]
    if after_a_loss:
        waits[0] = DELAYS[0]
    impatient = (cell.retry_after or 0.0) > STEADY.max_retry_after
    if not cell.retried or impatient:
        waits = waits[:1] if after_a_loss else []
    attempts = len(waits) + (0 if after_a_loss else 1)
    assert elapsed == pytest.approx(sum(waits) + attempts * cell.takes.seconds)
    assert len(net.dialled) == attempts + (1 if after_a_loss else 0)
    cause: BaseException | None = error
    if cell.retried:
        assert type(error) is ReconnectFailed
        assert error.attempts == len(waits)
        cause = error.__cause__
    assert isinstance(cause, cell.error)
    assert type(cause).__name__ == cell.error.__name__
    assert getattr(cause, "status", None) == cell.status
