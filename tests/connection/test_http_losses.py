"""Failures over HTTP: what each one says about the request, and which requests are sent again."""

from __future__ import annotations

import gzip
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import trio
import trio.testing

from tests.transport.http_peer import (
    CHUNKED,
    END,
    EVENTS,
    JSON_BODY,
    Cut,
    Exchange,
    Reset,
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
    use_tls,
    whole,
)
from tests.transport.peer import KEY, assert_secret_kept
from trio_responses import (
    APIError,
    AuthenticationError,
    ConnectError,
    ConnectionLost,
    DeliveryStatus,
    FirstEventTimeout,
    Limits,
    MessageTooLarge,
    RateLimitError,
    ReconnectFailed,
    ReconnectPolicy,
    ResponsesError,
    SendTimeout,
    StallTimeout,
    Timeouts,
    open_responses,
)

if TYPE_CHECKING:
    from trio_responses import (
        ResponsesConnection,
    )

TWICE = ReconnectPolicy(attempts=2, jitter=0.0)


async def failure(connection: ResponsesConnection, **params: Any) -> ResponsesError:
    """Run a turn that fails, and return its exception, which has no secret in it."""
    options: dict[str, Any] = {"input": "hi", **params}
    with pytest.raises(ResponsesError) as caught:
        await connection.create(model="m", **options)
    assert_secret_kept(caught.value)
    return caught.value


async def assert_works(connection: ResponsesConnection) -> None:
    """Assert that a turn after a failure gets its answer, and that nothing is left of others."""
    assert (await connection.create(model="m", input="after")).output_text == "ok"
    await trio.testing.wait_all_tasks_blocked()
    assert connection.statistics().requests_active == 0
    assert connection.statistics().unread_bytes == 0


# --- Error statuses ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "delivery", "retryable"),
    [
        (301, DeliveryStatus.REJECTED, False),
        (307, DeliveryStatus.REJECTED, False),
        (400, DeliveryStatus.REJECTED, False),
        (401, DeliveryStatus.REJECTED, False),
        (403, DeliveryStatus.REJECTED, False),
        (404, DeliveryStatus.REJECTED, False),
        (408, DeliveryStatus.REJECTED, True),
        (413, DeliveryStatus.REJECTED, False),
        (418, DeliveryStatus.REJECTED, False),
        (500, DeliveryStatus.AMBIGUOUS, True),
        (501, DeliveryStatus.AMBIGUOUS, False),
        (502, DeliveryStatus.AMBIGUOUS, True),
        (503, DeliveryStatus.AMBIGUOUS, True),
        (504, DeliveryStatus.AMBIGUOUS, True),
    ],
)
@pytest.mark.parametrize("has_json", [True, False])
async def test_an_error_status_ends_a_turn(
    status: int, delivery: DeliveryStatus, *, retryable: bool, has_json: bool
) -> None:
    body = error("It is so.", "some_code") if has_json else b"<html>no</html>"
    answer = whole(status, body, "x-request-id: req_9")
    script = scripts(reply(answer), Exchange.answer)
    async with open_peer(script) as peer, connect_http(peer) as connection:
        caught = await failure(connection)
        assert isinstance(caught, APIError)
        assert caught.status == status
        assert caught.code == ("some_code" if has_json else None)
        assert caught.message == ("It is so." if has_json else "")
        assert caught.request_id == "req_9"
        assert (caught.delivery, caught.retryable) == (delivery, retryable)
        assert str(status) in str(caught)
        assert len(peer.requests) == 1
        await assert_works(connection)
        assert len(peer.streams) == 1  # an error ends no HTTP connection


async def test_a_redirect_is_not_followed() -> None:
    answer = whole(308, b"", "Location: https://elsewhere.test/v1/responses")
    async with open_peer(reply(answer)) as peer, connect_http(peer) as connection:
        caught = await failure(connection)
        assert isinstance(caught, APIError)
        assert caught.headers["location"] == "https://elsewhere.test/v1/responses"
        assert len(peer.requests) == 1


