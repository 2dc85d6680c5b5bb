"""The tasks of a connection, and an opening that makes the key while it dials. P1, P2."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.client_tasks import IDLE_TASKS, client_tasks
from trio_responses import Keepalive, RotationPolicy, connect_responses

if TYPE_CHECKING:
    from tests.connection.conftest import Connect
    from trio_responses.testing import ResponsesServer


async def test_an_idle_connection_has_three_tasks(connect: Connect) -> None:
    async with connect() as connection:
        assert client_tasks() == IDLE_TASKS
        await connection.create(model="m", input="hi")
        await wait_all_tasks_blocked()
        assert client_tasks() == IDLE_TASKS
    assert client_tasks() == []


async def test_a_ping_has_a_task_until_it_is_answered(
    server: ResponsesServer, connect: Connect
) -> None:
    async with connect(keepalive=Keepalive(interval=20, timeout=20)):
        await trio.sleep(1010)
        assert client_tasks() == IDLE_TASKS
        server.freeze_all()
        await trio.sleep(15)
        assert len(client_tasks()) == 4


async def test_a_replaced_socket_leaves_no_task(server: ResponsesServer, connect: Connect) -> None:
    async with connect(rotation=RotationPolicy(max_age=10.0, stagger=0.0)):
        await trio.sleep(95)
        assert server.statistics().handshakes > 5
        assert client_tasks() == IDLE_TASKS


async def test_a_connection_that_is_closed_before_its_tasks_run_dials_nothing(
    server: ResponsesServer,
) -> None:
    async with trio.open_nursery() as nursery:
        with trio.CancelScope() as scope:
            scope.cancel()
            await connect_responses(nursery, server.url, api_key="", dial=server.dial)
        assert client_tasks() == []
    assert server.statistics().handshakes == 0


async def test_a_call_of_the_key_function_and_the_dial_take_place_at_the_same_time(
    server: ResponsesServer, connect: Connect
) -> None:
    calls = 0

    async def key() -> str:
        nonlocal calls
        calls += 1
        await trio.sleep(2.0)
        return "k"

    async def dial(host: str, port: int) -> trio.abc.Stream:
        await trio.sleep(3.0)
        return await server.dial(host, port)

    start = trio.current_time()
    async with connect(api_key=key, dial=dial):
        assert trio.current_time() - start == 3.0
        assert calls == 1


async def test_a_dial_that_fails_cancels_the_key_function(connect: Connect) -> None:
    ends: list[float] = []

    async def key() -> str:
        try:
            await trio.sleep(2.0)
        finally:
            ends.append(trio.current_time() - start)
        return "k"

    async def dial(_host: str, _port: int) -> trio.abc.Stream:
        await trio.sleep(1.0 if not ends else 0.0)
        if len(ends) < 1:
            raise OSError("unreachable")
        raise LookupError("a failure of the user's own function")

    start = trio.current_time()
    with pytest.raises(LookupError, match="own function"):
        async with connect(api_key=key, dial=dial, reconnect=[0]):
            raise AssertionError
    assert ends == [1.0, 1.0]
