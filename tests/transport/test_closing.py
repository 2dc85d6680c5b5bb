"""Leaving the block of `open_transport`: how long it takes, and what the server hears. P1."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from tests.testing.driver import NO_WAITING
from tests.transport.opened import open_transport
from tests.transport.peer import (
    CLOSE,
    HEADERS,
    PING,
    PONG,
    close,
    connection_config,
    frame,
    lost,
    open_net,
    open_pair,
    takes,
    text,
)
from trio_responses._errors import ConnectionLost
from trio_responses._settings import Keepalive, Timeouts
from trio_responses.testing import MemoryStream

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.transport.peer import (
        ClientFrame,
        Peer,
        Script,
    )

pytestmark = NO_WAITING

QUICK = Timeouts(close=3.0)


class Listener:
    """A server that answers the close frame, with some bytes before it, and notes everything."""

    def __init__(self, *before: bytes) -> None:
        self.before = before
        self.frames: list[ClientFrame] = []

    async def __call__(self, peer: Peer) -> None:
        await peer.accept()
        while not self.frames or self.frames[-1].opcode != CLOSE:
            self.frames.append(await peer.read_frame())
        for data in self.before:
            await peer.send(data)
        await peer.send(close(1000))
        self.frames += await peer.read_frames()


async def test_a_server_that_answers_the_close_frame_is_left_at_once() -> None:
    """Surprise 2 of trio-websocket: it waits for the server to close TCP, too."""
    server = Listener()
    async with takes(0.0), open_pair(script=server):
        pass
    (told,) = server.frames
    assert (told.opcode, told.code) == (CLOSE, 1000)


async def test_what_still_comes_is_read_past() -> None:
    server = Listener(text("late"), text("x" * 100_000), frame(PONG, b"late"))
    async with takes(0.0), open_pair(script=server):
        pass
    assert len(server.frames) == 1


async def test_a_ping_behind_our_close_frame_is_not_answered_and_harms_nothing() -> None:
    """trio-websocket crashes on it, and then waits for ever."""
    server = Listener(frame(PING, b"1") + frame(PING, b"2"), frame(PING, b"3"))
    async with takes(0.0), open_pair(script=server):
        pass
    assert [told.opcode for told in server.frames] == [CLOSE]


async def test_pings_that_came_just_before_the_exit_harm_nothing() -> None:
    server = Listener()
    async with takes(0.0), open_pair(script=server) as (transport, peer):
        await peer.send(text("last") + frame(PING, b"1") + frame(PING, b"2"))
        assert await transport.receive() == [b"last"]
    assert server.frames[-1].code == 1000


@pytest.mark.parametrize("ticks", range(8))
async def test_the_exit_may_begin_while_pings_are_being_answered(ticks: int) -> None:
    server = Listener()
    async with takes(0.0), open_pair(script=server) as (transport, peer):
        await peer.send(text("last") + frame(PING, b"1") * 10)
        assert await transport.receive() == [b"last"]
        for _ in range(ticks):
            await trio.lowlevel.checkpoint()
    assert [told.opcode for told in server.frames[:-1]] == [PONG] * (len(server.frames) - 1)
    assert server.frames[-1].code == 1000


async def test_a_cancelled_block_says_good_bye_too() -> None:
    server = Listener()
    async with open_net(server) as net, takes(0.0):
        with trio.CancelScope() as scope:
            async with open_transport(connection_config(net.dial), HEADERS) as transport:
                scope.cancel()
                await transport.receive()
        assert scope.cancelled_caught
    assert [told.code for told in server.frames] == [1000]


async def test_a_server_that_closes_at_the_same_time_is_left_at_once() -> None:
    server = Listener()
    async with takes(0.0), open_pair(script=server) as (transport, peer):
        await peer.send(text("last") + close(1001))
        assert await transport.receive() == [b"last"]
    assert [told.opcode for told in server.frames] == [CLOSE]


async def silent(peer: Peer) -> None:
    await peer.accept()
    await trio.sleep_forever()


async def endless(peer: Peer) -> None:
    await peer.accept()
    while True:
        await peer.send(text("x" * 100))
        await trio.sleep(0.5)


@pytest.mark.parametrize("script", [silent, endless])
@pytest.mark.parametrize("cancelled", [False, True])
async def test_a_server_that_never_answers_the_close_frame_is_left_in_time(
    script: Script, *, cancelled: bool
) -> None:
    async with open_net(script) as net, takes(3.0):
        with trio.CancelScope() as scope:
            async with open_transport(connection_config(net.dial, timeouts=QUICK), HEADERS):
                if cancelled:
                    scope.cancel()


async def test_a_server_that_never_reads_is_left_in_time() -> None:
    async with takes(3.0), open_pair(capacity=5, timeouts=QUICK):
        pass


async def test_a_sender_does_not_hold_up_the_exit() -> None:
    async with takes(3.0), open_pair(capacity=1000, timeouts=QUICK) as (transport, _):

        async def send() -> None:
            with pytest.raises(ConnectionLost):
                await transport.send(b"x" * 5000)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            await trio.testing.wait_all_tasks_blocked()
            await transport.aclose()


@pytest.mark.parametrize("vanish", [MemoryStream.reset, MemoryStream.close])
async def test_a_server_that_vanishes_in_the_closing_handshake_is_left_at_once(
    vanish: Callable[[MemoryStream], None],
) -> None:
    async def script(peer: Peer) -> None:
        await peer.accept()
        await peer.read_frame()
        assert isinstance(peer.stream, MemoryStream)
        vanish(peer.stream)

    async with takes(0.0), open_pair(script=script):
        pass


@pytest.mark.parametrize("end", ["close", "end", "reset"])
async def test_a_lost_socket_is_left_at_once(end: str) -> None:
    async with takes(0.0), open_pair() as (transport, peer):
        assert isinstance(peer.stream, MemoryStream)
        match end:
            case "close":
                await peer.send(close(1012))
            case "end":
                await peer.stream.send_eof()
            case _:
                peer.stream.reset()
        await lost(transport)


async def test_a_lost_socket_that_was_not_noticed_is_left_at_once() -> None:
    async with takes(0.0), open_pair() as (_, peer):
        await peer.stream.aclose()


async def test_a_server_that_broke_the_protocol_and_does_not_hang_up_is_left_in_time() -> None:
    async with takes(3.0), open_pair(timeouts=QUICK) as (transport, peer):
        await peer.send(b"\xff\xff")
        assert (await lost(transport)).code == 1002


async def test_closing_twice_is_closing_once() -> None:
    server = Listener()
    async with takes(0.0), open_pair(script=server) as (transport, _):
        await transport.aclose()
        await transport.aclose()
    assert len(server.frames) == 1


async def test_closing_ends_a_receive_in_another_task() -> None:
    server = Listener()
    async with takes(0.0), open_pair(script=server) as (transport, _):
        codes: list[int] = []

        async def receive() -> None:
            codes.append((await lost(transport)).code)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive)
            await trio.testing.wait_all_tasks_blocked()
            await transport.aclose()
        assert codes == [1000]
    assert server.frames[0].code == 1000


async def test_a_cut_frame_is_not_followed_by_a_close_frame() -> None:
    """The server would take it for the rest of the message."""
    async with open_pair(capacity=1000, timeouts=Timeouts(send=2.0)) as (transport, peer):
        with pytest.raises(ConnectionLost):
            await transport.send(b"x" * 5000)
    assert await peer.read_frames() == []


async def test_a_ping_that_the_exit_cuts_short_is_not_followed_by_a_close_frame() -> None:
    frames: list[ClientFrame] = []

    async def script(peer: Peer) -> None:
        await peer.accept()
        await trio.sleep(13.0)
        frames.extend(await peer.read_frames())

    keepalive = Keepalive(interval=10.0, timeout=10.0)
    async with open_net(script, capacity=5) as net:
        async with takes(12.0):
            with trio.move_on_after(12.0):
                async with open_transport(
                    connection_config(net.dial, keepalive=keepalive), HEADERS
                ) as transport:
                    await transport.receive()
        await trio.sleep(2.0)
        assert frames == []
        assert len(net.peers[0].unfinished) == 5


async def test_an_infinite_close_timeout_waits_for_the_server() -> None:
    async def script(peer: Peer) -> None:
        await peer.accept()
        await peer.read_frame()
        await trio.sleep(10_000.0)
        await peer.send(close(1000))

    async with takes(10_000.0), open_pair(script=script, timeouts=Timeouts(close=math.inf)):
        pass


# --- Exceptions ---------------------------------------------------------------------------


class OwnError(Exception):
    pass


class NoError(BaseException):
    pass


@pytest.mark.parametrize("error", [OwnError("mine"), NoError(), ConnectionLost(1006)])
async def test_an_exception_of_the_block_leaves_it_as_itself(error: BaseException) -> None:
    cause, context = ValueError("cause"), ValueError("context")
    error.__cause__, error.__context__ = cause, context
    async with open_net(Listener()) as net:
        with pytest.raises(type(error)) as caught:
            async with open_transport(connection_config(net.dial), HEADERS):
                raise error
    assert caught.value is error
    assert (error.__cause__, error.__context__) == (cause, context)


async def test_a_group_that_the_block_raises_stays_a_group() -> None:
    error = OwnError()
    async with open_net(Listener()) as net:
        with pytest.raises(ExceptionGroup, match="mine") as caught:
            async with open_transport(connection_config(net.dial), HEADERS):
                raise ExceptionGroup("mine", [error])
    assert caught.value.exceptions == (error,)


async def test_an_exception_of_the_block_is_not_hidden_by_a_server_that_never_answers() -> None:
    async with open_net(silent) as net, takes(5.0):
        with pytest.raises(OwnError):
            async with open_transport(connection_config(net.dial), HEADERS):
                raise OwnError


async def test_an_interrupted_closing_handshake_closes_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """P1: nobody else cancels trio-websocket's tasks, which are shielded."""

    async def interrupted() -> None:
        await trio.lowlevel.checkpoint()
        raise KeyboardInterrupt

    async with open_pair() as (transport, _):
        monkeypatch.setattr(transport, "_discard", interrupted)
        with pytest.raises(KeyboardInterrupt):
            await transport.aclose()
        assert transport._control_stream.scope.cancel_called
        with pytest.raises(trio.ClosedResourceError):
            await transport._stream.receive_some()