@pytest.mark.parametrize("status", [204, 202])
async def test_a_success_that_is_no_answer_is_an_error(status: int) -> None:
    async with open_peer(reply(head(status, "Content-Length: 0"))) as peer, connect_http(peer) as c:
        caught = await failure(c)
        assert caught.delivery is DeliveryStatus.AMBIGUOUS
        assert str(status) in str(caught)


@pytest.mark.parametrize("delay", ["Retry-After: 7", "retry-after-ms: 7000"])
async def test_a_rate_limit_is_waited_for(delay: str) -> None:
    limited = reply(whole(429, error("Slow down.", "rate_limit_exceeded"), delay))
    async with open_peer(scripts(limited, Exchange.answer)) as peer, connect_http(peer) as c:
        assert (await c.create(model="m", input="hi")).output_text == "ok"
        assert trio.current_time() == 7
        assert len(peer.requests) == 2
        assert peer.requests[0].json == peer.requests[1].json
        assert c.statistics().retries == 1


async def test_a_rate_limit_ends_a_turn_after_max_retries() -> None:
    limited = reply(whole(429, error("Slow down.", "rate_limit_exceeded"), "Retry-After: 1"))
    async with open_peer(limited) as peer, connect_http(peer, max_retries=2) as connection:
        caught = await failure(connection)
        assert isinstance(caught, RateLimitError)
        assert caught.retry_after == 1
        assert caught.delivery is DeliveryStatus.REJECTED
        assert len(peer.requests) == 3


@pytest.mark.parametrize("status", [500, 503])
async def test_a_server_error_is_tried_again_if_chosen(status: int) -> None:
    script = scripts(reply(whole(status, error())), Exchange.answer)
    async with open_peer(script) as peer, connect_http(peer) as connection:
        result = await connection.create(model="m", input="hi", delivery="at_least_once")
        assert result.output_text == "ok"
        assert len(peer.requests) == 2


async def test_a_refused_key_from_a_function_is_replaced_once() -> None:
    keys = iter(["old", "new", "newest"])

    async def key() -> str:
        await trio.sleep(1)
        return f"{KEY}-{next(keys)}"

    script = scripts(reply(whole(401, error("Expired.", "expired"))), Exchange.answer)
    async with open_peer(script) as peer, connect_http(peer, api_key=key) as connection:
        assert (await connection.create(model="m", input="hi")).output_text == "ok"
        sent = [request.headers["authorization"] for request in peer.requests]
        assert sent == [f"Bearer {KEY}-old", f"Bearer {KEY}-new"]
        assert connection.statistics().requests_sent == 1


async def test_a_key_that_is_refused_twice_is_an_error() -> None:
    async def key() -> str:
        await trio.lowlevel.checkpoint()
        return KEY

    async with open_peer(reply(whole(401, error("Bad.")))) as peer:
        async with connect_http(peer, api_key=key) as connection:
            caught = await failure(connection)
        assert isinstance(caught, AuthenticationError)
        assert caught.delivery is DeliveryStatus.REJECTED
        assert len(peer.requests) == 2


async def test_a_key_that_is_text_is_tried_once() -> None:
    async with open_peer(reply(whole(401, error("Bad.")))) as peer, connect_http(peer) as c:
        caught = await failure(c)
        assert isinstance(caught, AuthenticationError)
        assert len(peer.requests) == 1


@pytest.mark.parametrize("fault", ["dial", "key"])
async def test_a_refusal_is_raised_where_the_second_attempt_is_impossible(fault: str) -> None:
    """The task of the exchange has no way to tell a lost server from the refusal of a key."""
    calls = 0

    async def key() -> str:
        nonlocal calls
        calls += 1
        await trio.sleep(1000 if fault == "key" and calls == 2 else 0)
        return KEY

    refused = reply(head(401, "Content-Length: 2", "Connection: close") + b"{}", then=Cut)
    script = scripts(refused, Exchange.answer)
    async with open_peer(script) as peer, connect_http(peer, api_key=key) as connection:
        peer.dial_errors = [None, OSError("unreachable")] if fault == "dial" else []
        caught = await failure(connection)
        assert isinstance(caught, AuthenticationError)
        assert caught.delivery is DeliveryStatus.REJECTED
        await assert_works(connection)


