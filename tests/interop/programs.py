"""Functions that start programs of other projects, wait for their output and end them."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

MODULES_VARIABLE = "TRIO_RESPONSES_NODE_MODULES"
T = TypeVar("T")

HANG_GUARD = 600.0
"""Seconds until a test that hangs fails. No test depends on the speed of the machine."""
TERMINATE_SECONDS = 5
"""Seconds between the request to end and the kill of a program that a test no longer needs."""
POLL_SECONDS = 0.02


class Program:
    """A running program and the file that its output goes to."""

    def __init__(self, name: str, command: Sequence[str], folder: Path) -> None:
        self.name = name
        self.log = folder / "output.txt"
        with self.log.open("wb") as output:
            self._process = subprocess.Popen(  # noqa: S603 - commands of this folder
                command,
                cwd=folder,
                env=clean_environment(AGENTIC_API_HOME=str(folder)),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def wait_for(self, pattern: str) -> str:
        """Wait for a line in the output; return the first group of the pattern."""
        line = self._poll(lambda: re.search(pattern + r"\s", self.output()), pattern)
        return str(line[1])

    def wait_for_port(self, port: int) -> None:
        self._poll(lambda: accepts_connections(port), f"an open port {port}")

    def kill(self) -> None:
        """Kill the program and its children at once, as in a crash."""
        children = self._children()
        self._process.kill()
        kill_all(children)
        self._process.wait()

    def end(self) -> None:
        """Terminate the program; kill those of its processes that do not end."""
        children = self._children()
        if self._process.poll() is None:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(TERMINATE_SECONDS)
        self._process.kill()
        kill_all(children)
        self._process.wait()

    def _children(self) -> list[int]:
        return children_of(self._process.pid) if self._process.poll() is None else []

    def _poll(self, look: Callable[[], T | None], awaited: str) -> T:
        deadline = time.monotonic() + HANG_GUARD
        while time.monotonic() < deadline:
            found = look()
            if found:
                return found
            if self._process.poll() is not None:
                break
            time.sleep(POLL_SECONDS)
        raise RuntimeError(
            f"{self.name} did not reach {awaited!r}; exit code {self._process.poll()}, output:\n"
            f"{self.output()[-4000:]}"
        )


def children_of(pid: int) -> list[int]:
    """Return the ids of all descendants of a process; a launcher may end before its children."""
    table = subprocess.run(  # noqa: S603 - a command of POSIX
        [shutil.which("ps") or "ps", "-A", "-o", "pid=,ppid="],
        capture_output=True,
        check=True,
        text=True,
    )
    rows = [tuple(map(int, line.split())) for line in table.stdout.splitlines()]
    family = [pid]
    for member in family:
        family.extend(child for child, parent in rows if parent == member)
    return family[1:]


def kill_all(pids: list[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def accepts_connections(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def clean_environment(**variables: str) -> dict[str, str]:
    """Return this environment without keys, base URLs and proxies, plus the variables given."""
    unwanted = re.compile(r"OPENAI_|AGENTIC_|.*_PROXY$|PYTEST_", re.IGNORECASE)
    kept = {name: value for name, value in os.environ.items() if not unwanted.match(name)}
    return {**kept, **variables}


def node_modules() -> Path:
    """Return the folder of the npm packages that ``node/package.json`` lists; skip without it."""
    if shutil.which("node") is None:
        pytest.skip("node is not installed")
    given = os.environ.get(MODULES_VARIABLE)
    folder = Path(given) if given else Path(__file__).parent / "node" / "node_modules"
    if not folder.is_dir():
        pytest.skip(
            f"no npm packages in {folder}: run npm install in tests/interop/node,"
            f" or name a folder in {MODULES_VARIABLE}"
        )
    return folder.resolve()


def node_script(modules: Path, package: str, script: str) -> tuple[str, str]:
    path = modules / package / script
    if not path.is_file():
        pytest.skip(f"the npm package {package} is not in {modules}")
    return shutil.which("node") or "node", str(path)


def agentic_command(port: int, *, upstream: str) -> list[str]:
    return [
        *(sys.executable, "-m", "agentic_api", "serve"),
        *("--host", "127.0.0.1", "--port", str(port)),
        *("--vllm-base-url", upstream),
        *("--startup-timeout-s", str(HANG_GUARD)),
        *("--shutdown-timeout-s", str(TERMINATE_SECONDS / 2)),
    ]
