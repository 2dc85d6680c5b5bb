"""The release script: what it changes in the files, and what it refuses."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import tomllib
from datetime import date
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = ROOT / ".ci" / "release.py"
DAY = date(2026, 1, 31)
CHANGELOG = """\
# Changelog

## [Unreleased]

The next one.

### Connections

- A change.

## [0.1.0] - 2025-12-01

- The first one.
"""


def load_script() -> Any:
    spec = importlib.util.spec_from_file_location("release", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


release = load_script()


def test_the_unreleased_changes_get_the_version_and_the_date() -> None:
    changed = release.set_section(CHANGELOG, "0.2.0", DAY)
    assert release.section_of(changed, "Unreleased") == ""
    assert "## [Unreleased]\n\n## [0.2.0] - 2026-01-31\n\nThe next one.\n" in changed
    assert release.section_of(changed, "0.2.0") == "The next one.\n\n### Connections\n\n- A change."
    assert release.section_of(changed, "0.1.0") == "- The first one."


def test_a_release_that_is_in_the_changelog_changes_nothing() -> None:
    changed = release.set_section(CHANGELOG, "0.2.0", DAY)
    assert release.set_section(changed, "0.2.0", date(2027, 1, 1)) == changed


def test_a_release_without_changes_is_refused() -> None:
    changed = release.set_section(CHANGELOG, "0.2.0", DAY)
    with pytest.raises(release.ReleaseError, match="no changes under"):
        release.set_section(changed, "0.3.0", DAY)


def test_the_version_alone_is_changed() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    changed = release.set_version(text, "99.0.0")
    before, after = tomllib.loads(text), tomllib.loads(changed)
    assert after["project"].pop("version") == "99.0.0"
    before["project"].pop("version")
    assert before == after


@pytest.mark.parametrize(
    ("version", "message"),
    [("0.2", "three numbers"), ("v0.2.0", "three numbers"), ("0.0.9", "lower than")],
)
def test_a_wrong_version_is_refused(version: str, message: str) -> None:
    with pytest.raises(release.ReleaseError, match=message):
        release.set_version('version = "0.1.0"\n', version)


def git(folder: Path, *arguments: str) -> str:
    command = ["git", "-c", "user.name=A", "-c", "user.email=a@example.org", *arguments]
    done = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)  # noqa: S603
    return done.stdout


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with one commit, in which the script works."""
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    for name, value in (("NAME", "A"), ("EMAIL", "a@example.org")):
        monkeypatch.setenv(f"GIT_AUTHOR_{name}", value)
        monkeypatch.setenv(f"GIT_COMMITTER_{name}", value)
    (tmp_path / "pyproject.toml").write_text('[project]\nversion = "0.1.0"\n', encoding="utf-8")
    (tmp_path / "CHANGELOG.md").write_text(CHANGELOG, encoding="utf-8")
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "-m", "Begin")
    monkeypatch.setattr(release, "ROOT", tmp_path)
    monkeypatch.setattr(release.run, "__kwdefaults__", {"cwd": tmp_path})
    return tmp_path


def test_a_release_is_a_commit_and_a_tag_with_the_changes(checkout: Path) -> None:
    assert release.commit_and_tag("0.2.0") == "v0.2.0"
    assert git(checkout, "log", "--format=%s").splitlines() == ["Release 0.2.0", "Begin"]
    assert git(checkout, "status", "--porcelain") == ""
    message = git(checkout, "tag", "--list", "--format=%(contents)", "v0.2.0")
    assert message.strip() == "0.2.0\n\nThe next one.\n\n### Connections\n\n- A change."
    assert 'version = "0.2.0"' in (checkout / "pyproject.toml").read_text(encoding="utf-8")


def test_a_release_can_be_repeated_on_its_own_commit_only(checkout: Path) -> None:
    release.commit_and_tag("0.2.0")
    assert release.commit_and_tag("0.2.0") == "v0.2.0"
    git(checkout, "commit", "--quiet", "--allow-empty", "-m", "Go on")
    with pytest.raises(release.ReleaseError, match="another commit"):
        release.commit_and_tag("0.2.0")


def test_a_checkout_with_changes_is_refused(checkout: Path) -> None:
    (checkout / "new.txt").touch()
    with pytest.raises(release.ReleaseError, match="has changes"):
        release.commit_and_tag("0.2.0")
    assert git(checkout, "tag", "--list") == ""


def test_the_changelog_has_a_section_for_the_version_of_the_package() -> None:
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.match(r"\S", release.section_of(changelog, pyproject["project"]["version"]))
