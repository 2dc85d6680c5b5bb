"""P4: the delivery of a request, and what is sent again: by default and by choice."""

from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.testing.driver import NO_WAITING
from tests.turn.rig import (
    NEVER_AGAIN,
    STEADY,
    Json,
    Wire,
    ask,
    ask_strictly,
    assert_at_rest,
    dead,
    heard,
    open_through,
    stuck,
    types,
)
from trio_responses import (
    APIError,
    ConnectionClosed,
    ConnectionLimitReached,
    ConnectionLost,
    DeliveryStatus,
    FirstEventTimeout,
    KeepaliveTimeout,
    RateLimitError,
    ReconnectFailed,
    ResponsesConnection,
    ResponsesError,
    StallTimeout,
    Timeouts,
    TurnRestarted,
)
from trio_responses.testing import Fail, Reply, ResponsesServer

pytestmark = NO_WAITING

NOT_SENT, AMBIGUOUS, ACCEPTED, REJECTED = (
    DeliveryStatus.NOT_SENT,
    DeliveryStatus.AMBIGUOUS,
    DeliveryStatus.ACCEPTED,
    DeliveryStatus.REJECTED,
)


# --- Sent again by choice ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "after_events", "error"),
    [
        ("drop", 0, ConnectionLost),
        ("drop", 2, ConnectionLost),
        ("stall", 0, FirstEventTimeout),
        ("stall", 2, StallTimeout),
        ("half_open", 0, KeepaliveTimeout),
        ("half_open", 2, KeepaliveTimeout),
    ],
)
async def test_one_cause_is_a_reason_to_send_again_once(
    server: ResponsesServer, fault: str, after_events: int, error: type[ResponsesError]
) -> None:
    """P4: a request that kills its server is not sent a third time (``"at_least_once"``)."""
    for _ in range(2):
        getattr(server, fault)(after_events=after_events)
    async with server.open_client(reconnect=STEADY) as connection:
        with pytest.raises(error) as failure:
            await ask(connection, "hi", delivery="at_least_once")
        assert failure.value.delivery is (ACCEPTED if after_events else AMBIGUOUS)
        assert len(server.requests) == 2
        await ask_strictly(connection, "next")


async def test_each_cause_is_a_reason_of_its_own_to_send_again(server: ResponsesServer) -> None:
    """P4: a lost socket, then a silent one: the third request is the last."""
    server.drop()
    server.stall()
    server.drop()
    async with server.open_client(reconnect=STEADY) as connection:
        with pytest.raises(ConnectionLost):
            await ask(connection, "hi", delivery="at_least_once")
        assert len(server.requests) == 3


async def test_closing_ends_a_turn_that_would_be_sent_again(server: ResponsesServer) -> None:
    """P3, P4: ``aclose()`` in another task ends the turn, and nothing is sent after it."""
    server.stall(after_events=2)
    async with server.open_client() as connection:
        async with trio.open_nursery() as nursery:

            async def close() -> None:
                await wait_all_tasks_blocked()
                await connection.aclose()

            nursery.start_soon(close)
            with pytest.raises(ConnectionClosed) as failure:
                await ask(connection, "hi", delivery="at_least_once")
            assert failure.value.delivery is ACCEPTED
        with pytest.raises(ConnectionClosed) as later:
            await ask(connection, "next")
        assert later.value.delivery is NOT_SENT
        assert len(server.requests) == 1


async def test_a_lost_socket_raises_an_exception_for_each_of_its_turns(
    server: ResponsesServer,
) -> None:
    """P4: one turn had begun and the other had not."""
    server.stall(after_events=2)
    server.stall(after_events=0)
    failures: list[ConnectionLost] = []

    async def task(connection: ResponsesConnection) -> None:
        with pytest.raises(ConnectionLost) as failure:
            await ask(connection, "hi")
        failures.append(failure.value)

    async with server.open_client() as connection, trio.open_nursery() as nursery:
        for _ in range(2):
            nursery.start_soon(task, connection)
        await wait_all_tasks_blocked()
        await server.reset_all()
    assert failures[0] is not failures[1]
    assert {failure.delivery for failure in failures} == {AMBIGUOUS, ACCEPTED}


# --- What was not sent -------------------------------------------------------------------


