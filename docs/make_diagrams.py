"""Draw the diagrams of the explanations: ``python docs/make_diagrams.py``.

A diagram is a table: boxes at a column and a row, and arrows between two boxes. The tests compare
the files with the tables, and the names in the tables with the enumerations of the package.
"""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Final

FOLDER: Final = Path(__file__).resolve().parent / "explanation"
COLUMN, ROW = 240, 130
"""The distance of two boxes, in pixels."""
WIDTH, HEIGHT = 184, 62
MARGIN: Final = 30
LINE: Final = 16
"""The distance of two lines of text, in pixels."""
NAMESPACE: Final = "http://www.w3.org/2000/svg"
COLORS: Final = {
    "plain": ("#ffffff", "#5b6b82"),
    "good": ("#e6f2e4", "#4c8a4a"),
    "warn": ("#fbeede", "#b2561f"),
    "bad": ("#f8dfdd", "#a33a32"),
    "start": ("#dfe9f5", "#1f6fb2"),
}
STYLE: Final = (
    ".n{font:600 15px ui-monospace,monospace;fill:#16202e;text-anchor:middle}"
    ".w{font:12.5px system-ui,sans-serif;fill:#3a4757;text-anchor:middle}"
    ".l{font:12.5px system-ui,sans-serif;fill:#16202e}"
    ".a{fill:none;stroke:#5b6b82;stroke-width:1.8}"
)
ARROWHEAD: Final = (
    '<marker id="end" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" '
    'orient="auto"><path d="M0 0L10 5L0 10z" fill="#5b6b82"/></marker>'
)


@dataclass(frozen=True)
class Box:
    """A box of a diagram."""

    name: str
    column: float
    row: float
    note: str
    """A line of text below the name."""
    color: str = "plain"

    @property
    def center(self) -> tuple[float, float]:
        """The middle of the box, in pixels."""
        return (
            MARGIN + WIDTH / 2 + self.column * COLUMN,
            MARGIN + HEIGHT / 2 + self.row * ROW,
        )

    def draw(self) -> str:
        """Return the box as SVG."""
        x, y = self.center
        fill, stroke = COLORS[self.color]
        return (
            f'<rect x="{x - WIDTH / 2:g}" y="{y - HEIGHT / 2:g}" width="{WIDTH}" height="{HEIGHT}" '
            f'rx="8" fill="{fill}" stroke="{stroke}" stroke-width="1.6"/>'
            f'<text x="{x:g}" y="{y - 3:g}" class="n">{escape(self.name)}</text>'
            f'<text x="{x:g}" y="{y + 17:g}" class="w">{escape(self.note)}</text>'
        )


@dataclass(frozen=True)
class Arrow:
    """An arrow from one box to another one."""

    start: str
    end: str
    label: str = ""
    """The text at the middle; lines are separated by a newline."""
    shift: float = 0
    """The pixels by which the arrow is moved to the side, for two arrows between two boxes."""
    below: bool = False
    """Whether the text is below the arrow, where the arrow is level."""

    def draw(self, boxes: dict[str, Box]) -> str:
        """Return the arrow as SVG."""
        (x1, y1), (x2, y2) = boxes[self.start].center, boxes[self.end].center
        length = ((x2 - x1) ** 2 + (y2 - y1) ** 2) ** 0.5
        across_x, across_y = -(y2 - y1) / length * self.shift, (x2 - x1) / length * self.shift
        x1, y1, x2, y2 = x1 + across_x, y1 + across_y, x2 + across_x, y2 + across_y
        x1, y1, x2, y2 = *_edge(x1, y1, x2, y2), *_edge(x2, y2, x1, y1)
        return (
            f'<path d="M{x1:.4g} {y1:.4g}L{x2:.4g} {y2:.4g}" class="a" marker-end="url(#end)"/>'
            + self._draw_label((x1 + x2) / 2, (y1 + y2) / 2, is_level=abs(y2 - y1) < 1)
        )

    def _draw_label(self, x: float, y: float, *, is_level: bool) -> str:
        """Return the text above a level arrow, below a second one, or right of any other arrow."""
        if not self.label:
            return ""
        lines = self.label.split("\n")
        if not is_level:
            x, first, anchor = x + 10, y + 4 - LINE * (len(lines) - 1) / 2, "start"
        elif self.below:
            first, anchor = y + LINE + 2, "middle"
        else:
            first, anchor = y - 8 - LINE * (len(lines) - 1), "middle"
        return "".join(
            f'<text x="{x:.4g}" y="{first + LINE * number:.4g}" class="l" text-anchor="{anchor}">'
            f"{escape(line)}</text>"
            for number, line in enumerate(lines)
        )


