"""The fault matrix: all cells, by the module that runs them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tests.faults.closing import CLOSINGS
from tests.faults.endings import ENDINGS
from tests.faults.losses import OPEN
from tests.faults.openings import OPENINGS
from tests.faults.over_http import EXCHANGES, HTTP_CLOSINGS
from tests.faults.refusals import REFUSALS
from tests.faults.sendings import SENDINGS
from tests.faults.steering import STEERED

if TYPE_CHECKING:
    from tests.faults.cells import Cell

__all__ = ["CLOSINGS", "EXCHANGES", "HTTP_CLOSINGS", "OPENINGS", "STEERED", "TURNS"]

TURNS: Final[list[Cell]] = [*OPEN, *REFUSALS, *SENDINGS, *ENDINGS]
