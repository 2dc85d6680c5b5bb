"""Tests of the client through the proxies tinyproxy, microsocks and proxy.py.

The tests of a proxy that is not installed are skipped. tinyproxy and microsocks must be on the
path, proxy.py must be a package of this Python or of the one in ``TRIO_RESPONSES_PROXY_PY``.
"""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trustme

from tests.interop.programs import HANG_GUARD, free_port
from tests.transport.opened import open_transport
from tests.transport.peer import HEADERS, connection_config
from tests.transport.proxies import (
    PROMPT,
    echo,
    secured,
    serve,
    server_context,
    trusting,
    without_environment,
)
from trio_responses import ConnectError, ProxyError, ReconnectFailed, open_responses
from trio_responses._transport.proxy import Proxy
from trio_responses._transport.tunnel import Tunnel

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.interop.programs import Program
    from tests.transport.peer import Peer

MODEL = "gpt-5.5"
USER, PASSWORD = "someone", "p-secret-7hU9"


@dataclass
class RunningProxy:
    """A running proxy that requires credentials."""

    program: Program
    scheme: str
    port: int

    def url(self, password: str = PASSWORD) -> str:
        return f"{self.scheme}://{USER}:{password}@127.0.0.1:{self.port}"


def path_of(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def python_of_proxy_py() -> str:
    named = os.environ.get("TRIO_RESPONSES_PROXY_PY")
    if named:
        return named
    if find_spec("proxy") is None:
        pytest.skip("proxy.py is not installed: pip install it, or set TRIO_RESPONSES_PROXY_PY")
    return sys.executable


@pytest.fixture(scope="module")
def tinyproxy(
    start: Callable[..., Program], tmp_path_factory: pytest.TempPathFactory
) -> RunningProxy:
    command, port = path_of("tinyproxy"), free_port()
    file = tmp_path_factory.mktemp("tinyproxy") / "tinyproxy.conf"
    lines = [f"Port {port}", "Listen 127.0.0.1", f"BasicAuth {USER} {PASSWORD}", "LogLevel Connect"]
    file.write_text("\n".join(lines) + "\n")
    program = start("tinyproxy", command, "-d", "-c", str(file))
    program.wait_for_port(port)
    return RunningProxy(program, "http", port)


@pytest.fixture(scope="module")
def microsocks(start: Callable[..., Program]) -> RunningProxy:
    pytest.importorskip("python_socks", reason="the extra `proxy` is not installed")
    command, port = path_of("microsocks"), free_port()
    options = ["-i", "127.0.0.1", "-p", str(port), "-u", USER, "-P", PASSWORD]
    program = start("microsocks", command, *options)
    program.wait_for_port(port)
    return RunningProxy(program, "socks5h", port)


def start_proxy_py(start: Callable[..., Program], scheme: str, *options: str) -> RunningProxy:
    port = free_port()
    options = ("--hostname", "127.0.0.1", "--port", str(port), *options)
    workers = ("--num-workers", "1", "--num-acceptors", "1", "--timeout", str(int(HANG_GUARD)))
    credentials = ("--basic-auth", f"{USER}:{PASSWORD}")
    command = (python_of_proxy_py(), "-m", "proxy", *options, *workers, *credentials)
    program = start("proxy-py", *command)
    program.wait_for_port(port)
    return RunningProxy(program, scheme, port)


@pytest.fixture(scope="module")
def proxy_py(start: Callable[..., Program]) -> RunningProxy:
    return start_proxy_py(start, "http")


@pytest.fixture(scope="module")
def proxy_py_tls(
    start: Callable[..., Program],
    proxy_authority: trustme.CA,
    tmp_path_factory: pytest.TempPathFactory,
) -> RunningProxy:
    folder = tmp_path_factory.mktemp("proxy-py-tls")
    certificate = proxy_authority.issue_cert("127.0.0.1")
    certificate.private_key_pem.write_to_path(str(folder / "key.pem"))
    certificate.cert_chain_pems[0].write_to_path(str(folder / "certificate.pem"))
    files = ("--key-file", str(folder / "key.pem"), "--cert-file", str(folder / "certificate.pem"))
    return start_proxy_py(start, "https", *files)


@pytest.fixture(scope="module")
def proxy_authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(autouse=True)
def environment(
    monkeypatch: pytest.MonkeyPatch, proxy_authority: trustme.CA, tmp_path: Path
) -> pytest.MonkeyPatch:
    """Remove the proxy variables and trust the authority of the TLS proxy, as the system would."""
    without_environment(monkeypatch)
    proxy_authority.cert_pem.write_to_path(str(tmp_path / "authority.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
    return monkeypatch


NAMES = ["tinyproxy", "microsocks", "proxy_py", "proxy_py_tls"]


@pytest.fixture(params=NAMES)
def proxy(request: pytest.FixtureRequest) -> RunningProxy:
    running = request.getfixturevalue(request.param)
    assert isinstance(running, RunningProxy)
    return running


async def test_turns_run_through_a_proxy(proxy: RunningProxy, server_url: str) -> None:
    with trio.fail_after(HANG_GUARD):
        async with open_responses(server_url, api_key="any", proxy=proxy.url()) as connection:
            for number in range(3):
                response = await connection.create(model=MODEL, input=f"{number}" * 50_000)
                assert response.output_text
            assert connection.statistics().sockets_opened == 1


OTHER_NAME = "0.0.0.0"  # noqa: S104 - an address of this machine that is not loopback


async def test_proxy_and_exceptions_come_from_the_environment(
    proxy: RunningProxy, server_url: str, environment: pytest.MonkeyPatch
) -> None:
    options: dict[str, Any] = {"api_key": "any", "allow_insecure": True}
    url = server_url.replace("127.0.0.1", OTHER_NAME)
    assert url != server_url
    environment.setenv("ALL_PROXY", proxy.url())
    with trio.fail_after(HANG_GUARD):
        async with open_responses(url, **options) as connection:
            assert (await connection.create(model=MODEL, input="hi")).output_text
        environment.setenv("ALL_PROXY", proxy.url("wrong"))
        with pytest.raises(ProxyError):
            async with open_responses(url, **options):
                pass
        environment.setenv("NO_PROXY", OTHER_NAME)
        async with open_responses(url, **options) as connection:
            assert (await connection.create(model=MODEL, input="hi")).output_text


async def test_a_wrong_password_is_not_retried_and_not_shown(
    proxy: RunningProxy, server_url: str
) -> None:
    with trio.fail_after(HANG_GUARD), pytest.raises(ProxyError) as caught:
        async with open_responses(server_url, api_key="any", proxy=proxy.url("wrong-7hU9")):
            pass
    # tinyproxy responds with 401 to wrong credentials and with 407 to none.
    assert caught.value.status in ({None} if proxy.scheme == "socks5h" else {401, 407})
    assert not caught.value.retryable
    assert caught.value.proxy == f"127.0.0.1:{proxy.port}"
    assert "7hU9" not in repr(caught.value)


async def test_an_unreachable_server_behind_a_proxy_is_retryable(proxy: RunningProxy) -> None:
    """The proxies report the failure differently."""
    url = f"ws://127.0.0.1:{free_port()}/v1"
    options = connection_config(Tunnel(Proxy.of(proxy.url())), url=url, timeouts=PROMPT)
    with trio.fail_after(HANG_GUARD), pytest.raises(ConnectError) as caught:
        async with open_transport(options, HEADERS):
            pass
    assert caught.value.retryable


async def test_tls_to_the_server_passes_through_a_proxy(proxy: RunningProxy) -> None:
    authority = trustme.CA()
    context = server_context(authority, "localhost")

    async def script(peer: Peer) -> None:
        await echo(await secured(peer, context))

    async with serve(script) as (port, _):
        options = connection_config(
            Tunnel(Proxy.of(proxy.url())),
            url=f"wss://localhost:{port}/v1",
            ssl_context=trusting(authority),
            timeouts=PROMPT,
        )
        with trio.fail_after(HANG_GUARD):
            async with open_transport(options, HEADERS) as transport:
                assert await transport.receive() == [b"hello"]
                large = b"x" * 1024 * 1024
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(transport.send, large)
                    assert await transport.receive() == [large]


async def test_an_unreachable_proxy_is_not_bypassed(server_url: str) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    with trio.fail_after(HANG_GUARD), pytest.raises(ReconnectFailed, match="cannot be dialled"):
        async with open_responses(
            server_url, api_key="any", proxy=url, reconnect=[], transport="websocket"
        ):
            pass
