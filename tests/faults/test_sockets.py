"""Some cells of the matrix over real sockets, with TCP resets and ends and TLS alerts."""

from __future__ import annotations

import math
import os
import socket
import ssl
import struct
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final, cast

import pytest
import trio
import trustme
from trio.testing import MockClock

from tests.client_tasks import IDLE_TASKS, client_tasks
from tests.faults.rig import A_LONG_TIME
from tests.faults.servers import FakeNet, ServerPeer, answer_to
from tests.testing.driver import OVER_SOCKETS
from tests.transport.peer import CLIENT_HAS_LEFT, close
from tests.transport.proxies import Directory, server_context, trusting
from trio_responses import (
    ConnectError,
    ConnectionLost,
    ConnectTimeout,
    DeliveryStatus,
    FirstEventTimeout,
    Keepalive,
    KeepaliveTimeout,
    ReconnectFailed,
    RequestTooLarge,
    Timeouts,
    open_responses,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable
    from contextlib import AbstractAsyncContextManager

    from trio_responses import ResponsesConnection

pytestmark = OVER_SOCKETS

TIMEOUTS: Final = Timeouts(connect=15.0, send=30.0, first_event=60.0, stall=600.0, close=5.0)
NO_PINGS: Final = Keepalive(interval=math.inf)


async def rest(_: ServerPeer) -> None:
    await trio.lowlevel.checkpoint()


def tcp_reset(stream: trio.abc.Stream) -> None:
    """Send a RST, by closing without lingering."""
    assert isinstance(stream, trio.SocketStream)
    stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    stream.socket.close()


class LocalServer:
    """A port of 127.0.0.1 whose first socket has a fault; the later ones have none."""

    def __init__(self, net: FakeNet, play: Callable[[ServerPeer], Awaitable[object]]) -> None:
        self._site = net
        self._play = play
        self.peers: list[ServerPeer] = []
        self.port = 0

    async def run(self, stream: trio.abc.Stream, below: trio.abc.Stream | None = None) -> None:
        peer = ServerPeer(stream, self._site, len(self.peers) + 1)
        peer.wire = below or stream
        self.peers.append(peer)
        with suppress(*CLIENT_HAS_LEFT):
            await peer.accept()
            if len(self.peers) == 1:
                await self._play(peer)
            await peer.serve()
        await trio.aclose_forcefully(stream)

    def open_client(self, **options: Any) -> AbstractAsyncContextManager[ResponsesConnection]:
        settings: dict[str, Any] = {
            "base_url": f"ws://127.0.0.1:{self.port}/v1",
            "timeouts": TIMEOUTS,
            "keepalive": NO_PINGS,
            "reconnect": [1],
            "proxy": False,
            "transport": "websocket",
        }
        return open_responses(api_key="", **{**settings, **options})


@asynccontextmanager
async def open_local_server(
    play: Callable[[ServerPeer], Awaitable[object]] = rest, context: ssl.SSLContext | None = None
) -> AsyncGenerator[LocalServer, None]:
    async with trio.open_nursery() as nursery:
        local = LocalServer(FakeNet(nursery, "plain", None, "websocket"), play)

        async def run(stream: trio.SocketStream) -> None:
            if context is None:
                await local.run(stream)
            else:
                secured = trio.SSLStream(stream, context, server_side=True, https_compatible=True)
                with suppress(*CLIENT_HAS_LEFT):
                    await secured.do_handshake()
                    await local.run(secured, stream)
                await trio.aclose_forcefully(secured)

        (listener,) = await nursery.start(partial(trio.serve_tcp, run, 0, host="127.0.0.1"))
        local.port = listener.socket.getsockname()[1]
        with trio.fail_after(A_LONG_TIME):
            yield local
        nursery.cancel_scope.cancel()


async def lose(
    local: LocalServer, error: type[ConnectionLost], delivery: DeliveryStatus, **options: Any
) -> ConnectionLost:
    """Lose a turn, run the next one on the next socket, and close in time."""
    async with local.open_client(**options) as connection:
        with pytest.raises(error) as failure:
            await connection.create(model="m", input="this one")
        assert type(failure.value) is error
        assert failure.value.delivery is delivery
        response = await connection.create(model="m", input="next")
        assert response.output_text == answer_to("next")
        assert len(local.peers) == 2
        left_at = trio.current_time()
    assert trio.current_time() - left_at <= TIMEOUTS.close
    return failure.value


@pytest.mark.parametrize("begun", [False, True])
async def test_a_reset_costs_the_turn_and_not_the_connection(*, begun: bool) -> None:
    async def play(peer: ServerPeer) -> None:
        await peer.read_command()
        if begun:
            await peer.begin()
            await trio.sleep(1)
        tcp_reset(peer.stream)

    delivery = DeliveryStatus.ACCEPTED if begun else DeliveryStatus.AMBIGUOUS
    async with open_local_server(play) as local:
        lost = await lose(local, ConnectionLost, delivery)
    assert lost.code == 1006


async def test_a_fin_costs_the_turn_and_not_the_connection() -> None:
    async def play(peer: ServerPeer) -> None:
        await peer.read_command()
        await peer.begin()
        assert isinstance(peer.stream, trio.SocketStream)
        await peer.stream.send_eof()

    async with open_local_server(play) as local:
        lost = await lose(local, ConnectionLost, DeliveryStatus.ACCEPTED)
    assert lost.code == 1006


async def test_a_half_open_socket_is_noticed_by_the_keepalive() -> None:
    async def play(peer: ServerPeer) -> None:
        await peer.read_command()
        await peer.begin()
        await trio.sleep_forever()

    async with open_local_server(play) as local:
        await lose(
            local,
            KeepaliveTimeout,
            DeliveryStatus.ACCEPTED,
            keepalive=Keepalive(interval=20, timeout=20),
        )


async def test_slow_bytes_are_waited_for() -> None:
    async def play(peer: ServerPeer) -> None:
        await peer.read_command()
        frames = peer.encode(*peer.events())
        for start in range(0, len(frames), step := len(frames) // 9):
            await peer.send(frames[start : start + step])
            await trio.sleep(TIMEOUTS.first_event / 9)

    async with open_local_server(play) as local, local.open_client() as connection:
        response = await connection.create(model="m", input="this one")
        assert response.output_text == answer_to("this one")
        await connection.create(model="m", input="next")
        assert len(local.peers) == 1


@pytest.mark.parametrize("begun", [False, True])
async def test_a_program_that_did_not_run_for_an_hour_finds_its_answer(*, begun: bool) -> None:
    """P3: the answer is there to be read, so the turn is not overdue."""
    clock = trio.lowlevel.current_clock()
    assert isinstance(clock, MockClock)

    async def play(peer: ServerPeer) -> None:
        await peer.read_command()
        events = peer.events()
        if begun:
            await peer.send(peer.encode(events[0]))
            await trio.sleep(1)
        assert isinstance(peer.stream, trio.SocketStream)
        os.write(peer.stream.socket.fileno(), peer.encode(*events[begun:]))
        clock.jump(3600)

    for _ in range(8):  # Trio wakes tasks in random order
        async with open_local_server(play) as local, local.open_client() as connection:
            response = await connection.create(model="m", input="this one")
            assert response.output_text == answer_to("this one")


async def test_a_server_that_does_not_answer_is_given_up() -> None:
    async def play(peer: ServerPeer) -> None:
        await peer.read_command()

    async with open_local_server(play) as local, local.open_client() as connection:
        with pytest.raises(FirstEventTimeout) as failure:
            await connection.create(model="m", input="this one")
        assert failure.value.delivery is DeliveryStatus.AMBIGUOUS
        await connection.create(model="m", input="next")
        assert len(local.peers) == 2


async def test_a_close_with_1009_before_the_request_is_read_refuses_it() -> None:
    """The close frame and a RST come together, while the request is being written."""

    async def play(peer: ServerPeer) -> None:
        await peer.wait_written()
        await peer.send(close(1009))
        tcp_reset(peer.stream)

    async with open_local_server(play) as local, local.open_client() as connection:
        with pytest.raises(RequestTooLarge) as failure:
            await connection.create(model="m", input="x" * 15_000_000)
        assert failure.value.delivery is DeliveryStatus.REJECTED
        assert failure.value.size > 15_000_000
        await connection.create(model="m", input="next")
        assert len(local.peers) == 2


async def test_a_refused_port_is_tried_as_often_as_the_policy_says() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"ws://127.0.0.1:{unused.getsockname()[1]}/v1"
        with pytest.raises(ReconnectFailed) as failure:
            async with open_responses(url, api_key="", reconnect=[1, 1], proxy=False):
                pytest.fail("it opened")
    assert failure.value.attempts == 2
    assert type(failure.value.__cause__) is ConnectError


async def test_an_unknown_host_is_tried_as_often_as_the_policy_says() -> None:
    directory = Directory()
    with pytest.raises(ReconnectFailed) as failure:
        async with open_responses(
            "ws://nowhere.test/v1",
            api_key="",
            reconnect=[1, 1],
            proxy=False,
            allow_insecure=True,
        ):
            pytest.fail("it opened")
    assert directory.asked == ["nowhere.test"] * 3
    assert type(failure.value.__cause__) is ConnectError


async def test_a_port_that_accepts_and_never_answers_is_given_up() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = f"ws://127.0.0.1:{silent.getsockname()[1]}/v1"
        with pytest.raises(ReconnectFailed) as failure:
            async with open_responses(
                url,
                api_key="",
                reconnect=[],
                proxy=False,
                timeouts=TIMEOUTS,
                transport="websocket",
            ):
                pytest.fail("it opened")
    assert type(failure.value.__cause__) is ConnectTimeout


# --- TLS --------------------------------------------------------------------------------------


AUTHORITY: Final = trustme.CA()


async def test_a_certificate_that_is_not_trusted_is_not_tried_again() -> None:
    async with open_local_server(context=server_context(trustme.CA(), "127.0.0.1")) as local:
        url = f"wss://127.0.0.1:{local.port}/v1"
        with pytest.raises(ConnectError) as failure:
            async with local.open_client(base_url=url, ssl_context=trusting(AUTHORITY)):
                pytest.fail("it opened")
        assert type(failure.value) is ConnectError
        assert not failure.value.retryable
        assert not local.peers


@pytest.mark.parametrize("secure", [True, False])
async def test_an_idle_connection_has_three_tasks_over_sockets(*, secure: bool) -> None:
    context = server_context(AUTHORITY, "127.0.0.1") if secure else None
    async with open_local_server(rest, context=context) as local:
        url = f"{'wss' if secure else 'ws'}://127.0.0.1:{local.port}/v1"
        trusted = trusting(AUTHORITY) if secure else None
        options: dict[str, Any] = {"base_url": url, "ssl_context": trusted}
        async with local.open_client(**options, keepalive=Keepalive(interval=20, timeout=20)):
            assert client_tasks() == IDLE_TASKS
            await trio.sleep(110.0)  # the server has answered five pings
            assert client_tasks() == IDLE_TASKS
        assert client_tasks() == []


async def test_an_alert_after_the_handshake_is_a_failed_attempt() -> None:
    """TLS 1.3: a server that misses a client's certificate sends an alert after the handshake."""
    context = server_context(AUTHORITY, "127.0.0.1")
    AUTHORITY.configure_trust(context)  # pyright: ignore[reportUnknownMemberType]
    context.verify_mode = ssl.CERT_REQUIRED
    async with open_local_server(context=context) as local:
        url = f"wss://127.0.0.1:{local.port}/v1"
        with pytest.raises(ReconnectFailed) as failure:
            async with local.open_client(base_url=url, ssl_context=trusting(AUTHORITY)):
                pytest.fail("it opened")
        assert type(failure.value.__cause__) is ConnectError
        assert not local.peers


async def test_bytes_that_are_no_tls_cost_the_turn_and_not_the_connection() -> None:
    async def play(peer: ServerPeer) -> None:
        await peer.read_command()
        await peer.begin()
        await trio.sleep(1)
        transport = cast("trio.SocketStream", peer.wire)
        await transport.send_all(b"\x17\x03\x03\x00\x20" + bytes(32))

    context = server_context(AUTHORITY, "127.0.0.1")
    async with open_local_server(play, context) as local:
        url = f"wss://127.0.0.1:{local.port}/v1"
        await lose(
            local,
            ConnectionLost,
            DeliveryStatus.ACCEPTED,
            base_url=url,
            ssl_context=trusting(AUTHORITY),
        )
