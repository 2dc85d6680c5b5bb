"""``transport="auto"``: when a connection goes over to HTTP, and when it comes back."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest
import trio
import trio.testing

from tests.connection.test_http_losses import failure
from tests.transport.http_peer import (
    Cut,
    HTTPPeer,
    Reset,
    connect_http,
    error,
    open_peer,
    refuse_with,
    scripts,
    serve_websocket,
    use_tls,
    whole,
)
from tests.transport.peer import assert_secret_kept
from trio_responses import (
    APIError,
    ConfigurationError,
    ConnectError,
    ConnectionLost,
    ConnectionState,
    ConnectTimeout,
    Instrument,
    ReconnectFailed,
    ReconnectPolicy,
    ResponsesError,
    Timeouts,
    TransportChanged,
    UpgradeUnsupported,
)

TWICE = ReconnectPolicy(attempts=2, jitter=0.0)

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from tests.transport.http_peer import (
        Exchange,
        Script,
    )
    from trio_responses import (
        ResponsesConnection,
    )
    from trio_responses.typing import Event


class Changes(Instrument):
    """An instrument that keeps the changes of the transport."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, type[BaseException] | None]] = []

    def transport_changed(self, transport: str, error: ResponsesError | None) -> None:
        self.seen.append((transport, None if error is None else type(error)))


def connect(peer: HTTPPeer, **options: Any) -> AbstractAsyncContextManager[ResponsesConnection]:
    options.setdefault("transport", "auto")
    return connect_http(peer, **options)


async def refused(peer: HTTPPeer, **options: Any) -> ResponsesError:
    """Return the exception of a connection that cannot be opened; nothing was sent over HTTP."""
    with pytest.raises(ResponsesError) as caught:
        async with connect(peer, **options):
            pass
    assert peer.requests == []
    assert_secret_kept(caught.value)
    return caught.value


async def text_of(connection: ResponsesConnection) -> str:
    return (await connection.create(model="m", input="hi")).output_text


# --- Over to HTTP ------------------------------------------------------------------------

PAGE = b"<html>no</html>"


@pytest.mark.parametrize(
    "answer",
    [
        whole(404),
        whole(404, error("Not found.")),
        whole(405, PAGE),
        whole(426, error("Upgrade required.")),
        whole(501),
        whole(400, PAGE),
        whole(403),
        whole(301, b"", "Location: https://elsewhere.test/"),
        whole(307, b"", "Location: /v1/responses/"),
    ],
    ids=lambda answer: answer[9:12].decode(),
)
async def test_a_server_without_websockets_is_used_over_http(answer: bytes) -> None:
    async with open_peer() as peer:
        peer.upgrade = refuse_with(answer)
        changes = Changes()
        async with connect(peer, instruments=[changes]) as connection:
            assert await text_of(connection) == "ok"
            assert trio.current_time() == 0
            assert len(peer.upgrades) == 1
            statistics = connection.statistics()
            assert (statistics.transport, statistics.http_requests) == ("http", 1)
            assert (statistics.state, statistics.sockets_opened) == (ConnectionState.OPEN, 0)
            assert changes.seen == [("http", UpgradeUnsupported)]


async def test_an_upgrade_without_an_answer_ends_after_five_seconds() -> None:
    async def silent(exchange: Exchange) -> None:
        await exchange.client_left()

    async with open_peer() as peer:
        peer.upgrade = silent
        changes = Changes()
        async with connect(peer, instruments=[changes]) as connection:
            assert await text_of(connection) == "ok"
            assert trio.current_time() == 5
            assert changes.seen == [("http", ConnectTimeout)]


async def test_turns_that_wait_for_the_upgrade_are_sent_over_http() -> None:
    async with open_peer() as peer, connect(peer) as connection:
        answers: list[str] = []

        async def ask() -> None:
            answers.append(await text_of(connection))

        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(ask)
        assert answers == ["ok"] * 5
        assert len(peer.upgrades) == 1


