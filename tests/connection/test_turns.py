"""P3: a turn from the request to its one end."""

from typing import TYPE_CHECKING, Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from trio_responses import (
    APIError,
    ConfigurationError,
    ConnectionLimitReached,
    ConnectionLost,
    ConnectionState,
    DeliveryStatus,
    Endpoint,
    InvalidStreamId,
    PreviousResponseNotFound,
    RateLimitError,
    ResponseFailedError,
    ResponsesConnection,
    ServerOverloaded,
    StreamLimitReached,
    UndecodableResponse,
    UnexpectedOutput,
)
from trio_responses.testing import ERROR_SHAPES, ErrorShape, Reply, ResponsesServer
from trio_responses.types import (
    ErrorEvent,
    OutputTextDelta,
    ResponseCompleted,
    ResponseCreated,
    UndecodableFrame,
    UnknownEvent,
)

if TYPE_CHECKING:
    from tests.connection.conftest import Connect

LIMIT = "websocket_connection_limit_reached"


async def well(connection: ResponsesConnection) -> None:
    """See that the connection serves a turn, with that turn's own events."""
    response = await connection.create(model="m", input="still there?")
    assert response.output_text == 'Turn 1: you said "still there?".'


# --- The ways to run a turn ----------------------------------------------------------------


async def test_create_gives_the_response(server: ResponsesServer, connect: "Connect") -> None:
    """Design 2: and sends what it was given, known fields and others."""
    server.reply("Hello!", usage={"input_tokens": 7})
    async with connect() as connection:
        response = await connection.create(
            model="gpt-test", input="hi", store=False, temperature=0.5, multi_agent={"a": 1}
        )
    assert response.output_text == "Hello!"
    assert response.usage is not None
    assert response.usage.input_tokens == 7
    request = server.requests[0]
    assert request.body == {
        "type": "response.create",
        "model": "gpt-test",
        "input": "hi",
        "store": False,
        "temperature": 0.5,
        "multi_agent": {"a": 1},
    }


async def test_a_stream_gives_the_events_and_then_the_response(
    server: ResponsesServer, connect: "Connect"
) -> None:
    """Design 2: a turn is a scope."""
    server.reply("one two three")
    async with connect() as connection:
        async with connection.stream(model="m", input="hi") as stream:
            events = [event async for event in stream]
            assert stream.snapshot.text == "one two three"
        assert stream.response.output_text == "one two three"
        assert stream.response_id == stream.response.id
    assert isinstance(events[0], ResponseCreated)
    assert isinstance(events[-1], ResponseCompleted)
    assert [event.sequence_number for event in events] == list(range(len(events)))
    deltas = [event.delta for event in events if isinstance(event, OutputTextDelta)]
    assert deltas == ["one", " two", " three"]


async def test_the_text_alone_can_be_iterated_over(
    server: ResponsesServer, connect: "Connect"
) -> None:
    """Design 2."""
    server.reply("one two three")
    async with connect() as connection, connection.stream(model="m", input="hi") as stream:
        assert [text async for text in stream.text_deltas()] == ["one", " two", " three"]
        assert stream.response.status == "completed"


async def test_many_turns_at_once_run_one_after_the_other_in_the_order_they_asked(
    server: ResponsesServer, connect: "Connect"
) -> None:
    """P5, D11, row 18: without lanes one request is in flight, and nobody gets another's answer."""
    answers: list[str] = []

    async def ask(connection: ResponsesConnection, text: str) -> None:
        response = await connection.create(model="m", input=text)
        assert response.output_text == f'Turn 1: you said "{text}".'
        answers.append(text)

    async with connect() as connection, trio.open_nursery() as nursery:
        for number in range(30):
            nursery.start_soon(ask, connection, f"question {number}")
            await wait_all_tasks_blocked(0.0)
    assert len(answers) == 30
    assert server.statistics().max_active == 1
    assert [request.text for request in server.requests] == answers


