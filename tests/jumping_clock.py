"""Clocks that jump, and threads: a clock of the tests does not jump while a thread works.

`MockClock` jumps to the next deadline when all tasks are blocked. While a function runs in a thread
(a tool, a store in a file), its task is blocked as well, so that on a slow machine one deadline
after another would pass. `conftest.py` calls `let_threads_finish` once for all clocks of the suite.
"""

import time
from typing import Final

from trio.testing import MockClock, active_thread_count

PAUSE: Final = 0.0005
PATIENCE: Final = 20.0
"""Real seconds without a jump, after which a thread is considered to wait for the clock itself."""


def let_threads_finish() -> None:
    """Replace the jump of every `MockClock` by one that waits for the threads of Trio first."""
    jump = MockClock._autojump
    waited = 0.0

    def jump_without_threads(clock: MockClock) -> None:
        nonlocal waited
        if active_thread_count() and waited < PATIENCE:
            # Trio calls this again while all tasks are blocked. A pause lets the threads run.
            time.sleep(PAUSE)
            waited += PAUSE
        else:
            waited = 0.0
            jump(clock)

    MockClock._autojump = jump_without_threads  # type: ignore[assignment, method-assign]
