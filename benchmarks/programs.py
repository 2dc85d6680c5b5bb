"""Starting the server and the clients, giving them orders, and ending them.

What belongs elsewhere: what they do (`replay.py`, `worker.py`).
"""

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
    "PYTHONDONTWRITEBYTECODE",  # to import is not to compile
)


class ProcessFailure(Exception):
    """A client did not do what it was told: its last words."""


class JsonProcess:
    """A process that is given an order a line, and answers each with a line of JSON."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(  # noqa: S603 - the commands are this folder's own
            command,
            cwd=ROOT,
            env={**environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            bufsize=1,
        )

    def ask(self, order: Mapping[str, Any], seconds: float) -> dict[str, float]:
        """Give an order and wait for the answer.

        :raises ProcessFailure: when there is none within that time.
        """
        assert self._process.stdin is not None  # noqa: S101 - opened above
        try:
            self._process.stdin.write(json.dumps(order) + "\n")
        except BrokenPipeError:
            raise ProcessFailure(self._last_words()) from None
        return self.answer(seconds)

    def answer(self, seconds: float) -> dict[str, float]:
        """Wait for a line.

        :raises ProcessFailure: when there is none within that time.
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
        return lines[-1] if lines else "it ended without a word"

    def end(self) -> None:
        """End it: by the end of its input, or else at once."""
        try:
            self._process.communicate(timeout=END_SECONDS)
        except (subprocess.TimeoutExpired, BrokenPipeError):
            self._process.kill()
            self._process.communicate()


def clean_environment(**more: str) -> dict[str, str]:
    """Give this process's environment without what would lead a client elsewhere."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.upper().startswith(SURROUNDINGS)
    }
    return {**kept, **more}


class BenchmarkServer:
    """The server, and where its clients find it."""

    def __init__(self, ports: Mapping[str, float], environment: Mapping[str, str]) -> None:
        self._ports = ports
        self._environment = environment

    @property
    def has_tls(self) -> bool:
        """Whether it could make a certificate."""
        return "secure" in self._ports

    def url(self, script: str, *, secure: bool) -> str:
        """Give the base URL at which the server follows a script."""
        scheme, port = ("https", "secure") if secure else ("http", "plain")
        return f"{scheme}://127.0.0.1:{self._ports[port]:.0f}/{script}/v1"

    def start(self, client: str) -> JsonProcess:
        """Start a client's process."""
        command = catalog.command(client)
        if client == "node" and sys.platform == "linux" and shutil.which("taskset"):
            processors = sorted(os.sched_getaffinity(0))
            command = ["taskset", "-c", str(processors[CLIENT % len(processors)]), *command]
        return JsonProcess(command, self._environment)


@contextmanager
def open_benchmark_server() -> Generator[BenchmarkServer, None, None]:
    """Run the server for the length of a block."""
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
