"""Our client and our server, with nginx between them, as it stands before many gateways.

TLS ends there, the upgrade is passed on or refused, and its answers are nginx's own.

What belongs elsewhere: how nginx is run (`nginx.py`), how it cuts (`test_nginx_cuts.py`), proxies
on the client's side (`test_proxies.py`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio
import trustme

from tests.interop.nginx import (
    EAGER,
    KEY,
    PATIENCE,
    Dials,
    answer,
    failed,
    listen,
    location,
    nginx_for_a_test,
    open_through,
    turn,
)
from tests.transport.proxies import trusting, without_environment
from trio_responses import AuthenticationError, ConnectError, HandshakeRejected, UpgradeUnsupported

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.interop.nginx import Starter
    from tests.interop.programs import Program
    from trio_responses.testing import ResponsesServer

MIB = 1024 * 1024
BODY_LIMIT = 16 * 1024
"""Bytes of a refusal's body that are kept, as `HandshakeRejected` says."""


@pytest.fixture
def start_nginx(
    start: Callable[..., Program], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Starter]:
    without_environment(monkeypatch)
    with nginx_for_a_test(start, tmp_path) as starter:
        yield starter


async def refused(url: str, *, attempts: int = 1, **options: Any) -> ConnectError:
    """Fail to open a connection for good, for all the attempts that there could be."""
    dials = Dials()
    with trio.fail_after(PATIENCE), pytest.raises(ConnectError) as caught:
        async with open_through(url, dial=dials, **options):
            pass
    assert dials.count == attempts
    assert KEY not in repr(vars(caught.value))
    return caught.value


# --- TLS, and what passes -----------------------------------------------------------------


def certify(authority: trustme.CA, folder: Path, name: str) -> None:
    """Write a certificate for nginx."""
    certificate = authority.issue_cert(name)
    certificate.private_key_pem.write_to_path(str(folder / "key.pem"))
    certificate.cert_chain_pems[0].write_to_path(str(folder / "certificate.pem"))


async def test_turns_go_through_tls_that_ends_at_nginx(
    server: ResponsesServer, start_nginx: Starter, tmp_path: Path
) -> None:
    authority = trustme.CA()
    certify(authority, tmp_path, "127.0.0.1")
    nginx = start_nginx(location(await listen(server)), tls=True)
    async with open_through(nginx.url, ssl_context=trusting(authority)) as connection:
        for number in range(3):
            server.reply(f"answer {number}")
            assert await turn(connection) == f"answer {number}"
        assert connection.statistics().sockets_opened == 1
        assert connection.handshake_headers["server"].startswith("nginx")
    (seen,) = server.connections
    assert seen.headers["authorization"] == f"Bearer {KEY}"
    assert seen.headers["host"] == f"127.0.0.1:{nginx.port}"


@pytest.mark.parametrize("wrong", ["authority", "name"])
async def test_a_certificate_that_is_not_trusted_is_no_second_try(
    wrong: str,
    server: ResponsesServer,
    start_nginx: Starter,
    tmp_path: Path,
) -> None:
    authority = trustme.CA()
    certify(authority, tmp_path, "127.0.0.1" if wrong == "authority" else "models.test")
    nginx = start_nginx(location(await listen(server)), tls=True)
    trusted = trusting(trustme.CA() if wrong == "authority" else authority)
    error = await refused(nginx.url, ssl_context=trusted)
    assert not error.retryable
    assert "not trusted" in str(error)
    assert server.connections == []


async def test_five_megabytes_pass_either_way(
    server: ResponsesServer, start_nginx: Starter
) -> None:
    """nginx bounds the bodies of requests (1 MB by default), but not what follows an upgrade."""
    nginx = start_nginx(location(await listen(server)))
    large = "x" * 5 * MIB
    async with open_through(nginx.url) as connection:
        server.reply(large, chunk_size=MIB)
        assert await turn(connection, input=large) == large
        assert connection.statistics().sockets_opened == 1
    assert server.requests[0]["input"] == large


# --- Refusals -----------------------------------------------------------------------------


def only_for(key: str) -> str:
    """Let one key pass."""
    return f'if ($http_authorization != "Bearer {key}") {{ return 401; }}'


class Keys:
    """An API key that is another one each time."""

    def __init__(self, *keys: str) -> None:
        self._keys = list(keys)
        self.asked = 0

    async def __call__(self) -> str:
        await trio.lowlevel.checkpoint()
        self.asked += 1
        return self._keys[min(self.asked, len(self._keys)) - 1]


async def test_a_key_that_has_aged_is_asked_for_once_more(
    server: ResponsesServer, start_nginx: Starter
) -> None:
    nginx = start_nginx(location(await listen(server), only_for(KEY)))
    keys = Keys("sk-interop-old", KEY)
    async with open_through(nginx.url, api_key=keys) as connection:
        assert await turn(connection)
    assert keys.asked == 2
    assert len(server.connections) == 1


@pytest.mark.parametrize(
    ("status", "asked"),
    [(401, 2), (403, 1)],
)
async def test_a_key_that_stays_wrong_is_given_up(
    status: int, asked: int, start_nginx: Starter
) -> None:
    nginx = start_nginx(answer(status, '"no"'))
    keys = Keys(KEY)
    error = await refused(nginx.url, api_key=keys, attempts=asked)
    assert isinstance(error, AuthenticationError)
    assert (error.status, error.body) == (status, b"no")
    assert keys.asked == asked


