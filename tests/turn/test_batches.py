"""P3, P6: `batches()` yields the events of the iteration, as many at once as are there."""

from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final, Literal

import msgspec
import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from tests.testing.driver import NO_WAITING
from tests.turn.rig import (
    assert_at_rest,
    created,
    delta,
    ended,
    heard,
    item_done,
    message,
    numbers,
    types,
)
from trio_responses import (
    APIError,
    ConnectionLost,
    Limits,
    ResponseStream,
    StallTimeout,
    Timeouts,
    ToolFinished,
    ToolStarted,
    TurnRestarted,
    function_tool,
)
from trio_responses._settings import Limits as Settings
from trio_responses._turn.inbox import EVENTS_PER_BATCH, Budget, Inbox
from trio_responses.testing import Call, Reply, WireBytes, open_test_server
from trio_responses.types import ErrorEvent, OutputTextDelta, ResponseCompleted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trio_responses.testing import ResponsesServer
    from trio_responses.typing import StreamEvent

pytestmark = NO_WAITING

TEXTS: Final = [str(number) for number in range(100)]
FRAMES: Final = [created(), *map(delta, TEXTS), item_done(message("".join(TEXTS))), ended()]
ENCODED: Final = [WireBytes.frame(msgspec.json.encode(frame)).data for frame in FRAMES]


async def read_batches(stream: ResponseStream) -> "list[Sequence[StreamEvent]]":
    return [batch async for batch in stream.batches()]


async def read_into(events: "list[StreamEvent]", stream: ResponseStream) -> None:
    """Read the batches of a stream into a list, also where the stream fails."""
    async for batch in stream.batches():
        events += batch


def join(batches: "Sequence[Sequence[StreamEvent]]") -> "list[StreamEvent]":
    return [event for batch in batches for event in batch]


def texts(events: "Sequence[StreamEvent]") -> list[str]:
    return [event.delta for event in events if isinstance(event, OutputTextDelta)]


# --- The same events ---------------------------------------------------------------------


@given(
    cuts=st.lists(st.integers(0, sum(map(len, ENCODED))), max_size=12),
    many=st.lists(st.sampled_from(["event", "batch", "pause"]), min_size=1, max_size=12),
)
async def test_any_mix_of_reads_yields_each_event_once(cuts: list[int], many: list[str]) -> None:
    """However the wire is cut into reads, and however the program reads."""
    whole = b"".join(ENCODED)
    borders = sorted({0, *cuts, len(whole)})
    async with open_test_server(max_age=None) as server:
        server.answer([WireBytes(whole[start:end]) for start, end in pairwise(borders)])
        async with server.open_client() as connection:
            async with connection.stream(model="m", input="hi") as stream:
                events = await read_mixed(stream, many)
            assert_at_rest(connection)
    assert types(events) == [frame["type"] for frame in FRAMES]
    assert texts(events) == TEXTS
    assert stream.snapshot.text == stream.response.output_text == "".join(TEXTS)


async def read_mixed(stream: ResponseStream, many: list[str]) -> "list[StreamEvent]":
    """Read a stream in turns by event and by batch, with pauses, up to its end."""
    events: list[StreamEvent] = []
    batches = stream.batches()
    while True:
        for how in many:
            try:
                if how == "event":
                    events.append(await anext(stream))
                elif how == "batch":
                    events += await anext(batches)
                else:
                    events.append(await anext(stream))
                    await trio.testing.wait_all_tasks_blocked()
            except StopAsyncIteration:
                return events


@pytest.mark.parametrize("transport", ["websocket", "http"])
async def test_a_batch_has_all_that_one_read_brought(
    server: "ResponsesServer", transport: Literal["websocket", "http"]
) -> None:
    """Over both transports; the last batch ends with the end of the response."""
    server.reply(chunks=TEXTS)
    async with server.open_client(transport=transport) as connection:
        async with connection.stream(model="m", input="hi") as stream:
            await anext(stream)
            await trio.testing.wait_all_tasks_blocked()
            batches = await read_batches(stream)
        assert len(batches) <= 2
        assert texts(join(batches)) == TEXTS
        assert isinstance(batches[-1][-1], ResponseCompleted)
        assert stream.response.output_text == "".join(TEXTS)
        assert_at_rest(connection)


async def test_sparse_events_are_batches_of_one(server: "ResponsesServer") -> None:
    server.reply(chunks=TEXTS[:5], delay=1)
    async with (
        server.open_client() as connection,
        connection.stream(model="m", input="hi") as stream,
    ):
        batches = await read_batches(stream)
    events = join(batches)
    assert numbers(events) == list(range(len(events)))
    assert [batch for batch in batches if texts(batch)] == [
        [event] for event in events if isinstance(event, OutputTextDelta)
    ]


