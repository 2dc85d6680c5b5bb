"""`pool.is_healthy()`: at least one connection can take requests, and the pool takes them."""

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.pool.rig import ask, open_all_connections, open_to
from trio_responses import Endpoint, PoolEndpoint, ResponsesError, open_pool
from trio_responses.testing import ResponsesServer, open_test_server


async def test_a_pool_is_healthy_until_it_is_closed(server: ResponsesServer) -> None:
    async with open_to(server) as pool:
        assert pool.is_healthy()
        await ask(pool, "hi")
        assert pool.is_healthy()
        await pool.aclose()
        assert not pool.is_healthy()
    assert not pool.is_healthy()


async def test_one_healthy_connection_is_enough(server: ResponsesServer) -> None:
    async with open_to(server, size=2, per_connection=1) as pool:
        await open_all_connections(pool, 2)
        await server.close_all(4000)  # both end
        await wait_all_tasks_blocked()
        assert pool.connections == ()
        assert not pool.is_healthy()
        await ask(pool, "hi")  # opens one
        assert pool.is_healthy()


async def test_a_pool_without_a_server_is_unhealthy_while_it_tries(server: ResponsesServer) -> None:
    async with open_to(server) as pool:
        server.stop_accepting()
        await server.reset_all()
        await trio.sleep(1.5)
        assert not pool.is_healthy()
        server.accept_again()
        await trio.sleep(3)
        assert pool.is_healthy()


async def test_a_pool_that_lost_its_last_connection_asks_for_a_request_after_a_pause(
    server: ResponsesServer,
) -> None:
    """A probe that stayed negative would keep away the request that opens the next connection."""
    async with open_to(server) as pool:
        server.stop_accepting()
        await server.reset_all()
        await trio.sleep(31.5)
        assert pool.connections == ()
        assert not pool.is_healthy()
        await trio.sleep(15)
        assert not pool.is_healthy()
        await trio.sleep(1)
        assert pool.is_healthy()
        with pytest.raises(ResponsesError):
            await ask(pool, "hi")
        assert not pool.is_healthy()


async def test_the_endpoint_in_use_decides() -> None:
    async with open_test_server() as first, open_test_server() as second:

        async def dial(host: str, port: int) -> trio.abc.Stream:
            return await {1: first, 2: second}[port].dial(host, port)

        endpoints = [
            PoolEndpoint(endpoint=Endpoint.compatible(f"http://127.0.0.1:{port}/v1"), api_key="any")
            for port in (1, 2)
        ]
        async with open_pool(endpoints=endpoints, dial=dial) as pool:
            first.fail("insufficient_quota", status=429)
            await ask(pool, "hi")
            assert pool.statistics().failovers == 1
            assert pool.is_healthy()
            second.stop_accepting()
            await second.reset_all()
            await trio.sleep(2)
            assert pool.connections[0].is_healthy()  # of the endpoint that refuses turns
            assert not pool.is_healthy()
