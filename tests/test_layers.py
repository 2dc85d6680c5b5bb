"""Imports go in one direction: the contracts of pyproject.toml, and no circle of modules.

Imports that only a type checker reads count as well.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "trio_responses"
LINT_IMPORTS = """
import sys
from importlinter.cli import lint_imports
sys.exit(lint_imports(no_cache=True, limit_to_contracts=tuple(sys.argv[1:])))
"""


def lint_imports(folder: Path, *contracts: str) -> subprocess.CompletedProcess[str]:
    """Check the package in a folder against the contracts in that folder's pyproject.toml."""
    return subprocess.run(  # noqa: S603 - our own program
        [sys.executable, "-c", LINT_IMPORTS, *contracts],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


def find_circle(graph: grimp.ImportGraph) -> list[str]:
    """Return the modules of a circle of imports, or an empty list."""
    sorter = TopologicalSorter(
        {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    )
    try:
        sorter.prepare()
    except CycleError as error:
        circle: list[str] = error.args[1]
        return circle
    return []


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the package and its contracts."""
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    shutil.copytree(
        ROOT / PACKAGE, tmp_path / PACKAGE, ignore=shutil.ignore_patterns("__pycache__")
    )
    return tmp_path


def test_the_package_keeps_its_contracts() -> None:
    done = lint_imports(ROOT)
    assert done.returncode == 0, done.stdout


def test_no_module_imports_itself_by_way_of_others() -> None:
    assert find_circle(grimp.build_graph(PACKAGE, cache_dir=None)) == []


@pytest.mark.parametrize(
    ("module", "added", "contract"),
    [
        ("_wire/base.py", "from trio_responses import _errors", "layers"),
        ("_wire/base.py", "if TYPE_CHECKING:\n    from trio_responses import _errors", "layers"),
        ("_connection/__init__.py", "import trio_responses", "layers"),
        ("surplus.py", "", "layers"),
        ("_wire/base.py", "from trio_responses._wire import codec", "no-circles"),
        ("_protocol/frames.py", "import trio", "sans-io"),
    ],
    ids=["upwards", "upwards for types", "upwards by __init__", "no layer", "circle", "trio"],
)
def test_an_import_against_a_contract_is_found(
    module: str, added: str, contract: str, copy: Path
) -> None:
    with (copy / PACKAGE / module).open("a", encoding="utf-8") as file:
        file.write(f"\n{added}\n")
    done = lint_imports(copy, contract)
    assert done.returncode == 1, done.stdout
    assert "BROKEN" in done.stdout


def test_a_circle_is_found() -> None:
    graph = grimp.ImportGraph()
    for importer, imported in [("p", "p.a"), ("p.a", "p.b"), ("p.b", "p"), ("p.b", "p.c")]:
        graph.add_import(importer=importer, imported=imported)
    assert set(find_circle(graph)) == {"p", "p.a", "p.b"}
    graph.remove_import(importer="p.b", imported="p")
    assert find_circle(graph) == []
