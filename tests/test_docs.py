"""Blocks of the documentation run, and the names and files that its pages name exist."""

from __future__ import annotations

import ast
import importlib.util
import inspect
import re
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trustme

import trio_responses
import trio_responses.otel
import trio_responses.stores
import trio_responses.testing
import trio_responses.types
import trio_responses.typing
from tests.docs_pages import Page
from trio_responses import ConnectionState, DeliveryStatus, ResponsesError

if TYPE_CHECKING:
    from enum import StrEnum
    from types import ModuleType

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "trio_responses"
REFERENCE = ROOT / "docs" / "reference"
ELSEWHERE = {
    "README.md": "tests/test_readme.py",
    "docs/conversations.md": "tests/test_readme.py",
    "docs/recipes/asyncio.md": "tests/recipes/test_asyncio.py",
    "docs/recipes/azure.md": "tests/recipes/test_azure.py",
    "docs/recipes/bot.md": "tests/recipes/test_bot.py",
    "docs/recipes/fastapi.md": "tests/recipes/test_web.py",
    "docs/recipes/jupyter.md": "tests/recipes/test_jupyter.py",
    "docs/recipes/pytest.md": "tests/recipes/test_pytest.py",
    "docs/recipes/quart.md": "tests/recipes/test_web.py",
    "docs/recipes/starlette.md": "tests/recipes/test_web.py",
    "docs/testing-your-app.md": "tests/test_docs_testing.py",
}
"""Pages whose blocks are run by another test module."""
SKIPPED: dict[str, int] = {}
"""The number of blocks of a page that need a key or a network, so that they are not run."""
HOMES = (
    trio_responses,
    trio_responses.types,
    trio_responses.typing,
    trio_responses.stores,
    trio_responses.testing,
    trio_responses.otel,
)
"""The public modules."""
WRITTEN = {"benchmarks/runs/", "docs/_build/html"}
"""Folders that a program creates."""


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
    """Write the files that the page about proxies expects into the current folder."""
    monkeypatch.chdir(tmp_path)
    authority = trustme.CA()
    authority.cert_pem.write_to_path("company-ca.pem")
    authority.issue_cert("client").private_key_and_cert_chain_pem.write_to_path("client.pem")


@pytest.mark.usefixtures("files_of_the_reader")
@pytest.mark.parametrize("page", [page for page in pages() if count_blocks(page)])
def test_the_blocks_of_a_page_run(page: str, monkeypatch: pytest.MonkeyPatch) -> None:
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


@pytest.mark.parametrize("home", HOMES)
def test_the_reference_has_every_public_name_once(home: ModuleType) -> None:
    shown: Counter[str] = Counter()
    for path in REFERENCE.glob("*.md"):
        text = path.read_text(encoding="utf-8")
        for block in re.findall(rf"```{{names}} {home.__name__}\n(.*?)```", text, re.DOTALL):
            shown.update(block.split())
    assert shown == Counter(home.__all__)


def test_the_tree_of_errors_shows_the_base_classes() -> None:
    page = (REFERENCE / "errors.md").read_text(encoding="utf-8")
    tree = re.search(r"```text\n(.*?)\n```", page, re.DOTALL)
    assert tree is not None
    assert tree[1].splitlines() == branch(ResponsesError, 0)


def test_the_layers_name_every_module_of_the_package_once() -> None:
    page = (ROOT / "docs" / "explanation" / "architecture.md").read_text(encoding="utf-8")
    section = page.partition("## Layers")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| ([^|]*`[^|]*) \|", section, re.MULTILINE)
    named = Counter(name for row in rows for name in re.findall(r"`(\w+)(?:\.py|/)`", row))
    assert named == Counter(modules() - {"__init__", "__main__"})


def modules() -> set[str]:
    """Return the names of the modules and packages directly in `trio_responses`."""
    folders = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    return folders | {path.stem for path in PACKAGE.glob("*.py")}


def load_diagrams() -> dict[str, Any]:
    """Return the diagrams of `docs/make_diagrams.py` by file name."""
    spec = importlib.util.spec_from_file_location("diagrams", ROOT / "docs" / "make_diagrams.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["diagrams"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    diagrams: dict[str, Any] = module.DIAGRAMS
    return diagrams


DIAGRAMS = load_diagrams()


@pytest.mark.parametrize("name", DIAGRAMS)
def test_a_diagram_is_drawn_from_its_table(name: str) -> None:
    drawn = (ROOT / "docs" / "explanation" / name).read_text(encoding="utf-8")
    assert drawn == DIAGRAMS[name].draw()


@pytest.mark.parametrize(
    ("name", "states", "others"),
    [
        ("connection-states", ConnectionState, set[str]()),
        ("delivery", DeliveryStatus, {"a Response"}),
    ],
)
def test_a_diagram_has_every_state(name: str, states: type[StrEnum], others: set[str]) -> None:
    assert {box.name for box in DIAGRAMS[f"{name}.svg"].boxes} == {*states, *others}


@pytest.mark.parametrize("page", [*pages(), "docs/explanation/frame.svg"])
def test_the_paths_that_a_page_names_exist(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    named = set(re.findall(r"`((?:tests|docs|benchmarks|examples|testing)/[\w/.]*)`", text))
    named |= set(re.findall(r"\b_\w+/\w+\.py\b", text))  # also in the texts of pictures
    exist = {name for name in named if (ROOT / name).exists() or (PACKAGE / name).exists()}
    assert named - exist - WRITTEN == set()


def test_no_page_or_example_imports_a_private_module() -> None:
    paths = [*(ROOT / page for page in pages()), *(ROOT / "examples").glob("*.py")]
    private = re.compile(r"(from|import) trio_responses[\w.]*\._")
    found = [path.name for path in paths if private.search(path.read_text(encoding="utf-8"))]
    assert found == []


def test_the_members_hidden_from_the_reference_exist() -> None:
    source = (ROOT / "docs" / "public_names.py").read_text(encoding="utf-8")
    block = re.search(r"^INTERNAL = (\{.*?^\})", source, re.DOTALL | re.MULTILINE)
    assert block is not None
    public = [getattr(home, name) for home in HOMES for name in home.__all__]
    classes = {one for each in public if isinstance(each, type) for one in each.__mro__}
    for member in ast.literal_eval(block[1]):
        owner, _, name = member.partition(".")
        (found,) = [each for each in classes if each.__name__ == owner and is_ours(each)]
        sources = [inspect.getsource(each) for each in found.__mro__ if is_ours(each)]
        assert hasattr(found, name) or any(f"self.{name}:" in one for one in sources), member


def is_ours(kind: type) -> bool:
    """Whether a class is defined in this package."""
    return kind.__module__.startswith("trio_responses")


def branch(kind: type[BaseException], depth: int) -> list[str]:
    """Return the lines of a class and its subclasses, with the bases of other packages."""
    others = [
        base.__name__ if base.__module__ == "builtins" else f"trio.{base.__name__}"
        for base in kind.__bases__
        if not issubclass(base, ResponsesError) and base is not Exception
    ]
    lines = ["    " * depth + kind.__name__ + (f"  ({', '.join(others)})" if others else "")]
    for each in sorted(kind.__subclasses__(), key=lambda one: one.__name__):
        if getattr(trio_responses, each.__name__, None) is each:
            lines += branch(each, depth + 1)
    return lines
