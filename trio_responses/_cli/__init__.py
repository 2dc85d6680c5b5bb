"""The command line: `main` parses the arguments, runs one command and returns its exit code.

Exit codes: 0 for success, 2 when an option, a file or a URL cannot be used as given (`_exit_code`),
1 for every other error, 130 after Ctrl-C, 143 after SIGTERM, 141 when the reader of the output has
closed its end. ``serve`` and ``replay`` run until a signal and exit with 0 after it. An error is
one line on stderr; ``--debug`` shows the traceback as well.
"""

from __future__ import annotations

import io
import logging
import sys
from typing import TYPE_CHECKING, Final

from trio_responses import ConfigurationError, ResponsesError
from trio_responses._cli.arguments import parse_arguments
from trio_responses._cli.running import (
    BROKEN_PIPE,
    FAILED,
    INTERRUPTED,
    WRONG_USAGE,
    EscapingFormatter,
    UsageError,
    describe_error,
    discard_output,
    print_error,
    print_traceback,
)

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Sequence

__all__ = ["main"]

UNUSABLE_FILE: Final = (
    *(FileNotFoundError, FileExistsError),
    *(IsADirectoryError, NotADirectoryError, PermissionError),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    :param argv: the arguments, without the program's name; by default those of the process.
    :raises SystemExit: from argparse: for wrong usage, ``--help`` and ``--version``.
    """
    arguments = parse_arguments(argv)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # an answer may hold what a terminal cannot show
    debug = getattr(arguments, "debug", False)
    if debug:  # without it, the commands themselves print what a user has to know
        handler = logging.StreamHandler()
        handler.setFormatter(EscapingFormatter(logging.BASIC_FORMAT))
        logging.basicConfig(level=logging.INFO, handlers=[handler])
        logging.getLogger("trio_responses").setLevel(logging.DEBUG)
    command: Callable[[argparse.Namespace], int] = arguments.command
    try:
        return command(arguments)
    except KeyboardInterrupt:
        return INTERRUPTED
    except UsageError as error:
        if debug:
            print_traceback(error)
        print_error(str(error))
        return WRONG_USAGE
    except BrokenPipeError:  # the reader of the output has closed its end
        discard_output()
        return BROKEN_PIPE
    except (ResponsesError, OSError, UnicodeError) as error:
        if debug:
            print_traceback(error)
        print_error(describe_error(error))
        return _exit_code(error)


def _exit_code(error: Exception) -> int:
    """Return the exit code for an error: that of wrong usage if the command could not begin.

    The name of a file comes from the command line. A full disk is no wrong usage.
    """
    is_file = isinstance(error, UNUSABLE_FILE) and error.filename is not None
    return WRONG_USAGE if is_file or isinstance(error, ConfigurationError) else FAILED
