"""Ctrl-C while client and server run in one process: `KeyboardInterrupt` leaves, and nothing else.

An interrupt is raised in whatever code runs when the signal comes: in the program's task, or in a
task of the client or of the server. The tests send the signal at many points of the same program.
"""

from __future__ import annotations

import signal
import sys
from typing import TYPE_CHECKING, Any

import pytest
import trio
from trio.testing import MockClock

from trio_responses import ConnectionLost, function_tool, open_pool
from trio_responses._concurrency import open_collapsing_nursery
from trio_responses.testing import open_test_server

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from types import FrameType

    from trio_responses import FunctionTool

POINTS = 40
"""The number of points of a program at which a signal is sent."""


@pytest.fixture(autouse=True)
def ctrl_c() -> Iterator[None]:
    """Have Ctrl-C do as in a terminal: a shell lets its jobs in the background ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@function_tool(run_in_thread=False)
def get_weather(city: str) -> str:
    """Return the weather in a city."""
    return f"snow in {city}"


@function_tool
def get_weather_slowly(city: str) -> str:
    """Return the weather in a city, in a thread."""
    return get_weather(city)


async def use_a_connection() -> None:
    async with open_test_server() as server, server.open_client() as connection:
        await connection.create("Hello", model="m")
        async with connection.stream("Hello", model="m") as stream:
            async for _ in stream:
                pass


async def use_a_pool() -> None:
    async with (
        open_test_server() as server,
        open_pool(server.url, api_key="", dial=server.dial, per_connection=1) as pool,
        trio.open_nursery() as nursery,
    ):
        for _ in range(2):
            nursery.start_soon(lambda: pool.create("Hello", model="m"))


async def run_tool(tool: FunctionTool[..., str]) -> None:
    async with (
        open_test_server() as server,
        server.open_client() as connection,
        connection.conversation(model="m") as conversation,
    ):
        await conversation.run("How is the weather?", tools=[tool])


async def use_a_tool() -> None:
    await run_tool(get_weather)


async def use_a_tool_in_a_thread() -> None:
    await run_tool(get_weather_slowly)


def run_with_signal(program: Callable[[], Awaitable[None]], point: int) -> tuple[int, str]:
    """Run a program, and send SIGINT when the library makes its n-th call of a built-in function.

    :param point: n; -1 sends no signal.
    :return: the number of such calls, and what the program raised.
    """
    calls = 0

    def count(frame: FrameType, event: str, _: Any) -> None:
        nonlocal calls
        # A profile function sees the calls of itself, and of Trio's start, as well.
        if event == "c_call" and "trio_responses" in frame.f_code.co_filename:
            calls += 1
            if calls == point:
                sys.setprofile(None)
                signal.raise_signal(signal.SIGINT)

    async def main() -> None:
        sys.setprofile(count)
        try:
            await program()
        finally:
            sys.setprofile(None)

    raised = ""
    try:
        trio.run(main, clock=MockClock(autojump_threshold=0))
    except BaseException as error:  # noqa: BLE001 - any exception is a result
        raised = repr(error)
    return calls, raised


@pytest.mark.parametrize("program", [use_a_connection, use_a_pool, use_a_tool])
def test_ctrl_c_at_any_point_is_a_keyboard_interrupt_alone(
    program: Callable[[], Awaitable[None]],
) -> None:
    total, raised = run_with_signal(program, -1)
    assert raised == ""
    # The order of tasks is random in Trio, so that a later run may have fewer calls.
    points = [1 + number * (total * 3 // 4) // POINTS for number in range(POINTS)]
    results = [run_with_signal(program, point)[1] for point in points]
    assert results == ["KeyboardInterrupt()"] * POINTS


def test_ctrl_c_during_a_tool_in_a_thread_is_a_keyboard_interrupt_alone() -> None:
    total, raised = run_with_signal(use_a_tool_in_a_thread, -1)
    assert raised == ""
    points = [1 + number * (total // 2) // 10 for number in range(10)]
    results = [run_with_signal(use_a_tool_in_a_thread, point)[1] for point in points]
    assert results == ["KeyboardInterrupt()"] * len(points)


# --- The rule of the nurseries -----------------------------------------------------------


async def raise_in_task(error: BaseException) -> None:
    raise error


async def lose_a_connection(nursery: trio.Nursery, *errors: BaseException) -> None:
    """Start tasks that raise errors, and raise another one when they have."""
    for error in errors:
        nursery.start_soon(raise_in_task, error)
    try:
        await trio.sleep_forever()
    finally:
        raise ConnectionLost(1006)


async def fail(*errors: BaseException) -> None:
    async with open_collapsing_nursery() as nursery:
        await lose_a_connection(nursery, *errors)


@pytest.mark.parametrize("nested", [False, True])
async def test_an_interrupt_is_raised_without_the_errors_that_it_caused(*, nested: bool) -> None:
    interrupt = KeyboardInterrupt()
    group = BaseExceptionGroup("", [ValueError(), interrupt])
    with pytest.raises(KeyboardInterrupt) as caught:
        await fail(group if nested else interrupt)
    assert caught.value is interrupt


async def test_an_interrupt_in_a_nursery_of_the_program_is_raised_alone() -> None:
    async def program() -> None:
        async with open_test_server(), trio.open_nursery() as nursery:
            await lose_a_connection(nursery, KeyboardInterrupt())

    with pytest.raises(KeyboardInterrupt):
        await program()


async def test_two_errors_without_an_interrupt_are_a_group() -> None:
    with pytest.raises(ExceptionGroup) as caught:
        await fail(ValueError())
    assert {type(error) for error in caught.value.exceptions} == {ConnectionLost, ValueError}
