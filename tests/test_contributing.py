"""The commands and files that CONTRIBUTING.md and the workflows name exist."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
GUIDE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))  # none in an sdist
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def find_sessions() -> set[str]:
    """Return the names of the sessions of noxfile.py."""
    tree = ast.parse((ROOT / "noxfile.py").read_text(encoding="utf-8"))
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    return {node.name for node in functions if node.decorator_list}


def test_the_guide_names_every_session_and_no_other() -> None:
    named = re.findall(r"nox -s ([a-z]+)", GUIDE)
    assert set(named) == find_sessions()


def test_the_guide_names_every_layer_from_top_to_bottom() -> None:
    contract = next(c for c in PYPROJECT["tool"]["importlinter"]["contracts"] if "layers" in c)
    layers = [
        {name for name in re.split(r" [:|] ", layer) if not name.startswith("(")}
        for layer in contract["layers"]
        if layer != "__main__"
    ]
    rows = re.findall(r"^\| (`[_a-z`, ]+`) \|", GUIDE.partition("## Layers")[2], re.MULTILINE)
    assert [set(re.findall(r"\w+", row)) for row in rows] == layers


def test_the_page_on_installation_names_every_extra() -> None:
    page = (ROOT / "docs" / "install.md").read_text(encoding="utf-8").partition("## Extras")[2]
    rows = re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)
    others = re.findall(r"`(\w+)`", page[page.index("The extras") :])
    assert {*rows, *others} == set(PYPROJECT["project"]["optional-dependencies"])


def test_the_guide_names_files_that_exist() -> None:
    paths = set(re.findall(r"`((?:docs|tests|trio_responses)/[\w./]+)`", GUIDE))
    built = {"docs/_build/html"}
    assert built < paths
    assert {path for path in paths if not (ROOT / path).exists()} <= built


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_runs_sessions_that_exist(workflow: Path) -> None:
    text = workflow.read_text(encoding="utf-8")
    used = re.findall(r"nox --session \"([a-z]+)[-\"]", text)
    for names in re.findall(r"session: \[(.*)\]", text):
        used += names.split(", ")
    assert used
    assert set(used) <= find_sessions()


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_may_only_read(workflow: Path) -> None:
    text = workflow.read_text(encoding="utf-8")
    allowed = re.findall(r"^ *permissions:\n((?: +[a-z-]+: [a-z]+.*\n)+)", text, re.MULTILINE)
    assert allowed[0] == "  contents: read\n"
    # A job that publishes proves who it is with a token of the run. It reads nothing else.
    rights = [right.split("#")[0].strip() for job in allowed[1:] for right in job.splitlines()]
    assert rights == (["id-token: write"] if workflow.name == "release.yml" else [])
    assert "secrets." not in text
