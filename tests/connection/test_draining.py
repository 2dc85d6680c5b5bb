"""`connection.drain()`: what has begun is finished, nothing else begins, the rest is cut off."""

import math
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.connection.test_http_background import cut_after
from tests.pool.rig import Gate
from tests.transport.http_peer import connect_http, open_peer, reply, response, scripts, whole
from trio_responses import (
    ConfigurationError,
    ConnectionClosed,
    ConnectionState,
    DeliveryStatus,
    Endpoint,
    ResponsesConnection,
    function_tool,
)
from trio_responses.stores import MemoryStore
from trio_responses.testing import ResponsesServer

if TYPE_CHECKING:
    from tests.connection.conftest import Connect

MODEL = "m"


class Outcomes(list[str]):
    """The outcomes of turns that run in tasks: ``ok``, or the delivery of a cut off turn."""

    async def run(self, turn: Callable[[], Awaitable[Any]]) -> None:
        try:
            await turn()
        except ConnectionClosed as error:
            self.append(f"{error.delivery}")
        else:
            self.append("ok")

    async def ask(self, connection: ResponsesConnection, text: str) -> None:
        await self.run(lambda: connection.create(model=MODEL, input=text))


async def test_turns_in_flight_and_waiting_ones_are_finished(
    server: ResponsesServer, connect: "Connect"
) -> None:
    gate, outcomes = Gate(server), Outcomes()
    async with connect() as connection, trio.open_nursery() as nursery:
        for number in range(20):  # more than the socket takes at the same time
            nursery.start_soon(outcomes.ask, connection, f"{number}")
        await wait_all_tasks_blocked()
        cut: list[int] = []

        async def drain() -> None:
            cut.append(await connection.drain(60))

        nursery.start_soon(drain)
        await wait_all_tasks_blocked()
        assert connection.state is ConnectionState.DRAINING
        assert connection.statistics().state is ConnectionState.DRAINING
        assert not connection.is_healthy()
        with pytest.raises(ConnectionClosed, match="is draining") as refused:
            await connection.create(model=MODEL, input="late")
        assert refused.value.delivery is DeliveryStatus.NOT_SENT
        gate.open()
        await wait_all_tasks_blocked()
        assert outcomes == ["ok"] * 20
        assert cut == [0]
        assert f"{connection.state}" == "closed"
    assert server.statistics().requests == 20


async def test_what_has_not_ended_at_the_deadline_is_cut_off(
    server: ResponsesServer, connect: "Connect"
) -> None:
    Gate(server)
    outcomes = Outcomes()
    endpoint = Endpoint.compatible(server.url, lanes=True, max_age=None)
    async with connect(endpoint=endpoint) as connection, trio.open_nursery() as nursery:
        for number in range(18):
            nursery.start_soon(outcomes.ask, connection, f"{number}")
        await wait_all_tasks_blocked()
        began = trio.current_time()
        assert await connection.drain(5) == 18
        assert trio.current_time() == began + 5
    assert sorted(outcomes) == ["ambiguous"] * 16 + ["not_sent"] * 2


