"""Run the cells of exchanges over HTTP."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.faults.cells import DELAYS, THE_TURN, TIMEOUTS
from tests.faults.opening_runs import ROUTES, arrange
from tests.faults.rig import (
    ask,
    ask_strictly,
    assert_closed,
    assert_rested,
    nothing_is_left,
    read_to_the_end,
)
from tests.faults.servers import LIMITS, answer_to, open_fake_net, text_of
from tests.faults.turn_runs import End
from tests.transport.http_peer import Exchange, connect_http, open_peer
from tests.turn.rig import assert_at_rest
from trio_responses import (
    ConnectionClosed,
    ConnectionState,
    DeliveryStatus,
    ReconnectFailed,
    ResponsesError,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from tests.faults.cells import HTTPCell, HTTPClosing, HTTPConnectionKind, Opening, Way
    from tests.transport.http_peer import HTTPPeer
    from trio_responses import ResponsesConnection
    from trio_responses.typing import DeliveryMode


class Server:
    """The scripts of a server that answers every turn, except for the fault of its cell."""

    def __init__(self, cell: HTTPCell) -> None:
        self.cell = cell
        self.asked = 0
        """How often the turn that meets the fault was received whole."""
        self.answered = 0

    async def run(self, exchange: Exchange) -> None:
        words = text_of(exchange.request.json)
        if words == THE_TURN:
            self.asked += 1
            if self.asked == 1 and self.cell.script is not None:
                await self.cell.script(exchange)
                return
        self.answered += 1
        await exchange.answer(answer_to(words), f"resp_{self.answered}")


async def ask_for(connection: ResponsesConnection, words: str) -> None:
    async with connection.stream(model="m", input=words) as stream:
        assert await read_to_the_end(stream, words) == "completed"


async def run_turn(
    connection: ResponsesConnection, talk: Any, way: Way, choice: DeliveryMode
) -> End:
    """Run the turn that meets the fault."""
    began = trio.current_time()
    status: str | None = None
    try:
        if way == "conversation":
            async with talk.stream(THE_TURN, delivery=choice) as stream:
                status = await read_to_the_end(stream, THE_TURN)
        else:
            async with connection.stream(model="m", input=THE_TURN, delivery=choice) as stream:
                status = await read_to_the_end(stream, THE_TURN)
    except ResponsesError as error:
        return End(trio.current_time() - began, error=error)
    return End(trio.current_time() - began, status=status)


@asynccontextmanager
async def leaving_in_time(
    peer: HTTPPeer, **options: Any
) -> AsyncGenerator[ResponsesConnection, None]:
    """Open a connection for a block, and assert that closing it takes no time."""
    async with connect_http(peer, timeouts=TIMEOUTS, limits=LIMITS, **options) as connection:
        yield connection
        left_at = trio.current_time()
    assert trio.current_time() == left_at
    assert peer.open_streams == 0


async def run_exchange(
    cell: HTTPCell, kind: HTTPConnectionKind, way: Way, choice: DeliveryMode
) -> None:
    """Run a cell with one method, on a new or a kept-alive HTTP connection."""
    server = Server(cell)
    async with (
        nothing_is_left(),
        open_peer(server.run) as peer,
        leaving_in_time(peer) as connection,
        connection.conversation(model="m", store=False) as talk,
    ):
        peer.capacity = cell.capacity
        if kind == "kept alive":
            await (talk.create("before") if way == "conversation" else ask(connection, "before"))
            await wait_all_tasks_blocked()
        if cell.arrange is not None:
            cell.arrange(peer)
        history = list(talk.items)
        end = await run_turn(connection, talk, way, choice)
        again = cell.repeated or (cell.at_least_once and choice == "at_least_once")
        check_end(cell, end, again=again)
        expected = 1 if cell.received else 0
        assert server.asked == (expected + again if not (again and not cell.received) else 1)
        if way == "conversation" and end.status != "completed":
            assert list(talk.items) == history
        peer.reads, peer.capacity = True, None
        await wait_all_tasks_blocked()
        began = trio.current_time()
        await ask_for(connection, "next")
        assert trio.current_time() == began
        # A request that is sent again at once may find the HTTP connection still in use.
        assert len(peer.streams) in {cell.streams, 2 if again else cell.streams}
        await talk.create("and then")
        async with trio.open_nursery() as nursery:
            for number in range(3):
                nursery.start_soon(ask_for, connection, f"next {number}")
        await trio.sleep(2 * TIMEOUTS.close)
        assert_rested(connection)


def check_end(cell: HTTPCell, end: End, *, again: bool) -> None:
    """Assert the end of the turn, and its time."""
    delayed = cell.delayed if again else 0.0
    low, high = cell.after.seconds + 0.75 * delayed, cell.after.seconds + delayed
    if cell.raises is None or again:
        if end.error is not None:
            raise end.error
        assert end.status == ("completed" if again else cell.status)
    else:
        assert end.error is not None, "it ended well"
        assert type(end.error) is cell.raises, repr(end.error)
        assert end.error.delivery is cell.delivery
    if cell.after.at_most:
        low *= 0.9
    assert low - 1e-6 <= end.seconds <= high + 1e-6


async def run_http_closing(cell: HTTPClosing) -> None:
    """Close a connection in a state of an exchange; assert the time and the turn's exception."""
    failures: list[ResponsesError] = []
    began: list[float] = []

    async def ask_for_long(connection: ResponsesConnection) -> None:
        try:
            await connection.create(model="m", input=THE_TURN, **cell.params)
        except ResponsesError as error:
            failures.append(error)

    async def script(exchange: Exchange) -> None:
        began.append(trio.current_time())
        await (cell.script or Exchange.answer)(exchange)

    async with nothing_is_left(), open_peer(script) as peer, trio.open_nursery() as nursery:
        peer.capacity = cell.capacity
        if cell.arrange is not None:
            cell.arrange(peer)
        try:
            async with connect_http(peer, timeouts=TIMEOUTS, **cell.options) as connection:
                if cell.asked:
                    nursery.start_soon(ask_for_long, connection)
                await trio.sleep(0.5)
                left_at = trio.current_time()
        finally:
            assert peer.open_streams == 0
        assert trio.current_time() - left_at == pytest.approx(cell.after.seconds)
        assert connection.state is ConnectionState.CLOSED
        await wait_all_tasks_blocked()
    if cell.delivery is None:
        assert failures == []
    else:
        assert [type(error) for error in failures] == [ConnectionClosed]
        assert failures[0].delivery is cell.delivery


