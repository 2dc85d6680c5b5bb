"""What a `RateLimiter` counts is what reached the server, wherever a turn fails or is cancelled."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.testing.driver import NO_WAITING
from tests.turn.test_leaving import CancelAtStep
from trio_responses import (
    ConfigurationError,
    ConnectionClosed,
    ConnectionLost,
    DeliveryStatus,
    ModelRetry,
    RateLimiter,
    RateLimitError,
    RequestTooLarge,
    ResponsesError,
    UnsupportedByTransport,
    function_tool,
)
from trio_responses.stores import MemoryStore
from trio_responses.testing import open_test_server

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import TypeAlias

    from tests.connection.conftest import Connect, Dialler
    from tests.turn.test_leaving import When
    from trio_responses import ResponsesConnection
    from trio_responses.testing import ResponsesServer

    Way: TypeAlias = Callable[[ResponsesConnection, ResponsesServer], Awaitable[Any]]

pytestmark = NO_WAITING
MODEL = "m"
TOKENS: Final = 1_000_000


def make_limiter() -> RateLimiter:
    return RateLimiter(requests_per_minute=600, tokens_per_minute=TOKENS)


def assert_nothing_taken(limiter: RateLimiter, requests: int = 0) -> None:
    """Check that the requests that count have no tokens, and nothing else was taken."""
    counted = limiter.statistics()
    assert counted.requests == requests
    assert counted.tokens_available == TOKENS
    assert counted.requests_waiting == 0


# --- Cancellation at every step ------------------------------------------------------------


async def by_create(connection: ResponsesConnection, _server: ResponsesServer) -> None:
    await connection.create("victim", model=MODEL)


async def by_leaving(connection: ResponsesConnection, _server: ResponsesServer) -> None:
    async with connection.stream("victim", model=MODEL):
        await trio.lowlevel.checkpoint()


async def by_run(connection: ResponsesConnection, server: ResponsesServer) -> None:
    @function_tool
    async def look_up(city: str) -> str:
        """Look up a city."""
        await trio.lowlevel.checkpoint()
        if city == "Atlantis":
            raise ModelRetry("there is no such city")
        return "sunny"

    server.call("look_up", {"city": "Atlantis"})
    server.call("look_up", {"city": "Paris"})
    server.reply("sunny")
    async with (
        MemoryStore() as store,
        connection.durable_conversation(store, "c", model=MODEL, tools=[look_up]) as conversation,
    ):
        for _ in range(2):  # the second time, the store has the answer
            result = await conversation.run("victim", request_id="r-1")
            assert result.output_text == "sunny"


async def by_retrying(connection: ResponsesConnection, server: ResponsesServer) -> None:
    server.fail("rate_limit_exceeded", status=429, headers={"retry-after": "0"})
    await connection.create("victim", model=MODEL)


async def by_sending(connection: ResponsesConnection, _server: ResponsesServer) -> None:
    await connection.send({"type": "response.create", "model": MODEL, "input": "victim"})


WAYS: Final[dict[str, Way]] = {
    "create": by_create,
    "leave": by_leaving,
    "run": by_run,
    "retry": by_retrying,
    "send": by_sending,
}


@pytest.mark.parametrize("transport", ["websocket", "http"])
@pytest.mark.parametrize(
    ("way", "when"), [*((way, "arriving") for way in WAYS), ("run", "waiting")]
)
async def test_a_turn_that_is_cancelled_at_any_step_counts_if_the_server_has_it(
    server: ResponsesServer, connect: Connect, way: str, transport: str, when: When
) -> None:
    # With one request at once, the victim also waits for the limiter.
    limiter = RateLimiter(requests_per_minute=60, tokens_per_minute=TOKENS, burst=1 / 60)
    step, cancelled = 0, True
    async with connect(rate_limiter=limiter, transport=transport) as connection:
        while cancelled:
            await connection.create("before", model=MODEL)
            canceller = CancelAtStep(step, when)
            cancelled = await canceller.run(lambda: WAYS[way](connection, server))
            server.clear_scripts()
            await wait_all_tasks_blocked()
            await connection.create("after", model=MODEL)
            while server.statistics().active:  # noqa: ASYNC110 - the server has no event for it
                await trio.sleep(0.01)
            await wait_all_tasks_blocked()
            counted = limiter.statistics()
            assert counted.requests == len(server.requests), f"step {step}"
            assert counted.requests_waiting == 0
            step += 1
    assert step > 1


# --- Failures ------------------------------------------------------------------------------


async def test_a_request_that_is_too_large_for_the_server_gives_back_its_tokens() -> None:
    limiter = make_limiter()
    async with (
        open_test_server(max_message_size=5000) as server,
        server.open_client(rate_limiter=limiter) as connection,
    ):
        with pytest.raises(RequestTooLarge) as failure:
            await connection.create("x" * 6000, model=MODEL)
        assert failure.value.delivery is DeliveryStatus.REJECTED
        assert_nothing_taken(limiter, 1)


async def test_a_request_that_needs_an_extra_that_is_missing_takes_nothing(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trio_responses._transport.http.is_http_installed", lambda: False)
    limiter = make_limiter()
    async with connect(rate_limiter=limiter) as connection:
        with pytest.raises(ConfigurationError, match="needs httpcore2"):
            await connection.create("hi", model=MODEL, background=True)
        assert_nothing_taken(limiter)


async def test_a_request_over_http_to_nobody_takes_nothing(connect: Connect) -> None:
    async def refuse(host: str, port: int) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        raise ConnectionRefusedError(host, port)

    limiter = make_limiter()
    async with connect(
        rate_limiter=limiter, transport="http", dial=refuse, reconnect=[1]
    ) as connection:
        with pytest.raises(ResponsesError) as failure:
            await connection.create("hi", model=MODEL)
        assert failure.value.delivery is DeliveryStatus.NOT_SENT
        with pytest.raises(UnsupportedByTransport):
            await connection.warm_up(model=MODEL)
        assert_nothing_taken(limiter)


@pytest.mark.parametrize("transport", ["websocket", "http"])
async def test_what_is_cut_off_at_drain_before_it_was_sent_takes_nothing(
    server: ResponsesServer, connect: Connect, transport: str
) -> None:
    async def dial(host: str, port: int) -> trio.abc.Stream:
        if transport == "http":
            await trio.sleep_forever()
        return await server.dial(host, port)

    limiter = RateLimiter(tokens_per_minute=TOKENS, requests_per_minute=0.5)
    async with (
        connect(rate_limiter=limiter, transport=transport, dial=dial) as connection,
        trio.open_nursery() as nursery,
    ):
        if transport == "websocket":  # so that the next turn waits for the limiter
            await connection.create("hi", model=MODEL)

        async def ask() -> None:
            with pytest.raises(ConnectionClosed) as failure:
                await connection.create("hi", model=MODEL)
            assert failure.value.delivery is DeliveryStatus.NOT_SENT

        nursery.start_soon(ask)
        await wait_all_tasks_blocked()
        await connection.drain(1)
    await trio.sleep(60)
    assert_nothing_taken(limiter, len(server.requests))


@pytest.mark.parametrize("delivery", ["at_most_once", "at_least_once"])
async def test_a_request_whose_socket_is_lost_counts_once_for_each_time_it_is_sent(
    server: ResponsesServer, connect: Connect, delivery: Any
) -> None:
    limiter = make_limiter()
    server.drop()
    async with connect(rate_limiter=limiter) as connection:
        with suppress(ConnectionLost):
            await connection.create("hi", model=MODEL, delivery=delivery)
        assert limiter.statistics().requests == len(server.requests)
    assert len(server.requests) == (1 if delivery == "at_most_once" else 2)


async def test_a_response_that_is_found_again_corrects_the_estimate() -> None:
    limiter = make_limiter()
    async with open_test_server(finish_lost=True) as server:
        server.reply("found", usage={"input_tokens": 400, "output_tokens": 600}).drop(
            after_events=3
        )
        async with server.open_client(recover="retrieve", rate_limiter=limiter) as connection:
            response = await connection.create("hi", model=MODEL, store=True)
    assert response.output_text == "found"
    available = limiter.statistics().tokens_available
    assert available == pytest.approx(TOKENS - 1000)


async def test_a_request_that_is_written_again_counts_once(
    server: ResponsesServer, connect: Connect, dialler: Dialler
) -> None:
    limiter = make_limiter()
    async with connect(rate_limiter=limiter, dial=dialler) as connection:
        await connection.create("hi", model=MODEL)
        used = TOKENS - (limiter.statistics().tokens_available or 0)
        dialler.streams[0].writes_left = 0
        await connection.create("again", model=MODEL)
        assert len(dialler.streams) == 2
        counted = connection.statistics()
        assert limiter.statistics().requests == len(server.requests) == 2
    tokens = counted.input_tokens + counted.output_tokens
    assert used > 0
    assert tokens > used


async def test_a_request_that_is_refused_for_its_rate_to_the_last_gives_back_its_tokens(
    server: ResponsesServer, connect: Connect
) -> None:
    limiter = RateLimiter()
    for _ in range(3):
        server.fail("rate_limit_exceeded", status=429, headers={"retry-after": "1"})
    async with connect(rate_limiter=limiter) as connection:
        with pytest.raises(RateLimitError):
            await connection.create("hi", model=MODEL)
    assert limiter.statistics().requests == len(server.requests) == 3