async def test_many_turns_at_once_run_side_by_side_where_there_are_lanes(
    server: ResponsesServer, connect: "Connect"
) -> None:
    """Design 4: sixteen of them; ``start_soon`` times 100 works."""
    answers: list[str] = []

    async def ask(connection: ResponsesConnection, text: str) -> None:
        response = await connection.create(model="m", input=text)
        assert response.output_text == f"to {text}"
        answers.append(text)

    server.respond_with(lambda request: Reply(f"to {request.text}", delay=1.0))
    endpoint = Endpoint.compatible(server.url, lanes=True)
    async with connect(endpoint=endpoint) as connection, trio.open_nursery() as nursery:
        for number in range(100):
            nursery.start_soon(ask, connection, f"question {number}")
    assert len(answers) == 100
    assert server.statistics().max_active == 16
    assert server.statistics().handshakes == 1


async def test_a_lane_of_ones_own_making_is_refused(connect: "Connect") -> None:
    """Design 4: lanes are the connection's."""
    async with connect() as connection:
        with pytest.raises(ConfigurationError):
            await connection.create(model="m", input="hi", stream_id="mine")


async def test_a_field_that_is_no_json_is_the_users_mistake(
    server: ResponsesServer, connect: "Connect"
) -> None:
    """Row 6: nothing was sent, and nothing is left in the way."""
    async with connect() as connection:
        with pytest.raises(TypeError):
            await connection.create(model="m", input="hi", extra_field=object())
        assert connection.statistics().requests_active == 0
        await well(connection)
    assert len(server.requests) == 1


# --- Leaving early -------------------------------------------------------------------------


async def test_a_stream_left_early_leaves_the_next_turn_its_own_events(
    server: ResponsesServer, connect: "Connect"
) -> None:
    """P5, row 5: by break; the rest is dropped and counted."""
    server.reply("words of the first turn", delay=1.0)
    async with connect() as connection:
        async with connection.stream(model="m", input="hi") as stream:
            async for event in stream:
                if isinstance(event, OutputTextDelta):
                    break
        await well(connection)
        assert connection.statistics().dropped_events == 8
        assert trio.current_time() == 12
    assert server.statistics().handshakes == 1


async def test_an_unread_stream_leaves_the_next_turn_its_own_events(
    server: ResponsesServer, connect: "Connect"
) -> None:
    """P5: not one event was read, and all of them were there."""
    async with connect() as connection:
        async with connection.stream(model="m", input="hi"):
            await wait_all_tasks_blocked()
            assert connection.statistics().unread_bytes > 0
        assert connection.statistics().unread_bytes == 0
        await well(connection)
    assert server.statistics().handshakes == 1


async def test_a_turn_left_with_replace_does_not_hold_up_the_next_one(
    server: ResponsesServer, connect: "Connect"
) -> None:
    """P5: the socket is replaced, at once."""
    server.stall(after_events=2, seconds=100)
    async with connect() as connection:
        async with connection.stream(model="m", input="hi", abandon="replace") as stream:
            await stream.__anext__()
        await well(connection)
        assert trio.current_time() == 0
    assert server.statistics().handshakes == 2


async def test_a_cancelled_create_leaves_the_next_turn_its_own_events(
    server: ResponsesServer, connect: "Connect"
) -> None:
    """P5, row 5."""
    server.reply("words of the first turn", delay=1.0)
    async with connect() as connection:
        with trio.move_on_after(2.5) as scope:
            await connection.create(model="m", input="hi")
        assert scope.cancelled_caught
        await well(connection)
        assert trio.current_time() == 12
    assert server.statistics().handshakes == 1


async def test_a_response_is_not_there_before_its_end(connect: "Connect") -> None:
    """P3: nothing half-finished is taken for a result."""
    async with connect() as connection:
        async with connection.stream(model="m", input="hi") as stream:
            await stream.__anext__()
            with pytest.raises(RuntimeError):
                _ = stream.response
        with pytest.raises(RuntimeError):
            _ = stream.response
        with pytest.raises(RuntimeError):
            await stream.__anext__()


# --- Warm-ups ------------------------------------------------------------------------------


