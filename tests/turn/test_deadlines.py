"""P3: the deadlines of a turn, to the instant, whether or not its stream is read."""

import math
from typing import TYPE_CHECKING, Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.testing.driver import NO_WAITING
from tests.turn.rig import (
    STEADY,
    ask,
    ask_strictly,
    assert_at_rest,
    created,
    heard,
    open_through,
    stuck,
    types,
)
from trio_responses import (
    ConfigurationError,
    DeliveryStatus,
    FirstEventTimeout,
    Keepalive,
    KeepaliveTimeout,
    ResponsesConnection,
    SendTimeout,
    StallTimeout,
    Timeouts,
    function_tool,
    open_pool,
)

if TYPE_CHECKING:
    from trio_responses.testing import ResponsesServer

pytestmark = NO_WAITING


async def test_a_request_without_an_answer_is_given_up(server: "ResponsesServer") -> None:
    """P3, P4: the exception has the limit, the time since sending and the delivery."""
    server.stall(after_events=0)
    async with server.open_client(timeouts=Timeouts(first_event=5)) as connection:
        await trio.sleep(100)
        with pytest.raises(FirstEventTimeout, match=r"no event within 5 s.* 5\.0 s ago") as failure:
            await ask(connection, "hi")
        assert trio.current_time() == 105
        assert (failure.value.seconds, failure.value.sent) == (5, 5)
        assert failure.value.delivery is DeliveryStatus.AMBIGUOUS
        assert isinstance(failure.value, trio.TooSlowError)
        await ask_strictly(connection, "next")
        assert trio.current_time() == 105
        assert server.statistics().handshakes == 2
        await trio.sleep(10)
        assert server.statistics().open == 1
        assert_at_rest(connection)


async def test_the_numbers_of_a_timeout_are_right_at_time_zero(server: "ResponsesServer") -> None:
    """A clock that begins at 0 is no special case."""
    server.stall(after_events=0)
    async with server.open_client() as connection:
        assert trio.current_time() == 0
        with pytest.raises(FirstEventTimeout) as failure:
            await ask(connection, "hi")
        assert (failure.value.seconds, failure.value.sent) == (60, 60)


@pytest.mark.parametrize("count", [1, 2, 5])
async def test_a_response_that_falls_silent_is_given_up(
    server: "ResponsesServer", count: int
) -> None:
    """P3, P4: the exception has the last event and the time since then."""
    server.answer().stall(after_events=count)
    names = ["created", "in_progress", "output_item.added", "content_part.added"]
    async with server.open_client(timeouts=Timeouts(stall=30)) as connection:
        with pytest.raises(StallTimeout, match=r"silent for 30") as failure:
            await ask(connection, "hi")
        assert trio.current_time() == 30
        assert (failure.value.seconds, failure.value.silence) == (30, 30)
        assert failure.value.last_event == f"response.{[*names, 'output_text.delta'][count - 1]}"
        assert failure.value.delivery is DeliveryStatus.ACCEPTED
        assert isinstance(failure.value, trio.TooSlowError)
        await ask_strictly(connection, "next")
        assert trio.current_time() == 30
        assert server.statistics().handshakes == 2


@pytest.mark.parametrize("first_at", [0, 1, 29, 31, 59])
async def test_a_stall_limit_below_the_first_event_limit_is_kept(
    server: "ResponsesServer", first_at: float
) -> None:
    """P3: the deadline moves forward when the first event comes."""
    server.answer().stall(after_events=0, seconds=first_at).stall(after_events=1)
    async with server.open_client(timeouts=Timeouts(first_event=60, stall=30)) as connection:
        with pytest.raises(StallTimeout) as failure:
            await ask(connection, "hi")
        assert trio.current_time() == first_at + 30
        assert failure.value.silence == 30


async def test_every_event_restarts_the_stall_limit(server: "ResponsesServer") -> None:
    """P3: the whole response may take any time."""
    server.reply("one two three", delay=9)
    async with server.open_client(timeouts=Timeouts(stall=10)) as connection:
        assert await ask(connection, "hi") == "one two three"
        assert trio.current_time() == 90


