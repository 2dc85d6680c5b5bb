"""The numbers of a run: samples by workload, client and column; medians, spreads and ratios.

No input, no output but JSON: it is tested without a clock.

What belongs elsewhere: how they come about (`runner.py`), how they look (`report.py`).
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
    """One workload's samples: by client, then by key."""

    when: str = ""
    load: float = 0.0
    """How many processes wanted to run, on average over the last minute, at the end of it."""
    samples: dict[str, dict[str, list[float]]] = field(
        default_factory=dict[str, dict[str, list[float]]]
    )
    failures: dict[str, str] = field(default_factory=dict[str, str])

    def add(self, client: str, found: dict[str, float]) -> None:
        """Keep one sample."""
        kept = self.samples.setdefault(client, {})
        for key, value in found.items():
            kept.setdefault(key, []).append(value)

    def median(self, client: str, key: str) -> float | None:
        """Give the median of a client's samples, if it has any."""
        values = self.samples.get(client, {}).get(key)
        return statistics.median(values) if values else None

    def spread(self, client: str, key: str) -> tuple[float, float]:
        """Give the smallest and the largest sample."""
        values = self.samples[client][key]
        return min(values), max(values)

    def ratio(self, above: str, below: str, key: str) -> float | None:
        """Give how many times as much one client takes as another, if both were measured."""
        first, second = self.median(above, key), self.median(below, key)
        return first / second if first is not None and second else None


@dataclass
class Results:
    """A run."""

    machine: str = ""
    versions: dict[str, str] = field(default_factory=dict[str, str])
    missing: list[str] = field(default_factory=list[str])
    """Labels of clients that are not installed."""
    workloads: dict[str, WorkloadSamples] = field(default_factory=dict[str, WorkloadSamples])

    def of(self, workload: Workload) -> WorkloadSamples | None:
        """Give what was measured of a workload, if it was."""
        return self.workloads.get(workload.name)

    def write(self, path: Path) -> None:
        """Write it as JSON."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(self), indent=1), encoding="utf-8")

    @classmethod
    def read(cls, *paths: Path) -> Results:
        """Read runs; where two have the same workload, the later one counts, as a whole."""
        run = cls()
        for path in paths:
            raw: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            measured = raw.pop("workloads")
            earlier = run.workloads
            run = cls(**raw, workloads=earlier)
            run.workloads.update({name: WorkloadSamples(**one) for name, one in measured.items()})
        return run
