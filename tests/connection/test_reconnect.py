"""P2: when the supervisor tries again, when it stops, and which attempts it counts."""

import itertools
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from trio_responses import (
    APIError,
    ConfigurationError,
    ConnectError,
    ConnectionLimitReached,
    ConnectionLost,
    ConnectionRestored,
    ConnectionState,
    ConnectTimeout,
    FirstEventTimeout,
    HandshakeRejected,
    ReconnectFailed,
    ReconnectPolicy,
    ResponsesConnection,
    Timeouts,
)
from trio_responses.testing import ResponsesServer, open_test_server

if TYPE_CHECKING:
    from tests.connection.conftest import Connect, Dialler


async def open_in_vain(connect: "Connect", **options: object) -> ReconnectFailed:
    with pytest.raises(ReconnectFailed) as failure:
        async with connect(**options):
            pytest.fail("the block began")  # pragma: no cover
    return failure.value


async def lose(server: ResponsesServer, connection: ResponsesConnection) -> None:
    """Reset the socket and let the supervisor see it."""
    await server.reset_all()
    await wait_all_tasks_blocked()
    assert connection.state is not ConnectionState.OPEN


# --- Delays --------------------------------------------------------------------------------


async def test_the_first_connect_follows_the_default_delays(
    server: ResponsesServer, connect: "Connect", dialler: "Dialler"
) -> None:
    """P2: 1, 2, 4, 8, 16 s, then the end, at the instant of the last failure."""
    server.stop_accepting()
    failure = await open_in_vain(connect, dial=dialler)
    assert dialler.times == [0, 1, 3, 7, 15, 31]
    assert trio.current_time() == 31
    assert failure.attempts == 5
    assert isinstance(failure.__cause__, ConnectError)
    assert str(failure).endswith("; gave up after 5 more attempts in 31 s")


async def test_a_socket_given_up_after_a_deadline_is_replaced_at_once(
    server: ResponsesServer, connect: "Connect", dialler: "Dialler"
) -> None:
    """P2: the attempts are those of a first connect: one without a delay, and five with one."""
    server.stall(after_events=0)
    async with connect(dial=dialler, timeouts=Timeouts(first_event=5)) as connection:
        server.stop_accepting()
        with pytest.raises(FirstEventTimeout):
            await connection.create(model="m", input="hi")
        with pytest.raises(ReconnectFailed):
            await connection.wait_open()
    assert [time - 5 for time in dialler.times[1:]] == [0, 1, 3, 7, 15, 31]


@pytest.mark.parametrize(
    ("delays", "opened", "words"),
    [
        ([], False, "; no other attempt was made"),
        ([0], False, "; gave up after 1 more attempt in 0 s"),
        ([], True, "; no other attempt was made"),
        ([0], True, "; gave up after 1 more attempt in 0 s"),
        ([0, 0], True, "; gave up after 2 more attempts in 0 s"),
    ],
)
async def test_the_message_has_the_last_reason_and_then_the_attempts(
    server: ResponsesServer, connect: "Connect", delays: list[int], words: str, *, opened: bool
) -> None:
    """P2: the reason comes first, because it is what the user can act on."""
    if not opened:
        server.stop_accepting()
    with pytest.raises(ReconnectFailed) as failure:  # noqa: PT012 - either may raise it
        async with connect(reconnect=delays) as connection:
            server.stop_accepting()
            await lose(server, connection)
            await connection.receive()
    assert str(failure.value) == f"{failure.value.__cause__}{words}"
    assert failure.value.attempts == len(delays)


async def test_the_delays_follow_the_policy(
    server: ResponsesServer, connect: "Connect", dialler: "Dialler"
) -> None:
    """P2: initial delay, factor, cap and number of attempts."""
    server.stop_accepting()
    policy = ReconnectPolicy(initial=2, factor=3, cap=10, attempts=4, jitter=0)
    failure = await open_in_vain(connect, dial=dialler, reconnect=policy)
    assert dialler.times == [0, 2, 8, 18, 28]
    assert failure.attempts == 4


async def test_the_default_delays_are_shortened_at_random_by_up_to_a_quarter(
    server: ResponsesServer, connect: "Connect", dialler: "Dialler"
) -> None:
    """P2: so that many clients do not come back at once."""
    server.stop_accepting()
    await open_in_vain(connect, dial=dialler, reconnect=None)
    slept = [later - earlier for earlier, later in itertools.pairwise(dialler.times)]
    assert len(slept) == 5
    for delay, full in zip(slept, [1, 2, 4, 8, 16], strict=True):
        assert 0.75 * full <= delay <= full
    assert slept != [1, 2, 4, 8, 16]


