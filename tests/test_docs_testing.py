"""The examples of the page about testing, run by pytest in a process of its own."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.pytest_runs import run_pytest

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "testing-your-app.md"
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
APP, *TESTS, WITH_ANYIO = BLOCKS
IMPORTS = "import trio\nfrom trio_responses import ConnectionLost, open_responses\n"
"""The imports that a reader adds for the examples."""


def run(folder: Path, *options: str) -> str:
    done = run_pytest(folder, "-v", *options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_app_passes_its_tests(tmp_path: Path) -> None:
    (tmp_path / "pytest.ini").write_text("[pytest]\ntrio_mode = true\npythonpath = .\n")
    (tmp_path / "weather.py").write_text(APP)
    (tmp_path / "test_weather.py").write_text(IMPORTS + "\n".join(TESTS))
    names = re.findall(r"async def (test_\w+)", "".join(TESTS))
    assert len(names) == 7
    report = run(tmp_path, "--strict-markers")
    for name in names:
        assert re.search(rf"::{name} PASSED", report)


def test_the_test_of_the_app_fails_for_another_answer(tmp_path: Path) -> None:
    (tmp_path / "pytest.ini").write_text("[pytest]\ntrio_mode = true\npythonpath = .\n")
    (tmp_path / "weather.py").write_text(APP.replace('"snow"', '"sunshine"'))
    (tmp_path / "test_weather.py").write_text(TESTS[0])
    with pytest.raises(AssertionError, match="1 failed"):
        run(tmp_path)


def test_the_example_with_anyio_passes(tmp_path: Path) -> None:
    pytest.importorskip("anyio")
    (tmp_path / "test_hello.py").write_text(WITH_ANYIO)
    assert "1 passed" in run(tmp_path, "--strict-markers", "-p", "no:trio")


def test_every_method_that_the_page_lists_exists() -> None:
    from trio_responses.testing import Request, ResponsesServer  # noqa: PLC0415 - only this test needs both

    rows = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line[:3] == "| `"]
    names = {name for row in rows for name in re.findall(r"`(\w+)", row.split(" | ")[0])}
    assert len(names) > 10
    for name in names:
        assert hasattr(ResponsesServer, name) or hasattr(Request, name), name
