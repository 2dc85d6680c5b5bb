"""What `import trio_responses` brings in, and what it leaves to those who use it."""

from __future__ import annotations

import subprocess
import sys
from functools import cache

import pytest

EXTRAS = frozenset({"opentelemetry", "pytest", "python_socks", "rich"})
SLOW = frozenset({"argparse", "asyncio", "http", "json", "unittest"})
"""Parts of Python that cost much, and that nothing here needs to begin with."""

A_TYPE = "trio_responses.JSONType(int)"
A_TOOL = "trio_responses.FunctionTool(lambda: None, name='nothing')"
A_COMMAND = "import trio_responses._cli.program"


@cache
def modules_after(statement: str) -> frozenset[str]:
    """Name all modules of a fresh process that has run a statement."""
    done = subprocess.run(  # noqa: S603 - our own program
        [sys.executable, "-c", f"import sys, trio_responses\n{statement}\nprint(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    )
    return frozenset(done.stdout.split())


def test_the_import_brings_in_no_extra_and_nothing_slow() -> None:
    top = {name.partition(".")[0] for name in modules_after("pass")}
    assert "trio_responses" in top
    assert top & (EXTRAS | SLOW) == set()


@pytest.mark.parametrize(
    ("module", "use"),
    [
        ("trio_responses._tools.docstrings", A_TOOL),
        ("trio_responses._tools.schema_mode", A_TYPE),
        ("trio_responses._tools.json_schema", A_TYPE),
        ("trio_responses._tools.signatures", A_TOOL),
        ("trio_responses._cli.arguments", A_COMMAND),
        ("trio_responses.otel", "import trio_responses.otel"),
        ("trio_responses.testing._server", "import trio_responses.testing"),
    ],
)
def test_what_only_some_need_is_imported_where_it_is_used(module: str, use: str) -> None:
    assert module not in modules_after("pass")
    assert module in modules_after(use)
