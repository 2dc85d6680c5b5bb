"""P1 to P8 over HTTP: every fault of an exchange; docs/faults.md shows this table."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.faults.http_runs import run_auto, run_exchange, run_http_closing, run_http_opening
from tests.faults.openings import HTTP_OPENINGS, OPENINGS
from tests.faults.table import EXCHANGES, HTTP_CLOSINGS
from tests.testing.driver import NO_WAITING

if TYPE_CHECKING:
    from tests.faults.cells import HTTPCell, HTTPClosing, HTTPConnectionKind, Opening, Way
    from trio_responses.typing import DeliveryMode

pytestmark = NO_WAITING


def choices(cell: HTTPCell, way: Way) -> tuple[DeliveryMode, ...]:
    """Return the delivery modes of a cell: both, where the second one can make a difference."""
    lost = cell.raises is not None or cell.repeated
    both = lost and (cell.at_least_once or way == "stream")
    return ("at_most_once", "at_least_once") if both else ("at_most_once",)


def ways(cell: HTTPCell, kind: HTTPConnectionKind) -> tuple[Way, ...]:
    """Return the ways of a cell: both, where the fault ends the HTTP connection.

    Otherwise the way of the turn and the kind of the connection have nothing to do with each other.
    """
    if cell.streams > 1 or len(cell.kinds) == 1:
        return ("stream", "conversation")
    return ("stream",) if kind == "new" else ("conversation",)


EXCHANGE_RUNS = [
    pytest.param(cell, kind, way, choice, id=f"{cell.name}, {kind}, {way}, {choice}")
    for cell in EXCHANGES
    for kind in cell.kinds
    for way in ways(cell, kind)
    for choice in choices(cell, way)
]


@pytest.mark.parametrize(("cell", "kind", "way", "choice"), EXCHANGE_RUNS)
async def test_a_fault_of_an_exchange(
    cell: HTTPCell, kind: HTTPConnectionKind, way: Way, choice: DeliveryMode
) -> None:
    """The result of the turn, its delivery, what is sent again, and the next turns."""
    await run_exchange(cell, kind, way, choice)


@pytest.mark.parametrize("cell", HTTP_CLOSINGS, ids=lambda cell: cell.state)
async def test_a_connection_is_closed_in_every_state_of_an_exchange(cell: HTTPClosing) -> None:
    """P1, P3: closing is bounded, whatever the server does."""
    await run_http_closing(cell)


HTTP_OPENING_RUNS = [
    pytest.param(cell, kept, for_good, id=f"{cell.name}, {'later' if kept else 'first'}, {times}")
    for cell in HTTP_OPENINGS
    for kept in (False, True)
    for for_good, times in ((False, "once"), (True, "for good"))
    if (cell.error is not None if for_good else cell.passes)
]


@pytest.mark.parametrize(("cell", "kept", "for_good"), HTTP_OPENING_RUNS)
async def test_a_fault_while_an_http_connection_is_opened(
    cell: Opening,
    kept: bool,  # noqa: FBT001 - a parameter of the run
    for_good: bool,  # noqa: FBT001 - a parameter of the run
) -> None:
    """Met once, the next attempt succeeds; met for good, it is raised, and ends no connection."""
    await run_http_opening(cell, kept=kept, for_good=for_good)


@pytest.mark.parametrize("after_a_loss", [False, True], ids=["at first", "after a loss"])
@pytest.mark.parametrize("cell", [one for one in OPENINGS if one.error], ids=lambda one: one.name)
async def test_http_is_used_where_the_row_says_so(
    cell: Opening,
    after_a_loss: bool,  # noqa: FBT001 - a parameter of the run
) -> None:
    await run_auto(cell, after_a_loss=after_a_loss)