async def test_a_request_that_meets_two_dead_sockets_was_not_sent(server: ResponsesServer) -> None:
    """P4: it is moved to another socket once."""
    async with open_through(server, dead, dead) as connection:
        with pytest.raises(ConnectionLost) as failure:
            await ask(connection, "hi")
        assert failure.value.delivery is NOT_SENT
        assert server.requests == []
        await ask_strictly(connection, "next")
        assert_at_rest(connection)


async def test_the_turns_of_a_dead_socket_all_move_to_the_next(server: ResponsesServer) -> None:
    async with open_through(server, dead) as connection:
        async with trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(ask_strictly, connection, str(number))
        assert sorted(int(request["input"]) for request in server.requests) == list(range(20))


@pytest.mark.parametrize("answered", [False, True])
async def test_a_loss_while_the_request_is_written_is_ambiguous(
    server: ResponsesServer, *, answered: bool
) -> None:
    """P4: all bytes were written, and the loss was seen before the write returned."""
    server.drop(after_events=2 if answered else 0)

    async def late(number: int) -> None:
        if number == 1:
            await wait_all_tasks_blocked()

    async def dial(host: str, port: int) -> trio.abc.Stream:
        return Wire(await server.dial(host, port), after=late)

    async with server.open_client(dial=dial, reconnect=STEADY) as connection:
        with pytest.raises(ConnectionLost) as failure:
            await ask(connection, "hi")
        assert failure.value.delivery is (ACCEPTED if answered else AMBIGUOUS)
        assert len(server.requests) == 1


async def test_an_answer_may_come_before_the_write_returns(server: ResponsesServer) -> None:
    """P5: the request is in its lane before its bytes are out."""

    async def late(number: int) -> None:
        if number > 0:
            await trio.sleep(1)

    async def dial(host: str, port: int) -> trio.abc.Stream:
        return Wire(await server.dial(host, port), after=late)

    async with server.open_client(dial=dial) as connection:
        await ask_strictly(connection, "hi")
        assert_at_rest(connection)


# --- What was rejected -------------------------------------------------------------------


async def test_a_turn_that_meets_the_age_limit_moves_to_a_new_socket(
    server: ResponsesServer,
) -> None:
    """P4: the server states that it did not start the request."""
    async with server.open_client() as connection:
        await ask_strictly(connection, "first")
        server.fail("websocket_connection_limit_reached", status=400)
        async with connection.stream(model="m", input="hi") as stream:
            events = [event async for event in stream]
        assert types(events)[:2] == [TurnRestarted.type, "response.created"]
        assert stream.response.output_text == heard("hi")
        assert trio.current_time() == 0
        assert server.statistics().handshakes == 2
        assert [request.connection for request in server.requests] == [1, 1, 2]
        assert_at_rest(connection)


async def test_a_second_age_limit_is_raised(
    server: ResponsesServer,
) -> None:
    """P4: one cause is a reason to send again once."""
    server.respond_with(lambda _: Fail("websocket_connection_limit_reached", status=400))
    async with server.open_client(reconnect=STEADY) as connection:
        with pytest.raises(ConnectionLimitReached) as failure:
            await ask(connection, "hi", delivery="at_least_once")
        assert failure.value.delivery is REJECTED
        assert len(server.requests) == 2


# --- Without a socket --------------------------------------------------------------------


async def test_a_second_sending_without_a_socket_keeps_the_first_loss(
    server: ResponsesServer,
) -> None:
    """P4: the delivery of the first sending stays known, and no other exception is changed."""
    server.drop()
    async with server.open_client(reconnect=STEADY) as connection:
        async with connection.stream(model="m", input="hi", delivery="at_least_once") as stream:
            server.stop_accepting()
            with pytest.raises(ReconnectFailed) as failure:
                await stream.get_final_response()
        assert failure.value.delivery is AMBIGUOUS
        assert any(isinstance(error, ConnectionLost) for error in behind(failure.value))
        with pytest.raises(ReconnectFailed) as other:
            await ask(connection, "next")
        assert other.value.delivery is NOT_SENT
        assert failure.value.delivery is AMBIGUOUS
        assert len(server.requests) == 1


async def test_a_second_sending_that_cannot_be_written_keeps_the_first_loss(
    server: ResponsesServer,
) -> None:
    server.drop()

    async def well(_number: int) -> None:
        await trio.lowlevel.checkpoint()

    async with open_through(server, well, dead, dead) as connection:
        with pytest.raises(ConnectionLost) as failure:
            await ask(connection, "hi", delivery="at_least_once")
        assert failure.value.delivery is AMBIGUOUS
        assert sum(isinstance(error, ConnectionLost) for error in behind(failure.value)) >= 1


