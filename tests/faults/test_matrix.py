"""P1 to P6, P10: everything that can go wrong, cell by cell; docs/faults.md is this table."""

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
    from trio_responses._protocol.delivery import DeliveryMode

pytestmark = NO_WAITING


OPENING_RUNS = [
    pytest.param(cell, times, after_a_loss, id=f"{cell.name}, {times}, {when}")
    for cell in OPENINGS
    for times in ("once", "for good")
    for after_a_loss, when in ((False, "at first"), (True, "after a loss"))
    if (cell.passes if times == "once" else cell.error is not None)
]


@pytest.mark.parametrize(("cell", "times", "after_a_loss"), OPENING_RUNS)
async def test_a_fault_on_the_way_to_a_socket(
    cell: Opening,
    times: str,
    after_a_loss: bool,  # noqa: FBT001 - a parameter of the run
) -> None:
    """P2, P4: met once it is waited out, met for good it is told; nothing is sent twice."""
    await (pass_over if times == "once" else give_up)(cell, after_a_loss=after_a_loss)


def choices(cell: Cell, way: Way) -> tuple[DeliveryMode, ...]:
    """Leave out the choice where nothing could be sent again, and where it has been seen."""
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
    """P1 to P8: what the turn gets, what is said of it, what is sent again, what goes on."""
    await run_cell(cell, way, choice)


@pytest.mark.parametrize("choice", ["at_most_once", "at_least_once"])
@pytest.mark.parametrize("cell", STEERED, ids=lambda cell: cell.name)
async def test_a_fault_while_a_response_is_steered(cell: Steered, choice: DeliveryMode) -> None:
    """P3, P4: the turn ends once; the input is never sent again, and its fate is said."""
    await run_steered(cell, choice)


@pytest.mark.parametrize("under_way", ["", "with a turn under way"])
@pytest.mark.parametrize("cell", CLOSINGS, ids=lambda cell: cell.name)
async def test_a_fault_while_the_connection_is_left(cell: Closing, under_way: str) -> None:
    """P1, P3: leaving is bounded, whatever the server does."""
    await run_closing(cell, under_way)
