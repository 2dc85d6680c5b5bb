"""A Redis server of its own for a test: on a Unix socket, in a temporary folder."""

from __future__ import annotations

import shutil
import subprocess
from contextlib import asynccontextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import pytest
import trio

from tests.stores.engines import REASON, STARTS_ENGINES
from trio_responses.stores import RedisStore

if TYPE_CHECKING:
    import signal
    from collections.abc import AsyncGenerator

__all__ = [
    "Proxy",
    "RedisServer",
    "needs_redis",
    "open_proxy",
    "open_redis_server",
    "open_redis_store",
]

SERVER = shutil.which("redis-server")
CLIENT = shutil.which("redis-cli")
HANG_GUARD = 300.0
"""Seconds after which the server is considered to hang."""

needs_redis = pytest.mark.skipif(
    not STARTS_ENGINES or find_spec("coredis") is None or SERVER is None or CLIENT is None,
    reason=(
        "coredis (extra 'redis'), redis-server or redis-cli is not installed"
        if STARTS_ENGINES
        else REASON
    ),
)


class RedisServer:
    """A server that writes an append-only file, so that it keeps its data over a restart.

    :param options: options of ``redis-server``, after those that every server has.
    """

    def __init__(self, folder: str, *options: str) -> None:
        self.path = Path(folder) / "redis"
        self.url = f"unix://{self.path}"
        self.options: list[str] = ["--port", "0", "--unixsocket", str(self.path), "--dir", folder]
        self.options += ["--save", "", "--appendonly", "yes", *options]
        self._process: subprocess.Popen[bytes] | None = None

    async def start(self) -> None:
        """Start the server, and wait until it has read its data."""
        self.path.unlink(missing_ok=True)
        self._process = subprocess.Popen(  # noqa: ASYNC220, S603 - starting does not block
            [str(SERVER), *self.options], stdout=subprocess.DEVNULL
        )
        with trio.fail_after(HANG_GUARD):
            while not (await self.command("ping")).startswith(("PONG", "NOAUTH")):
                assert self._process.poll() is None, "redis-server has ended"
                await trio.sleep(0.01)

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal: ``SIGSTOP`` pauses the server, ``SIGCONT`` resumes it."""
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        """End the server at once, by ``SIGKILL``."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    async def restart(self) -> None:
        """Kill the server, and start it with its data."""
        self.kill()
        await self.start()

    async def command(self, *arguments: str | int) -> str:
        """Run ``redis-cli``, and return what it prints."""
        command = [str(CLIENT), "-s", str(self.path), *map(str, arguments)]
        done = await trio.run_process(
            command, capture_stdout=True, capture_stderr=True, check=False
        )
        return (done.stdout or done.stderr).decode().strip()


@asynccontextmanager
async def open_redis_server(*options: str) -> AsyncGenerator[RedisServer, None]:
    """Run a server for the length of the block."""
    with TemporaryDirectory() as folder:  # the path of a socket must be short
        server = RedisServer(folder, *options)
        try:
            await server.start()
            yield server
        finally:
            server.kill()


@asynccontextmanager
async def open_redis_store(**options: Any) -> AsyncGenerator[RedisStore, None]:
    """Open a store on a server of its own.

    :param options: options of `RedisStore`.
    """
    async with open_redis_server() as server, RedisStore(server.url, **options) as store:
        yield store


class Proxy:
    """A proxy before a server, which can stop to forward without closing a connection."""

    def __init__(self, path: Path, nursery: trio.Nursery, target: RedisServer) -> None:
        self.url = f"unix://{path}"
        self.target = target
        self._path = path
        self._nursery = nursery
        self._scopes: list[trio.CancelScope] = []

    def stall(self) -> None:
        """Stop to forward what goes over the connections that are open now."""
        for scope in self._scopes:
            scope.cancel()

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Accept connections."""
        with trio.socket.socket(trio.socket.AF_UNIX) as listener:
            await listener.bind(str(self._path))
            listener.listen()
            task_status.started()
            while True:
                accepted, _ = await listener.accept()
                self._nursery.start_soon(self._forward, trio.SocketStream(accepted))

    async def _forward(self, client: trio.SocketStream) -> None:
        async with client, await trio.open_unix_socket(str(self.target.path)) as server:
            with trio.CancelScope() as scope:
                self._scopes.append(scope)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._copy, client, server, nursery.cancel_scope)
                    nursery.start_soon(self._copy, server, client, nursery.cancel_scope)
            if scope.cancelled_caught:
                await trio.sleep_forever()

    async def _copy(
        self, source: trio.SocketStream, target: trio.SocketStream, ended: trio.CancelScope
    ) -> None:
        with suppress(trio.BrokenResourceError):
            async for data in source:
                await target.send_all(data)
        ended.cancel()


@asynccontextmanager
async def open_proxy(target: RedisServer) -> AsyncGenerator[Proxy, None]:
    """Run a proxy for the length of the block."""
    with TemporaryDirectory() as folder:
        async with trio.open_nursery() as nursery:
            proxy = Proxy(Path(folder) / "proxy", nursery, target)
            await nursery.start(proxy.run)
            yield proxy
            nursery.cancel_scope.cancel()
