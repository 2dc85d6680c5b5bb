"""The budget: how much each kind of work may cost, as ratios to others in the same run.

What belongs elsewhere: seconds, which no other machine shares.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from benchmarks.catalog import CLIENTS

if TYPE_CHECKING:
    from benchmarks.results import Results


@dataclass(frozen=True)
class BudgetLimit:
    """One line of the budget: a workload, what is compared, and the ratio that it must not pass."""

    work: str
    workload: str
    client: str
    peer: str
    key: str
    most: float
    """The client's number, divided by the peer's, at most."""

    def measured(self, results: Results) -> float | None:
        """Give the ratio that was measured, if it was."""
        measured = results.workloads.get(self.workload)
        return None if measured is None else measured.ratio(self.client, self.peer, self.key)


BUDGET: Final = (
    BudgetLimit("burst, CPU an event", "burst", "stream", "openai", "cpu", 1 / 40),
    BudgetLimit("burst, CPU an event", "burst", "stream", "baseline", "cpu", 1.5),
    BudgetLimit("8 lanes, CPU an event", "lanes", "lanes", "openai-lanes", "cpu", 1 / 30),
    BudgetLimit("round trip, wall", "rtt", "stream", "openai", "wall", 1 / 8),
    BudgetLimit("round trip, CPU", "rtt", "stream", "openai", "cpu", 1 / 8),
    BudgetLimit("1 MB of function calls, CPU", "items-1mb", "stream", "openai", "cpu", 1 / 150),
    BudgetLimit("request of 1,000 items, CPU", "input-1000", "stream", "openai", "cpu", 1 / 300),
    BudgetLimit("1,000 events a second, latency p50", "paced-1000", "stream", "openai", "p50", 0.7),
    BudgetLimit("1,000 connections, memory", "connections-1000", "stream", "openai", "bytes", 1.2),
    BudgetLimit("300 over TLS, memory", "connections-300-tls", "stream", "openai", "bytes", 1 / 4),
)


def times(ratio: float) -> str:
    """Write a ratio as people say it: 1/40, or 1.2 times."""
    return f"1/{1 / ratio:.3g}" if ratio < 0.5 else f"{ratio:.2f}"


def budget_rows(results: Results) -> list[list[str]]:
    """Put the budget beside what was measured."""
    rows = [["work", "of", "at most", "measured", "met"]]
    for limit in BUDGET:
        ratio = limit.measured(results)
        met = "-" if ratio is None else "yes" if ratio <= limit.most else "**no**"
        found = "-" if ratio is None else times(ratio)
        rows.append([limit.work, CLIENTS[limit.peer].label, times(limit.most), found, met])
    return rows
