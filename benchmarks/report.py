"""Tables of results: in columns for a terminal, and as Markdown for the documentation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from benchmarks import catalog
from benchmarks.budget import budget_rows
from benchmarks.workloads import CALLS, COMPARED, GROWTHS, IMPORT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.results import Results, WorkloadSamples
    from benchmarks.workloads import Growth, Workload

BEGIN: Final = "<!-- measured: begin -->"
END: Final = "<!-- measured: end -->"
FLOOR: Final = "floor"


def number(value: float, digits: int) -> str:
    """Return a number with separators, without digits that have no meaning."""
    return f"{value:,.{0 if abs(value) >= 1000 else digits}f}"


def multiple(ratio: float | None) -> str:
    """Return a ratio as text."""
    if ratio is None:
        return "-"
    return number(ratio, 2 if ratio < 10 else 1 if ratio < 100 else 0)


def rows_of(workload: Workload, measured: WorkloadSamples) -> list[list[str]]:
    """Return the table of a workload: the best client first, with ratios to peer and floor."""
    first, *others = workload.columns
    with_floor = FLOOR in measured.samples
    peer = catalog.CLIENTS[workload.peer].label.partition(",")[0]
    heading = ["client", first.heading, "min to max", f"{peer} / it"]
    if with_floor:
        heading.append("it / floor")
    rows = [[*heading, *(column.heading for column in others)]]

    def order(client: str) -> float:
        return measured.median(client, first.key) or 0.0

    for client in sorted(measured.samples, key=order):
        low, high = (end * first.scale for end in measured.spread(client, first.key))
        samples = len(measured.samples[client][first.key])
        once = samples == 1
        row = [
            catalog.CLIENTS[client].label,
            number(order(client) * first.scale, first.digits),
            "one sample"
            if once
            else f"{number(low, first.digits)} to {number(high, first.digits)}",
            multiple(measured.ratio(workload.peer, client, first.key)),
        ]
        if with_floor:
            row.append(multiple(measured.ratio(client, FLOOR, first.key)))
        for column in others:
            median = measured.median(client, column.key)
            shown = "-" if median is None else number(median * column.scale, column.digits)
            row.append(shown)
        rows.append(row)
    return rows


def rows_of_growth(growth: Growth, results: Results) -> list[list[str]]:
    """Return the table of a growth: each step, with its ratio to the first step."""
    rows = [[growth.axis, growth.unit, "min to max", "times the first"]]
    base: float | None = None
    for step, (median, low, high) in points(growth, results):
        base = median if base is None else base
        digits = step.columns[0].digits
        shown = f"{number(low, digits)} to {number(high, digits)}"
        rows.append([step.title, number(median, digits), shown, multiple(median / base)])
    return rows


def points(growth: Growth, results: Results) -> list[tuple[Workload, tuple[float, float, float]]]:
    """Return the median, the smallest and the largest sample of each measured step."""
    found: list[tuple[Workload, tuple[float, float, float]]] = []
    for step in growth.steps:
        measured, column = results.of(step), step.columns[0]
        median = measured.median("growth", column.key) if measured else None
        if measured is not None and median is not None:
            low, high = measured.spread("growth", column.key)
            found.append((step, (median * column.scale, low * column.scale, high * column.scale)))
    return found


def in_columns(rows: Sequence[Sequence[str]]) -> str:
    """Return a table for a terminal: the first column left-aligned, the others right-aligned."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = (
        "  ".join(
            cell.rjust(width) if place else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )
    return "\n".join(lines)


def as_markdown(rows: Sequence[Sequence[str]]) -> str:
    """Return a table as Markdown."""
    heading, *body = rows
    rule = ["---"] + ["---:"] * (len(heading) - 1)
    return "\n".join("| " + " | ".join(row) + " |" for row in [heading, rule, *body])


def notes_on(measured: WorkloadSamples) -> str:
    """Return the number of rounds, the time, the load and the failures as text."""
    rounds = max((len(v) for c in measured.samples.values() for v in c.values()), default=0)
    said = f"{rounds} rounds, {measured.when}, load {measured.load:.1f}."
    for client, failure in sorted(measured.failures.items()):
        said += f" {catalog.CLIENTS[client].label} failed: {failure}."
    return said


def text_of(results: Results, *, markdown: bool) -> str:
    """Return all tables of a run as text."""
    table = as_markdown if markdown else in_columns
    level = "### " if markdown else ""
    parts = [preamble(results)]
    for workload in (*COMPARED, IMPORT):
        measured = results.of(workload)
        if measured is not None and measured.samples:
            parts += [level + workload.title, table(rows_of(workload, measured))]
            parts.append(notes_on(measured))
            if markdown and workload.drawn:
                parts.append(picture_of(workload.name, workload.title))
    for growth in GROWTHS:
        rows = rows_of_growth(growth, results)
        if len(rows) > 1:
            parts += [level + growth.title, table(rows)]
            if markdown and growth.drawn:
                parts.append(picture_of(growth.name, growth.title))
    counted = results.workloads.get(CALLS)
    if counted is not None:
        parts += [level + "Python calls", table(rows_of_calls(counted))]
    parts += [level + "The budget", table(budget_rows(results))]
    return "\n\n".join(parts)


def picture_of(name: str, title: str) -> str:
    """Return a picture in Markdown."""
    return f"![{title}](_static/benchmarks-{name}.svg)"


def rows_of_calls(counted: WorkloadSamples) -> list[list[str]]:
    """Return the table of the guard's counts."""
    rows = [["work", "Python calls"]]
    for work in counted.samples:
        calls = counted.median(work, CALLS)
        rows.append([work, "-" if calls is None else number(calls, 1)])
    return rows


def preamble(results: Results) -> str:
    """Return the machine, the versions and the missing clients as text."""
    versions = ", ".join(f"{name} {version}" for name, version in results.versions.items())
    said = f"{results.machine}. {versions}."
    if results.missing:
        said += f" Not installed, and left out: {', '.join(results.missing)}."
    return said


def put_into(page: str, text: str) -> str:
    """Return a page with new tables in place of the old ones.

    :raises ValueError: when the page has no markers for the tables.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"the page has no lines {BEGIN} and {END}: add both where the tables go")
    return f"{before}{BEGIN}\n\n{text}\n\n{END}{after}"
