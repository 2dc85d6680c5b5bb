"""The budget: upper limits for ratios between clients in the same run, and for few other numbers.

The budget has no limits in seconds, because seconds depend on the machine. Memory and numbers of
calls have limits of their own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from benchmarks.catalog import CLIENTS
from benchmarks.workloads import CALLS, KIB

if TYPE_CHECKING:
    from benchmarks.results import Results


@dataclass(frozen=True)
class BudgetLimit:
    """An upper limit for a number of a client in one workload."""

    work: str
    workload: str
    client: str
    peer: str
    """The client whose number the client's number is divided by; "" for a limit of its own."""
    key: str
    most: float
    """The largest allowed ratio, or the largest allowed number if there is no peer."""
    scale: float = 1.0
    unit: str = ""

    def measured(self, results: Results) -> float | None:
        """Return the measured ratio or number, or `None` without measurements."""
        measured = results.workloads.get(self.workload)
        if measured is None:
            return None
        if self.peer:
            return measured.ratio(self.client, self.peer, self.key)
        median = measured.median(self.client, self.key)
        return None if median is None else median * self.scale

    def shown(self, value: float) -> str:
        """Return a ratio as text, such as ``1/40`` or ``1.20``, or a number with its unit."""
        return times(value) if self.peer else f"{value:.1f} {self.unit}".strip()


def times(ratio: float) -> str:
    """Return a ratio as text, such as ``1/40`` or ``1.20``."""
    return f"1/{1 / ratio:.3g}" if ratio < 0.5 else f"{ratio:.2f}"


def ratio(
    work: str, workload: str, client: str, key: str = "cpu", **most: float
) -> list[BudgetLimit]:
    """Return the limits of a client against several peers, named with ``-`` written as ``_``."""
    return [
        BudgetLimit(work, workload, client, peer.replace("_", "-"), key, limit)
        for peer, limit in most.items()
    ]


def memory(work: str, workload: str, kib: float) -> BudgetLimit:
    """Return the limit for the memory of an idle connection."""
    return BudgetLimit(work, workload, "stream", "", "bytes", kib, KIB, "KiB")


def calls(work: str, counted: str, most: float) -> BudgetLimit:
    """Return the limit for a count of the guard."""
    return BudgetLimit(work, CALLS, counted, "", CALLS, most)


EVENT: Final = "CPU an event"
BUDGET: Final = (
    *ratio(
        f"1,000 events/s, {EVENT}",
        "paced-1000",
        "stream",
        floor_2026=1.10,
        websockets_trio=0.75,
        websockets=1.0,
    ),
    *ratio(
        "1,000 events/s, latency p50", "paced-1000", "stream", "p50", floor_2026=1.35, openai=0.7
    ),
    *ratio(f"200 events/s, {EVENT}", "paced-200", "stream", floor_2026=1.0),
    *ratio(f"1,000 connections paced, {EVENT}", "connections-1000", "stream", websockets=1.1),
    *ratio("round trip, CPU", "rtt", "stream", floor_2026=1.7, openai=1 / 9),
    *ratio("round trip, wall", "rtt", "stream", "wall", openai=1 / 8),
    *ratio(f"burst, {EVENT}", "burst", "stream", floor_2026=1.9, openai=1 / 40),
    *ratio(f"burst by batches, {EVENT}", "burst", "batches", floor_2026=1.3),
    *ratio(f"burst over TLS by batches, {EVENT}", "burst-tls", "batches", floor_2026=1.1),
    *ratio(f"burst over HTTP, {EVENT}", "burst-http", "http", openai_http=1 / 20, stream=1.5),
    *ratio(f"8 lanes, {EVENT}", "lanes", "lanes", openai_lanes=1 / 30),
    memory("idle connection", "connections-1000", 33),
    memory("idle connection over TLS", "connections-300-tls", 65),
    *ratio("1,000 connections, memory", "connections-1000", "stream", "bytes", openai=1.2),
    *ratio("300 over TLS, memory", "connections-300-tls", "stream", "bytes", openai=1 / 4),
    *ratio("opening, CPU", "connect", "stream", floor_2026=2.3),
    *ratio("1 MB of function calls, CPU", "items-1mb", "stream", openai=1 / 150),
    *ratio("conversation, 1 MB of text, CPU", "text-1mb", "conversation", stream=1.5),
    *ratio("conversation, 1 MB of function calls, CPU", "items-1mb", "conversation", stream=1.5),
    *ratio("request of 1,000 items, CPU", "input-1000", "stream", openai=1 / 300),
    calls("Python calls an event", "paced, stream, an event", 90),
    calls("Python calls a turn", "small, stream, a turn", 230),
)
"""All limits. Ratios are medians of the ratios in one run."""


def budget_rows(results: Results) -> list[list[str]]:
    """Return the rows of a table of limits and measured numbers."""
    rows = [["work", "of", "at most", "measured", "met"]]
    for limit in BUDGET:
        value = limit.measured(results)
        found = "-" if value is None else limit.shown(value)
        peer = CLIENTS[limit.peer].label if limit.peer else ""
        rows.append([limit.work, peer, limit.shown(limit.most), found, verdict(value, limit.most)])
    return rows


def verdict(value: float | None, most: float) -> str:
    """Return whether a limit is met, and by how much it is not."""
    if value is None:
        return "-"
    return "yes" if value <= most else f"**no**, by {max(0.1, (value / most - 1) * 100):.3g} %"
