"""What `WebSocketTransport.receive` returns, and what it raises when the socket has ended."""

from __future__ import annotations

import tracemalloc

import pytest
import trio
import trio_websocket

from tests.testing.driver import NO_WAITING
from tests.transport.peer import (
    BINARY,
    CLOSE,
    PING,
    PONG,
    TEXT,
    assert_secret_kept,
    close,
    frame,
    lost,
    open_pair,
    takes,
    text,
)
from trio_responses._errors import ConnectionLost
from trio_responses._protocol.frames import BinaryMessage, OversizeMessage
from trio_responses._settings import Limits
from trio_responses.testing import MemoryStream

pytestmark = NO_WAITING


# --- Batches ------------------------------------------------------------------------------


async def test_all_messages_of_one_read_come_in_one_batch() -> None:
    async with open_pair() as (transport, peer):
        await peer.send(b"".join(text(str(number)) for number in range(100)))
        assert await transport.receive() == [str(number).encode() for number in range(100)]


async def test_the_rest_of_a_read_has_the_time_when_it_is_returned() -> None:
    """A turn whose reader has paused the socket must not time out because of the pause."""
    async with open_pair() as (transport, peer):
        await peer.send(b"".join(text(str(number)) for number in range(300)))
        first = await transport.receive()
        await trio.sleep(1000.0)
        rest = await transport.receive()
        assert len(first) + len(rest) == 300
        assert transport.last_read_at == trio.current_time()


async def test_a_message_is_returned_as_soon_as_it_is_complete() -> None:
    async with open_pair() as (transport, peer):
        await peer.send(text("one") + text("two")[:2])
        assert await transport.receive() == [b"one"]
        with trio.move_on_after(10.0) as scope:
            await transport.receive()
        assert scope.cancelled_caught
        await peer.send(text("two")[2:])
        assert await transport.receive() == [b"two"]


async def test_fragments_are_joined_around_control_frames() -> None:
    async with open_pair() as (transport, peer):
        await peer.send(frame(TEXT, b"a", fin=False) + frame(PING, b"p") + frame(0, b"b"))
        assert await transport.receive() == [b"ab"]
        assert (await peer.read_frame()).opcode == PONG


async def test_a_binary_message_has_a_type_of_its_own() -> None:
    """Binary data is never decoded as text."""
    async with open_pair() as (transport, peer):
        await peer.send(frame(BINARY, b"\xff\x00") + text("next"))
        assert await transport.receive() == [BinaryMessage(b"\xff\x00"), b"next"]


async def test_an_oversize_message_is_reported_in_its_place_and_the_socket_goes_on() -> None:
    """P10, problem 13: no close with 1009, no dead connection."""
    async with open_pair(limits=Limits(max_message_bytes=10)) as (transport, peer):
        await peer.send(text("before") + text("12345678901") + text("1234567890"))
        batch = await transport.receive()
        assert batch == [
            b"before",
            OversizeMessage(11, b"12345678901", b"12345678901"),
            b"1234567890",
        ]
        await peer.send(text("after"))
        assert await transport.receive() == [b"after"]
        await transport.send(b"still open")
        assert (await peer.read_frame()).payload == b"still open"


async def test_an_oversize_message_is_not_kept_in_memory() -> None:
    """P10: 32 MiB arrive, and nearly none of it stays in memory."""
    async with open_pair(capacity=65536, limits=Limits(max_message_bytes=100_000)) as pair:
        transport, peer = pair
        whole = text(b"x" * (32 * 1024 * 1024))

        async def send() -> None:
            with memoryview(whole) as view:
                for start in range(0, len(view), 65536):
                    await peer.stream.send_all(view[start : start + 65536])

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            tracemalloc.start()
            batch = await transport.receive()
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
        assert isinstance(batch[0], OversizeMessage)
        assert batch[0].size == 32 * 1024 * 1024
        assert peak < 2_000_000


# --- Cancelling ---------------------------------------------------------------------------


async def test_a_receive_that_is_cancelled_during_the_diagnosis_can_be_called_again() -> None:
    async with open_pair(capacity=8) as (transport, peer):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(peer.send, frame(PING, b"12345678") + close(4000, "go"))
            with trio.move_on_after(1.0) as scope:  # the pong does not fit, so no answer goes out
                await transport.receive()
        assert scope.cancelled_caught
        async with takes(5.0):
            assert (await lost(transport)).code == 1006


# --- Ends ---------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [1000, 1001, 1003, 1008, 1011, 1012, 1013, 3000, 4000, 4999])
async def test_a_close_frame_ends_the_socket_with_its_code_and_reason(code: int) -> None:
    """Problem 23: code and reason of the server are attributes."""
    async with open_pair() as (transport, peer):
        await trio.sleep(7.0)
        await peer.send(text("one") + text("two") + close(code, "caf\u00e9") + text("behind"))
        assert await transport.receive() == [b"one", b"two"]
        async with takes(0.0):
            error = await lost(transport)
        assert type(error) is ConnectionLost
        assert (error.code, error.reason, error.age) == (code, "caf\u00e9", 7.0)
        assert str(error).endswith(": caf\u00e9")
        assert error.__cause__ is None
        answer = await peer.read_frame()
        assert (answer.opcode, answer.code) == (CLOSE, code)
        assert await lost(transport) is error