# --- Opening an HTTP connection ----------------------------------------------------------


async def test_a_failed_dial_is_tried_again() -> None:
    async with open_peer() as peer, connect_http(peer) as connection:
        peer.dial_errors = [ConnectionRefusedError(111, "refused"), OSError("unreachable"), None]
        assert (await connection.create(model="m", input="hi")).output_text == "ok"
        assert len(peer.dials) == 3
        assert peer.dials[0] < peer.dials[1] < peer.dials[2]


async def test_dials_end_with_the_policy() -> None:
    async with open_peer() as peer, connect_http(peer, reconnect=TWICE) as connection:
        peer.down = True
        caught = await failure(connection)
        assert isinstance(caught, ReconnectFailed)
        assert isinstance(caught.__cause__, ConnectError)
        assert caught.attempts == 2
        assert caught.seconds == trio.current_time()
        assert caught.delivery is DeliveryStatus.NOT_SENT
        assert len(peer.dials) == 3
        peer.down = False
        await assert_works(connection)  # unlike a WebSocket, the next request dials again


async def test_the_policy_is_spent_once_for_all_turns() -> None:
    async with open_peer() as peer, connect_http(peer, reconnect=TWICE) as connection:
        peer.down = True
        failures: list[ResponsesError] = []

        async def run() -> None:
            failures.append(await failure(connection))

        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(run)
        assert {type(one) for one in failures} == {ReconnectFailed}
        assert len(peer.dials) == 30
        spent = trio.current_time()
        await failure(connection)
        assert trio.current_time() == 2 * spent


async def test_a_dial_that_takes_too_long_is_tried_again() -> None:
    times: list[float] = []

    async def dial(_host: str, _port: int) -> trio.abc.Stream:
        times.append(trio.current_time())
        await trio.sleep_forever()
        raise AssertionError

    timeouts = Timeouts(connect=10)
    async with open_responses(
        "http://127.0.0.1/v1",
        api_key=KEY,
        dial=dial,
        transport="http",
        timeouts=timeouts,
        reconnect=[1, 2],
    ) as connection:
        caught = await failure(connection)
        assert isinstance(caught, ReconnectFailed)
        assert [round(one) for one in times] == [0, 11, 23]


async def test_an_untrusted_certificate_is_not_tried_again() -> None:
    async with open_peer() as peer, connect_http(peer, **use_tls(peer, trusted=False)) as c:
        caught = await failure(c)
        assert isinstance(caught, ConnectError)
        assert "certificate" in str(caught)
        assert caught.delivery is DeliveryStatus.NOT_SENT
        assert len(peer.dials) == 1


async def test_turns_work_over_tls() -> None:
    async with open_peer() as peer, connect_http(peer, **use_tls(peer)) as connection:
        for _ in range(3):
            await assert_works(connection)
        assert len(peer.streams) == 1


async def test_the_end_during_a_tls_handshake_is_tried_again() -> None:
    async with open_peer() as peer:
        options = use_tls(peer)
        peer.ssl_context = None  # the server takes the handshake for a request
        peer.greeting = b"HTTP/1.1 400 Bad Request\r\n\r\n"
        async with connect_http(peer, reconnect=[1], **options) as connection:
            caught = await failure(connection)
            assert isinstance(caught, ReconnectFailed | ConnectError)
            assert caught.delivery is DeliveryStatus.NOT_SENT
            peer.greeting = b""
            peer.writes = [0]
            with trio.move_on_after(5):
                await failure(connection)
            assert len(peer.dials) > 2


# --- Where an exchange is cut ------------------------------------------------------------

BODY = sse(*events_of("one two"))
FIRST = sse(events_of("one two")[0])


@pytest.mark.parametrize("writes", [0, 1])
async def test_a_request_that_is_not_written_is_sent_once_more(writes: int) -> None:
    """The writes of a request are its head and its body."""
    async with open_peer() as peer, connect_http(peer) as connection:
        peer.writes = [writes]
        assert (await connection.create(model="m", input="hi")).output_text == "ok"
        assert len(peer.streams) == 2
        assert len(peer.requests) == 1
        assert trio.current_time() == 5  # for an answer that explains it (timeouts.close)


