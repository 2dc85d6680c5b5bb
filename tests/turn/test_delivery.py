"""P4: delivery is said, not guessed; what cannot have run is sent again, and nothing else is."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.testing.driver import NO_WAITING
from tests.turn.rig import (
    LIMIT_REACHED,
    NEVER_AGAIN,
    STEADY,
    Json,
    Wire,
    ask,
    ask_strictly,
    assert_at_rest,
    created,
    dead,
    encoded,
    heard,
    open_through,
    stuck,
    types,
)
from trio_responses import (
    APIError,
    AuthenticationError,
    ConnectionClosed,
    ConnectionLimitReached,
    ConnectionLost,
    DeliveryStatus,
    FirstEventTimeout,
    KeepaliveTimeout,
    Limits,
    MessageTooLarge,
    PreviousResponseNotFound,
    RateLimitError,
    ReconnectFailed,
    RequestTooLarge,
    ResponseFailedError,
    ResponsesConnection,
    ResponsesError,
    SendTimeout,
    ServerOverloaded,
    StallTimeout,
    Timeouts,
    TurnRestarted,
    UndecodableResponse,
    UnexpectedOutput,
)
from trio_responses.testing import Fail, How, Reply, ResponsesServer, Script

pytestmark = NO_WAITING

NOT_SENT, AMBIGUOUS, ACCEPTED, REJECTED = (
    DeliveryStatus.NOT_SENT,
    DeliveryStatus.AMBIGUOUS,
    DeliveryStatus.ACCEPTED,
    DeliveryStatus.REJECTED,
)


# --- What is said ------------------------------------------------------------------------


@dataclass(frozen=True)
class Fault:
    order: Callable[[ResponsesServer], Script]
    error: type[ResponsesError]
    delivery: DeliveryStatus
    again: bool = False
    """Whether ``"at_least_once"`` sends it again."""


def drop(after: int, how: How) -> Callable[[ResponsesServer], Script]:
    return lambda server: server.drop(after_events=after, how=how)


def fail(code: str, status: int, after: int = 0) -> Callable[[ResponsesServer], Script]:
    return lambda server: server.fail(code, status=status, after_events=after)


FAULTS: Final[dict[str, Fault]] = {
    "reset before": Fault(drop(0, "reset"), ConnectionLost, AMBIGUOUS, again=True),
    "end before": Fault(drop(0, "fin"), ConnectionLost, AMBIGUOUS, again=True),
    "1000 before": Fault(drop(0, 1000), ConnectionLost, AMBIGUOUS, again=True),
    "1011 before": Fault(drop(0, 1011), ConnectionLost, AMBIGUOUS, again=True),
    "reset within": Fault(drop(2, "reset"), ConnectionLost, ACCEPTED, again=True),
    "end within": Fault(drop(2, "fin"), ConnectionLost, ACCEPTED, again=True),
    "1011 within": Fault(drop(2, 1011), ConnectionLost, ACCEPTED, again=True),
    "1009 before": Fault(drop(0, 1009), RequestTooLarge, REJECTED),
    "1009 within": Fault(drop(2, 1009), ConnectionLost, ACCEPTED, again=True),
    "silent before": Fault(lambda s: s.stall(), FirstEventTimeout, AMBIGUOUS, again=True),
    "silent within": Fault(lambda s: s.stall(after_events=2), StallTimeout, ACCEPTED, again=True),
    "dead before": Fault(lambda s: s.half_open(), KeepaliveTimeout, AMBIGUOUS, again=True),
    "dead within": Fault(
        lambda s: s.half_open(after_events=2), KeepaliveTimeout, ACCEPTED, again=True
    ),
    "no parent": Fault(
        fail("previous_response_not_found", 400), PreviousResponseNotFound, REJECTED
    ),
    "bad request": Fault(fail("unsupported_parameter", 400), APIError, REJECTED),
    "too fast": Fault(fail("rate_limit_exceeded", 429), RateLimitError, REJECTED, again=True),
    "overloaded": Fault(fail("server_is_overloaded", 503), ServerOverloaded, AMBIGUOUS, again=True),
    "overloaded within": Fault(
        fail("server_is_overloaded", 503, 2), ServerOverloaded, ACCEPTED, again=True
    ),
    "bad request within": Fault(fail("invalid_prompt", 400, 2), APIError, ACCEPTED),
    "500": Fault(fail("server_error", 500), APIError, AMBIGUOUS, again=True),
    "failed": Fault(
        lambda s: s.reply("a", status="failed"), ResponseFailedError, ACCEPTED, again=True
    ),
    "bad prompt": Fault(
        lambda s: s.reply("a", status="failed", error="invalid_prompt"),
        ResponseFailedError,
        ACCEPTED,
    ),
    "undecodable": Fault(
        lambda s: s.answer([encoded(created()), '{"type": "response.completed", "response": 7}']),
        UndecodableResponse,
        ACCEPTED,
    ),
    "oversize": Fault(lambda s: s.reply("x" * 60_000), MessageTooLarge, ACCEPTED),
}


@pytest.mark.parametrize("beside", [False, True])
@pytest.mark.parametrize("name", FAULTS)
async def test_every_end_of_a_turn_says_how_far_it_had_come(
    server: ResponsesServer, name: str, *, beside: bool
) -> None:
    """P4: without retries nothing of this is sent twice; the connection works after each."""
    fault = FAULTS[name]
    fault.order(server)
    async with server.open_client(
        reconnect=STEADY, limits=Limits(max_message_bytes=50_000), max_retries=0
    ) as connection:
        async with trio.open_nursery() as nursery:
            if beside:  # what happens to one turn is said of that one only

                async def neighbour() -> None:
                    try:
                        await ask(connection, "b")
                    except ConnectionLost as lost:
                        assert lost.delivery in {AMBIGUOUS, ACCEPTED}  # noqa: PT017 - if it comes

                nursery.start_soon(neighbour)
            with pytest.raises(fault.error) as failure:
                await ask(connection, "hi")
        if not beside:
            assert type(failure.value) is fault.error
            assert failure.value.delivery is fault.delivery
            assert len(server.requests) == 1
        assert failure.value.delivery is not None
        await ask_strictly(connection, "next")
        await trio.sleep(60)
        assert_at_rest(connection)


@pytest.mark.parametrize("name", FAULTS)
async def test_at_least_once_sends_again_what_may_have_run(
    server: ResponsesServer, name: str
) -> None:
    """P4: the caller's choice; a request that would fail again is not repeated."""
    fault = FAULTS[name]
    fault.order(server)
    async with server.open_client(
        reconnect=STEADY, limits=Limits(max_message_bytes=50_000)
    ) as connection:
        if fault.again:
            assert await ask(connection, "hi", delivery="at_least_once") == heard("hi")
            assert [request["input"] for request in server.requests] == ["hi", "hi"]
        else:
            with pytest.raises(fault.error) as failure:
                await ask(connection, "hi", delivery="at_least_once")
            assert failure.value.delivery is fault.delivery
            assert len(server.requests) == 1
        await ask_strictly(connection, "next")
        await trio.sleep(60)
        assert_at_rest(connection)


