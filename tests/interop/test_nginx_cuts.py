"""Tests of the client through an nginx that closes idle sockets, stalls, reloads or dies.

nginx measures its time limits in real time. A test that needs such a limit to pass waits longer; no
test needs to be faster than a limit by less than a second.
"""

from __future__ import annotations

import socket
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trio

from tests.interop.nginx import (
    MODEL,
    CountingDialer,
    last_rejection,
    listen,
    location,
    nginx_starter,
    open_through,
    run_turn,
)
from tests.interop.programs import HANG_GUARD
from tests.transport.proxies import without_environment
from trio_responses import ConnectionLost, ConnectionRestored, DeliveryStatus, Keepalive, Timeouts

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterator
    from pathlib import Path

    from tests.interop.nginx import NginxStarter
    from tests.interop.programs import Program
    from trio_responses import ResponsesConnection, ResponseStream
    from trio_responses.testing import Request, ResponsesServer

IDLE_SECONDS = 3.0
"""The time without data from the server until nginx closes a socket."""
IDLE_LIMIT = f"proxy_read_timeout {IDLE_SECONDS:.0f}s;"
FREQUENT_PINGS = Keepalive(interval=IDLE_SECONDS / 10)


@pytest.fixture
def start_nginx(
    start: Callable[..., Program], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[NginxStarter]:
    without_environment(monkeypatch)
    with nginx_starter(start, tmp_path) as starter:
        yield starter


# --- Unreachable and slow servers -----------------------------------------------------------


@pytest.fixture
def full_port() -> Iterator[int]:
    """Yield a port whose queue of incoming connections is full."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        address = listener.getsockname()
        waiting = [socket.socket() for _ in range(4)]
        for one in waiting:
            one.settimeout(0)
            one.connect_ex(address)
        yield address[1]
        for one in waiting:
            one.close()


async def test_an_unreachable_server_is_a_504_that_is_retried(
    full_port: int, start_nginx: NginxStarter
) -> None:
    upstream = f"http://127.0.0.1:{full_port}"
    nginx = start_nginx(location(upstream, "proxy_connect_timeout 300ms;"))
    dialer = CountingDialer()
    error = await last_rejection(nginx.url, reconnect=[0.01], dial=dialer)
    assert error.status == 504
    assert error.retryable
    assert b"504 Gateway Time-out" in error.body
    assert dialer.count == 2


@pytest.mark.parametrize("status", [502, 504])
async def test_a_handshake_that_the_server_does_not_answer_is_retried(
    status: int, server: ResponsesServer, start_nginx: NginxStarter
) -> None:
    def ignore_next_handshake() -> None:
        if status == 502:
            server.drop_handshake()
        else:
            server.hang_handshake()

    nginx = start_nginx(location(await listen(server), "proxy_read_timeout 2s;"))
    ignore_next_handshake()
    assert (await last_rejection(nginx.url)).status == status
    ignore_next_handshake()
    dialer = CountingDialer()
    async with open_through(nginx.url, dial=dialer) as connection:
        assert dialer.count == 2
        assert await run_turn(connection)


async def test_a_client_whose_time_limit_ends_before_that_of_nginx_retries(
    server: ResponsesServer, start_nginx: NginxStarter
) -> None:
    server.hang_handshake()
    nginx = start_nginx(location(await listen(server)))
    dialer = CountingDialer()
    async with open_through(nginx.url, timeouts=Timeouts(connect=2.0), dial=dialer) as connection:
        assert dialer.count == 2
        assert await run_turn(connection)


# --- Idle sockets ---------------------------------------------------------------------------


async def test_an_idle_socket_that_nginx_closes_is_replaced(
    server: ResponsesServer, start_nginx: NginxStarter
) -> None:
    nginx = start_nginx(location(await listen(server), IDLE_LIMIT))
    async with open_through(nginx.url) as connection:
        with trio.move_on_after(0):
            await connection.receive()  # from here on, the channel receives notifications
        assert await run_turn(connection)
        with trio.fail_after(HANG_GUARD):
            lost = await connection.receive()
            assert isinstance(lost, ConnectionLost)
            assert (lost.code, lost.delivery) == (1006, None)
            assert lost.age > IDLE_SECONDS * 0.9
            assert isinstance(await connection.receive(), ConnectionRestored)
        assert await run_turn(connection)
        assert connection.statistics().sockets_opened == 2
    assert len(server.requests) == 2


async def test_pings_keep_an_idle_socket_open(
    server: ResponsesServer, start_nginx: NginxStarter
) -> None:
    nginx = start_nginx(location(await listen(server), IDLE_LIMIT))
    async with open_through(nginx.url, keepalive=FREQUENT_PINGS) as connection:
        await trio.sleep(IDLE_SECONDS * 1.5)
        assert await run_turn(connection)
        assert connection.statistics().sockets_opened == 1
    assert len(server.connections) == 1


async def test_pings_keep_the_socket_of_a_stalled_turn_open(
    server: ResponsesServer, start_nginx: NginxStarter
) -> None:
    nginx = start_nginx(location(await listen(server), IDLE_LIMIT))
    server.stall(after_events=2, seconds=IDLE_SECONDS * 1.5)
    async with open_through(nginx.url, keepalive=FREQUENT_PINGS) as connection:
        assert await run_turn(connection)
        assert connection.statistics().sockets_opened == 1


async def test_a_stalled_turn_whose_socket_is_closed_has_its_delivery_status(
    server: ResponsesServer, start_nginx: NginxStarter
) -> None:
    nginx = start_nginx(location(await listen(server), IDLE_LIMIT))
    server.stall(after_events=2)
    async with open_through(nginx.url) as connection:
        with pytest.raises(ConnectionLost) as caught:
            await run_turn(connection)
        assert caught.value.delivery is DeliveryStatus.ACCEPTED
        assert len(server.requests) == 1
        server.stall()
        with pytest.raises(ConnectionLost) as caught:
            await run_turn(connection)
        assert caught.value.delivery is DeliveryStatus.AMBIGUOUS
        assert len(server.requests) == 2


# --- Reloads and restarts of nginx ----------------------------------------------------------


@asynccontextmanager
async def started_turn(stream: ResponseStream) -> AsyncGenerator[ResponseStream, None]:
    """Read the first event of a turn before the block and the other events after the block."""
    with trio.fail_after(HANG_GUARD):
        async with stream:
            await anext(stream)
            yield stream
            async for _ in stream:
                pass


async def test_a_reload_interrupts_no_turn(
    server: ResponsesServer, start_nginx: NginxStarter
) -> None:
    nginx = start_nginx(location(await listen(server)))
    reloaded = trio.Event()
    server.reply("slowly").hold(reloaded, after_events=2)
    async with open_through(nginx.url) as connection:
        async with started_turn(connection.stream(model=MODEL, input="hi")) as stream:
            await nginx.reload()
            async with open_through(nginx.url) as second:
                assert await run_turn(second)
            reloaded.set()
        assert stream.response.output_text == "slowly"
        assert await run_turn(connection)
        assert connection.statistics().sockets_opened == 1


async def lose_started_turn(connection: ResponsesConnection, cut: Callable[[], object]) -> None:
    """Start a turn, cut its socket and expect that the turn is lost."""
    with pytest.raises(ConnectionLost) as caught:
        async with started_turn(connection.stream(model=MODEL, input="hi")):
            cut()
    assert caught.value.delivery is DeliveryStatus.ACCEPTED


async def test_a_reload_that_closes_open_sockets_loses_their_turns(
    server: ResponsesServer, start_nginx: NginxStarter
) -> None:
    close_sockets = "worker_shutdown_timeout 300ms;"
    nginx = start_nginx(location(await listen(server)), main=close_sockets)
    async with open_through(nginx.url) as connection, trio.open_nursery() as nursery:
        server.stall(after_events=3)
        await lose_started_turn(connection, lambda: nursery.start_soon(nginx.reload))
        assert await run_turn(connection)
        assert connection.statistics().sockets_opened == 2


async def test_the_next_turn_runs_through_the_nginx_that_replaces_a_killed_one(
    server: ResponsesServer, start_nginx: NginxStarter
) -> None:
    nginx = start_nginx(location(await listen(server)))
    dialer = CountingDialer()
    async with open_through(nginx.url, dial=dialer) as connection, trio.open_nursery() as nursery:
        server.stall(after_events=3)
        await lose_started_turn(connection, nginx.kill)
        await dialer.wait_for_count(4)
        nursery.start_soon(trio.to_thread.run_sync, nginx.start_again)
        assert await run_turn(connection)
        assert connection.statistics().sockets_opened == 2
    assert len(server.requests) == 2


async def test_a_turn_that_may_run_twice_is_sent_again_after_nginx_is_killed(
    server: ResponsesServer, start_nginx: NginxStarter
) -> None:
    nginx = start_nginx(location(await listen(server)))
    async with open_through(nginx.url) as connection, trio.open_nursery() as nursery:

        def kill_during_first(request: Request) -> str:
            if request.connection == 1:
                nginx.kill()
                nursery.start_soon(trio.to_thread.run_sync, nginx.start_again)
            return f"by connection {request.connection}"

        server.respond_with(kill_during_first)
        assert await run_turn(connection, delivery="at_least_once") == "by connection 2"
    assert [request.connection for request in server.requests] == [1, 2]


async def test_a_conversation_continues_after_nginx_is_killed(
    server: ResponsesServer, start_nginx: NginxStarter
) -> None:
    """The lost turn is not in the history; the new socket receives the full history."""
    nginx = start_nginx(location(await listen(server)))
    async with (
        open_through(nginx.url) as connection,
        connection.conversation(model=MODEL, store=False) as conversation,
    ):
        await conversation.create("one")
        await conversation.create("two")
        server.stall(after_events=3)
        with pytest.raises(ConnectionLost) as caught:
            async with started_turn(conversation.stream("lost")):
                nginx.kill()
        assert caught.value.delivery is DeliveryStatus.ACCEPTED
        await trio.to_thread.run_sync(nginx.start_again)
        with trio.fail_after(HANG_GUARD):
            await conversation.create("three")
    deltas = [request.get("previous_response_id") is not None for request in server.requests]
    assert deltas == [False, True, True, False]
    history = repr(server.requests[-1].history)
    words = ("one", "two", "lost", "three")
    assert [word in history for word in words] == [True, True, False, True]
