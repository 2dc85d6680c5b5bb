"""`RateLimiter`: turns wait for limits, in order, and what the server says is used."""

from __future__ import annotations

import copy
import pickle
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.connection.conftest import BreakableStream
from trio_responses import (
    ConfigurationError,
    ConnectionClosed,
    DeliveryStatus,
    Endpoint,
    Limits,
    PoolEndpoint,
    RateLimiter,
    RateLimitError,
    Timeouts,
    UnsupportedByTransport,
    function_tool,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.connection.conftest import Connect
    from trio_responses import (
        ResponsesConnection,
    )
    from trio_responses._turn.methods import TurnMethods
    from trio_responses.testing import ResponsesServer

MODEL = "m"
ONE_A_SECOND = {"requests_per_minute": 60, "burst": 1 / 60}


class Turns:
    """Turns that run in tasks, with the times at which they have ended."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self.texts: list[str] = []

    async def ask(self, turns: TurnMethods, text: str = "hi", **params: Any) -> None:
        await turns.create(model=MODEL, input=text, **params)
        self.times.append(round(trio.current_time(), 3))
        self.texts.append(text)


class WithHeaders(BreakableStream):
    """A stream that adds lines to the head of the server's answer."""

    def __init__(self, stream: trio.abc.Stream, lines: bytes) -> None:
        super().__init__(stream)
        self._lines = lines

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        data = await super().receive_some(max_bytes)
        if self._lines and b"\r\n\r\n" in data:
            data = data.replace(b"\r\n\r\n", b"\r\n" + self._lines + b"\r\n", 1)
            self._lines = b""
        return data


def wide(server: ResponsesServer) -> Endpoint:
    """Return an endpoint with lanes, where the place of a turn is not what it waits for."""
    return Endpoint.compatible(server.url, lanes=True, max_age=None)


@pytest.mark.parametrize("transport", ["websocket", "http"])
async def test_turns_wait_in_order_and_the_wait_is_counted(
    server: ResponsesServer, connect: Connect, transport: str
) -> None:
    limiter, turns = RateLimiter(**ONE_A_SECOND), Turns()
    async with connect(
        endpoint=wide(server), transport=transport, rate_limiter=limiter
    ) as connection:
        async with trio.open_nursery() as nursery:
            for number in range(5):
                nursery.start_soon(turns.ask, connection, f"{number}")
                await wait_all_tasks_blocked()
            assert limiter.statistics().requests_waiting == 1
        counted = connection.statistics()
    assert turns.times == pytest.approx([0, 1, 2, 3, 4])
    assert turns.texts == ["0", "1", "2", "3", "4"]
    assert counted.requests_delayed == 4
    assert counted.seconds_delayed == pytest.approx(4)  # each since it is the next one
    shared = limiter.statistics()
    assert (shared.requests, shared.requests_delayed, shared.requests_waiting) == (5, 4, 0)
    assert shared.seconds_waited == pytest.approx(4)
    assert shared.paused_for == 0


async def test_the_wait_counts_for_no_timeout(server: ResponsesServer, connect: Connect) -> None:
    limiter, turns = RateLimiter(requests_per_minute=1), Turns()
    short = Timeouts(first_event=1, stall=1, send=1)
    async with connect(rate_limiter=limiter, timeouts=short) as connection:
        for _ in range(3):
            await turns.ask(connection)
    assert turns.times == pytest.approx([0, 60, 120])
    assert server.statistics().requests == 3


async def test_a_cancelled_wait_takes_nothing(connect: Connect) -> None:
    limiter, turns = RateLimiter(requests_per_minute=60, burst=1 / 60), Turns()
    async with connect(rate_limiter=limiter) as connection:
        await turns.ask(connection)
        async with trio.open_nursery() as nursery:
            with trio.move_on_after(0.5) as first:
                await connection.create(model=MODEL, input="given up")
            assert first.cancelled_caught
            nursery.start_soon(turns.ask, connection)
        assert limiter.statistics().requests == 2
    assert turns.times == pytest.approx([0, 1])


async def test_a_small_turn_does_not_overtake_a_large_one(
    server: ResponsesServer, connect: Connect
) -> None:
    limiter, turns = RateLimiter(tokens_per_minute=6000), Turns()
    server.reply("long", usage={"input_tokens": 0, "output_tokens": 3000})
    async with (
        connect(endpoint=wide(server), rate_limiter=limiter) as first,
        connect(endpoint=wide(server), rate_limiter=limiter) as other,
        trio.open_nursery() as nursery,
    ):
        await turns.ask(first, "before", max_output_tokens=3000)
        nursery.start_soon(partial(turns.ask, first, "large", max_output_tokens=5000))
        await wait_all_tasks_blocked()
        nursery.start_soon(partial(turns.ask, other, "small", max_output_tokens=16))
    assert turns.texts == ["before", "large", "small"]


async def test_connections_that_share_a_limiter_take_turns(
    server: ResponsesServer, connect: Connect
) -> None:
    limiter, turns = RateLimiter(**ONE_A_SECOND), Turns()
    async with (
        connect(endpoint=wide(server), rate_limiter=limiter) as busy,
        connect(endpoint=wide(server), rate_limiter=limiter) as other,
        trio.open_nursery() as nursery,
    ):
        for number in range(6):
            nursery.start_soon(turns.ask, busy, f"busy {number}")
            await wait_all_tasks_blocked()
        nursery.start_soon(turns.ask, other, "other")
    assert turns.texts == ["busy 0", "busy 1", "other", "busy 2", "busy 3", "busy 4", "busy 5"]


async def test_lanes_and_conversations_wait_as_well(
    server: ResponsesServer, connect: Connect
) -> None:
    limiter, turns = RateLimiter(**ONE_A_SECOND), Turns()

    @function_tool
    async def look_up() -> str:
        """Look up."""
        return "found"

    server.call("look_up").on_lane("lane-31")
    async with (
        connect(endpoint=wide(server), rate_limiter=limiter) as connection,
        connection.lane() as lane,
        connection.conversation(model=MODEL, tools=[look_up]) as conversation,
    ):
        await turns.ask(lane)
        await conversation.run("go")  # two turns
        assert round(trio.current_time()) == 2
        await turns.ask(lane)
        await connection.warm_up(model=MODEL)
        assert round(trio.current_time()) == 4


async def test_raw_requests_wait_as_well(connect: Connect) -> None:
    limiter = RateLimiter(requests_per_minute=60, tokens_per_minute=6000, burst=1 / 60)
    async with connect(rate_limiter=limiter) as connection:
        for expected in (0, 1, 2):
            await connection.send(
                {"type": "response.create", "model": MODEL, "input": "x", "max_output_tokens": 16}
            )
            assert round(trio.current_time()) == expected
            async for event in connection:
                if getattr(event, "type", "") == "response.completed":
                    break
        with pytest.raises(UnsupportedByTransport):
            async with connect(rate_limiter=limiter, transport="http") as over_http:
                await over_http.send({"type": "response.inject"})
        assert limiter.statistics().requests == 3


# --- Tokens ------------------------------------------------------------------------------


async def test_tokens_are_estimated_and_corrected_by_the_usage(
    server: ResponsesServer, connect: Connect
) -> None:
    limiter = RateLimiter(tokens_per_minute=10_000)
    server.reply("short", usage={"input_tokens": 100, "output_tokens": 200})
    gate = trio.Event()
    server.reply("held").hold(gate, after_events=1)
    async with connect(rate_limiter=limiter) as connection, trio.open_nursery() as nursery:
        await connection.create(model=MODEL, input="x" * 4000, max_output_tokens=3000)
        assert limiter.statistics().tokens_available == 9700
        nursery.start_soon(Turns().ask, connection, "x" * 4000)
        await wait_all_tasks_blocked()
        left = limiter.statistics().tokens_available
        assert left is not None
        # 250 is the average output: 0.9 times 256, and 0.1 times 200.
        assert 9700 - 1000 - 250 - 30 < left < 9700 - 1000 - 250
        gate.set()


async def test_a_turn_waits_for_its_tokens(server: ResponsesServer, connect: Connect) -> None:
    limiter, turns = RateLimiter(tokens_per_minute=6000), Turns()
    for _ in range(3):
        server.reply("long", usage={"input_tokens": 1000, "output_tokens": 5000})
    async with connect(rate_limiter=limiter) as connection:
        for _ in range(3):
            await turns.ask(connection, max_output_tokens=5980)
    assert turns.times == pytest.approx([0, 60, 120], abs=1)


async def test_a_conversation_counts_its_whole_history(
    server: ResponsesServer, connect: Connect
) -> None:
    """The model reads the whole history, although a turn sends only what is new."""
    limiter = RateLimiter(tokens_per_minute=100_000)
    gate = trio.Event()
    server.reply("first", usage={"input_tokens": 0, "output_tokens": 0})
    server.reply("second").hold(gate, after_events=1)
    async with (
        connect(endpoint=wide(server), rate_limiter=limiter) as connection,
        connection.conversation(model=MODEL, max_output_tokens=16) as conversation,
        trio.open_nursery() as nursery,
    ):
        await conversation.create("x" * 40_000)
        assert limiter.statistics().tokens_available == 100_000
        nursery.start_soon(conversation.create, "short")
        await wait_all_tasks_blocked()
        left = limiter.statistics().tokens_available
        assert left is not None
        assert 89_000 < left < 90_000
        gate.set()


async def test_a_refused_request_gives_back_its_tokens(
    server: ResponsesServer, connect: Connect
) -> None:
    limiter = RateLimiter(requests_per_minute=10, tokens_per_minute=10_000)
    server.fail("invalid_prompt", status=400, message="no")
    async with connect(rate_limiter=limiter) as connection:
        with pytest.raises(Exception, match="no"):
            await connection.create(model=MODEL, input="x" * 4000, max_output_tokens=3000)
        counted = limiter.statistics()
    assert (counted.requests_available, counted.tokens_available) == (9, 10_000)


async def test_a_request_that_cannot_be_written_gives_back_everything(connect: Connect) -> None:
    limiter = RateLimiter(requests_per_minute=10, tokens_per_minute=10_000)
    limits = Limits(max_request_bytes=100)
    async with connect(rate_limiter=limiter, limits=limits) as connection:
        with pytest.raises(Exception, match="max_request_bytes"):
            await connection.create(model=MODEL, input="x" * 4000)
        counted = limiter.statistics()
    assert (counted.requests, counted.requests_available) == (0, 10)
    assert counted.tokens_available == 10_000


# --- The server --------------------------------------------------------------------------


@pytest.mark.parametrize("transport", ["websocket", "http"])
async def test_a_refusal_for_the_rate_stops_everyone(
    server: ResponsesServer, connect: Connect, transport: str
) -> None:
    limiter, turns = RateLimiter(), Turns()
    server.fail("rate_limit_exceeded", status=429, headers={"retry-after": "7"})
    async with (
        connect(rate_limiter=limiter, transport=transport) as first,
        connect(rate_limiter=limiter, transport=transport) as other,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(turns.ask, first, "refused")
        await wait_all_tasks_blocked()
        assert limiter.statistics().paused_for == 7
        nursery.start_soon(turns.ask, other, "other")
    assert turns.times == [7, 7]
    assert server.statistics().requests == 3


async def test_a_turn_that_is_not_sent_again_stops_the_others_too(
    server: ResponsesServer, connect: Connect
) -> None:
    limiter, turns = RateLimiter(requests_per_minute=600), Turns()
    server.fail("rate_limit_exceeded", status=429, headers={"retry-after": "3600"})
    async with connect(rate_limiter=limiter, max_retry_wait=20) as connection:
        with pytest.raises(RateLimitError):
            await turns.ask(connection)
        await turns.ask(connection)
    assert turns.times == [20]  # the longest wait of a turn


async def test_a_refusal_that_belongs_to_no_turn_stops_the_next_one(
    server: ResponsesServer, connect: Connect
) -> None:
    limiter, turns = RateLimiter(), Turns()
    error = {"code": "rate_limit_exceeded", "message": "Please try again in 4s."}
    async with connect(rate_limiter=limiter) as connection:
        await server.send_raw({"type": "error", "status": 429, "error": error})
        await wait_all_tasks_blocked()
        await turns.ask(connection)
    assert turns.times == [4]


async def test_a_response_that_failed_for_the_rate_stops_the_next_one(
    server: ResponsesServer, connect: Connect
) -> None:
    limiter, turns = RateLimiter(), Turns()
    server.reply("x", status="failed", error="rate_limit_exceeded")
    async with connect(rate_limiter=limiter) as connection:
        with pytest.raises(RateLimitError):
            await turns.ask(connection)
        await turns.ask(connection)
    assert 0.3 < turns.times[0] <= 0.5


async def test_a_used_up_quota_stops_nothing(server: ResponsesServer, connect: Connect) -> None:
    limiter, turns = RateLimiter(), Turns()
    server.fail("insufficient_quota", status=429, headers={"retry-after": "7"})
    async with connect(rate_limiter=limiter) as connection:
        with pytest.raises(RateLimitError):
            await turns.ask(connection)
        await turns.ask(connection)
    assert turns.times == [0]


async def test_a_refused_handshake_stops_the_other_connections(
    server: ResponsesServer, connect: Connect
) -> None:
    limiter, turns = RateLimiter(), Turns()
    async with connect(rate_limiter=limiter) as first, trio.open_nursery() as nursery:
        server.refuse(429, code="rate_limit_exceeded", headers={"Retry-After": "9"})

        async def open_other() -> None:
            async with connect(rate_limiter=limiter):
                pass

        nursery.start_soon(open_other)
        await wait_all_tasks_blocked()
        await turns.ask(first)
    assert turns.times == [9]


async def test_the_headers_of_http_answers_are_used(
    server: ResponsesServer, connect: Connect
) -> None:
    limiter, turns = RateLimiter(), Turns()
    headers = {
        "x-ratelimit-limit-requests": "10",
        "x-ratelimit-remaining-requests": "1",
        "x-ratelimit-reset-requests": "18s",
    }
    server.reply("ok").with_headers(headers)
    async with connect(rate_limiter=limiter, transport="http") as connection:
        for _ in range(4):
            await turns.ask(connection)
    assert turns.times == pytest.approx([0, 0, 2, 4])  # 9 in 18 s


async def test_the_headers_of_the_handshake_are_used(
    server: ResponsesServer, connect: Connect
) -> None:
    lines = "".join(
        f"x-ratelimit-{name}-requests: {value}\r\n"
        for name, value in {"limit": 10, "remaining": 0, "reset": "18s"}.items()
    )

    async def dial(host: str, port: int) -> trio.abc.Stream:
        return WithHeaders(await server.dial(host, port), lines.encode())

    limiter, turns = RateLimiter(), Turns()
    async with connect(rate_limiter=limiter, dial=dial) as connection:
        await turns.ask(connection)
        await turns.ask(connection)
    assert turns.times == pytest.approx([1.8, 3.6])


async def test_a_refused_call_stops_the_turns(server: ResponsesServer, connect: Connect) -> None:
    limiter, turns = RateLimiter(), Turns()
    headers = {"retry-after": "5"}
    server.refuse(429, code="rate_limit_exceeded", headers=headers, over="http")
    async with connect(rate_limiter=limiter) as connection, trio.open_nursery() as nursery:
        nursery.start_soon(lambda: connection.responses.input_tokens("hi", model=MODEL))
        await wait_all_tasks_blocked()
        await turns.ask(connection)
    assert turns.times == [5]


# --- Ends --------------------------------------------------------------------------------


async def test_closing_and_draining_end_the_wait(server: ResponsesServer, connect: Connect) -> None:
    limiter = RateLimiter(requests_per_minute=1)
    failed: list[DeliveryStatus | None] = []

    async def ask(connection: ResponsesConnection) -> None:
        with pytest.raises(ConnectionClosed) as closed:
            await connection.create(model=MODEL, input="hi")
        failed.append(closed.value.delivery)

    async with (
        connect(rate_limiter=limiter) as first,
        connect(rate_limiter=limiter) as other,
        trio.open_nursery() as nursery,
    ):
        await first.create(model=MODEL, input="hi")
        for connection in (first, first, other, other):
            nursery.start_soon(ask, connection)
        await wait_all_tasks_blocked()
        await first.aclose()
        await wait_all_tasks_blocked()
        assert failed == [DeliveryStatus.NOT_SENT] * 2
        assert await other.drain(10) == 2
    assert trio.current_time() == 10
    assert server.statistics().requests == 1
    assert limiter.statistics().requests_waiting == 0


async def test_a_socket_that_is_lost_during_the_wait_uses_up_nothing(
    server: ResponsesServer, connect: Connect
) -> None:
    limiter, turns = RateLimiter(requests_per_minute=6, burst=1 / 6), Turns()
    async with connect(rate_limiter=limiter) as connection, trio.open_nursery() as nursery:
        await turns.ask(connection)
        nursery.start_soon(turns.ask, connection)
        await wait_all_tasks_blocked()
        server.stop_accepting()
        await trio.sleep(8)
        await server.reset_all()  # the wait ends at 10 s, the first attempt is made at 9 s
        await trio.sleep(4)
        assert limiter.statistics().requests == 1
        server.accept_again()
    assert turns.times == pytest.approx([0, 15])


async def test_a_wait_for_the_rate_is_no_wait_for_a_place(
    server: ResponsesServer, connect: Connect
) -> None:
    """A turn that is not read delays no request that waits for the limiter: no overflow."""
    limiter = RateLimiter(requests_per_minute=1)
    limits = Limits(turn_buffer_bytes=2000, connection_buffer_bytes=4000)
    server.reply("word " * 500)
    async with (
        connect(
            endpoint=wide(server), rate_limiter=limiter, limits=limits, timeouts=Timeouts(stall=5)
        ) as connection,
        connection.stream(model=MODEL, input="hi") as stream,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(Turns().ask, connection)
        await trio.sleep(50)
        response = await stream.get_final_response()
        assert len(response.output_text) == 2500


# --- The option --------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["requests_per_minute", "tokens_per_minute", "burst"])
@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf"), "60", True])
def test_invalid_limits_are_refused(name: str, value: Any) -> None:
    if (name, value) == ("burst", True):
        value = 1.5
    with pytest.raises(ConfigurationError, match=f"^{name} must be"):
        RateLimiter(**{name: value})


@pytest.mark.parametrize("given", [60, {"requests_per_minute": 60}, RateLimiter])
async def test_another_object_is_no_limiter(connect: Connect, given: object) -> None:
    with pytest.raises(ConfigurationError, match=r"^rate_limiter must be RateLimiter\(\.\.\.\)"):
        async with connect(rate_limiter=given):
            pytest.fail("the block began")  # pragma: no cover


def test_the_representation_has_the_limits() -> None:
    limiter = RateLimiter(requests_per_minute=60, tokens_per_minute=10_000)
    assert repr(limiter) == "RateLimiter(requests_per_minute=60, tokens_per_minute=10000)"


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, pickle.dumps])
def test_a_limiter_cannot_be_copied(copied: Callable[[Any], Any]) -> None:
    endpoint = PoolEndpoint(endpoint=Endpoint.openai(), rate_limiter=RateLimiter())
    assert copy.copy(endpoint).rate_limiter is endpoint.rate_limiter
    with pytest.raises(TypeError, match="RateLimiter cannot be copied or pickled"):
        copied(endpoint.rate_limiter)


def test_a_limiter_may_be_used_in_another_run_of_trio() -> None:
    limiter = RateLimiter(requests_per_minute=60)

    async def use(seconds: float) -> None:
        await trio.sleep(seconds)
        assert limiter.statistics().requests_available == 60

    for seconds in (100, 0):
        trio.run(use, seconds, clock=trio.testing.MockClock(autojump_threshold=0))