async def test_a_warm_up_gives_its_response(server: ResponsesServer, connect: "Connect") -> None:
    """D23, row 22: it waits for its own end, and may be a parent."""
    async with connect() as connection:
        warm = await connection.warm_up(model="m", instructions="be brief")
        assert warm.status == "completed"
        assert warm.raw_output in ([], None)
        assert server.requests[0].body == {
            "type": "response.create",
            "model": "m",
            "input": [],
            "instructions": "be brief",
            "generate": False,
        }
        await connection.create(model="m", input="hi", previous_response_id=warm.id)


async def test_a_warm_up_with_output_is_told(server: ResponsesServer, connect: "Connect") -> None:
    """Row 22: the endpoint bills what was not asked for."""
    server.reply("unasked").for_warm_up()
    async with connect() as connection:
        with pytest.raises(UnexpectedOutput) as failure:
            await connection.warm_up(model="m")
        assert failure.value.response.output_text == "unasked"
        assert failure.value.delivery is DeliveryStatus.ACCEPTED
        await well(connection)


async def test_a_refused_warm_up_is_an_api_error(
    server: ResponsesServer, connect: "Connect"
) -> None:
    """Row 22."""
    server.fail("unsupported_parameter", status=400, param="generate").for_warm_up()
    async with connect() as connection:
        with pytest.raises(APIError) as failure:
            await connection.warm_up(model="m")
        assert failure.value.param == "generate"
        assert failure.value.delivery is DeliveryStatus.REJECTED


# --- The parent ----------------------------------------------------------------------------


async def test_the_parent_is_that_of_the_socket(
    server: ResponsesServer, connect: "Connect"
) -> None:
    """D7, row 16: None at first, set by what completes, None on the next socket."""
    async with connect() as connection:
        assert connection.previous_response_id is None
        first = await connection.create(model="m", input="one")
        assert connection.previous_response_id == first.id
        second = await connection.create(model="m", input="two", previous_response_id=first.id)
        assert second.output_text == 'Turn 2: you said "two".'
        assert connection.previous_response_id == second.id
        await server.reset_all()
        await wait_all_tasks_blocked()
        assert connection.previous_response_id is None
        await connection.wait_open()
        assert connection.previous_response_id is None


@pytest.mark.parametrize("status", ["failed", "incomplete"])
async def test_only_a_completed_response_is_a_parent(
    server: ResponsesServer, connect: "Connect", status: Any
) -> None:
    """D7, row 16."""
    async with connect() as connection:
        first = await connection.create(model="m", input="one")
        server.reply("no", status=status)
        try:
            await connection.create(model="m", input="two")
        except ResponseFailedError:
            assert status == "failed"
        assert connection.previous_response_id == first.id


async def test_an_error_evicts_the_parent(server: ResponsesServer, connect: "Connect") -> None:
    """D7: as the server's own cache does; and only where the request named it."""
    endpoint = Endpoint.compatible(server.url, after_error="reuse")
    async with connect(endpoint=endpoint) as connection:
        first = await connection.create(model="m", input="one")
        server.fail(status=400)
        with pytest.raises(APIError):
            await connection.create(model="m", input="unrelated")
        assert connection.previous_response_id == first.id
        server.fail(status=400)
        with pytest.raises(APIError):
            await connection.create(model="m", input="two", previous_response_id=first.id)
        assert connection.previous_response_id is None


async def test_an_unknown_parent_is_told(connect: "Connect") -> None:
    """Row 8: typed, as rejected, and the connection goes on."""
    async with connect() as connection:
        with pytest.raises(PreviousResponseNotFound) as failure:
            await connection.create(model="m", input="hi", previous_response_id="resp_gone")
        assert (failure.value.status, failure.value.param) == (400, "previous_response_id")
        assert failure.value.delivery is DeliveryStatus.REJECTED
        await well(connection)


# --- Bad ends ------------------------------------------------------------------------------


