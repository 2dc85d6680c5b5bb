"""Runs of pytest in a project of a user: a folder with tests, and the plugin of the package."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PLUGIN = "pytest_trio_responses"
HANG_GUARD = 600.0
"""Seconds after which a run is considered to hang: no run needs them, on a busy machine either."""


def run_pytest(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run the tests in a folder in a new process, without the settings of this suite."""
    installed = any(point.value == PLUGIN for point in entry_points(group="pytest11"))
    by_hand = () if installed else ("-p", PLUGIN)  # an old install knows no entry point yet
    kept = {name: value for name, value in os.environ.items() if "PYTEST" not in name}
    return subprocess.run(  # noqa: S603 - our own program
        [sys.executable, "-m", "pytest", *by_hand, "-p", "no:cacheprovider", *options],
        cwd=folder,
        env={**kept, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=HANG_GUARD,
        check=False,
    )