async def test_http_stays_in_use() -> None:
    async with open_peer() as peer, connect(peer, websocket_retry=None) as connection:
        for _ in range(5):
            assert await text_of(connection) == "ok"
            await trio.sleep(3000)
        assert len(peer.upgrades) == 1


# --- Not over to HTTP --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "attempts"),
    [
        (whole(401, error("Bad key.")), 1),
        (whole(401), 1),
        (whole(400, error("Bad header.")), 1),
        (whole(403, error("Not you.")), 1),
        (whole(403, PAGE, "WWW-Authenticate: Bearer"), 1),
        (whole(408), 3),
        (whole(425), 3),
        (whole(429, error("Slow down.", "rate_limit_exceeded")), 3),
        (whole(500), 3),
        (whole(502, PAGE), 3),
        (whole(503, error("Overloaded.")), 3),
        (whole(504), 3),
    ],
    ids=lambda value: value[9:12].decode() if isinstance(value, bytes) else str(value),
)
async def test_other_refusals_do_not_lead_to_http(answer: bytes, attempts: int) -> None:
    async with open_peer() as peer:
        peer.upgrade = refuse_with(answer)
        caught = await refused(peer, reconnect=TWICE)
        assert isinstance(caught, APIError | ReconnectFailed)
        assert isinstance(caught, ReconnectFailed) == (attempts > 1)
        assert len(peer.upgrades) == attempts


@pytest.mark.parametrize(
    "problem",
    [
        ConnectionRefusedError(111, "refused"),
        OSError("unreachable"),
        socket.gaierror(-2, "Name or service not known"),
    ],
)
async def test_a_server_that_cannot_be_reached_does_not_lead_to_http(problem: OSError) -> None:
    async with open_peer() as peer:
        peer.dial_errors = [problem] * 3
        caught = await refused(peer, reconnect=TWICE)
        assert isinstance(caught, ReconnectFailed | ConnectError)
        assert peer.upgrades == []


async def test_a_certificate_does_not_lead_to_http() -> None:
    async with open_peer() as peer:
        caught = await refused(peer, **use_tls(peer, trusted=False))
        assert isinstance(caught, ConnectError)
        assert "certificate" in str(caught)
        assert len(peer.dials) == 1


@pytest.mark.parametrize("ending", [Cut, Reset])
async def test_a_server_that_ends_the_stream_does_not_lead_to_http(ending: type[Exception]) -> None:
    """A restart looks like this; so does no firewall that this library knows of."""

    async def end(_: Exchange) -> None:
        raise ending

    async with open_peer() as peer:
        peer.upgrade = end
        assert isinstance(await refused(peer, reconnect=TWICE), ReconnectFailed)
        assert len(peer.upgrades) == 3


async def test_a_dial_that_takes_too_long_does_not_lead_to_http() -> None:
    async with open_peer() as peer:

        async def dial(host: str, port: int) -> trio.abc.Stream:
            await trio.sleep(100)
            return await HTTPPeer.dial(peer, host, port)

        peer.dial = dial  # type: ignore[assignment]
        caught = await refused(peer, reconnect=[1], timeouts=Timeouts(connect=10))
        assert isinstance(caught, ReconnectFailed)
        assert trio.current_time() == 21


async def test_a_connection_without_auto_stays_with_websockets() -> None:
    async with open_peer() as peer:
        assert isinstance(await refused(peer, transport="websocket"), UpgradeUnsupported)


# --- After a WebSocket was open ----------------------------------------------------------


def websocket_then(*later: Script) -> Script:
    """Return a script that serves one WebSocket, and then runs other scripts."""
    return scripts(serve_websocket, *later)


async def test_after_a_websocket_the_policy_is_used_up_first() -> None:
    async with open_peer() as peer:
        peer.upgrade = websocket_then(refuse_with(whole(404)))
        changes = Changes()
        async with connect(peer, reconnect=TWICE, instruments=[changes]) as connection:
            assert await text_of(connection) == "by websocket"
            peer.servers[0].reset()
            await trio.testing.wait_all_tasks_blocked()
            assert await text_of(connection) == "ok"
            assert trio.current_time() > 0
            assert len(peer.upgrades) == 3
            assert changes.seen == [("http", ReconnectFailed)]
            assert connection.statistics().transport == "http"
            assert connection.statistics().sockets_opened == 1


