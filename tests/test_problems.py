"""What goes wrong elsewhere (docs/problems.md), and not here: a test for each complaint.

Those about conversations, proxies and pools are with them.
"""

import math
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.testing.driver import NO_WAITING
from tests.turn.rig import (
    LIMIT_REACHED,
    NEVER_AGAIN,
    STEADY,
    Crowd,
    ask,
    ask_strictly,
    assert_at_rest,
    created,
    dead,
    heard,
    open_through,
)
from trio_responses import (
    APIError,
    AuthenticationError,
    ConnectionLimitReached,
    ConnectionLost,
    DeliveryStatus,
    Endpoint,
    FirstEventTimeout,
    HandshakeRejected,
    Keepalive,
    KeepaliveTimeout,
    Limits,
    MessageTooLarge,
    PreviousResponseNotFound,
    ReconnectFailed,
    ReconnectPolicy,
    RequestTooLarge,
    ResponseFailedError,
    ResponsesConnection,
    RotationPolicy,
    StallTimeout,
    Timeouts,
    UnexpectedOutput,
    UpgradeUnsupported,
    open_responses,
)
from trio_responses.testing import (
    ERROR_SHAPES,
    ErrorShape,
    Fail,
    Reply,
    ResponsesServer,
    open_test_server,
)

NEVER = RotationPolicy(max_age=math.inf)
"""The server ends the socket, since nobody replaces it before."""


@asynccontextmanager
async def open_pair(
    *, lanes: bool = True, max_age: float | None = None, **options: Any
) -> AsyncGenerator[tuple[ResponsesServer, ResponsesConnection], None]:
    """Open a server and a client of it."""
    async with open_test_server(lanes=lanes, max_age=max_age) as server:
        options.setdefault("reconnect", STEADY)
        async with server.open_client(**options) as connection:
            yield server, connection
        assert server.crashes == []


@NO_WAITING
@pytest.mark.parametrize("shape", ERROR_SHAPES)
async def test_problem_01_an_error_is_understood_in_every_shape(shape: ErrorShape) -> None:
    """P8: and it ends the turn; code, status and raw bytes are on the exception."""
    async with open_pair() as (server, connection):
        server.fail("server_is_overloaded", status=503, shape=shape, after_events=1)
        if shape == "failed":
            with pytest.raises(ResponseFailedError) as failed:
                await ask(connection, "hi")
            assert failed.value.response.error is not None
            assert failed.value.response.error.code == "server_is_overloaded"
            return
        with pytest.raises(APIError) as failure:
            await ask(connection, "hi")
        if shape != "detail":
            assert failure.value.code == "server_is_overloaded"
        if shape not in {"flat", "sequenced"}:
            assert failure.value.status == 503
        assert b"overloaded" in failure.value.body


@NO_WAITING
async def test_problem_01_an_error_without_a_type_is_an_error() -> None:
    """P8: one provider leaves the type out."""
    async with open_pair() as (server, connection):
        server.answer([{"error": {"code": "invalid_prompt", "message": "no"}, "status": 400}])
        with trio.fail_after(1), pytest.raises(APIError) as failure:
            await ask(connection, "hi")
        assert failure.value.code == "invalid_prompt"


@NO_WAITING
@pytest.mark.parametrize("how", ["limit", "close", "reset"])
async def test_problem_02_the_end_of_an_idle_socket_is_a_change_of_state(how: str) -> None:
    """P1: nobody asked, so nothing is raised; the next turn has a new socket."""
    async with open_pair() as (server, connection):
        if how == "limit":
            await server.send_raw(LIMIT_REACHED)
            await server.close_all(1000)
        elif how == "close":
            await server.close_all(1001)
        else:
            await server.reset_all()
        await trio.sleep(10)
        await ask_strictly(connection, "next")
        assert connection.statistics().sockets_opened == 2


@NO_WAITING
async def test_problem_03_one_failure_is_one_attempt() -> None:
    """P2: five attempts are five, though each fails in two ways: an error frame and a close."""
    async with open_pair() as (server, connection):
        server.refuse(503, times=None)
        await server.send_raw({"type": "error", "status": 500, "error": {"message": "down"}})
        await server.close_all(1011)
        with pytest.raises(ReconnectFailed) as failure:
            await ask(connection, "hi")
        assert failure.value.attempts == 5
        assert server.statistics().handshakes == 1 + 5
        assert trio.current_time() == 1 + 2 + 4 + 8 + 16