async def test_what_is_unread_after_an_event_is_the_next_batch(server: "ResponsesServer") -> None:
    """Events that the iteration had taken out of the buffer come first."""
    server.answer([WireBytes(b"".join(ENCODED))])
    async with (
        server.open_client() as connection,
        connection.stream(model="m", input="hi") as stream,
    ):
        events: list[StreamEvent] = [await anext(stream), await anext(stream)]
        events += await anext(stream.batches())
        events.append(await anext(stream))
        events += join(await read_batches(stream))
    assert types(events) == [frame["type"] for frame in FRAMES]


async def test_a_stream_that_has_ended_has_no_batch(server: "ResponsesServer") -> None:
    async with (
        server.open_client() as connection,
        connection.stream(model="m", input="hi") as stream,
    ):
        await stream.get_final_response()
        assert await read_batches(stream) == []


# --- Snapshots, steering, runs -----------------------------------------------------------


async def test_a_snapshot_has_the_whole_batch(server: "ResponsesServer") -> None:
    """Leaving the block in the middle of a batch leaves it there."""
    server.answer([WireBytes(b"".join(ENCODED[:-2])), WireBytes(b"".join(ENCODED[-2:]))])
    async with (
        server.open_client() as connection,
        connection.stream(model="m", input="hi") as stream,
    ):
        async for batch in stream.batches():
            if texts(batch):
                break
    assert stream.snapshot.text == "".join(TEXTS)


async def test_the_phase_of_each_event_of_a_batch_is_known(server: "ResponsesServer") -> None:
    server.reply("It is warm.", commentary=["I look that up. "])
    said: dict[str | None, str] = {}
    async with (
        server.open_client() as connection,
        connection.stream(model="m", input="hi") as stream,
    ):
        await trio.testing.wait_all_tasks_blocked()
        async for batch in stream.batches():
            for event in batch:
                if isinstance(event, OutputTextDelta):
                    phase = stream.phase_of(event)
                    said[phase] = said.get(phase, "") + event.delta
    assert said == {"commentary": "I look that up. ", "final_answer": "It is warm."}


async def test_a_batch_ends_with_the_response_that_a_successor_follows(
    server: "ResponsesServer",
) -> None:
    """So all events of a batch belong to one response, whose snapshot and phases they have."""
    server.reply(chunks=TEXTS[:20], delay=1)
    server.reply("steered")
    async with server.open_client() as connection:
        async with connection.stream(model="m", input="hi") as stream:
            await anext(stream)
            await stream.steer("Be brief.")
            await trio.sleep(100)  # everything arrives before it is read
            batches = await read_batches(stream)
        assert len(stream.responses) == 2
        assert stream.response.output_text == "steered"
        ends = [
            types(batch).index(f"response.{response.status}") == len(batch) - 1
            for batch, response in zip(batches[-2:], stream.responses, strict=True)
        ]
        assert ends == [True, True]
        assert batches[-1][0].type == "response.created"
        assert_at_rest(connection)


async def test_a_run_has_batches_with_the_notifications_of_its_calls(
    narrow_server: "ResponsesServer",
) -> None:
    @function_tool
    def weather(city: str) -> str:
        """Return the weather."""
        return f"warm in {city}"

    narrow_server.answer(Reply(calls=[Call("weather", {"city": "Oslo"})]))
    narrow_server.answer([WireBytes(b"".join(ENCODED))])
    async with (
        narrow_server.open_client() as connection,
        connection.conversation(model="m", tools=[weather]) as conversation,
        conversation.run_stream("Is it warm?") as run,
    ):
        batches = [batch async for batch in run.batches()]
    assert [
        [type(event) for event in batch]
        for batch in batches
        if isinstance(batch[0], ToolStarted | ToolFinished)
    ] == [[ToolStarted], [ToolFinished]]
    events = [event for batch in batches for event in batch]
    assert [len(batch) for batch in batches][-1] == len(FRAMES)
    assert [event.delta for event in events if isinstance(event, OutputTextDelta)] == TEXTS
    assert run.response.output_text == "".join(TEXTS)


async def test_a_run_is_read_by_event_and_by_batch_in_turns(
    narrow_server: "ResponsesServer",
) -> None:
    narrow_server.answer([WireBytes(b"".join(ENCODED))])
    async with (
        narrow_server.open_client() as connection,
        connection.conversation(model="m") as conversation,
        conversation.run_stream("hi") as run,
    ):
        events = [await anext(run), await anext(run)]
        events += await anext(run.batches())
        events.append(await anext(run))
        events += [event for batch in [batch async for batch in run.batches()] for event in batch]
    assert [event.type for event in events] == [frame["type"] for frame in FRAMES]


