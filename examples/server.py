"""What the examples share: the server, embedded or that of ``--url``, and a supervisor."""
# ruff: noqa: T201 - this module prints what the examples report

import sys
from argparse import ArgumentParser
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import trio

from trio_responses import Endpoint
from trio_responses.testing import Responder, open_test_server

__all__ = ["argument_parser", "open_server", "supervise"]


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


async def supervise(command: list[str], **options: Any) -> None:
    """Run a process, and start it again when it ends, after a delay that grows up to 30 s.

    :param options: those of `trio.run_process`.
    """
    delay = 0.5
    while True:
        started_at = trio.current_time()
        done = await trio.run_process(command, check=False, **options)
        print(f"a process ended with status {done.returncode}", file=sys.stderr)
        delay = min(2 * delay, 30.0) if trio.current_time() < started_at + 60 else 0.5
        await trio.sleep(delay)
