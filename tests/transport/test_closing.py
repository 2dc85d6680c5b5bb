"""Closing a transport: how long it takes, and what the server gets. P1."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from tests.testing.driver import NO_WAITING
from tests.transport.opened import open_transport, receive
from tests.transport.peer import (
    CLOSE,
    HEADERS,
    PING,
    PONG,
    Peer,
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
from trio_responses._transport.websocket import connect_transport
from trio_responses.testing import MemoryStream

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.transport.peer import ClientFrame, Script

pytestmark = NO_WAITING

QUICK = Timeouts(close=3.0)


class Listener:
    """A server that answers the close frame after some bytes, and collects the client's frames."""

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


async def test_closing_ends_at_once_when_the_server_answers_the_close_frame() -> None:
    """trio-websocket alone waits for the server to close TCP, too."""
    server = Listener()
    async with takes(0.0), open_pair(script=server):
        pass
    (told,) = server.frames
    assert (told.opcode, told.code) == (CLOSE, 1000)


async def test_messages_after_the_close_frame_are_discarded() -> None:
    server = Listener(text("late"), text("x" * 100_000), frame(PONG, b"late"))
    async with takes(0.0), open_pair(script=server):
        pass
    assert len(server.frames) == 1


async def test_a_ping_after_the_clients_close_frame_is_not_answered() -> None:
    """trio-websocket alone raises for it, and then waits for ever."""
    server = Listener(frame(PING, b"1") + frame(PING, b"2"), frame(PING, b"3"))
    async with takes(0.0), open_pair(script=server):
        pass
    assert [told.opcode for told in server.frames] == [CLOSE]


async def test_pings_that_arrive_just_before_closing_do_no_harm() -> None:
    server = Listener()
    async with takes(0.0), open_pair(script=server) as (transport, peer):
        await peer.send(text("last") + frame(PING, b"1") + frame(PING, b"2"))
        assert await transport.receive() == [b"last"]
    assert server.frames[-1].code == 1000


@pytest.mark.parametrize("ticks", range(8))
async def test_closing_may_start_while_pings_are_being_answered(ticks: int) -> None:
    server = Listener()
    async with takes(0.0), open_pair(script=server) as (transport, peer):
        await peer.send(text("last") + frame(PING, b"1") * 10)
        assert await transport.receive() == [b"last"]
        for _ in range(ticks):
            await trio.lowlevel.checkpoint()
    assert [told.opcode for told in server.frames[:-1]] == [PONG] * (len(server.frames) - 1)
    assert server.frames[-1].code == 1000


async def test_a_cancelled_block_does_the_closing_handshake() -> None:
    server = Listener()
    async with open_net(server) as net, takes(0.0):
        with trio.CancelScope() as scope:
            async with open_transport(connection_config(net.dial), HEADERS) as transport:
                scope.cancel()
                await transport.receive()
        assert scope.cancelled_caught
    assert [told.code for told in server.frames] == [1000]


async def test_closing_ends_at_once_when_the_server_closes_at_the_same_time() -> None:
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
async def test_closing_ends_in_time_when_the_server_never_answers_the_close_frame(
    script: Script, *, cancelled: bool
) -> None:
    async with open_net(script) as net, takes(3.0):
        with trio.CancelScope() as scope:
            async with open_transport(connection_config(net.dial, timeouts=QUICK), HEADERS):
                if cancelled:
                    scope.cancel()


async def test_closing_ends_in_time_when_the_server_never_reads() -> None:
    async with takes(3.0), open_pair(capacity=5, timeouts=QUICK):
        pass


async def test_a_sender_does_not_delay_closing() -> None:
    async with takes(3.0), open_pair(capacity=1000, timeouts=QUICK) as (transport, _):

        async def send() -> None:
            with pytest.raises(ConnectionLost):
                await transport.send(b"x" * 5000)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            await trio.testing.wait_all_tasks_blocked()
            await transport.aclose()


@pytest.mark.parametrize("vanish", [MemoryStream.reset, MemoryStream.close])
async def test_closing_ends_at_once_when_the_server_disconnects_meanwhile(
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
async def test_a_lost_socket_is_closed_at_once(end: str) -> None:
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


async def test_a_lost_socket_that_no_reader_noticed_is_closed_at_once() -> None:
    async with takes(0.0), open_pair() as (_, peer):
        await peer.stream.aclose()


async def test_closing_ends_in_time_after_a_protocol_violation() -> None:
    async with takes(3.0), open_pair(timeouts=QUICK) as (transport, peer):
        await peer.send(b"\xff\xff")
        assert (await lost(transport)).code == 1002


async def test_closing_a_second_time_does_nothing() -> None:
    server = Listener()
    async with takes(0.0), open_pair(script=server) as (transport, _):
        await transport.aclose()
        await transport.aclose()
    assert len(server.frames) == 1


async def test_closing_ends_a_receive_in_another_task() -> None:
    server = Listener()
    async with takes(0.0), open_pair(script=server) as (transport, _):
        codes: list[int | None] = []

        async def receive() -> None:
            codes.append((await lost(transport)).code)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive)
            await trio.testing.wait_all_tasks_blocked()
            await transport.aclose()
        assert codes == [1000]
    assert server.frames[0].code == 1000


async def test_a_cut_frame_is_not_followed_by_a_close_frame() -> None:
    """The server would read it as the rest of the message."""
    async with open_pair(capacity=1000, timeouts=Timeouts(send=2.0)) as (transport, peer):
        with pytest.raises(ConnectionLost):
            await transport.send(b"x" * 5000)
    assert await peer.read_frames() == []


async def test_a_ping_that_closing_cuts_short_is_not_followed_by_a_close_frame() -> None:
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
                    await receive(transport)
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
async def test_an_exception_of_the_block_is_raised_unchanged(error: BaseException) -> None:
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


async def test_an_interrupted_closing_handshake_still_closes_the_socket(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """P1: no other scope cancels trio-websocket's tasks, which are shielded."""

    async def interrupted(max_bytes: int | None = None) -> bytes:
        await trio.lowlevel.checkpoint()
        raise KeyboardInterrupt(max_bytes)

    async with open_net(Peer.accept) as net:
        async with trio.open_nursery() as nursery:
            config = connection_config(net.dial, keepalive=Keepalive())
            transport = await connect_transport(nursery, config, HEADERS)
            with monkeypatch.context() as patch:
                patch.setattr(net.clients[0], "receive_some", interrupted)
                with pytest.raises(KeyboardInterrupt):
                    await transport.aclose()
            await trio.testing.wait_all_tasks_blocked()
            left = len(nursery.child_tasks)
            transport._control_stream.reader_scope.cancel()  # it would hang the test
        assert left == 0
        with pytest.raises(trio.ClosedResourceError):
            await net.clients[0].receive_some()
