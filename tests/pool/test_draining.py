"""`pool.drain()`: the turns of all connections are finished, and idle connections are closed."""

from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.pool.rig import Gate, ask, open_all_connections, open_to
from trio_responses import (
    ConfigurationError,
    ConnectionClosed,
    ConnectionState,
    DeliveryStatus,
    ResponsesPool,
    function_tool,
)
from trio_responses.stores import Lease, MemoryStore
from trio_responses.testing import ResponsesServer


class Turns:
    """Turns that run in tasks, and how each has ended."""

    def __init__(self, pool: ResponsesPool, nursery: trio.Nursery) -> None:
        self._pool = pool
        self._nursery = nursery
        self.answered = 0
        self.cut_off: list[DeliveryStatus | None] = []

    async def start(self, count: int) -> None:
        for number in range(count):
            self._nursery.start_soon(self._ask, f"{number}")
        await wait_all_tasks_blocked()

    async def _ask(self, text: str) -> None:
        try:
            await ask(self._pool, text)
            self.answered += 1
        except ConnectionClosed as error:
            self.cut_off.append(error.delivery)


async def test_turns_that_run_or_wait_are_finished(server: ResponsesServer) -> None:
    gate = Gate(server)
    async with open_to(server, size=2) as pool, trio.open_nursery() as nursery:
        turns = Turns(pool, nursery)
        await turns.start(50)
        assert pool.statistics().turns_waiting == 18
        nursery.start_soon(pool.drain, 60)
        await wait_all_tasks_blocked()
        assert not pool.is_healthy()
        with pytest.raises(ConnectionClosed, match="the pool is draining") as refused:
            await ask(pool, "late")
        assert refused.value.delivery is DeliveryStatus.NOT_SENT
        gate.open()
    assert turns.answered == 50
    assert server.statistics().requests == 50


async def test_the_deadline_cuts_off_the_rest(server: ResponsesServer) -> None:
    Gate(server)
    async with open_to(server, size=1) as pool, trio.open_nursery() as nursery:
        turns = Turns(pool, nursery)
        await turns.start(20)
        assert await pool.drain(5) == 20
        await wait_all_tasks_blocked()
        assert turns.cut_off.count(DeliveryStatus.NOT_SENT) == 4
        assert turns.cut_off.count(DeliveryStatus.AMBIGUOUS) == 16
        assert await pool.drain(5) == 0  # closed
    assert trio.current_time() == 5


async def test_idle_connections_are_closed_at_once(server: ResponsesServer) -> None:
    gate = Gate(server)
    async with open_to(server, size=3, per_connection=1) as pool, trio.open_nursery() as nursery:
        await open_all_connections(pool, 3)
        turns = Turns(pool, nursery)
        await turns.start(1)
        nursery.start_soon(pool.drain)
        await wait_all_tasks_blocked()
        [left] = pool.connections
        assert left.state is ConnectionState.DRAINING
        gate.open()
    assert turns.answered == 1


async def test_a_connection_is_kept_for_a_turn_that_waits_to_be_sent_again(
    server: ResponsesServer,
) -> None:
    server.fail("rate_limit_exceeded", status=429, headers={"retry-after": "7"})
    async with open_to(server) as pool, trio.open_nursery() as nursery:
        turns = Turns(pool, nursery)
        await turns.start(1)
        assert await pool.drain() == 0
        assert trio.current_time() == 7
    assert turns.answered == 1
    assert server.statistics().handshakes == 1


async def test_a_connection_is_kept_for_a_call(server: ResponsesServer) -> None:
    gate = Gate(server)
    counted: list[int] = []

    async def count() -> None:
        counted.append(await pool.responses.input_tokens("hi", model="m"))

    async with open_to(server, size=2, per_connection=1) as pool, trio.open_nursery() as nursery:
        await open_all_connections(pool, 2)
        server.refuse(429, headers={"retry-after": "7"}, over="http")
        nursery.start_soon(count)  # by the first connection
        nursery.start_soon(ask, pool.connections[1], "hi")
        await wait_all_tasks_blocked()
        nursery.start_soon(pool.drain)
        await wait_all_tasks_blocked()
        assert len(pool.connections) == 2
        gate.open()
    assert len(counted) == 1
    assert trio.current_time() == 7


async def test_lanes_and_conversations_that_are_idle_do_not_delay_the_end(
    server: ResponsesServer,
) -> None:
    async with open_to(server) as pool, pool.lane() as lane, pool.conversation(model="m") as talk:
        await talk.create("hi")
        await ask(lane, "hi")
        assert await pool.drain() == 0
        for late in (talk.create("late"), ask(lane, "late")):
            with pytest.raises(ConnectionClosed):
                await late


async def test_turns_of_lanes_are_finished(server: ResponsesServer) -> None:
    gate = Gate(server)
    async with open_to(server) as pool, pool.lane() as lane, trio.open_nursery() as nursery:
        for text in ("first", "waits for the first"):
            nursery.start_soon(ask, lane, text)
        await wait_all_tasks_blocked()
        nursery.start_soon(pool.drain)
        await wait_all_tasks_blocked()
        with pytest.raises(ConnectionClosed, match="is draining"):
            await ask(lane, "late")
        gate.open()
    assert server.statistics().requests == 2


