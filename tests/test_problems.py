"""docs/problems.md: every row names tests, and all of them exist."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from tests.faults.table import CLOSINGS, OPENINGS, STEERED, TURNS

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "problems.md").read_text(encoding="utf-8")
MATRIX = "tests/faults/test_matrix.py"
ROWS = re.findall(r"^\| (D?\d+) \| (?:[^|]* \| )?(`tests/[^|]*) \|$", PAGE, re.MULTILINE)


@cache
def titles(path: str) -> set[str]:
    """Return the titles of the tests of a module and its classes, or of the fault matrix."""
    if path == MATRIX:
        rows = {cell.name for cell in OPENINGS} | {cell.name for cell in TURNS}
        return rows | {cell.name for cell in STEERED} | {cell.name for cell in CLOSINGS}
    module = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    classes = [one for one in module.body if isinstance(one, ast.ClassDef)]
    body = [*module.body, *(one for scope in classes for one in scope.body)]
    functions = (one for one in body if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef))
    return {one.name.removeprefix("test_").replace("_", " ") for one in functions}


def test_every_problem_names_its_tests() -> None:
    listed = re.findall(r"^\| (\d+) \| [^`|]*[^|]*\|[^|]*\|[^|]*\|$", PAGE, re.MULTILINE)
    assert listed == [str(number) for number in range(1, 71)]
    assert [row for row, _ in ROWS] == [*listed, *(f"D{number}" for number in range(1, 25))]


@pytest.mark.parametrize(("row", "tests"), ROWS, ids=[row for row, _ in ROWS])
def test_the_tests_of_a_problem_exist(row: str, tests: str) -> None:
    for reference in tests.split("; "):
        path, _, names = reference.partition(": ")
        assert path.startswith("`tests/"), row
        known = titles(path.strip("`"))
        assert set(re.findall(r"\*([^*]+)\*", names)) <= known, row
        assert known, row