@pytest.mark.parametrize("writes", [0, 1])
async def test_a_request_that_is_not_written_was_not_sent(writes: int) -> None:
    async with open_peer() as peer, connect_http(peer) as connection:
        peer.writes = [writes, writes]
        caught = await failure(connection)
        assert isinstance(caught, ConnectionLost)
        assert caught.delivery is DeliveryStatus.NOT_SENT
        assert peer.requests == []
        assert connection.statistics().requests_sent == 0
        await assert_works(connection)


async def test_an_answer_before_the_end_of_the_request_is_read() -> None:
    """A server may refuse a request by its head, and close."""

    async def script(_: Exchange) -> None:
        raise AssertionError

    async with open_peer(script) as peer, connect_http(peer) as connection:
        peer.writes = [1]
        peer.greeting = whole(413, error("Too large."))
        caught = await failure(connection)
        assert isinstance(caught, APIError)
        assert caught.status == 413
        assert caught.delivery is DeliveryStatus.REJECTED


async def test_a_request_that_nobody_reads_is_given_up() -> None:
    async with open_peer() as peer:
        peer.capacity = 100
        peer.reads = False
        async with connect_http(peer, timeouts=Timeouts(send=3)) as connection:
            caught = await failure(connection, input="x" * 10_000)
        assert isinstance(caught, SendTimeout)
        assert caught.delivery is DeliveryStatus.NOT_SENT
        assert trio.current_time() == 6  # it was sent once more


CUTS: dict[str, tuple[list[bytes], DeliveryStatus]] = {
    "before the head": ([], DeliveryStatus.AMBIGUOUS),
    "after a 100": ([head(100)], DeliveryStatus.AMBIGUOUS),
    "in the head": ([CHUNKED[:20]], DeliveryStatus.AMBIGUOUS),
    "after the head": ([CHUNKED], DeliveryStatus.AMBIGUOUS),
    "in the size of a chunk": ([CHUNKED, b"1"], DeliveryStatus.AMBIGUOUS),
    "in a chunk": ([CHUNKED, chunk(FIRST)[:20]], DeliveryStatus.AMBIGUOUS),
    "after a comment": ([CHUNKED, chunk(b": ping\n\n")], DeliveryStatus.AMBIGUOUS),
    "in the first event": ([CHUNKED, chunk(FIRST[:20])], DeliveryStatus.AMBIGUOUS),
    "after an event": ([CHUNKED, chunk(FIRST)], DeliveryStatus.ACCEPTED),
    "in the second event": ([CHUNKED, chunk(BODY[: len(FIRST) + 20])], DeliveryStatus.ACCEPTED),
    "in the second chunk": ([CHUNKED, chunk(FIRST), b"fff\r\nabc"], DeliveryStatus.ACCEPTED),
    "before the last event": (
        [CHUNKED, chunk(sse(*events_of("one two")[:-1])), END],
        DeliveryStatus.ACCEPTED,
    ),
    "in the last event": ([CHUNKED, chunk(BODY[:-3]), END], DeliveryStatus.ACCEPTED),
    "before the last line feed": ([CHUNKED, chunk(BODY[:-1]), END], DeliveryStatus.ACCEPTED),
    "after the head, close-delimited": ([head(200, EVENTS)], DeliveryStatus.AMBIGUOUS),
    "in an event, close-delimited": ([head(200, EVENTS) + BODY[:-3]], DeliveryStatus.ACCEPTED),
    "before the length": (
        [head(200, EVENTS, "Content-Length: 9999") + FIRST],
        DeliveryStatus.ACCEPTED,
    ),
    "an empty answer": ([whole(200, b"", EVENTS)], DeliveryStatus.AMBIGUOUS),
    "garbage for a head": ([b"\x00\x01\x02garbage\r\n\r\n"], DeliveryStatus.AMBIGUOUS),
    "garbage for a chunk": ([CHUNKED, chunk(FIRST), b"zz\r\n"], DeliveryStatus.ACCEPTED),
    "a chunk without its end": ([CHUNKED, chunk(FIRST)[:-2] + b"XX"], DeliveryStatus.ACCEPTED),
    "an endless head": ([b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 30_000], DeliveryStatus.AMBIGUOUS),
    "truncated JSON": ([whole(200, response())[:-5]], DeliveryStatus.AMBIGUOUS),
    "whole but truncated JSON": (
        [whole(200, msgspec.json.encode(response())[:-5], JSON_BODY)],
        DeliveryStatus.AMBIGUOUS,
    ),
    "JSON of something else": ([whole(200, {"object": "list"})], DeliveryStatus.AMBIGUOUS),
    "a page": (
        [whole(200, b"<html>hi</html>", "Content-Type: text/html")],
        DeliveryStatus.AMBIGUOUS,
    ),
    "no content type": ([whole(200, BODY)], DeliveryStatus.AMBIGUOUS),
    "a compressed answer": (
        [whole(200, gzip.compress(BODY), EVENTS, "Content-Encoding: gzip")],
        DeliveryStatus.AMBIGUOUS,
    ),
}


