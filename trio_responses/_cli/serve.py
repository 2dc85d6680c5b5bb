"""``serve`` and ``demo``: the embedded server for other programs, and at work.

What belongs elsewhere: the server (`testing/`), the demonstration (`demo.py`), a server that
answers from a recording (`replay.py`).
"""

from __future__ import annotations

import sys
from functools import partial
from typing import TYPE_CHECKING, Any, final

import trio

from trio_responses import ConfigurationError, Recording
from trio_responses._cli.running import FAILED, SIGNALLED, run, say_error
from trio_responses.testing import default_answer, open_test_server

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from trio_responses.testing import Answer, Request, ResponsesServer

__all__ = ["replay", "serve"]


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


def replay(arguments: argparse.Namespace) -> int:
    """Serve a recording until a signal, which is its only good end."""
    order = partial(
        _order,
        recording=Recording.read(arguments.file),
        name=arguments.file,
        timing=arguments.timing,
    )
    return run_server(
        order,
        host=arguments.host,
        port=arguments.port,
        api_key=arguments.api_key,
        unknown_parameters=True,  # what was asked then was known to somebody
        max_age=None,  # sockets end where they end in the recording
    )


def _order(server: ResponsesServer, *, recording: Recording, name: str, timing: bool) -> None:
    """Tell the server what to answer.

    :raises ConfigurationError: when there is nothing to answer.
    """
    if not server.replay(recording, timing=timing):
        raise ConfigurationError(f"there is no request in {name}: nothing to replay")
    server.respond_with(Beyond())


@final
class Beyond:
    """Answers what comes behind the recording, and says so once."""

    def __init__(self) -> None:
        self._told = False

    def __call__(self, request: Request) -> Answer:
        """Answer as the server does by itself."""
        if not self._told:
            self._told = True
            words = "the recording is used up: from here on the server answers by itself"
            print(f"note: {words}", file=sys.stderr, flush=True)
        return default_answer(request)