@pytest.mark.parametrize(("after", "known"), [(0, AMBIGUOUS), (3, ACCEPTED)])
async def test_a_second_sending_that_is_refused_keeps_the_first_delivery(
    server: ResponsesServer, after: int, known: DeliveryStatus
) -> None:
    """P4: the refused request has not run, but the first one may have."""
    server.drop(after_events=after)
    server.fail("rate_limit_exceeded", status=429)
    async with server.open_client(reconnect=STEADY) as connection:
        with pytest.raises(RateLimitError) as failure:
            await ask(connection, "hi", delivery="at_least_once", max_retries=0)
        assert failure.value.delivery is known
        assert any(isinstance(error, ConnectionLost) for error in behind(failure.value))
        assert len(server.requests) == 2


async def test_the_delivery_is_the_furthest_of_all_sendings(server: ResponsesServer) -> None:
    """P4: the first was accepted, whatever the second and third met."""
    server.drop(after_events=3)
    server.fail("websocket_connection_limit_reached", status=400)
    server.drop()
    async with server.open_client(reconnect=STEADY) as connection:
        with pytest.raises(ConnectionLost) as failure:
            await ask(connection, "hi", delivery="at_least_once")
        assert failure.value.delivery is ACCEPTED
        assert len(server.requests) == 3


def behind(error: BaseException) -> list[BaseException]:
    """Return the causes and contexts of an exception."""
    found: list[BaseException] = []
    waiting: list[BaseException | None] = [error.__cause__, error.__context__]
    while waiting:
        one = waiting.pop()
        if one is not None and one not in found:
            found.append(one)
            waiting += [one.__cause__, one.__context__]
    return found


async def test_without_attempts_the_loss_is_the_cause_of_the_failure(
    server: ResponsesServer,
) -> None:
    server.drop(after_events=1)
    async with server.open_client(reconnect=NEVER_AGAIN) as connection:
        with pytest.raises(ConnectionLost) as failure:
            await ask(connection, "hi")
        assert failure.value.delivery is ACCEPTED
        with pytest.raises(ReconnectFailed) as later:
            await ask(connection, "next")
        assert later.value.delivery is NOT_SENT
        assert isinstance(later.value.__cause__, ConnectionLost)


# --- In the middle of a second sending ---------------------------------------------------


async def test_a_stream_that_is_sent_again_starts_its_snapshot_anew(
    server: ResponsesServer,
) -> None:
    """P4: the events of the second response follow those of the first."""
    server.reply("one two three").drop(after_events=6)
    server.reply("four")
    async with server.open_client(reconnect=STEADY) as connection:
        async with connection.stream(model="m", input="hi", delivery="at_least_once") as stream:
            pieces = [piece async for piece in stream.text_deltas()]
        assert pieces == ["one", " two", "four"]
        assert stream.snapshot.text == stream.response.output_text == "four"
        assert stream.response_id == stream.response.id == server.requests[1].response_id


async def test_a_stream_that_is_sent_again_yields_turn_restarted(server: ResponsesServer) -> None:
    server.reply("one two three").drop(after_events=6)
    server.reply("four")
    async with (
        server.open_client(reconnect=STEADY) as connection,
        connection.stream(model="m", input="hi", delivery="at_least_once") as stream,
    ):
        events = [event async for event in stream]
    kinds = [event.type for event in events]
    place = kinds.index(TurnRestarted.type)
    assert place == 6
    assert kinds[place + 1] == "response.created"
    assert kinds.count("response.created") == 2
    (restarted,) = [event for event in events if isinstance(event, TurnRestarted)]
    assert isinstance(restarted.error, ConnectionLost)
    assert restarted.error.delivery is ACCEPTED


async def test_a_stream_without_events_yields_a_restart_too(server: ResponsesServer) -> None:
    server.drop(after_events=0)
    async with (
        server.open_client(reconnect=STEADY) as connection,
        connection.stream(model="m", input="hi", delivery="at_least_once") as stream,
    ):
        kinds = [event.type async for event in stream]
    assert kinds[:2] == [TurnRestarted.type, "response.created"]
    assert kinds.count(TurnRestarted.type) == 1
    assert len(server.requests) == 2