@pytest.mark.parametrize("after_events", [0, 1, 4])
@pytest.mark.parametrize("shape", ERROR_SHAPES)
async def test_every_shape_of_error_ends_the_turn(
    server: ResponsesServer, connect: "Connect", shape: ErrorShape, after_events: int
) -> None:
    """P3, P8, row 1: before the start and after it, with code, status and retry_after."""
    server.fail(
        "rate_limit_exceeded",
        status=429,
        message="slow down",
        param="model",
        shape=shape,
        headers={"retry-after": 7},
        after_events=after_events,
    )
    async with connect() as connection:
        if shape == "failed":
            with pytest.raises(ResponseFailedError) as failed:
                await connection.create(model="m", input="hi")
            assert isinstance(failed.value, RateLimitError)
            assert failed.value.response.error is not None
            assert failed.value.response.error.code == "rate_limit_exceeded"
            assert failed.value.response.error.message == "slow down"
            assert failed.value.delivery is DeliveryStatus.ACCEPTED
        else:
            with pytest.raises(APIError) as failure:
                await connection.create(model="m", input="hi")
            error = failure.value
            assert error.message == "slow down"
            assert "slow down" in str(error)
            assert error.retry_after == 7
            if shape != "detail":
                assert isinstance(error, RateLimitError)
                assert error.code == "rate_limit_exceeded"
                assert error.param == "model"
            if shape not in {"flat", "sequenced"}:
                assert error.status == 429
            started = DeliveryStatus.ACCEPTED if after_events else DeliveryStatus.REJECTED
            assert error.delivery is started
        await well(connection)
        assert trio.current_time() == 0


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("rate_limit_exceeded", RateLimitError),
        ("previous_response_not_found", PreviousResponseNotFound),
        ("websocket_stream_limit_reached", StreamLimitReached),
        ("invalid_stream_id", InvalidStreamId),
        ("server_is_overloaded", ServerOverloaded),
        ("slow_down", ServerOverloaded),
        ("something_new", APIError),
        (None, APIError),
    ],
)
async def test_codes_have_classes(
    server: ResponsesServer, connect: "Connect", code: str | None, kind: type[APIError]
) -> None:
    """Design 5: on a lane, since one of them is about its name."""
    server.fail(code, status=500, message="It failed.")
    endpoint = Endpoint.compatible(server.url, lanes=True)
    async with connect(endpoint=endpoint) as connection, connection.lane("mine") as lane:
        with pytest.raises(APIError) as failure:
            await lane.create(model="m", input="hi")
        assert type(failure.value) is kind
        assert failure.value.code == code
        assert trio.current_time() == 0


async def test_a_server_error_before_the_start_is_ambiguous(
    server: ResponsesServer, connect: "Connect"
) -> None:
    """P4: 5xx proves nothing."""
    server.fail("server_error", status=500)
    async with connect() as connection:
        with pytest.raises(APIError) as failure:
            await connection.create(model="m", input="hi")
        assert failure.value.delivery is DeliveryStatus.AMBIGUOUS
    assert len(server.requests) == 1


async def test_a_stream_shows_the_error_frame_and_then_raises(
    server: ResponsesServer, connect: "Connect"
) -> None:
    """P3: and says the same thing again when it is asked again."""
    server.fail("server_error", status=500, after_events=3)
    async with connect() as connection, connection.stream(model="m", input="hi") as stream:
        events: list[object] = []
        with pytest.raises(APIError) as failure:
            events.extend([event async for event in stream])
        with pytest.raises(APIError) as again:
            await stream.__anext__()
        assert again.value is failure.value
        with pytest.raises(APIError):
            _ = stream.response
        await well(connection)


async def test_a_failed_response_is_raised_with_the_response(
    server: ResponsesServer, connect: "Connect"
) -> None:
    """P3, row 21: a failure is no clean empty turn; the output so far is kept."""
    server.reply("so far so good", status="failed", error="server_error")
    async with connect() as connection:
        with pytest.raises(ResponseFailedError) as failure:
            await connection.create(model="m", input="hi")
        response = failure.value.response
        assert response.status == "failed"
        assert response.output_text == "so far so good"
        assert response.error is not None
        assert response.error.code == "server_error"
        assert "so far" not in str(failure.value)
        await well(connection)