@NO_WAITING
async def test_problem_03_no_attempts_are_none() -> None:
    """P2: zero is not one."""
    async with open_pair(reconnect=NEVER_AGAIN) as (server, connection):
        await server.reset_all()
        await wait_all_tasks_blocked()
        with pytest.raises(ReconnectFailed):
            await ask(connection, "hi")
        assert server.statistics().handshakes == 1


async def watch_for_ever(connection: ResponsesConnection) -> None:
    while True:
        with trio.fail_after(100):
            await connection.wait_open()
            await trio.sleep(0.1)


@NO_WAITING
async def test_problem_04_a_server_that_flaps_is_not_retried_for_ever() -> None:
    """P2: an open socket proves nothing."""
    async with open_pair() as (server, connection):
        server.drop_on_accept(times=None)
        await server.reset_all()
        with pytest.raises(ReconnectFailed):
            await watch_for_ever(connection)
        assert server.statistics().handshakes == 1 + 5


@NO_WAITING
@pytest.mark.parametrize("lanes", [True, False])
@pytest.mark.parametrize("abandon", ["drain", "replace"])
async def test_problem_05_a_cancelled_turn_does_not_answer_the_next_one(
    abandon: Any, *, lanes: bool
) -> None:
    """P5: ten in a row, each cancelled in the middle of its answer."""
    async with open_pair(lanes=lanes) as (server, connection):
        for number in range(10):
            server.reply(f"stale {number}", chunks=["stale"] * 5, delay=0.1)
            with trio.move_on_after(0.35):
                await ask(connection, "cancelled", abandon=abandon)
            await ask_strictly(connection, f"asked {number}")


@NO_WAITING
async def test_problem_06_a_turn_that_was_not_sent_does_not_delay_the_next() -> None:
    """P5: cancelled before its first byte: nothing to drain."""
    async with open_pair(lanes=False) as (server, connection):
        with trio.CancelScope() as scope:
            scope.cancel()
            await ask(connection, "never sent")
        await ask_strictly(connection, "next")
        assert trio.current_time() == 0
        assert [request["input"] for request in server.requests] == ["next"]
        assert server.statistics().handshakes == 1


@NO_WAITING
async def test_problem_07_what_may_have_run_is_not_run_again_unasked() -> None:
    """P4: the opposite is a word away."""
    async with open_pair() as (server, connection):
        server.drop()
        with pytest.raises(ConnectionLost) as failure:
            await ask(connection, "expensive")
        assert failure.value.delivery is DeliveryStatus.AMBIGUOUS
        assert len(server.requests) == 1
        server.drop()
        assert await ask(connection, "approved", delivery="at_least_once") == heard("approved")
        assert len(server.requests) == 3


@NO_WAITING
async def test_problem_08_a_parent_that_is_not_found_costs_a_resend_and_no_turn() -> None:
    """P7: the conversation has the whole history at hand, and sends it once."""
    async with (
        open_pair() as (server, connection),
        connection.conversation(model="m", store=False) as conversation,
    ):
        await conversation.create("first")
        server.fail("previous_response_not_found", status=400)
        await conversation.create("second")
        parents = [request.get("previous_response_id") for request in server.requests]
        assert [parent is not None for parent in parents] == [False, True, False]
        assert server.requests[-1].turn == 2
        assert conversation.statistics().turns == 2


@NO_WAITING
async def test_problem_09_no_answer_is_no_hang() -> None:
    """P3: whether or not anybody reads."""
    async with open_pair() as (server, connection):
        server.stall()
        with pytest.raises(FirstEventTimeout):
            await ask(connection, "hi")
        assert trio.current_time() == 60
        server.stall(after_events=3)
        async with connection.stream(model="m", input="hi") as stream:
            await trio.sleep(3600)  # the consumer is busy, and the clock runs all the same
            with pytest.raises(StallTimeout) as failure:
                await stream.until_done()
        assert failure.value.silence == 600


@NO_WAITING
async def test_problem_09_long_reasoning_is_no_hang_either() -> None:
    """P3: nine minutes of silence with a live socket."""
    async with open_pair() as (server, connection):
        server.reply("42").stall(after_events=2, seconds=540)
        assert await ask(connection, "think") == "42"
        server.half_open(after_events=2)
        before = trio.current_time()
        with pytest.raises(KeepaliveTimeout):
            await ask(connection, "a dead socket is another thing")
        assert trio.current_time() - before == 40


