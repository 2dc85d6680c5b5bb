"""Shares of a client's processor time, by package: what part of it is this library.

    python -m benchmarks.shares

This runs py-spy beside the process of the client ``stream`` and sums up the samples by the package
of the innermost Python function; the time of a C function counts for its caller. On Linux, py-spy
may need root, or ``kernel.yama.ptrace_scope=0``.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Final

from benchmarks import report, workloads
from benchmarks.programs import open_benchmark_server

if TYPE_CHECKING:
    from collections.abc import Iterable

    from benchmarks.programs import BenchmarkServer

MEASURED: Final = ("burst", "rtt", "paced-1000", "paced-1000-tls")
SECONDS: Final = 6
SAMPLES_A_SECOND: Final = 500
PARTS: Final = {
    "trio_responses": "this library",
    "trio/": "trio",
    "trio_websocket": "other packages",
    "site-packages": "other packages",
    "benchmarks": "the program",
}
"""What a part of a path is counted as; the first one that fits."""


def part_of(place: str) -> str:
    """Return what the place of a function, such as ``feed (a/b.py:3)``, is counted as."""
    found = (name for mark, name in PARTS.items() if mark in place)
    return next(found, "standard library")


def shares(lines: Iterable[str]) -> Counter[str]:
    """Return the samples of each part, from folded stacks: ``outer;inner 12``."""
    found = Counter[str]()
    for line in lines:
        stack, _, samples = line.rpartition(" ")
        found[part_of(stack.rpartition(";")[2])] += int(samples)
    return found


def profile(server: BenchmarkServer, workload: workloads.Workload) -> Counter[str]:
    """Return the samples of a workload that the client ``stream`` repeats."""
    client = server.start("stream")
    url = server.url(workload.script, secure=workload.secure)
    order = {**workload.order, "url": url}
    try:
        client.ask(order, workload.seconds)
        with tempfile.TemporaryDirectory() as folder:
            stacks = Path(folder) / "stacks"
            options = ["--format", "raw", "--full-filenames", "--rate", str(SAMPLES_A_SECOND)]
            options += ["--duration", str(SECONDS), "--pid", str(client.pid)]
            command = ["py-spy", "record", *options, "--output", str(stacks)]
            spy = subprocess.Popen(command, stderr=subprocess.DEVNULL)  # noqa: S603 - fixed words
            while spy.poll() is None:
                client.ask(order, workload.seconds)
            return shares(stacks.read_text(encoding="utf-8").splitlines())
    finally:
        client.end()


def main() -> None:
    """Print a table in Markdown."""
    known = {workload.name: workload for workload in workloads.ALL}
    names = sys.argv[1:] or MEASURED
    parts = list(dict.fromkeys((*PARTS.values(), "standard library")))
    rows = [["work", *parts]]
    with open_benchmark_server() as server:
        for name in names:
            found = profile(server, known[name])
            total = found.total() or 1
            rows.append(
                [known[name].title, *(f"{found[part] / total * 100:.0f} %" for part in parts)]
            )
    print(report.as_markdown(rows))


if __name__ == "__main__":
    main()
