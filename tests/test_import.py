"""The modules that `import trio_responses` imports, and those that are imported on first use."""

from __future__ import annotations

import importlib
import subprocess
import sys
from functools import cache
from importlib.metadata import version

import pytest

import trio_responses

EXTRAS = frozenset(
    {
        *("coredis", "h2", "httpcore2", "opentelemetry", "prompt_toolkit", "psycopg", "pydantic"),
        *("pytest", "python_socks", "rich", "shtab"),
    }
)
SLOW = frozenset({"argparse", "asyncio", "http", "json", "unittest"})
"""Slow modules of the standard library that the import must not need."""

A_TYPE = "trio_responses.JSONType(int)"
A_TOOL = "trio_responses.FunctionTool(lambda: None, name='nothing')"
A_COMMAND = "import trio_responses._cli"


@cache
def modules_after(statement: str) -> frozenset[str]:
    """Return the modules that a fresh process has imported after a statement."""
    done = subprocess.run(  # noqa: S603 - the statements are in this module
        [sys.executable, "-c", f"import sys\n{statement}\nprint(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    )
    return frozenset(done.stdout.split())


def test_the_import_needs_no_extra_and_no_slow_module() -> None:
    top = {name.partition(".")[0] for name in modules_after("import trio_responses")}
    assert "trio_responses" in top
    assert top & EXTRAS == set()
    assert top & SLOW <= modules_after("import trio, trio_websocket, msgspec")


@pytest.mark.parametrize("arguments", [["--help"], ["ask", "--embedded", "Hello"]])
def test_only_chat_imports_the_packages_of_its_terminal(arguments: list[str]) -> None:
    statement = f"""
from contextlib import redirect_stdout, suppress
from io import StringIO
from trio_responses._cli import main
sys.stdin = StringIO()
with redirect_stdout(StringIO()), suppress(SystemExit):
    main({arguments})
"""
    modules = modules_after(statement)
    assert "trio_responses._cli.chat.command" in modules
    assert {"prompt_toolkit", "rich"} & modules == set()


@pytest.mark.parametrize("use", [A_TYPE, A_TOOL])
def test_types_of_msgspec_do_not_import_pydantic(use: str) -> None:
    modules = modules_after(f"import trio_responses\n{use}")
    assert "trio_responses._json_types.families" in modules
    assert modules.isdisjoint({"pydantic", "trio_responses._json_types.pydantic_types"})


@pytest.mark.parametrize(
    ("module", "use"),
    [
        ("trio_responses._tools.docstrings", A_TOOL),
        ("trio_responses._json_types.compiled_type", A_TYPE),
        ("trio_responses._json_types.strict_mode", A_TYPE),
        ("trio_responses._json_types.msgspec_types", A_TYPE),
        ("trio_responses._tools.signatures", A_TOOL),
        ("trio_responses._cli.arguments", A_COMMAND),
        ("trio_responses._tools.partial_values", "import trio_responses._turn.partials"),
        ("trio_responses.otel", "import trio_responses.otel"),
        ("trio_responses.testing._server", "import trio_responses.testing"),
    ],
)
def test_a_module_is_imported_on_first_use(module: str, use: str) -> None:
    assert module not in modules_after("import trio_responses")
    assert module in modules_after(f"import trio_responses\n{use}")


def test_the_module_for_opentelemetry_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("trio_responses.otel")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "opentelemetry", None)  # as if it were not installed
    with pytest.raises(ModuleNotFoundError, match=r'pip install "trio-responses\[otel\]"'):
        importlib.import_module("trio_responses.otel")


def test_the_version_is_that_of_the_distribution() -> None:
    assert trio_responses.__version__ == version("trio-responses")
