"""Tests of the client behind an nginx or a tinyproxy that breaks upgrades, each in its own way.

The proxies forward plain requests as they do by default: nginx buffers answers and sends HTTP/1.0.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio

from tests.interop.nginx import (
    FAST_RECONNECT,
    KEY,
    MODEL,
    CountingDialer,
    location,
    nginx_starter,
)
from tests.interop.programs import HANG_GUARD, free_port
from tests.interop.test_cuts import Journal, converse, prompts, texts
from tests.interop.test_proxies import path_of
from tests.interop.test_uvicorn import Watcher
from tests.transport.proxies import without_environment
from trio_responses import (
    ConnectError,
    ConnectionLost,
    ConnectTimeout,
    DeliveryStatus,
    ProxyError,
    ReconnectFailed,
    ReconnectPolicy,
    ResponsesError,
    UpgradeUnsupported,
    open_responses,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.interop.nginx import NginxStarter
    from tests.interop.programs import Program
    from tests.interop.test_cuts import Outcome
    from trio_responses._protocol.delivery import DeliveryMode
    from trio_responses.testing import ResponsesServer

TURNS = 5
TWICE = ReconnectPolicy(initial=0.01, cap=0.01, attempts=2)
JSON_ERROR = '{"error": {"code": "permission_denied", "message": "No."}}'


@pytest.fixture
def start_nginx(
    start: Callable[..., Program], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[NginxStarter]:
    without_environment(monkeypatch)
    with nginx_starter(start, tmp_path) as starter:
        yield starter


def origin_of(url: str) -> str:
    return url.removesuffix("/v1")


def answer_upgrades(upstream: str, status: int, text: str = "") -> str:
    """Return the directives that answer upgrades with a status, and forward other requests."""
    return location(upstream, f"if ($http_upgrade) {{ return {status} {text}; }}", upgrade="")


@dataclass(frozen=True)
class Break:
    """One way to break upgrades."""

    status: int | None
    """The status of the answer to the upgrade; `None` where there is none."""
    text: str = ""
    """What nginx returns with the status: a body in quotes, or the target of a redirect."""

    def directives(self, upstream: str) -> str:
        if self.status is None:
            return location(upstream, upgrade="")
        return answer_upgrades(upstream, self.status, self.text)


PAGE = "'<html>no</html>'"
OVER = {
    "the header is not forwarded": Break(None),
    "400 with a page": Break(400, PAGE),
    "403": Break(403),
    "403 with a page": Break(403, PAGE),
    "404": Break(404),
    "405": Break(405),
    "426": Break(426, PAGE),
    "501": Break(501),
    "200 with a page": Break(200, PAGE),
    "301": Break(301, "https://127.0.0.1/"),
    "302 to a page for a login": Break(302, "https://login.invalid/"),
    "307": Break(307, "https://127.0.0.1/"),
    "308": Break(308, "https://127.0.0.1/"),
}
"""The breaks that show at once that no WebSocket can be used."""


async def converse_over_http(
    server: ResponsesServer,
    url: str,
    caplog: pytest.LogCaptureFixture,
    *,
    delivery: DeliveryMode = "at_most_once",
    **options: Any,
) -> ResponsesError:
    """Run a conversation that must end over HTTP with its whole history; return why it changed."""
    watcher = Watcher()
    options = {"reconnect": FAST_RECONNECT, "instruments": [watcher], **options}
    with trio.fail_after(HANG_GUARD), caplog.at_level(logging.WARNING, "trio_responses"):
        async with (
            open_responses(url, api_key=KEY, **options) as connection,
            connection.conversation(model=MODEL, store=False) as conversation,
        ):
            # Each WebSocket may open and be lost again.
            await watcher.changed.wait()
            for number in range(1, TURNS + 1):
                response = await conversation.create(f"line {number}", delivery=delivery)
                assert response.output_text == f'Turn {number}: you said "line {number}".'
    [(transport, error)] = watcher.changes
    assert transport == "http"
    assert isinstance(error, ResponsesError)
    assert KEY not in repr(vars(error))
    over = [record for record in caplog.records if "over http" in record.getMessage()]
    assert [type(error).__name__ in record.getMessage() for record in over] == [True]
    assert [len(request["input"]) for request in server.requests] == [1, 3, 5, 7, 9]
    return error


# --- nginx -------------------------------------------------------------------------------


@pytest.mark.parametrize("way", OVER)
async def test_an_upgrade_that_nginx_answers_otherwise_leads_to_http_at_once(
    way: str,
    server: ResponsesServer,
    start_nginx: NginxStarter,
    caplog: pytest.LogCaptureFixture,
) -> None:
    nginx = start_nginx(OVER[way].directives(origin_of(await server.serve_tcp())))
    error = await converse_over_http(server, nginx.url, caplog)
    assert isinstance(error, UpgradeUnsupported)
    assert error.status == (OVER[way].status or 405)
    refused = [record for record in caplog.records if "could not be opened" in record.getMessage()]
    assert len(refused) == 1


async def test_an_upgrade_that_nginx_never_answers_leads_to_http(
    server: ResponsesServer, start_nginx: NginxStarter, caplog: pytest.LogCaptureFixture
) -> None:
    server.hang_handshake()
    nginx = start_nginx(location(origin_of(await server.serve_tcp())))
    error = await converse_over_http(server, nginx.url, caplog)
    assert isinstance(error, ConnectTimeout)
    assert error.phase == "upgrade"


@pytest.mark.parametrize("how", ["fin", "reset"])
async def test_sockets_that_end_after_the_upgrade_lead_to_http(
    how: Any,
    server: ResponsesServer,
    start_nginx: NginxStarter,
    caplog: pytest.LogCaptureFixture,
) -> None:
    server.drop_on_accept(how, times=None)
    nginx = start_nginx(location(origin_of(await server.serve_tcp())))
    error = await converse_over_http(server, nginx.url, caplog, reconnect=TWICE)
    assert isinstance(error, ReconnectFailed)
    assert error.attempts == TWICE.attempts
    assert isinstance(error.__cause__, ConnectionLost)


@pytest.mark.parametrize("status", [403, 404, 502])
async def test_a_conversation_continues_when_upgrades_break_later(
    status: int, server: ResponsesServer, start_nginx: NginxStarter, tmp_path: Path
) -> None:
    """A 502 does not lead to HTTP: it ends with the connection."""
    closed = tmp_path / "closed"
    check = (
        f"set $breaks no; if (-f {closed}) {{ set $breaks yes; }}"
        ' if ($http_upgrade = "") { set $breaks no; }'
        f" if ($breaks = yes) {{ return {status}; }}"
    )
    nginx = start_nginx(location(origin_of(await server.serve_tcp()), check))
    watcher = Watcher()
    with trio.fail_after(HANG_GUARD):
        async with (
            open_responses(
                nginx.url, api_key=KEY, reconnect=TWICE, instruments=[watcher]
            ) as connection,
            connection.conversation(model=MODEL, store=False) as conversation,
        ):
            assert (await conversation.create("one")).output_text
            assert (await conversation.create("two")).output_text
            assert connection.statistics().transport == "websocket"
            closed.touch()
            await server.reset_all()
            await watcher.delayed.wait()  # until the client has noticed
            if status == 502:
                with pytest.raises(ReconnectFailed):
                    await conversation.create("three")
            else:
                response = await conversation.create("three")
                assert response.output_text == 'Turn 3: you said "three".'
                assert connection.statistics().transport == "http"
                [(_, error)] = watcher.changes
                assert isinstance(error, ReconnectFailed)
                assert isinstance(error.__cause__, UpgradeUnsupported)
                assert error.__cause__.status == status
    sizes = [len(request["input"]) for request in server.requests]
    assert sizes == ([1, 1] if status == 502 else [1, 1, 5])


@pytest.mark.parametrize(
    ("status", "text"), [(401, ""), (403, f"'{JSON_ERROR}'"), (429, ""), (502, ""), (503, "")]
)
async def test_other_answers_do_not_lead_to_http(
    status: int, text: str, server: ResponsesServer, start_nginx: NginxStarter
) -> None:
    origin = origin_of(await server.serve_tcp())
    nginx = start_nginx(answer_upgrades(origin, status, text))
    with trio.fail_after(HANG_GUARD), pytest.raises(ResponsesError) as caught:
        async with open_responses(nginx.url, api_key=KEY, reconnect=TWICE):
            pass
    error = caught.value
    refused = error.__cause__ if isinstance(error, ReconnectFailed) else error
    assert isinstance(refused, ConnectError)
    assert getattr(refused, "status", None) == status
    assert server.requests == []


async def test_an_nginx_that_closes_without_an_answer_does_not_lead_to_http(
    server: ResponsesServer, start_nginx: NginxStarter
) -> None:
    """nginx has the status 444 for this; a server that restarts looks the same."""
    nginx = start_nginx(answer_upgrades(origin_of(await server.serve_tcp()), 444))
    dialer = CountingDialer()
    with trio.fail_after(HANG_GUARD), pytest.raises(ReconnectFailed):
        async with open_responses(nginx.url, api_key=KEY, reconnect=TWICE, dial=dialer):
            pass
    assert dialer.count == TWICE.attempts + 1


async def test_a_stream_that_nginx_ends_for_its_silence_is_lost(
    server: ResponsesServer, start_nginx: NginxStarter
) -> None:
    """Before the first event, nginx answers 504; after that, it ends the connection."""
    limit = "proxy_read_timeout 1s; proxy_buffering off;"
    nginx = start_nginx(location(origin_of(await server.serve_tcp()), limit, upgrade=""))
    with trio.fail_after(HANG_GUARD):
        async with open_responses(nginx.url, api_key=KEY, reconnect=TWICE) as connection:
            server.stall(after_events=2)
            with pytest.raises(ConnectionLost) as caught:
                await connection.create("hi", model=MODEL)
            assert caught.value.delivery is DeliveryStatus.ACCEPTED
            server.stall(after_events=0)
            with pytest.raises(ResponsesError) as silent:
                await connection.create("hi", model=MODEL)
            assert silent.value.delivery is not DeliveryStatus.REJECTED
            assert (await connection.create("hi", model=MODEL)).output_text


# --- tinyproxy ---------------------------------------------------------------------------


def start_tinyproxy(start: Callable[..., Program], folder: Path, *lines: str) -> str:
    """Start tinyproxy with the given lines in its configuration; return its origin."""
    command, port = path_of("tinyproxy"), free_port()
    file = folder / "tinyproxy.conf"
    file.write_text("\n".join([f"Port {port}", "Listen 127.0.0.1", *lines]) + "\n")
    start("tinyproxy", command, "-d", "-c", str(file)).wait_for_port(port)
    return f"http://127.0.0.1:{port}"


async def test_a_tinyproxy_in_front_of_the_server_forwards_no_upgrade(
    server: ResponsesServer,
    start: Callable[..., Program],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # tinyproxy ends each connection after its answer, and does not say so in the answer: a request
    # on the same connection is lost.
    without_environment(monkeypatch)
    upstream = origin_of(await server.serve_tcp())
    origin = start_tinyproxy(start, tmp_path, f'ReversePath "/" "{upstream}/"', "ReverseOnly Yes")
    url = f"{origin}/v1"
    error = await converse_over_http(server, url, caplog, delivery="at_least_once")
    assert isinstance(error, UpgradeUnsupported)
    assert error.status == 405


async def test_a_tinyproxy_that_permits_no_tunnel_fails_for_both_transports(
    server: ResponsesServer,
    start: Callable[..., Program],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Requests over HTTP use a tunnel, too: tinyproxy answers 403 to it either way."""
    without_environment(monkeypatch)
    url = await server.serve_tcp()
    proxy = start_tinyproxy(start, tmp_path, "ConnectPort 443")
    for transport in ("auto", "http"):
        with trio.fail_after(HANG_GUARD), pytest.raises(ProxyError) as caught:
            async with open_responses(
                url, api_key=KEY, proxy=proxy, transport=transport, reconnect=TWICE
            ) as connection:
                await connection.create("hi", model=MODEL)
        assert caught.value.status == 403
    assert len(server.connections) == 0


