"""`TLSStream`: receiving, sending, the end of the stream, and cancellation."""

from __future__ import annotations

import ssl
from itertools import repeat
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.testing.driver import NO_WAITING
from tests.transport.tls_by_hand import (
    EVENTS,
    MUCH,
    NAME,
    Attempt,
    both_versions,
    contexts,
    fail,
    open_pair,
)
from trio_responses._transport.tls import RECORDS_PER_READ, TLSStream

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = NO_WAITING


# --- Receiving ----------------------------------------------------------------------------


@both_versions
async def test_all_records_of_one_read_are_returned_together(version: ssl.TLSVersion) -> None:
    async with open_pair(version, greeting=b"!") as (client, server):
        assert await client.receive(1) == b"!"
        client.cut.reads = 0
        server.put(server.records(*EVENTS))
        assert await client.stream.receive_some() == b"".join(EVENTS)
        assert client.cut.reads == 1


@both_versions
async def test_a_record_that_comes_alone_is_decrypted_in_one_call(
    version: ssl.TLSVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The call that would find no other record raises, which takes as long as a whole record."""
    calls: list[int] = []
    read = ssl.SSLObject.read

    def record(tls: ssl.SSLObject, most: int, buffer: Any) -> Any:
        calls.append(most)
        return read(tls, most, buffer)

    async with open_pair(version, greeting=b"!") as (client, server):
        assert await client.receive(1) == b"!"
        monkeypatch.setattr(ssl.SSLObject, "read", record)
        for event in EVENTS:
            server.put(server.records(event))
            assert await client.stream.receive_some() == event
            assert len(calls) == 1
            calls.clear()


@both_versions
async def test_a_record_and_a_half_do_not_make_the_half_be_forgotten(
    version: ssl.TLSVersion,
) -> None:
    async with open_pair(version, greeting=b"!") as (client, server):
        assert await client.receive(1) == b"!"
        whole, halved = server.records(b"whole"), server.records(b"halved")
        for size in range(len(halved)):
            client.cut.cut([len(whole) + size])
            server.put(whole + halved)
            assert await client.stream.receive_some() == b"whole"
            assert await client.stream.receive_some() == b"halved"
            whole, halved = server.records(b"whole"), server.records(b"halved")


@both_versions
async def test_a_limited_number_of_tiny_records_is_decrypted_between_two_checkpoints(
    version: ssl.TLSVersion,
) -> None:
    async with open_pair(version) as (client, server):
        server.put(server.records(*[b"x"] * (2 * RECORDS_PER_READ)))
        received = b""
        while len(received) < 2 * RECORDS_PER_READ:
            with trio.testing.assert_checkpoints():
                part = await client.stream.receive_some()
            assert 0 < len(part) <= RECORDS_PER_READ
            received += part


@both_versions
async def test_content_that_came_with_the_handshake_is_received(version: ssl.TLSVersion) -> None:
    async with open_pair(version, greeting=b"hello") as (client, _):
        assert await client.stream.receive_some() == b"hello"


@both_versions
async def test_a_record_may_arrive_byte_by_byte(version: ssl.TLSVersion) -> None:
    async with open_pair(version) as (client, server):
        client.cut.cut(repeat(1))
        server.put(server.records(*EVENTS))
        assert await client.receive(len(b"".join(EVENTS))) == b"".join(EVENTS)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.binary(min_size=1)), st.lists(st.integers(1, 300)), st.integers(1, 300))
async def test_the_boundaries_of_reads_do_not_matter(
    contents: list[bytes], sizes: list[int], most: int
) -> None:
    async with open_pair() as (client, server):
        client.cut.cut(sizes)
        server.put(server.records(*contents) + server.alert())
        received = b""
        while data := await client.stream.receive_some(most):
            assert len(data) <= most
            received += data
        assert received == b"".join(contents)


async def test_max_bytes_limits_a_receive_and_the_rest_follows() -> None:
    async with open_pair() as (client, server):
        server.put(server.records(b"one", b"two", b"three"))
        server.to_client.put_eof()
        sizes = [4, 1, 100, 100]
        received = [await client.stream.receive_some(size) for size in sizes]
        assert received == [b"onet", b"w", b"othree", b""]


@pytest.mark.parametrize("size", [0, -1, 1.5])
async def test_an_invalid_max_bytes_is_refused(size: Any) -> None:
    async with open_pair(greeting=b"!") as (client, _):
        with pytest.raises((ValueError, TypeError)):
            await client.stream.receive_some(size)
        assert await client.stream.receive_some(1) == b"!"


async def test_a_receive_is_a_checkpoint() -> None:
    """A receive of content that is decrypted already, or of the end, is one, too."""
    async with open_pair() as (client, server):
        server.put(server.records(b"abc"))
        server.to_client.put_eof()
        for _ in range(5):
            with trio.testing.assert_checkpoints():
                await client.stream.receive_some(1)


# --- Ends ---------------------------------------------------------------------------------


@both_versions
@pytest.mark.parametrize("ending", ["alert", "ragged", "cut record"])
async def test_content_before_the_end_is_received_first(
    version: ssl.TLSVersion, ending: str
) -> None:
    async with open_pair(version) as (client, server):
        server.put(server.records(*EVENTS))
        if ending == "alert":
            server.put(server.alert() + b"what comes behind is not looked at")
        elif ending == "cut record":
            server.put(server.records(b"unfinished")[:-1])
        server.to_client.put_eof()
        assert await client.receive_all() == b"".join(EVENTS)
        assert await client.stream.receive_some() == b""


async def test_sending_works_after_the_server_ended_its_side() -> None:
    """TLS 1.3 closes each direction by itself (RFC 8446, 6.1)."""
    async with open_pair() as (client, server):
        server.put(server.alert())
        assert await client.receive_all() == b""
        await client.stream.send_all(b"and yet")
        assert server.read() == b"and yet"


@both_versions
async def test_a_bad_record_breaks_the_stream_after_the_good_ones(
    version: ssl.TLSVersion,
) -> None:
    async with open_pair(version) as (client, server):
        good, bad = server.records(*EVENTS), bytearray(server.records(b"bad"))
        bad[-1] ^= 1
        server.put(good + bytes(bad) + server.records(b"behind it"))
        assert await client.receive(len(b"".join(EVENTS))) == b"".join(EVENTS)
        for call in [client.stream.receive_some, client.stream.receive_some]:
            with pytest.raises(trio.BrokenResourceError) as caught:
                await call()
            assert isinstance(caught.value.__cause__, ssl.SSLError)
        with pytest.raises(trio.BrokenResourceError):
            await client.stream.send_all(b"x")


async def test_a_break_of_the_stream_below_is_raised() -> None:
    async with open_pair() as (client, server):
        server.put(server.records(*EVENTS))
        assert await client.stream.receive_some(1) == b"e"
        server.to_client.receive_some_hook = server.from_client.send_all_hook = fail
        rest = await client.receive(len(b"".join(EVENTS)) - 1)
        assert b"e" + rest == b"".join(EVENTS)
        with pytest.raises(trio.BrokenResourceError):
            await client.stream.receive_some()
        for _ in range(2):
            with pytest.raises(trio.BrokenResourceError):
                await client.stream.send_all(b"x")


# --- Sending ------------------------------------------------------------------------------


@both_versions
@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
async def test_data_of_every_size_is_sent(
    version: ssl.TLSVersion, kind: Callable[[bytes], bytes]
) -> None:
    contents = [b"", b"a", b"b" * (2**16), b"c" * (2**16 + 1), b"d" * 5_000_000]
    async with open_pair(version) as (client, server):
        for content in contents:
            with trio.testing.assert_checkpoints():
                await client.stream.send_all(kind(content))
        assert server.read() == b"".join(contents)


async def test_large_data_is_sent_and_received_at_once() -> None:
    """Nothing is buffered between the two: each send waits for a receive."""
    content = bytes(range(256)) * 20_000
    server_side, client_side = contexts()
    below, other = trio.testing.lockstep_stream_pair()
    client = TLSStream(below, client_side, server_hostname=NAME)
    server = trio.SSLStream(other, server_side, server_side=True, https_compatible=True)
    received: dict[trio.abc.Stream, bytearray] = {client: bytearray(), server: bytearray()}

    async def receive(stream: trio.abc.Stream) -> None:
        while len(received[stream]) < len(content):
            received[stream] += await stream.receive_some()

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.do_handshake)
            nursery.start_soon(server.do_handshake)
        async with trio.open_nursery() as nursery:
            for stream in received:
                nursery.start_soon(stream.send_all, content)
                nursery.start_soon(receive, stream)
    assert all(got == content for got in received.values())


async def test_two_tasks_cannot_send_or_receive_at_once() -> None:
    async with open_pair() as (client, server), trio.open_nursery() as nursery:
        server.stall()
        Attempt(nursery, client.stream.send_all, b"x" * MUCH)
        Attempt(nursery, client.receive, 1)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError):
            await client.stream.send_all(b"y")
        with pytest.raises(trio.BusyResourceError):
            await client.stream.receive_some()
        server.reading.set()
        server.put(server.records(b"!"))
        await trio.testing.wait_all_tasks_blocked()
        assert server.read() == b"x" * MUCH


# --- Cancelling ---------------------------------------------------------------------------


@both_versions
@pytest.mark.parametrize("late", [True, False])
async def test_a_cancelled_receive_loses_nothing(version: ssl.TLSVersion, late: bool) -> None:  # noqa: FBT001
    """P7: no byte is lost, also when the cancellation comes with the byte."""
    async with open_pair(version) as (client, server):
        contents = EVENTS[:10]
        received = b""
        for position in server.records(*contents):
            async with trio.open_nursery() as nursery:
                attempt = Attempt(nursery, client.stream.receive_some)
                await trio.testing.wait_all_tasks_blocked()
                server.put(bytes([position]))
                if late:
                    await trio.testing.wait_all_tasks_blocked()
                attempt.scope.cancel()
            received += attempt.result or b""
        assert received == b"".join(contents)


async def test_a_receive_that_is_cancelled_at_once_loses_nothing() -> None:
    async with open_pair() as (client, server):
        server.put(server.records(*EVENTS))
        received = b""
        while len(received) < len(b"".join(EVENTS)):
            with trio.CancelScope() as scope:
                scope.cancel()
                await client.stream.receive_some(7)
            assert scope.cancelled_caught
            received += await client.stream.receive_some(7)
        assert received == b"".join(EVENTS)


async def test_a_send_that_is_cancelled_at_once_sends_nothing() -> None:
    async with open_pair() as (client, server):
        with trio.CancelScope() as scope:
            scope.cancel()
            await client.stream.send_all(b"a")
        assert scope.cancelled_caught
        await client.stream.send_all(b"b")
        assert server.read() == b"b"


async def test_after_a_cancelled_send_only_receiving_works() -> None:
    async with open_pair() as (client, server), trio.open_nursery() as nursery:
        server.stall()
        attempt = Attempt(nursery, client.stream.send_all, b"a" * MUCH)
        await trio.testing.wait_all_tasks_blocked()
        attempt.scope.cancel()
        assert await attempt.ends()
        server.reading.set()
        sent = server.read()
        with pytest.raises(trio.BrokenResourceError):
            await client.stream.send_all(b"b")
        assert len(sent) < MUCH
        assert server.read() == b""
        server.put(server.records(*EVENTS))
        assert await client.receive(len(b"".join(EVENTS))) == b"".join(EVENTS)


async def test_a_send_that_is_cancelled_between_two_writes_breaks_the_stream() -> None:
    async with open_pair() as (client, server):
        with trio.CancelScope() as scope:

            async def cancel_behind() -> None:
                await trio.lowlevel.checkpoint()
                scope.cancel()

            server.from_client.send_all_hook = cancel_behind
            await client.stream.send_all(b"a" * MUCH)
        assert scope.cancelled_caught
        server.from_client.send_all_hook = None
        sent = server.read()
        assert 0 < len(sent) < MUCH
        with pytest.raises(trio.BrokenResourceError):
            await client.stream.send_all(b"b")
        assert server.read() == b""


# --- Closing ------------------------------------------------------------------------------


async def test_closing_ends_the_waits_of_other_tasks() -> None:
    async with open_pair() as (client, _), trio.open_nursery() as nursery:
        receiving = Attempt(nursery, client.stream.receive_some)
        await trio.testing.wait_all_tasks_blocked()
        await client.stream.aclose()
        assert await receiving.ends()
        assert isinstance(receiving.result, trio.ClosedResourceError)


async def test_a_closed_stream_raises_closed_resource_error() -> None:
    async with open_pair() as (client, server):
        server.put(server.records(*EVENTS))
        await client.stream.receive_some(1)
        await client.stream.aclose()
        await client.stream.aclose()
        with pytest.raises(trio.ClosedResourceError):
            await client.stream.receive_some(1)
        for content in [b"", b"x"]:
            with pytest.raises(trio.ClosedResourceError):
                await client.stream.send_all(content)
        with pytest.raises(trio.ClosedResourceError):
            await client.stream.wait_send_all_might_not_block()


async def test_trios_checks_for_streams_pass() -> None:
    server_side, client_side = contexts()

    async def connect(
        pair: tuple[trio.abc.Stream, trio.abc.Stream],
    ) -> tuple[TLSStream, trio.SSLStream[trio.abc.Stream]]:
        client = TLSStream(pair[0], client_side, server_hostname=NAME)
        server = trio.SSLStream(pair[1], server_side, server_side=True, https_compatible=True)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.do_handshake)
            nursery.start_soon(server.do_handshake)
        return client, server

    async def make() -> tuple[TLSStream, trio.SSLStream[trio.abc.Stream]]:
        return await connect(trio.testing.memory_stream_pair())

    async def make_clogged() -> tuple[TLSStream, trio.SSLStream[trio.abc.Stream]]:
        return await connect(trio.testing.lockstep_stream_pair())

    await trio.testing.check_two_way_stream(make, make_clogged)
