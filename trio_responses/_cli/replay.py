"""``replay``: the embedded server, which answers from a recording.

What belongs elsewhere: how a recording becomes answers (`testing/replay.py`), how the server
listens (`serve.py`).
"""

from __future__ import annotations

import sys
from functools import partial
from typing import TYPE_CHECKING, final

from trio_responses import ConfigurationError, Recording
from trio_responses._cli.serve import run_server
from trio_responses.testing import default_answer

if TYPE_CHECKING:
    import argparse

    from trio_responses.testing import Answer, Request, ResponsesServer

__all__ = ["replay"]


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
