"""Tests of the client with applications on uvicorn that have no route for WebSockets."""

from __future__ import annotations

import re
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio

from tests.interop.nginx import CountingDialer
from tests.interop.programs import HANG_GUARD, free_port
from trio_responses import (
    ConnectError,
    Instrument,
    ReconnectFailed,
    ReconnectPolicy,
    UpgradeUnsupported,
    open_responses,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.interop.programs import Program
    from trio_responses import ResponsesError

MODEL = "gpt-5.5"
LATE = ReconnectPolicy(initial=HANG_GUARD * 2, cap=HANG_GUARD * 2, jitter=0.0)
"""A policy whose first delay is longer than a test may take."""
PROTOCOLS = {"websockets": "websockets", "websockets-sansio": "websockets", "wsproto": "wsproto"}
"""uvicorn's implementations of WebSockets, and the packages that they need."""
APPS = {"plain": "asgi_apps:plain", "fastapi": "asgi_apps:with_fastapi"}


class Watcher(Instrument):
    """An instrument that keeps the changes of the transport and the delays."""

    def __init__(self) -> None:
        self.changes: list[tuple[str, ResponsesError | None]] = []
        self.delays: list[float] = []
        self.changed = trio.Event()
        self.delayed = trio.Event()

    def transport_changed(self, transport: str, error: ResponsesError | None) -> None:
        self.changes.append((transport, error))
        self.changed.set()

    def reconnecting(self, attempt: int, delay: float, error: ResponsesError) -> None:
        del attempt, error
        self.delays.append(delay)
        self.delayed.set()


def start_uvicorn(start: Callable[..., Program], app: str, *options: str) -> tuple[Program, str]:
    """Start uvicorn with an application; return the program and the base URL."""
    pytest.importorskip("uvicorn", reason="uvicorn is not installed")
    port = free_port()
    where = ("--app-dir", str(Path(__file__).parent), "--host", "127.0.0.1", "--port", str(port))
    program = start("uvicorn", sys.executable, "-m", "uvicorn", *where, *options, app)
    program.wait_for_port(port)
    return program, f"http://127.0.0.1:{port}/v1"


def upgrades(program: Program) -> int:
    """Return the number of upgrades in the log of uvicorn."""
    return len(re.findall(r'"(?:WebSocket|GET) /v1/responses', program.output()))


@pytest.fixture(params=[*PROTOCOLS, "none"])
def protocol(request: pytest.FixtureRequest) -> str:
    package = PROTOCOLS.get(request.param)
    if package is not None and find_spec(package) is None:
        pytest.skip(f"the package {package} is not installed")
    return str(request.param)


@pytest.fixture(params=[*APPS])
def app(request: pytest.FixtureRequest) -> tuple[str, ...]:
    if request.param == "fastapi":
        pytest.importorskip("fastapi", reason="fastapi is not installed")
        return ("--factory", APPS["fastapi"])
    return (APPS["plain"],)


async def test_an_application_without_a_websocket_is_used_over_http_at_once(
    start: Callable[..., Program], app: tuple[str, ...], protocol: str
) -> None:
    program, url = start_uvicorn(start, app[-1], *app[:-1], "--ws", protocol)
    dialer, watcher = CountingDialer(), Watcher()
    options: dict[str, Any] = {"dial": dialer, "instruments": [watcher], "reconnect": LATE}
    with trio.fail_after(HANG_GUARD):
        async with (
            open_responses(url, api_key="sk-any", **options) as connection,
            connection.conversation(model=MODEL, store=False) as conversation,
        ):
            assert dialer.count == 1
            texts = [(await conversation.create(one)).output_text for one in ("a", "b", "c")]
            statistics = connection.statistics()
    assert texts == ["a", "a b", "a b c"]
    assert (statistics.transport, statistics.http_requests) == ("http", 3)
    assert (statistics.sockets_opened, statistics.attempts) == (0, 0)
    assert (upgrades(program), watcher.delays) == (1, [])
    [(transport, error)] = watcher.changes
    assert transport == "http"
    assert isinstance(error, UpgradeUnsupported)
    # Without an implementation of WebSockets, uvicorn treats the upgrade as a plain GET.
    is_fastapi = "--factory" in app
    without = 405 if is_fastapi else 404
    assert error.status == (without if protocol == "none" else 403)


async def test_an_application_that_fails_at_a_websocket_is_no_reason_for_http(
    start: Callable[..., Program], protocol: str
) -> None:
    """uvicorn answers 500, as for any defect of an application."""
    _, url = start_uvicorn(start, "asgi_apps:broken", "--ws", protocol)
    dialer = CountingDialer()
    policy = ReconnectPolicy(attempts=1, initial=0.01)
    with trio.fail_after(HANG_GUARD), pytest.raises(ReconnectFailed) as caught:
        async with open_responses(url, api_key="sk-any", dial=dialer, reconnect=policy):
            pass
    assert isinstance(caught.value.__cause__, ConnectError)
    assert getattr(caught.value.__cause__, "status", None) == 500
    assert dialer.count == 2
