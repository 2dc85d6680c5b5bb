"""The processor affinity and the memory of a process."""

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
    """Pin this process to one processor on Linux; server and clients use two different ones."""
    if sys.platform == "linux":
        processors = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {processors[place % len(processors)]})


def resident_bytes() -> int:
    """Return the resident memory of this process, or its peak where only the peak is available."""
    if STATM.exists():
        return int(STATM.read_text(encoding="ascii").split()[1]) * resource.getpagesize()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
