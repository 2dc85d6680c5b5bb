"""The properties that hold for any input: functions that raise AssertionError if one does not.

The tests check each property with a few inputs, the campaign for as long as it runs. P1 to P10 are
the promises in docs/promises.md.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import msgspec
import pytest
import trio
from trio.testing import MockClock

from tests.transport.opened import open_transport
from tests.transport.peer import (
    CLIENT_HAS_LEFT,
    HEADERS,
    KEY,
    assert_secret_kept,
    connection_config,
    open_net,
    text,
)
from trio_responses import _wire as wire
from trio_responses import open_responses
from trio_responses._errors import ConnectError, ConnectionLost, DeliveryStatus, ResponsesError
from trio_responses._protocol.frames import BinaryMessage, FrameReader, OversizeMessage
from trio_responses._settings import Limits, Timeouts
from trio_responses._wire import ErrorEvent, UndecodableFrame, UnknownEvent, decode, decode_item
from trio_responses._wire.base import Unknown
from trio_responses._wire.lenient import replace_lone_surrogates

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from tests.transport.peer import Peer
    from trio_responses._protocol.frames import Message

UNREADABLE: Final = (msgspec.MsgspecError, ValueError, RecursionError)
TIMEOUTS: Final = Timeouts(connect=5, send=5, first_event=10, stall=10, close=5)
LIMIT: Final = 60_000
A_LONG_TIME: Final = 1000.0
CANARY: Final = "canary-4711"


# --- The decoder --------------------------------------------------------------------------


def check_decode(frame: bytes) -> None:
    """P8: any frame is decoded as an event; an event without a record keeps its frame."""
    event = decode(frame)
    if isinstance(event, UndecodableFrame | UnknownEvent | ErrorEvent):
        # The codec decodes a frame with lone surrogates again after it has replaced them.
        assert event.raw in {frame, replace_lone_surrogates(frame)}
    assert event.wire_type is None or isinstance(event.wire_type, str)
    assert event.stream_id is None or isinstance(event.stream_id, str)
    assert event.sequence_number is None or isinstance(event.sequence_number, int)
    _access_event(event)


def _access_event(event: Any) -> None:
    """Access every attribute that is decoded on first access."""
    assert isinstance(repr(event), str)
    if isinstance(event, UndecodableFrame):
        assert event.error
    if isinstance(event, UnknownEvent):
        with suppress(*UNREADABLE):
            event.json()
    if isinstance(event, ErrorEvent):
        assert event.retry_after is None or event.retry_after >= 0
    if isinstance(event, wire.OutputItemAdded | wire.OutputItemDone):
        _access_item(event.item)
    response = getattr(event, "response", None)
    if isinstance(response, wire.Response):
        for item in response.output:
            _access_item(item)
        assert isinstance(response.output_text, str)
        assert isinstance(response.refusal, str)
        assert isinstance(response.function_calls, tuple)
        if response.error is not None:
            assert response.error.retry_after is None or response.error.retry_after >= 0


def check_item(raw: bytes) -> None:
    """P7, P8: any bytes are decoded as an item; an unknown item keeps its bytes."""
    item = decode_item(raw)
    if isinstance(item, Unknown):
        assert bytes(item.raw) == raw
    _access_item(item)


def _access_item(item: Any) -> None:
    assert isinstance(repr(item), str)
    assert isinstance(item.wire_type, str)
    if isinstance(item, Unknown):
        with suppress(*UNREADABLE):
            item.json()
    if isinstance(item, wire.Message):
        assert isinstance(item.output_text, str)
        assert isinstance(item.refusal, str)


def check_reason(frame: bytes) -> None:
    """P9: the error of an undecodable frame, which is logged, has no content of the frame."""
    event = decode(frame)
    if isinstance(event, UndecodableFrame):
        assert CANARY not in event.error


# --- The frame reader ---------------------------------------------------------------------


def read_all(pieces: Sequence[bytes], limit: int) -> tuple[list[Message], bytes, FrameReader]:
    """Feed a frame reader; check that its buffer never exceeds the limit."""
    reader = FrameReader(limit)
    messages: list[Message] = []
    control = b""
    for piece in pieces:
        new, more = reader.feed(piece)
        messages += new
        control += more
        # The collected message, or both ends of an oversize one; and one small incomplete frame.
        assert reader.buffered <= max(limit, 2048) + 4096 + 14
    return messages, control, reader


def check_reader(pieces: Sequence[bytes], limit: int = LIMIT) -> None:
    """P10: bytes are read as messages, control frames or one violation, in pieces of any size."""
    messages, control, reader = read_all(pieces, limit)
    for message in messages:
        if isinstance(message, bytes):
            message.decode()
            assert len(message) <= limit
        elif isinstance(message, OversizeMessage):
            assert message.size > limit
            assert max(len(message.head), len(message.tail)) <= 1024
        else:
            assert isinstance(message, BinaryMessage)
            assert len(message.data) <= limit
    if reader.error is not None:
        assert reader.error.code in {1002, 1007}
        assert reader.error.__traceback__ is None
    whole_messages, whole_control, whole = read_all([b"".join(pieces)], limit)
    assert (messages, control, reader.closed) == (whole_messages, whole_control, whole.closed)
    assert str(reader.error) == str(whole.error)


# --- A socket -----------------------------------------------------------------------------


def run_bounded(work: Callable[[], Awaitable[None]]) -> None:
    """Run an async function with a clock that jumps; waiting for ever is a failure."""

    async def bounded() -> None:
        with trio.fail_after(A_LONG_TIME):
            await work()

    trio.run(bounded, clock=MockClock(autojump_threshold=0))


def check_transport(pieces: Sequence[bytes]) -> None:
    """P1, P3, P10: any bytes after a valid upgrade are messages, then `ConnectionLost`."""

    async def script(peer: Peer) -> None:
        await peer.read_head()
        await peer.send(peer.switching() + b"".join(pieces[:1]))
        for piece in pieces[1:]:
            await peer.send(piece)
            await trio.sleep(0.001)
        await peer.stream.aclose()

    async def work() -> None:
        async with open_net(script) as net:
            options = connection_config(
                net.dial, timeouts=TIMEOUTS, limits=Limits(max_message_bytes=LIMIT)
            )
            async with open_transport(options, HEADERS) as transport:
                messages: list[Message] = []
                try:
                    while True:
                        messages += await transport.receive()
                except ConnectionLost as error:
                    closed_with = error
        assert closed_with.code is not None
        assert 1000 <= closed_with.code <= 4999
        assert messages == read_all(pieces, LIMIT)[0]

    run_bounded(work)


def check_upgrade(response: bytes) -> None:
    """P1, P2, P9: any other response to the upgrade raises `ConnectError` without the key."""

    async def script(peer: Peer) -> None:
        await peer.read_head()
        await peer.send(response)
        await peer.stream.aclose()

    async def work() -> None:
        async with open_net(script) as net:
            with pytest.raises(ConnectError) as caught:
                async with open_transport(connection_config(net.dial, timeouts=TIMEOUTS), HEADERS):
                    pass
            assert_secret_kept(caught.value)
            assert trio.current_time() <= TIMEOUTS.connect + TIMEOUTS.close

    run_bounded(work)


# --- A turn -------------------------------------------------------------------------------


def check_turn(frames: Sequence[bytes]) -> None:
    """P1, P3, P4: whatever frames answer a request, the turn and the connection end once."""

    async def script(peer: Peer) -> None:
        await peer.accept()
        await peer.read_frame()
        for frame in frames:
            await peer.send(text(frame))
        with suppress(*CLIENT_HAS_LEFT):
            while (await peer.read_frame()).opcode != 8:
                pass

    async def work() -> None:
        failure: ResponsesError | None = None
        async with open_net(script) as net:
            async with open_responses(
                "ws://127.0.0.1/v1", api_key=KEY, dial=net.dial, reconnect=[], timeouts=TIMEOUTS
            ) as connection:
                try:
                    async with connection.stream(model="m", input="hi") as stream:
                        async for event in stream:
                            _access_event(event)
                        assert isinstance(stream.response, wire.Response)
                        repr(stream.snapshot)
                except ResponsesError as error:
                    failure = error
            if failure is not None:
                assert isinstance(failure.delivery, DeliveryStatus)
                assert_secret_kept(failure)
            final = connection.statistics()
            assert (final.requests_active, final.unread_bytes) == (0, 0), final
            assert final.events_received <= len(frames)

    run_bounded(work)
