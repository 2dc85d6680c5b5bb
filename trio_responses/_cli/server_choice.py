"""The server that a command connects to: one at a URL, or the embedded server in this process.

The URL comes from ``--base-url`` or the environment. The embedded server, chosen by
``--embedded``, needs no API key and never receives the user's.
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
    from trio_responses.typing import TransportOption

__all__ = ["DEFAULT_MODEL", "ServerChoice", "endpoint_from_arguments", "open_server"]

DEFAULT_MODEL: Final = "gpt-5.5"
"""The model of a command without ``--model``."""
HOUR: Final = 3600.0
NO_KEY: Final = """\
error: no API key is set for {host}. Do one of these:
  export OPENAI_API_KEY=...                           use your key
  {prog} {command} --embedded{example}                use the embedded server: no key needed
  {prog} {command} --base-url http://127.0.0.1:PORT/v1{example}   use a server on this machine
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerChoice:
    """A server to connect to, and the options of the connection.

    :param api_key: the API key: `None` for that of the environment, empty for none.
    :param transport: how requests are sent.
    :param instruments: the instruments of the connection, besides the log.
    """

    endpoint: Endpoint
    api_key: str | None = None
    transport: TransportOption = "auto"
    instruments: Sequence[Instrument] = ()

    def connect(self) -> AbstractAsyncContextManager[ResponsesConnection]:
        """Open a connection that reconnects by the policy of the command line."""
        return open_responses(
            endpoint=self.endpoint,
            api_key=self.api_key,
            transport=self.transport,
            reconnect=running.RECONNECT,
            instruments=self.instruments,
        )


def endpoint_from_arguments(arguments: argparse.Namespace, *, example: str = "") -> Endpoint | None:
    """Return the endpoint from the arguments or the environment; `None` for the embedded server.

    :param example: what follows the options in the examples of the error message.
    :raises LookupError: when the endpoint needs an API key and none is set; the error message is
        on stderr by then.
    :raises ConfigurationError: for an invalid URL.
    """
    if arguments.embedded:
        return None
    endpoint = Endpoint.of(arguments.base_url)
    if not endpoint.loopback and not os.environ.get(endpoint.key_variable):
        message = NO_KEY.format(
            host=endpoint.host, prog=PROG, command=arguments.name, example=example
        )
        print(message, end="", file=sys.stderr)
        raise LookupError(endpoint.key_variable)
    return endpoint


@contextlib.asynccontextmanager
async def open_server(
    endpoint: Endpoint | None,
    *,
    transport: TransportOption = "auto",
    max_age: float | None = None,
    responder: Responder | None = None,
    instruments: Sequence[Instrument] = (),
) -> AsyncGenerator[ServerChoice, None]:
    """Yield the server at an endpoint, or run the embedded server for the length of the block.

    :param endpoint: the endpoint; `None` for the embedded server.
    :param transport: how requests are sent.
    :param max_age: seconds after which the embedded server closes a socket; by default an hour.
    :param responder: returns the answers of the embedded server.
    :param instruments: the instruments of the connection, besides the log.
    """
    if endpoint is not None:
        yield ServerChoice(endpoint=endpoint, transport=transport, instruments=instruments)
        return
    async with open_test_server(max_age=max_age or HOUR) as server:
        server.respond_with(responder)
        profile = Endpoint.compatible(
            await server.serve_tcp(), lanes=True, max_age=max_age, after_error="reuse"
        )
        yield ServerChoice(
            endpoint=profile, api_key="", transport=transport, instruments=instruments
        )
