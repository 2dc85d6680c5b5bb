"""The server of an example: the embedded one by default, a real one with ``--url``."""

from argparse import ArgumentParser
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

from trio_responses import Endpoint
from trio_responses.testing import Responder, open_test_server

__all__ = ["argument_parser", "open_server"]


def argument_parser(description: str | None) -> ArgumentParser:
    """Return a parser with the arguments that all examples share."""
    parser = ArgumentParser(description=description)
    parser.add_argument(
        "--url",
        help="base URL of a real server, such as https://api.openai.com/v1, with the key in"
        " OPENAI_API_KEY; by default the embedded server answers",
    )
    parser.add_argument("--model", default="gpt-5.5", help="the name of the model (%(default)s)")
    return parser


@asynccontextmanager
async def open_server(
    url: str | None, responder: Responder | None = None
) -> AsyncGenerator[dict[str, Any], None]:
    """Yield the options for opening a connection, and run the embedded server without a URL.

    :param url: the base URL of a real server, or `None` for the embedded one, on a free port.
    :param responder: the answers of the embedded server; by default it repeats the input.
    """
    if url is not None:
        yield {"endpoint": Endpoint.of(url)}
        return
    async with open_test_server() as server:
        server.respond_with(responder)
        endpoint = Endpoint.compatible(await server.serve_tcp(), lanes=True)
        yield {"endpoint": endpoint, "api_key": ""}  # does not send the key of the environment
