"""Write docs/faults.md from the fault matrix of the tests: ``python docs/make_faults.py``.

Each row of the tables in ``tests/faults`` is a test. ``tests/faults/test_page.py`` checks that the
page is equal to what this script writes.
"""

from __future__ import annotations

import sys
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.faults.cells import DELAYS, STEADY, HTTPCell  # noqa: E402 - found by the line above
from tests.faults.table import (  # noqa: E402 - likewise
    CLOSINGS,
    EXCHANGES,
    HTTP_CLOSINGS,
    OPENINGS,
    STEERED,
    TURNS,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.faults.cells import Cell, Closing, HTTPClosing, Opening, Steered

PAGE = ROOT / "docs" / "faults.md"
PHASES = ("idle", "sending", "before the first event", "mid-stream", "terminal")

HTTP_PHASES = ("idle", "request", "head", "status", *PHASES[2:])
ROWS = len([*OPENINGS, *TURNS, *STEERED, *CLOSINGS, *EXCHANGES, *HTTP_CLOSINGS])
HEADING = f"""\
# What can go wrong

Each of the {ROWS} rows is run by `tests/faults/test_matrix.py` or `test_over_http.py`, over memory
streams and on a clock that jumps; some of them again over real sockets
(`tests/faults/test_sockets.py`). The page is written from the same table, by
`docs/make_faults.py`.

What holds in every row: nothing hangs. A turn ends once. The next turn works, unless the connection
has ended, and gets its own events only. Leaving `open_responses` takes at most `timeouts.close`,
and leaves no task and no socket. Nothing goes out again but what the row says.

*At once* means: with no wait at all, on the clock. The first delay of the reconnect policy is one
second.
"""
ON_THE_WAY = f"""\
## On the way to a socket

The same fault may be met at the first connect or after a loss, once or for good. Met once, a turn
that waits for a socket is answered by the next attempt and knows nothing of it. Met for good, the
policy's {len(DELAYS)} attempts are spent, and `ReconnectFailed` is raised, with the exception of
the table as its cause; where nothing is tried again, that exception itself is. It leaves
`open_responses`, or the turn that waits for a socket, with delivery `not_sent`. A `Retry-After` is
a floor under the delay; above {STEADY.max_retry_after:g} s it ends the attempts, with
`ReconnectFailed`, too. A key that is a function is asked once more after HTTP 401
(`tests/connection/test_keys.py`).

The last column is for `transport="auto"`: when the first connect goes over to HTTP. After a
WebSocket was open, the attempts of the policy are used up first.
"""
AT_WORK = """\
## On an open socket

*Sent again* has two answers: for `delivery="at_most_once"`, which is the default, and for
`"at_least_once"`. Where the request is sent again, the turn ends with the second answer.
"""
STEERING = """\
### steering

The steering input itself is never sent again. Its receipt says what became of it; where the turn
ends before the server said so, at the latest when the next response begins or the socket ends.
"""
CLOSING = """\
### closing

A turn under way raises `ConnectionClosed`, and says how far it had come.
"""


OVER_HTTP = """\
## Over HTTP

The rows of *resolve*, *dial*, *proxy* and *TLS* (without *FIN behind it* and *HTTP 403 behind it*)
hold for a request that needs a new HTTP connection; the turn raises the exception, and the next
turn dials again. *dial: reset* is *request* or *head* here.

Each other row is run for the first request of a connection and on a kept-alive HTTP connection
(*idle*: there alone), in a stream and in a conversation. Where the turn has no Response, the
history of the conversation is unchanged.
"""
HTTP_CLOSING = """\
### closing over HTTP

A turn under way raises `ConnectionClosed`, with this delivery.
"""


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def name(kind: type | None, otherwise: str) -> str:
    """Return the name of an exception, or a text where none is raised."""
    return otherwise if kind is None else f"`{kind.__name__}`"


def opening_row(cell: Opening) -> list[str]:
    """Return the row of a fault while a socket is opened: the error, when, the retry, HTTP."""
    error = name(cell.error, "none: it is waited for")
    again = "yes" if cell.passes else "no"
    if cell.retried and not cell.passes:
        again = "no: the wait is too long"
    elif cell.retry_after is not None:
        again = f"yes, after {cell.retry_after:g} s at least"
    over = cell.over.words if cell.over is not None else "no"
    return [cell.fault, error, cell.takes.words, again if cell.error is not None else "-", over]


def when(cell: Cell | HTTPCell | Steered) -> str:
    """Return when a turn has ended, with ``at_most_once``."""
    delayed = getattr(cell, "repeated", False) and cell.delayed
    return f"after up to {cell.delayed:g} s" if delayed else cell.after.words


def sent_again(cell: Cell | HTTPCell | Steered) -> str:
    """Return whether a request is sent again, by default and with ``at_least_once``."""
    by_default = getattr(cell, "repeated", False)
    ends = not isinstance(cell, HTTPCell) and cell.then.ended_by is not None
    by_choice = by_default or (cell.at_least_once and not ends)
    return f"{'yes' if by_default else 'no'} / {'yes' if by_choice else 'no'}"


def result(cell: Cell | HTTPCell) -> str:
    """Return how a turn ends, with ``at_most_once``."""
    ends_well = "its Response"
    if cell.status != "completed":
        ends_well += f": {cell.status}"
    if cell.raises is None and cell.repeated:
        ends_well = "its Response, of the second sending"
    if "create" in getattr(cell, "ways", ()):
        ends_well += "; `create()` raises `ResponseFailedError`"
    return name(cell.raises, ends_well)


def turn_row(cell: Cell) -> list[str]:
    """Return the row of a fault during a turn: the result of the turn and of the connection."""
    return [
        cell.fault,
        result(cell),
        f"`{cell.delivery}`" if cell.delivery is not None else "-",
        when(cell),
        cell.then.words,
        sent_again(cell),
    ]


def http_row(cell: HTTPCell) -> list[str]:
    """Return the row of a fault of an exchange: the result of the turn, and its connection."""
    return [
        cell.fault,
        result(cell),
        f"`{cell.delivery}`" if cell.delivery is not None else "-",
        when(cell),
        "used again" if cell.streams == 1 else "replaced",
        sent_again(cell),
    ]


def http_closing_row(cell: HTTPClosing) -> list[str]:
    """Return the row of a connection that is closed: the turn's delivery, and the time."""
    delivery = f"`{cell.delivery}`" if cell.delivery is not None else "-"
    return [cell.state, delivery, cell.after.words]


def steered_row(cell: Steered) -> list[str]:
    """Return the row of a fault during a steered turn: the results of turn and steering input."""
    ends_well = "its Response" if cell.responses == 1 else "the successor's Response"
    return [
        cell.fault,
        name(cell.raises, ends_well),
        f"`{cell.receipt}`",
        when(cell),
        cell.then.words,
        sent_again(cell),
    ]


def closing_row(cell: Closing) -> list[str]:
    """Return the row of a fault while a connection is closed: how long closing takes."""
    return [cell.fault, cell.after.words]


def page() -> str:
    """Return the text of the page."""
    parts = [HEADING, ON_THE_WAY]
    for phase, cells in groupby(OPENINGS, key=attrgetter("phase")):
        heads: tuple[str, ...] = (
            "fault",
            "an attempt fails with",
            "after",
            "tried again",
            "over to HTTP",
        )
        parts += [f"### {phase}\n", table(heads, [opening_row(cell) for cell in cells])]
    parts.append(AT_WORK)
    for phase in PHASES:
        when = "noticed" if phase == "idle" else "after"
        gets = "the next turn gets" if phase == "idle" else "the turn gets"
        heads = ("fault", gets, "delivery", when, "the connection", "sent again")
        rows = [turn_row(cell) for cell in TURNS if cell.phase == phase]
        if phase == "idle":
            heads, rows = heads[:-1], [row[:-1] for row in rows]
        parts += [f"### {phase}\n", table(heads, rows)]
    heads = ("fault", "the turn gets", "the receipt", "after", "the connection", "sent again")
    parts += [STEERING, table(heads, [steered_row(cell) for cell in STEERED])]
    parts += [CLOSING, table(("fault", "leaving takes"), [closing_row(cell) for cell in CLOSINGS])]
    parts.append(OVER_HTTP)
    heads = ("fault", "the turn gets", "delivery", "after", "the HTTP connection", "sent again")
    for phase in HTTP_PHASES:
        rows = [http_row(cell) for cell in EXCHANGES if cell.phase == phase]
        parts += [f"### {phase}, over HTTP\n", table(heads, rows)]
    rows = [http_closing_row(cell) for cell in HTTP_CLOSINGS]
    parts += [HTTP_CLOSING, table(("state", "delivery", "leaving takes"), rows)]
    return "\n".join(parts)


def main() -> None:
    """Write the page to ``docs/faults.md``."""
    PAGE.write_text(page(), encoding="utf-8")
    print(f"{PAGE.relative_to(ROOT)} is written")


if __name__ == "__main__":
    main()
