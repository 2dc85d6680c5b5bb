"""`WebSocketTransport.send` writes a whole frame, or nothing, or ends the socket."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from tests.testing.driver import NO_WAITING
from tests.transport.peer import PING, PONG, TEXT, close, frame, lost, open_pair, takes, text
from trio_responses._errors import ConnectionClosed, ConnectionLost, SendTimeout
from trio_responses._settings import Timeouts
from trio_responses.testing import MemoryStream

if TYPE_CHECKING:
    from tests.transport.peer import Peer
    from trio_responses._transport.websocket import WebSocketTransport

pytestmark = NO_WAITING

SLOW = Timeouts(send=30.0)


async def send_in(scope: trio.CancelScope, transport: WebSocketTransport, payload: bytes) -> None:
    with scope:
        await transport.send(payload)


async def drain(peer: Peer) -> bytes:
    """Read and discard the bytes that have arrived."""
    with trio.move_on_after(0.001):
        await peer.read_frames()
    return peer.unfinished


@pytest.mark.parametrize(
    "payload",
    [b"", b"x", "caf\u00e9 \U0001f600".encode()]
    + [b"x" * size for size in (125, 126, 65535, 65536, 1024 * 1024)],
    ids=lambda payload: str(len(payload)),
)
async def test_a_payload_arrives_as_one_masked_text_frame(payload: bytes) -> None:
    async with open_pair(capacity=100_000) as (transport, peer), trio.open_nursery() as nursery:
        nursery.start_soon(transport.send, payload)
        received = await peer.read_frame()
        assert received.opcode == TEXT
        assert received.payload == payload


async def test_every_frame_has_its_own_mask() -> None:
    """RFC 6455, 5.3."""
    async with open_pair() as (transport, peer):
        for _ in range(10):
            await transport.send(b"same")
        assert len({(await peer.read_frame()).mask for _ in range(10)}) == 10


async def test_concurrent_senders_do_not_interleave() -> None:
    payloads = [bytes([65 + number]) * 3000 for number in range(10)]
    async with open_pair(capacity=500) as (transport, peer), trio.open_nursery() as nursery:
        for payload in payloads:
            nursery.start_soon(transport.send, payload)
        received = [(await peer.read_frame()).payload for _ in payloads]
        assert sorted(received) == payloads


async def test_a_pong_is_not_written_inside_a_frame() -> None:
    async with open_pair(capacity=500) as (transport, peer), trio.open_nursery() as nursery:
        nursery.start_soon(transport.send, b"x" * 5000)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(transport.receive)
        await peer.send(frame(PING, b"p"))
        await trio.testing.wait_all_tasks_blocked()
        assert (await peer.read_frame()).payload == b"x" * 5000
        pong = await peer.read_frame()
        assert (pong.opcode, pong.payload) == (PONG, b"p")
        nursery.cancel_scope.cancel()


# --- Cancelling ---------------------------------------------------------------------------


async def test_a_frame_that_was_started_is_finished_despite_a_cancellation() -> None:
    """trio-websocket alone leaves half a frame, and accepts the next send."""
    async with open_pair(capacity=1000) as (transport, peer), trio.open_nursery() as nursery:
        scope = trio.CancelScope()
        nursery.start_soon(send_in, scope, transport, b"a" * 5000)
        await trio.testing.wait_all_tasks_blocked()
        scope.cancel()
        await trio.sleep(1.0)
        nursery.start_soon(transport.send, b"b" * 5000)
        assert (await peer.read_frame()).payload == b"a" * 5000
        assert (await peer.read_frame()).payload == b"b" * 5000


async def test_a_send_that_is_cancelled_while_it_waits_sends_nothing() -> None:
    async with open_pair(capacity=1000) as (transport, peer), trio.open_nursery() as nursery:
        nursery.start_soon(transport.send, b"a" * 5000)
        await trio.testing.wait_all_tasks_blocked()
        with trio.move_on_after(1.0) as scope:
            await transport.send(b"b")
        assert scope.cancelled_caught
        nursery.start_soon(transport.send, b"c")
        assert (await peer.read_frame()).payload == b"a" * 5000
        assert (await peer.read_frame()).payload == b"c"


async def test_a_send_in_a_cancelled_scope_sends_nothing() -> None:
    async with open_pair() as (transport, peer):
        with trio.CancelScope() as scope:
            scope.cancel()
            await transport.send(b"never")
        assert scope.cancelled_caught
        await transport.send(b"next")
        assert (await peer.read_frame()).payload == b"next"


# --- Time ---------------------------------------------------------------------------------


async def test_a_frame_that_takes_too_long_ends_the_socket() -> None:
    async with open_pair(capacity=1000, timeouts=SLOW) as (transport, peer):
        async with takes(30.0):
            with pytest.raises(SendTimeout) as caught:
                await transport.send(b"x" * 5000)
        assert caught.value.size == 5000
        assert isinstance(caught.value, trio.TooSlowError)
        async with takes(0.0):
            with pytest.raises(SendTimeout):
                await transport.send(b"next")
            assert isinstance(await lost(transport), SendTimeout)
        assert len(await drain(peer)) == 1000


async def test_a_receiver_gets_the_send_timeout_too() -> None:
    async with open_pair(capacity=1000, timeouts=SLOW) as (transport, _):

        async def send() -> None:
            with pytest.raises(SendTimeout):
                await transport.send(b"x" * 5000)

        async with trio.open_nursery() as nursery, takes(30.0):
            nursery.start_soon(send)
            assert isinstance(await lost(transport), SendTimeout)


async def test_the_send_timeout_starts_with_the_first_byte() -> None:
    async with (
        open_pair(capacity=1000, timeouts=SLOW) as (transport, peer),
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(transport.send, b"a" * 5000)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(transport.send, b"b" * 5000)
        for payload in (b"a" * 5000, b"b" * 5000):
            await trio.sleep(20.0)
            assert (await peer.read_frame()).payload == payload


async def test_a_cancelled_send_raises_cancelled_after_a_send_timeout() -> None:
    """P1: cancellation is never turned into an error of the library."""
    async with open_pair(capacity=1000, timeouts=SLOW) as (transport, _):
        async with takes(30.0):
            with trio.move_on_after(1.0) as scope:
                await transport.send(b"x" * 5000)
        assert scope.cancelled_caught
        assert isinstance(await lost(transport), SendTimeout)


# --- Ends ---------------------------------------------------------------------------------


async def test_sending_on_a_lost_socket_raises_what_receiving_raised() -> None:
    """Problem 11: a write that cannot arrive raises."""
    async with open_pair() as (transport, peer):
        await peer.send(close(1011))
        error = await lost(transport)
        async with takes(0.0):
            with pytest.raises(ConnectionLost) as caught:
                await transport.send(b"x")
        assert caught.value is error


async def test_sending_on_a_reset_socket_raises_at_once() -> None:
    async with open_pair() as (transport, peer):
        assert isinstance(peer.stream, MemoryStream)
        peer.stream.reset()
        async with takes(0.0):
            with pytest.raises(ConnectionLost) as caught:
                await transport.send(b"x")
        assert caught.value.code == 1006


async def test_a_sender_raises_when_the_socket_ends_meanwhile() -> None:
    async with open_pair(capacity=1000) as (transport, peer):

        async def reset() -> None:
            await trio.sleep(5.0)
            assert isinstance(peer.stream, MemoryStream)
            peer.stream.reset()

        async with trio.open_nursery() as nursery, takes(5.0):
            nursery.start_soon(reset)
            with pytest.raises(ConnectionLost) as caught:
                await transport.send(b"x" * 5000)
        assert caught.value.code == 1006


async def test_a_sender_gets_the_close_code_that_was_received() -> None:
    async with open_pair() as (transport, peer):
        await peer.send(text("one") + close(4001, "bye"))
        await transport.receive()
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(ConnectionLost) as caught:
            await transport.send(b"x")
        assert (caught.value.code, caught.value.reason) == (4001, "bye")


async def test_sending_after_aclose_raises_connection_closed() -> None:
    async with open_pair() as (transport, _):
        await transport.aclose()
        with pytest.raises(ConnectionClosed):
            await transport.send(b"x")


async def test_a_close_frame_in_the_middle_of_an_upload_is_read() -> None:
    """Problem 13: the server closes with 1009 and reads no more, so no answer can be written."""
    async with open_pair(capacity=1000) as (transport, peer):
        failures: list[ConnectionLost] = []

        async def send() -> None:
            with pytest.raises(ConnectionLost) as caught:
                await transport.send(b"x" * 5000)
            failures.append(caught.value)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            await trio.testing.wait_all_tasks_blocked()
            await peer.send(close(1009, "too big"))
            async with takes(5.0):
                assert (await lost(transport)).code == 1009
            await transport.aclose()
        assert failures[0].code == 1009