def _edge(x: float, y: float, to_x: float, to_y: float) -> tuple[float, float]:
    """Return where a line from the inside of a box to a point leaves the box."""
    dx, dy = to_x - x, to_y - y
    scale = min(
        WIDTH / 2 / abs(dx) if dx else float("inf"), HEIGHT / 2 / abs(dy) if dy else float("inf")
    )
    return x + dx * scale, y + dy * scale


@dataclass(frozen=True)
class Diagram:
    """A diagram: its title for those who cannot see it, its boxes and its arrows."""

    title: str
    boxes: tuple[Box, ...]
    arrows: tuple[Arrow, ...]

    def draw(self) -> str:
        """Return the diagram as an SVG document."""
        boxes = {box.name: box for box in self.boxes}
        width = max(box.center[0] for box in self.boxes) + WIDTH / 2 + 2 * MARGIN + LINE
        height = max(box.center[1] for box in self.boxes) + HEIGHT / 2 + MARGIN
        described = "; ".join(
            f"{one.start} to {one.end}" + (f": {' '.join(one.label.split())}" if one.label else "")
            for one in self.arrows
        )
        parts = [
            f'<svg xmlns="{NAMESPACE}" viewBox="0 0 {width:g} {height:g}" role="img">',
            f"<title>{escape(self.title)}</title>",
            f"<desc>{escape(described)}.</desc>",
            f"<style>{STYLE}</style>",
            f"<defs>{ARROWHEAD}</defs>",
            f'<rect width="{width:g}" height="{height:g}" rx="10" fill="#f6f8fb"/>',
            *(arrow.draw(boxes) for arrow in self.arrows),
            *(box.draw() for box in self.boxes),
            "</svg>",
        ]
        return "\n".join(parts) + "\n"


CONNECTION: Final = Diagram(
    "The states of a connection",
    (
        Box("connecting", 0, 0, "opens the first socket", "start"),
        Box("open", 1.5, 0, "sends requests", "good"),
        Box("reconnecting", 3, 0, "opens another socket", "warn"),
        Box("draining", 1.5, 1.3, "ends its turns, closes"),
        Box("closed", 3, 1.3, "for good", "bad"),
    ),
    (
        Arrow("connecting", "open", "a socket is open"),
        Arrow("open", "reconnecting", "the socket was lost", shift=-12),
        Arrow("reconnecting", "open", "another one is open", shift=-12, below=True),
        Arrow("open", "draining", "drain(), or\nthe block ends"),
        Arrow("draining", "closed", "all sockets closed"),
        Arrow("reconnecting", "closed", "no attempt is left,\nor none can help"),
    ),
)
DELIVERY: Final = Diagram(
    "How far a request got",
    (
        Box("not_sent", 0, 0, "sent again", "good"),
        Box("ambiguous", 1.5, 0, "raised", "warn"),
        Box("accepted", 3, 0, "raised", "warn"),
        Box("rejected", 1.5, 1.15, "sent again, or raised", "good"),
        Box("a Response", 3, 1.15, "the turn has ended well", "start"),
    ),
    (
        Arrow("not_sent", "ambiguous", "the whole message\nis written"),
        Arrow("ambiguous", "accepted", "the first event\nof the response"),
        Arrow("ambiguous", "rejected", "an error that proves that\nthe request did not run"),
        Arrow("accepted", "a Response", "the last event"),
    ),
)
WAKE: Final = Diagram(
    "What happens between the arrival of bytes and your async for",
    (
        Box("socket", 0, 0, "bytes have arrived", "start"),
        Box("receive task", 1.4, 0, "one read, a batch of events"),
        Box("inbox", 2.8, 0, "one for each turn"),
        Box("your task", 2.8, 1.15, "async for event in stream", "good"),
    ),
    (
        Arrow("socket", "receive task", "pass 1 of Trio's loop:\nthe task wakes"),
        Arrow("receive task", "inbox", "all events of the batch,\nwithout waiting"),
        Arrow("inbox", "your task", "pass 2 of the loop:\none wake-up a batch"),
    ),
)
DIAGRAMS: Final = {
    "connection-states.svg": CONNECTION,
    "delivery.svg": DELIVERY,
    "wake-up.svg": WAKE,
}

if __name__ == "__main__":
    for file_name, diagram in DIAGRAMS.items():
        (FOLDER / file_name).write_text(diagram.draw(), encoding="utf-8")