async def test_everything_that_begins_is_refused(connect: "Connect") -> None:
    async with (
        MemoryStore() as store,
        connect() as connection,
        connection.conversation(model=MODEL) as conversation,
    ):
        async with (
            connection.stream(model=MODEL, input="hi") as stream,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(connection.drain)
            await wait_all_tasks_blocked()
            begin: list[Callable[[], Awaitable[Any]]] = [
                lambda: conversation.create("late"),
                lambda: conversation.run("late"),
                lambda: connection.warm_up(model=MODEL),
                lambda: connection.responses.retrieve("resp_1"),
                lambda: connection.send({"type": "response.create", "input": "late"}),
                connection.lane().__aenter__,
                connection.conversation(model=MODEL).__aenter__,
                connection.durable_conversation(store, "c", model=MODEL).__aenter__,
            ]
            for one in begin:
                with pytest.raises(ConnectionClosed, match="is draining") as refused:
                    await one()
                assert refused.value.delivery is DeliveryStatus.NOT_SENT
            await stream.get_final_response()
        assert await store.get("c") is None  # no lease was acquired


async def test_a_run_goes_on_until_its_last_turn(
    server: ResponsesServer, connect: "Connect"
) -> None:
    draining = trio.Event()

    @function_tool
    async def look_up(city: str) -> str:
        """Look up a city."""
        draining.set()
        await trio.sleep(3)
        return f"{city} is fine"

    server.call("look_up", '{"city": "Oslo"}')
    server.reply("done")
    async with (
        connect() as connection,
        connection.conversation(model=MODEL, tools=[look_up]) as conversation,
        trio.open_nursery() as nursery,
    ):
        outcomes = Outcomes()
        nursery.start_soon(outcomes.run, lambda: conversation.run("go"))
        await draining.wait()
        assert await connection.drain(10) == 0
    assert outcomes == ["ok"]
    assert server.statistics().requests == 2


async def test_turns_of_a_conversation_that_wait_for_one_another_are_finished(
    server: ResponsesServer, connect: "Connect"
) -> None:
    gate, outcomes = Gate(server), Outcomes()
    async with (
        connect() as connection,
        connection.conversation(model=MODEL) as conversation,
        trio.open_nursery() as nursery,
    ):
        for text in ("first", "waits"):
            nursery.start_soon(outcomes.run, lambda text=text: conversation.create(text))
        nursery.start_soon(outcomes.run, lambda: conversation.run("waits"))
        with trio.CancelScope() as given_up:
            async with trio.open_nursery() as short:
                short.start_soon(conversation.create, "cancelled while it waits")
                await wait_all_tasks_blocked()
                given_up.cancel()
        nursery.start_soon(connection.drain, 60)
        await wait_all_tasks_blocked()
        gate.open()
        await wait_all_tasks_blocked()
        assert outcomes == ["ok"] * 3
        assert f"{connection.state}" == "closed"


async def test_a_turn_that_waits_before_it_is_sent_again_goes_on(
    server: ResponsesServer, connect: "Connect"
) -> None:
    server.fail("rate_limit_exceeded", status=429, message="Please try again in 7s.")
    outcomes = Outcomes()
    async with connect() as connection, trio.open_nursery() as nursery:
        nursery.start_soon(outcomes.ask, connection, "hi")
        await wait_all_tasks_blocked()
        assert await connection.drain(10) == 0
        assert trio.current_time() == 7
    assert outcomes == ["ok"]


async def test_a_turn_that_waits_for_a_reconnect_goes_on(
    server: ResponsesServer, connect: "Connect"
) -> None:
    outcomes = Outcomes()
    async with connect() as connection, trio.open_nursery() as nursery:
        server.stop_accepting()
        await server.reset_all()
        await wait_all_tasks_blocked()
        nursery.start_soon(outcomes.ask, connection, "waits")
        await wait_all_tasks_blocked()
        with trio.move_on_after(2):
            await connection.drain()
        assert connection.state is ConnectionState.DRAINING  # after the cancellation
        with pytest.raises(ConnectionClosed, match="is draining"):
            await connection.create(model=MODEL, input="late")
        server.accept_again()
        assert await connection.drain() == 0
    assert outcomes == ["ok"]


async def test_a_reconnect_that_does_not_succeed_ends_with_the_deadline(
    server: ResponsesServer, connect: "Connect"
) -> None:
    outcomes = Outcomes()
    async with connect() as connection, trio.open_nursery() as nursery:
        server.stop_accepting()
        await server.reset_all()
        await wait_all_tasks_blocked()
        nursery.start_soon(outcomes.ask, connection, "waits")
        await wait_all_tasks_blocked()
        assert await connection.drain(2) == 1
    assert outcomes == ["not_sent"]
    assert trio.current_time() == 2


async def test_draining_twice_obeys_the_earlier_deadline(
    server: ResponsesServer, connect: "Connect"
) -> None:
    Gate(server)
    outcomes, cut = Outcomes(), list[int]()
    async with connect() as connection, trio.open_nursery() as nursery:

        async def drain(seconds: float) -> None:
            cut.append(await connection.drain(seconds))

        nursery.start_soon(outcomes.ask, connection, "hi")
        await wait_all_tasks_blocked()
        nursery.start_soon(drain, 30)
        nursery.start_soon(drain, 3)
    assert trio.current_time() == 3
    assert sorted(cut) == [0, 1]
    assert outcomes == ["ambiguous"]


async def test_draining_a_closed_connection_does_nothing(connect: "Connect") -> None:
    async with connect() as connection:
        await connection.aclose()
        assert await connection.drain(5) == 0
    assert await connection.drain() == 0


async def test_closing_ends_the_draining(server: ResponsesServer, connect: "Connect") -> None:
    Gate(server)
    outcomes = Outcomes()
    async with connect() as connection, trio.open_nursery() as nursery:
        nursery.start_soon(outcomes.ask, connection, "hi")
        await wait_all_tasks_blocked()
        nursery.start_soon(connection.drain)
        await wait_all_tasks_blocked()
        await connection.aclose()
    assert outcomes == ["ambiguous"]


async def test_raw_requests_are_finished(server: ResponsesServer, connect: "Connect") -> None:
    gate = Gate(server)
    async with connect() as connection, trio.open_nursery() as nursery:
        await connection.send({"type": "response.create", "model": MODEL, "input": "raw"})
        nursery.start_soon(connection.drain)
        await wait_all_tasks_blocked()
        assert connection.state is ConnectionState.DRAINING
        gate.open()
        types = [getattr(event, "type", "") async for event in connection]
    assert types[-1] == "response.completed"


async def test_over_http_turns_and_calls_are_finished(
    server: ResponsesServer, connect: "Connect"
) -> None:
    gate, outcomes = Gate(server), Outcomes()
    async with connect(transport="http") as connection, trio.open_nursery() as nursery:
        nursery.start_soon(outcomes.ask, connection, "hi")
        nursery.start_soon(outcomes.run, lambda: connection.responses.input_tokens("hi", model="m"))
        await wait_all_tasks_blocked()
        nursery.start_soon(connection.drain, 5)
        await trio.sleep(1)
        gate.open()
    assert outcomes == ["ok", "ok"]
    assert trio.current_time() == 1


async def test_a_lost_response_is_still_retrieved() -> None:
    unfinished = reply(whole(200, response("", status="in_progress")))
    script = scripts(cut_after(2), unfinished, reply(whole(200, response("found"))))
    outcomes = Outcomes()
    async with (
        open_peer(script) as peer,
        connect_http(peer, recover="retrieve") as connection,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(outcomes.ask, connection, "hi")
        await trio.sleep(0.1)
        assert [one.method for one in peer.requests] == ["POST", "GET"]
        assert await connection.drain() == 0
    assert outcomes == ["ok"]


async def test_a_stream_that_is_left_early_is_not_waited_for(
    server: ResponsesServer, connect: "Connect"
) -> None:
    Gate(server)
    async with connect() as connection:
        async with connection.stream(model=MODEL, input="hi"):
            pass
        with trio.move_on_after(1):
            async with connection.stream(model=MODEL, input="cancelled") as stream:
                await stream.get_final_response()
        assert await connection.drain(10) == 0
    assert trio.current_time() == 1


@pytest.mark.parametrize("seconds", [-1, math.nan, "5", None, True])
async def test_an_invalid_deadline_is_refused(connect: "Connect", seconds: Any) -> None:
    async with connect() as connection:
        with pytest.raises(ConfigurationError, match=r"drain\(\) takes seconds"):
            await connection.drain(seconds)
        assert connection.is_healthy()
