"""Where processes run, and what they use: processors, memory.

What belongs elsewhere: what they do there (`replay.py`, `worker.py`).
"""

from __future__ import annotations

import os
import resource
import sys
from pathlib import Path
from typing import Final

SERVER: Final = 0
CLIENT: Final = 1
STATM: Final = Path("/proc/self/statm")


def pin(place: int) -> None:
    """Stay on one processor, where the system can do that: server and clients on two."""
    if sys.platform == "linux":
        processors = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {processors[place % len(processors)]})


def resident_bytes() -> int:
    """Give the memory that this process has; the most it has had where the system says no more."""
    if STATM.exists():
        return int(STATM.read_text(encoding="ascii").split()[1]) * resource.getpagesize()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