async def test_a_stream_gives_a_failed_response(
    server: ResponsesServer, connect: "Connect"
) -> None:
    """P3: ``create()`` raises it; a stream shows it."""
    server.reply("so far", status="failed")
    async with connect() as connection:
        async with connection.stream(model="m", input="hi") as stream:
            await stream.until_done()
        assert stream.response.status == "failed"


async def test_an_incomplete_response_is_a_response(
    server: ResponsesServer, connect: "Connect"
) -> None:
    """P3, D13, row 21."""
    server.reply("cut sho", status="incomplete", reason="max_output_tokens")
    async with connect() as connection:
        response = await connection.create(model="m", input="hi")
        assert response.status == "incomplete"
        assert response.incomplete_details is not None
        assert response.incomplete_details.reason == "max_output_tokens"
        assert response.output_text == "cut sho"


@pytest.mark.parametrize("final", ["empty", "null", "missing"])
async def test_a_terminal_event_without_output_is_completed_from_the_items(
    server: ResponsesServer, connect: "Connect", final: Any
) -> None:
    """Row 20."""
    server.reply("all of it", final_output=final)
    async with connect() as connection:
        response = await connection.create(model="m", input="hi")
        assert response.output_text == "all of it"


@pytest.mark.parametrize("events", ["deltas", "items", "terminal"])
async def test_sparse_streams_end_as_well(
    server: ResponsesServer, connect: "Connect", events: Any
) -> None:
    """P8: other servers leave events out."""
    server.reply("all of it", events=events)
    async with connect() as connection:
        response = await connection.create(model="m", input="hi")
        assert response.output_text == "all of it"


@pytest.mark.parametrize("kind", ["response.completed", "response.failed", "response.incomplete"])
async def test_a_last_event_that_cannot_be_decoded_ends_the_turn(
    server: ResponsesServer, connect: "Connect", kind: str
) -> None:
    """P3, P8: no hang; and its bytes are there."""
    frames: list[dict[str, Any]] = [
        {"type": "response.created", "response": {"id": "resp_1"}},
        {"type": kind, "response": 5},
    ]
    server.answer(frames)
    async with connect() as connection:
        with pytest.raises(UndecodableResponse) as failure:
            await connection.create(model="m", input="hi")
        assert failure.value.frame.type == kind
        assert b'"response":5' in failure.value.frame.raw
        assert failure.value.delivery is DeliveryStatus.ACCEPTED
        assert trio.current_time() == 0
        assert connection.statistics().undecodable_frames == 1
        await well(connection)
    assert server.statistics().handshakes == 1


async def test_unknown_and_undecodable_events_of_a_turn_are_the_turns(
    server: ResponsesServer, connect: "Connect"
) -> None:
    """P8, D12: they end nothing."""
    script = server.reply("hello")
    script.inject({"type": "response.sang", "sequence_number": 99}, after_events=3)
    script.inject({"type": "response.output_text.delta", "delta": 5}, after_events=3)
    async with connect() as connection, connection.stream(model="m", input="hi") as stream:
        events = [event async for event in stream]
        unknown = [event for event in events if isinstance(event, UnknownEvent)]
        assert [event.type for event in unknown] == ["response.sang"]
        assert sum(isinstance(event, UndecodableFrame) for event in events) <= 1
        assert stream.response.output_text == "hello"


# --- What an error does to the socket ------------------------------------------------------


@pytest.mark.parametrize(("after_error", "sockets"), [("replace", 2), ("reuse", 1)])
@pytest.mark.parametrize("after_events", [0, 3])
async def test_the_endpoint_says_what_an_error_does_to_the_socket(
    server: ResponsesServer, connect: "Connect", after_error: Any, sockets: int, after_events: int
) -> None:
    """Row 12: some servers fall silent after one."""
    endpoint = Endpoint.compatible(server.url, after_error=after_error)
    server.fail("server_error", status=500, after_events=after_events)
    async with connect(endpoint=endpoint) as connection:
        with pytest.raises(APIError):
            await connection.create(model="m", input="hi")
        await well(connection)
        assert trio.current_time() == 0
        assert connection.statistics().sockets_opened == sockets
    assert server.requests[1].connection == sockets
    assert server.connections[0].close_code == 1000


