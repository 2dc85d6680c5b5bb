"""A `RateLimiter` in front of pools: order, thousands of waiting turns, and several endpoints."""

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.pool.rig import ask, open_to
from trio_responses import (
    ConfigurationError,
    ConnectionClosed,
    Endpoint,
    PoolEndpoint,
    RateLimiter,
    ResponsesPool,
    open_pool,
)
from trio_responses._protocol.rate_limits import RateLimits
from trio_responses._rate_limiter import LimitQueue
from trio_responses.testing import ResponsesServer, open_test_server


def shared_limits(requests_per_minute: float) -> LimitQueue:
    return LimitQueue(
        RateLimits(
            requests_per_minute=requests_per_minute, tokens_per_minute=None, burst=0.001, now=0.0
        )
    )


async def test_ten_thousand_requests_pass_in_order_and_at_the_rate() -> None:
    limits, times, order = shared_limits(6000), list[float](), list[int]()

    async def wait(number: int) -> None:
        if limits.reserve_nowait(1) is None:
            await limits.reserve(1)
        times.append(trio.current_time())
        order.append(number)

    async with trio.open_nursery() as nursery:
        for number in range(10_000):
            nursery.start_soon(wait, number)
            if number % 1000 == 0:
                await trio.lowlevel.checkpoint()
        await wait_all_tasks_blocked()
        assert limits.statistics().requests_waiting == 9_994
    assert sorted(order) == list(range(10_000))
    assert times[-1] == pytest.approx(100, abs=0.1)
    assert all(
        later - earlier >= 0.99
        for earlier, later in zip(times[:-106], times[106:], strict=True)  # 100 a second, 6 at once
    )


async def test_waiting_requests_that_are_cancelled_hold_up_nobody() -> None:
    limits, passed = shared_limits(60), list[int]()

    async def wait(number: int) -> None:
        await limits.reserve(1)
        passed.append(number)

    async with trio.open_nursery() as nursery:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as cancelled:
                for number in range(1000):
                    (nursery if number % 100 == 0 else cancelled).start_soon(wait, number)
                    await trio.lowlevel.checkpoint()
                await wait_all_tasks_blocked()
                scope.cancel()
    assert passed == list(range(0, 1000, 100))
    assert trio.current_time() == pytest.approx(9, abs=0.1)


async def test_thousands_of_turns_wait_in_a_pool_until_it_is_drained(
    server: ResponsesServer,
) -> None:
    limiter = RateLimiter(requests_per_minute=600, burst=1 / 600)
    answered, cut_off = list[int](), list[str]()

    async def run(pool: ResponsesPool, number: int) -> None:
        try:
            await ask(pool, f"{number}")
            answered.append(number)
        except ConnectionClosed as error:
            cut_off.append(f"{error.delivery}")

    async with open_to(server, rate_limiter=limiter) as pool, trio.open_nursery() as nursery:
        for number in range(3000):
            nursery.start_soon(run, pool, number)
            await trio.lowlevel.checkpoint()
        await wait_all_tasks_blocked()
        left = await pool.drain(20)
        await wait_all_tasks_blocked()
        counted = pool.statistics()
    assert left == len(cut_off) == 3000 - len(answered)
    assert len(answered) == pytest.approx(200, abs=2)
    # Turns of one connection keep their order, and the connections take turns.
    assert all(abs(number - place) <= 4 * 16 for place, number in enumerate(answered))
    assert set(cut_off) == {"not_sent"}
    assert len(server.requests) == len(answered) == counted.requests_sent
    assert counted.requests_delayed >= len(answered) - 1
    assert counted.seconds_delayed > 20


async def test_pools_and_connections_share_a_limiter(server: ResponsesServer) -> None:
    limiter, texts = RateLimiter(requests_per_minute=60, burst=1 / 60), list[str]()

    async def run(pool: ResponsesPool, text: str) -> None:
        await ask(pool, text)
        texts.append(text)

    async with (
        open_to(server, size=1, rate_limiter=limiter) as busy,
        open_to(server, size=1, rate_limiter=limiter) as quiet,
        trio.open_nursery() as nursery,
    ):
        for number in range(20):
            nursery.start_soon(run, busy, f"busy {number}")
        await wait_all_tasks_blocked()
        nursery.start_soon(run, quiet, "quiet")
    assert texts.index("quiet") <= 3
    assert trio.current_time() == pytest.approx(20)


async def test_each_endpoint_may_have_limits_of_its_own() -> None:
    async with open_test_server() as first, open_test_server() as second:

        async def dial(host: str, port: int) -> trio.abc.Stream:
            return await {1: first, 2: second}[port].dial(host, port)

        endpoints = [
            PoolEndpoint(
                endpoint=Endpoint.compatible(f"http://127.0.0.1:{port}/v1"),
                api_key="any",
                rate_limiter=limiter,
            )
            for port, limiter in [(1, RateLimiter(requests_per_minute=1)), (2, None)]
        ]
        common = RateLimiter()
        async with open_pool(endpoints=endpoints, dial=dial, rate_limiter=common) as pool:
            await ask(pool, "hi")
            first.fail("insufficient_quota", status=429)
            await ask(pool, "moves after a minute")
            assert trio.current_time() == 60
            await ask(pool, "hi")
    assert common.statistics().requests == 2


@pytest.mark.parametrize(("refuses", "counted"), [("quota", 1), ("key", 0)])
async def test_a_turn_that_moves_takes_tokens_of_its_last_endpoint_alone(
    refuses: str, counted: int
) -> None:
    async with open_test_server() as first, open_test_server() as second:

        async def dial(host: str, port: int) -> trio.abc.Stream:
            return await {1: first, 2: second}[port].dial(host, port)

        limiters = [RateLimiter(tokens_per_minute=1e6) for _ in range(2)]
        endpoints = [
            PoolEndpoint(
                endpoint=Endpoint.compatible(f"http://127.0.0.1:{port}/v1"),
                api_key="any",
                rate_limiter=limiter,
            )
            for port, limiter in enumerate(limiters, 1)
        ]
        if refuses == "quota":
            first.fail("insufficient_quota", status=429)
        else:
            first.refuse(401, times=None)
        async with open_pool(endpoints=endpoints, dial=dial) as pool:
            await ask(pool, "hi")
            used = pool.statistics().input_tokens + pool.statistics().output_tokens
        of_first, of_second = (limiter.statistics() for limiter in limiters)
    assert (of_first.requests, of_first.tokens_available) == (counted, 1e6)
    assert (of_second.requests, of_second.tokens_available) == (1, 1e6 - used)
    assert used > 0


async def test_a_limiter_of_an_endpoint_is_checked() -> None:
    endpoint = PoolEndpoint(endpoint=Endpoint.openai(), api_key="k", rate_limiter=60)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    with pytest.raises(ConfigurationError, match="rate_limiter must be"):
        async with open_pool(endpoints=[endpoint]):
            pytest.fail("the block began")  # pragma: no cover
