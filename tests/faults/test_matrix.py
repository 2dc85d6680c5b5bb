"""P1 to P6, P10: every fault in every phase; docs/faults.md shows this table."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.faults.opening_runs import give_up, pass_over
from tests.faults.other_runs import run_closing, run_steered
from tests.faults.table import CLOSINGS, OPENINGS, STEERED, TURNS
from tests.faults.turn_runs import run_cell
from tests.testing.driver import NO_WAITING

if TYPE_CHECKING:
    from tests.faults.cells import Cell, Closing, Opening, Steered, Way
    from trio_responses.typing import DeliveryMode

pytestmark = NO_WAITING


OPENING_RUNS = [
    pytest.param(cell, times, after_a_loss, id=f"{cell.name}, {times}, {when}")
    for cell in OPENINGS
    for times in ("once", "for good")
    for after_a_loss, when in ((False, "at first"), (True, "after a loss"))
    if (cell.passes if times == "once" else cell.error is not None)
]


@pytest.mark.parametrize(("cell", "times", "after_a_loss"), OPENING_RUNS)
async def test_a_fault_while_a_socket_is_opened(
    cell: Opening,
    times: str,
    after_a_loss: bool,  # noqa: FBT001 - a parameter of the run
) -> None:
    """P2, P4: met once, the next attempt succeeds; met for good, it is raised."""
    await (pass_over if times == "once" else give_up)(cell, after_a_loss=after_a_loss)


def choices(cell: Cell, way: Way) -> tuple[DeliveryMode, ...]:
    """Return the delivery modes of a cell: both, where the second one can make a difference."""
    lost = cell.raises is not None or cell.repeated
    both = way != "channel" and lost and (cell.at_least_once or way == "stream")
    return ("at_most_once", "at_least_once") if both else ("at_most_once",)


TURN_RUNS = [
    pytest.param(cell, way, choice, id=f"{cell.name}, {way}, {choice}")
    for cell in TURNS
    for way in cell.ways
    for choice in choices(cell, way)
]


@pytest.mark.parametrize(("cell", "way", "choice"), TURN_RUNS)
async def test_a_fault_of_an_open_socket(cell: Cell, way: Way, choice: DeliveryMode) -> None:
    """P1 to P8: the result of the turn, its delivery, what is sent again, and the next turns."""
    await run_cell(cell, way, choice)


@pytest.mark.parametrize("choice", ["at_most_once", "at_least_once"])
@pytest.mark.parametrize("cell", STEERED, ids=lambda cell: cell.name)
async def test_a_fault_while_a_response_is_steered(cell: Steered, choice: DeliveryMode) -> None:
    """P3, P4: the turn ends once; the input is never sent again, and its receipt ends."""
    await run_steered(cell, choice)


@pytest.mark.parametrize("under_way", ["", "with a turn under way"])
@pytest.mark.parametrize("cell", CLOSINGS, ids=lambda cell: cell.name)
async def test_a_fault_while_the_connection_is_closed(cell: Closing, under_way: str) -> None:
    """P1, P3: closing is bounded, whatever the server does."""
    await run_closing(cell, under_way)
