"""P5: no turn passes another one that has asked before, also where some need not wait."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.testing.driver import NO_WAITING, OVER_SOCKETS
from tests.turn.rig import STEADY, ask, assert_at_rest, heard
from trio_responses import open_responses
from trio_responses._connection.request_queue import RequestQueue
from trio_responses.testing import open_test_server

if TYPE_CHECKING:
    from trio_responses import ResponsesConnection
    from trio_responses.testing import ResponsesServer

TASKS = 40
TURNS = 3


@pytest.fixture(params=["at once", "by waiting"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Admit turns without waiting where that is possible, or only through the queue."""
    if request.param == "by waiting":
        monkeypatch.setattr(RequestQueue, "_admit_at_once", _admit_none)
    return str(request.param)


def _admit_none(*_: object) -> None:
    """Admit no turn."""


async def run_turns(connection: ResponsesConnection) -> tuple[list[str], list[str]]:
    """Run 120 turns in 40 tasks; return their texts as they were asked for and as they finished.

    Each task asks again as soon as it has its answer, when a place is free and others wait.
    """
    asked: list[str] = []
    answered: list[str] = []

    async def task(number: int) -> None:
        for turn in range(TURNS):
            text = f"{number}/{turn}"
            asked.append(text)
            assert await ask(connection, text) == heard(text)
            answered.append(text)

    async with trio.open_nursery() as nursery:
        for number in range(TASKS):
            nursery.start_soon(task, number)
    assert len(asked) == len(answered) == TASKS * TURNS
    return asked, answered


@NO_WAITING
@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("lanes", [True, False])
async def test_turns_of_many_tasks_are_sent_in_the_order_of_the_calls(*, lanes: bool) -> None:
    async with (
        open_test_server(max_age=None, lanes=lanes) as server,
        server.open_client() as connection,
    ):
        asked, answered = await run_turns(connection)
        assert [request["input"] for request in server.requests] == asked
        assert server.statistics().max_active == (16 if lanes else 1)
        if not lanes:
            assert answered == asked
        assert_at_rest(connection)


@OVER_SOCKETS
@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("transport", ["websocket", "http"])
async def test_the_order_holds_over_real_sockets(
    transport: Literal["websocket", "http"],
) -> None:
    async with open_test_server(max_age=None) as server:
        url = await server.serve_tcp()
        async with open_responses(
            url, api_key="key", transport=transport, proxy=None
        ) as connection:
            asked, _ = await run_turns(connection)
            if transport == "websocket":
                assert [request["input"] for request in server.requests] == asked
            assert_at_rest(connection)


@NO_WAITING
@pytest.mark.usefixtures("way")
async def test_a_turn_that_waits_for_a_socket_is_not_passed_by_one_that_comes_when_it_opens(
    server: ResponsesServer,
) -> None:
    """The order in which Trio wakes tasks is random, so a single try would show little."""
    async with server.open_client(reconnect=STEADY) as connection:
        for number in range(20):
            asked: list[str] = []

            async def first(asked: list[str], number: int) -> None:
                asked.append(f"first {number}")
                await ask(connection, asked[-1])

            async def second(asked: list[str], number: int) -> None:
                await connection._engine.wait_open()  # no public call returns at this moment
                asked.append(f"second {number}")
                await ask(connection, asked[-1])

            await server.reset_all()
            await connection._engine.wait_retired()
            sent = len(server.requests)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(second, asked, number)
                await wait_all_tasks_blocked()
                nursery.start_soon(first, asked, number)
            assert asked == [f"first {number}", f"second {number}"]
            assert [request["input"] for request in server.requests[sent:]] == asked


@NO_WAITING
@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("transport", ["websocket", "http"])
async def test_turns_of_a_lane_are_sent_in_order_while_the_lane_becomes_idle_in_between(
    server: ResponsesServer, transport: Literal["websocket", "http"]
) -> None:
    async with server.open_client(transport=transport) as connection, connection.lane() as lane:
        asked: list[str] = []

        async def task(number: int) -> None:
            for turn in range(TURNS):
                asked.append(f"{number}/{turn}")
                await ask(lane, asked[-1])

        async with trio.open_nursery() as nursery:
            for number in range(5):
                nursery.start_soon(task, number)
        assert [request["input"] for request in server.requests] == asked