@NO_WAITING
async def test_problem_10_the_hour_ends_no_turn() -> None:
    """P4: the server says that it did not start, so the next socket gets it."""
    async with open_pair(max_age=3600, rotation=NEVER) as (server, connection):
        await ask_strictly(connection, "first")
        await trio.sleep(3599)
        server.stall(seconds=10)
        assert await ask(connection, "in the last second") == heard("in the last second")
        assert [request.connection for request in server.requests] == [1, 1, 2]


@NO_WAITING
async def test_problem_10_a_turn_on_a_rested_socket_is_no_turn_on_a_dead_one() -> None:
    """P2: it ends idle, and another one is there before anybody asks."""
    async with open_pair(max_age=3600, rotation=NEVER) as (server, connection):
        await ask_strictly(connection, "first")
        await trio.sleep(3 * 3600 + 60)
        await ask_strictly(connection, "after three hours")
        assert server.statistics().handshakes == 4


@NO_WAITING
async def test_problem_11_a_stale_socket_costs_no_turn() -> None:
    """P4: found dead at the write: nothing was sent, so it is sent elsewhere, once."""
    async with open_test_server() as server, open_through(server, dead) as connection:
        await trio.sleep(300)
        assert await ask(connection, "hi") == heard("hi")
        assert len(server.requests) == 1
        assert server.statistics().handshakes == 2


@NO_WAITING
async def test_problem_11_a_socket_that_dies_idle_is_found_before_it_is_written_to() -> None:
    """P2: by pings, while nobody asks."""
    async with open_pair() as (server, connection):
        server.freeze_all()
        await trio.sleep(60)
        assert connection.statistics().sockets_opened == 2
        await ask_strictly(connection, "next")


@NO_WAITING
@pytest.mark.parametrize(("after_error", "sockets"), [("reuse", 1), ("replace", 2)])
async def test_problem_12_the_profile_says_whether_a_socket_outlives_an_error(
    after_error: Any, sockets: int
) -> None:
    """P3: some servers fall silent behind an error frame; the next turn does not meet that."""
    async with open_test_server() as server:
        endpoint = Endpoint.compatible(server.url, after_error=after_error)
        async with server.open_client(endpoint=endpoint) as connection:
            server.fail("invalid_prompt", status=400)
            with pytest.raises(APIError):
                await ask(connection, "bad")
            await ask_strictly(connection, "next")
            assert trio.current_time() == 0
            assert connection.statistics().sockets_opened == sockets


@NO_WAITING
async def test_problem_13_a_request_that_is_too_big_is_sent_once() -> None:
    """P10: with the sizes, whoever found out: we before it goes, or the server with 1009."""
    async with (
        open_test_server(max_message_size=5000) as server,
        server.open_client(limits=Limits(max_request_bytes=9000)) as connection,
    ):
        with pytest.raises(RequestTooLarge) as theirs:
            await ask(connection, "x" * 6000, delivery="at_least_once")
        assert theirs.value.delivery is DeliveryStatus.REJECTED
        assert (theirs.value.size > 6000, theirs.value.limit) == (True, None)
        with pytest.raises(RequestTooLarge) as ours:
            await ask(connection, "x" * 10_000)
        assert ours.value.delivery is DeliveryStatus.NOT_SENT
        assert (ours.value.size > 10_000, ours.value.limit) == (True, 9000)
        await ask_strictly(connection, "next")
        assert connection.statistics().requests_sent == 2


@NO_WAITING
async def test_problem_13_an_answer_that_is_too_big_costs_its_turn_only() -> None:
    """P10: the connection survives it, and says how big it was."""
    async with open_pair(limits=Limits(max_message_bytes=20_000)) as (server, connection):
        server.reply("x" * 30_000)
        with pytest.raises(MessageTooLarge) as failure:
            await ask(connection, "hi")
        assert failure.value.size > 30_000
        await ask_strictly(connection, "next")
        assert connection.statistics().sockets_opened == 1