async def test_zero_attempts_never_try_again(
    server: ResponsesServer, connect: "Connect", dialler: "Dialler"
) -> None:
    """P2: no attempts are none, not one."""
    server.stop_accepting()
    failure = await open_in_vain(connect, dial=dialler, reconnect=ReconnectPolicy(attempts=0))
    assert dialler.times == [0]
    assert failure.attempts == 0
    assert trio.current_time() == 0


def one_shot() -> Iterator[float]:
    yield 5
    yield 0.5


@pytest.mark.parametrize("delays", [[5, 0.5], (5, 0.5), one_shot(), {5: "a", 0.5: "b"}])
async def test_any_iterable_of_delays_is_taken_as_it_is(
    server: ResponsesServer, connect: "Connect", dialler: "Dialler", delays: Iterable[float]
) -> None:
    """P2: without jitter."""
    server.stop_accepting()
    failure = await open_in_vain(connect, dial=dialler, reconnect=delays)
    assert dialler.times == [0, 5, 5.5]
    assert failure.attempts == 2


async def test_the_delays_of_a_generator_are_kept_for_the_next_outage(
    server: ResponsesServer, connect: "Connect", dialler: "Dialler"
) -> None:
    """P2: an iterator that can be read once serves every outage."""
    async with connect(dial=dialler, reconnect=one_shot()) as connection:
        for _ in range(3):
            await server.reset_all()
            await connection.create(model="m", input="hi")
        server.stop_accepting()
        await lose(server, connection)
        with pytest.raises(ReconnectFailed):
            await connection.wait_open()
    assert dialler.times == [0, 5, 10, 15, 20, 20.5]


async def test_endless_delays_are_never_given_up(
    server: ResponsesServer, connect: "Connect", dialler: "Dialler"
) -> None:
    """P2: with `itertools.repeat`."""
    server.refuse(503, times=200)
    async with connect(dial=dialler, reconnect=itertools.repeat(30)) as connection:
        assert connection.state is ConnectionState.OPEN
        assert trio.current_time() == 6000
        assert connection.statistics().attempts == 200
    assert len(dialler.times) == 201


@pytest.mark.parametrize("delay", [-1, float("nan"), float("inf"), "1", True])
async def test_a_delay_that_is_not_a_finite_number_of_seconds_is_refused(
    server: ResponsesServer, connect: "Connect", delay: object
) -> None:
    """P2: as a `ConfigurationError`."""
    server.stop_accepting()
    with pytest.raises(ConfigurationError, match="a delay must be seconds"):
        async with connect(reconnect=[delay]):
            pytest.fail("the block began")  # pragma: no cover


# --- What is retried -----------------------------------------------------------------------


@pytest.mark.parametrize("status", [504, 520])
async def test_other_5xx_statuses_are_retried(
    server: ResponsesServer, connect: "Connect", dialler: "Dialler", status: int
) -> None:
    """P2: the fault matrix has the statuses that name a reason."""
    server.refuse(status, times=2)
    async with connect(dial=dialler):
        assert dialler.times == [0, 1, 3]


async def test_a_handshake_that_always_hangs_is_given_up(
    server: ResponsesServer, connect: "Connect"
) -> None:
    """P2: with the last attempt's failure as the cause."""
    server.hang_handshake(times=None)
    failure = await open_in_vain(connect, timeouts=Timeouts(connect=10))
    assert trio.current_time() == 31 + 6 * 10
    assert isinstance(failure.__cause__, ConnectTimeout)
    assert failure.__cause__.phase == "upgrade"


@pytest.mark.parametrize(
    "url", ["ftp://host/v1", "http://", "no url", "http://u:p@host/", "http://h:x"]
)
async def test_a_bad_url_fails_at_once(
    server: ResponsesServer, connect: "Connect", dialler: "Dialler", url: str
) -> None:
    """P2: nothing is dialled for it."""
    with pytest.raises(ConfigurationError):
        async with connect(base_url=url, dial=dialler):
            pytest.fail("the block began")  # pragma: no cover
    assert dialler.times == []
    assert server.statistics().handshakes == 0


# --- Retry-After ---------------------------------------------------------------------------


