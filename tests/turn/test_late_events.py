"""P5: an event after the end of a response reaches no later turn, on any kind of connection."""

from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.testing.driver import NO_WAITING
from tests.turn.rig import (
    NEVER_AGAIN,
    ask,
    assert_at_rest,
    delta,
    heard,
    item_done,
    message,
    types,
)
from trio_responses import (
    ConnectionLost,
    DeliveryStatus,
    FirstEventTimeout,
    Limits,
    Recorder,
    Timeouts,
    open_pool,
)
from trio_responses.testing import ResponsesServer
from trio_responses.types import OutputItemDone

pytestmark = NO_WAITING

LATE = item_done(message("late", "msg_late"), 7)
CALL = {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "f", "arguments": "{}"}


@pytest.mark.parametrize("late", [LATE, item_done(CALL), delta("late", item_id="msg_late")])
async def test_a_late_event_is_no_event_of_the_next_turn(
    server: ResponsesServer, late: dict[str, Any]
) -> None:
    server.answer()
    server.answer().inject(late, after_events=0)
    async with server.open_client() as connection:
        await ask(connection, "one")
        async with connection.stream(model="m", input="two") as stream:
            events = [event async for event in stream]
        assert types(events)[0] == "response.created"
        assert len(stream.response.output or ()) == 1
        assert stream.response.output_text == heard("two")
        assert connection.statistics().unrouted_events == 1
        assert_at_rest(connection)


async def test_a_late_event_of_a_lane_is_no_event_of_its_next_turn(server: ResponsesServer) -> None:
    server.answer()
    server.reply("fine", final_output="empty").inject({**LATE, "stream_id": "a"}, after_events=0)
    async with server.open_client() as connection, connection.lane("a") as lane:
        await ask(lane, "one")
        response = await lane.create(model="m", input="two")
        assert response.output_text == "fine"


async def test_a_late_event_of_a_pool_is_no_event_of_the_next_turn(server: ResponsesServer) -> None:
    server.answer()
    server.reply("fine", final_output="empty").inject(LATE, after_events=0)
    async with open_pool(server.url, dial=server.dial, api_key="any", size=1) as pool:
        await ask(pool, "one")
        assert await ask(pool, "two") == "fine"


async def test_a_late_item_is_not_in_the_history_of_a_conversation(server: ResponsesServer) -> None:
    server.answer()
    server.reply("fine", final_output="empty").inject(LATE, after_events=0)
    async with (
        server.open_client() as connection,
        connection.conversation(model="m", store=False) as conversation,
    ):
        await conversation.create("one")
        response = await conversation.create("two")
        assert response.output_text == "fine"
        assert b"late" not in conversation.checkpoint()


async def test_a_late_event_is_not_the_first_event_of_a_turn(server: ResponsesServer) -> None:
    """P3, P4: the deadline for the first event holds, and the request is not known as accepted."""
    server.answer()
    server.answer().inject(LATE, after_events=0).stall(after_events=0)
    async with server.open_client(timeouts=Timeouts(first_event=5, stall=100)) as connection:
        await ask(connection, "one")
        with pytest.raises(FirstEventTimeout) as failure:
            await ask(connection, "two")
        assert trio.current_time() == 5
        assert failure.value.delivery is DeliveryStatus.AMBIGUOUS


async def test_a_late_event_does_not_prove_the_start_of_a_lost_turn(
    server: ResponsesServer,
) -> None:
    server.answer()
    server.answer().inject(LATE, after_events=0).drop(after_events=0)
    async with server.open_client(reconnect=NEVER_AGAIN) as connection:
        await ask(connection, "one")
        with pytest.raises(ConnectionLost) as failure:
            await ask(connection, "two")
        assert failure.value.delivery is DeliveryStatus.AMBIGUOUS


async def test_a_late_event_over_the_size_limit_fails_no_turn(server: ResponsesServer) -> None:
    """P10: the message belongs to the response before."""
    server.answer()
    server.answer().inject(delta("x" * 20_000), after_events=0)
    async with server.open_client(limits=Limits(max_message_bytes=10_000)) as connection:
        await ask(connection, "one")
        assert await ask(connection, "two") == heard("two")
        assert connection.statistics().undecodable_frames == 1


async def test_a_late_event_of_a_turn_that_was_left_is_not_of_the_next_one(
    server: ResponsesServer,
) -> None:
    server.answer()
    server.reply("fine", final_output="empty").inject(LATE, after_events=0)
    async with server.open_client() as connection:
        async with connection.stream(model="m", input="one") as stream:
            await anext(aiter(stream))
        assert await ask(connection, "two") == "fine"


async def test_the_raw_channel_gets_a_late_event(server: ResponsesServer) -> None:
    server.answer()
    server.answer().inject(LATE, after_events=0)
    async with server.open_client() as connection:
        with trio.move_on_after(0):
            await connection.receive()
        await ask(connection, "one")
        assert await ask(connection, "two") == heard("two")
        with trio.fail_after(1):
            event = await connection.receive()
        assert isinstance(event, OutputItemDone)


async def test_a_replay_repeats_a_late_event_at_its_place(
    server: ResponsesServer, tmp_path: Path
) -> None:
    path = tmp_path / "late.jsonl"
    server.answer()
    server.answer().inject(LATE, after_events=0)
    async with AsyncExitStack() as stack:
        recorder = stack.enter_context(Recorder(path))
        connection = await stack.enter_async_context(server.open_client(instruments=[recorder]))
        await ask(connection, "one")
        await ask(connection, "two")
    server.replay(path)
    async with server.open_client() as connection:
        assert await ask(connection, "again") == heard("one")
        assert await ask(connection, "again") == heard("two")
        assert connection.statistics().unrouted_events == 1
