"""Partial values of a typed answer: the data so far, and in the end what `parse()` returns."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Annotated, Any, Literal, assert_type

import msgspec
import pytest
import trio
import trio.testing

from tests.testing.driver import NO_WAITING
from tests.turn.rig import assert_at_rest, created, delta, ended, item_done, message
from trio_responses import (
    ConfigurationError,
    IncompleteError,
    ParsedResponse,
    ParseMismatchError,
    RefusalError,
    ResponseFailedError,
    ResponsesError,
    ToolFinished,
    function_tool,
    open_pool,
)
from trio_responses.testing import Call, Reply, WireBytes

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager

    from tests.turn.rig import Json
    from trio_responses import ResponsesConnection, ResponseStream, RunStream
    from trio_responses.testing import ResponsesServer

    Streamed = ResponseStream | RunStream
    OpenStream = Callable[[ResponsesConnection], AbstractAsyncContextManager[Streamed]]

pytestmark = NO_WAITING


class Day(msgspec.Struct):
    name: str
    degrees: Annotated[float, msgspec.Meta(le=60)]


class Weather(msgspec.Struct):
    """The weather at a place."""

    city: str
    days: list[Day] = []
    wind: str | None = None

    def __post_init__(self) -> None:
        """Fail for a value that is not complete."""
        assert self.city.endswith("o")


OSLO = '{"city": "Oslo", "days": [{"name": "Mon", "degrees": 3}, {"name": "Tue", "degrees": 4.5}]}'
FORECAST = Weather("Oslo", [Day("Mon", 3.0), Day("Tue", 4.5)])


async def read_all(stream: Streamed, answer: Any = None) -> list[Any]:
    return [partial async for partial in stream.partials(answer)]


def added(item: Json, index: int = 0) -> Json:
    return {
        "type": "response.output_item.added",
        "sequence_number": 1,
        "output_index": index,
        "item": item,
    }


# --- Values ------------------------------------------------------------------------------


@pytest.mark.parametrize("transport", ["websocket", "http"])
async def test_the_values_fill_in_and_the_last_one_is_complete(
    server: ResponsesServer, transport: Literal["websocket", "http"]
) -> None:
    server.reply(OSLO, chunk_size=4, delay=1)
    async with server.open_client(transport=transport) as connection:
        async with connection.stream("hi", model="m", text_format=Weather) as stream:
            seen = await read_all(stream, Weather)
        assert_at_rest(connection)
    assert all(isinstance(partial, Weather) for partial in seen)
    cities = [partial.city for partial in seen]
    assert cities == sorted(cities, key=lambda city: len(city or ""))
    assert [*dict.fromkeys(cities)] == [None, "Os", "Oslo"]
    names = dict.fromkeys(tuple(day.name for day in one.days or ()) for one in seen)
    assert [*names][:4] == [(), (None,), ("",), ("Mon",)]
    assert [*names][-1] == ("Mon", "Tue")
    assert {partial.wind for partial in seen} == {None}
    assert type(seen[-1]) is Weather
    assert seen[-1] == FORECAST
    assert all(partial != FORECAST for partial in seen[:-1])  # of a class without a check


async def test_there_is_one_value_for_all_that_has_arrived(server: ResponsesServer) -> None:
    server.reply(OSLO, chunk_size=1)
    async with (
        server.open_client() as connection,
        connection.stream("hi", model="m", text_format=Weather) as stream,
    ):
        await anext(stream)
        await trio.testing.wait_all_tasks_blocked()
        assert len(await read_all(stream, Weather)) <= 3


OTHERS: list[tuple[Any, str, set[Any], Any]] = [
    (str, '{"value": "abc"}', {"a", "ab", "abc"}, "abc"),
    (list[int], '{"value": [1, 2]}', {(), (1,), (1, 2)}, [1, 2]),
    (dict[str, int], '{"a": 1, "b": 2}', {(), ("a",), ("a", "b")}, {"a": 1, "b": 2}),
    (Weather | None, '{"value": null}', set(), None),
]


@pytest.mark.parametrize(("answer", "written", "before", "last"), OTHERS)
async def test_other_types_have_partial_values_too(
    server: ResponsesServer, answer: Any, written: str, before: set[Any], last: Any
) -> None:
    server.reply(written, chunk_size=1, delay=1)
    async with (
        server.open_client() as connection,
        connection.stream("hi", model="m", text_format=answer) as stream,
    ):
        *seen, final = await read_all(stream)
    assert {one if isinstance(one, str) else tuple(one) for one in seen if one} == before - {()}
    assert final == last


async def test_json_without_a_schema_is_read_by_the_type_that_is_passed(
    server: ResponsesServer,
) -> None:
    server.reply('{"city": "Oslo"}', chunk_size=8, delay=1)
    async with (
        server.open_client() as connection,
        connection.stream("hi", model="m", text={"format": {"type": "json_object"}}) as stream,
    ):
        assert await read_all(stream, dict[str, Any]) == [{}, {"city": "Oslo"}, {"city": "Oslo"}]
    assert server.last_request.body["text"] == {"format": {"type": "json_object"}}


async def test_a_stored_prompt_may_ask_for_json(server: ResponsesServer) -> None:
    server.reply('{"city": "Oslo"}')
    async with (
        server.open_client() as connection,
        connection.stream(prompt={"id": "pmpt_1"}, model="m") as stream,
    ):
        assert (await read_all(stream, Weather))[-1] == Weather("Oslo")


async def test_the_request_is_that_of_parse(server: ResponsesServer) -> None:
    server.reply(OSLO)
    server.reply(OSLO)
    async with server.open_client() as connection:
        await connection.parse(Weather, "hi", model="m", text={"verbosity": "low"})
        parsed = server.last_request.body
        async with connection.stream(
            "hi", model="m", text={"verbosity": "low"}, text_format=Weather
        ) as stream:
            await stream.get_final_response()
    assert server.last_request.body == parsed
    assert parsed["text"]["format"]["name"] == "Weather"


async def test_all_streams_take_a_text_format(server: ResponsesServer) -> None:
    async with (
        server.open_client() as connection,
        open_pool(server.url, dial=server.dial) as pool,
        connection.lane() as lane,
        connection.conversation(model="m", text={"verbosity": "low"}) as conversation,
    ):
        places: list[Any] = [connection, connection.responses, lane, pool, conversation]
        for place in places:
            server.reply(OSLO)
            params = {} if place is conversation else {"model": "m"}
            async with place.stream("hi", text_format=Weather, **params) as stream:
                assert (await read_all(stream, Weather))[-1] == FORECAST
            assert server.last_request.body["text"]["format"]["type"] == "json_schema"
        assert server.last_request.body["text"]["verbosity"] == "low"
        assert server.last_request.body["model"] == "m"


async def test_the_text_is_kept_without_a_snapshot(server: ResponsesServer) -> None:
    server.reply(OSLO, chunk_size=20, delay=1)
    async with (
        server.open_client() as connection,
        connection.stream("hi", model="m", text_format=Weather, snapshot=False) as stream,
    ):
        async for event in stream:
            if event.type == "response.output_text.delta":
                break
        partial = await anext(stream.partials(Weather))
        assert partial.city == "Oslo"
        assert partial != FORECAST


async def test_the_parsed_response_is_that_of_parse(server: ResponsesServer) -> None:
    server.reply(OSLO)
    async with (
        server.open_client() as connection,
        connection.stream("hi", model="m", text_format=Weather) as stream,
    ):
        parsed = await stream.get_parsed_response(Weather)
        assert_type(parsed, ParsedResponse[Weather])
        assert_type(stream.partials(Weather), "AsyncIterator[Weather]")
        assert (parsed.parsed, parsed.response) == (FORECAST, stream.response)
        assert (await stream.get_parsed_response()).output_parsed == FORECAST
        assert await read_all(stream) == [FORECAST]  # all was read before


# --- Reading: leaving, cancelling, several readers ------------------------------------------


async def test_a_break_loses_nothing(server: ResponsesServer) -> None:
    """The next value has the text before and after, however that was read."""
    server.reply(OSLO, chunk_size=2, delay=1)
    async with (
        server.open_client() as connection,
        connection.stream("hi", model="m", text_format=Weather) as stream,
    ):
        async for partial in stream.partials(Weather):
            if partial.city == "Oslo":
                break
        await anext(stream)
        await anext(stream.batches())
        async for partial in stream.partials(Weather):
            assert partial.city == "Oslo"
            if partial.days:
                break
        partials = stream.partials(Weather)
        assert [partial async for partial in partials][-1] == FORECAST
        with pytest.raises(StopAsyncIteration):
            await anext(partials)


async def test_a_value_has_what_the_iteration_over_events_had_taken(
    server: ResponsesServer,
) -> None:
    server.reply(OSLO, chunk_size=6).stall(after_events=8)
    async with (
        server.open_client() as connection,
        connection.stream("hi", model="m", text_format=Weather) as stream,
    ):
        await trio.testing.wait_all_tasks_blocked()
        async for event in stream:
            if event.type == "response.output_text.delta":
                break
        with trio.fail_after(1):
            assert (await anext(stream.partials(Weather))).city == "Oslo"


async def test_a_cancelled_wait_loses_nothing(server: ResponsesServer) -> None:
    server.reply(OSLO, chunk_size=6, delay=2)
    seen: list[Weather] = []
    async with (
        server.open_client() as connection,
        connection.stream("hi", model="m", text_format=Weather) as stream,
    ):
        partials = stream.partials(Weather)
        waits = 0
        while not seen or seen[-1] != FORECAST:
            with trio.move_on_after(1.5) as scope:
                seen.append(await anext(partials))
            waits += scope.cancelled_caught
    assert waits > 10
    assert "".join(day.name or "" for day in seen[-2].days) == "MonTue"


async def test_one_task_reads(server: ResponsesServer) -> None:
    server.reply(OSLO).stall(after_events=3)
    async with (
        server.open_client() as connection,
        connection.stream("hi", model="m", text_format=Weather) as stream,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(stream.get_final_response)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError):
            await anext(stream.partials(Weather))
        nursery.cancel_scope.cancel()


async def test_after_the_block_there_is_nothing_to_read(server: ResponsesServer) -> None:
    server.reply(OSLO, delay=1)
    async with server.open_client() as connection:
        async with connection.stream("hi", model="m", text_format=Weather) as stream:
            await anext(stream.partials(Weather))
        with pytest.raises(RuntimeError, match="inside its async with block"):
            await read_all(stream)


# --- Which text it is ------------------------------------------------------------------------


async def test_a_turn_that_is_sent_again_starts_anew(server: ResponsesServer) -> None:
    server.reply('{"city": "Bergen", "wind": "no', chunk_size=8, delay=1).drop(after_events=6)
    server.reply(OSLO, chunk_size=8, delay=1)
    async with (
        server.open_client() as connection,
        connection.stream("hi", model="m", text_format=Weather, delivery="at_least_once") as stream,
    ):
        seen = await read_all(stream, Weather)
    assert [city for city, _ in groupby(one.city for one in seen)] == [None, "Bergen", None, "Oslo"]
    assert seen[-1] == FORECAST


async def test_a_successor_starts_anew(server: ResponsesServer) -> None:
    server.reply('{"city": "Bergen"}', chunk_size=4, delay=1)
    server.reply('{"city": "Oslo"}', chunk_size=4, delay=1)
    async with (
        server.open_client() as connection,
        connection.stream("hi", model="m", text_format=Weather) as stream,
    ):
        cities: list[str | None] = []
        async for partial in stream.partials(Weather):
            if not cities:
                await stream.steer("In the east.")
            cities.append(partial.city)
    assert cities[-1] == "Oslo"
    assert len(stream.responses) == 2


async def test_commentary_is_left_out_and_the_last_message_counts(
    server: ResponsesServer,
) -> None:
    server.reply(
        '{"city": "Bergen"}',
        commentary=['{"city": "Tromso"}', "Let me see."],
        more=["not JSON", '{"city": "Oslo"}'],
        chunk_size=30,
        delay=1,
    )
    async with (
        server.open_client() as connection,
        connection.stream("hi", model="m", text_format=Weather) as stream,
    ):
        cities = [partial.city async for partial in stream.partials(Weather)]
        assert cities == ["Bergen", "Oslo", "Oslo"]
        assert cities[-1] == (await stream.get_parsed_response(Weather)).parsed.city


async def test_text_that_the_events_lack_is_in_the_last_value(server: ResponsesServer) -> None:
    server.reply(OSLO, events="terminal")
    async with (
        server.open_client() as connection,
        connection.stream("hi", model="m", text_format=Weather) as stream,
    ):
        assert await read_all(stream) == [FORECAST]


# --- Errors ----------------------------------------------------------------------------------


async def read_to_error(stream: Streamed) -> tuple[list[Any], ResponsesError]:
    """Return the values before the exception that ends the iteration, and the exception."""
    seen: list[Any] = []
    partials = stream.partials(Weather)
    with pytest.raises(ResponsesError) as caught:
        await read_into(seen, partials)
    with pytest.raises(StopAsyncIteration):
        await anext(partials)
    return seen, caught.value


async def read_into(seen: list[Any], partials: AsyncIterator[Any]) -> None:
    async for partial in partials:
        seen.append(partial)  # noqa: PERF401 - kept if the iteration fails


def refused() -> list[Any]:
    part = {"type": "refusal", "refusal": "No."}
    item = {"type": "message", "id": "msg_1", "role": "assistant", "content": [part]}
    return [created(), item_done(item), ended([item])]


@pytest.mark.parametrize(
    ("answer", "error", "cities"),
    [
        (Reply('{"city": "Osl', status="incomplete"), IncompleteError, ["Osl"]),
        (Reply('{"city": 3}'), ParseMismatchError, [None]),
        (Reply('{"city": "Oslo", "days": [{"degrees": 99}]}'), ParseMismatchError, ["Oslo"]),
        (Reply('{"city": "Oslo"} and more'), ParseMismatchError, []),
        (Reply("It is warm."), ParseMismatchError, []),
        (Reply('{"city": "Osl', status="failed"), ResponseFailedError, ["Osl"]),
        (Reply(calls=[Call("weather", {}, unoffered=True)]), ParseMismatchError, []),
        (refused(), RefusalError, []),
    ],
)
async def test_the_errors_are_those_of_parse_after_the_last_partial_value(
    server: ResponsesServer, answer: Any, error: type[ResponsesError], cities: list[str | None]
) -> None:
    async with server.open_client() as connection:
        server.answer(answer)
        with pytest.raises(error) as expected:
            await connection.parse(Weather, "hi", model="m")
        server.answer(answer)
        async with connection.stream("hi", model="m", text_format=Weather) as stream:
            await trio.testing.wait_all_tasks_blocked()
            seen, raised = await read_to_error(stream)
            with pytest.raises(error):
                await stream.get_parsed_response()
    assert [one.city for one in seen][-1:] == cities
    assert type(raised) is error
    assert getattr(raised, "place", None) == getattr(expected.value, "place", None)
    assert raised.delivery is expected.value.delivery


async def test_json_that_nests_too_deeply_is_a_mismatch(server: ResponsesServer) -> None:
    server.reply('{"city": "Oslo", "more": ' + "[" * 300, chunk_size=50, delay=1)
    async with (
        server.open_client() as connection,
        connection.stream("hi", model="m", text_format=Weather) as stream,
    ):
        seen, error = await read_to_error(stream)
    assert seen[-1].city == "Oslo"
    assert isinstance(error, ParseMismatchError)


async def test_a_stream_that_did_not_ask_for_json_says_so(server: ResponsesServer) -> None:
    async with server.open_client() as connection:
        async with connection.stream("hi", model="m") as stream:
            with pytest.raises(ConfigurationError, match="start the stream with text_format=Weath"):
                stream.partials(Weather)
            with pytest.raises(ConfigurationError, match="does not ask for JSON"):
                await stream.get_parsed_response(list[int])
            with pytest.raises(ConfigurationError, match="type of the answer is not known"):
                stream.partials()
        text: Any = {"format": {"type": "text"}}
        async with connection.stream("hi", model="m", text=text) as stream:
            with pytest.raises(ConfigurationError, match="does not ask for JSON"):
                stream.partials(Weather)


async def test_the_type_is_one(server: ResponsesServer) -> None:
    async with (
        server.open_client() as connection,
        connection.stream("hi", model="m", text_format=Weather) as stream,
    ):
        with pytest.raises(ConfigurationError, match="text_format=Weather, not Day: pass one"):
            stream.partials(Day)


async def test_a_type_without_a_schema_sends_nothing(server: ResponsesServer) -> None:
    async with (
        server.open_client() as connection,
        connection.conversation(model="m") as conversation,
    ):
        for place in (connection, conversation):
            with pytest.raises(ConfigurationError, match="has no JSON schema"):
                place.stream("hi", model="m", text_format=complex)
        with pytest.raises(ConfigurationError, match="has no JSON schema"):
            conversation.run_stream("hi", text_format=complex)
    assert server.statistics().requests == 0


# --- Runs ------------------------------------------------------------------------------------


@function_tool
async def look(city: str) -> str:
    """Return the weather."""
    await trio.sleep(1)
    return f"warm in {city}"


async def test_a_run_yields_the_values_of_its_last_response(
    narrow_server: ResponsesServer,
) -> None:
    calls = [Call("look", {"city": "Oslo"})]
    narrow_server.reply('{"city": "Bergen"}', calls=calls, chunk_size=20, delay=1)
    narrow_server.reply(calls=calls)
    narrow_server.reply(OSLO, chunk_size=20, delay=1)
    async with (
        narrow_server.open_client() as connection,
        connection.conversation(model="m", tools=[look]) as conversation,
        conversation.run_stream("Is it warm?", text_format=Weather) as run,
    ):
        assert_type(run.partials(Weather), "AsyncIterator[Weather]")
        seen = await read_all(run, Weather)
        parsed = await run.get_parsed_response(Weather)
        assert_type(parsed, ParsedResponse[Weather])
    assert [*dict.fromkeys(one.city for one in seen)] == ["Bergen", "Oslo"]
    assert seen[-1] == parsed.parsed == FORECAST
    assert parsed.response is run.response
    formats = [request.body["text"]["format"]["name"] for request in narrow_server.requests]
    assert formats == ["Weather"] * 3


async def test_partial_values_of_a_run_and_its_events_take_turns(
    narrow_server: ResponsesServer,
) -> None:
    narrow_server.reply(calls=[Call("look", {"city": "Oslo"})])
    narrow_server.reply(OSLO, chunk_size=20, delay=1)
    async with (
        narrow_server.open_client() as connection,
        connection.conversation(model="m", tools=[look]) as conversation,
        conversation.run_stream("Is it warm?", text_format=Weather) as run,
    ):
        async for event in run:
            if isinstance(event, ToolFinished):
                break
        assert (await anext(run.partials(Weather))).city == "Oslo"
        assert (await read_all(run))[-1] == FORECAST


async def test_the_errors_of_a_run_are_those_of_parse(narrow_server: ResponsesServer) -> None:
    """Of two calls, that of a tool has an output; no function belongs to the other one."""
    calls = [Call("look", {"city": "Oslo"}), Call("other", {}, call_id="call_2")]
    narrow_server.reply(calls=calls)
    async with (
        narrow_server.open_client() as connection,
        connection.conversation(
            model="m", tools=[look, {"type": "function", "name": "other"}]
        ) as conversation,
    ):
        async with conversation.run_stream("Is it warm?", text_format=Weather) as run:
            with pytest.raises(ParseMismatchError, match=r"model called other \(call_2\), which"):
                await read_all(run)
        async with conversation.run_stream("Is it cold?") as run:
            with pytest.raises(ConfigurationError, match="does not ask for JSON"):
                run.partials(Weather)


# --- Events in one read ------------------------------------------------------------------------


async def test_text_of_several_parts_and_of_whole_parts_is_read_once(
    server: ResponsesServer,
) -> None:
    """The event that ends a part has its text again; a part may come without deltas."""
    item = message("")
    first, second = '{"city": "Os', 'lo"}'
    item["content"] = [{"type": "output_text", "text": text} for text in (first, second)]

    def done(text: str, part: int) -> Json:
        frame = {**delta("", content_index=part), "type": "response.output_text.done"}
        return {**frame, "text": text}

    frames = [
        [created(), added(message("")), delta(first[:9]), delta(first[9:])],
        [done(first, 0)],
        [done(second, 1)],
        [item_done(item), ended([item])],
    ]
    reads = [
        WireBytes(b"".join(WireBytes.frame(msgspec.json.encode(one)).data for one in part))
        for part in frames
    ]
    server.answer(reads)
    async with (
        server.open_client() as connection,
        connection.stream("hi", model="m", text_format=Weather) as stream,
    ):
        cities = [partial.city async for partial in stream.partials(Weather)]
    assert cities[-1] == "Oslo"
    assert set(cities) <= {None, "", "O", "Os", "Oslo"}