async def test_a_key_that_is_a_string_is_sent_once(start_nginx: Starter) -> None:
    nginx = start_nginx(answer(401))
    error = await refused(nginx.url)
    assert isinstance(error, AuthenticationError)
    assert b"401 Authorization Required" in error.body


@pytest.mark.parametrize("status", [404, 426])
async def test_a_place_without_the_mode_is_told(status: int, start_nginx: Starter) -> None:
    nginx = start_nginx(answer(status))
    error = await refused(nginx.url)
    assert isinstance(error, UpgradeUnsupported)
    assert error.status == status


async def test_an_nginx_that_does_not_pass_the_upgrade_on_is_told(
    server: ResponsesServer, start_nginx: Starter
) -> None:
    """What it does by default: the server gets a plain GET."""
    nginx = start_nginx(location(await listen(server), upgrade=""))
    error = await refused(nginx.url)
    assert isinstance(error, UpgradeUnsupported)
    assert len(server.connections) == 1


async def test_a_page_in_place_of_the_upgrade_is_no_second_try(start_nginx: Starter) -> None:
    nginx = start_nginx(answer(200, '"<h1>Welcome</h1>"'))
    error = await refused(nginx.url)
    assert isinstance(error, HandshakeRejected)
    assert (error.status, error.body) == (200, b"<h1>Welcome</h1>")


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_a_redirect_is_not_followed_and_the_key_not_sent_on(
    status: int, server: ResponsesServer, start_nginx: Starter
) -> None:
    """P9."""
    origin = await listen(server)
    nginx = start_nginx(answer(status, f"{origin}$request_uri"))
    error = await refused(nginx.url)
    assert isinstance(error, HandshakeRejected)
    assert error.status == status
    assert error.headers["location"].startswith(origin)
    assert server.connections == []


# --- "Come back later" --------------------------------------------------------------------


def closed_sign(folder: Path, status: int) -> str:
    """Refuse while there is a file ``closed``, as one does during maintenance."""
    return f"""
    error_page {status} @later;
    if (-f {folder}/closed) {{ return {status}; }}
    location @later {{
        add_header Retry-After 1 always;
        return {status} '{{"error": {{"code": "later"}}}}';
    }}
    """


@pytest.mark.parametrize("status", [429, 503])
async def test_retry_after_is_the_least_that_is_waited(
    status: int,
    server: ResponsesServer,
    start_nginx: Starter,
    tmp_path: Path,
) -> None:
    """P2: the policy alone would be back after 10 ms, and a hundred times in that second."""
    nginx = start_nginx(closed_sign(tmp_path, status) + location(await listen(server)))
    closed = tmp_path / "closed"
    closed.touch()
    dials = Dials()
    began = trio.current_time()

    async def open_soon() -> None:
        await trio.sleep(0.3)
        closed.unlink()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(open_soon)
        async with open_through(nginx.url, dial=dials) as connection:
            assert 1.0 <= trio.current_time() - began < 3.0
            assert dials.count == 2
            assert await turn(connection)
    assert len(server.connections) == 1


@pytest.mark.parametrize("status", [429, 503])
async def test_a_refusal_is_kept_with_its_headers_and_body(
    status: int, start_nginx: Starter, tmp_path: Path
) -> None:
    nginx = start_nginx(closed_sign(tmp_path, status))
    (tmp_path / "closed").touch()
    error = await failed(nginx.url)
    assert error.retryable
    assert error.status == status
    assert error.retry_after == 1.0
    assert error.headers["retry-after"] == "1"
    assert error.body == b'{"error": {"code": "later"}}'


async def test_a_long_body_of_a_refusal_is_cut(start_nginx: Starter, tmp_path: Path) -> None:
    text = b"0123456789abcdef" * (MIB // 16)
    (tmp_path / "long.txt").write_bytes(text)
    page = f"location = /long.txt {{ internal; root {tmp_path}; }}"
    nginx = start_nginx(f"error_page 503 /long.txt; {page} location / {{ return 503; }}")
    error = await failed(nginx.url)
    assert error.headers["content-length"] == str(len(text))
    assert error.body == text[:BODY_LIMIT]


async def test_a_limit_on_handshakes_is_kept_to(
    server: ResponsesServer, start_nginx: Starter
) -> None:
    """nginx's own limit: one a second."""
    busy = "location @busy { add_header Retry-After 1 always; return 429; }"
    limit = "limit_req zone=handshakes; limit_req_status 429; error_page 429 @busy;"
    zone = "limit_req_zone $server_name zone=handshakes:32k rate=1r/s;"
    nginx = start_nginx(location(await listen(server), limit) + busy, http=zone)
    dials = Dials()
    async with open_through(nginx.url, dial=dials):
        assert dials.count == 1
        began = trio.current_time()
        async with open_through(nginx.url, dial=dials) as second:
            assert trio.current_time() - began >= 1.0
            assert dials.count == 3
            assert await turn(second)
    assert len(server.connections) == 2


async def test_an_hour_is_not_waited_for(start_nginx: Starter) -> None:
    nginx = start_nginx(answer(429, '"no"', "Retry-After 3600"))
    dials = Dials()
    error = await failed(nginx.url, reconnect=EAGER, dial=dials)
    assert error.retry_after == 3600.0
    assert dials.count == 1
