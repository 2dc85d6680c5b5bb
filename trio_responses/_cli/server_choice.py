"""The server that a command connects to: one at a URL, or the embedded server in this process.

The URL comes from ``--base-url``, from the profile that ``--endpoint`` names, or from the
environment. The embedded server, chosen by ``--embedded``, needs no API key and never receives the
user's.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from trio_responses import Endpoint, open_responses
from trio_responses._cli import running
from trio_responses._cli.running import PROG, UsageError
from trio_responses.testing import open_test_server

if TYPE_CHECKING:
    import argparse
    from collections.abc import AsyncGenerator, Sequence
    from contextlib import AbstractAsyncContextManager

    from trio_responses import Instrument, ResponsesConnection
    from trio_responses.testing import Responder
    from trio_responses.typing import TransportOption

__all__ = [
    "DEFAULT_MODEL",
    "ENDPOINTS",
    "NO_MODEL",
    "ServerChoice",
    "default_model",
    "endpoint_from_arguments",
    "open_server",
]

DEFAULT_MODEL: Final = "gpt-5.5"
"""The model of a command without ``--model``."""
NO_MODEL: Final = "no model: add --model NAME (on Azure, the name of your deployment)"
HOUR: Final = 3600.0
ENDPOINTS: Final = ("openai", "azure", "xai", "compatible")
"""The profiles of `Endpoint`, by the names of their class methods."""
AZURE_RESOURCE: Final = "AZURE_OPENAI_ENDPOINT"
AZURE_KEY: Final = "AZURE_OPENAI_API_KEY"
AZURE_TOKEN: Final = "AZURE_OPENAI_AD_TOKEN"  # noqa: S105 - the name of a variable
NO_KEY: Final = """\
no API key is set for {host}. Do one of these:
  {export:<50}  use your key
  {prog} {command} --embedded{example}                use the embedded server: no key needed
  {prog} {command} --base-url http://127.0.0.1:PORT/v1{example}   use a server on this machine\
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerChoice:
    """A server to connect to, and the options of the connection.

    :param api_key: the API key: `None` for that of the environment, empty for none.
    :param transport: how requests are sent.
    :param instruments: the instruments of the connection, besides the log.
    :param allow_insecure: whether the key and the content may be sent without TLS.
    """

    endpoint: Endpoint
    api_key: str | None = None
    transport: TransportOption = "auto"
    instruments: Sequence[Instrument] = ()
    allow_insecure: bool = False

    def connect(self) -> AbstractAsyncContextManager[ResponsesConnection]:
        """Open a connection that reconnects by the policy of the command line."""
        return open_responses(
            endpoint=self.endpoint,
            api_key=self.api_key,
            transport=self.transport,
            reconnect=running.RECONNECT,
            instruments=self.instruments,
            allow_insecure=self.allow_insecure,
        )


def endpoint_from_arguments(arguments: argparse.Namespace, *, example: str = "") -> Endpoint | None:
    """Return the endpoint from the arguments or the environment; `None` for the embedded server.

    :param example: what follows the options in the examples of the error message.
    :raises UsageError: when the endpoint needs an API key and none is set, when a profile lacks
        what it needs, and for options that contradict each other.
    :raises ConfigurationError: for an invalid URL.
    """
    if arguments.embedded:
        if arguments.endpoint is not None or arguments.resource is not None:
            raise UsageError("--embedded runs a server: leave out --endpoint and --resource")
        return None
    if arguments.resource is not None and arguments.endpoint != "azure":
        raise UsageError("--resource names an Azure resource: add --endpoint azure")
    endpoint = _choose_endpoint(arguments)
    needs_key = endpoint.requires_key or not endpoint.loopback
    if needs_key and not os.environ.get(endpoint.key_variable):
        export = f"export {endpoint.key_variable}=..."
        if endpoint.key_variable == AZURE_KEY:
            export += f" or {AZURE_TOKEN}=..."
        message = NO_KEY.format(
            host=endpoint.host, export=export, prog=PROG, command=arguments.name, example=example
        )
        raise UsageError(message)
    return endpoint


def default_model(arguments: argparse.Namespace) -> str | None:
    """Return the model of a command without ``--model``; `None` when only the user can know it."""
    return None if arguments.endpoint in {"azure", "xai"} else DEFAULT_MODEL


def _choose_endpoint(arguments: argparse.Namespace) -> Endpoint:
    """Return the profile that ``--endpoint`` names, with the URL of ``--base-url``."""
    url: str | None = arguments.base_url
    match arguments.endpoint:
        case "azure":
            return _azure_endpoint(arguments)
        case "openai":
            return Endpoint.openai() if url is None else Endpoint.openai(url)
        case "xai":
            return Endpoint.xai() if url is None else replace(Endpoint.xai(), url=url)
        case "compatible":
            url = url or os.environ.get("OPENAI_BASE_URL")
            if not url:
                raise UsageError("--endpoint compatible needs the server's URL: add --base-url URL")
            return Endpoint.compatible(url)
        case _:
            return Endpoint.of(url)


def _azure_endpoint(arguments: argparse.Namespace) -> Endpoint:
    """Return the profile of an Azure resource; an Entra token is used where there is no key."""
    given = (arguments.resource, arguments.base_url)
    if None not in given:
        raise UsageError("--resource and --base-url both name the Azure resource: leave out one")
    resource = given[0] or given[1] or os.environ.get(AZURE_RESOURCE)
    if not resource:
        raise UsageError(
            f"--endpoint azure needs your resource: add --resource NAME, or set {AZURE_RESOURCE}"
        )
    token = not os.environ.get(AZURE_KEY) and bool(os.environ.get(AZURE_TOKEN))
    return Endpoint.azure(resource, token=token)


@contextlib.asynccontextmanager
async def open_server(
    endpoint: Endpoint | None,
    *,
    transport: TransportOption = "auto",
    max_age: float | None = None,
    responder: Responder | None = None,
    instruments: Sequence[Instrument] = (),
    allow_insecure: bool = False,
) -> AsyncGenerator[ServerChoice, None]:
    """Yield the server at an endpoint, or run the embedded server for the length of the block.

    :param endpoint: the endpoint; `None` for the embedded server.
    :param transport: how requests are sent.
    :param max_age: seconds after which the embedded server closes a socket; by default an hour.
    :param responder: returns the answers of the embedded server.
    :param instruments: the instruments of the connection, besides the log.
    :param allow_insecure: whether the key and the content may be sent without TLS.
    """
    if endpoint is not None:
        yield ServerChoice(
            endpoint=endpoint,
            transport=transport,
            instruments=instruments,
            allow_insecure=allow_insecure,
        )
        return
    async with open_test_server(max_age=max_age or HOUR) as server:
        server.respond_with(responder)
        profile = Endpoint.compatible(
            await server.serve_tcp(), lanes=True, max_age=max_age, after_error="reuse"
        )
        yield ServerChoice(
            endpoint=profile, api_key="", transport=transport, instruments=instruments
        )