async def test_a_durable_conversation_finishes_its_run_and_releases_its_lease(
    server: ResponsesServer,
) -> None:
    working, finished = trio.Event(), list[str]()

    @function_tool
    async def work() -> str:
        """Work."""
        working.set()
        await trio.sleep(4)
        return "done"

    async def handle(pool: ResponsesPool) -> None:
        async with pool.durable_conversation(store, "c", model="m", tools=[work]) as conversation:
            response = await conversation.run("go", request_id="job-1")
            finished.append(response.output_text)

    server.call("work", "{}")
    server.reply("all done")
    async with MemoryStore() as store:
        async with open_to(server) as pool, trio.open_nursery() as nursery:
            nursery.start_soon(handle, pool)
            await working.wait()
            assert await pool.drain(10) == 0
        assert finished == ["all done"]
        async with (
            open_to(server) as pool,
            pool.durable_conversation(store, "c", model="m") as conversation,
        ):
            assert len(conversation.items) == 4  # nothing had to wait for the lease


async def test_a_durable_conversation_that_comes_late_acquires_no_lease(
    server: ResponsesServer,
) -> None:
    class Watched(MemoryStore):
        acquired = 0

        async def acquire(self, conversation_id: str, owner: str, *, seconds: float) -> Lease:
            self.acquired += 1
            return await super().acquire(conversation_id, owner, seconds=seconds)

    async with Watched() as store, open_to(server) as pool:
        await pool.drain()
        with pytest.raises(ConnectionClosed, match="is draining"):
            async with pool.durable_conversation(store, "c", model="m"):
                pytest.fail("the block began")  # pragma: no cover
        assert store.acquired == 0


async def test_a_durable_conversation_that_is_cut_off_releases_its_lease(
    server: ResponsesServer,
) -> None:
    Gate(server)

    async def handle(pool: ResponsesPool) -> None:
        async with pool.durable_conversation(store, "c", model="m") as conversation:
            with pytest.raises(ConnectionClosed):
                await conversation.run("go")

    async with MemoryStore() as store:
        async with open_to(server) as pool, trio.open_nursery() as nursery:
            nursery.start_soon(handle, pool)
            await wait_all_tasks_blocked()
            assert await pool.drain(1) == 1
        async with open_to(server) as pool, pool.durable_conversation(store, "c", model="m"):
            pass


async def test_turns_wait_for_a_reconnect_while_the_pool_drains(server: ResponsesServer) -> None:
    async with open_to(server, size=1) as pool, trio.open_nursery() as nursery:
        server.stop_accepting()
        await server.reset_all()
        await wait_all_tasks_blocked()
        turns = Turns(pool, nursery)
        await turns.start(3)
        nursery.start_soon(pool.drain, 60)
        await trio.sleep(2)
        server.accept_again()
    assert turns.answered == 3


async def test_a_cancelled_drain_leaves_the_pool_draining(server: ResponsesServer) -> None:
    gate = Gate(server)
    async with open_to(server) as pool, trio.open_nursery() as nursery:
        turns = Turns(pool, nursery)
        await turns.start(1)
        with trio.move_on_after(1):
            await pool.drain()
        with pytest.raises(ConnectionClosed, match="is draining"):
            await ask(pool, "late")
        gate.open()
        await wait_all_tasks_blocked()
        assert turns.answered == 1
        assert await pool.drain(1) == 0


async def test_a_pool_may_be_drained_twice_at_the_same_time(server: ResponsesServer) -> None:
    Gate(server)
    async with open_to(server) as pool, trio.open_nursery() as nursery:
        turns = Turns(pool, nursery)
        await turns.start(1)
        nursery.start_soon(pool.drain, 30)
        assert await pool.drain(3) == 1
    assert trio.current_time() == 3


async def test_a_pool_is_drained_in_the_finally_clause_of_a_cancelled_block(
    server: ResponsesServer,
) -> None:
    gate = Gate(server)
    async with trio.open_nursery() as tasks:
        with trio.CancelScope() as scope:
            async with open_to(server) as pool:
                turns = Turns(pool, tasks)
                await turns.start(2)
                scope.cancel()
                try:
                    await trio.sleep_forever()
                finally:
                    with trio.CancelScope(shield=True):
                        tasks.start_soon(pool.drain, 10)
                        await wait_all_tasks_blocked()
                        gate.open()
                        assert await pool.drain(10) == 0
                        await wait_all_tasks_blocked()
                        assert turns.answered == 2


async def test_leaving_the_block_ends_the_draining(server: ResponsesServer) -> None:
    Gate(server)
    async with trio.open_nursery() as tasks, open_to(server) as pool:
        turns = Turns(pool, tasks)
        await turns.start(1)
        tasks.start_soon(pool.drain)
        await wait_all_tasks_blocked()
    assert len(turns.cut_off) == 1


async def test_over_http(server: ResponsesServer) -> None:
    gate = Gate(server)
    async with open_to(server, transport="http") as pool, trio.open_nursery() as nursery:
        turns = Turns(pool, nursery)
        await turns.start(3)
        nursery.start_soon(pool.drain, 60)
        await wait_all_tasks_blocked()
        with pytest.raises(ConnectionClosed):
            await pool.responses.retrieve("resp_1")
        gate.open()
    assert turns.answered == 3


async def test_a_connection_of_a_pool_is_drained_with_the_pool(server: ResponsesServer) -> None:
    async with open_to(server) as pool:
        with pytest.raises(ConfigurationError, match=r"call pool\.drain\(\)"):
            await pool.connections[0].drain()
        assert pool.is_healthy()


@pytest.mark.parametrize("seconds", [-1, "5", None])
async def test_an_invalid_deadline_is_refused(server: ResponsesServer, seconds: Any) -> None:
    async with open_to(server) as pool:
        with pytest.raises(ConfigurationError, match=r"drain\(\) takes seconds"):
            await pool.drain(seconds)
        assert pool.is_healthy()