@NO_WAITING
@pytest.mark.parametrize(
    ("status", "error", "attempts"),
    [
        (401, AuthenticationError, 1),
        (403, UpgradeUnsupported, 1),
        (404, UpgradeUnsupported, 1),
        (426, UpgradeUnsupported, 1),
        (400, UpgradeUnsupported, 1),
        (503, ReconnectFailed, 6),
        (429, ReconnectFailed, 6),
    ],
)
async def test_problem_15_a_gateway_that_cannot_upgrade_is_known_at_once(
    status: int, error: type[Exception], attempts: int
) -> None:
    """P2: and what may pass is waited for as long as the server asks; the body is kept."""
    async with open_test_server() as server:
        server.refuse(status, headers={"Retry-After": "20"}, body=b"go away", times=None)
        with pytest.raises(error) as failure:
            async with server.open_client(reconnect=STEADY):
                pytest.fail("the block began")  # pragma: no cover
        assert server.statistics().handshakes == attempts
        assert trio.current_time() == (attempts - 1) * 20
        refusal = failure.value if attempts == 1 else failure.value.__cause__
        assert isinstance(refusal, HandshakeRejected)
        assert (refusal.status, refusal.body) == (status, b"go away")


@NO_WAITING
async def test_problem_16_the_parent_is_the_last_that_completed_here() -> None:
    """P7: not what failed, was left or ran on a socket that is gone."""
    async with open_pair() as (server, connection):
        first = await connection.create(model="m", input="first")
        assert connection.previous_response_id == first.id
        server.reply("half", status="failed")
        with pytest.raises(ResponseFailedError):
            await ask(connection, "fails")
        assert connection.previous_response_id == first.id
        await server.reset_all()
        await trio.sleep(10)
        assert connection.previous_response_id is None


@NO_WAITING
async def test_problem_16_chains_of_two_tasks_have_their_own_parents() -> None:
    """P5: two lanes at once, nothing stored: each chain goes on from its own last response."""
    async with open_pair() as (_server, connection):

        async def chain(name: str) -> None:
            parent: str | None = None
            async with connection.lane() as lane:
                for number in range(1, 6):
                    response = await lane.create(
                        model="m", input=name, previous_response_id=parent, store=False
                    )
                    assert response.output_text == f'Turn {number}: you said "{name}".'
                    parent = response.id

        async with trio.open_nursery() as nursery:
            nursery.start_soon(chain, "one")
            nursery.start_soon(chain, "two")


@NO_WAITING
async def test_problem_17_a_delta_goes_out_only_where_every_setting_is_equal() -> None:
    """P7: settings are not inherited, so another one is another chain."""
    async with (
        open_pair() as (server, connection),
        connection.conversation(model="m", instructions="be brief") as conversation,
    ):
        await conversation.create("first")
        await conversation.create("second")
        await conversation.create("third", instructions="be long")
        parents = [request.get("previous_response_id") for request in server.requests]
        assert [parent is not None for parent in parents] == [False, True, False]
        assert len(server.requests[-1].body["input"]) == 5


@NO_WAITING
async def test_problem_18_a_place_is_held_by_its_scope_alone() -> None:
    """P5: the loser of a race frees nothing; one at a time is one at a time."""
    async with open_pair(lanes=False) as (server, connection):
        server.respond_with(lambda _: Reply("ok", delay=0.1))

        async def loser(number: int) -> None:
            with trio.move_on_after(0.01 * number):
                await ask(connection, f"loser {number}")

        async with trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(loser, number)
                nursery.start_soon(ask, connection, f"winner {number}")
        assert server.statistics().max_active == 1
        assert server.statistics().requests >= 20
        assert_at_rest(connection)


@NO_WAITING
async def test_problem_19_the_key_is_asked_for_at_every_handshake() -> None:
    """P2: a token that has expired meanwhile is asked for once more."""
    keys = iter(["old", "expired", "fresh"])

    async def key() -> str:
        await trio.lowlevel.checkpoint()
        return next(keys)

    async with open_test_server() as server, server.open_client(api_key=key) as connection:
        server.refuse(401)
        await server.reset_all()
        await ask_strictly(connection, "next")
        sent = [opened.headers["authorization"] for opened in server.connections]
        assert sent == ["Bearer old", "Bearer expired", "Bearer fresh"]


@NO_WAITING
@pytest.mark.parametrize("final_output", ["empty", "null", "missing", "full"])
async def test_problem_20_a_response_has_its_output_whatever_the_last_event_shows(
    final_output: Any,
) -> None:
    """P3: the finished items are the output where it has none."""
    async with open_pair() as (server, connection):
        server.reply("all of it", final_output=final_output)
        assert await ask(connection, "hi") == "all of it"