@pytest.mark.parametrize("name", [name for name, fault in FAULTS.items() if fault.again])
async def test_at_least_once_is_twice_at_most_for_one_cause(
    server: ResponsesServer, name: str
) -> None:
    """P4: a request that kills its server is not sent for ever."""
    fault = FAULTS[name]
    for _ in range(2):
        fault.order(server)
    async with server.open_client(reconnect=STEADY, max_retries=1) as connection:
        with pytest.raises(fault.error) as failure:
            await ask(connection, "hi", delivery="at_least_once")
        assert failure.value.delivery is fault.delivery
        assert len(server.requests) == 2
        await ask_strictly(connection, "next")


async def test_each_cause_has_its_own_second_chance(server: ResponsesServer) -> None:
    """P4: a lost socket, then a silent one: the third request is the last."""
    server.drop()
    server.stall()
    server.drop()
    async with server.open_client(reconnect=STEADY) as connection:
        with pytest.raises(ConnectionLost):
            await ask(connection, "hi", delivery="at_least_once")
        assert len(server.requests) == 3


@pytest.mark.parametrize("code", [1008, 4000, 4999])
async def test_a_close_for_good_says_what_became_of_each_turn(
    server: ResponsesServer, code: int
) -> None:
    """P2, P4: the turn under way may have run; the one behind it was not sent."""
    server.drop(how=code)
    async with server.open_client() as connection:
        with pytest.raises(ConnectionLost) as failure:
            await ask(connection, "hi")
        assert (failure.value.code, failure.value.delivery) == (code, AMBIGUOUS)
        with pytest.raises(ConnectionLost) as later:
            await ask(connection, "next")
        assert (later.value.code, later.value.delivery) == (code, NOT_SENT)
        assert failure.value.delivery is AMBIGUOUS
        assert len(server.requests) == 1


