"""The program: arguments in, an exit code out, and what it says when something is wrong.

Exit codes: 0 for success, 1 for an error, 2 for wrong usage, 130 after Ctrl-C (``serve`` and
``replay``, which have no other end, exit with 0 then), 141 when whoever reads the output has
left. No traceback for what is not a fault of this program, unless ``--debug`` asks for it.

What belongs elsewhere: what the commands are called and take (`arguments.py`), signals
(`running.py`).
"""

from __future__ import annotations

import io
import logging
import sys
import traceback
from typing import TYPE_CHECKING

from trio_responses import ResponsesError
from trio_responses._cli.arguments import make_parser
from trio_responses._cli.running import (
    BROKEN_PIPE,
    FAILED,
    INTERRUPTED,
    explain,
    forget_output,
    say_error,
)

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Sequence

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    :param argv: the arguments, without the program's name; by default those of the process.
    :return: the exit code.
    :raises SystemExit: from argparse: for wrong usage, ``--help`` and ``--version``.
    """
    arguments = make_parser().parse_args(argv)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # an answer may hold what a terminal cannot show
    debug = getattr(arguments, "debug", False)
    if debug:  # else the commands say themselves what a user has to know of the connection
        logging.basicConfig(level=logging.INFO)
        logging.getLogger("trio_responses").setLevel(logging.DEBUG)
    command: Callable[[argparse.Namespace], int] = arguments.command
    try:
        return command(arguments)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # whoever read the output has left
        forget_output()
        return BROKEN_PIPE
    except (ResponsesError, OSError, UnicodeError) as error:
        if debug:
            traceback.print_exception(error)
        say_error(explain(error))
        return FAILED
