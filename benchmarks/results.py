"""The numbers of a run: samples by workload, client and column; medians, spreads and ratios.

This module reads and writes JSON only, so that its tests need no clock.
"""

from __future__ import annotations

import json
import statistics
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.workloads import Workload


@dataclass
class WorkloadSamples:
    """The samples of one workload, by client and key."""

    when: str = ""
    load: float = 0.0
    """The load average of the last minute, at the end of the workload."""
    samples: dict[str, dict[str, list[float]]] = field(
        default_factory=dict[str, dict[str, list[float]]]
    )
    failures: dict[str, str] = field(default_factory=dict[str, str])

    def add(self, client: str, found: dict[str, float]) -> None:
        """Store one sample."""
        kept = self.samples.setdefault(client, {})
        for key, value in found.items():
            kept.setdefault(key, []).append(value)

    def median(self, client: str, key: str) -> float | None:
        """Return the median of the samples of a client, or `None` without samples."""
        values = self.samples.get(client, {}).get(key)
        return statistics.median(values) if values else None

    def spread(self, client: str, key: str) -> tuple[float, float]:
        """Return the smallest and the largest sample."""
        values = self.samples[client][key]
        return min(values), max(values)

    def ratio(self, above: str, below: str, key: str) -> float | None:
        """Return the median ratio of two clients, or `None` without samples.

        The samples of a round are divided by each other, so that a machine whose speed changes from
        round to round has little effect. Where a client was left out of later rounds, the
        medians are divided instead.
        """
        first = self.samples.get(above, {}).get(key, [])
        second = self.samples.get(below, {}).get(key, [])
        if not first or not second or not all(second):
            return None
        if len(first) != len(second):
            return statistics.median(first) / statistics.median(second)
        return statistics.median(one / other for one, other in zip(first, second, strict=True))


@dataclass
class Results:
    """The numbers of one run."""

    machine: str = ""
    versions: dict[str, str] = field(default_factory=dict[str, str])
    missing: list[str] = field(default_factory=list[str])
    """Labels of the clients that are not installed."""
    workloads: dict[str, WorkloadSamples] = field(default_factory=dict[str, WorkloadSamples])

    def of(self, workload: Workload) -> WorkloadSamples | None:
        """Return the samples of a workload, or `None`."""
        return self.workloads.get(workload.name)

    def write(self, path: Path) -> None:
        """Write the results as JSON."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(self), indent=1), encoding="utf-8")

    @classmethod
    def read(cls, *paths: Path) -> Results:
        """Return the results of several files; later runs of a workload replace earlier ones."""
        run = cls()
        for path in paths:
            raw: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            measured = raw.pop("workloads")
            earlier = run.workloads
            run = cls(**raw, workloads=earlier)
            run.workloads.update({name: WorkloadSamples(**one) for name, one in measured.items()})
        return run
