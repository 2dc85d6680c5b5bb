"""P1 to P8 over HTTP: every fault of an exchange; docs/faults.md shows this table."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.faults.http_runs import run_exchange
from tests.faults.over_http import EXCHANGES
from tests.testing.driver import NO_WAITING

if TYPE_CHECKING:
    from tests.faults.cells import HTTPCell, HTTPConnectionKind, Way
    from trio_responses.typing import DeliveryMode

pytestmark = NO_WAITING


def choices(cell: HTTPCell) -> tuple[DeliveryMode, ...]:
    """Return the delivery modes of a cell: both, where the second one can make a difference."""
    if cell.raises is None and not cell.repeated:
        return ("at_most_once",)
    return ("at_most_once", "at_least_once")


EXCHANGE_RUNS = [
    pytest.param(cell, kind, way, choice, id=f"{cell.name}, {kind}, {way}, {choice}")
    for cell in EXCHANGES
    for kind in cell.kinds
    for way in ("stream", "conversation")
    for choice in choices(cell)
]


@pytest.mark.parametrize(("cell", "kind", "way", "choice"), EXCHANGE_RUNS)
async def test_a_fault_of_an_exchange(
    cell: HTTPCell, kind: HTTPConnectionKind, way: Way, choice: DeliveryMode
) -> None:
    """The result of the turn, its delivery, what is sent again, and the next turns."""
    await run_exchange(cell, kind, way, choice)
