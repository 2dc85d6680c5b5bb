"""A Redis server of its own for a test: on a Unix socket, in a temporary folder."""

from __future__ import annotations

import shutil
import subprocess
from contextlib import asynccontextmanager
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import pytest
import trio

from trio_responses.stores import RedisStore

if TYPE_CHECKING:
    import signal
    from collections.abc import AsyncGenerator

__all__ = ["RedisServer", "needs_redis", "open_redis_server", "open_redis_store"]

SERVER = shutil.which("redis-server")
CLIENT = shutil.which("redis-cli")
HANG_GUARD = 300.0
"""Seconds after which the server is considered to hang."""

needs_redis = pytest.mark.skipif(
    find_spec("coredis") is None or SERVER is None or CLIENT is None,
    reason="coredis (extra 'redis'), redis-server or redis-cli is not installed",
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