async def test_a_read_that_is_cancelled_during_the_second_sending_can_be_repeated(
    server: ResponsesServer,
) -> None:
    """P3: the next read does not hang, and nothing is sent a third time."""
    async with server.open_client(reconnect=STEADY) as connection:
        await ask_strictly(connection, "first")
        server.fail("websocket_connection_limit_reached", status=400)
        async with connection.stream(model="m", input="hi") as stream:
            server.stop_accepting()
            restarted = await anext(stream)
            assert isinstance(restarted, TurnRestarted)
            for _ in range(3):
                with trio.move_on_after(0.1) as scope:
                    await stream.__anext__()
                assert scope.cancelled_caught
            server.accept_again()
            with trio.fail_after(30):
                response = await stream.get_final_response()
        assert response.output_text == heard("hi")
        assert [request["input"] for request in server.requests] == ["first", "hi", "hi"]
        assert_at_rest(connection)


async def test_a_second_sending_that_is_cancelled_is_not_sent(server: ResponsesServer) -> None:
    """P5: while it waits for a socket."""
    server.drop()
    async with server.open_client(reconnect=STEADY) as connection:
        with trio.move_on_after(0.5):
            await ask(connection, "hi", delivery="at_least_once")
        await ask_strictly(connection, "next")
        assert [request["input"] for request in server.requests] == ["hi", "next"]
        assert_at_rest(connection)


async def test_a_cancelled_write_that_hangs_waits_for_its_deadline(
    server: ResponsesServer,
) -> None:
    """P5: half a frame would end the socket for all turns, so ``timeouts.send`` decides."""
    async with open_through(server, stuck) as connection:
        with trio.move_on_after(1) as scope:
            await ask(connection, "hi")
        assert scope.cancelled_caught
        assert 60 <= trio.current_time() <= 61  # timeouts.send
        await ask_strictly(connection, "next")
        assert [request["input"] for request in server.requests] == ["next"]


async def test_an_error_frame_ends_the_turn_of_its_lane_only(
    server: ResponsesServer,
) -> None:
    """P4, P5."""
    server.respond_with(
        lambda request: Fail("server_error") if int(request["input"]) % 2 else Reply("fine")
    )
    outcomes: dict[int, str] = {}

    async def task(number: int) -> None:
        try:
            outcomes[number] = await ask(connection, str(number))
        except APIError:
            outcomes[number] = "failed"

    async with server.open_client() as connection:
        async with trio.open_nursery() as nursery:
            for number in range(32):
                nursery.start_soon(task, number)
        assert outcomes == {n: "failed" if n % 2 else "fine" for n in range(32)}
        assert server.statistics().handshakes == 1


METADATA: Json = {"type": "response.metadata", "headers": {"x-turn-state": "1"}}


NOT_FOUND: Json = {
    "type": "error",
    "status": 400,
    "error": {"type": "invalid_request_error", "code": "previous_response_not_found"},
}


async def test_an_event_of_the_servers_own_before_an_error_is_no_start(
    narrow_server: "ResponsesServer",
) -> None:
    """P7: a lost parent costs one full resend (docs/protocol.md, 3)."""
    async with (
        narrow_server.open_client() as connection,
        connection.conversation(model="m", store=False) as talk,
    ):
        await talk.run("one")
        narrow_server.answer([METADATA, NOT_FOUND])
        response = await talk.run("two")
        assert response.output_text == 'Turn 2: you said "two".'


async def test_each_write_of_a_lost_socket_has_its_own_delivery(server: ResponsesServer) -> None:
    """P4: the socket ends under two writes and a turn that the server works on."""

    async def stuck_at_the_second(number: int) -> None:
        if number > 1:
            await trio.sleep_forever()

    deliveries: dict[str, DeliveryStatus | None] = {}

    async def ask(connection: ResponsesConnection, name: str) -> None:
        with pytest.raises(ResponsesError) as failure:
            await connection.create(model="m", input=name)
        deliveries[name] = failure.value.delivery

    for _ in range(20):  # Trio wakes tasks in random order
        server.reply("slow", delay=100)
        options: dict[str, Any] = {"timeouts": Timeouts(send=5), "reconnect": []}
        async with (
            open_through(server, stuck_at_the_second, **options) as connection,
            trio.open_nursery() as nursery,
        ):
            for name in "accepted", "stuck", "queued":
                nursery.start_soon(ask, connection, name)
                await trio.sleep(1)
        assert deliveries == {
            "accepted": DeliveryStatus.ACCEPTED,
            "stuck": DeliveryStatus.NOT_SENT,
            "queued": DeliveryStatus.NOT_SENT,
        }