async def test_tunnels_that_tinyproxy_ends_when_idle_are_replaced(
    server: ResponsesServer,
    start: Callable[..., Program],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Idle WebSockets are replaced; a request after a pause gets a new HTTP connection."""
    without_environment(monkeypatch)
    url = await server.serve_tcp()
    proxy = start_tinyproxy(start, tmp_path, "Timeout 1")
    with trio.fail_after(HANG_GUARD):
        for transport in ("auto", "http"):
            options: dict[str, Any] = {"reconnect": FAST_RECONNECT, "transport": transport}
            async with open_responses(url, api_key=KEY, proxy=proxy, **options) as connection:
                for _ in range(2):
                    assert (await connection.create("hi", model=MODEL)).output_text
                    await trio.sleep(2)


# --- A conversation of thirty turns ---------------------------------------------------------


@pytest.fixture(scope="module")
def journal(aimock_origin: str) -> Journal:
    return Journal(aimock_origin)


@pytest.fixture(scope="module")
def direct(agentic_url: str, journal: Journal) -> dict[bool, Outcome]:
    """Run the conversation on a WebSocket; return the outcomes with and without ``store``."""
    run = partial(converse, agentic_url, lanes=True, seed=0, journal=journal)
    return {store: trio.run(partial(run, store=store)) for store in (True, False)}


@pytest.mark.parametrize("store", [True, False])
@pytest.mark.parametrize("way", [*OVER, "tinyproxy"])
async def test_thirty_turns_have_the_same_history_as_on_a_websocket(  # noqa: PLR0917 - fixtures
    way: str,
    agentic_url: str,
    direct: dict[bool, Outcome],
    journal: Journal,
    start: Callable[..., Program],
    start_nginx: NginxStarter,
    tmp_path: Path,
    *,
    store: bool,
) -> None:
    upstream = origin_of(agentic_url)
    if way == "tinyproxy":
        lines = (f'ReversePath "/" "{upstream}/"', "ReverseOnly Yes")
        url = f"{start_tinyproxy(start, tmp_path, *lines)}/v1"
    else:
        url = start_nginx(OVER[way].directives(upstream)).url
    with trio.fail_after(HANG_GUARD):
        outcome = await converse(url, store=store, lanes=False, seed=0, journal=journal)
    assert texts(outcome.history) == prompts(store=store)
    assert outcome.history == direct[store].history
    assert outcome.model_requests[-1] == direct[store].model_requests[-1]
    # tinyproxy ends each connection after its answer without a word: see above.
    assert set(outcome.user.lost) <= ({DeliveryStatus.AMBIGUOUS} if way == "tinyproxy" else set())
    assert set(outcome.runs().values()) == {1}
    # Nothing but HTTP sends each turn in full.
    assert (outcome.statistics.delta_turns > 0) == store