async def test_a_request_that_is_too_large_is_not_sent(server: ResponsesServer) -> None:
    """P4, P10."""
    async with server.open_client(limits=Limits(max_request_bytes=1000)) as connection:
        with pytest.raises(RequestTooLarge) as failure:
            await ask(connection, "x" * 1000)
        assert failure.value.delivery is NOT_SENT
        assert server.requests == []
        await ask_strictly(connection, "next")
        assert_at_rest(connection)


@pytest.mark.parametrize("count", [0, 2])
async def test_a_turn_under_way_is_told_of_the_close(server: ResponsesServer, count: int) -> None:
    """P3, P4: by ``aclose`` in another task; and after it nothing is sent."""
    server.stall(after_events=count)
    async with server.open_client() as connection:
        async with trio.open_nursery() as nursery:

            async def close() -> None:
                await wait_all_tasks_blocked()
                await connection.aclose()

            nursery.start_soon(close)
            with pytest.raises(ConnectionClosed) as failure:
                await ask(connection, "hi", delivery="at_least_once")
            assert failure.value.delivery is (ACCEPTED if count else AMBIGUOUS)
        with pytest.raises(ConnectionClosed) as later:
            await ask(connection, "next")
        assert later.value.delivery is NOT_SENT
        assert len(server.requests) == 1


async def test_a_warm_up_with_output_has_run(server: ResponsesServer) -> None:
    server.reply("unasked").for_warm_up()
    async with server.open_client() as connection:
        with pytest.raises(UnexpectedOutput) as failure:
            await connection.warm_up(model="m")
        assert failure.value.delivery is ACCEPTED
        assert failure.value.response.output_text == "unasked"


async def test_the_turns_of_one_socket_are_told_each_for_itself(
    server: ResponsesServer,
) -> None:
    """P4: exceptions of their own, since one had begun and the other had not."""
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


@pytest.mark.parametrize("delivery", ["at_most_once", "at_least_once"])
async def test_a_socket_that_turns_out_dead_costs_nobody_anything(
    server: ResponsesServer, delivery: Any
) -> None:
    """P4: nothing was written, so the next socket gets it, without a word."""
    async with open_through(server, dead) as connection:
        assert await ask(connection, "hi", delivery=delivery) == heard("hi")
        assert len(server.requests) == 1
        assert server.statistics().handshakes == 2
        assert connection.statistics().requests_sent == 1
        assert_at_rest(connection)


