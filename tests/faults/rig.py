"""Assertions that hold in every cell of the matrix.

Nothing hangs; a turn ends once; the next turn works and gets its own events only; the statistics
show no active request and no unread byte; closing takes at most ``timeouts.close``; no task and no
socket is left; no request names a parent that its socket does not know.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

import pytest
import trio

from tests.faults.cells import TIMEOUTS
from tests.faults.servers import answer_to
from tests.turn.rig import Crowd, numbers
from trio_responses import ConnectionState, ResponsesError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from tests.faults.servers import FakeNet
    from trio_responses import ResponsesConnection, ResponseStream

A_LONG_TIME: Final = 10_000.0


# --- Turns ------------------------------------------------------------------------------------


async def read_to_the_end(stream: ResponseStream, words: str) -> str:
    """Read a stream to its end, and assert that it ends once and has its own events only."""
    events: list[Any] = []
    failure: ResponsesError | None = None
    try:
        events.extend([event async for event in stream])
    except ResponsesError as error:
        failure = error
    with pytest.raises((StopAsyncIteration, ResponsesError)) as again:
        await anext(stream)
    if failure is not None:
        assert again.value is failure
        with pytest.raises(type(failure)) as kept:
            _ = stream.response
        assert kept.value is failure
        raise failure
    assert isinstance(again.value, StopAsyncIteration)
    if stream.response.status == "completed":
        assert stream.response.output_text == answer_to(words)
        if len(events) > 1:
            assert stream.snapshot.text == answer_to(words)
    return stream.response.status or ""


async def ask_strictly(connection: ResponsesConnection, words: str) -> None:
    """Run a turn without a fault, and assert that it gets its own events, each once."""
    async with connection.stream(model="m", input=words) as stream:
        events = [event async for event in stream]
    own = [event for event in events if event.stream_id is None]
    assert numbers(own) == list(range(6))
    assert stream.response.output_text == answer_to(words)


@asynccontextmanager
async def nothing_is_left() -> AsyncGenerator[None, None]:
    """Limit the time of a block, and assert that it leaves no task."""
    with trio.fail_after(A_LONG_TIME):
        async with Crowd():
            yield


@asynccontextmanager
async def leaving_in_time(net: FakeNet, client: Any) -> AsyncGenerator[ResponsesConnection, None]:
    """Open a connection for a block, and assert that closing takes at most ``timeouts.close``."""
    left_at = 0.0
    try:
        async with client as connection:
            try:
                yield connection
            finally:
                left_at = trio.current_time()
    finally:
        assert trio.current_time() - left_at <= TIMEOUTS.close or left_at == 0
        await assert_closed(net)


async def assert_closed(net: FakeNet) -> None:
    """Assert that no socket is open."""
    for one in net.clients:
        with pytest.raises(trio.ClosedResourceError):
            await one.receive_some()


async def ask(connection: ResponsesConnection, words: str) -> None:
    await connection.create(model="m", input=words)


async def ask_strictly_beside(connection: ResponsesConnection, words: str) -> None:
    async with connection.stream(model="m", input=words) as stream:
        assert numbers([event async for event in stream]) == list(range(6))
    assert stream.response.output_text == answer_to(words)


def assert_rested(connection: ResponsesConnection) -> None:
    counted = connection.statistics()
    assert counted.requests_active == 0
    assert counted.unread_bytes == 0
    assert counted.state is ConnectionState.OPEN
