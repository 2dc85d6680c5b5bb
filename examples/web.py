"""A web service on several processes: any of them continues the conversation of any browser.

Each process serves the same port and has a pool of connections. A conversation is kept in a store:
SQLite by default; Redis or PostgreSQL for processes on several machines.

- The browser gets the answer by server-sent events while it is written.
- A browser that leaves, or whose user clicks Stop, cancels its turn. Over HTTP, the default here,
  the server then stops the response; on a WebSocket it would finish it (``--transport``).
- After a reload the conversation goes on. A question without an answer is asked again, with the
  same request id: if its answer is in the store already, the model is not asked twice.
- While one process answers, the others ask the browser of that conversation to try again later.
- A process that was killed is replaced, and its conversations go on after the lease.
- At SIGTERM a process gives its turns four seconds to end.

Run it: ``pip install ".[examples]"`` in the checkout, then ``python -m examples.web``.
"""
# ruff: noqa: T201 - this program prints its results

import json
import os
import signal
import socket
import sys
from argparse import Namespace
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType

import msgspec
import trio
from hypercorn.config import Config
from hypercorn.trio import serve  # pyright: ignore[reportUnknownVariableType]
from quart import Response, request
from quart.wrappers.response import ResponseBody
from quart_trio import QuartTrio
from trio.abc import ReceiveChannel

from examples.server import argument_parser, open_server, supervise
from trio_responses import ResponsesError, ResponsesPool, open_pool
from trio_responses.stores import (
    ConversationBusy,
    PostgresStore,
    RedisStore,
    SQLiteStore,
    StoreUnavailable,
)
from trio_responses.testing import Reply, Request, default_answer
from trio_responses.types import OutputTextDelta

PAGE = Path(__file__).with_name("web.html").read_text(encoding="utf-8")
WAIT = 1.0  # seconds to wait for a process that answers


def open_store(url: str) -> SQLiteStore | RedisStore | PostgresStore:
    """Return the store of a URL, or the SQLite database of a path."""
    if url.startswith(("redis:", "rediss:", "unix:")):
        return RedisStore(url)
    return PostgresStore(url) if url.startswith("postgres") else SQLiteStore(url)


class Question(msgspec.Struct):
    """What a browser sends."""

    conversation: str
    request_id: str
    text: str


def sse(**event: object) -> str:
    """Return a server-sent event."""
    return f"data: {json.dumps(event)}\n\n"


class EventBody(ResponseBody):
    """The body of a response: events, which are cancelled when the browser leaves."""

    def __init__(self, events: AbstractAsyncContextManager[ReceiveChannel[str]]) -> None:
        self.events = events

    async def __aenter__(self) -> ReceiveChannel[str]:
        """Start to make events."""
        return await self.events.__aenter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Cancel what makes the events."""
        await self.events.__aexit__(kind, error, traceback)


@dataclass
class Service:
    """Answers questions in conversations."""

    backend: SQLiteStore | RedisStore | PostgresStore
    pool: ResponsesPool
    model: str
    lease: float

    async def ask(self) -> Response:
        """Answer a POST with the events of a turn.

        The body is JSON, which a page of another site cannot send. A real service takes the id of
        the conversation from the user's session, and not from the browser.
        """
        if not request.is_json:
            return Response("The body must be JSON.", 415)
        try:
            question = msgspec.json.decode(await request.get_data(), type=Question)
        except msgspec.MsgspecError as error:
            return Response(str(error), 400)
        response = Response(EventBody(self.answer(question)), content_type="text/event-stream")
        response.headers["Cache-Control"] = "no-store"
        response.timeout = None  # a turn may take minutes
        return response

    @trio.as_safe_channel  # the generator holds nurseries while it yields
    async def answer(self, question: Question) -> AsyncGenerator[str, None]:
        """Run a turn, or find its answer in the store, and yield it piece by piece."""
        try:
            async with (
                self.pool.durable_conversation(
                    self.backend,
                    f"web-{question.conversation}",
                    wait=WAIT,
                    lease_seconds=self.lease,
                    model=self.model,
                    store=False,
                ) as conversation,
                conversation.run_stream(question.text, request_id=question.request_id) as run,
            ):
                async for event in run:
                    if isinstance(event, OutputTextDelta):
                        yield sse(text=event.delta)
            yield sse(answer=run.response.output_text, process=os.getpid())
        except ConversationBusy as busy:
            yield sse(retry_after=min(busy.seconds_left, WAIT))
        except StoreUnavailable:
            yield sse(retry_after=5)
        except ResponsesError as error:
            yield sse(error=f"No answer: {error}.")


async def run_process(arguments: Namespace) -> None:
    """Serve requests from the socket of the parent until SIGTERM or Ctrl-C."""
    config = Config()
    config.bind = [f"fd://{arguments.socket}"]
    config.graceful_timeout = 4.0  # the parent kills a process after five seconds
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with (
            open_store(arguments.store) as backend,
            open_server(arguments.url) as options,
            open_pool(**options, transport=arguments.transport) as pool,
        ):
            app = QuartTrio(__name__)
            service = Service(backend, pool, arguments.model, arguments.lease)

            async def page() -> str:
                return PAGE

            async def stop() -> None:
                await anext(signals)

            app.add_url_rule("/", view_func=page)
            app.add_url_rule("/ask", view_func=service.ask, methods=["POST"])
            await serve(app, config, shutdown_trigger=stop)


async def main(arguments: Namespace) -> None:
    """Start the processes, and start them again when they end, until SIGTERM or Ctrl-C."""
    if arguments.socket is not None:
        await run_process(arguments)
        return
    listener = socket.create_server((arguments.host, arguments.port))
    host, port = listener.getsockname()[:2]
    command = [sys.executable, "-m", "examples.web", *sys.argv[1:]]
    command += ["--socket", str(listener.fileno())]
    with listener, trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with (
            open_server(arguments.url, answer_slowly) as options,
            trio.open_nursery() as nursery,
        ):
            command += ["--url", options["endpoint"].url]
            for _ in range(arguments.processes):
                nursery.start_soon(partial(supervise, command, pass_fds=[listener.fileno()]))
            print(f"open http://{host}:{port}/", flush=True)
            await anext(signals)
            nursery.cancel_scope.cancel()


def answer_slowly(question: Request) -> Reply:
    """Return the answer of the embedded server, with a delay between the pieces."""
    return Reply(default_answer(question).text, delay=0.03)


def parse() -> Namespace:
    """Return the parsed command line."""
    parser = argument_parser("A web service on several processes that streams answers to browsers.")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    parser.add_argument(
        "--port", type=int, default=0, help="port to listen on; 0, the default, takes a free one"
    )
    parser.add_argument(
        "--store",
        default="chats.db",
        help="path of a SQLite database (%(default)s), or URL of Redis or PostgreSQL",
    )
    parser.add_argument("--processes", type=int, default=2, help="how many (%(default)s)")
    parser.add_argument(
        "--lease",
        type=float,
        default=10.0,
        help="seconds after which another process takes over from a killed one (%(default)s)",
    )
    parser.add_argument(
        "--transport",
        choices=("http", "websocket", "auto"),
        default="http",
        help="how to reach the server (%(default)s); on a WebSocket turns send less, but Stop does"
        " not stop the server",
    )
    parser.add_argument("--socket", type=int, help="serve this socket, as a process of the service")
    return parser.parse_args()


if __name__ == "__main__":
    trio.run(main, parse())
