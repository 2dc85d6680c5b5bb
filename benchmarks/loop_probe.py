"""A probe of Trio's loop: the longest time that one pass through it took."""

from __future__ import annotations

import time

import trio


class LoopProbe(trio.abc.Instrument):
    """An instrument that measures each pass of the loop, between two looks at the sockets.

    While a pass lasts, no other connection is read and no deadline fires. The time is processor
    time of this thread, so that other programs have no effect.
    """

    def __init__(self) -> None:
        self.longest: float = 0.0
        """Seconds of the longest pass."""
        self.passes: int = 0
        self._since: float | None = None

    def after_io_wait(self, timeout: float) -> None:
        """Start the clock."""
        del timeout
        self.passes += 1
        self._since = time.thread_time()

    def before_io_wait(self, timeout: float) -> None:
        """Stop the clock."""
        del timeout
        if self._since is not None:
            self.longest = max(self.longest, time.thread_time() - self._since)