async def test_the_same_request_finds_two_dead_sockets(server: ResponsesServer) -> None:
    """P4: once is enough; the second time it is said, with what is known: it did not run."""
    async with open_through(server, dead, dead) as connection:
        with pytest.raises(ConnectionLost) as failure:
            await ask(connection, "hi")
        assert failure.value.delivery is NOT_SENT
        assert server.requests == []
        await ask_strictly(connection, "next")
        assert_at_rest(connection)


async def test_many_turns_on_a_dead_socket_all_go_to_the_next(server: ResponsesServer) -> None:
    async with open_through(server, dead) as connection:
        async with trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(ask_strictly, connection, str(number))
        assert sorted(int(request["input"]) for request in server.requests) == list(range(20))


@pytest.mark.parametrize("answered", [False, True])
async def test_a_socket_that_dies_as_the_request_goes_out_is_ambiguous(
    server: ResponsesServer, *, answered: bool
) -> None:
    """P4: all bytes were written, and the loss was seen before the write came back."""
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


async def test_an_answer_may_overtake_the_end_of_the_write(server: ResponsesServer) -> None:
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


async def test_a_turn_that_meets_the_age_limit_goes_to_a_new_socket(
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


async def test_a_server_that_always_says_so_is_not_asked_for_ever(
    server: ResponsesServer,
) -> None:
    """P4: once for each cause."""
    server.respond_with(lambda _: Fail("websocket_connection_limit_reached", status=400))
    async with server.open_client(reconnect=STEADY) as connection:
        with pytest.raises(ConnectionLimitReached) as failure:
            await ask(connection, "hi", delivery="at_least_once")
        assert failure.value.delivery is REJECTED
        assert len(server.requests) == 2


async def test_a_response_that_has_begun_may_outlive_the_age_limit(
    server: ResponsesServer,
) -> None:
    """P4: the frame is about the socket; whether the response still ends is the server's choice."""
    server.reply("one two").inject(LIMIT_REACHED, after_events=3).stall(after_events=3, seconds=5)
    async with server.open_client() as connection:
        assert await ask(connection, "hi") == "one two"
        await ask_strictly(connection, "next")
        assert [request.connection for request in server.requests] == [1, 2]


async def test_a_response_that_ends_with_the_age_limit_was_accepted(
    server: ResponsesServer,
) -> None:
    """P4: it is not sent again, and the frame is the cause."""
    script = server.reply("one two").inject(LIMIT_REACHED, after_events=3)
    script.drop(after_events=3, how=1000)
    async with server.open_client() as connection:
        with pytest.raises(ConnectionLost) as failure:
            await ask(connection, "hi")
        assert failure.value.delivery is ACCEPTED
        assert isinstance(failure.value.__cause__, ConnectionLimitReached)
        assert len(server.requests) == 1


# --- Without a socket --------------------------------------------------------------------


async def test_a_turn_waits_for_the_reconnect(server: ResponsesServer) -> None:
    """P4: as long as the policy goes on, it is no failure."""
    async with server.open_client(reconnect=STEADY) as connection:
        server.stop_accepting()
        await server.reset_all()
        async with trio.open_nursery() as nursery:
            for number in range(3):
                nursery.start_soon(ask_strictly, connection, str(number))
            await trio.sleep(5)
            server.accept_again()
        assert trio.current_time() == 7
        assert len(server.requests) == 3


async def test_a_turn_that_waits_is_told_when_the_policy_is_spent(
    server: ResponsesServer,
) -> None:
    """P3, P4: it was not sent; each waiting task has an exception of its own."""
    failures: list[ReconnectFailed] = []

    async def task(connection: ResponsesConnection) -> None:
        with pytest.raises(ReconnectFailed) as failure:
            await ask(connection, "hi")
        failures.append(failure.value)

    async with server.open_client(reconnect=STEADY) as connection:
        server.stop_accepting()
        await server.reset_all()
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(task, connection)
        assert trio.current_time() == 31
        assert {failure.delivery for failure in failures} == {NOT_SENT}
        assert {failure.attempts for failure in failures} == {5}
        assert len({id(failure) for failure in failures}) == 3
        assert all(failure.__cause__ is not None for failure in failures)


async def test_a_turn_that_waits_is_told_when_the_key_is_refused(
    server: ResponsesServer,
) -> None:
    """P2, P4: no policy helps there."""
    async with server.open_client(reconnect=STEADY) as connection:
        server.refuse(401)
        await server.reset_all()
        with pytest.raises(AuthenticationError) as failure:
            await ask(connection, "hi")
        assert failure.value.delivery is NOT_SENT
        assert trio.current_time() == 1


async def test_a_second_sending_that_fails_tells_the_first_loss_too(
    server: ResponsesServer,
) -> None:
    """P4: what is known of the first one stays true; nobody else's exception is touched."""
    server.drop()
    async with server.open_client(reconnect=STEADY) as connection:
        async with connection.stream(model="m", input="hi", delivery="at_least_once") as stream:
            server.stop_accepting()
            with pytest.raises(ReconnectFailed) as failure:
                await stream.until_done()
        assert failure.value.delivery is AMBIGUOUS
        assert any(isinstance(error, ConnectionLost) for error in behind(failure.value))
        with pytest.raises(ReconnectFailed) as other:
            await ask(connection, "next")
        assert other.value.delivery is NOT_SENT
        assert failure.value.delivery is AMBIGUOUS
        assert len(server.requests) == 1


async def test_a_second_sending_that_cannot_be_written_tells_the_first_loss_too(
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
async def test_a_second_sending_that_is_refused_does_not_undo_the_first(
    server: ResponsesServer, after: int, known: DeliveryStatus
) -> None:
    """P4: the refused one has not run, and the one before may have: not "safe to ask again"."""
    server.drop(after_events=after)
    server.fail("rate_limit_exceeded", status=429)
    async with server.open_client(reconnect=STEADY) as connection:
        with pytest.raises(RateLimitError) as failure:
            await ask(connection, "hi", delivery="at_least_once", max_retries=0)
        assert failure.value.delivery is known
        assert any(isinstance(error, ConnectionLost) for error in behind(failure.value))
        assert len(server.requests) == 2


async def test_what_is_known_of_all_sendings_is_said(server: ResponsesServer) -> None:
    """P4: the first was accepted, whatever becomes of the second and the third."""
    server.drop(after_events=3)
    server.fail("websocket_connection_limit_reached", status=400)
    server.drop()
    async with server.open_client(reconnect=STEADY) as connection:
        with pytest.raises(ConnectionLost) as failure:
            await ask(connection, "hi", delivery="at_least_once")
        assert failure.value.delivery is ACCEPTED
        assert len(server.requests) == 3


def behind(error: BaseException) -> list[BaseException]:
    """Give the causes and contexts of an exception."""
    found: list[BaseException] = []
    waiting: list[BaseException | None] = [error.__cause__, error.__context__]
    while waiting:
        one = waiting.pop()
        if one is not None and one not in found:
            found.append(one)
            waiting += [one.__cause__, one.__context__]
    return found


async def test_without_a_policy_the_loss_is_the_cause(server: ResponsesServer) -> None:
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


async def test_a_stream_sent_again_begins_again(server: ResponsesServer) -> None:
    """P4: the events of the second response follow those of the first; the snapshot starts anew."""
    server.reply("one two three").drop(after_events=6)
    server.reply("four")
    async with server.open_client(reconnect=STEADY) as connection:
        async with connection.stream(model="m", input="hi", delivery="at_least_once") as stream:
            pieces = [piece async for piece in stream.text_deltas()]
        assert pieces == ["one", " two", "four"]
        assert stream.snapshot.text == stream.response.output_text == "four"
        assert stream.response_id == stream.response.id == server.requests[1].response_id


async def test_a_stream_says_where_it_begins_again(server: ResponsesServer) -> None:
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


async def test_a_second_sending_that_is_cancelled_may_be_tried_again(
    server: ResponsesServer,
) -> None:
    """P3: the next read is not a hang, and nothing is sent a third time."""
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
                response = await stream.until_done()
        assert response.output_text == heard("hi")
        assert [request["input"] for request in server.requests] == ["first", "hi", "hi"]
        assert_at_rest(connection)


async def test_a_second_sending_that_is_left_leaves_nothing(server: ResponsesServer) -> None:
    """P5: by a cancellation while it waits for a socket."""
    server.drop()
    async with server.open_client(reconnect=STEADY) as connection:
        with trio.move_on_after(0.5):
            await ask(connection, "hi", delivery="at_least_once")
        await ask_strictly(connection, "next")
        assert [request["input"] for request in server.requests] == ["hi", "next"]
        assert_at_rest(connection)


async def test_a_write_that_hangs_can_be_cancelled_after_its_deadline_only(
    server: ResponsesServer,
) -> None:
    """P5: half a frame would be the end of the socket; so the deadline of the write decides."""
    async with open_through(server, stuck) as connection:
        with trio.move_on_after(1) as scope:
            await ask(connection, "hi")
        assert scope.cancelled_caught
        assert 60 <= trio.current_time() <= 61  # timeouts.send
        await ask_strictly(connection, "next")
        assert [request["input"] for request in server.requests] == ["next"]


async def test_a_turn_that_fails_does_not_touch_the_lanes_beside_it(
    server: ResponsesServer,
) -> None:
    """P4, P5: an error frame of a lane is that lane's."""
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


async def test_a_send_timeout_is_a_lost_connection_too(server: ResponsesServer) -> None:
    """Whoever catches `ConnectionLost` catches it."""
    async with open_through(server, stuck, stuck) as connection:
        with pytest.raises(ConnectionLost) as failure:
            await ask(connection, "hi")
        assert isinstance(failure.value, SendTimeout)


METADATA: Json = {"type": "response.metadata", "headers": {"x-turn-state": "1"}}


NOT_FOUND: Json = {
    "type": "error",
    "status": 400,
    "error": {"type": "invalid_request_error", "code": "previous_response_not_found"},
}


async def test_a_word_of_the_servers_own_before_an_error_is_no_start(
    narrow_server: "ResponsesServer",
) -> None:
    """P7: a lost parent costs one full resend, whatever is said before (protocol, 3)."""
    async with (
        narrow_server.open_client() as connection,
        connection.conversation(model="m", store=False) as talk,
    ):
        await talk.run("one")
        narrow_server.answer([METADATA, NOT_FOUND])
        response = await talk.run("two")
        assert response.output_text == 'Turn 2: you said "two".'


async def test_what_is_said_of_one_write_is_not_said_of_another(server: ResponsesServer) -> None:
    """P4: the socket ends under two writes and a turn that the server works on."""

    async def stuck_at_the_second(number: int) -> None:
        if number > 1:
            await trio.sleep_forever()

    told: dict[str, DeliveryStatus | None] = {}

    async def ask(connection: ResponsesConnection, name: str) -> None:
        with pytest.raises(ResponsesError) as failure:
            await connection.create(model="m", input=name)
        told[name] = failure.value.delivery

    for _ in range(20):  # whom Trio wakes first is chance
        server.reply("slow", delay=100)
        options: dict[str, Any] = {"timeouts": Timeouts(send=5), "reconnect": []}
        async with (
            open_through(server, stuck_at_the_second, **options) as connection,
            trio.open_nursery() as nursery,
        ):
            for name in "accepted", "stuck", "queued":
                nursery.start_soon(ask, connection, name)
                await trio.sleep(1)
        assert told == {
            "accepted": DeliveryStatus.ACCEPTED,
            "stuck": DeliveryStatus.NOT_SENT,
            "queued": DeliveryStatus.NOT_SENT,
        }
