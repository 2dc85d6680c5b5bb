"""`SocketStream` over real sockets: reading, waiting, the ends, and cancellation."""

from __future__ import annotations

import os
import socket
import struct
import tracemalloc
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final, cast

import pytest
import trio
import trio.testing

from tests.testing.driver import OVER_SOCKETS
from tests.transport.steps import CancelledAtStep
from trio_responses._transport import socket_stream
from trio_responses._transport.dialing import dial_tcp
from trio_responses._transport.socket_stream import SocketStream, wait_first
from trio_responses.testing import memory_connection

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Sequence

    from tests.transport.steps import Moment

pytestmark = [
    OVER_SOCKETS,
    pytest.mark.skipif(not socket_stream.CAN_WAIT_FIRST, reason="sockets have no descriptors"),
]

READ_BYTES: Final = 1024


@asynccontextmanager
async def open_pair() -> AsyncGenerator[tuple[SocketStream, socket.socket], None]:
    """Open a stream, and the server's end of its connection, which blocks."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        stream = await dial_tcp("127.0.0.1", listener.getsockname()[1])
        server, _ = listener.accept()
    assert isinstance(stream, SocketStream)
    with server:
        try:
            yield stream, server
        finally:
            await trio.aclose_forcefully(stream)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[int | str]:
    """The result of each read: how many bytes, or that there were none."""
    results: list[int | str] = []
    read = os.readv

    def record(descriptor: int, buffers: Sequence[memoryview]) -> int:
        try:
            size = read(descriptor, buffers)
        except BlockingIOError:
            results.append("nothing to read")
            raise
        results.append(size)
        return size

    monkeypatch.setattr(os, "readv", record)
    return results


# --- Reading ------------------------------------------------------------------------------


async def test_bytes_that_arrive_one_after_another_take_one_read_each(
    reads: list[int | str],
) -> None:
    async with open_pair() as (stream, server):
        for piece in (b"one", b"two", b"three"):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(expect, stream, piece)
                await trio.testing.wait_all_tasks_blocked()
                server.sendall(piece)
    assert reads == [3, 3, 5]


async def test_after_a_full_read_the_next_one_does_not_wait(reads: list[int | str]) -> None:
    async with open_pair() as (stream, server):
        server.sendall(bytes(2 * READ_BYTES + 1))
        for size in (READ_BYTES, READ_BYTES, 1):
            assert len(await stream.receive_some(READ_BYTES)) == size
        assert reads == [READ_BYTES, READ_BYTES, 1]


async def test_a_full_read_may_have_been_the_last_one(reads: list[int | str]) -> None:
    async with open_pair() as (stream, server), trio.open_nursery() as nursery:
        server.sendall(bytes(READ_BYTES))
        assert len(await stream.receive_some(READ_BYTES)) == READ_BYTES
        nursery.start_soon(expect, stream, b"more")
        await trio.testing.wait_all_tasks_blocked()
        server.sendall(b"more")
    assert reads == [READ_BYTES, "nothing to read", 4]


async def test_few_bytes_take_little_memory() -> None:
    """Raw JSON that is kept must not keep 64 KiB for each read."""
    async with open_pair() as (stream, server):
        tracemalloc.start()
        try:
            kept: list[bytes | bytearray] = []
            for number in range(20):
                server.sendall(b"%d" % number)
                kept.append(await stream.receive_some())
            assert tracemalloc.get_traced_memory()[1] < 64 * 1024
        finally:
            tracemalloc.stop()
    assert kept == [b"%d" % number for number in range(20)]


async def test_every_receive_is_a_checkpoint() -> None:
    """A read that waits is one, a read that does not wait, and the end of the stream."""
    async with open_pair() as (stream, server):
        server.sendall(b"12345")
        server.shutdown(socket.SHUT_WR)
        for data in (b"12", b"34", b"5", b"", b""):
            with trio.testing.assert_checkpoints():
                assert await stream.receive_some(2) == data


async def test_a_flood_on_one_stream_lets_others_run_after_each_read() -> None:
    """P6: the other stream gets its bytes while the flood is read."""
    async with open_pair() as (flooded, flood), open_pair() as (healthy, server):
        flood.settimeout(0)
        flood.send(bytes(1024 * READ_BYTES))
        reads = 0

        async def read_flood() -> None:
            nonlocal reads
            while True:
                await flooded.receive_some(READ_BYTES)
                reads += 1

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read_flood)
            for _ in range(20):
                reads = 0
                await trio.lowlevel.checkpoint()
                assert reads <= 2
            server.sendall(b"x")
            reads = 0
            assert await healthy.receive_some() == b"x"
            nursery.cancel_scope.cancel()
        assert reads <= 4


@pytest.mark.parametrize("size", [0, -1])
async def test_an_invalid_size_is_refused(size: int) -> None:
    async with open_pair() as (stream, _):
        with pytest.raises(ValueError, match="max_bytes"):
            await stream.receive_some(size)


async def test_what_is_sent_arrives() -> None:
    async with open_pair() as (stream, server):
        await stream.wait_send_all_might_not_block()
        await stream.send_all(b"request")
        assert server.recv(100) == b"request"


async def test_a_second_reader_is_refused() -> None:
    async with open_pair() as (stream, server), trio.open_nursery() as nursery:
        nursery.start_soon(expect, stream, b"x")
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError):
            await stream.receive_some()
        server.sendall(b"x")


# --- Ends ---------------------------------------------------------------------------------


async def test_the_end_follows_the_last_bytes() -> None:
    async with open_pair() as (stream, server):
        server.sendall(b"last")
        server.close()
        assert await stream.receive_some() == b"last"
        assert await stream.receive_some() == b""


async def test_a_reset_is_a_broken_stream() -> None:
    async with open_pair() as (stream, server), trio.open_nursery() as nursery:
        nursery.start_soon(expect_error, stream, trio.BrokenResourceError)
        await trio.testing.wait_all_tasks_blocked()
        server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        server.close()


async def test_a_task_that_waits_gets_the_close_of_another_task() -> None:
    async with open_pair() as (stream, _), trio.open_nursery() as nursery:
        nursery.start_soon(expect_error, stream, trio.ClosedResourceError)
        await trio.testing.wait_all_tasks_blocked()
        await stream.aclose()


@pytest.mark.parametrize("filled", [False, True])
async def test_a_closed_stream_cannot_be_read_and_may_be_closed_again(*, filled: bool) -> None:
    async with open_pair() as (stream, server):
        server.sendall(b"bytes that are left")
        if filled:
            await stream.receive_some(5)
        await stream.aclose()
        await stream.aclose()
        await expect_error(stream, trio.ClosedResourceError)
        with pytest.raises(trio.ClosedResourceError):
            await stream.send_all(b"x")


async def test_a_reader_leaves_a_file_alone_that_has_got_its_descriptor() -> None:
    """The stream is closed after the reader was woken for bytes, and before the reader runs."""
    async with open_pair() as (stream, server), trio.open_nursery() as nursery:
        descriptor = stream.transport_stream.socket.fileno()
        other, other_end = os.pipe()

        def close_and_open() -> None:
            stop(stream.aclose())
            os.dup2(other, descriptor)
            os.write(other_end, b"of the other file")

        nursery.start_soon(expect_error, stream, trio.ClosedResourceError)
        await trio.testing.wait_all_tasks_blocked()
        reader = next(iter(nursery.child_tasks))
        trio.lowlevel.add_instrument(hook := When(reader, close_and_open))
        server.sendall(b"x")
        await trio.testing.wait_all_tasks_blocked()
        assert hook.has_run
        trio.lowlevel.remove_instrument(hook)
        assert os.read(descriptor, 100) == b"of the other file"
        for each in (descriptor, other, other_end):
            os.close(each)


# --- Cancellation -------------------------------------------------------------------------


PIECES: Final = (b"a", b"bc", b"def", b"ghijkl", b"m")


@pytest.mark.parametrize("step", range(1, 12))
@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("most", [3, 100])
@pytest.mark.parametrize("early", [False, True])
async def test_a_receive_that_is_cancelled_at_any_step_loses_nothing(
    step: int, moment: Moment, most: int, *, early: bool
) -> None:
    """Cancelled before a wait, in it, and together with the arrival of bytes.

    The bytes arrive while the task waits for them, or ``early``.
    """
    received = b""
    async with open_pair() as (stream, server), trio.open_nursery() as nursery:

        async def send() -> None:
            for piece in PIECES:
                if not early:
                    await trio.testing.wait_all_tasks_blocked()
                server.sendall(piece)

        nursery.start_soon(send)
        with trio.fail_after(10), CancelledAtStep(step, moment) as scopes:
            while len(received) < len(b"".join(PIECES)):
                with scopes.open():
                    received += await stream.receive_some(most)
    assert received == b"".join(PIECES)


# --- Other streams ------------------------------------------------------------------------


async def test_streams_that_are_no_tcp_connections_are_left_as_they_are() -> None:
    stream, _ = memory_connection()
    assert wait_first(stream) is stream


async def test_a_simulated_socket_is_left_as_it_is() -> None:
    class Simulated:
        def fileno(self) -> int:
            raise NotImplementedError

    with socket.socket() as real:
        stream = trio.SocketStream(trio.socket.from_stdlib_socket(real))
        stream.socket = cast("Any", Simulated())
        assert wait_first(stream) is stream


async def test_where_descriptors_cannot_be_read_trio_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket_stream, "CAN_WAIT_FIRST", value=False)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        stream = await dial_tcp("127.0.0.1", listener.getsockname()[1])
        assert isinstance(stream, trio.SocketStream)
        await stream.aclose()


# --- Helpers ------------------------------------------------------------------------------


async def expect(stream: trio.abc.Stream, data: bytes) -> None:
    assert await stream.receive_some() == data


async def expect_error(stream: trio.abc.Stream, error: type[Exception]) -> None:
    with pytest.raises(error):
        await stream.receive_some()


def stop(coroutine: Any) -> None:
    """Run a coroutine up to its first checkpoint."""
    coroutine.send(None)
    coroutine.close()


class When(trio.abc.Instrument):
    """Calls a function when a task was woken and is about to run."""

    def __init__(self, task: trio.lowlevel.Task, function: Callable[[], None]) -> None:
        self._task = task
        self._function = function
        self.has_run = False

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if task is self._task and not self.has_run:
            self.has_run = True
            self._function()
