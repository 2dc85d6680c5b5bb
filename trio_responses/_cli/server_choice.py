"""Where a command connects to: the URL that it was given, or a server in this process.

What belongs elsewhere: profiles of servers (`endpoint.py`), the server itself (`testing/`).
"""

from __future__ import annotations

import contextlib
import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from trio_responses import Endpoint, open_responses
from trio_responses._cli import running
from trio_responses._cli.running import PROG
from trio_responses.testing import open_test_server

if TYPE_CHECKING:
    import argparse
    from collections.abc import AsyncGenerator, Sequence
    from contextlib import AbstractAsyncContextManager

    from trio_responses import Instrument, ResponsesConnection
    from trio_responses.testing import Responder

__all__ = ["Place", "choose_place", "open_place"]

HOUR: Final = 3600.0
NO_KEY: Final = """\
error: there is no API key for {host}. Do one of these:
  export OPENAI_API_KEY=...                           ask with your key
  {prog} {command} --embedded{example}                ask the embedded server: no key needed
  {prog} {command} --base-url http://127.0.0.1:PORT/v1{example}   ask a server on this machine
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A server to connect to."""

    endpoint: Endpoint
    api_key: str | None = None
    """The key: `None` for that of the environment, empty for none."""
    instruments: Sequence[Instrument] | None = None
    """What is told of the connection; `None` for what every connection has."""

    def connect(self) -> AbstractAsyncContextManager[ResponsesConnection]:
        """Open a connection that gives up as soon as a person would."""
        return open_responses(
            endpoint=self.endpoint,
            api_key=self.api_key,
            reconnect=running.PATIENCE,
            instruments=self.instruments,
        )


def choose_place(arguments: argparse.Namespace, *, example: str = "") -> Endpoint | None:
    """Choose by the arguments and the environment; `None` for the server in this process.

    :param example: what follows in the examples of the message.
    :raises LookupError: when there is no key; how to go on was said on stderr.
    :raises ConfigurationError: for a URL that cannot be dialled.
    """
    if arguments.embedded:
        return None
    endpoint = Endpoint.of(arguments.base_url)
    if not endpoint.loopback and not os.environ.get(endpoint.key_variable):
        words = NO_KEY.format(
            host=endpoint.host, prog=PROG, command=arguments.name, example=example
        )
        print(words, end="", file=sys.stderr)
        raise LookupError(endpoint.key_variable)
    return endpoint


@contextlib.asynccontextmanager
async def open_place(
    endpoint: Endpoint | None,
    *,
    max_age: float | None = None,
    responder: Responder | None = None,
    instruments: Sequence[Instrument] | None = None,
) -> AsyncGenerator[Place, None]:
    """Have a server for the length of a block: the one at the endpoint, or the embedded one.

    The embedded one needs no key, and the user's own is none of its business.

    :param max_age: seconds after which the embedded server ends a socket; by default an hour.
    :param responder: what the embedded server answers.
    :param instruments: what is told of the connection; by default what every connection has.
    """
    if endpoint is not None:
        yield Place(endpoint=endpoint, instruments=instruments)
        return
    async with open_test_server(max_age=max_age or HOUR) as server:
        server.respond_with(responder)
        profile = Endpoint.compatible(
            await server.serve_tcp(), lanes=True, max_age=max_age, after_error="reuse"
        )
        yield Place(endpoint=profile, api_key="", instruments=instruments)
