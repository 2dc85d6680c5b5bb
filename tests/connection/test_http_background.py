"""Background turns, whose streams are resumed; Responses found again; calls that are no turns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio

from tests.transport.http_peer import (
    CHUNKED,
    END,
    Cut,
    Exchange,
    chunk,
    connect_http,
    error,
    events_of,
    open_peer,
    reply,
    response,
    scripts,
    serve_websocket,
    sse,
    texts,
    whole,
)
from trio_responses import (
    APIError,
    ConnectionLost,
    DeliveryStatus,
    RateLimitError,
    ReconnectFailed,
    UndecodableResponse,
)

if TYPE_CHECKING:
    from tests.transport.http_peer import HTTPPeer, Script

EVENTS = events_of("one two three")


def cut_after(count: int) -> Script:
    """Return a script that sends so many events, and closes the stream."""
    return reply(CHUNKED, *(chunk(sse(event)) for event in EVENTS[:count]), then=Cut)


def rest_after(number: int) -> Script:
    """Return a script that sends the events after a sequence number."""
    return reply(CHUNKED, *(chunk(sse(event)) for event in EVENTS[number + 1 :]), END)


# --- Background turns --------------------------------------------------------------------


@pytest.mark.parametrize("count", range(1, len(EVENTS)))
async def test_a_lost_background_stream_is_resumed_after_its_last_event(count: int) -> None:
    script = scripts(cut_after(count), rest_after(count - 1))
    async with open_peer(script) as peer, connect_http(peer) as connection:
        async with connection.stream("hi", model="m", background=True) as stream:
            events = [event async for event in stream]
        assert texts(events) == [event["type"] for event in EVENTS]
        assert stream.response.output_text == "one two three"
        assert peer.requests[0].json["background"] is True
        assert peer.requests[1].method == "GET"
        path = f"/v1/responses/resp_1?stream=true&starting_after={count - 1}"
        assert peer.requests[1].target == path


async def test_a_background_stream_is_resumed_as_often_as_something_comes() -> None:
    steps = [cut_after(1)]
    steps += [reply(CHUNKED, chunk(sse(event)), then=Cut) for event in EVENTS[1:-1]]
    script = scripts(*steps, rest_after(len(EVENTS) - 2))
    async with open_peer(script) as peer, connect_http(peer, reconnect=[]) as connection:
        result = await connection.create("hi", model="m", background=True)
        assert result.output_text == "one two three"
        assert len(peer.requests) == len(EVENTS)


async def test_a_resumption_that_brings_nothing_waits_as_the_policy_says() -> None:
    script = scripts(cut_after(2), reply(CHUNKED, then=Cut))
    async with open_peer(script) as peer, connect_http(peer, reconnect=[1, 2, 4]) as connection:
        began = trio.current_time()
        with pytest.raises(ConnectionLost) as lost:
            await connection.create("hi", model="m", background=True)
        assert trio.current_time() - began == 1 + 2 + 4
        assert lost.value.delivery is DeliveryStatus.ACCEPTED
        assert isinstance(lost.value.__cause__, ReconnectFailed)


async def test_a_response_that_the_server_forgot_ends_the_turn_with_the_reason() -> None:
    gone = reply(whole(404, error("No response with this id.", "response_not_found")))
    async with open_peer(scripts(cut_after(2), gone)) as peer, connect_http(peer) as connection:
        with pytest.raises(APIError, match="No response with this id") as refused:
            await connection.create("hi", model="m", background=True)
        assert refused.value.delivery is DeliveryStatus.ACCEPTED


async def test_a_background_response_without_a_stream_is_followed() -> None:
    queued = reply(whole(200, response("", status="queued")))
    async with open_peer(scripts(queued, rest_after(-1))) as peer, connect_http(peer) as connection:
        result = await connection.create("hi", model="m", background=True)
        assert result.output_text == "one two three"
        assert peer.requests[1].target == "/v1/responses/resp_1?stream=true"


async def test_another_turn_is_not_resumed() -> None:
    async with open_peer(cut_after(2)) as peer, connect_http(peer) as connection:
        with pytest.raises(ConnectionLost):
            await connection.create("hi", model="m")
        assert len(peer.requests) == 1


async def test_a_background_turn_goes_over_http_beside_a_websocket() -> None:
    async with open_peer() as peer:
        peer.upgrade = serve_websocket
        await use_both(peer)


async def use_both(peer: HTTPPeer) -> None:
    """Run a turn in the background and another one, while a WebSocket is open."""
    async with connect_http(peer, transport="auto") as connection:
        assert connection.statistics().transport == "websocket"
        result = await connection.create("hi", model="m", background=True)
        assert result.output_text == "ok"
        await connection.create("hi", model="m")
        assert connection.statistics().http_requests == 1
        assert connection.statistics().transport == "websocket"


# --- Responses that are found again ------------------------------------------------------


@pytest.mark.parametrize("count", range(1, len(EVENTS)))
async def test_a_lost_response_is_retrieved_where_the_caller_chose_so(count: int) -> None:
    unfinished = reply(whole(200, response("", status="in_progress")))
    found = reply(whole(200, response("one two three")))
    script = scripts(cut_after(count), unfinished, unfinished, found)
    async with open_peer(script) as peer, connect_http(peer, recover="retrieve") as connection:
        async with connection.stream("hi", model="m") as stream:
            events = [event async for event in stream]
        assert texts(events)[-1] == "response.completed"
        assert stream.response.output_text == "one two three"
        assert [one.method for one in peer.requests] == ["POST", "GET", "GET", "GET"]


@pytest.mark.parametrize(
    "answer",
    [
        whole(404, error("Not found.")),
        whole(200, response("", status="cancelled")),
        whole(200, b"nonsense"),
    ],
)
async def test_a_response_that_cannot_be_retrieved_stays_lost(answer: bytes) -> None:
    script = scripts(cut_after(2), reply(answer))
    async with open_peer(script) as peer, connect_http(peer, recover="retrieve") as connection:
        with pytest.raises(ConnectionLost) as lost:
            await connection.create("hi", model="m")
        assert lost.value.delivery is DeliveryStatus.ACCEPTED


async def test_a_response_that_does_not_finish_in_time_stays_lost() -> None:
    unfinished = reply(whole(200, response("", status="in_progress")))
    script = scripts(cut_after(2), unfinished)
    async with open_peer(script) as peer, connect_http(peer, recover="retrieve") as connection:
        with pytest.raises(ConnectionLost):
            await connection.create("hi", model="m")


async def test_a_retrieved_failure_is_the_error_of_the_turn() -> None:
    problem = {"code": "server_error", "message": "Sorry."}
    failed = reply(whole(200, response("", status="failed", error=problem)))
    script = scripts(cut_after(2), failed)
    async with open_peer(script) as peer, connect_http(peer, recover="retrieve") as connection:
        with pytest.raises(APIError, match="Sorry"):
            await connection.create("hi", model="m")


async def test_a_conversation_goes_on_after_a_response_that_was_found_again() -> None:
    found = reply(whole(200, response("one two three")))
    script = scripts(cut_after(2), found, Exchange.answer)
    async with open_peer(script) as peer, connect_http(peer, recover="retrieve") as connection:
        async with connection.conversation(model="m") as conversation:
            await conversation.create("first")
            await conversation.create("second")
        assert len(peer.requests[2].json["input"]) == 3


# --- Calls that are no turns -------------------------------------------------------------


async def test_a_stored_response_is_retrieved() -> None:
    async with open_peer(reply(whole(200, response("stored")))) as peer:
        async with connect_http(peer) as connection:
            found = await connection.responses.retrieve("resp/1 ?", include=["a", "b"])
            assert found.output_text == "stored"
        target = "/v1/responses/resp%2F1%20%3F?include%5B%5D=a&include%5B%5D=b"
        assert peer.requests[0].target == target


async def test_the_other_calls_about_a_response() -> None:
    item = {"type": "message", "role": "user", "id": "msg_1", "content": "Hi"}
    page = {"object": "list", "data": [item], "has_more": True, "last_id": "msg_1"}
    answers: dict[str, Any] = {
        "POST /v1/responses/resp_1/cancel": response("", status="cancelled"),
        "DELETE /v1/responses/resp_1": {"id": "resp_1", "deleted": True},
        "GET /v1/responses/resp_1/input_items?after=msg_0&limit=1&order=asc": page,
        "POST /v1/responses/compact": {"id": "c_1", "output": [item]},
        "POST /v1/responses/input_tokens": {"object": "x", "input_tokens": 42},
    }

    async def script(exchange: Exchange) -> None:
        asked = exchange.request
        await exchange.send(whole(200, answers[f"{asked.method} {asked.target}"]))

    async with open_peer(script) as peer, connect_http(peer) as connection:
        calls = connection.responses
        assert (await calls.cancel("resp_1")).status == "cancelled"
        await calls.delete("resp_1")
        found = await calls.input_items("resp_1", after="msg_0", limit=1, order="asc")
        assert (found.has_more, found.last_id) == (True, "msg_1")
        assert [each.wire_type for each in found.data] == ["message"]
        compacted = await calls.compact("Hi", model="m")
        assert [each.wire_type for each in compacted.output] == ["message"]
        assert await calls.input_tokens("Hi", model="m") == 42
        assert peer.requests[-1].json == {"model": "m", "input": "Hi"}


async def test_a_call_that_changes_nothing_twice_is_repeated() -> None:
    found = reply(whole(200, response("stored")))
    script = scripts(reply(then=Cut), reply(whole(503, error("Busy."))), found)
    async with open_peer(script) as peer, connect_http(peer) as connection:
        assert (await connection.responses.retrieve("resp_1")).output_text == "stored"
        assert len(peer.requests) == 3


async def test_a_call_that_may_have_an_effect_is_not_repeated() -> None:
    async with open_peer(reply(then=Cut)) as peer, connect_http(peer) as connection:
        with pytest.raises(ConnectionLost) as lost:
            await connection.responses.cancel("resp_1")
        assert lost.value.delivery is DeliveryStatus.AMBIGUOUS
        assert len(peer.requests) == 1


async def test_a_rate_limit_of_a_call_is_waited_for() -> None:
    limit = reply(whole(429, error("Slow.", "rate_limit_exceeded"), "retry-after: 7"))
    script = scripts(limit, reply(whole(200, response(status="cancelled"))))
    async with open_peer(script) as peer, connect_http(peer) as connection:
        began = trio.current_time()
        await connection.responses.cancel("resp_1")
        assert trio.current_time() - began == 7


async def test_the_errors_of_a_call() -> None:
    gone = reply(whole(404, error("No such response.")))
    async with open_peer(gone) as peer, connect_http(peer) as connection:
        with pytest.raises(APIError, match="No such response") as refused:
            await connection.responses.retrieve("resp_1")
        assert refused.value.status == 404
    async with open_peer(reply(whole(200, b"[1]"))) as peer, connect_http(peer) as connection:
        with pytest.raises(UndecodableResponse):
            await connection.responses.input_items("resp_1")
    limit = reply(whole(429, error("Stop.")))
    async with open_peer(limit) as peer, connect_http(peer, max_retries=0) as connection:
        with pytest.raises(RateLimitError):
            await connection.responses.delete("resp_1")


@pytest.mark.parametrize("bad", ["", None, 5])
async def test_an_id_that_is_none_is_refused(bad: Any) -> None:
    async with open_peer() as peer, connect_http(peer) as connection:
        with pytest.raises((TypeError, ValueError), match="response_id"):
            await connection.responses.retrieve(bad)
        assert peer.requests == []