async def test_unknown_events_of_a_response_restart_the_stall_limit(
    server: "ResponsesServer",
) -> None:
    """P3: a newer server may send event types that this version does not know."""
    script = server.reply("one")
    for _ in range(10):
        script.stall(after_events=2, seconds=9)
        script.inject({"type": "response.brand_new"}, after_events=2)
    async with server.open_client(timeouts=Timeouts(stall=10)) as connection:
        assert await ask(connection, "hi") == "one"
        assert trio.current_time() == 90


@pytest.mark.parametrize(
    ("count", "kind", "limit"), [(0, FirstEventTimeout, 60), (2, StallTimeout, 30)]
)
async def test_deadlines_hold_without_a_reader(
    server: "ResponsesServer", count: int, kind: type[Exception], limit: float
) -> None:
    """P3: the receive task keeps them; the reader gets the events that came, then the failure."""
    server.stall(after_events=count)
    async with server.open_client(timeouts=Timeouts(first_event=60, stall=30)) as connection:
        async with connection.stream(model="m", input="hi") as stream:
            await trio.sleep(limit - 0.1)
            assert connection.statistics().requests_active == 1
            assert connection.statistics().sockets_opened == 1
            await trio.sleep(0.2)
            assert connection.statistics().sockets_opened == 2
            assert not server.connections[0].is_open
            await trio.sleep(1000)
            events = [await stream.__anext__() for _ in range(count)]
            assert types(events) == ["response.created", "response.in_progress"][:count]
            with pytest.raises(kind) as failure:
                await stream.__anext__()
            assert getattr(failure.value, "silence", 30) == 30
        await trio.sleep(10)
        assert_at_rest(connection)


async def test_a_slow_reader_does_not_stall_its_turn(server: "ResponsesServer") -> None:
    """P3: the limit is about the arrival of events, not about reading them."""
    async with server.open_client(timeouts=Timeouts(first_event=1, stall=1)) as connection:
        async with connection.stream(model="m", input="hi") as stream:
            await trio.sleep(10_000)
            async for _ in stream:
                await trio.sleep(100)
        assert stream.response.output_text == heard("hi")
        assert server.statistics().handshakes == 1