async def test_a_replaced_socket_finishes_its_other_turns(
    server: ResponsesServer, connect: "Connect"
) -> None:
    """Row 12: one turn's error is not another's."""
    endpoint = Endpoint.compatible(server.url, lanes=True, after_error="replace")
    texts: list[str] = []

    async def ask(connection: ResponsesConnection) -> None:
        response = await connection.create(model="m", input="slow")
        texts.append(response.output_text)

    server.reply("a b c d", delay=5.0)
    server.fail("server_error", status=500)
    async with connect(endpoint=endpoint) as connection, trio.open_nursery() as nursery:
        nursery.start_soon(ask, connection)
        await wait_all_tasks_blocked()
        with pytest.raises(APIError):
            await connection.create(model="m", input="fails")
        await well(connection)
        assert trio.current_time() == 0
        assert connection.state is ConnectionState.OPEN
    assert texts == ["a b c d"]
    assert server.statistics().handshakes == 2


def limit_frame() -> dict[str, Any]:
    return {"type": "error", "status": 400, "error": {"code": LIMIT, "message": "60 minutes"}}


async def test_an_age_limit_on_an_idle_socket_is_nobodys_business(
    server: ResponsesServer, connect: "Connect"
) -> None:
    """Row 2 and 10: the next turn is on a new socket, at once."""
    async with connect() as connection:
        await well(connection)
        await server.send_raw(limit_frame())
        await wait_all_tasks_blocked()
        assert connection.state is ConnectionState.OPEN
        await well(connection)
        assert trio.current_time() == 0
    assert [request.connection for request in server.requests] == [1, 2]


async def test_an_age_limit_in_place_of_a_start_is_sent_again(
    server: ResponsesServer, connect: "Connect"
) -> None:
    """P4, row 10: it proves that the request did not start."""
    server.fail(LIMIT, status=400)
    async with connect() as connection:
        async with connection.stream(model="m", input="hi") as stream:
            events = [event async for event in stream]
        assert not any(isinstance(event, ErrorEvent) for event in events)
        assert stream.response.status == "completed"
    assert [request.connection for request in server.requests] == [1, 2]


async def test_an_age_limit_in_place_of_every_start_is_told(
    server: ResponsesServer, connect: "Connect"
) -> None:
    """P4: once for each cause; and not for ever."""
    for _ in range(3):
        server.fail(LIMIT, status=400)
    async with connect() as connection:
        with pytest.raises(ConnectionLimitReached) as failure:
            await connection.create(model="m", input="hi")
        assert failure.value.delivery is DeliveryStatus.REJECTED
    assert len(server.requests) == 2


async def test_an_age_limit_after_the_start_leaves_the_response_to_finish(
    server: ResponsesServer, connect: "Connect"
) -> None:
    """Row 10: the socket takes nothing new, and what runs may end."""
    server.reply("one two three").inject(limit_frame(), after_events=4)
    async with connect() as connection:
        response = await connection.create(model="m", input="hi")
        assert response.output_text == "one two three"
        await well(connection)
    assert [request.connection for request in server.requests] == [1, 2]


async def test_an_age_limit_and_a_close_after_the_start_are_a_loss_with_its_reason(
    server: ResponsesServer, connect: "Connect"
) -> None:
    """Row 10 and 23: the limit is the cause of the loss."""
    server.reply("one two three").inject(limit_frame(), after_events=4).drop(
        after_events=5, how=1000
    )
    async with connect() as connection:
        with pytest.raises(ConnectionLost) as failure:
            await connection.create(model="m", input="hi")
        assert failure.value.delivery is DeliveryStatus.ACCEPTED
        assert isinstance(failure.value.__cause__, ConnectionLimitReached)
        await well(connection)