# --- While an HTTP connection is opened -------------------------------------------------------


async def run_http_opening(cell: Opening, *, kept: bool, for_good: bool) -> None:
    """Meet a fault while an HTTP connection is opened, for the first request or a later one."""
    route = ROUTES.get(cell.phase, "plain")
    async with nothing_is_left(), open_fake_net(route, transport="http") as net:
        async with net.open_client() as connection:
            if kept:
                await ask_strictly(connection, "before")
                net.end_idle()
            dialled, began = len(net.dialled), trio.current_time()
            arrange(net, cell, times=100 if for_good else 1)
            waits = [max(delay, cell.retry_after or 0.0) for delay in DELAYS]
            if not for_good:
                await ask_strictly(connection, THE_TURN)
                wait = cell.takes.seconds + (waits[0] if cell.error is not None else 0.0)
                assert trio.current_time() - began == pytest.approx(wait)
            else:
                with pytest.raises(ResponsesError) as failure:
                    await connection.create(model="m", input=THE_TURN)
                error: BaseException | None = failure.value
                assert failure.value.delivery is DeliveryStatus.NOT_SENT
                waits = waits if cell.retried else []
                attempts = len(waits) + 1
                expected = sum(waits) + attempts * cell.takes.seconds
                assert trio.current_time() - began == pytest.approx(expected)
                assert len(net.dialled) - dialled == attempts
                if cell.retried:
                    assert type(error) is ReconnectFailed
                    error = error.__cause__
                assert type(error) is cell.error
                assert getattr(error, "status", None) == cell.status
                net.faults.clear()
                net.dial_faults.clear()
            await ask_strictly(connection, "next")
            assert net.times_asked() == (0 if for_good else 1)
            assert_at_rest(connection)
            left_at = trio.current_time()
        assert trio.current_time() == left_at
        await assert_closed(net)


async def run_auto(cell: Opening, *, after_a_loss: bool) -> None:
    """Meet a fault of an upgrade for good with ``transport="auto"``: HTTP is used, or is not."""
    route = ROUTES.get(cell.phase, "plain")
    over = cell.over
    async with nothing_is_left(), open_fake_net(route, transport="auto") as net:
        if not after_a_loss:
            arrange(net, cell, times=1 if over is not None else 100)
        try:
            async with net.open_client() as connection:
                if after_a_loss:
                    await connection.create(model="m", input="before")
                    assert connection.statistics().transport == "websocket"
                    arrange(net, cell, times=len(DELAYS) if over is not None else 100)
                    net.peers[0].reset()
                    await wait_all_tasks_blocked()
                await ask_strictly(connection, THE_TURN)
                assert over is not None
                expected = (
                    sum(DELAYS) + len(DELAYS) * cell.takes.seconds if after_a_loss else over.seconds
                )
                assert trio.current_time() == pytest.approx(expected)
                assert connection.statistics().transport == "http"
        except ResponsesError as error:
            assert over is None, repr(error)  # noqa: PT017 - it may be raised by the opening
            assert net.times_asked() == 0
        await assert_closed(net)