async def test_the_wait_for_a_lane_does_not_count(narrow_server: "ResponsesServer") -> None:
    """P3: a server cannot answer a request before it is sent."""
    narrow_server.reply("slow", delay=100)
    async with (
        narrow_server.open_client(timeouts=Timeouts(first_event=5)) as connection,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(ask, connection, "first")
        await wait_all_tasks_blocked()
        await ask_strictly(connection, "next")
        assert trio.current_time() == 800


async def test_limits_of_infinity_never_end_a_turn(server: "ResponsesServer") -> None:
    server.answer().stall(after_events=0, seconds=1e6).stall(after_events=3, seconds=1e6)
    async with server.open_client(
        timeouts=Timeouts(first_event=math.inf, stall=math.inf),
        keepalive=Keepalive(interval=math.inf),
    ) as connection:
        await ask(connection, "hi")
        assert trio.current_time() == 2e6


async def test_a_silent_lane_is_given_up_while_others_go_on(server: "ResponsesServer") -> None:
    """P3, P5: the others end on the old socket, new turns begin on a new one."""
    server.reply("silent").stall(after_events=2)
    server.reply("one two three four", delay=7)
    failures: list[float] = []

    async def silent() -> None:
        with pytest.raises(StallTimeout):
            await ask(connection, "silent")
        failures.append(trio.current_time())

    async def talk() -> None:
        async with connection.stream(model="m", input="talk") as stream:
            await stream.get_final_response()
        assert stream.response.output_text == "one two three four"
        assert trio.current_time() == 77

    async with server.open_client(timeouts=Timeouts(stall=10)) as connection:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(silent)
            await wait_all_tasks_blocked()
            nursery.start_soon(talk)
            await trio.sleep(20)
            assert failures == [10]
            await ask_strictly(connection, "next")
            assert server.requests[-1].connection == 2
            assert server.connections[0].is_open
        await trio.sleep(10)
        assert not server.connections[0].is_open
        assert_at_rest(connection)


async def test_each_turn_has_its_own_deadline(server: "ResponsesServer") -> None:
    """P3: eight turns that began at different times end at different times."""
    ends: list[float] = []

    async def late(connection: ResponsesConnection, begin: float) -> None:
        await trio.sleep(begin)
        server.stall(after_events=0)
        with pytest.raises(FirstEventTimeout) as failure:
            await ask(connection, "hi")
        assert failure.value.sent == 60
        ends.append(trio.current_time())

    async with server.open_client() as connection, trio.open_nursery() as nursery:
        for number in range(8):
            nursery.start_soon(late, connection, number * 5.0)
    assert ends == [60 + number * 5 for number in range(8)]


async def test_a_request_that_cannot_be_written_twice_is_given_up(
    server: "ResponsesServer",
) -> None:
    """P3, P4: the exception has the size, and says that nothing was sent."""

    options = {"timeouts": Timeouts(send=7), "keepalive": Keepalive(interval=math.inf)}
    async with open_through(server, stuck, stuck, **options) as connection:
        with pytest.raises(SendTimeout, match="a frame of") as failure:
            await ask(connection, "x" * 5000)
        assert failure.value.delivery is DeliveryStatus.NOT_SENT
        assert failure.value.size > 5000
        assert isinstance(failure.value, trio.TooSlowError)
        assert 14 <= trio.current_time() <= 16
        assert server.requests == []
        await ask_strictly(connection, "next")


async def test_the_keepalive_ends_the_turn_of_a_dead_server(server: "ResponsesServer") -> None:
    """P3, P4: long before the stall limit; the exception has the silence and the delivery."""
    server.half_open(after_events=3)
    async with server.open_client(reconnect=STEADY) as connection:
        with pytest.raises(KeepaliveTimeout, match=r"no sign of life .* 40\.0 s") as failure:
            await ask(connection, "hi")
        assert trio.current_time() == 40
        assert failure.value.silence == 40
        assert failure.value.delivery is DeliveryStatus.ACCEPTED
        await ask_strictly(connection, "next")
        assert trio.current_time() == 41


async def test_a_deadline_of_the_caller_raises_trios_own_exception(
    server: "ResponsesServer",
) -> None:
    """P1: no exception of the library, and the connection goes on."""
    server.stall(after_events=1, seconds=100)
    async with server.open_client() as connection:
        with pytest.raises(trio.TooSlowError) as failure, trio.fail_after(3):
            await ask(connection, "hi")
        assert type(failure.value) is trio.TooSlowError
        await ask_strictly(connection, "next")
        assert trio.current_time() == 3


async def test_a_response_of_a_created_event_only_is_given_up(
    narrow_server: "ResponsesServer",
) -> None:
    """P3: on the default lane of a server without lanes."""
    narrow_server.answer([created()])
    async with narrow_server.open_client() as connection:
        with pytest.raises(StallTimeout) as failure:
            await ask(connection, "hi")
        assert failure.value.last_event == "response.created"


# --- Deadlines of one turn ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("count", "own", "kind"),
    [
        (0, Timeouts(first_event=5), FirstEventTimeout),
        (2, Timeouts(stall=5), StallTimeout),
        (0, Timeouts(first_event=90), FirstEventTimeout),
        (2, Timeouts(stall=90), StallTimeout),
    ],
)
async def test_the_timeouts_of_a_turn_leave_other_turns_alone(
    server: "ResponsesServer", count: int, own: Timeouts, kind: type[Exception]
) -> None:
    """P3: in both orders, shorter and longer than the deadlines of the connection."""
    server.stall(after_events=count)
    server.stall(after_events=count)
    server.stall(after_events=count)
    ends: dict[str, float] = {}

    async def late(name: str, **params: Any) -> None:
        with pytest.raises(kind):
            await ask(connection, "hi", **params)
        ends[name] = trio.current_time()

    both = Timeouts(first_event=40, stall=40)
    async with server.open_client(timeouts=both) as connection:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(late, "before")
            await wait_all_tasks_blocked()
            nursery.start_soon(lambda: late("own", timeouts=own))
            await wait_all_tasks_blocked()
            nursery.start_soon(late, "after")
        seconds = own.stall if count else own.first_event
        assert ends == {"before": 40, "own": seconds, "after": 40}
        await trio.sleep(10)
        assert_at_rest(connection)


