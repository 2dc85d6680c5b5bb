"""The budget: upper limits for ratios between clients in the same run.

The budget has no limits in seconds, because seconds depend on the machine.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from benchmarks.catalog import CLIENTS

if TYPE_CHECKING:
    from benchmarks.results import Results


@dataclass(frozen=True)
class BudgetLimit:
    """An upper limit for the ratio of a client to a peer in one workload."""

    work: str
    workload: str
    client: str
    peer: str
    key: str
    most: float
    """The largest allowed value of the client's number divided by the peer's number."""

    def measured(self, results: Results) -> float | None:
        """Return the measured ratio, or `None` without measurements."""
        measured = results.workloads.get(self.workload)
        return None if measured is None else measured.ratio(self.client, self.peer, self.key)


BUDGET: Final = (
    BudgetLimit("burst, CPU an event", "burst", "stream", "openai", "cpu", 1 / 40),
    BudgetLimit("burst, CPU an event", "burst", "stream", "baseline", "cpu", 1.5),
    BudgetLimit(
        "burst over HTTP, CPU an event", "burst-http", "http", "openai-http", "cpu", 1 / 20
    ),
    BudgetLimit("burst over HTTP, CPU an event", "burst-http", "http", "stream", "cpu", 1.5),
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
    """Return a ratio as text, such as ``1/40`` or ``1.20``."""
    return f"1/{1 / ratio:.3g}" if ratio < 0.5 else f"{ratio:.2f}"


def budget_rows(results: Results) -> list[list[str]]:
    """Return the rows of a table of limits and measured ratios."""
    rows = [["work", "of", "at most", "measured", "met"]]
    for limit in BUDGET:
        ratio = limit.measured(results)
        met = "-" if ratio is None else "yes" if ratio <= limit.most else "**no**"
        found = "-" if ratio is None else times(ratio)
        rows.append([limit.work, CLIENTS[limit.peer].label, times(limit.most), found, met])
    return rows
