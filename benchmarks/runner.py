"""The runner: it measures all clients of a workload, round by round, in shuffled order.

The process of a client serves all workloads, except those that ask for a fresh process.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import platform
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from benchmarks import catalog
from benchmarks.programs import ROOT, ProcessFailure, clean_environment, open_benchmark_server
from benchmarks.results import Results, WorkloadSamples
from benchmarks.workloads import CALLS, IMPORT, IMPORTS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from benchmarks.programs import BenchmarkServer, JsonProcess
    from benchmarks.workloads import Workload

SLOW_SECONDS: Final = 5.0
"""A client whose turns take longer has one sample."""
TIMED_IMPORT: Final = (
    "import time; {before}; start = time.perf_counter(); {timed}; "
    "print(time.perf_counter() - start)"
)
MICROSECONDS: Final = 1e6


class Runner:
    """A runner of workloads against one server.

    :param rounds: the number of samples of each client; by default that of the workload.
    :param clients: the names of the measured clients; all installed ones, if empty.
    """

    def __init__(self, server: BenchmarkServer, *, rounds: int | None, clients: set[str]) -> None:
        self._server = server
        self._rounds = rounds
        self._processes: dict[str, JsonProcess] = {}
        self._clients = {
            name
            for name, entry in catalog.CLIENTS.items()
            if entry.version and (not clients or name in clients)
        }

    def run(self, workload: Workload) -> WorkloadSamples:
        """Measure one workload."""
        measured = WorkloadSamples()
        clients = [name for name in workload.clients if name in self._clients]
        slow: set[str] = set()
        for _ in range(self._rounds or workload.rounds):
            for client in random.sample(clients, len(clients)):
                if client in slow or client in measured.failures:
                    continue
                start = time.perf_counter()
                try:
                    measured.add(client, self._sample(client, workload))
                except ProcessFailure as failure:
                    measured.failures[client] = str(failure)
                    self.end(client)
                took = time.perf_counter() - start
                if workload.order.get("measure") == "turns" and took > SLOW_SECONDS:
                    slow.add(client)
        measured.when = now()
        measured.load = os.getloadavg()[0]
        return measured

    def _sample(self, client: str, workload: Workload) -> dict[str, float]:
        if workload is IMPORT:
            return {"wall": import_time(client)}
        if client not in self._processes:
            self._processes[client] = self._server.start(client)
        url = self._server.url(workload.script, secure=workload.secure)
        found = self._processes[client].ask({**workload.order, "url": url}, workload.seconds)
        if workload.fresh:
            self.end(client)
        return found

    def end(self, *clients: str) -> None:
        """End the processes of these clients."""
        for client in clients:
            if client in self._processes:
                self._processes.pop(client).end()

    def end_all(self) -> None:
        """End the processes of all clients."""
        self.end(*list(self._processes))


def import_time(client: str) -> float:
    """Return the microseconds that an import takes in a fresh process."""
    before, timed = IMPORTS[client]
    finished = subprocess.run(  # noqa: S603 - all commands come from this package
        [sys.executable, "-c", TIMED_IMPORT.format(before=before, timed=timed)],
        cwd=ROOT,
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    if finished.returncode != 0:
        raise ProcessFailure(finished.stderr.strip().splitlines()[-1])
    return float(finished.stdout) * MICROSECONDS


def counted_calls() -> WorkloadSamples:
    """Return the counts of the guard, which runs in a process of its own."""
    finished = subprocess.run(
        [sys.executable, "-m", "benchmarks.guard", "--json"],
        cwd=ROOT,
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    counted = WorkloadSamples(when=now(), load=os.getloadavg()[0])
    if finished.returncode == 0:
        for work, calls in json.loads(finished.stdout).items():
            counted.add(work, {CALLS: calls})
    else:
        print(f"{CALLS}: {finished.stderr.strip().splitlines()[-1]}", file=sys.stderr)
    return counted


def now() -> str:
    """Return the time as text."""
    return dt.datetime.now(tz=dt.UTC).strftime("%Y-%m-%d %H:%M UTC")


def run_all(
    workloads: Iterable[Workload], *, rounds: int | None, clients: set[str], into: Results
) -> None:
    """Measure workloads one after another and print the progress."""
    with open_benchmark_server() as server:
        runner = Runner(server, rounds=rounds, clients=clients)
        try:
            for workload in workloads:
                if workload.secure and not server.has_tls:
                    print(
                        f"{workload.name}: skipped, because trustme is not installed",
                        file=sys.stderr,
                    )
                    continue
                start = time.perf_counter()
                into.workloads[workload.name] = runner.run(workload)
                took = time.perf_counter() - start
                print(f"{workload.name}: {took:.0f} s", file=sys.stderr, flush=True)
        finally:
            runner.end_all()


def describe(clients: Sequence[str]) -> Results:
    """Return empty results with the machine and the versions."""
    entries = [catalog.CLIENTS[name] for name in clients]
    versions = {entry.label: entry.version for entry in entries}
    run = Results(
        machine=f"{os.cpu_count()} processors ({processor()}), {platform.system()}",
        versions={
            "Python": platform.python_version(),
            "trio": catalog.installed("trio") or "",
            "msgspec": catalog.installed("msgspec") or "",
        },
        missing=[label for label, version in versions.items() if version is None],
    )
    for entry in entries:
        if entry.version is not None and entry.package != "msgspec":
            name = "ws (npm)" if entry.package == "ws" else entry.package
            known = run.versions.get(name, entry.version)
            both = known if entry.version in known else f"{known} and {entry.version}"
            run.versions[name] = both
    return run


def processor() -> str:
    """Return the name of the processor."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()