async def test_each_method_of_a_turn_has_timeouts(server: "ResponsesServer") -> None:
    """P3: of connections, their ``responses``, lanes, pools and conversations."""
    own = Timeouts(first_event=5)
    async with (
        server.open_client() as connection,
        connection.lane() as lane,
        connection.conversation(model="m") as conversation,
        open_pool(server.url, dial=server.dial, size=1) as pool,
        pool.conversation(model="m") as pooled,
    ):
        talks: list[Any] = [conversation, pooled]
        turns: list[Any] = [connection, lane, pool]
        plain: list[Any] = [connection.responses, pool.responses]
        calls: list[Any] = [
            *((one.create, ("hi",), {"model": "m"}) for one in [*turns, *plain]),
            *((one.parse, (int, "hi"), {"model": "m"}) for one in [*turns, *plain]),
            *((one.warm_up, (), {"model": "m"}) for one in turns),
            *((one.create, ("hi",), {}) for one in talks),
            *((one.parse, (int, "hi"), {}) for one in talks),
            *((one.warm_up, (), {}) for one in talks),
            *((one.run, ("hi",), {}) for one in talks),
        ]
        for method, given, params in calls:
            script = server.stall(after_events=0)
            if method.__name__ == "warm_up":
                script.for_warm_up()
            begin = trio.current_time()
            with pytest.raises(FirstEventTimeout):
                await method(*given, **params, timeouts=own)
            assert trio.current_time() == begin + 5, method
            await trio.sleep(10)
        streams: list[Any] = [
            *((one.stream, {"model": "m"}) for one in [*turns, *plain]),
            *((one.stream, {}) for one in talks),
            *((one.run_stream, {}) for one in talks),
        ]
        for method, params in streams:
            server.stall(after_events=0)
            begin = trio.current_time()
            with pytest.raises(FirstEventTimeout):
                async with method("hi", **params, timeouts=own) as stream:
                    await stream.get_final_response()
            assert trio.current_time() == begin + 5, method
            await trio.sleep(10)


async def test_the_timeouts_of_a_run_are_those_of_each_of_its_turns(
    lenient_server: "ResponsesServer",
) -> None:
    @function_tool
    async def weather() -> str:
        """Return the weather."""
        await trio.sleep(3)
        return "sunny"

    lenient_server.call("weather", "{}")
    lenient_server.stall(after_events=2)
    async with (
        lenient_server.open_client() as connection,
        connection.conversation(model="m", tools=[weather]) as conversation,
    ):
        with pytest.raises(StallTimeout):
            await conversation.run("hi", timeouts=Timeouts(stall=7))
        assert len(lenient_server.requests) == 2
        assert trio.current_time() == 3 + 7
        begin = trio.current_time()
        # The server is lenient, since this turn does not answer the call of the lost run.
        lenient_server.stall(after_events=0)
        with pytest.raises(FirstEventTimeout):
            await conversation.create("next")
        assert trio.current_time() == begin + 60


async def test_a_retry_has_the_timeouts_of_its_turn(server: "ResponsesServer") -> None:
    """P3: each attempt has the whole limit."""
    server.stall(after_events=0)
    server.stall(after_events=0)
    async with server.open_client(max_retries=1) as connection:
        with pytest.raises(FirstEventTimeout) as failure:
            await ask(connection, "hi", delivery="at_least_once", timeouts=Timeouts(first_event=5))
        assert failure.value.seconds == 5
        assert len(server.requests) == 2
        assert 10 <= trio.current_time() <= 11


@pytest.mark.parametrize("value", [5, 0, False, {"stall": 5}, Timeouts, Keepalive()])
async def test_a_turn_with_timeouts_of_a_wrong_type_sends_nothing(
    server: "ResponsesServer", value: Any
) -> None:
    async with (
        server.open_client() as connection,
        connection.lane() as lane,
        connection.conversation(model="m") as conversation,
        open_pool(server.url, dial=server.dial, size=1) as pool,
    ):
        for turns in connection, connection.responses, lane, conversation, pool:
            with pytest.raises(ConfigurationError, match=r"^timeouts must be Timeouts\(\.\.\.\)"):
                turns.stream("hi", model="m", timeouts=value)
            with pytest.raises(ConfigurationError, match=r"^timeouts must be"):
                await turns.create("hi", model="m", timeouts=value)
        with pytest.raises(ConfigurationError, match=r"^timeouts must be"):
            conversation.run_stream("hi", timeouts=value)
        with pytest.raises(ConfigurationError, match=r"^timeouts must be"):
            await conversation.run("hi", timeouts=value)
    assert server.requests == []
