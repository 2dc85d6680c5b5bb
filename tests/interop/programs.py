"""Starting programs of others, waiting for them, and ending them."""

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

START_SECONDS = 30
END_SECONDS = 5
POLL_SECONDS = 0.02


class Program:
    """A running program, and the file that it prints to."""

    def __init__(self, name: str, command: Sequence[str], folder: Path) -> None:
        self.name = name
        self.log = folder / "output.txt"
        with self.log.open("wb") as output:
            self._process = subprocess.Popen(  # noqa: S603 - the commands are this folder's own
                command,
                cwd=folder,
                env=clean_environment(AGENTIC_API_HOME=str(folder)),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def printed(self) -> str:
        return self.log.read_text(errors="replace")

    def wait_for(self, pattern: str) -> str:
        """Wait until it has printed a line, and give the first group of the pattern."""
        line = self._poll(lambda: re.search(pattern + r"\s", self.printed()), pattern)
        return str(line[1])

    def wait_for_port(self, port: int) -> None:
        self._poll(lambda: answers(port), f"an open port {port}")

    def kill(self) -> None:
        """End it as a crash would: at once, and its children with it."""
        children = self._children()
        self._process.kill()
        kill_all(children)
        self._process.wait()

    def end(self) -> None:
        """Ask it to end, as a service manager would, and kill what does not."""
        children = self._children()
        if self._process.poll() is None:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(END_SECONDS)
        self._process.kill()
        kill_all(children)
        self._process.wait()

    def _children(self) -> list[int]:
        return children_of(self._process.pid) if self._process.poll() is None else []

    def _poll(self, look: Callable[[], T | None], what: str) -> T:
        give_up_at = time.monotonic() + START_SECONDS
        while time.monotonic() < give_up_at:
            found = look()
            if found:
                return found
            if self._process.poll() is not None:
                break
            time.sleep(POLL_SECONDS)
        raise RuntimeError(
            f"{self.name} gave no sign of {what}; exit code {self._process.poll()}, it printed:\n"
            f"{self.printed()[-4000:]}"
        )


def children_of(pid: int) -> list[int]:
    """Give what a process has started, and they in turn: a launcher ends before its children."""
    table = subprocess.run(  # noqa: S603 - of POSIX
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


def answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def clean_environment(**variables: str) -> dict[str, str]:
    """Give a child what it needs of this environment: no keys, no base URLs, no proxies."""
    unwanted = re.compile(r"OPENAI_|AGENTIC_|.*_PROXY$|PYTEST_", re.IGNORECASE)
    kept = {name: value for name, value in os.environ.items() if not unwanted.match(name)}
    return {**kept, **variables}


def node_modules() -> Path:
    """Find the npm packages that ``node/package.json`` names."""
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
        *("--startup-timeout-s", str(START_SECONDS)),
        *("--shutdown-timeout-s", str(END_SECONDS / 2)),
    ]
