"""nginx in front of our server: its configuration, its start, its reloads, its end.

It runs with a folder of its own and as whoever runs the tests; it listens on a free port.

What belongs elsewhere: what a client sees of it (`test_nginx.py`, `test_nginx_cuts.py`).
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

from tests.interop.programs import free_port
from trio_responses import HandshakeRejected, ReconnectFailed, ReconnectPolicy, open_responses
from trio_responses._transport.websocket import dial_tcp

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
"""What nginx has to be told, or else it speaks HTTP/1.0 to the server, without an upgrade."""


def location(upstream: str, *more: str, upgrade: str = UPGRADE) -> str:
    """Pass requests on to a server.

    :param upstream: its origin, ``http://host:port``.
    :param more: directives.
    :param upgrade: the directives that let an upgrade through.
    """
    lines = ["location / {", f"proxy_pass {upstream};", upgrade, *more, "}"]
    return "\n".join(lines)


def answer(status: int, text: str = "", *headers: str) -> str:
    """Answer every request with a status; a header is a name and a value in quotes."""
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
        """The base URL behind it."""
        return f"{self.scheme}://127.0.0.1:{self.port}/v1"

    def kill(self) -> None:
        """End it as a crash would, workers and all."""
        self.program.kill()

    def start_again(self) -> Nginx:
        """Start it with the same configuration, on the same port."""
        return self._start(self.folder, self.port, self.scheme)

    async def reload(self) -> None:
        """Have new workers take over, once; the old ones end when their connections do."""
        command = [*command_for(self.folder), "-s", "reload"]
        await trio.run_process(command, stderr=subprocess.DEVNULL)
        await trio.to_thread.run_sync(self.program.wait_for, "(gracefully shutting down)")


def installed() -> str:
    """Find nginx, which is seldom on the path of others than root."""
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin"])
    found = shutil.which("nginx", path=path)
    if found is None:
        pytest.skip("nginx is not installed")
    return found


def command_for(folder: Path) -> list[str]:
    return [installed(), "-p", str(folder), "-e", "stderr", "-c", str(folder / "nginx.conf")]


@contextmanager
def nginx_for_a_test(start: Callable[..., Program], folder: Path) -> Iterator[Starter]:
    """Have nginx for the length of a test.

    :param start: starts a program.
    :param folder: where its configuration goes.
    """
    installed()
    starter = Starter(start, folder)
    try:
        yield starter
    finally:
        for program in starter.programs:
            program.end()


class Starter:
    """Starts nginx. Made by `nginx_for_a_test`."""

    def __init__(self, start: Callable[..., Program], folder: Path) -> None:
        self._start = start
        self._folder = folder
        self.programs: list[Program] = []

    def __call__(self, server: str, *, http: str = "", main: str = "", tls: bool = False) -> Nginx:
        """Start nginx.

        :param server: the directives of its one server.
        :param http: directives for all of HTTP.
        :param main: directives for the whole program.
        :param tls: whether it speaks TLS, with ``certificate.pem`` and ``key.pem`` of its folder.
        """
        port = free_port()
        text = CONFIGURATION.format(
            user="user root;" if os.geteuid() == 0 else "",
            folder=self._folder,
            port=port,
            # http2 is what a browser would get; who does not ask for it, gets HTTP/1.1.
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


# --- Both its sides -----------------------------------------------------------------------

MODEL: Final = "gpt-5.5"
KEY: Final = "sk-interop-nginx"
PATIENCE: Final = 30
EAGER: Final = ReconnectPolicy(initial=0.01, cap=0.05, attempts=100)


async def listen(server: ResponsesServer) -> str:
    """Let a server listen, and give its origin: ``http://host:port``."""
    return (await server.serve_tcp()).removesuffix("/v1")


class Dials:
    """Dials, and counts."""

    def __init__(self) -> None:
        self.count = 0
        self._dialled = trio.Event()

    async def __call__(self, host: str, port: int) -> trio.abc.Stream:
        """Dial by TCP."""
        self.count += 1
        self._dialled.set()
        self._dialled = trio.Event()
        return await dial_tcp(host, port)

    async def reach(self, count: int) -> None:
        """Wait until somebody has dialled so often."""
        with trio.fail_after(PATIENCE):
            while self.count < count:
                await self._dialled.wait()


def open_through(url: str, **options: Any) -> AbstractAsyncContextManager[ResponsesConnection]:
    """Open a connection that, when lost, comes back at once."""
    return open_responses(url, **{"api_key": KEY, "reconnect": EAGER, **options})


async def turn(connection: ResponsesConnection, **params: Any) -> str:
    """Have a turn, and give its text."""
    with trio.fail_after(PATIENCE):
        return (await connection.create(model=MODEL, **{"input": "hi", **params})).output_text


async def failed(url: str, **options: Any) -> HandshakeRejected:
    """Fail to open a connection with what attempts there are, and give the last refusal."""
    with trio.fail_after(PATIENCE), pytest.raises(ReconnectFailed) as caught:
        async with open_through(url, **{"reconnect": [], **options}):
            pass
    assert isinstance(caught.value.__cause__, HandshakeRejected)
    return caught.value.__cause__
