"""A web service: each browser has a conversation and shows answers while they arrive.

Quart-Trio serves the page and a WebSocket. The conversations share the connections of one pool.
When a browser disconnects, its turn is cancelled; other conversations continue.

Run it: ``pip install trio-responses[examples]``, then ``python -m examples.web``.
"""
# ruff: noqa: T201 - this program prints its results

import json
import signal
import socket
from argparse import Namespace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import trio
from hypercorn.config import Config
from hypercorn.trio import serve  # pyright: ignore[reportUnknownVariableType]
from quart import abort, websocket
from quart_trio import QuartTrio

from examples.server import argument_parser, open_server
from trio_responses import Conversation, ResponsesError, ResponsesPool, open_pool
from trio_responses.testing import Reply, Request, default_answer

PAGE = Path(__file__).with_name("web.html").read_text(encoding="utf-8")


def answer_slowly(request: Request) -> Reply:
    """Return the answer of the embedded server, with a delay between the pieces."""
    return Reply(default_answer(request).text, delay=0.03)


def make_app(pool: ResponsesPool, model: str) -> QuartTrio:
    """Return the web application."""
    app = QuartTrio(__name__)

    async def page() -> str:
        return PAGE

    async def chat() -> None:
        origin = urlsplit(websocket.headers.get("Origin", ""))
        if origin.netloc not in {"", websocket.host}:
            abort(403)  # a page of another site in the user's browser
        async with pool.conversation(model=model, store=False) as conversation:
            while isinstance(question := await websocket.receive(), str):
                await answer(conversation, question)

    app.add_url_rule("/", view_func=page)
    app.add_websocket("/chat", view_func=chat)
    return app


async def answer(conversation: Conversation, question: str) -> None:
    """Run one turn and send its text piece by piece."""
    try:
        async with conversation.stream(question) as stream:
            async for text in stream.text_deltas():
                await send_event(text=text)
        await send_event(done=True)
    except ResponsesError as error:
        await send_event(error=f"No answer: {error}.")


async def send_event(**event: Any) -> None:
    """Send one event to the browser."""
    await websocket.send(json.dumps(event))


async def main(arguments: Namespace) -> None:
    """Serve until Ctrl-C or SIGTERM."""
    listener = socket.create_server((arguments.host, arguments.port))
    host, port = listener.getsockname()[:2]
    config = Config()
    config.bind = [f"fd://{listener.detach()}"]  # Hypercorn closes the socket
    config.graceful_timeout = 1.0
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with (
            open_server(arguments.url, answer_slowly) as options,
            open_pool(**options) as pool,
        ):
            print(f"open http://{host}:{port}/", flush=True)

            async def stop() -> None:
                await anext(signals)

            await serve(make_app(pool, arguments.model), config, shutdown_trigger=stop)


def parse() -> Namespace:
    """Return the parsed command line."""
    parser = argument_parser("A web service that streams answers to browsers.")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    parser.add_argument(
        "--port", type=int, default=0, help="port to listen on; 0, the default, takes a free one"
    )
    return parser.parse_args()


if __name__ == "__main__":
    trio.run(main, parse())
