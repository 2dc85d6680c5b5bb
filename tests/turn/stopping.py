"""An instrument that stops the client's process, and fixtures for the server that answers it."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import pytest

from trio_responses import Instrument, Timeouts

if TYPE_CHECKING:
    from trio_responses.typing import TurnRecord

LIMITS = Timeouts(first_event=0.2, stall=0.2)


class Stop(Instrument):
    """An instrument that stops the whole process, once a request was written."""

    def __init__(self, answered: threading.Event) -> None:
        self._answered = answered

    def turn_sent(self, turn: TurnRecord) -> None:  # noqa: ARG002 - a hook
        assert self._answered.wait(60)
        time.sleep(1)  # the rest of the answer arrives, and the deadline passes


@pytest.fixture(params=[True, False], ids=["answering", "silent"])
def answers(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture
def answered() -> threading.Event:
    return threading.Event()
