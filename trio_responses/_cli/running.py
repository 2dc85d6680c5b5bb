"""Execution of a command: signals cancel the command, and errors are printed to stderr.

A command is an async function that returns its exit code. SIGINT and SIGTERM cancel the function;
the exit code is then 128 plus the number of the signal, as in shells.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import traceback
from contextlib import suppress
from typing import TYPE_CHECKING, Final, final

import trio

from trio_responses import (
    APIError,
    DeliveryStatus,
    ReconnectPolicy,
    ResponsesError,
)
from trio_responses._concurrency import open_collapsing_nursery
from trio_responses._safe_text import escape_controls

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import TextIO

__all__ = [
    "BROKEN_PIPE",
    "FAILED",
    "INTERRUPTED",
    "PROG",
    "RECONNECT",
    "SIGNAL_BASE",
    "WRONG_USAGE",
    "EscapingFormatter",
    "UsageError",
    "describe_error",
    "discard_output",
    "for_terminal",
    "print_error",
    "print_note",
    "print_traceback",
    "replace_surrogates",
    "run",
]

PROG: Final = "trio-responses"
FAILED: Final = 1
WRONG_USAGE: Final = 2
SIGNAL_BASE: Final = 128
"""The exit code of a command that a signal ended, less the number of the signal."""
BROKEN_PIPE: Final = SIGNAL_BASE + 13
INTERRUPTED: Final = SIGNAL_BASE + signal.SIGINT
OPTIONS: Final = {
    "with proxy=False or NO_PROXY, or pass allow_insecure=True": "with NO_PROXY",
    "or pass allow_insecure=True": "or add --allow-insecure",
    " or pass api_key": "",
    'transport="http" needs': "--transport http needs",
    "the base URL is wrong": "--base-url is wrong",
    "pass the return value of conversation.checkpoint()": "choose a file that /save has written",
    "pass wait= to wait for it": "leave the other chat first",
    "leave out checkpoint= to continue from the store, or delete the conversation from it first": (
        "leave out --load to continue from the store, or choose another --key"
    ),
    "choose a file that Recorder has written": "choose a file that record or --record has written",
}
"""What a user of the command line can do, by what a program would do, in error messages."""
RECONNECT: Final = ReconnectPolicy(initial=0.5, attempts=2, max_retry_after=10.0)
"""The reconnect policy of every command: a waiting person wants an error sooner than a program."""


class UsageError(Exception):
    """Raised for wrong usage: `main` prints the message, and the exit code is 2."""


def run(command: Callable[[], Awaitable[int]]) -> int:
    """Run an async command until it returns its exit code, or until a signal cancels it."""
    return trio.run(_run_until_signal, command)


async def _run_until_signal(command: Callable[[], Awaitable[int]]) -> int:
    received = 0

    async def wait_for_signal() -> None:
        nonlocal received
        received = await anext(signals)
        nursery.cancel_scope.cancel()

    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with open_collapsing_nursery() as nursery:
            nursery.start_soon(wait_for_signal)
            code = await command()
            nursery.cancel_scope.cancel()
            return code
    return SIGNAL_BASE + received


def print_error(message: str) -> None:
    """Write an error message to stderr, as one line that begins with ``error:``."""
    _print_line("error", message)


def print_note(message: str, *, kind: str = "note") -> None:
    """Write a note for the user to stderr, as one line that begins with its kind.

    :param kind: the first word of the line.
    """
    _print_line(kind, message)


def _print_line(kind: str, message: str) -> None:
    print(escape_controls(f"{kind}: {message}"), file=sys.stderr, flush=True)


def for_terminal(text: str, out: TextIO) -> str:
    """Return a text of a server as it may be written: with controls escaped on a terminal.

    A file or a pipe gets the text as the server sent it.
    """
    return escape_controls(text) if out.isatty() else text


def replace_surrogates(text: str) -> str:
    """Return a text with each lone surrogate replaced by "?".

    Python decodes bytes of an argument that are not UTF-8 to them, and JSON cannot encode them.
    """
    return text.encode(errors="replace").decode()


def print_traceback(error: BaseException) -> None:
    """Write the traceback of an error to stderr; other libraries' messages may quote a server."""
    sys.stderr.write(escape_controls("".join(traceback.format_exception(error))))


@final
class EscapingFormatter(logging.Formatter):
    """A formatter of log records, for other libraries' records that quote what a server sent."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as text, with controls escaped."""
        return escape_controls(super().format(record))


def describe_error(error: Exception) -> str:
    """Return one line that describes an error, with how far a turn got.

    Options of the command line replace the arguments that a program would pass.
    """
    parts = [str(error) or type(error).__name__]
    match error:
        case OSError(strerror=str(reason)):
            parts = [reason if error.filename is None else f"{error.filename}: {reason}"]
        case APIError():
            pass
        case ResponsesError(delivery=DeliveryStatus.ACCEPTED):
            parts.append("the server had started to answer")
        case ResponsesError(delivery=DeliveryStatus.AMBIGUOUS):
            parts.append("the request was sent, and the server may have processed it")
        case _:
            pass
    text = " ".join(": ".join(filter(None, parts)).split())
    for argument, option in OPTIONS.items():
        text = text.replace(argument, option)
    return text


def discard_output() -> None:
    """Redirect stdout to the null device, so that buffered output is discarded.

    Otherwise the interpreter writes the buffer at exit, fails again, and exits with status 120.
    """
    with suppress(OSError, ValueError):  # a stream that is no file has nothing to redirect
        output = sys.stdout.fileno()
        null_device = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null_device, output)
        os.close(null_device)