async def test_an_empty_close_frame_is_1005() -> None:
    async with open_pair() as (transport, peer):
        await peer.send(close())
        error = await lost(transport)
        assert (error.code, error.reason) == (1005, "")
        assert (await peer.read_frame()).payload == b""


async def test_the_end_of_the_stream_is_1006_after_all_messages() -> None:
    async with open_pair() as (transport, peer):
        await peer.send(text("last") + text("half")[:3])
        await peer.stream.aclose()
        assert await transport.receive() == [b"last"]
        async with takes(0.0):
            error = await lost(transport)
        assert (error.code, error.reason) == (1006, "")
        assert await lost(transport) is error


async def test_a_reset_is_1006_after_all_messages() -> None:
    async with open_pair() as (transport, peer):
        await peer.send(text("last"))
        assert isinstance(peer.stream, MemoryStream)
        peer.stream.reset()
        assert await transport.receive() == [b"last"]
        async with takes(0.0):
            error = await lost(transport)
        assert error.code == 1006
        assert await lost(transport) is error


async def test_an_end_while_a_pong_cannot_be_written_is_noticed_at_once() -> None:
    async with open_pair(capacity=8) as (transport, peer):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(peer.send, frame(PING, b"12345678"))
            with trio.move_on_after(1.0):
                await transport.receive()
        assert isinstance(peer.stream, MemoryStream)
        await peer.stream.send_eof()
        async with takes(0.0):
            assert (await lost(transport)).code == 1006


@pytest.mark.parametrize(
    ("invalid", "code"),
    [
        (b"\x88\x01x", 1002),
        (frame(CLOSE, b"\x00\x00"), 1002),
        (close(999), 1002),
        (close(1004), 1002),
        (close(1005), 1002),
        (close(1006), 1002),
        (close(1015), 1002),
        (close(2999), 1002),
        (close(5000), 1002),
        (frame(CLOSE, b"\x03\xe8\xff"), 1007),
    ],
)
async def test_a_close_frame_that_breaks_the_rules_ends_the_socket_too(
    invalid: bytes, code: int
) -> None:
    async with open_pair() as (transport, peer):
        await peer.send(text("one") + invalid)
        assert await transport.receive() == [b"one"]
        async with takes(0.0):
            error = await lost(transport)
        assert error.code == code
        assert await lost(transport) is error


@pytest.mark.parametrize(
    ("violation", "code"),
    [
        (b"\xc1\x01x", 1002),
        (b"\x81\x81mask\x00", 1002),
        (b"\x83\x00", 1002),
        (b"\x80\x00", 1002),
        (b"\x09\x00", 1002),
        (text(b"\xff"), 1007),
    ],
    ids=["reserved bit", "masked", "unknown opcode", "continuation", "fragmented ping", "UTF-8"],
)
async def test_a_violation_ends_the_socket_with_a_close_frame_for_the_server(
    violation: bytes, code: int
) -> None:
    """trio-websocket alone sends no close frame here, and then hangs."""
    async with open_pair() as (transport, peer):
        await peer.send(text("one") + violation + text("two"))
        assert await transport.receive() == [b"one"]
        async with takes(0.0):
            error = await lost(transport)
        assert error.code == code
        assert error.reason
        assert await lost(transport) is error
    (told,) = await peer.read_frames()
    assert (told.opcode, told.code) == (CLOSE, code)


# --- Control frames -----------------------------------------------------------------------


async def test_pings_are_answered_one_by_one_between_messages() -> None:
    async with open_pair() as (transport, peer):
        pings = [b"", b"a", b"\x00\xff", b"x" * 125]
        await peer.send(b"".join(frame(PING, ping) + text("m") for ping in pings))
        assert await transport.receive() == [b"m"] * 4
        pongs = [await peer.read_frame() for _ in pings]
        assert [pong.opcode for pong in pongs] == [PONG] * 4
        assert [pong.payload for pong in pongs] == pings


async def test_pings_without_messages_are_answered_while_a_task_receives() -> None:
    async with open_pair() as (transport, peer), trio.open_nursery() as nursery:
        nursery.start_soon(transport.receive)
        for number in range(10):
            await peer.send(frame(PING, b"%d" % number))
            assert (await peer.read_frame()).payload == b"%d" % number
        nursery.cancel_scope.cancel()


async def test_an_unsolicited_pong_is_ignored() -> None:
    async with open_pair() as (transport, peer):
        await peer.send(frame(PONG, b"?") + text("next"))
        assert await transport.receive() == [b"next"]
        with trio.move_on_after(1.0) as scope:
            await peer.read_frame()
        assert scope.cancelled_caught


async def test_an_exception_of_trio_websocket_is_the_cause_of_a_loss(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def crash(*_: object) -> None:
        await trio.lowlevel.checkpoint()
        raise ZeroDivisionError

    monkeypatch.setattr(trio_websocket.WebSocketConnection, "_handle_ping_event", crash)
    async with open_pair() as (transport, peer):
        await peer.send(text("one") + frame(PING))
        assert await transport.receive() == [b"one"]
        error = await lost(transport)
        assert error.code == 1006
        assert isinstance(error.__cause__, ZeroDivisionError)
        with pytest.raises(ConnectionLost) as caught:
            await transport.send(b"x")
        assert isinstance(caught.value.__cause__, ZeroDivisionError)
        assert_secret_kept(caught.value)
