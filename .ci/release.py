"""Make a release: ``nox -s release -- 0.2.0``.

The steps: set the version, give the section "Unreleased" of the changelog the version and the date,
commit, tag, build the wheel and the sdist from the tag, and check both. Nothing is uploaded: the
workflow ``release.yml`` publishes a tag that is pushed.

A step that is done already is left out, so that the command can be repeated after a failure.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import venv
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from datetime import date

ROOT: Final = Path(__file__).resolve().parent.parent
VERSION: Final = re.compile(r"^(\d+)\.(\d+)\.(\d+)$")
VERSION_LINE: Final = re.compile(r'^version = "([^"]*)"$', re.MULTILINE)
UNRELEASED: Final = "## [Unreleased]\n"
SECTION: Final = re.compile(r"^## \[([^\]]*)\].*\n", re.MULTILINE)


class ReleaseError(Exception):
    """A release cannot be made from this checkout; the message says what to do."""


def set_version(pyproject: str, version: str) -> str:
    """Return the text of ``pyproject.toml`` with a version.

    :raises ReleaseError: the version is not of the form 1.2.3, or is lower than the present one.
    """
    if VERSION.match(version) is None:
        raise ReleaseError(f"{version!r} is no version: write three numbers, such as 0.2.0")
    found = VERSION_LINE.search(pyproject)
    if found is None:
        raise ReleaseError('pyproject.toml has no line such as version = "0.2.0"')
    if _numbers(version) < _numbers(found[1]):
        raise ReleaseError(f"{version} is lower than {found[1]}, the version in pyproject.toml")
    return VERSION_LINE.sub(f'version = "{version}"', pyproject, count=1)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version))


def set_section(changelog: str, version: str, day: date) -> str:
    """Return the text of the changelog with its unreleased changes under a version and a date.

    An empty section for the next changes stays above. A changelog that has the version is returned
    as it is.

    :raises ReleaseError: there are no unreleased changes.
    """
    if version in SECTION.findall(changelog):
        return changelog
    if UNRELEASED not in changelog or not section_of(changelog, "Unreleased"):
        raise ReleaseError("CHANGELOG.md has no changes under [Unreleased]")
    return changelog.replace(UNRELEASED, f"{UNRELEASED}\n## [{version}] - {day.isoformat()}\n", 1)


def section_of(changelog: str, name: str) -> str:
    """Return the text of one section of the changelog, without its heading; empty if missing."""
    for found in SECTION.finditer(changelog):
        if found[1] == name:
            after = SECTION.search(changelog, found.end())
            return changelog[found.end() : after.start() if after else None].strip()
    return ""


def run(*command: str, cwd: Path = ROOT) -> str:
    """Run a program and return its output.

    :raises ReleaseError: the program has failed.
    """
    print("+", *command, flush=True)
    done = subprocess.run(command, cwd=cwd, stdout=subprocess.PIPE, text=True, check=False)  # noqa: S603
    if done.returncode:
        raise ReleaseError(f"{' '.join(command)} has failed: exit status {done.returncode}")
    return done.stdout.strip()


def commit_and_tag(version: str) -> str:
    """Set the version and the section of the changelog, commit and tag; return the tag.

    :raises ReleaseError: the checkout has other changes, or the tag is of another commit.
    """
    tag = f"v{version}"
    if run("git", "status", "--porcelain"):
        raise ReleaseError("the checkout has changes: commit them first")
    if run("git", "tag", "--list", tag):
        if run("git", "rev-parse", f"{tag}^{{commit}}") != run("git", "rev-parse", "HEAD"):
            raise ReleaseError(f"{tag} is the tag of another commit")
        return tag
    pyproject, changelog = ROOT / "pyproject.toml", ROOT / "CHANGELOG.md"
    texts = {
        pyproject: set_version(pyproject.read_text(encoding="utf-8"), version),
        changelog: set_section(
            changelog.read_text(encoding="utf-8"), version, datetime.now(UTC).date()
        ),
    }
    for path, text in texts.items():
        path.write_text(text, encoding="utf-8")
    if run("git", "status", "--porcelain"):
        run("git", "commit", "--quiet", "--message", f"Release {version}", *map(str, texts))
    notes = section_of(texts[changelog], version)
    # Lines of the changelog that begin with # are headings, not comments.
    run("git", "tag", "--annotate", "--cleanup=verbatim", "--message", f"{version}\n\n{notes}", tag)
    return tag


def build(tag: str, folder: Path) -> tuple[Path, Path]:
    """Build the wheel and the sdist from a tag, and check that their descriptions can be shown.

    :param folder: where they are put; must be empty.
    """
    with tempfile.TemporaryDirectory() as checkout:
        run("git", "clone", "--quiet", "--branch", tag, "--depth", "1", ROOT.as_uri(), checkout)
        run(sys.executable, "-m", "build", "--outdir", str(folder), cwd=Path(checkout))
    [wheel], [sdist] = folder.glob("*.whl"), folder.glob("*.tar.gz")
    run(sys.executable, "-m", "twine", "check", "--strict", str(wheel), str(sdist))
    return wheel, sdist


def try_wheel(wheel: Path, version: str) -> None:
    """Install the wheel in an environment of its own, and run its demonstration.

    :raises ReleaseError: the demonstration fails, or says another version.
    """
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=True)
        programs = Path(folder) / ("Scripts" if sys.platform == "win32" else "bin")
        run(str(programs / "python"), "-m", "pip", "install", "--quiet", str(wheel))
        said = run(str(programs / "trio-responses"), "--version")
        if version not in said.split():
            raise ReleaseError(f"the wheel of {version} says that it is {said}")
        run(str(programs / "trio-responses"), "demo")


def main() -> None:
    """Make the release that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("version", help="three numbers, such as 0.2.0")
    parser.add_argument("--outdir", type=Path, default=ROOT / "dist", help="default: dist")
    arguments = parser.parse_args()
    folder: Path = arguments.outdir
    try:
        if folder.exists() and any(folder.iterdir()):
            raise ReleaseError(f"{folder} is not empty: remove it")
        tag = commit_and_tag(arguments.version)
        wheel, sdist = build(tag, folder)
        try_wheel(wheel, arguments.version)
    except ReleaseError as error:
        sys.exit(f"release: {error}")
    print(f"{tag}: {wheel.name} and {sdist.name} are in {folder}.")
    print(f"To publish them, push the tag: git push origin {tag}")


if __name__ == "__main__":
    main()
