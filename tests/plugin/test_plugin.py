"""The pytest plugin in small projects, run by pytest processes of their own.

A process takes a second to start, so that one process runs all test files that can share it.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias
from xml.etree import ElementTree as ET

import pytest

from tests.pytest_runs import PLUGIN, ROOT, run_pytest

if TYPE_CHECKING:
    from collections.abc import Mapping
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
OPTIONS = """
@pytest.mark.responses_server(lanes=False, api_key="right")
async def test_it_knows_one_lane(responses_server, responses_connection):
    await responses_connection.create(model="m", input="Hello")
    assert responses_server.connections[0].headers["authorization"] == "Bearer right"
    async with responses_connection.lane() as lane:
        assert lane.name is None
"""
CRASH = """
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
FAILURE = """
async def test_that_fails(responses_connection):
    response = await responses_connection.create(model="m", input="Hello")
    assert response.output_text == "nothing like it"
"""
UNOFFERED = """
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
TYPO = """
async def test_with_a_mistake(responses_connection):
    await responses_connection.create("Hello", model="m", extra_body={"temprature": 1})

@pytest.mark.responses_server(unknown_parameters=True)
async def test_with_intent(responses_connection):
    await responses_connection.create("Hello", model="m", extra_body={"temprature": 1})
"""
CLOCK = """
import trio

@pytest.mark.responses_server(max_age=3600)
async def test_an_hour_is_short(responses_server, responses_connection, autojump_clock):
    await responses_connection.create(model="m", input="Hello")
    await trio.sleep(3600)
    await responses_connection.create(model="m", input="Still there?")
    assert responses_server.last_request.connection == 2
"""
OVERRIDE = """
import pytest

@pytest.fixture
def responses_server():
    return "my own"

def test_it_is_the_own_fixture(responses_server):
    assert responses_server == "my own"
"""
RUNNERS = {"pytest_trio": TRIO_MARK, "anyio": ANYIO_MARK}
SOURCES = {
    **{f"hello_{runner}": mark + HELLO for runner, mark in RUNNERS.items()},
    **{f"options_{runner}": mark + OPTIONS for runner, mark in RUNNERS.items()},
    **{f"crash_{runner}": mark + CRASH for runner, mark in RUNNERS.items()},
    **{f"failure_{runner}": mark + FAILURE for runner, mark in RUNNERS.items()},
    "unoffered": TRIO_MARK + UNOFFERED,
    "typo": TRIO_MARK + TYPO,
    "asyncio": ANYIO_MARK.replace('"trio"', '"asyncio"') + HELLO,
    "clock": TRIO_MARK + CLOCK,
    "override": OVERRIDE,
}


@dataclass
class Outcome:
    """What one test did, as pytest reported it."""

    problems: list[str]
    """The kind of each problem: ``failure`` in the test, ``error`` in its fixtures."""
    text: str


Outcomes: TypeAlias = "Mapping[str, Mapping[str, Outcome]]"
PASSED = Outcome([], "")


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> Outcomes:
    """Run all `SOURCES` in one process; return the outcome of each test by source and name."""
    folder = tmp_path_factory.mktemp("project")
    for name, source in SOURCES.items():
        (folder / f"test_{name}.py").write_text(source, encoding="utf-8")
    done = run_pytest(folder, "-q", "--strict-markers", "-W", "error", "--junitxml=report.xml")
    assert done.returncode == 1, done.stdout + done.stderr
    found: dict[str, dict[str, Outcome]] = {}
    for case in ET.parse(folder / "report.xml").iter("testcase"):  # noqa: S314 - our own file
        tests = found.setdefault(case.attrib["classname"].removeprefix("test_"), {})
        outcome = tests.setdefault(case.attrib["name"], Outcome([], ""))
        outcome.problems += [problem.tag for problem in case]
        outcome.text += "".join(case.itertext())
    assert found.keys() == SOURCES.keys()
    return found


@pytest.mark.parametrize("runner", RUNNERS)
def test_a_test_has_a_server_and_a_connection(runner: str, outcomes: Outcomes) -> None:
    assert outcomes[f"hello_{runner}"] == {"test_it_answers": PASSED}


@pytest.mark.parametrize("runner", RUNNERS)
def test_the_marker_sets_the_options_of_the_server(runner: str, outcomes: Outcomes) -> None:
    assert outcomes[f"options_{runner}"] == {"test_it_knows_one_lane": PASSED}


@pytest.mark.parametrize("runner", RUNNERS)
def test_a_crash_of_a_responder_fails_the_test(runner: str, outcomes: Outcomes) -> None:
    crashed = outcomes[f"crash_{runner}"]
    assert "the Responses server of the test had errors" in crashed["test_with_a_mistake"].text
    assert "no such city" in crashed["test_with_a_mistake"].text
    assert crashed["test_with_intent"] == PASSED


def test_a_call_of_an_unoffered_function_fails_the_test(outcomes: Outcomes) -> None:
    words = "the script calls the function 'get_wether', but the request offers: none"
    assert words in outcomes["unoffered"]["test_with_a_mistake"].text
    assert outcomes["unoffered"]["test_with_intent"] == PASSED


def test_a_typo_in_a_parameter_fails_the_test(outcomes: Outcomes) -> None:
    words = "code unknown_parameter, parameter temprature"
    assert words in outcomes["typo"]["test_with_a_mistake"].text
    assert outcomes["typo"]["test_with_intent"] == PASSED


@pytest.mark.parametrize("runner", RUNNERS)
def test_a_failing_test_reports_its_own_failure(runner: str, outcomes: Outcomes) -> None:
    failed = outcomes[f"failure_{runner}"]["test_that_fails"]
    assert failed.problems == ["failure"]  # and no error of the fixture
    assert "nothing like it" in failed.text
    assert "AssertionError" in failed.text
    assert "the Responses server" not in failed.text


def test_another_event_loop_fails_with_a_clear_message(outcomes: Outcomes) -> None:
    failed = outcomes["asyncio"]["test_it_answers"]
    assert (
        "needs Trio, but the test does not run on Trio: let the fixture anyio_backend return 'trio'"
        in failed.text
    )
    assert "RunContext" not in failed.text


def test_the_clock_of_a_test_jumps_in_the_fixtures_too(outcomes: Outcomes) -> None:
    assert outcomes["clock"] == {"test_an_hour_is_short": PASSED}


def test_a_fixture_of_the_project_overrides_the_fixture_of_the_plugin(outcomes: Outcomes) -> None:
    assert outcomes["override"] == {"test_it_is_the_own_fixture": PASSED}


def test_the_package_is_not_imported_without_the_fixtures(tmp_path: Path) -> None:
    source = """
import sys

def test_the_modules_are_missing():
    ours = {"trio_responses", "msgspec", "trio_websocket", "wsproto"}
    assert ours.isdisjoint(name.partition(".")[0] for name in sys.modules)
    assert "pytest_trio_responses" in sys.modules
"""
    (tmp_path / "test_app.py").write_text(source, encoding="utf-8")
    done = run_pytest(tmp_path, "-q", "-p", "no:trio", "-p", "no:anyio")
    assert done.returncode == 0, done.stdout + done.stderr


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