@NO_WAITING
@pytest.mark.parametrize("end", ["failed", "close", "reset", "error", "incomplete"])
async def test_problem_21_no_failure_is_an_empty_success(end: str) -> None:
    """P3: a Response that says what it is, or an exception; never a silent end."""
    async with open_pair() as (server, connection):
        match end:
            case "failed" | "incomplete":
                server.reply("", status=end)
            case "error":
                server.answer(Fail("server_error", after_events=2))
            case "close":
                server.drop(after_events=2, how=1000)
            case _:
                server.drop(after_events=2)
        if end == "incomplete":
            response = await connection.create(model="m", input="hi")
            assert response.status == "incomplete"
            return
        with pytest.raises((ResponseFailedError, APIError, ConnectionLost)):
            await ask(connection, "hi")


@NO_WAITING
async def test_problem_22_a_warm_up_is_waited_for_and_checked() -> None:
    """P3: a server that generates all the same is found out."""
    async with open_pair() as (server, connection):
        warm = await connection.warm_up(model="m")
        assert (warm.status, warm.output_text) == ("completed", "")
        server.reply("billed").for_warm_up()
        with pytest.raises(UnexpectedOutput):
            await connection.warm_up(model="m")
        server.answer(Fail("unsupported_parameter", status=400)).for_warm_up()
        with pytest.raises(APIError):
            await connection.warm_up(model="m")


@NO_WAITING
async def test_problem_23_a_close_behind_an_error_tells_both() -> None:
    """P3: code, reason and age, and the error frame as the cause."""
    async with open_pair() as (server, connection):
        script = server.answer([created()]).inject(LIMIT_REACHED, after_events=None)
        script.stall(after_events=None, seconds=5)
        script.drop(after_events=None, how=1011, reason="too old")
        with pytest.raises(ConnectionLost) as failure:
            await ask(connection, "hi")
        lost = failure.value
        assert (lost.code, lost.reason, lost.age) == (1011, "too old", 5)
        assert isinstance(lost.__cause__, ConnectionLimitReached)
        assert lost.__cause__.code == "websocket_connection_limit_reached"


@NO_WAITING
async def test_problem_24_a_server_without_lanes_never_sees_one() -> None:
    """P5: it would refuse every turn; and the profile says so, not a guess."""
    async with open_pair(lanes=False) as (server, connection):
        async with trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(ask_strictly, connection, str(number))
        async with connection.lane() as lane:
            await ask_strictly(lane, "on a lane of one's own")
        assert not any("stream_id" in request.body for request in server.requests)


@NO_WAITING
async def test_problem_24_a_server_that_stores_nothing_says_so() -> None:
    """P4: a continuation that it refuses did not start."""
    async with open_pair() as (_server, connection):
        with pytest.raises(PreviousResponseNotFound) as failure:
            await connection.create(model="m", input="hi", previous_response_id="resp_gone")
        assert failure.value.delivery is DeliveryStatus.REJECTED


@NO_WAITING
async def test_problem_25_turns_by_the_hundred_leave_nothing_behind() -> None:
    """P6: no cache, no listener, no record grows with the turns."""
    async with open_pair() as (_server, connection):
        await ask(connection, "first")
        link = next(iter(connection._engine.sockets))
        before = (len(link.requests._queues), len(link.requests._ended), len(link.lane_names))
        for number in range(300):
            await ask(connection, str(number))
        with trio.move_on_after(0):
            await ask(connection, "cancelled")
        after = (len(link.requests._queues), len(link.requests._ended), len(link.lane_names))
        assert after == before
        assert_at_rest(connection)


@NO_WAITING
async def test_problem_26_a_connection_ends_with_its_block() -> None:
    """P1: no task and no socket is left, with turns under way, and none is made by an import."""
    async with open_test_server() as server, Crowd():
        with trio.move_on_after(1):
            async with (
                open_responses(server.url, api_key="any", dial=server.dial) as connection,
                trio.open_nursery() as nursery,
            ):
                for _ in range(5):
                    server.stall(after_events=2)
                    nursery.start_soon(ask, connection, "hi")
        await wait_all_tasks_blocked()
        assert server.statistics().open == 0


@NO_WAITING
async def test_problem_26_two_loops_one_after_the_other_share_nothing() -> None:
    """P1: what belongs to a block belongs to its loop."""

    async def once() -> str:
        timeouts, keepalive = Timeouts(), Keepalive()
        async with open_pair(
            timeouts=timeouts, keepalive=keepalive, reconnect=ReconnectPolicy()
        ) as (_, connection):
            return await ask(connection, "hi")

    texts = [await trio.to_thread.run_sync(lambda: trio.run(once)) for _ in range(2)]
    assert texts == [heard("hi"), heard("hi")]
