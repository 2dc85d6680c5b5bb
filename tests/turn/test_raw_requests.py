"""P6: raw requests and turns that share a socket."""

import gc
from typing import TYPE_CHECKING

import trio
from trio.testing import wait_all_tasks_blocked

from tests.testing.driver import NO_WAITING
from tests.turn.test_memory import PIECES, SMALL, answer, ask_until_one_waits, open_narrow
from trio_responses import BufferOverflow, Limits, Timeouts
from trio_responses._connection.socket import Socket
from trio_responses.types import ResponseCompleted, ResponseCreate

if TYPE_CHECKING:
    from trio_responses.testing import ResponsesServer

pytestmark = NO_WAITING


async def test_a_raw_request_inside_the_iteration_of_a_turn_is_no_deadlock(
    server: "ResponsesServer",
) -> None:
    server.respond_with(answer)
    async with (
        open_narrow(server, limits=SMALL) as connection,
        connection.stream(model="m", input="verbose") as stream,
    ):
        await anext(stream)
        await wait_all_tasks_blocked()
        with trio.fail_after(5000):
            await connection.send(ResponseCreate(model="m", input="inside"))
            while not isinstance(await connection.receive(), ResponseCompleted):
                pass
        assert [piece async for piece in stream.text_deltas()] == PIECES


async def test_unread_events_of_the_channel_keep_no_dead_socket(server: "ResponsesServer") -> None:
    earlier = [one for one in gc.get_objects() if isinstance(one, Socket)]  # of other tests
    async with server.open_client() as connection:
        await connection.send(ResponseCreate(model="m", input="begin to listen"))
        for _ in range(20):
            await connection.create(model="m", input="hi")
            await server.reset_all()
            await trio.sleep(10)
        assert connection.statistics().sockets_opened == 21
        gc.collect()
        # A lost socket is private: no public object refers to it, and it must not live on.
        alive = [one for one in gc.get_objects() if isinstance(one, Socket)]
        assert len([one for one in alive if one not in earlier]) <= 2


async def test_a_channel_goes_on_after_its_overflow(server: "ResponsesServer") -> None:
    """P6: it drops the events up to the overflow, and no later ones."""
    server.respond_with(answer)
    limits = Limits(turn_buffer_bytes=2000, connection_buffer_bytes=20_000)
    async with open_narrow(server, limits=limits, timeouts=Timeouts(stall=30)) as connection:
        await connection.send(ResponseCreate(model="m", input="verbose"))
        await wait_all_tasks_blocked()
        await ask_until_one_waits(connection)
        assert isinstance(await connection.receive(), BufferOverflow)
        await connection.send(ResponseCreate(model="m", input="again"))
        with trio.fail_after(100):
            while not isinstance(await connection.receive(), ResponseCompleted):
                pass