@pytest.mark.parametrize("ending", [Cut, Reset])
@pytest.mark.parametrize("place", CUTS)
async def test_an_exchange_may_be_cut_anywhere(place: str, ending: type[Exception]) -> None:
    data, delivery = CUTS[place]
    script = scripts(reply(*data, then=ending), Exchange.answer)
    async with open_peer(script) as peer, connect_http(peer) as connection:
        caught = await failure(connection)
        assert isinstance(caught, ConnectionLost)
        assert caught.code is None
        assert caught.delivery is delivery
        assert trio.current_time() == 0
        await assert_works(connection)
        assert len(peer.requests) == 2


@pytest.mark.parametrize("place", [place for place in CUTS if place != "an endless head"])
async def test_a_cut_exchange_is_sent_again_if_chosen(place: str) -> None:
    script = scripts(reply(*CUTS[place][0], then=Cut), Exchange.answer)
    async with open_peer(script) as peer, connect_http(peer) as connection:
        result = await connection.create(model="m", input="hi", delivery="at_least_once")
        assert result.output_text == "ok"
        assert len(peer.requests) == 2


async def test_a_cut_at_every_byte_gives_an_exchange_its_status() -> None:
    answer = CHUNKED + chunk(FIRST) + chunk(BODY[len(FIRST) :]) + END
    after_first = len(CHUNKED + chunk(FIRST)) - 2
    complete = len(answer) - len(END) - 2
    for size in range(0, len(answer) + 1, 3):
        script = scripts(reply(answer[:size], then=Cut), Exchange.answer)
        async with open_peer(script) as peer, connect_http(peer) as connection:
            if size >= complete:
                result = await connection.create(model="m", input="hi")
                assert result.output_text == "one two"
            else:
                caught = await failure(connection)
                assert isinstance(caught, ConnectionLost)
                started = size >= after_first
                expected = DeliveryStatus.ACCEPTED if started else DeliveryStatus.AMBIGUOUS
                assert (size, caught.delivery) == (size, expected)


async def test_the_status_of_an_error_survives_a_cut_body() -> None:
    answer = head(429, JSON_BODY, "Content-Length: 999", "Retry-After: 3") + b'{"error":'
    script = scripts(reply(answer, then=Cut), Exchange.answer)
    async with open_peer(script) as peer, connect_http(peer) as connection:
        assert (await connection.create(model="m", input="hi")).output_text == "ok"
        assert trio.current_time() == 3


async def test_the_body_of_an_error_is_read_up_to_a_limit() -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.send(head(500, JSON_BODY, "Transfer-Encoding: chunked"))
        while True:
            await exchange.send(chunk(b" " * 10_000))
            await trio.sleep(0.1)

    async with open_peer(script) as peer, connect_http(peer) as connection:
        caught = await failure(connection)
        assert isinstance(caught, APIError)
        assert caught.status == 500
        assert trio.current_time() < 1


