"""SVG pictures of results: a line for each growth, bars for a comparison."""

from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Final

from benchmarks import catalog
from benchmarks.report import number, points
from benchmarks.workloads import COMPARED, GROWTHS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from benchmarks.results import Results

WIDTH: Final = 640
HEIGHT: Final = 260
LEFT, RIGHT, TOP, BOTTOM = 60, 20, 40, 50
BAR: Final = 22
LABELS: Final = 240
INK, OURS, THEIRS = "#555", "#2f6fab", "#b8b8b8"


@dataclass(frozen=True)
class PlotPoint:
    """A point on a line, with the smallest and the largest sample."""

    at: float
    value: float
    low: float
    high: float


def text(x: float, y: float, words: str, anchor: str = "middle", size: int = 12) -> str:
    """Return an SVG text element."""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" fill="{INK}">'
        f"{escape(words)}</text>"
    )


def picture(width: int, height: int, parts: Sequence[str]) -> str:
    """Return a complete SVG image."""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}"'
        f' font-family="sans-serif" role="img">\n'
        f'<rect width="{width}" height="{height}" fill="#fff"/>\n' + "\n".join(parts) + "\n</svg>\n"
    )


def line(title: str, axis: str, unit: str, places: Sequence[PlotPoint]) -> str:
    """Return a line chart with a logarithmic x axis and a y axis that starts at zero."""
    logs = [math.log10(point.at) for point in places]
    span = max(logs) - min(logs) or 1.0
    top = max(point.high for point in places) * 1.1 or 1.0

    def x(log: float) -> float:
        return LEFT + 20 + (log - min(logs)) / span * (WIDTH - LEFT - RIGHT - 40)

    def y(value: float) -> float:
        return HEIGHT - BOTTOM - value / top * (HEIGHT - TOP - BOTTOM)

    bottom = HEIGHT - BOTTOM
    parts = [
        text(LEFT, 20, title, "start", 14),
        text(LEFT, 34, unit, "start", 10),
        text(WIDTH / 2, HEIGHT - 10, axis),
        f'<path d="M{LEFT} {TOP}V{bottom}H{WIDTH - RIGHT}" fill="none" stroke="{INK}"/>',
        text(LEFT - 6, y(0) + 4, "0", "end"),
    ]
    track: list[str] = []
    for log, point in zip(logs, places, strict=True):
        at = x(log)
        track.append(f"{at:.1f},{y(point.value):.1f}")
        parts += [
            (
                f'<path d="M{at:.1f} {y(point.low):.1f}V{y(point.high):.1f}" stroke="{THEIRS}"'
                ' stroke-width="3"/>'
            ),
            f'<circle cx="{at:.1f}" cy="{y(point.value):.1f}" r="4" fill="{OURS}"/>',
            text(at, y(point.high) - 6, number(point.value, 2 if point.value < 10 else 0)),
            text(at, bottom + 16, number(point.at, 0)),
        ]
    parts.insert(5, f'<polyline points="{" ".join(track)}" fill="none" stroke="{OURS}"/>')
    return picture(WIDTH, HEIGHT, parts)


def bars(title: str, values: Sequence[tuple[str, float]], ours: set[str]) -> str:
    """Return a bar chart with a logarithmic axis, the smallest value first."""
    ordered = sorted(values, key=lambda pair: pair[1])
    least, most = ordered[0][1] / 2, ordered[-1][1]
    parts = [text(10, 20, title, "start", 14)]
    for row, (label, value) in enumerate(ordered):
        top = TOP + row * BAR
        part = math.log(value / least) / math.log(most / least)
        length = part * (WIDTH - LABELS - 80)
        colour = OURS if label in ours else THEIRS
        parts += [
            text(LABELS - 8, top + 14, label, "end"),
            (
                f'<rect x="{LABELS}" y="{top}" width="{length:.1f}" height="{BAR - 6}"'
                f' fill="{colour}"/>'
            ),
            text(LABELS + length + 6, top + 13, number(value, 2 if value < 10 else 1), "start"),
        ]
    return picture(WIDTH, TOP + len(ordered) * BAR + 10, parts)


def draw_all(results: Results, folder: Path) -> None:
    """Write a picture of every measured workload and growth that has one."""
    folder.mkdir(parents=True, exist_ok=True)
    ours = {entry.label for entry in catalog.CLIENTS.values() if entry.package == catalog.OURS}
    for workload in (one for one in COMPARED if one.drawn):
        measured, column = results.of(workload), workload.columns[0]
        if measured is not None and measured.samples:
            values = [
                (
                    catalog.CLIENTS[name].label,
                    (measured.median(name, column.key) or 0) * column.scale,
                )
                for name in measured.samples
            ]
            title = f"{workload.title}: {column.heading} (logarithmic)"
            _write(folder, workload.name, bars(title, values, ours))
    for growth in (one for one in GROWTHS if one.drawn):
        places = [
            PlotPoint(float(step.order["width"]), *found) for step, found in points(growth, results)
        ]
        if places:
            _write(folder, growth.name, line(growth.title, growth.axis, growth.unit, places))


def _write(folder: Path, name: str, drawn: str) -> None:
    (folder / f"benchmarks-{name}.svg").write_text(drawn, encoding="utf-8")
