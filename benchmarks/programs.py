"""Processes of the server and of the clients: starting, sending orders, stopping."""

from __future__ import annotations

import json
import os
import selectors
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final

from benchmarks import catalog
from benchmarks.processors import CLIENT
from benchmarks.replay import CERTIFICATE

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence

ROOT: Final = Path(__file__).resolve().parent.parent
END_SECONDS: Final = 5.0
START_SECONDS: Final = 30.0
SURROUNDINGS: Final = (
    "OPENAI_",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "NO_PROXY",
    "PYTHONDONTWRITEBYTECODE",  # imports must not include compilation
)


class ProcessFailure(Exception):
    """A process did not answer. The message has the last line of its error output."""


class JsonProcess:
    """A process that reads one JSON order a line and answers each with a line of JSON."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(  # noqa: S603 - all commands come from this package
            command,
            cwd=ROOT,
            env={**environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            bufsize=1,
        )

    @property
    def pid(self) -> int:
        """The number of the process."""
        return self._process.pid

    def ask(self, order: Mapping[str, Any], seconds: float) -> dict[str, float]:
        """Send an order and wait for the answer.

        :raises ProcessFailure: when no answer arrives within ``seconds``.
        """
        assert self._process.stdin is not None  # noqa: S101 - opened above
        try:
            self._process.stdin.write(json.dumps(order) + "\n")
        except BrokenPipeError:
            raise ProcessFailure(self._last_words()) from None
        return self.answer(seconds)

    def answer(self, seconds: float) -> dict[str, float]:
        """Wait for a line of output.

        :raises ProcessFailure: when no line arrives within ``seconds``.
        """
        assert self._process.stdout is not None  # noqa: S101 - opened above
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            if not selector.select(seconds):
                raise ProcessFailure(f"no answer within {seconds:.0f} s")
        line = self._process.stdout.readline()
        if not line:
            raise ProcessFailure(self._last_words())
        answer: dict[str, float] = json.loads(line)
        return answer

    def _last_words(self) -> str:
        assert self._process.stderr is not None  # noqa: S101 - opened above
        lines = self._process.stderr.read().strip().splitlines()
        return lines[-1] if lines else "the process ended without an error message"

    def end(self) -> None:
        """Close the input of the process, and kill the process if it does not end."""
        try:
            self._process.communicate(timeout=END_SECONDS)
        except (subprocess.TimeoutExpired, BrokenPipeError):
            self._process.kill()
            self._process.communicate()


def clean_environment(**more: str) -> dict[str, str]:
    """Return the environment of this process without proxies and OpenAI variables."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.upper().startswith(SURROUNDINGS)
    }
    return {**kept, **more}


class BenchmarkServer:
    """The address of the running replay server, for clients."""

    def __init__(self, ports: Mapping[str, float], environment: Mapping[str, str]) -> None:
        self._ports = ports
        self._environment = environment

    @property
    def has_tls(self) -> bool:
        """Whether the server listens with TLS."""
        return "secure" in self._ports

    def url(self, script: str, *, secure: bool) -> str:
        """Return the base URL at which the server follows a script."""
        scheme, port = ("https", "secure") if secure else ("http", "plain")
        return f"{scheme}://127.0.0.1:{self._ports[port]:.0f}/{script}/v1"

    def start(self, client: str) -> JsonProcess:
        """Start the process of a client."""
        command = catalog.command(client)
        if client == "node" and sys.platform == "linux" and shutil.which("taskset"):
            processors = sorted(os.sched_getaffinity(0))
            command = ["taskset", "-c", str(processors[CLIENT % len(processors)]), *command]
        return JsonProcess(command, self._environment)


@contextmanager
def open_benchmark_server() -> Generator[BenchmarkServer, None, None]:
    """Run the replay server for the block."""
    with TemporaryDirectory() as folder:
        certificate = str(Path(folder) / CERTIFICATE)
        trust = {"SSL_CERT_FILE": certificate, "NODE_EXTRA_CA_CERTS": certificate}
        server = JsonProcess(
            [sys.executable, "-m", "benchmarks.replay", folder], clean_environment()
        )
        try:
            ports = server.answer(START_SECONDS)
            yield BenchmarkServer(ports, clean_environment(**(trust if "secure" in ports else {})))
        finally:
            server.end()