# --- Ends, errors and restarts -----------------------------------------------------------


async def test_the_error_is_raised_after_the_events_before_it(server: "ResponsesServer") -> None:
    server.reply("one two three").drop(after_events=6)
    async with server.open_client() as connection:
        seen: list[StreamEvent] = []
        async with connection.stream(model="m", input="hi") as stream:
            await trio.sleep(1)
            with pytest.raises(ConnectionLost):
                await read_into(seen, stream)
            with pytest.raises(ConnectionLost):
                await anext(stream.batches())
        assert len(seen) == 6


async def test_an_error_event_is_the_last_one_of_its_batch(server: "ResponsesServer") -> None:
    error: dict[str, Any] = {"type": "error", "status": 500, "error": {"message": "no"}}
    frames = [*FRAMES[:5], error]
    encoded = [WireBytes.frame(msgspec.json.encode(frame)).data for frame in frames]
    server.answer([WireBytes(b"".join(encoded))])
    async with server.open_client() as connection:
        async with connection.stream(model="m", input="hi") as stream:
            batches = stream.batches()
            seen = await anext(batches)
            with pytest.raises(APIError):
                await anext(batches)
        assert len(seen) == 6
        assert isinstance(seen[-1], ErrorEvent)


@pytest.mark.parametrize("before", [0, 4])
async def test_a_restart_is_a_batch_alone(server: "ResponsesServer", before: int) -> None:
    """The events of the failed attempt precede it, without the error that is repeated."""
    error: dict[str, Any] = {"type": "error", "status": 503, "error": {"message": "busy"}}
    frames = [*FRAMES[:before], error]
    encoded = [WireBytes.frame(msgspec.json.encode(frame)).data for frame in frames]
    server.answer([WireBytes(b"".join(encoded))])
    server.reply("again")
    async with server.open_client() as connection:
        async with connection.stream(model="m", input="hi", delivery="at_least_once") as stream:
            batches = await read_batches(stream)
        place = [isinstance(batch[0], TurnRestarted) for batch in batches].index(True)
        assert [len(batch) for batch in batches[: place + 1]] == ([before, 1] if before else [1])
        assert texts(join(batches[place + 1 :])) == ["again"]
        assert stream.response.output_text == "again"
        assert_at_rest(connection)


async def test_a_stalled_response_ends_the_batches(server: "ResponsesServer") -> None:
    """The deadline is the receive task's: no scope of the reader has it."""
    server.reply(chunks=TEXTS).stall(after_events=6)
    async with server.open_client(timeouts=Timeouts(stall=7)) as connection:
        started = trio.current_time()
        seen: list[StreamEvent] = []
        async with connection.stream(model="m", input="hi") as stream:
            with pytest.raises(StallTimeout):
                await read_into(seen, stream)
        assert len(seen) == 6
        assert trio.current_time() - started == 7


# --- Cancellation, readers in other tasks ------------------------------------------------


async def test_a_cancelled_batch_loses_no_event(server: "ResponsesServer") -> None:
    server.reply(chunks=TEXTS[:20], delay=0.01)
    async with server.open_client() as connection:
        events: list[StreamEvent] = []
        async with connection.stream(model="m", input="hi") as stream:
            for _ in range(1000):
                with trio.move_on_after(0.004):
                    async for batch in stream.batches():
                        events += batch
                    break
        assert texts(events) == TEXTS[:20]
        assert numbers(events) == list(range(len(events)))


@pytest.mark.parametrize("by_batch", [False, True])
async def test_each_read_looks_for_cancellation(
    server: "ResponsesServer", *, by_batch: bool
) -> None:
    """Also where events are there already; they can be read afterwards."""
    server.answer([WireBytes(b"".join(ENCODED))])
    async with (
        server.open_client() as connection,
        connection.stream(model="m", input="hi") as stream,
    ):
        events: list[StreamEvent] = []
        for _ in range(2):  # none of the events was taken out of the buffer, and some were
            await trio.testing.wait_all_tasks_blocked()
            with trio.CancelScope() as scope:
                scope.cancel()
                await (anext(stream.batches()) if by_batch else anext(stream))
            assert scope.cancelled_caught
            events.append(await anext(stream))
        events += join(await read_batches(stream))
    assert types(events) == [frame["type"] for frame in FRAMES]