async def test_a_lost_exchange_states_its_age_and_the_reason() -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.send(CHUNKED, chunk(FIRST))
        await trio.sleep(12)
        raise Cut

    async with open_peer(script) as peer, connect_http(peer) as connection:
        caught = await failure(connection)
        assert isinstance(caught, ConnectionLost)
        assert caught.age == 12
        assert "after 12.0 s" in str(caught)
        assert "incomplete" in str(caught)
        assert "close code" not in str(caught)


async def test_a_loss_ends_no_other_turn() -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.send(CHUNKED, chunk(FIRST))
        if exchange.request.json["input"] == "cut":
            raise Reset
        await trio.sleep(5)
        await exchange.send(chunk(BODY[len(FIRST) :]), END)

    async with open_peer(script) as peer, connect_http(peer) as connection:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: connection.create(model="m", input="hi"))
            await failure(connection, input="cut")
        assert trio.current_time() == 5


# --- Deadlines ---------------------------------------------------------------------------


async def silent(exchange: Exchange) -> None:
    await exchange.client_left()


async def test_no_answer_is_a_timeout() -> None:
    async with (
        open_peer(scripts(silent, Exchange.answer)) as peer,
        connect_http(peer, timeouts=Timeouts(first_event=9)) as connection,
    ):
        caught = await failure(connection)
        assert isinstance(caught, FirstEventTimeout)
        assert caught.delivery is DeliveryStatus.AMBIGUOUS
        assert trio.current_time() == 9
        await assert_works(connection)
        assert peer.streams[0].closed_at == 9


async def test_comments_do_not_prevent_a_timeout() -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.send(CHUNKED)
        await exchange.send(*[chunk(b": ping\n\n")] * 100, every=1)

    async with (
        open_peer(script) as peer,
        connect_http(peer, timeouts=Timeouts(first_event=9)) as connection,
    ):
        assert isinstance(await failure(connection), FirstEventTimeout)
        assert trio.current_time() == 9


async def test_silence_after_an_event_is_a_timeout() -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.send(CHUNKED, chunk(FIRST))
        await exchange.client_left()

    async with (
        open_peer(scripts(script, Exchange.answer)) as peer,
        connect_http(peer, timeouts=Timeouts(stall=20)) as connection,
    ):
        caught = await failure(connection)
        assert isinstance(caught, StallTimeout)
        assert caught.delivery is DeliveryStatus.ACCEPTED
        assert trio.current_time() == 20
        await assert_works(connection)
        assert peer.streams[0].closed_at == 20


async def test_a_timeout_of_a_dial_is_no_timeout_of_the_turn() -> None:
    """The time of the first event begins with the last byte of the request."""
    async with (
        open_peer() as peer,
        connect_http(peer, timeouts=Timeouts(first_event=1), reconnect=[30, 30]) as connection,
    ):
        peer.dial_errors = [OSError("x"), OSError("x")]
        assert (await connection.create(model="m", input="hi")).output_text == "ok"


# --- Sizes -------------------------------------------------------------------------------


async def test_an_event_above_the_limit_ends_its_turn() -> None:
    created, *rest = events_of("x" * 5000)
    script = scripts(reply(CHUNKED, chunk(sse(created, *rest)), END), Exchange.answer)
    async with open_peer(script) as peer:
        limits = Limits(max_message_bytes=2000)
        async with connect_http(peer, limits=limits) as connection:
            caught = await failure(connection)
            assert isinstance(caught, MessageTooLarge)
            assert caught.delivery is DeliveryStatus.ACCEPTED
            await assert_works(connection)


async def test_a_whole_response_above_the_limit_is_no_answer() -> None:
    script = scripts(reply(whole(200, response("x" * 5000))), Exchange.answer)
    async with (
        open_peer(script) as peer,
        connect_http(peer, limits=Limits(max_message_bytes=2000)) as connection,
    ):
        caught = await failure(connection)
        assert isinstance(caught, MessageTooLarge)
        await assert_works(connection)


async def test_a_request_above_the_limit_is_not_sent() -> None:
    async with (
        open_peer() as peer,
        connect_http(peer, limits=Limits(max_request_bytes=2000)) as connection,
    ):
        caught = await failure(connection, input="x" * 5000)
        assert caught.delivery is DeliveryStatus.NOT_SENT
        assert peer.dials == []
        await assert_works(connection)
