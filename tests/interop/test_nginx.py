"""Tests of the client through nginx as a reverse proxy: TLS, the upgrade and rejected handshakes.

nginx terminates TLS, and forwards or rejects the upgrade. Each rejection comes from nginx itself.
"""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trustme

from tests.interop.nginx import (
    FAST_RECONNECT,
    KEY,
    CountingDialer,
    last_rejection,
    listen,
    location,
    nginx_starter,
    open_through,
    respond_with,
    run_turn,
)
from tests.interop.programs import HANG_GUARD
from tests.transport.proxies import trusting, without_environment
from trio_responses import AuthenticationError, ConnectError, HandshakeRejected, UpgradeUnsupported

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.interop.nginx import NginxStarter
    from tests.interop.programs import Program
    from trio_responses.testing import ResponsesServer

MIB = 1024 * 1024
BODY_LIMIT = 16 * 1024
"""The most bytes of the body that `HandshakeRejected` keeps."""


@pytest.fixture
def start_nginx(
    start: Callable[..., Program], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[NginxStarter]:
    without_environment(monkeypatch)
    with nginx_starter(start, tmp_path) as starter:
        yield starter


async def permanent_failure(url: str, *, attempts: int = 1, **options: Any) -> ConnectError:
    """Open a connection, which must fail although retries are left; return the error."""
    dialer = CountingDialer()
    with trio.fail_after(HANG_GUARD), pytest.raises(ConnectError) as caught:
        async with open_through(url, dial=dialer, **options):
            pass
    assert dialer.count == attempts
    assert KEY not in repr(vars(caught.value))
    return caught.value


# --- TLS and large messages -----------------------------------------------------------------


def write_certificate(authority: trustme.CA, folder: Path, name: str) -> None:
    """Write a certificate and its key for nginx."""
    certificate = authority.issue_cert(name)
    certificate.private_key_pem.write_to_path(str(folder / "key.pem"))
    certificate.cert_chain_pems[0].write_to_path(str(folder / "certificate.pem"))


async def test_turns_run_through_nginx_that_terminates_tls(
    server: ResponsesServer, start_nginx: NginxStarter, tmp_path: Path
) -> None:
    authority = trustme.CA()
    write_certificate(authority, tmp_path, "127.0.0.1")
    nginx = start_nginx(location(await listen(server)), tls=True)
    async with open_through(nginx.url, ssl_context=trusting(authority)) as connection:
        for number in range(3):
            server.reply(f"answer {number}")
            assert await run_turn(connection) == f"answer {number}"
        assert connection.statistics().sockets_opened == 1
        assert connection.handshake_headers["server"].startswith("nginx")
    (accepted,) = server.connections
    assert accepted.headers["authorization"] == f"Bearer {KEY}"
    assert accepted.headers["host"] == f"127.0.0.1:{nginx.port}"


@pytest.mark.parametrize("wrong", ["authority", "name"])
async def test_an_untrusted_certificate_is_not_retried(
    wrong: str,
    server: ResponsesServer,
    start_nginx: NginxStarter,
    tmp_path: Path,
) -> None:
    authority = trustme.CA()
    write_certificate(authority, tmp_path, "127.0.0.1" if wrong == "authority" else "models.test")
    nginx = start_nginx(location(await listen(server)), tls=True)
    trusted = trusting(trustme.CA() if wrong == "authority" else authority)
    error = await permanent_failure(nginx.url, ssl_context=trusted)
    assert not error.retryable
    assert "not trusted" in str(error)
    assert server.connections == []


async def test_five_megabytes_pass_in_both_directions(
    server: ResponsesServer, start_nginx: NginxStarter
) -> None:
    """nginx limits the bodies of requests (1 MB by default), but no data after an upgrade."""
    nginx = start_nginx(location(await listen(server)))
    large = "x" * 5 * MIB
    async with open_through(nginx.url) as connection:
        server.reply(large, chunk_size=MIB)
        assert await run_turn(connection, input=large) == large
        assert connection.statistics().sockets_opened == 1
    assert server.requests[0]["input"] == large


# --- Rejected handshakes --------------------------------------------------------------------


REFUSAL = '{"error": {"code": "permission_denied", "message": "This key may not do that."}}'


def require_key(key: str) -> str:
    """Return the directive that rejects every key but this one."""
    return f'if ($http_authorization != "Bearer {key}") {{ return 401; }}'


class KeySequence:
    """A function that returns API keys in order, and the last key again and again."""

    def __init__(self, *keys: str) -> None:
        self._keys = list(keys)
        self.calls = 0

    async def __call__(self) -> str:
        await trio.lowlevel.checkpoint()
        self.calls += 1
        return self._keys[min(self.calls, len(self._keys)) - 1]


async def test_an_expired_key_is_requested_once_more(
    server: ResponsesServer, start_nginx: NginxStarter
) -> None:
    nginx = start_nginx(location(await listen(server), require_key(KEY)))
    keys = KeySequence("sk-interop-old", KEY)
    async with open_through(nginx.url, api_key=keys) as connection:
        assert await run_turn(connection)
    assert keys.calls == 2
    assert len(server.connections) == 1


@pytest.mark.parametrize(
    ("status", "body", "calls"),
    [(401, "no", 2), (401, REFUSAL, 2), (403, REFUSAL, 1)],
)
async def test_a_key_that_stays_wrong_is_not_retried(
    status: int, body: str, calls: int, start_nginx: NginxStarter
) -> None:
    nginx = start_nginx(respond_with(status, f"'{body}'"))
    keys = KeySequence(KEY)
    error = await permanent_failure(nginx.url, api_key=keys, attempts=calls)
    assert isinstance(error, AuthenticationError)
    assert (error.status, error.body) == (status, body.encode())
    assert keys.calls == calls


async def test_a_403_without_a_reason_raises_upgrade_unsupported(
    start_nginx: NginxStarter,
) -> None:
    """A 403 without a JSON error or a challenge tells nothing about the key."""
    nginx = start_nginx(respond_with(403, '"no"'))
    keys = KeySequence(KEY)
    error = await permanent_failure(nginx.url, api_key=keys)
    assert isinstance(error, UpgradeUnsupported)
    assert (error.status, error.body) == (403, b"no")
    assert keys.calls == 1


async def test_a_key_given_as_a_string_is_sent_once(start_nginx: NginxStarter) -> None:
    nginx = start_nginx(respond_with(401))
    error = await permanent_failure(nginx.url)
    assert isinstance(error, AuthenticationError)
    assert b"401 Authorization Required" in error.body


@pytest.mark.parametrize("status", [404, 426])
async def test_a_url_without_websocket_mode_raises_upgrade_unsupported(
    status: int, start_nginx: NginxStarter
) -> None:
    nginx = start_nginx(respond_with(status))
    error = await permanent_failure(nginx.url)
    assert isinstance(error, UpgradeUnsupported)
    assert error.status == status


async def test_a_proxy_that_drops_the_upgrade_raises_upgrade_unsupported(
    server: ResponsesServer, start_nginx: NginxStarter
) -> None:
    """By default, nginx drops the upgrade: the server receives a plain GET."""
    nginx = start_nginx(location(await listen(server), upgrade=""))
    error = await permanent_failure(nginx.url)
    assert isinstance(error, UpgradeUnsupported)
    assert len(server.connections) == 1


async def test_a_page_instead_of_the_upgrade_is_not_retried(start_nginx: NginxStarter) -> None:
    nginx = start_nginx(respond_with(200, '"<h1>Welcome</h1>"'))
    error = await permanent_failure(nginx.url)
    assert isinstance(error, HandshakeRejected)
    assert (error.status, error.body) == (200, b"<h1>Welcome</h1>")


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_a_redirect_is_not_followed_and_does_not_get_the_key(
    status: int, server: ResponsesServer, start_nginx: NginxStarter
) -> None:
    origin = await listen(server)
    nginx = start_nginx(respond_with(status, f"{origin}$request_uri"))
    error = await permanent_failure(nginx.url)
    assert isinstance(error, HandshakeRejected)
    assert error.status == status
    assert error.headers["location"].startswith(origin)
    assert server.connections == []


# --- Retry-After ------------------------------------------------------------------------------


def reject_during_maintenance(folder: Path, status: int) -> str:
    """Return the directives that reject all requests while a file ``closed`` exists."""
    return f"""
    error_page {status} @later;
    if (-f {folder}/closed) {{ return {status}; }}
    location @later {{
        add_header Retry-After 1 always;
        return {status} '{{"error": {{"code": "later"}}}}';
    }}
    """


@pytest.mark.parametrize("status", [429, 503])
async def test_retry_after_is_the_shortest_delay(
    status: int,
    server: ResponsesServer,
    start_nginx: NginxStarter,
    tmp_path: Path,
) -> None:
    """The policy alone would retry after 10 ms."""
    nginx = start_nginx(
        reject_during_maintenance(tmp_path, status) + location(await listen(server))
    )
    closed = tmp_path / "closed"
    closed.touch()

    def end_maintenance(call: int) -> None:
        if call == 2:
            closed.unlink()

    dialer = CountingDialer(end_maintenance)
    start = trio.current_time()
    async with open_through(nginx.url, dial=dialer) as connection:
        assert trio.current_time() - start >= 1.0
        assert dialer.count == 2
        assert await run_turn(connection)
    assert len(server.connections) == 1


@pytest.mark.parametrize("status", [429, 503])
async def test_a_rejection_keeps_its_headers_and_body(
    status: int, start_nginx: NginxStarter, tmp_path: Path
) -> None:
    nginx = start_nginx(reject_during_maintenance(tmp_path, status))
    (tmp_path / "closed").touch()
    error = await last_rejection(nginx.url)
    assert error.retryable
    assert error.status == status
    assert error.retry_after == 1.0
    assert error.headers["retry-after"] == "1"
    assert error.body == b'{"error": {"code": "later"}}'


async def test_the_body_of_a_rejection_is_truncated(
    start_nginx: NginxStarter, tmp_path: Path
) -> None:
    text = b"0123456789abcdef" * (MIB // 16)
    (tmp_path / "long.txt").write_bytes(text)
    page = f"location = /long.txt {{ internal; root {tmp_path}; }}"
    nginx = start_nginx(f"error_page 503 /long.txt; {page} location / {{ return 503; }}")
    error = await last_rejection(nginx.url)
    assert error.headers["content-length"] == str(len(text))
    assert error.body == text[:BODY_LIMIT]


async def test_a_rate_limit_on_handshakes_is_obeyed(
    server: ResponsesServer, start_nginx: NginxStarter
) -> None:
    """nginx permits one handshake in a second here."""
    busy = "location @busy { add_header Retry-After 1 always; return 429; }"
    limit = "limit_req zone=handshakes; limit_req_status 429; error_page 429 @busy;"
    zone = "limit_req_zone $server_name zone=handshakes:32k rate=1r/s;"
    nginx = start_nginx(location(await listen(server), limit) + busy, http=zone)
    dialer = CountingDialer()
    opened, delay = 0, 0.0
    async with AsyncExitStack() as connections:
        while dialer.count == opened:  # a slow machine may take a second in between
            start = trio.current_time()
            last = await connections.enter_async_context(open_through(nginx.url, dial=dialer))
            delay = trio.current_time() - start
            opened += 1
        assert opened > 1
        assert dialer.count == opened + 1
        assert delay >= 1.0
        assert await run_turn(last)
    assert len(server.connections) == opened


async def test_a_retry_after_of_an_hour_ends_the_retries(start_nginx: NginxStarter) -> None:
    nginx = start_nginx(respond_with(429, '"no"', "Retry-After 3600"))
    dialer = CountingDialer()
    error = await last_rejection(nginx.url, reconnect=FAST_RECONNECT, dial=dialer)
    assert error.retry_after == 3600.0
    assert dialer.count == 1
