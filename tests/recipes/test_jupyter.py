"""The recipe for notebooks: jupyter.md, with a real kernel."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

import pytest
import trio

from tests.recipes.pages import blocks
from trio_responses.testing import open_test_server

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

pytest.importorskip("nbclient", reason="nbclient is not installed: extra 'recipes'")
nbformat = pytest.importorskip("nbformat", reason="nbformat is not installed: extra 'recipes'")
pytest.importorskip("ipykernel", reason="ipykernel is not installed: extra 'recipes'")

CELLS = blocks("jupyter.md", "ipython")
OUTPUTS = blocks("jupyter.md", "output")
RUN = "import nbclient.cli; nbclient.cli.main()"
EXECUTE = [sys.executable, "-c", RUN, "--inplace", "--allow-errors", "notebook.ipynb"]
HANG_GUARD = 300.0


@pytest.fixture
async def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[Path, None]:
    """Return the empty home of a user whose environment leads to the test server."""
    async with open_test_server() as server:
        variables = {
            "HOME": str(tmp_path),
            "IPYTHONDIR": str(tmp_path / "ipython"),
            "JUPYTER_DATA_DIR": str(tmp_path / "jupyter"),
            "OPENAI_API_KEY": "sk-docs",
            "OPENAI_BASE_URL": await server.serve_tcp(),
            "PYTHONPATH": os.pathsep.join(sys.path),
        }
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        yield tmp_path


async def run_notebook(folder: Path, cells: list[str]) -> Any:
    """Run cells in a kernel of Jupyter and return the notebook with what they have printed."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    nbformat.write(notebook, folder / "notebook.ipynb")
    with trio.fail_after(HANG_GUARD):
        await trio.run_process(EXECUTE, cwd=folder, capture_stdout=True, capture_stderr=True)
    return nbformat.read(folder / "notebook.ipynb", as_version=4)


def outputs_of(notebook: Any, kind: str, field: str) -> list[str]:
    outputs = [output for cell in notebook.cells for output in cell["outputs"]]
    return [output[field] for output in outputs if output["output_type"] == kind]


async def test_the_cells_of_the_page_run_in_a_notebook(folder: Path) -> None:
    notebook = await run_notebook(folder, CELLS)
    assert outputs_of(notebook, "error", "evalue") == []
    printed = "".join(outputs_of(notebook, "stream", "text"))
    assert printed == "".join(OUTPUTS).replace("\n", "", 1)


async def test_without_the_magic_the_error_names_trio(folder: Path) -> None:
    [error] = outputs_of(await run_notebook(folder, CELLS[1:2]), "error", "evalue")
    assert "trio.run" in error
