"""Tests of the client with servers of other projects: aimock, and agentic-api in front of aimock.

aimock supports neither lanes nor warm-ups, sends errors without a status and ignores
``previous_response_id``. agentic-api supports all of these.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Literal, TypeAlias

import pytest
import trio

from tests.interop.programs import HANG_GUARD
from trio_responses import (
    APIError,
    ConnectionLost,
    ConnectionRestored,
    DeliveryStatus,
    Endpoint,
    PreviousResponseNotFound,
    RateLimitError,
    SteerState,
    Timeouts,
    UnexpectedOutput,
    UpgradeUnsupported,
    open_responses,
)
from trio_responses._wire import FunctionToolParam
from trio_responses.types import (
    ContentPartAdded,
    ContentPartDone,
    ErrorEvent,
    FunctionCall,
    FunctionCallArgumentsDelta,
    FunctionCallArgumentsDone,
    FunctionCallOutput,
    OutputItemAdded,
    OutputItemDone,
    OutputTextDelta,
    OutputTextDone,
    Reasoning,
    ResponseCompleted,
    ResponseCreate,
    ResponseCreated,
    ResponseInProgress,
    SummaryText,
    UndecodableFrame,
    UnknownEvent,
    UnknownItem,
    UnknownPart,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from tests.interop.programs import Program
    from trio_responses import ResponsesConnection, ResponseStream
    from trio_responses.typing import Event, OnAbandonedTurn, StreamEvent

AfterError: TypeAlias = Literal["reuse", "replace"]
StartAgentic: TypeAlias = "Callable[..., tuple[Program, str]]"

MODEL = "gpt-5.5"
PONG = "pong: hello from the server, in several chunks of text."
SLOW = "slow slow slow slow slow slow slow slow"
MANY = 20
CLOSE_GUARD = 60.0
"""Seconds until a connection is closed without the closing handshake; no server needs as many."""
FAST_RECONNECT = [0.02] * 20_000
"""The delays of reconnecting to a server that starts again."""
WEATHER = FunctionToolParam(
    name="get_weather",
    description="Tell the weather in a city.",
    strict=False,
    parameters={
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
    },
)

both = pytest.mark.parametrize("url", ["aimock_url", "agentic_url"], indirect=True)


@pytest.fixture
def url(request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue(request.param))


@asynccontextmanager
async def opened(
    url: str,
    *,
    lanes: bool = False,
    after_error: AfterError = "replace",
    on_abandoned_turn: OnAbandonedTurn = "drain",
) -> AsyncIterator[ResponsesConnection]:
    """Open a connection that must decode and assign every frame, and close by the handshake."""
    endpoint = Endpoint.compatible(url, lanes=lanes, after_error=after_error)
    with trio.fail_after(HANG_GUARD):
        async with open_responses(
            endpoint=endpoint,
            api_key="sk-interop",
            reconnect=FAST_RECONNECT,
            timeouts=Timeouts(close=CLOSE_GUARD),
            on_abandoned_turn=on_abandoned_turn,
            transport="websocket",
        ) as connection:
            yield connection
            statistics = connection.statistics()
            assert statistics.undecodable_frames == 0
            assert statistics.unrouted_events == 0
            assert statistics.unread_bytes == 0
            closing_since = trio.current_time()
        assert trio.current_time() - closing_since < CLOSE_GUARD


def is_typed(event: Event | StreamEvent) -> bool:
    match event:
        case UnknownEvent() | UndecodableFrame():
            return False
        case OutputItemAdded(item=item) | OutputItemDone(item=item):
            return not isinstance(item, UnknownItem)
        case ContentPartAdded(part=part) | ContentPartDone(part=part):
            return not isinstance(part, UnknownPart)
        case _:
            return True


async def events_of(stream: ResponseStream) -> list[StreamEvent]:
    events = [event async for event in stream]
    assert [event for event in events if not is_typed(event)] == []
    return events


# --- Turns -------------------------------------------------------------------------------


@both
async def test_create_returns_the_response(url: str) -> None:
    async with opened(url) as connection:
        response = await connection.create(model=MODEL, input="ping-text", store=False)
        assert response.output_text == PONG
        assert response.status == "completed"
        assert response.model == MODEL
        assert response.usage is not None
        assert connection.previous_response_id == response.id


@both
async def test_a_stream_yields_every_event_in_order_with_its_type(url: str) -> None:
    async with opened(url) as connection:
        async with connection.stream(model=MODEL, input="ping-text") as stream:
            events = await events_of(stream)
        deltas = [event for event in events if isinstance(event, OutputTextDelta)]
        assert [type(event) for event in events if event not in deltas] == [
            ResponseCreated,
            ResponseInProgress,
            OutputItemAdded,
            ContentPartAdded,
            OutputTextDone,
            ContentPartDone,
            OutputItemDone,
            ResponseCompleted,
        ]
        assert len(deltas) > 1
        assert "".join(delta.delta for delta in deltas) == PONG
        assert stream.response.output_text == PONG
        assert stream.response_id == stream.response.id


@both
async def test_the_channel_of_the_connection_receives_the_same_events(url: str) -> None:
    async with opened(url) as connection:
        await connection.send(ResponseCreate(model=MODEL, input="ping-text"))
        events = [await connection.receive()]
        while not isinstance(events[-1], ResponseCompleted):
            events.append(await connection.receive())
        assert all(is_typed(event) for event in events)
        assert isinstance(events[0], ResponseCreated)
        assert events[-1].response.output_text == PONG


@pytest.mark.parametrize(
    ("url", "echoes"), [("aimock_url", False), ("agentic_url", True)], indirect=["url"]
)
@pytest.mark.parametrize("store", [True, False])
async def test_a_chain_continues_from_its_previous_response(
    url: str, *, echoes: bool, store: bool
) -> None:
    async with opened(url) as connection:
        first = await connection.create(model=MODEL, input="remember-me", store=store)
        assert first.output_text == "I will remember the colour teal."
        second = await connection.create(
            model=MODEL, input="what-colour", store=store, previous_response_id=first.id
        )
        assert second.output_text == "The colour was teal."
        assert second.id != first.id
        assert connection.previous_response_id == second.id
        assert second.previous_response_id == (first.id if echoes else None)


@both
async def test_a_turn_calls_a_tool_and_the_next_one_sends_the_output(url: str) -> None:
    async with opened(url) as connection:
        async with connection.stream(model=MODEL, input="weather-tool", tools=[WEATHER]) as stream:
            events = await events_of(stream)
        deltas = [e.delta for e in events if isinstance(e, FunctionCallArgumentsDelta)]
        done = [e.arguments for e in events if isinstance(e, FunctionCallArgumentsDone)]
        [call] = stream.response.output
        assert isinstance(call, FunctionCall)
        assert (call.name, call.arguments) == ("get_weather", '{"city":"Paris"}')
        assert ["".join(deltas)] == done == [call.arguments]
        response = await connection.create(
            model=MODEL,
            previous_response_id=stream.response.id,
            input=[FunctionCallOutput(call_id=call.call_id, output='{"celsius": 21}')],
            tools=[WEATHER],
        )
        assert response.output_text == "It is 21 degrees in Paris."


@both
async def test_reasoning_is_a_separate_item(url: str) -> None:
    async with opened(url) as connection:
        async with connection.stream(
            model=MODEL, input="reason-first", reasoning={"effort": "low", "summary": "auto"}
        ) as stream:
            await events_of(stream)
        [reasoning, _] = stream.response.output
        assert isinstance(reasoning, Reasoning)
        assert reasoning.summary == [SummaryText(text="Thinking about it step by step.")]
        assert stream.response.output_text == "42."


async def test_a_chain_continues_from_a_warm_up_of_agentic(agentic_url: str) -> None:
    async with opened(agentic_url) as connection:
        warm = await connection.warm_up(model=MODEL, instructions="Be brief.", tools=[WEATHER])
        assert warm.output == ()
        response = await connection.create(
            model=MODEL, input="ping-text", previous_response_id=warm.id
        )
        assert response.output_text == PONG
        assert response.previous_response_id == warm.id


async def test_warm_up_raises_where_aimock_does_not_support_it(aimock_url: str) -> None:
    async with opened(aimock_url) as connection:
        with pytest.raises(APIError) as rejected:
            await connection.warm_up(model=MODEL)
        assert rejected.value.code == "no_fixture_match"
        with pytest.raises(UnexpectedOutput) as generated:
            await connection.warm_up(model=MODEL, input="ping-text")
        assert generated.value.response.output_text == PONG
        assert (await connection.create(model=MODEL, input="ping-text")).output_text == PONG


# --- Errors ------------------------------------------------------------------------------


@both
@pytest.mark.parametrize("after_error", ["reuse", "replace"])
async def test_an_error_frame_ends_one_turn_only(url: str, after_error: AfterError) -> None:
    async with opened(url, after_error=after_error) as connection:
        for model, text in (
            ("no-such-model", "unmatched words here"),
            (MODEL, "error-429"),
            (MODEL, "error-500"),
        ):
            with pytest.raises(APIError) as caught:
                await connection.create(model=model, input=text)
            assert isinstance(caught.value.event, ErrorEvent)
            assert caught.value.code
            assert caught.value.message
            response = await connection.create(model=MODEL, input="ping-text")
            assert response.output_text == PONG
        statistics = connection.statistics()
        assert statistics.retries == 2  # the rate limit is retried, the other errors are not
        sockets = {"reuse": 1, "replace": 6}
        assert statistics.sockets_opened == sockets[after_error]


@pytest.mark.parametrize(
    ("model", "text", "status"),
    [("no-such-model", "unmatched words here", 404), (MODEL, "error-429", 429)],
)
async def test_an_upstream_error_of_agentic_has_a_status_and_a_code(
    agentic_url: str, model: str, text: str, status: int
) -> None:
    async with opened(agentic_url) as connection:
        with pytest.raises(APIError) as caught:
            await connection.create(model=model, input=text)
        assert (caught.value.status, caught.value.code) == (status, "upstream_error")
        assert isinstance(caught.value, RateLimitError) == (status == 429)
        assert caught.value.delivery is DeliveryStatus.REJECTED


async def test_an_error_of_aimock_has_no_status_so_that_the_turn_may_have_run(
    aimock_url: str,
) -> None:
    async with opened(aimock_url) as connection:
        with pytest.raises(APIError) as caught:
            await connection.create(model="no-such-model", input="unmatched words here")
        assert (caught.value.status, caught.value.code) == (None, "no_fixture_match")
        assert caught.value.delivery is DeliveryStatus.AMBIGUOUS
        with pytest.raises(RateLimitError) as limited:
            await connection.create(model=MODEL, input="error-429")
        assert limited.value.delivery is DeliveryStatus.REJECTED


@pytest.mark.parametrize("after_error", ["reuse", "replace"])
async def test_agentic_rejects_an_unknown_previous_response(
    agentic_url: str, after_error: AfterError
) -> None:
    async with opened(agentic_url, after_error=after_error) as connection:
        with pytest.raises(PreviousResponseNotFound) as caught:
            await connection.create(
                model=MODEL, input="ping-text", previous_response_id="resp_does_not_exist"
            )
        assert (caught.value.status, caught.value.param) == (400, "previous_response_id")
        assert caught.value.delivery is DeliveryStatus.REJECTED
        assert (await connection.create(model=MODEL, input="ping-text")).output_text == PONG


async def test_agentic_rejects_a_parameter_of_the_wrong_type(agentic_url: str) -> None:
    async with opened(agentic_url) as connection:
        with pytest.raises(APIError) as caught:
            await connection.create(
                model=MODEL, input="ping-text", extra_body={"temperature": "hot"}
            )
        assert (caught.value.status, caught.value.code) == (400, "invalid_request_error")
        assert '"hot"' in caught.value.message
        assert caught.value.message.removesuffix(".") in str(caught.value)
        assert caught.value.delivery is DeliveryStatus.REJECTED
        assert (await connection.create(model=MODEL, input="ping-text")).output_text == PONG


async def test_aimock_accepts_unknown_previous_responses_and_wrong_types(aimock_url: str) -> None:
    async with opened(aimock_url) as connection:
        response = await connection.create(
            model=MODEL,
            input="ping-text",
            previous_response_id="resp_does_not_exist",
            extra_body={"temperature": "hot"},
        )
        assert response.output_text == PONG


@both
async def test_a_path_without_a_websocket_is_not_retried(url: str) -> None:
    with pytest.raises(UpgradeUnsupported) as caught:
        async with opened(f"{url}/nowhere"):
            pass
    assert caught.value.status == 404


# --- Concurrent turns --------------------------------------------------------------------


@both
async def test_turns_wait_in_a_queue_without_lanes(url: str) -> None:
    texts: list[str] = []

    async def ask() -> None:
        texts.append((await connection.create(model=MODEL, input="ping-text")).output_text)

    async with opened(url) as connection:
        async with trio.open_nursery() as nursery:
            for _ in range(MANY):
                nursery.start_soon(ask)
        assert texts == [PONG] * MANY
        assert connection.statistics().requests_sent == MANY
        assert connection.statistics().sockets_opened == 1


async def test_agentic_runs_the_turns_of_lanes_concurrently(agentic_url: str) -> None:
    started: list[int] = []
    started_before_first_end: list[int] = []
    lanes: set[str | None] = set()

    async def ask(number: int) -> None:
        slow = number % 2 == 0
        async with connection.stream(model=MODEL, input="slow-text" if slow else "ping-text") as s:
            events: list[StreamEvent] = []
            async for event in s:
                if not events:
                    started.append(number)
                events.append(event)
                assert is_typed(event)
        if slow and not started_before_first_end:
            started_before_first_end.extend(started)
        assert s.response.output_text == (SLOW if slow else PONG)
        assert {event.stream_id for event in events} == {events[0].stream_id}
        lanes.add(events[0].stream_id)

    async with opened(agentic_url, lanes=True, after_error="reuse") as connection:
        async with trio.open_nursery() as nursery:
            for number in range(MANY):
                nursery.start_soon(ask, number)
        assert len(started) == MANY
        assert len(lanes) > 1
        assert sum(number % 2 == 0 for number in started_before_first_end) > 1
        assert connection.statistics().requests_sent == MANY
        assert connection.statistics().sockets_opened == 1


async def test_agentic_runs_20_slow_turns_on_its_lanes(agentic_url: str) -> None:
    texts: list[str] = []
    active_after_each: list[int] = []

    async def ask() -> None:
        texts.append((await connection.create(model=MODEL, input="slow-text")).output_text)
        active_after_each.append(connection.statistics().requests_active)

    async with opened(agentic_url, lanes=True, after_error="reuse") as connection:
        async with trio.open_nursery() as nursery:
            for _ in range(MANY):
                nursery.start_soon(ask)
        assert texts == [SLOW] * MANY
        assert max(active_after_each) > 1
        assert connection.statistics().sockets_opened == 1


async def test_200_concurrent_turns_get_their_own_responses(agentic_url: str) -> None:
    answers = {"ping-text": PONG, "slow-text": SLOW, "reason-first": "42."}
    inputs = [list(answers)[number % 3] for number in range(200)]
    texts: dict[int, str] = {}
    active: list[int] = []

    async def ask(number: int) -> None:
        response = await connection.create(model=MODEL, input=inputs[number])
        texts[number] = response.output_text
        active.append(connection.statistics().requests_active)

    async with opened(agentic_url, lanes=True, after_error="reuse") as connection:
        async with trio.open_nursery() as nursery:
            for number in range(200):
                nursery.start_soon(ask, number)
        assert [texts[number] for number in range(200)] == [answers[text] for text in inputs]
        assert 1 < max(active) <= 16
        assert connection.statistics().sockets_opened == 1


async def test_an_error_on_one_lane_does_not_affect_the_others(agentic_url: str) -> None:
    texts: list[str] = []

    async def ask() -> None:
        texts.append((await connection.create(model=MODEL, input="slow-text")).output_text)

    async def fail() -> None:
        with pytest.raises(PreviousResponseNotFound) as caught:
            await connection.create(
                model=MODEL, input="ping-text", previous_response_id="resp_does_not_exist"
            )
        assert caught.value.delivery is DeliveryStatus.REJECTED

    async with opened(agentic_url, lanes=True, after_error="reuse") as connection:
        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(ask)
                nursery.start_soon(fail)
        assert texts == [SLOW] * 4
        assert connection.statistics().sockets_opened == 1


@pytest.mark.parametrize("abandon", ["drain", "replace_socket"])
@both
async def test_an_abandoned_turn_leaves_no_events_to_the_next(
    url: str, abandon: OnAbandonedTurn
) -> None:
    async with opened(url, on_abandoned_turn=abandon) as connection:
        async with connection.stream(model=MODEL, input="slow-text") as stream:
            async for event in stream:
                if isinstance(event, OutputTextDelta):
                    break
        async with connection.stream(model=MODEL, input="ping-text") as stream:
            events = await events_of(stream)
        assert isinstance(events[0], ResponseCreated)
        assert stream.response.output_text == PONG
        assert connection.statistics().sockets_opened == {"drain": 1, "replace_socket": 2}[abandon]


# --- Steering ----------------------------------------------------------------------------


@both
async def test_a_server_without_steering_rejects_the_input_but_not_the_turn(url: str) -> None:
    async with (
        opened(url) as connection,
        connection.stream(model=MODEL, input="slow-text") as stream,
    ):
        receipt = await stream.steer("A short one.")
        response = await stream.get_final_response()
        assert response.status == "completed"
        assert await receipt.wait_settled() is SteerState.FAILED
        assert receipt.error is not None
        assert (await connection.create(model=MODEL, input="ping-text")).output_text == PONG


# --- Lost sockets ------------------------------------------------------------------------


async def read_into(events: list[StreamEvent], stream: ResponseStream) -> None:
    async with stream:
        async for event in stream:
            events.append(event)  # noqa: PERF401 - a comprehension would lose them on an error


async def test_a_turn_that_aimock_cuts_off_is_lost_and_the_next_one_runs(aimock_url: str) -> None:
    async with opened(aimock_url) as connection:
        events: list[StreamEvent] = []
        stream = connection.stream(model=MODEL, input="cut-off")
        with pytest.raises(ConnectionLost) as caught:
            await read_into(events, stream)
        assert isinstance(events[0], ResponseCreated)
        assert isinstance(events[-1], OutputTextDelta)
        assert caught.value.delivery is DeliveryStatus.ACCEPTED
        assert caught.value.code == 1006
        assert stream.response_id is not None
        assert connection.previous_response_id is None
        assert (await connection.create(model=MODEL, input="ping-text")).output_text == PONG
        assert connection.statistics().sockets_opened == 2


async def test_the_channel_receives_a_lost_socket_in_order(aimock_url: str) -> None:
    endpoint = Endpoint.compatible(aimock_url)
    with trio.fail_after(HANG_GUARD):
        async with open_responses(
            endpoint=endpoint, api_key="", reconnect=FAST_RECONNECT
        ) as connection:
            await connection.send(ResponseCreate(model=MODEL, input="cut-off"))
            events = [await connection.receive()]
            while not isinstance(events[-1], ConnectionRestored):
                events.append(await connection.receive())
            *before, lost, restored = events
            assert isinstance(before[0], ResponseCreated)
            assert isinstance(before[-1], OutputTextDelta)
            assert isinstance(lost, ConnectionLost)
            assert isinstance(restored, ConnectionRestored)
            assert restored.attempts == 1
            assert (await connection.create(model=MODEL, input="ping-text")).output_text == PONG


async def test_turns_run_again_after_agentic_is_killed_and_restarted(
    start_agentic: StartAgentic,
) -> None:
    program, url = start_agentic()
    port = int(url.split(":")[2].split("/")[0])

    async def ask_and_kill() -> None:
        async with connection.stream(model=MODEL, input="slow-text") as stream:
            async for event in stream:
                if isinstance(event, OutputTextDelta):
                    await trio.to_thread.run_sync(program.kill)

    async with opened(url, lanes=True, after_error="reuse") as connection:
        with pytest.raises(ConnectionLost) as caught:
            await ask_and_kill()
        assert caught.value.delivery is DeliveryStatus.ACCEPTED
        assert caught.value.code == 1006
        assert connection.previous_response_id is None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.to_thread.run_sync, start_agentic, port)
            response = await connection.create(model=MODEL, input="ping-text")
        assert response.output_text == PONG
        assert connection.statistics().sockets_opened == 2


async def test_agentic_reports_that_its_upstream_was_cut_off(agentic_url: str) -> None:
    async with opened(agentic_url) as connection:
        with pytest.raises(APIError) as caught:
            await connection.create(model=MODEL, input="cut-off")
        assert caught.value.status == 502
        assert (await connection.create(model=MODEL, input="ping-text")).output_text == PONG
