"""Where the examples connect: to a server in their own process, or to a real one (``--url``).

What belongs elsewhere: everything that an example is about.
"""

from argparse import ArgumentParser
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

from trio_responses import Endpoint
from trio_responses.testing import Responder, open_test_server

__all__ = ["open_place", "parser_for"]


def parser_for(description: str | None) -> ArgumentParser:
    """Begin the arguments of an example with those that all have."""
    parser = ArgumentParser(description=description)
    parser.add_argument(
        "--url",
        help="a real server, such as https://api.openai.com/v1, with its key in OPENAI_API_KEY;"
        " without it the embedded one answers",
    )
    parser.add_argument("--model", default="gpt-5.5", help="the model's name (%(default)s)")
    return parser


@asynccontextmanager
async def open_place(
    url: str | None, responder: Responder | None = None
) -> AsyncGenerator[dict[str, Any], None]:
    """Give the options to connect with; without a URL, run the embedded server, on a real port.

    :param responder: what the embedded server answers; by default it repeats what it is told.
    """
    if url is not None:
        yield {"endpoint": Endpoint.of(url)}
        return
    async with open_test_server() as server:
        server.respond_with(responder)
        endpoint = Endpoint.compatible(await server.serve_tcp(), lanes=True)
        yield {"endpoint": endpoint, "api_key": ""}  # your own key is none of its business