@pytest.mark.parametrize("status", [429, 503])
async def test_retry_after_is_a_lower_bound_of_the_delay(
    server: ResponsesServer, connect: "Connect", dialler: "Dialler", status: int
) -> None:
    """P2: it takes precedence over a shorter delay, and not over a longer one."""
    server.refuse(status, headers={"Retry-After": "30"})
    server.refuse(status, headers={"Retry-After": "1"})
    server.refuse(status)
    async with connect(dial=dialler):
        assert dialler.times == [0, 30, 32, 36]


async def test_jitter_does_not_shorten_retry_after(
    server: ResponsesServer, connect: "Connect", dialler: "Dialler"
) -> None:
    """P2: the delay is never below the server's number."""
    server.refuse(503, headers={"Retry-After": "30"})
    async with connect(dial=dialler, reconnect=ReconnectPolicy(initial=31, cap=31, jitter=1.0)):
        assert 30 <= dialler.times[1] <= 31


async def test_a_retry_after_above_the_policys_maximum_gives_up_at_once(
    server: ResponsesServer, connect: "Connect"
) -> None:
    """P2: ``max_retry_after``, to the second."""
    policy = ReconnectPolicy(jitter=0, max_retry_after=60)
    server.refuse(503, headers={"Retry-After": "60"})
    server.refuse(503, headers={"Retry-After": "61"})
    failure = await open_in_vain(connect, reconnect=policy)
    assert trio.current_time() == 60
    assert failure.attempts == 1
    assert isinstance(failure.__cause__, HandshakeRejected)
    assert failure.__cause__.retry_after == 61


async def test_retry_after_holds_for_a_list_of_delays_too(
    server: ResponsesServer, connect: "Connect", dialler: "Dialler"
) -> None:
    """P2: a delay of zero does not skip it."""
    server.refuse(503, headers={"Retry-After": "7"})
    async with connect(dial=dialler, reconnect=[0]):
        assert dialler.times == [0, 7]


# --- The counter ---------------------------------------------------------------------------


async def test_a_refused_turn_is_not_a_failed_attempt(
    server: ResponsesServer, connect: "Connect"
) -> None:
    """An error frame is not a failed socket: the turns fail, the connection lives."""
    server.respond_with(lambda _request: [{"type": "error", "status": 400, "error": {"code": "x"}}])
    async with connect() as connection:
        for _ in range(20):
            with pytest.raises(APIError):
                await connection.create(model="m", input="hi")
        assert connection.statistics().attempts == 0
        assert trio.current_time() == 0


async def test_an_error_frame_and_a_close_are_one_failure(
    server: ResponsesServer, connect: "Connect", dialler: "Dialler"
) -> None:
    """P2: a socket that fails in two ways costs one attempt of the policy."""
    async with connect(dial=dialler) as connection:
        server.stop_accepting()
        await server.send_raw({"type": "error", "status": 500, "error": {"message": "down"}})
        await server.close_all(1011)
        with pytest.raises(ReconnectFailed) as failure:
            await connection.create(model="m", input="hi")
        assert failure.value.attempts == 5
    assert dialler.times == [0, 1, 3, 7, 15, 31]


@pytest.mark.parametrize(("life", "delays"), [(60, [1, 1, 1]), (59, [1, 2, 4])])
async def test_sixty_seconds_of_an_open_socket_reset_the_count(
    server: ResponsesServer,
    connect: "Connect",
    dialler: "Dialler",
    life: float,
    delays: list[float],
) -> None:
    """P2: without any turn; and not a second earlier."""
    async with connect(dial=dialler) as connection:
        for _ in delays:
            await trio.sleep(life)
            await lose(server, connection)
            await connection.wait_open()
    slept = [later - earlier - life for earlier, later in itertools.pairwise(dialler.times)]
    assert slept == delays


async def test_the_policy_says_when_the_count_is_reset(
    server: ResponsesServer, connect: "Connect", dialler: "Dialler"
) -> None:
    """P2: ``healthy_after``."""
    policy = ReconnectPolicy(jitter=0, healthy_after=5)
    async with connect(dial=dialler, reconnect=policy) as connection:
        for _ in range(3):
            await trio.sleep(5)
            await lose(server, connection)
            await connection.wait_open()
    assert dialler.times == [0, 6, 12, 18]


async def test_attempts_within_one_outage_add_up_across_accepted_sockets(
    server: ResponsesServer, connect: "Connect", dialler: "Dialler"
) -> None:
    """P2: refused, accepted and dropped, refused again: the delays go on growing."""
    async with connect(dial=dialler) as connection:
        server.refuse(503)
        server.drop_on_accept()
        server.refuse(503)
        await server.reset_all()
        await trio.sleep(20)
        assert connection.state is ConnectionState.OPEN
        assert connection.statistics().attempts == 4
    assert dialler.times == [0, 1, 3, 7, 15]


