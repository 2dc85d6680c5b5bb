"""Turns over HTTP: how they are sent, what is received, and what they leave behind."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Any

import pytest
import trio
import trio.testing

from tests.transport.http_peer import (
    CHUNKED,
    END,
    EVENTS,
    Cut,
    Exchange,
    chunk,
    connect_http,
    error,
    events_of,
    head,
    open_peer,
    reply,
    response,
    scripts,
    sse,
    texts,
    whole,
)
from tests.transport.peer import KEY
from trio_responses import (
    APIError,
    ConfigurationError,
    ConnectionState,
    DeliveryStatus,
    Limits,
)

# --- Requests ----------------------------------------------------------------------------


async def test_opening_does_no_io() -> None:
    async with open_peer() as peer, connect_http(peer) as connection:
        assert connection.state is ConnectionState.OPEN
        await connection.wait_open()
        assert peer.dials == []
        statistics = connection.statistics()
        assert (statistics.transport, statistics.http_requests) == ("http", 0)


async def test_a_turn_is_one_post() -> None:
    async with open_peer() as peer, connect_http(peer) as connection:
        result = await connection.create(model="m", input="hi", temperature=0.5)
        assert result.output_text == "ok"
        [request] = peer.requests
        assert (request.method, request.target) == ("POST", "/v1/responses")
        assert request.json == {"stream": True, "model": "m", "input": "hi", "temperature": 0.5}
        headers = request.headers
        assert headers["host"] == "127.0.0.1"
        assert headers["authorization"] == f"Bearer {KEY}"
        assert headers["accept"] == "text/event-stream"
        assert headers["accept-encoding"] == "identity"
        assert headers["content-type"] == "application/json"
        assert "transfer-encoding" not in headers
        statistics = connection.statistics()
        assert (statistics.requests_sent, statistics.http_requests) == (1, 1)
        assert statistics.requests_active == 0


async def test_fields_of_a_websocket_are_left_out() -> None:
    async with (
        open_peer() as peer,
        connect_http(peer) as connection,
        connection.lane("mine") as lane,
    ):
        await lane.create(model="m", input="hi")
        assert peer.requests[0].json == {"stream": True, "model": "m", "input": "hi"}


# --- Answers -----------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 7, 100, 5000])
async def test_an_answer_may_come_in_any_pieces(size: int) -> None:
    body = sse(*events_of("one two three"))
    pieces = [chunk(body[i : i + size]) for i in range(0, len(body), size)]
    async with open_peer(reply(CHUNKED, *pieces, END)) as peer, connect_http(peer) as connection:
        async with connection.stream(model="m", input="hi") as stream:
            events = [event async for event in stream]
        assert texts(events) == [event["type"] for event in events_of("one two three")]
        assert stream.response.output_text == "one two three"


async def test_an_event_is_read_when_it_arrives() -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.send(CHUNKED)
        await exchange.events(*events_of("a b c"), every=1)
        await exchange.send(END)

    async with open_peer(script) as peer, connect_http(peer) as connection:
        async with connection.stream(model="m", input="hi") as stream:
            times = [trio.current_time() async for _ in stream]
        assert times == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
async def test_servers_may_write_events_in_their_own_ways(end: str) -> None:
    """Comments, no ``event:``, other line ends, ``[DONE]``, and a type in ``event:`` alone."""
    created, *rest = events_of("hello")
    named = {name: value for name, value in created.items() if name != "type"}
    body = b": hi\n\nevent: response.created\nid: 1\n" + sse({"type": "x", **named})
    body = body.replace(b"event: x\n", b"").replace(b'"type":"x",', b"")
    body += b": ping\n\n" + b"".join(sse(one).partition(b"\n")[2] for one in rest)
    body = (body + b"data: [DONE]\n\n").replace(b"\n", end.encode())
    async with open_peer(reply(CHUNKED, chunk(body), END)) as peer, connect_http(peer) as c:
        async with c.stream(model="m", input="hi") as stream:
            events = [event async for event in stream]
        assert texts(events) == [event["type"] for event in events_of("hello")]


@pytest.mark.parametrize(
    "content_type",
    ["text/event-stream", "text/event-stream; charset=utf-8", "Text/Event-Stream;charset=UTF-8"],
)
async def test_the_content_type_may_have_parameters(content_type: str) -> None:
    answer = whole(200, sse(*events_of()), f"Content-Type: {content_type}")
    async with open_peer(reply(answer)) as peer, connect_http(peer) as connection:
        assert (await connection.create(model="m", input="hi")).output_text == "ok"


async def test_an_answer_may_end_with_its_stream() -> None:
    answer = head(200, EVENTS, "Connection: close") + sse(*events_of())
    script = reply(answer, then=Cut)
    async with open_peer(script) as peer, connect_http(peer) as connection:
        for _ in range(3):
            assert (await connection.create(model="m", input="hi")).output_text == "ok"
        assert len(peer.streams) == 3


async def test_trailers_are_ignored() -> None:
    answer = CHUNKED + chunk(sse(*events_of())) + b"0\r\nX-Trailer: 1\r\n\r\n"
    async with open_peer(reply(answer)) as peer, connect_http(peer) as connection:
        for _ in range(2):
            assert (await connection.create(model="m", input="hi")).output_text == "ok"
        assert len(peer.streams) == 1


async def test_informational_answers_are_ignored() -> None:
    first = head(100) + head(103, "Link: </x>; rel=preload") + head(102)
    script = reply(first + CHUNKED, chunk(sse(*events_of())), END)
    async with open_peer(script) as peer, connect_http(peer) as connection:
        assert (await connection.create(model="m", input="hi")).output_text == "ok"


@pytest.mark.parametrize("status", ["completed", "incomplete"])
async def test_a_whole_response_is_an_answer(status: str) -> None:
    details: dict[str, Any] = {"incomplete_details": {"reason": "max_output_tokens"}}
    body = response("all at once", status=status, **details)
    async with open_peer(reply(whole(200, body))) as peer, connect_http(peer) as connection:
        async with connection.stream(model="m", input="hi") as stream:
            events = [event async for event in stream]
        assert texts(events) == [f"response.{status}"]
        assert stream.response.output_text == ("all at once" if status == "completed" else "")
        assert connection.statistics().requests_active == 0


async def test_a_whole_response_that_failed_is_an_error() -> None:
    body = response(status="failed", error={"code": "server_error", "message": "Sorry."})
    async with open_peer(reply(whole(200, body))) as peer, connect_http(peer) as connection:
        with pytest.raises(APIError, match="Sorry") as caught:
            await connection.create(model="m", input="hi")
        assert caught.value.delivery is DeliveryStatus.ACCEPTED


async def test_an_error_event_ends_a_turn() -> None:
    event = {"type": "error", **error("Too long.", "context_length_exceeded")}
    script = reply(CHUNKED, chunk(sse(events_of()[0], event)), END)
    async with open_peer(script) as peer, connect_http(peer) as connection:
        with pytest.raises(APIError, match="Too long") as caught:
            await connection.create(model="m", input="hi")
        assert caught.value.code == "context_length_exceeded"
        assert caught.value.delivery is DeliveryStatus.ACCEPTED


async def test_an_error_in_a_stream_without_a_type_ends_a_turn() -> None:
    body = b'data: {"error":{"message":"Boom.","code":"server_error"}}\n\n'
    async with open_peer(reply(CHUNKED, chunk(body), END)) as peer, connect_http(peer) as c:
        with pytest.raises(APIError, match="Boom"):
            await c.create(model="m", input="hi")


# --- HTTP connections --------------------------------------------------------------------


async def test_turns_share_an_http_connection() -> None:
    async with open_peer() as peer, connect_http(peer) as connection:
        for number in range(5):
            await connection.create(model="m", input=str(number))
            await trio.testing.wait_all_tasks_blocked()
        assert len(peer.streams) == 1
        assert peer.open_streams == 1
        assert [request.json["input"] for request in peer.requests] == list("01234")


async def test_a_dead_http_connection_is_not_used_again() -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.answer()
        await trio.sleep(10)
        raise Cut

    async with open_peer(script) as peer, connect_http(peer) as connection:
        for _ in range(3):
            assert (await connection.create(model="m", input="hi")).output_text == "ok"
            await trio.sleep(20)
        assert len(peer.streams) == 3
        assert len(peer.requests) == 3


async def test_the_end_of_an_answer_is_awaited_for_the_next_turn() -> None:
    """The last chunk may come after the last event; the HTTP connection is used again."""

    async def script(exchange: Exchange) -> None:
        await exchange.send(CHUNKED, chunk(sse(*events_of())))
        await trio.sleep(1)
        await exchange.send(chunk(b"data: [DONE]\n\n"), END)

    async with open_peer(script) as peer, connect_http(peer) as connection:
        for _ in range(2):
            await connection.create(model="m", input="hi")
            await trio.sleep(2)
        assert trio.current_time() == 4
        assert len(peer.streams) == 1


async def test_a_server_that_never_ends_its_answer_is_left() -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.send(CHUNKED, chunk(sse(*events_of())))
        await exchange.client_left()

    async with open_peer(script) as peer, connect_http(peer) as connection:
        await connection.create(model="m", input="hi")
        assert trio.current_time() == 0
        await trio.sleep(20)
        assert [stream.closed_at for stream in peer.streams] == [5]


async def test_a_server_that_goes_on_after_the_end_is_left() -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.send(CHUNKED, chunk(sse(*events_of())))
        while True:
            await exchange.send(chunk(b": " + b"x" * 10_000 + b"\n\n"))
            await trio.sleep(0.1)

    async with open_peer(script) as peer, connect_http(peer) as connection:
        await connection.create(model="m", input="hi")
        await trio.sleep(20)
        [closed_at] = [stream.closed_at for stream in peer.streams]
        assert closed_at is not None
        assert closed_at < 1


async def test_many_turns_run_at_once() -> None:
    async def script(exchange: Exchange) -> None:
        await trio.sleep(1)
        await exchange.answer(exchange.request.json["input"])

    answers: list[str] = []
    async with open_peer(script) as peer, connect_http(peer) as connection:

        async def ask(number: int) -> None:
            answers.append((await connection.create(model="m", input=f"n{number}")).output_text)

        async with trio.open_nursery() as nursery:
            for number in range(50):
                nursery.start_soon(ask, number)
        assert trio.current_time() == 1
        assert sorted(answers) == sorted(f"n{number}" for number in range(50))
        assert len(peer.streams) == 50


async def test_no_more_turns_than_http_connections_run_at_once() -> None:
    active: list[int] = [0, 0]

    async def script(exchange: Exchange) -> None:
        active[0] += 1
        active[1] = max(active)
        await trio.sleep(1)
        active[0] -= 1
        await exchange.answer()

    async with (
        open_peer(script) as peer,
        connect_http(peer, limits=Limits(http_connections=3)) as connection,
    ):
        async with trio.open_nursery() as nursery:
            for number in range(10):
                nursery.start_soon(lambda n: connection.create(model="m", input=str(n)), number)
                await trio.testing.wait_all_tasks_blocked()
        assert trio.current_time() == 4
        assert active == [0, 3]
        assert len(peer.streams) == 3
        order = [(request.at, request.json["input"]) for request in peer.requests]
        assert sorted(order) == [(number // 3, str(number)) for number in range(10)]


async def test_turns_of_one_lane_run_one_after_the_other() -> None:
    async def script(exchange: Exchange) -> None:
        await trio.sleep(1)
        await exchange.answer(exchange.request.json["input"])

    async with open_peer(script) as peer, connect_http(peer) as connection:
        async with (
            connection.lane() as first,
            connection.lane() as second,
            trio.open_nursery() as nursery,
        ):
            for number in range(3):
                for name, lane in (("a", first), ("b", second)):
                    ask: Any = lane.create
                    text = f"{name}{number}"
                    nursery.start_soon(lambda a, t: a(model="m", input=t), ask, text)
                    await trio.testing.wait_all_tasks_blocked()
        assert trio.current_time() == 3
        order = [request.json["input"] for request in peer.requests]
        assert [one for one in order if one[0] == "a"] == ["a0", "a1", "a2"]
        assert [one for one in order if one[0] == "b"] == ["b0", "b1", "b2"]
        assert [request.at for request in peer.requests] == [0, 0, 1, 1, 2, 2]


async def test_one_slow_turn_delays_no_other() -> None:
    async def slow(exchange: Exchange) -> None:
        await trio.sleep(30)
        await exchange.answer()

    async with (
        open_peer(scripts(slow, Exchange.answer)) as peer,
        connect_http(peer) as connection,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(lambda: connection.create(model="m", input="slow"))
        await trio.testing.wait_all_tasks_blocked()
        await connection.create(model="m", input="quick")
        assert trio.current_time() == 0


async def test_any_number_of_lanes_can_be_reserved() -> None:
    async with open_peer() as peer, connect_http(peer) as connection, AsyncExitStack() as stack:
        lanes = [await stack.enter_async_context(connection.lane()) for _ in range(50)]
        lanes += [await stack.enter_async_context(connection.lane(f"x{n}")) for n in range(50)]
        for lane in lanes:
            assert (await lane.create(model="m", input="hi")).output_text == "ok"
        with pytest.raises(ConfigurationError, match="reserved already"):
            async with connection.lane("x1"):
                pass
        assert all("stream_id" not in request.json for request in peer.requests)