async def test_after_a_websocket_one_refusal_is_no_reason() -> None:
    async with open_peer() as peer:
        peer.upgrade = websocket_then(refuse_with(whole(404)), serve_websocket)
        async with connect(peer, reconnect=TWICE) as connection:
            assert await text_of(connection) == "by websocket"
            peer.servers[0].reset()
            await trio.testing.wait_all_tasks_blocked()
            assert await text_of(connection) == "by websocket"
            assert connection.statistics().transport == "websocket"
        assert peer.requests == []


async def test_after_a_websocket_a_dead_server_is_no_reason() -> None:
    async with open_peer() as peer:
        peer.upgrade = serve_websocket
        async with connect(peer, reconnect=TWICE) as connection:
            assert await text_of(connection) == "by websocket"
            peer.down = True
            peer.servers[0].reset()
            await trio.testing.wait_all_tasks_blocked()
            assert isinstance(await failure(connection), ReconnectFailed)
        assert peer.requests == []


async def test_a_turn_that_was_lost_with_its_websocket_is_sent_over_http_if_chosen() -> None:
    async def accept_and_die(exchange: Exchange) -> None:
        await serve_websocket(exchange, answers=False)
        raise Reset

    async with open_peer() as peer:
        peer.upgrade = scripts(accept_and_die, refuse_with(whole(404)))
        async with connect(peer, reconnect=TWICE) as connection:
            result = await connection.create(model="m", input="hi", delivery="at_least_once")
            assert result.output_text == "ok"
            assert connection.statistics().retries == 1


# --- Back to a WebSocket -----------------------------------------------------------------


async def test_a_websocket_is_tried_again_later() -> None:
    async with open_peer() as peer:
        changes = Changes()
        async with connect(peer, instruments=[changes]) as connection:
            assert await text_of(connection) == "ok"
            await trio.sleep(500)
            assert len(peer.upgrades) == 1
            await trio.sleep(200)
            assert peer.upgrades == [0, 600]
            assert await text_of(connection) == "ok"
            peer.upgrade = serve_websocket
            await trio.sleep(600)
            assert peer.upgrades == [0, 600, 1200]
            assert await text_of(connection) == "by websocket"
            assert connection.statistics().transport == "websocket"
            assert changes.seen == [("http", UpgradeUnsupported), ("websocket", None)]


async def test_the_raw_channel_gets_the_changes() -> None:
    seen: list[Event] = []

    async def listen(connection: ResponsesConnection) -> None:
        async for event in connection:
            seen.append(event)  # noqa: PERF401 - the iteration may not end

    async with open_peer() as peer:
        peer.upgrade = scripts(serve_websocket, refuse_with(whole(404)))
        options: dict[str, Any] = {"reconnect": [1], "websocket_retry": 20}
        async with trio.open_nursery() as nursery, connect(peer, **options) as connection:
            nursery.start_soon(listen, connection)
            await trio.testing.wait_all_tasks_blocked()
            peer.servers[0].reset()
            await trio.sleep(10)
            lost, over = seen
            assert isinstance(lost, ConnectionLost)
            assert isinstance(over, TransportChanged)
            assert over.transport == "http"
            assert isinstance(over.error, ReconnectFailed)
            peer.upgrade = serve_websocket
            await trio.sleep(20)
            assert seen[2:] == [TransportChanged(transport="websocket", error=None)]


async def test_an_active_turn_delays_the_attempt() -> None:
    async def slow(exchange: Exchange) -> None:
        await trio.sleep(50)
        await exchange.answer()

    async with open_peer(slow) as peer, connect(peer, websocket_retry=20) as connection:
        assert await text_of(connection) == "ok"
        await trio.sleep(1)
        assert peer.upgrades == [0, 50]