async def test_an_event_that_comes_with_the_cancellation_is_not_lost(
    server: "ResponsesServer",
) -> None:
    """The reader is woken and cancelled in one tick: it gets the event, or the next read does."""
    server.reply(chunks=TEXTS[:30], delay=1)
    async with server.open_client() as connection:
        pieces: list[str] = []
        async with connection.stream(model="m", input="hi") as stream:
            ended = False
            while not ended:
                with trio.move_on_after(1):  # as long as the delay between two events
                    try:
                        pieces += texts(await anext(stream.batches()))
                    except StopAsyncIteration:
                        ended = True
        assert pieces == TEXTS[:30]


async def test_one_task_reads_batches_at_a_time(server: "ResponsesServer") -> None:
    server.stall(after_events=1, seconds=5)
    async with server.open_client() as connection:
        async with connection.stream(model="m", input="hi") as stream:
            await anext(stream)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(stream.get_final_response)
                await trio.testing.wait_all_tasks_blocked()
                with pytest.raises(trio.BusyResourceError, match="another task"):
                    await anext(stream.batches())
        assert stream.response.output_text == heard("hi")


async def test_leaving_the_block_ends_a_batch_of_another_task(server: "ResponsesServer") -> None:
    server.stall(after_events=1, seconds=5)

    async def read(stream: ResponseStream) -> None:
        with pytest.raises(RuntimeError, match="inside its async with block"):
            await read_batches(stream)

    async with server.open_client() as connection, trio.open_nursery() as nursery:
        async with connection.stream(model="m", input="hi") as stream:
            nursery.start_soon(read, stream)
            await trio.testing.wait_all_tasks_blocked()
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(RuntimeError, match="inside its async with block"):
            await anext(stream.batches())


async def test_closing_the_connection_ends_the_batches(server: "ResponsesServer") -> None:
    server.stall(after_events=1, seconds=5)
    async with server.open_client() as connection, trio.open_nursery() as nursery:

        async def read() -> None:
            async with connection.stream(model="m", input="hi") as stream:
                with pytest.raises(trio.ClosedResourceError):
                    await read_batches(stream)

        nursery.start_soon(read)
        await trio.testing.wait_all_tasks_blocked()
        await connection.aclose()


# --- Budgets and fairness ----------------------------------------------------------------


async def test_taking_a_batch_lets_a_full_turn_go_on(server: "ResponsesServer") -> None:
    """P6: the bytes of a batch count until the batch is taken."""
    server.reply(chunks=["x" * 1000] * 200)
    limits = Limits(turn_buffer_bytes=20_000)
    async with server.open_client(limits=limits) as connection:
        async with connection.stream(model="m", input="hi") as stream:
            seen: list[StreamEvent] = []
            async for batch in stream.batches():
                seen += batch
                assert connection.statistics().unread_bytes == 0
                await trio.testing.wait_all_tasks_blocked()
            assert texts(seen) == ["x" * 1000] * 200
        assert_at_rest(connection)


async def test_a_reader_of_many_batches_lets_others_run() -> None:
    """P6: a batch has a limited number of events, and a task that never waits checkpoints."""
    inbox: Inbox[int] = Inbox(Budget(Settings()))
    for start in range(0, 10_000, 100):
        inbox.put(list(range(start, start + 100)), 100)
    rounds = 0

    async def count() -> None:
        nonlocal rounds
        while True:
            rounds += 1
            await trio.lowlevel.checkpoint()

    sizes: list[int] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(count)
        while not inbox.empty:
            await inbox.wait()
            sizes.append(len(inbox.take_batch()))
        nursery.cancel_scope.cancel()
    assert sum(sizes) == 10_000
    assert max(sizes) < EVENTS_PER_BATCH + 100
    assert rounds >= len(sizes) - 2
    assert inbox.unread_bytes == 0


async def test_several_tasks_that_receive_get_each_event_once() -> None:
    """The raw channel may have many readers; a cancelled one takes no event with it."""
    inbox: Inbox[int] = Inbox(Budget(Settings()))
    seen: list[int] = []

    async def read() -> None:
        while True:
            seen.append(await inbox.receive())

    async with trio.open_nursery() as nursery:
        async with trio.open_nursery() as cancelled:
            for _ in range(3):
                nursery.start_soon(read)
                cancelled.start_soon(read)
            await trio.testing.wait_all_tasks_blocked()
            assert inbox.tasks_waiting == 6
            cancelled.cancel_scope.cancel()
            inbox.put([0, 1, 2, 3, 4], 5)
        inbox.put([5], 1)
        inbox.put([6, 7], 1)
        await trio.testing.wait_all_tasks_blocked()
        assert inbox.tasks_waiting == 3
        nursery.cancel_scope.cancel()
    assert inbox.tasks_waiting == 0
    assert sorted(seen) == list(range(8))
    inbox.close(KeyError())
    with pytest.raises(KeyError):
        await inbox.receive()
