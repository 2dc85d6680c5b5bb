"""`connection.is_healthy()`: whether a request that is made now can be sent."""

from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from trio_responses import (
    ConnectionState,
    ReconnectFailed,
    ResponsesConnection,
    ResponsesError,
    RotationPolicy,
)
from trio_responses.testing import ResponsesServer, open_test_server

if TYPE_CHECKING:
    from tests.connection.conftest import Connect

MODEL = "m"


async def test_an_open_connection_is_healthy_until_it_is_closed(connect: "Connect") -> None:
    async with connect() as connection:
        assert connection.is_healthy()
        await connection.create(model=MODEL, input="hi")
        assert connection.is_healthy()
        await connection.aclose()
        assert not connection.is_healthy()
    assert not connection.is_healthy()


async def test_a_lost_socket_is_unhealthy_once_an_attempt_to_replace_it_has_failed(
    server: ResponsesServer, connect: "Connect"
) -> None:
    async with connect() as connection:
        server.stop_accepting()
        await server.reset_all()
        await wait_all_tasks_blocked()
        assert connection.state is ConnectionState.RECONNECTING
        assert connection.is_healthy()  # the first attempt is made after 1 s
        await trio.sleep(1.5)
        assert not connection.is_healthy()
        server.accept_again()
        await connection.wait_open()
        assert connection.is_healthy()


async def test_sockets_that_are_lost_again_before_any_use_are_unhealthy(
    server: ResponsesServer, connect: "Connect"
) -> None:
    async with connect() as connection:
        await server.reset_all()
        await trio.sleep(1.5)
        assert connection.is_healthy()
        await server.reset_all()
        await wait_all_tasks_blocked()
        assert not connection.is_healthy()
        await connection.create(model=MODEL, input="of use")
        await server.reset_all()
        await wait_all_tasks_blocked()
        assert connection.state is ConnectionState.RECONNECTING
        assert connection.is_healthy()


async def test_a_rotation_that_fails_leaves_the_connection_healthy(
    server: ResponsesServer, connect: "Connect"
) -> None:
    rotation = RotationPolicy(max_age=10, stagger=0)
    async with connect(rotation=rotation) as connection:
        server.stop_accepting()
        await trio.sleep(11)
        assert connection.state is ConnectionState.OPEN
        assert connection.is_healthy()


async def test_a_connection_that_has_given_up_is_unhealthy(
    server: ResponsesServer, connect: "Connect"
) -> None:
    async with connect() as connection:
        server.stop_accepting()
        await server.reset_all()
        await wait_all_tasks_blocked()
        with pytest.raises(ReconnectFailed):
            await connection.wait_open()
        assert not connection.is_healthy()


async def test_over_http_a_connection_is_healthy_unless_requests_wait_to_connect(
    server: ResponsesServer, connect: "Connect"
) -> None:
    async def ask() -> None:
        with pytest.raises(ResponsesError):
            await connection.create(model=MODEL, input="hi")

    async with connect(transport="http") as connection, trio.open_nursery() as nursery:
        assert connection.is_healthy()
        await connection.create(model=MODEL, input="hi")
        server.stop_accepting()
        assert connection.is_healthy()
        await server.reset_all()  # the idle HTTP connection
        nursery.start_soon(ask)
        await trio.sleep(0.5)
        assert not connection.is_healthy()
        await trio.sleep(20)
        assert not connection.is_healthy()
        await trio.sleep(20)  # all attempts have failed: the next request tries again
        assert connection.is_healthy()


async def test_over_http_a_response_makes_a_connection_healthy_again(
    server: ResponsesServer, connect: "Connect"
) -> None:
    async with connect(transport="http") as connection, trio.open_nursery() as nursery:
        server.stop_accepting()
        nursery.start_soon(lambda: connection.create(model=MODEL, input="hi"))
        await trio.sleep(0.5)
        assert not connection.is_healthy()
        server.accept_again()
        await trio.sleep(1)
        assert connection.is_healthy()


async def test_the_fallback_to_http_is_healthy(server: ResponsesServer, connect: "Connect") -> None:
    server.refuse(404, times=None, over="websocket")
    async with connect(transport="auto") as connection:
        assert connection.statistics().transport == "http"
        assert connection.is_healthy()


def test_the_check_works_after_the_end_of_trio() -> None:
    """It never raises: a probe in a thread may come at any time."""

    async def main() -> ResponsesConnection:
        async with open_test_server() as server, server.open_client(transport="http") as client:
            return client

    assert not trio.run(main).is_healthy()