async def test_turns_are_sent_over_http_while_a_websocket_is_tried() -> None:
    async def silent(exchange: Exchange) -> None:
        await exchange.client_left()

    async with open_peer() as peer, connect(peer, websocket_retry=100) as connection:
        assert await text_of(connection) == "ok"
        peer.upgrade = silent
        await trio.sleep(102)
        assert len(peer.upgrades) == 2
        assert await text_of(connection) == "ok"
        assert trio.current_time() == 102


async def test_any_failure_of_the_later_attempt_leaves_http_in_use() -> None:
    async with open_peer() as peer, connect(peer, websocket_retry=100) as connection:
        assert await text_of(connection) == "ok"
        for answer in (whole(401), whole(403, error("No.")), whole(500), b"garbage\r\n\r\n"):
            peer.upgrade = refuse_with(answer)
            await trio.sleep(100)
            assert await text_of(connection) == "ok"
        peer.dial_errors = [OSError("unreachable")]
        await trio.sleep(100)
        assert await text_of(connection) == "ok"


async def test_turns_survive_the_changes_of_the_transport() -> None:
    async with (
        open_peer() as peer,
        connect(peer, websocket_retry=10, reconnect=TWICE) as connection,
    ):
        for number in range(6):
            peer.upgrade = serve_websocket if number % 2 else refuse_with(whole(404))
            if number % 2 == 0:
                peer.close_all()
            await trio.sleep(40)
            expected = "by websocket" if number % 2 else "ok"
            assert (number, await text_of(connection)) == (number, expected)


# --- Options -----------------------------------------------------------------------------


async def test_http_without_its_package_names_the_extra() -> None:
    with mock.patch("trio_responses._transport.http.find_spec", return_value=None):
        async with open_peer() as peer:
            with pytest.raises(ConfigurationError, match=r"httpcore2: install the extra http:"):
                async with connect(peer, transport="http"):
                    pass
            caught = await refused(peer)
            assert isinstance(caught, UpgradeUnsupported)
            assert "install the extra http:" in str(caught)


@pytest.mark.parametrize(
    ("options", "params", "feature"),
    [
        ({"transport": "http"}, {}, 'transport="http"'),
        ({"recover": "retrieve"}, {}, "recover='retrieve'"),
        ({}, {"background": True}, "a request over HTTP"),
    ],
)
async def test_without_the_package_the_error_names_what_needs_http(
    options: dict[str, Any], params: dict[str, Any], feature: str
) -> None:
    with mock.patch("trio_responses._transport.http.find_spec", return_value=None):
        async with open_peer() as peer:
            peer.upgrade = serve_websocket
            with pytest.raises(ConfigurationError, match=f"^{feature} needs httpcore2: "):
                async with connect(peer, **options) as connection:
                    await connection.create("hi", model="m", **params)


@pytest.mark.parametrize(("missing", "found"), [("httpcore2", "h2"), ("h2", "httpcore2")])
async def test_http2_without_one_of_its_packages_names_the_extra_with_both(
    missing: str, found: str
) -> None:
    def find(name: str) -> object:
        return found if name == found else None

    with mock.patch("trio_responses._transport.http.find_spec", find):
        async with open_peer() as peer:
            with pytest.raises(ConfigurationError, match=f"{missing}: install the extra http2:"):
                async with connect(peer, transport="http", http2=True):
                    pass


@pytest.mark.parametrize("options", [{"transport": "carrier pigeon"}, {"websocket_retry": 0}])
async def test_invalid_options_are_refused(options: dict[str, Any]) -> None:
    async with open_peer() as peer:
        with pytest.raises(ConfigurationError, match=next(iter(options))):
            async with connect(peer, **options):
                pass


async def test_closing_while_the_upgrade_is_awaited_takes_no_time() -> None:
    async def silent(exchange: Exchange) -> None:
        await exchange.client_left()

    async with open_peer() as peer:
        peer.upgrade = silent
        with trio.move_on_after(1):
            await refused(peer)
        assert trio.current_time() == 1
