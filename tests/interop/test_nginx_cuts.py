"""P2, P4, P7: our client and our server, with an nginx between them that cuts, stalls or restarts.

The tests run in real time, since nginx does.

What belongs elsewhere: how nginx is run (`nginx.py`), what it refuses (`test_nginx.py`), the same
cuts without a second to wait (`tests/connection`).
"""

from __future__ import annotations

import socket
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trio

from tests.interop.nginx import (
    MODEL,
    PATIENCE,
    Dials,
    failed,
    listen,
    location,
    nginx_for_a_test,
    open_through,
    turn,
)
from tests.transport.proxies import without_environment
from trio_responses import ConnectionLost, ConnectionRestored, DeliveryStatus, Keepalive, Timeouts

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterator
    from pathlib import Path

    from tests.interop.nginx import Starter
    from tests.interop.programs import Program
    from trio_responses import ResponsesConnection, ResponseStream
    from trio_responses.testing import Request, ResponsesServer

IDLE = "proxy_read_timeout 1s;"
OFTEN = Keepalive(interval=0.3)


@pytest.fixture
def start_nginx(
    start: Callable[..., Program], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Starter]:
    without_environment(monkeypatch)
    with nginx_for_a_test(start, tmp_path) as starter:
        yield starter


# --- A server that is not there, or slow --------------------------------------------------


