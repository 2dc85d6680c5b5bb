"""Run the cells of exchanges over HTTP."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.faults.cells import THE_TURN, TIMEOUTS
from tests.faults.rig import ask, assert_rested, nothing_is_left, read_to_the_end
from tests.faults.servers import LIMITS, answer_to, text_of
from tests.faults.turn_runs import End
from tests.transport.http_peer import connect_http, open_peer
from trio_responses import ConnectionClosed, ConnectionState, DeliveryStatus, ResponsesError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from tests.faults.cells import HTTPCell, HTTPClosing, HTTPConnectionKind, Way
    from tests.transport.http_peer import Exchange, HTTPPeer
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
        began = trio.current_time()
        await ask_for(connection, "next")
        assert trio.current_time() - began <= TIMEOUTS.close
        assert len(peer.streams) == cell.streams
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
    assert low - 1e-6 <= end.seconds <= high + 1e-6
