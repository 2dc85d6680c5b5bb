"""The pytest plugin in small projects, each run by its own pytest process."""

from __future__ import annotations

import tomllib
from typing import TYPE_CHECKING, TypeAlias

import pytest

from tests.pytest_runs import PLUGIN, ROOT, run_pytest

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable
    from pathlib import Path

TRIO_MARK = "import pytest\npytestmark = pytest.mark.trio\n"
ANYIO_MARK = """
import pytest
pytestmark = pytest.mark.anyio

@pytest.fixture
def anyio_backend():
    return "trio"
"""
HELLO = """
async def test_it_answers(responses_server, responses_connection):
    responses_server.reply("Good morning!")
    response = await responses_connection.create(model="m", input="Hello")
    assert response.output_text == "Good morning!"
    assert responses_server.last_request.text == "Hello"
    responses_server.assert_all_scripts_used()
"""
RUNNERS = {"pytest_trio": TRIO_MARK, "anyio": ANYIO_MARK}

Run: TypeAlias = "Callable[..., subprocess.CompletedProcess[str]]"


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Return a function that runs a test file in a project of its own, outside this suite."""

    def run(source: str, *options: str) -> subprocess.CompletedProcess[str]:
        (tmp_path / "test_app.py").write_text(source, encoding="utf-8")
        return run_pytest(tmp_path, "-q", *options)

    return run


@pytest.mark.parametrize("runner", RUNNERS)
def test_a_test_has_a_server_and_a_connection(runner: str, run: Run) -> None:
    pytest.importorskip(runner)
    done = run(RUNNERS[runner] + HELLO, "--strict-markers", "-W", "error")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout


@pytest.mark.parametrize("runner", RUNNERS)
def test_the_marker_sets_the_options_of_the_server(runner: str, run: Run) -> None:
    pytest.importorskip(runner)
    source = """
@pytest.mark.responses_server(lanes=False, api_key="right")
async def test_it_knows_one_lane(responses_server, responses_connection):
    await responses_connection.create(model="m", input="Hello")
    assert responses_server.connections[0].headers["authorization"] == "Bearer right"
    async with responses_connection.lane() as lane:
        assert lane.name is None
"""
    done = run(RUNNERS[runner] + source, "--strict-markers", "-W", "error")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("runner", RUNNERS)
def test_a_crash_of_a_responder_fails_the_test(runner: str, run: Run) -> None:
    pytest.importorskip(runner)
    source = """
from trio_responses import APIError

def crash(request):
    raise KeyError("no such city")

async def test_with_a_mistake(responses_server, responses_connection):
    responses_server.respond_with(crash)
    with pytest.raises(APIError):
        await responses_connection.create(model="m", input="Hello")

async def test_with_intent(responses_server, responses_connection):
    responses_server.respond_with(crash)
    with pytest.raises(APIError):
        await responses_connection.create(model="m", input="Hello")
    assert [str(error) for error in responses_server.errors] == ["'no such city'"]
    responses_server.errors.clear()
"""
    done = run(RUNNERS[runner] + source)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "the Responses server of the test had errors" in done.stdout
    assert "no such city" in done.stdout
    assert "test_with_intent" not in done.stdout


def test_a_call_of_an_unoffered_function_fails_the_test(run: Run) -> None:
    source = """
from trio_responses import APIError

async def test_with_a_mistake(responses_server, responses_connection):
    responses_server.call("get_wether", {"city": "Oslo"})
    with pytest.raises(APIError):
        await responses_connection.create(model="m", input="Hello")

async def test_with_intent(responses_server, responses_connection):
    responses_server.call("get_wether", unoffered=True)
    response = await responses_connection.create(model="m", input="Hello")
    assert response.function_calls[0].name == "get_wether"
"""
    done = run(TRIO_MARK + source)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "the script calls the function 'get_wether', but the request offers: none" in done.stdout
    assert "test_with_intent" not in done.stdout


def test_a_typo_in_a_parameter_fails_the_test(run: Run) -> None:
    source = """
async def test_that_fails(responses_connection):
    await responses_connection.create("Hello", model="m", extra_body={"temprature": 1})

@pytest.mark.responses_server(unknown_parameters=True)
async def test_with_intent(responses_connection):
    await responses_connection.create("Hello", model="m", extra_body={"temprature": 1})
"""
    done = run(TRIO_MARK + source)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "code unknown_parameter, parameter temprature" in done.stdout
    assert "test_with_intent" not in done.stdout


@pytest.mark.parametrize("runner", RUNNERS)
def test_a_failing_test_reports_its_own_failure(runner: str, run: Run) -> None:
    pytest.importorskip(runner)
    source = """
async def test_that_fails(responses_connection):
    response = await responses_connection.create(model="m", input="Hello")
    assert response.output_text == "nothing like it"
"""
    done = run(RUNNERS[runner] + source)
    assert done.returncode == 1
    assert "nothing like it" in done.stdout
    assert "AssertionError" in done.stdout
    assert "the Responses server" not in done.stdout
    assert "1 failed in" in done.stdout.splitlines()[-1]  # and no error of the fixture


def test_another_event_loop_fails_with_a_clear_message(run: Run) -> None:
    pytest.importorskip("anyio")
    done = run(ANYIO_MARK.replace('"trio"', '"asyncio"') + HELLO)
    assert done.returncode == 1, done.stdout + done.stderr
    assert (
        "needs Trio, but the test does not run on Trio: let the fixture anyio_backend return 'trio'"
        in done.stdout
    )
    assert "RunContext" not in done.stdout


def test_the_clock_of_a_test_jumps_in_the_fixtures_too(run: Run) -> None:
    source = """
import trio

@pytest.mark.responses_server(max_age=3600)
async def test_an_hour_is_short(responses_server, responses_connection, autojump_clock):
    await responses_connection.create(model="m", input="Hello")
    await trio.sleep(3600)
    await responses_connection.create(model="m", input="Still there?")
    assert responses_server.last_request.connection == 2
"""
    done = run(TRIO_MARK + source)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_package_is_not_imported_without_the_fixtures(run: Run) -> None:
    source = """
import sys

def test_the_modules_are_missing():
    ours = {"trio_responses", "msgspec", "trio_websocket", "wsproto"}
    assert ours.isdisjoint(name.partition(".")[0] for name in sys.modules)
    assert "pytest_trio_responses" in sys.modules
"""
    done = run(source, "-p", "no:trio", "-p", "no:anyio")
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_fixture_of_the_project_overrides_the_fixture_of_the_plugin(run: Run) -> None:
    source = """
import pytest

@pytest.fixture
def responses_server():
    return "my own"

def test_it_is_the_own_fixture(responses_server):
    assert responses_server == "my own"
"""
    assert run(source).returncode == 0


def test_the_plugin_does_not_override_the_fixtures_of_this_suite() -> None:
    """The suite has a fixture ``server`` of its own."""
    source = (ROOT / f"{PLUGIN}.py").read_text(encoding="utf-8")
    named = [line.split("def ")[1].split("(")[0] for line in source.splitlines() if "def " in line]
    assert named == ["pytest_configure", "responses_server", "responses_connection"]


def test_the_package_registers_the_plugin() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert PLUGIN in project["project"]["entry-points"]["pytest11"].values()
    targets = project["tool"]["hatch"]["build"]["targets"]
    assert f"{PLUGIN}.py" in targets["wheel"]["only-include"]
    assert f"{PLUGIN}.py" in targets["sdist"]["include"]
