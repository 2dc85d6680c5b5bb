"""Running a command: signals and exit codes, and an error as one line.

What belongs elsewhere: what the commands do (`serve.py`, `ask.py`, `chat.py`, `probe.py`,
`record.py`, `replay.py`).
"""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import trio

from trio_responses import APIError, Delivery, ReconnectPolicy, ResponseFailedError, ResponsesError
from trio_responses._concurrency import open_collapsing_nursery

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = [
    "BROKEN_PIPE",
    "FAILED",
    "INTERRUPTED",
    "PATIENCE",
    "PROG",
    "SIGNALLED",
    "WRONG_USAGE",
    "explain",
    "forget_output",
    "run",
    "say_error",
]

PROG: Final = "trio-responses"
FAILED: Final = 1
WRONG_USAGE: Final = 2
SIGNALLED: Final = 128
"""Added to the signal's number, as shells do."""
BROKEN_PIPE: Final = SIGNALLED + 13
INTERRUPTED: Final = SIGNALLED + signal.SIGINT
PATIENCE: Final = ReconnectPolicy(initial=0.5, attempts=2, max_retry_after=10.0)
"""A person waits in front of `ask`: it gives up sooner than a program would."""


def run(work: Callable[[], Awaitable[int]]) -> int:
    """Run ``work`` until it gives its exit code, or until Ctrl-C or SIGTERM cancels it."""
    return trio.run(_until_signal, work)


async def _until_signal(work: Callable[[], Awaitable[int]]) -> int:
    received = 0

    async def wait_for_signal() -> None:
        nonlocal received
        received = await anext(signals)
        nursery.cancel_scope.cancel()

    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with open_collapsing_nursery() as nursery:
            nursery.start_soon(wait_for_signal)
            code = await work()
            nursery.cancel_scope.cancel()
            return code
    return SIGNALLED + received


def say_error(what: str) -> None:
    """Write one line to stderr."""
    print(f"error: {what}", file=sys.stderr)


def explain(error: Exception) -> str:
    """Say in one line what went wrong, and to whom it matters, what can be done about it."""
    words = [str(error) or type(error).__name__]
    match error:
        case OSError(strerror=str(reason)):
            words = [reason if error.filename is None else f"{error.filename}: {reason}"]
        case APIError(message=message) if message:
            words.append(message)
        case ResponseFailedError(response=response) if response.error is not None:
            words.append(response.error.message)
        case ResponsesError(delivery=Delivery.ACCEPTED):
            words.append("the answer had begun")
        case ResponsesError(delivery=Delivery.AMBIGUOUS):
            words.append("the question was sent and may have been worked on")
        case _:
            pass
    return " ".join(": ".join(filter(None, words)).split())


def forget_output() -> None:
    """Let what is still buffered go nowhere.

    The interpreter writes it at exit, fails once more, and would make status 120 of that.
    """
    with suppress(OSError, ValueError):  # a stream that is no file has nothing to redirect
        output = sys.stdout.fileno()
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, output)
        os.close(nowhere)
