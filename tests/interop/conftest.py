"""Programs of others, beside which the tests of this folder run the project.

A plain ``pytest`` skips them; ``pytest -m interop`` runs those whose counterpart is installed.
Every program is started once, on a port of its own, and is gone when the tests are over. What it
printed is shown with each failure.
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.interop.programs import (
    Program,
    agentic_command,
    free_port,
    node_modules,
    node_script,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

HERE = Path(__file__).parent
PATIENCE = 90
"""Seconds that one test may take. It ends a counterpart that has fallen silent."""

programs = pytest.StashKey[list[Program]]()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    asked_for = "interop" in str(config.getoption("markexpr"))
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.interop)
            if not asked_for:
                item.add_marker(pytest.mark.skip(reason="drives programs of others: -m interop"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        for program in item.config.stash.get(programs, []):
            report.sections.append((f"the end of {program.log}", program.printed()[-4000:]))
    return report


@pytest.fixture(autouse=True)
def deadline() -> Iterator[None]:
    def give_up(*_: object) -> None:
        raise TimeoutError(f"not done within {PATIENCE} s")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(PATIENCE)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


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
def our_url(start: Callable[..., Program]) -> str:
    """Serve with our command line, as a user would."""
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
        """Start the gateway and wait for it; it takes no port 0, so one is chosen for it."""
        port = port or free_port()
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