# --- Close codes ---------------------------------------------------------------------------


async def test_the_reason_of_a_final_close_is_on_the_exception_and_in_its_text(
    server: ResponsesServer, connect: "Connect"
) -> None:
    """P2: the fault matrix has the close codes that end a connection."""
    async with connect() as connection:
        await server.close_all(4401, "go away")
        with pytest.raises(ConnectionLost) as failure:
            await connection.create(model="m", input="hi")
        assert (failure.value.code, failure.value.reason) == (4401, "go away")
        assert str(failure.value).endswith(": go away")
        await trio.sleep(1000)
        assert connection.state is ConnectionState.CLOSED
    assert server.statistics().handshakes == 1


async def test_the_close_code_below_the_final_ones_is_reconnected_from(
    server: ResponsesServer, connect: "Connect"
) -> None:
    """P2: 4000 is the first of the final codes; the fault matrix has the others."""
    server.answer().drop(after_events=None, how=3999)
    async with connect() as connection:
        await connection.create(model="m", input="hi")
        await wait_all_tasks_blocked()
        await connection.create(model="m", input="hi again")
    assert trio.current_time() == 1
    assert server.statistics().handshakes == 2


# --- What there is to see ------------------------------------------------------------------


async def test_the_state_follows_the_socket(server: ResponsesServer, connect: "Connect") -> None:
    """Open, reconnecting, open again, closed."""
    async with connect() as connection:
        seen = [connection.state]
        await lose(server, connection)
        seen.append(connection.state)
        await connection.wait_open()
        seen.append(connection.state)
        await connection.aclose()
        seen.append(connection.state)
    S = ConnectionState  # noqa: N806 - short for the table
    assert seen == [S.OPEN, S.RECONNECTING, S.OPEN, S.CLOSED]
    assert repr(connection) == "<ResponsesConnection to localhost closed>"


async def test_wait_open_waits_for_the_next_socket(
    server: ResponsesServer, connect: "Connect"
) -> None:
    """It returns at once where a socket is open."""
    async with connect() as connection:
        await connection.wait_open()
        assert trio.current_time() == 0
        await lose(server, connection)
        server.stop_accepting()
        with trio.move_on_after(2) as scope:
            await connection.wait_open()
        assert scope.cancelled_caught
        server.accept_again()
        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(connection.wait_open)
        assert trio.current_time() == 3
        assert connection.state is ConnectionState.OPEN


async def test_wait_open_is_a_checkpoint(connect: "Connect") -> None:
    """As every async function of Trio."""
    async with connect() as connection:
        with trio.testing.assert_checkpoints():
            await connection.wait_open()


async def test_wait_open_does_not_count_a_lost_socket_as_open(
    server: ResponsesServer, connect: "Connect"
) -> None:
    """P2: the loss is seen before the supervisor's next step."""
    async with connect() as connection:
        await lose(server, connection)
        await connection.wait_open()
        assert trio.current_time() == 1


async def test_the_restored_event_has_the_attempts_and_the_seconds_of_the_outage(
    server: ResponsesServer, connect: "Connect"
) -> None:
    """Design 2: attempts and seconds of the outage."""
    async with connect() as connection:
        with trio.move_on_after(0):
            await connection.receive()
        server.refuse(503, times=2)
        await server.reset_all()
        lost = await connection.receive()
        assert isinstance(lost, ConnectionLost)
        assert (lost.code, lost.age) == (1006, 0)
        restored = await connection.receive()
        assert restored == ConnectionRestored(attempts=3, outage=7.0)
        assert trio.current_time() == 7


async def test_a_server_that_reports_its_age_limit_at_once_is_given_up() -> None:
    """P2: a socket that is retired before it has served anything is a failed attempt."""
    times: list[float] = []
    async with open_test_server(max_age=0) as server:

        async def dial(host: str, port: int) -> trio.abc.Stream:
            times.append(trio.current_time())
            assert len(times) < 20
            return await server.dial(host, port)

        policy = ReconnectPolicy(jitter=0)
        with pytest.raises(ReconnectFailed) as failure:  # noqa: PT012 - the block is the point
            async with server.open_client(dial=dial, reconnect=policy) as connection:
                async for _ in connection:
                    pass
    assert times == [0, 1, 3, 7, 15, 31]
    assert isinstance(failure.value.__cause__, ConnectionLimitReached)
