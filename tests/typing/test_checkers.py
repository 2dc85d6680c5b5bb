"""mypy and pyright, both strict, accept ``right.py`` and report exactly the mistakes."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TypeAlias

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
RIGHT = HERE / "right.py"
MISTAKES = HERE / "mistakes.py"

Place: TypeAlias = tuple[str, int]
"""The name of a file, and the number of a line from 1."""


def marked_as_mistakes() -> set[Place]:
    """Return the lines of ``mistakes.py`` that are marked."""
    lines = enumerate(MISTAKES.read_text().splitlines(), start=1)
    return {(MISTAKES.name, number) for number, line in lines if line.endswith("  # error")}


def run_checker(*command: str) -> str:
    """Run a checker at the root of the project and return its output."""
    done = subprocess.run(  # noqa: S603 - the checkers, with fixed arguments
        [sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1, done.stdout + done.stderr
    return done.stdout


def run_mypy(_tmp_path: Path) -> set[Place]:
    """Return the places of mypy's errors."""
    output = run_checker("mypy", "--no-error-summary", "--no-pretty", str(RIGHT), str(MISTAKES))
    found = re.findall(r"^(.+?):(\d+): error:", output, re.MULTILINE)
    return {(Path(path).name, int(number)) for path, number in found}


def run_pyright(tmp_path: Path) -> set[Place]:
    """Return the places of pyright's errors; the project's own configuration excludes the file."""
    for path in RIGHT, MISTAKES:
        (tmp_path / path.name).write_text(path.read_text())
    config = tmp_path / "pyrightconfig.json"
    settings = {"extraPaths": [str(ROOT)], "typeCheckingMode": "strict", "pythonVersion": "3.11"}
    config.write_text(json.dumps(settings))
    command = ["pyright", "--outputjson", "--pythonpath", sys.executable, "-p", str(config)]
    report = json.loads(run_checker(*command))
    return {
        (Path(each["file"]).name, each["range"]["start"]["line"] + 1)
        for each in report["generalDiagnostics"]
        if each["severity"] == "error"
    }


@pytest.mark.parametrize(("name", "run"), [("mypy", run_mypy), ("pyright", run_pyright)])
def test_a_checker_reports_exactly_the_mistakes(
    name: str, run: Callable[[Path], set[Place]], tmp_path: Path
) -> None:
    if find_spec(name) is None:
        pytest.skip(f"{name} is not installed; nox -s typing runs this test")
    assert run(tmp_path) == marked_as_mistakes()