@pytest.fixture
def deaf_port() -> Iterator[int]:
    """Listen on a port, with a queue so full that nobody else gets in."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        address = listener.getsockname()
        waiting = [socket.socket() for _ in range(4)]
        for one in waiting:
            one.settimeout(0)
            one.connect_ex(address)
        yield address[1]
        for one in waiting:
            one.close()


async def test_a_server_that_cannot_be_connected_to_is_a_504(
    deaf_port: int, start_nginx: Starter
) -> None:
    upstream = f"http://127.0.0.1:{deaf_port}"
    nginx = start_nginx(location(upstream, "proxy_connect_timeout 300ms;"))
    dials = Dials()
    error = await failed(nginx.url, reconnect=[0.01], dial=dials)
    assert error.status == 504
    assert error.retryable
    assert b"504 Gateway Time-out" in error.body
    assert dials.count == 2


@pytest.mark.parametrize("status", [502, 504])
async def test_a_handshake_that_the_server_leaves_unanswered_is_tried_again(
    status: int, server: ResponsesServer, start_nginx: Starter
) -> None:
    def leave_unanswered() -> None:
        if status == 502:
            server.drop_handshake()
        else:
            server.hang_handshake()

    nginx = start_nginx(location(await listen(server), "proxy_read_timeout 300ms;"))
    leave_unanswered()
    assert (await failed(nginx.url)).status == status
    leave_unanswered()
    dials = Dials()
    async with open_through(nginx.url, dial=dials) as connection:
        assert dials.count == 2
        assert await turn(connection)


async def test_a_client_with_less_patience_than_nginx_tries_again(
    server: ResponsesServer, start_nginx: Starter
) -> None:
    server.hang_handshake()
    nginx = start_nginx(location(await listen(server)))
    dials = Dials()
    async with open_through(nginx.url, timeouts=Timeouts(connect=0.5), dial=dials) as connection:
        assert dials.count == 2
        assert await turn(connection)


# --- Idle ---------------------------------------------------------------------------------


async def test_an_idle_socket_that_nginx_cuts_is_replaced(
    server: ResponsesServer, start_nginx: Starter
) -> None:
    nginx = start_nginx(location(await listen(server), IDLE))
    async with open_through(nginx.url) as connection:
        with trio.move_on_after(0):
            await connection.receive()  # from now on the channel tells what happens
        assert await turn(connection)
        with trio.fail_after(PATIENCE):
            cut = await connection.receive()
            assert isinstance(cut, ConnectionLost)
            assert (cut.code, cut.delivery) == (1006, None)
            assert 0.9 < cut.age < 3.0
            assert isinstance(await connection.receive(), ConnectionRestored)
        assert await turn(connection)
        assert connection.statistics().sockets_opened == 2
    assert len(server.requests) == 2


async def test_pings_keep_an_idle_socket(server: ResponsesServer, start_nginx: Starter) -> None:
    nginx = start_nginx(location(await listen(server), IDLE))
    async with open_through(nginx.url, keepalive=OFTEN) as connection:
        await trio.sleep(1.8)
        assert await turn(connection)
        assert connection.statistics().sockets_opened == 1
    assert len(server.connections) == 1


async def test_pings_keep_a_turn_that_thinks_for_long(
    server: ResponsesServer, start_nginx: Starter
) -> None:
    nginx = start_nginx(location(await listen(server), IDLE))
    server.stall(after_events=2, seconds=1.8)
    async with open_through(nginx.url, keepalive=OFTEN) as connection:
        assert await turn(connection)
        assert connection.statistics().sockets_opened == 1


async def test_a_turn_that_is_cut_while_it_thinks_says_how_far_it_came(
    server: ResponsesServer, start_nginx: Starter
) -> None:
    nginx = start_nginx(location(await listen(server), IDLE))
    server.stall(after_events=2)
    async with open_through(nginx.url) as connection:
        with pytest.raises(ConnectionLost) as caught:
            await turn(connection)
        assert caught.value.delivery is DeliveryStatus.ACCEPTED
        assert len(server.requests) == 1
        server.stall()
        with pytest.raises(ConnectionLost) as caught:
            await turn(connection)
        assert caught.value.delivery is DeliveryStatus.AMBIGUOUS
        assert len(server.requests) == 2


# --- nginx comes and goes -----------------------------------------------------------------


@asynccontextmanager
async def under_way(stream: ResponseStream) -> AsyncGenerator[ResponseStream, None]:
    """Run a turn whose first event has come, and read on to its end when the block is done."""
    with trio.fail_after(PATIENCE):
        async with stream:
            await anext(stream)
            yield stream
            async for _ in stream:
                pass


async def test_a_reload_disturbs_nobody(server: ResponsesServer, start_nginx: Starter) -> None:
    nginx = start_nginx(location(await listen(server)))
    server.reply("slowly", chunk_size=1, delay=0.1)
    async with open_through(nginx.url) as connection:
        async with under_way(connection.stream(model=MODEL, input="hi")) as stream:
            await nginx.reload()
            async with open_through(nginx.url) as second:
                assert await turn(second)
        assert stream.response.output_text == "slowly"
        assert await turn(connection)
        assert connection.statistics().sockets_opened == 1


async def lose_a_turn(connection: ResponsesConnection, cut: Callable[[], object]) -> None:
    """Have a turn cut that has begun."""
    with pytest.raises(ConnectionLost) as caught:
        async with under_way(connection.stream(model=MODEL, input="hi")):
            cut()
    assert caught.value.delivery is DeliveryStatus.ACCEPTED


async def test_a_reload_that_does_not_wait_for_its_sockets_is_a_cut(
    server: ResponsesServer, start_nginx: Starter
) -> None:
    hurried = "worker_shutdown_timeout 300ms;"
    nginx = start_nginx(location(await listen(server)), main=hurried)
    async with open_through(nginx.url) as connection, trio.open_nursery() as nursery:
        server.stall(after_events=3)
        await lose_a_turn(connection, lambda: nursery.start_soon(nginx.reload))
        assert await turn(connection)
        assert connection.statistics().sockets_opened == 2


async def test_turns_go_on_through_the_next_nginx_where_one_has_died(
    server: ResponsesServer, start_nginx: Starter
) -> None:
    nginx = start_nginx(location(await listen(server)))
    dials = Dials()
    async with open_through(nginx.url, dial=dials) as connection, trio.open_nursery() as nursery:
        server.stall(after_events=3)
        await lose_a_turn(connection, nginx.kill)
        await dials.reach(4)
        nursery.start_soon(trio.to_thread.run_sync, nginx.start_again)
        assert await turn(connection)
        assert connection.statistics().sockets_opened == 2
    assert len(server.requests) == 2


async def test_a_turn_that_may_run_twice_survives_the_nginx_that_it_went_through(
    server: ResponsesServer, start_nginx: Starter
) -> None:
    nginx = start_nginx(location(await listen(server)))
    async with open_through(nginx.url) as connection, trio.open_nursery() as nursery:

        def kill_the_first(request: Request) -> str:
            if request.connection == 1:
                nginx.kill()
                nursery.start_soon(trio.to_thread.run_sync, nginx.start_again)
            return f"by connection {request.connection}"

        server.respond_with(kill_the_first)
        assert await turn(connection, delivery="at_least_once") == "by connection 2"
    assert [request.connection for request in server.requests] == [1, 2]


async def test_a_conversation_outlives_the_nginx_that_it_went_through(
    server: ResponsesServer, start_nginx: Starter
) -> None:
    """What was lost leaves no trace, and a new socket is given all of the rest."""
    nginx = start_nginx(location(await listen(server)))
    async with (
        open_through(nginx.url) as connection,
        connection.conversation(model=MODEL, store=False) as conversation,
    ):
        await conversation.create("one")
        await conversation.create("two")
        server.stall(after_events=3)
        with pytest.raises(ConnectionLost) as caught:
            async with under_way(conversation.stream("lost")):
                nginx.kill()
        assert caught.value.delivery is DeliveryStatus.ACCEPTED
        await trio.to_thread.run_sync(nginx.start_again)
        with trio.fail_after(PATIENCE):
            await conversation.create("three")
    deltas = [request.get("previous_response_id") is not None for request in server.requests]
    assert deltas == [False, True, True, False]
    shown = repr(server.requests[-1].history)
    assert [word in shown for word in ("one", "two", "lost", "three")] == [True, True, False, True]
