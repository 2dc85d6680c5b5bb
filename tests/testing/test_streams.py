"""The byte streams of the server."""

import pytest
import trio
import trio.testing

from trio_responses.testing import MemoryStream, memory_connection


async def test_a_memory_connection_passes_the_stream_checks_of_trio() -> None:
    async def open_pair() -> tuple[MemoryStream, MemoryStream]:
        await trio.lowlevel.checkpoint()
        return memory_connection()

    async def clogged_pair() -> tuple[MemoryStream, MemoryStream]:
        left, right = memory_connection(capacity=1)
        await left.send_all(b"x")
        await right.send_all(b"x")
        return left, right

    await trio.testing.check_half_closeable_stream(open_pair, clogged_pair)


async def test_a_full_connection_stops_the_sender() -> None:
    left, right = memory_connection(capacity=4)
    with trio.move_on_after(0.01) as scope:
        await left.send_all(b"123456")
    assert scope.cancelled_caught
    assert await right.receive_some() == b"1234"


async def test_a_reset_breaks_both_ends_after_the_buffered_bytes() -> None:
    left, right = memory_connection()
    await left.send_all(b"sent")
    left.reset()
    assert await right.receive_some() == b"sent"
    with pytest.raises(trio.BrokenResourceError):
        await right.receive_some()
    with pytest.raises(trio.BrokenResourceError):
        await right.send_all(b"x")
    with pytest.raises(trio.ClosedResourceError):
        await left.send_all(b"x")
