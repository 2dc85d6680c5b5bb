"""Everything that is run on this project, one session each: ``nox -s tests``."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import nox

nox.needs_version = ">=2024.10"
nox.options.default_venv_backend = "venv"
nox.options.sessions = ["tests", "lint", "typing", "docs"]

NODE_TESTS = Path("tests/interop/node")
LOWEST = ["trio==0.27.0", "trio-websocket==0.12.1", "msgspec==0.22.0"]
SIDE_BY_SIDE = ["-n", "auto", "--maxprocesses", "4"]


@nox.session
def tests(session: nox.Session) -> None:
    """Run the test-suite with branch coverage: all of wire/ and core/ has to be covered."""
    session.install("-e", ".[tests]")
    session.run("coverage", "run", "-m", "pytest", *session.posargs)
    session.run("coverage", "report")
    if not session.posargs:
        floors = "trio_responses/_wire/*,trio_responses/_protocol/*"
        session.run("coverage", "report", f"--include={floors}", "--fail-under=100")


@nox.session
def lowest(session: nox.Session) -> None:
    """Run the test-suite with the lowest versions of the run-time dependencies."""
    session.install("-e", ".[tests]", *LOWEST)
    session.run("pytest", *SIDE_BY_SIDE, *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Check with every rule of ruff."""
    session.install("-e", ".[lint]")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def typing(session: nox.Session) -> None:
    """Check the types: mypy and pyright, both strict, and the completeness of the public ones."""
    session.install(".[typing]", "nox")
    session.run("mypy")
    session.run("pyright")
    session.run("pyright", "--verifytypes", "trio_responses", "--ignoreexternal")


@nox.session
def docs(session: nox.Session) -> None:
    """Build the site, without a network and with warnings as errors, into docs/_build/html."""
    session.install(".[docs]")
    session.run("python", "docs/check_links.py")
    strict = ("--nitpicky", "--fail-on-warning", "--keep-going", "--fresh-env", "--quiet")
    session.run("sphinx-build", *strict, "docs", "docs/_build/html")


@nox.session
def interop(session: nox.Session) -> None:
    """Run against the official SDKs and other servers."""
    session.install("-e", ".[interop]")
    if shutil.which("npm"):
        with session.chdir(NODE_TESTS):
            session.run("npm", "install", "--no-audit", "--no-fund", external=True)
    session.run("pytest", "-m", "interop", "-rs", "tests/interop", *session.posargs)


@nox.session
def examples(session: nox.Session) -> None:
    """Run the examples, with all that they are built on; Redis where there is a redis-server."""
    session.install("-e", ".[tests,examples]")
    session.run("python", "-c", "import coredis, hypercorn, quart_trio")  # else tests are skipped
    session.run("pytest", "-rs", "tests/test_examples.py", *session.posargs)


@nox.session
def package(session: nox.Session) -> None:
    """Build wheel and sdist, check them, and run the test-suite out of the sdist."""
    session.install("build", "twine")
    folder = Path(session.create_tmp()).resolve() / "package"
    shutil.rmtree(folder, ignore_errors=True)
    session.run("python", "-m", "build", "--outdir", str(folder))
    [wheel], [sdist] = folder.glob("*.whl"), folder.glob("*.tar.gz")
    session.run("twine", "check", "--strict", str(wheel), str(sdist))
    shutil.unpack_archive(sdist, folder, filter="data")
    session.run("python", "-m", "venv", str(folder / "venv"))
    python = str(folder / "venv" / ("Scripts" if os.name == "nt" else "bin") / "python")
    with session.chdir(folder / sdist.name.removesuffix(".tar.gz")):
        session.run(python, "-m", "pip", "install", "--quiet", ".[tests]", external=True)
        run_tests = (python, "-m", "pytest", "-q", "-x", *SIDE_BY_SIDE)
        session.run(*run_tests, *session.posargs, external=True)


@nox.session
def fuzz(session: nox.Session) -> None:
    """Throw arbitrary bytes at the decoder, the frame reader and the socket: --seconds 120."""
    session.install("-e", ".[tests]")
    session.run("python", "-m", "tests.fuzz.campaign", *session.posargs)


@nox.session
def soak(session: nox.Session) -> None:
    """Run many connections against a faulty server for long: --seconds 600 --connections 50."""
    session.install(".")
    session.run("python", "benchmarks/soak.py", *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """Measure against the peers, all in one run: --only burst,rtt --plot docs/_static."""
    session.install(".[bench]")
    session.run("python", "benchmarks/bytes.py")
    session.run("python", "-m", "benchmarks", *session.posargs)


@nox.session
def guard(session: nox.Session) -> None:
    """Count what a burst and a turn cost in calls and bytecodes, and compare."""
    session.install(".")
    session.run("python", "-m", "benchmarks.guard")
