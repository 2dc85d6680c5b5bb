"""The documentation does what it says: blocks run, names and files are there, floors hold."""

from __future__ import annotations

import ast
import re
from collections import Counter
from graphlib import TopologicalSorter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trustme

import trio_responses
import trio_responses.testing
from tests.docs_pages import Page
from trio_responses import ResponsesError

if TYPE_CHECKING:
    from types import ModuleType

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "trio_responses"
REFERENCE = ROOT / "docs" / "reference"
ELSEWHERE = {
    "README.md": "tests/test_readme.py",
    "docs/conversations.md": "tests/test_readme.py",
    "docs/testing-your-app.md": "tests/test_docs_testing.py",
    "docs/tools.md": "tests/test_readme.py",
}
"""Pages whose blocks another test runs."""
SKIPPED: dict[str, int] = {}
"""Blocks that nothing here can run, for want of a key or a network: how many on which page."""


def pages() -> list[str]:
    found = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    return [path.relative_to(ROOT).as_posix() for path in found if "_build" not in path.parts]


def count_blocks(page: str) -> int:
    text = (ROOT / page).read_text(encoding="utf-8")
    return len(
        re.findall(r"^ *```python$|^<!--+ *invisible-code-block: python$", text, re.MULTILINE)
    )


@pytest.fixture
def files_of_the_reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The files that the page on proxies takes for granted."""
    monkeypatch.chdir(tmp_path)
    authority = trustme.CA()
    authority.cert_pem.write_to_path("company-ca.pem")
    authority.issue_cert("client").private_key_and_cert_chain_pem.write_to_path("client.pem")


@pytest.mark.usefixtures("files_of_the_reader")
@pytest.mark.parametrize("page", [page for page in pages() if count_blocks(page)])
def test_a_page_does_what_it_says(page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if page in ELSEWHERE:
        assert Path(page).name in (ROOT / ELSEWHERE[page]).read_text(encoding="utf-8")
        return
    assert Page(ROOT / page, monkeypatch).run() == count_blocks(page) - SKIPPED.get(page, 0)


def test_only_these_blocks_are_skipped() -> None:
    comments = {
        page: len(re.findall(r"<!--+ *skip:", (ROOT / page).read_text(encoding="utf-8")))
        for page in pages()
    }
    assert {page: count for page, count in comments.items() if count} == SKIPPED


@pytest.mark.parametrize("home", [trio_responses, trio_responses.testing])
def test_the_reference_has_every_public_name_once(home: ModuleType) -> None:
    shown: Counter[str] = Counter()
    for path in REFERENCE.glob("*.md"):
        text = path.read_text(encoding="utf-8")
        for block in re.findall(rf"```{{names}} {home.__name__}\n(.*?)```", text, re.DOTALL):
            shown.update(block.split())
    assert shown == Counter(home.__all__)


def test_the_tree_of_errors_is_that_of_the_classes() -> None:
    page = (REFERENCE / "errors.md").read_text(encoding="utf-8")
    tree = re.search(r"```text\n(.*?)\n```", page, re.DOTALL)
    assert tree is not None
    assert tree[1].splitlines() == branch(ResponsesError, 0)


def floors() -> dict[str, int]:
    """Read the table of floors: a module or a folder, and where it is."""
    page = (ROOT / "docs" / "explanation" / "architecture.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d) \| (.*?) \|", page, re.MULTILINE)
    return {
        name.removesuffix(".py").removesuffix("/"): int(floor)
        for floor, where in rows
        for name in re.findall(r"`(.*?)`", where)
    }


def imported_by(path: Path, package: str = "trio_responses") -> set[str]:
    """Name what a module imports of a package when it runs, by the first part of each name."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for_types = [one for one in ast.walk(tree) if isinstance(one, ast.If) and names_types(one)]
    left_out = {id(inner) for outer in for_types for inner in ast.walk(outer)}
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and not node.level and id(node) not in left_out:
            if node.module == package:
                found |= {one.name for one in node.names}
            elif node.module and node.module.startswith(f"{package}."):
                found.add(node.module.removeprefix(f"{package}.").split(".")[0])
    return found


def names_types(node: ast.If) -> bool:
    return isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def test_a_file_imports_from_its_own_floor_and_those_below() -> None:
    floor = floors()
    assert len(floor) > len({*floor.values()}) > 1
    assert {*rooms()} - {*floor} == {"__init__", "__main__"}
    for name, own in floor.items():
        for file in rooms()[name]:
            higher = {one for one in imported_by(file) if floor.get(one, 0) > own}
            assert not higher, f"{file.name} on floor {own} imports {higher}"


def test_no_folder_imports_itself_by_way_of_others() -> None:
    graph = {name: set[str]().union(*map(imported_by, files)) for name, files in rooms().items()}
    TopologicalSorter({name: others - {name} for name, others in graph.items()}).prepare()


def test_no_file_of_a_folder_imports_itself_by_way_of_others() -> None:
    for name, files in rooms().items():
        inner = f"trio_responses.{name}"
        graph = {file.stem: imported_by(file, inner) - {file.stem} for file in files}
        TopologicalSorter(graph).prepare()


def rooms() -> dict[str, list[Path]]:
    """List the folders of the package and the files beside them, each with what is inside."""
    files = {path.stem: [path] for path in PACKAGE.glob("*.py")}
    return files | {
        path.name: sorted(path.rglob("*.py"))
        for path in PACKAGE.iterdir()
        if (path / "__init__.py").exists()
    }


@pytest.mark.parametrize("page", ["docs/explanation/architecture.md", "docs/promises.md"])
def test_the_files_that_a_page_names_are_there(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    named = set(re.findall(r"`([\w/]+(?:\.py|/))`", text))
    roots = (ROOT, PACKAGE, ROOT / "tests", ROOT / "tests" / "turn")
    assert {name for name in named if not any((root / name).exists() for root in roots)} == set()
    assert named


def branch(kind: type[BaseException], depth: int) -> list[str]:
    """Write a class and those derived from it, with the bases that are not of this package."""
    others = [
        base.__name__ if base.__module__ == "builtins" else f"trio.{base.__name__}"
        for base in kind.__bases__
        if not issubclass(base, ResponsesError) and base is not Exception
    ]
    lines = ["    " * depth + kind.__name__ + (f"  ({', '.join(others)})" if others else "")]
    for each in sorted(kind.__subclasses__(), key=lambda one: one.__name__):
        if each.__name__ in trio_responses.__all__:
            lines += branch(each, depth + 1)
    return lines
