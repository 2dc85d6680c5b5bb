"""``serve`` and ``demo``: the embedded server for other programs, and at work.

What belongs elsewhere: the server (`testing/`), the demonstration (`demo.py`), a server that
answers from a recording (`replay.py`).
"""

from __future__ import annotations

import os
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

import trio

from trio_responses._cli.demo import run_demo
from trio_responses._cli.running import FAILED, SIGNALLED, run, say_error
from trio_responses._cli.screen import Screen
from trio_responses.testing import open_test_server

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from trio_responses.testing import ResponsesServer

__all__ = ["demo", "run_server", "serve"]


def serve(arguments: argparse.Namespace) -> int:
    """Run the embedded server until a signal, which is its only good end."""
    return run_server(
        lambda _: None,
        host=arguments.host,
        port=arguments.port,
        api_key=arguments.api_key,
        max_age=arguments.max_age,
        unknown_parameters=arguments.unknown_parameters,
    )


def run_server(
    order: Callable[[ResponsesServer], None],
    *,
    host: str,
    port: int,
    **options: Any,
) -> int:
    """Run the embedded server until a signal; give the exit code.

    :param order: tells the server what to answer, before it listens.
    :param options: those of `open_test_server`.
    """
    code = run(partial(_serve_until_signal, order, host=host, port=port, **options))
    return 0 if code > SIGNALLED else code


async def _serve_until_signal(
    order: Callable[[ResponsesServer], None],
    *,
    host: str,
    port: int,
    **options: Any,
) -> int:
    async with open_test_server(**options) as server:
        order(server)
        try:
            url = await server.serve_tcp(host, port)
        except (OSError, UnicodeError) as error:
            reason = (error.strerror if isinstance(error, OSError) else None) or error
            say_error(f"cannot listen on {host} port {port}: {reason}")
        else:
            print(f"listening on {url}", flush=True)
            await trio.sleep_forever()
    return FAILED


def demo(_: argparse.Namespace) -> int:
    """Show the library at work."""
    colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    return run(partial(run_demo, Screen(sys.stdout, colour=colour)))
