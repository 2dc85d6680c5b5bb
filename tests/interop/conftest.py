"""Fixtures that start the programs of other projects for the tests of this folder.

A plain ``pytest`` skips these tests; ``pytest -m interop`` runs them. A test whose program or
package is missing is skipped with a reason. Each program starts once, on its own port, and ends
with the test session. The report of a failed test contains the last output of every program.
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.interop.programs import (
    HANG_GUARD,
    Program,
    agentic_command,
    free_port,
    node_modules,
    node_script,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

HERE = Path(__file__).parent
GUARD_OF_LAST_RESORT = int(HANG_GUARD) + 60
"""Seconds until a signal ends a test, also one that hangs outside of its event loop."""

programs = pytest.StashKey[list[Program]]()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    is_selected = "interop" in str(config.getoption("markexpr"))
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.interop)
            if not is_selected:
                item.add_marker(pytest.mark.skip(reason="needs other programs: pytest -m interop"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        for program in item.config.stash.get(programs, []):
            report.sections.append((f"the last output in {program.log}", program.output()[-4000:]))
    return report


@pytest.fixture(autouse=True)
def hang_guard() -> Iterator[None]:
    def fail(*_: object) -> None:
        raise TimeoutError(f"the test did not finish within {GUARD_OF_LAST_RESORT} s")

    previous = signal.signal(signal.SIGALRM, fail)
    signal.alarm(GUARD_OF_LAST_RESORT)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, previous)


@pytest.fixture(scope="session")
def start(
    tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config
) -> Iterator[Callable[..., Program]]:
    started: list[Program] = []
    pytestconfig.stash[programs] = started

    def start(name: str, *command: str) -> Program:
        program = Program(name, command, tmp_path_factory.mktemp(name))
        started.append(program)
        return program

    yield start
    for program in started:
        program.end()


@pytest.fixture(scope="session")
def modules() -> Path:
    return node_modules()


@pytest.fixture(scope="session")
def server_url(start: Callable[..., Program]) -> str:
    """Start the test server by the command line; return its base URL."""
    program = start("trio-responses", sys.executable, "-m", "trio_responses", "serve")
    return program.wait_for(r"listening on (http://\S+)")


@pytest.fixture(scope="session")
def aimock_origin(start: Callable[..., Program], modules: Path) -> str:
    script = node_script(modules, "@copilotkit/aimock", "dist/cli.js")
    program = start("aimock", *script, "--port", "0", "--fixtures", str(HERE / "aimock.json"))
    return program.wait_for(r"listening on (http://\S+)")


@pytest.fixture(scope="session")
def start_agentic(
    start: Callable[..., Program], aimock_origin: str
) -> Callable[..., tuple[Program, str]]:
    pytest.importorskip("agentic_api", reason="agentic-api is not installed")

    def start_agentic(port: int | None = None) -> tuple[Program, str]:
        """Start the gateway and wait for its port; return the program and the base URL."""
        port = port or free_port()  # agentic-api does not support port 0
        program = start("agentic", *agentic_command(port, upstream=aimock_origin))
        program.wait_for_port(port)
        return program, f"http://127.0.0.1:{port}/v1"

    return start_agentic


@pytest.fixture(scope="session")
def agentic_url(start_agentic: Callable[..., tuple[Program, str]]) -> str:
    return start_agentic()[1]


@pytest.fixture(scope="session")
def aimock_url(aimock_origin: str) -> str:
    return f"{aimock_origin}/v1"


@pytest.fixture(scope="session")
def openai_sdk() -> Any:
    pytest.importorskip("websockets", reason="openai[realtime] is not installed")
    return pytest.importorskip("openai", reason="the package openai is not installed")
