"""The checks and programs of this project, one session each: ``nox -s lint``."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import nox

nox.needs_version = ">=2024.10"
nox.options.default_venv_backend = "venv"
nox.options.sessions = ["coverage", "lint", "typing", "docs"]

PYTHONS = ["3.11", "3.12", "3.13", "3.14"]
NODE_TESTS = Path("tests/interop/node")
WEBSOCKETS_17 = "websockets==17.4"
LOWEST = ["trio==0.27.0", "trio-websocket==0.12.1", "msgspec==0.22.0"]
ANYIO_FOR_LOWEST = "anyio<4.14"  # a newer one needs a newer Trio
SIDE_BY_SIDE = ["-n", "auto", "--maxprocesses", "4"]


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """Run the test suite on one version of Python; skipped where that version is missing."""
    # Where the variable CI is set, nox fails a session whose interpreter is missing.
    session.install("-e", ".[tests]")
    session.run("pytest", *SIDE_BY_SIDE, *session.posargs)


@nox.session
def coverage(session: nox.Session) -> None:
    """Run the test suite with branch coverage; _wire and _protocol must reach 100 %."""
    session.install("-e", ".[tests]")
    session.run("coverage", "run", "-m", "pytest", *session.posargs)
    session.run("coverage", "report")
    if not session.posargs:
        sans_io = "trio_responses/_wire/*,trio_responses/_protocol/*"
        session.run("coverage", "report", f"--include={sans_io}", "--fail-under=100")


@nox.session
def lowest(session: nox.Session) -> None:
    """Run the test suite with the lowest versions of the run-time dependencies."""
    session.install("-e", ".[tests]", *LOWEST, ANYIO_FOR_LOWEST)
    session.run("pytest", *SIDE_BY_SIDE, *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Check all rules of ruff, the formatting, and the direction of the imports."""
    session.install("-e", ".[lint]")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("lint-imports", "--no-cache")


@nox.session
def typing(session: nox.Session) -> None:
    """Check the types with mypy and pyright, both strict, and that the public ones are complete."""
    session.install(".[typing]", "nox")
    session.run("mypy")
    session.run("pyright")
    session.run("pyright", "--verifytypes", "trio_responses", "--ignoreexternal")
    session.run("pytest", "-rs", "tests/typing")


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation into docs/_build/html, without a network; warnings are errors."""
    session.install(".[docs]")
    session.run("python", "docs/check_links.py")
    strict = ("--nitpicky", "--fail-on-warning", "--keep-going", "--fresh-env", "--quiet")
    session.run("sphinx-build", *strict, "docs", "docs/_build/html")


@nox.session
def interop(session: nox.Session) -> None:
    """Run the tests against the official SDKs, proxies and servers that are installed."""
    session.install("-e", ".[interop]")
    if shutil.which("npm"):
        with session.chdir(NODE_TESTS):
            session.run("npm", "install", "--no-audit", "--no-fund", external=True)
    session.run("pytest", "-m", "interop", "-rs", "tests/interop", *session.posargs)


@nox.session
def stores(session: nox.Session) -> None:
    """Test the stores with real servers, and with workers that are killed: takes minutes."""
    session.install("-e", ".[tests]")
    sizes = os.environ.get("TRIO_RESPONSES_CHAOS", "8,50,2000,1")
    run_tests = ("pytest", "-rs", "-s", "tests/stores", "tests/conversation/durable")
    started = {"TRIO_RESPONSES_CHAOS": sizes, "TRIO_RESPONSES_ENGINES": "1"}
    session.run(*run_tests, *session.posargs, env=started)


@nox.session
def live(session: nox.Session) -> None:
    """Run the main paths with a real service: needs TRIO_RESPONSES_LIVE=1 and OPENAI_API_KEY."""
    session.install("-e", ".[tests]")
    variable = "TRIO_RESPONSES_LIVE_RECORDINGS"
    folder = os.environ.get(variable) or str(Path(session.create_tmp()).resolve() / "recordings")
    run_tests = ("pytest", "-m", "live", "-rs", "tests/live")
    session.run(*run_tests, *session.posargs, env={variable: folder})


@nox.session
def terminal(session: nox.Session) -> None:
    """Run the chat in tmux: keys, pasted text, changes of the size; skipped where it is missing."""
    session.install("-e", ".[tests]")
    session.run("pytest", "-m", "terminal", "-rs", "tests/terminal", *session.posargs)


@nox.session
def examples(session: nox.Session) -> None:
    """Run the examples and the recipes; skips what needs redis-server or Chromium without them."""
    session.install("-e", ".[tests,recipes]")
    # Without these packages the tests would be skipped instead of failing.
    needed = (
        "azure.identity, coredis, fastapi, hypercorn, ipykernel, nbclient, quart_trio, trio_asyncio"
    )
    session.run("python", "-c", f"import {needed}")
    run_tests = ("pytest", "-rs", "tests/test_examples.py", "tests/recipes")
    session.run(*run_tests, *session.posargs, env={"TRIO_RESPONSES_ENGINES": "1"})


@nox.session
def package(session: nox.Session) -> None:
    """Build the wheel and the sdist, check them, and run the test suite from the sdist."""
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
def release(session: nox.Session) -> None:
    """Set the version, commit, tag, build the wheel and the sdist, and check them: 0.2.0."""
    session.install("build", "twine")
    session.run("python", ".ci/release.py", *session.posargs)


@nox.session
def fuzz(session: nox.Session) -> None:
    """Send arbitrary bytes, and responses of arbitrary shapes: --seconds 120."""
    session.install("-e", ".[tests]")
    session.run("python", "-m", "tests.fuzz.campaign", *session.posargs)


@nox.session
def soak(session: nox.Session) -> None:
    """Run many connections against a faulty server: --seconds 600 --connections 50."""
    session.install(".")
    session.run("python", "benchmarks/soak.py", *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """Measure this library and its peers in one run: --only burst,rtt --docs docs."""
    session.install(".[bench]")
    # Two versions of websockets are compared; benchmarks/catalog.py looks for this one here.
    folder = Path(session.virtualenv.location) / "websockets-17"
    session.install("--no-deps", "--upgrade", "--target", str(folder), WEBSOCKETS_17)
    session.run("python", "benchmarks/bytes.py")
    session.run("python", "-m", "benchmarks", *session.posargs)


@nox.session
def guard(session: nox.Session) -> None:
    """Count the Python calls of an event, a turn and an opening, and compare them with limits."""
    session.install(".[http]", "trustme>=1.2")
    session.run("python", "-m", "benchmarks.guard", *session.posargs)
