"""The recipe for tests: pytest.md, with the application of fastapi.md, under both plugins."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.pytest_runs import run_pytest
from tests.recipes.pages import blocks

if TYPE_CHECKING:
    from pathlib import Path

CONFTEST, TESTS, BACKEND = blocks("pytest.md")


@pytest.mark.parametrize("plugin", ["trio", "anyio"])
def test_the_tests_of_the_page_pass(plugin: str, tmp_path: Path) -> None:
    pytest.importorskip("fastapi", reason="FastAPI is not installed: extra 'recipes'")
    pytest.importorskip("hypercorn", reason="Hypercorn is not installed: extra 'recipes'")
    with_trio = plugin == "trio"
    mode = "trio_mode = true\n" if with_trio else ""
    (tmp_path / "pytest.ini").write_text(f"[pytest]\npythonpath = .\n{mode}")
    (tmp_path / "app.py").write_text(blocks("fastapi.md")[0])
    (tmp_path / "conftest.py").write_text(CONFTEST if with_trio else f"{CONFTEST}\n{BACKEND}")
    mark = "" if with_trio else "\nimport pytest\n\npytestmark = pytest.mark.anyio\n"
    (tmp_path / "test_app.py").write_text(TESTS + mark)
    done = run_pytest(tmp_path, *([] if with_trio else ["-p", "no:trio"]))
    assert "2 passed" in done.stdout, done.stdout + done.stderr
