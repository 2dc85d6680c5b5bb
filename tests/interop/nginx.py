"""nginx between the client and the test server: configuration, start, reload and end.

Each nginx has its own folder and a free port, and runs as the user that runs the tests. The second
half of the module has the client's side: connections through nginx and the turns on them.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import pytest
import trio

from tests.interop.programs import HANG_GUARD, free_port
from trio_responses import HandshakeRejected, ReconnectFailed, ReconnectPolicy, open_responses
from trio_responses._transport.dialing import dial_tcp

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from tests.interop.programs import Program
    from trio_responses import ResponsesConnection
    from trio_responses.testing import ResponsesServer

CONFIGURATION: Final = """
{user}
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log stderr notice;
{main}
events {{ worker_connections 64; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    {http}
    server {{
        listen 127.0.0.1:{port} {tls};
        server_name 127.0.0.1;
        {server}
    }}
}}
"""

TLS: Final = """
ssl_certificate {folder}/certificate.pem;
ssl_certificate_key {folder}/key.pem;
"""

UPGRADE: Final = """
proxy_http_version 1.1;
proxy_set_header Upgrade $http_upgrade;
proxy_set_header Connection "upgrade";
proxy_set_header Host $http_host;
"""
"""The directives that forward an upgrade; by default, nginx sends HTTP/1.0 without an upgrade."""


def location(upstream: str, *more: str, upgrade: str = UPGRADE) -> str:
    """Return the directives that forward all requests to a server.

    :param upstream: The origin of the server, ``http://host:port``.
    :param more: Further directives.
    :param upgrade: The directives that forward an upgrade.
    """
    lines = ["location / {", f"proxy_pass {upstream};", upgrade, *more, "}"]
    return "\n".join(lines)


def respond_with(status: int, text: str = "", *headers: str) -> str:
    """Return the directives that answer all requests with a status.

    :param text: The body in quotes, or the target of a redirect.
    :param headers: A name and a value each, separated by a space.
    """
    lines = [f"add_header {header} always;" for header in headers]
    return "\n".join(["location / {", *lines, f"return {status} {text};", "}"])


@dataclass
class Nginx:
    """A running nginx."""

    program: Program
    folder: Path
    port: int
    scheme: str
    _start: Callable[..., Nginx]

    @property
    def url(self) -> str:
        """The base URL of the test server through this nginx."""
        return f"{self.scheme}://127.0.0.1:{self.port}/v1"

    def kill(self) -> None:
        """Kill nginx and its workers at once, as in a crash."""
        self.program.kill()

    def start_again(self) -> Nginx:
        """Start nginx with the same configuration on the same port."""
        return self._start(self.folder, self.port, self.scheme)

    async def reload(self) -> None:
        """Replace the workers, and wait until the old ones accept no new connections.

        An old worker ends with its last connection. Only the first reload is awaited.
        """
        command = [*command_for(self.folder), "-s", "reload"]
        await trio.run_process(command, stderr=subprocess.DEVNULL)
        await trio.to_thread.run_sync(self.program.wait_for, "(gracefully shutting down)")


def nginx_path() -> str:
    """Return the path of nginx; skip without it. The path of a normal user often lacks sbin."""
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin"])
    found = shutil.which("nginx", path=path)
    if found is None:
        pytest.skip("nginx is not installed")
    return found


def command_for(folder: Path) -> list[str]:
    return [nginx_path(), "-p", str(folder), "-e", "stderr", "-c", str(folder / "nginx.conf")]


@contextmanager
def nginx_starter(start: Callable[..., Program], folder: Path) -> Iterator[NginxStarter]:
    """Yield a function that starts nginx; end every nginx after the block.

    :param start: Starts a program.
    :param folder: The folder of the configuration.
    """
    nginx_path()
    starter = NginxStarter(start, folder)
    try:
        yield starter
    finally:
        for program in starter.programs:
            program.end()


class NginxStarter:
    """A function that starts nginx with the directives of one test."""

    def __init__(self, start: Callable[..., Program], folder: Path) -> None:
        self._start = start
        self._folder = folder
        self.programs: list[Program] = []

    def __call__(self, server: str, *, http: str = "", main: str = "", tls: bool = False) -> Nginx:
        """Start nginx.

        :param server: The directives of the only ``server`` block.
        :param http: The directives of the ``http`` block.
        :param main: The directives outside of any block.
        :param tls: Whether nginx uses TLS, with ``certificate.pem`` and ``key.pem`` of the folder.
        """
        port = free_port()
        text = CONFIGURATION.format(
            user="user root;" if os.geteuid() == 0 else "",
            folder=self._folder,
            port=port,
            # A client that does not offer HTTP/2, as this one, uses HTTP/1.1.
            tls="ssl http2" if tls else "",
            server=server + (TLS.format(folder=self._folder) if tls else ""),
            http=http,
            main=main,
        )
        (self._folder / "nginx.conf").write_text(text)
        return self._run(self._folder, port, "https" if tls else "http")

    def _run(self, folder: Path, port: int, scheme: str) -> Nginx:
        program = self._start("nginx", *command_for(folder))
        self.programs.append(program)
        program.wait_for_port(port)
        return Nginx(program, folder, port, scheme, self._run)


# --- The client and the server --------------------------------------------------------------

MODEL: Final = "gpt-5.5"
KEY: Final = "sk-interop-nginx"
FAST_RECONNECT: Final = ReconnectPolicy(initial=0.01, cap=0.05, attempts=10_000)


async def listen(server: ResponsesServer) -> str:
    """Start listening; return the origin of the server, ``http://host:port``."""
    return (await server.serve_tcp()).removesuffix("/v1")


class CountingDialer:
    """The option ``dial`` of a connection that counts its calls.

    :param before: Called with the number of the call before each dial.
    """

    def __init__(self, before: Callable[[int], None] | None = None) -> None:
        self.count = 0
        self._before = before
        self._dialled = trio.Event()

    async def __call__(self, host: str, port: int) -> trio.abc.Stream:
        """Open a TCP stream."""
        self.count += 1
        if self._before is not None:
            self._before(self.count)
        self._dialled.set()
        self._dialled = trio.Event()
        return await dial_tcp(host, port)

    async def wait_for_count(self, count: int) -> None:
        """Wait until the number of calls has reached a count."""
        with trio.fail_after(HANG_GUARD):
            while self.count < count:
                await self._dialled.wait()


def open_through(url: str, **options: Any) -> AbstractAsyncContextManager[ResponsesConnection]:
    """Open a connection that reconnects almost without delay."""
    own: dict[str, Any] = {"api_key": KEY, "reconnect": FAST_RECONNECT, "transport": "websocket"}
    return open_responses(url, **{**own, **options})


async def run_turn(connection: ResponsesConnection, **params: Any) -> str:
    """Run one turn and return its text."""
    with trio.fail_after(HANG_GUARD):
        return (await connection.create(model=MODEL, **{"input": "hi", **params})).output_text


async def last_rejection(url: str, **options: Any) -> HandshakeRejected:
    """Open a connection, which must fail after all retries; return the last rejection."""
    with trio.fail_after(HANG_GUARD), pytest.raises(ReconnectFailed) as caught:
        async with open_through(url, **{"reconnect": [], **options}):
            pass
    assert isinstance(caught.value.__cause__, HandshakeRejected)
    return caught.value.__cause__
